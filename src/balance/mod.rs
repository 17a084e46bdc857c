//! Which server a new flow goes to: services, pools, servers, and one file per algorithm.
//!
//! Three parts: the [`Roster`] is what was configured and never changes, the [`Standings`] are what holds of servers for
//! every shard, a [`Chooser`] is where one shard stands. It must not know packets' bytes or clocks: it is given keys,
//! times and what happens to servers, and answers with a server. A candidate is enabled, up, of weight above 0, without
//! a passive hold, not in maintenance, and below its most flows.

mod alone;
mod chooser;
mod connection_rate;
mod explain;
mod hash;
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
mod tournament;
mod two_choices;

#[cfg(test)]
mod tests;

pub use crate::state::Health;
pub use alone::Balancer;
pub use chooser::{Ask, Chooser, Draws, Overlay, Proposed, Stale};
pub use explain::{CandidateFacts, StickyFacts};
pub use maglev::is_prime;
pub use roster::{Roster, server_ports};
pub use settings::*;
pub use standings::{ServerState, Standings};

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
    /// The client had been there before.
    Stickiness,
    /// No server of the pool could take it: the last resort did.
    LastResort,
}

impl PickedBy {
    /// The word used in tables and reports.
    pub const fn name(self) -> &'static str {
        match self {
            PickedBy::Algorithm => "algorithm",
            PickedBy::Stickiness => "stickiness",
            PickedBy::LastResort => "last-resort",
        }
    }
}

/// A server for a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The server.
    pub server: ServerId,
    /// Why it.
    pub by: PickedBy,
    /// The algorithm's proposal behind it, if one was asked: [`Chooser::picked`] takes it.
    pub proposed: Option<Proposed>,
}

/// What happened to a server beside its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The last flow of a draining server has ended.
    Drained(ServerId),
    /// A draining server's deadline has passed with flows left: they are to be ended.
    DrainDeadline(ServerId),
    /// Signs from the traffic took it out of the choice until then.
    PassiveHold(ServerId, Instant),
}
