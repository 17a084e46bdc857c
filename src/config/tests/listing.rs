//! The listing has every key of the key table, each with the value that the file gives it.

use super::GATEWAY;
use super::keys::{bounds, file, keys, read, sample};
use crate::config::keys::{DefaultValue, Key, Reload, TABLES, Table, Takes, find};
use crate::config::listing::testing::written;
use crate::config::listing::{KeyValue, Object, objects};
use crate::config::parse;
use std::collections::BTreeSet;

/// Keys that are not listed, and why.
const UNLISTED: &[(&str, &str, &str)] = &[
    ("pool", "slow-start", "is that of each server without one of its own"),
    ("service.timeouts", "ports", "is part of the values of its table"),
    ("service.timeouts", "protocol", "is part of the values of its table"),
];

/// Keys that change or go with another key without depending on it in the key table: its table, it, and the other.
const LINKED: &[(&str, &str, &str)] = &[
    // Its default depends on the algorithm.
    ("service", "algorithm", "hash"),
    // They cannot be combined.
    ("service", "last-resort-pool", "last-resort"),
    // Which clients it is about is no question without it.
    ("rule", "client-rate", "client-ipv4-prefix"),
    ("rule", "client-rate", "client-ipv6-prefix"),
    ("rule", "client-flows", "client-ipv4-prefix"),
    ("rule", "client-flows", "client-ipv6-prefix"),
    ("pool.monitor", "load-header", "maintenance-header"),
    // There is no list without a source.
    ("pool", "servers-file", "servers-least"),
    ("pool", "servers-dns", "servers-least"),
    // Where one of them is absent, its default gives way to the other.
    ("pool.passive", "hold", "longest"),
    ("pool.passive", "longest", "hold"),
];

fn is_listed(table: &Table, key: &Key) -> bool {
    let of = |(t, k, _): &&(&str, &str, &str)| *t == table.name && *k == key.name;
    !matches!(key.reload, Reload::ByKey | Reload::Identity) && !UNLISTED.iter().any(|one| of(&one))
}

/// Values that a key takes, each unlike the one before it; `None` is an absent key.
fn values(table: &Table, key: &Key) -> Vec<Option<String>> {
    let second = match key.takes {
        Takes::Flag => "false",
        Takes::NumberOrShare { .. } => "'50%'",
        Takes::Duration { most: None, .. } => "'7s'",
        Takes::Text { .. } if key.name == "payload-hex" => "'80 00 00 01'",
        Takes::Form(_) => match (table.name, key.name) {
            ("gateway", "addresses") => "'192.0.2.2/24'",
            ("gateway", "probe-address") => "'192.0.2.2'",
            ("http", "listen") => "'[::1]:9480'",
            ("http", "names") => "['a.example', 'b']",
            ("dns", "servers") => "['192.0.2.53:54', '2001:db8::53']",
            ("pool", "servers-file") => "'/b'",
            ("pool", "servers-dns") => "'_b._tcp.example'",
            ("nat-pool", "ports") => "'1024-65534'",
            ("service", "listen") => "['192.0.2.80:80/tcp', 'any4:81/tcp']",
            ("service", "pool") => "'q'",
            ("service", "nat-pool") => "'m'",
            ("service", "last-resort-pool") | ("rule", "service") => "",
            (_, "protocol") => "'udp'",
            (_, "from" | "to" | "full-nat-for") => "['10.0.0.0/9', '2001:db8::1']",
            (_, "address" | "expect-address") => "'10.0.0.3'",
            (_, "path") => "'/y'",
            (_, "query" | "load-header" | "maintenance-header" | "group" | "ingress") => "'y'",
            (_, "headers") => "{ A = 'c', 'X-|' = '\"' }",
            (_, "load-regex") => r#"'(?<load>\d+)"'"#,
            _ => r#"'y\.'"#,
        },
        _ => "",
    };
    let mut all = bounds(key).0;
    all.extend([sample(table.name, key), second.to_string()].into_iter().filter(|value| !value.is_empty()));
    all.extend(key.takes.words().iter().map(|word| format!("'{word}'")));
    let mut all: Vec<Option<String>> = all.into_iter().map(Some).collect();
    // Full NAT needs a NAT pool.
    let can_be_absent = matches!(key.default, DefaultValue::Unset(_))
        && key.name != "nat-pool"
        && matches!(key.takes, Takes::Form(_) | Takes::Number { .. } | Takes::Ranges { .. });
    all.extend(can_be_absent.then_some(None));
    all.dedup();
    all
}

/// The listing of a file with one key.
fn listed(table: &Table, key: &Key, value: Option<&str>) -> Vec<Object> {
    objects(&read(table, key, value).unwrap_or_else(|error| panic!("{} of {}: {error}", key.name, table.header)))
}

#[test]
fn every_key_of_the_key_table_is_listed_in_its_order() {
    let mut seen = BTreeSet::new();
    let place = |value: &KeyValue| {
        let table = TABLES.iter().position(|table| table.name == value.table).expect("a table");
        (table, TABLES[table].keys.iter().position(|key| key.name == value.key).expect("a key"))
    };
    for (table, key) in keys() {
        for value in values(table, key) {
            let all = listed(table, key, value.as_deref());
            for object in &all {
                assert!(object.keys.iter().map(place).is_sorted_by(|a, b| a < b), "{object:?}");
                seen.extend(object.keys.iter().map(|value| (value.table, value.key)));
            }
            let tables: Vec<_> = all.iter().map(|object| TABLES.iter().position(|t| t.name == object.table)).collect();
            assert!(tables.is_sorted() && !tables.contains(&None), "{tables:?}");
        }
    }
    let all = TABLES.iter().flat_map(|table| table.keys.iter().map(move |key| (*table, key)));
    let want: BTreeSet<_> = all.filter(|(t, k)| is_listed(t, k)).map(|(table, key)| (table.name, key.name)).collect();
    assert_eq!(seen, want);
    assert!(UNLISTED.iter().all(|(table, key, reason)| find(table, key).is_some() && !reason.is_empty()));
}

/// Whether a key can go or come when another key of its table changes.
fn depends(table: &str, key: &str, on: &str) -> bool {
    let when = find(table, key).and_then(|key| key.when);
    LINKED.contains(&(table, on, key)) || when.is_some_and(|when| when.key == on || depends(table, when.key, on))
}

/// Checks that two listings differ in one key and in what depends on it.
fn differ_in(table: &Table, key: &Key, old: &[Object], new: &[Object]) {
    let what = format!("{} of {}", key.name, table.header);
    let names = |all: &[Object]| all.iter().map(|o| (o.table, o.name.clone())).collect::<Vec<_>>();
    assert_eq!(names(old), names(new), "{what}");
    let mut changed = BTreeSet::new();
    for (old, new) in old.iter().zip(new) {
        for value in old.keys.iter().chain(&new.keys) {
            let values = [old, new].map(|object| object.value(value.table, value.key));
            if values[0] == values[1] || value.table == table.name && depends(table.name, value.key, key.name) {
                continue;
            }
            assert!(values[0].is_some() && values[1].is_some(), "{what}: {values:?}");
            changed.insert((value.table, value.key));
        }
    }
    assert_eq!(changed, BTreeSet::from([(table.name, key.name)]), "{what}");
}

#[test]
fn a_changed_value_changes_its_key_and_no_other() {
    let mut seen = 0;
    for (table, key) in keys().filter(|(table, key)| is_listed(table, key)) {
        let values = values(table, key);
        assert!(values.len() > 1, "{} of {}", key.name, table.header);
        for pair in values.windows(2) {
            let [old, new] = [&pair[0], &pair[1]].map(|value| listed(table, key, value.as_deref()));
            if read(table, key, pair[0].as_deref()) == read(table, key, pair[1].as_deref()) {
                assert_eq!(old, new);
                continue;
            }
            differ_in(table, key, &old, &new);
            seen += 1;
        }
    }
    assert!(seen > 200, "only {seen} pairs");
}

#[test]
fn a_changed_name_is_another_object() {
    let mut seen = 0;
    for (table, key) in keys().filter(|(_, key)| key.reload == Reload::Identity) {
        let [old, new] = ["'one'", "'two'"].map(|value| listed(table, key, Some(value)));
        let names = |all: &[Object], name: &str| {
            let of = |object: &&Object| object.table == table.name && object.name.rsplit('/').next() == Some(name);
            all.iter().filter(of).count()
        };
        let counts = [(&old, "one"), (&old, "two"), (&new, "one"), (&new, "two")].map(|(all, name)| names(all, name));
        assert_eq!(counts, [1, 0, 0, 1], "{}", table.header);
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn a_listing_written_as_a_file_is_read_as_it_was() {
    let check = |all: &[Object]| {
        let text = written(all);
        let settings = parse(&text, "listing.toml").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(objects(&settings), all, "{text}");
    };
    check(&objects(&parse(GATEWAY, "gateway.toml").expect("valid")));
    for (table, key) in keys() {
        values(table, key).iter().for_each(|value| check(&listed(table, key, value.as_deref())));
    }
}

/// The value of one key of the only object of a table.
fn value(table: &str, key: &str, text: &str) -> String {
    let all = objects(&parse(text, "x.toml").unwrap_or_else(|error| panic!("{error}")));
    let values: Vec<&str> = all.iter().filter_map(|object| object.value(table, key)).collect();
    values[0].to_string()
}

#[test]
fn what_means_the_same_is_listed_alike() {
    for (table, key, lines, want) in [
        ("service", "listen", "listen = ['[::1:0]:80/tcp', '192.0.2.9:81/tcp', '192.0.2.9:80/tcp']", {
            r#"["192.0.2.9:80/tcp", "192.0.2.9:81/tcp", "[::1:0]:80/tcp"]"#
        }),
        ("service", "listen", "listen = 'any:80/tcp'", r#"["0.0.0.0/0:80/tcp", "[::]/0:80/tcp"]"#),
        ("service", "on-down", "", r#""repick""#),
        ("service", "rate-window", "algorithm = 'connection-rate'\nrate-window = '90s'", r#""1m 30s""#),
        ("service", "hash", "algorithm = 'source-hash'", r#""address""#),
        ("service", "hash", "algorithm = 'maglev'", r#""flow""#),
        ("service.sticky", "by", "", r#""connection""#),
        ("service.sticky", "by", "sticky = { by = 'network', ipv4-prefix = 32, ipv6-prefix = 128 }", r#""address""#),
        ("service.sticky", "group", "sticky = {}", "each service by itself"),
        ("service.sticky", "group", "sticky = { group = 'g' }", r#""g""#),
        ("rule", "ports", "ports = ['90-99', 80, 80]", r#"[80, "90-99"]"#),
        ("rule", "from", "from = ['10.0.0.9', '10.0.0.1/32', '10.0.0.0/8']", {
            r#"["10.0.0.0/8", "10.0.0.1", "10.0.0.9"]"#
        }),
        ("rule", "rate", "", "no limit"),
        ("nat-pool", "addresses", "addresses = ['10.0.9.4/30', '10.0.9.8', '10.0.9.1', '2001:db8::/127']", {
            r#"["10.0.9.1", "10.0.9.4-10.0.9.8", "2001:db8::-2001:db8::1"]"#
        }),
        ("pool", "floor", "floor = '50%'", r#""50%""#),
        ("pool.monitor", "status", "type = 'http'\nstatus = '200-299'", r#""200-299""#),
        ("pool.monitor", "payload", "type = 'udp'\npayload-hex = '70 69'", r#""pi""#),
        ("pool.monitor", "payload-hex", "type = 'udp'\npayload-hex = '00FF'", r#""00 ff""#),
        ("pool.monitor", "expect-prefix", "type = 'udp'\nexpect-prefix = ''", "anything"),
    ] {
        let own = table.split_once('.').map_or(table, |(first, rest)| if rest == "sticky" { first } else { table });
        let needed = match own {
            "service" if lines.contains("listen") => "name = 'x'\npool = 'p'\n",
            "service" => "name = 'x'\nlisten = '192.0.2.80:80/tcp'\npool = 'p'\n",
            "rule" => "name = 'r'\naction = 'balance'\nprotocol = 'tcp'\n",
            "nat-pool" => "name = 'n'\n",
            "pool" => "name = 'p'\n",
            _ => "",
        };
        let text = file(own, &format!("{needed}{lines}\n"));
        // The first NAT pool is another one, and a listen address needs a server of its family.
        let text = text.replacen("[[nat-pool]]\nname = 'm'\naddresses = '10.0.9.200'\n", "", 1);
        let both = if own == "service" { "address = ['10.0.0.1', '2001:db8:1::1']" } else { "address = '10.0.0.1'" };
        let text = text.replace("address = '10.0.0.1'", both);
        assert_eq!(value(table, key, &text), want, "{text}");
    }
}

#[test]
fn timeouts_of_a_service_are_listed_where_they_differ() {
    let entries = "[timeouts]\nicmp='99s'\n[[pool]]\nname='p'\nserver=[{name='s',address='10.0.0.1'}]\n\
         [[service]]\nname='x'\nlisten=['192.0.2.80:1-9999/udp','192.0.2.80/gre']\npool='p'\n\
         [[service.timeouts]]\nprotocol='gre'\nudp-two-way='240s'\n\
         [[service.timeouts]]\nudp-one-way='200s'\nudp-two-way='210s'\nicmp='99s'\n\
         [[service.timeouts]]\nports=53\nudp-one-way='30s'\n\
         [[service.timeouts]]\nports=['50-55','56-60']\nprotocol='udp'\nudp-one-way='40s'\nudp-two-way='210s'\n";
    for (key, want) in [
        ("tcp-opening", "that of [timeouts]"),
        (
            "udp-one-way",
            "\"3m 20s\" for 1-49/udp, 61-65535/udp, 1-52/sctp, 54-65535/sctp, gre; \
             \"40s\" for 50-52/udp, 54-60/udp; \"30s\" for 53/udp, 53/sctp",
        ),
        ("udp-two-way", "\"3m 30s\" for udp, sctp; \"4m\" for gre"),
        ("icmp", "that of [timeouts]"),
    ] {
        assert_eq!(value("service.timeouts", key, entries), want);
    }
}
