//! How long packets wait for a reload: the longest single step of the thread that handles them.
//!
//! Run `cargo bench --bench reload`. Two configurations that differ by ten servers are put in force in turn, while there are
//! flows. What runs in another thread (`prepare`, `drop`) keeps no packet waiting. Each figure is the median of all reloads; the
//! slowest is beside it.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/setup.rs"]
mod setup;

use equipoise::balance::Algorithm;
use equipoise::config::{self, Settings};
use equipoise::engine::{Engine, Removed};
use equipoise::packet::Meta;
use equipoise::time::{Duration, Instant};
use setup::{VIP4, tcp};
use std::net::{Ipv4Addr, SocketAddr};

/// A service over `servers` servers of which the first `without` are left out, with a monitor.
fn settings(servers: u32, without: u32, algorithm: Algorithm) -> Settings {
    let mut text = format!(
        "seed = 1\n[gateway]\nprobe-address = '192.0.2.1'\n[[service]]\nname = 'web'\nlisten = '{VIP4}:80/tcp'\npool = 'web'\n\
         algorithm = '{}'\n[service.sticky]\nby = 'address'\n[[pool]]\nname = 'web'\n[[pool.monitor]]\ntype = 'icmp'\n",
        algorithm.name()
    );
    for n in without..servers {
        let address = Ipv4Addr::from(0x0a00_0001 + n);
        text += &format!("[[pool.server]]\nname = 's{n}'\naddress = '{address}'\nport = 8080\n");
    }
    config::parse(&text, "bench.toml").unwrap()
}

fn open(engine: &mut Engine, now: Instant, client: u32) {
    let from = SocketAddr::new(Ipv4Addr::from(0x6440_0000 + (client >> 8)).into(), 1024 + (client & 0xff) as u16);
    engine.handle_packet(now, &mut tcp(from, SocketAddr::new(VIP4.into(), 80), "S", 100, 0, b""), Meta::default());
}

/// The times of one step, in microseconds.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn take<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let begin = std::time::Instant::now();
        let result = step();
        self.0.push(begin.elapsed().as_nanos() as f64 / 1e3);
        result
    }

    fn print(mut self) -> String {
        self.0.sort_by(f64::total_cmp);
        format!("{:>9.0} {:>9.0}", self.0[self.0.len() / 2], self.0[self.0.len() - 1])
    }
}

fn measure(servers: u32, algorithm: Algorithm, flows: u32, reloads: u32) {
    let both = [settings(servers, 0, algorithm), settings(servers, servers.min(20) / 2, algorithm)];
    let mut engine = Engine::new(&both[0]);
    let mut now = Instant::ZERO;
    (0..flows).for_each(|client| open(&mut engine, now, client));
    let [mut picture, mut prepare, mut step, mut follow, mut miss, mut drops] = [(); 6].map(|()| Times::default());
    for reload in 1..=reloads {
        now = now + Duration::from_millis(1);
        while engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
        }
        let succession = picture.take(|| engine.succession(now));
        let mut successor = prepare.take(|| succession.prepare(&both[(reload % 2) as usize]));
        while step.take(|| engine.get_ready(now, &mut successor)) {}
        let replaced = follow.take(|| engine.follow(now, successor, Removed::Drain).unwrap());
        drops.take(|| drop(replaced));
        miss.take(|| open(&mut engine, now, flows + reload));
    }
    let columns = [picture, prepare, step, follow, miss, drops].map(Times::print).join("  ");
    println!("{:<18} {servers:>7} {flows:>8}  {columns}", algorithm.name());
}

/// Without `--bench`, as under `cargo test`, the bench only checks that it works.
fn main() {
    let full = std::env::args().any(|arg| arg == "--bench");
    let (servers, flows, reloads) = if full { (10_000, 100_000, 40) } else { (100, 100, 2) };
    println!("microseconds: median and slowest of {reloads} reloads; \"prepare\" and \"drop\" run in another thread\n");
    let header =
        ["picture", "prepare", "step", "follow", "first SYN", "drop"].map(|step| format!("{step:>19}")).join("  ");
    println!("{:<18} {:>7} {:>8}  {header}", "algorithm", "servers", "flows");
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::Maglev, Algorithm::SourceHash] {
        for servers in [servers / 10, servers] {
            measure(servers, algorithm, flows, reloads);
        }
    }
}
