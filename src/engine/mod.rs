//! The sans-IO core: classify -> look up -> admit -> rewrite -> verdict.
//!
//! It must not know clocks, sockets, threads or files. The rooms: `classify` reads a packet and
//! looks up its flow, `hit` moves a packet of a flow on, `miss` decides about all others,
//! `upkeep` ends flows, `answers` holds the engine's own packets, `view` shows it all.

mod answers;
mod classify;
mod directory;
mod hit;
mod miss;
mod reason;
mod snapshot;
mod totals;
mod upkeep;
mod verdict;
mod view;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use reason::Reason;
pub use snapshot::{Count, Counters, Cursor, FlowQuery, FlowRow, ServerRow, ServiceRow};
pub use verdict::{Consumed, Ended, Event, Forwarded, Verdict};

use crate::balance::{Balancer, UnknownTcp};
use crate::config::Settings;
use crate::flow::{Table, TableTooBig};
use crate::ids::{FlowId, ServerId};
use crate::packet::{Meta, parse};
use crate::time::Instant;
use answers::Answers;
use directory::Directory;
use std::collections::VecDeque;
use std::fmt;
use totals::{ServerTotals, ServiceTotals, Totals};

/// A change at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Gives a server another weight; its flows stay.
    Weight {
        /// The server.
        server: ServerId,
        /// Its new weight; 0 gets no new flows.
        weight: u16,
    },
    /// Removes a flow; nobody is told.
    Kill {
        /// The flow.
        flow: FlowId,
    },
}

/// Why a change was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such server.
    NoSuchServer(ServerId),
    /// There is no such flow.
    NoSuchFlow(FlowId),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoSuchServer(id) => write!(f, "there is no server number {}", id.0),
            Refused::NoSuchFlow(id) => write!(f, "there is no flow {id}; it may have ended"),
        }
    }
}

impl std::error::Error for Refused {}

/// The engine: bytes and a time in, a verdict out.
///
/// A driver hands it every packet ([`Engine::handle_packet`]), sends what
/// [`Engine::poll_transmit`] gives, and calls [`Engine::handle_timeout`] when
/// [`Engine::poll_timeout`] says so. Nothing else is needed, and nothing else happens.
#[derive(Debug)]
pub struct Engine {
    table: Table,
    directory: Directory,
    balancer: Balancer,
    answers: Answers,
    totals: Totals,
    servers: Vec<ServerTotals>,
    services: Vec<ServiceTotals>,
    events: VecDeque<Event>,
    tell_flows: bool,
    pressed: bool,
    unknown_tcp: Vec<UnknownTcp>,
    names: view::Names,
}

impl Engine {
    /// Makes an engine; reserves all that its flows will need.
    ///
    /// # Panics
    /// Where the system refuses the memory; see [`Engine::try_new`].
    pub fn new(settings: &Settings) -> Self {
        Engine::try_new(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same; fails where the system refuses the memory.
    pub fn try_new(settings: &Settings) -> Result<Self, TableTooBig> {
        Ok(Engine {
            table: Table::try_new(&settings.table, settings.seed)?,
            directory: Directory::new(settings),
            balancer: Balancer::new(&settings.services, &settings.pools, &settings.servers),
            answers: Answers::new(),
            totals: Totals::new(),
            servers: vec![ServerTotals::default(); settings.servers.len()],
            services: vec![ServiceTotals::default(); settings.services.len()],
            events: VecDeque::with_capacity(upkeep::MOST_EVENTS),
            tell_flows: false,
            pressed: false,
            unknown_tcp: settings.services.iter().map(|service| service.unknown_tcp).collect(),
            names: view::Names::new(settings),
        })
    }

    /// Whether [`Event::FlowOpened`] and [`Event::FlowEnded`] are told; not at first.
    pub fn tell_flows(&mut self, on: bool) {
        self.tell_flows = on;
    }

    /// Handles one IP packet in place and decides what becomes of it. `now` never goes backwards.
    ///
    /// Any bytes are allowed. Only headers change, and only where the verdict is `Forward`.
    #[inline]
    pub fn handle_packet(&mut self, now: Instant, packet: &mut [u8], meta: Meta) -> Verdict {
        match parse(packet) {
            Ok(parsed) => {
                let packets = classify::packets(&parsed, meta);
                let verdict = self.decide(now, packet, &parsed, meta, packets);
                self.totals.count(&verdict, packets, parsed.len as u64);
                verdict
            }
            Err(malformed) => {
                let verdict = Verdict::Drop(classify::reason(malformed));
                self.totals.count(&verdict, 1, packet.len() as u64);
                verdict
            }
        }
    }

    /// Does what is due at `now`, a bounded part of it; call again while `poll_timeout` is not later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
    }

    /// When `handle_timeout` has something to do; none while nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.first_to_expire().map(|(when, _)| when)
    }

    /// Changes something at run time. No change moves a live flow to another server.
    pub fn apply(&mut self, now: Instant, change: Change) -> Result<(), Refused> {
        match change {
            Change::Weight { server, weight } => {
                self.balancer.set_weight(server, weight).then_some(()).ok_or(Refused::NoSuchServer(server))
            }
            Change::Kill { flow } => {
                let index = self.table.slot(flow).ok_or(Refused::NoSuchFlow(flow))?;
                self.end(now, index, Ended::Killed);
                Ok(())
            }
        }
    }

    /// Writes the next packet of the engine's own into `buf` and tells its length; 65,535 bytes are always enough.
    pub fn poll_transmit(&mut self, _now: Instant, buf: &mut [u8]) -> Option<(usize, Meta)> {
        let sent = self.answers.pop(buf)?;
        self.totals.transmitted += 1;
        Some(sent)
    }

    /// The next thing that happened. At most 1,024 wait; later ones are lost, oldest kept.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
