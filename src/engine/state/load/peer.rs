//! Taking records of another gateway into an engine that has flows of its own.
//!
//! What becomes of a flow that both have is up to the caller.

use super::super::super::plan::Plan;
use super::super::super::{Duty, Engine};
use super::super::record::{Base, FlowRecord, Skipped, kind, read_verdict};
use super::super::walk::{IDLE, Mark};
use super::super::wire::{Fields, next_record};
use super::guests::Guests;
use super::{Lost, Numbers, StateError, StateLoad};
use crate::flow::{Key, NUMBERS, SavedFlow, Table};
use crate::health::SavedVerdict;
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

/// A half-open flow of the peer, which passes its handshakes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HalfOffer(FlowRecord);

/// A record of the peer.
#[derive(Debug)]
pub enum PeerRecord<'b> {
    /// A flow.
    Flow(Offer),
    /// A half-open one.
    HalfOpen(HalfOffer),
    /// For [`Engine::take_names`].
    Other(&'b [u8]),
    /// Nothing that this version knows, or nothing that makes sense.
    Unknown,
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
        Taking { load: StateLoad { guests: Some(Guests::default()), ..StateLoad::new(now) }, plan: None }
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
                    let mut guests = taking.load.guests.take().unwrap_or_default();
                    guests.renamed();
                    // They are the same as long as the plan is, and a large plan has many.
                    let knows_them = self.knows_names(taking);
                    let names = taking.load.names.take().filter(|_| knows_them);
                    let load = StateLoad { guests: Some(guests), names, ..StateLoad::new(now) };
                    *taking = Taking { load, plan: Some(Arc::clone(&self.plan)) };
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

    /// Takes verdicts of the peer's monitors, which names must have come before. Those of monitors that are not here are passed
    /// over.
    pub fn take_verdicts(&mut self, taking: &Taking, now: Instant, mut bytes: &[u8]) {
        let mut skipped = Skipped::default();
        while let Some((kind, fields)) = next_record(&mut bytes) {
            if kind != kind::VERDICT {
                continue;
            }
            let Some(saved) = read_verdict(fields, Base(now), &mut skipped) else { continue };
            if let Some(server) = taking.load.numbers.servers.get(&saved.server.0).copied().flatten() {
                self.monitors.take_verdict(now, &SavedVerdict { server, since: saved.since.min(now), ..saved });
            }
        }
        self.take_health(now);
        self.advance();
    }

    /// Draws the consequences of the standing of servers that has been taken, for at most `most` servers from the one at `from`
    /// on; returns where to continue, none at the end. Once for many records, as it looks at all servers.
    pub fn took_standing(&mut self, now: Instant, from: usize, most: usize) -> Option<usize> {
        let plan = Arc::clone(&self.plan);
        let all = &plan.order().servers;
        let (from, end) = (from.min(all.len()), from.saturating_add(most).min(all.len()));
        all[from..end].iter().for_each(|server| self.take_state(now, *server));
        self.take_notices(now);
        if end < all.len() {
            return Some(end);
        }
        self.advance();
        None
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
    /// one in `same`, that goes on with what the peer knows of it. The first flow of a server that is not configured here
    /// gives the engine another plan, in which all that the peer has named have slots, without new flows; once a second.
    ///
    /// # Errors
    /// Why the flow cannot be here. The flow in `same` has ended then.
    pub fn take_flow(
        &mut self,
        taking: &mut Taking,
        now: Instant,
        offer: &Offer,
        same: Option<FlowId>,
    ) -> Result<FlowId, Lost> {
        let mut saved = self.flow_here(&taking.load.numbers, now, &offer.record);
        if saved == Err(Lost::Server) && self.host_guests(taking, now) {
            saved = self.flow_here(&taking.load.numbers, now, &offer.record);
        }
        let saved = saved.map(|saved| {
            // When its timeout is over is up to the peer; and packets go on there, unless it is idle.
            let is_over = self.shard.table().has_expired(now, &saved);
            let is_behind = now.since(saved.touched) < IDLE;
            SavedFlow { is_behind, touched: if is_over { now } else { saved.touched }, ..saved }
        });
        let of = (&*self.plan, &self.standing);
        match (same, saved) {
            (Some(id), Ok(saved)) if self.shard.renew_flow(of, now, id, (&saved, offer.record.is_counted)) => Ok(id),
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

    /// Makes a half-open flow of the peer one of this engine, unless there is one with a key of it that its ends may use here:
    /// one that is not half-open; any other one if this gateway opens flows itself; the same one if its server has answered
    /// here and not there. Returns it if it is as the peer has it.
    pub fn take_half_open(&mut self, taking: &Taking, now: Instant, offer: &HalfOffer) -> Option<FlowId> {
        let HalfOffer(record) = offer;
        let flow = &record.saved.flow;
        let found = [&flow.client, &flow.server].map(|key| self.find_flow(key));
        let is_same = found[0] == found[1];
        let stays = |own: u32| match Table::is_half_open(own) {
            false => true,
            true if is_same => self.shard.table().facts(own).answered && !record.saved.answered,
            true => self.duty() != Duty::Standby,
        };
        if found.into_iter().flatten().any(stays) {
            return None;
        }
        let saved = self.flow_here(&taking.load.numbers, now, record).ok()?;
        self.shard.wake_port(&saved);
        self.shard.restore_flow((&self.plan, &self.standing), now, &saved, record.is_counted).ok()
    }

    fn host_guests(&mut self, taking: &mut Taking, now: Instant) -> bool {
        let StateLoad { guests: Some(guests), numbers, names, .. } = &mut taking.load else { return false };
        if !self.host(now, (guests, numbers)) {
            return false;
        }
        // Slots are as before, so what has been named still holds.
        (*names, taking.plan) = (Some(self.plan.names()), Some(Arc::clone(&self.plan)));
        true
    }

    /// Ends a flow that has ended at the peer, and tells nobody. Its NAT port rests here, too.
    pub fn drop_flow(&mut self, now: Instant, id: FlowId) {
        self.shard.end_there((&self.plan, &self.standing), now, id, true);
        self.take_idle(now);
    }

    /// Takes the sequence numbers of a connection that is idle at the peer.
    pub fn take_numbers(&mut self, id: FlowId, numbers: &[u8; NUMBERS]) {
        if let Some(index) = self.shard.table().slot(id).filter(|index| !Table::is_half_open(*index)) {
            self.shard.table_mut().set_numbers(index, numbers);
        }
    }

    /// Restarts the timeout of a flow that has carried packets at the peer, and with them other sequence numbers.
    pub fn touch_flow(&mut self, now: Instant, id: FlowId) {
        if !Table::is_half_open(id.index)
            && let Some(index) = self.shard.table().slot(id)
        {
            let state = self.shard.table().flow(index).state();
            self.shard.table_mut().touch(now, index, state);
            self.shard.table_mut().falls_behind(index);
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
    /// Takes the next record off `bytes`; none at the end.
    pub fn next<'b>(&mut self, now: Instant, bytes: &mut &'b [u8]) -> Option<PeerRecord<'b>> {
        self.load.base = Base(now);
        let before = *bytes;
        let (kind, fields) = next_record(bytes)?;
        let taken = match kind {
            kind::FLOW => self.offer(fields).map(PeerRecord::Flow),
            kind::HALF_OPEN => {
                let record = FlowRecord::read((kind, fields), self.load.base, &mut self.load.skipped);
                record.map(|record| PeerRecord::HalfOpen(HalfOffer(record)))
            }
            kind::SLOT | kind::REST | kind::SERVER | kind::RULE => {
                Some(PeerRecord::Other(&before[..before.len() - bytes.len()]))
            }
            _ => {
                self.load.skipped.0 += 1;
                return Some(PeerRecord::Unknown);
            }
        };
        self.load.loaded.unreadable += u64::from(taken.is_none());
        Some(taken.unwrap_or(PeerRecord::Unknown))
    }

    fn offer(&mut self, fields: Fields<'_>) -> Option<Offer> {
        let record = FlowRecord::read((kind::FLOW, fields), self.load.base, &mut self.load.skipped)?;
        let saved = &record.saved;
        let mark =
            Mark { client: saved.flow.client, server: saved.flow.server, state: saved.state, proven: saved.proven };
        Some(Offer { slot: record.slot?, mark, record })
    }

    /// Returns how many servers have got a slot that are not configured here.
    pub fn hosted(&self) -> u32 {
        self.load.guests.as_ref().map_or(0, |guests| guests.hosted)
    }

    /// Returns the services of the peer that are not here, at most 16.
    pub fn unknown_services(&self) -> impl Iterator<Item = &str> {
        self.load.guests.iter().flat_map(|guests| guests.services.iter().map(String::as_str))
    }

    /// Returns whether flows were refused because their servers have no slots, and could get them now.
    pub fn may_host(&self, now: Instant) -> bool {
        self.load.guests.as_ref().is_some_and(|guests| guests.is_due(now))
    }

    /// Notes that these flows are to come again.
    pub fn ask_again(&mut self) {
        self.load.guests.iter_mut().for_each(|guests| guests.is_wanted = false);
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
