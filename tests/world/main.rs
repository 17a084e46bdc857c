//! Real TCP on both sides of the engine, over bad links, in virtual time.
//!
//! The engine is driven as by the live gateway; hosts, links and clock are simulated, so a minute of traffic takes a
//! moment and a seed reproduces a whole run.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

mod apps;
mod host;
mod net;
#[path = "../common/oracle.rs"]
mod oracle;
#[path = "../common/random.rs"]
mod random;
#[path = "../common/setup.rs"]
mod setup;

use apps::Job;
use equipoise::engine::Ended;
use equipoise::flow::TimeoutState;
use equipoise::time::Duration;
use net::{Links, Seen, World};
use random::Random;
use setup::{VIP4, VIP6, at_ms, settings};
use std::net::SocketAddr;

const BAD: Links = Links { lost: 20, doubled: 10, late: 50, late_ms: 30, damaged: 0 };
const WEIGHTS: [u16; 3] = [1, 2, 1];
const UDP: u64 = 20;

/// Jobs for `clients` hosts: `each` transfers per host within `span`, and 20 UDP dialogues, of both families.
fn jobs(clients: usize, each: usize, span: Duration, most: u64, seed: u64) -> Vec<Vec<Job>> {
    let mut random = Random::new(seed);
    let mut all = vec![Vec::new(); clients];
    let mut add = |client: usize, id: u64, udp: bool| {
        let address = if id.is_multiple_of(2) { VIP4.into() } else { VIP6.into() };
        let start = at_ms(random.below(span.as_millis() as u64));
        let port = if udp { 53 } else { 80 };
        let upload = if udp { 3 + random.below(5) } else { random.below(most) } as u32;
        // Some have nothing to send.
        let upload = if !udp && random.per_mille(200) { 0 } else { upload };
        let download = if random.per_mille(200) { 0 } else { random.below(most) as u32 };
        let own = 10_000 + id as u16;
        all[client].push(Job { id, port: own, start, to: SocketAddr::new(address, port), upload, download });
    };
    let transfers = (clients * each) as u64;
    for id in 0..transfers {
        add(id as usize % clients, id, false);
    }
    for id in transfers..transfers + UDP {
        add(id as usize % clients, id, true);
    }
    all
}

/// Checks what must hold at the end of every world; returns what it saw and its trace.
fn finish(mut world: World, jobs: u64) -> (Seen, u64) {
    let done = world.run();
    assert_eq!(done.iter().map(|(id, _)| *id).collect::<Vec<_>>(), (0..jobs).collect::<Vec<_>>());
    let (seen, counters) = (world.seen, world.counters());
    assert!(counters.add_up());
    let engine = [counters.packets_in, counters.translated, counters.foreign, counters.consumed(), counters.dropped()];
    assert_eq!(engine, [seen.handed, seen.translated, seen.foreign, seen.consumed, seen.dropped]);
    assert_eq!(counters.transmitted, seen.transmitted);
    let servers = world.engine.servers(world.now);
    assert_eq!(servers.iter().map(|s| s.packets_in + s.packets_out).sum::<u64>(), counters.translated - seen.errors);
    assert_eq!(servers.iter().map(|s| s.flows).sum::<u64>(), counters.flows);
    let services = world.engine.services();
    for total in [servers.iter().map(|s| s.flows_total).sum::<u64>(), services.iter().map(|s| s.flows_total).sum()] {
        assert_eq!(total, counters.flows_opened);
    }
    world.end_flows();
    let ended = world.counters();
    assert_eq!((ended.flows, ended.flows_opened), (0, ended.flows_ended.iter().map(|c| c.count).sum()));
    assert!(world.engine.servers(world.now).iter().all(|server| server.flows == 0));
    (seen, world.trace())
}

#[test]
fn over_good_links_every_transfer_arrives_and_the_weights_hold() {
    let jobs = jobs(12, 10, Duration::from_secs(3), 30_000, 1);
    let mut world = World::new(&settings(&WEIGHTS, 1000), 3, jobs, Links::default(), 1);
    let done = world.run();
    let counters = world.counters();
    assert_eq!((counters.flows_opened, counters.dropped(), counters.consumed()), (140, 0, 0));
    assert_eq!(world.refused(), 0);
    let web: Vec<u64> = world.engine.servers(world.now)[..3].iter().map(|server| server.flows_total).collect();
    assert_eq!(web, [30, 60, 30]);
    // The servers themselves have counted as many: nobody talked to another server than the engine reports.
    let own = [1, 2, 3].map(|number| done.iter().filter(|(id, server)| *id < 120 && *server == number).count() as u64);
    assert_eq!(own.to_vec(), web);
    assert_eq!(finish(world, 140).0.lost, 0);
}

#[test]
fn over_bad_links_every_transfer_arrives_and_every_flow_stays_on_its_server() {
    for seed in 1..=2 {
        let jobs = jobs(12, 8, Duration::from_secs(2), 30_000, seed);
        let mut world = World::new(&settings(&WEIGHTS, 1000), 3, jobs, BAD, seed);
        world.run();
        assert_eq!(world.refused(), 0, "seed {seed}");
        let (seen, _) = finish(world, 12 * 8 + UDP);
        assert!(seen.lost > 50 && seen.doubled > 20 && seen.late > 100, "seed {seed}: the links were good: {seen:?}");
    }
}

#[test]
fn a_connection_is_one_flow_whatever_the_links_do() {
    for seed in 1..=3 {
        let jobs = jobs(10, 20, Duration::from_secs(4), 500, seed);
        let links = Links { lost: 50, doubled: 100, late: 300, late_ms: 400, damaged: 0 };
        let mut world = World::new(&settings(&WEIGHTS, 1000), 3, jobs, links, seed);
        world.run();
        assert_eq!((world.counters().flows_opened, world.refused()), (200 + UDP, 0), "seed {seed}");
    }
}

#[test]
fn damaged_packets_never_become_other_data() {
    let jobs = jobs(10, 8, Duration::from_secs(2), 20_000, 4);
    let links = Links { damaged: 20, ..BAD };
    let (seen, _) = finish(World::new(&settings(&WEIGHTS, 1000), 3, jobs, links, 4), 80 + UDP);
    assert!(seen.damaged > 50 && seen.dropped > 0, "{seen:?}");
}

#[test]
fn more_connections_than_the_table_holds_all_end_well_once_others_have_closed() {
    let mut settings = settings(&WEIGHTS, 24);
    settings.table.timeouts.udp_two_way = Duration::from_secs(10);
    let mut world = World::new(&settings, 3, jobs(10, 6, Duration::from_secs(1), 8000, 5), BAD, 5);
    world.run();
    let counters = world.counters();
    // Closed connections and answered queries give way; an established connection that is not idle never does.
    let evicted = counters.flows_ended[Ended::Evicted as usize].count;
    assert!(evicted > 0 && counters.dropped() > 0, "the table was never full: {counters:?}");
    assert!(world.evicted.iter().all(|state| *state != TimeoutState::Established));
    assert_eq!(world.evicted.len() as u64, evicted);
    finish(world, 60 + UDP);
}

#[test]
fn one_seed_gives_one_trace_and_another_seed_another() {
    let trace = |seed| {
        let jobs = jobs(6, 5, Duration::from_secs(1), 8000, 7);
        finish(World::new(&settings(&WEIGHTS, 1000), 3, jobs, BAD, seed), 30 + UDP).1
    };
    let (first, again, other) = (trace(7), trace(7), trace(8));
    assert_eq!(first, again);
    assert_ne!(first, other);
}
