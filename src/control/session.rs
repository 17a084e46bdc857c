//! The gateway side of one control connection, sans-IO: bytes in, bytes out, both bounded.
//!
//! It must know neither sockets nor clocks. Each call of [`Session::poll_output`] does one small piece of work, so that
//! a full table is streamed between packets and without a large buffer.

use super::protocol::{Answer, DeviceCounters, Done, Failure, PROTOCOL, Request, Status, Totals};
use crate::config::Settings;
use crate::engine::{Change, Cursor, Engine, FlowQuery, Refused};
use crate::ids::ServerId;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;
use std::sync::Arc;

/// Maximum bytes of unanswered requests in a session, and of one line.
pub const MAX_INPUT: usize = 64 * 1024;
/// Maximum bytes that a call of [`Session::poll_output`] appends, unless a single row is longer.
pub const CHUNK: usize = 64 * 1024;
/// Rows of the table fetched per call: enough to fill half a chunk, about 0.1 ms of work.
const ROWS: usize = 128;

/// The facts about a gateway that a session reports besides those of the engine; shared by all sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// When the gateway started, on the clock of the engine.
    pub started: Instant,
    /// The process ID of the gateway.
    pub pid: u32,
    /// Name of its TUN device.
    pub device: String,
    /// MTU of the device in bytes.
    pub mtu: u16,
    /// Whether segmentation offload is active; as configured until the device is open.
    pub offload: bool,
}

impl About {
    /// Makes it from the settings, the start time and the process ID.
    pub fn new(settings: &Settings, started: Instant, pid: u32) -> Self {
        let gateway = &settings.gateway;
        About { started, pid, device: gateway.device.clone(), mtu: gateway.mtu, offload: gateway.offload }
    }
}

/// What to do after a call of [`Session::poll_output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Write the output, if any, then call again.
    More,
    /// Everything is answered: call again after the next [`Session::feed`].
    Idle,
    /// Write the output, if any, then close the connection.
    Close,
}

/// A walk over the table that answers a request for flows.
#[derive(Debug)]
struct Walk {
    query: FlowQuery,
    from: Cursor,
    left: u64,
    rows: u64,
}

/// Returns an error if a query names a service or server that does not exist.
fn unknown(query: &FlowQuery, engine: &Engine, now: Instant) -> Option<String> {
    let service = query.service.as_ref().filter(|name| engine.services().iter().all(|row| row.service != **name));
    let server = query.server.as_ref().filter(|name| engine.servers(now).iter().all(|row| row.server != **name));
    let service = service.map(|name| format!("there is no service {name}; `eqctl services` lists them"));
    service.or_else(|| server.map(|name| format!("there is no server {name}; `eqctl servers` lists them")))
}

/// One connection of the control socket, without the socket.
///
/// The driver feeds what it reads, and calls [`Session::poll_output`] whenever all previous output has been written.
#[derive(Debug)]
pub struct Session {
    about: Arc<About>,
    input: Vec<u8>,
    pending: VecDeque<Answer>,
    walk: Option<Walk>,
    ended: bool,
    refused: bool,
}

impl Session {
    /// Makes the session of a new connection.
    pub fn new(about: Arc<About>) -> Self {
        Session { about, input: Vec::new(), pending: VecDeque::new(), walk: None, ended: false, refused: false }
    }

    /// Takes bytes that the client sent. If more than [`MAX_INPUT`] bytes of requests are waiting, the session sends an
    /// error and closes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.refused {
            return;
        }
        if self.input.len() + bytes.len() > MAX_INPUT {
            self.refuse(format!("more than {} KiB of requests are waiting, or in one line", MAX_INPUT / 1024));
        } else {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Notes that the client has finished sending: pending requests are still answered, then [`Progress::Close`] follows.
    pub fn finish(&mut self) {
        // A last line without a newline is a request too: `printf '{...}' | nc -N -U`.
        if !self.ended && self.input.last().is_some_and(|last| *last != b'\n') {
            self.input.push(b'\n');
        }
        self.ended = true;
    }

    /// Does a bounded amount of work and appends whole lines, at most [`CHUNK`] bytes in total, to `out`.
    pub fn poll_output(
        &mut self,
        engine: &mut Engine,
        now: Instant,
        device: &DeviceCounters,
        out: &mut Vec<u8>,
    ) -> Progress {
        let start = out.len();
        if !self.write_pending(start, out) {
            return Progress::More;
        }
        if self.walk.is_some() {
            self.walk(engine, now);
        } else if let Some(line) = self.next_line() {
            self.answer(&line, engine, now, device);
        }
        let all = self.write_pending(start, out);
        if !all || self.walk.is_some() || self.input.contains(&b'\n') {
            Progress::More
        } else if self.ended || self.refused {
            Progress::Close
        } else {
            Progress::Idle
        }
    }

    /// Writes pending answers while there is room; returns whether all of them are written.
    fn write_pending(&mut self, start: usize, out: &mut Vec<u8>) -> bool {
        while let Some(answer) = self.pending.front() {
            let before = out.len();
            serde_json::to_writer(&mut *out, answer).expect("an answer has only string keys, and a Vec takes all");
            out.push(b'\n');
            if out.len() - start > CHUNK && before > start {
                out.truncate(before);
                return false;
            }
            self.pending.pop_front();
        }
        true
    }

    /// Takes the next whole line, without its newline, from the input.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.input.drain(..=end).collect();
        line.pop();
        Some(line)
    }

    /// Answers one line.
    fn answer(&mut self, line: &[u8], engine: &mut Engine, now: Instant, device: &DeviceCounters) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let request = match serde_json::from_slice(line) {
            Ok(request) => request,
            // After an unreadable line the rest of the input cannot be trusted.
            Err(error) => return self.refuse(format!("cannot parse the request: {error}")),
        };
        match request {
            Request::Status => {
                let status = Answer::Status(Box::new(self.status(engine, now)));
                self.rows([status]);
            }
            Request::Flows { query, limit } => {
                if let Some(unknown) = unknown(&query, engine, now) {
                    return self.fail(unknown);
                }
                let left = limit.unwrap_or(u64::MAX);
                self.walk = Some(Walk { query, from: Cursor::default(), left, rows: 0 });
                self.walk(engine, now);
            }
            Request::Servers => self.rows(engine.servers(now).into_iter().map(|row| Answer::Server(Box::new(row)))),
            Request::Services => self.rows(engine.services().into_iter().map(Answer::Service)),
            Request::Rules => self.rows(engine.rules().into_iter().map(Answer::Rule)),
            Request::Nat => self.rows(engine.nat_pools().into_iter().map(Answer::Nat)),
            Request::Monitors => {
                self.rows(engine.monitors(now).into_iter().map(|row| Answer::Monitor(Box::new(row))));
            }
            Request::History => self.rows(engine.health_history(now).into_iter().map(Answer::History)),
            Request::Counters => {
                let totals = Totals { engine: engine.counters(), device: *device };
                self.rows([Answer::Counters(Box::new(totals))]);
            }
            Request::Kill { flow } => self.change(engine, now, Change::Kill { flow }),
            Request::Weight { pool, server, weight } => {
                self.change_server(engine, now, &pool, &server, |server| Change::Weight { server, weight });
            }
            Request::Admin { pool, server, admin, deadline_ms } => {
                let deadline = deadline_ms.map(Duration::from_millis);
                self.change_server(engine, now, &pool, &server, |server| Change::Admin { server, admin, deadline });
            }
            Request::Load { pool, server, load, maintenance } => {
                self.change_server(engine, now, &pool, &server, |server| Change::Load { server, load, maintenance });
            }
            Request::Rule { rule, on } => match engine.find_rule(&rule) {
                Some(rule) => self.change(engine, now, Change::Rule { rule, on }),
                None => self.fail(format!("there is no rule {rule}; `eqctl rules` lists them")),
            },
        }
    }

    fn change_server(
        &mut self,
        engine: &mut Engine,
        now: Instant,
        pool: &str,
        server: &str,
        change: impl FnOnce(ServerId) -> Change,
    ) {
        match engine.find_server(pool, server) {
            Some(server) => self.change(engine, now, change(server)),
            None => self.fail(format!("there is no server {pool}/{server}; `eqctl servers` lists them")),
        }
    }

    /// Continues the walk over the table by a bounded number of rows.
    fn walk(&mut self, engine: &Engine, now: Instant) {
        let Some(mut walk) = self.walk.take() else { return };
        let most = walk.left.min(ROWS as u64) as usize;
        let mut rows = Vec::with_capacity(ROWS);
        // At the limit, the walk continues only to find out whether there is one more.
        let next = engine.flows(now, &walk.query, walk.from, if most > 0 { most } else { ROWS }, &mut rows);
        if most == 0 && !rows.is_empty() {
            self.pending.push_back(Answer::Done(Done { rows: walk.rows, more: true }));
            return;
        }
        walk.rows += rows.len() as u64;
        walk.left -= rows.len() as u64;
        self.pending.extend(rows.into_iter().map(|row| Answer::Flow(Box::new(row))));
        match next {
            Some(from) => self.walk = Some(Walk { from, ..walk }),
            None => self.pending.push_back(Answer::Done(Done { rows: walk.rows, more: false })),
        }
    }

    fn status(&self, engine: &Engine, now: Instant) -> Status {
        let counters = engine.counters();
        Status {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: self.about.pid,
            uptime_ms: u64::try_from(now.since(self.about.started).as_millis()).unwrap_or(u64::MAX),
            device: self.about.device.clone(),
            mtu: self.about.mtu,
            offload: self.about.offload,
            services: engine.services().len() as u64,
            servers: engine.server_count() as u64,
            flows: counters.flows,
            max_flows: counters.max_flows,
        }
    }

    fn change(&mut self, engine: &mut Engine, now: Instant, change: Change) {
        match engine.apply(now, change) {
            Ok(()) => self.pending.push_back(Answer::Done(Done { rows: 1, more: false })),
            Err(refused @ Refused::NoSuchFlow(_)) => self.fail(format!("{refused}; `eqctl flows` lists them")),
            Err(refused @ Refused::NoSuchServer(_)) => self.fail(format!("{refused}; `eqctl servers` lists them")),
            Err(refused @ Refused::NoSuchRule(_)) => self.fail(format!("{refused}; `eqctl rules` lists them")),
            Err(refused @ Refused::NoLoad(_)) => self.fail(refused.to_string()),
        }
    }

    fn rows(&mut self, rows: impl IntoIterator<Item = Answer>) {
        let before = self.pending.len();
        self.pending.extend(rows);
        let rows = (self.pending.len() - before) as u64;
        self.pending.push_back(Answer::Done(Done { rows, more: false }));
    }

    fn fail(&mut self, message: String) {
        self.pending.push_back(Answer::Error(Failure { message }));
    }

    /// Answers with an error and accepts no more input.
    fn refuse(&mut self, message: String) {
        self.walk = None;
        self.input = Vec::new();
        self.refused = true;
        self.fail(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Listen, PoolSettings, ServerSettings, ServiceSettings};
    use crate::flow::TableSettings;
    use crate::ids::PoolId;
    use crate::packet::{Meta, Protocol};
    use serde_json::Value;

    const NOW: Instant = Instant::from_nanos(90_000_000_000);

    /// A UDP service on 192.0.2.80:53 with servers `a` and `b`, and `flows` flows to it.
    fn engine(flows: u32) -> Engine {
        let listen = Listen::one("192.0.2.80".parse().unwrap(), Protocol::Udp, 53, 53);
        let server = |name: &str, host: u8| ServerSettings {
            v4: Some([10, 0, 0, host].into()),
            ..ServerSettings::new(name, PoolId(0))
        };
        let settings = Settings {
            table: TableSettings { max_flows: flows.max(1), ..TableSettings::default() },
            services: vec![ServiceSettings::new("dns", vec![listen], PoolId(0))],
            pools: vec![PoolSettings::new("p", vec![ServerId(0), ServerId(1)])],
            servers: vec![server("a", 1), server("b", 2)],
            ..Settings::default()
        };
        let mut engine = Engine::new(&settings);
        for i in 0..flows {
            let [_, x, y, z] = i.to_be_bytes();
            let builder = etherparse::PacketBuilder::ipv4([100, x, y, z], [192, 0, 2, 80], 64).udp(5000, 53);
            let mut packet = Vec::new();
            builder.write(&mut packet, b"hello").unwrap();
            engine.handle_packet(NOW, &mut packet, Meta::default());
        }
        assert_eq!(engine.counters().flows, u64::from(flows));
        engine
    }

    fn session() -> Session {
        Session::new(Arc::new(About::new(&Settings::default(), Instant::from_nanos(60_000_000_000), 77)))
    }

    /// Runs the session until it is idle or closes; returns its lines, the longest chunk, and the last progress.
    fn run(session: &mut Session, engine: &mut Engine) -> (Vec<Value>, usize, Progress) {
        let (mut all, mut longest) = (Vec::new(), 0);
        for _ in 0..100_000 {
            let before = all.len();
            let progress = session.poll_output(engine, NOW, &DeviceCounters::default(), &mut all);
            longest = longest.max(all.len() - before);
            if progress != Progress::More {
                let lines = String::from_utf8(all).unwrap();
                return (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), longest, progress);
            }
        }
        panic!("the session never becomes idle");
    }

    fn ask(engine: &mut Engine, requests: &str) -> Vec<Value> {
        let mut session = session();
        session.feed(requests.as_bytes());
        let (lines, _, progress) = run(&mut session, engine);
        assert_eq!(progress, Progress::Idle);
        lines
    }

    #[test]
    fn a_full_table_streams_in_small_chunks_with_every_flow_once() {
        let mut engine = engine(20_000);
        let mut session = session();
        session.feed(b"{\"request\":\"flows\"}\n");
        let (lines, longest, progress) = run(&mut session, &mut engine);
        assert_eq!((lines.len(), progress), (20_001, Progress::Idle));
        assert!(longest <= CHUNK, "{longest}");
        let clients: std::collections::HashSet<&str> =
            lines[..20_000].iter().map(|line| line["flow"]["client"].as_str().unwrap()).collect();
        assert_eq!(clients.len(), 20_000);
        assert_eq!(lines[20_000], serde_json::json!({"done": {"rows": 20_000, "more": false}}));
    }

    #[test]
    fn a_limit_cuts_off_and_says_whether_there_was_more() {
        let mut engine = engine(300);
        for (limit, rows, more) in [(0, 0, true), (1, 1, true), (299, 299, true), (300, 300, false), (999, 300, false)]
        {
            let lines = ask(&mut engine, &format!("{{\"request\":\"flows\",\"limit\":{limit}}}\n"));
            assert_eq!(lines.len(), rows + 1, "limit {limit}");
            assert_eq!(lines[rows], serde_json::json!({"done": {"rows": rows, "more": more}}), "limit {limit}");
        }
    }

    #[test]
    fn a_query_that_matches_nothing_still_ends() {
        let mut engine = engine(20_000);
        let lines = ask(&mut engine, "{\"request\":\"flows\",\"query\":{\"client\":\"203.0.113.0/24\"},\"limit\":1}\n");
        assert_eq!(lines, [serde_json::json!({"done": {"rows": 0, "more": false}})]);
        let lines =
            ask(&mut engine, "{\"request\":\"flows\",\"query\":{\"client\":\"100.0.1.0/24\",\"server\":\"a\"}}\n");
        assert_eq!(lines.len(), 128 + 1);
    }

    #[test]
    fn requests_in_one_piece_or_byte_by_byte_are_answered_in_order() {
        let mut engine = engine(3);
        let requests = "{\"request\":\"status\"}\n\n{\"request\":\"servers\"}\r\n{\"request\":\"services\"}\n{\"request\":\"counters\"}\n";
        let whole = ask(&mut engine, requests);
        let kinds: Vec<&String> = whole.iter().flat_map(|line| line.as_object().unwrap().keys()).collect();
        let want = ["status", "done", "server", "server", "done", "service", "done", "counters", "done"];
        assert_eq!(kinds, want);
        assert_eq!(whole[0]["status"]["uptime_ms"], 30_000);
        assert_eq!(whole[0]["status"]["protocol"], PROTOCOL);
        assert_eq!(whole[7]["counters"]["engine"]["packets_in"], 3);

        let mut session = session();
        let mut pieces = Vec::new();
        for byte in requests.bytes() {
            session.feed(&[byte]);
            pieces.extend(run(&mut session, &mut engine).0);
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn a_weight_and_a_kill_take_effect_or_say_why_not() {
        let mut engine = engine(3);
        let lines = ask(&mut engine, "{\"request\":\"weight\",\"pool\":\"p\",\"server\":\"b\",\"weight\":7}\n");
        assert_eq!(lines, [serde_json::json!({"done": {"rows": 1, "more": false}})]);
        assert_eq!(engine.servers(NOW).iter().map(|row| row.weight).collect::<Vec<_>>(), [1, 7]);
        let lines = ask(&mut engine, "{\"request\":\"weight\",\"pool\":\"q\",\"server\":\"b\",\"weight\":7}\n");
        assert!(lines[0]["error"]["message"].as_str().unwrap().contains("no server q/b"), "{lines:?}");

        let id = ask(&mut engine, "{\"request\":\"flows\",\"limit\":1}\n")[0]["flow"]["id"].clone();
        let kill = format!("{{\"request\":\"kill\",\"flow\":{id}}}\n");
        assert_eq!(ask(&mut engine, &kill), [serde_json::json!({"done": {"rows": 1, "more": false}})]);
        assert_eq!(engine.counters().flows, 2);
        let lines = ask(&mut engine, &kill);
        assert!(lines[0]["error"]["message"].as_str().unwrap().contains("no flow"), "{lines:?}");
    }

    #[test]
    fn what_is_no_request_is_answered_with_an_error_and_the_end() {
        let mut engine = engine(1);
        let long = vec![b'x'; MAX_INPUT + 1];
        let many = "{\"request\":\"status\"}\n".repeat(4_000);
        let deep = "[".repeat(50_000) + "\n";
        for bad in [
            &b"hello\n"[..],
            b"\xff\xfe\n",
            b"{\"request\":\"weight\",\"weight\":65536}\n",
            &long,
            many.as_bytes(),
            deep.as_bytes(),
        ] {
            let mut session = session();
            session.feed(bad);
            let (lines, _, progress) = run(&mut session, &mut engine);
            assert_eq!((lines.len(), progress), (1, Progress::Close));
            assert!(lines[0]["error"]["message"].is_string());
            session.feed(b"{\"request\":\"status\"}\n");
            assert_eq!(run(&mut session, &mut engine), (vec![], 0, Progress::Close), "no input is accepted after it");
        }
    }

    #[test]
    fn a_client_that_has_finished_gets_its_answers_before_the_end() {
        let mut engine = engine(200);
        let mut session = session();
        session.feed(b"{\"request\":\"flows\"}\n{\"request\":\"status\"}");
        session.finish();
        let (lines, _, progress) = run(&mut session, &mut engine);
        assert_eq!((lines.len(), progress), (203, Progress::Close));
        assert!(lines[201]["status"].is_object());
    }

    #[test]
    fn a_flow_that_ends_during_the_walk_stops_nothing() {
        let mut engine = engine(1_000);
        let mut session = session();
        session.feed(b"{\"request\":\"flows\"}\n");
        let mut out = Vec::new();
        assert_eq!(session.poll_output(&mut engine, NOW, &DeviceCounters::default(), &mut out), Progress::More);
        engine.handle_timeout(Instant::FAR);
        while engine.poll_timeout().is_some() {
            engine.handle_timeout(Instant::FAR);
        }
        let (lines, _, progress) = run(&mut session, &mut engine);
        assert_eq!((lines.len(), progress), (1, Progress::Idle), "{lines:?}");
    }
}
