//! Flow lifetimes, to the second, and connections that outlive the engine.

use super::testing::{CLIENT, VIP, at, bytes, settings, tcp};
use super::*;
use crate::balance::{Algorithm, PortTimeouts, Protocol, UnknownTcp};
use crate::flow::{TimeoutState, Timeouts};
use crate::packet::Side;
use crate::time::Duration;
use etherparse::PacketBuilder;

const SERVER: [u8; 4] = [10, 0, 2, 1];

fn send(engine: &mut Engine, now: Instant, mut packet: Vec<u8>) -> (Verdict, Vec<u8>) {
    let verdict = engine.handle_packet(now, &mut packet, Meta::default());
    (verdict, packet)
}

fn udp(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4(src, dst, 9).udp(sport, dport).write(&mut out, b"hi").unwrap();
    out
}

/// Returns packets that bring a flow into a state.
fn walk_to(class: TimeoutState) -> Vec<Vec<u8>> {
    let client = |seq| tcp(CLIENT, 9, VIP, 80, seq);
    let server = |seq| tcp(SERVER, 8080, CLIENT, 9, seq);
    let open = [client(100).syn(), server(500).syn().ack(101), client(101).ack(501)];
    let rest = match class {
        TimeoutState::Opening => return vec![bytes(client(100).syn(), b"")],
        TimeoutState::Established => vec![],
        TimeoutState::Closing => vec![client(101).fin().ack(501), server(501).fin().ack(102)],
        TimeoutState::Reset => vec![server(501).rst()],
        TimeoutState::UdpOneWay => return vec![udp(CLIENT, 9, VIP, 80)],
        TimeoutState::UdpTwoWay => return vec![udp(CLIENT, 9, VIP, 80), udp(SERVER, 8080, CLIENT, 9)],
        TimeoutState::Icmp => {
            let mut ping = Vec::new();
            PacketBuilder::ipv4(CLIENT, [192, 0, 2, 90], 3).icmpv4_echo_request(9, 1).write(&mut ping, b"").unwrap();
            return vec![ping];
        }
    };
    open.into_iter().chain(rest).map(|packet| bytes(packet, b"")).collect()
}

/// Asserts that a flow in a state is alive one second before `seconds` and gone one second after.
fn lives(settings: &Settings, class: TimeoutState, seconds: u64) {
    let mut engine = Engine::new(settings);
    for packet in walk_to(class) {
        assert!(matches!(send(&mut engine, at(1000), packet).0, Verdict::Forward { .. }), "{class:?}");
    }
    assert_eq!(engine.counters().states[class as usize].count, 1, "{class:?}");
    engine.handle_timeout(at(1000 + seconds - 1));
    assert_eq!(engine.counters().flows, 1, "{class:?}: one second before");
    engine.handle_timeout(at(1000 + seconds + 1));
    assert_eq!(engine.counters().flows, 0, "{class:?}: one second after");
}

#[test]
fn default_timeouts_are_exact_to_the_second() {
    for (class, seconds) in TimeoutState::ALL.into_iter().zip([240, 7440, 240, 240, 300, 300, 60]) {
        lives(&settings(1, 9), class, seconds);
    }
}

#[test]
fn a_services_port_uses_its_own_timeouts_and_not_those_of_another_port_or_protocol() {
    let s = Duration::from_secs;
    let mut settings = settings(1, 9);
    let short = Timeouts { udp_one_way: s(30), udp_two_way: s(31), opening: s(32), icmp: s(33), ..Timeouts::default() };
    settings.table.profiles = vec![Timeouts { udp_one_way: s(1), ..Timeouts::default() }, short];
    let row = |protocol, first_port, last_port, profile| PortTimeouts { protocol, first_port, last_port, profile };
    for (rows, one_way, two_way, opening) in [
        (vec![row(Protocol::Udp, 0, 79, 1), row(Protocol::Udp, 80, 80, 2), row(Protocol::Udp, 81, 90, 1)], 30, 31, 240),
        (vec![row(Protocol::Tcp, 0, 65_535, 2)], 300, 300, 32),
        (vec![row(Protocol::Udp, 0, 79, 1), row(Protocol::Udp, 81, 90, 1)], 300, 300, 240),
    ] {
        settings.services[0].timeouts = rows;
        lives(&settings, TimeoutState::UdpOneWay, one_way);
        lives(&settings, TimeoutState::UdpTwoWay, two_way);
        lives(&settings, TimeoutState::Opening, opening);
        lives(&settings, TimeoutState::Established, 7440);
    }
}

/// Returns settings with nine servers by Maglev and adoption of segments without a flow.
fn adopting() -> Settings {
    let mut settings = settings(9, 99);
    settings.services[0].algorithm = Algorithm::Maglev;
    settings.services[0].unknown_tcp = UnknownTcp::Adopt;
    settings
}

#[test]
fn a_connection_continues_on_its_server_under_a_new_engine() {
    let (mut old, mut new) = (Engine::new(&adopting()), Engine::new(&adopting()));
    let mut servers = std::collections::BTreeSet::new();
    for port in 1..=20 {
        let (_, syn) = send(&mut old, at(0), bytes(tcp(CLIENT, port, VIP, 80, 100).syn(), b""));
        let (verdict, data) = send(&mut new, at(5), bytes(tcp(CLIENT, port, VIP, 80, 101).ack(501), b"data"));
        assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Translated { opened: true, .. }, .. }), "{port}");
        assert_eq!(&data[16..20], &syn[16..20], "{port}");
        let server = [data[16], data[17], data[18], data[19]];
        servers.insert(server);
        let (_, answer) = send(&mut new, at(6), bytes(tcp(server, 8080, CLIENT, port, 501).ack(105), b"answer"));
        assert_eq!(&answer[12..16], &VIP);
        assert_eq!(new.counters().states[TimeoutState::Opening as usize].count, 1, "nothing is acknowledged yet");
        send(&mut new, at(7), bytes(tcp(CLIENT, port, VIP, 80, 105).ack(507), b""));
        assert_eq!(new.counters().states[TimeoutState::Established as usize].count, u64::from(port));
    }
    assert!(servers.len() > 3, "{servers:?}");
    new.handle_timeout(at(7 + 7439));
    assert_eq!(new.counters().flows, 20);
}

/// A download that nobody but its server goes on with.
fn push(server: u8, len: usize) -> Vec<u8> {
    bytes(tcp([10, 0, 2, server], 8080, CLIENT, 9, 501).ack(101), &vec![7; len])
}

#[test]
fn a_download_continues_under_a_new_engine_with_its_servers_first_segment() {
    for passes in [false, true] {
        let mut engine = Engine::new(&adopting());
        if passes {
            engine.pass_strays();
        }
        let (verdict, sent) = send(&mut engine, at(1), push(3, 4));
        assert!(matches!(
            verdict,
            Verdict::Forward { why: Forwarded::Translated { from: Side::Server, opened: true, .. }, .. }
        ));
        assert_eq!((&sent[12..16], &sent[16..20]), (&VIP[..], &CLIENT[..]));
        let opening = |engine: &Engine| engine.counters().states[TimeoutState::Opening as usize].count;
        assert_eq!(opening(&engine), 1);
        // The client acknowledges, the server goes on, the client acknowledges again.
        let (_, ack) = send(&mut engine, at(1), bytes(tcp(CLIENT, 9, VIP, 80, 101).ack(505), b""));
        assert_eq!(&ack[16..20], [10, 0, 2, 3]);
        assert_eq!(opening(&engine), 1, "nobody has confirmed what the client acknowledges");
        send(&mut engine, at(1), bytes(tcp([10, 0, 2, 3], 8080, CLIENT, 9, 505).ack(101), b"more"));
        send(&mut engine, at(1), bytes(tcp(CLIENT, 9, VIP, 80, 101).ack(509), b""));
        assert_eq!(engine.counters().states[TimeoutState::Established as usize].count, 1);
        let row = &engine.servers(at(1))[2];
        assert_eq!((row.flows, row.proven), (1, 1));
    }
}

#[test]
fn a_servers_segment_that_may_be_anothers_makes_no_flow() {
    let adopting = |change: &dyn Fn(&mut Settings)| {
        let mut settings = adopting();
        change(&mut settings);
        Engine::new(&settings)
    };
    let syn_ack = bytes(tcp([10, 0, 2, 3], 8080, CLIENT, 9, 501).syn().ack(101), b"");
    let rst = bytes(tcp([10, 0, 2, 3], 8080, CLIENT, 9, 501).rst().ack(101), b"");
    let no_ack = bytes(tcp([10, 0, 2, 3], 8080, CLIENT, 9, 501).fin(), b"");
    let other_port = bytes(tcp([10, 0, 2, 3], 8081, CLIENT, 9, 501).ack(101), b"");
    let stranger = bytes(tcp([10, 0, 3, 3], 8080, CLIENT, 9, 501).ack(101), b"");
    let mut wrong = push(3, 4);
    wrong[36] ^= 1;
    for packet in [syn_ack, rst, no_ack, other_port, stranger, wrong] {
        let mut engine = adopting(&|_| {});
        send(&mut engine, at(1), packet);
        assert_eq!(engine.counters().flows, 0);
    }
    use crate::policy::{Action, RuleSettings};
    let client = || vec!["198.51.100.0/24".parse().expect("a network")];
    let rule = |action| RuleSettings { from: client(), ..RuleSettings::new("r", action) };
    let changes: [(&str, &dyn Fn(&mut Settings)); 4] = [
        ("reset", &|settings| settings.services[0].unknown_tcp = UnknownTcp::Reset),
        ("drop", &|settings| settings.services[0].unknown_tcp = UnknownTcp::Drop),
        ("off", &|settings| settings.services[0].enabled = false),
        ("rule", &|settings| settings.policy.rules = vec![rule(Action::Drop)]),
    ];
    for (what, change) in changes {
        let mut engine = adopting(change);
        send(&mut engine, at(1), push(3, 4));
        assert_eq!(engine.counters().flows, 0, "{what}");
    }
    // Its client has a connection to another server.
    let mut engine = adopting(&|_| {});
    let (_, syn) = send(&mut engine, at(1), bytes(tcp(CLIENT, 9, VIP, 80, 100).syn(), b""));
    send(&mut engine, at(1), push(if syn[19] == 3 { 4 } else { 3 }, 4));
    assert_eq!(engine.counters().flows, 1);
    // A rule that admits it counts it.
    let mut engine = adopting(&|settings| settings.policy.rules = vec![rule(Action::Balance(None))]);
    send(&mut engine, at(1), push(3, 4));
    assert_eq!((engine.counters().flows, engine.rules()[0].flows), (1, 1));
}

#[test]
fn forged_segments_of_servers_take_no_place_choose_no_server_and_harm_no_connection_past_the_gateway() {
    let mut settings = adopting();
    settings.table.max_flows = 20;
    let mut engine = Engine::new(&settings);
    let forged = |n: u16| bytes(tcp([10, 0, 2, 3], 8080, [203, 0, 113, 9], 1000 + n, 501).ack(101), b"data");
    let verdicts: Vec<_> = (0..50).map(|n| send(&mut engine, at(1), forged(n)).0).collect();
    assert!(verdicts[20..].iter().all(|verdict| *verdict == Verdict::Drop(Reason::TableFull)), "they take no place");
    assert_eq!(engine.counters().flows, 20);
    for port in 1..=20 {
        let (_, syn) = send(&mut engine, at(2), bytes(tcp(CLIENT, port, VIP, 80, 100).syn(), b""));
        let server = [10, 0, 2, syn[19]];
        send(&mut engine, at(2), bytes(tcp(server, 8080, CLIENT, port, 500).syn().ack(101), b""));
        send(&mut engine, at(2), bytes(tcp(CLIENT, port, VIP, 80, 101).ack(501), b""));
    }
    assert_eq!(engine.counters().states[TimeoutState::Established as usize].count, 20, "and give way to any");

    // A client's SYN goes where the algorithm says.
    let (mut plain, mut engine) = (Engine::new(&adopting()), Engine::new(&adopting()));
    let syn = || bytes(tcp(CLIENT, 9, VIP, 80, 700).syn(), b"");
    let chosen = send(&mut plain, at(1), syn()).1[19];
    let other = (1..).find(|n| *n != chosen).unwrap_or(1);
    send(&mut engine, at(1), push(other, 4));
    assert_eq!(send(&mut engine, at(1), syn()).1[19], chosen);

    // A host that has no such connection answers by a reset: that of another one does not reach the server.
    let mut engine = Engine::new(&adopting());
    engine.pass_strays();
    send(&mut engine, at(1), push(3, 4));
    let reset = |seq| bytes(tcp(CLIENT, 9, VIP, 80, seq).rst(), b"");
    assert!(matches!(send(&mut engine, at(1), reset(100)).0, Verdict::Forward { .. }), "anybody can have sent it");
    assert_eq!(engine.counters().flows, 1);
    assert_eq!(send(&mut engine, at(1), reset(101)).0, Verdict::Drop(Reason::TcpNoFlow));
    assert_eq!(engine.counters().flows, 0);
    let (verdict, sent) = send(&mut engine, at(2), push(3, 4));
    assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Foreign, .. }), "{verdict:?}");
    assert_eq!(sent, push(3, 4), "the connection past the gateway goes on");
}

#[test]
fn packets_that_show_no_open_connection_are_not_adopted() {
    let segment = || tcp(CLIENT, 9, VIP, 80, 101);
    for (what, packet) in [("RST", segment().rst()), ("SYN-ACK", segment().syn().ack(1)), ("no ACK", segment().fin())] {
        let mut engine = Engine::new(&adopting());
        let verdict = send(&mut engine, at(0), bytes(packet, b"")).0;
        assert_eq!((verdict, engine.counters().flows), (Verdict::Drop(Reason::TcpNoFlow), 0), "{what}");
    }
    let mut engine = Engine::new(&adopting());
    let mut wrong = bytes(segment().ack(7), b"data");
    wrong[36] ^= 1;
    assert_eq!(send(&mut engine, at(0), wrong).0, Verdict::Drop(Reason::TcpNoFlow));
    // A single acknowledgement occupies the table no longer than a half-open flow does.
    send(&mut engine, at(0), bytes(segment().ack(7), b""));
    engine.handle_timeout(at(241));
    assert_eq!(engine.counters().flows, 0);
}

#[test]
fn refusing_an_adopted_connection_does_not_count_against_the_server() {
    use crate::balance::Passive;
    for (first, held) in [(tcp(CLIENT, 9, VIP, 80, 100).ack(7), false), (tcp(CLIENT, 9, VIP, 80, 100).syn(), true)] {
        let mut settings = adopting();
        settings.pools[0].passive = Some(Passive { failures: 1, ..Passive::default() });
        let mut engine = Engine::new(&settings);
        let (_, packet) = send(&mut engine, at(0), bytes(first, b""));
        let server = [packet[16], packet[17], packet[18], packet[19]];
        send(&mut engine, at(0), bytes(tcp(server, 8080, CLIENT, 9, 7).rst().ack(101), b""));
        assert_eq!(engine.servers(at(0)).iter().any(|row| row.passive_hold_ms.is_some()), held);
    }
}

#[test]
fn segments_in_flight_when_a_reset_passed_do_not_revive_the_flow() {
    let reset = || bytes(tcp(CLIENT, 9, VIP, 80, 101).rst(), b"");
    let data = || bytes(tcp(SERVER, 8080, CLIENT, 9, 501).ack(101), b"data");
    let answer = || bytes(tcp(CLIENT, 9, VIP, 80, 101).ack(505), b"");
    let ms = |ms: u64| Instant::from_nanos(ms * 1_000_000);
    for (what, later, class) in [
        ("the server has not received the reset yet", vec![(ms(100), data()), (ms(1900), data())], TimeoutState::Reset),
        ("the server continues", vec![(ms(100), data()), (ms(2100), data())], TimeoutState::Established),
        ("the client continues", vec![(ms(100), data()), (ms(150), answer())], TimeoutState::Established),
    ] {
        let mut engine = Engine::new(&settings(1, 9));
        walk_to(TimeoutState::Established).into_iter().for_each(|packet| drop(send(&mut engine, at(0), packet)));
        send(&mut engine, at(0), reset());
        for (now, packet) in later {
            assert!(matches!(send(&mut engine, now, packet).0, Verdict::Forward { .. }), "{what}");
        }
        assert_eq!(engine.counters().states[class as usize].count, 1, "{what}");
        engine.handle_timeout(at(242));
        assert_eq!(engine.counters().flows, u64::from(class == TimeoutState::Established), "{what}");
    }
}

#[test]
fn with_full_nat_a_connection_without_a_flow_is_reset_and_not_adopted() {
    let mut settings = adopting();
    let addresses = vec![[10, 0, 9, 1].into()];
    settings.nat_pools =
        vec![crate::flow::NatPoolSettings { v4: addresses, ..crate::flow::NatPoolSettings::new("out") }];
    let only_for = vec!["198.51.100.0/24".parse().expect("a network")];
    settings.services[0].nat =
        crate::balance::Nat::Full { pool: crate::ids::NatPoolId(0), only_for, families: [true, false] };
    let mut engine = Engine::new(&settings);
    let segment = |client| bytes(tcp(client, 9, VIP, 80, 101).ack(7), b"");
    assert_eq!(send(&mut engine, at(0), segment([198, 51, 100, 7])).0, Verdict::Consume(Consumed::Reset));
    assert_eq!(engine.counters().flows, 0);
    send(&mut engine, at(0), segment([203, 0, 113, 7]));
    assert_eq!(engine.counters().flows, 1);
}

#[test]
fn where_strays_pass_the_client_of_a_connection_that_is_not_known_is_told_and_nothing_else_happens() {
    let push = |server: u8| bytes(tcp([10, 0, 2, server], 8080, CLIENT, 9, 501).ack(101), b"data");
    let sent = |engine: &mut Engine| {
        let mut buffer = [0; 2000];
        let packets =
            std::iter::from_fn(|| engine.poll_transmit(at(0), &mut buffer).map(|(len, _)| buffer[..len].to_vec()));
        packets.collect::<Vec<_>>()
    };
    let passes = |engine: &mut Engine, server| {
        let (verdict, packet) = send(engine, at(0), push(server));
        assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Foreign, .. }), "{verdict:?}");
        assert_eq!(packet, push(server));
    };
    let mut settings = settings(2, 9);
    for (says, resets) in [(UnknownTcp::Reset, 1), (UnknownTcp::Drop, 0)] {
        settings.services[0].unknown_tcp = says;
        let mut engine = Engine::new(&settings);
        engine.pass_strays();
        passes(&mut engine, 1);
        let sent = sent(&mut engine);
        assert_eq!(sent.len(), resets, "{says:?}");
        for reset in sent {
            let parsed = crate::packet::parse(&reset).unwrap();
            assert_eq!((&reset[12..16], &reset[16..20]), (&VIP[..], &CLIENT[..]));
            let crate::packet::Transport::Tcp { src, dst, flags, seq, .. } = parsed.transport else {
                panic!("{parsed:?}")
            };
            assert_eq!((src, dst, flags.rst(), seq), (80, 9, true, 501));
        }
    }
    // A connection that may be adopted, but can be one of two services, waits for its client.
    let mut two = settings.clone();
    two.services[0].unknown_tcp = UnknownTcp::Adopt;
    let mut other = two.services[0].clone();
    other.name = "other".into();
    other.listen[0].address = [192, 0, 2, 90].into();
    two.services.push(other);
    let mut engine = Engine::new(&two);
    engine.pass_strays();
    assert_eq!(send(&mut engine, at(0), push(1)).0, Verdict::Drop(Reason::ServerNoFlow));
    // The client has a connection to another server from that port.
    settings.services[0].unknown_tcp = UnknownTcp::Reset;
    let mut engine = Engine::new(&settings);
    engine.pass_strays();
    let (_, syn) = send(&mut engine, at(0), bytes(tcp(CLIENT, 9, VIP, 80, 100).syn(), b""));
    passes(&mut engine, 3 - syn[19]);
    assert!(sent(&mut engine).is_empty());
}
