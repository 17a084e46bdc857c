//! Simulated servers: a clock, a wire with delays, and replies built by etherparse, not by the code under test.

use super::settings::{Expect, Floor, HttpProbe, MonitorSettings, PoolWatch, Probe, ServerWatch, WatchedPort};
use super::{HealthEvent, HealthSettings, Monitors, Taken};
use crate::ids::{PoolId, ServerId};
use crate::packet::{Addresses, Meta, Parsed, TcpFlags, Transport, checksum, parse, proto, word};
use crate::time::{Duration, Instant};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use std::collections::BTreeMap;

pub(super) const SYN: u8 = TcpFlags::SYN;
pub(super) const ACK: u8 = TcpFlags::ACK;
pub(super) const RST: u8 = TcpFlags::RST;
pub(super) const FIN: u8 = TcpFlags::FIN;

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A monitor by which one probe decides.
pub(super) fn fall_1(probe: Probe) -> MonitorSettings {
    MonitorSettings { fall: 1, rise: 1, ..monitor(probe) }
}

/// Makes settings with `servers` servers 10.0.0.1 … and fd00::1 … on port 80.
pub(super) fn settings(servers: u32, families: &str, monitors: Vec<MonitorSettings>) -> HealthSettings {
    let watch = |i: u32| ServerWatch {
        server: ServerId(i - 1),
        v4: families.contains('4').then(|| (0x0a00_0000 + i).into()),
        v6: families.contains('6').then(|| ((0xfd00_u128 << 112) + u128::from(i)).into()),
        ports: vec![WatchedPort { port: 80, tcp: true, udp: true }],
    };
    HealthSettings {
        seed: 7,
        source_v4: Some([192, 0, 2, 1].into()),
        source_v6: Some("2001:db8::1".parse().unwrap()),
        pools: vec![PoolWatch {
            pool: PoolId(0),
            monitors,
            floor: Floor::None,
            servers: (1..=servers).map(watch).collect(),
        }],
    }
}

/// Makes a monitor that probes every second with a timeout of half a second.
pub(super) fn monitor(probe: Probe) -> MonitorSettings {
    MonitorSettings {
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        ..MonitorSettings::new("m", probe)
    }
}

pub(super) fn http(change: impl FnOnce(&mut HttpProbe)) -> Probe {
    let mut probe = HttpProbe::default();
    change(&mut probe);
    Probe::Http(probe)
}

pub(super) fn contains(text: &str) -> Option<Expect> {
    Some(Expect::Contains(text.into()))
}

/// A packet on the wire: it arrives after the delay.
pub(super) type Packet = (Duration, Vec<u8>, Meta);

/// The monitors with a clock and a wire.
pub(super) struct Sim {
    pub health: Monitors,
    pub now: Instant,
    wire: BTreeMap<(Instant, usize), (Vec<u8>, Meta)>,
    count: usize,
    pub sent: Vec<(Instant, Vec<u8>)>,
    pub events: Vec<HealthEvent>,
    pub taken: Vec<Taken>,
}

impl Sim {
    pub(super) fn new(settings: &HealthSettings) -> Sim {
        Sim {
            health: Monitors::new(settings),
            now: Instant::from_nanos(5_000_000_000),
            wire: BTreeMap::new(),
            count: 0,
            sent: Vec::new(),
            events: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Puts a packet on the wire.
    pub(super) fn put(&mut self, (delay, bytes, meta): Packet) {
        self.count += 1;
        self.wire.insert((self.now + delay, self.count), (bytes, meta));
    }

    /// Runs for a time span; `servers` returns the replies to each packet.
    pub(super) fn run(&mut self, span: Duration, servers: &mut dyn FnMut(&[u8], &Parsed) -> Vec<Packet>) {
        let end = self.now + span;
        let mut buf = vec![0; 65_536];
        loop {
            while let Some((len, _)) = self.health.poll_transmit(self.now, &mut buf) {
                let parsed = parse(&buf[..len]).expect("probes are well-formed");
                assert_eq!(parsed.len, len);
                self.sent.push((self.now, buf[..len].to_vec()));
                servers(&buf[..len], &parsed).into_iter().for_each(|packet| self.put(packet));
            }
            self.events.extend(std::iter::from_fn(|| self.health.poll_event()));
            let arrives = self.wire.keys().next().copied();
            let due = self.health.poll_timeout();
            let next = arrives.map(|(at, _)| at).into_iter().chain(due).min().unwrap_or(end).max(self.now);
            if next >= end {
                self.now = end;
                return;
            }
            self.now = next;
            match arrives.filter(|(at, _)| *at <= next) {
                Some(key) => {
                    let (bytes, meta) = self.wire.remove(&key).unwrap();
                    let parsed = parse(&bytes).unwrap();
                    assert!(self.health.is_ours(&parsed.addresses));
                    self.taken.push(self.health.handle_packet(next, &bytes, &parsed, meta));
                }
                None => self.health.handle_timeout(next),
            }
        }
    }

    /// Returns the events in words: `1 up: why`, with the number of the server from 1.
    pub(super) fn reported(&mut self) -> Vec<String> {
        let events = std::mem::take(&mut self.events);
        let reported = events.into_iter().filter(|event| !matches!(event, HealthEvent::Latency { .. }));
        let word = |e: HealthEvent| match e {
            HealthEvent::Latency { .. } => unreachable!("filtered out"),
            HealthEvent::Transition { server, up, why, .. } => {
                format!("{} {}: {why}", server.0 + 1, if up { "up" } else { "down" })
            }
            HealthEvent::KeptByFloor { server, why, .. } => format!("{} kept: {why}", server.0 + 1),
            HealthEvent::Load { server, load, maintenance, .. } => {
                format!("{} load {load}{}", server.0 + 1, if maintenance { " maintenance" } else { "" })
            }
        };
        reported.map(word).collect()
    }
}

pub(super) fn ip(addresses: &Addresses) -> PacketBuilderStep<IpHeaders> {
    match *addresses {
        Addresses::V4 { src, dst } => PacketBuilder::ipv4(src.to_be_bytes(), dst.to_be_bytes(), 60),
        Addresses::V6 { src, dst } => PacketBuilder::ipv6(src.to_be_bytes(), dst.to_be_bytes(), 60),
    }
}

/// Delays a packet by 10 ms.
pub(super) fn soon(bytes: Vec<u8>) -> Vec<Packet> {
    vec![(Duration::from_millis(10), bytes, Meta::default())]
}

/// Builds a TCP segment in reply to `to`.
pub(super) fn segment(to: &Parsed, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let Transport::Tcp { src, dst, .. } = to.transport else { panic!() };
    let mut builder = ip(&to.addresses.reversed()).tcp(dst, src, seq, 64_000);
    for (flag, set) in [SYN, RST, FIN].map(|flag| (flag, flags & flag != 0)) {
        builder = match flag {
            SYN if set => builder.syn(),
            RST if set => builder.rst(),
            FIN if set => builder.fin(),
            _ => builder,
        };
    }
    if flags & ACK != 0 {
        builder = builder.ack(ack);
    }
    let mut out = Vec::new();
    builder.write(&mut out, payload).unwrap();
    out
}

/// Builds a UDP datagram in reply to `to`.
pub(super) fn datagram(to: &Parsed, payload: &[u8]) -> Vec<u8> {
    let Transport::Udp { src, dst } = to.transport else { panic!() };
    let mut out = Vec::new();
    ip(&to.addresses.reversed()).udp(dst, src).write(&mut out, payload).unwrap();
    out
}

/// Builds the reply to an echo request, with its payload.
pub(super) fn echo_reply(packet: &[u8], to: &Parsed) -> Vec<u8> {
    let Transport::Echo { request: true, id } = to.transport else { panic!() };
    let (seq, payload) = (word(packet, to.offset + 6), &packet[to.offset + 8..]);
    let (mut out, builder) = (Vec::new(), ip(&to.addresses.reversed()));
    match to.protocol {
        proto::ICMP => builder.icmpv4_echo_reply(id, seq).write(&mut out, payload),
        _ => builder.icmpv6_echo_reply(id, seq).write(&mut out, payload),
    }
    .unwrap();
    out
}

/// Builds an ICMP error "port unreachable" that quotes `quoted` bytes of a packet.
pub(super) fn unreachable(packet: &[u8], to: &Parsed, quoted: usize) -> Vec<u8> {
    let quote = &packet[..quoted.min(packet.len())];
    let (mut out, builder) = (Vec::new(), ip(&to.addresses.reversed()));
    match to.addresses {
        Addresses::V4 { .. } => builder.icmpv4_raw(3, 3, [0; 4]).write(&mut out, quote),
        Addresses::V6 { .. } => builder.icmpv6_raw(1, 4, [0; 4]).write(&mut out, quote),
    }
    .unwrap();
    out
}

/// Replaces the checksum of a TCP segment by the sum of the pseudo-header.
pub(super) fn make_partial(packet: &mut [u8]) {
    let parsed = parse(packet).unwrap();
    let sum = checksum::fold(checksum::pseudo(&parsed.addresses, proto::TCP, parsed.len - parsed.offset));
    packet[parsed.offset + 16..parsed.offset + 18].copy_from_slice(&sum.to_be_bytes());
}

/// A web server that sends the same reply to every request.
pub(super) struct WebServer {
    pub reply: Vec<u8>,
    /// Whether it closes the connection after the reply.
    pub closes: bool,
    /// Maximum payload of a packet; above 1400 it sends super-packets with partial checksums.
    pub segment: usize,
    /// Delay before each packet.
    pub delay: Duration,
    pub requests: Vec<String>,
    pub resets: usize,
    /// Connections that the client closed in order.
    pub fins: usize,
    pub ignores_fin: bool,
    connections: BTreeMap<(Addresses2, u16), Connection>,
}

type Addresses2 = (std::net::IpAddr, std::net::IpAddr);

#[derive(Default)]
struct Connection {
    request: Vec<u8>,
    next: u32,
    sent: usize,
    served: bool,
}

/// Initial sequence number of the server, chosen so that the reply wraps around.
const ISS: u32 = u32::MAX - 9;

impl WebServer {
    pub(super) fn new(reply: &[u8]) -> WebServer {
        WebServer {
            reply: reply.to_vec(),
            closes: true,
            segment: 1000,
            delay: Duration::from_millis(5),
            requests: Vec::new(),
            resets: 0,
            fins: 0,
            ignores_fin: false,
            connections: BTreeMap::new(),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn answer(&mut self, packet: &[u8], parsed: &Parsed) -> Vec<Packet> {
        let Transport::Tcp { src, flags, seq, ack, header, .. } = parsed.transport else { panic!() };
        let key = ((parsed.addresses.src(), parsed.addresses.dst()), src);
        if flags.rst() {
            self.resets += 1;
            self.connections.remove(&key);
            return Vec::new();
        }
        if flags.syn() {
            self.connections.insert(key, Connection { next: seq.wrapping_add(1), ..Connection::default() });
            return vec![(self.delay, segment(parsed, ISS, seq.wrapping_add(1), SYN | ACK, b""), Meta::default())];
        }
        let Some(connection) = self.connections.get_mut(&key) else { return Vec::new() };
        if flags.fin() && self.ignores_fin {
            return Vec::new();
        }
        if flags.fin() {
            self.fins += 1;
            let own = if self.closes { 1 } else { 0 };
            let next = ISS.wrapping_add(1).wrapping_add(connection.sent as u32 + own);
            let ends = if self.closes { ACK } else { ACK | FIN };
            self.connections.remove(&key);
            return vec![(self.delay, segment(parsed, next, seq.wrapping_add(1), ends, b""), Meta::default())];
        }
        let payload = &packet[parsed.offset + usize::from(header)..];
        connection.request.extend_from_slice(payload);
        connection.next = connection.next.wrapping_add(payload.len() as u32);
        if !connection.request.ends_with(b"\r\n\r\n") {
            return Vec::new();
        }
        if !connection.served {
            connection.served = true;
            self.requests.push(String::from_utf8(connection.request.clone()).unwrap());
        }
        let acked = ack.wrapping_sub(ISS.wrapping_add(1)) as usize;
        let window = usize::from(word(packet, parsed.offset + 14));
        let mut out = Vec::new();
        while connection.sent < self.reply.len().min(acked + window) {
            let end = (connection.sent + self.segment).min(acked + window).min(self.reply.len());
            let fin = if self.closes && end == self.reply.len() { FIN } else { 0 };
            let seq = ISS.wrapping_add(1).wrapping_add(connection.sent as u32);
            let mut bytes = segment(parsed, seq, connection.next, ACK | fin, &self.reply[connection.sent..end]);
            let mut meta = Meta::default();
            if end - connection.sent > 1400 {
                make_partial(&mut bytes);
                meta = Meta { partial_checksum: true, gso_size: 1400, ..Meta::default() };
            }
            out.push((self.delay, bytes, meta));
            connection.sent = end;
        }
        out
    }
}
