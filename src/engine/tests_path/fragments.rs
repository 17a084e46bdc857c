//! Fragments: which flow they belong to, and what becomes of them.

use super::*;

/// Splits a packet into fragments of `room` bytes.
fn pieces(packet: &[u8], room: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    crate::packet::build::fragment(packet, room, |piece| all.push(piece.to_vec()));
    all
}

#[test]
fn fragments_in_any_order_reassemble_to_the_datagram() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut engine = Engine::new(&settings(1, 9));
        let original = udp(4000, 0);
        let all = pieces(&original, 1500);
        assert_eq!(all.len(), 3);
        let mut out = Vec::new();
        for place in order {
            let mut piece = all[place].clone();
            match hand(&mut engine, &mut piece) {
                Verdict::Forward { .. } => out.push(piece),
                Verdict::Consume(Consumed::FragmentWaiting) => assert_eq!(piece, all[place]),
                other => panic!("{other:?}"),
            }
            out.extend(sent(&mut engine, at(1)));
        }
        assert_eq!(out.len(), 3, "{order:?}");
        for piece in &out {
            let parsed = parse(piece).unwrap();
            assert_eq!(parsed.addresses.dst(), IpAddr::from([10, 0, 2, 1]));
        }
        let whole = joined(out);
        let addresses = crate::packet::Addresses::new(CLIENT.into(), [10, 0, 2, 1].into()).unwrap();
        let sum = checksum::add(checksum::pseudo(&addresses, proto::UDP, whole.len()), &whole);
        assert_eq!((checksum::fold(sum), &whole[8..]), (0xffff, &original[28..]));
        assert_eq!((engine.counters().flows, first_flow(&engine).packets[0]), (1, 3));
        // An error about a later fragment finds its flow.
        let mut third = all[2].clone();
        third[16..20].copy_from_slice(&[10, 0, 2, 1]);
        resum(&mut third);
        let mut back = error(ROUTER, CLIENT, 1300, &third[..28]);
        hand(&mut engine, &mut back);
        assert_eq!(back[28..], all[2][..28], "{order:?}");
    }
}

#[test]
fn a_fragmented_sctp_packet_whose_ports_change_is_dropped_as_its_checksum_would_be_bad() {
    for (port, passes) in [(8080, false), (80, true)] {
        let mut settings = settings(1, 9);
        settings.services[0].listen.push(crate::balance::Listen::one(
            VIP.into(),
            crate::packet::Protocol::Sctp,
            80,
            80,
        ));
        settings.servers[0].port = Some(port);
        let mut engine = Engine::new(&settings);
        let mut sctp = [4000u16.to_be_bytes(), 80u16.to_be_bytes()].concat();
        sctp.extend([0; 8]);
        sctp.extend([7; 2980]);
        let sum = crc32c::crc32c(&sctp);
        sctp[8..12].copy_from_slice(&sum.to_le_bytes());
        let mut packet = Vec::new();
        PacketBuilder::ipv4(CLIENT, VIP, 60).write(&mut packet, etherparse::IpNumber::SCTP, &sctp).unwrap();
        packet[6] = 0;
        resum(&mut packet);
        for mut piece in pieces(&packet, 1500) {
            let verdict = hand(&mut engine, &mut piece);
            assert_eq!(matches!(verdict, Verdict::Forward { .. }), passes, "{verdict:?}");
        }
    }
}

#[test]
fn later_ipv6_fragments_belong_to_their_first_whatever_next_header_they_name() {
    for early in [false, true] {
        let mut engine = Engine::new(&settings(1, 9));
        let mut all = vec![
            six(44, &[60, 0, 0, 1, 0, 0, 0, 9, 17, 0, 1, 4, 0, 0, 0, 0], &UDP_START),
            six(44, &[17, 0, 0, 24, 0, 0, 0, 9], &[7; 8]),
        ];
        if early {
            all.reverse();
        }
        let mut out = Vec::new();
        for mut piece in all {
            if let Verdict::Forward { .. } = hand(&mut engine, &mut piece) {
                out.push(piece);
            }
            out.extend(sent(&mut engine, at(1)));
        }
        let server: IpAddr = "fd00::1".parse().unwrap();
        let went: Vec<_> = out.iter().map(|piece| parse(piece).unwrap().addresses.dst()).collect();
        assert_eq!(went, [server, server]);
        // An error about the later fragment finds its flow by the protocol number in that fragment.
        let later = out.iter().find(|piece| piece[43] == 24).unwrap();
        let mut back = Vec::new();
        let kind = etherparse::Icmpv6Type::TimeExceeded(etherparse::icmpv6::TimeExceededCode::HopLimitExceeded);
        PacketBuilder::ipv6([0xfe; 16], [0x20; 16], 60).icmpv6(kind).write(&mut back, later).unwrap();
        let verdict = hand(&mut engine, &mut back);
        assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Error { .. }, .. }), "{verdict:?}");
    }
}

#[test]
fn a_fragment_with_another_final_destination_opens_no_flow() {
    let mut engine = Engine::new(&settings(1, 9));
    let routing = [44, 0, 4, 1, 0, 0, 0, 0];
    for fragment in [[17, 0, 0, 1, 0, 0, 0, 9], [17, 0, 0, 16, 0, 0, 0, 9], [17, 0, 0, 0, 0, 0, 0, 9]] {
        let mut packet = six(43, &[routing, fragment].concat(), &UDP_START);
        assert_eq!(hand(&mut engine, &mut packet), Verdict::Consume(Consumed::SourceRoute), "{fragment:?}");
    }
    assert_eq!(engine.counters().flows, 0);
}

#[test]
fn a_later_fragment_too_big_for_the_path_is_fragmented_again() {
    let mut settings = settings(1, 9);
    settings.pools[0].mtu = Some(1400);
    let original = udp(4000, 0);
    for order in [[0, 1, 2], [2, 1, 0]] {
        let mut engine = Engine::new(&settings);
        let all = pieces(&original, 1500);
        let mut out = Vec::new();
        for place in order {
            let mut piece = all[place].clone();
            if let Verdict::Forward { .. } = hand(&mut engine, &mut piece) {
                out.push(piece);
            }
            out.extend(sent(&mut engine, at(1)));
        }
        assert!(out.iter().all(|piece| piece.len() <= 1400 && parse(piece).is_ok()));
        assert_eq!(joined(out)[8..], original[28..]);
    }
}

#[test]
fn a_long_ping_to_a_service_address_is_answered_in_the_same_fragments() {
    let mut engine = Engine::new(&settings(1, 9));
    let mut ping = Vec::new();
    PacketBuilder::ipv4(CLIENT, VIP, 60).icmpv4_echo_request(7, 1).write(&mut ping, &[5; 3000]).unwrap();
    ping[6] = 0;
    resum(&mut ping);
    let mut out = Vec::new();
    for mut piece in pieces(&ping, 1500) {
        assert_eq!(hand(&mut engine, &mut piece), Verdict::Consume(Consumed::Echo));
        out.extend(sent(&mut engine, at(1)));
    }
    let whole = joined(out);
    assert_eq!((whole[0], whole.len(), checksum::fold(checksum::add(0, &whole))), (0, 3008, 0xffff));
}

#[test]
fn a_flood_of_fragments_does_not_affect_whole_packets_or_other_sources() {
    let mut engine = Engine::new(&settings(1, 9));
    for i in 0..20_000u32 {
        let mut piece = pieces(&udp(4000, 0), 1500).swap_remove(1);
        piece[4..6].copy_from_slice(&(i as u16).to_be_bytes());
        piece[12..16].copy_from_slice(&[100, 64, (i >> 8) as u8, (i % 250) as u8]);
        resum(&mut piece);
        hand(&mut engine, &mut piece);
    }
    let (packets, held) = engine.shard.fragments_in_store();
    assert!(packets <= 4096 && held <= 4 << 20);
    assert!(matches!(hand(&mut engine, &mut udp(10, 0)), Verdict::Forward { .. }));
    for mut piece in pieces(&udp(4000, 0), 1500) {
        assert!(matches!(hand(&mut engine, &mut piece), Verdict::Forward { .. }));
    }
}
