//! What a shard keeps when the plan is replaced: every flow, and everything that is counted for what is still there.

use super::super::plan::{Common, Plan};
use super::super::standing::Standing;
use super::totals::ServiceTotals;
use super::{Shard, Traffic};
use crate::balance::Chooser;
use crate::flow::NatPool;
use crate::ids::{ServerId, ServiceId};
use crate::time::Instant;

impl Shard {
    /// Follows the plan that comes after `old`; `chooser` has been created for it. Returns whether new flows have the
    /// timeouts of their services, which they have not if live flows have too many others; and what is left of the former
    /// chooser.
    pub(in crate::engine) fn follow_plan(
        &mut self,
        now: Instant,
        (old, new): (&Plan, &Plan),
        common: &Common,
        (standing, chooser): (&Standing, Chooser),
    ) -> (bool, Chooser) {
        let settings = new.settings();
        let before = std::mem::replace(&mut self.chooser, chooser);
        let kept = (|server| common.is_same_server(server), |service| common.is_same_service(ServiceId(service)));
        let before = self.chooser.inherit(now, before, (old.roster(), new.roster()), kept, standing.servers());
        self.policy.follow(now, (old.rules(), new.rules()), |rule| common.is_same_rule(rule));
        self.fragments.limit(&settings.fragments);
        self.answers.limit(settings.answers.per_second);
        self.follow_nat_pools(new, common);
        self.follow_counters(new, common);
        (self.table.change_timeouts(&settings.table), before)
    }

    fn follow_nat_pools(&mut self, new: &Plan, common: &Common) {
        let settings = new.settings();
        self.nat_pools.truncate(settings.nat_pools.len());
        for (at, pool) in settings.nat_pools.iter().enumerate() {
            match self.nat_pools.get_mut(at) {
                Some(own) if common.is_same_nat_pool(at) => own.follow(pool),
                Some(own) => {
                    debug_assert!(!own.is_in_use(), "a slot in use is not reused");
                    *own = NatPool::new(pool, settings.seed);
                }
                None => self.nat_pools.push(NatPool::new(pool, settings.seed)),
            }
        }
        self.share_ports();
    }

    fn follow_counters(&mut self, new: &Plan, common: &Common) {
        let (servers, services) = (new.settings().servers.len(), new.settings().services.len());
        self.traffic.resize(servers, Traffic::default());
        self.flows_total.resize(servers, 0);
        for at in (0..servers).filter(|at| !common.is_same_server(ServerId(*at as u32))) {
            (self.traffic[at], self.flows_total[at]) = (Traffic::default(), 0);
        }
        self.services.resize(services, ServiceTotals::default());
        for at in (0..services).filter(|at| !common.is_same_service(ServiceId(*at as u32))) {
            debug_assert_eq!(self.services[at].flows, 0, "a slot with flows is not reused");
            self.services[at] = ServiceTotals::default();
        }
    }
}
