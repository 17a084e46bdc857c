//! A live gateway between a client and a server that answers datagrams with themselves, for benchmarks: as root, in network
//! namespaces of its own.

#![allow(dead_code, reason = "each benchmark uses a part")]

use equipoise::gateway::netns::Namespace;
use rustix::thread::{Pid, gettid};
use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// A service of a configuration whose datagrams come back: what [`Net::talker`] talks to.
pub const ECHO: &str = "[[service]]\nname='echo'\nlisten='192.0.2.80:7/udp'\npool='echo'\n\
                        [[pool]]\nname='echo'\nserver=[{name='a',address='10.88.2.2',port=7}]\n";
/// A service for established connections from a state file.
pub const WEB: &str = "[[service]]\nname='web'\nlisten='192.0.2.80:80/tcp'\npool='web'\n\
                       [[pool]]\nname='web'\nserver=[{name='a',address='10.88.2.2',port=8080}]\n";

/// Three namespaces: a client, the gateway, and a server with an echo service.
pub struct Net {
    pub client: Namespace,
    pub gateway: Namespace,
    server: Namespace,
    /// The thread of the echo service.
    echo: Pid,
}

impl Net {
    /// Makes them; their names begin with `prefix`.
    pub fn new(prefix: &str) -> Net {
        let [client, gateway, server] =
            ["client", "gateway", "server"].map(|name| Namespace::new(&format!("{prefix}-{name}")).unwrap());
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
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            tell.send(gettid()).unwrap();
            let mut bytes = [0; 64];
            while let Ok((len, from)) = echo.recv_from(&mut bytes) {
                let _ = echo.send_to(&bytes[..len], from);
            }
        });
        Net { client, gateway, server, echo: told.recv().unwrap() }
    }

    /// Has the echo service and the calling thread run before all others: what they wait for a processor is not the
    /// gateway's.
    pub fn hurry(&self) {
        for thread in [self.echo, gettid()] {
            let id = thread.as_raw_nonzero().to_string();
            assert!(Command::new("chrt").args(["-r", "-p", "10", &id]).status().unwrap().success(), "chrt {id}");
        }
    }

    /// Returns a client's socket, connected to [`ECHO`].
    pub fn talker(&self) -> UdpSocket {
        let socket = self.client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        socket.connect("192.0.2.80:7").unwrap();
        socket
    }
}

/// A running gateway, killed when it is dropped.
pub struct Gateway {
    process: Child,
    log: PathBuf,
}

impl Gateway {
    /// Starts one with the configuration `folder/config`; its log goes to `folder/log`.
    pub fn start(net: &Net, folder: &Path, log: &str, more: &[&str]) -> Gateway {
        let log = folder.join(log);
        let mut command: Command = net.gateway.command(env!("CARGO_BIN_EXE_equipoise"));
        command.args(["run", "--config"]).arg(folder.join("config")).args(more).env_remove("RUST_LOG");
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn();
        Gateway { process: process.unwrap(), log }
    }

    /// Waits until it moves packets.
    pub fn begins(&self) {
        until("the gateway", || self.log().contains("control socket"));
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Returns what it has in memory, in KiB; 0 once it has ended.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until something is done, at most two minutes.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The round trips of a client that sends a datagram, waits for its answer and pauses half a millisecond.
pub struct Trips {
    /// In microseconds, in order.
    pub times: Vec<u64>,
    /// Datagrams without an answer within the socket's time limit.
    pub lost: usize,
}

impl Trips {
    /// Measures them for a time.
    pub fn measure(socket: &UdpSocket, time: Duration) -> Trips {
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let (begun, mut times, mut lost, mut bytes) = (std::time::Instant::now(), Vec::new(), 0, [0; 64]);
        let mut number = 0_u64;
        while begun.elapsed() < time {
            number += 1;
            let sent = std::time::Instant::now();
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
        Trips { times, lost }
    }

    /// Returns the time that so many of a thousand do not exceed.
    pub fn at(&self, share: usize) -> u64 {
        self.times.get(self.times.len().saturating_sub(1) * share / 1000).copied().unwrap_or(0)
    }
}

/// The longest times of a client since they were last taken, in microseconds: without an answer, and asleep beyond the
/// millisecond that it meant to sleep.
#[derive(Default)]
pub struct Longest {
    pub silent: AtomicU64,
    pub asleep: AtomicU64,
    /// Datagrams sent less answers, also those under way.
    pub open: AtomicU64,
}

/// Has a client send a datagram each millisecond.
pub fn talk(net: &Arc<Net>, longest: &Arc<Longest>, ends: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    const PAUSE: Duration = Duration::from_millis(1);
    let socket = net.talker();
    socket.set_nonblocking(true).unwrap();
    let (net, longest, ends) = (Arc::clone(net), Arc::clone(longest), Arc::clone(ends));
    let micros = |time: Duration| time.as_micros() as u64;
    thread::spawn(move || {
        net.hurry();
        let (mut heard, mut bytes) = (std::time::Instant::now(), [0; 64]);
        while !ends.load(Ordering::Relaxed) {
            if socket.send(b"ping").is_ok() {
                longest.open.fetch_add(1, Ordering::Relaxed);
            }
            let sent = std::time::Instant::now();
            thread::sleep(PAUSE);
            longest.asleep.fetch_max(micros(sent.elapsed().saturating_sub(PAUSE)), Ordering::Relaxed);
            while socket.recv(&mut bytes).is_ok() {
                longest.silent.fetch_max(micros(heard.elapsed()), Ordering::Relaxed);
                heard = std::time::Instant::now();
                longest.open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    })
}
