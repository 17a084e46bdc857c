//! What became of all probes since the start, by their type.

use super::settings::ProbeKind;
use super::why::Failure;
use crate::histogram::Histogram;
use crate::time::Duration;

const MICRO: u64 = 1000;
const MILLI: u64 = 1000 * MICRO;

/// Bounds of latencies, in nanoseconds: 0.1 ms to 10 s.
const LATENCIES: [u64; 16] = [
    100 * MICRO,
    250 * MICRO,
    500 * MICRO,
    MILLI,
    2500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    1000 * MILLI,
    2500 * MILLI,
    5000 * MILLI,
    10_000 * MILLI,
];

/// The results of all probes of a type since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTotals {
    /// The type.
    pub kind: ProbeKind,
    /// Probes that failed.
    pub failed: u64,
    /// Probes that were answered as expected.
    pub answered: u64,
    /// The latencies of those of them for which it is known, in nanoseconds.
    pub latency: Histogram,
}

/// The results of all probes.
#[derive(Debug, Clone)]
pub(super) struct Totals([ProbeTotals; ProbeKind::ALL.len()]);

impl Totals {
    pub(super) fn new() -> Totals {
        let none = |kind| ProbeTotals { kind, failed: 0, answered: 0, latency: Histogram::new(&LATENCIES) };
        Totals(ProbeKind::ALL.map(none))
    }

    pub(super) fn count(&mut self, kind: ProbeKind, result: &Result<Option<Duration>, Failure>) {
        let totals = &mut self.0[kind as usize];
        match result {
            Ok(latency) => {
                totals.answered += 1;
                if let Some(latency) = latency {
                    totals.latency.add(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
                }
            }
            Err(_) => totals.failed += 1,
        }
    }

    pub(super) fn all(&self) -> &[ProbeTotals] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_count_for_their_type() {
        let mut totals = Totals::new();
        totals.count(ProbeKind::Tcp, &Ok(Some(Duration::from_millis(3))));
        totals.count(ProbeKind::Tcp, &Ok(None));
        totals.count(ProbeKind::Tcp, &Err(Failure::Refused));
        for of in totals.all() {
            let want = if of.kind == ProbeKind::Tcp { (2, 1, 1, 3_000_000) } else { (0, 0, 0, 0) };
            assert_eq!((of.answered, of.failed, of.latency.count(), of.latency.sum()), want);
        }
        assert!(totals.all().iter().enumerate().all(|(place, of)| of.kind as usize == place));
    }
}
