//! The other gateway of a pair: the connection to it, and what follows from the role of this one.
//!
//! ```text
//!   keepalived, eqctl role --> Node --> duty of the engine, NAT ports
//!                               |
//!   peer <== TCP connection ====+----> track file (keepalived), routes of the service addresses (BGP)
//! ```
//!
//! Of both, the gateway whose name comes first listens, and the other one connects. It must not know what is said between
//! them: that is [`crate::sync`]'s.

mod guests;
mod key;
mod link;
mod repeats;
mod socket;
#[cfg(test)]
mod tests;
mod track;
mod waiting;

use super::error::GatewayError;
use super::marking::Marking;
use crate::config::{PairHealth, PairRoutes, PairSettings, Settings, fingerprint};
use crate::control::{Ledger, PairFacts, Pairing, Takeover};
use crate::engine::Engine;
use crate::ids::FlowId;
use crate::sync::{Command, Event, Node, Role, SyncSettings};
use crate::time::{Duration, Instant};
use guests::{Gone, Guests, Peer};
pub use key::read as read_key;
use link::{Link, Moved};
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use repeats::Repeats;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use track::{Fitness, TrackFile};
use waiting::{Waiting, answers_a_syn};

/// The time between two attempts to connect.
const RETRY: Duration = Duration::from_millis(200);
/// The time until the next attempt after this gateway has closed the connection.
const GRACE: Duration = Duration::from_secs(3);
/// Connections accepted between two batches of packets.
const ACCEPTED: usize = 16;
/// Minimum time between two log lines about connections closed before the peer proved its identity.
const QUIET: Duration = Duration::from_secs(30);
/// How long this gateway's own reason stays visible, whatever happens to later attempts.
const REASON: Duration = Duration::from_secs(30);

/// What follows from the role for what is installed in the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announce {
    /// Service addresses are to be announced.
    Yes,
    /// They are not.
    No,
}

/// This gateway of a pair.
pub(super) struct Pair {
    settings: PairSettings,
    node: Node,
    listener: Option<TcpListener>,
    link: Option<Link>,
    /// Connections on which nobody has proved himself.
    guests: Guests,
    /// Whether connections may wait to be accepted.
    waiting: bool,
    /// When to connect again.
    retry: Instant,
    token: Token,
    track: Option<TrackFile>,
    facts: PairFacts,
    /// The number of edits of the ledger that the peer has been told.
    edits: u64,
    /// When the peer was last heard.
    heard: Option<Instant>,
    fingerprint: u64,
    /// The fingerprint of other settings, once it is known.
    prints: Option<Receiver<u64>>,
    /// What is installed.
    announces: Announce,
    has_complained: bool,
    /// When the log last said why a connection was closed on which nobody had proved himself.
    complained: Option<Instant>,
    /// When this gateway last had a reason of its own to close the connection.
    said: Option<Instant>,
    /// Whether the engine has other servers than before.
    has_other_hosts: bool,
    waiting_answers: Waiting,
    repeats: Repeats,
    /// Whether a standby takes the servers' health from the active gateway.
    follows_health: bool,
}

impl Pair {
    /// Makes this gateway one of a pair, if the settings say so; `role` is that of the gateway whose place it takes.
    ///
    /// # Errors
    /// If the key cannot be read, the address not be used, or memory is short.
    pub(super) fn open(
        settings: &Settings,
        role: Option<Role>,
        engine: &mut Engine,
        now: Instant,
    ) -> Result<Option<Pair>, GatewayError> {
        let Some(own) = &settings.sync else { return Ok(None) };
        let key = key::read(&own.key_file).map_err(GatewayError::Pair)?;
        let fingerprint = fingerprint(settings);
        let mut instance = [0; 8];
        random(&mut instance).map_err(GatewayError::io("draw a random number"))?;
        let sync = SyncSettings {
            node: own.node.clone(),
            peer: own.peer.clone(),
            key,
            instance: u64::from_ne_bytes(instance).max(1),
            fingerprint,
            // Whoever takes the place of another gateway has its flows.
            learning: if role.is_some() { Duration::ZERO } else { own.learning },
        };
        let mut node = Node::new(sync, now, engine).map_err(|error| GatewayError::Pair(error.to_string()))?;
        match role {
            Some(Role::Active | Role::Yielding) => node.command(now, engine, Command::Activate),
            Some(_) => {
                node.handle_timeout(now, engine);
                node.command(now, engine, Command::StandBy);
            }
            None => {}
        }
        let listener = (own.node < own.peer).then(|| socket::listen(own)).transpose();
        let listener = listener.map_err(|error| {
            let on = own.interface.as_ref().map_or(String::new(), |name| format!(" on interface {name}"));
            GatewayError::Pair(format!(
                "cannot listen for {} at {}{on}: {}; check sync.address and sync.interface",
                own.peer,
                own.address,
                io::Error::from(error)
            ))
        })?;
        let track = own.track_file.as_ref().map(|path| TrackFile::open(path, role.is_some())).transpose();
        let track = track.map_err(GatewayError::io("make the track file (sync.track-file)"))?;
        let facts = PairFacts {
            own: (own.node.clone(), own.address),
            peer: (own.peer.clone(), own.peer_address),
            connected: None,
            connections: 0,
            bytes: [0; 2],
            differs: false,
            trouble: None,
            takeover: None,
            latest: None,
        };
        let mut pair = Pair {
            settings: own.clone(),
            node,
            listener,
            link: None,
            guests: Guests::default(),
            waiting: true,
            retry: now,
            token: Token(0),
            track,
            facts,
            edits: 0,
            heard: None,
            fingerprint,
            prints: None,
            announces: Announce::Yes,
            has_complained: false,
            complained: None,
            said: None,
            has_other_hosts: false,
            waiting_answers: Waiting::default(),
            repeats: Repeats::default(),
            follows_health: false,
        };
        pair.use_live(own, engine, now);
        pair.announces = pair.wanted();
        Ok(Some(pair))
    }

    /// Registers the listener under `token`; connections are registered under the next one.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.token = token;
        match &mut self.listener {
            Some(listener) => registry.register(listener, token, Interest::READABLE),
            None => Ok(()),
        }
    }

    /// Returns whether a token is one of its own.
    pub(super) fn has(&self, token: Token) -> bool {
        (self.token.0..=self.token.0 + 1).contains(&token.0)
    }

    /// Takes an event of one of its tokens.
    pub(super) fn ready(&mut self, token: Token) {
        if token == self.token {
            self.waiting = true;
        } else {
            self.link.iter_mut().for_each(Link::ready);
            self.guests.ready();
        }
    }

    /// Returns the TCP port of the peer.
    pub(super) fn peer_port(&self) -> u16 {
        self.settings.peer_address.port()
    }

    /// Returns whether a packet that a server has sent on a half-open flow waits until the peer knows of the flow: it comes
    /// back from [`Pair::poll_released`].
    #[cold]
    pub(super) fn holds(&mut self, now: Instant, flow: FlowId, (header, packet): (&[u8], &[u8])) -> bool {
        if !self.node.holds_answers() || !answers_a_syn(packet) {
            return false;
        }
        if !self.waiting_answers.has_room(packet) {
            self.node.cannot_hold();
            return false;
        }
        let holds = self.node.holds(now, flow);
        if holds {
            self.waiting_answers.keep(header, packet);
        }
        holds
    }

    /// Returns the next packet that has waited for long enough: its header for the device, and the packet.
    pub(super) fn poll_released(&mut self) -> Option<(&[u8], &[u8])> {
        // They are released in the order in which they came.
        self.node.poll_released()?;
        self.waiting_answers.take()
    }

    /// Lets all packets go that wait.
    pub(super) fn release_all(&mut self) {
        self.node.release_all();
    }

    /// Returns the name of the peer.
    pub(super) fn peer(&self) -> &str {
        &self.settings.peer
    }

    /// Makes the thread of the track file give up what it does not need.
    pub(super) fn confine(&self) {
        self.track.iter().for_each(TrackFile::confine);
    }

    /// Returns what sessions see.
    pub(super) fn pairing(&mut self) -> Pairing<'_> {
        Pairing { node: &mut self.node, facts: &mut self.facts }
    }

    /// Returns the role.
    pub(super) fn role(&self) -> Role {
        self.node.role()
    }

    /// Returns when [`Pair::work`] has something to do without an event.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let is_blocked = self.link.as_ref().is_some_and(Link::is_blocked);
        let retry = (self.listener.is_none() && self.link.is_none()).then_some(self.retry);
        [self.node.poll_timeout(now, is_blocked), retry, self.repeats.due(), self.guests.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Reads and writes a bounded amount; returns true if there is more to do at once.
    pub(super) fn work(
        &mut self,
        registry: &Registry,
        (engine, ledger, mut marking): (&mut Engine, &mut Ledger, Option<&mut Marking>),
        now: Instant,
    ) -> bool {
        self.follow_print(engine, now);
        self.accept(registry, engine, now);
        self.greet(engine, now);
        self.connect(registry, now);
        if ledger.edits() != self.edits {
            self.edits = ledger.edits();
            self.node.standing_changed();
        }
        let mut more = false;
        if let Some(link) = &mut self.link {
            match link.work(&mut self.node, engine, now) {
                Ok(Moved { received, sent, more: again }) => {
                    self.facts.bytes[0] += sent;
                    self.facts.bytes[1] += received;
                    if received > 0 {
                        self.heard = Some(now);
                    }
                    more = again;
                }
                Err(why) => self.lost(engine, why, now),
            }
        }
        if let Some(marking) = &mut marking {
            // Without its key, a reply would reach its client untranslated.
            while let Some(key) = self.node.poll_reply_key() {
                marking.learn(&key, now);
            }
        }
        self.node.handle_timeout(now, engine);
        let is_active = self.take_events(engine, ledger, now);
        if let Some(marking) = marking.filter(|_| is_active)
            && let Err(error) = marking.expect_unknown(now)
        {
            log::warn!("connections of the peer that are not known here may break: {error}");
        }
        self.tell();
        if self.link.is_none() && self.facts.trouble.is_none() {
            let text = if self.listener.is_some() { "it has not connected" } else { "it does not answer" };
            self.facts.trouble = Some((now, text.into()));
        }
        more || self.waiting
    }

    /// Returns, once, that service addresses are to be announced from now on, or no longer.
    pub(super) fn take_announce(&mut self) -> Option<Announce> {
        let wanted = self.wanted();
        (std::mem::replace(&mut self.announces, wanted) != wanted).then_some(wanted)
    }

    /// Returns, once, that the engine knows servers of the peer that are not configured here.
    pub(super) fn take_hosts(&mut self) -> bool {
        std::mem::take(&mut self.has_other_hosts)
    }

    /// Returns whether service addresses are announced.
    pub(super) fn announces(&self) -> Announce {
        self.announces
    }

    fn wanted(&self) -> Announce {
        let is_active = self.role().is_active();
        match self.settings.routes {
            PairRoutes::WhenActive if !is_active => Announce::No,
            PairRoutes::WhenActive | PairRoutes::Always => Announce::Yes,
        }
    }

    /// Does what the settings say of what may change while the gateway runs.
    fn use_live(&mut self, settings: &PairSettings, engine: &mut Engine, now: Instant) {
        self.node.hold_answers(settings.before_answer);
        let follows = settings.health == PairHealth::Active;
        if follows != self.follows_health {
            self.follows_health = follows;
            self.node.follow_health(now, engine, follows);
        }
    }

    /// Follows other settings. What they say of flows is found out by a thread of its own.
    pub(super) fn follow(&mut self, settings: Arc<Settings>, engine: &mut Engine, now: Instant) {
        if let Some(own) = &settings.sync {
            self.use_live(own, engine, now);
        }
        let (sender, receiver) = mpsc::channel();
        let started = thread::Builder::new().name("fingerprint".into()).spawn(move || {
            let _ = sender.send(fingerprint(&settings));
        });
        match started {
            Ok(_) => self.prints = Some(receiver),
            Err(error) => log::warn!("sync: the configurations are not compared: {error}"),
        }
    }

    /// Tells the peer by another connection what other settings say of flows.
    fn follow_print(&mut self, engine: &mut Engine, now: Instant) {
        let Some(Ok(print)) = self.prints.as_ref().map(Receiver::try_recv) else { return };
        self.prints = None;
        if print == self.fingerprint {
            return;
        }
        self.fingerprint = print;
        self.node.configured(print);
        self.guests.clear();
        if self.link.take().is_some() {
            self.node.disconnected(now, engine);
            self.facts.connected = None;
            self.retry = now;
        }
    }

    /// Leaves everything to a gateway that takes over.
    pub(super) fn leave(&mut self) {
        self.track.iter_mut().for_each(TrackFile::leave);
        (self.listener, self.link) = (None, None);
        self.guests.clear();
    }

    fn accept(&mut self, registry: &Registry, engine: &Engine, now: Instant) {
        for _ in 0..ACCEPTED {
            let accepted = self.listener.as_ref().filter(|_| self.waiting).map(TcpListener::accept);
            let (stream, from) = match accepted {
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                _ => {
                    self.waiting = false;
                    return;
                }
            };
            if from.ip() != self.settings.peer_address.ip() {
                if !std::mem::replace(&mut self.has_complained, true) {
                    log::warn!("sync: a connection from {} is refused: it is not the peer", from.ip());
                }
                continue;
            }
            // One that has proved itself is given up when it is silent.
            if self.link.is_none() {
                self.guests.accept(stream, (registry, Token(self.token.0 + 1)), (&self.node, engine, now));
            }
        }
    }

    /// Hears those on whose connections nobody has proved himself; the first who does is the peer.
    fn greet(&mut self, engine: &mut Engine, now: Instant) {
        let (peer, gone) = self.guests.work(&self.node, now);
        for why in gone {
            match why {
                Gone::Ended(why) => self.lost(engine, why, now),
                Gone::Refused(error) => {
                    let level = if self.is_quiet(now) { log::Level::Debug } else { log::Level::Warn };
                    log::log!(level, "sync: {}", Event::Close(error.clone()));
                    self.troubled(error.to_string(), now);
                    self.said = Some(now);
                }
            }
        }
        if let Some(Peer { stream, greeting, rest }) = peer {
            self.guests.clear();
            self.link = Some(Link::of_peer(stream, now));
            self.node.meet(now, engine, greeting);
            self.node.handle_input(now, engine, &rest);
        }
    }

    fn connect(&mut self, registry: &Registry, now: Instant) {
        if self.listener.is_some() || self.link.is_some() || now < self.retry {
            return;
        }
        self.retry = now + RETRY;
        match socket::connect(&self.settings) {
            Ok(stream) => self.link = Link::new(stream, registry, Token(self.token.0 + 1), now),
            Err(error) => self.troubled(io::Error::from(error).to_string(), now),
        }
    }

    fn lost(&mut self, engine: &mut Engine, why: String, now: Instant) {
        let was_made = self.link.take().is_some_and(|link| link.is_open());
        self.node.disconnected(now, engine);
        let was_connected = self.facts.connected.take().is_some();
        if was_connected {
            log::warn!("sync: the connection to {} has ended: {why}", self.settings.peer);
        }
        // That the peer closes it says less than why this gateway did.
        if was_connected {
            self.troubled(why, now);
        } else if self.said.is_none_or(|said| now.since(said) >= REASON) {
            // Where nobody has accepted it, nobody knows more.
            let tail = if was_made { "; `eqctl sync` there may say more" } else { "" };
            self.troubled(format!("{why}{tail}"), now);
        }
        self.retry = now + RETRY;
    }

    fn troubled(&mut self, why: String, now: Instant) {
        match &mut self.facts.trouble {
            Some((_, text)) => *text = why,
            None => self.facts.trouble = Some((now, why)),
        }
    }

    /// Returns whether this gateway has become active.
    fn take_events(&mut self, engine: &mut Engine, ledger: &mut Ledger, now: Instant) -> bool {
        let mut is_active = false;
        while let Some(event) = self.node.poll_event() {
            let is_quiet = matches!(event, Event::Close(_)) && self.facts.connected.is_none() && self.is_quiet(now);
            if self.repeats.came(&event, now) {
                log::log!(if is_quiet { log::Level::Debug } else { level(&event) }, "sync: {event}");
            }
            match event {
                Event::Connected { differs, .. } => {
                    self.facts.differs = differs;
                    self.facts.connected = Some(now);
                    self.facts.connections += 1;
                    self.facts.trouble = None;
                }
                Event::Close(error) => {
                    self.link = None;
                    self.facts.connected = None;
                    self.troubled(error.to_string(), now);
                    self.said = Some(now);
                    self.retry = now + GRACE;
                }
                Event::Role { role, .. } => {
                    ledger.saw_pair(now, format!("this gateway is {}", role.name()));
                    if role == Role::Active {
                        let silent = self.heard.map(|heard| now.since(heard));
                        let (flows, whole) = (engine.counters().flows, self.node.knows_all());
                        self.facts.takeover = Some(Takeover { at: now, flows, whole, silent });
                        is_active = true;
                    }
                }
                Event::Hosts { .. } => self.has_other_hosts = true,
                _ => {}
            }
        }
        while let Some((event, times)) = self.repeats.poll(now) {
            let tail = if times > 1 { format!("; the last of {times} such events") } else { String::new() };
            log::log!(level(&event), "sync: {event}{tail}");
        }
        is_active
    }

    /// Returns whether the log said a moment ago why a connection was closed: repeated attempts must not fill the log.
    fn is_quiet(&mut self, now: Instant) -> bool {
        let is_quiet = self.complained.is_some_and(|at| now.since(at) < QUIET);
        self.complained = self.complained.filter(|_| is_quiet).or(Some(now));
        is_quiet
    }

    /// Tells keepalived whether this gateway may be elected.
    fn tell(&mut self) {
        let role = self.role();
        let fitness = match role {
            Role::Active | Role::Standby | Role::Ready => Fitness::Fit,
            Role::Learning => Fitness::Rather,
            // Until the peer knows everything, it stays with this one.
            Role::Yielding => {
                if self.node.has_yielded() {
                    Fitness::Rather
                } else {
                    Fitness::Fit
                }
            }
        };
        self.track.iter_mut().for_each(|track| track.tell(fitness));
    }
}

/// How an event is logged.
fn level(event: &Event) -> log::Level {
    match event {
        Event::Close(_) | Event::Ready { whole: false } | Event::Differs { .. } => log::Level::Warn,
        Event::Connected { differs: true, .. } | Event::Refuses { .. } | Event::ClearDropped => log::Level::Warn,
        Event::Follows { on: true, own: 1.. } => log::Level::Warn,
        _ => log::Level::Info,
    }
}

/// Fills `bytes` with random numbers.
fn random(bytes: &mut [u8]) -> io::Result<()> {
    let filled = getrandom(&mut *bytes, GetRandomFlags::empty())?;
    if filled == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Draws a nonce.
fn nonce() -> Option<[u8; 32]> {
    let mut nonce = [0; 32];
    random(&mut nonce).ok().map(|()| nonce)
}
