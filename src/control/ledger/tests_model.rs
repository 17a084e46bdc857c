//! The ledger against a naive model: a file and changes as plain maps, every order checked by reading the file that the
//! operator would have written by hand.

#![cfg(feature = "save")]

use super::*;
use crate::balance::ServerSettings;
use crate::config::changes::Kind;
use crate::config::{parse, parse_with_warnings};
use crate::engine::Removed;
use crate::ids::PoolId;
use crate::sources::Found;
use proptest::prelude::*;

const WHO: Who = Who { uid: 1000, pid: 1 };
const POOLS: [&str; 2] = ["web", "api"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Keys of a server with values, the default first.
const KEYS: [(&str, [&str; 3]); 3] = [
    ("weight", ["1", "0", "5"]),
    ("state", ["\"enabled\"", "\"draining\"", "\"disabled\""]),
    ("priority", ["1", "2", "3"]),
];

fn at(second: u64) -> Instant {
    Instant::from_nanos(second * 1_000_000_000)
}

/// A server: the last byte of its address, and which value each key has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    name: String,
    address: u8,
    keys: [usize; 3],
}

/// What a file says, and which servers of the second pool come from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Says {
    pools: [Vec<Own>; 2],
    outside: Vec<Own>,
    rule_off: bool,
    off: [bool; 2],
}

/// An object: a server of a pool, the rule, a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Server(usize, String),
    Rule,
    Service(usize),
}

/// A key of a server by its place, the switch of another thing (0), or the object itself.
type Where = (Thing, Option<usize>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// None is the default.
    Set(Option<usize>),
    Added(Own),
    Removed,
}

/// What the file said: the value, or the address of a server; and whether the server is from outside.
type Before = (Option<usize>, bool);

impl Says {
    fn find(&self, pool: usize, name: &str) -> Option<&Own> {
        let outside = self.outside.iter().filter(|_| pool == 1);
        self.pools[pool].iter().chain(outside).find(|own| own.name == name)
    }

    fn before(&self, at: &Where) -> Before {
        let own = |name: &String| self.pools[1].iter().all(|own| own.name != *name);
        (self.value(at), self.value(at).is_some() && matches!(&at.0, Thing::Server(1, name) if own(name)))
    }

    /// The value of a key; none without the object.
    fn value(&self, (thing, key): &Where) -> Option<usize> {
        match (thing, key) {
            (Thing::Server(pool, name), Some(key)) => self.find(*pool, name).map(|own| own.keys[*key]),
            (Thing::Server(pool, name), None) => self.find(*pool, name).map(|own| own.address.into()),
            (Thing::Rule, _) => Some(self.rule_off.into()),
            (Thing::Service(n), _) => Some(self.off[*n].into()),
        }
    }

    /// The same with changes, as somebody would write it.
    fn with(&self, changes: &BTreeMap<Where, (What, Before)>) -> Says {
        let mut says = self.clone();
        for ((thing, key), (what, _)) in changes {
            match (thing, what) {
                (Thing::Server(pool, _), What::Added(own)) => {
                    let all = if *pool == 1 { &mut says.outside } else { &mut says.pools[0] };
                    all.push(own.clone());
                }
                (Thing::Server(pool, name), What::Removed) => {
                    says.pools[*pool].retain(|own| own.name != *name);
                    if *pool == 1 {
                        says.outside.retain(|own| own.name != *name);
                    }
                }
                (Thing::Server(pool, name), What::Set(value)) => {
                    let outside = says.outside.iter_mut().filter(|_| *pool == 1);
                    let mut all = says.pools[*pool].iter_mut().chain(outside);
                    if let Some(own) = all.find(|own| own.name == *name) {
                        own.keys[key.unwrap()] = value.unwrap_or(0);
                    }
                }
                (Thing::Rule, What::Set(value)) => says.rule_off = *value == Some(1),
                (Thing::Service(n), What::Set(value)) => says.off[*n] = *value == Some(1),
                _ => unreachable!("only servers come and go"),
            }
        }
        says
    }

    /// The text of the file; servers from outside are in it only if `all` are wanted.
    fn text(&self, all: bool) -> String {
        let mut text = String::new();
        for (n, pool) in POOLS.iter().enumerate() {
            let off = if self.off[n] { "enabled = false\n" } else { "" };
            text += &format!("[[service]]\nname = '{pool}'\nlisten = '192.0.2.{n}:80/udp'\npool = '{pool}'\n{off}");
        }
        let off = if self.rule_off { "enabled = false\n" } else { "" };
        text += &format!("[[rule]]\nname = 'block'\nfrom = '198.51.100.0/24'\naction = 'drop'\n{off}");
        for (n, pool) in POOLS.iter().enumerate() {
            text += &format!("[[pool]]\nname = '{pool}'\n");
            // Such a pool may be empty, or have weights of 0 only.
            if n == 1 {
                text += "servers-file = '/etc/servers'\n";
            }
            let outside = self.outside.iter().filter(|_| n == 1 && all);
            for own in self.pools[n].iter().chain(outside) {
                text += &format!("[[pool.server]]\nname = '{}'\naddress = '10.0.{n}.{}'\n", own.name, own.address);
                for ((key, values), value) in KEYS.iter().zip(own.keys).filter(|(_, value)| *value > 0) {
                    text += &format!("{key} = {}\n", values[value]);
                }
            }
        }
        text
    }

    /// Whether the file has a server from outside too: then that is left out.
    fn is_twice(&self) -> bool {
        let is = |own: &Own, other: &Own| other.name == own.name || other.address == own.address;
        self.outside.iter().any(|own| self.pools[1].iter().any(|other| is(own, other)))
    }

    fn file(&self) -> Option<File> {
        let parsed = parse_with_warnings(&self.text(false), "lb.toml").ok()?;
        let server = |own: &Own| {
            let mut server = ServerSettings::new(&own.name, PoolId(0));
            server.v4 = Some([10, 0, 1, own.address].into());
            server.weight = KEYS[0].1[own.keys[0]].parse().unwrap();
            server.admin = [Admin::Enabled, Admin::Draining, Admin::Disabled][own.keys[1]];
            server.priority = 1 + own.keys[2] as u16;
            server
        };
        let found: Found = [("api".to_owned(), Arc::new(self.outside.iter().map(server).collect()))].into();
        let (file, left_out) = File::of(&parsed).with_servers(&found).ok()?;
        assert!(left_out.is_empty(), "{left_out:?}");
        Some(file)
    }
}

/// What happens.
#[derive(Debug, Clone)]
enum Op {
    Set(usize, usize, usize, Option<usize>),
    Add(usize, usize, u8),
    Remove(usize, usize),
    Drop(Option<(usize, usize, Option<usize>)>),
    Rule(bool),
    Service(usize, bool),
    /// The file, or the list from outside, becomes another one, and is read.
    Edit(usize, usize, usize, usize),
    Restart,
    Save,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (pool, name) = (0..2usize, 0..4usize);
    let op = prop_oneof![
        6 => (pool.clone(), name.clone(), 0..3usize, proptest::option::weighted(0.8, 0..3usize)).prop_map(|(p, n, k, v)| Op::Set(p, n, k, v)),
        4 => (pool.clone(), name.clone(), 1..7u8).prop_map(|(p, n, a)| Op::Add(p, n, a)),
        3 => (pool.clone(), name.clone()).prop_map(|(p, n)| Op::Remove(p, n)),
        2 => proptest::option::weighted(0.9, (pool.clone(), name.clone(), proptest::option::of(0..3usize))).prop_map(Op::Drop),
        1 => any::<bool>().prop_map(Op::Rule),
        1 => (pool.clone(), any::<bool>()).prop_map(|(p, on)| Op::Service(p, on)),
        6 => (0..6usize, name, 0..3usize, 0..7usize).prop_map(|(w, n, k, v)| Op::Edit(w, n, k, v)),
        1 => Just(Op::Restart),
        1 => Just(Op::Save),
    ];
    proptest::collection::vec(op, 1..30)
}

struct Lab {
    ledger: Ledger,
    engine: Engine,
    says: Says,
    changes: BTreeMap<Where, (What, Before)>,
    second: u64,
}

fn target(thing: &Thing) -> Target {
    match thing {
        Thing::Server(pool, name) => Target::new(Kind::Server, format!("{}/{name}", POOLS[*pool])),
        Thing::Rule => Target::new(Kind::Rule, "block"),
        Thing::Service(n) => Target::new(Kind::Service, POOLS[*n]),
    }
}

impl Lab {
    fn new(says: Says) -> Lab {
        let file = says.file().unwrap();
        let settings = file.settings().clone().with_seed(77);
        let engine = Engine::new(&settings);
        Lab { ledger: Ledger::new(Some(file), settings), engine, says, changes: BTreeMap::new(), second: 10 }
    }

    fn now(&self) -> Instant {
        at(self.second)
    }

    /// Asks, and carries out what is ordered; `then` is what the changes become if that is right.
    fn ask(&mut self, ask: &Ask, then: Option<BTreeMap<Where, (What, Before)>>) {
        let now = self.now();
        let result = match self.ledger.ask(&mut self.engine, now, WHO, ask) {
            Err(error) => Err(error),
            Ok(Reply::Done(rows)) => Ok(rows),
            Ok(Reply::Busy) => panic!("busy"),
            Ok(Reply::Ordered(number)) => {
                let resolved = self.ledger.poll_order().unwrap().resolve();
                if let Some(settings) = resolved.as_ref().ok().and_then(|resolved| resolved.settings()) {
                    self.engine.reload(now, settings, Removed::Drain);
                    self.ledger.follow(settings);
                }
                self.ledger.carried_out(&mut self.engine, now, number, resolved);
                self.ledger.take_outcome(number).unwrap()
            }
        };
        let then = then.filter(|then| parse(&self.says.with(then).text(true), "x").is_ok());
        assert_eq!(result.is_ok(), then.is_some(), "{ask:?}: {result:?}");
        if let Some(then) = then {
            self.changes = then;
        }
    }

    fn set(&mut self, thing: Thing, key: usize, value: Option<usize>) {
        let place = (thing.clone(), Some(key));
        let in_force = self.says.with(&self.changes);
        let then = in_force.value(&place).map(|now| {
            let mut then = self.changes.clone();
            // What is so already is no change, and what the file says is none either.
            if now != value.unwrap_or(0) {
                then.insert(place.clone(), (What::Set(value), self.says.before(&place)));
                if self.says.value(&place) == Some(value.unwrap_or(0)) {
                    then.remove(&place);
                }
            }
            then
        });
        let word = |value: usize| match thing {
            Thing::Server(..) => KEYS[key].1[value].to_owned(),
            _ => (value == 0).to_string(),
        };
        let name = if matches!(thing, Thing::Server(..)) { KEYS[key].0 } else { "enabled" };
        let values = [(name.to_owned(), value.map(word))].into();
        self.ask(&Ask::Set { target: target(&thing), values, deadline: Deadline::Keep }, then);
    }

    fn carry_out(&mut self, op: &Op) {
        self.second += 1;
        let server = |pool: &usize, name: &usize| Thing::Server(*pool, NAMES[*name].into());
        match op {
            Op::Set(pool, name, key, value) => self.set(server(pool, name), *key, *value),
            Op::Rule(on) => self.set(Thing::Rule, 0, Some(usize::from(!on))),
            Op::Service(n, on) => self.set(Thing::Service(*n), 0, Some(usize::from(!on))),
            Op::Add(pool, name, address) => self.add(*pool, NAMES[*name], *address),
            Op::Remove(pool, name) => self.remove(*pool, NAMES[*name]),
            Op::Drop(what) => self.drop_changes(what),
            Op::Edit(which, name, key, value) => self.edit(*which, NAMES[*name], *key, *value),
            Op::Restart => self.restart(),
            Op::Save => self.save(),
        }
    }

    fn add(&mut self, pool: usize, name: &str, address: u8) {
        let thing = Thing::Server(pool, name.into());
        let own = Own { name: name.into(), address, keys: [0; 3] };
        let in_force = self.says.with(&self.changes);
        let is_free = in_force.find(pool, &own.name).is_none() && !self.changes.contains_key(&(thing.clone(), None));
        let then = is_free.then(|| {
            let mut then = self.changes.clone();
            then.retain(|(of, _), _| *of != thing);
            then.insert((thing.clone(), None), (What::Added(own), (None, false)));
            then
        });
        let values = [("address".to_owned(), format!("'10.0.{pool}.{address}'"))].into();
        self.ask(&Ask::Add { target: target(&thing), values }, then);
    }

    fn remove(&mut self, pool: usize, name: &str) {
        let thing = Thing::Server(pool, name.into());
        let is_there = self.says.with(&self.changes).find(pool, name).is_some();
        let then = is_there.then(|| {
            let mut then = self.changes.clone();
            then.retain(|(of, _), _| *of != thing);
            let place = (thing.clone(), None);
            if self.says.value(&place).is_some() {
                let before = self.says.before(&place);
                then.insert(place, (What::Removed, before));
            }
            then
        });
        self.ask(&Ask::Remove { target: target(&thing), now: false }, then);
    }

    /// Forgets all changes, those of a server, or that of one key.
    fn drop_changes(&mut self, what: &Option<(usize, usize, Option<usize>)>) {
        let server = |pool: &usize, name: &usize| Thing::Server(*pool, NAMES[*name].into());
        let is = |(thing, key): &Where| match what {
            None => true,
            Some((pool, name, of)) => *thing == server(pool, name) && (of.is_none() || of == key),
        };
        let any = self.changes.keys().any(is);
        let then = (any || what.is_none()).then(|| {
            let mut then = self.changes.clone();
            let added = |(what, _): &(What, Before)| matches!(what, What::Added(_));
            let ends: Vec<Thing> =
                then.iter().filter(|(at, of)| is(at) && added(of)).map(|(at, _)| at.0.clone()).collect();
            then.retain(|at, _| !is(at) && !ends.contains(&at.0));
            then
        });
        let (target, key) = match what {
            None => (None, None),
            Some((pool, name, key)) => (Some(target(&server(pool, name))), key.map(|key| KEYS[key].0.to_owned())),
        };
        self.ask(&Ask::Drop { target, key }, then);
    }

    /// Changes the file, and reads it again.
    fn edit(&mut self, which: usize, name: &str, key: usize, value: usize) {
        let mut says = self.says.clone();
        let all = match which {
            0 | 1 => &mut says.pools[which],
            _ => &mut says.outside,
        };
        let place = all.iter().position(|own| own.name == name);
        match (place, value) {
            (Some(place), 0) => drop(all.remove(place)),
            (Some(place), 1) => all[place].address = 1 + (all[place].address + key as u8) % 6,
            (Some(place), value) => all[place].keys[key] = value % 3,
            (None, _) => all.push(Own { name: name.into(), address: value as u8, keys: [0; 3] }),
        }
        if says.is_twice() || says.pools.iter().chain([&says.outside]).flatten().any(|own| own.address == 0) {
            return;
        }
        if let Some(file) = says.file() {
            self.says = says;
            let merged = self.ledger.begin_reload().unwrap().merge(file);
            self.reconcile(merged.dropped().len());
            let (now, settings) = (self.now(), Arc::new(merged.settings().clone()));
            self.engine.reload(now, &settings, Removed::Drain);
            self.ledger.reloaded(&mut self.engine, now, Some((merged, settings)));
            self.settle();
        }
    }

    fn restart(&mut self) {
        // Another boot's clock; the state is a second old.
        let saved = self.ledger.save_changes(at(self.second - 1));
        let file = self.says.file().unwrap();
        let settings = file.settings().clone().with_seed(77);
        self.ledger = Ledger::new(Some(file), settings);
        let kept = self.ledger.load_changes(&saved, at(self.second - 1), self.now(), |_| Ok(())).unwrap();
        assert_eq!((kept.changes, kept.dropped.len(), kept.unreadable.len()), (self.changes.len(), 0, 0));
        self.engine = Engine::new(self.ledger.in_force());
        self.ledger.started(&mut self.engine, at(self.second));
    }

    /// The file with the changes takes the place of the file: nothing differs but what cannot be in it.
    fn save(&mut self) {
        let rows = self.ledger.change_rows(self.now());
        let crate::control::Saved { text, left_out } =
            crate::control::saved(&self.ledger.file_row().unwrap(), &rows).unwrap();
        let outside = Says { outside: self.says.outside.clone(), ..Says::default() };
        let is_left_out = |at: &Where, (what, _): &(What, Before)| {
            let Thing::Server(1, name) = &at.0 else { return false };
            let added = self.changes.get(&(at.0.clone(), None)).is_some_and(|(what, _)| matches!(what, What::Added(_)));
            self.says.pools[1].iter().all(|own| own.name != *name) && !added && !matches!(what, What::Added(_))
        };
        let (kept, written): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.changes.clone().into_iter().partition(|(at, of)| is_left_out(at, of));
        assert_eq!(left_out.len(), kept.len(), "{left_out:?}");
        let mut says = self.says.with(&written);
        // Servers that were added are in the file from now on.
        let added = says.outside.split_off(outside.outside.len());
        says.pools[1].extend(added);
        let parsed = parse_with_warnings(&text, "lb.toml").unwrap();
        let by_hand = parse(&says.text(false), "lb.toml").unwrap();
        assert_eq!(parsed.settings, by_hand, "{text}");
        if says.is_twice() {
            return;
        }
        let before = Arc::clone(self.ledger.in_force());
        (self.says, self.changes) = (says, kept);
        let merged = self.ledger.begin_reload().unwrap().merge(self.says.file().unwrap());
        let (now, settings) = (self.now(), Arc::new(merged.settings().clone()));
        let sorted = |settings: &Settings| {
            let mut servers: Vec<_> =
                settings.servers.iter().map(|own| (own.pool, own.name.clone(), own.clone())).collect();
            servers.sort_by_key(|(pool, name, _)| (*pool, name.clone()));
            servers
        };
        assert_eq!(sorted(&settings), sorted(&before), "what was saved is not what was in force");
        self.engine.reload(now, &settings, Removed::Drain);
        self.ledger.reloaded(&mut self.engine, now, Some((merged, settings)));
    }

    /// The file says something else for some keys.
    fn reconcile(&mut self, dropped: usize) {
        let before = self.changes.len();
        let says = &self.says;
        let ends: Vec<Thing> = self
            .changes
            .iter()
            .filter(|(at, (what, _))| matches!(what, What::Added(_)) && says.value(at).is_some())
            .map(|(at, _)| at.0.clone())
            .collect();
        self.changes.retain(|at, (what, (said, outside))| {
            let now = says.value(at);
            match what {
                What::Added(_) => now.is_none(),
                _ if now.is_none() && *outside => true,
                _ => {
                    now == *said
                        && (now.is_some() || !ends.contains(&at.0))
                        && (now.is_some() || !matches!(what, What::Removed))
                }
            }
        });
        assert!(dropped >= before - self.changes.len(), "{dropped} of {before}, want {}", before - self.changes.len());
    }

    /// Changes that clash with a newer file are dropped: which of them is the ledger's to say, as long as it is right.
    fn settle(&mut self) {
        let fits = parse(&self.says.with(&self.changes).text(true), "x").is_ok();
        let left = self.ledger.changes();
        if fits {
            assert_eq!(left.len(), self.changes.len(), "{:?}\n{:?}", left, self.changes);
        } else {
            let key = |at: &Where| match (&at.0, at.1) {
                (_, None) => None,
                (Thing::Server(..), Some(key)) => Some(KEYS[key].0),
                _ => Some("enabled"),
            };
            assert!(left.len() < self.changes.len());
            self.changes.retain(|at, _| left.get(&target(&at.0), key(at)).is_some());
            assert_eq!(left.len(), self.changes.len());
        }
    }

    fn check(&self) {
        let want = parse(&self.says.with(&self.changes).text(true), "x").unwrap();
        let got = self.ledger.in_force();
        assert_eq!(got.servers, want.servers);
        assert_eq!((&got.services, &got.policy), (&want.services, &want.policy));
        let rows = self.engine.servers(self.now());
        let rows: Vec<_> =
            rows.iter().filter(|row| !row.removed).map(|row| (&row.server, row.weight, row.admin)).collect();
        let own: Vec<_> = want.servers.iter().map(|own| (&own.name, own.weight, own.admin)).collect();
        assert_eq!(rows, own);
        assert_eq!(self.ledger.changes().len(), self.changes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_changed_edited_saved_and_restarted_the_settings_are_those_of_the_file_with_the_changes(all in ops()) {
        let own = |name: &str, address| Own { name: name.into(), address, keys: [0; 3] };
        let mut lab = Lab::new(Says {
            pools: [vec![own("a", 1), own("b", 2)], vec![own("a", 1)]],
            outside: vec![own("b", 2), own("c", 3)],
            ..Says::default()
        });
        for op in &all {
            lab.carry_out(op);
            lab.check();
        }
    }
}
