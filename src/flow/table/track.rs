//! How packets change a flow: its tracker, its timeout state, its place in wheel and queue.

use super::super::settings::TimeoutState;
use super::super::tcp::{Ends, Segment, Tracked};
use super::entry::{ACTIVE, ANSWERED, Flow, PROVEN, order};
use super::room::{Class, GRACE, ticks};
use super::{Found, HALF_OPEN, TICK, Table};
use crate::packet::{Protocol, Side};
use crate::time::{Duration, Instant};

/// How long after a reset the end that it was sent to may still send as if nothing had happened.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// How long an established flow has to be silent before a SYN finds it silent, and then again before another SYN
/// replaces it. Systems limit challenge ACKs, Linux to one every 500 ms for each connection, and clients retry a SYN
/// after 1 s (RFC 6298, 2).
const SILENCE: Duration = Duration::from_secs(1);

/// The effect of a segment on a flow: the numbers of both ends after it, and the flow's timeout state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    ends: Ends,
    tracked: Tracked,
}

impl Track {
    /// Returns the state of a flow yet to be created, after its first segment. That of a server acknowledges something.
    pub fn first(from: Side, segment: &Segment) -> Track {
        if from == Side::Server {
            return Track { ends: Ends::of_server(segment), tracked: Tracked::Refresh(TimeoutState::Opening) };
        }
        let mut ends = Ends::default();
        let tracked = ends.step(TimeoutState::Opening, from, segment);
        Track { ends, tracked }
    }

    /// Returns what the segment means for the flow.
    #[inline]
    pub fn tracked(&self) -> Tracked {
        self.tracked
    }

    /// Returns whether the handshake is complete after the segment: a half-open flow leaves the store for the table.
    pub fn leaves_half_open(&self) -> bool {
        let stays = |state| matches!(state, TimeoutState::Opening | TimeoutState::Reset);
        matches!(self.tracked, Tracked::Refresh(state) if !stays(state))
    }
}

impl TimeoutState {
    /// Returns whether a packet restarts the timeout of a flow that stays in this state. In the others it runs from the
    /// entry into the state.
    pub const fn restarts(self) -> bool {
        match self {
            TimeoutState::Established | TimeoutState::UdpOneWay | TimeoutState::UdpTwoWay | TimeoutState::Icmp => true,
            TimeoutState::Opening | TimeoutState::Closing | TimeoutState::Reset => false,
        }
    }
}

impl Flow {
    /// Returns its class in the order of eviction.
    pub(super) fn class(&self) -> Class {
        match self.state {
            TimeoutState::Closing | TimeoutState::Reset => Class::Over,
            TimeoutState::Established => Class::Settled,
            TimeoutState::Opening => Class::Brief,
            TimeoutState::UdpOneWay | TimeoutState::UdpTwoWay | TimeoutState::Icmp => {
                if self.is_proven() {
                    Class::Conversing
                } else {
                    Class::Brief
                }
            }
        }
    }
}

impl Table {
    /// Computes what a TCP segment means for its flow; changes nothing.
    #[inline]
    pub fn track(&self, now: Instant, index: u32, from: Side, segment: &Segment) -> Track {
        let (mut ends, state) = match Table::half(index) {
            None => (self.flows[index as usize].tcp, self.flows[index as usize].state),
            Some(slot) => (self.half_open.ends(slot), self.half_open.state(slot)),
        };
        let mut tracked = ends.step(state, from, segment);
        if segment.flags.syn() && from == Side::Client && !segment.flags.ack() {
            tracked = self.on_request(now, (index, segment), &mut ends, tracked);
        }
        // The receiver of a reset may have sent this before it arrived: only later segments show that it was not
        // accepted.
        let is_deaf = !ends.has_reset(from) && !ends.is_reset_doubtful();
        let under_way = state == TimeoutState::Reset && is_deaf && !segment.flags.syn();
        if under_way && tracked != Tracked::Reopen && self.is_fresh(now, index) {
            tracked = Tracked::Pass;
            // The store cannot keep that such a segment completed the handshake, so it keeps nothing of it.
            if let Some(slot) = Table::half(index) {
                ends = self.half_open.ends(slot);
            }
        }
        Track { ends, tracked }
    }

    /// Handles a client's SYN, which anyone can have sent.
    #[cold]
    fn on_request(
        &self,
        now: Instant,
        (index, segment): (u32, &Segment),
        ends: &mut Ends,
        tracked: Tracked,
    ) -> Tracked {
        let is_silent = now.since(self.touched(index)) >= SILENCE;
        match (tracked, self.facts(index).state) {
            (Tracked::Reopen, _) if !self.may_be_replaced(now, index) => {
                // It reaches the server, which may accept it.
                ends.asked(segment);
                Tracked::Pass
            }
            // The silence that tells whether the server answers begins here.
            (Tracked::Pass, TimeoutState::Established) if is_silent && !ends.is_doubted() => {
                ends.doubt();
                Tracked::Refresh(TimeoutState::Established)
            }
            _ => tracked,
        }
    }

    /// Returns whether a SYN with other numbers is enough to end a flow whose server is gone or that is over. Not if its
    /// ends may still believe in it: an established one, or one that was reset or closed without knowledge of its numbers.
    /// A server that knows the connection answers the SYN by a challenge ACK (RFC 5961, 4), and shows so that it lives.
    fn may_be_replaced(&self, now: Instant, index: u32) -> bool {
        let is_silent = || now.since(self.touched(index)) >= SILENCE;
        let ends = self.ends(index);
        match self.facts(index).state {
            TimeoutState::Established => ends.is_doubted() && is_silent(),
            TimeoutState::Reset => !ends.is_reset_doubtful() || is_silent(),
            TimeoutState::Closing => !ends.is_replaced() || is_silent(),
            _ => true,
        }
    }

    /// Returns whether a client's reset answers a segment of the server with which its flow began.
    pub fn is_disowned_by(&self, index: u32, reset: &Segment) -> bool {
        self.ends(index).is_disowned_by(reset)
    }

    /// Returns whether a flow is over, and its ends do not believe in it any more: it yields its return key.
    pub fn is_over(&self, now: Instant, index: u32) -> bool {
        self.facts(index).state.is_over() && self.may_be_replaced(now, index)
    }

    /// Returns whether a flow that was reset was so a moment ago.
    fn is_fresh(&self, now: Instant, index: u32) -> bool {
        now.since(self.touched(index)) < UNDER_WAY
    }

    /// Equals [`Table::track`] followed by [`Table::follow`], for a segment without SYN, which cannot reopen its flow,
    /// of a flow that is not half-open. It works in place: copying the numbers of both ends out and back costs more than
    /// tracking.
    #[inline]
    pub fn on_segment(&mut self, now: Instant, index: u32, from: Side, segment: &Segment) {
        debug_assert!(!segment.flags.syn(), "a SYN may reopen its flow");
        let flow = &mut self.flows[index as usize];
        if flow.state == TimeoutState::Established && flow.tcp.goes_on(from, segment) {
            flow.touched = self.clock.tick(now) as u32;
            flow.flags |= ACTIVE;
            return;
        }
        self.on_other_segment(now, index, from, segment);
    }

    #[cold]
    fn on_other_segment(&mut self, now: Instant, index: u32, from: Side, segment: &Segment) {
        let flow = &mut self.flows[index as usize];
        let tracked = flow.tcp.step(flow.state, from, segment);
        let is_deaf = !flow.tcp.has_reset(from) && !flow.tcp.is_reset_doubtful();
        if flow.state == TimeoutState::Reset && is_deaf && self.is_fresh(now, index) {
            return;
        }
        if let Tracked::Refresh(state) = tracked {
            self.touch(now, index, state);
        }
    }

    /// Updates a flow's state to what [`Table::track`] computed, and restarts the timeout if the segment proves that
    /// the flow is alive. Returns its slot: that of a half-open flow changes when its handshake is complete, and then
    /// there must be room in the table.
    #[inline]
    pub fn follow(&mut self, now: Instant, index: u32, track: &Track) -> u32 {
        if Table::is_half_open(index) {
            return self.follow_half_open(now, index & !HALF_OPEN, track);
        }
        self.flows[index as usize].tcp = track.ends;
        if let Tracked::Refresh(state) = track.tracked {
            self.touch(now, index, state);
        }
        index
    }

    fn follow_half_open(&mut self, now: Instant, slot: u32, track: &Track) -> u32 {
        let tick = self.clock.tick(now);
        let state = match track.tracked {
            Tracked::Refresh(state) => state,
            Tracked::Pass | Tracked::Reopen => self.half_open.state(slot),
        };
        if !track.leaves_half_open() {
            self.half_open.follow(tick, slot, &track.ends, state);
            return slot | HALF_OPEN;
        }
        let left = self.half_open.left(&self.clock, slot);
        let note = self.note(slot | HALF_OPEN);
        let hashes = [self.hash(&left.new.client), self.hash(&left.new.server)];
        self.half_open.remove(slot, hashes);
        let index = self.add(now, &left.new, (left.created, state), hashes);
        let flow = &mut self.flows[index as usize];
        (flow.tcp, flow.packets, flow.bytes) = (track.ends, left.packets, left.bytes);
        flow.flags |= PROVEN;
        if left.packets[1] > 0 {
            flow.flags |= ANSWERED;
        }
        self.set_note(index, note);
        index
    }

    /// Returns whether a TCP segment from the client of a flow asks for a connection other than the flow's, which neither
    /// end can still believe in if its server is gone.
    pub fn asks_anew(&self, now: Instant, index: u32, segment: &Segment) -> bool {
        self.ends(index).asks_anew(self.facts(index).state, segment) && self.may_be_replaced(now, index)
    }

    /// Returns since when no end of a TCP flow has anything left to send, to a resolution of [`TICK`], rounded down: both
    /// have closed it and acknowledged all of it, or it was reset. None otherwise.
    pub fn settled_since(&self, index: u32) -> Option<Instant> {
        let (state, ends) = match Table::half(index) {
            None => (self.flows[index as usize].state, &self.flows[index as usize].tcp),
            Some(slot) => (self.half_open.state(slot), &self.half_open.ends(slot)),
        };
        let settled = match state {
            TimeoutState::Reset => true,
            TimeoutState::Closing => ends.is_closed(),
            _ => false,
        };
        settled.then(|| self.touched(index))
    }

    /// Returns whether a flow that is over has been so for long enough that no segment of it is under way any more.
    pub fn has_had_its_grace(&self, now: Instant, index: u32) -> bool {
        self.clock.tick(now).saturating_sub(self.clock.tick(self.touched(index))) >= u64::from(ticks(GRACE))
    }

    /// Returns whether a flow's client has proved that it receives what the server sends: TCP by completing the
    /// handshake, or for a flow that began midway by acknowledging what the server has sent; others by sending again
    /// after an answer. Only such flows count in limits and have sticky slots, as sources may be spoofed.
    #[inline]
    pub fn is_proven(&self, index: u32) -> bool {
        !Table::is_half_open(index) && self.flows[index as usize].is_proven()
    }

    /// Records that a flow's client has proved itself to no effect: a half-open flow may not leave the store, and others
    /// are no conversation. From now on only the client's packets keep a flow of datagrams, and as long as they are
    /// dropped, none do: otherwise its server could keep it there while others have room.
    pub fn stall(&mut self, index: u32) {
        self.note_changed(index);
        match Table::half(index) {
            Some(slot) => self.half_open.stall(slot),
            None => {
                let flow = &mut self.flows[index as usize];
                if flow.protocol() != Protocol::Tcp {
                    flow.tcp.refuse();
                }
            }
        }
    }

    /// Returns whether a flow is half-open although its client has completed the handshake.
    pub fn is_stalled(&self, index: u32) -> bool {
        Table::half(index).is_some_and(|slot| self.half_open.is_stalled(slot))
    }

    /// Returns whether a TCP segment sent by `sender` at `seq` can still be in flight (RFC 5927, 4.1).
    pub fn is_under_way(&self, index: u32, sender: Side, seq: u32) -> bool {
        self.ends(index).is_under_way(sender, seq)
    }

    /// Returns the sequence numbers for a reset of a TCP flow towards one of its ends, and its acknowledgement.
    pub fn reset_towards(&self, index: u32, to: Side) -> ([Option<u32>; 2], u32) {
        self.ends(index).reset_towards(to)
    }

    fn ends(&self, index: u32) -> Ends {
        match Table::half(index) {
            None => self.flows[index as usize].tcp,
            Some(slot) => self.half_open.ends(slot),
        }
    }

    /// Restarts a flow's timeout in this state; in a state whose timeout runs from the entry into it, only a change
    /// counts. A flow that stays in its state keeps its place in the wheel until it comes up there.
    #[inline]
    pub fn touch(&mut self, now: Instant, index: u32, state: TimeoutState) {
        let tick = self.clock.tick(now);
        let flow = &mut self.flows[index as usize];
        if flow.state != state {
            return self.change(tick, index, state);
        }
        if state.restarts() {
            flow.touched = tick as u32;
            flow.flags |= ACTIVE;
        }
    }

    /// Restarts a flow's timeout in this state for a packet without sequence numbers. One from the client after an
    /// answer makes the flow a conversation.
    #[inline]
    pub fn on_datagram(&mut self, now: Instant, found: Found, state: TimeoutState) {
        let flow = &self.flows[found.index as usize];
        let flags = flow.flags;
        if flags & PROVEN == 0 && found.side == Side::Server && flow.tcp.is_refused() {
            return;
        }
        self.touch(now, found.index, state);
        if found.side == Side::Client && flags & (ANSWERED | PROVEN) == ANSWERED {
            self.converse(found.index);
        }
    }

    #[cold]
    fn converse(&mut self, index: u32) {
        self.note_changed(index);
        let class = self.flows[index as usize].class();
        self.flows[index as usize].flags |= PROVEN;
        self.requeue(index, class);
    }

    /// Moves a flow to another state.
    #[cold]
    fn change(&mut self, tick: u64, index: u32, state: TimeoutState) {
        self.note_changed(index);
        let flow = &mut self.flows[index as usize];
        let class = flow.class();
        self.counts[flow.state as usize] -= 1;
        self.counts[state as usize] += 1;
        (flow.state, flow.touched) = (state, tick as u32);
        flow.flags |= ACTIVE;
        if matches!(state, TimeoutState::Established | TimeoutState::Closing) {
            flow.flags |= PROVEN;
        }
        let due = self.due(index);
        self.wheel.unlink(&mut self.flows, index);
        self.wheel.insert(&mut self.flows, index, due);
        let flow = &self.flows[index as usize];
        // A flow that is over begins its grace anew; an answer alone leaves a datagram's flow where it is.
        if flow.class() != class || class == Class::Over {
            self.requeue(index, class);
        }
    }

    /// Moves a flow from the queue of a class to the end of that of its own.
    fn requeue(&mut self, index: u32, from: Class) {
        self.queues[from as usize].unlink(&mut self.flows, order, index);
        let flow = &mut self.flows[index as usize];
        flow.flags &= !ACTIVE;
        let class = flow.class();
        self.queues[class as usize].push(&mut self.flows, order, index);
    }

    /// Puts a new flow into wheel and queue.
    pub(super) fn link(&mut self, index: u32) {
        let due = self.due(index);
        self.wheel.insert(&mut self.flows, index, due);
        let flow = &self.flows[index as usize];
        self.counts[flow.state as usize] += 1;
        self.queues[flow.class() as usize].push(&mut self.flows, order, index);
    }

    /// Takes a flow out of wheel and queue.
    pub(super) fn unlink(&mut self, index: u32) {
        self.wheel.unlink(&mut self.flows, index);
        let flow = &self.flows[index as usize];
        self.counts[flow.state as usize] -= 1;
        self.queues[flow.class() as usize].unlink(&mut self.flows, order, index);
    }

    /// Returns the tick at which a flow expires.
    fn due(&self, index: u32) -> u64 {
        let flow = &self.flows[index as usize];
        self.touched_tick(flow) + u64::from(self.ticks[usize::from(flow.profile)][flow.state as usize])
    }

    /// Returns the tick at which a flow's timeout was last restarted: the one nearest to the wheel's with its low bits.
    pub(super) fn touched_tick(&self, flow: &Flow) -> u64 {
        let now = self.wheel.now();
        now.saturating_add_signed(i64::from(flow.touched.wrapping_sub(now as u32) as i32))
    }

    /// Returns when a flow expires if no packet arrives.
    pub fn deadline(&self, index: u32) -> Instant {
        self.clock.at(match Table::half(index) {
            None => self.due(index),
            Some(slot) => self.half_open.due(slot),
        })
    }

    /// Returns when a flow's timeout was last restarted, to a resolution of [`TICK`], rounded down.
    pub fn touched(&self, index: u32) -> Instant {
        self.clock.at(match Table::half(index) {
            None => self.touched_tick(&self.flows[index as usize]),
            Some(slot) => self.half_open.entered(slot),
        })
    }

    /// Returns a number that changes whenever a flow that is not half-open gets another time to expire, other than by
    /// being refreshed.
    #[inline]
    pub fn placed(&self) -> u64 {
        self.wheel.placed()
    }

    /// Returns when [`Table::expired`] has something to do; no flow expires before. None if there is no flow, or none
    /// that expires before the end of time.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let half_open = self.half_open.first_to_expire().map(|(due, _)| due);
        self.wheel.next().into_iter().chain(half_open).min().and_then(|tick| self.clock.begin_of(tick))
    }

    /// Returns when the next half-open flow expires.
    pub fn poll_half_open(&self) -> Option<Instant> {
        self.half_open.first_to_expire().and_then(|(due, _)| self.clock.begin_of(due))
    }

    /// Returns a half-open flow whose timeout is over.
    pub fn expired_half_open(&self, now: Instant) -> Option<u32> {
        let (due, slot) = self.half_open.first_to_expire()?;
        (due <= self.clock.tick(now)).then_some(slot | HALF_OPEN)
    }

    /// Returns a flow whose timeout is over, or none if there is none among the next `most` that come up: flows that
    /// were refreshed since they were placed are placed again.
    pub fn expired(&mut self, now: Instant, most: &mut usize) -> Option<u32> {
        let tick = self.clock.tick(now);
        if let Some((due, slot)) = self.half_open.first_to_expire()
            && due <= tick
        {
            return Some(slot | HALF_OPEN);
        }
        while *most > 0 {
            *most -= 1;
            let index = self.wheel.first(tick)?;
            let due = self.due(index);
            if due <= tick {
                return Some(index);
            }
            self.wheel.unlink(&mut self.flows, index);
            self.wheel.insert(&mut self.flows, index, due);
        }
        None
    }
}

const _: () = assert!(TICK.as_nanos() * 2 < UNDER_WAY.as_nanos());
