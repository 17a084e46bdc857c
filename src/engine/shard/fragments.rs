//! Fragments: where the later ones of a packet go once the first has been decided.
//!
//! Tracking which bytes have arrived and what waits is up to the store (`flow/fragments.rs`).

use super::super::arrival::Arrival;
use super::super::look::{Going, Look};
use super::super::plan::Plan;
use super::super::standing::Standing;
use super::super::step::{Onward, Scratch};
use super::super::{Consumed, Forwarded, Reason, Verdict};
use super::Shard;
use crate::flow::{Datagram, Fate, Found, Key, Later, Piece, Refused};
use crate::ids::FlowId;
use crate::packet::{Addresses, Meta, Protocol, Quote, Side, parse, rewrite};
use crate::time::Instant;

impl Shard {
    /// Records a first fragment.
    pub(in crate::engine) fn first_fragment(
        &mut self,
        now: Instant,
        datagram: &Datagram,
        piece: &Piece,
    ) -> Result<(), Reason> {
        self.fragments.first(now, datagram, piece).map_err(reason)
    }

    /// Sends a later fragment where the first one went, or keeps it until the first arrives.
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

    /// Records the outcome of a first fragment, and sends the fragments that have waited for it.
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
            let Ok(parsed) = &mut parse(&waiting) else { continue };
            let mut arrival = Arrival::new(now, &mut waiting, parsed, Meta::default());
            if let Verdict::Forward { len, .. } = self.send_fragment(of, &mut arrival, (fate, became), scratch) {
                self.answers.send(&waiting[..len], Meta::default());
            }
        }
    }

    /// Returns where the other fragments of a packet go whose first one got this verdict, and what they become.
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

    /// Returns the translated identity of a fragmented packet whose flow has `key` on the receiving side.
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
        let going = Going::of_table(&self.table, found);
        let len = arrival.parsed.len;
        match Look::new(plan, standing, self).later_fragment(arrival, &going, id, scratch) {
            Onward::Rewrite { id, .. } => {
                let to = self.table.key(index, from.other()).addresses.reversed();
                rewrite::later_fragment(arrival.bytes, arrival.parsed, &to);
                id.inspect(|id| rewrite::identification(arrival.bytes, *id));
                self.count_in_flow(found, 1, len as u64);
                Verdict::Forward { len, why }
            }
            Onward::Emit { .. } => {
                self.emit(scratch);
                self.count_in_flow(found, 1, len as u64);
                Verdict::Emit { why }
            }
            Onward::Stop { settled, .. } => self.settle(arrival, settled, scratch),
        }
    }

    /// Returns the flow whose later fragment an ICMP error quotes, and the side that the fragment was sent to.
    pub(in crate::engine) fn find_fragment(&self, addresses: &Addresses, protocol: Protocol, id: u32) -> Option<Found> {
        let became = Datagram::new(*addresses, protocol.number(addresses.is_v6()), id);
        let (flow, from, _) = self.fragments.find_translated(&became)?;
        self.table.slot(flow).map(|index| Found { index, side: from.other() })
    }

    /// Returns the identification that a quoted fragment arrived with, if it was sent on with another.
    pub(in crate::engine) fn sent_as(&self, about: &Quote) -> Option<u16> {
        let id = about.fragment_of?;
        let became = Datagram::new(about.addresses, about.protocol.number(about.addresses.is_v6()), id);
        let (_, _, was) = self.fragments.find_translated(&became)?;
        (was.id() != id).then_some(was.id() as u16)
    }

    /// Returns the number of incomplete packets and of bytes of waiting fragments.
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
