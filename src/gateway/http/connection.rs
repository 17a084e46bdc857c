//! One connection: its bytes, and how long it may take for them.

use crate::web::request::{MOST_BODY, MOST_HEAD};
use crate::web::{Read, Request, Response, View, request};
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

/// Bytes kept of what a client sends: a request, and the beginning of the next.
const MOST_INPUT: usize = MOST_HEAD + MOST_BODY;
/// How long a request may take to arrive, from its first byte or the connection on.
const REQUEST: Duration = Duration::from_secs(5);
/// How long a connection may stay open without a request.
const IDLE: Duration = Duration::from_secs(90);
/// How long a response may take to be read.
const RESPONSE: Duration = Duration::from_secs(30);
/// How long the event loop may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The same where the question is whether it does.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How long a client may go on sending after its last response.
const CLOSING: Duration = Duration::from_secs(1);
/// If all places are taken, one that is older than this in what it does makes room.
pub(super) const YIELDS: Duration = Duration::from_secs(1);

/// What a connection waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wait {
    /// What the loop gathers.
    View(View),
    /// The answer to the line of this number.
    Line(u64),
}

/// What a connection does.
#[derive(Debug)]
enum Phase {
    /// The client has not begun another request.
    Idle,
    /// The client sends a request.
    Reading,
    /// The answer is not there yet.
    Waiting(Wait),
    /// The response has been sent, and the client may still be sending.
    Closing,
    /// The response is being sent: its head, the response, and how much of both has been sent.
    Writing(Vec<u8>, Response, usize),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// Since when it does what it does.
    since: Instant,
    input: Vec<u8>,
    readable: bool,
    writable: bool,
    /// Whether it stays open after the response.
    stays_open: bool,
    /// Whether only the head of the response is sent.
    is_head: bool,
    /// Whether the client has finished sending.
    ended: bool,
}

/// The connection is over.
#[derive(Debug)]
pub(super) struct End;

impl Connection {
    pub(super) fn new(stream: TcpStream, now: Instant) -> Connection {
        Connection {
            stream,
            phase: Phase::Reading,
            since: now,
            input: Vec::new(),
            readable: true,
            writable: true,
            stays_open: true,
            is_head: false,
            ended: false,
        }
    }

    pub(super) fn ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Returns what it waits for.
    pub(super) fn waits_for(&self) -> Option<&Wait> {
        if let Phase::Waiting(wait) = &self.phase { Some(wait) } else { None }
    }

    /// Returns since when it may make room for another one; none while it waits for the loop.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (!matches!(self.phase, Phase::Waiting(_))).then_some(self.since)
    }

    /// Returns when it has taken too long.
    pub(super) fn deadline(&self) -> Instant {
        self.since
            + match self.phase {
                Phase::Idle => IDLE,
                Phase::Reading => REQUEST,
                Phase::Waiting(Wait::View(View::Health | View::Ready)) => SIGN_OF_LIFE,
                Phase::Waiting(_) => ANSWER,
                Phase::Closing => CLOSING,
                Phase::Writing(..) => RESPONSE,
            }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        (self.phase, self.since) = (phase, now);
    }

    /// Reads and forgets what a client still sends: otherwise the system would reset the connection, and the response might
    /// be lost.
    fn drain(&mut self) -> Result<(), End> {
        let mut bytes = [0; 4096];
        // What is more than a few of these is left to the reset.
        for _ in 0..16 {
            match io::Read::read(&mut self.stream, &mut bytes) {
                Ok(0) => return Err(End),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(End),
            }
        }
        Err(End)
    }

    /// Reads what has come; returns the next request, if it is complete.
    pub(super) fn read(&mut self, now: Instant) -> Result<Option<Box<Request>>, End> {
        match self.phase {
            Phase::Idle | Phase::Reading => {}
            Phase::Closing if self.readable => return self.drain().map(|()| None),
            Phase::Closing | Phase::Waiting(_) | Phase::Writing(..) => return Ok(None),
        }
        while self.readable && self.input.len() < MOST_INPUT {
            let mut bytes = [0; 4096];
            let room = (MOST_INPUT - self.input.len()).min(bytes.len());
            match io::Read::read(&mut self.stream, &mut bytes[..room]) {
                Ok(0) => (self.readable, self.ended) = (false, true),
                Ok(read) => self.input.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(End),
            }
        }
        if self.input.is_empty() {
            return if self.ended { Err(End) } else { Ok(None) };
        }
        if matches!(self.phase, Phase::Idle) {
            self.enter(Phase::Reading, now);
        }
        match request::read(&self.input) {
            Read::Partial if self.ended => Err(End),
            Read::Partial => Ok(None),
            Read::Whole(request, len) => {
                self.input.drain(..len);
                self.stays_open = request.keep_alive && !self.ended;
                self.is_head = request.method == request::Method::Head;
                Ok(Some(request))
            }
            Read::Bad(status, why) => {
                (self.stays_open, self.is_head) = (false, false);
                self.respond(Response::text(status, why), now);
                Ok(None)
            }
        }
    }

    pub(super) fn wait(&mut self, wait: Wait, now: Instant) {
        self.enter(Phase::Waiting(wait), now);
    }

    /// Begins to send a response.
    pub(super) fn respond(&mut self, response: Response, now: Instant) {
        self.enter(Phase::Writing(response.head(self.stays_open), response, 0), now);
    }

    /// Returns the status of the response that is being sent.
    pub(super) fn sends(&self) -> Option<u16> {
        if let Phase::Writing(_, response, _) = &self.phase { Some(response.status) } else { None }
    }

    /// Sends what the client takes; returns whether the response is complete, and another request may follow.
    pub(super) fn write(&mut self, now: Instant) -> Result<bool, End> {
        let Phase::Writing(head, response, sent) = &mut self.phase else { return Ok(false) };
        let body = if self.is_head { &[] } else { response.body.bytes() };
        let len = head.len() + body.len();
        while self.writable && *sent < len {
            let rest = if *sent < head.len() { &head[*sent..] } else { &body[*sent - head.len()..] };
            match self.stream.write(rest) {
                Ok(0) => return Err(End),
                Ok(written) => *sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(End),
            }
        }
        if *sent < len {
            return Ok(false);
        }
        if !self.stays_open {
            self.stream.shutdown(std::net::Shutdown::Write).map_err(|_| End)?;
            self.enter(Phase::Closing, now);
            return Ok(true);
        }
        self.enter(Phase::Idle, now);
        Ok(true)
    }
}
