//! The tables of `docs/algorithms.md`, and the cost of a pick.
//!
//! `cargo bench --bench spread` prints them; `-- --write` also writes the tables into the document. Costs depend on
//! the machine and are left out of it.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/random.rs"]
mod random;
#[path = "../tests/common/spread.rs"]
mod spread;

use equipoise::balance::{Algorithm, Listen, PoolSettings, ServerSettings, ServiceSettings};
use equipoise::config::Settings;
use equipoise::engine::{Engine, Verdict};
use equipoise::flow::TableSettings;
use equipoise::ids::{PoolId, ServerId, ServiceId};
use equipoise::packet::{Meta, Protocol};
use equipoise::time::Instant;
use etherparse::PacketBuilder;
use std::net::Ipv4Addr;

const PICKS: u32 = 2_000;
const ROUNDS: u32 = 25;

/// Returns the median time in nanoseconds to pick a server, open a flow and end it.
fn pick(algorithm: Algorithm, servers: usize) -> f64 {
    let table = if servers < 1_000 { 65_537 } else { 655_373 };
    let weights: Vec<u16> = (0..servers).map(|i| i as u16 % 5 + 1).collect();
    let mut balancer = spread::balancer(algorithm, None, None, table, &weights);
    let (web, now) = (ServiceId(0), Instant::from_nanos(1));
    let mut nanos: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let start = std::time::Instant::now();
            for n in 0..PICKS {
                let key = spread::key(round * PICKS + n, 40_000);
                let pick = balancer.pick(now, web, &key, &[]).expect("all servers are up");
                balancer.opened(now, web, &key, pick);
                balancer.ended(now, web, key.addresses.src(), pick.server);
            }
            start.elapsed().as_nanos() as f64 / f64::from(PICKS)
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    nanos[nanos.len() / 2]
}

/// Returns the median time in nanoseconds of a complete miss: a SYN that opens a flow.
fn miss(algorithm: Algorithm, servers: u32) -> f64 {
    let vip = Ipv4Addr::new(192, 0, 2, 80);
    let listen = Listen::one(vip.into(), Protocol::Tcp, 80, 80);
    let mut service = ServiceSettings { algorithm, ..ServiceSettings::new("web", vec![listen], PoolId(0)) };
    service.tuning.maglev_table = 655_373;
    let server = |i| ServerSettings {
        v4: Some(Ipv4Addr::from_bits(0x0a00_0001 + i)),
        ..ServerSettings::new(&format!("web-{i}"), PoolId(0))
    };
    let mut engine = Engine::new(&Settings {
        table: TableSettings { max_flows: 2 * ROUNDS * PICKS, ..TableSettings::default() },
        services: vec![service],
        pools: vec![PoolSettings::new("web", (0..servers).map(ServerId).collect())],
        servers: (0..servers).map(server).collect(),
        ..Settings::default()
    });
    let syn = |n: u32| {
        let client = Ipv4Addr::from_bits(0x6440_0000 + n).octets();
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4(client, vip.octets(), 64).tcp(40_000, 80, 1, 4096).syn();
        builder.write(&mut packet, b"").expect("memory");
        packet
    };
    let mut nanos: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let mut packets: Vec<_> = (0..PICKS).map(|n| syn(round * PICKS + n)).collect();
            let start = std::time::Instant::now();
            for packet in &mut packets {
                let verdict = engine.handle_packet(Instant::from_nanos(1), packet, Meta::default());
                assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            }
            start.elapsed().as_nanos() as f64 / f64::from(PICKS)
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    nanos[nanos.len() / 2]
}

fn main() {
    let tables = spread::tables();
    println!("{tables}");
    if std::env::args().any(|arg| arg == "--write") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/algorithms.md");
        let document = std::fs::read_to_string(path).expect("reading docs/algorithms.md");
        let document = spread::put(&document, &tables).expect("docs/algorithms.md has both marks");
        std::fs::write(path, document).expect("writing docs/algorithms.md");
    }
    println!("| pick, open and end a flow | 10 servers | to round robin | 10,000 servers | to 10 servers |");
    println!("|---|---:|---:|---:|---:|");
    let yardstick = pick(Algorithm::RoundRobin, 10);
    for algorithm in Algorithm::ALL {
        let (few, many) = (pick(algorithm, 10), pick(algorithm, 10_000));
        let (to_robin, to_few) = (few / yardstick, many / few);
        println!("| `{}` | {few:.0} ns | {to_robin:.1} | {many:.0} ns | {to_few:.1} |", algorithm.name());
    }
    println!("\n| the engine's miss, equal servers | 10 servers | 10,000 servers | to 10 servers |");
    println!("|---|---:|---:|---:|");
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::Maglev, Algorithm::SourceHash] {
        let (few, many) = (miss(algorithm, 10), miss(algorithm, 10_000));
        println!("| `{}` | {few:.0} ns | {many:.0} ns | {:.1} |", algorithm.name(), many / few);
    }
}
