//! State that leaves the process: standing and shard as records with names, addresses and ages, and back.
//!
//! ```text
//!   Engine --- write_state(StateWalk) ---> records ---> load_state(StateLoad) ---> Engine
//!   slots, clocks, eras                    names, ages                             other slots, another plan
//! ```
//!
//! A walk writes a bounded number of records at a time, so that packets need not wait for it; what changes meanwhile is
//! written as it is when the walk gets there. Each record is true at some time of the walk, and of two flows with the same
//! key the later one in the state is the one that was there last.
//!
//! What is not part of a state: half-open flows, fragments, positions and random numbers of algorithms, used rates, totals,
//! results of probes, histories, path MTUs. All of it is learned again within seconds, or counts since the start.
//!
//! A copy is a state that follows its engine while packets go on, for one that takes over from it; it also has half-open
//! flows.
//!
//! Two gateways exchange the same records all the time, each for its own reasons: `walk/peer` and `load/peer`.
//!
//! `wire` is the encoding, `record` the records, `walk`, `copy` and `load` the directions, `notes` what the driver adds behind
//! the records. It must not know files, sockets or boots.

mod copy;
mod load;
mod notes;
mod record;
mod walk;
mod wire;

#[cfg(test)]
mod tests;

pub use copy::StateCopy;
pub use load::{HalfOffer, Loaded, Lost, Offer, PeerRecord, StateError, StateLoad, Taking};
pub use notes::{Note, NoteScan, write_note};
pub use walk::{Giving, GivingHealth, Mark, StateWalk};

/// The version of the records: a reader knows how to read states of its own version only. New fields and kinds of records
/// do not change it, since they are skipped by those who do not know them.
pub const VERSION: u64 = 1;
