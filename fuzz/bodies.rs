//! What each fuzz target does with its input; shared by the fuzzer and `tests/fuzz_seeds.rs`.
//!
//! It may use only the library's public types. A body panics if a guarantee is broken.

#[path = "bodies/drive.rs"]
mod drive;
#[path = "bodies/sync.rs"]
mod sync;

pub use sync::{sync_after, sync_target};

use drive::{Drive, Input};
use equipoise::capture::{Frame, Reader, describe};
use equipoise::config::{ConfigError, Problem, Settings};
use equipoise::control::Token;
use equipoise::engine::{Cursor, Engine, FlowQuery, FlowRow, Lost, StateLoad, StateWalk};
use equipoise::packet::family::{self, Across, MtuRule};
use equipoise::packet::{Addresses, Meta, Parsed, Transport, checksum, parse, parse_first, quote};
use equipoise::sources::{DnsSettings, From, MOST_SERVERS, Request, SourceSettings, Sources, read_list};
use equipoise::time::Instant;
use equipoise::web::request::Method;
use equipoise::web::tables::Answered;
use equipoise::web::{Guard, Read, Route, request, tables};

/// What a target does with its input.
type Body = fn(&[u8]);

/// Returns the body of a target by name.
pub const BODIES: [(&str, Body); 8] = [
    ("parse", parse_target),
    ("engine", engine_target),
    ("config", config_target),
    ("capture", capture_target),
    ("sources", sources_target),
    ("state", state_target),
    ("sync", sync_target),
    ("web", web_target),
];

/// Any bytes as what a client of the web server sends, then as what the event loop answers. Whatever comes, a request takes
/// bytes that were there, what it keeps is bounded, and nothing changes without a POST and the token.
pub fn web_target(bytes: &[u8]) {
    let guard = Guard::new(vec!["lb.example".into()], Token::new([7; 16]));
    let mut rest = bytes;
    while let Read::Whole(request, len) = request::read(rest) {
        assert!(len > 0 && len <= rest.len() && request.body.len() <= request::MOST_BODY);
        rest = &rest[len..];
        let admitted = guard.admit(&request).is_ok();
        let host = request.host.as_deref().unwrap_or_default();
        assert!(!admitted || !host.ends_with("evil.example"));
        let Ok(Route::Ask { is_change, .. }) = Route::of(&request) else { continue };
        assert!(!is_change || request.method == Method::Post && !request.body.is_empty());
        // No input has the token.
        assert!(request.bearer.as_deref() == Some(guard.token().text()) || guard.admit_change(&request).is_err());
    }
    if let Answered::Rows(rows, _) = tables::answered(bytes) {
        assert!(rows.is_empty() || rows.ends_with(b"\n"));
    }
}

/// Any bytes as a list of servers, then as the answers of resolvers: header without its ID, and what follows the question,
/// each with its length before it. What is found is bounded, and every question ends.
pub fn sources_target(bytes: &[u8]) {
    if let Ok(servers) = read_list(bytes) {
        assert!(servers.len() <= MOST_SERVERS);
    }
    let source = |from| SourceSettings { pool: "p".into(), from, least: 1, families: [true, true] };
    let minute = std::time::Duration::from_secs(60);
    let dns = DnsSettings {
        servers: vec!["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()],
        min_ttl: minute,
        max_ttl: minute,
    };
    let names = [From::Services("_a._tcp.b".into()), From::Addresses { name: "a.b".into(), port: None }];
    for from in names {
        let mut sources = Sources::new(&[source(from)], &dns, [1, 2], Instant::ZERO);
        let mut now = Instant::ZERO;
        let mut rest = bytes;
        for _ in 0..64 {
            now = now.max(sources.poll_timeout().unwrap_or(now));
            sources.handle_timeout(now);
            while let Some(request) = sources.poll_request() {
                let Request::Ask { attempt, message, .. } = request else { continue };
                let Some((length, more)) = rest.split_first() else { continue };
                let (answer, more) = more.split_at(more.len().min(usize::from(*length)));
                rest = more;
                let question = &message[12..message.len() - if message[11] > 0 { 11 } else { 0 }];
                let (header, records) = answer.split_at(answer.len().min(10));
                sources.answer(now, attempt, &[&message[..2], header, question, records].concat());
            }
            while sources.poll_event().is_some() {}
        }
        let found = sources.found();
        assert!(found.values().all(|servers| (1..=MOST_SERVERS).contains(&servers.len())));
        assert!(
            found.values().flat_map(|servers| servers.iter()).all(|server| !server.name.contains(char::is_control))
        );
        assert_eq!(sources.states().len(), 1);
    }
}

/// Any bytes as one packet: what parses stays in bounds, and describing it never panics.
pub fn parse_target(bytes: &[u8]) {
    if let Ok(parsed) = parse(bytes) {
        assert!(parsed.offset <= parsed.len && parsed.len <= bytes.len(), "{parsed:?} of {} bytes", bytes.len());
        assert!(parsed.payload_len() <= parsed.len);
        assert_eq!(parse(&bytes[..parsed.len]).ok(), Some(parsed), "padding changes how a packet parses");
        across(bytes, &parsed);
    }
    describe(bytes);
    checksum::is_partial(bytes);
}

/// What can be derived from a packet that parses: its quote, its first fragment, its translation into the other
/// family.
fn across(bytes: &[u8], parsed: &Parsed) {
    let _ = quote(bytes, parsed);
    if let Transport::Fragment { offset: 0, .. } = parsed.transport {
        let _ = parse_first(bytes, parsed);
    }
    let addresses = match parsed.addresses {
        Addresses::V4 { .. } => Addresses::V6 { src: 1 << 96, dst: 7 },
        Addresses::V6 { .. } => Addresses::V4 { src: 0x0a00_0901, dst: 0x0a00_0201 },
    };
    let to = Across { addresses, src_port: 5000, dst_port: 80 };
    let mut out = Vec::new();
    if family::translate(&mut out, bytes, parsed, &to, 7, Meta::default()).is_ok() {
        let made = parse(&out).unwrap_or_else(|error| panic!("{error:?}: {out:02x?}"));
        assert_eq!((made.addresses, made.len), (addresses, out.len()));
    }
    out.clear();
    if family::translate_fragment(&mut out, bytes, parsed, &to).is_ok() {
        assert!(parse(&out).is_ok(), "{out:02x?}");
    }
    out.clear();
    if family::translate_error(&mut out, bytes, parsed, &addresses, &to, &MtuRule::default(), 7).is_ok() {
        assert!(parse(&out).is_ok() && out.len() <= 1280, "{out:02x?}");
    }
}

/// Any bytes as a configuration: an error points inside the text.
pub fn config_target(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').count().max(1);
    let inside = |problem: &Problem| {
        assert!((1..=lines).contains(&problem.line), "{problem:?} is not among {lines} lines");
        assert!(problem.column >= 1 && problem.column <= bytes.len() + 1, "{problem:?}");
        assert!(problem.related.iter().all(|place| (1..=lines).contains(&place.line)), "{problem:?}");
    };
    match equipoise::config::parse_bytes(bytes, "fuzz.toml") {
        Ok(parsed) => {
            parsed.warnings.iter().for_each(inside);
            parsed.render_warnings(true);
        }
        Err(error) => {
            let error: ConfigError = error;
            assert!(!error.problems().is_empty(), "an error without a problem");
            error.problems().iter().for_each(inside);
            let _ = error.to_string();
        }
    }
}

/// Any bytes as a capture: the reader terminates, and holds no more than the capture justifies.
pub fn capture_target(bytes: &[u8]) {
    // A compressed capture may hold a thousand times its size.
    const MOST_FRAMES: usize = 10_000;
    let Ok(mut reader) = Reader::new(bytes) else { return };
    for _ in 0..MOST_FRAMES {
        let Ok(Some(frame)) = reader.next_frame() else { break };
        assert!(frame.data.len() <= 1 << 28, "a frame of {} bytes", frame.data.len());
        if let Ok(offset) = frame.link.ip_offset(&frame.data)
            && let Some(packet) = frame.data.get(offset..)
        {
            describe(packet);
            header_leads_to_its_packet(&frame, offset);
        }
    }
}

/// The header written for a packet of either family leads the reader to that packet.
fn header_leads_to_its_packet(frame: &Frame, offset: usize) {
    let mut before = frame.data.clone();
    frame.link.ends_with_packet(&mut before);
    for packet in [&[0x45; 20][..], &[0x60; 40]] {
        let written = [&frame.link.header_of(&before, offset, packet, true)[..], packet].concat();
        assert_eq!(frame.link.ip_offset(&written), Ok(offset), "{:?}", frame.link);
    }
}

/// The target's configuration: networks, rules, limits, every last resort, a small table.
const SETTINGS: &str = include_str!("engine.toml");

/// Any bytes as packets, times and changes for one engine.
pub fn engine_target(bytes: &[u8]) {
    let settings: Settings =
        equipoise::config::parse(SETTINGS, "engine.toml").unwrap_or_else(|error| panic!("{error}"));
    let mut drive = Drive::new(&settings);
    let mut input = Input(bytes);
    while !input.0.is_empty() {
        drive.step(&mut input);
    }
    books_balance(&drive.engine, drive.now);
}

/// Any bytes as records of a saved state, behind those that name everything: whatever they make an engine of, its books
/// balance, it can be saved and read again, and all of it ends.
pub fn state_target(bytes: &[u8]) {
    let settings: Settings =
        equipoise::config::parse(SETTINGS, "engine.toml").unwrap_or_else(|error| panic!("{error}"));
    let now = Instant::from_nanos(1 << 58);
    let mut names = saved(&mut Engine::new(&settings), now);
    // The last record says that this is all.
    names.truncate(names.len() - LAST_RECORD);
    let mut engine = Engine::new(&settings);
    let mut load = StateLoad::new(now);
    let read = engine.load_state(&mut load, now, &[&names, bytes].concat()).unwrap_or_else(|error| panic!("{error}"));
    assert!(read >= names.len() && read <= names.len() + bytes.len());
    let _ = engine.end_load(&load, now);
    books_balance(&engine, now);
    let mut again = Engine::new(&settings);
    let mut load = StateLoad::new(now);
    let state = saved(&mut engine, now);
    assert_eq!(again.load_state(&mut load, now, &state), Ok(state.len()));
    let loaded = again.end_load(&load, now).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.flows + loaded.lost[Lost::Expired as usize], engine.counters().flows, "{loaded}");
    books_balance(&again, now);
    let mut drive = Drive { servers: 1, rules: 1, engine, now, last: Vec::new(), left: Vec::new() };
    for _ in 0..20 {
        // As long as every timeout.
        drive.wait(20_000_000_000);
    }
    assert_eq!(drive.engine.counters().flows, 0);
    // Anything else is no state.
    if bytes.first() != Some(&1) {
        assert!(
            bytes.len() < 3
                || Engine::new(&settings).load_state(&mut StateLoad::new(now), now, bytes) != Ok(bytes.len())
        );
    }
}

/// Returns the records about flows, clients and ports that the target `engine` leaves with an input.
pub fn state_after(bytes: &[u8]) -> Vec<u8> {
    let settings: Settings =
        equipoise::config::parse(SETTINGS, "engine.toml").unwrap_or_else(|error| panic!("{error}"));
    let mut drive = Drive::new(&settings);
    let mut input = Input(bytes);
    while !input.0.is_empty() {
        drive.step(&mut input);
    }
    let state = saved(&mut drive.engine, drive.now);
    // Sticky slots are the first of these.
    const SLOT: u8 = 8;
    let mut rest = &state[..];
    while let [kind, high, low, ..] = *rest
        && kind < SLOT
    {
        rest = &rest[3 + usize::from(u16::from_be_bytes([high, low]))..];
    }
    rest.to_vec()
}

/// Bytes of the last record of a state of fewer than 256 records.
const LAST_RECORD: usize = 6;

/// Returns the state of an engine.
fn saved(engine: &mut Engine, now: Instant) -> Vec<u8> {
    let (mut walk, mut state) = (StateWalk::new(now, true), Vec::new());
    while !engine.write_state(&mut walk, now, 7, &mut state) {}
    state
}

/// All counts of flows agree: totals, services, servers, rules, NAT pools, and the table itself.
fn books_balance(engine: &Engine, now: Instant) {
    let counters = engine.counters();
    assert!(counters.add_up(), "{counters:?}");
    let ended: u64 = counters.flows_ended.iter().map(|ended| ended.count).sum();
    assert_eq!(counters.flows_opened, counters.flows + ended, "flows opened = flows + ended");
    let mut flows = Vec::new();
    let rest = engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut flows);
    assert!(rest.is_none() && flows.len() as u64 == counters.flows);
    let count = |which: &dyn Fn(&FlowRow) -> bool| flows.iter().filter(|flow| which(flow)).count() as u64;
    for service in engine.services() {
        assert_eq!(service.flows, count(&|flow| flow.service == service.service), "{service:?}");
    }
    for server in engine.servers(now) {
        // Server names are unique here, whatever the pool.
        assert_eq!(server.flows, count(&|flow| flow.server == server.server), "{server:?}");
    }
    for rule in engine.rules() {
        assert_eq!(u64::from(rule.flows), count(&|flow| flow.rule.as_ref() == Some(&rule.rule)), "{rule:?}");
    }
    for row in engine.nat_pools() {
        let has = |flow: &FlowRow| flow.source.is_some_and(|source| source.ip() == row.address);
        assert_eq!(u64::from(row.used), count(&|flow| has(flow) && flow.protocol == row.protocol), "{row:?}");
    }
}
