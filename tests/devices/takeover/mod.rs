//! Another process takes the place of the running gateway, and no connection notices.

mod between;
mod hostile;
mod manager;
mod meanwhile;

use crate::state::{Busy, IDLE, TALK, Talks, serve};
use crate::world::{Running, World, eventually};
use between::{Between, STEPS};
use rustix::process::Signal;
use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const FLOWS: usize = 2 * IDLE + 4;

fn configuration(world: &World) -> String {
    world.configuration("", &[TALK])
}

fn successor(world: &World, configuration: &str) -> Command {
    successor_by(world, configuration, &[])
}

fn successor_by(world: &World, configuration: &str, wrap: &[&str]) -> Command {
    let log = world.dir.path().join("stderr");
    // The one before it goes on writing to its own file.
    std::fs::rename(&log, world.dir.path().join("stderr-before")).unwrap();
    let mut command = world.equipoise(configuration, wrap);
    command.arg("--takeover").stdout(Stdio::null()).stderr(File::create(log).unwrap());
    command
}

/// Returns what the gateway that hands over has logged.
fn log_before(world: &World) -> String {
    std::fs::read_to_string(world.dir.path().join("stderr-before")).unwrap()
}

/// Returns how many flows have ended.
fn ended(world: &World) -> u64 {
    world.totals().engine.flows_ended.iter().map(|ended| ended.count).sum()
}

/// Lets another process take over, and returns it; the one before it has ended.
pub fn take_over(world: &World, before: Running, configuration: &str) -> Running {
    take_over_by(world, before, configuration, &[])
}

/// The same through another program that becomes the gateway.
fn take_over_by(world: &World, mut before: Running, configuration: &str, wrap: &[&str]) -> Running {
    let after = Running::start(&mut successor_by(world, configuration, wrap));
    assert!(before.wait("the end of the gateway before it").success(), "{}", world.log());
    eventually("the new one answers", || world.eqctl_raw(&["status"]).status.success());
    after
}

#[test]
fn connections_do_not_notice_a_takeover() {
    let world = World::new("take");
    let before = world.system();
    let mut gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    let system = world.system();
    for round in 1..=3 {
        gateway = take_over(&world, gateway, &configuration(&world));
        talks.go_on(&format!("after takeover {round}"));
        assert_eq!(world.totals().engine.flows_opened, FLOWS as u64, "none is new: {}", world.log());
        assert_eq!(ended(&world), 0);
        assert!(log_before(&world).contains("has taken over"), "{}", log_before(&world));
        assert_eq!(world.system(), system, "routes, rules and addresses stay as they were");
        let log = world.log();
        assert!(log.contains(&format!("{FLOWS} flows")) && !log.contains("WARN"), "{log}");
    }
    talks.busy.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
    assert_eq!(world.system(), before, "the last one removes what the first one installed");
    assert!(!world.socket().exists());
}

/// Starts a process that takes over, and gets a signal at a step.
fn meet(world: &World, step: usize, signal: Signal, configuration: &str) -> (Between, Running) {
    let pid = Arc::new(AtomicU32::new(0));
    let victim = Arc::clone(&pid);
    let between = Between::stand(world, step, signal, move || {
        loop {
            match victim.load(Ordering::Acquire) {
                0 => std::thread::yield_now(),
                pid => return pid,
            }
        }
    });
    let successor = Running::start(&mut successor(world, configuration));
    pid.store(successor.id(), Ordering::Release);
    (between, successor)
}

fn step_of(name: &str) -> usize {
    STEPS.iter().position(|(step, _)| *step == name).unwrap()
}

/// Makes the log of the gateway before it the one that the world shows.
fn back(world: &World) {
    std::fs::rename(world.dir.path().join("stderr-before"), world.dir.path().join("stderr")).unwrap();
}

#[test]
fn whoever_takes_over_may_be_killed_at_any_step_and_the_gateway_carries_on() {
    let world = World::new("take-kill");
    let gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    let system = world.system();
    // Once it serves, it is the gateway.
    for (step, (name, _)) in STEPS.iter().enumerate().take(STEPS.len() - 1) {
        let (between, mut successor) = meet(&world, step, Signal::KILL, &configuration(&world));
        between.await_step();
        assert!(!successor.wait("its end").success());
        between.leave();
        talks.go_on(&format!("after the death at {name}"));
        assert_eq!((world.totals().engine.flows_opened, ended(&world)), (FLOWS as u64, 0), "{name}");
        assert_eq!(world.system(), system, "{name}");
        back(&world);
        let log = world.log();
        assert!(name == &"HELLO" || log.contains("carries on"), "{name}: {log}");
    }
    let gateway = take_over(&world, gateway, &configuration(&world));
    talks.go_on("after the takeover in the end");
    talks.busy.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
}

#[test]
fn the_gateway_that_hands_over_may_be_killed_at_any_step_and_the_other_one_serves() {
    let world = World::new("take-die");
    let before = world.system();
    world.servers.iter().for_each(serve);
    // Before the offer there is nobody who could serve.
    for (step, (name, _)) in STEPS.iter().enumerate().skip(2) {
        let gateway = world.start(&configuration(&world));
        let mut talks = Talks::connect(&world);
        let pid = gateway.id();
        let between = Between::stand(&world, step, Signal::KILL, move || pid);
        let successor = Running::start(&mut successor(&world, &configuration(&world)));
        between.await_step();
        let mut gateway = gateway;
        assert!(!gateway.wait("its end").success());
        eventually("the new one answers", || world.eqctl_raw(&["status"]).status.success());
        // From the first pass on it knows all connections.
        if step > 5 {
            talks.go_on(&format!("after the death at {name}"));
            assert_eq!((world.totals().engine.flows_opened, ended(&world)), (FLOWS as u64, 0), "{name}");
            talks.busy.into_iter().for_each(Busy::end);
        }
        drop(talks.idle);
        let mut talks = Talks::connect(&world);
        talks.go_on(&format!("anew after the death at {name}"));
        talks.busy.into_iter().for_each(Busy::end);
        drop(talks.idle);
        std::fs::remove_file(between_socket(&world)).unwrap();
        assert!(successor.terminate().success());
        assert_eq!(world.system(), before, "{name}");
    }
}

fn between_socket(world: &World) -> std::path::PathBuf {
    format!("{}.takeover", world.socket().display()).into()
}

#[test]
fn who_hangs_at_the_last_step_does_not_take_the_packets_with_it() {
    let world = World::new("take-hang");
    let gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    let (between, mut successor) = meet(&world, step_of("LAST"), Signal::STOP, &configuration(&world));
    between.await_step();
    talks.go_on("after the other one hung");
    assert_eq!(ended(&world), 0);
    successor.signal(Signal::CONT);
    assert!(!successor.wait("its end").success());
    let said = world.log();
    assert!(said.contains("the running gateway carries on: it took longer than 1 s"), "{said}");
    between.leave();
    back(&world);
    assert!(world.log().contains("it took longer than 1 s to read the last of the state; this gateway carries on"));
    let gateway = take_over(&world, gateway, &configuration(&world));
    talks.go_on("after the takeover in the end");
    talks.busy.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
}

#[test]
fn who_hangs_with_the_packets_is_named_and_its_end_gives_them_back() {
    let world = World::new("take-hold");
    let gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    let (between, successor) = meet(&world, step_of("YOURS"), Signal::STOP, &configuration(&world));
    between.await_step();
    back(&world);
    eventually("the word about it", || world.log().contains("has the packets and does not serve: none is handled"));
    successor.kill();
    between.leave();
    talks.go_on("after the end of the one that hung");
    assert_eq!((world.totals().engine.flows_opened, ended(&world)), (FLOWS as u64, 0));
    assert!(world.log().contains("ended before it served; this gateway carries on"), "{}", world.log());
    talks.busy.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
}

#[test]
fn a_reload_waits_until_it_is_known_who_carries_on() {
    let world = World::new("take-reload");
    let gateway = world.start(&configuration(&world));
    let (between, successor) = meet(&world, step_of("PASS"), Signal::STOP, &configuration(&world));
    between.await_step();
    back(&world);
    std::fs::write(world.file(), configuration(&world) + "# another\n").unwrap();
    let mut reload = Running::start(world.eqctl_command(&["reload"]).stdout(Stdio::null()));
    world.change("server weight talk/server1 5");
    assert_eq!(world.server_row(1).weight, 5, "what needs no other plan is done at once");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(reload.ended(), None);
    successor.kill();
    assert!(reload.wait("the reload").success());
    between.leave();
    assert!(gateway.terminate().success());
}

#[test]
fn another_configuration_may_be_taken_over_with() {
    let world = World::new("take-other");
    let gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    let system = world.system();
    let more = "\n[[service]]\nname = \"more\"\nlisten = \"192.0.2.99:80/tcp\"\npool = \"talk\"\n";
    let larger = configuration(&world).replace("max = 4096", "max = 5000");
    let gateway = take_over(&world, gateway, &(larger + more));
    talks.go_on("with a service more");
    assert_eq!(world.totals().engine.max_flows, 5000);
    assert!(world.system().contains("192.0.2.99"), "{}", world.system());
    assert!(world.client.run(|| std::net::TcpStream::connect("192.0.2.99:80").is_ok()).unwrap());
    // As by a reload, its flow would go on.
    world.change("kill service more");
    let gateway = take_over(&world, gateway, &configuration(&world));
    talks.go_on("without it");
    eventually("its routes go", || world.system() == system);
    talks.busy.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
}

#[test]
fn what_cannot_be_taken_over_is_said_and_nothing_changes() {
    let world = World::new("take-no");
    let (code, text) = world.start_in_vain_with(&configuration(&world), &["--takeover"]);
    assert!(code == Some(1) && text.contains("no gateway to take over from"), "{text}");
    let gateway = world.start(&configuration(&world));
    let system = world.system();
    let other = configuration(&world).replacen("[gateway]", "[gateway]\nroute-table = 7777", 1);
    let (code, text) = world.start_in_vain_with(&other, &["--takeover"]);
    assert!(code == Some(1) && text.contains("gateway.route-table is ") && text.contains("needs a restart"), "{text}");
    // Whoever connects and says nothing keeps nobody out for long.
    let idle = std::os::unix::net::UnixStream::connect(between_socket(&world)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(world.system(), system);
    let gateway = take_over(&world, gateway, &configuration(&world));
    drop(idle);
    assert!(gateway.terminate().success());
}

/// What `eqctl changes --json` shows of each change, and nothing of when it was made.
fn changes(world: &World) -> Vec<String> {
    let output = world.eqctl_raw(&["changes", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let plain = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["at_ms", "ago_ms", "age_ms", "deadline_ms"] {
            row.as_object_mut().unwrap().remove(key);
        }
        row.to_string()
    };
    text.lines().map(plain).collect()
}

#[test]
fn what_operators_changed_is_taken_over_also_in_the_last_moment() {
    let world = World::new("take-changes");
    let gateway = world.start(&configuration(&world));
    world.change("server add talk/server4 address=10.99.3.2 port=8081");
    world.change("server set talk/server4 max-flows=77");
    world.change("server remove talk/server3");
    world.change("server drain talk/server2 --deadline 1h");
    let (between, successor) = meet(&world, step_of("PASS"), Signal::STOP, &configuration(&world));
    between.await_step();
    world.change("server weight talk/server1 5");
    let before = changes(&world);
    assert_eq!(before.len(), 5);
    successor.signal(Signal::CONT);
    let mut gateway = gateway;
    assert!(gateway.wait("the end of the gateway before it").success());
    eventually("the new one answers", || world.eqctl_raw(&["status"]).status.success());
    assert_eq!(changes(&world), before);
    let rows = world.server_rows();
    let row = |name: &str| rows.iter().find(|row| row.server == name && !row.removed).cloned();
    assert_eq!(row("server1").unwrap().weight, 5);
    assert_eq!(row("server2").unwrap().admin, equipoise::balance::Admin::Draining);
    assert!(row("server3").is_none() && row("server4").is_some(), "{rows:?}");
    let history = String::from_utf8(world.eqctl_raw(&["history"]).stdout).unwrap();
    assert!(history.contains("server talk/server4: added"), "{history}");
    let reload = world.eqctl_raw(&["reload"]);
    assert_eq!(String::from_utf8_lossy(&reload.stdout), "no changes\n");
    std::fs::remove_file(between_socket(&world)).unwrap();
    assert!(successor.terminate().success());
}

#[test]
fn the_flows_of_a_removed_server_go_on_in_the_next_process_and_the_one_after_it() {
    let world = World::new("take-removed");
    let mut gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    world.change("server remove talk/server3");
    let at_removed = || world.flows(&["--server", "talk/server3"]).len();
    let flows = at_removed();
    assert!(flows > 10, "{flows}");
    for round in 1..=2 {
        gateway = take_over(&world, gateway, &configuration(&world));
        talks.go_on(&format!("after takeover {round}"));
        assert_eq!((world.totals().engine.flows_opened, ended(&world)), (FLOWS as u64, 0), "{}", world.log());
        assert_eq!(at_removed(), flows);
        assert!(world.server_rows().iter().any(|row| row.server == "server3" && row.removed));
    }
    talks.busy.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
}
