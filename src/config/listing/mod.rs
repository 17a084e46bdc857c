//! Checked settings in the terms of the configuration file: every object with its keys, each value as the file would
//! have it.
//!
//! Two files that mean the same have the same listing, apart from the order of its objects: lists without an order are
//! sorted, defaults are written out, and everything is named instead of numbered. What the settings hold only in resolved
//! form is listed in that form:
//!
//! - the `slow-start` of a pool: in each of its servers;
//! - `[[service.timeouts]]`: for each timeout, the protocols and ports where it differs from `[timeouts]`;
//! - a network with the whole length of an address as the prefix, in `sticky` and `hash`: as "address";
//! - the payload of a UDP probe: under `payload` if it is printable text, else under `payload-hex`;
//! - the `floor` of a pool without a monitor, which has no effect: as absent.
//!
//! It must not read TOML, and must not compare configurations.

mod gateway;
mod pool;
mod probe;
mod rule;
mod service;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod timeouts;

pub(in crate::config) use text::quoted;

use super::changes::{Kind, Target};
use super::keys::{self, Table};
use super::raw::pool::STATES;
use super::settings::Settings;
use crate::balance::{Admin, ServerSettings};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt::Display;

/// What a configuration file describes under one name: a service, a server, or a table that exists once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its table, as the key table names it: `service`, `pool.server`; empty for the top level.
    pub table: &'static str,
    /// Its name outside the process: `web`, for a server or monitor with its pool `web/web-1`; empty for a table that
    /// exists once.
    pub name: String,
    /// Every key that applies beside the others, in the order of the key table; those of the tables below it last.
    pub keys: Vec<KeyValue>,
}

impl Object {
    /// Returns the value of a key, if it applies.
    pub fn value(&self, table: &str, key: &str) -> Option<&str> {
        let found = self.keys.iter().find(|value| value.table == table && value.key == key);
        found.map(|value| value.value.as_str())
    }

    /// Returns the value of a key written `weight` or `sticky.idle`, if it applies.
    pub fn at(&self, key: &str) -> Option<&str> {
        match key.split_once('.') {
            None => self.value(self.table, key),
            Some((below, key)) => {
                let within =
                    |table: &str| table.strip_prefix(self.table).and_then(|t| t.strip_prefix('.')) == Some(below);
                let found = self.keys.iter().find(|value| within(value.table) && value.key == key);
                found.map(|value| value.value.as_str())
            }
        }
    }
}

impl Object {
    /// Returns the keys that have a value, each as JSON; those of tables below are written `sticky.idle`.
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let name = |value: &KeyValue| match value.table.strip_prefix(self.table).and_then(|t| t.strip_prefix('.')) {
            Some(below) => format!("{below}.{}", value.key),
            None => value.key.to_owned(),
        };
        let values = self.keys.iter().filter_map(|value| Some((name(value), text::json(value.written()?))));
        values.collect()
    }
}

impl Object {
    /// Writes the keys of its own table that have a value as a table of the file: `{ address = "10.0.0.1", weight = 1 }`.
    pub fn to_toml(&self) -> String {
        let own = self.keys.iter().filter(|value| value.table == self.table);
        let keys: Vec<String> = own.filter_map(|value| Some(format!("{} = {}", value.key, value.written()?))).collect();
        format!("{{ {} }}", keys.join(", "))
    }
}

impl KeyValue {
    /// Returns the value if the key has one, in the file or by default; none for the words that stand for its absence.
    pub fn written(&self) -> Option<&str> {
        let default = keys::find(self.table, self.key).map(|key| key.default);
        let absent = matches!(default, Some(keys::DefaultValue::Unset(words)) if words == self.value);
        (!absent).then_some(self.value.as_str())
    }
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The table of the key: that of the object, or one below it, such as `service.sticky`.
    pub table: &'static str,
    /// The key.
    pub key: &'static str,
    /// The value in the notation of the file: `80`, `"30s"`, `["10.0.0.1", "2001:db8::1"]`. For a key that is absent and
    /// has no default value, the words of the key table: `no limit`.
    pub value: String,
}

/// Lists the objects of checked settings: tables in the order of the documentation, objects in the order of the file.
///
/// The name of an object is not among its keys, and neither are the keys under which other tables are written.
pub fn objects(settings: &Settings) -> Vec<Object> {
    // A new field must be listed, or have a reason here.
    let Settings {
        seed: _,
        table: _,
        services,
        pools: _,
        servers,
        sticky_groups: _,
        nat_pools,
        health: _,
        fragments: _,
        answers: _,
        policy,
        sources: _,
        dns: _,
        gateway: _,
        http: _,
    } = settings;
    let mut all = gateway::tables(settings);
    all.push(gateway::dns(&settings.dns));
    all.extend(nat_pools.iter().map(gateway::nat_pool));
    all.push(gateway::answers(&settings.answers));
    all.extend(services.iter().map(|service| service::service(service, settings)));
    all.extend(policy.rules.iter().map(|rule| rule::rule(rule, settings)));
    all.extend(pool::pools(settings));
    all.extend(pool::monitors(settings));
    all.extend(servers.iter().map(|server| pool::server(server, settings)));
    all
}

/// Writes an administrative state as the file does.
pub fn word(state: &Admin) -> String {
    let word = STATES.iter().find(|(_, known)| known == state).map(|(word, _)| *word);
    quoted(word.unwrap_or_default())
}

/// Finds many objects of the same settings.
#[derive(Debug)]
pub struct Finder<'s> {
    settings: &'s Settings,
    servers: HashMap<(&'s str, &'s str), &'s ServerSettings>,
    pools: OnceCell<HashMap<String, Object>>,
}

impl<'s> Finder<'s> {
    /// Makes it.
    pub fn new(settings: &'s Settings) -> Self {
        let pool = |server: &ServerSettings| settings.pools[server.pool.0 as usize].name.as_str();
        let servers = settings.servers.iter().map(|server| ((pool(server), server.name.as_str()), server)).collect();
        Finder { settings, servers, pools: OnceCell::new() }
    }

    /// Lists one object, if the settings have it.
    pub fn find(&self, target: &Target) -> Option<Object> {
        match target.kind {
            Kind::Server => self.servers.get(&target.parts()).map(|server| pool::server(server, self.settings)),
            Kind::Pool => {
                let list = || pools(self.settings).into_iter().map(|pool| (pool.name.clone(), pool)).collect();
                self.pools.get_or_init(list).get(&target.name).cloned()
            }
            Kind::Service | Kind::Rule => find(self.settings, target),
        }
    }
}

/// Lists the pools.
pub fn pools(settings: &Settings) -> Vec<Object> {
    pool::pools(settings)
}

/// Lists one object, if the settings have it.
pub fn find(settings: &Settings, target: &Target) -> Option<Object> {
    let (pool, name) = target.parts();
    match target.kind {
        Kind::Service => {
            let found = settings.services.iter().find(|service| service.name == name)?;
            Some(service::service(found, settings))
        }
        Kind::Rule => {
            let found = settings.policy.rules.iter().find(|rule| rule.name == name)?;
            Some(rule::rule(found, settings))
        }
        Kind::Pool => pool::pools(settings).into_iter().find(|pool| pool.name == name),
        Kind::Server => {
            let pool = settings.pools.iter().find(|own| own.name == pool)?;
            let mut servers = pool.servers.iter().map(|id| &settings.servers[id.0 as usize]);
            Some(pool::server(servers.find(|server| server.name == name)?, settings))
        }
    }
}

/// The keys of one object as they are gathered.
struct Keys {
    object: &'static Table,
    /// The table that keys are added to.
    table: &'static Table,
    all: Vec<KeyValue>,
}

impl Keys {
    fn of(table: &'static Table) -> Self {
        Keys { object: table, table, all: Vec::with_capacity(table.keys.len()) }
    }

    /// Goes on with the keys of a table below the object's.
    fn below(&mut self, table: &'static Table) {
        self.table = table;
    }

    /// Adds a key with its value.
    fn put(&mut self, key: &'static str, value: impl Display) {
        debug_assert!(self.table.key(key).is_some(), "`{key}` of {} is missing from the key table", self.table.header);
        self.all.push(KeyValue { table: self.table.name, key, value: value.to_string() });
    }

    /// Adds a key that can be absent.
    fn put_some(&mut self, key: &'static str, value: Option<impl Display>) {
        match value {
            Some(value) => self.put(key, value),
            None => self.put(key, self.table.key(key).map(|key| key.default.to_string()).unwrap_or_default()),
        }
    }

    /// Adds a key with its word.
    fn put_word<T: PartialEq>(&mut self, key: &'static str, words: &[(&'static str, T)], value: &T) {
        let word = words.iter().find(|(_, known)| known == value).map(|(word, _)| *word);
        debug_assert!(word.is_some(), "`{key}` of {} has no word for its value", self.table.header);
        self.put(key, text::quoted(word.unwrap_or_default()));
    }

    /// Adds a key with a list; an empty one is an absent key.
    fn put_list(&mut self, key: &'static str, values: Vec<String>) {
        self.put_some(key, Some(values).filter(|values| !values.is_empty()).map(|values| text::list(&values)));
    }

    fn named(self, name: impl Into<String>) -> Object {
        Object { table: self.object.name, name: name.into(), keys: self.all }
    }

    /// Makes an object of a table that exists once.
    fn single(self) -> Object {
        self.named("")
    }
}
