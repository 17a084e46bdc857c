//! The TCP tracker: from segments to timeout states. It informs and never blocks a packet.
//!
//! States follow RFC 7857, 2 with the timers of RFC 5382. A reset is believed only at the exact sequence number (RFC
//! 5961, 3.2), and even then the flow survives for a grace period in which data revives it.

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

/// [`Ends`] of a handshake under way, packed into 15 bytes. An acknowledgement by the client of something other than the
/// server's SYN is lost, which proves nothing before the flow is open; and so is that the client's numbers are not from
/// its SYN, because that was too big to be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, packed)]
pub(super) struct HalfEnds {
    next: [u32; 2],
    acked: u32,
    early: u16,
    seen: u8,
}

/// The bits of `seen` above those that [`HalfEnds`] keeps in place, and where it keeps them.
const MOVED: [(u16, u8); 2] = [(ASKED, 64), (SERVER_RESET, 128)];
/// The bits that it keeps in place.
const KEPT: u16 = 63;

impl HalfEnds {
    /// Packs the numbers of a flow that is opening, or was reset before it was open.
    pub(super) fn pack(ends: &Ends) -> HalfEnds {
        let mut seen = ends.seen & KEPT;
        if ends.acked[0] != ends.next[1] || seen & syn(1) == 0 {
            seen &= !has_acked(0);
        }
        let moved = MOVED.iter().filter(|(bit, _)| ends.seen & bit != 0).fold(0, |all, (_, to)| all | to);
        HalfEnds { next: ends.next, acked: ends.acked[1], early: ends.early, seen: seen as u8 | moved }
    }

    /// Returns the numbers.
    pub(super) fn unpack(&self) -> Ends {
        let HalfEnds { next, acked, early, seen } = *self;
        let moved = MOVED.iter().filter(|(_, from)| seen & from != 0).fold(0, |all, (bit, _)| all | bit);
        let seen = u16::from(seen) & KEPT | moved;
        Ends { next, acked: [if seen & has_acked(0) != 0 { next[1] } else { 0 }, acked], seen, early }
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

/// Bytes of [`Ends`] in a saved state. Whoever gives a bit of `seen` another meaning gives the state another version.
pub(super) const SAVED: usize = 20;

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

    /// Returns the numbers as bytes, of which [`Ends::from_saved`] makes them again.
    pub(super) fn to_saved(self) -> [u8; SAVED] {
        let mut bytes = [0; SAVED];
        let words = self.next.into_iter().chain(self.acked);
        bytes.chunks_exact_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_be_bytes()));
        bytes[16..18].copy_from_slice(&self.seen.to_be_bytes());
        bytes[18..].copy_from_slice(&self.early.to_be_bytes());
        bytes
    }

    /// Makes the numbers from what [`Ends::to_saved`] returned; any bytes are some numbers.
    pub(super) fn from_saved(bytes: &[u8; SAVED]) -> Ends {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Ends { next: [word(0), word(4)], acked: [word(8), word(12)], seen: half(16), early: half(18) }
    }

    /// Records that segments may have passed since these numbers were learned.
    pub(super) fn fall_behind(&mut self) {
        match self.seen & (OPENED | ADOPTED) {
            // Its adoption begins anew.
            ADOPTED => *self = Ends::default(),
            0 => {}
            _ => self.seen |= BEHIND,
        }
    }

    /// Returns whether the numbers are those of both ends of an open connection, as far as anybody can tell who sees its
    /// segments.
    pub(super) fn are_sure(&self) -> bool {
        self.seen & (OPENED | BEHIND | LOST | REPLACED) == OPENED
    }

    /// Returns whether only the last segment of one end is known, which anybody can have sent.
    fn is_catching_up(&self) -> bool {
        self.seen & BEHIND != 0 && self.seen & (syn(0) | syn(1)) != syn(0) | syn(1)
    }

    /// Learns from a segment while the numbers may be behind; returns whether they are those of both ends after it. They
    /// are if the segment fits them, or the last one of the other end: each acknowledges what is near the other's number.
    /// A stray that nobody answers is forgotten with the next segment.
    #[cold]
    fn catch_up(&mut self, side: usize, segment: &Segment) -> bool {
        let (other, end, both) = (1 - side, segment.end(), syn(0) | syn(1));
        if self.seen & both == both && (!segment.flags.ack() || self.is_near(side, segment)) {
            let fits = within(self.next[side], end, AHEAD) && self.can_ack(side, segment.ack, AHEAD);
            if segment.flags.ack() && fits {
                self.seen &= !BEHIND;
            }
            return true;
        }
        if !segment.flags.ack() {
            return false;
        }
        let agree = self.seen & both == syn(other)
            && within(end, self.acked[other], IN_FLIGHT)
            && within(self.next[other], segment.ack, IN_FLIGHT);
        (self.next[side], self.acked[side]) = (end, segment.ack);
        let (all, own) = (both | has_acked(0) | has_acked(1), syn(side) | has_acked(side));
        if agree {
            let closes = if self.seen & ASKED == 0 && self.early != 0 { fin(other) } else { 0 };
            self.seen = self.seen & !BEHIND | all | closes;
        } else {
            self.seen = self.seen & !(all | ASKED) | own;
            // Whether that end closes the connection by it.
            self.early = u16::from(segment.flags.fin());
        }
        agree
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
mod tests {
    use super::*;

    const C: Side = Side::Client;
    const S: Side = Side::Server;

    fn seg(flags: &str, seq: u32, ack: u32, len: u32) -> Segment {
        let bit = |c| match c {
            'S' => TcpFlags::SYN,
            'A' => TcpFlags::ACK,
            'F' => TcpFlags::FIN,
            _ => TcpFlags::RST,
        };
        Segment { flags: TcpFlags(flags.chars().map(bit).fold(0, |a, b| a | b)), seq, ack, len }
    }

    #[test]
    fn what_goes_on_is_tracked_like_everything_else() {
        let (mut random, mut went_on) = (crate::rng::Rng::new(3), 0);
        for _ in 0..200_000 {
            // Numbers at every limit, and near each other.
            let mut number = || {
                let at = [0, 1, AHEAD, WINDOW, u32::MAX - AHEAD][random.below(5) as usize];
                7u32.wrapping_add(at).wrapping_add(random.below(3) as u32).wrapping_sub(1)
            };
            let (next, acked, seq, ack) = ([number(), number()], [number(), number()], number(), number());
            let open = syn(0) | syn(1) | has_acked(0) | has_acked(1) | OPENED;
            let bit = |bits: u64| if bits < 16 { 1 << bits } else { 0 };
            let seen = open ^ bit(random.below(64)) ^ bit(random.below(64));
            let before = Ends { next, acked, seen, early: random.below(3) as u16 };
            let flags = TcpFlags(TcpFlags::ACK ^ if random.below(4) == 0 { 1 << random.below(5) } else { 0 });
            let segment = Segment { flags, seq, ack, len: random.below(2) as u32 };
            let from = if random.below(2) == 0 { C } else { S };
            let (mut quick, mut full) = (before, before);
            if !quick.goes_on(from, &segment) {
                assert_eq!(quick, before);
                continue;
            }
            went_on += 1;
            let tracked = full.step(TimeoutState::Established, from, &segment);
            assert_eq!((quick, tracked), (full, Tracked::Refresh(TimeoutState::Established)), "{before:?} {segment:?}");
        }
        assert!(went_on > 5_000, "{went_on}");
    }

    /// Runs segments through a tracker and returns the state after each; `=` where a segment proved nothing.
    fn walk(segments: &[(Side, Segment)]) -> Vec<&'static str> {
        let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
        let mut seen = Vec::new();
        for (from, segment) in segments {
            let tracked = ends.step(state, *from, segment);
            if *from == C && segment.flags == TcpFlags(TcpFlags::SYN) && state == TimeoutState::Established {
                ends.doubt();
            }
            match tracked {
                Tracked::Refresh(to) => {
                    state = to;
                    seen.push(to.name());
                }
                Tracked::Pass => seen.push("="),
                Tracked::Reopen => seen.push("reopen"),
            }
        }
        seen
    }

    fn open() -> Vec<(Side, Segment)> {
        vec![(C, seg("S", 100, 0, 0)), (S, seg("SA", 500, 101, 0)), (C, seg("A", 101, 501, 0))]
    }

    fn after_open(more: &[(Side, Segment)]) -> Vec<&'static str> {
        let mut all = open();
        all.extend_from_slice(more);
        walk(&all).split_off(3)
    }

    #[test]
    fn the_three_way_handshake_establishes() {
        assert_eq!(walk(&open()), ["opening", "opening", "established"]);
    }

    #[test]
    fn repeated_syn_and_syn_ack_never_establish() {
        let (syn, answer) = ((C, seg("S", 100, 0, 0)), (S, seg("SA", 500, 101, 0)));
        assert_eq!(walk(&[syn, answer, syn, answer, answer, syn]), ["opening"; 6]);
    }

    #[test]
    fn an_ack_of_a_wrong_number_does_not_establish() {
        let mut all = open();
        all[2].1.ack = 500;
        assert_eq!(walk(&all)[2], "opening");
        all[2].1.ack = 501 + AHEAD + 1;
        assert_eq!(walk(&all)[2], "opening");
    }

    #[test]
    fn a_simultaneous_open_establishes() {
        let all = [
            (C, seg("S", 100, 0, 0)),
            (S, seg("S", 500, 0, 0)),
            (C, seg("SA", 100, 501, 0)),
            (S, seg("SA", 500, 101, 0)),
            (C, seg("A", 101, 501, 0)),
        ];
        assert_eq!(walk(&all)[4], "established");
    }

    #[test]
    fn a_half_closed_flow_stays_established_and_two_fins_close_it() {
        let more = [
            (C, seg("FA", 101, 501, 0)),
            (S, seg("A", 501, 102, 1000)),
            (S, seg("FA", 1501, 102, 0)),
            (C, seg("A", 102, 1502, 0)),
            (C, seg("S", 9000, 0, 0)),
        ];
        assert_eq!(after_open(&more), ["established", "established", "closing", "closing", "reopen"]);
    }

    #[test]
    fn a_late_duplicate_of_the_old_syn_does_not_reopen() {
        let fins = [(C, seg("FA", 101, 501, 0)), (S, seg("FA", 501, 102, 0))];
        for (seq, want) in [(100, "="), (101, "="), (102, "reopen"), (0x8000_0000, "reopen")] {
            assert_eq!(after_open(&[fins[0], fins[1], (C, seg("S", seq, 0, 0))])[2], want, "{seq}");
        }
        let refused = [(C, seg("S", 100, 0, 0)), (S, seg("RA", 0, 101, 0)), (C, seg("S", 100, 0, 0))];
        assert_eq!(walk(&refused), ["opening", "reset", "="]);
    }

    #[test]
    fn only_a_reset_at_the_exact_number_is_believed() {
        let data = (S, seg("A", 501, 101, 1000));
        for (side, seq, want) in [
            (C, 101, "reset"),
            (C, 102, "="),
            (C, 100, "="),
            (S, 1501, "reset"),
            (S, 501, "reset"), // the client has acknowledged no more than this
            (S, 900, "="),
            (S, 0, "="),
        ] {
            assert_eq!(after_open(&[data, (side, seg("R", seq, 0, 0))])[1], want, "{side:?} {seq}");
        }
    }

    #[test]
    fn data_after_a_reset_revives_the_flow_and_strays_do_not() {
        let reset = (C, seg("R", 101, 0, 0));
        assert_eq!(after_open(&[reset, (S, seg("A", 501, 101, 10))]), ["reset", "established"]);
        assert_eq!(after_open(&[reset, (S, seg("A", 0x8000_0000, 5, 10))]), ["reset", "="]);
        assert_eq!(after_open(&[reset, reset, (C, seg("S", 0x8000_0007, 0, 0))]), ["reset", "=", "reopen"]);
    }

    #[test]
    fn acknowledged_or_unsent_data_is_not_in_flight() {
        let mut ends = Ends::default();
        let data = [(C, seg("A", 101, 501, 100)), (S, seg("A", 501, 151, 10))];
        for (from, segment) in open().iter().chain(&data[..]) {
            ends.step(
                if segment.flags.syn() { TimeoutState::Opening } else { TimeoutState::Established },
                *from,
                segment,
            );
        }
        for (sender, seq, want) in [
            (C, 150, false),
            (C, 151, true),
            (C, 200, true),
            (C, 202, false),
            (S, 500, false),
            (S, 501, true),
            (S, 512, false),
        ] {
            assert_eq!(ends.is_under_way(sender, seq), want, "{sender:?} {seq}");
        }
        let mut opening = Ends::default();
        opening.step(TimeoutState::Opening, C, &seg("S", 100, 0, 0));
        assert!(opening.is_under_way(C, 100) && !opening.is_under_way(C, 5000));
        // Data that a server sends before the client's first acknowledgement (RFC 7413).
        for segment in [seg("SA", 500, 101, 0), seg("A", 501, 101, 1400), seg("A", 1901, 101, 1400)] {
            opening.step(TimeoutState::Opening, S, &segment);
        }
        assert_eq!([500, 501, 1901, 3302].map(|seq| opening.is_under_way(S, seq)), [true, true, true, false]);
    }

    #[test]
    fn a_refused_connection_is_reset() {
        let syn = (C, seg("S", 100, 0, 0));
        assert_eq!(walk(&[syn, (S, seg("RA", 0, 101, 0))]), ["opening", "reset"]);
        assert_eq!(walk(&[syn, (S, seg("RA", 0, 99, 0))]), ["opening", "="]);
        assert_eq!(walk(&[syn, (S, seg("R", 0, 0, 0))]), ["opening", "="]);
        assert_eq!(walk(&[syn, (C, seg("R", 101, 0, 0))]), ["opening", "reset"]);
    }

    #[test]
    fn a_syn_on_an_established_flow_proves_nothing() {
        assert_eq!(after_open(&[(C, seg("S", 7, 0, 0)), (S, seg("A", 501, 101, 0))]), ["=", "established"]);
    }

    #[test]
    fn an_adopted_flow_establishes_only_when_the_client_acknowledges_the_server() {
        let (first, answer) = ((C, seg("A", 900, 5000, 10)), (S, seg("A", 5000, 910, 100)));
        assert_eq!(walk(&[first, first, first]), ["opening"; 3], "only the client has sent");
        assert_eq!(walk(&[first, answer, answer]), ["opening"; 3], "not acknowledged");
        assert_eq!(walk(&[first, answer, (C, seg("A", 910, 5099, 0))])[2], "opening", "one octet short");
        assert_eq!(walk(&[first, answer, (C, seg("A", 910, 5100, 0))])[2], "established");
        let far = (S, seg("A", 0x8000_0000, 910, 0));
        assert_eq!(walk(&[first, far, (C, seg("A", 910, 0x8000_0000, 0))])[2], "opening", "a stray from the server");
        assert_eq!(walk(&[first, (S, seg("R", 5000, 0, 0))])[1], "reset");
        assert_eq!(walk(&[first, (S, seg("R", 5001, 0, 0))])[1], "=");
    }

    #[test]
    fn a_syn_on_an_adopted_flow_begins_a_handshake() {
        let mut all = vec![(C, seg("A", 900, 5000, 10))];
        all.extend(open());
        assert_eq!(walk(&all), ["opening", "opening", "opening", "established"]);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let all = [
            (C, seg("S", u32::MAX, 0, 0)),
            (S, seg("SA", u32::MAX, 0, 0)),
            (C, seg("A", 0, 0, 0)),
            (C, seg("A", 0, 0, 1000)),
            (S, seg("R", 0, 0, 0)),
        ];
        assert_eq!(walk(&all), ["opening", "opening", "established", "established", "reset"]);
    }

    #[test]
    fn data_lost_before_the_gateway_does_not_block_the_tracker() {
        let jump = (C, seg("A", 101 + 100_000, 501, 1000));
        assert_eq!(after_open(&[jump, (C, seg("R", 101 + 101_000, 0, 0))]), ["established", "reset"]);
    }

    #[test]
    fn a_reset_does_not_bypass_the_acknowledgement_of_the_server() {
        let opening = [(C, seg("S", 100, 0, 0)), (S, seg("SA", 500, 101, 0))];
        for reset in [(C, seg("R", 101, 0, 0)), (S, seg("R", 501, 0, 0))] {
            let all = [opening[0], opening[1], reset, (C, seg("A", 101, 7, 10))];
            assert_eq!(walk(&all)[2..], ["reset", "opening"], "{reset:?}");
            let all = [opening[0], opening[1], reset, (C, seg("A", 101, 501, 10))];
            assert_eq!(walk(&all)[2..], ["reset", "established"], "{reset:?}");
        }
        // A server in SYN-RECEIVED replies to a wrong acknowledgement with a reset at that number (RFC 9293, 3.10.7.4).
        let guess = (C, seg("A", 101, 7777, 0));
        let all = [opening[0], opening[1], guess, (S, seg("R", 7777, 0, 0)), guess, guess];
        assert_eq!(walk(&all)[2..], ["opening", "=", "opening", "opening"]);
    }

    #[test]
    fn a_guess_near_the_servers_number_does_not_establish() {
        for (ack, want) in [(501, "established"), (502, "opening"), (1000, "opening"), (500, "opening")] {
            let mut all = open();
            all[2].1.ack = ack;
            assert_eq!(walk(&all)[2], want, "{ack}");
        }
        // A server may send before the handshake is complete (RFC 7413), and that much may be acknowledged.
        for (ack, want) in [(501, "established"), (601, "established"), (602, "opening")] {
            let early = [(C, seg("S", 100, 0, 10)), (S, seg("SA", 500, 111, 0)), (S, seg("A", 501, 111, 100))];
            let all = [early[0], early[1], early[2], (C, seg("A", 111, ack, 0))];
            assert_eq!(walk(&all)[3], want, "{ack}");
            let all = [early[0], (S, seg("SA", 500, 111, 100)), (C, seg("A", 111, ack, 0))];
            assert_eq!(walk(&all)[2], want, "on the SYN: {ack}");
        }
    }

    #[test]
    fn a_connection_accepted_at_the_second_attempt_establishes() {
        // Some systems repeat a refused SYN with the same number.
        let syn = (C, seg("S", 100, 0, 0));
        let refused = [syn, (S, seg("RA", 0, 101, 0)), syn, (S, seg("SA", 500, 101, 0)), (C, seg("A", 101, 501, 0))];
        assert_eq!(walk(&refused), ["opening", "reset", "=", "opening", "established"]);
    }

    #[test]
    fn a_server_that_accepts_a_syn_with_numbers_of_the_closed_connection_begins_a_connection() {
        // RFC 6191, 2: with timestamps this is permitted.
        let more = [
            (C, seg("A", 101, 501, 100_000)),
            (C, seg("FA", 100_101, 501, 0)),
            (S, seg("FA", 501, 100_102, 0)),
            (C, seg("S", 50_000, 0, 0)),
            (S, seg("SA", 0x9000_0000, 50_001, 0)),
            (C, seg("A", 50_001, 0x9000_0001, 0)),
            (C, seg("R", 50_001, 0, 0)),
        ];
        assert_eq!(after_open(&more)[2..], ["closing", "=", "opening", "established", "reset"]);
        // The client has sent no SYN.
        assert_eq!(after_open(&[more[0], more[1], more[2], more[4]])[3], "=");
    }

    #[test]
    fn a_server_that_has_forgotten_the_connection_makes_the_tracker_follow_the_new_one() {
        let more = [
            (C, seg("S", 0x7000_0000, 0, 0)),
            (S, seg("SA", 0x9000_0000, 0x7000_0001, 0)),
            (C, seg("A", 0x7000_0001, 0x9000_0001, 0)),
            (C, seg("R", 0x7000_0001, 0, 0)),
        ];
        assert_eq!(after_open(&more), ["=", "=", "established", "reset"]);
        // A late duplicate of the old SYN-ACK does not count.
        let late = [(C, seg("S", 100, 0, 0)), (S, seg("SA", 500, 101, 0)), (C, seg("R", 101, 0, 0))];
        assert_eq!(after_open(&late), ["=", "=", "reset"]);
        // A forged SYN-ACK does not kill a connection: its traffic continues with its own numbers.
        let forged = [more[0], more[1], more[3]];
        let real = [(S, seg("A", 501, 101, 10)), (C, seg("A", 101, 511, 0)), more[3], (S, seg("R", 511, 0, 0))];
        let all = [&forged[..], &real[..]].concat();
        assert_eq!(after_open(&all), ["=", "=", "reset", "established", "established", "=", "="]);
    }

    #[test]
    fn an_acknowledgement_of_all_data_behind_a_hole_is_learned() {
        // Eight MiB in flight, the first segment lost behind the gateway and retransmitted.
        let mut more: Vec<_> = (0..128).map(|i| (S, seg("A", 501 + i * 65_536, 101, 65_536))).collect();
        more.push((C, seg("A", 101, 501, 0)));
        more.push((S, seg("A", 501, 101, 65_536)));
        more.push((C, seg("A", 101, 501 + (8 << 20), 0)));
        more.push((S, seg("A", 501 + (8 << 20), 101, 1000)));
        more.push((S, seg("R", 501 + (8 << 20), 0, 0)));
        assert_eq!(after_open(&more).last(), Some(&"reset"));
    }

    #[test]
    fn a_loss_before_the_gateway_beyond_the_stray_limit_does_not_block_the_tracker() {
        let more = [
            (C, seg("A", 101 + (8 << 20), 501, 1000)),
            (S, seg("A", 501, 1101 + (8 << 20), 0)),
            (C, seg("R", 1101 + (8 << 20), 0, 0)),
        ];
        assert_eq!(after_open(&more), ["established", "established", "reset"]);
        let blind = [(C, seg("A", 101 + (8 << 20), 0x6000_0000, 1000)), (C, seg("R", 1101 + (8 << 20), 0, 0))];
        assert_eq!(after_open(&blind)[1], "=", "knows neither number");
    }

    #[test]
    fn data_after_a_fin_disproves_the_fin() {
        let more = [
            (C, seg("FA", 101, 501, 0)),
            (C, seg("A", 101, 501, 1000)),
            (S, seg("FA", 501, 1101, 0)),
            (C, seg("A", 1101, 502, 1000)),
            (C, seg("FA", 2101, 502, 0)),
            (C, seg("FA", 2101, 502, 0)),
            (C, seg("A", 2102, 502, 0)),
        ];
        let want = ["established", "established", "established", "established", "closing", "closing", "closing"];
        assert_eq!(after_open(&more), want);
        let stray = [(C, seg("FA", 90, 501, 0)), (S, seg("FA", 501, 101, 0)), (C, seg("A", 101, 502, 10))];
        assert_eq!(after_open(&stray)[2], "established");
    }

    #[test]
    fn a_fin_on_the_segment_that_establishes_counts() {
        let all = [
            (C, seg("S", 100, 0, 0)),
            (S, seg("SA", 500, 101, 0)),
            (C, seg("FA", 101, 501, 10)),
            (S, seg("FA", 501, 112, 50)),
            (C, seg("A", 112, 552, 0)),
        ];
        assert_eq!(walk(&all)[2..], ["established", "closing", "closing"]);
        // Everything that the server sends before the client acknowledges any of it.
        let all = [
            (C, seg("S", 100, 0, 10)),
            (S, seg("SA", 500, 111, 0)),
            (S, seg("FA", 501, 111, 50)),
            (C, seg("A", 111, 501, 0)),
            (S, seg("A", 552, 111, 0)),
            (C, seg("FA", 111, 552, 0)),
            (S, seg("A", 552, 112, 0)),
        ];
        assert_eq!(walk(&all)[3..], ["established", "established", "closing", "closing"]);
    }

    #[test]
    fn a_simultaneous_open_that_ends_in_two_syn_acks_establishes() {
        // RFC 9293, figure 8: no further segment is required.
        let all = [
            (C, seg("S", 100, 0, 0)),
            (S, seg("S", 500, 0, 0)),
            (C, seg("SA", 100, 501, 0)),
            (S, seg("SA", 500, 101, 0)),
        ];
        assert_eq!(walk(&all), ["opening", "opening", "opening", "established"]);
        assert_eq!(walk(&[all[0], all[1], (C, seg("SA", 100, 400, 0)), all[3]])[3], "opening");
    }

    #[test]
    fn a_forged_syn_during_the_handshake_does_not_block_the_tracker() {
        let all = [open()[0], open()[1], (C, seg("S", 0x8000_0000, 0, 0)), open()[2], (C, seg("R", 101, 0, 0))];
        assert_eq!(walk(&all)[3..], ["established", "reset"]);
        let stranger =
            [(C, seg("S", 0x8000_0000, 0, 0)), (C, seg("R", 0x8000_0001, 0, 0)), (C, seg("RA", 0x8000_0001, 7, 0))];
        let all = [&open()[..2], &stranger, &open()[2..]].concat();
        assert_eq!(walk(&all)[3..], ["=", "=", "established"], "its reset does not end the handshake");
    }

    #[test]
    fn a_refused_fast_open_is_reset() {
        // RFC 9293, 3.10.7.1: the reply acknowledges the data as well.
        assert_eq!(walk(&[(C, seg("S", 100, 0, 10)), (S, seg("RA", 0, 111, 0))]), ["opening", "reset"]);
    }

    #[test]
    fn an_adopted_flow_with_megabytes_in_flight_establishes() {
        let far = 5000 + (8 << 20);
        let all = [
            (C, seg("A", 900, 5000, 0)),
            (S, seg("A", far, 900, 1000)),
            (C, seg("A", 900, 5000, 0)),
            (C, seg("A", 900, far + 1000, 0)),
        ];
        assert_eq!(walk(&all), ["opening", "opening", "opening", "established"]);
    }

    #[test]
    fn without_the_servers_number_no_flow_becomes_long_lived() {
        let mut rng = crate::rng::Rng::new(7);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20_000 {
            let iss = rng.next() as u32;
            let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
            for _ in 0..12 {
                let near = |rng: &mut crate::rng::Rng, of: u32| of.wrapping_add(rng.below(5) as u32).wrapping_sub(2);
                let (kind, seq) = (rng.below(7), near(&mut rng, 101));
                // Never the one number that only a receiver of the SYN-ACK knows, but close to it.
                let guess = if rng.below(2) == 0 { near(&mut rng, iss) } else { rng.next() as u32 };
                let ack = if guess == iss.wrapping_add(1) { 0 } else { guess };
                let segment = match kind {
                    0 => (C, seg("S", seq.wrapping_sub(1), 0, rng.below(2) as u32 * 10)),
                    1 => (C, seg(["R", "RA"][rng.below(2) as usize], seq, ack, 0)),
                    2 => (C, seg("FA", seq, ack, rng.below(3) as u32)),
                    3 => (C, seg("SA", seq.wrapping_sub(1), ack, 0)),
                    4 => (C, seg("A", seq, ack, rng.below(100) as u32)),
                    5 => (S, seg("SA", iss, 101, 0)),
                    // How a server replies to a wrong acknowledgement.
                    _ => (S, seg("R", ack, 0, 0)),
                };
                match ends.step(state, segment.0, &segment.1) {
                    Tracked::Refresh(to) => state = to,
                    Tracked::Pass => {}
                    Tracked::Reopen => (ends, state) = (Ends::default(), TimeoutState::Opening),
                }
                seen.insert(state.name());
                assert_ne!(state, TimeoutState::Established, "{segment:?}");
            }
        }
        assert!(seen.contains("reset") && seen.contains("opening"), "{seen:?}");
    }

    /// A download of 64-KiB segments with 32 MiB in flight, bursts of loss on both sides of the tracker, and both FINs.
    fn download(rng: &mut crate::rng::Rng, first: [u32; 2], segments: u32) -> Result<(), String> {
        const SIZE: u32 = 65_536;
        let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
        let mut show = |from, segment: Segment| {
            if let Tracked::Refresh(to) = ends.step(state, from, &segment) {
                state = to;
            }
            (ends, state)
        };
        let number = |side: usize, of: u32| first[side].wrapping_add(1).wrapping_add(of);
        show(C, seg("S", first[0], 0, 0));
        show(S, seg("SA", first[1], number(0, 0), 0));
        show(C, seg("A", number(0, 0), number(1, 0), 0));
        let (mut got, mut sent, mut acked, mut deaf) = (vec![false; segments as usize], 0, 0, [0; 3]);
        while acked < segments {
            // Holes are filled from the low end first; otherwise new data is sent.
            let hole = (acked..sent).find(|i| !got[*i as usize]).filter(|_| rng.below(4) == 0);
            let next = match hole {
                Some(hole) => hole,
                None if sent < segments && sent - acked < 512 => sent,
                None => acked,
            };
            sent = sent.max(next + 1);
            for lost in &mut deaf {
                *lost = if *lost > 0 {
                    *lost - 1
                } else if rng.below(400) == 0 {
                    rng.below(300)
                } else {
                    0
                };
            }
            if deaf[0] > 0 {
                continue;
            }
            let (ends, state) = show(S, seg("A", number(1, next * SIZE), number(0, 0), SIZE));
            if state != TimeoutState::Established {
                return Err(format!("{state:?} after segment {next} of {sent}, {acked} acknowledged"));
            }
            if next >= acked && !ends.is_under_way(S, number(1, next * SIZE)) {
                return Err(format!("segment {next} of {sent} is not in flight, {acked} acknowledged: {ends:?}"));
            }
            if deaf[1] > 0 {
                continue;
            }
            got[next as usize] = true;
            let whole = got.iter().position(|got| !got).map_or(segments, |i| i as u32);
            if deaf[2] > 0 {
                continue;
            }
            acked = whole;
            let (mut ends, state) = show(C, seg("A", number(0, 0), number(1, whole * SIZE), 0));
            let reset = ends.step(state, S, &seg("R", number(1, whole * SIZE), 0, 0));
            if reset != Tracked::Refresh(TimeoutState::Reset) {
                return Err(format!("a reset at {whole} of {sent} is not believed: {ends:?}"));
            }
        }
        let end = number(1, segments * SIZE);
        show(S, seg("FA", end, number(0, 0), 0));
        show(C, seg("FA", number(0, 0), end.wrapping_add(1), 0));
        let (_, state) = show(S, seg("A", end.wrapping_add(1), number(0, 1), 0));
        if state == TimeoutState::Closing { Ok(()) } else { Err(format!("{state:?} at the end")) }
    }

    #[test]
    fn the_tracker_follows_a_large_window_through_bursts_of_loss() {
        let mut rng = crate::rng::Rng::new(3);
        for run in 0..20 {
            let first = [rng.next() as u32, rng.next() as u32];
            assert_eq!(download(&mut rng, first, 4000), Ok(()), "{run}");
        }
    }

    /// Returns a connection of which so many bytes have passed in each direction since its numbers were saved.
    fn behind(sent: u32, got: u32) -> (Ends, [u32; 2]) {
        let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
        for (from, segment) in open() {
            let Tracked::Refresh(to) = ends.step(state, from, &segment) else { panic!("{segment:?}") };
            state = to;
        }
        let mut saved = Ends::from_saved(&ends.to_saved());
        assert_eq!(saved, ends);
        saved.fall_behind();
        (saved, [101u32.wrapping_add(sent), 501u32.wrapping_add(got)])
    }

    const GIB: u32 = 1 << 30;

    #[test]
    fn numbers_that_are_behind_are_caught_up_with_and_the_connection_closes() {
        for (sent, got) in [(0, 0), (1000, 0), (0, AHEAD / 2), (3 * GIB, 0), (0, 2 * GIB), (GIB, 3 * GIB + 7)] {
            for first in [C, S] {
                let (mut ends, [client, server]) = behind(sent, got);
                let fin = |side, more: u32| match side {
                    C => seg("FA", client, server.wrapping_add(more), 0),
                    S => seg("FA", server, client.wrapping_add(more), 0),
                };
                let second = first.other();
                let last = match first {
                    C => seg("A", client.wrapping_add(1), server.wrapping_add(1), 0),
                    S => seg("A", server.wrapping_add(1), client.wrapping_add(1), 0),
                };
                let steps = [(first, fin(first, 0)), (second, fin(second, 1)), (first, last)];
                let mut state = TimeoutState::Established;
                for (from, segment) in steps {
                    if let Tracked::Refresh(to) = ends.step(state, from, &segment) {
                        state = to;
                    }
                }
                assert_eq!(
                    (state, ends.is_closed()),
                    (TimeoutState::Closing, true),
                    "{sent} {got} {first:?}: {ends:?}"
                );
            }
        }
    }

    #[test]
    fn a_half_closed_connection_that_is_behind_is_one_still() {
        let (mut ends, _) = behind(0, 0);
        ends.step(TimeoutState::Established, C, &seg("FA", 101, 501, 0));
        ends.fall_behind();
        let mut at = 501 + 2 * GIB;
        for _ in 0..10 {
            ends.step(TimeoutState::Established, S, &seg("A", at, 102, 1000));
            at += 1000;
            ends.step(TimeoutState::Established, C, &seg("A", 102, at, 0));
        }
        let last = ends.step(TimeoutState::Established, S, &seg("FA", at, 102, 0));
        assert_eq!(last, Tracked::Refresh(TimeoutState::Closing), "{ends:?}");
    }

    #[test]
    fn a_stray_ends_no_connection_that_is_behind() {
        let mut rng = crate::rng::Rng::new(5);
        for _ in 0..10_000 {
            let (mut ends, [client, server]) = behind(rng.next() as u32, rng.next() as u32);
            let number = rng.next() as u32;
            for flags in ["A", "FA", "R", "RA"] {
                let step = ends.step(TimeoutState::Established, C, &seg(flags, number, rng.next() as u32, 0));
                assert!(matches!(step, Tracked::Pass | Tracked::Refresh(TimeoutState::Established)), "{step:?}");
            }
            ends.step(TimeoutState::Established, S, &seg("A", server, client, 100));
            ends.step(TimeoutState::Established, C, &seg("A", client, server.wrapping_add(100), 0));
            ends.step(TimeoutState::Established, S, &seg("A", server.wrapping_add(100), client, 100));
            let reset = seg("R", client, 0, 0);
            assert_eq!(
                ends.step(TimeoutState::Established, C, &reset),
                Tracked::Refresh(TimeoutState::Reset),
                "{ends:?}"
            );
        }
    }

    #[test]
    fn addresses_and_ports_alone_cannot_shorten_a_flows_life() {
        let mut rng = crate::rng::Rng::new(11);
        let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
        for (from, segment) in open() {
            let Tracked::Refresh(to) = ends.step(state, from, &segment) else { panic!("{segment:?}") };
            state = to;
        }
        for _ in 0..300_000 {
            let flags = ["S", "SA", "R", "RA", "A", "FA", "F"][rng.below(7) as usize];
            let segment = seg(flags, rng.next() as u32, rng.next() as u32, rng.below(70_000) as u32);
            let step = ends.step(state, C, &segment);
            assert!(
                matches!(step, Tracked::Pass | Tracked::Refresh(TimeoutState::Established)),
                "{segment:?}: {step:?}"
            );
        }
        // The connection itself still closes.
        let more = [(S, seg("FA", 501, 101, 0)), (C, seg("FA", 101, 502, 0)), (S, seg("A", 502, 102, 0))];
        let last = more.map(|(from, segment)| ends.step(state, from, &segment));
        assert_eq!(last[2], Tracked::Refresh(TimeoutState::Closing), "{ends:?}");
    }
}
