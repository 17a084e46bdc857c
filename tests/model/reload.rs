//! Other settings of the same objects, as the documentation of reloads says: everything stays but what the settings say
//! differently.

use super::model::Model;
use super::services::{self, Service};
use super::sticky::Sticky;
use equipoise::balance::OnDown;
use equipoise::config::Settings;
use equipoise::time::Instant;
use std::collections::BTreeMap;

impl Model {
    /// Puts other settings in force.
    pub fn reload(&mut self, now: Instant, new: &Settings) {
        let old = std::mem::replace(&mut self.settings, new.clone());
        let before: Vec<(bool, bool)> =
            (0..self.servers.len()).map(|at| (self.may_be_gone(at), self.servers[at].is_open(now))).collect();
        self.follow_services(&old);
        self.follow_servers(now, &old, &before);
        self.policy.follow(now, &new.policy, new.services.iter().map(|service| service.priority));
        self.follow_clients();
        for (own, settings) in self.pools.iter_mut().zip(&new.nat_pools) {
            own.settings = settings.clone();
        }
        self.limits.iter_mut().for_each(|limit| limit.follow(new.answers.per_second));
        self.flows.follow(&new.table);
        let resets = new.services.iter().any(|service| service.on_down == Some(OnDown::Reset));
        self.walk |= resets && (0..self.servers.len()).any(|server| self.may_be_gone(server));
        self.tell_notices();
        self.seen("a reload");
    }

    /// An algorithm goes on where nothing that it reads has changed; one that stands for several services, with the
    /// first of them.
    fn follow_services(&mut self, old: &Settings) {
        let new = self.settings.clone();
        let fresh = new.services.iter().map(|service| Service::new(&new, service));
        let (mut all, mut last): (Vec<_>, Vec<_>) = fresh.unzip();
        let leaders = services::leaders(&new);
        let mut taken = BTreeMap::new();
        for (is, was) in leaders.iter().copied().zip(self.leaders.iter().copied()) {
            let own = &self.services[was];
            if all[is].chooses_as((own, old), &new)
                && !taken.contains_key(&is)
                && !taken.values().any(|other| *other == was)
            {
                taken.insert(is, was);
                all[is].go_on(own);
            }
        }
        for (own, before) in last.iter_mut().zip(&self.last_resorts) {
            if let (Some(own), Some(before)) = (own, before)
                && own.chooses_as((before, old), &new)
            {
                own.go_on(before);
            }
        }
        (self.services, self.last_resorts, self.leaders) = (all, last, leaders);
    }

    fn follow_servers(&mut self, now: Instant, old: &Settings, before: &[(bool, bool)]) {
        for (at, (was_gone, was_open)) in before.iter().copied().enumerate() {
            let (was, is) = (&old.servers[at], self.settings.servers[at].clone());
            let pools = [old, &self.settings].map(|of| of.pools[is.pool.0 as usize].clone());
            let weight = (was.weight != is.weight).then_some(is.weight);
            let admin = (was.admin != is.admin).then_some(is.admin);
            let changed = self.servers[at].follow(&is, pools[1].passive.clone(), weight, admin);
            if admin.is_some() {
                self.over.retain(|other| *other != at);
            }
            if pools[0].mtu != pools[1].mtu {
                let mtu = pools[1].mtu.unwrap_or(0);
                self.mtus[at] = [mtu, if mtu == 0 { 0 } else { mtu.max(1280) }];
            }
            let (is_gone, is_open) = (self.may_be_gone(at), self.servers[at].is_open(now));
            if !was_gone && is_gone || was_open && !is_open {
                self.servers[at].era += 1;
            } else if was_gone && !is_gone || !was_open && is_open {
                self.servers[at].is_back(now);
            }
            if changed || was_gone != is_gone {
                self.servers[at].changed(now);
            } else {
                self.servers[at].watch(now);
            }
        }
    }

    /// Clients stay in the groups that there still are, unless these distinguish them differently.
    fn follow_clients(&mut self) {
        let groups = self.settings.services.iter().filter_map(|service| service.sticky.as_ref());
        let mut all = BTreeMap::new();
        for is in groups {
            let before = self.sticky.remove(&is.group).filter(|before| before.settings().prefixes == is.prefixes);
            let mut own = before.unwrap_or_else(|| Sticky::new(is));
            own.limit(is);
            all.entry(is.group).or_insert(own);
        }
        self.sticky = all;
    }
}
