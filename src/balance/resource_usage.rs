//! Resource usage: to the server that reports the least load. A load is relative to what the server can
//! bear, so weights do not count, but for 0 and for the part of it that slow start allows. Between reports
//! the balancer adds what the flows given since then are likely to cost. Until every candidate has
//! reported, round robin.

use super::least_connections::share;
use super::round_robin::RoundRobin;
use super::tournament::Tournament;

/// A server's last report, and what has come to it since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// What it reported: 0 (idle) to 100.
    pub(super) load: u8,
    /// Flows that it had then.
    pub(super) flows_then: u32,
    /// Flows given to it since then.
    pub(super) given_since: u32,
}

/// What a flow is taken to cost at least and at most, in thousandths of a percent of load.
const COST: std::ops::RangeInclusive<u64> = 10..=5_000;

/// Loads, and the part of a server that slow start allows as its weight.
#[derive(Debug, Clone)]
pub(super) struct ResourceUsage {
    loads: Tournament,
    weights: Vec<u32>,
    has_reported: Vec<bool>,
    /// Candidates without a report that counts.
    silent: usize,
    until_all_have_reported: RoundRobin,
}

impl ResourceUsage {
    /// Makes one over `places`; the server at `first` comes first among equals.
    pub(super) fn new(places: usize, first: usize) -> Self {
        ResourceUsage {
            loads: Tournament::new(places, first),
            weights: vec![0; places],
            has_reported: vec![false; places],
            silent: 0,
            until_all_have_reported: RoundRobin::new(places, first),
        }
    }

    /// Takes new weights; 0 is no candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32], report: impl Fn(usize) -> Option<Usage>) {
        self.weights.copy_from_slice(weights);
        self.until_all_have_reported.set_weights(weights);
        self.silent = 0;
        for (place, weight) in weights.iter().enumerate() {
            self.has_reported[place] = false;
            self.silent += usize::from(*weight > 0);
            self.changed(place, report(place));
        }
    }

    /// Takes note of a server's last report that counts, and of the flows it has been given since.
    pub(super) fn changed(&mut self, place: usize, report: Option<Usage>) {
        let weight = self.weights[place];
        if weight > 0 {
            self.silent -= usize::from(report.is_some() && !self.has_reported[place]);
            self.silent += usize::from(report.is_none() && self.has_reported[place]);
        }
        self.has_reported[place] = report.is_some();
        let load = report.filter(|_| weight > 0).map(|report| share(estimate(&report) + 1, weight));
        self.loads.set(place, load);
    }

    /// Returns the server with the least.
    pub(super) fn propose(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        if self.silent > 0 { self.until_all_have_reported.propose(refuses) } else { self.loads.least(refuses) }
    }

    /// Notes that a proposal was picked: it comes last among equals.
    pub(super) fn picked(&mut self, place: usize) {
        if self.silent > 0 { self.until_all_have_reported.picked(place) } else { self.loads.picked(place) }
    }

    /// Returns the round robin that picks while a candidate has not reported; none once all have.
    pub(super) fn waits_with(&self) -> Option<&RoundRobin> {
        (self.silent > 0).then_some(&self.until_all_have_reported)
    }
}

/// The load that a server has by now, in thousandths of a percent: a flow costs what the flows of the last report cost.
pub(super) fn estimate(report: &Usage) -> u64 {
    let load = u64::from(report.load) * 1000;
    let cost = (load / u64::from(report.flows_then.max(1))).clamp(*COST.start(), *COST.end());
    load + cost * u64::from(report.given_since)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ResourceUsage {
        fn pick(&mut self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
            self.propose(refuses).inspect(|place| self.picked(*place))
        }
    }

    fn report(load: u8, flows_then: u32, given_since: u32) -> Option<Usage> {
        Some(Usage { load, flows_then, given_since })
    }

    #[test]
    fn round_robin_until_all_have_reported_then_the_least_loaded() {
        let mut usage = ResourceUsage::new(3, 0);
        usage.set_weights(&[1, 1, 0], |_| None);
        usage.changed(0, report(90, 10, 0));
        let picks: Vec<_> = (0..4).map(|_| usage.pick(&|_| false).unwrap()).collect();
        assert_eq!(picks, [0, 1, 0, 1]);
        usage.changed(1, report(20, 10, 0));
        assert_eq!(usage.pick(&|_| false), Some(1));
        assert_eq!(usage.pick(&|place| place == 1), Some(0));
        // A report that is too old is none.
        usage.changed(0, None);
        let picks: Vec<_> = (0..2).map(|_| usage.pick(&|_| false).unwrap()).collect();
        assert_eq!(picks, [0, 1]);
    }

    #[test]
    fn flows_given_since_the_report_are_added_by_estimate() {
        // 20 flows made 20 %: each is taken as 1 %. With 10 more it is as loaded as the other, at 30 %.
        let mut usage = ResourceUsage::new(2, 0);
        usage.set_weights(&[1, 1], |place| [report(20, 20, 0), report(30, 30, 0)][place]);
        for given in 1..=10 {
            assert_eq!(usage.pick(&|_| false), Some(0), "{given}");
            usage.changed(0, report(20, 20, given));
        }
        assert_eq!(usage.pick(&|_| false), Some(1));
        // An idle server's first flows are not free, nor is one of a busy server's few flows all of its load.
        assert_eq!(estimate(&report(0, 0, 100).unwrap()), 1_000);
        assert_eq!(estimate(&report(80, 1, 2).unwrap()), 90_000);
    }
}
