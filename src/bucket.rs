//! A token bucket as a value: so many per second, and as many at once after a quiet second.
//!
//! It is the leaky bucket as a meter (ITU-T I.371, annex A: the virtual scheduling algorithm), so its whole
//! state is one time and a copy of it costs nothing. It must not know what is limited.

use crate::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;

/// A bucket that is full at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bucket {
    /// When everything taken so far has leaked out: at most one second ahead.
    empty_at: Instant,
}

impl Bucket {
    /// Returns the bucket with one more token taken, or none where it holds none. `rate` is in tokens per second;
    /// `reserved` percent of the bucket are not given out.
    #[must_use]
    pub(crate) fn take(self, now: Instant, rate: u32, reserved: u64) -> Option<Bucket> {
        let step = SECOND / u64::from(rate.max(1));
        let ahead = u64::try_from(self.empty_at.since(now).as_nanos()).unwrap_or(u64::MAX);
        if ahead > 0 && ahead.saturating_add(step) > SECOND / 100 * (100 - reserved) {
            return None;
        }
        Some(Bucket { empty_at: self.empty_at.max(now) + Duration::from_nanos(step) })
    }

    /// Returns whether everything taken has leaked out: it equals a new bucket.
    pub(crate) fn is_full(self, now: Instant) -> bool {
        self.empty_at <= now
    }

    /// Returns how many tokens it holds, rounded down, of `rate` at most.
    pub(crate) fn left(self, now: Instant, rate: u32) -> u32 {
        let step = SECOND / u64::from(rate.max(1));
        let ahead = u64::try_from(self.empty_at.since(now).as_nanos()).unwrap_or(u64::MAX);
        u32::try_from(SECOND.saturating_sub(ahead) / step).unwrap_or(u32::MAX).min(rate.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn took(bucket: &mut Bucket, now: Instant, rate: u32, reserved: u64) -> bool {
        bucket.take(now, rate, reserved).inspect(|next| *bucket = *next).is_some()
    }

    #[test]
    fn it_gives_a_seconds_worth_at_once_and_its_rate_ever_after() {
        let mut bucket = Bucket::default();
        let mut taken = |ms| (0..20).filter(|_| took(&mut bucket, at(ms), 10, 0)).count();
        assert_eq!([taken(0), taken(99), taken(100), taken(550), taken(5000)], [10, 0, 1, 4, 10]);
        let mut slow = Bucket::default();
        assert_eq!([0, 999, 1000].map(|ms| took(&mut slow, at(ms), 1, 0)), [true, false, true]);
    }

    #[test]
    fn what_is_reserved_is_not_given_out() {
        let mut bucket = Bucket::default();
        assert_eq!((0..20).filter(|_| took(&mut bucket, at(0), 10, 20)).count(), 8);
        assert_eq!(bucket.left(at(0), 10), 2);
        assert_eq!((0..20).filter(|_| took(&mut bucket, at(0), 10, 0)).count(), 2);
        assert_eq!((bucket.left(at(0), 10), bucket.left(at(150), 10), bucket.left(at(2000), 10)), (0, 1, 10));
    }

    #[test]
    fn at_the_end_of_time_nothing_overflows() {
        let mut bucket = Bucket::default();
        for _ in 0..20 {
            took(&mut bucket, Instant::FAR, 10, 0);
        }
        assert_eq!(bucket.empty_at, Instant::FAR);
    }
}
