//! The gateway's own outgoing packets: a bounded queue, and limits on resets and ICMP errors.

use super::super::step::For;
use crate::bucket::Bucket;
use crate::packet::Meta;
use crate::time::Instant;
use std::collections::VecDeque;

/// Maximum number of queued packets.
const MOST_PACKETS: usize = 256;
/// Maximum number of queued bytes.
const MOST_BYTES: usize = 1 << 20;

/// The queue and the limits.
#[derive(Debug)]
pub(in crate::engine) struct Answers {
    waiting: VecDeque<(Vec<u8>, Meta)>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
    /// By [`For`]: the connections of peers depend on the packet sizes reported to them, and those that were forgotten
    /// end soon only if their ends hear of it.
    buckets: [Bucket; 3],
    per_second: u32,
}

impl Answers {
    /// Limits resets and ICMP errors to `per_second` per second, and as many at once after a quiet second (RFC 1812,
    /// 4.3.2.8; RFC 4443, 2.4 f), to strangers, to peers and about forgotten connections separately.
    pub(in crate::engine) fn new(per_second: u32) -> Self {
        Answers {
            waiting: VecDeque::with_capacity(MOST_PACKETS),
            spare: Vec::with_capacity(MOST_PACKETS),
            bytes: 0,
            buckets: [Bucket::default(); 3],
            per_second,
        }
    }

    /// Changes the limit.
    pub(in crate::engine) fn limit(&mut self, per_second: u32) {
        self.per_second = per_second;
    }

    /// Returns whether a limit admits another answer.
    pub(in crate::engine) fn allows(&self, now: Instant, whom: For) -> bool {
        self.buckets[whom as usize].take(now, self.per_second, 0).is_some()
    }

    /// Counts an answer against its limit, which must admit it.
    pub(in crate::engine) fn charge(&mut self, now: Instant, whom: For) {
        let taken = self.buckets[whom as usize].take(now, self.per_second, 0);
        debug_assert!(taken.is_some(), "an answer exceeds its limit");
        self.buckets[whom as usize] = taken.unwrap_or(self.buckets[whom as usize]);
    }

    /// Returns whether there is room for a packet of this length.
    pub(in crate::engine) fn has_room(&self, len: usize) -> bool {
        self.waiting.len() < MOST_PACKETS && self.bytes + len <= MOST_BYTES
    }

    /// Returns how many small packets there is room for.
    pub(in crate::engine) fn room_for_packets(&self) -> usize {
        MOST_PACKETS - self.waiting.len()
    }

    /// Queues a copy of a packet with its metadata for the device; returns false if there is no room.
    pub(in crate::engine) fn send(&mut self, packet: &[u8], meta: Meta) -> bool {
        if !self.has_room(packet.len()) {
            return false;
        }
        let mut own = self.spare.pop().unwrap_or_default();
        own.extend_from_slice(packet);
        self.bytes += own.len();
        self.waiting.push_back((own, meta));
        true
    }

    /// Returns whether no packet waits.
    #[inline]
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Copies the next packet into `buf`; one that does not fit is discarded.
    pub(in crate::engine) fn pop(&mut self, buf: &mut [u8]) -> Option<(usize, Meta)> {
        loop {
            let (mut answer, meta) = self.waiting.pop_front()?;
            let len = answer.len();
            self.bytes -= len;
            let fits = buf.get_mut(..len).map(|room| room.copy_from_slice(&answer));
            answer.clear();
            self.spare.push(answer);
            if fits.is_some() {
                return Some((len, meta));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_use_up_the_limits_of_others() {
        let mut answers = Answers::new(2);
        let mut ask = |whom| {
            let allowed = answers.allows(Instant::ZERO, whom);
            if allowed {
                answers.charge(Instant::ZERO, whom);
            }
            allowed
        };
        for whom in [For::Strangers, For::Peers, For::Forgotten] {
            assert_eq!([(); 3].map(|()| ask(whom)), [true, true, false]);
        }
    }

    #[test]
    fn the_queue_is_bounded_and_keeps_packets_in_order() {
        let mut answers = Answers::new(1);
        for n in 0..=u8::MAX {
            assert!(answers.send(&[n; 3], Meta::default()));
        }
        assert!(!answers.send(&[0], Meta::default()) && answers.room_for_packets() == 0);
        let mut buf = [0; 8];
        assert_eq!((answers.pop(&mut buf[..2]), answers.pop(&mut buf[..0])), (None, None), "none fit");
        assert!(answers.has_room(MOST_BYTES) && !answers.has_room(MOST_BYTES + 1));
        assert!(answers.send(&[7; 5], Meta::default()));
        assert_eq!((answers.pop(&mut buf), buf[4]), (Some((5, Meta::default())), 7));
    }
}
