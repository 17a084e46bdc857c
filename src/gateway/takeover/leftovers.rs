//! What a reload or an operator has removed from the configuration of the gateway that hands over, and that has flows: they go
//! on in the next process, too, until they end.
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
use std::net::IpAddr;

/// The name of the pool of NAT addresses that no pool has any more; no configuration can give it.
const NAT_POOL: &str = "(removed)";

/// What is configured no longer and has flows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::gateway) struct Leftovers {
    servers: Vec<Server>,
    services: Vec<Service>,
    /// NAT addresses with ports in use.
    nat: Vec<IpAddr>,
    /// All networks that are still the gateway's own.
    networks: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Server {
    pool: String,
    name: String,
    addresses: Vec<IpAddr>,
    port: Option<u16>,
}

/// A service. Its flows have the timeouts of the table in the next process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Service {
    name: String,
    pool: String,
}

impl Leftovers {
    /// Returns those of an engine.
    pub(in crate::gateway) fn of(engine: &Engine, now: Instant) -> Leftovers {
        let rows = engine.servers(now).into_iter().filter(|row| row.removed && row.flows > 0);
        let server = |row: ServerRow| {
            let ServerRow { pool, server, addresses, port, .. } = row;
            Server { pool, name: server, addresses, port }
        };
        let services = engine.removed_services().into_iter();
        Leftovers {
            servers: rows.map(server).collect(),
            services: services.map(|(name, pool)| Service { name, pool }).collect(),
            nat: engine.removed_nat_addresses(),
            networks: engine.retired().to_vec(),
        }
    }

    /// Returns the networks that stay the gateway's own.
    pub(super) fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// Adds them to settings that do not have them.
    pub(super) fn add_to(&self, settings: &mut Settings) {
        self.servers.iter().for_each(|server| server.add_to(settings));
        for Service { name, pool } in &self.services {
            if settings.services.iter().all(|service| service.name != *name) {
                let pool = pool_of(settings, pool);
                settings.services.push(ServiceSettings::new(name, Vec::new(), pool));
            }
        }
        let mut nat = NatPoolSettings { first_port: 1, ..NatPoolSettings::new(NAT_POOL) };
        for address in &self.nat {
            let is_free = !settings.nat_pools.iter().any(|pool| match address {
                IpAddr::V4(v4) => pool.v4.contains(v4),
                IpAddr::V6(v6) => pool.v6.contains(v6),
            });
            match address {
                IpAddr::V4(v4) if is_free => nat.v4.push(*v4),
                IpAddr::V6(v6) if is_free => nat.v6.push(*v6),
                _ => {}
            }
        }
        nat.v4.sort_unstable();
        nat.v6.sort_unstable();
        if !nat.v4.is_empty() || !nat.v6.is_empty() {
            settings.nat_pools.push(nat);
        }
    }
}

impl Server {
    /// Adds it to settings that do not have this server: one of its name at another address or port is another one.
    fn add_to(&self, settings: &mut Settings) {
        let pool = pool_of(settings, &self.pool);
        let mut server = ServerSettings { port: self.port, ..ServerSettings::new(&self.name, pool) };
        for address in &self.addresses {
            match address {
                IpAddr::V4(v4) => server.v4 = Some(*v4),
                IpAddr::V6(v6) => server.v6 = Some(*v6),
            }
        }
        let what = |server: &ServerSettings| (server.pool, server.name.clone(), server.v4, server.v6, server.port);
        if settings.servers.iter().any(|own| what(own) == what(&server)) {
            return;
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
