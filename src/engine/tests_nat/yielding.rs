//! NAT ports and return keys of connections that are over, and who may have them next.

use super::*;

/// Opens a connection from a client's port to an address, over its server's 8080, and returns the source that the
/// server sees.
fn connect(engine: &mut Engine, now: Instant, (client, port): (u8, u16), vip: [u8; 4]) -> ([u8; 4], u16) {
    let from = [198, 51, 100, client];
    let out = through(engine, now, &bytes(tcp(from, port, vip, 80, 100).syn(), b""));
    let parsed = parse(&out[0]).unwrap();
    let (Addresses::V4 { src, .. }, Transport::Tcp { src: port_there, .. }) = (parsed.addresses, parsed.transport)
    else {
        panic!("{parsed:?}");
    };
    let source = (src.to_be_bytes(), port_there);
    through(engine, now, &bytes(tcp([10, 0, 2, 1], 8080, source.0, source.1, 500).syn().ack(101), b""));
    through(engine, now, &bytes(tcp(from, port, vip, 80, 101).ack(501), b""));
    source
}

/// A pool of two ports towards one server, both in use.
fn two_ports() -> (Engine, [([u8; 4], u16); 2]) {
    let mut settings = full(true, false, |pool| (pool.first_port, pool.last_port) = (5000, 5001));
    settings.servers.truncate(1);
    settings.pools[0].servers.truncate(1);
    let mut engine = Engine::new(&settings);
    let sources = [7, 8].map(|client| connect(&mut engine, at(0), (client, 4000), VIP));
    (engine, sources)
}

fn asks(engine: &mut Engine, now: Instant, client: u8) -> Verdict {
    let mut syn = bytes(tcp([198, 51, 100, client], 4000, VIP, 80, 7000).syn(), b"");
    let verdict = engine.handle_packet(now, &mut syn, Meta::default());
    while engine.poll_transmit(now, &mut [0; 2000]).is_some() {}
    verdict
}

#[test]
fn a_port_is_not_yielded_while_the_last_data_is_unacknowledged() {
    let (mut engine, [source, _]) = two_ports();
    through(&mut engine, at(1), &bytes(tcp(CLIENT, 4000, VIP, 80, 101).fin().ack(501), b"GET"));
    let last = bytes(tcp([10, 0, 2, 1], 8080, source.0, source.1, 501).fin().ack(105), &[7; 1000]);
    through(&mut engine, at(1), &last);
    // The answer was lost behind the gateway: the server sends it again for minutes.
    for seconds in [1, 4, 100] {
        assert_eq!(asks(&mut engine, at(seconds), 9), Verdict::Drop(Reason::NatExhausted), "after {seconds} s");
        let out = through(&mut engine, at(seconds), &last);
        assert_eq!(parse(&out[0]).unwrap().addresses.dst(), IpAddr::from(CLIENT));
    }
    // Once it is acknowledged, and has been over for a while.
    through(&mut engine, at(101), &bytes(tcp(CLIENT, 4000, VIP, 80, 105).ack(1502), b""));
    assert!(matches!(asks(&mut engine, at(101), 9), Verdict::Forward { .. }));
}

#[test]
fn the_port_of_a_connection_that_is_over_waits_two_seconds_for_another_client() {
    for resets in [false, true] {
        let (mut engine, [source, _]) = two_ports();
        if resets {
            through(&mut engine, at(10), &bytes(tcp(CLIENT, 4000, VIP, 80, 101).rst(), b""));
        } else {
            through(&mut engine, at(10), &bytes(tcp(CLIENT, 4000, VIP, 80, 101).fin().ack(501), b""));
            through(&mut engine, at(10), &bytes(tcp([10, 0, 2, 1], 8080, source.0, source.1, 501).fin().ack(102), b""));
            through(&mut engine, at(10), &bytes(tcp(CLIENT, 4000, VIP, 80, 102).ack(502), b""));
        }
        assert_eq!(asks(&mut engine, at(11), 9), Verdict::Drop(Reason::NatExhausted));
        assert!(matches!(asks(&mut engine, Instant::from_nanos(12_100_000_000), 9), Verdict::Forward { .. }));
    }
}

#[test]
fn of_two_connections_that_are_over_the_one_over_for_longer_yields_its_port() {
    for first in [7, 8] {
        let (mut engine, sources) = two_ports();
        let second = if first == 7 { 8 } else { 7 };
        for (seconds, client) in [(10, first), (11, second)] {
            through(&mut engine, at(seconds), &bytes(tcp([198, 51, 100, client], 4000, VIP, 80, 101).rst(), b""));
        }
        let source = connect(&mut engine, at(20), (9, 4000), VIP);
        assert_eq!(source, sources[usize::from(first - 7)]);
    }
}

#[test]
fn a_client_takes_the_key_of_its_own_closed_connection_at_once_and_of_no_other() {
    let mut settings = settings(1, 100);
    let vip = [192, 0, 2, 81];
    settings.services[0].listen.push(Listen::one(vip.into(), Protocol::Tcp, 80, 80));
    let mut engine = Engine::new(&settings);
    connect(&mut engine, at(0), (7, 4000), VIP);
    let there = |engine: &mut Engine, now| {
        engine.handle_packet(now, &mut bytes(tcp(CLIENT, 4000, vip, 80, 9000).syn(), b""), Meta::default())
    };
    through(&mut engine, at(1), &bytes(tcp(CLIENT, 4000, VIP, 80, 101).fin().ack(501), b""));
    through(&mut engine, at(1), &bytes(tcp([10, 0, 2, 1], 8080, CLIENT, 4000, 501).fin().ack(102), b""));
    assert_eq!(
        there(&mut engine, at(1)),
        Verdict::Drop(Reason::ReturnKeyTaken),
        "the server's FIN is not acknowledged"
    );
    while engine.poll_transmit(at(1), &mut [0; 2000]).is_some() {}
    through(&mut engine, at(1), &bytes(tcp(CLIENT, 4000, VIP, 80, 102).ack(502), b""));
    assert!(matches!(there(&mut engine, at(1)), Verdict::Forward { .. }));
}
