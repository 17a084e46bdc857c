//! The side that hands over: between packets it writes the copy in portions, as the other side reads it.

use super::super::error::GatewayError;
use super::super::event_loop::BEGIN;
use super::super::peer;
use super::super::private_socket::PrivateSocket;
use super::frames::{self, Frame, Kind, PORTION};
use super::{Changes, Hello, Leftovers, Offer, PATIENCE, STANDSTILL, nanos_since_boot, passing};
use crate::config::GatewaySettings;
use crate::control::Ledger;
use crate::engine::{Engine, StateCopy};
use crate::time::{Duration, Instant};
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Slots that one portion looks at, while packets wait: see `cargo bench --bench state`.
const SLOTS: usize = 2048;
/// The time between two portions: they take a tenth of the time.
const PAUSE: Duration = Duration::from_millis(1);
/// The time between two passes while the other side is not ready.
const REST: Duration = Duration::from_millis(50);
/// A pass with fewer records than this is short enough to be the last but one.
const FEW: u64 = 512;
/// After so many passes the next is the last one, however long they are.
const MOST_PASSES: u32 = 12;
/// After this time a connection that says nothing makes room for another one.
const IDLE: Duration = Duration::from_secs(1);
/// How long the end of this gateway waits for a takeover that is under way. A service manager kills it after 30 s
/// (`TimeoutStopSec=` of the unit), and there is more to do until then.
const STOP: Duration = Duration::from_secs(5);
/// The most bytes that one call reads from the other side.
const READ: usize = 4096;

/// What the driver has to do for the giver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Handing {
    /// Nothing.
    Nothing,
    /// Call [`Giver::offer`]: somebody asks to take over.
    Asked,
    /// Call again at once: there is more to write.
    More,
    /// Handle no packet any more and call [`Giver::hand_over`].
    Over,
}

/// Hands over to whoever asks for it.
#[derive(Debug)]
pub(in crate::gateway) struct Giver {
    socket: PrivateSocket,
    peer: Option<Peer>,
    token: Token,
    settings: GatewaySettings,
    /// Closed with this process alone: by its other end the other side tells whether this gateway lives.
    life: (PipeReader, PipeWriter),
    /// Since when this gateway is to end.
    stops: Option<Instant>,
}

/// The gateway that takes over.
#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    name: String,
    held: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    readable: bool,
    writable: bool,
    stage: Stage,
    /// When it last did something.
    moved: Instant,
}

#[derive(Debug)]
enum Stage {
    Connected,
    /// It has said what it is, and fits.
    Asking {
        /// Whether it can use the keys of replies.
        uses_keys: bool,
    },
    Offered,
    Copying {
        copy: Box<StateCopy>,
        passes: u32,
        is_ready: bool,
        is_short: bool,
        due: Instant,
    },
}

impl Giver {
    /// Listens for those who want to take over.
    pub(in crate::gateway) fn bind(settings: &GatewaySettings) -> Result<Giver, GatewayError> {
        let socket = PrivateSocket::bind(&super::socket(&settings.control_socket))?;
        Giver::new(socket, settings)
    }

    /// Listens at a socket that it has taken over itself.
    pub(in crate::gateway) fn new(socket: PrivateSocket, settings: &GatewaySettings) -> Result<Giver, GatewayError> {
        let life = io::pipe().map_err(GatewayError::io("make a pipe"))?;
        Ok(Giver { socket, peer: None, token: Token(0), settings: settings.clone(), life, stops: None })
    }

    /// Registers the listener under `token`, and a connection under the next one.
    pub(in crate::gateway) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.token = token;
        registry.register(self.socket.listener(), token, Interest::READABLE)
    }

    /// Returns whether a token is one of its own.
    pub(in crate::gateway) fn has(&self, token: Token) -> bool {
        (self.token.0..=self.token.0 + 1).contains(&token.0)
    }

    /// Returns whether the plan of the engine has to stay as it is.
    pub(in crate::gateway) fn is_copying(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| !matches!(peer.stage, Stage::Connected | Stage::Asking { .. }))
    }

    /// Returns when [`Giver::work`] has something to do without an event.
    pub(in crate::gateway) fn poll_timeout(&self) -> Option<Instant> {
        let peer = self.peer.as_ref()?;
        let late = self.stops.map_or(peer.moved + PATIENCE, |since| since + STOP);
        match &peer.stage {
            Stage::Copying { due, .. } if peer.sent >= peer.out.len() => Some(late.min(*due)),
            Stage::Connected | Stage::Asking { .. } | Stage::Offered | Stage::Copying { .. } => Some(late),
        }
    }

    /// Returns whether the end of this gateway, which somebody wants, has to wait: another process takes over, and who carries on
    /// is known soon. One that takes too long is given up.
    pub(in crate::gateway) fn delays_stop(&mut self, engine: &mut Engine, now: Instant) -> bool {
        if !self.is_copying() {
            return false;
        }
        let since = *self.stops.get_or_insert(now);
        if now < since + STOP {
            return true;
        }
        self.give_up(engine, &format!("this gateway has to stop, and has waited for {} s", STOP.as_secs()));
        false
    }

    /// Takes an event of one of its tokens.
    pub(in crate::gateway) fn ready(&mut self, token: Token, registry: &Registry, now: Instant) {
        if token == self.token {
            self.accept(registry, now);
        } else if let Some(peer) = &mut self.peer {
            (peer.readable, peer.writable) = (true, true);
        }
    }

    fn accept(&mut self, registry: &Registry, now: Instant) {
        while let Ok((mut stream, _)) = self.socket.listener().accept() {
            let who = peer::who(&stream).ok();
            let own = rustix::process::geteuid().as_raw();
            let may = who.is_some_and(|who| who.uid == own || who.uid == 0);
            let refused = match (may, &self.peer) {
                (false, _) => Some("only the user of the running gateway may take over from it".to_owned()),
                (true, Some(other)) if !other.is_idle(now) => Some(format!("{} is taking over already", other.name)),
                (true, _) => None,
            };
            if let Some(text) = refused {
                let _ = frames::write(&mut stream, Kind::Refused, text.as_bytes());
                continue;
            }
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = registry.register(&mut stream, Token(self.token.0 + 1), interest) {
                log::warn!("cannot watch a connection for a takeover: {error}");
                continue;
            }
            let name = who.map_or_else(|| "a process".into(), |who| format!("process {}", who.pid));
            self.peer = Some(Peer {
                stream,
                name,
                held: Vec::new(),
                out: Vec::new(),
                sent: 0,
                readable: true,
                writable: true,
                stage: Stage::Connected,
                moved: now,
            });
        }
    }

    /// Does one step: reads what the other side says, and writes a portion of the copy.
    pub(in crate::gateway) fn work(&mut self, engine: &mut Engine, now: Instant) -> Handing {
        let Some(peer) = &mut self.peer else { return Handing::Nothing };
        let worked = peer.work(engine, &self.settings, now);
        let late = now.since(peer.moved) >= PATIENCE;
        match worked {
            Ok(_) if late => self.give_up(engine, &format!("it did nothing for {} s", PATIENCE.as_secs())),
            Ok(handing) => return handing,
            Err(why) => self.give_up(engine, &why),
        }
        Handing::Nothing
    }

    /// Carries on; the other process and the log get the reason.
    fn give_up(&mut self, engine: &mut Engine, why: &str) {
        engine.end_copy();
        if let Some(mut peer) = self.peer.take() {
            if !matches!(peer.stage, Stage::Connected) {
                let then = if self.stops.is_some() { "" } else { "; this gateway carries on" };
                log::warn!("{} has not taken over: {why}{then}", peer.name);
            }
            // Not into the middle of what waits for it: then it hears only that the connection ends, and that this process
            // does not.
            if peer.sent >= peer.out.len() {
                let _ = frames::write(&mut peer.stream, Kind::Refused, why.as_bytes());
            }
        }
    }

    /// Answers who asks to take over with what it needs before the copy, and the descriptors: control socket, socket of
    /// takeovers, pipe, queues of the device, the keys of replies.
    pub(in crate::gateway) fn offer(
        &mut self,
        engine: &mut Engine,
        offer: OfferOf,
        control: &PrivateSocket,
        (queues, keys): (&[BorrowedFd<'_>], Option<BorrowedFd<'_>>),
    ) {
        let Some(peer) = &mut self.peer else { return };
        let keys = keys.filter(|_| matches!(peer.stage, Stage::Asking { uses_keys: true }));
        let offer = Offer::new(offer, (control.has_made(), keys.is_some()), Hello::new(&self.settings));
        let body = serde_json::to_vec(&offer).unwrap_or_default();
        let mut out = Vec::new();
        frames::append(&mut out, Kind::Offer, &body);
        // The descriptors go with the first byte; the rest may be longer than what the socket holds.
        let own = [control.as_fd(), self.socket.as_fd(), self.life.0.as_fd()];
        let all: Vec<BorrowedFd<'_>> = own.into_iter().chain(queues.iter().copied()).chain(keys).collect();
        match passing::send(&peer.stream, &out[..1], &all) {
            Ok(()) => {
                out.drain(..1);
                (peer.out, peer.sent, peer.stage) = (out, 0, Stage::Offered);
                log::info!("{} is about to take over", peer.name);
            }
            Err(error) => self.give_up(engine, &format!("the device cannot be passed: {error}")),
        }
    }

    /// Writes what is left of the copy and lets the other side serve; returns whether it does. The other side also makes the
    /// reload that a signal has asked for meanwhile. No packet may be handled while
    /// this runs, nor after it if it returns true.
    pub(in crate::gateway) fn hand_over(
        &mut self,
        registry: &Registry,
        (engine, ledger, is_reload_asked): (&mut Engine, &Ledger, bool),
        now: Instant,
    ) -> bool {
        let Some(mut peer) = self.peer.take() else { return false };
        let began = std::time::Instant::now();
        let _ = registry.deregister(&mut peer.stream);
        let Stage::Copying { copy, .. } = &mut peer.stage else { return false };
        let mut bytes = Vec::new();
        let records = engine.finish_copy(copy, now, &mut bytes);
        let stream = std::os::unix::net::UnixStream::from(OwnedFd::from(peer.stream));
        let changes = Changes { is_reload_asked, ..Changes::of(ledger, now) };
        let changes = serde_json::to_vec(&changes).unwrap_or_default();
        match pass_on(&stream, (&bytes, &changes), began) {
            Ok(()) => {}
            Err(why) => {
                engine.end_copy();
                let _ = frames::write(&mut &stream, Kind::Refused, why.as_bytes());
                log::warn!("{} has not taken over: {why}; this gateway carries on", peer.name);
                return false;
            }
        }
        if serves(&stream, &peer.name) {
            let stood = began.elapsed();
            log::info!(
                "{} has taken over; the last {records} records and the word took {:.1} ms",
                peer.name,
                stood.as_secs_f64() * 1e3
            );
            return true;
        }
        engine.end_copy();
        log::warn!("{} ended before it served; this gateway carries on", peer.name);
        false
    }

    /// Returns the settings that the other side must share.
    pub(in crate::gateway) fn settings(&self) -> &GatewaySettings {
        &self.settings
    }

    /// Makes a socket that it has taken over its own.
    pub(in crate::gateway) fn own(&mut self) {
        self.socket.own();
    }

    /// Leaves the socket to the gateway that has taken over.
    pub(in crate::gateway) fn leave(&mut self) {
        self.socket.leave();
    }
}

/// What an offer says of the running gateway.
#[derive(Debug)]
pub(in crate::gateway) struct OfferOf {
    pub seed: u64,
    pub found: String,
    pub leftovers: Leftovers,
    pub proxying: Vec<(String, String)>,
    pub changes: Changes,
    /// Its role, if it is one of a pair.
    pub role: Option<String>,
    /// For how long it still looks for connections of the gateway before it.
    pub youth: Option<Duration>,
}

/// Writes the last of the copy, and the word once the other side has read it.
fn pass_on(
    mut stream: &std::os::unix::net::UnixStream,
    (records, changes): (&[u8], &[u8]),
    began: std::time::Instant,
) -> Result<(), String> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("it took longer than {} s to read the last of the state", STANDSTILL.as_secs())
        }
        _ => error.to_string(),
    };
    stream.set_nonblocking(false).map_err(failed)?;
    let left = || STANDSTILL.checked_sub(began.elapsed()).filter(|left| !left.is_zero());
    let patient = || {
        let left = left().ok_or(io::Error::from(ErrorKind::TimedOut))?;
        stream.set_write_timeout(Some(left)).and_then(|()| stream.set_read_timeout(Some(left)))
    };
    for portion in records.chunks(PORTION) {
        patient().and_then(|()| frames::write(&mut stream, Kind::State, portion)).map_err(failed)?;
    }
    patient().and_then(|()| frames::write(&mut stream, Kind::Last, changes)).map_err(failed)?;
    match patient().and_then(|()| frames::read(&mut stream)).map_err(failed)? {
        Some(Frame { kind: Kind::Commit, .. }) => {}
        Some(frame) if frame.kind == Kind::Refused => return Err(frame.text()),
        Some(frame) => return Err(format!("it answers {} instead of COMMIT", frame.kind)),
        None => return Err("it has ended".into()),
    }
    frames::write(&mut stream, Kind::Yours, b"").map_err(failed)
}

/// Waits until the other side serves, or ends: then the packets are ours again. One that hangs keeps them, as it may go on at
/// any time.
fn serves(mut stream: &std::os::unix::net::UnixStream, name: &str) -> bool {
    let most = Timespec { tv_sec: STANDSTILL.as_secs() as i64, tv_nsec: 0 };
    if poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&most)) == Ok(0) {
        log::warn!(
            "{name} has the packets and does not serve: none is handled until it goes on or ends; if it hangs, kill it \
             (SIGKILL), and this gateway carries on"
        );
    }
    let _ = stream.set_read_timeout(None);
    matches!(frames::read(&mut stream), Ok(Some(Frame { kind: Kind::Serving, .. })))
}

impl Peer {
    /// Returns whether it has connected and says nothing.
    fn is_idle(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Connected) && now.since(self.moved) >= IDLE
    }

    fn work(&mut self, engine: &mut Engine, settings: &GatewaySettings, now: Instant) -> Result<Handing, String> {
        self.read(now)?;
        while let Some(frame) = frames::take(&mut self.held).map_err(|error| error.to_string())? {
            self.take(&frame, engine, settings, now)?;
        }
        self.write(now)?;
        if matches!(self.stage, Stage::Asking { .. }) {
            return Ok(Handing::Asked);
        }
        let idle = self.sent >= self.out.len();
        let Stage::Copying { copy, passes, is_ready, is_short, due } = &mut self.stage else {
            return Ok(Handing::Nothing);
        };
        if !idle {
            return Ok(if self.writable { Handing::More } else { Handing::Nothing });
        }
        if *is_ready && (*is_short || *passes >= MOST_PASSES) {
            return Ok(Handing::Over);
        }
        if *due > now {
            return Ok(Handing::Nothing);
        }
        let mut bytes = Vec::new();
        let written = engine.write_copy(copy, now, SLOTS, &mut bytes);
        self.out.clear();
        self.sent = 0;
        for portion in bytes.chunks(PORTION) {
            frames::append(&mut self.out, Kind::State, portion);
        }
        *due = now + PAUSE;
        if let Some(written) = written {
            *passes += u32::from(*is_ready);
            *is_short = written < FEW;
            if !*is_ready {
                *due = now + REST;
            }
            frames::append(&mut self.out, Kind::Pass, b"");
        }
        self.moved = if *is_ready { now } else { self.moved };
        self.write(now)?;
        Ok(Handing::More)
    }

    fn take(
        &mut self,
        frame: &Frame,
        engine: &mut Engine,
        settings: &GatewaySettings,
        now: Instant,
    ) -> Result<(), String> {
        match (frame.kind, &mut self.stage) {
            (Kind::Hello, Stage::Connected) => {
                let hello: Hello = frame.value().map_err(|error| format!("its HELLO is wrong: {error}"))?;
                if let Some(why) = hello.unfit(settings) {
                    return Err(why);
                }
                self.name = format!("{}, version {}", self.name, hello.program);
                self.stage = Stage::Asking { uses_keys: hello.uses_keys };
            }
            (Kind::Begin, Stage::Offered) => {
                let copy = engine.begin_copy(now).map_err(|error| error.to_string())?;
                // Times in the copy are relative to this one, which both processes read from the machine's clock.
                frames::append(&mut self.out, Kind::Begin, &nanos_since_boot().to_be_bytes());
                let copy = Box::new(copy);
                self.stage = Stage::Copying { copy, passes: 0, is_ready: false, is_short: false, due: BEGIN };
            }
            (Kind::Ready, Stage::Copying { is_ready, is_short, .. }) => (*is_ready, *is_short) = (true, false),
            (Kind::Refused, _) => return Err(frame.text()),
            (kind, _) => return Err(format!("it says {kind} at the wrong time")),
        }
        Ok(())
    }

    fn read(&mut self, now: Instant) -> Result<(), String> {
        let mut bytes = [0; READ];
        while self.readable {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err("it has ended".into()),
                Ok(read) => {
                    self.held.extend(&bytes[..read]);
                    self.moved = now;
                    if self.held.len() > READ * 4 {
                        return Err("it says too much".into());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn write(&mut self, now: Instant) -> Result<(), String> {
        while self.writable && self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err("it has ended".into()),
                Ok(sent) => (self.sent, self.moved) = (self.sent + sent, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}
