//! What an operator changes while traffic flows: draining, disabling, weights, loads, rules; and with them stickiness
//! and floors.

use crate::WEB;
use crate::world::{CLIENT, Lines, PROBES, Running, World, eventually, run};
use equipoise::balance::{Admin, Health, PickedBy};
use std::process::Command;
use std::time::{Duration, Instant};

/// Returns the number of the server that responds to a request.
fn answer(curl: &mut Command) -> usize {
    let output = run(curl);
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().expect("a server's number")
}

/// Returns the servers that respond to this many requests, one after another.
fn answers(world: &World, family: usize, count: usize) -> Vec<usize> {
    (0..count).map(|_| answer(&mut world.curl(family, ""))).collect()
}

fn count(all: &[usize], n: usize) -> usize {
    all.iter().filter(|server| **server == n).count()
}

/// Slow downloads, one per server, from server1 to server3.
fn downloads(world: &World) -> Vec<Running> {
    let mut all: Vec<(String, Running)> = Vec::new();
    for n in 1..=3 {
        let curl = Running::start(world.curl(0, "big").args(["-o", "/dev/null"]));
        eventually("a download under way", || {
            world.flows(&[]).iter().filter(|row| row.bytes_out > 10_000).count() == n
        });
        let rows = world.flows(&[]);
        let known = |server: &String| all.iter().any(|(name, _)| name == server);
        let row = rows.iter().find(|row| !known(&row.server)).expect("a server of its own");
        all.push((row.server.clone(), curl));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.into_iter().map(|(_, curl)| curl).collect()
}

/// Returns the bytes that a server has sent to clients.
fn sent(world: &World, n: usize) -> u64 {
    world.server_row(n).bytes_out
}

#[test]
fn a_draining_server_keeps_its_downloads_until_the_deadline_and_gets_nothing_else() {
    let world = World::new("drain");
    let _nginx = world.nginx();
    let _gateway = world.start(&world.probing(WEB, Lines::default()));
    let mut curls = downloads(&world);
    let began = Instant::now();
    world.change("server drain web/server1 --deadline 2s");
    assert_eq!(world.server_row(1).admin, Admin::Draining);
    let before = sent(&world, 1);
    for family in [0, 1] {
        assert_eq!(count(&answers(&world, family, 9), 1), 0, "family {family}");
    }
    eventually("the download to go on", || sent(&world, 1) > before + 20_000);
    assert!(began.elapsed() < Duration::from_secs(2), "otherwise this shows nothing");
    let ended = curls[0].wait("the download's end");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(ended.code(), Some(56), "curl: connection reset by peer");
    for told in [
        "server web/server1: the draining deadline has passed, 1 flows are ended",
        "server web/server1 is drained: its last flow has ended",
    ] {
        eventually(told, || world.log().contains(told));
    }
    assert!(curls[1].ended().is_none() && curls[2].ended().is_none(), "the others go on");
    world.change("server enable web/server1");
    assert_eq!(count(&answers(&world, 0, 9), 1), 3);

    // Without a deadline it is drained when the last flow has ended.
    world.change("server drain web/server2");
    let drained = "server web/server2 is drained";
    assert!(!world.log().contains(drained));
    for flow in world.flows(&["--server", "server2"]) {
        assert!(!world.log().contains(drained), "too early");
        world.change(&format!("kill {}", flow.id));
    }
    eventually("the end of draining", || world.log().contains(drained));
}

#[test]
fn disabling_and_weights_take_effect_at_once() {
    let world = World::new("disable");
    let _nginx = world.nginx();
    let lines = Lines { service: "on-down = \"reset\"", ..Lines::default() };
    let _gateway = world.start(&world.probing(WEB, lines));
    let mut curls = downloads(&world);
    world.change("server disable web/server1");
    assert_eq!(curls[0].wait("the download's end").code(), Some(56), "curl: connection reset by peer");
    assert_eq!(count(&answers(&world, 0, 9), 1), 0);
    assert_eq!(world.server_row(1).admin, Admin::Disabled);
    world.change("server enable web/server1");
    world.change("server weight web/server2 0");
    let all = answers(&world, 1, 10);
    assert_eq!([1, 2, 3].map(|n| count(&all, n)), [5, 0, 5]);
    world.change("server weight web/server2 2");
    let all = answers(&world, 0, 12);
    assert_eq!([1, 2, 3].map(|n| count(&all, n)), [3, 6, 3]);
    assert!(curls[1].ended().is_none() && curls[2].ended().is_none(), "a weight ends nothing");
    let output = world.eqctl_raw(&["server", "drain", "web/nobody"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("there is no server web/nobody; `eqctl servers`"), "{said}");
}

#[test]
fn loads_set_by_an_operator_steer_the_resource_usage_algorithm() {
    let world = World::new("load");
    let _nginx = world.nginx();
    let lines = Lines { service: "algorithm = \"resource-usage\"", ..Lines::default() };
    let _gateway = world.start(&world.probing(WEB, lines));
    let all = answers(&world, 0, 9);
    assert_eq!([1, 2, 3].map(|n| count(&all, n)), [3, 3, 3], "in turn until all have reported theirs");
    for (n, load) in [(1, 90), (2, 5), (3, 95)] {
        world.change(&format!("server load web/server{n} {load}"));
        assert_eq!(world.server_row(n).load, Some(load));
    }
    assert_eq!(count(&answers(&world, 0, 6), 2), 6);
    world.change("server load web/server2 5 --maintenance");
    assert!(world.server_row(2).maintenance);
    assert_eq!(count(&answers(&world, 1, 6), 2), 0);
    let output = world.eqctl_raw(&["server", "load", "web/server2", "101"]);
    assert!(!output.status.success());
}

#[test]
fn loads_that_servers_report_in_their_pages_steer_it_too() {
    let world = World::new("told");
    let _nginx = world.nginx();
    let tell = |n: usize, text: &str| std::fs::write(world.nginx_dir(n).join("health"), text).unwrap();
    for (n, text) in [(1, "load=50"), (2, "load=10"), (3, "load=60")] {
        tell(n, text);
    }
    let monitor = "[[pool.monitor]]\ntype = \"http\"\npath = \"/health\"\ninterval = \"200ms\"\ntimeout = \"1s\"\n\
                   load-regex = 'load=(?<load>[0-9]+)( (?<maintenance>yes))?'\n";
    let lines = Lines { service: "algorithm = \"resource-usage\"", rest: monitor, ..Lines::default() };
    let _gateway = world.start(&world.probing(WEB, lines));
    let loads = |want: [u8; 3]| {
        let what = format!("loads of {want:?}");
        eventually(&what, || (1..=3).all(|n| world.server_row(n).load == Some(want[n - 1])));
    };
    // For each flow assigned since the last report the gateway assumes a load of at most 5 %.
    loads([50, 10, 60]);
    assert_eq!(count(&answers(&world, 0, 6), 2), 6);
    tell(2, "load=99");
    tell(3, "load=0");
    loads([50, 99, 0]);
    assert_eq!(count(&answers(&world, 1, 6), 3), 6);
    tell(3, "load=1 yes");
    eventually("server3's wish to be left alone", || world.server_row(3).maintenance);
    assert_eq!(count(&answers(&world, 0, 6), 1), 6);
}

#[test]
fn rules_refuse_in_silence_or_aloud_and_are_switched_at_run_time() {
    let world = World::new("rules");
    let _nginx = world.nginx();
    let rule = |name: &str, action: &str| {
        let [v4, v6] = CLIENT;
        format!(
            "[[rule]]\nname = \"{name}\"\nfrom = [\"{v4}/32\", \"{v6}/128\"]\naction = \"{action}\"\nenabled = false\n"
        )
    };
    let rules = rule("silence", "drop") + &rule("no", "reject");
    let _gateway = world.start(&world.probing(WEB, Lines { rest: &rules, ..Lines::default() }));
    let [mut live, ..] = <[Running; 3]>::try_from(downloads(&world)).ok().expect("three");
    let code = |family| run(world.curl(family, "").args(["--max-time", "1"])).status.code();
    for family in [0, 1] {
        for (switch, want, what) in [
            ("", 0, "all rules are off"),
            ("rule no on", 7, "refused"),
            ("rule silence on", 28, "timed out: the first rule wins"),
            ("rule silence off", 7, "refused again"),
            ("rule no off", 0, "all rules are off again"),
        ] {
            if !switch.is_empty() {
                world.change(switch);
            }
            assert_eq!(code(family), Some(want), "family {family}: {what}");
        }
    }
    let rows = world.rules();
    let shown: Vec<_> = rows.iter().map(|row| (row.rule.as_str(), row.action.as_str(), row.enabled)).collect();
    assert_eq!(shown, [("silence", "drop", false), ("no", "reject", false)]);
    assert!(rows[0].matched >= 2 && rows[1].matched == 4, "{rows:?}");
    let totals = world.totals().engine;
    let rejected = totals.consumed.iter().find(|row| row.kind == equipoise::engine::Consumed::Rejected);
    assert_eq!(rejected.map(|row| row.count), Some(4));
    assert!(live.ended().is_none(), "a live flow is left alone");
    let output = world.eqctl_raw(&["rule", "none", "on"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("there is no rule none; `eqctl rules`"), "{said}");
}

#[test]
fn clients_stick_to_their_servers_until_these_are_drained() {
    let world = World::new("sticky");
    let _nginx = world.nginx();
    for address in ["198.51.100.3/24", "2001:db8:c::3/64"] {
        world.client.address("eth0", address.parse().unwrap()).unwrap();
    }
    let lines = Lines { service: "[service.sticky]\nby = \"address\"\nidle = \"5m\"", ..Lines::default() };
    let _gateway = world.start(&world.probing(WEB, lines));
    for (family, clients) in [[CLIENT[0], "198.51.100.3"], [CLIENT[1], "2001:db8:c::3"]].into_iter().enumerate() {
        let ask = |client: &str| answer(world.curl(family, "").args(["--interface", client]));
        let homes = clients.map(ask);
        assert_ne!(homes[0], homes[1], "the second client's turn is the next server's");
        for _ in 0..5 {
            assert_eq!(clients.map(ask), homes);
        }
        world.change(&format!("server drain web/server{}", homes[0]));
        let moved = ask(clients[0]);
        assert_ne!(moved, homes[0], "at once");
        assert_eq!(ask(clients[1]), homes[1], "the other client stays");
        world.change(&format!("server enable web/server{}", homes[0]));
        for _ in 0..5 {
            assert_eq!([ask(clients[0]), ask(clients[1])], [moved, homes[1]], "it has a home again");
        }
        // Nor does it return to a server whose absence it did not notice.
        let newest = || world.flows(&["--client", clients[1]]).into_iter().min_by_key(|row| row.age_ms).unwrap();
        assert_eq!(newest().picked_by, PickedBy::Stickiness);
        world.change(&format!("server drain web/server{}", homes[1]));
        world.change(&format!("server enable web/server{}", homes[1]));
        // The age of a TCP flow is exact to 67 ms.
        std::thread::sleep(Duration::from_millis(200));
        ask(clients[1]);
        assert_eq!(newest().picked_by, PickedBy::Algorithm, "a slot never outlives a drained server");
    }
}

#[test]
fn a_floor_keeps_one_server_in_when_the_monitor_loses_all() {
    let world = World::new("floor");
    let _nginx = world.nginx();
    let monitor = "[[pool.monitor]]\ntype = \"icmp\"\ninterval = \"100ms\"\ntimeout = \"200ms\"\nfall = 2\nrise = 2\n";
    let lines = Lines { pool: "floor = 1", rest: monitor, ..Lines::default() };
    let _gateway = world.start(&world.probing(WEB, lines));
    let probes = [format!("ip saddr {} drop", PROBES[0]), format!("ip6 saddr {} drop", PROBES[1])];
    for n in 1..=3 {
        world.deafen(n, &[&probes[0], &probes[1]]);
    }
    eventually("all monitors to say down", || world.monitors().iter().all(|row| row.verdict == Health::Down));
    let rows = world.monitors();
    for family in [0, 1] {
        let kept: Vec<_> =
            rows.iter().filter(|row| row.address.is_ipv6() == (family == 1) && row.kept_by_floor).collect();
        assert!(kept.len() == 1 && kept[0].state == Health::Up, "{rows:?}");
        let n: usize = kept[0].server.strip_prefix("server").unwrap().parse().unwrap();
        assert_eq!(answers(&world, family, 6), [n; 6]);
        let told = format!("server web/server{n} would be down ({}), but the floor", ["IPv4", "IPv6"][family]);
        eventually(&told, || world.log().contains(&told));
    }
    (1..=3).for_each(|n| world.mend(n));
    eventually("all servers to be up", || world.server_rows().iter().all(|row| row.health == Health::Up));
    assert!(world.monitors().iter().all(|row| !row.kept_by_floor));
    assert_eq!(count(&answers(&world, 0, 9), 1), 3);
}
