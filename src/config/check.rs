//! The rules between values: names, references, overlaps, families. Each is checked here, once.
//!
//! It must not read TOML. Where a value could not be read, nothing is concluded from its absence,
//! so that one mistake is one problem.

use super::address::written;
use super::problem::{Draft, Span};
use super::raw::{Raw, RawPool, RawServer, RawService, unknown_pool};
use super::settings::Settings;
use crate::balance::{Listen, PoolSettings, ServerSettings, ServiceSettings};
use crate::ids::{PoolId, ServerId};
use serde_spanned::Spanned;
use std::collections::HashMap;
use std::net::IpAddr;

/// Checks every rule and makes the settings; they hold only if no error is among the drafts.
pub(super) fn check(raw: Raw, drafts: &mut Vec<Draft>) -> Settings {
    if !raw.has_services {
        drafts
            .push(Draft::error(0..0, "there is no service").help("add a [[service]] and a [[pool]] of servers for it"));
    }
    unique("services", raw.services.iter().filter_map(|service| service.name.as_ref()), drafts);
    unique("pools", raw.pools.iter().filter_map(|pool| pool.name.as_ref()), drafts);
    for pool in &raw.pools {
        check_pool(pool, drafts);
    }
    overlaps(&raw.services, drafts);
    loops(&raw, drafts);
    let used = references(&raw, drafts);
    for (pool, used) in raw.pools.iter().zip(&used) {
        if let (Some(name), false) = (&pool.name, used) {
            let title = format!("no service uses pool \"{}\"", name.get_ref());
            drafts.push(Draft::warning(name.span(), title).help("name it in a [[service]], or remove it"));
        }
    }
    settings(raw)
}

/// Names of one kind must differ.
fn unique<'n>(kinds: &str, names: impl Iterator<Item = &'n Spanned<String>>, drafts: &mut Vec<Draft>) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for name in names {
        match seen.get(name.get_ref().as_str()) {
            None => {
                seen.insert(name.get_ref(), name.span());
            }
            Some(first) => {
                let draft = Draft::error(name.span(), format!("two {kinds} have the name \"{}\"", name.get_ref()));
                drafts.push(draft.label("the second").also(first.clone(), "the first").help("rename one of them"));
            }
        }
    }
}

fn check_pool(pool: &RawPool, drafts: &mut Vec<Draft>) {
    let place = pool.name.as_ref().map_or(pool.span.clone(), Spanned::span);
    unique("servers of one pool", pool.servers.iter().filter_map(|server| server.name.as_ref()), drafts);
    if pool.servers.is_empty() && pool.is_whole {
        drafts.push(
            Draft::error(place, "a pool without servers")
                .help("add a [[pool.server]] with `name` and `address` below it"),
        );
        return;
    }
    if pool.is_whole && pool.servers.iter().all(|server| *server.weight.get_ref() == 0) {
        let draft = Draft::error(place, "all servers of this pool have weight 0");
        let draft = draft.also(pool.servers[0].weight.span(), "the first of them");
        drafts.push(draft.help("give at least one server a weight from 1 to 65535; with none, no flow can be placed"));
    }
    let mut seen: HashMap<(IpAddr, Option<u16>), Span> = HashMap::new();
    for server in &pool.servers {
        for address in &server.addresses {
            let key = (*address.get_ref(), server.port);
            match seen.get(&key) {
                None => {
                    seen.insert(key, address.span());
                }
                Some(first) => {
                    let draft = Draft::error(address.span(), "two servers of one pool have the same address and port");
                    let draft = draft.label("the second").also(first.clone(), "the first");
                    drafts.push(draft.help("remove one of them; for a larger share of the flows raise `weight`"));
                }
            }
        }
    }
}

/// No two listen addresses may take the same packet. Sorted by address, protocol and port, each
/// is held against the one before it that reaches farthest.
fn overlaps(services: &[RawService], drafts: &mut Vec<Draft>) {
    let mut all: Vec<(&Spanned<Listen>, &RawService)> =
        services.iter().flat_map(|service| service.listen.iter().map(move |listen| (listen, service))).collect();
    all.sort_by_key(|(listen, _)| {
        let Listen { address, protocol, first_port, last_port } = *listen.get_ref();
        (address, protocol, first_port, last_port, listen.span().start)
    });
    let mut farthest: Option<(&Spanned<Listen>, &RawService)> = None;
    for next in all {
        let Some(before) = farthest else {
            farthest = Some(next);
            continue;
        };
        let (a, b) = (before.0.get_ref(), next.0.get_ref());
        let same = (a.address, a.protocol) == (b.address, b.protocol);
        if same && b.first_port <= a.last_port {
            drafts.push(overlap(before, next));
        }
        if !same || b.last_port > a.last_port {
            farthest = Some(next);
        }
    }
}

fn overlap(one: (&Spanned<Listen>, &RawService), other: (&Spanned<Listen>, &RawService)) -> Draft {
    let (first, second) = if one.0.span().start <= other.0.span().start { (one, other) } else { (other, one) };
    let (a, b) = (first.0.get_ref(), second.0.get_ref());
    let shared = Listen { first_port: a.first_port.max(b.first_port), last_port: a.last_port.min(b.last_port), ..*a };
    let of = |service: &RawService| match &service.name {
        Some(name) => format!("service \"{}\"", name.get_ref()),
        None => "a service".to_string(),
    };
    Draft::error(second.0.span(), format!("{} is listened on twice", written(&shared)))
        .label(format!("and by {}", of(second.1)))
        .also(first.0.span(), format!("by {}", of(first.1)))
        .help("one address, protocol and port belongs to one service, and is named once")
}

/// A server must not be a service, or packets would come back for ever; and the kernel must not
/// own a service address, or it would answer itself.
fn loops(raw: &Raw, drafts: &mut Vec<Draft>) {
    let mut listened: HashMap<IpAddr, Span> = HashMap::new();
    for listen in raw.services.iter().flat_map(|service| &service.listen) {
        listened.entry(listen.get_ref().address).or_insert(listen.span());
    }
    for address in raw.pools.iter().flat_map(|pool| &pool.servers).flat_map(|server| &server.addresses) {
        if let Some(first) = listened.get(address.get_ref()) {
            let draft =
                Draft::error(address.span(), format!("server address {} is a service address", address.get_ref()));
            let draft = draft.label("the server").also(first.clone(), "the service");
            drafts.push(
                draft.help("packets to that server would come back here in a loop; write the server's own address"),
            );
        }
    }
    for address in &raw.device_addresses {
        if let Some(first) = listened.get(address.get_ref()) {
            let title = format!("device address {} is a service address", address.get_ref());
            let draft = Draft::error(address.span(), title).label("the device").also(first.clone(), "the service");
            drafts.push(
                draft.help("the kernel would take the service's packets for its own; leave the address out here"),
            );
        }
    }
}

/// Every service's pool must exist and have a server of each family that the service listens on.
/// Answers which pools are in use; all of them, where it is not known what a service uses.
fn references(raw: &Raw, drafts: &mut Vec<Draft>) -> Vec<bool> {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    let mut used = vec![false; raw.pools.len()];
    for (at, pool) in raw.pools.iter().enumerate() {
        let Some(name) = &pool.name else { continue };
        // The second of two equal names has its error already.
        used[at] = *by_name.entry(name.get_ref()).or_insert(at) != at;
    }
    let names: Vec<&str> =
        raw.pools.iter().filter_map(|pool| pool.name.as_ref()).map(|name| name.get_ref().as_str()).collect();
    let all_named = raw.pools_are_whole && names.len() == raw.pools.len();
    let mut all_resolved = !raw.services.is_empty();
    for service in &raw.services {
        let Some(name) = &service.pool else {
            all_resolved = false;
            continue;
        };
        let Some(&at) = by_name.get(name.get_ref().as_str()) else {
            all_resolved = false;
            if all_named {
                drafts.push(unknown_pool(name, &names));
            }
            continue;
        };
        used[at] = true;
        families(service, name, &raw.pools[at], drafts);
    }
    if !all_resolved {
        used.fill(true);
    }
    used
}

fn families(service: &RawService, name: &Spanned<String>, pool: &RawPool, drafts: &mut Vec<Draft>) {
    if !pool.is_whole || pool.servers.is_empty() {
        return;
    }
    let of_family =
        |server: &RawServer, v4: bool| server.addresses.iter().any(|address| address.get_ref().is_ipv4() == v4);
    let taking: Vec<&RawServer> = pool.servers.iter().filter(|server| *server.weight.get_ref() > 0).collect();
    for (family, v4) in [("IPv4", true), ("IPv6", false)] {
        let Some(listen) = service.listen.iter().find(|listen| listen.get_ref().address.is_ipv4() == v4) else {
            continue;
        };
        if !pool.servers.iter().any(|server| of_family(server, v4)) {
            let title = format!("pool \"{}\" has no {family} server for this listen address", name.get_ref());
            let draft = Draft::error(listen.span(), title).also(name.span(), format!("has no {family} address"));
            drafts.push(
                draft.help(format!("give a server of the pool an {family} address, or do not listen on {family}")),
            );
        } else if !taking.is_empty() && !taking.iter().any(|server| of_family(server, v4)) {
            let title = format!("all {family} servers of pool \"{}\" have weight 0", name.get_ref());
            let draft = Draft::warning(listen.span(), title).also(name.span(), format!("takes no {family} flows"));
            drafts.push(draft.help(format!(
                "{family} flows to this service cannot be placed until one has a weight from 1 to 65535"
            )));
        }
    }
}

/// The checked values in the order of the file. A pool that is not known becomes pool 0, and an
/// unnamed thing gets an empty name: both only where an error was reported.
fn settings(raw: Raw) -> Settings {
    let mut settings = Settings { seed: raw.seed, table: raw.table, gateway: raw.gateway, ..Settings::default() };
    let mut ids: HashMap<String, PoolId> = HashMap::new();
    let text = |name: Option<Spanned<String>>| name.map(Spanned::into_inner).unwrap_or_default();
    for pool in raw.pools {
        let id = PoolId(settings.pools.len() as u32);
        let name = text(pool.name);
        let first = settings.servers.len();
        ids.insert(name.clone(), id);
        for server in pool.servers {
            let v4 = server.addresses.iter().find_map(|address| match address.get_ref() {
                IpAddr::V4(v4) => Some(*v4),
                IpAddr::V6(_) => None,
            });
            let v6 = server.addresses.iter().find_map(|address| match address.get_ref() {
                IpAddr::V6(v6) => Some(*v6),
                IpAddr::V4(_) => None,
            });
            let (port, weight) = (server.port, server.weight.into_inner());
            let name = text(server.name);
            settings.servers.push(ServerSettings { v4, v6, port, weight, ..ServerSettings::new(&name, id) });
        }
        let servers = (first..settings.servers.len()).map(|at| ServerId(at as u32)).collect();
        settings.pools.push(PoolSettings::new(&name, servers));
    }
    for service in raw.services {
        let pool = ids.get(&text(service.pool)).copied().unwrap_or(PoolId(0));
        let listen = service.listen.into_iter().map(Spanned::into_inner).collect();
        let (algorithm, unknown_tcp) = (service.algorithm, service.unknown_tcp);
        let new = ServiceSettings::new(&text(service.name), listen, pool);
        settings.services.push(ServiceSettings { algorithm, unknown_tcp, ..new });
    }
    settings
}
