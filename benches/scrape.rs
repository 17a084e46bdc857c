//! What scrapes cost, and whom: the time of a scrape, and the round-trip time of packets meanwhile.
//!
//! Run `cargo bench --bench scrape` as root; `-- SECONDS` for another time per part than 10. A gateway has 1,000 services and
//! 10,000 servers; a client sends a datagram each half a millisecond through it and waits for its answer. First nobody asks for
//! anything, then `/metrics` is read once a second, then by 8 hostile clients that ask for all that costs most, as fast as
//! they are answered.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "live/mod.rs"]
mod live;

use live::{ECHO, Gateway, Net, Trips};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const AT: &str = "127.0.0.1:9480";
const SERVICES: usize = 1000;
const SERVERS: usize = 10;

fn configuration(folder: &Path) -> String {
    let control = folder.join("control");
    let mut text = format!("[gateway]\ncontrol-socket={control:?}\n[http]\nlisten='{AT}'\n{ECHO}");
    for n in 1..SERVICES {
        let (a, b) = (n / 250, n % 250);
        write!(text, "[[service]]\nname='service-{n}'\nlisten='198.18.{a}.{b}:80/tcp'\npool='pool-{n}'\n").unwrap();
        write!(text, "[[pool]]\nname='pool-{n}'\nserver=[").unwrap();
        for m in 0..SERVERS {
            write!(text, "{{name='server-{m}',address='10.{}.{b}.{m}'}},", 100 + a).unwrap();
        }
        text += "]\n";
    }
    text
}

/// Returns the processor time that the gateway's thread of this name has had, in milliseconds (proc_pid_schedstat(5)).
fn busy(gateway: &Gateway, name: &str) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap();
    let of = |file: &str, task: &Path| std::fs::read_to_string(task.join(file)).unwrap();
    let mut own = tasks.map(|task| task.unwrap().path()).filter(|task| of("comm", task).trim() == name);
    let text = of("schedstat", &own.next().unwrap());
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

/// Reads a path; returns the time and the length of the response, none if it is no 200.
fn get(path: &str) -> Option<(Duration, usize)> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(AT).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    bytes.starts_with(b"HTTP/1.1 200 ").then(|| (begun.elapsed(), bytes.len()))
}

fn show(name: &str, trips: &Trips, memory: u64) {
    println!(
        "{name:<28} {:>8} {:>6} {:>8} {:>8} {:>8} {:>10.1}",
        trips.times.len(),
        trips.lost,
        trips.at(500),
        trips.at(990),
        trips.at(1000),
        memory as f64 / 1024.0
    );
}

/// Measures round trips while each of 8 clients asks for a page again and again.
fn among_hostile_clients(net: &Net, socket: &UdpSocket, time: Duration) -> Trips {
    let ends = AtomicBool::new(false);
    let paths = [
        "/metrics",
        "/api/servers",
        "/api/flows?limit=10000",
        "/api/explain?client=10.88.1.2",
        "/api/history",
        "/api/monitors",
        "/api/pools",
        "/api/changes",
    ];
    thread::scope(|scope| {
        let ends = &ends;
        for path in paths {
            scope.spawn(|| {
                net.gateway.run(|| {
                    while !ends.load(Ordering::Relaxed) {
                        let _ = get(path);
                    }
                })
            });
        }
        let trips = Trips::measure(socket, time);
        ends.store(true, Ordering::Relaxed);
        trips
    })
}

fn main() {
    let seconds = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(10);
    let time = Duration::from_secs(seconds);
    let folder = tempfile::tempdir().unwrap();
    let net = Net::new("bench-scrape");
    let gateway = &net.gateway;
    std::fs::write(folder.path().join("config"), configuration(folder.path())).unwrap();
    let running = Gateway::start(&net, folder.path(), "log", &[]);
    let begun = Instant::now();
    while gateway.run(|| get("/readyz")).unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not ready:\n{}", running.log());
        thread::sleep(Duration::from_millis(50));
    }
    let socket = net.talker();
    let _ = Trips::measure(&socket, Duration::from_secs(1));

    println!(
        "{:<28} {:>8} {:>6} {:>8} {:>8} {:>8} {:>10}",
        "round trips", "answers", "lost", "50 %, us", "99 %, us", "most, us", "MiB"
    );
    show("nobody asks", &Trips::measure(&socket, time), running.memory());
    let ends = AtomicBool::new(false);
    let (mut scrapes, mut failed) = (Vec::new(), 0);
    thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            gateway.run(|| {
                let (mut all, mut failed) = (Vec::new(), 0);
                while !ends.load(Ordering::Relaxed) {
                    match get("/metrics") {
                        Some(one) => all.push(one),
                        None => failed += 1,
                    }
                    thread::sleep(Duration::from_millis(1000));
                }
                (all, failed)
            })
        });
        show("a scrape each second", &Trips::measure(&socket, time), running.memory());
        ends.store(true, Ordering::Relaxed);
        (scrapes, failed) = scraper.join().unwrap().unwrap();
    });
    show("nobody asks", &Trips::measure(&socket, time), running.memory());
    show("8 hostile clients", &among_hostile_clients(&net, &socket, time), running.memory());
    let mut times: Vec<Duration> = scrapes.iter().map(|(time, _)| *time).collect();
    times.sort_unstable();
    println!(
        "\n{} scrapes, {failed} failed: {:.1} MB; 50 % in {:.0} ms, the slowest in {:.0} ms",
        times.len(),
        scrapes[0].1 as f64 / 1e6,
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3
    );
    // Processor time says what a scrape costs, whatever else this machine has to do.
    let busy = || ["http", "equipoise"].map(|name| busy(&running, name));
    let idle = busy();
    thread::sleep(Duration::from_secs(10));
    let (before, rounds) = (busy(), 10_u32);
    for _ in 0..rounds {
        assert!(gateway.run(|| get("/metrics")).unwrap().is_some());
        thread::sleep(Duration::from_millis(1000));
    }
    let after = busy();
    let each = |place: usize| (after[place] - before[place] - (before[place] - idle[place])) / f64::from(rounds);
    println!("processor time of a scrape: {:.1} ms of the thread, {:.1} ms of the loop", each(0), each(1));
}
