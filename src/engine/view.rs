//! The external view of the engine: rows of flows, servers, services, rules and NAT pools, and totals.

use super::{
    Counters, Cursor, Engine, FlowQuery, FlowRow, NatRow, PartRow, PressureRow, Reason, RuleRow, ServerRow, ServiceRow,
};
use crate::balance::Admin;
use crate::config::{NoServer, find_server};
use crate::flow::{Key, NatPool, Table, Usage};
use crate::ids::{ServerId, ServiceId};
use crate::packet::Side;
use crate::time::{Duration, Instant};
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Slots that one call of [`Engine::flows`] examines per row that it may return.
const SLOTS_PER_ROW: usize = 32;

/// What operators can set of a server.
#[derive(Debug, Clone, Copy)]
pub struct SetByOperators<'a> {
    /// The server.
    pub id: ServerId,
    /// The name of its pool.
    pub pool: &'a str,
    /// Its name.
    pub server: &'a str,
    /// Its weight.
    pub weight: u16,
    /// Its administrative state.
    pub admin: Admin,
    /// Whether its draining ends by force.
    pub has_deadline: bool,
    /// Its flows.
    pub flows: u32,
}

impl Engine {
    /// Returns the totals.
    pub fn counters(&self) -> Counters {
        self.shard.counters()
    }

    /// Returns the servers, in configuration order; then those that are no longer in the configuration and still have
    /// flows.
    pub fn servers(&self, now: Instant) -> Vec<ServerRow> {
        let mut rows = Vec::new();
        self.servers_part(now, 0, usize::MAX, &mut rows);
        rows
    }

    /// Appends at most `most` of these rows, from place `from` on; returns where to continue, none at the end.
    pub fn servers_part(&self, now: Instant, from: usize, most: usize, rows: &mut Vec<ServerRow>) -> Option<usize> {
        let listed = &self.plan.order().servers;
        let all = listed.len() + self.plan.roster().servers().len();
        let end = from.saturating_add(most).min(all);
        for place in from..end {
            if let Some(server) = listed.get(place) {
                rows.push(self.server_row(now, *server));
                continue;
            }
            let server = ServerId((place - listed.len()) as u32);
            if self.shard.chooser().flows(server) > 0 && !self.plan.roster().is_in_a_pool(server) {
                rows.push(ServerRow { removed: true, ..self.server_row(now, server) });
            }
        }
        (end < all).then_some(end)
    }

    /// Returns what operators can set of the server at a place of the configuration; none at the end.
    pub fn set_by_operators(&self, place: usize) -> Option<SetByOperators<'_>> {
        let id = *self.plan.order().servers.get(place)?;
        let (pool, server) = self.plan.pool_and_server(id);
        let (weight, admin, has_deadline) = self.standing.servers().set_by_operators(id);
        Some(SetByOperators { id, pool, server, weight, admin, has_deadline, flows: self.shard.chooser().flows(id) })
    }

    /// Returns a server.
    pub fn server_row(&self, now: Instant, id: ServerId) -> ServerRow {
        let settings = self.plan.roster().server(id);
        let state = self.standing.state(&self.plan, now, id);
        let (flows_total, packets, bytes) = self.shard.server_totals(id);
        let [times_down, times_up] = self.standing.transitions(id);
        let v4 = settings.v4.map(IpAddr::V4);
        let v6 = settings.v6.map(IpAddr::V6);
        ServerRow {
            pool: self.plan.pool_and_server(id).0.into(),
            server: settings.name.clone(),
            addresses: v4.into_iter().chain(v6).collect(),
            port: settings.port,
            weight: state.weight,
            weight_now: state.weight_now,
            admin: state.admin,
            drain_deadline_ms: state.deadline.map(|deadline| millis(deadline.since(now))),
            health: state.health,
            parts_down: if state.partly_down {
                self.monitors.parts_down(id).into_iter().map(|(v6, port)| PartRow::new(v6, port)).collect()
            } else {
                Vec::new()
            },
            times_down,
            times_up,
            passive_hold_ms: state.held_until.map(|until| millis(until.since(now))),
            load: state.load,
            maintenance: state.maintenance,
            removed: false,
            latency_ms: state.latency.map(|span| span.as_secs_f64() * 1e3),
            max_flows: settings.max_flows,
            flows: u64::from(self.shard.chooser().flows(id)),
            proven: u64::from(self.shard.chooser().proven_flows(id)),
            flows_total,
            packets_in: packets[0],
            bytes_in: bytes[0],
            packets_out: packets[1],
            bytes_out: bytes[1],
            rates: None,
        }
    }

    /// Returns the number of servers.
    pub fn server_count(&self) -> usize {
        self.plan.order().servers.len()
    }

    /// Returns the server with this name in the pool with this name.
    pub fn find_server(&self, pool: &str, server: &str) -> Option<ServerId> {
        let mut all = self.plan.order().servers.iter().copied();
        all.find(|id| self.plan.pool_and_server(*id) == (pool, server))
    }

    /// Returns the server with this name: `pool/server`, or `server` alone where only one pool has it.
    ///
    /// # Errors
    /// [`NoServer`] says what is wrong with the name.
    pub fn server_named(&self, name: &str) -> Result<ServerId, NoServer> {
        find_server(self.plan.written(), name).map(|place| self.plan.order().servers[place])
    }

    /// Returns the configured servers by name with that of their pools: `pool/server`.
    pub fn server_ids(&self) -> HashMap<String, ServerId> {
        self.plan.order().servers.iter().map(|id| (self.plan.server_name(*id), *id)).collect()
    }

    /// Returns the name of a server with that of its pool: `pool/server`.
    pub fn server_name(&self, server: ServerId) -> String {
        self.plan.server_name(server)
    }

    /// Returns whether there is a service of this name, in the configuration or with flows left.
    pub fn has_service(&self, name: &str) -> bool {
        !name.is_empty() && self.plan.settings().services.iter().any(|service| service.name == *name)
    }

    /// Returns the services of the configuration, and others that have flows: their names, and those of their pools.
    pub fn services_that_may_have_flows(&self) -> Vec<(String, String)> {
        let settings = self.plan.settings();
        let configured: HashSet<ServiceId> = self.plan.order().services.iter().copied().collect();
        let all = (0..).map(ServiceId).zip(&settings.services).filter(|(_, service)| !service.name.is_empty());
        let may = all.filter(|(id, _)| configured.contains(id) || self.shard.service_totals(*id).0 > 0);
        may.map(|(_, service)| (service.name.clone(), settings.pools[service.pool.0 as usize].name.clone())).collect()
    }

    /// Returns all networks that are the gateway's own, in the configuration or not.
    pub fn networks(&self) -> Vec<IpNet> {
        self.plan.own_networks().into_iter().chain(self.retired().iter().copied()).collect()
    }

    /// Returns the NAT addresses among them.
    pub fn nat_addresses(&self) -> Vec<IpAddr> {
        let all = self.networks().into_iter().filter(|net| net.prefix_len() == net.max_prefix_len());
        let is_nat = |own: &IpAddr| self.shard.nat_pools().iter().any(|pool| pool.owns(*own));
        all.map(|net| net.addr()).filter(is_nat).collect()
    }

    /// Returns the flows of a server.
    pub fn flows_of(&self, server: ServerId) -> u64 {
        u64::from(self.shard.chooser().flows(server))
    }

    /// Returns the flows of servers of this name, `pool/server`, that are no longer configured.
    pub fn flows_of_removed(&self, name: &str) -> u64 {
        let present = &self.plan.order().servers;
        let slots = (0..self.plan.settings().servers.len() as u32).map(ServerId);
        let removed = slots.filter(|slot| name.split_once('/') == Some(self.plan.pool_and_server(*slot)));
        removed.filter(|slot| !present.contains(slot)).map(|slot| self.flows_of(slot)).sum()
    }

    /// Returns the number of the rule with this name.
    pub fn find_rule(&self, name: &str) -> Option<u16> {
        self.plan.rules().find(name)
    }

    /// Returns the rules, in their order.
    pub fn rules(&self) -> Vec<RuleRow> {
        let rules = (1..).zip(self.plan.rules().in_order());
        let row = |(place, (number, rule)): (u16, (u16, &crate::policy::RuleSettings))| {
            let totals = self.shard.policy().totals(number);
            RuleRow {
                place,
                rule: rule.name.clone(),
                enabled: self.standing.switches().is_on(number),
                action: rule.action.name().into(),
                matched: totals.matched,
                flows_total: totals.opened,
                refused: totals.refused,
                flows: totals.flows,
                proven: totals.proven,
            }
        };
        rules.map(row).collect()
    }

    /// Returns the packets refused for a reason so far, whether silently or with an answer in the service's name.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.shard.refused(reason)
    }

    /// Returns what is short of room at the moment, and which flows have given way since.
    pub fn pressures(&self, now: Instant) -> Vec<PressureRow> {
        self.shard.pressure().rows(now)
    }

    /// Returns the memory that packets touch at random: start and length in bytes of each part. A driver may ask the
    /// system for huge pages there.
    pub fn memory(&self) -> impl Iterator<Item = (usize, usize)> {
        self.shard.table().memory()
    }

    /// Returns the services, in configuration order; then those that are no longer in the configuration and still have
    /// flows, which listen nowhere.
    pub fn services(&self) -> Vec<ServiceRow> {
        let mut rows = Vec::new();
        self.services_part(0, usize::MAX, &mut rows);
        rows
    }

    /// Appends at most `most` of these rows, from place `from` on; returns where to continue, none at the end.
    pub fn services_part(&self, from: usize, most: usize, rows: &mut Vec<ServiceRow>) -> Option<usize> {
        let row = |id: ServiceId| {
            let service = self.plan.service(id);
            let (listen, pool, algorithm) = self.plan.service_row(id);
            let (flows, flows_total, packets, bytes) = self.shard.service_totals(id);
            ServiceRow {
                service: service.name.clone(),
                enabled: service.enabled,
                listen,
                pool: pool.into(),
                algorithm,
                flows,
                flows_total,
                packets_in: packets[0],
                bytes_in: bytes[0],
                packets_out: packets[1],
                bytes_out: bytes[1],
                rates: None,
            }
        };
        let listed = &self.plan.order().services;
        let all = listed.len() + self.plan.roster().services().len();
        let end = from.saturating_add(most).min(all);
        for place in from..end {
            let leaving = || Some(ServiceId((place - listed.len()) as u32)).filter(|id| self.is_leaving(*id));
            rows.extend(listed.get(place).copied().or_else(leaving).map(row));
        }
        (end < all).then_some(end)
    }

    /// Returns whether a service is no longer in the configuration and still has flows.
    fn is_leaving(&self, id: ServiceId) -> bool {
        self.shard.service_totals(id).0 > 0 && !self.plan.order().services.contains(&id)
    }

    /// Returns the number of services in the configuration.
    pub fn service_count(&self) -> usize {
        self.plan.order().services.len()
    }

    /// Returns the usage of the NAT pools: one row per address and protocol that any flow has had.
    pub fn nat_pools(&self) -> Vec<NatRow> {
        let rows = |pool: &NatPool| {
            let (name, exhausted) = (pool.settings().name.clone(), pool.exhausted());
            let row = move |usage: Usage| NatRow {
                pool: name.clone(),
                address: usage.address,
                protocol: usage.protocol,
                used: usage.used,
                half_open: usage.tentative,
                resting: usage.resting,
                servers: usage.endpoints,
                fullest_server: usage.fullest.map(|server| SocketAddr::new(server.address, server.port)),
                free: usage.free,
                exhausted,
            };
            pool.usage().map(row).collect::<Vec<_>>()
        };
        self.shard.nat_pools().iter().flat_map(rows).collect()
    }

    /// Appends up to `most` matching rows to `rows`, examines at most `32 * most` slots of the table, and returns where
    /// to continue; none at the end.
    pub fn flows(
        &self,
        now: Instant,
        query: &FlowQuery,
        from: Cursor,
        most: usize,
        rows: &mut Vec<FlowRow>,
    ) -> Option<Cursor> {
        let full = rows.len() + most;
        for (looked_at, (index, used)) in self.shard.table().slots(from.0).enumerate() {
            if rows.len() >= full || looked_at >= most * SLOTS_PER_ROW {
                return Some(Cursor(Table::position(index)));
            }
            if used && self.matches(index, query) {
                rows.push(self.shard.row(&self.plan, now, index));
            }
        }
        None
    }

    /// Returns whether packets with this key, as a server sends them, are replies of a flow.
    pub fn expects(&self, replies: &Key) -> bool {
        self.shard.table().find(replies).is_some_and(|found| found.side == Side::Server)
    }

    /// Passes the keys of the replies of flows to `take`, and examines at most `most` slots of the table; returns where to
    /// continue, none at the end. Flows that exist throughout such a walk are not missed.
    pub fn reply_keys(&self, from: Cursor, most: usize, mut take: impl FnMut(Key)) -> Option<Cursor> {
        let table = self.shard.table();
        for (looked_at, (index, used)) in table.slots(from.0).enumerate() {
            if looked_at >= most {
                return Some(Cursor(Table::position(index)));
            }
            if used {
                take(table.key(index, Side::Server));
            }
        }
        None
    }
}
