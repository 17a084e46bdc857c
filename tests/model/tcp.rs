//! What the segments of a connection say about its state, according to the RFCs: 9293 (handshake, resets), 5961 (only
//! an exact reset counts), 7857, 2 (which states determine a mapping's timeout), 6191 and 9293, 3.10.7.4 (reuse of a
//! port).
//!
//! Sequence numbers are `None` until they are known; distances are signed.

use super::wire::{ACK, FIN, RST, SYN, Tcp as Segment};
use equipoise::flow::TimeoutState;
use equipoise::packet::Side;

/// How far a segment may jump and still count as part of the connection.
const NEAR: i64 = 2 << 20;
/// The largest window (RFC 7323, 2.3).
const WINDOW: i64 = 1 << 30;
/// How much a server may send after its SYN before the client acknowledges it; at this limit its next sequence number
/// counts as unknown.
const MOST_EARLY: i64 = 65_535;

/// What a segment means for its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// The flow is in this state, and its timer restarts.
    State(TimeoutState),
    /// The segment changes nothing, and the timer does not restart.
    Nothing,
    /// The segment opens a new connection between the same ends.
    New,
}

impl Means {
    /// Returns whether it completes the handshake of a half-open flow.
    pub fn completes(self) -> bool {
        matches!(self, Means::State(state) if !matches!(state, TimeoutState::Opening | TimeoutState::Reset))
    }
}

/// What is known about one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    /// The sequence number it sends next; during the handshake, the one after its SYN.
    pub next: Option<u32>,
    /// The last sequence number it has acknowledged.
    pub acked: Option<u32>,
    fin: bool,
}

/// What is known about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracker {
    /// The client and the server.
    pub ends: [End; 2],
    /// The connection was picked up midstream.
    pub adopted: bool,
    /// The client has acknowledged the server's SYN.
    open: bool,
    /// The client has sent a SYN that may belong to another connection.
    asked: bool,
    /// A SYN has found the connection established and silent, and nothing of it has been seen since.
    pub doubted: bool,
    /// The number after that SYN, if the connection was open.
    pub asked_for: Option<u32>,
    /// The server has replied to such a SYN although the connection was open.
    pub answered_anew: bool,
    /// The old connection continued nevertheless: sequence numbers no longer prove anything.
    lost: bool,
    /// Bytes sent after the server's SYN and before the client's acknowledgement of it.
    early: i64,
    /// The last reset that counted did so only because it refused another connection.
    pub refused: bool,
    /// The side that sent the last reset that counted.
    pub reset_by: Side,
}

/// Returns how far `to` lies after `from`; negative if it lies before.
fn distance(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from) as i32)
}

fn near(from: u32, to: u32, reach: i64) -> bool {
    distance(from, to).abs() <= reach
}

fn end(segment: &Segment) -> u32 {
    let flags = u32::from(segment.has(SYN)) + u32::from(segment.has(FIN));
    segment.seq.wrapping_add(segment.len).wrapping_add(flags)
}

impl Default for Tracker {
    fn default() -> Self {
        Tracker {
            ends: [End::default(); 2],
            adopted: false,
            open: false,
            asked: false,
            doubted: false,
            asked_for: None,
            answered_anew: false,
            lost: false,
            early: 0,
            refused: false,
            reset_by: Side::Client,
        }
    }
}

impl Tracker {
    /// A connection of which a server's segment was seen and nothing else.
    pub fn of_server(segment: &Segment) -> Tracker {
        let server = End { acked: Some(segment.ack), ..End::default() };
        Tracker { ends: [End::default(), server], adopted: true, ..Tracker::default() }
    }

    /// Returns whether only the server of an adopted connection has sent.
    pub fn is_the_servers(&self) -> bool {
        self.adopted && self.ends.iter().all(|end| end.next.is_none())
    }

    /// Returns whether a client answers a server's segment by this reset: it has no such connection.
    pub fn is_disowned_by(&self, segment: &Segment) -> bool {
        self.is_the_servers() && segment.has(RST) && self.ends[1].acked == Some(segment.seq)
    }

    /// Processes a segment of a connection in `state`.
    pub fn take(&mut self, state: TimeoutState, from: Side, segment: &Segment) -> Means {
        if segment.has(RST) {
            return self.reset(state, from, segment);
        }
        if segment.has(SYN) {
            return self.syn(state, from, segment);
        }
        if state == TimeoutState::Opening {
            self.begin_in_the_middle(from, segment);
        }
        self.complete(from, segment);
        let ours = self.learn(state, from, segment);
        self.doubted = false;
        self.lost |= !ours && self.answered_anew;
        if self.lost {
            return Means::State(TimeoutState::Established);
        }
        if ours && self.open && state != TimeoutState::Closing {
            self.asked = false;
        }
        let so_far = if self.open { TimeoutState::Established } else { TimeoutState::Opening };
        match state {
            TimeoutState::Opening => Means::State(so_far),
            TimeoutState::Reset if !ours => Means::Nothing,
            _ if self.ends.iter().all(|end| end.fin) => Means::State(TimeoutState::Closing),
            _ => Means::State(so_far),
        }
    }

    /// Returns whether both ends have closed the connection and acknowledged all that the other has sent.
    pub fn is_closed(&self) -> bool {
        let [client, server] = &self.ends;
        let acknowledged = |own: &End, other: &End| own.fin && own.next.is_some() && other.acked == own.next;
        !self.lost && acknowledged(client, server) && acknowledged(server, client)
    }

    fn reset(&mut self, state: TimeoutState, from: Side, segment: &Segment) -> Means {
        let (exact, refuses) = (self.is_exact(state, from, segment), self.refuses(from, segment));
        if state == TimeoutState::Reset || self.lost || !(exact || refuses) {
            return Means::Nothing;
        }
        self.refused = !exact;
        self.reset_by = from;
        Means::State(TimeoutState::Reset)
    }

    /// Returns whether the other end accepts a reset (RFC 5961, 3.2; in SYN-SENT RFC 9293, 3.10.7.3).
    fn is_exact(&self, state: TimeoutState, from: Side, segment: &Segment) -> bool {
        let (own, other) = (self.ends[from as usize], self.ends[from.other() as usize]);
        let opening = state == TimeoutState::Opening && !self.adopted;
        let in_order = own.next == Some(segment.seq);
        if opening && from == Side::Client && other.acked.is_some() {
            return other.acked == Some(segment.seq);
        }
        if opening && segment.has(ACK) && other.next.is_some() {
            return other.next == Some(segment.ack) || in_order;
        }
        other.acked == Some(segment.seq) || in_order
    }

    /// Returns whether a server that does not know the open connection refuses another one that the client asked for
    /// (RFC 9293, 3.10.7.1). Only the low 16 bits of the number are kept.
    fn refuses(&self, from: Side, segment: &Segment) -> bool {
        let acks = |number: u32| segment.has(ACK) && number as u16 == segment.ack as u16;
        from == Side::Server && self.asked && self.doubted && self.open && self.asked_for.is_some_and(acks)
    }

    /// Returns whether a client's SYN is for a connection other than this one; not if it may be a late duplicate of this
    /// one's SYN (RFC 6191, 2).
    pub fn asks_for_another(&self, state: TimeoutState, segment: &Segment) -> bool {
        let Some(next) = self.ends[0].next else { return true };
        match state {
            TimeoutState::Opening => next != end(segment),
            _ => !(1..=NEAR).contains(&distance(segment.seq, next)),
        }
    }

    fn syn(&mut self, state: TimeoutState, from: Side, segment: &Segment) -> Means {
        let asks = from == Side::Client && !segment.has(ACK);
        if state == TimeoutState::Opening {
            return self.first_syn(from, segment);
        }
        let over = matches!(state, TimeoutState::Closing | TimeoutState::Reset);
        if asks && over && self.asks_for_another(state, segment) {
            return Means::New;
        }
        if from == Side::Server && segment.has(ACK) && self.asked {
            return self.answer_to_another(state, segment);
        }
        if asks {
            self.asked = true;
            self.asked_for = self.open.then(|| end(segment)).or(self.asked_for);
        }
        Means::Nothing
    }

    fn first_syn(&mut self, from: Side, segment: &Segment) -> Means {
        if self.is_the_servers() && from == Side::Client && !segment.has(ACK) {
            return Means::New;
        }
        if self.adopted && from == Side::Client && !segment.has(ACK) {
            *self = Tracker::default();
        }
        match from {
            Side::Client => self.ends[0].next = Some(end(segment)),
            Side::Server => self.servers_syn(segment),
        }
        if segment.has(ACK) {
            self.ends[from as usize].acked = Some(segment.ack);
        }
        let [client, server] = self.ends;
        let both = client.acked.is_some() && server.acked.is_some();
        if both && client.next.is_some() && client.acked == server.next && server.acked == client.next {
            self.open = true;
            return Means::State(TimeoutState::Established);
        }
        Means::State(TimeoutState::Opening)
    }

    fn servers_syn(&mut self, segment: &Segment) {
        let next = Some(segment.seq.wrapping_add(1));
        if self.ends[1].next != next {
            (self.ends[1].next, self.early) = (next, 0);
        }
        self.note_early(end(segment));
    }

    fn note_early(&mut self, end: u32) {
        let Some(next) = self.ends[1].next else { return };
        let early = distance(next, end);
        if (0..=NEAR).contains(&early) {
            self.early = self.early.max(early.min(MOST_EARLY));
        }
    }

    /// Handles a server's SYN-ACK after a client's new SYN; unless it repeats a known one, it belongs to a connection
    /// other than the one tracked here. While that one is open and was not silent before the SYN, its server may live and
    /// be unable to object.
    fn answer_to_another(&mut self, state: TimeoutState, segment: &Segment) -> Means {
        let open = state == TimeoutState::Established;
        let repeats = |known: Option<u32>, number| (0..=NEAR).contains(&distance(number, known.unwrap_or(0)));
        let known = repeats(self.ends[1].next, segment.seq) && repeats(self.ends[0].next, segment.ack);
        if open && (known || !self.doubted) {
            return Means::Nothing;
        }
        let client = End { next: Some(segment.ack), ..End::default() };
        let server = End { acked: Some(segment.ack), ..End::default() };
        // The side that reset the old connection is forgotten too.
        *self = Tracker { ends: [client, server], open, answered_anew: open, ..Tracker::default() };
        self.servers_syn(segment);
        if open { Means::Nothing } else { Means::State(TimeoutState::Opening) }
    }

    /// Learns the sequence numbers of ends whose SYN was never seen: first the client's, then the matching server's.
    fn begin_in_the_middle(&mut self, from: Side, segment: &Segment) {
        let (client, server) = (self.ends[0], self.ends[1]);
        let end = end(segment);
        match from {
            Side::Server if self.is_the_servers() => {
                self.ends[1].acked = Some(segment.ack).filter(|_| segment.has(ACK)).or(server.acked);
            }
            Side::Client if client.next.is_none() && server.next.is_none() => {
                self.adopted = true;
                self.ends[0].next = Some(end);
            }
            Side::Server if self.adopted && server.next.is_none() && segment.has(ACK) => {
                let acks = client.next.is_some_and(|next| near(next, segment.ack, NEAR));
                let reach = if acks { WINDOW } else { NEAR };
                if near(client.acked.unwrap_or(0), end, reach) {
                    self.ends[1].next = Some(end);
                }
            }
            _ => {}
        }
    }

    /// Completes the handshake at the client's first acknowledgement of the server's SYN, if it covers no more than
    /// what was sent.
    fn complete(&mut self, from: Side, segment: &Segment) {
        let (Some(client), Some(server)) = (self.ends[0].next, self.ends[1].next) else { return };
        if self.open || from == Side::Server || !segment.has(ACK) {
            return;
        }
        let acked = distance(server, segment.ack);
        let unknown = self.early == MOST_EARLY;
        if !(0..=if unknown { NEAR } else { self.early }).contains(&acked) {
            return;
        }
        self.ends[1].next = Some(server.wrapping_add(if unknown { acked } else { self.early } as u32));
        self.ends[0].acked = Some(segment.ack);
        if !near(client, end(segment), NEAR) {
            self.ends[0].next = Some(segment.seq);
        }
        (self.open, self.asked) = (true, false);
    }

    /// Records a segment's numbers; returns whether it can belong to this connection at all.
    fn learn(&mut self, state: TimeoutState, from: Side, segment: &Segment) -> bool {
        if !self.fits(from, segment) {
            return false;
        }
        let (side, end) = (from as usize, end(segment));
        let Some(next) = self.ends[side].next else { return false };
        self.ends[side].fin |= segment.has(FIN);
        let half_open = state == TimeoutState::Opening && !self.open;
        let adopted_client = self.adopted && from == Side::Client;
        if half_open && !adopted_client {
            if from == Side::Server {
                self.note_early(end);
            }
        } else if (1..=WINDOW).contains(&distance(next, end)) {
            self.ends[side].next = Some(end);
            if segment.len > 0 && !segment.has(FIN) {
                self.ends[side].fin = false;
            }
        }
        let guess = half_open && from == Side::Client && !self.adopted;
        let known = self.ends[side].acked;
        if segment.has(ACK) && !guess && known.is_none_or(|_| self.can_acknowledge(from, segment.ack, 0)) {
            self.ends[side].acked = Some(segment.ack);
        }
        true
    }

    fn fits(&self, from: Side, segment: &Segment) -> bool {
        let (own, other) = (self.ends[from as usize], self.ends[from.other() as usize]);
        let Some(away) = own.next.map(|next| distance(next, end(segment)).abs()) else { return false };
        let acks = segment.has(ACK) && other.next.is_some() && own.acked.is_some();
        away <= NEAR || (away <= WINDOW && acks && self.can_acknowledge(from, segment.ack, NEAR))
    }

    /// Returns whether an end can send this acknowledgement: at most `back` before its last one, and not far beyond
    /// what the other end has sent.
    fn can_acknowledge(&self, from: Side, ack: u32, back: i64) -> bool {
        let Some(acked) = self.ends[from as usize].acked else { return false };
        let next = self.ends[from.other() as usize].next;
        let sent = next.map_or(0, |next| distance(acked, next));
        let sent = if (0..=WINDOW).contains(&sent) { sent } else { 0 };
        (-back..=sent + NEAR).contains(&distance(acked, ack))
    }

    /// Forgets what is not kept of a half-open flow: an acknowledgement by the client of something other than the
    /// server's SYN, and that tracking began in the middle, after a SYN that was too big to be forwarded.
    pub fn forget(&mut self) {
        self.adopted = false;
        let syn = self.ends[1].next;
        self.ends[0].acked = self.ends[0].acked.filter(|acked| Some(*acked) == syn);
    }

    /// Returns the sequence numbers of the resets that end the connection towards `to`, most likely first, and their
    /// acknowledgement number.
    pub fn resets(&self, to: Side) -> (Vec<u32>, u32) {
        let (own, other) = (self.ends[to as usize], self.ends[to.other() as usize]);
        let mut numbers: Vec<u32> = own.acked.into_iter().chain(other.next).collect();
        numbers.dedup();
        if numbers.is_empty() && own.next.is_some() {
            numbers.push(0);
        }
        (numbers, own.next.unwrap_or(0))
    }

    /// Returns whether a segment sent at `seq` can still be in flight (RFC 5927, 4.1).
    pub fn is_under_way(&self, sender: Side, seq: u32) -> bool {
        let (own, other) = (self.ends[sender as usize], self.ends[sender.other() as usize]);
        let Some(next) = own.next.filter(|_| !self.lost) else { return true };
        match other.acked {
            Some(first) => seq.wrapping_sub(first) <= next.wrapping_sub(first),
            None => {
                let early = if sender == Side::Server && !self.open { self.early as u32 } else { 0 };
                next.wrapping_add(early).wrapping_sub(seq) <= u32::MAX / 4
            }
        }
    }
}
