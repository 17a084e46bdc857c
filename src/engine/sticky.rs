//! Which clients stick to which servers, listed and cleared a few at a time.

use super::Engine;
use crate::balance::Prefixes;
use crate::flow::{ListedSlot, Lister, StickyMark};
use crate::time::{Duration, Instant};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Selects sticky clients; all given conditions must match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StickyQuery {
    /// Name of a service; services that share their clients are one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Name of the server, `pool/server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Network that contains the client, or of which the client is a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpNet>,
}

/// A client that sticks to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StickyRow {
    /// The services that share it.
    pub services: Vec<String>,
    /// The client: an address or, where networks count as one client, a network.
    pub client: String,
    /// The server's pool.
    pub pool: String,
    /// The server's name.
    pub server: String,
    /// Whether the client has shown that it receives what is sent to it; others give way to each other only.
    pub proven: bool,
    /// Its flows to the server.
    pub flows: u64,
    /// Milliseconds since it was given this server.
    pub given_ms: u64,
    /// Milliseconds until it is forgotten; none while it has flows.
    pub expires_in_ms: Option<u64>,
}

impl StickyRow {
    /// Returns the server's name with that of its pool: `pool/server`.
    pub fn server_name(&self) -> String {
        format!("{}/{}", self.pool, self.server)
    }
}

/// How far a walk over the sticky clients is.
#[derive(Debug)]
pub struct StickyWalk {
    who: Lister,
    list: u64,
    groups: Vec<u32>,
    /// Clients that were given their server later are passed over, if the others are forgotten.
    until: StickyMark,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// Begins a list of sticky clients for an operator; one that is under way ends.
    pub fn begin_sticky(&mut self) -> StickyWalk {
        self.begin_walk(Lister::List, self.sticky_mark())
    }

    /// Begins to forget sticky clients for an operator, other than those that are given their server from now on; where that is
    /// under way, it ends.
    pub fn begin_clearing(&mut self) -> StickyWalk {
        self.begin_walk(Lister::Clear, self.sticky_mark())
    }

    /// Begins to forget those that were given their server until then, by the word of the other gateway of a pair.
    pub fn begin_clearing_until(&mut self, until: StickyMark) -> StickyWalk {
        self.begin_walk(Lister::Order, until)
    }

    /// Returns this moment in the order in which clients are given their servers.
    pub fn sticky_mark(&self) -> StickyMark {
        self.shard.chooser().sticky_mark()
    }

    /// Returns whether the flow in a slot counts for a client that has been given its server since then, unless another server has
    /// the client by now.
    pub fn is_given_since(&self, slot: u32, since: StickyMark) -> bool {
        let table = self.shard.table();
        table.is_used(slot) && table.note(slot) != 0 && since.is_before(table.note(slot))
    }

    fn begin_walk(&mut self, who: Lister, until: StickyMark) -> StickyWalk {
        let chooser = self.shard.chooser_mut();
        let mut groups: Vec<u32> = chooser.sticky_groups().collect();
        groups.reverse();
        StickyWalk { who, list: chooser.begin_sticky_list(who), groups, until }
    }

    /// Looks at up to `most` sticky clients and appends those that match to `rows`; where they are to be forgotten, they are, and
    /// their flows stay where they are. Returns whether the walk goes on; nothing if another one for the same purpose has begun
    /// since.
    pub fn sticky(
        &mut self,
        now: Instant,
        (walk, query): (&mut StickyWalk, &StickyQuery),
        most: usize,
        rows: &mut Vec<StickyRow>,
    ) -> Option<bool> {
        let clear = walk.who != Lister::List;
        let Some(group) = walk.groups.last().copied() else { return Some(false) };
        let mut listed = Vec::with_capacity(most);
        let of = (walk.who, walk.list, group);
        let looked = self.shard.chooser_mut().list_sticky(self.standing.servers(), of, most, |slot| listed.push(slot));
        let (looked, services, prefixes) = (looked?, self.services_of(group), self.prefixes_of(group));
        let is_meant = query.service.as_ref().is_none_or(|name| services.contains(name));
        for slot in listed.into_iter().filter(|_| is_meant) {
            let Some(client) = prefixes.and_then(|prefixes| client_of(now, prefixes, &slot)) else { continue };
            let (pool, server) = self.plan.pool_and_server(slot.slot.server);
            let is_later = !slot.was_given_by(walk.until);
            if clear && is_later || !query.fits(client, (pool, server)) {
                continue;
            }
            let row = sticky_row(now, (&services, client), (pool, server), &slot);
            if !clear || self.shard.chooser_mut().clear_sticky(group, slot.client, slot.proven) {
                rows.push(row);
            }
        }
        if looked == 0 || !is_meant {
            walk.groups.pop();
        }
        Some(!walk.groups.is_empty())
    }

    /// Returns the names of the services of a group, in the order of the settings.
    fn services_of(&self, group: u32) -> Vec<String> {
        let services = self.plan.order().services.iter().map(|id| self.plan.service(*id));
        let own = services.filter(|service| service.sticky.as_ref().is_some_and(|sticky| sticky.group == group));
        own.map(|service| service.name.clone()).collect()
    }

    /// Returns what counts as one client in a group.
    fn prefixes_of(&self, group: u32) -> Option<Prefixes> {
        let mut all = self.plan.roster().services().iter().filter_map(|service| service.sticky.as_ref());
        all.find(|sticky| sticky.group == group).map(|sticky| sticky.prefixes)
    }
}

/// Returns the client of a slot as a network; none if the slot is over.
fn client_of(now: Instant, prefixes: Prefixes, of: &ListedSlot) -> Option<IpNet> {
    let is_over = of.ends.is_some_and(|ends| ends <= now);
    let len = if of.client.is_ipv4() { prefixes.v4.min(32) } else { prefixes.v6.min(128) };
    IpNet::new(of.client, len).ok().filter(|_| !is_over)
}

fn sticky_row(
    now: Instant,
    (services, client): (&[String], IpNet),
    (pool, server): (&str, &str),
    of: &ListedSlot,
) -> StickyRow {
    let is_one = client.prefix_len() == client.max_prefix_len();
    StickyRow {
        services: services.to_vec(),
        client: if is_one { client.addr().to_string() } else { client.to_string() },
        pool: pool.into(),
        server: server.into(),
        proven: of.proven,
        flows: of.slot.flows.into(),
        given_ms: millis(now.since(of.slot.given)),
        expires_in_ms: of.ends.map(|ends| millis(ends.since(now))),
    }
}

impl StickyQuery {
    fn fits(&self, client: IpNet, of: (&str, &str)) -> bool {
        self.server.as_ref().is_none_or(|name| name.split_once('/') == Some(of))
            && self.client.is_none_or(|net| net.contains(&client) || client.contains(&net))
    }
}
