//! Flows that are made again from a saved state, with all that is counted along with them.

use super::super::plan::Plan;
use super::super::standing::Standing;
use super::super::state::Lost;
use super::Shard;
use crate::flow::{Mapping, NO_POOL, Rest, SavedFlow};
use crate::ids::NatPoolId;
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
    ) -> Result<(), Lost> {
        if self.table.has_expired(now, saved) {
            return Err(Lost::Expired);
        }
        let (plan, standing) = of;
        let flow = &saved.flow;
        for key in [&flow.client, &flow.server] {
            if let Some(other) = self.table.find(key) {
                self.end_yielding(of, now, other.index);
            }
        }
        let mapping = Mapping::of_replies(&flow.server);
        if flow.nat_pool != NO_POOL {
            let pool = self.nat_pool(NatPoolId(flow.nat_pool.into()));
            if !pool.owns(mapping.address) {
                return Err(Lost::NatAddress);
            }
            if !pool.is_free(&mapping) {
                return Err(Lost::Port);
            }
        }
        if self.table.is_full(false, None) {
            return Err(Lost::Room);
        }
        let index = self.table.restore(now, saved);
        if let Some(pool) = self.nat_pools.get_mut(usize::from(flow.nat_pool)) {
            pool.take(&mapping, flow.client.protocol != Protocol::Tcp && !saved.proven);
        }
        self.totals.opened += 1;
        self.flows_total[flow.server_id.0 as usize] += 1;
        let totals = &mut self.services[flow.service.0 as usize];
        totals.flows += 1;
        totals.flows_total += 1;
        let client = self.table.key(index, Side::Client).addresses.src();
        let known = (plan.roster(), standing.servers());
        let kind = (saved.proven, is_counted);
        let ticket = self.chooser.restored(now, known, (flow.service, client), flow.server_id, kind);
        self.table.set_note(index, ticket);
        self.policy.opened(flow.rule);
        if saved.proven {
            self.policy.proven(plan.rules(), flow.rule, (client, saved.created));
        }
        Ok(())
    }

    /// Lets a port of a NAT pool rest; returns whether it does.
    pub(in crate::engine) fn restore_rest(&mut self, pool: NatPoolId, rest: &Rest) -> bool {
        self.nat_pools.get_mut(pool.0 as usize).is_some_and(|pool| pool.let_rest(rest))
    }
}
