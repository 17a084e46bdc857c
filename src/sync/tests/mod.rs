//! Two nodes with their engines. Here is what the tests share: a pair, and packets of its clients and servers.

mod agree;
mod hostile;
mod operators;
mod takeover;

use super::*;
use crate::config;
use crate::engine::{Change, Cursor, Duty, Engine, FlowQuery, FlowRow, Removed, Verdict};
use crate::ids::FlowId;
use crate::packet::Meta;
use crate::time::{Duration, Instant};
use etherparse::PacketBuilder;
use std::net::{Ipv4Addr, SocketAddrV4};

const CONFIG: &str = r#"
seed = 1
[flows]
max = 4096
[[service]]
name = "web"
listen = ["192.0.2.80:80/tcp", "192.0.2.80:4000/udp"]
pool = "web"
algorithm = "round-robin"
[[service]]
name = "full"
listen = ["192.0.2.81:80/tcp", "192.0.2.81:4000/udp"]
pool = "web"
nat = "full"
nat-pool = "out"
[[service]]
name = "sticky"
listen = "192.0.2.82:80/tcp"
pool = "web"
sticky = { idle = "5m" }
[[pool]]
name = "web"
server = [
    { name = "a", address = "10.0.0.1" },
    { name = "b", address = "10.0.0.2" },
    { name = "c", address = "10.0.0.3" },
]
[[nat-pool]]
name = "out"
addresses = ["10.9.0.1"]
ports = "2000-2099"
hold = "60s"
"#;

fn at(ms: u64) -> Instant {
    Instant::from_nanos((1_000_000 + ms) * 1_000_000)
}

fn settings(name: usize) -> SyncSettings {
    let names = ["alpha", "beta"];
    SyncSettings {
        node: names[name].into(),
        peer: names[1 - name].into(),
        key: b"shared".to_vec(),
        instance: 1 + name as u64,
        fingerprint: 7,
        learning: Duration::from_secs(20),
    }
}

struct Gate {
    engine: Engine,
    node: Node,
    events: Vec<Event>,
}

impl Gate {
    fn new(now: Instant, config: &str, settings: SyncSettings) -> Gate {
        let mut engine = Engine::new(&config::parse(config, "sync.toml").unwrap_or_else(|error| panic!("{error}")));
        let node = Node::new(settings, now, &mut engine).unwrap();
        Gate { engine, node, events: Vec::new() }
    }

    fn run(&mut self, now: Instant) {
        while self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
        self.node.handle_timeout(now, &mut self.engine);
        self.events.extend(std::iter::from_fn(|| self.node.poll_event()));
    }

    fn output(&mut self, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        self.node.poll_output(now, &mut self.engine, &mut out);
        out
    }

    /// Hands in a packet; returns what leaves, and whether the engine sent packets of its own.
    fn pass(&mut self, now: Instant, packet: &[u8]) -> (Option<Vec<u8>>, usize) {
        let mut bytes = packet.to_vec();
        let verdict = self.engine.handle_packet(now, &mut bytes, Meta::default());
        let mut buffer = vec![0; 65_535];
        let own = std::iter::from_fn(|| self.engine.poll_transmit(now, &mut buffer)).count();
        (matches!(verdict, Verdict::Forward { .. }).then_some(bytes), own)
    }

    fn command(&mut self, now: Instant, command: Command) {
        self.node.command(now, &mut self.engine, command);
    }

    fn rows(&self, now: Instant) -> Vec<FlowRow> {
        let mut rows = Vec::new();
        self.engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
        rows.retain(|row| row.id.index & FlowId::HALF_OPEN == 0);
        rows.sort_by_key(|row| (row.client, row.listen));
        rows
    }

    /// What both must have of each flow.
    fn flows(&self, now: Instant) -> Vec<String> {
        let text = |row: &FlowRow| {
            format!(
                "{} {} {} {} {} {:?} {}",
                row.protocol.name(),
                row.client,
                row.listen,
                row.server,
                row.server_address,
                row.source,
                row.state.name()
            )
        };
        self.rows(now).iter().map(text).collect()
    }
}

/// A pair whose connection takes no time.
struct Pair {
    gates: [Gate; 2],
    ms: u64,
    bytes: u64,
    /// By kind of frame.
    by_kind: [u64; 256],
}

impl Pair {
    fn new() -> Pair {
        Pair::with(CONFIG)
    }

    fn with(second: &str) -> Pair {
        let gates = [Gate::new(at(0), CONFIG, settings(0)), Gate::new(at(0), second, settings(1))];
        let mut pair = Pair { gates, ms: 0, bytes: 0, by_kind: [0; 256] };
        pair.connect();
        pair.run(200);
        pair.gates[0].command(at(pair.ms), Command::Activate);
        pair.gates[1].command(at(pair.ms), Command::StandBy);
        pair.run(200);
        pair
    }

    fn now(&self) -> Instant {
        at(self.ms)
    }

    fn connect(&mut self) {
        let now = self.now();
        for (nonce, gate) in self.gates.iter_mut().enumerate() {
            gate.node.connected(now, &mut gate.engine, [nonce as u8 + 1; 32]);
        }
    }

    fn disconnect(&mut self) {
        let now = self.now();
        self.gates.iter_mut().for_each(|gate| gate.node.disconnected(now, &mut gate.engine));
    }

    /// Lets time pass with the connection.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.ms += 10;
            let now = self.now();
            for from in 0..2 {
                self.gates[from].run(now);
                loop {
                    let out = self.gates[from].output(now);
                    if out.is_empty() {
                        break;
                    }
                    self.bytes += out.len() as u64;
                    let mut rest = &out[..];
                    while let [_, kind, high, low, ..] = *rest {
                        let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
                        self.by_kind[usize::from(kind)] += len as u64;
                        rest = &rest[len..];
                    }
                    let to = &mut self.gates[1 - from];
                    to.node.handle_input(now, &mut to.engine, &out);
                }
            }
        }
    }

    /// Bytes of the frames of a kind so far.
    fn bytes_of(&self, kind: Kind) -> u64 {
        self.by_kind[usize::from(kind.number())]
    }

    /// Lets time pass without it.
    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.ms += 10;
            let now = self.now();
            self.gates.iter_mut().for_each(|gate| gate.run(now));
        }
    }

    fn assert_equal(&self) {
        let now = self.now();
        assert_eq!(self.gates[0].flows(now), self.gates[1].flows(now));
        let status = [0, 1].map(|gate| self.gates[gate].node.status());
        assert_eq!(status[0].digest, status[1].digest, "{status:?}");
        assert!(status[1].agreed, "{status:?}");
    }
}

fn address(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

fn tcp(flags: &str, (seq, ack): (u32, u32), from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut tcp = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 60).tcp(from.port(), to.port(), seq, 1000);
    for flag in flags.chars() {
        tcp = match flag {
            'S' => tcp.syn(),
            'F' => tcp.fin(),
            'R' => tcp.rst(),
            _ => tcp.ack(ack),
        };
    }
    let mut out = Vec::new();
    tcp.write(&mut out, if flags == "DA" { b"data" } else { b"" }).unwrap();
    out
}

fn udp(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut out = Vec::new();
    let ip = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 60);
    ip.udp(from.port(), to.port()).write(&mut out, b"text").unwrap();
    out
}

/// Source and destination of a packet.
fn ends(packet: &[u8]) -> (SocketAddrV4, SocketAddrV4) {
    let ip = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    (SocketAddrV4::new(ip(12), port(20)), SocketAddrV4::new(ip(16), port(22)))
}

fn client(n: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 10_000 + n)
}

/// Opens a connection; returns how its server sees it: from and to.
fn open(gate: &mut Gate, now: Instant, n: u16, listen: SocketAddrV4) -> (SocketAddrV4, SocketAddrV4) {
    let syn = gate.pass(now, &tcp("S", (100, 0), client(n), listen)).0.expect("a server");
    let (from, to) = ends(&syn);
    gate.pass(now, &tcp("SA", (500, 101), to, from)).0.expect("its answer");
    gate.pass(now, &tcp("A", (101, 501), client(n), listen)).0.expect("the handshake");
    (from, to)
}

/// A conversation of datagrams.
fn talk(gate: &mut Gate, now: Instant, n: u16, listen: SocketAddrV4) -> (SocketAddrV4, SocketAddrV4) {
    let (from, to) = ends(&gate.pass(now, &udp(client(n), listen)).0.expect("a server"));
    gate.pass(now, &udp(to, from)).0.expect("its answer");
    gate.pass(now, &udp(client(n), listen)).0.expect("a second one");
    (from, to)
}

const LISTEN: [&str; 5] = ["192.0.2.80:80", "192.0.2.81:80", "192.0.2.82:80", "192.0.2.80:4000", "192.0.2.81:4000"];

/// Opens one flow of each kind, and a half-open one.
fn open_all(gate: &mut Gate, now: Instant, first: u16) -> Vec<(u16, SocketAddrV4, SocketAddrV4, SocketAddrV4)> {
    let mut all = Vec::new();
    for (n, listen) in (first..).zip(LISTEN.map(address)) {
        let (from, to) = if listen.port() == 80 { open(gate, now, n, listen) } else { talk(gate, now, n, listen) };
        all.push((n, listen, from, to));
    }
    gate.pass(now, &tcp("S", (100, 0), client(first + 9), address(LISTEN[0])));
    all
}
