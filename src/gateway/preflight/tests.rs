//! Each problem by itself, in namespaces.

use super::*;
use crate::balance::{Listen, Protocol};
use crate::gateway::testing::{namespace, tun, two_families};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};

fn whats(settings: &Settings) -> String {
    check(settings).into_iter().map(|p| format!("{p}\n")).collect()
}

#[test]
fn all_problems_are_reported_at_once_with_their_commands() {
    let Some(ns) = namespace("eq-pre1") else { return };
    ns.address("lo", "192.0.2.10/32".parse().unwrap()).unwrap();
    let mut settings = two_families();
    settings.gateway.route_table = 254;
    let text = ns.run(|| whats(&settings)).unwrap();
    for want in [
        "sysctl -w net.ipv4.ip_forward=1",
        "sysctl -w net.ipv6.conf.all.forwarding=1",
        "ip address del 192.0.2.10 dev lo",
        "route-table 254",
    ] {
        assert!(text.contains(&want.replace(" del ", " delete ")), "{want} in:\n{text}");
    }
    assert_eq!(text.matches("to fix it").count(), 4, "{text}");
}

#[test]
fn each_problem_goes_away_by_its_own_command() {
    let Some(ns) = namespace("eq-pre2") else { return };
    ns.forward().unwrap();
    let settings = two_families();
    assert_eq!(ns.run(|| whats(&settings)).unwrap(), "");
}

#[test]
fn a_strict_reverse_path_check_on_every_device_is_only_a_warning() {
    let Some(ns) = namespace("eq-pre6") else { return };
    ns.forward().unwrap();
    let settings = two_families();
    let is_unmarked = Marks::with_room(&settings, 1).is_err();
    for (value, doubted) in [("0", false), ("1", is_unmarked), ("2", false)] {
        ns.sysctl("net/ipv4/conf/all/rp_filter", value).unwrap();
        assert_eq!(ns.run(|| doubts(&settings)).unwrap().len(), usize::from(doubted), "{value}");
        assert_eq!(ns.run(|| whats(&settings)).unwrap(), "", "{value}");
    }
}

#[test]
fn kernel_addresses_of_any_kind_are_refused_as_service_addresses() {
    let Some(ns) = namespace("eq-pre3") else { return };
    ns.forward().unwrap();
    ns.address("lo", "192.0.2.1/24".parse().unwrap()).unwrap();
    let cases = [
        ("127.0.0.1", "local address of the kernel"),
        ("192.0.2.1", "assigned"),
        ("192.0.2.255", "broadcast"),
        ("::1", "local address of the kernel"),
    ];
    for (address, want) in cases {
        let mut settings = two_families();
        settings.services[0].listen[0] = Listen::one(address.parse().unwrap(), Protocol::Tcp, 80, 80);
        let text = ns.run(|| whats(&settings)).unwrap();
        assert!(text.contains(address) && text.contains(want), "{address}: {text}");
    }
}

#[test]
fn a_service_on_every_address_is_refused_and_one_on_a_network_is_not() {
    let Some(ns) = namespace("eq-pre7") else { return };
    ns.forward().unwrap();
    ns.address("lo", "203.0.113.1/32".parse().unwrap()).unwrap();
    for (address, prefix, refused) in [("0.0.0.0", 0, true), ("::", 0, true), ("203.0.113.0", 24, false)] {
        let mut settings = two_families();
        let listen = &mut settings.services[0].listen[0];
        (listen.address, listen.prefix) = (address.parse().unwrap(), prefix);
        let text = ns.run(|| whats(&settings)).unwrap();
        assert_eq!(text.contains("listens on every address"), refused, "{address}: {text}");
        assert_eq!(text.matches("to fix it").count(), usize::from(refused), "{text}");
    }
}

#[test]
fn a_device_of_another_kind_or_in_use_is_refused() {
    let Some(ns) = namespace("eq-pre4") else { return };
    ns.forward().unwrap();
    let mut settings = two_families();
    let text = ns
        .run(|| {
            let _open = tun("eqtest0");
            whats(&settings)
        })
        .unwrap();
    assert!(text.contains("a process has the gateway's device eqtest0 open"), "{text}");
    settings.gateway.device = "lo".into();
    let text = ns.run(|| whats(&settings)).unwrap();
    assert!(text.contains("is not a TUN device"), "{text}");
}

#[test]
fn a_missing_capability_is_reported() {
    let Some(ns) = namespace("eq-pre5") else { return };
    ns.forward().unwrap();
    let text = ns.run(|| {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective.remove(rustix::thread::CapabilitySet::NET_ADMIN);
        rustix::thread::set_capabilities(None, sets).unwrap();
        whats(&two_families())
    });
    let text = text.unwrap();
    assert!(text.contains("CAP_NET_ADMIN") && text.matches("to fix it").count() == 1, "{text}");
}

fn doubted(settings: &Settings) -> String {
    doubts(settings).into_iter().chain(firewalls(settings)).map(|p| format!("{p}\n")).collect()
}

fn shell(words: &str) {
    let output = std::process::Command::new("sh").args(["-c", words]).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn addresses_in_connected_networks_need_an_announcement() {
    let (Some(ns), Some(far)) = (namespace("eq-pre8"), namespace("eq-pre8-far")) else { return };
    ns.cable("eth0", &far, "eth0").unwrap();
    let mut settings = two_families();
    assert_eq!(ns.run(|| doubted(&settings)).unwrap(), "");
    ns.address("eth0", "192.0.2.1/24".parse().unwrap()).unwrap();
    ns.address("eth0", "2001:db8::1/64".parse().unwrap()).unwrap();
    let text = ns.run(|| doubted(&settings)).unwrap();
    for want in [
        "service address 192.0.2.10 is in 192.0.2.0/24, to which eth0 is connected",
        "service address 2001:db8::10 is in 2001:db8::/64, to which eth0 is connected",
        "set announce = true",
    ] {
        assert!(text.contains(want), "{want} in: {text}");
    }
    settings.gateway.announce = true;
    assert_eq!(ns.run(|| doubted(&settings)).unwrap(), "");
}

#[test]
fn earlier_rules_that_take_the_replies_of_servers_are_named_and_others_are_not() {
    let (Some(ns), Some(far)) = (namespace("eq-pre9"), namespace("eq-pre9-far")) else { return };
    ns.cable("eth0", &far, "eth0").unwrap();
    ns.address("eth0", "10.9.0.1/24".parse().unwrap()).unwrap();
    ns.address("eth0", "fd09::1/64".parse().unwrap()).unwrap();
    let settings = two_families();
    ns.run(|| {
        shell("ip route add default via 10.9.0.254 table 100; ip route add 10.50.0.0/16 via 10.9.0.254 table 101");
        shell("ip -6 route add default via fd09::fe table 100");
        for (rule, taken) in [
            ("rule add priority 50 from 10.9.0.0/24 lookup 100", true),
            ("-6 rule add priority 50 lookup 100", true),
            ("rule add priority 50 from 10.9.0.5 unreachable", true),
            ("rule add priority 1 lookup 100", true),
            // Without a default route, for others, for marks, behind those of the gateway.
            ("rule add priority 50 from 10.9.0.0/24 lookup 101", false),
            ("rule add priority 50 from 10.8.0.0/16 lookup 100", false),
            ("rule add priority 50 fwmark 7 lookup 100", false),
            ("rule add priority 50 iif lo lookup 100", false),
            ("rule add priority 5000 from 10.9.0.0/24 lookup 100", false),
            ("rule add priority 50 lookup 100 suppress_prefixlength 0", false),
        ] {
            shell(&format!("ip {rule}"));
            let text = doubted(&settings);
            assert_eq!(text.contains("takes the replies of server"), taken, "{rule}: {text}");
            assert_eq!(text.matches("to fix it").count(), usize::from(taken), "{rule}: {text}");
            let family = if rule.starts_with("-6") { "-6 " } else { "" };
            let priority = rule.split("priority ").nth(1).unwrap().split(' ').next().unwrap();
            shell(&format!("ip {family}rule delete priority {priority}"));
        }
    })
    .unwrap();
}

#[test]
fn interfaces_with_larger_super_packets_than_the_device_takes_are_named() {
    let (Some(ns), Some(far)) = (namespace("eq-pre10"), namespace("eq-pre10-far")) else { return };
    ns.cable("eth0", &far, "eth0").unwrap();
    let settings = two_families();
    ns.run(|| {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link("eth0").unwrap().unwrap().index;
        let mut limit = |limit: LinkAttribute| {
            netlink.set_link("eth0", index, LinkFlags::empty(), LinkFlags::empty(), vec![limit]).unwrap();
        };
        for (of, word) in [
            (LinkAttribute::GsoMaxSize as fn(u32) -> LinkAttribute, "gso_max_size"),
            (LinkAttribute::GroMaxSize, "gro_max_size"),
            (LinkAttribute::GsoIpv4MaxSize, "gso_ipv4_max_size"),
            (LinkAttribute::GroIpv4MaxSize, "gro_ipv4_max_size"),
        ] {
            limit(of(185_000));
            let text = doubted(&settings);
            assert!(text.contains("interface eth0 makes super-packets of up to 185000 bytes"), "{word}: {text}");
            assert!(text.ends_with(&format!("ip link set eth0 {word} 65536\n")), "{text}");
            limit(of(65_536));
            assert_eq!(doubted(&settings), "", "{word}");
        }
    })
    .unwrap();
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_named_and_its_remedy_works() {
    let Some(ns) = namespace("eq-pre11") else { return };
    let settings = two_families();
    ns.run(|| {
        let made = "nft add table inet t; nft add chain inet t f '{ type filter hook forward priority 0; policy drop; }'; \
                    nft add rule inet t f ct state established,related accept; nft add rule inet t f iifname eth7 accept";
        shell(made);
        let text = doubted(&settings);
        assert!(text.contains("chain f of table inet t has policy drop"), "{text}");
        shell(text.split("to fix it: ").nth(1).unwrap());
        assert_eq!(doubted(&settings), "");
    })
    .unwrap();
}

#[test]
fn other_gateways_are_named_where_they_are_in_conflict_and_rules_that_use_the_bits_of_the_mark() {
    let (Some(ns), Some(far)) = (namespace("eq-pre12"), namespace("eq-pre12-far")) else { return };
    ns.cable("eth0", &far, "eth0").unwrap();
    ns.address("eth0", "10.9.0.1/24".parse().unwrap()).unwrap();
    let settings = two_families();
    let marks = Marks::with_room(&settings, 1).is_ok();
    ns.run(|| {
        let server = settings.servers[0].v4.unwrap();
        for (rule, routed, want) in [
            (
                "rule add priority 50 fwmark 0x10000000/0x10000000 lookup 77 protocol 69",
                true,
                marks.then_some("marks packets"),
            ),
            ("rule add priority 50 fwmark 0x10000000/0x10000000 lookup 77 protocol 69", false, None),
            ("rule add priority 50 from SERVER lookup 77 protocol 69", true, Some("has server")),
            ("rule add priority 5000 from SERVER lookup 77 protocol 69", true, (!marks).then_some("has server")),
            ("rule add priority 50 from 10.8.0.1 lookup 77 protocol 69", true, None),
            ("rule add priority 50 iif eth0 ipproto icmp lookup 77 protocol 69", true, None),
            ("rule add priority 50 fwmark 0x20000000/0xf0000000 lookup 77", true, marks.then_some("looks at bits")),
            ("rule add priority 5000 fwmark 0x10000000 lookup 77", true, marks.then_some("looks at bits")),
            ("rule add priority 50 fwmark 0x1000/0xf000 lookup 77", true, None),
            ("rule add priority 50 not fwmark 0xca6c lookup 77", true, Some("takes the replies of server")),
            ("rule add priority 50 not fwmark 0xca6c lookup 77", false, None),
        ] {
            if routed {
                shell("ip route add default via 10.9.0.254 table 77");
            }
            let rule = rule.replace("SERVER", &server.to_string());
            shell(&format!("ip {rule}"));
            let text = doubted(&settings);
            assert_eq!(text.matches("to fix it").count(), usize::from(want.is_some()), "{rule}: {text}");
            assert!(text.contains(want.unwrap_or_default()), "{rule}: {text}");
            shell("ip rule flush; ip rule add priority 32766 lookup main; ip route flush table 77 2>/dev/null || true");
        }
    })
    .unwrap();
}
