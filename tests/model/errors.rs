//! ICMP errors: about whose packet, whether they can be true, and what the sender of that packet is told (RFC 5508, 4; RFC
//! 5927, 4). The model reads no quotes with options, extension headers or fragments, and no lengths (RFC 4884).

use super::craft;
use super::engine::Fate;
use super::miss::{dropped, foreign};
use super::model::{Arrival, Model};
use super::services;
use super::wire::{self, Body, Packet, long, plus, put, put_address, seal, sum, word};
use equipoise::engine::Reason;
use equipoise::packet::{Protocol, Side};
use std::net::SocketAddr;

/// What an error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    TooBig(u32),
    Obsolete,
}

/// The packet that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    pub protocol: Protocol,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// Of TCP.
    pub seq: u32,
    /// Where its IP header and its transport stand in the error.
    at: usize,
    transport: usize,
}

/// What reading a quote came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoted {
    Known(Quote),
    /// Not the whole start of a packet, or not as it was sent.
    Bad,
    /// An ICMP message that is no echo.
    NoEcho,
    Beyond,
}

fn kind(bytes: &[u8], packet: &Packet) -> Option<Kind> {
    let (at, v6) = (packet.at, packet.v6());
    match (v6, bytes[at], bytes[at + 1]) {
        (false, 3, 4) => Some(Kind::TooBig(u32::from(word(bytes, at + 6)))),
        (true, 2, _) => Some(Kind::TooBig(long(bytes, at + 4))),
        (false, 3 | 11 | 12, _) | (true, 1 | 3 | 4, _) => Some(Kind::Plain),
        (false, 4 | 5, _) | (true, 137, _) => Some(Kind::Obsolete),
        _ => None,
    }
}

fn quoted(bytes: &[u8], packet: &Packet) -> Quoted {
    let (at, v6) = (packet.at + 8, packet.v6());
    let told = match (v6, bytes[packet.at]) {
        (false, 3 | 11 | 12) => bytes[packet.at + 5],
        (true, 1 | 3) => bytes[packet.at + 4],
        _ => 0,
    };
    let inner = &bytes[at..packet.len];
    let header = if v6 { 40 } else { 20 };
    if told != 0 {
        return Quoted::Beyond;
    }
    if inner.first().is_none_or(|first| first >> 4 != if v6 { 6 } else { 4 }) {
        return Quoted::Bad;
    }
    if !v6 && inner[0] & 15 != 5 {
        return Quoted::Beyond;
    }
    if inner.len() < header || (!v6 && sum(&inner[..20]) != 0xffff) {
        return Quoted::Bad;
    }
    if !v6 && word(inner, 6) & 0x3fff != 0 {
        return Quoted::Beyond;
    }
    let number = inner[if v6 { 6 } else { 9 }];
    let protocol = match (number, v6) {
        (6, _) => Protocol::Tcp,
        (17, _) => Protocol::Udp,
        (1, false) | (58, true) => Protocol::Icmp,
        (47 | 50, _) => Protocol::Ip(number),
        _ => return Quoted::Beyond,
    };
    let rest = &inner[header..];
    if protocol.has_ports() && rest.len() < 8 {
        return Quoted::Bad;
    }
    let (src, dst, seq) = match protocol {
        Protocol::Ip(_) => (0, 0, 0),
        Protocol::Icmp if matches!(rest[0], 0 | 8) != v6 && matches!(rest[0], 0 | 8 | 128 | 129) => {
            (word(rest, 4), word(rest, 4), 0)
        }
        Protocol::Icmp => return Quoted::NoEcho,
        _ => (word(rest, 0), word(rest, 2), long(rest, 4)),
    };
    let first = if v6 { 8 } else { 12 };
    let size = if v6 { 16 } else { 4 };
    let address = |from: usize| wire::address(&inner[from..from + size]);
    let (src, dst) = (SocketAddr::new(address(first), src), SocketAddr::new(address(first + size), dst));
    Quoted::Known(Quote { protocol, src, dst, seq, at, transport: at + header })
}

/// Whether the model reads what a packet is about.
pub fn is_within(bytes: &[u8], packet: &Packet) -> bool {
    !matches!(packet.body, Body::Icmp { .. })
        || kind(bytes, packet).is_none()
        || quoted(bytes, packet) != Quoted::Beyond
}

impl Model {
    /// Decides about an ICMP message that is no echo; none where it is beyond the model.
    pub fn icmp(&mut self, arrival: &Arrival) -> Option<(Fate, Vec<u8>)> {
        let (bytes, packet) = (arrival.bytes, arrival.packet);
        let to_us = services::is_own(&self.settings, packet.dst);
        let Some(kind) = kind(bytes, packet) else {
            return Some(if to_us { dropped(Reason::IcmpUnhandled) } else { foreign(arrival) });
        };
        let about = match quoted(bytes, packet) {
            Quoted::Beyond => return None,
            Quoted::Known(quote) => Ok(quote),
            Quoted::Bad => Err(Reason::BadQuote),
            Quoted::NoEcho => Err(Reason::IcmpNoFlow),
        };
        // The side that it was sent to would answer the other way round.
        let of_flow = about.ok().and_then(|about| {
            self.flows.find(about.protocol, about.dst, about.src).map(|(place, side)| (about, place, side))
        });
        let Some((about, place, side)) = of_flow else {
            let concerns_us = |about: Quote| {
                services::is_servers(&self.settings, about.protocol, about.dst)
                    || services::is_own(&self.settings, about.src.ip())
            };
            if !to_us && !about.is_ok_and(concerns_us) {
                return Some(foreign(arrival));
            }
            return Some(dropped(match about {
                _ if !arrival.sum_is_right() => Reason::BadIcmpChecksum,
                _ if kind == Kind::Obsolete => Reason::IcmpObsolete,
                Err(reason) => reason,
                Ok(_) => Reason::IcmpNoFlow,
            }));
        };
        if let Some(reason) = self.is_implausible(arrival, kind, &about, place, side) {
            return Some(dropped(reason));
        }
        let unreachable = match (packet.v6(), bytes[packet.at], bytes[packet.at + 1]) {
            (false, 3, code) => code != 4,
            (true, 1, _) => true,
            _ => false,
        };
        let flow = &self.flows.all[place];
        let server = flow.server;
        if side == Side::Server && flow.is_unanswered() && unreachable {
            self.seen("unreachable by an error");
            self.trouble(arrival.now, server);
        }
        let out = self.told_on(arrival, &about, place, side);
        Some((Fate::Error { server: self.servers[server].settings.name.clone(), from: side }, out))
    }

    /// Why an error about a packet of a flow cannot be true.
    fn is_implausible(&self, arrival: &Arrival, kind: Kind, about: &Quote, place: usize, side: Side) -> Option<Reason> {
        let least = if arrival.packet.v6() { 1280 } else { 68 };
        if !arrival.sum_is_right() {
            return Some(Reason::BadIcmpChecksum);
        }
        // Whoever sent the packet is told.
        if arrival.packet.dst != about.src.ip() {
            return Some(Reason::IcmpImplausible);
        }
        match kind {
            Kind::Obsolete => return Some(Reason::IcmpObsolete),
            // RFC 1191, 5: an old router tells nothing.
            Kind::TooBig(0) if !arrival.packet.v6() => {}
            Kind::TooBig(mtu) if mtu < least => return Some(Reason::IcmpBadMtu),
            _ => {}
        }
        let under_way = self.flows.all[place].tcp.is_under_way(side.other(), about.seq);
        (about.protocol == Protocol::Tcp && !under_way).then_some(Reason::IcmpImplausible)
    }

    /// The error as the sender of the packet gets it: about the packet that it sent.
    fn told_on(&self, arrival: &Arrival, about: &Quote, place: usize, side: Side) -> Vec<u8> {
        let (src, dst) = self.flows.all[place].ends(side.other());
        let packet = arrival.packet;
        // From the servers' side all comes in the service's name; of the client's, what comes from the client itself.
        let teller = if side == Side::Server || packet.src == about.dst.ip() { dst.ip() } else { packet.src };
        let mut out = arrival.bytes[..packet.len].to_vec();
        let (first, size) = if packet.v6() { (8, 16) } else { (12, 4) };
        for (at, one, other) in [(0, teller, src.ip()), (about.at, src.ip(), dst.ip())] {
            put_address(&mut out, at + first, one);
            put_address(&mut out, at + first + size, other);
            seal(&mut out[at..]);
        }
        let at = about.transport;
        let (field, ports) = match about.protocol {
            Protocol::Tcp => (at + 16, 0..4),
            Protocol::Udp => (at + 6, 0..4),
            Protocol::Icmp => (at + 2, 4..6),
            _ => (usize::MAX, 0..0),
        };
        if about.protocol == Protocol::Icmp {
            put(&mut out, at + 4, src.port());
        } else if about.protocol.has_ports() {
            put(&mut out, at, src.port());
            put(&mut out, at + 2, dst.port());
        }
        if field.checked_add(2).is_some_and(|end| end <= out.len()) {
            let old = word(&out, field);
            let covered = |bytes: &[u8]| {
                let addresses = sum(&bytes[about.at + first..about.at + first + 2 * size]);
                let addresses = if about.protocol == Protocol::Icmp && !packet.v6() { 0 } else { addresses };
                plus(addresses, sum(&bytes[at + ports.start..at + ports.end]))
            };
            // RFC 1624, equation 3.
            let new = !plus(plus(!old, !covered(arrival.bytes)), covered(&out));
            let udp = about.protocol == Protocol::Udp;
            if !(udp && old == 0) {
                put(&mut out, field, if udp && new == 0 { 0xffff } else { new });
            }
        }
        craft::mend(&mut out, arrival.bytes, packet, false);
        out
    }
}
