//! What a node sends, in this order whenever there is room: requests, names, flows that have ended, flows that have changed,
//! the pass over the table that the peer needs, who carried packets, digests.

use super::link::{Bulk, Link};
use super::node::{Node, Role};
use super::wire::{Hello, Kind, Ranges};
use crate::engine::Engine;
use crate::time::{Duration, Instant};
use std::collections::HashMap;

/// How long changes wait, so that several of one flow become one record.
pub(super) const FLUSH: Duration = Duration::from_millis(10);
const TOUCH: Duration = Duration::from_secs(1);
const DIGEST: Duration = Duration::from_secs(10);
const ACK: Duration = Duration::from_millis(500);
/// Between two passes over the table that the peer asks for.
const WANTED: Duration = Duration::from_secs(1);
/// Bytes that one call appends, about: some 160 flows, for which packets wait a fraction of a millisecond.
const ROOM: usize = 16 << 10;
/// A body that has reached this is sent.
pub(super) const MOST_RECORDS: usize = 40_000;
/// Slots looked at in one call for a pass over the table: a quarter of a millisecond at most.
const MOST_LOOKED_AT: u32 = 2048;
/// Most half-open flows, the newest, that go over with a planned switch: a flood of SYNs must not make it slow.
const MOST_HALF_OPEN: usize = 4096;
/// Flows of which one call looks whether they have become idle, so that their sequence numbers are told.
const MOST_NUMBERS: usize = 512;
/// Flows that lived for a shorter time may have ended untold, but hardly any does: each outlives its last packet by a second.
const BEHIND: Duration = Duration::from_secs(1);
/// Sticky clients that one call looks at.
const MOST_CLIENTS: usize = 1024;
/// Words of 64 slots in one frame.
const MOST_WORDS: usize = 128;
/// Slots of flows that have ended in one frame.
const MOST_DEAD: usize = 8192;
/// Clients, ports or names written at once.
const PORTION: usize = 128;

/// In a frame of records: they are of flows that were seen by the sender.
pub(super) const SEEN: u8 = 1;
/// In a frame of records: the receiver is to acknowledge it at once.
pub(super) const ASK: u8 = 2;
/// In a frame of records: the sender does not know which slots these flows have at the receiver.
pub(super) const UNMAPPED: u8 = 4;
/// In the beginning of a pass: flows that are not in it do not exist any more.
pub(super) const WHOLE: u8 = 1;
/// In a wish: names are to come again.
pub(super) const NAMES: u8 = 1;
/// In a wish: verdicts of monitors are to come, and to come again when they change.
pub(super) const HEALTH: u8 = 2;

/// A frame of records that is being filled.
struct Put {
    body: Vec<u8>,
    flags: u8,
}

impl Put {
    fn new() -> Self {
        Put { body: vec![0], flags: 0 }
    }

    /// Makes room for a record with these flags: what is there is sent if it cannot be in one frame with it.
    fn make_room(&mut self, link: &mut Link, term: u64, flags: u8, out: &mut Vec<u8>) {
        if flags != self.flags || self.body.len() >= MOST_RECORDS {
            self.send(link, term, out);
            self.flags = flags;
        }
    }

    fn send(&mut self, link: &mut Link, term: u64, out: &mut Vec<u8>) {
        if self.body.len() > 1 {
            self.body[0] = self.flags;
            link.frame(out, Kind::Put, term, &self.body);
            link.told = link.sent;
        }
        self.body.truncate(1);
    }
}

impl Node {
    /// Appends to `out` what there is to send, about 16 KiB; nothing if there is nothing at the moment. To be called when the
    /// connection can take it, and at [`Node::poll_timeout`].
    pub fn poll_output(&mut self, now: Instant, engine: &mut Engine, out: &mut Vec<u8>) {
        let Some(mut link) = self.link.take() else { return };
        out.append(&mut link.ready);
        if link.proved {
            self.book.harvest(engine);
            let before = out.len();
            self.give(now, engine, &mut link, out);
            link.has_more = out.len() - before >= ROOM;
        }
        self.link = Some(link);
    }

    /// Begins the first pass over the table for a peer.
    pub(super) fn begin_bulk(&mut self, engine: &mut Engine, link: &mut Link, hello: &Hello) {
        let knows_it = self.in_step_with == hello.instance;
        let resumes = knows_it && hello.in_step_with == self.settings.instance;
        let only_seen = resumes && !self.role.is_active();
        // Who has been the only active one all the time sends what has changed, and what may be lost.
        let only_changes = resumes && self.is_steady && !Role::of(hello.role).is_some_and(Role::is_active);
        if resumes {
            self.book.harvest(engine);
            self.book.tell_again(engine);
        }
        let whole = knows_it && !only_seen && !only_changes;
        let at = if only_changes { u32::MAX } else { 0 };
        link.bulk = Some(Bulk { ranges: Ranges::ALL, at, only_seen, whole, rest: !only_seen, begun: false });
        link.tells_clients = self.is_only_active();
    }

    fn give(&mut self, now: Instant, engine: &mut Engine, link: &mut Link, out: &mut Vec<u8>) {
        let full = out.len() + ROOM;
        self.give_requests(now, engine, link, (out, full));
        while !engine.has_named(&link.giving) {
            let mut names = Vec::new();
            while names.len() < MOST_RECORDS / 2 && !engine.has_named(&link.giving) {
                engine.give_names(&mut link.giving, now, PORTION, &mut names);
            }
            link.frame(out, Kind::Names, self.term, &names);
            // The walk over clients has ended with the names before.
            link.telling_recent.take().into_iter().for_each(|since| link.tell_recent(since));
            if out.len() >= full {
                return;
            }
        }
        // Before any record of a client that has been given its server since.
        self.clearing.give(self.term, link, out);
        if self.holding.has_news() {
            // The end of the former connection of a port comes first: otherwise the next one is refused for it.
            if !self.give_changes(now, engine, link, (out, full)) {
                return;
            }
            let mut body = vec![ASK];
            if self.give_held(now, engine, link, &mut body) > 0 {
                link.frame(out, Kind::Put, self.term, &body);
            }
        }
        if now < link.next_flush && link.bulk.is_none() {
            return;
        }
        self.give_health(now, engine, link, out);
        if !self.give_changes(now, engine, link, (out, full)) {
            return;
        }
        Node::catch_up(now, link);
        if link.in_step() && link.acked >= link.all_told {
            self.book.settle_seen();
            link.all_told = link.sent;
        }
        if link.bulk.is_none() && !link.wanted.is_empty() && now >= link.next_wanted {
            link.next_wanted = now + WANTED;
            let whole = self.role.is_active() && self.in_step_with != 0 && link.given.is_some();
            let ranges = std::mem::take(&mut link.wanted);
            link.bulk = Some(Bulk { ranges, at: 0, only_seen: false, whole, rest: false, begun: false });
        }
        link.next_flush = now + FLUSH;
        if link.bulk.is_some() {
            link.next_flush = now + Duration::from_millis(1);
            return self.give_bulk(now, engine, link, (out, full));
        }
        self.give_recent(now, engine, link, (out, full));
        if now >= link.next_touch && self.give_touched(link, (out, full)) {
            link.next_touch = now + TOUCH;
        }
        if out.len() < full {
            self.give_numbers(now, engine, link, out);
        }
        if (now >= link.next_digest || link.digest_now) && !self.book.has_news() {
            let body: Vec<u8> = self.book.digests().iter().flat_map(|digest| digest.to_be_bytes()).collect();
            link.frame(out, Kind::Digest, self.term, &body);
            (link.next_digest, link.digest_now) = (now + DIGEST, false);
        }
        if (self.role == Role::Yielding || link.switched)
            && link.in_step()
            && !self.give_half_open(now, engine, link, (out, full))
        {
            return;
        }
        if self.role == Role::Yielding && link.yielded.is_none() && link.in_step() {
            link.frame(out, Kind::Yield, self.term, &[]);
            link.yielded = Some(link.sent);
        }
    }

    /// Asks, refuses and acknowledges.
    fn give_requests(&mut self, now: Instant, engine: &Engine, link: &mut Link, (out, full): (&mut Vec<u8>, usize)) {
        if link.want_names || link.want_health || !link.want.is_empty() {
            let flag = |is: bool, flag| if is { flag } else { 0 };
            let mut body = vec![flag(link.want_names, NAMES) | flag(link.want_health, HEALTH)];
            link.want.write(&mut body);
            link.frame(out, Kind::Want, self.term, &body);
            (link.want, link.want_names, link.want_health) = (Ranges::NONE, false, false);
        }
        if !link.refused.is_empty() {
            let refused = std::mem::take(&mut link.refused);
            for some in refused.chunks(MOST_DEAD / 2) {
                let body: Vec<u8> = some
                    .iter()
                    .flat_map(|(slot, hash)| slot.to_be_bytes().into_iter().chain(hash.to_be_bytes()))
                    .collect();
                link.frame(out, Kind::Refused, self.term, &body);
            }
        }
        let (mut body, mut from) = (Vec::new(), 0);
        while out.len() + body.len() < full
            && let Some((own, theirs, keys)) = self.book.next_unmapped(engine, from)
        {
            from = own;
            body.extend(own.to_be_bytes());
            body.extend(theirs.to_be_bytes());
            body.extend(keys.to_be_bytes());
            if body.len() >= MOST_RECORDS {
                link.frame(out, Kind::Map, self.term, &body);
                body.clear();
            }
        }
        if !body.is_empty() {
            link.frame(out, Kind::Map, self.term, &body);
        }
        // Where both are active, the younger of two flows stays: how old a record is then is told with it.
        let is_split = self.role.is_active() && self.peer_role.is_some_and(Role::is_active);
        if link.ack_now || now >= link.next_ack || is_split && now >= link.next_flush {
            let mut body = link.received.to_be_bytes().to_vec();
            body.push(self.role.number());
            body.extend(now.as_nanos().to_be_bytes());
            link.frame(out, Kind::Ack, self.term, &body);
            (link.next_ack, link.ack_now) = (now + ACK, false);
        }
    }

    /// Tells of flows that have ended, then of those that have changed; returns whether of all.
    fn give_changes(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        link: &mut Link,
        (out, full): (&mut Vec<u8>, usize),
    ) -> bool {
        while let Some(mut slot) = self.book.dead.next(0) {
            let mut body = Vec::new();
            while body.len() < MOST_DEAD * 4 {
                self.book.dead.clear(slot);
                self.book.tell(slot, None);
                self.book.note_sent(slot);
                body.extend(slot.to_be_bytes());
                let Some(next) = self.book.dead.next(slot) else { break };
                slot = next;
            }
            link.frame(out, Kind::Del, self.term, &body);
            link.told = link.sent;
            if out.len() >= full {
                return false;
            }
        }
        let mut put = Put::new();
        let mut from = 0;
        while let Some(slot) = self.book.pending.next(from) {
            if out.len() + put.body.len() >= full {
                put.send(link, self.term, out);
                return false;
            }
            self.put_flow((now, engine, link), slot, &mut put, out);
            from = slot + 1;
        }
        put.send(link, self.term, out);
        true
    }

    fn put_flow(
        &mut self,
        (now, engine, link): (Instant, &Engine, &mut Link),
        slot: u32,
        put: &mut Put,
        out: &mut Vec<u8>,
    ) {
        self.book.pending.clear(slot);
        match engine.idle_numbers(now, slot) {
            Some(_) => self.book.stale.clear(slot),
            None => self.book.stale.set(slot),
        }
        let Some(mark) = engine.flow_mark(slot) else { return };
        let is_mapped = engine.flow_in(slot).is_some_and(|id| self.book.is_mapped(id));
        let flags = if self.book.is_seen(slot) { SEEN } else { 0 } | if is_mapped { 0 } else { UNMAPPED };
        put.make_room(link, self.term, flags, out);
        engine.give_flow(&mut link.giving, now, slot, &mut put.body);
        let hash = self.book.hash(&mark);
        self.book.tell(slot, Some(hash));
        self.book.note_sent(slot);
    }

    /// Tells of half-open flows that are new or have gone on; returns whether of all.
    fn give_half_open(
        &self,
        now: Instant,
        engine: &Engine,
        link: &mut Link,
        (out, full): (&mut Vec<u8>, usize),
    ) -> bool {
        let told = std::mem::take(&mut link.half_told);
        let mut put = Put::new();
        let mut is_all = true;
        for (flow, note) in engine.half_open(MOST_HALF_OPEN) {
            let (keys, is) = self.book.half_open(&flow);
            if told.get(&keys) != Some(&is) {
                if out.len() + put.body.len() >= full {
                    is_all = false;
                    continue;
                }
                put.make_room(link, self.term, 0, out);
                engine.give_half_open(&mut link.giving, now, (flow, note), &mut put.body);
            }
            link.half_told.insert(keys, is);
        }
        put.send(link, self.term, out);
        if is_all && link.switched {
            (link.switched, link.half_told) = (false, HashMap::new());
        }
        is_all
    }

    /// Goes on with a pass over the table.
    fn give_bulk(&mut self, now: Instant, engine: &mut Engine, link: &mut Link, (out, full): (&mut Vec<u8>, usize)) {
        let Some(mut bulk) = link.bulk else { return };
        if !bulk.begun {
            let mut body = vec![if bulk.whole { WHOLE } else { 0 }];
            bulk.ranges.write(&mut body);
            let flows = if bulk.at == u32::MAX { self.book.pending.count() } else { engine.counters().flows as u32 };
            body.extend(flows.to_be_bytes());
            link.frame(out, Kind::Bulk, self.term, &body);
            if bulk.rest {
                engine.begin_giving_rest(&mut link.giving);
            }
            bulk.begun = true;
        }
        let mut put = Put::new();
        while bulk.rest && out.len() + put.body.len() < full {
            put.make_room(link, self.term, 0, out);
            bulk.rest = !engine.give_rest(&mut link.giving, now, PORTION, &mut put.body);
        }
        let end = engine.flow_slots().min(bulk.at.saturating_add(MOST_LOOKED_AT));
        while !bulk.rest && bulk.at < end && out.len() + put.body.len() < full {
            let slot = bulk.at;
            bulk.at += 1;
            let Some(mark) = engine.flow_mark(slot) else { continue };
            let is_asked = || bulk.ranges == Ranges::ALL || bulk.ranges.has(self.book.hash(&mark).0);
            if (!bulk.only_seen || self.book.is_seen(slot)) && is_asked() {
                self.put_flow((now, engine, link), slot, &mut put, out);
            }
        }
        put.send(link, self.term, out);
        link.bulk = Some(bulk);
        if !bulk.rest && bulk.at >= engine.flow_slots() {
            link.frame(out, Kind::BulkEnd, self.term, &[]);
            link.bulk = None;
            link.given = link.given.or(Some(link.sent));
            link.digest_now = true;
        }
    }

    /// The peer has been told of all flows that have changed. Of one that has begun and ended since the last time, it has not
    /// heard: its client's server is told on its own.
    fn catch_up(now: Instant, link: &mut Link) {
        let is_passing = link.bulk.is_some_and(|bulk| bulk.rest);
        // The clients come with such a pass, but for those whose last flow ends meanwhile.
        if is_passing || now.since(link.caught_up) >= BEHIND {
            link.tell_recent(link.caught_up);
        }
        if !is_passing {
            link.caught_up = now;
        }
    }

    /// Has all sticky clients told once this gateway is the only active one: each gateway forgets those of a server that it has found
    /// down, so the peer may know others, and while it was active, it took none.
    pub(super) fn settle_clients(&mut self) {
        let is_only = self.is_only_active();
        if let Some(link) = self.link.as_deref_mut().filter(|link| link.proved)
            && !std::mem::replace(&mut link.tells_clients, is_only)
            && is_only
        {
            link.tell_recent(Instant::ZERO);
        }
    }

    /// Tells of sticky clients whose flows the peer may not have heard of.
    fn give_recent(&self, now: Instant, engine: &mut Engine, link: &mut Link, (out, full): (&mut Vec<u8>, usize)) {
        if !self.role.is_active() {
            (link.recent, link.telling_recent) = (None, None);
        }
        if link.telling_recent.is_none() {
            link.telling_recent = link.recent.take();
            let Some(since) = link.telling_recent else { return };
            engine.begin_giving_recent(&mut link.giving, since);
        }
        if out.len() >= full {
            return;
        }
        let mut put = Put::new();
        if engine.give_recent(&mut link.giving, now, MOST_CLIENTS, &mut put.body) {
            link.telling_recent = None;
        }
        put.send(link, self.term, out);
        link.next_flush = now + Duration::from_millis(1);
    }

    /// Tells the sequence numbers of connections that have become idle: those in their records are of an earlier time.
    fn give_numbers(&mut self, now: Instant, engine: &Engine, link: &mut Link, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        for _ in 0..MOST_NUMBERS {
            let Some(slot) = self.book.stale.next(link.numbers_at) else {
                link.numbers_at = 0;
                break;
            };
            link.numbers_at = slot + 1;
            if self.book.told(slot) == 0 {
                continue;
            }
            if let (Some(numbers), Some(mark)) = (engine.idle_numbers(now, slot), engine.flow_mark(slot)) {
                self.book.stale.clear(slot);
                body.extend(slot.to_be_bytes());
                body.extend(self.book.keys(&mark).to_be_bytes());
                body.extend(numbers);
            }
        }
        if !body.is_empty() {
            link.frame(out, Kind::Numbers, self.term, &body);
        }
    }

    /// Tells which flows have carried packets; returns whether all.
    fn give_touched(&mut self, link: &mut Link, (out, full): (&mut Vec<u8>, usize)) -> bool {
        let mut from = 0;
        loop {
            let mut body = Vec::new();
            while body.len() < MOST_WORDS * 12
                && let Some((word, bits)) = self.book.touched.take_word(from)
            {
                body.extend(word.to_be_bytes());
                body.extend(bits.to_be_bytes());
                from = (word + 1) * 64;
            }
            if body.is_empty() {
                return true;
            }
            link.frame(out, Kind::Touch, self.term, &body);
            if out.len() >= full {
                return false;
            }
        }
    }
}
