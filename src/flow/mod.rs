//! The connection table: keys, entries, index, expiry lists, TCP tracker.
//!
//! It must not know services, algorithms or packet bytes; it is given keys, times and segment summaries.

pub(crate) mod clients;
mod entry;
mod fragments;
mod index;
mod key;
mod lists;
mod nat_settings;
mod ports;
mod settings;
mod sticky;
mod table;
mod tcp;

pub use entry::{Flow, NO_POOL};
pub use fragments::{Datagram, Fate, FragmentSettings, Fragments, Later, Piece, Refused};
pub use key::Key;
pub use nat_settings::{NatPoolSettings, Pooling};
pub use ports::{Draw, Endpoint, Exhausted, GivenBack, Mapping, NatPool, Proposal, Usage};
pub use settings::{MOST_PROFILES, TableSettings, TimeoutState, Timeouts};
pub use sticky::{Slot, Slots};
pub use table::{Found, InsertError, NewFlow, TOUCH_GRAIN, Table, TableTooBig, Track};
pub use tcp::{Segment, Tracked};
