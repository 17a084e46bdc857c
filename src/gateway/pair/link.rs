//! One connection to the peer: bytes between the socket and the node.

use super::nonce;
use crate::engine::Engine;
use crate::sync::Node;
use crate::time::{Duration, Instant};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};

/// Bytes read between two batches of packets.
const READ: usize = 64 << 10;
/// The same while this gateway is active: some bytes ask for more work than others.
const READ_ACTIVE: usize = 16 << 10;
/// How long the peer may take to accept a connection.
const CONNECTING: Duration = Duration::from_secs(3);

/// What a step has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moved {
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Whether there is more to do at once.
    pub(super) more: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    begun: Instant,
    /// Whether the node knows of it.
    is_open: bool,
    readable: bool,
    writable: bool,
    out: Vec<u8>,
    sent: usize,
    input: Box<[u8]>,
}

impl Link {
    /// Makes one of a connection that is being made; none if it cannot be watched.
    pub(super) fn new(mut stream: TcpStream, registry: &Registry, token: Token, now: Instant) -> Option<Link> {
        // Small frames count: each is an acknowledgement, or a flow that the peer is to know soon.
        let _ = stream.set_nodelay(true);
        let registered = registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE);
        registered.inspect_err(|error| log::warn!("sync: cannot watch a connection: {error}")).ok()?;
        Some(Link::of(stream, now))
    }

    /// Makes one of the connection of a peer that has proved itself, and of which the node knows.
    pub(super) fn of_peer(stream: TcpStream, now: Instant) -> Link {
        Link { is_open: true, ..Link::of(stream, now) }
    }

    fn of(stream: TcpStream, now: Instant) -> Link {
        Link {
            stream,
            begun: now,
            is_open: false,
            readable: true,
            writable: true,
            out: Vec::new(),
            sent: 0,
            input: vec![0; READ].into_boxed_slice(),
        }
    }

    /// Returns whether the connection was made.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Records that there is news of it.
    pub(super) fn ready(&mut self) {
        (self.readable, self.writable) = (true, true);
    }

    /// Returns whether it takes no more output at the moment.
    pub(super) fn is_blocked(&self) -> bool {
        !self.writable
    }

    /// Moves what there is to move, at most about 64 KiB each way.
    ///
    /// # Errors
    /// Why the connection has ended.
    pub(super) fn work(&mut self, node: &mut Node, engine: &mut Engine, now: Instant) -> Result<Moved, String> {
        if !self.is_open && !self.open(node, engine, now)? {
            return Ok(Moved::default());
        }
        let mut moved = Moved::default();
        let received = self.read(if node.role().is_active() { READ_ACTIVE } else { READ })?;
        if received > 0 {
            moved.received = received as u64;
            node.handle_input(now, engine, &self.input[..received]);
        }
        let is_due = node.poll_timeout(now, !self.writable).is_some_and(|due| due <= now);
        if self.writable && (received > 0 || is_due) && self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            node.poll_output(now, engine, &mut self.out);
        }
        moved.sent = self.write()?;
        moved.more = self.readable && received > 0;
        Ok(moved)
    }

    /// Tells the node, once the connection is made; returns whether it is.
    fn open(&mut self, node: &mut Node, engine: &mut Engine, now: Instant) -> Result<bool, String> {
        if let Some(error) = self.stream.take_error().map_err(|error| error.to_string())? {
            return Err(error.to_string());
        }
        match self.stream.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                if now.since(self.begun) >= CONNECTING {
                    return Err("it does not answer".into());
                }
                return Ok(false);
            }
            Err(error) => return Err(error.to_string()),
        }
        node.connected(now, engine, nonce().ok_or("there is no random number")?);
        self.is_open = true;
        Ok(true)
    }

    fn read(&mut self, most: usize) -> Result<usize, String> {
        let mut filled = 0;
        while self.readable && filled < most {
            match self.stream.read(&mut self.input[filled..most]) {
                // What came before the end counts: the end is read again.
                Ok(0) if filled > 0 => break,
                Ok(0) => return Err("the peer has closed it".into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(filled)
    }

    fn write(&mut self) -> Result<u64, String> {
        let before = self.sent;
        while self.writable && self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err("it takes nothing".into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok((self.sent - before) as u64)
    }
}

fn broken(error: &io::Error) -> String {
    error.to_string()
}
