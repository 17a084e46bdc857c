//! From a packet to its verdict: look, carry out, and look again if something had to be done first.
//!
//! It dispatches and decides nothing; deciding is up to [`super::look`].

use super::arrival::{self, Arrival};
use super::look::Look;
use super::step::{Sign, Step};
use super::{Consumed, Engine, Reason, Verdict};
use crate::flow::{Datagram, Found, Piece};
use crate::time::Instant;

impl Engine {
    /// Brings the shard up to date with the standing. This always precedes the next look, so that a look
    /// that is not carried out sees the same state as one that is.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.shard.advance(&self.plan, &self.standing);
    }

    /// Looks and carries out the decision until the packet has its verdict.
    #[inline]
    pub(super) fn decide(&mut self, arrival: &mut Arrival<'_>) -> Verdict {
        match self.plain(arrival) {
            Ok(found) => self.shard.carry_plain(arrival, found),
            Err(found) => self.decide_further(arrival, found),
        }
    }

    #[inline]
    fn plain(&mut self, arrival: &Arrival<'_>) -> Result<Found, Option<Found>> {
        self.advance();
        Look::new(&self.plan, &self.standing, &self.shard).plain(arrival)
    }

    /// The same for a packet that needs more than to be rewritten. It is apart so that others need not prepare for it.
    #[inline(never)]
    fn decide_further(&mut self, arrival: &mut Arrival<'_>, mut found: Option<Found>) -> Verdict {
        self.scratch.has_freed_ports = false;
        loop {
            self.scratch.looks += 1;
            let look = Look::new(&self.plan, &self.standing, &self.shard);
            let step = look.decide(arrival, found, &mut self.scratch);
            if let Some(verdict) = self.carry_out(arrival, step) {
                return verdict;
            }
            found = match self.plain(arrival) {
                Ok(found) => return self.shard.carry_plain(arrival, found),
                Err(found) => found,
            };
        }
    }

    /// Carries out a step; none means look again.
    #[inline]
    fn carry_out(&mut self, arrival: &mut Arrival<'_>, step: Step) -> Option<Verdict> {
        let now = arrival.now;
        let verdict = match step {
            Step::Hit(hit) => {
                self.take_sign(now, hit.sign);
                self.shard.carry_hit((&self.plan, &self.standing), arrival, &hit, &self.scratch)
            }
            Step::Prepare(prepare) => {
                self.shard.prepare((&self.plan, &self.standing), now, prepare, &mut self.scratch);
                return None;
            }
            Step::EndThenAgain { flow, cause, sign } => {
                self.take_sign(now, sign);
                self.shard.forget((&self.plan, &self.standing), now, flow, cause);
                self.take_idle(now);
                return None;
            }
            Step::EndByReset { flow, cause } => {
                self.shard.end_by_reset((&self.plan, &self.standing), now, flow, cause);
                Verdict::Consume(Consumed::ServerDown)
            }
            Step::Disown { flow } => {
                self.shard.disown((&self.plan, &self.standing), now, flow);
                Verdict::Drop(Reason::TcpNoFlow)
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
            Step::Fragment { id, piece } => self.fragment(arrival, id, piece),
        };
        self.take_idle(now);
        Some(verdict)
    }

    /// Reports to the standing what a packet indicates about its flow's server.
    #[inline]
    fn take_sign(&mut self, now: Instant, sign: Option<Sign>) {
        match sign {
            None => {}
            Some(Sign::Answered(server)) => self.standing.servers_mut().answered(server),
            Some(Sign::Trouble(server)) => {
                self.standing.servers_mut().trouble(self.plan.roster(), now, server);
                self.take_notices(now);
                self.advance();
            }
        }
    }

    /// Reports to the standing which draining servers have no flows left.
    #[inline]
    pub(super) fn take_idle(&mut self, now: Instant) {
        while let Some(server) = self.shard.poll_idle() {
            self.standing.servers_mut().idle(server);
            self.take_notices(now);
        }
    }

    /// Handles a fragment: the first is decided like the packet that it begins, the others follow it.
    #[cold]
    fn fragment(&mut self, arrival: &mut Arrival<'_>, id: u32, piece: Piece) -> Verdict {
        let datagram = Datagram::new(arrival.parsed.addresses, arrival.parsed.protocol, id);
        if piece.start != 0 {
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
