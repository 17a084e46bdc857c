//! The drill: a server stops in mid-traffic and comes back. It judges by what clients, gateway and clock report, and
//! must not know how they are observed.

use super::world::{FALL, INTERVAL, RISE, SLOW_START, TIMEOUT};
use serde_json::json;
use std::time::{Duration, Instant};

/// What a busy machine may add to the time that the monitor needs.
const GRACE: Duration = Duration::from_millis(500);
/// The most of its fair share that a server may get in the first half of its slow start.
const SLOW_SHARE: f64 = 0.75;

/// A request of the drill: when it began, and who answered it, if anyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub began: Instant,
    pub server: Option<String>,
    /// Why nobody answered.
    pub failure: Option<String>,
}

/// When what happened, as the demo saw it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The server stopped.
    pub stopped: Instant,
    /// The gateway reported it down.
    pub left: Instant,
    /// The server was started again.
    pub started: Instant,
    /// The gateway reported it up.
    pub back: Instant,
    /// Its weight was back to full.
    pub whole: Instant,
    /// The last request began.
    pub end: Instant,
}

/// The result of the drill.
#[derive(Debug, Clone)]
pub(super) struct Drill {
    pub server: String,
    pub times: Times,
    pub requests: Vec<Request>,
    /// The server's share of the requests by its weight, 0 to 1.
    pub fair: f64,
}

/// Returns the longest that the monitor may take to notice: for each failure its interval, extended by the jitter,
/// and the timeout of the last one.
pub(super) fn longest_to_notice() -> Duration {
    (INTERVAL * FALL).mul_f64(1.1) + TIMEOUT
}

impl Drill {
    fn failed(&self, from: Instant, to: Instant) -> Vec<&Request> {
        let within = |request: &&Request| request.began >= from && request.began < to && request.server.is_none();
        self.requests.iter().filter(within).collect()
    }

    /// Returns the server's share of the replies to requests that began within a period, 0 to 1.
    fn share(&self, from: Instant, to: Instant) -> f64 {
        let within = self.requests.iter().filter(|request| request.began >= from && request.began < to);
        let answered: Vec<_> = within.filter_map(|request| request.server.as_ref()).collect();
        let own = answered.iter().filter(|name| ***name == self.server).count();
        own as f64 / answered.len().max(1) as f64
    }

    /// Returns its part of its fair share: while away, in the first half of the slow start, and after it.
    fn shares(&self) -> [f64; 3] {
        let t = &self.times;
        let half = t.back + (t.whole - t.back) / 2;
        [(t.left, t.started), (t.back, half), (t.whole, t.end)].map(|(from, to)| self.share(from, to) / self.fair)
    }

    /// Returns what went wrong.
    pub(super) fn wrong(&self) -> Vec<String> {
        let (name, t) = (&self.server, &self.times);
        let mut wrong = Vec::new();
        let seconds = |span: Duration| format!("{:.2} s", span.as_secs_f64());
        let noticed = t.left - t.stopped;
        if noticed > longest_to_notice() + GRACE {
            let allowed = seconds(longest_to_notice());
            wrong.push(format!(
                "{name} was taken out {} after it stopped; the configuration allows {allowed}",
                seconds(noticed)
            ));
        }
        let late = self.failed(t.left, t.end);
        if !late.is_empty() {
            wrong.push(format!(
                "{} requests failed that began after {name} was taken out, the first of them:",
                late.len()
            ));
            wrong.extend(late.iter().take(3).filter_map(|request| request.failure.clone()));
        }
        let [away, rising, after] = self.shares();
        if away > 0.0 {
            wrong.push(format!("{name} was assigned requests while it was down"));
        }
        if rising > SLOW_SHARE {
            wrong.push(format!("{name} got {:.0} % of its share in the first half of its slow start", rising * 100.0));
        }
        if !(0.8..=1.2).contains(&after) {
            wrong.push(format!("{name} got {:.0} % of its share after its slow start", after * 100.0));
        }
        wrong
    }

    /// Formats the summary for people.
    pub(super) fn text(&self) -> String {
        let (name, t) = (&self.server, &self.times);
        let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64();
        let [_, rising, after] = self.shares();
        format!(
            "drill: {name} stopped in mid-traffic. It was taken out after {:.2} s ({:.2} s configured: {FALL} failures, \
             every {} ms, timeout {} ms)\n\
             \x20 {} of {} requests failed before that; of those that began later, {}\n\
             \x20 restarted, it was back after {:.2} s ({RISE} successes), and at full weight {:.1} s later (slow start \
             {} s)\n\
             \x20 it got {:.0} % of its fair share in the first half of the slow start, and {:.0} % after it\n",
            seconds(t.stopped, t.left),
            longest_to_notice().as_secs_f64(),
            INTERVAL.as_millis(),
            TIMEOUT.as_millis(),
            self.failed(t.stopped, t.left).len(),
            self.requests.len(),
            self.failed(t.left, t.end).len(),
            seconds(t.started, t.back),
            seconds(t.back, t.whole),
            SLOW_START.as_secs(),
            rising * 100.0,
            after * 100.0,
        )
    }

    /// Formats the summary as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        let t = &self.times;
        let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1000.0;
        let [_, rising, after] = self.shares();
        json!({
            "server": self.server,
            "requests": self.requests.len(),
            "left_after_ms": ms(t.stopped, t.left),
            "configured_ms": longest_to_notice().as_secs_f64() * 1000.0,
            "failed_before": self.failed(t.stopped, t.left).len(),
            "failed_after": self.failed(t.left, t.end).len(),
            "back_after_ms": ms(t.started, t.back),
            "slow_start_ms": ms(t.back, t.whole),
            "share_while_rising": rising,
            "share_after": after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One request every 10 ms for 10 s: s2 stops at 1 s, is out at 1.4 s, restarts at 3 s, is back at 3.5 s, at full
    /// weight at 6.5 s.
    fn drill(change: impl Fn(u64, &mut Request)) -> Drill {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let requests = (0..1000).map(|n| {
            let ms = n * 10;
            let away = (1400..3500).contains(&ms);
            let rare = (3500..5000).contains(&ms) && n % 6 != 1;
            let server = if n % 2 == 1 && !away && !rare { "s2" } else { "s1" };
            let mut request = Request { began: at(ms), server: Some(server.into()), failure: None };
            if (1000..1400).contains(&ms) && n % 2 == 1 {
                (request.server, request.failure) = (None, Some("refused".into()));
            }
            change(ms, &mut request);
            request
        });
        let times = Times {
            stopped: at(1000),
            left: at(1400),
            started: at(3000),
            back: at(3500),
            whole: at(6500),
            end: at(10_000),
        };
        Drill { server: "s2".into(), times, requests: requests.collect(), fair: 0.5 }
    }

    #[test]
    fn a_good_drill_has_failures_only_before_the_server_had_left() {
        let drill = drill(|_, _| {});
        assert_eq!(drill.wrong(), [] as [String; 0]);
        let text = drill.text();
        assert!(text.contains("20 of 1000 requests failed before that; of those that began later, 0"), "{text}");
        assert_eq!(
            (drill.json()["failed_before"].as_u64(), drill.json()["failed_after"].as_u64()),
            (Some(20), Some(0))
        );
    }

    #[test]
    fn each_fault_is_reported() {
        let s2 = |request: &mut Request| request.server = Some("s2".into());
        let late = drill(|ms, r| {
            if ms == 1500 {
                r.server = None
            }
        });
        assert!(late.wrong()[0].contains("1 requests failed that began after"));
        let sent_away = drill(|ms, r| {
            if ms == 2000 {
                s2(r)
            }
        });
        assert!(sent_away.wrong()[0].contains("while it was down"));
        let no_slow_start = drill(|ms, r| {
            if (3500..5000).contains(&ms) && ms % 20 == 0 {
                s2(r)
            }
        });
        assert!(no_slow_start.wrong()[0].contains("slow start"));
        let never_back = drill(|ms, r| {
            if ms > 6500 {
                r.server = Some("s1".into())
            }
        });
        assert!(never_back.wrong()[0].contains("0 % of its share after"));
        let mut slow = drill(|_, _| {});
        slow.times.stopped -= Duration::from_secs(2);
        assert!(slow.wrong()[0].contains("the configuration allows"));
    }
}
