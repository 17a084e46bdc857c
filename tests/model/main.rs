//! The engine against a reference model: a list of flows that is searched from end to end, algorithms that look at every
//! server, a tracker written from the RFCs.
//!
//! Random packets, orders and times are given to both; after each step verdicts, bytes, events and all rows must agree.
//! `MODEL_SEED=N` runs one history, `MODEL_HISTORIES=N` and `MODEL_STEPS=N` so many of them and so many steps of each.

#[path = "../common/random.rs"]
mod random;

mod answers;
mod craft;
mod engine;
mod errors;
mod events;
mod faults;
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
mod servers;
mod services;
mod setup;
mod sticky;
mod tcp;
mod traffic;
mod upkeep;
mod wire;

use history::History;
use std::collections::BTreeSet;

/// Histories, each with settings of its own, and steps of each.
const HISTORIES: u64 = 150;
const STEPS: u64 = 600;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn the_engine_does_what_the_model_does() {
    let histories = number("MODEL_HISTORIES").unwrap_or(HISTORIES);
    let seeds = number("MODEL_SEED").map_or(0..histories, |seed| seed..seed + 1);
    let steps = number("MODEL_STEPS").unwrap_or(STEPS);
    let whole = number("MODEL_SEED").is_none();
    let mut seen = BTreeSet::new();
    for seed in seeds {
        let mut history = History::new(seed);
        for step in 0..steps {
            history.step(step);
        }
        seen.append(&mut history.seen());
    }
    let missed: Vec<&&str> = events::MUST_BE_SEEN.iter().filter(|what| !seen.contains(**what)).collect();
    assert!(!whole || missed.is_empty(), "never came up: {missed:?}; only {seen:?}");
}
