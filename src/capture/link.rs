//! Link layers: where in a frame the IP packet begins.

use super::head::{Head, Kind, NotIp, behind, hdlc, llc, ppp, pppoe, short};
use super::rare;

/// A link type. Variants for several of them keep the LINKTYPE_ number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// Ethernet, with or without VLAN tags (IEEE 802.1Q, 802.1ad), PPPoE, MPLS labels, LLC and SNAP.
    Ethernet,
    /// The IP packet alone.
    Raw(i32),
    /// Linux cooked capture, as from `tcpdump -i any`.
    Cooked,
    /// Linux cooked capture, version 2.
    Cooked2,
    /// BSD null (0) and loop (108): four bytes of address family.
    Null(i32),
    /// PPP: 9 and 50, with the direction in place of an address (166) or before it (204), in PPPoE (51); and Cisco
    /// HDLC (104, and 50).
    Ppp(i32),
    /// LLC with SNAP: directly (100, ATM), or after an FDDI (10) or Fibre Channel (122) header.
    Snap(i32),
    /// BSD pflog (117).
    Pflog,
    /// A rare one: IEEE 802.11 with and without radio headers, token ring, frame relay and more.
    Rare(i32),
    /// Any other link type: no packet can be found in its frames.
    Other(i32),
}

impl Link {
    /// Returns the link type with a LINKTYPE_ number (www.tcpdump.org/linktypes.html).
    pub const fn of(number: i32) -> Option<Link> {
        match number {
            1 => Some(Link::Ethernet),
            12 | 14 | 101 | 228 | 229 => Some(Link::Raw(number)),
            113 => Some(Link::Cooked),
            276 => Some(Link::Cooked2),
            0 | 108 => Some(Link::Null(number)),
            9 | 50 | 51 | 104 | 166 | 204 => Some(Link::Ppp(number)),
            10 | 100 | 122 => Some(Link::Snap(number)),
            117 => Some(Link::Pflog),
            _ if rare::known(number) => Some(Link::Rare(number)),
            _ => None,
        }
    }

    /// Returns its LINKTYPE_ number.
    pub const fn number(self) -> i32 {
        match self {
            Link::Ethernet => 1,
            Link::Raw(number) | Link::Null(number) | Link::Other(number) => number,
            Link::Ppp(number) | Link::Snap(number) | Link::Rare(number) => number,
            Link::Cooked => 113,
            Link::Cooked2 => 276,
            Link::Pflog => 117,
        }
    }

    /// Returns the same link type, or, if it carries only the other family, the one that carries both.
    pub fn carrying(self, packet: &[u8]) -> Link {
        let version = packet.first().map(|first| first >> 4);
        match (self, version) {
            (Link::Raw(228), Some(6)) | (Link::Raw(229), Some(4)) => Link::Raw(101),
            _ => self,
        }
    }

    /// Returns the offset of the IP packet in a frame.
    pub fn ip_offset(self, frame: &[u8]) -> Result<usize, NotIp> {
        self.head(frame).map(|head| head.offset)
    }

    fn head(self, frame: &[u8]) -> Result<Head, NotIp> {
        match self {
            Link::Raw(_) => Head::of(frame, 0, Kind::Silent, ""),
            Link::Null(_) => null(frame),
            Link::Other(number) => Err(NotIp(format!("link type {number}, which is not supported"))),
            Link::Ethernet if frame.len() < 14 => Err(short("an Ethernet header")),
            Link::Ethernet => behind(frame, 12, 14, true),
            Link::Cooked if frame.len() < 16 => Err(short("a Linux cooked header")),
            Link::Cooked => behind(frame, 14, 16, false),
            Link::Cooked2 if frame.len() < 20 => Err(short("a Linux cooked header")),
            Link::Cooked2 => behind(frame, 0, 20, false),
            Link::Ppp(51) => pppoe(frame, 0),
            Link::Ppp(166) => ppp(frame, if frame.get(1) == Some(&3) { 2 } else { 1 }),
            Link::Ppp(204) => ppp(frame, 1),
            Link::Ppp(9) => ppp(frame, 0),
            Link::Ppp(_) => hdlc(frame),
            Link::Snap(10) => llc(frame, 13),
            Link::Snap(122) => llc(frame, 16),
            Link::Snap(_) => llc(frame, 0),
            Link::Pflog => pflog(frame),
            Link::Rare(number) => rare::head(number, frame),
        }
    }

    /// Clears from a frame's header the flag that says that a checksum ends the frame: it is written without one.
    pub fn ends_with_packet(self, frame: &mut [u8]) {
        if let Ok(Head { clear: Some((at, bit)), .. }) = self.head(frame) {
            frame[at] &= !bit;
        }
    }

    /// Makes the link header for a packet that results from a frame with an IP packet at `offset`. For a reply
    /// (`answer`) the MAC addresses are swapped. The header states the family and, if it has a field for it, the
    /// length of `packet`.
    pub fn header_of(self, frame: &[u8], offset: usize, packet: &[u8], answer: bool) -> Vec<u8> {
        let mut header = frame[..offset].to_vec();
        if answer && let Some(at) = self.addresses() {
            let (to, from) = header[at..].split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
        }
        let Ok(head) = self.head(frame) else { return header };
        let family = |packet: &[u8]| packet.first().map(|first| first >> 4);
        if family(packet) != family(&frame[offset..]) {
            head.tell(&mut header, packet);
        }
        // A field that already differed, as in a captured super-packet, is left alone.
        if packet.len() != frame.len() - offset {
            head.measure(&mut header, packet);
        }
        header
    }

    /// Returns the offset of the destination address in a frame; the source address follows it.
    const fn addresses(self) -> Option<usize> {
        match self {
            Link::Ethernet => Some(0),
            Link::Snap(10) => Some(1),
            Link::Rare(number) => rare::addresses(number),
            _ => None,
        }
    }
}

/// The family is in the byte order of the recording machine; AF_INET is 2 everywhere, AF_INET6 differs.
fn null(frame: &[u8]) -> Result<Head, NotIp> {
    let Some(family) = frame.first_chunk::<4>() else { return Err(short("a null header")) };
    let small = u32::from_le_bytes(*family).min(u32::from_be_bytes(*family));
    let at = if frame[0] == 0 { 3 } else { 0 };
    match small {
        2 | 10 | 23 | 24 | 28 | 30 => Head::of(frame, 4, Kind::Byte(at, [2, 30]), "a null header"),
        other => Err(NotIp(format!("address family {other}"))),
    }
}

/// The first byte is the header's length without padding to 32 bits, the second the family.
fn pflog(frame: &[u8]) -> Result<Head, NotIp> {
    match frame {
        [length, 2 | 10 | 24 | 28 | 30, ..] if *length > 1 => {
            Head::of(frame, usize::from(*length).next_multiple_of(4), Kind::Byte(1, [2, 30]), "its pflog header")
        }
        [0 | 1, ..] => Err(NotIp("a pflog header without a length".into())),
        [_, other, ..] => Err(NotIp(format!("address family {other}"))),
        _ => Err(short("a pflog header")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_follows_the_link_header() {
        let ethernet = |tail: &[u8]| [&[0; 12][..], tail].concat();
        let cases: Vec<(Link, Vec<u8>, Result<usize, &str>)> = vec![
            (Link::Ethernet, ethernet(&[8, 0, 0x45]), Ok(14)),
            (Link::Ethernet, ethernet(&[0x86, 0xdd]), Ok(14)),
            (Link::Ethernet, ethernet(&[0x81, 0, 0, 5, 8, 0]), Ok(18)),
            (Link::Ethernet, ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd]), Ok(22)),
            (Link::Ethernet, ethernet(&[0x81, 0, 0]), Err("shorter than a VLAN tag")),
            (Link::Ethernet, ethernet(&[8, 6]), Err("ARP")),
            (Link::Ethernet, ethernet(&[0, 40]), Err("LLC without SNAP")),
            (Link::Ethernet, vec![0; 13], Err("shorter than an Ethernet header")),
            (Link::Raw(101), vec![], Ok(0)),
            (Link::Cooked, [&[0, 0, 0, 1, 0, 6][..], &[0; 8], &[8, 0]].concat(), Ok(16)),
            (Link::Cooked, vec![0; 15], Err("shorter than a Linux cooked header")),
            (Link::Cooked2, [&[0x86, 0xdd][..], &[0; 18]].concat(), Ok(20)),
            (Link::Null(0), vec![2, 0, 0, 0], Ok(4)),
            (Link::Null(108), vec![0, 0, 0, 30], Ok(4)),
            (Link::Null(0), vec![7, 0, 0, 0], Err("address family 7")),
            // From the loopback device, and of an unknown hardware type: the header has the same length.
            (Link::Cooked, [&[0, 0, 3, 4, 0, 6][..], &[0; 8], &[8, 0]].concat(), Ok(16)),
            (Link::Cooked, [&[0, 9, 0xab, 0xcd, 0, 6][..], &[0; 8], &[0x86, 0xdd]].concat(), Ok(16)),
            (Link::Ethernet, ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 22, 0, 0x21]), Ok(22)),
            (Link::Ethernet, ethernet(&[0x81, 0, 0, 5, 0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x57]), Ok(26)),
            (Link::Ethernet, ethernet(&[0x88, 0x64, 0x11, 9, 0, 0, 0, 0]), Err("PPPoE discovery")),
            (Link::Ethernet, ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 22, 0xc0, 0x21]), Err("PPP protocol 0xc021")),
            (Link::Ethernet, ethernet(&[0x88, 0x64, 0x11]), Err("shorter than a PPPoE header")),
            (Link::Ethernet, ethernet(&[0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64, 0x45]), Ok(22)),
            (Link::Ethernet, ethernet(&[0x88, 0x47, 0, 1, 0, 64, 0, 2]), Err("shorter than an MPLS label")),
            (Link::Ethernet, ethernet(&[0x88, 0x47, 0, 1, 1, 64, 0]), Err("something other than IP after MPLS labels")),
            (Link::Ethernet, ethernet(&[0, 28, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0]), Ok(22)),
            (Link::Ethernet, ethernet(&[0, 28, 0xaa, 0xaa, 3, 0, 0, 0, 8, 6]), Err("SNAP protocol 0x0806")),
            (Link::Ppp(9), vec![0xff, 3, 0, 0x21], Ok(4)),
            (Link::Ppp(9), vec![0, 0x57], Ok(2)),
            (Link::Ppp(50), vec![0xff, 3, 0x21, 0x45], Ok(3)),
            (Link::Ppp(50), vec![0x0f, 0, 0x86, 0xdd], Ok(4)),
            (Link::Ppp(104), vec![0x8f, 0, 0x80, 0x35], Err("EtherType 0x8035")),
            (Link::Ppp(51), vec![0x11, 0, 0, 1, 0, 22, 0, 0x21], Ok(8)),
            (Link::Ppp(166), vec![1, 3, 0, 0x21], Ok(4)),
            (Link::Ppp(204), vec![0, 0xff, 3, 0, 0x21], Ok(5)),
            (Link::Ppp(204), vec![0], Err("shorter than a PPP header")),
            (Link::Snap(10), [&[0x50; 13][..], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat(), Ok(21)),
            (Link::Snap(100), vec![0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd], Ok(8)),
            (Link::Snap(122), vec![0; 9], Err("LLC without SNAP")),
            (Link::Pflog, [&[61, 2][..], &[0; 62]].concat(), Ok(64)),
            (Link::Pflog, vec![61, 2, 0], Err("shorter than its pflog header")),
            (Link::Pflog, vec![0, 2], Err("a pflog header without a length")),
            (Link::Pflog, vec![61, 18], Err("address family 18")),
        ];
        for (link, frame, want) in cases {
            assert_eq!(link.ip_offset(&frame).map_err(|e| e.0), want.map_err(String::from), "{link:?} {frame:?}");
        }
    }

    #[test]
    fn every_link_type_keeps_its_number() {
        for number in [0, 1, 9, 10, 12, 14, 50, 51, 100, 101, 104, 108, 113, 117, 122, 166, 204, 228, 229, 276] {
            assert_eq!(Link::of(number).unwrap().number(), number);
        }
        assert_eq!(Link::of(189), None);
    }

    #[test]
    fn a_link_of_one_family_carries_no_other() {
        let (four, six) = ([0x45; 20], [0x60; 40]);
        for (link, of_four, of_six) in [(228, 228, 101), (229, 101, 229), (101, 101, 101), (12, 12, 12)] {
            let carrying = |packet: &[u8]| Link::Raw(link).carrying(packet).number();
            assert_eq!((carrying(&four), carrying(&six)), (of_four, of_six), "{link}");
        }
    }

    #[test]
    fn a_header_states_family_and_length() {
        let (four, six) = ([0x45; 20], [0x60; 40]);
        let cases: Vec<(Link, &[u8], &[u8])> = vec![
            (Link::Ppp(9), &[0xff, 3, 0, 0x21], &[0xff, 3, 0, 0x57]),
            (Link::Ppp(9), &[0x21], &[0x57]),
            (Link::Ppp(51), &[0x11, 0, 0, 1, 0, 22, 0, 0x21], &[0x11, 0, 0, 1, 0, 42, 0, 0x57]),
            (Link::Snap(100), &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd]),
            (Link::Pflog, &[4, 2, 0, 0], &[4, 30, 0, 0]),
            (Link::Null(0), &[2, 0, 0, 0], &[30, 0, 0, 0]),
            // IEEE 802.2 frames have type 4 there, and no length.
            (
                Link::Cooked,
                &[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 0, 4, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0],
                &[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 0, 4, 0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd],
            ),
            (Link::Null(108), &[0, 0, 0, 2], &[0, 0, 0, 30]),
            (
                Link::Ethernet,
                &[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0, 28, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0],
                &[2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0, 48, 0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd],
            ),
        ];
        for (link, header, want) in cases {
            let there = link.header_of(&[header, &four].concat(), header.len(), &six, true);
            assert_eq!(there, want, "{link:?}");
            assert_eq!(link.header_of(&[&there[..], &six].concat(), header.len(), &four, true), header, "{link:?}");
        }
    }
}
