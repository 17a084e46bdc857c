//! Services with their pools: which service listens where, which servers reply for it, and which may be picked.

use super::pick::{Asker, Choice, Kind, Picker, Place};
use super::servers::{STEPS, Server};
use equipoise::balance::{Algorithm, Health, LastResort, ServiceSettings, server_ports};
use equipoise::config::Settings;
use equipoise::packet::Protocol;
use equipoise::policy::Action;
use equipoise::time::Instant;
use std::net::{IpAddr, SocketAddr};

/// A service, or the last resort of one: an algorithm over the servers of a pool.
#[derive(Debug, Clone)]
pub struct Service {
    pub settings: ServiceSettings,
    algorithm: Algorithm,
    /// The pool's servers, in order of their places.
    pub servers: Vec<usize>,
    pickers: [Picker; 2],
    /// How often its servers had changed when they were last examined.
    changes: Option<u64>,
}

impl Service {
    /// Creates a service and, if its last resort is a pool, a second one for that.
    pub fn new(all: &Settings, settings: &ServiceSettings) -> (Service, Option<Service>) {
        let over = |pool: usize, algorithm| {
            let servers: Vec<usize> = all.pools[pool].servers.iter().map(|id| id.0 as usize).collect();
            let names: Vec<String> = servers.iter().map(|server| all.servers[*server].name.clone()).collect();
            let kind = |v6: bool, server: usize| {
                let server = &all.servers[server];
                let rank = if algorithm == Algorithm::Priority { server.priority } else { 0 };
                match algorithm {
                    Algorithm::ResourceUsage => (true, false, 0, STEPS),
                    _ => (settings.reach(server, v6).is_some(), server.backup, rank, u32::from(server.weight) * STEPS),
                }
            };
            let pickers = [false, true].map(|v6| {
                let kinds: Vec<Kind> = servers.iter().map(|server| kind(v6, *server)).collect();
                Picker::new(algorithm, &settings.tuning, (names.clone(), &kinds), &settings.name, all.seed)
            });
            Service { settings: settings.clone(), algorithm, servers, pickers, changes: None }
        };
        let last = match settings.last_resort {
            LastResort::Pool(pool) => Some(over(pool.0 as usize, Algorithm::RoundRobin)),
            _ => None,
        };
        (over(settings.pool.0 as usize, settings.algorithm), last)
    }

    /// Returns whether it chooses among the same servers in the same way as another one.
    pub fn chooses_as(&self, (own, all): (&Service, &Settings), of: &Settings) -> bool {
        let what = |service: &Service, all: &Settings| {
            let server = |at: &usize| {
                let server = &all.servers[*at];
                let reached = [false, true].map(|v6| service.settings.reach(server, v6).is_some());
                let rank = (service.algorithm == Algorithm::Priority).then_some(server.priority);
                (*at, server.weight, server.backup, rank, reached)
            };
            let servers: Vec<_> = service.servers.iter().map(server).collect();
            let tuning = &service.settings.tuning;
            let reads = match service.algorithm {
                Algorithm::ConnectionRate => (Some(tuning.rate_window), None, None),
                Algorithm::SourceHash => (None, None, Some(tuning.hash)),
                Algorithm::Maglev => (None, Some(tuning.maglev_table), Some(tuning.hash)),
                _ => (None, None, None),
            };
            (service.algorithm, servers, reads, service.settings.across())
        };
        what(self, of) == what(own, all)
    }

    /// Goes on with the state of another one's algorithm.
    pub fn go_on(&mut self, own: &Service) {
        (self.pickers, self.changes) = (own.pickers.clone(), own.changes);
    }

    /// Returns the health of one of its servers for flows that arrive over IPv6 or IPv4.
    pub fn health(&self, server: &Server, v6: bool) -> Health {
        match self.settings.reach(&server.settings, v6) {
            Some(address) => server.health[usize::from(address.is_ipv6())],
            _ => Health::Up,
        }
    }

    /// Returns the weights of the servers by place; 0 for those that may not receive flows.
    fn usable(&self, now: Instant, servers: &[Server], v6: bool) -> Vec<u32> {
        let weight = |place: &usize| {
            let server = &servers[*place];
            let has_address = self.settings.reach(&server.settings, v6).is_some();
            match self.algorithm {
                _ if !has_address || !server.is_open(now) || self.health(server, v6) != Health::Up => 0,
                Algorithm::ResourceUsage => server.step(now),
                _ => server.weight(now),
            }
        };
        self.servers.iter().map(weight).collect()
    }

    /// Like `usable`, but with standby servers only if there are no others and, with the `priority` algorithm, only
    /// those of the lowest priority number.
    pub fn serving(&self, now: Instant, servers: &[Server], v6: bool) -> Vec<u32> {
        let mut weights = self.usable(now, servers, v6);
        let group = |place: Place| {
            let server = &servers[self.servers[place]].settings;
            (server.backup, if self.algorithm == Algorithm::Priority { server.priority } else { 0 })
        };
        let first = (0..weights.len()).filter(|place| weights[*place] > 0).map(group).min();
        for (place, weight) in weights.iter_mut().enumerate() {
            if Some(group(place)) != first {
                *weight = 0;
            }
        }
        weights
    }

    /// Returns whether a sticky client may keep using its server.
    pub fn takes(&self, now: Instant, servers: &[Server], server: usize, v6: bool) -> bool {
        let place = self.servers.iter().position(|own| *own == server);
        place.is_some_and(|place| self.usable(now, servers, v6)[place] > 0 && !servers[server].is_full())
    }

    /// Updates the weights, as happens for each new flow; returns whether both families have the same weights, in which
    /// case they share their turns.
    pub fn refresh(&mut self, now: Instant, servers: &[Server]) -> bool {
        let weights = [false, true].map(|v6| self.serving(now, servers, v6));
        let own = &self.servers;
        let changes = Some(own.iter().map(|server| servers[*server].changes).sum());
        let changed = changes != self.changes;
        self.changes = changes;
        let server = |place: Place| &servers[own[place]];
        self.pickers[0].weigh(&weights[0], changed, &server);
        if weights[0] != weights[1] {
            self.pickers[1].weigh(&weights[1], changed, &server);
        }
        weights[0] == weights[1]
    }

    /// Picks a server; `chosen` is the engine's choice.
    pub fn pick(
        &mut self,
        now: Instant,
        asker: Asker,
        servers: &[Server],
        tried: &[usize],
        chosen: Option<usize>,
        has_key: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let as_one = self.refresh(now, servers);
        let own = &self.servers;
        let v6 = asker.listen.is_ipv6();
        // Servers that may become full are left out as long as there is another.
        let serving = self.serving(now, servers, v6);
        let spare = |place: Place| {
            let server = own[place];
            serving[place] > 0 && !servers[server].may_become_full() && !tried.contains(&server)
        };
        let spares = (0..own.len()).any(spare);
        let full = |server: &Server| if spares { server.may_become_full() } else { server.is_full() };
        let choice = Choice {
            now,
            asker,
            servers: &|place| &servers[own[place]],
            refuses: &|place| full(&servers[own[place]]) || tried.contains(&own[place]),
            chosen: chosen.and_then(|server| own.iter().position(|other| *other == server)),
            has_key: &|place| has_key(own[place]),
        };
        let picker = &mut self.pickers[usize::from(v6 && !as_one)];
        picker.pick(&choice).map(|place| own[place])
    }

    /// Records a flow that this service assigned to a server.
    pub fn opened(&mut self, now: Instant, server: usize) {
        if let Some(place) = self.servers.iter().position(|own| *own == server) {
            self.pickers.iter_mut().for_each(|picker| picker.opened(now, place));
        }
    }
}

/// Returns the service that each goes by: algorithms that compare the load of servers do so for all services of a pool
/// that reach its servers alike, so that the first of these stands for all.
pub fn leaders(settings: &Settings) -> Vec<usize> {
    let kind = |service: &ServiceSettings| {
        use Algorithm::{ConnectionRate, LeastConnections, LeastLatency, ResourceUsage};
        let window = match service.algorithm {
            ConnectionRate => Some(service.tuning.rate_window),
            LeastConnections | LeastLatency | ResourceUsage => None,
            _ => return None,
        };
        let watch = settings.health.pools.iter().find(|watch| watch.pool == service.pool);
        let by_port = watch.is_some_and(|watch| watch.is_by_port());
        let ports = |port| by_port.then(|| [false, true].map(|v6| server_ports(service, port, v6)));
        Some((service.pool, service.algorithm, window, service.across(), ports(None), ports(Some(1))))
    };
    let kinds: Vec<_> = settings.services.iter().map(kind).collect();
    let leader = |at: usize| kinds[..at].iter().position(|other| other.is_some() && *other == kinds[at]).unwrap_or(at);
    (0..kinds.len()).map(leader).collect()
}

/// Returns the service that listens at an address and port: the one with the longest matching prefix.
pub fn listening(settings: &Settings, protocol: Protocol, end: SocketAddr) -> Option<usize> {
    let all = settings.services.iter().enumerate().flat_map(|(id, s)| s.listen.iter().map(move |l| (id, l)));
    let holds = |listen: &equipoise::balance::Listen| {
        let ports = listen.first_port..=listen.last_port;
        listen.protocol == protocol && ports.contains(&end.port()) && takes(listen, end.ip())
    };
    all.filter(|(_, listen)| holds(listen)).max_by_key(|(_, listen)| listen.prefix).map(|(id, _)| id)
}

fn takes(listen: &equipoise::balance::Listen, address: IpAddr) -> bool {
    // A listening network covers hosts only: multicast, broadcast, loopback and unspecified addresses are excluded.
    let host = match address {
        IpAddr::V4(a) => !(a.octets()[0] == 0 || a.is_loopback() || a.is_multicast() || a.is_broadcast()),
        IpAddr::V6(a) => !(a.is_unspecified() || a.is_loopback() || a.is_multicast()),
    };
    listen.network().contains(&address) && (host || !listen.is_network())
}

/// Returns whether the gateway is responsible for an address.
pub fn is_own(settings: &Settings, address: IpAddr) -> bool {
    let mut listens = settings.services.iter().flat_map(|service| &service.listen);
    listens.any(|listen| takes(listen, address)) || is_nat(settings, address)
}

/// Returns whether an address can belong to no other host: a service's single address, or one of a NAT pool.
pub fn is_only_own(settings: &Settings, address: IpAddr) -> bool {
    let mut listens = settings.services.iter().flat_map(|service| &service.listen);
    listens.any(|listen| !listen.is_network() && listen.address == address) || is_nat(settings, address)
}

fn is_nat(settings: &Settings, address: IpAddr) -> bool {
    settings.nat_pools.iter().any(|pool| match address {
        IpAddr::V4(address) => pool.v4.contains(&address),
        IpAddr::V6(address) => pool.v6.contains(&address),
    })
}

/// Returns whether a server of some service replies from this address and port.
pub fn is_servers(settings: &Settings, protocol: Protocol, end: SocketAddr) -> bool {
    let named = |service: usize| {
        settings.policy.rules.iter().any(|rule| match rule.action {
            Action::Balance(Some(id)) => id.0 as usize == service,
            _ => false,
        })
    };
    settings.services.iter().enumerate().any(|(id, service)| {
        let last = if let LastResort::Pool(pool) = service.last_resort { Some(pool) } else { None };
        let pools = [Some(service.pool), last].into_iter().flatten();
        let mut servers = pools.flat_map(|pool| &settings.pools[pool.0 as usize].servers);
        // A rule can direct the traffic of any service to this one.
        let everything = settings.services.iter().flat_map(|service| &service.listen);
        let listens: Vec<_> = if named(id) { everything.collect() } else { service.listen.iter().collect() };
        servers.any(|server| {
            let server = &settings.servers[server.0 as usize];
            listens.iter().any(|listen| {
                let ports = match (server.port, protocol) {
                    (Some(port), Protocol::Tcp | Protocol::Udp | Protocol::Sctp) => port..=port,
                    _ => listen.first_port..=listen.last_port,
                };
                listen.protocol == protocol
                    && server.address(listen.address) == Some(end.ip())
                    && ports.contains(&end.port())
            })
        })
    })
}

/// Returns the services whose TCP flows from this client a server at this end answers, with the service address that
/// the client knows if it can only be one.
pub fn owners(settings: &Settings, server: SocketAddr, client: SocketAddr) -> Vec<(usize, Option<SocketAddr>)> {
    let mut owners = Vec::new();
    for (id, service) in settings.services.iter().enumerate() {
        let last = if let LastResort::Pool(pool) = service.last_resort { Some(pool) } else { None };
        let pools = [Some(service.pool), last];
        let through_nat = service.nat.pool_for(client.ip()).is_some();
        for own in settings.servers.iter().filter(|own| !through_nat && pools.contains(&Some(own.pool))) {
            for listen in service.listen.iter().filter(|listen| listen.protocol == Protocol::Tcp) {
                let (first, last) = (listen.first_port, listen.last_port);
                let of_port = own.port.map_or((first..=last).contains(&server.port()), |port| port == server.port());
                let of_family = listen.address.is_ipv6() == client.is_ipv6();
                if !of_port || !of_family || own.address(listen.address) != Some(server.ip()) {
                    continue;
                }
                let whole = if listen.address.is_ipv6() { 128 } else { 32 };
                let port = if own.port.is_none() { Some(server.port()) } else { Some(first).filter(|_| first == last) };
                let port = port.filter(|_| listen.prefix == whole);
                owners.push((id, port.map(|port| SocketAddr::new(listen.address, port))));
            }
        }
    }
    owners
}
