//! Firewall rules that set or look at the bits of the mark by which the gateway tells packets of flows.
//!
//! The rules are read as `nft --json list ruleset` prints them, and those of iptables, which that does not show in full,
//! as `iptables-save` does. It must not know netlink.

use super::Problem;
use crate::gateway::bpf::marks::{IN, OUT};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The bits of the gateway.
const BITS: u32 = IN | OUT;

/// Returns the rules of nftables that change or look at the gateway's bits. A rule that sets a mark counts only before
/// packets are routed, and if it may be about packets of these servers.
pub(super) fn in_ruleset(ruleset: &Value, servers: &[IpAddr]) -> Vec<Problem> {
    let items: Vec<&Value> = ruleset["nftables"].as_array().into_iter().flatten().collect();
    let early = before_routing(&items);
    let mut found = BTreeSet::new();
    for rule in items.iter().map(|item| &item["rule"]) {
        let expressions = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
        let place = place(rule);
        let sets = || expressions.iter().any(|e| e.get("mangle").is_some_and(changes_bits));
        let tests = || expressions.iter().any(|e| e.get("match").is_some_and(looks_at_bits));
        if early.contains(&place) && may_be_of(expressions, servers) && sets() {
            found.insert((place.clone(), Does::Sets));
        }
        if tests() {
            found.insert((place, Does::Tests));
        }
    }
    let names = found.into_iter().map(|(Place(family, table, chain), does)| {
        let list = format!("nft --handle list chain {family} {table} {chain}");
        problem(&format!("a rule in chain {chain} of table {family} {table}"), does, &list)
    });
    names.collect()
}

/// Returns the rules that `iptables-save` prints, or one of its relatives, likewise.
pub(super) fn in_saved(program: &str, rules: &str) -> Vec<Problem> {
    let mut found = BTreeSet::new();
    let mut table = "";
    for line in rules.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1).copied());
        let Some(chain) = after("-A") else { continue };
        // Marks count where packets are not routed yet.
        let is_late = ["INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&chain);
        let changed = match after("-j") {
            Some("MARK") => after("--set-xmark").map(pair).map(|(value, mask)| value | mask),
            Some("CONNMARK") if words.contains(&"--restore-mark") => {
                Some(after("--nfmask").map_or(u32::MAX, |mask| pair(mask).0))
            }
            _ => None,
        };
        if !is_late && changed.is_some_and(|changed| changed & BITS != 0) {
            found.insert((chain, table, Does::Sets));
        }
        let tested = words.windows(2).filter(|pair| pair[0] == "--mark").any(|words| {
            let (value, mask) = pair(words[1]);
            (if mask == u32::MAX { value } else { mask }) & BITS != 0
        });
        if tested && after("-m") != Some("connmark") {
            found.insert((chain, table, Does::Tests));
        }
    }
    let list = |table| format!("{} -t {table} -S", program.trim_end_matches("-save"));
    let all = found.into_iter();
    all.map(|(chain, table, does)| problem(&format!("a rule in chain {chain} of {program}"), does, &list(table)))
        .collect()
}

/// Returns whether the rules that nft shows include some of iptables that it cannot show.
pub(super) fn is_incomplete(ruleset: &Value) -> bool {
    let items = ruleset["nftables"].as_array().into_iter().flatten();
    items.filter_map(|item| item["rule"]["expr"].as_array()).flatten().any(|expression| expression.get("xt").is_some())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Does {
    Sets,
    Tests,
}

fn problem(rule: &str, does: Does, list: &str) -> Problem {
    let what = match does {
        Does::Sets => format!(
            "{rule} sets bits of the mark by which the gateway tells packets of flows ({BITS:#x}): replies that it matches \
             reach clients untranslated"
        ),
        Does::Tests => format!(
            "{rule} looks at bits of the mark by which the gateway tells packets of flows ({BITS:#x}), so it also matches \
             those"
        ),
    };
    let fix = match does {
        Does::Sets => format!(
            "have it keep these bits (nft: meta mark set meta mark and {BITS:#x} or VALUE; iptables: VALUE/MASK with other bits); find it with: {list}"
        ),
        Does::Tests => format!("use other bits for that rule and for what sets them; find it with: {list}"),
    };
    Problem::new(what, fix)
}

/// Family, table and chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place(String, String, String);

fn place(rule: &Value) -> Place {
    let word = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
    Place(word("family"), word("table"), word("chain"))
}

/// Returns the chains that packets pass before they are routed: those of the hooks, and where these jump.
fn before_routing(items: &[&Value]) -> BTreeSet<Place> {
    let chains = items.iter().map(|item| &item["chain"]);
    let hooked = chains.filter(|chain| chain["hook"] == "prerouting" || chain["hook"] == "ingress");
    let mut all: BTreeSet<Place> = BTreeSet::new();
    let mut next: Vec<Place> = hooked
        .map(|chain| {
            let word = |key: &str| chain[key].as_str().unwrap_or_default().to_owned();
            Place(word("family"), word("table"), word("name"))
        })
        .collect();
    while let Some(at) = next.pop() {
        let rules = items.iter().map(|item| &item["rule"]).filter(|rule| place(rule) == at);
        let expressions = rules.filter_map(|rule| rule["expr"].as_array()).flatten();
        // A map of verdicts may jump to any chain of the table.
        for expression in expressions {
            let jumps = ["jump", "goto"].iter().find_map(|verb| expression[verb]["target"].as_str());
            next.extend(
                jumps.map(|target| Place(at.0.clone(), at.1.clone(), target.into())).filter(|to| !all.contains(to)),
            );
            next.extend(
                vmap_targets(expression).map(|to| Place(at.0.clone(), at.1.clone(), to)).filter(|to| !all.contains(to)),
            );
        }
        all.insert(at);
    }
    all
}

/// Returns the chains that a map of verdicts in a rule leads to.
fn vmap_targets(expression: &Value) -> impl Iterator<Item = String> {
    let pairs = expression["vmap"]["data"]["set"].as_array().into_iter().flatten();
    let verdicts = pairs.filter_map(|pair| pair.get(1));
    verdicts
        .filter_map(|verdict| ["jump", "goto"].iter().find_map(|verb| verdict[verb]["target"].as_str()))
        .map(str::to_owned)
}

/// Returns whether a rule may be about packets of these servers, as far as it names addresses of senders.
fn may_be_of(expressions: &[Value], servers: &[IpAddr]) -> bool {
    expressions.iter().filter_map(|expression| expression.get("match")).all(|matching| {
        let field = &matching["left"]["payload"];
        if field["field"] != "saddr" || matching["op"] == "!=" {
            return true;
        }
        let right = &matching["right"];
        let many = right["set"].as_array().map_or(std::slice::from_ref(right), Vec::as_slice);
        many.iter().any(|one| network(one).is_none_or(|network| servers.iter().any(|server| network.contains(server))))
    })
}

/// Reads an address or a prefix.
fn network(value: &Value) -> Option<IpNet> {
    let prefix = &value["prefix"];
    match prefix["addr"].as_str() {
        Some(address) => IpNet::new(address.parse().ok()?, u8::try_from(prefix["len"].as_u64()?).ok()?).ok(),
        None => value.as_str()?.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

fn changes_bits(mangle: &Value) -> bool {
    is_mark(&mangle["key"]) && kept(&mangle["value"]) & BITS != BITS
}

fn is_mark(value: &Value) -> bool {
    value["meta"]["key"] == "mark"
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|n| u32::try_from(n).ok())
}

/// Returns the two operands of an operator.
fn operands<'a>(value: &'a Value, operator: &str) -> Option<(&'a Value, &'a Value)> {
    let both = value[operator].as_array()?;
    Some((both.first()?, both.get(1)?))
}

/// Returns the bits of the mark that keep their value in an expression for a new one.
fn kept(value: &Value) -> u32 {
    if is_mark(value) {
        return u32::MAX;
    }
    if let Some((a, b)) = operands(value, "&") {
        return kept(a) & number(b).unwrap_or(0) | kept(b) & number(a).unwrap_or(0);
    }
    for operator in ["|", "^"] {
        if let Some((a, b)) = operands(value, operator) {
            return kept(a) & !possible(b) | kept(b) & !possible(a);
        }
    }
    0
}

/// Returns the bits that an expression may have.
fn possible(value: &Value) -> u32 {
    if let Some(n) = number(value) {
        return n;
    }
    operands(value, "&").map_or(u32::MAX, |(a, b)| possible(a) & possible(b))
}

fn looks_at_bits(matching: &Value) -> bool {
    let (left, right) = (&matching["left"], &matching["right"]);
    if is_mark(left) {
        let many = right["set"].as_array().map_or(std::slice::from_ref(right), Vec::as_slice);
        return many
            .iter()
            .any(|one| number(one).or_else(|| prefix(one)).is_some_and(|looked_at| looked_at & BITS != 0));
    }
    let masked = operands(left, "&").filter(|(a, _)| is_mark(a));
    masked.and_then(|(_, mask)| number(mask)).is_some_and(|mask| mask & BITS != 0)
}

/// Returns the mask of a prefix, as which nft shows a mask of leading ones.
fn prefix(value: &Value) -> Option<u32> {
    let len = u32::try_from(value["prefix"]["len"].as_u64()?).ok()?;
    Some(u32::MAX.checked_shl(32 - len.min(32)).unwrap_or(0))
}

/// Reads VALUE/MASK of iptables.
fn pair(text: &str) -> (u32, u32) {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
    (number(value).unwrap_or(0), mask.map_or(u32::MAX, |mask| number(mask).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::namespace;
    use std::process::Command;

    /// Loads rules into a namespace and returns what is found, one `does` word and place each.
    fn found(commands: &str) -> Vec<String> {
        let run = |args: &[&str]| {
            let output = Command::new("nft").args(args).output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["flush ruleset"]);
        run(&[commands]);
        let ruleset = serde_json::from_str(&run(&["--json", "list", "ruleset"])).unwrap();
        let servers = ["10.9.0.5".parse().unwrap(), "fd09::5".parse().unwrap()];
        let all = in_ruleset(&ruleset, &servers).into_iter();
        all.map(|problem| problem.what.split(" bits").next().unwrap().to_owned()).collect()
    }

    #[test]
    fn rules_of_nftables_that_touch_the_bits_are_named_and_others_are_not() {
        let Some(ns) = namespace("eq-markrules") else { return };
        ns.run(|| {
            let (sets, tests) = (Some("sets"), Some("looks at"));
            for (rule, want) in [
                ("meta mark set 1", sets),
                ("meta mark set ct mark", sets),
                ("meta mark set meta mark or 0x10000000", sets),
                ("meta mark set meta mark and 0x0fffffff", sets),
                ("meta mark set meta mark xor 0x20000000", sets),
                ("ip saddr 10.9.0.0/24 meta mark set 1", sets),
                ("ip saddr { 10.8.0.1, 10.9.0.5 } meta mark set 1", sets),
                ("ip saddr 10.8.0.0/24 meta mark set 1", None),
                ("ip6 saddr fd08::/16 meta mark set 1", None),
                ("meta mark set meta mark or 1", None),
                ("meta mark set meta mark and 0x30000000 or 7", None),
                ("meta mark set meta mark and 0xffffff00", None),
                ("ct mark set 1", None),
                ("meta mark 0x10000000 accept", tests),
                ("meta mark { 1, 0x20000001 } accept", tests),
                ("meta mark and 0xf0000000 == 0 accept", tests),
                ("meta mark and 0x30000000 != 0x10000000 accept", tests),
                ("meta mark and 0xc0000000 == 0 accept", None),
                ("meta mark 7 accept", None),
                ("meta mark and 0xff == 7 accept", None),
            ] {
                let text = found(&format!(
                    "table inet t {{ chain c {{ type filter hook prerouting priority -150; {rule}; }}; }};"
                ));
                let want: Vec<String> =
                    want.map(|does| format!("a rule in chain c of table inet t {does}")).into_iter().collect();
                assert_eq!(text, want, "{rule}");
            }
            // Where packets are routed already, and where they come by a jump.
            let late = "table inet t { chain c { type filter hook forward priority 0; meta mark set 1; }; };";
            assert_eq!(found(late), Vec::<String>::new());
            let jump = "table inet t { chain other { meta mark set 1; }; \
                        chain c { type filter hook prerouting priority -150; meta l4proto tcp jump other; }; };";
            assert_eq!(found(jump), ["a rule in chain other of table inet t sets"]);
        })
        .unwrap();
    }

    #[test]
    fn rules_of_iptables_are_read_as_they_are_saved() {
        for (line, want) in [
            ("-A PREROUTING -i eth0 -j MARK --set-xmark 0x1/0xffffffff", Some("sets")),
            ("-A PREROUTING -j MARK --set-xmark 0x40000/0xff0000", None),
            ("-A cali-PREROUTING -j MARK --set-xmark 0x10000/0xf0000000", Some("sets")),
            ("-A PREROUTING -p udp -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", Some("sets")),
            ("-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", None),
            ("-A POSTROUTING -j MARK --set-xmark 0x1/0xffffffff", None),
            ("-A FORWARD -m mark --mark 0x10000000/0xf0000000 -j ACCEPT", Some("looks at")),
            ("-A FORWARD -m mark ! --mark 0xca6c -j ACCEPT", None),
            ("-A FORWARD -m connmark --mark 0x10000000 -j ACCEPT", None),
        ] {
            let found = in_saved("iptables-save", &format!("*mangle\n:PREROUTING ACCEPT [0:0]\n{line}\nCOMMIT\n"));
            assert_eq!(found.len(), usize::from(want.is_some()), "{line}: {found:?}");
            for problem in found {
                assert!(
                    problem.what.contains(want.unwrap()) && problem.fix.ends_with("iptables -t mangle -S"),
                    "{problem}"
                );
            }
        }
    }
}
