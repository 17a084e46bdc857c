//! Keeps the NAT of the operator's own rules away from flows: a masquerading rule that also matches the way to the servers
//! or to the clients would translate what is translated already.
//!
//! A chain of ours before theirs gives every connection that enters or leaves by the device the source that it has. NAT of
//! the kernel is decided once per connection, so theirs are not asked any more. Connection tracking is the price, so the
//! chain is only there where there are such rules, from the start or later.

use super::event_loop::BEGIN;
use super::netlink::{TableNews, Tables};
use crate::time::{Duration, Instant};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

/// How long nft(8) may take to install the chain, or to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// The chain, or what installs it as soon as it is needed.
///
/// The kernel removes the table when the process that owns it ends (`flags owner`, Linux 5.12), and that process ends when
/// its standard input does: also if the gateway is killed. It is started before the gateway gives up the right to start
/// programs, and could do no more for an intruder than CAP_NET_ADMIN, which the gateway keeps; what it prints goes nowhere.
#[derive(Debug)]
pub(super) struct NatOfOthers {
    /// The program and its input; the error if it could not be started.
    nft: Result<(Child, Option<ChildStdin>), String>,
    /// `None` if the kernel has no nf_tables, or no longer tells.
    news: Option<Tables>,
    device: String,
    own: String,
    /// Names that our table can have: a gateway that takes over needs one beside that of the one before it.
    names: [String; 2],
    /// Whether others translate what leaves.
    is_needed: bool,
    is_there: bool,
    /// Until when the program has time to install the chain.
    until: Option<Instant>,
    /// Why the chain is missing although it is needed.
    wrong: Option<String>,
    is_to_do: bool,
}

impl NatOfOthers {
    /// Looks for NAT rules for packets that leave the gateway, and watches for such rules. The table of our chain is named
    /// after the gateway's routing table.
    pub(super) fn watch(device: &str, route_table: u32) -> NatOfOthers {
        let names = [format!("equipoise_{route_table}"), format!("equipoise_{route_table}_b")];
        let mut nft = Command::new("nft");
        let nft = nft.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let nft = nft.map(|mut nft| {
            let input = nft.stdin.take();
            // Packets do not wait for it: a command is taken as a whole or not at all (pipe(7), PIPE_BUF).
            let input = input.filter(|input| rustix::io::ioctl_fionbio(input, true).is_ok());
            (nft, input)
        });
        // Before the look, so that nothing is missed.
        let news = Tables::open().inspect_err(|error| log::debug!("NAT rules that come later stay unnoticed: {error}"));
        let chains = listed(&["list", "chains"]).unwrap_or_default();
        let own = names[usize::from(has_table(&chains, &names[0]))].clone();
        NatOfOthers {
            nft: nft.map_err(|error| format!("nft: {error}")),
            news: news.ok(),
            device: device.into(),
            is_needed: has_other_nat(&chains, &names),
            own,
            names,
            is_there: false,
            until: None,
            wrong: None,
            is_to_do: true,
        }
    }

    /// Installs the chain if others translate already, and waits until it is there. To be called at start, while
    /// nobody waits for packets.
    pub(super) fn settle(&mut self) {
        let began = std::time::Instant::now();
        while self.look(BEGIN).is_none() && self.is_needed && !self.is_there && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
            self.take_news();
        }
    }

    /// Returns the descriptors with events when there are notifications, or the program has ended.
    pub(super) fn news(&self) -> impl Iterator<Item = RawFd> {
        let input = self.nft.as_ref().ok().and_then(|(_, input)| input.as_ref());
        self.news.as_ref().map(Tables::as_raw_fd).into_iter().chain(input.map(ChildStdin::as_raw_fd))
    }

    /// Returns whether the program reads no more: the kernel removes the table of a process that ends, and tells nobody.
    fn has_ended(&self) -> bool {
        let Ok((_, Some(input))) = &self.nft else { return false };
        let mut all = [PollFd::new(input, PollFlags::empty())];
        poll(&mut all, Some(&Timespec::default())).is_ok() && all[0].revents().contains(PollFlags::ERR)
    }

    /// Reads notifications, a bounded number; returns true if more may be pending.
    pub(super) fn take_news(&mut self) -> bool {
        self.is_to_do |= self.is_there && self.has_ended();
        let Some(mut news) = self.news.take() else { return false };
        let mut all = Vec::new();
        let more = news.take(|one| all.push(one)).inspect_err(|error| log::warn!("nf_tables is not watched: {error}"));
        for one in all {
            self.hear(one);
        }
        self.news = more.is_ok().then_some(news);
        more.unwrap_or(false)
    }

    fn hear(&mut self, news: Option<TableNews>) {
        let before = (self.is_needed, self.is_there);
        match news {
            Some(TableNews::SourceNat(table)) if !self.names.contains(&table) => self.is_needed = true,
            Some(TableNews::Table(table)) if table == self.own => self.is_there = true,
            Some(TableNews::NoTable(table)) if table == self.own => self.is_there = false,
            // A chain of others may be among what was lost: ours does no harm.
            None => self.is_needed = true,
            _ => {}
        }
        self.is_to_do |= before != (self.is_needed, self.is_there);
    }

    /// Returns whether [`NatOfOthers::look`] has something to do before the next round.
    pub(super) fn is_to_do(&self) -> bool {
        self.is_to_do
    }

    /// Returns when the chain has to be there.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Installs the chain if it is needed; returns what is wrong.
    pub(super) fn look(&mut self, now: Instant) -> Option<String> {
        self.is_to_do = false;
        self.is_needed |= legacy_translates();
        self.is_there &= !self.has_ended();
        if !self.is_needed || self.is_there {
            if self.until.take().is_some() {
                log::info!("NAT rules of this machine leave flows alone: table inet {}", self.own);
            }
            self.wrong = None;
            return None;
        }
        let failed = match (self.until, &mut self.nft) {
            (_, Err(error)) => error.clone(),
            (None, Ok((_, Some(input)))) => match input.write_all(commands(&self.device, &self.own).as_bytes()) {
                Ok(()) => {
                    self.until = Some(now + PATIENCE);
                    return self.wrong.clone();
                }
                Err(error) => format!("nft takes no commands ({error})"),
            },
            (Some(until), _) if now < until => return self.wrong.clone(),
            _ => format!("nft has not installed the table inet {}", self.own),
        };
        self.until = None;
        self.wrong = Some(format!(
            "breaks flows that its rules match: {failed}; to fix it: make sure that nft(8) is installed, and restart the gateway"
        ));
        self.wrong.clone()
    }
}

impl Drop for NatOfOthers {
    fn drop(&mut self) {
        let Ok((nft, input)) = &mut self.nft else { return };
        drop(input.take());
        let began = std::time::Instant::now();
        while let Ok(None) = nft.try_wait() {
            if began.elapsed() > PATIENCE {
                let _ = nft.kill();
                let _ = nft.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn commands(device: &str, table: &str) -> String {
    // One line is one transaction.
    let mut text = format!(
        "add table inet {table} {{ flags owner; }}; \
         add chain inet {table} postrouting {{ type nat hook postrouting priority 99; }}"
    );
    for way in ["oifname", "iifname"] {
        for (family, protocol) in [("ip", "ipv4"), ("ip6", "ipv6")] {
            text += &format!(
                "; add rule inet {table} postrouting {way} \"{device}\" meta nfproto {protocol} snat {family} to {family} saddr"
            );
        }
    }
    text + "\n"
}

/// Returns whether the kernel's old tables translate.
fn legacy_translates() -> bool {
    let legacy = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    let has_nat = |file| std::fs::read_to_string(file).is_ok_and(|text| text.lines().any(|line| line == "nat"));
    legacy.into_iter().any(has_nat)
}

fn chains(ruleset: &Value) -> impl Iterator<Item = &Value> {
    ruleset["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"])
}

/// Returns whether anybody else has a NAT chain for packets that leave in nftables, where iptables-nft's rules are too.
fn has_other_nat(ruleset: &Value, own: &[String]) -> bool {
    let nat = chains(ruleset).filter(|chain| chain["type"] == "nat" && chain["hook"] == "postrouting");
    nat.into_iter().any(|chain| !own.iter().any(|own| chain["table"] == **own))
}

fn has_table(ruleset: &Value, table: &str) -> bool {
    chains(ruleset).any(|chain| chain["table"] == table)
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

    fn open(at: &Namespace) -> NatOfOthers {
        let mut nat = at.run(|| NatOfOthers::watch("equipoise0", 4242)).unwrap();
        at.run(|| nat.settle()).unwrap();
        nat
    }

    /// Lets it hear and do what is due, until the table is there or not.
    fn wait(nat: &mut NatOfOthers, at: &Namespace, is_there: bool) {
        let began = std::time::Instant::now();
        while tables(at).contains("table inet equipoise_4242") != is_there || nat.is_there != is_there {
            assert!(began.elapsed() < PATIENCE * 5, "{nat:?} {}", tables(at));
            nat.take_news();
            assert_eq!(nat.look(Instant::ZERO), None);
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn the_chain_is_there_where_others_translate_and_ends_with_its_owner() {
        let namespace = Namespace::new("nat-of-others").unwrap();
        assert!(!open(&namespace).is_needed && tables(&namespace).is_empty());
        add(&namespace, "add table ip mine; add chain ip mine in { type nat hook prerouting priority -100; }");
        assert!(!open(&namespace).is_needed, "what arrives is not our business");
        add(&namespace, "add chain ip mine out { type nat hook postrouting priority 100; }");
        let nat = open(&namespace);
        assert!(nat.is_there);
        let there = tables(&namespace);
        assert!(there.contains("table inet equipoise_4242") && there.contains("flags owner"), "{there}");
        assert_eq!(there.matches("saddr").count(), 4, "{there}");
        drop(nat);
        assert!(!tables(&namespace).contains("equipoise"), "{}", tables(&namespace));
        let before = open(&namespace);
        assert!(before.is_there, "again, as after a restart");
        let after = open(&namespace);
        assert!(after.is_there && after.own == "equipoise_4242_b", "beside it, in a takeover");
        drop(before);
        let there = tables(&namespace);
        assert!(there.contains("equipoise_4242_b") && !there.contains("equipoise_4242 "), "{there}");
        assert_eq!(open(&namespace).own, "equipoise_4242");
    }

    #[test]
    fn rules_that_come_later_bring_the_chain_and_its_loss_is_noticed() {
        let namespace = Namespace::new("nat-of-others2").unwrap();
        let mut nat = open(&namespace);
        assert!(!nat.is_needed);
        add(&namespace, "add table ip mine; add chain ip mine out { type nat hook postrouting priority 100; }");
        wait(&mut nat, &namespace, true);
        // Whoever flushes all rules leaves those of an owner alone.
        add(&namespace, "flush ruleset");
        wait(&mut nat, &namespace, true);
        let Ok((nft, _)) = &mut nat.nft else { panic!("{nat:?}") };
        nft.kill().unwrap();
        nft.wait().unwrap();
        nat.take_news();
        assert!(nat.is_to_do());
        let wrong = nat.look(Instant::ZERO).expect("the program is gone");
        assert!(wrong.contains("nft takes no commands") && wrong.contains("restart the gateway"), "{wrong}");
    }

    #[test]
    fn a_program_that_is_missing_or_does_nothing_is_told() {
        let namespace = Namespace::new("nat-of-others3").unwrap();
        let mut nat = open(&namespace);
        nat.is_needed = true;
        let (nft, input) = std::mem::replace(&mut nat.nft, Err("nft: not found".into())).unwrap();
        assert!(nat.look(Instant::ZERO).unwrap().contains("nft: not found"));
        let mut idle = Command::new("sleep").arg("60").stdin(Stdio::piped()).spawn().unwrap();
        let taken = idle.stdin.take();
        (nat.nft, nat.wrong) = (Ok((idle, taken)), None);
        assert_eq!(nat.look(Instant::ZERO), None);
        let wrong = nat.look(Instant::ZERO + PATIENCE).expect("it has had its time");
        assert_eq!(nat.look(Instant::ZERO + PATIENCE), Some(wrong.clone()), "another attempt, and nothing new");
        assert!(wrong.contains("has not installed the table inet equipoise_4242"), "{wrong}");
        let Ok((mut idle, _)) = std::mem::replace(&mut nat.nft, Ok((nft, input))) else { panic!("{nat:?}") };
        idle.kill().unwrap();
        idle.wait().unwrap();
    }
}
