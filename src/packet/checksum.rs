//! The Internet checksum: full sums for packets that the gateway originates, deltas for those that it forwards.
//!
//! All sums are one's complement sums (RFC 1071); deltas follow RFC 1624, equation 3.

use super::{Addresses, parse, word};

/// Adds the 16-bit words of `bytes` (an odd last byte is padded with zero) to `start`, unfolded.
#[inline]
pub fn add(start: u64, bytes: &[u8]) -> u64 {
    let mut total = start;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        total += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    match *chunks.remainder() {
        [a] => total + (u64::from(a) << 24),
        [a, b] => total + (u64::from(a) << 24) + (u64::from(b) << 16),
        [a, b, c] => total + (u64::from(a) << 24) + (u64::from(b) << 16) + (u64::from(c) << 8),
        _ => total,
    }
}

/// Folds a sum of 32-bit words into 16 bits with end-around carry.
#[inline]
pub const fn fold(mut total: u64) -> u16 {
    total = (total & 0xffff_ffff) + (total >> 32);
    total = (total & 0xffff_ffff) + (total >> 32);
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    (total & 0xffff) as u16
}

/// Returns the uncomplemented sum of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1), unfolded.
#[inline]
pub fn pseudo(addresses: &Addresses, protocol: u8, transport_len: usize) -> u64 {
    sum_of(addresses) + u64::from(protocol) + transport_len as u64
}

/// Returns the sum of both addresses, unfolded; it does not depend on which is the source.
#[inline]
pub fn sum_of(addresses: &Addresses) -> u64 {
    match *addresses {
        Addresses::V4 { src, dst } => u64::from(src) + u64::from(dst),
        Addresses::V6 { src, dst } => {
            let halves = |a: u128| {
                let (high, low) = ((a >> 64) as u64, (a & 0xffff_ffff_ffff_ffff) as u64);
                (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
            };
            halves(src) + halves(dst)
        }
    }
}

/// Returns whether a TCP or UDP checksum field holds only the pseudo-header's sum, as a capture on the sending host
/// shows it.
///
/// A packet whose checksum is correct as it stands is not partial.
pub fn is_partial(packet: &[u8]) -> bool {
    let Ok(parsed) = parse(packet) else { return false };
    // By the parsed transport, not by the protocol number: after a routing header with segments left the transport
    // may be cut short.
    let field = match parsed.transport {
        super::Transport::Tcp { .. } => 16,
        super::Transport::Udp { .. } => 6,
        _ => return false,
    };
    let transport = &packet[parsed.offset..parsed.len];
    let start = pseudo(&parsed.addresses, parsed.protocol, transport.len());
    word(transport, field) == fold(start) && fold(add(start, transport)) != 0xffff
}

/// What must be added to a sum when its contents change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delta(pub u16);

impl Delta {
    /// Returns the delta from contents with the unfolded sum `old` to contents with the sum `new`.
    #[inline]
    pub const fn between(old: u64, new: u64) -> Delta {
        Delta(fold(!fold(old) as u64 + fold(new) as u64))
    }

    /// Returns the delta of the reverse change.
    #[inline]
    pub const fn reversed(self) -> Delta {
        Delta(!self.0)
    }

    /// Patches a complete checksum field: `HC' = ~(~HC + delta)`.
    #[inline]
    pub const fn patch(self, checksum: u16) -> u16 {
        !fold(!checksum as u64 + self.0 as u64)
    }

    /// Patches a partial checksum field, which holds the sum itself, not its complement.
    #[inline]
    pub const fn patch_partial(self, sum: u16) -> u16 {
        fold(sum as u64 + self.0 as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        assert_eq!(fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_gives_zero() {
        // RFC 1624, section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285, HC' = 0x0000; RFC 1141 gave 0xFFFF.
        assert_eq!(Delta::between(0x5555, 0x3285).patch(0xdd2f), 0x0000);
    }

    #[test]
    fn an_odd_last_byte_is_a_high_byte() {
        for (bytes, want) in [(&[0xab][..], 0xab00), (&[1, 2, 3], 0x0402), (&[1, 2, 3, 4, 5], 0x0906)] {
            assert_eq!(fold(add(0, bytes)), want);
        }
    }

    proptest! {
        #[test]
        fn a_patched_checksum_equals_a_recomputed_one(mut bytes in prop::collection::vec(any::<u8>(), 20..64), new in any::<[u8; 4]>()) {
            bytes[0] |= 1; // a header is never all zeros
            let before = !fold(add(0, &bytes));
            let old = add(0, &bytes[12..16]);
            bytes[12..16].copy_from_slice(&new);
            let delta = Delta::between(old, add(0, &new));
            prop_assert_eq!(delta.patch(before), !fold(add(0, &bytes)));
            bytes[12..16].copy_from_slice(&[0; 4]);
            prop_assert_eq!(delta.reversed().patch(delta.patch(before)), before);
        }
    }
}
