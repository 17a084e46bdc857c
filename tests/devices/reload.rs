//! Another configuration while the gateway runs: by eqctl and by SIGHUP, right and wrong, under traffic.

use crate::WEB;
use crate::world::{Running, SERVICE, World, eventually, run};
use equipoise::gateway::netns::Namespace;
use rustix::process::Signal;
use std::net::UdpSocket;
use std::process::Stdio;
use std::time::Duration;

const DNS: (&str, &str, usize, u16) = ("dns", "53/udp", 1, 5353);

/// Puts another configuration in the place of the file, as an editor does.
fn replace(world: &World, configuration: &str) {
    let aside = world.dir.path().join("equipoise.toml.new");
    std::fs::write(&aside, configuration).unwrap();
    std::fs::rename(aside, world.file()).unwrap();
}

/// What `eqctl reload` says, and whether it succeeds.
fn reload(world: &World, words: &[&str]) -> (bool, String) {
    let output = world.eqctl_raw(&[&["reload"], words].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// Starts a gateway that reloads by SIGHUP, which whoever runs the tests may have ignored.
fn start(world: &World, configuration: &str) -> Running {
    world.start_by(configuration, &["env", "--default-signal=HUP"])
}

/// The servers in the configuration.
fn listed(world: &World) -> usize {
    world.server_rows().iter().filter(|row| !row.removed).count()
}

fn serves(world: &World) -> bool {
    [0, 1].iter().all(|family| run(&mut world.curl(*family, "")).status.success())
}

/// Slow downloads of both families.
fn downloads(world: &World) -> Vec<Running> {
    let slow = ["--limit-rate", "200k", "-o", "/dev/null"];
    let curls = [0, 1].map(|family| Running::start(world.curl(family, "big").args(slow).stderr(Stdio::null())));
    eventually("downloads under way", || {
        world.flows(&["--service", "web"]).iter().filter(|r| r.bytes_out > 10_000).count() >= 2
    });
    curls.into()
}

/// Routes to the gateway's device and rules that are the gateway's, of both families.
fn installed(world: &World) -> String {
    let ip = |words: &str| {
        let output = run(world.gateway.command("ip").args(words.split(' ')));
        String::from_utf8(output.stdout).unwrap()
    };
    ["-4 route show table all proto 69", "-6 route show table all proto 69", "-4 rule", "-6 rule"].map(ip).concat()
}

#[test]
fn servers_and_services_come_and_go_while_downloads_go_on() {
    let world = World::new("reload");
    let _nginx = world.nginx();
    let three = world.configuration("", &[WEB]);
    let one = world.configuration("", &[("web", "80/tcp", 1, 8080), DNS]);
    let gateway = start(&world, &three);
    let mut before = downloads(&world);
    let held: Vec<_> = world.flows(&["--service", "web"]).into_iter().map(|flow| (flow.client, flow.server)).collect();
    replace(&world, &one);
    let (done, said) = reload(&world, &[]);
    assert!(done, "{said}");
    for line in [
        "server web/server2: removed",
        "server web/server3: removed",
        "service dns: added",
        "server dns/server1: added",
    ] {
        assert!(said.contains(line), "want {line:?} in: {said}");
    }
    assert_eq!(listed(&world), 2);
    (0..4).for_each(|_| assert!(serves(&world)));
    let opened: u64 = world.server_rows().iter().filter(|row| row.pool == "web").map(|row| row.flows_total).sum();
    assert!(opened >= 8, "new connections go to the server that is left");
    // The routes are there for the new service, and its server answers through the gateway.
    let socket = |space: &Namespace, at: (&str, u16)| space.run(|| UdpSocket::bind(at).unwrap()).unwrap();
    let (server, client) = (socket(&world.servers[0], ("0.0.0.0", 5353)), socket(&world.client, ("0.0.0.0", 0)));
    [&server, &client].iter().for_each(|end| end.set_read_timeout(Some(Duration::from_millis(100))).unwrap());
    let mut bytes = [0; 9];
    eventually("an answer of the new service", || {
        client.send_to(b"question", (SERVICE[0], 53)).unwrap();
        let asked = server.recv_from(&mut bytes).map(|(_, from)| server.send_to(b"answer", from).unwrap());
        asked.is_ok()
            && client.recv_from(&mut bytes).is_ok_and(|(_, from)| from.to_string() == format!("{}:53", SERVICE[0]))
    });
    // SIGHUP, and back.
    replace(&world, &three);
    gateway.signal(Signal::HUP);
    eventually("the other configuration", || listed(&world) == 3);
    let now: Vec<_> = world.flows(&["--service", "web"]).into_iter().map(|flow| (flow.client, flow.server)).collect();
    assert!(held.iter().all(|flow| now.contains(flow)), "the downloads have stayed where they were: {held:?}, {now:?}");
    assert!(before.iter_mut().all(|download| download.ended().is_none()));
    let (done, said) = reload(&world, &[]);
    assert!(done && said == "no changes\n", "{said}");
    assert!(gateway.terminate().success());
    assert_eq!(installed(&world).matches("4242").count(), 0);
}

#[test]
fn a_wrong_file_changes_nothing_and_says_where_it_is_wrong() {
    let world = World::new("reload-bad");
    let _nginx = world.nginx();
    let right = world.configuration("", &[WEB]);
    let gateway = start(&world, &right);
    let during = (installed(&world), listed(&world));
    let with = |from: &str, to: &str| right.replacen(from, to, 1);
    for (what, text, want) in [
        ("no TOML", with("[gateway]", "[gateway"), "equipoise.toml:1:"),
        ("an unknown key", with("[flows]", "[flows]\nmaximum = 3"), "maximum"),
        ("no such pool", with("pool = \"web\"", "pool = \"wob\""), "wob"),
        (
            "another device",
            with("[gateway]", "[gateway]\ndevice = \"other0\""),
            "line 2: gateway: device \"equipoise0\" -> \"other0\"",
        ),
        ("a smaller table", with("max = 4096", "max = 4095"), "line 5: flows: max 4096 -> 4095 (at the next start)"),
        (
            "an address of this machine",
            with(SERVICE[0], "198.51.100.1"),
            "service address 198.51.100.1 is assigned to device client",
        ),
    ] {
        replace(&world, &text);
        let (done, said) = reload(&world, &[]);
        assert!(!done && said.contains(want), "{what}: want {want:?} in: {said}");
        gateway.signal(Signal::HUP);
        eventually(what, || world.log().matches(want).count() >= 2);
        assert_eq!((installed(&world), listed(&world)), during, "{what}");
        assert!(serves(&world), "{what}");
    }
    std::fs::remove_file(world.file()).unwrap();
    let (done, said) = reload(&world, &[]);
    assert!(!done && said.contains("no configuration file"), "{said}");
    // The rest of a file can be applied.
    replace(&world, &with("max = 4096", "max = 4095").replace("[[pool]]", "[[pool]]\nmtu = 1400"));
    let (done, said) = reload(&world, &["--partial"]);
    assert!(done && said.contains("not applied: line 5: flows: max") && said.contains("pool web: mtu"), "{said}");
    // All of this is in the history: who asked, by a signal nobody that is known.
    let history = String::from_utf8(world.eqctl_raw(&["history", "--wide"]).stdout).unwrap();
    let times = |by: &str, what: &str| {
        history.lines().filter(|line| line.contains(by) && line.contains(&format!("reload: {what}"))).count()
    };
    assert_eq!(times("uid 0, pid ", "nothing was changed: "), 7, "{history}");
    assert_eq!(times("gateway ", "nothing was changed: "), 6, "{history}");
    assert_eq!(times("uid 0, pid ", "pool web: mtu"), 1, "{history}");
    assert!(serves(&world) && gateway.terminate().success());
}

#[test]
fn a_removed_address_stays_routed_until_its_last_flow_has_ended() {
    let world = World::new("reload-old");
    let _nginx = world.nginx();
    let before = world.configuration("", &[WEB]);
    let gateway = start(&world, &before);
    let running = downloads(&world);
    let moved = before.replace(SERVICE[0], "192.0.2.81").replace(SERVICE[1], "2001:db8:80::81");
    replace(&world, &moved);
    let (done, said) = reload(&world, &[]);
    assert!(done && said.contains("service web: listen"), "{said}");
    let routes = installed(&world);
    for address in [SERVICE[0], "192.0.2.81", SERVICE[1], "2001:db8:80::81"] {
        assert!(routes.contains(&format!("{address} dev equipoise0")), "{address} in {routes}");
    }
    let refused = run(world.curl(0, "").args(["--connect-timeout", "3"]));
    assert_eq!(refused.status.code(), Some(7), "new connections to the old address are refused, not sent in circles");
    running.into_iter().for_each(Running::kill);
    // Their flows have been reset by then, which are kept for a while.
    world.flows(&[]).iter().for_each(|flow| assert!(world.eqctl_raw(&["kill", &flow.id.to_string()]).status.success()));
    eventually("the end of the old routes", || {
        !installed(&world).contains(SERVICE[0]) && !installed(&world).contains(SERVICE[1])
    });
    assert!(gateway.terminate().success());
    assert!(!installed(&world).contains("192.0.2.81"));
}

#[test]
fn flows_of_removed_servers_end_at_once_with_now() {
    let world = World::new("reload-now");
    let _nginx = world.nginx();
    let gateway = start(&world, &world.configuration("", &[WEB]));
    let mut running = downloads(&world);
    let used: Vec<String> = world.flows(&["--service", "web"]).into_iter().map(|flow| flow.server).collect();
    let mut text = world.configuration("", &[WEB]);
    for server in &used {
        let n = &server["server".len()..];
        text = text.replace(
            &format!(
                "[[pool.server]]\nname = \"{server}\"\naddress = [\"10.99.{n}.2\", \"fd99:0:0:{n}::2\"]\nport = 8080\n"
            ),
            "",
        );
    }
    replace(&world, &text);
    let (done, said) = reload(&world, &["--now"]);
    assert!(
        done && said.matches("removed").count() == used.iter().collect::<std::collections::BTreeSet<_>>().len(),
        "{said}"
    );
    running.iter_mut().for_each(|download| assert!(!download.wait("the reset of a download").success()));
    assert!(serves(&world) && gateway.terminate().success());
}

#[test]
fn what_took_the_place_of_the_file_is_waited_for_by_nobody_and_read_whoever_owns_it() {
    let world = World::new("reload-own");
    let _nginx = world.nginx();
    let text = world.configuration("", &[WEB]);
    let gateway = start(&world, &text);
    std::fs::remove_file(world.file()).unwrap();
    assert!(run(std::process::Command::new("mkfifo").arg(world.file())).status.success());
    let (done, said) = reload(&world, &[]);
    assert!(!done && said.contains("neither a file nor a link to one"), "{said}");
    std::fs::remove_file(world.file()).unwrap();
    std::fs::create_dir(world.file()).unwrap();
    let (done, said) = reload(&world, &[]);
    assert!(!done && said.contains("is a directory"), "{said}");
    std::fs::remove_dir(world.file()).unwrap();
    // Of another user, and for nobody else: root could read it at the start.
    replace(&world, &text.replace("[[pool]]", "[[pool]]\nmtu = 1400"));
    std::fs::set_permissions(world.file(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(world.file(), Some(65_534), Some(65_534)).unwrap();
    let (done, said) = reload(&world, &[]);
    assert!(done && said.contains("pool web: mtu"), "{said}");
    // What is left out is reported even if there is nothing else to do.
    replace(&world, &text.replace("[[pool]]", "[[pool]]\nmtu = 1400").replace("max = 4096", "max = 4095"));
    let (done, said) = reload(&world, &["--partial"]);
    assert!(done && said.contains("not applied: line 5: flows: max"), "{said}");
    assert!(serves(&world) && gateway.terminate().success());
}

#[test]
fn many_ask_at_the_same_time_and_each_is_answered() {
    let world = World::new("reload-many");
    let text = world.configuration("", &[WEB]);
    let gateway = start(&world, &text);
    let ask = || {
        let mut eqctl = world.eqctl_command(&["reload"]);
        Running::start(eqctl.stdout(Stdio::null()))
    };
    let mut asking: Vec<Running> = (0..5).map(|_| ask()).collect();
    replace(&world, &text.replace("[[pool]]", "[[pool]]\nmtu = 1400"));
    (0..20).for_each(|_| gateway.signal(Signal::HUP));
    asking.extend((0..5).map(|_| ask()));
    if let Some(asker) = asking.pop() {
        asker.kill();
    }
    asking.iter_mut().for_each(|one| assert!(one.wait("an answer").success()));
    let (done, said) = reload(&world, &[]);
    assert!(done && said == "no changes\n", "{said}");
    assert_eq!(world.log().matches("reload: pool web: mtu").count(), 1, "{}", world.log());
    assert!(gateway.terminate().success());
}
