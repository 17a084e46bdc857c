//! The longest single operation of the store of half-open flows: what one packet may have to wait for, however rarely.
//!
//! Run `cargo bench --bench pauses`. The same sequence of operations runs several times in fresh engines, and each
//! operation counts with its shortest time: what other work on the machine adds to one run is not in all of them, but a
//! table that copies, grows or tidies up does so at the same operation each time.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/setup.rs"]
mod setup;

use equipoise::balance::PortTimeouts;
use equipoise::engine::{Change, Engine, Forwarded, Verdict};
use equipoise::flow::Timeouts;
use equipoise::ids::FlowId;
use equipoise::packet::{Meta, Protocol};
use equipoise::time::{Duration, Instant};
use setup::{VIP4, settings, tcp};
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

/// Virtual time between two packets.
const GAP: Duration = Duration::from_micros(1);

fn client(n: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x6440_0000 + (n >> 8)).into(), 1024 + (n & 0xff) as u16)
}

fn syn(n: u32, port: u16) -> Vec<u8> {
    tcp(client(n), SocketAddr::new(VIP4.into(), port), "S", 100, 0, b"")
}

/// The nanoseconds of each operation: the shortest of all runs.
#[derive(Default)]
struct Times(Vec<u32>);

impl Times {
    fn note(&mut self, at: usize, begin: std::time::Instant) {
        let nanos = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
        match self.0.get_mut(at) {
            Some(least) => *least = nanos.min(*least),
            None => self.0.push(nanos),
        }
    }

    fn print(mut self, what: &str) {
        let operations = self.0.len();
        self.0.sort_unstable();
        let at = |share: f64| f64::from(self.0[((operations - 1) as f64 * share) as usize]) / 1e3;
        println!("{what:<52} {operations:>10} {:>10.2} {:>10.2} {:>10.1}", at(0.5), at(0.9999), at(1.0));
    }
}

/// An engine that is given SYNs.
struct Bench {
    engine: Engine,
    now: Instant,
}

impl Bench {
    fn new(half_open: u32) -> Self {
        let mut settings = settings(&[1, 1, 1], 1000);
        settings.table.max_half_open = half_open;
        let engine = Engine::new(&settings);
        // As the live gateway does.
        equipoise::gateway::huge_pages::advise(engine.memory());
        Bench { engine, now: Instant::ZERO }
    }

    fn give(&mut self, packet: &mut [u8]) -> FlowId {
        self.now = self.now + GAP;
        match self.engine.handle_packet(self.now, packet, Meta::default()) {
            Verdict::Forward { why: Forwarded::Translated { flow, .. }, .. } => flow,
            other => panic!("{other:?}"),
        }
    }

    /// Gives SYNs of clients that have no flow yet; returns the identifiers.
    fn open(&mut self, clients: std::ops::Range<u32>, times: &mut Times) -> Vec<FlowId> {
        let mut flows = Vec::with_capacity(clients.len());
        for (at, client) in clients.enumerate() {
            let mut packet = syn(client, 80);
            let begin = std::time::Instant::now();
            let flow = self.give(&mut packet);
            times.note(at, begin);
            flows.push(flow);
        }
        flows
    }

    fn end(&mut self, flows: impl Iterator<Item = FlowId>, times: &mut Times) {
        for (at, flow) in flows.enumerate() {
            let begin = std::time::Instant::now();
            self.engine.apply(self.now, Change::Kill { flow }).unwrap();
            times.note(at, begin);
        }
    }
}

/// Returns what it takes to find the next flow to expire, in nanoseconds, with so many sets of timeouts in use.
fn poll(sets: u8) -> f64 {
    let mut settings = settings(&[1, 1, 1], 1000);
    let timeouts = |n: u8| Timeouts { opening: Duration::from_secs(60 + u64::from(n)), ..Timeouts::default() };
    settings.table.profiles = (1..=sets).map(timeouts).collect();
    settings.services[0].listen[0].last_port = 1000;
    let of = |n: u8| PortTimeouts {
        protocol: Protocol::Tcp,
        first_port: 100 + u16::from(n),
        last_port: 100 + u16::from(n),
        profile: n,
    };
    settings.services[0].timeouts = (1..=sets).map(of).collect();
    let mut bench = Bench { engine: Engine::new(&settings), now: Instant::ZERO };
    for n in 1..=sets {
        bench.give(&mut syn(u32::from(n), 100 + u16::from(n)));
    }
    const CALLS: u32 = 10_000;
    let least = (0..20).map(|_| {
        let begin = std::time::Instant::now();
        for _ in 0..CALLS {
            black_box(black_box(&bench.engine).poll_timeout());
        }
        begin.elapsed().as_nanos()
    });
    least.min().unwrap() as f64 / f64::from(CALLS)
}

/// Without `--bench`, as under `cargo test`, the bench only checks that it works.
fn main() {
    let full = std::env::args().any(|arg| arg == "--bench");
    let (most, runs) = if full { (1_000_000, 5) } else { (10_000, 2) };
    println!("microseconds per operation, each the shortest of {runs} runs; store of {most} half-open flows\n");
    println!("{:<52} {:>10} {:>10} {:>10} {:>10}", "", "operations", "median", "99.99 %", "longest");
    let [mut fill, mut flood, mut leave, mut last] = [(); 4].map(|()| Times::default());
    for _ in 0..runs {
        let mut bench = Bench::new(most);
        bench.open(0..most, &mut fill);
        let newest = bench.open(most..most + most / 4, &mut flood);
        drop(bench);
        let mut bench = Bench::new(most);
        let flows = bench.open(0..most, &mut Times::default());
        bench.end(flows[1..].iter().copied(), &mut leave);
        bench.end(flows[..1].iter().copied(), &mut last);
        assert_eq!((newest.len(), bench.engine.counters().flows), ((most / 4) as usize, 0));
    }
    fill.print("a SYN, until the store is full");
    flood.print("a SYN into the full store");
    leave.print("a flow leaves, while the oldest of all stays");
    last.print("the oldest leaves at last");
    for sets in [1, 255] {
        println!("finding the next to expire, {sets} sets of timeouts: {:.0} ns", poll(sets));
    }
}
