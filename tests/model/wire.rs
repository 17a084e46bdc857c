//! Packets as the model sees them: read field by field, written from nothing, every checksum worked out anew.
//!
//! It knows no code of the engine but the names of things. What it does not read (fragments, options, extension
//! headers, rare protocols) is beyond the model.

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
    /// Whether it may not be cut; IPv6 never may (RFC 8200, 4.5).
    pub whole_only: bool,
    /// Where the transport begins, and where the packet ends.
    pub at: usize,
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
    /// GRE or ESP.
    Bare(u8),
}

/// A TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    pub src: u16,
    pub dst: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Bytes of payload.
    pub len: u32,
}

impl Tcp {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What reading came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Packet(Packet),
    Malformed(Reason),
    Beyond,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) << 8 | u16::from(bytes[at + 1])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

fn address(bytes: &[u8]) -> IpAddr {
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

    /// Protocol, source and destination as they name a flow; none for what names none.
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

    /// Where the transport keeps its sum, from the start of the packet.
    fn sum_at(&self) -> Option<usize> {
        match self.body {
            Body::Tcp(_) => Some(self.at + 16),
            Body::Udp { .. } => Some(self.at + 6),
            Body::Echo { .. } | Body::Icmp { .. } => Some(self.at + 2),
            Body::Bare(_) => None,
        }
    }

    /// Adds up what the transport's sum covers.
    fn covered(&self, bytes: &[u8], end: usize) -> u16 {
        sum_with_pseudo(bytes, self.at, end, bytes[if self.v6() { 6 } else { 9 }])
    }

    /// Whether the transport's sum is right; one of no sum is, and so is a UDP datagram over IPv4 that has none.
    pub fn sum_is_right(&self, bytes: &[u8]) -> bool {
        match self.body {
            Body::Bare(_) => true,
            Body::Udp { sum: 0, .. } => !self.v6(),
            Body::Udp { len, .. } => self.covered(bytes, self.at + len) == 0xffff,
            _ => self.covered(bytes, self.len) == 0xffff,
        }
    }
}

/// The one's complement sum of 16-bit words (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn plus(a: u16, b: u16) -> u16 {
    let total = u32::from(a) + u32::from(b);
    ((total & 0xffff) + (total >> 16)) as u16
}

/// The sum of a transport with its pseudo-header; ICMP over IPv4 has none.
fn sum_with_pseudo(bytes: &[u8], at: usize, end: usize, number: u8) -> u16 {
    let mut pseudo = Vec::new();
    if number != 1 {
        pseudo.extend_from_slice(if at == 20 { &bytes[12..20] } else { &bytes[8..40] });
        pseudo.extend_from_slice(&((end - at) as u32).to_be_bytes());
        pseudo.extend_from_slice(&[0, 0, 0, number]);
    }
    plus(sum(&pseudo), sum(&bytes[at..end]))
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn put_address(bytes: &mut [u8], at: usize, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes[at..at + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes[at..at + 16].copy_from_slice(&address.octets()),
    }
}

/// Works out an IPv4 header's sum.
pub fn seal(bytes: &mut [u8]) {
    if bytes[0] >> 4 == 4 {
        put(bytes, 10, 0);
        let value = !sum(&bytes[..20]);
        put(bytes, 10, value);
    }
}

/// The packet with other ends: its sums are as right, or as wrong, as they were. `partial`: the transport's sum is that
/// of the pseudo-header alone, for the device to complete.
pub fn translated(bytes: &[u8], packet: &Packet, src: SocketAddr, dst: SocketAddr, partial: bool) -> Vec<u8> {
    let mut out = bytes[..packet.len].to_vec();
    let first = if packet.v6() { 8 } else { 12 };
    put_address(&mut out, first, src.ip());
    put_address(&mut out, first + if packet.v6() { 16 } else { 4 }, dst.ip());
    match packet.body {
        Body::Tcp(_) | Body::Udp { .. } => {
            put(&mut out, packet.at, src.port());
            put(&mut out, packet.at + 2, dst.port());
        }
        Body::Echo { .. } => put(&mut out, packet.at + 4, src.port()),
        Body::Icmp { .. } | Body::Bare(_) => {}
    }
    seal(&mut out);
    mend(&mut out, bytes, packet, partial);
    out
}

/// Gives changed bytes a transport sum that is as right, or as wrong, as it was before.
pub fn mend(out: &mut [u8], before: &[u8], packet: &Packet, partial: bool) {
    let Some(at) = packet.sum_at() else { return };
    let udp = matches!(packet.body, Body::Udp { .. });
    if partial {
        return leave_to_the_device(out, packet);
    }
    if udp && word(before, at) == 0 {
        return;
    }
    let was = packet.covered(before, packet.len);
    put(out, at, 0);
    let missing = !packet.covered(out, packet.len);
    let value = if was == 0xffff { missing } else { plus(missing, was) };
    put(out, at, if udp && value == 0 { 0xffff } else { value });
}

/// Leaves the transport's sum to the device: the field holds that of the pseudo-header.
pub fn leave_to_the_device(out: &mut [u8], packet: &Packet) {
    let Some(at) = packet.sum_at() else { return };
    let number = out[if packet.v6() { 6 } else { 9 }];
    let pseudo = plus(sum_with_pseudo(out, packet.at, packet.len, number), !sum(&out[packet.at..packet.len]));
    put(out, at, pseudo);
}

/// Works out a transport's sum.
pub fn complete(out: &mut [u8], packet: &Packet) {
    let Some(at) = packet.sum_at() else { return };
    put(out, at, 0);
    let value = !packet.covered(out, packet.len);
    let udp = matches!(packet.body, Body::Udp { .. });
    put(out, at, if udp && value == 0 { 0xffff } else { value });
}

/// Whether two packets are the same but for zero written as 0x0000 or 0xffff in a transport sum (RFC 1624, 3).
pub fn same(one: &[u8], other: &[u8], packet: &Packet) -> bool {
    let plain = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        if let Some(at) = packet.sum_at().filter(|at| at + 2 <= bytes.len() && word(&bytes, *at) == 0xffff) {
            put(&mut bytes, at, 0);
        }
        bytes
    };
    plain(one) == plain(other)
}

/// Lowers the segment size option of a SYN to `most` (RFC 9293, 3.7.1).
pub fn clamp(out: &mut [u8], packet: &Packet, most: u16) {
    let end = packet.at + usize::from(out[packet.at + 12] >> 4) * 4;
    let mut at = packet.at + 20;
    while at < end {
        match out[at] {
            0 => return,
            1 => at += 1,
            2 if at + 4 <= end && out[at + 1] == 4 => {
                let told = word(out, at + 2);
                return put(out, at + 2, told.min(most));
            }
            _ if at + 1 < end && out[at + 1] >= 2 => at += usize::from(out[at + 1]),
            _ => return,
        }
    }
}

/// A packet of so many hops; the transport's sum is worked out where it has one.
pub fn packet(src: IpAddr, dst: IpAddr, number: u8, hops: u8, transport: &[u8]) -> Vec<u8> {
    let mut out = match src {
        IpAddr::V4(_) => vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, hops, number, 0, 0],
        IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, 0, number, hops],
    };
    let at = if src.is_ipv4() { 20 } else { 40 };
    out.resize(at, 0);
    out.extend_from_slice(transport);
    let len = out.len();
    if src.is_ipv4() {
        put(&mut out, 2, len as u16);
        put_address(&mut out, 12, src);
        put_address(&mut out, 16, dst);
    } else {
        put(&mut out, 4, transport.len() as u16);
        put_address(&mut out, 8, src);
        put_address(&mut out, 24, dst);
    }
    seal(&mut out);
    let field = match number {
        6 => Some(at + 16),
        17 => Some(at + 6),
        1 | 58 => Some(at + 2),
        _ => None,
    };
    if let Some(field) = field.filter(|field| field + 2 <= len) {
        put(&mut out, field, 0);
        let value = !sum_with_pseudo(&out, at, len, number);
        put(&mut out, field, if number == 17 && value == 0 { 0xffff } else { value });
    }
    out
}

/// Cuts an IPv4 packet without options for a way that takes `mtu` bytes (RFC 791, 3.2).
pub fn pieces(bytes: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let room = (mtu - 20) / 8 * 8;
    let parts: Vec<&[u8]> = bytes[20..].chunks(room).collect();
    let piece = |(i, part): (usize, &&[u8])| {
        let mut piece = bytes[..20].to_vec();
        let more = if i + 1 < parts.len() { 0x2000 } else { 0 };
        let kept = word(bytes, 6) & 0xc000;
        put(&mut piece, 6, kept | more | (i * room / 8) as u16);
        put(&mut piece, 2, (20 + part.len()) as u16);
        piece.extend_from_slice(part);
        seal(&mut piece);
        piece
    };
    parts.iter().enumerate().map(piece).collect()
}
