//! What operators do at the active gateway, what its monitors find, and what the other one cannot have.

use super::*;
use crate::balance::Admin;
use crate::engine::{Lost, StickyQuery};
use crate::ids::ServerId;
use std::net::IpAddr;

const STICKY: &str = LISTEN[2];

fn of(n: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, n), port)
}

/// A client's connection to the sticky service; returns its server.
fn opens(gate: &mut Gate, now: Instant, from: SocketAddrV4) -> Ipv4Addr {
    let listen = address(STICKY);
    let (source, server) = ends(&gate.pass(now, &tcp("S", (100, 0), from, listen)).0.expect("a server"));
    gate.pass(now, &tcp("SA", (500, 101), server, source)).0.expect("its answer");
    gate.pass(now, &tcp("A", (101, 501), from, listen)).0.expect("the handshake");
    *server.ip()
}

/// The sticky clients of a gateway and their servers.
fn stuck(gate: &mut Gate, now: Instant) -> Vec<(String, String)> {
    clear(gate, now, &StickyQuery::default(), false)
}

/// Lists sticky clients that match, or forgets them.
fn clear(gate: &mut Gate, now: Instant, query: &StickyQuery, clears: bool) -> Vec<(String, String)> {
    let mut walk = if clears { gate.engine.begin_clearing() } else { gate.engine.begin_sticky() };
    let mut rows = Vec::new();
    while gate.engine.sticky(now, (&mut walk, query), 64, &mut rows) == Some(true) {}
    let mut rows: Vec<_> = rows.into_iter().filter(|row| row.proven).map(|row| (row.client, row.server)).collect();
    rows.sort();
    rows
}

/// How many flows each sticky client has.
fn counted(gate: &mut Gate, now: Instant) -> Vec<u64> {
    let (mut walk, mut rows) = (gate.engine.begin_sticky(), Vec::new());
    while gate.engine.sticky(now, (&mut walk, &StickyQuery::default()), 64, &mut rows) == Some(true) {}
    rows.into_iter().filter(|row| row.proven).map(|row| row.flows).collect()
}

/// An operator has the first gateway forget a client.
fn order(pair: &mut Pair, n: u8) {
    let client = Some(format!("198.51.100.{n}/32").parse().unwrap());
    let (now, query) = (pair.now(), StickyQuery { client, ..StickyQuery::default() });
    let begun = pair.gates[0].node.begin_clearing(now, &pair.gates[0].engine);
    assert_eq!(clear(&mut pair.gates[0], now, &query, true).len(), 1);
    pair.gates[0].node.clear_sticky(begun, query);
}

#[test]
fn the_standby_forgets_sticky_clients_that_an_operator_clears() {
    let mut pair = Pair::new();
    let now = pair.now();
    (1..=3).for_each(|n| _ = opens(&mut pair.gates[0], now, of(n, 1000)));
    pair.run(100);
    let both = |pair: &mut Pair| {
        let now = pair.now();
        let [one, two] = &mut pair.gates;
        let (one, two) = (stuck(one, now), stuck(two, now));
        assert_eq!(one, two);
        one.into_iter().map(|(client, _)| client).collect::<Vec<_>>()
    };
    assert_eq!(both(&mut pair).len(), 3);
    order(&mut pair, 1);
    pair.run(200);
    assert_eq!(both(&mut pair), ["198.51.100.2", "198.51.100.3"]);
    // The peer hears of it as soon as it is there again; who got a server since then keeps it.
    pair.disconnect();
    order(&mut pair, 2);
    pair.wait(1000);
    let now = pair.now();
    opens(&mut pair.gates[0], now, of(2, 2000));
    opens(&mut pair.gates[0], now, of(4, 1000));
    pair.connect();
    pair.run(500);
    assert_eq!(both(&mut pair), ["198.51.100.2", "198.51.100.3", "198.51.100.4"]);
    // Only the active one's orders count.
    let begun = pair.gates[1].node.begin_clearing(pair.now(), &pair.gates[1].engine);
    assert_eq!(begun, None);
    pair.gates[1].node.clear_sticky(begun, StickyQuery::default());
    pair.run(200);
    assert_eq!(both(&mut pair).len(), 3);
    assert!(pair.bytes_of(Kind::Clear) > 0);
}

/// Clients, by the last number of their addresses.
fn numbers(of: &[(String, String)]) -> Vec<u8> {
    let number = |client: &String| client.rsplit('.').next().unwrap().parse().unwrap();
    let mut all: Vec<u8> = of.iter().map(|(client, _)| number(client)).collect();
    all.sort_unstable();
    all
}

#[test]
fn the_standby_forgets_who_came_before_an_order_and_no_other_however_late_it_reads() {
    let mut pair = Pair::new();
    let mut sent = Vec::new();
    let mut then = |pair: &mut Pair, ms, what: &dyn Fn(&mut Pair)| {
        pair.ms += ms;
        what(pair);
        pair.ms += 10;
        let now = pair.now();
        pair.gates[0].run(now);
        sent.extend(pair.gates[0].output(now));
    };
    let comes = |n| {
        move |pair: &mut Pair| {
            let now = pair.now();
            opens(&mut pair.gates[0], now, of(n, 1000));
        }
    };
    // 1 comes, and is told; then the order begins at once, and is carried out seconds later; 2 comes meanwhile, and 3 after it.
    then(&mut pair, 0, &comes(1));
    let begun = std::cell::Cell::new(None);
    let query = StickyQuery::default();
    then(&mut pair, 20, &|pair| begun.set(pair.gates[0].node.begin_clearing(pair.now(), &pair.gates[0].engine)));
    let mut walk = pair.gates[0].engine.begin_clearing();
    then(&mut pair, 20, &comes(2));
    pair.ms += 2000;
    let (mut rows, now) = (Vec::new(), pair.now());
    while pair.gates[0].engine.sticky(now, (&mut walk, &query), 64, &mut rows) == Some(true) {}
    assert_eq!(rows.iter().filter(|row| row.proven).count(), 1);
    then(&mut pair, 20, &|pair| pair.gates[0].node.clear_sticky(begun.get(), query.clone()));
    then(&mut pair, 20, &comes(3));
    // The standby reads all of it at once, the latest after the earliest in no time.
    let now = pair.now();
    let Gate { engine, node, .. } = &mut pair.gates[1];
    node.handle_input(now, engine, &sent);
    pair.run(500);
    let now = pair.now();
    let both = [0, 1].map(|n| stuck(&mut pair.gates[n], now)).map(|of| numbers(&of));
    assert_eq!(both, [vec![2, 3], vec![2, 3]]);
}

#[test]
fn a_client_of_whom_the_standby_hears_while_an_order_is_being_carried_out_is_forgotten_there_too() {
    let mut pair = Pair::new();
    let (now, query) = (pair.now(), StickyQuery::default());
    opens(&mut pair.gates[0], now, of(1, 1000));
    let begun = pair.gates[0].node.begin_clearing(now, &pair.gates[0].engine);
    let mut walk = pair.gates[0].engine.begin_clearing();
    pair.run(100);
    let now = pair.now();
    assert_eq!(numbers(&stuck(&mut pair.gates[1], now)), [1]);
    while pair.gates[0].engine.sticky(now, (&mut walk, &query), 64, &mut Vec::new()) == Some(true) {}
    pair.gates[0].node.clear_sticky(begun, query);
    pair.run(100);
    let now = pair.now();
    assert_eq!([0, 1].map(|n| stuck(&mut pair.gates[n], now)), [vec![], vec![]]);
}

#[test]
fn a_client_that_gets_its_server_again_before_the_standby_has_forgotten_it_has_it_there_too() {
    let mut pair = Pair::new();
    let now = pair.now();
    let before = opens(&mut pair.gates[0], now, of(1, 1000));
    pair.run(100);
    // Each order is like the former one, which it replaces.
    let (mut port, mut server) = (2000, None);
    while server != Some(before) {
        order(&mut pair, 1);
        port += 1;
        let now = pair.now();
        server = Some(opens(&mut pair.gates[0], now, of(1, port)));
    }
    pair.ms += 10;
    let now = pair.now();
    let out = pair.gates[0].output(now);
    let Gate { engine, node, .. } = &mut pair.gates[1];
    node.handle_input(now, engine, &out);
    pair.run(100);
    let now = pair.now();
    let both = pair.gates.each_mut().map(|gate| (stuck(gate, now), counted(gate, now)));
    assert_eq!((numbers(&both[0].0), both[0].1.as_slice()), (vec![1], [1].as_slice()));
    assert_eq!(both[0], both[1]);
}

#[test]
fn orders_wait_until_they_are_carried_out_and_one_that_is_dropped_is_reported() {
    let mut pair = Pair::new();
    let now = pair.now();
    (1..=100).for_each(|n| _ = opens(&mut pair.gates[0], now, of(n, 1000)));
    pair.run(100);
    let now = pair.now();
    assert_eq!(stuck(&mut pair.gates[1], now).len(), 100);
    // The standby reads and acknowledges, and finds no time to carry anything out.
    for n in 1..=80 {
        order(&mut pair, n);
        let now = pair.now();
        for from in [0, 1] {
            let out = pair.gates[from].output(now);
            let Gate { engine, node, .. } = &mut pair.gates[1 - from];
            node.handle_input(now, engine, &out);
        }
    }
    // Another connection: what is known to be carried out is not told again, and the rest is.
    pair.disconnect();
    pair.connect();
    pair.run(1000);
    pair.disconnect();
    (81..=90).for_each(|n| order(&mut pair, n));
    pair.connect();
    pair.run(1000);
    let dropped = pair.gates[0].events.iter().filter(|event| **event == Event::ClearDropped).count();
    assert_eq!(dropped, 16);
    let now = pair.now();
    let (one, two) = (stuck(&mut pair.gates[0], now), stuck(&mut pair.gates[1], now));
    assert_eq!(numbers(&one), (91..=100).collect::<Vec<u8>>());
    let left = numbers(&two).into_iter().filter(|n| *n <= 90).count();
    assert!(left <= dropped, "{left} clients are left of {dropped} orders");
    assert!(numbers(&one).iter().all(|n| numbers(&two).contains(n)));
    // Nothing is told any more.
    let before = pair.bytes_of(Kind::Clear);
    pair.disconnect();
    pair.connect();
    pair.run(1000);
    assert_eq!(pair.bytes_of(Kind::Clear), before);
}

#[test]
fn a_sticky_client_that_has_another_server_has_it_at_the_standby_too() {
    let mut pair = Pair::new();
    let now = pair.now();
    let before = opens(&mut pair.gates[0], now, of(1, 1000));
    pair.run(100);
    let server = pair.gates[0].rows(pair.now())[0].server.clone();
    let number = ["web/a", "web/b", "web/c"].iter().position(|name| name.ends_with(&server)).unwrap();
    let admin = |gate: &mut Gate, now, admin| {
        let server = ServerId(number as u32);
        gate.engine.apply(now, Change::Admin { server, admin, deadline: None }).unwrap();
    };
    let now = pair.now();
    admin(&mut pair.gates[0], now, Admin::Disabled);
    pair.wait(2000);
    let now = pair.now();
    let after = opens(&mut pair.gates[0], now, of(1, 2000));
    assert_ne!(after, before);
    pair.run(100);
    let now = pair.now();
    admin(&mut pair.gates[0], now, Admin::Enabled);
    pair.run(100);
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    pair.gates[0].command(now, Command::StandBy);
    assert_eq!(opens(&mut pair.gates[1], now, of(1, 3000)), after);
}

#[test]
fn a_sticky_client_whose_flow_has_come_and_gone_on_a_slow_link_is_known_at_the_standby() {
    let mut pair = Pair::new();
    pair.run(1000);
    let end = |pair: &mut Pair, n| {
        let (now, gate) = (pair.now(), &mut pair.gates[0]);
        let rows = gate.rows(now);
        let of = rows.iter().find(|row| row.client.ip() == IpAddr::from(*of(n, 0).ip())).unwrap();
        gate.engine.apply(now, Change::Kill { flow: of.id }).unwrap();
    };
    let now = pair.now();
    opens(&mut pair.gates[0], now, of(1, 1000));
    pair.run(100);
    // The connection takes nothing for two seconds.
    pair.wait(200);
    let now = pair.now();
    let server = opens(&mut pair.gates[0], now, of(2, 1000));
    pair.wait(1800);
    end(&mut pair, 2);
    let before = pair.bytes_of(Kind::Put);
    pair.run(100);
    let told = pair.bytes_of(Kind::Put) - before;
    assert!((1..100).contains(&told), "that client alone: {told} bytes");
    let now = pair.now();
    let [one, two] = &mut pair.gates;
    assert_eq!(stuck(one, now), stuck(two, now));
    two.command(now, Command::Activate);
    assert_eq!((2..8).map(|port| opens(two, now, of(2, port))).collect::<Vec<_>>(), [server; 6]);
}

#[test]
fn a_sticky_client_whose_last_flow_ends_during_the_first_pass_is_known_at_the_standby() {
    let mut pair = Pair::new();
    let now = pair.now();
    let client = |n: u16| SocketAddrV4::new(Ipv4Addr::new(198, 18, (n >> 8) as u8, n as u8), 1000);
    (0..3000).for_each(|n| _ = opens(&mut pair.gates[0], now, client(n)));
    pair.run(500);
    pair.disconnect();
    let now = pair.now();
    pair.gates[1] = Gate::new(now, CONFIG, SyncSettings { instance: 77, ..settings(1) });
    pair.connect();
    // Greetings; then one portion, which has not all clients.
    while stuck(&mut pair.gates[1], now).is_empty() {
        for from in 0..2 {
            let out = pair.gates[from].output(now);
            let to = &mut pair.gates[1 - from];
            to.node.handle_input(now, &mut to.engine, &out);
        }
    }
    assert!(stuck(&mut pair.gates[1], now).len() < 2900, "it goes on");
    let ids: Vec<_> = pair.gates[0].rows(now).into_iter().map(|row| row.id).collect();
    ids.into_iter().for_each(|flow| _ = pair.gates[0].engine.apply(now, Change::Kill { flow }));
    pair.run(500);
    let now = pair.now();
    let [one, two] = &mut pair.gates;
    assert_eq!(stuck(one, now).len(), 3000);
    assert!(stuck(one, now) == stuck(two, now), "{} of 3000", stuck(two, now).len());
}

#[test]
fn after_a_switch_the_standby_knows_the_sticky_clients_that_it_forgot_while_it_was_active() {
    for ends_its_flow in [false, true] {
        let mut pair = Pair::new();
        let now = pair.now();
        let server = opens(&mut pair.gates[0], now, of(1, 1000));
        pair.run(100);
        if ends_its_flow {
            let (now, flow) = (pair.now(), pair.gates[0].rows(pair.now())[0].id);
            pair.gates[0].engine.apply(now, Change::Kill { flow }).unwrap();
            pair.run(100);
        }
        // The server is away as one of the two sees it, who forgets its clients by that; nobody tells the other one.
        let now = pair.now();
        let id = ServerId(u32::from(server.octets()[3]) - 1);
        for admin in [Admin::Disabled, Admin::Enabled] {
            pair.gates[0].engine.apply(now, Change::Admin { server: id, admin, deadline: None }).unwrap();
        }
        let known = |pair: &mut Pair| {
            let now = pair.now();
            [0, 1].map(|n| stuck(&mut pair.gates[n], now).len())
        };
        assert_eq!(known(&mut pair), [0, 1]);
        // For a while both are active, and neither takes clients from the other one.
        pair.gates[1].command(now, Command::Activate);
        pair.run(500);
        assert_eq!(known(&mut pair), [0, 1]);
        pair.gates[0].command(pair.now(), Command::StandBy);
        pair.run(500);
        assert_eq!(known(&mut pair), [1, 1], "its flow has ended: {ends_its_flow}");
        // They are told once.
        let before = pair.bytes_of(Kind::Put);
        pair.run(5000);
        assert_eq!(pair.bytes_of(Kind::Put), before);
        // And again when the other one takes over, which has given the client no other server.
        pair.gates[1].command(pair.now(), Command::StandBy);
        pair.gates[0].command(pair.now(), Command::Activate);
        pair.run(500);
        let now = pair.now();
        assert_eq!((opens(&mut pair.gates[0], now, of(1, 2000)), known(&mut pair)), (server, [1, 1]));
    }
}

#[test]
fn a_sticky_client_that_was_forgotten_at_the_standby_alone_is_known_there_once_its_flow_goes_on() {
    let mut pair = Pair::new();
    let now = pair.now();
    opens(&mut pair.gates[0], now, of(1, 1000));
    pair.run(100);
    let now = pair.now();
    assert_eq!(clear(&mut pair.gates[1], now, &StickyQuery::default(), true).len(), 1);
    let listen = address(STICKY);
    let fin = pair.gates[0].pass(now, &tcp("FA", (101, 501), of(1, 1000), listen)).0.unwrap();
    let (from, to) = ends(&fin);
    pair.gates[0].pass(now, &tcp("FA", (501, 102), to, from)).0.unwrap();
    pair.run(100);
    let now = pair.now();
    let [one, two] = &mut pair.gates;
    assert_eq!((stuck(one, now).len(), stuck(one, now)), (1, stuck(two, now)));
}

#[test]
fn a_flow_that_an_operator_ends_ends_at_the_standby_too() {
    let mut pair = Pair::new();
    let now = pair.now();
    open_all(&mut pair.gates[0], now, 0);
    pair.run(100);
    let rows = pair.gates[0].rows(pair.now());
    for row in &rows[..2] {
        pair.gates[0].engine.apply(pair.now(), Change::Kill { flow: row.id }).unwrap();
    }
    pair.run(100);
    assert_eq!(pair.gates[1].rows(pair.now()).len(), rows.len() - 2);
    pair.run(11_000);
    pair.assert_equal();
}

#[test]
fn flows_of_a_service_that_is_not_here_are_refused_and_both_say_so() {
    let begin = CONFIG.find("[[service]]\nname = \"full\"").unwrap();
    let end = CONFIG.find("[[service]]\nname = \"sticky\"").unwrap();
    let mut pair = Pair::with(&[&CONFIG[..begin], &CONFIG[end..]].concat());
    let now = pair.now();
    open_all(&mut pair.gates[0], now, 0);
    pair.run(100);
    let refusals = pair.gates[1].node.refusals();
    assert_eq!(refusals.here[Lost::Service as usize], 2, "one by TCP, and one by UDP");
    assert_eq!(refusals.services, ["full"]);
    let event = Event::Refuses { why: Lost::Service, services: vec!["full".into()] };
    assert_eq!(pair.gates[1].events.iter().filter(|said| **said == event).count(), 1);
    assert!(event.to_string().contains("not configured here: full"), "{event}");
    assert_eq!(pair.gates[0].node.refusals().there, 2);
    // The others are the same on both.
    pair.run(11_000);
    let status = [0, 1].map(|gate| pair.gates[gate].node.status());
    assert!(status[0].digest == status[1].digest && status[1].agreed, "{status:?}");
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 3);
}

const MONITOR: &str =
    "[[pool.monitor]]\nname = \"ping\"\ntype = \"icmp\"\ninterval = \"1s\"\ntimeout = \"500ms\"\nfall = 3\nrise = 1\n";

/// Two gateways with monitors, of which the second one takes the servers' health from the first.
fn monitored() -> Pair {
    monitored_by([MONITOR; 2])
}

fn monitored_by(monitors: [&str; 2]) -> Pair {
    let (pools, nat) = CONFIG.split_at(CONFIG.find("[[nat-pool]]").unwrap());
    let probes = "seed = 1\n[gateway]\nprobe-address = \"203.0.113.1\"\n";
    let text = monitors.map(|monitors| format!("{}{monitors}{nat}", pools.replace("seed = 1\n", probes)));
    let gates = [0, 1].map(|n| Gate::new(at(0), &text[n], settings(n)));
    let mut pair = Pair { gates, ms: 0, bytes: 0, by_kind: [0; 256] };
    let now = pair.now();
    let Gate { engine, node, .. } = &mut pair.gates[1];
    node.follow_health(now, engine, true);
    pair.connect();
    pair
}

/// Lets time pass; the servers in the list answer probes of each gateway. Returns how many probes each has sent.
fn probed(pair: &mut Pair, ms: u64, answer: [&[u8]; 2]) -> [usize; 2] {
    let mut sent = [0; 2];
    for _ in 0..ms / 10 {
        pair.run(10);
        let now = pair.now();
        for n in 0..2 {
            let engine = &mut pair.gates[n].engine;
            let mut buffer = vec![0; 2048];
            let mut answers = Vec::new();
            while let Some((len, _)) = engine.poll_transmit(now, &mut buffer) {
                let mut packet = buffer[..len].to_vec();
                sent[n] += 1;
                if answer[n].contains(&packet[19]) {
                    // The addresses change places, and a request becomes an answer.
                    let (from, to): ([u8; 4], [u8; 4]) =
                        (packet[12..16].try_into().unwrap(), packet[16..20].try_into().unwrap());
                    packet[12..16].copy_from_slice(&to);
                    packet[16..20].copy_from_slice(&from);
                    packet[20] = 0;
                    let sum = u32::from(u16::from_be_bytes([packet[22], packet[23]])) + 0x0800;
                    packet[22..24].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
                    answers.push(packet);
                }
            }
            answers.iter().for_each(|packet| _ = pair.gates[n].pass(now, packet));
        }
    }
    sent
}

/// The servers that are up at a gateway.
fn up(gate: &Gate) -> Vec<u8> {
    let address = |row: &crate::engine::MonitorRow| match row.address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => 0,
    };
    let rows = gate.engine.monitors(at(1 << 30));
    rows.iter().filter(|row| row.state == crate::state::Health::Up).map(address).collect()
}

#[test]
fn a_standby_that_follows_the_active_ones_health_probes_nothing_and_nothing_flaps_when_it_is_alone() {
    let mut pair = monitored();
    let now = pair.now();
    pair.gates[0].command(now, Command::Activate);
    pair.gates[1].command(now, Command::StandBy);
    // Nobody answers the second one: the answers take the way through the first.
    probed(&mut pair, 6000, [&[1, 2], &[]]);
    assert_eq!((up(&pair.gates[0]), up(&pair.gates[1])), (vec![1, 2], vec![1, 2]));
    assert!(pair.gates[1].engine.follows_verdicts());
    assert!(pair.gates[1].events.contains(&Event::Follows { on: true, own: 0 }));
    let sent = probed(&mut pair, 5000, [&[1, 3], &[]]);
    assert!(sent[0] >= 9 && sent[1] == 0, "{sent:?}");
    assert_eq!((up(&pair.gates[0]), up(&pair.gates[1])), (vec![1, 3], vec![1, 3]));
    // The peer is lost: probes begin within an interval, and what holds is what it said until they fail.
    pair.disconnect();
    let sent = probed(&mut pair, 1000, [&[], &[1, 3]]);
    assert!(sent[1] >= 3 && !pair.gates[1].engine.follows_verdicts(), "{sent:?}");
    assert_eq!(up(&pair.gates[1]), [1, 3]);
    probed(&mut pair, 5000, [&[], &[2, 3]]);
    assert_eq!(up(&pair.gates[1]), [2, 3], "it judges by itself");
    // And follows again, from what the peer says now.
    pair.connect();
    probed(&mut pair, 5000, [&[1], &[2, 3]]);
    assert_eq!((up(&pair.gates[0]), up(&pair.gates[1])), (vec![1], vec![1]));
    // For a while both are active, and what the peer tells then is of no use.
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    probed(&mut pair, 5000, [&[1], &[2, 3]]);
    assert_eq!((up(&pair.gates[0]), up(&pair.gates[1])), (vec![1], vec![2, 3]));
    let now = pair.now();
    pair.gates[1].command(now, Command::StandBy);
    let sent = probed(&mut pair, 1000, [&[1], &[2, 3]]);
    assert!(sent[1] <= 3 && pair.gates[1].engine.follows_verdicts(), "{sent:?}");
    assert_eq!(up(&pair.gates[1]), [1]);
    // A switch: who is active probes.
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    pair.gates[0].command(now, Command::StandBy);
    assert_eq!(up(&pair.gates[1]), [1]);
    let sent = probed(&mut pair, 5000, [&[1], &[1, 2]]);
    assert!(sent[0] >= 9 && sent[1] >= 9, "{sent:?}: the first one has its own view");
    assert_eq!((up(&pair.gates[0]), up(&pair.gates[1])), (vec![1], vec![1, 2]));
    let now = pair.now();
    pair.gates[0].command(now, Command::Activate);
    pair.gates[1].command(now, Command::StandBy);
    probed(&mut pair, 1000, [&[1], &[1, 2]]);
    assert_eq!(up(&pair.gates[1]), [1], "what it knew of the time before does not count");
}

/// Has a gateway take the servers' health from the active one.
fn follows(pair: &mut Pair, n: usize) {
    let now = pair.now();
    let Gate { engine, node, .. } = &mut pair.gates[n];
    node.follow_health(now, engine, true);
}

#[test]
fn after_a_planned_switch_the_former_active_gateway_follows_though_it_was_told_before_it_stood_by() {
    let mut pair = monitored();
    follows(&mut pair, 0);
    let now = pair.now();
    pair.gates[0].command(now, Command::Activate);
    pair.gates[1].command(now, Command::StandBy);
    probed(&mut pair, 6000, [&[1, 2], &[]]);
    assert_eq!((up(&pair.gates[0]), up(&pair.gates[1])), (vec![1, 2], vec![1, 2]));
    pair.gates[0].command(pair.now(), Command::Yield);
    probed(&mut pair, 100, [&[1, 2], &[]]);
    pair.gates[1].command(pair.now(), Command::Activate);
    probed(&mut pair, 100, [&[], &[1, 2]]);
    pair.gates[0].command(pair.now(), Command::StandBy);
    probed(&mut pair, 100, [&[], &[1, 2]]);
    // Nobody answers the first one any more.
    let sent = probed(&mut pair, 10_000, [&[], &[1, 2]]);
    assert!(sent[0] == 0 && sent[1] > 0, "{sent:?}");
    assert_eq!((up(&pair.gates[0]), up(&pair.gates[1])), (vec![1, 2], vec![1, 2]));
    probed(&mut pair, 10_000, [&[], &[1, 2, 3]]);
    assert_eq!((up(&pair.gates[0]), up(&pair.gates[1])), (vec![1, 2, 3], vec![1, 2, 3]));
    // A standby that is active for a moment, while the other one stays so.
    pair.gates[0].command(pair.now(), Command::Activate);
    pair.run(20);
    pair.gates[0].command(pair.now(), Command::StandBy);
    probed(&mut pair, 10_000, [&[], &[1, 3]]);
    assert_eq!((up(&pair.gates[0]), up(&pair.gates[1])), (vec![1, 3], vec![1, 3]));
}

#[test]
fn a_standby_that_follows_probes_what_the_active_gateway_does_not_monitor_and_says_so() {
    let second = MONITOR.replace("ping", "more");
    let mut pair = monitored_by([MONITOR, &format!("{MONITOR}{second}")]);
    let now = pair.now();
    pair.gates[0].command(now, Command::Activate);
    pair.gates[1].command(now, Command::StandBy);
    probed(&mut pair, 6000, [&[1, 2], &[2, 3]]);
    let event = Event::Follows { on: true, own: 3 };
    assert!(pair.gates[1].events.contains(&event), "{:?}", pair.gates[1].events);
    assert!(event.to_string().contains("except for 3 addresses and ports"), "{event}");
    let sent = probed(&mut pair, 5000, [&[1, 2], &[2, 3]]);
    assert!((12..=18).contains(&sent[1]), "{sent:?}: each server once a second");
    // A server is up if both monitors say so.
    let both = |pair: &Pair| up(&pair.gates[1]);
    assert_eq!((up(&pair.gates[0]), both(&pair)), (vec![1, 2], vec![2, 2]));
    probed(&mut pair, 5000, [&[1, 3], &[2, 3]]);
    assert_eq!((up(&pair.gates[0]), both(&pair)), (vec![1, 3], vec![3, 3]));
    // What the active one tells of the first monitor does not overrule the second.
    for answers in [[2, 3].as_slice(), &[1, 2, 3], &[1, 3]] {
        probed(&mut pair, 5000, [answers, &[2, 3]]);
        let of_both = answers.iter().filter(|n| **n != 1).flat_map(|n| [*n, *n]);
        assert_eq!((up(&pair.gates[0]), both(&pair)), (answers.to_vec(), of_both.collect()));
    }
    // The active one gets the monitor, too.
    let monitored = monitored_by([&format!("{MONITOR}{second}"); 2]).gates[0].engine.plan().settings().clone();
    let now = pair.now();
    pair.gates[0].engine.reload(now, &monitored, Removed::Drain);
    probed(&mut pair, 5000, [&[1, 3], &[]]);
    assert_eq!((up(&pair.gates[0]), both(&pair)), (vec![1, 1, 3, 3], vec![1, 1, 3, 3]));
    assert!(pair.gates[1].events.contains(&Event::Follows { on: true, own: 0 }));
}
