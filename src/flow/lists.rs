//! One list a timeout profile and state, in the order of the last touch: within a list that is the order of
//! expiry, so the next to expire and the next to evict are always among the first of the lists.

use super::entry::{Flow, NONE};
use super::settings::TimeoutState;
use crate::time::Instant;

/// First and last entry of a list, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub first: u32,
    pub last: u32,
    pub len: u32,
}

/// The lists of all profiles and classes.
#[derive(Debug)]
pub(super) struct Lists {
    lists: Box<[[List; TimeoutState::ALL.len()]]>,
    /// Entries of each profile.
    lens: Box<[u32]>,
    /// A bit for each profile that has entries.
    busy: [u64; 4],
}

impl Lists {
    /// The lists of so many profiles, 1 to 256.
    pub(super) fn new(profiles: usize) -> Self {
        let empty = [List { first: NONE, last: NONE, len: 0 }; TimeoutState::ALL.len()];
        Lists { lists: vec![empty; profiles].into(), lens: vec![0; profiles].into(), busy: [0; 4] }
    }

    /// The profiles that have entries, in their order.
    #[inline]
    fn busy(&self) -> impl Iterator<Item = usize> + '_ {
        let mut word = 0;
        let mut bits = self.busy[0];
        std::iter::from_fn(move || {
            while bits == 0 {
                word += 1;
                bits = *self.busy.get(word)?;
            }
            let profile = word * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            Some(profile)
        })
    }

    /// The lists of one state in all profiles that have entries, in the order of the profiles.
    pub(super) fn of(&self, state: TimeoutState) -> impl Iterator<Item = &List> + '_ {
        self.busy().map(move |profile| &self.lists[profile][state as usize])
    }

    /// All lists of all profiles that have entries, with their state, in the order of the profiles.
    #[inline]
    pub(super) fn all(&self) -> impl Iterator<Item = (TimeoutState, &List)> + '_ {
        self.busy().flat_map(|profile| TimeoutState::ALL.into_iter().zip(&self.lists[profile]))
    }

    /// Appends an entry to its list and notes when it was touched.
    pub(super) fn push(&mut self, flows: &mut [Flow], entry: u32, now: Instant) {
        let Flow { state, profile, .. } = flows[entry as usize];
        let list = &mut self.lists[profile as usize][state as usize];
        let last = list.last;
        let flow = &mut flows[entry as usize];
        (flow.touched, flow.before, flow.behind) = (now, last, NONE);
        if last == NONE {
            list.first = entry;
        } else {
            flows[last as usize].behind = entry;
        }
        list.last = entry;
        list.len += 1;
        self.lens[profile as usize] += 1;
        self.busy[profile as usize / 64] |= 1 << (profile % 64);
    }

    /// Takes an entry out of its list.
    pub(super) fn unlink(&mut self, flows: &mut [Flow], entry: u32) {
        let Flow { state, profile, before, behind, .. } = flows[entry as usize];
        let list = &mut self.lists[profile as usize][state as usize];
        match before {
            NONE => list.first = behind,
            before => flows[before as usize].behind = behind,
        }
        match behind {
            NONE => list.last = before,
            behind => flows[behind as usize].before = before,
        }
        list.len -= 1;
        self.lens[profile as usize] -= 1;
        if self.lens[profile as usize] == 0 {
            self.busy[profile as usize / 64] &= !(1 << (profile % 64));
        }
    }
}
