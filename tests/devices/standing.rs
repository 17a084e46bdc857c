//! What clients notice when a server fails, leaves and comes back.

use crate::WEB;
use crate::servers::{ALL, PINGS, WHO};
use crate::world::{CLIENT, Lines, Running, SERVICE, World, eventually, program, run};
use equipoise::balance::Health;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What a busy machine may add.
const GRACE: Duration = Duration::from_secs(1);

/// A monitor of a TCP port that needs less than half a second.
const PORT: &str = "[[pool.monitor]]\ntype = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"200ms\"\nfall = 2\nrise = 2\n";
/// The same for a whole host.
const HOST: &str = "[[pool.monitor]]\ntype = \"icmp\"\ninterval = \"100ms\"\ntimeout = \"200ms\"\nfall = 2\nrise = 2\n";

/// Sends this many concurrent requests; returns the number of each server that responded. None may fail.
fn answers(world: &World, family: usize, count: usize) -> Vec<usize> {
    let started: Vec<_> = (0..count).map(|_| world.curl(family, "").spawn().unwrap()).collect();
    let number = |curl: std::process::Child| {
        let output = curl.wait_with_output().unwrap();
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().expect("a server's number")
    };
    started.into_iter().map(number).collect()
}

/// Waits until every monitored address of a server is up, or down: the server's row shows the worst of them.
fn until_health(world: &World, n: usize, health: Health) {
    let name = format!("server{n}");
    eventually(&format!("{name} to be {}", health.name()), || {
        let rows = world.monitors();
        let mut own = rows.iter().filter(|row| row.server == name).peekable();
        own.peek().is_some() && own.all(|row| row.state == health) && world.server_row(n).health == health
    });
}

#[test]
fn a_server_out_of_rotation_gets_no_requests_and_comes_back_slowly() {
    let world = World::new("leave");
    let mut nginx = world.nginx();
    let lines = Lines { pool: "slow-start = \"3s\"", rest: PORT, ..Lines::default() };
    let _gateway = world.start(&world.probing(WEB, lines));
    assert!(answers(&world, 0, 9).contains(&1));
    nginx.remove(0).kill();
    until_health(&world, 1, Health::Down);
    for family in [0, 1] {
        assert!(!answers(&world, family, 40).contains(&1), "family {family}");
    }
    assert_eq!(world.server_row(1).weight_now, 1.0, "its weight waits for it");
    nginx.push(world.nginx_on(1));
    until_health(&world, 1, Health::Up);
    let (up, mut weights) = (Instant::now(), Vec::new());
    eventually("its whole weight", || {
        weights.push(world.server_row(1).weight_now);
        weights.last() == Some(&1.0)
    });
    let took = up.elapsed();
    assert!(weights[0] < 0.5 && weights.is_sorted(), "{weights:?}");
    assert!(weights.iter().any(|weight| (0.3..0.7).contains(weight)), "{weights:?}");
    assert!((Duration::from_secs(2)..Duration::from_secs(3) + GRACE).contains(&took), "{took:?}");
    let all = answers(&world, 0, 30);
    assert_eq!(all.iter().filter(|n| **n == 1).count(), 10, "{all:?}");
}

/// Idle connections, one per server, each with the server's end.
fn idle_connections(world: &World, family: usize) -> Vec<(TcpStream, TcpStream)> {
    let bind = |n: usize| {
        let at = (World::server_address(n, family), 8080);
        world.servers[n - 1].run(|| TcpListener::bind(at)).unwrap().unwrap()
    };
    let listeners: Vec<TcpListener> = (1..=3).map(bind).collect();
    let connect = || world.client.run(|| TcpStream::connect((SERVICE[family], 80))).unwrap().unwrap();
    let clients: Vec<TcpStream> = listeners.iter().map(|_| connect()).collect();
    let accepted = listeners.iter().map(|listener| listener.accept().unwrap());
    let mut pairs = Vec::new();
    for (server, peer) in accepted {
        let client = clients.iter().find(|client| client.local_addr().unwrap() == peer).expect("its client");
        pairs.push((client.try_clone().unwrap(), server));
    }
    for (client, server) in &pairs {
        for end in [client, server] {
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
    }
    pairs
}

#[test]
fn connections_of_a_server_that_leaves_are_reset_at_both_ends() {
    let world = World::new("reset");
    let lines = Lines { service: "on-down = \"reset\"", rest: HOST, ..Lines::default() };
    let _gateway = world.start(&world.probing(WEB, lines));
    let mut of = [0, 1].map(|family| idle_connections(&world, family));
    // The first is silent towards clients too; the second towards monitors only; the third stays.
    world.deafen(1, &ALL);
    world.deafen(2, &PINGS);
    // Unacknowledged data does not make a reset less acceptable.
    of[1][0].0.write_all(b"hello?").unwrap();
    let reset = |stream: &mut TcpStream, what: &str| {
        let error = stream.read(&mut [0; 16]).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}: {error}");
    };
    for (family, pairs) in of.iter_mut().enumerate() {
        reset(&mut pairs[0].0, &format!("the client of a silent server, family {family}"));
        reset(&mut pairs[1].0, &format!("the client of a server that left, family {family}"));
        reset(&mut pairs[1].1, &format!("the server that left, family {family}"));
        let (client, server) = &mut pairs[2];
        client.write_all(b"still here").unwrap();
        let mut text = [0; 10];
        server.read_exact(&mut text).expect("the third server's connection");
        assert_eq!(&text, b"still here");
    }
    assert!(world.flows(&[]).iter().all(|row| row.server == "server3"), "{:#?}", world.flows(&[]));
    let ended = world.totals().engine.flows_ended;
    let down = ended.iter().find(|row| row.kind == equipoise::engine::Ended::ServerDown).expect("a row a cause");
    assert_eq!(down.count, 4, "{ended:?}");
}

#[test]
fn connections_are_kept_where_a_service_says_so() {
    let world = World::new("keep");
    let lines = Lines { service: "on-down = \"keep\"", rest: HOST, ..Lines::default() };
    let _gateway = world.start(&world.probing(WEB, lines));
    let mut of = [0, 1].map(|family| idle_connections(&world, family));
    world.deafen(1, &PINGS);
    until_health(&world, 1, Health::Down);
    for pairs in &mut of {
        let (client, server) = &mut pairs[0];
        client.write_all(b"still here").unwrap();
        let mut text = [0; 10];
        server.read_exact(&mut text).expect("what the client sent");
        assert_eq!(&text, b"still here");
    }
}

#[test]
fn connections_that_fail_take_a_server_out_for_a_while_without_a_monitor() {
    let world = World::new("passive");
    let mut nginx = world.nginx();
    let pool = "[pool.passive]\nfailures = 2\nwithin = \"10s\"\nhold = \"2s\"";
    let _gateway = world.start(&world.probing(WEB, Lines { pool, ..Lines::default() }));
    let held = |n: usize, seconds: u64| {
        let row = world.server_row(n);
        assert!((1..=seconds * 1000).contains(&row.passive_hold_ms.expect("held")), "{row:?}");
        assert_eq!(row.health, Health::Up, "no monitor says a word");
        let (log, told) =
            (world.log(), format!("server web/server{n} gets no new flows for {seconds}.0 s (passive hold)"));
        assert!(log.contains(&told), "{log}");
    };
    let failures = |family, count: usize, patience: &str| {
        let curl = || world.curl(family, "").args(["--max-time", patience]).spawn().unwrap();
        let all: Vec<_> = (0..count).map(|_| curl()).collect();
        all.into_iter().filter_map(|mut curl| (!curl.wait().unwrap().success()).then_some(())).count()
    };
    nginx.remove(0).kill();
    let refused = (0..12).filter(|_| !run(&mut world.curl(0, "")).status.success()).count();
    assert_eq!(refused, 2, "as many as it takes, and no more");
    held(1, 2);
    nginx.push(world.nginx_on(1));
    eventually("its end", || world.server_row(1).passive_hold_ms.is_none());
    assert!(answers(&world, 0, 9).contains(&1), "it is tried again");

    // Too short for the client's kernel to retransmit a SYN, which would be a sign too.
    world.deafen(2, &["tcp dport 8080 reject with icmpx host-unreachable"]);
    failures(1, 6, "0.8");
    held(2, 2);
    assert!(!answers(&world, 1, 9).contains(&2));
    world.mend(2);

    // The client's kernel retransmits its SYN after a second.
    world.deafen(3, &ALL);
    assert!(failures(1, 6, "2") >= 2, "a third of them, or half");
    held(3, 2);
    assert!(!answers(&world, 1, 9).contains(&3));
}

/// A client that sends from one port forever; the replies contain the server's number.
struct Asker {
    socket: UdpSocket,
    service: &'static str,
}

impl Asker {
    fn new(world: &World, family: usize) -> Asker {
        let address: IpAddr = CLIENT[family].parse().unwrap();
        let socket = world.client.run(|| UdpSocket::bind((address, 5353))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Asker { socket, service: SERVICE[family] }
    }

    /// Asks once; returns who replied, if anyone.
    fn ask(&self) -> Option<usize> {
        self.socket.send_to(WHO, (self.service, 53)).unwrap();
        let mut buffer = [0; 512];
        let (len, _) = self.socket.recv_from(&mut buffer).ok()?;
        Some(usize::from(buffer[len - 1]))
    }

    /// Asks until a server other than `not` replies; returns how long that took since `since`.
    fn until_another(&self, not: usize, since: Instant) -> Duration {
        eventually("another server's answer", || self.ask().is_some_and(|server| server != not));
        since.elapsed()
    }
}

#[test]
fn a_udp_client_of_one_port_reaches_a_live_server_within_a_probe_period_of_its_servers_death() {
    let world = World::new("udp");
    let mut servers: Vec<Option<Running>> = world.dnsmasq().into_iter().map(Some).collect();
    let (interval, timeout) = (Duration::from_millis(300), Duration::from_millis(500));
    let monitor = "[[pool.monitor]]\ntype = \"dns\"\nquery = \"who.test\"\ninterval = \"300ms\"\ntimeout = \"500ms\"\n\
                   fall = 1\nrise = 1\n";
    let _gateway = world.start(&world.probing(("dns", "53/udp", 3, 53), Lines { rest: monitor, ..Lines::default() }));
    for family in [0, 1] {
        let asker = Asker::new(&world, family);
        let mut server = 0;
        eventually("an answer", || {
            server = asker.ask().unwrap_or(0);
            server != 0
        });
        assert!((0..20).all(|_| asker.ask() == Some(server)), "one port, one server");
        servers[server - 1].take().unwrap().kill();
        let took = asker.until_another(server, Instant::now());
        let allowed = interval.mul_f64(1.1) + GRACE;
        assert!(took <= allowed, "family {family}, port closed: {took:?}, allowed {allowed:?}");
        servers[server - 1] = Some(world.dnsmasq_on(server, server as u8));
        let back = || world.monitors().iter().all(|row| row.state == Health::Up);
        eventually("the server to come back", back);

        // The socket may still report the server's port that was closed before.
        let server = (0..3).find_map(|_| asker.ask()).expect("an answer");
        world.deafen(server, &ALL);
        let took = asker.until_another(server, Instant::now());
        let allowed = interval.mul_f64(1.1) + timeout + GRACE;
        assert!(took <= allowed, "family {family}, silence: {took:?}, allowed {allowed:?}");
        world.mend(server);
        eventually("the server to come back", back);
        let flows = world.flows(&["--client", CLIENT[family]]);
        assert!(flows.len() == 1 && flows[0].client.port() == 5353, "{flows:?}");
    }
}

#[test]
fn an_echo_flow_moves_to_a_live_server_too() {
    let world = World::new("echo");
    let lines = Lines { rest: HOST, ..Lines::default() };
    let _gateway = world.start(&world.probing(("ping", "icmp", 3, 0), lines));
    for family in [0, 1] {
        let mut ping = world.client.command(program("ping").to_str().unwrap());
        let _ping = Running::start(ping.args(["-q", "-i", "0.05", SERVICE[family]]).stdout(Stdio::null()));
        let flow = || world.flows(&["--client", CLIENT[family]]).into_iter().next().filter(|row| row.packets_out > 5);
        let answered = |what: &str, not: &str| {
            let mut server = String::new();
            eventually(what, || {
                server = flow().filter(|row| row.server != not).map_or(String::new(), |row| row.server);
                !server.is_empty()
            });
            server
        };
        let first = answered("answered pings", "");
        let n: usize = first.strip_prefix("server").unwrap().parse().unwrap();
        world.deafen(n, &PINGS);
        answered("answered pings from another server", &first);
        world.mend(n);
    }
}
