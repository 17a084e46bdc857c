//! The thread with a loop of its own and real clients on the loopback interface.

use super::*;
use crate::config;
use crate::control::{Ledger, Outside, ServerRow, Status};
use crate::engine::Engine;
use mio::{Events, Poll, Token};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn settings(servers: usize, http: &str) -> Settings {
    let mut text = format!("[http]\n{http}\n[[service]]\nname='web'\nlisten='192.0.2.80:80/tcp'\npool='web'\n");
    text += "[[rule]]\nname='r'\naction='balance'\n[[pool]]\nname='web'\n";
    for n in 0..servers {
        writeln!(text, "[[pool.server]]\nname='web-{n}'\naddress='10.1.{}.{}'", n / 250, n % 250 + 1).unwrap();
    }
    config::parse(&text, "x.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// A free port of the loopback interface.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A loop that does nothing but answer.
struct Lab {
    at: SocketAddr,
    token: String,
    stop: Arc<AtomicBool>,
    /// Whether the loop hangs.
    hangs: Arc<AtomicBool>,
    /// Whether the gateway has let go of the address.
    lets_go: Arc<AtomicBool>,
    error: Arc<std::sync::Mutex<Option<String>>>,
    /// The longest step, in nanoseconds.
    longest: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    fn new(servers: usize) -> Lab {
        Lab::at(servers, free())
    }

    fn at(servers: usize, at: SocketAddr) -> Lab {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut http = Http::start(waker).unwrap();
        let token = http.state().token.text().to_owned();
        let settings = settings(servers, &format!("listen = '{at}'\nremote = true\nnames = 'lb.example'"));
        let mut engine = Engine::try_new(&settings).unwrap();
        let about = Arc::new(About::new(&settings, Instant::ZERO, std::process::id()));
        let mut ledger = Ledger::new(None, settings);
        let flags = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let [stop, hangs, lets_go] = flags.clone();
        let (error, longest) = (Arc::new(std::sync::Mutex::new(None)), Arc::new(AtomicU64::new(0)));
        let seen = (Arc::clone(&error), Arc::clone(&longest));
        let run = move || {
            let (clock, mut events) = (std::time::Instant::now(), Events::with_capacity(8));
            http.begin(ledger.in_force());
            while !stop.load(Ordering::Relaxed) {
                let now = Instant::ZERO + clock.elapsed();
                let due = http.poll_timeout().map(|due| due.since(now));
                poll.poll(&mut events, Some(due.unwrap_or(Duration::MAX).min(Duration::from_millis(20)))).unwrap();
                if hangs.load(Ordering::Relaxed) {
                    continue;
                }
                if lets_go.swap(false, Ordering::Relaxed) {
                    http.let_go();
                }
                let now = Instant::ZERO + clock.elapsed();
                let outside = Outside { http: Arc::clone(http.state()), ..Outside::default() };
                let begun = std::time::Instant::now();
                let floor = &mut Floor { engine: &mut engine, ledger: &mut ledger, now, outside: &outside, pair: None };
                http.work(floor, &about, &Work::default());
                let took = u64::try_from(begun.elapsed().as_nanos()).unwrap();
                seen.1.fetch_max(took, Ordering::Relaxed);
                seen.0.lock().unwrap().clone_from(&http.state().error);
            }
        };
        let [stop, hangs, lets_go] = flags;
        Lab { at, token, stop, hangs, lets_go, error, longest, thread: Some(std::thread::spawn(run)) }
    }

    fn connect(&self) -> TcpStream {
        let begun = std::time::Instant::now();
        loop {
            match TcpStream::connect(self.at) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{}: {error}", self.at),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a request and returns the status, the head and the body.
    fn ask(&self, request: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        response(&mut stream)
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.at))
    }

    fn rows<T: serde::de::DeserializeOwned>(&self, path: &str) -> Vec<T> {
        let (status, _, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        body.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Reads one response.
fn response(stream: &mut TcpStream) -> (u16, String, String) {
    let mut bytes = Vec::new();
    let mut read = |bytes: &mut Vec<u8>| {
        let mut some = [0; 65536];
        let len = loop {
            // A socket with a time limit is not read again after a signal (signal(7)).
            match stream.read(&mut some) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error} after {:.200}", String::from_utf8_lossy(bytes)),
                Ok(len) => break len,
            }
        };
        bytes.extend_from_slice(&some[..len]);
        len > 0
    };
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert!(read(&mut bytes), "no response: {:?}", String::from_utf8_lossy(&bytes));
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let length: usize = length.parse().unwrap();
    while bytes.len() < end + length && read(&mut bytes) {}
    let status = head.split(' ').nth(1).expect("a status").parse().unwrap();
    (status, head, String::from_utf8(bytes[end..].to_vec()).unwrap())
}

#[test]
fn what_is_asked_for_is_answered() {
    let lab = Lab::new(3);
    assert_eq!(lab.get("/healthz"), (200, lab.get("/healthz").1, "ok\n".into()));
    assert_eq!(lab.get("/readyz").2, "ready\n");
    let (status, head, text) = lab.get("/metrics");
    assert!(status == 200 && head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(text.contains("\nequipoise_server_up{pool=\"web\",server=\"web-2\"} 1.0\n"), "{text}");
    let open = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n";
    let (_, head, newer) = lab.ask(open);
    assert!(head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8") && newer.ends_with("# EOF\n"));
    let servers: Vec<ServerRow> = lab.rows("/api/servers");
    assert_eq!(servers.iter().map(|row| &*row.server).collect::<Vec<_>>(), ["web-0", "web-1", "web-2"]);
    let status: Vec<Status> = lab.rows("/api/status");
    assert_eq!(status[0].http.as_ref().map(|http| http.listen), Some(lab.at));
    for path in ["services", "rules", "counters", "pools"] {
        assert_eq!(lab.rows::<serde_json::Value>(&format!("/api/{path}")).len(), 1, "{path}");
    }
    for path in ["nat", "sources", "monitors", "changes", "flows", "history"] {
        assert_eq!(lab.rows::<serde_json::Value>(&format!("/api/{path}")).len(), 0, "{path}");
    }
    let explained: Vec<serde_json::Value> = lab.rows("/api/explain?client=198.51.100.7");
    assert_eq!(explained[0]["explanations"][0]["service"], "web");
    assert_eq!(lab.get("/api/flows?service=none").0, 400);
    assert_eq!(lab.get("/nothing").0, 404);
    let (status, head, _) = lab.ask("DELETE /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(status == 405 && head.contains("\r\nAllow: GET, HEAD\r\n"), "{head}");
    assert_eq!(lab.ask("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").0, 421);
    assert_eq!(lab.ask("GET /healthz HTTP/1.1\r\nHost: lb.example:80\r\n\r\n").0, 200);
    let mut stream = lab.connect();
    stream.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut bytes = [0; 4096];
    let len = stream.read(&mut bytes).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..len]).ends_with("\r\n\r\n"), "only a head");
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let lab = Lab::new(1);
    let mut stream = lab.connect();
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(response(&mut stream).0, 200);
    }
    stream.write_all(b"GET / HTTP/9\r\n\r\n").unwrap();
    assert_eq!(response(&mut stream).0, 505);
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0, "closed after what cannot be read");
}

#[test]
fn a_change_needs_the_token_and_is_made_once() {
    let lab = Lab::new(2);
    let post = |token: &str, more: &str| {
        let body = r#"{"state":"draining"}"#;
        lab.ask(&format!(
            "POST /api/servers/web/web-1 HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {token}\r\n{more}Content-Length: {}\r\n\r\n{body}",
            lab.at,
            body.len()
        ))
    };
    let states =
        || lab.rows::<serde_json::Value>("/api/servers").iter().map(|row| row["admin"].to_string()).collect::<Vec<_>>();
    assert_eq!(post("00", "").0, 401);
    assert_eq!(post(&lab.token, "Origin: http://evil.example\r\n").0, 403);
    assert_eq!(lab.get("/api/servers/web/web-1").0, 405);
    assert!(states().iter().all(|state| state == "\"enabled\""), "{:?}", states());
    let (status, _, body) = post(&lab.token, &format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", lab.at));
    assert!(status == 200 && body.contains("\"changed\":true") && body.contains("\"before\""), "{body}");
    let begun = std::time::Instant::now();
    while states() != ["\"enabled\"", "\"draining\""] {
        assert!(begun.elapsed() < PATIENCE, "{:?}", states());
        std::thread::sleep(Duration::from_millis(100));
    }
    let history: Vec<serde_json::Value> = lab.rows("/api/history");
    assert!(
        history.iter().any(|row| row["what"].as_str().is_some_and(|what| what.contains("web/web-1"))),
        "{history:?}"
    );
}

#[test]
fn clients_that_are_slow_or_many_keep_nobody_out() {
    let lab = Lab::new(300);
    // Requests that never end, and answers that nobody reads.
    let mut slow: Vec<TcpStream> = (0..super::server::MOST).map(|_| lab.connect()).collect();
    for (place, stream) in slow.iter_mut().enumerate() {
        let text = if place % 2 == 0 {
            "GET /metrics HTTP/1.1\r\n"
        } else {
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        };
        stream.write_all(text.as_bytes()).unwrap();
    }
    // While all places are new, others are refused; then the oldest makes room.
    let begun = std::time::Instant::now();
    loop {
        let mut stream = lab.connect();
        let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut bytes = [0; 4096];
        let len = if sent.is_ok() { stream.read(&mut bytes).unwrap_or(0) } else { 0 };
        if bytes[..len].starts_with(b"HTTP/1.1 200 ") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{:?}", String::from_utf8_lossy(&bytes[..len]));
        std::thread::sleep(Duration::from_millis(50));
    }
    let count = |name: &str| {
        let (_, _, text) = lab.get("/metrics");
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    while count("equipoise_http_slow_connections_total") < 1.0 {
        assert!(begun.elapsed() < PATIENCE, "none made room");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(count("equipoise_http_connections ") <= super::server::MOST as f64);
}

#[test]
fn a_flood_of_requests_is_answered_at_its_rate_and_others_with_it() {
    let lab = Lab::new(1);
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    // One client reads no answer, so that the server reads no more at some time; the others read all.
    let mut deaf = lab.connect();
    deaf.set_nonblocking(true).unwrap();
    let sent: usize = (0..1000).map_while(|_| deaf.write(request.as_bytes()).ok()).sum();
    assert!(sent > request.len());
    let ends = AtomicBool::new(false);
    let answers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut flood = lab.connect();
                flood.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                let mut bytes = [0; 65536];
                while !ends.load(Ordering::Relaxed) {
                    flood.set_nonblocking(true).unwrap();
                    let _ = flood.write(request.as_bytes());
                    flood.set_nonblocking(false).unwrap();
                    let len = flood.read(&mut bytes).unwrap_or(0);
                    let text = String::from_utf8_lossy(&bytes[..len]).matches("HTTP/1.1 200").count();
                    answers.fetch_add(text as u64, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..5 {
            assert_eq!(lab.get("/healthz").0, 200);
        }
        ends.store(true, Ordering::Relaxed);
    });
    assert!(answers.load(Ordering::Relaxed) > 5);
}

#[test]
fn a_loop_that_hangs_is_reported_and_the_thread_goes_on() {
    let lab = Lab::new(1);
    assert_eq!(lab.get("/healthz").0, 200);
    lab.hangs.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(1100)); // what is known is a second old
    let (status, _, body) = lab.get("/healthz");
    assert!(status == 503 && body.contains("does not answer in time"), "{body}");
    lab.hangs.store(false, Ordering::Relaxed);
    assert_eq!(lab.get("/healthz").0, 200);
}

#[test]
fn an_address_that_is_taken_is_had_as_soon_as_it_is_free_and_given_back_when_told() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::at(1, other.local_addr().unwrap());
    std::thread::sleep(Duration::from_millis(200));
    drop(other);
    let (_, _, text) = lab.get("/metrics");
    let failures = text.lines().find_map(|line| line.strip_prefix("equipoise_http_bind_failures_total "));
    assert!(failures.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{failures:?}");
    lab.lets_go.store(true, Ordering::Relaxed);
    let begun = std::time::Instant::now();
    while TcpListener::bind(lab.at).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the address is not given back");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_address_that_cannot_be_had_is_reported_and_the_loop_goes_on() {
    let lab = Lab::at(1, "192.0.2.1:9480".parse().unwrap());
    let begun = std::time::Instant::now();
    while lab.error.lock().unwrap().as_ref().is_none_or(|error| !error.starts_with("cannot listen: ")) {
        assert!(begun.elapsed() < PATIENCE, "no error: {:?}", lab.error.lock().unwrap());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ten_thousand_servers_are_scraped_in_short_steps() {
    let lab = Lab::new(10_000);
    let (status, _, text) = lab.get("/metrics");
    assert_eq!(status, 200);
    assert_eq!(text.lines().filter(|line| line.starts_with("equipoise_server_up{")).count(), 10_000);
    assert!(lab.longest.load(Ordering::Relaxed) > 0);
}
