//! Two real engines with their sync modules in one simulated world: clients and servers, an election, and a connection
//! between the two that loses, delays and breaks. Random histories of partitions, pauses, restarts, planned switches and
//! version skew; whatever happens:
//!
//! - no established flow gets to another server,
//! - no gateway resets an established flow, and none is lost that the remaining gateway can know,
//! - no NAT port is given twice, also while the two do not hear each other for 60 s,
//! - a sticky client stays on its server,
//! - what a gateway keeps for its peer does not grow while the peer reads slowly or not at all,
//! - 20 s after healing both have the same flows, and say so.
//!
//! `SYNC_HISTORIES=10000 cargo test --release --test sync_sim` runs more of them. A failing history prints its seed, and
//! `SYNC_SEED=… cargo test --test sync_sim -- --nocapture` repeats it, with all that happened in it.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "../common/random.rs"]
mod random;

mod ends;
mod skew;
mod wire;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use world::World;

/// Histories of an ordinary run.
const HISTORIES: u64 = 100;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Runs a history; returns what happened in it, or what went wrong.
fn history(seed: u64, keeps_log: bool) -> Result<ends::Counts, (String, Vec<String>)> {
    let mut world = World::new(seed, keeps_log);
    match world.run_all() {
        Ok(counts) => Ok(counts),
        Err(wrong) => Err((format!("{wrong} ({} talks open)", world.open()), world.log)),
    }
}

#[test]
fn whatever_fails_and_heals_flows_stay_and_the_two_agree() {
    if let Some(seed) = number("SYNC_SEED") {
        let result = history(seed, true);
        if let Err((wrong, log)) = result {
            log.iter().for_each(|line| println!("{line}"));
            panic!("history {seed}: {wrong}");
        }
        return;
    }
    let (first, histories) = (number("SYNC_FIRST").unwrap_or(1), number("SYNC_HISTORIES").unwrap_or(HISTORIES));
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let results: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let mut all = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + histories {
                    return all;
                }
                all.push((seed, history(seed, false)));
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut sum = ends::Counts::default();
    let mut failed: Vec<(u64, String)> = Vec::new();
    for (seed, result) in results {
        match result {
            Ok(counts) => {
                sum.opened += counts.opened;
                sum.closed += counts.closed;
                sum.lost += counts.lost;
                sum.answers += counts.answers;
                sum.stuck += counts.stuck;
                sum.forgotten += counts.forgotten;
                sum.told += counts.told;
            }
            Err((wrong, _)) => failed.push((seed, wrong)),
        }
    }
    failed.sort();
    println!(
        "{histories} histories: {} talks, {} closed, {} given up, {} answers; {} sticky clients compared, {} that were cleared; {} \
         connections that had to be known by their half-open flows; {} failed",
        sum.opened,
        sum.closed,
        sum.lost,
        sum.answers,
        sum.stuck,
        sum.forgotten,
        sum.told,
        failed.len()
    );
    for (seed, wrong) in failed.iter().take(5) {
        println!("history {seed} (repeat it with SYNC_SEED={seed}): {wrong}");
    }
    assert!(failed.is_empty(), "{} of {histories} histories failed, the first with seed {}", failed.len(), failed[0].0);
    assert!(sum.answers > histories * 100 && sum.closed > histories, "hardly anything happened: {sum:?}");
    let compared = [sum.stuck, sum.forgotten, sum.told];
    assert!(histories < HISTORIES || compared.iter().all(|count| *count > 0), "not everything was checked: {sum:?}");
}

#[test]
fn a_history_replays_exactly() {
    let run = || {
        let mut world = World::new(3, true);
        let result = world.run_all();
        (format!("{result:?}"), world.log)
    };
    assert_eq!(run(), run());
}
