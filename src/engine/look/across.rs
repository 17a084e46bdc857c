//! Packets and errors of flows whose two sides are of different families (NAT64, NAT46): they are replaced by other
//! packets.
//!
//! How a packet is translated into the other family is up to `packet/family`.

use super::super::arrival::{Arrival, dont_fragment};
use super::super::step::{Emission, ErrorOnward, Onward, Scratch, Settled};
use super::super::{Consumed, Reason};
use super::onward::stop;
use super::{Going, Look, most_pieces};
use crate::packet::build::{self, Error};
use crate::packet::family::{self, Across, MtuRule, Untranslatable};
use crate::packet::{Addresses, Meta, Parsed, Side, parse, proto, rewrite};

/// The minimum MTU of IPv6 (RFC 8200, 5): packets that may be fragmented are split to this size if the path MTU is
/// unknown (RFC 7915, 4.1).
const LEAST_V6: usize = 1280;
/// How much longer a fragment is in IPv6: the difference between the headers, plus the Fragment header.
const LONGER: usize = 28;

/// Set in the identifications of IPv6 packets that are fragmented here; those of IPv4 fragments have 16 bits (RFC 7915,
/// 4.1).
const OWN_IDENTIFICATION: u32 = 1 << 31;

impl Look<'_> {
    /// Translates a packet or a first fragment of a flow into packets of the other family.
    pub(super) fn across(
        &self,
        arrival: &Arrival<'_>,
        going: &Going<'_>,
        mss: Option<u16>,
        scratch: &mut Scratch,
    ) -> Onward {
        scratch.emission.clear();
        if !arrival.parsed.whole {
            let id = self.renamed(arrival, going);
            let mut clamped = None;
            if let Some(most) = mss {
                let packet: &mut Vec<u8> = clamped.insert(arrival.bytes[..arrival.parsed.len].to_vec());
                rewrite::clamp_mss(packet, arrival.parsed, most, arrival.meta.partial_checksum);
            }
            let packet = clamped.as_deref().unwrap_or(&*arrival.bytes);
            return match self.fragment_across((packet, arrival.parsed), going, id, &mut scratch.emission) {
                Ok(()) => Onward::Emit { ids: 0 },
                Err(Reason::Untranslatable) => stop(self.untranslatable(arrival, scratch)),
                Err(reason) => stop(Settled::drop(reason)),
            };
        }
        let id = self.shard.next_identification();
        let made = &mut scratch.trial;
        made.clear();
        let to = across_to(going);
        let Ok(meta) = family::translate(made, arrival.bytes, arrival.parsed, &to, id as u16, arrival.meta) else {
            return Onward::Stop { settled: self.untranslatable(arrival, scratch), ids: 1 };
        };
        if let (Some(most), Ok(parsed)) = (mss, parse(made)) {
            rewrite::clamp_mss(made, &parsed, most, meta.partial_checksum);
        }
        let may_cut = arrival.parsed.addresses.is_v6() || !arrival.dont_fragment();
        match self.emit_across(made, meta, going, (may_cut, id), &mut scratch.emission) {
            Ok(()) => Onward::Emit { ids: 1 },
            Err(reason) => Onward::Stop { settled: Settled::drop(reason), ids: 1 },
        }
    }

    /// Answers the sender of a whole packet or first fragment that cannot be expressed in the other family (RFC 7915,
    /// 4.4 and 5.4); not if its checksum is missing (RFC 6146, 3.4).
    #[cold]
    pub(super) fn untranslatable(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Settled {
        let why = family::can_cross(&mut scratch.trial, arrival.bytes, arrival.parsed, arrival.meta);
        if !self.plan.answers().other_protocol || why == Err(Untranslatable::UdpNoSum) {
            return Settled::drop(Reason::Untranslatable);
        }
        self.answer(arrival, scratch, Error::Prohibited, Consumed::Untranslatable)
    }

    /// Emits a translated packet whole, or in fragments if it may be fragmented and exceeds the path MTU.
    fn emit_across(
        &self,
        made: &[u8],
        meta: Meta,
        going: &Going<'_>,
        (may_cut, id): (bool, u32),
        emission: &mut Emission,
    ) -> Result<(), Reason> {
        let v6 = made[0] >> 4 == 6;
        let mtu = self.path_across(going, v6);
        let meta = if may_cut { smaller_segments(made, meta, mtu) } else { meta };
        let cut = may_cut && meta.gso_size == 0 && made.len() > mtu && (v6 || !dont_fragment(made));
        let answers = self.shard.answers();
        if !cut {
            if !answers.has_room(made.len()) {
                return Err(Reason::AnswerQueueFull);
            }
            emission.push(made, meta);
            return Ok(());
        }
        if answers.room_for_packets() < most_pieces(made.len(), mtu) {
            return Err(Reason::AnswerQueueFull);
        }
        let mut whole = made.to_vec();
        if meta.partial_checksum {
            build::complete_sum(&mut whole);
        }
        if let Some(inner) = meta.inner_checksum {
            build::complete_inner_sum(&mut whole, inner);
        }
        let push = |piece: &[u8]| emission.push(piece, Meta::default());
        if v6 {
            build::fragment_v6(&whole, mtu, id | OWN_IDENTIFICATION, push);
        } else {
            build::fragment(&whole, mtu, push);
        }
        Ok(())
    }

    /// Emits a fragment of a flow in the other family, in smaller ones if it exceeds the path MTU.
    ///
    /// `id` is the IPv4 identification that it is sent on with, if that differs from its own.
    pub(super) fn fragment_across(
        &self,
        (packet, parsed): (&[u8], &Parsed),
        going: &Going<'_>,
        id: Option<u16>,
        emission: &mut Emission,
    ) -> Result<(), Reason> {
        let to = across_to(going);
        let mtu = self.path_across(going, to.addresses.is_v6());
        if self.shard.answers().room_for_packets() < most_pieces(parsed.len, mtu) {
            return Err(Reason::AnswerQueueFull);
        }
        let (mut made, mut sound) = (Vec::new(), true);
        let mut send = |piece: &[u8], len: usize| {
            made.clear();
            sound &= family::translate_fragment(&mut made, piece, &Parsed { len, ..*parsed }, &to).is_ok();
            if !sound {
                return;
            }
            id.inspect(|id| rewrite::identification(&mut made, *id));
            // RFC 7915, 5.1.1: only in IPv4 may a fragment be fragmented again.
            if made[0] >> 4 == 4 && made.len() > mtu {
                build::fragment(&made, mtu, |piece| emission.push(piece, Meta::default()));
            } else {
                emission.push(&made, Meta::default());
            }
        };
        if to.addresses.is_v6() && parsed.len + LONGER > mtu {
            build::fragment(&packet[..parsed.len], mtu - LONGER, |piece| send(piece, piece.len()));
        } else {
            send(&packet[..parsed.len], parsed.len);
        }
        if sound { Ok(()) } else { Err(Reason::Untranslatable) }
    }

    /// Returns the path MTU in the other family. Over IPv6 this is the minimum MTU unless the settings cover the whole
    /// path: no router fragments there, and a sender whose packets may be fragmented expects no errors (RFC 7915, 4).
    fn path_across(&self, going: &Going<'_>, v6: bool) -> usize {
        let mtu = self.path_mtu(going);
        let stated = match going.side {
            Side::Client => self.plan.path_mtu_is_stated(going.server),
            Side::Server => mtu != usize::MAX,
        };
        if v6 && !stated { mtu.min(LEAST_V6) } else { mtu }
    }

    /// Translates an ICMP error into the other family; `going` is the flow as seen by the side that the error came
    /// from.
    pub(super) fn error_across(
        &self,
        arrival: &Arrival<'_>,
        going: &Going<'_>,
        outer: &Addresses,
        scratch: &mut Scratch,
    ) -> ErrorOnward {
        let sent = going.key(going.side.other());
        let inner = Across { addresses: sent.addresses, src_port: sent.src_port, dst_port: sent.dst_port };
        let mut mtus = MtuRule::default();
        for to in [Side::Client, Side::Server] {
            // The path to a side is the path of what the other side sends.
            let towards = if going.side == to.other() { *going } else { going.other_way() };
            let of = if going.is_v6(to) { &mut mtus.v6 } else { &mut mtus.v4 };
            *of = u32::try_from(self.path_mtu(&towards)).ok();
        }
        let id = self.shard.next_identification() as u16;
        let made = &mut scratch.trial;
        made.clear();
        let stop = |reason| ErrorOnward::Stop { settled: Settled::drop(reason), ids: 1 };
        if family::translate_error(made, arrival.bytes, arrival.parsed, outer, &inner, &mtus, id).is_err() {
            return stop(Reason::Untranslatable);
        }
        if !self.shard.answers().has_room(made.len()) {
            return stop(Reason::AnswerQueueFull);
        }
        scratch.emission.clear();
        scratch.emission.push(made, Meta::default());
        ErrorOnward::Emit
    }
}

/// Returns what a packet of a flow becomes in the other family.
fn across_to(going: &Going<'_>) -> Across {
    let to = going.key(going.side.other());
    Across { addresses: to.addresses.reversed(), src_port: to.dst_port, dst_port: to.src_port }
}

/// Re-segments a TCP super-packet that may be fragmented, if its segments do not fit the path.
fn smaller_segments(made: &[u8], meta: Meta, mtu: usize) -> Meta {
    let fits =
        |made: &Parsed| u16::try_from(mtu.saturating_sub(made.len - made.payload_len()).max(8)).unwrap_or(u16::MAX);
    if meta.gso_size == 0 {
        return meta;
    }
    match parse(made) {
        Ok(parsed) if parsed.protocol == proto::TCP => Meta { gso_size: meta.gso_size.min(fits(&parsed)), ..meta },
        _ => meta,
    }
}
