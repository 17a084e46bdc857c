//! Packets in batches: parsed a stage at a time, each decided about and carried out before the next.
//!
//! It must not keep a slot of the table from one stage to another: the packets before may move or end any flow.

use super::arrival::Arrival;
use super::{Engine, Verdict};
use crate::packet::Meta;
use crate::time::Instant;

/// A packet for [`Engine::handle_batch`].
#[derive(Debug)]
pub struct Packet<'p> {
    /// When it came; not before the packet before it.
    pub at: Instant,
    /// Its bytes, and padding behind them.
    pub bytes: &'p mut [u8],
    /// What the device knows of it.
    pub meta: Meta,
}

/// What leaves [`Engine::handle_batch`], in its order.
#[derive(Debug)]
pub enum Outcome<'p> {
    /// What became of a packet, by its place in the batch; where it is forwarded, `bytes` begins with it.
    Packet {
        /// Its place in the batch.
        place: usize,
        /// What became of it.
        verdict: Verdict,
        /// Its bytes as they are now.
        bytes: &'p [u8],
    },
    /// A packet of the engine's own, to be sent.
    Own {
        /// The packet.
        bytes: &'p [u8],
        /// What the device is told of it.
        meta: Meta,
    },
}

/// Packets of a batch that are parsed before the first of them is decided about.
const STAGE: usize = 32;
/// Bytes of the longest packet.
const LONGEST: usize = 65_535;

impl Engine {
    /// Handles packets in their order, gives what becomes of each to `sink` before the next is decided about, and returns
    /// how many it has handled: all, or those before the first one that a timer is due before.
    ///
    /// It is the same as [`Engine::handle_packet`] and [`Engine::poll_transmit`] for each of them: how packets are
    /// divided into batches makes no difference.
    pub fn handle_batch(&mut self, batch: &mut [Packet<'_>], mut sink: impl FnMut(Outcome<'_>)) -> usize {
        let (mut own, mut handled, mut now) = (Vec::new(), 0, None);
        for packets in batch.chunks_mut(STAGE) {
            // Parsing keeps no slot of the table: the packets before may move or end any flow.
            let mut staged = [const { None }; STAGE];
            for (packet, staged) in packets.iter_mut().zip(&mut staged) {
                *staged = Some((packet.at, Arrival::new(packet.at, packet.bytes, packet.meta)));
            }
            for (at, arrival) in staged.into_iter().flatten() {
                let later = now.is_some_and(|now| now < at);
                if later && self.poll_timeout().is_some_and(|due| due <= at) {
                    return handled;
                }
                let place = handled;
                match arrival {
                    Ok(mut arrival) => {
                        let verdict = self.handle(&mut arrival);
                        sink(Outcome::Packet { place, verdict, bytes: arrival.bytes });
                    }
                    Err((malformed, bytes)) => {
                        let verdict = self.drop_malformed(malformed, bytes);
                        sink(Outcome::Packet { place, verdict, bytes });
                    }
                }
                self.drain(at, &mut own, &mut sink);
                (handled, now) = (handled + 1, Some(at));
            }
        }
        handled
    }

    fn drain(&mut self, now: Instant, own: &mut Vec<u8>, sink: &mut impl FnMut(Outcome<'_>)) {
        own.resize(LONGEST, 0);
        while let Some((len, meta)) = self.poll_transmit(now, own) {
            sink(Outcome::Own { bytes: &own[..len], meta });
        }
    }
}
