//! What a packet costs with few and with many servers, services and rules, and what a start takes: the figures that should
//! not grow with the configuration, or only by the sum of its parts.
//!
//! Run `cargo bench --bench flat`, with `-- --only=services` for only those rows whose name contains this, with `-- --json`
//! for one JSON object per row. The sizes of one kind are measured in turns within each round, so that what else the
//! machine does affects all of them alike; each figure is the median of the rounds. A hit is a packet of an established
//! flow, from the client and from the server in turns; a miss is a SYN that opens a flow; a change is a server that goes down
//! or comes up, with the next new flow. The start is from the text of the
//! configuration to an engine, the memory what is then allocated, without the flow table.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(unsafe_code)] // `GlobalAlloc` is an unsafe trait; every call is passed to the system's allocator unchanged.

#[path = "../tests/common/bytes.rs"]
mod bytes;
#[path = "../tests/common/many.rs"]
mod many;
#[path = "../tests/common/setup.rs"]
mod setup;

use equipoise::config;
use equipoise::engine::{Change, Engine, Forwarded, Verdict};
use equipoise::ids::{FlowId, ServerId};
use equipoise::packet::{Meta, parse};
use equipoise::time::{Duration, Instant};
use many::{FIRST_SERVICE, Many};
use setup::tcp;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

#[global_allocator]
static ALLOCATOR: bytes::Counting = bytes::Counting;

/// Packets per turn of one configuration.
const BATCH: u32 = 4096; // a turn of 512 measured how cold the other sizes left the cache
/// Batches before one that is measured.
const WARM_UP: usize = 8;
/// Established flows.
const FLOWS: u32 = 4096;
/// Virtual time between two packets.
const GAP: Duration = Duration::from_micros(1);

/// One configuration: its engine, and what was measured.
struct Bench {
    many: Many,
    engine: Engine,
    now: Instant,
    /// Packets of established flows, both directions.
    passing: Vec<Vec<u8>>,
    at: usize,
    next: u32,
    start_ms: f64,
    bytes: u64,
    hits: Vec<f64>,
    misses: Vec<f64>,
    /// Microseconds.
    changes: Vec<f64>,
}

fn client(n: u32) -> SocketAddr {
    let port = 1024 + (n.wrapping_mul(0x9e37_79b9) >> 18) as u16;
    SocketAddr::new(Ipv4Addr::from(0x6440_0000 | n & 0x3f_ffff).into(), port)
}

impl Bench {
    fn new(many: &Many) -> Self {
        let text = many.text();
        let (engine, start_ms, bytes) = start(&text);
        let (_, _, table) = start(&Many { max_flows: 2 * many.max_flows, ..many.clone() }.text());
        let mut bench = Bench {
            many: many.clone(),
            engine,
            now: Instant::ZERO,
            passing: Vec::new(),
            at: 0,
            next: 0,
            start_ms,
            bytes: (2 * bytes).saturating_sub(table),
            hits: Vec::new(),
            misses: Vec::new(),
            changes: Vec::new(),
        };
        for _ in 0..FLOWS {
            bench.establish();
        }
        bench
    }

    /// Returns a service's address; they take turns in an order that jumps.
    fn service(&self, n: u32) -> SocketAddr {
        let service = n.wrapping_mul(0x9e37_79b1) % self.many.services;
        SocketAddr::new(Ipv4Addr::from(FIRST_SERVICE + service).into(), 80)
    }

    fn give(&mut self, packet: &mut [u8]) -> Verdict {
        self.now = self.now + GAP;
        self.engine.handle_packet(self.now, packet, Meta::default())
    }

    fn establish(&mut self) {
        let (from, to) = (client(self.next), self.service(self.next));
        self.next += 1;
        let mut syn = tcp(from, to, "S", 100, 0, b"");
        assert!(matches!(self.give(&mut syn), Verdict::Forward { .. }));
        let server = SocketAddr::new(parse(&syn).unwrap().addresses.dst(), 8080);
        let steps = [tcp(server, from, "SA", 500, 101, b""), tcp(from, to, "A", 101, 501, b"")];
        for mut packet in steps {
            assert!(matches!(self.give(&mut packet), Verdict::Forward { .. }));
        }
        self.passing.push(tcp(from, to, "PA", 101, 501, &[7; 20]));
        self.passing.push(tcp(server, from, "PA", 501, 121, &[7; 20]));
    }

    /// Gives packets of established flows, and notes what they took if that is asked.
    fn hit(&mut self, notes: bool) {
        let count = self.passing.len();
        let mut packets: Vec<Vec<u8>> =
            (0..BATCH as usize).map(|i| self.passing[(self.at + i * 1031) % count].clone()).collect();
        self.at += 7 * BATCH as usize;
        let before = self.engine.counters().translated;
        let begin = std::time::Instant::now();
        for packet in &mut packets {
            black_box(self.give(packet));
        }
        let nanos = begin.elapsed().as_nanos() as f64 / f64::from(BATCH);
        self.hits.extend(notes.then_some(nanos));
        assert_eq!(self.engine.counters().translated - before, u64::from(BATCH), "not every packet hit");
    }

    /// Opens flows, and notes what they took if that is asked.
    fn miss(&mut self, notes: bool) {
        let mut packets: Vec<Vec<u8>> =
            (self.next..self.next + BATCH).map(|n| tcp(client(n), self.service(n), "S", 100, 0, b"")).collect();
        self.next += BATCH;
        let mut opened: Vec<FlowId> = Vec::with_capacity(BATCH as usize);
        let begin = std::time::Instant::now();
        for packet in &mut packets {
            let verdict = self.give(packet);
            if let Verdict::Forward { why: Forwarded::Translated { flow, opened: true, .. }, .. } = verdict {
                opened.push(flow);
            }
        }
        let nanos = begin.elapsed().as_nanos() as f64 / f64::from(BATCH);
        self.misses.extend(notes.then_some(nanos));
        assert_eq!(opened.len(), BATCH as usize, "not every packet missed");
        for flow in opened {
            self.engine.apply(self.now, Change::Kill { flow }).unwrap();
        }
    }

    /// A server goes down and comes up; after each, a flow is opened.
    fn change(&mut self) {
        let server = ServerId(self.next % self.many.servers);
        for up in [false, true] {
            let mut packet = tcp(client(self.next), self.service(self.next), "S", 100, 0, b"");
            self.next += 1;
            let begin = std::time::Instant::now();
            self.engine.apply(self.now, Change::Health { server, up: Some(up) }).unwrap();
            let verdict = self.give(&mut packet);
            self.changes.push(begin.elapsed().as_nanos() as f64 / 1e3);
            let Verdict::Forward { why: Forwarded::Translated { flow, .. }, .. } = verdict else {
                panic!("{verdict:?}");
            };
            self.engine.apply(self.now, Change::Kill { flow }).unwrap();
        }
    }
}

/// Starts an engine; returns also the time that it took in milliseconds, and the bytes that remain allocated.
fn start(text: &str) -> (Engine, f64, u64) {
    let (before, begin) = (bytes::live(), std::time::Instant::now());
    let settings = config::parse(text, "many").unwrap();
    let engine = Engine::new(&settings);
    drop(settings);
    (engine, begin.elapsed().as_secs_f64() * 1e3, bytes::live() - before)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures configurations of one kind in turns and prints a row for each.
fn group(name: &str, all: &[(u32, Many)], rounds: usize, json: bool) {
    let mut benches: Vec<Bench> = all.iter().map(|(_, many)| Bench::new(many)).collect();
    for round in 0..rounds + rounds / 5 {
        for bench in &mut benches {
            // The first batches bring into the caches what the other engines have displaced.
            (0..WARM_UP).for_each(|_| bench.hit(false));
            bench.hit(true);
            (0..WARM_UP).for_each(|_| bench.miss(false));
            bench.miss(true);
            bench.change();
            if round < rounds / 5 {
                bench.hits.clear();
                bench.misses.clear();
            }
        }
    }
    let mut least = None;
    for ((size, _), bench) in all.iter().zip(&mut benches) {
        let (hit, miss) = (median(&mut bench.hits), median(&mut bench.misses));
        let (first_hit, first_miss) = *least.get_or_insert((hit, miss));
        let (ms, kib) = (bench.start_ms, bench.bytes as f64 / 1024.0);
        let change = median(&mut bench.changes);
        let (hits, misses) = (hit / first_hit, miss / first_miss);
        if json {
            let row = serde_json::json!({
                "row": name, "size": size, "hit_ns": hit, "hit_ratio": hits, "miss_ns": miss, "miss_ratio": misses,
                "change_us": change, "start_ms": ms, "kib": kib,
            });
            println!("{row}");
        } else {
            println!(
                "{name:<36} {size:>6} {hit:>7.0} {hits:>5.2} {miss:>7.0} {misses:>5.2} {change:>9.0} {ms:>8.0} {kib:>8.0}"
            );
        }
    }
}

/// Without `--bench`, as under `cargo test`, the bench only checks that it works.
fn main() {
    let full = std::env::args().any(|arg| arg == "--bench");
    let json = std::env::args().any(|arg| arg == "--json");
    let only = std::env::args().find_map(|arg| Some(arg.strip_prefix("--only=")?.to_lowercase())).unwrap_or_default();
    let (most, rounds) = if full { (10_000, 60) } else { (100, 2) };
    let sizes = |from: u32, to: u32| [1, 10, 100, 1000, 10_000].into_iter().filter(move |n| (from..=to).contains(n));
    if !json {
        println!("medians of {rounds} rounds of {BATCH} packets; ratios are to the smallest size\n");
        println!(
            "{:<36} {:>6} {:>7} {:>5} {:>7} {:>5} {:>9} {:>8} {:>8}",
            "", "size", "hit ns", "ratio", "miss ns", "ratio", "change us", "start ms", "KiB"
        );
    }
    let mut groups: Vec<(String, Vec<(u32, Many)>)> = Vec::new();
    for algorithm in equipoise::balance::Algorithm::ALL {
        let many = |servers| Many { servers, algorithm: algorithm.name(), ..Many::default() };
        groups.push((format!("servers, {}", algorithm.name()), sizes(10, most).map(|n| (n, many(n))).collect()));
    }
    for algorithm in ["round-robin", "least-connections", "source-hash"] {
        let many = |services| Many { services, servers: most, algorithm, ..Many::default() };
        let all = sizes(1, most.min(1000)).map(|n| (n, many(n))).collect();
        groups.push((format!("services, one pool, {algorithm}"), all));
    }
    let many = |services| Many { services, servers: 10 * services, shared: false, ..Many::default() };
    groups.push(("services, own pools of 10".into(), sizes(1, most.min(1000)).map(|n| (n, many(n))).collect()));
    let many = |rules| Many { rules, ..Many::default() };
    groups.push(("rules".into(), sizes(1, most.min(1000)).map(|n| (n, many(n))).collect()));
    for (name, all) in groups.iter().filter(|(name, _)| name.contains(&only)) {
        group(name, all, rounds, json);
    }
}
