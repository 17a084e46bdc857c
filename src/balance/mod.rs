//! Which server a new flow goes to: services, pools, servers, and one file an algorithm.
//!
//! It must not know packets, flows or time; it is handed candidates and answers with one of them.

mod round_robin;
mod settings;

pub use settings::*;

use crate::ids::{ServerId, ServiceId};
use round_robin::RoundRobin;
use std::net::IpAddr;

/// The services with their algorithms' state, and the servers with their weights in force.
#[derive(Debug)]
pub struct Balancer {
    services: Vec<Service>,
    servers: Vec<ServerSettings>,
}

#[derive(Debug)]
struct Service {
    servers: Vec<ServerId>,
    state: RoundRobin,
}

impl Balancer {
    /// Makes a balancer; `services`' pools and `pools`' servers are indices into the others.
    pub fn new(services: &[ServiceSettings], pools: &[PoolSettings], servers: &[ServerSettings]) -> Self {
        let service = |service: &ServiceSettings| {
            let servers = pools[service.pool.0 as usize].servers.clone();
            let state = match service.algorithm {
                Algorithm::RoundRobin => RoundRobin::new(servers.len()),
            };
            Service { servers, state }
        };
        Balancer { services: services.iter().map(service).collect(), servers: servers.to_vec() }
    }

    /// Picks a server for a new flow among those with an address of `family`'s family and a weight
    /// above zero, leaving out those in `tried`.
    pub fn pick(&mut self, service: ServiceId, family: IpAddr, tried: &[ServerId]) -> Option<ServerId> {
        let service = &mut self.services[service.0 as usize];
        let servers = &self.servers;
        let weight = |place: usize| {
            let id = service.servers[place];
            let server = &servers[id.0 as usize];
            let fits = server.address(family).is_some() && !tried.contains(&id);
            if fits { u32::from(server.weight) } else { 0 }
        };
        service.state.pick(weight).map(|place| service.servers[place])
    }

    /// A server's address of the given family and its port for flows that came to `service_port`.
    pub fn endpoint(&self, server: ServerId, family: IpAddr, service_port: u16) -> Option<(IpAddr, u16)> {
        let server = &self.servers[server.0 as usize];
        Some((server.address(family)?, server.port.unwrap_or(service_port)))
    }

    /// The servers, with their weights in force.
    pub fn servers(&self) -> &[ServerSettings] {
        &self.servers
    }

    /// Gives a server another weight; false where there is no such server.
    pub fn set_weight(&mut self, server: ServerId, weight: u16) -> bool {
        match self.servers.get_mut(server.0 as usize) {
            Some(server) => server.weight = weight,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PoolId;

    fn balancer(servers: &[(bool, bool, u16)]) -> Balancer {
        let server = |(i, (v4, v6, weight)): (usize, &(bool, bool, u16))| ServerSettings {
            name: format!("s{i}"),
            pool: PoolId(0),
            v4: v4.then(|| [10, 0, 0, i as u8].into()),
            v6: v6.then(|| [1, 2, 3, 4, 5, 6, 7, i as u16].into()),
            port: None,
            weight: *weight,
        };
        let ids = (0..servers.len() as u32).map(ServerId).collect();
        let pool = PoolSettings { name: "pool".into(), servers: ids };
        let service = ServiceSettings {
            name: "service".into(),
            listen: Vec::new(),
            pool: PoolId(0),
            algorithm: Algorithm::RoundRobin,
            unknown_tcp: UnknownTcp::Reset,
        };
        Balancer::new(&[service], &[pool], &servers.iter().enumerate().map(server).collect::<Vec<_>>())
    }

    #[test]
    fn only_servers_of_the_family_with_a_weight_and_untried_are_candidates() {
        let mut balancer = balancer(&[(true, false, 1), (false, true, 1), (true, true, 0), (true, true, 1)]);
        let (v4, v6) = (IpAddr::from([0; 4]), IpAddr::from([0u16; 8]));
        let picks: Vec<_> = (0..4).map(|_| balancer.pick(ServiceId(0), v4, &[]).unwrap().0).collect();
        assert_eq!(picks, [0, 3, 0, 3]);
        assert_eq!(balancer.pick(ServiceId(0), v6, &[ServerId(3)]), Some(ServerId(1)));
        assert_eq!(balancer.pick(ServiceId(0), v4, &[ServerId(3), ServerId(0)]), None);
        assert!(balancer.set_weight(ServerId(2), 5) && !balancer.set_weight(ServerId(9), 5));
        assert_eq!(balancer.pick(ServiceId(0), v4, &[ServerId(3), ServerId(0)]), Some(ServerId(2)));
    }
}
