//! What names mean in a plan: by them, a state or another gateway says what it speaks of.

use super::Plan;
use crate::balance::Prefixes;
use crate::ids::{NatPoolId, ServerId, ServiceId};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The slots of a plan by name.
#[derive(Debug)]
pub(in crate::engine) struct Names {
    services: BTreeMap<String, ServiceId>,
    /// By pool and name; more than one where a former one of the name is left.
    servers: BTreeMap<String, BTreeMap<String, Vec<ServerId>>>,
    nat_pools: BTreeMap<String, NatPoolId>,
    rules: BTreeMap<String, u16>,
    /// Groups of services that share sticky slots, by whether the name is that of their only service.
    groups: [BTreeMap<String, (u32, Prefixes)>; 2],
}

impl Names {
    /// Returns the slots of what is configured.
    pub(in crate::engine) fn of(plan: &Plan) -> Names {
        let settings = plan.settings();
        let services = plan.order().services.iter().map(|id| (plan.service(*id).name.clone(), *id));
        let mut names = Names {
            services: services.collect(),
            servers: BTreeMap::new(),
            nat_pools: BTreeMap::new(),
            rules: BTreeMap::new(),
            groups: [BTreeMap::new(), BTreeMap::new()],
        };
        // Of two with the same name, the first one.
        for (pool, id) in settings.nat_pools.iter().zip(0..) {
            names.nat_pools.entry(pool.name.clone()).or_insert(NatPoolId(id));
        }
        for (number, rule) in plan.rules().in_order() {
            names.rules.entry(rule.name.clone()).or_insert(number);
        }
        plan.order().servers.iter().for_each(|id| names.add_server(plan, *id));
        for service in &settings.services {
            let Some(of) = &service.sticky else { continue };
            let name = settings.sticky_groups.get(&of.group);
            let (place, name) = (usize::from(name.is_none()), name.unwrap_or(&service.name));
            names.groups[place].entry(name.clone()).or_insert((of.group, of.prefixes));
        }
        names
    }

    /// The same, and those of what is not configured any more and still in use: a peer may have it, too.
    pub(in crate::engine) fn of_all(plan: &Plan) -> Names {
        let mut names = Names::of(plan);
        for (at, service) in (0..).zip(&plan.settings().services).filter(|(_, service)| !service.name.is_empty()) {
            names.services.entry(service.name.clone()).or_insert(ServiceId(at));
        }
        let leaving = (0..).map(ServerId).zip(&plan.settings().servers).filter(|(_, server)| !server.name.is_empty());
        leaving.for_each(|(id, _)| names.add_server(plan, id));
        names
    }

    fn add_server(&mut self, plan: &Plan, id: ServerId) {
        let (pool, server) = plan.pool_and_server(id);
        if !self.servers.contains_key(pool) {
            self.servers.insert(pool.to_owned(), BTreeMap::new());
        }
        let same = self.servers.get_mut(pool).map(|pool| pool.entry(server.to_owned()).or_default());
        if let Some(same) = same.filter(|same| !same.contains(&id)) {
            same.push(id);
        }
    }

    pub(in crate::engine) fn service(&self, name: &str) -> Option<ServiceId> {
        self.services.get(name).copied()
    }

    pub(in crate::engine) fn nat_pool(&self, name: &str) -> Option<NatPoolId> {
        self.nat_pools.get(name).copied()
    }

    pub(in crate::engine) fn rule(&self, name: &str) -> Option<u16> {
        self.rules.get(name).copied()
    }

    /// Returns the group of services that share sticky slots of this name, or that of the only service of this name (`own`),
    /// and by which network of a client.
    pub(in crate::engine) fn group(&self, name: &str, own: bool) -> Option<(u32, Prefixes)> {
        self.groups[usize::from(own)].get(name).copied()
    }

    /// Returns the server of a pool and name that has these addresses and port.
    pub(in crate::engine) fn server(
        &self,
        plan: &Plan,
        (pool, name): (&str, &str),
        (addresses, port): ([Option<IpAddr>; 2], Option<u16>),
    ) -> Option<ServerId> {
        let same = |id: &ServerId| {
            let own = plan.roster().server(*id);
            ([own.v4.map(IpAddr::V4), own.v6.map(IpAddr::V6)], own.port) == (addresses, port)
        };
        // Names may be those of a plan before this one, which had more slots.
        self.servers.get(pool)?.get(name)?.iter().copied().filter(|id| plan.roster().has(*id)).find(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::sync::Arc;

    #[test]
    fn names_are_made_with_the_plan_where_a_peer_will_ask_for_them() {
        let text = "[[service]]\nname='web'\nlisten='192.0.2.80:80/tcp'\npool='web'\n[[pool]]\nname='web'\n\
                    server=[{name='a',address='10.0.0.1'},{name='b',address='10.0.0.2',port=81}]\n";
        let pair =
            "[sync]\nnode='a'\npeer='b'\naddress='127.0.0.1:7400'\npeer-address='127.0.0.2:7400'\nkey-file='/key'\n";
        let plan = |text: &str| Plan::new(&config::parse(text, "names.toml").unwrap_or_else(|error| panic!("{error}")));
        let (alone, paired) = (plan(text), plan(&[text, pair].concat()));
        assert!(alone.names.is_none() && Arc::ptr_eq(&paired.names(), &paired.names()));
        let names = paired.names();
        let address = |n| [Some(IpAddr::from([10, 0, 0, n])), None];
        assert_eq!(names.service("web"), Some(ServiceId(0)));
        assert_eq!(names.server(&paired, ("web", "b"), (address(2), Some(81))), Some(ServerId(1)));
        assert_eq!(names.server(&paired, ("web", "b"), (address(3), Some(81))), None);
        assert_eq!(names.server(&paired, ("another", "b"), (address(2), Some(81))), None);
    }
}
