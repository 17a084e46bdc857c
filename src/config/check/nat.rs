//! The rules between services and NAT pools, and whose addresses a NAT pool may have.
//!
//! It must not read TOML. Where a value could not be read, nothing is concluded from its absence.

use crate::config::links::Links;
use crate::config::problem::Draft;
use crate::config::raw::Raw;
use crate::config::raw::nat::RawNatPool;
use crate::packet::Protocol;
use serde_spanned::Spanned;
use std::net::IpAddr;

/// Checks every NAT pool, and what services say of them.
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
        let (Some(pool), Some(own)) = (links.nat_pools[at], links.pools[at]) else { continue };
        let (pool, own) = (&raw.nat_pools[pool], &raw.pools[own]);
        if !(service.is_whole && pool.is_whole && own.is_whole) {
            continue;
        }
        let Some(name) = &service.nat_pool else { continue };
        let families = pool.families();
        let servers = || own.servers.iter().flat_map(|server| &server.addresses);
        // With some clients alone the others see destination NAT, so each listen family needs its own.
        let narrow = !service.nat_for.is_empty();
        for listen in &service.listen {
            let v6 = listen.get_ref().address.is_ipv6();
            let stays = !matches!(listen.get_ref().protocol, Protocol::Tcp | Protocol::Udp | Protocol::Icmp);
            if stays && servers().next().is_some() && !servers().any(|address| address.get_ref().is_ipv6() == v6) {
                let family = if v6 { "IPv6" } else { "IPv4" };
                let protocol = listen.get_ref().protocol.name();
                let title = format!("its pool has no {family} server for this listen address");
                let draft = Draft::error(listen.span(), title).label(format!("{protocol} stays in its family"));
                drafts
                    .push(draft.help(format!("give a server an {family} address; TCP, UDP and echo alone change it")));
                continue;
            }
            let reachable = |address: &Spanned<IpAddr>| {
                families[usize::from(address.get_ref().is_ipv6())] && (!narrow || address.get_ref().is_ipv6() == v6)
            };
            if servers().next().is_some() && !servers().any(reachable) {
                let family = if v6 { "IPv6" } else { "IPv4" };
                let title =
                    format!("NAT pool \"{}\" has no address from which a server could be reached", name.get_ref());
                let draft = Draft::error(name.span(), title).also(listen.span(), format!("for {family} clients"));
                drafts.push(draft.help("add source addresses of the servers' family to the NAT pool"));
                break;
            }
        }
    }
}

/// A source address must be nobody else's: its packets must come back to the engine, and be told apart.
fn addresses(raw: &Raw, at: usize, pool: &RawNatPool, drafts: &mut Vec<Draft>) {
    let services = raw.services.iter().flat_map(|service| &service.listen);
    let services = services.map(|listen| (listen.get_ref().address, listen.span(), "a service address"));
    let servers = raw.pools.iter().flat_map(|pool| &pool.servers).flat_map(|server| &server.addresses);
    let servers = servers.map(|address| (*address.get_ref(), address.span(), "a server"));
    let probes = raw.gateway.probes.iter().map(|address| (*address.get_ref(), address.span(), "the probe address"));
    let own = raw.gateway.addresses.iter().map(|address| (*address.get_ref(), address.span(), "the device"));
    let others: Vec<_> = services.chain(servers).chain(probes).chain(own).collect();
    for place in &pool.places {
        let (first, last) = *place.get_ref();
        let within = |address: &IpAddr| address.is_ipv4() == first.is_ipv4() && (first..=last).contains(address);
        if let Some((address, span, what)) = others.iter().find(|(address, ..)| within(address)) {
            let draft = Draft::error(place.span(), format!("NAT address {address} is also that of {what}"));
            let draft = draft.label("a source address").also(span.clone(), *what);
            drafts.push(draft.help("use addresses that are routed to this gateway and assigned to nothing"));
        }
        for other in raw.nat_pools[..at].iter().flat_map(|pool| &pool.places) {
            let (a, b) = *other.get_ref();
            if a.is_ipv4() == first.is_ipv4() && a <= last && first <= b {
                let draft = Draft::error(place.span(), "two NAT pools share an address");
                let draft = draft.label("the second").also(other.span(), "the first");
                drafts.push(draft.help("give each pool its own; services may share a pool"));
            }
        }
    }
}

impl RawNatPool {
    /// Whether it has IPv4 addresses, and IPv6 ones.
    pub(crate) fn families(&self) -> [bool; 2] {
        [!self.settings.v4.is_empty(), !self.settings.v6.is_empty()]
    }
}
