//! Flows that are made again from a saved state, with all that is counted along with them.

use super::super::plan::Plan;
use super::super::standing::Standing;
use super::super::state::Lost;
use super::super::{Duty, Ended};
use super::Shard;
use crate::flow::{Mapping, NO_POOL, Rest, SavedFlow, Table};
use crate::ids::{FlowId, NatPoolId};
use crate::packet::{Protocol, Side};
use crate::time::Instant;

impl Shard {
    /// Prepares for flows that began before this shard did.
    pub(in crate::engine) fn expect_saved(&mut self, now: Instant) {
        self.table.expect_saved(now);
    }

    /// Makes a flow again; a flow that has one of its keys ends. `is_counted` tells whether its client's sticky slot counts
    /// it. It counts as opened now.
    pub(in crate::engine) fn restore_flow(
        &mut self,
        of: (&Plan, &Standing),
        now: Instant,
        saved: &SavedFlow,
        is_counted: bool,
    ) -> Result<FlowId, Lost> {
        if self.table.has_expired(now, saved) {
            return Err(Lost::Expired);
        }
        let (plan, standing) = of;
        let flow = &saved.flow;
        for key in [&flow.client, &flow.server] {
            if let Some(other) = self.table.find(key) {
                self.end_renewed(of, now, self.table.id(other.index));
            }
        }
        let mapping = Mapping::of_replies(&flow.server);
        if flow.nat_pool != NO_POOL {
            let pool = self.nat_pool(NatPoolId(flow.nat_pool.into()));
            if !pool.owns(mapping.address) {
                return Err(Lost::NatAddress);
            }
        }
        if let Some(pool) = self.nat_pools.get_mut(usize::from(flow.nat_pool)) {
            // In the state its rest may be over that is not here: nothing has let it end.
            while !pool.is_free(&mapping) && pool.is_due(now, 0) {
                pool.handle_timeout(now);
            }
            if !pool.is_free(&mapping) {
                return Err(Lost::Port);
            }
        }
        if self.table.is_full(flow.half_open, None) {
            return Err(Lost::Room);
        }
        let index = match flow.half_open {
            true => self.table.restore_half_open(now, saved),
            false => self.table.restore(now, saved),
        };
        if let Some(pool) = self.nat_pools.get_mut(usize::from(flow.nat_pool)) {
            let tentative = flow.half_open || flow.client.protocol != Protocol::Tcp && !saved.proven;
            pool.take(&mapping, tentative);
        }
        self.totals.opened += 1;
        self.flows_total[flow.server_id.0 as usize] += 1;
        let totals = &mut self.services[flow.service.0 as usize];
        totals.flows += 1;
        totals.flows_total += 1;
        let client = self.table.key(index, Side::Client).addresses.src();
        let known = (plan.roster(), standing.servers());
        // Whose slots a standby has, that gateway has given the client another server since.
        let kind = (saved.proven, is_counted, standing.duty() == Duty::Standby);
        let ticket = self.chooser.restored(now, known, (flow.service, client), flow.server_id, kind);
        self.table.set_note(index, ticket);
        self.policy.opened(flow.rule);
        if saved.proven {
            self.policy.proven(plan.rules(), flow.rule, (client, saved.created));
        }
        Ok(self.table.id(index))
    }

    /// Makes a flow that was made again what a later record of it says; returns false, and ends it, if it has become another
    /// one, which is to be made then. At a standby its client's sticky slot counts it from now on if it `is_counted`.
    pub(in crate::engine) fn renew_flow(
        &mut self,
        of: (&Plan, &Standing),
        now: Instant,
        id: FlowId,
        (saved, is_counted): (&SavedFlow, bool),
    ) -> bool {
        let Some(index) = self.table.slot(id) else { return false };
        let (facts, new) = (self.table.facts(index), &saved.flow);
        let same = (self.table.key(index, Side::Client), self.table.key(index, Side::Server))
            == (new.client, new.server)
            && (facts.service, facts.server_id) == (new.service, new.server_id)
            && (facts.rule, facts.nat_pool, facts.profile) == (new.rule, new.nat_pool, new.profile)
            && self.table.is_proven(index) == saved.proven;
        if same && !self.table.has_expired(now, saved) {
            self.table.renew(now, index, saved);
            if is_counted && of.1.duty() == Duty::Standby {
                self.count_again(of, now, index);
            }
            return true;
        }
        self.end_renewed(of, now, id);
        false
    }

    /// Has a client's sticky slot count a flow that it does not count here, though it does where the flow comes from: the client
    /// was forgotten here, or its slot had another server, when it was given this one again.
    fn count_again(&mut self, (plan, standing): (&Plan, &Standing), now: Instant, index: u32) {
        let facts = self.table.facts(index);
        let of = (facts.service, self.table.key(index, Side::Client).addresses.src());
        let kept = (facts.server_id, self.table.is_proven(index), self.table.note(index));
        let ticket = self.chooser.count_again(now, (plan.roster(), standing.servers()), of, kept);
        self.table.set_note(index, ticket);
    }

    /// Ends a flow that was made again and has ended since where it comes from. Whether its port rests there is said next.
    pub(in crate::engine) fn end_renewed(&mut self, of: (&Plan, &Standing), now: Instant, id: FlowId) {
        self.end_there(of, now, id, false);
    }

    /// The same; its port rests here from now on if `rests`.
    pub(in crate::engine) fn end_there(&mut self, of: (&Plan, &Standing), now: Instant, id: FlowId, rests: bool) {
        let Some(index) = self.table.slot(id) else { return };
        let (service, server) = (self.table.facts(index).service, self.table.server_of(index));
        match rests {
            true => self.end(of, now, index, Ended::Replaced),
            false => self.end_yielding(of, now, index),
        }
        // It counts as if it had never been here.
        self.totals.unopen();
        self.flows_total[server.0 as usize] -= 1;
        self.services[service.0 as usize].flows_total -= 1;
    }

    /// Records that packets have passed since the numbers of all flows were learned.
    pub(in crate::engine) fn fall_behind(&mut self) {
        self.table.fall_behind();
    }

    pub(in crate::engine) fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Lets a port of a NAT pool rest; returns whether it does. A flow that has it has ended since it was made again.
    pub(in crate::engine) fn restore_rest(
        &mut self,
        of: (&Plan, &Standing),
        now: Instant,
        pool: NatPoolId,
        rest: &Rest,
    ) -> bool {
        if let Some(found) = rest.mapping.replies().and_then(|key| self.table.find(&key)) {
            self.end_renewed(of, now, self.table.id(found.index));
        }
        self.nat_pools.get_mut(pool.0 as usize).is_some_and(|pool| pool.let_rest(rest))
    }
}
