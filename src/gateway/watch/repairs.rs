//! What is missing of the parts that the gateway installed, which repair is due, how long to pause, and what to log.
//!
//! It decides only: no clock, no socket. Whoever looks at the system tells it what was found, carries out the repair that
//! is due and says how it went.

use crate::control::{SystemState, Trouble};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// The pause before the second repair of a part; it doubles with each further one. The first is made at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a repair.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A part that stays for this long is repaired at once again.
const QUIET: Duration = Duration::from_secs(60);
/// Repairs this close to each other are one line of the log.
const BURST: Duration = Duration::from_millis(250);
/// How often a part may go missing without a quiet minute between before it counts as deleted again and again: setting a
/// device down and renaming it is two losses.
const FEW: u64 = 2;
/// How long a part that keeps being deleted is not mentioned after the first time; it doubles up to [`LONGEST_SILENCE`].
const FIRST_SILENCE: Duration = Duration::from_secs(10);
const LONGEST_SILENCE: Duration = Duration::from_secs(600);
/// The most parts named in a line of the log.
const MOST_NAMED: usize = 3;

/// A line for the log, and whether it is a warning that something of the gateway does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) is_warning: bool,
    pub(super) text: String,
}

/// Why a part does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// It is gone, or not as it was installed: it can be restored.
    Gone,
    /// It cannot be restored, for this reason.
    Failed(String),
    /// It is there, and this takes its packets. Only whoever made that can undo it.
    Hidden(String),
}

#[derive(Debug)]
struct Missing {
    since: Instant,
    why: Why,
    /// When the next repair is due.
    due: Instant,
    /// The reason that is in the log.
    told: Option<Why>,
}

#[derive(Debug, Default)]
struct Part {
    name: String,
    missing: Option<Missing>,
    /// The pause before the last repair.
    pause: Duration,
    restored_at: Option<Instant>,
    /// How often it went missing without a quiet minute between.
    times: u64,
}

/// What is deleted again and again, and not yet in the log.
#[derive(Debug)]
struct Again {
    since: Instant,
    names: BTreeSet<String>,
}

/// What was restored and is not yet in the log.
#[derive(Debug)]
struct Burst {
    began: Instant,
    last: Instant,
    names: BTreeSet<String>,
}

/// The state of all parts.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    parts: Vec<Part>,
    /// The repairs that are due, by time; at the same time in the order of installation.
    due: BTreeSet<(Instant, usize)>,
    repairs: u64,
    burst: Option<Burst>,
    again: Option<Again>,
    /// How long it is not said again that parts are deleted again and again, and until when.
    silence: Duration,
    silent_until: Instant,
    /// Since when a part without effect is not yet in the log: the cause may pass within milliseconds, as when somebody
    /// replaces all rules.
    untold: Option<Instant>,
    lines: Vec<Line>,
    /// The last line about a repair.
    last: Option<(Instant, String)>,
    is_changed: bool,
}

impl Repairs {
    /// Follows a changed list of parts, by name. A part that is new counts as installed.
    pub(super) fn follow<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let mut known: BTreeMap<String, Part> = self.parts.drain(..).map(|part| (part.name.clone(), part)).collect();
        let new = |name: &str| Part { name: name.into(), ..Part::default() };
        self.parts = names.map(|name| known.remove(name).unwrap_or_else(|| new(name))).collect();
        let due = self.parts.iter().enumerate().filter_map(|(place, part)| Some((part.due()?, place)));
        self.due = due.collect();
        self.is_changed = true;
    }

    /// Changes a part and keeps the order of repairs.
    fn with(&mut self, place: usize, change: impl FnOnce(&mut Part, &mut Vec<Line>)) {
        let Some(part) = self.parts.get_mut(place) else { return };
        let before = part.due();
        change(part, &mut self.lines);
        self.is_changed = true;
        let after = part.due();
        if before != after {
            before.map(|due| self.due.remove(&(due, place)));
            after.map(|due| self.due.insert((due, place)));
        }
    }

    /// Notes that a part is as it should be.
    pub(super) fn present(&mut self, place: usize, now: Instant) {
        if !self.is_missing(place) {
            return;
        }
        self.with(place, |part, lines| {
            // Whatever was in its way is gone, or somebody else has restored it.
            if let Some(was) = part.missing.take()
                && was.told.is_some()
            {
                let after = millis(now.since(was.since));
                lines.push(Line { is_warning: false, text: format!("{} works again after {after}", part.name) });
            }
        });
    }

    /// Notes that a part is gone, or not as it was installed.
    pub(super) fn gone(&mut self, place: usize, now: Instant) {
        let mut repeated = None;
        self.with(place, |part, _| match &mut part.missing {
            Some(Missing { why: Why::Gone | Why::Failed(_), .. }) => {}
            Some(missing) => (missing.why, missing.due) = (Why::Gone, now),
            None => {
                if part.restored_at.is_none_or(|at| now.since(at) >= QUIET) {
                    (part.pause, part.times) = (Duration::ZERO, 0);
                } else {
                    part.pause = longer(part.pause);
                }
                part.times += 1;
                if part.times > FEW {
                    repeated = Some(part.name.clone());
                }
                let due = part.restored_at.map_or(now, |at| (at + part.pause).max(now));
                part.missing = Some(Missing { since: now, why: Why::Gone, due, told: None });
            }
        });
        if let Some(name) = repeated
            && now >= self.silent_until
        {
            self.again.get_or_insert(Again { since: now, names: BTreeSet::new() }).names.insert(name);
        }
    }

    /// Says what is deleted again and again: once, then after growing silences.
    fn tell_of_repetition(&mut self, again: &Again, now: Instant) {
        let is_new = now.since(self.silent_until) >= QUIET;
        self.silence = (if is_new { Duration::ZERO } else { self.silence * 2 }).clamp(FIRST_SILENCE, LONGEST_SILENCE);
        self.silent_until = now + self.silence;
        let verb = if again.names.len() == 1 { "has" } else { "have" };
        let text = format!(
            "{} {verb} gone again soon after being restored: another program removes what it does not know (systemd-networkd: \
             ManageForeignRoutingPolicyRules=, ManageForeignRoutes=); it is restored with growing pauses of up to {} s, see \
             `eqctl status`",
            listed(&again.names),
            LONGEST_PAUSE.as_secs()
        );
        self.lines.push(Line { is_warning: true, text });
    }

    /// Notes that a part is there but without effect, since `by` takes its packets.
    pub(super) fn hidden(&mut self, place: usize, now: Instant, by: &str) {
        self.with(place, |part, _| {
            let missing = part.missing.get_or_insert(Missing { since: now, why: Why::Gone, due: now, told: None });
            missing.why = Why::Hidden(by.into());
        });
        self.untold = self.untold.or(Some(now));
    }

    /// Puts into the log what has been without effect for a while, one line for each cause.
    fn tell_hidden(&mut self, now: Instant) {
        let mut causes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for part in &mut self.parts {
            if let Some(missing) = &mut part.missing
                && let Why::Hidden(by) = &missing.why
                && missing.told.as_ref() != Some(&missing.why)
            {
                if now.since(missing.since) < BURST {
                    self.untold = Some(self.untold.map_or(missing.since, |since| since.min(missing.since)));
                    continue;
                }
                causes.entry(by.clone()).or_default().insert(part.name.clone());
                missing.told = Some(missing.why.clone());
            }
        }
        for (by, names) in causes {
            let verb = if names.len() == 1 { "has" } else { "have" };
            self.lines.push(Line { is_warning: true, text: format!("{} {verb} no effect: {by}", listed(&names)) });
        }
    }

    /// Returns the part whose repair is due next, if one is due.
    pub(super) fn next(&self, now: Instant) -> Option<usize> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, place)| *place)
    }

    /// Notes that a part was restored.
    pub(super) fn restored(&mut self, place: usize, now: Instant) {
        self.repairs += 1;
        let mut silent = None;
        self.with(place, |part, lines| {
            part.restored_at = Some(now);
            let Some(missing) = part.missing.take() else { return };
            if missing.told.is_some() {
                let text = format!("{} is restored after {}", part.name, millis(now.since(missing.since)));
                lines.push(Line { is_warning: false, text });
            } else if part.times <= FEW {
                // A part that keeps being deleted has lines of its own.
                silent = Some((missing.since, part.name.clone()));
            }
        });
        if let Some((since, name)) = silent {
            let burst = self.burst.get_or_insert(Burst { began: since, last: now, names: BTreeSet::new() });
            (burst.began, burst.last) = (burst.began.min(since), now);
            burst.names.insert(name);
        }
    }

    /// Notes that a part could not be restored; the next attempt comes after a longer pause.
    pub(super) fn failed(&mut self, place: usize, now: Instant, error: &str) {
        self.with(place, |part, lines| {
            let Some(missing) = &mut part.missing else { return };
            part.pause = longer(part.pause);
            missing.due = now + part.pause;
            let why = Why::Failed(error.into());
            if missing.told.as_ref() != Some(&why) {
                missing.told = Some(why.clone());
                let name = &part.name;
                let text = format!("{name} is gone and cannot be restored: {error}; trying again with growing pauses");
                lines.push(Line { is_warning: true, text });
            }
            missing.why = why;
        });
    }

    /// Returns when a repair or a line of the log is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let burst = self.burst.as_ref().map(|burst| burst.last + BURST);
        let untold = self.untold.map(|since| since + BURST);
        let again = self.again.as_ref().map(|again| again.since + BURST);
        self.due.first().map(|(due, _)| *due).into_iter().chain(burst).chain(again).chain(untold).min()
    }

    /// Returns whether a part does not work.
    pub(super) fn is_missing(&self, place: usize) -> bool {
        self.parts.get(place).is_some_and(|part| part.missing.is_some())
    }

    /// Takes the lines for the log.
    pub(super) fn take_lines(&mut self, now: Instant) -> Vec<Line> {
        if let Some(burst) = self.burst.take_if(|burst| now.since(burst.last) >= BURST) {
            let text = burst.text();
            (self.last, self.is_changed) = (Some((burst.last, text.clone())), true);
            self.lines.push(Line { is_warning: true, text });
        }
        if let Some(again) = self.again.take_if(|again| now.since(again.since) >= BURST) {
            self.tell_of_repetition(&again, now);
        }
        if self.untold.take_if(|since| now.since(*since) >= BURST).is_some() {
            self.tell_hidden(now);
        }
        std::mem::take(&mut self.lines)
    }

    /// Returns whether a part has not been repaired for a while, so that a repair would not be one in a series.
    pub(super) fn is_calm(&self, place: usize, now: Instant) -> bool {
        let part = self.parts.get(place);
        part.is_some_and(|part| part.missing.is_none() && part.restored_at.is_none_or(|at| now.since(at) >= QUIET))
    }

    /// Returns the state for `eqctl status` if it has changed since the last call, or anything else of it has.
    pub(super) fn news(&mut self, else_changed: bool) -> Option<SystemState> {
        (std::mem::take(&mut self.is_changed) || else_changed).then(|| self.state())
    }

    fn state(&self) -> SystemState {
        let trouble = |part: &Part| {
            let missing = part.missing.as_ref()?;
            let (text, next) = match &missing.why {
                Why::Gone if part.times > 1 => (format!("is gone for the {}th time", part.times), Some(missing.due)),
                Why::Gone => ("is gone".into(), Some(missing.due)),
                Why::Failed(error) => (format!("is gone and cannot be restored: {error}"), Some(missing.due)),
                Why::Hidden(by) => (format!("has no effect: {by}"), None),
            };
            Some(Trouble { part: part.name.clone(), what: text, since: missing.since, next, times: part.times })
        };
        let troubles = self.parts.iter().filter_map(trouble).collect();
        SystemState { repairs: self.repairs, last: self.last.clone(), troubles }
    }
}

impl Part {
    /// Returns when its repair is due.
    fn due(&self) -> Option<Instant> {
        let missing = self.missing.as_ref()?;
        (!matches!(missing.why, Why::Hidden(_))).then_some(missing.due)
    }
}

impl Burst {
    fn text(&self) -> String {
        let after = millis(self.last.since(self.began));
        let verb = if self.names.len() == 1 { "was" } else { "were" };
        format!("{} {verb} gone or changed by another program; restored after {after}", listed(&self.names))
    }
}

/// Lists names, the first few of many.
fn listed(names: &BTreeSet<String>) -> String {
    match names.first() {
        Some(one) if names.len() == 1 => one.clone(),
        _ => {
            let many = names;
            let named = many.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = many.len().saturating_sub(MOST_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{} parts ({named}{more})", many.len())
        }
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

pub(super) fn millis(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn repairs(names: &[&str]) -> Repairs {
        let mut repairs = Repairs::default();
        repairs.follow(names.iter().copied());
        repairs
    }

    fn texts(repairs: &mut Repairs, now: Instant) -> Vec<String> {
        repairs.take_lines(now).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_first_loss_is_repaired_at_once_and_a_burst_is_one_line() {
        let mut r = repairs(&["device d", "rule a", "rule b", "rule c", "rule d"]);
        assert_eq!((r.next(at(5)), r.poll_timeout()), (None, None));
        for place in [4, 1, 2, 3] {
            r.gone(place, at(10));
        }
        r.gone(4, at(11));
        assert_eq!(r.poll_timeout(), Some(at(10)));
        for place in [1, 2, 3, 4] {
            assert_eq!(r.next(at(12)), Some(place));
            r.restored(place, at(12));
        }
        assert_eq!((r.next(at(12)), r.poll_timeout()), (None, Some(at(262))));
        assert_eq!(texts(&mut r, at(50)), Vec::<String>::new(), "perhaps there is more");
        let want =
            "4 parts (rule a, rule b, rule c and 1 more) were gone or changed by another program; restored after 2 ms";
        assert_eq!(texts(&mut r, at(262)), [want]);
        let state = SystemState { repairs: 4, last: Some((at(12), want.into())), troubles: Vec::new() };
        assert_eq!((r.poll_timeout(), r.news(false), r.news(false)), (None, Some(state), None));
        r.gone(0, at(500));
        r.restored(0, at(503));
        assert_eq!(texts(&mut r, at(753)), ["device d was gone or changed by another program; restored after 3 ms"]);
    }

    #[test]
    fn a_part_deleted_again_and_again_is_repaired_with_growing_pauses_and_mentioned_seldom() {
        let mut r = repairs(&["rule a", "rule b"]);
        let (mut now, mut pauses, mut said) = (0, Vec::new(), Vec::new());
        // Both are deleted 100 ms after each repair.
        while now < 300_000 {
            let lost = now + 100;
            r.gone(0, at(lost));
            r.gone(1, at(lost));
            now = lost;
            while r.next(at(now)).is_none() {
                said.extend(texts(&mut r, at(now)));
                now += 1;
            }
            pauses.push(now - lost);
            for place in [0, 1] {
                assert_eq!(r.next(at(now)), Some(place));
                r.restored(place, at(now));
            }
            said.extend(texts(&mut r, at(now)));
        }
        assert_eq!(pauses[..7], [0, 0, 100, 300, 700, 1500, 3100]);
        assert!(pauses[10..].iter().all(|pause| *pause == 29_900) && pauses.len() < 20, "{pauses:?}");
        assert!(said[0].contains("(rule a, rule b) were gone or changed by another program"), "{}", said[0]);
        assert!(said[1..].iter().all(|line| line.starts_with("2 parts (rule a, rule b) have gone again")), "{said:?}");
        assert!((4..=6).contains(&said.len()), "{said:?}");
        // After a quiet minute it is a first loss again.
        r.gone(0, at(now + 60_000));
        assert_eq!(r.next(at(now + 60_000)), Some(0));
        assert_eq!(r.state().troubles[0].times, 1);
    }

    #[test]
    fn what_cannot_be_restored_is_said_once_and_tried_with_growing_pauses() {
        let mut r = repairs(&["route r"]);
        r.gone(0, at(0));
        let mut now = 0;
        for pause in [100, 200, 400, 800] {
            assert_eq!(r.next(at(now)), Some(0));
            r.failed(0, at(now), "File exists");
            r.gone(0, at(now));
            assert_eq!(r.poll_timeout(), Some(at(now + pause)));
            assert_eq!(r.next(at(now + pause - 1)), None);
            now += pause;
        }
        assert_eq!(texts(&mut r, at(now)).len(), 1);
        assert!(r.state().troubles[0].what.contains("File exists"));
        r.restored(0, at(now));
        assert_eq!(texts(&mut r, at(now)), ["route r is restored after 1500 ms"]);
    }

    #[test]
    fn a_hidden_part_is_said_once_never_repaired_and_works_again() {
        let mut r = repairs(&["route r", "route s"]);
        for now in [5, 6, 7] {
            r.hidden(0, at(now), "address on eth0");
            r.hidden(1, at(now), "address on eth0");
        }
        assert_eq!((r.next(at(99_999)), r.poll_timeout()), (None, Some(at(255))));
        assert!(texts(&mut r, at(254)).is_empty(), "it may pass");
        assert_eq!(texts(&mut r, at(255)), ["2 parts (route r, route s) have no effect: address on eth0"]);
        let trouble = &r.state().troubles[0];
        assert_eq!((trouble.since, trouble.next), (at(5), None));
        // Looking again whether it is there does not make it news.
        r.gone(0, at(300));
        assert_eq!(r.next(at(300)), Some(0));
        r.hidden(0, at(300), "address on eth0");
        assert!(texts(&mut r, at(600)).is_empty());
        r.present(0, at(1005));
        assert_eq!(texts(&mut r, at(1005)), ["route r works again after 1000 ms"]);
        r.present(0, at(1006));
        assert!(r.state().troubles.len() == 1 && texts(&mut r, at(1006)).is_empty());
        // What passes at once is not mentioned, however often.
        for now in [2000, 2240] {
            r.hidden(0, at(now), "no rule");
            assert!(texts(&mut r, at(now + 15)).is_empty());
            r.present(0, at(now + 20));
        }
        assert!(texts(&mut r, at(3000)).is_empty());
    }

    #[test]
    fn a_changed_list_keeps_what_is_known_of_each_name() {
        let mut r = repairs(&["a", "b"]);
        r.gone(1, at(1));
        r.follow(["b", "c"].into_iter());
        assert_eq!((r.next(at(2)), r.is_missing(0), r.is_missing(1)), (Some(0), true, false));
        r.follow(["c"].into_iter());
        assert_eq!(r.next(at(2)), None);
    }
}
