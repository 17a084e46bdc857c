//! What is exported, what docs/metrics.md says of it, and what the example dashboard and alerts ask for, are the same; and
//! both text formats are read by parsers that are not ours.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use equipoise::config;
use equipoise::control::{About, Floor, Gathered, Gathering, Ledger, Outside, Topic, Work};
use equipoise::engine::Engine;
use equipoise::time::Instant;
use equipoise::web::metrics::{Families, Format, HttpTotals, Process};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CONFIGURATION: &str = "
[gateway]
probe-address = '192.0.2.1'
[[nat-pool]]
name = 'out'
addresses = '10.0.9.1'
[[service]]
name = 'web'
listen = '192.0.2.80:80/tcp'
pool = 'web'
nat = 'full'
nat-pool = 'out'
[[rule]]
name = 'all'
action = 'balance'
[[pool]]
name = 'web'
[[pool.monitor]]
type = 'tcp'
[[pool.server]]
name = 'a'
address = '10.0.0.1'
max-flows = 10
[[pool.server]]
name = 'b'
address = '10.0.0.2'
";

fn families() -> Families {
    let settings = config::parse(CONFIGURATION, "x.toml").unwrap_or_else(|error| panic!("{error}"));
    let mut engine = Engine::try_new(&settings).unwrap();
    let about = About::new(&settings, Instant::ZERO, 7);
    let mut ledger = Ledger::new(None, settings);
    let (outside, now) = (Outside::default(), Instant::from_nanos(5_000_000_000));
    let mut floor = Floor { engine: &mut engine, ledger: &mut ledger, now, outside: &outside, pair: None };
    let mut gathering = Gathering::new(Topic::All);
    let gathered = (0..100).find_map(|_| gathering.step(&mut floor, &about, &Work::default()));
    let Some(Gathered::All(snapshot)) = gathered else { panic!("{gathered:?}") };
    let http = HttpTotals { responses: [(200, 3), (404, 1)].into(), ..HttpTotals::default() };
    let process = Some(Process { started: 1.7e9, cpu: 2.5, resident: 1 << 20 });
    Families { snapshot, http, process }
}

/// A family: its type, help, and labels.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Reads the text format 0.0.4 into families by their full names.
fn read(text: &str) -> BTreeMap<String, Family> {
    let mut all: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            all.entry(name.into()).or_default().help = help.into();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            all.entry(name.into()).or_default().kind = kind.into();
        } else {
            let end = line.find(['{', ' ']).expect("a value");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| line[..end].strip_suffix(suffix));
            let name = base.filter(|base| all.contains_key(*base)).unwrap_or(&line[..end]);
            let family = all.get_mut(name).unwrap_or_else(|| panic!("{line} has no type"));
            let labels = line[end..].split_once('}').map_or("", |(labels, _)| labels.trim_start_matches('{'));
            let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            family.labels.extend(names.filter(|name| name != "le"));
        }
    }
    all
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn file(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The labels of families that have no rows in this test.
const ABSENT: &[(&str, &[&str])] = &[
    ("equipoise_sync_active_seconds", &["peer"]),
    ("equipoise_sync_configurations_differ", &["peer"]),
    ("equipoise_sync_connected", &["peer"]),
    ("equipoise_sync_connections_total", &["peer"]),
    ("equipoise_sync_in_step", &["peer"]),
    ("equipoise_sync_ready", &["peer"]),
    ("equipoise_sync_answers_total", &["end", "peer"]),
    ("equipoise_sync_received_bytes_total", &["peer"]),
    ("equipoise_sync_role", &["peer", "role"]),
    ("equipoise_sync_sent_bytes_total", &["peer"]),
    ("equipoise_sync_takeover_flows", &["peer"]),
    ("equipoise_sync_unacknowledged_frames", &["peer"]),
    ("equipoise_nat_ports_used", &["nat_pool", "address", "protocol"]),
    ("equipoise_nat_ports_half_open", &["nat_pool", "address", "protocol"]),
    ("equipoise_nat_ports_resting", &["nat_pool", "address", "protocol"]),
    ("equipoise_nat_ports_free", &["nat_pool", "address", "protocol"]),
    ("equipoise_nat_exhausted_flows_total", &["nat_pool"]),
    ("equipoise_source_servers", &["pool", "kind"]),
    ("equipoise_source_failing", &["pool", "kind"]),
    ("equipoise_source_age_seconds", &["pool", "kind"]),
    ("equipoise_server_load_ratio", &["pool", "server"]),
    ("equipoise_server_latency_seconds", &["pool", "server"]),
];

fn exported() -> BTreeMap<String, Family> {
    let mut all = read(&families().text(Format::Text));
    for (name, labels) in ABSENT {
        let family = all.get_mut(*name).unwrap_or_else(|| panic!("{name} is not exported"));
        assert!(family.labels.is_empty(), "{name} has rows: it need not be listed");
        family.labels = labels.iter().map(|label| (*label).to_owned()).collect();
    }
    all
}

/// Returns the names of metrics in a query.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("equipoise_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Returns the series that a family has.
fn series(exported: &BTreeMap<String, Family>) -> BTreeSet<String> {
    let of = |(name, family): (&String, &Family)| {
        let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect::<Vec<_>>()
    };
    exported.iter().flat_map(of).collect()
}

#[test]
fn the_documentation_has_every_metric_as_it_is_exported_and_no_other() {
    let mut documented = BTreeMap::new();
    for line in file("docs/metrics.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, help] = cells[..] else { panic!("four columns: {line}") };
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let family = Family { kind: kind.into(), help: help.into(), labels };
        assert!(documented.insert(name.trim_matches('`').to_owned(), family).is_none(), "{name} is there twice");
    }
    let exported = exported();
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        for (name, family) in &exported {
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            println!("| `{name}` | {} | {} | {} |", family.kind, labels.join(", "), family.help);
        }
    }
    for (name, family) in &exported {
        assert_eq!(documented.get(name), Some(family), "{name} in docs/metrics.md");
    }
    let unknown: Vec<&String> = documented.keys().filter(|name| !exported.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "documented, but not exported: {unknown:?}");
}

/// Every sample of a text: its name, its labels, and its value. Figures and bounds may be written in different ways, and
/// labels in a different order.
fn samples(text: &str) -> BTreeSet<(String, BTreeSet<String>, String)> {
    let number = |text: &str| format!("{:?}", text.replace("+Inf", "inf").parse::<f64>().unwrap());
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let label = |label: &str| match label.strip_prefix("le=\"") {
            Some(bound) => format!("le={}", number(bound)),
            None => label.to_owned(),
        };
        let labels = labels.trim_end_matches("\"}").split("\",").map(label).collect();
        (name.to_owned(), labels, number(value))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

#[test]
fn both_formats_say_the_same() {
    let (older, newer) = (families().text(Format::Text), families().text(Format::OpenMetrics));
    let (one, other) = (samples(&older), samples(&newer));
    let differ: Vec<_> = one.symmetric_difference(&other).collect();
    assert!(differ.is_empty() && one.len() > 200, "{differ:?}");
    assert!(newer.ends_with("# EOF\n") && newer.contains("# UNIT equipoise_loop_turn_seconds seconds\n"), "{newer}");
    for (name, family) in read(&older) {
        let (base, kind) = match family.kind.as_str() {
            "counter" => (name.strip_suffix("_total").expect("counters end in _total"), "counter"),
            "gauge" if name.ends_with("_info") => (name.strip_suffix("_info").unwrap(), "info"),
            kind => (name.as_str(), kind),
        };
        assert!(
            newer.contains(&format!("\n# TYPE {base} {kind}\n")) || newer.starts_with(&format!("# HELP {base} ")),
            "{name}"
        );
    }
}

#[test]
fn hostile_names_do_not_break_a_line() {
    let mut families = families();
    let snapshot = std::sync::Arc::make_mut(&mut families.snapshot);
    snapshot.servers[0].server = "a\"} 1\nevil{x=\"\\".into();
    snapshot.servers.push(snapshot.servers[1].clone());
    for format in [Format::Text, Format::OpenMetrics] {
        let text = families.text(format);
        assert!(text.contains(r#"equipoise_server_up{pool="web",server="a\"} 1\nevil{x=\"\\"} "#), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("equipoise_server_up{")).count(), 2, "each series once");
        assert!(!text.lines().any(|line| line.starts_with("evil")));
    }
}

/// A program of Debian's package prometheus.
fn promtool() -> Command {
    let program = ["/usr/bin/promtool", "/usr/local/bin/promtool"].iter().find(|path| Path::new(path).exists());
    Command::new(program.expect("promtool is missing: apt-get install --no-install-recommends prometheus"))
}

#[test]
fn promtool_finds_nothing_wrong_with_names_units_and_help() {
    let mut child = promtool()
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(families().text(Format::Text).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn the_alerts_are_valid_fire_when_they_should_and_name_metrics_that_exist() {
    let known = series(&exported());
    let text = file("tools/monitoring/alerts.yml");
    let asked = names(&text);
    let unknown: Vec<&String> = asked.difference(&known).collect();
    assert!(unknown.is_empty() && asked.len() > 5, "unknown metrics in the alerts: {unknown:?}");
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts-test.yml"]] {
        let output = promtool().args(args).current_dir(root("tools/monitoring")).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
    }
}

/// Every `expr` in a dashboard.
fn queries(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" || key == "query" && text != "prometheus" => {
                        all.push(text.clone())
                    }
                    _ => queries(value, all),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, all)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist_in_queries_that_prometheus_reads() {
    let dashboard: Value = serde_json::from_str(&file("tools/monitoring/dashboard.json")).unwrap();
    let mut all = Vec::new();
    queries(&dashboard, &mut all);
    assert!(all.len() > 10, "only {} queries", all.len());
    let known = series(&exported());
    // A rule file is how promtool reads queries without a server.
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (number, query) in all.iter().enumerate() {
        let unknown: Vec<String> = names(query).difference(&known).cloned().collect();
        assert!(unknown.is_empty() && !names(query).is_empty(), "{query}: {unknown:?}");
        if query.starts_with("label_values(") {
            continue;
        }
        let query = query.replace("$__rate_interval", "1m").replace("$pool", ".*").replace("$instance", ".*");
        rules += &format!("  - record: q:{number}\n    expr: {}\n", serde_json::to_string(&query).unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yml");
    std::fs::write(&path, rules).unwrap();
    let output = promtool().args(["check", "rules"]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
}
