//! The sans-IO core: a packet and a time in, a verdict out.
//!
//! It must not know clocks, sockets, threads or files. Deciding and doing are separate: `look` reads the plan, the
//! standing and the shard and returns a step; the shard carries out the step and decides nothing.
//!
//! ```text
//!   Plan      what was configured     immutable, shared        plan/
//!   Standing  what holds now          one writer               standing/
//!   Shard     flows and counts        one, later one per queue shard/
//!
//!   advance(now) --> look(Plan, Standing, Shard, Arrival) -> Step --> carry out(Shard, Step) -> Verdict
//! ```
//!
//! `monitors` is the interface of the health monitors, `change` is for operators, and `view` shows everything.

mod arrival;
mod batch;
mod change;
mod decide;
pub mod explain;
mod filter;
mod look;
mod monitors;
mod pair;
mod paths;
mod plan;
mod reason;
mod reload;
mod shard;
mod snapshot;
mod standing;
mod state;
mod step;
mod sticky;
mod verdict;
mod view;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_fair;
#[cfg(test)]
mod tests_identity;
#[cfg(test)]
mod tests_nat;
#[cfg(test)]
mod tests_off;
#[cfg(test)]
mod tests_opening;
#[cfg(test)]
mod tests_pair;
#[cfg(test)]
mod tests_path;
#[cfg(test)]
mod tests_paths;
#[cfg(test)]
mod tests_ports;
#[cfg(test)]
mod tests_reload;
#[cfg(test)]
mod tests_reload_state;
#[cfg(test)]
mod tests_shards;
#[cfg(test)]
mod tests_spoofed;
#[cfg(test)]
mod tests_standing;
#[cfg(test)]
mod tests_timers;

pub use crate::flow::StickyMark;
pub use batch::{Outcome, Packet};
pub use change::{Change, Refused};
pub use explain::Explanation;
pub use filter::{Ends, Filter, Ranked, SortBy};
pub use pair::Duty;
pub use paths::{Path, Shortcut};
pub use plan::{InUse, KeyDiff, ObjectChange, ObjectDiff, Plan, PlanDiff};
pub use reason::Reason;
pub use reload::{NotFollowed, Removed, Replaced, Succession, Successor};
pub use snapshot::{
    Count, Counters, Cursor, FlowQuery, FlowRow, HistoryRow, MonitorRow, NatRow, PartRow, PressureRow, Rates, RuleRow,
    ServerRow, ServiceRow,
};
pub use state::{
    Giving, GivingHealth, HalfOffer, Loaded, Lost, Mark, Note, NoteScan, Offer, PeerRecord, StateCopy, StateError,
    StateLoad, StateWalk, Taking, VERSION as STATE_VERSION, write_note,
};
pub use sticky::{StickyQuery, StickyRow, StickyWalk};
pub use verdict::{Consumed, Ended, Event, Forwarded, Pressed, Short, Verdict, Weight};
pub use view::SetByOperators;

use crate::config::Settings;
use crate::flow::{Key, TableTooBig};
use crate::health::{HealthSettings, Monitors};
use crate::packet::{Malformed, Meta, parse};
use crate::time::Instant;
use arrival::Arrival;
use shard::Shard;
use standing::Standing;
use std::sync::Arc;
use step::Scratch;

/// The engine: a packet and a time in, a verdict out.
///
/// A driver passes every packet to [`Engine::handle_packet`], sends what [`Engine::poll_transmit`] returns, and calls
/// [`Engine::handle_timeout`] when [`Engine::poll_timeout`] says so. Nothing else is needed, and nothing else happens.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    standing: Standing,
    monitors: Monitors,
    shard: Shard,
    scratch: Scratch,
}

impl Engine {
    /// Creates an engine; reserves everything that its flows will need.
    ///
    /// # Panics
    /// If the system refuses the memory; see [`Engine::try_new`].
    pub fn new(settings: &Settings) -> Self {
        Engine::try_new(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Creates an engine; reserves everything that its flows will need.
    ///
    /// # Errors
    /// If the system refuses the memory.
    pub fn try_new(settings: &Settings) -> Result<Self, TableTooBig> {
        Engine::with_plan(Arc::new(Plan::new(settings)))
    }

    /// Creates an engine for a plan.
    ///
    /// # Errors
    /// If the system refuses the memory.
    pub fn with_plan(plan: Arc<Plan>) -> Result<Self, TableTooBig> {
        let settings = plan.settings();
        let mut engine = Engine {
            standing: Standing::new(&plan),
            monitors: Monitors::new(&HealthSettings { seed: settings.seed, ..settings.health.clone() }),
            shard: Shard::try_new(&plan)?,
            scratch: Scratch::default(),
            plan,
        };
        engine.start_monitors();
        Ok(engine)
    }

    /// Returns the plan that it follows.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Returns the slots of the plan that flows, sticky slots and resting ports refer to: a successor plan does not
    /// reuse them.
    pub fn in_use(&self) -> InUse {
        self.shard.in_use()
    }

    #[cfg(test)]
    fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Switches [`Event::FlowOpened`] and [`Event::FlowEnded`] on or off; initially off.
    pub fn report_flows(&mut self, on: bool) {
        self.shard.report_flows(on);
    }

    /// Handles one IP packet in place and returns its verdict. `now` never goes backwards.
    ///
    /// Any bytes are accepted. They change only if the verdict is [`Verdict::Forward`], and then only in the headers.
    #[inline]
    pub fn handle_packet(&mut self, now: Instant, packet: &mut [u8], meta: Meta) -> Verdict {
        #[cfg(test)]
        let foreseen = self.foresee(now, packet, meta);
        let verdict = match &mut parse(packet) {
            Ok(parsed) => self.handle(&mut Arrival::new(now, packet, parsed, meta)),
            Err(malformed) => self.drop_malformed(*malformed, packet),
        };
        #[cfg(test)]
        testing::assert_foreseen(&foreseen, &verdict, packet);
        verdict
    }

    #[inline]
    fn handle(&mut self, arrival: &mut Arrival<'_>) -> Verdict {
        let verdict = self.decide(arrival);
        self.shard.count(&verdict, arrival.packets, arrival.parsed.len as u64);
        verdict
    }

    fn drop_malformed(&mut self, malformed: Malformed, packet: &[u8]) -> Verdict {
        let verdict = Verdict::Drop(arrival::reason(malformed));
        self.shard.count(&verdict, 1, packet.len() as u64);
        verdict
    }

    /// Does a bounded part of the work due at `now`; call again while `poll_timeout` is not later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance();
        self.shard.handle_timeout((&self.plan, &self.standing), now);
        self.take_idle(now);
        self.monitors.handle_timeout(now);
        self.take_health(now);
        self.standing.handle_timeout(&self.plan, now);
        self.shard.expire_clients(now);
        self.take_notices(now);
        if self.shard.go_on_walking((&self.plan, &self.standing), now) {
            self.standing.clear_drained();
        }
        self.take_idle(now);
        self.take_notices(now);
        self.advance();
    }

    /// Notes that packets of this span may have been lost before they got here, because nobody read them or a queue had
    /// no room: a probe of that time that is not answered says nothing about its server. To be called before
    /// `handle_timeout` of a later time.
    pub fn lapse(&mut self, since: Instant, until: Instant) {
        self.monitors.lapse(since, until);
    }

    /// Returns when `handle_timeout` next has work to do; none if nothing is pending.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let all = [self.shard.poll_timeout(), self.standing.poll_timeout(), self.monitors.poll_timeout()];
        all.into_iter().flatten().min()
    }

    /// Writes the next packet of the engine's own into `buf` and returns its length; 65,535 bytes are always enough.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut [u8]) -> Option<(usize, Meta)> {
        let sent = self.shard.poll_transmit(buf).or_else(|| self.monitors.poll_transmit(now, buf))?;
        self.shard.count_transmitted();
        Some(sent)
    }

    /// Collects the keys of the replies of flows that end, for [`Engine::poll_ended`]; initially off.
    pub fn collect_ended(&mut self) {
        self.shard.collect_ended();
    }

    /// Lets segments of servers pass that belong to no known connection: for a gateway that gets those of its own flows
    /// only, and after its start some that may be of a connection that the one before it had, or of none. A client hears
    /// that its connection is over, and answers what reaches it from the server. Initially they are answered or dropped.
    pub fn pass_strays(&mut self) {
        self.shard.pass_strays();
    }

    /// Returns the key of the replies of a flow that has ended, as its server sends them. At most 4,096 are kept; further
    /// ones are lost, and [`Engine::lost_ended`] counts them.
    pub fn poll_ended(&mut self) -> Option<Key> {
        self.shard.poll_ended()
    }

    /// Returns how many keys of ended flows nobody took in time.
    pub fn lost_ended(&self) -> u64 {
        self.shard.lost_ended()
    }

    /// Returns the next event. At most 1,024 are queued; when the queue is full, newer events are lost.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shard.poll_event()
    }
}
