//! What the monitors show: one row a target, all words and figures.

use super::{Monitors, Why};
use crate::ids::ServerId;
use crate::state::Health;
use crate::time::{Duration, Instant};
use serde::Serialize;
use std::net::IpAddr;

/// One monitor's look at one address and port.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MonitorRow {
    /// The server.
    pub server: ServerId,
    /// The monitor's name.
    pub monitor: String,
    /// `icmp`, `tcp`, `http`, `udp` or `dns`.
    pub probe: &'static str,
    /// The address probed.
    pub address: IpAddr,
    /// The port probed; none for ICMP.
    pub port: Option<u16>,
    /// What this monitor says.
    pub says: Health,
    /// What holds for the server's address or port: after all its monitors, the floor, and what is forced.
    pub state: Health,
    /// Whether it is in service only because of the floor of its pool.
    pub kept_by_floor: bool,
    /// Results in the window.
    pub sent: u32,
    /// Failures among them.
    pub lost: u32,
    /// Average latency of the window's answered probes, in ms.
    pub average_ms: Option<f64>,
    /// Smoothed latency, in ms.
    pub smoothed_ms: Option<f64>,
    /// The last result in words; none: no probe has ended.
    pub last: Option<String>,
    /// Why this monitor last said down.
    pub why: Option<Why>,
    /// For how long `state` has held, in ms.
    pub in_state_ms: u64,
}

impl Monitors {
    /// A row a target, in the order of servers and their units.
    pub fn rows(&self, now: Instant) -> Vec<MonitorRow> {
        let ms = |span: Duration| span.as_secs_f64() * 1000.0;
        let units = self.all.servers.iter().flat_map(|server| server.units.iter().flatten());
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
                says: target.judge.state(),
                state: forced.unwrap_or(place.state),
                kept_by_floor: self.all.floors.is_held(unit),
                sent: target.judge.sent(),
                lost: target.judge.lost(),
                average_ms: target.judge.average().map(ms),
                smoothed_ms: target.judge.smoothed().map(ms),
                last: target.last.as_ref().map(|last| match last {
                    Ok(Some(latency)) => format!("answered in {:.3} ms", ms(*latency)),
                    Ok(None) => "answered".into(),
                    Err(failure) => failure.to_string(),
                }),
                why: target.judge.why(),
                in_state_ms: now.since(place.since).as_millis() as u64,
            }
        };
        places.map(row).collect()
    }
}
