//! Other settings while the gateway runs: what has to be added in the system and what removed, done in portions.

use super::{Installed, MAIN, Part, SetupError, already_routed, answer_rule, route, rule};
use crate::config::Settings;
use crate::gateway::wanted::{Answers, Routing};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAction, RuleAttribute};
use std::collections::{BTreeSet, VecDeque};

/// Parts to be added and removed.
#[derive(Debug, Default)]
pub struct Changes {
    add: VecDeque<Part>,
    remove: VecDeque<Part>,
    /// What could not be done, for people.
    problems: Vec<String>,
}

impl Changes {
    /// Returns whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// Returns what could not be done.
    pub fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }
}

impl Installed {
    /// Makes `settings` those to follow, and returns what has to be done for that by [`Installed::carry_out`]. `routing` is
    /// what they want; `retired` are networks that stay routed to the device although no service has them any more; `keeps_answers` says that there may be
    /// flows of servers that have been removed.
    ///
    /// What is to be removed is no longer among the parts when this returns; what is to be added is not yet.
    pub fn follow(
        &mut self,
        (settings, routing): (&Settings, &Routing),
        (retired, keeps_answers): (&[IpNet], bool),
    ) -> Changes {
        let mut changes = Changes::default();
        self.follow_device(settings, &mut changes);
        self.follow_families(routing, &mut changes);
        let routed: BTreeSet<IpNet> = routing.networks.iter().chain(retired).copied().collect();
        for to in routed.difference(&self.routed) {
            changes.add.push_back(Part::Route(self.service_route(*to)));
            changes.add.push_back(Part::Fallback(*to));
        }
        let gone = |part: &Part| match part {
            Part::Route(route) => route.table == MAIN && !routed.contains(&route.to),
            Part::Fallback(to) => !routed.contains(to),
            Part::Address(address) => !settings.gateway.addresses.contains(address),
            _ => false,
        };
        changes.remove = self.parts.extract_if(.., |part| gone(part)).collect();
        self.routed = routed;
        self.follow_answers(&routing.answers, keeps_answers);
        changes
    }

    /// The MTU and the addresses of the device.
    fn follow_device(&mut self, settings: &Settings, changes: &mut Changes) {
        if self.gateway.mtu != settings.gateway.mtu {
            self.gateway.mtu = settings.gateway.mtu;
            changes.add.push_back(Part::Device);
        }
        let new = settings.gateway.addresses.iter().filter(|address| !self.gateway.addresses.contains(address));
        changes.add.extend(new.map(|address| Part::Address(*address)));
        self.gateway.addresses = settings.gateway.addresses.clone();
    }

    /// A family that no service had before.
    fn follow_families(&mut self, routing: &Routing, changes: &mut Changes) {
        let (v4, v6) = routing.families();
        let (table, first, device) = (self.gateway.route_table, self.gateway.rule_priority, &self.gateway.device);
        let all: [(bool, AddressFamily, IpNet); 2] = [
            (v4, AddressFamily::Inet, Ipv4Net::default().into()),
            (v6, AddressFamily::Inet6, Ipv6Net::default().into()),
        ];
        for (at, (is_wanted, family, any)) in all.into_iter().enumerate() {
            if is_wanted && !self.families[at] {
                let from_device = RuleAttribute::Iifname(device.clone());
                let goto = vec![from_device.clone(), RuleAttribute::Goto(first + 2)];
                changes.add.extend(self.holds.then_some(Part::Hold(any, table)));
                changes.add.extend([
                    Part::Device,
                    Part::Route(route(any, table, self.index)),
                    Part::Rule(rule(family, RuleAction::Nop, first + 2, vec![from_device])),
                    Part::Rule(rule(family, RuleAction::Goto, first, goto)),
                ]);
                self.families[at] = true;
            }
        }
    }

    /// The rules by addresses; while there may be flows of what has been removed, those of before stay.
    fn follow_answers(&mut self, answers: &[Answers], keeps_others: bool) {
        let (table, priority) = (self.gateway.route_table, self.gateway.rule_priority + 1);
        let mut wanted: Vec<_> = answers.iter().map(|of| answer_rule(of, table, priority)).collect();
        if keeps_others {
            let before = self.answers.drain(..).filter(|rule| !wanted.contains(rule)).collect::<Vec<_>>();
            wanted.extend(before);
        }
        self.answers = wanted;
    }

    /// Makes service addresses be announced, or no longer; returns what has to be done for that. At no time is there no route.
    pub fn announce(&mut self, is_announced: bool) -> Changes {
        let mut changes = Changes::default();
        if std::mem::replace(&mut self.announces, is_announced) != is_announced {
            changes.add = self.routed.iter().map(|to| Part::Route(self.service_route(*to))).collect();
            let is_other = |part: &Part| matches!(part, Part::Route(route) if route.table == MAIN);
            changes.remove = self.parts.extract_if(.., |part| is_other(part)).collect();
        }
        changes
    }

    /// Adds and removes up to `most` parts.
    pub fn carry_out(&mut self, changes: &mut Changes, most: usize) {
        for _ in 0..most {
            if let Some(part) = changes.add.pop_front() {
                match self.add(&part) {
                    Ok(()) => {}
                    Err(error) => changes.problems.push(error.to_string()),
                }
                if part != Part::Device {
                    self.parts.push(part);
                }
            } else if let Some(part) = changes.remove.pop_front() {
                match part.delete(&mut self.netlink, &self.gateway.device, self.index) {
                    Err(e) if ![libc::ESRCH, libc::ENOENT, libc::ENODEV, libc::EADDRNOTAVAIL].contains(&e.errno()) => {
                        changes.problems.push(e.to_string());
                    }
                    _ => {}
                }
            } else {
                return;
            }
        }
    }

    fn add(&mut self, part: &Part) -> Result<(), SetupError> {
        let is_new = self.repair(part)?;
        match part {
            Part::Route(route) if route.table == MAIN && !is_new => Err(already_routed(route)),
            _ => Ok(()),
        }
    }
}
