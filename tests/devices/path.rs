//! Packets that plain translation does not cover: fragments, path MTU, full NAT, hairpin, both families.

use crate::Service;
use crate::world::{CLIENT, SERVICE, World, program, run};
use equipoise::engine::Consumed;
use equipoise::gateway::netns::Namespace;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

const ECHO: Service = ("echo", "7/udp", 1, 7777);
const BULK: Service = ("bulk", "9/tcp", 1, 9999);
/// Bytes of a transfer that takes many full segments.
const MUCH: usize = 4 << 20;

/// A service with full NAT for one family, with servers of the other or of both.
fn full_nat(listen: &str, pool: &str, address: &str, port: &str) -> String {
    format!(
        "[[service]]\nname = \"{pool}\"\nlisten = [{listen}]\npool = \"{pool}\"\nnat = \"full\"\nnat-pool = \"out\"\n\
         [[pool]]\nname = \"{pool}\"\n[[pool.server]]\nname = \"s\"\naddress = {address}\n{port}\n"
    )
}

const POOL: &str = "[[nat-pool]]\nname = \"out\"\naddresses = [\"10.99.9.1\", \"fd99:0:0:9::1\"]\n";

/// Sends back what arrives, until the test ends.
fn echo(world: &World, family: usize) {
    let socket = world.udp_socket(Some(1), World::server_address(1, family), 7777);
    thread::spawn(move || {
        let mut buffer = vec![0; 65_535];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
}

fn mtu(namespace: &Namespace, device: &str, mtu: &str) {
    let output = run(namespace.command(program("ip").to_str().unwrap()).args(["link", "set", device, "mtu", mtu]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn fetched(world: &World, command: &mut std::process::Command) -> usize {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    let counters = || String::from_utf8(world.eqctl_raw(&["counters"]).stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", counters());
    output.stdout.len()
}

#[test]
fn clients_of_one_family_reach_servers_of_the_other() {
    let world = World::new("across");
    let _nginx = world.nginx_on(1);
    let [v4, v6] = SERVICE;
    let six = full_nat(&format!("\"[{v6}]:80/tcp\", \"[{v6}]/icmp\""), "four", "\"10.99.1.2\"", "port = 8080")
        + &full_nat(&format!("\"[{v6}]:9/tcp\""), "four-bulk", "\"10.99.1.2\"", "port = 9999");
    let four = full_nat(&format!("\"{v4}:80/tcp\", \"{v4}/icmp\""), "six", "\"fd99:0:0:1::2\"", "port = 8080")
        + &full_nat(&format!("\"{v4}:9/tcp\""), "six-bulk", "\"fd99:0:0:1::2\"", "port = 9999");
    let _gateway = world.start(&(world.configuration("", &[]) + POOL + &six + &four));
    for family in [0, 1] {
        assert_eq!(fetched(&world, &mut world.curl(family, "")), "1\n".len(), "family {family}");
        bulk(&world, 1 - family);
        transfer(&world, &world.client, family);
        let mut ping = world.client.command(program("ping").to_str().unwrap());
        let output = run(ping.args(["-n", "-c", "3", "-i", "0.01", "-W", "10", SERVICE[family]]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let rows = world.flows(&[]);
    assert!(rows.iter().all(|row| row.client.is_ipv4() != row.server_address.is_ipv4() && row.source.is_some()));
    assert_eq!(rows.len(), 6, "{rows:?}");
}

#[test]
fn a_server_reaches_its_own_service() {
    let world = World::new("hairpin");
    let _nginx = world.nginx_on(1);
    let [v4, v6] = SERVICE;
    let listen = format!("\"{v4}:80/tcp\", \"[{v6}]:80/tcp\"");
    let addresses = "[\"10.99.1.2\", \"fd99:0:0:1::2\"]";
    let much = format!("\"{v4}:9/tcp\", \"[{v6}]:9/tcp\"");
    let own = full_nat(&listen, "web", addresses, "port = 8080") + &full_nat(&much, "bulk", addresses, "port = 9999");
    let _gateway = world.start(&(world.configuration("", &[]) + POOL + &own));
    for host in [v4.to_owned(), format!("[{v6}]")] {
        let mut curl = world.servers[0].command(program("curl").to_str().unwrap());
        curl.args(["-sS", "-g", "--max-time", "20"]).arg(format!("http://{host}/"));
        assert_eq!(fetched(&world, &mut curl), "1\n".len(), "{host}");
    }
    for family in [0, 1] {
        bulk(&world, family);
        transfer(&world, &world.servers[0], family);
    }
    let nat = String::from_utf8(world.eqctl_raw(&["nat"]).stdout).unwrap();
    assert!(nat.contains("10.99.9.1") && nat.contains("64,511"), "{nat}");
}

#[test]
fn long_datagrams_go_both_ways_in_fragments() {
    let world = World::new("pieces");
    let _gateway = world.start(&world.configuration("", &[ECHO]));
    for family in [0, 1] {
        echo(&world, family);
        let client = world.udp_socket(None, CLIENT[family].parse().unwrap(), 5555);
        let sent: Vec<u8> = (0..4096u32).map(|i| (i % 251) as u8).collect();
        let mut buffer = [0; 65_535];
        // More than are remembered at a time.
        for _ in 0..1500 {
            client.send_to(&sent, (SERVICE[family], 7)).unwrap();
            let (len, from) = client.recv_from(&mut buffer).expect("the datagram back");
            assert_eq!((&buffer[..len], from.ip()), (&sent[..], SERVICE[family].parse::<IpAddr>().unwrap()));
        }
        let mut ping = world.client.command(program("ping").to_str().unwrap());
        let output = run(ping.args(["-n", "-c", "3", "-i", "0.01", "-W", "10", "-s", "3000", SERVICE[family]]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// A server that receives everything, then sends as much, on port 9999 of both families.
fn bulk(world: &World, family: usize) {
    let address = (World::server_address(1, family), 9999);
    let listener = world.servers[0].run(|| TcpListener::bind(address)).unwrap().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut taken = vec![0; MUCH];
        stream.read_exact(&mut taken).unwrap();
        stream.write_all(&taken).unwrap();
    });
}

/// Sends a lot and receives it back; the time limit tests that nothing stalls.
fn transfer(world: &World, from: &Namespace, family: usize) {
    let address: IpAddr = SERVICE[family].parse().unwrap();
    let mut stream = from.run(|| TcpStream::connect((address, 9))).unwrap().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let much: Vec<u8> = (0..MUCH).map(|i| (i % 253) as u8).collect();
    stream.write_all(&much).expect("the path there takes it");
    let mut back = vec![0; MUCH];
    let got = stream.read_exact(&mut back);
    let counters = || String::from_utf8(world.eqctl_raw(&["counters"]).stdout).unwrap();
    assert!(got.is_ok(), "family {family}, the path back: {got:?}\n{}", counters());
    assert!(back == much, "family {family}: different bytes came back");
}

#[test]
fn path_mtu_discovery_works_through_a_narrow_link_to_the_server() {
    let world = World::new("narrow");
    // The gateway's own link: its engine replies, about the packet that the client sent.
    mtu(&world.gateway, "server1", "1400");
    let _gateway = world.start(&world.configuration("", &[BULK, ECHO]));
    for family in [0, 1] {
        let client = world.udp_socket(None, CLIENT[family].parse().unwrap(), 5555);
        client.connect((SERVICE[family], 7)).unwrap();
        // IP_MTU_DISCOVER and IPV6_MTU_DISCOVER: never fragment locally.
        discover(&client, family);
        client.send(&vec![7; 1500 - [28, 48][family]]).unwrap();
        let refused = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(20));
            client.send(&vec![7; 1500 - [28, 48][family]]).is_err()
        });
        assert!(refused && known_mtu(&client, family) == 1400, "family {family}: {}", known_mtu(&client, family));
    }
    let too_big = || world.totals().engine.consumed.iter().find(|c| c.kind == Consumed::TooBig).unwrap().count;
    assert!(too_big() >= 2);
    mtu(&world.servers[0], "eth0", "1400");
    for family in [0, 1] {
        bulk(&world, family);
        transfer(&world, &world.client, family);
    }
}

#[test]
fn path_mtu_discovery_works_through_a_narrow_link_to_the_client() {
    let world = World::new("thin");
    mtu(&world.gateway, "client", "1400");
    let _gateway = world.start(&world.configuration("", &[BULK]));
    for family in [0, 1] {
        bulk(&world, family);
        transfer(&world, &world.client, family);
    }
}

fn discover(socket: &UdpSocket, family: usize) {
    use rustix::net::sockopt;
    if family == 0 {
        sockopt::set_ip_mtu_discover(socket, sockopt::Ipv4PathMtuDiscovery::DO).unwrap();
    } else {
        sockopt::set_ipv6_mtu_discover(socket, sockopt::Ipv6PathMtuDiscovery::DO).unwrap();
    }
}

fn known_mtu(socket: &UdpSocket, family: usize) -> u32 {
    use rustix::net::sockopt;
    if family == 0 { sockopt::ip_mtu(socket).unwrap() } else { sockopt::ipv6_mtu(socket).unwrap() }
}

#[test]
fn a_port_on_which_nothing_listens_is_unreachable() {
    let world = World::new("closed");
    let _gateway = world.start(&world.configuration("", &[ECHO]));
    for family in [0, 1] {
        let client = world.udp_socket(None, CLIENT[family].parse().unwrap(), 5555);
        client.connect((SERVICE[family], 33_434)).unwrap();
        client.send(b"traceroute").unwrap();
        let error = client.recv(&mut [0; 16]).expect_err("an ICMP error");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "family {family}: {error}");
    }
}

#[test]
fn a_traceroute_over_udp_ends_at_the_service() {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket as raw};
    let world = World::new("trace");
    let _gateway = world.start(&world.configuration("", &[ECHO]));
    echo(&world, 0);
    let listener =
        world.client.run(|| raw(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))).unwrap().unwrap();
    // It is used like any datagram socket.
    let listener = UdpSocket::from(listener);
    listener.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let client = world.udp_socket(None, CLIENT[0].parse().unwrap(), 5555);
    let hop = |ttl: u32, port: u16| {
        client.set_ttl(ttl).unwrap();
        client.send_to(b"where does it go?", (SERVICE[0], port)).unwrap();
        let mut buffer = [0; 1500];
        let (len, from) = listener.recv_from(&mut buffer).expect("an ICMP error");
        let at = usize::from(buffer[0] & 15) * 4;
        // It quotes the probe as it was sent: to the service.
        assert!(len >= at + 36 && buffer[at + 8 + 16..at + 8 + 20] == [192, 0, 2, 80], "{:02x?}", &buffer[..len]);
        (buffer[at], buffer[at + 1], from.ip().to_string())
    };
    // A port on which nothing listens: the gateway, then the service address itself.
    assert_eq!(hop(1, 33_434), (11, 0, "198.51.100.1".into()));
    assert_eq!(hop(2, 33_435), (3, 3, SERVICE[0].into()));
    // A service's port: the hop after the translation reports in the service's name, and the server replies after it.
    assert_eq!(hop(1, 7), (11, 0, "198.51.100.1".into()));
    assert_eq!(hop(2, 7), (11, 0, SERVICE[0].into()));
    client.set_ttl(3).unwrap();
    client.send_to(b"there", (SERVICE[0], 7)).unwrap();
    let mut buffer = [0; 64];
    let (len, from) = client.recv_from(&mut buffer).expect("the server's answer");
    assert_eq!((&buffer[..len], from.ip().to_string()), (&b"there"[..], SERVICE[0].to_owned()));
}

/// A raw socket of an IP protocol, bound to an address. It is used like any datagram socket.
fn raw_socket(namespace: &Namespace, address: IpAddr, protocol: u32) -> UdpSocket {
    use rustix::net::{AddressFamily, Protocol, SocketType, bind};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = Protocol::from_raw(protocol.try_into().unwrap());
    let socket = namespace.run(|| rustix::net::socket(family, SocketType::RAW, Some(protocol))).unwrap().unwrap();
    bind(&socket, &std::net::SocketAddr::new(address, 0)).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// Returns what arrives on a raw socket, without its IPv4 header, and its sender.
fn raw_receive(socket: &UdpSocket) -> (Vec<u8>, IpAddr) {
    let mut buffer = [0; 2048];
    let (len, from) = socket.recv_from(&mut buffer).expect("a packet of the protocol");
    let at = if from.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
    (buffer[at..len].to_vec(), from.ip())
}

/// An SCTP packet with its checksum (RFC 9260, 3.1 and appendix A).
fn sctp(from: u16, to: u16, chunk: &[u8]) -> Vec<u8> {
    let mut packet = [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 0, 0, 7, 0, 0, 0, 0], chunk].concat();
    let sum = crc32c::crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

#[test]
fn protocols_without_ports_are_balanced_by_address_and_sctp_by_its_ports() {
    const COOKIE_ACK: [u8; 4] = [11, 0, 0, 4];
    let world = World::new("others");
    let [v4, v6] = SERVICE;
    let service = |name: &str, listen: &str, port: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nlisten = [{listen}]\npool = \"{name}\"\n[[pool]]\nname = \"{name}\"\n\
             [[pool.server]]\nname = \"s\"\naddress = [\"10.99.1.2\", \"fd99:0:0:1::2\"]\n{port}\n"
        )
    };
    let text = service("tunnel", &format!("\"{v4}/gre\", \"[{v6}]/gre\""), "")
        + &service("signals", &format!("\"{v4}:2905/sctp\", \"[{v6}]:2905/sctp\""), "port = 12905");
    let _gateway = world.start(&(world.configuration("", &[]) + &text));
    for family in [0, 1] {
        let vip: IpAddr = SERVICE[family].parse().unwrap();
        let pair = |protocol| {
            let client = raw_socket(&world.client, CLIENT[family].parse().unwrap(), protocol);
            (client, raw_socket(&world.servers[0], World::server_address(1, family), protocol))
        };
        // GRE with nothing in it but a protocol of its own (RFC 2784, 2).
        let (client, server) = pair(47);
        client.send_to(b"\0\0\x88\xb5there", (vip, 0)).unwrap();
        let (came, from) = raw_receive(&server);
        assert_eq!((&came[..], from), (&b"\0\0\x88\xb5there"[..], CLIENT[family].parse().unwrap()));
        server.send_to(b"\0\0\x88\xb5back", (from, 0)).unwrap();
        assert_eq!(raw_receive(&client), (b"\0\0\x88\xb5back".to_vec(), vip));

        let (client, server) = pair(132);
        client.send_to(&sctp(5000, 2905, &COOKIE_ACK), (vip, 0)).unwrap();
        let (came, from) = raw_receive(&server);
        assert_eq!(came, sctp(5000, 12_905, &COOKIE_ACK), "family {family}: port and checksum");
        server.send_to(&sctp(12_905, 5000, &COOKIE_ACK), (from, 0)).unwrap();
        assert_eq!(raw_receive(&client), (sctp(2905, 5000, &COOKIE_ACK), vip), "family {family}: back");
    }
    assert_eq!(world.flows(&[]).len(), 4);
}

#[test]
fn both_families_reach_each_other_through_narrow_links_and_in_fragments() {
    let world = World::new("slender");
    mtu(&world.gateway, "server1", "1400");
    mtu(&world.servers[0], "eth0", "1400");
    let [v4, v6] = SERVICE;
    let six = full_nat(&format!("\"[{v6}]:9/tcp\""), "four-bulk", "\"10.99.1.2\"", "port = 9999")
        + &full_nat(&format!("\"[{v6}]:7/udp\""), "four-echo", "\"10.99.1.2\"", "port = 7777");
    let four = full_nat(&format!("\"{v4}:9/tcp\""), "six-bulk", "\"fd99:0:0:1::2\"", "port = 9999")
        + &full_nat(&format!("\"{v4}:7/udp\""), "six-echo", "\"fd99:0:0:1::2\"", "port = 7777");
    let _gateway = world.start(&(world.configuration("", &[]) + POOL + &six + &four));
    for family in [0, 1] {
        echo(&world, 1 - family);
        let client = world.udp_socket(None, CLIENT[family].parse().unwrap(), 5555);
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut buffer = [0; 65_535];
        for len in (1200..1500).step_by(7).chain([4096; 200]) {
            let sent: Vec<u8> = (0..len as u32).map(|i| (i % 251) as u8).collect();
            // The first packet of its size may be the one that reveals the path MTU to its sender.
            let got = (0..2).find_map(|_| {
                client.send_to(&sent, (SERVICE[family], 7)).unwrap();
                client.recv_from(&mut buffer).ok()
            });
            let Some((len, _)) = got else {
                let counters = String::from_utf8(world.eqctl_raw(&["counters"]).stdout).unwrap();
                panic!("family {family}, {len} bytes did not come back\n{counters}")
            };
            assert!(buffer[..len] == sent, "family {family}, {len} bytes");
        }
    }
    mtu(&world.gateway, "server1", "1500");
    mtu(&world.servers[0], "eth0", "1500");
    mtu(&world.gateway, "client", "1400");
    std::thread::sleep(Duration::from_secs(2));
    for family in [0, 1] {
        bulk(&world, 1 - family);
        transfer(&world, &world.client, family);
    }
}
