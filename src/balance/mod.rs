//! Which server a new flow goes to: services, pools, servers, and one file an algorithm.
//!
//! It must not know packets' bytes or clocks; it is told keys, times and what happens to servers, and
//! answers with a server. A candidate is enabled, up, of weight above 0, not held for signs of
//! trouble, not in maintenance, below its most flows.

mod connection_rate;
mod hash;
mod least_connections;
mod least_latency;
mod load;
mod maglev;
mod picker;
mod priority;
mod random;
mod resource_usage;
mod round_robin;
mod service;
mod settings;
mod source_hash;
mod state;
mod tournament;
mod two_choices;

#[cfg(test)]
mod tests;

pub use maglev::is_prime;
pub use service::{Health, server_ports};
pub use settings::*;
pub use state::ServerState;

use crate::flow::{Key, Slots};
use crate::ids::{PoolId, ServerId, ServiceId};
use crate::schedule::Schedule;
use crate::time::Instant;
use load::Server;
use serde::{Deserialize, Serialize};
use service::Service;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Why a flow went to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum PickedBy {
    /// The service's algorithm chose it.
    #[default]
    Algorithm,
    /// The client had been there before.
    Stickiness,
    /// No server of the pool could take it: the last resort did.
    LastResort,
}

impl PickedBy {
    /// The word used in tables and reports.
    pub const fn name(self) -> &'static str {
        match self {
            PickedBy::Algorithm => "algorithm",
            PickedBy::Stickiness => "stickiness",
            PickedBy::LastResort => "last-resort",
        }
    }
}

/// A server for a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The server.
    pub server: ServerId,
    /// Why it.
    pub by: PickedBy,
}

/// What happened to a server beside its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The last flow of a draining server has ended.
    Drained(ServerId),
    /// A draining server's deadline has passed with flows left: they are to be ended.
    DrainDeadline(ServerId),
    /// Signs from the traffic took it out of the choice until then.
    Held(ServerId, Instant),
}

/// The services with their algorithms' state, and the servers with what is known of them.
#[derive(Debug)]
pub struct Balancer {
    settings: Vec<ServiceSettings>,
    passive: Vec<Option<Passive>>,
    servers: Vec<Server>,
    /// One a service, then one a last resort.
    services: Vec<Service>,
    /// Of each service, the place of its last resort in `services`.
    last_resorts: Vec<Option<usize>>,
    /// Of each server, the services it stands in, and its place there.
    members: Vec<Vec<(u32, u32)>>,
    sticky: BTreeMap<u32, Slots>,
    /// When servers change with time alone.
    timers: Schedule,
    notices: VecDeque<Notice>,
}

impl Balancer {
    /// Makes a balancer with all servers up; `services`' pools and `pools`' servers are indices into the others.
    pub fn new(services: &[ServiceSettings], pools: &[PoolSettings], servers: &[ServerSettings], seed: u64) -> Self {
        let states: Vec<Server> = servers.iter().map(Server::new).collect();
        let pool = |id: PoolId| &pools[id.0 as usize];
        let mut all: Vec<Service> =
            services.iter().map(|s| Service::new(s, s.algorithm, pool(s.pool), &states, seed)).collect();
        let mut last_resorts = vec![None; services.len()];
        for (place, service) in last_resorts.iter_mut().zip(services) {
            if let LastResort::Pool(id) = service.last_resort {
                *place = Some(all.len());
                all.push(Service::new(service, Algorithm::RoundRobin, pool(id), &states, seed));
            }
        }
        let mut members = vec![Vec::new(); servers.len()];
        for (service, of) in (0..).zip(&all) {
            for (place, server) in (0..).zip(&of.places) {
                members[server.0 as usize].push((service, place));
            }
        }
        let mut sticky = BTreeMap::new();
        for stickiness in services.iter().filter_map(|service| service.sticky.as_ref()) {
            let slots = || Slots::new(stickiness.slots, stickiness.idle, seed);
            sticky.entry(stickiness.group).or_insert_with(slots);
        }
        Balancer {
            settings: services.to_vec(),
            passive: servers.iter().map(|server| pool(server.pool).passive.clone()).collect(),
            servers: states,
            services: all,
            last_resorts,
            members,
            sticky,
            timers: Schedule::new(servers.len()),
            notices: VecDeque::new(),
        }
    }

    /// Picks a server for a new flow among those that may take it, leaving out those in `tried`.
    pub fn pick(&mut self, now: Instant, service: ServiceId, key: &Key, tried: &[ServerId]) -> Option<Pick> {
        let id = service.0 as usize;
        self.refresh(now, id);
        if let Some(server) = self.remembered(now, id, key).filter(|server| !tried.contains(server)) {
            return Some(Pick { server, by: PickedBy::Stickiness });
        }
        if let Some(server) = self.services[id].pick(now, key, &self.servers, tried) {
            return Some(Pick { server, by: PickedBy::Algorithm });
        }
        let last = self.last_resorts[id]?;
        self.refresh(now, last);
        let server = self.services[last].pick(now, key, &self.servers, tried)?;
        Some(Pick { server, by: PickedBy::LastResort })
    }

    fn refresh(&mut self, now: Instant, service: usize) {
        if self.services[service].stale {
            self.services[service].refresh(now, &self.servers);
        }
    }

    /// The server that a client was given before, if it may still take flows.
    fn remembered(&mut self, now: Instant, service: usize, key: &Key) -> Option<ServerId> {
        let stickiness = self.settings[service].sticky.as_ref()?;
        let client = stickiness.prefixes.of(key.addresses.src());
        let slot = self.sticky.get_mut(&stickiness.group)?.find(now, client)?;
        let server = &self.servers[slot.server.0 as usize];
        let place = self.place(service, slot.server)?;
        let takes = self.services[service].takes(place, key.addresses.dst().is_ipv6(), &self.servers);
        (takes && server.era == slot.era).then_some(slot.server)
    }

    fn place(&self, service: usize, server: ServerId) -> Option<usize> {
        let members = &self.members[server.0 as usize];
        members.iter().find(|(s, _)| *s as usize == service).map(|(_, place)| *place as usize)
    }

    /// Takes note of a flow that was made for a pick.
    pub fn opened(&mut self, now: Instant, service: ServiceId, key: &Key, pick: Pick) {
        let (id, server, by) = (service.0 as usize, pick.server, pick.by);
        let state = &mut self.servers[server.0 as usize];
        state.flows += 1;
        let era = state.era;
        if let Some(report) = &mut state.report {
            report.given_since += 1;
        }
        let within = if by == PickedBy::LastResort { self.last_resorts[id] } else { Some(id) };
        if let Some((within, place)) = within.and_then(|within| Some((within, self.place(within, server)?))) {
            self.services[within].opened(now, place);
        }
        if let Some(stickiness) = self.settings[id].sticky.as_ref().filter(|_| by != PickedBy::LastResort) {
            let client = stickiness.prefixes.of(key.addresses.src());
            if let Some(slots) = self.sticky.get_mut(&stickiness.group) {
                slots.opened(now, client, server, era);
            }
        }
        self.bears(server);
    }

    /// Takes note that a flow ended.
    pub fn ended(&mut self, now: Instant, service: ServiceId, client: IpAddr, server: ServerId) {
        let state = &mut self.servers[server.0 as usize];
        state.flows -= 1;
        if state.flows == 0 && state.admin == Admin::Draining {
            state.deadline = None;
            self.notices.push_back(Notice::Drained(server));
        }
        if let Some(stickiness) = &self.settings[service.0 as usize].sticky {
            let client = stickiness.prefixes.of(client);
            if let Some(slots) = self.sticky.get_mut(&stickiness.group) {
                slots.ended(now, client, server);
            }
        }
        self.bears(server);
    }

    /// Tells the algorithms that a server bears more or less.
    fn bears(&mut self, server: ServerId) {
        let state = &self.servers[server.0 as usize];
        for (service, place) in &self.members[server.0 as usize] {
            self.services[*service as usize].changed(*place as usize, state);
        }
    }

    /// A server's address for flows of a service that came by a family, and its port for those that came to `service_port`.
    pub fn endpoint(&self, service: ServiceId, server: ServerId, v6: bool, service_port: u16) -> Option<(IpAddr, u16)> {
        let server = &self.servers[server.0 as usize].settings;
        Some((self.settings[service.0 as usize].reach(server, v6)?, server.port.unwrap_or(service_port)))
    }

    /// A service's settings.
    pub fn service(&self, service: ServiceId) -> &ServiceSettings {
        &self.settings[service.0 as usize]
    }

    /// A server's settings as they were configured.
    pub fn server(&self, server: ServerId) -> &ServerSettings {
        &self.servers[server.0 as usize].settings
    }

    /// Clients remembered by a service's group; 0 where it is not sticky.
    pub fn remembered_clients(&self, service: ServiceId) -> usize {
        let sticky = self.settings[service.0 as usize].sticky.as_ref();
        sticky.and_then(|sticky| self.sticky.get(&sticky.group)).map_or(0, Slots::len)
    }
}
