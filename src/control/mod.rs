//! Inspection of a running gateway: requests, answers and their printing.
//!
//! ```text
//!  eqctl -> client ==(Unix socket, newline JSON)== gateway -> session -> engine
//!     `---> render <--- demo, replay
//! ```
//!
//! The core knows neither sockets nor clocks: [`Session`] takes bytes and returns bytes. Only [`client`] opens a
//! socket; it is part of the feature `daemon`. Tools import nothing but this module, which therefore re-exports the
//! types of the lower layers that appear in requests and answers.

mod access;
mod changes;
#[cfg(feature = "daemon")]
pub mod client;
mod desk;
mod explain;
mod filter_words;
mod ledger;
mod packet_words;
mod pair;
pub mod protocol;
pub mod render;
#[cfg(feature = "save")]
mod saved;
mod session;
mod snapshot;
mod system;

pub use access::{HttpState, Token};
pub use changes::compare;
pub use desk::{Desk, ReloadOrder, Reloaded, Ticket};
pub use explain::{difference, explain};
pub use filter_words::{FilterError, FilterWords};
pub use ledger::{Ask, Basis, Deadline, Kept, Ledger, LedgerCopy, Merged, Order, Reply, Resolved};
pub use packet_words::{PacketWords, WordsError};
pub use pair::{Begun, PairFacts, Pairing, RoleWord, Takeover};
#[cfg(feature = "web")]
pub(crate) use protocol::or_null;
pub use protocol::{
    Answer, ChangeRow, ChangedRow, ClearedRow, ClientReport, ClientRow, DeviceCounters, Done, DrainRow, DrainState,
    EventRow, Explained, Failure, FileRow, HeldRow, HttpRow, KilledRow, LinkRow, ObjectRow, OperationRow, PROTOCOL,
    PairStatus, PoolRow, RefusedRow, ReloadKind, ReloadRow, RepairRow, Request, SourceRow, Status, SyncRow,
    TakeoverRow, TokenRow, Totals, TroubleRow,
};
#[cfg(feature = "save")]
pub use saved::{Saved, patch, saved};
pub use session::{About, CHUNK, Floor, MAX_INPUT, Outside, Progress, Session};
pub use snapshot::{Gathered, Gathering, Snapshot, Topic, Work};
pub use system::{SystemState, Trouble};

pub use crate::balance::Admin;
pub use crate::config::changes::{Kind, Target, Who, notation};
pub use crate::engine::{
    Counters, Explanation, FlowQuery, FlowRow, HistoryRow, MonitorRow, NatRow, Rates, Reason, RuleRow, ServerRow,
    ServiceRow, Short, SortBy, StickyQuery, StickyRow,
};
pub use crate::health::ProbeTotals;
pub use crate::histogram::Histogram;
pub use crate::ids::FlowId;
pub use crate::packet::Protocol;
pub use crate::state::Health;

/// Returns the path of the control socket of a gateway whose configuration names none.
pub fn default_socket() -> std::path::PathBuf {
    crate::config::GatewaySettings::default().control_socket
}
