//! Three small web servers. Each answers with its name; `/health` with its health, and `/film` with 64 KiB of an answer that does not end.

use equipoise::gateway::netns::Namespace;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a thread looks whether it is to stop.
const NAP: Duration = Duration::from_millis(20);

/// What a server is like at the moment.
#[derive(Default)]
struct State {
    stops: AtomicBool,
    is_ill: AtomicBool,
}

/// A server; it ends with its connections when it is dropped.
pub struct Server {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts server `web-N` at 10.0.2.1N, port 8080.
    pub fn start(namespace: &Namespace, n: usize) -> Server {
        let listener = namespace.run(|| TcpListener::bind((format!("10.0.2.1{n}"), 8080))).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            while !shared.stops.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&shared);
                        // A client that goes away is none of our business.
                        open.push(std::thread::spawn(move || drop(serve(stream, n, &shared))));
                    }
                    Err(_) => std::thread::sleep(NAP / 4),
                }
            }
            open.into_iter().for_each(|thread| thread.join().unwrap());
        });
        Server { state, thread: Some(thread) }
    }

    /// From now on, or no more, its health check fails.
    pub fn is_ill(&self, is_ill: bool) {
        self.state.is_ill.store(is_ill, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stops.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "a server panicked");
    }
}

fn serve(mut stream: TcpStream, n: usize, state: &State) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"GET /film ") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")?;
        stream.write_all(&[b'x'; 1 << 16])?;
        stream.set_read_timeout(Some(NAP))?;
        // Until the client closes the connection.
        while !state.stops.load(Ordering::Relaxed) {
            if matches!(stream.read(&mut byte), Ok(0)) {
                break;
            }
        }
        return Ok(());
    }
    let is_ill = head.starts_with(b"GET /health ") && state.is_ill.load(Ordering::Relaxed);
    let (status, body) =
        if is_ill { ("503 Service Unavailable", "ill\n".into()) } else { ("200 OK", format!("web-{n}\n")) };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}
