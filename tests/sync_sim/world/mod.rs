//! The world: two gateways with clocks of their own, what elects the active one, the connection between them, and faults.
//!
//! Time passes in steps of 10 ms. Everything that is random comes from one seed. Here is how packets pass; `gate` has the
//! gateways and their election, `link` the connection between them, `health` what monitors find, `history` what goes
//! wrong, and what must hold.

mod gate;
mod health;
mod history;
mod link;

use super::ends::{Ends, SERVICES};
use super::random::Random;
use super::skew::Later;
use super::wire::{ACK, Packet, SYN};
use equipoise::engine::{Engine, Forwarded, Verdict};
use equipoise::packet::{Meta, Side};
use equipoise::sync::Role;
use equipoise::time::Instant;
use gate::{Gate, Running};
use health::Probes;
use link::Channel;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

/// Milliseconds per step.
const STEP: u64 = 10;
/// Between two words of the election.
const ADVERT: u64 = 100;

pub struct World {
    t: u64,
    rng: Random,
    gates: [Gate; 2],
    channels: BTreeMap<u64, Channel>,
    made: u64,
    /// Who notices when that a connection is broken.
    notices: Vec<(u64, usize, u64)>,
    connect_at: u64,
    /// Until when the two do not hear each other: elections, connection.
    cut: [u64; 2],
    /// By client: whose side it is on while both are active and do not hear each other.
    sides: Vec<usize>,
    /// When both last knew the same.
    in_step_at: u64,
    /// The same, with one of them active.
    calm_at: u64,
    /// Whether each may have given clients other servers than the other one: both have been active.
    was_split: bool,
    preempts: bool,
    /// The gateway that has one server less than the other one.
    lacks_one: Option<usize>,
    /// Whether answers to SYNs wait until the other gateway knows of the connection.
    holds: bool,
    loss: u64,
    /// Whether the gateways probe the servers, and the standby takes the view of the active one.
    monitored: bool,
    probes: Probes,
    pub ends: Ends,
    pub log: Vec<String>,
    keeps_log: bool,
    /// The client of which the log has all that the gateways know and all that they forward, and what they knew last.
    watched: Option<usize>,
    seen: [Vec<String>; 2],
    /// For packets.
    buffer: Vec<u8>,
}

impl World {
    pub fn new(seed: u64, keeps_log: bool) -> World {
        let mut rng = Random::new(seed);
        let clients = 4 + rng.below(12) as usize;
        let later = rng.below(4);
        let gate = |at: usize, rng: &mut Random| Gate {
            running: None,
            offset: 1_000_000 + rng.below(1_000_000_000),
            starts: 0,
            started: 0,
            paused_until: 0,
            back_at: 0,
            conn: None,
            heard: None,
            priority: [100, 50][at],
            lowered_until: 0,
            activated: 0,
            later: (later == at as u64).then(Later::default),
        };
        let gates = [gate(0, &mut rng), gate(1, &mut rng)];
        let mut world = World {
            t: 1000,
            sides: (0..clients).map(|_| rng.below(2) as usize).collect(),
            ends: Ends::new(rng.next(), clients),
            preempts: rng.below(2) == 0,
            lacks_one: Some(rng.below(8) as usize).filter(|at| *at < 2),
            holds: rng.below(3) == 0,
            loss: [0, 5, 30][rng.below(3) as usize],
            // Of their own, so that histories without them stay as they are.
            monitored: seed.is_multiple_of(4),
            probes: Probes::new(seed),
            gates,
            channels: BTreeMap::new(),
            made: 0,
            notices: Vec::new(),
            connect_at: 0,
            cut: [0; 2],
            in_step_at: 0,
            calm_at: 0,
            was_split: false,
            rng,
            log: Vec::new(),
            keeps_log,
            watched: None,
            seen: Default::default(),
            buffer: vec![0; 65_535],
        };
        world.ends.sticks = world.lacks_one.is_none();
        world.start(0);
        world.start(1);
        world
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.keeps_log {
            let line = format!("{:>9.2} {}", self.t as f64 / 1000.0, what());
            self.log.push(line);
        }
    }

    fn now(&self, at: usize) -> Instant {
        Instant::from_nanos((self.t + self.gates[at].offset) * 1_000_000)
    }

    fn is_up(&self, at: usize) -> bool {
        self.gates[at].running.is_some() && self.t >= self.gates[at].paused_until
    }

    fn role(&self, at: usize) -> Option<Role> {
        self.gates[at].running.as_ref().map(|running| running.node.role())
    }

    fn is_active(&self, at: usize) -> bool {
        self.role(at).is_some_and(Role::is_active)
    }

    /// Returns the gateway that a client's packets, and those of servers to it, get to; whether it is up or not.
    fn path(&self, client: usize) -> usize {
        match (self.is_active(0), self.is_active(1)) {
            (true, true) if self.t < self.cut[0] => self.sides[client],
            (true, true) | (false, false) => usize::from(self.gates[1].activated > self.gates[0].activated),
            (first, _) => usize::from(!first),
        }
    }

    /// Sends packets through the gateway that they get to, and their answers, until nothing is left.
    fn carry(&mut self, client: usize, packet: Packet) {
        let mut queue = VecDeque::from([(client, packet)]);
        let mut left = 50;
        while let Some((client, packet)) = queue.pop_front() {
            left -= 1;
            if left == 0 || self.rng.per_mille(self.loss) {
                continue;
            }
            let at = self.path(client);
            let is_from_client = SERVICES.iter().any(|(address, ..)| address == packet.to.ip());
            if !self.is_up(at) {
                continue;
            }
            if is_from_client && self.is_active(at) {
                self.ends.reached(&packet);
            }
            let server = (!is_from_client).then(|| *packet.from.ip());
            let now = self.now(at);
            self.ends.unlearned_since = self.unlearned_since(at);
            let Some(Running { engine, node, held }) = &mut self.gates[at].running else { continue };
            let mut bytes = packet.bytes();
            let verdict = engine.handle_packet(now, &mut bytes, Meta::default());
            let mut out = Vec::new();
            if let Verdict::Forward { len, why } = verdict {
                let bytes = bytes[..len].to_vec();
                match why {
                    Forwarded::Translated { flow, from: Side::Server, .. }
                        if packet.flags == SYN | ACK && node.holds(now, flow) =>
                    {
                        held.push_back((flow, bytes, server));
                    }
                    _ => out.push(bytes),
                }
            }
            let own = own(engine, now, &mut self.buffer);
            out.extend(self.probes.answer((at, engine), now, own));
            let is_watched = self.watched.is_some_and(|watched| watched == client);
            if self.keeps_log && (is_watched || !matches!(verdict, Verdict::Forward { .. })) {
                let is_up = [self.is_active(0), self.is_active(1)];
                self.say(|| format!("  {packet:?} at gateway {at} (active {is_up:?}): {verdict:?}"));
            }
            for bytes in out {
                queue.extend(self.arrive(&bytes, server));
            }
        }
    }

    /// Passes on answers that have waited, of which the other gateway knows or not.
    fn deliver(&mut self, released: Vec<(Vec<u8>, Option<Ipv4Addr>, bool)>) {
        for (bytes, server, is_known) in released {
            if let Some(packet) = Packet::of(&bytes).filter(|_| is_known) {
                self.ends.told(self.t, packet.to);
            }
            if let Some((client, answer)) = self.arrive(&bytes, server) {
                self.carry(client, answer);
            }
        }
    }

    /// A packet leaves a gateway, and arrives.
    fn arrive(&mut self, bytes: &[u8], server: Option<Ipv4Addr>) -> Option<(usize, Packet)> {
        let packet = Packet::of(bytes)?;
        if packet.to.ip().octets()[0] == 10 {
            let client = self.ends.client_of(packet.to, packet.from, packet.udp);
            let answer = self.ends.at_server(self.t, &packet)?;
            let client = self.ends.client_of(answer.from, answer.to, answer.udp).or(client)?;
            return Some((client, answer));
        }
        self.ends.at_client(self.t, &packet, server)
    }

    /// Takes a step.
    fn step(&mut self, may_begin: bool) {
        self.t += STEP;
        for at in 0..2 {
            if self.gates[at].running.is_none() && self.t >= self.gates[at].back_at {
                self.start(at);
            }
        }
        if self.t % ADVERT < STEP {
            self.elect();
        }
        self.connect();
        self.notice();
        for at in 0..2 {
            if self.is_up(at) {
                self.run(at);
            }
        }
        self.compare();
        self.probe();
        self.watch();
        for (client, packet) in self.ends.act(self.t, may_begin) {
            self.carry(client, packet);
        }
    }

    /// Has the log say all that happens to a client.
    pub fn watch_client(&mut self, client: Option<usize>) {
        self.watched = client;
    }

    /// Logs what the gateways know of the client that is watched, where that has changed.
    fn watch(&mut self) {
        let Some(client) = self.watched.filter(|_| self.keeps_log).map(|client| Ends::address(client).to_string())
        else {
            return;
        };
        for at in 0..2 {
            let flows = self.rows(at, true).into_iter().filter(|row| row.1.ip().to_string() == client);
            let mut known: Vec<String> = flows.map(|row| format!("{row:?}")).collect();
            known.extend(self.sticky(at).into_iter().filter(|row| row.client == client).map(|row| {
                let given = self.t.saturating_sub(row.given_ms) as f64 / 1000.0;
                format!("sticks to {} since {given:.2}, proven {}, flows {}", row.server, row.proven, row.flows)
            }));
            if known != self.seen[at] {
                let new = known.iter().filter(|line| !self.seen[at].contains(line)).cloned().collect::<Vec<_>>();
                let old = self.seen[at].iter().filter(|line| !known.contains(line)).cloned().collect::<Vec<_>>();
                self.say(|| format!("  gateway {at} knows {new:?}, no longer {old:?}"));
                self.seen[at] = known;
            }
        }
    }
}

/// Takes the packets that an engine sends.
fn own(engine: &mut Engine, now: Instant, buffer: &mut [u8]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    while let Some((len, _)) = engine.poll_transmit(now, buffer) {
        sent.push(buffer[..len].to_vec());
    }
    sent
}
