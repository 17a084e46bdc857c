//! Whether servers are up, found out with packets of the gateway's own: one file a probe, one judge for all.
//!
//! Sans-IO like the engine: it receives packets and times, and is polled for packets, events and the next
//! time. The same settings, packets and times give the same packets. It must not know services, flows,
//! algorithms or the configuration's text; what a state means for a flow is decided above it.

mod dns;
mod expect;
mod floor;
mod frame;
mod history;
mod http;
mod icmp;
mod inherit;
mod jitter;
mod judge;
mod observe;
mod probes;
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
mod udp;
mod units;
mod why;

pub use history::{Happened, HistoryEntry};
pub use rows::MonitorRow;
pub use settings::HealthSettings;
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

/// Wake-ups that one call of [`Monitors::handle_timeout`] works on, at most.
const MOST_WAKES: usize = 256;
/// Events that wait at least; the oldest is dropped beyond that, or four a unit.
const LEAST_EVENTS: usize = 1024;

/// What became of a packet for the gateway's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It answered a probe, or moved one on.
    Answer,
    /// It came from a watched address, but no probe waits for it.
    Late,
    /// It has to do with no probe.
    Unknown,
    /// Its checksum is wrong.
    Checksum,
}

/// What the monitors found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthEvent {
    /// A server, or one port of it, came up or went down.
    Transition {
        /// The server.
        server: ServerId,
        /// Whether it is its IPv6 address.
        v6: bool,
        /// The port; none: the whole address.
        port: Option<u16>,
        /// Up, else down.
        up: bool,
        /// When.
        at: Instant,
        /// Why.
        why: Why,
    },
    /// The monitors say down, but the floor keeps it in; told once.
    KeptByFloor {
        /// The server.
        server: ServerId,
        /// Whether it is its IPv6 address.
        v6: bool,
        /// The port; none: the whole address.
        port: Option<u16>,
        /// When.
        at: Instant,
        /// Why it would be down.
        why: Why,
    },
    /// A probe was answered: [`Monitors::latency`] of the server has changed.
    Latency {
        /// The server.
        server: ServerId,
    },
    /// A server told its load.
    Load {
        /// The server.
        server: ServerId,
        /// 0 to 100.
        load: u8,
        /// Whether it is under maintenance: no new flows.
        maintenance: bool,
        /// When.
        at: Instant,
    },
}

/// The monitors of all servers.
///
/// Call [`Monitors::handle_packet`] with what comes for its addresses and [`Monitors::handle_timeout`] when
/// [`Monitors::poll_timeout`] says so; after either, [`Monitors::poll_transmit`] and [`Monitors::poll_event`]
/// until they return none.
#[derive(Debug)]
pub struct Monitors {
    source_v4: Option<Ipv4Addr>,
    source_v6: Option<Ipv6Addr>,
    all: Targets,
    schedule: Schedule,
    numbers: Rng,
    /// The identifier of all echo requests.
    echo: u16,
    /// The port or sequence number that is next.
    next_port: u16,
    started: bool,
    outstanding: BTreeMap<Key, u32>,
    addresses: BTreeSet<IpAddr>,
    stack: Stack,
    /// Targets whose HTTP probe is due, but all connections are in use.
    waiting: VecDeque<u32>,
    outbox: Outbox,
    events: VecDeque<HealthEvent>,
    forced: BTreeMap<ServerId, bool>,
    observer: Option<Observer>,
}

impl Monitors {
    /// The monitors of checked settings; those whose values contradict each other may never be met.
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
            addresses,
            stack,
            waiting: VecDeque::new(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            forced: BTreeMap::new(),
            observer: None,
        }
    }

    /// When [`Monitors::handle_timeout`] is next due; none: never.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.started && !self.all.targets.is_empty() {
            return Some(Instant::ZERO);
        }
        self.schedule.next()
    }

    /// Starts probes that are due and ends those whose time is up: a bounded number, the rest at the next call.
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

    /// Copies the next packet to send into `buf` and returns its length; one that does not fit is thrown away.
    pub fn poll_transmit(&mut self, _now: Instant, buf: &mut [u8]) -> Option<(usize, Meta)> {
        self.outbox.pop(buf)
    }

    /// Whether a packet is for the monitors; while observing, also one that a monitor of the capture sent.
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

    /// Takes a packet that [`Monitors::is_ours`].
    ///
    /// Packets of one time come before its [`Monitors::handle_timeout`]: an answer that waits in a queue is in time.
    /// Fragments are not put together: a server that must fragment its answers is not within one packet's reach.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8], parsed: &Parsed, meta: Meta) -> Taken {
        if !self.started {
            self.start(now);
        }
        if matches!(parsed.transport, Transport::Fragment { .. } | Transport::Other) {
            return Taken::Unknown;
        }
        if !meta.partial_checksum && !frame::sum_is_right(packet, parsed) {
            return Taken::Checksum;
        }
        if self.observer.is_some() {
            return self.observed(now, packet, parsed);
        }
        self.answered(now, packet, parsed)
    }

    /// What a server counts as for new flows at one of its ports; what is not watched is up.
    pub fn state(&self, server: ServerId, v6: bool, port: u16) -> Health {
        if let Some(up) = self.forced.get(&server).filter(|_| !self.forced.is_empty()) {
            return Health::from_up(*up);
        }
        self.all.find(server).map_or(Health::Up, |place| self.all.state(place, v6, port))
    }

    /// A server's smoothed latency: the mean over its monitors that had answers.
    pub fn latency(&self, server: ServerId) -> Option<Duration> {
        let units = self.all.servers[self.all.find(server)?].units.iter().flatten();
        let targets = units.flat_map(|unit| &self.all.units[*unit as usize].targets);
        let (count, total) = targets
            .filter_map(|target| self.all.targets[*target as usize].judge.smoothed())
            .fold((0, Duration::ZERO), |(count, total), latency| (count + 1, total + latency));
        (count > 0).then(|| total / count)
    }

    /// The load and maintenance flag that a server last told, and when.
    pub fn load(&self, server: ServerId) -> Option<(Instant, u8, bool)> {
        self.all.servers[self.all.find(server)?].load
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<HealthEvent> {
        self.events.pop_front()
    }

    /// A server's last changes, the oldest first; at most 32.
    pub fn history(&self, server: ServerId) -> impl Iterator<Item = &HistoryEntry> {
        self.all.find(server).into_iter().flat_map(|place| self.all.servers[place].history.iter())
    }

    /// Follows the probes of a capture and sends none; or sends again.
    ///
    /// A probe from the source address counts as sent, and a fitting answer ends the oldest that waits. Where the
    /// capture holds answers but no probes, one probe an interval is assumed; where it holds neither, nothing
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
