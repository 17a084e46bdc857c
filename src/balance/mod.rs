//! Which server a new flow goes to: services, pools, servers, and one file per algorithm.
//!
//! Three parts: the [`Roster`] is the configuration and never changes, the [`Standings`] are the state of servers that
//! all shards share, and a [`Chooser`] is the state of one shard. It must not know packet bytes or clocks: it is given
//! keys, times and server events, and returns a server. A candidate is enabled, up, of weight above 0, without a
//! passive hold, not in maintenance, and below its flow limit.

mod alone;
mod choice;
mod chooser;
mod connection_rate;
mod explain;
mod hash;
mod identity;
mod least_connections;
mod least_latency;
mod maglev;
mod picker;
mod priority;
mod random;
mod resource_usage;
mod roster;
mod round_robin;
mod server;
mod settings;
mod source_hash;
mod standings;
mod two_choices;

#[cfg(test)]
mod tests;

pub use crate::state::Health;
pub use alone::Balancer;
pub use chooser::{Ask, Chooser, Draws, Loads, Overlay, Proposed, Stale};
pub use explain::{CandidateFacts, StickyFacts};
pub use identity::ServerIdentity;
pub use maglev::is_prime;
pub use roster::{Roster, server_ports};
pub use settings::*;
pub use standings::{Became, HealthOfAll, SavedServer, ServerState, Standings};

use crate::ids::ServerId;
use crate::time::Instant;
use serde::{Deserialize, Serialize};

/// Why a flow went to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum PickedBy {
    /// The service's algorithm chose it.
    #[default]
    Algorithm,
    /// The client has a sticky slot for it.
    Stickiness,
    /// No server of the pool could take the flow; it went to the last resort.
    LastResort,
    /// Nothing: the server went on with a connection that was not known.
    Server,
}

impl PickedBy {
    /// Returns the word used in tables and reports.
    pub const fn name(self) -> &'static str {
        match self {
            PickedBy::Algorithm => "algorithm",
            PickedBy::Stickiness => "stickiness",
            PickedBy::LastResort => "last-resort",
            PickedBy::Server => "server",
        }
    }
}

/// A server for a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The server.
    pub server: ServerId,
    /// Why this server.
    pub by: PickedBy,
    /// The algorithm's proposal that led to it, if there was one: [`Chooser::picked`] takes it.
    pub proposed: Option<Proposed>,
}

/// What happened to a server, apart from its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The last flow of a draining server has ended.
    Drained(ServerId),
    /// A draining server's deadline has passed with flows left: they must be ended.
    DrainDeadline(ServerId),
    /// Signs from the traffic put it on a passive hold until then.
    PassiveHold(ServerId, Instant),
}
