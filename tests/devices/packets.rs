//! Packets other than TCP connections: pings, UDP, packets of no service, packets of no flow.

use crate::Service;
use crate::world::{CLIENT, SERVICE, World, program, run};
use equipoise::engine::Consumed;
use equipoise::flow::TimeoutState;
use equipoise::gateway::netns::Namespace;
use equipoise::packet::Protocol;
use std::net::{IpAddr, TcpListener, TcpStream};

const ECHO: Service = ("echo", "7/udp", 1, 7777);
const PING: Service = ("ping", "icmp", 3, 0);

/// Three pings from the client, all replied to.
fn ping(world: &World, address: &str) {
    let mut ping = world.client.command(program("ping").to_str().unwrap());
    let output = run(ping.args(["-n", "-c", "3", "-i", "0.01", "-W", "10", address]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("3 received"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn client_address(family: usize) -> IpAddr {
    CLIENT[family].parse().unwrap()
}

#[test]
fn the_gateway_answers_pings_of_a_service_address() {
    let world = World::new("vip");
    let _gateway = world.start(&world.configuration("", &[ECHO]));
    for (family, address) in SERVICE.iter().enumerate() {
        ping(&world, address);
        let engine = world.totals().engine;
        let want = 3 * (family as u64 + 1);
        let echoes = engine.consumed.iter().find(|c| c.kind == Consumed::Echo).unwrap().count;
        assert_eq!((echoes, engine.transmitted, engine.packets_in, engine.flows_opened), (want, want, want, 0));
    }
}

#[test]
fn pings_of_an_icmp_service_go_to_its_servers() {
    let world = World::new("icmp");
    let _gateway = world.start(&world.configuration("", &[PING]));
    for address in SERVICE {
        ping(&world, address);
    }
    let rows = world.flows(&["--protocol", "icmp"]);
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(
            (row.protocol, row.state, row.packets_in, row.packets_out),
            (Protocol::Icmp, TimeoutState::Icmp, 3, 3)
        );
    }
    assert_eq!(world.totals().engine.translated, 12);
}

#[test]
fn udp_goes_both_ways_and_its_flow_shows_it() {
    two_ways(&World::new("udp"));
}

#[test]
fn udp_checksums_are_valid_when_the_kernel_completes_them() {
    let world = World::new("udpsums");
    world.plain_cables();
    two_ways(&world);
}

fn two_ways(world: &World) {
    let _gateway = world.start(&world.configuration("", &[ECHO]));
    for family in [0, 1] {
        let server = world.udp_socket(Some(1), World::server_address(1, family), 7777);
        let client = world.udp_socket(None, client_address(family), 5555);
        client.connect((SERVICE[family], 7)).unwrap();
        let mut buffer = [0; 2000];
        for round in 0..3 {
            client.send(&[round; 1000]).unwrap();
            let (len, from) = server.recv_from(&mut buffer).expect("the question");
            assert_eq!((len, from), (1000, (client_address(family), 5555).into()), "servers see the client itself");
            if round == 0 {
                assert_eq!(world.flows(&["--client", CLIENT[family]])[0].state, TimeoutState::UdpOneWay);
            }
            server.send_to(&buffer[..len], from).unwrap();
            assert_eq!(client.recv(&mut buffer).expect("the reply, from the service's address"), 1000);
            assert_eq!(buffer[..1000], [round; 1000]);
        }
        let row = world.flows(&["--client", CLIENT[family]]).remove(0);
        let bytes = 3 * (1000 + 8 + [20, 40][family]);
        assert_eq!(
            (row.state, row.service.as_str(), row.server.as_str()),
            (TimeoutState::UdpTwoWay, "echo", "server1")
        );
        assert_eq!((row.packets_in, row.packets_out, row.bytes_in, row.bytes_out), (3, 3, bytes, bytes));
    }
    assert_eq!(world.flows(&[]).len(), 2);
}

/// Routes what comes from the client to the device, whatever its destination.
fn divert(world: &World) {
    for family in ["-4", "-6"] {
        let mut rule = world.gateway.command(program("ip").to_str().unwrap());
        let output = run(rule.args([family, "rule", "add", "iif", "client", "lookup", "4242", "priority", "4000"]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn foreign_packets_pass_unchanged_and_are_counted() {
    let world = World::new("foreign");
    let _gateway = world.start(&world.configuration("", &[ECHO]));
    divert(&world);
    for (n, family) in [0, 1].into_iter().enumerate() {
        ping(&world, &World::server_address(2, family).to_string());
        let server = world.udp_socket(Some(2), World::server_address(2, family), 9999);
        let client = world.udp_socket(None, client_address(family), 5555);
        client.send_to(b"hello", (World::server_address(2, family), 9999)).unwrap();
        let mut buffer = [0; 16];
        let (len, from) = server.recv_from(&mut buffer).expect("a foreign datagram");
        assert_eq!((&buffer[..len], from), (&b"hello"[..], (client_address(family), 5555).into()));
        let engine = world.totals().engine;
        assert_eq!((engine.foreign, engine.packets_in), (4 * (n as u64 + 1), 4 * (n as u64 + 1)), "{engine:?}");
    }
    let listener = world.servers[1].run(|| TcpListener::bind((World::server_address(2, 0), 9998))).unwrap().unwrap();
    let connected = world.client.run(|| TcpStream::connect((World::server_address(2, 0), 9998))).unwrap();
    connected.expect("a foreign connection");
    drop(listener);
    assert!(world.totals().engine.foreign > 8);
    assert_eq!((world.totals().engine.flows_opened, world.totals().engine.translated), (0, 0));
}

#[test]
fn what_a_server_sends_from_its_service_port_outside_of_flows_arrives() {
    let world = World::new("noflow");
    let _gateway = world.start(&world.configuration("", &[ECHO]));
    for family in [0, 1] {
        let client = world.udp_socket(None, client_address(family), 5555);
        let service_port = world.udp_socket(Some(1), World::server_address(1, family), 7777);
        let other_port = world.udp_socket(Some(1), World::server_address(1, family), 7778);
        for (from, data) in [(&service_port, b"service"), (&other_port, b"another")] {
            from.send_to(data, (client_address(family), 5555)).unwrap();
            let mut buffer = [0; 16];
            let (len, source) = client.recv_from(&mut buffer).expect("the server's own datagram");
            assert_eq!((&buffer[..len], source), (&data[..], from.local_addr().unwrap()));
        }
        // A client that does not come by the service address.
        client.send_to(b"direct", (World::server_address(1, family), 7777)).unwrap();
        let mut buffer = [0; 16];
        let (len, source) = service_port.recv_from(&mut buffer).expect("a datagram past the service address");
        service_port.send_to(&buffer[..len], source).unwrap();
        let (len, source) = client.recv_from(&mut buffer).expect("its answer");
        assert_eq!((&buffer[..len], source), (&b"direct"[..], service_port.local_addr().unwrap()));
    }
}

/// Packets from the servers' side that are not replies: their own pings, the gateway's, and neighbour discovery.
#[test]
fn icmp_that_is_not_about_flows_stays_outside() {
    pings_pass("icmpown", &[], 0);
}

/// The same without BPF: a server's request enters and passes unchanged, and the client's reply is not routed there.
#[test]
fn icmp_that_is_not_about_flows_passes_where_replies_cannot_be_marked() {
    pings_pass("icmpall", crate::marks::WITHOUT_BPF, 3);
}

fn pings_pass(name: &str, wrap: &[&str], entering: u64) {
    let world = World::new(name);
    let _gateway = world.start_by(&world.configuration("", &[ECHO]), wrap);
    let pings = |from: &Namespace, to: &str| {
        // Neighbour discovery before the first ping.
        for namespace in [from, &world.gateway] {
            let output = run(namespace.command(program("ip").to_str().unwrap()).args(["neigh", "flush", "all"]));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let mut ping = from.command(program("ping").to_str().unwrap());
        let output = run(ping.args(["-n", "-c", "3", "-i", "0.01", "-W", "10", to]));
        assert!(output.status.success(), "{} to {to}: {}", from.label(), String::from_utf8_lossy(&output.stdout));
    };
    let foreign = || world.totals().engine.foreign;
    for family in [0, 1] {
        let [gateway, other] = [["10.99.1.1", "10.99.2.2"], ["fd99:0:0:1::1", "fd99:0:0:2::2"]][family];
        let before = foreign();
        pings(&world.gateway, &World::server_address(1, family).to_string());
        pings(&world.servers[0], gateway);
        assert_eq!(foreign(), before, "the gateway's own do not enter the device");
        pings(&world.servers[0], CLIENT[family]);
        assert_eq!(foreign(), before + entering);
        pings(&world.servers[0], other);
        // Server2 serves nothing, and no server is reached through its interface: only requests can enter.
        assert_eq!(foreign(), before + 2 * entering);
    }
    let engine = world.totals().engine;
    let dropped = engine.dropped.iter().map(|c| c.count).sum::<u64>();
    assert_eq!((engine.packets_in, dropped), (4 * entering, 0), "{engine:?}");
}
