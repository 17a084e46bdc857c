//! Random variation of probe times, so that probes do not synchronize.

use crate::rng::Rng;
use crate::time::Duration;

/// Returns a random span less than `most`.
pub(super) fn part(rng: &mut Rng, most: Duration) -> Duration {
    Duration::from_nanos(rng.below(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
}

/// Returns `interval`, varied by up to `percent` in either direction.
pub(super) fn jittered(rng: &mut Rng, interval: Duration, percent: u8) -> Duration {
    let stray = interval / 100 * u32::from(percent.min(50));
    interval - stray + part(rng, stray * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_uses_its_range_and_stays_within_it() {
        let mut numbers = Rng::new(1);
        let spans: Vec<_> = (0..1000).map(|_| jittered(&mut numbers, Duration::from_secs(10), 10)).collect();
        assert!(spans.iter().all(|s| (Duration::from_secs(9)..Duration::from_secs(11)).contains(s)));
        assert!(spans.iter().any(|s| *s < Duration::from_millis(9200)));
        assert!(spans.iter().any(|s| *s > Duration::from_millis(10_800)));
        assert_eq!(jittered(&mut numbers, Duration::from_secs(10), 0), Duration::from_secs(10));
    }
}
