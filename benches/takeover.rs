//! What a takeover costs: how long no packet passes, and the memory of both processes together.
//!
//! Run `cargo bench --bench takeover` as root; `-- FLOWS` for another number than 1,000,000. A gateway starts with that
//! many established flows from a state file and hands over five times, while a client sends a datagram each millisecond
//! through it, and counts the time without an answer. Client and server have real-time priority, and the longest that the
//! client slept beyond its millisecond is shown beside. The memory is compared with that of one gateway with these flows.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/established.rs"]
mod established;
#[path = "live/mod.rs"]
mod live;
#[path = "../tests/common/setup.rs"]
mod setup;

use established::write_state;
use live::{ECHO, Gateway, Longest, Net, WEB, talk, until};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const TAKEOVERS: usize = 5;

fn configuration(folder: &Path, flows: u32) -> String {
    let (control, state) = (folder.join("control"), folder.join("state"));
    let max = flows + flows / 16;
    format!(
        "[gateway]\ncontrol-socket={control:?}\nstate-file={state:?}\nstate-interval='1h'\n[flows]\nmax={max}\n{WEB}{ECHO}"
    )
}

/// The milliseconds in a line of the log: "... took 12.3 ms".
fn took(log: &str) -> f64 {
    let line = log.lines().find(|line| line.contains("has taken over")).expect("it has handed over");
    let words: Vec<&str> = line.split_whitespace().collect();
    words[words.len() - 2].parse().unwrap()
}

fn main() {
    let flows = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let net = Arc::new(Net::new("bench-take"));
    let text = configuration(folder.path(), flows);
    std::fs::write(folder.path().join("config"), &text).unwrap();
    let settings = equipoise::config::parse(&text, "bench.toml").unwrap();
    write_state(&folder.path().join("state"), &settings, "192.0.2.80:80".parse().unwrap(), flows);
    let mut running = Gateway::start(&net, folder.path(), "log0", &[]);
    running.begins();
    assert!(running.log().contains(&format!("{flows} flows")), "{}", running.log());
    let (longest, ends) = (Arc::<Longest>::default(), Arc::<AtomicBool>::default());
    let talking = talk(&net, &longest, &ends);
    thread::sleep(Duration::from_secs(2));
    println!(
        "{flows} flows\n\n{:>8} {:>10} {:>14} {:>13} {:>5} {:>17} {:>8}",
        "takeover", "whole, s", "standstill, ms", "no answer, ms", "lost", "client asleep, ms", "memory"
    );
    for number in 1..=TAKEOVERS {
        let (alone, open) = (running.memory(), longest.open.load(Ordering::Relaxed));
        [&longest.silent, &longest.asleep].iter().for_each(|time| time.store(0, Ordering::Relaxed));
        let begun = std::time::Instant::now();
        let next = Gateway::start(&net, folder.path(), &format!("log{number}"), &["--takeover"]);
        let mut most = 0;
        until("the takeover", || {
            most = most.max(running.memory() + next.memory());
            running.has_ended()
        });
        let whole = begun.elapsed();
        thread::sleep(Duration::from_secs(1));
        assert!(next.log().contains("taken over"), "{}", next.log());
        println!(
            "{number:>8} {:>10.2} {:>14.1} {:>13.1} {:>5} {:>17.1} {:>7.2}x",
            whole.as_secs_f64(),
            took(&running.log()),
            longest.silent.load(Ordering::Relaxed) as f64 / 1e3,
            longest.open.load(Ordering::Relaxed) - open,
            longest.asleep.load(Ordering::Relaxed) as f64 / 1e3,
            most as f64 / alone as f64
        );
        running = next;
    }
    ends.store(true, Ordering::Relaxed);
    talking.join().unwrap();
}
