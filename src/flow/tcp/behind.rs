//! Numbers of an earlier time, and how they are learned anew.

use super::{ADOPTED, AHEAD, ASKED, BEHIND, Ends, IN_FLIGHT, OPENED, Segment, fin, has_acked, syn, within};

impl Ends {
    /// Records that segments may have passed since these numbers were learned.
    pub(in crate::flow) fn fall_behind(&mut self) {
        match self.seen & (OPENED | ADOPTED) {
            // Its adoption begins anew.
            ADOPTED => *self = Ends::default(),
            0 => {}
            _ => self.seen |= BEHIND,
        }
    }

    /// Returns whether only the last segment of one end is known, which anybody can have sent.
    #[inline]
    pub(super) fn is_catching_up(&self) -> bool {
        self.seen & BEHIND != 0 && self.seen & (syn(0) | syn(1)) != syn(0) | syn(1)
    }

    /// Learns from a segment while the numbers may be behind; returns whether they are those of both ends after it. They
    /// are if the segment fits them, or the last one of the other end: each acknowledges what is near the other's number.
    /// A stray that nobody answers is forgotten with the next segment.
    #[cold]
    pub(super) fn catch_up(&mut self, side: usize, segment: &Segment) -> bool {
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
}
