//! A wrapper around the engine's public API, used by all other files here. Inputs and outputs are plain values.

use equipoise::balance::Admin;
use equipoise::config::Settings;
use equipoise::engine::explain::{Explanation, Foreseen};
use equipoise::engine::{
    Change, Consumed, Counters, Cursor, Engine, Event, FlowQuery, FlowRow, Forwarded, NatRow, PressureRow, Reason,
    Removed, RuleRow, ServerRow, ServiceRow, Successor, Verdict,
};
use equipoise::ids::{FlowId, ServerId};
use equipoise::packet::{Meta, Protocol, Side};
use equipoise::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The outcome of a packet, without flow IDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Translated for its flow and forwarded.
    Translated {
        /// Name of the flow's server.
        server: String,
        /// The side that sent it.
        from: Side,
        /// Whether it opened the flow.
        opened: bool,
        /// Whether it was forwarded in fragments.
        cut: bool,
    },
    /// An ICMP error about a packet of a flow, translated.
    Error {
        /// Name of the flow's server.
        server: String,
        /// The side it came from.
        from: Side,
    },
    /// Forwarded unchanged.
    Foreign,
    /// Consumed by the engine.
    Consumed(Consumed),
    /// Dropped.
    Dropped(Reason),
}

/// All the output for a packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The outcome of the packet.
    pub fate: Fate,
    /// The bytes forwarded in its place; empty if there are none.
    pub bytes: Vec<u8>,
    /// Packets that the engine originated.
    pub sent: Vec<Vec<u8>>,
    /// Events that the engine reported.
    pub events: Vec<Event>,
}

/// A flow's external identity: client, service address and protocol.
pub type Name = (SocketAddr, SocketAddr, Protocol);

/// An operator command. Servers and rules are given by their index in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Order {
    Weight { server: usize, weight: u16 },
    Admin { server: usize, admin: Admin, deadline: Option<Duration> },
    Load { server: usize, load: u8, maintenance: bool },
    Health { server: usize, up: Option<bool> },
    Rule { rule: usize, on: bool },
    Mtu { server: usize, v6: bool, mtu: u16 },
    Kill { flow: Name },
}

/// Everything observable about an engine. Flows are sorted by name and have no IDs.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Rows {
    pub counters: Counters,
    pub servers: Vec<ServerRow>,
    pub services: Vec<ServiceRow>,
    pub rules: Vec<RuleRow>,
    pub nat: Vec<NatRow>,
    pub pressures: Vec<PressureRow>,
    pub flows: Vec<FlowRow>,
}

/// The real engine under test.
pub struct Real {
    engine: Engine,
    buffer: Vec<u8>,
    packets: u64,
    foreseen: u64,
    ids: Ids,
}

/// Interval, in packets, between comparisons of the engine's full state before and after a dry run.
const TRACED_EVERY: u64 = 50;

impl Real {
    /// Creates an engine that reports the opening and end of every flow.
    pub fn new(settings: &Settings) -> Self {
        let mut engine = Engine::new(settings);
        engine.report_flows(true);
        Real { engine, buffer: vec![0; 65_535], packets: 0, foreseen: 0, ids: Ids::default() }
    }

    /// Passes a packet to the engine.
    pub fn packet(&mut self, now: Instant, bytes: &[u8], meta: Meta) -> Answer {
        let mut packet = bytes.to_vec();
        let foreseen = self.foresee(now, bytes, meta);
        let explained = self.engine.explain(now, bytes, meta);
        let verdict = self.engine.handle_packet(now, &mut packet, meta);
        self.compare_with_foreseen(&foreseen, &explained, now, (verdict, &packet));
        let out = if let Verdict::Forward { len, .. } = verdict { packet[..len].to_vec() } else { Vec::new() };
        let unchanged = match verdict {
            Verdict::Forward { len, .. } => packet[len..] == bytes[len..],
            Verdict::Emit { .. } => true,
            _ => packet == bytes,
        };
        assert!(unchanged, "bytes outside the scope of the verdict changed");
        Answer { fate: self.fate(now, verdict), bytes: out, sent: self.sent(now), events: self.events() }
    }

    /// Foresees the packet's outcome twice and checks that the results agree. Periodically checks that this leaves the
    /// engine's full state unchanged.
    fn foresee(&mut self, now: Instant, bytes: &[u8], meta: Meta) -> Foreseen {
        self.packets += 1;
        let held = |engine: &Engine| format!("{engine:?}");
        let before = self.packets.is_multiple_of(TRACED_EVERY).then(|| held(&self.engine));
        let foreseen = self.engine.foresee(now, bytes, meta);
        assert_eq!(self.engine.foresee(now, bytes, meta), foreseen, "foreseeing twice gave different results");
        if let Some(before) = before {
            self.engine.explain(now, bytes, meta);
            assert!(before == held(&self.engine), "foreseeing or explaining changed the engine");
        }
        foreseen
    }

    /// Checks that the foreseen and explained outcomes of a packet match the actual one.
    fn compare_with_foreseen(
        &mut self,
        foreseen: &Foreseen,
        explained: &Explanation,
        now: Instant,
        (verdict, packet): (Verdict, &[u8]),
    ) {
        if let Some(said) = &foreseen.verdict {
            assert_eq!((said, &foreseen.bytes[..]), (&verdict, packet), "foreseen outcome of a packet: {explained:#?}");
            self.foreseen += 1;
        }
        let difference = equipoise::control::difference(&explained.outcome, &self.engine, now, &verdict, packet);
        assert_eq!(difference, None, "{explained:#?}");
    }

    /// Returns the number of packets whose verdict was foreseen correctly.
    pub fn foreseen(&self) -> u64 {
        self.foreseen
    }

    fn fate(&self, now: Instant, verdict: Verdict) -> Fate {
        let cut = matches!(verdict, Verdict::Emit { .. });
        match verdict {
            Verdict::Forward { why, .. } | Verdict::Emit { why } => match why {
                Forwarded::Translated { flow, from, opened } => {
                    Fate::Translated { server: self.server_of(now, flow), from, opened, cut }
                }
                Forwarded::Error { flow, from } => Fate::Error { server: self.server_of(now, flow), from },
                Forwarded::Foreign => Fate::Foreign,
            },
            Verdict::Consume(kind) => Fate::Consumed(kind),
            Verdict::Drop(reason) => Fate::Dropped(reason),
        }
    }

    fn server_of(&self, now: Instant, flow: FlowId) -> String {
        let row = self.flow_rows(now).into_iter().find(|row| row.id == flow);
        row.map_or_else(|| "a flow that is no more".into(), |row| row.server)
    }

    /// Takes the pending packets that the engine originated.
    pub fn sent(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((len, _)) = self.engine.poll_transmit(now, &mut self.buffer) {
            all.push(self.buffer[..len].to_vec());
        }
        all
    }

    /// Takes the pending events.
    pub fn events(&mut self) -> Vec<Event> {
        let events: Vec<Event> = std::iter::from_fn(|| self.engine.poll_event()).collect();
        events.iter().for_each(|event| self.ids.check(event));
        events.into_iter().map(without_place).collect()
    }

    /// Executes a command; returns the error message if it is rejected.
    pub fn change(&mut self, now: Instant, order: &Order) -> Result<(), String> {
        let server = |place: usize| ServerId(place as u32);
        let change = match *order {
            Order::Weight { server: place, weight } => Change::Weight { server: server(place), weight },
            Order::Admin { server: place, admin, deadline } => Change::Admin { server: server(place), admin, deadline },
            Order::Load { server: place, load, maintenance } => {
                Change::Load { server: server(place), load, maintenance }
            }
            Order::Health { server: place, up } => Change::Health { server: server(place), up },
            Order::Rule { rule, on } => Change::Rule { rule: rule as u16, on },
            Order::Mtu { server: place, v6, mtu } => Change::Mtu { server: server(place), v6, mtu },
            Order::Kill { flow } => {
                let found = self.flow_rows(now).into_iter().find(|row| name(row) == flow);
                let nobody = FlowId { index: u32::MAX, generation: 0 };
                Change::Kill { flow: found.map_or(nobody, |row| row.id) }
            }
        };
        self.engine.apply(now, change).map_err(|refused| refused.to_string())
    }

    /// Prepares other settings to follow.
    pub fn prepare(&self, now: Instant, settings: &Settings) -> Successor {
        self.engine.succession(now).prepare(settings)
    }

    /// Does a part of what following needs.
    pub fn get_ready(&self, now: Instant, successor: &mut Successor) -> bool {
        self.engine.get_ready(now, successor)
    }

    /// Puts prepared settings in force.
    pub fn follow(&mut self, now: Instant, successor: Successor) {
        assert!(self.engine.follow(now, successor, Removed::Drain).is_ok(), "no other plan has come between");
    }

    /// Returns when the next timeout is due.
    pub fn due(&self) -> Option<Instant> {
        self.engine.poll_timeout()
    }

    /// Handles timeouts until none is due.
    pub fn timeout(&mut self, now: Instant) -> (Vec<Vec<u8>>, Vec<Event>) {
        let (mut sent, mut events) = (Vec::new(), Vec::new());
        for round in 0.. {
            self.engine.handle_timeout(now);
            sent.extend(self.sent(now));
            events.extend(self.events());
            if self.due().is_none_or(|due| due > now) {
                break;
            }
            assert!(round < 100, "a timeout stays due forever");
        }
        (sent, events)
    }

    fn flow_rows(&self, now: Instant) -> Vec<FlowRow> {
        let (mut rows, mut at) = (Vec::new(), Some(Cursor::default()));
        while let Some(cursor) = at {
            at = self.engine.flows(now, &FlowQuery::default(), cursor, 1000, &mut rows);
        }
        rows
    }

    /// Returns everything observable.
    pub fn rows(&self, now: Instant) -> Rows {
        let engine = &self.engine;
        let mut flows = self.flow_rows(now);
        let ids: BTreeMap<FlowId, Name> = flows.iter().map(|row| (row.id, name(row))).collect();
        assert_eq!(ids, self.ids.of, "the IDs of the flows");
        flows.iter_mut().for_each(|row| placeholder(&mut row.id));
        flows.sort_by_key(name);
        Rows {
            counters: engine.counters(),
            servers: engine.servers(now),
            services: engine.services(),
            rules: engine.rules(),
            nat: engine.nat_pools(),
            pressures: engine.pressures(now),
            flows,
        }
    }
}

/// The placeholders that replace the IDs of flows in the table, and of half-open ones; [`Ids`] checks the IDs.
pub const NOWHERE: FlowId = FlowId { index: 0, generation: 0 };
pub const HALF_OPEN: FlowId = FlowId { index: FlowId::HALF_OPEN, generation: 0 };

/// The IDs that the engine has given: none twice, and a flow gets another one only when it is established.
#[derive(Default)]
struct Ids {
    given: BTreeSet<FlowId>,
    of: BTreeMap<FlowId, Name>,
}

impl Ids {
    fn give(&mut self, id: FlowId, name: Name) {
        assert!(self.given.insert(id), "{id} given twice");
        self.of.insert(id, name);
    }

    /// Checks the IDs in an event.
    fn check(&mut self, event: &Event) {
        match event {
            Event::FlowOpened(flow) => self.give(flow.id, name(flow)),
            Event::FlowEnded { flow, .. } => assert_eq!(self.of.remove(&flow.id), Some(name(flow)), "{event:?}"),
            Event::FlowEstablished { was, id } => {
                let name = self.of.remove(was).unwrap_or_else(|| panic!("{event:?}"));
                self.give(*id, name);
            }
            _ => {}
        }
    }
}

/// Returns the name of a row's flow.
pub fn name(row: &FlowRow) -> Name {
    (row.client, row.listen, row.protocol)
}

fn placeholder(id: &mut FlowId) {
    *id = if id.index & FlowId::HALF_OPEN != 0 { HALF_OPEN } else { NOWHERE };
}

fn without_place(mut event: Event) -> Event {
    match &mut event {
        Event::FlowOpened(flow) | Event::FlowEnded { flow, .. } => placeholder(&mut flow.id),
        Event::FlowEstablished { was, id } => {
            placeholder(was);
            placeholder(id);
        }
        _ => {}
    }
    event
}
