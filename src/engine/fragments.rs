//! Fragments: the first is judged as the packet that it begins, the others go where it went.
//!
//! Which bytes have come and what waits is the store's affair (`flow/fragments.rs`).

use super::miss::foreign;
use super::onward::{dont_fragment, most_pieces};
use super::{Consumed, Engine, Forwarded, Reason, Verdict};
use crate::flow::{Datagram, Fate, Found, Later, Piece, Refused};
use crate::ids::FlowId;
use crate::packet::{Addresses, Meta, Parsed, Protocol, Quote, Side, Transport, build, parse, parse_first, rewrite};
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
        let datagram = Datagram::new(addresses, parsed.protocol, id);
        let end = u32::from(offset) + (parsed.len - parsed.offset) as u32;
        let piece = Piece { start: offset, end, last: !more };
        if offset == 0 {
            return self.first_fragment(now, packet, parsed, meta, &datagram, &piece);
        }
        match self.fragments.later(now, &datagram, &piece, &packet[..parsed.len]) {
            Ok(Later::Goes(fate, became)) => self.later_fragment(now, packet, parsed, (fate, became)),
            Ok(Later::Held) => Verdict::Consume(Consumed::FragmentWaiting),
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
        let (fate, became) = self.fate(&verdict, datagram);
        for mut held in self.fragments.settle(now, datagram, fate, became) {
            let Ok(parsed) = parse(&held) else { continue };
            match self.later_fragment(now, &mut held, &parsed, (fate, became)) {
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
                let found = Found { index: flow.index, side: from };
                (Fate::Flow(flow, from), Some(self.becomes(datagram, found)))
            }
            Verdict::Consume(Consumed::Echo) => (Fate::Echo, None),
            _ => (Fate::Gone, None),
        }
    }

    /// Sends a later fragment where the first one went.
    fn later_fragment(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        parsed: &Parsed,
        (fate, became): (Fate, Option<Datagram>),
    ) -> Verdict {
        match fate {
            Fate::Foreign => foreign(parsed),
            Fate::Gone => Verdict::Drop(Reason::Fragment),
            Fate::Echo => {
                let mut reply = packet[..parsed.len].to_vec();
                rewrite::later_fragment(&mut reply, parsed, &parsed.addresses.reversed());
                let taken = self.answers.send(&reply);
                if taken { Verdict::Consume(Consumed::Echo) } else { Verdict::Drop(Reason::AnswerQueueFull) }
            }
            Fate::Flow(flow, from) => self.fragment_of_flow(now, packet, parsed, (flow, from), became),
        }
    }

    /// What a fragmented packet of a flow goes on as.
    fn becomes(&self, datagram: &Datagram, from: Found) -> Datagram {
        let answer = self.table.key(from.index, from.side.other());
        let protocol = answer.protocol.number(answer.addresses.is_v6());
        self.fragments.name(datagram, answer.addresses.reversed(), protocol)
    }

    /// The identification that the packet of a first fragment goes on with, if it is not the one that it has.
    #[cold]
    pub(super) fn renamed(&self, packet: &[u8], from: Found) -> Option<u16> {
        let Ok(Parsed { addresses, protocol, transport: Transport::Fragment { id, .. }, .. }) = parse(packet) else {
            return None;
        };
        let became = self.becomes(&Datagram::new(addresses, protocol, id), from);
        (became.id() != id).then_some(became.id() as u16)
    }

    fn fragment_of_flow(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        parsed: &Parsed,
        (flow, from): (FlowId, Side),
        became: Option<Datagram>,
    ) -> Verdict {
        let Some(index) = self.table.slot(flow) else { return Verdict::Drop(Reason::Fragment) };
        let found = Found { index, side: from };
        let id = became.map(|became| became.id() as u16);
        if self.table.crosses(index) {
            return self.fragment_across(packet, parsed, found, id, (1, false));
        }
        let (mtu, why) = (self.way_out(found), Forwarded::Translated { flow, from, opened: false });
        let (too_long, v4) = (parsed.len > mtu, !parsed.addresses.is_v6());
        if too_long && !v4 {
            return self.tell_size(now, packet, parsed, mtu as u32, found);
        }
        // RFC 791, 3.2. Of one that may not be cut no router tells (RFC 1122, 3.2.2).
        let cut = too_long && !dont_fragment(packet);
        if cut && self.answers.room_for_packets() < most_pieces(parsed.len, mtu) {
            return Verdict::Drop(Reason::AnswerQueueFull);
        }
        let to = self.table.key(index, from.other()).addresses.reversed();
        rewrite::later_fragment(packet, parsed, &to);
        id.inspect(|id| rewrite::identification(packet, *id));
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
        let became = Datagram::new(*addresses, protocol.number(addresses.is_v6()), id);
        let (flow, from, _) = self.fragments.find_translated(&became)?;
        self.table.slot(flow).map(|index| Found { index, side: from.other() })
    }

    /// The identification that a quoted fragment was sent with, if it went on with another.
    pub(super) fn sent_as(&self, about: &Quote) -> Option<u16> {
        let id = about.fragment_of?;
        let became = Datagram::new(about.addresses, about.protocol.number(about.addresses.is_v6()), id);
        let (_, _, was) = self.fragments.find_translated(&became)?;
        (was.id() != id).then_some(was.id() as u16)
    }
}

fn reason(refused: Refused) -> Reason {
    match refused {
        Refused::Overlap => Reason::FragmentOverlap,
        Refused::Full => Reason::FragmentStoreFull,
    }
}
