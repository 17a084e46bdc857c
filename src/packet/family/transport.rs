//! The start of a transport in the other family: ports, identifier, ICMP type, and the checksum patched for all of
//! them.

use super::super::checksum::{self, Delta};
use super::super::{Addresses, proto, word};
use super::{Across, Untranslatable};

/// Returns the offset of the checksum field.
const TCP_SUM: usize = 16;
const UDP_SUM: usize = 6;
const ICMP_SUM: usize = 2;

/// What the transport checksum covers besides the transport's own bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before<'a> {
    pub addresses: &'a Addresses,
    /// The transport's protocol number in the family of these addresses.
    pub protocol: u8,
    /// Bytes of the whole transport as its IP header states them, though `data` may be truncated.
    pub len: usize,
    /// [`crate::packet::Meta::partial_checksum`].
    pub partial: bool,
}

/// Returns whether the bytes are of a UDP datagram without a checksum.
pub(super) fn lacks_sum(protocol: u8, data: &[u8]) -> bool {
    protocol == proto::UDP && data.len() >= UDP_SUM + 2 && word(data, UDP_SUM) == 0
}

/// Turns the first bytes of a transport into those of the other family; patches the checksum if `data` reaches it.
///
/// A missing UDP checksum stays missing. Refuses anything but TCP, UDP and ICMP echo, and fewer than eight bytes.
pub(super) fn rewrite(data: &mut [u8], before: &Before, to: &Across) -> Result<(), Untranslatable> {
    if data.len() < 8 {
        return Err(Untranslatable::Malformed);
    }
    match before.protocol {
        proto::TCP => ports(data, TCP_SUM, before, to),
        proto::UDP => ports(data, UDP_SUM, before, to),
        proto::ICMP | proto::ICMPV6 => return echo(data, before, to),
        _ => return Err(Untranslatable::Protocol),
    }
    Ok(())
}

fn ports(data: &mut [u8], at: usize, before: &Before, to: &Across) {
    let addresses = (checksum::sum_of(before.addresses), checksum::sum_of(&to.addresses));
    let old = u64::from(word(data, 0)) + u64::from(word(data, 2));
    let new = u64::from(to.src_port) + u64::from(to.dst_port);
    put(data, 0, to.src_port);
    put(data, 2, to.dst_port);
    if data.len() < at + 2 || (lacks_sum(before.protocol, data) && !before.partial) {
        return;
    }
    let sum = word(data, at);
    let patched = if before.partial {
        Delta::between(addresses.0, addresses.1).patch_partial(sum)
    } else {
        Delta::between(addresses.0 + old, addresses.1 + new).patch(sum)
    };
    // RFC 768: a computed zero is sent as all ones.
    put(data, at, if before.protocol == proto::UDP && patched == 0 { 0xffff } else { patched });
}

fn echo(data: &mut [u8], before: &Before, to: &Across) -> Result<(), Untranslatable> {
    let kind = match (before.protocol, data[0], data[1]) {
        (proto::ICMP, 8, 0) => 128,
        (proto::ICMP, 0, 0) => 129,
        (proto::ICMPV6, 128, 0) => 8,
        (proto::ICMPV6, 129, 0) => 0,
        _ => return Err(Untranslatable::Icmp),
    };
    // Only the ICMPv6 checksum covers the pseudo-header (RFC 4443, 2.3).
    let covered = |addresses: &Addresses| match addresses {
        Addresses::V4 { .. } => 0,
        Addresses::V6 { .. } => checksum::pseudo(addresses, proto::ICMPV6, before.len),
    };
    let old = covered(before.addresses) + u64::from(word(data, 0)) + u64::from(word(data, 4));
    data[0] = kind;
    put(data, 4, to.src_port);
    let new = covered(&to.addresses) + u64::from(word(data, 0)) + u64::from(word(data, 4));
    if before.partial {
        put(data, ICMP_SUM, 0);
        let sum = !checksum::fold(checksum::add(covered(&to.addresses), data));
        put(data, ICMP_SUM, sum);
        return Ok(());
    }
    let mut sum = Delta::between(old, new).patch(word(data, ICMP_SUM));
    put(data, ICMP_SUM, sum);
    // An all-zero reply is the one message whose correct checksum is all ones.
    if sum == 0 && covered(&to.addresses) == 0 && checksum::add(0, data) == 0 {
        sum = 0xffff;
        put(data, ICMP_SUM, sum);
    }
    Ok(())
}

/// Computes the full checksum of a UDP datagram that has none, over the length that it states (RFC 7915, 4.5).
pub(super) fn complete_udp(data: &mut [u8], addresses: &Addresses) -> Result<(), Untranslatable> {
    let len = usize::from(word(data, 4));
    let datagram = data.get(..len).filter(|_| len >= 8).ok_or(Untranslatable::Malformed)?;
    let sum = !checksum::fold(checksum::add(checksum::pseudo(addresses, proto::UDP, len), datagram));
    put(data, UDP_SUM, if sum == 0 { 0xffff } else { sum });
    Ok(())
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
