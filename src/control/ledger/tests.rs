//! The ledger beside an engine: what changes ask for, and what holds after them.

mod kept;

use super::*;
use crate::config::changes::Kind;
use crate::config::parse_with_warnings;
use crate::control::protocol::DrainState;
use crate::engine::{Event, Removed};
use std::sync::Arc;

const TEXT: &str = "[[service]]\nname = 'web'\nlisten = '192.0.2.80:80/udp'\npool = 'web'\n\
    [[service]]\nname = 'api'\nlisten = '192.0.2.81:80/udp'\npool = 'api'\n\
    [[pool]]\nname = 'web'\nserver = [{ name = 'a', address = '10.0.0.1' }, { name = 'b', address = '10.0.0.2' }]\n\
    [[pool]]\nname = 'api'\nserver = [{ name = 'a', address = '10.0.1.1' }]\n\
    [[rule]]\nname = 'block'\nfrom = '198.51.100.0/24'\naction = 'drop'\n";

const ROOT: Who = Who { uid: 0, pid: 9 };

fn at(second: u64) -> Instant {
    Instant::from_nanos(second * 1_000_000_000)
}

/// A ledger, an engine, and a driver that puts orders in force at once.
struct Lab {
    ledger: Ledger,
    engine: Engine,
}

impl Lab {
    fn new() -> Lab {
        let parsed = parse_with_warnings(TEXT, "lb.toml").unwrap();
        let settings = parsed.settings.clone().with_seed(77);
        let engine = Engine::new(&settings);
        Lab { ledger: Ledger::new(Some(File::of(&parsed)), settings), engine }
    }

    /// Asks, and carries out what is ordered.
    fn ask(&mut self, ask: &Ask) -> Result<Vec<ChangedRow>, String> {
        match self.ledger.ask(&mut self.engine, at(1), ROOT, ask)? {
            Reply::Done(rows) => Ok(rows),
            Reply::Busy => Err("busy".into()),
            Reply::Ordered(number) => {
                let order = self.ledger.poll_order().expect("an order");
                let resolved = order.resolve();
                if let Some(settings) = resolved.as_ref().ok().and_then(|resolved| resolved.settings()) {
                    self.engine.reload(at(2), settings, Removed::Drain);
                    self.ledger.follow(settings);
                }
                self.ledger.carried_out(&mut self.engine, at(2), number, resolved);
                self.ledger.take_outcome(number).expect("an outcome")
            }
        }
    }

    fn set(&mut self, kind: Kind, name: &str, values: &[(&str, &str)]) -> Result<Vec<ChangedRow>, String> {
        self.ask(&set(kind, name, values))
    }

    /// The settings in force are those that the engine has.
    fn check(&self) {
        let rows = self.engine.servers(at(3));
        assert_eq!(rows.len(), self.ledger.in_force().servers.len());
        for (row, own) in rows.iter().zip(&self.ledger.in_force().servers) {
            assert_eq!((&row.server, row.weight, row.admin), (&own.name, own.weight, own.admin));
        }
        for row in self.engine.rules() {
            let own = self.ledger.in_force().policy.rules.iter().find(|rule| rule.name == row.rule).unwrap();
            assert_eq!(row.enabled, own.enabled);
        }
        let file = self.ledger.file().unwrap();
        assert_eq!(**self.ledger.in_force(), file.with(self.ledger.changes()).unwrap().with_seed(77));
    }

    fn differing(&self) -> Vec<String> {
        let rows = self.ledger.change_rows(at(3)).into_iter();
        let none = || "-".to_owned();
        rows.map(|row| {
            let (key, file) = (row.key.unwrap_or_else(none), row.file.unwrap_or_else(none));
            format!("{} {key} {file} {}", row.object, row.value.unwrap_or_else(none))
        })
        .collect()
    }
}

fn set(kind: Kind, name: &str, values: &[(&str, &str)]) -> Ask {
    let value = |(key, value): &(&str, &str)| ((*key).into(), Some((*value).into()).filter(|v: &String| !v.is_empty()));
    Ask::Set { target: Target::new(kind, name), values: values.iter().map(value).collect(), deadline: Deadline::Keep }
}

fn drain(name: &str, seconds: Option<u64>) -> Ask {
    let values = [("state".into(), Some("\"draining\"".into()))].into();
    let deadline = seconds.map_or(Deadline::Keep, |seconds| Deadline::After(Duration::from_secs(seconds)));
    Ask::Set { target: Target::new(Kind::Server, name), values, deadline }
}

fn drain_for_ever(name: &str) -> Ask {
    let values = [("state".into(), Some("\"draining\"".into()))].into();
    Ask::Set { target: Target::new(Kind::Server, name), values, deadline: Deadline::Never }
}

fn add(name: &str, keys: &[(&str, &str)]) -> Ask {
    let values = keys.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Ask::Add { target: Target::new(Kind::Server, name), values }
}

fn remove(name: &str) -> Ask {
    Ask::Remove { target: Target::new(Kind::Server, name), now: false }
}

fn go_back(target: Option<(Kind, &str)>, key: Option<&str>) -> Ask {
    Ask::Drop { target: target.map(|(kind, name)| Target::new(kind, name)), key: key.map(Into::into) }
}

#[test]
fn a_change_shows_the_object_before_and_after_and_is_kept() {
    let mut lab = Lab::new();
    let rows = lab.set(Kind::Server, "b", &[("weight", "5")]).unwrap();
    assert_eq!(rows[0].text, "server web/b: weight 1 -> 5 (new flows only)");
    let of = |object: &Option<serde_json::Map<String, serde_json::Value>>| object.as_ref().unwrap()["weight"].clone();
    assert_eq!((of(&rows[0].before), of(&rows[0].after)), (1.into(), 5.into()));
    assert_eq!(rows[0].after.as_ref().unwrap()["address"], "10.0.0.2");
    lab.set(Kind::Rule, "block", &[("enabled", "false")]).unwrap();
    lab.set(Kind::Service, "web", &[("enabled", "false")]).unwrap();
    lab.set(Kind::Server, "web/a", &[("state", "\"disabled\""), ("max-flows", "7")]).unwrap();
    assert_eq!(
        lab.differing(),
        [
            "service web enabled true false",
            "rule block enabled true false",
            "server web/a max-flows no limit 7",
            "server web/a state \"enabled\" \"disabled\"",
            "server web/b weight 1 5"
        ]
    );
    lab.check();
    let journal: Vec<String> = lab.ledger.operation_rows(at(11)).into_iter().map(|row| row.what).collect();
    assert_eq!(journal.len(), 5, "{journal:?}");
    assert_eq!(lab.ledger.poll_line().unwrap(), "uid 0, pid 9: server web/b: weight 1 -> 5 (new flows only)");
}

#[test]
fn the_same_value_again_and_the_value_of_the_file_are_no_changes() {
    let mut lab = Lab::new();
    let rows = lab.set(Kind::Server, "web/b", &[("weight", "1")]).unwrap();
    assert_eq!((rows[0].changed, &rows[0].text[..]), (false, "server web/b: no change: it is already so"));
    lab.set(Kind::Server, "web/b", &[("weight", "5")]).unwrap();
    assert!(!lab.set(Kind::Server, "web/b", &[("weight", "5")]).unwrap()[0].changed);
    assert_eq!(lab.ledger.operation_rows(at(1)).len(), 1);
    // Back to what the file says: nothing differs any more.
    assert!(lab.set(Kind::Server, "web/b", &[("weight", "1")]).unwrap()[0].changed);
    assert_eq!(lab.differing(), [""; 0]);
    lab.check();
}

#[test]
fn servers_come_and_go() {
    let mut lab = Lab::new();
    let rows = lab.ask(&add("web/c", &[("address", "\"10.0.0.3\""), ("weight", "2")])).unwrap();
    assert_eq!((&rows[0].text[..], &rows[0].before), ("server web/c: added", &None));
    lab.set(Kind::Server, "c", &[("weight", "4")]).unwrap();
    lab.set(Kind::Server, "web/c", &[("state", "\"disabled\"")]).unwrap();
    lab.check();
    lab.ask(&remove("web/b")).unwrap();
    assert_eq!(
        lab.differing(),
        [
            "server web/b - { address = \"10.0.0.2\", weight = 1, slow-start = \"0s\", backup = false, priority = 1, \
             state = \"enabled\" } -",
            "server web/c - - { address = \"10.0.0.3\", weight = 2 }",
            "server web/c state - \"disabled\"",
            "server web/c weight - 4",
        ]
    );
    let removed = lab.set(Kind::Server, "web/b", &[("weight", "4")]).unwrap_err();
    assert_eq!(removed, "server web/b was removed by uid 0, pid 9; `eqctl changes drop server web/b` brings it back");
    assert!(lab.ask(&add("web/b", &[("address", "\"10.0.0.2\"")])).unwrap_err().contains("brings it back"));
    assert_eq!(lab.set(Kind::Server, "b", &[("weight", "4")]), Err(removed), "by the short form too");
    // An addition that is removed leaves nothing.
    lab.ask(&remove("web/c")).unwrap();
    assert_eq!(lab.differing().len(), 1);
    lab.ask(&go_back(Some((Kind::Server, "b")), None)).unwrap();
    lab.check();
    assert_eq!(lab.ledger.in_force().servers.len(), 3);
}

#[test]
fn what_cannot_be_is_refused_with_a_hint_and_changes_nothing() {
    let mut lab = Lab::new();
    lab.ask(&remove("web/b")).unwrap();
    for (ask, want) in [
        (set(Kind::Server, "web/x", &[("weight", "5")]), "there is no server web/x; did you mean web/a?"),
        (set(Kind::Server, "a", &[("weight", "5")]), "several pools have a server a: write web/a, api/a"),
        (
            set(Kind::Server, "web/a", &[("weight", "0")]),
            "weight = 0 of server web/a is refused: all servers of this pool have weight 0 (line",
        ),
        (set(Kind::Server, "web/a", &[("weight", "-1")]), "`weight` is out of range: allowed: 0 to 65535"),
        (
            set(Kind::Server, "web/a", &[("state", "\"off\"")]),
            "unknown value \"off\" for `state`: allowed: \"enabled\", \"draining\", \"disabled\"",
        ),
        (set(Kind::Server, "web/a", &[("color", "5")]), "unknown key \"color\" in [[pool.server]]"),
        (set(Kind::Server, "web/a", &[("name", "\"z\"")]), "the name of a server is what it is known by"),
        (set(Kind::Server, "web/a", &[]), "nothing to set"),
        (
            set(Kind::Server, "web/a", &[("port", "8\u{1b}[2J")]),
            "port = 8?[2J of server web/a is refused: \"8\\u001B[2J\" is not a value",
        ),
        (
            Ask::Set {
                target: Target::new(Kind::Server, "web/a"),
                values: [("state".into(), Some("'enabled'".into()))].into(),
                deadline: Deadline::After(Duration::from_secs(1)),
            },
            "a deadline is for draining only",
        ),
        (set(Kind::Pool, "wbe", &[("floor", "1")]), "there is no pool wbe; did you mean web?"),
        (set(Kind::Pool, "web", &[("servers-file", "\"/x\"")]), "servers-file of a pool cannot be changed at run time"),
        (add("web/c", &[("address", "\"10.0.0.3\", weight = 9")]), "is not a value"),
        (add("web/c", &[("weight = 9, address", "\"10.0.0.3\"")]), "is not a key of a server"),
        (set(Kind::Pool, "web", &[("server", "[]")]), "server of a pool cannot be changed at run time"),
        (
            set(Kind::Service, "web", &[("listen", "\"1.2.3.4:5/tcp\"")]),
            "listen of a service cannot be changed at run time",
        ),
        (set(Kind::Rule, "blok", &[("enabled", "true")]), "there is no rule blok; did you mean block?"),
        (set(Kind::Rule, "block", &[("enabled", "1")]), "`enabled` must be true or false"),
        (remove("web/a"), "the removal of server web/a is refused: a pool needs a server"),
        (remove("web/zzzzzzz"), "there is no server web/zzzzzzz; `eqctl servers` lists them"),
        (add("web/c", &[]), "[[pool.server]] has no `address`: add `address = \"10.0.2.11\"`"),
        (add("web/c", &[("address", "\"10.0.0.1\"")]), "two servers of one pool have the same address and port"),
        (add("web/c", &[("address", "\"192.0.2.80\"")]), "server address 192.0.2.80 is a service address"),
        (add("c", &[("address", "\"10.0.0.3\"")]), "write the new server as POOL/SERVER"),
        (add("nil/c", &[("address", "\"10.0.0.3\"")]), "there is no pool nil"),
        (add("web/c d\n", &[("address", "\"10.0.0.3\"")]), "\"c d\\n\" is not a valid name"),
        (add("web/c/d", &[("address", "\"10.0.0.3\"")]), "\"c/d\" is not a valid name"),
        (add("web/a", &[("address", "\"10.0.0.3\"")]), "server web/a exists already"),
        (go_back(Some((Kind::Server, "web/a")), None), "server web/a is as in the file"),
        (go_back(Some((Kind::Server, "web/a")), Some("weight")), "weight of server web/a is as in the file"),
    ] {
        let (changes, settings) = (lab.ledger.changes().clone(), Arc::clone(lab.ledger.in_force()));
        let error = lab.ask(&ask).unwrap_err();
        assert!(error.contains(want), "{error}\n  want: {want}");
        assert_eq!((&changes, &settings), (lab.ledger.changes(), lab.ledger.in_force()), "{error}");
    }
    assert_eq!(lab.ledger.operation_rows(at(1)).len(), 1);
    lab.check();
}

#[test]
fn everything_goes_back_to_the_file() {
    let mut lab = Lab::new();
    assert_eq!(lab.ask(&go_back(None, None)), Ok(vec![]));
    lab.set(Kind::Server, "web/b", &[("weight", "0")]).unwrap();
    lab.set(Kind::Server, "web/b", &[("state", "\"disabled\"")]).unwrap();
    lab.set(Kind::Rule, "block", &[("enabled", "false")]).unwrap();
    lab.ask(&add("api/n", &[("address", "\"10.0.0.3\"")])).unwrap();
    lab.set(Kind::Server, "n", &[("weight", "9")]).unwrap();
    // A key alone.
    let rows = lab.ask(&go_back(Some((Kind::Server, "b")), Some("weight"))).unwrap();
    assert_eq!(rows[0].text, "server web/b: weight 0 -> 1 (new flows only)");
    assert_eq!(lab.differing().len(), 4);
    lab.check();
    let rows = lab.ask(&go_back(None, None)).unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(lab.ledger.changes().is_empty());
    lab.check();
}

/// Opens a flow to the only server of the pool `api`.
fn open_flow(engine: &mut Engine, port: u16) {
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4([100, 0, 0, 1], [192, 0, 2, 81], 64).udp(port, 80);
    builder.write(&mut packet, b"hello").unwrap();
    engine.handle_packet(at(1), &mut packet, crate::packet::Meta::default());
}

#[test]
fn a_deadline_is_a_change_of_its_own() {
    let mut lab = Lab::new();
    open_flow(&mut lab.engine, 5000);
    let rows = lab.ask(&drain("api/a", Some(60))).unwrap();
    assert_eq!(rows[0].text, "server api/a: state \"enabled\" -> \"draining\" (at once), remaining flows end in 1m");
    assert_eq!(rows[0].flows, Some(1));
    let rows = lab.ask(&drain("api/a", Some(90))).unwrap();
    assert_eq!((rows[0].changed, &rows[0].text[..]), (true, "server api/a: draining, remaining flows end in 1m 30s"));
    assert_eq!(lab.ledger.change_rows(at(31))[0].deadline_ms, Some(60_000));
    // Whoever says nothing about it, as a second operator who waits for the end, leaves it as it is.
    let rows = lab.ask(&drain("api/a", None)).unwrap();
    assert_eq!((rows[0].changed, &rows[0].text[..]), (false, "server api/a: no change: it is already so"));
    assert_eq!(lab.ledger.change_rows(at(31))[0].deadline_ms, Some(60_000));
    // Also beside another key.
    let rows = lab.set(Kind::Server, "api/a", &[("state", "\"draining\""), ("weight", "3")]).unwrap();
    assert_eq!(rows[0].text, "server api/a: weight 1 -> 3 (new flows only)");
    assert_eq!(lab.ledger.change_rows(at(31)).iter().find_map(|row| row.deadline_ms), Some(60_000));
    let left = |lab: &Lab| lab.engine.servers(at(31)).into_iter().find(|row| row.server == "a" && row.pool == "api");
    assert_eq!(left(&lab).unwrap().drain_deadline_ms, Some(60_000));
    let rows = lab.ask(&drain_for_ever("api/a")).unwrap();
    assert_eq!((rows[0].changed, &rows[0].text[..]), (true, "server api/a: draining, without a deadline"));
    assert_eq!(left(&lab).unwrap().drain_deadline_ms, None);
    for ask in [drain("api/a", None), drain_for_ever("api/a")] {
        assert!(!lab.ask(&ask).unwrap()[0].changed);
    }
    lab.check();
}

#[test]
fn draining_is_followed_to_its_end() {
    let mut lab = Lab::new();
    open_flow(&mut lab.engine, 5000);
    let state =
        |lab: &Lab, second| lab.ledger.drain_row(&lab.engine, at(second), "api/a").map(|row| (row.state, row.flows));
    assert_eq!(state(&lab, 1), Ok((DrainState::NotDraining, 1)));
    assert_eq!(lab.ask(&drain("api/a", Some(10))).unwrap()[0].flows, Some(1));
    assert_eq!(state(&lab, 2), Ok((DrainState::Draining, 1)));
    let mut saw = Vec::new();
    for second in [11, 12] {
        lab.engine.handle_timeout(at(second));
        while let Some(event) = lab.engine.poll_event() {
            lab.ledger.saw(&event, at(second));
            saw.push(event);
        }
    }
    assert!(saw.iter().any(|event| matches!(event, Event::DrainDeadline { flows: 1, .. })), "{saw:?}");
    let row = lab.ledger.drain_row(&lab.engine, at(20), "api/a").unwrap();
    assert_eq!((row.state, row.flows, row.cut, row.for_ms), (DrainState::Deadline, 0, 1, Some(10_000)));
    // Once it is enabled and drained again, the deadline is forgotten.
    lab.set(Kind::Server, "api/a", &[("state", "\"enabled\"")]).unwrap();
    lab.ask(&drain("api/a", None)).unwrap();
    assert_eq!(state(&lab, 21), Ok((DrainState::Drained, 0)));
    assert!(lab.ledger.drain_row(&lab.engine, at(1), "api/nobody").unwrap_err().contains("there is no server"));
}

#[test]
fn requests_wait_for_an_order_and_nothing_is_lost() {
    let mut lab = Lab::new();
    let Ok(Reply::Ordered(first)) =
        lab.ledger.ask(&mut lab.engine, at(1), ROOT, &add("web/c", &[("address", "\"10.0.0.3\"")]))
    else {
        panic!("an order")
    };
    let quick = set(Kind::Server, "web/b", &[("weight", "5")]);
    assert_eq!(lab.ledger.ask(&mut lab.engine, at(1), ROOT, &quick), Ok(Reply::Busy));
    assert_eq!(lab.ledger.take_outcome(first), None);
    assert!(lab.ledger.begin_reload().is_none());
    assert_eq!(lab.ledger.poll_order().map(|order| order.number()), Some(first));
    assert!(lab.ledger.poll_order().is_none());
    lab.ledger.carried_out(&mut lab.engine, at(2), first, Err("no room".into()));
    assert_eq!(lab.ledger.take_outcome(first), Some(Err("no room".into())));
    assert!(lab.ledger.changes().is_empty() && lab.ledger.operation_rows(at(2)).is_empty());
    assert!(matches!(lab.ledger.ask(&mut lab.engine, at(3), ROOT, &quick), Ok(Reply::Done(_))));
    assert!(lab.ledger.take_outcome(99).unwrap().is_err());
}

#[test]
fn a_reload_keeps_what_the_file_does_not_change_and_tells_the_rest() {
    let mut lab = Lab::new();
    lab.set(Kind::Server, "web/a", &[("weight", "5")]).unwrap();
    lab.set(Kind::Server, "web/b", &[("weight", "7")]).unwrap();
    lab.set(Kind::Rule, "block", &[("enabled", "false")]).unwrap();
    let newer = TEXT.replace("address = '10.0.0.1' }", "address = '10.0.0.1', weight = 2 }");
    let newer = File::of(&parse_with_warnings(&newer, "lb.toml").unwrap());
    let merged = lab.ledger.begin_reload().unwrap().merge(newer);
    assert_eq!(lab.ledger.ask(&mut lab.engine, at(4), ROOT, &drain("web/a", None)), Ok(Reply::Busy));
    assert_eq!(merged.dropped().len(), 1);
    // The engine keeps its own weights: the ledger sets what differs.
    let settings = Arc::new(merged.settings().clone());
    lab.ledger.reloaded(&mut lab.engine, at(5), Some((merged, settings)));
    lab.check();
    assert_eq!(lab.engine.servers(at(5)).iter().map(|row| row.weight).collect::<Vec<_>>(), [2, 7, 1]);
    assert_eq!(lab.differing(), ["rule block enabled true false", "server web/b weight 1 7"]);
    let last = lab.ledger.operation_rows(at(6)).pop().unwrap();
    assert_eq!((last.ago_ms, last.who), (1000, None));
    assert_eq!(
        last.what,
        "weight of server web/a: the file says 2, so the change to 5 by uid 0, pid 9 no longer applies"
    );
    // A reload that fails changes nothing, and the ledger goes on.
    assert!(lab.ledger.begin_reload().is_some());
    lab.ledger.reloaded(&mut lab.engine, at(6), None);
    assert!(lab.ask(&drain("web/a", None)).is_ok());
}

#[test]
fn weights_and_states_are_compared_in_portions_whatever_the_order_of_the_servers() {
    let swapped = TEXT
        .replace("name = 'a', address = '10.0.0.1'", "name = 'x', address = '10.0.0.2'")
        .replace("name = 'b', address = '10.0.0.2'", "name = 'a', address = '10.0.0.1'")
        .replace("name = 'x'", "name = 'b'");
    for text in [TEXT, &swapped] {
        let mut lab = Lab::new();
        lab.engine = Engine::new(&parse_with_warnings(text, "lb.toml").unwrap().settings.with_seed(77));
        lab.set(Kind::Server, "web/b", &[("weight", "5")]).unwrap();
        lab.ask(&drain("web/a", Some(60))).unwrap();
        let ids: Vec<_> = (0..).map_while(|place| Some(lab.engine.set_by_operators(place)?.id)).collect();
        assert_eq!(ids.len(), 3);
        for server in ids {
            for change in [
                Change::Weight { server, weight: 99 },
                Change::Admin { server, admin: Admin::Disabled, deadline: None },
            ] {
                lab.engine.apply(at(2), change).unwrap();
            }
        }
        let (mut from, mut steps) = (Some(0), 0);
        while let Some(place) = from {
            from = lab.ledger.assert_part(&mut lab.engine, at(3), place, 1);
            steps += 1;
            let others = lab.engine.servers(at(3)).iter().filter(|row| row.weight == 99).count();
            assert_eq!(others, 3 - steps, "one server in each step");
        }
        let rows = lab.engine.servers(at(3)).into_iter();
        let mut told: Vec<_> =
            rows.map(|row| (format!("{}/{}", row.pool, row.server), row.weight, row.admin)).collect();
        told.sort_by(|one, other| one.0.cmp(&other.0));
        let want = [("api/a", 1, Admin::Enabled), ("web/a", 1, Admin::Draining), ("web/b", 5, Admin::Enabled)];
        assert_eq!(told, want.map(|(name, weight, admin)| (name.to_owned(), weight, admin)), "{text}");
    }
}
