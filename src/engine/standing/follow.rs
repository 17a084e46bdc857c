//! What holds on when the plan is replaced: the standing of servers, discovered path MTUs, switches, counts.

use super::super::plan::{Common, Plan};
use super::{All, Hot, Standing, possible};
use crate::balance::{Became, HealthOfAll};
use crate::ids::ServerId;
use crate::time::Instant;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Standing {
    /// Returns the standing under the plan that comes after `old`; `health` is what the monitors say.
    pub(in crate::engine) fn followed_by(
        &self,
        now: Instant,
        (old, new): (&Plan, &Plan),
        common: &Common,
        health: HealthOfAll,
    ) -> Standing {
        let rosters = (old.roster(), new.roster());
        let servers = self.servers.followed_by(now, rosters, |server| common.server(server), health);
        let all = || (0..new.roster().servers().len() as u32).map(ServerId);
        let hot = |server: ServerId| {
            let before = common.is_same_server(server).then(|| self.hot[server.0 as usize]);
            let stated = [old, new].map(|plan| plan.pool_mtu_of(server));
            let mtu = match before {
                Some(before) if stated[0] == stated[1] => before.mtu,
                _ => [false, true].map(|v6| possible(v6, stated[1].unwrap_or(0))),
            };
            let gone = servers.may_be_gone(new.roster(), server) && common.server(server) != Became::Vacant;
            // Whoever changes its state in the file means its flows, too.
            let admin = |plan: &Plan| plan.settings().servers[server.0 as usize].admin;
            let still = common.server(server) != Became::Kept || admin(old) == admin(new);
            Hot { mtu, gone, drained: still && before.is_some_and(|before| before.drained) }
        };
        let hot: Vec<Hot> = all().map(hot).collect();
        let transitions = |server: ServerId| {
            if common.is_same_server(server) { self.transitions[server.0 as usize] } else { [0; 2] }
        };
        Standing {
            all: All::of(&hot),
            hot,
            switches: self.switches.followed_by((old.rules(), new.rules()), |rule| common.is_same_rule(rule)),
            transitions: all().map(transitions).collect(),
            observing: self.observing,
            duty: self.duty,
            era: self.era + 1,
            retired: self.retired_by(old, new),
            servers,
        }
    }

    /// Returns the networks that were the gateway's own and are not in the newer plan; flows may still use them.
    fn retired_by(&self, old: &Plan, new: &Plan) -> Vec<IpNet> {
        let own = new.own_networks();
        let all = self.retired.iter().copied().chain(old.own_networks());
        all.filter(|network| !own.contains(network)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Makes networks own ones that are not in the plan.
    pub(in crate::engine) fn retire(&mut self, plan: &Plan, networks: &[IpNet]) {
        let own = plan.own_networks();
        let all = self.retired.iter().chain(networks).copied();
        self.retired = all.filter(|network| !own.contains(network)).collect::<BTreeSet<_>>().into_iter().collect();
    }

    /// Returns the networks that are no longer in the configuration, but still the gateway's own: flows may use them.
    pub(in crate::engine) fn retired(&self) -> &[IpNet] {
        &self.retired
    }

    /// Gives up all retired networks.
    pub(in crate::engine) fn forget_retired(&mut self) {
        self.retired = Vec::new();
    }

    /// Returns whether an address is in a retired network.
    #[inline]
    pub(in crate::engine) fn is_retired(&self, address: IpAddr) -> bool {
        !self.retired.is_empty() && self.retired.iter().any(|network| network.contains(&address))
    }

    /// Returns whether any server is down or disabled.
    pub(in crate::engine) fn any_is_gone(&self) -> bool {
        self.all.gone > 0
    }
}
