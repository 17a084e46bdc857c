//! The ledger as text, for the gateway after this one: what operators changed, with what the file said, and the journal.
//!
//! ```text
//!   Ledger --copy--> LedgerCopy --write (in any thread)--> JSON --load--> Ledger of a gateway that starts
//! ```
//!
//! The text names its version. A reader skips keys that it does not know, and names what it cannot read. Times are in
//! milliseconds after the time of whatever the text is kept in, before it with a negative sign.

use super::journal::Note;
use super::{Drain, Ledger};
use crate::config::Settings;
use crate::config::changes::{Changes, Dropped, Entry, Kind, Place, Said, Target, Value, Who};
use crate::engine::Engine;
use crate::time::Instant;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The version of the text: a reader reads its own only. New keys do not change it.
const VERSION: u32 = 1;

/// The text.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Text<C, N> {
    version: u32,
    changes: Vec<C>,
    history: Vec<N>,
}

/// A change.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    object: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    value: Value,
    /// What the file said.
    #[serde(default)]
    file: Said,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    outside: bool,
    who: Who,
    at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<i64>,
}

/// An entry of the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Past {
    at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    who: Option<Who>,
    what: String,
}

/// Returns how long after another time one is, in milliseconds.
fn after(base: Instant, at: Instant) -> i64 {
    let span = (i128::from(at.as_nanos()) - i128::from(base.as_nanos())) / 1_000_000;
    // Far is 292 million years away.
    span.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Returns the time so many milliseconds after another one; none if the clock does not reach it.
fn time(base: Instant, after_ms: i64) -> Option<Instant> {
    let nanos = i128::from(base.as_nanos()) + i128::from(after_ms) * 1_000_000;
    u64::try_from(nanos.max(0)).ok().map(Instant::from_nanos)
}

/// What is written of a ledger, as it was at one time; a copy is cheap.
#[derive(Debug, Clone)]
pub struct LedgerCopy {
    changes: Arc<Changes>,
    notes: Vec<Note>,
}

impl LedgerCopy {
    /// Writes it; times are relative to `base`.
    pub fn write(&self, base: Instant) -> Vec<u8> {
        let change = |((object, key), entry): (&Place, &Entry)| Change {
            object: object.clone(),
            key: key.clone(),
            value: entry.value.clone(),
            file: entry.said.clone(),
            outside: entry.outside,
            who: entry.who,
            at_ms: after(base, entry.at),
            deadline_ms: entry.deadline.map(|deadline| after(base, deadline)),
        };
        let past = |note: &Note| Past { at_ms: after(base, note.at), who: note.who, what: note.what.clone() };
        let text = Text {
            version: VERSION,
            changes: self.changes.iter().map(change).collect(),
            history: self.notes.iter().map(past).collect(),
        };
        serde_json::to_vec(&text).expect("the text has only string keys, and a Vec takes all")
    }
}

/// What became of the changes that an earlier gateway had.
///
/// Its `Display` is one line: `5 changes by operators are kept, 1 is not`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Changes that are kept.
    pub changes: usize,
    /// Those that no longer apply, with the reason.
    pub dropped: Vec<Dropped>,
    /// Those that this version cannot read, with the reason, a line each.
    pub unreadable: Vec<String>,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: usize, one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {more}"),
        };
        write!(f, "{} kept", of(self.changes, "change by operators is", "changes by operators are"))?;
        match self.dropped.len() + self.unreadable.len() {
            0 => Ok(()),
            lost => write!(f, ", {} not", of(lost, "is", "are")),
        }
    }
}

impl Ledger {
    /// Returns what [`Ledger::load_changes`] reads, without writing it yet.
    pub fn copy(&self) -> LedgerCopy {
        LedgerCopy { changes: Arc::clone(&self.basis.changes), notes: self.journal.notes().cloned().collect() }
    }

    /// Writes what operators changed, and the journal, for another gateway; times are relative to `base`.
    pub fn save_changes(&self, base: Instant) -> Vec<u8> {
        self.copy().write(base)
    }

    /// Takes what an earlier gateway wrote, `base` being the time from which it told times: what the file does not speak
    /// against is kept. From now on [`Ledger::in_force`] has the settings to make the engine of.
    ///
    /// `usable` says why the system cannot take settings; the changes that are the reason are dropped, the newest first. It
    /// must take those of the file.
    ///
    /// # Errors
    /// Why the text cannot be read at all; nothing has changed then.
    pub fn load_changes(
        &mut self,
        text: &[u8],
        base: Instant,
        now: Instant,
        usable: impl Fn(&Settings) -> Result<(), String>,
    ) -> Result<Kept, String> {
        let text: Text<serde_json::Value, serde_json::Value> =
            serde_json::from_slice(text).map_err(|error| format!("what operators changed is not readable: {error}"))?;
        if text.version != VERSION {
            return Err(format!(
                "what operators changed is written in version {} of the format, and this program reads version {VERSION}",
                text.version
            ));
        }
        let Some(file) = self.basis.file.clone() else {
            return Err("what operators changed is not kept, as this gateway runs without a configuration file".into());
        };
        let (mut changes, mut kept) = (Changes::default(), Kept::default());
        for change in text.changes {
            let shown = change.to_string();
            match read(change, base, now) {
                Ok(((target, key), entry)) => changes.put(target, key, entry),
                Err(error) => kept.unreadable.push(format!("{error}: {shown}")),
            }
        }
        kept.dropped = changes.reconcile(file.settings());
        let seed = self.basis.in_force.seed;
        let fit = |changes: &Changes| {
            let settings = file.with(changes).map_err(|conflict| conflict.to_string())?;
            usable(&settings).map(|()| settings)
        };
        let (settings, clashing) = changes.settle_by(&file, fit(&changes), fit);
        kept.dropped.extend(clashing);
        kept.changes = changes.len();
        for past in text.history {
            let past = serde_json::from_value::<Past>(past).ok();
            if let Some((at, past)) = past.and_then(|past| Some((time(base, past.at_ms)?, past))) {
                self.journal.remember(Note { at: at.min(now), who: past.who, what: past.what });
            }
        }
        for dropped in &kept.dropped {
            self.journal.note_logged(now, None, dropped.to_string());
        }
        for ((target, key), entry) in changes.iter() {
            let drains = matches!(&entry.value, Value::Set(value) if value.contains("draining"));
            if target.kind == Kind::Server && key.as_deref() == Some("state") && drains {
                self.drains.insert(target.name.clone(), Drain { began: entry.at, ended: None, cut: 0 });
            }
        }
        self.basis.changes = Arc::new(changes);
        self.basis.in_force = Arc::new(if settings.seed == 0 { settings.with_seed(seed) } else { settings });
        Ok(kept)
    }

    /// Brings an engine that was made of the settings in force, and has read the state of an earlier gateway, in line with
    /// the changes that were loaded.
    pub fn started(&mut self, engine: &mut Engine, now: Instant) {
        let drains = self.drains.clone();
        self.assert(engine, now);
        self.drains.extend(drains);
    }
}

/// Reads a change.
fn read(change: serde_json::Value, base: Instant, now: Instant) -> Result<(Place, Entry), String> {
    let Change { object, key, value, file, outside, who, at_ms, deadline_ms } =
        serde_json::from_value(change).map_err(|error| error.to_string())?;
    let fits = match &value {
        Value::Set(_) | Value::Unset => key.is_some(),
        Value::Added(_) | Value::Removed => key.is_none() && object.kind == Kind::Server,
    };
    if !fits {
        return Err("such a change is unknown to this version".into());
    }
    let at = time(base, at_ms).ok_or("its time is out of range")?.min(now);
    let deadline = deadline_ms.map(|after| time(base, after).ok_or("its deadline is out of range")).transpose()?;
    Ok(((object, key), Entry { value, said: file, outside, who, at, deadline }))
}
