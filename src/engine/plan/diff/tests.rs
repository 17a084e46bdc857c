//! Pairs of files and their differences.

mod examples;

use super::*;
use crate::config::parse;
use std::path::Path;

const POOLS: &str = r#"
[gateway]
probe-address = "192.0.2.1"
[[nat-pool]]
name = "out"
addresses = "10.0.9.1-10.0.9.8"
[[service]]
name = "web"
listen = ["192.0.2.80:80/tcp", "192.0.2.80:443/tcp"]
pool = "web"
sticky = { group = "shop" }
[[service]]
name = "dns"
listen = "192.0.2.53:53/udp"
pool = "dns"
[[rule]]
name = "a"
action = "pass"
protocol = "gre"
[[rule]]
name = "b"
action = "drop"
from = "10.0.0.0/8"
[[rule]]
name = "c"
action = "balance"
[[pool]]
name = "web"
[[pool.monitor]]
name = "page"
type = "http"
host = "www.example.com"
[[pool.monitor]]
type = "icmp"
[[pool.server]]
name = "web-1"
address = "10.0.0.1"
[[pool.server]]
name = "web-2"
address = "10.0.0.2"
[[pool]]
name = "dns"
[[pool.server]]
name = "dns-1"
address = "10.0.0.3"
port = 5353
"#;

fn settings(text: &str) -> Settings {
    parse(text, "x.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// Replaces strings that occur exactly once in the file.
fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(POOLS.to_string(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    })
}

/// Swaps two consecutive parts of the file.
fn swapped(first: &str, second: &str, end: &str) -> String {
    let at = |part: &str| POOLS.find(part).expect(part);
    let (first, second, end) = (at(first), at(second), if end.is_empty() { POOLS.len() } else { at(end) });
    let parts = [&POOLS[..first], &POOLS[second..end], &POOLS[first..second], &POOLS[end..]];
    parts.concat()
}

#[track_caller]
fn check(old: &str, new: &str, want: &[&str]) {
    let diff = PlanDiff::between(&settings(old), &settings(new));
    assert_eq!(diff.to_string().lines().collect::<Vec<_>>(), want);
    assert_eq!(diff.is_empty(), want == ["no changes"]);
}

/// Checks the diff lines that an edit of the file produces.
#[track_caller]
fn edit(edits: &[(&str, &str)], want: &[&str]) {
    check(POOLS, &edited(edits), want);
}

const RULE_A: &str = "[[rule]]\nname = \"a\"";
const RULE_B: &str = "[[rule]]\nname = \"b\"";
const RULE_C: &str = "[[rule]]\nname = \"c\"";
const POOL_WEB: &str = "[[pool]]\nname = \"web\"";
const POOL_DNS: &str = "[[pool]]\nname = \"dns\"";
const SERVICE_WEB: &str = "[[service]]\nname = \"web\"";
const SERVICE_DNS: &str = "[[service]]\nname = \"dns\"";
const SERVER_2: &str = "[[pool.server]]\nname = \"web-2\"\naddress = \"10.0.0.2\"\n";

#[test]
fn equivalent_files_have_no_difference() {
    let none = &["no changes"];
    edit(&[], none);
    edit(&[("addresses = \"10.0.9.1-10.0.9.8\"", "addresses = [\"10.0.9.5-10.0.9.8\", \"10.0.9.1-10.0.9.4\"]")], none);
    edit(
        &[("listen = [\"192.0.2.80:80/tcp\", ", "listen = [\"192.0.2.80:443/tcp\", "), ("443/tcp\"]", "80/tcp\"]")],
        none,
    );
    edit(&[("port = 5353", "port = 5353\nweight = 1\nslow-start = \"0s\"")], none);
    edit(&[("type = \"icmp\"", "type = \"icmp\"\ninterval = \"10000ms\"")], none);
    edit(&[(POOL_WEB, "[[pool]]\nname = \"web\"\nslow-start = \"0s\"")], none);
    check(POOLS, &swapped(SERVICE_WEB, SERVICE_DNS, RULE_A), none);
    check(POOLS, &swapped(POOL_WEB, POOL_DNS, ""), none);
    check(POOLS, &swapped("[[pool.server]]\nname = \"web-1\"", SERVER_2, POOL_DNS), none);
    check(
        POOLS,
        &swapped("[[pool.monitor]]\nname", "[[pool.monitor]]\ntype", "[[pool.server]]\nname = \"web-1\""),
        none,
    );
}

#[test]
fn changed_keys_are_named_with_both_values_and_their_effect() {
    let server = ("address = \"10.0.0.2\"", "address = \"10.0.0.2\"\nweight = 5\nstate = \"draining\"");
    edit(
        &[server],
        &[
            "server web/web-2: weight 1 -> 5 (new flows only)",
            "server web/web-2: state \"enabled\" -> \"draining\" (at once)",
        ],
    );
    let tables = "seed = 7\n[flows]\nrate = 9\n[answers]\nno-room = \"drop\"\n[fragments]\ntimeout = \"6s\"\n\
                  [timeouts]\nicmp = \"90s\"\n[gateway]\nmtu = 1400\ndevice = \"eq1\"";
    edit(
        &[("[gateway]", tables)],
        &[
            "seed 0 -> 7 (at the next start)",
            "gateway: device \"equipoise0\" -> \"eq1\" (at the next start)",
            "gateway: mtu 1500 -> 1400 (at once)",
            "flows: rate (no limit) -> 9 (at once)",
            "timeouts: icmp \"1m\" -> \"1m 30s\" (new flows only)",
            "fragments: timeout \"5s\" -> \"6s\" (at once)",
            "answers: no-room \"prohibited\" -> \"drop\" (at once)",
        ],
    );
    edit(
        &[("10.0.9.1-10.0.9.8\"", "10.0.9.1-10.0.9.4\"\nports = \"2000-2999\"")],
        &[
            "nat-pool out: addresses \"10.0.9.1-10.0.9.8\" -> \"10.0.9.1-10.0.9.4\" (what is removed drains)",
            "nat-pool out: ports \"1024-65535\" -> \"2000-2999\" (what is removed drains)",
        ],
    );
    edit(
        &[("from = \"10.0.0.0/8\"", "from = [\"172.16.0.0/12\", \"10.0.0.0/8\"]\ningress = \"eth0\"")],
        &[
            "rule b: from \"10.0.0.0/8\" -> [\"10.0.0.0/8\", \"172.16.0.0/12\"] (new flows only)",
            "rule b: ingress (any) -> \"eth0\" (new flows only)",
        ],
    );
    edit(
        &[("host = \"www.example.com\"", "host = \"example.com\"")],
        &["monitor web/page: host \"www.example.com\" -> \"example.com\" (at once, and starts over)"],
    );
}

#[test]
fn keys_nested_in_an_object_are_named_with_their_table() {
    edit(
        &[("{ group = \"shop\" }", "{ group = \"store\", by = \"network\", ipv4-prefix = 16 }")],
        &[
            "service web: sticky.by \"address\" -> \"network\" (at once, and starts over)",
            "service web: sticky.ipv4-prefix set to 16 (at once, and starts over)",
            "service web: sticky.group \"shop\" -> \"store\" (at once, and starts over)",
        ],
    );
    edit(
        &[("sticky = { group = \"shop\" }\n", "")],
        &[
            "service web: sticky.by \"address\" -> \"connection\" (at once, and starts over)",
            "service web: sticky.group \"shop\" no longer applies (at once, and starts over)",
        ],
    );
    edit(
        &[(
            "53/udp\"\npool = \"dns\"\n",
            "53/udp\"\npool = \"dns\"\ntimeouts = [{ ports = 53, udp-one-way = \"20s\" }]\n",
        )],
        // Before, that of a well-known port.
        &["service dns: timeouts.udp-one-way \"30s\" for 53/udp -> \"20s\" for 53/udp, 53/sctp (new flows only)"],
    );
    // A port whose timeouts are short by default has those of [timeouts].
    edit(
        &[(
            "53/udp\"\npool = \"dns\"\n",
            "53/udp\"\npool = \"dns\"\ntimeouts = [{ ports = 53, udp-one-way = \"5m\", protocol = \"udp\" }]\n",
        )],
        &["service dns: timeouts.udp-one-way \"30s\" for 53/udp -> \"5m\" for 53/udp (new flows only)"],
    );
    let passive = edited(&[(POOL_DNS, "[[pool]]\nname = \"dns\"\npassive = {}")]);
    check(
        POOLS,
        &passive,
        &[
            "pool dns: passive.failures set to 5 (at once)",
            "pool dns: passive.within set to \"10s\" (at once)",
            "pool dns: passive.hold set to \"10s\" (at once)",
            "pool dns: passive.longest set to \"5m\" (at once)",
        ],
    );
    check(
        &passive,
        POOLS,
        &[
            "pool dns: passive.failures 5 no longer applies (at once)",
            "pool dns: passive.within \"10s\" no longer applies (at once)",
            "pool dns: passive.hold \"10s\" no longer applies (at once)",
            "pool dns: passive.longest \"5m\" no longer applies (at once)",
        ],
    );
}

#[test]
fn dependent_keys_are_listed_only_with_a_value_of_their_own() {
    let dns = "53/udp\"\npool = \"dns\"\n";
    let with = |lines: &str| edited(&[(dns, &format!("{dns}{lines}"))]);
    check(
        POOLS,
        &with("algorithm = \"maglev\"\nmaglev-table = 101\n"),
        &[
            "service dns: algorithm \"round-robin\" -> \"maglev\" (new flows only)",
            "service dns: maglev-table set to 101 (new flows only)",
            "service dns: hash set to \"flow\" (new flows only)",
        ],
    );
    check(
        POOLS,
        &with("algorithm = \"connection-rate\"\n"),
        &["service dns: algorithm \"round-robin\" -> \"connection-rate\" (new flows only)"],
    );
    check(
        POOLS,
        &with("nat = \"full\"\nnat-pool = \"out\"\n"),
        &[
            "service dns: nat \"destination\" -> \"full\" (new flows only)",
            "service dns: nat-pool set to \"out\" (new flows only)",
        ],
    );
    check(
        &with("last-resort = \"reset\"\n"),
        &with("last-resort-pool = \"web\"\n"),
        &[
            "service dns: last-resort \"reset\" no longer applies (new flows only)",
            "service dns: last-resort-pool (none) -> \"web\" (new flows only)",
        ],
    );
    edit(
        &[("type = \"http\"\nhost = \"www.example.com\"", "type = \"tcp\"")],
        &[
            "monitor web/page: type \"http\" -> \"tcp\" (at once, and starts over)",
            "monitor web/page: host \"www.example.com\" no longer applies (at once, and starts over)",
        ],
    );
}

#[test]
fn objects_are_added_and_removed_by_name() {
    let third = format!("{SERVER_2}[[pool.server]]\nname = \"web-3\"\naddress = \"10.0.0.9\"\n");
    edit(&[(SERVER_2, &third)], &["server web/web-3: added"]);
    edit(&[(SERVER_2, "")], &["server web/web-2: removed"]);
    edit(&[("\"web-2\"", "\"web-9\"")], &["server web/web-9: added", "server web/web-2: removed"]);
    // Without a name, a monitor is named after its type.
    edit(&[("type = \"icmp\"", "type = \"tcp\"")], &["monitor web/tcp: added", "monitor web/icmp: removed"]);
    edit(&[("name = \"out\"", "name = \"in\"")], &["nat-pool in: added", "nat-pool out: removed"]);
    edit(&[("name = \"b\"", "name = \"x\"")], &["rule x: added", "rule b: removed"]);
    edit(
        &[("[[service]]\nname = \"dns\"", "[[service]]\nname = \"names\"")],
        &["service names: added", "service dns: removed"],
    );
    edit(
        &[("pool = \"dns\"", "pool = \"names\""), (POOL_DNS, "[[pool]]\nname = \"names\"")],
        &[
            "service dns: pool \"dns\" -> \"names\" (new flows only)",
            "pool names: added",
            "pool dns: removed",
            "server names/dns-1: added",
            "server dns/dns-1: removed",
        ],
    );
}

#[test]
fn a_server_that_moved_is_another_server() {
    edit(
        &[("\"10.0.0.3\"", "[\"10.0.0.4\", \"2001:db8::4\"]\nweight = 3"), ("5353", "53")],
        &[
            "server dns/dns-1: added (address \"10.0.0.3\" -> [\"10.0.0.4\", \"2001:db8::4\"], port 5353 -> 53)",
            "server dns/dns-1: removed (address \"10.0.0.3\" -> [\"10.0.0.4\", \"2001:db8::4\"], port 5353 -> 53)",
        ],
    );
    // Two servers that swapped their addresses.
    edit(
        &[("\"10.0.0.1\"", "\"10.x\""), ("\"10.0.0.2\"", "\"10.0.0.1\""), ("\"10.x\"", "\"10.0.0.2\"")],
        &[
            "server web/web-1: added (address \"10.0.0.1\" -> \"10.0.0.2\")",
            "server web/web-2: added (address \"10.0.0.2\" -> \"10.0.0.1\")",
            "server web/web-1: removed (address \"10.0.0.1\" -> \"10.0.0.2\")",
            "server web/web-2: removed (address \"10.0.0.2\" -> \"10.0.0.1\")",
        ],
    );
}

#[test]
fn the_order_of_rules_matters() {
    check(POOLS, &swapped(RULE_A, RULE_B, RULE_C), &["rule b: place after \"a\" -> before \"a\" (new flows only)"]);
    // The last one moves to the top, with a changed value.
    let top = swapped(RULE_A, RULE_C, POOL_WEB).replace("action = \"balance\"", "action = \"reject\"");
    check(
        POOLS,
        &top,
        &[
            "rule c: action \"balance\" -> \"reject\" (new flows only)",
            "rule c: place after \"b\" -> before \"a\" (new flows only)",
        ],
    );
    let first = edited(&[(RULE_A, &format!("[[rule]]\nname = \"new\"\naction = \"drop\"\n{RULE_A}"))]);
    check(POOLS, &first, &["rule new: added"]);
    check(&first, POOLS, &["rule new: removed"]);
}

/// Every order of up to five rules: as many as possible stay in place, and every line reports a change.
#[test]
fn as_few_rules_as_possible_are_moved() {
    let rule = |at: usize| format!("[[rule]]\nname = \"r{at}\"\naction = \"drop\"\nfrom = \"10.{at}.0.0/16\"\n");
    let with = |order: &[usize]| {
        settings(&edited(&[(RULE_A, &format!("{}{RULE_A}", order.iter().map(|at| rule(*at)).collect::<String>()))]))
    };
    let old = with(&[0, 1, 2, 3, 4]);
    for order in permutations(5) {
        let diff = PlanDiff::between(&old, &with(&order));
        let longest = (0..32_u32).filter(|set| {
            let picked: Vec<usize> = order.iter().copied().filter(|at| set >> at & 1 == 1).collect();
            picked.is_sorted()
        });
        let longest = longest.map(u32::count_ones).max().expect("one rule at least");
        let moved: Vec<_> = diff.changed().flat_map(|(_, keys)| keys).collect();
        assert_eq!(moved.len(), 5 - longest as usize, "{order:?}\n{diff}");
        assert!(moved.iter().all(|key| key.key == "place" && key.from != key.to), "{order:?}\n{diff}");
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let insert = |shorter: Vec<usize>| (0..count).map(move |at| [&shorter[..at], &[last], &shorter[at..]].concat());
    permutations(last).into_iter().flat_map(insert).collect()
}

#[test]
fn keys_that_need_a_restart_are_listed_separately() {
    let new = edited(&[("[gateway]", "[flows]\nmax = 1000\nrate = 1\n[gateway]\noffload = false\nmtu = 1400")]);
    let (old, new) = (Plan::new(&settings(POOLS)), Plan::new(&settings(&new)));
    let diff = old.diff(&new);
    let keys: Vec<_> = diff.needs_restart().map(|(object, key)| (object.table, key.key, key.to.as_deref())).collect();
    assert_eq!(keys, [("gateway", "offload", Some("false")), ("flows", "max", Some("1000"))]);
    assert_eq!(
        diff.changed().map(|(object, keys)| (object.table, keys.len())).collect::<Vec<_>>(),
        [("gateway", 2), ("flows", 2)]
    );
    assert_eq!((diff.added().count(), diff.removed().count()), (0, 0));
    assert!(old.diff(&old).is_empty());
}

#[test]
fn it_can_be_serialised() {
    let new =
        edited(&[("\"10.0.0.3\"", "\"10.0.0.4\""), (SERVER_2, ""), ("host = \"www.example.com\"\n", "rise = 9\n")]);
    let json = serde_json::to_value(PlanDiff::between(&settings(POOLS), &settings(&new))).expect("serialisable");
    let of = |change: &str| {
        let all = json["objects"].as_array().expect("an array").iter();
        all.filter(|object| object["change"] == change)
            .map(|object| object["name"].as_str().expect("a name"))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("added"), ["dns/dns-1"]);
    assert_eq!(of("removed"), ["web/web-2", "dns/dns-1"]);
    assert_eq!(of("changed"), ["web/page"]);
    assert!(of("unchanged").contains(&"web/web-1"));
    let page = json["objects"].as_array().expect("an array").iter().find(|object| object["name"] == "web/page");
    let rise = serde_json::json!({"table": "pool.monitor", "key": "rise", "from": "2", "to": "9", "reload": "live"});
    assert_eq!(page.expect("the monitor")["keys"][0], rise);
    assert_eq!(page.expect("the monitor")["table"], "pool.monitor");
}

/// Returns the path of every valid example configuration.
fn examples() -> Vec<(String, Settings)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries =
        |folder: &str| root.join(folder).read_dir().expect(folder).map(|entry| entry.expect("an entry").path());
    let own = entries("fixtures/config").chain(entries("fixtures/config/warned"));
    let cases = entries("pcap-tests/cases").map(|case| case.join("config.toml"));
    let files = own.chain(cases).filter(|path| path.extension().is_some_and(|end| end == "toml") && path.exists());
    let mut paths: Vec<_> = files.collect();
    paths.sort();
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a file");
        (path.display().to_string(), settings(&text))
    };
    paths.into_iter().map(read).collect()
}
