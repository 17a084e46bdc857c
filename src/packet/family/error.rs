//! Translates a whole ICMP error into the other family: its header, its message, the packet it quotes, its extensions
//! (RFC 7915, 4.2, 4.3, 5.2 and 5.3; RFC 4884).

use super::super::{Addresses, Parsed, Transport, checksum, proto};
use super::header::{self, Head, Make};
use super::icmp::{self, Message, MtuRule};
use super::transport::{self, Before};
use super::{Across, MAY_FRAGMENT, Untranslatable, refuse_same_family};

/// Bytes of an ICMP error before its quote.
const ICMP: usize = 8;
/// The longest ICMPv4 error (RFC 1812, 4.3.2.3) and ICMPv6 error (RFC 4443, 2.4c).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;
/// The shortest quote before extensions (RFC 4884, 3).
const LEAST_BEFORE_EXTENSION: usize = 128;

/// Appends an ICMP error in the other family; its outer addresses become `outer`, its quoted packet what `inner`
/// says.
///
/// The quote is truncated so that an ICMPv4 error has at most 576 bytes and an ICMPv6 error 1,280. RFC 4884
/// extensions are carried over unchanged if the other type allows them and 128 bytes of quote still fit. `id` is the
/// identification of an IPv4 error. The caller has verified the incoming checksum, since the outgoing one is computed
/// anew; a quoted transport's checksum is patched if it is quoted. The quoted IPv4 header's checksum is not verified.
/// On refusal `out` is left unchanged.
pub fn translate_error(
    out: &mut Vec<u8>,
    packet: &[u8],
    parsed: &Parsed,
    outer: &Addresses,
    inner: &Across,
    mtus: &MtuRule,
    id: u16,
) -> Result<(), Untranslatable> {
    let packet = packet.get(..parsed.len).ok_or(Untranslatable::Malformed)?;
    let head = header::read(packet)?;
    refuse_same_family(&head.addresses, outer)?;
    if head.is_fragment() {
        return Err(Untranslatable::Fragment);
    }
    let Transport::Icmp { kind, code } = parsed.transport else { return Err(Untranslatable::Icmp) };
    let message = packet.get(head.offset..).ok_or(Untranslatable::Malformed)?;
    let rest = message.get(4..ICMP).and_then(|rest| rest.try_into().ok()).ok_or(Untranslatable::Malformed)?;
    let to_v6 = matches!(outer, Addresses::V6 { .. });
    let (quoted, extension) = split(message, !to_v6, kind);
    let quoted_head = header::read(quoted)?;
    refuse_same_family(&quoted_head.addresses, &inner.addresses)?;
    refuse_same_family(&quoted_head.addresses, outer)?;
    let said = if to_v6 {
        icmp::to_v6(kind, code, rest, quoted_head.len, mtus)?
    } else {
        icmp::to_v4(kind, code, rest, quoted_head.piece.is_some(), mtus)?
    };
    let start = out.len();
    let made = write(out, &head, outer, id, &said, &Quoted { bytes: quoted, head: quoted_head, extension }, inner);
    if made.is_err() {
        out.truncate(start);
    }
    made
}

/// What follows the first eight bytes of an error.
struct Quoted<'a> {
    bytes: &'a [u8],
    head: Head,
    extension: &'a [u8],
}

/// Separates an error's quote from its extensions (RFC 4884, 4 and 5), which are only carried over (RFC 7915, 4.2). A
/// length attribute that makes no sense is ignored; one of less than 128 bytes, which some routers send, counts if a
/// valid extension follows.
fn split(message: &[u8], v6: bool, kind: u8) -> (&[u8], &[u8]) {
    let all = &message[ICMP..];
    let Some((at, unit)) = icmp::length_attribute(v6, kind) else { return (all, &[]) };
    match all.split_at_checked(usize::from(message[at]) * unit) {
        Some((quote, extension)) if quote.len() >= LEAST_BEFORE_EXTENSION => {
            (quote, if extension.len() >= 4 { extension } else { &[] })
        }
        Some((quote, extension)) if !quote.is_empty() && is_sound(extension) => (quote, extension),
        _ => (all, &[]),
    }
}

/// Returns whether the bytes are an extension structure of version 2 with a valid checksum (RFC 4884, 7).
fn is_sound(extension: &[u8]) -> bool {
    extension.len() >= 4 && extension[0] >> 4 == 2 && checksum::fold(checksum::add(0, extension)) == 0xffff
}

fn write(
    out: &mut Vec<u8>,
    head: &Head,
    outer: &Addresses,
    id: u16,
    said: &Message,
    quoted: &Quoted,
    inner: &Across,
) -> Result<(), Untranslatable> {
    let v6 = matches!(outer, Addresses::V6 { .. });
    let (ip, most) = if v6 { (header::V6, LONGEST_V6) } else { (header::V4, LONGEST_V4) };
    let room = most - ip - ICMP;
    let start = out.len();
    let body = start + ip + ICMP;
    out.resize(body, 0);
    out[start + ip] = said.kind;
    out[start + ip + 1] = said.code;
    out[start + ip + 4..body].copy_from_slice(&said.rest);
    write_quoted(out, quoted, inner)?;
    let attribute = icmp::length_attribute(v6, said.kind);
    match attribute.filter(|_| !quoted.extension.is_empty() && quoted.extension.len() + LEAST_BEFORE_EXTENSION <= room)
    {
        Some((at, unit)) => {
            let fits = (room - quoted.extension.len()) / unit * unit;
            let quote = (out.len() - body).next_multiple_of(unit).clamp(LEAST_BEFORE_EXTENSION, fits);
            out.resize(body + quote, 0);
            out[start + ip + at] = u8::try_from(quote / unit).map_err(|_| Untranslatable::TooLong)?;
            out.extend_from_slice(quoted.extension);
        }
        None => out.truncate(body + room),
    }
    let data = out.len() - start - ip;
    let protocol = if v6 { proto::ICMPV6 } else { proto::ICMP };
    let make =
        Make { addresses: outer, class: head.class, hops: head.hops, protocol, data, piece: head.piece, id: Some(id) };
    out[start..start + ip].copy_from_slice(header::make(&make)?.bytes());
    let covered = if v6 { checksum::pseudo(outer, protocol, data) } else { 0 };
    let sum = !checksum::fold(checksum::add(covered, &out[start + ip..]));
    out[start + ip + 2..start + ip + 4].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Appends the quoted packet in the other family, as much as was quoted; its header states the length of the whole
/// packet.
fn write_quoted(out: &mut Vec<u8>, quoted: &Quoted, inner: &Across) -> Result<(), Untranslatable> {
    let head = &quoted.head;
    let len = head.len - head.offset;
    // What follows the packet is padding.
    let data = quoted.bytes.get(head.offset..quoted.bytes.len().min(head.len)).ok_or(Untranslatable::Malformed)?;
    let made = header::make(&Make {
        addresses: &inner.addresses,
        class: head.class,
        hops: head.hops,
        protocol: header::other_protocol(head.protocol),
        data: len,
        piece: head.piece,
        // The identification in the other family is not known: that of an unfragmented packet is given as 0.
        id: (header::V4 + len <= MAY_FRAGMENT).then_some(0),
    })?;
    out.extend_from_slice(made.bytes());
    let start = out.len();
    out.extend_from_slice(data);
    if head.piece.is_some_and(|piece| piece.offset != 0) {
        return Ok(());
    }
    let before = Before { addresses: &head.addresses, protocol: head.protocol, len, partial: false };
    transport::rewrite(&mut out[start..], &before, inner)
}
