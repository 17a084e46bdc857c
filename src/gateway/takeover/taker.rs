//! The side that takes over. Nothing else happens in its process meanwhile, so it simply waits for what it reads.

use super::super::bpf::marks::Keys;
use super::super::state::{add_servers, keep_changes};
use super::frames::{self, Frame, Kind};
use super::kept::{Kept, Recorded, name};
use super::{Changes, Hello, Offer, PATIENCE, on_the_clock, passing};
use crate::config::{GatewaySettings, Settings};
use crate::control::Ledger;
use crate::engine::{Engine, Loaded, Lost, StateError, StateLoad};
use crate::sources::{Found, SourceSettings};
use crate::sync::Role;
use crate::time::Instant;
use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

/// A gateway that hands over, from the side of the one that takes over.
#[derive(Debug)]
pub struct Taker {
    from: Box<dyn Giving>,
    offer: Offer,
    taken: Option<Taken>,
    /// The end of a pipe that the other process alone can close; none if it has ended before this one began.
    life: Option<OwnedFd>,
    /// Links of the BPF programs of a gateway that has ended, which mark the packets of flows until those of this one do.
    links: Vec<OwnedFd>,
    load: Option<StateLoad>,
    held: Vec<u8>,
    /// Whether the other side has ended without a word: what has been read is all there is.
    has_ended: bool,
    /// Whether operators have changed something since the offer.
    has_other_changes: bool,
}

/// What a gateway that hands over is read from, and told.
trait Giving: Read + Write + fmt::Debug {}

impl Giving for UnixStream {}
impl Giving for Recorded {}

/// What is taken over.
#[derive(Debug)]
pub(in crate::gateway) struct Taken {
    /// The listeners of the control socket and of takeovers; none if they went with the other process.
    pub listeners: Option<[OwnedFd; 2]>,
    /// Whether the directory of the control socket is to be removed in the end.
    pub made: bool,
    /// The queues of the device.
    pub queues: Vec<OwnedFd>,
    /// The keys of the replies of all flows, if they can be used here.
    pub keys: Option<Keys>,
}

/// How the reading of the copy ended.
#[derive(Debug)]
pub(in crate::gateway) enum Ended {
    /// With its end: what became of it.
    Whole(Loaded),
    /// The other gateway ended in the middle: why not all of it is known.
    Early(StateError),
}

/// Returns the keys that a descriptor is of, if it is of any: without them, they are made anew.
fn usable(keys: Option<OwnedFd>) -> Option<Keys> {
    let keys = Keys::from_passed(keys?);
    keys.inspect_err(|error| log::debug!("the keys of replies that are passed on cannot be used: {error}")).ok()
}

impl Taker {
    /// Asks the running gateway with these settings to hand over.
    ///
    /// # Errors
    /// Why there is none, or why it will not; it carries on then.
    pub fn ask(gateway: &GatewaySettings) -> Result<Taker, String> {
        let path = super::socket(&gateway.control_socket);
        let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => format!(
                "no gateway to take over from: nothing answers at {}; start this one without --takeover",
                path.display()
            ),
            _ => format!("cannot connect to {}: {error}", path.display()),
        })?;
        let failed = |error: io::Error| format!("the gateway at {} does not hand over: {error}", path.display());
        let patient = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        patient.map_err(failed)?;
        let hello = serde_json::to_vec(&Hello::new(gateway)).unwrap_or_default();
        match frames::write(&mut stream, Kind::Hello, &hello) {
            // It may have refused before it has read anything: why is to be read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            other => other.map_err(failed)?,
        }
        let (mut first, mut descriptors) = passing::receive(&stream, 1).map_err(failed)?;
        let frame = frames::read(&mut io::Read::chain(&first[..], &stream)).map_err(failed)?;
        first.clear();
        let frame = frame.ok_or_else(|| failed(ErrorKind::UnexpectedEof.into()))?;
        if frame.kind == Kind::Refused {
            return Err(format!("the running gateway does not hand over: {}", frame.text()));
        }
        let offer: Offer = match frame.kind {
            Kind::Offer => frame.value().map_err(failed)?,
            other => return Err(failed(io::Error::other(format!("it answers {other}")))),
        };
        let mut queues = descriptors.split_off(descriptors.len().min(3));
        let keys = if offer.keys { queues.pop() } else { None };
        let (Ok([control, takeover, life]), false) = (<[OwnedFd; 3]>::try_from(descriptors), queues.is_empty()) else {
            return Err(failed(io::Error::other("the device is missing")));
        };
        let taken = Taken { listeners: Some([control, takeover]), made: offer.made, queues, keys: usable(keys) };
        Ok(Taker::new(Box::new(stream), offer, taken, Some(life)))
    }

    /// Takes the place of a gateway that has ended and left this to the service manager.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn of_kept(mut kept: Kept, gateway: &GatewaySettings) -> Result<Taker, String> {
        let state: Result<[OwnedFd; 1], _> = kept.take(name::STATE).try_into();
        let [state] = state.map_err(|_| "the service manager has not kept the state")?;
        let queues = kept.take(name::QUEUE);
        if queues.is_empty() {
            return Err("the service manager has not kept the device".into());
        }
        let failed = |error: io::Error| format!("what the service manager has kept cannot be read: {error}");
        let mut from = Recorded::open(state).map_err(failed)?;
        let offer: Offer = match frames::read(&mut from).map_err(failed)? {
            Some(frame) if frame.kind == Kind::Offer => frame.value().map_err(failed)?,
            _ => return Err(failed(ErrorKind::UnexpectedEof.into())),
        };
        if let Some(why) = offer.hello.unfit(gateway) {
            return Err(why);
        }
        let taken = Taken { listeners: None, made: false, queues, keys: usable(kept.take(name::KEYS).pop()) };
        let mut taker = Taker::new(Box::new(from), offer, taken, None);
        taker.links = kept.take(name::LINK);
        Ok(taker)
    }

    fn new(from: Box<dyn Giving>, offer: Offer, taken: Taken, life: Option<OwnedFd>) -> Taker {
        Taker {
            from,
            offer,
            taken: Some(taken),
            life,
            links: Vec::new(),
            load: None,
            held: Vec::new(),
            has_ended: false,
            has_other_changes: false,
        }
    }

    /// Returns whether the other gateway had ended before this one began.
    pub fn is_of_kept(&self) -> bool {
        self.life.is_none()
    }

    /// Returns what the running gateway says of itself.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Adds the servers from outside that are in force in the running gateway, for sources that have found nothing yet.
    pub(in crate::gateway) fn add_servers(&self, settings: &[SourceSettings], found: &mut Found) {
        add_servers("takeover", self.offer.found.as_bytes(), settings, found);
    }

    /// Returns settings with what they lack and has flows in the running gateway.
    pub(in crate::gateway) fn with_removed(&self, settings: &Settings) -> Settings {
        let mut all = settings.clone();
        self.offer.leftovers.add_to(&mut all);
        all
    }

    /// Returns the networks that are the running gateway's own.
    pub(in crate::gateway) fn retired(&self) -> &[IpNet] {
        self.offer.leftovers.networks()
    }

    /// Returns whether operators have changed something since the offer.
    pub(in crate::gateway) fn has_other_changes(&self) -> bool {
        self.has_other_changes
    }

    /// Returns whether a signal has asked the other gateway for a reload that it has left to this one.
    pub(in crate::gateway) fn is_reload_asked(&self) -> bool {
        self.offer.changes.is_reload_asked
    }

    /// Makes what operators changed hold in a ledger that has only the file so far, and logs what does not.
    pub(in crate::gateway) fn load_changes(&self, ledger: &mut Ledger, now: Instant) {
        let (text, at) = (&self.offer.changes.text, on_the_clock(self.offer.changes.at, now));
        keep_changes("takeover", ledger, text.as_bytes(), (at, now));
    }

    /// Returns the role of the running gateway in its pair, if it has learned what its peer knows.
    pub(in crate::gateway) fn role(&self) -> Option<Role> {
        let known = Role::ALL.into_iter().find(|role| Some(role.name()) == self.offer.role.as_deref());
        known.filter(|role| *role != Role::Learning)
    }

    /// Returns until when connections of the gateway before the running one are looked for, if they are.
    pub(in crate::gateway) fn young_until(&self, now: Instant) -> Option<Instant> {
        self.offer.young_until(now)
    }

    /// Returns the values that `proxy_ndp` of interfaces had before the running gateway set them.
    pub(in crate::gateway) fn proxying(&self) -> &[(String, String)] {
        &self.offer.proxying
    }

    /// Returns what is taken over, once.
    pub(in crate::gateway) fn take(&mut self) -> Option<Taken> {
        self.taken.take()
    }

    /// Tells the running gateway why it has to carry on.
    pub fn give_up(&mut self, why: &str) {
        let _ = frames::write(&mut self.from, Kind::Refused, why.as_bytes());
    }

    /// Lets the copy begin and reads all of it once; `now` tells the time on the engine's clock.
    ///
    /// # Errors
    /// Why the running gateway carries on.
    pub(in crate::gateway) fn read_once(
        &mut self,
        engine: &mut Engine,
        now: impl Fn() -> Instant,
    ) -> Result<(), String> {
        let begin = frames::write(&mut self.from, Kind::Begin, b"");
        self.sent(begin)?;
        let Some(frame) = self.next()? else { return Ok(()) };
        let begun = <[u8; 8]>::try_from(&frame.body[..]).map(u64::from_be_bytes);
        let (Kind::Begin, Ok(begun)) = (frame.kind, begun) else {
            return Err(format!("the running gateway answers {} to BEGIN", frame.kind));
        };
        self.load = Some(StateLoad::new(on_the_clock(begun, now())));
        self.read_until(Kind::Pass, engine, &now)?;
        self.has_room(engine)
    }

    /// Fails if a running gateway has more flows than this one can have: they go on there, and would end here.
    fn has_room(&self, engine: &Engine) -> Result<(), String> {
        let loaded = self.load.as_ref().map(StateLoad::loaded).unwrap_or_default();
        let (lost, most) = (loaded.lost[Lost::Room as usize], engine.counters().max_flows);
        if lost == 0 || self.is_of_kept() || self.has_ended {
            return Ok(());
        }
        let all = most + lost;
        Err(format!("there are {all} flows and flows.max is {most} here: raise it, or wait until there are fewer"))
    }

    /// Reads the rest of the copy, until the packets belong to this gateway.
    ///
    /// # Errors
    /// Why the running gateway carries on.
    pub(in crate::gateway) fn read_rest(
        &mut self,
        engine: &mut Engine,
        now: impl Fn() -> Instant,
    ) -> Result<Ended, String> {
        let ready = frames::write(&mut self.from, Kind::Ready, b"");
        self.sent(ready)?;
        if let Some(last) = self.read_until(Kind::Last, engine, &now)? {
            let changes: Changes = last.value().map_err(|error| format!("changes by operators are lost: {error}"))?;
            self.has_other_changes = changes.edits != self.offer.changes.edits;
            self.offer.changes = changes;
        }
        self.has_room(engine)?;
        let load = &*self.load.get_or_insert_with(|| StateLoad::new(now()));
        let ended = match engine.end_load(load, now()) {
            Ok(loaded) => Ended::Whole(loaded),
            Err(error) if self.has_ended => return Ok(Ended::Early(error)),
            Err(error) => return Err(format!("the copy of the state cannot be used: {error}")),
        };
        let commit = frames::write(&mut self.from, Kind::Commit, b"");
        self.sent(commit)?;
        match self.next()? {
            // It has ended: the packets are nobody else's.
            None | Some(Frame { kind: Kind::Yours, .. }) => Ok(ended),
            Some(frame) => Err(format!("the running gateway answers {} to COMMIT", frame.kind)),
        }
    }

    /// Tells the other gateway that it may end.
    pub(in crate::gateway) fn serving(mut self) {
        self.links.clear();
        // If it has ended already, nobody has to hear it.
        let _ = frames::write(&mut self.from, Kind::Serving, b"").and_then(|()| self.from.flush());
        // No packet waits for the end of what was read.
        thread::spawn(move || drop(self.load));
    }

    /// Reads records until a frame of this kind, and returns it; none if the other side has ended.
    fn read_until(
        &mut self,
        until: Kind,
        engine: &mut Engine,
        now: &impl Fn() -> Instant,
    ) -> Result<Option<Frame>, String> {
        while let Some(frame) = self.next()? {
            match frame.kind {
                Kind::State => {
                    let load = self.load.as_mut().ok_or("the running gateway sends a state before its time")?;
                    self.held.extend(&frame.body);
                    let read = engine.load_state(load, now(), &self.held);
                    let read =
                        read.map_err(|error| format!("the state of the running gateway cannot be read: {error}"))?;
                    self.held.drain(..read);
                }
                kind if kind == until => return Ok(Some(frame)),
                Kind::Pass => {}
                other => return Err(format!("the running gateway says {other} in the middle of its state")),
            }
        }
        Ok(None)
    }

    /// Returns the next frame; none if the other side has ended without a word.
    fn next(&mut self) -> Result<Option<Frame>, String> {
        if self.has_ended {
            return Ok(None);
        }
        match frames::read(&mut self.from) {
            Ok(Some(frame)) if frame.kind == Kind::Refused => {
                Err(format!("the running gateway carries on: {}", frame.text()))
            }
            Ok(Some(frame)) => Ok(Some(frame)),
            Ok(None) => self.ended(),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => self.ended(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(format!("the running gateway has said nothing for {} s, and carries on", PATIENCE.as_secs()))
            }
            Err(error) => Err(format!("cannot read from the running gateway: {error}")),
        }
    }

    /// Notes that the connection has ended: with the other process, or because that process carries on.
    fn ended(&mut self) -> Result<Option<Frame>, String> {
        let Some(life) = &self.life else {
            return Err("what the service manager has kept is cut off".into());
        };
        let mut life = [PollFd::new(life, PollFlags::empty())];
        let waited = poll(&mut life, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        if waited.is_err() || !life[0].revents().contains(PollFlags::HUP) {
            return Err("the running gateway has ended the connection, and carries on: its log says why".into());
        }
        self.has_ended = true;
        log::warn!("the gateway that hands over has ended: carrying on with what it has passed on");
        Ok(None)
    }

    /// Notes how a frame was sent: one that nobody reads any more is no failure.
    fn sent(&mut self, result: io::Result<()>) -> Result<(), String> {
        match result {
            Ok(()) => Ok(()),
            // What it had to say before is still to be read.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(()),
            Err(error) => Err(format!("cannot write to the running gateway: {error}")),
        }
    }
}
