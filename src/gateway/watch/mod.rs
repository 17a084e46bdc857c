//! Watches what the gateway installed in the system, and restores what is removed or changed.
//!
//! ```text
//!  kernel's notifications --+
//!  a round every 10 s ------+--> what to look at --> look --> Repairs --> repair that is due
//! ```
//!
//! A notification says only where to look: what is there is looked up, so a lost or strange notification does no harm. All
//! of it is done in small portions between packets and takes at most a tenth of the time. [`repairs`] decides; this
//! module looks and repairs. It must not know packets or flows.

mod conditions;
mod look;
mod matching;
mod repairs;

pub(super) use matching::same as same_rule;

use super::nat_of_others::NatOfOthers;
use super::netlink::{Netlink, NetlinkError, News, read_route};
use super::setup::{Installed, MAIN, PROTOCOL, Part};
use crate::control::SystemState;
use crate::time::{Duration, Instant};
use conditions::Conditions;
use ipnet::IpNet;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use repairs::Repairs;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// How often everything is looked at without a notification.
const ROUND: Duration = Duration::from_secs(10);
/// Things looked at before packets get their turn; each takes the kernel some microseconds.
const PORTION: usize = 32;
/// Repairs made before packets get their turn.
const MOST_REPAIRS: usize = 32;
/// Looking may take at most one part in this many of the time, however much changes.
const SHARE: u32 = 10;
/// The most routes that are looked at when a rule or an interface changes, which may concern all of them; those of a
/// larger gateway wait for the next round.
const MOST_AT_ONCE: usize = 512;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// Something to look at, in the order of importance. Numbers of families are indexes of [`FAMILIES`], those of routes
/// are places among the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    Device,
    Addresses,
    Rules(usize),
    Table(usize),
    Route(usize),
    Fallback(usize),
    /// Which addresses are announced, and whether they are.
    Announcements,
    /// Whether the kernel forwards packets.
    Forwarding,
    /// Whether rules of others translate flows.
    Nat,
}

/// What the event loop has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing before the next timeout or notification.
    Done,
    /// Call again soon.
    More,
    /// Open the device anew: it has been deleted.
    Reopen,
}

/// Watches and restores the parts of an [`Installed`].
pub(super) struct Keeper {
    netlink: Netlink,
    /// `None` if the kernel does not send notifications, or no longer does.
    news: Option<News>,
    repairs: Repairs,
    conditions: Conditions,
    nat: Option<NatOfOthers>,
    looks: BTreeSet<Look>,
    /// The places of routes and fallback routes in table `main`.
    routes: BTreeMap<IpNet, (usize, usize)>,
    rest: Instant,
    round: Instant,
    /// Whether the device was lost, and not all of its routes are looked at.
    is_urgent: bool,
    /// Whether the device can no longer be read.
    is_closed: bool,
    state: Arc<SystemState>,
}

impl Keeper {
    /// Subscribes to changes; to be called before anything is installed.
    pub(super) fn new() -> Result<Keeper, NetlinkError> {
        let news =
            News::open().inspect_err(|e| log::warn!("{e}; the system is only checked every {} s", ROUND.as_secs()));
        Ok(Keeper {
            netlink: Netlink::open().map_err(|e| NetlinkError::new("opening a netlink socket", e))?,
            news: news.ok(),
            repairs: Repairs::default(),
            conditions: Conditions::default(),
            nat: None,
            looks: BTreeSet::new(),
            routes: BTreeMap::new(),
            rest: Instant::ZERO,
            round: Instant::ZERO + ROUND,
            is_urgent: false,
            is_closed: false,
            state: Arc::default(),
        })
    }

    /// Keeps the NAT rules of others away from flows, too.
    pub(super) fn guard(&mut self, nat: NatOfOthers) {
        self.nat = Some(nat);
    }

    /// Returns the descriptors that become readable when there are notifications.
    pub(super) fn news(&self) -> impl Iterator<Item = RawFd> {
        let of_nat = self.nat.iter().flat_map(NatOfOthers::news);
        self.news.as_ref().map(News::as_raw_fd).into_iter().chain(of_nat)
    }

    /// Returns what is missing, and what was restored.
    pub(super) fn state(&self) -> &Arc<SystemState> {
        &self.state
    }

    /// Follows a changed list of parts.
    pub(super) fn follow(&mut self, installed: &Installed) {
        self.repairs.follow(installed.names().iter().map(String::as_str));
        self.routes.clear();
        for (place, part) in installed.parts().iter().enumerate() {
            match part {
                Part::Route(route) if route.table == MAIN => self.routes.entry(route.to).or_default().0 = place,
                Part::Fallback(to) => self.routes.entry(*to).or_default().1 = place,
                _ => {}
            }
        }
        // Places have changed.
        self.look_at_all();
    }

    /// Reads notifications, a bounded number; returns true if more may be pending.
    pub(super) fn take_news(&mut self, installed: &Installed) -> bool {
        let more = self.nat.as_mut().is_some_and(NatOfOthers::take_news);
        if self.nat.as_ref().is_some_and(NatOfOthers::is_to_do) {
            self.looks.insert(Look::Nat);
        }
        self.take_routing_news(installed) || more
    }

    fn take_routing_news(&mut self, installed: &Installed) -> bool {
        let Some(mut news) = self.news.take() else { return false };
        match news.take(|message| self.hear(installed, message)) {
            Ok(taken) => {
                if taken.lost {
                    self.look_at_all();
                }
                self.news = Some(news);
                taken.more
            }
            Err(e) => {
                log::warn!(
                    "no longer notified of changes to the system, which is now only checked every {} s: {e}",
                    ROUND.as_secs()
                );
                false
            }
        }
    }

    /// Notes where a notification says to look.
    fn hear(&mut self, installed: &Installed, message: Option<Message>) {
        match message {
            // The settings of an interface.
            None => self.looks.extend([Look::Device, Look::Forwarding]),
            Some(Message::NewRule(_) | Message::DelRule(_)) => {
                self.looks.extend([0, 1].map(Look::Rules));
                self.look_at_routes();
            }
            Some(Message::NewRoute(message) | Message::DelRoute(message)) => {
                let Some((route, _)) = read_route(&message) else { return };
                if route.table == installed.table() {
                    self.looks.extend([0, 1].map(Look::Table));
                }
                if let Some((route, fallback)) = self.routes.get(&route.to) {
                    self.looks.extend([Look::Route(*route), Look::Fallback(*fallback)]);
                }
            }
            Some(Message::NewLink(link) | Message::DelLink(link)) => {
                if link.header.index == installed.index() {
                    self.look_at_all();
                }
                self.looks.insert(Look::Announcements);
            }
            Some(Message::NewAddress(message) | Message::DelAddress(message)) => {
                if message.header.index == installed.index() {
                    // The kernel removes the routes of a device with its last address, without a notification.
                    self.look_at_all();
                }
                self.look_at_routes();
                self.looks.insert(Look::Announcements);
            }
            _ => {}
        }
    }

    fn look_at_routes(&mut self) {
        if self.routes.len() <= MOST_AT_ONCE {
            self.looks.extend(self.routes.values().map(|(route, _)| Look::Route(*route)));
        }
    }

    fn look_at_all(&mut self) {
        self.looks.extend([Look::Device, Look::Addresses, Look::Announcements, Look::Forwarding, Look::Nat]);
        self.looks.extend([Look::Rules(0), Look::Rules(1), Look::Table(0), Look::Table(1)]);
        for (route, fallback) in self.routes.values() {
            self.looks.extend([Look::Route(*route), Look::Fallback(*fallback)]);
        }
    }

    /// Returns when it has work to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let rest = (!self.looks.is_empty()).then_some(self.rest);
        let nat = self.nat.as_ref().and_then(NatOfOthers::poll_timeout);
        [Some(self.round), rest, nat, self.repairs.poll_timeout()].into_iter().flatten().min()
    }

    /// Looks, repairs and logs, a bounded portion.
    pub(super) fn work(&mut self, installed: &mut Installed, now: Instant) -> Work {
        if self.round <= now {
            self.round = now + ROUND;
            self.look_at_all();
        }
        if self.rest <= now && !self.looks.is_empty() {
            let began = std::time::Instant::now();
            for _ in 0..PORTION {
                let Some(look) = self.looks.pop_first() else { break };
                if let Err(e) = self.look(installed, look, now) {
                    log::warn!("cannot check whether everything that the gateway installed is still there: {e}");
                }
            }
            // The first portion after a quiet time is not delayed.
            self.is_urgent &= !self.looks.is_empty();
            self.rest = now + began.elapsed() * if self.is_urgent { 1 } else { SHARE };
        }
        if self.nat.as_ref().and_then(NatOfOthers::poll_timeout).is_some_and(|due| due <= now) {
            self.looks.insert(Look::Nat);
        }
        let work = self.repair(installed, now);
        for line in self.repairs.take_lines(now).into_iter().chain(self.conditions.take_lines()) {
            log::log!(if line.is_warning { log::Level::Warn } else { log::Level::Info }, "{}", line.text);
        }
        if let Some(mut state) = self.repairs.news(self.conditions.take_news()) {
            state.troubles.extend(self.conditions.troubles());
            self.state = Arc::new(state);
        }
        work
    }

    fn repair(&mut self, installed: &mut Installed, now: Instant) -> Work {
        for _ in 0..MOST_REPAIRS {
            let Some(place) = self.repairs.next(now) else { return Work::Done };
            let part = installed.parts()[place].clone();
            if part == Part::Device && (self.is_closed || !installed.has_device()) {
                return Work::Reopen;
            }
            match installed.repair(&part) {
                Err(e) => self.repairs.failed(place, now, &e.to_string()),
                // A route that is there and not taken.
                Ok(false) if matches!(&part, Part::Route(route) if route.table == MAIN) => {
                    self.hidden(place, &part, now)
                }
                Ok(false) => self.repairs.present(place, now),
                Ok(true) => self.repairs.restored(place, now),
            }
            if part == Part::Device {
                self.device_is_back(now);
            }
        }
        Work::More
    }

    /// Notes that the device was opened anew, or could not be.
    pub(super) fn reopened(&mut self, installed: &mut Installed, opened: Result<(), String>, now: Instant) {
        let place = installed.parts().iter().position(|part| *part == Part::Device).unwrap_or(0);
        match opened.and_then(|()| installed.find_device().map_err(|e| e.to_string())) {
            Ok(()) => {
                self.repairs.restored(place, now);
                self.is_closed = false;
                self.device_is_back(now);
            }
            Err(e) => self.repairs.failed(place, now, &e),
        }
    }

    /// Routes and addresses have gone with the device.
    fn device_is_back(&mut self, now: Instant) {
        self.look_at_all();
        (self.rest, self.is_urgent) = (now, true);
    }

    /// Says that the device can no longer be read.
    pub(super) fn device_is_lost(&mut self) {
        self.is_closed = true;
        self.looks.insert(Look::Device);
        self.rest = Instant::ZERO;
    }
}

/// Returns whether a rule, route or entry carries the mark of a gateway.
const fn is_marked(protocol: u8) -> bool {
    protocol == PROTOCOL
}

#[cfg(test)]
mod tests;
