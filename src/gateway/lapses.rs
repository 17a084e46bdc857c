//! When the gateway was blind: it did not run, or its device lost packets before they were read.
//!
//! The engine is told, because an answer that was lost here says nothing about a server.

use super::netlink::Netlink;
use crate::engine::Engine;
use crate::time::{Duration, Instant};
use rustix::time::{ClockId, clock_gettime};

/// How much longer than asked for the loop may sleep, and how long a turn of it may take. The shortest timeout of a probe
/// is 10 ms, but a delay of this size is usual on a busy machine, while answers wait in the queue and are read in time.
const LATE: Duration = Duration::from_millis(100);
/// From this on a pause is worth a warning.
const LONG: Duration = Duration::from_secs(1);
/// The shortest interval between two looks at the device's counter. One takes 10 to 20 us.
const LOOK: Duration = Duration::from_millis(50);
/// The shortest interval between two log lines about lost packets.
const PAUSE: Duration = Duration::from_secs(10);

/// Watches for pauses and lost packets.
#[derive(Debug)]
pub(super) struct Lapses {
    /// None if the counter cannot be read.
    netlink: Option<Netlink>,
    device: String,
    /// The device's counter when it was opened; a persistent device does not begin at zero.
    before: u64,
    /// What devices of that name lost that have been deleted since.
    earlier: u64,
    lost: u64,
    looked: Instant,
    told: u64,
    rest: Instant,
    /// When the last sleep ended.
    woke: Instant,
    /// How long the machine was suspended since it started.
    suspended: Duration,
}

impl Lapses {
    /// Begins to watch a device in the network namespace of the calling thread.
    pub(super) fn new(device: &str) -> Lapses {
        let netlink = Netlink::open().inspect_err(|e| log::warn!("packets lost in {device} are not counted: {e}")).ok();
        let mut lapses = Lapses {
            netlink,
            device: device.into(),
            before: 0,
            earlier: 0,
            lost: 0,
            looked: Instant::ZERO,
            told: 0,
            rest: Instant::ZERO,
            woke: Instant::ZERO,
            suspended: suspended(),
        };
        lapses.before = lapses.counter().unwrap_or(0);
        lapses
    }

    /// Begins with the first turn of the loop.
    pub(super) fn start(&mut self, now: Instant) {
        (self.woke, self.suspended) = (now, suspended());
    }

    /// Notes that the loop slept, for at most `most` if that is not none; tells the engine if it was away for longer.
    pub(super) fn slept(&mut self, engine: &mut Engine, from: Instant, most: Option<Duration>, until: Instant) {
        let suspended = suspended();
        let gap = gap(self.woke, from, most, until, suspended.saturating_sub(self.suspended));
        (self.woke, self.suspended) = (until, suspended);
        let Some((since, lasted)) = gap else { return };
        engine.lapse(since, until);
        let level = if lasted >= LONG { log::Level::Warn } else { log::Level::Debug };
        log::log!(
            level,
            "this process did not run for {:.1} s (stopped, suspended with the machine, or short of processor time): probes \
             of that time are not judged",
            lasted.as_secs_f64()
        );
    }

    /// Begins again with a device that was opened anew; what the old one lost still counts.
    pub(super) fn reopened(&mut self) {
        self.earlier = self.lost;
        self.before = self.counter().unwrap_or(0);
    }

    /// Looks how many packets the device lost, if the last look is not too fresh; tells the engine if it lost any since.
    /// Returns how many it lost since it was opened.
    pub(super) fn look(&mut self, engine: &mut Engine, now: Instant) -> u64 {
        if now.since(self.looked) >= LOOK
            && let Some(counter) = self.counter()
        {
            let lost = self.earlier + counter.saturating_sub(self.before);
            if lost > self.lost {
                engine.lapse(self.looked, now);
            }
            (self.lost, self.looked) = (lost, now);
            self.tell(now);
        }
        self.lost
    }

    fn tell(&mut self, now: Instant) {
        let more = self.lost - self.told.min(self.lost);
        if more > 0 && now >= self.rest {
            log::warn!(
                "{}: {more} packets came faster than they were read and were lost in its queues since the last such line; \
                 `eqctl counters` counts them",
                self.device
            );
            (self.told, self.rest) = (self.lost, now + PAUSE);
        }
    }

    fn counter(&mut self) -> Option<u64> {
        let link = self.netlink.as_mut()?.link(&self.device);
        link.ok().flatten().map(|link| link.lost)
    }
}

/// Returns since when and for how long the loop was away, if for too long: its turn from `woke` to `from`, a sleep that was
/// to end `most` later at the latest and ended at `until`, and the time that the machine was suspended, which the clock of
/// the loop does not count.
fn gap(
    woke: Instant,
    from: Instant,
    most: Option<Duration>,
    until: Instant,
    suspended: Duration,
) -> Option<(Instant, Duration)> {
    let turn = from.since(woke);
    let late = most.map_or(Duration::ZERO, |most| until.since(from).saturating_sub(most));
    let lasted = suspended + [turn, late].into_iter().filter(|span| *span > LATE).sum::<Duration>();
    let since = if turn > LATE { woke } else { from };
    (lasted > LATE).then_some((since, lasted))
}

/// Returns how long the machine was suspended since it started: CLOCK_BOOTTIME counts it, CLOCK_MONOTONIC does not
/// (clock_gettime(2)).
fn suspended() -> Duration {
    let [all, awake] = [ClockId::Boottime, ClockId::Monotonic].map(|clock| {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
    });
    all.saturating_sub(awake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_longer_than_it_should_is_a_gap() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let ms = Duration::from_millis;
        let none = Duration::ZERO;
        for (turn, slept, most, suspended, want) in [
            // A turn of 1 ms, a sleep that nothing but a packet was to end, and one that ended on time.
            (1, 60_000, None, none, None),
            (1, 500, Some(ms(500)), none, None),
            (1, 599, Some(ms(500)), none, None),
            (1, 3_500, Some(ms(500)), none, Some((at(1_001), ms(3_000)))),
            (1, 150, Some(none), none, Some((at(1_001), ms(150)))),
            (99, 0, Some(none), none, None),
            (250, 5, Some(ms(500)), none, Some((at(1_000), ms(250)))),
            (250, 900, Some(ms(500)), none, Some((at(1_000), ms(650)))),
            // Packets ended the sleep early, but the machine was suspended meanwhile.
            (1, 20, Some(ms(500)), ms(90_000), Some((at(1_001), ms(90_000)))),
            (1, 20, Some(ms(500)), ms(2), None),
        ] {
            let (woke, from) = (at(1_000), at(1_000 + turn));
            assert_eq!(gap(woke, from, most, from + ms(slept), suspended), want, "{turn} {slept} {most:?}");
        }
    }
}
