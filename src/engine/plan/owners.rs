//! Whose connection a server sends on that is not known here: which services can have opened it, and from where.

use super::Plan;
use crate::balance::{LastResort, ServiceSettings};
use crate::flow::Key;
use crate::ids::{PoolId, ServerId, ServiceId};
use crate::packet::Protocol;
use std::net::SocketAddr;

/// A service whose flows a server answers in this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Owner {
    pub(in crate::engine) service: ServiceId,
    /// The server.
    pub(in crate::engine) server: ServerId,
    /// The service address and port that the client knows; none if it may be one of several.
    pub(in crate::engine) listen: Option<SocketAddr>,
}

impl Plan {
    /// Returns the owners of a TCP segment that a server sends to a client; services whose flows come from a NAT pool
    /// instead of that client are none. It searches all services: such segments are rare, and answers to them limited.
    pub(in crate::engine) fn owners(&self, key: &Key) -> Vec<Owner> {
        let servers = self.directory.servers_at(key.addresses.src());
        let client = key.addresses.dst();
        let mut owners = Vec::new();
        for (id, service) in self.settings.services.iter().enumerate() {
            if service.nat.pool_for(client).is_some() {
                continue;
            }
            for (own, server) in servers.iter().map(|own| (*own, self.roster.server(*own))) {
                let serves = [Some(service.pool), last_resort(service)].contains(&Some(server.pool));
                for listen in service.listen.iter().filter(|listen| serves && listen.protocol == Protocol::Tcp) {
                    let v6 = listen.address.is_ipv6();
                    let ports = listen.first_port..=listen.last_port;
                    let answers = server.port.unwrap_or(key.src_port) == key.src_port
                        && (server.port.is_some() || ports.contains(&key.src_port))
                        && client.is_ipv6() == v6
                        && service.reach(server, v6) == Some(key.addresses.src());
                    if !answers {
                        continue;
                    }
                    let port = match server.port {
                        None => Some(key.src_port),
                        Some(_) => (listen.first_port == listen.last_port).then_some(listen.first_port),
                    };
                    let known = port.filter(|_| !listen.is_network());
                    let listen = known.map(|port| SocketAddr::new(listen.address, port));
                    owners.push(Owner { service: ServiceId(id as u32), server: own, listen });
                }
            }
        }
        owners
    }
}

fn last_resort(service: &ServiceSettings) -> Option<PoolId> {
    match service.last_resort {
        LastResort::Pool(pool) => Some(pool),
        LastResort::Drop | LastResort::Reset | LastResort::Unreachable => None,
    }
}
