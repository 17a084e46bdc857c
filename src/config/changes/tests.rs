use super::*;
use crate::config::{Settings, listing, parse_with_warnings};
use proptest::prelude::*;

/// One web service with two pools, as a file; `a` is the first server's keys, `rest` follows.
fn text(a: &str, rest: &str) -> String {
    format!(
        "# the shop\n[[service]]\nname = 'web'\nlisten = '192.0.2.80:80/tcp'\npool = 'web'\n\
         [[pool]]\nname = 'web'\nserver = [\n    {{ name = 'a', address = '10.0.0.1'{a} }}, # the first\n    \
         {{ name = 'b', address = '10.0.0.2' }},\n]\n{rest}"
    )
}

fn file(a: &str, rest: &str) -> File {
    File::of(&parse_with_warnings(&text(a, rest), "lb.toml").unwrap_or_else(|error| panic!("{error}")))
}

fn server(name: &str) -> Target {
    Target::new(Kind::Server, name)
}

fn entry(value: Value, second: u64) -> Entry {
    let at = Instant::from_nanos(second * 1_000_000_000);
    Entry { value, said: Said::new(), outside: false, who: Who { uid: 1000, pid: 7 }, at, deadline: None }
}

fn set(value: &str) -> Entry {
    entry(Value::Set(value.into()), 1)
}

fn changes(all: &[(&str, Option<&str>, Entry)]) -> Changes {
    let mut changes = Changes::default();
    for (name, key, entry) in all {
        changes.put(server(name), key.map(Into::into), entry.clone());
    }
    changes
}

/// The same, made while this file was in force.
fn made(file: &File, all: &[(&str, Option<&str>, Entry)]) -> Changes {
    let mut changes = changes(all);
    for (name, key, _) in all {
        changes.note_said(&server(name), *key, file);
    }
    changes
}

/// The servers of the first pool with their weights.
fn weights(settings: &Settings) -> Vec<(String, u16)> {
    settings.servers.iter().map(|server| (server.name.clone(), server.weight)).collect()
}

#[test]
fn the_settings_are_those_of_a_file_that_says_so() {
    let file = file("", "");
    let changes = changes(&[
        ("web/a", Some("weight"), set("5")),
        ("web/a", Some("max-flows"), set("10")),
        ("web/b", Some("state"), set("\"draining\"")),
        ("web/c", None, entry(Value::Added("{ address = ['10.0.0.3', 'fd00::3'], port = 8080 }".into()), 1)),
        ("web/c", Some("weight"), set("3")),
    ]);
    let want = "[[service]]\nname='web'\nlisten='192.0.2.80:80/tcp'\npool='web'\n[[pool]]\nname='web'\nserver=[\
                {name='a',address='10.0.0.1',weight=5,'max-flows'=10},{name='b',address='10.0.0.2',state='draining'},\
                {name='c',address=['10.0.0.3','fd00::3'],port=8080,weight=3}]\n";
    assert_eq!(file.with(&changes).unwrap(), crate::config::parse(want, "want.toml").unwrap());
    assert_eq!(file.with(&Changes::default()).unwrap(), *file.settings());
}

#[test]
fn servers_are_removed_and_keys_left_out() {
    let file = file(", weight = 4", "");
    let settings = file.with(&changes(&[("web/b", None, entry(Value::Removed, 1))])).unwrap();
    assert_eq!(weights(&settings), [("a".into(), 4)]);
    let settings = file.with(&changes(&[("web/a", Some("weight"), entry(Value::Unset, 1))])).unwrap();
    assert_eq!(weights(&settings), [("a".into(), 1), ("b".into(), 1)]);
}

#[test]
fn what_would_be_wrong_in_a_file_is_refused_in_its_words() {
    let file = file("", "");
    for (all, want) in [
        (vec![("web/a", Some("weight"), set("70000"))], "`weight` is out of range: allowed: 0 to 65535"),
        (
            vec![("web/a", Some("wieght"), set("5"))],
            "unknown key \"wieght\" in [[pool.server]]: did you mean \"weight\"?",
        ),
        (vec![("web/a", Some("weight"), set("\"5\""))], "`weight` must be a whole number: write a number"),
        (
            vec![("web/a", Some("weight"), set("0")), ("web/b", Some("weight"), set("0"))],
            "all servers of this pool have weight 0 (line 7 of the file)",
        ),
        (
            vec![("web/a", None, entry(Value::Removed, 1)), ("web/b", None, entry(Value::Removed, 1))],
            "a pool needs a server (line 7 of the file)",
        ),
        (
            vec![("web/c", None, entry(Value::Added("{ address = '10.0.0.1' }".into()), 1))],
            "two servers of one pool have the same address and port (line 9 of the file, the first)",
        ),
        (
            vec![("web/c", None, entry(Value::Added("{ address = '192.0.2.80' }".into()), 1))],
            "server address 192.0.2.80 is a service address (line 4 of the file, the service)",
        ),
        (vec![("web/c", None, entry(Value::Added("{ weight = 1 }".into()), 1))], "[[pool.server]] has no `address`"),
        (vec![("web/c", Some("weight"), set("5"))], "there is no server web/c"),
        (
            vec![("web/a", None, entry(Value::Added("{ address = '10.0.0.9' }".into()), 1))],
            "server web/a exists already",
        ),
        (vec![("web/a", Some("weight"), set("5 5"))], "\"5 5\" is not a value"),
    ] {
        let error = file.with(&changes(&all)).unwrap_err().to_string();
        assert!(error.contains(want), "{error}\n  want: {want}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn the_file_wins_for_a_key_that_it_changes_and_for_no_other() {
    let old = file(", weight = 1", "");
    let mut kept = made(
        &old,
        &[
            ("web/a", Some("weight"), set("5")),
            ("web/a", Some("max-flows"), set("10")),
            ("web/b", Some("weight"), set("7")),
        ],
    );
    // The same by other words, and a key that nobody changed.
    let same = file(", slow-start = '5s'", "");
    assert_eq!(kept.clone().reconcile(same.settings()), []);
    let new = file(", weight = 3", "");
    let dropped = kept.reconcile(new.settings());
    let told: Vec<String> = dropped.iter().map(ToString::to_string).collect();
    let want = "weight of server web/a: the file says 3, so the change to 5 by uid 1000, pid 7 no longer applies";
    assert_eq!(told, [want]);
    let (settings, clashing) = kept.settle(&new);
    assert_eq!((weights(&settings), clashing), (vec![("a".into(), 3), ("b".into(), 7)], vec![]));
    assert_eq!(settings.servers[0].max_flows, Some(10));
    // The file comes round to what the change says.
    let mut kept = made(&old, &[("web/a", Some("weight"), set("5"))]);
    let dropped = kept.reconcile(file(", weight = 5", "").settings());
    assert_eq!((dropped[0].why.clone(), kept.is_empty()), (Why::Same, true));
}

#[test]
fn a_server_that_leaves_the_file_and_comes_back_is_as_in_the_file() {
    let (with, without) = (file("", ""), text("", "").replace("    { name = 'b', address = '10.0.0.2' },\n", ""));
    let without = File::of(&parse_with_warnings(&without, "lb.toml").unwrap());
    let mut kept = made(&with, &[("web/b", Some("weight"), set("7")), ("web/b", Some("state"), set("\"disabled\""))]);
    let dropped = kept.reconcile(without.settings());
    assert!(dropped.iter().all(|dropped| dropped.why == Why::Gone) && dropped.len() == 2, "{dropped:?}");
    assert!(kept.is_empty());
    // A removal is done once the file agrees, and says nothing about a server at another address.
    let removal = || made(&with, &[("web/b", None, entry(Value::Removed, 1))]);
    let mut kept = removal();
    assert_eq!(kept.reconcile(without.settings())[0].why, Why::Gone);
    let moved = text("", "").replace("10.0.0.2", "10.0.0.7");
    let moved = File::of(&parse_with_warnings(&moved, "lb.toml").unwrap());
    let mut kept = removal();
    assert_eq!(kept.reconcile(moved.settings())[0].why, Why::Moved);
    let mut kept = removal();
    assert_eq!(kept.reconcile(file(", weight = 9", "").settings()), [], "it stays removed");
}

#[test]
fn an_addition_ends_when_the_file_has_the_server_or_lacks_the_pool() {
    let old = file("", "[[pool]]\nname = 'spare'\nserver = [{ name = 'x', address = '10.0.9.1' }]\n");
    let added = |address: &str| entry(Value::Added(format!("{{ address = '{address}' }}")), 1);
    let mut kept = made(
        &old,
        &[
            ("spare/y", None, added("10.0.9.2")),
            ("spare/y", Some("weight"), set("2")),
            ("web/c", None, added("10.0.0.3")),
            ("web/c", Some("weight"), set("2")),
        ],
    );
    assert!(old.with(&kept).is_ok());
    let new = text("", "").replace("server = [\n", "server = [ { name = 'c', address = '10.0.0.3', weight = 2 },\n");
    let new = File::of(&parse_with_warnings(&new, "lb.toml").unwrap());
    let why: Vec<Why> = kept.reconcile(new.settings()).into_iter().map(|dropped| dropped.why).collect();
    assert_eq!(why, [Why::Gone, Why::Gone, Why::Exists, Why::Same]);
    assert!(kept.is_empty());
}

#[test]
fn of_changes_that_clash_with_a_newer_file_the_newest_give_way() {
    let added = |address: &str, second| entry(Value::Added(format!("{{ address = '{address}' }}")), second);
    let mut kept = changes(&[("web/x", None, added("10.0.0.8", 5)), ("web/y", None, added("10.0.0.9", 4))]);
    let new = file("", "").text().replace("10.0.0.2", "10.0.0.8");
    let new = File::of(&parse_with_warnings(&new, "lb.toml").unwrap());
    let (settings, dropped) = kept.settle(&new);
    assert_eq!(settings.servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["a", "b", "y"]);
    assert_eq!((dropped.len(), &dropped[0].place.0.name[..]), (1, "web/x"));
    let told = dropped[0].to_string();
    assert!(
        told.starts_with("server web/x: two servers of one pool have the same address")
            && told.contains("so the addition by uid 1000"),
        "{told}"
    );
}

#[test]
fn words_are_written_in_the_notation_of_the_file() {
    for (kind, key, words, want) in [
        (Kind::Server, "weight", "5", "5"),
        (Kind::Server, "weight", "five", "\"five\""),
        (Kind::Server, "slow-start", "30s", "\"30s\""),
        (Kind::Server, "slow-start", "30", "\"30\""),
        (Kind::Server, "state", "draining", "\"draining\""),
        (Kind::Server, "state", "\"draining\"", "\"draining\""),
        (Kind::Server, "address", "10.0.0.1", "\"10.0.0.1\""),
        (Kind::Server, "address", "10.0.0.1, fd00::1", "[\"10.0.0.1\", \"fd00::1\"]"),
        (Kind::Server, "address", "[\"10.0.0.1\"]", "[\"10.0.0.1\"]"),
        (Kind::Server, "backup", "true", "true"),
        (Kind::Pool, "floor", "1", "1"),
        (Kind::Pool, "floor", "50%", "\"50%\""),
        (Kind::Pool, "passive.hold", "5s", "\"5s\""),
        (Kind::Server, "address", "a\"b\n", "'a\"b'"),
    ] {
        assert_eq!(notation(kind, key, words), want, "{key} = {words}");
    }
}

#[test]
fn keys_of_tables_below_are_changed_too() {
    let file = file("", "");
    let mut changes = Changes::default();
    changes.put(Target::new(Kind::Pool, "web"), Some("passive.hold".into()), set("\"7s\""));
    let settings = file.with(&changes).unwrap();
    let pool = listing::find(&settings, &Target::new(Kind::Pool, "web")).unwrap();
    assert_eq!((pool.at("passive.hold"), pool.at("passive.failures")), (Some("\"7s\""), Some("5")));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a value says, it is a value of its key, or refused: it never changes anything else of the file.
    #[test]
    fn a_value_cannot_leave_its_key(words in "[\\PC\n\"'#=\\[\\]{},]{0,20}", raw in any::<bool>()) {
        let file = file("", "");
        let value = if raw { words.clone() } else { notation(Kind::Server, "slow-start", &words) };
        if let Ok(settings) = file.with(&changes(&[("web/a", Some("slow-start"), set(&value))])) {
            let mut want = file.settings().clone();
            want.servers[0].slow_start = settings.servers[0].slow_start;
            prop_assert_eq!(settings, want);
        }
    }
}
