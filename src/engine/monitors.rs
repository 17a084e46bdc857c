//! The engine's interface to the monitors: their packets come and go like all others, and their results update the
//! standing, the flows and the events.

use super::arrival::Arrival;
use super::{Consumed, Engine, Event, HistoryRow, MonitorRow, Reason, Verdict};
use crate::balance::Notice;
use crate::health::{self, HealthEvent, ProbeTotals, Taken};
use crate::ids::ServerId;
use crate::time::Instant;

impl Engine {
    /// Makes the monitors follow the probes of a capture and send none.
    pub fn observe_probes(&mut self) {
        self.monitors.observe(true);
        self.standing.observe();
    }

    /// Applies the health that holds before the first probe.
    pub(super) fn start_monitors(&mut self) {
        for server in self.plan.order().servers.clone() {
            self.take_state(Instant::ZERO, server);
        }
        self.advance();
    }

    /// Passes a probe packet to the monitors.
    #[cold]
    pub(super) fn probe(&mut self, arrival: &Arrival<'_>) -> Verdict {
        let taken = self.monitors.handle_packet(arrival.now, arrival.bytes, arrival.parsed, arrival.meta);
        self.take_health(arrival.now);
        self.advance();
        match taken {
            Taken::Answer => Verdict::Consume(Consumed::Probe),
            Taken::Late => Verdict::Consume(Consumed::LateProbe),
            Taken::Unknown => Verdict::Drop(Reason::NoProbe),
            Taken::Checksum => Verdict::Drop(Reason::BadProbeChecksum),
        }
    }

    /// Applies the monitors' results.
    pub(super) fn take_health(&mut self, now: Instant) {
        while let Some(event) = self.monitors.poll_event() {
            match event {
                // A server without monitors is forced up or down in both families, whichever it has.
                HealthEvent::Transition { server, v6, .. } if !self.plan.roster().server(server).has(v6) => {}
                HealthEvent::Transition { server, v6, port, up, why, .. } => {
                    self.take_state(now, server);
                    self.standing.count_transition(server, up);
                    let server = self.plan.server_name(server);
                    self.shard.report(Event::Health { server, v6, port, up, why });
                }
                HealthEvent::KeptByFloor { server, v6, port, why, .. } => {
                    let server = self.plan.server_name(server);
                    self.shard.report(Event::KeptByFloor { server, v6, port, why });
                }
                HealthEvent::Load { server, load, maintenance, .. } => {
                    self.standing.report(&self.plan, now, server, load, maintenance);
                }
                HealthEvent::Latency { server } => {
                    if let Some(latency) = self.monitors.latency(server) {
                        self.standing.set_latency(server, latency);
                    }
                }
            }
        }
        self.take_notices(now);
    }

    /// Applies a server's health according to its monitors: its flows may have to end.
    pub(super) fn take_state(&mut self, now: Instant, server: ServerId) {
        let gone = self.standing.take_health(&self.plan, now, server, &self.monitors);
        self.follow_gone(now, gone);
    }

    /// Starts a walk if TCP flows of a server that is gone have to end; other flows end with their next packet.
    pub(super) fn follow_gone(&mut self, now: Instant, gone: bool) {
        if gone && self.plan.roster().resets_tcp() {
            self.shard.begin_walk(now);
        }
    }

    /// Reports server events.
    pub(super) fn take_notices(&mut self, now: Instant) {
        while let Some(notice) = self.standing.poll_notice() {
            let event = match notice {
                Notice::Drained(server) => Event::ServerDrained { server: self.plan.server_name(server) },
                Notice::DrainDeadline(server) => {
                    self.standing.set_drained(server, true);
                    self.shard.begin_walk(now);
                    let flows = self.shard.chooser().flows(server);
                    Event::DrainDeadline { server: self.plan.server_name(server), flows }
                }
                Notice::PassiveHold(server, until) => {
                    let for_ms = u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX);
                    Event::PassiveHold { server: self.plan.server_name(server), for_ms }
                }
            };
            self.shard.report(event);
        }
    }

    /// Returns what became of all probes since the start: one row per type.
    pub fn probe_totals(&self) -> &[ProbeTotals] {
        self.monitors.totals()
    }

    /// Returns whether the verdicts of another gateway's monitors are followed.
    pub fn follows_verdicts(&self) -> bool {
        self.monitors.follows()
    }

    /// Returns how many addresses and ports this gateway probes: while it follows another one, those of which that one tells
    /// nothing. Each counts once per monitor.
    pub fn probed_here(&self) -> usize {
        self.monitors.probed_here()
    }

    /// Follows the verdicts of another gateway, which tells all of them from now on ([`Engine::take_verdicts`]): what it has
    /// told is not probed here.
    pub fn follow_verdicts(&mut self, now: Instant) {
        self.monitors.begin_following(now);
    }

    /// All verdicts have been told: what is not among them is probed here.
    pub fn verdicts_told(&mut self, now: Instant) {
        self.monitors.told_all(now);
        self.take_health(now);
        self.advance();
    }

    /// Probes everything from now on: nothing changes before probes have results.
    pub fn stop_following(&mut self, now: Instant) {
        self.monitors.stop_following(now);
    }

    /// Returns the monitor rows: one per address and port that a monitor probes.
    pub fn monitors(&self, now: Instant) -> Vec<MonitorRow> {
        let mut rows = Vec::new();
        self.monitors_part(now, 0, usize::MAX, &mut rows);
        rows
    }

    /// Appends the monitor rows of at most `most` servers, from the one at `from` on; returns where to continue, none at
    /// the end.
    pub fn monitors_part(&self, now: Instant, from: usize, most: usize, rows: &mut Vec<MonitorRow>) -> Option<usize> {
        let all = self.monitors.server_count();
        let (from, end) = (from.min(all), from.saturating_add(most).min(all));
        let row = |row: health::MonitorRow| {
            let (pool, server) = self.plan.pool_and_server(row.server);
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
        rows.extend(self.monitors.rows_of(now, from..end).into_iter().map(row));
        (end < all).then_some(end)
    }

    /// Returns the last health changes of the servers, server by server, oldest first.
    pub fn health_history(&self, now: Instant) -> Vec<HistoryRow> {
        let mut rows = Vec::new();
        self.health_history_part(now, 0, usize::MAX, &mut rows);
        rows
    }

    /// Appends the last health changes of at most `most` servers, from the one at `from` on; returns where to continue,
    /// none at the end.
    pub fn health_history_part(
        &self,
        now: Instant,
        from: usize,
        most: usize,
        rows: &mut Vec<HistoryRow>,
    ) -> Option<usize> {
        let all = &self.plan.order().servers;
        let (from, end) = (from.min(all.len()), from.saturating_add(most).min(all.len()));
        let servers = all[from..end].iter().copied();
        let entries = servers.flat_map(|server| self.monitors.history(server).map(move |entry| (server, entry)));
        let row = |(server, entry): (ServerId, &health::HistoryEntry)| {
            let (pool, server) = self.plan.pool_and_server(server);
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
        rows.extend(entries.map(row));
        (end < all.len()).then_some(end)
    }
}
