//! Tests of the path: ICMP errors, fragments, sizes and hops.

mod fragments;

use super::testing::{CLIENT, VIP, at, bytes, first_flow, sent, settings, tcp};
use super::*;
use crate::packet::parse;
use crate::packet::testing::resum;
use crate::packet::{Transport, checksum, proto};
use etherparse::{Icmpv4Type, PacketBuilder, icmpv4::DestUnreachableHeader};
use std::net::IpAddr;

const ROUTER: [u8; 4] = [203, 0, 113, 1];

fn hand(engine: &mut Engine, packet: &mut Vec<u8>) -> Verdict {
    let verdict = engine.handle_packet(at(1), packet, Meta::default());
    if let Verdict::Forward { len, .. } = verdict {
        packet.truncate(len);
    }
    assert!(engine.counters().add_up());
    verdict
}

fn udp(len: usize, flags: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
    PacketBuilder::ipv4(CLIENT, VIP, 60).udp(4000, 80).write(&mut out, &payload).unwrap();
    (out[4], out[5], out[6]) = (0x12, 0x34, flags);
    resum(&mut out);
    out
}

fn error(from: [u8; 4], to: [u8; 4], mtu: u16, about: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let kind = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
    let builder = PacketBuilder::ipv4(from, to, 60).icmpv4(Icmpv4Type::DestinationUnreachable(kind));
    builder.write(&mut out, about).unwrap();
    out
}

fn joined(mut out: Vec<Vec<u8>>) -> Vec<u8> {
    out.sort_by_key(|piece| u16::from_be_bytes([piece[6], piece[7]]) & 0x1fff);
    out.iter().flat_map(|piece| &piece[20..]).copied().collect()
}

const UDP_START: [u8; 16] = [0x0f, 0xa0, 0, 80, 0, 24, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

#[test]
fn too_big_from_the_servers_side_quotes_the_clients_own_packet() {
    let mut engine = Engine::new(&settings(1, 9));
    let original = udp(1400, 0x40);
    let mut there = original.clone();
    hand(&mut engine, &mut there);
    let before = engine.counters();
    let mut back = error(ROUTER, CLIENT, 1300, &there[..28]);
    let verdict = hand(&mut engine, &mut back);
    assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Error { .. }, .. }), "{verdict:?}");
    let parsed = parse(&back).unwrap();
    assert_eq!((parsed.addresses.src(), parsed.addresses.dst()), (VIP.into(), CLIENT.into()));
    assert_eq!(back[26..28], 1300u16.to_be_bytes());
    assert_eq!(back[28..], original[..28]);
    assert_eq!(checksum::fold(checksum::add(0, &back[20..])), 0xffff);
    assert_eq!(engine.counters().flows, before.flows);
    assert_eq!(first_flow(&engine).packets, [1, 0], "an error does not count as a packet of the flow");
}

#[test]
fn too_big_from_the_clients_side_reaches_the_server() {
    let mut engine = Engine::new(&settings(1, 9));
    hand(&mut engine, &mut udp(10, 0x40));
    let mut answer = Vec::new();
    PacketBuilder::ipv4([10, 0, 2, 1], CLIENT, 60).udp(8080, 4000).write(&mut answer, &[9; 1400]).unwrap();
    let original = answer.clone();
    hand(&mut engine, &mut answer);
    let mut back = error(ROUTER, VIP, 1300, &answer[..200]);
    hand(&mut engine, &mut back);
    let parsed = parse(&back).unwrap();
    assert_eq!((parsed.addresses.src(), parsed.addresses.dst()), (ROUTER.into(), [10, 0, 2, 1].into()));
    assert_eq!(back[28..], original[..200]);
}

#[test]
fn implausible_errors_are_dropped_with_a_reason() {
    let mut engine = Engine::new(&settings(1, 9));
    let mut syn = bytes(tcp(CLIENT, 5, VIP, 80, 100).syn(), b"");
    hand(&mut engine, &mut syn);
    let about = |change: fn(&mut Vec<u8>)| {
        let mut quoted = syn.clone();
        change(&mut quoted);
        error(ROUTER, CLIENT, 1300, &quoted)
    };
    let cases: [(Vec<u8>, Reason); 6] = [
        (about(|q| q[27] ^= 0x80), Reason::IcmpImplausible),
        (about(|q| q[8] ^= 1), Reason::BadQuote),
        (error(ROUTER, CLIENT, 60, &syn), Reason::IcmpBadMtu),
        (error(ROUTER, VIP, 1300, &udp(10, 0)), Reason::IcmpNoFlow),
        (
            {
                let mut wrong = about(|_| {});
                wrong[22] ^= 1;
                wrong
            },
            Reason::BadIcmpChecksum,
        ),
        (
            {
                let mut quench = about(|_| {});
                (quench[20], quench[21]) = (4, 0);
                quench[22..24].fill(0);
                let sum = !checksum::fold(checksum::add(0, &quench[20..]));
                quench[22..24].copy_from_slice(&sum.to_be_bytes());
                quench
            },
            Reason::IcmpObsolete,
        ),
    ];
    for (mut packet, want) in cases {
        let to_vip = want == Reason::BadQuote;
        if to_vip {
            // An unreadable packet can be identified only by its destination.
            packet[16..20].copy_from_slice(&VIP);
            resum(&mut packet);
        }
        assert_eq!(hand(&mut engine, &mut packet), Verdict::Drop(want));
    }
    let mut true_one = about(|_| {});
    assert!(matches!(hand(&mut engine, &mut true_one), Verdict::Forward { .. }));
}

#[test]
fn an_error_not_sent_to_the_quoted_sender_is_dropped_and_counts_against_no_server() {
    let mut settings = settings(1, 9);
    settings.pools[0].passive = Some(crate::balance::Passive { failures: 1, ..Default::default() });
    let mut engine = Engine::new(&settings);
    let mut there = udp(10, 0);
    hand(&mut engine, &mut there);
    // The client's packet after translation, reported to the service address: no router behind the gateway sends that.
    let mut forged = error(CLIENT, VIP, 0, &there);
    forged[21] = 1;
    forged[22..24].fill(0);
    let sum = !checksum::fold(checksum::add(0, &forged[20..]));
    forged[22..24].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(hand(&mut engine, &mut forged.clone()), Verdict::Drop(Reason::IcmpImplausible));
    assert!(engine.poll_event().is_none(), "no sign against the server");
    forged[16..20].copy_from_slice(&CLIENT);
    resum(&mut forged);
    assert!(matches!(hand(&mut engine, &mut forged), Verdict::Forward { .. }));
    assert!(engine.poll_event().is_some());
}

/// Returns a fragment of an IPv6 UDP packet: its headers, starting with the number of the first one, and its payload.
fn six(first: u8, headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 40];
    out[0] = 0x60;
    out[4..6].copy_from_slice(&((headers.len() + payload.len()) as u16).to_be_bytes());
    (out[6], out[7]) = (first, 60);
    out[8..24].copy_from_slice(&[0x20; 16]);
    out[24..40].copy_from_slice(&"2001:db8::80".parse::<std::net::Ipv6Addr>().unwrap().octets());
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out
}

#[test]
fn an_ipv4_source_route_is_answered_for_whole_packets_and_first_fragments_and_a_home_address_is_dropped() {
    let mut engine = Engine::new(&settings(1, 9));
    for (flags, verdict) in [
        (0, Verdict::Consume(Consumed::SourceRoute)),
        (0x2000, Verdict::Consume(Consumed::SourceRoute)),
        (0x2003, Verdict::Drop(Reason::Detour)),
        (0x0003, Verdict::Drop(Reason::Detour)),
    ] {
        let mut packet = udp(24, 0);
        packet.splice(20..20, [131, 7, 4, 10, 0, 0, 1, 0]);
        packet[0] += 2;
        packet[3] += 8;
        packet[6..8].copy_from_slice(&u16::to_be_bytes(flags));
        resum(&mut packet);
        assert_eq!(hand(&mut engine, &mut packet), verdict, "{flags:x}");
        let reported = sent(&mut engine, at(1));
        let parsed = reported.first().map(|answer| parse(answer).unwrap().transport);
        let want = matches!(verdict, Verdict::Consume(_)).then_some(Transport::Icmp { kind: 3, code: 5 });
        assert_eq!((parsed, reported.len()), (want, usize::from(want.is_some())), "{flags:x}");
        // At its final destination the packet is like any other.
        packet[22] = 8;
        packet[6..8].fill(0);
        resum(&mut packet);
        let verdict = hand(&mut engine, &mut packet);
        assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
    }
    let home = [&[17, 2, 1, 2, 0, 0, 0xc9, 16][..], &[0x20; 16]].concat();
    let mut packet = six(60, &home, &UDP_START);
    assert_eq!(hand(&mut engine, &mut packet), Verdict::Drop(Reason::Detour));
    assert_eq!((sent(&mut engine, at(1)).len(), engine.counters().flows), (0, 1));
}

#[test]
fn packets_too_big_for_the_path_are_answered_or_fragmented() {
    let mut settings = settings(1, 9);
    settings.pools[0].mtu = Some(1400);
    let mut engine = Engine::new(&settings);
    let original = udp(1472, 0x40);
    let mut packet = original.clone();
    assert_eq!(hand(&mut engine, &mut packet), Verdict::Consume(Consumed::TooBig));
    let answer = sent(&mut engine, at(1)).remove(0);
    let parsed = parse(&answer).unwrap();
    assert_eq!(parsed.transport, Transport::Icmp { kind: 3, code: 4 });
    assert_eq!((parsed.addresses.src(), parsed.addresses.dst()), (VIP.into(), CLIENT.into()));
    assert_eq!((&answer[26..28], &answer[28..60]), (&1400u16.to_be_bytes()[..], &original[..32]));
    let mut packet = udp(1472, 0);
    assert!(matches!(hand(&mut engine, &mut packet), Verdict::Emit { .. }));
    let out = sent(&mut engine, at(1));
    assert!(out.len() == 2 && out.iter().all(|piece| piece.len() <= 1400));
    assert_eq!(joined(out)[8..], udp(1472, 0)[28..]);
    // A super-packet counts by the size of its segments.
    for (gso_size, fits) in [(1360, true), (1361, false)] {
        let mut big = bytes(tcp(CLIENT, 9, VIP, 80, 100).syn(), &[0; 4000]);
        big[6] = 0x40;
        resum(&mut big);
        let verdict = engine.handle_packet(at(1), &mut big, Meta { gso_size, ..Meta::default() });
        assert_eq!(matches!(verdict, Verdict::Forward { .. }), fits, "{verdict:?}");
        sent(&mut engine, at(1));
    }
}

#[test]
fn an_expired_hop_limit_is_reported_in_the_services_name() {
    let mut engine = Engine::new(&settings(1, 9));
    for (ttl, ends) in [(1, true), (2, false), (1, true)] {
        let original = {
            let mut packet = udp(10, 0);
            packet[8] = ttl;
            resum(&mut packet);
            packet
        };
        let mut packet = original.clone();
        let verdict = hand(&mut engine, &mut packet);
        assert_eq!(verdict == Verdict::Consume(Consumed::TimeExceeded), ends, "{verdict:?}");
        if ends {
            let answer = sent(&mut engine, at(1)).remove(0);
            assert_eq!((answer[20], &answer[12..16], &answer[28..]), (11, &VIP[..], &original[..]));
        }
    }
}

#[test]
fn an_error_about_a_packet_with_a_replaced_identification_quotes_the_original() {
    let mut engine = Engine::new(&settings(2, 9));
    let answer = |server: u8, offset: u16, more: bool| {
        let mut out = Vec::new();
        PacketBuilder::ipv4([10, 0, 2, server], CLIENT, 60)
            .udp(8080, 4000 + u16::from(server))
            .write(&mut out, &[9; 64])
            .unwrap();
        (out[4], out[5]) = (0x12, 0x34);
        out[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        resum(&mut out);
        out
    };
    for server in [1, 2] {
        let mut question = udp(10, 0x40);
        question[20..22].copy_from_slice(&(4000 + u16::from(server)).to_be_bytes());
        hand(&mut engine, &mut question);
        assert_eq!(question[19], server, "the test expects the servers in turn");
        let mut ids = Vec::new();
        for (offset, more) in [(0, true), (9, false)] {
            let original = answer(server, offset, more);
            let mut back = original.clone();
            hand(&mut engine, &mut back);
            assert_eq!(checksum::fold(checksum::add(0, &back[..20])), 0xffff);
            assert_eq!(back[..4], original[..4]);
            assert_eq!(back[6..10], original[6..10]);
            ids.push([back[4], back[5]]);
            let mut reported = error(ROUTER, VIP, 1300, &back[..28]);
            let verdict = hand(&mut engine, &mut reported);
            assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Error { .. }, .. }), "{verdict:?}");
            assert_eq!(reported[28..], original[..28], "server {server}, offset {offset}");
            assert_eq!(checksum::fold(checksum::add(0, &reported[20..])), 0xffff);
        }
        assert_eq!((ids[0], ids[0] == [0x12, 0x34]), (ids[1], server == 1));
    }
}

#[test]
fn a_later_ipv6_fragment_too_big_for_the_path_is_answered() {
    let mut settings = settings(1, 9);
    settings.pools[0].mtu = Some(1400);
    let mut engine = Engine::new(&settings);
    let (client, vip) = ([0x20; 16], "2001:db8::80".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let piece = |offset: u16, len: usize, more: bool| {
        let mut whole = Vec::new();
        PacketBuilder::ipv6(client, vip, 60).udp(4000, 80).write(&mut whole, &[9; 3000]).unwrap();
        let start = 40 + usize::from(offset);
        let mut out = whole[..40].to_vec();
        (out[4..6]).copy_from_slice(&(len as u16 + 8).to_be_bytes());
        let field = (offset | u16::from(more)).to_be_bytes();
        out[6] = 44;
        out.extend([17, 0, field[0], field[1], 0, 0, 0, 7]);
        out.extend(&whole[start..start + len]);
        out
    };
    let first = hand(&mut engine, &mut piece(0, 64, true));
    assert!(matches!(first, Verdict::Forward { why: Forwarded::Translated { .. }, .. }), "{first:?}");
    let later = piece(64, 1400, true);
    let verdict = hand(&mut engine, &mut later.clone());
    assert_eq!(verdict, Verdict::Consume(Consumed::TooBig));
    let icmp = sent(&mut engine, at(1)).remove(0);
    assert_eq!((icmp[40], &icmp[44..48], &icmp[48..]), (2, &1400u32.to_be_bytes()[..], &later[..icmp.len() - 48]));
    assert!(matches!(hand(&mut engine, &mut piece(1464, 600, true)), Verdict::Forward { .. }));
}
