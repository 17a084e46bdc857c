//! Flows and everything counted along with them: one shard's table, fragments, NAT ports, algorithm state, limits,
//! totals, and packets of the gateway's own.
//!
//! It carries out what a look decided and chooses no policy. Shards share only the plan and the standing.

mod answers;
mod carry_out;
mod follow;
mod fragments;
mod part;
mod paths;
mod pressure;
mod saved;
mod totals;
mod upkeep;
mod walk;

use super::plan::{InUse, Plan};
use super::standing::Standing;
use super::step::{Prepare, Pressures, Scratch};
use super::{Counters, Event, Reason, Verdict};
use crate::balance::Chooser;
use crate::flow::{Fragments, Key, NatPool, Table, TableTooBig};
use crate::ids::{NatPoolId, ServerId, ServiceId};
use crate::packet::{Meta, Side};
use crate::policy::Policy;
use crate::time::Instant;
use answers::Answers;
use part::Part;
use paths::Paths;
use pressure::Pressure;
use std::collections::VecDeque;
use totals::{ServiceTotals, Totals, Traffic};
use walk::Walk;

/// Maximum number of events queued for [`Shard::poll_event`].
const MOST_EVENTS: usize = 1024;

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    table: Table,
    fragments: Fragments,
    nat_pools: Vec<NatPool>,
    chooser: Chooser,
    policy: Policy,
    answers: Answers,
    totals: Totals,
    /// By server.
    traffic: Vec<Traffic>,
    /// By server: its flows since the start.
    flows_total: Vec<u64>,
    services: Vec<ServiceTotals>,
    /// The last identification given to a packet built here.
    last_identification: u32,
    events: VecDeque<Event>,
    reports_flows: bool,
    pressure: Pressure,
    pressures: Pressures,
    walk: Option<Walk>,
    /// Draining servers whose last flow has ended, to be reported to the standing.
    idle: VecDeque<ServerId>,
    /// Keys of the replies of flows that have ended; none unless somebody wants them.
    ended: Option<EndedKeys>,
    passes_strays: bool,
    /// Its part in a pair of gateways.
    part: Part,
    /// Flows that are carried past it.
    paths: Paths,
}

/// Maximum number of keys that wait for [`Shard::poll_ended`].
const MOST_ENDED: usize = 4096;

#[derive(Debug)]
struct EndedKeys {
    waiting: VecDeque<Key>,
    lost: u64,
}

impl Shard {
    /// Creates an empty shard; reserves everything that its flows will need.
    ///
    /// # Errors
    /// If the system refuses the memory.
    pub(super) fn try_new(plan: &Plan) -> Result<Self, TableTooBig> {
        let settings = plan.settings();
        let seed = settings.seed;
        Ok(Shard {
            table: Table::try_new(&settings.table)?,
            fragments: Fragments::new(&settings.fragments, seed),
            nat_pools: settings.nat_pools.iter().map(|pool| NatPool::new(pool, seed)).collect(),
            chooser: Chooser::new(plan.roster(), seed),
            policy: Policy::new(plan.rules()),
            answers: Answers::new(settings.answers.per_second),
            totals: Totals::new(),
            traffic: vec![Traffic::default(); settings.servers.len()],
            flows_total: vec![0; settings.servers.len()],
            services: vec![ServiceTotals::default(); settings.services.len()],
            last_identification: seed as u32,
            events: VecDeque::with_capacity(MOST_EVENTS),
            reports_flows: false,
            pressure: Pressure::default(),
            pressures: Pressures::default(),
            walk: None,
            idle: VecDeque::new(),
            ended: None,
            passes_strays: false,
            part: Part::default(),
            paths: Paths::default(),
        })
    }

    /// Brings the shard up to date with the standing before a packet is looked at.
    #[inline]
    pub(super) fn advance(&mut self, plan: &Plan, standing: &Standing) {
        if !self.chooser.is_current(standing.servers()) {
            self.chooser.advance(plan.roster(), standing.servers());
        }
    }

    /// Brings all algorithms up to date, so that no packet waits for that.
    pub(super) fn refresh(&mut self, now: Instant, plan: &Plan, standing: &Standing) {
        self.chooser.refresh_all(now, plan.roster(), standing.servers());
    }

    /// Brings up to date what a look found stale.
    #[cold]
    pub(super) fn prepare(
        &mut self,
        (plan, standing): (&Plan, &Standing),
        now: Instant,
        prepare: Prepare,
        scratch: &mut Scratch,
    ) {
        match prepare {
            Prepare::Servers(stale) => self.chooser.refresh(now, plan.roster(), standing.servers(), stale),
            Prepare::Ports(NatPoolId(id)) => {
                let pool = &mut self.nat_pools[id as usize];
                if let Some((_, draw, _)) = scratch.opening.nat.take() {
                    pool.drawn(draw);
                }
                pool.handle_timeout(now);
                scratch.has_freed_ports = true;
            }
        }
    }

    #[inline]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    #[inline]
    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    #[inline]
    pub(super) fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    pub(super) fn chooser(&self) -> &Chooser {
        &self.chooser
    }

    pub(super) fn chooser_mut(&mut self) -> &mut Chooser {
        &mut self.chooser
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn nat_pool(&self, pool: NatPoolId) -> &NatPool {
        &self.nat_pools[pool.0 as usize]
    }

    pub(super) fn nat_pools(&self) -> &[NatPool] {
        &self.nat_pools
    }

    /// Returns the next identification for a packet that is or may be fragmented (RFC 6864, 4.3: not reused soon).
    pub(super) fn next_identification(&self) -> u32 {
        self.last_identification.wrapping_add(1)
    }

    /// Returns a server's counters: flows since the start, and packets and bytes from and to clients.
    pub(super) fn server_totals(&self, server: ServerId) -> (u64, [u64; 2], [u64; 2]) {
        let [from_clients, to_clients] = self.traffic[server.0 as usize].0;
        let sides = |at: usize| [from_clients[at], to_clients[at]];
        (self.flows_total[server.0 as usize], sides(0), sides(1))
    }

    /// Returns a service's counters: current flows, flows since the start, and packets and bytes from and to clients.
    pub(super) fn service_totals(&self, service: ServiceId) -> (u64, u64, [u64; 2], [u64; 2]) {
        let totals = &self.services[service.0 as usize];
        let [from_clients, to_clients] = totals.traffic;
        let sides = |at: usize| [from_clients[at], to_clients[at]];
        (totals.flows, totals.flows_total, sides(0), sides(1))
    }

    /// Returns the totals.
    pub(super) fn counters(&self) -> Counters {
        Counters { shortcut: self.shortcut(), ..self.totals.snapshot(&self.table, &self.pressure) }
    }

    /// Returns the packets refused for a reason, whether silently or with an answer in the service's name.
    pub(super) fn refused(&self, reason: Reason) -> u64 {
        self.totals.refused(reason)
    }

    /// Counts a device packet that represents `packets` packets.
    #[inline]
    pub(super) fn count(&mut self, verdict: &Verdict, packets: u64, bytes: u64) {
        self.totals.count(verdict, packets, bytes);
    }

    /// Copies the next packet of the gateway's own into `buf`.
    pub(super) fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<(usize, Meta)> {
        self.answers.pop(buf)
    }

    /// Counts a packet of the gateway's own that was sent.
    pub(super) fn count_transmitted(&mut self) {
        self.totals.transmitted += 1;
    }

    /// Switches [`Event::FlowOpened`] and [`Event::FlowEnded`] on or off; initially off.
    pub(super) fn report_flows(&mut self, on: bool) {
        self.reports_flows = on;
    }

    /// Queues an event; it is lost if 1,024 are already queued.
    pub(super) fn report(&mut self, event: Event) {
        if self.events.len() < MOST_EVENTS {
            self.events.push_back(event);
        }
    }

    /// Collects the keys of the replies of flows that end.
    pub(super) fn collect_ended(&mut self) {
        self.ended = Some(EndedKeys { waiting: VecDeque::with_capacity(MOST_ENDED), lost: 0 });
    }

    /// Lets segments of servers pass that belong to no known connection.
    pub(super) fn pass_strays(&mut self) {
        self.passes_strays = true;
    }

    /// Returns whether they pass.
    pub(super) fn passes_strays(&self) -> bool {
        self.passes_strays
    }

    /// Remembers the key of an ended flow's replies; if nobody has taken 4,096 of them, it is lost and counted.
    #[inline]
    fn note_ended(&mut self, index: u32) {
        let Some(ended) = &mut self.ended else { return };
        if ended.waiting.len() < MOST_ENDED {
            ended.waiting.push_back(self.table.key(index, Side::Server));
        } else {
            ended.lost += 1;
        }
    }

    pub(super) fn poll_ended(&mut self) -> Option<Key> {
        self.ended.as_mut()?.waiting.pop_front()
    }

    pub(super) fn lost_ended(&self) -> u64 {
        self.ended.as_ref().map_or(0, |ended| ended.lost)
    }

    /// Returns the next event.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the slots that flows, sticky slots and resting ports refer to.
    pub(super) fn in_use(&self) -> InUse {
        let servers = (0..self.traffic.len() as u32).map(ServerId);
        let mut servers: Vec<bool> = servers.map(|server| self.chooser.flows(server) > 0).collect();
        self.chooser.sticky_servers().for_each(|server| servers[server.0 as usize] = true);
        InUse {
            services: self.services.iter().map(|service| service.flows > 0).collect(),
            servers,
            nat_pools: self.nat_pools.iter().map(NatPool::is_in_use).collect(),
            rules: self.policy.flows().map(|flows| flows > 0).collect(),
        }
    }

    /// Returns a draining server whose last flow has ended since the last call.
    #[inline]
    pub(super) fn poll_idle(&mut self) -> Option<ServerId> {
        self.idle.pop_front()
    }

    /// Returns when [`Shard::handle_timeout`] next has work to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let walk = self.walk.as_ref().map(Walk::since).filter(|_| !self.part.stands_by());
        let all = [self.fragments.poll_timeout(), self.expires_at(), self.pressure.poll_timeout(), walk];
        all.into_iter().flatten().min()
    }
}
