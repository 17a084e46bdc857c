//! Monitors that rest and follow the verdicts of others: those of the active gateway of a pair.
//!
//! They keep what they were told last. When they go on by themselves, no result of earlier counts: a server stays up until as
//! many probes as its monitor needs have failed, whatever became of earlier ones.

use super::judge::Judge;
use super::{Monitors, SavedVerdict, Why};
use crate::state::Health;
use crate::time::Instant;

impl Monitors {
    /// Returns whether they probe nothing.
    pub fn rest(&self) -> bool {
        self.rests
    }

    /// Stops probing, without a verdict on outstanding probes, or begins again: the first probes are spread over their
    /// intervals.
    pub fn set_rest(&mut self, now: Instant, rests: bool) {
        if self.rests == rests {
            return;
        }
        if !self.started {
            self.start(now);
        }
        self.rests = rests;
        if !rests {
            return self.schedule_all(now);
        }
        // No closed connection begins another probe.
        self.waiting.clear();
        for id in 0..self.all.targets.len() as u32 {
            self.abandon(now, id);
            self.schedule.set(id, Instant::FAR);
        }
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

    /// Makes a verdict of others, and the state that results there, one's own; returns false if no monitor gives it.
    pub fn take_verdict(&mut self, now: Instant, saved: &SavedVerdict) -> bool {
        if !self.started {
            self.start(now);
        }
        let found = self.find_target(saved);
        for (unit, target) in found.iter().copied() {
            let judge = &mut self.all.targets[target as usize].judge;
            *judge = Judge::after(saved.verdict, judge.why());
            self.all.learned(unit);
            if saved.state != self.all.units[unit as usize].state {
                self.turn(now, unit, saved.state, Why::Told);
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
    fn monitors_that_rest_send_nothing_and_keep_what_they_are_told_until_probes_of_their_own_fail() {
        let all = settings(2, "4", vec![MonitorSettings { rise: 1, ..monitor(Probe::Icmp) }]);
        let mut sim = Sim::new(&all);
        // Nobody answers here: all are down, and one more failure would not be the first.
        sim.run(Duration::from_secs(20), &mut |_, _| vec![]);
        assert!((0..2).all(|n| sim.health.state(ServerId(n), false, 80) == Health::Down));
        sim.health.set_rest(sim.now, true);
        let before = sim.health.changes();
        let verdict = told(&sim.health, 0, Health::Up, Health::Up);
        assert!(sim.health.take_verdict(sim.now, &verdict) && sim.health.changes() != before);
        let mut sent = 0;
        sim.run(Duration::from_secs(60), &mut |_, _| {
            sent += 1;
            vec![]
        });
        assert_eq!(sent, 0);
        assert_eq!(sim.health.state(ServerId(0), false, 80), Health::Up);
        assert_eq!(sim.health.verdict(0), Some((Health::Up, Health::Up)));
        // From now on by itself: it takes as many failures as at any time.
        sim.health.set_rest(sim.now, false);
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
        sim.health.set_rest(sim.now, true);
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
