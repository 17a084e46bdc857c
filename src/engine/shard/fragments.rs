//! Fragments: where the later ones of a packet go once the first has been decided about.
//!
//! Which bytes have come and what waits is up to the store (`flow/fragments.rs`).

use super::super::arrival::{Arrival, dont_fragment};
use super::super::look::{Going, Look, most_pieces};
use super::super::plan::Plan;
use super::super::standing::Standing;
use super::super::step::{Scratch, Settled};
use super::super::{Consumed, Forwarded, Reason, Verdict};
use super::Shard;
use crate::flow::{Datagram, Fate, Found, Key, Later, Piece, Refused};
use crate::ids::FlowId;
use crate::packet::{Addresses, Meta, Protocol, Quote, Side, build, rewrite};
use crate::time::Instant;

impl Shard {
    /// Takes note of a first fragment.
    pub(in crate::engine) fn first_fragment(
        &mut self,
        now: Instant,
        datagram: &Datagram,
        piece: &Piece,
    ) -> Result<(), Reason> {
        self.fragments.first(now, datagram, piece).map_err(reason)
    }

    /// Sends a later fragment where the first one went, or keeps it until that comes.
    pub(in crate::engine) fn later_fragment(
        &mut self,
        of: (&Plan, &Standing),
        arrival: &mut Arrival<'_>,
        (datagram, piece): (&Datagram, &Piece),
        scratch: &mut Scratch,
    ) -> Verdict {
        let packet = &arrival.bytes[..arrival.parsed.len];
        match self.fragments.later(arrival.now, datagram, piece, packet) {
            Ok(Later::Goes(fate, became)) => self.send_fragment(of, arrival, (fate, became), scratch),
            Ok(Later::Held) => Verdict::Consume(Consumed::FragmentWaiting),
            Err(refused) => Verdict::Drop(reason(refused)),
        }
    }

    /// Takes note of what became of a first fragment, and sends those after it that have waited for it.
    pub(in crate::engine) fn settle_fragments(
        &mut self,
        of: (&Plan, &Standing),
        now: Instant,
        datagram: &Datagram,
        verdict: &Verdict,
        scratch: &mut Scratch,
    ) {
        let (fate, became) = self.fate(verdict, datagram);
        for mut waiting in self.fragments.settle(now, datagram, fate, became) {
            let Ok(mut arrival) = Arrival::new(now, &mut waiting, Meta::default()) else { continue };
            if let Verdict::Forward { len, .. } = self.send_fragment(of, &mut arrival, (fate, became), scratch) {
                self.answers.send(&waiting[..len], Meta::default());
            }
        }
    }

    /// Returns where the other fragments of a packet go whose first one met this verdict, and what they become.
    fn fate(&self, verdict: &Verdict, datagram: &Datagram) -> (Fate, Option<Datagram>) {
        match *verdict {
            Verdict::Forward { why, .. } | Verdict::Emit { why } => match why {
                Forwarded::Foreign => (Fate::Foreign, None),
                Forwarded::Translated { flow, from, .. } => {
                    let key = self.table.key(flow.index, from.other());
                    (Fate::Flow(flow, from), Some(self.becomes(datagram, &key)))
                }
                Forwarded::Error { .. } => (Fate::Gone, None),
            },
            Verdict::Consume(Consumed::Echo) => (Fate::Echo, None),
            _ => (Fate::Gone, None),
        }
    }

    /// Returns what a fragmented packet goes on as whose flow has `key` on the side that it goes to.
    pub(in crate::engine) fn becomes(&self, datagram: &Datagram, key: &Key) -> Datagram {
        let protocol = key.protocol.number(key.addresses.is_v6());
        self.fragments.name(datagram, key.addresses.reversed(), protocol)
    }

    /// Sends a later fragment where the first one went.
    fn send_fragment(
        &mut self,
        of: (&Plan, &Standing),
        arrival: &mut Arrival<'_>,
        (fate, became): (Fate, Option<Datagram>),
        scratch: &mut Scratch,
    ) -> Verdict {
        let parsed = &arrival.parsed;
        match fate {
            Fate::Foreign => Verdict::Forward { len: parsed.len, why: Forwarded::Foreign },
            Fate::Gone => Verdict::Drop(Reason::Fragment),
            Fate::Echo => {
                let mut reply = arrival.bytes[..parsed.len].to_vec();
                rewrite::later_fragment(&mut reply, parsed, &parsed.addresses.reversed());
                let sent = self.answers.send(&reply, Meta::default());
                if sent { Verdict::Consume(Consumed::Echo) } else { Verdict::Drop(Reason::AnswerQueueFull) }
            }
            Fate::Flow(flow, from) => self.fragment_of_flow(of, arrival, (flow, from), became, scratch),
        }
    }

    fn fragment_of_flow(
        &mut self,
        (plan, standing): (&Plan, &Standing),
        arrival: &mut Arrival<'_>,
        (flow, from): (FlowId, Side),
        became: Option<Datagram>,
        scratch: &mut Scratch,
    ) -> Verdict {
        let Some(index) = self.table.slot(flow) else { return Verdict::Drop(Reason::Fragment) };
        let (found, why) = (Found { index, side: from }, Forwarded::Translated { flow, from, opened: false });
        let id = became.map(|became| became.id() as u16);
        let (look, going) = (Look::new(plan, standing, self), Going::of_table(&self.table, found));
        let len = arrival.parsed.len;
        scratch.emission.clear();
        if self.table.crosses(index) {
            return match look.fragment_across(arrival, &going, id, &mut scratch.emission) {
                Err(reason) => Verdict::Drop(reason),
                Ok(()) => {
                    self.emit_for(found, len, scratch);
                    Verdict::Emit { why }
                }
            };
        }
        let mtu = look.path_mtu(&going);
        let (too_long, v4) = (len > mtu, !arrival.parsed.addresses.is_v6());
        if too_long && !v4 {
            let settled: Settled = look.report_size(arrival, mtu as u32, &going, scratch);
            return self.settle(arrival, settled, scratch);
        }
        // RFC 791, 3.2. About one that may not be cut no router reports (RFC 1122, 3.2.2).
        let cut = too_long && !dont_fragment(arrival.bytes);
        if cut && self.answers.room_for_packets() < most_pieces(len, mtu) {
            return Verdict::Drop(Reason::AnswerQueueFull);
        }
        let to = self.table.key(index, from.other()).addresses.reversed();
        rewrite::later_fragment(arrival.bytes, &arrival.parsed, &to);
        id.inspect(|id| rewrite::identification(arrival.bytes, *id));
        if cut {
            build::fragment(&arrival.bytes[..len], mtu, |piece| scratch.emission.push(piece, Meta::default()));
            self.emit_for(found, len, scratch);
            return Verdict::Emit { why };
        }
        self.count_in_flow(found, 1, len as u64);
        Verdict::Forward { len, why }
    }

    /// Sends what was emitted for one packet of a flow.
    fn emit_for(&mut self, found: Found, len: usize, scratch: &Scratch) {
        for (packet, meta) in scratch.emission.packets() {
            self.answers.send(packet, meta);
        }
        self.count_in_flow(found, 1, len as u64);
    }

    /// Returns the flow whose later fragment an ICMP error quotes, and the side that the fragment was sent to.
    pub(in crate::engine) fn find_fragment(&self, addresses: &Addresses, protocol: Protocol, id: u32) -> Option<Found> {
        let became = Datagram::new(*addresses, protocol.number(addresses.is_v6()), id);
        let (flow, from, _) = self.fragments.find_translated(&became)?;
        self.table.slot(flow).map(|index| Found { index, side: from.other() })
    }

    /// Returns the identification that a quoted fragment was sent with, if it went on with another.
    pub(in crate::engine) fn sent_as(&self, about: &Quote) -> Option<u16> {
        let id = about.fragment_of?;
        let became = Datagram::new(about.addresses, about.protocol.number(about.addresses.is_v6()), id);
        let (_, _, was) = self.fragments.find_translated(&became)?;
        (was.id() != id).then_some(was.id() as u16)
    }

    /// Returns fragmented packets that are not whole, and bytes of fragments that wait.
    #[cfg(test)]
    pub(in crate::engine) fn fragments_in_store(&self) -> (usize, usize) {
        self.fragments.usage()
    }
}

fn reason(refused: Refused) -> Reason {
    match refused {
        Refused::Overlap => Reason::FragmentOverlap,
        Refused::Full => Reason::FragmentStoreFull,
    }
}
