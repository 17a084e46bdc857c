//! Takeovers that somebody disturbs, or whose configuration is another one than expected.

use super::{FLOWS, configuration, ended, log_before, meet, step_of, take_over, take_over_by};
use crate::lab::established::without_bpf;
use crate::state::{Busy, TALK, Talks, serve};
use crate::world::{PATIENCE, World, eventually};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

#[test]
fn a_gateway_that_is_stopped_while_it_hands_over_leaves_everything_to_the_next_one() {
    let world = World::new("take-stop");
    let before = world.system();
    let gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    let system = world.system();
    let (between, successor) = meet(&world, step_of("PASS"), Signal::STOP, &configuration(&world));
    between.await_step();
    gateway.signal(Signal::TERM);
    eventually("it to have heard", || log_before(&world).contains("SIGTERM: stopping"));
    successor.signal(Signal::CONT);
    let mut gateway = gateway;
    assert!(gateway.wait("its end").success());
    eventually("the new one answers", || world.eqctl_raw(&["status"]).status.success());
    talks.go_on("after the end of the first");
    assert_eq!((world.totals().engine.flows_opened, ended(&world)), (FLOWS as u64, 0), "{}", world.log());
    eventually("all is installed", || world.system() == system);
    talks.busy.into_iter().for_each(Busy::end);
    std::fs::remove_file(super::between_socket(&world)).ok();
    assert!(successor.terminate().success());
    assert_eq!(world.system(), before);
}

#[test]
fn a_gateway_that_is_stopped_waits_for_seconds_only_for_one_that_takes_over_and_hangs() {
    let world = World::new("take-hang");
    let before = world.system();
    let gateway = world.start(&configuration(&world));
    let (between, mut successor) = meet(&world, step_of("PASS"), Signal::STOP, &configuration(&world));
    between.await_step();
    assert!(gateway.terminate().success());
    let log = log_before(&world);
    assert!(log.contains("has not taken over: this gateway has to stop"), "{log}");
    drop(between);
    successor.signal(Signal::KILL);
    successor.wait("its end");
    assert_eq!(world.system(), before);
}

#[test]
fn one_at_a_time_takes_over() {
    let world = World::new("take-two");
    let gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    let (between, successor) = meet(&world, step_of("PASS"), Signal::STOP, &configuration(&world));
    between.await_step();
    between.leave();
    let (code, text) = world.start_in_vain_with(&configuration(&world), &["--takeover"]);
    assert!(code == Some(1) && text.contains("is taking over already"), "{text}");
    talks.go_on("beside two who would take over");
    successor.signal(Signal::CONT);
    let mut gateway = gateway;
    assert!(gateway.wait("its end").success());
    eventually("the new one answers", || world.eqctl_raw(&["status"]).status.success());
    talks.go_on("after the first of them has");
    talks.busy.into_iter().for_each(Busy::end);
    assert!(successor.terminate().success());
}

#[test]
fn the_flows_of_a_server_that_has_moved_go_on_in_the_next_process() {
    let world = World::new("take-moved");
    let gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    // The same name, another port: another server.
    let moved = configuration(&world).replacen("port = 8080", "port = 8081", 1);
    assert_ne!(moved, configuration(&world));
    std::fs::write(world.file(), &moved).unwrap();
    world.change("reload");
    talks.go_on("after the reload");
    let gateway = take_over(&world, gateway, &moved);
    talks.go_on("after the takeover");
    assert_eq!((world.totals().engine.flows_opened, ended(&world)), (FLOWS as u64, 0), "{}", world.log());
    let rows = world.server_rows();
    let of = |removed: bool| rows.iter().find(|row| row.server == "server1" && row.removed == removed).cloned();
    assert!(of(true).is_some_and(|row| row.flows > 0 && row.port == Some(8080)), "{rows:?}");
    assert!(of(false).is_some_and(|row| row.flows == 0 && row.port == Some(8081)), "{rows:?}");
    talks.busy.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
}

#[test]
fn a_file_that_is_no_state_is_not_replaced_by_whoever_takes_over() {
    let world = World::new("take-foreign");
    let gateway = world.start(&configuration(&world));
    let precious = world.dir.path().join("precious");
    std::fs::write(&precious, "a file of somebody else\n").unwrap();
    let text =
        world.configuration(&format!("state-file = {precious:?}\nstate-interval = \"1s\""), &[crate::state::TALK]);
    let gateway = take_over(&world, gateway, &text);
    assert!(gateway.terminate().success());
    let log = world.log();
    assert!(log.contains("this is not a state file; the gateway leaves the file alone"), "{log}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "a file of somebody else\n");
}

/// Opens a connection to another service than that of the world, and uses it once.
fn talk_to(world: &World, address: &str) -> TcpStream {
    let at = SocketAddr::new(address.parse().unwrap(), 80);
    let mut stream = world.client.run(|| TcpStream::connect_timeout(&at, PATIENCE).unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"e").unwrap();
    echo(&mut stream, "at first");
    stream
}

fn echo(stream: &mut TcpStream, when: &str) {
    let mut byte = [0];
    stream.write_all(b"x").unwrap_or_else(|error| panic!("{when}: {error}"));
    stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{when}: {error}"));
}

#[test]
fn the_flows_of_a_removed_service_a_removed_pool_and_a_removed_nat_address_go_on_in_the_next_process() {
    let world = World::new("take-gone");
    world.servers.iter().for_each(serve);
    let few = configuration(&world);
    let more = few.clone()
        + "[[service]]\nname = \"gone\"\nlisten = \"192.0.2.99:80/tcp\"\npool = \"gone\"\n\
           [[pool]]\nname = \"gone\"\nserver = [{ name = \"one\", address = \"10.99.2.2\", port = 8080 }]\n\
           [[service]]\nname = \"full\"\nlisten = \"192.0.2.98:80/tcp\"\npool = \"talk\"\nnat = \"full\"\nnat-pool = \"out\"\n\
           [[nat-pool]]\nname = \"out\"\naddresses = [\"192.0.2.97\"]\n";
    let mut gateway = world.start(&more);
    let mut streams = ["192.0.2.99", "192.0.2.98"].map(|address| talk_to(&world, address));
    std::fs::write(world.file(), &few).unwrap();
    world.change("reload");
    streams.iter_mut().for_each(|stream| echo(stream, "after the reload"));
    // What another file lacks is removed as by a reload.
    let fewer = few.replace("[\"192.0.2.80:80/tcp\", ", "[");
    let mut others = [talk_to(&world, "192.0.2.80")];
    for (round, text) in [(1, &few), (2, &fewer)] {
        gateway = take_over(&world, gateway, text);
        for stream in streams.iter_mut().chain(&mut others) {
            echo(stream, &format!("after takeover {round}: {}", world.log()));
        }
        assert_eq!((world.totals().engine.flows, ended(&world)), (3, 0), "{}", world.log());
        let system = world.system();
        assert!(["80", "97", "98", "99"].iter().all(|n| system.contains(&format!("192.0.2.{n} "))), "{system}");
    }
    // No new ones.
    let refused = |address: &str| world.client.run(|| TcpStream::connect((address, 80)).is_err()).unwrap();
    assert!(refused("192.0.2.99") && refused("192.0.2.98") && refused("192.0.2.80"));
    assert!(gateway.terminate().success());
    assert!(!world.system().contains("192.0.2.9"), "{}", world.system());
}

#[test]
fn without_bpf_the_flows_of_a_removed_server_go_on_too() {
    let world = World::new("take-nobpf");
    let wrap = without_bpf();
    let wrap = wrap.each_ref().map(String::as_str);
    let gateway = world.start_by(&configuration(&world), &wrap);
    let mut talks = Talks::open(&world);
    assert!(world.system().contains("from 10.99.3.2 ipproto tcp"), "replies are selected by their addresses");
    let few = world.configuration("", &[(TALK.0, TALK.1, 2, TALK.3)]);
    std::fs::write(world.file(), &few).unwrap();
    world.change("reload");
    talks.go_on("after the reload");
    let gateway = take_over_by(&world, gateway, &few, &wrap);
    talks.go_on("after the takeover");
    assert_eq!((world.totals().engine.flows_opened, ended(&world)), (FLOWS as u64, 0), "{}", world.log());
    talks.busy.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
}
