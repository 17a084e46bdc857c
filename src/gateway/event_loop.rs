//! The mio loop: packets from the device to the engine and back, timers, signals, control requests.
//!
//! It holds no policy: the engine decides what happens to a packet.

use super::control_server::ControlServer;
use super::error::GatewayError;
use super::follower::Follower;
use super::log_queue;
use super::marking::Marking;
use super::refusals::Refusals;
use super::setup::Installed;
use super::tun::{self, Frame, HEADER, Tun};
use crate::control::{About, DeviceCounters};
use crate::engine::{Engine, Event, Verdict, Weight};
use crate::packet::Meta;
use crate::time::{Duration, Instant};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const TUN: Token = Token(0);
const WAKER: Token = Token(1);
const SIGNALS: Token = Token(2);
const NEWS: Token = Token(3);
const CONTROL: Token = Token(4);

/// Packets read from the device before other events get their turn.
const BUDGET: usize = 256;
/// Calls of `handle_timeout` per wake-up.
const TIMEOUT_BUDGET: usize = 8;

/// Stops a running loop from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    /// Makes the loop return once the current batch of packets is done.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the event loop to stop the gateway: {error}");
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP, which no longer end the process but wait for an event loop to handle them.
///
/// To be taken before anything is set up: a signal that arrives during set-up must not leave half of it behind.
pub struct TakenSignals(Signals);

impl TakenSignals {
    /// Takes them over for the whole process; SIGHUP only if it is not ignored, as it is under nohup(1).
    pub fn take() -> Result<TakenSignals, GatewayError> {
        let which = [SIGINT, SIGTERM, SIGHUP];
        Signals::new(&which[..if ignores_hangup() { 2 } else { 3 }])
            .map(TakenSignals)
            .map_err(GatewayError::io("install the signal handlers"))
    }
}

/// Returns whether the process was started with SIGHUP ignored: bit 0 of SigIgn (proc_pid_status(5)).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// One engine with one TUN queue; several could run side by side and would share nothing.
pub(super) struct EventLoop {
    engine: Engine,
    tun: Tun,
    control: ControlServer,
    follower: Follower,
    marking: Option<Marking>,
    about: Arc<About>,
    poll: Poll,
    signals: Option<Signals>,
    stopper: Stopper,
    clock: std::time::Instant,
    frame: Box<Frame>,
    device: DeviceCounters,
    /// The errno of the last write failure logged, so that a device that is down does not flood the log.
    complained: Option<i32>,
    refusals: Refusals,
}

impl EventLoop {
    pub(super) fn new(
        mut engine: Engine,
        tun: Tun,
        mut control: ControlServer,
        about: About,
        (follower, marking): (Follower, Option<Marking>),
    ) -> Result<Self, GatewayError> {
        let failed = GatewayError::io("set up the event loop");
        let poll = Poll::new().map_err(&failed)?;
        let registry = poll.registry();
        registry.register(&mut SourceFd(&tun.as_raw_fd()), TUN, Interest::READABLE).map_err(&failed)?;
        if let Some(news) = follower.news() {
            registry.register(&mut SourceFd(&news), NEWS, Interest::READABLE).map_err(&failed)?;
        }
        follower.tell_all(&mut engine, Instant::ZERO);
        if marking.is_some() {
            engine.collect_ended();
        }
        let waker = Arc::new(Waker::new(registry, WAKER).map_err(&failed)?);
        control.register(registry, CONTROL).map_err(&failed)?;
        Ok(EventLoop {
            engine,
            tun,
            control,
            follower,
            marking,
            about: Arc::new(about),
            signals: None,
            stopper: Stopper { stop: Arc::default(), waker },
            poll,
            clock: std::time::Instant::now(),
            frame: Box::new([0; HEADER + tun::MOST]),
            device: DeviceCounters::default(),
            complained: None,
            refusals: Refusals::default(),
        })
    }

    pub(super) fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    pub(super) fn device_name(&self) -> &str {
        self.tun.name()
    }

    pub(super) fn control_socket(&self) -> &Path {
        self.control.path()
    }

    /// Makes SIGINT, SIGTERM and SIGHUP (the terminal is gone) end the loop.
    pub(super) fn handle_signals(&mut self, signals: TakenSignals) -> Result<(), GatewayError> {
        let mut signals = signals.0;
        let failed = GatewayError::io("watch for signals");
        self.poll.registry().register(&mut signals, SIGNALS, Interest::READABLE).map_err(&failed)?;
        self.signals = Some(signals);
        Ok(())
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Runs until it is stopped or the device is deleted; keeps the rules installed for routers' ICMP errors in step
    /// with the routes to the servers.
    pub(super) fn run(&mut self, mut installed: Option<&mut Installed>) -> Result<(), GatewayError> {
        self.engine.report_flows(log::log_enabled!(log::Level::Debug));
        let mut events = Events::with_capacity(64);
        // mio reports an edge only once: remember that the budget left packets in the device.
        let (mut packets_wait, mut control_waits, mut news_wait) = (true, false, true);
        loop {
            let timeout = if packets_wait || control_waits || news_wait { Some(Duration::ZERO) } else { self.sleep() };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(GatewayError::io("wait for events"))?,
            }
            let now = self.now();
            for event in &events {
                match event.token() {
                    TUN => packets_wait = true,
                    WAKER => {}
                    SIGNALS => self.take_signals(),
                    NEWS => news_wait = true,
                    CONTROL => self.control.accept(self.poll.registry(), &self.about, now),
                    token => self.control.ready(token, event.is_readable(), event.is_writable()),
                }
            }
            if packets_wait {
                packets_wait = self.take_packets(now)?;
            }
            self.keep_up(now);
            self.refusals.tell(&self.engine, now);
            if news_wait && let Some(marking) = &mut self.marking {
                marking.devices_changed();
            }
            news_wait = news_wait && self.follower.take_news(now);
            if self.follower.work(&mut self.engine, now)
                && let Some(installed) = &mut installed
                && let Err(error) = installed.follow_errors(self.follower.interfaces())
            {
                log::warn!("ICMP errors from routers on the path to the servers may not arrive: {error}");
            }
            if let Some(marking) = &mut self.marking
                && marking.work(&mut self.engine, now)
                && let Some(installed) = &mut installed
                && let Err(error) = installed.also_select_by_addresses(marking.has_gaps(), self.follower.interfaces())
            {
                log::warn!("replies of servers may not be translated: {error}");
            }
            if self.control.retries(now) {
                self.control.accept(self.poll.registry(), &self.about, now);
            }
            self.device.lost_log_lines = log_queue::lost_lines();
            control_waits = self.control.work(&mut self.engine, now, &self.device);
            if self.stopper.stop.load(Ordering::Acquire) {
                return Ok(());
            }
        }
    }

    /// Returns the time until something is due; `None` if only packets or control requests can make work.
    fn sleep(&self) -> Option<Duration> {
        let marking = self.marking.as_ref().map(Marking::poll_timeout);
        let due = [self.engine.poll_timeout(), self.follower.poll_timeout(), self.control.poll_timeout(), marking];
        let due = due.into_iter().flatten().min();
        due.map(|due| due.since(self.now()))
    }

    fn take_signals(&mut self) {
        let Some(signals) = &mut self.signals else { return };
        for signal in signals.pending() {
            let name = match signal {
                SIGINT => "SIGINT",
                SIGHUP => "SIGHUP (a new configuration needs a restart)",
                _ => "SIGTERM",
            };
            log::info!("{name}: stopping");
            self.stopper.stop.store(true, Ordering::Release);
        }
    }

    /// Moves packets until the device has none left or the budget is used up; returns true in the latter case.
    fn take_packets(&mut self, now: Instant) -> Result<bool, GatewayError> {
        for _ in 0..BUDGET {
            let len = match self.tun.read(&mut self.frame) {
                Ok(len) => len,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(false),
                    io::ErrorKind::Interrupted => continue,
                    _ => {
                        self.device.read_failures += 1;
                        return Err(GatewayError::DeviceGone { name: self.tun.name().into(), source: error });
                    }
                },
            };
            self.take_packet(now, len);
        }
        Ok(true)
    }

    #[inline]
    fn take_packet(&mut self, now: Instant, len: usize) {
        let (header, packet) = self.frame.split_at_mut(HEADER);
        let Some(meta) = count_read(&mut self.device, header, &packet[..len]) else {
            if self.device.bad_headers == 1 {
                log::warn!(
                    "{}: dropping packets whose virtio-net header makes no sense, the first with {header:02x?}; `eqctl \
                     counters` counts them",
                    self.tun.name()
                );
            }
            return;
        };
        match self.engine.handle_packet(now, &mut packet[..len], meta) {
            Verdict::Forward { len, .. } => self.write(len),
            // The pieces go out before the next packet is read: they need room in the engine's queue.
            Verdict::Emit { .. } => self.send_own(now),
            Verdict::Consume(_) | Verdict::Drop(_) => {}
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
        }
    }

    /// Writes the engine's own packets, and those that a packet was split or translated into.
    fn send_own(&mut self, now: Instant) {
        while let Some((len, meta)) = self.engine.poll_transmit(now, &mut self.frame[HEADER..]) {
            let (header, packet) = self.frame.split_at_mut(HEADER);
            tun::put_meta(header, &packet[..len], meta);
            self.write(len);
        }
    }

    /// Writes the packet in the frame; one that the device refuses is lost and counted.
    #[inline]
    fn write(&mut self, len: usize) {
        match self.tun.write(&self.frame, len) {
            Ok(()) => {
                self.device.written += 1;
                self.device.written_bytes += len as u64;
            }
            Err(error) => {
                self.device.write_failures += 1;
                if self.complained != error.raw_os_error() {
                    self.complained = error.raw_os_error();
                    log::warn!("{}: cannot write a packet of {len} bytes: {error}", self.tun.name());
                }
            }
        }
    }
}

/// Counts a packet that was read and translates its header.
///
/// `None` for a header that makes no sense. Such a packet is dropped: without a header to trust, neither its checksum nor
/// its segments can be passed on correctly, and the kernel would refuse the same header from us (EINVAL). The engine never
/// sees it, so its totals still add up.
#[inline]
fn count_read(device: &mut DeviceCounters, header: &[u8], packet: &[u8]) -> Option<Meta> {
    device.read += 1;
    device.read_bytes += packet.len() as u64;
    let meta = tun::meta(header, packet);
    match &meta {
        Some(meta) => device.super_packets += u64::from(meta.gso_size != 0),
        None => device.bad_headers += 1,
    }
    meta
}

fn tell(event: &Event) {
    match event.weight() {
        Weight::Flow => log::debug!("{event}"),
        Weight::Notable => log::info!("{event}"),
        Weight::Grave => log::warn!("{event}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_counted_and_those_with_a_bad_header_are_dropped() {
        let mut device = DeviceCounters::default();
        let mut packet = vec![0; 1500];
        (packet[0], packet[9]) = (0x40, 6);
        let mut read = |flags, gso, size: u16| {
            let [a, b] = size.to_ne_bytes();
            count_read(&mut device, &[flags, gso, 0, 0, a, b, 0, 0, 6, 0], &packet).map(|meta| meta.gso_size)
        };
        assert_eq!(read(0, 0, 0), Some(0));
        assert_eq!(read(1, 1, 1448), Some(1448));
        assert_eq!(read(1, 9, 1448), None);
        assert_eq!(read(1, 4, 0), None);
        let want =
            DeviceCounters { read: 4, read_bytes: 6000, super_packets: 1, bad_headers: 2, ..DeviceCounters::default() };
        assert_eq!(device, want);
    }
}
