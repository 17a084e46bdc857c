//! The TCP tracker: from segments to timeout classes. It informs, it never forbids a packet.
//!
//! States follow RFC 7857, 2 with the timers of RFC 5382; resets are believed only at the exact
//! sequence number (RFC 5961, 3.2), and even then the flow lives on for a grace that data revives.

use super::settings::Class;
use crate::packet::{Side, TcpFlags};

/// What a segment said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Flags.
    pub flags: TcpFlags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of payload.
    pub len: u32,
}

/// What a segment means for its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The flow goes on in this class, and its timeout starts anew.
    Refresh(Class),
    /// The segment passes, but proves nothing: the timeout runs on.
    Pass,
    /// A client's SYN on a flow that is over: a new connection (RFC 9293, 3.10.7.4; RFC 6191).
    Reopen,
}

/// What is known of both ends: 16 bytes of numbers and a byte of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ends {
    /// The sequence number after the last that the client, and the server, sent.
    next: [u32; 2],
    /// The last acknowledgement that the client, and the server, sent.
    acked: [u32; 2],
    seen: u8,
}

/// How far a segment may lie ahead of what was seen: more is a stray and teaches nothing.
const AHEAD: u32 = 2 << 20;

const fn syn(side: usize) -> u8 {
    1 << side
}
const fn fin(side: usize) -> u8 {
    4 << side
}
const fn has_acked(side: usize) -> u8 {
    16 << side
}
/// Met in the middle of its connection: no SYN was seen, and `syn` says whose numbers are known.
const ADOPTED: u8 = 64;

/// Whether `b` lies behind `a` by 1 to [`AHEAD`], modulo 2^32.
const fn advances(a: u32, b: u32) -> bool {
    let gap = b.wrapping_sub(a);
    gap != 0 && gap <= AHEAD
}

impl Ends {
    /// Whether the flow began without a SYN.
    pub fn is_adopted(&self) -> bool {
        self.seen & ADOPTED != 0
    }

    /// Takes in a segment of a flow in `class`.
    pub fn step(&mut self, class: Class, from: Side, segment: &Segment) -> Step {
        let side = from as usize;
        if segment.flags.rst() {
            // RFC 6146, 3.5.2.2: of two resets the second shortens nothing and refreshes nothing.
            let believed = class != Class::Reset && self.reset_is_exact(class, side, segment);
            return if believed { Step::Refresh(Class::Reset) } else { Step::Pass };
        }
        if segment.flags.syn() {
            return self.on_syn(class, side, segment);
        }
        if class == Class::Opening {
            self.adopt(side, segment);
        }
        let fresh = self.learn(class, side, segment);
        match class {
            Class::Opening if self.opens(side, segment) => {
                self.next[1] = segment.ack;
                Step::Refresh(Class::Established)
            }
            Class::Opening => Step::Refresh(Class::Opening),
            // RFC 7857, 2.2: traffic after a reset shows that the ends did not believe it.
            Class::Reset if !fresh => Step::Pass,
            _ if self.seen & (fin(0) | fin(1)) == fin(0) | fin(1) => Step::Refresh(Class::Closing),
            Class::Reset if self.seen & (syn(0) | syn(1)) != syn(0) | syn(1) => Step::Refresh(Class::Opening),
            _ => Step::Refresh(Class::Established),
        }
    }

    /// The sequence numbers at which an end is likely to believe a reset (RFC 5961, 3.2: only the very next it expects),
    /// likeliest first, and the acknowledgement that makes it one in SYN-SENT too (RFC 9293, 3.10.7.3).
    pub fn reset_towards(&self, to: Side) -> ([Option<u32>; 2], u32) {
        let (own, other) = (to as usize, to.other() as usize);
        let acked = (self.seen & has_acked(own) != 0).then_some(self.acked[own]);
        let next = (self.seen & syn(other) != 0).then_some(self.next[other]);
        let next = next.filter(|next| acked != Some(*next));
        // In SYN-SENT the acknowledgement alone counts.
        let any = (self.seen & syn(own) != 0).then_some(0);
        ([acked.or(next).or(any), acked.and(next)], self.next[own])
    }

    /// Whether a segment that `sender` sent at `seq` can still be under way: sent, and not acknowledged (RFC 5927, 4.1).
    /// What is not known of either end rules nothing out.
    pub fn is_under_way(&self, sender: Side, seq: u32) -> bool {
        let (own, other) = (sender as usize, sender.other() as usize);
        if self.seen & syn(own) == 0 {
            return true;
        }
        let next = self.next[own];
        if self.seen & has_acked(other) == 0 {
            // The SYN itself stands one before `next` while the flow opens.
            return next.wrapping_sub(seq) <= u32::MAX / 4;
        }
        let first = self.acked[other];
        seq.wrapping_sub(first) <= next.wrapping_sub(first)
    }

    /// Takes the numbers of an end that shows none of its SYN: of a flow that begins with a client's segment. The server's count
    /// only where they lie near what the client has acknowledged.
    fn adopt(&mut self, side: usize, segment: &Segment) {
        let end = segment.seq.wrapping_add(segment.len).wrapping_add(u32::from(segment.flags.fin()));
        let first = self.seen == 0 && side == 0;
        let near = end.wrapping_sub(self.acked[0]).wrapping_add(AHEAD) <= 2 * AHEAD;
        let second = side == 1 && self.seen & (ADOPTED | syn(1)) == ADOPTED && segment.flags.ack() && near;
        if first || second {
            self.seen |= ADOPTED | syn(side);
            self.next[side] = end;
        }
    }

    fn on_syn(&mut self, class: Class, side: usize, segment: &Segment) -> Step {
        match class {
            Class::Closing | Class::Reset if side == 0 && !segment.flags.ack() => {
                // RFC 6191, 2: a number that the client has used is a late repetition of the old connection's SYN.
                let old = self.seen & syn(0) != 0 && advances(segment.seq, self.next[0]);
                if old { Step::Pass } else { Step::Reopen }
            }
            Class::Opening => {
                if self.seen & ADOPTED != 0 && side == 0 && !segment.flags.ack() {
                    *self = Ends::default();
                }
                self.seen |= syn(side);
                self.next[side] = segment.seq.wrapping_add(1);
                if segment.flags.ack() {
                    self.acked[side] = segment.ack;
                    self.seen |= has_acked(side);
                }
                Step::Refresh(Class::Opening)
            }
            // RFC 5961, 4: the end answers with a challenge ACK, which is what keeps the flow alive.
            _ => Step::Pass,
        }
    }

    /// Whether this is the client's acknowledgement of the server's SYN.
    fn opens(&self, side: usize, segment: &Segment) -> bool {
        let both = syn(0) | syn(1);
        side == 0 && segment.flags.ack() && self.seen & both == both && segment.ack.wrapping_sub(self.next[1]) <= AHEAD
    }

    /// Notes numbers that a segment of an open connection shows, and tells whether any could be of this connection.
    fn learn(&mut self, class: Class, side: usize, segment: &Segment) -> bool {
        let end = segment.seq.wrapping_add(segment.len).wrapping_add(u32::from(segment.flags.fin()));
        let near = end.wrapping_sub(self.next[side]).wrapping_add(AHEAD) <= 2 * AHEAD;
        if near && segment.flags.fin() {
            self.seen |= fin(side);
        }
        // While opening, `next` is the number behind the SYN: what the other end has to acknowledge.
        let open = class != Class::Opening || (self.seen & ADOPTED != 0 && side == 0);
        if open && advances(self.next[side], end) {
            self.next[side] = end;
        }
        if segment.flags.ack() && near {
            let known = self.seen & has_acked(side) != 0;
            if !known || advances(self.acked[side], segment.ack) {
                self.acked[side] = segment.ack;
                self.seen |= has_acked(side);
            }
        }
        near
    }

    /// Whether a reset stands at the number that its receiver expects next.
    fn reset_is_exact(&self, class: Class, side: usize, segment: &Segment) -> bool {
        let other = 1 - side;
        let adopted = self.seen & ADOPTED != 0;
        if class == Class::Opening && !adopted && segment.flags.ack() && self.seen & syn(other) != 0 {
            // RFC 9293, 3.10.7.3: in SYN-SENT a reset is believed if it acknowledges the SYN.
            return segment.ack == self.next[other] || (self.seen & syn(side) != 0 && segment.seq == self.next[side]);
        }
        let sent = self.seen & syn(side) != 0 || class != Class::Opening;
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

    /// Runs segments through a tracker and returns the class after each; `=` where a segment proved nothing.
    fn walk(segments: &[(Side, Segment)]) -> Vec<&'static str> {
        let (mut ends, mut class) = (Ends::default(), Class::Opening);
        let mut seen = Vec::new();
        for (from, segment) in segments {
            match ends.step(class, *from, segment) {
                Step::Refresh(to) => {
                    class = to;
                    seen.push(to.name());
                }
                Step::Pass => seen.push("="),
                Step::Reopen => seen.push("reopen"),
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
    fn syn_and_syn_ack_repeated_never_establish() {
        let (syn, answer) = ((C, seg("S", 100, 0, 0)), (S, seg("SA", 500, 101, 0)));
        assert_eq!(walk(&[syn, answer, syn, answer, answer, syn]), ["opening"; 6]);
    }

    #[test]
    fn an_ack_of_another_number_does_not_establish() {
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
    fn a_late_repetition_of_the_old_syn_does_not_reopen() {
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
            (S, 501, "reset"), // the client has acknowledged only this much
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
    fn what_is_acknowledged_or_was_never_sent_is_not_under_way() {
        let mut ends = Ends::default();
        let data = [(C, seg("A", 101, 501, 100)), (S, seg("A", 501, 151, 10))];
        for (from, segment) in open().iter().chain(&data[..]) {
            ends.step(if segment.flags.syn() { Class::Opening } else { Class::Established }, *from, segment);
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
        opening.step(Class::Opening, C, &seg("S", 100, 0, 0));
        assert!(opening.is_under_way(C, 100) && !opening.is_under_way(C, 5000));
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
    fn an_adopted_flow_establishes_only_by_the_clients_acknowledgement_of_the_server() {
        let (first, answer) = ((C, seg("A", 900, 5000, 10)), (S, seg("A", 5000, 910, 100)));
        assert_eq!(walk(&[first, first, first]), ["opening"; 3], "the client alone");
        assert_eq!(walk(&[first, answer, answer]), ["opening"; 3], "not acknowledged");
        assert_eq!(walk(&[first, answer, (C, seg("A", 910, 5099, 0))])[2], "opening", "an octet short");
        assert_eq!(walk(&[first, answer, (C, seg("A", 910, 5100, 0))])[2], "established");
        let far = (S, seg("A", 0x8000_0000, 910, 0));
        assert_eq!(walk(&[first, far, (C, seg("A", 910, 0x8000_0000, 0))])[2], "opening", "a stray of the server");
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
    fn numbers_wrap() {
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
    fn data_lost_before_the_gateway_does_not_deafen_the_tracker() {
        let jump = (C, seg("A", 101 + 100_000, 501, 1000));
        assert_eq!(after_open(&[jump, (C, seg("R", 101 + 101_000, 0, 0))]), ["established", "reset"]);
    }
}
