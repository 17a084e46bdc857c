//! The links of doubly linked lists that run through the flows.

use super::entry::Flow;

/// No entry: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// A flow's neighbours in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Links {
    pub before: u32,
    pub behind: u32,
}

impl Links {
    pub(super) const NONE: Links = Links { before: NONE, behind: NONE };
}

/// The flows in the order in which they entered it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue {
    pub first: u32,
    last: u32,
    pub len: u32,
}

impl Queue {
    pub(super) const EMPTY: Queue = Queue { first: NONE, last: NONE, len: 0 };

    /// Appends a flow, by its links of the order of eviction.
    pub(super) fn push(&mut self, flows: &mut [Flow], entry: u32) {
        flows[entry as usize].order = Links { before: self.last, behind: NONE };
        match self.last {
            NONE => self.first = entry,
            last => flows[last as usize].order.behind = entry,
        }
        self.last = entry;
        self.len += 1;
    }

    /// Removes a flow.
    pub(super) fn unlink(&mut self, flows: &mut [Flow], entry: u32) {
        let Links { before, behind } = flows[entry as usize].order;
        match before {
            NONE => self.first = behind,
            before => flows[before as usize].order.behind = behind,
        }
        match behind {
            NONE => self.last = before,
            behind => flows[behind as usize].order.before = before,
        }
        self.len -= 1;
    }

    /// Returns its flows from the first.
    pub(super) fn iter<'f>(&self, flows: &'f [Flow]) -> impl Iterator<Item = (u32, &'f Flow)> {
        let mut next = self.first;
        std::iter::from_fn(move || {
            let entry = next;
            let flow = flows.get(entry as usize)?;
            next = flow.order.behind;
            Some((entry, flow))
        })
    }
}
