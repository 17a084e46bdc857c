//! The links of doubly linked lists that run through flows. It must not know flows: the caller says where an item has
//! its links.

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

/// The items in the order in which they entered it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue {
    pub first: u32,
    last: u32,
    pub len: u32,
}

impl Queue {
    pub(super) const EMPTY: Queue = Queue { first: NONE, last: NONE, len: 0 };

    /// Appends an item; `links` returns where an item has those of this list.
    pub(super) fn push<T>(&mut self, items: &mut [T], links: impl Fn(&mut T) -> &mut Links, entry: u32) {
        *links(&mut items[entry as usize]) = Links { before: self.last, behind: NONE };
        match self.last {
            NONE => self.first = entry,
            last => links(&mut items[last as usize]).behind = entry,
        }
        self.last = entry;
        self.len += 1;
    }

    /// Removes an item.
    pub(super) fn unlink<T>(&mut self, items: &mut [T], links: impl Fn(&mut T) -> &mut Links, entry: u32) {
        let Links { before, behind } = *links(&mut items[entry as usize]);
        match before {
            NONE => self.first = behind,
            before => links(&mut items[before as usize]).behind = behind,
        }
        match behind {
            NONE => self.last = before,
            behind => links(&mut items[behind as usize]).before = before,
        }
        self.len -= 1;
    }

    /// Returns its items from the first.
    pub(super) fn iter<'i, T>(
        &self,
        items: &'i [T],
        links: impl Fn(&T) -> &Links,
    ) -> impl Iterator<Item = (u32, &'i T)> {
        let mut next = self.first;
        std::iter::from_fn(move || {
            let entry = next;
            let item = items.get(entry as usize)?;
            next = links(item).behind;
            Some((entry, item))
        })
    }
}
