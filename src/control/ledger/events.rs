//! What happened lately: events of the engine, and what operators and reloads changed; numbered, so that somebody may ask
//! for what is new.

use super::super::protocol::EventRow;
use crate::config::changes::Who;
use crate::engine::{Event, Weight};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Most events that are kept.
const MOST: usize = 1024;

#[derive(Debug)]
struct Kept {
    number: u64,
    at: Instant,
    grave: bool,
    what: String,
    by: Option<Who>,
}

/// The latest events.
#[derive(Debug, Default)]
pub(super) struct Events {
    last: u64,
    kept: VecDeque<Kept>,
}

impl Events {
    fn put(&mut self, at: Instant, grave: bool, what: String, by: Option<Who>) {
        self.last += 1;
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { number: self.last, at, grave, what, by });
    }

    /// Takes note of an event of the engine; those of single flows are too many.
    pub(super) fn saw(&mut self, event: &Event, now: Instant) {
        match event.weight() {
            Weight::Flow => {}
            weight => self.put(now, weight == Weight::Grave, event.to_string(), None),
        }
    }

    /// Takes note of a change; each line of `what` is one.
    pub(super) fn note(&mut self, at: Instant, by: Option<Who>, what: &str) {
        for what in what.lines() {
            self.put(at, false, what.to_owned(), by);
        }
    }

    /// Returns the events after a number, the oldest first; all without a number, or if the number is of a later time, as
    /// it is when another gateway gave it.
    pub(super) fn rows(&self, now: Instant, after: Option<u64>) -> Vec<EventRow> {
        let after = after.filter(|after| *after <= self.last).unwrap_or(0);
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let row = |kept: &Kept| EventRow {
            number: kept.number,
            ago_ms: millis(now.since(kept.at)),
            grave: kept.grave,
            what: kept.what.clone(),
            who: kept.by,
        };
        self.kept.iter().filter(|kept| kept.number > after).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(s)
    }

    #[test]
    fn what_is_new_is_found_by_its_number_and_the_oldest_make_room() {
        let mut events = Events::default();
        for n in 0..2000 {
            events.note(at(n), None, &format!("change {n}\nand more"));
        }
        let all = events.rows(at(2000), None);
        assert_eq!((all.len(), all[0].number, all[MOST - 1].number), (MOST, 4001 - MOST as u64, 4000));
        assert_eq!((all[MOST - 2].what.as_str(), all[MOST - 1].ago_ms), ("change 1999", 1_000));
        let news = events.rows(at(2000), Some(3998));
        assert_eq!(news.iter().map(|row| row.number).collect::<Vec<_>>(), [3999, 4000]);
        assert_eq!(events.rows(at(2000), Some(9_000)).len(), MOST, "another gateway gave that number");
        assert!(events.rows(at(2000), Some(4000)).is_empty());
    }

    #[test]
    fn events_of_single_flows_are_left_out() {
        let mut events = Events::default();
        let flow = crate::ids::FlowId { index: 1, generation: 0 };
        events.saw(&Event::FlowEstablished { was: flow, id: flow }, at(1));
        events.saw(&Event::ServerDrained { server: "web/a".into() }, at(2));
        events.saw(&Event::DrainDeadline { server: "web/a".into(), flows: 3 }, at(3));
        let rows = events.rows(at(3), None);
        assert_eq!(rows.iter().map(|row| row.grave).collect::<Vec<_>>(), [false, true]);
    }
}
