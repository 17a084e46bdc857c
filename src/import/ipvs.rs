//! What IPVS is told, whoever tells it, and what of it Equipoise can do.

mod found;

pub(super) use found::*;

use super::{Notes, Options};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A service to write.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) listens: Vec<Listen>,
    pub(super) protocol: Protocol,
    pub(super) pool: String,
    pub(super) algorithm: &'static str,
    pub(super) hash: Option<&'static str>,
    pub(super) sticky: Option<(u32, Option<u8>)>,
    pub(super) keeps_flows: bool,
    pub(super) sorry: Option<String>,
}

/// A pool to write.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) monitors: Vec<Check>,
    pub(super) servers: Vec<Server>,
}

/// A server to write.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
    pub(super) weight: u16,
    pub(super) drains: bool,
    pub(super) most: Option<u32>,
    pub(super) priority: Option<u16>,
}

/// What to write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) services: Vec<Service>,
    pub(super) pools: Vec<Pool>,
    pub(super) timeouts: Timeouts,
}

/// How a scheduler is meant here.
struct Means {
    algorithm: &'static str,
    hash: Option<&'static str>,
    /// Whether it looks at weights other than 0.
    weighs: bool,
    rank: Rank,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    None,
    /// The server with the greatest weight gets everything.
    ByWeight,
    /// The same, as long as it has no more connections than its weight.
    UntilFull,
}

const fn means(algorithm: &'static str, hash: Option<&'static str>, weighs: bool, rank: Rank) -> Means {
    Means { algorithm, hash, weighs, rank }
}

fn scheduler(of: &Virtual, notes: &mut Notes) -> Option<Means> {
    let has = |flag: &str| of.flags.iter().any(|own| own == flag);
    let place = of.scheduler_place;
    let near = "compares flows with weights; IPVS also looks at closed connections and at the next one's delay";
    let found = match of.scheduler.as_str() {
        "rr" => means("round-robin", None, false, Rank::None),
        "wrr" => means("round-robin", None, true, Rank::None),
        "lc" => means("least-connections", None, false, Rank::None),
        "wlc" => means("least-connections", None, true, Rank::None),
        "sed" | "nq" => {
            let todo =
                format!("written as least-connections, which {near}; nothing to do unless servers are nearly idle");
            notes.add(place, format!("scheduler {} has no exact counterpart", of.scheduler), todo);
            means("least-connections", None, true, Rank::None)
        }
        "sh" if has("sh-port") => means("maglev", Some("flow"), true, Rank::None),
        "sh" => means("source-hash", Some("address"), true, Rank::None),
        "mh" if has("mh-port") => means("maglev", Some("flow"), true, Rank::None),
        "mh" => means("maglev", Some("address"), true, Rank::None),
        "twos" => means("two-choices", None, true, Rank::None),
        "fo" => means("priority", None, true, Rank::ByWeight),
        "ovf" => means("priority", None, true, Rank::UntilFull),
        other => {
            let why = match other {
                "dh" | "lblc" | "lblcr" => "it chooses by the address that clients ask for, for farms of caches",
                _ => "it is unknown",
            };
            notes.add(
                place,
                format!("the service is left out: scheduler {other} has no counterpart: {why}"),
                "choose an algorithm (docs/algorithms.md) and write the service by hand",
            );
            return None;
        }
    };
    let falls = has("sh-fallback") || has("mh-fallback");
    if matches!(of.scheduler.as_str(), "sh" | "mh") && !falls {
        let what = format!(
            "{} without {0}-fallback refuses clients of a server that is overloaded or of weight 0",
            of.scheduler
        );
        notes.add(place, what, "here they go to another server; nothing to do unless you relied on that");
    }
    Some(found)
}

/// Decides what is written.
pub(super) fn plan(found: Found, options: &Options, notes: &mut Notes) -> Plan {
    let mut plan = Plan { timeouts: found.timeouts, ..Plan::default() };
    let (mut names, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for mut one in merged(found.virtuals, notes) {
        one.listens.retain(|listen| {
            let is_new = taken.insert((*listen, one.protocol));
            if !is_new {
                let what = format!("{} is used by an earlier virtual service", shown(*listen, one.protocol));
                notes.add(one.place, what, "left out here; remove one of the two");
            }
            is_new
        });
        add(&mut plan, one, &mut names, options, notes);
    }
    plan
}

/// Merges virtual services of one address and port: to the kernel they are one, with the settings of the first.
fn merged(all: Vec<Virtual>, notes: &mut Notes) -> Vec<Virtual> {
    let mut merged: Vec<Virtual> = Vec::new();
    for one in all {
        let is_same = |own: &&mut Virtual| own.listens == one.listens && own.protocol == one.protocol;
        match merged.iter_mut().find(is_same).filter(|_| one.listens.len() == 1) {
            Some(first) => {
                let what = format!("{} is used by an earlier virtual server", shown(one.listens[0], one.protocol));
                let todo = "its servers are added to that one, as keepalived does, which drops its other settings; write it once";
                notes.add(one.place, what, todo);
                first.servers.extend(one.servers);
            }
            None => merged.push(one),
        }
    }
    merged
}

pub(super) fn shown(listen: Listen, protocol: Protocol) -> String {
    let address = match listen.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let port = listen.port.map_or_else(|| "1-65535".to_owned(), |port| port.to_string());
    format!("{address}:{port}/{}", protocol.name())
}

/// Returns a name that is not taken, of characters that names may have.
fn fresh(wanted: &str, names: &mut BTreeSet<String>) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let plain: String = wanted.chars().map(allowed).take(56).collect();
    let plain = if plain.is_empty() { "service".to_owned() } else { plain };
    let mut name = plain.clone();
    for number in 2.. {
        if names.insert(name.clone()) {
            break;
        }
        name = format!("{plain}-{number}");
    }
    name
}

fn add(plan: &mut Plan, mut one: Virtual, names: &mut BTreeSet<String>, options: &Options, notes: &mut Notes) {
    let Some(first) = one.listens.first().copied() else { return };
    one.servers.retain(|server| is_reachable(server, first, options, notes));
    if one.servers.is_empty() {
        notes.add(one.place, "the service is left out: none of its servers could be imported", "see the other lines");
        return;
    }
    let Some(means) = scheduler(&one, notes) else { return };
    if one.one_packet {
        notes.add(
            one.place,
            "one-packet scheduling (ops) has no counterpart: packets of a client's port stay with one server",
            "shorten udp-one-way and udp-two-way in [[service.timeouts]] where each packet is a question of its own",
        );
    }
    quiet(&one, notes);
    let address = first.address.to_string();
    let port = first.port.map_or_else(|| "any".to_owned(), |port| port.to_string());
    let wanted = one.name.clone().unwrap_or_else(|| format!("{}-{address}-{port}", one.protocol.name()));
    let pool = fresh(&wanted, names);
    let sorry = one.sorry.as_ref().filter(|sorry| is_reachable(sorry, first, options, notes));
    let sorry = sorry.map(|sorry| add_sorry(plan, sorry, fresh(&format!("{pool}-sorry"), names)));
    let keeps = one.servers.iter().filter(|server| server.keeps_on_failure).count();
    if keeps > 0 && keeps < one.servers.len() {
        for server in one.servers.iter().filter(|server| server.keeps_on_failure) {
            let todo = "add on-down = \"keep\" to the service if all of its servers shall keep their flows while down";
            notes.add(server.place, "inhibit_on_failure of some servers only has no counterpart", todo);
        }
    }
    let monitors = monitors(&one, notes);
    let service = |name: String, listens: Vec<Listen>| Service {
        name,
        listens,
        protocol: one.protocol,
        pool: pool.clone(),
        algorithm: means.algorithm,
        hash: means.hash,
        sticky: one.persistence,
        keeps_flows: keeps == one.servers.len(),
        sorry: sorry.clone(),
    };
    // Each virtual service of IPVS remembers clients by itself.
    if one.persistence.is_some() && one.listens.len() > 1 {
        let mut services = Vec::new();
        for (place, listen) in one.listens.iter().enumerate() {
            let name = if place == 0 { pool.clone() } else { fresh(&format!("{pool}-{}", listen.address), names) };
            services.push(service(name, vec![*listen]));
        }
        plan.services.extend(services);
    } else {
        plan.services.push(service(pool.clone(), one.listens.clone()));
    }
    let servers = servers(&one, &means, notes);
    plan.pools.push(Pool { name: pool, monitors, servers });
}

/// Adds the pool of a sorry server; returns its name.
fn add_sorry(plan: &mut Plan, sorry: &Real, name: String) -> String {
    let server = Server {
        name: sorry.name(),
        address: sorry.address,
        port: sorry.port,
        weight: 1,
        drains: false,
        most: None,
        priority: None,
    };
    plan.pools.push(Pool { name: name.clone(), monitors: Vec::new(), servers: vec![server] });
    name
}

/// Notes what differs about clients that are remembered.
fn quiet(one: &Virtual, notes: &mut Notes) {
    let Some((_, bits)) = one.persistence else { return };
    if bits == Some(0) {
        notes.add(
            one.place,
            "a persistence netmask of no bits makes all clients one",
            "left out: clients count by address",
        );
    }
    for server in one.servers.iter().filter(|server| server.weight == 0) {
        let what = "IPVS sends remembered clients to a server of weight 0 (expire_quiescent_template = 0)";
        notes.add(server.place, what, "here they go to another server; nothing to do if it is to be emptied");
    }
}

/// Returns whether a server can be imported.
fn is_reachable(server: &Real, first: Listen, options: &Options, notes: &mut Notes) -> bool {
    if server.address.is_ipv4() != first.address.is_ipv4() {
        let todo = "write it by hand: nat = \"full\" reaches servers of the other family";
        notes.add(server.place, "a server of the other address family", todo);
        return false;
    }
    let how = match server.method {
        Method::Nat => return true,
        Method::Route => "direct routing",
        Method::Tunnel => "a tunnel",
    };
    let what = format!("server {} is reached by {how}, and answers clients past the balancer", server.name());
    let first = "its replies must come through the gateway: remove the service address from its loopback, give it a route \
                 through the gateway or the service nat = \"full\"";
    if options.assume_nat {
        notes.add(server.place, format!("{what}: imported as NAT"), first);
    } else {
        notes.add(server.place, format!("{what}: left out"), format!("{first}; then import with --assume-nat"));
    }
    options.assume_nat
}

fn servers(one: &Virtual, means: &Means, notes: &mut Notes) -> Vec<Server> {
    let all_drain = one.servers.iter().all(|server| server.weight == 0);
    let mut order: Vec<usize> = (0..one.servers.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(one.servers[*place].weight));
    let mut taken = BTreeSet::new();
    let mut servers = Vec::new();
    for (place, own) in one.servers.iter().enumerate() {
        if !taken.insert((own.address, own.port)) {
            notes.add(
                own.place,
                format!("server {} is listed twice", own.name()),
                "left out here; remove one of the two",
            );
            continue;
        }
        let (upper, lower) = own.thresholds;
        if upper > 0 && lower > 0 {
            let todo =
                "here it gets flows again as soon as it has fewer than max-flows; nothing to do if that is right";
            notes.add(own.place, format!("the lower threshold of {lower} connections has no counterpart"), todo);
        }
        let mut most = (upper > 0).then_some(upper);
        let mut weight = u16::try_from(own.weight).unwrap_or_else(|_| {
            let todo = "written as 65535: divide the weights of this service";
            notes.add(own.place, format!("weight {} is above 65535", own.weight), todo);
            u16::MAX
        });
        let rank = order.iter().position(|at| *at == place).unwrap_or(0) + 1;
        let priority = (means.rank != Rank::None).then(|| u16::try_from(rank).unwrap_or(u16::MAX));
        if means.rank == Rank::UntilFull {
            most = Some(most.unwrap_or(u32::MAX).min(own.weight.saturating_add(1)));
        }
        // Rank and room say it all.
        if (means.rank != Rank::None || !means.weighs) && weight > 1 {
            weight = 1;
        }
        if all_drain {
            weight = 1;
        }
        let most = most.map(|most| most.min(100_000_000));
        servers.push(Server {
            name: own.name(),
            address: own.address,
            port: own.port.filter(|port| one.listens.iter().any(|listen| listen.port != Some(*port))),
            weight,
            drains: all_drain,
            most,
            priority,
        });
    }
    servers
}

/// Chooses the monitors of a pool: those that most of its servers have.
fn monitors(one: &Virtual, notes: &mut Notes) -> Vec<Check> {
    let alike = |a: &[Check], b: &[Check]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_like(b));
    let votes = |own: &Real| one.servers.iter().filter(|other| alike(&own.checks, &other.checks)).count();
    // Of equally many, the first in the file.
    let mut best: Option<(&Real, usize)> = None;
    for own in &one.servers {
        let own_votes = votes(own);
        if best.is_none_or(|(_, votes)| own_votes > votes) {
            best = Some((own, own_votes));
        }
    }
    let Some((model, _)) = best else { return Vec::new() };
    for own in one.servers.iter().filter(|own| !alike(&own.checks, &model.checks)) {
        let what = match own.checks.is_empty() {
            true => format!("server {} has no check, unlike most servers of the service", own.name()),
            false => format!("server {} has other checks than most servers of the service", own.name()),
        };
        let todo = "monitors are for a whole pool: those of the others also judge this one; give it a pool of its own if \
                    that is wrong";
        notes.add(own.place, what, todo);
    }
    let mut monitors = model.checks.clone();
    for check in &mut monitors {
        let is_udp = matches!(check.ask, Ask::Udp { .. } | Ask::Dns { .. });
        let judges = matches!(check.ask, Ask::Icmp)
            || (one.protocol == Protocol::Udp) == is_udp && one.protocol != Protocol::Sctp;
        if check.port.is_none() && !judges {
            check.port = model.port.or(one.listens.first().and_then(|listen| listen.port));
        }
        if check.retries > 0 {
            let there = check.interval_ms + check.retries * (check.pause_ms + check.timeout_ms) + check.timeout_ms;
            let here = check.interval_ms * (check.retries + 1) + check.timeout_ms;
            if here <= there {
                continue;
            }
            let what = format!(
                "retries come after {} there, and at each interval of {} here: a silent server is out after up to {} \
                 instead of {}",
                shown_time(check.pause_ms),
                shown_time(check.interval_ms),
                shown_time(here),
                shown_time(there),
            );
            notes.add(check.place, what, "shorten the interval of the monitor if that is too late");
        }
    }
    monitors
}

/// Formats milliseconds for a note.
fn shown_time(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

/// Formats milliseconds as the configuration has them.
pub(super) fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}
