//! The TCP tracker: from segments to timeout states. It informs and never blocks a packet.
//!
//! States follow RFC 7857, 2 with the timers of RFC 5382. A reset is believed only at the exact sequence number (RFC
//! 5961, 3.2), and even then the flow survives for a grace period in which data revives it.

mod behind;
mod packed;

pub(super) use packed::{HalfEnds, SAVED};

use super::settings::TimeoutState;
use crate::packet::{Side, TcpFlags};

/// The contents of a segment that matter to the tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Flags.
    pub flags: TcpFlags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Payload length in bytes.
    pub len: u32,
}

/// What a segment means for its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracked {
    /// The flow continues in this state, and its timeout restarts.
    Refresh(TimeoutState),
    /// The segment is forwarded but proves nothing: the timeout keeps running.
    Pass,
    /// A client's SYN on a finished flow: a new connection (RFC 9293, 3.10.7.4; RFC 6191).
    Reopen,
}

/// What is known of both ends: 20 bytes of sequence numbers and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(super) struct Ends {
    /// The sequence number after the last one sent by the client and by the server. While an end's handshake is
    /// incomplete: the number after its SYN.
    next: [u32; 2],
    /// The last acknowledgement sent by the client and by the server.
    acked: [u32; 2],
    seen: u16,
    /// Until the flow is open: bytes that the server sent after its SYN before the client acknowledged it (RFC 7413);
    /// [`u16::MAX`] means that many or more. From then on, with [`ASKED`]: the low half of the number after the client's
    /// last SYN, which a refusal acknowledges.
    early: u16,
}

/// The sequence numbers of both ends of a connection, by [`Side`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sequence {
    /// The number after the last one that each end has sent.
    pub next: [u32; 2],
    /// The last acknowledgement of each end.
    pub acked: [u32; 2],
}

impl Sequence {
    /// Does the same as [`Ends::follow`].
    pub(crate) fn follow(&mut self, was: &Sequence, now: &Sequence) {
        for side in [0, 1] {
            let own = [&mut self.next[side], &mut self.acked[side]];
            let others = [(was.next[side], now.next[side]), (was.acked[side], now.acked[side])];
            for (own, (was, now)) in own.into_iter().zip(others) {
                if was != now && !advances(now, *own) {
                    *own = now;
                }
            }
        }
    }

    /// Does the same as [`Ends::reset_towards`], for a connection of which all numbers are known.
    pub(crate) fn reset_towards(&self, to: Side) -> ([Option<u32>; 2], u32) {
        let (own, other) = (to as usize, to.other() as usize);
        let (acked, next) = (self.acked[own], self.next[other]);
        ([Some(acked), Some(next).filter(|next| *next != acked)], self.next[own])
    }
}

/// How far ahead of the numbers seen a segment may lie: beyond that it is a stray and is not learned from, unless it
/// acknowledges what the other end sent.
const AHEAD: u32 = 2 << 20;
/// How much may be in flight in a connection whose numbers are learned anew.
const IN_FLIGHT: u32 = 16 * AHEAD;
/// The largest possible window (RFC 7323, 2.3).
const WINDOW: u32 = 1 << 30;

const fn syn(side: usize) -> u16 {
    1 << side
}
const fn fin(side: usize) -> u16 {
    4 << side
}
const fn has_acked(side: usize) -> u16 {
    16 << side
}
/// Picked up in the middle of the connection: no SYN was seen, and `syn` says whose numbers are known. Nobody's are while only
/// the server has sent: what it has acknowledged is known then.
const ADOPTED: u16 = 64;
/// The client has acknowledged one of the server's sequence numbers.
const OPENED: u16 = 128;
/// The client has since sent a SYN for another connection.
const ASKED: u16 = 256;
/// The numbers are those of a SYN-ACK that arrived while the flow was established.
const REPLACED: u16 = 512;
/// Traffic with other numbers continued after that: one of the two is forged, and the numbers prove nothing.
const LOST: u16 = 1024;
/// The last believed reset came from the server.
const SERVER_RESET: u16 = 2048;
/// The flow was established and silent when the client sent that SYN, and has been since: a server that knows the
/// connection would have answered by a challenge ACK (RFC 5961, 4), for which the silence before left room in its limit.
const DOUBTED: u16 = 4096;
/// The last believed reset refused that SYN, which proves no knowledge of the connection's numbers.
const REFUSED: u16 = 8192;

/// The numbers are those of an earlier time, and segments may have passed since. If one does not fit them, they are learned
/// anew from a segment of each end that agree; until then, `syn` says whose segment was seen last.
const BEHIND: u16 = 1 << 14;

/// Of a flow that is not TCP, whose numbers mean nothing: its client has proved itself, but a limit was reached.
const NO_PROOF: u16 = 1 << 15;

/// Returns whether `b` is ahead of `a` by 1 to [`AHEAD`], modulo 2^32.
const fn advances(a: u32, b: u32) -> bool {
    let gap = b.wrapping_sub(a);
    gap != 0 && gap <= AHEAD
}

/// Returns whether two numbers are within `reach` of each other, modulo 2^32.
const fn within(a: u32, b: u32, reach: u32) -> bool {
    b.wrapping_sub(a).wrapping_add(reach) <= 2 * reach
}

impl Segment {
    /// Returns the sequence number after the last one that the segment occupies.
    const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len).wrapping_add(self.flags.fin() as u32 + self.flags.syn() as u32)
    }
}

impl Ends {
    /// Returns what is known after a segment of the server with which a flow begins.
    pub(super) fn of_server(segment: &Segment) -> Ends {
        Ends { acked: [0, segment.ack], seen: ADOPTED | has_acked(1), ..Ends::default() }
    }

    /// Records that the client of a flow that is not TCP has proved itself to no effect.
    pub(super) fn refuse(&mut self) {
        self.seen |= NO_PROOF;
    }

    /// Returns whether the client of a flow that is not TCP has proved itself to no effect.
    #[inline]
    pub(super) fn is_refused(&self) -> bool {
        self.seen & NO_PROOF != 0
    }

    /// Returns whether the numbers are those of both ends of an open connection, as far as anybody can tell who sees its
    /// segments.
    pub(super) fn are_sure(&self) -> bool {
        self.seen & (OPENED | BEHIND | LOST | REPLACED) == OPENED
    }

    /// Returns whether the flow began with a segment of the server, and its client has not sent since.
    fn is_the_servers(&self) -> bool {
        self.seen & (ADOPTED | syn(0) | syn(1)) == ADOPTED
    }

    /// Returns whether a client's reset answers a segment of the server with which the flow began.
    pub(super) fn is_disowned_by(&self, reset: &Segment) -> bool {
        self.is_the_servers() && self.seen & has_acked(1) != 0 && reset.seq == self.acked[1]
    }

    /// Returns whether the flow began without a SYN.
    pub(super) fn is_adopted(&self) -> bool {
        self.seen & ADOPTED != 0
    }

    /// Returns whether the last believed reset came from this end.
    pub(super) fn has_reset(&self, side: Side) -> bool {
        (self.seen & SERVER_RESET != 0) == (side == Side::Server)
    }

    /// Returns whether the last believed reset can have been sent by somebody who knows no number of the connection.
    pub(super) fn is_reset_doubtful(&self) -> bool {
        self.seen & (REFUSED | REPLACED) != 0
    }

    /// Returns whether the numbers are those of a connection in place of another, which may live.
    pub(super) fn is_replaced(&self) -> bool {
        self.seen & REPLACED != 0
    }

    /// Returns whether an established flow has carried nothing since a SYN that a living server would have answered.
    pub(super) fn is_doubted(&self) -> bool {
        self.seen & DOUBTED != 0
    }

    /// Records that the client's SYN has found the flow established and silent.
    pub(super) fn doubt(&mut self) {
        self.seen |= DOUBTED;
    }

    /// Returns whether the connection is open and nothing of it is in doubt.
    #[inline]
    pub(super) fn is_steady(&self) -> bool {
        const OPEN: u16 = syn(0) | syn(1) | has_acked(0) | has_acked(1) | OPENED;
        const OTHER: u16 = fin(0) | fin(1) | ASKED | LOST | DOUBTED | BEHIND;
        self.seen & (OPEN | OTHER) == OPEN
    }

    /// Returns the sequence numbers of both ends.
    pub(super) fn sequence(&self) -> Sequence {
        Sequence { next: self.next, acked: self.acked }
    }

    /// Takes over what somebody else has learned from segments that were not seen here, since it reported `was`. Numbers
    /// that are ahead of those, from segments that only came here, stay.
    pub(super) fn follow(&mut self, was: &Sequence, now: &Sequence) {
        let mut own = self.sequence();
        own.follow(was, now);
        (self.next, self.acked) = (own.next, own.acked);
    }

    /// Processes a segment of an established flow if it is like almost all: of an open connection of which nothing is in
    /// doubt, where it is expected. Otherwise it returns false and changes nothing; then [`Ends::step`] has to process it.
    #[inline]
    pub(super) fn goes_on(&mut self, from: Side, segment: &Segment) -> bool {
        const KINDS: u8 = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK;
        let side = from as usize;
        let end = segment.seq.wrapping_add(segment.len);
        let gap = end.wrapping_sub(self.next[side]);
        if segment.flags.0 & KINDS != TcpFlags::ACK || !self.is_steady() || gap.wrapping_add(AHEAD) > 2 * AHEAD {
            return false;
        }
        if gap <= AHEAD {
            self.next[side] = end;
        }
        let sent = self.next[1 - side].wrapping_sub(self.acked[side]);
        let sent = if sent <= WINDOW { sent } else { 0 };
        if segment.ack.wrapping_sub(self.acked[side]) <= sent + AHEAD {
            self.acked[side] = segment.ack;
        }
        true
    }

    /// Processes a segment of a flow in `state`.
    pub(super) fn step(&mut self, state: TimeoutState, from: Side, segment: &Segment) -> Tracked {
        let side = from as usize;
        if segment.flags.rst() {
            // RFC 6146, 3.5.2.2: the second of two resets neither shortens nor refreshes anything.
            let known = state != TimeoutState::Reset && self.seen & LOST == 0 && !self.is_catching_up();
            let exact = self.reset_is_exact(state, side, segment);
            let believed = known && (exact || self.is_refusal(side, segment));
            if believed {
                let from = if side == 1 { SERVER_RESET } else { 0 };
                self.seen = self.seen & !(SERVER_RESET | REFUSED) | from | if exact { 0 } else { REFUSED };
            }
            return if believed { Tracked::Refresh(TimeoutState::Reset) } else { Tracked::Pass };
        }
        if segment.flags.syn() {
            return self.on_syn(state, side, segment);
        }
        if state == TimeoutState::Opening {
            self.adopt(side, segment);
        }
        if self.opens(side, segment) {
            self.open(segment);
        }
        let knows = self.seen & BEHIND == 0 || self.catch_up(side, segment);
        let fresh = knows && self.learn(state, side, segment);
        // Even where the numbers here are wrong.
        self.seen &= !DOUBTED;
        if !fresh && self.seen & REPLACED != 0 {
            self.seen |= LOST;
        }
        if self.seen & LOST != 0 {
            return Tracked::Refresh(TimeoutState::Established);
        }
        let opened = self.seen & OPENED != 0;
        if fresh && opened && state != TimeoutState::Closing {
            // Whatever the SYN asked for, this connection goes on.
            self.seen &= !ASKED;
        }
        match state {
            TimeoutState::Opening => {
                Tracked::Refresh(if opened { TimeoutState::Established } else { TimeoutState::Opening })
            }
            // RFC 7857, 2.2: traffic after a reset shows that the ends did not accept it.
            TimeoutState::Reset if !fresh => Tracked::Pass,
            _ if self.seen & (fin(0) | fin(1)) == fin(0) | fin(1) => Tracked::Refresh(TimeoutState::Closing),
            _ if opened => Tracked::Refresh(TimeoutState::Established),
            _ => Tracked::Refresh(TimeoutState::Opening),
        }
    }

    /// Returns whether both ends have closed the connection and each has acknowledged the other's FIN: neither has
    /// anything left to send again.
    pub(super) fn is_closed(&self) -> bool {
        let all = fin(0) | fin(1) | has_acked(0) | has_acked(1);
        self.seen & (all | LOST) == all && self.acked == [self.next[1], self.next[0]]
    }

    /// Returns whether a client's SYN asks for a connection other than the one known here, and is no late duplicate of
    /// that one's SYN (RFC 6191, 2).
    pub(super) fn asks_anew(&self, state: TimeoutState, segment: &Segment) -> bool {
        if !segment.flags.syn() || segment.flags.ack() {
            return false;
        }
        let known = self.seen & syn(0) != 0;
        match state {
            TimeoutState::Opening => !known || segment.end() != self.next[0],
            _ => !(known && advances(segment.seq, self.next[0])),
        }
    }

    /// Returns the sequence numbers at which an end is likely to accept a reset (RFC 5961, 3.2: only the next one
    /// expected), likeliest first, and the acknowledgement that makes it acceptable in SYN-SENT too (RFC 9293,
    /// 3.10.7.3).
    pub(super) fn reset_towards(&self, to: Side) -> ([Option<u32>; 2], u32) {
        let (own, other) = (to as usize, to.other() as usize);
        let acked = (self.seen & has_acked(own) != 0).then_some(self.acked[own]);
        let next = (self.seen & syn(other) != 0).then_some(self.next[other]);
        let next = next.filter(|next| acked != Some(*next));
        // In SYN-SENT only the acknowledgement matters.
        let any = (self.seen & syn(own) != 0).then_some(0);
        ([acked.or(next).or(any), acked.and(next)], self.next[own])
    }

    /// Returns whether a segment sent by `sender` at `seq` can still be in flight: sent and not acknowledged (RFC 5927,
    /// 4.1). What is unknown of either end rules nothing out.
    pub(super) fn is_under_way(&self, sender: Side, seq: u32) -> bool {
        let (own, other) = (sender as usize, sender.other() as usize);
        if self.seen & syn(own) == 0 || self.seen & (LOST | BEHIND) != 0 {
            return true;
        }
        let next = self.next[own];
        if self.seen & has_acked(other) == 0 {
            // While the flow opens, the SYN itself is one before `next`.
            let early = if own == 1 && self.seen & OPENED == 0 { u32::from(self.early) } else { 0 };
            return next.wrapping_add(early).wrapping_sub(seq) <= u32::MAX / 4;
        }
        let first = self.acked[other];
        seq.wrapping_sub(first) <= next.wrapping_sub(first)
    }

    /// Learns the numbers of an end whose SYN was not seen, in a flow that begins with any segment: those of the client
    /// first. The server's numbers count only near what the client has acknowledged.
    fn adopt(&mut self, side: usize, segment: &Segment) {
        let end = segment.end();
        let is_the_servers = self.is_the_servers();
        if side == 1 && is_the_servers {
            if segment.flags.ack() {
                self.acked[1] = segment.ack;
            }
            return;
        }
        let first = (self.seen == 0 || is_the_servers) && side == 0;
        // A window can exceed the limit for strays; beyond it, the segment has to acknowledge what the client sent.
        let acks = segment.flags.ack() && within(self.next[0], segment.ack, AHEAD);
        let near = within(self.acked[0], end, if acks { WINDOW } else { AHEAD });
        let second = side == 1 && self.seen & (ADOPTED | syn(1)) == ADOPTED && segment.flags.ack() && near;
        if first || second {
            self.seen |= ADOPTED | syn(side);
            self.next[side] = end;
        }
    }

    fn on_syn(&mut self, state: TimeoutState, side: usize, segment: &Segment) -> Tracked {
        match state {
            TimeoutState::Opening => self.on_first_syn(side, segment),
            TimeoutState::Closing | TimeoutState::Reset if side == 0 && self.asks_anew(state, segment) => {
                Tracked::Reopen
            }
            _ if side == 1 && segment.flags.ack() && self.seen & ASKED != 0 => self.on_new_answer(state, segment),
            // RFC 5961, 4: the end replies with a challenge ACK, and that is what keeps the flow alive.
            _ => {
                if side == 0 && !segment.flags.ack() {
                    self.asked(segment);
                }
                Tracked::Pass
            }
        }
    }

    /// Records that the client has sent a SYN for another connection, which reaches the server.
    pub(super) fn asked(&mut self, segment: &Segment) {
        self.seen |= ASKED;
        if self.seen & OPENED != 0 {
            self.early = segment.end() as u16;
        }
    }

    fn on_first_syn(&mut self, side: usize, segment: &Segment) -> Tracked {
        if self.is_the_servers() && side == 0 && !segment.flags.ack() {
            // Who has forged the server's segment shall not choose the server of this one.
            return Tracked::Reopen;
        }
        if self.seen & ADOPTED != 0 && side == 0 && !segment.flags.ack() {
            *self = Ends::default();
        }
        if side == 0 {
            // RFC 7413: data on the SYN.
            self.next[0] = segment.end();
        } else {
            self.on_servers_syn(segment);
        }
        self.seen |= syn(side);
        if segment.flags.ack() {
            self.acked[side] = segment.ack;
            self.seen |= has_acked(side);
        }
        // RFC 9293, figure 8: in a simultaneous open, each SYN-ACK completes one half.
        let all = syn(0) | syn(1) | has_acked(0) | has_acked(1);
        if self.seen & all == all && self.acked == [self.next[1], self.next[0]] {
            self.seen |= OPENED;
            return Tracked::Refresh(TimeoutState::Established);
        }
        Tracked::Refresh(TimeoutState::Opening)
    }

    fn on_servers_syn(&mut self, segment: &Segment) {
        let next = segment.seq.wrapping_add(1);
        if self.seen & syn(1) == 0 || self.next[1] != next {
            (self.next[1], self.early) = (next, 0);
        }
        self.note_early(segment.end());
    }

    /// Learns the numbers of a SYN that the server has accepted although an earlier connection of the client is known
    /// here. An established flow stays established: only the server knows whether it still is. One that was not silent
    /// before the SYN keeps its numbers, as a server that knows it may have had no challenge ACK left for the SYN, and
    /// anybody may have answered in its name. One that was closed or reset by whoever may know none of its numbers is
    /// established again, as either connection may live.
    fn on_new_answer(&mut self, state: TimeoutState, segment: &Segment) -> Tracked {
        let behind = |next: u32, number: u32| next.wrapping_sub(number) <= AHEAD;
        let established = state == TimeoutState::Established;
        let repeats = || behind(self.next[1], segment.seq) && behind(self.next[0], segment.ack);
        if established && (!self.is_doubted() || repeats()) {
            return Tracked::Pass;
        }
        let may_live = established || self.is_reset_doubtful();
        let seen = syn(0) | syn(1) | has_acked(1) | if may_live { OPENED | REPLACED } else { 0 };
        *self = Ends { next: [segment.ack, 0], acked: [0, segment.ack], seen, early: 0 };
        self.on_servers_syn(segment);
        match (established, may_live) {
            (true, _) => Tracked::Pass,
            (_, true) => Tracked::Refresh(TimeoutState::Established),
            _ => Tracked::Refresh(TimeoutState::Opening),
        }
    }

    /// Records how much the server has sent before the client's first acknowledgement.
    fn note_early(&mut self, end: u32) {
        let early = end.wrapping_sub(self.next[1]);
        if early <= AHEAD {
            self.early = self.early.max(u16::try_from(early).unwrap_or(u16::MAX));
        }
    }

    /// Returns whether this is the client's first acknowledgement of the server's data: of its SYN, and of no more than
    /// was sent.
    fn opens(&self, side: usize, segment: &Segment) -> bool {
        let both = syn(0) | syn(1);
        let most = if self.early == u16::MAX { AHEAD } else { u32::from(self.early) };
        side == 0
            && segment.flags.ack()
            && self.seen & (both | OPENED) == both
            && segment.ack.wrapping_sub(self.next[1]) <= most
    }

    /// Learns the numbers of the segment that opens the flow: whoever acknowledges the server's number is the client.
    fn open(&mut self, segment: &Segment) {
        let most = if self.early == u16::MAX { segment.ack.wrapping_sub(self.next[1]) } else { u32::from(self.early) };
        self.next[1] = self.next[1].wrapping_add(most);
        self.acked[0] = segment.ack;
        if !within(self.next[0], segment.end(), AHEAD) {
            self.next[0] = segment.seq;
        }
        // Whatever the client asked for before, it has gone on with this connection.
        self.seen = self.seen & !ASKED | OPENED | has_acked(0);
    }

    /// Learns the numbers of a segment of an open connection; returns whether any of them can belong to this
    /// connection.
    fn learn(&mut self, state: TimeoutState, side: usize, segment: &Segment) -> bool {
        let end = segment.end();
        let near = self.is_near(side, segment);
        if !near {
            return false;
        }
        if segment.flags.fin() {
            self.seen |= fin(side);
        }
        // While opening, `next` is the number after the SYN, which the other end has to acknowledge.
        let opening = state == TimeoutState::Opening && self.seen & OPENED == 0;
        let frozen = opening && !(self.seen & ADOPTED != 0 && side == 0);
        let gap = end.wrapping_sub(self.next[side]);
        if frozen {
            if side == 1 {
                self.note_early(end);
            }
        } else if gap != 0 && gap <= WINDOW {
            self.next[side] = end;
            if segment.len > 0 && !segment.flags.fin() {
                // No data follows a FIN, so what was taken for a FIN was not one.
                self.seen &= !fin(side);
            }
        }
        // Until the client has acknowledged the server's SYN, any number may be a guess.
        let guess = opening && side == 0 && self.seen & ADOPTED == 0;
        if segment.flags.ack() && !guess {
            self.learn_ack(side, segment.ack);
        }
        true
    }

    /// Returns whether a segment can belong to this connection, by its position or by what it acknowledges.
    fn is_near(&self, side: usize, segment: &Segment) -> bool {
        let other = 1 - side;
        let (next, end) = (self.next[side], segment.end());
        if self.seen & syn(side) == 0 || !within(next, end, WINDOW) {
            return false;
        }
        let known = syn(other) | has_acked(side);
        within(next, end, AHEAD)
            || (segment.flags.ack() && self.seen & known == known && self.can_ack(side, segment.ack, AHEAD))
    }

    /// Returns whether an end can have sent this acknowledgement: from `back` before its last one up to what the other
    /// end sent.
    fn can_ack(&self, side: usize, ack: u32, back: u32) -> bool {
        let sent = self.next[1 - side].wrapping_sub(self.acked[side]);
        let is_known = self.seen & syn(1 - side) != 0;
        let sent = if is_known && sent <= WINDOW { sent } else { 0 };
        ack.wrapping_sub(self.acked[side]).wrapping_add(back) <= sent + AHEAD + back
    }

    fn learn_ack(&mut self, side: usize, ack: u32) {
        if self.seen & has_acked(side) == 0 || self.can_ack(side, ack, 0) {
            self.acked[side] = ack;
            self.seen |= has_acked(side);
        }
    }

    /// Returns whether a reset refuses the last SYN that the client sent although it has an open connection here (RFC
    /// 9293, 3.10.7.1): the server does not know that connection, or it would have answered with a challenge ACK. Half of
    /// the number is compared: there is no room for more, and the client verifies all of it. Anybody can send both
    /// packets, so the connection is over only if it carries nothing more.
    fn is_refusal(&self, side: usize, segment: &Segment) -> bool {
        side == 1
            && segment.flags.ack()
            && self.seen & (ASKED | DOUBTED | OPENED) == ASKED | DOUBTED | OPENED
            && segment.ack as u16 == self.early
    }

    /// Returns whether a reset is at the number that its receiver expects next.
    fn reset_is_exact(&self, state: TimeoutState, side: usize, segment: &Segment) -> bool {
        let other = 1 - side;
        let adopted = self.seen & ADOPTED != 0;
        if state == TimeoutState::Opening && !adopted && side == 0 && self.seen & has_acked(1) != 0 {
            // Anyone can have sent the last SYN; the server expects what it has acknowledged.
            return segment.seq == self.acked[1];
        }
        if state == TimeoutState::Opening && !adopted && segment.flags.ack() && self.seen & syn(other) != 0 {
            // RFC 9293, 3.10.7.3: in SYN-SENT a reset is accepted if it acknowledges the SYN.
            return segment.ack == self.next[other] || (self.seen & syn(side) != 0 && segment.seq == self.next[side]);
        }
        let sent = self.seen & syn(side) != 0 || state != TimeoutState::Opening;
        (self.seen & has_acked(other) != 0 && segment.seq == self.acked[other])
            || (sent && segment.seq == self.next[side])
    }
}

#[cfg(test)]
mod tests;
