//! Commands of keepalived that overtake each other.

use super::{role, sync};
use crate::state::TALK;
use crate::world::{World, run};
use std::process::Command;

/// Starts a shell that becomes `eqctl` after a while: as one that waits for the processor.
fn late(world: &World, words: &str) -> std::process::Child {
    let eqctl = env!("CARGO_BIN_EXE_eqctl");
    let script = format!("sleep 0.3; exec {eqctl} --socket {} {words}", world.socket().display());
    Command::new("sh").args(["-c", &script]).spawn().unwrap()
}

#[test]
fn of_two_commands_of_keepalived_the_one_that_began_later_counts_even_if_it_comes_first() {
    let world = World::new("pair-order");
    let _gateway = world.start(&(world.configuration("", &[TALK]) + &sync(1, world.dir.path(), "")));
    let mut earlier = late(&world, "role active --in-order");
    assert!(run(&mut world.eqctl_command(&["role", "standby", "--in-order"])).status.success());
    assert!(earlier.wait().unwrap().success());
    role(&world, "learning");
    let history = String::from_utf8(world.eqctl_raw(&["history"]).stdout).unwrap();
    assert!(history.contains("a request that began later has been obeyed"), "{history}");
    // Who decides by hand is obeyed, and so is what begins after that.
    let mut by_hand = late(&world, "role active");
    assert!(by_hand.wait().unwrap().success());
    role(&world, "active");
    world.change("role standby --in-order");
    role(&world, "learning");
}
