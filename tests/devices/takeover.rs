//! Another process takes the place of the running gateway, and no connection notices.

use crate::state::{Busy, IDLE, TALK, Talks};
use crate::world::{Running, World, eventually};
use std::fs::File;
use std::process::{Command, Stdio};

const FLOWS: usize = 2 * IDLE + 4;

fn configuration(world: &World) -> String {
    world.configuration("", &[TALK])
}

fn successor(world: &World, configuration: &str) -> Command {
    let log = world.dir.path().join("stderr");
    // The one before it goes on writing to its own file.
    std::fs::rename(&log, world.dir.path().join("stderr-before")).unwrap();
    let mut command = world.equipoise(configuration, &[]);
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
fn take_over(world: &World, mut before: Running, configuration: &str) -> Running {
    let after = Running::start(&mut successor(world, configuration));
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
