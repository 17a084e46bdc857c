//! What has flows in the gateway that hands over, or may get some until it does, and is in no configuration of the next
//! process, since a reload or an operator has removed it, or because that process has another file: the flows go on until
//! they end.
//!
//! It is there while the copy is read, and removed then as by a reload.

use crate::balance::{PoolSettings, ServerSettings, ServiceSettings};
use crate::config::Settings;
use crate::engine::{Engine, ServerRow};
use crate::flow::NatPoolSettings;
use crate::ids::{PoolId, ServerId};
use crate::time::Instant;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

/// The name of the pool of NAT addresses that no pool has any more; no configuration can give it.
const NAT_POOL: &str = "(removed)";

/// All that may have flows by the last packet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::gateway) struct Leftovers {
    servers: Vec<Server>,
    services: Vec<Service>,
    nat: Vec<IpAddr>,
    /// All networks that are the gateway's own.
    networks: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Server {
    pool: String,
    name: String,
    /// IPv4 first.
    addresses: Vec<IpAddr>,
    port: Option<u16>,
}

/// A service. Its flows have the timeouts of the table in the next process, if that does not have the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Service {
    name: String,
    pool: String,
}

impl Leftovers {
    /// Returns those of an engine.
    pub(in crate::gateway) fn of(engine: &Engine, now: Instant) -> Leftovers {
        let rows = engine.servers(now).into_iter().filter(|row| !row.removed || row.flows > 0);
        let server = |row: ServerRow| {
            let ServerRow { pool, server, addresses, port, .. } = row;
            Server { pool, name: server, addresses, port }
        };
        let services = engine.services_that_may_have_flows().into_iter();
        Leftovers {
            servers: rows.map(server).collect(),
            services: services.map(|(name, pool)| Service { name, pool }).collect(),
            nat: engine.nat_addresses(),
            networks: engine.networks(),
        }
    }

    /// Returns the networks that stay the gateway's own, those of the next configuration included.
    pub(super) fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// Adds to settings what they do not have.
    pub(super) fn add_to(&self, settings: &mut Settings) {
        let there: HashSet<Server> = settings.servers.iter().map(|server| Server::of(settings, server)).collect();
        self.servers.iter().filter(|server| !there.contains(server)).for_each(|server| server.add_to(settings));
        let there: HashSet<String> = settings.services.iter().map(|service| service.name.clone()).collect();
        for Service { name, pool } in self.services.iter().filter(|service| !there.contains(&service.name)) {
            let pool = pool_of(settings, pool);
            settings.services.push(ServiceSettings::new(name, Vec::new(), pool));
        }
        let mut nat = NatPoolSettings { first_port: 1, ..NatPoolSettings::new(NAT_POOL) };
        let there: BTreeSet<IpAddr> = settings.nat_pools.iter().flat_map(addresses).collect();
        for address in self.nat.iter().collect::<BTreeSet<_>>().into_iter().filter(|own| !there.contains(own)) {
            match address {
                IpAddr::V4(own) => nat.v4.push(*own),
                IpAddr::V6(own) => nat.v6.push(*own),
            }
        }
        if addresses(&nat).next().is_some() {
            settings.nat_pools.push(nat);
        }
    }
}

fn addresses(pool: &NatPoolSettings) -> impl Iterator<Item = IpAddr> {
    pool.v4.iter().copied().map(IpAddr::V4).chain(pool.v6.iter().copied().map(IpAddr::V6))
}

impl Server {
    fn of(settings: &Settings, of: &ServerSettings) -> Server {
        let pool = settings.pools[of.pool.0 as usize].name.clone();
        let addresses = of.v4.map(IpAddr::V4).into_iter().chain(of.v6.map(IpAddr::V6)).collect();
        Server { pool, name: of.name.clone(), addresses, port: of.port }
    }

    /// Adds it to settings that may have another one of its name, at another address or port.
    fn add_to(&self, settings: &mut Settings) {
        let pool = pool_of(settings, &self.pool);
        let mut server = ServerSettings { port: self.port, ..ServerSettings::new(&self.name, pool) };
        for address in &self.addresses {
            match address {
                IpAddr::V4(v4) => server.v4 = Some(*v4),
                IpAddr::V6(v6) => server.v6 = Some(*v6),
            }
        }
        settings.pools[pool.0 as usize].servers.push(ServerId(settings.servers.len() as u32));
        settings.servers.push(server);
    }
}

/// Returns the pool of a name, which is made if there is none.
fn pool_of(settings: &mut Settings, name: &str) -> PoolId {
    let place = settings.pools.iter().position(|pool| pool.name == name).unwrap_or_else(|| {
        settings.pools.push(PoolSettings::new(name, Vec::new()));
        settings.pools.len() - 1
    });
    PoolId(place as u32)
}
