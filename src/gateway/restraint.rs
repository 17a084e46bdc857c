//! Leaves the processor to flows that the kernel carries while only openers of connections wait.
//!
//! Those flows need no thread of this process, but the kernel, and both ends if they run here, need a processor. A flood of
//! SYNs keeps the loop busy without end, and on a processor that others want too it would take its full share from them.
//! Where nobody else wants the processor, openers are handled as fast as they come.

use super::tun::Tun;
use crate::time::{Duration, Instant};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

/// How long the loop's turns are watched before the thread's share of the processor is judged.
const WINDOW: Duration = Duration::from_millis(10);
/// With a smaller share, in percent, others want the processor.
const UNDISTURBED: u32 = 90;
/// How long that is believed.
const MEMORY: Duration = Duration::from_millis(200);
/// How many times as long as its turn took the openers wait.
const REST: u32 = 3;
/// The longest such wait: also for what is urgent but comes by other ways than the first queue.
const LONGEST: Duration = Duration::from_millis(2);

/// The thread's share of the processor.
#[derive(Debug, Default)]
pub(super) struct Restraint {
    /// The length of the turns watched, and how long the thread had a processor meanwhile.
    watched: Duration,
    ran: Duration,
    /// The thread's processor time when it was last looked at.
    before: Duration,
    /// Until when others are believed to want the processor.
    contended: Option<Instant>,
}

impl Restraint {
    /// Leaves the processor to others after a turn of the loop that left openers waiting, unless nobody else wants it. Ends
    /// when `first`, the queue of everything else, has packets.
    pub(super) fn rest(&mut self, first: &Tun, (began, now): (Instant, Instant)) {
        let pause = self.pause(now.since(began), thread_time(), now);
        if let Some(pause) = pause {
            let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
            let _ = poll(&mut [PollFd::new(first, PollFlags::IN)], Some(&pause));
        }
    }

    /// Returns how long openers wait after a turn of the length `turn`, at the processor time `time` of the thread.
    fn pause(&mut self, turn: Duration, time: Duration, now: Instant) -> Option<Duration> {
        // Turns that were not watched lie between, if it ran for longer than this one took.
        let ran = time.saturating_sub(self.before).min(turn);
        self.before = time;
        self.watched += turn;
        self.ran += ran;
        if self.watched >= WINDOW {
            if self.ran * 100 < self.watched * UNDISTURBED {
                self.contended = Some(now + MEMORY);
            }
            (self.watched, self.ran) = (Duration::ZERO, Duration::ZERO);
        }
        self.contended.is_some_and(|until| now < until).then(|| (ran * REST).min(LONGEST))
    }
}

/// Returns the processor time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has a thread work in turns of 1 ms, of which it has a processor for `share` percent; returns the pauses.
    fn pauses(restraint: &mut Restraint, now: &mut Instant, share: u32, turns: u32) -> Vec<Option<Duration>> {
        let turn = Duration::from_millis(1);
        (0..turns)
            .map(|_| {
                *now = *now + turn;
                let time = restraint.before + turn * share / 100;
                restraint.pause(turn, time, *now)
            })
            .collect()
    }

    #[test]
    fn openers_wait_only_where_others_want_the_processor() {
        let (mut restraint, mut now) = (Restraint::default(), Instant::from_nanos(1 << 40));
        assert!(pauses(&mut restraint, &mut now, 95, 100).iter().all(Option::is_none));
        let shared = pauses(&mut restraint, &mut now, 50, 20);
        assert!(shared[..9].iter().all(Option::is_none), "{shared:?}");
        assert!(shared[10..].iter().all(|pause| *pause == Some(Duration::from_micros(1500))), "{shared:?}");
        // It is forgotten after a while.
        let alone = pauses(&mut restraint, &mut now, 100, 400);
        assert_eq!(alone[0], Some(LONGEST));
        assert!(alone[210..].iter().all(Option::is_none));
    }

    #[test]
    fn work_between_two_watched_turns_does_not_count() {
        let (mut restraint, mut now) = (Restraint::default(), Instant::from_nanos(1 << 40));
        for _ in 0..50 {
            now = now + Duration::from_millis(1);
            let time = restraint.before + Duration::from_millis(7);
            assert_eq!(restraint.pause(Duration::from_millis(1), time, now), None);
        }
    }
}
