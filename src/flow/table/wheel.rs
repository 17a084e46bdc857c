//! Which flow is due when: a hierarchical timing wheel (Varghese and Lauck, 1987, scheme 7) whose lists run through the
//! flows.
//!
//! It must not know timeouts: the caller decides whether a flow that comes up has expired, or places it again. A flow
//! that is refreshed stays where it is until then, so that a packet relinks nothing.

use super::entry::Flow;
use super::links::{Links, NONE};

/// Slots per level.
const SLOTS: usize = 256;
const BITS: u32 = 8;
/// Levels: the last one turns once in 2^40 ticks.
const LEVELS: usize = 5;
/// In a link: the list of this slot, instead of a flow.
const HEAD: u32 = 0xffff_0000;

/// The first and last flow of a slot.
#[derive(Debug, Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

/// The wheel.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Everything before this tick has been handled.
    now: u64,
    /// How often a flow was placed.
    placed: u64,
    slots: Box<[Ends]>,
    /// Per level, one bit per slot that holds flows.
    busy: [[u64; SLOTS / 64]; LEVELS],
}

impl Wheel {
    pub(super) fn new() -> Self {
        let slots = vec![Ends { first: NONE, last: NONE }; LEVELS * SLOTS].into_boxed_slice();
        Wheel { now: 0, placed: 0, slots, busy: [[0; SLOTS / 64]; LEVELS] }
    }

    /// Returns the tick before which everything has been handled.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Skips the time until a tick: the wheel is empty.
    pub(super) fn skip_to(&mut self, tick: u64) {
        debug_assert!(self.next().is_none(), "flows in the wheel");
        self.now = self.now.max(tick);
    }

    /// Returns how often a flow was placed: as long as it stays the same, no flow is due earlier than before.
    #[inline]
    pub(super) fn placed(&self) -> u64 {
        self.placed
    }

    const fn digit(tick: u64, level: usize) -> usize {
        (tick >> (BITS * level as u32)) as usize % SLOTS
    }

    /// Adds a flow that is due at a tick; one in the past is due at once.
    pub(super) fn insert(&mut self, flows: &mut [Flow], entry: u32, due: u64) {
        self.placed += 1;
        let due = due.clamp(self.now, self.now + (1 << 39));
        let apart = due ^ self.now;
        let level = ((u64::BITS - 1).saturating_sub(apart.leading_zeros()) / BITS) as usize;
        let level = level.min(LEVELS - 1);
        let place = Wheel::digit(due, level);
        let slot = level * SLOTS + place;
        let head = HEAD | slot as u32;
        let last = self.slots[slot].last;
        flows[entry as usize].wheel = Links { before: if last == NONE { head } else { last }, behind: head };
        match last {
            NONE => self.slots[slot].first = entry,
            last => flows[last as usize].wheel.behind = entry,
        }
        self.slots[slot].last = entry;
        self.busy[level][place / 64] |= 1 << (place % 64);
    }

    /// Removes a flow.
    pub(super) fn unlink(&mut self, flows: &mut [Flow], entry: u32) {
        let Links { before, behind } = flows[entry as usize].wheel;
        match before {
            head if head >= HEAD => {
                self.slots[(head - HEAD) as usize].first = if behind >= HEAD { NONE } else { behind }
            }
            before => flows[before as usize].wheel.behind = behind,
        }
        match behind {
            head if head >= HEAD => {
                self.slots[(head - HEAD) as usize].last = if before >= HEAD { NONE } else { before }
            }
            behind => flows[behind as usize].wheel.before = before,
        }
        if before >= HEAD && behind >= HEAD {
            let slot = (before - HEAD) as usize;
            let (level, place) = (slot / SLOTS, slot % SLOTS);
            self.busy[level][place / 64] &= !(1 << (place % 64));
        }
    }

    fn is_busy(&self, level: usize, place: usize) -> bool {
        self.busy[level][place / 64] & 1 << (place % 64) != 0
    }

    /// Returns the first busy slot of a level from a place on.
    fn busy_from(&self, level: usize, place: usize) -> Option<usize> {
        let (word, bit) = (place / 64, place % 64);
        let first = self.busy[level].get(word)? & (u64::MAX << bit);
        let rest = self.busy[level][word + 1..].iter().copied();
        let mut words = (word..).zip(std::iter::once(first).chain(rest));
        words.find(|(_, bits)| *bits != 0).map(|(word, bits)| word * 64 + bits.trailing_zeros() as usize)
    }

    /// Returns the next slot to come up, and its tick: no flow is due before it.
    fn next_slot(&self) -> Option<(u64, usize)> {
        // A slot of a higher level whose time has come holds what may be due at any tick of it.
        let current = (1..LEVELS).rev().find(|level| self.is_busy(*level, Wheel::digit(self.now, *level)));
        if let Some(level) = current {
            return Some((self.now, level * SLOTS + Wheel::digit(self.now, level)));
        }
        (0..LEVELS).find_map(|level| {
            let own = Wheel::digit(self.now, level);
            let place = self.busy_from(level, own + usize::from(level > 0))?;
            let shift = BITS * level as u32;
            let tick = ((self.now >> shift) & !(SLOTS as u64 - 1) | place as u64) << shift;
            Some((tick, level * SLOTS + place))
        })
    }

    /// Returns the tick of the next flow to come up; it may come up before it is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.next_slot().map(|(tick, _)| tick)
    }

    /// Returns a flow that comes up at or before a tick. It stays in the wheel: the caller removes it, or places it
    /// again.
    pub(super) fn first(&mut self, tick: u64) -> Option<u32> {
        match self.next_slot() {
            Some((at, slot)) if at <= tick => {
                self.now = at;
                Some(self.slots[slot].first)
            }
            _ => {
                self.now = self.now.max(tick);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::blank;
    use super::*;
    use crate::rng::Rng;

    /// Takes everything that comes up until a tick, and places again what is not yet due.
    fn take(wheel: &mut Wheel, flows: &mut [Flow], due: &mut [Option<u64>], tick: u64) -> Vec<u32> {
        let mut taken = Vec::new();
        while let Some(entry) = wheel.first(tick) {
            wheel.unlink(flows, entry);
            match due[entry as usize] {
                Some(at) if at > tick => wheel.insert(flows, entry, at),
                _ => {
                    due[entry as usize] = None;
                    taken.push(entry);
                }
            }
        }
        taken
    }

    #[test]
    fn every_flow_comes_up_when_it_is_due_and_the_next_tick_is_never_late() {
        let mut rng = Rng::new(7);
        let (mut wheel, mut flows) = (Wheel::new(), vec![blank(); 64]);
        let mut due: Vec<Option<u64>> = vec![None; 64];
        let mut tick = 0;
        for _ in 0..20_000 {
            let entry = rng.below(64) as usize;
            // Distances of every level, and ticks where several digits turn at once.
            let reach = rng.below(34);
            let ahead = rng.below(1 << reach);
            let at = if rng.below(4) == 0 { (tick + ahead) | 0xffff } else { tick + ahead };
            if due[entry].is_some() {
                wheel.unlink(&mut flows, entry as u32);
            }
            if rng.below(5) == 0 {
                due[entry] = None;
            } else {
                wheel.insert(&mut flows, entry as u32, at);
                due[entry] = Some(at);
            }
            let soonest = due.iter().flatten().min().copied();
            assert!(wheel.next().is_some() == soonest.is_some() && wheel.next() <= soonest, "{soonest:?}");
            if rng.below(3) == 0 {
                let reach = rng.below(34);
                tick = match rng.below(3) {
                    0 => tick + rng.below(1 << reach),
                    1 => wheel.next().map_or(tick, |next| next.max(tick)),
                    _ => soonest.unwrap_or(tick).max(tick),
                };
                let want: Vec<u32> = (0..64u32).filter(|e| due[*e as usize].is_some_and(|at| at <= tick)).collect();
                let mut taken = take(&mut wheel, &mut flows, &mut due, tick);
                taken.sort_unstable();
                assert_eq!(taken, want, "tick {tick}");
                assert!(wheel.next().is_none_or(|next| next > tick));
            }
        }
    }
}
