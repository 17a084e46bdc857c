//! The engine seen from outside: rows of flows and servers, totals.

use super::{Counters, Cursor, Engine, FlowQuery, FlowRow, Reason, RuleRow, ServerRow, ServiceRow};
use crate::balance::{Algorithm, PickedBy, ServerSettings, ServiceSettings};
use crate::config::Settings;
use crate::ids::ServerId;
use crate::packet::Side;
use crate::policy::{RuleSettings, RuleTotals};
use crate::time::{Duration, Instant};
use std::net::IpAddr;

/// The names that rows show.
#[derive(Debug)]
pub(super) struct Names {
    services: Vec<Service>,
    /// Of each server's pool.
    pools: Vec<String>,
    servers: Vec<String>,
}

#[derive(Debug)]
struct Service {
    name: String,
    listen: Vec<String>,
    pool: String,
    algorithm: Algorithm,
}

impl Service {
    fn new(settings: &Settings, service: &ServiceSettings) -> Self {
        Service {
            name: service.name.clone(),
            listen: service.listen.iter().map(ToString::to_string).collect(),
            pool: settings.pools[service.pool.0 as usize].name.clone(),
            algorithm: service.algorithm,
        }
    }
}

impl Names {
    pub fn new(settings: &Settings) -> Self {
        Names {
            services: settings.services.iter().map(|service| Service::new(settings, service)).collect(),
            pools: settings.servers.iter().map(|s| settings.pools[s.pool.0 as usize].name.clone()).collect(),
            servers: settings.servers.iter().map(|s| s.name.clone()).collect(),
        }
    }

    /// The names of a server's pool and of the server.
    pub fn pool_and_server(&self, server: ServerId) -> (&str, &str) {
        (&self.pools[server.0 as usize], &self.servers[server.0 as usize])
    }

    /// A server as events name it: `pool/server`.
    pub fn server(&self, server: ServerId) -> String {
        format!("{}/{}", self.pools[server.0 as usize], self.servers[server.0 as usize])
    }
}

/// What a flow's number for it means.
const PICKED_BY: [PickedBy; 3] = [PickedBy::Algorithm, PickedBy::Stickiness, PickedBy::LastResort];

fn millis(span: Duration) -> u64 {
    span.as_millis() as u64
}

/// Slots that one call of [`Engine::flows`] looks at for each row that it may give.
const SLOTS_PER_ROW: usize = 16;

impl Engine {
    /// The totals.
    pub fn counters(&self) -> Counters {
        self.totals.snapshot(&self.table)
    }

    /// The servers, in the order of the settings.
    pub fn servers(&self, now: Instant) -> Vec<ServerRow> {
        let row = |(i, server): (u32, &ServerSettings)| {
            let totals = &self.servers[i as usize];
            let state = self.balancer.state(now, ServerId(i));
            let v4 = server.v4.map(IpAddr::V4);
            let v6 = server.v6.map(IpAddr::V6);
            ServerRow {
                pool: self.names.pools[i as usize].clone(),
                server: server.name.clone(),
                addresses: v4.into_iter().chain(v6).collect(),
                port: server.port,
                weight: server.weight,
                weight_now: state.weight,
                admin: state.admin,
                health: state.health,
                times_down: totals.transitions[0],
                times_up: totals.transitions[1],
                passive_hold_ms: state.held_until.map(|until| millis(until.since(now))),
                load: state.load,
                maintenance: state.maintenance,
                latency_ms: state.latency.map(|span| span.as_secs_f64() * 1e3),
                max_flows: server.max_flows,
                flows: u64::from(state.flows),
                flows_total: totals.flows_total,
                packets_in: totals.packets[0],
                bytes_in: totals.bytes[0],
                packets_out: totals.packets[1],
                bytes_out: totals.bytes[1],
            }
        };
        (0..).zip(self.balancer.servers()).map(row).collect()
    }

    /// How many servers there are.
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// The server of that name in the pool of that name.
    pub fn find_server(&self, pool: &str, server: &str) -> Option<ServerId> {
        let named = |i: &usize| self.names.pools[*i] == pool && self.names.servers[*i] == server;
        (0..self.servers.len()).find(named).map(|i| ServerId(i as u32))
    }

    /// The place of the rule of that name in the settings.
    pub fn find_rule(&self, name: &str) -> Option<u16> {
        self.policy.rules().position(|(rule, ..)| rule.name == name).map(|place| place as u16)
    }

    /// The rules, in their order.
    pub fn rules(&self) -> Vec<RuleRow> {
        let row = |(place, (rule, enabled, totals)): (u16, (&RuleSettings, bool, &RuleTotals))| RuleRow {
            place,
            rule: rule.name.clone(),
            enabled,
            action: rule.action.name().into(),
            matched: totals.matched,
            flows_total: totals.opened,
            refused: totals.refused,
            flows: totals.flows,
        };
        (1..).zip(self.policy.rules()).map(row).collect()
    }

    /// Packets refused for a reason until now, whether silently or with an answer in the service's name.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.totals.refused(reason)
    }

    /// The services, in the order of the settings.
    pub fn services(&self) -> Vec<ServiceRow> {
        let rows = self.names.services.iter().zip(&self.services);
        rows.map(|(service, totals)| ServiceRow {
            service: service.name.clone(),
            listen: service.listen.clone(),
            pool: service.pool.clone(),
            algorithm: service.algorithm,
            flows: totals.flows,
            flows_total: totals.flows_total,
        })
        .collect()
    }

    /// Appends up to `most` rows that match to `rows`, looks at no more than `16 * most` slots of the table,
    /// and returns where to go on; none at the end.
    pub fn flows(
        &self,
        now: Instant,
        query: &FlowQuery,
        from: Cursor,
        most: usize,
        rows: &mut Vec<FlowRow>,
    ) -> Option<Cursor> {
        let full = rows.len() + most;
        for (looked_at, (index, used)) in self.table.slots(from.0).enumerate() {
            if rows.len() >= full || looked_at >= most * SLOTS_PER_ROW {
                return Some(Cursor(index));
            }
            if used && self.matches(index, query) {
                rows.push(self.row(now, index));
            }
        }
        None
    }

    fn matches(&self, index: u32, query: &FlowQuery) -> bool {
        let flow = self.table.flow(index);
        let server = &self.balancer.server(flow.server_id).name;
        let service = &self.names.services[flow.service.0 as usize].name;
        query.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && query.service.as_ref().is_none_or(|name| name == service)
            && query.server.as_ref().is_none_or(|name| name == server)
            && query.client.is_none_or(|net| net.contains(&self.table.key(index, Side::Client).addresses.src()))
    }

    pub(super) fn row(&self, now: Instant, index: u32) -> FlowRow {
        let flow = self.table.flow(index);
        let (client, answer) = (self.table.key(index, Side::Client), self.table.key(index, Side::Server));
        FlowRow {
            id: self.table.id(index),
            protocol: flow.protocol,
            client: client.src(),
            listen: client.dst(),
            service: self.names.services[flow.service.0 as usize].name.clone(),
            server: self.balancer.server(flow.server_id).name.clone(),
            server_address: answer.src(),
            source: Some(answer.dst()).filter(|source| *source != client.src()),
            picked_by: PICKED_BY[usize::from(flow.picked_by)],
            rule: self.policy.name(flow.rule).map(Into::into),
            state: flow.state(),
            age_ms: millis(now.since(flow.created)),
            idle_ms: millis(now.since(self.table.touched(index))),
            expires_in_ms: millis(self.table.deadline(index).since(now)),
            packets_in: flow.packets[0],
            bytes_in: flow.bytes[0],
            packets_out: flow.packets[1],
            bytes_out: flow.bytes[1],
        }
    }
}
