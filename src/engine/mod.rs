//! The sans-IO core: a packet and a time in, a verdict out.
//!
//! It must not know clocks, sockets, threads or files. Deciding and doing are apart: [`look`] reads the plan, the
//! standing and the shard and returns a step; the shard carries the step out and decides nothing.
//!
//! ```text
//!   Plan      what was configured     immutable, shared        plan/
//!   Standing  what holds now          one writer               standing/
//!   Shard     flows and counts        one, later one per queue shard/
//!
//!   advance(now) --> look(Plan, Standing, Shard, Arrival) -> Step --> carry out(Shard, Step) -> Verdict
//! ```
//!
//! `monitors` is the health monitors' door, `change` is for operators, `view` shows it all.

mod arrival;
mod change;
pub mod explain;
mod look;
mod monitors;
mod plan;
mod reason;
mod shard;
mod snapshot;
mod standing;
mod step;
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
pub use explain::Explanation;
pub use plan::Plan;
pub use reason::Reason;
pub use snapshot::{
    Count, Counters, Cursor, FlowQuery, FlowRow, HistoryRow, MonitorRow, NatRow, RuleRow, ServerRow, ServiceRow,
};
pub use verdict::{Consumed, Ended, Event, Forwarded, Pressed, Verdict, Weight};

use crate::config::Settings;
use crate::flow::{Datagram, Piece, TableTooBig};
use crate::health::{HealthSettings, Monitors};
use crate::packet::{Malformed, Meta, Transport};
use crate::time::Instant;
use arrival::Arrival;
use look::look;
use shard::Shard;
use standing::Standing;
use std::sync::Arc;
use step::{Scratch, Sign, Step};

/// The engine: a packet and a time in, a verdict out.
///
/// A driver hands it every packet ([`Engine::handle_packet`]), sends what
/// [`Engine::poll_transmit`] gives, and calls [`Engine::handle_timeout`] when
/// [`Engine::poll_timeout`] says so. Nothing else is needed, and nothing else happens.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    standing: Standing,
    monitors: Monitors,
    shard: Shard,
    scratch: Scratch,
}

/// A packet for [`Engine::handle_batch`].
#[derive(Debug)]
pub struct Packet<'p> {
    /// When it came; not before the packet before it.
    pub at: Instant,
    /// Its bytes, and padding behind them.
    pub bytes: &'p mut [u8],
    /// What the device knows of it.
    pub meta: Meta,
}

/// What leaves [`Engine::handle_batch`], in its order.
#[derive(Debug)]
pub enum Outcome<'p> {
    /// What became of a packet, by its place in the batch; where it is forwarded, `bytes` begins with it.
    Packet {
        /// Its place in the batch.
        place: usize,
        /// What became of it.
        verdict: Verdict,
        /// Its bytes as they are now.
        bytes: &'p [u8],
    },
    /// A packet of the engine's own, to be sent.
    Own {
        /// The packet.
        bytes: &'p [u8],
        /// What the device is told of it.
        meta: Meta,
    },
}

/// Packets of a batch that are parsed before the first of them is decided about.
const STAGE: usize = 32;
/// Bytes of the longest packet.
const LONGEST: usize = 65_535;

impl Engine {
    /// Makes an engine; reserves all that its flows will need.
    ///
    /// # Panics
    /// Where the system refuses the memory; see [`Engine::try_new`].
    pub fn new(settings: &Settings) -> Self {
        Engine::try_new(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes an engine; reserves all that its flows will need.
    ///
    /// # Errors
    /// Where the system refuses the memory.
    pub fn try_new(settings: &Settings) -> Result<Self, TableTooBig> {
        Engine::with_plan(Arc::new(Plan::new(settings)))
    }

    /// Makes an engine for a plan.
    ///
    /// # Errors
    /// Where the system refuses the memory.
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

    #[cfg(test)]
    fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Switches [`Event::FlowOpened`] and [`Event::FlowEnded`] on or off; off at first.
    pub fn report_flows(&mut self, on: bool) {
        self.shard.report_flows(on);
    }

    /// Handles one IP packet in place and decides what becomes of it. `now` never goes backwards.
    ///
    /// Any bytes are allowed. They change only where the verdict is [`Verdict::Forward`], and then only headers.
    #[inline]
    pub fn handle_packet(&mut self, now: Instant, packet: &mut [u8], meta: Meta) -> Verdict {
        #[cfg(test)]
        let foreseen = self.foresee(now, packet, meta);
        let verdict = match Arrival::new(now, packet, meta) {
            Ok(mut arrival) => self.handle(&mut arrival),
            Err((malformed, packet)) => self.drop_malformed(malformed, packet),
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

    /// Handles packets in their order, and gives what comes of each to `sink` before the next is decided about.
    ///
    /// It is the same as [`Engine::handle_packet`] and [`Engine::poll_transmit`] for each of them: how packets are
    /// divided into batches makes no difference. No timer may be due before the last packet of a batch.
    pub fn handle_batch(&mut self, batch: &mut [Packet<'_>], mut sink: impl FnMut(Outcome<'_>)) {
        let mut own = Vec::new();
        for (stage, packets) in batch.chunks_mut(STAGE).enumerate() {
            // Parsing keeps no slot of the table: the packets before may move or end any flow.
            let mut staged = [const { None }; STAGE];
            for (packet, staged) in packets.iter_mut().zip(&mut staged) {
                *staged = Some((packet.at, Arrival::new(packet.at, packet.bytes, packet.meta)));
            }
            for (place, (at, arrival)) in staged.into_iter().flatten().enumerate() {
                let place = stage * STAGE + place;
                match arrival {
                    Ok(mut arrival) => {
                        let verdict = self.handle(&mut arrival);
                        sink(Outcome::Packet { place, verdict, bytes: arrival.bytes });
                    }
                    Err((malformed, bytes)) => {
                        let verdict = self.drop_malformed(malformed, bytes);
                        sink(Outcome::Packet { place, verdict, bytes });
                    }
                }
                self.drain(at, &mut own, &mut sink);
            }
        }
    }

    fn drop_malformed(&mut self, malformed: Malformed, packet: &[u8]) -> Verdict {
        let verdict = Verdict::Drop(arrival::reason(malformed));
        self.shard.count(&verdict, 1, packet.len() as u64);
        verdict
    }

    fn drain(&mut self, now: Instant, own: &mut Vec<u8>, sink: &mut impl FnMut(Outcome<'_>)) {
        own.resize(LONGEST, 0);
        while let Some((len, meta)) = self.poll_transmit(now, own) {
            sink(Outcome::Own { bytes: &own[..len], meta });
        }
    }

    /// Looks, and carries out what was decided, until the packet has its verdict.
    #[inline]
    fn decide(&mut self, arrival: &mut Arrival<'_>) -> Verdict {
        loop {
            self.shard.advance(&self.plan, &self.standing, arrival.now);
            let step = look(&self.plan, &self.standing, &self.shard, arrival, &mut self.scratch);
            if let Some(verdict) = self.carry_out(arrival, step) {
                return verdict;
            }
        }
    }

    /// Carries a step out; none: look again.
    #[inline]
    fn carry_out(&mut self, arrival: &mut Arrival<'_>, step: Step) -> Option<Verdict> {
        let now = arrival.now;
        if let Step::Hit(hit) = &step {
            self.take_sign(now, hit.sign);
            return Some(self.shard.carry_hit(arrival, hit, &self.scratch));
        }
        let of = (&*self.plan, &self.standing);
        let verdict = match step {
            Step::Prepare(prepare) => {
                self.shard.prepare(of.0, of.1, now, prepare);
                return None;
            }
            Step::EndThenAgain { flow, cause, sign } => {
                self.take_sign(now, sign);
                self.shard.end((&self.plan, &self.standing), now, flow, cause);
                self.take_idle();
                return None;
            }
            Step::EndByReset { flow, cause } => {
                self.shard.end_by_reset(of, now, flow, cause);
                Verdict::Consume(Consumed::ServerDown)
            }
            Step::Open(onward) => self.shard.carry_open(of, arrival, &onward, &self.scratch),
            Step::Settle(settled) => {
                self.shard.carry_opening(of, arrival, &self.scratch.opening);
                self.shard.settle(arrival, settled, &self.scratch)
            }
            Step::Error(error) => {
                self.take_sign(now, error.sign);
                self.shard.carry_error(arrival, error, &self.scratch)
            }
            Step::Probe => self.probe(arrival),
            Step::Fragment => self.fragment(arrival),
            Step::Hit(_) => return None,
        };
        self.take_idle();
        Some(verdict)
    }

    /// Tells the standing what a packet said of its flow's server.
    #[inline]
    fn take_sign(&mut self, now: Instant, sign: Option<Sign>) {
        match sign {
            None => {}
            Some(Sign { server, trouble: false }) => self.standing.servers_mut().answered(server),
            Some(Sign { server, trouble: true }) => {
                self.standing.servers_mut().trouble(self.plan.roster(), now, server);
                self.take_notices(now);
            }
        }
    }

    /// Tells the standing which draining servers have no flow left.
    #[inline]
    fn take_idle(&mut self) {
        while let Some(server) = self.shard.poll_idle() {
            self.standing.servers_mut().idle(server);
        }
    }

    /// Decides about a fragment: the first is decided about as the packet that it begins, the others go where it went.
    #[cold]
    fn fragment(&mut self, arrival: &mut Arrival<'_>) -> Verdict {
        let parsed = &arrival.parsed;
        let Transport::Fragment { offset, more, id } = parsed.transport else {
            debug_assert!(false, "not a fragment");
            return Verdict::Forward { len: parsed.len, why: Forwarded::Foreign };
        };
        let addresses = parsed.addresses;
        let may_be_ours = self.plan.is_own(addresses.dst())
            || self.plan.directory().is_server_address(addresses.src())
            || !self.plan.rules().is_empty();
        if !may_be_ours {
            return Verdict::Forward { len: parsed.len, why: Forwarded::Foreign };
        }
        let datagram = Datagram::new(addresses, parsed.protocol, id);
        let end = u32::from(offset) + (parsed.len - parsed.offset) as u32;
        let piece = Piece { start: offset, end, last: !more };
        if offset != 0 {
            let of = (&*self.plan, &self.standing);
            return self.shard.later_fragment(of, arrival, (&datagram, &piece), &mut self.scratch);
        }
        if let Err(reason) = self.shard.first_fragment(arrival.now, &datagram, &piece) {
            return Verdict::Drop(reason);
        }
        let verdict = match arrival.begin_packet(datagram) {
            Ok(()) => self.decide(arrival),
            Err(malformed) => Verdict::Drop(arrival::reason(malformed)),
        };
        let of = (&*self.plan, &self.standing);
        self.shard.settle_fragments(of, arrival.now, &datagram, &verdict, &mut self.scratch);
        verdict
    }

    /// Does what is due at `now`, a bounded part of it; call again while `poll_timeout` is not later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.shard.advance(&self.plan, &self.standing, now);
        self.shard.handle_timeout((&self.plan, &self.standing), now);
        self.take_idle();
        self.monitors.handle_timeout(now);
        self.take_health(now);
        self.standing.handle_timeout(&self.plan, now);
        self.shard.expire_clients(now);
        self.take_notices(now);
        if self.shard.go_on_walking((&self.plan, &self.standing), now) {
            self.standing.clear_drained();
        }
        self.take_idle();
        self.take_notices(now);
        self.shard.advance(&self.plan, &self.standing, now);
    }

    /// When `handle_timeout` has something to do; none while nothing waits.
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

    /// Returns the next thing that happened. At most 1,024 wait; later ones are lost, oldest kept.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shard.poll_event()
    }
}
