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
//! `SYNC_SEED=… cargo test --test sync_sim -- --nocapture` repeats it, with all that happened in it; with `SYNC_CLIENT=…`
//! also what both know of the client of that number (its address is 198.51.100.1 for 0), and all that it sends.

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
    world.watch_client(number("SYNC_CLIENT").map(|client| client as usize));
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
            Ok(counts) => sum.add(&counts),
            Err((wrong, _)) => failed.push((seed, wrong)),
        }
    }
    failed.sort();
    println!("{histories} histories: {} failed; {sum:?}", failed.len());
    for (seed, wrong) in failed.iter().take(20) {
        println!("history {seed} (repeat it with SYNC_SEED={seed}): {wrong}");
    }
    assert!(failed.is_empty(), "{} of {histories} histories failed, the first with seed {}", failed.len(), failed[0].0);
    assert!(sum.answers > histories * 100 && sum.closed > histories, "hardly anything happened: {sum:?}");
    let compared = [sum.stuck, sum.forgotten, sum.told];
    assert!(histories < HISTORIES || compared.iter().all(|count| *count > 0), "not everything was checked: {sum:?}");
    if histories >= 50 {
        assert!(sum.follows > histories * 10 && sum.downs > histories, "health was hardly looked at: {sum:?}");
        assert!(sum.held > sum.opened / 50, "hardly any client stuck to a server: {sum:?}");
        assert!(sum.spared < sum.opened / 100, "too much is excused: {sum:?}");
        assert!(sum.early < sum.pinned, "too few tell their clients' servers: {sum:?}");
    }
}

/// Histories that failed once: a sticky client whose flow came and went on a slow link (1679), one that was forgotten and came
/// again by the same port (3162), a handshake of which the peer had told in the way of its connection (4863), a port used again
/// at once after a connection in place of another (9149 and 581), one that a gateway gave another server before it knew (1597), one
/// of a server that the standby lacks (103404), those given their servers again before the standby had forgotten them (4107 and
/// 7375), and those of a server that only the former active gateway has found down (1005420 and 1007736).
const KEPT: [u64; 11] = [1679, 3162, 4863, 9149, 581, 1597, 103_404, 4107, 7375, 1_005_420, 1_007_736];

#[test]
fn what_failed_once_fails_no_more() {
    for seed in KEPT {
        if let Err((wrong, _)) = history(seed, false) {
            panic!("history {seed}: {wrong}");
        }
    }
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
