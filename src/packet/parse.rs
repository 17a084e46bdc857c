//! Parses the headers of an IP packet, once; everything after works on the result.
//!
//! Only addresses and offsets are copied, and nothing is trusted: every length is checked against the bytes received.

use super::{checksum, long, options, proto, word};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Source and destination address, as numbers in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Source.
        src: u32,
        /// Destination.
        dst: u32,
    },
    /// IPv6.
    V6 {
        /// Source.
        src: u128,
        /// Destination.
        dst: u128,
    },
}

impl Addresses {
    /// Makes addresses from two of one family; `None` if the families differ.
    pub fn new(src: IpAddr, dst: IpAddr) -> Option<Addresses> {
        match (src, dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => Some(Addresses::V4 { src: s.into(), dst: d.into() }),
            (IpAddr::V6(s), IpAddr::V6(d)) => Some(Addresses::V6 { src: s.into(), dst: d.into() }),
            _ => None,
        }
    }

    /// Returns the source address.
    pub fn src(&self) -> IpAddr {
        match *self {
            Addresses::V4 { src, .. } => Ipv4Addr::from(src).into(),
            Addresses::V6 { src, .. } => Ipv6Addr::from(src).into(),
        }
    }

    /// Returns the destination address.
    pub fn dst(&self) -> IpAddr {
        match *self {
            Addresses::V4 { dst, .. } => Ipv4Addr::from(dst).into(),
            Addresses::V6 { dst, .. } => Ipv6Addr::from(dst).into(),
        }
    }

    /// Returns whether they are IPv6 addresses.
    pub const fn is_v6(&self) -> bool {
        matches!(self, Addresses::V6 { .. })
    }

    /// Returns them swapped.
    #[must_use]
    pub const fn reversed(&self) -> Addresses {
        match *self {
            Addresses::V4 { src, dst } => Addresses::V4 { src: dst, dst: src },
            Addresses::V6 { src, dst } => Addresses::V6 { src: dst, dst: src },
        }
    }
}

/// The flags of a TCP header (RFC 9293, 3.1), the low eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(pub u8);

#[allow(missing_docs)]
impl TcpFlags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;

    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// Returns whether no two flags contradict each other, and at least one of SYN, ACK, FIN and RST is set.
    pub const fn make_sense(self) -> bool {
        let kinds = self.0 & (Self::FIN | Self::SYN | Self::RST);
        kinds & (kinds.wrapping_sub(1)) == 0 && self.0 & (Self::FIN | Self::SYN | Self::RST | Self::ACK) != 0
    }
}

/// What follows the IP headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
        /// Flags.
        flags: TcpFlags,
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number; meaningful only with the flag ACK.
        ack: u32,
        /// Bytes of the header, options included.
        header: u8,
    },
    /// UDP.
    Udp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// ICMP or ICMPv6 echo.
    Echo {
        /// Whether it is a request rather than a reply.
        request: bool,
        /// The identifier.
        id: u16,
    },
    /// Another ICMP or ICMPv6 message.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// SCTP.
    Sctp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// A known transport without ports.
    Other,
    /// A packet that has not reached its destination (a source route with addresses left), or whose source is another
    /// address (a home address): its payload is not meant for this address pair, and its checksum covers other
    /// addresses.
    Routed,
    /// A fragment, first or later. `protocol` and `offset` of [`Parsed`] say what follows the last header that every
    /// fragment carries.
    Fragment {
        /// Offset in bytes; 0 for the first.
        offset: u16,
        /// Whether more fragments follow.
        more: bool,
        /// The identification that all fragments of the packet share; 16 bits in IPv4.
        id: u32,
    },
}

/// The headers of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// The addresses.
    pub addresses: Addresses,
    /// The transport's IP protocol number.
    pub protocol: u8,
    /// Offset of the transport header in bytes.
    pub offset: usize,
    /// Bytes of the IP packet; what follows is padding.
    pub len: usize,
    /// The transport.
    pub transport: Transport,
    /// Whether the packet is complete: checksum and length of a first fragment refer to more than is there.
    pub whole: bool,
}

impl Parsed {
    /// Returns the bytes after the transport header, as a segmenting device counts them.
    pub fn payload_len(&self) -> usize {
        let header = match self.transport {
            Transport::Tcp { header, .. } => usize::from(header),
            Transport::Udp { .. } | Transport::Echo { .. } => 8,
            Transport::Sctp { .. } => 12,
            _ => 0,
        };
        self.len.saturating_sub(self.offset + header)
    }
}

/// What is wrong with a packet's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Shorter than the smallest IP header.
    TooShort,
    /// Neither IPv4 nor IPv6.
    Version,
    /// The IPv4 header length is less than 20 bytes or beyond the packet.
    HeaderLength,
    /// The IP length is less than the headers or more than the packet.
    TotalLength,
    /// The IPv4 header checksum is wrong.
    HeaderChecksum,
    /// The IPv6 extension headers are truncated, or more than eight.
    Extension,
    /// The packet ends inside its transport header.
    Transport,
    /// The TCP data offset is less than 20 bytes or beyond the packet.
    TcpOffset,
    /// The TCP flags contradict each other.
    TcpFlags,
    /// The UDP length is less than 8 bytes or beyond the packet.
    UdpLength,
    /// An impossible fragment: empty, not a multiple of eight bytes although more follow, or beyond 65,535 bytes.
    Fragment,
    /// A first fragment without the complete transport header (RFC 1858, 3; RFC 7112, 5), or a TCP fragment that
    /// could overwrite it (RFC 3128).
    TinyFragment,
}

/// Parses an IP packet of any length and contents.
///
/// Source: RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 792, RFC 4443.
#[inline]
pub fn parse(packet: &[u8]) -> Result<Parsed, Malformed> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        Some(_) if packet.len() >= 20 => Err(Malformed::Version),
        _ => Err(Malformed::TooShort),
    }
}

#[inline]
fn parse_v4(packet: &[u8]) -> Result<Parsed, Malformed> {
    if packet.len() < 20 {
        return Err(Malformed::TooShort);
    }
    let header = usize::from(packet[0] & 0x0f) * 4;
    if header < 20 || header > packet.len() {
        return Err(Malformed::HeaderLength);
    }
    let len = usize::from(word(packet, 2));
    if len < header || len > packet.len() {
        return Err(Malformed::TotalLength);
    }
    if checksum::fold(checksum::add(0, &packet[..header])) != 0xffff {
        return Err(Malformed::HeaderChecksum);
    }
    let addresses = Addresses::V4 { src: long(packet, 12), dst: long(packet, 16) };
    let fragment = word(packet, 6);
    let protocol = packet[9];
    let transport = if header > 20 && options::has_source_route(&packet[20..header]) {
        Transport::Routed
    } else if fragment & 0x3fff == 0 {
        transport(protocol, proto::ICMP, &packet[header..len])?
    } else {
        let id = u32::from(word(packet, 4));
        self::fragment(protocol, fragment << 3, fragment & 0x2000 != 0, id, len - header)?
    };
    Ok(Parsed { addresses, protocol, offset: header, len, transport, whole: fragment & 0x3fff == 0 })
}

#[inline]
fn parse_v6(packet: &[u8]) -> Result<Parsed, Malformed> {
    if packet.len() < 40 {
        return Err(Malformed::TooShort);
    }
    let len = 40 + usize::from(word(packet, 4));
    // RFC 2675: a length of zero with extension headers would be a jumbogram, which no link here carries.
    if len > packet.len() || (len == 40 && packet[6] != NO_NEXT_HEADER) {
        return Err(Malformed::TotalLength);
    }
    let address = |at: usize| u128::from_be_bytes(packet[at..at + 16].try_into().expect("sixteen bytes"));
    let addresses = Addresses::V6 { src: address(8), dst: address(24) };
    let chain = match packet[6] {
        // Almost always.
        protocol @ (proto::TCP | proto::UDP) => Chain { protocol, offset: 40, end: End::Transport },
        first => walk_extensions(first, 40, &packet[..len])?,
    };
    let transport = match chain.end {
        End::Transport => transport(chain.protocol, proto::ICMPV6, &packet[chain.offset..len])?,
        End::Fragment { offset, more, id } => fragment(chain.protocol, offset, more, id, len - chain.offset)?,
        End::Opaque => Transport::Routed,
    };
    let whole = !matches!(transport, Transport::Fragment { .. });
    Ok(Parsed { addresses, protocol: chain.protocol, offset: chain.offset, len, transport, whole })
}

/// Parses a first fragment as if it were the whole packet, as far as it goes: its transport header, whose checksum
/// and length refer to more than is there.
///
/// `parsed` must describe these bytes, and a fragment with offset 0.
pub fn parse_first(packet: &[u8], parsed: &Parsed) -> Result<Parsed, Malformed> {
    let (protocol, offset, icmp) = match parsed.addresses {
        Addresses::V4 { .. } => (parsed.protocol, parsed.offset, proto::ICMP),
        Addresses::V6 { .. } => {
            // RFC 7112, 5: the first fragment holds the entire header chain.
            let chain = walk_extensions(parsed.protocol, parsed.offset, &packet[..parsed.len]);
            let chain = chain.map_err(|_| Malformed::TinyFragment)?;
            if !matches!(chain.end, End::Transport) {
                return Ok(Parsed { transport: Transport::Routed, ..*parsed });
            }
            (chain.protocol, chain.offset, proto::ICMPV6)
        }
    };
    let bytes = &packet[offset..parsed.len];
    let transport = match protocol {
        proto::UDP if bytes.len() >= 8 => Transport::Udp { src: word(bytes, 0), dst: word(bytes, 2) },
        proto::SCTP if bytes.len() < 12 => return Err(Malformed::TinyFragment),
        _ => transport(protocol, icmp, bytes).map_err(|error| match error {
            Malformed::Transport | Malformed::TcpOffset => Malformed::TinyFragment,
            other => other,
        })?,
    };
    Ok(Parsed { protocol, offset, transport, ..*parsed })
}

/// Checks a fragment with `len` bytes after its headers.
fn fragment(protocol: u8, offset: u16, more: bool, id: u32, len: usize) -> Result<Transport, Malformed> {
    if len == 0 || (more && !len.is_multiple_of(8)) || usize::from(offset) + len > 65_535 {
        return Err(Malformed::Fragment);
    }
    // RFC 3128, 2: a fragment that begins inside the TCP header could change its flags on reassembly.
    if protocol == proto::TCP && (1..20).contains(&offset) {
        return Err(Malformed::TinyFragment);
    }
    Ok(Transport::Fragment { offset, more, id })
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION: u8 = 60;
/// The most extension headers per packet: the eight of RFC 8200, 4.1, each at most once.
const MOST_EXTENSIONS: usize = 8;

pub(super) enum End {
    Transport,
    Fragment { offset: u16, more: bool, id: u32 },
    Opaque,
}

pub(super) struct Chain {
    pub protocol: u8,
    pub offset: usize,
    pub end: End,
}

/// Walks the extension headers (RFC 8200, 4) from the one at `offset`, of type `first`, to the transport.
pub(super) fn walk_extensions(first: u8, offset: usize, packet: &[u8]) -> Result<Chain, Malformed> {
    let (mut protocol, mut offset, mut end) = (first, offset, End::Transport);
    for _ in 0..=MOST_EXTENSIONS {
        let size = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                8 + usize::from(*packet.get(offset + 1).ok_or(Malformed::Extension)?) * 8
            }
            AUTHENTICATION => 8 + usize::from(*packet.get(offset + 1).ok_or(Malformed::Extension)?) * 4,
            FRAGMENT => 8,
            _ => return Ok(Chain { protocol, offset, end }),
        };
        let header = packet.get(offset..offset + size).ok_or(Malformed::Extension)?;
        match protocol {
            // Segments left: the destination is not the final one, and the transport checksum covers the final one.
            ROUTING if header[3] != 0 => end = End::Opaque,
            // The source is another address, which the transport checksum covers.
            DESTINATION if options::has_home_address(&header[2..]) => end = End::Opaque,
            // RFC 6946: an atomic fragment is a whole packet.
            FRAGMENT if word(header, 2) & 0xfff9 != 0 => {
                let end = match end {
                    End::Opaque => End::Opaque,
                    _ => End::Fragment {
                        offset: word(header, 2) & 0xfff8,
                        more: header[3] & 1 != 0,
                        id: long(header, 4),
                    },
                };
                return Ok(Chain { protocol: header[0], offset: offset + 8, end });
            }
            _ => {}
        }
        protocol = header[0];
        offset += size;
    }
    Err(Malformed::Extension)
}

/// Returns the offset of the Next Header field that names the transport of an IPv6 packet; the packet must have been
/// parsed.
pub(super) fn next_header_field(packet: &[u8]) -> usize {
    let (mut field, mut offset) = (6, 40);
    loop {
        let size = match (packet[field], packet.get(offset + 1)) {
            (HOP_BY_HOP | ROUTING | DESTINATION, Some(units)) => 8 + usize::from(*units) * 8,
            (AUTHENTICATION, Some(units)) => 8 + usize::from(*units) * 4,
            (FRAGMENT, Some(_)) => 8,
            _ => return field,
        };
        (field, offset) = (offset, offset + size);
    }
}

#[inline]
fn transport(protocol: u8, icmp: u8, bytes: &[u8]) -> Result<Transport, Malformed> {
    match protocol {
        proto::TCP => {
            if bytes.len() < 20 {
                return Err(Malformed::Transport);
            }
            let header = (bytes[12] >> 4) * 4;
            if header < 20 || usize::from(header) > bytes.len() {
                return Err(Malformed::TcpOffset);
            }
            let flags = TcpFlags(bytes[13]);
            if !flags.make_sense() {
                return Err(Malformed::TcpFlags);
            }
            Ok(Transport::Tcp {
                src: word(bytes, 0),
                dst: word(bytes, 2),
                flags,
                seq: long(bytes, 4),
                ack: long(bytes, 8),
                header,
            })
        }
        proto::UDP => {
            if bytes.len() < 8 {
                return Err(Malformed::Transport);
            }
            let len = usize::from(word(bytes, 4));
            if len < 8 || len > bytes.len() {
                return Err(Malformed::UdpLength);
            }
            Ok(Transport::Udp { src: word(bytes, 0), dst: word(bytes, 2) })
        }
        _ if protocol == icmp => {
            if bytes.len() < 8 {
                return Err(Malformed::Transport);
            }
            let (request, reply) = if icmp == proto::ICMP { (8, 0) } else { (128, 129) };
            match (bytes[0], bytes[1]) {
                (kind, 0) if kind == request || kind == reply => {
                    Ok(Transport::Echo { request: kind == request, id: word(bytes, 4) })
                }
                (kind, code) => Ok(Transport::Icmp { kind, code }),
            }
        }
        proto::SCTP if bytes.len() >= 12 => Ok(Transport::Sctp { src: word(bytes, 0), dst: word(bytes, 2) }),
        _ => Ok(Transport::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::resum;
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn tcp4() -> Vec<u8> {
        let mut out = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1234, 80, 7, 1024).syn();
        builder.write(&mut out, b"hello").unwrap();
        out
    }

    fn udp6() -> Vec<u8> {
        let mut out = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(53, 4000).write(&mut out, b"abc").unwrap();
        out
    }

    #[test]
    fn tcp_over_ipv4_is_read() {
        let parsed = parse(&tcp4()).unwrap();
        assert_eq!((parsed.offset, parsed.len, parsed.payload_len()), (20, 45, 5));
        assert_eq!(parsed.addresses.src(), "10.0.0.1".parse::<IpAddr>().unwrap());
        assert!(matches!(parsed.transport, Transport::Tcp { src: 1234, dst: 80, seq: 7, header: 20, .. }));
    }

    #[test]
    fn padding_after_the_packet_is_not_part_of_it() {
        let mut packet = tcp4();
        packet.extend([0; 11]);
        assert_eq!(parse(&packet).unwrap().len, 45);
    }

    #[test]
    fn each_broken_header_has_its_name() {
        type Spoil = fn(&mut Vec<u8>);
        let cases: &[(Spoil, Malformed)] = &[
            (|p| p.truncate(0), Malformed::TooShort),
            (|p| p.truncate(19), Malformed::TooShort),
            (|p| p[0] = 0x75, Malformed::Version),
            (|p| p[0] = 0x44, Malformed::HeaderLength),
            (|p| p[3] = 200, Malformed::TotalLength),
            (|p| p[3] = 10, Malformed::TotalLength),
            (|p| p[8] = 1, Malformed::HeaderChecksum),
            (
                |p| {
                    p[3] = 30;
                    resum(p)
                },
                Malformed::Transport,
            ),
            (|p| p[32] = 0x20, Malformed::TcpOffset),
            (|p| p[32] = 0xf0, Malformed::TcpOffset),
            (|p| p[33] = 0x03, Malformed::TcpFlags),
            (|p| p[33] = 0x06, Malformed::TcpFlags),
            (|p| p[33] = 0x00, Malformed::TcpFlags),
        ];
        for (i, (spoil, want)) in cases.iter().enumerate() {
            let mut packet = tcp4();
            spoil(&mut packet);
            assert_eq!(parse(&packet), Err(*want), "case {i}");
        }
        let cases: &[(Spoil, Malformed)] = &[
            (|p| p.truncate(39), Malformed::TooShort),
            (|p| p[5] = 200, Malformed::TotalLength),
            (|p| p[5] = 0, Malformed::TotalLength),
            (|p| p[5] = 7, Malformed::Transport),
            (|p| p[45] = 7, Malformed::UdpLength),
            (|p| p[45] = 99, Malformed::UdpLength),
            (
                |p| {
                    p[6] = 0;
                    p[41] = 9
                },
                Malformed::Extension,
            ),
            (
                |p| {
                    p[6] = 60;
                    p[40] = 60;
                    p[41] = 0
                },
                Malformed::Extension,
            ),
        ];
        for (i, (spoil, want)) in cases.iter().enumerate() {
            let mut packet = udp6();
            spoil(&mut packet);
            assert_eq!(parse(&packet), Err(*want), "IPv6 case {i}");
        }
    }

    #[test]
    fn an_extension_header_is_walked_over_and_an_atomic_fragment_is_whole() {
        for (kind, header) in [(60, [17, 0, 1, 4, 0, 0, 0, 0]), (44, [17, 0, 0, 0, 1, 2, 3, 4])] {
            let mut packet = udp6();
            packet.splice(40..40, header);
            packet[5] += 8;
            packet[6] = kind;
            let parsed = parse(&packet).unwrap();
            assert_eq!((parsed.protocol, parsed.offset), (17, 48));
            assert!(matches!(parsed.transport, Transport::Udp { src: 53, dst: 4000 }));
        }
    }

    #[test]
    fn first_and_later_fragments_are_distinguished() {
        let fragment = |offset, more| Ok(Transport::Fragment { offset, more, id: 0x1234 });
        for (field, protocol, len, want) in [
            (0x2000, 6, 44, fragment(0, true)),
            (0x2003, 6, 44, fragment(24, true)),
            (0x0003, 6, 45, fragment(24, false)),
            (0x1ffc, 17, 45, fragment(65_504, false)),
            (0x1ffd, 17, 45, Err(Malformed::Fragment)),
            (0x2003, 17, 45, Err(Malformed::Fragment)),
            (0x2003, 17, 20, Err(Malformed::Fragment)),
            (0x0001, 6, 45, Err(Malformed::TinyFragment)),
            (0x0001, 17, 45, fragment(8, false)),
        ] {
            let mut packet = tcp4();
            packet[3] = len;
            packet[4..6].copy_from_slice(&[0x12, 0x34]);
            packet[6..8].copy_from_slice(&u16::to_be_bytes(field));
            packet[9] = protocol;
            resum(&mut packet);
            assert_eq!(parse(&packet).map(|parsed| parsed.transport), want, "{field:x} {len}");
        }
        let mut packet = udp6();
        packet.splice(40..40, [17, 0, 0, 9, 1, 2, 3, 4]);
        packet[5] += 8;
        packet[6] = 44;
        assert_eq!(parse(&packet), Err(Malformed::Fragment), "eleven bytes, and more follow");
        packet[43] = 8;
        let parsed = parse(&packet).unwrap();
        assert_eq!(parsed.transport, Transport::Fragment { offset: 8, more: false, id: 0x0102_0304 });
        assert_eq!((parsed.protocol, parsed.offset), (17, 48));
    }

    #[test]
    fn a_first_fragment_holds_its_transport_header() {
        let first = |packet: &[u8]| parse_first(packet, &parse(packet).unwrap()).map(|p| (p.protocol, p.transport));
        let mut packet = tcp4();
        packet[6] = 0x20;
        for (len, whole) in [(44, true), (36, false), (28, false)] {
            packet[3] = len;
            resum(&mut packet);
            assert_eq!(first(&packet).is_ok(), whole, "{len}");
        }
        assert_eq!(first(&packet), Err(Malformed::TinyFragment));
        let mut packet = udp6();
        // Destination options after the fragment header; the UDP length refers to the whole datagram.
        packet.splice(40..40, [60, 0, 0, 1, 1, 2, 3, 4, 17, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend([0; 5]);
        packet[5] = (packet.len() - 40) as u8;
        packet[6] = 44;
        packet[60..62].copy_from_slice(&[0x10, 0]);
        assert_eq!(first(&packet), Ok((17, Transport::Udp { src: 53, dst: 4000 })));
        packet.truncate(40 + 16);
        packet[5] = 16;
        assert_eq!(first(&packet), Err(Malformed::TinyFragment));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), v6 in any::<bool>()) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 } | (*first & 0x0a);
            }
            if let Ok(parsed) = parse(&bytes) {
                prop_assert!(parsed.offset <= parsed.len && parsed.len <= bytes.len());
            }
        }
    }
}
