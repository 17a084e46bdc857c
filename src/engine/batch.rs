//! Batches of packets: parsed one stage at a time, each packet decided and carried out before the next.
//!
//! It must not keep a slot of the table from one stage to another: earlier packets may move or end any flow.

use super::arrival::Arrival;
use super::{Engine, Verdict};
use crate::packet::{Meta, parse};
use crate::time::Instant;

/// A packet for [`Engine::handle_batch`].
#[derive(Debug)]
pub struct Packet<'p> {
    /// Arrival time; not before that of the previous packet.
    pub at: Instant,
    /// Its bytes, followed by padding.
    pub bytes: &'p mut [u8],
    /// The metadata from the device.
    pub meta: Meta,
}

/// The output of [`Engine::handle_batch`], in order.
#[derive(Debug)]
pub enum Outcome<'p> {
    /// The verdict on a packet, by its index in the batch; if it is forwarded, `bytes` begins with it.
    Packet {
        /// Its index in the batch.
        place: usize,
        /// Its verdict.
        verdict: Verdict,
        /// Its bytes after handling.
        bytes: &'p [u8],
    },
    /// A packet from the engine itself, to be sent.
    Own {
        /// The packet.
        bytes: &'p [u8],
        /// The metadata for the device.
        meta: Meta,
    },
}

/// Packets of a batch that are parsed before the first of them is decided.
const STAGE: usize = 32;
/// Length of the longest packet in bytes.
const LONGEST: usize = 65_535;

impl Engine {
    /// Handles packets in order, passes each outcome to `sink` before the next packet is decided, and returns how many
    /// were handled: all of them, or those before the first packet that a timer precedes.
    ///
    /// It is equivalent to [`Engine::handle_packet`] and [`Engine::poll_transmit`] for each packet: how packets are
    /// divided into batches makes no difference.
    pub fn handle_batch(&mut self, batch: &mut [Packet<'_>], mut sink: impl FnMut(Outcome<'_>)) -> usize {
        let (mut own, mut handled, mut now) = (Vec::new(), 0, None);
        for packets in batch.chunks_mut(STAGE) {
            // Parsing keeps no slot of the table: earlier packets may move or end any flow.
            let mut staged = [const { None }; STAGE];
            for (packet, staged) in packets.iter_mut().zip(&mut staged) {
                *staged = Some(parse(packet.bytes));
            }
            for (packet, parsed) in packets.iter_mut().zip(staged.iter_mut().flatten()) {
                let at = packet.at;
                let later = now.is_some_and(|now| now < at);
                if later && self.poll_timeout().is_some_and(|due| due <= at) {
                    return handled;
                }
                let place = handled;
                let verdict = match parsed {
                    Ok(parsed) => self.handle(&mut Arrival::new(at, packet.bytes, parsed, packet.meta)),
                    Err(malformed) => self.drop_malformed(*malformed, packet.bytes),
                };
                sink(Outcome::Packet { place, verdict, bytes: packet.bytes });
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
