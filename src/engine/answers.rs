//! The engine's own packets on their way out: a bounded queue, and a limit on resets.

use super::reason::Reason;
use super::verdict::{Consumed, Verdict};
use crate::packet::{Addresses, Meta, Parsed, build, rewrite};
use crate::time::Instant;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Most packets that wait.
const MOST_PACKETS: usize = 256;
/// Most bytes that wait.
const MOST_BYTES: usize = 1 << 20;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Whose answers a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Who has shown nothing yet, and may not be who it says.
    Strangers,
    /// The ends of flows in which both have sent.
    Peers,
}

#[derive(Debug)]
pub(super) struct Answers {
    waiting: VecDeque<(Vec<u8>, Meta)>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
    /// When the buckets of answers would be full, at most a second ahead of the present: that of strangers, and that of
    /// peers, whose connections depend on what they are told of their packets' size.
    due: [Instant; 2],
    /// Nanoseconds that an answer takes up.
    each: u64,
}

impl Answers {
    /// At most `per_second` resets and ICMP errors a second, and as many at once after a quiet second
    /// (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f) to strangers, and as many to peers.
    pub fn new(per_second: u32) -> Self {
        Answers {
            waiting: VecDeque::with_capacity(MOST_PACKETS),
            spare: Vec::with_capacity(MOST_PACKETS),
            bytes: 0,
            due: [Instant::ZERO; 2],
            each: NANOS_PER_SECOND / u64::from(per_second.max(1)),
        }
    }

    /// Answers an echo request whose sum is known to be right, or partial.
    pub fn echo(&mut self, packet: &[u8], parsed: &Parsed, meta: Meta) -> Verdict {
        let Some(mut answer) = self.room(parsed.len) else { return Verdict::Drop(Reason::AnswerQueueFull) };
        answer.extend_from_slice(&packet[..parsed.len]);
        rewrite::echo_reply(&mut answer, parsed);
        if meta.partial_checksum {
            build::complete_icmp_sum(&mut answer, parsed);
        }
        self.push(answer, Meta::default());
        Verdict::Consume(Consumed::Echo)
    }

    /// Answers a TCP packet of no flow with a reset, within the limit.
    pub fn reset(&mut self, now: Instant, parsed: &Parsed) -> Verdict {
        let mut packet = [0; build::MOST];
        let Some(len) = build::reset(&mut packet, parsed) else { return Verdict::Drop(Reason::TcpNoFlow) };
        let Some(due) = self.due(now, For::Strangers) else { return Verdict::Drop(Reason::TcpNoFlow) };
        if !self.send(&packet[..len]) {
            return Verdict::Drop(Reason::AnswerQueueFull);
        }
        self.due[For::Strangers as usize] = due;
        Verdict::Consume(Consumed::Reset)
    }

    /// Answers a packet with the ICMP error that says why it does not go on, within the limit.
    pub fn error(
        &mut self,
        now: Instant,
        packet: &[u8],
        parsed: &Parsed,
        why: build::Error,
        whom: For,
    ) -> Result<(), Reason> {
        let due = self.due(now, whom).ok_or(Reason::AnswerLimit)?;
        let mut answer = self.room(1280).ok_or(Reason::AnswerQueueFull)?;
        if build::error(&mut answer, packet, parsed, why).is_none() {
            self.spare.push(answer);
            return Err(Reason::AnswerLimit);
        }
        self.due[whom as usize] = due;
        self.push(answer, Meta::default());
        Ok(())
    }

    /// Sends a packet of the engine's own; false where there is no room.
    pub fn send(&mut self, packet: &[u8]) -> bool {
        self.send_with(packet, Meta::default())
    }

    /// The same, of a packet with what the device is to know of it.
    pub fn send_with(&mut self, packet: &[u8], meta: Meta) -> bool {
        let Some(mut own) = self.room(packet.len()) else { return false };
        own.extend_from_slice(packet);
        self.push(own, meta);
        true
    }

    /// How many small packets there is room for.
    pub fn room_for_packets(&self) -> usize {
        MOST_PACKETS - self.waiting.len()
    }

    /// When a bucket would be full after one more answer; none where that is too far ahead.
    fn due(&self, now: Instant, whom: For) -> Option<Instant> {
        let due = self.due[whom as usize].max(now).as_nanos();
        (due - now.as_nanos() <= NANOS_PER_SECOND - self.each)
            .then(|| Instant::from_nanos(due.saturating_add(self.each)))
    }

    fn room(&mut self, len: usize) -> Option<Vec<u8>> {
        if self.waiting.len() >= MOST_PACKETS || self.bytes + len > MOST_BYTES {
            return None;
        }
        Some(self.spare.pop().unwrap_or_default())
    }

    fn push(&mut self, answer: Vec<u8>, meta: Meta) {
        self.bytes += answer.len();
        self.waiting.push_back((answer, meta));
    }

    /// Copies the next packet into `buf`; one that does not fit is thrown away.
    pub fn pop(&mut self, buf: &mut [u8]) -> Option<(usize, Meta)> {
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

/// Whether an answer to this packet's source could reach it (RFC 1122, 3.2.1.3; RFC 4291, 2.5.2 and 2.7).
pub(super) fn can_be_answered(addresses: &Addresses) -> bool {
    let src = addresses.src();
    let odd = match src {
        // 0.0.0.0/8 is "this network", 240.0.0.0/4 is reserved and holds the broadcast address.
        IpAddr::V4(src) => src.octets()[0] == 0 || src.octets()[0] >= 224,
        IpAddr::V6(src) => src.is_unspecified() || src.is_multicast(),
    };
    !odd && !src.is_loopback() && src != addresses.dst()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_take_nothing_from_what_peers_are_told() {
        let mut answers = Answers::new(2);
        let packet = crate::engine::testing::bytes(crate::engine::testing::tcp([1; 4], 1, [2; 4], 2, 3).syn(), b"");
        let parsed = crate::packet::parse(&packet).expect("a packet");
        let mut ask = |whom| answers.error(Instant::ZERO, &packet, &parsed, build::Error::TooBig(1400), whom);
        for whom in [For::Strangers, For::Peers] {
            assert_eq!([(); 3].map(|()| ask(whom)), [Ok(()), Ok(()), Err(Reason::AnswerLimit)]);
        }
    }

    #[test]
    fn at_the_end_of_time_the_limit_does_not_overflow() {
        let mut answers = Answers::new(10);
        for _ in 0..20 {
            if let Some(due) = answers.due(Instant::FAR, For::Peers) {
                answers.due[For::Peers as usize] = due;
            }
        }
        assert_eq!(answers.due(Instant::from_nanos(u64::MAX - 1), For::Peers), Some(Instant::from_nanos(u64::MAX)));
    }
}
