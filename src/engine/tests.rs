//! Packet-by-packet tests of the engine.

use super::testing::{CLIENT, VIP, at, bytes, send, settings, syn, tcp};
use super::*;
use crate::flow::TICK;
use crate::packet::parse;
use crate::packet::{Side, Transport};
use crate::time::Duration;

use etherparse::PacketBuilder;
use std::net::IpAddr;

/// Opens a connection from `port` and returns the last octet of its server's address.
fn establish(engine: &mut Engine, now: Instant, port: u16) -> u8 {
    let mut packet = syn(port);
    assert!(matches!(send(engine, now, &mut packet), Verdict::Forward { .. }));
    let server = [packet[16], packet[17], packet[18], packet[19]];
    let mut answer = bytes(tcp(server, 8080, CLIENT, port, 500).syn().ack(101), b"");
    assert!(matches!(send(engine, now, &mut answer), Verdict::Forward { .. }));
    assert_eq!(parse(&answer).unwrap().addresses.src(), IpAddr::from(VIP));
    let mut ack = bytes(tcp(CLIENT, port, VIP, 80, 101).ack(501), b"");
    assert!(matches!(send(engine, now, &mut ack), Verdict::Forward { .. }));
    server[3]
}

#[test]
fn connections_are_distributed_and_each_stays_on_its_server() {
    let mut engine = Engine::new(&settings(3, 100));
    for port in 1..=9 {
        let server = establish(&mut engine, at(1), port);
        assert_eq!(u16::from(server), (port - 1) % 3 + 1);
        let mut data = bytes(tcp(CLIENT, port, VIP, 80, 101).ack(501), b"data");
        send(&mut engine, at(2), &mut data);
        assert_eq!(data[19], server);
    }
    let counters = engine.counters();
    assert!(counters.add_up());
    assert_eq!((counters.flows, counters.translated, counters.packets_in), (9, 36, 36));
}

#[test]
fn a_full_table_takes_syns_and_no_handshake_until_a_flow_gives_way() {
    let mut engine = Engine::new(&settings(1, 2));
    establish(&mut engine, at(0), 1);
    establish(&mut engine, at(0), 2);
    assert_eq!(engine.poll_event(), None);
    // The handshake of a third needs room only at its end.
    let mut third = syn(3);
    assert!(matches!(send(&mut engine, at(0), &mut third), Verdict::Forward { .. }));
    let mut answer = bytes(tcp([10, 0, 2, 1], 8080, CLIENT, 3, 500).syn().ack(101), b"");
    assert!(matches!(send(&mut engine, at(0), &mut answer), Verdict::Forward { .. }));
    let ack = || bytes(tcp(CLIENT, 3, VIP, 80, 101).ack(501), b"");
    assert_eq!(send(&mut engine, at(0), &mut ack()), Verdict::Drop(Reason::TableFull));
    assert_eq!(engine.poll_event(), Some(Event::Full { what: Short::Table, max: 2 }));
    let counters = engine.counters();
    assert_eq!((counters.flows, counters.half_open), (3, 1));
    // The client sends again; the first has been idle for five minutes.
    send(&mut engine, at(200), &mut bytes(tcp(CLIENT, 2, VIP, 80, 101).ack(501), b""));
    assert_eq!(send(&mut engine, at(230), &mut ack()), Verdict::Drop(Reason::TableFull));
    assert_eq!(engine.pressures(at(230))[0].refused, 2);
    establish(&mut engine, at(301), 4);
    let counters = engine.counters();
    assert_eq!((counters.flows, counters.half_open), (3, 1));
    let gave_way: Vec<u64> = counters.gave_way.iter().map(|c| c.count).collect();
    assert_eq!(gave_way, [0, 0, 0, 1, 0]);
    assert!(counters.add_up());
    (0..9).for_each(|_| engine.handle_timeout(at(362)));
    let gave_way = counters.gave_way;
    assert_eq!(
        engine.poll_event(),
        Some(Event::Relieved { what: Short::Table, for_ms: 301_000, gave_way, refused: 2 })
    );
    assert_eq!((engine.poll_event(), engine.pressures(at(362))), (None, Vec::new()));
}

#[test]
fn a_thousand_settled_flows_per_second_give_way_and_no_more() {
    let mut engine = Engine::new(&settings(1, 1100));
    for port in 1..=1100 {
        establish(&mut engine, at(0), port);
    }
    let handshake = |engine: &mut Engine, now, port| {
        let mut answer = bytes(tcp([10, 0, 2, 1], 8080, CLIENT, port, 500).syn().ack(101), b"");
        send(engine, now, &mut syn(port));
        send(engine, now, &mut answer);
        send(engine, now, &mut bytes(tcp(CLIENT, port, VIP, 80, 101).ack(501), b""))
    };
    let refused = |verdict: &Verdict| *verdict == Verdict::Drop(Reason::TableFull);
    let now = at(400);
    let verdicts: Vec<Verdict> = (2000..3010).map(|port| handshake(&mut engine, now, port)).collect();
    assert_eq!(verdicts.iter().position(refused), Some(1000));
    assert_eq!(verdicts.iter().filter(|verdict| refused(verdict)).count(), 10);
    // One per millisecond from then on.
    let later = |ms| now + Duration::from_millis(ms);
    let verdicts =
        [(3, 4000), (3, 4001), (3, 4002), (3, 4003)].map(|(ms, port)| handshake(&mut engine, later(ms), port));
    assert_eq!(verdicts.iter().map(refused).collect::<Vec<_>>(), [false, false, false, true]);
}

#[test]
fn an_established_flow_expires_after_7440_seconds() {
    let mut engine = Engine::new(&settings(1, 2));
    establish(&mut engine, at(0), 1);
    assert!(engine.poll_timeout() < Some(at(7440) + 2 * TICK));
    (0..9).for_each(|_| engine.handle_timeout(at(7440)));
    assert_eq!(engine.counters().flows, 1);
    (0..9).for_each(|_| engine.handle_timeout(at(7440) + 2 * TICK));
    assert_eq!((engine.counters().flows, engine.poll_timeout()), (0, None));
}

#[test]
fn a_packet_without_a_flow_is_answered_with_a_reset_within_the_limit() {
    let mut engine = Engine::new(&settings(1, 2));
    let mut buf = [0; 100];
    let data = || bytes(tcp(CLIENT, 9, VIP, 80, 100).ack(7), b"x");
    assert_eq!(send(&mut engine, at(0), &mut data()), Verdict::Consume(Consumed::Reset));
    let (len, _) = engine.poll_transmit(at(0), &mut buf).unwrap();
    let reset = parse(&buf[..len]).unwrap();
    assert!(matches!(reset.transport, Transport::Tcp { src: 80, dst: 9, seq: 7, .. }));
    let mut sent = 1;
    while send(&mut engine, at(0), &mut data()) == Verdict::Consume(Consumed::Reset) {
        engine.poll_transmit(at(0), &mut buf).unwrap();
        sent += 1;
    }
    assert_eq!(sent, 1000);
    assert_eq!(send(&mut engine, at(1), &mut data()), Verdict::Consume(Consumed::Reset));
    assert!(engine.counters().add_up());
}

#[test]
fn an_echo_request_to_a_service_address_is_answered_unless_its_checksum_is_bad() {
    let mut engine = Engine::new(&settings(1, 2));
    let mut ping = Vec::new();
    PacketBuilder::ipv4(CLIENT, VIP, 3).icmpv4_echo_request(5, 1).write(&mut ping, b"abc").unwrap();
    assert_eq!(send(&mut engine, at(0), &mut ping.clone()), Verdict::Consume(Consumed::Echo));
    let mut buf = [0; 100];
    let (len, _) = engine.poll_transmit(at(0), &mut buf).unwrap();
    assert_eq!(parse(&buf[..len]).unwrap().transport, Transport::Echo { request: false, id: 5 });
    ping[30] ^= 1;
    assert_eq!(send(&mut engine, at(0), &mut ping), Verdict::Drop(Reason::BadIcmpChecksum));
}

#[test]
fn an_icmp_service_balances_echo_by_its_identifier() {
    let mut engine = Engine::new(&settings(2, 9));
    for (id, server) in [(1, 1), (2, 2), (1, 1)] {
        let mut ping = Vec::new();
        PacketBuilder::ipv4(CLIENT, [192, 0, 2, 90], 3).icmpv4_echo_request(id, 1).write(&mut ping, b"").unwrap();
        assert!(matches!(send(&mut engine, at(0), &mut ping), Verdict::Forward { .. }));
        assert_eq!(ping[19], server);
        let mut pong = Vec::new();
        PacketBuilder::ipv4([10, 0, 2, server], CLIENT, 3).icmpv4_echo_reply(id, 1).write(&mut pong, b"").unwrap();
        let verdict = send(&mut engine, at(0), &mut pong);
        assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Translated { from: Side::Server, .. }, .. }));
        assert_eq!(pong[15], 90);
    }
}

#[test]
fn a_taken_return_key_moves_to_the_next_server_and_is_refused_when_none_is_left() {
    let mut settings = settings(2, 9);
    settings.services[0].listen[0].last_port = 90;
    let mut engine = Engine::new(&settings);
    let mut server_of = |port: u16| {
        let mut packet = bytes(tcp(CLIENT, 5, VIP, port, 100).syn(), b"");
        (send(&mut engine, at(0), &mut packet), packet[19])
    };
    assert_eq!([server_of(80).1, server_of(81).1], [1, 2]);
    assert_eq!(server_of(82).0, Verdict::Drop(Reason::ReturnKeyTaken));
}

#[test]
fn foreign_packets_pass_and_forbidden_ones_are_dropped_with_a_reason() {
    let mut settings = settings(1, 9);
    settings.answers.no_service = false;
    let mut engine = Engine::new(&settings);
    let cases = [
        (tcp(CLIENT, 5, [8, 8, 8, 8], 80, 1).syn(), None),
        (tcp([10, 0, 2, 1], 8081, CLIENT, 5, 1).syn(), None),
        (tcp([10, 0, 2, 1], 8080, CLIENT, 5, 1).syn().ack(1), None),
        (tcp(CLIENT, 5, VIP, 81, 1).syn(), Some(Reason::NoService)),
        (tcp(CLIENT, 0, VIP, 80, 1).syn(), Some(Reason::BadPort)),
        (tcp(VIP, 80, VIP, 80, 1).syn(), Some(Reason::BadSource)),
        (tcp([192, 0, 2, 90], 5, VIP, 80, 1).syn(), Some(Reason::BadSource)),
        (tcp([0, 0, 0, 0], 5, VIP, 80, 1).syn(), Some(Reason::BadSource)),
        (tcp([127, 0, 0, 1], 5, VIP, 80, 1).syn(), Some(Reason::BadSource)),
        (tcp([255, 255, 255, 255], 5, VIP, 80, 1).syn(), Some(Reason::BadSource)),
        (tcp(CLIENT, 5, VIP, 80, 1).rst(), Some(Reason::TcpNoFlow)),
    ];
    for (i, (builder, want)) in cases.into_iter().enumerate() {
        let original = bytes(builder, b"");
        let mut packet = original.clone();
        let want = match want {
            None => Verdict::Forward { len: 40, why: Forwarded::Foreign },
            Some(reason) => Verdict::Drop(reason),
        };
        assert_eq!(send(&mut engine, at(0), &mut packet), want, "case {i}");
        assert_eq!(packet, original, "case {i}");
    }
    assert!(engine.counters().add_up());
    assert_eq!(engine.counters().flows, 0);
}

#[test]
fn a_syn_on_a_closed_flow_opens_another_and_a_repeated_syn_does_not() {
    let mut engine = Engine::new(&settings(2, 9));
    send(&mut engine, at(0), &mut syn(1));
    send(&mut engine, at(1), &mut syn(1));
    assert_eq!(engine.counters().flows_opened, 1);
    establish(&mut engine, at(2), 1);
    send(&mut engine, at(3), &mut bytes(tcp(CLIENT, 1, VIP, 80, 101).fin().ack(501), b""));
    send(&mut engine, at(3), &mut bytes(tcp([10, 0, 2, 1], 8080, CLIENT, 1, 501).fin().ack(102), b""));
    send(&mut engine, at(4), &mut syn(1));
    assert_eq!(engine.counters().flows_opened, 1);
    let mut new = bytes(tcp(CLIENT, 1, VIP, 80, 5000).syn(), b"");
    send(&mut engine, at(4), &mut new);
    assert_eq!(new[19], 2);
    let counters = engine.counters();
    assert_eq!((counters.flows, counters.flows_opened), (1, 2));
    assert_eq!(counters.flows_ended[Ended::Replaced as usize].count, 1);
}

#[test]
fn udp_in_both_directions_and_its_timeouts() {
    let mut engine = Engine::new(&settings(1, 9));
    let udp = |src, sport, dst, dport| {
        let mut out = Vec::new();
        PacketBuilder::ipv4(src, dst, 9).udp(sport, dport).write(&mut out, b"hi").unwrap();
        out
    };
    send(&mut engine, at(0), &mut udp(CLIENT, 5, VIP, 80));
    assert_eq!(engine.counters().states[crate::flow::TimeoutState::UdpOneWay as usize].count, 1);
    let mut answer = udp([10, 0, 2, 1], 8080, CLIENT, 5);
    send(&mut engine, at(1), &mut answer);
    assert_eq!(&answer[12..16], &VIP);
    assert_eq!(engine.counters().states[crate::flow::TimeoutState::UdpTwoWay as usize].count, 1);
    engine.handle_timeout(at(301));
    assert_eq!(engine.counters().flows, 1);
    engine.handle_timeout(at(302));
    assert_eq!(engine.counters().flows, 0);
}

#[test]
fn flows_are_listed_reported_killed_and_walked_in_parts() {
    let mut engine = Engine::new(&settings(2, 99));
    engine.report_flows(true);
    for port in 1..=10 {
        send(&mut engine, at(0), &mut syn(port));
    }
    let mut rows = Vec::new();
    let query = FlowQuery { server: Some("s2".into()), ..FlowQuery::default() };
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let before = rows.len();
        cursor = engine.flows(at(3), &query, from, 2, &mut rows);
        assert!(rows.len() <= before + 2);
    }
    assert_eq!(rows.iter().map(|row| row.client.port()).collect::<Vec<_>>(), [2, 4, 6, 8, 10]);
    assert_eq!((rows[0].age_ms, rows[0].packets_in, rows[0].server_address.port()), (3000, 1, 8080));
    assert!(matches!(engine.poll_event(), Some(Event::FlowOpened(row)) if row.client.port() == 1));
    engine.apply(at(3), Change::Kill { flow: rows[0].id }).unwrap();
    assert_eq!(engine.apply(at(3), Change::Kill { flow: rows[0].id }), Err(Refused::NoSuchFlow(rows[0].id)));
    assert_eq!(engine.servers(at(2))[1].flows, 4);
}

#[test]
fn a_super_packet_counts_as_the_packets_it_represents() {
    let mut engine = Engine::new(&settings(1, 9));
    establish(&mut engine, at(0), 1);
    let mut packet = bytes(tcp(CLIENT, 1, VIP, 80, 101).ack(501), &[7; 4001]);
    let meta = Meta { gso_size: 1000, ..Meta::default() };
    engine.handle_packet(at(0), &mut packet, meta);
    assert_eq!(engine.counters().translated, 3 + 5);
    assert!(engine.counters().add_up());
}
