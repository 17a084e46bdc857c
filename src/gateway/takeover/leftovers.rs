//! What has flows in the gateway that hands over, or may get some until it does, and is in no configuration of the next
//! process, since a reload or an operator has removed it, or because that process has another file: the flows go on until
//! they end.
//!
//! It is there while the copy is read, and removed then as by a reload.

use crate::balance::{PoolSettings, ServerIdentity, ServerSettings, ServiceSettings};
use crate::config::Settings;
use crate::engine::{Engine, ServerRow};
use crate::flow::NatPoolSettings;
use crate::ids::{PoolId, ServerId};
use crate::time::Instant;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

/// The name of the pool of NAT addresses that no pool has any more; no configuration can give it.
const NAT_POOL: &str = "(removed)";

/// All that may have flows by the last packet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::gateway) struct Leftovers {
    servers: Vec<ServerIdentity>,
    services: Vec<Service>,
    nat: Vec<IpAddr>,
    /// All networks that are the gateway's own.
    networks: Vec<IpNet>,
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
            ServerIdentity { pool, name: server, addresses, port }
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

    /// Adds to settings what they do not have. A server may get a place beside another one of its name, at another address
    /// or port.
    pub(super) fn add_to(&self, settings: &mut Settings) {
        let pool_of = |server: &ServerSettings| settings.pools[server.pool.0 as usize].name.as_str();
        let there: Vec<_> = settings.servers.iter().map(|own| ServerIdentity::of(pool_of(own), own)).collect();
        let servers = missing(&self.servers, |server| server, there.iter());
        let there = settings.services.iter().map(|service| service.name.as_str());
        let services = missing(&self.services, |service| service.name.as_str(), there);
        let pools = servers.iter().map(|server| &server.pool).chain(services.iter().map(|service| &service.pool));
        let pools = pools_of(&mut settings.pools, &pools.collect::<Vec<_>>());
        for server in servers {
            let pool = pools[&server.pool];
            settings.pools[pool.0 as usize].servers.push(ServerId(settings.servers.len() as u32));
            settings.servers.push(server.settings(pool));
        }
        let service = |Service { name, pool }: &Service| ServiceSettings::new(name, Vec::new(), pools[pool]);
        settings.services.extend(services.into_iter().map(service));
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

/// Returns what is not there yet, each once. Looks at each of both once: there may be tens of thousands.
fn missing<'a, T, K: Hash + Eq>(own: &'a [T], key: impl Fn(&'a T) -> K, there: impl Iterator<Item = K>) -> Vec<&'a T> {
    let mut there: HashSet<K> = there.collect();
    own.iter().filter(|own| there.insert(key(*own))).collect()
}

/// Returns the places of all pools by name; those of the `named` that are not there are made.
fn pools_of(pools: &mut Vec<PoolSettings>, named: &[&String]) -> HashMap<String, PoolId> {
    let there = pools.iter().map(|pool| pool.name.as_str());
    let made: Vec<_> =
        missing(named, |name| name.as_str(), there).into_iter().map(|name| PoolSettings::new(name, vec![])).collect();
    pools.extend(made);
    pools.iter().enumerate().map(|(place, pool)| (pool.name.clone(), PoolId(place as u32))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::cell::Cell;

    fn identity(pool: &str, name: &str, address: [u8; 4]) -> ServerIdentity {
        ServerIdentity { pool: pool.into(), name: name.into(), addresses: vec![address.into()], port: None }
    }

    fn service(name: &str, pool: &str) -> Service {
        Service { name: name.into(), pool: pool.into() }
    }

    #[test]
    fn what_settings_do_not_have_is_added_once_and_what_they_have_is_not() {
        let text = "[[service]]\nname='web'\nlisten='192.0.2.80:80/tcp'\npool='web'\n[[pool]]\nname='web'\n\
                    server=[{name='a',address='10.0.0.1'}]\n";
        let mut settings = config::parse(text, "leftovers.toml").unwrap_or_else(|error| panic!("{error}"));
        let leftovers = Leftovers {
            servers: vec![
                identity("web", "a", [10, 0, 0, 1]),
                identity("web", "a", [10, 0, 0, 9]),
                identity("old", "b", [10, 0, 0, 2]),
            ],
            services: vec![service("web", "web"), service("gone", "old"), service("also-gone", "other")],
            nat: vec![[203, 0, 113, 1].into()],
            networks: Vec::new(),
        };
        leftovers.add_to(&mut settings);
        let servers = |pool: &PoolSettings| {
            pool.servers.iter().map(|id| settings.servers[id.0 as usize].v4.unwrap().octets()[3]).collect::<Vec<_>>()
        };
        let pools: Vec<_> = settings.pools.iter().map(|pool| (pool.name.as_str(), servers(pool))).collect();
        assert_eq!(pools, [("web", vec![1, 9]), ("old", vec![2]), ("other", vec![])]);
        let services: Vec<_> =
            settings.services.iter().map(|service| (service.name.as_str(), service.pool.0)).collect();
        assert_eq!(services, [("web", 0), ("gone", 1), ("also-gone", 2)]);
        assert_eq!(settings.nat_pools.last().map(|pool| pool.v4.as_slice()), Some(&[[203, 0, 113, 1].into()][..]));
        // What has been added is there.
        let once = settings.clone();
        leftovers.add_to(&mut settings);
        assert_eq!(settings, once);
    }

    #[test]
    fn finding_what_is_missing_looks_at_each_name_once() {
        let names: Vec<String> = (0..1000).map(|n| format!("service-{n}")).collect();
        let (own, there) = (&names[200..], &names[..700]);
        let looks = Cell::new(0);
        let look = |name| {
            looks.set(looks.get() + 1);
            name
        };
        let found = missing(own, look, there.iter().map(look));
        assert_eq!(found, names[700..].iter().collect::<Vec<_>>());
        assert_eq!(looks.get(), own.len() + there.len());
    }
}
