//! Taking records of another gateway into an engine that has flows of its own.
//!
//! What becomes of a flow that both have is up to the caller.

use super::super::super::Engine;
use super::super::super::plan::Plan;
use super::super::record::{Base, FlowRecord, kind};
use super::super::walk::Mark;
use super::super::wire::{Fields, next_record};
use super::{Lost, Numbers, StateError, StateLoad};
use crate::flow::{Key, SavedFlow, Table};
use crate::ids::FlowId;
use crate::time::Instant;
use std::sync::Arc;

/// The most things that a peer may name.
const MOST_NAMES: usize = 1 << 18;

/// What a peer has named.
#[derive(Debug)]
pub struct Taking {
    load: StateLoad,
    /// What the names mean something in.
    plan: Option<Arc<Plan>>,
}

/// A flow of the peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offer {
    /// Its slot there.
    pub slot: u32,
    /// What it is.
    pub mark: Mark,
    record: FlowRecord,
}

impl Engine {
    /// Begins to take records of a peer.
    pub fn begin_taking(&self, now: Instant) -> Taking {
        Taking { load: StateLoad::new(now), plan: None }
    }

    /// Takes names, the standing of servers if `takes_standing` ([`Engine::took_standing`] has to follow), and clients and ports without flows. Records of flows among
    /// them are passed over.
    ///
    /// # Errors
    /// If they are of another version, do not begin as they should, or are too many. What came before is taken.
    pub fn take_names(
        &mut self,
        taking: &mut Taking,
        now: Instant,
        bytes: &[u8],
        takes_standing: bool,
    ) -> Result<(), StateError> {
        let mut rest = bytes;
        loop {
            let before = rest;
            let Some((kind, _)) = next_record(&mut rest) else { break };
            let record = &before[..before.len() - rest.len()];
            match kind {
                kind::HEAD => {
                    *taking = Taking { load: StateLoad::new(now), plan: Some(Arc::clone(&self.plan)) };
                }
                kind::FLOW | kind::HALF_OPEN | kind::GONE | kind::VERDICT => continue,
                _ => {}
            }
            (taking.load.base, taking.load.names_only) = (Base(now), !takes_standing);
            self.load_state(&mut taking.load, now, record)?;
            if taking.load.numbers.len() > MOST_NAMES {
                return Err(StateError::NotWhole);
            }
        }
        Ok(())
    }

    /// Draws the consequences of the standing of servers that has been taken; once for many records, as it looks at all
    /// servers.
    pub fn took_standing(&mut self, now: Instant) {
        for server in self.plan.order().servers.clone() {
            self.take_state(now, server);
        }
        self.take_notices(now);
        self.advance();
    }

    /// Returns whether names are known, and still mean the same: not after a reload.
    pub fn knows_names(&self, taking: &Taking) -> bool {
        taking.plan.as_ref().is_some_and(|plan| Arc::ptr_eq(plan, &self.plan))
    }

    /// Returns the slot of the flow with a key, whichever side's it is.
    pub fn find_flow(&self, key: &Key) -> Option<u32> {
        self.shard.table().find(key).map(|found| found.index)
    }

    /// Makes a flow of the peer one of this engine, in place of those that have one of its keys; returns it. If it is the
    /// one in `same`, that goes on with what the peer knows of it.
    ///
    /// # Errors
    /// Why the flow cannot be here. The flow in `same` has ended then.
    pub fn take_flow(
        &mut self,
        taking: &Taking,
        now: Instant,
        offer: &Offer,
        same: Option<FlowId>,
    ) -> Result<FlowId, Lost> {
        let saved = self.flow_here(&taking.load.numbers, now, &offer.record);
        let saved = saved.map(|saved| {
            // When its timeout is over is up to the peer; and packets go on there.
            let is_over = self.shard.table().has_expired(now, &saved);
            SavedFlow { is_behind: true, touched: if is_over { now } else { saved.touched }, ..saved }
        });
        let of = (&*self.plan, &self.standing);
        match (same, saved) {
            (Some(id), Ok(saved)) if self.shard.renew_flow(of, now, id, &saved) => Ok(id),
            (same, Err(why)) => {
                same.into_iter().for_each(|id| self.shard.end_renewed(of, now, id));
                Err(why)
            }
            (_, Ok(saved)) => {
                self.shard.wake_port(&saved);
                self.shard.restore_flow(of, now, &saved, offer.record.is_counted)
            }
        }
    }

    /// Ends a flow that has ended at the peer, and tells nobody.
    pub fn drop_flow(&mut self, now: Instant, id: FlowId) {
        self.shard.end_renewed((&self.plan, &self.standing), now, id);
        self.take_idle(now);
    }

    /// Restarts the timeout of a flow that has carried packets at the peer.
    pub fn touch_flow(&mut self, now: Instant, id: FlowId) {
        if !Table::is_half_open(id.index)
            && let Some(index) = self.shard.table().slot(id)
        {
            let state = self.shard.table().flow(index).state();
            self.shard.table_mut().touch(now, index, state);
        }
    }
}

impl Offer {
    /// Returns when it was created.
    pub fn created(&self) -> Instant {
        self.record.saved.created
    }
}

impl Taking {
    /// Takes the next record off `bytes`: a flow, or none if it is something else, which `other` gets. Returns false at the
    /// end.
    pub fn next<'b>(
        &mut self,
        now: Instant,
        bytes: &mut &'b [u8],
        flow: &mut Vec<Offer>,
        other: &mut Vec<&'b [u8]>,
    ) -> bool {
        self.load.base = Base(now);
        let before = *bytes;
        let Some((kind, fields)) = next_record(bytes) else { return false };
        match kind {
            kind::FLOW => match self.offer(fields) {
                Some(offer) => flow.push(offer),
                None => self.load.loaded.unreadable += 1,
            },
            kind::SLOT | kind::REST | kind::SERVER | kind::RULE => other.push(&before[..before.len() - bytes.len()]),
            _ => self.load.skipped.0 += 1,
        }
        true
    }

    fn offer(&mut self, fields: Fields<'_>) -> Option<Offer> {
        let record = FlowRecord::read((kind::FLOW, fields), self.load.base, &mut self.load.skipped)?;
        let saved = &record.saved;
        let mark =
            Mark { client: saved.flow.client, server: saved.flow.server, state: saved.state, proven: saved.proven };
        Some(Offer { slot: record.slot?, mark, record })
    }

    /// Returns how many records and fields were of a kind that this version does not know, or made no sense.
    pub fn not_understood(&self) -> u64 {
        let loaded = self.load.loaded();
        loaded.skipped + loaded.unreadable
    }
}

impl Numbers {
    fn len(&self) -> usize {
        self.services.len() + self.servers.len() + self.nat_pools.len() + self.rules.len() + self.groups.len()
    }
}
