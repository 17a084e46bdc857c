//! Echo requests, echo replies, and the packets quoted in ICMP errors (RFC 792, RFC 4443).

use super::frame;
use crate::packet::{Addresses, Parsed, Transport, long, proto, word};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of payload after the echo header; the first eight are the secret of the probe.
const PAYLOAD: usize = 40;

/// Appends an echo request.
pub(super) fn request(out: &mut Vec<u8>, addresses: &Addresses, id: u16, seq: u16, secret: u64) {
    let (protocol, kind) = match addresses {
        Addresses::V4 { .. } => (proto::ICMP, 8),
        Addresses::V6 { .. } => (proto::ICMPV6, 128),
    };
    let mut body = [0; 8 + PAYLOAD];
    body[0] = kind;
    body[4..6].copy_from_slice(&id.to_be_bytes());
    body[6..8].copy_from_slice(&seq.to_be_bytes());
    body[8..16].copy_from_slice(&secret.to_be_bytes());
    for (i, byte) in body[16..].iter_mut().enumerate() {
        *byte = i as u8;
    }
    frame::write(out, addresses, protocol, 2, &body);
}

/// Returns the sequence number and secret of an echo message; none if its length is not that of a probe.
pub(super) fn numbers(packet: &[u8], parsed: &Parsed) -> Option<(u16, u64)> {
    let bytes = packet.get(parsed.offset..parsed.len).filter(|bytes| bytes.len() == 8 + PAYLOAD)?;
    Some((word(bytes, 6), u64::from(long(bytes, 8)) << 32 | u64::from(long(bytes, 12))))
}

/// An ICMP error and the packet that it quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quote {
    /// What was unreachable.
    pub what: &'static str,
    /// Source of the quoted packet.
    pub src: IpAddr,
    /// Destination of the quoted packet.
    pub dst: IpAddr,
    /// Its protocol.
    pub protocol: u8,
    /// Its source port, or the echo identifier.
    pub ours: u16,
    /// Its destination port, or the echo sequence number.
    pub theirs: u16,
    /// Its TCP sequence number.
    pub seq: u32,
}

/// Parses an ICMP error that can end a probe; returns none for other messages and quotes that are too short.
pub(super) fn quote(packet: &[u8], parsed: &Parsed) -> Option<Quote> {
    let Transport::Icmp { kind, code } = parsed.transport else { return None };
    let what = match (parsed.protocol, kind, code) {
        (proto::ICMP, 3, 0 | 6 | 8 | 11) => "network",
        (proto::ICMP, 3, 1 | 5 | 7 | 12) => "host",
        (proto::ICMP, 3, 2) => "protocol",
        (proto::ICMP, 3, 3) | (proto::ICMPV6, 1, 4) => "port",
        (proto::ICMP, 3, 9 | 10 | 13 | 14 | 15) | (proto::ICMPV6, 1, 1) => "prohibited",
        (proto::ICMPV6, 1, 0) => "no route",
        (proto::ICMPV6, 1, 2 | 3) => "address",
        (proto::ICMPV6, 1, 5 | 6) => "rejected",
        (proto::ICMP, 11, 0) | (proto::ICMPV6, 3, 0) => "hop limit exceeded",
        (proto::ICMPV6, 4, 1) => "next header",
        _ => return None,
    };
    let inner = packet.get(parsed.offset + 8..parsed.len)?;
    let (src, dst, protocol, rest) = if parsed.protocol == proto::ICMP { inner_v4(inner)? } else { inner_v6(inner)? };
    let rest = rest.get(..8)?;
    let (ours, theirs) = match protocol {
        proto::ICMP | proto::ICMPV6 => (word(rest, 4), word(rest, 6)),
        _ => (word(rest, 0), word(rest, 2)),
    };
    Some(Quote { what, src, dst, protocol, ours, theirs, seq: long(rest, 4) })
}

fn inner_v4(inner: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let header = usize::from(*inner.first()? & 15) * 4;
    if inner[0] >> 4 != 4 || header < 20 || inner.len() < header || word(inner, 6) & 0x1fff != 0 {
        return None;
    }
    let address = |at| IpAddr::V4(Ipv4Addr::from(long(inner, at)));
    Some((address(12), address(16), inner[9], &inner[header..]))
}

/// Probes have no extension headers, so a quote with extension headers is not one of them.
fn inner_v6(inner: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    if inner.len() < 40 || inner[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| IpAddr::V6(Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| inner[at + i])));
    Some((address(8), address(24), inner[6], &inner[40..]))
}
