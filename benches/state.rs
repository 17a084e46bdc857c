//! What saving a state costs the loop, and reading it a start: the longest portion, the time per flow, bytes per flow.
//!
//! Run `cargo bench --bench state`. Established TCP flows over IPv4; each figure is the shortest of five runs, portion by
//! portion.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/setup.rs"]
mod setup;

use equipoise::engine::{Engine, StateLoad, StateWalk, Verdict};
use equipoise::packet::{Meta, parse};
use equipoise::time::Instant;
use setup::{VIP4, settings, tcp};
use std::net::{Ipv4Addr, SocketAddr};

/// Slots of a portion, as in the live gateway.
const PORTION: usize = 2048;
const RUNS: usize = 5;

fn engine(flows: u32) -> Engine {
    let mut settings = settings(&[1, 1, 1], flows);
    settings.table.max_half_open = 1000;
    let engine = Engine::new(&settings);
    equipoise::gateway::huge_pages::advise(engine.memory());
    engine
}

/// Opens flows by whole handshakes.
fn fill(engine: &mut Engine, now: Instant, flows: u32) {
    let vip = SocketAddr::new(VIP4.into(), 80);
    for n in 0..flows {
        let client = SocketAddr::new(Ipv4Addr::from(0x6440_0000 + (n >> 8)).into(), 1024 + (n & 0xff) as u16);
        let mut syn = tcp(client, vip, "S", 100, 0, b"");
        assert!(matches!(engine.handle_packet(now, &mut syn, Meta::default()), Verdict::Forward { .. }));
        let to = parse(&syn).unwrap().addresses.dst();
        let mut answer = tcp(SocketAddr::new(to, setup::SERVER_PORT), client, "SA", 500, 101, b"");
        engine.handle_packet(now, &mut answer, Meta::default());
        engine.handle_packet(now, &mut tcp(client, vip, "A", 101, 501, b""), Meta::default());
    }
}

/// Saves all; returns the state, and the nanoseconds of each portion.
fn save(engine: &mut Engine, now: Instant) -> (Vec<u8>, Vec<u64>) {
    let (mut walk, mut state, mut times) = (StateWalk::new(now, false), Vec::new(), Vec::new());
    loop {
        // The gateway gives each portion away.
        let mut portion = Vec::new();
        let begin = std::time::Instant::now();
        let done = engine.write_state(&mut walk, now, PORTION, &mut portion);
        times.push(begin.elapsed().as_nanos() as u64);
        state.extend(portion);
        if done {
            return (state, times);
        }
    }
}

fn main() {
    println!(
        "{:>10} {:>14} {:>16} {:>16} {:>14}",
        "flows", "bytes/flow", "save, ns/flow", "longest, us", "load, ns/flow"
    );
    for flows in [10_000, 262_144, 1_000_000] {
        let now = Instant::from_nanos(1 << 58);
        let mut full = engine(flows);
        fill(&mut full, now, flows);
        let (mut shortest, mut state) = (Vec::<u64>::new(), Vec::new());
        let mut load_ns = u64::MAX;
        for _ in 0..RUNS {
            let (saved, times) = save(&mut full, now);
            shortest.resize(times.len(), u64::MAX);
            shortest.iter_mut().zip(times).for_each(|(least, time)| *least = time.min(*least));
            state = saved;
            let (mut other, mut load) = (engine(flows), StateLoad::new(now));
            let begin = std::time::Instant::now();
            other.load_state(&mut load, now, &state).unwrap();
            let loaded = other.end_load(&load, now).unwrap();
            load_ns = load_ns.min(begin.elapsed().as_nanos() as u64);
            assert_eq!(loaded.flows, u64::from(flows), "{loaded}");
        }
        let per_flow = |total: u64| total as f64 / f64::from(flows);
        println!(
            "{flows:>10} {:>14.1} {:>16.1} {:>16.1} {:>14.1}",
            per_flow(state.len() as u64),
            per_flow(shortest.iter().sum()),
            *shortest.iter().max().unwrap() as f64 / 1e3,
            per_flow(load_ns),
        );
    }
}
