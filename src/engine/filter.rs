//! Which flows are meant, and in what order: conditions as values, tested without making rows.
//!
//! It must not know words or their places: `control/filter_words/` reads them.

use super::{Cursor, Engine, FlowQuery, FlowRow};
use crate::balance::Protocol;
use crate::flow::{Facts, Key, Table, TimeoutState};
use crate::ids::FlowId;
use crate::packet::Side;
use crate::time::{Duration, Instant};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// The ends of a flow that a condition is about. A flow has four addresses: its client, the service address, the source
/// that its server sees, and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Any of them.
    All,
    /// Where packets of the client come from: the client, or the source that the server sees.
    Source,
    /// Where they go: the service address, or the server.
    Destination,
}

/// A condition on flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// An address is within a network.
    Net(Ends, IpNet),
    /// Its client is within a network.
    Client(IpNet),
    /// A port is within a range; flows of TCP, UDP and SCTP have ports.
    Ports(Ends, u16, u16),
    /// It belongs to the service of this name.
    Service(String),
    /// It goes to this server: `pool/server`, or `server`.
    Server(String),
    /// It goes to a server of this pool.
    Pool(String),
    /// It is of this protocol.
    Protocol(Protocol),
    /// It is in this state.
    State(TimeoutState),
    /// The rule of this name admitted it.
    Rule(String),
    /// The condition does not hold.
    Not(Box<Filter>),
    /// All of them hold.
    And(Vec<Filter>),
    /// One of them holds.
    Or(Vec<Filter>),
}

crate::words::words! {
    /// What the first flows of a list have most of.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum SortBy {
        /// Bytes in both directions.
        Bytes = "bytes",
        /// Packets in both directions.
        Packets = "packets",
        /// Time since the flow was created.
        Age = "age",
        /// Time since its last packet.
        Idle = "idle",
    }
}

/// A flow with what it is sorted by.
pub type Ranked = (u64, FlowId);

/// The addresses and ports of a flow, by [`Ends`].
struct Four {
    source: [SocketAddr; 2],
    destination: [SocketAddr; 2],
}

impl Four {
    fn any(&self, ends: Ends, holds: impl Fn(&SocketAddr) -> bool) -> bool {
        (ends != Ends::Destination && self.source.iter().any(&holds))
            || (ends != Ends::Source && self.destination.iter().any(&holds))
    }
}

/// A flow that conditions are tested on.
struct Seen<'e> {
    engine: &'e Engine,
    index: u32,
    facts: Facts,
}

impl Seen<'_> {
    fn key(&self, side: Side) -> Key {
        self.engine.shard.table().key(self.index, side)
    }

    fn four(&self) -> Four {
        let (client, server) = (self.key(Side::Client), self.key(Side::Server));
        Four { source: [client.src(), server.dst()], destination: [client.dst(), server.src()] }
    }

    fn is_server(&self, name: &str) -> bool {
        let (pool, server) = self.engine.plan.pool_and_server(self.facts.server_id);
        match name.split_once('/') {
            Some(both) => both == (pool, server),
            None => name == server,
        }
    }

    fn is_service(&self, name: &str) -> bool {
        self.engine.plan.service(self.facts.service).name == *name
    }

    fn client(&self) -> IpAddr {
        self.key(Side::Client).addresses.src()
    }

    fn meets(&self, filter: &Filter) -> bool {
        match filter {
            Filter::Net(ends, net) => self.four().any(*ends, |end| net.contains(&end.ip())),
            Filter::Client(net) => net.contains(&self.client()),
            Filter::Ports(ends, first, last) => {
                let has_ports = matches!(self.facts.protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
                has_ports && self.four().any(*ends, |end| (*first..=*last).contains(&end.port()))
            }
            Filter::Service(name) => self.is_service(name),
            Filter::Server(name) => self.is_server(name),
            Filter::Pool(name) => self.engine.plan.pool_and_server(self.facts.server_id).0 == name,
            Filter::Protocol(protocol) => self.facts.protocol == *protocol,
            Filter::State(state) => self.facts.state == *state,
            Filter::Rule(name) => self.engine.plan.rules().name(self.facts.rule) == Some(name.as_str()),
            Filter::Not(filter) => !self.meets(filter),
            Filter::And(all) => all.iter().all(|filter| self.meets(filter)),
            Filter::Or(all) => all.iter().any(|filter| self.meets(filter)),
        }
    }

    fn fits(&self, query: &FlowQuery) -> bool {
        query.protocol.is_none_or(|protocol| protocol == self.facts.protocol)
            && query.service.as_ref().is_none_or(|name| self.is_service(name))
            && query.server.as_ref().is_none_or(|name| self.is_server(name))
            && query.client.is_none_or(|net| net.contains(&self.client()))
            && query.filter.as_ref().is_none_or(|filter| self.meets(filter))
    }

    fn rank(&self, now: Instant, by: SortBy) -> u64 {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let sum = |[one, other]: [u64; 2]| one.saturating_add(other);
        match by {
            SortBy::Bytes => sum(self.facts.bytes),
            SortBy::Packets => sum(self.facts.packets),
            SortBy::Age => nanos(now.since(self.facts.created)),
            SortBy::Idle => nanos(now.since(self.engine.shard.table().touched(self.index))),
        }
    }
}

impl Engine {
    pub(super) fn matches(&self, index: u32, query: &FlowQuery) -> bool {
        Seen { engine: self, index, facts: self.shard.table().facts(index) }.fits(query)
    }

    /// Passes the flows that match to `take`, each with what it is sorted by, and examines at most `most` slots of the
    /// table; returns where to continue, none at the end. `take` may end the walk early by returning false: it goes on
    /// behind that flow.
    pub fn ranked_flows(
        &self,
        now: Instant,
        query: &FlowQuery,
        by: SortBy,
        (from, most): (Cursor, usize),
        mut take: impl FnMut(Ranked) -> bool,
    ) -> Option<Cursor> {
        let table = self.shard.table();
        let mut is_enough = false;
        for (looked_at, (index, used)) in table.slots(from.0).enumerate() {
            if looked_at >= most || is_enough {
                return Some(Cursor(Table::position(index)));
            }
            if !used {
                continue;
            }
            let seen = Seen { engine: self, index, facts: table.facts(index) };
            if seen.fits(query) {
                is_enough = !take((seen.rank(now, by), table.id(index)));
            }
        }
        None
    }

    /// Returns a flow as seen at one point in time; none if it has ended.
    pub fn flow_row(&self, now: Instant, flow: FlowId) -> Option<FlowRow> {
        self.shard.table().slot(flow).map(|index| self.shard.row(&self.plan, now, index))
    }

    /// Returns how many more of the engine's own packets there is room for: flows that end by resets queue up to four.
    pub fn room_for_packets(&self) -> usize {
        self.shard.answers().room_for_packets()
    }
}
