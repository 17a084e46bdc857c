//! State that the monitors of changed settings inherit from the previous ones, so that a reload resets nothing.

use super::Monitors;
use super::judge::Judge;
use super::probes::{Key, protocol_of};
use super::settings::MonitorSettings;
use super::targets::{Server, Target};
use crate::ids::ServerId;
use crate::state::Health;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How far monitors have come with what they inherit.
#[derive(Debug, Clone, Default)]
pub struct Heritage {
    pass: Pass,
    next: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Pass {
    #[default]
    Results,
    States,
    Kept,
    Done,
}

impl Pass {
    const fn next(self) -> Pass {
        match self {
            Pass::Results => Pass::States,
            Pass::States => Pass::Kept,
            Pass::Kept | Pass::Done => Pass::Done,
        }
    }
}

impl Monitors {
    /// Takes over the verdicts, windows, states, histories, loads and overrides of `old`, and whether it observes.
    ///
    /// `was` returns the number of a server in the old settings, none for a new server. Monitors of one address and port
    /// are the same if they have the same name, or else the same probe. With the same probe, all results are taken over;
    /// with another, the verdict alone. A monitor that is new to a server that is down begins with that: no server that is down
    /// gets flows until it has been probed. Outstanding probes go on; those of HTTP, which have a connection, begin anew, and
    /// fail after twice their time. No events result. Must be called before any other method.
    pub fn inherit(&mut self, now: Instant, old: &Monitors, was: impl Fn(ServerId) -> Option<ServerId>) {
        let mut heritage = Heritage::default();
        while self.inherit_part(now, old, &was, &mut heritage, usize::MAX) {}
        self.take_outstanding(now, old, was);
    }

    /// Does the same for at most `most` servers, as far as it has not been done; returns true if there is more. What `old`
    /// learns in the meantime of servers that have had their turn is forgotten.
    pub fn inherit_part(
        &mut self,
        now: Instant,
        old: &Monitors,
        was: impl Fn(ServerId) -> Option<ServerId>,
        heritage: &mut Heritage,
        most: usize,
    ) -> bool {
        if heritage.pass == Pass::Results && heritage.next == 0 {
            self.observe(old.observer.is_some());
            (self.follows, self.is_told_all, self.round) = (old.follows, old.is_told_all, old.round);
            self.number_on(old);
            self.start(now);
        }
        let end = self.all.servers.len().min(heritage.next.saturating_add(most));
        let places = heritage.next..end;
        match heritage.pass {
            Pass::Results => places.for_each(|place| self.inherit_results(now, place, old, &was)),
            // Which units the floor keeps is known only once all units that may go down are down.
            Pass::States => places.for_each(|place| self.inherit_states(place, old, &was, false)),
            Pass::Kept => places.for_each(|place| self.inherit_states(place, old, &was, true)),
            Pass::Done => return false,
        }
        heritage.next = end;
        if end == self.all.servers.len() {
            *heritage = Heritage { pass: heritage.pass.next(), next: 0 };
        }
        true
    }

    /// Does again what `old` has learned since servers had their turn, and takes over which servers are forced up or down,
    /// monitored or not; `was` returns the same number or none. Returns whether the state of any server may have changed.
    pub fn catch_up(&mut self, now: Instant, old: &Monitors, was: impl Fn(ServerId) -> Option<ServerId>) -> bool {
        self.number_on(old);
        (self.follows, self.is_told_all, self.round) = (old.follows, old.is_told_all, old.round);
        let is_there = |id: &ServerId| was(*id) == Some(*id);
        let forced: BTreeMap<_, _> =
            old.forced.iter().filter(|(id, _)| is_there(id)).map(|(id, up)| (*id, *up)).collect();
        let mut changed = std::mem::replace(&mut self.forced, forced) != self.forced;
        for place in 0..self.all.servers.len() {
            let id = self.all.servers[place].id;
            let Some(before) = was(id).and_then(|before| old.all.find(before)) else { continue };
            if old.all.servers[before].version != self.all.servers[place].version {
                self.inherit_results(now, place, old, &was);
                self.inherit_states(place, old, &was, true);
                changed = true;
            }
        }
        self.take_outstanding(now, old, was);
        changed
    }

    /// Takes over the probes that have no result yet: however often there is a reload, each comes to its end.
    fn take_outstanding(&mut self, now: Instant, old: &Monitors, was: impl Fn(ServerId) -> Option<ServerId>) {
        let same = (self.source_v4, self.source_v6) == (old.source_v4, old.source_v6);
        if !same || self.observer.is_some() || old.outstanding.is_empty() {
            return;
        }
        for place in 0..self.all.servers.len() {
            let Some(before) = was(self.all.servers[place].id).and_then(|before| old.all.find(before)) else {
                continue;
            };
            let before = &old.all.servers[before];
            let units = before.units.iter().flatten().flat_map(|unit| &old.all.units[*unit as usize].targets);
            if units.into_iter().all(|target| old.all.targets[*target as usize].probe.is_none()) {
                continue;
            }
            let judges = judges(old, before);
            for unit in self.all.servers[place].units.iter().flatten() {
                for id in &self.all.units[*unit as usize].targets {
                    let target = &mut self.all.targets[*id as usize];
                    let settings = &self.all.monitors[target.monitor as usize].settings;
                    let Some(before) = former(target, settings, old, &judges) else { continue };
                    let Some(probe) = before.probe.filter(|_| target.probe.is_none()) else { continue };
                    if old.all.monitors[before.monitor as usize].settings.probe != settings.probe {
                        continue;
                    }
                    if probe.slot.is_some() {
                        target.waits_since = before.waits_since.or(Some(probe.started));
                        target.due = now;
                        self.schedule.set(*id, now);
                        continue;
                    }
                    let protocol = protocol_of(&settings.probe, target.address);
                    let key = Key { address: target.address, protocol, ours: probe.ours, theirs: target.port };
                    target.probe = Some(probe);
                    target.due = before.due.max(now).min(now + settings.interval);
                    self.outstanding.insert(key, *id);
                    self.schedule.set(*id, (probe.started + settings.timeout).max(now));
                }
            }
        }
    }

    /// Goes on with the numbers of `old`: replies to its probes are none to new ones, and servers may still know its ports.
    fn number_on(&mut self, old: &Monitors) {
        (self.numbers, self.next_port) = (old.numbers.clone(), old.next_port);
        (self.echo, self.lapsed, self.totals) = (old.echo, old.lapsed, old.totals.clone());
        self.changes = old.changes + 1;
    }

    fn inherit_results(
        &mut self,
        now: Instant,
        place: usize,
        old: &Monitors,
        was: impl Fn(ServerId) -> Option<ServerId>,
    ) {
        let id = self.all.servers[place].id;
        let Some(before) = was(id).and_then(|before| old.all.find(before)) else { return };
        let before = &old.all.servers[before];
        self.take_judges(now, place, old, before);
        let server = &mut self.all.servers[place];
        server.history = before.history.clone();
        (server.load, server.version) = (before.load, before.version);
        if let Some(up) = old.forced.get(&before.id) {
            self.forced.insert(id, *up);
        }
    }

    fn inherit_states(&mut self, place: usize, old: &Monitors, was: impl Fn(ServerId) -> Option<ServerId>, keep: bool) {
        let before = was(self.all.servers[place].id).and_then(|before| old.all.find(before));
        self.take_states(place, old, before.map(|before| &old.all.servers[before]), keep);
    }

    fn take_judges(&mut self, now: Instant, place: usize, old: &Monitors, before: &Server) {
        let (judges, mut again) = (judges(old, before), Vec::new());
        let was = |target: &Target| before.health(old, target.address.is_ipv6(), target.port);
        for unit in self.all.servers[place].units.iter().flatten() {
            for id in &self.all.units[*unit as usize].targets {
                let target = &mut self.all.targets[*id as usize];
                let settings = &self.all.monitors[target.monitor as usize].settings;
                let of = |before: &Target| &old.all.monitors[before.monitor as usize].settings;
                let former = former(target, settings, old, &judges);
                // Others tell verdicts by the names of monitors.
                let is_same = |before: &&Target| {
                    (&of(before).name, of(before).probe.name()) == (&settings.name, settings.probe.name())
                };
                let rested = target.rests();
                target.told = former.filter(is_same).map_or(0, |before| before.told);
                match former {
                    Some(before) if of(before).probe == settings.probe => {
                        target.judge = before.judge.clone();
                        target.last = before.last.clone();
                        target.let_off = before.let_off;
                        if self.observer.is_none() && old.started && !target.rests() {
                            // However often there is a reload, its turn comes.
                            target.due = before.due.max(now).min(now + settings.interval);
                            self.schedule.set(*id, target.due);
                        }
                    }
                    Some(before) => target.judge = Judge::after(before.judge.state(), before.judge.why()),
                    None if was(target) == Health::Down => target.judge = Judge::after(Health::Down, None),
                    None => {}
                }
                if target.rests() {
                    self.schedule.set(*id, Instant::FAR);
                } else if rested {
                    again.push(*id);
                }
            }
        }
        again.into_iter().for_each(|id| self.schedule_first(now, id));
    }

    /// Sets the states to the verdicts of the monitors; in the second pass (`keep`), units that the floor kept stay up.
    fn take_states(&mut self, place: usize, old: &Monitors, before: Option<&Server>, keep: bool) {
        for unit in self.all.servers[place].units.clone().into_iter().flatten() {
            let verdict = self.all.verdict(unit);
            let this = &self.all.units[unit as usize];
            let before = before.into_iter().flat_map(|server| server.units.iter().flatten());
            let was = before.map(|b| &old.all.units[*b as usize]).find(|b| b.v6 == this.v6 && b.port == this.port);
            let mut state = verdict;
            if verdict == Health::Down && was.is_some_and(|was| was.state == Health::Up) {
                if keep && !self.all.floors.may_go(unit) {
                    self.all.floors.keep(unit, was.map_or(Instant::ZERO, |was| was.since));
                }
                // The first pass leaves it up so that the second can decide.
                if !keep || self.all.floors.is_kept(unit) {
                    state = Health::Up;
                }
            }
            if self.all.floors.is_kept(unit) && verdict != Health::Down {
                self.all.floors.release(unit);
            }
            let since = was.filter(|was| was.state == state).map_or(this.since, |was| was.since);
            self.all.floors.set(unit, state == Health::Up);
            let this = &mut self.all.units[unit as usize];
            (this.state, this.since) = (state, since);
        }
    }
}

/// The targets of a server by address and port.
type Judges<'m> = BTreeMap<(IpAddr, u16), Vec<&'m Target>>;

fn judges<'m>(old: &'m Monitors, before: &Server) -> Judges<'m> {
    let mut judges = Judges::new();
    for unit in before.units.iter().flatten() {
        for target in &old.all.units[*unit as usize].targets {
            let target = &old.all.targets[*target as usize];
            judges.entry((target.address, target.port)).or_default().push(target);
        }
    }
    judges
}

/// Returns what a target was: of the monitor of the same name, or else with the same probe.
fn former<'m>(
    target: &Target,
    settings: &MonitorSettings,
    old: &'m Monitors,
    judges: &Judges<'m>,
) -> Option<&'m Target> {
    let there = || judges.get(&(target.address, target.port)).into_iter().flatten().copied();
    let of = |before: &Target| &old.all.monitors[before.monitor as usize].settings;
    let named = there().find(|before| of(before).name == settings.name);
    named.or_else(|| there().find(|before| of(before).probe == settings.probe))
}

impl Server {
    /// Returns the health of an address and port of a server that is among `all`.
    fn health(&self, all: &Monitors, v6: bool, port: u16) -> Health {
        let units = self.units[usize::from(v6)].iter().map(|unit| &all.all.units[*unit as usize]);
        Health::worst(units.filter(|unit| unit.port.is_none_or(|own| own == port)).map(|unit| unit.state))
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Floor, Probe};
    use super::super::testing::*;
    use super::*;
    use crate::packet::parse;
    use crate::time::Duration;

    #[test]
    fn a_reload_keeps_states_windows_and_the_units_kept_by_the_floor() {
        let fall_1 = MonitorSettings { fall: 1, rise: 1, ..monitor(Probe::Icmp) };
        let mut all = settings(3, "4", vec![fall_1]);
        all.pools[0].floor = Floor::Count(1);
        let mut sim = Sim::new(&all);
        sim.run(Duration::from_secs(3), &mut |_, _| vec![]);
        let up = |health: &Monitors| {
            (0..health.all.servers.len() as u32)
                .filter(|i| health.state(ServerId(*i), false, 80) == Health::Up)
                .collect::<Vec<_>>()
        };
        let kept = up(&sim.health);
        assert_eq!(kept.len(), 1);

        // One server is removed from the settings: those after it move up by one number.
        let mut fewer = all.clone();
        let gone = (kept[0] + 1) % 3;
        fewer.pools[0].servers.retain(|server| server.server.0 != gone);
        for (id, server) in (0..).zip(&mut fewer.pools[0].servers) {
            server.server = ServerId(id);
        }
        let was = |id: ServerId| Some(ServerId(if id.0 >= gone { id.0 + 1 } else { id.0 }));
        let mut reloaded = Monitors::new(&fewer);
        reloaded.inherit(sim.now, &sim.health, was);
        let states: Vec<u32> = up(&reloaded).iter().map(|id| was(ServerId(*id)).unwrap().0).collect();
        assert_eq!(states, kept);
        assert!(reloaded.rows(sim.now).iter().all(|row| row.sent >= 2 && row.lost == row.sent));
        assert_eq!(reloaded.rows(sim.now).iter().filter(|row| row.kept_by_floor).count(), 1);
        assert_eq!((reloaded.poll_event(), reloaded.history(ServerId(0)).count()), (None, 1));

        // The server that is down comes up: the one that the floor kept goes down.
        sim.health = reloaded;
        sim.events.clear();
        let alive = kept[0] + 1;
        sim.run(Duration::from_secs(2), &mut |packet, _| {
            let parsed = parse(packet).unwrap();
            let dead = parsed.addresses.dst() == std::net::IpAddr::from([10, 0, 0, alive as u8]);
            if dead { vec![] } else { soon(echo_reply(packet, &parsed)) }
        });
        assert_eq!(sim.reported().len(), 2);

        // Other limits apply to the results that there are; those of another probe are discarded, the verdict is not.
        let before: Vec<_> = sim.health.rows(sim.now).into_iter().map(|row| (row.verdict, row.sent)).collect();
        let mut inherit = |change: &dyn Fn(&mut MonitorSettings)| {
            change(&mut all.pools[0].monitors[0]);
            let mut changed = Monitors::new(&all);
            changed.inherit(sim.now, &sim.health, |id| (id.0 != gone).then(|| ServerId(id.0 - u32::from(id.0 > gone))));
            changed.rows(sim.now).into_iter().map(|row| (row.verdict, row.sent)).collect::<Vec<_>>()
        };
        let mut other_limits = inherit(&|monitor| monitor.fall = 2);
        assert_eq!(other_limits.remove(gone as usize), (Health::Up, 0), "a new server");
        assert_eq!(other_limits, before);
        let mut other_probe = inherit(&|monitor| monitor.probe = Probe::Tcp);
        assert_eq!(other_probe.remove(gone as usize), (Health::Up, 0));
        let verdicts = before.iter().map(|(verdict, _)| (*verdict, 0)).collect::<Vec<_>>();
        assert_eq!(other_probe, verdicts);
    }

    /// Replaces monitors by those of the same settings.
    fn reload(sim: &mut Sim, all: &crate::health::HealthSettings) {
        let mut reloaded = Monitors::new(all);
        reloaded.inherit(sim.now, &sim.health, Some);
        sim.health = reloaded;
    }

    #[test]
    fn servers_are_probed_and_judged_however_often_there_is_a_reload() {
        let slow = MonitorSettings { interval: Duration::from_secs(5), fall: 2, ..monitor(Probe::Tcp) };
        let all = settings(9, "4", vec![slow]);
        for millis in [700, 1000, 3000, 5000] {
            let mut sim = Sim::new(&all);
            for _ in 0..60_000 / millis {
                sim.run(Duration::from_millis(millis), &mut |_, _| vec![]);
                reload(&mut sim, &all);
            }
            assert!((0..9).all(|n| sim.health.state(ServerId(n), false, 80) == Health::Down), "{millis}");
            // They do not get more probes than without, apart from those that are repeated.
            assert!(sim.sent.len() <= 9 * (60 / 5 + 1 + 60_000 / millis as usize), "{millis}: {}", sim.sent.len());
        }
    }

    #[test]
    fn servers_are_judged_by_probes_that_take_longer_than_the_time_between_reloads() {
        for probe in [Probe::Icmp, Probe::Tcp, http(|_| {})] {
            let settings_of = MonitorSettings {
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(4),
                fall: 2,
                ..monitor(probe.clone())
            };
            let all = settings(3, "4", vec![settings_of]);
            for millis in [300, 1000, 3000] {
                let mut sim = Sim::new(&all);
                for _ in 0..90_000 / millis {
                    sim.run(Duration::from_millis(millis), &mut |_, _| vec![]);
                    reload(&mut sim, &all);
                }
                let down = |n| sim.health.state(ServerId(n), false, 80) == Health::Down;
                assert!((0..3).all(down), "{probe:?} {millis}");
            }
        }
        // One that answers late, but in time, is up.
        let late = MonitorSettings { timeout: Duration::from_secs(4), fall: 1, ..monitor(Probe::Icmp) };
        let all = settings(3, "4", vec![late]);
        let mut sim = Sim::new(&all);
        for _ in 0..60 {
            sim.run(Duration::from_millis(1000), &mut |packet, _| {
                let parsed = parse(packet).unwrap();
                vec![(Duration::from_millis(2500), echo_reply(packet, &parsed), crate::packet::Meta::default())]
            });
            reload(&mut sim, &all);
        }
        assert!((0..3).all(|n| sim.health.state(ServerId(n), false, 80) == Health::Up));
    }

    #[test]
    fn no_probe_after_a_reload_looks_like_one_from_before() {
        for probe in [Probe::Icmp, Probe::Tcp] {
            let all = settings(3, "4", vec![monitor(probe)]);
            let mut sim = Sim::new(&all);
            for _ in 0..9 {
                sim.run(Duration::from_millis(2500), &mut |_, _| vec![]);
                reload(&mut sim, &all);
            }
            // Without the identification of the IP header: that of echo requests, or ports and numbers.
            let mut sent: Vec<&[u8]> = sim.sent.iter().map(|(_, bytes)| &bytes[20..]).collect();
            let all = sent.len();
            sent.sort_unstable();
            sent.dedup();
            assert_eq!(sent.len(), all);
        }
    }
}
