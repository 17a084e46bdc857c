//! What somebody else removes from the system or puts in the way: it is restored within a second, reported once, and
//! told by `eqctl status`.

mod live_check;

use crate::world::{Running, SERVICE, Stopping, World, eventually, program, run};
use crate::{Service, WEB};
use equipoise::control::Status;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The rules that every system has beside the first.
const SYSTEM_RULES: &str = "rule add priority 32766 lookup main\nrule add priority 32767 lookup default\n";

/// Runs `ip` in the gateway, several commands at once, as a daemon would.
fn ip(world: &World, family: &str, commands: &str) {
    let file = world.dir.path().join("batch");
    std::fs::write(&file, commands).unwrap();
    let mut command = world.gateway.command(program("ip").to_str().unwrap());
    let output = run(command.args([family, "-force", "-batch"]).arg(file));
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns what `eqctl status --json` says, and its exit code.
fn status(world: &World) -> (Status, Option<i32>) {
    let output = world.eqctl_raw(&["status", "--json"]);
    let said = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e} in {said}")), output.status.code())
}

/// Returns the lines of the log about lost and restored parts.
fn lines(world: &World) -> Vec<String> {
    let log = world.log();
    let about = ["restored", "no effect", "works again"];
    log.lines().filter(|line| about.iter().any(|words| line.contains(words))).map(str::to_owned).collect()
}

/// A request of each family, each within a second.
fn serves_within_a_second(world: &World, after: &str) {
    for family in [0, 1] {
        let began = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let output = run(world.curl(family, "").args(["--connect-timeout", "0.3"]));
            if output.status.success() {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "after {after}, family {family}, {tries} tries: {}\n{}",
                String::from_utf8_lossy(&output.stderr),
                world.log()
            );
        }
    }
}

/// Downloads of both families in progress.
fn downloads(world: &World) -> [Running; 2] {
    let curls = [0, 1].map(|family| Running::start(world.curl(family, "big").args(["-o", "/dev/null"])));
    eventually("downloads under way", || {
        world.flows(&["--service", "web"]).iter().filter(|r| r.bytes_out > 10_000).count() >= 2
    });
    curls
}

/// A service whose connections say nothing on their own. Those of a download may end: what a server sends while rules or
/// routes are missing reaches its client untranslated, and the client resets it.
const QUIET: Service = ("quiet", "7/tcp", 1, 7777);

/// Connections of both families to [`QUIET`], each with the server's end.
fn quiet(world: &World) -> Vec<(TcpStream, TcpStream)> {
    let pair = |family: usize| {
        let at = (World::server_address(1, family), QUIET.3);
        let listener = world.servers[0].run(|| TcpListener::bind(at)).unwrap().unwrap();
        let client = world.client.run(|| TcpStream::connect((SERVICE[family], 7))).unwrap().unwrap();
        let server = listener.accept().unwrap().0;
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        (client, server)
    };
    [0, 1].map(pair).into()
}

/// Sends something through each connection in both directions.
fn live(pairs: &mut [(TcpStream, TcpStream)], after: &str) {
    for (client, server) in pairs {
        let mut text = [0; 4];
        client.write_all(b"ping").unwrap();
        server.read_exact(&mut text).unwrap_or_else(|e| panic!("after {after}: {e}"));
        server.write_all(b"pong").unwrap();
        client.read_exact(&mut text).unwrap_or_else(|e| panic!("after {after}: {e}"));
        assert_eq!(&text, b"pong");
    }
}

#[test]
fn whatever_another_program_removes_is_back_within_a_second_and_said_once() {
    let world = World::new("mend");
    let _nginx = world.nginx();
    let gateway = world.start(&world.configuration("", &[WEB, QUIET]));
    let mut pairs = quiet(&world);
    let system = world.system();
    let v4 = format!("rule flush\n{SYSTEM_RULES}");
    for (what, family, commands, parts) in [
        ("a flush of the IPv4 rules", "-4", v4.as_str(), "IPv4 rule"),
        ("a flush of the IPv6 rules", "-6", "rule flush\nrule add priority 32766 lookup main\n", "IPv6 rule"),
        ("a flush of our table", "-4", "route flush table 4242\n", "in table 4242"),
        ("a deleted route", "-4", "route delete 192.0.2.80 dev equipoise0\n", "route 192.0.2.80/32"),
        // It deletes until it finds nothing more.
        ("a flush of the device's routes", "-6", "route flush dev equipoise0 proto 69\n", "route 2001:db8:80::80/128"),
        ("a deleted fallback route", "-4", "route delete blackhole 192.0.2.80\n", "fallback route 192.0.2.80/32"),
    ] {
        let _downloads = downloads(&world);
        let (before, said) = (status(&world).0.repairs, lines(&world).len());
        ip(&world, family, commands);
        serves_within_a_second(&world, what);
        live(&mut pairs, what);
        eventually("its line in the log", || lines(&world).len() > said);
        let (after, code) = status(&world);
        assert!(after.repairs > before && after.troubles.is_empty() && code == Some(0), "{what}: {after:?}");
        std::thread::sleep(Duration::from_millis(600));
        let new = lines(&world).split_off(said);
        assert_eq!(new.len(), 1, "{what}: {new:#?}");
        assert!(new[0].contains(parts), "{what}: {new:?}");
        let last = after.last_repair.expect("a repair").what;
        assert!(new[0].contains(&last), "{what}: {last} in {new:?}");
        assert_eq!(sorted(&world.system()), sorted(&system), "{what}");
        world.flows(&["--service", "web"]).iter().for_each(|flow| world.change(&format!("kill {}", flow.id)));
    }
    assert!(gateway.terminate().success());
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_device_set_down_renamed_or_changed_is_as_before_within_a_second_with_its_routes() {
    for (name, commands) in [
        ("down", "link set equipoise0 down\n"),
        ("updown", "link set equipoise0 down\nlink set equipoise0 up\n"),
        ("rename", "link set equipoise0 down\nlink set equipoise0 name other\n"),
        ("mtu", "link set equipoise0 mtu 1400\n"),
        // With the last address the kernel removes all IPv4 routes of the device, and says nothing of them.
        ("address", "address delete 10.77.0.1/32 dev equipoise0\n"),
    ] {
        let world = World::new(name);
        let _nginx = world.nginx();
        let addresses = "addresses = [\"10.77.0.1/32\", \"fd77::1/128\"]";
        let _gateway = world.start(&world.configuration(addresses, &[WEB, QUIET]));
        let mut pairs = quiet(&world);
        let _downloads = downloads(&world);
        let system = world.system();
        ip(&world, "-4", commands);
        serves_within_a_second(&world, name);
        live(&mut pairs, name);
        eventually("its line in the log", || !lines(&world).is_empty());
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(lines(&world).len(), 1, "{name}: {:#?}", lines(&world));
        assert_eq!(sorted(&world.system()), sorted(&system), "{name}");
    }
}

/// How many queues of the device are in use, as `ip` shows it: none for a device with a single queue.
fn numqueues(world: &World) -> Option<String> {
    let output = run(world.gateway.command(program("ip").to_str().unwrap()).args(["-d", "link", "show", "equipoise0"]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("tun type tun"), "{text}");
    let words = || text.split_whitespace();
    words().skip_while(|word| *word != "multi_queue").skip_while(|word| *word != "numqueues").nth(1).map(str::to_owned)
}

#[test]
fn a_deleted_device_is_made_again_and_its_flows_go_on() {
    let world = World::new("unmade");
    let _nginx = world.nginx();
    for offload in ["offload = true", "offload = false"] {
        let gateway = world.start(&world.configuration(offload, &[WEB, QUIET]));
        let before = world.system();
        let queues = numqueues(&world);
        let mut pairs = quiet(&world);
        let _downloads = downloads(&world);
        ip(&world, "-4", "link delete equipoise0\n");
        serves_within_a_second(&world, "the deletion of the device");
        live(&mut pairs, "the deletion of the device");
        assert_eq!(numqueues(&world), queues);
        // The new device has another number.
        let names = |system: &str| sorted(system).iter().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&world.system()), names(&before));
        eventually("its line in the log", || !lines(&world).is_empty());
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(lines(&world).len(), 1, "{:#?}", lines(&world));
        assert!(gateway.terminate().success());
    }
}

#[test]
fn rules_deleted_again_and_again_are_restored_with_growing_pauses_and_mentioned_once() {
    let world = World::new("fight");
    let _nginx = world.nginx();
    let gateway = world.start(&world.configuration("", &[WEB]));
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let spent = || {
        // User and system time in clock ticks of 10 ms (proc_pid_stat(5)).
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.id())).unwrap();
        stat.rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|n| n.parse::<u64>().unwrap())
            .sum::<u64>()
    };
    let before = spent();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                ip(&world, "-4", &format!("rule flush\n{SYSTEM_RULES}"));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let _stopping = Stopping(&stop);
        eventually("a state that eqctl tells", || {
            let (now, code) = status(&world);
            assert_eq!(code, Some(if now.troubles.is_empty() { 0 } else { 3 }), "{now:?}");
            // It may be restored in between.
            let text = String::from_utf8(world.eqctl_raw(&["status"]).stdout).unwrap();
            now.troubles.iter().any(|row| row.times >= 4 && row.next_ms > Some(0))
                && text.contains("system     IPv4 rule \"priority 424")
                && text.contains(" time (for ")
        });
        std::thread::sleep(Duration::from_secs(6).saturating_sub(began.elapsed()));
    });
    let ticks = spent() - before;
    assert!(ticks < 100, "it used {ticks}0 ms of processor time in 6 s");
    let said = lines(&world);
    let rules = said.iter().filter(|line| line.contains("was gone") || line.contains("were gone")).count();
    assert_eq!(rules, 1, "{said:#?}");
    let again = said.iter().filter(|line| line.contains("gone again soon")).count();
    assert_eq!((again, said.len()), (1, 2), "{said:#?}");
    // With the other daemon gone, the next repair lasts.
    eventually("the last repair", || status(&world).0.troubles.is_empty());
    serves_within_a_second(&world, "the end of the fight");
}

#[test]
fn a_service_address_that_somebody_assigns_is_named_and_works_again_after_it() {
    let world = World::new("hidden");
    let _nginx = world.nginx();
    let _gateway = world.start(&world.configuration("", &[WEB]));
    ip(&world, "-4", "address add 192.0.2.80/32 dev client\n");
    eventually("exit code 3", || status(&world).1 == Some(3));
    let (now, _) = status(&world);
    assert!(now.troubles[0].what.contains("192.0.2.80 is an address of interface client"), "{now:?}");
    assert!(now.troubles[0].what.contains("ip address delete 192.0.2.80/32 dev client"), "{now:?}");
    eventually("its line", || lines(&world).len() == 1);
    ip(&world, "-4", "address delete 192.0.2.80/32 dev client\n");
    eventually("exit code 0", || status(&world).1 == Some(0));
    serves_within_a_second(&world, "the removal of the address");
    let said = lines(&world);
    assert!(said.len() == 2 && said[1].contains("works again after"), "{said:#?}");
}

#[test]
fn an_interface_towards_servers_that_is_renamed_keeps_its_icmp_errors() {
    let world = World::new("uplink");
    let _nginx = world.nginx();
    // With marks there are no rules by interface.
    let _gateway = world.start_by(&world.configuration("", &[WEB]), crate::marks::WITHOUT_BPF);
    let rules = || {
        let output = run(world.gateway.command(program("ip").to_str().unwrap()).arg("rule"));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(rules().contains("iif server1"), "{}", rules());
    let began = Instant::now();
    ip(&world, "-4", "link set server1 name uplink9\n");
    eventually("the new name in the rules", || rules().contains("iif uplink9") && !rules().contains("iif server1"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    eventually("its line", || world.log().contains("uplink9"));
    assert_eq!(world.log().matches("uplink9").count(), 1, "{}", world.log());
    serves_within_a_second(&world, "the new name");
    assert_eq!(status(&world).1, Some(0));
}

#[test]
fn while_a_killed_gateway_restarts_a_connect_waits_and_no_packet_leaves_upstream() {
    let world = World::new("restart");
    let _nginx = world.nginx();
    // An upstream router that would get the packets back; here the client's side.
    for (family, via) in [("-4", "198.51.100.2"), ("-6", "2001:db8:c::2")] {
        ip(&world, family, &format!("route add default via {via}\n"));
    }
    let configuration = world.configuration("", &[WEB]);
    let routes = || {
        let show = |family| {
            let mut command = world.gateway.command(program("ip").to_str().unwrap());
            String::from_utf8(run(command.args([family, "route", "show", "type", "blackhole"])).stdout).unwrap()
        };
        show("-4") + &show("-6")
    };
    world.start(&configuration).kill();
    assert!(routes().contains("192.0.2.80") && routes().contains("2001:db8:80::80"), "{}", routes());
    let forwarded = |family: usize| {
        let file = ["net/snmp", "net/snmp6"][family];
        let text = world.gateway.run(|| std::fs::read_to_string(format!("/proc/thread-self/{file}"))).unwrap().unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("Ip"));
        if family == 1 {
            let line = lines.find(|line| line.starts_with("Ip6OutForwDatagrams")).unwrap();
            return line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        }
        let names = lines.next().unwrap().split_whitespace().position(|name| name == "ForwDatagrams").unwrap();
        lines.next().unwrap().split_whitespace().nth(names).unwrap().parse().unwrap()
    };
    let before = [0, 1].map(forwarded);
    let mut curls = [0, 1].map(|family| world.curl(family, "").spawn().unwrap());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!([0, 1].map(forwarded), before, "the SYNs end here");
    assert!(curls.iter_mut().all(|curl| curl.try_wait().unwrap().is_none()), "and are not refused");
    let gateway = world.start(&configuration);
    for curl in curls {
        let output = curl.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(gateway.terminate().success());
    assert_eq!(routes(), "");
    // Where it is asked for, they outlast a clean stop, and can be removed.
    let configuration = world.configuration("keep-fallback = true", &[WEB]);
    assert!(world.start(&configuration).terminate().success());
    assert!(routes().contains("192.0.2.80") && routes().contains("2001:db8:80::80"), "{}", routes());
    let output =
        run(world.gateway.command(env!("CARGO_BIN_EXE_equipoise")).args(["cleanup", "--config"]).arg(world.file()));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("removed 2 "), "{said}");
    assert_eq!(routes(), "");
}

#[test]
fn announced_addresses_are_found_by_hosts_of_a_connected_network_and_restored() {
    let world = World::new("announce");
    let _nginx = world.nginx();
    // The client is in the network of the service addresses and has no route to them.
    for (namespace, device, n) in [(&world.gateway, "client", 1), (&world.client, "eth0", 2)] {
        namespace.address(device, format!("192.0.2.{n}/24").parse().unwrap()).unwrap();
        namespace.address(device, format!("2001:db8:80::{n}/64").parse().unwrap()).unwrap();
    }
    let silent = world.start(&world.configuration("", &[WEB]));
    let log = world.log();
    assert!(log.contains("192.0.2.80 is in 192.0.2.0/24, to which client is connected"), "{log}");
    assert!(!run(world.curl(0, "").args(["--max-time", "2"])).status.success(), "nobody answers ARP");
    assert!(silent.terminate().success());
    let before = world.system();
    let gateway = world.start(&world.configuration("announce = true", &[WEB]));
    assert!(!world.log().contains("is connected"), "{}", world.log());
    let entries = || {
        let mut command = world.gateway.command(program("ip").to_str().unwrap());
        let four = String::from_utf8(run(command.args(["-4", "neigh", "show", "proxy"])).stdout).unwrap();
        let mut command = world.gateway.command(program("ip").to_str().unwrap());
        four + &String::from_utf8(run(command.args(["-6", "neigh", "show", "proxy"])).stdout).unwrap()
    };
    let all = entries();
    assert!(all.contains("192.0.2.80 dev client") && all.contains("2001:db8:80::80 dev client"), "{all}");
    // The client's own entry for the address may still say that nobody answers.
    for family in [0, 1] {
        eventually("an answer", || run(world.curl(family, "").args(["--max-time", "3"])).status.success());
    }
    // The kernel removes entries with the interface's state and says nothing about them; and its IPv6 addresses.
    ip(
        &world,
        "-6",
        "link set client down\nlink set client up\naddress add 2001:db8:80::1/64 dev client nodad\naddress add 2001:db8:c::1/64 dev client nodad\n",
    );
    eventually("the entries after the interface was down", || entries() == all);
    // Nobody tells that an entry is deleted: it is seen at the next round.
    ip(&world, "-4", "neigh delete proxy 192.0.2.80 dev client\n");
    eventually("the entry", || entries() == all);
    assert_eq!(status(&world).1, Some(0));
    assert!(gateway.terminate().success());
    assert_eq!((entries().as_str(), sorted(&world.system())), ("", sorted(&before)));
    assert_eq!(
        world.gateway.run(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/client/proxy_ndp")).unwrap().unwrap(),
        "0\n"
    );
}

#[test]
fn forwarding_that_is_switched_off_is_told_within_a_second_and_works_again() {
    let world = World::new("forwarding");
    let _nginx = world.nginx();
    let _gateway = world.start(&world.configuration("", &[WEB]));
    for (name, dotted) in [
        ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
        ("net/ipv4/conf/server1/forwarding", "net/ipv4/conf/server1/forwarding"),
    ] {
        let said = lines(&world).len();
        let began = Instant::now();
        world.gateway.sysctl(name, "0").unwrap();
        eventually("exit code 3", || status(&world).1 == Some(3));
        assert!(began.elapsed() < Duration::from_secs(1), "{name}: {:?}", began.elapsed());
        let (now, _) = status(&world);
        let want = format!("to fix it: sysctl -w {dotted}=1");
        assert!(now.troubles.iter().any(|row| row.what.contains(&want) && row.next_ms.is_none()), "{now:?}");
        eventually("its line", || world.log().contains(&want));
        let began = Instant::now();
        world.gateway.sysctl(name, "1").unwrap();
        eventually("exit code 0", || status(&world).1 == Some(0));
        assert!(began.elapsed() < Duration::from_secs(1), "{name}: {:?}", began.elapsed());
        eventually("its line", || {
            lines(&world)[said..].iter().any(|line| line.contains("forwarding") && line.contains("works again"))
        });
        serves_within_a_second(&world, name);
    }
}
