//! A real HTTP/1.1 server in a namespace, which responds with its own name and the client's address.

use super::options::DemoError;
use super::world::{HEALTH, SERVER_PORT};
use crate::gateway::netns::Namespace;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The most connections at a time; further ones are closed at once.
const MOST_CONNECTIONS: usize = 1100;
/// The longest request head, in bytes.
const LONGEST_HEAD: usize = 8192;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(30);
/// How often an idle connection checks whether the server is stopping.
const LOOK: Duration = Duration::from_millis(100);

/// A server; it ends when stopped or dropped.
pub(super) struct Server {
    shared: Arc<Shared>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    answered: AtomicU64,
    stop: AtomicBool,
}

impl Server {
    /// Starts a server named after the namespace.
    pub(super) fn start(namespace: &Namespace) -> Result<Server, DemoError> {
        let name = namespace.label();
        let fail = |e: &dyn std::fmt::Display| DemoError::new(format!("starting the HTTP server {name}"), e);
        // One socket for both families.
        let bound = namespace.run(|| TcpListener::bind(("::", SERVER_PORT)));
        let listener = bound.map_err(|e| fail(&e))?.map_err(|e| fail(&e))?;
        let shared = Arc::new(Shared { name: name.into(), answered: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let (inner, socket) = (Arc::clone(&shared), listener.try_clone().map_err(|e| fail(&e))?);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || accept(&socket, &inner));
        Ok(Server { shared, listener, thread: Some(thread.map_err(|e| fail(&e))?) })
    }

    /// Returns the number of requests it has answered.
    pub(super) fn answered(&self) -> (String, u64) {
        (self.shared.name.clone(), self.shared.answered.load(Ordering::Relaxed))
    }

    /// Stops it with all its connections; returns its name and the number of requests it has answered.
    pub(super) fn stop(mut self) -> (String, u64) {
        self.end();
        (self.shared.name.clone(), self.shared.answered.load(Ordering::Relaxed))
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that blocks in accept.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut open: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((stream, peer)) = listener.accept() {
        open.retain(|thread| !thread.is_finished());
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        if open.len() >= MOST_CONNECTIONS {
            continue;
        }
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name(shared.name.clone()).stack_size(128 * 1024);
        // A client that disconnects is not an error.
        open.extend(thread.spawn(move || drop(serve(stream, peer, &shared))));
    }
    for thread in open {
        let _ = thread.join();
    }
}

/// Answers the requests of one connection until it is closed, idle for too long, or the server stops.
fn serve(mut stream: TcpStream, peer: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_nodelay(true)?;
    let (mut head, mut chunk, mut heard) = (Vec::new(), [0; 2048], Instant::now());
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                heard = Instant::now();
                head.extend_from_slice(&chunk[..n]);
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
        while let Some((length, keep)) = request(&head) {
            if length == 0 {
                return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
            // Monitors' requests are not counted as clients' requests.
            let probe = head.strip_prefix(b"GET ").is_some_and(|rest| rest.starts_with(HEALTH.as_bytes()));
            head.drain(..length);
            stream.write_all(answer(&shared.name, peer, keep).as_bytes())?;
            shared.answered.fetch_add(u64::from(!probe), Ordering::Relaxed);
            if !keep {
                return Ok(());
            }
        }
        if shared.stop.load(Ordering::Relaxed) || heard.elapsed() > IDLE {
            return Ok(());
        }
    }
}

/// Returns the length of a complete request without body at the start of `bytes`, and whether to keep the connection;
/// length 0 if there is no such request.
fn request(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let header = |name: &str| request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
            if header("transfer-encoding").is_some() || header("content-length").is_some_and(|h| h.value != b"0") {
                return Some((0, false));
            }
            let close = header("connection").is_some_and(|h| h.value.eq_ignore_ascii_case(b"close"));
            Some((length, request.version == Some(1) && !close))
        }
        Ok(httparse::Status::Partial) if bytes.len() <= LONGEST_HEAD => None,
        _ => Some((0, false)),
    }
}

/// Formats the response: the server's name in a header, and in words with the client's address as the server sees it.
fn answer(name: &str, peer: SocketAddr, keep: bool) -> String {
    let body = body(name, peer);
    let connection = if keep { "keep-alive" } else { "close" };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Server: {name}\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Formats the body of a response.
pub(super) fn body(name: &str, peer: SocketAddr) -> String {
    format!("{name} answers {}\n", SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_http_says() {
        let cases: &[(&str, Option<(usize, bool)>)] = &[
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some((27, true))),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /", Some((27, true))),
            ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", Some((37, false))),
            ("GET / HTTP/1.0\r\n\r\n", Some((18, false))),
            ("GET / HTTP/1.1\r\nHo", None),
            ("", None),
            ("\u{16}\u{3}nonsense\r\n\r\n", Some((0, false))),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", Some((0, false))),
        ];
        for (text, want) in cases {
            assert_eq!(request(text.as_bytes()), *want, "{text:?}");
        }
        assert_eq!(request(&[b'a'; LONGEST_HEAD + 1]), Some((0, false)));
    }

    #[test]
    fn a_mapped_address_is_shown_as_ipv4() {
        assert_eq!(body("server1", "[::ffff:198.51.100.2]:9".parse().unwrap()), "server1 answers 198.51.100.2:9\n");
        assert_eq!(body("server1", "[2001:db8::2]:9".parse().unwrap()), "server1 answers [2001:db8::2]:9\n");
    }
}
