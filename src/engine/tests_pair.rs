//! One engine of a pair: what it answers and ends while it stands by, and while its peer may know more.

use super::testing::{CLIENT, VIP, at, bytes, settings, tcp};
use super::*;
use crate::balance::{Nat, OnDown, UnknownTcp};
use crate::flow::NatPoolSettings;
use crate::ids::{NatPoolId, ServerId};
use crate::packet::Side;
use etherparse::PacketBuilder;

const SERVER: [u8; 4] = [10, 0, 2, 1];
const SOURCE: [u8; 4] = [10, 0, 9, 1];

/// Hands in a packet; returns its verdict and how many packets the engine sends.
fn send(engine: &mut Engine, second: u64, mut packet: Vec<u8>) -> (Verdict, usize) {
    let verdict = engine.handle_packet(at(second), &mut packet, Meta::default());
    (verdict, sent(engine, second))
}

fn sent(engine: &mut Engine, second: u64) -> usize {
    let mut buffer = vec![0; 65_535];
    std::iter::from_fn(|| engine.poll_transmit(at(second), &mut buffer)).count()
}

fn open(engine: &mut Engine, second: u64, port: u16) {
    let client = |seq| tcp(CLIENT, port, VIP, 80, seq);
    for packet in [client(100).syn(), tcp(SERVER, 8080, CLIENT, port, 500).syn().ack(101), client(101).ack(501)] {
        assert!(matches!(send(engine, second, bytes(packet, b"")).0, Verdict::Forward { .. }));
    }
}

fn ping() -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4(CLIENT, VIP, 60).icmpv4_echo_request(9, 1).write(&mut out, b"x").unwrap();
    out
}

const LEFT: (Verdict, usize) = (Verdict::Drop(Reason::OtherGateway), 0);

#[test]
fn a_standby_forwards_for_flows_that_it_knows_and_answers_nothing() {
    let mut engine = Engine::new(&settings(1, 100));
    open(&mut engine, 1, 7);
    engine.set_duty(at(2), Duty::Standby);
    let data = bytes(tcp(CLIENT, 7, VIP, 80, 101).ack(501), b"data");
    assert!(matches!(send(&mut engine, 2, data), (Verdict::Forward { .. }, 0)));
    let data = bytes(tcp(SERVER, 8080, CLIENT, 7, 501).ack(105), b"data");
    assert!(matches!(send(&mut engine, 2, data), (Verdict::Forward { .. }, 0)));
    let client = |seq| tcp(CLIENT, 8, VIP, 80, seq);
    let packets = [
        bytes(client(1).syn(), b""),
        bytes(client(1).ack(1), b"data"),
        bytes(client(1).rst(), b""),
        bytes(tcp(SERVER, 8080, CLIENT, 8, 1).ack(1), b"data"),
        bytes(tcp(CLIENT, 8, VIP, 81, 1).syn(), b""),
        ping(),
    ];
    for packet in packets {
        assert_eq!(send(&mut engine, 2, packet.clone()), LEFT, "{packet:02x?}");
    }
    // A TTL that runs out gets no report either.
    let mut last = Vec::new();
    PacketBuilder::ipv4(CLIENT, VIP, 1).tcp(7, 80, 105, 100).ack(505).write(&mut last, b"data").unwrap();
    assert_eq!(send(&mut engine, 2, last), LEFT);
    assert_eq!((engine.counters().flows, engine.counters().half_open), (1, 0));
    // What is not the gateway's own passes as ever.
    let foreign = bytes(tcp(CLIENT, 8, [203, 0, 113, 1], 80, 1).syn(), b"");
    assert!(matches!(send(&mut engine, 2, foreign).0, Verdict::Forward { why: Forwarded::Foreign, .. }));
    engine.set_duty(at(3), Duty::Full);
    assert!(matches!(send(&mut engine, 3, ping()), (Verdict::Consume(Consumed::Echo), _)));
}

#[test]
fn while_its_peer_may_know_more_a_gateway_resets_and_adopts_no_unknown_connection() {
    for unknown in [UnknownTcp::Reset, UnknownTcp::Adopt, UnknownTcp::Drop] {
        let mut all = settings(1, 100);
        all.services[0].unknown_tcp = unknown;
        let mut engine = Engine::new(&all);
        engine.set_duty(at(1), Duty::Known);
        assert_eq!(send(&mut engine, 1, bytes(tcp(CLIENT, 8, VIP, 80, 1).ack(1), b"data")), LEFT, "{unknown:?}");
        let from_server = bytes(tcp(SERVER, 8080, CLIENT, 8, 1).ack(1), b"data");
        assert_eq!(send(&mut engine, 1, from_server), LEFT, "{unknown:?}");
        open(&mut engine, 1, 7);
        assert!(matches!(send(&mut engine, 1, ping()).0, Verdict::Consume(Consumed::Echo)));
        engine.set_duty(at(2), Duty::Full);
        assert_ne!(send(&mut engine, 2, bytes(tcp(CLIENT, 8, VIP, 80, 1).ack(1), b"data")), LEFT);
    }
}

#[test]
fn what_servers_send_to_a_nat_address_is_left_to_a_peer_that_may_know_its_flow() {
    let mut all = settings(1, 100);
    let mut pool = NatPoolSettings::new("out");
    pool.v4 = vec![SOURCE.into()];
    all.nat_pools = vec![pool];
    all.services[0].nat = Nat::Full { pool: NatPoolId(0), only_for: vec![], families: [true, false] };
    let mut engine = Engine::new(&all);
    let reply = |port| tcp(SERVER, 8080, SOURCE, port, 1);
    let mut datagram = Vec::new();
    PacketBuilder::ipv4(SERVER, SOURCE, 60).udp(53, 2000).write(&mut datagram, b"x").unwrap();
    let packets = [
        bytes(reply(2000).ack(1), b"data"),
        bytes(reply(2000).syn().ack(1), b""),
        bytes(reply(2000).fin().ack(1), b""),
        datagram,
        // To a port that no service here has; the peer may have another configuration.
        bytes(tcp(CLIENT, 8, VIP, 81, 1).ack(1), b"data"),
    ];
    engine.set_duty(at(1), Duty::Known);
    for packet in &packets {
        assert_eq!(send(&mut engine, 1, packet.clone()), LEFT, "{packet:02x?}");
    }
    // Nobody but this gateway would answer a new connection.
    let syn = bytes(tcp(CLIENT, 8, VIP, 81, 1).syn(), b"");
    assert!(matches!(send(&mut engine, 1, syn), (Verdict::Consume(Consumed::Closed), _)));
    engine.set_duty(at(2), Duty::Full);
    for packet in &packets {
        let got = send(&mut engine, 2, packet.clone());
        assert!(matches!(got, (Verdict::Consume(Consumed::Closed), _)), "{got:?} {packet:02x?}");
    }
}

#[test]
fn flows_of_a_server_that_is_gone_end_when_a_gateway_no_longer_stands_by() {
    let mut all = settings(2, 100);
    all.services[0].on_down = Some(OnDown::Reset);
    let mut engine = Engine::new(&all);
    open(&mut engine, 1, 7);
    let server = engine.shard.table().server_of(0);
    assert_eq!(server, ServerId(0));
    engine.set_duty(at(2), Duty::Standby);
    engine.apply(at(2), Change::Health { server, up: Some(false) }).unwrap();
    for second in 3..400 {
        while engine.poll_timeout().is_some_and(|due| due <= at(second)) {
            engine.handle_timeout(at(second));
        }
        assert_eq!((sent(&mut engine, second), engine.counters().flows), (0, 1));
    }
    engine.set_duty(at(400), Duty::Known);
    engine.handle_timeout(at(400));
    assert_eq!((sent(&mut engine, 400) > 0, engine.counters().flows), (true, 0), "its ends get resets");
}

#[test]
fn each_flow_has_a_minute_after_a_takeover_and_timeouts_hold_again_after_it() {
    let mut engine = Engine::new(&settings(1, 100));
    let datagram = |port| {
        let mut out = Vec::new();
        PacketBuilder::ipv4(CLIENT, VIP, 60).udp(port, 80).write(&mut out, b"x").unwrap();
        out
    };
    send(&mut engine, 1, datagram(1));
    engine.set_duty(at(2), Duty::Standby);
    assert!(engine.poll_timeout().is_none_or(|due| due > at(10_000)), "nothing is due");
    engine.handle_timeout(at(10_000));
    engine.set_duty(at(10_000), Duty::Known);
    assert_eq!(engine.poll_timeout(), Some(at(10_060)));
    engine.handle_timeout(at(10_059));
    assert_eq!(engine.counters().flows, 1);
    engine.handle_timeout(at(10_060));
    assert_eq!(engine.counters().flows, 0);
    send(&mut engine, 10_100, datagram(2));
    engine.handle_timeout(at(10_399));
    assert_eq!(engine.counters().flows, 1);
    engine.handle_timeout(at(10_401));
    assert_eq!(engine.counters().flows, 0);
}

#[test]
fn a_record_of_the_peer_takes_the_place_of_what_is_in_its_way() {
    let all = settings(2, 100);
    let (mut one, mut two) = (Engine::new(&all), Engine::new(&all));
    open(&mut one, 1, 7);
    // The same client has another server here.
    send(&mut two, 1, bytes(tcp(CLIENT, 9, VIP, 80, 1).syn(), b""));
    send(&mut two, 1, bytes(tcp(CLIENT, 7, VIP, 80, 1).syn(), b""));
    assert_eq!(two.counters().half_open, 2);
    let (mut giving, mut taking, mut names) = (one.begin_giving(at(2)), two.begin_taking(at(2)), Vec::new());
    while !one.has_named(&giving) {
        one.give_names(&mut giving, at(2), 2, &mut names);
    }
    assert!(!two.knows_names(&taking));
    two.take_names(&mut taking, at(2), &names, true).unwrap();
    assert!(two.knows_names(&taking));
    let mut record = Vec::new();
    one.give_flow(&mut giving, at(2), 0, &mut record);
    let take = |two: &mut Engine, taking: &mut Taking, record: &[u8], same| {
        let mut rest = record;
        let Some(PeerRecord::Flow(flow)) = taking.next(at(3), &mut rest) else { panic!("no flow") };
        assert!(rest.is_empty());
        (flow.mark, two.take_flow(taking, at(3), &flow, same))
    };
    let (mark, id) = take(&mut two, &mut taking, &record, None);
    let id = id.unwrap();
    assert_eq!((Some(mark), one.flow_mark(0)), (two.flow_mark(id.index), Some(mark)));
    assert_eq!((two.counters().flows, two.counters().half_open), (2, 1));
    // The same flow later: it stays in its slot.
    send(&mut one, 4, bytes(tcp(CLIENT, 7, VIP, 80, 101).fin().ack(501), b""));
    send(&mut one, 4, bytes(tcp(SERVER, 8080, CLIENT, 7, 501).fin().ack(102), b""));
    record.clear();
    one.give_flow(&mut giving, at(4), 0, &mut record);
    let (mark, again) = take(&mut two, &mut taking, &record, Some(id));
    assert_eq!((again, two.flow_mark(id.index)), (Ok(id), Some(mark)));
    assert_eq!(two.shard.table().key(id.index, Side::Client).src_port, 7);
    two.drop_flow(at(5), id);
    assert_eq!((two.counters().flows, two.find_flow(&mark.client)), (1, None));
    assert!(two.counters().add_up());
}
