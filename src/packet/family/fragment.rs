//! Translates one fragment of a TCP or UDP packet into the other family (RFC 7915, 4.1 and 5.1.1).

use super::super::{Parsed, proto};
use super::header::{self, Make};
use super::transport::{self, Before};
use super::{Across, Untranslatable, append, refuse_same_family};

/// Bytes of the transport header that a first fragment must hold for its checksum to be patched.
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Appends a fragment in the other family; of a first fragment ports and checksum change, of a later one only the IP
/// header.
///
/// The identification is truncated to its low 16 bits for IPv4 and zero-extended for IPv6; offset and More Fragments
/// are kept. Don't Fragment is clear. Fragments of ICMP are refused: the ICMPv6 checksum covers the length of the
/// whole message, which no fragment states (RFC 7915, 1.2). A whole packet is for [`super::translate`] and refused
/// here. On refusal `out` is left unchanged.
pub fn translate_fragment(
    out: &mut Vec<u8>,
    packet: &[u8],
    parsed: &Parsed,
    to: &Across,
) -> Result<(), Untranslatable> {
    let packet = packet.get(..parsed.len).ok_or(Untranslatable::Malformed)?;
    let head = header::read(packet)?;
    let data = packet.get(head.offset..).ok_or(Untranslatable::Malformed)?;
    refuse_same_family(&head.addresses, &to.addresses)?;
    let piece = head.piece.filter(|_| head.is_fragment()).ok_or(Untranslatable::Malformed)?;
    let least = match head.protocol {
        proto::TCP => TCP_HEADER,
        proto::UDP => UDP_HEADER,
        proto::ICMP | proto::ICMPV6 => return Err(Untranslatable::Fragment),
        _ => return Err(Untranslatable::Protocol),
    };
    // RFC 8200, 4.5: all but the last consist of whole units; RFC 791 cannot encode anything else.
    if data.is_empty() || (piece.more && data.len() % 8 != 0) {
        return Err(Untranslatable::Malformed);
    }
    // The reassembled packet must fit IPv4's length field.
    if header::V4 + usize::from(piece.offset) + data.len() > usize::from(u16::MAX) {
        return Err(Untranslatable::TooLong);
    }
    let first = piece.offset == 0;
    if first && data.len() < least {
        return Err(Untranslatable::Fragment);
    }
    if first && transport::lacks_sum(head.protocol, data) {
        return Err(Untranslatable::UdpNoSum);
    }
    let made = header::make(&Make {
        addresses: &to.addresses,
        class: head.class,
        hops: head.hops,
        protocol: head.protocol,
        data: data.len(),
        piece: Some(piece),
        id: None,
    })?;
    let before = Before { addresses: &head.addresses, protocol: head.protocol, len: data.len(), partial: false };
    append(out, made.bytes(), data, |data| if first { transport::rewrite(data, &before, to) } else { Ok(()) })
}
