//! Fragments: the first is judged as the packet that it begins, the others go where it went.
//!
//! Which bytes have come and what waits is the store's affair (`flow/fragments.rs`).

use super::miss::foreign;
use super::onward::{dont_fragment, most_pieces};
use super::{Consumed, Engine, Forwarded, Reason, Verdict};
use crate::flow::{Datagram, Fate, Found, Later, Piece, Refused};
use crate::ids::FlowId;
use crate::packet::{Addresses, Meta, Parsed, Protocol, Side, Transport, build, parse_first, rewrite};
use crate::time::Instant;

impl Engine {
    /// Decides about a fragment.
    pub(super) fn fragment(&mut self, now: Instant, packet: &mut [u8], parsed: &Parsed, meta: Meta) -> Verdict {
        let Transport::Fragment { offset, more, id } = parsed.transport else { return foreign(parsed) };
        let addresses = parsed.addresses;
        let may_be_ours = self.is_own(addresses.dst())
            || self.directory.is_server_address(addresses.src())
            || self.policy.has_rules();
        if !may_be_ours {
            return foreign(parsed);
        }
        let datagram = datagram(addresses, parsed.protocol, id);
        let end = u32::from(offset) + (parsed.len - parsed.offset) as u32;
        let piece = Piece { start: offset, end, last: !more };
        if offset == 0 {
            return self.first_fragment(now, packet, parsed, meta, &datagram, &piece);
        }
        match self.fragments.later(now, &datagram, &piece, &packet[..parsed.len]) {
            Ok(Later::Goes(fate)) => self.later_fragment(packet, parsed, fate),
            Ok(Later::Held) => Verdict::Consume(Consumed::FragmentHeld),
            Err(refused) => Verdict::Drop(reason(refused)),
        }
    }

    fn first_fragment(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        parsed: &Parsed,
        meta: Meta,
        datagram: &Datagram,
        piece: &Piece,
    ) -> Verdict {
        if let Err(refused) = self.fragments.first(now, datagram, piece) {
            return Verdict::Drop(reason(refused));
        }
        let verdict = match parse_first(packet, parsed) {
            Ok(first) => self.decide(now, packet, &first, meta, 1),
            Err(malformed) => Verdict::Drop(super::classify::reason(malformed)),
        };
        let (fate, translated) = self.fate(&verdict, datagram);
        for mut held in self.fragments.settle(now, datagram, fate, translated) {
            let Ok(parsed) = crate::packet::parse(&held) else { continue };
            match self.later_fragment(&mut held, &parsed, fate) {
                Verdict::Forward { len, .. } => drop(self.answers.send(&held[..len])),
                _ => continue,
            }
        }
        verdict
    }

    /// Where the other fragments of a packet go whose first one met this verdict, and what they become.
    fn fate(&self, verdict: &Verdict, datagram: &Datagram) -> (Fate, Option<Datagram>) {
        match *verdict {
            Verdict::Forward { why: Forwarded::Foreign, .. } | Verdict::Emit { why: Forwarded::Foreign } => {
                (Fate::Foreign, None)
            }
            Verdict::Forward { why: Forwarded::Translated { flow, from, .. }, .. }
            | Verdict::Emit { why: Forwarded::Translated { flow, from, .. } } => {
                let key = self.table.key(flow.index, from.other());
                let (to, protocol) = (key.addresses.reversed(), key.protocol.number(false));
                // RFC 7915, 4.1 and 5.1.1: IPv4 has the low 16 bits of an identification.
                let id = if to.is_v6() { datagram.id } else { datagram.id & 0xffff };
                (Fate::Flow(flow, from), Some(self::datagram(to, protocol, id)))
            }
            Verdict::Consume(Consumed::Echo) => (Fate::Echo, None),
            _ => (Fate::Gone, None),
        }
    }

    /// Sends a later fragment where the first one went.
    fn later_fragment(&mut self, packet: &mut [u8], parsed: &Parsed, fate: Fate) -> Verdict {
        match fate {
            Fate::Foreign => foreign(parsed),
            Fate::Gone => Verdict::Drop(Reason::Fragment),
            Fate::Echo => {
                let mut reply = packet[..parsed.len].to_vec();
                rewrite::later_fragment(&mut reply, parsed, &parsed.addresses.reversed());
                let taken = self.answers.send(&reply);
                if taken { Verdict::Consume(Consumed::Echo) } else { Verdict::Drop(Reason::AnswerQueueFull) }
            }
            Fate::Flow(flow, from) => self.fragment_of_flow(packet, parsed, flow, from),
        }
    }

    fn fragment_of_flow(&mut self, packet: &mut [u8], parsed: &Parsed, flow: FlowId, from: Side) -> Verdict {
        let Some(index) = self.table.slot(flow) else { return Verdict::Drop(Reason::Fragment) };
        let found = Found { index, side: from };
        if self.table.crosses(index) {
            return self.fragment_across(packet, parsed, found, 1, false);
        }
        let to = self.table.key(index, from.other()).addresses.reversed();
        let (mtu, why) = (self.way_out(found), Forwarded::Translated { flow, from, opened: false });
        // Of IPv4 alone, where the way may cut it (RFC 791, 3.2). No router tells of a later fragment (RFC 1122, 3.2.2).
        let cut = parsed.len > mtu && !to.is_v6() && !dont_fragment(packet);
        if cut && self.answers.room_for_packets() < most_pieces(parsed.len, mtu) {
            return Verdict::Drop(Reason::AnswerQueueFull);
        }
        rewrite::later_fragment(packet, parsed, &to);
        self.count(found, 1, parsed.len as u64);
        if cut {
            build::fragment(&packet[..parsed.len], mtu, |piece| {
                self.answers.send(piece);
            });
            return Verdict::Emit { why };
        }
        Verdict::Forward { len: parsed.len, why }
    }

    /// The flow whose later fragment an ICMP error quotes, and the side that the fragment was sent to.
    pub(super) fn find_fragment(&self, addresses: &Addresses, protocol: Protocol, id: u32) -> Option<Found> {
        let protocol = protocol.number(addresses.is_v6());
        let (flow, from) = self.fragments.find_translated(&datagram(*addresses, protocol, id))?;
        self.table.slot(flow).map(|index| Found { index, side: from.other() })
    }
}

/// What all fragments of a packet share. Over IPv6 the first one's Next Header alone counts, and those of the others may
/// differ (RFC 8200, 4.5).
fn datagram(addresses: Addresses, protocol: u8, id: u32) -> Datagram {
    Datagram { addresses, protocol: if addresses.is_v6() { 0 } else { protocol }, id }
}

fn reason(refused: Refused) -> Reason {
    match refused {
        Refused::Overlap => Reason::FragmentOverlap,
        Refused::Full => Reason::FragmentStoreFull,
    }
}
