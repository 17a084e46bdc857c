//! What packets notice of lists: `eqctl flows --sort bytes --top 20` and a whole list with 1,000,000 flows, while packets go
//! on as in the live loop: 256 packets in batches of 32, then one step of the session.
//!
//! Run `cargo bench --bench listing`. Times of batches are of the engine alone; a packet of the live loop costs several
//! times as much in the kernel, so that a list takes longer there, and a step is a smaller part of a turn.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/setup.rs"]
mod setup;

use equipoise::config::Settings;
use equipoise::control::{About, Floor, Ledger, Outside, Progress, Session, Who};
use equipoise::engine::{Engine, Packet};
use equipoise::packet::Meta;
use equipoise::time::{Duration, Instant};
use setup::{VIP4, settings, udp};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

const BATCH: usize = 32;
/// Batches between two steps of a session, as the live loop has them.
const TURN: usize = 8;
/// What a packet of 60 bytes costs the live loop, kernel included (docs/figures.md).
const LIVE: f64 = 3.43e-6;

fn client(n: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x6440_0000 + (n >> 8)).into(), 1024 + (n & 0xff) as u16)
}

/// The times of something in nanoseconds.
#[derive(Default)]
struct Times(Vec<u64>);

impl Times {
    fn at(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        self.0.get((self.0.len().saturating_sub(1) as f64 * share) as usize).map_or(0.0, |nanos| *nanos as f64)
    }
}

struct Bench {
    engine: Engine,
    ledger: Ledger,
    outside: Outside,
    now: Instant,
    packets: Vec<Vec<u8>>,
    next: u32,
    flows: u32,
}

impl Bench {
    fn new(flows: u32) -> Bench {
        let settings: Settings = settings(&[1, 1, 1], flows);
        let mut engine = Engine::new(&settings);
        equipoise::gateway::huge_pages::advise(engine.memory());
        let mut now = Instant::ZERO;
        for n in 0..flows {
            now = now + Duration::from_nanos(100);
            let mut packet = udp(client(n), SocketAddr::new(VIP4.into(), 53), b"x");
            engine.handle_packet(now, &mut packet, Meta::default());
        }
        assert_eq!(engine.counters().flows, u64::from(flows));
        let packets = vec![Vec::new(); BATCH];
        let ledger = Ledger::new(None, settings);
        Bench { engine, ledger, outside: Outside::default(), now, packets, next: 1, flows }
    }

    /// Handles 256 packets of random flows; notes the time of each batch.
    fn turn(&mut self, times: &mut Times) {
        for _ in 0..TURN {
            for packet in &mut self.packets {
                self.next = self.next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let flow = ((u64::from(self.next) * u64::from(self.flows)) >> 32) as u32;
                *packet = udp(client(flow), SocketAddr::new(VIP4.into(), 53), b"x");
            }
            let begin = std::time::Instant::now();
            self.now = self.now + Duration::from_micros(10);
            let now = self.now;
            let packets = self.packets.iter_mut();
            let mut batch: Vec<_> = packets.map(|bytes| Packet { at: now, bytes, meta: Meta::default() }).collect();
            let handled = self.engine.handle_batch(&mut batch, |_| {});
            assert_eq!(handled, BATCH);
            times.0.push(begin.elapsed().as_nanos() as u64);
        }
    }

    /// Handles packets, and a request in between, if there is one; returns times of batches and of steps, and when the first
    /// flow was there, in steps.
    fn run(&mut self, request: Option<&str>, turns: usize) -> (Times, Times, usize) {
        let (mut batches, mut steps, mut first) = (Times::default(), Times::default(), 0);
        let about = Arc::new(About::new(self.ledger.in_force(), Instant::ZERO, 1));
        let mut session = Session::new(about, Who::default());
        let mut out = Vec::new();
        for _ in 0..turns {
            self.turn(&mut batches);
            let Some(request) = request else { continue };
            out.clear();
            let begin = std::time::Instant::now();
            let Bench { engine, ledger, outside, now, .. } = self;
            let progress = session.poll_output(&mut Floor { engine, ledger, now: *now, outside, pair: None }, &mut out);
            let nanos = begin.elapsed().as_nanos() as u64;
            if first == 0 && out.starts_with(b"{\"flow\"") {
                first = steps.0.len() + 1;
            }
            if progress == Progress::Idle {
                session.feed(request.as_bytes());
            } else {
                steps.0.push(nanos);
            }
        }
        (batches, steps, first)
    }
}

/// Without `--bench`, as under `cargo test`, the bench only checks that it works.
fn main() {
    let full = std::env::args().any(|arg| arg == "--bench");
    let (flows, turns) = if full { (1_000_000, 4_000) } else { (20_000, 60) };
    let mut bench = Bench::new(flows);
    println!("{flows} flows, {turns} turns of 256 packets; nanoseconds per packet, microseconds per step\n");
    println!(
        "{:<34} {:>7} {:>7} {:>9} {:>9} {:>9} {:>11} {:>11}",
        "", "median", "99 %", "step", "99 %", "longest", "first after", "live, about"
    );
    let list = "{\"request\":\"flows\"}\n";
    let top = "{\"request\":\"flows\",\"sort\":\"bytes\",\"limit\":20}\n";
    let filtered = "{\"request\":\"flows\",\"filter\":\"host 203.0.113.9 and not port 443\"}\n";
    bench.run(None, turns / 10);
    for (what, request) in [
        ("no list", None),
        ("flows --sort bytes --top 20", Some(top)),
        ("no list", None),
        ("flows host ... (none match)", Some(filtered)),
        ("flows", Some(list)),
        ("no list", None),
    ] {
        let (mut batches, mut steps, first) = bench.run(request, turns);
        let per_packet = |nanos: f64| nanos / BATCH as f64;
        let step = |steps: &mut Times, share| steps.at(share) / 1e3;
        let live = first as f64 * ((BATCH * TURN) as f64 * LIVE + steps.at(0.5) / 1e9) * 1e3;
        println!(
            "{what:<34} {:>7.0} {:>7.0} {:>9.1} {:>9.1} {:>9.1} {:>8} steps {:>8.0} ms",
            per_packet(batches.at(0.5)),
            per_packet(batches.at(0.99)),
            step(&mut steps, 0.5),
            step(&mut steps, 0.99),
            step(&mut steps, 1.0),
            first,
            live,
        );
        assert!(request != Some(top) && request != Some(list) || first > 0, "{what}: nothing came");
    }
}
