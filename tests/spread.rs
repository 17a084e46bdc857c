//! How the algorithms spread flows, and how many move when a server goes: the table of docs/algorithms.md.
//!
//! ```text
//! cargo test --release --test spread -- --nocapture     prints it
//! BLESS=1 cargo test --release --test spread            writes it
//! ```
//!
//! Without `BLESS` the test fails where the document tells other figures than the code gives.

#[path = "common/random.rs"]
mod random;

use equipoise::balance::{
    Algorithm, Balancer, Listen, Pick, PoolSettings, Prefixes, ServerSettings, ServiceSettings, Tuning,
};
use equipoise::flow::Key;
use equipoise::ids::{PoolId, ServerId, ServiceId};
use equipoise::packet::{Addresses, Protocol};
use equipoise::time::{Duration, Instant};
use random::Random;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;

const FLOWS: u32 = 100_000;
/// New flows a second of simulated time.
const RATE: u64 = 1_000;
/// Flows live 1 to 30 s.
const LIVES: (u64, u64) = (1_000, 29_000);
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/algorithms.md");
const VIP: u32 = 0xc000_0250;

fn service(algorithm: Algorithm, tuning: Tuning) -> ServiceSettings {
    let listen = Listen { address: VIP.to_be_bytes().into(), protocol: Protocol::Tcp, first_port: 80, last_port: 80 };
    ServiceSettings { algorithm, tuning, ..ServiceSettings::new("web", vec![listen], PoolId(0)) }
}

fn balancer(algorithm: Algorithm, tuning: Tuning, weights: &[u16]) -> Balancer {
    let server = |(i, weight): (u32, &u16)| ServerSettings {
        v4: Some((0x0a00_0000 + i).into()),
        weight: *weight,
        ..ServerSettings::new(&format!("web-{i}"), PoolId(0))
    };
    let servers: Vec<_> = (1..).zip(weights).map(server).collect();
    let pool = PoolSettings::new("web", (0..weights.len() as u32).map(ServerId).collect());
    Balancer::new(&[service(algorithm, tuning)], &[pool], &servers, 1)
}

/// A flow of a client: a client's flows differ in their ports.
fn key(client: u32, port: u16) -> Key {
    Key { addresses: Addresses::V4 { src: client, dst: VIP }, src_port: port, dst_port: 80, protocol: Protocol::Tcp }
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// Flows that come, live and end; the share of each server in flows given, relative to its weight's share.
fn shares(algorithm: Algorithm, weights: &[u16]) -> Vec<f64> {
    let mut balancer = balancer(algorithm, Tuning::default(), weights);
    let mut random = Random::new(7);
    let mut ends: BinaryHeap<Reverse<(u64, u32, u32)>> = BinaryHeap::new();
    let mut given = vec![0u32; weights.len()];
    for server in 0..weights.len() as u32 {
        balancer.set_latency(ServerId(server), Duration::from_millis(2));
    }
    for flow in 0..FLOWS {
        let now = u64::from(flow) * 1000 / RATE;
        while let Some(Reverse((_, client, server))) = ends.peek().copied().filter(|Reverse((end, ..))| *end <= now) {
            ends.pop();
            balancer.ended(at(now), ServiceId(0), client.to_be_bytes().into(), ServerId(server));
        }
        // Once a second each server tells its load: its flows, for which it has room by its weight.
        if now.is_multiple_of(1000) {
            for (server, weight) in (0..).zip(weights) {
                let flows = balancer.state(at(now), ServerId(server)).flows;
                let room = 15_500 * u32::from(*weight) * 2 / weights.iter().map(|w| u32::from(*w)).sum::<u32>();
                balancer.report(at(now), ServerId(server), (flows * 100 / room).min(100) as u8, false);
            }
        }
        let key = key(random.next() as u32, random.next() as u16);
        let pick = balancer.pick(at(now), ServiceId(0), &key, &[]).expect("all servers are up");
        balancer.opened(at(now), ServiceId(0), &key, pick);
        given[pick.server.0 as usize] += 1;
        let client = u32::from_be_bytes(match key.addresses {
            Addresses::V4 { src, .. } => src.to_be_bytes(),
            Addresses::V6 { .. } => unreachable!("clients are IPv4"),
        });
        ends.push(Reverse((now + LIVES.0 + random.below(LIVES.1), client, pick.server.0)));
    }
    let sum: u32 = weights.iter().map(|w| u32::from(*w)).sum();
    let fair = |weight: &u16| f64::from(FLOWS) * f64::from(*weight) / f64::from(sum);
    given.iter().zip(weights).map(|(given, weight)| f64::from(*given) / fair(weight)).collect()
}

/// The share of all keys whose server differs after one of `servers` has gone, without those of that server.
fn moved(algorithm: Algorithm, tuning: &Tuning, servers: usize, gone: usize) -> f64 {
    let mut balancer = balancer(algorithm, tuning.clone(), &vec![1; servers]);
    let mut random = Random::new(11);
    let keys: Vec<Key> = (0..FLOWS).map(|_| key(random.next() as u32, random.next() as u16)).collect();
    let pick = |balancer: &mut Balancer, key: &Key| {
        balancer.pick(at(0), ServiceId(0), key, &[]).map_or(u32::MAX, |Pick { server, .. }| server.0)
    };
    let before: Vec<u32> = keys.iter().map(|key| pick(&mut balancer, key)).collect();
    let step = servers / gone;
    let lost = |server: u32| (server as usize).is_multiple_of(step) && (server as usize) < step * gone;
    for server in (0..servers as u32).filter(|server| lost(*server)) {
        balancer.set_weight(at(0), ServerId(server), 0);
    }
    let differs = |(key, before): &(&Key, &u32)| !lost(**before) && pick(&mut balancer, key) != **before;
    keys.iter().zip(&before).filter(differs).count() as f64 / f64::from(FLOWS)
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// The tables as they stand in the document.
fn tables() -> String {
    let weights: Vec<u16> = (1..=10).collect();
    let mut text = String::from(
        "| algorithm | least share | largest share | coefficient of variation | moved when one of 100 servers goes |\n\
         |---|---|---|---|---|\n",
    );
    for algorithm in Algorithm::ALL {
        let shares = shares(algorithm, &weights);
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / shares.len() as f64;
        let (least, largest) = shares.iter().fold((f64::MAX, 0.0f64), |(a, b), s| (a.min(*s), b.max(*s)));
        let moved = match algorithm {
            Algorithm::SourceHash | Algorithm::Maglev => percent(moved(algorithm, &Tuning::default(), 100, 1)),
            _ => "-".into(),
        };
        let name = algorithm.name();
        let (least, largest, deviation) = (percent(least), percent(largest), percent(variance.sqrt() / mean));
        let _ = writeln!(text, "| `{name}` | {least} | {largest} | {deviation} | {moved} |");
    }
    text.push_str(
        "\n| Maglev table | servers | least share | largest share | paper | moved when 1 % of the servers go, beside theirs |\n\
         |---|---|---|---|---|---|\n",
    );
    for (table, servers) in [(65_537, 100), (65_537, 1_000), (655_373, 1_000)] {
        let tuning = Tuning { maglev_table: table, ..Tuning::default() };
        let (least, largest) = entries(&tuning, servers);
        let bound =
            if table as usize > 100 * servers { "at most 1 % apart" } else { "(table under 100 entries a server)" };
        let moved = percent(moved(Algorithm::Maglev, &tuning, servers, servers / 100));
        let _ =
            writeln!(text, "| {table} | {servers} | {} | {} | {bound} | {moved} |", percent(least), percent(largest));
    }
    text
}

/// The least and largest share of the table's entries relative to the even share, found by asking for every entry.
fn entries(tuning: &Tuning, servers: usize) -> (f64, f64) {
    let shares = equipoise::balance::maglev_shares(tuning.maglev_table, servers, 1);
    let even = f64::from(tuning.maglev_table) / servers as f64;
    let of = |n: Option<&u32>| f64::from(*n.expect("servers")) / even;
    (of(shares.iter().min()), of(shares.iter().max()))
}

#[test]
fn the_document_tells_what_the_algorithms_do() {
    let tables = tables();
    println!("{tables}");
    let (start, end) = ("<!-- measured -->\n", "<!-- end -->");
    let text = std::fs::read_to_string(DOCUMENT).expect("docs/algorithms.md");
    let (before, rest) = text.split_once(start).expect("the mark where the tables start");
    let (old, after) = rest.split_once(end).expect("the mark where they end");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(DOCUMENT, format!("{before}{start}\n{tables}\n{end}{after}")).expect("writing the document");
    } else {
        assert_eq!(old.trim(), tables.trim(), "BLESS=1 cargo test --release --test spread writes the new figures");
    }
}

#[test]
fn maglev_is_as_even_as_its_paper_says() {
    // NSDI 2016, 3.4: with a table of more than 100 entries a server their shares differ by 1 % at most.
    for (table, servers) in [(65_537, 10), (65_537, 100), (65_537, 650), (655_373, 1_000)] {
        let (least, largest) = entries(&Tuning { maglev_table: table, ..Tuning::default() }, servers);
        assert!(largest - least <= 0.01, "{table} {servers}: {least} to {largest}");
    }
}

#[test]
fn with_maglev_the_flows_of_a_lost_server_spread_over_all_others() {
    let (one, many) = (Tuning::default(), Tuning { maglev_table: 655_373, ..Tuning::default() });
    let (small, large) = (moved(Algorithm::Maglev, &one, 1_000, 10), moved(Algorithm::Maglev, &many, 1_000, 10));
    // Figure 12 of the paper: a larger table is more resilient.
    assert!(large < small && small < 0.05, "{small} {large}");
    let by_client = Tuning { hash: Some(Prefixes::ADDRESS), ..Tuning::default() };
    assert!(moved(Algorithm::Maglev, &by_client, 100, 1) < 0.04);
}
