//! Real clients: threads in the client's namespace, one connection per request.

use super::drill::Request;
use super::options::DemoError;
use super::server;
use super::tally::Tally;
use super::world;
use crate::gateway::netns::Namespace;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one step of a request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests per second of all clients together in endless mode.
const GENTLE: u32 = 20;
/// The same during the drill.
const DRILL: u32 = 250;

/// How the clients work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// This many requests, as fast as possible.
    Requests(u64),
    /// At a gentle rate until stopped.
    Gentle,
    /// At a steady rate until stopped, recording each request.
    Drill,
}

impl Pace {
    /// Returns the requests per second of all clients together.
    const fn rate(self) -> Option<u32> {
        match self {
            Pace::Requests(_) => None,
            Pace::Gentle => Some(GENTLE),
            Pace::Drill => Some(DRILL),
        }
    }
}

/// The running clients.
pub(super) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Requests that may still be started.
    left: AtomicU64,
    /// The number of the next request; even ones use IPv4.
    next: AtomicUsize,
    busy: AtomicUsize,
    stop: AtomicBool,
    /// Requests per second of all clients together.
    rate: Option<u32>,
    clients: u32,
    servers: usize,
    tally: Mutex<Tally>,
    /// Every request of a drill.
    noted: Option<Mutex<Vec<Request>>>,
}

impl Clients {
    /// Starts them; they stop by themselves when all requests are done.
    pub(super) fn start(
        namespace: &Namespace,
        clients: u16,
        pace: Pace,
        servers: usize,
        stop: &Arc<AtomicBool>,
    ) -> Result<Clients, DemoError> {
        let clients = usize::from(clients);
        let shared = Arc::new(Shared {
            left: AtomicU64::new(if let Pace::Requests(n) = pace { n } else { u64::MAX }),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(clients),
            stop: AtomicBool::new(false),
            rate: pace.rate(),
            clients: clients as u32,
            servers,
            tally: Mutex::default(),
            noted: (pace == Pace::Drill).then(Mutex::default),
        });
        let mut all = Clients { shared, threads: Vec::with_capacity(clients) };
        for number in 0..clients {
            let (shared, namespace, stop) = (Arc::clone(&all.shared), namespace.clone(), Arc::clone(stop));
            let thread = std::thread::Builder::new().name("client".into()).stack_size(256 * 1024);
            match thread.spawn(move || work(&shared, &namespace, number, &stop)) {
                Ok(thread) => all.threads.push(thread),
                Err(e) => {
                    all.stop();
                    all.join();
                    return Err(DemoError::new(format!("starting client {} of {clients}", number + 1), e));
                }
            }
        }
        Ok(all)
    }

    /// Returns whether all requests are done.
    pub(super) fn done(&self) -> bool {
        self.shared.busy.load(Ordering::Relaxed) == 0
    }

    /// Prevents further requests from being started.
    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Returns the requests answered and failed so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let tally = self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
        (tally.answered(), tally.failed)
    }

    /// Waits for the requests in flight; returns the totals, and each request if they were recorded.
    pub(super) fn join(self) -> (Tally, Vec<Request>) {
        for thread in self.threads {
            let _ = thread.join();
        }
        let tally = self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let noted = self.shared.noted.as_ref();
        let noted = noted.map(|noted| std::mem::take(&mut *noted.lock().unwrap_or_else(PoisonError::into_inner)));
        (tally, noted.unwrap_or_default())
    }
}

fn work(shared: &Shared, namespace: &Namespace, number: usize, stop: &AtomicBool) {
    let over = || shared.stop.load(Ordering::Relaxed) || stop.load(Ordering::Relaxed);
    if let Err(e) = namespace.enter() {
        shared.note(Instant::now(), Err(e.to_string()));
    } else {
        // At a fixed rate, clients take turns.
        let span = |requests: u32| shared.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) * requests / rate);
        let mut next = Instant::now() + span(u32::try_from(number).unwrap_or(0));
        while !over() && take(&shared.left) {
            while Instant::now() < next && !over() {
                std::thread::sleep(Duration::from_millis(20).min(next - Instant::now().min(next)));
            }
            if over() {
                break;
            }
            next += span(shared.clients);
            let v6 = shared.next.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            let began = Instant::now();
            let result = request(world::service_addresses()[usize::from(v6)], shared.servers);
            shared.note(began, result.map(|(server, latency)| (server, v6, latency)));
        }
    }
    shared.busy.fetch_sub(1, Ordering::Relaxed);
}

impl Shared {
    /// Records a request.
    fn note(&self, began: Instant, result: Result<(String, bool, Duration), String>) {
        if let Some(noted) = &self.noted {
            let (server, failure) = match &result {
                Ok((server, ..)) => (Some(server.clone()), None),
                Err(why) => (None, Some(why.clone())),
            };
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.push(Request { began, server, failure });
        }
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok((server, v6, latency)) => tally.answer(&server, v6, latency),
            Err(why) => tally.failure(why),
        }
    }
}

fn take(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}

/// Makes one request over its own connection; returns the server's name and the latency, or what went wrong.
fn request(to: SocketAddr, servers: usize) -> Result<(String, Duration), String> {
    let fail = |what: &str, e: std::io::Error| format!("{what} {to}: {e}");
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|e| fail("connecting to", e))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|e| fail("waiting for", e))?;
    let own = stream.local_addr().map_err(|e| fail("connecting to", e))?;
    let text = format!("GET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).map_err(|e| fail("sending to", e))?;
    let mut bytes = Vec::with_capacity(512);
    stream.read_to_end(&mut bytes).map_err(|e| fail("reading from", e))?;
    let latency = started.elapsed();
    let server = check(&bytes, own, servers).map_err(|why| format!("the response from {to} {why}"))?;
    Ok((server, latency))
}

/// Returns the name of the server that responded, if the response is correct in full: the server saw this client's
/// own address and port.
fn check(bytes: &[u8], own: SocketAddr, servers: usize) -> Result<String, String> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err(format!("ends after {} bytes", bytes.len())),
        Err(e) => return Err(format!("is not HTTP: {e}")),
    };
    if response.code != Some(200) {
        return Err(format!("has status {}", response.code.unwrap_or(0)));
    }
    let name = response.headers.iter().find(|h| h.name == "X-Server").map(|h| h.value).unwrap_or_default();
    let name = (1..=servers).map(|n| format!("server{n}")).find(|n| n.as_bytes() == name);
    let name = name.ok_or("names none of the servers")?;
    let body = String::from_utf8_lossy(&bytes[length..]);
    let want = server::body(&name, own);
    if body != want {
        return Err(format!("says {body:?}, but {want:?} was expected"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_that_names_this_client_counts() {
        let own = "198.51.100.2:4000".parse().unwrap();
        let good = "HTTP/1.1 200 OK\r\nX-Server: server2\r\n\r\nserver2 answers 198.51.100.2:4000\n";
        assert_eq!(check(good.as_bytes(), own, 3), Ok("server2".into()));
        let bad = [
            good.replace("200 OK", "503 Busy"),
            good.replace("server2", "server4"),
            good.replace(":4000", ":4001"),
            good.replace("answers", "answer"),
            good[..good.len() - 1].into(),
            good[..30].into(),
            "nonsense".into(),
        ];
        for text in bad {
            assert!(check(text.as_bytes(), own, 3).is_err(), "{text:?}");
        }
    }
}
