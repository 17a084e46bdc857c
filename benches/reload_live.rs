//! How long a client is without an answer while a gateway reloads a file in which ten servers of many come or go.
//!
//! Run `cargo bench --bench reload_live` as root; `-- SERVERS` for another number than 10,000. A client sends a datagram each
//! millisecond through the gateway. Client and server have real-time priority, and the longest that the client slept beyond its
//! millisecond is shown beside: what the machine adds.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "live/mod.rs"]
mod live;

use live::{ECHO, Gateway, Longest, Net, talk, until};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const RELOADS: usize = 20;
const OTHERS: usize = 10;

fn configuration(folder: &Path, servers: usize) -> String {
    let control = folder.join("control");
    let mut text = format!(
        "[gateway]\ncontrol-socket={control:?}\n{ECHO}[[service]]\nname='many'\nlisten='192.0.2.81:80/tcp'\npool='many'\n\
         [[pool]]\nname='many'\n"
    );
    for n in 0..servers {
        // Scattered, so that few networks cover them badly.
        let address = std::net::Ipv4Addr::from(0x0a5a_0000 + 3 * n as u32);
        writeln!(text, "[[pool.server]]\nname='s{n}'\naddress='{address}'\nport={}", 8000 + n % 7).unwrap();
    }
    text
}

fn main() {
    let servers = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(10_000);
    let folder = tempfile::tempdir().unwrap();
    let net = Arc::new(Net::new("bench-load"));
    let write = |count| std::fs::write(folder.path().join("config"), configuration(folder.path(), count)).unwrap();
    write(servers);
    let mut route = net.gateway.command("ip");
    assert!(route.args(["route", "add", "10.90.0.0/16", "via", "10.88.2.2"]).status().unwrap().success());
    let gateway = Gateway::start(&net, folder.path(), "log", &[]);
    gateway.begins();
    let (longest, ends) = (Arc::<Longest>::default(), Arc::<AtomicBool>::default());
    let talking = talk(&net, &longest, &ends);
    thread::sleep(Duration::from_secs(3));
    let take = || [&longest.silent, &longest.asleep].map(|time| time.swap(0, Ordering::Relaxed) as f64 / 1e3);
    let mut all = Vec::new();
    println!("{servers} servers, {OTHERS} of which come or go\n");
    println!("{:>8} {:>13} {:>17} {:>21}", "reload", "no answer, ms", "client asleep, ms", "before it: no answer");
    for number in 1..=RELOADS {
        take();
        thread::sleep(Duration::from_secs(1));
        let [quiet, _] = take();
        let done = gateway.log().matches("reload: ").count() + OTHERS;
        write(if number % 2 == 1 { servers - OTHERS } else { servers });
        kill_process(Pid::from_raw(gateway.id() as i32).unwrap(), Signal::HUP).unwrap();
        until("the reload", || gateway.log().matches("reload: ").count() >= done);
        thread::sleep(Duration::from_millis(500));
        let [silent, asleep] = take();
        println!("{number:>8} {silent:>13.1} {asleep:>17.1} {quiet:>21.1}");
        all.push(silent);
    }
    all.sort_by(f64::total_cmp);
    println!("\nno answer: median {:.1} ms, longest {:.1} ms", all[RELOADS / 2], all[RELOADS - 1]);
    ends.store(true, Ordering::Relaxed);
    talking.join().unwrap();
}
