//! The connection table against a list of flows with linear search.
//!
//! Thousands of random steps over few keys, so that full tables, taken keys and ties occur; after each step
//! everything observable of the table is compared. What segments mean for their flows is up to the tracker, which
//! `model` checks.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

mod compare;
#[path = "../common/random.rs"]
mod random;
mod room;
mod world;

use equipoise::flow::{Key, NO_POOL, NewFlow, Table, TableSettings, TimeoutState, Timeouts};
use equipoise::ids::{ServerId, ServiceId};
use equipoise::packet::{Addresses, Protocol};
use equipoise::time::{Duration, Instant};
use random::Random;
use std::collections::BTreeSet;
use world::World;

/// Timeouts of four profiles; some are equal.
fn timeouts() -> [Timeouts; 4] {
    let s = Duration::from_secs;
    let first = Timeouts {
        opening: s(4),
        established: s(400),
        closing: s(4),
        reset: s(3),
        udp_one_way: s(9),
        udp_two_way: s(200),
        icmp: s(150),
    };
    let second = Timeouts { opening: s(2), udp_one_way: s(1), established: s(20), ..first };
    [first, second, first, Timeouts { icmp: s(4), closing: s(9), ..first }]
}

fn settings(max_flows: u32, max_half_open: u32) -> TableSettings {
    let [timeouts, profiles @ ..] = timeouts();
    TableSettings { max_flows, max_half_open, timeouts, profiles: profiles.into() }
}

/// The keys of a flow: few clients, services and servers, of both families and all protocols.
fn keys(random: &mut Random) -> (Key, Key, ServerId, ServiceId) {
    let protocol = *random.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]).expect("one of four");
    let (client, vip, server) = (random.below(5) as u32, random.below(2) as u32, random.below(2) as u32);
    let port = 1000 + random.below(4) as u16;
    let (there, back) = if random.per_mille(500) {
        let there = Addresses::V4 { src: 0xc633_6400 + client, dst: 0xc000_0200 + vip };
        (there, Addresses::V4 { src: 0x0a00_0200 + server, dst: 0xc633_6400 + client })
    } else {
        // Some differ only in the high halves, others only in the low halves.
        let client = u128::from(client) << if client == 2 { 64 } else { 0 } | 0xfd00 << 112;
        let there = Addresses::V6 { src: client, dst: 0x2001_0db8 << 96 | u128::from(vip) };
        (there, Addresses::V6 { src: u128::from(server) << 64 | 0xfd00 << 112, dst: client })
    };
    let (dst_port, answer_port) = if protocol == Protocol::Icmp { (port, port) } else { (80, 8080) };
    let client = Key { addresses: there, src_port: port, dst_port, protocol };
    let answer = Key { addresses: back, src_port: answer_port, dst_port: port, protocol };
    (client, answer, ServerId(server), ServiceId(vip))
}

fn new(client: Key, server: Key, (service, server_id): (ServiceId, ServerId), profile: u8) -> NewFlow {
    let half_open = client.protocol == Protocol::Tcp;
    NewFlow { client, server, service, server_id, profile, nat_pool: NO_POOL, rule: 0, picked_by: 0, half_open }
}

/// What has to occur besides expiry: a model that never saw these would prove nothing.
const MUST_BE_SEEN: &[&str] = &[
    "Pass",
    "Reopen",
    "a conversation",
    "a handshake refused",
    "brief",
    "brief, all busy",
    "brief, idlest",
    "brief: many passed over",
    "conversing",
    "conversing, of a second",
    "conversing, of ten seconds",
    "conversing: many passed over",
    "established",
    "half-open",
    "half-open and reset",
    "no flow may give way",
    "over",
    "over, late",
    "settled",
    "settled: many passed over",
    "taken: [false, true]",
    "taken: [true, false]",
];

#[test]
fn the_table_holds_what_a_list_holds() {
    let mut seen = BTreeSet::new();
    let sizes = [(1, 1), (2, 2), (5, 2), (12, 5), (20, 1), (25, 30), (200, 200)];
    for (seed, sizes) in sizes.into_iter().cycle().take(84).enumerate() {
        let mut random = Random::new(seed as u64);
        let mut world = World::new(sizes);
        for step in 0..1000 {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step(&mut random)));
            assert!(result.is_ok(), "seed {seed}, table of {sizes:?}, step {step}");
        }
        seen.append(&mut world.seen);
    }
    let expired = TimeoutState::ALL.iter().map(|state| format!("{} expired", state.name()));
    let profiles = (0..4).map(|profile| format!("profile {profile} expired"));
    let missed: Vec<String> = profiles
        .chain(expired)
        .chain(MUST_BE_SEEN.iter().map(|what| (*what).to_owned()))
        .filter(|what| !seen.contains(what))
        .collect();
    assert!(missed.is_empty(), "never occurred: {missed:?}; only {seen:?}");
}

#[test]
fn a_table_filled_and_emptied_again_and_again_keeps_its_size() {
    let mut table = Table::new(&settings(300, 200));
    let mut now = Instant::ZERO;
    for round in 0..40u32 {
        for i in 0..500u32 {
            let client = 0xfd00 << 112 | u128::from(round) << 32 | u128::from(i);
            let there = Addresses::V6 { src: client, dst: 1 };
            let back = Addresses::V6 { src: 2, dst: client };
            let protocol = if i < 200 { Protocol::Tcp } else { Protocol::Udp };
            let client = Key { addresses: there, src_port: 7, dst_port: 80, protocol };
            let server = Key { addresses: back, src_port: 8080, dst_port: 7, protocol };
            table.insert(now, &new(client, server, (ServiceId(0), ServerId(0)), (i % 4) as u8));
        }
        assert_eq!((table.len(), table.half_open().0, table.slots(0).count()), (300, 200, 500), "round {round}");
        now = now + Duration::from_secs(1000);
        let mut most = 10_000;
        while let Some(index) = table.expired(now, &mut most) {
            table.remove(now, index);
        }
        assert!(table.is_empty() && table.poll_timeout().is_none(), "round {round}");
    }
}
