//! What a chooser keeps when the configuration is replaced: loads and sticky clients always, and the state of an
//! algorithm wherever nothing that it reads has changed.

use super::super::roster::Roster;
use super::super::settings::Stickiness;
use super::super::standings::Standings;
use super::{Chooser, Load};
use crate::flow::Sticky;
use crate::ids::ServerId;
use crate::time::Instant;
use std::collections::BTreeMap;

impl Chooser {
    /// Takes over from the chooser of the roster that `new` follows. This one has been created for `new` and, unless that
    /// is left to the first choice, brought up to date.
    ///
    /// `is_kept` says whether a slot has the same server or service as before.
    pub fn inherit(
        &mut self,
        mut before: Chooser,
        (old, new): (&Roster, &Roster),
        is_kept: (impl Fn(ServerId) -> bool, impl Fn(u32) -> bool),
        standings: &Standings,
    ) {
        let (has_server, has_service) = is_kept;
        before.loads.resize(new.servers().len().max(before.loads.len()), Load::default());
        self.loads = std::mem::take(&mut before.loads);
        self.loads.truncate(new.servers().len());
        for (at, load) in self.loads.iter_mut().enumerate().filter(|(at, _)| !has_server(ServerId(*at as u32))) {
            debug_assert!(load.flows == 0 || at < old.servers().len(), "a slot with flows is not reused");
            load.reported = (load.flows, 0);
        }
        self.take_algorithms(&mut before, (old, new), has_server, has_service);
        self.take_clients(&mut before, (old, new));
        self.seen = standings.next_news();
    }

    /// Takes over the state of the algorithms over unchanged servers; others learn the loads of theirs at the next choice.
    fn take_algorithms(
        &mut self,
        before: &mut Chooser,
        (old, new): (&Roster, &Roster),
        has_server: impl Fn(ServerId) -> bool,
        has_service: impl Fn(u32) -> bool,
    ) {
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
                self.choices[base as usize].stale = true;
            }
        }
        for (group, was) in kept {
            if continued[new.base(group) as usize] == Some(old.base(was)) {
                self.own[group as usize] = before.own[was as usize].clone();
            }
        }
    }

    /// Takes over the sticky clients of groups that both configurations have; those of a group that now distinguishes
    /// clients differently start over.
    fn take_clients(&mut self, before: &mut Chooser, (old, new): (&Roster, &Roster)) {
        let settings = |roster: &Roster| -> BTreeMap<u32, Stickiness> {
            let all = roster.services().iter().filter_map(|service| service.sticky.clone());
            all.map(|sticky| (sticky.group, sticky)).collect()
        };
        let old = settings(old);
        for (group, is) in settings(new) {
            let Some(mut sticky) = before.sticky.remove(&group) else { continue };
            match old.get(&group).filter(|was| was.prefixes == is.prefixes) {
                Some(_) => sticky.limit(is.slots, is.idle),
                None => sticky = Sticky::new_after(&sticky, is.slots, is.idle),
            }
            self.sticky.insert(group, sticky);
        }
    }

    /// Brings every algorithm up to date, so that no choice has to.
    pub fn refresh_all(&mut self, now: Instant, roster: &Roster, standings: &Standings) {
        for base in 0..roster.bases().len() as u32 {
            self.choices[base as usize].refresh(now, base, roster, standings, &self.loads);
        }
        for group in 0..roster.groups() {
            let Chooser { choices, own, .. } = self;
            choices[roster.base(group) as usize].lead(&mut own[group as usize]);
        }
    }
}
