//! What a takeover costs: how long no packet passes, and the memory of both processes together.
//!
//! Run `cargo bench --bench takeover` as root; `-- FLOWS` for another number than 1,000,000. A gateway starts with that
//! many established flows from a state file and hands over five times, while a client sends a datagram each millisecond
//! through it, and counts the time without an answer. The memory is compared with that of one gateway with these flows.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/established.rs"]
mod established;
#[path = "live/mod.rs"]
mod live;
#[path = "../tests/common/setup.rs"]
mod setup;

use established::write_state;
use live::{ECHO, Gateway, Net, WEB, until};
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// A client that sends a datagram each millisecond; the longest time without an answer since it was last asked, in
/// microseconds.
fn talk(socket: UdpSocket, longest: &Arc<AtomicU64>, ends: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    socket.set_nonblocking(true).unwrap();
    let (longest, ends) = (Arc::clone(longest), Arc::clone(ends));
    thread::spawn(move || {
        let (mut heard, mut bytes) = (std::time::Instant::now(), [0; 64]);
        while !ends.load(Ordering::Relaxed) {
            let _ = socket.send(b"ping");
            thread::sleep(Duration::from_millis(1));
            while socket.recv(&mut bytes).is_ok() {
                longest.fetch_max(heard.elapsed().as_micros() as u64, Ordering::Relaxed);
                heard = std::time::Instant::now();
            }
        }
    })
}

fn main() {
    let flows = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let net = Net::new("bench-take");
    let text = configuration(folder.path(), flows);
    std::fs::write(folder.path().join("config"), &text).unwrap();
    let settings = equipoise::config::parse(&text, "bench.toml").unwrap();
    write_state(&folder.path().join("state"), &settings, "192.0.2.80:80".parse().unwrap(), flows);
    let mut running = Gateway::start(&net, folder.path(), "log0", &[]);
    running.begins();
    assert!(running.log().contains(&format!("{flows} flows")), "{}", running.log());
    let (longest, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let talking = talk(net.talker(), &longest, &ends);
    thread::sleep(Duration::from_secs(2));
    println!(
        "{flows} flows\n\n{:>8} {:>10} {:>14} {:>16} {:>8}",
        "takeover", "whole, s", "standstill, ms", "no answer, ms", "memory"
    );
    for number in 1..=TAKEOVERS {
        let alone = running.memory();
        longest.store(0, Ordering::Relaxed);
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
            "{number:>8} {:>10.2} {:>14.1} {:>16.1} {:>7.2}x",
            whole.as_secs_f64(),
            took(&running.log()),
            longest.load(Ordering::Relaxed) as f64 / 1e3,
            most as f64 / alone as f64
        );
        running = next;
    }
    ends.store(true, Ordering::Relaxed);
    talking.join().unwrap();
}
