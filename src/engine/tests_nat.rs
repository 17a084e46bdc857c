//! Tests of full NAT, hairpin and translation between the families.

mod yielding;

use super::testing::{CLIENT, VIP, at, bytes, converse, sent, settings, tcp};
use super::*;
use crate::balance::{Listen, Nat};
use crate::config::NoRoom;
use crate::flow::NatPoolSettings;
use crate::ids::NatPoolId;
use crate::packet::parse;
use crate::packet::{Addresses, Parsed, Protocol, Transport, checksum, proto};
use etherparse::PacketBuilder;
use std::net::{IpAddr, Ipv6Addr};

const VIP6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
const CLIENT6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const SOURCE: [u8; 4] = [10, 0, 9, 1];

fn full(v4: bool, v6: bool, change: impl FnOnce(&mut NatPoolSettings)) -> Settings {
    let mut settings = settings(2, 100);
    let mut pool = NatPoolSettings::new("out");
    pool.v4 = if v4 { vec![SOURCE.into()] } else { vec![] };
    pool.v6 = if v6 { vec![Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1)] } else { vec![] };
    change(&mut pool);
    settings.nat_pools = vec![pool];
    settings.services[0].nat = Nat::Full { pool: NatPoolId(0), only_for: vec![], families: [v4, v6] };
    settings
}

/// Returns settings with servers of one family only.
fn servers_of(mut settings: Settings, v6: bool) -> Settings {
    for server in &mut settings.servers {
        if v6 { server.v4 = None } else { server.v6 = None }
    }
    settings
}

/// Passes in a packet and returns what is sent: the packet itself, or those that replace it.
fn through(engine: &mut Engine, now: Instant, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut packet = packet.to_vec();
    let mut out = Vec::new();
    match engine.handle_packet(now, &mut packet, Meta::default()) {
        Verdict::Forward { len, .. } => out.push(packet[..len].to_vec()),
        Verdict::Emit { .. } => {}
        other => panic!("{other:?} {:?}", parse(&packet)),
    }
    out.extend(sent(engine, now));
    for packet in &out {
        assert!(sums_are_right(packet), "{packet:?}");
    }
    assert!(engine.counters().add_up());
    out
}

fn sums_are_right(packet: &[u8]) -> bool {
    let parsed = parse(packet).unwrap();
    if !parsed.whole {
        return true;
    }
    let message = &packet[parsed.offset..parsed.len];
    let start = match parsed.protocol {
        proto::ICMP => 0,
        other => checksum::pseudo(&parsed.addresses, other, message.len()),
    };
    checksum::fold(checksum::add(start, message)) == 0xffff
}

fn ends(packet: &[u8]) -> (IpAddr, u16, IpAddr, u16) {
    let Parsed { addresses, transport, .. } = parse(packet).unwrap();
    let (src, dst) = match transport {
        Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst } => (src, dst),
        Transport::Echo { id, .. } => (id, id),
        other => panic!("{other:?}"),
    };
    (addresses.src(), src, addresses.dst(), dst)
}

#[test]
fn servers_see_a_pool_address_and_clients_see_the_service() {
    let mut engine = Engine::new(&full(true, false, |_| {}));
    let mut sources = std::collections::BTreeSet::new();
    for last in 1..=20 {
        let client = [198, 51, 100, last];
        let syn = bytes(tcp(client, 40_000, VIP, 80, 100).syn(), b"");
        let (src, port, server, server_port) = ends(&through(&mut engine, at(1), &syn)[0]);
        assert_eq!((src, server_port), (IpAddr::from(SOURCE), 8080));
        assert!(sources.insert((server, port)), "two flows to one server on one port");
        let IpAddr::V4(server) = server else { panic!() };
        let answer = bytes(tcp(server.octets(), 8080, SOURCE, port, 500).syn().ack(101), b"");
        let back = ends(&through(&mut engine, at(1), &answer)[0]);
        assert_eq!(back, (VIP.into(), 80, client.into(), 40_000));
    }
    let rows = engine.nat_pools();
    // Ten flows to each of the two servers.
    assert_eq!((rows.len(), rows[0].used, rows[0].half_open, rows[0].servers), (1, 20, 20, 2));
    assert_eq!((rows[0].fullest_server, rows[0].free), (Some(([10, 0, 2, 1], 8080).into()), 64_512 - 10));
    let mut flows = Vec::new();
    engine.flows(at(2), &FlowQuery::default(), Cursor::default(), 100, &mut flows);
    assert!(flows.iter().all(|flow| flow.source.is_some_and(|source| source.ip() == IpAddr::from(SOURCE))));
    // One client completes its handshake. The other flows expire after four minutes, and their ports do not rest.
    let flow = flows.iter().find(|flow| flow.client.ip() == IpAddr::from([198, 51, 100, 20])).unwrap();
    let IpAddr::V4(client) = flow.client.ip() else { panic!() };
    through(&mut engine, at(2), &bytes(tcp(client.octets(), 40_000, VIP, 80, 101).ack(501), b""));
    assert_eq!(engine.nat_pools()[0].half_open, 19);
    engine.handle_timeout(at(300));
    let row = &engine.nat_pools()[0];
    assert_eq!((row.used, row.half_open, row.resting, row.free), (1, 0, 0, 64_511));
    flows.clear();
    engine.flows(at(300), &FlowQuery::default(), Cursor::default(), 100, &mut flows);
    engine.apply(at(300), Change::Kill { flow: flows[0].id }).unwrap();
    let row = &engine.nat_pools()[0];
    assert_eq!((row.used, row.resting, row.free), (0, 1, 64_511));
    engine.handle_timeout(at(421));
    assert_eq!(engine.nat_pools()[0].free, 64_512);
}

#[test]
fn a_server_reaches_its_own_service_and_even_itself() {
    let mut engine = Engine::new(&full(true, false, |_| {}));
    let mut servers = std::collections::BTreeSet::new();
    for port in 1..=2 {
        let client = [10, 0, 2, 1];
        let there = ends(&through(&mut engine, at(1), &bytes(tcp(client, port, VIP, 80, 100).syn(), b""))[0]);
        assert_eq!(there.0, IpAddr::from(SOURCE));
        let IpAddr::V4(server) = there.2 else { panic!() };
        servers.insert(server);
        let answer = bytes(tcp(server.octets(), 8080, SOURCE, there.1, 500).syn().ack(101), b"");
        assert_eq!(ends(&through(&mut engine, at(1), &answer)[0]), (VIP.into(), 80, client.into(), port));
    }
    assert!(servers.contains(&[10, 0, 2, 1].into()), "one of them is on the server itself");
}

#[test]
fn full_nat_for_some_clients_leaves_other_addresses_visible() {
    let mut settings = full(true, false, |_| {});
    let only_for = vec!["10.0.2.0/24".parse().unwrap()];
    settings.services[0].nat = Nat::Full { pool: NatPoolId(0), only_for, families: [true, false] };
    let mut engine = Engine::new(&settings);
    for (client, source) in [(CLIENT, CLIENT), ([10, 0, 2, 99], SOURCE)] {
        let there = ends(&through(&mut engine, at(1), &bytes(tcp(client, 5, VIP, 80, 100).syn(), b""))[0]);
        assert_eq!(there.0, IpAddr::from(source));
    }
}

#[test]
fn an_exhausted_nat_pool_is_reported_to_the_client_as_configured() {
    for (no_room, code) in [(NoRoom::Prohibited, Some(13)), (NoRoom::HostUnreachable, Some(1)), (NoRoom::Drop, None)] {
        let mut settings = full(true, false, |pool| (pool.first_port, pool.last_port) = (5000, 5001));
        settings.answers.no_room = no_room;
        let mut engine = Engine::new(&settings);
        let query = |port| {
            let mut packet = Vec::new();
            PacketBuilder::ipv4(CLIENT, VIP, 60).udp(port, 80).write(&mut packet, b"question").unwrap();
            packet
        };
        // Two ports towards each of the two servers.
        for port in 1..=4 {
            converse(&mut engine, at(1), &query(port));
        }
        let mut further = query(5);
        let verdict = engine.handle_packet(at(1), &mut further, Meta::default());
        assert_eq!(verdict, Verdict::Drop(Reason::NatExhausted));
        let reported: Vec<_> = sent(&mut engine, at(1)).iter().map(|packet| packet[21]).collect();
        assert_eq!(reported, code.into_iter().collect::<Vec<u8>>());
        assert_eq!((engine.nat_pools()[0].exhausted, engine.counters().flows), (1, 4));
    }
}

#[test]
fn unsolicited_packets_to_a_pool_address_are_not_passed() {
    let mut engine = Engine::new(&full(true, false, |_| {}));
    let mut stray = bytes(tcp([10, 0, 2, 1], 8080, SOURCE, 5000, 500).ack(101), b"");
    let verdict = engine.handle_packet(at(1), &mut stray, Meta::default());
    assert!(!matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv6(CLIENT6, VIP6, 60).udp(4000, 80).write(&mut out, payload).unwrap();
    out
}

#[test]
fn ipv6_clients_reach_ipv4_servers() {
    let mut engine = Engine::new(&servers_of(full(true, false, |_| {}), false));
    let mut syn = Vec::new();
    PacketBuilder::ipv6(CLIENT6, VIP6, 60).tcp(40_000, 80, 100, 1000).syn().write(&mut syn, &[]).unwrap();
    let there = through(&mut engine, at(1), &syn);
    let (src, port, server, server_port) = ends(&there[0]);
    assert_eq!((there.len(), src, server_port), (1, IpAddr::from(SOURCE), 8080));
    let IpAddr::V4(server) = server else { panic!() };
    let answer = bytes(tcp(server.octets(), 8080, SOURCE, port, 500).syn().ack(101), b"");
    let back = through(&mut engine, at(1), &answer);
    assert_eq!(ends(&back[0]), (VIP6.into(), 80, CLIENT6.into(), 40_000));
    let mut ack = Vec::new();
    PacketBuilder::ipv6(CLIENT6, VIP6, 60).tcp(40_000, 80, 101, 9).ack(501).write(&mut ack, b"data").unwrap();
    assert!(through(&mut engine, at(1), &ack)[0].ends_with(b"data"));
    let states = engine.counters().states;
    assert!(states.iter().any(|state| state.kind == crate::flow::TimeoutState::Established && state.count == 1));
}

#[test]
fn ipv4_clients_reach_ipv6_servers_and_long_datagrams_are_fragmented() {
    let mut engine = Engine::new(&servers_of(full(false, true, |_| {}), true));
    // The MTU of a route covers its first hop, not the whole path.
    for server in [0, 1].map(crate::ids::ServerId) {
        engine.apply(at(0), Change::Mtu { server, v6: true, mtu: 1500 }).unwrap();
    }
    let mut packet = Vec::new();
    PacketBuilder::ipv4(CLIENT, VIP, 60).udp(4000, 80).write(&mut packet, &[7; 1400]).unwrap();
    packet[6] = 0;
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::add(0, &packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let pieces = through(&mut engine, at(1), &packet);
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1280, 40 + 8 + 1408 - 1232]);
    let whole: Vec<u8> = pieces.iter().flat_map(|piece| &piece[48..]).copied().collect();
    let addresses = parse(&pieces[0]).unwrap().addresses;
    let sum = checksum::add(checksum::pseudo(&addresses, proto::UDP, whole.len()), &whole);
    assert_eq!((whole.len(), checksum::fold(sum)), (1408, 0xffff));
    let mut settings = servers_of(full(false, true, |_| {}), true);
    settings.pools[0].mtu = Some(1500);
    assert_eq!(through(&mut Engine::new(&settings), at(1), &packet)[0].len(), 1448, "the whole path is configured");
}

#[test]
fn packets_too_big_for_ipv4_are_fragmented_up_to_1280_bytes_and_reported_beyond() {
    for (payload, mtu) in [(1232, 1000), (1233, 1000), (1232, 1259), (1400, 1259), (1233, 1260)] {
        let mut settings = servers_of(full(true, false, |_| {}), false);
        settings.pools[0].mtu = Some(mtu);
        let mut engine = Engine::new(&settings);
        let mut packet = udp6(&vec![7; payload]);
        let verdict = engine.handle_packet(at(1), &mut packet, Meta::default());
        let out = sent(&mut engine, at(1));
        if payload == 1232 {
            assert!(matches!(verdict, Verdict::Emit { .. }), "{verdict:?}");
            assert!(out.len() == 2 && out.iter().all(|piece| piece.len() <= usize::from(mtu)), "{payload} {mtu}");
        } else {
            assert_eq!((verdict, out.len()), (Verdict::Consume(Consumed::TooBig), 1), "{payload} {mtu}");
            assert_eq!(out[0][44..48], 1280u32.to_be_bytes());
        }
    }
}

#[test]
fn errors_are_translated_between_families() {
    let mut engine = Engine::new(&servers_of(full(true, false, |_| {}), false));
    let there = through(&mut engine, at(1), &udp6(&[7; 1300])).remove(0);
    assert_eq!(there[6] & 0x40, 0x40, "too long to be fragmented");
    let mut error = Vec::new();
    let kind = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1300 };
    let kind = etherparse::Icmpv4Type::DestinationUnreachable(kind);
    let builder = PacketBuilder::ipv4([10, 0, 0, 254], SOURCE, 60).icmpv4(kind);
    builder.write(&mut error, &there[..100]).unwrap();
    let back = through(&mut engine, at(1), &error).remove(0);
    let parsed = parse(&back).unwrap();
    assert_eq!(parsed.transport, Transport::Icmp { kind: 2, code: 0 });
    assert_eq!((parsed.addresses.src(), parsed.addresses.dst()), (VIP6.into(), CLIENT6.into()));
    assert_eq!(u32::from_be_bytes(back[44..48].try_into().unwrap()), 1320);
    assert_eq!(back[48 + 8..48 + 44], udp6(&[7; 1300])[8..44]);
}

#[test]
fn echo_is_translated_between_families() {
    let mut settings = servers_of(full(true, false, |_| {}), false);
    settings.services[0].listen.push(crate::balance::Listen::one(VIP6.into(), Protocol::Icmp, 0, 65_535));
    let mut engine = Engine::new(&settings);
    let mut ping = Vec::new();
    PacketBuilder::ipv6(CLIENT6, VIP6, 60).icmpv6_echo_request(99, 1).write(&mut ping, b"hello").unwrap();
    let (src, id, server, _) = ends(&through(&mut engine, at(1), &ping)[0]);
    assert_eq!(src, IpAddr::from(SOURCE));
    let IpAddr::V4(server) = server else { panic!() };
    let mut pong = Vec::new();
    PacketBuilder::ipv4(server.octets(), SOURCE, 60).icmpv4_echo_reply(id, 1).write(&mut pong, b"hello").unwrap();
    let back = through(&mut engine, at(1), &pong);
    assert_eq!(ends(&back[0]), (VIP6.into(), 99, CLIENT6.into(), 99));
    assert!(matches!(parse(&back[0]).unwrap().addresses, Addresses::V6 { .. }) && back[0].ends_with(b"hello"));
}

#[test]
fn a_path_mtu_too_small_for_any_header_does_not_panic() {
    for (mtu, v6) in [0, 1, 8, 20, 28, 29, 47, 48, 60, 68, 575].into_iter().flat_map(|mtu| [(mtu, false), (mtu, true)])
    {
        let mut engine = Engine::new(&servers_of(full(!v6, v6, |_| {}), v6));
        for server in [0, 1].map(crate::ids::ServerId) {
            engine.apply(at(0), Change::Mtu { server, v6, mtu }).unwrap();
        }
        let mut packet = if v6 { first_fragment(proto::UDP, &[7; 1208]) } else { udp6(&[7; 1000]) };
        engine.handle_packet(at(1), &mut packet, Meta::default());
        sent(&mut engine, at(1));
    }
}

/// Returns the first IPv4 fragment of a longer packet.
fn first_fragment(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(CLIENT, VIP, 60).udp(0, 0).write(&mut packet, &transport[8..]).unwrap();
    packet[6..8].copy_from_slice(&[0x20, 0]);
    packet[9] = protocol;
    packet[20..28].copy_from_slice(&transport[..8]);
    if protocol == proto::UDP {
        packet[20..24].copy_from_slice(&[0x0f, 0xa0, 0, 80]);
    }
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::add(0, &packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn an_untranslatable_packet_is_answered_as_prohibited() {
    // The first fragment of an echo request over IPv4, and over IPv6 one with options after its Fragment header.
    let ping = first_fragment(proto::ICMP, &[&[8, 0, 0xf7, 0xff][..], &[0; 28]].concat());
    let mut datagram = udp6(&[7; 24]);
    datagram.splice(40..40, [60, 0, 0, 1, 0, 0, 0, 9, 17, 0, 1, 4, 0, 0, 0, 0]);
    (datagram[5], datagram[6]) = (48, 44);
    for (v6, packet, want) in [(true, ping, (3, 13)), (false, datagram, (1, 1))] {
        let mut settings = servers_of(full(!v6, v6, |_| {}), v6);
        settings.services[0].listen.push(crate::balance::Listen::one(VIP.into(), Protocol::Icmp, 0, 65_535));
        for reports in [true, false] {
            settings.answers.other_protocol = reports;
            let mut engine = Engine::new(&settings);
            let verdict = engine.handle_packet(at(1), &mut packet.clone(), Meta::default());
            let reported: Vec<_> = sent(&mut engine, at(1)).iter().map(|p| parse(p).unwrap().transport).collect();
            if reports {
                assert_eq!(verdict, Verdict::Consume(Consumed::Untranslatable));
                assert_eq!(reported, [Transport::Icmp { kind: want.0, code: want.1 }]);
            } else {
                assert_eq!((verdict, reported.len()), (Verdict::Drop(Reason::Untranslatable), 0));
            }
            assert_eq!(engine.counters().flows, 0);
        }
    }
}

#[test]
fn an_untranslatable_packet_leaves_no_flow_and_no_port_in_use() {
    let mut engine = Engine::new(&servers_of(full(false, true, |_| {}), true));
    let mut transport = [7; 64];
    transport[4..8].fill(0);
    let mut packet = first_fragment(proto::UDP, &transport);
    let verdict = engine.handle_packet(at(1), &mut packet, Meta::default());
    assert_eq!(verdict, Verdict::Drop(Reason::Untranslatable));
    assert_eq!((engine.counters().flows, engine.nat_pools().iter().map(|row| row.used).sum::<u32>()), (0, 0));
}

#[test]
fn a_syn_in_a_first_fragment_gets_its_segment_size_lowered_across_the_families() {
    let mut settings = servers_of(full(false, true, |_| {}), true);
    settings.services[0].mss = crate::balance::Mss::To(1000);
    let mut engine = Engine::new(&settings);
    let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
    let syn = tcp(CLIENT, 4000, VIP, 80, 1).syn().options(&options).unwrap();
    let mut packet = bytes(syn, &[7; 40]);
    packet[6..8].copy_from_slice(&[0x20, 0]);
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::add(0, &packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let out = through(&mut engine, at(1), &packet);
    let options = &out[0][40 + 8 + 20..][..4];
    assert_eq!(options, [2, 4, 3, 232], "1,000 bytes");
}

#[test]
fn a_protocol_without_ports_goes_to_a_server_of_its_own_family() {
    let mut settings = full(true, true, |_| {});
    settings.services[0].listen.push(crate::balance::Listen::one(VIP.into(), Protocol::Ip(47), 0, 0));
    settings.servers[0].v4 = None;
    let mut engine = Engine::new(&settings);
    for last in 1..=20 {
        let mut packet = bytes(tcp([198, 51, 100, last], 40_000, VIP, 80, 100).syn(), b"");
        packet[9] = 47;
        packet[10..12].fill(0);
        let sum = !checksum::fold(checksum::add(0, &packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let verdict = engine.handle_packet(at(1), &mut packet, Meta::default());
        // One source address has one flow to one server address; other clients get an error.
        let want = if last == 1 {
            matches!(verdict, Verdict::Forward { .. })
        } else {
            verdict == Verdict::Drop(Reason::ReturnKeyTaken)
        };
        assert!(want, "{last} {verdict:?}");
    }
}

#[test]
fn fragmentable_segments_are_resized_if_translation_makes_them_too_long() {
    for (dont_fragment, want) in [(false, 1280 - 60), (true, 1460)] {
        let mut engine = Engine::new(&servers_of(full(false, true, |_| {}), true));
        let mut syn = bytes(tcp(CLIENT, 40_000, VIP, 80, 100).syn(), b"");
        engine.handle_packet(at(1), &mut syn, Meta::default());
        sent(&mut engine, at(1));
        let mut packet = bytes(tcp(CLIENT, 40_000, VIP, 80, 101).ack(1), &[7; 5000]);
        packet[6] = if dont_fragment { 0x40 } else { 0 };
        packet[10..12].fill(0);
        let sum = !checksum::fold(checksum::add(0, &packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let meta = Meta { partial_checksum: true, gso_size: 1460, ..Meta::default() };
        let verdict = engine.handle_packet(at(1), &mut packet, meta);
        assert!(matches!(verdict, Verdict::Emit { .. }), "{verdict:?}");
        let mut buffer = vec![0; 65_535];
        let (len, meta) = engine.poll_transmit(at(1), &mut buffer).unwrap();
        assert_eq!((len, meta.gso_size), (5060, want));
    }
}
