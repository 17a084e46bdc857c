//! The key table, the readers and the checks say the same.

use crate::config::keys::{DefaultValue, Key, Reload, TABLES, Table, Takes, duration, find};
use crate::config::{ConfigError, Settings, Severity, parse};
use crate::time::Duration;
use std::collections::BTreeSet;

/// The keys that a table needs, unless the tested lines have them.
fn needed(table: &str) -> &'static [(&'static str, &'static str)] {
    match table {
        "service" => &[("name", "'x'"), ("listen", "'192.0.2.80:80/tcp'"), ("pool", "'p'")],
        "pool" => &[("name", "'p'")],
        "pool.server" => &[("name", "'s'"), ("address", "'10.0.0.1'")],
        "pool.monitor" => &[("type", "'tcp'")],
        "nat-pool" => &[("name", "'n'"), ("addresses", "'10.0.9.1'")],
        "rule" => &[("name", "'r'"), ("action", "'balance'")],
        _ => &[],
    }
}

/// The lines that a key needs beside it, other than those of its table and of `when`.
fn beside(table: &str, key: &str, value: &str) -> &'static [(&'static str, &'static str)] {
    match (table, key) {
        ("service", "nat") if value == "'full'" => &[("nat-pool", "'n'")],
        ("service", "full-nat-for") => &[("nat-pool", "'n'")],
        ("service", "unknown-tcp") => &[("algorithm", "'maglev'")],
        ("service.timeouts", "ports") => &[("udp-one-way", "'6m'")],
        ("service.timeouts", "protocol") if value == "'udp'" => &[("udp-one-way", "'6m'")],
        ("service.timeouts", "protocol") => &[("tcp-opening", "'5m'")],
        ("rule", "ports" | "source-ports") => &[("protocol", "'tcp'")],
        ("rule", "client-ipv4-prefix" | "client-ipv6-prefix") => &[("client-rate", "1")],
        ("nat-pool", "keep-range") => &[("ports", "'512-65535'")],
        ("pool.monitor", "type") if value == "'dns'" => &[("query", "'a.example'"), ("name", "'m'")],
        ("pool.monitor", "type") => &[("name", "'m'")],
        ("pool.monitor", "expect-address" | "expect-rcode" | "record") => &[("query", "'a.example'")],
        ("pool.monitor", "maintenance-header") => &[("load-header", "'L'")],
        ("pool", "servers-port") => &[("servers-dns", "'a.example'")],
        ("pool", "servers-least") => &[("servers-file", "'/a'")],
        ("pool.monitor", "max-lost") => &[("samples", "1000")],
        ("pool.monitor", "max-latency") => &[("timeout", "'24h'")],
        _ => &[],
    }
}

/// The lines of a table with one key and all that it needs; that key, if it has a value, is in the first line.
fn lines(table: &Table, key: &Key, value: Option<&str>) -> String {
    let mut lines: Vec<(&str, String)> = value.map(|value| (key.name, value.to_string())).into_iter().collect();
    let mut next = key.when;
    while let Some(when) = next {
        lines.push((when.key, format!("'{}'", when.is[0])));
        next = table.key(when.key).and_then(|key| key.when);
    }
    for (other, value) in beside(table.name, key.name, value.unwrap_or_default()).iter().chain(needed(table.name)) {
        let is_absent = !lines.iter().any(|line| line.0 == *other);
        if is_absent && (*other != key.name || key.default == DefaultValue::Required) {
            lines.push((other, value.to_string()));
        }
    }
    lines.into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// A valid file around the lines of one table.
pub(super) fn file(table: &str, lines: &str) -> String {
    let mut text = if table.is_empty() { lines.to_string() } else { String::new() };
    // The key `floor` of a pool has no effect without a monitor.
    if matches!(table, "pool.monitor" | "pool") {
        text += "[gateway]\nprobe-address = '192.0.2.1'\n";
    }
    let of = |name: &str| {
        if name == table {
            return lines.to_string();
        }
        needed(name).iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    };
    for known in TABLES.iter().filter(|known| known.name == table) {
        if !table.is_empty() && !table.contains('.') && !matches!(table, "service" | "pool" | "nat-pool") {
            text += &format!("{}\n{lines}", known.header);
        }
    }
    text += "[[nat-pool]]\nname = 'm'\naddresses = '10.0.9.200'\n";
    text += &format!("[[nat-pool]]\n{}[[service]]\n{}", of("nat-pool"), of("service"));
    let nested = |parent: &str| {
        let found = TABLES.iter().find(|known| known.name == table && table.starts_with(parent));
        found.map(|known| format!("{}\n{lines}", known.header)).unwrap_or_default()
    };
    text += &nested("service.");
    text += &format!("[[pool]]\n{}", of("pool"));
    // Beside a server of weight 0, another one takes the flows.
    let other = "name = 'o'\naddress = '10.0.0.9'\n".to_string();
    text += &format!("[[pool.server]]\n{}", if table == "pool.server" { other } else { of("pool.server") });
    text += &nested("pool.");
    text += if table == "pool" { "[[pool.monitor]]\ntype = 'tcp'\n" } else { "" };
    text + "[[pool]]\nname = 'q'\n[[pool.server]]\nname = 't'\naddress = '10.0.0.2'\n"
}

pub(super) fn read(table: &Table, key: &Key, value: Option<&str>) -> Result<Settings, ConfigError> {
    let mut text = file(table.name, &lines(table, key, value));
    if let ("pool", "name", Some(name)) = (table.name, key.name, value) {
        text = text.replace("pool = 'p'", &format!("pool = {name}"));
    }
    parse(&text, "x.toml")
}

/// Every key but those under which other tables are written in arrays.
pub(super) fn keys() -> impl Iterator<Item = (&'static Table, &'static Key)> {
    let all = TABLES.iter().flat_map(|table| table.keys.iter().map(move |key| (*table, key)));
    all.filter(|(_, key)| !matches!(key.takes, Takes::Tables { .. }))
}

/// A value that a key takes.
pub(super) fn sample(table: &str, key: &Key) -> String {
    match key.takes {
        Takes::Flag => "true".into(),
        Takes::Number { least, .. } | Takes::Ranges { least, .. } => least.to_string(),
        Takes::NumberOrShare { least, .. } | Takes::WordOrNumber { least, .. } => least.to_string(),
        Takes::Duration { least, .. } => format!("'{}'", duration(least)),
        Takes::Word(words) => format!("'{}'", words[0]),
        Takes::Text { .. } if key.name == "payload-hex" => "'00'".into(),
        Takes::Text { .. } => "'a'".into(),
        Takes::List { .. } => "['10.0.9.1', '10.0.9.8-10.0.9.9']".into(),
        Takes::Table if key.name == "headers" => "{ A = 'b' }".into(),
        Takes::Table => "{}".into(),
        Takes::Tables { .. } => unreachable!("arrays of tables are left out"),
        Takes::Form(_) => match (table, key.name) {
            ("gateway", "addresses") => "['192.0.2.1/24']",
            ("gateway", "probe-address") => "'192.0.2.1'",
            ("http", "listen") => "'127.0.0.1:9480'",
            ("dns", "servers") => "'192.0.2.53'",
            ("pool", "servers-file") => "'/a'",
            ("pool", "servers-dns") => "'a.example'",
            ("nat-pool", "ports") => "'1024-65535'",
            ("service", "listen") => "'192.0.2.80:80/tcp'",
            ("service", "pool") => "'p'",
            ("service", "nat-pool") => "'n'",
            ("service", "last-resort-pool") => "'q'",
            ("rule", "service") => "'x'",
            (_, "protocol") => "'tcp'",
            (_, "from" | "to" | "full-nat-for") => "'10.0.0.0/8'",
            (_, "address" | "expect-address") => "'10.0.0.1'",
            (_, "path") => "'/x'",
            (_, "headers") => "{ A = 'b' }",
            (_, "load-regex") => "'(?<load>1)'",
            _ => "'x'",
        }
        .into(),
    }
}

#[test]
fn each_key_of_the_table_is_accepted_and_read_by_the_reader_of_its_table() {
    for (table, key) in keys() {
        let value = sample(table.name, key);
        let got = read(table, key, Some(&value));
        assert!(got.is_ok(), "{} of {}: {}", key.name, table.header, got.expect_err("an error"));
        // A key that is accepted and never read would take anything.
        let error = read(table, key, Some("1979-05-27")).expect_err("a date");
        let found = error.problems().iter().any(|p| p.excerpt == "1979-05-27" && p.title.contains(key.name));
        assert!(found, "{} of {}: {error}", key.name, table.header);
    }
}

#[test]
fn each_table_refuses_other_keys_and_names_all_that_it_has() {
    for table in TABLES {
        let error = parse(&file(table.name, "no-such-key = 1\n"), "x.toml").expect_err("an unknown key");
        let problem = error.problems().iter().find(|problem| problem.title.contains("unknown key")).expect("its error");
        let named: Vec<&str> = problem.help.split('"').skip(1).step_by(2).collect();
        assert_eq!(named, table.keys.iter().map(|key| key.name).collect::<Vec<_>>(), "{}", table.header);
    }
}

#[test]
fn former_names_are_refused_with_the_present_one() {
    let mut seen = 0;
    for table in TABLES {
        for (old, new) in table.renamed {
            let error = parse(&file(table.name, &format!("{old} = 'high'\n")), "x.toml").expect_err("a former name");
            let want = format!("`{old}` is now called `{new}`");
            assert!(error.problems().iter().any(|problem| problem.title == want), "{error}");
            assert!(table.key(old).is_none() && table.key(new).is_some(), "{old} of {}", table.header);
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

/// Values at the bounds of a key, and just beyond them.
pub(super) fn bounds(key: &Key) -> (Vec<String>, Vec<String>) {
    let text = |length: u64| {
        let length = usize::try_from(length).expect("short");
        format!("'{}'", if key.name == "payload-hex" { "0a".repeat(length) } else { "a".repeat(length) })
    };
    let ns = Duration::from_nanos(1);
    match key.takes {
        Takes::Number { least, most }
        | Takes::Ranges { least, most }
        | Takes::NumberOrShare { least, most }
        | Takes::WordOrNumber { least, most, .. } => {
            let beyond = [i128::from(least) - 1, i128::from(most) + 1].map(|number| number.to_string());
            (vec![least.to_string(), most.to_string()], beyond.to_vec())
        }
        Takes::Duration { least, most } => {
            // What is as long as the longest timeout is not shorter than it.
            let most =
                most.map(|most| if key.name == "max-latency" { (most - ns, most + ns) } else { (most, most + ns) });
            let below = least.checked_sub(ns);
            let quote = |span: Duration| format!("'{}'", duration(span));
            (
                [Some(least), most.map(|most| most.0)].into_iter().flatten().map(quote).collect(),
                [below, most.map(|most| most.1)].into_iter().flatten().map(quote).collect(),
            )
        }
        Takes::Text { least, most, .. } => {
            (vec![text(least), text(most)], least.checked_sub(1).into_iter().chain([most + 1]).map(text).collect())
        }
        Takes::List { most, .. } => {
            let range = |count: u64| {
                let last = std::net::Ipv4Addr::from(0x0a01_0000 + u32::try_from(count).expect("few") - 1);
                format!("'10.1.0.0-{last}'")
            };
            (vec![range(1), range(most)], vec![range(most + 1)])
        }
        Takes::Word(words) => (words.iter().map(|word| format!("'{word}'")).collect(), vec!["'no-such-word'".into()]),
        Takes::Flag | Takes::Form(_) | Takes::Table | Takes::Tables { .. } => (Vec::new(), Vec::new()),
    }
}

/// Whether a text names what a key takes.
fn names_range(text: &str, key: &Key) -> bool {
    match key.takes {
        // Its bound is judged with the monitor's other values, in words of its own.
        Takes::Text { most, .. } | Takes::List { most, .. } => text.contains(&most.to_string()),
        Takes::Word(words) => words.iter().all(|word| text.contains(&format!("\"{word}\""))),
        takes => text.contains(&takes.to_string()),
    }
}

#[test]
fn values_at_the_bounds_are_accepted_and_those_just_beyond_are_refused_with_the_range() {
    let mut bounded = 0;
    for (table, key) in keys() {
        let (inside, outside) = bounds(key);
        bounded += outside.len();
        for value in inside {
            let got = read(table, key, Some(&value));
            assert!(got.is_ok(), "{value:.60}: {}", got.expect_err("an error"));
        }
        for value in outside {
            let Err(error) = read(table, key, Some(&value)) else { panic!("{} takes {value:.60}", key.name) };
            let problem =
                error.problems().iter().find(|problem| problem.severity == Severity::Error).expect("an error");
            let text = format!("{} {}", problem.title, problem.help);
            assert!(names_range(&text, key) && value.starts_with(&problem.excerpt[..1]), "{}: {error}", key.takes);
        }
    }
    assert!(bounded > 100, "only {bounded} bounds tried");
}

#[test]
fn an_array_of_tables_ends_where_the_key_table_says() {
    let takes = find("service", "timeouts").expect("a key").takes;
    let most = takes.most().expect("a limit");
    for (count, valid) in [(most, true), (most + 1, false)] {
        let entries = "[[service.timeouts]]\nicmp = '2m'\n".repeat(usize::try_from(count).expect("few"));
        let text = file("", "").replace("[[pool]]\nname = 'p'", &format!("{entries}[[pool]]\nname = 'p'"));
        let got = parse(&text, "x.toml");
        assert_eq!(got.is_ok(), valid, "{count}");
        assert!(got.err().is_none_or(|error| error.to_string().contains(&most.to_string())));
    }
}

#[test]
fn a_default_written_out_changes_nothing() {
    let mut seen = 0;
    for (table, key) in keys() {
        let value = match key.default {
            DefaultValue::Required | DefaultValue::Unset(_) => continue,
            DefaultValue::Number(_) | DefaultValue::Flag(_) => key.default.to_string(),
            DefaultValue::Duration(_) | DefaultValue::Text(_) => key.default.to_string().replace('"', "'"),
        };
        let with = read(table, key, Some(&value)).unwrap_or_else(|error| panic!("{error}"));
        let without = read(table, key, None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(with, without, "{} of {}", key.name, table.header);
        seen += 1;
    }
    assert!(seen > 50, "only {seen} defaults");
}

#[test]
fn a_required_key_that_is_absent_is_an_error() {
    for (table, key) in keys().filter(|(_, key)| key.default == DefaultValue::Required) {
        let without = lines(table, key, Some("1")).split_once('\n').expect("a line").1.to_string();
        let error = parse(&file(table.name, &without), "x.toml").expect_err(key.name);
        let want = format!("{} has no `{}`", table.header, key.name);
        assert!(error.problems().iter().any(|problem| problem.title == want), "{error}");
    }
}

#[test]
fn a_key_without_effect_is_refused() {
    let mut seen = 0;
    for (table, key) in keys() {
        let Some(when) = key.when else { continue };
        let words = table.key(when.key).expect("the other key").takes.words();
        let other = words.iter().find(|word| !when.is.contains(word)).expect("another word");
        let own = lines(table, key, Some(&sample(table.name, key)));
        let own: Vec<&str> = own.lines().filter(|line| !line.starts_with(&format!("{} = ", when.key))).collect();
        let text = file(table.name, &format!("{}\n{} = '{other}'\n", own.join("\n"), when.key));
        let error = parse(&text, "x.toml").expect_err(key.name);
        let want = format!("`{}` has no effect", key.name);
        assert!(error.problems().iter().any(|problem| problem.title.starts_with(&want)), "{text}\n{error}");
        seen += 1;
    }
    assert!(seen > 30, "only {seen} keys");
}

#[test]
fn the_key_table_is_sound() {
    let mut tables = BTreeSet::new();
    for table in TABLES {
        assert!(tables.insert(table.name), "{} is listed once", table.header);
        let names: BTreeSet<&str> = table.keys.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), table.keys.len(), "{}", table.header);
        if !table.name.is_empty() {
            let parent = table.name.rsplit_once('.').map_or("", |(parent, _)| parent);
            let key = find(parent, table.key_name()).unwrap_or_else(|| panic!("the key of {}", table.header));
            let is_array = matches!(key.takes, Takes::Tables { .. });
            assert!(is_array || key.takes == Takes::Table, "{}", table.header);
            assert_eq!(table.header.starts_with("[["), is_array, "{}", table.header);
            assert_eq!(key.reload, Reload::ByKey, "{}", table.header);
        }
        for key in table.keys {
            assert!(key.doc.ends_with('.') && !key.doc.contains("  "), "{}", key.doc);
            let has_keys =
                TABLES.iter().any(|other| other.name == format!("{}.{}", table.name, key.name).trim_matches('.'));
            assert_eq!(key.reload == Reload::ByKey, has_keys, "{} of {}", key.name, table.header);
            assert!(!key.reload.describe().is_empty());
        }
    }
    assert_eq!(find("gateway", "device").map(|key| key.reload), Some(Reload::Restart));
    assert_eq!(find("", "seed").map(|key| key.default), Some(DefaultValue::Number(0)));
    assert!(find("gateway", "seed").is_none() && find("gateways", "device").is_none());
}
