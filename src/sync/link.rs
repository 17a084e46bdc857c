//! One connection to the peer: its frames, what has been proved, what has been given and taken.
//!
//! It must not know roles.

use super::node::SyncSettings;
use super::proof::{proof, proves};
use super::wire::{HEADER, Header, Hello, Kind, MOST_BODY, MOST_GREETING, Ranges, VERSION};
use crate::engine::{Giving, GivingHealth, StateError, Taking};
use crate::time::{Duration, Instant};
use std::collections::HashMap;
use std::fmt;

/// For how long the peer may take to prove that it has the key.
pub(super) const GREETING_TIME: Duration = Duration::from_secs(5);
/// A peer that is silent for so long is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// Why a connection has to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkError {
    /// The peer speaks another version of the protocol.
    Version(u8),
    /// A frame comes before the peer has proved that it has the key, or is too long for that.
    NotYet,
    /// The peer has another key.
    Key,
    /// The peer is not the one in the configuration.
    Stranger(String),
    /// The peer is this gateway.
    Itself,
    /// A body makes no sense.
    Unreadable(&'static str),
    /// Sequence numbers go backwards.
    Order,
    /// Its records cannot be read.
    Records(StateError),
    /// The peer says nothing.
    Silent,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Version(version) => write!(
                f,
                "the peer speaks version {version} of the protocol, this gateway {VERSION}: upgrade the older one"
            ),
            LinkError::NotYet => f.write_str("the peer sends something else before it has proved that it has the key"),
            LinkError::Key => f.write_str("the peer has another key: give both gateways the same"),
            LinkError::Stranger(name) => {
                write!(f, "the peer calls itself \"{}\", which is not the configured peer", name.escape_debug())
            }
            LinkError::Itself => f.write_str("the peer is this gateway itself: check the address of the peer"),
            LinkError::Unreadable(kind) => write!(f, "a {kind} frame of the peer makes no sense"),
            LinkError::Order => f.write_str("the peer's sequence numbers go backwards"),
            LinkError::Records(error) => write!(f, "the peer's names: {error}"),
            LinkError::Silent => f.write_str("the peer has been silent for too long"),
        }
    }
}

impl std::error::Error for LinkError {}

/// How much longer than the fastest frame of the connection its frames take now: a slow link has much in it.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The least difference of both clocks that was seen.
    least: Option<i128>,
    pub lag: Duration,
}

impl Clock {
    /// Reads the peer's clock, if it has told it.
    pub(super) fn heard(&mut self, now: Instant, theirs: Option<u64>) {
        let Some(theirs) = theirs else { return };
        let apart = i128::from(now.as_nanos()) - i128::from(theirs);
        let least = self.least.map_or(apart, |least| least.min(apart));
        self.least = Some(least);
        self.lag = Duration::from_nanos(u64::try_from(apart - least).unwrap_or(u64::MAX));
    }
}

/// A pass over the own table, to give all flows of some ranges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulk {
    pub ranges: Ranges,
    /// The next slot.
    pub at: u32,
    /// Whether only flows that were seen here are given.
    pub only_seen: bool,
    /// Whether flows that are not given do not exist any more.
    pub whole: bool,
    /// Whether clients and ports without flows are still to be given.
    pub rest: bool,
    pub begun: bool,
}

/// What follows the end of the peer's pass: flows that it has not spoken of end here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sweep {
    pub ranges: Ranges,
    pub at: u32,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    /// Bytes of a frame that is not complete.
    input: Vec<u8>,
    /// Frames that are ready to be sent, before everything else.
    pub ready: Vec<u8>,
    pub since: Instant,
    pub heard: Instant,
    own_hello: Vec<u8>,
    their_hello: Vec<u8>,
    pub hello: Option<Hello>,
    pub proved: bool,
    /// The last sequence number of each direction, and the last one that the peer has acknowledged.
    pub sent: u64,
    pub received: u64,
    pub acked: u64,
    /// The last frame that told of a flow.
    pub told: u64,
    /// The last frame when the peer had been told everything.
    pub all_told: u64,
    pub giving: Giving,
    pub taking: Taking,
    pub bulk: Option<Bulk>,
    /// Ranges that the peer wants after that.
    pub wanted: Ranges,
    /// The end of the first pass over the own table.
    pub given: Option<u64>,
    /// What the peer's pass is about, and whether what it does not speak of has ended.
    pub incoming: Option<(Ranges, bool)>,
    pub sweep: Option<Sweep>,
    /// Whether the peer's first pass is over, with all that follows from it.
    pub took: bool,
    /// Whether the digests have agreed since.
    pub agreed: bool,
    /// Flows of the peer that cannot be here.
    pub refused: Vec<(u32, u64)>,
    /// The slot from which on connections that have become idle are looked for.
    pub numbers_at: u32,
    /// Ranges to ask for, and whether names are to come again.
    pub want: Ranges,
    pub want_names: bool,
    /// Whether to ask for the peer's view of the servers' health, and when names may be asked for again.
    pub want_health: bool,
    pub next_want: Instant,
    /// What the peer has been told of the servers' health, if it has asked for it.
    pub health: Option<GivingHealth>,
    /// Whether the peer has begun to tell all of its view since this gateway may follow it.
    pub told_health: bool,
    /// Whether it has told all, and nothing has been made of that.
    pub told_all_health: bool,
    pub digest_now: bool,
    /// When the peer was last told of all flows that had changed.
    pub caught_up: Instant,
    /// Sticky clients that have been used since are to be told, as flows of theirs may have ended untold.
    pub recent: Option<Instant>,
    /// Those that have been used since are being told.
    pub telling_recent: Option<Instant>,
    /// Whether the peer takes sticky clients without flows from this gateway, and has been told all of them since, or is being told.
    pub tells_clients: bool,
    pub next_flush: Instant,
    /// Whether the last call had no room for all that there is to say.
    pub has_more: bool,
    pub next_touch: Instant,
    pub next_digest: Instant,
    pub next_ack: Instant,
    pub next_wanted: Instant,
    pub clock: Clock,
    pub ack_now: bool,
    /// The request to take over, once sent: its sequence number.
    pub yielded: Option<u64>,
    /// Half-open flows that the peer has been told of for a planned switch, by hash of their keys: what of them.
    pub half_told: HashMap<u64, u64>,
    /// Whether those that were begun up to the switch are still to be told.
    pub switched: bool,
    /// Flows that the peer has announced, and those that came.
    pub announced: u32,
    pub came: u32,
    pub skipped: u64,
}

impl Link {
    pub(super) fn new(now: Instant, hello: &Hello, giving: Giving, taking: Taking) -> Self {
        let mut link = Link {
            input: Vec::new(),
            ready: Vec::new(),
            since: now,
            heard: now,
            own_hello: hello.write(),
            their_hello: Vec::new(),
            hello: None,
            proved: false,
            sent: 0,
            received: 0,
            acked: 0,
            told: 0,
            all_told: 0,
            giving,
            taking,
            bulk: None,
            wanted: Ranges::NONE,
            given: None,
            incoming: None,
            sweep: None,
            took: false,
            agreed: false,
            refused: Vec::new(),
            numbers_at: 0,
            want: Ranges::NONE,
            want_names: false,
            want_health: false,
            next_want: now,
            health: None,
            told_health: false,
            told_all_health: false,
            digest_now: false,
            caught_up: now,
            recent: None,
            telling_recent: None,
            tells_clients: false,
            next_flush: now,
            has_more: false,
            next_touch: now,
            next_digest: now,
            next_ack: now,
            next_wanted: now,
            clock: Clock::default(),
            ack_now: false,
            yielded: None,
            half_told: HashMap::new(),
            switched: false,
            announced: 0,
            came: 0,
            skipped: 0,
        };
        let mut ready = Vec::new();
        link.frame(&mut ready, Kind::Hello, 0, &hello.write());
        link.ready = ready;
        link
    }

    /// Appends a frame.
    pub(super) fn frame(&mut self, out: &mut Vec<u8>, kind: Kind, term: u64, body: &[u8]) {
        debug_assert!(body.len() <= MOST_BODY, "a body of {} bytes", body.len());
        self.sent += 1;
        let header = Header { version: VERSION, kind: kind.number(), len: body.len() as u16, term, seq: self.sent };
        out.extend(header.write());
        out.extend_from_slice(body);
    }

    /// Tells that the flow in a slot has ended, before everything else; not if the peer reads nothing of all that.
    pub(super) fn tell_ended(&mut self, term: u64, slot: u32) {
        if self.ready.len() <= MOST_BODY {
            let mut ready = std::mem::take(&mut self.ready);
            self.frame(&mut ready, Kind::Del, term, &slot.to_be_bytes());
            self.told = self.sent;
            self.ready = ready;
        }
    }

    /// Takes bytes of the connection, as far as the current frame needs them; returns the frame once it is complete.
    ///
    /// # Errors
    /// If the frame may not come now.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<(Header, Vec<u8>)>, LinkError> {
        let mut fill = |input: &mut Vec<u8>, len: usize| {
            let more = len.saturating_sub(input.len()).min(bytes.len());
            let (taken, rest) = bytes.split_at(more);
            input.extend_from_slice(taken);
            *bytes = rest;
            input.len() >= len
        };
        if !fill(&mut self.input, HEADER) {
            return Ok(None);
        }
        let Some(header) = Header::read(&self.input) else { return Ok(None) };
        if header.version != VERSION {
            return Err(LinkError::Version(header.version));
        }
        let is_greeting = matches!(Kind::of(header.kind), Some(Kind::Hello | Kind::Proof));
        if !self.proved && (!is_greeting || usize::from(header.len) > MOST_GREETING) {
            return Err(LinkError::NotYet);
        }
        if !fill(&mut self.input, HEADER + usize::from(header.len)) {
            return Ok(None);
        }
        if header.seq < self.received {
            return Err(LinkError::Order);
        }
        self.received = header.seq;
        let body = self.input[HEADER..].to_vec();
        self.input.clear();
        Ok(Some((header, body)))
    }

    /// Reads a greeting or a proof; returns the peer's greeting once it has proved who it is.
    ///
    /// # Errors
    /// If the peer is not who it should be.
    pub(super) fn greeting(&mut self, kind: Kind, body: &[u8], of: &SyncSettings) -> Result<Option<Hello>, LinkError> {
        match kind {
            Kind::Hello => self.greeted(body, (&of.node, &of.peer, &of.key)).map(|()| None),
            Kind::Proof => self.proof(body, &of.key).map(Some),
            _ => Err(LinkError::NotYet),
        }
    }

    /// Reads the peer's greeting, and answers it by a proof.
    ///
    /// # Errors
    /// If the peer is not who it should be.
    fn greeted(&mut self, body: &[u8], (own, peer, key): (&str, &str, &[u8])) -> Result<(), LinkError> {
        if self.hello.is_some() {
            return Err(LinkError::Unreadable(Kind::Hello.name()));
        }
        let hello = Hello::read(body).ok_or(LinkError::Unreadable(Kind::Hello.name()))?;
        if hello.node == own {
            return Err(LinkError::Itself);
        }
        if hello.node != peer {
            return Err(LinkError::Stranger(hello.node));
        }
        self.their_hello = body.to_vec();
        self.hello = Some(hello);
        let proof = proof(key, &self.own_hello, &self.their_hello);
        let mut ready = std::mem::take(&mut self.ready);
        self.frame(&mut ready, Kind::Proof, 0, &proof);
        self.ready = ready;
        Ok(())
    }

    /// Reads the peer's proof; returns its greeting.
    ///
    /// # Errors
    /// If it proves nothing.
    fn proof(&mut self, body: &[u8], key: &[u8]) -> Result<Hello, LinkError> {
        let hello = self.hello.clone().filter(|_| !self.proved).ok_or(LinkError::NotYet)?;
        if !proves(key, &self.own_hello, &self.their_hello, body) {
            return Err(LinkError::Key);
        }
        self.proved = true;
        Ok(hello)
    }

    /// Has sticky clients told that have been used since then.
    pub(super) fn tell_recent(&mut self, since: Instant) {
        self.recent = Some(self.recent.map_or(since, |recent| recent.min(since)));
    }

    /// Returns how many bytes it keeps.
    pub(super) fn memory(&self) -> usize {
        let bytes = self.input.capacity() + self.ready.capacity();
        let refused = self.refused.capacity() * size_of::<(u32, u64)>();
        bytes + refused + self.half_told.capacity() * size_of::<(u64, u64)>()
    }

    /// Returns whether both know all that the other knew when the connection began.
    pub(super) fn in_step(&self) -> bool {
        self.proved && self.took && self.given.is_some_and(|given| self.acked >= given)
    }
}
