//! The mio loop: packets from the device to the engine and back, timers, signals, control requests.
//!
//! It holds no policy: the engine decides what happens to a packet.

mod handover;
mod sharing;
mod signals;
mod turn;

use super::batch::{Batch, MOST_PACKETS};
use super::bpf::steering::QUEUES;
use super::carrying::Carrying;
use super::control_server::{ControlServer, MOST_CONNECTIONS};
use super::error::GatewayError;
use super::follower::Follower;
use super::http::Http;
use super::lapses::Lapses;
use super::marking::Marking;
use super::notify::{self, Notifier};
use super::output::Output;
use super::pair::Pair;
use super::queues::{Opener, Queues};
use super::refusals::Refusals;
use super::reload::{Reloads, Surroundings, Worker};
use super::restraint::Restraint;
use super::setup::Installed;
use super::sources::{Outsiders, Readable};
use super::state::Keeping;
use super::takeover::{Giver, Taker, kept};
use super::tun::{MOST, Tun};
use super::watch::{Keeper, Work};
use crate::control::{About, Ledger, Work as LoopWork};
use crate::engine::{Engine, Event, Weight};
use crate::sources::Found;
use crate::time::Instant;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry, Token, Waker};
use sharing::Sharing;
use signal_hook_mio::v1_0::Signals;
pub use signals::{Stopper, TakenSignals};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The first tokens are the queues of the device.
const WAKER: Token = Token(QUEUES);
const SIGNALS: Token = Token(QUEUES + 1);
const NEWS: Token = Token(QUEUES + 2);
const LOSSES: Token = Token(QUEUES + 3);
const CONTROL: Token = Token(QUEUES + 4);
const TAKEOVER: Token = Token(CONTROL.0 + 1 + MOST_CONNECTIONS);
const PEER: Token = Token(TAKEOVER.0 + 2);
const SOURCES: Token = Token(PEER.0 + 2);

/// When the loop's clock begins: nine years, so that there are times for what began before the process.
pub(super) const BEGIN: Instant = Instant::from_nanos(1 << 58);

/// Packets read from the device before other events get their turn.
const BUDGET: usize = 256;
/// Calls of `handle_timeout` per wake-up.
const TIMEOUT_BUDGET: usize = 8;

/// One engine with one TUN device; several could run side by side and would share nothing.
pub(super) struct EventLoop {
    engine: Engine,
    ledger: Ledger,
    opener: Opener,
    queues: Queues,
    control: ControlServer,
    follower: Follower,
    keeper: Keeper,
    marking: Option<Marking>,
    /// Has the kernel carry flows, if the settings ask for it.
    carrying: Option<Carrying>,
    keeping: Option<Keeping>,
    /// The other gateway, if this one has one.
    pair: Option<Pair>,
    sharing: Sharing,
    sources: Outsiders,
    reloads: Reloads,
    /// Metrics, page and API; none if its thread could not be started.
    http: Option<Http>,
    work: LoopWork,
    /// Whether the device was deleted and is not open again.
    is_deviceless: bool,
    about: Arc<About>,
    poll: Poll,
    signals: Option<Signals>,
    stopper: Stopper,
    clock: std::time::Instant,
    batch: Batch,
    output: Output,
    /// Room for one packet of the engine's own.
    own: Box<[u8; MOST]>,
    refusals: Refusals,
    restraint: Restraint,
    lapses: Lapses,
    manager: Notifier,
    giver: Giver,
    /// For the last state, if the service manager keeps it for the next start.
    last: Option<File>,
    /// The gateway that this one takes over from, and what is in force by the file alone.
    taker: Option<(Taker, Ledger)>,
    /// Whether another gateway has taken over.
    is_over: bool,
}

/// What a loop moves packets with.
pub(super) struct Equipment {
    pub(super) opener: Opener,
    pub(super) queues: Vec<Tun>,
    pub(super) control: ControlServer,
    pub(super) giver: Giver,
    pub(super) follower: Follower,
    pub(super) keeper: Keeper,
    pub(super) programs: (Option<Marking>, Option<Carrying>),
    pub(super) keeping: Option<Keeping>,
    pub(super) pair: Option<Pair>,
    /// When [`BEGIN`] was.
    pub(super) clock: std::time::Instant,
}

impl EventLoop {
    pub(super) fn new(
        mut engine: Engine,
        (about, ledger, found): (About, Ledger, Found),
        equipment: Equipment,
    ) -> Result<Self, GatewayError> {
        let Equipment { opener, queues, mut control, mut giver, follower, keeper, programs, keeping, mut pair, clock } =
            equipment;
        let (marking, carrying) = programs;
        let failed = GatewayError::io("set up the event loop");
        let poll = Poll::new().map_err(&failed)?;
        let registry = poll.registry();
        let queues = Queues::new(queues);
        watch(registry, &queues).map_err(&failed)?;
        watch_system(registry, &follower, &keeper).map_err(&failed)?;
        control.register(registry, CONTROL).map_err(&failed)?;
        giver.register(registry, TAKEOVER).map_err(&failed)?;
        let waker = Arc::new(Waker::new(registry, WAKER).map_err(&failed)?);
        let lapses = Lapses::new(queues.first().name());
        let output = Output::new(queues.first().name());
        follower.tell_all(&mut engine, BEGIN + clock.elapsed());
        let mut reloads = Reloads::new();
        reloads.start_with(found.clone(), ledger.in_force());
        if marking.is_some() {
            engine.collect_ended();
            engine.pass_strays();
        }
        if carrying.is_some() {
            Carrying::ask(&mut engine);
        }
        if let Some(pair) = &mut pair {
            pair.register(registry, PEER).map_err(&failed)?;
            if marking.is_some() {
                pair.pairing().node.collect_reply_keys();
            }
        }
        let mut sources = Outsiders::new(ledger.in_force(), Arc::clone(&waker), BEGIN);
        sources.remember(&found);
        sources.register(registry, SOURCES)?;
        let http = Http::start(Arc::clone(&waker));
        let http = http.inspect_err(|error| log::error!("metrics and page are not served: {error}")).ok();
        Ok(EventLoop {
            engine,
            ledger,
            opener,
            queues,
            control,
            follower,
            keeper,
            marking,
            carrying,
            keeping,
            pair,
            sharing: Sharing::default(),
            sources,
            reloads,
            http,
            work: LoopWork::default(),
            is_deviceless: false,
            about: Arc::new(about),
            signals: None,
            stopper: Stopper { stop: Arc::default(), waker },
            poll,
            clock,
            batch: Batch::new(),
            output,
            own: Box::new([0; MOST]),
            refusals: Refusals::default(),
            restraint: Restraint::default(),
            lapses,
            manager: Notifier::default(),
            giver,
            last: None,
            taker: None,
            is_over: false,
        })
    }

    pub(super) fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    pub(super) fn device_name(&self) -> &str {
        self.queues.first().name()
    }

    pub(super) fn control_socket(&self) -> &Path {
        self.control.path()
    }

    /// Makes the threads of the loop give up what they do not need; `directories` are those with files of servers.
    pub(super) fn confine(&mut self, directories: &[PathBuf]) {
        let readable = Readable::only(directories);
        self.reloads.confine(readable.clone());
        self.sources.confine(readable);
        if let Some(keeping) = &self.keeping {
            keeping.confine();
        }
        if let Some(pair) = &self.pair {
            pair.confine();
        }
    }

    /// Saves the state, after the last packet; returns whether it is on the disk.
    pub(super) fn save_last(&mut self) -> bool {
        let now = self.now();
        self.keeping
            .take()
            .is_some_and(|mut keeping| keeping.save_last(&mut self.engine, &self.ledger, &self.sources, now))
    }

    /// Makes it possible to read the configuration again, from this file; to be called before the process is confined.
    pub(super) fn reload_from(&mut self, file: PathBuf) -> Result<(), GatewayError> {
        let worker = Worker::start(Some(file), Arc::clone(&self.stopper.waker));
        self.reloads.use_worker(worker.map_err(GatewayError::io("start the thread that reads the configuration"))?);
        Ok(())
    }

    /// Makes the loop report to a service manager that it is alive.
    pub(super) fn report_to(&mut self, manager: Notifier) {
        if manager.keeps() > 0 {
            let file = kept::file();
            self.last = file
                .inspect_err(|error| {
                    log::warn!("a restart will end connections: cannot create a file in memory: {error}")
                })
                .ok();
        }
        self.manager = manager;
    }

    /// Returns the service manager.
    pub(super) fn manager(&mut self) -> &mut Notifier {
        &mut self.manager
    }

    fn now(&self) -> Instant {
        BEGIN + self.clock.elapsed()
    }

    /// Has the programs look for devices that have come or gone.
    fn devices_changed(&mut self) {
        self.marking.iter_mut().for_each(Marking::devices_changed);
        self.carrying.iter_mut().for_each(Carrying::devices_changed);
    }

    /// Has the kernel carry flows, and none while another process takes over: it would not know what they did meanwhile.
    fn carry(&mut self, now: Instant) {
        if let Some(carrying) = &mut self.carrying {
            let may = !self.giver.is_copying() && !self.is_over;
            carrying.work(&mut self.engine, now, (may, !self.queues.may_have_packets()));
            // Resets of flows that ended, and are carried no longer only now.
            self.send_own(now);
        }
    }

    /// Leaves the processor to the flows that the kernel carries, if only openers of others wait.
    fn leave_room(&mut self, turn: (Instant, Instant)) {
        if self.queues.have_openers_only() && self.carrying.as_ref().is_some_and(|carrying| carrying.is_busy(turn.1)) {
            self.restraint.rest(self.queues.first(), turn);
        }
    }

    /// Stops carrying for good: the state that is left has to be whole.
    fn stop_carrying(&mut self, now: Instant) {
        if let Some(carrying) = &mut self.carrying {
            carrying.stop(&mut self.engine, now);
        }
    }

    /// Does one step of a reload; returns true if there is more to do at once.
    fn reload(&mut self, installed: Option<&mut Installed>, now: Instant) -> bool {
        let mut of = Surroundings {
            engine: &mut self.engine,
            ledger: &mut self.ledger,
            follower: &mut self.follower,
            keeper: &mut self.keeper,
            marking: self.marking.as_mut(),
            opener: &mut self.opener,
            installed,
            about: &mut self.about,
        };
        let was_under_way = self.reloads.is_under_way();
        let more = self.reloads.work(&mut of, now);
        if let Some(outcome) = self.reloads.take_outcome() {
            self.sources.used(now, outcome.as_ref().map_err(String::as_str));
        }
        self.sources.follow(self.ledger.in_force(), now);
        match (was_under_way, self.reloads.is_under_way()) {
            (false, true) => self.manager.reloading(),
            (true, false) => self.manager.ready(&notify::status(self.ledger.in_force())),
            _ => {}
        }
        more
    }

    /// Restores what is missing of what is installed; returns true if there is more to do at once.
    fn restore(&mut self, installed: &mut Installed, news: bool, now: Instant) -> bool {
        let more = news && self.keeper.take_news(installed);
        match self.keeper.work(installed, now) {
            Work::Done => more,
            Work::More => true,
            Work::Reopen => {
                let opened = self.reopen().map_err(|error| error.to_string());
                self.keeper.reopened(installed, opened, now);
                true
            }
        }
    }

    /// Opens the device again after it was deleted; the flows stay.
    fn reopen(&mut self) -> Result<(), GatewayError> {
        let queues = Queues::new(self.opener.open()?);
        self.devices_changed();
        // Old descriptors may be registered still, and their numbers free for new ones once they are closed.
        for queue in self.queues.all() {
            let _ = self.poll.registry().deregister(&mut SourceFd(&queue.as_raw_fd()));
        }
        watch(self.poll.registry(), &queues).map_err(GatewayError::io("watch the device"))?;
        self.lapses.reopened();
        self.output.reopened();
        (self.queues, self.is_deviceless) = (queues, false);
        Ok(())
    }

    /// Moves packets until the device has none left or the budget is used up.
    fn take_packets(&mut self, now: Instant) {
        if self.is_deviceless {
            return;
        }
        for _ in 0..BUDGET / MOST_PACKETS {
            match self.batch.read(&mut self.queues) {
                Ok((read, more)) => {
                    if read > 0 {
                        self.work.batches.add(read as u64);
                    }
                    if let Some(carrying) = &mut self.carrying {
                        carrying.before(&mut self.engine, self.batch.packets(read), now);
                    }
                    let of = (&mut self.engine, self.pair.as_mut());
                    self.batch.handle(read, of, now, &mut self.output, &self.queues);
                    if !more {
                        return;
                    }
                }
                Err(_) => {
                    self.output.counters.read_failures += 1;
                    self.is_deviceless = true;
                    self.queues.have_none();
                    return self.keeper.device_is_lost();
                }
            }
        }
    }

    /// Runs timers, sends the engine's own packets and logs its events.
    fn keep_up(&mut self, now: Instant) {
        for _ in 0..TIMEOUT_BUDGET {
            if self.engine.poll_timeout().is_none_or(|due| due > now) {
                break;
            }
            self.engine.handle_timeout(now);
        }
        self.send_own(now);
        while let Some(event) = self.engine.poll_event() {
            tell(&event);
            self.ledger.saw(&event, now);
        }
    }

    /// Writes the engine's own packets.
    fn send_own(&mut self, now: Instant) {
        while let Some((len, meta)) = self.engine.poll_transmit(now, &mut self.own[..]) {
            self.output.write_own(self.queues.first(), &self.own[..len], meta);
        }
    }
}

/// Registers the queues of the device, each under its own number.
fn watch(registry: &Registry, queues: &Queues) -> io::Result<()> {
    for (number, queue) in queues.all().iter().enumerate() {
        registry.register(&mut SourceFd(&queue.as_raw_fd()), Token(number), Interest::READABLE)?;
    }
    Ok(())
}

/// Registers the sockets that report changes of routes and devices, and removals of what was installed.
fn watch_system(registry: &Registry, follower: &Follower, keeper: &Keeper) -> io::Result<()> {
    if let Some(news) = follower.news() {
        registry.register(&mut SourceFd(&news), NEWS, Interest::READABLE)?;
    }
    for losses in keeper.news() {
        registry.register(&mut SourceFd(&losses), LOSSES, Interest::READABLE)?;
    }
    Ok(())
}

fn tell(event: &Event) {
    match event.weight() {
        Weight::Flow => log::debug!("{event}"),
        Weight::Notable => log::info!("{event}"),
        Weight::Grave => log::warn!("{event}"),
    }
}
