//! What identifies a server outside one configuration: to another gateway, and to the process that takes over.

use super::settings::ServerSettings;
use crate::ids::PoolId;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A server by the names and addresses that every configuration with it has in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// The name of its pool.
    pub pool: String,
    /// Unique within its pool.
    pub name: String,
    /// IPv4 first, one of each family at most.
    pub addresses: Vec<IpAddr>,
    /// Port; `None` keeps the service port.
    pub port: Option<u16>,
}

impl ServerIdentity {
    /// Returns that of a server in a pool of this name.
    pub fn of(pool: &str, server: &ServerSettings) -> Self {
        let addresses = server.v4.map(IpAddr::V4).into_iter().chain(server.v6.map(IpAddr::V6)).collect();
        ServerIdentity { pool: pool.into(), name: server.name.clone(), addresses, port: server.port }
    }

    /// Returns a server of this identity in a pool, with every other setting at its default.
    pub fn settings(&self, pool: PoolId) -> ServerSettings {
        let server = ServerSettings { port: self.port, ..ServerSettings::new(&self.name, pool) };
        server.with_addresses(self.addresses.iter().copied())
    }
}
