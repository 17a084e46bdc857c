//! Follows the routes to the servers while the gateway runs, and passes changed path MTUs to the engine.
//!
//! It must not know packets.

use super::netlink::{Netlink, NetlinkError, Watch};
use super::paths::{Lookup, Paths, Targets};
use super::setup::Interfaces;
use crate::config::Settings;
use crate::engine::{Change, Engine};
use crate::time::{Duration, Instant};
use std::os::fd::{AsRawFd, RawFd};

/// How long notifications from the kernel are collected before the routes are looked up again.
const GATHER: Duration = Duration::from_millis(200);
/// Addresses looked up before packets get their turn; each takes the kernel some microseconds.
const PORTION: usize = 64;
/// The most servers without a route that are named at start.
const MOST_TOLD: usize = 10;
/// Look-ups may take at most one part in this many of the time, however often routes change.
const SHARE: u32 = 20;

/// The known paths to the servers, and what is needed to keep them current.
pub(super) struct Follower {
    netlink: Netlink,
    targets: Targets,
    paths: Paths,
    /// `None` if the kernel does not send notifications, or no longer does.
    watch: Option<Watch>,
    lookup: Option<(Lookup, Instant)>,
    due: Option<Instant>,
    rest: Instant,
}

impl Follower {
    /// Looks up all paths and subscribes to changes; `device` is the gateway's own.
    pub(super) fn new(settings: &Settings, device: &str) -> Result<Follower, NetlinkError> {
        // Before the look-up, so that no change is missed.
        let watch = Watch::open().inspect_err(|e| {
            log::warn!("cannot follow changes of routes and MTUs; they take effect at the next start: {e}")
        });
        let mut netlink = Netlink::open().map_err(|e| NetlinkError::new("opening a netlink socket", e))?;
        let targets = Targets::new(settings, device);
        let paths = targets.look_up(&mut netlink)?;
        for address in targets.unreachable(&paths).take(MOST_TOLD) {
            log::warn!("no route to server {address}: its path MTU is unknown until there is one");
        }
        Ok(Follower { netlink, targets, paths, watch: watch.ok(), lookup: None, due: None, rest: Instant::ZERO })
    }

    /// Returns the interfaces towards servers.
    pub(super) fn interfaces(&self) -> &Interfaces {
        &self.paths.interfaces
    }

    /// Returns the descriptor that becomes readable when there are notifications.
    pub(super) fn news(&self) -> Option<RawFd> {
        self.watch.as_ref().map(Watch::as_raw_fd)
    }

    /// Looks up the paths to the servers of other settings, by slot, as soon as packets have had their turn.
    pub(super) fn follow(&mut self, settings: &Settings, now: Instant) {
        self.follow_targets(Targets::new(settings, self.targets.own()), now);
    }

    /// The same with the addresses of the servers.
    pub(super) fn follow_targets(&mut self, targets: Targets, now: Instant) {
        // The engine may have learned a smaller MTU of a server that stays: only changes are passed to it.
        self.paths = self.targets.known_of(&self.paths, &targets);
        self.targets = targets;
        (self.lookup, self.due) = (None, Some(now));
    }

    /// Passes all known path MTUs to the engine.
    pub(super) fn tell_all(&self, engine: &mut Engine, now: Instant) {
        tell(engine, now, self.targets.changes(&self.paths, &Paths::default()), log::Level::Debug);
    }

    /// Reads the kernel's notifications; returns true if more may be pending.
    pub(super) fn take_news(&mut self, now: Instant) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        match watch.take() {
            Ok((news, more)) => {
                if news && self.due.is_none() {
                    self.due = Some((now + GATHER).max(self.rest));
                }
                more
            }
            Err(e) => {
                log::warn!("no longer following changes of routes and MTUs: {e}");
                self.watch = None;
                false
            }
        }
    }

    /// Returns when it has work to do; `None` while there are no notifications.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.lookup.as_ref().map(|(_, since)| *since).or(self.due)
    }

    /// Does one step of what is due; returns whether the interfaces towards servers have changed.
    pub(super) fn work(&mut self, engine: &mut Engine, now: Instant) -> bool {
        self.try_work(engine, now).unwrap_or_else(|e| {
            self.lookup = None;
            log::warn!("cannot look up the paths to the servers; the known ones remain in effect: {e}");
            false
        })
    }

    fn try_work(&mut self, engine: &mut Engine, now: Instant) -> Result<bool, NetlinkError> {
        if self.lookup.is_none() && self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.lookup = Some((Lookup::start(&mut self.netlink)?, now));
        }
        let Some((lookup, since)) = &mut self.lookup else { return Ok(false) };
        if lookup.advance(&self.targets, &mut self.netlink, PORTION)? {
            self.rest = now + now.since(*since) * SHARE;
            if let Some((lookup, _)) = self.lookup.take() {
                let before = std::mem::replace(&mut self.paths, lookup.finish());
                tell(engine, now, self.targets.changes(&self.paths, &before), log::Level::Info);
                return Ok(before.interfaces != self.paths.interfaces);
            }
        }
        Ok(false)
    }
}

fn tell(engine: &mut Engine, now: Instant, changes: impl Iterator<Item = Change>, level: log::Level) {
    for change in changes {
        if let Change::Mtu { server, v6, mtu } = &change {
            let family = if *v6 { "IPv6" } else { "IPv4" };
            log::log!(level, "path MTU to server number {} over {family}: {mtu} bytes", server.0);
        }
        if let Err(refused) = engine.apply(now, change) {
            log::error!("the engine rejects a path MTU: {refused}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{namespace, settings};
    use super::*;
    use crate::balance::Protocol;

    #[test]
    fn a_change_of_an_mtu_is_followed_and_other_news_change_nothing() {
        let (Some(ns), Some(far)) = (namespace("eq-follow"), namespace("eq-follow-far")) else { return };
        ns.cable("one", &far, "one").unwrap();
        ns.address("one", "10.0.0.1/24".parse().unwrap()).unwrap();
        let settings = settings(&[("192.0.2.10", Protocol::Udp, 80, 80)], &[("10.0.0.2", None)]);
        let mut engine = Engine::new(&settings);
        let mut follower = ns.run(|| Follower::new(&settings, "eqtest0").unwrap()).unwrap();
        let mtus = |follower: &Follower| {
            follower.targets.changes(&follower.paths, &Paths::default()).map(|c| format!("{c:?}")).collect::<String>()
        };
        assert!(mtus(&follower).contains("mtu: 1500"));
        let mut now = Instant::ZERO;
        let mut until = |follower: &mut Follower, want: &str| {
            (0..200).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                now = now + Duration::from_millis(50);
                follower.take_news(now);
                follower.work(&mut engine, now);
                mtus(follower).contains(want)
            })
        };
        ns.mtu("one", 1400).unwrap();
        assert!(until(&mut follower, "mtu: 1400"), "{}", mtus(&follower));
        ns.route("10.8.0.0/24".parse().unwrap(), "one", None).unwrap();
        assert!(!until(&mut follower, "mtu: 1500"));
        assert_eq!(follower.poll_timeout(), None, "nothing is due while there is no news");
    }
}
