//! The record of a flow that the program reads and writes, in memory that it shares with the gateway.

use super::super::addresses::address;
use crate::engine::Path;
use crate::flow::{Carried, Key, Sequence};
use crate::time::Instant;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bytes of `struct ends`.
pub(super) const ENDS: usize = 36;

/// `struct ends` of the program: addresses and ports of a packet, all in network byte order.
pub(super) type Ends = [u8; ENDS];

/// Makes it from the key of a packet.
pub(super) fn ends(key: &Key) -> Ends {
    let mut bytes = [0; ENDS];
    bytes[..16].copy_from_slice(&address(key.addresses.src()));
    bytes[16..32].copy_from_slice(&address(key.addresses.dst()));
    bytes[32..34].copy_from_slice(&key.src_port.to_be_bytes());
    bytes[34..].copy_from_slice(&key.dst_port.to_be_bytes());
    bytes
}

/// `struct flow` of the program, by side. The program may change all but the first and the third field at any time.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Cell {
    ends: [[AtomicU32; ENDS / 4]; 2],
    next: [AtomicU32; 2],
    acked: [AtomicU32; 2],
    mtu: [AtomicU32; 2],
    packets: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    seen: AtomicU64,
    zero: [AtomicU64; 5],
}

const _: () = assert!(size_of::<Cell>() == 176 && align_of::<Cell>() == 8);

fn load<const N: usize>(all: &[AtomicU32; N]) -> [u32; N] {
    all.each_ref().map(|one| one.load(Relaxed))
}

fn store<const N: usize>(all: &[AtomicU32; N], values: [u32; N]) {
    all.iter().zip(values).for_each(|(one, value)| one.store(value, Relaxed));
}

impl Cell {
    /// Begins with a flow that nobody carries yet.
    pub(super) fn begin(&self, path: &Path) {
        for (own, key) in self.ends.iter().zip(&path.ends) {
            for (own, word) in own.iter().zip(ends(key).chunks_exact(4)) {
                own.store(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]), Relaxed);
            }
        }
        self.set_sequence(&path.sequence);
        store(&self.mtu, path.mtu.map(u32::from));
        for count in self.packets.iter().chain(&self.bytes) {
            count.store(0, Relaxed);
        }
        self.seen.store(0, Relaxed);
    }

    /// Returns between which ends the packets of both sides travel.
    pub(super) fn ends(&self) -> [Ends; 2] {
        self.ends.each_ref().map(|words| {
            let mut bytes = [0; ENDS];
            bytes.chunks_exact_mut(4).zip(load(words)).for_each(|(to, word)| to.copy_from_slice(&word.to_ne_bytes()));
            bytes
        })
    }

    /// Returns how many packets were carried: it changes with each.
    pub(super) fn packets(&self) -> u64 {
        self.packets.iter().map(|packets| packets.load(Relaxed)).sum()
    }

    /// Returns what was carried.
    pub(super) fn report(&self) -> Carried {
        let counts = |all: &[AtomicU64; 2]| all.each_ref().map(|one| one.load(Relaxed));
        let sequence = Sequence { next: load(&self.next), acked: load(&self.acked) };
        Carried { packets: counts(&self.packets), bytes: counts(&self.bytes), sequence }
    }

    /// Returns when the last packet was carried, by a clock that says `clock` in nanoseconds at `now`; none if none was.
    pub(super) fn seen(&self, now: Instant, clock: u64) -> Option<Instant> {
        let seen = self.seen.load(Relaxed);
        let ago = clock.saturating_sub(seen);
        (seen > 0).then(|| Instant::from_nanos(now.as_nanos().saturating_sub(ago)))
    }

    /// Sets the sequence numbers, which have gone on without the program.
    pub(super) fn set_sequence(&self, sequence: &Sequence) {
        store(&self.next, sequence.next);
        store(&self.acked, sequence.acked);
    }
}
