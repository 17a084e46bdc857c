//! Where a flow goes: its server's address and port, and with full NAT a source of the gateway's own.

use super::{Engine, NatRow, Reason};
use crate::balance::Nat;
use crate::flow::Key;
use crate::ids::{NatPoolId, ServerId, ServiceId};
use crate::packet::{Addresses, Meta, Parsed, Protocol, Side, family};
use crate::time::Instant;

impl Engine {
    /// The key of a server's answers to a client's packets; takes a source port where the service asks for one.
    pub(super) fn answer_key(
        &mut self,
        now: Instant,
        client: &Key,
        (packet, parsed, meta): (&[u8], &Parsed, Meta),
        service: ServiceId,
        server: ServerId,
    ) -> Result<Key, Reason> {
        let v6 = client.addresses.is_v6();
        let endpoint = self.balancer.endpoint(service, server, v6, client.dst_port);
        let (address, port) = endpoint.ok_or(Reason::NoServer)?;
        let crosses = address.is_ipv6() != v6;
        // A flow whose first packet cannot cross would be a state without cause.
        if crosses && family::can_cross(&mut self.scratch, packet, parsed, meta).is_err() {
            return Err(Reason::Untranslatable);
        }
        let own = (client.addresses.src(), client.src_port);
        let source = match self.balancer.service(service).nat.pool_for(own.0) {
            Some(NatPoolId(pool)) => {
                let pool = &mut self.nat_pools[pool as usize];
                let taken = pool.allocate(now, own.0, own.1, client.protocol, address.is_ipv6());
                taken.map_err(|_| Reason::NatExhausted)?
            }
            None => own,
        };
        let addresses = Addresses::new(address, source.0).ok_or(Reason::NoServer)?;
        let src_port = match client.protocol {
            Protocol::Icmp => source.1,
            Protocol::Ip(_) => 0,
            _ => port,
        };
        Ok(Key { addresses, src_port, dst_port: source.1, protocol: client.protocol })
    }

    /// Gives back the source of a flow that was not made.
    pub(super) fn unneeded(&mut self, service: ServiceId, answer: &Key) {
        if let Nat::Full { pool, .. } = self.balancer.service(service).nat {
            let pool = &mut self.nat_pools[pool.0 as usize];
            pool.take_back(answer.addresses.dst(), answer.dst_port, answer.protocol);
        }
    }

    /// Gives back the source of a flow that ends; it rests before another one gets it.
    pub(super) fn release_source(&mut self, now: Instant, index: u32) {
        let service = self.table.flow(index).service;
        if let Nat::Full { pool, .. } = self.balancer.service(service).nat {
            let answer = self.table.key(index, Side::Server);
            let pool = &mut self.nat_pools[pool.0 as usize];
            pool.release(now, answer.addresses.dst(), answer.dst_port, answer.protocol);
        }
    }

    /// What of the NAT pools is in use: a row for each address and protocol that any flow has had.
    pub fn nat_pools(&self) -> Vec<NatRow> {
        let rows = |pool: &crate::flow::NatPool| {
            let name = pool.settings().name.clone();
            let exhausted = pool.exhausted;
            let row = move |usage: crate::flow::Usage| NatRow {
                pool: name.clone(),
                address: usage.address,
                protocol: usage.protocol,
                used: usage.used,
                resting: usage.held,
                free: usage.free,
                exhausted,
            };
            pool.usage().map(row).collect::<Vec<_>>()
        };
        self.nat_pools.iter().flat_map(rows).collect()
    }
}
