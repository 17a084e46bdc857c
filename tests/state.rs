//! Golden states: files that earlier versions have saved are read by this one, with the same flows as then.
//!
//! `BLESS=1` makes the file of the present version of the format if it is missing, and the expected rows; a file that is
//! there is never written again. Without ages: the states are read as of the moment when they were saved.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

use equipoise::balance::Admin;
use equipoise::config::{self, Settings};
use equipoise::engine::{Change, Cursor, Engine, FlowQuery, Loaded, STATE_VERSION, StateLoad, StateWalk, Verdict};
use equipoise::gateway::state::file::{Clocks, Draft, Header, State};
use equipoise::ids::{FlowId, ServerId};
use equipoise::packet::{Meta, Transport, parse};
use equipoise::time::{Duration, Instant};
use etherparse::PacketBuilder;
use serde_json::{Value, json};
use std::fs::Permissions;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const NOW: Instant = Instant::from_nanos(1 << 58);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/state")
}

fn settings() -> Settings {
    let text = std::fs::read_to_string(folder().join("v1.toml")).unwrap();
    config::parse(&text, "v1.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// The same with the servers in another order and one more rule.
fn settings_of_then() -> Settings {
    let text = std::fs::read_to_string(folder().join("v1.toml")).unwrap();
    let text = text.replace("    { name = \"new\", address = \"10.0.0.9\", port = 8080 },\n", "");
    let lines = |name: &str| {
        text.lines().find(|line| line.contains(&format!("{{ name = \"{name}\", address = [\"10.0.0"))).unwrap()
    };
    let (a, c) = (lines("a").to_owned(), lines("c").to_owned());
    let text = text.replace(&a, "@").replace(&c, &a).replace('@', &c);
    let rule = "[[rule]]\nname = \"gone\"\nfrom = \"198.51.100.1\"\naction = \"balance\"\n\n[[rule]]\nname = \"all\"";
    config::parse(&text.replace("[[rule]]\nname = \"all\"", rule), "then.toml")
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Hands in a packet; returns the ends of what leaves: from, to.
fn pass(engine: &mut Engine, now: Instant, kind: &str, from: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => PacketBuilder::ipv4(src.octets(), dst.octets(), 60),
        (IpAddr::V6(src), IpAddr::V6(dst)) => PacketBuilder::ipv6(src.octets(), dst.octets(), 60),
        other => panic!("{other:?}"),
    };
    let mut packet = Vec::new();
    let tcp = |seq, ack| (from.port(), to.port(), seq, ack);
    match kind {
        "udp" => ip.udp(from.port(), to.port()).write(&mut packet, b"text").unwrap(),
        "ping" => ip.icmpv4_echo_request(from.port(), 1).write(&mut packet, b"").unwrap(),
        "S" => ip.tcp(tcp(100, 0).0, to.port(), 100, 1000).syn().write(&mut packet, b"").unwrap(),
        "SA" => ip.tcp(from.port(), to.port(), 500, 1000).syn().ack(101).write(&mut packet, b"").unwrap(),
        "A" => ip.tcp(from.port(), to.port(), 101, 1000).ack(501).write(&mut packet, b"").unwrap(),
        "F" => ip.tcp(from.port(), to.port(), 101, 1000).fin().ack(501).write(&mut packet, b"").unwrap(),
        "FA" => ip.tcp(from.port(), to.port(), 501, 1000).fin().ack(102).write(&mut packet, b"").unwrap(),
        other => panic!("{other}"),
    }
    let mut buffer = vec![0; 65_535];
    let left = match engine.handle_packet(now, &mut packet, Meta::default()) {
        Verdict::Forward { len, .. } => packet[..len].to_vec(),
        Verdict::Emit { .. } => {
            let (len, _) = engine.poll_transmit(now, &mut buffer).unwrap();
            buffer[..len].to_vec()
        }
        other => panic!("{kind} {from} {to}: {other:?}"),
    };
    let parsed = parse(&left).unwrap();
    let (src, dst) = match parsed.transport {
        Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst } => (src, dst),
        Transport::Echo { id, .. } => (id, id),
        other => panic!("{other:?}"),
    };
    (SocketAddr::new(parsed.addresses.src(), src), SocketAddr::new(parsed.addresses.dst(), dst))
}

/// An engine with flows of every kind.
fn past() -> Engine {
    let mut engine = Engine::new(&settings_of_then());
    let then = |seconds| Instant::from_nanos(NOW.as_nanos() - seconds * 1_000_000_000);
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let services = ["192.0.2.80:80", "192.0.2.81:80", "[2001:db8::80]:80", "[2001:db8::81]:80"];
    for (n, (service, kinds)) in services.iter().flat_map(|s| [(s, "open"), (s, "closing")]).enumerate() {
        let client = if service.starts_with('[') { "[2001:db8:c::1]" } else { "198.51.100.1" };
        let (client, service) = (at(&format!("{client}:{}", 5000 + n)), at(service));
        let now = then(100 - n as u64);
        let (src, dst) = pass(&mut engine, now, "S", client, service);
        pass(&mut engine, now, "SA", dst, src);
        pass(&mut engine, now, "A", client, service);
        if kinds == "closing" {
            pass(&mut engine, now, "F", client, service);
            pass(&mut engine, now, "FA", dst, src);
        }
    }
    for (n, service) in ["192.0.2.80:54", "192.0.2.81:54"].iter().enumerate() {
        for packets in 1..=3 {
            let client = at(&format!("198.51.100.{}:{}", 2 + n, 6000 + packets));
            let (src, dst) = pass(&mut engine, then(20), "udp", client, at(service));
            if packets > 1 {
                pass(&mut engine, then(19), "udp", dst, src);
            }
            if packets > 2 {
                pass(&mut engine, then(18), "udp", client, at(service));
            }
        }
    }
    pass(&mut engine, then(5), "ping", at("198.51.100.4:77"), at("192.0.2.80:77"));
    // A port rests after it.
    let mut rows = Vec::new();
    engine.flows(
        then(4),
        &FlowQuery { service: Some("far".into()), ..FlowQuery::default() },
        Cursor::default(),
        100,
        &mut rows,
    );
    engine.apply(then(4), Change::Kill { flow: rows[0].id }).unwrap();
    let named = |engine: &Engine, name: &str| {
        let place = engine.servers(NOW).iter().position(|row| (&*row.pool, &*row.server) == ("web", name)).unwrap();
        ServerId(place as u32)
    };
    let (b, c) = (named(&engine, "b"), named(&engine, "c"));
    let drain = Change::Admin { server: b, admin: Admin::Draining, deadline: Some(Duration::from_secs(600)) };
    engine.apply(then(3), drain).unwrap();
    engine.apply(then(3), Change::Weight { server: c, weight: 9 }).unwrap();
    engine
}

fn load(records: &[u8]) -> (Engine, Loaded) {
    let mut engine = Engine::new(&settings());
    let mut load = StateLoad::new(NOW);
    assert_eq!(engine.load_state(&mut load, NOW, records), Ok(records.len()));
    let loaded = engine.end_load(&load, NOW).unwrap();
    (engine, loaded)
}

/// What became of a state, as JSON.
fn rows(engine: &Engine, loaded: &Loaded) -> Value {
    let mut flows = Vec::new();
    engine.flows(NOW, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut flows);
    flows.sort_by_key(|row| (row.client, row.listen));
    flows.iter_mut().for_each(|row| row.id = FlowId { index: 0, generation: 0 });
    let servers: Vec<Value> = engine
        .servers(NOW)
        .into_iter()
        .map(|row| json!([row.pool, row.server, row.admin, row.weight, row.flows, row.proven]))
        .collect();
    let rules: Vec<Value> =
        engine.rules().into_iter().map(|row| json!([row.rule, row.enabled, row.flows, row.proven])).collect();
    json!({
        "loaded": loaded.to_string(), "flows": flows, "servers": servers, "rules": rules, "nat": engine.nat_pools(),
        "services": engine.services().into_iter().map(|row| json!([row.service, row.flows])).collect::<Vec<_>>(),
    })
}

fn is_blessed() -> bool {
    std::env::var_os("BLESS").is_some_and(|value| value == "1")
}

#[test]
fn states_of_every_version_are_read() {
    let own = folder().join(format!("v{STATE_VERSION}.state"));
    if is_blessed() && !own.exists() {
        let mut engine = past();
        let (mut walk, mut records) = (StateWalk::new(NOW, true), Vec::new());
        while !engine.write_state(&mut walk, NOW, 10, &mut records) {}
        let clocks = Clocks { boot: "00000000-0000-0000-0000-000000000000".into(), since_boot_ns: 1, wall_ns: 1 };
        let mut draft = Draft::create(&own, &Header { clocks }).unwrap();
        draft.write(&records).unwrap();
        draft.finish().unwrap();
    }
    let mut seen = 0;
    for version in 1..=STATE_VERSION {
        let path = folder().join(format!("v{version}.state"));
        let bytes = std::fs::read(&path);
        let bytes = bytes.unwrap_or_else(|_| panic!("no {}: BLESS=1 makes that of this version", path.display()));
        // Of a checkout, others may write the files.
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("state");
        std::fs::write(&own, bytes).unwrap();
        std::fs::set_permissions(&own, Permissions::from_mode(0o600)).unwrap();
        let mut state = State::open(&own).unwrap().unwrap();
        let (engine, loaded) = load(&state.records().unwrap());
        let got = serde_json::to_string_pretty(&rows(&engine, &loaded)).unwrap() + "\n";
        let expected = path.with_extension("json");
        if is_blessed() {
            std::fs::write(&expected, &got).unwrap();
        }
        let want = std::fs::read_to_string(&expected).unwrap_or_default();
        assert!(got == want, "{} gives:\n{got}\nBLESS=1 rewrites {}", path.display(), expected.display());
        assert!(loaded.flows >= 13 && loaded.lost() == 0 && loaded.slots[0] > 0 && loaded.resting[0] > 0, "{loaded}");
        seen += 1;
    }
    assert!(seen > 0);
}
