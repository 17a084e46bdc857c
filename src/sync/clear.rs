//! Sticky clients that an operator clears at the active gateway, and that the other one is to forget, too.
//!
//! The peer receives the operator's request, not a list of the clients that were cleared. Once the request is carried out here,
//! it goes to the peer, which removes the matching clients that it has received by then, a few at a time, and reports when it is
//! done. Some of them may have been given a server again since the request began: all clients that were given one since then are
//! sent again when the peer is done. Until then the request is repeated on each connection.

use super::event::Event;
use super::link::Link;
use super::node::Node;
use super::wire::{Kind, Reader};
use crate::engine::{Engine, StickyMark, StickyQuery, StickyWalk};
use crate::time::Instant;
use std::collections::VecDeque;

/// Most orders that wait for the peer to carry them out.
const MOST_ORDERS: usize = 64;
/// Most orders of the peer that are noted: those that wait, and some that it may not know to be carried out.
const MOST_TAKEN: usize = 4 * MOST_ORDERS;
/// Most bytes of a condition: names have at most 64 each.
const MOST_VALUE: u16 = 255;
/// Clients looked at in one call.
const CLIENTS: usize = 512;
/// Slots of the table looked at in one call for flows of clients that the peer is told of again.
const SLOTS: u32 = 4096;

const FORGET: u8 = 2;
const DONE: u8 = 3;

/// A request of an operator that has begun, and when: clients that are given a server later stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClearOrder {
    at: Instant,
    mark: StickyMark,
}

impl ClearOrder {
    /// Returns one that began with the first of both.
    fn min(self, other: ClearOrder) -> ClearOrder {
        ClearOrder { at: self.at.min(other.at), mark: self.mark.min(other.mark) }
    }
}

/// An order for the peer.
#[derive(Debug)]
struct Given {
    number: u32,
    order: ClearOrder,
    query: StickyQuery,
    has_told: bool,
}

/// An order of the peer.
#[derive(Debug)]
struct Taken {
    /// None of a peer that is not there any more.
    number: Option<u32>,
    until: StickyMark,
    query: StickyQuery,
    is_done: bool,
}

/// Clients that have been given a server since, and of whom the peer is told again: their flows from a slot on.
#[derive(Debug)]
struct Again {
    since: StickyMark,
    at: u32,
}

/// Orders that the peer is to carry out, and those that it has given.
#[derive(Debug, Default)]
pub(super) struct Clearing {
    numbered: u32,
    given: VecDeque<Given>,
    taken: VecDeque<Taken>,
    walk: Option<StickyWalk>,
    /// Orders of which the peer is to hear that they are carried out.
    done: Vec<u32>,
    again: Option<Again>,
}

impl Clearing {
    /// Returns whether there is something to do, and whether there is something to tell.
    pub(super) fn has_work(&self) -> bool {
        self.again.is_some() || self.taken.iter().any(|taken| !taken.is_done)
    }

    pub(super) fn has_news(&self) -> bool {
        !self.done.is_empty() || self.given.iter().any(|given| !given.has_told)
    }

    /// Another connection begins: what is not carried out is told again. Another peer numbers its orders anew.
    pub(super) fn met(&mut self, is_another: bool) {
        self.given.iter_mut().for_each(|given| given.has_told = false);
        self.done.clear();
        if is_another {
            // What the former one has asked for is carried out.
            self.taken.retain(|taken| !taken.is_done);
            self.taken.iter_mut().for_each(|taken| taken.number = None);
        }
    }

    /// Writes what the peer is to be told.
    pub(super) fn give(&mut self, term: u64, link: &mut Link, out: &mut Vec<u8>) {
        for given in self.given.iter_mut().filter(|given| !given.has_told) {
            link.frame(out, Kind::Clear, term, &write(FORGET, given.number, &given.query));
            given.has_told = true;
        }
        for number in self.done.drain(..) {
            link.frame(out, Kind::Clear, term, &write(DONE, number, &StickyQuery::default()));
        }
    }

    /// Removes an order given of which the peer may say nothing any more: it tells again what it would have with the next one.
    fn drop_order(&mut self, at: usize) {
        let dropped = self.given.remove(at);
        if let (Some(dropped), Some(next)) = (dropped, self.given.get_mut(at)) {
            next.order = next.order.min(dropped.order);
        }
    }

    /// Notes an order of the peer; what has been noted for longest and is carried out gives way.
    fn note(&mut self, taken: Taken) {
        if self.taken.len() >= MOST_TAKEN {
            let at = self.taken.iter().position(|taken| taken.is_done);
            // A peer that has more waiting than it may have will not hear that this one is done.
            let Some(at) = at else { return };
            self.taken.remove(at);
        }
        self.taken.push_back(taken);
    }

    /// Has the peer told again of all clients that have been given a server since an order began.
    fn tell_again(&mut self, order: ClearOrder, link: &mut Link) {
        link.tell_recent(order.at);
        let since = self.again.take().map_or(order.mark, |again| again.since.min(order.mark));
        self.again = Some(Again { since, at: 0 });
    }
}

impl Node {
    /// An operator's request to forget sticky clients begins. To be called before the first of them is forgotten here, and
    /// followed by [`Node::clear_sticky`] once all are. Nothing if this gateway is not active.
    pub fn begin_clearing(&self, now: Instant, engine: &Engine) -> Option<ClearOrder> {
        self.role.is_active().then(|| ClearOrder { at: now, mark: engine.sticky_mark() })
    }

    /// Has the peer forget the sticky clients that match, too; nothing if this gateway is not active. Those that were given
    /// their server after the begin of the `order` stay.
    pub fn clear_sticky(&mut self, order: Option<ClearOrder>, query: StickyQuery) {
        let Some(order) = order.filter(|_| self.role.is_active()) else { return };
        let clearing = &mut self.clearing;
        let like = clearing.given.iter().position(|given| given.query == query);
        clearing.numbered = clearing.numbered.wrapping_add(1);
        clearing.given.push_back(Given { number: clearing.numbered, order, query, has_told: false });
        if let Some(at) = like {
            // The later one is about more.
            clearing.drop_order(at);
        }
        if clearing.given.len() > MOST_ORDERS {
            clearing.drop_order(0);
            self.report(Event::ClearDropped);
        }
    }

    /// Reads an order of the peer, or that it has carried one out.
    pub(super) fn take_clear(&mut self, engine: &Engine, link: &mut Link, mut body: Reader<'_>) -> Option<()> {
        let (step, number) = (body.u8()?, body.u32()?);
        let clearing = &mut self.clearing;
        match step {
            FORGET => {
                let query = read(body)?;
                match clearing.taken.iter().find(|taken| taken.number == Some(number)) {
                    None => {
                        let until = engine.sticky_mark();
                        clearing.note(Taken { number: Some(number), until, query, is_done: false });
                    }
                    // It has not heard.
                    Some(taken) if taken.is_done && !clearing.done.contains(&number) => clearing.done.push(number),
                    Some(_) => {}
                }
            }
            DONE => {
                let at = clearing.given.iter().position(|given| given.number == number);
                if let Some(given) = at.and_then(|at| clearing.given.remove(at)) {
                    clearing.tell_again(given.order, link);
                }
            }
            // Other versions have other steps.
            _ => {}
        }
        Some(())
    }

    /// Goes on with the oldest order of the peer, and with what the peer is to be told again.
    pub(super) fn clear_more(&mut self, now: Instant, engine: &mut Engine) {
        self.note_again(engine);
        let clearing = &mut self.clearing;
        let Some(taken) = clearing.taken.iter_mut().find(|taken| !taken.is_done) else { return };
        let walk = clearing.walk.get_or_insert_with(|| engine.begin_clearing_until(taken.until));
        match engine.sticky(now, (walk, &taken.query), CLIENTS, &mut Vec::new()) {
            Some(true) => {}
            Some(false) => {
                (clearing.walk, taken.is_done) = (None, true);
                clearing.done.extend(taken.number);
            }
            None => clearing.walk = None,
        }
    }

    /// Notes flows of clients that have been given a server since an order began.
    fn note_again(&mut self, engine: &Engine) {
        let Some(mut again) = self.clearing.again.take().filter(|_| self.role.is_active()) else { return };
        let end = engine.flow_slots().min(again.at.saturating_add(SLOTS));
        for slot in (again.at..end).filter(|slot| engine.is_given_since(*slot, again.since)) {
            self.book.pending.set(slot);
        }
        again.at = end;
        self.clearing.again = (end < engine.flow_slots()).then_some(again);
    }
}

/// Writes a step of an order: fields of tag, length and value behind it.
fn write(step: u8, number: u32, query: &StickyQuery) -> Vec<u8> {
    let mut out = vec![step];
    out.extend(number.to_be_bytes());
    let client = query.client.map(|net| net.to_string());
    for (tag, value) in [(1, &query.service), (2, &query.server), (3, &client)] {
        if let Some(value) = value {
            out.push(tag);
            out.extend((value.len() as u16).to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }
    out
}

/// Reads what is behind it. With a condition that is not known here it is none: it would clear too many.
fn read(mut body: Reader<'_>) -> Option<StickyQuery> {
    let mut query = StickyQuery::default();
    while let Some(tag) = body.u8() {
        let len = body.u16().filter(|len| *len <= MOST_VALUE)?;
        let value = std::str::from_utf8(body.take(usize::from(len))?).ok()?;
        match tag {
            1 => query.service = Some(value.into()),
            2 => query.server = Some(value.into()),
            3 => query.client = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written_and_never_as_a_wider_one() {
        let (service, server) = (Some("web".to_owned()), Some("pool/a".to_owned()));
        let client = Some("198.51.100.0/24".parse().unwrap());
        let query = StickyQuery { service, server, client };
        for query in [query.clone(), StickyQuery { service: None, client: None, ..query }, StickyQuery::default()] {
            let mut bytes = write(FORGET, 7, &query);
            assert_eq!(bytes[..5], [FORGET, 0, 0, 0, 7]);
            assert_eq!(read(Reader(&bytes[5..])), Some(query));
            bytes.extend([9, 0, 1, 5]);
            assert_eq!(read(Reader(&bytes[5..])), None);
        }
    }
}
