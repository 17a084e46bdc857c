//! Flows that a server refuses or leaves unanswered, and what counts against it.

use super::*;

#[test]
fn refused_and_unanswered_syns_put_a_server_on_a_passive_hold() {
    let mut settings = settings(2, 100);
    settings.pools[0].passive = Some(Passive { failures: 2, ..Passive::default() });
    let mut engine = Engine::new(&settings);
    // s1 refuses one connection and never replies to another, whose client tries again.
    assert_eq!(syn(&mut engine, at(0), CLIENT, 1), Ok(1));
    let mut refusal = bytes(tcp([10, 0, 2, 1], 8080, CLIENT, 1, 0).rst().ack(101), b"");
    assert!(matches!(send(&mut engine, at(0), &mut refusal), Verdict::Forward { .. }));
    assert_eq!([2, 3].map(|port| syn(&mut engine, at(1), CLIENT, port)), [Ok(2), Ok(1)]);
    assert_eq!(syn(&mut engine, at(2), CLIENT, 3), Ok(1), "a repeated SYN stays on its server");
    assert_eq!(
        events(&mut engine),
        ["server pool/s1 gets no new flows for 10.0 s (passive hold): client connections to it fail"]
    );
    assert_eq!([4, 5, 6].map(|port| syn(&mut engine, at(3), CLIENT, port)), [Ok(2), Ok(2), Ok(2)]);
    assert_eq!(engine.servers(at(3))[0].passive_hold_ms, Some(9_000));
    engine.handle_timeout(at(12));
    assert!([7, 8].map(|port| syn(&mut engine, at(12), CLIENT, port)).contains(&Ok(1)));
}

#[test]
fn a_duplicated_or_damaged_syn_does_not_count_against_its_server() {
    let mut settings = settings(2, 100);
    settings.pools[0].passive = Some(Passive { failures: 1, ..Passive::default() });
    let mut engine = Engine::new(&settings);
    let ms = |ms: u64| Instant::from_nanos(ms * 1_000_000);
    assert_eq!(syn(&mut engine, at(0), CLIENT, 1), Ok(1));
    assert_eq!(syn(&mut engine, ms(499), CLIENT, 1), Ok(1), "too soon for a retry");
    let mut damaged = bytes(tcp(CLIENT, 1, VIP, 80, 100).syn(), b"");
    damaged[36] ^= 1;
    send(&mut engine, at(1), &mut damaged);
    assert_eq!(events(&mut engine), [] as [String; 0]);
    assert_eq!(syn(&mut engine, at(1), CLIENT, 1), Ok(1));
    assert_eq!(events(&mut engine).len(), 1);
}

#[test]
fn an_unanswered_syn_moves_to_another_server_when_its_own_is_down() {
    for (on_down, want) in [(None, Ok(2)), (Some(OnDown::Keep), Ok(1))] {
        let mut settings = settings(2, 100);
        settings.services[0].on_down = on_down;
        let mut engine = Engine::new(&settings);
        assert_eq!((syn(&mut engine, at(0), CLIENT, 1), syn(&mut engine, at(0), CLIENT, 2)), (Ok(1), Ok(2)));
        down(&mut engine, at(1), 0);
        assert_eq!(syn(&mut engine, at(1), CLIENT, 1), want);
        assert_eq!((syn(&mut engine, at(2), CLIENT, 1), engine.counters().flows), (want, 2), "it stays there");
    }
    // A client that has had a reply has a connection to that server.
    let mut engine = Engine::new(&settings(2, 100));
    assert_eq!(syn(&mut engine, at(0), CLIENT, 1), Ok(1));
    send(&mut engine, at(0), &mut bytes(tcp([10, 0, 2, 1], 8080, CLIENT, 1, 500).syn().ack(101), b""));
    down(&mut engine, at(1), 0);
    assert_eq!(syn(&mut engine, at(1), CLIENT, 1), Ok(1));
}

#[test]
fn only_a_refusal_of_the_syn_counts_against_its_server() {
    let mut settings = settings(2, 100);
    settings.pools[0].passive = Some(Passive { failures: 1, ..Passive::default() });
    let server = || tcp([10, 0, 2, 1], 8080, CLIENT, 1, 7).rst();
    // A server that has lost the SYN replies to a forged segment after it, with the forged number.
    for (reset, signs) in [(server(), 0), (server().ack(77), 0), (server().ack(101), 1)] {
        let mut engine = Engine::new(&settings);
        assert_eq!(syn(&mut engine, at(0), CLIENT, 1), Ok(1));
        send(&mut engine, at(0), &mut bytes(tcp(CLIENT, 1, VIP, 80, 101).ack(7), b""));
        send(&mut engine, at(0), &mut bytes(reset, b""));
        assert_eq!(events(&mut engine).len(), signs);
    }
}

#[test]
fn an_icmp_error_about_an_unanswered_flow_counts_against_its_server() {
    use etherparse::{Icmpv4Type, icmpv4::DestUnreachableHeader};
    let mut settings = settings(2, 100);
    settings.pools[0].passive = Some(Passive { failures: 1, ..Passive::default() });
    let mut engine = Engine::new(&settings);
    assert_eq!(udp(&mut engine, at(0), 5000), Ok(1));
    let mut inner = Vec::new();
    PacketBuilder::ipv4(CLIENT, [10, 0, 2, 1], 63).udp(5000, 8080).write(&mut inner, b"hello").unwrap();
    let mut error = Vec::new();
    let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
    PacketBuilder::ipv4([10, 0, 2, 1], CLIENT, 64).icmpv4(kind).write(&mut error, &inner).unwrap();
    let mut damaged = error.clone();
    *damaged.last_mut().unwrap() ^= 1;
    send(&mut engine, at(1), &mut damaged);
    assert_eq!(events(&mut engine), [] as [String; 0], "its checksum is bad");
    send(&mut engine, at(1), &mut error);
    assert_eq!(events(&mut engine).len(), 1);
    assert_eq!([1, 2].map(|port| udp(&mut engine, at(1), port)), [Ok(2), Ok(2)]);
}
