//! Translates a packet into the other family: IPv4 to IPv6 and back (RFC 7915), bytes in, bytes out.
//!
//! It must not know flows, services or time: the addresses and ports of the result are given. Checksums of TCP, UDP
//! and echo are patched (RFC 1624), so a packet with a wrong checksum leaves with a wrong one. TTL and hop limit are
//! copied: the kernel decrements them when it forwards to the device and from it.

mod error;
mod fragment;
mod header;
mod icmp;
mod transport;

use super::{Addresses, Meta, Parsed, Transport, build};
pub use error::translate_error;
pub use fragment::translate_fragment;
use header::Make;
pub use header::routing_type;
pub use icmp::MtuRule;
use transport::Before;

/// What the headers of a packet become in the other family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Across {
    /// Its addresses there.
    pub addresses: Addresses,
    /// Its source port (ICMP echo: identifier).
    pub src_port: u16,
    /// Its destination port (ICMP echo: identifier, the same).
    pub dst_port: u16,
}

/// Why a packet cannot be translated into the other family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Untranslatable {
    /// A source route or Routing header has addresses left (RFC 7915, 4.1 and 5.1), or the source is a home address
    /// (RFC 6275, 6.3).
    SourceRoute,
    /// A fragment of ICMP or of an extension header, or a first fragment without its transport header (RFC 7915, 1.2
    /// and 5.1.1).
    Fragment,
    /// An ICMP type or code without counterpart (RFC 7915, 4.2 and 5.2).
    Icmp,
    /// A first IPv4 fragment of a UDP datagram without a checksum (RFC 7915, 4.5), or such a datagram over IPv6 (RFC
    /// 8200, 8.1).
    UdpNoSum,
    /// The result would be longer than its length field can express.
    TooLong,
    /// Neither TCP, UDP nor ICMP, or authenticated (RFC 4302), which a changed header breaks.
    Protocol,
    /// The bytes contradict their headers, or the addresses given are of the packet's own family.
    Malformed,
}

/// The longest IPv4 packet written without Don't Fragment: 1,280 bytes of IPv6 minus the difference of the headers
/// (RFC 7915, 5.1).
pub const MAY_FRAGMENT: usize = 1260;

/// Appends a whole TCP, UDP or ICMP echo packet in the other family, and returns its metadata for the device.
///
/// `parsed` is the result of [`super::parse`] for `packet`. IPv4 options and IPv6 Hop-by-Hop, Destination and used-up
/// Routing headers are dropped; the flow label is 0. `id` becomes the IPv4 identification of a packet (or segment of
/// a super-packet) of up to [`MAY_FRAGMENT`] bytes, with Don't Fragment clear; a longer one has identification 0 and
/// Don't Fragment set; an atomic fragment keeps the low half of its own (RFC 7915, 5.1.1). A missing IPv4 UDP
/// checksum is computed. A partial checksum stays partial, except that of an echo, which is completed, and one inside a
/// datagram whose checksum is computed. On refusal `out` is left unchanged.
pub fn translate(
    out: &mut Vec<u8>,
    packet: &[u8],
    parsed: &Parsed,
    to: &Across,
    id: u16,
    meta: Meta,
) -> Result<Meta, Untranslatable> {
    let packet = packet.get(..parsed.len).ok_or(Untranslatable::Malformed)?;
    let head = header::read(packet)?;
    let data = packet.get(head.offset..).ok_or(Untranslatable::Malformed)?;
    refuse_same_family(&head.addresses, &to.addresses)?;
    if parsed.transport == Transport::Routed {
        return Err(Untranslatable::SourceRoute);
    }
    if head.is_fragment() {
        return Err(Untranslatable::Fragment);
    }
    let from_v6 = matches!(head.addresses, Addresses::V6 { .. });
    let lacks_sum = transport::lacks_sum(head.protocol, data) && !meta.partial_checksum;
    let inner = meta.inner_checksum.and_then(|inner| inner.moved(head.offset, 0));
    if lacks_sum && from_v6 {
        return Err(Untranslatable::UdpNoSum);
    }
    let segment = match meta.gso_size {
        0 => data.len(),
        size => data.len().min(data.len().saturating_sub(parsed.payload_len()) + usize::from(size)),
    };
    let make = Make {
        addresses: &to.addresses,
        class: head.class,
        hops: head.hops,
        protocol: header::other_protocol(head.protocol),
        data: data.len(),
        piece: head.piece,
        id: (header::V4 + segment <= MAY_FRAGMENT).then_some(id),
    };
    let made = header::make(&make)?;
    let before =
        Before { addresses: &head.addresses, protocol: head.protocol, len: data.len(), partial: meta.partial_checksum };
    append(out, made.bytes(), data, |data| {
        transport::rewrite(data, &before, to)?;
        if !lacks_sum {
            return Ok(());
        }
        if let Some(inner) = inner {
            build::complete_inner_sum(data, inner);
        }
        transport::complete_udp(data, &to.addresses)
    })?;
    let partial_checksum = meta.partial_checksum && !matches!(parsed.transport, Transport::Echo { .. });
    let inner_checksum = inner.filter(|_| !lacks_sum).and_then(|inner| inner.moved(0, made.bytes().len()));
    Ok(Meta { partial_checksum, inner_checksum, ..meta })
}

/// Returns whether a whole packet or a first fragment can be translated: the result of [`translate`] or
/// [`translate_fragment`]. `scratch` is overwritten.
pub fn can_cross(scratch: &mut Vec<u8>, packet: &[u8], parsed: &Parsed, meta: Meta) -> Result<(), Untranslatable> {
    let addresses = match parsed.addresses {
        Addresses::V4 { .. } => Addresses::V6 { src: 0, dst: 0 },
        Addresses::V6 { .. } => Addresses::V4 { src: 0, dst: 0 },
    };
    let to = Across { addresses, src_port: 0, dst_port: 0 };
    scratch.clear();
    if parsed.whole {
        translate(scratch, packet, parsed, &to, 0, meta).map(drop)
    } else {
        translate_fragment(scratch, packet, parsed, &to)
    }
}

/// Returns the length of a whole packet or a fragment in the other family.
///
/// An IPv6 fragment loses its Fragment header, an IPv4 one gets one.
pub fn translated_len(packet: &[u8], parsed: &Parsed) -> usize {
    let Ok(head) = header::read(packet) else { return parsed.len };
    let made = match head.addresses {
        Addresses::V4 { .. } if head.is_fragment() => header::V6 + header::V6_FRAGMENT,
        Addresses::V4 { .. } => header::V6,
        Addresses::V6 { .. } => header::V4,
    };
    made + parsed.len.saturating_sub(head.offset)
}

/// Returns the MTU to report to the sender of a packet that does not fit in `mtu` bytes after its translation: in
/// IPv4 20 less, for a fragment 28 less, since it gets a Fragment header; in IPv6 20 more and at least 1,280 (RFC
/// 7915, 4.1 and 5.1).
pub fn mtu_of_sender(parsed: &Parsed, mtu: u32) -> u32 {
    match parsed.addresses {
        Addresses::V4 { .. } => mtu.saturating_sub(if parsed.whole { 20 } else { 28 }),
        Addresses::V6 { .. } => mtu.saturating_add(20).max(1280),
    }
}

fn refuse_same_family(from: &Addresses, to: &Addresses) -> Result<(), Untranslatable> {
    match (from, to) {
        (Addresses::V4 { .. }, Addresses::V6 { .. }) | (Addresses::V6 { .. }, Addresses::V4 { .. }) => Ok(()),
        _ => Err(Untranslatable::Malformed),
    }
}

/// Appends a header and what follows it, changed in place; truncates `out` again if the change is refused.
fn append(
    out: &mut Vec<u8>,
    header: &[u8],
    data: &[u8],
    change: impl FnOnce(&mut [u8]) -> Result<(), Untranslatable>,
) -> Result<(), Untranslatable> {
    let start = out.len();
    out.extend_from_slice(header);
    out.extend_from_slice(data);
    let result = change(&mut out[start + header.len()..]);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_error;
