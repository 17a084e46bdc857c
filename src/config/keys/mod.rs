//! Every key of the configuration file: what it takes, its default, what it means, and what a reload does with it.
//!
//! The readers take bounds, words and defaults from here; so can documentation and a reload. It must not read TOML.

mod dns;
mod gateway;
mod http;
mod nat;
mod pool;
mod probe;
mod rule;
mod service;
mod takes;
mod top;

pub use takes::{DefaultValue, Recommended, Takes, duration};

pub(crate) use dns::DNS;
pub(crate) use gateway::{ANSWERS, FLOWS, FRAGMENTS, GATEWAY, TIMEOUTS};
pub(crate) use http::HTTP;
pub(crate) use nat::NAT_POOL;
pub(crate) use pool::{PASSIVE, POOL, SERVER};
pub(crate) use probe::MONITOR;
pub(crate) use rule::RULE;
pub(crate) use service::{SERVICE, SERVICE_TIMEOUTS, STICKY};
pub(crate) use top::TOP;

use serde::Serialize;

/// Every table of the file, in the order of the documentation.
pub static TABLES: &[&Table] = &[
    &TOP,
    &GATEWAY,
    &HTTP,
    &FLOWS,
    &TIMEOUTS,
    &FRAGMENTS,
    &DNS,
    &NAT_POOL,
    &ANSWERS,
    &SERVICE,
    &SERVICE_TIMEOUTS,
    &STICKY,
    &RULE,
    &POOL,
    &PASSIVE,
    &MONITOR,
    &SERVER,
];

/// Finds a key by the name of its table (`service.sticky`; empty for the top level) and its own.
pub fn find(table: &str, key: &str) -> Option<&'static Key> {
    TABLES.iter().find(|known| known.name == table)?.key(key)
}

/// One table of the file.
#[derive(Debug)]
pub struct Table {
    /// Its dotted name, such as `service.sticky`; empty for the top level.
    pub name: &'static str,
    /// Its name in messages: `[service.sticky]`, `[[service]]`, `the top level`.
    pub header: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
    /// Former names of keys, each with the name that replaced it.
    pub renamed: &'static [(&'static str, &'static str)],
}

impl Table {
    /// Finds a key by its name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The key of the parent table under which this table is written: `sticky` of `service.sticky`.
    pub fn key_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// One key of a table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What applies where it is absent.
    pub default: DefaultValue,
    /// What a reload that changes it does.
    pub reload: Reload,
    /// One sentence of documentation, with its full stop.
    pub doc: &'static str,
    /// Where it has no effect without another key's value.
    pub when: Option<When>,
    /// What an RFC asks for; a value below it is used, with a warning.
    pub recommended: Option<Recommended>,
}

impl Key {
    /// Makes a key that is allowed whatever the other keys say.
    const fn new(name: &'static str, takes: Takes, default: DefaultValue, reload: Reload, doc: &'static str) -> Self {
        Key { name, takes, default, reload, doc, when: None, recommended: None }
    }

    /// Allows the key only beside one of these values of another key of its table.
    const fn only_with(self, key: &'static str, is: &'static [&'static str]) -> Self {
        Key { when: Some(When { key, is }), ..self }
    }
}

/// Which value of another key gives a key its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// The other key of the same table.
    pub key: &'static str,
    /// The values that it must have one of.
    pub is: &'static [&'static str],
}

/// What a reload that changes a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reload {
    /// Nothing while the gateway runs: the new value takes effect at the next start.
    Restart,
    /// The new value applies at once, to live flows too.
    Live,
    /// The new value applies to flows opened after the reload; live flows keep what they were given.
    NewFlows,
    /// The new value applies at once, and what was gathered under the old one (remembered clients, probe results,
    /// counts per client) is discarded. Live flows stay.
    StartsOver,
    /// What the new value adds is used at once; what it removes gets no new flows and is gone with its last one.
    Drains,
    /// The key identifies its entry: another value removes one entry, which drains, and adds another.
    Identity,
    /// The key is a table: each key in it has its own effect. Entries of an array of tables are matched by name.
    ByKey,
}

impl Reload {
    /// The effect in a few words, for a line about one change.
    pub const fn brief(self) -> &'static str {
        match self {
            Reload::Restart => "at the next start",
            Reload::Live => "at once",
            Reload::NewFlows => "new flows only",
            Reload::StartsOver => "at once, and starts over",
            Reload::Drains => "what is removed drains",
            Reload::Identity => "a removal and an addition",
            Reload::ByKey => "by key",
        }
    }

    /// The effect in one sentence, for documentation.
    pub const fn describe(self) -> &'static str {
        match self {
            Reload::Restart => "A change takes effect at the next start.",
            Reload::Live => "A reload applies a change at once, to live flows too.",
            Reload::NewFlows => "A reload applies a change to new flows; live flows keep what they have.",
            Reload::StartsOver => {
                "A reload applies a change at once and discards what was gathered before it; live flows stay."
            }
            Reload::Drains => "A reload uses what is added at once; what is removed drains.",
            Reload::Identity => "A changed name is a removal and an addition.",
            Reload::ByKey => "The effect of a reload depends on the keys in this table.",
        }
    }
}
