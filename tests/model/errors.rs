//! ICMP errors: which flow the quoted packet belongs to, whether the error is plausible, and how it is translated for
//! the sender of that packet (RFC 5508, 4; RFC 5927, 4). Not modelled: quoted packets with options, extension headers
//! or fragmentation, and the length field of RFC 4884.

use super::craft;
use super::engine::Fate;
use super::miss::{dropped, foreign};
use super::model::{Arrival, Model};
use super::services;
use super::wire::{self, Body, Packet, long, plus, put, put_address, seal, sum, word};
use equipoise::engine::Reason;
use equipoise::packet::{Protocol, Side};
use std::net::SocketAddr;

/// The kind of an ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    TooBig(u32),
    Obsolete,
}

/// The packet quoted in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    pub protocol: Protocol,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// Sequence number; meaningful for TCP only.
    pub seq: u32,
    /// Offsets of its IP header and its transport header in the error.
    at: usize,
    transport: usize,
}

/// The result of parsing a quoted packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoted {
    Known(Quote),
    /// Truncated or corrupted headers.
    Bad,
    /// An ICMP message other than an echo.
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

/// Returns whether the model covers this packet; if it is an ICMP error, whether it covers the quoted packet.
pub fn is_within(bytes: &[u8], packet: &Packet) -> bool {
    !matches!(packet.body, Body::Icmp { .. })
        || kind(bytes, packet).is_none()
        || quoted(bytes, packet) != Quoted::Beyond
}

impl Model {
    /// Handles an ICMP message other than an echo; returns `None` if the model does not cover it.
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
        // The error comes from the side that the quoted packet was sent to, whose own packets have the ends reversed.
        let of_flow = about.ok().and_then(|about| {
            self.flows.find(about.protocol, about.dst, about.src).map(|(place, side)| (about, place, side))
        });
        let Some((about, place, side)) = of_flow else {
            let of_ours = |about: Quote| services::is_own(&self.settings, about.src.ip());
            if !to_us && !about.is_ok_and(of_ours) {
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

    /// Returns why an error about a packet of a flow is invalid or implausible, if it is.
    fn is_implausible(&self, arrival: &Arrival, kind: Kind, about: &Quote, place: usize, side: Side) -> Option<Reason> {
        let least = if arrival.packet.v6() { 1280 } else { 68 };
        if !arrival.sum_is_right() {
            return Some(Reason::BadIcmpChecksum);
        }
        // An error is addressed to the sender of the quoted packet.
        if arrival.packet.dst != about.src.ip() {
            return Some(Reason::IcmpImplausible);
        }
        match kind {
            Kind::Obsolete => return Some(Reason::IcmpObsolete),
            // RFC 1191, 5: an old router does not report an MTU.
            Kind::TooBig(0) if !arrival.packet.v6() => {}
            Kind::TooBig(mtu) if mtu < least => return Some(Reason::IcmpBadMtu),
            _ => {}
        }
        let under_way = self.flows.all[place].tcp.is_under_way(side.other(), about.seq);
        (about.protocol == Protocol::Tcp && !under_way).then_some(Reason::IcmpImplausible)
    }

    /// Returns the error translated for the sender of the quoted packet, quoting the packet as it was sent.
    fn told_on(&self, arrival: &Arrival, about: &Quote, place: usize, side: Side) -> Vec<u8> {
        let (src, dst) = self.flows.all[place].ends(side.other());
        let packet = arrival.packet;
        // Errors from the server side always get a translated source, the service address. Errors from the client side
        // get one only if the client itself sent them.
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
