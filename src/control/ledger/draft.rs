//! What a request makes of the changes, before anything is checked against the rest of the configuration.

use super::{Ask, Basis, Deadline};
use crate::config::changes::{Changes, Entry, Kind, Said, Target, Value, Who};
use crate::config::keys::{Takes, find};
use crate::config::{NoServer, closest, find_server, listing};
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// What a request does to the changes.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) changes: Changes,
    /// The objects that it concerns, in its order.
    pub(super) targets: Vec<Target>,
    /// The keys that it concerns; none where an object comes or goes.
    pub(super) keys: Vec<(Target, Option<String>)>,
    /// When draining: after what time it ends.
    pub(super) deadline: Option<Duration>,
    pub(super) removed: Vec<String>,
    pub(super) at_once: bool,
    /// Whether it goes back to the file: then what says the same is dropped all the same.
    pub(super) goes_back: bool,
    /// What it is about, for an error.
    pub(super) subject: String,
}

impl Draft {
    fn touch(&mut self, target: &Target, key: Option<&str>) {
        // The keys of an object follow each other.
        if self.targets.last() != Some(target) {
            self.targets.push(target.clone());
        }
        self.keys.push((target.clone(), key.map(str::to_owned)));
    }
}

impl Basis {
    /// Returns what a request makes of the changes.
    pub(super) fn draft(&self, now: Instant, who: Who, ask: &Ask) -> Result<Draft, String> {
        let mut draft = match ask {
            Ask::Set { target, values, deadline } => self.set(now, who, target, values, *deadline)?,
            Ask::Add { target, values } => self.add(now, who, target, values)?,
            Ask::Remove { target, now: at_once } => self.remove(now, who, target, *at_once)?,
            Ask::Drop { target, key } => self.go_back(target.as_ref(), key.as_deref())?,
        };
        for (target, key) in &draft.keys {
            if let Some(file) = &self.file {
                draft.changes.note_said(target, key.as_deref(), file);
            }
        }
        Ok(Draft { subject: subject(ask), goes_back: matches!(ask, Ask::Drop { .. }), ..draft })
    }

    /// Returns the object that is meant.
    fn find(&self, target: &Target) -> Result<Target, String> {
        let settings = &self.in_force;
        let target = match target.kind {
            Kind::Server => {
                let place = find_server(settings, &target.name).map_err(|error| self.was_removed(target, error))?;
                let server = &settings.servers[place];
                let pool = &settings.pools[server.pool.0 as usize].name;
                return Ok(Target::new(Kind::Server, format!("{pool}/{}", server.name)));
            }
            _ => target.clone(),
        };
        let names: Vec<&str> = match target.kind {
            Kind::Service => settings.services.iter().map(|service| service.name.as_str()).collect(),
            Kind::Rule => settings.policy.rules.iter().map(|rule| rule.name.as_str()).collect(),
            Kind::Pool | Kind::Server => settings.pools.iter().map(|pool| pool.name.as_str()).collect(),
        };
        if names.contains(&target.name.as_str()) {
            return Ok(target);
        }
        Err(format!("there is no {target}{}", self.near(&target, &names)))
    }

    fn near(&self, target: &Target, names: &[&str]) -> String {
        let kind = target.kind.name();
        match closest(&target.name, names.iter().copied()) {
            Some(near) => format!("; did you mean {near}?"),
            None if target.kind == Kind::Pool => "; `eqctl pool` lists them".into(),
            None => format!("; `eqctl {kind}s` lists them"),
        }
    }

    /// The error for a server that is not there, which may have been removed at run time.
    fn was_removed(&self, target: &Target, error: NoServer) -> String {
        let is_meant = |own: &Target| {
            let short = !target.name.contains('/') && own.parts().1 == target.name;
            own.kind == target.kind && (own.name == target.name || short)
        };
        let mut removed =
            self.changes.iter().filter(|((own, _), entry)| entry.value == Value::Removed && is_meant(own));
        match (removed.next(), error) {
            (Some(((target, _), Entry { who, .. })), NoServer::Unknown { .. }) => {
                format!("{target} was removed by {who}; `eqctl changes drop {target}` brings it back")
            }
            (_, error) => error.to_string(),
        }
    }

    fn set(
        &self,
        now: Instant,
        who: Who,
        target: &Target,
        values: &BTreeMap<String, Option<String>>,
        deadline: Deadline,
    ) -> Result<Draft, String> {
        let target = self.find(target)?;
        if values.is_empty() {
            return Err("nothing to set: write KEY=VALUE, for example weight=5".into());
        }
        let drains = values.get("state").is_some_and(|value| value.as_deref().is_some_and(is_draining));
        if deadline != Deadline::Keep && !(drains && target.kind == Kind::Server) {
            return Err("a deadline is for draining only".into());
        }
        let until = match deadline {
            Deadline::Keep => self.deadline(&target.name).filter(|_| drains && target.kind == Kind::Server),
            Deadline::Never => None,
            Deadline::After(span) => Some(now + span),
        };
        let left = until.map(|until| until.since(now));
        let mut draft = Draft { changes: (*self.changes).clone(), deadline: left, ..Draft::default() };
        for (key, value) in values {
            settable(target.kind, key)?;
            let draining = key == "state" && value.as_deref().is_some_and(is_draining);
            let value = value.clone().map_or(Value::Unset, Value::Set);
            let deadline = until.filter(|_| draining);
            draft.changes.put(
                target.clone(),
                Some(key.clone()),
                Entry { value, said: Said::new(), outside: false, who, at: now, deadline },
            );
            draft.touch(&target, Some(key));
        }
        Ok(draft)
    }

    fn add(&self, now: Instant, who: Who, target: &Target, values: &BTreeMap<String, String>) -> Result<Draft, String> {
        if target.kind != Kind::Server {
            return Err(format!("a {} cannot be added at run time: add it to the file and reload", target.kind.name()));
        }
        let (pool, name) = target.parts();
        if pool.is_empty() || name.is_empty() {
            return Err("write the new server as POOL/SERVER, for example web/web-4".into());
        }
        self.find(&Target::new(Kind::Pool, pool))?;
        if listing::find(&self.in_force, target).is_some() {
            return Err(format!("{target} exists already; `eqctl server set` changes it"));
        }
        if self.changes.get(target, None).is_some() {
            return Err(self.was_removed(target, NoServer::Unknown { name: target.name.clone(), near: None }));
        }
        let mut keys = Vec::with_capacity(values.len());
        for (key, value) in values {
            settable(target.kind, key)?;
            // Whatever they say, they are one key and one value.
            if let Err(error) = crate::config::changes::is_value(value) {
                return Err(format!(
                    "{} is refused: {key} = {error}",
                    subject(&Ask::Add { target: target.clone(), values: values.clone() })
                ));
            }
            if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(format!("{:?} is not a key of a {}", key, target.kind.name()));
            }
            keys.push(format!("{key} = {value}"));
        }
        let value = Value::Added(format!("{{ {} }}", keys.join(", ")));
        let mut draft = Draft { changes: (*self.changes).clone(), ..Draft::default() };
        // What waits for a server of that name from outside is not about this one.
        draft.changes.drop_object(target);
        draft.changes.put(
            target.clone(),
            None,
            Entry { value, said: Said::new(), outside: false, who, at: now, deadline: None },
        );
        draft.touch(target, None);
        Ok(draft)
    }

    fn remove(&self, now: Instant, who: Who, target: &Target, at_once: bool) -> Result<Draft, String> {
        if target.kind != Kind::Server {
            let kind = target.kind.name();
            return Err(format!("a {kind} cannot be removed at run time: remove it from the file and reload"));
        }
        let target = self.find(target)?;
        let mut draft = Draft { changes: (*self.changes).clone(), at_once, ..Draft::default() };
        draft.changes.drop_object(&target);
        if listing::find(self.written(), &target).is_some() {
            let entry =
                Entry { value: Value::Removed, said: Said::new(), outside: false, who, at: now, deadline: None };
            draft.changes.put(target.clone(), None, entry);
        }
        draft.touch(&target, None);
        draft.removed.push(target.name);
        Ok(draft)
    }

    fn go_back(&self, target: Option<&Target>, key: Option<&str>) -> Result<Draft, String> {
        let mut draft = Draft { changes: (*self.changes).clone(), ..Draft::default() };
        // The short form of a server that was removed is not in force, but among the changes.
        let of = |own: &Target| {
            target.is_none_or(|target| {
                let short = target.kind == own.kind && !target.name.contains('/') && own.parts().1 == target.name;
                own == target || short
            })
        };
        let places = self.changes.iter().map(|(place, _)| place);
        let places: Vec<_> =
            places.filter(|(own, at)| of(own) && (key.is_none() || at.as_deref() == key)).cloned().collect();
        let first = places.first().map(|(own, _)| own.clone());
        if let (Some(target), true) = (target, places.iter().any(|(own, _)| Some(own) != first.as_ref())) {
            return Err(format!("several pools have changes of a {target}: write POOL/SERVER"));
        }
        if let (Some(target), true) = (target, places.is_empty()) {
            let target = self.find(target)?;
            let what = key.map_or(target.to_string(), |key| format!("{key} of {target}"));
            return Err(format!("{what} is as in the file; `eqctl changes` lists what differs"));
        }
        for (target, key) in places {
            let dropped = draft.changes.drop_key(&target, key.as_deref());
            if dropped.is_some_and(|entry| matches!(entry.value, Value::Added(_))) {
                draft.changes.drop_object(&target);
                draft.removed.push(target.name.clone());
            }
            draft.touch(&target, key.as_deref());
        }
        Ok(draft)
    }
}

/// Refuses keys that cannot be changed at run time; those that the object does not have are refused by the reader of the
/// file.
fn settable(kind: Kind, key: &str) -> Result<(), String> {
    let table = key.split_once('.').map_or(kind.table().to_owned(), |(below, _)| format!("{}.{below}", kind.table()));
    let Some(known) = find(&table, key.rsplit('.').next().unwrap_or(key)) else { return Ok(()) };
    let refused = match (kind, key) {
        (_, "name") => {
            return Err(format!("the name of a {} is what it is known by, and cannot be changed", kind.name()));
        }
        (Kind::Pool, "passive") => return Err("passive is a table: set its keys, such as passive.failures".into()),
        (Kind::Service | Kind::Rule, key) => key != "enabled",
        // The servers of a list are found for the file, by its sources.
        (Kind::Pool, "servers-file" | "servers-dns" | "servers-port") => true,
        // The servers have it, as the file resolves it.
        (Kind::Pool, "slow-start") => return Err("set slow-start of the servers of the pool".into()),
        (Kind::Pool | Kind::Server, _) => matches!(known.takes, Takes::Table | Takes::Tables { .. }),
    };
    match refused {
        true => Err(format!("{key} of a {} cannot be changed at run time: change the file and reload", kind.name())),
        false => Ok(()),
    }
}

/// Returns whether a value of `state` is that of a draining server.
fn is_draining(value: &str) -> bool {
    value.trim_matches(['"', '\'']) == "draining"
}

/// Most characters of a request that an error repeats.
const LONGEST_SUBJECT: usize = 200;

/// What a request is about, for an error.
fn subject(ask: &Ask) -> String {
    let text = match ask {
        Ask::Set { target, values, .. } => {
            let set = |(key, value): (&String, &Option<String>)| match value {
                Some(value) => format!("{key} = {value}"),
                None => format!("the default of {key}"),
            };
            format!("{} of {target}", values.iter().map(set).collect::<Vec<_>>().join(", "))
        }
        Ask::Add { target, .. } => format!("the addition of {target}"),
        Ask::Remove { target, .. } => format!("the removal of {target}"),
        Ask::Drop { target: Some(target), .. } => format!("going back to the file for {target}"),
        Ask::Drop { target: None, .. } => "going back to the file".into(),
    };
    // Keys and values come from a socket, and must neither control a terminal nor fill it.
    let text = text.replace(char::is_control, "?");
    match text.char_indices().nth(LONGEST_SUBJECT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
