//! Servers from outside: a watched file, or DNS (SRV, A, AAAA). Sans-IO: bytes and a time in; questions, and lists of
//! servers, out.
//!
//! ```text
//!  time --> Sources --poll_request--> ask a resolver, read a file (the driver) --answer, take_list--> Sources
//!             `---> found: the servers of each pool --> settings of the file with them --> a reload
//! ```
//!
//! The last good list stays in use whatever happens to its source; whether a server is up is for monitors to say. It must
//! not know settings other than its own, files, sockets or clocks.

mod list;
mod message;
mod query;
mod resolve;
mod saved;
mod settings;
mod source;
#[cfg(test)]
mod tests;

pub use list::{MOST_BYTES, MOST_SERVERS, Wrong, read as read_list};
pub use query::Over;
pub use saved::{load, save};
pub use settings::{DnsSettings, Found, From, SourceSettings};
pub use source::{Event, SourceState};

use crate::balance::ServerSettings;
use crate::time::Instant;
use query::{Next, Query, Secret};
use resolve::Lookup;
use source::Source;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Most questions under way at a time.
pub const MOST_ASKED: usize = 16;

/// Returns whether a text is a domain name that can be asked for.
pub fn is_name(text: &str) -> bool {
    message::name(text).is_some()
}

/// An attempt to ask a resolver; the driver gives each a socket of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(u64);

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Ask a resolver, from a socket that takes answers of this address only, and report by [`Sources::answer`] or
    /// [`Sources::failed`].
    Ask {
        /// The attempt.
        attempt: AttemptId,
        /// The resolver.
        to: SocketAddr,
        /// The transport.
        over: Over,
        /// The message, without the length that TCP puts before it.
        message: Vec<u8>,
    },
    /// The attempt is over: close its socket.
    Forget {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Read a file, at most [`MOST_BYTES`] and one byte, and report by [`Sources::take_list`].
    Read {
        /// Its path.
        path: PathBuf,
    },
}

/// A question under way.
#[derive(Debug)]
struct Flying {
    /// The pool whose source asks.
    pool: String,
    lookup: Lookup,
    query: Query,
}

/// The sources of all pools.
#[derive(Debug)]
pub struct Sources {
    dns: DnsSettings,
    all: Vec<Source>,
    flying: BTreeMap<AttemptId, Flying>,
    attempts: u64,
    /// The place of the resolver that answered last.
    preferred: usize,
    secret: Secret,
    requests: VecDeque<Request>,
    events: Vec<Event>,
    is_changed: bool,
}

impl Sources {
    /// Makes the sources of a configuration; `secret` is drawn from the system, since IDs of queries follow from it.
    pub fn new(settings: &[SourceSettings], dns: &DnsSettings, secret: [u64; 2], now: Instant) -> Self {
        Sources {
            dns: dns.clone(),
            all: settings.iter().map(|settings| Source::new(settings.clone(), now)).collect(),
            flying: BTreeMap::new(),
            attempts: 0,
            preferred: 0,
            secret: Secret::new(secret),
            requests: VecDeque::new(),
            events: Vec::new(),
            is_changed: false,
        }
    }

    /// Takes the lists of an earlier gateway: they are in use until there are newer ones.
    pub fn remember(&mut self, found: &Found) {
        for source in &mut self.all {
            source.list = found.get(&source.settings.pool).filter(|list| !list.is_empty()).cloned();
        }
    }

    /// Follows other settings: a source that has the same ones goes on, another one of the same pool takes over its list
    /// until it has found one.
    pub fn follow(&mut self, settings: &[SourceSettings], dns: &DnsSettings, now: Instant) {
        let mut before = std::mem::take(&mut self.all);
        let mut kept = |settings: &SourceSettings| {
            let at = before.iter().position(|source| source.settings.pool == settings.pool)?;
            Some(before.swap_remove(at))
        };
        let follow = |one: &SourceSettings| match kept(one) {
            Some(source) if source.settings == *one => source,
            former => Source::after(one.clone(), former, now),
        };
        self.all = settings.iter().map(follow).collect();
        if self.dns != *dns {
            (self.dns, self.preferred) = (dns.clone(), 0);
            // Questions to former resolvers are asked again.
            for source in self.all.iter_mut().filter(|source| !matches!(source.settings.from, From::File(_))) {
                (source.is_busy, source.next) = (false, now);
            }
        }
        let all = &self.all;
        let is_over = |flying: &Flying| !all.iter().any(|source| source.is_busy && source.settings.pool == flying.pool);
        let over: Vec<AttemptId> = self.flying.iter().filter(|(_, one)| is_over(one)).map(|(id, _)| *id).collect();
        for attempt in over {
            self.flying.remove(&attempt);
            self.requests.push_back(Request::Forget { attempt });
        }
    }

    /// Returns what the sources have found; a pool whose source has found nothing yet is missing.
    pub fn found(&self) -> Found {
        let found = |source: &Source| Some((source.settings.pool.clone(), source.list.clone()?));
        self.all.iter().filter_map(found).collect()
    }

    /// Returns the sources as they stand, in the order of the settings.
    pub fn states(&self) -> Vec<SourceState> {
        self.all.iter().map(Source::state).collect()
    }

    /// Returns whether what was found is another list than at the last call.
    pub fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Notes that what was found is in use, and which servers cannot be, each with its reason, by pool.
    pub fn accepted(&mut self, left_out: &BTreeMap<String, Vec<String>>) {
        for source in &mut self.all {
            source.accepted(left_out.get(&source.settings.pool).cloned().unwrap_or_default(), &mut self.events);
        }
    }

    /// Notes that what was found cannot be used as a whole; it is tried again when the sources are asked again.
    pub fn refused(&mut self, now: Instant, why: &str) {
        for source in self.all.iter_mut().filter(|source| source.list.is_some()) {
            source.refused(now, why, &mut self.events);
        }
    }

    /// Returns what the driver is to do next.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Returns the next line for the log.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.events.is_empty() { None } else { Some(self.events.remove(0)) }
    }

    /// Returns when [`Sources::handle_timeout`] has something to do; `None` if there are no sources.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sources = self.all.iter().map(|source| if source.is_busy { source.ends } else { source.next });
        let flying = self.flying.values().map(|flying| flying.query.deadline());
        sources.chain(flying).min()
    }

    /// Asks what is due, and gives up what took too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<AttemptId> =
            self.flying.iter().filter(|(_, one)| one.query.deadline() <= now).map(|(id, _)| *id).collect();
        for attempt in late {
            if let Some(flying) = self.flying.get_mut(&attempt) {
                let next = flying.query.expire(&self.dns.servers);
                self.go_on(now, attempt, next);
            }
        }
        for source in &mut self.all {
            if source.is_busy && source.ends <= now {
                // A file is read at once, and a driver that did not report it is asked again.
                source.ends = Instant::FAR;
                source.resolution.hurry("there was no time to ask for the addresses of all targets");
                if matches!(source.settings.from, From::File(_)) {
                    (source.is_busy, source.next) = (false, now);
                }
            }
            if !source.is_busy && source.next <= now {
                source.begin(now);
                if let From::File(path) = &source.settings.from {
                    self.requests.push_back(Request::Read { path: path.clone() });
                }
            }
        }
        self.ask(now);
        self.finish(now);
    }

    /// Sends questions while there is room.
    fn ask(&mut self, now: Instant) {
        while self.flying.len() < MOST_ASKED {
            // The one that has fewest questions under way, so that no long list keeps the others waiting.
            let waiting = self.all.iter_mut().filter(|source| source.is_busy && source.resolution.has_more());
            let Some(source) = waiting.min_by_key(|source| source.resolution.flying()) else { return };
            let Some(lookup) = source.resolution.next() else { return };
            let Some(name) = lookup.asked() else {
                let why = format!("{:?} is not a domain name", lookup.name);
                source.resolution.take(lookup, Err(why));
                continue;
            };
            let query = Query::new(name, lookup.kind, self.preferred);
            let flying = Flying { pool: source.settings.pool.clone(), lookup, query };
            self.attempt(now, flying);
        }
    }

    fn attempt(&mut self, now: Instant, mut flying: Flying) {
        match flying.query.attempt(now, &self.dns.servers, &mut self.secret) {
            Some((to, over, message)) => {
                self.attempts += 1;
                let attempt = AttemptId(self.attempts);
                self.requests.push_back(Request::Ask { attempt, to, over, message });
                self.flying.insert(attempt, flying);
            }
            None => {
                let why =
                    "no resolver is known: add `servers` to [dns], or a nameserver to /etc/resolv.conf".to_owned();
                self.settle(&flying.pool, flying.lookup, Err(why));
            }
        }
    }

    fn settle(&mut self, pool: &str, lookup: Lookup, outcome: Result<message::Answer, String>) {
        if let Some(source) = self.all.iter_mut().find(|source| source.settings.pool == pool && source.is_busy) {
            source.resolution.take(lookup, outcome);
        }
    }

    /// Goes on after something happened to an attempt.
    fn go_on(&mut self, now: Instant, attempt: AttemptId, next: Next) {
        if next == Next::Wait {
            return;
        }
        let Some(flying) = self.flying.remove(&attempt) else { return };
        self.requests.push_back(Request::Forget { attempt });
        match next {
            Next::Wait => {}
            Next::Again => self.attempt(now, flying),
            Next::Done(outcome) => {
                if outcome.is_ok() {
                    self.preferred = flying.query.resolver(&self.dns.servers);
                }
                self.settle(&flying.pool, flying.lookup, outcome);
            }
        }
    }

    /// Ends the rounds whose questions are all settled.
    fn finish(&mut self, now: Instant) {
        for source in &mut self.all {
            let is_dns = !matches!(source.settings.from, From::File(_));
            if is_dns && source.is_busy && source.resolution.is_over() {
                let round = source.resolution.end();
                self.is_changed |= source.take_round(now, round, &self.dns, &mut self.events);
            }
        }
    }

    /// Takes a message that came from the resolver of an attempt.
    pub fn answer(&mut self, now: Instant, attempt: AttemptId, message: &[u8]) {
        let Some(flying) = self.flying.get_mut(&attempt) else { return };
        let next = flying.query.receive(message, &self.dns.servers);
        self.go_on(now, attempt, next);
        self.ask(now);
        self.finish(now);
    }

    /// Takes the failure of an attempt: the resolver cannot be reached.
    pub fn failed(&mut self, now: Instant, attempt: AttemptId, why: &str) {
        let Some(flying) = self.flying.get_mut(&attempt) else { return };
        let next = flying.query.fail(why, &self.dns.servers);
        self.go_on(now, attempt, next);
        self.ask(now);
        self.finish(now);
    }

    /// Takes what [`read_list`] made of a file, or why it cannot be read.
    pub fn take_list(&mut self, now: Instant, path: &Path, list: Result<Vec<ServerSettings>, String>) {
        for source in &mut self.all {
            if matches!(&source.settings.from, From::File(own) if own == path) {
                self.is_changed |= source.take_list(now, list.clone(), &mut self.events);
            }
        }
    }

    /// Notes that a file may have changed.
    pub fn file_changed(&mut self, now: Instant, path: &Path) {
        for source in &mut self.all {
            if matches!(&source.settings.from, From::File(own) if own == path) {
                source.notice(now);
            }
        }
    }
}
