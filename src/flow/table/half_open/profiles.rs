//! The timeouts of half-open flows by profile, which may be added while there are flows.

use super::{HalfOpen, MOST_TICKS, Queue, Waiting};
use crate::flow::settings::TimeoutState;

impl HalfOpen {
    /// Sets the timeouts of a profile, opening and reset, which is the next one or one that no flow has.
    pub(in super::super) fn set_profile(&mut self, number: u8, [opening, reset]: [u32; 2]) {
        let opening = self.queue(TimeoutState::Opening, opening.min(MOST_TICKS), None);
        let queues = [opening, self.queue(TimeoutState::Reset, reset.min(MOST_TICKS), Some(opening))];
        match self.of_profile.get_mut(usize::from(number)) {
            Some(place) => *place = queues,
            None => self.of_profile.push(queues),
        }
    }

    /// Returns the queue of flows that wait so long in a state, and makes it if there is none. `taken` is one that no
    /// profile has yet, but will.
    fn queue(&mut self, state: TimeoutState, ticks: u32, taken: Option<u16>) -> u16 {
        let is = |queue: &Waiting| (queue.state, queue.ticks) == (state, ticks);
        let place = self.queues.iter().position(is).unwrap_or_else(|| {
            let unused = |at: &usize| {
                let queue = &self.queues[*at];
                let is_taken = taken.is_some_and(|taken| usize::from(taken) == *at);
                !is_taken
                    && queue.flows.first == super::NONE
                    && !self.of_profile.iter().flatten().any(|own| usize::from(*own) == *at)
            };
            let free = (0..self.queues.len()).find(unused).unwrap_or(self.queues.len());
            let fresh = Waiting { state, ticks, flows: Queue::EMPTY };
            if free == self.queues.len() {
                self.queues.push(fresh);
                self.soonest.grow(self.queues.len());
            } else {
                self.queues[free] = fresh;
            }
            free
        });
        // At most 256 profiles with two timeouts each are in use.
        place as u16
    }
}
