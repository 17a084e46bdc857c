//! What each fuzz target does with its input; shared by the fuzzer and `tests/fuzz_seeds.rs`.
//!
//! It may use only the library's public types. A body panics if a guarantee is broken.

use super::oracle;
use equipoise::balance::Admin;
use equipoise::capture::{Frame, Reader, describe};
use equipoise::config::{ConfigError, Problem, Settings};
use equipoise::control::Token;
use equipoise::engine::{Change, Cursor, Engine, FlowQuery, FlowRow, Lost, StateLoad, StateWalk, Verdict};
use equipoise::ids::ServerId;
use equipoise::packet::family::{self, Across, MtuRule};
use equipoise::packet::{Addresses, Meta, Parsed, Transport, checksum, parse, parse_first, quote};
use equipoise::sources::{DnsSettings, From, MOST_SERVERS, Request, SourceSettings, Sources, read_list};
use equipoise::sync::{Command, HEADER, Node, SyncSettings};
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

fn sync_settings(names: [&str; 2]) -> SyncSettings {
    SyncSettings {
        node: names[0].into(),
        peer: names[1].into(),
        key: b"key".to_vec(),
        instance: 1 + u64::from(names[0] > names[1]),
        fingerprint: 0,
        learning: std::time::Duration::from_secs(5),
    }
}

/// One end of a pair.
struct End {
    engine: Engine,
    node: Node,
}

impl End {
    fn new(settings: &Settings, now: Instant, names: [&str; 2]) -> End {
        let mut engine = Engine::new(settings);
        let mut node = Node::new(sync_settings(names), now, &mut engine).unwrap();
        node.follow_health(now, &mut engine, true);
        node.hold_answers(true);
        End { engine, node }
    }

    fn output(&mut self, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        self.node.poll_output(now, &mut self.engine, &mut out);
        assert!(out.len() < 1 << 18, "{} bytes at once", out.len());
        out
    }
}

/// Two ends of which each has proved who it is.
fn greeted(settings: &Settings, now: Instant) -> [End; 2] {
    let mut ends = [["first", "other"], ["other", "first"]].map(|names| End::new(settings, now, names));
    ends[1].node.command(now, &mut ends[1].engine, Command::Activate);
    ends.iter_mut().enumerate().for_each(|(at, end)| end.node.connected(now, &mut end.engine, [at as u8; 32]));
    for _ in 0..2 {
        for from in 0..2 {
            let out = ends[from].output(now);
            let End { engine, node } = &mut ends[1 - from];
            node.handle_input(now, engine, &out);
        }
    }
    ends
}

/// Any bytes as frames of a peer that has proved who it is, with commands, packets and time between them: whatever they make
/// of an engine, its books balance, the node knows what it has told, and all flows end.
///
/// A step is a kind, a length of two bytes and a body; the kinds are those of frames, and 0 for what is none.
pub fn sync_target(bytes: &[u8]) {
    let settings: Settings =
        equipoise::config::parse(SETTINGS, "engine.toml").unwrap_or_else(|error| panic!("{error}"));
    let mut now = Instant::from_nanos(1 << 58);
    let [End { engine, node }, mut other] = greeted(&settings, now);
    let mut end = End { engine, node };
    let names = other.output(now);
    end.node.handle_input(now, &mut end.engine, &names);
    let mut rest = bytes;
    while let [kind, high, low, ..] = *rest {
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len() - 3);
        let (body, more) = rest[3..].split_at(len);
        rest = more;
        if kind != 0 {
            let mut frame = vec![1, kind];
            frame.extend((body.len() as u16).to_be_bytes());
            frame.extend([0, 0, 0, 0, 0, 0, 0, 2]);
            frame.extend((u64::MAX / 2).to_be_bytes());
            assert_eq!(frame.len(), HEADER);
            frame.extend_from_slice(body);
            end.node.handle_input(now, &mut end.engine, &frame);
            continue;
        }
        let command = |number| [Command::Activate, Command::StandBy, Command::Yield][number];
        match body {
            [number @ 0..=2, ..] => end.node.command(now, &mut end.engine, command(usize::from(*number))),
            [3, packet @ ..] => {
                let mut packet = packet.to_vec();
                end.engine.handle_packet(now, &mut packet, Meta::default());
            }
            [4, raw @ ..] => end.node.handle_input(now, &mut end.engine, raw),
            [_, tenths, ..] => {
                now = Instant::from_nanos(now.as_nanos() + u64::from(*tenths) * 100_000_000);
                end.engine.handle_timeout(now);
                end.node.handle_timeout(now, &mut end.engine);
            }
            _ => _ = end.output(now),
        }
        while end.engine.poll_event().is_some() || end.node.poll_event().is_some() {}
    }
    for _ in 0..50 {
        end.node.handle_timeout(now, &mut end.engine);
        end.output(now);
    }
    books_balance(&end.engine, now);
    assert_eq!(end.node.audit(&mut end.engine, 0, u32::MAX).0, None, "the book is wrong");
    end.node.disconnected(now, &mut end.engine);
    end.node.command(now, &mut end.engine, Command::Activate);
    let mut drive = Drive { servers: 1, rules: 1, engine: end.engine, now, last: Vec::new(), left: Vec::new() };
    for _ in 0..20 {
        // As long as every timeout.
        drive.wait(20_000_000_000);
    }
    assert_eq!(drive.engine.counters().flows, 0);
}

/// Returns the frames about flows that a peer sends after it was the target `engine` with an input, as the target `sync`
/// reads them.
pub fn sync_after(bytes: &[u8]) -> Vec<u8> {
    let settings: Settings =
        equipoise::config::parse(SETTINGS, "engine.toml").unwrap_or_else(|error| panic!("{error}"));
    let mut drive = Drive::new(&settings);
    let mut input = Input(bytes);
    while !input.0.is_empty() {
        drive.step(&mut input);
    }
    let now = drive.now;
    let mut ends = [["first", "other"], ["other", "first"]].map(|names| End::new(&settings, now, names));
    let node = Node::new(sync_settings(["other", "first"]), now, &mut drive.engine).unwrap();
    ends[1] = End { engine: drive.engine, node };
    let End { engine, node } = &mut ends[1];
    node.command(now, engine, Command::Activate);
    ends.iter_mut().enumerate().for_each(|(at, end)| end.node.connected(now, &mut end.engine, [at as u8; 32]));
    let mut sent = Vec::new();
    for _ in 0..3 {
        for from in 0..2 {
            let out = ends[from].output(now);
            let End { engine, node } = &mut ends[1 - from];
            node.handle_input(now, engine, &out);
            if from == 1 {
                sent.extend(out);
            }
        }
    }
    let (mut steps, mut rest) = (Vec::new(), &sent[..]);
    while let [_, kind, high, low, ..] = *rest {
        let frame = &rest[..HEADER + usize::from(u16::from_be_bytes([high, low]))];
        rest = &rest[frame.len()..];
        // Greetings and names have come before.
        if kind > 3 {
            steps.extend([kind, high, low]);
            steps.extend_from_slice(&frame[HEADER..]);
        }
    }
    steps
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

/// Bytes consumed from the front; zeros once they are used up.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn take(&mut self, most: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// An engine, and what last went in and out.
struct Drive {
    engine: Engine,
    servers: u8,
    rules: u16,
    now: Instant,
    /// The last packet handed in.
    last: Vec<u8>,
    /// The last packet that came out.
    left: Vec<u8>,
}

impl Drive {
    fn new(settings: &Settings) -> Drive {
        Drive {
            servers: settings.servers.len() as u8,
            rules: settings.policy.rules.len() as u16,
            engine: Engine::new(settings),
            now: Instant::ZERO,
            last: Vec::new(),
            left: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 10 {
            0..=2 => {
                let packet = transport(input);
                self.packet(packet, Meta::default());
            }
            3 => {
                let packet = error(input, &self.last);
                self.packet(packet, Meta::default());
            }
            4 => {
                let (at, with) = (input.word() as usize, input.byte());
                let mut packet = self.last.clone();
                if let Some(byte) = packet.get_mut(at) {
                    *byte ^= with;
                }
                packet.truncate(packet.len().saturating_sub(usize::from(input.byte() >> 4)));
                self.packet(packet, Meta::default());
            }
            5 => {
                let length = usize::from(input.byte());
                let meta = input.byte();
                let meta = Meta {
                    partial_checksum: meta & 1 > 0,
                    gso_size: u16::from(meta >> 4) * 100,
                    ingress: u16::from(meta >> 1 & 3),
                    ..Meta::default()
                };
                self.packet(input.take(length).to_vec(), meta);
            }
            6 => self.change(input),
            7 => {
                let reply = turned(input, &self.left);
                self.packet(reply, Meta::default());
            }
            8 => {
                let packet = error(input, &self.left);
                self.packet(packet, Meta::default());
            }
            _ => self.wait(u64::from(input.word()) << (input.byte() % 24)),
        }
    }

    /// Hands the engine a packet: what is foreseen of it comes true, and if it is valid, so is what comes out.
    fn packet(&mut self, came: Vec<u8>, meta: Meta) {
        let mut packet = came.clone();
        let foreseen = self.engine.foresee(self.now, &came, meta);
        self.engine.explain(self.now, &came, meta);
        let verdict = self.engine.handle_packet(self.now, &mut packet, meta);
        if let Some(said) = foreseen.verdict {
            assert_eq!((said, &foreseen.bytes), (verdict, &packet), "{came:02x?}");
        }
        let sound = !meta.partial_checksum && oracle::is_valid(&came);
        if let Verdict::Forward { len, .. } = verdict
            && sound
        {
            let left = oracle::check(&packet[..len]);
            left.unwrap_or_else(|why| {
                panic!("arrived valid, left invalid: {why}\n{came:02x?}\n{:02x?}", &packet[..len])
            });
        }
        if let Verdict::Forward { len, .. } = verdict {
            self.left = packet[..len].to_vec();
        }
        self.last = came;
        self.own(sound || !matches!(verdict, Verdict::Emit { .. }));
    }

    /// Takes the packets that the engine sends itself, which must be valid unless they result from an invalid one,
    /// and its events.
    fn own(&mut self, sound: bool) {
        let mut buffer = vec![0; 65_535];
        while let Some((len, meta)) = self.engine.poll_transmit(self.now, &mut buffer) {
            if sound && !meta.partial_checksum {
                let own = &buffer[..len];
                assert!(oracle::check(own).is_ok() || held(own), "the engine sends an invalid packet: {own:02x?}");
            }
            self.left = buffer[..len].to_vec();
        }
        while self.engine.poll_event().is_some() {}
    }

    fn change(&mut self, input: &mut Input<'_>) {
        let server = ServerId(u32::from(input.byte() % self.servers));
        let change = match input.byte() % 5 {
            0 => Change::Weight { server, weight: input.word() },
            1 => {
                let admin = [Admin::Enabled, Admin::Draining, Admin::Disabled][usize::from(input.byte() % 3)];
                Change::Admin { server, admin, deadline: None }
            }
            2 => Change::Load { server, load: input.byte() % 101, maintenance: input.byte() & 1 > 0 },
            3 => Change::Health { server, up: [None, Some(true), Some(false)][usize::from(input.byte() % 3)] },
            _ => Change::Rule { rule: input.word() % self.rules.max(1), on: input.byte() & 1 > 0 },
        };
        let _ = self.engine.apply(self.now, change);
        self.own(true);
    }

    /// Advances the time, running what is due on the way.
    fn wait(&mut self, micros: u64) {
        let to = Instant::from_nanos(self.now.as_nanos().saturating_add(micros * 1000));
        for _ in 0..1000 {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= to) else { break };
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            self.own(true);
        }
        self.now = to;
    }
}

/// Returns whether a packet is a fragment that the engine held back: it leaves as it came, whatever its checksums.
fn held(packet: &[u8]) -> bool {
    parse(packet).is_ok_and(|parsed| matches!(parsed.transport, equipoise::packet::Transport::Fragment { .. }))
}

/// Clients, service addresses and servers, by family, as configured in [`SETTINGS`].
const PLACES: [[[u8; 4]; 2]; 4] = [
    [[198, 51, 100, 7], [198, 51, 100, 8]],
    [[192, 0, 2, 80], [203, 0, 113, 9]],
    [[10, 0, 2, 1], [10, 0, 2, 2]],
    [[192, 0, 2, 64], [224, 0, 0, 5]],
];

/// A packet of a small grammar, with valid checksums: few addresses and ports, so that flows come about.
fn transport(input: &mut Input<'_>) -> Vec<u8> {
    const PORTS: [u16; 8] = [40_000, 40_001, 80, 53, 8080, 443, 7, 0];
    const PROTOCOLS: [u8; 8] = [6, 6, 17, 17, 1, 47, 132, 4];
    let (shape, ports, kind) = (input.byte(), input.byte(), input.byte());
    let v6 = shape & 1 > 0;
    let place = |which: u8| PLACES[usize::from(which >> 1 & 3)][usize::from(which & 1)];
    let protocol = PROTOCOLS[usize::from(kind & 7)];
    let (src, dst) = (PORTS[usize::from(ports & 7)], PORTS[usize::from(ports >> 3 & 7)]);
    let mut body = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    let protocol = match protocol {
        6 => {
            body.extend(u32::from(input.word()).to_be_bytes());
            body.extend(u32::from(input.word()).to_be_bytes());
            body.extend([0x50, input.byte(), 0x10, 0, 0, 0, 0, 0]);
            6
        }
        17 => {
            body.extend([0, 0, 0, 0]);
            17
        }
        1 => {
            let reply = kind & 8 > 0;
            let first = if v6 { 128 + u8::from(reply) } else { 8 * u8::from(!reply) };
            body = vec![first, 0, 0, 0, 0, ports & 3, 0, kind >> 4];
            if v6 { 58 } else { 1 }
        }
        other => {
            body.extend([0; 8]);
            other
        }
    };
    body.extend(input.take(usize::from(ports >> 6) * 8));
    if protocol == 17 {
        let length = body.len() as u16;
        body[4..6].copy_from_slice(&length.to_be_bytes());
    }
    // Above More Fragments and the offset: which packet it belongs to.
    let fragment = if kind & 0xc0 == 0xc0 { input.word() } else { 0 };
    wrap(v6, place(shape >> 1 & 7), place(shape >> 4 & 7), protocol, fragment, shape >> 7, body)
}

/// The reply to a packet: addresses and ports are swapped, an echo request becomes a reply, a segment acknowledges
/// everything.
fn turned(input: &mut Input<'_>, packet: &[u8]) -> Vec<u8> {
    let (flags, more) = (input.byte(), usize::from(input.byte() & 63));
    let Ok(parsed) = parse(packet) else { return transport(input) };
    if !parsed.whole {
        return transport(input);
    }
    let mut body = packet[parsed.offset..parsed.len].to_vec();
    match parsed.transport {
        Transport::Tcp { seq, ack, header, .. } => {
            let end = seq.wrapping_add(parsed.payload_len() as u32).wrapping_add(1);
            body.truncate(usize::from(header));
            body[4..8].copy_from_slice(&ack.to_be_bytes());
            body[8..12].copy_from_slice(&end.to_be_bytes());
            body[13] = flags;
        }
        Transport::Echo { .. } => body[0] = if parsed.addresses.is_v6() { 129 } else { 0 },
        _ => {}
    }
    if let Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Sctp { .. } = parsed.transport {
        body[..4].rotate_left(2);
    }
    body.extend(input.take(more));
    if let Transport::Udp { .. } = parsed.transport {
        let length = body.len() as u16;
        body[4..6].copy_from_slice(&length.to_be_bytes());
    }
    wrap_any(parsed.addresses.reversed(), parsed.protocol, 0, 0, body)
}

/// An ICMP error about the last packet handed in, or about one of the grammar, from a server or a router.
fn error(input: &mut Input<'_>, last: &[u8]) -> Vec<u8> {
    let (kind, code, cut) = (input.byte(), input.byte() % 8, usize::from(input.byte()));
    let about = if kind & 1 > 0 { last.to_vec() } else { transport(input) };
    let v6 = about.first().is_some_and(|first| first >> 4 == 6);
    let types: [u8; 4] = if v6 { [1, 2, 3, 4] } else { [3, 11, 12, 4] };
    let mut body = vec![types[usize::from(kind >> 1 & 3)], code, 0, 0, 0, 0];
    body.extend(input.word().to_be_bytes());
    body.extend(&about[..about.len().min(cut)]);
    let to = PLACES[usize::from(kind >> 3 & 3)][usize::from(kind >> 5 & 1)];
    wrap(v6, [10, 0, 2, 1 + (kind >> 6)], to, if v6 { 58 } else { 1 }, 0, 0, body)
}

/// Prepends an IP header to a transport, and writes valid checksums into both; over IPv6 the addresses end in the
/// same four bytes.
fn wrap(v6: bool, src: [u8; 4], dst: [u8; 4], protocol: u8, fragment: u16, low: u8, body: Vec<u8>) -> Vec<u8> {
    let [src, dst] = [src, dst].map(u32::from_be_bytes);
    let long = |a: u32| 0x2001_0db8 << 96 | u128::from(a);
    let addresses = if v6 { Addresses::V6 { src: long(src), dst: long(dst) } } else { Addresses::V4 { src, dst } };
    wrap_any(addresses, protocol, fragment, low, body)
}

fn wrap_any(addresses: Addresses, protocol: u8, fragment: u16, low: u8, mut body: Vec<u8>) -> Vec<u8> {
    let both = match addresses {
        Addresses::V4 { src, dst } => [src.to_be_bytes(), dst.to_be_bytes()].concat(),
        Addresses::V6 { src, dst } => [src.to_be_bytes(), dst.to_be_bytes()].concat(),
    };
    let at = match protocol {
        6 => Some(16),
        17 => Some(6),
        1 | 58 => Some(2),
        _ => None,
    };
    if let Some(at) = at.filter(|at| body.len() >= at + 2) {
        body[at..at + 2].fill(0);
        let length = (body.len() as u32).to_be_bytes();
        let pseudo = [&both[..], &length, &[0, 0, 0, protocol]].concat();
        let sum = sum(&[if protocol == 1 { &[] } else { &pseudo[..] }, &body].concat());
        let sum = if protocol == 17 && sum == 0 { 0xffff } else { sum };
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let ttl = if low > 0 { 1 } else { 64 };
    let (id, fragment) = (1 + (fragment >> 14) as u8, fragment & 0x3fff);
    if addresses.is_v6() {
        let mut protocol = protocol;
        if fragment != 0 {
            let place = fragment.rotate_left(3).to_be_bytes();
            body.splice(..0, [protocol, 0, place[0], place[1], 0, 0, 0, id]);
            protocol = 44;
        }
        let length = (body.len() as u16).to_be_bytes();
        let head = [0x60, 0, 0, 0, length[0], length[1], protocol, ttl];
        return [&head[..], &both, &body].concat();
    }
    let (length, fragment) = (((body.len() + 20) as u16).to_be_bytes(), fragment.to_be_bytes());
    let mut head = vec![0x45, 0, length[0], length[1], 0, id, fragment[0], fragment[1], ttl, protocol, 0, 0];
    head.extend(both);
    let sum = sum(&head).to_be_bytes();
    head[10..12].copy_from_slice(&sum);
    [head, body].concat()
}

/// Returns the Internet checksum (RFC 1071) of bytes whose own field is zero. An odd last byte is padded.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
