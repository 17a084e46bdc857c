//! Whether a packet can go on from here: its hop limit, and its size for the way out.
//!
//! The kernel forwards what the engine writes and would tell a packet's sender of its end, but about the packet as it
//! is behind the translation, which the sender never sent. So the engine answers first, about the packet as it came.

use super::answers::{For, can_be_answered};
use super::{Consumed, Engine, Reason, Verdict};
use crate::balance::Mss;
use crate::flow::{Found, TimeoutState};
use crate::packet::build::{self, Error};
use crate::packet::{Meta, Parsed, Side, error_kind, family, rewrite};
use crate::time::Instant;

impl Engine {
    /// Answers a packet whose hops end at the kernel's next step (RFC 792; RFC 4443, 3.3).
    #[cold]
    pub(super) fn hops_are_over(&mut self, now: Instant, packet: &[u8], parsed: &Parsed) -> Verdict {
        self.answer(now, packet, parsed, Error::HopLimit, Consumed::TimeExceeded)
    }

    /// The largest packet, in bytes, that the way out takes behind the translation of what `found` sent.
    #[inline]
    pub(super) fn way_out(&self, found: Found) -> usize {
        let mtu = match found.side {
            Side::Server => self.mtus.to_clients(),
            Side::Client => {
                let server = self.table.flow(found.index).server_id;
                self.mtus.way_out(server, self.table.is_v6(found.index, Side::Server))
            }
        };
        if mtu == 0 { usize::MAX } else { usize::from(mtu) }
    }

    /// Lowers the segment size of a SYN, if the service asks for that.
    pub(super) fn clamp_mss(&self, packet: &mut [u8], parsed: &Parsed, meta: Meta, found: Found) {
        let flow = self.table.flow(found.index);
        let most = match self.balancer.service(flow.service).mss {
            Mss::Off => return,
            Mss::To(most) => most,
            Mss::Auto => {
                let of = |mtu: usize, v6: bool| mtu.saturating_sub(if v6 { 60 } else { 40 });
                let [client, server] = [Side::Client, Side::Server].map(|side| self.table.is_v6(found.index, side));
                let to_server = of(self.way_out(Found { side: Side::Client, ..found }), server);
                let to_client = of(self.way_out(Found { side: Side::Server, ..found }), client);
                u16::try_from(to_server.min(to_client)).unwrap_or(u16::MAX)
            }
        };
        rewrite::clamp_mss(packet, parsed, most, meta.partial_checksum);
    }

    /// Decides about a packet that is too big for its way out (RFC 791, 3.2; RFC 1191, 4; RFC 8200, 5).
    #[cold]
    pub(super) fn too_big(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        parsed: &Parsed,
        meta: Meta,
        found: Found,
        (mtu, opened): (usize, bool),
    ) -> Option<Verdict> {
        let v4 = !parsed.addresses.is_v6();
        let crosses = self.table.crosses(found.index);
        // RFC 7915, 5.1: what had 1,280 bytes at most, or was cut before, may be cut in IPv4.
        let may_cut_v6 = mtu + 20 < 1280 && (!parsed.whole || size(parsed, meta) <= 1280);
        if crosses && (v4 && !dont_fragment(packet) || !v4 && may_cut_v6) {
            // It is cut where it is made.
            return None;
        }
        if v4 && !dont_fragment(packet) {
            // What a device segments, it also fragments.
            return if meta.gso_size == 0 {
                Some(self.in_pieces(packet, parsed, meta, found, (mtu, opened)))
            } else {
                None
            };
        }
        let told = if crosses { family::mtu_of_sender(parsed, mtu as u32) } else { mtu as u32 };
        Some(self.tell_size(now, packet, parsed, told, found))
    }

    /// Answers a packet of a flow with the MTU of its way.
    pub(super) fn tell_size(
        &mut self,
        now: Instant,
        packet: &[u8],
        parsed: &Parsed,
        mtu: u32,
        found: Found,
    ) -> Verdict {
        let whom = match self.table.flow(found.index).state() {
            TimeoutState::Established | TimeoutState::Closing | TimeoutState::UdpTwoWay => For::Peers,
            TimeoutState::Opening | TimeoutState::Reset | TimeoutState::UdpOneWay | TimeoutState::Icmp => {
                For::Strangers
            }
        };
        self.answer_to(now, packet, parsed, Error::TooBig(mtu), Consumed::TooBig, whom)
    }

    /// Translates a packet and sends it on in fragments.
    fn in_pieces(
        &mut self,
        packet: &mut [u8],
        parsed: &Parsed,
        meta: Meta,
        found: Found,
        (mtu, opened): (usize, bool),
    ) -> Verdict {
        // A first look, so that nothing is changed that cannot be sent.
        if self.answers.room_for_packets() < most_pieces(parsed.len, mtu) {
            return Verdict::Drop(Reason::AnswerQueueFull);
        }
        let verdict = self.forward_whole(packet, parsed, meta, found, 1, opened);
        let Verdict::Forward { len, why } = verdict else { return verdict };
        if meta.partial_checksum {
            build::complete_sum(&mut packet[..len]);
        }
        build::fragment(&packet[..len], mtu, |piece| {
            self.answers.send(piece);
        });
        Verdict::Emit { why }
    }

    /// Answers a packet with an ICMP error in the name of its destination, if it may be answered by one.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        packet: &[u8],
        parsed: &Parsed,
        why: Error,
        as_what: Consumed,
    ) -> Verdict {
        self.answer_to(now, packet, parsed, why, as_what, For::Strangers)
    }

    fn answer_to(
        &mut self,
        now: Instant,
        packet: &[u8],
        parsed: &Parsed,
        why: Error,
        as_what: Consumed,
        whom: For,
    ) -> Verdict {
        if !can_be_answered(&parsed.addresses) || error_kind(packet, parsed).is_some() {
            return Verdict::Drop(Reason::BadSource);
        }
        match self.answers.error(now, packet, parsed, why, whom) {
            Ok(()) => Verdict::Consume(as_what),
            Err(reason) => Verdict::Drop(reason),
        }
    }
}

/// How many hops a packet has left.
#[inline]
pub(super) fn hops(packet: &[u8], parsed: &Parsed) -> u8 {
    if parsed.addresses.is_v6() { packet[7] } else { packet[8] }
}

/// Bytes that the way out has to take at once: of a super-packet one segment.
#[inline]
pub(super) fn size(parsed: &Parsed, meta: Meta) -> usize {
    match meta.gso_size {
        0 => parsed.len,
        size => (parsed.len - parsed.payload_len() + usize::from(size)).min(parsed.len),
    }
}

/// The most pieces that a packet of so many bytes is cut into for a way out, whatever its options.
pub(super) fn most_pieces(len: usize, mtu: usize) -> usize {
    len.div_ceil(mtu.saturating_sub(60).max(8) & !7)
}

pub(super) fn dont_fragment(packet: &[u8]) -> bool {
    packet[6] & 0x40 != 0
}
