//! The gateway's side of one control connection, sans-IO: bytes in, bytes out, bounded both ways.
//!
//! It must not know sockets or clocks. Each call of [`Session::poll_output`] does one small piece of
//! work, so that a full table streams between packets and needs no big buffer.

use super::protocol::{Answer, DeviceCounters, Done, Failure, PROTOCOL, Request, ServiceRow, Status, Totals};
use crate::balance::{Algorithm, Listen, Protocol};
use crate::config::Settings;
use crate::engine::{Change, Cursor, Engine, FlowQuery, Refused};
use crate::ids::ServerId;
use crate::time::Instant;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Most bytes of requests that wait in a session; a line may not be longer.
pub const MAX_INPUT: usize = 64 * 1024;
/// Most bytes that a call of [`Session::poll_output`] appends, unless one row alone is longer.
pub const CHUNK: usize = 64 * 1024;
/// Rows of the table that a call asks for: enough to fill half a chunk, about 0.1 ms of work.
const ROWS: usize = 128;

/// What a session tells of the gateway beside the engine; made once a gateway, shared by its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// When the gateway started, on the engine's clock.
    pub started: Instant,
    /// The gateway's process ID.
    pub pid: u32,
    /// Name of its TUN device.
    pub device: String,
    /// MTU of the device in bytes.
    pub mtu: u16,
    /// Whether segmentation offload is in force; the settings' wish, until the gateway knows better.
    pub offload: bool,
    services: Vec<ServiceRow>,
}

impl About {
    /// Takes from the settings what a session tells.
    pub fn new(settings: &Settings, started: Instant, pid: u32) -> Self {
        let services = settings.services.iter().map(|service| ServiceRow {
            service: service.name.clone(),
            listen: service.listen.iter().map(listen_text).collect(),
            pool: settings.pools[service.pool.0 as usize].name.clone(),
            algorithm: match service.algorithm {
                Algorithm::RoundRobin => "round-robin".into(),
            },
            servers: 0,
            servers_weighted: 0,
            pool_flows: 0,
        });
        About {
            started,
            pid,
            device: settings.gateway.device.clone(),
            mtu: settings.gateway.mtu,
            offload: settings.gateway.offload,
            services: services.collect(),
        }
    }
}

/// Where a service listens, as configurations write it: `[2001:db8::1]:5000-5009/udp`.
fn listen_text(listen: &Listen) -> String {
    let Listen { address, protocol, first_port, last_port } = *listen;
    let range = if last_port > first_port { format!("-{last_port}") } else { String::new() };
    match (protocol, address) {
        (Protocol::Icmp, _) => format!("{address}/icmp"),
        (_, IpAddr::V4(_) | IpAddr::V6(_)) => {
            format!("{}{range}/{}", SocketAddr::new(address, first_port), protocol.name())
        }
    }
}

/// How a session goes on after a call of [`Session::poll_output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do: write what came out, then call again, even if nothing came out.
    More,
    /// All that was asked is answered; call again after the next [`Session::feed`].
    Idle,
    /// Write what came out, then close the connection.
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

/// One connection of the control socket, without the socket.
///
/// The driver feeds what it reads, and calls [`Session::poll_output`] whenever all that came out
/// before has been written.
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
    /// Makes the session of a fresh connection.
    pub fn new(about: Arc<About>) -> Self {
        Session { about, input: Vec::new(), pending: VecDeque::new(), walk: None, ended: false, refused: false }
    }

    /// Takes bytes that the client sent. More than [`MAX_INPUT`] bytes of requests in waiting are
    /// answered with an error and the end of the connection.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.refused {
            return;
        }
        if self.input.len() + bytes.len() > MAX_INPUT {
            self.refuse(format!("more than {} KiB of requests are waiting, or one line is longer", MAX_INPUT / 1024));
        } else {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Takes note that the client will send no more; what it asked is still answered, and then
    /// [`Progress::Close`] follows.
    pub fn finish(&mut self) {
        // A last line without its newline is a request all the same: `printf '{...}' | nc -N -U`.
        if !self.ended && self.input.last().is_some_and(|last| *last != b'\n') {
            self.input.push(b'\n');
        }
        self.ended = true;
    }

    /// Does a bounded piece of the work that was asked and appends its answer, whole lines of at
    /// most [`CHUNK`] bytes in all, to `out`.
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

    /// Writes answers that wait while there is room, and tells whether all of them are written.
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
            // Without a common language, whatever comes next would be guesswork.
            Err(error) => return self.refuse(format!("cannot read the request: {error}")),
        };
        match request {
            Request::Status => {
                let status = Answer::Status(Box::new(self.status(engine, now)));
                self.rows([status]);
            }
            Request::Flows { query, limit } => {
                let left = limit.unwrap_or(u64::MAX);
                self.walk = Some(Walk { query, from: Cursor::default(), left, rows: 0 });
                self.walk(engine, now);
            }
            Request::Servers => self.rows(engine.servers().into_iter().map(Answer::Server)),
            Request::Services => {
                let services = self.services(engine);
                self.rows(services.into_iter().map(Answer::Service));
            }
            Request::Counters => {
                let totals = Totals { engine: engine.counters(), device: *device };
                self.rows([Answer::Counters(Box::new(totals))]);
            }
            Request::Kill { flow } => self.change(engine, now, Change::Kill { flow }),
            Request::Weight { pool, server, weight } => {
                let place = engine.servers().iter().position(|row| row.pool == pool && row.server == server);
                match place.and_then(|place| u32::try_from(place).ok()) {
                    Some(place) => self.change(engine, now, Change::Weight { server: ServerId(place), weight }),
                    None => self.fail(format!("there is no server {pool}/{server}; `eqctl servers` lists them")),
                }
            }
        }
    }

    /// Goes a bounded part on with the walk over the table.
    fn walk(&mut self, engine: &Engine, now: Instant) {
        let Some(mut walk) = self.walk.take() else { return };
        let most = walk.left.min(ROWS as u64) as usize;
        let mut rows = Vec::with_capacity(most);
        let next = if most == 0 {
            // The limit is used up: a row is looked for only to tell whether there are more.
            let next = engine.flows(now, &walk.query, walk.from, 1, &mut rows);
            if !rows.is_empty() || next.is_none() {
                self.pending.push_back(Answer::Done(Done { rows: walk.rows, more: !rows.is_empty() }));
                return;
            }
            next
        } else {
            engine.flows(now, &walk.query, walk.from, most, &mut rows)
        };
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
            services: self.about.services.len() as u64,
            servers: engine.servers().len() as u64,
            flows: counters.flows,
            max_flows: counters.max_flows,
        }
    }

    fn services(&self, engine: &Engine) -> Vec<ServiceRow> {
        let servers = engine.servers();
        let mut services = self.about.services.clone();
        for service in &mut services {
            for server in servers.iter().filter(|server| server.pool == service.pool) {
                service.servers += 1;
                service.servers_weighted += u64::from(server.weight > 0);
                service.pool_flows += server.flows;
            }
        }
        services
    }

    fn change(&mut self, engine: &mut Engine, now: Instant, change: Change) {
        match engine.apply(now, change) {
            Ok(()) => self.pending.push_back(Answer::Done(Done { rows: 1, more: false })),
            Err(Refused::NoSuchFlow(flow)) => {
                self.fail(format!(
                    "there is no flow {flow}: it has ended, or its place is another flow's by this time"
                ));
            }
            Err(Refused::NoSuchServer(server)) => self.fail(format!("there is no server number {}", server.0)),
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

    /// Answers with an error and takes nothing more.
    fn refuse(&mut self, message: String) {
        self.walk = None;
        self.input = Vec::new();
        self.refused = true;
        self.fail(message);
    }
}
