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
    assert_eq!((rows[0].changed, &rows[0].text[..]), (false, "server web/b: nothing changes, it is so already"));
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
        (add("web/c", &[("weight = 9, address", "\"10.0.0.3\"")]), "is no key of a server"),
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
    assert_eq!((rows[0].changed, &rows[0].text[..]), (false, "server api/a: nothing changes, it is so already"));
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

/// A ledger of a gateway that starts with this file, and what it keeps of what another one saved at second 10; the clock of
/// the new one says 100 then, and it starts at 105.
fn next(text: &str, saved: &[u8]) -> (Ledger, Result<Kept, String>) {
    let parsed = parse_with_warnings(text, "lb.toml").unwrap();
    let mut ledger = Ledger::new(Some(File::of(&parsed)), parsed.settings.clone().with_seed(77));
    let kept = ledger.load_changes(saved, at(100), at(105), |_| Ok(()));
    (ledger, kept)
}

/// A ledger with changes of every kind.
fn busy() -> Lab {
    let mut lab = Lab::new();
    lab.set(Kind::Server, "web/b", &[("weight", "5"), ("max-flows", "7")]).unwrap();
    lab.ask(&drain("web/b", Some(60))).unwrap();
    lab.set(Kind::Rule, "block", &[("enabled", "false")]).unwrap();
    lab.set(Kind::Service, "api", &[("enabled", "false")]).unwrap();
    lab.set(Kind::Pool, "web", &[("passive.failures", "3")]).unwrap();
    lab.ask(&add("web/c", &[("address", "\"10.0.0.3\"")])).unwrap();
    lab.set(Kind::Server, "web/c", &[("weight", "0")]).unwrap();
    lab.ask(&add("api/n", &[("address", "\"10.0.1.3\"")])).unwrap();
    lab.ask(&remove("api/a")).unwrap();
    lab
}

#[test]
fn another_gateway_keeps_what_was_changed_and_when() {
    let before = busy();
    let saved = before.ledger.save_changes(at(10));
    let (ledger, kept) = next(TEXT, &saved);
    assert_eq!(kept.unwrap().to_string(), "10 changes by operators are kept");
    let mut lab = Lab { engine: Engine::new(ledger.in_force()), ledger };
    lab.ledger.started(&mut lab.engine, at(105));
    lab.check();
    assert_eq!(lab.differing(), before.differing());
    assert_eq!(**lab.ledger.in_force(), **before.ledger.in_force());
    // Draining began at second 1 of the old clock, which is 91 of the new one, and ends a minute later.
    let row = lab.ledger.change_rows(at(105)).into_iter().find(|row| row.deadline_ms.is_some()).unwrap();
    assert_eq!((row.ago_ms, row.deadline_ms, row.who), (14_000, Some(46_000), ROOT));
    assert_eq!(lab.ledger.drain_row(&lab.engine, at(105), "web/b").unwrap().for_ms, Some(14_000));
    let past = |ledger: &Ledger, second| {
        ledger.operation_rows(at(second)).into_iter().map(|row| (row.ago_ms, row.what, row.who)).collect::<Vec<_>>()
    };
    assert_eq!(past(&lab.ledger, 105), past(&before.ledger, 15));
    // The same once more, and what is saved again is the same.
    assert_eq!(lab.ledger.save_changes(at(100)), saved);
    // What was kept is changed and dropped like anything else.
    lab.ask(&go_back(None, None)).unwrap();
    assert!(lab.ledger.changes().is_empty());
    lab.check();
}

#[test]
fn a_file_that_was_changed_in_between_wins_for_its_keys() {
    let saved = busy().ledger.save_changes(at(10));
    let newer = TEXT
        .replace("address = '10.0.0.2' }", "address = '10.0.0.2', weight = 3 }")
        .replace("address = '10.0.1.1' }", "address = '10.0.1.1' }, { name = 'n', address = '10.0.1.3' }");
    let (ledger, kept) = next(&newer, &saved);
    let kept = kept.unwrap();
    let told: Vec<String> = kept.dropped.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "server api/n: the file has it, so the addition by uid 0, pid 9 no longer applies",
            "weight of server web/b: the file says 3, so the change to 5 by uid 0, pid 9 no longer applies"
        ]
    );
    assert_eq!(kept.to_string(), "8 changes by operators are kept, 2 are not");
    assert_eq!(ledger.in_force().servers[1].weight, 3);
    assert_eq!(ledger.operation_rows(at(105)).last().unwrap().what, told[1]);
    // One that has none of it: nothing can be kept, and everything is named.
    let other = "[[service]]\nname='x'\nlisten='192.0.2.80:80/udp'\npool='x'\n\
                 [[pool]]\nname='x'\nserver=[{name='x',address='10.0.0.1'}]\n";
    let (ledger, kept) = next(other, &saved);
    assert_eq!((kept.unwrap().dropped.len(), ledger.changes().len()), (10, 0));
}

#[test]
fn what_the_system_cannot_do_is_dropped_and_named_and_the_rest_is_kept() {
    let saved = busy().ledger.save_changes(at(10));
    let parsed = parse_with_warnings(TEXT, "lb.toml").unwrap();
    let mut ledger = Ledger::new(Some(File::of(&parsed)), parsed.settings.clone().with_seed(77));
    let refused: std::net::Ipv4Addr = [10, 0, 0, 3].into();
    let usable = |settings: &Settings| match settings.servers.iter().any(|server| server.v4 == Some(refused)) {
        true => Err("10.0.0.3 is an address of this machine".to_owned()),
        false => Ok(()),
    };
    let kept = ledger.load_changes(&saved, at(100), at(105), usable).unwrap();
    let told: Vec<String> = kept.dropped.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "server web/c: 10.0.0.3 is an address of this machine, so the addition by uid 0, pid 9 no longer applies",
            "weight of server web/c: the file no longer has it, so the change to 0 by uid 0, pid 9 no longer applies",
        ]
    );
    assert_eq!((kept.changes, ledger.in_force().servers.len()), (8, 3));
}

#[test]
fn what_cannot_be_read_is_named_and_what_is_new_is_skipped() {
    let saved = String::from_utf8(busy().ledger.save_changes(at(10))).unwrap();
    for (text, want) in [
        ("", "is not readable: EOF"),
        ("true", "is not readable"),
        (
            &saved.replacen("\"version\":1", "\"version\":2", 1),
            "version 2 of the format, and this program reads version 1",
        ),
    ] {
        let (ledger, kept) = next(TEXT, text.as_bytes());
        let error = kept.unwrap_err();
        assert!(error.contains(want) && ledger.changes().is_empty(), "{error}");
    }
    let later = saved
        .replacen("\"version\":1", "\"version\":1,\"colour\":{\"of\":\"sky\"}", 1)
        .replacen("\"who\"", "\"mood\":7,\"who\"", 1)
        .replacen("\"kind\":\"rule\"", "\"kind\":\"queue\"", 1)
        .replacen("\"removed\"", "\"hidden\"", 1);
    let (_, kept) = next(TEXT, later.as_bytes());
    let kept = kept.unwrap();
    assert_eq!((kept.changes, kept.unreadable.len()), (8, 2), "{kept:?}");
    assert!(kept.unreadable[0].contains("queue") && kept.unreadable[1].contains("hidden"), "{kept:?}");
    // Times out of reach are none.
    let far = saved.replacen("\"at_ms\":-9000", "\"at_ms\":9223372036854775807", 1);
    assert!(next(TEXT, far.as_bytes()).1.unwrap().unreadable[0].starts_with("its time is out of range"));
}

#[test]
fn a_change_of_a_server_from_outside_waits_for_the_server() {
    let text = TEXT.replace(
        "name = 'api'\nserver = [{ name = 'a', address = '10.0.1.1' }]",
        "name = 'api'\nservers-dns = 'api.example'",
    );
    let parsed = parse_with_warnings(&text, "lb.toml").unwrap();
    let found = |addresses: &[[u8; 4]]| -> crate::sources::Found {
        let server = |address: &[u8; 4]| crate::balance::ServerSettings {
            name: std::net::Ipv4Addr::from(*address).to_string(),
            v4: Some((*address).into()),
            ..crate::balance::ServerSettings::new("", crate::ids::PoolId(0))
        };
        [("api".to_owned(), Arc::new(addresses.iter().map(server).collect::<Vec<_>>()))].into()
    };
    let file = File::of(&parsed);
    let with = |addresses: &[[u8; 4]]| file.with_servers(&found(addresses)).unwrap().0;
    let both = with(&[[10, 0, 1, 1], [10, 0, 1, 2]]);
    let settings = both.settings().clone().with_seed(77);
    let mut lab = Lab { engine: Engine::new(&settings), ledger: Ledger::new(Some(both), settings) };
    lab.ask(&drain("api/10.0.1.1", None)).unwrap();
    lab.ask(&remove("api/10.0.1.2")).unwrap();
    lab.check();
    // DNS loses one, then has it again; meanwhile orders go on.
    for addresses in [&[[10, 0, 1, 2]][..], &[[10, 0, 1, 1], [10, 0, 1, 2], [10, 0, 1, 3]]] {
        let merged = lab.ledger.begin_reload().unwrap().merge(with(addresses));
        assert_eq!(merged.dropped(), []);
        let settings = Arc::new(merged.settings().clone());
        lab.engine.reload(at(4), &settings, Removed::Drain);
        lab.ledger.reloaded(&mut lab.engine, at(4), Some((merged, settings)));
        lab.check();
        lab.set(Kind::Pool, "web", &[("passive.failures", &addresses.len().to_string())]).unwrap();
        lab.check();
    }
    assert_eq!(lab.ledger.in_force().servers.iter().filter(|own| own.admin == Admin::Draining).count(), 1);
    assert_eq!(lab.ledger.changes().len(), 3);
    // At the next start DNS has not answered yet.
    let mut ledger = Ledger::new(Some(file.clone()), file.settings().clone().with_seed(77));
    let kept = ledger.load_changes(&lab.ledger.save_changes(at(5)), at(5), at(6), |_| Ok(())).unwrap();
    assert_eq!((kept.changes, kept.dropped.len()), (3, 0), "{kept:?}");
    let merged = ledger.begin_reload().unwrap().merge(with(&[[10, 0, 1, 1], [10, 0, 1, 2]]));
    assert_eq!(merged.settings().servers.last().unwrap().admin, Admin::Draining);
    assert_eq!(merged.settings().servers.len(), 3);
    // An operator need not wait for it.
    lab.ask(&go_back(Some((Kind::Server, "10.0.1.2")), None)).unwrap();
    lab.check();
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
