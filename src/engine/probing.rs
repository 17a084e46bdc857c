//! The monitors' place in the engine: their packets come and go like all others, and what they find
//! out reaches the balancer, the flows and whoever watches.

use super::{Consumed, Engine, Event, HistoryRow, MonitorRow, Reason, Verdict};
use crate::health::{self, HealthEvent, Taken};
use crate::ids::ServerId;
use crate::packet::{Meta, Parsed};
use crate::time::Instant;

impl Engine {
    /// Lets the monitors follow the probes of a capture, and send none.
    pub fn observe_probes(&mut self) {
        self.health.observe(true);
    }

    /// Tells the balancer what holds before the first probe.
    pub(super) fn start_health(&mut self) {
        for server in (0..self.servers.len() as u32).map(ServerId) {
            self.health_changed(Instant::ZERO, server);
        }
    }

    /// Takes a packet for the monitors, if it is one.
    pub(super) fn probe(&mut self, now: Instant, packet: &[u8], parsed: &Parsed, meta: Meta) -> Option<Verdict> {
        if !self.health.is_ours(&parsed.addresses) {
            return None;
        }
        let taken = self.health.handle_packet(now, packet, parsed, meta);
        self.take_health(now);
        Some(match taken {
            Taken::Answer => Verdict::Consume(Consumed::Probe),
            Taken::Late => Verdict::Consume(Consumed::LateProbe),
            Taken::Unknown => Verdict::Drop(Reason::NoProbe),
            Taken::Checksum => Verdict::Drop(Reason::BadProbeChecksum),
        })
    }

    /// Takes what the monitors have found out.
    pub(super) fn take_health(&mut self, now: Instant) {
        while let Some(event) = self.health.poll_event() {
            match event {
                HealthEvent::Transition { server, v6, port, up, why, .. } => {
                    self.health_changed(now, server);
                    self.servers[server.0 as usize].transitions[usize::from(up)] += 1;
                    let server = self.names.server(server);
                    self.tell(Event::Health { server, v6, port, up, why });
                }
                HealthEvent::KeptByFloor { server, v6, port, why, .. } => {
                    let server = self.names.server(server);
                    self.tell(Event::KeptByFloor { server, v6, port, why });
                }
                HealthEvent::Load { server, load, maintenance, .. } => {
                    self.balancer.report(now, server, load, maintenance);
                }
                HealthEvent::Latency { server } => {
                    if let Some(latency) = self.health.latency(server) {
                        self.balancer.set_latency(server, latency);
                    }
                }
            }
        }
        self.take_notices(now);
    }

    /// Takes note that what is known of a server's health has changed.
    fn health_changed(&mut self, now: Instant, server: ServerId) {
        for v6 in [false, true] {
            let health = &self.health;
            self.balancer.set_health(now, server, v6, |port| health.state(server, v6, port));
        }
        self.standing_changed(now, server);
    }

    /// What the monitors show: a row for each address and port that one of them looks at.
    pub fn monitors(&self, now: Instant) -> Vec<MonitorRow> {
        let row = |row: health::MonitorRow| {
            let (pool, server) = self.names.pool_and_server(row.server);
            MonitorRow {
                pool: pool.into(),
                server: server.into(),
                monitor: row.monitor,
                probe: row.probe.into(),
                address: row.address,
                port: row.port,
                verdict: row.verdict,
                state: row.state,
                kept_by_floor: row.kept_by_floor,
                sent: row.sent,
                lost: row.lost,
                average_ms: row.average_ms,
                last: row.last,
                in_state_ms: row.in_state_ms,
            }
        };
        self.health.rows(now).into_iter().map(row).collect()
    }

    /// The last changes of the servers' health, server by server, each the oldest first.
    pub fn health_history(&self, now: Instant) -> Vec<HistoryRow> {
        let servers = (0..self.server_count() as u32).map(ServerId);
        let entries = servers.flat_map(|server| self.health.history(server).map(move |entry| (server, entry)));
        let row = |(server, entry): (ServerId, &health::HistoryEntry)| {
            let (pool, server) = self.names.pool_and_server(server);
            HistoryRow {
                pool: pool.into(),
                server: server.into(),
                ago_ms: now.since(entry.at).as_millis() as u64,
                family: if entry.v6 { "IPv6" } else { "IPv4" }.into(),
                port: entry.port,
                what: entry.what.name().into(),
                why: entry.why.to_string(),
            }
        };
        entries.map(row).collect()
    }
}
