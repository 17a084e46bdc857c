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

/// How far a batch has come.
#[derive(Debug, Default)]
struct Course {
    handled: usize,
    /// When the last packet arrived, if any was handled.
    now: Instant,
    /// When the next timer is due, and what would have to change for another time.
    due: Option<Instant>,
    stamp: Option<u64>,
}

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
        let mut course = Course::default();
        for packets in batch.chunks_mut(STAGE) {
            // Few flows are in the cache anyway: reading ahead would only be more work.
            let goes_on = if self.shard.table().len() < WORTH_READING_AHEAD {
                self.handle_each(packets, &mut course, own, sink)
            } else {
                self.handle_ahead(packets, &mut course, own, sink)
            };
            if !goes_on {
                break;
            }
        }
        course.handled
    }

    /// Handles packets one after another; returns false if a timer precedes one.
    fn handle_each(
        &mut self,
        packets: &mut [Packet<'_>],
        course: &mut Course,
        own: &mut [u8],
        sink: &mut impl FnMut(Outcome<'_>),
    ) -> bool {
        for packet in packets {
            if self.a_timer_is_due(course, packet.at) {
                return false;
            }
            let verdict = match &mut parse(packet.bytes) {
                Ok(parsed) => self.handle(&mut Arrival::new(packet.at, packet.bytes, parsed, packet.meta)),
                Err(malformed) => self.drop_malformed(*malformed, packet.bytes),
            };
            self.pass_on(course, packet, verdict, own, sink);
        }
        true
    }

    /// Equals [`Engine::handle_each`], but parses all packets and reads what finding their flows will read before the
    /// first is decided.
    fn handle_ahead(
        &mut self,
        packets: &mut [Packet<'_>],
        course: &mut Course,
        own: &mut [u8],
        sink: &mut impl FnMut(Outcome<'_>),
    ) -> bool {
        let parse =
            |place| packets.get(place).map_or(Err(Malformed::TooShort), |packet: &Packet<'_>| parse(packet.bytes));
        let mut staged: [Result<Parsed, Malformed>; STAGE] = std::array::from_fn(parse);
        let hashes = self.read_ahead(&staged);
        for ((packet, parsed), hash) in packets.iter_mut().zip(&mut staged).zip(hashes) {
            if self.a_timer_is_due(course, packet.at) {
                return false;
            }
            let verdict = match parsed {
                Ok(parsed) => {
                    self.handle(&mut Arrival { hash, ..Arrival::new(packet.at, packet.bytes, parsed, packet.meta) })
                }
                Err(malformed) => self.drop_malformed(*malformed, packet.bytes),
            };
            self.pass_on(course, packet, verdict, own, sink);
        }
        true
    }

    /// Passes on what came of a packet, and then what the engine itself has to send.
    #[inline]
    fn pass_on(
        &mut self,
        course: &mut Course,
        packet: &Packet<'_>,
        verdict: Verdict,
        own: &mut [u8],
        sink: &mut impl FnMut(Outcome<'_>),
    ) {
        sink(Outcome::Packet { place: course.handled, verdict, bytes: packet.bytes });
        if self.has_own() {
            self.drain(packet.at, own, sink);
        }
        (course.handled, course.now) = (course.handled + 1, packet.at);
    }

    /// Returns whether a timer precedes a packet that arrives at this time; none precedes the first of a batch.
    #[inline]
    fn a_timer_is_due(&self, course: &mut Course, at: Instant) -> bool {
        if course.handled == 0 || course.now >= at {
            return false;
        }
        let stamp = self.timers_stamp();
        if course.stamp != Some(stamp) {
            (course.stamp, course.due) = (Some(stamp), self.poll_timeout());
        }
        course.due.is_some_and(|due| due <= at)
    }

    /// Returns a number that changes whenever the next timer may have: packets that are only rewritten leave it, unless
    /// they change the state of their flow.
    fn timers_stamp(&self) -> u64 {
        self.scratch.looks.wrapping_add(self.shard.table().placed())
    }

    /// Computes the hashes of packets' keys, and reads what finding their flows will read: the memory answers for all of
    /// them at once, instead of for one after another.
    fn read_ahead(&self, staged: &[Result<Parsed, Malformed>; STAGE]) -> [Option<u64>; STAGE] {
        let table = self.shard.table();
        let mut v6 = false;
        let hashes = staged.each_ref().map(|staged| {
            let parsed = staged.as_ref().ok()?;
            v6 |= parsed.addresses.is_v6();
            arrival::key_ref(parsed).map(|key| table.hash(key))
        });
        let of_all = |read: &dyn Fn(u64) -> u64| hashes.iter().flatten().fold(0, |all, hash| all ^ read(*hash));
        let mut read = of_all(&|hash| table.warm_index(hash)) ^ of_all(&|hash| table.warm_flow(hash));
        if v6 {
            read ^= of_all(&|hash| table.warm_addresses(hash));
        }
        std::hint::black_box(read);
        hashes
    }

    /// Returns whether the engine has packets of its own to send.
    #[inline]
    fn has_own(&self) -> bool {
        !self.shard.answers().is_empty() || self.monitors.has_packets()
    }

    #[inline(never)]
    fn drain(&mut self, now: Instant, own: &mut [u8], sink: &mut impl FnMut(Outcome<'_>)) {
        while let Some((len, meta)) = self.poll_transmit(now, own) {
            sink(Outcome::Own { bytes: &own[..len], meta });
        }
    }
}
