//! One source: what it found last, when it is asked again, and when a new list is used.
//!
//! A list replaces the one in use unless it is too short (`servers-least`, 1 by default: an empty one never does), or lacks
//! more than half of the servers in use and comes from DNS: then the next answer must confirm it.

use super::resolve::{Resolution, Round};
use super::settings::{DnsSettings, From, SourceSettings};
use crate::balance::ServerSettings;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a file must be quiet before it is read.
const QUIET: Duration = Duration::from_millis(100);
/// How long a file that keeps changing is left alone at most.
const LONGEST_QUIET: Duration = Duration::from_secs(1);
/// How often a file is read even if nothing is reported: network file systems report nothing.
const FILE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a round of questions may take.
const LONGEST_ROUND: Duration = Duration::from_secs(60);

/// Most servers of a list that the log compares with the one before; packets wait meanwhile.
const MOST_COMPARED: usize = 1000;
/// Most servers left out that the log names.
const MOST_SAID: usize = 5;

/// What the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The text, with the pool and the place of the source.
    pub text: String,
    /// Whether something is wrong.
    pub is_grave: bool,
}

/// A source as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// Its settings.
    pub settings: SourceSettings,
    /// The list in use.
    pub list: Option<Arc<Vec<ServerSettings>>>,
    /// When that list was last confirmed; `None` if there was none.
    pub good: Option<Instant>,
    /// When it is asked again.
    pub next: Instant,
    /// Whether it is being asked.
    pub is_busy: bool,
    /// What is wrong, and since when.
    pub trouble: Option<(Instant, String)>,
    /// Servers of the list that cannot be used, each with the reason.
    pub left_out: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) settings: SourceSettings,
    pub(super) resolution: Resolution,
    /// The list in use.
    pub(super) list: Option<Arc<Vec<ServerSettings>>>,
    good: Option<Instant>,
    pub(super) next: Instant,
    pub(super) is_busy: bool,
    /// When a round of questions is given up.
    pub(super) ends: Instant,
    /// Since when a file has been changing.
    changing: Option<Instant>,
    trouble: Option<(Instant, String)>,
    /// Why what was found cannot be used, and since when.
    refusal: Option<(Instant, String)>,
    failures: u32,
    /// Names of a list that must be confirmed.
    doubted: Option<BTreeSet<String>>,
    pub(super) left_out: Vec<String>,
}

impl Source {
    pub(super) fn new(settings: SourceSettings, now: Instant) -> Self {
        Source {
            resolution: Resolution::new(settings.from.clone(), settings.families),
            settings,
            list: None,
            good: None,
            next: now,
            is_busy: false,
            ends: Instant::FAR,
            changing: None,
            trouble: None,
            refusal: None,
            failures: 0,
            doubted: None,
            left_out: Vec::new(),
        }
    }

    /// Makes the source that takes over the list of a former one of its pool.
    pub(super) fn after(settings: SourceSettings, former: Option<Source>, now: Instant) -> Self {
        Source { list: former.and_then(|former| former.list), ..Source::new(settings, now) }
    }

    pub(super) fn state(&self) -> SourceState {
        SourceState {
            settings: self.settings.clone(),
            list: self.list.clone(),
            good: self.good,
            next: self.next,
            is_busy: self.is_busy,
            trouble: self.trouble.clone().or(self.refusal.clone()),
            left_out: self.left_out.clone(),
        }
    }

    /// Begins to ask.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.is_busy, self.changing, self.ends) = (true, None, now + LONGEST_ROUND);
        self.resolution.begin();
    }

    /// The file may have changed.
    pub(super) fn notice(&mut self, now: Instant) {
        let since = *self.changing.get_or_insert(now);
        self.next = (now + QUIET).min(since + LONGEST_QUIET);
    }

    /// Takes what was read of the file; returns whether what is found is to be used.
    pub(super) fn take_list(
        &mut self,
        now: Instant,
        list: Result<Vec<ServerSettings>, String>,
        events: &mut Vec<Event>,
    ) -> bool {
        self.is_busy = false;
        if self.changing.is_none() {
            self.next = now + FILE_INTERVAL;
        }
        match list {
            Ok(servers) => self.offer(now, servers, None, events),
            Err(why) => {
                self.fail(now, why, events);
                false
            }
        }
    }

    /// Takes what a round of questions found; returns whether the list in use is another one.
    pub(super) fn take_round(
        &mut self,
        now: Instant,
        round: Round,
        dns: &DnsSettings,
        events: &mut Vec<Event>,
    ) -> bool {
        self.is_busy = false;
        let servers = match round.servers {
            Ok(servers) => servers,
            Err(why) => {
                self.next = now + self.pause(dns);
                self.fail(now, why, events);
                return false;
            }
        };
        let is_wrong = round.trouble.is_some();
        let ttl = round.ttl.map_or(dns.max_ttl, |ttl| Duration::from_secs(ttl.into())).clamp(dns.min_ttl, dns.max_ttl);
        let names: BTreeSet<String> = servers.iter().map(|server| server.name.clone()).collect();
        let missing = self.list.iter().flat_map(|list| list.iter()).filter(|old| !names.contains(&old.name)).count();
        let most = self.in_use() / 2;
        let is_doubtful = missing > most && self.is_enough(&servers);
        if is_doubtful && self.doubted.replace(names.clone()) != Some(names) {
            self.next = now + dns.min_ttl;
            let why = format!(
                "the answer lacks {missing} of {} servers in use: it is used once the next answer confirms it",
                self.in_use()
            );
            self.trouble(now, why, events);
            return false;
        }
        self.doubted = None;
        let is_used = self.is_enough(&servers);
        self.next = now + if is_wrong || !is_used { self.pause(dns).min(ttl) } else { ttl };
        self.offer(now, servers, round.trouble, events)
    }

    /// The pause after a failure, longer each time.
    fn pause(&mut self, dns: &DnsSettings) -> Duration {
        self.failures = (self.failures + 1).min(8);
        (dns.min_ttl * (1 << (self.failures - 1))).min(LONGEST_PAUSE.max(dns.min_ttl))
    }

    /// Whether a list is long enough to be used.
    fn is_enough(&self, servers: &[ServerSettings]) -> bool {
        !servers.is_empty() && (self.list.is_none() || servers.len() >= self.settings.least as usize)
    }

    /// Uses a list if it is long enough; returns whether the list in use is another one.
    fn offer(
        &mut self,
        now: Instant,
        servers: Vec<ServerSettings>,
        trouble: Option<String>,
        events: &mut Vec<Event>,
    ) -> bool {
        if !self.is_enough(&servers) {
            let why = match (servers.len(), trouble) {
                (0, Some(why)) => why,
                (0, None) => "the list has no servers".into(),
                (few, _) => format!("the list has {few} servers, `servers-least` asks for {}", self.settings.least),
            };
            self.fail(now, why, events);
            return false;
        }
        self.good = Some(now);
        match trouble {
            Some(why) => self.trouble(now, why, events),
            None => self.recover(events),
        }
        if self.list.as_deref() == Some(&servers) {
            // It is tried again.
            return self.refusal.is_some();
        }
        let text = self.difference(&servers);
        self.say(text, false, events);
        self.list = Some(Arc::new(servers));
        true
    }

    /// What was found is in use, but for these servers.
    pub(super) fn accepted(&mut self, left_out: Vec<String>, events: &mut Vec<Event>) {
        if self.refusal.take().is_some() {
            self.say("what was found can be used again".into(), false, events);
        }
        if self.left_out != left_out {
            let more = left_out.len().saturating_sub(MOST_SAID);
            left_out.iter().take(MOST_SAID).for_each(|text| self.say(format!("left out: {text}"), true, events));
            if more > 0 {
                self.say(format!("left out: {more} more; `eqctl sources --json` lists them"), true, events);
            }
            self.left_out = left_out;
        }
    }

    /// What was found cannot be used, for this reason.
    pub(super) fn refused(&mut self, now: Instant, why: &str, events: &mut Vec<Event>) {
        let text = format!("what was found cannot be used: {why}");
        let since = self.refusal.as_ref().map_or(now, |(since, _)| *since);
        if self.refusal.as_ref().is_none_or(|(_, before)| *before != text) {
            self.say(text.clone(), true, events);
        }
        self.refusal = Some((since, text));
    }

    /// Number of servers of the list in use.
    fn in_use(&self) -> usize {
        self.list.as_ref().map_or(0, |list| list.len())
    }

    fn fail(&mut self, now: Instant, why: String, events: &mut Vec<Event>) {
        self.doubted = None;
        let stays = match self.in_use() {
            0 => "it has no servers from there".to_owned(),
            1 => "the last server stays".to_owned(),
            many => format!("the last {many} servers stay"),
        };
        self.trouble(now, format!("{why}; {stays}"), events);
    }

    /// Notes what is wrong; the log says it once, and again if it changes and is about a file.
    fn trouble(&mut self, now: Instant, why: String, events: &mut Vec<Event>) {
        let is_new = match &self.trouble {
            None => true,
            Some((_, before)) => matches!(self.settings.from, From::File(_)) && *before != why,
        };
        let since = self.trouble.as_ref().map_or(now, |(since, _)| *since);
        if is_new {
            self.say(why.clone(), true, events);
        }
        self.trouble = Some((since, why));
    }

    fn recover(&mut self, events: &mut Vec<Event>) {
        self.failures = 0;
        if self.trouble.take().is_some() {
            self.say("it works again".into(), false, events);
        }
    }

    fn say(&self, text: String, is_grave: bool, events: &mut Vec<Event>) {
        let (pool, from) = (&self.settings.pool, &self.settings.from);
        events.push(Event { text: format!("pool {pool}, servers from {from}: {text}"), is_grave });
    }

    /// Says in what a list differs from the one in use.
    fn difference(&self, servers: &[ServerSettings]) -> String {
        let Some(old) = self.list.as_deref() else { return format!("{} found", plural(servers.len())) };
        if old.len().max(servers.len()) > MOST_COMPARED {
            return format!("{} in all", plural(servers.len()));
        }
        let old_names: BTreeMap<&str, &ServerSettings> =
            old.iter().map(|server| (server.name.as_str(), server)).collect();
        let added = servers.iter().filter(|server| !old_names.contains_key(server.name.as_str())).count();
        let kept = servers.len() - added;
        let changed =
            servers.iter().filter(|new| old_names.get(new.name.as_str()).is_some_and(|old| **old != **new)).count();
        format!("{} in all: {added} added, {} removed, {changed} changed", plural(servers.len()), old.len() - kept)
    }
}

fn plural(count: usize) -> String {
    format!("{count} server{}", if count == 1 { "" } else { "s" })
}
