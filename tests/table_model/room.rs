//! Which flow gives way.

use super::random::Random;
use super::world::{World, ticks};
use equipoise::flow::{Class, Newcomer};
use equipoise::ids::FlowId;
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

    /// Returns the number of flows that do not give way to any other, as if one did not exist.
    pub fn that_stay(&self, without: Option<FlowId>) -> usize {
        let of = |class| self.in_order(class).into_iter().filter(|at| Some(self.flows[*at].id) != without).count();
        of(Class::Settled) + of(Class::Conversing).min(self.max / 2)
    }

    /// Returns the flow that gives way, and those that are passed over for it.
    pub fn room(&self, newcomer: Newcomer) -> (Option<usize>, Vec<usize>) {
        let over = self.in_order(Class::Over).first().copied();
        if let Some(over) = over.filter(|at| self.idle(*at) >= ticks(2)) {
            return (Some(over), Vec::new());
        }
        let mut brief = self.in_order(Class::Brief);
        brief.truncate(16);
        if let Some(fresh) = brief.iter().position(|at| !self.flows[*at].refreshed) {
            return (Some(brief[fresh]), brief[..fresh].to_vec());
        }
        let mut passed_over = Vec::new();
        let seconds = if newcomer.is_proven { 1 } else { 10 };
        let many = self.in_order(Class::Conversing).len() > self.max / 2;
        let settled = if newcomer.may_take_settled { 16 } else { 0 };
        let conversing = if many { seconds } else { 120 };
        for (class, most, limit) in
            [(Class::Brief, 16, seconds), (Class::Conversing, 16, conversing), (Class::Settled, settled, 300)]
        {
            let mut first = self.in_order(class);
            first.truncate(most);
            let is_exchange = |at: &usize| {
                class == Class::Brief && self.flows[*at].packets[0] <= 1 && self.flows[*at].packets[1] <= 4
            };
            let idle = first.iter().copied().filter(|at| self.idle(*at) >= ticks(limit) || is_exchange(at));
            let idlest = idle.min_by_key(|at| Reverse(self.idle(*at)));
            passed_over.extend(first.into_iter().filter(|at| Some(*at) != idlest));
            if idlest.is_some() {
                return (idlest, passed_over);
            }
        }
        (over, passed_over)
    }

    /// Makes room if there is none; returns the flow that gave way.
    pub fn make_room(&mut self, random: &mut Random, half_open: bool, is_proven: bool) -> Result<Option<FlowId>, ()> {
        let full = self.count(half_open) >= if half_open { self.max_half_open } else { self.max };
        assert_eq!(self.table.is_full(half_open, None), full);
        if !full {
            return Ok(None);
        }
        self.give_way(random, half_open, is_proven).map(Some).ok_or(())
    }

    /// Lets a flow give way, if one may.
    pub fn give_way(&mut self, random: &mut Random, half_open: bool, is_proven: bool) -> Option<FlowId> {
        let newcomer = Newcomer { is_proven, may_take_settled: random.per_mille(900) };
        let (victim, passed_over) = match half_open {
            true => (self.in_order(Class::HalfOpen).first().copied(), Vec::new()),
            false => self.room(newcomer),
        };
        let room = match half_open {
            true => self.table.room_for_half_open().unwrap_or_default(),
            false => self.table.room(self.now, newcomer),
        };
        let want = victim.map(|at| (self.flows[at].id.index, self.flows[at].class()));
        assert_eq!(room.victim, want, "passed over: {passed_over:?}");
        self.table.pass_over(&room);
        passed_over.iter().for_each(|at| self.queue(*at));
        let Some(victim) = victim else {
            self.note("no flow may give way");
            if self.flows.iter().any(|flow| flow.class() == Class::Brief) {
                self.note("brief, all busy");
            }
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
        if class == Class::Conversing && self.idle(victim) < ticks(120) {
            self.note(if self.idle(victim) < ticks(10) {
                "conversing, of a second"
            } else {
                "conversing, of ten seconds"
            });
        }
        if passed_over.len() > 14 {
            self.note(format!("{}: many passed over", class.name()));
        }
        self.remove(victim);
        Some(id)
    }
}
