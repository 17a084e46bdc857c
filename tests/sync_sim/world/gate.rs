//! The gateways: how they start, run and die, and what elects the active one.

use super::super::ends::{CONFIG, ONE_SERVER};
use super::super::skew::Later;
use super::health::monitored;
use super::{STEP, World, own};
use equipoise::config::{self, Settings};
use equipoise::engine::Engine;
use equipoise::flow::Timeouts;
use equipoise::ids::FlowId;
use equipoise::sync::{Command, Event, LinkError, Node, Role, SyncSettings};
use equipoise::time::Duration;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::OnceLock;

/// How long a word of the election is believed.
const DEAD: u64 = 350;
/// For how long a gateway waits for its peer at its start.
const LEARNING: u64 = 8_000;
/// Most bytes that a gateway may keep for its peer: 23 for each slot of its table, and some frames.
const MOST_MEMORY: usize = 2048 * 23 + (200 << 10);

/// The configuration of a gateway: with every server, or without one that its peer has; with monitors or without.
fn settings(lacks_one: bool, is_monitored: bool) -> &'static Settings {
    static SETTINGS: [OnceLock<Settings>; 4] = [const { OnceLock::new() }; 4];
    SETTINGS[usize::from(lacks_one) + 2 * usize::from(is_monitored)].get_or_init(|| {
        let text = if lacks_one { CONFIG.replace(ONE_SERVER, "") } else { CONFIG.into() };
        let text = if is_monitored { monitored(&text) } else { text };
        let mut settings = config::parse(&text, "sync_sim.toml").unwrap_or_else(|error| panic!("{error}"));
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

pub(super) struct Running {
    pub(super) engine: Engine,
    pub(super) node: Node,
    /// Answers to SYNs that wait for the peer, and the servers that have sent them.
    pub(super) held: VecDeque<(FlowId, Vec<u8>, Option<Ipv4Addr>)>,
}

pub(super) struct Gate {
    pub(super) running: Option<Running>,
    /// The difference of its clock, in milliseconds.
    pub(super) offset: u64,
    pub(super) starts: u64,
    pub(super) started: u64,
    pub(super) paused_until: u64,
    pub(super) back_at: u64,
    /// Its connection.
    pub(super) conn: Option<u64>,
    /// When it heard of an active peer, and of which priority.
    pub(super) heard: Option<(u64, u8)>,
    pub(super) priority: u8,
    pub(super) lowered_until: u64,
    pub(super) activated: u64,
    pub(super) later: Option<Later>,
}

impl World {
    /// Starts a gateway without any flow.
    pub(super) fn start(&mut self, at: usize) {
        let now = self.now(at);
        let mut engine = Engine::new(settings(self.lacks_one == Some(at), self.monitored));
        let names = ["alpha", "beta"];
        let sync = SyncSettings {
            node: names[at].into(),
            peer: names[1 - at].into(),
            key: b"a key that both share".to_vec(),
            instance: self.rng.next() | 1,
            fingerprint: 1,
            learning: Duration::from_millis(LEARNING),
        };
        engine.report_flows(self.keeps_log);
        let mut node = Node::new(sync, now, &mut engine).unwrap();
        node.hold_answers(self.holds);
        node.follow_health(now, &mut engine, self.monitored);
        let gate = &mut self.gates[at];
        gate.running = Some(Running { engine, node, held: VecDeque::new() });
        gate.starts += 1;
        (gate.started, gate.heard, gate.conn) = (self.t, None, None);
        if gate.later.is_some() {
            gate.later = Some(Later::default());
        }
        self.say(|| format!("{} starts", names[at]));
    }

    /// Ends a gateway at once.
    pub(super) fn kill(&mut self, at: usize) {
        self.say(|| format!("gateway {at} dies"));
        self.ends.forgotten.clear();
        self.gates[at].running = None;
        self.excuse(1 - at);
        if let Some(conn) = self.gates[at].conn.take() {
            self.break_channel(conn, at);
        }
    }

    /// Talks that may be lost if one gateway is left, or gets their packets: those that it cannot know.
    pub(super) fn excuse(&mut self, left: usize) {
        let gate = &self.gates[left];
        let known = if gate.running.is_some() && gate.started < self.in_step_at { self.in_step_at } else { 0 };
        let told = if gate.running.is_some() { gate.started } else { u64::MAX };
        // One that is active takes no clients without flows from its peer.
        self.ends.excuse((self.t, told), known, known.min(self.calm_at));
    }

    /// Returns when a gateway started, if it has not learned the flows of its peer since, which was there before.
    pub(super) fn unlearned_since(&self, at: usize) -> Option<u64> {
        let [own, other] = [at, 1 - at].map(|at| &self.gates[at]);
        let knows = own.running.as_ref().is_some_and(|running| running.node.knows_all());
        (!knows && other.running.is_some() && other.started < own.started).then_some(own.started)
    }

    pub(super) fn command(&mut self, at: usize, command: Command) {
        let now = self.now(at);
        if let Some(Running { engine, node, .. }) = &mut self.gates[at].running {
            node.command(now, engine, command);
        }
        // What is told at that time may come from before.
        self.ends.forgotten.clear();
        if command == Command::Activate {
            self.gates[at].activated = self.t;
        }
        self.excuse(if command == Command::Activate { at } else { 1 - at });
    }

    pub(super) fn elect(&mut self) {
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

    pub(super) fn priority(&self, at: usize) -> u8 {
        let gate = &self.gates[at];
        if self.t < gate.lowered_until { 10 } else { gate.priority }
    }

    /// Runs a gateway: input, timers, output.
    pub(super) fn run(&mut self, at: usize) {
        let (t, now) = (self.t, self.now(at));
        let conn = self.gates[at].conn;
        let is_cut = t < self.cut[1];
        let (mut own_packets, mut ended, mut released) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(Running { engine, node, held }) = &mut self.gates[at].running {
            for _ in 0..20 {
                if engine.poll_timeout().is_none_or(|due| due > now) {
                    break;
                }
                engine.handle_timeout(now);
                let sent = own(engine, now, &mut self.buffer);
                own_packets.extend(self.probes.answer((at, engine), now, sent));
            }
            while let Some(event) = engine.poll_event() {
                if self.keeps_log
                    && let equipoise::engine::Event::FlowEnded { flow, cause } = &event
                {
                    ended.push(format!("  gateway {at}: {} to {} has ended: {cause:?}", flow.client, flow.server));
                }
            }
            let mut release = |node: &mut Node, is_known| {
                while let Some(flow) = node.poll_released() {
                    let (of, bytes, server) = held.pop_front().expect("it was kept");
                    assert_eq!(of, flow, "they go on in order");
                    released.push((bytes, server, is_known));
                }
            };
            if let Some(channel) = conn.and_then(|conn| self.channels.get_mut(&conn)).filter(|_| !is_cut)
                && !channel.broken
            {
                while let Some(bytes) = channel.arrived(t, at) {
                    node.handle_input(now, engine, &bytes);
                }
            }
            // An acknowledgement has released these; the time does the others.
            release(node, true);
            for _ in 0..20 {
                if node.poll_timeout(now, true).is_none_or(|due| due > now) {
                    break;
                }
                node.handle_timeout(now, engine);
            }
            node.handle_timeout(now, engine);
            release(node, false);
        }
        self.deliver(released);
        for bytes in own_packets {
            let _ = self.arrive(&bytes, None);
        }
        ended.into_iter().for_each(|line| self.say(|| line));
        self.write(at);
        self.events(at);
        let t = self.t;
        if t % 500 < STEP
            && let Some(Running { engine, node, .. }) = &mut self.gates[at].running
        {
            if let (Some(slot), _) = node.audit(engine, 0, u32::MAX) {
                self.ends.wrong.get_or_insert(format!(
                    "{t}: the book of gateway {at} is wrong about slot {slot}: {:?}",
                    engine.flow_mark(slot)
                ));
            }
            let memory = node.memory();
            if memory > MOST_MEMORY {
                self.ends.wrong.get_or_insert(format!("{t}: gateway {at} keeps {memory} bytes for its peer"));
            }
        }
    }

    pub(super) fn events(&mut self, at: usize) {
        let mut events = Vec::new();
        if let Some(Running { node, .. }) = &mut self.gates[at].running {
            events.extend(std::iter::from_fn(|| node.poll_event()));
        }
        for event in events {
            self.say(|| format!("gateway {at}: {event}"));
            match event {
                Event::Close(error) => {
                    if !matches!(error, LinkError::Silent) {
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
}
