//! Monitors that follow the verdicts of others: those of the active gateway of a pair.
//!
//! What others have told is not probed; what they do not tell is. When a target is probed again, no result of earlier counts: a
//! server stays up until as many probes as its monitor needs have failed, whatever became of earlier ones.

use super::judge::Judge;
use super::targets::Target;
use super::{Monitors, SavedVerdict, Why};
use crate::state::Health;
use crate::time::Instant;

impl Target {
    /// Returns whether it is not probed here.
    pub(super) fn rests(&self) -> bool {
        self.told != 0
    }
}

impl Monitors {
    /// Returns whether they follow verdicts of others.
    pub fn follows(&self) -> bool {
        self.follows
    }

    /// Returns how many targets are probed here.
    pub fn probed_here(&self) -> usize {
        self.all.targets.iter().filter(|target| !target.rests()).count()
    }

    /// Begins to follow others, who now send all their verdicts. A target that they report is not probed here; one that they
    /// reported earlier is not either, until all verdicts have come ([`Monitors::told_all`]).
    pub fn begin_following(&mut self, now: Instant) {
        if !self.started {
            self.start(now);
        }
        self.follows = true;
        self.round = self.round.wrapping_add(1).max(1);
    }

    /// All verdicts have been told: the targets that are not among them are probed here, and count along with those that
    /// are.
    pub fn told_all(&mut self, now: Instant) {
        let round = self.round;
        self.is_told_all = self.follows;
        self.wake(now, |told| told != round);
        for unit in 0..self.all.units.len() as u32 {
            if self.is_mixed(unit) {
                self.settle(now, unit, Why::ActiveGateway);
            }
        }
    }

    /// Ends following others, without a verdict: the first probes are spread over their intervals.
    pub fn stop_following(&mut self, now: Instant) {
        (self.follows, self.is_told_all) = (false, false);
        self.wake(now, |_| true);
    }

    /// Probes targets again that others told in such a round.
    fn wake(&mut self, now: Instant, is_meant: impl Fn(u32) -> bool) {
        for id in 0..self.all.targets.len() {
            let target = &mut self.all.targets[id];
            if target.rests() && is_meant(target.told) {
                target.told = 0;
                let unit = target.unit;
                self.all.learned(unit);
                self.schedule_first(now, id as u32);
            }
        }
    }

    /// Has a target rest. An outstanding probe ends without a verdict.
    fn rest(&mut self, now: Instant, id: u32) {
        if std::mem::replace(&mut self.all.targets[id as usize].told, self.round) != 0 {
            return;
        }
        self.abandon(now, id);
        self.schedule.set(id, Instant::FAR);
    }

    /// Returns whether some of a unit's targets are probed here although all verdicts of others have been told: its state is
    /// decided here.
    fn is_mixed(&self, unit: u32) -> bool {
        let targets = &self.all.units[unit as usize].targets;
        let rests = targets.iter().filter(|id| self.all.targets[**id as usize].rests()).count();
        self.is_told_all && rests > 0 && rests < targets.len()
    }

    /// Returns a number that changes with every verdict and state.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns how many verdicts there are.
    pub fn verdict_count(&self) -> usize {
        self.all.targets.len()
    }

    /// Returns the verdict at a position, and the state that results.
    pub fn verdict(&self, at: usize) -> Option<(Health, Health)> {
        let target = self.all.targets.get(at)?;
        Some((target.judge.state(), self.all.units[target.unit as usize].state))
    }

    /// Makes a verdict of others, and the state that results there, one's own; returns false if no monitor gives it. Its
    /// target rests from now on while others are followed.
    pub fn take_verdict(&mut self, now: Instant, saved: &SavedVerdict) -> bool {
        if !self.started {
            self.start(now);
        }
        let found = self.find_target(saved);
        for (unit, target) in found.iter().copied() {
            if self.follows {
                self.rest(now, target);
            }
            let judge = &mut self.all.targets[target as usize].judge;
            *judge = Judge::after(saved.verdict, judge.why());
            self.all.learned(unit);
            if self.is_mixed(unit) {
                self.settle(now, unit, Why::ActiveGateway);
                continue;
            }
            if saved.state != self.all.units[unit as usize].state {
                self.turn(now, unit, saved.state, Why::ActiveGateway);
            }
            // Which servers a floor keeps is decided there.
            if saved.state == Health::Up && self.all.verdict(unit) == Health::Down {
                self.all.floors.keep(unit, saved.since);
            } else {
                self.all.floors.release(unit);
            }
        }
        !found.is_empty()
    }

    /// Returns the targets that a verdict is about, and their units.
    pub(super) fn find_target(&self, saved: &SavedVerdict) -> Vec<(u32, u32)> {
        let Some(place) = self.all.find(saved.server) else { return Vec::new() };
        let units = &self.all.servers[place].units[usize::from(saved.address.is_ipv6())];
        let all = units.iter().flat_map(|unit| self.all.units[*unit as usize].targets.iter().map(|id| (*unit, *id)));
        let is_meant = |(_, id): &(u32, u32)| {
            let target = &self.all.targets[*id as usize];
            let settings = &self.all.monitors[target.monitor as usize].settings;
            (target.address, target.port) == (saved.address, saved.port)
                && (settings.name == saved.monitor && settings.probe.name() == saved.probe)
        };
        all.filter(is_meant).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Floor, MonitorSettings, Probe};
    use super::super::testing::*;
    use super::*;
    use crate::ids::ServerId;
    use crate::time::Duration;

    fn told(health: &Monitors, server: u32, verdict: Health, state: Health) -> SavedVerdict {
        let saved = health.verdicts(0).find(|saved| saved.server == ServerId(server)).unwrap();
        SavedVerdict { verdict, state, ..saved }
    }

    #[test]
    fn what_is_told_is_not_probed_and_holds_until_own_probes_fail() {
        let all = settings(2, "4", vec![MonitorSettings { rise: 1, ..monitor(Probe::Icmp) }]);
        let mut sim = Sim::new(&all);
        // Nobody answers here: all are down, and one more failure would not be the first.
        sim.run(Duration::from_secs(20), &mut |_, _| vec![]);
        assert!((0..2).all(|n| sim.health.state(ServerId(n), false, 80) == Health::Down));
        sim.health.begin_following(sim.now);
        let before = sim.health.changes();
        let verdict = told(&sim.health, 0, Health::Up, Health::Up);
        assert!(sim.health.take_verdict(sim.now, &verdict) && sim.health.changes() != before);
        let verdict = told(&sim.health, 1, Health::Down, Health::Down);
        assert!(sim.health.take_verdict(sim.now, &verdict));
        sim.health.told_all(sim.now);
        let mut sent = 0;
        sim.run(Duration::from_secs(60), &mut |_, _| {
            sent += 1;
            vec![]
        });
        assert_eq!(sent, 0);
        assert_eq!(sim.health.state(ServerId(0), false, 80), Health::Up);
        assert_eq!(sim.health.verdict(0), Some((Health::Up, Health::Up)));
        // From now on by itself: it takes as many failures as at any time.
        sim.health.stop_following(sim.now);
        let (begin, interval) = (sim.now, all.pools[0].monitors[0].interval);
        sim.run(interval, &mut |_, _| {
            sent += 1;
            vec![]
        });
        assert!(sent >= 2, "both are probed within an interval");
        assert_eq!(sim.health.state(ServerId(0), false, 80), Health::Up);
        sim.run(interval * 6, &mut |_, _| vec![]);
        assert_eq!(sim.health.state(ServerId(0), false, 80), Health::Down);
        assert!(sim.now.since(begin) >= interval * 3);
    }

    #[test]
    fn a_server_that_the_floor_keeps_there_is_kept_here() {
        let mut all = settings(2, "4", vec![monitor(Probe::Icmp)]);
        all.pools[0].floor = Floor::Count(1);
        let mut sim = Sim::new(&all);
        sim.health.begin_following(sim.now);
        for (server, state) in [(1, Health::Down), (0, Health::Up)] {
            let verdict = told(&sim.health, server, Health::Down, state);
            assert!(sim.health.take_verdict(sim.now, &verdict));
        }
        let rows = sim.health.rows(sim.now);
        let of = |n: usize| (rows[n].verdict, rows[n].state, rows[n].kept_by_floor);
        assert_eq!([of(0), of(1)], [(Health::Down, Health::Up, true), (Health::Down, Health::Down, false)]);
        let unknown = SavedVerdict { monitor: "another".into(), ..told(&sim.health, 0, Health::Up, Health::Up) };
        assert!(!sim.health.take_verdict(sim.now, &unknown));
    }
}
