//! Two nodes with their engines, and a peer that is none.

use super::link::LinkError;
use super::wire::{HEADER, Header, Hello, Kind, VERSION};
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
}

impl Pair {
    fn new() -> Pair {
        Pair::with(CONFIG)
    }

    fn with(second: &str) -> Pair {
        let gates = [Gate::new(at(0), CONFIG, settings(0)), Gate::new(at(0), second, settings(1))];
        let mut pair = Pair { gates, ms: 0, bytes: 0 };
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
                    let to = &mut self.gates[1 - from];
                    to.node.handle_input(now, &mut to.engine, &out);
                }
            }
        }
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

#[test]
fn the_standby_has_every_flow_and_goes_on_with_it() {
    let mut pair = Pair::new();
    let flows = open_all(&mut pair.gates[0], at(pair.ms), 0);
    pair.run(11_000);
    pair.assert_equal();
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 5, "without the half-open one");
    // It answers nothing.
    let stranger = tcp("DA", (5, 5), client(50), address(LISTEN[0]));
    assert_eq!(pair.gates[1].pass(pair.now(), &stranger), (None, 0));
    assert_eq!(pair.gates[1].pass(pair.now(), &tcp("S", (1, 0), client(51), address(LISTEN[0]))), (None, 0));
    // The first gateway dies.
    let now = pair.now();
    pair.gates[1].node.disconnected(now, &mut pair.gates[1].engine);
    pair.gates[1].command(now, Command::Activate);
    for (n, listen, from, to) in &flows {
        let is_tcp = listen.port() == 80;
        let packet = if is_tcp { tcp("DA", (101, 501), client(*n), *listen) } else { udp(client(*n), *listen) };
        let sent = pair.gates[1].pass(now, &packet).0.expect("it goes on");
        assert_eq!(ends(&sent), (*from, *to), "as before");
        let answer = if is_tcp { tcp("DA", (501, 105), *to, *from) } else { udp(*to, *from) };
        let sent = pair.gates[1].pass(now, &answer).0.expect("the answer");
        assert_eq!(ends(&sent), (*listen, client(*n)));
    }
    assert_eq!(pair.gates[1].pass(now, &stranger), (None, 0), "the peer may know it");
    assert!(pair.gates[1].pass(now, &tcp("S", (1, 0), client(51), address(LISTEN[0]))).0.is_some());
}

#[test]
fn a_sticky_client_stays_on_its_server_through_a_takeover() {
    let mut pair = Pair::new();
    let now = pair.now();
    let (_, server) = open(&mut pair.gates[0], now, 0, address(LISTEN[2]));
    // Its flow has ended before the peer starts anew: only the slot is left.
    let id = pair.gates[0].rows(now)[0].id;
    pair.gates[0].engine.apply(now, Change::Kill { flow: id }).unwrap();
    pair.disconnect();
    pair.gates[1] = Gate::new(pair.now(), CONFIG, SyncSettings { instance: 77, ..settings(1) });
    pair.connect();
    pair.run(1000);
    pair.assert_equal();
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    for n in 1..6 {
        assert_eq!(open(&mut pair.gates[1], now, n, address(LISTEN[2])).1, server);
    }
}

#[test]
fn only_the_active_lets_flows_expire_and_after_a_takeover_each_has_a_minute() {
    let mut pair = Pair::new();
    let now = pair.now();
    talk(&mut pair.gates[0], now, 0, address(LISTEN[3]));
    open(&mut pair.gates[0], now, 1, address(LISTEN[0]));
    pair.run(100);
    pair.disconnect();
    pair.gates[0].command(pair.now(), Command::StandBy);
    // Longer than five minutes.
    pair.wait(400_000);
    assert_eq!((pair.gates[0].rows(pair.now()).len(), pair.gates[1].rows(pair.now()).len()), (2, 2));
    pair.gates[1].command(pair.now(), Command::Activate);
    pair.wait(59_000);
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 2);
    pair.wait(2000);
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 1, "the idle conversation is over");
}

#[test]
fn half_open_flows_end_at_a_standby_without_a_word() {
    let mut pair = Pair::new();
    let now = pair.now();
    pair.gates[0].pass(now, &tcp("S", (100, 0), client(0), address(LISTEN[0])));
    pair.gates[0].command(now, Command::StandBy);
    assert_eq!(pair.gates[0].engine.counters().half_open, 1);
    pair.wait(300_000);
    assert_eq!(pair.gates[0].engine.counters().half_open, 0);
}

#[test]
fn a_slow_peer_gets_states_and_not_a_log() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[3]);
    for n in 0..50 {
        talk(&mut pair.gates[0], at(pair.ms), n, listen);
    }
    pair.run(1000);
    let before = pair.bytes;
    // The connection takes nothing for two seconds, while flows begin and end.
    for round in 0..200u16 {
        pair.ms += 10;
        let now = pair.now();
        for n in 0..50 {
            pair.gates[0].pass(now, &udp(client(n), listen));
        }
        let (from, to) = talk(&mut pair.gates[0], now, 1000 + round, listen);
        pair.gates[0].pass(now, &udp(to, from));
        let rows = pair.gates[0].rows(now);
        let id = rows.iter().find(|row| row.client.port() == client(1000 + round).port()).unwrap().id;
        pair.gates[0].engine.apply(now, Change::Kill { flow: id }).unwrap();
    }
    pair.run(2000);
    pair.assert_equal();
    // What has come and gone meanwhile is not told; who carried packets is a bit per flow.
    assert!(pair.bytes - before < 10_000, "{} bytes", pair.bytes - before);
}

#[test]
fn what_differs_is_found_and_sent_again() {
    let mut pair = Pair::new();
    let now = pair.now();
    for n in 0..20 {
        open(&mut pair.gates[0], now, n, address(LISTEN[0]));
    }
    pair.run(11_000);
    pair.assert_equal();
    // The standby loses a flow unnoticed, and has another one in another state.
    let rows = pair.gates[1].rows(pair.now());
    let now = pair.now();
    let gate = &mut pair.gates[1];
    gate.engine.drop_flow(now, rows[3].id);
    gate.engine.forget_flow_change(rows[3].id.index);
    gate.node.book.tell(rows[3].id.index, None);
    gate.pass(now, &tcp("F", (101, 0), client(4), address(LISTEN[0])));
    pair.run(25_000);
    pair.assert_equal();
    assert!(pair.gates[1].events.iter().any(|event| matches!(event, Event::Differs { ranges: 1 })));
}

#[test]
fn a_flow_that_cannot_be_at_the_peer_is_left_out_of_what_both_compare() {
    let without = CONFIG.replace("    { name = \"b\", address = \"10.0.0.2\" },\n", "");
    let mut pair = Pair::with(&without);
    let now = pair.now();
    for n in 0..12 {
        open(&mut pair.gates[0], now, n, address(LISTEN[0]));
    }
    pair.run(25_000);
    let now = pair.now();
    let (all, some) = (pair.gates[0].flows(now), pair.gates[1].flows(now));
    assert_eq!((all.len(), some.len()), (12, 8));
    assert!(some.iter().all(|flow| all.contains(flow)));
    assert!(pair.gates[1].node.status().agreed);
    assert!(!pair.gates[1].events.iter().any(|event| matches!(event, Event::Differs { .. })));
}

#[test]
fn a_difference_of_configurations_is_reported() {
    let mut pair = Pair::new();
    let connected = |pair: &Pair| {
        pair.gates[0].events.iter().rev().find_map(|event| match event {
            Event::Connected { differs, resumes } => Some((*differs, *resumes)),
            _ => None,
        })
    };
    assert_eq!(connected(&pair), Some((false, false)));
    pair.gates[1].node.settings.fingerprint = 8;
    pair.disconnect();
    pair.connect();
    pair.run(100);
    assert_eq!(connected(&pair), Some((true, true)));
}

#[test]
fn flows_that_ended_while_the_peer_was_away_end_there_too_and_new_ones_come() {
    let mut pair = Pair::new();
    let now = pair.now();
    for n in 0..10 {
        open(&mut pair.gates[0], now, n, address(LISTEN[0]));
    }
    pair.run(1000);
    pair.disconnect();
    let rows = pair.gates[0].rows(pair.now());
    for row in &rows[..5] {
        pair.gates[0].engine.apply(pair.now(), Change::Kill { flow: row.id }).unwrap();
    }
    let now = pair.now();
    open(&mut pair.gates[0], now, 20, address(LISTEN[1]));
    pair.wait(1000);
    pair.connect();
    pair.run(1000);
    pair.assert_equal();
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 6);
}

#[test]
fn a_gateway_that_starts_anew_gets_back_from_the_standby_what_it_had() {
    let mut pair = Pair::new();
    open_all(&mut pair.gates[0], at(pair.ms), 0);
    pair.run(1000);
    let had = pair.gates[0].flows(pair.now());
    pair.disconnect();
    pair.gates[0] = Gate::new(pair.now(), CONFIG, SyncSettings { instance: 50, ..settings(0) });
    pair.connect();
    pair.run(1000);
    assert_eq!(pair.gates[0].flows(pair.now()), had);
    assert!(pair.gates[0].events.contains(&Event::Ready { whole: true }));
}

#[test]
fn after_a_split_the_flow_that_only_one_has_seen_wins_and_otherwise_the_higher_term() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[0]);
    let now = pair.now();
    for n in 0..6 {
        open(&mut pair.gates[0], now, n, listen);
    }
    pair.run(1000);
    pair.disconnect();
    pair.gates[1].command(pair.now(), Command::Activate);
    pair.ms += 1000;
    let now = pair.now();
    // New ones at both; 0 closes at the first, 1 at the second, 2 is seen by both and closes at the second.
    open(&mut pair.gates[0], now, 10, listen);
    open(&mut pair.gates[1], now, 11, listen);
    open(&mut pair.gates[1], now, 12, listen);
    let closes = |gate: &mut Gate, n: u16| {
        let (_, server) = ends(&gate.pass(now, &tcp("FA", (101, 501), client(n), listen)).0.unwrap());
        gate.pass(now, &tcp("FA", (501, 102), server, client(n)));
        gate.pass(now, &tcp("A", (102, 502), client(n), listen));
    };
    closes(&mut pair.gates[0], 0);
    closes(&mut pair.gates[1], 1);
    closes(&mut pair.gates[1], 2);
    pair.gates[0].pass(now, &tcp("DA", (101, 501), client(2), listen));
    // The same client to both, with other servers: the term decides.
    let first = open(&mut pair.gates[0], now, 30, listen);
    let second = open(&mut pair.gates[1], now, 30, listen);
    assert_ne!(first, second);
    pair.connect();
    pair.run(500);
    pair.gates[0].command(pair.now(), Command::StandBy);
    pair.run(12_000);
    let now = pair.now();
    let (a, b) = (pair.gates[0].flows(now), pair.gates[1].flows(now));
    assert_eq!(a, b);
    assert_eq!(a.len(), 10);
    let state = |n: u16| a.iter().find(|flow| flow.contains(&format!(":{} ", client(n).port()))).unwrap();
    assert!([0, 1, 2].iter().all(|n| state(*n).ends_with("closing")), "{a:#?}");
    assert!(state(30).contains(&second.1.ip().to_string()), "{}", state(30));
}

#[test]
fn each_gives_nat_ports_of_its_half_until_the_other_has_been_away_for_long_enough() {
    let mut pair = Pair::new();
    pair.disconnect();
    pair.gates[1].command(pair.now(), Command::Activate);
    let take = |gate: &mut Gate, now, from: u16, most: u16| -> Vec<u16> {
        let listen = address(LISTEN[1]);
        (from..from + most)
            .filter_map(|n| {
                let syn = gate.pass(now, &tcp("S", (100, 0), client(n), listen)).0?;
                let (from, to) = ends(&syn);
                gate.pass(now, &tcp("SA", (500, 101), to, from));
                gate.pass(now, &tcp("A", (101, 501), client(n), listen));
                Some(from.port())
            })
            .collect()
    };
    let now = pair.now();
    // There are three servers, each with all ports.
    let (first, second) = (take(&mut pair.gates[0], now, 0, 200), take(&mut pair.gates[1], now, 200, 200));
    assert!(!first.is_empty() && first.iter().all(|port| (2000..2050).contains(port)), "{first:?}");
    assert!(!second.is_empty() && second.iter().all(|port| (2050..2100).contains(port)), "{second:?}");
    assert_eq!((first.len(), second.len()), (150, 150));
    pair.wait(61_000);
    let now = pair.now();
    assert_eq!(take(&mut pair.gates[1], now, 400, 200).len(), 150, "the peer's half");
}

#[test]
fn a_planned_switch_waits_until_the_peer_knows_everything() {
    let mut pair = Pair::new();
    open_all(&mut pair.gates[0], at(pair.ms), 0);
    pair.gates[0].command(pair.now(), Command::Yield);
    assert_eq!(pair.gates[0].node.status().role, Role::Yielding);
    pair.run(100);
    assert!(pair.gates[0].events.contains(&Event::Yielded) && pair.gates[1].events.contains(&Event::Asked));
    assert_eq!(pair.gates[0].flows(pair.now()), pair.gates[1].flows(pair.now()));
    let now = pair.now();
    pair.gates[0].command(now, Command::StandBy);
    pair.gates[1].command(now, Command::Activate);
    assert_eq!(pair.gates[1].engine.duty(), Duty::Known);
    pair.run(61_000);
    assert_eq!((pair.gates[0].engine.duty(), pair.gates[1].engine.duty()), (Duty::Standby, Duty::Full));
    assert_eq!(pair.gates[1].pass(pair.now(), &tcp("DA", (5, 5), client(50), address(LISTEN[0]))), (None, 1));
}

#[test]
fn after_a_switch_the_new_standby_hears_what_becomes_of_flows_that_it_had_given() {
    let mut pair = Pair::new();
    for n in 0..10 {
        open(&mut pair.gates[0], at(pair.ms), n, address(LISTEN[0]));
    }
    pair.run(100);
    pair.gates[0].command(at(pair.ms), Command::StandBy);
    pair.gates[1].command(at(pair.ms), Command::Activate);
    pair.run(20_000);
    let now = pair.now();
    let rows = pair.gates[1].rows(now);
    pair.gates[1].engine.apply(now, Change::Kill { flow: rows[0].id }).unwrap();
    pair.gates[1].pass(now, &tcp("DA", (101, 501), client(5), address(LISTEN[0]))).0.expect("it goes on");
    pair.run(1_100);
    let rows = pair.gates[0].rows(pair.now());
    assert_eq!(rows.len(), 9, "what ends at the active one ends here");
    let idle = |n: u16| rows.iter().find(|row| row.client.port() == client(n).port()).unwrap().idle_ms;
    assert!(idle(5) < 2_000 && idle(6) > 20_000, "{} {}", idle(5), idle(6));
    assert!(!pair.gates.iter().any(|gate| gate.events.iter().any(|event| matches!(event, Event::Differs { .. }))));
}

#[test]
fn a_gateway_without_its_peer_is_ready_after_the_deadline() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    gate.run(at(19_990));
    assert!(!gate.node.is_ready());
    assert_eq!(gate.node.poll_timeout(at(19_990), false), Some(at(20_000)));
    gate.run(at(20_000));
    assert!(gate.node.is_ready() && gate.events == [Event::Ready { whole: false }]);
    assert_eq!(gate.node.status().role, Role::Ready);
}

#[test]
fn what_operators_change_at_the_active_holds_at_the_standby() {
    let mut pair = Pair::new();
    let server = pair.gates[0].engine.find_server("web", "b").unwrap();
    let drain = Change::Admin { server, admin: crate::balance::Admin::Draining, deadline: None };
    pair.gates[0].engine.apply(pair.now(), drain).unwrap();
    pair.gates[0].node.standing_changed();
    pair.run(100);
    assert_eq!(pair.gates[1].engine.servers(pair.now())[1].admin, crate::balance::Admin::Draining);
    // What they change at the standby does not hold at the active.
    let server = pair.gates[1].engine.find_server("web", "c").unwrap();
    pair.gates[1].engine.apply(pair.now(), Change::Weight { server, weight: 0 }).unwrap();
    pair.gates[1].node.standing_changed();
    pair.run(100);
    assert_eq!(pair.gates[0].engine.servers(pair.now())[2].weight, 1);
}

#[test]
fn names_come_again_after_a_reload_at_either_end() {
    let mut pair = Pair::new();
    let turned = CONFIG.replace("    { name = \"a\", address = \"10.0.0.1\" },\n", "").replace(
        "address = \"10.0.0.3\" },",
        "address = \"10.0.0.3\" },\n    { name = \"a\", address = \"10.0.0.1\" },",
    );
    let more = turned.replace(
        "    { name = \"b\"",
        "    { name = \"new\", address = \"10.0.0.9\", weight = 0 },\n    { name = \"b\"",
    );
    for (round, gate) in [0, 1].into_iter().enumerate() {
        open_all(&mut pair.gates[0], at(pair.ms), round as u16 * 20);
        pair.run(100);
        let settings = config::parse(&more, "more.toml").unwrap_or_else(|error| panic!("{error}"));
        let now = pair.now();
        pair.gates[gate].engine.reload(now, &settings, Removed::Drain);
        open_all(&mut pair.gates[0], at(pair.ms), round as u16 * 20 + 10);
        pair.run(12_000);
        pair.assert_equal();
    }
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 20);
}

#[test]
fn packets_at_the_active_keep_flows_of_the_standby_alive() {
    let mut pair = Pair::new();
    let (listen, now) = (address(LISTEN[0]), pair.now());
    open(&mut pair.gates[0], now, 0, listen);
    for _ in 0..5 {
        pair.run(10_000);
        pair.gates[0].pass(pair.now(), &tcp("DA", (101, 501), client(0), listen));
    }
    pair.run(1_100);
    let idle = pair.gates[1].rows(pair.now())[0].idle_ms;
    assert!(idle < 2_500, "idle for {idle} ms");
    assert_eq!(pair.gates[1].node.audit(&mut pair.gates[1].engine, 0, u32::MAX), (None, 0));
}

/// Greets a gateway as its peer would, and returns what proves it.
fn greet(gate: &mut Gate, now: Instant, key: &[u8], hello: &Hello) -> Vec<u8> {
    gate.node.connected(now, &mut gate.engine, [9; 32]);
    let out = gate.output(now);
    let own = hello.write();
    let frame = |kind: Kind, seq, body: &[u8]| {
        let header = Header { version: VERSION, kind: kind.number(), len: body.len() as u16, term: 0, seq };
        [&header.write()[..], body].concat()
    };
    let proof = super::proof::proof(key, &own, &out[HEADER..]);
    [frame(Kind::Hello, 1, &own), frame(Kind::Proof, 2, &proof)].concat()
}

fn hello() -> Hello {
    Hello { node: "beta".into(), instance: 9, nonce: [3; 32], role: Role::Active.number(), ..Hello::default() }
}

/// Returns why a gateway closes the connection after some bytes.
fn closes(gate: &mut Gate, now: Instant, bytes: &[u8]) -> Option<LinkError> {
    gate.node.handle_input(now, &mut gate.engine, bytes);
    gate.run(now);
    gate.events.drain(..).find_map(|event| match event {
        Event::Close(error) => Some(error),
        _ => None,
    })
}

#[test]
fn who_is_not_the_peer_gets_nothing() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let mut closes_for = |key: &[u8], hello: &Hello, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = greet(&mut gate, at(0), key, hello);
        change(&mut bytes);
        closes(&mut gate, at(0), &bytes)
    };
    let none = |_: &mut Vec<u8>| {};
    assert_eq!(closes_for(b"shared", &hello(), &none), None);
    assert_eq!(closes_for(b"other", &hello(), &none), Some(LinkError::Key));
    let stranger = Hello { node: "gamma".into(), ..hello() };
    assert_eq!(closes_for(b"shared", &stranger, &none), Some(LinkError::Stranger("gamma".into())));
    assert_eq!(closes_for(b"shared", &Hello { node: "alpha".into(), ..hello() }, &none), Some(LinkError::Itself));
    assert_eq!(closes_for(b"shared", &hello(), &|bytes| bytes[0] = 9), Some(LinkError::Version(9)));
    assert_eq!(closes_for(b"shared", &hello(), &|bytes| bytes[1] = Kind::Put.number()), Some(LinkError::NotYet));
    let long = |bytes: &mut Vec<u8>| bytes[2] = 40;
    assert_eq!(closes_for(b"shared", &hello(), &long), Some(LinkError::NotYet), "nothing long is kept");
    let other_nonce = |bytes: &mut Vec<u8>| {
        let place = bytes.windows(4).position(|window| window == [3; 4]).unwrap();
        bytes[place] = 4;
    };
    assert_eq!(closes_for(b"shared", &hello(), &other_nonce), Some(LinkError::Key));
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let bytes = greet(&mut gate, at(0), b"shared", &hello());
    assert_eq!(closes(&mut gate, at(0), &bytes), None);
    assert_eq!(closes(&mut gate, at(2_990), &[]), None);
    assert_eq!(closes(&mut gate, at(3_000), &[]), Some(LinkError::Silent));
    // One that drips bytes proves nothing in time.
    let bytes = greet(&mut gate, at(4_000), b"shared", &hello());
    for (ms, byte) in (4_000..).step_by(100).zip(&bytes[..49]) {
        assert_eq!(closes(&mut gate, at(ms), &[*byte]), None);
    }
    assert_eq!(closes(&mut gate, at(9_000), &[]), Some(LinkError::Silent));
}

#[test]
fn frames_that_make_no_sense_close_the_connection_and_unknown_ones_do_not() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let frame = |kind: u8, seq: u64, body: &[u8]| {
        let header = Header { version: VERSION, kind, len: body.len() as u16, term: 1, seq };
        [&header.write()[..], body].concat()
    };
    let cases: [(Kind, &[u8]); 9] = [
        (Kind::Del, &[1, 2, 3]),
        (Kind::Touch, &[1, 2, 3]),
        (Kind::Bulk, &[0; 20]),
        (Kind::BulkEnd, &[]),
        (Kind::Digest, &[0; 100]),
        (Kind::Want, &[0; 4]),
        (Kind::Ack, &[0xff; 9]),
        (Kind::Refused, &[0; 13]),
        (Kind::Map, &[0; 17]),
    ];
    for (kind, body) in cases {
        let bytes = [greet(&mut gate, at(0), b"shared", &hello()), frame(kind.number(), 3, body)].concat();
        assert_eq!(closes(&mut gate, at(0), &bytes), Some(LinkError::Unreadable(kind.name())));
    }
    let greeting = greet(&mut gate, at(0), b"shared", &hello());
    assert_eq!(closes(&mut gate, at(0), &[greeting, frame(99, 3, &[1; 40])].concat()), None);
    assert_eq!(gate.node.status().skipped, 1);
    assert_eq!(closes(&mut gate, at(0), &frame(99, 2, &[])), Some(LinkError::Order));
}

#[test]
fn a_hostile_peer_makes_nothing_grow() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let bytes = greet(&mut gate, at(0), b"shared", &hello());
    assert_eq!(closes(&mut gate, at(0), &bytes), None);
    let mut other = Gate::new(at(0), CONFIG, settings(1));
    other.command(at(0), Command::Activate);
    open(&mut other, at(0), 0, address(LISTEN[0]));
    let mut giving = other.engine.begin_giving(at(0));
    let mut names = Vec::new();
    while !other.engine.has_named(&giving) {
        other.engine.give_names(&mut giving, at(0), 100, &mut names);
    }
    let mut put = vec![1];
    other.engine.give_flow(&mut giving, at(0), 0, &mut put);
    let frame = |kind: Kind, seq: u64, body: &[u8]| {
        let header = Header { version: VERSION, kind: kind.number(), len: body.len() as u16, term: 1, seq };
        [&header.write()[..], body].concat()
    };
    assert_eq!(closes(&mut gate, at(0), &frame(Kind::Names, 3, &names)), None);
    // The slot is the last field: one that no table here has.
    let slotless = put.len();
    put.extend([16, 4, 0xff, 0xff, 0xff, 0xf0]);
    let len = u16::from_be_bytes([put[2], put[3]]) + (put.len() - slotless) as u16;
    put[2..4].copy_from_slice(&len.to_be_bytes());
    for seq in 4..20_000 {
        assert_eq!(closes(&mut gate, at(0), &frame(Kind::Put, seq, &put)), None);
    }
    assert_eq!(gate.rows(at(0)).len(), 0);
    let link = gate.node.link.as_ref().unwrap();
    assert!(link.refused.len() <= 8192 && link.refused.capacity() <= 16_384);
    // Wishes for everything again and again are one pass.
    let want = [&[1][..], &[0xff; 32]].concat();
    for seq in 20_000..20_100 {
        assert_eq!(closes(&mut gate, at(0), &frame(Kind::Want, seq, &want)), None);
    }
    let sent: usize = (0..20).map(|ms| gate.output(at(ms)).len()).sum();
    assert!(sent < 200_000, "{sent} bytes");
}
