//! The sans-IO core: classify -> look up -> admit -> rewrite -> verdict.
//!
//! It must not know clocks, sockets, threads or files.

mod reason;
mod snapshot;
mod verdict;

pub use reason::Reason;
pub use snapshot::{Count, Counters, Cursor, FlowQuery, FlowRow, ServerRow};
pub use verdict::{Consumed, Ended, Event, Forwarded, Verdict};

use crate::config::Settings;
use crate::ids::{FlowId, ServerId};
use crate::packet::Meta;
use crate::time::Instant;

/// A change at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Gives a server another weight; its flows stay.
    Weight {
        /// The server.
        server: ServerId,
        /// Its new weight; 0 gets no new flows.
        weight: u16,
    },
    /// Removes a flow; nobody is told.
    Kill {
        /// The flow.
        flow: FlowId,
    },
}

/// Why a change was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such server.
    NoSuchServer(ServerId),
    /// There is no such flow.
    NoSuchFlow(FlowId),
}

/// The engine. See the methods for its contract.
#[derive(Debug)]
pub struct Engine {}

#[allow(unused_variables, clippy::unused_self)]
impl Engine {
    /// Makes an engine; allocates all that its flows will need.
    pub fn new(settings: &Settings) -> Self {
        unimplemented!()
    }

    /// Whether [`Event::FlowOpened`] and [`Event::FlowEnded`] are told; not at first.
    pub fn tell_flows(&mut self, on: bool) {
        unimplemented!()
    }

    /// Handles one IP packet in place. `now` never goes backwards.
    pub fn handle_packet(&mut self, now: Instant, packet: &mut [u8], meta: Meta) -> Verdict {
        unimplemented!()
    }

    /// Does what is due at `now`, a bounded part of it; call again while `poll_timeout` is not later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        unimplemented!()
    }

    /// Changes something at run time.
    pub fn apply(&mut self, now: Instant, change: Change) -> Result<(), Refused> {
        unimplemented!()
    }

    /// Writes the next packet of the engine's own into `buf` (65,535 bytes are always enough) and tells its length.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut [u8]) -> Option<(usize, Meta)> {
        unimplemented!()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        unimplemented!()
    }

    /// When `handle_timeout` has something to do; none while nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// The totals.
    pub fn counters(&self) -> Counters {
        unimplemented!()
    }

    /// The servers, in the order of the settings.
    pub fn servers(&self) -> Vec<ServerRow> {
        unimplemented!()
    }

    /// Appends up to `most` rows that match to `rows`, looks at no more than `16 * most` slots of the table,
    /// and returns where to go on; none at the end.
    pub fn flows(
        &self,
        now: Instant,
        query: &FlowQuery,
        from: Cursor,
        most: usize,
        rows: &mut Vec<FlowRow>,
    ) -> Option<Cursor> {
        unimplemented!()
    }
}
