//! The demo's final accounts: what each side counted and whether it adds up, as text and as JSON.

use super::balancer::Seen;
use super::drill::Drill;
use super::options::DemoOptions;
use super::tally::Tally;
use crate::control::render::{Width, count, counters_table, servers_table};
use std::fmt::Write;
use std::time::Duration;

/// The quantiles of the requests whose latency is shown.
const SHARES: [f64; 4] = [0.5, 0.9, 0.99, 1.0];

/// What each side counted.
pub(super) struct Books {
    pub options: DemoOptions,
    /// The clients' side.
    pub tally: Tally,
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// The servers' side: names and requests answered.
    pub answered: Vec<(String, u64)>,
    /// The gateway's side.
    pub seen: Seen,
    /// What happened to the server that was stopped.
    pub drill: Option<Drill>,
}

impl Books {
    /// Returns what went wrong; empty if nothing did.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.tally.failed > 0 {
            wrong.push(format!("{} requests failed, the first of them:", self.tally.failed));
            wrong.extend(self.tally.failures.iter().map(|why| format!("  {why}")));
        }
        if self.tally.answered() == 0 {
            wrong.push("no request was answered".into());
        }
        // In interactive use, people may take turns in the rotation and change weights.
        if !self.options.forever {
            wrong.extend(self.tally.uneven(&self.weights()));
        }
        wrong.extend(self.drill.iter().flat_map(Drill::wrong));
        if !self.seen.totals.engine.add_up() {
            wrong.push("the gateway's packets do not add up: in differs from forwarded + consumed + dropped".into());
        }
        for ((name, served), row) in self.answered.iter().zip(&self.seen.servers) {
            let got = self.tally.by_server.get(name).copied().unwrap_or(0);
            // They also make requests of their own.
            let differs = |n: u64| if self.options.forever { n < got } else { n != got };
            if differs(*served) || differs(row.flows_total) {
                wrong.push(format!(
                    "{name}: clients got {got} responses from it, it sent {served}, the gateway assigned it {} flows",
                    row.flows_total
                ));
            }
        }
        wrong
    }

    fn weights(&self) -> Vec<(String, u16)> {
        self.answered.iter().map(|(name, _)| name.clone()).zip(self.options.weights.iter().copied()).collect()
    }

    fn rate(&self) -> f64 {
        self.tally.answered() as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    /// Formats the summary for people; `left` is what was left behind.
    pub(super) fn text(&self, left: &[String]) -> String {
        let [v4, v6] = self.tally.by_family;
        let [half, most, nearly, all] = self.tally.percentiles(SHARES).map(|l| l.as_secs_f64() * 1000.0);
        let mut text = format!(
            "{} requests answered in {:.2} s, {:.0} per second: {} over IPv4, {} over IPv6; {} failed\n\
             latency: median {half:.2} ms, 90 % {most:.2} ms, 99 % {nearly:.2} ms, maximum {all:.2} ms\n\n{}\n{}\n",
            count(self.tally.answered()),
            self.elapsed.as_secs_f64(),
            self.rate(),
            count(v4),
            count(v6),
            count(self.tally.failed),
            servers_table(&self.seen.servers, Width::Any),
            counters_table(&self.seen.totals.engine, Some(&self.seen.totals.device), false, Width::Any),
        );
        let served: u64 = self.answered.iter().map(|(_, n)| n).sum();
        let _ = writeln!(
            text,
            "responses: {} received by the clients, {} sent by the servers; {} flows opened by the gateway",
            count(self.tally.answered()),
            count(served),
            count(self.seen.totals.engine.flows_opened)
        );
        let all: u64 = self.options.weights.iter().map(|w| u64::from(*w)).sum();
        for (name, weight) in self.weights() {
            let got = self.tally.by_server.get(&name).copied().unwrap_or(0);
            let percent = |part: u64, all: u64| part as f64 * 100.0 / all.max(1) as f64;
            let (have, want) = (percent(got, self.tally.answered()), percent(weight.into(), all));
            let _ = writeln!(text, "  {name}: {have:.2} %; the share of its weight is {want:.2} %");
        }
        if let Some(drill) = &self.drill {
            text.push_str(&drill.text());
        }
        match left {
            [] => {
                text.push_str("left behind: nothing (no device, namespace, thread or file; no process was started)\n")
            }
            left => text.push_str(&format!("left behind: {}\n", left.join(", "))),
        }
        text
    }

    /// Formats the summary as one line of JSON.
    pub(super) fn json(&self, left: &[String]) -> String {
        let [half, most, nearly, all] = self.tally.percentiles(SHARES).map(|l| l.as_secs_f64() * 1000.0);
        let [v4, v6] = self.tally.by_family;
        serde_json::json!({
            "answered": self.tally.answered(),
            "answered_ipv4": v4,
            "answered_ipv6": v6,
            "failed": self.tally.failed,
            "failures": self.tally.failures,
            "seconds": self.elapsed.as_secs_f64(),
            "latency_ms": { "p50": half, "p90": most, "p99": nearly, "max": all },
            "answers_by_server": self.tally.by_server,
            "weights": self.weights().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "servers": self.seen.servers,
            "counters": self.seen.totals.engine,
            "device": self.seen.totals.device,
            "drill": self.drill.as_ref().map(Drill::json),
            "wrong": self.wrong(),
            "left_behind": left,
        })
        .to_string()
    }
}
