//! `eqctl` as it is used every day: filters, sorted lists, comma-separated values, narrow terminals, changes that say what
//! they did.

use super::{CONFIG, Clock, Process, eqctl, gateway, gateway_of, stderr, stdout};
use equipoise::control::{ChangedRow, FlowRow, KilledRow};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn flows_are_selected_by_words_and_sorted() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 40);
    let shown = |args: &[&str]| {
        let output = eqctl(&socket, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let lines = |args: &[&str]| shown(args).lines().count();
    assert_eq!(lines(&["flows", "--json", "server", "b", "and", "client", "100.0.0.0/30"]), 3);
    assert_eq!(lines(&["flows", "--json", "not ( server p/b or host 100.0.0.1 )", "--limit", "50"]), 10);
    assert_eq!(lines(&["flows", "--json", "--server", "a", "dst", "port", "53"]), 10);
    assert_eq!(lines(&["flows", "--json", "--sort", "age", "--top", "7"]), 7);
    let top = shown(&["flows", "--top", "2"]);
    assert_eq!((top.lines().count(), top.contains("p/b")), (3, true), "{top}");
    assert_eq!(shown(&["flows", "tcp"]).lines().count(), 1, "the header");

    let wrong = eqctl(&socket, &["flows", "udp", "and", "prot", "53"]);
    assert_eq!(wrong.status.code(), Some(2));
    let said = stderr(&wrong);
    assert!(said.contains("column 9 of the filter: \"prot\" is not a condition: did you mean"), "{said}");
    assert!(said.contains("\n  udp and prot 53\n          ^\n"), "{said}");
    let unknown = eqctl(&socket, &["flows", "service", "dsn"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("column 9 of the filter: there is no service dsn"), "{}", stderr(&unknown));
    for args in [&["flows", "--top", "3", "--limit", "3"][..], &["reload", "--watch"], &["status", "--csv"]] {
        assert_eq!(eqctl(&socket, args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn rows_are_comma_separated_where_a_spreadsheet_wants_them() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 3);
    let shown = |args: &[&str]| stdout(&eqctl(&socket, args));
    let flows = shown(&["flows", "--csv"]);
    assert!(flows.starts_with("id,protocol,client,listen,service,pool,server,"), "{flows}");
    assert!(flows.lines().count() == 4 && flows.contains(",udp,100.0.0.1:5000,192.0.2.80:53,"), "{flows}");
    let columns = |text: &str| text.lines().map(|line| line.split(',').count()).collect::<Vec<_>>();
    for list in ["servers", "services", "rules", "nat", "monitors", "sources", "history", "events", "pool", "changes"] {
        let columns = columns(&shown(&[list, "--csv"]));
        assert!(!columns.is_empty() && columns.iter().all(|count| *count == columns[0]), "{list}: {columns:?}");
    }
}

#[test]
fn a_narrow_terminal_gets_fewer_columns_and_is_told_which() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 3);
    let shown = |columns: &str, args: &[&str]| {
        let run = Process::new(env!("CARGO_BIN_EXE_eqctl"))
            .arg("--socket")
            .arg(&socket)
            .args(args)
            .env("COLUMNS", columns)
            .output()
            .unwrap();
        stdout(&run)
    };
    for list in ["flows", "servers", "services", "counters", "pool", "rules", "nat", "history", "events", "sources"] {
        let text = shown("80", &[list]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{list}:\n{text}");
    }
    let narrow = shown("80", &["flows"]);
    assert!(
        narrow.contains("\n(not shown: ")
            && narrow.replace('\n', " ").ends_with("--wide shows all) ")
            && !narrow.contains("LISTEN"),
        "{narrow}"
    );
    assert!(shown("80", &["flows", "--wide"]).contains("LISTEN"));
    assert!(shown("200", &["flows"]).contains("LISTEN"));
}

#[test]
fn each_change_says_what_was_before_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 40);
    let shown = |args: &[&str]| {
        let output = eqctl(&socket, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let weight: ChangedRow = serde_json::from_str(&shown(&["--json", "server", "weight", "a", "5"])).unwrap();
    let of = |keys: &Option<serde_json::Map<String, serde_json::Value>>, key: &str| keys.as_ref().unwrap()[key].clone();
    assert_eq!((of(&weight.before, "weight"), of(&weight.after, "weight")), (1.into(), 5.into()));
    let load: ChangedRow = serde_json::from_str(&shown(&["--json", "server", "load", "a", "35"])).unwrap();
    assert_eq!((of(&load.before, "load"), of(&load.after, "load")), (serde_json::Value::Null, 35.into()));

    let dry = shown(&["kill", "--dry-run", "server", "b", "and", "client", "100.0.0.0/30"]);
    assert!(dry.starts_with("3 flows would be killed: server b and client 100.0.0.0/30\nFLOW"), "{dry}");
    let killed: KilledRow =
        serde_json::from_str(&shown(&["--json", "kill", "server", "b", "and", "client", "100.0.0.0/30"])).unwrap();
    assert_eq!((killed.flows, killed.before.len(), killed.after.len(), killed.changed), (3, 3, 0, true));
    let one: FlowRow = serde_json::from_str(&shown(&["flows", "--json", "--limit", "1"])).unwrap();
    let said = shown(&["kill", &one.id.to_string()]);
    assert!(said.starts_with(&format!("flow {} killed: udp {} -> 192.0.2.80:53 (", one.id, one.client)), "{said}");

    let events = shown(&["events"]);
    assert!(events.contains("uid 1000, pid 4711  3 flows killed: server b and client 100.0.0.0/30"), "{events}");
    let history = shown(&["history"]);
    assert!(history.contains("server p/a: load none -> 35 % (for a minute)"), "{history}");
}

#[test]
fn events_are_followed_as_they_happen() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 4);
    let mut child = Process::new(env!("CARGO_BIN_EXE_eqctl"))
        .arg("--socket")
        .arg(&socket)
        .args(["events", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for weight in ["7", "8"] {
        assert!(eqctl(&socket, &["server", "weight", "a", weight]).status.success());
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("Z  uid 1000, pid 4711: server p/a: weight "), "{line}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn sticky_clients_are_listed_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let config = CONFIG.replacen("pool = \"p\"", "pool = \"p\"\nsticky = { idle = \"1m\" }", 1);
    let socket = gateway_of(&dir, &config, 6, &Clock::new(5_000_000_000.into()));
    let shown = |args: &[&str]| {
        let output = eqctl(&socket, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    assert_eq!(shown(&["sticky"]).lines().count(), 1 + 6);
    assert!(shown(&["sticky", "--client", "100.0.0.2"]).contains("100.0.0.2  p/"));
    let cleared = shown(&["sticky", "clear", "--client", "100.0.0.2"]);
    assert!(cleared.starts_with("1 sticky client forgotten, client 100.0.0.2/32\nCLIENT"), "{cleared}");
    assert_eq!(shown(&["sticky", "--json"]).lines().count(), 5);
    assert_eq!(eqctl(&socket, &["sticky", "clear"]).status.code(), Some(2), "all must be asked for");
    assert!(shown(&["sticky", "clear", "--all"]).starts_with("5 sticky clients forgotten"));
    assert_eq!(shown(&["flows", "--json"]).lines().count(), 6, "flows stay");
}

#[test]
fn each_command_in_the_docs_is_one() {
    let text = std::fs::read_to_string("docs/eqctl.md").unwrap();
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("    sudo eqctl ")).collect();
    assert!(commands.len() >= 15, "{commands:?}");
    for command in commands {
        let shell = format!("{} --socket /nonexistent/s {command}", env!("CARGO_BIN_EXE_eqctl"));
        let output = Process::new("sh").args(["-c", &shell]).output().unwrap();
        // 2 would be a wrong command line.
        assert_eq!(output.status.code(), Some(1), "{command}: {}", stderr(&output));
    }
}

#[test]
fn docs_settings_is_what_the_program_prints() {
    let printed = stdout(&super::equipoise(&["print", "settings"]));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(page == printed, "docs/settings.md differs from `equipoise print settings`; BLESS=1 rewrites it");
    let row: serde_json::Value =
        serde_json::from_str(stdout(&super::equipoise(&["print", "settings", "--json"])).lines().last().unwrap())
            .unwrap();
    assert_eq!((&row["table"], row["key"].is_string()), (&"pool.server".into(), true), "{row}");
}
