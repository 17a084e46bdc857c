//! The monitors as rows: one per target, in words and figures.

use super::targets::Target;
use super::{Monitors, Why};
use crate::ids::ServerId;
use crate::state::Health;
use crate::time::{Duration, Instant};
use serde::Serialize;
use std::net::IpAddr;
use std::ops::Range;

/// The results of one monitor for one address and port.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MonitorRow {
    /// The server.
    pub server: ServerId,
    /// The monitor's name.
    pub monitor: String,
    /// `icmp`, `tcp`, `http`, `udp` or `dns`.
    pub probe: &'static str,
    /// The probed address.
    pub address: IpAddr,
    /// The probed port; none for ICMP.
    pub port: Option<u16>,
    /// The verdict of this monitor alone.
    pub verdict: Health,
    /// The health of the address or port, after all monitors, the floor and overrides.
    pub state: Health,
    /// Whether it is in service only because of the floor of its pool.
    pub kept_by_floor: bool,
    /// Results in the window.
    pub sent: u32,
    /// Failures among them.
    pub lost: u32,
    /// Average latency of the answered probes in the window, in milliseconds.
    pub average_ms: Option<f64>,
    /// Smoothed latency in milliseconds.
    pub smoothed_ms: Option<f64>,
    /// The last result in words; none before the first result.
    pub last: Option<String>,
    /// The reason of the last verdict "down" of this monitor.
    pub why: Option<Why>,
    /// Milliseconds since `state` last changed.
    pub in_state_ms: u64,
}

impl Monitors {
    /// Returns the number of monitored servers.
    pub fn server_count(&self) -> usize {
        self.all.servers.len()
    }

    /// Returns one row per target, in the order of servers and their units.
    pub fn rows(&self, now: Instant) -> Vec<MonitorRow> {
        self.rows_of(now, 0..self.server_count())
    }

    /// Returns those of some of the monitored servers.
    pub fn rows_of(&self, now: Instant, servers: Range<usize>) -> Vec<MonitorRow> {
        let units = self.all.servers[servers].iter().flat_map(|server| server.units.iter().flatten());
        let places = units.flat_map(|unit| self.all.units[*unit as usize].targets.iter().map(move |t| (*unit, *t)));
        let row = |(unit, target): (u32, u32)| {
            let target = &self.all.targets[target as usize];
            let place = &self.all.units[unit as usize];
            let server = self.all.servers[place.server as usize].id;
            let settings = &self.all.monitors[target.monitor as usize].settings;
            let forced = self.forced.get(&server).map(|up| Health::from_up(*up));
            MonitorRow {
                server,
                monitor: settings.name.clone(),
                probe: settings.probe.name(),
                address: target.address,
                port: (target.port != 0).then_some(target.port),
                verdict: target.judge.state(),
                state: forced.unwrap_or(place.state),
                kept_by_floor: self.all.floors.is_kept(unit),
                sent: target.judge.sent(),
                lost: target.judge.lost(),
                average_ms: target.judge.average().map(ms),
                smoothed_ms: target.judge.smoothed().map(ms),
                last: last(target),
                why: target.judge.why(),
                in_state_ms: now.since(place.since).as_millis() as u64,
            }
        };
        places.map(row).collect()
    }
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// Says what is known of the last probe of a target.
fn last(target: &Target) -> Option<String> {
    match &target.last {
        _ if target.rests() => Some("not probed here: state from the active gateway".into()),
        Some(Ok(Some(latency))) => Some(format!("answered in {:.3} ms", ms(*latency))),
        Some(Ok(None)) => Some("answered".into()),
        Some(Err(failure)) => Some(failure.to_string()),
        None => None,
    }
}
