//! The keeper on a real namespace.

use super::*;
use crate::control::Trouble;
use crate::gateway::setup::Interfaces;
use crate::gateway::testing::{ip, namespace, tun, two_families};

/// Lets the keeper do all that is due within this time from `now` on; returns the time after it.
fn run(keeper: &mut Keeper, installed: &mut Installed, from: u64, millis: u64) -> u64 {
    for now in from..from + millis {
        let at = Instant::ZERO + Duration::from_millis(now);
        while keeper.take_news(installed) {}
        while keeper.work(installed, at) != Work::Done {}
    }
    from + millis
}

/// The same for as long as it takes, at most two seconds: on a busy machine a look, and so the rest after it, takes longer,
/// and the kernel adds the route of an IPv6 address a moment after the address.
fn run_until(keeper: &mut Keeper, installed: &mut Installed, mut now: u64, done: impl Fn(&[Trouble]) -> bool) -> u64 {
    for _ in 0..20 {
        now = run(keeper, installed, now, 100);
        if done(&keeper.state().troubles) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    now
}

#[test]
fn nothing_is_missing_of_what_was_just_installed() {
    let Some(ns) = namespace("eq-keep1") else { return };
    ns.forward().unwrap();
    ns.run(|| {
        let mut settings = two_families();
        settings.gateway.addresses = vec!["10.77.0.1/32".parse().unwrap(), "fd77::1/128".parse().unwrap()];
        let mut keeper = Keeper::new().unwrap();
        let _tun = tun("eqtest0");
        let names = |v4: &[&str], v6: &[&str]| [v4, v6].map(|n| n.iter().map(|n| (*n).to_owned()).collect());
        let interfaces: Interfaces = names(&["eth0"], &["eth0", "eth1"]);
        let mut installed = Installed::install(&settings, "eqtest0", &interfaces).unwrap();
        keeper.follow(&installed);
        run(&mut keeper, &mut installed, 0, 25_000);
        assert_eq!(**keeper.state(), SystemState::default());
        assert!(keeper.looks.is_empty(), "its own looks are no news: {:?}", keeper.looks);
    })
    .unwrap();
}

#[test]
fn whatever_is_deleted_is_restored_at_once() {
    let Some(ns) = namespace("eq-keep2") else { return };
    ns.forward().unwrap();
    ns.run(|| {
        let mut settings = two_families();
        settings.gateway.addresses = vec!["10.77.0.1/32".parse().unwrap(), "fd77::1/128".parse().unwrap()];
        let mut keeper = Keeper::new().unwrap();
        let _tun = tun("eqtest0");
        let mut installed = Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap();
        keeper.follow(&installed);
        let mut now = run(&mut keeper, &mut installed, 0, 10);
        // Two families: 4 answer rules, 2 rules of the device; default route, service route, fallback.
        for (commands, parts) in [
            (&["rule flush", "rule add priority 32766 lookup main", "rule add priority 32767 lookup default"][..], 6),
            (&["-6 rule flush", "-6 rule add priority 32766 lookup main"], 6),
            // IPv4 keeps the address and both families their fallback routes.
            (&["link set eqtest0 down"], 6),
            (&["route flush table 4242", "-6 route flush table 4242"], 2),
            (&["route delete 192.0.2.10 proto 69 metric 0", "-6 route delete 2001:db8::10 dev eqtest0"], 2),
            (&["route delete blackhole 192.0.2.10", "-6 route delete blackhole 2001:db8::10"], 2),
            (&["address delete 10.77.0.1/32 dev eqtest0", "-6 address delete fd77::1/128 dev eqtest0"], 4),
            (&["link set eqtest0 mtu 1400"], 1),
            (&["link set eqtest0 down", "link set eqtest0 name other"], 6),
        ] {
            let before = keeper.state().repairs;
            commands.iter().for_each(|words| ip(words));
            // More than a quiet minute, so that each is a first loss; at a later round nothing is left to do.
            now = run(&mut keeper, &mut installed, now, 150);
            assert_eq!(keeper.state().repairs - before, parts, "{commands:?}: {:?}", keeper.state());
            assert_eq!(keeper.state().troubles, [], "{commands:?}");
            now = run(&mut keeper, &mut installed, now + 61_000, 50);
            assert_eq!(keeper.state().repairs - before, parts, "{commands:?}: {:?}", keeper.state());
        }
        installed.remove().unwrap();
        assert_eq!(crate::gateway::setup::count_marked(PROTOCOL).unwrap(), 0);
    })
    .unwrap();
}

#[test]
fn what_takes_the_packets_of_a_route_is_named_and_never_removed() {
    let (Some(ns), Some(far)) = (namespace("eq-keep3"), namespace("eq-keep3-far")) else { return };
    ns.forward().unwrap();
    ns.cable("eth0", &far, "eth0").unwrap();
    ns.run(|| {
        let settings = two_families();
        let mut keeper = Keeper::new().unwrap();
        let _tun = tun("eqtest0");
        let mut installed = Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap();
        keeper.follow(&installed);
        let mut now = run(&mut keeper, &mut installed, 0, 10);
        for (make, undo, want) in [
            (
                "address add 192.0.2.10/24 dev eth0",
                "address delete 192.0.2.10/24 dev eth0",
                "address delete 192.0.2.10/32",
            ),
            (
                "-6 address add 2001:db8::10/64 dev eth0 nodad",
                "-6 address delete 2001:db8::10/64 dev eth0",
                "an address of interface eth0",
            ),
            (
                "route replace 192.0.2.10 dev eth0",
                "route delete 192.0.2.10 dev eth0",
                "192.0.2.10/32 to eth0 in table 254",
            ),
            (
                "rule add priority 7 to 192.0.2.10 blackhole",
                "rule delete priority 7",
                "is there a policy rule for table main",
            ),
        ] {
            ip(make);
            now = run_until(&mut keeper, &mut installed, now, |troubles| !troubles.is_empty());
            let troubles = &keeper.state().troubles;
            assert!(troubles.len() == 1 && troubles[0].what.contains(want), "{make}: {troubles:?}");
            ip(undo);
            now = run_until(&mut keeper, &mut installed, now, <[_]>::is_empty);
            assert_eq!(keeper.state().troubles, [], "{undo}");
            now += 61_000;
        }
    })
    .unwrap();
}
