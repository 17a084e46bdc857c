//! Segments of somebody who knows addresses and ports of a connection, and none of its numbers.

use super::testing::{CLIENT, VIP, bytes, first_flow, settings, tcp};
use super::*;
use crate::balance::Admin;
use crate::flow::TimeoutState;
use crate::ids::ServerId;

fn ms(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

/// An engine with two servers, and a connection of which the client has acknowledged 501 and the server 101.
struct Scene {
    engine: Engine,
    server: u8,
}

impl Scene {
    fn new() -> Scene {
        let mut scene = Scene { engine: Engine::new(&settings(2, 100)), server: 0 };
        scene.open();
        scene
    }

    fn open(&mut self) {
        self.server = self.syn(0, 100);
        self.answers(1, bytes(tcp([10, 0, 2, self.server], 8080, CLIENT, 4000, 500).syn().ack(101), b""));
        assert_eq!(self.data(2, 101, b""), self.server);
    }

    fn with_server_gone(mut self, what: &str) -> Scene {
        let server = ServerId(u32::from(self.server) - 1);
        let change = match what {
            "down" => Change::Health { server, up: Some(false) },
            _ => Change::Admin { server, admin: Admin::Disabled, deadline: None },
        };
        self.engine.apply(ms(10), change).unwrap();
        self
    }

    /// Sends a packet of the client and returns the last octet of the server that it goes to.
    fn client(&mut self, at: u64, mut packet: Vec<u8>) -> u8 {
        let verdict = self.engine.handle_packet(ms(at), &mut packet, Meta::default());
        assert!(matches!(verdict, Verdict::Forward { .. }), "{at}: {verdict:?}");
        packet[19]
    }

    fn syn(&mut self, at: u64, seq: u32) -> u8 {
        self.client(at, bytes(tcp(CLIENT, 4000, VIP, 80, seq).syn(), b""))
    }

    fn data(&mut self, at: u64, seq: u32, data: &[u8]) -> u8 {
        self.client(at, bytes(tcp(CLIENT, 4000, VIP, 80, seq).ack(501), data))
    }

    fn answers(&mut self, at: u64, mut packet: Vec<u8>) {
        let verdict = self.engine.handle_packet(ms(at), &mut packet, Meta::default());
        assert!(matches!(verdict, Verdict::Forward { .. }), "{at}: {verdict:?}");
    }

    /// The server challenges a SYN (RFC 5961, 4).
    fn challenge(&mut self, at: u64) {
        self.answers(at, bytes(tcp([10, 0, 2, self.server], 8080, CLIENT, 4000, 501).ack(101), b""));
    }

    /// Somebody refuses the SYN before this number, with the server's address.
    fn refusal(&mut self, at: u64, ack: u32) {
        self.answers(at, bytes(tcp([10, 0, 2, self.server], 8080, CLIENT, 4000, 0).rst().ack(ack), b""));
    }

    fn sent(&mut self, at: u64) -> usize {
        let mut buffer = [0; 2000];
        std::iter::from_fn(|| self.engine.poll_transmit(ms(at), &mut buffer)).count()
    }

    fn lives_on(&mut self, at: u64) {
        assert_eq!(self.data(at, 101, b"still there?"), self.server, "{at}");
        assert_eq!((first_flow(&self.engine).state, self.sent(at)), (TimeoutState::Established, 0), "{at}");
        assert_eq!(self.engine.counters().flows, 1);
    }
}

#[test]
fn a_syn_does_not_end_a_connection_to_a_server_that_is_gone_and_lives() {
    for what in ["down", "disabled"] {
        let mut scene = Scene::new().with_server_gone(what);
        let own = scene.server;
        assert_eq!(scene.syn(22, 0x1234_5678), own, "{what}: busy");
        scene.lives_on(30);
        assert_eq!(scene.syn(5000, 0x1234_5678), own, "{what}: idle");
        assert_eq!(scene.syn(5000, 0x1234_5678), own, "{what}: before the challenge is there");
        scene.challenge(5001);
        // Linux sends the next challenge 500 ms later, so this silence means nothing.
        assert_eq!(scene.syn(5400, 0x7000_0000), own, "{what}: within the limit of challenges");
        assert_eq!(scene.syn(6500, 0x7000_0000), own, "{what}: this one is answered");
        scene.challenge(6501);
        assert_eq!(scene.syn(8000, 0x7000_0000), own, "{what}: once more");
        assert_eq!(scene.data(8001, 101, b"data"), own);
        assert_eq!(scene.syn(9500, 0x7000_0000), own, "{what}: the client has sent in between");
        scene.challenge(9501);
        scene.lives_on(9600);
    }
}

#[test]
fn a_connection_to_a_server_that_is_gone_and_silent_yields_to_a_syn_that_is_repeated() {
    for what in ["down", "disabled"] {
        let mut scene = Scene::new().with_server_gone(what);
        assert_eq!(scene.syn(60_000, 0x7000_0000), scene.server, "{what}");
        assert_eq!(scene.syn(60_900, 0x7000_0000), scene.server, "{what}: too early");
        assert_eq!(scene.syn(61_000, 0x7000_0000), 3 - scene.server, "{what}");
        assert_eq!(scene.sent(61_000), 1, "a reset to the old server");
        assert_eq!(scene.syn(63_000, 0x7000_0000), 3 - scene.server, "{what}");
    }
}

#[test]
fn a_refusal_does_not_end_a_connection_that_goes_on() {
    // The live server's challenge comes after the third packet, or not at all.
    for challenged in [true, false] {
        let mut scene = Scene::new();
        let own = scene.server;
        assert_eq!(scene.syn(5000, 0x7000_0000), own);
        scene.refusal(5000, 0x7000_0001);
        assert_eq!(scene.syn(5000, 0x7000_0000), own, "{challenged}");
        if challenged {
            scene.challenge(5001);
        }
        scene.lives_on(5010);
        // After the challenge, a refusal is one of nothing.
        scene.refusal(5020, 0x7000_0001);
        assert_eq!(scene.syn(7000, 0x7000_0000), own, "{challenged}");
        scene.challenge(7001);
        scene.refusal(7002, 0x7000_0001);
        assert_eq!(first_flow(&scene.engine).state, TimeoutState::Established);
        scene.lives_on(8100);
    }
}

#[test]
fn a_server_that_refuses_and_is_silent_is_left_by_the_next_syn() {
    let mut scene = Scene::new();
    assert_eq!(scene.syn(5000, 0x7000_0000), scene.server);
    scene.refusal(5001, 0x7000_0001);
    assert_eq!(first_flow(&scene.engine).state, TimeoutState::Reset);
    assert_eq!(scene.syn(5500, 0x7100_0000), scene.server, "too early");
    scene.refusal(5501, 0x7100_0001);
    assert_eq!(scene.syn(6100, 0x7200_0000), 3 - scene.server);
}

#[test]
fn a_connection_in_place_of_another_is_reset_in_vain_by_who_knows_no_number_of_either() {
    let mut scene = Scene::new();
    let own = scene.server;
    assert_eq!(scene.syn(5000, 0x7000_0000), own);
    scene.answers(5000, bytes(tcp([10, 0, 2, own], 8080, CLIENT, 4000, 0x9000_0000).syn().ack(0x7000_0001), b""));
    assert_eq!(scene.client(5000, bytes(tcp(CLIENT, 4000, VIP, 80, 0x7000_0001).rst(), b"")), own);
    assert_eq!(first_flow(&scene.engine).state, TimeoutState::Reset);
    assert_eq!(scene.syn(5000, 0x7100_0000), own);
    scene.challenge(5001);
    assert_eq!(first_flow(&scene.engine).state, TimeoutState::Established);
    assert_eq!(scene.syn(5002, 0x7100_0000), own);
    scene.lives_on(5010);
}

#[test]
fn a_busy_connection_keeps_its_numbers_when_somebody_answers_a_syn_in_the_name_of_its_server() {
    let mut scene = Scene::new();
    let own = scene.server;
    assert_eq!(scene.syn(5000, 0x7000_0000), own);
    scene.challenge(5001);
    // Linux sends the next challenge 500 ms later, so that nothing contradicts what follows.
    assert_eq!(scene.syn(5100, 0x7100_0000), own);
    scene.answers(5100, bytes(tcp([10, 0, 2, own], 8080, CLIENT, 4000, 0x9000_0000).syn().ack(0x7100_0001), b""));
    assert_eq!(scene.client(5100, bytes(tcp(CLIENT, 4000, VIP, 80, 0x7100_0001).rst(), b"")), own);
    assert_eq!(first_flow(&scene.engine).state, TimeoutState::Established);
    assert_eq!(scene.syn(6200, 0x7200_0000), own);
    scene.challenge(6201);
    scene.lives_on(6300);
}

#[test]
fn a_connection_in_place_of_another_is_closed_in_vain_by_who_knows_no_number_of_either() {
    let mut scene = Scene::new();
    let own = scene.server;
    assert_eq!(scene.syn(5000, 0x7000_0000), own);
    scene.answers(5000, bytes(tcp([10, 0, 2, own], 8080, CLIENT, 4000, 0x9000_0000).syn().ack(0x7000_0001), b""));
    let fin = bytes(tcp(CLIENT, 4000, VIP, 80, 0x7000_0001).fin().ack(0x9000_0001), b"");
    assert_eq!(scene.client(5000, fin), own);
    scene.answers(5000, bytes(tcp([10, 0, 2, own], 8080, CLIENT, 4000, 0x9000_0001).fin().ack(0x7000_0002), b""));
    assert_eq!(first_flow(&scene.engine).state, TimeoutState::Closing);
    assert_eq!(scene.syn(5000, 0x7100_0000), own);
    scene.challenge(5001);
    scene.lives_on(5010);
}

#[test]
fn a_connection_at_once_after_one_in_place_of_another_is_established() {
    for ends_by_reset in [false, true] {
        let mut scene = Scene::new();
        let own = scene.server;
        let client = |seq| tcp(CLIENT, 4000, VIP, 80, seq);
        let server = |seq| tcp([10, 0, 2, own], 8080, CLIENT, 4000, seq);
        assert_eq!(scene.syn(5000, 0x7000_0000), own);
        scene.answers(5000, bytes(server(0x9000_0000).syn().ack(0x7000_0001), b""));
        scene.client(5000, bytes(client(0x7000_0001).ack(0x9000_0001), b"data"));
        if ends_by_reset {
            scene.client(5010, bytes(client(0x7000_0005).rst(), b""));
        } else {
            scene.client(5010, bytes(client(0x7000_0005).fin().ack(0x9000_0001), b""));
            scene.answers(5010, bytes(server(0x9000_0001).fin().ack(0x7000_0006), b""));
            scene.client(5010, bytes(client(0x7000_0006).ack(0x9000_0002), b""));
        }
        let over = if ends_by_reset { TimeoutState::Reset } else { TimeoutState::Closing };
        assert_eq!(first_flow(&scene.engine).state, over);
        // Its port is used again before anybody can tell whether the connection before the last one lives.
        assert_eq!(scene.syn(5100, 0x7000_8000), own);
        scene.answers(5100, bytes(server(0xa000_0000).syn().ack(0x7000_8001), b""));
        scene.client(5100, bytes(client(0x7000_8001).ack(0xa000_0001), b""));
        assert_eq!(first_flow(&scene.engine).state, TimeoutState::Established, "{ends_by_reset}");
        let later = 5100 + 600_000;
        while scene.engine.poll_timeout().is_some_and(|due| due <= ms(later)) {
            scene.engine.handle_timeout(ms(later));
        }
        assert_eq!(scene.client(later, bytes(client(0x7000_8001).ack(0xa000_0001), b"data")), own);
        assert_eq!(scene.sent(later), 0, "no reset");
    }
}

#[test]
fn a_connection_in_place_of_another_that_was_closed_is_not_lost_to_who_knows_no_number_of_either() {
    let mut scene = Scene::new();
    let own = scene.server;
    let forged = |seq| tcp([10, 0, 2, own], 8080, CLIENT, 4000, seq);
    assert_eq!(scene.syn(5000, 0x7000_0000), own);
    scene.answers(5000, bytes(forged(0x9000_0000).syn().ack(0x7000_0001), b""));
    scene.client(5000, bytes(tcp(CLIENT, 4000, VIP, 80, 0x7000_0001).fin().ack(0x9000_0001), b""));
    scene.answers(5000, bytes(forged(0x9000_0001).fin().ack(0x7000_0002), b""));
    // He opens another one on top of that.
    assert_eq!(scene.syn(5000, 0x7100_0000), own);
    scene.answers(5000, bytes(forged(0xa000_0000).syn().ack(0x7100_0001), b""));
    scene.client(5000, bytes(tcp(CLIENT, 4000, VIP, 80, 0x7100_0001).ack(0xa000_0001), b""));
    scene.lives_on(5010);
}

#[test]
fn a_refusal_does_not_hand_the_return_key_of_a_connection_to_another_service_address() {
    let mut settings = settings(1, 100);
    let mut listen = settings.services[0].listen[0];
    listen.address = [192, 0, 2, 81].into();
    settings.services[0].listen.push(listen);
    let mut scene = Scene { engine: Engine::new(&settings), server: 1 };
    scene.open();
    assert_eq!(scene.syn(5000, 0x7000_0000), 1);
    scene.refusal(5000, 0x7000_0001);
    let mut other = bytes(tcp(CLIENT, 4000, [192, 0, 2, 81], 80, 1).syn(), b"");
    let mut ask = |scene: &mut Scene, at| scene.engine.handle_packet(ms(at), &mut other, Meta::default());
    assert_eq!(ask(&mut scene, 5000), Verdict::Drop(Reason::ReturnKeyTaken));
    assert_eq!(scene.sent(5000), 1, "an ICMP error");
    scene.challenge(5001);
    scene.lives_on(5010);
}
