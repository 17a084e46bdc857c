//! Which flows have changed since somebody last asked, for who keeps a copy of them elsewhere. Half-open flows do not count.

use super::{HALF_OPEN, Table, TableTooBig, reserved};
use std::collections::TryReserveError;

/// One bit per slot. Nothing allocates after the start.
#[derive(Debug)]
pub(super) struct Changed {
    /// Flows that were created or ended, or changed in more than their numbers.
    changed: Vec<u64>,
    /// Flows with packets: their counters, times and sequence numbers are others.
    touched: Vec<u64>,
}

/// Who keeps a copy, and takes changes independently of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watcher {
    /// A process that takes over from this one.
    Successor,
    /// The other gateway of a pair.
    Peer,
}

impl Watcher {
    pub(in crate::flow) const COUNT: usize = 2;
}

/// A slot that has changed since somebody last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The slot, in which there may be another flow by now, or none.
    pub index: u32,
    /// Whether more has changed than what packets of an established flow change: counters, times and sequence numbers.
    pub is_more: bool,
}

const BITS: usize = u64::BITS as usize;

impl Changed {
    #[inline]
    fn note(bits: &mut [u64], index: u32) {
        if let Some(word) = bits.get_mut(index as usize / BITS) {
            *word |= 1 << (index as usize % BITS);
        }
    }
}

impl Table {
    /// Begins to note which flows change, or forgets all that has been noted.
    ///
    /// # Errors
    /// If the system refuses the memory: two bits per slot.
    pub fn note_changes(&mut self, who: Watcher) -> Result<(), TableTooBig> {
        let words = (self.max as usize).div_ceil(BITS);
        let none = || -> Result<Vec<u64>, _> {
            let mut bits = reserved(words)?;
            bits.resize(words, 0);
            Ok(bits)
        };
        let max_half_open = self.half_open.max();
        let too_big = |_: TryReserveError| TableTooBig { max_flows: self.max, max_half_open };
        self.changed[who as usize] =
            Some(Changed { changed: none().map_err(too_big)?, touched: none().map_err(too_big)? });
        Ok(())
    }

    /// Notes changes no longer.
    pub fn ignore_changes(&mut self, who: Watcher) {
        self.changed[who as usize] = None;
    }

    /// Returns whether changes are noted.
    pub fn notes_changes(&self, who: Watcher) -> bool {
        self.changed[who as usize].is_some()
    }

    /// Passes up to `most` slots from `from` on that have changed to `take`, which do not count as changed any more; returns
    /// the slot to go on from, or none at the end. It looks at 64 slots in a few nanoseconds.
    pub fn take_changes(&mut self, who: Watcher, from: u32, most: usize, mut take: impl FnMut(Change)) -> Option<u32> {
        let mut changes = self.changed[who as usize].take()?;
        let mut taken = 0;
        let mut next = None;
        let first = from as usize / BITS;
        'words: for at in first..changes.changed.len() {
            let below = if at == first { (1 << (from as usize % BITS)) - 1 } else { 0 };
            loop {
                let bits = (changes.changed[at] | changes.touched[at]) & !below;
                if bits == 0 {
                    break;
                }
                let index = (at * BITS) as u32 + bits.trailing_zeros();
                if taken == most {
                    next = Some(index);
                    break 'words;
                }
                let bit = bits & bits.wrapping_neg();
                let is_more = changes.changed[at] & bit != 0;
                changes.changed[at] &= !bit;
                changes.touched[at] &= !bit;
                taken += 1;
                take(Change { index, is_more });
            }
        }
        self.changed[who as usize] = Some(changes);
        next
    }

    #[inline]
    pub(super) fn note_changed(&mut self, index: u32) {
        if index & HALF_OPEN == 0 {
            self.changed.iter_mut().flatten().for_each(|changes| Changed::note(&mut changes.changed, index));
        }
    }

    #[inline]
    pub(super) fn note_touched(&mut self, index: u32) {
        self.changed.iter_mut().flatten().for_each(|changes| Changed::note(&mut changes.touched, index));
    }

    /// Forgets that a slot has changed: whoever wants to know has changed it.
    pub fn forget_change(&mut self, who: Watcher, index: u32) {
        let Some(changes) = &mut self.changed[who as usize] else { return };
        for bits in [&mut changes.changed, &mut changes.touched] {
            if let Some(word) = bits.get_mut(index as usize / BITS) {
                *word &= !(1 << (index as usize % BITS));
            }
        }
    }

    /// Returns how many slots have been used so far.
    pub fn used_slots(&self) -> u32 {
        self.flows.len() as u32
    }

    /// Returns whether a slot is of a flow now. One that was never used is of none.
    pub fn is_used(&self, index: u32) -> bool {
        self.flows.get(index as usize).is_some_and(super::Flow::is_used)
    }
}
