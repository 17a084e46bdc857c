//! Tests of what a packet without a flow takes, and of the order in which it takes and reports it.

use super::testing::{CLIENT, VIP, at, bytes, converse, flows, settings, syn, tcp};
use super::*;
use crate::balance::{Admin, Listen, Nat};
use crate::flow::{NatPoolSettings, TimeoutState};
use crate::ids::{NatPoolId, ServerId};
use crate::packet::Protocol;
use crate::policy::{Action, Limits, RuleSettings};
use crate::time::Duration;
use etherparse::PacketBuilder;
use std::net::Ipv4Addr;

/// Returns a datagram to a service address, port 80.
fn query(port: u16, vip: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4(CLIENT, vip, 64).udp(port, 80).write(&mut out, b"question").unwrap();
    out
}

fn hand(engine: &mut Engine, now: Instant, packet: &[u8]) -> Verdict {
    engine.handle_packet(now, &mut packet.to_vec(), Meta::default())
}

#[test]
fn a_packet_that_is_answered_takes_nothing_that_an_earlier_packet_was_to_take() {
    let mut settings = settings(2, 2);
    settings.table.max_half_open = 2;
    let mut engine = Engine::new(&settings);
    for port in [1000, 1001, 1002] {
        assert!(matches!(hand(&mut engine, at(1), &syn(port)), Verdict::Forward { .. }));
    }
    let ended = |counters: &Counters| counters.flows_ended.iter().map(|count| count.count).sum::<u64>();
    let before = engine.counters();
    assert_eq!((before.flows, ended(&before)), (2, 1), "the third flow evicted another");
    let mut last_hop = syn(1002);
    last_hop[8] = 1;
    let sum = !crate::packet::checksum::fold(crate::packet::checksum::add(
        0,
        &[&last_hop[..10], &[0, 0], &last_hop[12..20]].concat(),
    ));
    last_hop[10..12].copy_from_slice(&sum.to_be_bytes());
    for _ in 0..2 {
        assert_eq!(hand(&mut engine, at(1), &last_hop), Verdict::Consume(Consumed::TimeExceeded));
    }
    let after = engine.counters();
    assert_eq!((after.flows, after.flows_opened, ended(&after)), (2, before.flows_opened, 1));
}

/// Returns a pool of `ports` ports of one address, which rest for 120 s.
fn pool(name: &str, last: u8, ports: u16) -> NatPoolSettings {
    let v4 = vec![Ipv4Addr::new(10, 0, 9, last)];
    NatPoolSettings { v4, first_port: 2000, last_port: 1999 + ports, ..NatPoolSettings::new(name) }
}

#[test]
fn ports_of_one_pool_that_are_due_are_freed_before_a_flow_gets_one_and_further_ones_if_none_is_free() {
    let mut settings = settings(1, 1000);
    settings.nat_pools = vec![pool("small", 1, 150), pool("large", 2, 400)];
    let uses = |id| Nat::Full { pool: NatPoolId(id), only_for: vec![], families: [true, false] };
    settings.services[0].nat = uses(0);
    let mut other = settings.services[0].clone();
    other.name = "other".into();
    other.nat = uses(1);
    other.listen = vec![Listen::one([192, 0, 2, 81].into(), Protocol::Udp, 80, 80)];
    settings.services.push(other);
    let mut engine = Engine::new(&settings);
    for port in 0..150 {
        for vip in [VIP, [192, 0, 2, 81]] {
            converse(&mut engine, at(1), &query(1000 + port, vip));
        }
    }
    assert_eq!(hand(&mut engine, at(1), &query(5000, VIP)), Verdict::Drop(Reason::NatExhausted));
    let ids: Vec<_> = flows(&engine, at(1)).into_iter().map(|row| row.id).collect();
    for flow in ids {
        engine.apply(at(2), Change::Kill { flow }).expect("a flow that exists");
    }
    let rows =
        |engine: &Engine| engine.nat_pools().iter().map(|row| (row.used, row.resting, row.free)).collect::<Vec<_>>();
    assert_eq!(rows(&engine), [(0, 150, 0), (0, 150, 250)]);
    // Nothing but these packets frees ports here: no timer has fired.
    for (n, resting) in [(0, 86), (1, 22), (2, 0), (3, 0)] {
        assert!(matches!(hand(&mut engine, at(130), &query(6000 + n, VIP)), Verdict::Forward { .. }));
        assert_eq!(rows(&engine)[0].1, resting);
    }
    assert_eq!(rows(&engine)[1].1, 150, "the other pool is left alone");
}

#[test]
fn the_explained_limit_refuses_exactly_if_the_limit_does() {
    let mut settings = settings(1, 1000);
    let limits = Limits { rate: Some(3), ..Limits::default() };
    settings.policy.rules = vec![RuleSettings { limits, ..RuleSettings::new("few", Action::Balance(None)) }];
    let mut engine = Engine::new(&settings);
    let mut refused = 0;
    // Between whole tokens, too: 3 per second is one per 333,333,333 ns.
    for n in 0..60 {
        let now = Instant::from_nanos(1_000_000_000 + n * 66_666_667);
        let packet = syn(1000 + n as u16);
        let explanation = engine.explain(now, &packet, Meta::default());
        let line = explanation.limits.iter().find(|line| line.limit == "rule-rate").expect("the rule's rate");
        let verdict = hand(&mut engine, now, &packet);
        assert_eq!(line.refuses, verdict == Verdict::Drop(Reason::RuleRate), "{n}: {line:?}");
        refused += u32::from(line.refuses);
    }
    assert!((30..50).contains(&refused), "{refused}");
}

#[test]
fn the_explained_fill_of_the_table_is_the_one_that_the_limit_compares() {
    let mut settings = settings(1, 10);
    settings.table.max_half_open = 10;
    let mut engine = Engine::new(&settings);
    let fill = |engine: &Engine, packet: &[u8]| {
        let explanation = engine.explain(at(9), packet, Meta::default());
        explanation.limits.iter().find(|line| line.limit == "table").expect("the fill of the table").used
    };
    // Only half-open flows, one of which the packet replaces.
    assert!(matches!(hand(&mut engine, at(0), &syn(1000)), Verdict::Forward { .. }));
    let refused = tcp([10, 0, 2, 1], 8080, CLIENT, 1000, 0).rst().ack(101);
    hand(&mut engine, at(1), &bytes(refused, b""));
    assert_eq!(flows(&engine, at(1))[0].state, TimeoutState::Reset);
    assert_eq!(fill(&engine, &bytes(tcp(CLIENT, 1000, VIP, 80, 70_000_000).syn(), b"")), 0);
    assert_eq!(fill(&engine, &syn(2000)), 0);
    // A flow in the table counts until it is over.
    let answer = bytes(tcp([10, 0, 2, 1], 8080, CLIENT, 2000, 500).syn().ack(101), b"");
    let segments = [syn(2000), answer, bytes(tcp(CLIENT, 2000, VIP, 80, 101).ack(501), b"")];
    segments.iter().for_each(|segment| assert!(matches!(hand(&mut engine, at(9), segment), Verdict::Forward { .. })));
    assert_eq!(fill(&engine, &syn(3000)), 1);
    hand(&mut engine, at(9), &bytes(tcp(CLIENT, 2000, VIP, 80, 101).rst(), b""));
    assert_eq!(fill(&engine, &syn(3000)), 0);
}

#[test]
fn drained_servers_are_reported_in_the_order_in_which_their_last_flows_ended() {
    let mut engine = Engine::new(&settings(3, 100));
    (0..3)
        .for_each(|n| assert!(matches!(hand(&mut engine, at(u64::from(n)), &syn(1000 + n)), Verdict::Forward { .. })));
    let order: Vec<_> = {
        let mut flows = flows(&engine, at(3));
        flows.sort_by_key(|row| std::cmp::Reverse(row.age_ms));
        flows.into_iter().map(|row| format!("pool/{}", row.server)).collect()
    };
    for server in (0..3).map(ServerId) {
        engine.apply(at(3), Change::Admin { server, admin: Admin::Draining, deadline: None }).expect("a known server");
    }
    while engine.poll_event().is_some() {}
    engine.handle_timeout(at(3) + Duration::from_secs(100_000));
    let drained: Vec<_> = std::iter::from_fn(|| engine.poll_event())
        .filter_map(|event| if let Event::ServerDrained { server } = event { Some(server) } else { None })
        .collect();
    assert_eq!(drained, order);
}
