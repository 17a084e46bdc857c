//! The simulated world: hosts, bad links, the engine in the middle, and a clock that jumps from event to event.
//!
//! It drives the engine as the live gateway does: packets, timeouts, transmissions. Every packet in and out is
//! checked by the oracle.

use crate::apps::{Client, Job, Server};
use crate::host::Host;
use crate::oracle;
use crate::random::Random;
use equipoise::config::Settings;
use equipoise::engine::{Counters, Ended, Engine, Event, Forwarded, Verdict};
use equipoise::flow::TimeoutState;
use equipoise::ids::FlowId;
use equipoise::packet::{Meta, Side, parse};
use equipoise::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// How bad the links are, in packets per thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Links {
    pub lost: u64,
    pub doubled: u64,
    /// Held back, so that others overtake them.
    pub late: u64,
    /// By up to this many milliseconds.
    pub late_ms: u64,
    /// One bit flipped.
    pub damaged: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Engine,
    Host(usize),
}

enum Program {
    Client(Client),
    Server(Server),
}

struct Station {
    host: Host,
    program: Program,
    next: Option<Instant>,
}

/// What the world counts besides the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    pub handed: u64,
    pub translated: u64,
    /// ICMP errors about packets of flows, included above; no server counts them.
    pub errors: u64,
    pub foreign: u64,
    pub consumed: u64,
    pub dropped: u64,
    pub transmitted: u64,
    pub lost: u64,
    pub doubled: u64,
    pub late: u64,
    pub damaged: u64,
}

/// The world.
pub struct World {
    pub engine: Engine,
    pub seen: Seen,
    pub now: Instant,
    links: Links,
    random: Random,
    stations: Vec<Station>,
    underway: BTreeMap<(Instant, u64), (Place, Vec<u8>)>,
    sent: u64,
    /// The server of each flow.
    homes: BTreeMap<FlowId, IpAddr>,
    /// The states in which flows were evicted.
    pub evicted: Vec<TimeoutState>,
    trace: DefaultHasher,
}

/// Virtual time after which an unfinished world has failed.
const PATIENCE: Duration = Duration::from_secs(900);

impl World {
    /// A world with this many servers (as in the settings) and with clients that do these jobs, one list each.
    pub fn new(settings: &Settings, servers: usize, jobs: Vec<Vec<Job>>, links: Links, seed: u64) -> Self {
        let mut stations = Vec::new();
        for i in 0..servers {
            let n = i as u8 + 1;
            let mut host =
                Host::new([10, 0, 2, n].into(), [0xfd00, 0, 0, 0, 0, 0, 0, n.into()].into(), seed + i as u64);
            let program = Program::Server(Server::new(n, &mut host));
            stations.push(Station { host, program, next: None });
        }
        for (i, jobs) in jobs.into_iter().enumerate() {
            let n = i as u8 + 1;
            let v6 = [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, n.into()];
            let host = Host::new([198, 51, 100, n].into(), v6.into(), seed + 1000 + i as u64);
            stations.push(Station { host, program: Program::Client(Client::new(jobs)), next: Some(Instant::ZERO) });
        }
        let mut engine = Engine::new(settings);
        engine.report_flows(true);
        World {
            engine,
            seen: Seen::default(),
            now: Instant::ZERO,
            links,
            random: Random::new(seed),
            stations,
            underway: BTreeMap::new(),
            sent: 0,
            homes: BTreeMap::new(),
            evicted: Vec::new(),
            trace: DefaultHasher::new(),
        }
    }

    /// Runs until every job is done and every host is quiet; returns the jobs done, with the servers' numbers.
    pub fn run(&mut self) -> Vec<(u64, u8)> {
        while let Some(at) = self.next_event() {
            assert!(at >= self.now, "time goes backwards");
            assert!(at < Instant::ZERO + PATIENCE, "not done after {PATIENCE:?}:\n{}", self.left());
            self.now = at;
            self.tick();
        }
        let mut done: Vec<(u64, u8)> = self.clients().flat_map(|client| client.done.iter().copied()).collect();
        done.sort_unstable();
        // Only a dialogue whose flow gave way goes on elsewhere.
        let moved: usize = self.clients().map(|client| client.moved).sum();
        let of_datagrams = |state: &&TimeoutState| matches!(state, TimeoutState::UdpOneWay | TimeoutState::UdpTwoWay);
        assert!(
            moved <= self.evicted.iter().filter(of_datagrams).count(),
            "{moved} dialogues moved: {:?}",
            self.evicted
        );
        assert_eq!(self.left(), "", "at {}", self.now);
        assert!(self.stations.iter().all(|s| !matches!(&s.program, Program::Server(server) if !server.is_idle())));
        done
    }

    /// Lets all flows end by the engine's own timeouts; nothing else happens meanwhile.
    pub fn end_flows(&mut self) {
        while let Some(at) = self.engine.poll_timeout() {
            assert!(self.underway.is_empty());
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.watch();
        }
    }

    /// Returns a number that depends on every packet, when it passed, and its verdict.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// Returns how often a client was refused and retried.
    pub fn refused(&self) -> u32 {
        self.clients().map(|client| client.refused).sum()
    }

    fn clients(&self) -> impl Iterator<Item = &Client> {
        self.stations.iter().filter_map(|station| match &station.program {
            Program::Client(client) => Some(client),
            Program::Server(_) => None,
        })
    }

    fn left(&self) -> String {
        let left = self.stations.iter().filter_map(|station| match &station.program {
            Program::Client(client) => Some(client.left(&station.host)),
            Program::Server(_) => None,
        });
        left.filter(|left| !left.is_empty()).collect::<Vec<_>>().join("\n")
    }

    fn next_event(&self) -> Option<Instant> {
        let hosts = self.stations.iter().filter_map(|station| station.next);
        let arrival = self.underway.keys().next().map(|(at, _)| *at);
        let next = hosts.chain(arrival).min()?;
        // The engine's timers alone do not keep the world going.
        Some(self.engine.poll_timeout().map_or(next, |timeout| timeout.clamp(self.now, next)))
    }

    fn tick(&mut self) {
        if self.engine.poll_timeout().is_some_and(|at| at <= self.now) {
            self.engine.handle_timeout(self.now);
        }
        while let Some(entry) = self.underway.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                (Place::Engine, packet) => self.at_engine(packet),
                (Place::Host(i), packet) => {
                    self.stations[i].host.deliver(packet);
                    self.wake(i);
                }
            }
        }
        for i in 0..self.stations.len() {
            if self.stations[i].next.is_some_and(|at| at <= self.now) {
                self.wake(i);
            }
        }
        self.watch();
    }

    /// Runs a host as far as it can go, and sends what it sent.
    fn wake(&mut self, i: usize) {
        let (now, station) = (self.now, &mut self.stations[i]);
        loop {
            station.host.poll(now);
            let moved = match &mut station.program {
                Program::Client(client) => client.step(now, &mut station.host),
                Program::Server(server) => server.step(&mut station.host),
            };
            if !moved {
                break;
            }
        }
        station.host.poll(now);
        let program = match &station.program {
            Program::Client(client) => client.next(),
            Program::Server(_) => None,
        };
        station.next = station.host.next(now).into_iter().chain(program).min();
        while let Some(packet) = self.stations[i].host.take() {
            oracle::check(&packet).unwrap_or_else(|e| panic!("a host sent a bad packet: {e}"));
            self.send(Place::Engine, packet);
        }
    }

    /// Puts a packet on a link, which may drop, duplicate, delay or damage it.
    fn send(&mut self, to: Place, mut packet: Vec<u8>) {
        if self.random.per_mille(self.links.lost) {
            self.seen.lost += 1;
            return;
        }
        if self.random.per_mille(self.links.damaged) {
            self.seen.damaged += 1;
            let bit = self.random.below(packet.len() as u64 * 8);
            packet[bit as usize / 8] ^= 1 << (bit % 8);
        }
        let copies = if self.random.per_mille(self.links.doubled) { 2 } else { 1 };
        self.seen.doubled += copies - 1;
        for _ in 0..copies {
            let late = self.random.per_mille(self.links.late);
            self.seen.late += u64::from(late);
            let extra = if late { self.random.below(self.links.late_ms * 1_000_000) } else { 0 };
            let at = self.now + Duration::from_nanos(2_000_000 + extra);
            self.sent += 1;
            self.underway.insert((at, self.sent), (to, packet.clone()));
        }
    }

    fn at_engine(&mut self, packet: Vec<u8>) {
        let mut bytes = packet.clone();
        let verdict = self.engine.handle_packet(self.now, &mut bytes, Meta::default());
        self.seen.handed += 1;
        (self.now, &packet, format!("{verdict:?}")).hash(&mut self.trace);
        match verdict {
            Verdict::Forward { len, why } => {
                bytes.truncate(len);
                bytes.hash(&mut self.trace);
                self.judge(&packet, &bytes, why);
                let to = parse(&bytes).expect("what is forwarded parses").addresses.dst();
                // A damaged address may belong to nobody.
                if let Some(i) = self.stations.iter().position(|station| station.host.has(to)) {
                    self.send(Place::Host(i), bytes);
                }
            }
            Verdict::Emit { .. } => panic!("every path takes every packet here"),
            Verdict::Consume(_) => self.seen.consumed += 1,
            Verdict::Drop(_) => {
                self.seen.dropped += 1;
                assert_eq!(bytes, packet, "a dropped packet was changed");
            }
        }
        let mut buffer = [0; 65_535];
        while let Some((len, _)) = self.engine.poll_transmit(self.now, &mut buffer) {
            self.seen.transmitted += 1;
            let answer = buffer[..len].to_vec();
            answer.hash(&mut self.trace);
            oracle::check(&answer).unwrap_or_else(|e| panic!("the engine sent a bad packet: {e}"));
            let to = parse(&answer).expect("its own packet").addresses.dst();
            if let Some(i) = self.stations.iter().position(|station| station.host.has(to)) {
                self.send(Place::Host(i), answer);
            }
        }
    }

    /// Checks that a forwarded packet is what it must be.
    fn judge(&mut self, before: &[u8], after: &[u8], why: Forwarded) {
        let valid = oracle::check(before);
        assert!(valid.is_ok() || self.links.damaged > 0, "{valid:?}");
        if let Forwarded::Error { .. } = why {
            self.seen.translated += 1;
            self.seen.errors += 1;
            return assert_eq!(oracle::check(after).is_ok(), valid.is_ok(), "an error leaves as valid as it arrived");
        }
        let Forwarded::Translated { flow, from, .. } = why else {
            self.seen.foreign += 1;
            return assert_eq!(before, after, "a foreign packet was changed");
        };
        self.seen.translated += 1;
        assert_eq!(oracle::check(after).is_ok(), valid.is_ok(), "valid in is valid out, and wrong in is wrong out");
        let addresses = |packet: &[u8]| parse(packet).expect("it parsed before").addresses;
        let server = if from == Side::Client { addresses(after).dst() } else { addresses(before).src() };
        let home = *self.homes.entry(flow).or_insert(server);
        assert_eq!(home, server, "flow {flow} moved to another server");
    }

    /// Processes the engine's events.
    fn watch(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            if let Event::FlowEnded { flow, cause } = event {
                if cause == Ended::Evicted {
                    self.evicted.push(flow.state);
                }
                assert!(self.homes.remove(&flow.id).is_some(), "flow {} ended twice, or never began", flow.id);
            }
        }
    }
}
