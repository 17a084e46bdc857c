//! A shard's counters, as plain numbers that packet handling increments.

use super::super::{Consumed, Count, Counters, Ended, Forwarded, Reason, Verdict};
use super::pressure::Pressure;
use crate::flow::{Class, Table, TimeoutState};

#[derive(Debug)]
pub(in crate::engine) struct Totals {
    packets_in: u64,
    bytes_in: u64,
    translated: u64,
    foreign: u64,
    consumed: [u64; Consumed::ALL.len()],
    dropped: [u64; Reason::ALL.len()],
    ended: [u64; Ended::ALL.len()],
    pub opened: u64,
    pub transmitted: u64,
}

/// What passed between clients and a server: by side, packets and bytes. Every packet counts here, and those of many
/// servers miss the processor's cache, so no server's counters are in two of its lines.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(32))]
pub(in crate::engine) struct Traffic(pub [[u64; 2]; 2]);

/// A service's counters.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::engine) struct ServiceTotals {
    pub flows: u64,
    pub flows_total: u64,
    /// By side, packets and bytes.
    pub traffic: [[u64; 2]; 2],
}

impl Totals {
    pub(super) fn new() -> Self {
        Totals {
            packets_in: 0,
            bytes_in: 0,
            translated: 0,
            foreign: 0,
            consumed: [0; Consumed::ALL.len()],
            dropped: [0; Reason::ALL.len()],
            ended: [0; Ended::ALL.len()],
            opened: 0,
            transmitted: 0,
        }
    }

    /// Counts a device packet that represents `packets` packets.
    #[inline]
    pub(super) fn count(&mut self, verdict: &Verdict, packets: u64, bytes: u64) {
        self.packets_in += packets;
        self.bytes_in += bytes;
        match verdict {
            Verdict::Forward { why: Forwarded::Foreign, .. } | Verdict::Emit { why: Forwarded::Foreign } => {
                self.foreign += packets;
            }
            Verdict::Forward { .. } | Verdict::Emit { .. } => self.translated += packets,
            Verdict::Consume(kind) => self.consumed[*kind as usize] += packets,
            Verdict::Drop(reason) => self.dropped[*reason as usize] += packets,
        }
    }

    /// Returns the packets refused for a reason, whether silently or with an answer in the service's name.
    pub(super) fn refused(&self, reason: Reason) -> u64 {
        let answered = if reason == Reason::NoServer { self.consumed[Consumed::NoServer as usize] } else { 0 };
        self.dropped[reason as usize] + answered
    }

    pub(super) fn end(&mut self, cause: Ended) {
        self.ended[cause as usize] += 1;
    }

    /// Counts a flow that was made again, and has ended as one that was replaced, as if it had never been.
    pub(super) fn unopen(&mut self) {
        self.opened -= 1;
        self.ended[Ended::Replaced as usize] -= 1;
    }

    pub(super) fn snapshot(&self, table: &Table, pressure: &Pressure) -> Counters {
        let (half_open, max_half_open) = table.half_open();
        Counters {
            packets_in: self.packets_in,
            bytes_in: self.bytes_in,
            translated: self.translated,
            foreign: self.foreign,
            consumed: counts(&Consumed::ALL, &self.consumed),
            dropped: counts(Reason::ALL, &self.dropped),
            transmitted: self.transmitted,
            flows: u64::from(table.len()) + u64::from(half_open),
            max_flows: u64::from(table.max()),
            half_open: u64::from(half_open),
            max_half_open: u64::from(max_half_open),
            gave_way: counts(&Class::ALL, pressure.gave_way()),
            flows_opened: self.opened,
            flows_ended: counts(&Ended::ALL, &self.ended),
            shortcut: None,
            states: TimeoutState::ALL.map(|class| Count { kind: class, count: u64::from(table.count(class)) }).into(),
        }
    }
}

fn counts<T: Copy>(kinds: &[T], counts: &[u64]) -> Vec<Count<T>> {
    kinds.iter().zip(counts).map(|(kind, count)| Count { kind: *kind, count: *count }).collect()
}
