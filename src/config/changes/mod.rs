//! What operators changed at run time, on top of the configuration file.
//!
//! ```text
//!  text of the file --tables--> + changes --raw, check, build--> settings in force
//! ```
//!
//! A change is known by its object and key, never by its place in the file, and is applied to the tables of the file
//! before they are read: the same code reads and checks both. A change stays until the file says something else for
//! that key. It must not know the engine, sockets or clocks.

mod notation;
mod overlay;
mod reconcile;
#[cfg(test)]
mod tests;

pub use notation::notation;
pub use overlay::{Conflict, File};
pub use reconcile::{Dropped, Why};

pub(crate) use overlay::{read_enabled, read_server};

use super::words::plain;
use crate::time::Instant;
use crate::words::words;
use reconcile::said;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Who asked for a change, as the kernel knows the other end of the control socket (SO_PEERCRED, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Who {
    /// The user's number.
    pub uid: u32,
    /// The process ID; it may have ended since.
    pub pid: u32,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}, pid {}", self.uid, self.pid)
    }
}

words! {
    /// The kind of an object that can be changed at run time.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Kind {
        /// `[[service]]`.
        Service = "service",
        /// `[[rule]]`.
        Rule = "rule",
        /// `[[pool]]`.
        Pool = "pool",
        /// `[[pool.server]]`.
        Server = "server",
    }
}

impl Kind {
    /// Returns the table of such objects, as the key table names it.
    pub const fn table(self) -> &'static str {
        match self {
            Kind::Server => "pool.server",
            other => other.name(),
        }
    }
}

/// An object, by its name; that of a server has its pool's before it: `web/web-1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Target {
    /// Makes it.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Target { kind, name: name.into() }
    }

    /// Returns the name of a server's pool and its own; for other kinds an empty one and its own.
    pub fn parts(&self) -> (&str, &str) {
        match self.kind {
            Kind::Server => self.name.split_once('/').unwrap_or(("", &self.name)),
            _ => ("", &self.name),
        }
    }
}

/// `server web/web-1`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), plain(&self.name))
    }
}

/// What a change says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// The key has this value, in the notation of the file.
    Set(String),
    /// The key is absent: its default applies.
    Unset,
    /// The object, which the file does not have, exists with this table: `{ address = "10.0.0.9", weight = 2 }`.
    Added(String),
    /// The object, which the file has, does not exist.
    Removed,
}

/// What a file says about a place: keys as listed, with their values. Empty if it has no such object.
pub type Said = BTreeMap<String, String>;

/// A change with who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub value: Value,
    /// What the file said when it was made. The change stays for as long as the file says so.
    pub said: Said,
    /// Whether its server came from outside: while there is no such server, the change waits.
    pub outside: bool,
    /// Who asked for it.
    pub who: Who,
    /// When.
    pub at: Instant,
    /// When draining ends by force.
    pub deadline: Option<Instant>,
}

/// Where a change applies: an object, and one of its keys as the file names it, `weight` or `sticky.idle`. Without a key
/// the object itself is added or removed.
pub type Place = (Target, Option<String>);

/// What was changed at run time and is not in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// An addition is before the keys of what it adds.
    entries: BTreeMap<Place, Entry>,
}

impl Changes {
    /// Returns whether everything is as in the file.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns all of them, in the order of objects and keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, &Entry)> {
        self.entries.iter()
    }

    /// Returns the change of a place.
    pub fn get(&self, target: &Target, key: Option<&str>) -> Option<&Entry> {
        self.entries.get(&(target.clone(), key.map(str::to_owned)))
    }

    /// Records a change; it replaces an older one of the same place.
    pub fn put(&mut self, target: Target, key: Option<String>, entry: Entry) {
        self.entries.insert((target, key), entry);
    }

    /// Drops the change of a place.
    pub fn drop_key(&mut self, target: &Target, key: Option<&str>) -> Option<Entry> {
        self.entries.remove(&(target.clone(), key.map(str::to_owned)))
    }

    /// Drops all changes of an object; returns how many there were.
    pub fn drop_object(&mut self, target: &Target) -> usize {
        let before = self.entries.len();
        self.entries.retain(|(of, _), _| of != target);
        before - self.entries.len()
    }

    /// Notes for a change what the file says about its place.
    pub fn note_said(&mut self, target: &Target, key: Option<&str>, file: &File) {
        if let Some(entry) = self.entries.get_mut(&(target.clone(), key.map(str::to_owned))) {
            entry.said = said(file.settings(), target, &entry.value, key);
            entry.outside = file.has_from_outside(target);
        }
    }

    /// Returns the servers that were added.
    pub fn added(&self) -> impl Iterator<Item = &Target> {
        self.entries.iter().filter(|(_, entry)| matches!(entry.value, Value::Added(_))).map(|((target, _), _)| target)
    }
}
