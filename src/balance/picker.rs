//! The algorithms behind one door: each is told the weights, what changes, and asked for a place.

use super::connection_rate::ConnectionRate;
use super::hash::Hash;
use super::least_connections::LeastConnections;
use super::least_latency::LeastLatency;
use super::load::Server;
use super::maglev::Maglev;
use super::random::Random;
use super::resource_usage::ResourceUsage;
use super::round_robin::RoundRobin;
use super::settings::{Algorithm, Prefixes, Tuning};
use super::source_hash::SourceHash;
use super::two_choices::TwoChoices;
use crate::flow::Key;
use crate::time::Instant;

/// A service's algorithm over one family of its servers' addresses.
#[derive(Debug)]
pub(super) enum Picker {
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    ConnectionRate(ConnectionRate),
    Random(Random),
    TwoChoices(TwoChoices),
    SourceHash(SourceHash, Hash, Prefixes),
    Maglev(Maglev, Hash, Option<Prefixes>),
    LeastLatency(LeastLatency),
    ResourceUsage(ResourceUsage),
}

impl Picker {
    /// Makes the algorithm over the servers of these names, none of them a candidate; `seed` is the service's own,
    /// `agreed` that of everything two gateways must agree on; where that is 0 the first server comes first.
    pub fn new(algorithm: Algorithm, tuning: &Tuning, names: &[String], seed: u64, agreed: u64) -> Self {
        let places = names.len();
        let first = if agreed == 0 { 0 } else { (seed % places.max(1) as u64) as usize };
        let hash = Hash::new(agreed);
        let strings = || names.iter().map(String::as_str);
        match algorithm {
            Algorithm::RoundRobin | Algorithm::Priority => Picker::RoundRobin(RoundRobin::new(places, first)),
            Algorithm::LeastConnections => Picker::LeastConnections(LeastConnections::new(places, first)),
            Algorithm::ConnectionRate => Picker::ConnectionRate(ConnectionRate::new(places, first, tuning.rate_window)),
            Algorithm::Random => Picker::Random(Random::new(seed)),
            Algorithm::TwoChoices => Picker::TwoChoices(TwoChoices::new(places, seed)),
            Algorithm::SourceHash => {
                Picker::SourceHash(SourceHash::new(hash, strings()), hash, tuning.hash.unwrap_or(Prefixes::ADDRESS))
            }
            Algorithm::Maglev => Picker::Maglev(Maglev::new(hash, strings(), tuning.maglev_table), hash, tuning.hash),
            Algorithm::LeastLatency => Picker::LeastLatency(LeastLatency::new(places, first)),
            Algorithm::ResourceUsage => Picker::ResourceUsage(ResourceUsage::new(places, first)),
        }
    }

    /// Takes new weights by place; 0 is no candidate.
    pub fn set_weights<'s>(&mut self, weights: &[u32], server: impl Fn(usize) -> &'s Server) {
        match self {
            Picker::RoundRobin(robin) => robin.set_weights(weights),
            Picker::LeastConnections(least) => least.set_weights(weights, |place| server(place).flows),
            Picker::ConnectionRate(rate) => rate.set_weights(weights),
            Picker::Random(random) => random.set_weights(weights),
            Picker::TwoChoices(two) => two.set_weights(weights),
            Picker::SourceHash(source, ..) => source.set_weights(weights),
            Picker::Maglev(maglev, ..) => maglev.set_weights(weights),
            Picker::LeastLatency(least) => least.set_weights(weights, |place| server(place).latency),
            Picker::ResourceUsage(usage) => usage.set_weights(weights, |place| server(place).report),
        }
    }

    /// Picks a place for a flow among those that do not refuse.
    pub fn pick<'s>(
        &mut self,
        now: Instant,
        key: &Key,
        server: impl Fn(usize) -> &'s Server,
        refuses: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let client = key.addresses.src();
        match self {
            Picker::RoundRobin(robin) => robin.pick(refuses),
            Picker::LeastConnections(least) => least.pick(refuses),
            Picker::ConnectionRate(rate) => rate.pick(now, refuses),
            Picker::Random(random) => random.pick(refuses),
            Picker::TwoChoices(two) => two.pick(|place| server(place).flows, refuses),
            Picker::SourceHash(source, hash, prefixes) => source.pick(hash.client(client, prefixes), refuses),
            Picker::Maglev(maglev, hash, None) => maglev.pick(hash.flow(key), refuses),
            Picker::Maglev(maglev, hash, Some(prefixes)) => maglev.pick(hash.client(client, prefixes), refuses),
            Picker::LeastLatency(least) => least.pick(refuses),
            Picker::ResourceUsage(usage) => usage.pick(refuses),
        }
    }

    /// Takes note of a flow that this service gave to a server, however it was chosen.
    pub fn opened(&mut self, now: Instant, place: usize) {
        if let Picker::ConnectionRate(rate) = self {
            rate.opened(now, place);
        }
    }

    /// Takes note that a server bears more or less than before.
    pub fn changed(&mut self, place: usize, server: &Server) {
        match self {
            Picker::LeastConnections(least) => least.changed(place, server.flows),
            Picker::ResourceUsage(usage) => usage.changed(place, server.report),
            _ => {}
        }
    }

    /// Takes note of a server's round trip.
    pub fn latency_changed(&mut self, place: usize, server: &Server) {
        if let (Picker::LeastLatency(least), Some(latency)) = (self, server.latency) {
            least.changed(place, latency);
        }
    }
}
