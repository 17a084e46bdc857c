//! The shard-independent state of a server: administrative state, health, signs from the traffic.
//!
//! It must not know services or the server's number of flows.

use super::settings::{Admin, Passive, ServerSettings};
use crate::time::{Duration, Instant};

/// Steps by which the weight rises during slow start; a full weight counts as this many units.
pub(super) const STEPS: u32 = 16;
/// How long a server's load report is valid.
pub(super) const REPORT_LIFE: Duration = Duration::from_secs(60);

/// A server's own report of its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    /// 0 (idle) to 100.
    pub(super) load: u8,
    /// When it arrived.
    pub(super) at: Instant,
}

/// Signs of trouble from the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Trouble {
    signs: u32,
    /// When the counted signs began.
    since: Instant,
    /// The end of the passive hold.
    held_until: Instant,
    /// Length of the last passive hold.
    last_hold: Duration,
    /// Whether the end of the hold has yet to be reported.
    is_held: bool,
}

/// A server's standing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Server {
    /// The weight: as configured until an operator changes it.
    pub(super) weight: u16,
    pub(super) admin: Admin,
    /// When draining ends by force.
    pub(super) deadline: Option<Instant>,
    /// Smoothed round trip of its probes.
    pub(super) latency: Option<Duration>,
    pub(super) report: Option<Report>,
    /// Whether it asks for no new flows.
    pub(super) maintenance: bool,
    /// When it last came back; none if it has never been away.
    pub(super) back_since: Option<Instant>,
    /// Changes whenever it stops taking flows: earlier sticky slots are void.
    pub(super) era: u32,
    trouble: Trouble,
}

impl Server {
    pub(super) fn new(settings: &ServerSettings) -> Self {
        Server {
            weight: settings.weight,
            admin: settings.admin,
            deadline: None,
            latency: None,
            report: None,
            maintenance: false,
            back_since: None,
            era: 0,
            trouble: Trouble::default(),
        }
    }

    /// Returns whether it may be given flows, as far as that does not depend on the service: health is not considered.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.admin == Admin::Enabled && self.weight > 0 && !self.maintenance && self.trouble.held_until <= now
    }

    /// Returns its effective weight in units of 1/16, at least 1 unless the weight is 0.
    pub(super) fn units(&self, now: Instant, slow_start: Duration) -> u32 {
        u32::from(self.weight) * self.step(now, slow_start)
    }

    /// Returns how many sixteenths of its weight are in effect.
    pub(super) fn step(&self, now: Instant, slow_start: Duration) -> u32 {
        let Some(since) = self.back_since.filter(|_| !slow_start.is_zero()) else { return STEPS };
        let step = now.since(since).as_nanos() * u128::from(STEPS) / slow_start.as_nanos();
        u32::try_from(step).unwrap_or(STEPS).clamp(1, STEPS)
    }

    /// Returns when something about it next changes by time alone.
    pub(super) fn next_change(&self, now: Instant, slow_start: Duration) -> Option<Instant> {
        let held = Some(self.trouble.held_until).filter(|_| self.trouble.is_held);
        let report = self.report.map(|report| report.at + REPORT_LIFE);
        let rising = self.back_since.filter(|_| self.step(now, slow_start) < STEPS).map(|since| {
            let nanos = slow_start.as_nanos();
            let passed = now.since(since).as_nanos() * u128::from(STEPS) / nanos;
            // Rounded up: a moment earlier, the previous step would still apply.
            let next = ((passed + 1) * nanos).div_ceil(u128::from(STEPS));
            since + Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX))
        });
        [held, report, rising, self.deadline].into_iter().flatten().min()
    }

    /// Records a sign of trouble; returns the length of the passive hold if this sign triggered one.
    pub(super) fn sign(&mut self, now: Instant, passive: &Passive) -> Option<Duration> {
        let trouble = &mut self.trouble;
        if trouble.held_until > now {
            return None;
        }
        if trouble.signs == 0 || now.since(trouble.since) > passive.within {
            (trouble.signs, trouble.since) = (0, now);
        }
        trouble.signs += 1;
        if trouble.signs < passive.failures {
            return None;
        }
        let calm = now.since(trouble.held_until) > passive.longest;
        let again = !trouble.last_hold.is_zero() && !calm;
        let hold = if again { trouble.last_hold * 2 } else { passive.hold }.min(passive.longest);
        *trouble = Trouble { signs: 0, since: now, held_until: now + hold, last_hold: hold, is_held: true };
        Some(hold)
    }

    /// Puts it on a passive hold that began elsewhere.
    pub(super) fn hold_until(&mut self, now: Instant, until: Instant) {
        self.trouble = Trouble { signs: 0, since: now, held_until: until, last_hold: until.since(now), is_held: true };
    }

    /// Returns the end of its passive hold.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        Some(self.trouble.held_until).filter(|until| *until > now)
    }

    /// Returns whether its passive hold has ended since the last call.
    pub(super) fn held_ended(&mut self, now: Instant) -> bool {
        let ended = self.trouble.is_held && self.trouble.held_until <= now;
        self.trouble.is_held &= !ended;
        ended
    }

    /// Records that it answered a new flow: earlier signs are void.
    pub(super) fn answered(&mut self) {
        self.trouble.signs = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PoolId;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn slow_start_rises_in_sixteen_steps_and_schedules_each() {
        let slow = Duration::from_secs(16);
        let mut server = Server::new(&ServerSettings { weight: 3, ..ServerSettings::new("s", PoolId(0)) });
        assert_eq!(
            (server.units(at(0), slow), server.next_change(at(0), slow)),
            (48, None),
            "never away: no slow start"
        );
        server.back_since = Some(at(1000));
        for (now, units, next) in [
            (1000, 3, Some(2000)),
            (1999, 3, Some(2000)),
            (2999, 3, Some(3000)),
            (3000, 6, Some(4000)),
            (16_500, 45, Some(17_000)),
            (17_000, 48, None),
        ] {
            assert_eq!(
                (server.units(at(now), slow), server.next_change(at(now), slow)),
                (units, next.map(at)),
                "{now}"
            );
        }
    }

    #[test]
    fn signs_within_the_window_start_ever_longer_passive_holds() {
        let s = Duration::from_secs;
        let passive = Passive { failures: 2, within: s(1), hold: s(4), longest: s(10) };
        let mut server = Server::new(&ServerSettings::new("s", PoolId(0)));
        assert_eq!(server.sign(at(0), &passive), None);
        assert_eq!(server.sign(at(1500), &passive), None, "the first sign has expired");
        assert_eq!(server.sign(at(1600), &passive), Some(s(4)));
        assert!(!server.is_open(at(5599)) && server.is_open(at(5600)));
        assert_eq!(server.next_change(at(2000), Duration::ZERO), Some(at(5600)));
        assert_eq!((server.sign(at(3000), &passive), server.held_until(at(3000))), (None, Some(at(5600))));
        for (now, want) in [(6000, s(8)), (15_000, s(10)), (26_000, s(10)), (50_000, s(4))] {
            assert_eq!(server.sign(at(now), &passive), None, "{now}");
            assert_eq!(server.sign(at(now), &passive), Some(want), "{now}");
        }
        assert_eq!(server.sign(at(60_000), &passive), None);
        server.answered();
        assert_eq!(server.sign(at(60_001), &passive), None);
    }
}
