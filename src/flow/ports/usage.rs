//! How many ports of a pool are in use, for operators.

use super::{Address, Endpoint, KINDS, Kind, NatPool};
use crate::packet::Protocol;
use std::net::IpAddr;

/// Port usage of one address and protocol. A port counts once for each server endpoint at which it is in use or rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Ports in use by flows, over all endpoints.
    pub used: u32,
    /// Those of `used` whose flow is tentative.
    pub tentative: u32,
    /// Resting ports, over all endpoints.
    pub resting: u32,
    /// Server endpoints at which ports are in use or rest.
    pub endpoints: u32,
    /// The endpoint at which most are, the smallest of several.
    pub fullest: Option<Endpoint>,
    /// Ports that are free at that endpoint; all of the range without one.
    pub free: u32,
}

impl NatPool {
    /// Returns whether any flow has a port, or any port rests.
    pub fn is_in_use(&self) -> bool {
        self.addresses.iter().any(Address::is_in_use)
    }

    /// Returns the usage of each address and protocol that any flow ever had, in configuration order. It walks over
    /// all endpoints.
    pub fn usage(&self) -> impl Iterator<Item = Usage> + '_ {
        let all = u32::from(self.settings.last_port) - u32::from(self.settings.first_port) + 1;
        self.addresses.iter().flat_map(move |own| {
            let kinds = own.kinds.iter().zip(KINDS).filter_map(|(kind, protocol)| Some((kind.as_ref()?, protocol)));
            kinds.map(move |(kind, protocol)| {
                let (endpoints, fullest) = kind.fullest();
                Usage {
                    address: own.address,
                    protocol,
                    used: kind.used,
                    tentative: kind.tentative,
                    resting: kind.resting,
                    endpoints,
                    fullest: fullest.map(|(server, _)| server),
                    free: all - fullest.map_or(0, |(_, busy)| busy),
                }
            })
        })
    }
}

impl Kind {
    /// Returns the number of endpoints, and the one with the most ports in use or resting, with their number.
    fn fullest(&self) -> (u32, Option<(Endpoint, u32)>) {
        let mut endpoints = 0;
        let (mut fullest, mut own) = (None::<(Endpoint, u32)>, None::<(Endpoint, u32)>);
        // The classes of an endpoint are neighbours.
        for ((server, _), ports) in &self.ports {
            let before = own.filter(|(before, _)| before == server).map(|(_, busy)| busy);
            endpoints += u32::from(before.is_none());
            let busy = before.unwrap_or(0) + ports.busy.len() as u32;
            own = Some((*server, busy));
            if fullest.is_none_or(|(_, most)| busy > most) {
                fullest = own;
            }
        }
        (endpoints, fullest)
    }
}
