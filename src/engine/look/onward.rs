//! Whether a packet of a flow can be forwarded: its size, and whether its checksum can be updated.
//!
//! The kernel forwards what the gateway writes and would report errors about the translated packet, which its sender
//! never sent. So the gateway replies first, about the packet as it arrived.

use super::super::arrival::Arrival;
use super::super::step::{For, Onward, Scratch, Settled};
use super::super::{Consumed, Reason};
use super::Look;
use crate::balance::Mss;
use crate::flow::{Found, Key, NewFlow, Table, TimeoutState};
use crate::ids::{ServerId, ServiceId};
use crate::packet::build::{self, Error};
use crate::packet::rewrite::{self, Translation};
use crate::packet::{Meta, Protocol, Side, Transport, family};

/// What forwarding a packet needs to know of its flow, whether in the table or yet to be created.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Going<'f> {
    /// The side that sent the packet.
    pub(in crate::engine) side: Side,
    pub(in crate::engine) server: ServerId,
    pub(in crate::engine) service: ServiceId,
    /// Whether the client's side, and the server's side, are IPv6.
    v6: [bool; 2],
    state: TimeoutState,
    flow: Flow<'f>,
}

#[derive(Debug, Clone, Copy)]
enum Flow<'f> {
    Known(&'f Table, u32),
    New(&'f NewFlow),
}

impl<'f> Going<'f> {
    #[inline]
    pub(in crate::engine) fn of_table(table: &'f Table, found: Found) -> Self {
        let flow = table.facts(found.index);
        Going {
            side: found.side,
            server: flow.server_id,
            service: flow.service,
            v6: [table.is_v6(found.index, Side::Client), table.is_v6(found.index, Side::Server)],
            state: flow.state,
            flow: Flow::Known(table, found.index),
        }
    }

    /// The first packet of a flow to be created, from its client.
    pub(in crate::engine) fn of_new(new: &'f NewFlow) -> Self {
        Going::of_new_from(new, Side::Client)
    }

    /// The first packet of a flow to be created.
    pub(in crate::engine) fn of_new_from(new: &'f NewFlow, side: Side) -> Self {
        Going {
            side,
            server: new.server_id,
            service: new.service,
            v6: [new.client.addresses.is_v6(), new.server.addresses.is_v6()],
            state: TimeoutState::first(new.client.protocol),
            flow: Flow::New(new),
        }
    }

    /// Returns whether the two sides of the flow are of different families.
    #[inline]
    pub(super) fn crosses(&self) -> bool {
        self.v6[0] != self.v6[1]
    }

    /// Returns whether a side is IPv6.
    pub(super) fn is_v6(&self, side: Side) -> bool {
        self.v6[side as usize]
    }

    /// Returns a side's key, as seen in its packets.
    pub(in crate::engine) fn key(&self, side: Side) -> Key {
        match (self.flow, side) {
            (Flow::Known(table, index), side) => table.key(index, side),
            (Flow::New(new), Side::Client) => new.client,
            (Flow::New(new), Side::Server) => new.server,
        }
    }

    /// Returns what the packet becomes.
    pub(in crate::engine) fn translation(&self) -> Translation {
        match self.flow {
            Flow::Known(table, index) => table.translation(index, self.side),
            Flow::New(new) => new.translation(self.side),
        }
    }

    /// Returns the same flow as seen by the other side's packets.
    pub(super) fn other_way(&self) -> Self {
        Going { side: self.side.other(), ..*self }
    }
}

impl Look<'_> {
    /// Decides how a packet of a flow is sent on to the flow's other side.
    #[inline]
    pub(super) fn onward(&self, arrival: &Arrival<'_>, going: &Going<'_>, scratch: &mut Scratch) -> Onward {
        let parsed = &arrival.parsed;
        if !parsed.whole && spoils_its_checksum(arrival, going) {
            return stop(Settled::drop(Reason::Fragment));
        }
        let mtu = self.path_mtu(going);
        let crosses = going.crosses();
        let growth =
            if crosses { family::translated_len(arrival.bytes, parsed) as isize - parsed.len as isize } else { 0 };
        if arrival.size().saturating_add_signed(growth) > mtu
            && let Some(onward) = self.too_big(arrival, going, mtu, scratch)
        {
            return onward;
        }
        let mss = self.largest_segment(arrival, going);
        if crosses {
            return self.across(arrival, going, mss, scratch);
        }
        Onward::Rewrite { mss, id: if parsed.whole { None } else { self.renamed(arrival, going) } }
    }

    /// Returns the path MTU after translation, in bytes.
    #[inline]
    pub(in crate::engine) fn path_mtu(&self, going: &Going<'_>) -> usize {
        let mtu = match going.side {
            Side::Server => self.plan.client_mtu(),
            Side::Client => self.standing.path_mtu(going.server, going.v6[Side::Server as usize]),
        };
        if mtu == 0 { usize::MAX } else { usize::from(mtu) }
    }

    /// Returns the greatest maximum segment size that a SYN may announce, if the service lowers it; none for other
    /// packets.
    #[inline]
    fn largest_segment(&self, arrival: &Arrival<'_>, going: &Going<'_>) -> Option<u16> {
        match arrival.parsed.transport {
            Transport::Tcp { flags, .. } if flags.syn() => self.segment_limit(going),
            _ => None,
        }
    }

    fn segment_limit(&self, going: &Going<'_>) -> Option<u16> {
        match self.plan.service(going.service).mss {
            Mss::Off => None,
            Mss::To(most) => Some(most),
            Mss::Auto => {
                let of = |mtu: usize, v6: bool| mtu.saturating_sub(if v6 { 60 } else { 40 });
                let towards = |from: Side| self.path_mtu(&Going { side: from, ..*going });
                let to_server = of(towards(Side::Client), going.is_v6(Side::Server));
                let to_client = of(towards(Side::Server), going.is_v6(Side::Client));
                Some(u16::try_from(to_server.min(to_client)).unwrap_or(u16::MAX))
            }
        }
    }

    /// Decides a packet that is too big for its path (RFC 791, 3.2; RFC 1191, 4; RFC 8200, 5); none if it is sent on
    /// all the same.
    #[cold]
    fn too_big(&self, arrival: &Arrival<'_>, going: &Going<'_>, mtu: usize, scratch: &mut Scratch) -> Option<Onward> {
        let (parsed, crosses) = (&arrival.parsed, going.crosses());
        let v4 = !parsed.addresses.is_v6();
        let may_cut_v4 = v4 && !arrival.dont_fragment();
        // RFC 7915, 5.1: a packet of at most 1,280 bytes, or one that was already fragmented, may be fragmented in
        // IPv4.
        let may_cut_v6 = mtu + 20 < 1280 && (!parsed.whole || arrival.size() <= 1280);
        if crosses && (may_cut_v4 || !v4 && may_cut_v6) {
            // It is fragmented where it is translated.
            return None;
        }
        if may_cut_v4 {
            // If a device segments packets, it also fragments them.
            return (arrival.meta.gso_size == 0).then(|| self.in_pieces(arrival, going, mtu, scratch));
        }
        let reported = if crosses { family::mtu_of_sender(parsed, mtu as u32) } else { mtu as u32 };
        Some(stop(self.report_size(arrival, reported, going, scratch)))
    }

    /// Answers a packet of a flow with its path MTU.
    pub(in crate::engine) fn report_size(
        &self,
        arrival: &Arrival<'_>,
        mtu: u32,
        going: &Going<'_>,
        scratch: &mut Scratch,
    ) -> Settled {
        let whom = match going.state {
            TimeoutState::Established | TimeoutState::Closing | TimeoutState::UdpTwoWay => For::Peers,
            TimeoutState::Opening | TimeoutState::Reset | TimeoutState::UdpOneWay | TimeoutState::Icmp => {
                For::Strangers
            }
        };
        self.answer_to(arrival, scratch, Error::TooBig(mtu), Consumed::TooBig, whom)
    }

    /// Translates a packet and splits it into fragments.
    fn in_pieces(&self, arrival: &Arrival<'_>, going: &Going<'_>, mtu: usize, scratch: &mut Scratch) -> Onward {
        let (parsed, meta) = (&arrival.parsed, arrival.meta);
        if self.shard.answers().room_for_packets() < most_pieces(parsed.len, mtu) {
            return stop(Settled::drop(Reason::AnswerQueueFull));
        }
        let mut whole = arrival.bytes[..parsed.len].to_vec();
        if let Some(most) = self.largest_segment(arrival, going) {
            rewrite::clamp_mss(&mut whole, parsed, most, meta.partial_checksum);
        }
        rewrite::translate(&mut whole, parsed, &going.translation(), meta.partial_checksum);
        if let Some(id) = self.renamed(arrival, going) {
            rewrite::identification(&mut whole, id);
        }
        if meta.partial_checksum {
            build::complete_sum(&mut whole);
        }
        if let Some(inner) = meta.inner_checksum {
            build::complete_inner_sum(&mut whole, inner);
        }
        scratch.emission.clear();
        build::fragment(&whole, mtu, |piece| scratch.emission.push(piece, Meta::default()));
        Onward::Emit { ids: 0 }
    }

    /// Returns the identification that the packet of a first fragment is sent on with, if it is not its own.
    #[cold]
    pub(super) fn renamed(&self, arrival: &Arrival<'_>, going: &Going<'_>) -> Option<u16> {
        let datagram = arrival.datagram?;
        let became = self.shard.becomes(&datagram, &going.key(going.side.other()));
        (became.id() != datagram.id()).then_some(became.id() as u16)
    }
}

pub(super) fn stop(settled: Settled) -> Onward {
    Onward::Stop { settled, ids: 0 }
}

/// Returns whether a first fragment's checksum cannot be corrected: SCTP's CRC covers the ports, and how it changes
/// with them depends on the length of the whole packet (RFC 9260, 6.8), which no first fragment shows.
fn spoils_its_checksum(arrival: &Arrival<'_>, going: &Going<'_>) -> bool {
    let Transport::Sctp { src, dst } = arrival.parsed.transport else { return false };
    debug_assert_eq!(going.key(going.side).protocol, Protocol::Sctp);
    let to = going.key(going.side.other());
    (to.dst_port, to.src_port) != (src, dst)
}

/// Returns the greatest number of fragments of a packet of this length for a path, whatever its options.
pub(in crate::engine) fn most_pieces(len: usize, mtu: usize) -> usize {
    len.div_ceil(mtu.saturating_sub(60).max(8) & !7)
}
