//! The world: two gateways with clocks of their own, what elects the active one, the connection between them, and faults.
//!
//! Time passes in steps of 10 ms. Everything that is random comes from one seed.

use super::ends::{CONFIG, Counts, Ends, SERVICES, State};
use super::random::Random;
use super::skew::Later;
use super::wire::Packet;
use equipoise::config::{self, Settings};
use equipoise::engine::{Cursor, Engine, FlowQuery, Verdict};
use equipoise::flow::Timeouts;
use equipoise::ids::FlowId;
use equipoise::packet::Meta;
use equipoise::sync::{Command, Event, Node, Role, SyncSettings};
use equipoise::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::OnceLock;

/// Milliseconds per step.
const STEP: u64 = 10;
/// Between two words of the election, and how long one is believed.
const ADVERT: u64 = 100;
const DEAD: u64 = 350;
/// For how long a gateway waits for its peer at its start.
const LEARNING: u64 = 8_000;

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let mut settings = config::parse(CONFIG, "sync_sim.toml").unwrap_or_else(|error| panic!("{error}"));
        // Shorter than a file may say, so that flows end within a history.
        let s = Duration::from_secs;
        settings.table.timeouts = Timeouts {
            opening: s(8),
            closing: s(6),
            reset: s(6),
            udp_one_way: s(15),
            udp_two_way: s(50),
            ..settings.table.timeouts
        };
        settings
    })
}

struct Running {
    engine: Engine,
    node: Node,
}

struct Gate {
    running: Option<Running>,
    /// The difference of its clock, in milliseconds.
    offset: u64,
    starts: u64,
    started: u64,
    paused_until: u64,
    back_at: u64,
    /// Its connection.
    conn: Option<u64>,
    /// When it heard of an active peer, and of which priority.
    heard: Option<(u64, u8)>,
    priority: u8,
    lowered_until: u64,
    activated: u64,
    later: Option<Later>,
}

/// A connection between the two.
struct Channel {
    /// By receiver: when what arrives.
    queues: [VecDeque<(u64, Vec<u8>)>; 2],
    delay: u64,
    jitter: u64,
    most_in_flight: usize,
    /// Nothing arrives any more.
    broken: bool,
}

impl Channel {
    fn in_flight(&self, to: usize) -> usize {
        self.queues[to].iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

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
    preempts: bool,
    loss: u64,
    pub ends: Ends,
    pub log: Vec<String>,
    keeps_log: bool,
}

/// A flow as both gateways show it.
type Row = (String, SocketAddrV4, SocketAddrV4, String, String, String);

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
            loss: [0, 5, 30][rng.below(3) as usize],
            gates,
            channels: BTreeMap::new(),
            made: 0,
            notices: Vec::new(),
            connect_at: 0,
            cut: [0; 2],
            in_step_at: 0,
            rng,
            log: Vec::new(),
            keeps_log,
        };
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

    /// Starts a gateway without any flow.
    fn start(&mut self, at: usize) {
        let now = self.now(at);
        let mut engine = Engine::new(settings());
        let names = ["alpha", "beta"];
        let sync = SyncSettings {
            node: names[at].into(),
            peer: names[1 - at].into(),
            key: b"a key that both share".to_vec(),
            instance: self.rng.next() | 1,
            fingerprint: 1,
            learning: Duration::from_millis(LEARNING),
        };
        let node = Node::new(sync, now, &mut engine).unwrap();
        let gate = &mut self.gates[at];
        gate.running = Some(Running { engine, node });
        gate.starts += 1;
        (gate.started, gate.heard, gate.conn) = (self.t, None, None);
        if gate.later.is_some() {
            gate.later = Some(Later::default());
        }
        self.say(|| format!("{} starts", names[at]));
    }

    /// Ends a gateway at once.
    fn kill(&mut self, at: usize) {
        self.say(|| format!("gateway {at} dies"));
        self.gates[at].running = None;
        self.excuse(1 - at);
        if let Some(conn) = self.gates[at].conn.take() {
            self.break_channel(conn, at);
        }
    }

    /// Talks that may be lost if one gateway is left, or gets their packets: those that it cannot know.
    fn excuse(&mut self, left: usize) {
        let gate = &self.gates[left];
        let known = if gate.running.is_some() && gate.started < self.in_step_at { self.in_step_at } else { 0 };
        for talk in &mut self.ends.talks {
            // Half-open flows are not told.
            if !talk.confirmed || talk.open_since.is_none_or(|since| since + 1000 > known) {
                talk.excused = true;
            }
        }
    }

    /// A connection breaks; `noticed_by` knows, the other one after a while.
    fn break_channel(&mut self, conn: u64, noticed_by: usize) {
        if let Some(channel) = self.channels.get_mut(&conn) {
            channel.broken = true;
        }
        let other = 1 - noticed_by;
        if self.gates[other].conn == Some(conn) {
            let after = self.rng.below(2500);
            self.notices.push((self.t + after, other, conn));
        }
        self.connect_at = self.t + 50 + self.rng.below(1500);
    }

    fn is_up(&self, at: usize) -> bool {
        self.gates[at].running.is_some() && self.t >= self.gates[at].paused_until
    }

    fn role(&self, at: usize) -> Option<Role> {
        self.gates[at].running.as_ref().map(|running| running.node.status().role)
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
            let Some(Running { engine, .. }) = &mut self.gates[at].running else { continue };
            let mut bytes = packet.bytes();
            let verdict = engine.handle_packet(now, &mut bytes, Meta::default());
            let mut out = Vec::new();
            if let Verdict::Forward { len, .. } = verdict {
                out.push(bytes[..len].to_vec());
            }
            out.extend(own(engine, now));
            if self.keeps_log && !matches!(verdict, Verdict::Forward { .. }) {
                let is_up = [self.is_active(0), self.is_active(1)];
                self.say(|| format!("  {packet:?} at gateway {at} (active {is_up:?}): {verdict:?}"));
            }
            for bytes in out {
                queue.extend(self.arrive(&bytes, server));
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
        for (client, packet) in self.ends.act(self.t, may_begin) {
            self.carry(client, packet);
        }
    }

    /// Whether both know the same, and nothing is under way.
    fn compare(&mut self) {
        let quiet = self.gates[0].conn.is_some()
            && self.gates[0].conn == self.gates[1].conn
            && self
                .channels
                .get(&self.gates[0].conn.unwrap())
                .is_some_and(|channel| !channel.broken && channel.queues.iter().all(VecDeque::is_empty));
        let in_step = |gate: &Gate| gate.running.as_ref().is_some_and(|running| running.node.status().in_step);
        if quiet && self.gates.iter().all(in_step) {
            self.in_step_at = self.t;
        }
        self.ends.calm = self.t - self.in_step_at <= 300 && self.is_active(0) != self.is_active(1);
    }

    fn elect(&mut self) {
        let active = [0, 1].map(|at| self.is_up(at) && self.is_active(at));
        let hears = self.t >= self.cut[0];
        for at in 0..2 {
            let other = 1 - at;
            if active[other] && hears && self.is_up(at) {
                self.gates[at].heard = Some((self.t, self.priority(other)));
            }
        }
        for at in 0..2 {
            if !self.is_up(at) {
                continue;
            }
            let heard = self.gates[at].heard.filter(|(when, _)| self.t - when < DEAD).map(|(_, priority)| priority);
            let own = self.priority(at);
            let role = self.role(at).unwrap();
            let is_ready = self.gates[at].running.as_ref().is_some_and(|running| running.node.is_ready());
            match heard {
                Some(other) if role.is_active() && other > own => self.command(at, Command::StandBy),
                Some(other) if !role.is_active() && self.preempts && is_ready && own > other => {
                    self.command(at, Command::Activate);
                }
                None if !role.is_active() && is_ready && self.t - self.gates[at].started > DEAD => {
                    self.command(at, Command::Activate);
                }
                Some(_) if role == Role::Ready => self.command(at, Command::StandBy),
                _ => {}
            }
        }
    }

    fn priority(&self, at: usize) -> u8 {
        let gate = &self.gates[at];
        if self.t < gate.lowered_until { 10 } else { gate.priority }
    }

    fn command(&mut self, at: usize, command: Command) {
        let now = self.now(at);
        if let Some(Running { engine, node }) = &mut self.gates[at].running {
            node.command(now, engine, command);
        }
        if command == Command::Activate {
            self.gates[at].activated = self.t;
        }
        self.excuse(if command == Command::Activate { at } else { 1 - at });
    }

    fn connect(&mut self) {
        let both = [0, 1].map(|at| self.is_up(at) && self.gates[at].conn.is_none());
        let is_free = |at: usize| {
            let conn = self.gates[at].conn;
            both[at] || conn.is_some_and(|conn| self.channels.get(&conn).is_none_or(|channel| channel.broken))
        };
        let can = self.t >= self.connect_at && self.t >= self.cut[1];
        if !(can && (both[0] || both[1]) && self.is_up(0) && self.is_up(1) && is_free(0) && is_free(1)) {
            return;
        }
        self.made += 1;
        let id = self.made;
        let delay = [0, 10, 60][self.rng.below(3) as usize];
        let jitter = [1, 20, 300][self.rng.below(3) as usize];
        let most_in_flight = [2000, 20_000, 1 << 20][self.rng.below(3) as usize];
        let queues = [VecDeque::new(), VecDeque::new()];
        self.channels.insert(id, Channel { queues, delay, jitter, most_in_flight, broken: false });
        self.say(|| format!("connection {id}: {delay} ms, {jitter} ms jitter, window {most_in_flight}"));
        for at in 0..2 {
            let (now, nonce) = (self.now(at), self.rng.next());
            let gate = &mut self.gates[at];
            if gate.later.is_some() {
                gate.later = Some(Later::default());
            }
            gate.conn = Some(id);
            if let Some(Running { engine, node }) = &mut gate.running {
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&nonce.to_be_bytes());
                node.connected(now, engine, bytes);
            }
        }
        let used = [self.gates[0].conn, self.gates[1].conn];
        self.channels.retain(|id, _| used.contains(&Some(*id)));
    }

    /// Tells gateways that their connection is broken.
    fn notice(&mut self) {
        let due: Vec<_> =
            self.notices.iter().copied().filter(|(when, at, _)| *when <= self.t && self.is_up(*at)).collect();
        self.notices.retain(|notice| !due.contains(notice));
        for (_, at, conn) in due {
            if self.gates[at].conn == Some(conn) {
                self.gates[at].conn = None;
                let now = self.now(at);
                if let Some(Running { engine, node }) = &mut self.gates[at].running {
                    node.disconnected(now, engine);
                }
            }
        }
    }

    /// Runs a gateway: input, timers, output.
    fn run(&mut self, at: usize) {
        let (t, now) = (self.t, self.now(at));
        let conn = self.gates[at].conn;
        let is_cut = t < self.cut[1];
        let mut own_packets = Vec::new();
        if let Some(Running { engine, node }) = &mut self.gates[at].running {
            for _ in 0..20 {
                if engine.poll_timeout().is_none_or(|due| due > now) {
                    break;
                }
                engine.handle_timeout(now);
                own_packets.extend(own(engine, now));
            }
            while engine.poll_event().is_some() {}
            if let Some(channel) = conn.and_then(|conn| self.channels.get_mut(&conn)).filter(|_| !is_cut)
                && !channel.broken
            {
                while let Some((_, bytes)) = channel.queues[at].pop_front_if(|(when, _)| *when <= t) {
                    node.handle_input(now, engine, &bytes);
                }
            }
            for _ in 0..20 {
                if node.poll_timeout(now, true).is_none_or(|due| due > now) {
                    break;
                }
                node.handle_timeout(now, engine);
            }
            node.handle_timeout(now, engine);
        }
        for bytes in own_packets {
            let _ = self.arrive(&bytes, None);
        }
        self.write(at);
        self.events(at);
        let t = self.t;
        if t % 500 < STEP
            && let Some(Running { engine, node }) = &mut self.gates[at].running
            && let (Some(slot), _) = node.audit(engine, 0, u32::MAX)
        {
            self.ends.wrong.get_or_insert(format!(
                "{t}: the book of gateway {at} is wrong about slot {slot}: {:?}",
                engine.flow_mark(slot)
            ));
        }
    }

    /// Puts what a gateway sends on its way, in pieces.
    fn write(&mut self, at: usize) {
        let (t, now, to) = (self.t, self.now(at), 1 - at);
        let Some(conn) = self.gates[at].conn else { return };
        let gate = &mut self.gates[at];
        let (Some(channel), Some(Running { engine, node })) = (self.channels.get_mut(&conn), &mut gate.running) else {
            return;
        };
        while channel.in_flight(to) < channel.most_in_flight {
            let mut out = Vec::new();
            node.poll_output(now, engine, &mut out);
            if let Some(later) = &mut gate.later {
                out = later.pass(&out);
            }
            if out.is_empty() {
                return;
            }
            let mut rest = &out[..];
            while !rest.is_empty() {
                let len = 1 + self.rng.below(rest.len().min(4000) as u64) as usize;
                let (piece, more) = rest.split_at(len);
                rest = more;
                let last = channel.queues[to].back().map_or(0, |(when, _)| *when);
                let when = (t + channel.delay + self.rng.below(channel.jitter)).max(last);
                channel.queues[to].push_back((when, piece.to_vec()));
            }
        }
    }

    fn events(&mut self, at: usize) {
        let mut events = Vec::new();
        if let Some(Running { node, .. }) = &mut self.gates[at].running {
            events.extend(std::iter::from_fn(|| node.poll_event()));
        }
        for event in events {
            self.say(|| format!("gateway {at}: {event}"));
            match event {
                Event::Close(error) => {
                    if !matches!(error, equipoise::sync::LinkError::Silent) {
                        self.ends.wrong.get_or_insert(format!("gateway {at} closes the connection: {error}"));
                    }
                    if let Some(conn) = self.gates[at].conn.take() {
                        self.break_channel(conn, at);
                    }
                }
                Event::Yielded => {
                    self.gates[at].lowered_until = self.t + 3000;
                    self.command(at, Command::StandBy);
                    if self.is_up(1 - at) {
                        self.command(1 - at, Command::Activate);
                    }
                }
                _ => {}
            }
        }
    }

    /// Lets something go wrong.
    fn fault(&mut self) {
        let at = self.rng.below(2) as usize;
        let reach = 8 + self.rng.below(7);
        let span = 200 + self.rng.below(1 << reach);
        let what = self.rng.below(7);
        match what {
            0 => {
                self.kill(at);
                self.gates[at].back_at = self.t + 50 + span;
            }
            1 => {
                self.say(|| format!("gateway {at} is stopped for {span} ms"));
                self.gates[at].paused_until = self.t + span;
            }
            2 => {
                self.say(|| format!("the connection is cut for {span} ms"));
                self.cut[1] = self.t + span;
            }
            3 | 4 => {
                self.say(|| format!("nothing passes between the two for {span} ms"));
                self.cut = [self.t + span; 2];
            }
            5 => {
                if let Some(conn) = self.gates[at].conn {
                    self.say(|| "the connection breaks".into());
                    self.gates[at].conn = None;
                    let now = self.now(at);
                    if let Some(Running { engine, node }) = &mut self.gates[at].running {
                        node.disconnected(now, engine);
                    }
                    self.break_channel(conn, at);
                }
            }
            _ => {
                for at in 0..2 {
                    if self.is_active(at) && self.is_up(at) {
                        self.say(|| format!("gateway {at} shall yield"));
                        self.command(at, Command::Yield);
                    }
                }
            }
        }
    }

    /// Returns the flows of a gateway, without half-open ones.
    fn flows(&self, at: usize) -> Vec<Row> {
        let Some(Running { engine, .. }) = &self.gates[at].running else { return Vec::new() };
        let mut rows = Vec::new();
        engine.flows(self.now(at), &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
        let v4 = |address: std::net::SocketAddr| match address {
            std::net::SocketAddr::V4(address) => address,
            other => panic!("{other}"),
        };
        let mut rows: Vec<Row> = rows
            .into_iter()
            .filter(|row| row.id.index & FlowId::HALF_OPEN == 0)
            .map(|row| {
                let source = row.source.map_or_else(String::new, |source| source.to_string());
                let ends = (v4(row.client), v4(row.listen));
                let to = format!("{} {}", row.server_address, source);
                (row.protocol.name().into(), ends.0, ends.1, row.server, to, row.state.name().into())
            })
            .collect();
        rows.sort();
        rows
    }

    /// What differs between the two; none if nothing does.
    fn difference(&self) -> Option<String> {
        let roles = [0, 1].map(|at| self.role(at));
        let actives = roles.iter().flatten().filter(|role| role.is_active()).count();
        if actives != 1 || roles.contains(&None) {
            return Some(format!("roles: {roles:?}"));
        }
        let [a, b] = [0, 1].map(|at| self.flows(at));
        let status = [0, 1].map(|at| self.gates[at].running.as_ref().unwrap().node.status());
        if a != b {
            let only =
                |of: &[Row], not: &[Row]| of.iter().filter(|row| !not.contains(row)).cloned().collect::<Vec<_>>();
            let (first, second) = (only(&a, &b), only(&b, &a));
            return Some(format!("{} and {} flows; {first:?} and {second:?}; {status:?}", a.len(), b.len()));
        }
        let agreed = status.iter().any(|status| !status.role.is_active() && status.agreed);
        if status[0].digest != status[1].digest || !agreed {
            return Some(format!("{status:?}"));
        }
        None
    }

    fn finish(&mut self, span: u64, faults: u64, may_begin: bool) -> Result<(), String> {
        let end = self.t + span;
        while self.t < end {
            if faults > 0 && self.rng.below(faults) == 0 {
                self.fault();
            }
            self.step(may_begin);
            if let Some(wrong) = &self.ends.wrong {
                return Err(wrong.clone());
            }
        }
        Ok(())
    }

    /// Runs one history: faults, healing, comparison, and what comes after.
    pub fn run_all(&mut self) -> Result<Counts, String> {
        self.finish(12_000, 0, true)?;
        let (span, often) = (10_000 + self.rng.below(60_000), 100 + self.rng.below(2000));
        self.finish(span, often, true)?;
        self.heal();
        self.finish(15_000, 0, true)?;
        // What is under way arrives.
        for talk in &mut self.ends.talks {
            talk.next = talk.next.max(self.t + 6_000);
        }
        self.finish(1_000, 0, false)?;
        // Flows still expire, and the peer hears of it a moment later.
        let mut left = 40;
        while let Some(difference) = self.difference() {
            if left == 0 {
                return Err(format!("20 s after healing, the two differ: {difference}"));
            }
            left -= 1;
            self.finish(100, 0, false)?;
        }
        self.finish(25_000, 0, true)?;
        Ok(self.ends.counts)
    }

    fn heal(&mut self) {
        self.say(|| "everything heals".into());
        self.cut = [self.t; 2];
        self.loss = 0;
        for at in 0..2 {
            self.gates[at].paused_until = self.gates[at].paused_until.min(self.t);
            self.gates[at].back_at = self.gates[at].back_at.min(self.t);
        }
    }

    /// How many talks are open.
    pub fn open(&self) -> usize {
        self.ends.talks.iter().filter(|talk| talk.state == State::Open).count()
    }
}

/// Takes the packets that an engine sends.
fn own(engine: &mut Engine, now: Instant) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    let mut sent = Vec::new();
    while let Some((len, _)) = engine.poll_transmit(now, &mut buffer) {
        sent.push(buffer[..len].to_vec());
    }
    sent
}
