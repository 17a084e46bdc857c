//! Verdicts of monitors, saved and recalled by another process: a server that was down gets no flows until it answers.
//!
//! The results that led to a verdict stay behind, and so does the history.

use super::Monitors;
use crate::ids::ServerId;
use crate::state::Health;
use crate::time::Instant;
use std::net::IpAddr;

/// The verdict of one monitor on one address and port of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedVerdict {
    /// The server.
    pub server: ServerId,
    /// The monitor's name, unique in its pool.
    pub monitor: String,
    /// The kind of its probe: `icmp`, `tcp`, `http`, `udp` or `dns`.
    pub probe: String,
    /// The probed address.
    pub address: IpAddr,
    /// The probed port; 0 for ICMP.
    pub port: u16,
    /// The verdict.
    pub verdict: Health,
    /// The health of the address or port after all monitors and the floor.
    pub state: Health,
    /// When that last changed.
    pub since: Instant,
}

impl Monitors {
    /// Returns the verdicts from a position on.
    pub fn verdicts(&self, from: usize) -> impl Iterator<Item = SavedVerdict> + '_ {
        self.all.targets.iter().skip(from).map(|target| {
            let unit = &self.all.units[target.unit as usize];
            let settings = &self.all.monitors[target.monitor as usize].settings;
            SavedVerdict {
                server: self.all.servers[unit.server as usize].id,
                monitor: settings.name.clone(),
                probe: settings.probe.name().into(),
                address: target.address,
                port: target.port,
                verdict: target.judge.state(),
                state: unit.state,
                since: unit.since,
            }
        })
    }

    /// Recalls a verdict, and the state that resulted; returns false if no monitor gives it. To be called before any
    /// packet or timeout is handled, and followed by [`Monitors::recalled`].
    pub fn recall(&mut self, saved: &SavedVerdict) -> bool {
        let found = self.find_target(saved);
        for (unit, target) in found.iter().copied() {
            self.all.targets[target as usize].judge.recall(saved.verdict);
            let unit = &mut self.all.units[unit as usize];
            (unit.state, unit.since) = (saved.state, saved.since);
        }
        !found.is_empty()
    }

    /// Makes states of the recalled verdicts: a unit that its floor kept is kept again.
    pub fn recalled(&mut self, now: Instant) {
        let since: Vec<Instant> = self.all.units.iter().map(|unit| unit.since).collect();
        if !self.started {
            self.start(now);
        }
        // Which units the floor keeps is known only once all units that may go down are down.
        for keep in [false, true] {
            for (unit, since) in (0..).zip(&since) {
                let (verdict, was) = (self.all.verdict(unit), self.all.units[unit as usize].state);
                let mut state = verdict;
                if verdict == Health::Down && was == Health::Up {
                    if keep && !self.all.floors.may_go(unit) {
                        self.all.floors.keep(unit, *since);
                    }
                    // The first pass leaves it up so that the second can decide.
                    if !keep || self.all.floors.is_kept(unit) {
                        state = Health::Up;
                    }
                }
                self.all.floors.set(unit, state == Health::Up);
                let place = &mut self.all.units[unit as usize];
                if was != state {
                    (place.state, place.since) = (state, now);
                } else if !keep {
                    place.since = *since;
                }
            }
        }
    }
}
