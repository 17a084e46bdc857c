//! Sticky clients that an operator has cleared at the active gateway, and that the other one is to forget, too.
//!
//! What is told is what the operator has asked for, and how long ago: not who was cleared. It comes again until it is
//! acknowledged, also by another connection. The other one looks at its clients a few at a time, and forgets those that were
//! given their server before.

use super::event::Event;
use super::link::Link;
use super::node::Node;
use super::wire::{Kind, Reader};
use crate::engine::{Engine, StickyQuery, StickyWalk};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Most orders that wait to be told or carried out.
const MOST_ORDERS: usize = 64;
/// Most bytes of a condition: names have at most 64 each.
const MOST_VALUE: u16 = 255;
/// Clients looked at in one call.
const CLIENTS: usize = 512;

/// An order, and the frame by which the peer was told.
#[derive(Debug)]
struct Order {
    query: StickyQuery,
    at: Instant,
    told: Option<u64>,
}

/// Orders that the peer is to hear of, and those that it has given.
#[derive(Debug, Default)]
pub(super) struct Clearing {
    given: VecDeque<Order>,
    taken: VecDeque<StickyQuery>,
    walk: Option<StickyWalk>,
}

impl Clearing {
    /// Returns whether there is something to do, and whether there is something to tell.
    pub(super) fn has_work(&self) -> bool {
        !self.taken.is_empty()
    }

    pub(super) fn has_news(&self) -> bool {
        self.given.iter().any(|order| order.told.is_none())
    }

    /// Forgets by which frames the peer was told: another connection begins.
    pub(super) fn tell_again(&mut self) {
        self.given.iter_mut().for_each(|order| order.told = None);
    }

    /// Forgets orders that the peer has read.
    pub(super) fn acknowledged(&mut self, seq: u64) {
        self.given.retain(|order| order.told.is_none_or(|told| told > seq));
    }

    /// Writes what the peer is to be told.
    pub(super) fn give(&mut self, now: Instant, term: u64, link: &mut Link, out: &mut Vec<u8>) {
        for order in self.given.iter_mut().filter(|order| order.told.is_none()) {
            link.frame(out, Kind::Clear, term, &write(&order.query, now.since(order.at)));
            order.told = Some(link.sent);
        }
    }
}

impl Node {
    /// Has the peer forget the sticky clients that match, too; nothing if this gateway is not active. Those that were given
    /// their server later stay.
    pub fn clear_sticky(&mut self, now: Instant, query: StickyQuery) {
        if !self.role.is_active() {
            return;
        }
        // The later one is about more.
        self.clearing.given.retain(|order| order.query != query);
        if self.clearing.given.len() >= MOST_ORDERS {
            self.clearing.given.pop_front();
            self.report(Event::NotTold);
        }
        self.clearing.given.push_back(Order { query, at: now, told: None });
    }

    /// Reads an order of the peer.
    pub(super) fn take_clear(&mut self, now: Instant, body: Reader<'_>) -> Option<()> {
        let (query, ago) = read(body)?;
        let before = Instant::from_nanos(now.as_nanos().saturating_sub(u64::try_from(ago.as_nanos()).ok()?));
        if self.clearing.taken.len() < MOST_ORDERS {
            self.clearing.taken.push_back(StickyQuery { given_before: Some(before), ..query });
        }
        Some(())
    }

    /// Goes on with an order of the peer.
    pub(super) fn clear_more(&mut self, now: Instant, engine: &mut Engine) {
        let Some(query) = self.clearing.taken.front() else { return };
        let walk = self.clearing.walk.get_or_insert_with(|| engine.begin_sticky());
        match engine.sticky(now, (walk, query), (CLIENTS, true), &mut Vec::new()) {
            Some(true) => {}
            Some(false) => {
                self.clearing.walk = None;
                self.clearing.taken.pop_front();
            }
            // An operator has asked for a list meanwhile.
            None => self.clearing.walk = None,
        }
    }
}

/// Writes an order: its age u64 in ns, then fields of tag, length and value.
fn write(query: &StickyQuery, ago: Duration) -> Vec<u8> {
    let mut out = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX).to_be_bytes().to_vec();
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

/// Reads an order. One with a condition that is not known here is none: it would clear too many.
fn read(mut body: Reader<'_>) -> Option<(StickyQuery, Duration)> {
    let ago = Duration::from_nanos(body.u64()?);
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
    Some((query, ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written_and_never_as_a_wider_one() {
        let (service, server) = (Some("web".to_owned()), Some("pool/a".to_owned()));
        let client = Some("198.51.100.0/24".parse().unwrap());
        let query = StickyQuery { service, server, client, given_before: None };
        for query in [query.clone(), StickyQuery { service: None, client: None, ..query }, StickyQuery::default()] {
            let mut bytes = write(&query, Duration::from_secs(7));
            assert_eq!(read(Reader(&bytes)), Some((query, Duration::from_secs(7))));
            bytes.extend([9, 0, 1, 5]);
            assert_eq!(read(Reader(&bytes)), None);
        }
    }
}
