//! One list a timeout class, in the order of the last touch: within a class that is the order of
//! expiry, so the next to expire and the next to evict are always the first.

use super::entry::{Flow, NONE};
use super::settings::Class;
use crate::time::Instant;

/// First and last entry of a class, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub first: u32,
    pub last: u32,
    pub len: u32,
}

/// The lists of all classes.
#[derive(Debug)]
pub(super) struct Lists([List; Class::ALL.len()]);

impl Lists {
    pub fn new() -> Self {
        Lists([List { first: NONE, last: NONE, len: 0 }; Class::ALL.len()])
    }

    pub fn of(&self, class: Class) -> &List {
        &self.0[class as usize]
    }

    /// Appends an entry to its class's list and notes when it was touched.
    pub fn push(&mut self, flows: &mut [Flow], entry: u32, now: Instant) {
        let class = flows[entry as usize].class;
        let list = &mut self.0[class as usize];
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
    }

    /// Takes an entry out of its class's list.
    pub fn unlink(&mut self, flows: &mut [Flow], entry: u32) {
        let Flow { class, before, behind, .. } = flows[entry as usize];
        let list = &mut self.0[class as usize];
        match before {
            NONE => list.first = behind,
            before => flows[before as usize].behind = behind,
        }
        match behind {
            NONE => list.last = before,
            behind => flows[behind as usize].before = before,
        }
        list.len -= 1;
    }
}
