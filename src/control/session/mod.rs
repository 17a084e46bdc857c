//! The gateway side of one control connection, sans-IO: bytes in, bytes out, both bounded.
//!
//! It must know neither sockets nor clocks. Each call of [`Session::poll_output`] does one small piece of work, so that
//! a full table is streamed between packets and without a large buffer.

mod client;
mod flows;
mod sticky;

use super::SystemState;
use super::access::HttpState;
use super::desk::{Desk, ReloadOrder, Ticket};
use super::explain::explain;
use super::ledger::{Ask, Deadline, Ledger, Reply};
use super::packet_words::PacketWords;
use super::pair::Pairing;
use super::protocol::{
    Answer, ChangedRow, DeviceCounters, Done, Explained, Failure, ObjectRow, PROTOCOL, Request, Status, TokenRow,
    Totals,
};
use super::system::source_row;
use crate::config::changes::Who;
use crate::config::{Settings, listing};
use crate::engine::{Change, Engine, FlowQuery, Refused, StickyQuery};
use crate::ids::FlowId;
use crate::sources::SourceState;
use crate::time::{Duration, Instant};
use client::ClientWalk;
use flows::{Kill, MOST_SORTED, Sorted, Walk, checked, is_service, killed, server_of};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use sticky::{End, Sticky};

/// Maximum bytes of unanswered requests in a session, and of one line.
pub const MAX_INPUT: usize = 64 * 1024;
/// Maximum bytes that a call of [`Session::poll_output`] appends, unless a single row is longer.
pub const CHUNK: usize = 64 * 1024;

/// The answer of a gateway that has no other one.
const NO_PAIR: &str = "this gateway has no peer: its configuration has no [sync]";

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
    /// Queues of the device; 1 until it is open.
    pub queues: usize,
}

impl About {
    /// Makes it from the settings, the start time and the process ID.
    pub fn new(settings: &Settings, started: Instant, pid: u32) -> Self {
        let gateway = &settings.gateway;
        let (device, mtu, offload) = (gateway.device.clone(), gateway.mtu, gateway.offload);
        About { started, pid, device, mtu, offload, queues: 1 }
    }
}

/// What a gateway counts and knows outside of the engine.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// The counters of its device.
    pub device: DeviceCounters,
    /// The state of what it installed in the system.
    pub system: Arc<SystemState>,
    /// The sources of servers.
    pub sources: Arc<Vec<SourceState>>,
    /// Where requests are left that take longer.
    pub desk: Arc<Mutex<Desk>>,
    /// The server of metrics, page and API.
    pub http: Arc<HttpState>,
}

/// What to do after a call of [`Session::poll_output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Write the output, if any, then call again.
    More,
    /// Everything is answered: call again after the next [`Session::feed`].
    Idle,
    /// A request is under way at the desk: call again when there is news of it.
    Wait,
    /// Write the output, if any, then close the connection.
    Close,
}

/// A request that is answered piece by piece.
#[derive(Debug)]
enum Task {
    Flows(Walk),
    Sorted(Sorted),
    Kill(Kill),
    Client(ClientWalk),
    Sticky(Sticky),
}

/// Completes the names in a query for sticky clients.
fn named(query: StickyQuery, engine: &Engine) -> Result<StickyQuery, String> {
    if let Some(name) = &query.service {
        is_service(engine, name)?;
    }
    let server = query.server.as_ref().map(|name| server_of(engine, name)).transpose()?;
    Ok(StickyQuery { server, ..query })
}

/// A change that is being carried out.
#[derive(Debug)]
enum Waiting {
    /// For the desk to be free.
    Asks(Ask),
    /// For the order of this number.
    Order(u64),
}

fn desk(outside: &Outside) -> MutexGuard<'_, Desk> {
    // A desk is consistent between any two statements.
    outside.desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a session works on.
#[derive(Debug)]
pub struct Floor<'a> {
    /// The engine.
    pub engine: &'a mut Engine,
    /// The ledger of the operators' changes.
    pub ledger: &'a mut Ledger,
    /// The time.
    pub now: Instant,
    /// What is known outside of the engine.
    pub outside: &'a Outside,
    /// The other gateway, if this one has one.
    pub pair: Option<Pairing<'a>>,
}

impl Status {
    /// Returns the status of a gateway.
    pub(super) fn of(about: &About, floor: &Floor<'_>) -> Status {
        let Floor { engine, ledger, now, outside, .. } = floor;
        let (now, counters) = (*now, engine.counters());
        let (last_repair, troubles) = outside.system.rows(now);
        Status {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: about.pid,
            uptime_ms: u64::try_from(now.since(about.started).as_millis()).unwrap_or(u64::MAX),
            device: about.device.clone(),
            mtu: about.mtu,
            offload: about.offload,
            queues: about.queues as u64,
            lost: outside.device.lost,
            state_file: ledger.in_force().gateway.state_file.as_ref().map(|path| path.display().to_string()),
            services: engine.service_count() as u64,
            servers: engine.server_count() as u64,
            flows: counters.flows,
            max_flows: counters.max_flows,
            half_open: counters.half_open,
            max_half_open: counters.max_half_open,
            pressures: engine.pressures(now),
            repairs: outside.system.repairs,
            last_repair,
            troubles,
            shortcut: counters.shortcut,
            pair: floor.pair.as_ref().map(Pairing::status),
            lost_log_lines: outside.device.lost_log_lines,
            http: outside.http.row(),
        }
    }
}

/// One connection of the control socket, without the socket.
///
/// The driver feeds what it reads, and calls [`Session::poll_output`] whenever all previous output has been written.
#[derive(Debug)]
pub struct Session {
    about: Arc<About>,
    who: Who,
    input: Vec<u8>,
    pending: VecDeque<Answer>,
    task: Option<Task>,
    waiting: Option<Waiting>,
    /// What it waits for.
    ticket: Option<Ticket>,
    ended: bool,
    refused: bool,
}

impl Session {
    /// Makes the session of a new connection of a user.
    pub fn new(about: Arc<About>, who: Who) -> Self {
        Session {
            about,
            who,
            input: Vec::new(),
            pending: VecDeque::new(),
            task: None,
            waiting: None,
            ticket: None,
            ended: false,
            refused: false,
        }
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
    pub fn poll_output(&mut self, floor: &mut Floor<'_>, out: &mut Vec<u8>) -> Progress {
        let start = out.len();
        if !self.write_pending(start, out) {
            return Progress::More;
        }
        if let Some(ticket) = self.ticket {
            match desk(floor.outside).take(ticket) {
                None => return Progress::Wait,
                Some(Ok(rows)) => self.rows(rows.into_iter().map(Answer::Change)),
                Some(Err(why)) => self.fail(why),
            }
            self.ticket = None;
        } else if let Some(task) = self.task.take() {
            self.task = self.work(task, floor);
        } else if let Some(waiting) = self.waiting.take() {
            self.go_on(waiting, floor);
        } else if let Some(line) = self.next_line() {
            self.answer(&line, floor);
        }
        let all = self.write_pending(start, out);
        if self.ticket.is_some() || self.waiting.is_some() {
            Progress::Wait
        } else if !all || self.task.is_some() || self.input.contains(&b'\n') {
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
    fn answer(&mut self, line: &[u8], floor: &mut Floor<'_>) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match serde_json::from_slice(line) {
            Ok(request) => self.request(request, floor),
            // After an unreadable line the rest of the input cannot be trusted.
            Err(error) => self.refuse(format!("cannot parse the request: {error}")),
        }
    }

    fn request(&mut self, request: Request, floor: &mut Floor<'_>) {
        let Floor { engine, ledger, now, outside, pair } = floor;
        let (engine, now) = (&mut **engine, *now);
        match request {
            Request::Status => {
                let floor = Floor { engine, ledger, now, outside, pair: None };
                let status = Status { pair: pair.as_ref().map(Pairing::status), ..Status::of(&self.about, &floor) };
                self.rows([Answer::Status(Box::new(status))]);
            }
            Request::Flows { query, filter, sort, limit } => match checked(query, filter.as_ref(), engine) {
                Err(unknown) => self.fail(unknown),
                Ok(query) => {
                    self.task = Some(match sort {
                        Some(by) => Task::Sorted(Sorted::new(query, by, limit.unwrap_or(MOST_SORTED))),
                        None => Task::Flows(Walk::new(query, limit)),
                    });
                }
            },
            Request::KillFlows { filter, dry_run } => match checked(FlowQuery::default(), Some(&filter), engine) {
                Err(unknown) => self.fail(unknown),
                Ok(query) => self.task = Some(Task::Kill(Kill::new(query, &filter, dry_run))),
            },
            Request::Sticky { query, limit } => match named(query, engine) {
                Err(unknown) => self.fail(unknown),
                Ok(query) => self.task = Some(Task::Sticky(Sticky::list(engine.begin_sticky(), query, limit))),
            },
            Request::ClearSticky { query, all } if query == StickyQuery::default() && !all => {
                self.fail("name a service, a server or a client, or ask for all".into());
            }
            Request::ClearSticky { query, .. } => match named(query, engine) {
                Err(unknown) => self.fail(unknown),
                Ok(query) => {
                    let order = pair.as_mut().and_then(|pair| pair.node.begin_clearing());
                    self.task = Some(Task::Sticky(Sticky::clear(engine.begin_clearing(), query, order)));
                }
            },
            Request::Events { after } => self.rows(ledger.event_rows(now, after).into_iter().map(Answer::Event)),
            Request::Servers => self.rows(engine.servers(now).into_iter().map(|row| Answer::Server(Box::new(row)))),
            Request::Services => self.rows(engine.services().into_iter().map(Answer::Service)),
            Request::Rules => self.rows(engine.rules().into_iter().map(Answer::Rule)),
            Request::Nat => self.rows(engine.nat_pools().into_iter().map(Answer::Nat)),
            Request::Pools => self.rows(ledger.pool_rows(engine, now).into_iter().map(Answer::Pool)),
            Request::Monitors => {
                self.rows(engine.monitors(now).into_iter().map(|row| Answer::Monitor(Box::new(row))));
            }
            Request::History => {
                let operations = ledger.operation_rows(now).into_iter().map(Answer::Operation);
                self.rows(engine.health_history(now).into_iter().map(Answer::History).chain(operations));
            }
            Request::Sources => {
                let row = |state: &SourceState| Answer::Source(Box::new(source_row(state, now)));
                self.rows(outside.sources.iter().map(row));
            }
            Request::Counters => {
                let totals = Totals { engine: engine.counters(), device: outside.device };
                self.rows([Answer::Counters(Box::new(totals))]);
            }
            Request::Explain { packet } => self.explain(engine, now, packet),
            Request::ExplainFlow { flow } => self.explain_flow(engine, now, flow),
            Request::ExplainClient { client } => self.task = Some(Task::Client(ClientWalk::new(client))),
            Request::Kill { flow } => self.kill(engine, ledger, now, flow),
            Request::Load { server, load, maintenance } => {
                match ledger.load(engine, now, self.who, (&server, load, maintenance)) {
                    Ok(row) => self.changed(vec![row]),
                    Err(error) => self.fail(error),
                }
            }
            Request::Changes => self.rows(ledger.change_rows(now).into_iter().map(Answer::Differs)),
            Request::File => match ledger.file_row() {
                Some(file) => self.rows([Answer::File(Box::new(file))]),
                None => self.fail("this gateway runs without a configuration file".into()),
            },
            Request::Drain { server } => match ledger.drain_row(engine, now, &server) {
                Ok(row) => self.rows([Answer::Drain(row)]),
                Err(error) => self.fail(error),
            },
            Request::Set { object: target, values, deadline_ms } => {
                let deadline = deadline_ms.map_or(Deadline::Keep, |within| {
                    within.map_or(Deadline::Never, |ms| Deadline::After(Duration::from_millis(ms)))
                });
                self.go_on(Waiting::Asks(Ask::Set { target, values, deadline }), floor);
            }
            Request::Add { object: target, values } => self.go_on(Waiting::Asks(Ask::Add { target, values }), floor),
            Request::Remove { object: target, now } => self.go_on(Waiting::Asks(Ask::Remove { target, now }), floor),
            Request::Drop { object: target, key } => self.go_on(Waiting::Asks(Ask::Drop { target, key }), floor),
            Request::Reload { partial, now } => {
                let order = ReloadOrder { partial, now, who: Some(self.who) };
                self.ticket = Some(desk(outside).ask(order));
            }
            Request::Sync => match pair {
                Some(pair) => self.rows([Answer::Sync(Box::new(pair.row(engine, now)))]),
                None => self.fail(NO_PAIR.into()),
            },
            Request::Role { to, begun } => match pair {
                Some(pair) => match pair.command(engine, ledger, (now, self.who), (to, begun)) {
                    Ok(row) => self.rows([Answer::Sync(Box::new(row))]),
                    Err(why) => self.fail(why),
                },
                None => self.fail(NO_PAIR.into()),
            },
            Request::Token => match outside.http.listen {
                Some(listen) => {
                    let token = outside.http.token.text().to_owned();
                    self.rows([Answer::Token(TokenRow { token, page: format!("http://{listen}/") })]);
                }
                None => self.fail("nothing is served over HTTP: set `listen` of [http]".into()),
            },
            Request::Configuration => {
                let objects = listing::objects(ledger.in_force());
                self.rows(objects.iter().map(|object| Answer::Object(Box::new(ObjectRow::new(object)))));
            }
        }
    }

    /// Goes on with a change, as far as that is possible now.
    fn go_on(&mut self, waiting: Waiting, floor: &mut Floor<'_>) {
        let Floor { engine, ledger, now, .. } = floor;
        match waiting {
            Waiting::Asks(ask) => match ledger.ask(engine, *now, self.who, &ask) {
                Ok(Reply::Done(rows)) => self.changed(rows),
                Ok(Reply::Ordered(number)) => self.waiting = Some(Waiting::Order(number)),
                Ok(Reply::Busy) => self.waiting = Some(Waiting::Asks(ask)),
                Err(error) => self.fail(error),
            },
            Waiting::Order(number) => match ledger.take_outcome(number) {
                Some(Ok(rows)) => self.changed(rows),
                Some(Err(error)) => self.fail(error),
                None => self.waiting = Some(Waiting::Order(number)),
            },
        }
    }

    fn changed(&mut self, rows: Vec<ChangedRow>) {
        self.rows(rows.into_iter().map(|row| Answer::Changed(Box::new(row))));
    }

    fn explain(&mut self, engine: &Engine, now: Instant, packet: PacketWords) {
        let explanation = explain(engine, now, &packet);
        self.rows([Answer::Explanation(Box::new(Explained { service: None, packet, explanation }))]);
    }

    /// Explains the next packet of a flow's client.
    fn explain_flow(&mut self, engine: &Engine, now: Instant, flow: FlowId) {
        match engine.flow_row(now, flow).as_ref().and_then(PacketWords::next_of) {
            Some(packet) => self.explain(engine, now, packet),
            None => self.fail(format!("{}; `eqctl flows` lists them", Refused::NoSuchFlow(flow))),
        }
    }

    /// Goes on with a request; returns what is left to do.
    fn work(&mut self, task: Task, floor: &mut Floor<'_>) -> Option<Task> {
        let (now, pending) = (floor.now, &mut self.pending);
        match task {
            Task::Flows(walk) => walk.go_on(floor.engine, now, pending).map(Task::Flows),
            Task::Sorted(walk) => walk.go_on(floor.engine, now, pending).map(Task::Sorted),
            Task::Client(walk) => walk.go_on(floor.engine, now, pending).map(Task::Client),
            Task::Kill(walk) => match walk.go_on(floor) {
                Ok(walk) => Some(Task::Kill(walk)),
                Err(row) => {
                    if row.changed {
                        floor.ledger.note(now, self.who, &row.text);
                    }
                    self.rows([Answer::Killed(Box::new(row))]);
                    None
                }
            },
            Task::Sticky(walk) => {
                match walk.go_on(floor, pending) {
                    Ok(walk) => return Some(Task::Sticky(walk)),
                    Err(End::Listed) => {}
                    Err(End::Failed(why)) => self.fail(why.into()),
                    Err(End::Cleared(row)) => {
                        if row.changed {
                            floor.ledger.note(now, self.who, &row.text);
                        }
                        self.rows([Answer::Cleared(Box::new(row))]);
                    }
                }
                None
            }
        }
    }

    /// Ends a flow.
    fn kill(&mut self, engine: &mut Engine, ledger: &mut Ledger, now: Instant, flow: FlowId) {
        let before = engine.flow_row(now, flow);
        match (engine.apply(now, Change::Kill { flow }), before) {
            (Ok(()), Some(before)) => {
                let row = killed(before);
                ledger.note(now, self.who, &row.text);
                self.rows([Answer::Killed(Box::new(row))]);
            }
            (Err(refused), _) => self.fail(format!("{refused}; `eqctl flows` lists them")),
            (Ok(()), None) => self.rows([]),
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
        (self.task, self.waiting) = (None, None);
        self.input = Vec::new();
        self.refused = true;
        self.fail(message);
    }
}

#[cfg(test)]
mod tests;
