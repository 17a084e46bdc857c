//! What operators changed, kept for another gateway process.

use super::*;

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
