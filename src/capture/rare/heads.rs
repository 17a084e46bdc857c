//! The headers of rare link types: radio, token ring, frame relay, switch tags, tunnels and hosts' logs.
//!
//! It must not know what happens to the packet. Numbers and headers: www.tcpdump.org/linktypes.html.

use super::super::head::{Head, Kind, NotIp, behind, hdlc, llc, short};

/// Parses what precedes the IP packet in a frame of link type `number`, one of [`super::NAMES`].
pub(in super::super) fn head(number: i32, frame: &[u8]) -> Result<Head, NotIp> {
    match number {
        6 => token_ring(frame),
        7 => arcnet(frame, false),
        8 => slip(frame),
        105 => radio(frame, 0, false),
        107 => frame_relay(frame, 0),
        109 => enc(frame),
        119 | 163 => prism(frame),
        123 => sun_atm(frame),
        127 => radiotap(frame),
        129 => arcnet(frame, true),
        138 => behind(frame, 16, 18, false),
        192 => wrapped(frame, "a PPI header", 8, |frame| {
            Some((usize::from(u16::from_le_bytes(*frame[2..].first_chunk()?)), little(frame, 4)?))
        }),
        205 => inside(frame, 1, hdlc),
        206 => frame_relay(frame, 1),
        226 => ipnet(frame),
        239 => nflog(frame),
        242 => behind(frame, 40, 44, false),
        258 => wrapped(frame, "a pktap header", 12, |frame| Some((little(frame, 0)? as usize, little(frame, 8)?))),
        281 | 284 => behind(frame, 16, 18, true),
        282 => inside(frame, 4, |frame| behind(frame, 12, 14, true)),
        285 => behind(frame, 20, 22, true),
        other => Err(NotIp(format!("link type {other}, which is not supported"))),
    }
}

fn little(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*frame.get(at..)?.first_chunk()?))
}

/// Parses what follows the first `skipped` bytes with `read`.
fn inside(frame: &[u8], skipped: usize, read: impl Fn(&[u8]) -> Result<Head, NotIp>) -> Result<Head, NotIp> {
    let rest = frame.get(skipped..).ok_or_else(|| short("its link header"))?;
    Ok(read(rest)?.shifted(skipped))
}

/// A header of at least `least` bytes that states its length and its contents: Ethernet, IEEE 802.11 or IP.
fn wrapped(
    frame: &[u8],
    what: &str,
    least: usize,
    tells: impl Fn(&[u8]) -> Option<(usize, u32)>,
) -> Result<Head, NotIp> {
    if frame.len() < least {
        return Err(short(what));
    }
    let (length, holds) =
        tells(frame).filter(|(length, _)| (least..=frame.len()).contains(length)).ok_or_else(|| short(what))?;
    match holds {
        1 => inside(frame, length, |frame| behind(frame, 12, 14, true)),
        12 | 14 | 101 => Head::of(frame, length, Kind::Silent, what),
        105 => radio(frame, length, false),
        other => Err(NotIp(format!("link type {other} in another, which is not supported"))),
    }
}

/// IEEE 802.5: LLC after the addresses and, if the first bit of the source says so, the route through the bridges.
fn token_ring(frame: &[u8]) -> Result<Head, NotIp> {
    let route = match frame.get(8) {
        Some(first) if first & 0x80 != 0 => {
            usize::from(*frame.get(14).ok_or_else(|| short("a token ring header"))? & 0x1f)
        }
        Some(_) => 0,
        None => return Err(short("a token ring header")),
    };
    llc(frame, 14 + route)
}

/// ARCNET with the headers of RFC 1201 (a flag and a sequence number) or RFC 1051 (neither); Linux has two more bytes
/// before the protocol.
fn arcnet(frame: &[u8], linux: bool) -> Result<Head, NotIp> {
    let at = if linux { 4 } else { 2 };
    let protocol = *frame.get(at).ok_or_else(|| short("an ARCNET header"))?;
    let (offset, kind) = match protocol {
        240 => (at + 1, Kind::Silent),
        212 | 196 if frame.get(at + 1) == Some(&0xff) && !linux => (at + 8, Kind::Byte(at, [212, 196])),
        212 | 196 => (at + 4, Kind::Byte(at, [212, 196])),
        other => return Err(NotIp(format!("ARCNET protocol {other}"))),
    };
    Head::of(frame, offset, kind, "an ARCNET header")
}

/// SLIP: one byte for the direction and 15 of a compressed header; the packet follows uncompressed.
fn slip(frame: &[u8]) -> Result<Head, NotIp> {
    match frame.get(16).map(|first| first >> 4) {
        Some(4 | 6) => Head::of(frame, 16, Kind::Silent, "a SLIP header"),
        Some(_) => Err(NotIp("something other than IP after a SLIP header".into())),
        None => Err(short("a SLIP header")),
    }
}

/// Frame relay: an address of two to four bytes, of which the last is odd, then RFC 2427 (3), or Cisco's EtherType.
fn frame_relay(frame: &[u8], start: usize) -> Result<Head, NotIp> {
    let address = frame.get(start..).unwrap_or_default();
    let Some(length) = address.iter().take(4).position(|byte| byte & 1 == 1).filter(|last| *last > 0) else {
        return Err(NotIp("no frame relay address".into()));
    };
    let mut at = start + length + 1;
    if frame.get(at) != Some(&3) {
        return behind(frame, at, at + 2, false);
    }
    at += if frame.get(at + 1) == Some(&0) { 2 } else { 1 };
    match frame.get(at) {
        Some(0xcc | 0x8e) => Head::of(frame, at + 1, Kind::Byte(at, [0xcc, 0x8e]), "a frame relay header"),
        Some(0x80) if frame.get(at + 1..at + 4) == Some(&[0; 3]) => behind(frame, at + 4, at + 6, false),
        Some(other) => Err(NotIp(format!("frame relay with network layer {other:#04x}"))),
        None => Err(short("a frame relay header")),
    }
}

/// OpenBSD enc: the family in the byte order of the recording machine, and 8 more bytes.
fn enc(frame: &[u8]) -> Result<Head, NotIp> {
    let at = if frame.first() == Some(&0) { 3 } else { 0 };
    match frame.get(at) {
        Some(2 | 24 | 28 | 30) => Head::of(frame, 12, Kind::Byte(at, [2, 24]), "an enc header"),
        Some(other) => Err(NotIp(format!("address family {other}"))),
        None => Err(short("an enc header")),
    }
}

/// SunATM: flags with the kind of traffic, path and channel.
fn sun_atm(frame: &[u8]) -> Result<Head, NotIp> {
    match frame.first().ok_or_else(|| short("a SunATM header"))? & 0x0f {
        2 => llc(frame, 4),
        other => Err(NotIp(format!("SunATM traffic of kind {other}"))),
    }
}

/// Solaris ipnet: 24 bytes, of which the second is the family and the fifth to eighth are the packet's length.
fn ipnet(frame: &[u8]) -> Result<Head, NotIp> {
    match frame.get(1) {
        Some(2 | 26) => {
            Ok(Head { length: Some((6, 24)), ..Head::of(frame, 24, Kind::Byte(1, [2, 26]), "an ipnet header")? })
        }
        Some(other) => Err(NotIp(format!("address family {other}"))),
        None => Err(short("an ipnet header")),
    }
}

/// Linux NFLOG: the family, then values with their lengths in the byte order of the recording machine; value 9 is the
/// packet.
fn nflog(frame: &[u8]) -> Result<Head, NotIp> {
    const PACKET: u16 = 9;
    if !matches!(frame.first(), Some(2 | 10)) {
        return Err(frame.first().map_or(short("an NFLOG header"), |other| NotIp(format!("address family {other}"))));
    }
    let mut at = 4;
    while let Some([a, b, c, d]) = frame.get(at..).and_then(|rest| rest.first_chunk()) {
        let small = *c <= 32 && *d == 0;
        let (length, kind) = if small {
            (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]))
        } else {
            (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        };
        if length < 4 {
            break;
        }
        if kind == PACKET {
            let head = Head::of(frame, at + 4, Kind::Byte(0, [2, 10]), "an NFLOG header")?;
            return Ok(if small {
                Head { little: Some((at, at)), ..head }
            } else {
                Head { length: Some((at, at)), ..head }
            });
        }
        at += usize::from(length).next_multiple_of(4);
    }
    Err(NotIp("an NFLOG frame without a packet".into()))
}

/// IEEE 802.11 after a Prism header (144 bytes) or an AVS header, which states its length.
fn prism(frame: &[u8]) -> Result<Head, NotIp> {
    let word = |at: usize| Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let length = match (word(0), word(4)) {
        (Some(cookie), Some(length)) if cookie >> 12 == 0x80211 => length as usize,
        _ => 144,
    };
    if length >= frame.len() { Err(short("a Prism header")) } else { radio(frame, length, false) }
}

/// IEEE 802.11 after a radiotap header (www.radiotap.org), which may say that a checksum ends the frame and that the
/// 802.11 header is padded to 32 bits.
fn radiotap(frame: &[u8]) -> Result<Head, NotIp> {
    const TIME: u32 = 1;
    const FLAGS: u32 = 2;
    const MORE: u32 = 1 << 31;
    const ENDS_IN_SUM: u8 = 0x10;
    const FILLED_UP: u8 = 0x20;
    let what = "a radiotap header";
    let [_, _, low, high] = frame.first_chunk().ok_or_else(|| short(what))?;
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let fields = little(frame, 4).ok_or_else(|| short(what))?;
    let (mut at, mut word) = (8, fields);
    while word & MORE != 0 {
        word = little(frame, at).filter(|_| at < length).ok_or_else(|| short(what))?;
        at += 4;
    }
    if fields & TIME != 0 {
        at = at.next_multiple_of(8) + 8;
    }
    if length > frame.len() || at + usize::from(fields & FLAGS != 0) > length {
        return Err(short(what));
    }
    let flags = if fields & FLAGS == 0 { 0 } else { frame[at] };
    let head = radio(frame, length, flags & FILLED_UP != 0)?;
    Ok(Head { clear: (flags & ENDS_IN_SUM != 0).then_some((at, ENDS_IN_SUM)), ..head })
}

/// An IEEE 802.11 data frame from `start` on (IEEE 802.11-2020, 9.2.3 and 9.3.2.1).
fn radio(frame: &[u8], start: usize, filled_up: bool) -> Result<Head, NotIp> {
    const TO_AND_FROM: u8 = 3;
    let what = "an IEEE 802.11 header";
    let header = frame.get(start..).unwrap_or_default();
    let (kind, flags) = match header {
        [kind, ..] if kind & 0x0c != 8 => return Err(NotIp("an IEEE 802.11 management or control frame".into())),
        [kind, flags, ..] if header.len() >= 24 => (*kind, *flags),
        _ => return Err(short(what)),
    };
    let quality = kind & 0x80 != 0;
    let mut length = 24 + if flags & TO_AND_FROM == TO_AND_FROM { 6 } else { 0 };
    let declined = match (kind & 0x40, flags & 0x40, header[22] & 0x0f) {
        (0, 0, 0) if quality && header.get(length).is_none_or(|control| control & 0x80 != 0) => "with several packets",
        (0, 0, 0) => "",
        (0, 0, _) => "with a later fragment",
        (0, ..) => "with encrypted data",
        _ => "without data",
    };
    if !declined.is_empty() {
        return Err(NotIp(format!("an IEEE 802.11 frame {declined}")));
    }
    if quality {
        length += if flags & 0x80 == 0 { 2 } else { 6 };
    }
    llc(frame, start + if filled_up { length.next_multiple_of(4) } else { length })
}

#[cfg(test)]
mod tests {
    use crate::capture::Link;

    const SNAP: [u8; 8] = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    /// An IEEE 802.11 header with the given first two bytes and what follows the first 24.
    fn radio(kind: u8, flags: u8, more: &[u8]) -> Vec<u8> {
        joined(&[&[kind, flags], &[0; 22], more])
    }

    #[test]
    fn the_packet_follows_rare_link_headers() {
        let none: &[u8] = &[];
        let cases: Vec<(i32, Vec<u8>, Result<usize, &str>)> = vec![
            (6, joined(&[&[0x10, 0x40], &[2; 12], &SNAP]), Ok(22)),
            (6, joined(&[&[0x10, 0x40], &[2; 6], &[0x82; 6], &[6, 0x30, 0, 0, 0, 0], &SNAP]), Ok(28)),
            (6, vec![0; 8], Err("shorter than a token ring header")),
            (7, vec![1, 2, 212, 0, 0, 1], Ok(6)),
            (7, vec![1, 2, 196, 0xff, 0, 1, 0, 0, 0, 1], Ok(10)),
            (7, vec![1, 2, 240], Ok(3)),
            (129, vec![1, 2, 0, 0, 212, 0, 0, 1], Ok(8)),
            (129, vec![1, 2, 0, 0, 213, 0, 0, 1], Err("ARCNET protocol 213")),
            (8, joined(&[&[0; 16], &[0x45]]), Ok(16)),
            (8, joined(&[&[0; 16], &[0x70]]), Err("something other than IP after a SLIP header")),
            (105, radio(0x08, 1, &SNAP), Ok(32)),
            (105, radio(0x08, 3, &joined(&[&[2; 6], &SNAP])), Ok(38)),
            (105, radio(0x88, 2, &joined(&[&[0, 0], &SNAP])), Ok(34)),
            (105, radio(0x88, 0x82, &joined(&[&[0; 6], &SNAP])), Ok(38)),
            (105, radio(0x88, 2, &joined(&[&[0x80, 0], &SNAP])), Err("an IEEE 802.11 frame with several packets")),
            (105, radio(0x08, 0x41, &SNAP), Err("an IEEE 802.11 frame with encrypted data")),
            (105, radio(0x48, 1, none), Err("an IEEE 802.11 frame without data")),
            (105, vec![0xd4, 0, 0, 0], Err("an IEEE 802.11 management or control frame")),
            (105, vec![0x08; 23], Err("shorter than an IEEE 802.11 header")),
            (127, joined(&[&[0, 0, 8, 0, 0, 0, 0, 0], &radio(0x08, 1, &SNAP)]), Ok(40)),
            (127, joined(&[&[0, 0, 9, 0, 2, 0, 0, 0, 0x20], &radio(0x88, 1, &[0, 0, 0, 0]), &SNAP]), Ok(45)),
            (127, vec![0, 0, 200, 0, 0, 0, 0, 0], Err("shorter than a radiotap header")),
            (127, vec![0, 0, 8, 0, 0, 0, 0, 0x80], Err("shorter than a radiotap header")),
            (119, joined(&[&[0; 144], &radio(0x08, 1, &SNAP)]), Ok(176)),
            (163, joined(&[&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64], &[0; 56], &radio(0x08, 1, &SNAP)]), Ok(96)),
            (163, vec![0x80, 0x21, 0x10, 1, 0xff, 0xff, 0xff, 0xff], Err("shorter than a Prism header")),
            (192, joined(&[&[0, 0, 8, 0, 105, 0, 0, 0], &radio(0x08, 1, &SNAP)]), Ok(40)),
            (192, vec![0, 0, 7, 0, 105, 0, 0, 0], Err("shorter than a PPI header")),
            (192, vec![0, 0, 8, 0, 192, 0, 0, 0], Err("link type 192 in another, which is not supported")),
            (258, joined(&[&[12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], &[2; 12], &[8, 0]]), Ok(26)),
            (258, vec![12, 0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0], Ok(12)),
            (107, vec![0x18, 0x41, 3, 0xcc], Ok(4)),
            (107, vec![0x18, 0x41, 3, 0, 0x80, 0, 0, 0, 8, 0], Ok(10)),
            (107, vec![0x18, 0x41, 8, 0], Ok(4)),
            (206, vec![1, 0x18, 0x41, 3, 0x8e], Ok(5)),
            (107, vec![0x18, 0x41, 3, 0x08], Err("frame relay with network layer 0x08")),
            (107, vec![0x01], Err("no frame relay address")),
            (107, vec![0; 9], Err("no frame relay address")),
            (205, vec![0, 0x0f, 0, 8, 0], Ok(5)),
            (109, joined(&[&[2, 0, 0, 0], &[0; 8]]), Ok(12)),
            (109, joined(&[&[0, 0, 0, 24], &[0; 8]]), Ok(12)),
            (109, vec![0, 0, 0, 24], Err("shorter than an enc header")),
            (123, joined(&[&[2, 0, 0, 0], &SNAP]), Ok(12)),
            (123, joined(&[&[1, 0, 0, 0], &SNAP]), Err("SunATM traffic of kind 1")),
            (138, joined(&[&[0; 16], &[0x86, 0xdd]]), Ok(18)),
            (226, joined(&[&[1, 2], &[0; 22]]), Ok(24)),
            (226, vec![1, 10], Err("address family 10")),
            (239, vec![2, 0, 0, 0, 5, 0, 10, 0, b'x', 0, 0, 0, 24, 0, 9, 0], Ok(16)),
            (239, vec![10, 0, 0, 0, 0, 5, 0, 10, b'x', 0, 0, 0, 0, 24, 0, 9], Ok(16)),
            (239, vec![2, 0, 0, 0, 0, 0, 1, 0], Err("an NFLOG frame without a packet")),
            (242, joined(&[&[0; 40], &[8, 0, 0, 0]]), Ok(44)),
            (281, joined(&[&[2; 12], &[0x20, 0, 0, 1, 8, 0]]), Ok(18)),
            (282, joined(&[&[0x20, 0, 0, 1], &[2; 12], &[0x81, 0, 0, 7, 8, 0]]), Ok(22)),
            (284, joined(&[&[2; 12], &[0xc0, 0, 0, 1, 8, 6]]), Err("ARP")),
            (285, joined(&[&[2; 12], &[0xda, 0xda, 0, 0, 0xc0, 0, 0, 1, 8, 0]]), Ok(22)),
            (1, joined(&[&[2; 12], &[0x88, 0xe7, 0, 0, 0, 1], &[3; 12], &[8, 0]]), Ok(32)),
            (1, joined(&[&[2; 12], &[0x89, 0x26, 0, 0, 0, 1, 8, 0]]), Ok(20)),
            (1, joined(&[&[2; 12], &[0x89, 0x3f, 0, 0, 0, 1, 0, 0, 0x86, 0xdd]]), Ok(22)),
        ];
        for (number, frame, want) in cases {
            let link = Link::of(number).expect("a supported link type");
            assert_eq!(link.number(), number);
            assert_eq!(link.ip_offset(&frame).map_err(|e| e.0), want.map_err(String::from), "{link:?} {frame:?}");
        }
    }

    #[test]
    fn a_truncated_frame_is_not_read_beyond_its_end() {
        let whole = [0x10, 0x88, 2, 0x0f, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0].repeat(30);
        let mut found = 0;
        for number in (0..300).filter(|number| super::super::known(*number)) {
            for start in 0..24 {
                for end in start..whole.len() {
                    if let Ok(offset) = Link::Rare(number).ip_offset(&whole[start..end]) {
                        assert!(offset <= end - start, "link type {number}");
                        found += 1;
                    }
                }
            }
        }
        assert!(found > 0);
    }

    #[test]
    fn rare_headers_state_family_and_length_too() {
        let (four, six) = ([0x45; 20], [0x60; 40]);
        let cases: Vec<(i32, Vec<u8>, Vec<u8>)> = vec![
            (129, vec![1, 2, 0, 0, 212, 0, 0, 1], vec![1, 2, 0, 0, 196, 0, 0, 1]),
            (107, vec![0x18, 0x41, 3, 0xcc], vec![0x18, 0x41, 3, 0x8e]),
            (239, vec![2, 0, 0, 0, 24, 0, 9, 0], vec![10, 0, 0, 0, 44, 0, 9, 0]),
            (239, vec![2, 0, 0, 0, 0, 24, 0, 9], vec![10, 0, 0, 0, 0, 44, 0, 9]),
            (226, joined(&[&[1, 2, 0, 0, 0, 0, 0, 20], &[0; 16]]), joined(&[&[1, 26, 0, 0, 0, 0, 0, 40], &[0; 16]])),
            (
                282,
                [9, 9, 9, 9, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0].into(),
                [9, 9, 9, 9, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0x86, 0xdd].into(),
            ),
        ];
        for (number, header, want) in cases {
            let link = Link::Rare(number);
            let there = link.header_of(&joined(&[&header, &four]), header.len(), &six, true);
            assert_eq!(there, want, "{link:?}");
            assert_eq!(link.header_of(&joined(&[&there, &six]), header.len(), &four, true), header, "{link:?}");
        }
    }

    #[test]
    fn a_frame_written_without_checksum_does_not_claim_one() {
        let mut frame = joined(&[&[0, 0, 9, 0, 2, 0, 0, 0, 0x11], &radio(0x08, 1, &SNAP), &[0x45; 20], &[0xfc; 4]]);
        Link::Rare(127).ends_with_packet(&mut frame);
        assert_eq!((frame[8], frame.len()), (0x01, 65));
    }
}
