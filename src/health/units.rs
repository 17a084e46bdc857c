//! From results to health: the effect of a result on its target, unit, server and pool.

use super::history::{Happened, HistoryEntry};
use super::why::{Failure, Why};
use super::{HealthEvent, Monitors};
use crate::ids::ServerId;
use crate::state::Health;
use crate::time::{Duration, Instant};

impl Monitors {
    /// Takes the result of a probe.
    pub(super) fn record(&mut self, now: Instant, target: u32, result: Result<Option<Duration>, Failure>) {
        let place = &mut self.all.targets[target as usize];
        let settings = &self.all.monitors[place.monitor as usize].settings;
        self.totals.count(settings.probe.kind(), &result);
        let (unit, changed) = (place.unit, place.judge.record(settings, &result));
        let timed = matches!(result, Ok(Some(_)));
        place.last = Some(result);
        let server = self.all.learned(unit);
        if timed {
            self.push_event(HealthEvent::Latency { server });
        }
        if let Some(why) = changed {
            self.changes += 1;
            self.settle(now, unit, why);
        }
    }

    /// Updates the state of a unit to the verdict of its monitors, as far as the floor allows.
    pub(super) fn settle(&mut self, now: Instant, unit: u32, why: Why) {
        let verdict = self.all.verdict(unit);
        if verdict == self.all.units[unit as usize].state {
            self.all.floors.release(unit);
            return;
        }
        if verdict != Health::Down {
            self.turn(now, unit, verdict, why);
        } else if self.all.units[unit as usize].state != Health::Up || self.all.floors.may_go(unit) {
            let why = self.all.fault(unit).unwrap_or(why);
            self.turn(now, unit, verdict, why);
        } else if self.all.floors.keep(unit, now) {
            self.report(now, unit, Happened::KeptByFloor, why);
        }
        if verdict == Health::Up {
            while let Some(next) = self.all.floors.next_to_release(unit) {
                let why = self.all.fault(next).unwrap_or(Why::Released);
                self.turn(now, next, Health::Down, why);
            }
        }
    }

    pub(super) fn turn(&mut self, now: Instant, unit: u32, state: Health, why: Why) {
        self.changes += 1;
        self.all.floors.release(unit);
        self.all.floors.set(unit, state == Health::Up);
        self.all.learned(unit);
        let place = &mut self.all.units[unit as usize];
        (place.state, place.since) = (state, now);
        match state {
            Health::Up => self.report(now, unit, Happened::Up, why),
            Health::Down => self.report(now, unit, Happened::Down, why),
            Health::Unknown => {}
        }
    }

    fn report(&mut self, at: Instant, unit: u32, what: Happened, why: Why) {
        let place = &self.all.units[unit as usize];
        let (v6, port) = (place.v6, place.port);
        let server = &mut self.all.servers[place.server as usize];
        server.history.push(HistoryEntry { at, v6, port, what, why: why.clone() });
        let server = server.id;
        if what == Happened::KeptByFloor {
            self.push_event(HealthEvent::KeptByFloor { server, v6, port, at, why });
        } else if !self.forced.contains_key(&server) {
            self.push_event(HealthEvent::Transition { server, v6, port, up: what == Happened::Up, at, why });
        }
    }

    /// Forces a server up or down, whatever its monitors say, until [`Monitors::release`]; it need not be monitored.
    ///
    /// This ignores the floor: it is a deliberate act.
    pub fn force(&mut self, now: Instant, server: ServerId, up: bool) {
        let before = self.forced.insert(server, up);
        self.overrule(now, server, before, Some(up), Why::Forced);
    }

    /// Lets the monitors decide again; a server that is not monitored is up.
    pub fn release(&mut self, now: Instant, server: ServerId) {
        if let Some(before) = self.forced.remove(&server) {
            self.overrule(now, server, Some(before), None, Why::Released);
        }
    }

    /// Reports the change in each family from one forced state to another; none stands for the verdict of the monitors.
    fn overrule(&mut self, at: Instant, server: ServerId, before: Option<bool>, after: Option<bool>, why: Why) {
        let place = self.all.find(server);
        let mut changed = Vec::new();
        match place {
            Some(place) if self.all.servers[place].units.iter().any(|units| !units.is_empty()) => {
                for unit in self.all.servers[place].units.iter().flatten() {
                    let unit = &self.all.units[*unit as usize];
                    let own = unit.state == Health::Up;
                    if before.unwrap_or(own) != after.unwrap_or(own) {
                        changed.push((unit.v6, unit.port, after.unwrap_or(own)));
                    }
                }
            }
            _ if before.unwrap_or(true) != after.unwrap_or(true) => {
                changed.extend([false, true].map(|v6| (v6, None, after.unwrap_or(true))));
            }
            _ => {}
        }
        for (v6, port, up) in changed {
            let what = if up { Happened::Up } else { Happened::Down };
            if let Some(place) = place {
                self.all.servers[place].version = self.all.servers[place].version.wrapping_add(1);
                self.all.servers[place].history.push(HistoryEntry { at, v6, port, what, why: why.clone() });
            }
            self.push_event(HealthEvent::Transition { server, v6, port, up, at, why: why.clone() });
        }
    }
}
