//! An engine driven by any bytes: packets of a small grammar, changes and time.

use super::super::oracle;
use equipoise::balance::Admin;
use equipoise::config::Settings;
use equipoise::engine::{Change, Engine, Verdict};
use equipoise::ids::ServerId;
use equipoise::packet::{Addresses, Meta, Transport, parse};
use equipoise::time::Instant;

/// Bytes consumed from the front; zeros once they are used up.
pub struct Input<'b>(pub &'b [u8]);

impl<'b> Input<'b> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub fn take(&mut self, most: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// An engine, and what last went in and out.
pub struct Drive {
    pub engine: Engine,
    pub servers: u8,
    pub rules: u16,
    pub now: Instant,
    /// The last packet handed in.
    pub last: Vec<u8>,
    /// The last packet that came out.
    pub left: Vec<u8>,
}

impl Drive {
    pub fn new(settings: &Settings) -> Drive {
        Drive {
            servers: settings.servers.len() as u8,
            rules: settings.policy.rules.len() as u16,
            engine: Engine::new(settings),
            now: Instant::ZERO,
            last: Vec::new(),
            left: Vec::new(),
        }
    }

    pub fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 10 {
            0..=2 => {
                let packet = transport(input);
                self.packet(packet, Meta::default());
            }
            3 => {
                let packet = error(input, &self.last);
                self.packet(packet, Meta::default());
            }
            4 => {
                let (at, with) = (input.word() as usize, input.byte());
                let mut packet = self.last.clone();
                if let Some(byte) = packet.get_mut(at) {
                    *byte ^= with;
                }
                packet.truncate(packet.len().saturating_sub(usize::from(input.byte() >> 4)));
                self.packet(packet, Meta::default());
            }
            5 => {
                let length = usize::from(input.byte());
                let meta = input.byte();
                let meta = Meta {
                    partial_checksum: meta & 1 > 0,
                    gso_size: u16::from(meta >> 4) * 100,
                    ingress: u16::from(meta >> 1 & 3),
                    ..Meta::default()
                };
                self.packet(input.take(length).to_vec(), meta);
            }
            6 => self.change(input),
            7 => {
                let reply = turned(input, &self.left);
                self.packet(reply, Meta::default());
            }
            8 => {
                let packet = error(input, &self.left);
                self.packet(packet, Meta::default());
            }
            _ => self.wait(u64::from(input.word()) << (input.byte() % 24)),
        }
    }

    /// Hands the engine a packet: what is foreseen of it comes true, and if it is valid, so is what comes out.
    fn packet(&mut self, came: Vec<u8>, meta: Meta) {
        let mut packet = came.clone();
        let foreseen = self.engine.foresee(self.now, &came, meta);
        self.engine.explain(self.now, &came, meta);
        let verdict = self.engine.handle_packet(self.now, &mut packet, meta);
        if let Some(said) = foreseen.verdict {
            assert_eq!((said, &foreseen.bytes), (verdict, &packet), "{came:02x?}");
        }
        let sound = !meta.partial_checksum && oracle::is_valid(&came);
        if let Verdict::Forward { len, .. } = verdict
            && sound
        {
            let left = oracle::check(&packet[..len]);
            left.unwrap_or_else(|why| {
                panic!("arrived valid, left invalid: {why}\n{came:02x?}\n{:02x?}", &packet[..len])
            });
        }
        if let Verdict::Forward { len, .. } = verdict {
            self.left = packet[..len].to_vec();
        }
        self.last = came;
        self.own(sound || !matches!(verdict, Verdict::Emit { .. }));
    }

    /// Takes the packets that the engine sends itself, which must be valid unless they result from an invalid one,
    /// and its events.
    fn own(&mut self, sound: bool) {
        let mut buffer = vec![0; 65_535];
        while let Some((len, meta)) = self.engine.poll_transmit(self.now, &mut buffer) {
            if sound && !meta.partial_checksum {
                let own = &buffer[..len];
                assert!(oracle::check(own).is_ok() || held(own), "the engine sends an invalid packet: {own:02x?}");
            }
            self.left = buffer[..len].to_vec();
        }
        while self.engine.poll_event().is_some() {}
    }

    fn change(&mut self, input: &mut Input<'_>) {
        let server = ServerId(u32::from(input.byte() % self.servers));
        let change = match input.byte() % 5 {
            0 => Change::Weight { server, weight: input.word() },
            1 => {
                let admin = [Admin::Enabled, Admin::Draining, Admin::Disabled][usize::from(input.byte() % 3)];
                Change::Admin { server, admin, deadline: None }
            }
            2 => Change::Load { server, load: input.byte() % 101, maintenance: input.byte() & 1 > 0 },
            3 => Change::Health { server, up: [None, Some(true), Some(false)][usize::from(input.byte() % 3)] },
            _ => Change::Rule { rule: input.word() % self.rules.max(1), on: input.byte() & 1 > 0 },
        };
        let _ = self.engine.apply(self.now, change);
        self.own(true);
    }

    /// Advances the time, running what is due on the way.
    pub fn wait(&mut self, micros: u64) {
        let to = Instant::from_nanos(self.now.as_nanos().saturating_add(micros * 1000));
        for _ in 0..1000 {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= to) else { break };
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            self.own(true);
        }
        self.now = to;
    }
}

/// Returns whether a packet is a fragment that the engine held back: it leaves as it came, whatever its checksums.
fn held(packet: &[u8]) -> bool {
    parse(packet).is_ok_and(|parsed| matches!(parsed.transport, equipoise::packet::Transport::Fragment { .. }))
}

/// Clients, service addresses and servers, by family, as configured in `engine.toml`.
const PLACES: [[[u8; 4]; 2]; 4] = [
    [[198, 51, 100, 7], [198, 51, 100, 8]],
    [[192, 0, 2, 80], [203, 0, 113, 9]],
    [[10, 0, 2, 1], [10, 0, 2, 2]],
    [[192, 0, 2, 64], [224, 0, 0, 5]],
];

/// A packet of a small grammar, with valid checksums: few addresses and ports, so that flows come about.
fn transport(input: &mut Input<'_>) -> Vec<u8> {
    const PORTS: [u16; 8] = [40_000, 40_001, 80, 53, 8080, 443, 7, 0];
    const PROTOCOLS: [u8; 8] = [6, 6, 17, 17, 1, 47, 132, 4];
    let (shape, ports, kind) = (input.byte(), input.byte(), input.byte());
    let v6 = shape & 1 > 0;
    let place = |which: u8| PLACES[usize::from(which >> 1 & 3)][usize::from(which & 1)];
    let protocol = PROTOCOLS[usize::from(kind & 7)];
    let (src, dst) = (PORTS[usize::from(ports & 7)], PORTS[usize::from(ports >> 3 & 7)]);
    let mut body = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    let protocol = match protocol {
        6 => {
            body.extend(u32::from(input.word()).to_be_bytes());
            body.extend(u32::from(input.word()).to_be_bytes());
            body.extend([0x50, input.byte(), 0x10, 0, 0, 0, 0, 0]);
            6
        }
        17 => {
            body.extend([0, 0, 0, 0]);
            17
        }
        1 => {
            let reply = kind & 8 > 0;
            let first = if v6 { 128 + u8::from(reply) } else { 8 * u8::from(!reply) };
            body = vec![first, 0, 0, 0, 0, ports & 3, 0, kind >> 4];
            if v6 { 58 } else { 1 }
        }
        other => {
            body.extend([0; 8]);
            other
        }
    };
    body.extend(input.take(usize::from(ports >> 6) * 8));
    if protocol == 17 {
        let length = body.len() as u16;
        body[4..6].copy_from_slice(&length.to_be_bytes());
    }
    // Above More Fragments and the offset: which packet it belongs to.
    let fragment = if kind & 0xc0 == 0xc0 { input.word() } else { 0 };
    wrap(v6, place(shape >> 1 & 7), place(shape >> 4 & 7), protocol, fragment, shape >> 7, body)
}

/// The reply to a packet: addresses and ports are swapped, an echo request becomes a reply, a segment acknowledges
/// everything.
fn turned(input: &mut Input<'_>, packet: &[u8]) -> Vec<u8> {
    let (flags, more) = (input.byte(), usize::from(input.byte() & 63));
    let Ok(parsed) = parse(packet) else { return transport(input) };
    if !parsed.whole {
        return transport(input);
    }
    let mut body = packet[parsed.offset..parsed.len].to_vec();
    match parsed.transport {
        Transport::Tcp { seq, ack, header, .. } => {
            let end = seq.wrapping_add(parsed.payload_len() as u32).wrapping_add(1);
            body.truncate(usize::from(header));
            body[4..8].copy_from_slice(&ack.to_be_bytes());
            body[8..12].copy_from_slice(&end.to_be_bytes());
            body[13] = flags;
        }
        Transport::Echo { .. } => body[0] = if parsed.addresses.is_v6() { 129 } else { 0 },
        _ => {}
    }
    if let Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Sctp { .. } = parsed.transport {
        body[..4].rotate_left(2);
    }
    body.extend(input.take(more));
    if let Transport::Udp { .. } = parsed.transport {
        let length = body.len() as u16;
        body[4..6].copy_from_slice(&length.to_be_bytes());
    }
    wrap_any(parsed.addresses.reversed(), parsed.protocol, 0, 0, body)
}

/// An ICMP error about the last packet handed in, or about one of the grammar, from a server or a router.
fn error(input: &mut Input<'_>, last: &[u8]) -> Vec<u8> {
    let (kind, code, cut) = (input.byte(), input.byte() % 8, usize::from(input.byte()));
    let about = if kind & 1 > 0 { last.to_vec() } else { transport(input) };
    let v6 = about.first().is_some_and(|first| first >> 4 == 6);
    let types: [u8; 4] = if v6 { [1, 2, 3, 4] } else { [3, 11, 12, 4] };
    let mut body = vec![types[usize::from(kind >> 1 & 3)], code, 0, 0, 0, 0];
    body.extend(input.word().to_be_bytes());
    body.extend(&about[..about.len().min(cut)]);
    let to = PLACES[usize::from(kind >> 3 & 3)][usize::from(kind >> 5 & 1)];
    wrap(v6, [10, 0, 2, 1 + (kind >> 6)], to, if v6 { 58 } else { 1 }, 0, 0, body)
}

/// Prepends an IP header to a transport, and writes valid checksums into both; over IPv6 the addresses end in the
/// same four bytes.
fn wrap(v6: bool, src: [u8; 4], dst: [u8; 4], protocol: u8, fragment: u16, low: u8, body: Vec<u8>) -> Vec<u8> {
    let [src, dst] = [src, dst].map(u32::from_be_bytes);
    let long = |a: u32| 0x2001_0db8 << 96 | u128::from(a);
    let addresses = if v6 { Addresses::V6 { src: long(src), dst: long(dst) } } else { Addresses::V4 { src, dst } };
    wrap_any(addresses, protocol, fragment, low, body)
}

fn wrap_any(addresses: Addresses, protocol: u8, fragment: u16, low: u8, mut body: Vec<u8>) -> Vec<u8> {
    let both = match addresses {
        Addresses::V4 { src, dst } => [src.to_be_bytes(), dst.to_be_bytes()].concat(),
        Addresses::V6 { src, dst } => [src.to_be_bytes(), dst.to_be_bytes()].concat(),
    };
    let at = match protocol {
        6 => Some(16),
        17 => Some(6),
        1 | 58 => Some(2),
        _ => None,
    };
    if let Some(at) = at.filter(|at| body.len() >= at + 2) {
        body[at..at + 2].fill(0);
        let length = (body.len() as u32).to_be_bytes();
        let pseudo = [&both[..], &length, &[0, 0, 0, protocol]].concat();
        let sum = sum(&[if protocol == 1 { &[] } else { &pseudo[..] }, &body].concat());
        let sum = if protocol == 17 && sum == 0 { 0xffff } else { sum };
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let ttl = if low > 0 { 1 } else { 64 };
    let (id, fragment) = (1 + (fragment >> 14) as u8, fragment & 0x3fff);
    if addresses.is_v6() {
        let mut protocol = protocol;
        if fragment != 0 {
            let place = fragment.rotate_left(3).to_be_bytes();
            body.splice(..0, [protocol, 0, place[0], place[1], 0, 0, 0, id]);
            protocol = 44;
        }
        let length = (body.len() as u16).to_be_bytes();
        let head = [0x60, 0, 0, 0, length[0], length[1], protocol, ttl];
        return [&head[..], &both, &body].concat();
    }
    let (length, fragment) = (((body.len() + 20) as u16).to_be_bytes(), fragment.to_be_bytes());
    let mut head = vec![0x45, 0, length[0], length[1], 0, id, fragment[0], fragment[1], ttl, protocol, 0, 0];
    head.extend(both);
    let sum = sum(&head).to_be_bytes();
    head[10..12].copy_from_slice(&sum);
    [head, body].concat()
}

/// Returns the Internet checksum (RFC 1071) of bytes whose own field is zero. An odd last byte is padded.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
