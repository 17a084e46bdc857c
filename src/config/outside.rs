//! Servers from outside among those of the file.
//!
//! They become tables of the file before it is read, each at the place of the key that names their source: the same code
//! reads and checks both, and whatever names a server finds them.

use super::address;
use super::links::Links;
use super::raw::Raw;
use super::settings::Settings;
use crate::balance::{Admin, Listen, ServerSettings};
use crate::ids::PoolId;
use crate::sources::{Found, SourceSettings};
use serde_spanned::Spanned;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use toml::de::{DeArray, DeTable, DeValue};

/// Servers that cannot be used, each with the reason, by pool.
pub type LeftOut = BTreeMap<String, Vec<String>>;

/// Lists where pools take servers from, in the order of the pools.
pub(super) fn sources(raw: &Raw, links: &Links) -> Vec<SourceSettings> {
    let source = |(at, pool): (usize, &super::raw::pool::RawPool)| {
        let source = pool.source.as_ref()?;
        Some(SourceSettings {
            pool: pool.name.as_ref()?.get_ref().clone(),
            from: source.from.clone(),
            least: source.least,
            families: families(raw, links, at),
        })
    };
    raw.pools.iter().enumerate().filter_map(source).collect()
}

/// Returns the families of which the services of a pool reach servers, IPv4 first; both where no service uses it.
pub(super) fn families(raw: &Raw, links: &Links, pool: usize) -> [bool; 2] {
    let mut wanted = [false; 2];
    for (at, service) in raw.services.iter().enumerate() {
        if links.pools[at] != Some(pool) && links.last_resorts[at] != Some(pool) {
            continue;
        }
        // Full NAT for some clients keeps their family.
        if let (Some(nat), true) = (links.nat_pools[at], service.nat_for.is_empty()) {
            let reached = raw.nat_pools[nat].families();
            wanted = [wanted[0] | reached[0], wanted[1] | reached[1]];
        } else {
            service.listen.iter().for_each(|listen| wanted[usize::from(listen.get_ref().address.is_ipv6())] = true);
        }
    }
    if wanted == [false; 2] { [true; 2] } else { wanted }
}

/// Returns the servers that the file by itself leaves room for, and the others, each with the reason, by pool.
///
/// One server that cannot be used does not keep the others away: left out are those whose address no server can have or
/// the gateway has itself, and those that the file has already. An address of a family that no service of the pool reaches
/// is dropped without a word, if the server has another one.
pub fn fit(settings: &Settings, found: &Found) -> (Found, LeftOut) {
    let listened: Vec<&Listen> = settings.services.iter().flat_map(|service| &service.listen).collect();
    let services: HashSet<IpAddr> = listened.iter().filter(|l| !l.is_network()).map(|listen| listen.address).collect();
    let gateway = &settings.gateway;
    let probes = [gateway.probe_v4.map(IpAddr::V4), gateway.probe_v6.map(IpAddr::V6)];
    let own: HashSet<IpAddr> =
        gateway.addresses.iter().map(|net| net.addr()).chain(probes.into_iter().flatten()).collect();
    let (mut fits, mut left_out) = (Found::new(), LeftOut::new());
    for source in &settings.sources {
        let Some(servers) = found.get(&source.pool) else { continue };
        let Some(pool) = settings.pools.iter().position(|pool| pool.name == source.pool) else { continue };
        let pool = PoolId(pool as u32);
        let of_file: Vec<&ServerSettings> = settings.servers.iter().filter(|server| server.pool == pool).collect();
        let names: HashSet<&str> = of_file.iter().map(|server| server.name.as_str()).collect();
        let places: HashMap<(IpAddr, Option<u16>), &str> = of_file
            .iter()
            .flat_map(|server| addresses(server).map(|address| ((address, server.port), server.name.as_str())))
            .collect();
        let why_not = |server: &ServerSettings| -> Option<String> {
            for address in addresses(server) {
                if let Some(why) = address::unusable(address) {
                    return Some(format!("{address} cannot be a server address: {why}"));
                }
                if services.contains(&address) {
                    return Some(format!("{address} is a service address"));
                }
                if own.contains(&address) {
                    return Some(format!("{address} is an address of this gateway"));
                }
                if let Some(name) = places.get(&(address, server.port)) {
                    return Some(format!("the configuration file has it as {name}"));
                }
            }
            if names.contains(server.name.as_str()) {
                return Some("the configuration file has a server of that name".into());
            }
            addresses(server).next().is_none().then(|| "no service of the pool reaches its address family".into())
        };
        let mut fit = Vec::with_capacity(servers.len());
        for server in servers.iter() {
            let mut server = server.clone();
            server.v4 = server.v4.filter(|_| source.families[0]);
            server.v6 = server.v6.filter(|_| source.families[1]);
            match why_not(&server) {
                None => fit.push(server),
                Some(why) => {
                    left_out.entry(source.pool.clone()).or_default().push(format!("{}: {why}", server.name));
                }
            }
        }
        fits.insert(source.pool.clone(), Arc::new(fit));
    }
    (fits, left_out)
}

fn addresses(server: &ServerSettings) -> impl Iterator<Item = IpAddr> {
    server.v4.map(IpAddr::V4).into_iter().chain(server.v6.map(IpAddr::V6))
}

/// Writes servers as the file would: for each pool an array of tables under its name.
///
/// Names of pools and servers need no escapes.
pub(super) fn tables(found: &Found) -> String {
    let mut text = String::new();
    for (pool, servers) in found {
        let _ = writeln!(text, "\"{pool}\" = [");
        for server in servers.iter() {
            let all: Vec<String> = addresses(server).map(|address| format!("\"{address}\"")).collect();
            let state = match server.admin {
                Admin::Enabled => "enabled",
                Admin::Draining => "draining",
                Admin::Disabled => "disabled",
            };
            let ServerSettings { name, weight, backup, priority, .. } = server;
            let _ = write!(text, "{{ name = \"{name}\", address = [{}]", all.join(", "));
            let _ = write!(text, ", weight = {weight}, backup = {backup}, priority = {priority}, state = \"{state}\"");
            let some = |key: &str, number: Option<u32>| number.map_or(String::new(), |n| format!(", {key} = {n}"));
            text += &some("port", server.port.map(u32::from));
            text += &some("max-flows", server.max_flows);
            text += " },\n";
        }
        text += "]\n";
    }
    text
}

/// Returns whether a server is among those written by [`tables`].
pub(super) fn has(tables: &str, pool: &str, name: &str) -> bool {
    let of_pool = tables.lines().skip_while(|line| *line != format!("\"{pool}\" = ["));
    of_pool.take_while(|line| *line != "]").any(|line| line.starts_with(&format!("{{ name = \"{name}\",")))
}

/// Adds servers, as written by [`tables`], to the pools of a file.
pub(super) fn insert<'t>(root: &mut DeTable<'t>, tables: &'t str) {
    if tables.is_empty() {
        return;
    }
    let mut found = DeTable::parse_recoverable(tables).0.into_inner();
    let Some(DeValue::Array(pools)) = root.get_mut("pool").map(Spanned::get_mut) else { return };
    for pool in pools.iter_mut() {
        let DeValue::Table(pool) = pool.get_mut() else { continue };
        let Some(name) = pool.get("name").and_then(|name| name.get_ref().as_str()).map(str::to_owned) else { continue };
        let Some(DeValue::Array(servers)) = found.remove(name.as_str()).map(Spanned::into_inner) else { continue };
        let key = ["servers-file", "servers-dns"].into_iter().find_map(|key| pool.get(key));
        let place = key.map_or(0..0, Spanned::span);
        let empty = || Spanned::new(place.clone(), DeValue::Array(DeArray::new()));
        let entry = pool.entry(Spanned::new(place.clone(), "server".into())).or_insert_with(empty);
        if let DeValue::Array(all) = entry.get_mut() {
            servers.into_iter().for_each(|server| all.push(at(server, &place)));
        }
    }
}

/// Puts a value, and all in it, at a place of the file.
fn at<'t>(value: Spanned<DeValue<'t>>, place: &Range<usize>) -> Spanned<DeValue<'t>> {
    let value = match value.into_inner() {
        DeValue::Array(items) => {
            let mut array = DeArray::new();
            items.into_iter().for_each(|item| array.push(at(item, place)));
            DeValue::Array(array)
        }
        DeValue::Table(table) => {
            let key = |key: Spanned<_>| Spanned::new(place.clone(), key.into_inner());
            DeValue::Table(table.into_iter().map(|(name, value)| (key(name), at(value, place))).collect())
        }
        other => other,
    };
    Spanned::new(place.clone(), value)
}
