//! Which flow gives way.

use super::random::Random;
use super::world::{World, ticks};
use equipoise::flow::Class;
use equipoise::ids::FlowId;
use equipoise::packet::Protocol;
use std::cmp::Reverse;

impl World {
    /// Returns the flows of a class in order.
    pub fn in_order(&self, class: Class) -> Vec<usize> {
        let mut those: Vec<usize> = (0..self.flows.len()).filter(|at| self.flows[*at].class() == class).collect();
        those.sort_by_key(|at| self.flows[*at].queued);
        those
    }

    pub fn idle(&self, at: usize) -> u64 {
        self.tick() - self.flows[at].touched
    }

    /// Returns the flow that gives way, and those that are passed over for it.
    pub fn room(&self, may_be_settled: bool) -> (Option<usize>, Vec<usize>) {
        let over = self.in_order(Class::Over).first().copied();
        if let Some(over) = over.filter(|at| self.idle(*at) >= ticks(2)) {
            return (Some(over), Vec::new());
        }
        let mut brief = self.in_order(Class::Brief);
        brief.truncate(16);
        if let Some(fresh) = brief.iter().position(|at| !self.flows[*at].refreshed) {
            return (Some(brief[fresh]), brief[..fresh].to_vec());
        }
        if let Some(idlest) = brief.iter().copied().min_by_key(|at| Reverse(self.idle(*at))) {
            brief.retain(|at| *at != idlest);
            return (Some(idlest), brief);
        }
        let mut settled = self.in_order(Class::Settled);
        settled.truncate(if may_be_settled { 16 } else { 0 });
        let limit = |at: usize| ticks(if self.flows[at].client.protocol == Protocol::Tcp { 300 } else { 120 });
        let idle = settled.iter().copied().filter(|at| self.idle(*at) >= limit(*at));
        let idlest = idle.min_by_key(|at| Reverse(self.idle(*at)));
        settled.retain(|at| Some(*at) != idlest);
        (idlest.or(over), settled)
    }

    /// Makes room if there is none; returns the flow that gave way.
    pub fn make_room(&mut self, random: &mut Random, half_open: bool) -> Result<Option<FlowId>, ()> {
        let full = self.count(half_open) >= if half_open { self.max_half_open } else { self.max };
        assert_eq!(self.table.is_full(half_open, None), full);
        if !full {
            return Ok(None);
        }
        self.give_way(random, half_open).map(Some).ok_or(())
    }

    /// Lets a flow give way, if one may.
    pub fn give_way(&mut self, random: &mut Random, half_open: bool) -> Option<FlowId> {
        let may_be_settled = random.per_mille(900);
        let (victim, passed_over) = match half_open {
            true => (self.in_order(Class::HalfOpen).first().copied(), Vec::new()),
            false => self.room(may_be_settled),
        };
        let room = match half_open {
            true => self.table.room_for_half_open().unwrap_or_default(),
            false => self.table.room(self.now, may_be_settled),
        };
        let want = victim.map(|at| (self.flows[at].id.index, self.flows[at].class()));
        assert_eq!(room.victim, want, "passed over: {passed_over:?}");
        self.table.pass_over(&room);
        passed_over.iter().for_each(|at| self.queue(*at));
        let Some(victim) = victim else {
            self.note("no flow may give way");
            return None;
        };
        let (id, class, refreshed) = (self.flows[victim].id, self.flows[victim].class(), self.flows[victim].refreshed);
        let late = class == Class::Over && self.idle(victim) < ticks(2);
        let second = class == Class::Brief && refreshed;
        self.note(format!(
            "{}{}{}",
            class.name(),
            if late { ", late" } else { "" },
            if second { ", idlest" } else { "" }
        ));
        if passed_over.len() > 14 {
            self.note(format!("{}: many passed over", class.name()));
        }
        self.remove(victim);
        Some(id)
    }
}
