//! Keeps the NAT of the operator's own rules away from flows: a masquerading rule that also matches the way to the servers
//! or to the clients would translate what is translated already.
//!
//! A chain of ours before theirs gives every connection that enters or leaves by the device the source that it has. NAT of
//! the kernel is decided once per connection, so theirs are not asked any more. Connection tracking is the price, so the
//! chain is only there where there are such rules.

use serde_json::Value;
use std::io::{self, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long nft(8) may take to install the chain, or to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// The chain, as long as it lives.
///
/// The kernel removes the table when the process that owns it ends (`flags owner`, Linux 5.12), and that process ends when
/// its standard input does: also if the gateway is killed. It is started before the gateway gives up privileges, and could
/// do no more for an intruder than CAP_NET_ADMIN, which the gateway keeps; what it prints goes nowhere.
#[derive(Debug)]
pub(super) struct NatOfOthers {
    nft: Child,
    input: Option<ChildStdin>,
}

impl NatOfOthers {
    /// Installs the chain if the operator has NAT rules for packets that leave the gateway; the table is named after the
    /// gateway's routing table.
    pub(super) fn keep_away(device: &str, route_table: u32) -> io::Result<Option<NatOfOthers>> {
        let own = format!("equipoise_{route_table}");
        if !others_translate(&own) {
            return Ok(None);
        }
        let mut nft = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("nft: {e}")))?;
        let input = nft.stdin.take();
        let mut chain = NatOfOthers { nft, input };
        if let Some(input) = &mut chain.input {
            input.write_all(commands(device, &own).as_bytes())?;
        }
        let began = Instant::now();
        while !is_there(&own) {
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("nft has not installed the table inet {own}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        log::info!("NAT rules of this machine leave flows alone: table inet {own}");
        Ok(Some(chain))
    }
}

impl Drop for NatOfOthers {
    fn drop(&mut self) {
        drop(self.input.take());
        let began = Instant::now();
        while let Ok(None) = self.nft.try_wait() {
            if began.elapsed() > PATIENCE {
                let _ = self.nft.kill();
                let _ = self.nft.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn commands(device: &str, table: &str) -> String {
    let mut text = format!(
        "add table inet {table} {{ flags owner; }}\n\
         add chain inet {table} postrouting {{ type nat hook postrouting priority 99; }}\n"
    );
    for way in ["oifname", "iifname"] {
        for (family, protocol) in [("ip", "ipv4"), ("ip6", "ipv6")] {
            text += &format!(
                "add rule inet {table} postrouting {way} \"{device}\" meta nfproto {protocol} snat {family} to {family} saddr\n"
            );
        }
    }
    text
}

/// Returns whether anybody else has a NAT chain for packets that leave, in nftables (where iptables-nft's rules are too) or
/// in the kernel's old tables.
fn others_translate(own: &str) -> bool {
    let legacy = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    let has_nat = |file| std::fs::read_to_string(file).is_ok_and(|text| text.lines().any(|line| line == "nat"));
    legacy.into_iter().any(has_nat) || listed(&["list", "chains"]).is_some_and(|all| has_other_nat(&all, own))
}

fn has_other_nat(ruleset: &Value, own: &str) -> bool {
    let chains = ruleset["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"]);
    chains.filter(|chain| chain["type"] == "nat" && chain["hook"] == "postrouting").any(|chain| chain["table"] != own)
}

/// Whether all rules of our table are there.
fn is_there(own: &str) -> bool {
    let rules = |list: Value| {
        let items = list["nftables"].as_array().into_iter().flatten();
        items.filter(|item| item.get("rule").is_some()).count()
    };
    listed(&["list", "table", "inet", own]).map(rules) == Some(4)
}

fn listed(words: &[&str]) -> Option<Value> {
    let mut nft = Command::new("nft");
    let output = nft.arg("--json").args(words).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| serde_json::from_slice(&output.stdout).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::netns::Namespace;

    fn tables(at: &Namespace) -> String {
        let output = at.command("nft").args(["list", "ruleset"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn add(at: &Namespace, commands: &str) {
        assert!(at.command("nft").arg(commands).status().unwrap().success(), "{commands}");
    }

    #[test]
    fn the_chain_is_there_where_others_translate_and_ends_with_its_owner() {
        let namespace = Namespace::new("nat-of-others").unwrap();
        let open = || namespace.run(|| NatOfOthers::keep_away("equipoise0", 4242).unwrap()).unwrap();
        assert!(open().is_none() && tables(&namespace).is_empty());
        add(&namespace, "add table ip mine; add chain ip mine in { type nat hook prerouting priority -100; }");
        assert!(open().is_none(), "what arrives is not our business");
        add(&namespace, "add chain ip mine out { type nat hook postrouting priority 100; }");
        let chain = open();
        let there = tables(&namespace);
        assert!(there.contains("table inet equipoise_4242") && there.contains("flags owner"), "{there}");
        assert_eq!(there.matches("saddr").count(), 4, "{there}");
        drop(chain);
        assert!(!tables(&namespace).contains("equipoise"), "{}", tables(&namespace));
        assert!(open().is_some(), "again, as after a restart");
    }
}
