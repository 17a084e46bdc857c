//! Full NAT under a flood from forged addresses: who completes the handshake, or sends again after an answer, gets and
//! keeps a source port.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "common/setup.rs"]
mod setup;

use equipoise::balance::Nat;
use equipoise::engine::{Engine, Verdict};
use equipoise::flow::NatPoolSettings;
use equipoise::ids::NatPoolId;
use equipoise::packet::{Meta, Transport, parse};
use equipoise::time::Instant;
use setup::{SERVER_PORT, VIP4, server, settings, tcp, udp};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 1);
/// Half of the ports 1024 to 65535.
const HALF: u32 = 32_256;

/// An engine with one server, behind one NAT address.
struct Gateway {
    engine: Engine,
    now: Instant,
    strangers: u32,
}

impl Gateway {
    fn new() -> Self {
        let mut settings = settings(&[1], 200_000);
        settings.nat_pools = vec![NatPoolSettings { v4: vec![SOURCE], ..NatPoolSettings::new("out") }];
        for service in &mut settings.services {
            service.nat = Nat::Full { pool: NatPoolId(0), only_for: vec![], families: [true, false] };
        }
        Gateway { engine: Engine::new(&settings), now: setup::at_ms(1), strangers: 0 }
    }

    /// Passes a packet in; returns its source port after the translation, if it is forwarded.
    fn pass(&mut self, mut packet: Vec<u8>) -> Option<u16> {
        let verdict = self.engine.handle_packet(self.now, &mut packet, Meta::default());
        let Verdict::Forward { len, .. } = verdict else { return None };
        match parse(&packet[..len]).unwrap().transport {
            Transport::Tcp { src, .. } | Transport::Udp { src, .. } => Some(src),
            other => panic!("{other:?}"),
        }
    }

    /// Sends SYNs, each from another forged address.
    fn flood(&mut self, count: u32) {
        for _ in 0..count {
            self.strangers += 1;
            let from = SocketAddr::new(Ipv4Addr::from(0x6400_0000 + self.strangers).into(), 4000);
            assert!(self.pass(tcp(from, vip(), "S", 7, 0, b"")).is_some(), "stranger {}", self.strangers);
        }
    }

    /// Has a client open a connection, with as many spoofed SYNs before its acknowledgement arrives; returns its port.
    fn connect(&mut self, client: SocketAddr, meanwhile: u32) -> Option<u16> {
        let port = self.pass(tcp(client, vip(), "S", 100, 0, b""))?;
        self.flood(meanwhile);
        let answer = tcp(web(), SocketAddr::new(SOURCE.into(), port), "SA", 500, 101, b"");
        self.pass(answer)?;
        self.pass(tcp(client, vip(), "A", 101, 501, b""))
    }
}

fn vip() -> SocketAddr {
    SocketAddr::new(VIP4.into(), 80)
}

fn web() -> SocketAddr {
    SocketAddr::new(server(0, VIP4.into()), SERVER_PORT)
}

fn client(n: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([198, 51, 100, 7]), 10_000 + n)
}

#[test]
fn a_hundred_thousand_spoofed_syns_stop_no_connection_old_or_new() {
    let mut gateway = Gateway::new();
    let mut ports = vec![gateway.connect(client(0), 0).unwrap()];
    // 200 SYNs per handshake: at 20 ms from SYN to ACK, 10,000 per second.
    for n in 1..=500 {
        ports.push(gateway.connect(client(n), 200).unwrap());
        let row = &gateway.engine.nat_pools()[0];
        assert!(row.half_open <= HALF && row.exhausted == 0, "{row:?}");
    }
    assert_eq!(gateway.strangers, 100_000);
    for (n, port) in ports.iter().enumerate() {
        let data = tcp(client(n as u16), vip(), "PA", 101, 501, b"data");
        assert_eq!(gateway.pass(data), Some(*port), "each still has its own port");
    }
    // The last handshake has just left the half of the half-open flows.
    let row = &gateway.engine.nat_pools()[0];
    assert_eq!((row.used, row.half_open, row.free), (HALF - 1 + 501, HALF - 1, HALF + 1 - 501));
}

#[test]
fn a_handshake_may_take_as_long_as_half_of_the_ports_last() {
    let mut gateway = Gateway::new();
    gateway.flood(HALF);
    assert!(gateway.connect(client(0), HALF - 1).is_some());
    // With one more, its port is a stranger's when the server answers.
    assert!(gateway.connect(client(1), HALF).is_none());
    assert!(gateway.connect(client(2), 10).is_some());
}

fn dns() -> SocketAddr {
    SocketAddr::new(VIP4.into(), 53)
}

#[test]
fn a_hundred_thousand_spoofed_datagrams_leave_each_client_its_answer_and_each_conversation_its_port() {
    let mut gateway = Gateway::new();
    let name_server = SocketAddr::new(server(0, VIP4.into()), 53);
    let mut ports = Vec::new();
    for n in 0..100 {
        let port = gateway.pass(udp(client(n), dns(), b"question")).unwrap();
        // A thousand per question: at 50 ms from question to answer, 20,000 per second.
        for _ in 0..1000 {
            gateway.strangers += 1;
            let from = SocketAddr::new(Ipv4Addr::from(0x6400_0000 + gateway.strangers).into(), 4000);
            assert!(gateway.pass(udp(from, dns(), b"spoofed")).is_some(), "stranger {}", gateway.strangers);
        }
        assert!(gateway.pass(udp(name_server, SocketAddr::new(SOURCE.into(), port), b"answer")).is_some());
        assert_eq!(gateway.pass(udp(client(n), dns(), b"next question")), Some(port));
        ports.push(port);
    }
    for (n, port) in ports.iter().enumerate() {
        assert_eq!(gateway.pass(udp(client(n as u16), dns(), b"goes on")), Some(*port));
    }
    let rows = gateway.engine.nat_pools();
    let row = rows.iter().find(|row| row.fullest_server == Some(name_server)).unwrap();
    assert_eq!((row.used, row.half_open, row.resting, row.exhausted), (HALF - 1 + 100, HALF - 1, 0, 0), "{row:?}");
}
