//! Servers of another gateway that this configuration does not have: flows that it has begun go on with them here.
//!
//! Such a server has a slot like one that has been removed: it is in no pool, and gets no new flow.

use super::{InUse, Plan};
use crate::balance::{Admin, PoolSettings, ServerSettings};
use crate::ids::{PoolId, ServerId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most servers that are not configured and have a slot.
pub(in crate::engine) const MOST_GUESTS: usize = 4096;

/// What identifies a server, here and elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Guest {
    pub pool: String,
    pub name: String,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub port: Option<u16>,
}

impl Guest {
    pub(in crate::engine) fn new(
        (pool, name): (&str, &str),
        addresses: [Option<IpAddr>; 2],
        port: Option<u16>,
    ) -> Self {
        let mut guest = Guest { pool: pool.into(), name: name.into(), v4: None, v6: None, port };
        for address in addresses.into_iter().flatten() {
            match address {
                IpAddr::V4(v4) => guest.v4 = Some(v4),
                IpAddr::V6(v6) => guest.v6 = Some(v6),
            }
        }
        guest
    }
}

impl Plan {
    /// Returns this plan with servers that it does not have, and their slots, as far as there is room. All others keep
    /// their slots, but those of earlier guests that are not in use become vacant unless they are `needed`.
    pub(in crate::engine) fn hosting(
        &self,
        guests: &[Guest],
        in_use: &InUse,
        needed: impl Fn(ServerId) -> bool,
    ) -> (Plan, Vec<Option<ServerId>>) {
        let mut settings = self.settings.clone();
        let mut listed = vec![false; settings.servers.len()];
        self.order.servers.iter().for_each(|id| listed[id.0 as usize] = true);
        for (at, server) in settings.servers.iter_mut().enumerate() {
            let stays = listed[at] || in_use.servers.get(at) == Some(&true) || needed(ServerId(at as u32));
            if !stays {
                *server = ServerSettings::new("", server.pool);
            }
        }
        let named = settings.servers.iter().filter(|server| !server.name.is_empty()).count();
        let mut room = MOST_GUESTS.saturating_sub(named - self.order.servers.len());
        let mut vacant = (0..listed.len()).filter(|at| settings.servers[*at].name.is_empty()).collect::<Vec<_>>();
        vacant.reverse();
        let mut slots = Vec::with_capacity(guests.len());
        for guest in guests {
            if room == 0 || guest.name.is_empty() {
                slots.push(None);
                continue;
            }
            room -= 1;
            let pool = settings.pools.iter().position(|pool| pool.name == guest.pool).unwrap_or_else(|| {
                settings.pools.push(PoolSettings::new(&guest.pool, Vec::new()));
                settings.pools.len() - 1
            });
            let own = ServerSettings::new(&guest.name, PoolId(pool as u32));
            let (v4, v6, port) = (guest.v4, guest.v6, guest.port);
            let server = ServerSettings { v4, v6, port, admin: Admin::Draining, ..own };
            let slot = vacant.pop().unwrap_or(settings.servers.len());
            match settings.servers.get_mut(slot) {
                Some(place) => *place = server,
                None => settings.servers.push(server),
            }
            slots.push(Some(ServerId(slot as u32)));
        }
        (Plan::compile(settings, Some(Box::new(self.written().clone())), self.order.clone()), slots)
    }
}
