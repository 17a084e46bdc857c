//! One question to the resolvers, from the first attempt until it is answered or every resolver has failed.
//!
//! Each attempt has an ID of its own and letters of its own; the driver gives it a socket of its own. Whoever forges an
//! answer must guess all three. An answer that looks forged or meddled with makes the question go over TCP.

use super::message::{self, Answer, Asked, Kind, Received};
use crate::time::{Duration, Instant};
use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use std::net::SocketAddr;

/// How long a resolver may take over UDP, the first time and later.
const UDP_PATIENCE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(4)];
/// How long a resolver may take over TCP, with the connection.
const TCP_PATIENCE: Duration = Duration::from_secs(5);
/// Rounds over all resolvers.
const ROUNDS: usize = 2;
/// Least attempts, however few resolvers there are.
const LEAST_TRIES: usize = 3;
/// Datagrams of strangers to one attempt, after which it goes over TCP.
const MOST_STRANGERS: u8 = 8;

/// Random numbers that nobody outside can foresee, from a secret that the driver draws.
#[derive(Debug, Clone)]
pub(super) struct Secret {
    keyed: SipHasher24,
    drawn: u64,
}

impl Secret {
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Secret { keyed: SipHasher24::new_with_keys(secret[0], secret[1]), drawn: 0 }
    }

    fn next(&mut self) -> u64 {
        self.drawn += 1;
        let mut hasher = self.keyed;
        hasher.write_u64(self.drawn);
        hasher.finish()
    }
}

/// The transport of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// A datagram.
    Udp,
    /// A connection; each message has its length before it, two bytes (RFC 1035, section 4.2.2).
    Tcp,
}

/// What to do after something happened to an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Keep waiting.
    Wait,
    /// Make another attempt.
    Again,
    /// The question is settled: by an answer, or because no resolver gave one, for this reason.
    Done(Result<Answer, String>),
}

/// A question and its present attempt.
#[derive(Debug)]
pub(super) struct Query {
    name: Asked,
    kind: Kind,
    /// The name in the letters of the attempt.
    letters: Asked,
    id: u16,
    /// The resolver that is asked first.
    first: usize,
    tries: usize,
    over: Over,
    edns: bool,
    strangers: u8,
    deadline: Instant,
}

impl Query {
    /// Makes a question; `first` is the place of the resolver that is asked first.
    pub(super) fn new(name: Asked, kind: Kind, first: usize) -> Self {
        Query {
            letters: name.clone(),
            name,
            kind,
            id: 0,
            first,
            tries: 0,
            over: Over::Udp,
            edns: true,
            strangers: 0,
            deadline: Instant::FAR,
        }
    }

    /// When the attempt has failed.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The place of the resolver of this attempt.
    pub(super) fn resolver(&self, resolvers: &[SocketAddr]) -> usize {
        (self.first + self.tries) % resolvers.len().max(1)
    }

    /// Begins an attempt; returns what to send, without the length that TCP needs. `None` if there is no resolver.
    pub(super) fn attempt(
        &mut self,
        now: Instant,
        resolvers: &[SocketAddr],
        secret: &mut Secret,
    ) -> Option<(SocketAddr, Over, Vec<u8>)> {
        let to = *resolvers.get(self.resolver(resolvers))?;
        self.id = secret.next() as u16;
        self.letters = message::mix_case(&self.name, || secret.next());
        self.strangers = 0;
        let patience = match self.over {
            Over::Tcp => TCP_PATIENCE,
            Over::Udp => UDP_PATIENCE[usize::from(self.tries >= resolvers.len())],
        };
        self.deadline = now + patience;
        Some((to, self.over, message::query(self.id, &self.letters, self.kind, self.edns)))
    }

    /// Takes what the resolver of the attempt sent.
    pub(super) fn receive(&mut self, bytes: &[u8], resolvers: &[SocketAddr]) -> Next {
        match message::read(bytes, self.id, &self.letters, self.kind, self.over == Over::Udp) {
            Received::Answer(answer) => Next::Done(Ok(answer)),
            Received::Stranger if self.over == Over::Tcp => self.fail("an answer to another question", resolvers),
            Received::Stranger => {
                self.strangers += 1;
                if self.strangers < MOST_STRANGERS { Next::Wait } else { self.over_tcp() }
            }
            Received::OtherLetters | Received::Truncated => self.over_tcp(),
            Received::NoEdns if self.edns => {
                self.edns = false;
                Next::Again
            }
            Received::NoEdns => self.fail("it does not understand the query (FORMERR)", resolvers),
            Received::Refused(why) => self.fail(why, resolvers),
            Received::Malformed => self.fail("its answer cannot be parsed", resolvers),
        }
    }

    /// The deadline of the attempt has passed.
    pub(super) fn expire(&mut self, resolvers: &[SocketAddr]) -> Next {
        self.fail("no answer", resolvers)
    }

    fn over_tcp(&mut self) -> Next {
        self.over = Over::Tcp;
        Next::Again
    }

    /// Goes on to the next resolver, for this reason.
    pub(super) fn fail(&mut self, why: &str, resolvers: &[SocketAddr]) -> Next {
        let failed = resolvers.get(self.resolver(resolvers)).copied();
        self.tries += 1;
        (self.over, self.edns) = (Over::Udp, true);
        if self.tries < (ROUNDS * resolvers.len()).max(LEAST_TRIES) && !resolvers.is_empty() {
            return Next::Again;
        }
        let (name, kind) = (&self.name, self.kind.name());
        Next::Done(Err(match failed {
            Some(resolver) if resolvers.len() == 1 => format!("{name} {kind}: resolver {resolver}: {why}"),
            Some(resolver) => {
                format!("{name} {kind}: none of {} resolvers answers; {resolver}: {why}", resolvers.len())
            }
            None => format!("{name} {kind}: no resolver is known: add `servers` to [dns]"),
        }))
    }
}
