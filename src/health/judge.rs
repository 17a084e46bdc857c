//! The verdict on one target from the results of its probes: the sample window, consecutive results, smoothed latency.
//!
//! It must know neither probes nor servers nor the time.

use super::settings::MonitorSettings;
use super::why::{Failure, Why};
use crate::state::Health;
use crate::time::Duration;
use std::collections::VecDeque;

/// One sample: a reply with its latency (none if the time of the probe is unknown), or a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sample {
    Answered(Option<Duration>),
    Failed,
}

/// The judge of one target.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    state: Health,
    window: VecDeque<Sample>,
    lost: u32,
    timed: u32,
    total: Duration,
    failures: u32,
    successes: u32,
    smoothed: Option<Duration>,
    /// The reason why it last went down.
    why: Option<Why>,
}

impl Judge {
    pub(super) fn new(initial: Health) -> Self {
        Judge {
            state: initial,
            window: VecDeque::new(),
            lost: 0,
            timed: 0,
            total: Duration::ZERO,
            failures: 0,
            successes: 0,
            smoothed: None,
            why: None,
        }
    }

    /// Returns a judge without results that keeps the verdict of another one, which judged by other means.
    pub(super) fn after(state: Health, why: Option<Why>) -> Self {
        Judge { why, ..Judge::new(state) }
    }

    /// Returns the reason why it last went down, if it ever did.
    pub(super) fn why(&self) -> Option<Why> {
        self.why.clone()
    }

    pub(super) fn state(&self) -> Health {
        self.state
    }

    /// Takes over the verdict of a judge elsewhere, without the results that led to it.
    pub(super) fn recall(&mut self, state: Health) {
        self.state = state;
    }

    /// Returns the number of results in the window.
    pub(super) fn sent(&self) -> u32 {
        self.window.len() as u32
    }

    /// Returns the number of failures in the window.
    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    /// Returns the average latency of the answered probes in the window.
    pub(super) fn average(&self) -> Option<Duration> {
        (self.timed > 0).then(|| self.total / self.timed)
    }

    /// Returns the latency smoothed like the round-trip time of RFC 6298, 2.3: each new sample counts for an eighth.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Takes the result of a probe; returns the reason if the verdict changes.
    pub(super) fn record(
        &mut self,
        settings: &MonitorSettings,
        result: &Result<Option<Duration>, Failure>,
    ) -> Option<Why> {
        self.add(settings.samples, result);
        let fault = self.fault(settings, result.as_ref().err());
        match (self.state, fault) {
            (Health::Up | Health::Unknown, Some(why)) => {
                self.state = Health::Down;
                self.why = Some(why.clone());
                Some(why)
            }
            (Health::Down | Health::Unknown, None) if self.successes >= settings.rise => {
                self.state = Health::Up;
                Some(Why::Answered { count: self.successes, average_ms: self.average().map(millis) })
            }
            _ => None,
        }
    }

    fn add(&mut self, samples: u32, result: &Result<Option<Duration>, Failure>) {
        while self.window.len() >= samples.max(1) as usize {
            match self.window.pop_front() {
                Some(Sample::Failed) => self.lost -= 1,
                Some(Sample::Answered(Some(latency))) => {
                    self.timed -= 1;
                    self.total -= latency;
                }
                _ => {}
            }
        }
        match result {
            Ok(latency) => {
                self.window.push_back(Sample::Answered(*latency));
                self.successes = self.successes.saturating_add(1);
                self.failures = 0;
                if let Some(latency) = *latency {
                    self.timed += 1;
                    self.total += latency;
                    self.smoothed = Some(self.smoothed.map_or(latency, |old| (old * 7 + latency) / 8));
                }
            }
            Err(_) => {
                self.window.push_back(Sample::Failed);
                self.lost += 1;
                self.failures = self.failures.saturating_add(1);
                self.successes = 0;
            }
        }
    }

    /// Returns the most obvious reason why the target is down, if there is one.
    fn fault(&self, settings: &MonitorSettings, last: Option<&Failure>) -> Option<Why> {
        if let Some(most) = settings.max_lost.filter(|most| self.lost > *most) {
            return Some(Why::Lost { lost: self.lost, of: self.sent(), most });
        }
        if let Some(last) = last.filter(|_| self.failures >= settings.fall) {
            return Some(Why::Failed { count: self.failures, last: last.clone() });
        }
        let limit = settings.max_latency?;
        let average = self.average().filter(|average| *average > limit)?;
        Some(Why::Slow { average_ms: millis(average), limit_ms: millis(limit) })
    }
}

/// Rounds up to whole milliseconds, so that an average above its limit is also printed as such.
fn millis(span: Duration) -> u64 {
    span.as_micros().div_ceil(1000) as u64
}

#[cfg(test)]
mod tests {
    use super::super::settings::Probe;
    use super::*;

    /// Runs results given as characters: `x` is a failure, a digit a reply after that many times 100 ms.
    fn run(settings: &MonitorSettings, results: &str) -> (String, Vec<String>) {
        let mut judge = Judge::new(settings.initial);
        let mut whys = Vec::new();
        let states = results.chars().map(|c| {
            let result = match c.to_digit(10) {
                Some(digit) => Ok(Some(Duration::from_millis(u64::from(digit) * 100))),
                None => Err(Failure::Refused),
            };
            whys.extend(judge.record(settings, &result).map(|why| why.to_string()));
            match judge.state() {
                Health::Up => 'U',
                Health::Down => 'D',
                Health::Unknown => '?',
            }
        });
        (states.collect(), whys)
    }

    fn settings(change: fn(&mut MonitorSettings)) -> MonitorSettings {
        let mut settings = MonitorSettings::new("m", Probe::Tcp);
        change(&mut settings);
        settings
    }

    #[test]
    fn rise_and_fall_count_consecutive_results() {
        let cases: [(fn(&mut MonitorSettings), &str, &str); 8] = [
            // The defaults: fall 3, rise 2, up at the start.
            (|_| {}, "1xx1xxx1x11x", "UUUUUUDDDDUU"),
            (|m| m.fall = 1, "1x11x", "UDDUD"),
            (|m| m.rise = 1, "xxx1x", "UUDUU"),
            (|m| (m.rise, m.fall) = (3, 2), "xx11x111", "UDDDDDDU"),
            (|m| m.initial = Health::Unknown, "11", "?U"),
            (|m| m.initial = Health::Unknown, "1xx1xxx", "??????D"),
            (|m| m.initial = Health::Down, "111", "DUU"),
            (|m| m.initial = Health::Down, "1x1x", "DDDD"),
        ];
        for (change, results, want) in cases {
            assert_eq!(run(&settings(change), results).0, want, "{results}");
        }
    }

    #[test]
    fn more_than_the_most_lost_of_the_window_is_down_until_the_window_is_clean_enough() {
        // A window of 5, at most 2 lost: the third loss among the last five takes it out;
        // it returns when rise = 2 in a row and at most two of the last five are lost.
        let settings = settings(|m| (m.samples, m.max_lost, m.fall) = (5, Some(2), 100));
        //   results     x 1 x 1 x 1 1 x 1 1
        //   lost of 5   1 1 2 2 3 2 2 2 2 1
        let (states, whys) = run(&settings, "x1x1x11x11");
        assert_eq!(states, "UUUUDDUUUU");
        assert_eq!(whys, ["3 of 5 lost, limit 2", "2 of 2 answered, average 100 ms"]);
    }

    #[test]
    fn all_lost_of_a_full_window_reads_ten_of_ten() {
        let settings = settings(|m| (m.max_lost, m.fall) = (Some(9), 100));
        let (states, whys) = run(&settings, "xxxxxxxxxx");
        assert_eq!((states.as_str(), whys), ("UUUUUUUUUD", vec!["10 of 10 lost, limit 9".to_owned()]));
    }

    #[test]
    fn the_average_counts_answered_probes_only() {
        // A window of 3, average at most 500 ms.
        let settings = settings(|m| (m.samples, m.max_latency) = (3, Some(Duration::from_millis(500))));
        //   results  4   6   x   9        1    1
        //   window   4  4,6 4,6x 6,x,9    x91  911
        //   average 400 500 500  750      500  366.7
        let (states, whys) = run(&settings, "46x911");
        assert_eq!(states, "UUUDUU");
        assert_eq!(whys, ["average 750 ms, limit 500 ms", "2 of 2 answered, average 500 ms"]);
    }

    #[test]
    fn a_result_that_leaves_the_window_leaves_its_sums() {
        let settings = settings(|m| m.samples = 2);
        let mut judge = Judge::new(Health::Up);
        for (result, sent, lost, average) in [
            (Ok(Some(Duration::from_millis(10))), 1, 0, Some(10)),
            (Err(Failure::Refused), 2, 1, Some(10)),
            (Err(Failure::Refused), 2, 2, None),
            (Ok(None), 2, 1, None),
            (Ok(Some(Duration::from_millis(30))), 2, 0, Some(30)),
        ] {
            judge.record(&settings, &result);
            let got = (judge.sent(), judge.lost(), judge.average());
            assert_eq!(got, (sent, lost, average.map(Duration::from_millis)));
        }
    }

    #[test]
    fn the_smoothed_latency_moves_by_an_eighth() {
        let settings = settings(|_| {});
        let mut judge = Judge::new(Health::Up);
        for (latency, want) in [(80, 80_000), (160, 90_000), (90, 90_000), (10, 80_000)] {
            judge.record(&settings, &Ok(Some(Duration::from_millis(latency))));
            assert_eq!(judge.smoothed(), Some(Duration::from_micros(want)));
        }
    }
}
