//! Which ID is due when: one wake-up per ID, and a heap of them. It must not know what is woken.

use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Wake-ups, at most one per ID; replaced ones stay in the heap until they come up or are swept out.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Reverse<(Instant, u32)>>,
    wakes: Vec<Instant>,
}

impl Schedule {
    /// Makes a schedule for IDs below `ids`, without any wake-up.
    pub(crate) fn new(ids: usize) -> Self {
        Schedule { heap: BinaryHeap::new(), wakes: vec![Instant::FAR; ids] }
    }

    /// Sets an ID's wake-up; [`Instant::FAR`] clears it.
    pub(crate) fn set(&mut self, id: u32, at: Instant) {
        let Some(wake) = self.wakes.get_mut(id as usize) else { return };
        *wake = at;
        if at != Instant::FAR {
            self.heap.push(Reverse((at, id)));
        }
        if self.heap.len() > 64 + 4 * self.wakes.len() {
            let wakes = self.wakes.iter().enumerate().filter(|(_, at)| **at != Instant::FAR);
            self.heap = wakes.map(|(id, at)| Reverse((*at, id as u32))).collect();
        }
        self.drop_replaced();
    }

    /// Returns the time of the next wake-up.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes and returns the ID whose wake-up is due: the earliest, and among equal times the lowest ID.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<u32> {
        let Reverse((at, id)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        self.wakes[id as usize] = Instant::FAR;
        self.drop_replaced();
        Some(id)
    }

    fn drop_replaced(&mut self) {
        while let Some(Reverse((at, id))) = self.heap.peek() {
            if self.wakes[*id as usize] == *at {
                return;
            }
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn wake_ups_come_in_order_and_a_replaced_one_never() {
        let mut schedule = Schedule::new(3);
        schedule.set(0, at(30));
        schedule.set(1, at(10));
        schedule.set(2, at(10));
        schedule.set(1, at(20));
        assert_eq!(schedule.next(), Some(at(10)));
        assert_eq!(schedule.pop(at(9)), None);
        assert_eq!(schedule.pop(at(99)), Some(2));
        assert_eq!(schedule.next(), Some(at(20)));
        schedule.set(0, Instant::FAR);
        assert_eq!(schedule.pop(at(99)), Some(1));
        assert_eq!((schedule.pop(at(99)), schedule.next()), (None, None));
    }

    #[test]
    fn replaced_wake_ups_do_not_pile_up() {
        let mut schedule = Schedule::new(2);
        schedule.set(0, at(0));
        for i in 1..10_000 {
            schedule.set(1, at(i));
        }
        assert!(schedule.heap.len() <= 64 + 8 + 1, "{}", schedule.heap.len());
        assert_eq!((schedule.pop(at(20_000)), schedule.pop(at(20_000))), (Some(0), Some(1)));
    }
}
