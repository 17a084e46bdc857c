//! The sans-IO core: classify -> look up -> admit -> rewrite -> verdict.
//!
//! It must not know clocks, sockets, threads or files. The rooms: `classify` reads a packet and
//! looks up its flow, `hit` moves a packet of a flow on, `miss` decides about all others, `admit`
//! asks the rules, `icmp` passes errors on, `fragments` follows first fragments, `nat` says where a flow goes, `across` makes packets of the other family, `onward` asks whether the way out takes a packet,
//! `mtu` knows how long it may be, `probing` is the monitors' door, `standing` follows servers that come and go, `upkeep` ends flows, `answers` holds
//! the engine's own packets, `change` is for operators, `view` shows it all.

mod across;
mod admit;
mod answers;
mod change;
mod classify;
mod directory;
mod fragments;
mod hit;
mod icmp;
mod miss;
mod mtu;
mod nat;
mod onward;
mod probing;
mod reason;
mod snapshot;
mod standing;
mod totals;
mod upkeep;
mod verdict;
mod view;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_nat;
#[cfg(test)]
mod tests_ports;
#[cfg(test)]
mod tests_standing;
#[cfg(test)]
mod tests_timers;
#[cfg(test)]
mod tests_way;

pub use change::{Change, Refused};
pub use reason::Reason;
pub use snapshot::{
    Count, Counters, Cursor, FlowQuery, FlowRow, HistoryRow, MonitorRow, NatRow, RuleRow, ServerRow, ServiceRow,
};
pub use verdict::{Consumed, Ended, Event, Forwarded, Pressed, Verdict, Weight};

use crate::balance::Balancer;
use crate::config::{AnswerSettings, Settings};
use crate::flow::{Fragments, NatPool, Table, TableTooBig};
use crate::health::{Health, HealthSettings};
use crate::packet::{Meta, parse};
use crate::policy::Policy;
use crate::time::Instant;
use answers::Answers;
use directory::Directory;
use mtu::Mtus;
use standing::Walk;
use std::collections::VecDeque;
use totals::{ServerTotals, ServiceTotals, Totals};

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
    refusals: AnswerSettings,
    fragments: Fragments,
    nat_pools: Vec<NatPool>,
    /// Where packets are made that become other packets.
    scratch: Vec<u8>,
    last_id: u32,
    totals: Totals,
    servers: Vec<ServerTotals>,
    services: Vec<ServiceTotals>,
    events: VecDeque<Event>,
    tell_flows: bool,
    pressed: bool,
    policy: Policy,
    health: Health,
    walk: Option<Walk>,
    mtus: Mtus,
    pressures: admit::Pressures,
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
        let mut engine = Engine {
            table: Table::try_new(&settings.table, settings.seed)?,
            directory: Directory::new(settings),
            balancer: Balancer::new(&settings.services, &settings.pools, &settings.servers, settings.seed),
            answers: Answers::new(settings.answers.per_second),
            refusals: settings.answers.clone(),
            fragments: Fragments::new(&settings.fragments, settings.seed),
            nat_pools: settings.nat_pools.iter().map(|pool| NatPool::new(pool, settings.seed)).collect(),
            scratch: Vec::new(),
            last_id: settings.seed as u32,
            totals: Totals::new(),
            servers: vec![ServerTotals::default(); settings.servers.len()],
            services: vec![ServiceTotals::default(); settings.services.len()],
            events: VecDeque::with_capacity(upkeep::MOST_EVENTS),
            tell_flows: false,
            pressed: false,
            policy: Policy::new(&settings.policy, settings.services.iter().map(|s| s.priority), settings.seed),
            health: Health::new(&HealthSettings { seed: settings.seed, ..settings.health.clone() }),
            walk: None,
            mtus: Mtus::new(settings),
            pressures: admit::Pressures::default(),
            names: view::Names::new(settings),
        };
        engine.start_health();
        Ok(engine)
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
        self.fragments.expire(now);
        self.nat_pools.iter_mut().for_each(|pool| pool.handle_timeout(now));
        self.health.handle_timeout(now);
        self.take_health(now);
        self.balancer.handle_timeout(now);
        self.take_notices(now);
        self.go_on_walking(now);
    }

    /// When `handle_timeout` has something to do; none while nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.table.first_to_expire().map(|(when, _)| when);
        let walk = self.walk.as_ref().map(|walk| walk.since);
        let others = [self.fragments.poll_timeout(), self.balancer.poll_timeout(), self.health.poll_timeout()];
        others.into_iter().chain([expiry, walk]).flatten().min()
    }

    /// Writes the next packet of the engine's own into `buf` and tells its length; 65,535 bytes are always enough.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut [u8]) -> Option<(usize, Meta)> {
        let sent = self.answers.pop(buf).or_else(|| self.health.poll_transmit(now, buf))?;
        self.totals.transmitted += 1;
        Some(sent)
    }

    /// The next thing that happened. At most 1,024 wait; later ones are lost, oldest kept.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
