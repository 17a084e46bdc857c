//! How long a packet may be on its way out: to each server, and to the clients.
//!
//! It must not know what becomes of packets that are longer.

use crate::config::Settings;
use crate::ids::ServerId;

/// The MTUs that were configured or found out, in bytes.
#[derive(Debug)]
pub(super) struct Mtus {
    /// For each server by its number: over IPv4, over IPv6; 0 is unknown.
    servers: Vec<[u16; 2]>,
    /// For each server by its number: whether the settings say it.
    stated: Vec<bool>,
    clients: u16,
}

impl Mtus {
    /// What the settings say; all else is unknown.
    pub(super) fn new(settings: &Settings) -> Self {
        let mut servers = vec![[0; 2]; settings.servers.len()];
        let mut stated = vec![false; settings.servers.len()];
        for pool in &settings.pools {
            for id in &pool.servers {
                servers[id.0 as usize] = [false, true].map(|v6| possible(v6, pool.mtu.unwrap_or(0)));
                stated[id.0 as usize] = pool.mtu.is_some();
            }
        }
        Mtus { servers, stated, clients: settings.gateway.client_mtu.unwrap_or(0) }
    }

    /// The most bytes that a packet to a server may have; 0 is unknown.
    pub(super) fn way_out(&self, server: ServerId, v6: bool) -> u16 {
        self.servers.get(server.0 as usize).map_or(0, |both| both[usize::from(v6)])
    }

    /// Whether the settings vouch for the whole way to a server; what a route says holds for its first step alone.
    pub(super) fn is_stated(&self, server: ServerId) -> bool {
        self.stated.get(server.0 as usize).is_some_and(|stated| *stated)
    }

    /// The most bytes that a packet to a client may have; 0 is unknown.
    pub(super) fn to_clients(&self) -> u16 {
        self.clients
    }

    /// Takes another MTU for the way to a server.
    pub(super) fn set(&mut self, server: ServerId, v6: bool, mtu: u16) {
        if let Some(both) = self.servers.get_mut(server.0 as usize) {
            both[usize::from(v6)] = possible(v6, mtu);
        }
    }
}

/// No way over IPv6 takes less than 1,280 bytes, and no host believes that one does (RFC 8200, 5; RFC 8201, 4).
const fn possible(v6: bool, mtu: u16) -> u16 {
    if v6 && mtu != 0 && mtu < 1280 { 1280 } else { mtu }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{PoolSettings, ServerSettings};
    use crate::engine::{Change, Engine, Refused};
    use crate::ids::PoolId;
    use crate::time::Instant;

    #[test]
    fn what_is_found_out_stands_beside_what_is_configured() {
        let mut settings = Settings::default();
        let pool = |name: &str, server, mtu| PoolSettings { mtu, ..PoolSettings::new(name, vec![ServerId(server)]) };
        settings.pools = vec![pool("a", 0, Some(1400)), pool("b", 1, None)];
        settings.servers = [0, 1].map(|at| ServerSettings::new("s", PoolId(at))).into();
        settings.gateway.client_mtu = Some(1280);
        let mut engine = Engine::new(&settings);
        let all = |engine: &Engine| [0, 1].map(|at| [false, true].map(|v6| engine.mtus.way_out(ServerId(at), v6)));
        assert_eq!((all(&engine), engine.mtus.to_clients()), ([[1400; 2], [0; 2]], 1280));
        let mut set = |server, v6, mtu| engine.apply(Instant::ZERO, Change::Mtu { server: ServerId(server), v6, mtu });
        assert_eq!((set(1, true, 9000), set(0, false, 1500)), (Ok(()), Ok(())));
        assert_eq!(set(2, false, 1500), Err(Refused::NoSuchServer(ServerId(2))));
        assert_eq!(all(&engine), [[1500, 1400], [0, 9000]]);
        assert_eq!(engine.mtus.way_out(ServerId(7), false), 0);
    }

    #[test]
    fn no_way_over_ipv6_is_narrower_than_1280_bytes() {
        let pools = vec![PoolSettings { mtu: Some(576), ..PoolSettings::new("a", vec![ServerId(0)]) }];
        let settings = Settings { pools, servers: vec![ServerSettings::new("s", PoolId(0))], ..Settings::default() };
        let mut mtus = Mtus::new(&settings);
        assert_eq!([false, true].map(|v6| mtus.way_out(ServerId(0), v6)), [576, 1280]);
        for (told, want) in [(0, 0), (68, 1280), (1279, 1280), (1281, 1281)] {
            mtus.set(ServerId(0), true, told);
            assert_eq!(mtus.way_out(ServerId(0), true), want);
        }
    }
}
