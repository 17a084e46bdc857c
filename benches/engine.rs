//! What the engine costs per packet: parse, hit, miss and expiry with 1, 10,000 and 1,000,000 flows, IPv4 and IPv6.
//!
//! Run `cargo bench --bench engine`, with `-- 1 5000` after it for other numbers of flows, and with `--only=hit` for only
//! those rows whose name contains this. Each figure is the median of many short rounds on one thread; packets are built
//! between the rounds and are in cache, flows are wherever a million of them end up. Each figure is printed next to
//! etherparse's full parse of the same packet in the same run. `tools/bench-against` compares two commits with it.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/random.rs"]
mod random;
#[path = "../tests/common/setup.rs"]
mod setup;

use equipoise::engine::{Change, Cursor, Engine, FlowQuery, Forwarded, Outcome, Packet, Verdict};
use equipoise::ids::FlowId;
use equipoise::packet::{Meta, Side, checksum, parse, proto};
use equipoise::time::{Duration, Instant};
use etherparse::SlicedPacket;
use random::Random;
use setup::{SERVER_PORT, VIP4, VIP6, server, settings, tcp};
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

/// Packets per round: few enough to stay in the second-level cache, and a multiple of the number of servers, so that
/// client `n` always gets server `n` modulo their number.
const BATCH: usize = 1536;
/// Bytes from one packet of a batch to the next; a packet has 20 bytes of payload.
const STRIDE: usize = 128;
/// Virtual time between two packets: a million per second.
const GAP: Duration = Duration::from_micros(1);
const WEIGHTS: [u16; 3] = [1, 1, 1];

/// Returns the median of `rounds` rounds of `items` items, in nanoseconds per item; `prepare` is not timed.
fn measure<T>(rounds: usize, items: usize, mut prepare: impl FnMut() -> T, mut run: impl FnMut(&mut T)) -> f64 {
    let mut nanos: Vec<f64> = (0..rounds + rounds / 10)
        .map(|_| {
            let mut input = prepare();
            let start = std::time::Instant::now();
            run(&mut input);
            start.elapsed().as_nanos() as f64 / items as f64
        })
        .skip(rounds / 10)
        .collect();
    nanos.sort_by(f64::total_cmp);
    nanos[nanos.len() / 2]
}

/// A batch of packets at fixed offsets.
struct Batch {
    bytes: Vec<u8>,
    len: usize,
}

impl Batch {
    fn new(packets: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut bytes = vec![0; BATCH * STRIDE];
        let mut len = 0;
        for (room, packet) in bytes.chunks_exact_mut(STRIDE).zip(packets) {
            len = packet.len();
            room[..len].copy_from_slice(&packet);
        }
        Batch { bytes, len }
    }

    fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let len = self.len;
        self.bytes.chunks_exact_mut(STRIDE).map(move |room| &mut room[..len])
    }
}

/// Packets of numbered clients, made from templates.
struct Talk {
    v4: bool,
    /// From the client: SYN, ACK, data. From the server: SYN+ACK, data.
    syn: Vec<u8>,
    ack: Vec<u8>,
    data: Vec<u8>,
    syn_ack: Vec<u8>,
    answer: Vec<u8>,
}

impl Talk {
    fn new(v4: bool) -> Self {
        let client: SocketAddr = if v4 { "100.64.0.0:1" } else { "[2001:db8:c::]:1" }.parse().expect("an address");
        let vip: IpAddr = if v4 { VIP4.into() } else { VIP6.into() };
        let service = SocketAddr::new(vip, 80);
        let real = SocketAddr::new(server(0, vip), SERVER_PORT);
        Talk {
            v4,
            syn: tcp(client, service, "S", 100, 0, b""),
            ack: tcp(client, service, "A", 101, 501, b""),
            data: tcp(client, service, "PA", 101, 501, &[7; 20]),
            syn_ack: tcp(real, client, "SA", 500, 101, b""),
            answer: tcp(real, client, "PA", 501, 101, &[7; 20]),
        }
    }

    /// Returns the packet `template` from or to client `n`, with valid checksums; a reply comes from that client's
    /// server.
    fn packet(&self, template: &[u8], n: u32) -> Vec<u8> {
        let mut packet = template.to_vec();
        let from_client = template.as_ptr() != self.syn_ack.as_ptr() && template.as_ptr() != self.answer.as_ptr();
        let (src, len, ip) = if self.v4 { (12, 4, 20) } else { (8, 16, 40) };
        let client = if from_client { src } else { src + len };
        // The low bits of the address hold the number; the ports are spread.
        packet[client + len - 3..client + len].copy_from_slice(&n.to_be_bytes()[1..]);
        let port = 1024 + (n.wrapping_mul(0x9e37_79b9) >> 18) as u16;
        let port_at = if from_client { ip } else { ip + 2 };
        packet[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
        if !from_client {
            packet[src + len - 1] = (n % WEIGHTS.len() as u32) as u8 + 1;
        }
        resum(&mut packet, ip);
        packet
    }
}

fn resum(packet: &mut [u8], ip: usize) {
    if ip == 20 {
        packet[10..12].fill(0);
        let sum = !checksum::fold(checksum::add(0, &packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet[ip + 16..ip + 18].fill(0);
    let parsed = parse(packet).expect("a valid packet");
    let start = checksum::pseudo(&parsed.addresses, proto::TCP, packet.len() - ip);
    let sum = !checksum::fold(checksum::add(start, &packet[ip..]));
    packet[ip + 16..ip + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Which template the packet with a number in its batch is made from.
type Template = fn(&Talk, usize) -> &Vec<u8>;
type Run = fn(&mut Bench, &mut Batch);

const DATA: Template = |talk, _| &talk.data;
const ANSWER: Template = |talk, _| &talk.answer;
/// Two packets from the server for one from the client.
const BOTH: Template = |talk, i| if i % 3 == 0 { &talk.data } else { &talk.answer };

/// An engine and its time.
struct Bench {
    engine: Engine,
    talk: Talk,
    flows: u32,
    now: Instant,
    /// The first client without a flow.
    next: u32,
    random: Random,
}

impl Bench {
    fn new(v4: bool, flows: u32, room: u32) -> Self {
        Bench::with_half_open(v4, flows, room, 1_000_000)
    }

    fn with_half_open(v4: bool, flows: u32, room: u32, half_open: u32) -> Self {
        let mut settings = settings(&WEIGHTS, flows + room);
        settings.table.max_half_open = half_open;
        // Nothing expires before it is meant to.
        settings.table.timeouts.established = Duration::from_secs(1_000_000);
        settings.table.timeouts.opening = Duration::from_secs(1_000_000);
        let engine = Engine::new(&settings);
        // As the live gateway does.
        equipoise::gateway::huge_pages::advise(engine.memory());
        let mut bench =
            Bench { engine, talk: Talk::new(v4), flows, now: Instant::ZERO, next: 0, random: Random::new(1) };
        bench.fill();
        bench
    }

    /// Establishes flows until there are `flows`; they are last touched in another order than that of their slots.
    fn fill(&mut self) {
        let first = self.next;
        let missing = self.flows - self.engine.counters().flows as u32;
        for n in first..first + missing {
            self.give(&self.talk.packet(&self.talk.syn, n), Side::Client);
            self.give(&self.talk.packet(&self.talk.syn_ack, n), Side::Server);
            self.give(&self.talk.packet(&self.talk.ack, n), Side::Client);
        }
        for i in 0..missing {
            let n = first + scatter(i, missing);
            self.give(&self.talk.packet(&self.talk.data, n), Side::Client);
        }
        self.next += missing;
        assert_eq!(self.engine.counters().flows, u64::from(self.flows));
    }

    fn give(&mut self, packet: &[u8], side: Side) {
        let mut packet = packet.to_vec();
        self.now = self.now + GAP;
        match self.engine.handle_packet(self.now, &mut packet, Meta::default()) {
            Verdict::Forward { why: Forwarded::Translated { from, .. }, .. } if from == side => {}
            other => panic!("{other:?}"),
        }
    }

    fn batch(&mut self, template: Template, mut choose: impl FnMut(&mut Random) -> u32) -> Batch {
        let (talk, random) = (&self.talk, &mut self.random);
        Batch::new((0..BATCH).map(|i| talk.packet(template(talk, i), choose(random))))
    }

    /// Returns packets of established flows, for clients chosen by `choose`.
    fn hit(&mut self, rounds: usize, template: Template, choose: fn(&mut Random, u32) -> u32, run: Run) -> f64 {
        let flows = self.flows;
        let before = self.engine.counters().translated;
        let bench = std::cell::RefCell::new(&mut *self);
        let nanos = measure(
            rounds,
            BATCH,
            || bench.borrow_mut().batch(template, |random| choose(random, flows)),
            |batch| run(&mut bench.borrow_mut(), batch),
        );
        let all = (rounds + rounds / 10) * BATCH;
        assert_eq!(self.engine.counters().translated - before, all as u64, "not every packet hit");
        assert_eq!(self.engine.counters().flows, u64::from(flows));
        nanos
    }

    fn run(&mut self, batch: &mut Batch) {
        for packet in batch.packets() {
            self.now = self.now + GAP;
            black_box(self.engine.handle_packet(self.now, packet, Meta::default()));
        }
    }

    /// Passes a batch to the engine as replays do.
    fn run_in_batches(&mut self, batch: &mut Batch) {
        let mut now = self.now;
        let mut packets: Vec<Packet<'_>> = batch
            .packets()
            .map(|bytes| {
                now = now + GAP;
                Packet { at: now, bytes, meta: Meta::default() }
            })
            .collect();
        self.now = now;
        let mut forwarded = 0;
        for packets in packets.chunks_mut(32) {
            self.engine.handle_batch(packets, |outcome| {
                if let Outcome::Packet { verdict: Verdict::Forward { len, .. }, .. } = black_box(outcome) {
                    forwarded += len;
                }
            });
        }
        black_box(forwarded);
    }

    /// The three packets of a handshake, of clients without a flow; per packet.
    fn handshakes(&mut self, rounds: usize) -> f64 {
        // A multiple of the number of servers.
        const CLIENTS: u32 = 510;
        let mut next = self.next;
        let mut times = Vec::new();
        for _ in 0..rounds {
            let opened = self.engine.counters().flows_opened;
            let of = |template, bench: &Bench| Batch::new((0..CLIENTS).map(|i| bench.talk.packet(template, next + i)));
            let (talk, bench) = (&self.talk, &*self);
            let mut batches = [&talk.syn, &talk.syn_ack, &talk.ack].map(|template| of(template, bench));
            next += CLIENTS;
            let mut established = Vec::with_capacity(CLIENTS as usize);
            let start = std::time::Instant::now();
            for batch in &mut batches {
                established.clear();
                for packet in batch.packets().take(CLIENTS as usize) {
                    self.now = self.now + GAP;
                    let verdict = self.engine.handle_packet(self.now, packet, Meta::default());
                    if let Verdict::Forward { why: Forwarded::Translated { flow, .. }, .. } = verdict {
                        established.push(flow);
                    }
                }
            }
            times.push(start.elapsed().as_nanos() as f64 / f64::from(3 * CLIENTS));
            assert_eq!(self.engine.counters().flows_opened - opened, u64::from(CLIENTS));
            for flow in established {
                self.engine.apply(self.now, Change::Kill { flow }).expect("the flow exists");
            }
        }
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    /// SYNs of clients without a flow: look-up, choice of a server, insertion, rewrite.
    fn miss(&mut self, rounds: usize) -> f64 {
        let mut opened: Vec<FlowId> = Vec::with_capacity(BATCH);
        let mut next = self.next;
        let mut times = Vec::new();
        for _ in 0..rounds {
            let mut batch = Batch::new((0..BATCH as u32).map(|i| self.talk.packet(&self.talk.syn, next + i)));
            next += BATCH as u32;
            let start = std::time::Instant::now();
            for packet in batch.packets() {
                self.now = self.now + GAP;
                let verdict = self.engine.handle_packet(self.now, packet, Meta::default());
                if let Verdict::Forward { why: Forwarded::Translated { flow, opened: true, .. }, .. } = verdict {
                    opened.push(flow);
                }
            }
            times.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
            assert_eq!(opened.len(), BATCH, "not every packet missed");
            for flow in opened.drain(..) {
                self.engine.apply(self.now, Change::Kill { flow }).expect("the flow exists");
            }
        }
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    /// Lists all flows, as `eqctl flows` does; per flow.
    fn list(&mut self, rounds: usize) -> f64 {
        let mut times = Vec::new();
        for _ in 0..rounds.min(3) {
            let start = std::time::Instant::now();
            let (mut rows, mut listed, mut at) = (Vec::new(), 0, Some(Cursor::default()));
            while let Some(cursor) = at {
                rows.clear();
                at = self.engine.flows(self.now, &FlowQuery::default(), cursor, 1000, &mut rows);
                listed += black_box(&rows).len();
            }
            times.push(start.elapsed().as_nanos() as f64 / listed as f64);
            assert_eq!(listed, self.flows as usize);
        }
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    /// Expires flows in the order of their last touch.
    fn expire(&mut self, rounds: usize) -> f64 {
        let empty = measure(1000, 1, || (), |()| ());
        let mut times = Vec::new();
        while times.len() < rounds {
            self.now = self.now + Duration::from_secs(2_000_000);
            let least = u64::from(self.flows / 2);
            while times.len() < rounds && self.engine.counters().flows > least {
                let before = self.engine.counters().flows;
                let start = std::time::Instant::now();
                self.engine.handle_timeout(self.now);
                let nanos = start.elapsed().as_nanos() as f64 - empty;
                times.push(nanos / (before - self.engine.counters().flows) as f64);
            }
            while self.engine.poll_timeout().is_some_and(|at| at <= self.now) {
                self.engine.handle_timeout(self.now);
            }
            self.fill();
        }
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }
}

/// A permutation of the numbers below `end` that jumps all over the range: the factor is a prime above `end`.
fn scatter(i: u32, end: u32) -> u32 {
    (u64::from(i) * 2_654_435_761 % u64::from(end)) as u32
}

fn evenly(random: &mut Random, flows: u32) -> u32 {
    random.below(u64::from(flows)) as u32
}

/// Zipf's law with exponent 1: the flow of rank r is chosen with probability proportional to 1/r.
fn skewed(random: &mut Random, flows: u32) -> u32 {
    let u = random.below(1 << 53) as f64 / (1u64 << 53) as f64;
    let rank = (f64::from(flows + 1)).powf(u) as u32 - 1;
    scatter(rank.min(flows - 1), flows)
}

/// Returns this process's resident memory in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Returns the bytes per flow in a full table, everything included.
fn bytes_per_flow(v4: bool, flows: u32) -> f64 {
    let before = resident();
    // The store of half-open flows is small: it does not grow with the table.
    let bench = Bench::with_half_open(v4, flows, 0, 64);
    (resident().saturating_sub(before)) as f64 / f64::from(black_box(bench).flows)
}

type Row = (&'static str, fn(&mut Bench, usize) -> f64);

/// What is measured for each number of flows, in this order.
const ROWS: [Row; 12] = [
    ("hit from the client, even choice", |bench, rounds| bench.hit(rounds, DATA, evenly, Bench::run)),
    ("hit from the client, Zipf choice", |bench, rounds| bench.hit(rounds, DATA, skewed, Bench::run)),
    ("hit from the server, even choice", |bench, rounds| bench.hit(rounds, ANSWER, evenly, Bench::run)),
    ("hit from the server, Zipf choice", |bench, rounds| bench.hit(rounds, ANSWER, skewed, Bench::run)),
    ("hit from the client, even choice, in batches", |b, rounds| b.hit(rounds, DATA, evenly, Bench::run_in_batches)),
    ("hit from the client, Zipf choice, in batches", |b, rounds| b.hit(rounds, DATA, skewed, Bench::run_in_batches)),
    ("hit from both, even choice", |bench, rounds| bench.hit(rounds, BOTH, evenly, Bench::run)),
    ("hit from both, even choice, in batches", |b, rounds| b.hit(rounds, BOTH, evenly, Bench::run_in_batches)),
    ("miss that opens a flow", Bench::miss),
    ("handshake", Bench::handshakes),
    ("list", Bench::list),
    ("expire", Bench::expire),
];

/// Without `--bench`, as under `cargo test`, the bench only checks that it works.
fn main() {
    let full = std::env::args().any(|arg| arg == "--bench");
    let asked: Vec<u32> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let only = std::env::args().find_map(|arg| Some(arg.strip_prefix("--only=")?.to_lowercase())).unwrap_or_default();
    let wanted = |name: &str| ["ipv4", "ipv6"].iter().any(|v| format!("{}, {v}", name.to_lowercase()).contains(&only));
    let (usual, rounds): (&[u32], usize) = if full { (&[1, 10_000, 1_000_000], 200) } else { (&[1, 100], 3) };
    let sizes = if asked.is_empty() { usual } else { &asked };
    let most = *sizes.last().expect("sizes");
    println!(
        "engine, ns per packet, medians of {rounds} rounds of {BATCH} packets; in brackets: multiples of etherparse's full parse\n"
    );
    println!("{:<60} {:>18} {:>18}", "", "IPv4", "IPv6");
    let memory_name = format!("memory per flow, full table of {}", thousands(most));
    let memory = wanted(&memory_name).then(|| [true, false].map(|v4| bytes_per_flow(v4, most)));
    let references = [true, false].map(|v4| {
        let mut bench = Bench::new(v4, 1, BATCH as u32);
        let make = || bench.batch(DATA, |_| 0);
        measure(rounds, BATCH, make, |batch| {
            for packet in batch.packets() {
                black_box(SlicedPacket::from_ip(black_box(packet)).is_ok());
            }
        })
    });
    let show = |name: String, nanos: [f64; 2]| {
        let [v4, v6] = [0, 1].map(|i| format!("{:.1} ({:.2})", nanos[i], nanos[i] / references[i]));
        println!("{name:<60} {v4:>18} {v6:>18}");
    };
    show("etherparse: full parse, no checksum".into(), references);
    show(
        "parse".into(),
        [true, false].map(|v4| {
            let mut bench = Bench::new(v4, 1, BATCH as u32);
            let make = || bench.batch(DATA, |_| 0);
            measure(rounds, BATCH, make, |batch| {
                for packet in batch.packets() {
                    black_box(parse(black_box(packet)).is_ok());
                }
            })
        }),
    );
    for flows in sizes {
        let mut rows = ROWS.map(|(what, work)| (format!("{what}, {} flows", thousands(*flows)), work)).to_vec();
        rows.retain(|(name, _)| wanted(name));
        if rows.is_empty() {
            continue;
        }
        let mut both = [true, false].map(|v4| Bench::new(v4, *flows, BATCH as u32));
        for (name, work) in rows {
            show(name, both.each_mut().map(|bench| work(bench, rounds)));
        }
    }
    if wanted("start") {
        let start = std::time::Instant::now();
        let engine = Engine::new(&settings(&WEIGHTS, most));
        equipoise::gateway::huge_pages::advise(engine.memory());
        let millis = start.elapsed().as_secs_f64() * 1e3;
        println!("start with room for {} flows: {millis:.1} ms", thousands(most));
    }
    if let Some(memory) = memory {
        let [v4, v6] = memory.map(|bytes| format!("{bytes:.0} bytes"));
        println!("{memory_name:<60} {v4:>18} {v6:>18}");
    }
}

fn thousands(n: u32) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).expect("digits")).collect();
    groups.join(",")
}
