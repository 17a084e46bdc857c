//! When whose turn is: one wake-up an ID, a heap of them, and numbers from a seed.
//!
//! It knows nothing of what is woken.

use crate::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Wake-ups, at most one an ID; those that were replaced stay in the heap until they come up or it is swept.
#[derive(Debug)]
pub(super) struct Schedule {
    heap: BinaryHeap<Reverse<(Instant, u32)>>,
    wakes: Vec<Instant>,
}

impl Schedule {
    /// For IDs under `ids`, none of which has a wake-up.
    pub fn new(ids: usize) -> Self {
        Schedule { heap: BinaryHeap::new(), wakes: vec![Instant::FAR; ids] }
    }

    /// Sets an ID's wake-up; [`Instant::FAR`]: none.
    pub fn set(&mut self, id: u32, at: Instant) {
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

    /// The next wake-up.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the ID whose wake-up is due, the earliest first and the lowest ID of those of one time.
    pub fn pop(&mut self, now: Instant) -> Option<u32> {
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

/// Numbers from a seed: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number under `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A span under `most`.
    pub fn part(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// `interval`, longer or shorter by up to `percent`.
    pub fn jittered(&mut self, interval: Duration, percent: u8) -> Duration {
        let stray = interval / 100 * u32::from(percent.min(50));
        interval - stray + self.part(stray * 2)
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

    #[test]
    fn jitter_stays_within_its_bounds_and_strays() {
        let mut numbers = Numbers::new(1);
        let spans: Vec<_> = (0..1000).map(|_| numbers.jittered(Duration::from_secs(10), 10)).collect();
        assert!(spans.iter().all(|s| (Duration::from_secs(9)..Duration::from_secs(11)).contains(s)));
        assert!(spans.iter().any(|s| *s < Duration::from_millis(9200)));
        assert!(spans.iter().any(|s| *s > Duration::from_millis(10_800)));
        assert_eq!(numbers.jittered(Duration::from_secs(10), 0), Duration::from_secs(10));
    }
}
