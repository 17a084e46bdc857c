//! What a chooser keeps when the configuration is replaced: loads and sticky clients always, and the state of an
//! algorithm wherever nothing that it reads has changed.

use super::super::picker::Own;
use super::super::roster::Roster;
use super::super::settings::Stickiness;
use super::super::standings::Standings;
use super::{Chooser, Load, usage};
use crate::ids::ServerId;
use crate::time::Instant;
use std::collections::BTreeMap;

/// The loads of servers at some time.
#[derive(Debug, Clone, Default)]
pub struct Loads(Vec<Load>);

impl Chooser {
    /// Returns the loads of all servers.
    pub fn loads(&self) -> Loads {
        Loads(self.loads.clone())
    }

    /// Creates the chooser of a roster with every algorithm up to date for a standing and loads that are expected: if they
    /// come true, [`Chooser::inherit`] has little left to do.
    pub fn prepared(now: Instant, roster: &Roster, seed: u64, standings: &Standings, loads: Loads) -> Self {
        let mut chooser = Chooser::new(roster, seed);
        chooser.loads = loads.0;
        chooser.loads.resize(roster.servers().len(), Load::default());
        chooser.refresh_all(now, roster, standings);
        chooser.seen = standings.next_news();
        chooser
    }

    /// Takes over from the chooser of the roster that `new` follows. This one has been created for `new`; the other one has
    /// read all changes. Where a choice has to be brought up to date first, that is left to it, or to
    /// [`Chooser::refresh_all`].
    ///
    /// `has_server` and `has_service` say whether a slot has the same server or service as before.
    pub fn inherit(
        &mut self,
        now: Instant,
        mut before: Chooser,
        (old, new): (&Roster, &Roster),
        (has_server, has_service): (impl Fn(ServerId) -> bool, impl Fn(u32) -> bool),
        standings: &Standings,
    ) -> Chooser {
        let mut loads = std::mem::take(&mut before.loads);
        loads.resize(new.servers().len(), Load::default());
        for (_, load) in (0..).map(ServerId).zip(&mut loads).filter(|(server, _)| !has_server(*server)) {
            load.reported = (load.flows, 0);
        }
        let expected = std::mem::replace(&mut self.loads, loads);
        let continued = self.take_algorithms(&mut before, (old, new), has_server, has_service);
        for base in (0..new.bases().len() as u32).filter(|base| !continued[*base as usize]) {
            self.check(now, base, new, standings, &expected);
        }
        self.take_clients(&mut before, (old, new));
        // What has changed for servers that are kept concerns the algorithms that go on.
        self.seen = before.seen;
        before
    }

    /// Brings an algorithm that was prepared with other loads up to date with those that there are; marks it if the weights
    /// are not as expected either.
    fn check(&mut self, now: Instant, base: u32, roster: &Roster, standings: &Standings, expected: &[Load]) {
        let Chooser { choices, loads, told, .. } = self;
        let choice = &mut choices[base as usize];
        if choice.stale || choice.differs(now, base, roster, standings) {
            choice.stale = true;
            return;
        }
        if !told[base as usize].load {
            return;
        }
        for (place, server) in roster.bases()[base as usize].places.iter().enumerate() {
            let (load, then) = (&loads[server.0 as usize], expected.get(server.0 as usize));
            if then.is_none_or(|then| then.flows != load.flows || then.reported != load.reported) {
                for family in &mut choice.families {
                    family.picker.load_changed(place, load.flows, || usage(loads, standings, *server));
                }
            }
        }
    }

    /// Takes over the state of the algorithms over unchanged servers; returns which those are, by base.
    fn take_algorithms(
        &mut self,
        before: &mut Chooser,
        (old, new): (&Roster, &Roster),
        has_server: impl Fn(ServerId) -> bool,
        has_service: impl Fn(u32) -> bool,
    ) -> Vec<bool> {
        // By base: the former one that it continues.
        let mut continued = vec![None; new.bases().len()];
        let mut taken = vec![false; old.bases().len()];
        let kept: Vec<(u32, u32)> = new.same_groups(old, has_service).collect();
        for (group, was) in &kept {
            let (base, was) = (new.base(*group), old.base(*was));
            let is_same = || {
                let places = &new.bases()[base as usize].places;
                new.chooses_as(base, (old, was)) && places.iter().all(|server| has_server(*server))
            };
            if continued[base as usize].is_none() && !taken[was as usize] && is_same() {
                continued[base as usize] = Some(was);
                taken[was as usize] = true;
                std::mem::swap(&mut self.choices[base as usize], &mut before.choices[was as usize]);
            }
        }
        // A service that joins an algorithm that goes on has a part of its own that was made for another one.
        let joins = |group: u32| continued[new.base(group) as usize].is_some();
        let own = (0..).zip(&mut self.own).filter(|(group, _)| joins(*group));
        own.for_each(|(_, own)| own.iter_mut().for_each(Own::unlearn));
        for (group, was) in kept {
            if continued[new.base(group) as usize] == Some(old.base(was)) {
                self.own[group as usize] = before.own[was as usize].clone();
            }
        }
        continued.iter().map(Option::is_some).collect()
    }

    /// Takes over the sticky clients of groups that both configurations have; those of a group that now distinguishes
    /// clients differently start over.
    fn take_clients(&mut self, before: &mut Chooser, (old, new): (&Roster, &Roster)) {
        let settings = |roster: &Roster| -> BTreeMap<u32, Stickiness> {
            let all = roster.services().iter().filter_map(|service| service.sticky.clone());
            all.map(|sticky| (sticky.group, sticky)).collect()
        };
        let old = settings(old);
        self.tickets = before.tickets.clone();
        self.lists = before.lists;
        for (group, is) in settings(new) {
            let stays = old.get(&group).is_some_and(|was| was.prefixes == is.prefixes);
            let Some(mut sticky) = before.sticky.remove(&group).filter(|_| stays) else { continue };
            sticky.limit(is.slots, is.idle);
            self.sticky.insert(group, sticky);
        }
    }

    /// Brings every algorithm up to date, so that no choice has to.
    pub fn refresh_all(&mut self, now: Instant, roster: &Roster, standings: &Standings) {
        for base in 0..roster.bases().len() as u32 {
            let choice = &mut self.choices[base as usize];
            if choice.stale {
                choice.refresh(now, base, roster, standings, &self.loads);
            }
        }
        for group in 0..roster.groups() {
            let Chooser { choices, own, .. } = self;
            choices[roster.base(group) as usize].lead(&mut own[group as usize]);
        }
    }
}
