//! Packets as the model sees them: read field by field, every checksum computed in full.
//!
//! It shares only names with the engine, no code. What it does not read (fragments, options, extension headers, rare
//! protocols) is outside the model's scope.

use equipoise::engine::Reason;
use equipoise::packet::Protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A packet's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub hops: u8,
    /// Whether it must not be fragmented on the way; IPv6 packets never are (RFC 8200, 4.5).
    pub whole_only: bool,
    /// Where the transport header begins.
    pub at: usize,
    /// Where the packet ends.
    pub len: usize,
    pub body: Body,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Tcp(Tcp),
    Udp {
        src: u16,
        dst: u16,
        len: usize,
        sum: u16,
    },
    Echo {
        request: bool,
        id: u16,
    },
    /// Another ICMP message.
    Icmp {
        kind: u8,
        code: u8,
    },
    /// GRE or ESP, by protocol number.
    Bare(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    pub src: u16,
    pub dst: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// The length of the payload.
    pub len: u32,
}

impl Tcp {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The result of reading a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Packet(Packet),
    Malformed(Reason),
    Beyond,
}

pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) << 8 | u16::from(bytes[at + 1])
}

pub fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

pub fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("sixteen bytes")).into(),
    }
}

/// Reads a packet (RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 792, RFC 4443).
pub fn read(bytes: &[u8]) -> Read {
    match bytes.first().map(|first| first >> 4) {
        Some(4) if bytes.len() >= 20 => read_v4(bytes),
        Some(6) if bytes.len() >= 40 => read_v6(bytes),
        Some(4 | 6) | None => Read::Malformed(Reason::TooShort),
        Some(_) if bytes.len() < 20 => Read::Malformed(Reason::TooShort),
        Some(_) => Read::Malformed(Reason::BadVersion),
    }
}

fn read_v4(bytes: &[u8]) -> Read {
    let header = usize::from(bytes[0] & 15) * 4;
    if header < 20 || header > bytes.len() {
        return Read::Malformed(Reason::BadHeaderLength);
    }
    let len = usize::from(word(bytes, 2));
    if len < header || len > bytes.len() {
        return Read::Malformed(Reason::BadTotalLength);
    }
    if sum(&bytes[..header]) != 0xffff {
        return Read::Malformed(Reason::BadHeaderChecksum);
    }
    if header > 20 || word(bytes, 6) & 0x3fff != 0 {
        return Read::Beyond;
    }
    let packet = Packet {
        src: address(&bytes[12..16]),
        dst: address(&bytes[16..20]),
        hops: bytes[8],
        whole_only: bytes[6] & 0x40 != 0,
        at: 20,
        len,
        body: Body::Bare(0),
    };
    with_body(packet, bytes[9], &bytes[20..len])
}

fn read_v6(bytes: &[u8]) -> Read {
    let len = 40 + usize::from(word(bytes, 4));
    if len > bytes.len() || (len == 40 && bytes[6] != 59) {
        return Read::Malformed(Reason::BadTotalLength);
    }
    let packet = Packet {
        src: address(&bytes[8..24]),
        dst: address(&bytes[24..40]),
        hops: bytes[7],
        whole_only: true,
        at: 40,
        len,
        body: Body::Bare(0),
    };
    with_body(packet, bytes[6], &bytes[40..len])
}

fn with_body(packet: Packet, number: u8, bytes: &[u8]) -> Read {
    let icmp = if packet.src.is_ipv4() { 1 } else { 58 };
    let body = match number {
        6 => {
            if bytes.len() < 20 {
                return Read::Malformed(Reason::TruncatedTransport);
            }
            let (header, flags) = (usize::from(bytes[12] >> 4) * 4, bytes[13]);
            if header < 20 || header > bytes.len() {
                return Read::Malformed(Reason::BadTcpOffset);
            }
            let kinds = [FIN, SYN, RST].into_iter().filter(|kind| flags & kind != 0).count();
            if kinds > 1 || (kinds == 0 && flags & ACK == 0) {
                return Read::Malformed(Reason::BadTcpFlags);
            }
            let (src, dst, len) = (word(bytes, 0), word(bytes, 2), (bytes.len() - header) as u32);
            Body::Tcp(Tcp { src, dst, seq: long(bytes, 4), ack: long(bytes, 8), flags, len })
        }
        17 => {
            if bytes.len() < 8 {
                return Read::Malformed(Reason::TruncatedTransport);
            }
            let len = usize::from(word(bytes, 4));
            if len < 8 || len > bytes.len() {
                return Read::Malformed(Reason::BadUdpLength);
            }
            Body::Udp { src: word(bytes, 0), dst: word(bytes, 2), len, sum: word(bytes, 6) }
        }
        _ if number == icmp => {
            if bytes.len() < 8 {
                return Read::Malformed(Reason::TruncatedTransport);
            }
            match (icmp, bytes[0], bytes[1]) {
                (1, 8, 0) | (58, 128, 0) => Body::Echo { request: true, id: word(bytes, 4) },
                (1, 0, 0) | (58, 129, 0) => Body::Echo { request: false, id: word(bytes, 4) },
                (_, kind, code) => Body::Icmp { kind, code },
            }
        }
        47 | 50 => Body::Bare(number),
        _ => return Read::Beyond,
    };
    Read::Packet(Packet { body, ..packet })
}

impl Packet {
    pub fn v6(&self) -> bool {
        self.dst.is_ipv6()
    }

    /// Returns the protocol, source and destination that identify a flow; none for a packet that identifies none.
    pub fn ends(&self) -> Option<(Protocol, SocketAddr, SocketAddr)> {
        let (protocol, src, dst) = match self.body {
            Body::Tcp(tcp) => (Protocol::Tcp, tcp.src, tcp.dst),
            Body::Udp { src, dst, .. } => (Protocol::Udp, src, dst),
            Body::Echo { id, .. } => (Protocol::Icmp, id, id),
            Body::Icmp { .. } => return None,
            Body::Bare(number) => (Protocol::Ip(number), 0, 0),
        };
        Some((protocol, SocketAddr::new(self.src, src), SocketAddr::new(self.dst, dst)))
    }

    /// Returns the offset of the transport checksum from the start of the packet.
    pub fn sum_at(&self) -> Option<usize> {
        match self.body {
            Body::Tcp(_) => Some(self.at + 16),
            Body::Udp { .. } => Some(self.at + 6),
            Body::Echo { .. } | Body::Icmp { .. } => Some(self.at + 2),
            Body::Bare(_) => None,
        }
    }

    /// Returns the sum of what the transport checksum covers, up to `end`.
    pub fn covered(&self, bytes: &[u8], end: usize) -> u16 {
        sum_with_pseudo(bytes, self.at, end, bytes[if self.v6() { 6 } else { 9 }])
    }

    /// Returns whether the transport checksum is correct; also true for protocols without a checksum, and for UDP
    /// datagrams over IPv4 that carry none.
    pub fn sum_is_right(&self, bytes: &[u8]) -> bool {
        match self.body {
            Body::Bare(_) => true,
            Body::Udp { sum: 0, .. } => !self.v6(),
            Body::Udp { len, .. } => self.covered(bytes, self.at + len) == 0xffff,
            _ => self.covered(bytes, self.len) == 0xffff,
        }
    }
}

/// Returns the one's complement sum of 16-bit words (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

pub fn plus(a: u16, b: u16) -> u16 {
    let total = u32::from(a) + u32::from(b);
    ((total & 0xffff) + (total >> 16)) as u16
}

/// Returns the sum of the transport header, payload and pseudo-header; ICMP over IPv4 has no pseudo-header.
pub fn sum_with_pseudo(bytes: &[u8], at: usize, end: usize, number: u8) -> u16 {
    let mut pseudo = Vec::new();
    if number != 1 {
        pseudo.extend_from_slice(if at == 20 { &bytes[12..20] } else { &bytes[8..40] });
        pseudo.extend_from_slice(&((end - at) as u32).to_be_bytes());
        pseudo.extend_from_slice(&[0, 0, 0, number]);
    }
    plus(sum(&pseudo), sum(&bytes[at..end]))
}

pub fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub fn put_address(bytes: &mut [u8], at: usize, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes[at..at + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes[at..at + 16].copy_from_slice(&address.octets()),
    }
}

/// Fills in the header checksum of an IPv4 packet.
pub fn seal(bytes: &mut [u8]) {
    if bytes[0] >> 4 == 4 {
        put(bytes, 10, 0);
        let value = !sum(&bytes[..20]);
        put(bytes, 10, value);
    }
}
