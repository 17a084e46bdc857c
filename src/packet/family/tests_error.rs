//! ICMP errors: quotes, lengths, extensions and checksums.

use super::super::{checksum, parse, quote, word};
use super::tests::{FOUR, KINDS, Kind, SIX, across, build, resum, sum_is_right, with_extensions};
use super::*;
use proptest::prelude::*;

/// Routers that send errors, and the senders that they send them to.
const OUTER_FOUR: Addresses = Addresses::V4 { src: 0xcb00_7109, dst: 0xc000_0201 };
const OUTER_SIX: Addresses = Addresses::V6 { src: 0x0064_ff9b << 96 | 0xcb00_7109, dst: 0x2001_0db8 << 96 | 0x11 };

fn outer(v6: bool) -> Addresses {
    if v6 { OUTER_SIX } else { OUTER_FOUR }
}

fn inner(v6: bool) -> Addresses {
    if v6 { SIX } else { FOUR }
}

/// An error with the given bytes after its checksum, in one family.
fn error(v6: bool, kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let message = [&[kind, code, 0, 0][..], &rest, quoted].concat();
    let addresses = outer(v6);
    let make = Make {
        addresses: &addresses,
        class: 0xc0,
        hops: 250,
        protocol: if v6 { 58 } else { 1 },
        data: message.len(),
        piece: None,
        id: Some(3),
    };
    let mut packet = [header::make(&make).unwrap().bytes(), &message].concat();
    let at = packet.len() - message.len();
    let start = if v6 { checksum::pseudo(&addresses, 58, message.len()) } else { 0 };
    let sum = !checksum::fold(checksum::add(start, &packet[at..]));
    packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert!(sum_is_right(&packet));
    packet
}

fn cross_to(packet: &[u8], to: &Across, mtus: &MtuRule) -> Result<Vec<u8>, Untranslatable> {
    let mut out = b"kept".to_vec();
    let v6 = packet[0] >> 4 == 6;
    let result = translate_error(&mut out, packet, &parse(packet).unwrap(), &outer(!v6), to, mtus, 0x5678);
    assert_eq!(&out[..4], b"kept");
    assert!(result.is_ok() || out.len() == 4, "a refused packet leaves nothing behind");
    result.map(|()| out.split_off(4))
}

fn cross(packet: &[u8], kind: Kind) -> Result<Vec<u8>, Untranslatable> {
    cross_to(packet, &across(kind, inner(packet[0] >> 4 == 4)), &MtuRule::default())
}

/// An error's bytes from its type on.
fn message(packet: &[u8]) -> &[u8] {
    let parsed = parse(packet).unwrap();
    assert_eq!(parsed.len, packet.len());
    &packet[parsed.offset..]
}

/// What [`translate`] makes of a packet, as a quote shows it: the identification is not known.
fn whole(packet: &[u8], kind: Kind) -> Vec<u8> {
    let mut out = Vec::new();
    let to = across(kind, inner(packet[0] >> 4 == 4));
    translate(&mut out, packet, &parse(packet).unwrap(), &to, 0, Meta::default()).unwrap();
    out
}

#[test]
fn each_error_passes_with_its_quote_in_the_other_family() {
    // v6, type, code, rest; type, code, rest
    let rows: &[(bool, u8, u8, [u8; 4], u8, u8, [u8; 4])] = &[
        (false, 3, 0, [0; 4], 1, 0, [0; 4]),
        (false, 3, 1, [0; 4], 1, 0, [0; 4]),
        (false, 3, 2, [0; 4], 4, 1, [0, 0, 0, 6]),
        (false, 3, 3, [0; 4], 1, 4, [0; 4]),
        (false, 3, 4, [0, 0, 5, 0x78], 2, 0, [0, 0, 5, 0x8c]),
        (false, 3, 13, [0; 4], 1, 1, [0; 4]),
        (false, 11, 0, [0; 4], 3, 0, [0; 4]),
        (false, 11, 1, [0; 4], 3, 1, [0; 4]),
        (false, 12, 0, [9, 0, 0, 0], 4, 0, [0, 0, 0, 6]),
        (true, 1, 0, [0; 4], 3, 1, [0; 4]),
        (true, 1, 1, [0; 4], 3, 10, [0; 4]),
        (true, 1, 4, [0; 4], 3, 3, [0; 4]),
        (true, 2, 0, [0, 0, 5, 0x78], 3, 4, [0, 0, 5, 0x64]),
        (true, 3, 0, [0; 4], 11, 0, [0; 4]),
        (true, 4, 0, [0, 0, 0, 7], 12, 0, [8, 0, 0, 0]),
        (true, 4, 1, [0, 0, 0, 6], 3, 2, [0; 4]),
    ];
    for &(v6, kind, code, rest, kind_there, code_there, rest_there) in rows {
        for transport in KINDS {
            let quoted = build(transport, &inner(v6), b"what was sent");
            let made = cross(&error(v6, kind, code, rest, &quoted), transport).unwrap();
            assert!(sum_is_right(&made), "type {kind} code {code}");
            let parsed = parse(&made).unwrap();
            assert_eq!(parsed.addresses, outer(!v6));
            let got = message(&made);
            assert_eq!(
                (got[0], got[1], &got[4..8]),
                (kind_there, code_there, &rest_there[..]),
                "type {kind} code {code}"
            );
            assert_eq!(got[8..], whole(&quoted, transport), "type {kind} code {code}");
            let head = header::read(&made).unwrap();
            assert_eq!((head.class, head.hops), (0xc0, 250));
            assert!(v6 == (word(&made, 4) == 0x5678 && word(&made, 6) == 0));
            if transport != Kind::Reply {
                let seen = quote(&made, &parsed).unwrap();
                let to = across(transport, inner(!v6));
                assert_eq!((seen.addresses, seen.src_port, seen.dst_port), (to.addresses, to.src_port, to.dst_port));
            }
        }
    }
}

#[test]
fn there_and_back_the_quote_is_the_original() {
    for v6 in [false, true] {
        for transport in KINDS {
            // The header states the length of the whole packet, although little of it is quoted.
            let mut sent = build(transport, &inner(v6), &[7; 1300]);
            if !v6 {
                sent[6] = 0x40;
                resum(&mut sent);
            }
            let there =
                cross(&error(v6, if v6 { 1 } else { 3 }, if v6 { 4 } else { 3 }, [0; 4], &sent[..200]), transport);
            let there = there.unwrap();
            let back = {
                let mut out = Vec::new();
                let to = across(transport, inner(v6));
                let parsed = parse(&there).unwrap();
                translate_error(&mut out, &there, &parsed, &outer(v6), &to, &MtuRule::default(), 3).unwrap();
                out
            };
            assert_eq!(message(&back)[8..], sent[..200]);
        }
    }
}

#[test]
fn a_quote_truncated_anywhere_after_its_ports_is_translated_as_it_is() {
    for v6 in [false, true] {
        let ip = if v6 { 40 } else { 20 };
        for transport in KINDS {
            let sent = build(transport, &inner(v6), &[7; 100]);
            let want = whole(&sent, transport);
            for len in 0..sent.len() {
                let got = cross(&error(v6, 3, 0, [0; 4], &sent[..len]), transport);
                if len < ip + 8 {
                    assert!(got.is_err(), "{len}");
                    continue;
                }
                let made = got.unwrap();
                // Half a checksum cannot be patched.
                if message(&made).len() - 8 == (if v6 { 20 } else { 40 }) + 17 && made.len() % 2 == 1 {
                    continue;
                }
                assert_eq!(message(&made)[8..], want[..want.len() - (sent.len() - len)], "{len}");
            }
        }
    }
}

#[test]
fn padding_after_a_quoted_packet_is_dropped() {
    for v6 in [false, true] {
        let sent = build(Kind::Udp, &inner(v6), b"12345");
        let made = cross(&error(v6, 3, 0, [0; 4], &[&sent[..], &[0; 90]].concat()), Kind::Udp).unwrap();
        assert_eq!(message(&made)[8..], whole(&sent, Kind::Udp));
    }
}

#[test]
fn an_error_is_at_most_576_bytes_in_ipv4_and_1280_in_ipv6() {
    let long = build(Kind::Udp, &FOUR, &[3; 1400]);
    let made = cross(&error(false, 3, 3, [0; 4], &long), Kind::Udp).unwrap();
    assert_eq!((made.len(), sum_is_right(&made)), (1280, true));
    assert_eq!(word(message(&made), 8 + 4), 1408, "the quoted header states the whole length");
    let long = build(Kind::Udp, &SIX, &[3; 1100]);
    let made = cross(&error(true, 1, 4, [0; 4], &long), Kind::Udp).unwrap();
    assert_eq!((made.len(), sum_is_right(&made)), (576, true));
    assert_eq!(word(message(&made), 8 + 2), 1128);
    assert!(checksum::fold(checksum::add(0, &message(&made)[8..28])) == 0xffff);
}

/// An extension structure of one MPLS label (RFC 4950).
const EXTENSION: [u8; 12] = [0x20, 0, 0xc5, 0x5d, 0, 8, 1, 1, 0x12, 0x34, 0x51, 0x40];

#[test]
fn extensions_are_carried_over_after_a_repadded_quote() {
    let sent = build(Kind::Udp, &FOUR, &[3; 110]);
    // 35 words of 32 bits: 138 bytes and two of padding.
    let quoted = [&sent[..], &[0; 2], &EXTENSION].concat();
    let made = cross(&error(false, 11, 0, [0, 35, 0, 0], &quoted), Kind::Udp).unwrap();
    let got = message(&made);
    // 20 words of 64 bits: 158 bytes and two of padding.
    assert_eq!(got[4..8], [20, 0, 0, 0]);
    assert_eq!(got[8..8 + 158], whole(&sent, Kind::Udp));
    assert_eq!(got[8 + 158..], [&[0; 2], &EXTENSION[..]].concat());
    assert!(sum_is_right(&made));

    let sent = build(Kind::Udp, &SIX, &[3; 110]);
    // 20 words of 64 bits: 158 bytes and two of padding.
    let quoted = [&sent[..], &[0; 2], &EXTENSION].concat();
    let made = cross(&error(true, 3, 0, [20, 0, 0, 0], &quoted), Kind::Udp).unwrap();
    let got = message(&made);
    // 35 words of 32 bits: 138 bytes and two of padding.
    assert_eq!(got[4..8], [0, 35, 0, 0]);
    assert_eq!(got[8..8 + 138], whole(&sent, Kind::Udp));
    assert_eq!(got[8 + 138..], [&[0; 2], &EXTENSION[..]].concat());
    assert!(sum_is_right(&made));
}

#[test]
fn a_short_quote_before_extensions_is_padded_to_128_bytes() {
    let sent = build(Kind::Udp, &SIX, b"");
    let quoted = [&sent[..], &[0; 80], &EXTENSION].concat();
    let made = cross(&error(true, 1, 0, [16, 0, 0, 0], &quoted), Kind::Udp).unwrap();
    let got = message(&made);
    assert_eq!(got[4..8], [0, 32, 0, 0]);
    assert_eq!(got[8..], [&whole(&sent, Kind::Udp)[..], &[0; 100], &EXTENSION].concat());
}

#[test]
fn extensions_cut_the_quote_and_those_that_leave_no_room_go() {
    let sent = build(Kind::Udp, &SIX, &[3; 952]);
    let quoted = [&sent[..1000], &EXTENSION].concat();
    let made = cross(&error(true, 1, 0, [125, 0, 0, 0], &quoted), Kind::Udp).unwrap();
    let got = message(&made);
    assert_eq!((made.len(), got[5]), (576, 134), "548 bytes less 12 are 134 words");
    assert!(got.ends_with(&EXTENSION) && sum_is_right(&made));
    let large = [&[0x20, 0, 0, 0][..], &[0; 420]].concat();
    let quoted = [&sent[..1000 - 200], &large].concat();
    let made = cross(&error(true, 1, 0, [100, 0, 0, 0], &quoted), Kind::Udp).unwrap();
    assert_eq!((made.len(), message(&made)[5]), (576, 0));
    let barely = [&[0x20, 0, 0, 0][..], &[0; 416]].concat();
    let quoted = [&sent[..1000 - 200], &barely].concat();
    let made = cross(&error(true, 1, 0, [100, 0, 0, 0], &quoted), Kind::Udp).unwrap();
    assert_eq!((made.len(), message(&made)[5]), (576, 32));
}

#[test]
fn extensions_go_where_the_other_type_has_none_and_where_their_length_makes_no_sense() {
    let sent = build(Kind::Udp, &FOUR, &[3; 110]);
    let quoted = [&sent[..], &[0; 2], &EXTENSION].concat();
    let want = whole(&sent, Kind::Udp);
    // Packet Too Big and Parameter Problem have no extensions in ICMPv6; 255 words are not there; 8 are too few.
    for (kind, code, rest, quoted) in [
        (3, 4, [0, 35, 5, 0x78], &quoted),
        (12, 0, [0, 35, 0, 0], &quoted),
        (3, 3, [0, 255, 0, 0], &quoted),
        (3, 3, [0, 8, 0, 0], &quoted),
    ] {
        let made = cross(&error(false, kind, code, rest, quoted), Kind::Udp).unwrap();
        assert_eq!(message(&made)[8..], want, "type {kind} code {code}");
        assert!(kind == 3 && code == 4 || message(&made)[4] == 0);
    }
}

#[test]
fn extensions_of_any_version_are_carried_over_and_valid_ones_even_after_a_short_quote() {
    let sent = build(Kind::Udp, &FOUR, &[3; 110]);
    let mut quoted = [&sent[..], &[0; 2], &EXTENSION].concat();
    quoted[140] = 0x30;
    let made = cross(&error(false, 3, 3, [0, 35, 0, 0], &quoted), Kind::Udp).unwrap();
    assert!(message(&made).ends_with(&quoted[140..]) && message(&made)[4] > 0);
    // Some routers quote 28 bytes, say so, and append an MPLS label.
    let mut sound = EXTENSION;
    sound[2..4].fill(0);
    let sum = !checksum::fold(checksum::add(0, &sound));
    sound[2..4].copy_from_slice(&sum.to_be_bytes());
    for (spoil, carried) in [(0, true), (1, false)] {
        sound[7] ^= spoil;
        let made = cross(&error(false, 11, 0, [0, 7, 0, 0], &[&sent[..28], &sound].concat()), Kind::Udp).unwrap();
        let got = message(&made);
        assert_eq!((got[4] == 16, got.ends_with(&sound)), (carried, true), "{spoil}");
        assert_eq!(got.len(), if carried { 8 + 128 + sound.len() } else { 8 + 48 + sound.len() });
    }
}

#[test]
fn an_error_in_an_atomic_fragment_keeps_its_identification() {
    let sent = build(Kind::Udp, &SIX, b"data");
    let plain = error(true, 1, 4, [0; 4], &sent);
    let atomic = with_extensions(&plain, 44, &[58, 0, 0, 0, 0x87, 0x65, 0x43, 0x21]);
    assert_eq!(word(&cross(&atomic, Kind::Udp).unwrap(), 4), 0x4321);
}

#[test]
fn a_quoted_fragment_keeps_its_place_and_a_later_one_has_no_ports() {
    let mut first = build(Kind::Udp, &FOUR, &[9; 200]);
    (first[4], first[5], first[6]) = (0xbe, 0xef, 0x20);
    resum(&mut first);
    let to = Across { addresses: SIX, src_port: 1, dst_port: 2 };
    let made = cross_to(&error(false, 11, 1, [0; 4], &first[..48]), &to, &MtuRule::default()).unwrap();
    let got = &message(&made)[8..];
    assert_eq!((word(got, 4), got[6], got[40]), (216, 44, 17));
    assert_eq!((&got[42..48], word(got, 48), word(got, 50)), (&[0, 1, 0, 0, 0xbe, 0xef][..], 1, 2));
    let mut later = first.clone();
    (later[6], later[7]) = (0, 0x20);
    resum(&mut later);
    let made = cross_to(&error(false, 11, 1, [0; 4], &later[..48]), &to, &MtuRule::default()).unwrap();
    let got = &message(&made)[8..];
    assert_eq!((&got[42..44], &got[48..]), (&[1, 0][..], &later[20..48]));

    let to = Across { addresses: FOUR, src_port: 1, dst_port: 2 };
    let plain = build(Kind::Udp, &SIX, &[9; 200]);
    for (field, ports) in [([0, 1], (1, 2)), ([1, 1], (word(&plain, 40), word(&plain, 42)))] {
        let sent = with_extensions(&plain, 44, &[17, 0, field[0], field[1], 0xde, 0xad, 0xbe, 0xef]);
        let made = cross_to(&error(true, 3, 1, [0; 4], &sent[..80]), &to, &MtuRule::default()).unwrap();
        let got = &message(&made)[8..];
        assert_eq!((word(got, 2), word(got, 4), word(got, 6)), (228, 0xbeef, 0x2000 | u16::from(field[0]) << 5));
        assert_eq!((word(got, 20), word(got, 22)), ports);
    }
}

#[test]
fn extension_headers_of_a_quoted_packet_are_left_out_of_its_length_too() {
    let plain = build(Kind::Udp, &SIX, &[9; 200]);
    let sent = with_extensions(&plain, 60, &[17, 0, 1, 4, 0, 0, 0, 0]);
    let made = cross(&error(true, 1, 4, [0; 4], &sent[..60]), Kind::Udp).unwrap();
    assert_eq!(message(&made)[8..], whole(&plain, Kind::Udp)[..32]);
}

#[test]
fn the_mtu_of_a_router_older_than_rfc_1191_is_guessed_from_the_quoted_length() {
    let sent = build(Kind::Udp, &FOUR, &[9; 1472]);
    let made = cross(&error(false, 3, 4, [0; 4], &sent[..28]), Kind::Udp).unwrap();
    assert_eq!(message(&made)[4..8], [0, 0, 5, 0xe8], "1492 + 20");
    let mtus = MtuRule { v4: Some(1400), v6: Some(9000) };
    let to = across(Kind::Udp, SIX);
    let made = cross_to(&error(false, 3, 4, [0; 4], &sent[..28]), &to, &mtus).unwrap();
    assert_eq!(word(message(&made), 6), 1420);
}

#[test]
fn what_has_no_counterpart_is_refused_by_name() {
    let sent = build(Kind::Udp, &FOUR, b"data");
    for (kind, code) in [(3, 14), (4, 0), (5, 1), (9, 0), (11, 2), (12, 1)] {
        assert_eq!(cross(&error(false, kind, code, [0; 4], &sent), Kind::Udp), Err(Untranslatable::Icmp), "{kind}");
    }
    let nested = error(false, 3, 3, [0; 4], &sent);
    assert_eq!(
        cross(&error(false, 3, 3, [0; 4], &nested), Kind::Udp),
        Err(Untranslatable::Icmp),
        "an error in an error"
    );
    let six = build(Kind::Udp, &SIX, b"data");
    assert_eq!(cross(&error(false, 3, 3, [0; 4], &six), Kind::Udp), Err(Untranslatable::Malformed), "another family");
    let echo = build(Kind::Request, &FOUR, b"data");
    assert_eq!(cross(&echo, Kind::Udp), Err(Untranslatable::Icmp), "no error");
    assert_eq!(cross(&error(false, 3, 3, [0; 4], &[]), Kind::Udp), Err(Untranslatable::Malformed));
    let own = across(Kind::Udp, FOUR);
    let got = cross_to(&error(false, 3, 3, [0; 4], &sent), &own, &MtuRule::default());
    assert_eq!(got, Err(Untranslatable::Malformed), "its own family");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn no_quote_panics_and_each_error_has_a_valid_checksum_and_length(
        v6 in any::<bool>(), kind in prop::sample::select(&KINDS[..]), which in 0usize..5, attribute in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..1500), cut in 0usize..1600,
        spoilt in prop::collection::vec((0usize..80, any::<u8>()), 0..3),
    ) {
        let mut sent = build(kind, &inner(v6), &payload);
        for (at, byte) in spoilt {
            let at = at % sent.len();
            sent[at] = byte;
        }
        sent.truncate(cut);
        let (error_kind, code, rest) = match (v6, which) {
            (false, 0) => (3, 4, [0, attribute, 5, 0x78]),
            (false, 1) => (12, 0, [attribute, attribute, 0, 0]),
            (false, _) => (11, 0, [0, attribute, 0, 0]),
            (true, 0) => (2, 0, [0, 0, attribute, 0x78]),
            (true, 1) => (4, 0, [0, 0, 0, attribute]),
            (true, _) => (1, 4, [attribute, 0, 0, 0]),
        };
        if let Ok(made) = cross(&error(v6, error_kind, code, rest, &sent), kind) {
            prop_assert!(sum_is_right(&made));
            let most = if v6 { 576 } else { 1280 };
            prop_assert!(made.len() <= most);
            prop_assert_eq!(parse(&made).unwrap().len, made.len());
            let quoted = header::read(&message(&made)[8..]).unwrap();
            prop_assert_eq!(quoted.addresses, inner(!v6));
        }
    }
}
