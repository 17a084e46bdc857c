//! What becomes of the changes when the file is another one: those for which it says something else than when they were
//! made no longer apply.
//!
//! A change of a server in a pool that has servers from outside waits while there is no such server: a list that loses a
//! server for a moment must not end the maintenance of it, and at the start DNS has told nothing yet.

use super::super::listing;
use super::super::settings::Settings;
use super::{Changes, Entry, File, Kind, Place, Said, Target, Value};
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
    /// Drops the changes for which a file says something else than when they were made, and returns them.
    pub fn reconcile(&mut self, file: &Settings) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        let mut lost: Vec<Target> = Vec::new();
        for (place, entry) in std::mem::take(&mut self.entries) {
            let why = why(&place, &entry, file).or_else(|| lost.contains(&place.0).then_some(Why::Gone));
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
        let whole = file.with(self).map_err(|conflict| conflict.to_string());
        self.settle_by(file, whole, |changes| file.with(changes).map_err(|conflict| conflict.to_string()))
    }

    /// Drops the changes with which settings could not be used, the newest of those that clash: `fit` makes the settings of
    /// the file with changes, or says why not. The file by itself fits; `whole` is what is known of all changes.
    pub fn settle_by(
        &mut self,
        file: &File,
        whole: Result<Settings, String>,
        fit: impl Fn(&Changes) -> Result<Settings, String>,
    ) -> (Settings, Vec<Dropped>) {
        let mut why = match whole {
            Ok(settings) => return (settings, Vec::new()),
            Err(why) => why,
        };
        let mut rest: Vec<(Place, Entry)> = std::mem::take(&mut self.entries).into_iter().collect();
        rest.sort_by_key(|((target, key), entry)| (entry.at, target.clone(), key.clone()));
        let (mut settings, mut dropped) = (file.settings().clone(), Vec::new());
        loop {
            // All of `rest` do not fit, none of them do: the first one that does not is between.
            let (mut fits, mut fails) = (0, rest.len());
            while fails - fits > 1 {
                let middle = fits + (fails - fits) / 2;
                match fit(&self.and(&rest[..middle])) {
                    Ok(found) => (fits, settings) = (middle, found),
                    Err(found) => (fails, why) = (middle, found),
                }
            }
            *self = self.and(&rest[..fits]);
            rest.drain(..fits);
            let (place, entry) = rest.remove(0);
            let was_added = matches!(entry.value, Value::Added(_)).then(|| place.0.clone());
            dropped.push(Dropped { place, entry, why: Why::Conflict(why) });
            if let Some(target) = was_added {
                let (gone, others) = rest.into_iter().partition(|((of, _), _)| *of == target);
                rest = others;
                let gone: Vec<(Place, Entry)> = gone;
                dropped.extend(gone.into_iter().map(|(place, entry)| Dropped { place, entry, why: Why::Gone }));
            }
            match fit(&self.and(&rest)) {
                Ok(settings) => {
                    *self = self.and(&rest);
                    return (settings, dropped);
                }
                Err(_) if rest.is_empty() => return (settings, dropped),
                Err(found) => why = found,
            }
        }
    }

    /// These and others.
    fn and(&self, others: &[(Place, Entry)]) -> Changes {
        let mut all = self.clone();
        all.entries.extend(others.iter().cloned());
        all
    }
}

/// Returns what a file says about a place: for a removal, by what the server is known.
pub(super) fn said(file: &Settings, target: &Target, value: &Value, key: Option<&str>) -> Said {
    let Some(object) = listing::find(file, target) else { return Said::new() };
    let keys = match (value, key) {
        (Value::Removed, _) => vec!["address", "port"],
        (_, key) => key.into_iter().collect(),
    };
    keys.into_iter().filter_map(|key| Some((key.to_owned(), object.at(key)?.to_owned()))).collect()
}

/// Returns whether a server came from outside and may come again: what is changed of it waits until it does.
fn waits(file: &Settings, target: &Target, entry: &Entry) -> bool {
    entry.outside && file.sources.iter().any(|source| source.pool == target.parts().0)
}

/// Returns why a change no longer applies once a file is in force; none if it does, or waits.
fn why((target, key): &Place, entry: &Entry, file: &Settings) -> Option<Why> {
    let now = listing::find(file, target);
    match (&entry.value, key) {
        (Value::Added(_), _) => match now {
            Some(_) => Some(Why::Exists),
            None => {
                let pool = Target::new(Kind::Pool, target.parts().0);
                (target.kind == Kind::Server && listing::find(file, &pool).is_none()).then_some(Why::Gone)
            }
        },
        (Value::Removed, _) => {
            let Some(now) = now else { return (!waits(file, target, entry)).then_some(Why::Gone) };
            let moved = |key| entry.said.get(key).map(String::as_str) != now.at(key);
            (moved("address") || moved("port")).then_some(Why::Moved)
        }
        (change, Some(key)) => {
            let (was, says) = (entry.said.get(key).map(String::as_str), now.as_ref().and_then(|object| object.at(key)));
            if was == says || now.is_none() && waits(file, target, entry) {
                return None;
            }
            Some(match says {
                None => Why::Gone,
                Some(says) if matches!(change, Value::Set(value) if value == says) => Why::Same,
                Some(says) => Why::Says(says.to_owned()),
            })
        }
        (_, None) => None,
    }
}
