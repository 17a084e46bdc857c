//! Firewalls that drop what the gateway forwards: chains of the hook `forward` whose policy is to drop, without a rule
//! that accepts packets from or to the device.
//!
//! The rules are read as `nft --json list ruleset` prints them, which includes those of iptables-nft, Docker and
//! firewalld; the rules of iptables-legacy as `iptables-legacy --list-rules` does. It must not know netlink.

use super::Problem;
use crate::gateway::sysctl;
use serde_json::Value;
use std::collections::HashSet;
use std::process::{Command, Stdio};

/// Returns all rules of nftables; nothing if no program can read them, as where no firewall is installed.
pub(super) fn ruleset() -> Option<Value> {
    serde_json::from_str(&output("nft", &["--json", "list", "ruleset"])?).ok()
}

/// Returns the rules of iptables as its programs save them, with their names: those in the kernel's old tables, and with
/// `in_nft` those in nftables.
pub(super) fn saved(in_nft: bool) -> Vec<(&'static str, String)> {
    let old = [("iptables-legacy-save", OLD_TABLES[0]), ("ip6tables-legacy-save", OLD_TABLES[1])];
    let old = old.into_iter().filter(|(_, names)| has_table(names, "mangle")).map(|(program, _)| program);
    let new = ["iptables-nft-save", "ip6tables-nft-save"].into_iter().filter(|_| in_nft);
    old.chain(new).filter_map(|program| Some((program, output(program, &[])?))).collect()
}

/// The names of the kernel's old tables that exist.
const OLD_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// Without this check of the file, a program would load the kernel's module.
fn has_table(names: &str, table: &str) -> bool {
    std::fs::read_to_string(names).is_ok_and(|text| text.lines().any(|line| line == table))
}

/// Returns what is found.
pub(super) fn check(ruleset: Option<&Value>, device: &str, families: (bool, bool)) -> Vec<Problem> {
    let mut problems = ruleset.map_or_else(Vec::new, |ruleset| in_ruleset(ruleset, device, families));
    for (program, names, is_used) in
        [("iptables-legacy", OLD_TABLES[0], families.0), ("ip6tables-legacy", OLD_TABLES[1], families.1)]
    {
        if is_used
            && has_table(names, "filter")
            && let Some(rules) = output(program, &["--list-rules"])
        {
            problems.extend(in_legacy_rules(program, &rules, device));
        }
    }
    problems
}

/// Returns what conntrack makes of segments that come without those before them, which the kernel has carried past it.
pub(super) fn shortcut(ruleset: Option<&Value>) -> Option<Problem> {
    let is_on = |name: &str| sysctl::get(&format!("net/netfilter/{name}")).is_ok_and(|value| value != "0");
    let is_used = is_on("nf_conntrack_count") || ruleset.is_some_and(uses_conntrack);
    (is_used && !is_on("nf_conntrack_tcp_be_liberal")).then(|| {
        Problem::new(
            "connections are tracked here, and the shortcut carries their packets past conntrack: it calls the next packet that \
             it sees invalid, such as the last, and a rule that drops or does not accept those breaks the connection",
            "sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1, or set shortcut = false",
        )
    })
}

/// Returns whether any rule makes the kernel track connections.
fn uses_conntrack(ruleset: &Value) -> bool {
    let text = ruleset.to_string();
    // The rules of iptables-nft that use it are not spelled out.
    ["\"ct\":", "\"type\":\"nat\"", "\"xt\":"].iter().any(|word| text.contains(word))
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A direction of packets at the hook `forward`, which sees each packet twice: into the device and out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Out of the device: it is the input interface.
    From,
    /// Into the device.
    To,
}

impl Way {
    const fn word(self) -> &'static str {
        if matches!(self, Way::From) { "iifname" } else { "oifname" }
    }
}

fn in_ruleset(ruleset: &Value, device: &str, (v4, v6): (bool, bool)) -> Vec<Problem> {
    let items: Vec<&Value> = ruleset["nftables"].as_array().into_iter().flatten().collect();
    let chains = items.iter().map(|item| &item["chain"]);
    let drops = chains.filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop");
    let concerned = drops.filter(|chain| match chain["family"].as_str() {
        Some("ip") => v4,
        Some("ip6") => v6,
        Some("inet") => v4 || v6,
        _ => false,
    });
    let mut problems = way_back(&items, (v4, v6));
    for chain in concerned {
        let word = |key: &str| chain[key].as_str().unwrap_or_default();
        let (family, table, name) = (word("family"), word("table"), word("name"));
        let place = Place { items: &items, family, table };
        let dropped: Vec<Way> = [Way::From, Way::To]
            .into_iter()
            .filter(|way| !place.accepts(name, *way, device, &mut HashSet::new()))
            .collect();
        if dropped.is_empty() {
            continue;
        }
        let is_iptables = table == "filter" && name == "FORWARD" && family != "inet";
        let fix = dropped.iter().map(|way| match (is_iptables, way) {
            (true, way) => {
                let program = if family == "ip" { "iptables" } else { "ip6tables" };
                let option = if *way == Way::From { "-i" } else { "-o" };
                // Docker leaves this chain to the operator and jumps to it first.
                let chain = if place.rules("DOCKER-USER").next().is_some() { "DOCKER-USER" } else { "FORWARD" };
                format!("{program} -I {chain} {option} {device} -j ACCEPT")
            }
            (false, way) => format!("nft insert rule {family} {table} {name} {} {device} accept", way.word()),
        });
        problems.push(problem(&format!("chain {name} of table {family} {table}"), device, fix.collect::<Vec<_>>()));
    }
    problems
}

/// Finds rules that drop what comes in by another interface than the way back to its sender, without regard to marks: the
/// gateway's packets come out of its device with the addresses of clients.
fn way_back(items: &[&Value], (v4, v6): (bool, bool)) -> Vec<Problem> {
    let is_check = |expression: &Value| {
        let lookup = &expression["match"]["left"]["fib"];
        let has = |flag: &str| lookup["flags"].as_array().is_some_and(|flags| flags.iter().any(|is| is == flag));
        lookup["result"] == "oif" && expression["match"]["right"] == false && has("saddr") && has("iif") && !has("mark")
    };
    let mut problems = Vec::new();
    for rule in items.iter().map(|item| &item["rule"]) {
        let is_used = if rule["family"] == "ip" { v4 } else { v4 || v6 };
        let expressions = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
        if is_used && expressions.iter().any(is_check) && expressions.iter().any(|e| e.get("drop").is_some()) {
            let word = |key: &str| rule[key].as_str().unwrap_or_default();
            let (family, table, chain) = (word("family"), word("table"), word("chain"));
            problems.push(Problem::new(
                format!(
                    "chain {chain} of table {family} {table} drops what comes out of the gateway's device: its check of the \
                     way back to the sender (fib saddr . iif oif) does not look at marks"
                ),
                format!(
                    "replace that rule by one with \"fib saddr . mark . iif oif missing drop\": nft --handle list chain \
                     {family} {table} {chain}"
                ),
            ));
        }
    }
    problems
}

fn problem(chain: &str, device: &str, fixes: Vec<String>) -> Problem {
    Problem::new(
        format!(
            "the firewall drops what the gateway forwards: {chain} has policy drop, and no rule accepts new packets from and to {device}"
        ),
        fixes.join("; "),
    )
}

/// The chains of one table.
struct Place<'a> {
    items: &'a [&'a Value],
    family: &'a str,
    table: &'a str,
}

impl<'a> Place<'a> {
    /// Returns the expressions of the rules of a chain.
    fn rules(&self, chain: &str) -> impl Iterator<Item = &'a [Value]> {
        let is_here = move |rule: &&Value, key: &str, value: &str| rule[key] == value;
        let rules = self.items.iter().map(|item| &item["rule"]);
        rules
            .filter(move |rule| {
                is_here(rule, "family", self.family)
                    && is_here(rule, "table", self.table)
                    && is_here(rule, "chain", chain)
            })
            .filter_map(|rule| rule["expr"].as_array().map(Vec::as_slice))
    }

    /// Returns whether any rule could accept a new packet that goes this way; what cannot be understood may.
    fn accepts(&self, chain: &str, way: Way, device: &str, seen: &mut HashSet<String>) -> bool {
        if !seen.insert(chain.to_owned()) {
            return false;
        }
        for rule in self.rules(chain) {
            let mut names_device = false;
            let mut applies = true;
            for expression in rule {
                if let Some(matching) = expression.get("match") {
                    match verdict(matching, way, device) {
                        Matching::Never => applies = false,
                        Matching::Device => names_device = true,
                        Matching::Perhaps => {}
                    }
                }
            }
            // Matches of iptables that nft does not understand: a state, a comment. Most often the state of connections.
            let is_opaque = rule.iter().any(|expression| expression.get("xt").is_some());
            if !applies || (is_opaque && !names_device) {
                continue;
            }
            for expression in rule {
                let target = ["jump", "goto"].iter().find_map(|verb| expression[verb]["target"].as_str());
                if expression.get("accept").is_some()
                    || expression.get("vmap").is_some()
                    || target.is_some_and(|target| self.accepts(target, way, device, seen))
                {
                    return true;
                }
            }
        }
        false
    }
}

enum Matching {
    Never,
    Perhaps,
    /// It names the device.
    Device,
}

/// Returns whether an expression can match a new packet that goes this way.
fn verdict(matching: &Value, way: Way, device: &str) -> Matching {
    let (left, right) = (&matching["left"], &matching["right"]);
    let negated = matching["op"] == "!=";
    if left["ct"]["key"] == "state" {
        let new = values(right).any(|state| state == "new");
        return if new != negated { Matching::Perhaps } else { Matching::Never };
    }
    let key = left["meta"]["key"].as_str().unwrap_or_default();
    let is_of_device = match (way, key) {
        (Way::From, "iifname" | "iif") | (Way::To, "oifname" | "oif") => true,
        (Way::From, "oifname" | "oif") | (Way::To, "iifname" | "iif") => false,
        _ => return Matching::Perhaps,
    };
    let is_named = values(right).any(|name| match name.strip_suffix('*') {
        Some(start) => device.starts_with(start),
        None => name == device,
    });
    match (is_of_device, is_named, negated) {
        (true, true, false) => Matching::Device,
        (true, false, true) => Matching::Perhaps,
        // No packet comes from the device and goes to it.
        (true, ..) | (false, true, false) => Matching::Never,
        (false, ..) => Matching::Perhaps,
    }
}

/// Returns the words of a value, which is one or a set.
fn values(right: &Value) -> impl Iterator<Item = &str> {
    let many = right["set"].as_array().or(right.as_array());
    let one = right.as_str();
    many.into_iter().flatten().filter_map(Value::as_str).chain(one)
}

/// Reads `iptables-legacy --list-rules`: the policy of FORWARD, and whether any of its rules names the device in both
/// directions or accepts everything.
fn in_legacy_rules(program: &str, rules: &str, device: &str) -> Option<Problem> {
    if !rules.lines().any(|line| line == "-P FORWARD DROP") {
        return None;
    }
    let accepts = |option: &str| {
        rules.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1).copied());
            let is_bare = words.len() == 4;
            after("-A") == Some("FORWARD")
                && after("-j") == Some("ACCEPT")
                && (is_bare || after(option) == Some(device))
        })
    };
    let dropped = ["-i", "-o"].into_iter().filter(|option| !accepts(option));
    let fixes: Vec<String> =
        dropped.map(|option| format!("{program} -I FORWARD {option} {device} -j ACCEPT")).collect();
    (!fixes.is_empty()).then(|| problem(&format!("chain FORWARD of {program}"), device, fixes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ruleset(policy: &str, rules: &[Value]) -> Value {
        let chain =
            json!({"chain": {"family": "inet", "table": "t", "name": "f", "hook": "forward", "policy": policy}});
        let rules = rules.iter().map(|expr| {
            let chain = if expr[0] == "other" { "other" } else { "f" };
            let expr: Vec<&Value> = expr.as_array().unwrap().iter().filter(|e| e.is_object()).collect();
            json!({"rule": {"family": "inet", "table": "t", "chain": chain, "expr": expr}})
        });
        let all: Vec<Value> = [chain].into_iter().chain(rules).collect();
        json!({ "nftables": all })
    }

    fn interface(key: &str, op: &str, name: &str) -> Value {
        json!({"match": {"op": op, "left": {"meta": {"key": key}}, "right": name}})
    }

    #[test]
    fn a_drop_policy_without_accepts_for_the_device_is_a_problem() {
        let accept = json!({"accept": null});
        let state = |states: Value| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": states}});
        let (from, to) = (interface("iifname", "==", "eq0"), interface("oifname", "==", "eq0"));
        let (from_eth, to_eth) = (interface("iifname", "==", "eth0"), interface("oifname", "==", "eth0"));
        let jump = json!({"jump": {"target": "other"}});
        let cases: [(&str, Vec<Value>, &str); 12] = [
            ("nothing", vec![], "iifname oifname"),
            ("both", vec![json!([from, accept]), json!([to, accept])], ""),
            ("everything", vec![json!([accept])], ""),
            ("one direction", vec![json!([from, accept])], "oifname"),
            ("another interface", vec![json!([from_eth, accept])], "iifname"),
            ("both others", vec![json!([from_eth, to_eth, accept])], "iifname oifname"),
            ("known connections", vec![json!([state(json!(["established", "related"])), accept])], "iifname oifname"),
            ("new connections", vec![json!([state(json!(["established", "new"])), accept])], ""),
            ("all but one", vec![json!([interface("iifname", "!=", "eth0"), accept])], ""),
            ("a prefix", vec![json!([interface("iifname", "==", "eq*"), accept]), json!([to, accept])], ""),
            ("another chain", vec![json!([jump]), json!(["other", from, accept]), json!(["other", to, accept])], ""),
            ("matches of iptables", vec![json!([{"xt": null}, accept])], "iifname oifname"),
        ];
        for (what, rules, want) in cases {
            let found = in_ruleset(&ruleset("drop", &rules), "eq0", (true, true));
            let fix = found.first().map(|problem| problem.fix.clone()).unwrap_or_default();
            let words = ["iifname", "oifname"].into_iter().filter(|word| fix.contains(word)).collect::<Vec<_>>();
            assert_eq!(words.join(" "), want, "{what}: {found:?}");
            assert!(in_ruleset(&ruleset("accept", &rules), "eq0", (true, true)).is_empty());
        }
    }

    #[test]
    fn rules_that_track_connections_are_told_from_others() {
        let accept = json!({"accept": null});
        let state = json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}});
        let (plain, of_iptables) =
            (interface("iifname", "==", "eth0"), json!({"xt": {"type": "match", "name": "conntrack"}}));
        for (rule, want) in [(json!([plain, accept]), false), (json!([state]), true), (json!([of_iptables]), true)] {
            assert_eq!(uses_conntrack(&ruleset("accept", std::slice::from_ref(&rule))), want, "{rule}");
        }
        let nat = json!({"nftables": [{"chain": {"family": "ip", "table": "nat", "name": "p", "type": "nat"}}]});
        assert!(uses_conntrack(&nat));
    }

    #[test]
    fn a_check_of_the_way_back_that_does_not_look_at_marks_is_a_problem() {
        let check = |flags: Value| json!([{"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": flags}}, "right": false}}, {"drop": null}]);
        for (flags, want) in [(json!(["saddr", "iif"]), 1), (json!(["saddr", "mark", "iif"]), 0), (json!(["saddr"]), 0)]
        {
            let found = in_ruleset(&ruleset("accept", &[check(flags.clone())]), "eq0", (false, true));
            assert_eq!(found.len(), want, "{flags}");
            assert!(found.iter().all(|problem| problem.fix.contains("list chain inet t f")));
        }
    }

    #[test]
    fn legacy_rules_are_read_as_they_are_listed() {
        let fix = |rules: &str| in_legacy_rules("iptables-legacy", rules, "eq0").map(|problem| problem.fix);
        assert_eq!(fix("-P FORWARD ACCEPT\n"), None);
        assert_eq!(
            fix("-P INPUT ACCEPT\n-P FORWARD DROP\n-A FORWARD -i docker0 -j ACCEPT\n").unwrap(),
            "iptables-legacy -I FORWARD -i eq0 -j ACCEPT; iptables-legacy -I FORWARD -o eq0 -j ACCEPT"
        );
        assert_eq!(fix("-P FORWARD DROP\n-A FORWARD -i eq0 -j ACCEPT\n-A FORWARD -o eq0 -j ACCEPT\n"), None);
        assert_eq!(fix("-P FORWARD DROP\n-A FORWARD -j ACCEPT\n"), None);
    }
}
