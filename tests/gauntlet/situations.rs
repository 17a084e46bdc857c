//! The situations: what administrators do to a gateway, before the balancer starts and while it runs.

use crate::Kind;
use crate::network::Network;
use crate::questions::{self, Question};

/// A kind of gateway.
pub struct Situation {
    pub name: &'static str,
    /// Makes it so, before the balancer starts.
    pub make: fn(&Network),
    /// What happens a second before the questions are asked.
    pub event: Option<fn(&Network, Kind)>,
    /// What it is asked.
    pub questions: &'static [Question],
}

/// All of them.
pub const ALL: [Situation; 17] = [
    usual("plain", |_| {}),
    usual("masquerade towards clients", |net| masquerade(net, "oifname \"client\" masquerade")),
    usual("masquerade of the servers' addresses", |net| {
        servers_are_private(net);
        net.nft(&nat("ip saddr 10.99.0.0/16 oifname != \"server*\" masquerade", "ip"));
        net.nft(&nat("ip6 saddr fd99::/32 oifname != \"server*\" masquerade", "ip6"));
    }),
    usual("masquerade of everything", |net| masquerade(net, "masquerade")),
    Situation {
        name: "the kernel forgets a UDP flow",
        make: |net| {
            masquerade(net, "oifname \"client\" masquerade");
            for name in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
                net.world.gateway.sysctl(&format!("net/netfilter/{name}"), "1").unwrap();
            }
        },
        event: None,
        questions: &[questions::SLOW],
    },
    usual("firewall: ct state, FORWARD drop", firewall),
    usual("rp_filter strict everywhere", |net| reverse_path(net, &["all", "default", "client"], "1")),
    usual("rp_filter loose everywhere", |net| reverse_path(net, &["all", "default", "client"], "2")),
    usual("rp_filter strict towards clients", |net| reverse_path(net, &["client"], "1")),
    usual("reverse path of IPv6 checked by nftables", |net| {
        net.nft(
            "table inet paths {\nchain check {\ntype filter hook prerouting priority -140\n\
             icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept\n\
             meta nfproto ipv6 fib saddr . mark . iif oif missing drop\n}\n}\n",
        );
    }),
    usual("masquerade, firewall and loose rp_filter", |net| {
        masquerade(net, "oifname \"client\" masquerade");
        firewall(net);
        reverse_path(net, &["all", "default"], "2");
    }),
    eventful("masquerade that comes later", |net, _| masquerade(net, "oifname \"client\" masquerade")),
    eventful("a firewall that comes later", |net, _| firewall(net)),
    eventful("all policy rules are flushed", |net, _| {
        for family in ["-4", "-6"] {
            net.ip(&format!("{family} rule flush"));
            // The system's own, which everything needs.
            net.ip(&format!("{family} rule add priority 32766 lookup main"));
        }
        net.ip("-4 rule add priority 32767 lookup default");
    }),
    eventful("the routes to services are deleted", |net, kind| {
        if kind == Kind::Equipoise {
            net.ip("-4 route delete 192.0.2.80 dev equipoise0");
            net.ip("-6 route delete 2001:db8:80::80 dev equipoise0");
        }
    }),
    eventful("the device goes down and up", |net, kind| {
        if kind == Kind::Equipoise {
            net.ip("link set equipoise0 down");
            net.ip("link set equipoise0 up");
        }
    }),
    eventful("the device is deleted", |net, kind| {
        if kind == Kind::Equipoise {
            net.ip("link delete equipoise0");
        }
    }),
];

const fn usual(name: &'static str, make: fn(&Network)) -> Situation {
    Situation { name, make, event: None, questions: &questions::ALL }
}

const fn eventful(name: &'static str, event: fn(&Network, Kind)) -> Situation {
    Situation { name, make: |_| {}, event: Some(event), questions: &questions::ALL }
}

fn nat(rule: &str, family: &str) -> String {
    format!("table {family} masquerading {{\nchain out {{\ntype nat hook postrouting priority srcnat\n{rule}\n}}\n}}\n")
}

/// Clients' networks know no way to the servers' addresses, which is why there is a masquerade: whatever servers send of
/// their own accord must come from the gateway.
fn servers_are_private(network: &Network) {
    network.nft_of(
        &network.world.client,
        "table inet private {\nchain input {\ntype filter hook input priority filter\n\
         ct state new ip saddr 10.99.0.0/16 drop\nct state new ip6 saddr fd99::/32 drop\n}\n}\n",
    );
}

fn masquerade(network: &Network, rule: &str) {
    servers_are_private(network);
    network.nft(&nat(rule, "inet"));
}

/// A firewall that forwards nothing by itself: established connections, the servers' own, those translated by the kernel,
/// direct ones from clients, and what enters or leaves the balancer's device, as docs/firewall.md says.
fn firewall(network: &Network) {
    network.nft(
        "table inet firewall {\nchain forward {\ntype filter hook forward priority filter; policy drop\n\
         ct state invalid drop\nct state established,related accept\nct status dnat accept\n\
         iifname \"equipoise0\" accept\noifname \"equipoise0\" accept\n\
         iifname \"server*\" oifname \"client\" accept\niifname \"client\" oifname \"server*\" accept\n}\n}\n",
    );
}

fn reverse_path(network: &Network, devices: &[&str], value: &str) {
    for device in devices {
        network.world.gateway.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), value).unwrap();
    }
}
