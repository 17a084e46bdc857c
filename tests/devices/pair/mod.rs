//! Two gateways of a pair: either goes on where the other one stops. The test moves the routes of client and servers, as a
//! router would that follows keepalived or BGP.

mod announced;
mod answers;
mod apart;
mod carried;
#[path = "../../common/established.rs"]
mod established;
mod order;
mod second;
#[path = "../../common/setup.rs"]
mod setup;

use crate::state::{Busy, IDLE, TALK, Talks};
use crate::takeover::take_over;
use crate::world::{Running, World, eventually, run};
use second::Second;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const FLOWS: u64 = 2 * IDLE as u64 + 4;

/// The lines of `[sync]` of the gateway with this number, 1 or 2.
fn sync(n: usize, dir: &Path, more: &str) -> String {
    let (node, peer) = [("one", "two"), ("two", "one")][n - 1];
    let key = dir.join("key");
    std::fs::write(&key, "sixteen bytes or more\n").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    format!(
        "[sync]\nnode = '{node}'\npeer = '{peer}'\naddress = '10.255.0.{n}:7400'\npeer-address = '10.255.0.{}:7400'\n\
         key-file = {key:?}\ninsecure = true\nlearning = '20s'\ntrack-file = {:?}\n{more}\n",
        3 - n,
        dir.join("track"),
    )
}

fn configuration(world: &World) -> String {
    world.configuration("", &[TALK]) + &sync(1, world.dir.path(), "")
}

/// Waits for the role of the first gateway.
fn role(world: &World, want: &str) {
    eventually(&format!("the first gateway to be {want}"), || {
        String::from_utf8_lossy(&world.eqctl_raw(&["role"]).stdout).trim() == want
    });
}

/// Waits until both know all flows.
fn in_step(world: &World, second: &Second) {
    eventually("both to be in step", || {
        world.eqctl_raw(&["sync"]).status.success() && second.eqctl(&["sync"]).status.success()
    });
}

/// Both gateways, the first one active, both in step.
fn start(world: &World, second: &Second) -> [Running; 2] {
    let one = world.start(&configuration(world));
    world.change("role active");
    let two = second.start(&second.configuration(world, ""));
    in_step(world, second);
    assert_eq!(second.role(), "ready");
    assert_eq!(second.track(), "0");
    [one, two]
}

fn opened(totals: &equipoise::control::Totals) -> u64 {
    totals.engine.flows_opened
}

#[test]
fn the_other_gateway_goes_on_with_every_connection_and_gives_them_back() {
    let world = World::new("pair");
    let second = Second::new(&world, "pair");
    let [one, two] = start(&world, &second);
    let mut talks = Talks::open(&world);
    assert_eq!(opened(&world.totals()), FLOWS);
    eventually("the second gateway to know all flows", || second.totals().engine.flows == FLOWS);
    one.kill();
    second.change("role active");
    second.lead(&world);
    talks.go_on("after the death of the first");
    let totals = second.totals();
    let ended: u64 = totals.engine.flows_ended.iter().map(|ended| ended.count).sum();
    assert_eq!((totals.engine.flows, ended), (FLOWS, 0), "{}", second.log());
    // The first one comes back, and learns before it may be elected.
    let one = world.start(&configuration(&world));
    in_step(&world, &second);
    role(&world, "ready");
    assert_eq!(world.totals().engine.flows, FLOWS);
    second.change("role yield");
    eventually("the second gateway to be less fit than the first", || second.track() == "-50");
    assert_eq!(second.role(), "yielding");
    talks.go_on("while the second yields");
    world.change("role active");
    second.leave(&world);
    second.change("role standby");
    talks.go_on("after the switch back");
    assert_eq!((opened(&world.totals()), world.totals().engine.flows), (FLOWS, FLOWS), "{}", world.log());
    let log = world.log() + &second.log();
    assert!(log.contains("sync: in step") && !log.contains("WITHOUT"), "{log}");
    talks.busy.into_iter().for_each(Busy::end);
    let history = String::from_utf8(second.eqctl(&["history"]).stdout).unwrap();
    assert!(history.contains("role: active -> yielding") && history.contains("role: yielding -> standby"), "{history}");
    assert!(two.terminate().success() && one.terminate().success());
    assert_eq!(second.track(), "-254");
}

#[test]
fn a_gateway_that_stops_has_the_other_one_take_over_first() {
    let world = World::new("pair-stop");
    let second = Second::new(&world, "pair-stop");
    let [mut one, two] = start(&world, &second);
    let mut talks = Talks::open(&world);
    one.signal(rustix::process::Signal::TERM);
    role(&world, "yielding");
    eventually("the track file to say so", || second::track(world.dir.path()) == "-50");
    talks.go_on("while the first waits");
    // As keepalived does that has read the track file.
    second.change("role active");
    second.lead(&world);
    world.change("role standby");
    assert!(one.wait("the end of the first").success());
    talks.go_on("after the end of the first");
    assert_eq!(second.totals().engine.flows, FLOWS);
    talks.busy.into_iter().for_each(Busy::end);
    assert!(two.terminate().success(), "without a peer it ends at once");
}

#[test]
fn a_takeover_by_another_process_keeps_the_role() {
    let world = World::new("pair-take");
    let second = Second::new(&world, "pair-take");
    let [one, two] = start(&world, &second);
    let mut talks = Talks::open(&world);
    let one = take_over(&world, one, &configuration(&world));
    role(&world, "active");
    talks.go_on("after the takeover");
    in_step(&world, &second);
    assert_eq!(second.totals().engine.flows, FLOWS);
    assert_eq!(opened(&world.totals()), FLOWS);
    assert_eq!(second::track(world.dir.path()), "0");
    talks.busy.into_iter().for_each(Busy::end);
    assert!(two.terminate().success() && one.terminate().success());
}

#[test]
fn a_stranger_at_the_port_disturbs_nobody_and_learns_nothing() {
    let world = World::new("pair-hostile");
    let second = Second::new(&world, "pair-hostile");
    let [one, two] = start(&world, &second);
    let at: SocketAddr = "10.255.0.1:7400".parse().unwrap();
    // From the address of the peer, without the key: there is a connection already.
    for _ in 0..20 {
        let mut stranger =
            second.gateway.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(5))).unwrap().unwrap();
        stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stranger.write_all(&[0x55; 4096]);
        let mut read = Vec::new();
        let _ = stranger.read_to_end(&mut read);
        assert!(read.len() < 600, "{} bytes", read.len());
    }
    in_step(&world, &second);
    let row = second.sync();
    assert_eq!(row.connections, 1, "{row:?}");
    // With another key nobody is in step, and both say why.
    assert!(two.terminate().success());
    std::fs::write(second.dir.path().join("key-of-another"), "another key of sixteen\n").unwrap();
    let other = second.configuration(&world, "").replace("/key\"", "/key-of-another\"");
    std::fs::set_permissions(
        second.dir.path().join("key-of-another"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let two = second.start(&other);
    eventually("the keys to be compared", || {
        // Whichever reads the other's proof first says why it closes the connection.
        let both = [world.eqctl_raw(&["sync"]), second.eqctl(&["sync"])];
        let says = |text: &std::process::Output| String::from_utf8_lossy(&text.stdout).contains("has another key");
        both.iter().all(|text| text.status.code() == Some(3)) && both.iter().any(says)
    });
    assert!(two.terminate().success() && one.terminate().success());
}

#[test]
fn service_addresses_are_announced_by_the_active_gateway_alone() {
    let world = World::new("pair-routes");
    let second = Second::new(&world, "pair-routes");
    let before = world.system();
    let more = "routes = 'when-active'";
    let text = world.configuration("", &[TALK]) + &sync(1, world.dir.path(), more);
    let one = world.start(&text);
    let quiet = |system: &str| {
        ["192.0.2.80 dev equipoise0", "2001:db8:80::80 dev equipoise0"]
            .map(|route| system.lines().any(|line| line.starts_with(route) && line.contains("metric 1000000")))
    };
    assert_eq!(quiet(&world.system()), [true; 2], "{}", world.system());
    world.change("role active");
    eventually("the routes to be announced", || quiet(&world.system()) == [false; 2]);
    let two = second.start(&second.configuration(&world, more));
    in_step(&world, &second);
    let mut talks = Talks::open(&world);
    // A reload, and a takeover by another process, leave it so.
    world.change("reload");
    let one = take_over(&world, one, &text);
    assert_eq!(quiet(&world.system()), [false; 2], "{}", world.system());
    world.change("role standby");
    eventually("the routes to be quiet", || quiet(&world.system()) == [true; 2]);
    talks.go_on("through a gateway that stands by: it forwards what it knows");
    talks.busy.into_iter().for_each(Busy::end);
    assert!(two.terminate().success() && one.terminate().success());
    // Packets wait for whoever has the flows.
    assert!(world.system().contains("blackhole 192.0.2.80"), "{}", world.system());
    let mut cleanup = world.gateway.command(env!("CARGO_BIN_EXE_equipoise"));
    assert!(run(cleanup.arg("cleanup").arg("--config").arg(world.file())).status.success());
    assert_eq!(world.system(), before);
}
