//! A gateway that returns to a peer with many flows, and gateways that cannot hear each other for a while: both live, or both
//! are active. `tools/lab-rejoin` and `tools/lab-split` do so for longer, and measure.

use super::second::Second;
use super::{in_step, role, sync};
use crate::state::{TALK, connect};
use crate::world::{SERVICE, World, eventually, run};
use equipoise::control::SyncRow;
use equipoise::gateway::netns::Namespace;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const MANY: u32 = 20_000;
const NAT: &str = "192.0.2.100";
/// Connections through each of two active gateways: of 512 ports, two that did not divide them would give some twice.
const EACH: usize = 100;

fn own(world: &World) -> SyncRow {
    serde_json::from_slice(&world.eqctl_raw(&["sync", "--json"]).stdout).unwrap()
}

/// Lets nothing pass between the two gateways, and waits until both have noticed.
fn block(world: &World, second: &Second) {
    let rules = "table inet block { chain in { type filter hook input priority 0; iifname sync drop; }; \
                 chain out { type filter hook output priority 0; oifname sync drop; }; }";
    assert!(run(second.gateway.command("nft").arg(rules)).status.success());
    eventually("both to miss the other", || own(world).link.is_none() && second.sync().link.is_none());
}

fn unblock(second: &Second) {
    assert!(run(second.gateway.command("nft").args(["delete", "table", "inet", "block"])).status.success());
}

/// Both have the same flows with the same digest, and the one that is not active has compared them.
fn agree(world: &World, second: &Second) {
    in_step(world, second);
    eventually("both to have the same flows", || {
        let rows = [own(world), second.sync()];
        let compared = rows.iter().any(|row| row.role != "active" && row.link.is_some_and(|link| link.agreed));
        let flows = [world.totals(), second.totals()].map(|totals| totals.engine.flows - totals.engine.half_open);
        compared && flows[0] == flows[1] && rows[0].digest == rows[1].digest
    });
}

#[test]
fn a_gateway_that_returns_is_ready_when_it_has_every_flow_and_catches_up_after_a_break() {
    let world = World::new("pair-rejoin");
    let second = Second::new(&world, "pair-rejoin");
    let state = world.dir.path().join("state");
    let larger = |text: String| text.replace("max = 4096", "max = 32768");
    let more = format!("state-file = {state:?}\nstate-interval = \"1h\"");
    let text = larger(world.configuration(&more, &[TALK])) + &sync(1, world.dir.path(), "");
    let settings = equipoise::config::parse(&text, "pair.toml").unwrap();
    let service = SocketAddr::new(SERVICE[0].parse().unwrap(), 80);
    super::established::write_state(&state, &settings, service, MANY);
    let one = world.start(&text);
    world.change("role active");
    assert_eq!(own(&world).flows, u64::from(MANY), "{}", world.log());
    let two = second.start(&larger(second.configuration(&world, "")));
    eventually("the second gateway to be ready", || {
        let row = second.sync();
        assert!(!row.ready || row.link.is_some_and(|link| link.in_step && link.agreed), "{row:?}");
        row.ready
    });
    agree(&world, &second);
    assert_eq!(second.sync().flows, u64::from(MANY));
    block(&world, &second);
    world.servers.iter().for_each(crate::state::serve);
    let _open: Vec<TcpStream> = (0..100).map(|n| connect(&world, n % 2, b'e')).collect();
    assert_eq!((own(&world).role.as_str(), second.role().as_str()), ("active", "ready"));
    unblock(&second);
    agree(&world, &second);
    assert_eq!(second.sync().flows, u64::from(MANY) + 100, "{}", second.log());
    assert!(!second.log().contains("WITHOUT"), "{}", second.log());
    assert!(two.terminate().success() && one.terminate().success());
}

/// A server that says which it is and whom it sees, and echoes.
fn name_server(server: &Namespace, n: usize) {
    let listener = server.run(|| TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let peer = stream.peer_addr().unwrap();
                let _ = stream.write_all(format!("{n} {peer}\n").as_bytes());
                let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
            });
        }
    });
}

/// A connection to a port of the service, its server, and the address that the server sees.
fn open(world: &World, port: u16) -> (BufReader<TcpStream>, String, String) {
    let to = SocketAddr::new(SERVICE[0].parse().unwrap(), port);
    let stream = world.client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let (server, seen) = line.trim_end().split_once(' ').unwrap();
    (stream, server.to_owned(), seen.to_owned())
}

#[test]
fn two_active_gateways_give_no_port_twice_and_keep_both_their_connections() {
    let world = World::new("pair-split");
    let second = Second::new(&world, "pair-split");
    world.servers.iter().enumerate().for_each(|(n, server)| name_server(server, n + 1));
    let full = format!(
        "[[nat-pool]]\nname = 'out'\naddresses = ['{NAT}']\nports = '20000-20511'\n\
         [[service]]\nname = 'full'\nlisten = '{v4}:90/tcp'\npool = 'talk'\nnat = 'full'\nnat-pool = 'out'\n\
         [[service]]\nname = 'same'\nlisten = '{v4}:91/tcp'\npool = 'talk'\nnat = 'full'\nnat-pool = 'out'\n\
         sticky = {{ idle = '5m' }}\n",
        v4 = SERVICE[0]
    );
    let one = world.start(&(world.configuration("", &[TALK]) + &full + &sync(1, world.dir.path(), "")));
    world.change("role active");
    let two = second.start(&(second.configuration(&world, "") + &full));
    in_step(&world, &second);
    let favourite = open(&world, 91).1;
    agree(&world, &second);
    block(&world, &second);
    second.change("role active");
    let many = |_| open(&world, 90);
    let mut through_one: Vec<_> = (0..EACH).map(many).collect();
    assert_eq!(open(&world, 91).1, favourite);
    second.lead(&world);
    let mut through_two: Vec<_> = (0..EACH).map(many).collect();
    assert_eq!(open(&world, 91).1, favourite, "the second gateway knows the sticky client");
    let ports = |all: &[(BufReader<TcpStream>, String, String)]| -> BTreeSet<String> {
        all.iter().map(|(_, _, seen)| seen.clone()).collect()
    };
    let [a, b] = [ports(&through_one), ports(&through_two)];
    assert!(a.iter().chain(&b).all(|seen| seen.starts_with(NAT)), "{a:?} {b:?}");
    assert_eq!(a.intersection(&b).collect::<Vec<_>>(), Vec::<&String>::new(), "given by both");
    // The network is whole again, and the first one goes on alone.
    second.change("role standby");
    unblock(&second);
    agree(&world, &second);
    role(&world, "active");
    second.leave(&world);
    for (n, (stream, _, seen)) in through_one.iter_mut().chain(&mut through_two).enumerate() {
        let mut answer = String::new();
        stream.get_mut().write_all(b"x\n").unwrap_or_else(|error| panic!("connection {n}, {seen}: {error}"));
        stream.read_line(&mut answer).unwrap_or_else(|error| panic!("connection {n}, {seen}: {error}"));
        assert_eq!(answer, "x\n", "connection {n}, {seen}");
    }
    assert_eq!(open(&world, 91).1, favourite);
    assert!(two.terminate().success() && one.terminate().success());
}
