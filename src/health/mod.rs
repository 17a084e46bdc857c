//! Health monitoring of servers with packets that the gateway sends: one file per probe, one judge for all.
//!
//! Sans-IO like the engine: it receives packets and times, and is polled for packets, events and the next time. The same
//! settings, packets and times produce the same packets. It must know neither services nor flows, algorithms or the text
//! of the configuration; the effect of a state on a flow is decided above it.

mod dns;
mod expect;
mod floor;
mod follow;
mod frame;
mod history;
mod http;
mod icmp;
mod inherit;
mod jitter;
mod judge;
mod observe;
mod probes;
mod recall;
mod rows;
pub mod settings;
mod stack;
mod targets;
mod tcp;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_pool;
mod totals;
mod udp;
mod units;
mod why;

pub use history::{Happened, HistoryEntry};
pub use inherit::Heritage;
pub use recall::SavedVerdict;
pub use rows::MonitorRow;
pub use settings::HealthSettings;
pub use totals::ProbeTotals;
pub use why::{Failure, Why};

use crate::ids::ServerId;
use crate::packet::{Addresses, Meta, Parsed, Transport};
use crate::rng::Rng;
use crate::schedule::Schedule;
use crate::state::Health;
use crate::time::{Duration, Instant};
use observe::Observer;
use probes::{Key, Outbox};

use stack::Stack;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use targets::Targets;
use totals::Totals;

/// Maximum number of wake-ups handled per call of [`Monitors::handle_timeout`].
const MOST_WAKES: usize = 256;
/// Minimum capacity of the event queue; with many units it is four per unit. When full, it drops the oldest event.
const LEAST_EVENTS: usize = 1024;

/// The result of a packet for the probe address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It ended or advanced a probe.
    Answer,
    /// It came from a monitored address, but no outstanding probe expects it.
    Late,
    /// It is unrelated to any probe.
    Unknown,
    /// Its checksum is wrong.
    Checksum,
}

/// An event of the monitors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthEvent {
    /// A server, or one of its ports, came up or went down.
    Transition {
        /// The server.
        server: ServerId,
        /// Whether this concerns its IPv6 address.
        v6: bool,
        /// The port; none for the whole address.
        port: Option<u16>,
        /// Whether it came up.
        up: bool,
        /// The time.
        at: Instant,
        /// The reason.
        why: Why,
    },
    /// The monitors consider it down, but the floor keeps it in service; reported once.
    KeptByFloor {
        /// The server.
        server: ServerId,
        /// Whether this concerns its IPv6 address.
        v6: bool,
        /// The port; none for the whole address.
        port: Option<u16>,
        /// The time.
        at: Instant,
        /// The reason why it would be down.
        why: Why,
    },
    /// A probe was answered: [`Monitors::latency`] of the server has changed.
    Latency {
        /// The server.
        server: ServerId,
    },
    /// A server reported its load.
    Load {
        /// The server.
        server: ServerId,
        /// The load in percent, 0 to 100.
        load: u8,
        /// Whether it is under maintenance: no new flows.
        maintenance: bool,
        /// The time.
        at: Instant,
    },
}

/// The monitors of all servers.
///
/// Call [`Monitors::handle_packet`] with packets for its addresses and [`Monitors::handle_timeout`] at the time of
/// [`Monitors::poll_timeout`]; after either, call [`Monitors::poll_transmit`] and [`Monitors::poll_event`] until they
/// return none.
#[derive(Debug)]
pub struct Monitors {
    source_v4: Option<Ipv4Addr>,
    source_v6: Option<Ipv6Addr>,
    all: Targets,
    schedule: Schedule,
    numbers: Rng,
    /// Identifier of all echo requests.
    echo: u16,
    /// The next port or sequence number.
    next_port: u16,
    started: bool,
    outstanding: BTreeMap<Key, u32>,
    /// The connections of HTTP probes that have their result and are being closed, and their targets.
    lingering: BTreeMap<Key, (u32, u32)>,
    addresses: BTreeSet<IpAddr>,
    stack: Stack,
    /// Targets whose HTTP probe is due but waits for a free connection.
    waiting: VecDeque<u32>,
    outbox: Outbox,
    events: VecDeque<HealthEvent>,
    forced: BTreeMap<ServerId, bool>,
    observer: Option<Observer>,
    /// The end of the latest time in which packets may have been lost on this side.
    lapsed: Option<Instant>,
    totals: Totals,
    /// Whether they follow the verdicts of others, and whether these have told all of theirs.
    follows: bool,
    is_told_all: bool,
    /// Counts how often they have begun to tell all; not 0 while they are followed.
    round: u32,
    /// Counts what has become of verdicts and states.
    changes: u64,
}

impl Monitors {
    /// Makes the monitors from checked settings; a monitor with contradictory values may never succeed.
    pub fn new(settings: &HealthSettings) -> Monitors {
        let all = Targets::new(settings);
        let mut numbers = Rng::new(settings.seed);
        let echo = numbers.next() as u16;
        let next_port = probes::FIRST_PORT + numbers.below(u64::from(probes::PORTS)) as u16;
        let addresses = all.targets.iter().map(|target| target.address).collect();
        let http = all.targets.iter().filter(|t| !all.monitors[t.monitor as usize].request.is_empty()).count();
        let stack = Stack::new(settings.source_v4, settings.source_v6, numbers.next(), http);
        Monitors {
            source_v4: settings.source_v4,
            source_v6: settings.source_v6,
            schedule: Schedule::new(all.targets.len() + stack.slots()),
            all,
            numbers,
            echo,
            next_port,
            started: false,
            outstanding: BTreeMap::new(),
            lingering: BTreeMap::new(),
            addresses,
            stack,
            waiting: VecDeque::new(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            forced: BTreeMap::new(),
            observer: None,
            lapsed: None,
            totals: Totals::new(),
            follows: false,
            is_told_all: false,
            round: 0,
            changes: 0,
        }
    }

    /// Returns when [`Monitors::handle_timeout`] is next due, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.started && !self.all.targets.is_empty() {
            return Some(Instant::ZERO);
        }
        self.schedule.next()
    }

    /// Starts probes that are due and ends those that have timed out: a bounded number per call.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.started {
            self.start(now);
        }
        for _ in 0..MOST_WAKES {
            if self.outbox.is_full() {
                return;
            }
            let Some(id) = self.schedule.pop(now) else { return };
            match id.checked_sub(self.all.targets.len() as u32) {
                Some(slot) => self.wake_connection(now, slot),
                None => self.wake_target(now, id),
            }
        }
    }

    /// Notes that packets of a span that ends now may have been lost on this side: answers to probes, or the probes.
    ///
    /// Probes of that time that time out are not judged, and the latency of those that are answered is unknown. The next
    /// probe follows at its usual time. In a row, no more probes of a target are let off than its monitor needs failures
    /// (`fall`), so that whoever makes packets get lost at most doubles the time that a dead server needs to go down.
    pub fn lapse(&mut self, since: Instant, until: Instant) {
        debug_assert!(since <= until);
        self.lapsed = self.lapsed.max(Some(until));
    }

    /// Copies the next packet to send into `buf` and returns its length; a packet that does not fit is discarded.
    pub fn poll_transmit(&mut self, _now: Instant, buf: &mut [u8]) -> Option<(usize, Meta)> {
        self.outbox.pop(buf)
    }

    /// Returns whether [`Monitors::poll_transmit`] has a packet.
    #[inline]
    pub fn has_packets(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Tests whether a packet is for the monitors; while observing, also whether a monitor in the capture sent it.
    pub fn is_ours(&self, addresses: &Addresses) -> bool {
        let (src, dst) = match *addresses {
            Addresses::V4 { src, dst } => {
                let ours = |address: u32| self.source_v4.is_some_and(|source| u32::from(source) == address);
                (self.observer.is_some() && ours(src), ours(dst))
            }
            Addresses::V6 { src, dst } => {
                let ours = |address: u128| self.source_v6.is_some_and(|source| u128::from(source) == address);
                (self.observer.is_some() && ours(src), ours(dst))
            }
        };
        src || dst
    }

    /// Takes a packet for which [`Monitors::is_ours`] is true.
    ///
    /// Packets must be passed before a [`Monitors::handle_timeout`] of the same time, so that a reply waiting in a queue
    /// counts as in time. Fragments are not reassembled, so replies to probes must fit into one packet.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8], parsed: &Parsed, meta: Meta) -> Taken {
        if !self.started {
            self.start(now);
        }
        if matches!(parsed.transport, Transport::Fragment { .. } | Transport::Other) {
            return Taken::Unknown;
        }
        if !meta.is_unfinished() && !frame::checksum_is_valid(packet, parsed) {
            return Taken::Checksum;
        }
        if self.observer.is_some() {
            return self.observed(now, packet, parsed);
        }
        self.answered(now, packet, parsed)
    }

    /// Returns the health of a server for new flows to one of its ports; an unmonitored server is up.
    pub fn state(&self, server: ServerId, v6: bool, port: u16) -> Health {
        if let Some(up) = self.forced.get(&server).filter(|_| !self.forced.is_empty()) {
            return Health::from_up(*up);
        }
        self.all.find(server).map_or(Health::Up, |place| self.all.state(place, v6, port))
    }

    /// Returns the parts of a server that are down: the family, and the port unless it is the whole address. None if it is
    /// forced up or down, which applies to all of it.
    pub fn parts_down(&self, server: ServerId) -> Vec<(bool, Option<u16>)> {
        let Some(place) = self.all.find(server).filter(|_| !self.forced.contains_key(&server)) else {
            return Vec::new();
        };
        let units = self.all.servers[place].units.iter().flatten().map(|unit| &self.all.units[*unit as usize]);
        units.filter(|unit| unit.state == Health::Down).map(|unit| (unit.v6, unit.port)).collect()
    }

    /// Returns the smoothed latency of a server: the mean over its monitors that have had replies.
    pub fn latency(&self, server: ServerId) -> Option<Duration> {
        let units = self.all.servers[self.all.find(server)?].units.iter().flatten();
        let targets = units.flat_map(|unit| &self.all.units[*unit as usize].targets);
        let (count, total) = targets
            .filter_map(|target| self.all.targets[*target as usize].judge.smoothed())
            .fold((0, Duration::ZERO), |(count, total), latency| (count + 1, total + latency));
        (count > 0).then(|| total / count)
    }

    /// Returns the load and maintenance flag that a server last reported, and when.
    pub fn load(&self, server: ServerId) -> Option<(Instant, u8, bool)> {
        self.all.servers[self.all.find(server)?].load
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<HealthEvent> {
        self.events.pop_front()
    }

    /// Returns the latest changes of a server, at most 32, the oldest first.
    pub fn history(&self, server: ServerId) -> impl Iterator<Item = &HistoryEntry> {
        self.all.find(server).into_iter().flat_map(|place| self.all.servers[place].history.iter())
    }

    /// Returns what became of all probes since the start: one row per type.
    pub fn totals(&self) -> &[ProbeTotals] {
        self.totals.all()
    }

    /// Switches between following the probes in a capture and sending probes.
    ///
    /// A captured probe from the source address counts as sent, and a matching reply ends the oldest outstanding one.
    /// If the capture has replies but no probes, one probe per interval is assumed; if it has neither, nothing
    /// happens.
    pub fn observe(&mut self, on: bool) {
        if on != self.observer.is_some() {
            self.observer = on.then(|| Observer::new(self.all.targets.len()));
        }
    }

    fn push_event(&mut self, event: HealthEvent) {
        if self.events.len() >= LEAST_EVENTS.max(4 * self.all.units.len()) {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
