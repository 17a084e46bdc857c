//! How many servers the monitors must leave in, and which of those that should go are held back.
//!
//! A seat is one server's port of one family: it is in while all its units are up. Seats of one pool, family
//! and port are a group, and each group has a floor. It knows no probes and no reasons.

use crate::time::Instant;
use std::collections::BTreeSet;

/// Units held back that one release looks at, at most: the rest waits for the next one.
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
    held: BTreeSet<(Instant, u32)>,
}

#[derive(Debug)]
struct Seat {
    group: u32,
    /// How many of its units are not up.
    out: u32,
}

#[derive(Debug)]
struct Unit {
    up: bool,
    held: Option<Instant>,
    seats: Vec<u32>,
}

impl Floors {
    /// Adds a group with a floor of zero; returns its number.
    pub fn add_group(&mut self) -> u32 {
        self.groups.push(Group { least: 0, inside: 0, held: BTreeSet::new() });
        self.groups.len() as u32 - 1
    }

    pub fn set_least(&mut self, group: u32, least: u32) {
        self.groups[group as usize].least = least;
    }

    /// Adds a unit in the order of their numbers.
    pub fn add_unit(&mut self, up: bool) {
        self.units.push(Unit { up, held: None, seats: Vec::new() });
    }

    /// Adds a seat of these units.
    pub fn add_seat(&mut self, group: u32, units: &[u32]) {
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

    /// Whether the unit may go down and every group keeps its floor.
    pub fn may_go(&self, unit: u32) -> bool {
        self.units[unit as usize].seats.iter().map(|seat| &self.seats[*seat as usize]).all(|seat| {
            let group = &self.groups[seat.group as usize];
            seat.out > 0 || group.inside > group.least
        })
    }

    /// Notes that a unit is up, or is not.
    pub fn set(&mut self, unit: u32, up: bool) {
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

    /// Notes that a unit is held back; false where it was already.
    pub fn hold(&mut self, unit: u32, at: Instant) -> bool {
        if self.units[unit as usize].held.is_some() {
            return false;
        }
        self.units[unit as usize].held = Some(at);
        for seat in &self.units[unit as usize].seats {
            self.groups[self.seats[*seat as usize].group as usize].held.insert((at, unit));
        }
        true
    }

    /// Notes that a unit is not held back.
    pub fn let_go(&mut self, unit: u32) {
        let Some(at) = self.units[unit as usize].held.take() else { return };
        for seat in &self.units[unit as usize].seats {
            self.groups[self.seats[*seat as usize].group as usize].held.remove(&(at, unit));
        }
    }

    pub fn is_held(&self, unit: u32) -> bool {
        self.units[unit as usize].held.is_some()
    }

    /// The unit held back for the longest time that may go since `unit` came up.
    pub fn next_to_go(&self, unit: u32) -> Option<u32> {
        let groups = self.units[unit as usize].seats.iter().map(|seat| self.seats[*seat as usize].group);
        groups
            .filter(|group| self.groups[*group as usize].inside > self.groups[*group as usize].least)
            .filter_map(|group| {
                let mut held = self.groups[group as usize].held.iter().take(MOST_TRIES);
                held.find(|(_, unit)| self.may_go(*unit)).copied()
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
    fn a_server_is_in_while_both_its_units_are_up() {
        let mut floors = floors(3, 1);
        floors.set(0, false);
        assert_eq!(floors.groups[0].inside, 2);
        floors.set(1, false);
        assert_eq!(floors.groups[0].inside, 2, "it was out already");
        floors.set(0, true);
        assert_eq!(floors.groups[0].inside, 2, "its port is still down");
        floors.set(3, false);
        assert_eq!(floors.groups[0].inside, 1);
        assert!(!floors.may_go(4) && !floors.may_go(5), "the last one");
        assert!(floors.may_go(2), "its server is out already");
        floors.set(1, true);
        assert!(floors.may_go(4));
    }

    #[test]
    fn those_held_back_go_oldest_first_when_another_comes_up() {
        let mut floors = floors(3, 1);
        floors.set(0, false);
        floors.set(2, false);
        assert!(floors.hold(4, at(5)));
        assert!(!floors.hold(4, at(6)), "told once");
        floors.set(0, true);
        floors.set(2, true);
        floors.hold(2, at(3));
        assert_eq!(floors.next_to_go(0), Some(2));
        floors.let_go(2);
        assert_eq!(floors.next_to_go(0), Some(4));
        floors.set(0, false);
        floors.set(2, false);
        assert_eq!(floors.next_to_go(0), None);
    }
}
