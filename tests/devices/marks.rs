//! Whose packet it is: servers talk for themselves, and with clients that do not come by the service address, as without a
//! gateway, while their services are balanced; on gateways with masquerading, firewalls and reverse-path checks.

use crate::WEB;
use crate::world::{CLIENT, Running, SERVICE, World, run};
use equipoise::gateway::netns::Namespace;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

/// Starts a program that may not load BPF programs.
pub const WITHOUT_BPF: &[&str] = &["setpriv", "--bounding-set=-bpf,-sys_admin"];

/// A UDP service besides [`WEB`].
const ECHO: crate::Service = ("echo", "7/udp", 1, 0);
const WAIT: Duration = Duration::from_secs(3);

fn client(family: usize) -> IpAddr {
    CLIENT[family].parse().unwrap()
}

fn at(namespace: &Namespace, words: &str) {
    let mut words = words.split_whitespace();
    let output = run(namespace.command(words.next().unwrap()).args(words));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Loads a ruleset into the gateway's namespace.
fn nft(world: &World, ruleset: &str) {
    let mut command = world.gateway.command("nft");
    let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(ruleset.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn udp(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket
}

/// Sends a datagram and has it answered by whoever it came from; says what did not arrive.
fn exchange(asks: &UdpSocket, to: SocketAddr, answers: &UdpSocket) -> Result<(), String> {
    let mut buffer = [0; 2000];
    asks.send_to(b"question", to).map_err(|e| e.to_string())?;
    let (_, from) = answers.recv_from(&mut buffer).map_err(|e| format!("the question: {e}"))?;
    answers.send_to(b"answer", from).map_err(|e| e.to_string())?;
    let (_, from) = asks.recv_from(&mut buffer).map_err(|e| format!("the answer: {e}"))?;
    if from == to { Ok(()) } else { Err(format!("the answer came from {from} and not from {to}")) }
}

/// Opens a connection and moves a byte each way.
fn connect(from: &Namespace, to: SocketAddr, at: &Namespace, bound: SocketAddr) -> Result<(), String> {
    let listener = at.run(|| TcpListener::bind(bound)).unwrap().map_err(|e| e.to_string())?;
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(WAIT))?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)
    });
    let stream = from.run(|| TcpStream::connect_timeout(&to, WAIT)).unwrap();
    // Without a connection the listener would wait for ever.
    let mut stream = stream.map_err(|e| format!("connecting to {to}: {e}"))?;
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.write_all(b"x").map_err(|e| e.to_string())?;
    stream.read_exact(&mut [0]).map_err(|e| format!("the echo from {to}: {e}"))?;
    server.join().unwrap().map_err(|e| e.to_string())
}

/// What a server and clients do; each named, with what went wrong.
fn situations(world: &World) -> Vec<(String, Result<(), String>)> {
    let server = &world.servers[0];
    let mut all = Vec::new();
    for family in [0, 1] {
        let (own, service) = (World::server_address(1, family), SERVICE[family].parse::<IpAddr>().unwrap());
        let client = client(family);
        let mut note = |what: &str, result| all.push((format!("IPv{}: {what}", [4, 6][family]), result));
        // The services.
        let output = run(&mut world.curl(family, ""));
        note("a page of the service", output.status.success().then_some(()).ok_or("curl failed".into()));
        let (echo, asks) = (udp(server, (own, 7).into()), udp(&world.client, (client, 0).into()));
        note("a datagram to the service", exchange(&asks, (service, 7).into(), &echo));
        let big = udp(&world.client, (client, 0).into());
        let sent = big.send_to(&[7; 4000], (service, 7)).map(drop).map_err(|e| e.to_string());
        let mut buffer = [0; 5000];
        let got = sent.and_then(|()| echo.recv_from(&mut buffer).map_err(|e| format!("the fragments: {e}")));
        let back = got.and_then(|(len, from)| echo.send_to(&buffer[..len], from).map_err(|e| e.to_string()));
        let read = back.and_then(|_| big.recv(&mut buffer).map_err(|e| format!("the fragments back: {e}")));
        note("a fragmented datagram", read.map(drop));
        // The server's own traffic.
        let answers = udp(&world.client, (client, 53).into());
        note("a query of the server", exchange(&udp(server, (own, 0).into()), (client, 53).into(), &answers));
        note("a query from its service port", exchange(&echo, (client, 53).into(), &answers));
        let ping = run(server.command("ping").args(["-n", "-c", "1", "-W", "3", CLIENT[family]]));
        note("a ping of the server", ping.status.success().then_some(()).ok_or("no answer".into()));
        note(
            "a connection of the server",
            connect(server, (client, 7100).into(), &world.client, (client, 7100).into()),
        );
        // Clients that do not come by the service address.
        let direct = udp(&world.client, (client, 0).into());
        note("a datagram past the service", exchange(&direct, (own, 7).into(), &echo));
        let page = run(&mut world.curl_at(&format!("{}", SocketAddr::new(own, 8080)), ""));
        note("a page past the service", page.status.success().then_some(()).ok_or("curl failed".into()));
    }
    all
}

fn assert_all(world: &World, what: &str) {
    let failed: Vec<_> = situations(world).into_iter().filter(|(_, result)| result.is_err()).collect();
    assert!(failed.is_empty(), "{what}: {failed:#?}\n{}\n{:?}", world.log(), world.totals().engine);
}

fn start(world: &World) -> Running {
    world.start(&world.configuration("", &[WEB, ECHO]))
}

/// A table that masquerades what matches.
fn masquerade(what: &str) -> String {
    format!("table inet masq {{ chain post {{ type nat hook postrouting priority srcnat; {what} masquerade; }}; }};")
}

#[test]
fn nothing_but_packets_of_flows_enters_the_device() {
    let world = World::new("mkplain");
    let _nginx = world.nginx();
    let _gateway = start(&world);
    assert_all(&world, "plain");
    let engine = world.totals().engine;
    assert_eq!(engine.foreign, 0, "{engine:?}");
}

#[test]
fn servers_behind_a_masquerading_gateway_talk_for_themselves() {
    let world = World::new("mkmasq");
    let _nginx = world.nginx();
    let _gateway = start(&world);
    // As most guides have it, and as Docker has it.
    for what in ["oifname \"client\"", "iifname \"server1\" oifname != \"server1\""] {
        nft(&world, &masquerade(what));
        assert_all(&world, what);
        nft(&world, "delete table inet masq");
    }
    assert_eq!(world.totals().engine.foreign, 0);
}

#[test]
fn a_masquerade_that_comes_later_is_kept_away_from_flows() {
    let world = World::new("mklate");
    let _nginx = world.nginx();
    let gateway = start(&world);
    let tables = || {
        let output = run(world.gateway.command("nft").args(["list", "tables"]));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(tables(), "");
    nft(&world, &masquerade(""));
    crate::world::eventually("the table", || tables().contains("table inet equipoise_4242"));
    assert_all(&world, "masquerade of everything");
    assert!(world.log().contains("NAT rules of this machine leave flows alone"), "{}", world.log());
    // Somebody ends the program that owns the table.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", gateway.id())).unwrap();
    assert!(run(std::process::Command::new("kill").args(children.split_whitespace())).status.success());
    let status = || {
        let output = world.eqctl_raw(&["status"]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    crate::world::eventually("exit code 3", || status().0 == Some(3));
    let (_, said) = status();
    assert!(said.contains("the NAT of others breaks flows that its rules match: nft takes no commands"), "{said}");
    assert!(gateway.terminate().success());
}

#[test]
fn a_strict_firewall_lets_flows_and_the_servers_own_traffic_pass() {
    let world = World::new("mkwall");
    let _nginx = world.nginx();
    let _gateway = start(&world);
    nft(
        &world,
        "table inet wall { chain forward { type filter hook forward priority filter; policy drop; \
         ct state invalid drop; ct state established,related accept; \
         iifname \"equipoise0\" accept; oifname \"equipoise0\" accept; \
         iifname \"server1\" oifname \"client\" accept; iifname \"client\" oifname \"server1\" accept; }; };",
    );
    assert_all(&world, "a firewall");
}

#[test]
fn reverse_path_checks_of_any_strictness_lose_nothing() {
    let world = World::new("mkrpf");
    let _nginx = world.nginx();
    let _gateway = start(&world);
    for (all, outside) in [("2", "0"), ("1", "0"), ("0", "1"), ("0", "2")] {
        world.gateway.sysctl("net/ipv4/conf/all/rp_filter", all).unwrap();
        world.gateway.sysctl("net/ipv4/conf/client/rp_filter", outside).unwrap();
        assert_all(&world, &format!("rp_filter all {all}, outside {outside}"));
    }
}

#[test]
fn a_reverse_path_check_by_nftables_loses_nothing() {
    let world = World::new("mkfib");
    let _nginx = world.nginx();
    let _gateway = start(&world);
    // firewalld's default for IPv6.
    nft(
        &world,
        "table inet check { chain pre { type filter hook prerouting priority mangle + 10; \
         icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept; \
         meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }; };",
    );
    assert_all(&world, "fib check");
}

#[test]
fn without_bpf_nothing_of_no_flow_is_dropped_and_the_log_says_what_is_limited() {
    let world = World::new("mkless");
    let _nginx = world.nginx();
    let _gateway = world.start_by(&world.configuration("", &[WEB, ECHO]), WITHOUT_BPF);
    assert_all(&world, "plain, without BPF");
    let log = world.log();
    assert!(log.contains("no BPF program can be used") && log.contains("CAP_BPF"), "{log}");
    assert!(world.totals().engine.foreign > 0);
}

#[test]
fn a_device_that_comes_later_is_marked_too() {
    let world = World::new("mklater");
    let _nginx = world.nginx();
    let _gateway = start(&world);
    // The server moves behind a bridge.
    for words in [
        "ip link add name lan type bridge",
        "ip address flush dev server1",
        "ip link set server1 master lan",
        "ip link set lan up",
        "ip address add 10.99.1.1/24 dev lan",
        "ip address add fd99:0:0:1::1/64 dev lan nodad",
    ] {
        at(&world.gateway, words);
    }
    crate::world::eventually("the services behind the bridge", || {
        situations(&world).iter().all(|(_, result)| result.is_ok())
    });
    assert_eq!(world.totals().engine.foreign, 0);
}

/// The kernel of the gateway finds nobody at a server's address, and says so to the client: about a packet that the client
/// has not sent, unless it is translated.
#[test]
fn a_dead_host_is_reported_to_the_client_in_terms_of_its_own_packet() {
    let world = World::new("mkdead");
    for server in &world.servers {
        at(server, "ip address flush dev eth0");
    }
    let _gateway = start(&world);
    for family in [0, 1] {
        let to = SocketAddr::new(SERVICE[family].parse().unwrap(), 80);
        let outcome = world.client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10))).unwrap();
        assert_eq!(outcome.unwrap_err().kind(), std::io::ErrorKind::HostUnreachable, "IPv{}", [4, 6][family]);
    }
}

/// Connections that say nothing on their own.
const QUIET: crate::Service = ("quiet", "7/tcp", 1, 7777);

/// Connections of which the server's end is the first to say something after a restart: both ends of one of the gateway's
/// hear that it is over, and one that goes past the gateway goes on.
#[test]
fn after_a_restart_both_ends_of_a_connection_hear_of_it_when_the_server_speaks_and_direct_ones_live() {
    let world = World::new("mkrestart");
    let open = |to: SocketAddr, own: IpAddr| {
        let listener = world.servers[0].run(|| TcpListener::bind((own, 7777))).unwrap().unwrap();
        let client = world.client.run(|| TcpStream::connect(to)).unwrap().unwrap();
        let server = listener.accept().unwrap().0;
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        (client, server)
    };
    let configuration = world.configuration("", &[QUIET]);
    let gateway = world.start(&configuration);
    let pairs = [0, 1].map(|family| {
        let own = World::server_address(1, family);
        let balanced = open((SERVICE[family].parse::<IpAddr>().unwrap(), 7).into(), own);
        (balanced, open((own, 7777).into(), own))
    });
    gateway.kill();
    let _gateway = world.start(&configuration);
    for ((mut client, mut server), mut direct) in pairs {
        for server_speaks in [true, false] {
            let (client, server) = (&mut direct.0, &mut direct.1);
            let (from, to) = if server_speaks { (server, client) } else { (client, server) };
            from.write_all(b"x").unwrap();
            to.read_exact(&mut [0]).expect("a direct connection goes on");
        }
        server.write_all(b"are you there?").unwrap();
        for end in [&mut client, &mut server] {
            let heard = end.read(&mut [0; 16]);
            assert_eq!(heard.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}
