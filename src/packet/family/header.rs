//! IP headers of both families in terms that both share: read from one, written as the other.
//!
//! It must not know what follows them.

use super::super::options::has_source_route;
use super::super::{Addresses, checksum, long, proto, word};
use super::Untranslatable;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// The most extension headers per packet, as the parser counts them.
const MOST_EXTENSIONS: usize = 8;

/// Bytes of an IPv4 header without options.
pub(super) const V4: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub(super) const V6: usize = 40;
/// Bytes of an IPv6 Fragment header.
pub(super) const V6_FRAGMENT: usize = 8;

/// Which part of a packet a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Identification; 16 bits in IPv4.
    pub id: u32,
    /// Offset in bytes, a multiple of 8.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
}

impl Piece {
    /// Returns whether it is the entire packet: an atomic fragment (RFC 6946).
    pub(super) const fn is_whole(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// What an IP header, with its options or extensions, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub addresses: Addresses,
    /// TOS, or traffic class.
    pub class: u8,
    /// TTL, or hop limit.
    pub hops: u8,
    /// The transport's protocol number, as this family writes it.
    pub protocol: u8,
    /// Offset of the transport, or of a fragment's part of it.
    pub offset: usize,
    /// Bytes of the packet as its header states them; a quoted packet may be shorter.
    pub len: usize,
    /// `None` for an unfragmented IPv4 packet and for an IPv6 packet without Fragment header.
    pub piece: Option<Piece>,
}

impl Head {
    /// Returns whether the packet is one of several fragments.
    pub(super) fn is_fragment(&self) -> bool {
        self.piece.is_some_and(|piece| !piece.is_whole())
    }
}

/// Reads an IP header; the packet may be truncated after it.
pub(super) fn read(bytes: &[u8]) -> Result<Head, Untranslatable> {
    let (head, foreign) = match bytes.first().map(|first| first >> 4) {
        Some(4) if bytes.len() >= V4 => (read_v4(bytes)?, proto::ICMPV6),
        Some(6) if bytes.len() >= V6 => (read_v6(bytes)?, proto::ICMP),
        _ => return Err(Untranslatable::Malformed),
    };
    // Translation would make the protocol number valid, but not the payload.
    if head.protocol == foreign { Err(Untranslatable::Protocol) } else { Ok(head) }
}

fn read_v4(bytes: &[u8]) -> Result<Head, Untranslatable> {
    let offset = usize::from(bytes[0] & 0x0f) * 4;
    let len = usize::from(word(bytes, 2));
    let options = bytes.get(V4..offset).ok_or(Untranslatable::Malformed)?;
    if len < offset {
        return Err(Untranslatable::Malformed);
    }
    if has_source_route(options) {
        return Err(Untranslatable::SourceRoute);
    }
    let flags = word(bytes, 6);
    let piece = Piece { id: word(bytes, 4).into(), offset: (flags & 0x1fff) << 3, more: flags & 0x2000 != 0 };
    Ok(Head {
        addresses: Addresses::V4 { src: long(bytes, 12), dst: long(bytes, 16) },
        class: bytes[1],
        hops: bytes[8],
        protocol: bytes[9],
        offset,
        len,
        piece: (!piece.is_whole()).then_some(piece),
    })
}

fn read_v6(bytes: &[u8]) -> Result<Head, Untranslatable> {
    let address = |at: usize| u128::from_be_bytes(bytes[at..at + 16].try_into().unwrap_or_default());
    let mut head = Head {
        addresses: Addresses::V6 { src: address(8), dst: address(24) },
        class: ((word(bytes, 0) >> 4) & 0xff) as u8,
        hops: bytes[7],
        protocol: bytes[6],
        offset: V6,
        len: V6 + usize::from(word(bytes, 4)),
        piece: None,
    };
    for _ in 0..=MOST_EXTENSIONS {
        let kind = head.protocol;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            return if head.offset <= head.len { Ok(head) } else { Err(Untranslatable::Malformed) };
        }
        let start = bytes.get(head.offset..head.offset + 8).ok_or(Untranslatable::Malformed)?;
        match kind {
            // Its integrity check covers the addresses, so it would arrive broken: a reason of its own.
            AUTHENTICATION => return Err(Untranslatable::Protocol),
            // RFC 7915, 5.1.1: a fragment from the middle of another header is not translated.
            _ if head.is_fragment() => return Err(Untranslatable::Fragment),
            ROUTING if start[3] != 0 => return Err(Untranslatable::SourceRoute),
            FRAGMENT => {
                let field = word(start, 2);
                head.piece = Some(Piece { id: long(start, 4), offset: field & 0xfff8, more: field & 1 != 0 });
            }
            _ => {}
        }
        head.offset += if kind == FRAGMENT { V6_FRAGMENT } else { 8 + usize::from(start[1]) * 8 };
        head.protocol = start[0];
        if kind == FRAGMENT && head.is_fragment() && head.piece.is_some_and(|piece| piece.offset != 0) {
            // What follows is the middle of something, not a header.
            let extension = matches!(head.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION);
            return match head.protocol {
                AUTHENTICATION => Err(Untranslatable::Protocol),
                _ if extension => Err(Untranslatable::Fragment),
                _ if head.offset > head.len => Err(Untranslatable::Malformed),
                _ => Ok(head),
            };
        }
    }
    Err(Untranslatable::Malformed)
}

/// Returns the offset of the type field of a Routing header with segments left: the pointer of the ICMPv6 Parameter
/// Problem (type 4, code 0) that a node sends if it is to forward the packet by that header and does not (RFC 8200,
/// 4.4; RFC 5095, 3). `None` if the packet has no such header.
pub fn routing_type(packet: &[u8]) -> Option<u32> {
    let (mut kind, mut at) = (*packet.get(6).filter(|_| packet[0] >> 4 == 6)?, V6);
    for _ in 0..=MOST_EXTENSIONS {
        let start = packet.get(at..at + 8)?;
        match kind {
            ROUTING if start[3] != 0 => return u32::try_from(at + 2).ok(),
            HOP_BY_HOP | ROUTING | DESTINATION => at += 8 + usize::from(start[1]) * 8,
            AUTHENTICATION => at += 8 + usize::from(start[1]) * 4,
            FRAGMENT if word(start, 2) & 0xfff8 == 0 => at += V6_FRAGMENT,
            _ => return None,
        }
        kind = start[0];
    }
    None
}

/// Returns the transport's protocol number in the other family: ICMP and ICMPv6 are swapped.
pub(super) const fn other_protocol(protocol: u8) -> u8 {
    match protocol {
        proto::ICMP => proto::ICMPV6,
        proto::ICMPV6 => proto::ICMP,
        same => same,
    }
}

/// A header to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Make<'a> {
    pub addresses: &'a Addresses,
    pub class: u8,
    pub hops: u8,
    /// The transport's protocol number in the family of the addresses.
    pub protocol: u8,
    /// Bytes that follow the header.
    pub data: usize,
    /// The fragment to make. In IPv6, `Some` writes a Fragment header.
    pub piece: Option<Piece>,
    /// Identification of an unfragmented IPv4 packet that may be fragmented; `None` sets Don't Fragment.
    pub id: Option<u16>,
}

/// A written header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    bytes: [u8; V6 + V6_FRAGMENT],
    len: usize,
}

impl Made {
    /// Returns its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Writes a header, with its checksum for IPv4. Fails only if the length field cannot hold the length.
pub(super) fn make(what: &Make) -> Result<Made, Untranslatable> {
    match *what.addresses {
        Addresses::V4 { src, dst } => make_v4(what, src, dst),
        Addresses::V6 { src, dst } => make_v6(what, src, dst),
    }
}

fn make_v4(what: &Make, src: u32, dst: u32) -> Result<Made, Untranslatable> {
    let total = u16::try_from(V4 + what.data).map_err(|_| Untranslatable::TooLong)?;
    let (id, flags) = match (what.piece, what.id) {
        (Some(piece), _) => ((piece.id & 0xffff) as u16, piece.offset >> 3 | u16::from(piece.more) << 13),
        (None, Some(id)) => (id, 0),
        (None, None) => (0, 0x4000),
    };
    let mut bytes = [0; V6 + V6_FRAGMENT];
    bytes[0] = 0x45;
    bytes[1] = what.class;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[4..6].copy_from_slice(&id.to_be_bytes());
    bytes[6..8].copy_from_slice(&flags.to_be_bytes());
    bytes[8] = what.hops;
    bytes[9] = what.protocol;
    bytes[12..16].copy_from_slice(&src.to_be_bytes());
    bytes[16..20].copy_from_slice(&dst.to_be_bytes());
    let sum = !checksum::fold(checksum::add(0, &bytes[..V4]));
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(Made { bytes, len: V4 })
}

fn make_v6(what: &Make, src: u128, dst: u128) -> Result<Made, Untranslatable> {
    let extra = if what.piece.is_some() { V6_FRAGMENT } else { 0 };
    let payload = u16::try_from(extra + what.data).map_err(|_| Untranslatable::TooLong)?;
    let mut bytes = [0; V6 + V6_FRAGMENT];
    bytes[0..2].copy_from_slice(&(0x6000 | u16::from(what.class) << 4).to_be_bytes());
    bytes[4..6].copy_from_slice(&payload.to_be_bytes());
    bytes[6] = what.protocol;
    bytes[7] = what.hops;
    bytes[8..24].copy_from_slice(&src.to_be_bytes());
    bytes[24..40].copy_from_slice(&dst.to_be_bytes());
    if let Some(piece) = what.piece {
        bytes[6] = FRAGMENT;
        bytes[40] = what.protocol;
        bytes[42..44].copy_from_slice(&(piece.offset | u16::from(piece.more)).to_be_bytes());
        bytes[44..48].copy_from_slice(&piece.id.to_be_bytes());
    }
    Ok(Made { bytes, len: V6 + extra })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_was_made_is_read_as_it_was_meant() {
        let four = Addresses::V4 { src: 0x0a00_0001, dst: 0x0a00_0002 };
        let six = Addresses::V6 { src: 7 << 96, dst: 9 };
        let piece = Some(Piece { id: 0xbeef, offset: 1480, more: true });
        for (addresses, piece, id) in
            [(four, None, None), (four, None, Some(7)), (four, piece, None), (six, None, None), (six, piece, None)]
        {
            let make_it = Make { addresses: &addresses, class: 0xb9, hops: 3, protocol: 17, data: 64, piece, id };
            let made = make(&make_it).unwrap();
            let head = read(made.bytes()).unwrap();
            let want =
                Head { addresses, class: 0xb9, hops: 3, protocol: 17, offset: made.len, len: made.len + 64, piece };
            assert_eq!(head, want);
        }
        let long = Make { addresses: &four, class: 0, hops: 0, protocol: 6, data: 65_516, piece: None, id: None };
        assert_eq!(make(&long).unwrap_err(), Untranslatable::TooLong);
        let fits = Make { data: 65_535, addresses: &six, ..long };
        assert!(make(&fits).is_ok());
        assert_eq!(make(&Make { piece, ..fits }).unwrap_err(), Untranslatable::TooLong);
    }

    fn six(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 40];
        out[0] = 0x60;
        out[5] = rest.len() as u8;
        out[6] = first;
        out.extend(rest);
        out
    }

    #[test]
    fn extension_headers_are_skipped_or_refused_by_name() {
        let cases: &[(u8, &[u8], Result<(u8, usize), Untranslatable>)] = &[
            (17, &[0; 8], Ok((17, 40))),
            (0, &[60, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0], Ok((6, 56))),
            (43, &[17, 0, 4, 0, 0, 0, 0, 0], Ok((17, 48))),
            (43, &[17, 0, 4, 1, 0, 0, 0, 0], Err(Untranslatable::SourceRoute)),
            (51, &[17, 0, 4, 1, 0, 0, 0, 0], Err(Untranslatable::Protocol)),
            (44, &[17, 0, 0, 0, 1, 2, 3, 4], Ok((17, 48))),
            (44, &[60, 0, 0, 0, 1, 2, 3, 4, 17, 0, 0, 0, 0, 0, 0, 0], Ok((17, 56))),
            (44, &[60, 0, 0, 1, 1, 2, 3, 4, 17, 0, 0, 0, 0, 0, 0, 0], Err(Untranslatable::Fragment)),
            (44, &[60, 0, 0, 9, 1, 2, 3, 4, 17, 0, 0, 0, 0, 0, 0, 0], Err(Untranslatable::Fragment)),
            (44, &[17, 0, 0, 9, 1, 2, 3, 4, 17, 0, 0, 0, 0, 0, 0, 0], Ok((17, 48))),
            (60, &[17, 0, 0, 0], Err(Untranslatable::Malformed)),
            (60, &[17, 9, 0, 0, 0, 0, 0, 0], Err(Untranslatable::Malformed)),
        ];
        for (i, (first, rest, want)) in cases.iter().enumerate() {
            let got = read(&six(*first, rest)).map(|head| (head.protocol, head.offset));
            assert_eq!(got, *want, "case {i}");
        }
    }

    #[test]
    fn the_type_of_a_routing_header_with_segments_left_is_found() {
        assert_eq!(routing_type(&six(43, &[17, 0, 4, 1, 0, 0, 0, 0])), Some(42));
        assert_eq!(routing_type(&six(60, &[43, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 2, 0, 0, 0, 0])), Some(50));
        let behind_ah = [43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 2, 0, 0, 0, 0];
        assert_eq!(routing_type(&six(51, &behind_ah)), Some(54));
        assert_eq!(routing_type(&six(43, &[17, 0, 4, 0, 0, 0, 0, 0])), None);
        assert_eq!(routing_type(&[]), None);
    }
}
