//! The built `equipoise` on a real TUN device, between real programs, in network namespaces.
//!
//! It must not know anything inside the gateway: it looks through `eqctl`, as an operator would.

#![allow(clippy::disallowed_methods, reason = "real programs take real time")]

mod world;

use equipoise::packet::Protocol;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use world::{CLIENT, Running, SERVICE, World, eventually, program, run};

const WEB: (&str, &str, usize, u16) = ("web", "80/tcp", 3, 8080);
/// One server: iperf3's control and data connections must meet.
const IPERF: (&str, &str, usize, u16) = ("iperf", "5201/tcp", 1, 0);

#[test]
fn two_hundred_parallel_curls_succeed_and_spread_evenly() {
    let world = World::new("curl");
    let _nginx = world.nginx();
    let gateway = world.start(&world.configuration("", &[WEB]));
    for family in [0, 1] {
        let started: Vec<_> = (0..200).map(|_| world.curl(family, "").spawn().unwrap()).collect();
        let mut answers = [0; 3];
        for curl in started {
            let output = curl.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
            answers[text.trim().parse::<usize>().expect("a server's number") - 1] += 1;
        }
        assert!(answers.iter().all(|n| (66..=67).contains(n)), "family {family}: {answers:?}");
    }
    let rows = world.server_rows();
    assert_eq!(rows.iter().map(|r| r.flows_total).sum::<u64>(), 400);
    let totals = world.totals();
    assert_eq!(totals.engine.flows_opened, 400);
    assert!(totals.engine.dropped.iter().all(|c| c.count == 0), "{:?}", totals.engine.dropped);
    assert!(gateway.terminate().success());
}
