//! What happens while a takeover goes on: connections that begin, reloads that are asked for; and what is not over when one
//! begins.

use super::{configuration, meet, step_of, successor, take_over};
use crate::state::{Busy, PORT, TALK, connect, serve};
use crate::world::{Running, Stopping, World, eventually, run};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn echo(stream: &mut TcpStream, what: &str) {
    let mut byte = [0];
    stream.write_all(b"x").unwrap_or_else(|error| panic!("{what}: {error}"));
    stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// The configuration with so many servers, and room for so many flows.
fn with(world: &World, servers: usize, flows: u32) -> String {
    let text = world.configuration("", &[(TALK.0, TALK.1, servers, PORT)]);
    text.replace("max = 4096", &format!("max = {flows}"))
}

#[test]
fn connections_that_begin_meanwhile_go_on_also_if_the_new_file_lacks_their_server() {
    let world = World::new("take-lacks");
    world.servers.iter().for_each(serve);
    // With the map of the keys of replies, and without.
    for (round, flows) in [4096, 5000].into_iter().enumerate() {
        let mut gateway = world.start(&with(&world, 3, 4096));
        let (between, successor) = meet(&world, step_of("PASS"), Signal::STOP, &with(&world, 2, flows));
        between.await_step();
        let mut all: Vec<_> = (0..12).map(|n| connect(&world, n % 2, b'e')).collect();
        all.iter_mut().enumerate().for_each(|(n, stream)| echo(stream, &format!("connection {n} at first")));
        successor.signal(Signal::CONT);
        assert!(gateway.wait("the end of the gateway before it").success(), "{}", world.log());
        eventually("the new one answers", || world.eqctl_raw(&["status"]).status.success());
        all.iter_mut().enumerate().for_each(|(n, stream)| echo(stream, &format!("connection {n}, round {round}")));
        assert_eq!(world.flows(&["--server", "talk/server3"]).len(), 4, "{}", world.log());
        drop(all);
        std::fs::remove_file(format!("{}.takeover", world.socket().display())).unwrap();
        assert!(successor.terminate().success());
    }
}

/// Returns how many resets the client has sent, and how many SYNs again.
fn repeated(world: &World) -> (u64, u64) {
    let value = |file: &str, table: &str, key: &str| -> u64 {
        let text =
            world.client.run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap()).unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with(table)).map(str::split_whitespace);
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        names.zip(values).find(|(name, _)| *name == key).unwrap().1.parse().unwrap()
    };
    (value("snmp", "Tcp:", "OutRsts"), value("netstat", "TcpExt:", "TCPSynRetrans"))
}

#[test]
fn a_server_that_the_new_file_adds_answers_at_once_also_with_another_size_of_the_table() {
    let world = World::new("take-adds");
    world.servers.iter().for_each(serve);
    let gateway = world.start(&with(&world, 2, 4096));
    let stop = AtomicBool::new(false);
    let before = repeated(&world);
    let gateway = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                echo(&mut connect(&world, count % 2, b'e'), "a connection");
                count += 1;
            }
        });
        let stopping = Stopping(&stop);
        let gateway = take_over(&world, gateway, &with(&world, 3, 5000));
        std::thread::sleep(Duration::from_millis(300));
        drop(stopping);
        client.join().unwrap();
        gateway
    });
    assert!(world.server_row(3).flows_total > 0, "{:?}", world.server_rows());
    assert_eq!(repeated(&world), before, "a reply has reached the client untranslated: {}", world.log());
    assert!(gateway.terminate().success());
}

#[test]
fn a_reload_that_a_signal_asks_for_meanwhile_is_made_by_who_takes_over() {
    let world = World::new("take-hangup");
    let mut gateway = world.start(&configuration(&world));
    let (between, successor) = meet(&world, step_of("PASS"), Signal::STOP, &configuration(&world));
    between.await_step();
    let weighed = configuration(&world).replacen("port = 8080", "port = 8080\nweight = 9", 1);
    std::fs::write(world.file(), weighed).unwrap();
    gateway.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    successor.signal(Signal::CONT);
    assert!(gateway.wait("the end of the gateway before it").success());
    eventually("the reload", || world.server_rows().first().is_some_and(|row| row.weight == 9));
    std::fs::remove_file(format!("{}.takeover", world.socket().display())).unwrap();
    assert!(successor.terminate().success());
}

/// Has what the servers send discarded, or no longer.
fn silence(world: &World, what: &str) {
    for server in &world.servers {
        for family in ["-4", "-6"] {
            let output = run(server.command("ip").args([family, "rule", what, "priority", "10", "blackhole"]));
            assert!(output.status.success(), "{output:?}");
        }
    }
}

#[test]
fn connections_that_a_gateway_looks_for_are_looked_for_by_who_takes_its_place() {
    let world = World::new("take-young");
    world.servers.iter().for_each(serve);
    let adopts = "name = \"talk\"\nalgorithm = \"maglev\"\nunknown-tcp = \"adopt\"\nlisten";
    let text = format!("seed = 7\n{}", configuration(&world).replace("name = \"talk\"\nlisten", adopts));
    let gateway = world.start(&text);
    let downloads: Vec<Busy> = (0..6).map(|n| Busy::start(connect(&world, n % 2, b'd'), false)).collect();
    let go_on = |when: &str| {
        downloads.iter().enumerate().for_each(|(n, busy)| busy.goes_on(&format!("download {n} {when}")));
    };
    go_on("at first");
    silence(&world, "add");
    gateway.kill();
    let mut gateway = world.start(&text);
    // Twice: what is left of the time is passed on again.
    for _ in 0..2 {
        gateway = take_over(&world, gateway, &text);
    }
    assert_eq!(world.flows(&[]).len(), 0);
    silence(&world, "del");
    go_on("after the takeovers");
    downloads.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
}

#[test]
fn who_has_no_room_for_all_flows_does_not_take_over() {
    let world = World::new("take-room");
    world.servers.iter().for_each(serve);
    let mut gateway = world.start(&with(&world, 3, 4096));
    let mut all: Vec<_> = (0..12).map(|n| connect(&world, n % 2, b'e')).collect();
    all.iter_mut().enumerate().for_each(|(n, stream)| echo(stream, &format!("connection {n} at first")));
    let mut small = Running::start(&mut successor(&world, &with(&world, 3, 10)));
    eventually("the end of one of them", || small.ended().is_some() || gateway.ended().is_some());
    assert_eq!((small.ended().and_then(|status| status.code()), gateway.ended()), (Some(1), None), "{}", world.log());
    assert!(world.log().contains("there are 12 flows and flows.max is 10 here"), "{}", world.log());
    all.iter_mut().enumerate().for_each(|(n, stream)| echo(stream, &format!("connection {n} after that")));
    let gateway = take_over(&world, gateway, &with(&world, 3, 12));
    all.iter_mut().enumerate().for_each(|(n, stream)| echo(stream, &format!("connection {n} in the next process")));
    assert!(gateway.terminate().success());
}

#[test]
fn another_mtu_is_set_without_blaming_other_programs() {
    let world = World::new("take-mtu");
    let gateway = world.start(&configuration(&world));
    let text = configuration(&world).replacen("[gateway]", "[gateway]\nmtu = 1400", 1);
    let gateway = take_over(&world, gateway, &text);
    let output = run(world.gateway.command("ip").args(["link", "show", "equipoise0"]));
    assert!(String::from_utf8_lossy(&output.stdout).contains("mtu 1400"), "{output:?}");
    assert!(!world.log().contains("by another program"), "{}", world.log());
    assert!(gateway.terminate().success());
}
