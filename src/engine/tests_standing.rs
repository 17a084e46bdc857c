//! Packet-by-packet tests of servers that come and go, sticky clients, policy and probes.

mod passive;
mod rules;

use super::testing::{CLIENT, VIP, at, bytes, events, send, settings, tcp};
use super::*;
use crate::balance::{Admin, LastResort, OnDown, Passive, PoolSettings, Priority, ServerSettings};
use crate::config::Settings;
use crate::flow::TimeoutState;
use crate::health::settings::{MonitorSettings, PoolWatch, Probe, ServerWatch, WatchedPort};
use crate::ids::{PoolId, ServerId, ServiceId};
use crate::packet::parse;
use crate::packet::{Parsed, Transport};
use crate::policy::{Action, RuleSettings};
use crate::time::Duration;
use etherparse::PacketBuilder;
use std::net::IpAddr;

fn sent(engine: &mut Engine, now: Instant) -> Vec<(Vec<u8>, Parsed)> {
    let mut all = Vec::new();
    let mut buffer = [0; 2000];
    while let Some((len, _)) = engine.poll_transmit(now, &mut buffer) {
        all.push((buffer[..len].to_vec(), parse(&buffer[..len]).unwrap()));
    }
    all
}

/// Sends a SYN and returns the last octet of the server that it went to.
fn syn(engine: &mut Engine, now: Instant, client: [u8; 4], port: u16) -> Result<u8, Verdict> {
    let mut packet = bytes(tcp(client, port, VIP, 80, 100).syn(), b"");
    match send(engine, now, &mut packet) {
        Verdict::Forward { .. } => Ok(packet[19]),
        other => Err(other),
    }
}

/// Opens a connection: the client has acknowledged 501, the server 101.
fn establish(engine: &mut Engine, now: Instant, port: u16) -> u8 {
    let server = syn(engine, now, CLIENT, port).unwrap();
    let mut answer = bytes(tcp([10, 0, 2, server], 8080, CLIENT, port, 500).syn().ack(101), b"");
    assert!(matches!(send(engine, now, &mut answer), Verdict::Forward { .. }));
    let mut ack = bytes(tcp(CLIENT, port, VIP, 80, 101).ack(501), b"");
    assert!(matches!(send(engine, now, &mut ack), Verdict::Forward { .. }));
    server
}

fn udp(engine: &mut Engine, now: Instant, port: u16) -> Result<u8, Verdict> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(CLIENT, VIP, 64).udp(port, 80).write(&mut packet, b"hello").unwrap();
    match send(engine, now, &mut packet) {
        Verdict::Forward { .. } => Ok(packet[19]),
        other => Err(other),
    }
}

fn down(engine: &mut Engine, now: Instant, server: u32) {
    engine.apply(now, Change::Health { server: ServerId(server), up: Some(false) }).unwrap();
}

#[test]
fn when_a_server_goes_down_udp_moves_to_another_and_tcp_stays_by_default() {
    let mut engine = Engine::new(&settings(2, 100));
    assert_eq!((establish(&mut engine, at(0), 1), udp(&mut engine, at(0), 2)), (1, Ok(2)));
    (0..2).for_each(|server| down(&mut engine, at(1), server));
    assert_eq!(udp(&mut engine, at(1), 2), Err(Verdict::Drop(Reason::NoServer)), "no server is left");
    engine.apply(at(2), Change::Health { server: ServerId(0), up: Some(true) }).unwrap();
    assert_eq!(udp(&mut engine, at(2), 2), Ok(1), "the same client and port");
    let mut data = bytes(tcp(CLIENT, 1, VIP, 80, 101).ack(501), b"data");
    down(&mut engine, at(3), 0);
    assert!(matches!(send(&mut engine, at(3), &mut data), Verdict::Forward { .. }));
    assert_eq!(data[19], 1);
    let ended = &engine.counters().flows_ended;
    assert_eq!(ended.iter().find(|c| c.kind == Ended::ServerDown).unwrap().count, 1);
}

#[test]
fn on_down_reset_resets_both_ends_at_the_numbers_that_they_expect() {
    let mut settings = settings(2, 100);
    settings.services[0].on_down = Some(OnDown::Reset);
    let mut engine = Engine::new(&settings);
    assert_eq!((establish(&mut engine, at(0), 1), establish(&mut engine, at(0), 2)), (1, 2));
    engine.apply(at(1), Change::Admin { server: ServerId(0), admin: Admin::Disabled, deadline: None }).unwrap();
    assert_eq!(engine.poll_timeout(), Some(at(1)), "the flows end at once");
    engine.handle_timeout(at(1));
    let resets = sent(&mut engine, at(1));
    let shown: Vec<_> = resets
        .iter()
        .map(|(_, reset)| {
            let Transport::Tcp { src, dst, flags, seq, .. } = reset.transport else { panic!() };
            assert!(flags.rst());
            (reset.addresses.src(), src, reset.addresses.dst(), dst, seq)
        })
        .collect();
    let (vip, client, server) = (IpAddr::from(VIP), IpAddr::from(CLIENT), IpAddr::from([10, 0, 2, 1]));
    assert_eq!(shown, [(vip, 80, client, 1, 501), (client, 1, server, 8080, 101)]);
    assert_eq!(engine.counters().flows, 1, "the other server's flow stays");
    // A packet that arrives before the walk is done ends its own flow.
    engine.apply(at(2), Change::Admin { server: ServerId(1), admin: Admin::Disabled, deadline: None }).unwrap();
    let mut data = bytes(tcp(CLIENT, 2, VIP, 80, 101).ack(501), b"data");
    assert_eq!(send(&mut engine, at(2), &mut data), Verdict::Consume(Consumed::ServerDown));
    assert_eq!((sent(&mut engine, at(2)).len(), engine.counters().flows), (2, 0));
    engine.handle_timeout(at(2));
    assert_eq!((engine.poll_timeout(), engine.counters().add_up()), (None, true));
}

#[test]
fn each_family_that_goes_down_ends_its_own_flows() {
    let mut settings = settings(1, 100);
    settings.services[0].on_down = Some(OnDown::Reset);
    let mut engine = Engine::new(&settings);
    establish(&mut engine, at(0), 1);
    for (second, v6, left) in [(1, true, 1), (2, false, 0)] {
        let plan = engine.plan.clone();
        engine.standing.set_health(&plan, at(second), ServerId(0), v6, crate::state::Health::Down);
        let gone = engine.standing.settle(&plan, ServerId(0));
        engine.follow_gone(at(second), gone);
        engine.handle_timeout(at(second));
        assert_eq!(engine.counters().flows, left, "IPv6: {v6}");
    }
    assert_eq!((sent(&mut engine, at(2)).len(), engine.poll_timeout()), (2, None));
}

#[test]
fn a_walk_over_a_large_table_continues_in_parts_as_the_resets_are_sent() {
    let mut settings = settings(1, 10_000);
    settings.services[0].on_down = Some(OnDown::Reset);
    let mut engine = Engine::new(&settings);
    for port in 1..=3000 {
        establish(&mut engine, at(0), port);
    }
    engine.apply(at(1), Change::Admin { server: ServerId(0), admin: Admin::Disabled, deadline: None }).unwrap();
    let (mut calls, mut resets) = (0, 0);
    while engine.poll_timeout() == Some(at(1)) {
        engine.handle_timeout(at(1));
        resets += sent(&mut engine, at(1)).len();
        calls += 1;
    }
    assert_eq!((resets, engine.counters().flows), (6000, 0));
    assert!((40..100).contains(&calls), "{calls}");
}

#[test]
fn a_walk_covers_a_server_that_goes_meanwhile_and_spares_one_that_is_back() {
    let mut settings = settings(3, 10_000);
    settings.services[0].on_down = Some(OnDown::Reset);
    let mut engine = Engine::new(&settings);
    for port in 1..=3000 {
        establish(&mut engine, at(0), port);
    }
    let admin = |engine: &mut Engine, server, admin| {
        engine.apply(at(1), Change::Admin { server: ServerId(server), admin, deadline: None }).unwrap();
    };
    admin(&mut engine, 0, Admin::Disabled);
    admin(&mut engine, 2, Admin::Disabled);
    engine.handle_timeout(at(1));
    sent(&mut engine, at(1));
    admin(&mut engine, 1, Admin::Disabled);
    admin(&mut engine, 2, Admin::Enabled);
    let spared = engine.servers(at(1))[2].flows;
    assert!((900..1000).contains(&spared), "{spared}");
    while engine.poll_timeout() == Some(at(1)) {
        engine.handle_timeout(at(1));
        sent(&mut engine, at(1));
    }
    let left: Vec<u64> = engine.servers(at(1)).iter().map(|row| row.flows).collect();
    assert_eq!(left, [0, 0, spared]);
}

#[test]
fn draining_keeps_flows_until_the_deadline_and_reports_the_end_of_the_last() {
    let mut engine = Engine::new(&settings(2, 100));
    assert_eq!((establish(&mut engine, at(0), 1), establish(&mut engine, at(0), 2)), (1, 2));
    let deadline = Some(Duration::from_secs(60));
    engine.apply(at(1), Change::Admin { server: ServerId(0), admin: Admin::Draining, deadline }).unwrap();
    assert_eq!([3, 4].map(|port| establish(&mut engine, at(2), port)), [2, 2]);
    let mut data = bytes(tcp(CLIENT, 1, VIP, 80, 101).ack(501), b"data");
    assert!(matches!(send(&mut engine, at(3), &mut data), Verdict::Forward { .. }));
    assert_eq!(engine.poll_timeout(), Some(at(61)));
    engine.handle_timeout(at(61));
    let (client, server) = (sent(&mut engine, at(61)), events(&mut engine));
    assert_eq!(client.len(), 3, "the server's next number is 501; the client's is 105, and 101 was acknowledged last");
    let want = [
        "server pool/s1: the draining deadline has passed, 1 flows are ended",
        "server pool/s1 is drained: its last flow has ended",
    ];
    assert_eq!(server, want);
    assert_eq!(engine.servers(at(61))[0].admin, Admin::Draining);
}

#[test]
fn a_last_resort_answers_when_no_server_can() {
    let answers = [
        (LastResort::Drop, Verdict::Drop(Reason::NoServer), None),
        (LastResort::Reset, Verdict::Consume(Consumed::NoServer), Some(6)),
        (LastResort::Unreachable, Verdict::Consume(Consumed::NoServer), Some(1)),
    ];
    for (last_resort, want, protocol) in answers {
        let mut settings = settings(1, 100);
        settings.services[0].last_resort = last_resort;
        let mut engine = Engine::new(&settings);
        down(&mut engine, at(0), 0);
        assert_eq!(syn(&mut engine, at(1), CLIENT, 1), Err(want));
        let packets = sent(&mut engine, at(1));
        assert_eq!(packets.first().map(|(_, parsed)| parsed.protocol), protocol, "{last_resort:?}");
        assert!(packets.iter().all(|(_, p)| p.addresses.src() == IpAddr::from(VIP)));
        if let Some((bytes, icmp)) = packets.first().filter(|(_, parsed)| parsed.protocol == 1) {
            assert_eq!(&bytes[icmp.offset..icmp.offset + 2], [3, 3], "port unreachable");
            assert_eq!(bytes[icmp.offset + 8], 0x45, "quotes the packet");
        }
    }
    let mut settings = settings(1, 100);
    settings.services[0].last_resort = LastResort::Pool(PoolId(1));
    settings.pools.push(PoolSettings::new("sorry", vec![ServerId(1)]));
    let v4 = Some([10, 0, 2, 99].into());
    settings.servers.push(ServerSettings { v4, port: Some(81), ..ServerSettings::new("sorry", PoolId(1)) });
    let mut engine = Engine::new(&settings);
    assert_eq!(syn(&mut engine, at(0), CLIENT, 1), Ok(1));
    down(&mut engine, at(0), 0);
    assert_eq!(syn(&mut engine, at(1), CLIENT, 2), Ok(99));
    let mut answer = bytes(tcp([10, 0, 2, 99], 81, CLIENT, 2, 500).syn().ack(101), b"");
    assert!(matches!(send(&mut engine, at(1), &mut answer), Verdict::Forward { .. }));
    let mut stray = bytes(tcp([10, 0, 2, 99], 81, CLIENT, 9, 500).syn().ack(101), b"");
    assert_eq!(send(&mut engine, at(1), &mut stray), Verdict::Forward { len: 40, why: Forwarded::Foreign });
}

#[test]
fn a_datagram_with_a_bad_checksum_is_not_answered() {
    let mut right = Vec::new();
    PacketBuilder::ipv4(CLIENT, VIP, 64).udp(7, 99).write(&mut right, b"hello").unwrap();
    let (mut wrong, mut none, mut padded) = (right.clone(), right.clone(), right.clone());
    wrong[27] ^= 1;
    none[26..28].fill(0);
    // Bytes after the datagram but inside the IP packet are not covered by its checksum (RFC 768).
    padded.extend([7; 4]);
    padded[3] += 4;
    let sum = u16::from_be_bytes([padded[10], padded[11]]).wrapping_sub(4);
    padded[10..12].copy_from_slice(&sum.to_be_bytes());
    for (packet, answered) in [(right, true), (wrong, false), (none, true), (padded, true)] {
        let mut engine = Engine::new(&settings(1, 100));
        let verdict = send(&mut engine, at(0), &mut packet.clone());
        let want = if answered { Verdict::Consume(Consumed::Closed) } else { Verdict::Drop(Reason::NoService) };
        assert_eq!((verdict, sent(&mut engine, at(0)).len()), (want, usize::from(answered)), "{packet:?}");
    }
}

/// Returns settings with two servers, each probed over TCP every second, down after three failures and up after two
/// successes.
fn watched() -> Settings {
    let mut settings = settings(2, 100);
    settings.health.source_v4 = Some([192, 0, 2, 1].into());
    let monitor = MonitorSettings {
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        jitter_percent: 0,
        ..MonitorSettings::new("tcp", Probe::Tcp)
    };
    let server = |n: u32| ServerWatch {
        server: ServerId(n),
        v4: Some([10, 0, 2, n as u8 + 1].into()),
        v6: None,
        ports: vec![WatchedPort::tcp(8080)],
    };
    settings.health.pools.push(PoolWatch {
        pool: PoolId(0),
        monitors: vec![monitor],
        floor: Default::default(),
        servers: vec![server(0), server(1)],
    });
    settings
}

/// Advances time; the servers in `alive` reply to probes 2 ms later. Returns the events.
fn live(engine: &mut Engine, now: &mut u64, until: u64, alive: &[u8]) -> Vec<String> {
    let ms = |ms: u64| Instant::from_nanos(ms * 1_000_000);
    let mut reported = Vec::new();
    while *now < until {
        *now += 1;
        engine.handle_timeout(ms(*now));
        for (_, probe) in sent(engine, ms(*now)) {
            let Transport::Tcp { src, dst, flags, seq, .. } = probe.transport else { panic!("{probe:?}") };
            assert_eq!(probe.addresses.src(), IpAddr::from([192, 0, 2, 1]));
            let IpAddr::V4(server) = probe.addresses.dst() else { panic!() };
            if flags.syn() && alive.contains(&server.octets()[3]) {
                let answer = tcp(server.octets(), dst, [192, 0, 2, 1], src, 7).syn().ack(seq.wrapping_add(1));
                let verdict = send(engine, ms(*now + 2), &mut bytes(answer, b""));
                assert_eq!(verdict, Verdict::Consume(Consumed::Probe));
            }
        }
        reported.extend(events(engine).into_iter().map(|event| format!("{} ms: {event}", *now)));
    }
    reported
}

#[test]
fn a_server_that_stops_answering_probes_goes_down_within_the_configured_time() {
    let mut engine = Engine::new(&watched());
    let mut now = 0;
    assert_eq!(live(&mut engine, &mut now, 5_000, &[1, 2]), [] as [String; 0]);
    assert!(engine.servers(at(5)).iter().all(|row| row.latency_ms.is_some_and(|ms| (1.9..=2.1).contains(&ms))));
    let down = live(&mut engine, &mut now, 9_000, &[1]);
    assert_eq!(down.len(), 1, "{down:?}");
    assert!(down[0].ends_with("server pool/s2 is DOWN (IPv4 port 8080): 3 of 3 timed out after 500 ms"), "{down:?}");
    // Interval times failures plus timeout, from the moment of its failure.
    let when: u64 = down[0].split(' ').next().unwrap().parse().unwrap();
    assert!((5_000..=5_000 + 3_500).contains(&when), "{when}");
    assert_eq!([1, 2, 3].map(|port| syn(&mut engine, at(9), CLIENT, port)), [Ok(1), Ok(1), Ok(1)]);
    let back = live(&mut engine, &mut now, 12_000, &[1, 2]);
    let row = &engine.servers(at(12))[1];
    assert_eq!((row.times_down, row.times_up), (1, 1));
    assert!(back.len() == 1 && back[0].contains("server pool/s2 is up (IPv4 port 8080): 2 of 2 answered"), "{back:?}");
    assert!(engine.counters().add_up());
}

#[test]
fn unsolicited_packets_to_the_probe_address_are_dropped_with_a_reason() {
    let mut engine = Engine::new(&watched());
    let mut stranger = bytes(tcp([9, 9, 9, 9], 1, [192, 0, 2, 1], 40_000, 1).syn(), b"");
    assert_eq!(send(&mut engine, at(0), &mut stranger), Verdict::Drop(Reason::NoProbe));
}
