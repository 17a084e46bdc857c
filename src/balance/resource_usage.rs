//! Resource usage: picks the server that reports the least load. A load is relative to the server's capacity, so
//! weights have no effect, except a weight of 0 and the fraction of the weight that slow start allows. Between reports
//! the balancer adds the estimated cost of the flows assigned since. Until every candidate has reported, round robin
//! picks.

use super::least_connections::share;
use super::round_robin::{Position, Schedule};
use super::server::STEPS;
use crate::tournament::Tournament;

/// A server's last report, and the flows since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// The reported load: 0 (idle) to 100.
    pub(super) load: u8,
    /// Flows that it had at the time.
    pub(super) flows_then: u32,
    /// Flows assigned to it since.
    pub(super) given_since: u32,
}

/// Least and greatest assumed cost of a flow, in thousandths of a percent of load.
const COST: std::ops::RangeInclusive<u64> = 10..=5_000;

/// Loads, with the fraction of a server that slow start allows as its weight.
#[derive(Debug, Clone)]
pub(super) struct ResourceUsage {
    loads: Tournament,
    weights: Vec<u32>,
    has_reported: Vec<bool>,
    /// Candidates without a valid report.
    silent: usize,
    until_all_have_reported: (Schedule, Position),
}

impl ResourceUsage {
    /// Creates the algorithm over `places`; the server at `first` wins the first tie.
    pub(super) fn new(places: usize, first: usize) -> Self {
        // Weights count for nothing here: all servers are of one kind.
        let schedule = Schedule::new((0..places).map(|_| ()));
        let position = Position::new(&schedule, first, STEPS);
        ResourceUsage {
            loads: Tournament::new(places, first),
            weights: vec![0; places],
            has_reported: vec![false; places],
            silent: 0,
            until_all_have_reported: (schedule, position),
        }
    }

    /// Sets the weights; 0 is not a candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32], report: impl Fn(usize) -> Option<Usage>) {
        self.weights.copy_from_slice(weights);
        let (schedule, position) = &mut self.until_all_have_reported;
        schedule.set_weights(weights);
        position.follow(schedule);
        self.silent = 0;
        for (place, weight) in weights.iter().enumerate() {
            self.has_reported[place] = false;
            self.silent += usize::from(*weight > 0);
            self.changed(place, report(place));
        }
    }

    /// Sets a server's last valid report, and the number of flows assigned to it since.
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

    /// Returns the server with the least load.
    pub(super) fn propose(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        let (schedule, position) = &self.until_all_have_reported;
        if self.silent > 0 { position.propose(schedule, refuses) } else { self.loads.least(refuses) }
    }

    /// Records that a proposal was picked: it comes last in ties.
    pub(super) fn picked(&mut self, place: usize) {
        let (schedule, position) = &mut self.until_all_have_reported;
        if self.silent > 0 { position.picked(schedule, place) } else { self.loads.picked(place) }
    }

    /// Returns the round robin that picks while any candidate has not reported; none once all have.
    pub(super) fn waits_with(&self) -> Option<&(Schedule, Position)> {
        (self.silent > 0).then_some(&self.until_all_have_reported)
    }
}

/// Returns a server's estimated current load, in thousandths of a percent: a flow costs the average of the last
/// report's flows.
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
        // A report that is too old does not count.
        usage.changed(0, None);
        let picks: Vec<_> = (0..2).map(|_| usage.pick(&|_| false).unwrap()).collect();
        assert_eq!(picks, [0, 1]);
    }

    #[test]
    fn flows_assigned_since_the_report_are_estimated() {
        // 20 flows made 20 %: each is estimated at 1 %. With 10 more, the server is as loaded as the other, at 30 %.
        let mut usage = ResourceUsage::new(2, 0);
        usage.set_weights(&[1, 1], |place| [report(20, 20, 0), report(30, 30, 0)][place]);
        for given in 1..=10 {
            assert_eq!(usage.pick(&|_| false), Some(0), "{given}");
            usage.changed(0, report(20, 20, given));
        }
        assert_eq!(usage.pick(&|_| false), Some(1));
        // An idle server's first flows are not free, and one of a busy server's few flows does not account for all of
        // its load.
        assert_eq!(estimate(&report(0, 0, 100).unwrap()), 1_000);
        assert_eq!(estimate(&report(80, 1, 2).unwrap()), 90_000);
    }
}
