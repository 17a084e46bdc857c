//! The engine's side of a shortcut: which flows a driver may have carried past the engine, and what it reports of them.
//!
//! It must not know who carries them, or how. A driver that carries none changes nothing.

use super::{Engine, arrival};
use crate::flow::{Carried, Key, Sequence};
use crate::ids::FlowId;
use crate::packet::{error_kind, parse, quote};
use crate::time::Instant;
use serde::{Deserialize, Serialize};

/// A flow whose packets need only be translated, until [`Engine::poll_left`] returns its place.
///
/// Only segments with ACK and without SYN, FIN, RST and URG may be carried, whole packets without options, at most as long as
/// `mtu`; and none whose numbers are further from those of the connection than the tracker believes. All others are for the
/// engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// By which the driver reports of it: below the number that [`Engine::offer_paths`] was given.
    pub place: u32,
    /// The flow.
    pub flow: FlowId,
    /// The keys of the client's packets and of the server's, as they arrive; each side's become the other's, reversed.
    pub ends: [Key; 2],
    /// The longest IP packets of the client and of the server in bytes; of several segments together, each of them.
    pub mtu: [u16; 2],
    /// The sequence numbers of both ends.
    pub sequence: Sequence,
}

/// What is carried past the engine. Counters of flows, servers and services include it; [`super::Counters::packets_in`] does
/// not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shortcut {
    /// Flows that are carried now.
    pub flows: u64,
    /// The most at a time.
    pub max_flows: u64,
    /// Packets carried since the start; a super-packet counts as the packets it stands for.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Engine {
    /// Offers established TCP flows that have lasted for a while to be carried, at most so many at a time; none if that is
    /// zero, and those that are carried are withdrawn. Initially none are. Only the first number above zero counts.
    pub fn offer_paths(&mut self, most: u32) {
        self.shard.offer_paths(most);
    }

    /// Returns whether flows wait to be taken by [`Engine::poll_path`].
    pub fn offers_path(&self) -> bool {
        self.shard.offers_path()
    }

    /// Returns the next flow to be carried. It counts as carried from then on.
    pub fn poll_path(&mut self, now: Instant) -> Option<Path> {
        self.shard.poll_path((&self.plan, &self.standing), now)
    }

    /// Returns the place of a flow that is to be carried no longer. When none of its packets is, [`Engine::left`] is to be
    /// called.
    pub fn poll_left(&mut self) -> Option<u32> {
        self.shard.review_paths((&self.plan, &self.standing));
        self.shard.poll_left()
    }

    /// Returns the place of a flow that will have expired, as far as is known: without a report of it, it ends.
    pub fn poll_due(&mut self) -> Option<u32> {
        self.shard.poll_due()
    }

    /// Takes a report of the flow at a place: all that was carried since it was taken there, and when the last packet was.
    /// Returns the sequence numbers that the connection has then, which are further on if segments came to the engine; none
    /// if the flow has ended.
    pub fn carried(&mut self, now: Instant, place: u32, seen: Option<Instant>, report: &Carried) -> Option<Sequence> {
        self.shard.carried(now, place, (seen, report), false)
    }

    /// Takes the last report of the flow at a place, at which there may be another one from then on.
    pub fn left(&mut self, now: Instant, place: u32, seen: Option<Instant>, report: &Carried) {
        self.shard.carried(now, place, (seen, report), true);
    }

    /// Returns the place of the flow that a packet belongs to, or that an ICMP error quotes a packet of, if it is carried.
    pub fn path_of(&self, packet: &[u8]) -> Option<u32> {
        let parsed = parse(packet).ok()?;
        let key = match error_kind(packet, &parsed) {
            Some(_) => arrival::quoted_key(&quote(packet, &parsed).ok()?)?,
            None => arrival::key(&parsed)?,
        };
        let found = self.shard.table().find(&key)?;
        self.shard.path_of(found.index)
    }

    /// Returns what is carried; none if nobody carries.
    pub fn shortcut(&self) -> Option<Shortcut> {
        self.shard.shortcut()
    }
}
