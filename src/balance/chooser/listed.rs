//! The sticky clients of a chooser as an operator sees and clears them.

use super::Chooser;
use crate::balance::standings::Standings;
use crate::flow::{ListedSlot, Lister, StickyMark};
use std::net::IpAddr;

impl Chooser {
    /// Begins a walk over the sticky clients, and returns its number; one for the same purpose that is under way ends.
    pub fn begin_sticky_list(&mut self, who: Lister) -> u64 {
        self.sticky.values_mut().for_each(|slots| slots.begin_list(who));
        self.lists[who as usize] += 1;
        self.lists[who as usize]
    }

    /// Returns this moment in the order in which sticky clients were given their servers.
    pub fn sticky_mark(&self) -> StickyMark {
        self.tickets.mark()
    }

    /// Passes up to `most` sticky slots of a group to `take` that are valid; returns how many it looked at, none at the
    /// end; nothing if another walk for the same purpose has begun since.
    pub fn list_sticky(
        &mut self,
        standings: &Standings,
        (who, list, group): (Lister, u64, u32),
        most: usize,
        mut take: impl FnMut(ListedSlot),
    ) -> Option<usize> {
        if self.lists[who as usize] != list {
            return None;
        }
        let Some(slots) = self.sticky.get_mut(&group) else { return Some(0) };
        Some(slots.list(who, most, |listed| {
            if standings.server(listed.slot.server).era == listed.slot.era {
                take(listed);
            }
        }))
    }

    /// Forgets a sticky client of a group; returns whether it was known.
    pub fn clear_sticky(&mut self, group: u32, client: IpAddr, proven: bool) -> bool {
        self.sticky.get_mut(&group).is_some_and(|slots| slots.clear(client, proven))
    }
}
