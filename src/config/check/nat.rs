//! Checks of services against NAT pools, and of NAT addresses against all others.
//!
//! It must not read TOML. Where a value could not be read, nothing is concluded from its absence.

use crate::config::links::Links;
use crate::config::problem::Draft;
use crate::config::raw::Raw;
use crate::config::raw::nat::RawNatPool;
use crate::config::raw::pool::RawPool;
use crate::config::raw::service::RawService;
use crate::packet::Protocol;
use serde_spanned::Spanned;
use std::net::IpAddr;

/// Checks every NAT pool, and every service that uses one.
pub(crate) fn check(raw: &Raw, links: &Links, drafts: &mut Vec<Draft>) {
    for (at, pool) in raw.nat_pools.iter().enumerate() {
        addresses(raw, at, pool, drafts);
        let used = links.nat_pools.contains(&Some(at));
        let all_known = raw.services_are_whole && raw.services.iter().all(|service| service.is_whole);
        if let (Some(name), false, true) = (&pool.name, used, all_known) {
            let title = format!("no service uses NAT pool \"{}\"", name.get_ref());
            let help = "name it in a [[service]] with `nat = \"full\"` and `nat-pool`, or remove it";
            drafts.push(Draft::warning(name.span(), title).help(help));
        }
    }
    for (at, service) in raw.services.iter().enumerate() {
        if let (Some(nat), Some(pool)) = (links.nat_pools[at], links.pools[at]) {
            reachable(service, &raw.nat_pools[nat], &raw.pools[pool], drafts);
        }
    }
}

/// Refuses listen addresses whose clients could reach no server of the pool through the NAT pool.
fn reachable(service: &RawService, nat: &RawNatPool, pool: &RawPool, drafts: &mut Vec<Draft>) {
    let (Some(name), true) = (&service.nat_pool, service.is_whole && nat.is_whole && pool.is_whole) else { return };
    let families = nat.families();
    let servers = || pool.servers.iter().flat_map(|server| &server.addresses);
    if servers().next().is_none() {
        return;
    }
    // Where full NAT is for some clients only, the others get destination NAT, so each listen family needs its own server.
    let narrow = !service.nat_for.is_empty();
    for v6 in [false, true] {
        let names = service.nat_for.iter().any(|net| net.addr().is_ipv6() == v6);
        if names && !servers().any(|address| address.get_ref().is_ipv6() == v6) {
            let family = if v6 { "IPv6" } else { "IPv4" };
            let title = format!("`full-nat-for` names {family} clients, but the pool has no {family} server");
            let draft = Draft::warning(name.span(), title).label("full NAT for some clients keeps their family");
            let help =
                format!("give a server an {family} address, or remove `full-nat-for` so that families may differ");
            drafts.push(draft.help(help));
        }
    }
    for listen in &service.listen {
        let v6 = listen.get_ref().address.is_ipv6();
        let family = if v6 { "IPv6" } else { "IPv4" };
        let stays = !matches!(listen.get_ref().protocol, Protocol::Tcp | Protocol::Udp | Protocol::Icmp);
        if stays && !servers().any(|address| address.get_ref().is_ipv6() == v6) {
            let protocol = listen.get_ref().protocol.name();
            let title = format!("its pool has no {family} server for this listen address");
            let draft = Draft::error(listen.span(), title).label(format!("{protocol} cannot change its family"));
            let help = format!(
                "give a server an {family} address; only TCP, UDP and ICMP echo are translated between families"
            );
            drafts.push(draft.help(help));
            continue;
        }
        let reaches = |address: &Spanned<IpAddr>| {
            families[usize::from(address.get_ref().is_ipv6())] && (!narrow || address.get_ref().is_ipv6() == v6)
        };
        if !servers().any(reaches) {
            let title = format!("NAT pool \"{}\" has no address from which a server can be reached", name.get_ref());
            let draft = Draft::error(name.span(), title).also(listen.span(), format!("for {family} clients"));
            drafts.push(draft.help("add source addresses of the servers' family to the NAT pool"));
            break;
        }
    }
}

/// Rejects source addresses that are already in use: the engine must receive the packets to them and know their purpose.
fn addresses(raw: &Raw, at: usize, pool: &RawNatPool, drafts: &mut Vec<Draft>) {
    let services = raw.services.iter().flat_map(|service| &service.listen);
    let services = services.map(|listen| (listen.get_ref().address, listen.span(), "a service address"));
    let servers = raw.pools.iter().flat_map(|pool| &pool.servers).flat_map(|server| &server.addresses);
    let servers = servers.map(|address| (*address.get_ref(), address.span(), "a server address"));
    let probes = raw.gateway.probes.iter().map(|address| (*address.get_ref(), address.span(), "the probe address"));
    let own = raw.gateway.addresses.iter().map(|address| (*address.get_ref(), address.span(), "a device address"));
    let others: Vec<_> = services.chain(servers).chain(probes).chain(own).collect();
    for place in &pool.places {
        let (first, last) = *place.get_ref();
        let within = |address: &IpAddr| address.is_ipv4() == first.is_ipv4() && (first..=last).contains(address);
        if let Some((address, span, what)) = others.iter().find(|(address, ..)| within(address)) {
            let draft = Draft::error(place.span(), format!("NAT address {address} is also {what}"));
            let draft = draft.label("a source address").also(span.clone(), *what);
            drafts.push(draft.help("use addresses that are routed to this gateway and assigned to no interface"));
        }
        for other in raw.nat_pools[..at].iter().flat_map(|pool| &pool.places) {
            let (a, b) = *other.get_ref();
            if a.is_ipv4() == first.is_ipv4() && a <= last && first <= b {
                let draft = Draft::error(place.span(), "two NAT pools share an address");
                let draft = draft.label("the second").also(other.span(), "the first");
                drafts.push(draft.help("give each NAT pool its own; services may share a NAT pool"));
            }
        }
    }
}
