//! The tables of `docs/algorithms.md`, and what a pick costs.
//!
//! `cargo bench --bench spread` prints them; `-- --write` also puts the tables into the document. Costs depend on the
//! machine and stay out of it.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/random.rs"]
mod random;
#[path = "../tests/common/spread.rs"]
mod spread;

use equipoise::balance::Algorithm;
use equipoise::ids::ServiceId;
use equipoise::time::Instant;

const PICKS: u32 = 2_000;
const ROUNDS: u32 = 25;

/// The median, in nanoseconds, of picking a server, opening a flow and ending it.
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
                let pick = balancer.pick(now, web, &key, &[]).expect("all are up");
                balancer.opened(now, web, &key, pick);
                balancer.ended(now, web, key.addresses.src(), pick.server);
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
        let document = spread::put(&document, &tables).expect("both marks stand in docs/algorithms.md");
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
}
