//! Compares the engine with a naive reference model: a flow table with linear search, algorithms that examine every
//! server, a TCP tracker written from the RFCs, and packets rebuilt with checksums computed from scratch.
//!
//! Both receive the same random packets, operator commands and times. After each step, verdicts, bytes, events and all
//! rows must agree. Where policy leaves the engine a choice (random algorithms, NAT ports, the order in which flows end
//! at the same time), the model checks that the choice was allowed and adopts it.
//!
//! Not modelled: incoming fragments, IPv4 options and IPv6 extension headers, NAT64 and NAT46, SCTP, monitors other
//! than ICMP echo, floors, bounded queues.
//!
//! `MODEL_SEED=N` runs a single history; `MODEL_HISTORIES=N` and `MODEL_STEPS=N` set the number of histories and the
//! number of steps in each.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "../common/random.rs"]
mod random;

mod answers;
mod craft;
mod engine;
mod errors;
mod events;
mod flows;
mod history;
mod hit;
mod miss;
mod model;
mod monitor;
mod nat;
mod open;
mod pick;
mod policy;
mod reload;
mod room;
mod servers;
mod services;
mod setup;
mod sticky;
mod tcp;
mod traffic;
mod upkeep;
mod wire;

use history::History;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of histories, each with its own random settings, and number of steps in each.
const HISTORIES: u64 = 400;
const STEPS: u64 = 640;
/// Minimum number of packets whose verdict was foreseen and explained correctly, each in a random state.
const FORESEEN: u64 = 100_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn the_engine_does_what_the_model_does() {
    let histories = number("MODEL_HISTORIES").unwrap_or(HISTORIES);
    let seeds = number("MODEL_SEED").map_or(0..histories, |seed| seed..seed + 1);
    let steps = number("MODEL_STEPS").unwrap_or(STEPS);
    let whole = number("MODEL_SEED").is_none();
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut results = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return results;
            }
            let mut history = History::new(seed);
            for step in 0..steps {
                history.step(step);
            }
            results.push((history.foreseen(), history.seen().into_iter().collect::<Vec<_>>()));
        }
    };
    // Histories have nothing in common.
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // What a history says of its failure is printed where it happens.
        threads.into_iter().flat_map(|thread| thread.join().expect("a history failed")).collect()
    });
    let (mut seen, mut foreseen): (BTreeMap<String, u32>, u64) = (BTreeMap::new(), 0);
    for (packets, events) in results {
        foreseen += packets;
        for what in events {
            *seen.entry(what).or_insert(0) += 1;
        }
    }
    let missed: Vec<&&str> = events::MUST_BE_SEEN.iter().filter(|what| !seen.contains_key(**what)).collect();
    assert!(!whole || missed.is_empty(), "never occurred: {missed:?}; only {seen:?}");
    println!("the verdicts of {foreseen} packets were foreseen and explained correctly");
    assert!(histories < HISTORIES || !whole || foreseen >= FORESEEN, "only {foreseen} packets were foreseen");
}
