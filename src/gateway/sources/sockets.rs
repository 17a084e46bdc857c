//! The sockets to resolvers: a new one for each attempt, so that its port cannot be foreseen, connected, so that the
//! kernel drops what comes from elsewhere.

use crate::sources::{AttemptId, MOST_ASKED, Over, Sources};
use crate::time::Instant;
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest message.
const LONGEST: usize = 65_535;
/// Datagrams read of one socket at a time; packets of clients wait meanwhile.
const BUDGET: usize = 16;

/// A socket and its attempt.
struct Socket {
    attempt: AttemptId,
    stream: Stream,
}

enum Stream {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        /// What is left to send, with its length before it.
        out: Vec<u8>,
        /// What has come so far, with its length before it.
        read: Vec<u8>,
    },
}

/// The sockets of the attempts under way.
pub(super) struct Sockets {
    all: [Option<Socket>; MOST_ASKED],
    first_token: usize,
    room: Box<[u8; LONGEST]>,
}

impl Sockets {
    pub(super) fn new() -> Self {
        Sockets { all: Default::default(), first_token: 0, room: Box::new([0; LONGEST]) }
    }

    pub(super) fn use_tokens_from(&mut self, first: usize) {
        self.first_token = first;
    }

    /// Opens a socket for an attempt and sends its message.
    pub(super) fn ask(
        &mut self,
        registry: &Registry,
        attempt: AttemptId,
        to: SocketAddr,
        over: Over,
        message: &[u8],
    ) -> io::Result<()> {
        let place = self.all.iter().position(Option::is_none).ok_or_else(|| io::Error::other("too many questions"))?;
        let token = Token(self.first_token + place);
        let stream = match over {
            Over::Udp => {
                let any: IpAddr =
                    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let mut socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.connect(to)?;
                registry.register(&mut socket, token, Interest::READABLE)?;
                socket.send(message)?;
                Stream::Udp(socket)
            }
            Over::Tcp => {
                let mut stream = TcpStream::connect(to)?;
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
                let out = [&length.to_be_bytes()[..], message].concat();
                Stream::Tcp { stream, out, read: Vec::new() }
            }
        };
        self.all[place] = Some(Socket { attempt, stream });
        Ok(())
    }

    /// Closes the socket of an attempt.
    pub(super) fn forget(&mut self, registry: &Registry, attempt: AttemptId) {
        for place in &mut self.all {
            if place.as_ref().is_some_and(|socket| socket.attempt == attempt)
                && let Some(socket) = place.take()
            {
                // Closing it ends its registration too.
                let _ = match socket.stream {
                    Stream::Udp(mut socket) => registry.deregister(&mut socket),
                    Stream::Tcp { mut stream, .. } => registry.deregister(&mut stream),
                };
            }
        }
    }

    /// Moves the bytes of a socket that is ready.
    pub(super) fn ready(&mut self, token: Token, sources: &mut Sources, now: Instant) {
        let Some(Some(socket)) = self.all.get_mut(token.0.wrapping_sub(self.first_token)) else { return };
        let attempt = socket.attempt;
        match &mut socket.stream {
            Stream::Udp(socket) => {
                for _ in 0..BUDGET {
                    match socket.recv(&mut self.room[..]) {
                        Ok(length) => sources.answer(now, attempt, &self.room[..length]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => return sources.failed(now, attempt, &text(&error)),
                    }
                }
                // mio reports what is left only with the next datagram: whoever sends so much is no resolver.
                sources.failed(now, attempt, "too many datagrams");
            }
            Stream::Tcp { stream, out, read } => match exchange(stream, out, read, &mut self.room[..]) {
                Ok(Some(message)) => sources.answer(now, attempt, &message),
                Ok(None) => {}
                Err(error) => sources.failed(now, attempt, &text(&error)),
            },
        }
    }
}

/// Sends and receives what is possible; returns the message once it is whole.
fn exchange(
    stream: &mut TcpStream,
    out: &mut Vec<u8>,
    read: &mut Vec<u8>,
    room: &mut [u8],
) -> io::Result<Option<Vec<u8>>> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    while !out.is_empty() {
        match stream.write(out) {
            Ok(sent) => drop(out.drain(..sent)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    loop {
        if let Some((length, message)) = read.split_at_checked(2)
            && let Some(message) = message.get(..usize::from(u16::from_be_bytes([length[0], length[1]])))
        {
            return Ok(Some(message.to_vec()));
        }
        match stream.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                // No more than one message is wanted.
                read.extend_from_slice(&room[..length]);
                read.truncate(2 + LONGEST);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The text of an error of a socket, with what to do where that is known.
pub(super) fn text(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            "permission denied: if the port of this resolver was not in the configuration when \
                                        the gateway started, restart it, for it gave up other connections"
                .into()
        }
        ErrorKind::UnexpectedEof => "it closed the connection".into(),
        _ => error.to_string(),
    }
}
