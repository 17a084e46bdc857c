//! Giving records to another gateway, flow by flow and in any order, while packets go on.

use super::super::super::Engine;
use super::super::super::plan::Plan;
use super::super::VERSION;
use super::super::record::{Base, Head, health_code, write_verdict};
use super::{At, StateWalk};
use crate::flow::{Key, NUMBERS, SavedFlow, Table, TableTooBig, TimeoutState, Watcher};
use crate::ids::FlowId;
use crate::packet::Side;
use crate::state::Health;
use crate::time::{Duration, Instant};
use std::sync::Arc;

/// The sequence numbers of a connection are sent once it has had no packet for this long: it may be idle for hours.
pub(in super::super) const IDLE: Duration = Duration::from_secs(30);

/// Identifies a flow; the same on both gateways of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The key of the client's packets.
    pub client: Key,
    /// The key of the server's packets.
    pub server: Key,
    /// The timeout state.
    pub state: TimeoutState,
    /// Whether its client has proved itself.
    pub proven: bool,
}

/// Bytes of verdicts after which the rest waits for the next call.
const MOST_VERDICTS: usize = 16_000;

/// Which verdicts of monitors a peer has been told.
#[derive(Debug, Default)]
pub struct GivingHealth {
    /// By position under this plan; what it is, plus one.
    told: Vec<u8>,
    plan: Option<Arc<Plan>>,
    /// The number of changes when the pass began that is under way, and the next position.
    seen: u64,
    at: usize,
    /// Whether the first pass is over.
    is_whole: bool,
}

/// What has been named to a peer, and how far clients and ports without flows have been given to it.
#[derive(Debug)]
pub struct Giving(StateWalk);

impl Engine {
    /// Begins to note which flows change, or forgets what has been noted.
    ///
    /// # Errors
    /// If the system refuses the memory: two bits per slot.
    pub fn note_flow_changes(&mut self) -> Result<(), TableTooBig> {
        self.shard.table_mut().note_changes(Watcher::Peer)
    }

    /// Returns up to `most` slots that have changed since they were last returned, and whether more has changed there than
    /// counters, times and sequence numbers; and from which slot on there may be more.
    pub fn take_flow_changes(&mut self, from: u32, most: usize, take: &mut Vec<(u32, bool)>) -> Option<u32> {
        self.shard
            .table_mut()
            .take_changes(Watcher::Peer, from, most, |change| take.push((change.index, change.is_more)))
    }

    /// Forgets that a slot has changed: whoever asks has changed it.
    pub fn forget_flow_change(&mut self, slot: u32) {
        self.shard.table_mut().forget_change(Watcher::Peer, slot);
    }

    /// Returns the capacity of the table: slots are numbered below it.
    pub fn flow_capacity(&self) -> u32 {
        self.shard.table().max()
    }

    /// Returns how many slots of the table have been used so far.
    pub fn flow_slots(&self) -> u32 {
        self.shard.table().used_slots()
    }

    /// Returns the mark of the flow in a slot; none if there is no flow.
    pub fn flow_mark(&self, slot: u32) -> Option<Mark> {
        let table = self.shard.table();
        let keys = |side| table.key(slot, side);
        table.is_used(slot).then(|| Mark {
            client: keys(Side::Client),
            server: keys(Side::Server),
            state: table.flow(slot).state(),
            proven: table.is_proven(slot),
        })
    }

    /// Returns the identifier of the flow in a slot; none if there is no flow.
    pub fn flow_in(&self, slot: u32) -> Option<FlowId> {
        self.shard.table().is_used(slot).then(|| self.shard.table().id(slot))
    }

    /// Returns when a flow that [`Engine::find_flow`] has found was created, half-open or not, and its state.
    pub fn flow_age(&self, slot: u32) -> (Instant, TimeoutState) {
        let facts = self.shard.table().facts(slot);
        (facts.created, facts.state)
    }

    /// Begins to give records to a peer.
    pub fn begin_giving(&self, now: Instant) -> Giving {
        Giving(StateWalk::of_copy(now, Watcher::Peer))
    }

    /// Returns whether the peer knows all names that records refer to: not before they are given, nor after a reload.
    pub fn has_named(&self, giving: &Giving) -> bool {
        giving.0.plan.is_some() && !giving.0.is_stale(&self.plan) && giving.0.has_names()
    }

    /// Writes more names, and the standing of servers, to `out`: about `most` records. They begin anew after a reload.
    pub fn give_names(&mut self, giving: &mut Giving, now: Instant, most: usize, out: &mut Vec<u8>) {
        let walk = &mut giving.0;
        walk.base = Base(now);
        if walk.plan.is_none() || walk.is_stale(&self.plan) {
            Head { version: VERSION, is_final: false, is_copy: true }.write(out);
            walk.groups = self.shard.chooser().sticky_groups().collect();
            walk.plan = Some(self.plan.clone());
            walk.at = At::Services(0);
        }
        let mut left = most.max(1);
        while left > 0 && !giving.0.has_names() {
            left = left.saturating_sub(self.write_part(&mut giving.0, now, left, out).max(1));
        }
    }

    /// Writes the flow in a slot to `out`, as it is now; nothing if there is none. Names must have been given.
    pub fn give_flow(&self, giving: &mut Giving, now: Instant, slot: u32, out: &mut Vec<u8>) {
        giving.0.base = Base(now);
        self.write_flow(&mut giving.0, slot, out);
    }

    /// Returns the sequence numbers of the connection in a slot if nothing has passed there for 30 s, and they are sure.
    pub fn idle_numbers(&self, now: Instant, slot: u32) -> Option<[u8; NUMBERS]> {
        let table = self.shard.table();
        table.is_used(slot).then(|| table.idle_numbers(now, slot, IDLE)).flatten()
    }

    /// Returns the newest half-open flows, up to `most`, the oldest of them first; for [`Engine::give_half_open`].
    pub fn half_open(&self, most: usize) -> impl Iterator<Item = (SavedFlow, u32)> + '_ {
        self.shard.table().save_half_open(most)
    }

    /// Returns a half-open flow; none if it has ended or its handshake is complete.
    pub fn half_open_flow(&self, id: FlowId) -> Option<(SavedFlow, u32)> {
        let table = self.shard.table();
        let index = table.slot(id).filter(|index| Table::is_half_open(*index))?;
        Some((table.save_one_half_open(index)?, table.note(index)))
    }

    /// Writes a half-open flow to `out`. Names must have been given.
    pub fn give_half_open(&self, giving: &mut Giving, now: Instant, flow: (SavedFlow, u32), out: &mut Vec<u8>) {
        giving.0.base = Base(now);
        self.write_saved(&mut giving.0, flow.0, (flow.1, None), out);
    }

    /// Writes verdicts of monitors that the peer has not been told to `out`, looking at `most` of them. Names must have been
    /// given. Returns whether with these the telling of all verdicts begins, and whether it ends: at first, and under each new
    /// plan.
    pub fn give_health(&self, giving: &mut GivingHealth, now: Instant, most: usize, out: &mut Vec<u8>) -> [bool; 2] {
        let (count, changes) = (self.monitors.verdict_count(), self.monitors.changes());
        let is_first = giving.plan.as_ref().is_none_or(|plan| !Arc::ptr_eq(plan, &self.plan));
        if is_first {
            let plan = Some(Arc::clone(&self.plan));
            *giving = GivingHealth { told: vec![0; count], plan, seen: changes, at: 0, is_whole: false };
        } else if giving.at == count && giving.seen != changes {
            (giving.seen, giving.at) = (changes, 0);
        }
        let end = count.min(giving.at.saturating_add(most));
        while giving.at < end && out.len() < MOST_VERDICTS {
            let code = self.monitors.verdict(giving.at).map_or(0, |(verdict, state)| {
                let number = |health: Health| health_code(health) as u8;
                1 + number(verdict) * 3 + number(state)
            });
            if giving.told[giving.at] != code
                && let Some(saved) = self.monitors.verdicts(giving.at).next()
            {
                write_verdict(out, Base(now), &saved);
                giving.told[giving.at] = code;
            }
            giving.at += 1;
        }
        let is_last = giving.at == count && !giving.is_whole;
        giving.is_whole |= is_last;
        [is_first, is_last]
    }

    /// Begins to give clients and ports without flows.
    pub fn begin_giving_rest(&mut self, giving: &mut Giving) {
        self.shard.chooser_mut().begin_sticky_walk(Watcher::Peer);
        (giving.0.at, giving.0.used_since) = (At::Slots(0), None);
    }

    /// Begins to give clients without flows that have been used since a time: of their flows the peer may never have heard.
    pub fn begin_giving_recent(&mut self, giving: &mut Giving, since: Instant) {
        self.begin_giving_rest(giving);
        giving.0.used_since = Some(since);
    }

    /// Writes more of them to `out`, of about `most` that it looks at; returns whether that is all.
    pub fn give_recent(&mut self, giving: &mut Giving, now: Instant, most: usize, out: &mut Vec<u8>) -> bool {
        giving.0.base = Base(now);
        let mut left = most.max(1);
        while let At::Slots(_) = giving.0.at
            && left > 0
        {
            left = left.saturating_sub(self.write_part(&mut giving.0, now, left, out).max(1));
        }
        !matches!(giving.0.at, At::Slots(_))
    }

    /// Writes more clients and ports without flows to `out`: about `most` records; returns whether that is all.
    pub fn give_rest(&mut self, giving: &mut Giving, now: Instant, most: usize, out: &mut Vec<u8>) -> bool {
        giving.0.base = Base(now);
        let mut left = most.max(1);
        while left > 0 && giving.0.at != At::End {
            if let At::Flows(_) = giving.0.at {
                giving.0.at = At::Resting(0, Instant::ZERO, 0);
            }
            left = left.saturating_sub(self.write_part(&mut giving.0, now, left, out).max(1));
        }
        giving.0.at == At::End
    }
}

impl Giving {
    /// Names everything again.
    pub fn name_again(&mut self) {
        self.0.plan = None;
    }
}

impl StateWalk {
    /// Returns whether it is past everything that names something.
    fn has_names(&self) -> bool {
        use At::{Groups, Head, NatPools, Rules, Servers, Services};
        !matches!(self.at, Head | Services(_) | NatPools(_) | Rules(_) | Groups(_) | Servers(_))
    }
}
