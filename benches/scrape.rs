//! What scrapes cost, and whom: the time of a scrape, and the round-trip time of packets meanwhile.
//!
//! Run `cargo bench --bench scrape` as root; `-- SECONDS` for another time per part than 10. A gateway has 1,000 services and
//! 10,000 servers; a client sends a datagram each half a millisecond through it and waits for its answer. First nobody asks for
//! anything, then `/metrics` is read once a second, then by 8 hostile clients that ask for all that costs most, as fast as
//! they are answered.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use equipoise::gateway::netns::Namespace;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const AT: &str = "127.0.0.1:9480";
const SERVICES: usize = 1000;
const SERVERS: usize = 10;

fn configuration(folder: &Path) -> String {
    let control = folder.join("control");
    let mut text = format!(
        "[gateway]\ncontrol-socket={control:?}\n[http]\nlisten='{AT}'\n[[service]]\nname='echo'\nlisten='192.0.2.80:7/udp'\n\
         pool='echo'\n[[pool]]\nname='echo'\nserver=[{{name='a',address='10.88.2.2',port=7}}]\n"
    );
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

struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Gateway {
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }
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

/// Returns the times between a datagram and its answer, in microseconds, in order, and how many are missing.
fn talk(socket: &UdpSocket, time: Duration) -> (Vec<u64>, usize) {
    let (begun, mut times, mut lost, mut bytes) = (Instant::now(), Vec::new(), 0, [0; 64]);
    let mut number = 0_u64;
    while begun.elapsed() < time {
        number += 1;
        let sent = Instant::now();
        socket.send(&number.to_ne_bytes()).unwrap();
        loop {
            match socket.recv(&mut bytes) {
                Ok(8) if bytes[..8] == number.to_ne_bytes() => {
                    times.push(sent.elapsed().as_micros() as u64);
                    break;
                }
                Ok(_) => {}
                Err(_) => {
                    lost += 1;
                    break;
                }
            }
        }
        thread::sleep(Duration::from_micros(500));
    }
    times.sort_unstable();
    (times, lost)
}

fn show(name: &str, (times, lost): &(Vec<u64>, usize), memory: u64) {
    let at = |share: usize| times[(times.len() - 1) * share / 1000];
    println!(
        "{name:<28} {:>8} {:>6} {:>8} {:>8} {:>8} {:>10.1}",
        times.len(),
        lost,
        at(500),
        at(990),
        at(1000),
        memory as f64 / 1024.0
    );
}

fn main() {
    let seconds = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(10);
    let time = Duration::from_secs(seconds);
    let folder = tempfile::tempdir().unwrap();
    let [client, gateway, server] =
        ["client", "gateway", "server"].map(|name| Namespace::new(&format!("bench-scrape-{name}")).unwrap());
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
    std::fs::write(folder.path().join("config"), configuration(folder.path())).unwrap();
    let mut command: Command = gateway.command(env!("CARGO_BIN_EXE_equipoise"));
    command.args(["run", "--config"]).arg(folder.path().join("config")).env_remove("RUST_LOG");
    let log = File::create(folder.path().join("log")).unwrap();
    let running = Gateway(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let begun = Instant::now();
    while gateway.run(|| get("/readyz")).unwrap().is_none() {
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "not ready:\n{log}");
        thread::sleep(Duration::from_millis(50));
    }
    let socket = client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.connect("192.0.2.80:7").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = talk(&socket, Duration::from_secs(1));

    println!(
        "{:<28} {:>8} {:>6} {:>8} {:>8} {:>8} {:>10}",
        "round trips", "answers", "lost", "50 %, us", "99 %, us", "most, us", "MiB"
    );
    show("nobody asks", &talk(&socket, time), running.memory());
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
        show("a scrape each second", &talk(&socket, time), running.memory());
        ends.store(true, Ordering::Relaxed);
        (scrapes, failed) = scraper.join().unwrap().unwrap();
    });
    show("nobody asks", &talk(&socket, time), running.memory());
    ends.store(false, Ordering::Relaxed);
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
                gateway.run(|| {
                    while !ends.load(Ordering::Relaxed) {
                        let _ = get(path);
                    }
                })
            });
        }
        show("8 hostile clients", &talk(&socket, time), running.memory());
        ends.store(true, Ordering::Relaxed);
    });
    let mut times: Vec<Duration> = scrapes.iter().map(|(time, _)| *time).collect();
    times.sort_unstable();
    println!(
        "\n{} scrapes, {failed} failed: {:.1} MB; 50 % in {:.0} ms, the slowest in {:.0} ms",
        times.len(),
        scrapes[0].1 as f64 / 1e6,
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3
    );
}
