//! Batches of packets: parsed one stage at a time, each packet decided and carried out before the next.
//!
//! It must not keep a slot of the table from one stage to another: earlier packets may move or end any flow.

use super::arrival::{self, Arrival};
use super::{Engine, Verdict};
use crate::packet::{Malformed, Meta, Parsed, parse};
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
/// Flows from which on the table does not fit into the cache next to the processor.
const WORTH_READING_AHEAD: u32 = 4096;
/// Length of the longest packet in bytes.
const LONGEST: usize = 65_535;

impl Engine {
    /// Handles packets in order, passes each outcome to `sink` before the next packet is decided, and returns how many
    /// were handled: all of them, or those before the first packet that a timer precedes.
    ///
    /// It is equivalent to [`Engine::handle_packet`] and [`Engine::poll_transmit`] for each packet: how packets are
    /// divided into batches makes no difference.
    pub fn handle_batch(&mut self, batch: &mut [Packet<'_>], mut sink: impl FnMut(Outcome<'_>)) -> usize {
        let mut own = std::mem::take(&mut self.scratch.own);
        own.resize(LONGEST, 0);
        let handled = self.handle_staged(batch, &mut own, &mut sink);
        self.scratch.own = own;
        handled
    }

    fn handle_staged(&mut self, batch: &mut [Packet<'_>], own: &mut [u8], sink: &mut impl FnMut(Outcome<'_>)) -> usize {
        let (mut handled, mut now) = (0, None);
        // When the next timer is due, and what would have to change for another time.
        let mut timer: Option<(u64, Option<Instant>)> = None;
        for packets in batch.chunks_mut(STAGE) {
            let mut staged = [const { None }; STAGE];
            for (packet, staged) in packets.iter_mut().zip(&mut staged) {
                *staged = Some(parse(packet.bytes));
            }
            let hashes = self.read_ahead(&staged);
            for ((packet, parsed), hash) in packets.iter_mut().zip(staged.iter_mut().flatten()).zip(hashes) {
                let at = packet.at;
                if now.is_some_and(|now| now < at) {
                    let stamp = self.timers_stamp();
                    let known = timer.filter(|(of, _)| *of == stamp).map(|(_, due)| due);
                    let due = known.unwrap_or_else(|| self.poll_timeout());
                    if due.is_some_and(|due| due <= at) {
                        return handled;
                    }
                    timer = Some((stamp, due));
                }
                let place = handled;
                let verdict = match parsed {
                    Ok(parsed) => {
                        self.handle(&mut Arrival { hash, ..Arrival::new(at, packet.bytes, parsed, packet.meta) })
                    }
                    Err(malformed) => self.drop_malformed(*malformed, packet.bytes),
                };
                sink(Outcome::Packet { place, verdict, bytes: packet.bytes });
                self.drain(at, own, sink);
                (handled, now) = (handled + 1, Some(at));
            }
        }
        handled
    }

    /// Returns a number that changes whenever the next timer may have: packets that are only rewritten leave it, unless
    /// they change the state of their flow.
    fn timers_stamp(&self) -> u64 {
        self.scratch.looks.wrapping_add(self.shard.table().placed())
    }

    /// Computes the hashes of packets' keys, and reads what finding their flows will read: the memory answers for all of
    /// them at once, instead of for one after another.
    fn read_ahead(&self, staged: &[Option<Result<Parsed, Malformed>>; STAGE]) -> [Option<u64>; STAGE] {
        let mut hashes = [None; STAGE];
        let table = self.shard.table();
        let mut v6 = false;
        for (staged, hash) in staged.iter().zip(&mut hashes) {
            let Some(Ok(parsed)) = staged else { continue };
            let key = arrival::key(parsed);
            v6 |= parsed.addresses.is_v6();
            *hash = key.map(|key| table.hash(&key));
        }
        if table.len() < WORTH_READING_AHEAD {
            return hashes;
        }
        let of_all = |read: &dyn Fn(u64) -> u64| hashes.iter().flatten().fold(0, |all, hash| all ^ read(*hash));
        let mut read = of_all(&|hash| table.warm_index(hash)) ^ of_all(&|hash| table.warm_flow(hash));
        if v6 {
            read ^= of_all(&|hash| table.warm_addresses(hash));
        }
        std::hint::black_box(read);
        hashes
    }

    fn drain(&mut self, now: Instant, own: &mut [u8], sink: &mut impl FnMut(Outcome<'_>)) {
        while let Some((len, meta)) = self.poll_transmit(now, own) {
            sink(Outcome::Own { bytes: &own[..len], meta });
        }
    }
}
