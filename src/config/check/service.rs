//! Checks of services against pools: families, sizes, groups, last resorts; and pools that nothing uses.
//!
//! It must not read TOML. Where a value could not be read, nothing is concluded from its absence.

use crate::balance::Algorithm;
use crate::config::links::Links;
use crate::config::problem::{Draft, grouped};
use crate::config::raw::Raw;
use crate::config::raw::pool::RawPool;
use crate::config::raw::service::RawService;
use crate::config::raw::timeouts;
use serde_spanned::Spanned;
use std::collections::BTreeMap;

/// Least entries of a Maglev table per server for shares within a percent of each other (NSDI 2016, 5.3).
const ENTRIES_PER_SERVER: usize = 100;

/// Checks each service against its pools, and which pools are used.
pub(crate) fn check(raw: &Raw, links: &Links, drafts: &mut Vec<Draft>) {
    for (at, service) in raw.services.iter().enumerate() {
        // A rule can bring other ports to the service.
        if service.is_whole && !links.services.contains(&Some(at)) {
            timeouts::unused(service, drafts);
        }
        if let (Some(name), Some(pool)) = (&service.pool, links.pools[at]) {
            families(service, name, &raw.pools[pool], crosses(raw, links, at), drafts);
            maglev(service, name, &raw.pools[pool], drafts);
        }
        if let (Some(name), Some(pool)) = (&service.last_resort_pool, links.last_resorts[at]) {
            if links.pools[at] == Some(pool) {
                let draft = Draft::error(name.span(), "the last resort is the service's own pool");
                let draft = draft.also(service.pool.as_ref().map_or(name.span(), Spanned::span), "its pool");
                drafts.push(draft.help("name another pool, or set `backup = true` on servers of this one"));
            } else {
                families(service, name, &raw.pools[pool], crosses(raw, links, at), drafts);
            }
        }
    }
    adopted(raw, drafts);
    groups(raw, links, drafts);
    for (pool, used) in raw.pools.iter().zip(&links.used) {
        if let (Some(name), false) = (&pool.name, used) {
            let title = format!("no service uses pool \"{}\"", name.get_ref());
            drafts.push(Draft::warning(name.span(), title).help("name it in a [[service]], or remove it"));
        }
    }
    priorities(raw, links, drafts);
}

/// The server families that a service reaches for clients of the other family: those of its NAT pool (NAT64, NAT46).
fn crosses(raw: &Raw, links: &Links, service: usize) -> [bool; 2] {
    let everybody = raw.services[service].nat_for.is_empty();
    links.nat_pools[service].filter(|_| everybody).map_or([false; 2], |pool| raw.nat_pools[pool].families())
}

/// Refuses pools without servers of a family that the service listens on, or of one that it can be translated to.
fn families(service: &RawService, name: &Spanned<String>, pool: &RawPool, crosses: [bool; 2], drafts: &mut Vec<Draft>) {
    if !pool.is_whole || pool.servers.is_empty() {
        return;
    }
    let taking = || pool.servers.iter().filter(|server| server.takes_flows());
    for (family, v4) in [("IPv4", true), ("IPv6", false)] {
        let Some(listen) = service.listen.iter().find(|listen| listen.get_ref().address.is_ipv4() == v4) else {
            continue;
        };
        let across = crosses[usize::from(v4)] && pool.servers.iter().any(|server| server.has(!v4));
        if across {
            continue;
        }
        if !pool.servers.iter().any(|server| server.has(v4)) {
            let title = format!("pool \"{}\" has no {family} server for this listen address", name.get_ref());
            let draft = Draft::error(listen.span(), title).also(name.span(), format!("has no {family} address"));
            drafts.push(
                draft.help(format!("give a server of the pool an {family} address, or do not listen on {family}")),
            );
        } else if taking().next().is_some() && !taking().any(|server| server.has(v4)) {
            let title =
                format!("all {family} servers of pool \"{}\" are draining, disabled or have weight 0", name.get_ref());
            let draft = Draft::warning(listen.span(), title).also(name.span(), format!("takes no {family} flows"));
            drafts.push(draft.help(format!(
                "{family} flows to this service cannot be placed until one is enabled with a weight above 0"
            )));
        }
    }
}

/// Refuses a Maglev table smaller than the pool, and warns where it is not much larger.
fn maglev(service: &RawService, name: &Spanned<String>, pool: &RawPool, drafts: &mut Vec<Draft>) {
    if service.algorithm != Some(Algorithm::Maglev) || !service.is_whole {
        return;
    }
    let (size, servers) = (service.settings.tuning.maglev_table as usize, pool.servers.len());
    let place = service.table_place.clone().or(service.algorithm_place.clone()).unwrap_or(name.span());
    let count = format!("the {} servers of pool \"{}\"", grouped(servers), name.get_ref());
    let draft = if size <= servers {
        Draft::error(place, format!("a Maglev table of {} entries is too small for {count}", grouped(size)))
    } else if size < ENTRIES_PER_SERVER * servers {
        Draft::warning(place, format!("a Maglev table of {} entries spreads {count} unevenly", grouped(size)))
    } else {
        return;
    };
    let help = format!(
        "`maglev-table` should be a prime of at least {} ({ENTRIES_PER_SERVER} per server); 65537 and 655373 are the usual ones",
        ENTRIES_PER_SERVER * servers
    );
    drafts.push(draft.also(name.span(), "the pool").help(help));
}

/// Warns where adopted connections would go to the wrong servers: a gateway that draws a new seed at each start picks others.
fn adopted(raw: &Raw, drafts: &mut Vec<Draft>) {
    let Some(place) = raw.services.iter().find_map(|service| service.adopts.clone()) else { return };
    if raw.seed == 0 {
        let draft = Draft::warning(place, "without a `seed`, adopted connections go to the wrong servers");
        drafts.push(
            draft.help("write `seed = N` at the top of the file, with a number other than 0 that nobody can guess"),
        );
    }
}

/// Refuses groups whose services differ: they remember the same clients, and so need the same pool and settings.
fn groups(raw: &Raw, links: &Links, drafts: &mut Vec<Draft>) {
    let mut seen: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    for (at, service) in raw.services.iter().enumerate() {
        let Some(group) = &service.group else { continue };
        let entry = seen.entry(group.get_ref()).or_insert((at, true));
        if entry.0 == at {
            continue;
        }
        entry.1 = false;
        let first = &raw.services[entry.0];
        let Some(first_group) = &first.group else { continue };
        let draft = |title: &str| {
            let title = format!("{title} in group \"{}\"", group.get_ref());
            Draft::error(group.span(), title).label("the second").also(first_group.span(), "the first")
        };
        match (links.pools[entry.0], links.pools[at]) {
            (Some(one), Some(other)) if one != other => {
                let help = "services of one group share servers: give them the same pool, or groups of their own";
                drafts.push(draft("services of different pools are").help(help));
            }
            _ if first.is_whole && service.is_whole && first.settings.sticky != service.settings.sticky => {
                let help = "`by`, the prefixes, `idle` and `slots` must be the same in all services of a group";
                drafts.push(draft("services with different stickiness are").help(help));
            }
            _ => {}
        }
    }
    for (at, alone) in seen.into_values() {
        if let (Some(group), true) = (&raw.services[at].group, alone && raw.services_are_whole) {
            let title = format!("no other service is in group \"{}\"", group.get_ref());
            drafts.push(Draft::warning(group.span(), title).help("add a second service to it, or remove `group`"));
        }
    }
}

/// Warns of ranks that no service uses.
fn priorities(raw: &Raw, links: &Links, drafts: &mut Vec<Draft>) {
    let mut used = vec![false; raw.pools.len()];
    for (service, pool) in raw.services.iter().zip(&links.pools) {
        match (service.algorithm, pool) {
            (None | Some(Algorithm::Priority), Some(pool)) => used[*pool] = true,
            (_, None) => return,
            _ => {}
        }
    }
    for (pool, _) in raw.pools.iter().zip(used).filter(|(pool, used)| pool.is_whole && !used) {
        if let Some(place) = pool.servers.iter().find_map(|server| server.priority_place.clone()) {
            let draft = Draft::warning(place, "`priority` has no effect: no service of this pool uses it");
            drafts.push(draft.help("write `algorithm = \"priority\"` in the service, or remove `priority`"));
        }
    }
}
