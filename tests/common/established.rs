//! A state file with many established flows, for benchmarks, laboratories and tests of devices.

use super::setup::tcp;
use equipoise::config::Settings;
use equipoise::engine::{Engine, StateWalk, Verdict};
use equipoise::gateway::state::file::{Clocks, Draft, Header};
use equipoise::packet::{Meta, Transport, parse};
use equipoise::time::Instant;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

/// Writes a state whose flows have had their handshakes with an IPv4 service of TCP: 256 of each client from 100.64.0.0 on.
pub fn write_state(path: &Path, settings: &Settings, service: SocketAddr, flows: u32) {
    let mut engine = Engine::new(settings);
    let now = Instant::from_nanos(1 << 58);
    for n in 0..flows {
        let client = SocketAddr::new(Ipv4Addr::from(0x6440_0000 + (n >> 8)).into(), 1024 + (n & 0xff) as u16);
        let mut syn = tcp(client, service, "S", 100, 0, b"");
        assert!(matches!(engine.handle_packet(now, &mut syn, Meta::default()), Verdict::Forward { .. }));
        let sent = parse(&syn).expect("what was forwarded");
        let Transport::Tcp { dst: port, .. } = sent.transport else { panic!("{sent:?} is no TCP") };
        let mut answer = tcp(SocketAddr::new(sent.addresses.dst(), port), client, "SA", 500, 101, b"");
        engine.handle_packet(now, &mut answer, Meta::default());
        engine.handle_packet(now, &mut tcp(client, service, "A", 101, 501, b""), Meta::default());
    }
    let mut draft = Draft::create(path, &Header { clocks: Clocks::read() }).expect("a new state file");
    let (mut walk, mut bytes) = (StateWalk::new(now, true), Vec::new());
    while !engine.write_state(&mut walk, now, 1 << 16, &mut bytes) {
        draft.write(&bytes).expect("room for the state");
        bytes.clear();
    }
    draft.write(&bytes).expect("room for the state");
    draft.finish().expect("a state file");
}
