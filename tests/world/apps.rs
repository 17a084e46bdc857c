//! The programs on the hosts: transfers over TCP, questions over UDP. Each checks what it receives.
//!
//! A TCP request is the job's number and two lengths, 16 bytes, followed by the upload; the response is the server's
//! number and the checksum of the upload, 9 bytes, followed by the download. A datagram is the job's number and its
//! own; the reply appends the server's number.

use crate::host::Host;
use equipoise::time::{Duration, Instant};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{tcp, udp};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;

const BUFFER: usize = 16 << 10;
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A transfer that a client makes.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub id: u64,
    /// The client's own port.
    pub port: u16,
    pub start: Instant,
    pub to: SocketAddr,
    pub upload: u32,
    pub download: u32,
}

/// Returns the byte at `at` of what `sender` sends for a job.
fn byte(id: u64, sender: u8, at: usize) -> u8 {
    let mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9 + id * 2 + u64::from(sender) * 77);
    (mixed >> 13) as u8
}

fn bytes(id: u64, sender: u8, len: u32) -> Vec<u8> {
    (0..len as usize).map(|at| byte(id, sender, at)).collect()
}

fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// One end of a connection: what it has yet to send, and what it has received.
struct End {
    handle: SocketHandle,
    unsent: Vec<u8>,
    received: Vec<u8>,
}

impl End {
    /// Moves bytes between the program and its socket; returns whether any moved.
    fn pump(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let mut moved = false;
        while socket.can_recv() {
            socket
                .recv(|data| {
                    self.received.extend_from_slice(data);
                    (data.len(), ())
                })
                .expect("it can receive");
            moved = true;
        }
        if socket.can_send() && !self.unsent.is_empty() {
            let sent = socket.send_slice(&self.unsent).expect("it can send");
            self.unsent.drain(..sent);
            moved |= sent > 0;
        }
        moved
    }
}

fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    tcp::Socket::new(buffer(), buffer())
}

fn udp_socket(port: u16) -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; BUFFER]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).expect("a free port");
    socket
}

struct Transfer {
    job: Job,
    end: End,
    finished: bool,
}

struct Dialogue {
    job: Job,
    handle: SocketHandle,
    question: u32,
    asked: Option<Instant>,
    /// Who answered.
    servers: BTreeSet<u8>,
}

/// The programs of a client's host.
pub struct Client {
    waiting: Vec<Job>,
    transfers: Vec<Transfer>,
    dialogues: Vec<Dialogue>,
    /// Jobs that succeeded, with the server's number.
    pub done: Vec<(u64, u8)>,
    /// How often a dialogue went on with another server.
    pub moved: usize,
    /// Connections that were reset before the first byte arrived; the client retries a second later.
    pub refused: u32,
}

impl Client {
    /// A job with port 53 is a dialogue over UDP of `upload` questions; any other is a transfer over TCP.
    pub fn new(mut jobs: Vec<Job>) -> Self {
        jobs.sort_by_key(|job| std::cmp::Reverse((job.start, job.id)));
        Client { waiting: jobs, transfers: Vec::new(), dialogues: Vec::new(), done: Vec::new(), moved: 0, refused: 0 }
    }

    /// When it starts something, or asks again.
    pub fn next(&self) -> Option<Instant> {
        let starts = self.waiting.last().map(|job| job.start);
        let asks = self.dialogues.iter().filter_map(|dialogue| Some(dialogue.asked? + ASK_AGAIN));
        asks.chain(starts).min()
    }

    /// Returns what is not done yet.
    pub fn left(&self, host: &Host) -> String {
        let state = |t: &Transfer| host.sockets.get::<tcp::Socket>(t.end.handle).state();
        let states =
            self.transfers.iter().map(|t| format!("{:?}, {} bytes in, {}", t.job, t.end.received.len(), state(t)));
        let asks = self.dialogues.iter().map(|d| format!("{:?}, question {}", d.job, d.question));
        states.chain(asks).chain(self.waiting.iter().map(|job| format!("{job:?}"))).collect::<Vec<_>>().join("\n")
    }

    /// Advances everything that can advance; returns whether anything did.
    pub fn step(&mut self, now: Instant, host: &mut Host) -> bool {
        let mut moved = false;
        while let Some(job) = self.waiting.pop_if(|job| job.start <= now) {
            self.start(job, host);
            moved = true;
        }
        for transfer in &mut self.transfers {
            moved |= step_transfer(transfer, host, &mut self.done);
            if transfer.end.received.is_empty() && was_reset(transfer, host) {
                // From another port: the old one may be remembered.
                transfer.finished = true;
                self.refused += 1;
                self.waiting.push(Job { start: now + ASK_AGAIN, port: transfer.job.port + 500, ..transfer.job });
            }
        }
        self.waiting.sort_by_key(|job| std::cmp::Reverse((job.start, job.id)));
        self.transfers.retain(|transfer| {
            let over =
                transfer.finished && host.sockets.get::<tcp::Socket>(transfer.end.handle).state() == tcp::State::Closed;
            if over {
                host.sockets.remove(transfer.end.handle);
            }
            !over
        });
        for dialogue in &mut self.dialogues {
            moved |= step_dialogue(dialogue, now, host);
        }
        self.dialogues.retain(|dialogue| {
            let over = dialogue.question == dialogue.job.upload;
            if over {
                self.moved += dialogue.servers.len().saturating_sub(1);
                self.done.push((dialogue.job.id, dialogue.servers.first().copied().unwrap_or(0)));
                host.sockets.remove(dialogue.handle);
            }
            !over
        });
        moved
    }

    fn start(&mut self, job: Job, host: &mut Host) {
        if job.to.port() == 53 {
            let handle = host.sockets.add(udp_socket(job.port));
            self.dialogues.push(Dialogue { job, handle, question: 0, asked: None, servers: BTreeSet::new() });
            return;
        }
        let handle = host.sockets.add(tcp_socket());
        let socket = host.sockets.get_mut::<tcp::Socket>(handle);
        socket.connect(host.iface.context(), job.to, job.port).expect("a free port");
        let mut unsent = job.id.to_be_bytes().to_vec();
        unsent.extend(job.upload.to_be_bytes());
        unsent.extend(job.download.to_be_bytes());
        unsent.extend(bytes(job.id, 0, job.upload));
        self.transfers.push(Transfer { job, end: End { handle, unsent, received: Vec::new() }, finished: false });
    }
}

fn step_transfer(transfer: &mut Transfer, host: &mut Host, done: &mut Vec<(u64, u8)>) -> bool {
    let socket = host.sockets.get_mut::<tcp::Socket>(transfer.end.handle);
    let moved = transfer.end.pump(socket);
    let opening = matches!(socket.state(), tcp::State::SynSent | tcp::State::SynReceived);
    let refused = socket.state() == tcp::State::Closed && transfer.end.received.is_empty();
    if transfer.finished || opening || refused || socket.may_recv() {
        return moved;
    }
    // The server has closed, or the connection was reset: either way everything must have arrived.
    let (job, received) = (transfer.job, &transfer.end.received);
    assert_eq!(received.len(), 9 + job.download as usize, "{job:?} ended early, in {:?}", socket.state());
    let server = received[0];
    assert_eq!(received[1..9], sum(&bytes(job.id, 0, job.upload)).to_be_bytes(), "{job:?}: the upload changed");
    assert!(received[9..] == bytes(job.id, server, job.download), "{job:?}: the download changed");
    transfer.finished = true;
    done.push((job.id, server));
    socket.close();
    true
}

fn was_reset(transfer: &Transfer, host: &Host) -> bool {
    !transfer.finished && host.sockets.get::<tcp::Socket>(transfer.end.handle).state() == tcp::State::Closed
}

fn step_dialogue(dialogue: &mut Dialogue, now: Instant, host: &mut Host) -> bool {
    let socket = host.sockets.get_mut::<udp::Socket>(dialogue.handle);
    let question = |n: u32| [dialogue.job.id.to_be_bytes().as_slice(), &n.to_be_bytes()].concat();
    while let Ok((answer, from)) = socket.recv() {
        // A late reply of a flow that has given way comes untranslated, and is for nobody.
        if SocketAddr::from((from.endpoint.addr, from.endpoint.port)) != dialogue.job.to {
            continue;
        }
        let (asked, server) = answer.split_at(12);
        dialogue.servers.insert(server[0]);
        // A late or second reply to an earlier question is not new.
        if dialogue.asked.is_some() && asked == question(dialogue.question) {
            dialogue.question += 1;
            dialogue.asked = None;
        }
    }
    let due = dialogue.asked.is_none_or(|asked| asked + ASK_AGAIN <= now);
    if dialogue.question == dialogue.job.upload || !due {
        return false;
    }
    socket.send_slice(&question(dialogue.question), dialogue.job.to).expect("room for a question");
    dialogue.asked = Some(now);
    true
}

struct Connection {
    end: End,
    answered: bool,
}

/// The programs of a server's host: one listens on TCP port 8080, one on UDP port 53.
pub struct Server {
    number: u8,
    listening: SocketHandle,
    connections: Vec<Connection>,
    questions: SocketHandle,
}

impl Server {
    pub fn new(number: u8, host: &mut Host) -> Self {
        let questions = host.sockets.add(udp_socket(53));
        Server { number, listening: listen(host), connections: Vec::new(), questions }
    }

    /// Returns whether no connection is left.
    pub fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }

    /// Advances everything that can advance; returns whether anything did.
    pub fn step(&mut self, host: &mut Host) -> bool {
        let mut moved = false;
        if host.sockets.get::<tcp::Socket>(self.listening).state() != tcp::State::Listen {
            let end = End { handle: self.listening, unsent: Vec::new(), received: Vec::new() };
            self.connections.push(Connection { end, answered: false });
            self.listening = listen(host);
            moved = true;
        }
        for connection in &mut self.connections {
            moved |= serve(self.number, connection, host.sockets.get_mut(connection.end.handle));
        }
        self.connections.retain(|connection| {
            let handle = connection.end.handle;
            let state = host.sockets.get::<tcp::Socket>(handle).state();
            // A reset returns a socket that listened to listening. The socket keeps its position in the set: a
            // repeated SYN must meet the connection that it opened before it meets the listening socket.
            if state == tcp::State::Listen {
                host.sockets.get_mut::<tcp::Socket>(handle).abort();
            }
            !matches!(state, tcp::State::Closed | tcp::State::Listen)
        });
        let socket = host.sockets.get_mut::<udp::Socket>(self.questions);
        while let Ok((question, from)) = socket.recv() {
            let answer = [question, &[self.number]].concat();
            socket.send_slice(&answer, from.endpoint).expect("room for an answer");
            moved = true;
        }
        moved
    }
}

fn listen(host: &mut Host) -> SocketHandle {
    let mut socket = tcp_socket();
    // A client that gave up, or whose flow was evicted, is forgotten as by a real server.
    socket.set_keep_alive(Some(smoltcp::time::Duration::from_secs(20)));
    socket.set_timeout(Some(smoltcp::time::Duration::from_secs(60)));
    socket.listen(8080).expect("a port");
    host.sockets.add(socket)
}

fn serve(number: u8, connection: &mut Connection, socket: &mut tcp::Socket<'_>) -> bool {
    let end = &mut connection.end;
    let mut moved = end.pump(socket);
    if !connection.answered && end.received.len() >= 16 {
        let number_at = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| end.received[at + i]));
        let (upload, download) = (number_at(8), number_at(12));
        if end.received.len() == 16 + upload as usize {
            let id = u64::from_be_bytes(std::array::from_fn(|i| end.received[i]));
            end.unsent.push(number);
            end.unsent.extend(sum(&end.received[16..]).to_be_bytes());
            end.unsent.extend(bytes(id, number, download));
            connection.answered = true;
            moved |= end.pump(socket);
        }
    }
    let given_up = !socket.may_recv() && socket.state() != tcp::State::SynReceived;
    // smoltcp never repeats a FIN if only its segment's data was acknowledged, so the FIN is sent separately.
    let all_sent = connection.answered && end.unsent.is_empty() && socket.send_queue() == 0;
    if socket.may_send() && (all_sent || given_up) {
        socket.close();
        moved = true;
    }
    moved
}
