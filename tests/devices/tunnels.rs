//! Tunnels through a service: what is carried inside has a checksum of its own, which may be unfinished on its way.

use crate::world::{CLIENT, SERVICE, World};
use equipoise::gateway::netns::Namespace;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Bytes sent each way.
const BYTES: usize = 300_000;

/// A VXLAN device towards one remote end, with the same port at both ends, as a translator of ports needs it.
fn vxlan(namespace: &Namespace, (local, remote): (IpAddr, IpAddr), sum: &str, inner: &str) {
    let words =
        format!("link add vx type vxlan id 5 local {local} remote {remote} dstport 4789 srcport 4789 4790 {sum}");
    for words in [&words, "link set vx mtu 1300 up", &format!("address add {inner} dev vx")] {
        let output = namespace.command("ip").args(words.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Moves bytes both ways over a connection inside the tunnel.
fn talk(world: &World) {
    let listener = world.servers[0].run(|| TcpListener::bind("10.5.0.2:7000")).unwrap().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut got = vec![0; BYTES];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(&got).unwrap();
    });
    let to = "10.5.0.2:7000".parse().unwrap();
    let stream = world.client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(20))).unwrap();
    let mut stream = stream.expect("a connection inside the tunnel");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let sent: Vec<u8> = (0..BYTES).map(|n| (n * 7) as u8).collect();
    stream.write_all(&sent).unwrap();
    let mut back = vec![0; BYTES];
    stream.read_exact(&mut back).unwrap();
    assert!(back == sent, "what came back differs");
    server.join().unwrap();
}

fn tunnel(name: &str, family: usize, sum: &str) {
    let world = World::new(name);
    // Then the gateway's kernel completes what it sends, where the receiver can see whether it is right.
    world.plain_cables();
    let _gateway = world.start(&world.configuration("", &[("vxlan", "4789/udp", 1, 0)]));
    let (client, service): (IpAddr, IpAddr) = (CLIENT[family].parse().unwrap(), SERVICE[family].parse().unwrap());
    vxlan(&world.client, (client, service), sum, "10.5.0.1/24");
    vxlan(&world.servers[0], (World::server_address(1, family), client), sum, "10.5.0.2/24");
    talk(&world);
    let totals = world.totals();
    assert!(totals.engine.translated > 300, "{totals:?}");
    assert_eq!(totals.device.bad_headers, 0);
}

#[test]
fn tcp_inside_vxlan_passes_with_outer_checksums() {
    tunnel("vx4", 0, "udpcsum");
}

#[test]
fn tcp_inside_vxlan_passes_without_outer_checksums() {
    tunnel("vx0", 0, "noudpcsum");
}

#[test]
fn tcp_inside_vxlan_passes_over_ipv6() {
    tunnel("vx6", 1, "");
}
