//! Another configuration while there are flows: what is still there keeps everything, what is gone gets nothing new.

use super::testing::{CLIENT, VIP, at, bytes, events, tcp};
use super::*;
use crate::balance::Admin;
use crate::config;
use crate::ids::ServerId;
use crate::packet::{Addresses, Transport};
use crate::rng::Rng;
use etherparse::PacketBuilder;
use std::net::IpAddr;

pub(super) fn parse_file(text: &str) -> Settings {
    config::parse(text, "test.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// Returns a web service for TCP and UDP over servers, each written `name=address` with further keys, as a file.
pub(super) fn file(servers: &[&str], rest: &str) -> Settings {
    let server = |text: &&str| {
        let (name, rest) = text.split_once('=').expect("name=address");
        let (address, keys) = rest.split_once(' ').unwrap_or((rest, ""));
        format!("{{name='{name}', address='{address}', port=8080{keys}}}")
    };
    let servers: Vec<String> = servers.iter().map(server).collect();
    parse_file(&format!(
        "seed = 1\n[[pool]]\nname='web'\nserver=[{}]\n\
         [[service]]\nname='web'\nlisten=['192.0.2.80:80/tcp', '192.0.2.80:80/udp']\npool='web'\n{rest}",
        servers.join(",")
    ))
}

/// Sends a packet, and returns it as it leaves.
pub(super) fn send(engine: &mut Engine, now: Instant, mut packet: Vec<u8>) -> Result<Vec<u8>, Verdict> {
    match engine.handle_packet(now, &mut packet, Meta::default()) {
        Verdict::Forward { .. } => Ok(packet),
        other => Err(other),
    }
}

/// Opens a connection from a port to a service address: the client has acknowledged 501, the server 101. Returns the
/// server's address.
pub(super) fn establish(engine: &mut Engine, now: Instant, port: u16) -> [u8; 4] {
    let syn = send(engine, now, bytes(tcp(CLIENT, port, VIP, 80, 100).syn(), b"")).expect("a server");
    let server = [syn[16], syn[17], syn[18], syn[19]];
    // With full NAT the source is another one.
    let (source, source_port) = ([syn[12], syn[13], syn[14], syn[15]], u16::from_be_bytes([syn[20], syn[21]]));
    send(engine, now, bytes(tcp(server, 8080, source, source_port, 500).syn().ack(101), b"")).expect("its answer");
    send(engine, now, ack(port)).expect("the end of the handshake");
    server
}

pub(super) fn ack(port: u16) -> Vec<u8> {
    bytes(tcp(CLIENT, port, VIP, 80, 101).ack(501), b"data")
}

pub(super) fn new_flow(engine: &mut Engine, now: Instant, port: u16) -> Result<u8, Verdict> {
    send(engine, now, bytes(tcp(CLIENT, port, VIP, 80, 100).syn(), b"")).map(|packet| packet[19])
}

pub(super) fn server<'r>(rows: &'r [ServerRow], name: &str) -> &'r ServerRow {
    rows.iter().find(|row| row.server == name).expect("a server of that name")
}

#[test]
fn the_same_settings_change_nothing_at_all() {
    let settings =
        file(&["a=10.0.0.1", "b=10.0.0.2"], "nat='full'\nnat-pool='n'\n[[nat-pool]]\nname='n'\naddresses='10.9.0.1'\n");
    let mut engine = Engine::new(&settings);
    (1..9).for_each(|port| _ = establish(&mut engine, at(1), port));
    engine.apply(at(2), Change::Weight { server: ServerId(0), weight: 9 }).unwrap();
    let before = format!("{engine:?}");
    engine.reload(at(3), &settings, Removed::Drain);
    // What needs a restart is left as it is.
    let other = Settings { table: crate::flow::TableSettings { max_flows: 5, ..settings.table.clone() }, ..settings };
    engine.reload(at(3), &other.with_seed(9), Removed::EndNow);
    assert_eq!(format!("{engine:?}"), before);
}

#[test]
fn a_removed_server_keeps_its_flows_gets_no_new_ones_and_is_gone_with_the_last() {
    let mut engine = Engine::new(&file(&["a=10.0.0.1", "b=10.0.0.2"], ""));
    let own: Vec<u16> = (1..9).filter(|port| establish(&mut engine, at(1), *port) == [10, 0, 0, 1]).collect();
    assert_eq!(own.len(), 4);
    engine.reload(at(2), &file(&["b=10.0.0.2", "c=10.0.0.3"], ""), Removed::Drain);
    assert_eq!(send(&mut engine, at(3), ack(own[0])).unwrap()[16..20], [10, 0, 0, 1]);
    let new: Vec<u8> = (20..40).map(|port| new_flow(&mut engine, at(3), port).unwrap()).collect();
    assert!(new.iter().all(|server| [2, 3].contains(server)) && new.contains(&3), "{new:?}");
    let rows = engine.servers(at(3));
    let names: Vec<_> =
        rows.iter().map(|row| (row.server.as_str(), row.removed, row.admin == Admin::Draining)).collect();
    assert_eq!(names, [("b", false, false), ("c", false, false), ("a", true, true)]);
    assert_eq!((server(&rows, "b").flows_total, server(&rows, "c").flows_total), (14, 10));
    assert_eq!(engine.find_server("web", "a"), None);
    assert_eq!(events(&mut engine), [""; 0]);
    // Its flows expire.
    while engine.poll_timeout().is_some_and(|due| due <= at(8000)) {
        engine.handle_timeout(at(8000));
    }
    assert_eq!(events(&mut engine), ["server web/a is drained: its last flow has ended"]);
    assert!(engine.in_use().servers.iter().all(|used| !used) && engine.servers(at(8000)).len() == 2);
}

#[test]
fn the_flows_of_removed_servers_end_at_once_where_that_is_asked_for() {
    let mut engine = Engine::new(&file(&["a=10.0.0.1", "b=10.0.0.2"], ""));
    (1..5).for_each(|port| _ = establish(&mut engine, at(1), port));
    engine.reload(at(2), &file(&["b=10.0.0.2"], ""), Removed::EndNow);
    while engine.poll_timeout().is_some_and(|due| due <= at(2)) {
        engine.handle_timeout(at(2));
    }
    let mut buffer = [0; 2000];
    let resets = std::iter::from_fn(|| engine.poll_transmit(at(2), &mut buffer)).count();
    assert_eq!((resets, engine.counters().flows), (6, 2), "to the client, and two to each server");
    assert_eq!(server(&engine.servers(at(2)), "b").flows, 2);
}

#[test]
fn what_operators_changed_stays_until_the_file_says_something_else_for_that_key() {
    let rule = |keys: &str| format!("[[rule]]\nname='no'\naction='balance'\nfrom='203.0.113.0/24'\n{keys}");
    let mut engine = Engine::new(&file(&["a=10.0.0.1", "b=10.0.0.2"], &rule("")));
    engine.apply(at(1), Change::Weight { server: ServerId(0), weight: 7 }).unwrap();
    engine.apply(at(1), Change::Admin { server: ServerId(1), admin: Admin::Disabled, deadline: None }).unwrap();
    engine.apply(at(1), Change::Rule { rule: 0, on: false }).unwrap();
    // Other keys, other objects, another order.
    engine.reload(
        at(2),
        &file(&["c=10.0.0.3", "b=10.0.0.2 , weight=3", "a=10.0.0.1 , state='disabled'"], &rule("rate=5\n")),
        Removed::Drain,
    );
    let rows = engine.servers(at(2));
    assert_eq!((server(&rows, "a").weight, server(&rows, "a").admin), (7, Admin::Disabled));
    assert_eq!((server(&rows, "b").weight, server(&rows, "b").admin), (3, Admin::Disabled));
    assert!(!engine.rules()[0].enabled);
    // The same keys.
    engine.reload(
        at(3),
        &file(&["a=10.0.0.1 , weight=2", "b=10.0.0.2 , state='draining'"], &rule("enabled=false\n")),
        Removed::Drain,
    );
    engine.reload(at(4), &file(&["a=10.0.0.1 , weight=2", "b=10.0.0.2"], &rule("enabled=true\n")), Removed::Drain);
    let rows = engine.servers(at(4));
    assert_eq!((server(&rows, "a").weight, server(&rows, "a").admin), (2, Admin::Enabled));
    assert_eq!((server(&rows, "b").weight, server(&rows, "b").admin), (1, Admin::Enabled));
    assert!(engine.rules()[0].enabled);
}

#[test]
fn a_changed_nat_pool_gives_no_port_twice_and_leaks_none() {
    let pool = |keys: &str| {
        file(&["a=10.0.0.1"], &format!("nat='full'\nnat-pool='n'\n[[nat-pool]]\nname='n'\nhold='1s'\n{keys}"))
    };
    let variants = [
        pool("addresses=['10.9.0.1']\nports='2000-2009'\n"),
        pool("addresses=['10.9.0.2']\nports='2000-2009'\n"),
        pool("addresses=['10.9.0.1', '10.9.0.2']\nports='2000-2019'\n"),
        pool("addresses=['10.9.0.0/30']\nports='2004-2013'\nkeep-parity=true\n"),
    ];
    let mut engine = Engine::new(&variants[0]);
    let (mut open, mut random) = (std::collections::BTreeMap::new(), Rng::new(5));
    for step in 1..400u64 {
        let now = at(10 * step);
        while engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
        }
        engine.reload(now, &variants[random.below(4) as usize], Removed::Drain);
        for _ in 0..random.below(4) {
            let port = 1000 + random.below(30) as u16;
            let Ok(sent) = send(&mut engine, now, bytes(tcp(CLIENT, port, VIP, 80, 100).syn(), b"")) else { continue };
            let source = (sent[12..16].to_vec(), sent[20..22].to_vec());
            open.insert(port, source);
        }
        // Each flow has a source of its own, and a reply finds the flow wherever its source is by now.
        let mut rows = Vec::new();
        engine.flows(now, &FlowQuery::default(), Cursor::default(), 10_000, &mut rows);
        let mut sources: Vec<_> = rows.iter().map(|row| row.source).collect();
        sources.sort_unstable();
        sources.dedup();
        assert_eq!(sources.len(), rows.len(), "step {step}");
    }
    let end = at(100_000);
    while engine.poll_timeout().is_some_and(|due| due <= end) {
        engine.handle_timeout(end);
    }
    assert_eq!((engine.counters().flows, engine.in_use().nat_pools), (0, vec![false]));
    assert!(engine.nat_pools().iter().all(|row| (row.used, row.resting) == (0, 0)), "{:?}", engine.nat_pools());
}

#[test]
fn a_retired_address_is_answered_and_not_sent_on_until_it_is_forgotten() {
    let mut engine = Engine::new(&file(&["a=10.0.0.1"], ""));
    establish(&mut engine, at(1), 1);
    let mut moved = file(&["a=10.0.0.1"], "");
    moved.services[0].listen.iter_mut().for_each(|listen| listen.address = [192, 0, 2, 81].into());
    engine.reload(at(2), &moved, Removed::Drain);
    assert!(send(&mut engine, at(3), ack(1)).is_ok(), "the flow stays");
    assert_eq!(new_flow(&mut engine, at(3), 2), Err(Verdict::Consume(Consumed::Closed)), "sent on, it would come back");
    assert_eq!(engine.retired(), ["192.0.2.80/32".parse().unwrap()]);
    engine.forget_retired();
    assert!(
        matches!(send(&mut engine, at(3), bytes(tcp(CLIENT, 2, VIP, 80, 100).syn(), b"")), Ok(sent) if sent[16..20] == VIP)
    );
    engine.reload(at(4), &file(&["a=10.0.0.1"], ""), Removed::Drain);
    assert!(new_flow(&mut engine, at(4), 3).is_ok());
}

#[test]
fn the_addresses_of_a_removed_nat_pool_stay_the_gateways_own_while_flows_have_them() {
    let nat = "nat='full'\nnat-pool='n'\n[[nat-pool]]\nname='n'\naddresses='10.9.0.1'\n";
    let mut engine = Engine::new(&file(&["a=10.0.0.1"], nat));
    establish(&mut engine, at(1), 1);
    // The service stays, and its next flows have the addresses of their clients.
    engine.reload(at(2), &file(&["a=10.0.0.1"], ""), Removed::Drain);
    engine.reload(at(3), &file(&["a=10.0.0.1"], "unknown-tcp='drop'\n"), Removed::Drain);
    assert_eq!(engine.retired(), ["10.9.0.1/32".parse().unwrap()]);
    assert_eq!(engine.nat_addresses(), [IpAddr::from([10, 9, 0, 1])]);
    assert!(engine.find_retired(Cursor::default(), usize::MAX).0, "the flow needs it");
    assert!(send(&mut engine, at(3), ack(1)).is_ok());
    let mut rows = Vec::new();
    engine.flows(at(3), &FlowQuery::default(), Cursor::default(), 10, &mut rows);
    engine.apply(at(3), Change::Kill { flow: rows[0].id }).unwrap();
    assert_eq!(engine.find_retired(Cursor::default(), usize::MAX), (false, None));
    // In another process, of which the configuration says nothing of it either.
    let mut next = Engine::new(&file(&["a=10.0.0.1"], ""));
    next.retire(&["10.9.0.1/32".parse().unwrap(), "192.0.2.80/32".parse().unwrap()]);
    assert_eq!(next.retired(), ["10.9.0.1/32".parse().unwrap()], "what it has is not retired");
}

/// What one reload may change, by bits: order and unrelated objects.
fn equivalent(variant: u64) -> Settings {
    let servers = ["a=10.0.0.1", "b=10.0.0.2 , weight=3", "c=10.0.0.3 , max-flows=3"];
    let sticky = "[service.sticky]\nby='address'\nidle='20s'\n";
    let others = "[[pool]]\nname='other'\nserver=[{name='a', address='10.5.0.1'}]\n[[service]]\nname='early'\n\
                  listen='192.0.2.99:99/tcp'\npool='other'\n";
    let rules = "[[rule]]\nname='limit'\naction='balance'\nclient-flows=4\nrate=50\n";
    let early_rule = "[[rule]]\nname='none'\naction='drop'\nfrom='240.0.0.0/8'\n";
    let mut rest = String::from(sticky);
    rest += if variant & 1 != 0 { others } else { "" };
    rest += if variant & 2 != 0 { early_rule } else { "" };
    rest += rules;
    file(&servers, &rest)
}

#[test]
fn traffic_does_not_notice_a_reload_of_what_does_not_concern_it() {
    for seed in 0..20 {
        let mut random = Rng::new(seed);
        let (mut still, mut reloaded) = (Engine::new(&equivalent(0)), Engine::new(&equivalent(0)));
        for step in 0..600u64 {
            let now = Instant::from_nanos(step * 200_000_000);
            let packet = random_packet(&mut random);
            if random.below(20) == 0 {
                reloaded.reload(now, &equivalent(random.below(4)), Removed::Drain);
            }
            let mut both = [&mut still, &mut reloaded].map(|engine| {
                while engine.poll_timeout().is_some_and(|due| due <= now) {
                    engine.handle_timeout(now);
                }
                let mut packet = packet.clone();
                let verdict = engine.handle_packet(now, &mut packet, Meta::default());
                let mut buffer = [0; 2000];
                let own: Vec<_> =
                    std::iter::from_fn(|| engine.poll_transmit(now, &mut buffer).map(|sent| sent.0)).collect();
                (format!("{verdict:?}"), packet, own)
            });
            // Services and rules have other numbers.
            both.iter_mut().for_each(|(verdict, ..)| verdict.retain(|c| !c.is_ascii_digit()));
            assert_eq!(both[0], both[1], "seed {seed}, step {step}");
        }
    }
}

/// A segment or datagram of one of a few clients, in either direction.
fn random_packet(random: &mut Rng) -> Vec<u8> {
    let client = [198, 51, 100, random.below(6) as u8];
    let port = 1000 + random.below(3) as u16;
    let server = [10, 0, 0, 1 + random.below(3) as u8];
    let mut packet = Vec::new();
    match random.below(6) {
        0 | 1 => return bytes(tcp(client, port, VIP, 80, 100).syn(), b""),
        2 => return bytes(tcp(server, 8080, client, port, 500).syn().ack(101), b""),
        3 => return bytes(tcp(client, port, VIP, 80, 101).ack(501), b"x"),
        4 => PacketBuilder::ipv4(client, VIP, 64).udp(port, 80).write(&mut packet, b"q").unwrap(),
        _ => PacketBuilder::ipv4(server, client, 64).udp(8080, port).write(&mut packet, b"a").unwrap(),
    }
    packet
}

/// A configuration of which everything may differ from the last one: servers, services, groups, rules, NAT, timeouts.
fn any(random: &mut Rng) -> Settings {
    let mut text = String::from("seed = 1\n");
    let mut coin = |of: u64| random.below(of);
    text += &format!("[timeouts]\ntcp-opening='{}s'\n", 240 + coin(3));
    let pools: Vec<usize> = (0..3).filter(|pool| *pool == 0 || coin(2) == 0).collect();
    for pool in &pools {
        text += &format!("[[pool]]\nname='p{pool}'\nserver=[");
        for server in 0..4 {
            if server == 0 || coin(3) > 0 {
                let (weight, port) = (coin(3) + u64::from(server == 0), 8080 + coin(2));
                text += &format!("{{name='s{server}', address='10.0.{pool}.{server}', weight={weight}, port={port}}},");
            }
        }
        text += "]\n";
    }
    for nat in 0..2 {
        text += &format!("[[nat-pool]]\nname='n{nat}'\naddresses='10.9.{nat}.{}'\nhold='5s'\n", coin(3));
    }
    for service in 0..4 {
        if service > 0 && coin(3) == 0 {
            continue;
        }
        let pool = pools[coin(pools.len() as u64) as usize];
        let algorithm =
            ["round-robin", "least-connections", "maglev", "source-hash", "connection-rate"][coin(5) as usize];
        let at = 80 + coin(4);
        text += &format!(
            "[[service]]\nname='v{service}'\nlisten=['192.0.2.{at}:8{service}/tcp', '192.0.2.{at}:8{service}/udp']\n\
             pool='p{pool}'\nalgorithm='{algorithm}'\non-down='reset'\n"
        );
        if coin(3) == 0 {
            text += &format!("nat='full'\nnat-pool='n{}'\n", coin(2));
        }
        if coin(3) == 0 {
            text += &format!("[[service.timeouts]]\nudp-one-way='{}s'\n", 120 + coin(4));
        }
        if coin(2) == 0 {
            let by = ["address", "network"][coin(2) as usize];
            text += &format!("[service.sticky]\nby='{by}'\nidle='{}s'\nslots={}\n", 1 + coin(30), 1 + coin(8));
        }
    }
    for rule in 0..3 {
        if coin(2) == 0 {
            let prefix = [24, 32][coin(2) as usize];
            text += &format!(
                "[[rule]]\nname='r{rule}'\naction='balance'\nclient-flows={}\nclient-ipv4-prefix={prefix}\nports='8{rule}'\n\
                 protocol='tcp'\n",
                1 + coin(4)
            );
        }
    }
    parse_file(&text)
}

/// Answers or goes on with a packet that was sent, as its receiver might.
fn reply(sent: &[u8], random: &mut Rng) -> Option<Vec<u8>> {
    let parsed = crate::packet::parse(sent).ok()?;
    let Addresses::V4 { src, dst } = parsed.addresses else { return None };
    let (src, dst) = (src.to_be_bytes(), dst.to_be_bytes());
    let mut packet = Vec::new();
    match parsed.transport {
        Transport::Tcp { src: from, dst: to, flags, .. } => {
            let segment = tcp(dst, to, src, from, 500);
            let segment = match (flags.syn(), random.below(8)) {
                (true, 0) => segment.rst().ack(101),
                (true, _) => segment.syn().ack(101),
                (false, 0) => segment.fin().ack(101),
                (false, _) => segment.ack(101),
            };
            return Some(bytes(segment, b""));
        }
        Transport::Udp { src: from, dst: to, .. } => {
            PacketBuilder::ipv4(dst, src, 64).udp(to, from).write(&mut packet, b"a").unwrap();
        }
        _ => return None,
    }
    Some(packet)
}

#[test]
fn after_any_reloads_every_count_returns_to_zero_when_the_last_flow_has_ended() {
    for seed in 0..60 {
        let mut random = Rng::new(seed);
        let mut engine = Engine::new(&any(&mut random));
        let mut now = Instant::ZERO;
        for _ in 0..150 {
            now = now + crate::time::Duration::from_millis(random.below(3000));
            while engine.poll_timeout().is_some_and(|due| due <= now) {
                engine.handle_timeout(now);
            }
            if random.below(8) == 0 {
                let removed = [Removed::Drain, Removed::EndNow][random.below(2) as usize];
                engine.reload(now, &any(&mut random), removed);
            }
            let (client, port) = ([198, 51, 100, random.below(9) as u8], 1000 + random.below(3) as u16);
            let service = random.below(4) as u16;
            let vip = [192, 0, 2, 80 + random.below(4) as u8];
            let mut packet = if random.below(2) == 0 {
                bytes(tcp(client, port, vip, 80 + service, 100).syn(), b"")
            } else {
                let mut packet = Vec::new();
                PacketBuilder::ipv4(client, vip, 64).udp(port, 80 + service).write(&mut packet, b"q").unwrap();
                packet
            };
            for _ in 0..random.below(5) {
                let Ok(sent) = send(&mut engine, now, packet) else { break };
                let Some(next) = reply(&sent, &mut random) else { break };
                packet = next;
            }
        }
        now = now + crate::time::Duration::from_secs(100_000);
        while engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
        }
        // Ports whose rest is over are freed a few at a time.
        now = now + crate::time::Duration::from_secs(60);
        (0..9).for_each(|_| engine.handle_timeout(now));
        let used = engine.in_use();
        let all = [&used.services, &used.servers, &used.nat_pools, &used.rules].map(|of| of.contains(&true));
        assert!(!all.contains(&true) && engine.counters().flows == 0, "seed {seed}: {used:?} {:?}", engine.nat_pools());
        assert!(engine.servers(now).iter().all(|row| (row.flows, row.proven) == (0, 0)), "seed {seed}");
        assert!(
            engine.nat_pools().iter().all(|row| (row.used, row.half_open, row.resting) == (0, 0, 0)),
            "seed {seed}"
        );
        // Slots do not pile up: after two more reloads, only what is in the file is left.
        let last = any(&mut random);
        [&any(&mut random), &last, &any(&mut random), &last]
            .iter()
            .for_each(|next| engine.reload(now, next, Removed::Drain));
        let slots = engine.plan.settings().servers.len();
        assert!(slots <= 2 * 12 + 12, "seed {seed}: {slots} slots");
    }
}
