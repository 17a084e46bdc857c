//! The control socket: a Unix socket of mode 0600 with few connections, each served in small steps between packets.
//!
//! It moves bytes; [`crate::control::Session`] interprets them.

use super::peer;
use super::private_socket::{PrivateSocket, SocketError};
use crate::control::{About, Floor, Ledger, Outside, Pairing, Progress, Session, Who};
use crate::engine::Engine;
use crate::time::{Duration, Instant};
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// The most connections at a time.
pub const MOST_CONNECTIONS: usize = 16;
/// Bytes read from a connection at a time.
const READ: usize = 8 * 1024;
/// A connection without a request is closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// A connection that does not take its answer is closed after this time: a pager may have been left open.
const STUCK: Duration = Duration::from_secs(600);
/// If all places are taken, a connection without progress for this long makes room.
const YIELDS: Duration = Duration::from_secs(1);
/// Pause until pending connections are accepted again, after the system had no room for one.
const RETRY: Duration = Duration::from_millis(100);

/// The control socket with its connections.
#[derive(Debug)]
pub(super) struct ControlServer {
    socket: PrivateSocket,
    connections: [Option<Connection>; MOST_CONNECTIONS],
    first_token: usize,
    /// When to accept again. mio reports a pending connection only once.
    retry: Option<Instant>,
    /// Whether the failure to accept has been logged.
    complained: bool,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    session: Session,
    out: Vec<u8>,
    sent: usize,
    readable: bool,
    writable: bool,
    progress: Progress,
    /// When it last read, wrote or worked.
    moved: Instant,
}

impl ControlServer {
    /// Serves whoever connects to the socket.
    pub(super) fn new(socket: PrivateSocket) -> Self {
        ControlServer { socket, connections: Default::default(), first_token: 0, retry: None, complained: false }
    }

    /// Listens at `path`; see [`PrivateSocket::bind`].
    pub(super) fn bind(path: &Path) -> Result<Self, SocketError> {
        PrivateSocket::bind(path).map(ControlServer::new)
    }

    /// Returns its socket.
    pub(super) fn socket(&mut self) -> &mut PrivateSocket {
        &mut self.socket
    }

    /// Returns where it listens.
    pub(super) fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Registers the listener under `token`; connections are registered under the tokens after it.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.first_token = token.0 + 1;
        registry.register(self.socket.listener(), token, Interest::READABLE)
    }

    /// Accepts pending connections. If all places are taken, the one without progress for longest makes room; if all are
    /// at work, the new one is closed with an error message.
    pub(super) fn accept(&mut self, registry: &Registry, about: &Arc<About>, now: Instant) {
        self.retry = None;
        loop {
            match self.socket.listener().accept() {
                Ok((stream, _)) => self.admit(stream, registry, about, now),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.complained = false;
                    return;
                }
                // Out of file descriptors or memory: the connection stays pending.
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        log::warn!("control socket: cannot accept a connection: {error}; retrying until it works");
                    }
                    self.retry = Some(now + RETRY);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut stream: UnixStream, registry: &Registry, about: &Arc<About>, now: Instant) {
        let Some(place) = self.room(now) else {
            let text = format!("{MOST_CONNECTIONS} connections are open already; close one and try again");
            let _ = writeln!(stream, "{{\"error\":{{\"message\":\"{text}\"}}}}");
            return;
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(&mut stream, Token(self.first_token + place), interest) {
            log::warn!("control socket: cannot watch a connection: {error}");
            return;
        }
        let who = peer::who(&stream).unwrap_or_else(|error| {
            log::warn!("control socket: cannot find out who connected: {error}");
            Who { uid: u32::MAX, pid: 0 }
        });
        self.connections[place] = Some(Connection {
            stream,
            session: Session::new(Arc::clone(about), who),
            out: Vec::new(),
            sent: 0,
            readable: true,
            writable: true,
            progress: Progress::Idle,
            moved: now,
        });
    }

    /// Returns a free place, or that of the connection that has been without progress for longest.
    fn room(&self, now: Instant) -> Option<usize> {
        let waits = |place: &usize| self.connections[*place].as_ref().map(|it| it.moved);
        let place = (0..MOST_CONNECTIONS).min_by_key(waits)?;
        waits(&place).is_none_or(|moved| now.since(moved) >= YIELDS).then_some(place)
    }

    /// Returns when [`ControlServer::work`] or [`ControlServer::accept`] has something to do without an event.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let ends = self.connections.iter().flatten().map(Connection::end);
        ends.chain(self.retry).min()
    }

    /// Returns whether pending connections should be accepted without an event.
    pub(super) fn retries(&self, now: Instant) -> bool {
        self.retry.is_some_and(|retry| retry <= now)
    }

    /// Records that a connection is readable or writable again.
    pub(super) fn ready(&mut self, token: Token, readable: bool, writable: bool) {
        let place = token.0.wrapping_sub(self.first_token);
        if let Some(Some(connection)) = self.connections.get_mut(place) {
            connection.readable |= readable;
            connection.writable |= writable;
        }
    }

    /// Does one step of work for each connection; returns true if more could be done at once.
    pub(super) fn work(
        &mut self,
        (engine, ledger, pair): (&mut Engine, &mut Ledger, Option<Pairing<'_>>),
        now: Instant,
        outside: &Outside,
    ) -> bool {
        let mut floor = Floor { engine, ledger, now, outside, pair };
        let mut busy = false;
        for place in &mut self.connections {
            let Some(connection) = place else { continue };
            match connection.work(&mut floor) {
                Ok(_) if connection.end() <= now => *place = None,
                Ok(more) => busy |= more,
                Err(End) => *place = None,
            }
        }
        busy
    }
}

/// The connection has ended.
struct End;

impl Connection {
    /// Returns when it is closed if nothing happens.
    fn end(&self) -> Instant {
        self.moved + if self.sent < self.out.len() { STUCK } else { IDLE }
    }

    fn work(&mut self, floor: &mut Floor<'_>) -> Result<bool, End> {
        let now = floor.now;
        if self.sent < self.out.len() {
            if self.writable {
                self.moved = now;
                self.write()?;
            }
            return Ok(self.writable);
        }
        (self.sent, self.out) = (0, std::mem::take(&mut self.out));
        self.out.clear();
        match self.progress {
            Progress::Close => return Err(End),
            Progress::Idle if !self.readable => return Ok(false),
            Progress::Idle => self.read()?,
            Progress::More | Progress::Wait => {}
        }
        self.progress = self.session.poll_output(floor, &mut self.out);
        if self.progress == Progress::Wait && self.out.is_empty() {
            return Ok(false);
        }
        self.moved = now;
        self.write()?;
        Ok(self.writable && (self.readable || self.progress != Progress::Idle || self.sent < self.out.len()))
    }

    fn read(&mut self) -> Result<(), End> {
        let mut bytes = [0; READ];
        match self.stream.read(&mut bytes) {
            Ok(0) => {
                self.readable = false;
                self.session.finish();
            }
            Ok(read) => self.session.feed(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(End),
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), End> {
        while self.writable && self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(End),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(End),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with its poll, an engine, and clients that connect.
    struct Lab {
        dir: tempfile::TempDir,
        poll: mio::Poll,
        server: ControlServer,
        engine: Engine,
        ledger: Ledger,
        about: Arc<About>,
    }

    impl Lab {
        fn new() -> Lab {
            let dir = tempfile::tempdir().unwrap();
            let poll = mio::Poll::new().unwrap();
            let mut server = ControlServer::bind(&dir.path().join("control.sock")).unwrap();
            server.register(poll.registry(), Token(0)).unwrap();
            let settings = crate::config::Settings::default();
            let engine = Engine::try_new(&settings).unwrap();
            let about = Arc::new(About::new(&settings, Instant::ZERO, 1));
            Lab { dir, poll, server, engine, ledger: Ledger::new(None, settings), about }
        }

        /// A client whose connection is accepted at `now`.
        fn connect(&mut self, now: Instant) -> std::os::unix::net::UnixStream {
            let client = std::os::unix::net::UnixStream::connect(self.dir.path().join("control.sock")).unwrap();
            client.set_nonblocking(true).unwrap();
            self.server.accept(self.poll.registry(), &self.about, now);
            client
        }

        fn work(&mut self, now: Instant) {
            while self.server.work((&mut self.engine, &mut self.ledger, None), now, &Outside::default()) {}
        }
    }

    /// What a client reads: its text and whether the connection has ended.
    fn read(mut client: &std::os::unix::net::UnixStream) -> (String, bool) {
        let mut bytes = Vec::new();
        let ended = client.read_to_end(&mut bytes).is_ok();
        (String::from_utf8(bytes).unwrap(), ended)
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_connection_without_a_request_is_closed_after_a_minute() {
        let mut lab = Lab::new();
        let client = lab.connect(seconds(5));
        lab.work(seconds(5));
        assert_eq!(lab.server.poll_timeout(), Some(seconds(65)));
        lab.work(seconds(64));
        assert_eq!(read(&client), (String::new(), false));
        lab.work(seconds(65));
        assert!(read(&client).1 && lab.server.poll_timeout().is_none());
    }

    #[test]
    fn the_connection_without_progress_for_longest_makes_room() {
        let mut lab = Lab::new();
        let mut clients: Vec<_> = (0..MOST_CONNECTIONS as u64).map(|_| lab.connect(seconds(1))).collect();
        lab.work(seconds(1));
        let (text, ended) = read(&lab.connect(seconds(1)));
        assert!(ended && text.contains("16 connections are open already"), "all have just come: {text}");
        writeln!(&clients[0]).unwrap(); // an empty line is no request
        lab.server.ready(Token(1), true, true);
        lab.work(seconds(2));
        clients.push(lab.connect(seconds(2)));
        let ended: Vec<usize> = (1..clients.len()).filter(|n| read(&clients[*n]).1).collect();
        assert_eq!(ended, [1], "the first is at work, and of the others the oldest goes");
    }
}
