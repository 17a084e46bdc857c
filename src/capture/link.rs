//! Link layers: where in a frame the IP packet begins.

use etherparse::{EtherType, Ethernet2HeaderSlice, LinuxSllHeaderSlice, SingleVlanHeaderSlice};
use std::fmt;

/// A link type that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// Ethernet, with VLAN tags (IEEE 802.1Q, 802.1ad) or without.
    Ethernet,
    /// The IP packet alone; the number of the link type is kept.
    Raw(i32),
    /// Linux cooked, as of `tcpdump -i any`.
    Cooked,
    /// Linux cooked, version 2.
    Cooked2,
    /// BSD null (0) and loop (108): four bytes of address family.
    Null(i32),
    /// Any other link type, of this number: no packet can be found in its frames.
    Other(i32),
}

/// Why a frame holds no IP packet, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotIp(pub String);

impl fmt::Display for NotIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Link {
    /// The link type of a LINKTYPE_ number (www.tcpdump.org/linktypes.html).
    pub const fn of(number: i32) -> Option<Link> {
        match number {
            1 => Some(Link::Ethernet),
            12 | 14 | 101 | 228 | 229 => Some(Link::Raw(number)),
            113 => Some(Link::Cooked),
            276 => Some(Link::Cooked2),
            0 | 108 => Some(Link::Null(number)),
            _ => None,
        }
    }

    /// Its LINKTYPE_ number.
    pub const fn number(self) -> i32 {
        match self {
            Link::Ethernet => 1,
            Link::Raw(number) | Link::Null(number) | Link::Other(number) => number,
            Link::Cooked => 113,
            Link::Cooked2 => 276,
        }
    }

    /// Offset of the IP packet in a frame.
    pub fn ip_offset(self, frame: &[u8]) -> Result<usize, NotIp> {
        match self {
            Link::Raw(_) => Ok(0),
            Link::Null(_) => null(frame),
            Link::Other(number) => Err(NotIp(format!("link type {number}, whose frames are not read"))),
            Link::Ethernet => {
                let header = Ethernet2HeaderSlice::from_slice(frame).map_err(|_| short("an Ethernet header"))?;
                behind(frame, 14, header.ether_type())
            }
            Link::Cooked => {
                LinuxSllHeaderSlice::from_slice(frame).map_err(|_| short("a Linux cooked header"))?;
                behind(frame, 16, EtherType(u16::from_be_bytes([frame[14], frame[15]])))
            }
            Link::Cooked2 if frame.len() < 20 => Err(short("a Linux cooked header")),
            Link::Cooked2 => behind(frame, 20, EtherType(u16::from_be_bytes([frame[0], frame[1]]))),
        }
    }

    /// The link header of a packet that a frame with an IP packet at `offset` gave rise to: of an answer, whose MAC addresses
    /// change places, or of what the packet became. It tells the family of `packet`.
    pub fn header_of(self, frame: &[u8], offset: usize, packet: &[u8], answer: bool) -> Vec<u8> {
        let mut header = frame[..offset].to_vec();
        if self == Link::Ethernet && answer {
            let (to, from) = header.split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
        }
        let family = |packet: &[u8]| packet.first().map(|first| first >> 4);
        if family(packet) == family(&frame[offset..]) {
            return header;
        }
        let v6 = family(packet) == Some(6);
        let kind = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        match self {
            Link::Ethernet | Link::Cooked => header[offset - 2..].copy_from_slice(&kind),
            Link::Cooked2 => header[..2].copy_from_slice(&kind),
            // AF_INET, and AF_INET6 of Darwin, in the order that the other family had.
            Link::Null(_) => {
                let at = if header[0] == 0 { 3 } else { 0 };
                header[at] = if v6 { 30 } else { 2 };
            }
            Link::Raw(_) | Link::Other(_) => {}
        }
        header
    }
}

fn short(what: &str) -> NotIp {
    NotIp(format!("shorter than {what}"))
}

/// Most VLAN tags of a frame.
const MOST_TAGS: usize = 4;

fn behind(frame: &[u8], mut offset: usize, mut kind: EtherType) -> Result<usize, NotIp> {
    for _ in 0..=MOST_TAGS {
        match kind {
            EtherType::IPV4 | EtherType::IPV6 => return Ok(offset),
            EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING | EtherType::VLAN_DOUBLE_TAGGED_FRAME => {
                let tag = SingleVlanHeaderSlice::from_slice(&frame[offset..]).map_err(|_| short("a VLAN tag"))?;
                kind = tag.ether_type();
                offset += 4;
            }
            EtherType(0..0x600) => return Err(NotIp("an IEEE 802.3 frame with LLC".into())),
            EtherType(0x0806) => return Err(NotIp("ARP".into())),
            EtherType(other) => return Err(NotIp(format!("EtherType {other:#06x}"))),
        }
    }
    Err(NotIp(format!("more than {MOST_TAGS} VLAN tags")))
}

/// The family stands in the order of the machine that recorded; AF_INET is 2 everywhere, AF_INET6 is not.
fn null(frame: &[u8]) -> Result<usize, NotIp> {
    let Some(family) = frame.first_chunk::<4>() else { return Err(short("a null header")) };
    let small = u32::from_le_bytes(*family).min(u32::from_be_bytes(*family));
    match small {
        2 | 10 | 23 | 24 | 28 | 30 => Ok(4),
        other => Err(NotIp(format!("address family {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_begins_behind_the_link_header() {
        let ethernet = |tail: &[u8]| [&[0; 12][..], tail].concat();
        let cases: Vec<(Link, Vec<u8>, Result<usize, &str>)> = vec![
            (Link::Ethernet, ethernet(&[8, 0, 0x45]), Ok(14)),
            (Link::Ethernet, ethernet(&[0x86, 0xdd]), Ok(14)),
            (Link::Ethernet, ethernet(&[0x81, 0, 0, 5, 8, 0]), Ok(18)),
            (Link::Ethernet, ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd]), Ok(22)),
            (Link::Ethernet, ethernet(&[0x81, 0, 0]), Err("shorter than a VLAN tag")),
            (Link::Ethernet, ethernet(&[8, 6]), Err("ARP")),
            (Link::Ethernet, ethernet(&[0, 40]), Err("an IEEE 802.3 frame with LLC")),
            (Link::Ethernet, vec![0; 13], Err("shorter than an Ethernet header")),
            (Link::Raw(101), vec![], Ok(0)),
            (Link::Cooked, [&[0, 0, 0, 1, 0, 6][..], &[0; 8], &[8, 0]].concat(), Ok(16)),
            (Link::Cooked, vec![0; 15], Err("shorter than a Linux cooked header")),
            (Link::Cooked2, [&[0x86, 0xdd][..], &[0; 18]].concat(), Ok(20)),
            (Link::Null(0), vec![2, 0, 0, 0], Ok(4)),
            (Link::Null(108), vec![0, 0, 0, 30], Ok(4)),
            (Link::Null(0), vec![7, 0, 0, 0], Err("address family 7")),
        ];
        for (link, frame, want) in cases {
            assert_eq!(link.ip_offset(&frame).map_err(|e| e.0), want.map_err(String::from), "{link:?} {frame:?}");
        }
    }

    #[test]
    fn every_link_type_keeps_its_number() {
        for number in [0, 1, 12, 14, 101, 108, 113, 228, 229, 276] {
            assert_eq!(Link::of(number).unwrap().number(), number);
        }
        assert_eq!(Link::of(105), None);
    }
}
