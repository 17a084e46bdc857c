//! What packets notice of somebody who looks: with 1,000,000 flows and traffic, the round trips of a client while nobody asks,
//! while `eqctl flows --sort bytes --top 20` runs each second (`--watch`), and again and again, and while the page is open; and how
//! soon they answer.
//!
//! Run `cargo bench --bench instruments` as root; `-- FLOWS` for another number than 1,000,000. The four take turns within each
//! round, and a ratio is to the part of the same round in which nobody asks.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/common/established.rs"]
mod established;
#[path = "live/mod.rs"]
mod live;
#[path = "../tests/common/setup.rs"]
mod setup;

use established::write_state;
use live::{ECHO, Gateway, Net, Trips, WEB};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
/// How long each part of a round takes.
const PART: Duration = Duration::from_secs(3);
const AT: &str = "127.0.0.1:9480";
/// Datagrams per millisecond beside those that are measured.
const BESIDE: usize = 8;
/// What the page asks for when it opens, and again each second.
const PAGE: [&str; 5] = ["/", "/api/status", "/api/counters", "/api/services", "/api/servers"];

fn configuration(folder: &Path, flows: u32) -> String {
    let (control, state) = (folder.join("control"), folder.join("state"));
    let max = flows + flows / 16;
    format!(
        "[gateway]\ncontrol-socket={control:?}\nstate-file={state:?}\nstate-interval='1h'\n[flows]\nmax={max}\n\
         [http]\nlisten='{AT}'\n{WEB}{ECHO}"
    )
}

/// Sends datagrams from sockets in turns until it ends.
fn traffic(sockets: &[UdpSocket], ends: &AtomicBool) {
    let mut bytes = [0; 64];
    while !ends.load(Ordering::Relaxed) {
        for socket in sockets {
            let _ = socket.send(b"beside");
            while socket.recv(&mut bytes).is_ok() {}
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Asks for a path; returns the time until the first byte of its response, which it reads to the end.
fn get(path: &str) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(AT).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut start = [0; 13];
    stream.read_exact(&mut start).unwrap();
    let first = begun.elapsed();
    assert_eq!(&start, b"HTTP/1.1 200 ", "{path}");
    stream.read_to_end(&mut Vec::new()).unwrap();
    first
}

/// Lists the busiest flows; returns the time until the first byte of the list.
fn list(net: &Net, control: &Path) -> Duration {
    let begun = Instant::now();
    let mut command = net.gateway.command(env!("CARGO_BIN_EXE_eqctl"));
    command.arg("--socket").arg(control).args(["flows", "--sort", "bytes", "--top", "20"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    let first = begun.elapsed();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success() && text.lines().count() >= 20, "{text}");
    first
}

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    Nobody,
    Watch,
    Eqctl,
    Page,
}

struct Bench {
    net: Net,
    control: PathBuf,
    socket: UdpSocket,
}

impl Bench {
    /// Measures round trips while somebody looks; returns them and the times until the answers began.
    fn part(&self, who: Looks) -> (Trips, Vec<Duration>) {
        let ends = AtomicBool::new(false);
        thread::scope(|scope| {
            let looker = scope.spawn(|| {
                let mut firsts = Vec::new();
                while !ends.load(Ordering::Relaxed) {
                    match who {
                        Looks::Nobody => thread::sleep(Duration::from_millis(50)),
                        Looks::Watch => {
                            firsts.push(list(&self.net, &self.control));
                            thread::sleep(Duration::from_secs(1));
                        }
                        Looks::Eqctl => firsts.push(list(&self.net, &self.control)),
                        Looks::Page => {
                            firsts.push(self.net.gateway.run(|| PAGE.map(get).iter().sum()).unwrap());
                            thread::sleep(Duration::from_secs(1));
                        }
                    }
                }
                firsts
            });
            let trips = Trips::measure(&self.socket, PART);
            ends.store(true, Ordering::Relaxed);
            (trips, looker.join().unwrap())
        })
    }
}

fn median<T: PartialOrd + Copy>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

fn show(name: &str, parts: &mut [(Trips, f64)], firsts: &mut [Duration]) {
    let each = |share| median(&mut parts.iter().map(|(trips, _)| trips.at(share)).collect::<Vec<_>>());
    let (half, most) = (each(500), each(990));
    let lost: usize = parts.iter().map(|(trips, _)| trips.lost).sum();
    let mut ratios: Vec<f64> = parts.iter().map(|(_, ratio)| *ratio).collect();
    let ratio = median(&mut ratios);
    let (least, largest) = (ratios[0], ratios[ratios.len() - 1]);
    print!("{name:<30} {half:>8} {most:>8} {ratio:>6.2} {least:>6.2} {largest:>6.2} {lost:>5}");
    if firsts.is_empty() {
        return println!();
    }
    firsts.sort_unstable();
    let ms = |share: usize| firsts[(firsts.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!(" {:>7} {:>8.0} {:>8.0} {:>8.0}", firsts.len(), ms(50), ms(99), ms(100));
}

fn main() {
    let flows = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let net = Net::new("bench-look");
    let text = configuration(folder.path(), flows);
    std::fs::write(folder.path().join("config"), &text).unwrap();
    let settings = equipoise::config::parse(&text, "bench.toml").unwrap();
    write_state(&folder.path().join("state"), &settings, "192.0.2.80:80".parse().unwrap(), flows);
    let running = Gateway::start(&net, folder.path(), "log", &[]);
    running.begins();
    assert!(running.log().contains(&format!("{flows} flows")), "{}", running.log());
    let beside: Vec<UdpSocket> = (0..BESIDE).map(|_| net.talker()).collect();
    beside.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
    let bench = Bench { socket: net.talker(), control: folder.path().join("control"), net };
    let ends = AtomicBool::new(false);
    let mut all = [Looks::Nobody, Looks::Watch, Looks::Eqctl, Looks::Page].map(|who| (who, Vec::new(), Vec::new()));
    thread::scope(|scope| {
        scope.spawn(|| traffic(&beside, &ends));
        bench.part(Looks::Nobody);
        for _ in 0..ROUNDS {
            let mut alone = 1.0;
            for (who, parts, firsts) in &mut all {
                let (trips, answers) = bench.part(*who);
                let p99 = trips.at(990) as f64;
                if *who == Looks::Nobody {
                    alone = p99;
                }
                parts.push((trips, p99 / alone));
                firsts.extend(answers);
            }
        }
        ends.store(true, Ordering::Relaxed);
    });
    println!(
        "{flows} flows, {BESIDE},000 datagrams per second beside; medians of {ROUNDS} rounds, ratios of the 99 %\n"
    );
    println!(
        "{:<30} {:>8} {:>8} {:>6} {:>6} {:>6} {:>5} {:>7} {:>8} {:>8} {:>8}",
        "round trips, us", "50 %", "99 %", "ratio", "least", "most", "lost", "answers", "50 %, ms", "99 %", "slowest"
    );
    for ((_, parts, firsts), name) in
        all.iter_mut().zip(["nobody", "eqctl flows, each second", "eqctl flows, again and again", "page, each second"])
    {
        show(name, parts, firsts);
    }
}
