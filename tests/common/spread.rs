//! The figures in `docs/algorithms.md`: how evenly each algorithm spreads flows, and which flows move when servers
//! are lost.
//!
//! All of them come from the library's balancer, in virtual time, with fixed seeds: the same figures everywhere.

#![allow(dead_code)]

use crate::random::Random;
use equipoise::balance::{
    Algorithm, Balancer, Health, Listen, PoolSettings, Prefixes, ServerSettings, ServiceSettings, Stickiness, Tuning,
};
use equipoise::flow::Key;
use equipoise::ids::{PoolId, ServerId, ServiceId};
use equipoise::packet::{Addresses, Protocol};
use equipoise::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// Flows per run.
pub const FLOWS: u32 = 100_000;
/// Weights of the servers whose shares are measured.
pub const WEIGHTS: [u16; 10] = [1, 2, 3, 4, 5, 5, 4, 3, 2, 1];
/// The marks around the tables in the document.
pub const MARKS: [&str; 2] = ["<!-- begin: cargo bench --bench spread -- --write -->", "<!-- end -->"];

const CLIENTS: u64 = 20_000;
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const SEED: u64 = 2016;
const WEB: ServiceId = ServiceId(0);

/// Returns both tables, in Markdown.
pub fn tables() -> String {
    let mut out = String::from(
        "| algorithm | least share | greatest share | variation | moved: others' flows | moved: all |\n\
         |---|---:|---:|---:|---:|---:|\n",
    );
    for (name, algorithm, hash, sticky) in rows() {
        let shares = shares(algorithm, hash, sticky.clone());
        let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
        let most = shares.iter().copied().fold(0.0, f64::max);
        let variation = variation(&shares);
        write!(out, "| {name} | {least:.1} % | {most:.1} % | {variation:.2} % |").expect("memory");
        if sticky.is_some() || matches!(algorithm, Algorithm::SourceHash | Algorithm::Maglev) {
            let moved = moved(algorithm, hash, sticky, 65_537, 100, 1);
            writeln!(out, " {:.2} % | {:.2} % |", moved.others, moved.all).expect("memory");
        } else {
            out.push_str(" n/a | n/a |\n");
        }
    }
    out.push_str(
        "\n| servers lost of 1,000 | table | flows that change | the paper's procedure |\n|---:|---:|---:|---:|\n",
    );
    for size in [65_537, 655_373] {
        for lost in [1, 10, 20, 50] {
            let moved = moved(Algorithm::Maglev, None, None, size, 1000, lost).all;
            let paper = paper_changes(size, 1000, lost);
            writeln!(out, "| {lost} | {size} | {moved:.2} % | {paper:.2} % |").expect("memory");
        }
    }
    out
}

/// Returns the document with the tables between its marks.
pub fn put(document: &str, tables: &str) -> Option<String> {
    let (before, rest) = document.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some(format!("{before}{}\n\n{tables}\n{}{after}", MARKS[0], MARKS[1]))
}

fn rows() -> Vec<(String, Algorithm, Option<Prefixes>, Option<Stickiness>)> {
    let mut rows = Vec::new();
    for algorithm in Algorithm::ALL {
        let name = format!("`{}`", algorithm.name());
        match algorithm {
            Algorithm::Maglev => {
                rows.push((format!("{name}, `hash = \"flow\"`"), algorithm, None, None));
                rows.push((format!("{name}, `hash = \"address\"`"), algorithm, Some(Prefixes::ADDRESS), None));
            }
            _ => rows.push((name.clone(), algorithm, None, None)),
        }
        if algorithm == Algorithm::RoundRobin {
            let sticky =
                Stickiness { prefixes: Prefixes::ADDRESS, idle: Duration::from_secs(300), slots: 200_000, group: 0 };
            rows.push((format!("{name}, sticky by address"), algorithm, None, Some(sticky)));
        }
    }
    rows
}

/// A service over servers of these weights. For `priority` the second half of the servers is on standby.
pub fn balancer(
    algorithm: Algorithm,
    hash: Option<Prefixes>,
    sticky: Option<Stickiness>,
    table: u32,
    weights: &[u16],
) -> Balancer {
    let listen = Listen::one(VIP.into(), Protocol::Tcp, 80, 80);
    let tuning = Tuning { maglev_table: table, hash, ..Tuning::default() };
    let service = ServiceSettings { algorithm, tuning, sticky, ..ServiceSettings::new("web", vec![listen], PoolId(0)) };
    let server = |(i, weight): (usize, &u16)| ServerSettings {
        v4: Some(Ipv4Addr::from_bits(0x0a00_0001 + i as u32)),
        weight: *weight,
        priority: if i < weights.len() / 2 { 1 } else { 2 },
        ..ServerSettings::new(&format!("web-{i}"), PoolId(0))
    };
    let servers: Vec<_> = weights.iter().enumerate().map(server).collect();
    let pool = PoolSettings::new("web", (0..servers.len() as u32).map(ServerId).collect());
    Balancer::new(&[service], &[pool], &servers, SEED)
}

/// The key of a connection from client `n`.
pub fn key(n: u32, port: u16) -> Key {
    let client = IpAddr::from(Ipv4Addr::from_bits(0x6440_0000 + n));
    let addresses = Addresses::new(client, VIP.into()).expect("one family");
    Key { addresses, src_port: port, dst_port: 80, protocol: Protocol::Tcp }
}

/// Returns each server's flows in percent of its weight's share; for `priority` those of the first group.
///
/// 20,000 clients open a thousand flows per second. A flow lasts up to 2 s, one in twenty up to 20 s. Every 100 ms
/// one server's monitor reports, each in turn: the round trip is 1 ms plus 10 us per flow, smoothed by an eighth; the
/// load is a fifth of a percent per flow.
fn shares(algorithm: Algorithm, hash: Option<Prefixes>, sticky: Option<Stickiness>) -> Vec<f64> {
    let mut balancer = balancer(algorithm, hash, sticky, 65_537, &WEIGHTS);
    let mut random = Random::new(SEED);
    let mut ends: BinaryHeap<Reverse<(Instant, IpAddr, ServerId)>> = BinaryHeap::new();
    let (mut flows, mut got, mut latency) = ([0u32; 10], [0u32; 10], [1_000.0f64; 10]);
    for n in 0..FLOWS {
        let now = Instant::from_nanos(u64::from(n) * 1_000_000);
        while let Some(Reverse((when, client, server))) =
            ends.peek().copied().filter(|Reverse((when, ..))| *when <= now)
        {
            ends.pop();
            flows[server.0 as usize] -= 1;
            balancer.ended(when, WEB, client, server);
        }
        while balancer.poll_timeout().is_some_and(|when| when <= now) {
            balancer.handle_timeout(now);
        }
        if n % 100 == 0 {
            let i = n as usize / 100 % WEIGHTS.len();
            latency[i] += (1_000.0 + 10.0 * f64::from(flows[i]) - latency[i]) / 8.0;
            balancer.set_latency(ServerId(i as u32), Duration::from_nanos((latency[i] * 1000.0) as u64));
            // A flow costs a server of weight 3 a fifth of a percent; a server of more weight bears it more easily.
            let load = flows[i] * 3 / (5 * u32::from(WEIGHTS[i]));
            balancer.report(now, ServerId(i as u32), load.min(100) as u8, false);
        }
        let key = key(random.below(CLIENTS) as u32, 1024 + random.below(64_000) as u16);
        let longest = if random.below(20) == 0 { 20_000_000_000 } else { 2_000_000_000 };
        let pick = balancer.pick(now, WEB, &key, &[]).expect("all servers are up");
        balancer.opened(now, WEB, &key, pick);
        flows[pick.server.0 as usize] += 1;
        got[pick.server.0 as usize] += 1;
        let end = now + Duration::from_nanos(random.below(longest) + 1);
        ends.push(Reverse((end, key.addresses.src(), pick.server)));
    }
    assert_eq!(got.iter().sum::<u32>(), FLOWS);
    let serving = if algorithm == Algorithm::Priority { WEIGHTS.len() / 2 } else { WEIGHTS.len() };
    let sum: u32 = WEIGHTS[..serving].iter().map(|weight| u32::from(*weight)).sum();
    let promised = |i: usize| f64::from(FLOWS) * f64::from(WEIGHTS[i]) / f64::from(sum);
    (0..serving).map(|i| f64::from(got[i]) / promised(i) * 100.0).collect()
}

/// Returns the standard deviation over the mean, in percent.
fn variation(shares: &[f64]) -> f64 {
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let square = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / shares.len() as f64;
    square.sqrt() / mean * 100.0
}

/// Flows that are on another server after the loss than before, in percent of all flows.
pub struct Moved {
    /// Those of servers that remained.
    pub others: f64,
    /// Those and the flows of lost servers, which must move.
    pub all: f64,
}

/// Asks for the servers of 100,000 clients, takes down `lost` of the `servers`, and asks again.
pub fn moved(
    algorithm: Algorithm,
    hash: Option<Prefixes>,
    sticky: Option<Stickiness>,
    table: u32,
    servers: usize,
    lost: usize,
) -> Moved {
    let mut balancer = balancer(algorithm, hash, sticky, table, &vec![1; servers]);
    let ask = |balancer: &mut Balancer| -> Vec<ServerId> {
        (0..FLOWS)
            .map(|n| {
                let (now, key) = (Instant::from_nanos(u64::from(n) * 1_000), key(n, 40_000));
                let pick = balancer.pick(now, WEB, &key, &[]).expect("others are up");
                balancer.opened(now, WEB, &key, pick);
                balancer.ended(now, WEB, key.addresses.src(), pick.server);
                pick.server
            })
            .collect()
    };
    let before = ask(&mut balancer);
    let gone = some_of(servers, lost);
    for (place, _) in gone.iter().enumerate().filter(|(_, gone)| **gone) {
        balancer.set_health(Instant::ZERO, ServerId(place as u32), false, |_| Health::Down);
    }
    let after = ask(&mut balancer);
    assert!(after.iter().all(|server| !gone[server.0 as usize]), "a server that is down was picked");
    let moved = || before.iter().zip(&after).filter(|(before, after)| before != after).map(|(before, _)| before);
    let percent = |n: usize| n as f64 * 100.0 / f64::from(FLOWS);
    let others = moved().filter(|before| !gone[before.0 as usize]).count();
    Moved { others: percent(others), all: percent(moved().count()) }
}

fn some_of(servers: usize, lost: usize) -> Vec<bool> {
    let mut random = Random::new(SEED + lost as u64);
    let mut gone = vec![false; servers];
    let mut left = lost;
    while left > 0 {
        let place = random.below(servers as u64) as usize;
        left -= usize::from(!gone[place]);
        gone[place] = true;
    }
    gone
}

/// Returns the entries that change, in percent, by the paper's published procedure (figure 4) with random
/// permutations.
pub fn paper_changes(size: u32, servers: usize, lost: usize) -> f64 {
    let size = size as usize;
    let mut random = Random::new(SEED);
    let mut below = |end: usize| random.below(end as u64) as usize;
    let orders: Vec<_> = (0..servers).map(|_| (below(size), below(size - 1) + 1)).collect();
    let before = populate(size, &orders, &vec![false; servers]);
    let after = populate(size, &orders, &some_of(servers, lost));
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    changed as f64 * 100.0 / size as f64
}

fn populate(size: usize, orders: &[(usize, usize)], gone: &[bool]) -> Vec<u32> {
    let (mut next, mut entry, mut filled) = (vec![0; orders.len()], vec![u32::MAX; size], 0);
    loop {
        for (i, (offset, skip)) in orders.iter().enumerate().filter(|(i, _)| !gone[*i]) {
            let permutation = |j: usize| (offset + j * skip) % size;
            let mut c = permutation(next[i]);
            while entry[c] != u32::MAX {
                next[i] += 1;
                c = permutation(next[i]);
            }
            entry[c] = i as u32;
            next[i] += 1;
            filled += 1;
            if filled == size {
                return entry;
            }
        }
    }
}
