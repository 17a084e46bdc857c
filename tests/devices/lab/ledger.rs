//! The ledger: what entered the gateway and what left it, counted at both ends outside it, and what its devices lost.
//! The rest is what it decided to drop.
//!
//! Resets are kept apart: a gateway may make some of its own. While it makes none, a reset that is lost counts as any
//! other packet. Only TCP and UDP count, IPv4 and IPv6 alike.

use super::packets::Seen;
use super::{CLIENT, Lab, at, nft};
use equipoise::control::Totals;
use equipoise::gateway::netns::Namespace;
use std::net::IpAddr;
use std::ops::Sub;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whose packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Client,
    Stranger,
}

impl Who {
    /// Tells by the address outside.
    pub fn of(address: IpAddr) -> Who {
        let client = CLIENT.iter().any(|client| client.parse() == Ok(address));
        if client { Who::Client } else { Who::Stranger }
    }
}

/// Packets at one end in one direction.
#[derive(Debug, Default)]
pub struct Count {
    client: AtomicU64,
    stranger: AtomicU64,
    resets: AtomicU64,
}

impl Count {
    pub fn count(&self, who: Who, seen: &Seen) {
        let counter = match who {
            _ if seen.is_reset() => &self.resets,
            Who::Client => &self.client,
            Who::Stranger => &self.stranger,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> Sums {
        let [client, stranger, resets] =
            [&self.client, &self.stranger, &self.resets].map(|c| c.load(Ordering::Relaxed));
        Sums { client, stranger, resets }
    }
}

/// What this process counts: everything at the clients' end, and the parrot at the servers' end.
#[derive(Debug, Default)]
pub struct Counts {
    pub client_sent: Count,
    pub client_got: Count,
    pub server_sent: Count,
    pub server_got: Count,
}

/// The values of a [`Count`], or their growth.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    pub client: u64,
    pub stranger: u64,
    pub resets: u64,
}

impl Sums {
    fn plus(self, other: Sums) -> Sums {
        Sums {
            client: self.client + other.client,
            stranger: self.stranger + other.stranger,
            resets: self.resets + other.resets,
        }
    }

    fn all(self) -> u64 {
        self.client + self.stranger
    }
}

impl Sub for Sums {
    type Output = Sums;

    fn sub(self, before: Sums) -> Sums {
        Sums {
            client: self.client - before.client,
            stranger: self.stranger - before.stranger,
            resets: self.resets - before.resets,
        }
    }
}

/// Names of the counters at the kernel server, for what comes in and what goes out.
const COUNTERS: [[&str; 3]; 2] =
    [["in-client", "in-stranger", "in-resets"], ["out-client", "out-stranger", "out-resets"]];

/// Sets the counters of the kernel server up.
pub fn count_at(server: &Namespace) {
    let mut rules = String::from("table inet lab {\n");
    for name in COUNTERS.as_flattened() {
        rules += &format!("counter {name} {{ }}\n");
    }
    for ([client, stranger, resets], (hook, side)) in
        COUNTERS.into_iter().zip([("prerouting", "saddr"), ("postrouting", "daddr")])
    {
        rules += &format!(
            "chain {hook} {{\ntype filter hook {hook} priority -300\nmeta l4proto != {{ tcp, udp }} accept\n\
             tcp flags & rst == rst counter name {resets} accept\n\
             ip {side} {} counter name {client} accept\nip6 {side} {} counter name {client} accept\n\
             counter name {stranger}\n}}\n",
            CLIENT[0], CLIENT[1]
        );
    }
    let dir = tempfile::tempdir().unwrap();
    nft(server, dir.path(), &(rules + "}\n"));
}

/// Returns what the kernel server has got and sent.
fn at_server(server: &Namespace) -> [Sums; 2] {
    let list: serde_json::Value = serde_json::from_str(&at(server, "nft -j list counters")).unwrap();
    let rows = list["nftables"].as_array().unwrap();
    let value = |name: &str| {
        let row = rows.iter().find(|row| row["counter"]["name"] == name);
        row.and_then(|row| row["counter"]["packets"].as_u64()).unwrap_or_else(|| panic!("no counter {name}"))
    };
    COUNTERS.map(|names| {
        let [client, stranger, resets] = names.map(value);
        Sums { client, stranger, resets }
    })
}

/// Returns the packets that the devices of a namespace could not take or pass on, by device.
pub fn dropped_by_devices(namespace: &Namespace) -> Vec<(String, u64)> {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let device = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map(|n| n.parse().unwrap()).collect();
        // The fourth column of those for what was received, and the fourth for what was to be sent.
        Some((name.trim().to_owned(), numbers[3] + numbers[11]))
    };
    text.lines().filter_map(device).collect()
}

/// What all counters say at a moment.
#[derive(Debug)]
pub struct Page {
    client_sent: Sums,
    client_got: Sums,
    server_sent: Sums,
    server_got: Sums,
    devices: u64,
    engine: Option<Totals>,
}

/// What happened between two pages, in packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Of the measured clients, either way: entered the gateway and did not leave it.
    pub lost_of_clients: i64,
    /// The same of everybody.
    pub lost: i64,
    /// What the devices lost.
    pub by_devices: i64,
    /// What the gateway decided to drop or to answer itself: what was lost and not by a device.
    pub by_decision: i64,
    /// What the engine says that it dropped or consumed; `None` if it is no engine.
    pub engine_says: Option<i64>,
    /// Resets that reached the clients' side, minus those that servers sent: the gateway's own.
    pub resets: i64,
}

impl Lab {
    /// Reads all counters. Nothing is to be under way.
    pub fn page(&self, engine: Option<Totals>) -> Page {
        let [kernel_got, kernel_sent] = at_server(&self.server);
        let devices = [&self.gateway, &self.server].into_iter().flat_map(dropped_by_devices).map(|(_, n)| n).sum();
        Page {
            client_sent: self.counts.client_sent.now(),
            client_got: self.counts.client_got.now(),
            server_sent: kernel_sent.plus(self.counts.server_sent.now()),
            server_got: kernel_got.plus(self.counts.server_got.now()),
            devices,
            engine,
        }
    }
}

impl Page {
    /// Returns how many packets the strangers sent since.
    pub fn strangers_since(&self, before: &Page) -> u64 {
        self.client_sent.stranger - before.client_sent.stranger
    }

    /// Returns what happened since.
    pub fn since(&self, before: &Page) -> Account {
        let to_server = (self.client_sent - before.client_sent, self.server_got - before.server_got);
        let to_client = (self.server_sent - before.server_sent, self.client_got - before.client_got);
        let lost = |of: fn(Sums) -> u64| -> i64 {
            [to_server, to_client].into_iter().map(|(entered, left)| signed(of(entered)) - signed(of(left))).sum()
        };
        let resets = lost(|sums| sums.resets);
        let everybodys = lost(Sums::all) + resets.max(0);
        let by_devices = signed(self.devices - before.devices);
        let says = |totals: &Totals| signed(totals.engine.dropped() + totals.engine.consumed());
        let (now, then) = (self.engine.as_ref().map(says), before.engine.as_ref().map(says));
        Account {
            lost_of_clients: lost(|sums| sums.client),
            lost: everybodys,
            by_devices,
            by_decision: everybodys - by_devices,
            engine_says: now.zip(then).map(|(now, then)| now - then),
            resets: (signed(to_client.1.resets) - signed(to_client.0.resets)).max(0),
        }
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap()
}

/// Returns a value of the gateway's conntrack: `count` or `max`.
pub fn conntrack(gateway: &Namespace, what: &str) -> u64 {
    let file = Path::new("/proc/sys/net/netfilter").join(format!("nf_conntrack_{what}"));
    gateway.run(|| std::fs::read_to_string(&file)).unwrap().unwrap().trim().parse().unwrap()
}
