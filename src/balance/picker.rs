//! The algorithms behind one interface: each is given the weights and later changes, proposes a place, and learns
//! whether its proposal was picked.
//!
//! A new algorithm is a variant of `Algorithm` in `settings.rs` and a file of its own beside this one.

use super::connection_rate::ConnectionRate;
use super::hash::Hash;
use super::least_connections::LeastConnections;
use super::least_latency::LeastLatency;
use super::maglev::Maglev;
use super::random::Random;
use super::resource_usage::{ResourceUsage, Usage};
use super::round_robin::{Position, Schedule};
use super::settings::{Algorithm, Prefixes, Tuning};
use super::source_hash::SourceHash;
use super::two_choices::TwoChoices;
use crate::flow::Key;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// One algorithm over one family of its servers' addresses: the part that all services of a pool share.
///
/// What each pick reads comes first, in the cache line in which it begins; the same holds for [`Own`].
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) enum Picker {
    RoundRobin(Schedule),
    LeastConnections(LeastConnections),
    ConnectionRate(ConnectionRate),
    Random(Random),
    TwoChoices(TwoChoices),
    SourceHash(SourceHash, Hash, Prefixes),
    Maglev(Maglev, Hash, Option<Prefixes>),
    LeastLatency(LeastLatency),
    ResourceUsage(ResourceUsage),
}

/// The part of an algorithm that each service has for itself.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) enum Own {
    Nothing,
    Position(Position),
    Random(Rng),
}

impl Own {
    /// Notes that it was made for another picker of the same kind.
    pub(super) fn unlearn(&mut self) {
        if let Own::Position(position) = self {
            position.unlearn();
        }
    }

    /// Creates the part of a service whose own seed is `seed`. `first` is the server that comes first, with the weight
    /// that the schedule gives it.
    pub(super) fn new(picker: &Picker, seed: u64, first: (usize, u32)) -> Self {
        match picker {
            Picker::RoundRobin(schedule) => Own::Position(Position::new(schedule, first.0, first.1)),
            Picker::Random(_) | Picker::TwoChoices(_) => Own::Random(Rng::new(seed)),
            _ => Own::Nothing,
        }
    }

    /// Returns whether it knows the weights of its algorithm.
    #[inline]
    pub(super) fn is_current(&self, picker: &Picker) -> bool {
        !matches!((self, picker), (Own::Position(own), Picker::RoundRobin(all)) if !own.is_current(all))
    }

    /// Follows a change of the weights.
    pub(super) fn follow(&mut self, picker: &Picker) {
        if let (Own::Position(own), Picker::RoundRobin(all)) = (self, picker) {
            own.follow(all);
        }
    }

    /// Returns the random state that proposals start from.
    pub(super) fn draw(&self) -> Rng {
        match self {
            Own::Random(rng) => rng.clone(),
            _ => Rng::new(0),
        }
    }

    /// Advances the random state to where proposals ended.
    pub(super) fn drawn(&mut self, rng: Rng) {
        debug_assert!(matches!(self, Own::Random(_)), "this algorithm draws nothing");
        *self = Own::Random(rng);
    }
}

/// Returns the place that comes first; without a seed shared by all, that is the first.
pub(super) fn first_place(places: usize, seed: u64, agreed: u64) -> usize {
    if agreed == 0 { 0 } else { (seed % places.max(1) as u64) as usize }
}

/// The state of servers that algorithms are given, by place.
pub(super) struct Facts<'f> {
    pub(super) flows: &'f dyn Fn(usize) -> u32,
    pub(super) latency: &'f dyn Fn(usize) -> Option<Duration>,
    pub(super) usage: &'f dyn Fn(usize) -> Option<Usage>,
}

impl Picker {
    /// Creates the algorithm over the servers of these names, configured weights and kinds, none of them a candidate. `seed` is that of the
    /// first service that uses it; `agreed` seeds everything that two gateways must agree on.
    pub(super) fn new<K: Ord>(
        (algorithm, tuning): (Algorithm, &Tuning),
        (names, weights, kinds): (&[&str], impl Iterator<Item = u16>, impl Iterator<Item = K>),
        (seed, agreed): (u64, u64),
    ) -> Self {
        let places = names.len();
        let first = first_place(places, seed, agreed);
        let hash = Hash::new(agreed);
        let strings = || names.iter().copied();
        match algorithm {
            Algorithm::RoundRobin | Algorithm::Priority => Picker::RoundRobin(Schedule::new(kinds)),
            Algorithm::LeastConnections => Picker::LeastConnections(LeastConnections::new(places, first)),
            Algorithm::ConnectionRate => Picker::ConnectionRate(ConnectionRate::new(places, first, tuning.rate_window)),
            Algorithm::Random => Picker::Random(Random::default()),
            Algorithm::TwoChoices => Picker::TwoChoices(TwoChoices::new(places)),
            Algorithm::SourceHash => {
                let source = SourceHash::new(hash, strings(), weights);
                Picker::SourceHash(source, hash, tuning.hash.unwrap_or(Prefixes::ADDRESS))
            }
            Algorithm::Maglev => Picker::Maglev(Maglev::new(hash, strings(), tuning.maglev_table), hash, tuning.hash),
            Algorithm::LeastLatency => Picker::LeastLatency(LeastLatency::new(places, first)),
            Algorithm::ResourceUsage => Picker::ResourceUsage(ResourceUsage::new(places, first)),
        }
    }

    /// Sets the weights by place; 0 is not a candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32], facts: &Facts<'_>) {
        match self {
            Picker::RoundRobin(robin) => robin.set_weights(weights),
            Picker::LeastConnections(least) => least.set_weights(weights, facts.flows),
            Picker::ConnectionRate(rate) => rate.set_weights(weights),
            Picker::Random(random) => random.set_weights(weights),
            Picker::TwoChoices(two) => two.set_weights(weights),
            Picker::SourceHash(source, ..) => source.set_weights(weights),
            Picker::Maglev(maglev, ..) => maglev.set_weights(weights),
            Picker::LeastLatency(least) => least.set_weights(weights, facts.latency),
            Picker::ResourceUsage(usage) => usage.set_weights(weights, facts.usage),
        }
    }

    /// Returns whether nothing has changed by time alone since [`Picker::advance`].
    pub(super) fn is_current(&self, now: Instant) -> bool {
        !matches!(self, Picker::ConnectionRate(rate) if !rate.is_current(now))
    }

    /// Advances the algorithm to the given time.
    pub(super) fn advance(&mut self, now: Instant) {
        if let Picker::ConnectionRate(rate) = self {
            rate.slide(now);
        }
    }

    /// Proposes a place for a flow from those that are not refused; changes nothing. Algorithms that draw at random do
    /// so from `draw`, which continues from an earlier proposal of the same look.
    pub(super) fn propose(
        &self,
        own: &Own,
        key: &Key,
        draw: &mut Option<Rng>,
        flows: &dyn Fn(usize) -> u32,
        refuses: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let client = key.addresses.src();
        match self {
            Picker::RoundRobin(schedule) => match own {
                Own::Position(position) => position.propose(schedule, refuses),
                _ => None,
            },
            Picker::LeastConnections(least) => least.propose(refuses),
            Picker::ConnectionRate(rate) => rate.propose(refuses),
            Picker::Random(random) => random.propose(draw.get_or_insert_with(|| own.draw()), refuses),
            Picker::TwoChoices(two) => two.propose(draw.get_or_insert_with(|| own.draw()), flows, refuses),
            Picker::SourceHash(source, hash, prefixes) => source.pick(hash.client(client, prefixes), refuses),
            Picker::Maglev(maglev, hash, None) => maglev.pick(hash.flow(key), refuses),
            Picker::Maglev(maglev, hash, Some(prefixes)) => maglev.pick(hash.client(client, prefixes), refuses),
            Picker::LeastLatency(least) => least.propose(refuses),
            Picker::ResourceUsage(usage) => usage.propose(refuses),
        }
    }

    /// Records that a proposal was picked, whether or not a flow resulted.
    pub(super) fn picked(&mut self, own: &mut Own, place: usize) {
        match self {
            Picker::RoundRobin(schedule) => {
                if let Own::Position(position) = own {
                    position.picked(schedule, place);
                }
            }
            Picker::LeastConnections(least) => least.picked(place),
            Picker::ConnectionRate(rate) => rate.picked(place),
            Picker::LeastLatency(least) => least.picked(place),
            Picker::ResourceUsage(usage) => usage.picked(place),
            Picker::Random(_) | Picker::TwoChoices(_) | Picker::SourceHash(..) | Picker::Maglev(..) => {}
        }
    }

    /// Records a flow that a service assigned to a server, however it was chosen.
    pub(super) fn opened(&mut self, now: Instant, place: usize) {
        if let Picker::ConnectionRate(rate) = self {
            rate.opened(now, place);
        }
    }

    /// Updates the load of a server.
    pub(super) fn load_changed(&mut self, place: usize, flows: u32, usage: impl Fn() -> Option<Usage>) {
        match self {
            Picker::LeastConnections(least) => least.changed(place, flows),
            Picker::ResourceUsage(all) => all.changed(place, usage()),
            _ => {}
        }
    }

    /// Sets a server's round trip.
    pub(super) fn latency_changed(&mut self, place: usize, latency: Duration) {
        if let Picker::LeastLatency(least) = self {
            least.changed(place, latency);
        }
    }
}
