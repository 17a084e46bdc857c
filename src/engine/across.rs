//! Packets and errors of flows whose two sides are of different families (NAT64, NAT46): they go on as other packets.
//!
//! How a packet is made into the other family is `packet/family`'s affair.

use super::onward::{dont_fragment, most_pieces};
use super::{Consumed, Engine, Forwarded, Reason, Verdict};
use crate::flow::Found;
use crate::packet::build::{self, Error};
use crate::packet::family::{self, Across, MtuRule, Untranslatable};
use crate::packet::{Addresses, Meta, Parsed, Side, parse, proto, rewrite};
use crate::time::Instant;

/// Least MTU of IPv6 (RFC 8200, 5): what a packet that may be fragmented is cut to where the way is not known (RFC 7915, 4.1).
const LEAST_V6: usize = 1280;
/// What a fragment is longer in IPv6: the difference of the headers, and the Fragment header.
const LONGER: usize = 28;

/// Set in the identifications of IPv6 packets that are cut here; those of IPv4 fragments have 16 bits (RFC 7915, 4.1).
const OWN: u32 = 1 << 31;

impl Engine {
    /// What a packet of a flow from a side becomes in the other family.
    fn across_to(&self, found: Found) -> Across {
        let to = self.table.translation(found.index, found.side);
        Across { addresses: to.addresses, src_port: to.src_port, dst_port: to.dst_port }
    }

    /// Sends a packet, or a first fragment, of a flow on in the other family.
    pub(super) fn across(
        &mut self,
        now: Instant,
        packet: &[u8],
        parsed: &Parsed,
        meta: Meta,
        found: Found,
        (packets, opened): (u64, bool),
    ) -> Verdict {
        if !parsed.whole {
            let id = self.renamed(packet, found);
            return match self.fragment_across(packet, parsed, found, id, (packets, opened)) {
                Verdict::Drop(Reason::Untranslatable) => self.untranslatable(now, packet, parsed, meta),
                verdict => verdict,
            };
        }
        let (to, id) = (self.across_to(found), self.next_id());
        let mut made = std::mem::take(&mut self.scratch);
        made.clear();
        let verdict = match family::translate(&mut made, packet, parsed, &to, id as u16, meta) {
            Err(_) => Verdict::Drop(Reason::Untranslatable),
            Ok(meta) => {
                let may_cut = parsed.addresses.is_v6() || !dont_fragment(packet);
                self.send_across(&made, meta, found, may_cut, id)
            }
        };
        self.scratch = made;
        match verdict {
            Verdict::Emit { .. } => self.count(found, packets, parsed.len as u64),
            Verdict::Drop(Reason::Untranslatable) => return self.untranslatable(now, packet, parsed, meta),
            _ => {}
        }
        self.emitted(verdict, found, opened)
    }

    /// Tells the sender of a whole packet or first fragment that has no form in the other family (RFC 7915, 4.4 and 5.4);
    /// not of a sum that is missing (RFC 6146, 3.4).
    #[cold]
    pub(super) fn untranslatable(&mut self, now: Instant, packet: &[u8], parsed: &Parsed, meta: Meta) -> Verdict {
        let why = family::can_cross(&mut self.scratch, packet, parsed, meta);
        if !self.refusals.other_protocol || why == Err(Untranslatable::UdpNoSum) {
            return Verdict::Drop(Reason::Untranslatable);
        }
        self.answer(now, packet, parsed, Error::Prohibited, Consumed::Untranslatable)
    }

    fn emitted(&self, verdict: Verdict, found: Found, opened: bool) -> Verdict {
        let flow = self.table.id(found.index);
        match verdict {
            Verdict::Emit { .. } => Verdict::Emit { why: Forwarded::Translated { flow, from: found.side, opened } },
            other => other,
        }
    }

    /// Sends a translated packet whole, or in fragments where it may be cut and the way out takes no more.
    fn send_across(&mut self, made: &[u8], meta: Meta, found: Found, may_cut: bool, id: u32) -> Verdict {
        let v6 = made[0] >> 4 == 6;
        let mtu = self.way_across(found, v6);
        let emit = Verdict::Emit { why: Forwarded::Foreign };
        let meta = if may_cut { smaller_segments(made, meta, mtu) } else { meta };
        let cut = may_cut && meta.gso_size == 0 && made.len() > mtu && (v6 || !dont_fragment(made));
        if !cut {
            return if self.answers.send_with(made, meta) { emit } else { Verdict::Drop(Reason::AnswerQueueFull) };
        }
        if self.answers.room_for_packets() < most_pieces(made.len(), mtu) {
            return Verdict::Drop(Reason::AnswerQueueFull);
        }
        let mut whole = made.to_vec();
        if meta.partial_checksum {
            build::complete_sum(&mut whole);
        }
        let mut send = |piece: &[u8]| {
            self.answers.send(piece);
        };
        if v6 {
            build::fragment_v6(&whole, mtu, id | OWN, &mut send);
        } else {
            build::fragment(&whole, mtu, &mut send);
        }
        emit
    }

    /// Sends a fragment of a flow on in the other family, in smaller ones where the way out takes no more.
    ///
    /// `id` is its identification where it goes on with another one, in IPv4.
    pub(super) fn fragment_across(
        &mut self,
        packet: &[u8],
        parsed: &Parsed,
        found: Found,
        id: Option<u16>,
        (packets, opened): (u64, bool),
    ) -> Verdict {
        let to = self.across_to(found);
        let mtu = self.way_across(found, to.addresses.is_v6());
        if self.answers.room_for_packets() < most_pieces(parsed.len, mtu) {
            return Verdict::Drop(Reason::AnswerQueueFull);
        }
        let mut made = std::mem::take(&mut self.scratch);
        let mut sound = true;
        let mut send = |piece: &[u8], len: usize| {
            made.clear();
            sound &= family::translate_fragment(&mut made, piece, &Parsed { len, ..*parsed }, &to).is_ok();
            if !sound {
                return;
            }
            id.inspect(|id| rewrite::identification(&mut made, *id));
            // RFC 7915, 5.1.1: a fragment may be cut again in IPv4 alone.
            if made[0] >> 4 == 4 && made.len() > mtu {
                build::fragment(&made, mtu, |piece| {
                    self.answers.send(piece);
                });
            } else {
                self.answers.send(&made);
            }
        };
        if to.addresses.is_v6() && parsed.len + LONGER > mtu {
            build::fragment(&packet[..parsed.len], mtu - LONGER, |piece| send(piece, piece.len()));
        } else {
            send(&packet[..parsed.len], parsed.len);
        }
        self.scratch = made;
        if !sound {
            return Verdict::Drop(Reason::Untranslatable);
        }
        self.count(found, packets, parsed.len as u64);
        self.emitted(Verdict::Emit { why: Forwarded::Foreign }, found, opened)
    }

    /// The largest packet that the way out takes in the other family. Over IPv6 it is the least that there is, unless the
    /// settings vouch for the whole way: no router cuts there, and a sender that may be cut asks for no errors (RFC 7915, 4).
    fn way_across(&self, found: Found, v6: bool) -> usize {
        let mtu = self.way_out(found);
        let stated = match found.side {
            Side::Client => self.mtus.is_stated(self.table.flow(found.index).server_id),
            Side::Server => mtu != usize::MAX,
        };
        if v6 && !stated { mtu.min(LEAST_V6) } else { mtu }
    }

    /// Sends an ICMP error on to the other family; `found` is the side that it came from.
    pub(super) fn error_across(&mut self, packet: &[u8], parsed: &Parsed, found: Found, outer: &Addresses) -> Verdict {
        let sent = self.table.key(found.index, found.side.other());
        let inner = Across { addresses: sent.addresses, src_port: sent.src_port, dst_port: sent.dst_port };
        let mut mtus = MtuRule::default();
        for side in [Side::Client, Side::Server] {
            // The way to a side is the way out of what the other one sends.
            let mtu = u32::try_from(self.way_out(Found { index: found.index, side: side.other() })).ok();
            let of = if self.table.is_v6(found.index, side) { &mut mtus.v6 } else { &mut mtus.v4 };
            *of = mtu;
        }
        let id = self.next_id();
        let mut made = std::mem::take(&mut self.scratch);
        made.clear();
        let verdict = match family::translate_error(&mut made, packet, parsed, outer, &inner, &mtus, id as u16) {
            Err(_) => Verdict::Drop(Reason::Untranslatable),
            Ok(()) if !self.answers.send(&made) => Verdict::Drop(Reason::AnswerQueueFull),
            Ok(()) => {
                let flow = self.table.id(found.index);
                Verdict::Emit { why: Forwarded::Error { flow, from: found.side } }
            }
        };
        self.scratch = made;
        verdict
    }

    /// An identification for a packet that is fragmented, or may be (RFC 6864, 4.3: not soon the same again).
    fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }
}

/// A super-packet of TCP that may be fragmented is segmented anew where its segments do not fit the way out.
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
