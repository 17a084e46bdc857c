//! From a packet to its verdict: look, carry out, and look again where something had to be done first.
//!
//! It dispatches and decides nothing: that is [`super::look`].

use super::arrival::{self, Arrival};
use super::look::look;
use super::step::{Sign, Step};
use super::{Consumed, Engine, Forwarded, Verdict};
use crate::flow::{Datagram, Piece};
use crate::packet::Transport;
use crate::time::Instant;

impl Engine {
    /// Lets the shard follow the standing and the time. It is always done before the next look, so that a look that is not
    /// carried out sees the same as the one that is.
    #[inline]
    pub(super) fn advance(&mut self, now: Instant) {
        self.shard.advance(&self.plan, &self.standing, now);
    }

    /// Looks, and carries out what was decided, until the packet has its verdict.
    #[inline]
    pub(super) fn decide(&mut self, arrival: &mut Arrival<'_>) -> Verdict {
        loop {
            self.advance(arrival.now);
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
        let verdict = match step {
            Step::Hit(hit) => {
                self.take_sign(now, hit.sign);
                return Some(self.shard.carry_hit(arrival, &hit, &self.scratch));
            }
            Step::Prepare(prepare) => {
                self.shard.prepare(&self.plan, &self.standing, now, prepare);
                return None;
            }
            Step::EndThenAgain { flow, cause, sign } => {
                self.take_sign(now, sign);
                self.shard.end((&self.plan, &self.standing), now, flow, cause);
                self.take_idle(now);
                return None;
            }
            Step::EndByReset { flow, cause } => {
                self.shard.end_by_reset((&self.plan, &self.standing), now, flow, cause);
                Verdict::Consume(Consumed::ServerDown)
            }
            Step::Open(onward) => self.shard.carry_open((&self.plan, &self.standing), arrival, &onward, &self.scratch),
            Step::Settle(settled) => {
                self.shard.carry_opening((&self.plan, &self.standing), arrival, &self.scratch.opening);
                self.shard.settle(arrival, settled, &self.scratch)
            }
            Step::Stop(settled) => self.shard.settle(arrival, settled, &self.scratch),
            Step::Error(error) => {
                self.take_sign(now, error.sign);
                self.shard.carry_error(arrival, &error, &self.scratch)
            }
            Step::Probe => self.probe(arrival),
            Step::Fragment => self.fragment(arrival),
        };
        self.take_idle(now);
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
                self.advance(now);
            }
        }
    }

    /// Tells the standing which draining servers have no flow left.
    #[inline]
    pub(super) fn take_idle(&mut self, now: Instant) {
        while let Some(server) = self.shard.poll_idle() {
            self.standing.servers_mut().idle(server);
            self.take_notices(now);
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
}
