//! What a takeover costs: how long no packet passes, and the memory of both processes together.
//!
//! Run `cargo bench --bench takeover` as root; `-- FLOWS` for another number than 1,000,000. A gateway starts with that
//! many established flows from a state file and hands over five times, while a client sends a datagram each millisecond
//! through it, and counts the time without an answer. The memory is compared with that of one gateway with these flows.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/established.rs"]
mod established;
#[path = "../tests/common/setup.rs"]
mod setup;

use equipoise::gateway::netns::Namespace;
use std::fs::File;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const TAKEOVERS: usize = 5;

fn configuration(folder: &Path, flows: u32) -> String {
    let (control, state) = (folder.join("control"), folder.join("state"));
    format!(
        "[gateway]\ncontrol-socket={control:?}\nstate-file={state:?}\nstate-interval='1h'\n[flows]\nmax={max}\n\
         [[service]]\nname='web'\nlisten='192.0.2.80:80/tcp'\npool='far'\n\
         [[service]]\nname='echo'\nlisten='192.0.2.80:7/udp'\npool='near'\n\
         [[pool]]\nname='far'\nserver=[{{name='a',address='10.88.2.2',port=8080}}]\n\
         [[pool]]\nname='near'\nserver=[{{name='a',address='10.88.2.2',port=7}}]\n",
        max = flows + flows / 16
    )
}

struct Gateway {
    process: Child,
    log: std::path::PathBuf,
}

impl Gateway {
    fn start(at: &Namespace, folder: &Path, number: usize) -> Gateway {
        let log = folder.join(format!("log{number}"));
        let mut command: Command = at.command(env!("CARGO_BIN_EXE_equipoise"));
        command.args(["run", "--config"]).arg(folder.join("config")).env_remove("RUST_LOG");
        if number > 0 {
            command.arg("--takeover");
        }
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn();
        Gateway { process: process.unwrap(), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Returns what it has in memory, in KiB; 0 once it has ended.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
    }

    fn ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The milliseconds in a line of the log: "... took 12.3 ms".
fn took(log: &str) -> f64 {
    let line = log.lines().find(|line| line.contains("has taken over")).expect("it has handed over");
    let words: Vec<&str> = line.split_whitespace().collect();
    words[words.len() - 2].parse().unwrap()
}

/// A client that sends a datagram each millisecond; the longest time without an answer since it was last asked, in
/// microseconds.
fn talk(client: &Namespace, longest: &Arc<AtomicU64>, ends: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let socket = client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.connect("192.0.2.80:7").unwrap();
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
    let [client, gateway, server] =
        ["client", "gateway", "server"].map(|name| Namespace::new(&format!("bench-take-{name}")).unwrap());
    gateway.forward().unwrap();
    let ip = |at: &Namespace, words: &str| {
        assert!(at.command("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
    };
    for (other, n, device) in [(&client, 1, "client"), (&server, 2, "server")] {
        gateway.cable(device, other, "eth0").unwrap();
        ip(&gateway, &format!("address add 10.88.{n}.1/24 dev {device}"));
        ip(other, &format!("address add 10.88.{n}.2/24 dev eth0"));
        ip(&gateway, &format!("link set {device} up"));
        ip(other, "link set eth0 up");
        ip(other, &format!("route add default via 10.88.{n}.1"));
    }
    let echo = server.run(|| UdpSocket::bind("0.0.0.0:7").unwrap()).unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((len, from)) = echo.recv_from(&mut bytes) {
            let _ = echo.send_to(&bytes[..len], from);
        }
    });
    let text = configuration(folder.path(), flows);
    std::fs::write(folder.path().join("config"), &text).unwrap();
    let settings = equipoise::config::parse(&text, "bench.toml").unwrap();
    established::write_state(&folder.path().join("state"), &settings, "192.0.2.80:80".parse().unwrap(), flows);
    let mut running = Gateway::start(&gateway, folder.path(), 0);
    until("the first gateway", || running.log().contains("control socket"));
    assert!(running.log().contains(&format!("{flows} flows")), "{}", running.log());
    let (longest, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let talking = talk(&client, &longest, &ends);
    thread::sleep(Duration::from_secs(2));
    println!(
        "{flows} flows\n\n{:>8} {:>10} {:>14} {:>16} {:>8}",
        "takeover", "whole, s", "standstill, ms", "no answer, ms", "memory"
    );
    for number in 1..=TAKEOVERS {
        let alone = running.memory();
        longest.store(0, Ordering::Relaxed);
        let begun = std::time::Instant::now();
        let next = Gateway::start(&gateway, folder.path(), number);
        let mut most = 0;
        until("the takeover", || {
            most = most.max(running.memory() + next.memory());
            running.ended()
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
