//! Packets that the gateway originates (resets, ICMP errors and echo replies) and the rate limit on them.

use super::craft;
use super::wire::{ACK, Body, FIN, Packet, RST, SYN, Tcp};
use equipoise::time::Instant;
use std::net::{IpAddr, SocketAddr};

const SECOND: u64 = 1_000_000_000;

/// Why a packet is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Port,
    Protocol,
    Prohibited,
    Host,
    Hops,
    TooBig(usize),
}

/// A limit on replies per second; after an idle second, a burst of the same number is allowed.
#[derive(Debug, Clone)]
pub struct Limit {
    each: u64,
    /// When the leaky bucket will have drained completely.
    empty: Instant,
}

impl Limit {
    pub fn new(per_second: u32) -> Self {
        Limit { each: SECOND / u64::from(per_second), empty: Instant::ZERO }
    }

    /// Changes the rate; what has been taken stays taken.
    pub fn follow(&mut self, per_second: u32) {
        self.each = SECOND / u64::from(per_second);
    }

    /// Consumes one reply from the limit; returns false if none is left.
    pub fn take(&mut self, now: Instant) -> bool {
        let ahead = self.empty.as_nanos().saturating_sub(now.as_nanos());
        if ahead + self.each > SECOND {
            return false;
        }
        self.empty = Instant::from_nanos(now.as_nanos() + ahead + self.each);
        true
    }
}

/// Returns whether a reply can reach a packet's source (RFC 1122, 3.2.1.3; RFC 4291, 2.5).
pub fn can_be_answered(src: IpAddr, dst: IpAddr) -> bool {
    let odd = match src {
        IpAddr::V4(src) => matches!(src.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(src) => src.is_unspecified() || src.is_loopback() || src.is_multicast(),
    };
    !odd && src != dst
}

fn tcp(src: SocketAddr, dst: SocketAddr, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut header = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
    header.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    header.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    craft::packet(src.ip(), dst.ip(), 6, 64, &header)
}

/// Returns the reset that answers a segment without a connection (RFC 9293, 3.10.7.1).
pub fn reset(packet: &Packet, segment: &Tcp) -> Vec<u8> {
    let (src, dst) = (SocketAddr::new(packet.dst, segment.dst), SocketAddr::new(packet.src, segment.src));
    if segment.has(ACK) {
        return tcp(src, dst, segment.ack, 0, RST);
    }
    let flags = u32::from(segment.has(SYN)) + u32::from(segment.has(FIN));
    tcp(src, dst, 0, segment.seq.wrapping_add(segment.len).wrapping_add(flags), RST | ACK)
}

/// Returns a reset for an existing connection.
pub fn reset_of(src: SocketAddr, dst: SocketAddr, seq: u32, ack: u32) -> Vec<u8> {
    tcp(src, dst, seq, ack, RST | ACK)
}

/// Returns the ICMP error about a packet, sent from the packet's destination address. It quotes as much of the packet
/// as fits into 576 (IPv4) or 1280 (IPv6) bytes.
pub fn error(bytes: &[u8], packet: &Packet, why: Why) -> Vec<u8> {
    let v6 = packet.v6();
    let (kind, code, rest) = match (why, v6) {
        (Why::Port, false) => (3, 3, 0),
        (Why::Protocol, false) => (3, 2, 0),
        (Why::Prohibited, false) => (3, 13, 0),
        (Why::Host, false) => (3, 1, 0),
        (Why::Hops, false) => (11, 0, 0),
        (Why::TooBig(mtu), false) => (3, 4, mtu as u32),
        (Why::Port, true) => (1, 4, 0),
        (Why::Protocol, true) => (4, 1, 6),
        (Why::Prohibited, true) => (1, 1, 0),
        (Why::Host, true) => (1, 3, 0),
        (Why::Hops, true) => (3, 0, 0),
        (Why::TooBig(mtu), true) => (2, 0, mtu as u32),
    };
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest.to_be_bytes());
    let most = if v6 { 1280 - 48 } else { 576 - 28 };
    message.extend_from_slice(&bytes[..packet.len.min(most)]);
    craft::packet(packet.dst, packet.src, if v6 { 58 } else { 1 }, 64, &message)
}

/// Returns the reply to an echo request (RFC 792; RFC 4443, 4.2): the same packet with its addresses swapped and a
/// fresh TTL or hop limit.
pub fn echo(bytes: &[u8], packet: &Packet) -> Vec<u8> {
    let Body::Echo { id, .. } = packet.body else { return Vec::new() };
    let mut out = bytes.to_vec();
    out[packet.at] = if packet.v6() { 129 } else { 0 };
    out[if packet.v6() { 7 } else { 8 }] = 64;
    let (src, dst) = (SocketAddr::new(packet.dst, id), SocketAddr::new(packet.src, id));
    let mut out = craft::translated(&out, packet, src, dst, false);
    craft::mend(&mut out, bytes, packet, false);
    out
}
