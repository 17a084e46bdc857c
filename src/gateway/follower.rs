//! Follows the ways to the servers while the gateway runs, and tells the engine where an MTU changes.
//!
//! It must not know packets.

use super::netlink::{Netlink, NetlinkError, Watch};
use super::setup::Interfaces;
use super::ways::{Asking, Targets, Ways};
use crate::config::Settings;
use crate::engine::{Change, Engine};
use crate::time::{Duration, Instant};
use std::os::fd::{AsRawFd, RawFd};

/// How long the kernel's news may gather before the ways are asked for again.
const GATHER: Duration = Duration::from_millis(200);
/// Addresses asked for before packets get their turn; the kernel takes some microseconds for each.
const PORTION: usize = 64;
/// Servers without a route that are named at the start.
const MOST_TOLD: usize = 10;
/// Of the time, a look-up may take one part in so many, however often routes change.
const SHARE: u32 = 20;

/// What is known of the ways, and the means to keep it right.
pub(super) struct Follower {
    netlink: Netlink,
    targets: Targets,
    ways: Ways,
    /// None where the kernel does not tell news, or no longer.
    watch: Option<Watch>,
    asking: Option<(Asking, Instant)>,
    due: Option<Instant>,
    rest: Instant,
}

impl Follower {
    /// Looks all ways up and begins to watch; `device` is the gateway's own.
    pub fn new(settings: &Settings, device: &str) -> Result<Follower, NetlinkError> {
        // Before the look-up, so that no change is missed.
        let watch = Watch::open().inspect_err(|e| {
            log::warn!("changes of routes and MTUs cannot be followed; they count at the next start: {e}")
        });
        let mut netlink = Netlink::open().map_err(|e| NetlinkError::new("opening a netlink socket", e))?;
        let targets = Targets::new(settings, device);
        let ways = targets.look_up(&mut netlink)?;
        for address in targets.unreachable(&ways).take(MOST_TOLD) {
            log::warn!("no route leads to the server {address}: its MTU is unknown until there is one");
        }
        Ok(Follower { netlink, targets, ways, watch: watch.ok(), asking: None, due: None, rest: Instant::ZERO })
    }

    /// The interfaces that lead to servers.
    pub fn interfaces(&self) -> &Interfaces {
        &self.ways.interfaces
    }

    /// Where news of changes come in.
    pub fn news(&self) -> Option<RawFd> {
        self.watch.as_ref().map(Watch::as_raw_fd)
    }

    /// Tells the engine all that it knows.
    pub fn tell_all(&self, engine: &mut Engine, now: Instant) {
        tell(engine, now, self.targets.changes(&self.ways, &Ways::default()), log::Level::Debug);
    }

    /// Takes the kernel's news; true where more may wait.
    pub fn take_news(&mut self, now: Instant) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        match watch.take() {
            Ok((news, more)) => {
                if news && self.due.is_none() {
                    self.due = Some((now + GATHER).max(self.rest));
                }
                more
            }
            Err(e) => {
                log::warn!("changes of routes and MTUs are followed no longer: {e}");
                self.watch = None;
                false
            }
        }
    }

    /// When it has something to do; none while there is no news.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asking.as_ref().map(|(_, since)| *since).or(self.due)
    }

    /// Does a portion of what is due; tells whether other interfaces lead to servers than before.
    pub fn work(&mut self, engine: &mut Engine, now: Instant) -> bool {
        self.try_work(engine, now).unwrap_or_else(|e| {
            self.asking = None;
            log::warn!("the ways to the servers could not be looked up; those known still count: {e}");
            false
        })
    }

    fn try_work(&mut self, engine: &mut Engine, now: Instant) -> Result<bool, NetlinkError> {
        if self.asking.is_none() && self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.asking = Some((Asking::start(&mut self.netlink)?, now));
        }
        let Some((asking, since)) = &mut self.asking else { return Ok(false) };
        if asking.go_on(&self.targets, &mut self.netlink, PORTION)? {
            self.rest = now + now.since(*since) * SHARE;
            if let Some((asking, _)) = self.asking.take() {
                let before = std::mem::replace(&mut self.ways, asking.finish());
                tell(engine, now, self.targets.changes(&self.ways, &before), log::Level::Info);
                return Ok(before.interfaces != self.ways.interfaces);
            }
        }
        Ok(false)
    }
}

fn tell(engine: &mut Engine, now: Instant, changes: impl Iterator<Item = Change>, level: log::Level) {
    for change in changes {
        if let Change::Mtu { server, v6, mtu } = &change {
            let family = if *v6 { "IPv6" } else { "IPv4" };
            log::log!(level, "the way to server number {} over {family} has an MTU of {mtu} bytes", server.0);
        }
        if let Err(refused) = engine.apply(now, change) {
            log::error!("the engine does not take the MTU of a way: {refused}");
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
            follower.targets.changes(&follower.ways, &Ways::default()).map(|c| format!("{c:?}")).collect::<String>()
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
