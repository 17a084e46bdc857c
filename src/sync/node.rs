//! One gateway of a pair: its role, its term, and its timers.
//!
//! ```text
//!             learned, or the deadline                  command
//!   Learning -------------------------> Ready ----------------------> Active <--> Yielding
//!                                         |                             ^  |
//!                                         `----------> Standby <--------'--'
//! ```

use super::book::Book;
use super::clear::Clearing;
use super::echo::Echoes;
use super::event::Event;
use super::greeting::Greeting;
use super::hold::Holding;
use super::link::{GREETING_TIME, Link, LinkError, SILENCE};
use super::proof::hash_key;
use super::refuse::Refusals;
use super::wire::{Hello, MOST_NAME};
use crate::engine::{Duty, Engine};
use crate::flow::{Key, Share, TableTooBig};
use crate::time::{Duration, Instant};
use std::collections::{HashMap, VecDeque};

/// Maximum number of queued events.
const MOST_EVENTS: usize = 256;
/// For how long after a gateway has begun or ceased to be active no segment of an unknown connection is answered: its handshake
/// may have been under way there.
const HANDSHAKES: Duration = Duration::from_secs(60);
/// How often nothing much is done while a connection lasts.
const TICK: Duration = Duration::from_millis(100);
/// Servers whose standing the engine acts on in one call.
const SERVERS_AT_ONCE: usize = 512;

crate::words::words! {
    /// The role of a gateway in its pair.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Role {
        /// It has just started, and asks its peer for everything.
        Learning = "learning",
        /// It knows what its peer knows, or has waited for long enough.
        Ready = "ready",
        /// It forwards, and tells its peer.
        Active = "active",
        /// It knows the flows of the active one, and answers nothing.
        Standby = "standby",
        /// It forwards until its peer knows everything and takes over.
        Yielding = "yielding",
    }
}

impl Role {
    pub(super) const fn number(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn of(number: u8) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.number() == number)
    }

    /// Returns whether it forwards for everybody.
    pub const fn is_active(self) -> bool {
        matches!(self, Role::Active | Role::Yielding)
    }
}

/// The word of whoever elects the active gateway: VRRP, BGP, or an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Forward from now on.
    Activate,
    /// Stand by from now on.
    StandBy,
    /// Have the peer take over as soon as it knows everything; forward until then.
    Yield,
}

/// What a node is told at its start.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// The name of this gateway; at most 200 bytes.
    pub node: String,
    /// The name of its peer. Of both, the one whose name comes first has the first half of the NAT ports, and wins where
    /// terms are equal.
    pub peer: String,
    /// The key that both share.
    pub key: Vec<u8>,
    /// A random number that differs from start to start; not 0.
    pub instance: u64,
    /// A hash of what the configuration says about flows: a difference is reported.
    pub fingerprint: u64,
    /// For how long it waits for its peer at its start.
    pub learning: Duration,
}

/// The state of a node, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The role of the peer, if connected.
    pub peer: Option<Role>,
    /// Whether both know what the other knows.
    pub in_step: bool,
    /// Whether the digests have agreed since the connection began. Only a gateway that is not active compares.
    pub agreed: bool,
    /// Frames that the peer has not acknowledged.
    pub lag: u64,
    /// Flows that the peer has announced for its last pass, and those that came.
    pub progress: [u32; 2],
    /// Records, fields and frames of the peer that this version does not know.
    pub skipped: u64,
    /// The xor of all digests: equal at both when both know the same.
    pub digest: u64,
}

/// One gateway of a pair.
///
/// The driver calls [`Node::connected`] and [`Node::disconnected`], passes on what it reads, sends what
/// [`Node::poll_output`] appends, and calls [`Node::handle_timeout`] when [`Node::poll_timeout`] says so, always with the
/// engine that the node belongs to.
#[derive(Debug)]
pub struct Node {
    pub(super) settings: SyncSettings,
    pub(super) role: Role,
    pub(super) term: u64,
    pub(super) seen_term: u64,
    learned: bool,
    deadline: Instant,
    pub(super) link: Option<Box<Link>>,
    pub(super) book: Book,
    /// The instance of the peer with which this one was last in step, or 0.
    pub(super) in_step_with: u64,
    /// The instance of the peer that the book is about.
    peer_instance: u64,
    pub(super) peer_role: Option<Role>,
    active_since: Instant,
    /// When the peer was last known to be active.
    peer_was_active: Option<Instant>,
    /// Whether this gateway has been active and the peer has not since both were in step.
    pub(super) is_steady: bool,
    /// Since when the peer has not been there.
    alone_since: Instant,
    share: Option<Share>,
    /// Whether servers have another standing than the engine acts on.
    pub(super) took_standing: bool,
    /// Keys of the replies of flows that were taken, if somebody asks for them.
    pub(super) reply_keys: Option<VecDeque<Key>>,
    /// When the engine may act on it: it looks at all servers; and the one that it has come to.
    standing_after: Instant,
    standing_at: Option<usize>,
    /// Whether what has changed in the engine has been read for the input at hand.
    pub(super) has_harvested: bool,
    pub(super) holding: Holding,
    pub(super) echoes: Echoes,
    pub(super) clearing: Clearing,
    pub(super) refusals: Refusals,
    /// Whether a standby is to have the servers' health from the active gateway; if it has all of it, how many addresses and
    /// ports it probes all the same.
    pub(super) follows_health: bool,
    pub(super) follows: Option<usize>,
    events: VecDeque<Event>,
}

impl Node {
    /// Creates the node of an engine, which stands by from now on and notes what changes.
    ///
    /// # Errors
    /// If the system refuses the memory.
    pub fn new(settings: SyncSettings, now: Instant, engine: &mut Engine) -> Result<Node, TableTooBig> {
        debug_assert!(settings.node.len() <= MOST_NAME && settings.instance != 0, "{settings:?}");
        engine.note_flow_changes()?;
        engine.set_duty(now, Duty::Standby);
        let mut node = Node {
            book: Book::new(hash_key(&settings.key), engine.flow_capacity()),
            role: Role::Learning,
            term: 0,
            seen_term: 0,
            learned: false,
            deadline: now + settings.learning,
            link: None,
            in_step_with: 0,
            peer_instance: 0,
            peer_role: None,
            active_since: now,
            peer_was_active: None,
            is_steady: false,
            alone_since: now,
            share: None,
            took_standing: false,
            reply_keys: None,
            standing_after: now,
            standing_at: None,
            has_harvested: false,
            holding: Holding::default(),
            echoes: Echoes::default(),
            clearing: Clearing::default(),
            refusals: Refusals::default(),
            follows_health: false,
            follows: None,
            events: VecDeque::new(),
            settings,
        };
        node.settle(now, engine);
        Ok(node)
    }

    /// Returns the state.
    pub fn status(&self) -> Status {
        let link = self.link.as_deref();
        Status {
            role: self.role,
            term: self.term,
            peer: self.peer_role.filter(|_| link.is_some()),
            in_step: link.is_some_and(Link::in_step),
            agreed: link.is_some_and(|link| link.agreed),
            lag: link.map_or(0, |link| link.sent - link.acked),
            progress: link.map_or([0; 2], |link| [link.announced, link.came]),
            skipped: link.map_or(0, |link| link.skipped + link.taking.not_understood()),
            digest: self.book.digests().iter().fold(0, |all, digest| all ^ digest),
        }
    }

    /// Returns a slot, out of `most` from one on, whose flow is other than the peer was told, although nothing is noted to be
    /// told; and where to go on. There is none, unless the program is wrong; the flow is told again then.
    pub fn audit(&mut self, engine: &mut Engine, from: u32, most: u32) -> (Option<u32>, u32) {
        self.book.harvest(engine);
        let end = engine.flow_slots().min(from.saturating_add(most));
        for slot in from..end {
            let told = self.book.told(slot);
            let there = engine.flow_mark(slot).map_or(0, |mark| self.book.hash(&mark).1);
            if told != 0 && told != there && !self.book.pending.has(slot) && !self.book.dead.has(slot) {
                self.book.pending.set(slot);
                return (Some(slot), slot + 1);
            }
        }
        (None, if end >= engine.flow_slots() { 0 } else { end })
    }

    /// Returns its role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns how many bytes it keeps: of what both know of each flow, and of what waits for the connection.
    pub fn memory(&self) -> usize {
        self.book.memory() + self.holding.memory() + self.echoes.memory() + self.link.as_deref().map_or(0, Link::memory)
    }

    /// Returns whether it may be elected.
    pub fn is_ready(&self) -> bool {
        self.learned
    }

    /// Returns whether it knew all flows of its peer when it last heard of it, as far as it had been told.
    pub fn knows_all(&self) -> bool {
        self.in_step_with != 0
    }

    /// Returns whether its peer has been asked to take over, and knows everything.
    pub fn has_yielded(&self) -> bool {
        self.role == Role::Yielding && self.link.as_deref().is_some_and(|link| link.yielded == Some(0))
    }

    /// Takes note of another configuration: the fingerprint of the next connection.
    pub fn configured(&mut self, fingerprint: u64) {
        self.settings.fingerprint = fingerprint;
    }

    /// Takes the word of whoever elects the active gateway.
    pub fn command(&mut self, now: Instant, engine: &mut Engine, command: Command) {
        let role = match command {
            Command::Activate => Role::Active,
            Command::StandBy if self.learned => Role::Standby,
            Command::StandBy => Role::Learning,
            Command::Yield if self.role == Role::Active => Role::Yielding,
            Command::Yield => self.role,
        };
        if role == self.role {
            return;
        }
        self.book.harvest(engine);
        if role.is_active() && !self.role.is_active() {
            self.term = self.term.max(self.seen_term).saturating_add(1);
            self.active_since = now;
        }
        let was = std::mem::replace(&mut self.role, role);
        if let Some(link) = &mut self.link {
            link.ack_now = true;
            // Handshakes that began a moment ago follow at once.
            link.switched = was == Role::Yielding && role == Role::Standby;
            if link.switched {
                link.next_flush = now;
            } else {
                link.half_told = HashMap::new();
            }
            link.yielded = None;
        }
        if was.is_active() != role.is_active()
            && let Some(mut link) = self.link.take()
        {
            self.forget_health(&mut link);
            self.link = Some(link);
        }
        self.report(Event::Role { role, term: self.term });
        self.settle(now, engine);
    }

    /// Begins a connection; `nonce` is random. One that is under way ends.
    pub fn connected(&mut self, now: Instant, engine: &mut Engine, nonce: [u8; 32]) {
        self.disconnected(now, engine);
        self.link = Some(self.begin(now, engine, nonce));
    }

    /// Begins a connection beside the present one; `nonce` is random. It counts once whoever is at its other end has proved that
    /// he is the peer: [`Node::meet`].
    pub fn greet(&self, now: Instant, engine: &Engine, nonce: [u8; 32]) -> Greeting {
        Greeting(self.begin(now, engine, nonce))
    }

    /// Goes on with a connection whose other end is the peer. One that is under way ends.
    pub fn meet(&mut self, now: Instant, engine: &mut Engine, Greeting(mut link): Greeting) {
        self.disconnected(now, engine);
        if let Some(hello) = link.hello.clone().filter(|_| link.proved) {
            link.heard = now;
            self.proved(engine, &mut link, &hello);
            self.link = Some(link);
        }
        self.settle(now, engine);
    }

    /// The peer has proved who it is.
    pub(super) fn proved(&mut self, engine: &mut Engine, link: &mut Link, hello: &Hello) {
        self.met(hello);
        link.want_health = self.follows_health;
        self.begin_bulk(engine, link, hello);
    }

    fn begin(&self, now: Instant, engine: &Engine, nonce: [u8; 32]) -> Box<Link> {
        let hello = Hello {
            node: self.settings.node.clone(),
            instance: self.settings.instance,
            nonce,
            fingerprint: self.settings.fingerprint,
            seen_term: self.term.max(self.seen_term),
            in_step_with: self.in_step_with,
            role: self.role.number(),
        };
        let (giving, taking) = (engine.begin_giving(now), engine.begin_taking(now));
        Box::new(Link::new(now, &hello, giving, taking))
    }

    /// Ends the connection.
    pub fn disconnected(&mut self, now: Instant, engine: &mut Engine) {
        if self.link.take().is_some_and(|link| link.proved) {
            self.alone_since = now;
        }
        self.peer_role = None;
        self.settle(now, engine);
    }

    /// Returns whether both were in step before, so that what one lacks has ended there.
    pub(super) fn resumes(&self, hello: &Hello) -> bool {
        self.in_step_with == hello.instance && hello.in_step_with == self.settings.instance
    }

    fn met(&mut self, hello: &Hello) {
        let resumes = self.resumes(hello);
        self.seen_term = self.seen_term.max(hello.seen_term);
        self.peer_role = Role::of(hello.role);
        self.raise();
        self.clearing.met(self.peer_instance != hello.instance);
        self.refusals = Refusals::default();
        self.book.begin(self.peer_instance != hello.instance, resumes);
        if self.peer_instance != hello.instance {
            self.peer_instance = hello.instance;
        }
        self.report(Event::Connected { differs: hello.fingerprint != self.settings.fingerprint, resumes });
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, engine: &mut Engine) {
        if let Some(link) = &self.link {
            let late = !link.proved && now.since(link.since) >= GREETING_TIME;
            if late || now.since(link.heard) >= SILENCE {
                self.close(now, engine, LinkError::Silent);
            }
        }
        if self.standing_at.is_none() && now >= self.standing_after && std::mem::take(&mut self.took_standing) {
            (self.standing_after, self.standing_at) = (now + TICK, Some(0));
        }
        if let Some(at) = self.standing_at {
            self.standing_at = engine.took_standing(now, at, SERVERS_AT_ONCE);
        }
        self.sweep(now, engine);
        self.clear_more(now, engine);
        self.ask_health_again(now, engine);
        if !self.learned && now >= self.deadline {
            self.ready(false);
        }
        self.release_due(now);
        self.settle(now, engine);
    }

    /// Notes that an operator has changed something at run time, which the peer is to know.
    pub fn standing_changed(&mut self) {
        if let Some(link) = &mut self.link {
            link.giving.name_again();
        }
    }

    /// Returns when [`Node::handle_timeout`] next has something to do, and [`Node::poll_output`] unless the connection cannot
    /// take more, as `is_blocked` says.
    pub fn poll_timeout(&self, now: Instant, is_blocked: bool) -> Option<Instant> {
        if self.standing_at.is_some() || self.clearing.has_work() {
            return Some(now);
        }
        let deadline = (!self.learned).then_some(self.deadline);
        let of_link = self.link.as_deref().map(|link| {
            let has_news = || self.holding.has_news() || self.clearing.has_news();
            let is_waiting = link.proved && (link.ack_now || has_news()) || !link.ready.is_empty();
            if link.sweep.is_some() || !is_blocked && is_waiting {
                return now;
            }
            // One that is not active has a pass of its own to give, too.
            let gives = self.role.is_active() || link.bulk.is_some() || link.has_more;
            // A peer that hears nothing gives the connection up, also if neither is active.
            let due = if gives { link.next_flush.min(link.next_ack) } else { link.next_ack };
            if link.proved && !is_blocked { due.max(now).min(now + TICK) } else { now + TICK }
        });
        let alone = (self.role.is_active() && self.link.is_none()).then(|| now + Duration::from_secs(1));
        [deadline, of_link, alone, self.holding.due()].into_iter().flatten().min()
    }

    /// Makes [`Node::poll_reply_key`] return something; initially it does not.
    pub fn collect_reply_keys(&mut self) {
        self.reply_keys.get_or_insert_default();
    }

    /// Returns the key of the replies of a flow that was taken from the peer. To be called after [`Node::handle_input`] until
    /// there is none: they are kept, however many.
    pub fn poll_reply_key(&mut self) -> Option<Key> {
        self.reply_keys.as_mut()?.pop_front()
    }

    /// Returns the next event. At most 256 are queued; further ones are lost, unless the driver has to act on them.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn report(&mut self, event: Event) {
        if let Event::Asked { times: more } = event
            && let Some(times) = self.events.iter_mut().find_map(Event::times)
        {
            *times = times.saturating_add(more);
            return;
        }
        // There is one for a connection.
        if self.events.len() < MOST_EVENTS || matches!(event, Event::Close(_)) {
            self.events.push_back(event);
        }
    }

    pub(super) fn close(&mut self, now: Instant, engine: &mut Engine, why: LinkError) {
        self.disconnected(now, engine);
        self.report(Event::Close(why));
    }

    pub(super) fn ready(&mut self, whole: bool) {
        if std::mem::replace(&mut self.learned, true) {
            return;
        }
        if self.role == Role::Learning {
            self.role = Role::Ready;
        }
        self.report(Event::Ready { whole });
    }

    /// Returns whether this gateway wins where both claim a flow. `term` is the peer's.
    pub(super) fn outranks(&self, term: u64) -> bool {
        (self.term, &self.settings.peer) > (term, &self.settings.node)
    }

    /// Takes a term above that of a peer that is not active: it has claims from before only.
    pub(super) fn raise(&mut self) {
        if self.role.is_active() && self.peer_role.is_some_and(|peer| !peer.is_active()) && self.seen_term >= self.term
        {
            self.term = self.seen_term.saturating_add(1);
        }
    }

    /// Returns whether this gateway is active and its peer is not, as far as it is known.
    pub(super) fn is_only_active(&self) -> bool {
        self.role.is_active() && !self.peer_role.is_some_and(Role::is_active)
    }

    /// Draws the consequences for the engine of where both are.
    pub(super) fn settle(&mut self, now: Instant, engine: &mut Engine) {
        let in_step = self.link.as_deref().is_some_and(Link::in_step);
        if in_step && self.in_step_with != self.peer_instance {
            self.in_step_with = self.peer_instance;
            self.report(Event::InStep);
        }
        self.raise();
        let peer_is_active = self.peer_role.is_some_and(Role::is_active);
        self.is_steady = self.role.is_active() && !peer_is_active && (self.is_steady || in_step);
        if peer_is_active {
            self.peer_was_active = Some(now);
        }
        let changed = self.peer_was_active.map_or(self.active_since, |at| at.max(self.active_since));
        let duty = match self.role.is_active() {
            false => Duty::Standby,
            true if in_step && now.since(changed) >= HANDSHAKES => Duty::Full,
            true => Duty::Known,
        };
        if engine.duty() != duty {
            engine.set_duty(now, duty);
        }
        self.settle_health(now, engine);
        self.settle_clients();
        let is_alone = self.link.as_deref().is_none_or(|link| !link.proved);
        let quiet_since = self.active_since.max(self.alone_since);
        let share = Share::Half {
            second: self.settings.node > self.settings.peer,
            borrows: self.role.is_active() && is_alone && now.since(quiet_since) >= engine.longest_hold(),
        };
        if self.share != Some(share) {
            engine.share_nat_ports(share);
            self.share = Some(share);
        }
    }
}
