//! Talks of clients with services, packet by packet.

use super::super::super::*;
use crate::packet::Protocol;
use crate::rng::Rng;
use etherparse::PacketBuilder;
use std::net::{IpAddr, SocketAddr};

/// One client's traffic with a service.
#[derive(Debug, Clone)]
pub(super) struct Talk {
    pub(super) protocol: Protocol,
    pub(super) client: SocketAddr,
    pub(super) listen: SocketAddr,
    /// As the server sees it: from the client or the NAT address, and to the server.
    pub(super) there: Option<(SocketAddr, SocketAddr)>,
    /// The next numbers of the client and of the server.
    pub(super) next: [u32; 2],
    pub(super) step: u32,
}

pub(super) fn packet(
    (protocol, seq, ack, flags): (Protocol, u32, u32, &str),
    from: SocketAddr,
    to: SocketAddr,
) -> Vec<u8> {
    let mut out = Vec::new();
    let payload: &[u8] = if flags == "PA" || protocol == Protocol::Udp { b"some data" } else { b"" };
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => PacketBuilder::ipv4(src.octets(), dst.octets(), 60),
        (IpAddr::V6(src), IpAddr::V6(dst)) => PacketBuilder::ipv6(src.octets(), dst.octets(), 60),
        other => panic!("{other:?}"),
    };
    match protocol {
        Protocol::Udp => ip.udp(from.port(), to.port()).write(&mut out, payload),
        Protocol::Icmp if flags == "reply" => ip.icmpv4_echo_reply(from.port(), 1).write(&mut out, payload),
        Protocol::Icmp => ip.icmpv4_echo_request(from.port(), 1).write(&mut out, payload),
        _ => {
            let mut tcp = ip.tcp(from.port(), to.port(), seq, 1000);
            for flag in flags.chars() {
                tcp = match flag {
                    'S' => tcp.syn(),
                    'F' => tcp.fin(),
                    'R' => tcp.rst(),
                    _ => tcp.ack(ack),
                };
            }
            tcp.write(&mut out, payload)
        }
    }
    .unwrap();
    out
}

fn addresses(packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    use crate::packet::Transport::{Echo, Tcp, Udp};
    let parsed = crate::packet::parse(packet).ok()?;
    let (src, dst) = match parsed.transport {
        Tcp { src, dst, .. } | Udp { src, dst } => (src, dst),
        Echo { id, .. } => (id, id),
        _ => return None,
    };
    Some((SocketAddr::new(parsed.addresses.src(), src), SocketAddr::new(parsed.addresses.dst(), dst)))
}

/// Passes a packet in; returns the verdict without the flow's slot, and the ends of what is sent.
pub(super) fn pass(engine: &mut Engine, now: Instant, packet: &[u8]) -> (String, Option<(SocketAddr, SocketAddr)>) {
    let mut packet = packet.to_vec();
    let verdict = match engine.handle_packet(now, &mut packet, Meta::default()) {
        Verdict::Forward { why: Forwarded::Translated { from, opened, .. }, .. } => format!("{from:?} {opened}"),
        Verdict::Emit { why: Forwarded::Translated { from, opened, .. } } => {
            let mut buffer = vec![0; 65_535];
            let (len, _) = engine.poll_transmit(now, &mut buffer).expect("what replaces the packet");
            packet = buffer[..len].to_vec();
            format!("{from:?} {opened}")
        }
        other => format!("{other:?}"),
    };
    let mut buffer = vec![0; 65_535];
    while engine.poll_transmit(now, &mut buffer).is_some() {}
    let sent = verdict.contains(' ').then(|| addresses(&packet)).flatten();
    (verdict, sent)
}

impl Talk {
    pub(super) fn new(rng: &mut Rng) -> Talk {
        let v6 = rng.below(4) == 0;
        let n = rng.below(12);
        let client: IpAddr =
            if v6 { [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, n as u16].into() } else { [198, 51, 100, n as u8].into() };
        let choice = rng.below(4);
        let port = 1024 + rng.below(60_000) as u16;
        let (protocol, listen): (_, SocketAddr) = match (v6, choice) {
            (true, 0 | 2) => (Protocol::Tcp, "[2001:db8::80]:80".parse().unwrap()),
            (true, _) => (Protocol::Tcp, "[2001:db8::81]:80".parse().unwrap()),
            (false, 3) => (Protocol::Icmp, SocketAddr::new([192, 0, 2, 83].into(), port)),
            (false, of) => {
                let udp = rng.below(3) == 0;
                let address = IpAddr::from([192, 0, 2, 80 + of as u8]);
                let port = if udp { 54 } else { 80 };
                (if udp { Protocol::Udp } else { Protocol::Tcp }, SocketAddr::new(address, port))
            }
        };
        let next = [rng.next() as u32, rng.next() as u32];
        Talk { protocol, client: SocketAddr::new(client, port), listen, there: None, next, step: 0 }
    }

    /// Returns the next packet: from the client, or from the server if it has seen something.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Vec<u8> {
        let step = self.step;
        self.step += 1;
        let [seq, other] = self.next;
        let client = |flags| packet((self.protocol, seq, other, flags), self.client, self.listen);
        let Some((src, dst)) = self.there else { return client(if self.protocol == Protocol::Tcp { "S" } else { "" }) };
        let server = |flags| packet((self.protocol, other, seq, flags), dst, src);
        if self.protocol != Protocol::Tcp {
            return if rng.below(2) == 0 { client("") } else { server("reply") };
        }
        let (bytes, made) = match (step, rng.below(12)) {
            (1, _) => {
                self.next[0] = seq.wrapping_add(1);
                self.next[1] = other.wrapping_add(1);
                return packet((self.protocol, other, seq.wrapping_add(1), "SA"), dst, src);
            }
            (2, _) => ([0, 0], client("A")),
            (_, 0..=2) => ([9, 0], client("PA")),
            (_, 3..=5) => ([0, 9], server("PA")),
            (_, 6 | 7) => ([0, 0], client("A")),
            (_, 8) => ([0, 0], server("A")),
            (_, 9) => ([1, 0], client("FA")),
            (_, 10) => ([0, 1], server("FA")),
            _ => ([0, 0], if rng.below(2) == 0 { client("R") } else { server("A") }),
        };
        self.next = [self.next[0].wrapping_add(bytes[0]), self.next[1].wrapping_add(bytes[1])];
        made
    }

    /// Lets the talk go on in several engines, which must agree.
    pub(super) fn go_on(&mut self, rng: &mut Rng, now: Instant, engines: &mut [&mut Engine]) {
        let packet = self.next(rng);
        let mut became = engines.iter_mut().map(|engine| pass(engine, now, &packet));
        let first = became.next().unwrap();
        became.for_each(|other| assert_eq!(other, first, "{self:?}"));
        if let (verdict, Some(there)) = first
            && verdict.starts_with("Client")
        {
            self.there = Some(there);
        }
    }
}
