//! Tests of what spoofed packets take from clients: nothing that a client has to prove itself for.

use super::testing::{CLIENT, VIP, assert_foreseen, at, bytes, settings, tcp};
use super::*;
use crate::balance::{Admin, Algorithm, Prefixes, Stickiness, UnknownTcp};
use crate::config::Settings;
use crate::ids::ServerId;
use crate::policy::{Action, Limits, RuleSettings};
use crate::time::Duration;
use etherparse::PacketBuilder;
use std::collections::BTreeSet;
use std::net::IpAddr;

fn hand(engine: &mut Engine, now: Instant, packet: &[u8]) -> (Verdict, Vec<u8>) {
    let mut packet = packet.to_vec();
    let foreseen = engine.foresee(now, &packet, Meta::default());
    let verdict = engine.handle_packet(now, &mut packet, Meta::default());
    assert_foreseen(&foreseen, &verdict, &packet);
    (verdict, packet)
}

/// A SYN of a client that nobody foresees, so that a flood is quick; returns the last octet of its server's address.
fn syn(engine: &mut Engine, now: Instant, client: [u8; 4], port: u16) -> Result<u8, Verdict> {
    let mut packet = bytes(tcp(client, port, VIP, 80, 100).syn(), b"");
    match engine.handle_packet(now, &mut packet, Meta::default()) {
        Verdict::Forward { .. } => Ok(packet[19]),
        other => Err(other),
    }
}

/// The rest of the handshake.
fn complete(engine: &mut Engine, now: Instant, client: [u8; 4], port: u16, server: u8) -> Result<(), Verdict> {
    let answer = bytes(tcp([10, 0, 2, server], 8080, client, port, 500).syn().ack(101), b"");
    assert!(matches!(hand(engine, now, &answer).0, Verdict::Forward { .. }));
    match hand(engine, now, &bytes(tcp(client, port, VIP, 80, 101).ack(501), b"")).0 {
        Verdict::Forward { .. } => Ok(()),
        other => Err(other),
    }
}

fn connect(engine: &mut Engine, now: Instant, client: [u8; 4], port: u16) -> Result<u8, Verdict> {
    let server = syn(engine, now, client, port)?;
    complete(engine, now, client, port, server).map(|()| server)
}

/// Both ends close a connection that [`connect`] opened.
fn close(engine: &mut Engine, now: Instant, client: [u8; 4], port: u16, server: u8) {
    for segment in [
        tcp(client, port, VIP, 80, 101).fin().ack(501),
        tcp([10, 0, 2, server], 8080, client, port, 501).fin().ack(102),
    ] {
        assert!(matches!(hand(engine, now, &bytes(segment, b"")).0, Verdict::Forward { .. }));
    }
}

fn datagram(src: [u8; 4], src_port: u16, dst: [u8; 4], dst_port: u16) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4(src, dst, 64).udp(src_port, dst_port).write(&mut out, b"datagram").unwrap();
    out
}

/// The address of one of many strangers.
fn stranger(n: u32) -> [u8; 4] {
    (0x0b00_0000 + n).to_be_bytes()
}

fn limited(limits: Limits) -> Settings {
    let mut settings = settings(2, 1000);
    settings.policy.rules = vec![RuleSettings { limits, ..RuleSettings::new("all", Action::Balance(None)) }];
    settings
}

#[test]
fn spoofed_syns_use_up_no_limit_on_flows() {
    let limits = Limits { flows: Some(15), client_flows: Some(10), ..Limits::default() };
    let mut settings = limited(limits);
    settings.servers.iter_mut().for_each(|server| server.max_flows = Some(10));
    let mut engine = Engine::new(&settings);
    for n in 0..5000 {
        assert!(syn(&mut engine, at(0), stranger(n), 1).is_ok());
    }
    // Even in the name of the client itself.
    for port in 1..=100 {
        assert!(syn(&mut engine, at(0), CLIENT, port).is_ok());
    }
    let opened = (1000..1020).filter(|port| connect(&mut engine, at(1), CLIENT, *port).is_ok()).count();
    assert_eq!(opened, 10, "client-flows");
    let opened = (0..20).filter(|n| connect(&mut engine, at(1), [9, 9, 9, *n], 1).is_ok()).count();
    assert_eq!(opened, 5, "flows");
    assert_eq!(syn(&mut engine, at(1), [9, 9, 9, 99], 1), Err(Verdict::Drop(Reason::RuleFlows)));
    let rule = &engine.rules()[0];
    assert_eq!((rule.flows, rule.proven, rule.refused), (5100 + 15, 15, 10 + 15 + 1));
    let proven: Vec<_> = engine.servers(at(1)).iter().map(|row| row.proven).collect();
    assert_eq!(proven.iter().sum::<u64>(), 15);
}

#[test]
fn a_server_has_no_more_proven_flows_than_it_may() {
    let mut settings = settings(2, 1000);
    settings.servers.iter_mut().for_each(|server| server.max_flows = Some(10));
    let mut engine = Engine::new(&settings);
    // A burst is spread over both as long as they have room for all of it.
    let mut asked: Vec<_> = (0..20).map(|port| syn(&mut engine, at(0), CLIENT, 1000 + port).unwrap()).collect();
    assert_eq!(asked.iter().filter(|server| **server == 1).count(), 10);
    asked.extend((20..40).map(|port| syn(&mut engine, at(0), CLIENT, 1000 + port).unwrap()));
    let mut late = 0;
    for (port, server) in (1000..).zip(&asked) {
        match complete(&mut engine, at(0), CLIENT, port, *server) {
            Ok(()) => {}
            Err(refused) => {
                assert_eq!(refused, Verdict::Drop(Reason::ServerFlows));
                late += 1;
            }
        }
    }
    assert_eq!(late, 20);
    assert_eq!(engine.servers(at(0)).iter().map(|row| (row.flows, row.proven)).collect::<Vec<_>>(), [(20, 10); 2]);
    assert!(matches!(syn(&mut engine, at(0), CLIENT, 1), Err(Verdict::Drop(Reason::NoServer))));
}

#[test]
fn eighty_thousand_spoofed_sources_do_not_lift_a_clients_limit() {
    let mut engine = Engine::new(&limited(Limits { client_flows: Some(5), ..Limits::default() }));
    for n in 0..80_000 {
        let mut packet = datagram(stranger(n), 1, VIP, 80);
        assert!(matches!(engine.handle_packet(at(0), &mut packet, Meta::default()), Verdict::Forward { .. }));
    }
    let opened = (1000..1060).filter(|port| connect(&mut engine, at(1), CLIENT, *port).is_ok()).count();
    assert_eq!(opened, 5);
}

#[test]
fn a_burst_of_handshakes_does_not_exceed_a_limit_and_those_left_over_end_with_resets() {
    let mut engine = Engine::new(&limited(Limits { client_flows: Some(5), ..Limits::default() }));
    let servers: Vec<_> = (1000..1060).map(|port| syn(&mut engine, at(0), CLIENT, port).unwrap()).collect();
    let opened: Vec<u16> = (1000..1060)
        .zip(&servers)
        .filter(|(port, server)| complete(&mut engine, at(1), CLIENT, *port, **server).is_ok())
        .map(|(port, _)| port)
        .collect();
    assert_eq!(opened, [1000, 1001, 1002, 1003, 1004]);
    let again = bytes(tcp(CLIENT, 1005, VIP, 80, 101).ack(501), b"data");
    assert_eq!(hand(&mut engine, at(2), &again).0, Verdict::Drop(Reason::ClientFlows));
    // Once one of the five has ended, the client's next segment completes the handshake.
    let mut rows = Vec::new();
    engine.flows(at(3), &FlowQuery::default(), Cursor::default(), 1000, &mut rows);
    let id = |port: u16| rows.iter().find(|row| row.client.port() == port).expect("a flow").id;
    engine.apply(at(3), Change::Kill { flow: id(1000) }).unwrap();
    assert!(matches!(hand(&mut engine, at(3), &again).0, Verdict::Forward { .. }));
    let resets = |engine: &mut Engine| {
        let mut buffer = [0; 2000];
        std::iter::from_fn(|| engine.poll_transmit(at(4), &mut buffer)).count()
    };
    assert_eq!(resets(&mut engine), 0);
    engine.apply(at(4), Change::Kill { flow: id(1010) }).unwrap();
    assert!(resets(&mut engine) >= 2, "to the client and to the server");
    engine.handle_timeout(at(300));
    assert!(resets(&mut engine) >= 53 * 2);
    assert_eq!(engine.counters().half_open, 0);
}

#[test]
fn a_conversation_counts_and_a_query_does_not() {
    let mut engine = Engine::new(&limited(Limits { client_flows: Some(2), ..Limits::default() }));
    let servers: Vec<u8> =
        (1000..1010).map(|port| hand(&mut engine, at(0), &datagram(CLIENT, port, VIP, 80)).1[19]).collect();
    for (port, server) in (1000..).zip(servers) {
        let answer = datagram([10, 0, 2, server], 8080, CLIENT, port);
        // Neither an answer nor a stream of them proves anything of the client.
        for _ in 0..3 {
            assert!(matches!(hand(&mut engine, at(0), &answer).0, Verdict::Forward { .. }));
        }
        let goes_on = matches!(hand(&mut engine, at(1), &datagram(CLIENT, port, VIP, 80)).0, Verdict::Forward { .. });
        assert_eq!(goes_on, port < 1002, "{port}");
    }
    assert_eq!(hand(&mut engine, at(1), &datagram(CLIENT, 9, VIP, 80)).0, Verdict::Drop(Reason::ClientFlows));
    assert_eq!((engine.rules()[0].flows, engine.rules()[0].proven), (10, 2));
}

fn sticky(servers: u8, slots: u32) -> Settings {
    let mut settings = settings(servers, 10_000);
    let idle = Duration::from_secs(300);
    settings.services[0].sticky = Some(Stickiness { prefixes: Prefixes::ADDRESS, idle, slots, group: 0 });
    settings
}

#[test]
fn a_hundred_thousand_spoofed_syns_make_no_sticky_client_leave_its_server() {
    let mut engine = Engine::new(&sticky(5, 8));
    let clients: Vec<[u8; 4]> = (1..=8).map(|n| [198, 51, 100, n]).collect();
    let servers: Vec<u8> = clients.iter().map(|client| connect(&mut engine, at(0), *client, 1000).unwrap()).collect();
    assert_eq!(servers.iter().collect::<BTreeSet<_>>().len(), 5);
    // Half of them are idle.
    for (client, server) in clients.iter().zip(&servers).take(4) {
        close(&mut engine, at(1), *client, 1000, *server);
    }
    engine.handle_timeout(at(260));
    for n in 0..100_000 {
        syn(&mut engine, at(261), stranger(n), 1).unwrap();
    }
    let back: Vec<u8> = clients.iter().map(|client| connect(&mut engine, at(262), *client, 2000).unwrap()).collect();
    assert_eq!(back, servers);
}

#[test]
fn the_first_connections_of_a_client_go_to_one_server() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::Random] {
        let mut settings = sticky(5, 1000);
        settings.services[0].algorithm = algorithm;
        let mut engine = Engine::new(&settings);
        for n in 0..20 {
            let client = [198, 51, 100, n];
            let mut servers = BTreeSet::new();
            for port in 0..6 {
                servers.insert(syn(&mut engine, at(n.into()), client, 1000 + port).unwrap());
                // A flood goes on meanwhile.
                for k in 0..20 {
                    let other = stranger(u32::from(n) * 1000 + u32::from(port) * 20 + k);
                    syn(&mut engine, at(n.into()), other, 1).unwrap();
                }
            }
            let server = servers.pop_first().expect("a server");
            assert!(servers.is_empty(), "{algorithm:?}: {server} and {servers:?}");
            (0..6).for_each(|port| complete(&mut engine, at(n.into()), client, 1000 + port, server).unwrap());
            assert_eq!(syn(&mut engine, at(n.into()), client, 2000), Ok(server));
        }
    }
}

#[test]
fn a_burst_of_syns_is_spread_by_least_connections() {
    let mut settings = settings(4, 1000);
    settings.services[0].algorithm = Algorithm::LeastConnections;
    let mut engine = Engine::new(&settings);
    let mut of = [0; 5];
    (0..100).for_each(|port| of[usize::from(syn(&mut engine, at(0), CLIENT, 1000 + port).unwrap())] += 1);
    assert_eq!(of, [0, 25, 25, 25, 25]);
}

#[test]
fn segments_that_are_adopted_count_once_both_ends_have_confirmed_them_and_give_way_until_then() {
    let mut settings = limited(Limits { flows: Some(30), ..Limits::default() });
    (settings.table.max_flows, settings.services[0].unknown_tcp) = (20, UnknownTcp::Adopt);
    let mut engine = Engine::new(&settings);
    let adopted =
        |engine: &mut Engine, client, ack| hand(engine, at(1), &bytes(tcp(client, 1, VIP, 80, 100).ack(ack), b"x"));
    for n in 0..100 {
        assert!(matches!(adopted(&mut engine, stranger(n), 1).0, Verdict::Forward { .. }));
    }
    assert_eq!((engine.counters().flows, engine.rules()[0].proven), (20, 0));
    for port in 0..20 {
        assert!(connect(&mut engine, at(1), CLIENT, 1000 + port).is_ok());
    }
    assert_eq!((engine.counters().flows, engine.rules()[0].proven), (20, 20), "all adopted ones gave way");
    assert_eq!(adopted(&mut engine, stranger(1), 1).0, Verdict::Drop(Reason::TableFull));
    // One that both ends confirm counts.
    let mut engine = Engine::new(&settings);
    let server = adopted(&mut engine, CLIENT, 500).1[19];
    let reply = bytes(tcp([10, 0, 2, server], 8080, CLIENT, 1, 500).ack(101), b"there");
    assert!(matches!(hand(&mut engine, at(1), &reply).0, Verdict::Forward { .. }));
    assert_eq!(engine.rules()[0].proven, 0);
    assert!(matches!(
        hand(&mut engine, at(1), &bytes(tcp(CLIENT, 1, VIP, 80, 101).ack(505), b"")).0,
        Verdict::Forward { .. }
    ));
    assert_eq!(engine.rules()[0].proven, 1);
}

#[test]
fn a_syn_is_a_sign_of_trouble_no_sooner_than_half_a_second_after_the_first() {
    use crate::balance::Passive;
    let mut settings = settings(1, 10);
    let second = Duration::from_secs(1);
    settings.pools[0].passive = Some(Passive { failures: 1, within: second, hold: second, longest: second });
    let ms = |ms: u64| Instant::from_nanos(ms * 1_000_000);
    for begin in [0, 1, 30, 66] {
        let mut engine = Engine::new(&settings);
        // The first flow of all begins a tick.
        syn(&mut engine, ms(1000), CLIENT, 1).unwrap();
        syn(&mut engine, ms(1000 + begin), CLIENT, 2).unwrap();
        syn(&mut engine, ms(1000 + begin + 499), CLIENT, 2).unwrap();
        assert_eq!(engine.servers(ms(1000 + begin + 499))[0].passive_hold_ms, None, "{begin}");
        syn(&mut engine, ms(1000 + begin + 570), CLIENT, 2).unwrap();
        assert_eq!(engine.servers(ms(1000 + begin + 570))[0].passive_hold_ms, Some(1000), "{begin}");
    }
}

fn rows(engine: &Engine, now: Instant) -> Vec<FlowRow> {
    let mut rows = Vec::new();
    engine.flows(now, &FlowQuery::default(), Cursor::default(), 100, &mut rows);
    rows
}

/// Two servers that may have one flow each. Clients 1 and 2, at different servers, are conversations; client 3 is at the
/// server of client 1, and has been answered. Returns the last octets of these two servers.
fn full_servers() -> (Engine, [u8; 2]) {
    let mut settings = settings(2, 100);
    settings.servers.iter_mut().for_each(|server| server.max_flows = Some(1));
    let mut engine = Engine::new(&settings);
    let ask = |engine: &mut Engine, n| hand(engine, at(0), &datagram([198, 51, 100, n], 9, VIP, 80)).1[19];
    let servers = [1, 2, 3].map(|n| ask(&mut engine, n));
    assert_eq!((servers[0], servers[0] != servers[1]), (servers[2], true));
    for (n, server) in (1..).zip(servers) {
        hand(&mut engine, at(1), &datagram([10, 0, 2, server], 8080, [198, 51, 100, n], 9));
    }
    (1..=2).for_each(|n| _ = ask(&mut engine, n));
    (engine, [servers[0], servers[1]])
}

#[test]
fn datagrams_of_a_client_whose_server_is_full_go_to_one_that_has_room() {
    let (mut engine, [own, other]) = full_servers();
    let asks = datagram([198, 51, 100, 3], 9, VIP, 80);
    assert_eq!(hand(&mut engine, at(2), &asks).0, Verdict::Drop(Reason::ServerFlows));
    // The flow at the other server ends.
    let ended = rows(&engine, at(3)).into_iter().find(|flow| flow.client.ip() == IpAddr::from([198, 51, 100, 2]));
    engine.apply(at(3), Change::Kill { flow: ended.unwrap().id }).unwrap();
    assert_eq!(hand(&mut engine, at(4), &asks).1[16..20], [10, 0, 2, other]);
    hand(&mut engine, at(4), &datagram([10, 0, 2, other], 8080, [198, 51, 100, 3], 9));
    assert!(matches!(hand(&mut engine, at(5), &asks).0, Verdict::Forward { .. }));
    let proven: Vec<_> = engine.servers(at(5)).iter().map(|server| (server.flows, server.proven)).collect();
    assert_eq!(proven, [(1, 1), (1, 1)], "{own}");
}

#[test]
fn a_server_does_not_keep_the_flow_of_a_client_that_it_may_not_have() {
    let (mut engine, [own, _]) = full_servers();
    let asks = datagram([198, 51, 100, 3], 9, VIP, 80);
    // It keeps its flows until the client has sent again to no effect.
    let mut now = 0;
    let mut talks = |engine: &mut Engine, asks: Option<&[u8]>| {
        for _ in 0..15 {
            now += 25;
            engine.handle_timeout(at(now));
            for n in [1, 2] {
                hand(engine, at(now), &datagram([198, 51, 100, n], 9, VIP, 80));
            }
            hand(engine, at(now), &datagram([10, 0, 2, own], 8080, [198, 51, 100, 3], 9));
            if let Some(asks) = asks {
                assert!(matches!(hand(engine, at(now), asks).0, Verdict::Drop(_)));
            }
        }
        rows(engine, at(now)).iter().any(|flow| flow.client.ip() == IpAddr::from([198, 51, 100, 3]))
    };
    assert!(talks(&mut engine, None));
    assert!(!talks(&mut engine, Some(&asks)));
}

#[test]
fn a_server_does_not_keep_an_adopted_connection_of_a_client_that_it_may_not_have() {
    let mut settings = settings(1, 100);
    settings.services[0].unknown_tcp = UnknownTcp::Adopt;
    settings.servers[0].max_flows = Some(1);
    let mut engine = Engine::new(&settings);
    let asks = |ack| bytes(tcp(CLIENT, 1, VIP, 80, 101).ack(ack), b"x");
    assert!(matches!(hand(&mut engine, at(0), &asks(500)).0, Verdict::Forward { .. }));
    let port = 2000;
    assert_eq!(connect(&mut engine, at(0), CLIENT, port), Ok(1));
    let is_there = |engine: &Engine, now| rows(engine, at(now)).iter().any(|flow| flow.client.port() == 1);
    for now in (10..=230).step_by(20) {
        engine.handle_timeout(at(now));
        let says = bytes(tcp([10, 0, 2, 1], 8080, CLIENT, 1, 500).ack(102), b"there");
        assert!(matches!(hand(&mut engine, at(now), &says).0, Verdict::Forward { .. }));
        assert_eq!(hand(&mut engine, at(now), &asks(505)).0, Verdict::Drop(Reason::ServerFlows), "{now}");
        assert!(is_there(&engine, now));
    }
    // It lives as long as a handshake that is not complete: 4 minutes from its first segment.
    engine.handle_timeout(at(245));
    assert!(!is_there(&engine, 245));
}

#[test]
fn a_sticky_client_stays_while_a_flow_of_its_server_lives() {
    let mut settings = sticky(2, 1000);
    settings.services[0].sticky.as_mut().unwrap().idle = Duration::from_secs(60);
    let mut engine = Engine::new(&settings);
    let other = |admin| Change::Admin { server: ServerId(1), admin, deadline: None };
    engine.apply(at(0), other(Admin::Disabled)).unwrap();
    assert_eq!(connect(&mut engine, at(0), CLIENT, 1), Ok(1));
    // A new era.
    for up in [false, true] {
        engine.apply(at(1), Change::Health { server: ServerId(0), up: Some(up) }).unwrap();
    }
    assert_eq!(connect(&mut engine, at(2), CLIENT, 2), Ok(1));
    engine.apply(at(3), other(Admin::Enabled)).unwrap();
    let old = rows(&engine, at(4)).into_iter().find(|flow| flow.client.port() == 1);
    engine.apply(at(4), Change::Kill { flow: old.unwrap().id }).unwrap();
    engine.handle_timeout(at(100));
    for port in 10..16 {
        assert_eq!(connect(&mut engine, at(100), CLIENT, port), Ok(1), "{port}");
    }
}
