//! Writing a state that another engine takes over from: while packets go on, what changes is written again, in passes that
//! get shorter; when packets stop, the last one makes the copy equal.
//!
//! ```text
//!   begin_copy --> write_copy ... a pass is over --> write_copy ... a short pass --> finish_copy
//!                  everything                        what changed since             the rest, and half-open flows
//! ```
//!
//! Flows have the number of their slot: one that comes again replaces what was there. Names come only once; if the engine
//! follows another plan meanwhile, everything comes again.

use super::super::Engine;
use super::record::{write_gone, write_rest, write_slot};
use super::walk::StateWalk;
use crate::flow::{TableTooBig, Watcher};
use crate::time::Instant;

/// The most half-open flows in a copy, the newest: a flood of SYNs must not make the last pass long.
const MOST_HALF_OPEN: usize = 16_384;

/// What a pass is at.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Everything, in the first pass.
    Walk,
    /// Sticky slots by group, and whether the walk over them has begun.
    Slots(usize, bool),
    /// Flows from a slot on.
    Flows(u32),
    /// Resting ports by pool, after this many.
    Resting(usize, usize),
}

/// A copy of an engine that is being written. An engine has one at a time, and no [`StateWalk`] beside it.
#[derive(Debug)]
pub struct StateCopy {
    walk: StateWalk,
    part: Part,
    /// When the pass began, and the one before it.
    begun: Instant,
    since: Instant,
    /// Records that were written before the pass.
    before: u64,
}

impl Engine {
    /// Begins a copy: from now on the engine notes what changes, until [`Engine::end_copy`].
    ///
    /// # Errors
    /// If the system refuses the memory for it, two bits per flow.
    pub fn begin_copy(&mut self, now: Instant) -> Result<StateCopy, TableTooBig> {
        self.shard.table_mut().note_changes(Watcher::Successor)?;
        let walk = StateWalk::of_copy(now, Watcher::Successor);
        Ok(StateCopy { walk, part: Part::Walk, begun: now, since: now, before: 0 })
    }

    /// Writes more of a copy to `out`: about `most` records, from as many places. Returns the number of records of the pass
    /// if it is over.
    pub fn write_copy(&mut self, copy: &mut StateCopy, now: Instant, most: usize, out: &mut Vec<u8>) -> Option<u64> {
        if copy.walk.is_stale(&self.plan) {
            (copy.part, copy.begun) = (Part::Walk, now);
        }
        match copy.part {
            Part::Walk => {
                if self.write_walk(&mut copy.walk, now, most, out) {
                    return Some(copy.next_pass(now));
                }
            }
            Part::Slots(place, has_begun) => self.copy_slots(copy, (place, has_begun), most, out),
            Part::Flows(from) => {
                let next = self.copy_flows(copy, from, most, out);
                copy.part = next.map_or(Part::Resting(0, 0), Part::Flows);
            }
            Part::Resting(pool, after) => {
                if self.copy_resting(copy, (pool, after), most, out) {
                    return Some(copy.next_pass(now));
                }
            }
        }
        None
    }

    /// Writes the rest of a copy to `out`, and its end; after it this engine handles no packet. Returns the number of
    /// records that it had to write for that.
    pub fn finish_copy(&mut self, copy: &mut StateCopy, now: Instant, out: &mut Vec<u8>) -> u64 {
        let before = copy.walk.records();
        while matches!(copy.part, Part::Walk) {
            self.write_copy(copy, now, usize::MAX, out);
        }
        copy.walk.begin_standing();
        while !copy.walk.has_standing() {
            self.write_part(&mut copy.walk, now, usize::MAX, out);
        }
        let (base, since) = (copy.walk.base(), copy.since);
        for (group, slot) in self.shard.chooser().recent_sticky(self.standing.servers(), since) {
            write_slot(out, base, group, &slot);
            copy.walk.count(1);
        }
        self.copy_flows(copy, 0, usize::MAX, out);
        let half_open: Vec<_> = self.shard.table().save_half_open(MOST_HALF_OPEN).collect();
        for (saved, note) in half_open {
            self.write_saved(&mut copy.walk, saved, (note, None), out);
        }
        (0..self.shard.nat_pools().len()).for_each(|pool| _ = self.copy_resting(copy, (pool, 0), usize::MAX, out));
        copy.walk.end(out);
        copy.walk.records() - before
    }

    /// Ends a copy, whether finished or given up: the engine notes changes no longer.
    pub fn end_copy(&mut self) {
        self.shard.table_mut().ignore_changes(Watcher::Successor);
    }

    /// Writes sticky slots of one group that are new or have been used since the pass before.
    fn copy_slots(&mut self, copy: &mut StateCopy, (place, has_begun): (usize, bool), most: usize, out: &mut Vec<u8>) {
        if !has_begun {
            self.shard.chooser_mut().begin_sticky_walk(Watcher::Successor);
        }
        copy.part = Part::Slots(place, true);
        let Some(group) = copy.walk.group(place) else {
            copy.part = Part::Flows(0);
            return;
        };
        let (base, since, mut records) = (copy.walk.base(), copy.since, 0);
        let of = (Watcher::Successor, group);
        let looked = self.shard.chooser_mut().walk_sticky(self.standing.servers(), of, most, |slot| {
            if slot.since >= since {
                write_slot(out, base, group, &slot);
                records += 1;
            }
        });
        copy.walk.count(records);
        if looked == 0 {
            copy.part = Part::Slots(place + 1, true);
        }
    }

    /// Writes flows that have changed, from a slot on; returns where to go on.
    fn copy_flows(&mut self, copy: &mut StateCopy, from: u32, most: usize, out: &mut Vec<u8>) -> Option<u32> {
        let mut changed = Vec::new();
        let next =
            self.shard.table_mut().take_changes(Watcher::Successor, from, most, |change| changed.push(change.index));
        for index in changed {
            if self.shard.table().is_used(index) {
                self.write_flow(&mut copy.walk, index, out);
            } else {
                write_gone(out, index);
                copy.walk.count(1);
            }
        }
        next
    }

    /// Writes ports of a pool that rest since the pass before, after some of them; returns whether that was the last pool.
    fn copy_resting(
        &self,
        copy: &mut StateCopy,
        (pool, after): (usize, usize),
        most: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(ports) = self.shard.nat_pools().get(pool) else { return true };
        let from = copy.since + ports.settings().hold;
        let (base, mut written) = (copy.walk.base(), 0);
        for rest in ports.resting((from, after)).take(most) {
            write_rest(out, base, pool as u32, &rest);
            written += 1;
        }
        copy.walk.count(written as u64);
        copy.part = if written < most { Part::Resting(pool + 1, 0) } else { Part::Resting(pool, after + written) };
        false
    }
}

impl StateCopy {
    /// Returns the number of records written.
    pub fn records(&self) -> u64 {
        self.walk.records()
    }

    /// Begins another pass; returns the number of records of the one before it.
    fn next_pass(&mut self, now: Instant) -> u64 {
        (self.since, self.begun) = (self.begun, now);
        self.part = Part::Slots(0, false);
        let written = self.walk.records() - self.before;
        self.before = self.walk.records();
        written
    }
}
