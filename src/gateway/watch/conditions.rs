//! What the gateway needs and did not install: it is looked at and reported, and whoever changed it has to undo that.
//!
//! It decides only: no clock, no socket.

use super::repairs::{Line, millis};
use crate::control::Trouble;
use crate::time::Instant;
use std::collections::BTreeMap;

/// The conditions that do not hold, by name.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    wrong: BTreeMap<String, (Instant, String)>,
    lines: Vec<Line>,
    is_changed: bool,
}

impl Conditions {
    /// Notes whether a condition holds, and if not, what is wrong and how to mend it.
    pub(super) fn note(&mut self, name: &str, wrong: Option<String>, now: Instant) {
        let known = self.wrong.get(name).map(|(_, what)| what);
        if known == wrong.as_ref() {
            return;
        }
        self.is_changed = true;
        match wrong {
            Some(what) => {
                self.lines.push(Line { is_warning: true, text: format!("{name} {what}") });
                let since = self.wrong.get(name).map_or(now, |(since, _)| *since);
                self.wrong.insert(name.into(), (since, what));
            }
            None => {
                if let Some((since, _)) = self.wrong.remove(name) {
                    let after = millis(now.since(since));
                    self.lines.push(Line { is_warning: false, text: format!("{name} works again after {after}") });
                }
            }
        }
    }

    /// Takes the lines for the log.
    pub(super) fn take_lines(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// Returns whether anything has changed since the last call.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Returns what does not hold, for `eqctl status`.
    pub(super) fn troubles(&self) -> impl Iterator<Item = Trouble> {
        self.wrong.iter().map(|(name, (since, what))| Trouble {
            part: name.clone(),
            what: what.clone(),
            since: *since,
            next: None,
            times: 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn a_condition_is_told_once_when_it_fails_and_once_when_it_holds_again() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut conditions = Conditions::default();
        conditions.note("forwarding", None, at(0));
        assert!(!conditions.take_news());
        for now in [10, 20] {
            conditions.note("forwarding", Some("is off".into()), at(now));
        }
        assert!(conditions.take_news() && !conditions.take_news());
        let trouble = conditions.troubles().next().unwrap();
        assert_eq!((trouble.part.as_str(), trouble.what.as_str(), trouble.since), ("forwarding", "is off", at(10)));
        conditions.note("forwarding", None, at(510));
        let lines: Vec<_> = conditions.take_lines().into_iter().map(|line| (line.is_warning, line.text)).collect();
        let want = [(true, "forwarding is off"), (false, "forwarding works again after 500 ms")];
        assert_eq!(lines, want.map(|(is_warning, text)| (is_warning, text.to_owned())));
        assert!(conditions.take_news() && conditions.troubles().next().is_none());
    }
}
