//! What precedes the IP packet in a frame: tags, labels, LLC, PPP.
//!
//! It must not know what happens to the packet.

use etherparse::EtherType;
use std::fmt;

/// Why a frame holds no IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotIp(pub String);

impl fmt::Display for NotIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What precedes the IP packet in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes before the packet.
    pub offset: usize,
    /// Where it states the packet's family.
    pub kind: Kind,
    /// Offset of a 16-bit length field, and the offset from which it counts to the end of the packet.
    pub length: Option<(usize, usize)>,
    /// The same for a little-endian field.
    pub little: Option<(usize, usize)>,
    /// A bit, and its byte, that says that a checksum ends the frame: no longer true of a rewritten frame.
    pub clear: Option<(usize, u8)>,
}

/// How a head states the family of its packet, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not at all.
    Silent,
    EtherType(usize),
    /// By a 16-bit PPP protocol (RFC 1661, 2).
    Ppp(usize),
    /// By 8 bits, with their values for IPv4 and IPv6: an address family, a short PPP protocol (RFC 1661, 6.5).
    Byte(usize, [u8; 2]),
}

/// The most VLAN tags of a frame.
const MOST_TAGS: usize = 4;
const MPLS: EtherType = EtherType(0x8847);
const MPLS_UPSTREAM: EtherType = EtherType(0x8848);
const BACKBONE: EtherType = EtherType(0x88e7);
const VNTAG: EtherType = EtherType(0x8926);
const PORT_TAG: EtherType = EtherType(0x893f);
const PPPOE: EtherType = EtherType(0x8864);
/// The largest number that is the length of an IEEE 802.3 frame rather than an EtherType.
const MOST_LENGTH: u16 = 1500;

impl Head {
    /// Makes a head of `offset` bytes.
    pub(super) fn of(frame: &[u8], offset: usize, kind: Kind, what: &str) -> Result<Head, NotIp> {
        if frame.len() < offset {
            Err(short(what))
        } else {
            Ok(Head { offset, kind, length: None, little: None, clear: None })
        }
    }

    /// Returns the same head `by` bytes further into the frame.
    #[cfg(feature = "rare-links")]
    pub(super) fn shifted(self, by: usize) -> Head {
        let both = |(at, from)| (at + by, from + by);
        Head {
            offset: self.offset + by,
            kind: match self.kind {
                Kind::Silent => Kind::Silent,
                Kind::EtherType(at) => Kind::EtherType(at + by),
                Kind::Ppp(at) => Kind::Ppp(at + by),
                Kind::Byte(at, values) => Kind::Byte(at + by, values),
            },
            length: self.length.map(both),
            little: self.little.map(both),
            clear: self.clear.map(|(at, bit)| (at + by, bit)),
        }
    }

    /// Writes the family of `packet` into a copy of the head.
    pub(super) fn tell(&self, header: &mut [u8], packet: &[u8]) {
        let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        match self.kind {
            Kind::Silent => {}
            Kind::EtherType(at) => {
                header[at..at + 2].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
            }
            Kind::Ppp(at) => header[at..at + 2].copy_from_slice(if v6 { &[0, 0x57] } else { &[0, 0x21] }),
            Kind::Byte(at, values) => header[at] = values[usize::from(v6)],
        }
    }

    /// Writes the length of `packet` into a copy of the head, if it has such a field.
    pub(super) fn measure(&self, header: &mut [u8], packet: &[u8]) {
        let length = |from: usize| u16::try_from(header.len() - from + packet.len()).unwrap_or(u16::MAX);
        let fields = [
            self.length.map(|(at, from)| (at, length(from).to_be_bytes())),
            self.little.map(|(at, from)| (at, length(from).to_le_bytes())),
        ];
        for (at, bytes) in fields.into_iter().flatten() {
            header[at..at + 2].copy_from_slice(&bytes);
        }
    }
}

pub(super) fn short(what: &str) -> NotIp {
    NotIp(format!("shorter than {what}"))
}

fn two(frame: &[u8], at: usize, what: &str) -> Result<u16, NotIp> {
    let bytes = frame.get(at..at + 2).ok_or_else(|| short(what))?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Finds the packet by the EtherType at `kind_at` and the bytes from `offset` on. In `ethernet` a small number is a
/// length.
pub(super) fn behind(frame: &[u8], mut kind_at: usize, mut offset: usize, ethernet: bool) -> Result<Head, NotIp> {
    for tags in 0..=MOST_TAGS {
        let what = if tags == 0 { "its link header" } else { "a VLAN tag" };
        match EtherType(two(frame, kind_at, what)?) {
            EtherType::IPV4 | EtherType::IPV6 => {
                return Head::of(frame, offset, Kind::EtherType(kind_at), what);
            }
            EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING | EtherType::VLAN_DOUBLE_TAGGED_FRAME => {
                kind_at = offset + 2;
                offset += 4;
            }
            // Provider backbone (IEEE 802.1ah): a service instance tag, then a whole frame.
            BACKBONE => {
                kind_at = offset + 16;
                offset += 18;
            }
            // VNTag for virtual interfaces, and bridge port tags (IEEE 802.1BR).
            VNTAG => {
                kind_at = offset + 4;
                offset += 6;
            }
            PORT_TAG => {
                kind_at = offset + 6;
                offset += 8;
            }
            PPPOE => return pppoe(frame, offset),
            MPLS | MPLS_UPSTREAM => return labels(frame, offset),
            EtherType(0..=MOST_LENGTH) => {
                let head = llc(frame, offset)?;
                let length = ethernet.then_some((kind_at, offset));
                return Ok(Head { length, ..head });
            }
            EtherType(0x0806) => return Err(NotIp("ARP".into())),
            EtherType(other) => return Err(NotIp(format!("EtherType {other:#06x}"))),
        }
    }
    Err(NotIp(format!("more than {MOST_TAGS} VLAN tags")))
}

/// IEEE 802.2 LLC with SNAP (RFC 1042).
pub(super) fn llc(frame: &[u8], at: usize) -> Result<Head, NotIp> {
    match frame.get(at..at + 8) {
        Some([0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0x00] | [0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd]) => {
            Head::of(frame, at + 8, Kind::EtherType(at + 6), "a SNAP header")
        }
        Some([0xaa, 0xaa, 3, _, _, _, high, low]) => Err(NotIp(format!("SNAP protocol 0x{high:02x}{low:02x}"))),
        _ => Err(NotIp("LLC without SNAP".into())),
    }
}

/// MPLS labels (RFC 3032): the last one is marked by a bit, and does not say what follows.
fn labels(frame: &[u8], mut at: usize) -> Result<Head, NotIp> {
    loop {
        let label = frame.get(at..at + 4).ok_or_else(|| short("an MPLS label"))?;
        at += 4;
        if label[2] & 1 == 1 {
            break;
        }
    }
    match frame.get(at).map(|first| first >> 4) {
        Some(4 | 6) => Head::of(frame, at, Kind::Silent, "an MPLS label"),
        _ => Err(NotIp("something other than IP after MPLS labels".into())),
    }
}

/// A PPPoE session (RFC 2516, 4).
pub(super) fn pppoe(frame: &[u8], at: usize) -> Result<Head, NotIp> {
    match frame.get(at..at + 6).ok_or_else(|| short("a PPPoE header"))? {
        [0x11, 0, ..] => Ok(Head { length: Some((at + 4, at + 6)), ..ppp(frame, at + 6)? }),
        _ => Err(NotIp("PPPoE discovery".into())),
    }
}

/// PPP, in HDLC-like framing (RFC 1662, 3.1) or without.
pub(super) fn ppp(frame: &[u8], mut at: usize) -> Result<Head, NotIp> {
    if frame.get(at..at + 2) == Some(&[0xff, 3]) {
        at += 2;
    }
    let (protocol, head) = match frame.get(at) {
        Some(first) if first & 1 == 1 => (u16::from(*first), (at + 1, Kind::Byte(at, [0x21, 0x57]))),
        _ => (two(frame, at, "a PPP header")?, (at + 2, Kind::Ppp(at))),
    };
    match protocol {
        0x21 | 0x57 => Head::of(frame, head.0, head.1, "a PPP header"),
        other => Err(NotIp(format!("PPP protocol {other:#06x}"))),
    }
}

/// PPP in HDLC-like framing, or Cisco HDLC, which has EtherTypes.
pub(super) fn hdlc(frame: &[u8]) -> Result<Head, NotIp> {
    match frame.first().ok_or_else(|| short("an HDLC header"))? {
        0x0f | 0x8f => behind(frame, 2, 4, false),
        _ => ppp(frame, 0),
    }
}
