//! The flows: a list with linear search, in which half-open ones are marked.

use super::engine::{HALF_OPEN, NOWHERE, Name};
use super::room::GRACE;
use super::tcp::Tracker;
use equipoise::balance::PickedBy;
use equipoise::engine::FlowRow;
use equipoise::flow::{Class, TICK, TableSettings, TimeoutState, Timeouts};
use equipoise::packet::{Protocol, Side};
use equipoise::time::{Duration, Instant};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// For how long a connection is remembered after it ended in closing or reset.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Where the counters of half-open flows stop.
const MOST_PACKETS: u64 = 15;
const MOST_BYTES: u64 = 65_535;

#[derive(Debug, Clone)]
pub struct Flow {
    /// Unique; given by [`Flows::push`].
    pub number: u64,
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub listen: SocketAddr,
    /// The server's address and port, and the source that it sees.
    pub server_end: SocketAddr,
    pub source: SocketAddr,
    pub service: usize,
    pub server: usize,
    pub rule: Option<usize>,
    pub picked_by: PickedBy,
    pub state: TimeoutState,
    pub profile: usize,
    /// In the store of half-open flows instead of the table.
    pub half_open: bool,
    /// Flows that began with a SYN: the beginning of the tick. The store keeps one time for this and `touched`.
    pub created: Instant,
    /// The beginning of the tick in which its timeout was last restarted.
    pub touched: Instant,
    /// The number of the event that put it at the end of the queue of its class.
    pub queued: u64,
    /// A packet has restarted its timeout since.
    pub refreshed: bool,
    /// Its client has shown that it receives what the server sends: it has completed a handshake, acknowledged what the
    /// server of an adopted connection has sent, or sent a datagram after an answer.
    pub proven: bool,
    /// The client of a half-open flow has shown it, but the flow was not admitted to the table.
    pub stalled: bool,
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    pub tcp: Tracker,
}

impl Flow {
    pub fn name(&self) -> Name {
        (self.client, self.listen, self.protocol)
    }

    /// Returns the source and destination of packets sent by a side.
    pub fn ends(&self, side: Side) -> (SocketAddr, SocketAddr) {
        match side {
            Side::Client => (self.client, self.listen),
            Side::Server => (self.server_end, self.source),
        }
    }

    /// Returns whether no packet from the server has been forwarded yet.
    pub fn is_unanswered(&self) -> bool {
        self.packets[1] == 0
    }

    /// Returns whether no packet has restarted the timeout for a second.
    pub fn is_silent(&self, now: Instant) -> bool {
        now.since(self.touched) >= Duration::from_secs(1)
    }

    /// Returns whether a SYN for another connection shows that nobody believes in this one any more: it is established
    /// and nothing followed an earlier SYN, or its end proved no knowledge of its numbers and nothing followed it.
    pub fn may_be_replaced(&self, now: Instant) -> bool {
        match self.state {
            TimeoutState::Established => self.tcp.doubted && self.is_silent(now),
            TimeoutState::Reset => !(self.tcp.refused || self.tcp.answered_anew) || self.is_silent(now),
            TimeoutState::Closing => !self.tcp.answered_anew || self.is_silent(now),
            _ => true,
        }
    }

    /// Returns whether it is over for everybody, and so yields its return key.
    pub fn yields(&self, now: Instant) -> bool {
        self.has_ended() && self.may_be_replaced(now)
    }

    /// Returns whether both ends have closed the connection, or one has reset it.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, TimeoutState::Closing | TimeoutState::Reset)
    }

    /// Returns whether neither end has anything left to send: each has acknowledged the other's FIN, or the connection
    /// was reset.
    pub fn is_settled(&self) -> bool {
        match self.state {
            TimeoutState::Closing => self.tcp.is_closed(),
            state => state == TimeoutState::Reset,
        }
    }

    /// Returns whether it is in the table and over.
    pub fn is_over(&self) -> bool {
        !self.half_open && self.has_ended()
    }

    /// Returns its class in the order of giving way.
    pub fn class(&self) -> Class {
        match self.state {
            _ if self.half_open => Class::HalfOpen,
            TimeoutState::Closing | TimeoutState::Reset => Class::Over,
            TimeoutState::Established => Class::Settled,
            TimeoutState::Opening => Class::Brief,
            _ if self.proven => Class::Conversing,
            _ => Class::Brief,
        }
    }

    /// Counts packets of one side.
    pub fn count(&mut self, side: Side, packets: u64, bytes: u64) {
        let (most_packets, most_bytes) = if self.half_open { (MOST_PACKETS, MOST_BYTES) } else { (u64::MAX, u64::MAX) };
        let side = side as usize;
        self.packets[side] = (self.packets[side] + packets).min(most_packets);
        self.bytes[side] = (self.bytes[side] + bytes).min(most_bytes);
    }
}

#[derive(Debug, Clone)]
pub struct Flows {
    pub all: Vec<Flow>,
    /// Capacity of the table, and of the store of half-open flows.
    pub most: usize,
    pub most_half_open: usize,
    /// The ends of TCP connections that ended in closing or reset, and the tick in which they did.
    pub recent: Vec<(SocketAddr, SocketAddr, u64)>,
    /// Connections to servers that passed unchanged: server and client.
    pub direct: BTreeSet<(SocketAddr, SocketAddr)>,
    timeouts: Vec<Timeouts>,
    /// Where the timeouts of new flows begin; those before are of flows that are older than the last reload.
    first: usize,
    /// When the first flow was created.
    epoch: Option<Instant>,
    events: u64,
}

/// Returns a span in ticks, rounded up.
pub fn ticks(span: Duration) -> u64 {
    span.as_nanos().div_ceil(TICK.as_nanos()) as u64
}

impl Flows {
    pub fn new(settings: &TableSettings) -> Self {
        Flows {
            all: Vec::new(),
            most: settings.max_flows as usize,
            most_half_open: settings.max_half_open as usize,
            recent: Vec::new(),
            direct: BTreeSet::new(),
            timeouts: std::iter::once(settings.timeouts).chain(settings.profiles.iter().copied()).collect(),
            first: 0,
            epoch: None,
            events: 0,
        }
    }

    /// Gives new flows other timeouts.
    pub fn follow(&mut self, settings: &TableSettings) {
        self.first = self.timeouts.len();
        self.timeouts.extend(std::iter::once(settings.timeouts).chain(settings.profiles.iter().copied()));
    }

    /// Returns the place of the timeouts that a new flow gets.
    pub fn profile(&self, profile: usize) -> usize {
        self.first + profile
    }

    /// Returns the ticks that have begun since the first flow was created.
    pub fn tick(&self, time: Instant) -> u64 {
        (time.since(self.epoch.unwrap_or(time)).as_nanos() / TICK.as_nanos()) as u64
    }

    /// Returns when a tick begins.
    fn begins(&self, tick: u64) -> Instant {
        self.epoch.unwrap_or_default() + Duration::from_nanos(tick * TICK.as_nanos() as u64)
    }

    fn next_event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// Returns the index of the flow that such a packet belongs to, and the side that sends it.
    pub fn find(&self, protocol: Protocol, src: SocketAddr, dst: SocketAddr) -> Option<(usize, Side)> {
        let of = |side: Side| {
            let place = self.all.iter().position(|flow| flow.protocol == protocol && flow.ends(side) == (src, dst));
            place.map(|place| (place, side))
        };
        of(Side::Client).or_else(|| of(Side::Server))
    }

    /// Returns the number of flows in the table that do not give way to any other: all settled ones, and conversations
    /// as far as they have no more than half of the table.
    pub fn fill(&self) -> usize {
        let count = |class| self.all.iter().filter(|flow| flow.class() == class).count();
        count(Class::Settled) + count(Class::Conversing).min(self.most / 2)
    }

    /// Returns the number of half-open flows, or of those in the table.
    pub fn count(&self, half_open: bool) -> usize {
        self.all.iter().filter(|flow| flow.half_open == half_open).count()
    }

    /// Adds a flow that is created now.
    pub fn push(&mut self, now: Instant, flow: Flow) -> usize {
        self.epoch.get_or_insert(now);
        let (touched, queued) = (self.begins(self.tick(now)), self.next_event());
        let created = if flow.half_open { touched } else { now };
        self.all.push(Flow { number: queued, created, touched, queued, ..flow });
        self.all.len() - 1
    }

    /// Removes a flow, and remembers it if it was over.
    pub fn remove(&mut self, now: Instant, place: usize) -> Flow {
        let flow = self.all.remove(place);
        if flow.protocol == Protocol::Tcp && flow.is_over() {
            self.recent.push((flow.client, flow.listen, self.tick(now)));
        }
        flow
    }

    /// Returns whether a connection between these ends ended a short while ago.
    pub fn has_just_ended(&self, now: Instant, client: SocketAddr, listen: SocketAddr) -> bool {
        let tick = self.tick(now);
        self.recent.iter().any(|ended| (ended.0, ended.1) == (client, listen) && tick - ended.2 <= ticks(REMEMBERED))
    }

    /// Puts a flow at the end of the queue of its class.
    pub fn queue(&mut self, place: usize) {
        let queued = self.next_event();
        (self.all[place].queued, self.all[place].refreshed) = (queued, false);
    }

    /// Takes note of a packet that shows a flow to be in this state.
    pub fn touch(&mut self, now: Instant, place: usize, state: TimeoutState) {
        use TimeoutState::{Closing, Opening, Reset};
        let touched = self.begins(self.tick(now));
        let flow = &mut self.all[place];
        let (was, class) = (flow.state, flow.class());
        // In these states the timeout runs from the beginning.
        if was == state && matches!(state, Opening | Closing | Reset) {
            return;
        }
        (flow.state, flow.touched, flow.refreshed) = (state, touched, true);
        if flow.half_open {
            if matches!(state, Opening | Reset) {
                flow.created = touched;
                return;
            }
            flow.half_open = false;
        }
        let enters = class != flow.class() || (flow.is_over() && was != state);
        if enters {
            self.queue(place);
        }
    }

    /// Takes note of a datagram from the client: after an answer, it makes the flow a conversation. Returns whether it
    /// did.
    pub fn converse(&mut self, place: usize) -> bool {
        let flow = &mut self.all[place];
        let begins = !flow.is_unanswered() && !flow.proven;
        if begins {
            flow.proven = true;
            self.queue(place);
        }
        begins
    }

    /// Returns whether a flow gives way to a new connection of the client `to`, if it is one: neither end has anything
    /// left to send, and what is still under way has had its time, or belongs to the same client.
    pub fn yields(&self, now: Instant, to: Option<SocketAddr>, place: usize) -> bool {
        let flow = &self.all[place];
        let waits = |to| to != flow.client && self.idle(now, flow) < ticks(GRACE);
        to.is_some_and(|to| flow.is_settled() && flow.yields(now) && !waits(to))
    }

    /// Returns when a flow expires if no further packet arrives.
    pub fn deadline(&self, flow: &Flow) -> Instant {
        let timeout = self.timeouts[flow.profile].of(flow.state);
        self.begins(self.tick(flow.touched) + ticks(timeout) + 1)
    }

    /// Returns a flow that has expired.
    pub fn first_due(&self, now: Instant) -> Option<usize> {
        (0..self.all.len()).find(|place| self.deadline(&self.all[*place]) <= now)
    }

    /// Returns the earliest deadline of all flows.
    pub fn next(&self) -> Option<Instant> {
        self.all.iter().map(|flow| self.deadline(flow)).min()
    }

    /// Returns the row that is displayed for a flow.
    pub fn row(&self, now: Instant, flow: &Flow, names: (&str, (&str, &str), Option<&str>)) -> FlowRow {
        let millis = |span: Duration| span.as_millis() as u64;
        FlowRow {
            id: if flow.half_open { HALF_OPEN } else { NOWHERE },
            protocol: flow.protocol,
            client: flow.client,
            listen: flow.listen,
            service: names.0.into(),
            pool: names.1.0.into(),
            server: names.1.1.into(),
            server_address: flow.server_end,
            source: Some(flow.source).filter(|source| *source != flow.client),
            picked_by: flow.picked_by,
            rule: names.2.map(Into::into),
            state: flow.state,
            age_ms: millis(now.since(flow.created)),
            idle_ms: millis(now.since(flow.touched)),
            expires_in_ms: millis(self.deadline(flow).since(now)),
            packets_in: flow.packets[0],
            bytes_in: flow.bytes[0],
            packets_out: flow.packets[1],
            bytes_out: flow.bytes[1],
            shortcut: false,
        }
    }
}
