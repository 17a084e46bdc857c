//! Starting, stopping, being killed, being started twice.

use crate::WEB;
use crate::world::{Running, World, eventually, run};
use rustix::process::Signal;
use std::time::Duration;

/// A request of each family succeeds.
fn serves(world: &World) {
    for family in [0, 1] {
        let output = run(&mut world.curl(family, ""));
        assert!(output.status.success(), "family {family}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Downloads of both families in progress.
fn traffic(world: &World) -> Vec<Running> {
    let curls = [0, 1].map(|family| Running::start(world.curl(family, "big").args(["-o", "/dev/null"])));
    eventually("downloads under way", || {
        world.flows(&["--service", "web"]).iter().filter(|r| r.bytes_out > 10_000).count() >= 2
    });
    curls.into()
}

#[test]
fn a_killed_gateway_restarts_without_manual_repair() {
    let world = World::new("kill");
    let _nginx = world.nginx();
    let configuration = world.configuration("", &[WEB]);
    let before = world.system();
    for _ in 0..2 {
        let gateway = world.start(&configuration);
        let _downloads = traffic(&world);
        gateway.kill();
        assert_ne!(world.system(), before, "a killed gateway leaves its rules: otherwise this test shows nothing");
    }
    let gateway = world.start(&configuration);
    serves(&world);
    assert_eq!(world.totals().engine.flows_opened, 2);
    assert!(gateway.terminate().success());
    assert_eq!(world.system(), before);
    assert!(!world.socket().exists());
}

#[test]
fn signals_leave_no_trace_even_in_mid_traffic() {
    let world = World::new("signals");
    let _nginx = world.nginx();
    let configuration = world.configuration("", &[WEB]);
    let before = world.system();
    for signal in [Signal::TERM, Signal::INT] {
        let gateway = world.start(&configuration);
        let during = world.system();
        assert!(during.contains("equipoise0") && during.contains("192.0.2.80"), "{during}");
        let _downloads = traffic(&world);
        let status = gateway.end_with(signal);
        assert!(status.success(), "{signal:?}: {status}");
        assert_eq!(world.system(), before, "{signal:?}");
        assert!(!world.socket().exists(), "{signal:?}");
    }
}

#[test]
fn a_gateway_that_was_started_by_nohup_outlives_its_terminal() {
    let world = World::new("nohup");
    let _nginx = world.nginx();
    let gateway = world.start_by(&world.configuration("", &[WEB]), &["nohup"]);
    gateway.signal(Signal::HUP);
    // Nor does it reload, as nobody has asked for that.
    std::fs::write(world.file(), "no configuration").unwrap();
    serves(&world);
    assert!(gateway.terminate().success());
}

#[test]
fn a_signal_in_the_middle_of_setting_up_leaves_no_trace() {
    let world = World::new("early");
    let configuration = world.configuration("", &[WEB]);
    let before = world.system();
    for micros in [0, 200, 500, 1000, 2000, 5000] {
        let gateway = Running::start(world.equipoise(&configuration, &[]).stderr(std::process::Stdio::null()));
        // The socket is the first thing that a gateway creates.
        while !world.socket().exists() {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(micros));
        let status = gateway.end_with(Signal::TERM);
        assert!(status.success(), "after {micros} us: {status}");
        assert_eq!(world.system(), before, "after {micros} us");
        assert!(!world.socket().exists(), "after {micros} us");
    }
}

#[test]
fn a_second_gateway_is_refused_and_does_the_first_no_harm() {
    let world = World::new("second");
    let _nginx = world.nginx();
    let configuration = world.configuration("", &[WEB]);
    let first = world.start(&configuration);
    let during = world.system();
    let with = |text: &str, line: &str| text.replace("[gateway]\n", &format!("[gateway]\n{line}\n"));
    let own_device = with(&configuration, "device = \"second0\"");
    let own_both = own_device.replace("control.sock", "second.sock");
    let own_all = with(&own_both, "route-table = 77\nrule-priority = 77");
    let table = "routing table 4242 already belongs to another gateway, with device equipoise0";
    for (what, configuration, want) in [
        ("the same", &configuration, "a process has the gateway's device equipoise0 open"),
        ("another device", &own_device, "another gateway is running: it answers at"),
        ("another socket too", &own_both, table),
        ("all its own but the services", &own_all, "it is already routed"),
    ] {
        let (code, said) = world.start_in_vain(configuration, &[]);
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(said.contains(want), "{what}: want {want:?} in: {said}");
        assert_eq!(world.system(), during, "{what}");
        serves(&world);
    }
    assert_eq!(world.totals().engine.flows_opened, 8);
    assert!(first.terminate().success());
}
