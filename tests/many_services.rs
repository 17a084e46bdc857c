//! 1,000 services that share a pool of 10,000 servers: memory and work by the sum of both, not by the product.
//!
//! An allocator counts bytes; nothing is timed. The tests run in turns, so that each counts only its own.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]
#![allow(unsafe_code)] // `GlobalAlloc` is an unsafe trait; every call is passed to the system's allocator unchanged.

#[path = "common/bytes.rs"]
mod bytes;
#[path = "common/many.rs"]
mod many;
#[path = "common/setup.rs"]
mod setup;

use equipoise::config;
use equipoise::engine::{Change, Engine, Verdict};
use equipoise::ids::ServerId;
use equipoise::packet::Meta;
use many::{FIRST_SERVER, FIRST_SERVICE, Many};
use setup::{at_ms, tcp};
use std::net::{Ipv4Addr, SocketAddr};

#[global_allocator]
static ALLOCATOR: bytes::Counting = bytes::Counting;

/// Held by the test that runs.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn engine(many: &Many) -> (Engine, u64) {
    let before = bytes::live();
    let settings = config::parse(&many.text(), "many").unwrap();
    let mut engine = Engine::new(&settings);
    drop(settings);
    // Each service gets flows, so that whatever it has for itself exists.
    for client in 0..4 * many.services {
        open(&mut engine, many, client);
    }
    (engine, bytes::live() - before)
}

/// Opens a flow of one service after another, and returns the number of its server.
fn open(engine: &mut Engine, many: &Many, client: u32) -> u32 {
    let from = SocketAddr::new(Ipv4Addr::from(0x6440_0000 + client).into(), 40_000);
    let to = SocketAddr::new(Ipv4Addr::from(FIRST_SERVICE + client % many.services).into(), 80);
    let mut packet = tcp(from, to, "S", 1, 0, b"");
    let verdict = engine.handle_packet(at_ms(1), &mut packet, Meta::default());
    assert!(matches!(verdict, Verdict::Forward { .. }), "client {client}: {verdict:?}");
    u32::from_be_bytes(packet[16..20].try_into().unwrap()) - FIRST_SERVER
}

#[test]
fn a_thousand_services_share_ten_thousand_servers_at_the_cost_of_the_sum() {
    let _turn = TURN.lock();
    for algorithm in ["round-robin", "least-connections", "connection-rate", "source-hash"] {
        let many = |services, servers| Many { services, servers, algorithm, ..Many::default() };
        let (_, services) = engine(&many(1000, 10));
        let (_, servers) = engine(&many(1, 10_000));
        let both = many(1000, 10_000);
        let (mut engine, bytes) = engine(&both);
        // The sum holds the flow table twice.
        assert!(bytes <= services + servers, "{algorithm}: {bytes} > {services} + {servers}");
        // A server that goes down is down for every service, and comes back for every service.
        let lost = open(&mut engine, &both, 500_000);
        let before = bytes::live();
        engine.apply(at_ms(1), Change::Health { server: ServerId(lost), up: Some(false) }).unwrap();
        for client in 100_000..102_000 {
            assert_ne!(open(&mut engine, &both, client), lost, "{algorithm}");
        }
        engine.apply(at_ms(1), Change::Health { server: ServerId(lost), up: Some(true) }).unwrap();
        for client in 102_000..104_000 {
            open(&mut engine, &both, client);
        }
        let grown = bytes::live().saturating_sub(before);
        assert!(grown < 4 << 20, "{algorithm}: one health change has cost {grown} bytes");
    }
}

#[test]
fn each_service_takes_turns_of_its_own() {
    let _turn = TURN.lock();
    let many = Many { services: 3, servers: 5, ..Many::default() };
    // Weights 1 to 5: of 15 flows of a service, each server gets its weight.
    let (mut engine, _) = engine(&many);
    let mut got = [[0; 5]; 3];
    for client in 1000..1000 + 3 * 15 {
        let server = open(&mut engine, &many, client);
        got[(client % 3) as usize][server as usize] += 1;
    }
    assert_eq!(got, [[1, 2, 3, 4, 5]; 3]);
}
