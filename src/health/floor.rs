//! The floor: how many servers must stay in service whatever the monitors say, and which servers it keeps.
//!
//! A seat is one port of a server in one family: it is in service while all its units are up. The seats of one pool,
//! family and port form a group, and each group has a floor. It must know neither probes nor reasons.

use crate::time::Instant;
use std::collections::BTreeSet;

/// Maximum number of kept units examined per release; the others wait for the next one.
const MOST_TRIES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Floors {
    groups: Vec<Group>,
    seats: Vec<Seat>,
    units: Vec<Unit>,
}

#[derive(Debug)]
struct Group {
    least: u32,
    inside: u32,
    kept: BTreeSet<(Instant, u32)>,
}

#[derive(Debug)]
struct Seat {
    group: u32,
    /// Number of its units that are not up.
    out: u32,
}

#[derive(Debug)]
struct Unit {
    up: bool,
    kept: Option<Instant>,
    seats: Vec<u32>,
}

impl Floors {
    /// Adds a group with a floor of zero; returns its number.
    pub(super) fn add_group(&mut self) -> u32 {
        self.groups.push(Group { least: 0, inside: 0, kept: BTreeSet::new() });
        self.groups.len() as u32 - 1
    }

    pub(super) fn set_least(&mut self, group: u32, least: u32) {
        self.groups[group as usize].least = least;
    }

    /// Adds the unit with the next number.
    pub(super) fn add_unit(&mut self, up: bool) {
        self.units.push(Unit { up, kept: None, seats: Vec::new() });
    }

    /// Adds a seat that consists of these units.
    pub(super) fn add_seat(&mut self, group: u32, units: &[u32]) {
        let seat = self.seats.len() as u32;
        let mut out = 0;
        for unit in units {
            let unit = &mut self.units[*unit as usize];
            unit.seats.push(seat);
            out += u32::from(!unit.up);
        }
        self.groups[group as usize].inside += u32::from(out == 0);
        self.seats.push(Seat { group, out });
    }

    /// Tests whether a unit may go down without taking any group below its floor.
    pub(super) fn may_go(&self, unit: u32) -> bool {
        self.units[unit as usize].seats.iter().map(|seat| &self.seats[*seat as usize]).all(|seat| {
            let group = &self.groups[seat.group as usize];
            seat.out > 0 || group.inside > group.least
        })
    }

    /// Records whether a unit is up.
    pub(super) fn set(&mut self, unit: u32, up: bool) {
        if self.units[unit as usize].up == up {
            return;
        }
        self.units[unit as usize].up = up;
        for seat in &self.units[unit as usize].seats {
            let seat = &mut self.seats[*seat as usize];
            let group = &mut self.groups[seat.group as usize];
            if up {
                seat.out -= 1;
                group.inside += u32::from(seat.out == 0);
            } else {
                group.inside -= u32::from(seat.out == 0);
                seat.out += 1;
            }
        }
    }

    /// Marks a unit as kept by the floor; returns false if it was kept already.
    pub(super) fn keep(&mut self, unit: u32, at: Instant) -> bool {
        if self.units[unit as usize].kept.is_some() {
            return false;
        }
        self.units[unit as usize].kept = Some(at);
        for seat in &self.units[unit as usize].seats {
            self.groups[self.seats[*seat as usize].group as usize].kept.insert((at, unit));
        }
        true
    }

    /// Marks a unit as no longer kept by the floor.
    pub(super) fn release(&mut self, unit: u32) {
        let Some(at) = self.units[unit as usize].kept.take() else { return };
        for seat in &self.units[unit as usize].seats {
            self.groups[self.seats[*seat as usize].group as usize].kept.remove(&(at, unit));
        }
    }

    pub(super) fn is_kept(&self, unit: u32) -> bool {
        self.units[unit as usize].kept.is_some()
    }

    /// Returns the unit that has been kept for the longest time and may go down because `unit` came up.
    pub(super) fn next_to_release(&self, unit: u32) -> Option<u32> {
        let groups = self.units[unit as usize].seats.iter().map(|seat| self.seats[*seat as usize].group);
        groups
            .filter(|group| self.groups[*group as usize].inside > self.groups[*group as usize].least)
            .filter_map(|group| {
                let mut kept = self.groups[group as usize].kept.iter().take(MOST_TRIES);
                kept.find(|(_, unit)| self.may_go(*unit)).copied()
            })
            .min()
            .map(|(_, unit)| unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Instant {
        Instant::from_nanos(n)
    }

    /// `servers` servers with one unit for the address (even numbers) and one for a port (odd ones).
    fn floors(servers: u32, least: u32) -> Floors {
        let mut floors = Floors::default();
        let group = floors.add_group();
        for server in 0..servers {
            floors.add_unit(true);
            floors.add_unit(true);
            floors.add_seat(group, &[server * 2, server * 2 + 1]);
        }
        floors.set_least(group, least);
        floors
    }

    #[test]
    fn a_server_is_in_service_while_both_its_units_are_up() {
        let mut floors = floors(3, 1);
        floors.set(0, false);
        assert_eq!(floors.groups[0].inside, 2);
        floors.set(1, false);
        assert_eq!(floors.groups[0].inside, 2, "it was out of service already");
        floors.set(0, true);
        assert_eq!(floors.groups[0].inside, 2, "its port is still down");
        floors.set(3, false);
        assert_eq!(floors.groups[0].inside, 1);
        assert!(!floors.may_go(4) && !floors.may_go(5), "the last one");
        assert!(floors.may_go(2), "its server is out of service already");
        floors.set(1, true);
        assert!(floors.may_go(4));
    }

    #[test]
    fn kept_units_go_oldest_first_when_another_comes_up() {
        let mut floors = floors(3, 1);
        floors.set(0, false);
        floors.set(2, false);
        assert!(floors.keep(4, at(5)));
        assert!(!floors.keep(4, at(6)), "reported once");
        floors.set(0, true);
        floors.set(2, true);
        floors.keep(2, at(3));
        assert_eq!(floors.next_to_release(0), Some(2));
        floors.release(2);
        assert_eq!(floors.next_to_release(0), Some(4));
        floors.set(0, false);
        floors.set(2, false);
        assert_eq!(floors.next_to_release(0), None);
    }
}
