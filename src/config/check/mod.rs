//! Checks of values against each other: names, overlaps, loops; and the order of all other checks.
//!
//! It must not read TOML. Where a value could not be read, nothing is concluded from its absence, so that one mistake is
//! one problem.

mod monitor;
mod nat;
mod pool;
mod rule;
mod service;

use crate::balance::Listen;
use crate::config::build;
use crate::config::links::Links;
use crate::config::problem::{Draft, Span};
use crate::config::raw::Raw;
use crate::config::raw::service::RawService;
use crate::config::raw::timeouts;
use crate::config::settings::Settings;
use ipnet::IpNet;
use serde_spanned::Spanned;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Makes all checks and the settings; these are valid only if no draft is an error.
pub(crate) fn check(mut raw: Raw, drafts: &mut Vec<Draft>) -> Settings {
    if !raw.has_services {
        // An accident, such as a file that was cut off, must not take all services away.
        drafts.push(Draft::error(0..0, "there is no service").help(
            "add a [[service]] and a [[pool]] of servers for it; or write `service = []` at the top of the file for a gateway \
             that is idle until it has one",
        ));
    }
    unique("services", raw.services.iter().filter_map(|service| service.name.as_ref()), drafts);
    unique("pools", raw.pools.iter().filter_map(|pool| pool.name.as_ref()), drafts);
    unique("NAT pools", raw.nat_pools.iter().filter_map(|pool| pool.name.as_ref()), drafts);
    unique("rules", raw.rules.iter().filter_map(|rule| rule.name.as_ref()), drafts);
    raw.pools.iter().for_each(|pool| pool::check(pool, raw.gateway.settings.mtu, drafts));
    overlaps(&raw.services, drafts);
    loops(&raw, drafts);
    if raw.sync.is_some()
        && raw.gateway.settings.announce
        && let Some(span) = &raw.gateway.announce
    {
        let draft = Draft::error(span.clone(), "`announce` cannot be combined with [sync]");
        drafts.push(draft.label("both gateways would answer for the same addresses").help(
            "route the service addresses to the address that the active gateway has (see `equipoise print keepalived`)",
        ));
    }
    let links = Links::new(&raw, drafts);
    service::check(&raw, &links, drafts);
    nat::check(&raw, &links, drafts);
    monitor::check(&raw, &links, drafts);
    rule::check(&raw, drafts);
    raw.table.profiles = timeouts::resolve(&mut raw.services, &raw.table.timeouts, drafts);
    build::settings(raw, &links)
}

/// Refuses equal names of one kind.
pub(crate) fn unique<'n>(kinds: &str, names: impl Iterator<Item = &'n Spanned<String>>, drafts: &mut Vec<Draft>) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for name in names {
        match seen.get(name.get_ref().as_str()) {
            None => {
                seen.insert(name.get_ref(), name.span());
            }
            Some(first) => {
                let draft = Draft::error(name.span(), format!("two {kinds} are named \"{}\"", name.get_ref()));
                drafts.push(draft.label("the second").also(first.clone(), "the first").help("rename one of them"));
            }
        }
    }
}

/// Refuses listen addresses that would take the same packet. Of an address and the networks around it, the longest prefix
/// wins, which is no overlap. Sorted by network, protocol and port, each is compared with the one before it that extends
/// farthest.
fn overlaps(services: &[RawService], drafts: &mut Vec<Draft>) {
    let mut all: Vec<(&Spanned<Listen>, &RawService)> =
        services.iter().flat_map(|service| service.listen.iter().map(move |listen| (listen, service))).collect();
    all.sort_by_key(|(listen, _)| {
        let Listen { address, prefix, protocol, first_port, last_port } = *listen.get_ref();
        (address, prefix, protocol, first_port, last_port, listen.span().start)
    });
    let mut farthest: Option<(&Spanned<Listen>, &RawService)> = None;
    for next in all {
        let Some(before) = farthest else {
            farthest = Some(next);
            continue;
        };
        let (a, b) = (before.0.get_ref(), next.0.get_ref());
        let same = (a.address, a.prefix, a.protocol) == (b.address, b.prefix, b.protocol);
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
    Draft::error(second.0.span(), format!("{shared} is listened on twice"))
        .label(format!("and by {}", of(second.1)))
        .also(first.0.span(), format!("by {}", of(first.1)))
        .help("each address, protocol and port belongs to one service and is listed once")
}

/// Refuses servers that are services, whose packets would loop, and service addresses that the kernel owns, which it would
/// answer itself.
fn loops(raw: &Raw, drafts: &mut Vec<Draft>) {
    let mut listened: HashMap<IpAddr, Span> = HashMap::new();
    let mut networks: BTreeMap<IpNet, Span> = BTreeMap::new();
    for listen in raw.services.iter().flat_map(|service| &service.listen) {
        let network = listen.get_ref().network();
        match listen.get_ref().is_network() {
            false => drop(listened.entry(network.addr()).or_insert(listen.span())),
            // "Every address" is for replays only, where nothing comes back.
            true if network.prefix_len() > 0 => drop(networks.entry(network).or_insert(listen.span())),
            true => {}
        }
    }
    let mut warned = false;
    for address in raw.pools.iter().flat_map(|pool| &pool.servers).flat_map(|server| &server.addresses) {
        if let Some(first) = listened.get(address.get_ref()) {
            let draft =
                Draft::error(address.span(), format!("server address {} is a service address", address.get_ref()));
            let draft = draft.label("the server").also(first.clone(), "the service");
            drafts.push(
                draft.help("packets to that server would loop back to this gateway; write the server's own address"),
            );
            continue;
        }
        let holds = networks.iter().find(|(network, _)| network.contains(address.get_ref())).filter(|_| !warned);
        if let Some((network, place)) = holds {
            warned = true;
            let title = format!("server address {} is in the service's network {network}", address.get_ref());
            let draft = Draft::warning(address.span(), title).label("the server").also(place.clone(), "the service");
            drafts.push(draft.help(
                "packets to that server loop back to this gateway unless a route with a longer prefix leads to it",
            ));
        }
    }
    for address in &raw.gateway.addresses {
        if let Some(first) = listened.get(address.get_ref()) {
            let title = format!("device address {} is a service address", address.get_ref());
            let draft = Draft::error(address.span(), title).label("the device").also(first.clone(), "the service");
            drafts.push(draft.help("the kernel would treat the service's packets as its own; remove the address here"));
        }
    }
    probe_addresses(raw, &listened, drafts);
}

/// Refuses source addresses of probes that something else has: replies to probes must reach the engine, and nothing else may
/// come to these addresses.
fn probe_addresses(raw: &Raw, listened: &HashMap<IpAddr, Span>, drafts: &mut Vec<Draft>) {
    for probe in &raw.gateway.probes {
        let servers = || raw.pools.iter().flat_map(|pool| &pool.servers).flat_map(|server| &server.addresses);
        let find = |address: &&Spanned<IpAddr>| address.get_ref() == probe.get_ref();
        let other = if let Some(service) = listened.get(probe.get_ref()) {
            ("a service", service.clone())
        } else if let Some(server) = servers().find(find) {
            ("a server", server.span())
        } else if let Some(device) = raw.gateway.addresses.iter().find(find) {
            ("the device", device.span())
        } else {
            continue;
        };
        let title = format!("probe address {} is also the address of {}", probe.get_ref(), other.0);
        let draft = Draft::error(probe.span(), title).label("the probes").also(other.1, other.0);
        drafts.push(draft.help("use an address that is routed to this gateway and assigned to no interface"));
    }
}
