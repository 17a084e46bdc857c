//! The measured clients: real sockets of a kernel 100 ms away, both address families in turn. What they say is the
//! result.

use super::strangers::Pace;
use super::{CLIENT, DNS, Lab, SERVICE, WEB};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// How long a client waits for its byte: two retransmissions of its SYN may be lost.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// A client that takes longer has retransmitted something: its kernel waits for at least a second.
const LATE: Duration = Duration::from_millis(900);

/// What became of a number of clients.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub tried: u64,
    /// Got their answer in time.
    pub served: u64,
    /// Of these, those that needed a retransmission.
    pub late: u64,
    /// Were reset.
    pub reset: u64,
}

impl Outcome {
    pub fn percent(&self) -> f64 {
        100.0 * self.served as f64 / self.tried.max(1) as f64
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Outcome) {
        self.tried += other.tried;
        self.served += other.served;
        self.late += other.late;
        self.reset += other.reset;
    }
}

/// Opens connections at a rate and waits for a byte on each.
pub fn connect(lab: &Lab, per_second: u32, count: usize) -> Outcome {
    lab.client.run(|| connect_here(per_second, count)).unwrap()
}

/// Connections under way, by token; tokens grow, so that the oldest is the first.
struct Clients {
    poll: Poll,
    open: BTreeMap<Token, (TcpStream, Instant)>,
    outcome: Outcome,
}

fn connect_here(per_second: u32, count: usize) -> Outcome {
    let services = SERVICE.map(|address| SocketAddr::new(address.parse().unwrap(), WEB[0]));
    let mut clients = Clients { poll: Poll::new().unwrap(), open: BTreeMap::new(), outcome: Outcome::default() };
    let (mut events, mut pace, mut started) = (Events::with_capacity(256), Pace::new(per_second), 0);
    while started < count || !clients.open.is_empty() {
        if started < count && pace.due() {
            clients.start(started, services[started % 2]);
            started += 1;
        }
        let nap = if started < count { Duration::ZERO } else { Duration::from_millis(5) };
        match clients.poll.poll(&mut events, Some(nap)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.unwrap(),
        }
        for event in &events {
            clients.hear(event.token());
        }
        clients.give_up();
    }
    clients.outcome
}

impl Clients {
    fn start(&mut self, number: usize, service: SocketAddr) {
        let mut stream = TcpStream::connect(service).expect("a socket");
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE).unwrap();
        self.open.insert(Token(number), (stream, Instant::now()));
        self.outcome.tried += 1;
    }

    fn hear(&mut self, token: Token) {
        let Some((stream, since)) = self.open.get_mut(&token) else { return };
        match stream.read(&mut [0; 16]) {
            Ok(0) => {}
            Ok(_) => {
                self.outcome.served += 1;
                self.outcome.late += u64::from(since.elapsed() > LATE);
            }
            // Not yet connected, or no byte yet.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return,
            Err(error) => {
                let reset = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused);
                self.outcome.reset += u64::from(reset);
            }
        }
        self.open.remove(&token);
    }

    fn give_up(&mut self) {
        while let Some(oldest) = self.open.first_entry().filter(|oldest| oldest.get().1.elapsed() > PATIENCE) {
            oldest.remove();
        }
    }
}

/// Asks by UDP at a rate, each time from a port of its own, and without a second try.
pub fn ask(lab: &Lab, per_second: u32, count: usize) -> Outcome {
    lab.client.run(|| ask_here(per_second, count)).unwrap()
}

fn ask_here(per_second: u32, count: usize) -> Outcome {
    let mut open: VecDeque<(UdpSocket, Instant)> = VecDeque::new();
    let (mut outcome, mut pace) = (Outcome::default(), Pace::new(per_second));
    while (outcome.tried as usize) < count || !open.is_empty() {
        if (outcome.tried as usize) < count && pace.due() {
            let number = outcome.tried as usize;
            let own: IpAddr = CLIENT[number % 2].parse().unwrap();
            let socket = UdpSocket::bind((own, 20_000 + (number / 2 % 40_000) as u16)).expect("a port of its own");
            socket.connect((SERVICE[number % 2], DNS[0])).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.send(b"question");
            open.push_back((socket, Instant::now()));
            outcome.tried += 1;
        }
        // The oldest is the first to be answered: the cable keeps the order.
        while let Some((socket, since)) = open.front() {
            let answered = socket.recv(&mut [0; 64]).is_ok();
            if !answered && since.elapsed() < PATIENCE {
                break;
            }
            outcome.served += u64::from(answered);
            open.pop_front();
        }
        if outcome.tried as usize == count {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    outcome
}
