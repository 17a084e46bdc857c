//! The questions that each situation is asked: services, the servers' own traffic, direct traffic, errors; IPv4 and IPv6.

use crate::network::{CLIENTS_OWN, CLOSED, DEAD, ECHO, IN_RANGE, LATER, Network, WEB, answered, greeting};
use crate::world::{CLIENT, SERVICE, World, program};
use equipoise::gateway::netns::Namespace;
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the kernel takes to find out that a host does not exist, and more.
const NO_HOST: Duration = Duration::from_secs(6);

/// A question: its name, and whether the answer is right for an address family (0: IPv4).
pub struct Question {
    pub name: &'static str,
    ask: fn(&Network, usize) -> bool,
}

/// All of them.
pub const ALL: [Question; 13] = [
    Question { name: "service: TCP", ask: |net, f| client_gets(net, service(f, WEB[0]), "server") },
    Question { name: "service: UDP", ask: |net, f| client_is_answered(net, service(f, ECHO), &[b'x'; 100]) },
    Question {
        name: "service: UDP in fragments",
        ask: |net, f| client_is_answered(net, service(f, ECHO), &[b'x'; 4000]),
    },
    Question { name: "service: ping", ask: |net, f| pings(&net.world.client, SERVICE[f]) },
    Question { name: "service: closed UDP port", ask: closed_port_is_told },
    Question { name: "service: dead host", ask: dead_host_is_told },
    Question { name: "server: ping", ask: |net, f| pings(&net.world.servers[0], CLIENT[f]) },
    Question { name: "server: UDP", ask: servers_udp },
    Question { name: "server: UDP from its service port", ask: servers_udp_from_service_port },
    Question { name: "server: TCP", ask: servers_tcp },
    Question { name: "server: TCP from a port of a service", ask: servers_tcp_from_service_range },
    Question { name: "direct: TCP", ask: |net, f| client_gets(net, server(f, WEB[1]), "server1") },
    Question { name: "direct: UDP", ask: |net, f| client_is_answered(net, server(f, ECHO), &[b'x'; 100]) },
];

/// One that only makes sense once the kernel has forgotten the flow: an answer that takes 3 s.
pub const SLOW: Question =
    Question { name: "service: a slow answer", ask: |net, f| client_is_answered(net, service(f, ECHO), LATER) };

/// Asks all questions of `list` at once; returns the names of those that were answered wrongly.
pub fn ask(network: &Network, list: &[Question]) -> Vec<String> {
    let ask_one = |question: &Question, family: usize| {
        let right = (question.ask)(network, family);
        (!right).then(|| format!("{} ({})", question.name, ["IPv4", "IPv6"][family]))
    };
    std::thread::scope(|scope| {
        let asked: Vec<_> = list
            .iter()
            .flat_map(|question| [0, 1].map(|family| scope.spawn(move || ask_one(question, family))))
            .collect();
        asked.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    })
}

fn service(family: usize, port: u16) -> SocketAddr {
    SocketAddr::new(SERVICE[family].parse().unwrap(), port)
}

fn server(family: usize, port: u16) -> SocketAddr {
    SocketAddr::new(World::server_address(1, family), port)
}

fn client(family: usize) -> SocketAddr {
    SocketAddr::new(CLIENT[family].parse().unwrap(), CLIENTS_OWN)
}

fn client_gets(network: &Network, to: SocketAddr, greets: &str) -> bool {
    let got = network.world.client.run(|| greeting(to, PATIENCE)).unwrap();
    got.is_ok_and(|text| text.starts_with(greets))
}

fn client_is_answered(network: &Network, to: SocketAddr, bytes: &[u8]) -> bool {
    let patience = if bytes == LATER { PATIENCE * 2 } else { PATIENCE };
    network.world.client.run(|| answered(to, bytes, patience)).unwrap().unwrap_or(false)
}

fn pings(from: &Namespace, to: &str) -> bool {
    let mut ping = from.command(program("ping").to_str().unwrap());
    ping.args(["-c", "2", "-i", "0.2", "-W", "2", to]).stdout(Stdio::null()).stderr(Stdio::null());
    ping.status().unwrap().success()
}

/// The client's socket is told by a translated ICMP error.
fn closed_port_is_told(network: &Network, family: usize) -> bool {
    let to = service(family, CLOSED);
    let told = network.world.client.run(|| answered(to, b"x", PATIENCE)).unwrap();
    told.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The client's connect fails as soon as the gateway's kernel knows that the host does not exist. Asked twice at most: of
/// some 600 such connects one ended in time with SO_ERROR 0 instead of an error (Linux 6.18, busy processors).
fn dead_host_is_told(network: &Network, family: usize) -> bool {
    let to = service(family, DEAD);
    (0..2).any(|_| {
        let told = network.world.client.run(|| TcpStream::connect_timeout(&to, NO_HOST)).unwrap();
        let is_told = told.as_ref().is_err_and(|error| error.kind() == ErrorKind::HostUnreachable);
        if !is_told {
            eprintln!("gauntlet: {to} is a dead host, but the client's connect says: {told:?}");
        }
        is_told
    })
}

fn servers_udp(network: &Network, family: usize) -> bool {
    let to = client(family);
    network.world.servers[0].run(|| answered(to, b"from a server", PATIENCE)).unwrap().unwrap_or(false)
}

fn servers_udp_from_service_port(network: &Network, family: usize) -> bool {
    // Of a server that nobody else asks, so that the count is this question's.
    let (socket, answers) = &network.echoes[1 + family];
    let to = match client(family).ip() {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        v6 => v6,
    };
    let (before, began) = (answers.load(Ordering::Relaxed), Instant::now());
    while began.elapsed() < PATIENCE {
        socket.send_to(b"from a service port", (to, CLIENTS_OWN)).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        if answers.load(Ordering::Relaxed) > before {
            return true;
        }
    }
    false
}

fn servers_tcp(network: &Network, family: usize) -> bool {
    let to = client(family);
    network.world.servers[0].run(|| greeting(to, PATIENCE)).unwrap().is_ok_and(|text| text == "client\n")
}

/// From a port that belongs to a service's range, as an ephemeral port may.
fn servers_tcp_from_service_range(network: &Network, family: usize) -> bool {
    let to = client(family);
    let connect = || -> std::io::Result<()> {
        let socket =
            rustix::net::socket([AddressFamily::INET, AddressFamily::INET6][family], SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        // SO_SNDTIMEO bounds connect(2) (socket(7)).
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        let any: IpAddr = if family == 0 { [0; 4].into() } else { [0; 16].into() };
        rustix::net::bind(&socket, &SocketAddr::new(any, IN_RANGE))?;
        Ok(rustix::net::connect(&socket, &to)?)
    };
    network.world.servers[2].run(connect).unwrap().is_ok()
}
