//! The connection table: keys, the table with its half-open flows, TCP tracker, fragments, NAT ports, sticky slots.
//!
//! It must not know services, algorithms or packet bytes; it is given keys, times and segment summaries.

pub(crate) mod clients;
mod fragments;
mod key;
mod nat_settings;
mod ports;
mod settings;
mod sticky;
mod table;
mod tcp;

pub use fragments::{Datagram, Fate, FragmentSettings, Fragments, Later, Piece, Refused};
pub use key::{Key, KeyRef};
pub use nat_settings::{NatPoolSettings, Pooling};
pub use ports::{Draw, Endpoint, Exhausted, GivenBack, Mapping, NatPool, Proposal, Rest, Share, Usage};
pub use settings::{MOST_PROFILES, TableSettings, TimeoutState, Timeouts};
pub use sticky::{ListedSlot, Lister, SavedSlot, Slot, Slots, Sticky, StickyMark, Ticket, Tickets};
pub use table::{
    Carried, Class, Facts, Flow, Found, NO_POOL, NUMBERS, NewFlow, Newcomer, Room, SavedFlow, TICK, Table, TableTooBig,
    Track, Watcher,
};
pub use tcp::{Segment, Sequence, Tracked};
