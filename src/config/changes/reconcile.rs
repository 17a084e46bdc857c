//! What becomes of the changes when the file is another one: those for which the newer file says something else than the
//! older one no longer apply.

use super::super::listing;
use super::super::settings::Settings;
use super::{Changes, Entry, File, Kind, Place, Target, Value};
use std::fmt;

/// A change that no longer applies, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The object and key.
    pub place: Place,
    /// The change.
    pub entry: Entry,
    /// Why it no longer applies.
    pub why: Why,
}

/// Why a change no longer applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The file says this for the key; it said something else before.
    Says(String),
    /// The file says the same as the change.
    Same,
    /// The file no longer has the object.
    Gone,
    /// The file has the object, which it did not have before.
    Exists,
    /// The file has an object of that name at another address or port.
    Moved,
    /// The newer file with the change would be wrong, for this reason.
    Conflict(String),
}

/// One line: `weight of server web/a: the file says 5, so the change to 3 by uid 1000, pid 4711 no longer applies`.
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, key) = &self.place;
        let of = key.as_ref().map_or(String::new(), |key| format!("{key} of "));
        let change = match &self.entry.value {
            Value::Set(value) => format!("change to {value}"),
            Value::Unset => "change to the default".into(),
            Value::Added(_) => "addition".into(),
            Value::Removed => "removal".into(),
        };
        let why = match &self.why {
            Why::Says(value) => format!("the file says {value}"),
            Why::Same => "the file says the same".into(),
            Why::Gone => "the file no longer has it".into(),
            Why::Exists => "the file has it".into(),
            Why::Moved => "the file has one of that name at another address or port".into(),
            Why::Conflict(reason) => reason.clone(),
        };
        write!(f, "{of}{target}: {why}, so the {change} by {} no longer applies", self.entry.who)
    }
}

impl Changes {
    /// Drops the changes for which the newer file says something else than the older one, and returns them.
    pub fn reconcile(&mut self, old: &Settings, new: &Settings) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        let mut lost: Vec<Target> = Vec::new();
        for (place, entry) in std::mem::take(&mut self.entries) {
            let why = why(&place, &entry.value, old, new).or_else(|| lost.contains(&place.0).then_some(Why::Gone));
            let Some(why) = why else {
                self.entries.insert(place, entry);
                continue;
            };
            if matches!(entry.value, Value::Added(_)) && why != Why::Exists {
                lost.push(place.0.clone());
            }
            dropped.push(Dropped { place, entry, why });
        }
        dropped
    }

    /// Drops the changes with which a file would be wrong, the newest of those that clash, and returns the settings of
    /// the file with the others.
    pub fn settle(&mut self, file: &File) -> (Settings, Vec<Dropped>) {
        if let Ok(settings) = file.with(self) {
            return (settings, Vec::new());
        }
        // One by one, the oldest first: what fits is kept.
        let mut all: Vec<(Place, Entry)> = std::mem::take(&mut self.entries).into_iter().collect();
        all.sort_by_key(|((target, key), entry)| (entry.at, target.clone(), key.clone()));
        let (mut settings, mut dropped) = (file.settings().clone(), Vec::new());
        for (place, entry) in all {
            let mut more = self.clone();
            more.entries.insert(place.clone(), entry.clone());
            match file.with(&more) {
                Ok(fits) => (settings, *self) = (fits, more),
                Err(conflict) => dropped.push(Dropped { place, entry, why: Why::Conflict(conflict.to_string()) }),
            }
        }
        (settings, dropped)
    }
}

/// Returns why a change no longer applies once the newer file is in force; none if it does.
fn why((target, key): &Place, change: &Value, old: &Settings, new: &Settings) -> Option<Why> {
    let (before, now) = (listing::find(old, target), listing::find(new, target));
    match (change, key) {
        (Value::Added(_), _) => match now {
            Some(_) => Some(Why::Exists),
            None => {
                let pool = Target::new(Kind::Pool, target.parts().0);
                (target.kind == Kind::Server && listing::find(new, &pool).is_none()).then_some(Why::Gone)
            }
        },
        (Value::Removed, _) => {
            let Some(now) = now else { return Some(Why::Gone) };
            let moved = |key| before.as_ref().is_some_and(|before| before.at(key) != now.at(key));
            (moved("address") || moved("port")).then_some(Why::Moved)
        }
        (change, Some(key)) => {
            let [was, says] = [before, now].map(|object| object.and_then(|object| object.at(key).map(str::to_owned)));
            if was == says {
                return None;
            }
            Some(match says {
                None => Why::Gone,
                Some(says) if matches!(change, Value::Set(value) if *value == says) => Why::Same,
                Some(says) => Why::Says(says),
            })
        }
        (_, None) => None,
    }
}
