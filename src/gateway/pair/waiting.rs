//! Answers of servers to SYNs that wait until the peer knows of their connections: the packets, oldest first, each with its
//! header for the device.
//!
//! Which of them wait, and for how long, is [`crate::sync::Node`]'s to say. It must not know flows.

use super::super::tun::HEADER;
use crate::packet::{Transport, parse};
use std::collections::VecDeque;

/// Most bytes of packets that wait, their headers included: 4,096 answers have about 400 kB.
const MOST_BYTES: usize = 1 << 20;
/// Most bytes of one: such an answer carries a few options, and at most the data of one segment (RFC 7413).
const LONGEST: usize = 2048;

/// Packets that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lens: VecDeque<usize>,
    bytes: VecDeque<u8>,
    /// The packet that was released last.
    released: Vec<u8>,
}

impl Waiting {
    /// Returns whether there is room for a packet.
    pub(super) fn has_room(&self, packet: &[u8]) -> bool {
        packet.len() <= LONGEST && self.bytes.len() + HEADER + packet.len() <= MOST_BYTES
    }

    /// Keeps a packet with its header.
    pub(super) fn keep(&mut self, header: &[u8], packet: &[u8]) {
        self.lens.push_back(header.len() + packet.len());
        self.bytes.extend(header);
        self.bytes.extend(packet);
    }

    /// Takes the oldest packet: its header, and the packet.
    pub(super) fn take(&mut self) -> Option<(&[u8], &[u8])> {
        let len = self.lens.pop_front()?;
        self.released.clear();
        self.released.extend(self.bytes.drain(..len));
        Some(self.released.split_at(HEADER))
    }
}

/// Returns whether a packet has the flags SYN and ACK.
pub(super) fn answers_a_syn(packet: &[u8]) -> bool {
    matches!(parse(packet), Ok(parsed) if matches!(parsed.transport, Transport::Tcp { flags, .. } if flags.syn() && flags.ack()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    #[test]
    fn packets_come_back_in_order_with_their_headers_and_there_is_an_end_of_room() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.take(), None);
        for n in 1..=3_u8 {
            waiting.keep(&[n; HEADER], &vec![n; 40 + usize::from(n)]);
        }
        for n in 1..=3_u8 {
            assert_eq!(waiting.take(), Some((&[n; HEADER][..], &vec![n; 40 + usize::from(n)][..])));
        }
        assert_eq!(waiting.take(), None);
        assert!(waiting.bytes.is_empty());
        assert!(!waiting.has_room(&[0; LONGEST + 1]));
        let packet = [0; LONGEST];
        let mut kept = 0;
        while waiting.has_room(&packet) {
            waiting.keep(&[0; HEADER], &packet);
            kept += 1;
        }
        assert_eq!(kept, MOST_BYTES / (HEADER + LONGEST));
        waiting.take();
        assert!(waiting.has_room(&packet));
    }

    #[test]
    fn only_answers_to_a_syn_may_wait() {
        let tcp = || PacketBuilder::ipv4([10, 0, 0, 1], [198, 51, 100, 1], 64).tcp(80, 5000, 7, 1000);
        let bytes = |builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>| {
            let mut out = Vec::new();
            builder.write(&mut out, &[]).unwrap();
            out
        };
        assert!(answers_a_syn(&bytes(tcp().syn().ack(8))));
        assert!(!answers_a_syn(&bytes(tcp().ack(8))) && !answers_a_syn(&bytes(tcp().syn())));
        assert!(!answers_a_syn(&bytes(tcp().rst().ack(8))) && !answers_a_syn(&[0; 3]));
    }
}
