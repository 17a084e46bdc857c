//! Sticky clients that an operator clears at the active gateway, and that the other one is to forget, too.
//!
//! What is told is what the operator has asked for: not who was cleared. The peer notes where it is among its clients when the
//! operator's request begins (step 1), and forgets those that were given their server before when it is carried out here (step 2):
//! what comes in between, in the order of the connection, was given its server later. It looks at a few clients at a time, and says
//! when it is done (step 3). Until then the order comes again with each connection.

use super::event::Event;
use super::link::Link;
use super::node::Node;
use super::wire::{Kind, Reader};
use crate::engine::{Engine, StickyMark, StickyQuery, StickyWalk};
use crate::time::Instant;
use std::collections::VecDeque;

/// Most orders that wait for the peer to carry them out.
const MOST_ORDERS: usize = 64;
/// Most requests of operators that are under way, as far as the peer notes when they began.
const MOST_BEGUN: usize = 64;
/// Most orders of the peer that are noted: those that wait, and some that it may not know to be carried out.
const MOST_TAKEN: usize = 2 * (MOST_ORDERS + MOST_BEGUN);
/// Most bytes of a condition: names have at most 64 each.
const MOST_VALUE: u16 = 255;
/// Clients looked at in one call.
const CLIENTS: usize = 512;

const BEGINS: u8 = 1;
const FORGET: u8 = 2;
const DONE: u8 = 3;

/// A request of an operator that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClearOrder(u32);

/// An order for the peer.
#[derive(Debug)]
struct Given {
    order: ClearOrder,
    /// Nothing while it is being carried out here.
    query: Option<StickyQuery>,
    has_told_begin: bool,
    has_told: bool,
}

/// An order of the peer.
#[derive(Debug)]
struct Taken {
    /// None of a peer that is not there any more.
    order: Option<ClearOrder>,
    until: StickyMark,
    /// Nothing while it is being carried out there.
    query: Option<StickyQuery>,
    is_done: bool,
}

impl Taken {
    fn is_due(&self) -> bool {
        self.query.is_some() && !self.is_done
    }
}

/// Orders that the peer is to carry out, and those that it has given.
#[derive(Debug, Default)]
pub(super) struct Clearing {
    begun: u32,
    given: VecDeque<Given>,
    taken: VecDeque<Taken>,
    walk: Option<StickyWalk>,
    /// Orders of which the peer is to hear that they are carried out.
    done: Vec<ClearOrder>,
}

impl Clearing {
    /// Returns whether there is something to do, and whether there is something to tell.
    pub(super) fn has_work(&self) -> bool {
        self.taken.iter().any(Taken::is_due)
    }

    pub(super) fn has_news(&self) -> bool {
        let is_new = |given: &Given| !given.has_told_begin || given.query.is_some() && !given.has_told;
        !self.done.is_empty() || self.given.iter().any(is_new)
    }

    /// Another connection begins: what is not carried out is told again. Another peer numbers its orders anew.
    pub(super) fn met(&mut self, is_another: bool) {
        self.given.iter_mut().for_each(|given| (given.has_told_begin, given.has_told) = (false, false));
        self.done.clear();
        if is_another {
            // What the former one has asked for is carried out.
            self.taken.retain(Taken::is_due);
            self.taken.iter_mut().for_each(|taken| taken.order = None);
        }
    }

    /// Writes what the peer is to be told.
    pub(super) fn give(&mut self, term: u64, link: &mut Link, out: &mut Vec<u8>) {
        for given in &mut self.given {
            if !std::mem::replace(&mut given.has_told_begin, true) {
                link.frame(out, Kind::Clear, term, &write(BEGINS, given.order, &StickyQuery::default()));
            }
            if let Some(query) = given.query.as_ref().filter(|_| !given.has_told) {
                link.frame(out, Kind::Clear, term, &write(FORGET, given.order, query));
                given.has_told = true;
            }
        }
        for order in self.done.drain(..) {
            link.frame(out, Kind::Clear, term, &write(DONE, order, &StickyQuery::default()));
        }
    }

    /// Removes the oldest of the orders given that are this, if there are as many as there may be; returns whether it has.
    fn make_room(&mut self, most: usize, is_this: impl Fn(&Given) -> bool) -> bool {
        let is_full = self.given.iter().filter(|given| is_this(given)).count() >= most;
        let oldest = self.given.iter().position(is_this).filter(|_| is_full);
        oldest.is_some_and(|at| self.given.remove(at).is_some())
    }

    /// Notes an order of the peer; what it has to be noted for longest that waits for nothing gives way.
    fn note(&mut self, taken: Taken) {
        if self.taken.len() >= MOST_TAKEN {
            let at = self.taken.iter().position(|taken| taken.is_done);
            let at = at.or_else(|| self.taken.iter().position(|taken| taken.query.is_none()));
            // A peer that has more waiting than it may have will not hear that this one is done.
            let Some(at) = at else { return };
            self.taken.remove(at);
        }
        self.taken.push_back(taken);
    }
}

impl Node {
    /// An operator's request to forget sticky clients begins: the peer notes that. To be called before the first of them is
    /// forgotten here, and followed by [`Node::clear_sticky`] once all are. Nothing if this gateway is not active.
    pub fn begin_clearing(&mut self) -> Option<ClearOrder> {
        if !self.role.is_active() {
            return None;
        }
        let clearing = &mut self.clearing;
        // One that nobody carries out any more, or that the peer will carry out as if it had begun when it hears of it.
        clearing.make_room(MOST_BEGUN, |given| given.query.is_none());
        clearing.begun = clearing.begun.wrapping_add(1);
        let order = ClearOrder(clearing.begun);
        clearing.given.push_back(Given { order, query: None, has_told_begin: false, has_told: false });
        Some(order)
    }

    /// Has the peer forget the sticky clients that match, too; nothing if this gateway is not active. Those that were given
    /// their server after the begin of the `order` stay.
    pub fn clear_sticky(&mut self, order: Option<ClearOrder>, query: StickyQuery) {
        let Some(order) = order.filter(|_| self.role.is_active()) else { return };
        let clearing = &mut self.clearing;
        let begun = clearing.given.iter().position(|given| given.order == order);
        let begun = begun.and_then(|at| clearing.given.remove(at));
        // The later one is about more.
        clearing.given.retain(|given| given.query.as_ref() != Some(&query));
        let is_dropped = clearing.make_room(MOST_ORDERS, |given| given.query.is_some());
        let has_told_begin = begun.is_some_and(|begun| begun.has_told_begin);
        clearing.given.push_back(Given { order, query: Some(query), has_told_begin, has_told: false });
        if is_dropped {
            self.report(Event::ClearDropped);
        }
    }

    /// Reads an order of the peer, or that it has carried one out.
    pub(super) fn take_clear(&mut self, engine: &Engine, mut body: Reader<'_>) -> Option<()> {
        let (step, order) = (body.u8()?, ClearOrder(body.u32()?));
        let query = read(body)?;
        let clearing = &mut self.clearing;
        let known = clearing.taken.iter_mut().find(|taken| taken.order == Some(order));
        let new = |query| Taken { order: Some(order), until: engine.sticky_mark(), query, is_done: false };
        match (step, known) {
            (BEGINS, None) => clearing.note(new(None)),
            (BEGINS, Some(_)) => {}
            (FORGET, None) => clearing.note(new(Some(query))),
            (FORGET, Some(taken)) if taken.is_done => {
                // It has not heard.
                if !clearing.done.contains(&order) {
                    clearing.done.push(order);
                }
            }
            (FORGET, Some(taken)) => taken.query = Some(query),
            (DONE, _) => clearing.given.retain(|given| given.order != order),
            _ => return None,
        }
        Some(())
    }

    /// Goes on with the oldest order of the peer.
    pub(super) fn clear_more(&mut self, now: Instant, engine: &mut Engine) {
        let clearing = &mut self.clearing;
        let Some(taken) = clearing.taken.iter_mut().find(|taken| taken.is_due()) else { return };
        let Some(query) = &taken.query else { return };
        let walk = clearing.walk.get_or_insert_with(|| engine.begin_clearing_until(taken.until));
        match engine.sticky(now, (walk, query), CLIENTS, &mut Vec::new()) {
            Some(true) => {}
            Some(false) => {
                (clearing.walk, taken.is_done) = (None, true);
                clearing.done.extend(taken.order);
            }
            None => clearing.walk = None,
        }
    }
}

/// Writes a step of an order: fields of tag, length and value behind it.
fn write(step: u8, order: ClearOrder, query: &StickyQuery) -> Vec<u8> {
    let mut out = vec![step];
    out.extend(order.0.to_be_bytes());
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
            let mut bytes = write(FORGET, ClearOrder(7), &query);
            assert_eq!(bytes[..5], [FORGET, 0, 0, 0, 7]);
            assert_eq!(read(Reader(&bytes[5..])), Some(query));
            bytes.extend([9, 0, 1, 5]);
            assert_eq!(read(Reader(&bytes[5..])), None);
        }
    }
}
