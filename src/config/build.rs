//! Makes the settings from values that were read and checked.
//!
//! It must not judge: errors have been reported, and settings made despite them are not used.

use super::links::Links;
use super::outside;
use super::raw::Raw;
use super::raw::rule::RawRule;
use super::raw::service::RawService;
use super::settings::Settings;
use super::values::{v4, v6};
use crate::balance::{LastResort, Listen, Nat, PoolSettings, Protocol, ServerSettings, ServiceSettings};
use crate::flow::NatPoolSettings;
use crate::health::HealthSettings;
use crate::health::settings::{Floor, MonitorSettings, PoolWatch, ServerWatch, WatchedPort};
use crate::ids::{NatPoolId, PoolId, ServerId, ServiceId};
use crate::policy::{Action, PolicySettings, RuleSettings};
use serde_spanned::Spanned;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Makes the settings, in the order of the file. An unknown pool becomes pool 0, and a missing name an empty one: both
/// only where an error was reported.
pub(super) fn settings(raw: Raw, links: &Links) -> Settings {
    let sources = outside::sources(&raw, links);
    let gateway = raw.gateway.settings;
    let (answers, fragments, dns, http) = (raw.answers, raw.fragments, raw.dns, raw.http);
    let table = raw.table;
    let mut settings =
        Settings { seed: raw.seed, table, gateway, http, answers, fragments, sources, dns, ..Settings::default() };
    let mut watched = Vec::new();
    settings.nat_pools =
        raw.nat_pools.into_iter().map(|pool| NatPoolSettings { name: text(pool.name), ..pool.settings }).collect();
    for pool in raw.pools {
        let id = PoolId(settings.pools.len() as u32);
        let first = settings.servers.len();
        for server in pool.servers {
            let of_family = |address: &Spanned<std::net::IpAddr>| *address.get_ref();
            settings.servers.push(ServerSettings {
                name: text(server.name),
                pool: id,
                v4: server.addresses.iter().map(of_family).find_map(v4),
                v6: server.addresses.iter().map(of_family).find_map(v6),
                ..server.settings
            });
        }
        let servers = (first..settings.servers.len()).map(|at| ServerId(at as u32)).collect();
        let passive = pool.passive.map(|passive| passive.settings);
        let mtu = pool.mtu.map(Spanned::into_inner);
        let monitors: Vec<_> = pool.monitors.into_iter().filter_map(|monitor| monitor.settings).collect();
        if !monitors.is_empty() {
            watched.push((id, monitors, pool.floor.map_or(Floor::None, Spanned::into_inner)));
        }
        settings.pools.push(PoolSettings { name: text(pool.name), servers, passive, mtu });
    }
    (settings.services, settings.sticky_groups) = services(raw.services, links, &settings.nat_pools);
    settings.health = health(watched, &settings);
    settings.policy = policy(raw.rules, raw.rate, links);
    settings
}

fn text(name: Option<Spanned<String>>) -> String {
    name.map(Spanned::into_inner).unwrap_or_default()
}

/// Lists the pools that have monitors, with the ports at which services reach their servers.
fn health(watched: Vec<(PoolId, Vec<MonitorSettings>, Floor)>, settings: &Settings) -> HealthSettings {
    let watch = |(pool, monitors, floor): (PoolId, _, _)| {
        let uses = |service: &&ServiceSettings| service.pool == pool || service.last_resort == LastResort::Pool(pool);
        // Services that reach the servers at the same ports are one: there may be a thousand, and ten thousand servers.
        let mut seen = HashSet::new();
        let ports = |service: &ServiceSettings, port| [false, true].map(|v6| watched_ports(service, port, v6));
        let mut is_new =
            |service: &&ServiceSettings| seen.insert((service.across(), ports(service, None), ports(service, Some(1))));
        let services = settings.services.iter().filter(uses);
        let services: Vec<&ServiceSettings> = services.filter(|service| is_new(service)).collect();
        let servers = settings.pools[pool.0 as usize].servers.iter();
        let servers = servers.map(|id| server_watch(*id, &settings.servers[id.0 as usize], &services)).collect();
        PoolWatch { pool, monitors, floor, servers }
    };
    HealthSettings {
        seed: settings.seed,
        source_v4: settings.gateway.probe_v4,
        source_v6: settings.gateway.probe_v6,
        pools: watched.into_iter().map(watch).collect(),
    }
}

fn server_watch(id: ServerId, server: &ServerSettings, services: &[&ServiceSettings]) -> ServerWatch {
    let reached = |service: &&ServiceSettings| {
        let by = [false, true].into_iter().filter(|v6| service.reach(server, *v6).is_some());
        by.flat_map(|v6| watched_ports(service, server.port, v6)).collect::<Vec<_>>()
    };
    let ports = WatchedPort::merged(services.iter().flat_map(reached).collect());
    ServerWatch { server: id, v4: server.v4, v6: server.v6, ports }
}

/// Returns the ports at which clients of one family reach a server with this port. Protocols without ports have none.
fn watched_ports(service: &ServiceSettings, port: Option<u16>, v6: bool) -> Vec<WatchedPort> {
    let of_family = service.listen.iter().filter(|listen| listen.address.is_ipv6() == v6);
    let with_port = of_family.filter(|listen| !matches!(listen.protocol, Protocol::Icmp | Protocol::Ip(_)));
    let watched = |listen: &Listen| WatchedPort {
        port: port.unwrap_or(listen.first_port),
        tcp: listen.protocol == Protocol::Tcp,
        udp: listen.protocol == Protocol::Udp,
    };
    WatchedPort::merged(with_port.map(watched).collect())
}

/// Makes the services, and the names of the sticky groups by their number.
fn services(
    raw: Vec<RawService>,
    links: &Links,
    nat_pools: &[NatPoolSettings],
) -> (Vec<ServiceSettings>, BTreeMap<u32, String>) {
    // A group has the number of its first service, so that no two share one.
    let mut groups: HashMap<String, u32> = HashMap::new();
    let mut names = BTreeMap::new();
    let pool = |at: usize| PoolId(at as u32);
    let mut services = Vec::with_capacity(raw.len());
    for (at, service) in raw.into_iter().enumerate() {
        let mut settings = service.settings;
        if let Some(sticky) = &mut settings.sticky {
            let own = at as u32;
            sticky.group = service.group.map_or(own, |group| {
                let group = group.into_inner();
                let number = *groups.entry(group.clone()).or_insert(own);
                names.entry(number).or_insert(group);
                number
            });
        }
        if let Some(at) = links.nat_pools[at] {
            let families = [!nat_pools[at].v4.is_empty(), !nat_pools[at].v6.is_empty()];
            settings.nat = Nat::Full { pool: NatPoolId(at as u32), only_for: service.nat_for, families };
        }
        if let Some(resort) = links.last_resorts[at] {
            settings.last_resort = LastResort::Pool(pool(resort));
        }
        services.push(ServiceSettings {
            name: text(service.name),
            listen: service.listen.into_iter().map(Spanned::into_inner).collect(),
            pool: pool(links.pools[at].unwrap_or(0)),
            ..settings
        });
    }
    (services, names)
}

fn policy(raw: Vec<RawRule>, rate: Option<u32>, links: &Links) -> PolicySettings {
    let mut policy = PolicySettings { rules: Vec::with_capacity(raw.len()), rate, interfaces: Vec::new() };
    let mut places: HashMap<String, u16> = HashMap::new();
    for (at, rule) in raw.into_iter().enumerate() {
        let ingress = rule.ingress.map(|name| {
            *places.entry(name.get_ref().clone()).or_insert_with(|| {
                policy.interfaces.push(name.into_inner());
                // There are no more names than rules, whose number is limited.
                policy.interfaces.len() as u16
            })
        });
        let action = match rule.settings.action {
            Action::Balance(_) => Action::Balance(links.services[at].map(|service| ServiceId(service as u32))),
            other => other,
        };
        policy.rules.push(RuleSettings {
            name: text(rule.name),
            from: rule.from.into_iter().map(Spanned::into_inner).collect(),
            to: rule.to.into_iter().map(Spanned::into_inner).collect(),
            ingress,
            action,
            ..rule.settings
        });
    }
    policy
}
