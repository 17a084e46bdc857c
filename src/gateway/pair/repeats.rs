//! Lines of the log that the peer can cause as often as it likes: each kind is said at once, and again after pauses that grow
//! while it goes on.

use crate::sync::Event;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// The first pause, and the longest. After the longest one without an event of its kind, it begins anew.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(600)];

/// What has been said of one kind of event.
#[derive(Debug)]
struct Said {
    /// When nothing of it had been said for long, or it was said last; and the pause after that.
    at: Instant,
    pause: Duration,
    came: Instant,
    /// The last event that was not said, and how many were not.
    unsaid: Option<(Event, u32)>,
}

/// By kind.
#[derive(Debug, Default)]
pub(super) struct Repeats(BTreeMap<u8, Said>);

impl Repeats {
    /// Takes an event; returns it if it is to be said now. What it is of a kind that the peer cannot repeat always is.
    pub(super) fn came(&mut self, event: &Event, now: Instant) -> bool {
        let Some(kind) = kind(event) else { return true };
        let Some(said) = self.0.get_mut(&kind).filter(|said| now.since(said.came) < PAUSES[1]) else {
            self.0.insert(kind, Said { at: now, pause: PAUSES[0], came: now, unsaid: None });
            return true;
        };
        said.came = now;
        let before = said.unsaid.take().map_or(0, |(_, times)| times);
        said.unsaid = Some((event.clone(), before.saturating_add(times(event))));
        false
    }

    /// Returns an event that was not said, now that its pause is over, and how often its kind has come in that time.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(Event, u32)> {
        let due = self.0.values_mut().find(|said| said.unsaid.is_some() && said.at + said.pause <= now)?;
        (due.at, due.pause) = (now, (due.pause + due.pause).min(PAUSES[1]));
        due.unsaid.take()
    }

    /// Returns when [`Repeats::poll`] next has something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().filter(|said| said.unsaid.is_some()).map(|said| said.at + said.pause).min()
    }
}

/// The kind of an event that the peer can repeat, also by one connection after another.
fn kind(event: &Event) -> Option<u8> {
    Some(match event {
        Event::Asked { .. } => 0,
        Event::Differs { .. } => 1,
        Event::Hosts { .. } => 2,
        Event::Refuses { .. } => 3,
        Event::Follows { .. } => 4,
        Event::Connected { differs: false, .. } => 5,
        Event::Connected { differs: true, .. } => 6,
        Event::InStep => 7,
        Event::Close(_)
        | Event::Ready { .. }
        | Event::Role { .. }
        | Event::Yielded
        | Event::Holding { .. }
        | Event::ClearDropped => return None,
    })
}

fn times(event: &Event) -> u32 {
    match event {
        Event::Asked { times } => *times,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn what_is_repeated_without_end_is_said_less_and_less_and_nothing_is_forgotten() {
        let (mut repeats, mut said, mut counted) = (Repeats::default(), Vec::new(), 0);
        for now in (0..3_600_000).step_by(10) {
            if repeats.came(&Event::Asked { times: 3 }, ms(now)) {
                said.push(now);
                counted += 3;
            }
            while let Some((event, times)) = repeats.poll(ms(now)) {
                assert!(matches!(event, Event::Asked { .. }));
                said.push(now);
                counted += times;
            }
        }
        assert_eq!(said[..5], [0, 1000, 3000, 7000, 15_000]);
        assert!(said.len() < 20, "{said:?}");
        // The last ones wait.
        let due = repeats.due().unwrap();
        assert_eq!(counted + repeats.poll(due).unwrap().1, 3 * 360_000);
        assert_eq!((repeats.poll(due), repeats.due()), (None, None));
    }

    #[test]
    fn kinds_do_not_hide_each_other_and_one_that_was_quiet_is_said_at_once() {
        let mut repeats = Repeats::default();
        let (differs, in_step) = (Event::Differs { ranges: 1 }, Event::InStep);
        assert!(repeats.came(&differs, ms(0)) && repeats.came(&in_step, ms(1)));
        assert!(!repeats.came(&Event::Differs { ranges: 9 }, ms(2)));
        assert!(repeats.came(&Event::Yielded, ms(3)) && repeats.came(&Event::Yielded, ms(3)));
        assert_eq!(repeats.poll(ms(999)), None);
        assert_eq!(repeats.poll(ms(1000)), Some((Event::Differs { ranges: 9 }, 1)), "the last one");
        assert!(repeats.came(&differs, ms(1000 + 600_000)));
    }
}
