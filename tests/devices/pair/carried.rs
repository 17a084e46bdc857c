//! Connections that the kernel carries past the device of one gateway go on at the other one, whose kernel carries them then.

use super::second::Second;
use super::{FLOWS, configuration, in_step};
use crate::state::{Busy, Talks};
use crate::world::{World, eventually};
use equipoise::control::Totals;

/// How many the kernel carries.
fn carried(totals: &Totals) -> u64 {
    totals.engine.shortcut.expect("the shortcut is on").flows
}

#[test]
fn connections_that_the_kernel_carries_go_on_at_the_other_gateway() {
    let world = World::new("pair-short");
    let second = Second::new(&world, "pair-short");
    let on = |text: String| text.replace("[gateway]\n", "[gateway]\nshortcut = true\n");
    let one = world.start(&on(configuration(&world)));
    world.change("role active");
    let two = second.start(&on(second.configuration(&world, "")));
    in_step(&world, &second);
    let mut talks = Talks::open(&world);
    let busy = talks.busy.len() as u64;
    eventually("the first to carry what is busy", || carried(&world.totals()) == busy);
    eventually("the second to know all flows", || second.totals().engine.flows == FLOWS);
    assert_eq!(carried(&second.totals()), 0, "it stands by");
    one.kill();
    second.change("role active");
    second.lead(&world);
    talks.go_on("after the death of the first");
    eventually("the second to carry what is busy", || carried(&second.totals()) == busy);
    assert_eq!(second.totals().engine.flows, FLOWS, "{}", second.log());
    talks.busy.into_iter().for_each(Busy::end);
    assert!(two.terminate().success());
}
