//! The state of an algorithm over the servers of a pool, which all services share that use it in the same way: who may be
//! picked, with which weight, and what the algorithm compares.
//!
//! It must not know which service asks; what a service has for itself is its [`Own`].

use super::Health;
use super::chooser::{Load, usage};
use super::picker::{Facts, Own, Picker, first_place};
use super::priority;
use super::roster::{Base, Roster};
use super::server::STEPS;
use super::settings::Algorithm;
use super::standings::Standings;
use crate::rng::mix;
use crate::time::Instant;

/// The state of a base's algorithm, which all services of the base share. What each pick reads begins in its first cache
/// line.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct Choice {
    /// Whether the weights must be recomputed before the next pick.
    pub(super) stale: bool,
    /// Whether both families have the same candidates: then the first family's algorithm picks for both.
    pub(super) as_one: bool,
    /// For IPv4 and IPv6 clients.
    pub(super) families: [Family; 2],
}

#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Family {
    pub(super) picker: Picker,
    /// Weights of all usable servers.
    pub(super) usable: Vec<u32>,
    /// Weights in the rank that serves.
    pub(super) weights: Vec<u32>,
}

/// Returns the seed of a service's own.
fn own_seed(name: &str, seed: u64) -> u64 {
    mix(name.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte))))
}

impl Choice {
    pub(super) fn new(roster: &Roster, base: &Base, seed: u64) -> Self {
        let service = &roster.services()[base.service as usize];
        let server = |place: usize| roster.server(base.places[place]);
        let names: Vec<&str> = (0..base.places.len()).map(|place| server(place).name.as_str()).collect();
        let seeds = (own_seed(&service.name, seed), seed);
        let family = |v6: usize| Family {
            usable: vec![0; names.len()],
            weights: vec![0; names.len()],
            picker: {
                let kind = |place: usize| (base.reached[v6][place], base.ranks[place], server(place).weight);
                let kinds = (0..names.len()).map(kind);
                let weights = (0..names.len()).map(|place| server(place).weight);
                Picker::new((base.algorithm, &service.tuning), (&names, weights, kinds), seeds)
            },
        };
        Choice { families: [family(0), family(1)], stale: true, as_one: false }
    }

    /// Creates the part of the algorithm that a group has for itself.
    pub(super) fn own(&self, roster: &Roster, group: u32, seed: u64) -> [Own; 2] {
        let places = &roster.group(group).places;
        let own = own_seed(&roster.service_of(group).name, seed);
        let first = first_place(places.len(), own, seed);
        let weight = places.get(first).map_or(0, |server| u32::from(roster.server(*server).weight) * STEPS);
        [0, 1].map(|v6: usize| Own::new(&self.families[v6].picker, own, (first, weight)))
    }

    /// The families whose algorithm picks.
    fn leading(&self) -> &[Family] {
        if self.as_one { &self.families[..1] } else { &self.families }
    }

    /// Returns the family whose algorithm picks for clients of a family: 0 is IPv4.
    #[inline]
    pub(super) fn family(&self, v6: bool) -> usize {
        usize::from(v6 && !self.as_one)
    }

    /// Returns whether a group's own part has followed the weights with which clients of a family get their servers.
    #[inline]
    pub(super) fn leads(&self, own: &[Own; 2], v6: bool) -> bool {
        let family = self.family(v6);
        own[family].is_current(&self.families[family].picker)
    }

    /// Makes a group's own part follow the weights.
    pub(super) fn lead(&self, own: &mut [Own; 2]) {
        self.leading().iter().zip(own).for_each(|(family, own)| own.follow(&family.picker));
    }

    /// Computes which servers may be picked.
    pub(super) fn refresh(&mut self, now: Instant, at: u32, roster: &Roster, standings: &Standings, loads: &[Load]) {
        let base = &roster.bases()[at as usize];
        if self.stale {
            self.stale = false;
            self.weigh(now, (at, base), roster, standings);
            let places = &base.places;
            let facts = Facts {
                flows: &|place| loads[places[place].0 as usize].flows,
                latency: &|place| standings.server(places[place]).latency,
                usage: &|place| usage(loads, standings, places[place]),
            };
            let families = if self.as_one { &mut self.families[..1] } else { &mut self.families[..] };
            for Family { picker, weights, .. } in families {
                picker.set_weights(weights, &facts);
            }
        }
        self.families.iter_mut().for_each(|family| family.picker.advance(now));
    }

    /// Returns whether any server's weight is not what it was when the weights were last computed.
    pub(super) fn differs(&self, now: Instant, at: u32, roster: &Roster, standings: &Standings) -> bool {
        let base = &roster.bases()[at as usize];
        let differs = |(v6, family): (usize, &Family)| {
            let usable = (0..base.places.len()).map(|place| usable(now, (at, base), (v6, place), roster, standings));
            usable.zip(&family.usable).any(|(is, was)| is != *was)
        };
        self.families.iter().enumerate().any(differs)
    }

    fn weigh(&mut self, now: Instant, (at, base): (u32, &Base), roster: &Roster, standings: &Standings) {
        for (v6, family) in self.families.iter_mut().enumerate() {
            for (place, own) in family.usable.iter_mut().enumerate() {
                *own = usable(now, (at, base), (v6, place), roster, standings);
            }
            family.weights.copy_from_slice(&family.usable);
            priority::keep_first_group(&mut family.weights, |place| base.ranks[place]);
        }
        self.as_one = self.families[0].weights == self.families[1].weights;
    }
}

/// Returns the weight with which a server may be picked, whatever the ranks; 0 if it may not.
fn usable(
    now: Instant,
    (at, base): (u32, &Base),
    (v6, place): (usize, usize),
    roster: &Roster,
    standings: &Standings,
) -> u32 {
    let server = base.places[place];
    let (state, slow_start) = (standings.server(server), roster.server(server).slow_start);
    let health = standings.health(at, v6, place);
    let may = base.reached[v6][place] && health == Health::Up && state.is_open(now);
    match (may, base.algorithm) {
        (false, _) => 0,
        // A load in percent is relative to the server's capacity: its weight would count twice.
        (true, Algorithm::ResourceUsage) => state.step(now, slow_start),
        (true, _) => state.units(now, slow_start),
    }
}
