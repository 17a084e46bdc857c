//! For tests of this layer and those above it.

use super::checksum;

/// Recomputes the header checksum of an IPv4 packet.
pub(crate) fn resum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 15) * 4;
    let sum = !checksum::fold(checksum::add(0, &packet[..header]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}
