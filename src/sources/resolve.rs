//! One round of questions about the servers of a pool, and what follows from the answers.
//!
//! A set of addresses that cannot be asked for stays as it was in the round before; one that is empty is empty.

use super::list::MOST_SERVERS;
use super::list::{is_name, place};
use super::message::{self, Answer, Asked, Kind, MOST_ADDRESSES, Records, Target};
use super::settings::From;
use crate::balance::ServerSettings;
use crate::ids::PoolId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// A question of a round: a name in lower case and what is asked about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lookup {
    pub(super) name: String,
    pub(super) kind: Kind,
}

impl Lookup {
    /// The name as it is sent; `None` if it is none.
    pub(super) fn asked(&self) -> Option<Asked> {
        message::name(&self.name)
    }
}

/// What a round found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// The servers, in order; `Err` if nothing was found out, for this reason.
    pub(super) servers: Result<Vec<ServerSettings>, String>,
    /// The least time to live of all that was used, in seconds.
    pub(super) ttl: Option<u32>,
    /// Why a part of it could not be found out and is as before, or missing.
    pub(super) trouble: Option<String>,
}

/// The addresses of one family of a name.
type Sets = BTreeMap<(String, bool), Vec<IpAddr>>;

/// The names of a DNS source, from round to round.
#[derive(Debug)]
pub(super) struct Resolution {
    from: From,
    families: [bool; 2],
    /// The addresses of the round before.
    known: Sets,
    pending: VecDeque<Lookup>,
    flying: usize,
    targets: Vec<Target>,
    found: Sets,
    ttl: Option<u32>,
    trouble: Option<String>,
    /// Whether the name is known not to exist.
    no_name: bool,
    /// Whether the question that the round is about was answered.
    is_answered: bool,
}

impl Resolution {
    pub(super) fn new(from: From, families: [bool; 2]) -> Self {
        Resolution {
            from,
            families,
            known: Sets::new(),
            pending: VecDeque::new(),
            flying: 0,
            targets: Vec::new(),
            found: Sets::new(),
            ttl: None,
            trouble: None,
            no_name: false,
            is_answered: false,
        }
    }

    /// Begins a round.
    pub(super) fn begin(&mut self) {
        (self.flying, self.ttl, self.trouble, self.no_name, self.is_answered) = (0, None, None, false, false);
        self.targets.clear();
        self.found.clear();
        self.pending.clear();
        match &self.from {
            From::File(_) => {}
            From::Services(name) => {
                self.pending.push_back(Lookup { name: lower(name), kind: Kind::Services });
            }
            From::Addresses { name, .. } => {
                let name = lower(name);
                let lookup = |v6: bool| Lookup { name: name.clone(), kind: Kind::addresses(v6) };
                let wanted = [false, true].into_iter().filter(|v6| self.families[usize::from(*v6)]);
                self.pending = wanted.map(lookup).collect();
            }
        }
    }

    /// Takes the next question to ask.
    pub(super) fn next(&mut self) -> Option<Lookup> {
        let next = self.pending.pop_front();
        self.flying += usize::from(next.is_some());
        next
    }

    /// How many questions are under way.
    pub(super) fn flying(&self) -> usize {
        self.flying
    }

    /// Whether there is a question to ask.
    pub(super) fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether every question is settled.
    pub(super) fn is_over(&self) -> bool {
        self.flying == 0 && self.pending.is_empty()
    }

    /// Gives up the questions that are not asked yet.
    pub(super) fn hurry(&mut self, why: &str) {
        if !self.pending.is_empty() {
            self.trouble.get_or_insert(why.to_owned());
            self.pending.clear();
        }
    }

    /// Takes the outcome of a question.
    pub(super) fn take(&mut self, lookup: Lookup, outcome: Result<Answer, String>) {
        self.flying = self.flying.saturating_sub(1);
        let answer = match outcome {
            Ok(answer) => answer,
            Err(why) => {
                self.trouble.get_or_insert(why);
                return;
            }
        };
        if let Some(ttl) = answer.ttl {
            self.ttl = Some(self.ttl.map_or(ttl, |least| least.min(ttl)));
        }
        let is_first = matches!(self.from, From::Addresses { .. }) || lookup.kind == Kind::Services;
        self.is_answered |= is_first;
        match answer.records {
            Records::NoName => {
                self.no_name |= is_first;
                if lookup.kind != Kind::Services {
                    self.found.insert((lookup.name, lookup.kind == Kind::V6), Vec::new());
                }
            }
            Records::Addresses(addresses) => {
                let most = if is_first { addresses.len() } else { MOST_ADDRESSES };
                let addresses = addresses.into_iter().take(most).collect();
                self.found.insert((lookup.name, lookup.kind == Kind::V6), addresses);
            }
            Records::Services { targets, known } => self.services(targets, known),
        }
    }

    /// Takes the targets, and asks for the addresses that did not come with them.
    fn services(&mut self, targets: Vec<Target>, mut known: BTreeMap<String, [Vec<IpAddr>; 2]>) {
        let names: BTreeSet<&String> = targets.iter().map(|target| &target.name).collect();
        for name in names {
            let mut known = known.remove(name).unwrap_or_default();
            for v6 in [false, true].into_iter().filter(|v6| self.families[usize::from(*v6)]) {
                let addresses = std::mem::take(&mut known[usize::from(v6)]);
                if addresses.is_empty() {
                    self.pending.push_back(Lookup { name: name.clone(), kind: Kind::addresses(v6) });
                } else {
                    self.found.insert((name.clone(), v6), addresses);
                }
            }
        }
        self.targets = targets;
    }

    /// Ends a round: what could not be found out is as in the round before.
    pub(super) fn end(&mut self) -> Round {
        if !self.is_answered {
            let why = self.trouble.take().unwrap_or_else(|| "no answer".into());
            return Round { servers: Err(why), ttl: None, trouble: None };
        }
        let servers = match &self.from {
            From::File(_) => Vec::new(),
            From::Services(_) => self.of_services(),
            From::Addresses { name, port } => self.of_addresses(&lower(name), *port),
        };
        let mut kept = std::mem::take(&mut self.found);
        let known = std::mem::take(&mut self.known);
        let asked: BTreeSet<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let is_asked = |name: &str| matches!(self.from, From::Addresses { .. }) || asked.contains(name);
        for (key, addresses) in known.into_iter().filter(|(key, _)| is_asked(&key.0)) {
            kept.entry(key).or_insert(addresses);
        }
        self.known = kept;
        let trouble = self.trouble.take();
        if servers.is_empty() {
            let missing = if self.no_name { "there is no such name (NXDOMAIN)" } else { "the answer has no servers" };
            if let Some(why) = trouble {
                return Round { servers: Err(why), ttl: None, trouble: None };
            }
            return Round { servers: Ok(servers), ttl: self.ttl, trouble: Some(missing.into()) };
        }
        Round { servers: Ok(servers), ttl: self.ttl, trouble }
    }

    /// The addresses of a name: of this round, or of the one before.
    fn addresses(&self, name: &str, v6: bool) -> &[IpAddr] {
        let key = (name.to_owned(), v6);
        self.found.get(&key).or_else(|| self.known.get(&key)).map_or(&[], Vec::as_slice)
    }

    fn of_addresses(&self, name: &str, port: Option<u16>) -> Vec<ServerSettings> {
        let both = [false, true].into_iter().flat_map(|v6| self.addresses(name, v6));
        both.take(MOST_SERVERS).map(|address| server(place(*address, port), &[*address], port)).collect()
    }

    /// Makes the servers of the targets: the lowest priority first, the others as backups; equal addresses and ports once.
    fn of_services(&self) -> Vec<ServerSettings> {
        let priorities: BTreeSet<u16> = self.targets.iter().map(|target| target.priority).collect();
        let ranks: BTreeMap<u16, u16> = priorities.into_iter().zip(1..).collect();
        // RFC 2782: without a weight above 0 there is nothing to choose by.
        let weighted: BTreeSet<u16> = self.targets.iter().filter(|t| t.weight > 0).map(|t| t.priority).collect();
        let mut servers = Vec::new();
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for target in self.targets.iter().filter(|target| target.port != 0) {
            let (v4, v6) = (self.addresses(&target.name, false), self.addresses(&target.name, true));
            let all: Vec<IpAddr> = v4.iter().chain(v6).copied().collect();
            // One server for both families, if it is clear which addresses belong together.
            let name = format!("{}:{}", target.name, target.port);
            let groups = if v4.len() <= 1 && v6.len() <= 1 && is_name(&name) && !all.is_empty() {
                vec![(name, all)]
            } else {
                all.into_iter().map(|address| (place(address, Some(target.port)), vec![address])).collect()
            };
            for (name, addresses) in groups {
                let is_new = addresses.iter().all(|address| !places.contains(&(*address, target.port)));
                if servers.len() == MOST_SERVERS || !is_new || !names.insert(name.clone()) {
                    continue;
                }
                places.extend(addresses.iter().map(|address| (*address, target.port)));
                let mut server = server(name, &addresses, Some(target.port));
                server.priority = ranks[&target.priority];
                server.backup = server.priority > 1;
                server.weight = if weighted.contains(&target.priority) { target.weight } else { 1 };
                servers.push(server);
            }
        }
        // Resolvers give records in any order.
        servers.sort_by_cached_key(|server| (server.priority, server.v4, server.v6, server.port, server.name.clone()));
        servers
    }
}

fn lower(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn server(name: String, addresses: &[IpAddr], port: Option<u16>) -> ServerSettings {
    ServerSettings { name, port, ..ServerSettings::new("", PoolId(0)) }.with_addresses(addresses.iter().copied())
}
