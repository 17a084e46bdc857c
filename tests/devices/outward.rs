//! Servers behind a masquerading gateway with a firewall, with the programs that servers run: queries of names and of the
//! time, pings and downloads find their answers outside, while the services of the same servers are balanced.

use crate::WEB;
use crate::servers::WHO;
use crate::world::{CLIENT, Running, SERVICE, World, eventually, program, run};
use equipoise::gateway::netns::Namespace;
use std::net::UdpSocket;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A balanced service on the port to which the servers' own queries go.
const DNS: crate::Service = ("dns", "53/udp", 3, 53);
/// The number of the nginx outside.
const OUTSIDE: usize = 9;

/// What the documentation tells to accept, beside what servers and clients exchange without the gateway. Connections of
/// the servers leave with the address of the gateway.
const GATEWAY: &str = "table inet gateway {
    chain out { type nat hook postrouting priority srcnat; oifname \"client\" masquerade; };
    chain forward { type filter hook forward priority filter; policy drop;
        ct state invalid drop; ct state established,related accept;
        iifname \"equipoise0\" accept; oifname \"equipoise0\" accept;
        iifname \"server*\" oifname \"client\" accept; };
}";

/// Nobody outside has a way to the servers' addresses.
const BEYOND: &str = "table inet beyond { chain input { type filter hook input priority filter;
    ct state new ip saddr 10.99.0.0/16 drop; ct state new ip6 saddr fd99::/32 drop; }; }";

fn nft(world: &World, namespace: &Namespace, rules: &str) {
    let file = world.dir.path().join("rules.nft");
    std::fs::write(&file, rules).unwrap();
    let output = run(namespace.command(program("nft").to_str().unwrap()).arg("-f").arg(file));
    assert!(output.status.success(), "{rules}: {}", String::from_utf8_lossy(&output.stderr));
}

fn command(namespace: &Namespace, name: &str, args: &[&str]) -> Command {
    let mut command = namespace.command(program(name).to_str().unwrap());
    command.args(args);
    command
}

/// What servers reach outside: names, time, pages.
fn outside(world: &World) -> [Running; 3] {
    let client = &world.client;
    let names = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="];
    let mut dns = command(client, "dnsmasq", &names);
    dns.args(["--user=root", "--log-facility=/dev/null", "--address=/outside.test/203.0.113.5"]);
    // Without control of the clock, files and sockets of its own.
    let pid = pid_file(world, "outside");
    let time = ["-d", "-x", "-u", "root", "allow", "local stratum 8", &pid, "cmdport 0", "bindcmdaddress /"];
    let all = [
        Running::start(&mut dns),
        Running::start(command(client, "chronyd", &time).stderr(std::process::Stdio::null())),
        world.nginx_in(client, OUTSIDE),
    ];
    for address in CLIENT {
        let address = address.parse().unwrap();
        world.reachable(client, address, 53);
        world.reachable(client, address, 8080);
        let socket = client.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // A client's packet of version 4 (RFC 5905, 7.3).
        let mut packet = [0; 48];
        packet[0] = 0x23;
        eventually("chronyd to answer", || {
            socket.send_to(&packet, (address, 123)).unwrap();
            socket.recv_from(&mut [0; 100]).is_ok()
        });
    }
    all
}

/// chronyd's directive for its pid file; each needs one of its own.
fn pid_file(world: &World, name: &str) -> String {
    format!("pidfile {}", world.dir.path().join(name).with_extension("pid").display())
}

fn succeeded(output: &Output, what: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text.trim().to_owned()
}

/// Asks from a server for all that is outside.
fn asks(world: &World, n: usize, family: usize) {
    let (server, to) = (&world.servers[n - 1], CLIENT[family]);
    let what = |name: &str| format!("{name} of server{n}, IPv{}\n{}", [4, 6][family], world.log());
    for transport in ["+notcp", "+tcp"] {
        let at = format!("@{to}");
        let dig = ["+short", "+tries=1", "+time=5", transport, &at, "outside.test", "A"];
        assert_eq!(succeeded(&run(&mut command(server, "dig", &dig)), &what("dig")), "203.0.113.5", "{transport}");
    }
    let of = format!("server {to} iburst maxsamples 1");
    let pid = pid_file(world, &format!("server{n}-{family}"));
    let time = ["-q", "-x", "-u", "root", "-t", "15", &of, &pid, "cmdport 0", "bindcmdaddress /"];
    succeeded(&run(&mut command(server, "chronyd", &time)), &what("chronyd"));
    succeeded(&run(&mut command(server, "ping", &["-n", "-c", "3", "-i", "0.2", "-W", "5", to])), &what("ping"));
    let host = [to.to_owned(), format!("[{to}]")][family].clone();
    let page = ["-sS", "-g", "--max-time", "10", &format!("http://{host}:8080/")];
    assert_eq!(succeeded(&run(&mut command(server, "curl", &page)), &what("curl")), OUTSIDE.to_string());
}

/// Asks the services until told to stop, several times at least.
fn is_served(world: &World, family: usize, stop: &AtomicBool) {
    let mut times = 0;
    while times < 3 || !stop.load(Ordering::Relaxed) {
        times += 1;
        let number: usize = succeeded(&run(&mut world.curl(family, "")), "a client's page").parse().unwrap();
        assert!((1..=3).contains(&number));
        let (at, name) = (format!("@{}", SERVICE[family]), "who.test");
        let dig = ["+short", "+tries=1", "+time=5", &at, name, "A"];
        let answer = succeeded(&run(&mut command(&world.client, "dig", &dig)), "a client's query");
        assert!(["192.0.2.1", "192.0.2.2", "192.0.2.3"].contains(&answer.as_str()), "{answer}");
    }
}

#[test]
fn programs_of_servers_reach_the_outside_through_a_masquerade_and_a_firewall_while_their_services_are_balanced() {
    let world = World::new("outward");
    let _servers = (world.nginx(), world.dnsmasq());
    let _outside = outside(&world);
    nft(&world, &world.client, BEYOND);
    nft(&world, &world.gateway, GATEWAY);
    let _gateway = world.start(&world.configuration("", &[WEB, DNS]));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = [0, 1].map(|family| {
            scope.spawn({
                let (world, stop) = (&world, &stop);
                move || is_served(world, family, stop)
            })
        });
        let asking: Vec<_> = [(1, 0), (1, 1), (2, 0), (3, 1)]
            .into_iter()
            .map(|(n, family)| {
                scope.spawn({
                    let world = &world;
                    move || asks(world, n, family)
                })
            })
            .collect();
        let failed = asking.into_iter().filter_map(|thread| thread.join().err()).count();
        stop.store(true, Ordering::Relaxed);
        let unserved = clients.into_iter().filter_map(|thread| thread.join().err()).count();
        assert_eq!((failed, unserved), (0, 0));
    });
    // The masquerade was real: without it nobody answers. And no packet of the servers' own entered the device.
    nft(&world, &world.gateway, "flush chain inet gateway out");
    let socket = world.servers[0].run(|| UdpSocket::bind((World::server_address(1, 0), 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.send_to(WHO, (CLIENT[0], 53)).unwrap();
    assert!(socket.recv_from(&mut [0; 100]).is_err());
    assert_eq!(world.totals().engine.foreign, 0);
}
