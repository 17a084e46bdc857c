//! Checksums that are partial, missing, or of a packet inside.

use super::*;

/// A datagram that carries an IPv4 TCP segment whose checksum is partial, the inner packet, and where the rest is due.
fn carried(addresses: &Addresses) -> (Vec<u8>, usize, InnerChecksum) {
    let mut inner = build(Kind::Tcp, &FOUR, b"carried");
    let parsed = parse(&inner).unwrap();
    let sum = checksum::fold(checksum::pseudo(&parsed.addresses, parsed.protocol, parsed.len - parsed.offset));
    inner[parsed.offset + 16..][..2].copy_from_slice(&sum.to_be_bytes());
    let packet = build(Kind::Udp, addresses, &inner);
    let at = packet.len() - inner.len();
    (packet, at, InnerChecksum { start: (at + parsed.offset) as u16, field: 16 })
}

/// The outer checksum as a kernel makes it: right once the inner one is complete.
fn with_right_sum(packet: &[u8], inner: InnerChecksum) -> Vec<u8> {
    let mut whole = packet.to_vec();
    build::complete_inner_sum(&mut whole, inner);
    let at = parse(packet).unwrap().offset;
    whole[at + 6..at + 8].fill(0);
    transport::complete_udp(&mut whole[at..], &parse(packet).unwrap().addresses).unwrap();
    let mut packet = packet.to_vec();
    packet[at + 6..at + 8].copy_from_slice(&whole[at + 6..at + 8]);
    packet
}

#[test]
fn an_inner_checksum_moves_with_its_packet_and_the_outer_one_is_patched_as_complete() {
    for (near, far) in [(FOUR, SIX), (SIX, FOUR)] {
        let (packet, at, inner) = carried(&near);
        let packet = with_right_sum(&packet, inner);
        let meta = Meta { inner_checksum: Some(inner), ..Meta::default() };
        let mut out = Vec::new();
        let parsed = parse(&packet).unwrap();
        let got = translate(&mut out, &packet, &parsed, &across(Kind::Udp, far), 1, meta).unwrap();
        let moved = got.inner_checksum.expect("it is still to be completed");
        assert_eq!(usize::from(moved.start) + packet.len(), usize::from(inner.start) + out.len());
        assert_eq!(out[out.len() - (packet.len() - at)..], packet[at..], "what is carried stays as it is");
        build::complete_inner_sum(&mut out, moved);
        assert!(sum_is_right(&out));
        assert!(sum_is_right(&out[out.len() - (packet.len() - at)..]));
    }
}

#[test]
fn a_datagram_without_checksum_gets_one_that_is_right_for_what_it_carries() {
    let (mut packet, at, inner) = carried(&FOUR);
    let parsed = parse(&packet).unwrap();
    packet[parsed.offset + 6..][..2].fill(0);
    let meta = Meta { inner_checksum: Some(inner), ..Meta::default() };
    let mut out = Vec::new();
    let got = translate(&mut out, &packet, &parsed, &across(Kind::Udp, SIX), 1, meta);
    assert_eq!(got, Ok(Meta::default()));
    assert!(sum_is_right(&out));
    assert!(sum_is_right(&out[out.len() - (packet.len() - at)..]));
}

#[test]
fn a_partial_echo_is_completed() {
    for (near, far) in [(FOUR, SIX), (SIX, FOUR)] {
        let mut packet = build(Kind::Request, &near, b"abc");
        let parsed = parse(&packet).unwrap();
        packet[parsed.offset + 2] ^= 0x55;
        let meta = Meta { partial_checksum: true, ..Meta::default() };
        let mut out = Vec::new();
        let got = translate(&mut out, &packet, &parsed, &across(Kind::Request, far), 1, meta);
        assert_eq!(got, Ok(Meta::default()));
        assert!(sum_is_right(&out));
    }
}

#[test]
fn the_checksum_of_an_all_zero_echo_reply_is_all_ones() {
    let mut packet = build(Kind::Reply, &SIX, &[0; 8]);
    packet[46..48].fill(0);
    packet[42..44].fill(0);
    let sum = !checksum::fold(checksum::add(checksum::pseudo(&SIX, 58, 16), &packet[40..]));
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
    let made = cross(&packet, &Across { addresses: FOUR, src_port: 0, dst_port: 0 }).unwrap();
    assert_eq!(made[20..], [0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_missing_udp_checksum_is_computed_towards_ipv6_and_refused_from_it() {
    let mut packet = build(Kind::Udp, &FOUR, b"odd");
    packet[26..28].fill(0);
    let made = cross(&packet, &across(Kind::Udp, SIX)).unwrap();
    assert!(sum_is_right(&made) && word(&made, 46) != 0);
    // Among all source ports, one makes the checksum come out as zero, which is sent as all ones.
    let zero = (0..=u16::MAX).filter(|port| {
        let to = Across { src_port: *port, ..across(Kind::Udp, SIX) };
        word(&cross(&packet, &to).unwrap(), 46) == 0xffff
    });
    assert_eq!(zero.count(), 1);
    // Bytes after the datagram are not part of it.
    packet.extend([0xaa; 5]);
    packet[3] += 5;
    resum(&mut packet);
    let padded = cross(&packet, &across(Kind::Udp, SIX)).unwrap();
    assert_eq!((word(&padded, 46), padded.len()), (word(&made, 46), made.len() + 5));

    let mut packet = build(Kind::Udp, &SIX, b"odd");
    packet[46..48].fill(0);
    assert_eq!(cross(&packet, &across(Kind::Udp, FOUR)), Err(Untranslatable::UdpNoSum));
}
