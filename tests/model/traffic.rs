//! Random packets: of flows as their ends would send them, from new clients, from strangers, and damaged ones.

use super::craft;
use super::flows::Flow;
use super::model::Model;
use super::random::Random;
use super::setup::{self, NETWORKS, VIPS};
use super::wire::{self, ACK, FIN, RST, Read, SYN};
use equipoise::flow::TimeoutState;
use equipoise::packet::{Meta, Protocol, Side};
use std::net::{IpAddr, SocketAddr};

/// The contents of a packet to be written.
struct Draft {
    protocol: Protocol,
    src: SocketAddr,
    dst: SocketAddr,
    /// The flags, sequence and acknowledgement numbers of a TCP segment.
    numbers: (u8, u32, u32),
    /// Whether an echo is a request.
    request: bool,
    payload: usize,
}

fn one_of<T: Copy>(random: &mut Random, from: &[T]) -> T {
    *random.pick(from).expect("a non-empty choice")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns the next packet, with its metadata from the device.
pub fn packet(random: &mut Random, model: &Model) -> (Vec<u8>, Meta) {
    if random.per_mille(120)
        && let Some(reply) = reply(random, model)
    {
        return (reply, Meta::default());
    }
    if random.per_mille(60)
        && let Some(flow) = random.pick(&model.flows.all).cloned()
    {
        return (error(random, &flow), Meta::default());
    }
    let late = if random.per_mille(40) { late(random, model) } else { None };
    let draft = match random.below(100) {
        _ if late.is_some() => late.expect("a draft"),
        0..4 if model.flows.all.iter().any(asks_again) => anew(random, model),
        0..55 if !model.flows.all.is_empty() => {
            let flow = random.pick(&model.flows.all).expect("a non-empty table").clone();
            of_flow(random, &flow, setup::is_patient(&model.settings))
        }
        0..85 => asks(random, &model.flows.all),
        85..95 => stray(random),
        _ => foreign(random),
    };
    let mut bytes = write(random, &draft);
    if random.per_mille(40) {
        meet_zero(random, &mut bytes, model);
    }
    let mut meta = Meta::default();
    let ported = matches!(draft.protocol, Protocol::Tcp | Protocol::Udp);
    if let Read::Packet(read) = wire::read(&bytes)
        && ported
        && random.per_mille(40)
    {
        meta.partial_checksum = true;
        craft::leave_to_the_device(&mut bytes, &read);
        if random.per_mille(500) {
            meta.gso_size = one_of(random, &[1, 7, 100]);
        }
    } else if random.per_mille(60) {
        damage(random, &mut bytes);
    }
    if random.per_mille(30) {
        bytes.resize(bytes.len() + random.below(20) as usize, 0xee);
    }
    (bytes, meta)
}

/// Returns an ICMP error about a packet of a flow as it was forwarded; occasionally one about a different packet, or
/// sent to a different destination.
fn error(random: &mut Random, flow: &Flow) -> Vec<u8> {
    let sender = if random.per_mille(600) { Side::Client } else { Side::Server };
    let mut draft = of_flow(random, &Flow { packets: [1, 1], ..flow.clone() }, false);
    let (dst, src) = flow.ends(sender.other());
    (draft.src, draft.dst) = (src, dst);
    draft.request = sender == Side::Client;
    let end = flow.tcp.ends[sender as usize];
    draft.numbers.1 = end.next.unwrap_or(0).wrapping_sub(one_of(random, &[0, 1, 1, 20, 3 << 20]));
    if random.per_mille(100) {
        draft.src.set_port(7);
    }
    let mut inner = write(random, &draft);
    let (v6, header) = (src.is_ipv6(), if src.is_ipv6() { 40 } else { 20 });
    match random.below(10) {
        0..4 => inner.truncate(header + 8),
        4 => inner.truncate(random.below(inner.len() as u64 + 1) as usize),
        5 => inner[10] ^= 1,
        _ => inner.truncate(500),
    }
    let (kind, code) = if v6 {
        one_of(random, &[(1, 0), (1, 4), (2, 0), (2, 0), (3, 0), (4, 1), (137, 0), (133, 0)])
    } else {
        one_of(random, &[(3, 1), (3, 3), (3, 3), (3, 4), (3, 4), (11, 0), (12, 0), (4, 0), (5, 1), (13, 0)])
    };
    let told = if (kind, code) == (3, 4) || kind == 2 { one_of(random, &[0u32, 60, 68, 1279, 1280, 1400]) } else { 0 };
    let message = [&[kind, code, 0, 0][..], &told.to_be_bytes(), &inner].concat();
    let router = if v6 { "2001:db8:ffff::1" } else { "10.0.0.254" };
    let from = if random.per_mille(600) { dst.ip() } else { ip(router) };
    let to = if random.per_mille(950) { src.ip() } else { client(random, v6) };
    let mut bytes = craft::packet(from, to, if v6 { 58 } else { 1 }, 60, &message);
    if random.per_mille(40) {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    }
    bytes
}

/// Returns a server's reply to a monitor's request, occasionally damaged.
fn reply(random: &mut Random, model: &Model) -> Option<Vec<u8>> {
    // Every third server rarely replies.
    let answers = random.per_mille(50);
    let answering = model.watches.iter().filter(|watch| watch.server % 3 != 1 || answers);
    let asked = answering.filter_map(|watch| watch.asked.as_ref().map(|(_, request)| request));
    let asked: Vec<&Vec<u8>> = asked.collect();
    let mut reply = super::monitor::reply(random.pick(&asked)?);
    if random.per_mille(150) {
        let bit = random.below(reply.len() as u64 * 8) as usize;
        reply[bit / 8] ^= 1 << (bit % 8);
        if reply[0] == 0x45 {
            wire::seal(&mut reply);
        }
        if let Read::Packet(packet) = wire::read(&reply)
            && random.per_mille(700)
        {
            craft::complete(&mut reply, &packet);
        }
    }
    Some(reply)
}

fn client(random: &mut Random, v6: bool) -> IpAddr {
    let odd = random.per_mille(30);
    ip(match (v6, odd) {
        (false, false) => {
            one_of(random, &["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.9", "198.51.101.1"])
        }
        (true, false) => one_of(random, &["2001:db8:c::1", "2001:db8:c::2", "2001:db8:c:1::1", "2001:db8:d::1"]),
        (false, true) => {
            one_of(random, &["0.1.2.3", "127.0.0.1", "224.0.0.5", "255.255.255.255", "10.0.9.1", VIPS[0], VIPS[1]])
        }
        (true, true) => one_of(random, &["::", "::1", "ff02::1", "fd00:9::1", VIPS[2], VIPS[3]]),
    })
}

fn port(random: &mut Random) -> u16 {
    one_of(random, &[0, 53, 1000, 1000, 1001, 1002, 1003, 40_000, 40_001, 40_002])
}

/// Returns a segment of a connection that has ended.
fn late(random: &mut Random, model: &Model) -> Option<Draft> {
    let recent = &model.flows.recent;
    let (src, dst, _) = *random.pick(&recent[recent.len().saturating_sub(8)..])?;
    let flags = one_of(random, &[ACK, ACK, ACK, ACK | FIN, RST, RST | ACK, SYN, SYN | ACK]);
    let numbers = (flags, random.next() as u32, random.next() as u32);
    Some(Draft { protocol: Protocol::Tcp, src, dst, numbers, request: true, payload: payload(random) })
}

/// Returns whether a client may ask for another connection: after the end of one, or because nobody has answered.
fn asks_again(flow: &Flow) -> bool {
    flow.has_ended() || flow.tcp.doubted
}

/// Returns a SYN that asks for another connection from the port of one that has ended or is silent: to the same service
/// address, or to another.
fn anew(random: &mut Random, model: &Model) -> Draft {
    let ended: Vec<&Flow> = model.flows.all.iter().filter(|flow| asks_again(flow)).collect();
    let flow = *random.pick(&ended).expect("a flow whose client asks again");
    let others: Vec<SocketAddr> = model
        .flows
        .all
        .iter()
        .filter(|other| other.listen.is_ipv6() == flow.listen.is_ipv6())
        .map(|other| other.listen)
        .collect();
    let known = if flow.listen.is_ipv6() { VIPS[2] } else { VIPS[0] };
    let vips = [flow.listen, SocketAddr::new(ip(known), 80), SocketAddr::new(ip(known), 53)];
    let dst = if random.per_mille(500) { one_of(random, &vips) } else { one_of(random, &others) };
    let numbers = (SYN, random.next() as u32, 0);
    Draft { protocol: Protocol::Tcp, src: flow.client, dst, numbers, request: true, payload: 0 }
}

/// Returns the first packets of several flows of one protocol.
pub fn flood(random: &mut Random) -> Vec<Vec<u8>> {
    let protocol = one_of(random, &[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
    let mut packets = Vec::new();
    let count = 5 + random.below(30) as usize;
    while packets.len() < count {
        let draft = asks(random, &[]);
        if draft.protocol == protocol {
            packets.push(write(random, &draft));
        }
    }
    packets
}

/// Returns a client's first packet to a service, or to an address or port where nothing listens.
fn asks(random: &mut Random, flows: &[Flow]) -> Draft {
    let v6 = random.per_mille(300);
    let net = NETWORKS[usize::from(v6)].split('/').next().expect("an address");
    let vips = if v6 {
        [VIPS[2], VIPS[2], VIPS[3], "2001:db8:1::7", net, net]
    } else {
        [VIPS[0], VIPS[0], VIPS[1], "203.0.113.5", "203.0.113.6", "203.0.113.9"]
    };
    let mut dst = one_of(random, &vips);
    let protocol =
        one_of(random, &[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Udp, Protocol::Icmp, Protocol::Ip(47)]);
    if protocol == Protocol::Icmp && !v6 {
        dst = one_of(random, &[VIPS[0], VIPS[1], VIPS[1], "192.0.2.91", "192.0.2.91", "203.0.113.5"]);
    }
    let to = match protocol {
        Protocol::Tcp => one_of(random, &[80, 80, 80, 81, 53, 7]),
        Protocol::Udp => one_of(random, &[53, 53, 54, 60, 61, 80]),
        _ => 0,
    };
    // Sometimes the client and port of another flow: if both go to the same server, its replies would look the same.
    let known = random.pick(flows).map(|flow| flow.client).filter(|client| client.is_ipv6() == v6);
    let src = match known.filter(|_| random.per_mille(250)) {
        Some(client) => client,
        None => SocketAddr::new(client(random, v6), port(random)),
    };
    let numbers = (if random.per_mille(930) { SYN } else { SYN | ACK }, random.next() as u32, random.next() as u32);
    let request = random.per_mille(950);
    Draft { protocol, src, dst: SocketAddr::new(ip(dst), to), numbers, request, payload: payload(random) }
}

/// Returns a packet that belongs to no flow: a midstream segment without a connection, or a packet from a server.
fn stray(random: &mut Random) -> Draft {
    let mut draft = asks(random, &[]);
    draft.numbers.0 = one_of(random, &[ACK, ACK | FIN, RST, RST | ACK, FIN, ACK | 8]);
    draft.request = random.per_mille(500);
    if random.per_mille(500) {
        let v6 = draft.src.is_ipv6();
        let n = random.below(8) + 1;
        let server = if v6 { format!("fd00::{n}") } else { format!("10.0.2.{n}") };
        let from = one_of(random, &[80, 8080, 9000, 53, 5]);
        (draft.src, draft.dst) =
            (SocketAddr::new(ip(&server), from), SocketAddr::new(client(random, v6), port(random)));
    }
    draft
}

fn foreign(random: &mut Random) -> Draft {
    let mut draft = asks(random, &[]);
    let far = if draft.src.is_ipv6() { "2001:4860::8" } else { "8.8.8.8" };
    draft.dst.set_ip(ip(far));
    draft
}

fn payload(random: &mut Random) -> usize {
    match random.below(100) {
        0..50 => 0,
        50..90 => random.below(30) as usize,
        90..95 => 900 + random.below(200) as usize,
        _ => 1200 + random.below(300) as usize,
    }
}

/// Returns a packet of a flow that obeys or violates the protocol; `patient` flows mostly go on.
fn of_flow(random: &mut Random, flow: &Flow, patient: bool) -> Draft {
    let side = if random.per_mille(500) { Side::Client } else { Side::Server };
    let (src, dst) = flow.ends(side);
    let [own, other] = [side, side.other()].map(|side| flow.tcp.ends[side as usize]);
    let fresh = random.next() as u32;
    let (seq, ack) = (own.next.unwrap_or(fresh), other.next.unwrap_or(fresh));
    let opening = flow.state == TimeoutState::Opening && random.per_mille(850);
    let flags = match side {
        // The next steps of the handshake.
        Side::Server if opening && own.next.is_none() => SYN | ACK,
        Side::Server if opening => one_of(random, &[SYN | ACK, ACK, RST | ACK]),
        Side::Client if opening && other.next.is_some() => one_of(random, &[ACK, ACK, ACK, ACK, SYN, RST]),
        Side::Client if opening => SYN,
        _ if patient && random.per_mille(700) => ACK,
        _ => one_of(random, &[ACK, ACK, ACK, ACK | 8, ACK | FIN, ACK | FIN, RST, RST | ACK, SYN, SYN | ACK, FIN]),
    };
    let seq = if opening && flags & SYN != 0 { own.next.map_or(fresh, |next| next.wrapping_sub(1)) } else { seq };
    let seq = if random.per_mille(200) { strayed(random, seq) } else { seq };
    let ack = if random.per_mille(150) { strayed(random, ack) } else { ack };
    let request = (side == Side::Client) == random.per_mille(950);
    if let (Some(asked), Side::Server) = (flow.tcp.asked_for, side)
        && random.per_mille(300)
    {
        // A server that does not know the connection refuses another one.
        let numbers = (RST | ACK, 0, if random.per_mille(800) { asked } else { strayed(random, asked) });
        return Draft { protocol: flow.protocol, src, dst, numbers, request, payload: 0 };
    }
    Draft { protocol: flow.protocol, src, dst, numbers: (flags, seq, ack), request, payload: payload(random) }
}

fn strayed(random: &mut Random, number: u32) -> u32 {
    let far =
        one_of(random, &[1, 2, 100, 5000, 70_000, 2 << 20, (2 << 20) + 1, 3 << 20, 1 << 30, (1 << 30) + 1, 1 << 31]);
    if random.per_mille(500) { number.wrapping_add(far) } else { number.wrapping_sub(far) }
}

fn write(random: &mut Random, draft: &Draft) -> Vec<u8> {
    let v6 = draft.src.is_ipv6();
    let data: Vec<u8> = (0..draft.payload).map(|i| i as u8).collect();
    let ports = [draft.src.port().to_be_bytes(), draft.dst.port().to_be_bytes()].concat();
    let (number, transport) = match draft.protocol {
        Protocol::Tcp => {
            let (flags, seq, ack) = draft.numbers;
            let options: &[u8] = match random.below(4) {
                0 if flags & SYN != 0 => &[2, 4, 0x05, 0xb4],
                1 if flags & SYN != 0 => &[1, 2, 4, 0x03, 0x85, 1, 1, 0],
                2 => &[1, 1, 1, 0],
                _ => &[],
            };
            let mut header = ports;
            header.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
            header.extend([(5 + options.len() as u8 / 4) << 4, flags, 0x10, 0, 0, 0, 0, 0]);
            (6, [&header, options, &data].concat())
        }
        Protocol::Udp => {
            let len = (8 + data.len() as u16).to_be_bytes();
            (17, [&ports[..], &len, &[0, 0], &data].concat())
        }
        Protocol::Icmp => {
            let kind = if v6 { [129, 128] } else { [0, 8] }[usize::from(draft.request)];
            let id = if draft.dst.port() == 0 { draft.src.port() } else { draft.dst.port() }.to_be_bytes();
            (if v6 { 58 } else { 1 }, [&[kind, 0, 0, 0], &id[..], &[0, random.below(2) as u8], &data].concat())
        }
        Protocol::Sctp => (132, data),
        Protocol::Ip(number) => (number, [&[0; 4][..], &data].concat()),
    };
    let hops = if random.per_mille(30) { random.below(2) as u8 } else { 2 + random.below(200) as u8 };
    let mut bytes = craft::packet(draft.src.ip(), draft.dst.ip(), number, hops, &transport);
    let at = if v6 { 40 } else { 20 };
    if number == 17 && random.per_mille(50) {
        bytes[at + 6..at + 8].fill(0);
    }
    if !v6 && random.per_mille(500) {
        bytes[4] = random.next() as u8;
        bytes[6] = 0;
        wire::seal(&mut bytes);
    }
    bytes
}

/// Changes the payload so that the transport checksum comes out as zero: that of the packet, or that of the packet
/// after translation.
fn meet_zero(random: &mut Random, bytes: &mut [u8], model: &Model) {
    let Read::Packet(packet) = wire::read(bytes) else { return };
    let Some((protocol, src, dst)) = packet.ends() else { return };
    let (Some(field), last) = (packet.sum_at(), (packet.len - 2) & !1) else { return };
    let header = if protocol == Protocol::Tcp { 40 } else { 8 };
    if last < packet.at + header {
        return;
    }
    let becomes = model.flows.find(protocol, src, dst).map(|(place, side)| model.flows.all[place].ends(side.other()));
    let (dst, src) = becomes.filter(|_| random.per_mille(600)).unwrap_or((dst, src));
    craft::complete(bytes, &packet);
    let out = craft::translated(bytes, &packet, src, dst, false);
    // A checksum of zero is written as all ones where zero would mean that there is none.
    wire::put(bytes, last, wire::plus(wire::word(bytes, last), wire::word(&out, field)));
    craft::complete(bytes, &packet);
}

/// Damages a packet: a bit, its end, a length, a flag.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = if bytes[0] >> 4 == 6 { 40 } else { 20 };
    match random.below(10) {
        0 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
        1 => bytes[0] = one_of(random, &[0x10, 0x44, 0x4f, 0x55]),
        2 => bytes[if at == 40 { 5 } else { 3 }] ^= one_of(random, &[1, 0x10, 0x80]),
        3 => bytes[10] ^= 0xff,
        4 if bytes.len() > at + 13 => bytes[at + 13] = one_of(random, &[0, 3, 6, 7, 8]),
        5 if bytes.len() > at + 12 => bytes[at + 12] = one_of(random, &[0, 0x40, 0xf0]),
        // The low byte of the TCP checksum.
        7 | 8 if bytes.len() > at + 17 => bytes[at + 17] ^= 1,
        6 if bytes.len() > at + 5 => bytes[at + 5] = one_of(random, &[0, 7, 9, 0xff]),
        _ => {
            let bit = random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    if random.per_mille(500) && bytes.len() >= 20 && bytes[0] == 0x45 {
        wire::seal(bytes);
    }
}
