//! What a flood of SYNs leaves to those who are connected already: an iperf3 stream, a connection that asks something
//! every 10 ms, and monitors. The cables are veth pairs without delay, so that the stream is as fast as it can be.

use super::Workers;
use super::strangers::syns;
use crate::Service;
use crate::world::{PROBES, Running, SERVICE, World, eventually, program, run};
use equipoise::gateway::tun::Tun;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const STREAM: Service = ("stream", "5201/tcp", 1, 5201);
const ASKED: Service = ("asked", "7000/tcp", 1, 7000);
/// What is flooded and monitored.
const WEB: Service = ("web", "80/tcp", 3, 8080);
/// How often the connection asks.
const EACH: Duration = Duration::from_millis(10);

/// What packets go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// The kernel's own forwarding, to the servers' addresses.
    Forwarding,
    Equipoise,
    /// Equipoise with `shortcut = true`.
    Shortcut,
    /// Equipoise without the right to load BPF programs, so with one queue.
    OneQueue,
}

impl Through {
    pub const ALL: [Through; 4] = [Through::Forwarding, Through::Equipoise, Through::Shortcut, Through::OneQueue];

    pub fn name(self) -> &'static str {
        match self {
            Through::Forwarding => "forwarding",
            Through::Equipoise => "Equipoise",
            Through::Shortcut => "shortcut",
            Through::OneQueue => "one queue",
        }
    }
}

/// What was left.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    /// SYNs per second.
    pub flood: u64,
    /// Of the stream.
    pub gbits: f64,
    /// From question to answer, if any was answered; and how many were.
    pub median: Option<Duration>,
    pub p99: Option<Duration>,
    pub answers: usize,
    /// How often a monitor with an interval and a timeout of 500 ms took a server down; none without monitors.
    pub downs: Option<usize>,
    /// Packets that the gateway's device lost; none without one.
    pub lost: Option<u64>,
}

/// The words through which a program loses the right to load BPF programs.
pub fn without_bpf() -> [String; 3] {
    let setpriv = program("setpriv").to_str().unwrap().to_owned();
    [setpriv, "--bounding-set=-bpf,-sys_admin".into(), "--inh-caps=-bpf,-sys_admin".into()]
}

/// Measures for some seconds while `rate` SYNs per second arrive, or as many as can be sent.
pub fn measure(through: Through, rate: u32, seconds: u32) -> Left {
    let world = World::new("established");
    let mut workers = Workers::new();
    serve(&world, &mut workers);
    let mut iperf3 = world.servers[0].command(program("iperf3").to_str().unwrap());
    let _iperf3 = Running::start(iperf3.args(["-s", "-p", "5201"]).stdout(Stdio::null()));
    world.listening(1, 5201);
    let gateway = start(&world, through);
    let to = |port: u16, own: u16| match through {
        Through::Forwarding => SocketAddr::new(World::server_address(1, 0), own),
        _ => SocketAddr::new(SERVICE[0].parse().unwrap(), port),
    };
    let mut asked = world.client.run(|| TcpStream::connect(to(7000, 7000))).unwrap().unwrap();
    asked.set_nodelay(true).unwrap();
    asked.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    if rate > 0 {
        flood(&world, to(80, 8080), rate, sent.clone(), &mut workers);
    }
    std::thread::sleep(Duration::from_secs(1));
    let (before, began) = (sent.load(Ordering::Relaxed), Instant::now());
    let mut client = world.client.command(program("iperf3").to_str().unwrap());
    let target = to(5201, 5201);
    client.args(["-J", "-c", &target.ip().to_string(), "-p", "5201", "-t", &seconds.to_string()]);
    let stream = std::thread::spawn(move || run(client.stdin(Stdio::null())));
    let mut took = ask(&mut asked, Duration::from_secs(seconds.into()));
    let output = stream.join().unwrap();
    let flood = (sent.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0);
    workers.end();
    took.sort_unstable();
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied();
    let (downs, lost) = match gateway {
        Some(_) => (Some(world.log().matches("is DOWN").count()), Some(world.totals().device.lost)),
        None => (None, None),
    };
    Left { flood: flood as u64, gbits: bits / 1e9, median: at(0.5), p99: at(0.99), answers: took.len(), downs, lost }
}

fn start(world: &World, through: Through) -> Option<Running> {
    let [v4, v6] = PROBES;
    let gateway = format!("probe-address = [\"{v4}\", \"{v6}\"]\nshortcut = {}", through == Through::Shortcut);
    let configuration = world.configuration(&gateway, &[STREAM, ASKED, WEB]) + MONITOR;
    match through {
        Through::Forwarding => None,
        Through::Equipoise | Through::Shortcut => Some(world.start(&configuration)),
        Through::OneQueue => {
            let words = without_bpf();
            Some(world.start_by(&configuration, &words.each_ref().map(String::as_str)))
        }
    }
}

const MONITOR: &str = "[[pool.monitor]]\nname = \"port\"\ntype = \"tcp\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\n";

/// Listens on the web port of all servers, and answers what is asked.
fn serve(world: &World, workers: &mut Workers) {
    for server in &world.servers {
        server.sysctl("net/ipv4/tcp_syncookies", "2").unwrap();
        let web = server.run(|| TcpListener::bind(("::", 8080))).unwrap().unwrap();
        web.set_nonblocking(true).unwrap();
        workers.start("lab-web", move |stop| {
            while !stop.load(Ordering::Relaxed) {
                while web.accept().is_ok() {}
                std::thread::sleep(EACH);
            }
        });
    }
    let asked = world.servers[0].run(|| TcpListener::bind(("::", 7000))).unwrap().unwrap();
    workers.start("lab-asked", move |stop| {
        let Ok((mut stream, _)) = asked.accept() else { return };
        let _ = stream.set_nodelay(true);
        let mut byte = [0];
        while !stop.load(Ordering::Relaxed) && stream.read_exact(&mut byte).is_ok() {
            let _ = stream.write_all(&byte);
        }
    });
}

/// Asks every 10 ms; returns how long each answer took.
fn ask(stream: &mut TcpStream, span: Duration) -> Vec<Duration> {
    let (end, mut took) = (Instant::now() + span, Vec::new());
    while Instant::now() < end {
        let begun = Instant::now();
        if stream.write_all(b"?").is_err() || stream.read_exact(&mut [0]).is_err() {
            break;
        }
        took.push(begun.elapsed());
        std::thread::sleep(EACH.saturating_sub(begun.elapsed()));
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    took
}

fn flood(world: &World, to: SocketAddr, rate: u32, sent: Arc<AtomicU64>, workers: &mut Workers) {
    let outside = world.gateway.run(|| Tun::open_plain("outside")).unwrap().unwrap_or_else(|e| panic!("{e}"));
    world.gateway.up("outside").unwrap();
    world.gateway.route("0.0.0.0/0".parse().unwrap(), "outside", None).unwrap();
    // The servers' neighbours are known from the connections before; the first SYN is not to wait for one.
    eventually("the flooded port to answer", || {
        let address: (IpAddr, u16) = (to.ip(), to.port());
        world.client.run(|| TcpStream::connect(address).is_ok()).unwrap()
    });
    workers.start("lab-flood", move |stop| {
        syns(&outside, to, rate, 1, stop, |_| {
            sent.fetch_add(1, Ordering::Relaxed);
        });
    });
}
