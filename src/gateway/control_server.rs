//! The control socket: a Unix socket of mode 0600 with few connections, each served in small steps between packets.
//!
//! It moves bytes; [`crate::control::Session`] interprets them.

use crate::control::{About, Outside, Progress, Session};
use crate::engine::Engine;
use crate::time::Instant;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most connections at a time.
pub const MOST_CONNECTIONS: usize = 16;
/// Bytes read from a connection at a time.
const READ: usize = 8 * 1024;

/// Why the control socket could not be opened, and how to fix it.
#[derive(Debug)]
pub struct SocketError(String);

impl std::fmt::Display for SocketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SocketError {}

/// The control socket with its connections.
#[derive(Debug)]
pub(super) struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file: another process may have replaced it since.
    identity: (u64, u64),
    connections: [Option<Connection>; MOST_CONNECTIONS],
    first_token: usize,
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
}

impl ControlServer {
    /// Listens at `path`, replacing the socket of a killed run; fails if another gateway answers there.
    pub(super) fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |doing: &str, error: io::Error| {
            SocketError(format!(
                "cannot {doing} the control socket {}: {error}; make sure that its directory exists and may be \
                 written, or choose another path (gateway.control-socket)",
                path.display()
            ))
        };
        check_free(path)?;
        // Bound under a temporary name, so that nobody can connect before the mode is set.
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(format!(".{}", std::process::id()));
        let hidden = PathBuf::from(hidden);
        let _ = fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(|error| failed("bind", error))?;
        let placed = fs::set_permissions(&hidden, Permissions::from_mode(0o600))
            .and_then(|()| fs::symlink_metadata(&hidden))
            .and_then(|meta| fs::rename(&hidden, path).map(|()| (meta.dev(), meta.ino())));
        let identity = placed.map_err(|error| {
            let _ = fs::remove_file(&hidden);
            failed("place", error)
        })?;
        Ok(ControlServer { listener, path: path.to_owned(), identity, connections: Default::default(), first_token: 0 })
    }

    /// Registers the listener under `token`; connections are registered under the tokens after it.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.first_token = token.0 + 1;
        registry.register(&mut self.listener, token, Interest::READABLE)
    }

    /// Accepts pending connections; excess ones are closed with an error message.
    pub(super) fn accept(&mut self, registry: &Registry, about: &Arc<About>) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return log::warn!("control socket: cannot accept a connection: {error}"),
            };
            let Some(place) = self.connections.iter().position(Option::is_none) else {
                let text = format!("{MOST_CONNECTIONS} connections are open already; close one and try again");
                let _ = writeln!(stream, "{{\"error\":{{\"message\":\"{text}\"}}}}");
                continue;
            };
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = registry.register(&mut stream, Token(self.first_token + place), interest) {
                log::warn!("control socket: cannot watch a connection: {error}");
                continue;
            }
            self.connections[place] = Some(Connection {
                stream,
                session: Session::new(Arc::clone(about)),
                out: Vec::new(),
                sent: 0,
                readable: true,
                writable: true,
                progress: Progress::Idle,
            });
        }
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
    pub(super) fn work(&mut self, engine: &mut Engine, now: Instant, outside: &Outside) -> bool {
        let mut busy = false;
        for place in &mut self.connections {
            let Some(connection) = place else { continue };
            match connection.work(engine, now, outside) {
                Ok(more) => busy |= more,
                Err(End) => *place = None,
            }
        }
        busy
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove the control socket {}: {error}", self.path.display());
        }
    }
}

/// The connection has ended.
struct End;

impl Connection {
    fn work(&mut self, engine: &mut Engine, now: Instant, outside: &Outside) -> Result<bool, End> {
        if self.sent < self.out.len() {
            self.write()?;
            return Ok(self.writable);
        }
        (self.sent, self.out) = (0, std::mem::take(&mut self.out));
        self.out.clear();
        match self.progress {
            Progress::Close => return Err(End),
            Progress::Idle if !self.readable => return Ok(false),
            Progress::Idle => self.read()?,
            Progress::More => {}
        }
        self.progress = self.session.poll_output(engine, now, outside, &mut self.out);
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

/// Checks that nobody listens at `path`, and that the file there, if any, may be replaced.
fn check_free(path: &Path) -> Result<(), SocketError> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(SocketError(format!(
            "{} exists and is not a socket: move it away, or choose another path (gateway.control-socket)",
            path.display()
        )));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(SocketError(format!(
            "another gateway is running: it answers at {}; stop it, or give this one a device, route-table, \
             rule-priority and control-socket of its own",
            path.display()
        ))),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_private_replaces_a_dead_one_and_is_removed_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let server = ControlServer::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(ControlServer::bind(&path).unwrap_err().to_string().contains("another gateway is running"));
        drop(server);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(ControlServer::bind(&path).unwrap_err().to_string().contains("not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let first = ControlServer::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = ControlServer::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }
}
