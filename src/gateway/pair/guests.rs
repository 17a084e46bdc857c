//! Connections that were accepted and on which nobody has proved himself yet. Whoever can use the peer's address without having
//! its key may make many: they are greeted side by side, each for a second at most, and the first that proves the key is the
//! peer's. Where there are too many, the next one takes the place of any: who makes them cannot say whose.

use super::{nonce, random};
use crate::engine::Engine;
use crate::sync::{Greeting, LinkError, Node};
use crate::time::{Duration, Instant};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};

/// Most of them.
const MOST: usize = 16;
/// How long one may take.
const UNPROVED: Duration = Duration::from_secs(1);
/// Bytes read at once. A greeting and a proof have less.
const READ: usize = 1024;

/// One of them.
#[derive(Debug)]
struct Guest {
    stream: TcpStream,
    greeting: Greeting,
    since: Instant,
    readable: bool,
    writable: bool,
    out: Vec<u8>,
    sent: usize,
}

/// Why a guest is gone.
#[derive(Debug)]
pub(super) enum Gone {
    /// The connection has ended.
    Ended(String),
    /// He is not the peer.
    Refused(LinkError),
}

/// The peer: its connection, and what it has sent behind its proof.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    pub(super) greeting: Greeting,
    pub(super) rest: Vec<u8>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Guests(Vec<Guest>);

impl Guests {
    /// Greets whoever has connected.
    pub(super) fn accept(
        &mut self,
        mut stream: TcpStream,
        (registry, token): (&Registry, Token),
        (node, engine, now): (&Node, &Engine, Instant),
    ) {
        let Some(nonce) = nonce() else { return log::warn!("sync: there is no random number for a connection") };
        let _ = stream.set_nodelay(true);
        if let Err(error) = registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
            return log::warn!("sync: cannot watch a connection: {error}");
        }
        if self.0.len() >= MOST {
            let mut draw = [0; 1];
            let place = random(&mut draw).map_or(0, |()| usize::from(draw[0]) % MOST);
            self.0.swap_remove(place);
        }
        let greeting = node.greet(now, engine, nonce);
        let (readable, writable) = (true, true);
        self.0.push(Guest { stream, greeting, since: now, readable, writable, out: Vec::new(), sent: 0 });
    }

    /// Returns how many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Records that there is news of some.
    pub(super) fn ready(&mut self) {
        self.0.iter_mut().for_each(|guest| (guest.readable, guest.writable) = (true, true));
    }

    /// Returns when the time of one is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().map(|guest| guest.since + UNPROVED).min()
    }

    /// Reads and writes; returns the peer, once it has proved itself, and why others have gone.
    pub(super) fn work(&mut self, node: &Node, now: Instant) -> (Option<Peer>, Vec<Gone>) {
        let (mut peer, mut gone, mut at) = (None, Vec::new(), 0);
        while let Some(guest) = self.0.get_mut(at).filter(|_| peer.is_none()) {
            match guest.work(node, now) {
                Ok(None) => at += 1,
                Ok(Some(rest)) => {
                    let Guest { stream, greeting, .. } = self.0.swap_remove(at);
                    peer = Some(Peer { stream, greeting, rest });
                }
                Err(why) => {
                    self.0.swap_remove(at);
                    gone.push(why);
                }
            }
        }
        (peer, gone)
    }
}

impl Guest {
    /// Reads and writes; returns what the peer has sent behind its proof, once that is there.
    fn work(&mut self, node: &Node, now: Instant) -> Result<Option<Vec<u8>>, Gone> {
        let ended = |error: &io::Error| Gone::Ended(error.to_string());
        if now.since(self.since) >= UNPROVED {
            return Err(Gone::Refused(LinkError::Silent));
        }
        let mut rest = None;
        while self.readable && rest.is_none() {
            let mut input = [0; READ];
            match self.stream.read(&mut input) {
                Ok(0) => return Err(Gone::Ended("the peer has closed it".into())),
                Ok(read) => {
                    let mut bytes = &input[..read];
                    if node.hear(&mut self.greeting, &mut bytes).map_err(Gone::Refused)? {
                        rest = Some(bytes.to_vec());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ended(&error)),
            }
        }
        self.greeting.poll_output(&mut self.out);
        while self.writable && self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(Gone::Ended("it takes nothing".into())),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ended(&error)),
            }
        }
        // An empty socket takes a greeting and a proof; one that does not is no peer's.
        match rest {
            Some(_) if self.sent < self.out.len() => Err(Gone::Ended("it takes nothing".into())),
            rest => Ok(rest),
        }
    }
}
