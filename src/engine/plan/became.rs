//! What became of the slots of one plan in the next one.

use super::{InUse, Plan};
use crate::balance::Became;
use crate::ids::{ServerId, ServiceId};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeSet;

/// What two plans that follow each other have in common, by slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Common {
    servers: Vec<Became>,
    /// Whether the slot has the same service in both, whether or not the file still has it.
    services: Vec<bool>,
    rules: Vec<bool>,
    nat_pools: Vec<bool>,
}

impl Common {
    pub(in crate::engine) fn of(old: &Plan, new: &Plan) -> Self {
        let listed = |plan: &Plan| {
            let mut listed = vec![false; plan.settings.servers.len()];
            plan.order.servers.iter().for_each(|id| listed[id.0 as usize] = true);
            move |at: usize| listed.get(at) == Some(&true)
        };
        let (in_old, in_new) = (listed(old), listed(new));
        let server = |at: usize| {
            let id = ServerId(at as u32);
            let place = |plan: &Plan| {
                let server = plan.settings.servers.get(at)?;
                Some((server.v4, server.v6, server.port))
            };
            let is_same = place(old) == place(new)
                && at < old.settings.servers.len()
                && old.pool_and_server(id) == new.pool_and_server(id);
            match (is_same && in_old(at), in_new(at)) {
                (true, true) => Became::Kept,
                (_, true) => Became::Added,
                (true, false) => Became::Removed,
                (false, false) if new.settings.servers[at].name.is_empty() => Became::Vacant,
                (false, false) if is_same => Became::Leaving,
                (false, false) => Became::Guest,
            }
        };
        let servers = 0..new.settings.servers.len();
        let (was, is) = (&old.settings, &new.settings);
        Common {
            servers: servers.map(server).collect(),
            services: same(&was.services, &is.services, |service| &service.name),
            rules: same(&was.policy.rules, &is.policy.rules, |rule| &rule.name),
            nat_pools: same(&was.nat_pools, &is.nat_pools, |pool| &pool.name),
        }
    }

    pub(in crate::engine) fn server(&self, server: ServerId) -> Became {
        self.servers[server.0 as usize]
    }

    /// Returns whether a slot has the same server as before, in the file or no longer.
    pub(in crate::engine) fn is_same_server(&self, server: ServerId) -> bool {
        matches!(self.server(server), Became::Kept | Became::Removed | Became::Leaving)
    }

    pub(in crate::engine) fn is_same_service(&self, service: ServiceId) -> bool {
        self.services[service.0 as usize]
    }

    pub(in crate::engine) fn is_same_rule(&self, rule: u16) -> bool {
        self.rules[usize::from(rule)]
    }

    pub(in crate::engine) fn is_same_nat_pool(&self, at: usize) -> bool {
        self.nat_pools[at]
    }

    /// Returns the slot of a server in the older plan, whose monitors' results hold for the newer one.
    pub(in crate::engine) fn was_monitored(&self, server: ServerId) -> Option<ServerId> {
        (self.server(server) == Became::Kept).then_some(server)
    }

    /// Returns the servers that the newer plan no longer has.
    pub(in crate::engine) fn removed(&self) -> impl Iterator<Item = ServerId> {
        let all = (0..).map(ServerId).zip(&self.servers);
        all.filter(|(_, became)| **became == Became::Removed).map(|(id, _)| id)
    }
}

fn same<T>(old: &[T], new: &[T], name: impl Fn(&T) -> &String) -> Vec<bool> {
    let is_same = |(at, new): (usize, &T)| !name(new).is_empty() && old.get(at).map(&name) == Some(name(new));
    new.iter().enumerate().map(is_same).collect()
}

impl InUse {
    /// Adds everything in the file of a plan: new flows may refer to it before its successor is in force.
    #[must_use]
    pub fn and_all_of(mut self, plan: &Plan) -> InUse {
        let mark = |slots: &mut Vec<bool>, at: usize| {
            slots.resize(slots.len().max(at + 1), false);
            slots[at] = true;
        };
        plan.order.services.iter().for_each(|id| mark(&mut self.services, id.0 as usize));
        plan.order.servers.iter().for_each(|id| mark(&mut self.servers, id.0 as usize));
        plan.order.nat_pools.iter().for_each(|id| mark(&mut self.nat_pools, id.0 as usize));
        plan.order.rules.iter().for_each(|rule| mark(&mut self.rules, usize::from(*rule)));
        self
    }
}

impl Plan {
    /// Returns the networks whose packets come to the gateway: those of services, and of NAT pools.
    pub(in crate::engine) fn own_networks(&self) -> BTreeSet<IpNet> {
        let services = self.settings.services.iter().flat_map(|service| &service.listen).map(|listen| listen.network());
        // One that has been removed keeps its addresses as long as flows have them; a removed service has none.
        let pools = || self.order.nat_pools.iter().map(|pool| &self.settings.nat_pools[pool.0 as usize]);
        let v4 = pools().flat_map(|pool| &pool.v4).map(|own| Ipv4Net::from(*own).into());
        let v6 = pools().flat_map(|pool| &pool.v6).map(|own| Ipv6Net::from(*own).into());
        services.chain(v4).chain(v6).collect()
    }
}
