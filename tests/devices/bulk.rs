//! Bulk data through the device, in both directions and both families, with and without segmentation offload.
//!
//! No rate is asserted: `tools/bench-offload` measures.

use crate::Service;
use crate::world::{Running, SERVICE, World, program, run};
use equipoise::control::Totals;
use serde_json::Value;

/// One server: iperf3's control and data connections must go to the same one.
const IPERF: Service = ("iperf", "5201/tcp", 1, 0);

/// Runs iperf3 in both families and both directions for this long, checks each against the server's row, and returns
/// the totals.
fn move_bytes(world: &World, gateway: &str, amount: [&str; 2]) -> Totals {
    let iperf = program("iperf3");
    let iperf = iperf.to_str().unwrap();
    let _server = Running::start(world.servers[0].command(iperf).args(["-s", "--logfile", "/dev/null"]));
    world.listening(1, 5201);
    let running = world.start(&world.configuration(gateway, &[IPERF]));
    for address in SERVICE {
        for direction in [&[][..], &["-R"]] {
            let before = world.server_rows().remove(0);
            let mut client = world.client.command(iperf);
            client.args(["--json", "--connect-timeout", "10000", "-c", address]).args(amount).args(direction);
            let output = run(&mut client);
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{address} {direction:?}: {}\n{text}", output.status);
            let report: Value = serde_json::from_str(&text).unwrap();
            let received = report["end"]["sum_received"]["bytes"].as_u64().expect("bytes received");
            assert!(received > 100_000, "{address} {direction:?}: {received} bytes");
            let after = world.server_rows().remove(0);
            let moved = if direction.is_empty() {
                after.bytes_in - before.bytes_in
            } else {
                after.bytes_out - before.bytes_out
            };
            assert!(moved > received, "{address} {direction:?}: {moved} bytes of packets for {received} of data");
            assert_eq!(after.flows_total - before.flows_total, 2, "a control and a data connection");
        }
    }
    let row = world.server_rows().remove(0);
    let totals = world.totals();
    assert_eq!(row.packets_in + row.packets_out, totals.engine.translated);
    assert_eq!(totals.engine.translated, totals.engine.packets_in, "nothing else arrived: {:?}", totals.engine);
    assert_eq!(totals.device.read_bytes, totals.engine.bytes_in);
    assert_eq!(totals.device.write_failures, 0);
    assert_eq!((totals.device.read, totals.device.read_bytes), (totals.device.written, totals.device.written_bytes));
    assert!(running.terminate().success());
    totals
}

#[test]
fn with_offload_super_packets_pass_whole() {
    let totals = move_bytes(&World::new("offload"), "offload = true", ["-t", "1"]);
    assert!(totals.device.super_packets > 0, "{:?}", totals.device);
    assert!(totals.engine.packets_in > totals.device.read, "a super-packet counts as several: {totals:?}");
}

#[test]
fn without_offload_every_packet_fits_the_device() {
    let totals = move_bytes(&World::new("plain"), "offload = false", ["-t", "1"]);
    assert_eq!(totals.device.super_packets, 0);
    assert_eq!(totals.engine.packets_in, totals.device.read);
    assert!(totals.device.read_bytes <= totals.device.read * 1500, "{:?}", totals.device);
}

#[test]
fn partial_checksums_are_patched_as_partial() {
    let world = World::new("sums");
    world.plain_cables();
    let totals = move_bytes(&world, "offload = true", ["-n", "4M"]);
    assert!(totals.device.super_packets > 0, "{:?}", totals.device);
}
