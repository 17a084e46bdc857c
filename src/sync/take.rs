//! What a node makes of what it reads.
//!
//! Of two flows that exclude each other, the one that was begun later wins, half-open or not: its client has given up the other. Of a flow that
//! both have, or where that cannot be told, the one that only one of them has seen packets of; otherwise that of the higher
//! term.

use super::event::Event;
use super::give::{ASK, HEALTH, NAMES, SEEN, UNMAPPED, WHOLE};
use super::link::{Link, LinkError, Sweep};
use super::node::{Node, Role};
use super::wire::{Header, Kind, Ranges, Reader};
use crate::engine::{Engine, GivingHealth, Lost, Offer, PeerRecord};
use crate::flow::{NUMBERS, Table, TimeoutState};
use crate::ids::FlowId;
use crate::time::{Duration, Instant};

/// Slots looked at in one call for flows that the peer has not spoken of.
const SWEPT_AT_ONCE: u32 = 4096;
/// Flows that were created within this time of each other may have been so in either order: a record may have been under way.
const SAME_TIME: Duration = Duration::from_secs(1);

impl Node {
    /// Reads bytes of the connection, in pieces of any size. The work is bounded by their number: a driver reads at most
    /// about 64 KiB between two packets.
    pub fn handle_input(&mut self, now: Instant, engine: &mut Engine, mut bytes: &[u8]) {
        self.has_harvested = false;
        while let Some(mut link) = self.link.take() {
            if !bytes.is_empty() {
                link.heard = now;
            }
            let result = match link.read(&mut bytes) {
                Ok(Some((header, body))) => self.take_frame(now, engine, &mut link, &header, &body).map(|()| true),
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            self.link = Some(link);
            match result {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return self.close(now, engine, error),
            }
        }
        self.sweep(now, engine);
        self.settle(now, engine);
    }

    /// Reads what has changed in the engine, once for one input: it looks at all slots.
    fn harvest(&mut self, engine: &mut Engine) {
        if !std::mem::replace(&mut self.has_harvested, true) {
            self.book.harvest(engine);
        }
    }

    fn take_frame(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        link: &mut Link,
        header: &Header,
        body: &[u8],
    ) -> Result<(), LinkError> {
        self.seen_term = self.seen_term.max(if link.proved { header.term } else { 0 });
        let Some(kind) = Kind::of(header.kind) else {
            link.skipped += 1;
            return Ok(());
        };
        let body = Reader(body);
        let unreadable = LinkError::Unreadable(kind.name());
        let done = match kind {
            Kind::Hello | Kind::Proof => {
                if let Some(hello) = link.greeting(kind, body.0, &self.settings)? {
                    self.proved(engine, link, &hello);
                }
                Some(())
            }
            Kind::Names => {
                let (takes, knew) = (self.takes_standing(), engine.knows_names(&link.taking));
                self.took_standing |= takes;
                engine.take_names(&mut link.taking, now, body.0, takes).map_err(LinkError::Records)?;
                if !knew {
                    // Under another plan, all flows come again.
                    self.refusals.here = [0; Lost::ALL.len()];
                }
                Some(())
            }
            Kind::Put => self.take_records(now, engine, link, header.term, body)?,
            Kind::Del => self.take_ended(now, engine, header.term, body),
            Kind::Touch => self.take_touched(now, engine, body),
            Kind::Bulk => self.take_bulk(link, body),
            Kind::BulkEnd => self.take_bulk_end(engine, link),
            Kind::Digest => self.take_digests(engine, link, body),
            Kind::Want => take_wish(link, body).map(|is_of_names| {
                if is_of_names {
                    self.refusals.there = 0;
                }
            }),
            Kind::Ack => self.take_ack(now, link, body),
            Kind::Yield => {
                link.ack_now = true;
                self.report(Event::Asked { times: 1 });
                Some(())
            }
            Kind::Refused => self.take_refused(body),
            Kind::Map => self.take_map(engine, body),
            Kind::Numbers => self.take_numbers(engine, body),
            Kind::Health => self.take_health(now, engine, link, body),
            Kind::Clear => self.take_clear(engine, link, body),
        };
        done.ok_or(unreadable)
    }

    /// Returns whether what operators have changed at the peer holds here.
    fn takes_standing(&self) -> bool {
        let peer_is_active = self.peer_role.is_some_and(Role::is_active);
        !self.role.is_active() && (peer_is_active || self.role == Role::Learning)
    }

    fn take_records(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        link: &mut Link,
        term: u64,
        mut body: Reader<'_>,
    ) -> Result<Option<()>, LinkError> {
        let Some(flags) = body.u8() else { return Ok(None) };
        if !engine.knows_names(&link.taking) {
            // After a reload here.
            (link.want, link.want_names, link.want_health) = (Ranges::ALL, true, self.follows_health);
            return Ok(Some(()));
        }
        self.harvest(engine);
        link.ack_now |= flags & ASK != 0;
        let hosted = link.taking.hosted();
        while let Some(record) = link.taking.next(now, &mut body.0) {
            match record {
                PeerRecord::Flow(offer) => self.take_flow(now, engine, link, (term, flags), &offer),
                PeerRecord::HalfOpen(offer) => {
                    let taken = engine.take_half_open(&link.taking, now, &offer);
                    taken.into_iter().for_each(|flow| self.echoes.note(engine, flow));
                }
                PeerRecord::Other(record) if !self.role.is_active() => {
                    engine.take_names(&mut link.taking, now, record, false).map_err(LinkError::Records)?;
                }
                PeerRecord::Other(_) | PeerRecord::Unknown => {}
            }
        }
        if link.taking.hosted() > hosted {
            self.report(Event::Hosts { servers: link.taking.hosted() - hosted });
        }
        Ok(body.0.is_empty().then_some(()))
    }

    /// Returns whether a flow of the peer wins over one of this gateway.
    fn gives_way(&self, own: u32, term: u64, is_seen: bool) -> bool {
        // Who has just begun a connection is here.
        let own_is_seen = Table::is_half_open(own) || self.book.is_seen(own);
        if is_seen == own_is_seen { !self.outranks(term) } else { is_seen }
    }

    fn take_flow(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        link: &mut Link,
        (term, flags): (u64, u8),
        offer: &Offer,
    ) {
        let (is_seen, asks) = (flags & SEEN != 0, flags & UNMAPPED != 0);
        link.came = link.came.saturating_add(1);
        let hash = self.book.hash(&offer.mark);
        if !self.book.has_slot(offer.slot) {
            return self.refuse(link, offer, hash.1, Lost::Room);
        }
        let find = |engine: &Engine| [&offer.mark.client, &offer.mark.server].map(|key| engine.find_flow(key));
        if let Some(before) = self.book.mapped(engine, offer.slot)
            && find(engine) != [Some(before.index); 2]
        {
            self.flow_ended(now, engine, term, before);
        }
        let found = find(engine);
        let same = match found {
            [Some(client), Some(server)] if client == server => engine.flow_in(client),
            _ => None,
        };
        // A standby opens nothing: what is half-open there is the peer's, which knows better, or of no use; and other flows that
        // have carried nothing here are as the peer has told earlier. So is at an active one what is half-open by the word of
        // the peer. How old such flows are there, nobody knows here: a slow link makes them look younger than their successors.
        let stands_by = !self.role.is_active() && self.peer_role.is_some_and(Role::is_active);
        let (echoes, book) = (&self.echoes, &self.book);
        let is_theirs = |own: u32| match Table::is_half_open(own) {
            true => stands_by || echoes.has(engine, own),
            false => stands_by && !book.is_seen(own),
        };
        let [client, server] = found.map(|own| own.filter(|own| !is_theirs(*own)));
        for own in [client, server].into_iter().flatten() {
            let gives_way = match newer(engine, own, (offer, link.clock.lag)).filter(|_| same.is_none()) {
                Some(is_newer) => is_newer,
                None => self.gives_way(own, term, is_seen),
            };
            if !gives_way {
                return self.keep(engine, (offer.slot, asks), own, same.map(|id| (id, hash)));
            }
        }
        let peer_is_active = self.peer_role.is_some_and(Role::is_active);
        let resumes = self.in_step_with != 0 && link.hello.as_ref().is_some_and(|hello| self.resumes(hello));
        if found == [None; 2] && !is_seen && self.role.is_active() && peer_is_active && resumes {
            // It has ended here since both knew it, and there it has carried nothing.
            return;
        }
        match engine.take_flow(&mut link.taking, now, offer, same) {
            Ok(id) => {
                if let Some(keys) = &mut self.reply_keys {
                    keys.push_back(offer.mark.server);
                }
                if self.book.dead.has(id.index) {
                    // The flow that was in its slot has ended a moment ago: the peer has to hear of that before this one is
                    // known by the slot. What is not said here, the digests find.
                    link.tell_ended(self.term, id.index);
                }
                self.book.took(engine, id, offer.slot, (hash, asks));
            }
            Err(why) => self.refuse(link, offer, hash.1, why),
        }
    }

    /// Keeps an own flow that the peer's would replace.
    fn keep(&mut self, engine: &Engine, (theirs, asks): (u32, bool), own: u32, same: Option<(FlowId, (u8, u64))>) {
        if Table::is_half_open(own) {
            return;
        }
        self.book.confirm(own);
        let mark = engine.flow_mark(own);
        match same {
            // Both know the same of it.
            Some((id, hash)) if mark.is_some_and(|mark| self.book.hash(&mark) == hash) => {
                self.book.meet(theirs, id, asks);
                self.book.tell(own, Some(hash));
            }
            _ => self.book.pending.set(own),
        }
    }

    fn take_ended(&mut self, now: Instant, engine: &mut Engine, term: u64, mut body: Reader<'_>) -> Option<()> {
        self.harvest(engine);
        while !body.0.is_empty() {
            let slot = body.u32()?;
            if let Some(id) = self.book.mapped(engine, slot) {
                self.flow_ended(now, engine, term, id);
            }
        }
        Some(())
    }

    /// A flow has ended at the peer. It goes on here if this gateway has seen packets of it and outranks the peer, or is the
    /// only one that is active: flows end there by its word.
    fn flow_ended(&mut self, now: Instant, engine: &mut Engine, term: u64, id: FlowId) {
        let decides = self.role.is_active() && !self.peer_role.is_some_and(Role::is_active);
        if decides || self.book.is_seen(id.index) && self.outranks(term) {
            self.book.pending.set(id.index);
            return;
        }
        engine.drop_flow(now, id);
        self.book.dropped(engine, id.index);
    }

    fn take_touched(&mut self, now: Instant, engine: &mut Engine, mut body: Reader<'_>) -> Option<()> {
        while !body.0.is_empty() {
            let (word, mut bits) = (body.u32()?, body.u64()?);
            while bits != 0 {
                let slot = word.checked_mul(64)?.checked_add(bits.trailing_zeros())?;
                bits &= bits - 1;
                if let Some(id) = self.book.mapped(engine, slot) {
                    engine.touch_flow(now, id);
                }
            }
        }
        Some(())
    }

    fn take_bulk(&mut self, link: &mut Link, mut body: Reader<'_>) -> Option<()> {
        let flags = body.u8()?;
        let ranges = Ranges::read(&mut body)?;
        (link.announced, link.came) = (body.u32()?, 0);
        link.incoming = Some((ranges, flags & WHOLE != 0));
        link.sweep = None;
        self.book.forget_confirmed();
        Some(())
    }

    fn take_bulk_end(&mut self, engine: &mut Engine, link: &mut Link) -> Option<()> {
        let (ranges, is_whole) = link.incoming.take()?;
        self.harvest(engine);
        match is_whole {
            true => link.sweep = Some(Sweep { ranges, at: 0 }),
            false => (link.took, link.ack_now) = (true, true),
        }
        Some(())
    }

    /// Ends some of the flows that the peer has not spoken of, though it has spoken of all that it has.
    pub(super) fn sweep(&mut self, now: Instant, engine: &mut Engine) {
        let Some(mut link) = self.link.take() else { return };
        if link.taking.may_host(now) {
            // Flows of servers without slots come again, and get them.
            link.taking.ask_again();
            link.want.add_all(&Ranges::ALL);
        }
        if let Some(sweep) = &mut link.sweep {
            self.book.harvest(engine);
            let end = engine.flow_slots().min(sweep.at.saturating_add(SWEPT_AT_ONCE));
            for slot in sweep.at..end {
                let Some(id) = engine.flow_in(slot).filter(|_| !self.book.confirmed.has(slot)) else { continue };
                let range = match self.book.told(slot) {
                    0 => engine.flow_mark(slot).map_or(0, |mark| self.book.hash(&mark).0),
                    _ => self.book.range(slot),
                };
                if !sweep.ranges.has(range) {
                    continue;
                }
                if self.book.is_seen(slot) {
                    self.book.pending.set(slot);
                } else {
                    engine.drop_flow(now, id);
                    self.book.dropped(engine, slot);
                }
            }
            sweep.at = end;
            if end >= engine.flow_slots() {
                link.sweep = None;
                (link.took, link.ack_now) = (true, true);
            }
        }
        if link.took && self.role.is_active() {
            self.ready(true);
        }
        self.link = Some(link);
    }

    fn take_digests(&mut self, engine: &mut Engine, link: &mut Link, mut body: Reader<'_>) -> Option<()> {
        // Flows that had to give way to others have ended meanwhile.
        self.book.harvest(engine);
        let mut differing = Ranges::NONE;
        for range in 0..=u8::MAX {
            if body.u64()? != self.book.digests()[usize::from(range)] {
                differing.add(range);
            }
        }
        let is_told = link.acked >= link.told && !self.book.has_news();
        if self.role.is_active() || !is_told || link.sweep.is_some() || link.incoming.is_some() || !link.took {
            return Some(());
        }
        link.agreed = differing.is_empty();
        if link.agreed {
            self.ready(true);
        } else {
            link.want.add_all(&differing);
            self.report(Event::Differs { ranges: differing.len() });
        }
        Some(())
    }

    fn take_ack(&mut self, now: Instant, link: &mut Link, mut body: Reader<'_>) -> Option<()> {
        let (seq, role) = (body.u64()?, body.u8()?);
        link.clock.heard(now, body.u64());
        if seq > link.sent {
            return None;
        }
        // Once the peer has read the pass over the table, both can compare.
        let had_it = link.given.is_none_or(|given| link.acked >= given);
        link.acked = link.acked.max(seq);
        link.digest_now |= !had_it && link.given.is_some_and(|given| link.acked >= given);
        self.release_known(link.acked);
        self.peer_role = Role::of(role).or(self.peer_role);
        self.raise();
        if link.yielded.is_some_and(|yielded| yielded <= seq && yielded != 0) {
            link.yielded = Some(0);
            self.report(Event::Yielded);
        }
        Some(())
    }

    /// Reads which slots flows have there, so that what the peer says of them later is understood.
    fn take_map(&mut self, engine: &Engine, mut body: Reader<'_>) -> Option<()> {
        while !body.0.is_empty() {
            let (theirs, own, keys) = (body.u32()?, body.u32()?, body.u64()?);
            // It may have ended meanwhile.
            if let (Some(mark), Some(id)) = (engine.flow_mark(own), engine.flow_in(own))
                && self.book.keys(&mark) == keys
                && self.book.has_slot(theirs)
            {
                self.book.map(theirs, id);
            }
        }
        Some(())
    }

    /// Reads the sequence numbers of connections that are idle there, and of which nothing has been seen here.
    fn take_numbers(&mut self, engine: &mut Engine, mut body: Reader<'_>) -> Option<()> {
        self.harvest(engine);
        while !body.0.is_empty() {
            let (slot, keys) = (body.u32()?, body.u64()?);
            let numbers = body.take(NUMBERS)?.try_into().ok()?;
            if let Some(id) = self.book.mapped(engine, slot).filter(|id| !self.book.is_seen(id.index))
                && engine.flow_mark(id.index).is_some_and(|mark| self.book.keys(&mark) == keys)
            {
                engine.take_numbers(id, numbers);
            }
        }
        Some(())
    }
}

/// Reads what is to come again; returns whether names are.
fn take_wish(link: &mut Link, mut body: Reader<'_>) -> Option<bool> {
    let flags = body.u8()?;
    link.wanted.add_all(&Ranges::read(&mut body)?);
    if flags & NAMES != 0 {
        link.giving.name_again();
    }
    if flags & HEALTH != 0 {
        link.health = Some(GivingHealth::default());
    }
    Some(flags & NAMES != 0)
}

/// Returns whether a flow of the peer's is the one that its client believes in, and not one of this gateway that excludes it,
/// half-open or not: it was begun later, or about at the same time and only the other one is over. None if neither says.
fn newer(engine: &Engine, own: u32, (offer, lag): (&Offer, Duration)) -> Option<bool> {
    let (created, state) = engine.flow_age(own);
    // Its age is that at the time when its record was written.
    let begun = Instant::from_nanos(offer.created().as_nanos().saturating_sub(lag.as_nanos() as u64));
    let apart = created.since(begun).max(begun.since(created));
    if apart >= SAME_TIME {
        return Some(begun > created);
    }
    let is_over = |state| matches!(state, TimeoutState::Closing | TimeoutState::Reset);
    let (own, theirs) = (is_over(state), is_over(offer.mark.state));
    (own != theirs).then_some(own)
}
