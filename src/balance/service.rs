//! A service's servers: which of them may be picked, in either family, and the algorithm that picks.

use super::load::Server;
use super::picker::Picker;
use super::priority;
use super::settings::{Algorithm, PoolSettings, Protocol, ServiceSettings};
use crate::flow::Key;
use crate::ids::ServerId;
use crate::rng::mix;
use crate::state::Health;
use crate::time::Instant;

/// The servers of a service by place: their order in the pool.
#[derive(Debug)]
pub(super) struct Service {
    pub places: Vec<ServerId>,
    algorithm: Algorithm,
    groups: Vec<(bool, u16)>,
    pub families: [Family; 2],
    /// Whether weights must be worked out anew before the next pick.
    pub stale: bool,
    /// Whether both families have the same candidates: then the first's algorithm picks for both.
    as_one: bool,
}

/// One family of the servers' addresses.
#[derive(Debug)]
pub(super) struct Family {
    pub has_address: Vec<bool>,
    pub health: Vec<Health>,
    /// Weights of all usable servers.
    usable: Vec<u32>,
    /// Weights of the group that serves.
    weights: Vec<u32>,
    picker: Picker,
}

impl Service {
    /// Makes the service with all its servers up.
    pub fn new(
        settings: &ServiceSettings,
        algorithm: Algorithm,
        pool: &PoolSettings,
        servers: &[Server],
        seed: u64,
    ) -> Self {
        let places = pool.servers.clone();
        let of = |place: &ServerId| &servers[place.0 as usize].settings;
        let names: Vec<String> = places.iter().map(|place| of(place).name.clone()).collect();
        let name_hash = settings.name.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
        let family = |v6: bool| Family {
            has_address: places.iter().map(|place| settings.reach(of(place), v6).is_some()).collect(),
            health: vec![Health::Up; places.len()],
            usable: vec![0; places.len()],
            weights: vec![0; places.len()],
            picker: Picker::new(algorithm, &settings.tuning, &names, mix(name_hash), seed),
        };
        Service {
            groups: places.iter().map(|place| priority::group(algorithm, of(place))).collect(),
            families: [family(false), family(true)],
            places,
            algorithm,
            stale: true,
            as_one: false,
        }
    }

    /// Works out who may be picked.
    pub fn refresh(&mut self, now: Instant, servers: &[Server]) {
        self.stale = false;
        let places = &self.places;
        let server = |place: usize| &servers[places[place].0 as usize];
        for family in &mut self.families {
            for place in 0..places.len() {
                let may = family.has_address[place] && family.health[place] == Health::Up && server(place).is_open(now);
                family.usable[place] = match (may, self.algorithm) {
                    (false, _) => 0,
                    // A load in percent is relative to what the server can bear: its weight would count twice.
                    (true, Algorithm::ResourceUsage) => server(place).step(now),
                    (true, _) => server(place).units(now),
                };
            }
            family.weights.copy_from_slice(&family.usable);
            priority::keep_first_group(&mut family.weights, |place| self.groups[place]);
        }
        self.as_one = self.families[0].weights == self.families[1].weights;
        let families = if self.as_one { &mut self.families[..1] } else { &mut self.families[..] };
        for Family { picker, weights, .. } in families {
            picker.set_weights(weights, server);
        }
    }

    /// Whether a server may be given a flow of a family; full ones may not.
    pub fn takes(&self, place: usize, v6: bool, servers: &[Server]) -> bool {
        self.families[usize::from(v6)].usable[place] > 0 && !servers[self.places[place].0 as usize].is_full()
    }

    /// Picks a server by the algorithm.
    pub fn pick(&mut self, now: Instant, key: &Key, servers: &[Server], tried: &[ServerId]) -> Option<ServerId> {
        let v6 = key.addresses.dst().is_ipv6() && !self.as_one;
        let family = &mut self.families[usize::from(v6)];
        let places = &self.places;
        let server = |place: usize| &servers[places[place].0 as usize];
        let refuses = |place: usize| server(place).is_full() || tried.contains(&places[place]);
        family.picker.pick(now, key, server, &refuses).map(|place| places[place])
    }

    /// Takes note of a flow of this service.
    pub fn opened(&mut self, now: Instant, place: usize) {
        self.families.iter_mut().for_each(|family| family.picker.opened(now, place));
    }

    /// Takes note that a server bears more or less.
    pub fn changed(&mut self, place: usize, server: &Server) {
        self.families.iter_mut().for_each(|family| family.picker.changed(place, server));
    }

    /// Takes note of a server's round trip.
    pub fn latency_changed(&mut self, place: usize, server: &Server) {
        self.families.iter_mut().for_each(|family| family.picker.latency_changed(place, server));
    }
}

/// The ports of a server that a service's flows go to, ascending; of a range the first alone, for ICMP 0.
pub fn server_ports(service: &ServiceSettings, port: Option<u16>, v6: bool) -> Vec<u16> {
    let of_family = service.listen.iter().filter(|listen| listen.address.is_ipv6() == v6);
    let mut ports: Vec<u16> = of_family
        .map(|listen| match listen.protocol {
            Protocol::Icmp | Protocol::Ip(_) => 0,
            _ => port.unwrap_or(listen.first_port),
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
