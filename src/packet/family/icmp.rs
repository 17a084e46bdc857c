//! How ICMP errors of one family are expressed in the other: types, codes, pointers and MTUs (RFC 7915, 4.2 and 5.2).
//!
//! It must not know the packets that they quote, except for one length.

use super::Untranslatable;

/// The minimum MTU of an IPv6 link (RFC 8200, 5).
const LEAST_V6: u32 = 1280;

/// The MTUs of the links next to the gateway on the path that the quoted packet took; `None` if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MtuRule {
    /// On the IPv4 side.
    pub v4: Option<u32>,
    /// On the IPv6 side.
    pub v6: Option<u32>,
}

/// The first eight bytes of an ICMP error without its checksum and its length attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: u8,
    pub code: u8,
    /// Bytes 4 to 7: pointer or MTU.
    pub rest: [u8; 4],
}

impl Message {
    const fn plain(kind: u8, code: u8) -> Message {
        Message { kind, code, rest: [0; 4] }
    }
}

/// Returns the offset of an error's length attribute (RFC 4884, 4) and the unit it counts in; `None` if its type has
/// no extensions.
pub(super) const fn length_attribute(v6: bool, kind: u8) -> Option<(usize, usize)> {
    match (v6, kind) {
        (false, 3 | 11 | 12) => Some((5, 4)),
        (true, 1 | 3) => Some((4, 8)),
        _ => None,
    }
}

/// Translates an ICMPv4 error into ICMPv6. `rest` is its bytes 4 to 7, `total` the Total Length of the packet it
/// quotes.
pub(super) fn to_v6(
    kind: u8,
    code: u8,
    rest: [u8; 4],
    total: usize,
    mtus: &MtuRule,
) -> Result<Message, Untranslatable> {
    Ok(match (kind, code) {
        // An unknown protocol is an unrecognized Next Header, whose field is at byte 6.
        (3, 2) => Message { kind: 4, code: 1, rest: [0, 0, 0, 6] },
        (3, 3) => Message::plain(1, 4),
        (3, 4) => {
            let mtu = mtu_of_v6(u16::from_be_bytes([rest[2], rest[3]]), total, mtus);
            Message { kind: 2, code: 0, rest: mtu.to_be_bytes() }
        }
        (3, 0 | 1 | 5..=8 | 11 | 12) => Message::plain(1, 0),
        (3, 9 | 10 | 13 | 15) => Message::plain(1, 1),
        (11, 0 | 1) => Message::plain(3, code),
        (12, 0 | 2) => {
            let pointer = pointer_to_v6(rest[0]).ok_or(Untranslatable::Icmp)?;
            Message { kind: 4, code: 0, rest: u32::from(pointer).to_be_bytes() }
        }
        _ => return Err(Untranslatable::Icmp),
    })
}

/// Translates an ICMPv6 error into ICMPv4. `rest` is its bytes 4 to 7; `fragment` says whether it is about a packet
/// with a Fragment header, which IPv4 does not have.
pub(super) fn to_v4(
    kind: u8,
    code: u8,
    rest: [u8; 4],
    fragment: bool,
    mtus: &MtuRule,
) -> Result<Message, Untranslatable> {
    Ok(match (kind, code) {
        (1, 0 | 2 | 3) => Message::plain(3, 1),
        (1, 1) => Message::plain(3, 10),
        (1, 4) => Message::plain(3, 3),
        (2, _) => {
            let mtu = mtu_of_v4(u32::from_be_bytes(rest), fragment, mtus).to_be_bytes();
            Message { kind: 3, code: 4, rest: [0, 0, mtu[0], mtu[1]] }
        }
        (3, 0 | 1) => Message::plain(11, code),
        (4, 0) => {
            let pointer = pointer_to_v4(u32::from_be_bytes(rest)).ok_or(Untranslatable::Icmp)?;
            Message { kind: 12, code: 0, rest: [pointer, 0, 0, 0] }
        }
        (4, 1) => Message::plain(3, 2),
        _ => return Err(Untranslatable::Icmp),
    })
}

/// RFC 7915, figure 3.
const fn pointer_to_v6(pointer: u8) -> Option<u8> {
    Some(match pointer {
        0 => 0,
        1 => 1,
        2 | 3 => 4,
        8 => 7,
        9 => 6,
        12..=15 => 8,
        16..=19 => 24,
        _ => return None,
    })
}

/// RFC 7915, figure 6.
const fn pointer_to_v4(pointer: u32) -> Option<u8> {
    Some(match pointer {
        0 => 0,
        1 => 1,
        4 | 5 => 2,
        6 => 9,
        7 => 8,
        8..=23 => 12,
        24..=39 => 16,
        _ => return None,
    })
}

/// Returns the MTU of Packet Too Big for that of Fragmentation Needed (RFC 7915, 4.2). 0 comes from a router older
/// than RFC 1191, whose section 7.1 gives the likely MTU below the quoted length.
fn mtu_of_v6(told: u16, total: usize, mtus: &MtuRule) -> u32 {
    const PLATEAUS: [u16; 11] = [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68];
    let told = match told {
        0 => PLATEAUS.into_iter().find(|plateau| usize::from(*plateau) < total).unwrap_or(68),
        told => told,
    };
    let limits = [mtus.v6, mtus.v4.map(|mtu| mtu.saturating_add(20))];
    limits.into_iter().flatten().fold(u32::from(told) + 20, u32::min).max(LEAST_V6)
}

/// Returns the MTU of Fragmentation Needed for that of Packet Too Big (RFC 7915, 5.2). No IPv6 link has less than
/// 1,280, and no path is assumed to have less (RFC 8201, 4). A fragment is longer in IPv6 by one more header.
fn mtu_of_v4(told: u32, fragment: bool, mtus: &MtuRule) -> u16 {
    let longer = if fragment { 28 } else { 20 };
    let limits = [mtus.v4, mtus.v6.map(|mtu| mtu.saturating_sub(longer))];
    let mtu = limits.into_iter().flatten().fold(told.max(LEAST_V6) - longer, u32::min);
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: MtuRule = MtuRule { v4: None, v6: None };

    #[test]
    fn each_icmpv4_error_has_its_icmpv6_one_or_none() {
        let plain = |kind, code| Some(Message::plain(kind, code));
        let mut rows = vec![
            (3, 0, plain(1, 0)),
            (3, 1, plain(1, 0)),
            (3, 2, Some(Message { kind: 4, code: 1, rest: [0, 0, 0, 6] })),
            (3, 3, plain(1, 4)),
            (3, 5, plain(1, 0)),
            (3, 6, plain(1, 0)),
            (3, 7, plain(1, 0)),
            (3, 8, plain(1, 0)),
            (3, 9, plain(1, 1)),
            (3, 10, plain(1, 1)),
            (3, 11, plain(1, 0)),
            (3, 12, plain(1, 0)),
            (3, 13, plain(1, 1)),
            (3, 14, None),
            (3, 15, plain(1, 1)),
            (3, 16, None),
            (11, 0, plain(3, 0)),
            (11, 1, plain(3, 1)),
            (11, 2, None),
            (12, 0, Some(Message { kind: 4, code: 0, rest: [0, 0, 0, 7] })),
            (12, 1, None),
            (12, 2, Some(Message { kind: 4, code: 0, rest: [0, 0, 0, 7] })),
            (12, 3, None),
        ];
        rows.extend([4, 5, 6, 9, 10, 13, 14, 15, 16, 17, 18, 40, 128].map(|kind| (kind, 0, None)));
        for (kind, code, want) in rows {
            assert_eq!(to_v6(kind, code, [8, 0, 0, 0], 1500, &NONE).ok(), want, "type {kind} code {code}");
        }
    }

    #[test]
    fn each_icmpv6_error_has_its_icmpv4_one_or_none() {
        let plain = |kind, code| Some(Message::plain(kind, code));
        let mut rows = vec![
            (1, 0, plain(3, 1)),
            (1, 1, plain(3, 10)),
            (1, 2, plain(3, 1)),
            (1, 3, plain(3, 1)),
            (1, 4, plain(3, 3)),
            (1, 5, None),
            (1, 6, None),
            (1, 7, None),
            (3, 0, plain(11, 0)),
            (3, 1, plain(11, 1)),
            (3, 2, None),
            (4, 0, Some(Message { kind: 12, code: 0, rest: [8, 0, 0, 0] })),
            (4, 1, plain(3, 2)),
            (4, 2, None),
            (4, 3, None),
        ];
        rows.extend([100, 127, 130, 131, 132, 133, 134, 135, 136, 137, 143, 3 + 128].map(|kind| (kind, 0, None)));
        for (kind, code, want) in rows {
            assert_eq!(to_v4(kind, code, [0, 0, 0, 7], false, &NONE).ok(), want, "type {kind} code {code}");
        }
    }

    #[test]
    fn each_pointer_names_the_same_field_in_the_other_header() {
        let to_six = [
            (0..=0, Some(0)),
            (1..=1, Some(1)),
            (2..=3, Some(4)),
            (4..=7, None),
            (8..=8, Some(7)),
            (9..=9, Some(6)),
            (10..=11, None),
            (12..=15, Some(8)),
            (16..=19, Some(24)),
            (20..=255, None),
        ];
        for (range, want) in to_six {
            for pointer in range {
                assert_eq!(pointer_to_v6(pointer), want, "{pointer}");
                assert_eq!(to_v6(12, 0, [pointer, 9, 9, 9], 0, &NONE).is_ok(), want.is_some());
            }
        }
        let to_four = [
            (0..=0, Some(0)),
            (1..=1, Some(1)),
            (2..=3, None),
            (4..=5, Some(2)),
            (6..=6, Some(9)),
            (7..=7, Some(8)),
            (8..=23, Some(12)),
            (24..=39, Some(16)),
            (40..=300, None),
        ];
        for (range, want) in to_four {
            for pointer in range {
                assert_eq!(pointer_to_v4(pointer), want, "{pointer}");
                assert_eq!(to_v4(4, 0, u32::to_be_bytes(pointer), false, &NONE).is_ok(), want.is_some());
            }
        }
        assert_eq!(pointer_to_v4(0x0100_0000), None);
    }

    #[test]
    fn an_mtu_towards_ipv6_is_20_more_at_most_that_of_the_links_and_never_below_1280() {
        let mtus = |v4, v6| MtuRule { v4, v6 };
        let rows = [
            (1400, 1500, NONE, 1420),
            (1500, 1500, mtus(None, Some(1500)), 1500),
            (1500, 1500, mtus(Some(1450), Some(1500)), 1470),
            (1500, 1500, mtus(Some(u32::MAX), Some(u32::MAX)), 1520),
            (576, 1500, NONE, 1280),
            (65_535, 65_535, NONE, 65_555),
            (1400, 1500, mtus(Some(500), None), 1280),
            (0, 1500, NONE, 1512),
            (0, 1492, NONE, 1280),
            (0, 1493, mtus(None, Some(1400)), 1400),
            (0, 9000, NONE, 8186),
            (0, 60, NONE, 1280),
        ];
        for (told, total, mtus, want) in rows {
            assert_eq!(mtu_of_v6(told, total, &mtus), want, "{told} {total} {mtus:?}");
            let [a, b] = u16::to_be_bytes(told);
            let message = Message { kind: 2, code: 0, rest: want.to_be_bytes() };
            assert_eq!(to_v6(3, 4, [9, 9, a, b], total, &mtus), Ok(message));
        }
    }

    #[test]
    fn an_mtu_towards_ipv4_is_20_less_and_at_most_that_of_the_links() {
        let mtus = |v4, v6| MtuRule { v4, v6 };
        let rows = [
            (1400, NONE, 1380),
            (1280, NONE, 1260),
            (1279, NONE, 1260),
            (0, NONE, 1260),
            (9000, mtus(Some(1500), Some(1500)), 1480),
            (9000, mtus(Some(1400), Some(1500)), 1400),
            (u32::MAX, NONE, u16::MAX),
            (1500, mtus(Some(0), Some(0)), 0),
        ];
        for (told, mtus, want) in rows {
            assert_eq!(mtu_of_v4(told, false, &mtus), want, "{told} {mtus:?}");
            let [a, b] = want.to_be_bytes();
            assert_eq!(
                to_v4(2, 7, told.to_be_bytes(), false, &mtus),
                Ok(Message { kind: 3, code: 4, rest: [0, 0, a, b] })
            );
        }
        for (told, mtus, want) in [(1400, NONE, 1372), (0, NONE, 1252), (9000, mtus(None, Some(1500)), 1472)] {
            assert_eq!(mtu_of_v4(told, true, &mtus), want, "a fragment: {told} {mtus:?}");
        }
    }
}
