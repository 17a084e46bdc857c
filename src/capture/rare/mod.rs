//! The link types that captures seldom have: radio, token ring, frame relay, switch tags, tunnels and logs of hosts.
//!
//! Their names are always here, so that a capture can be reported by name; the parsers of their headers need the feature
//! `rare-links`.

#[cfg(feature = "rare-links")]
mod heads;

use super::head::{Head, NotIp};

/// LINKTYPE_ numbers, ascending, with their names (www.tcpdump.org/linktypes.html).
const NAMES: [(i32, &str); 23] = [
    (6, "token ring"),
    (7, "ARCNET"),
    (8, "SLIP"),
    (105, "IEEE 802.11"),
    (107, "frame relay"),
    (109, "OpenBSD enc"),
    (119, "IEEE 802.11 with a Prism header"),
    (123, "SunATM"),
    (127, "IEEE 802.11 with a radiotap header"),
    (129, "Linux ARCNET"),
    (138, "Apple IP over IEEE 1394"),
    (163, "IEEE 802.11 with an AVS header"),
    (192, "PPI"),
    (205, "Cisco HDLC with direction"),
    (206, "frame relay with direction"),
    (226, "Solaris ipnet"),
    (239, "NFLOG"),
    (242, "IP over InfiniBand"),
    (258, "Apple pktap"),
    (281, "Broadcom switch tag"),
    (282, "Broadcom switch tag, prepended"),
    (284, "DSA switch tag"),
    (285, "DSA switch tag with EtherType"),
];

/// Returns whether a link type is one of [`NAMES`].
pub(super) const fn known(number: i32) -> bool {
    let mut i = 0;
    while i < NAMES.len() {
        if NAMES[i].0 == number {
            return true;
        }
        i += 1;
    }
    false
}

/// Parses what precedes the IP packet in a frame of link type `number`.
#[cfg(feature = "rare-links")]
pub(super) fn head(number: i32, frame: &[u8]) -> Result<Head, NotIp> {
    heads::head(number, frame)
}

/// Names the link type, whose parser is not built in.
#[cfg(not(feature = "rare-links"))]
pub(super) fn head(number: i32, _frame: &[u8]) -> Result<Head, NotIp> {
    let name = NAMES.iter().find(|(known, _)| *known == number).map_or("unknown", |(_, name)| name);
    Err(NotIp(format!("link type {number} ({name}), not built in: needs the feature rare-links")))
}

/// Returns the offset of the destination address in a frame; the source address, six bytes too, follows it.
pub(super) const fn addresses(number: i32) -> Option<usize> {
    match number {
        281 | 284 | 285 => Some(0),
        282 => Some(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Link;

    #[test]
    fn every_rare_link_type_keeps_its_number() {
        for (number, name) in NAMES {
            assert_eq!(Link::of(number), Some(Link::Rare(number)), "{name}");
            assert_eq!(Link::Rare(number).number(), number);
        }
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    #[cfg(not(feature = "rare-links"))]
    fn a_link_type_that_is_not_built_in_is_reported_by_name() {
        let why = Link::Rare(127).ip_offset(&[0; 64]).unwrap_err().to_string();
        let want = "link type 127 (IEEE 802.11 with a radiotap header), not built in: needs the feature rare-links";
        assert_eq!(why, want);
    }
}
