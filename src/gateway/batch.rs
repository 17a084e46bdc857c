//! Packets in batches: a few are read, then the engine handles them in order, and each goes out before the next is
//! decided.
//!
//! Reading, deciding and writing in turn for every packet costs more: the engine cannot read ahead in its table, and each
//! of the three displaces the others' code and data from the processor's caches.

use super::output::Output;
use super::pair::Pair;
use super::queues::Queues;
use super::tun::{self, Frame, HEADER, MOST};
use crate::engine::{Engine, Forwarded, Outcome, Packet, Verdict};
use crate::flow::Table;
use crate::ids::FlowId;
use crate::packet::{Meta, Side};
use crate::time::Instant;
use std::array;
use std::io;

/// Most packets of a batch: as many as the engine reads ahead for.
pub(super) const MOST_PACKETS: usize = 32;
/// A larger packet ends its batch: a super-packet, whose copying costs more than a batch saves.
const LARGE: usize = 8 * 1024;

/// Room for a batch: 2 MiB of address space, of which the system commits what is used.
#[derive(Debug)]
pub(super) struct Batch {
    frames: Box<[Frame]>,
    lens: [usize; MOST_PACKETS],
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch { frames: vec![[0; HEADER + MOST]; MOST_PACKETS].into(), lens: [0; MOST_PACKETS] }
    }

    /// Reads packets, and returns how many, and whether there may be more.
    ///
    /// What was read before an error is lost: the device is gone then.
    pub(super) fn read(&mut self, queues: &mut Queues) -> io::Result<(usize, bool)> {
        for (read, (frame, len)) in self.frames.iter_mut().zip(&mut self.lens).enumerate() {
            match queues.read(frame)? {
                Some(bytes) => *len = bytes,
                None => return Ok((read, false)),
            }
            if *len > LARGE {
                return Ok((read + 1, true));
            }
        }
        Ok((MOST_PACKETS, true))
    }

    /// Returns the first `read` packets as they were read.
    pub(super) fn packets(&self, read: usize) -> impl Iterator<Item = &[u8]> {
        let all = self.frames.iter().zip(self.lens).take(read);
        all.map(|(frame, len)| &frame[HEADER..][..len])
    }

    /// Lets the engine handle the first `read` packets, and writes what becomes of them, but for answers that have to wait for
    /// the other gateway of a pair.
    pub(super) fn handle(
        &mut self,
        read: usize,
        (engine, mut pair): (&mut Engine, Option<&mut Pair>),
        now: Instant,
        out: &mut Output,
        to: &Queues,
    ) {
        let mut headers: [&[u8]; MOST_PACKETS] = [&[]; MOST_PACKETS];
        let mut packets =
            array::from_fn::<_, MOST_PACKETS, _>(|_| Packet { at: now, bytes: &mut [], meta: Meta::default() });
        let mut valid = 0;
        for (frame, len) in self.frames.iter_mut().zip(self.lens).take(read) {
            let (header, packet) = frame.split_at_mut(HEADER);
            let bytes = &mut packet[..len];
            if let Some(meta) = out.count_read(header, bytes) {
                headers[valid] = header;
                packets[valid] = Packet { at: now, bytes, meta };
                valid += 1;
            }
        }
        let mut waits = |flow: Option<FlowId>, header: &[u8], packet: &[u8]| {
            flow.zip(pair.as_deref_mut()).is_some_and(|(flow, pair)| pair.holds(now, flow, (header, packet)))
        };
        // What the packet before was replaced by belongs to this half-open flow.
        let mut replaced = None;
        // All are of one time, so no timer comes between them.
        engine.handle_batch(&mut packets[..valid], |outcome| match outcome {
            Outcome::Packet { place, verdict: Verdict::Forward { len, why }, bytes } => {
                replaced = None;
                if !waits(answered(why), headers[place], &bytes[..len]) {
                    out.write(to.first(), headers[place], &bytes[..len]);
                }
            }
            Outcome::Packet { verdict, .. } => {
                replaced = if let Verdict::Emit { why } = verdict { answered(why) } else { None };
            }
            Outcome::Own { bytes, meta } => {
                let mut header = [0; HEADER];
                tun::put_meta(&mut header, bytes, meta);
                if !waits(replaced, &header, bytes) {
                    out.write(to.first(), &header, bytes);
                }
            }
        });
    }
}

/// Returns the half-open flow that a server's packet belongs to.
#[inline]
fn answered(why: Forwarded) -> Option<FlowId> {
    match why {
        Forwarded::Translated { flow, from: Side::Server, .. } if Table::is_half_open(flow.index) => Some(flow),
        _ => None,
    }
}
