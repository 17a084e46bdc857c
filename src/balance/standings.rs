//! What changes the standing of servers at run time: operators, monitors, signs from the traffic, time.
//!
//! One writer; shards read it. It must not know flows or algorithms. Changes that shards have to follow are kept as a
//! numbered list, so that an up-to-date shard needs to compare only two numbers.

mod follow;
mod saved;

pub use follow::{Became, HealthOfAll};
pub use saved::SavedServer;

use super::roster::Roster;
use super::server::{REPORT_LIFE, Report, STEPS, Server};
use super::settings::Admin;
use super::{Health, Notice, server_ports};
use crate::ids::{ServerId, ServiceId};
use crate::schedule::Schedule;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Maximum number of changes kept for shards that have not read them.
const MOST_NEWS: usize = 4096;

/// The kind of change that a shard must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Whether it may be picked, or its weight, may have changed.
    Standing,
    /// It reported its load.
    Report,
    /// Its smoothed round trip changed.
    Latency,
}

/// A server's standing, as shown in rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerState {
    /// The administrative state.
    pub admin: Admin,
    /// When draining ends by force.
    pub deadline: Option<Instant>,
    /// The worst health that any service using it sees.
    pub health: Health,
    /// Whether some services see it as down, and others not.
    pub partly_down: bool,
    /// The weight without slow start.
    pub weight: u16,
    /// The effective weight: less than the weight during slow start.
    pub weight_now: f32,
    /// The end of its passive hold.
    pub held_until: Option<Instant>,
    /// Its reported load, 0 to 100, while the report is valid.
    pub load: Option<u8>,
    /// Whether it asks for no new flows.
    pub maintenance: bool,
    /// The smoothed round trip of its probes.
    pub latency: Option<Duration>,
}

/// The standing of all servers of a [`Roster`].
#[derive(Debug, Clone)]
pub struct Standings {
    servers: Vec<Server>,
    /// By base, for IPv4 and IPv6 clients: the health of each place.
    health: Vec<[Vec<Health>; 2]>,
    /// The last era that any server entered.
    eras: u32,
    /// When servers change by time alone.
    timers: Schedule,
    notices: VecDeque<Notice>,
    news: VecDeque<(ServerId, News)>,
    /// The number of the change after the last.
    next_news: u64,
}

impl Standings {
    /// Creates the standing of all servers, each of them up.
    pub fn new(roster: &Roster) -> Self {
        let servers: Vec<Server> = roster.servers().iter().map(Server::new).collect();
        Standings {
            health: roster.bases().iter().map(|g| [(); 2].map(|()| vec![Health::Up; g.places.len()])).collect(),
            eras: 0,
            timers: Schedule::new(servers.len()),
            servers,
            notices: VecDeque::new(),
            news: VecDeque::new(),
            next_news: 0,
        }
    }

    /// Returns a server's standing.
    pub fn state(&self, roster: &Roster, now: Instant, server: ServerId) -> ServerState {
        let state = self.server(server);
        let places = || {
            roster.members(server).flat_map(|(base, place)| {
                let of = |v6: usize| {
                    let has = roster.bases()[base as usize].reached[v6][place as usize];
                    has.then(|| self.health(base, v6, place as usize))
                };
                [of(0), of(1)].into_iter().flatten()
            })
        };
        ServerState {
            admin: state.admin,
            deadline: state.deadline,
            health: Health::worst(places()),
            partly_down: places().any(|health| health == Health::Down) && places().any(|health| health != Health::Down),
            weight: state.weight,
            weight_now: state.units(now, roster.server(server).slow_start) as f32 / STEPS as f32,
            held_until: state.held_until(now),
            load: state.report.filter(|report| now.since(report.at) < REPORT_LIFE).map(|report| report.load),
            maintenance: state.maintenance,
            latency: state.latency,
        }
    }

    #[inline]
    pub(super) fn server(&self, server: ServerId) -> &Server {
        &self.servers[server.0 as usize]
    }

    #[inline]
    pub(super) fn health(&self, base: u32, v6: usize, place: usize) -> Health {
        self.health[base as usize][v6][place]
    }

    /// Returns whether the server of a flow whose client uses this family is out of service: down according to its
    /// monitors, or disabled.
    pub fn is_gone(&self, roster: &Roster, service: ServiceId, server: ServerId, v6: bool) -> bool {
        if self.server(server).admin == Admin::Disabled {
            return true;
        }
        let groups = [Some(service.0), roster.last_resort(service.0)];
        let bases = groups.into_iter().flatten().map(|group| roster.base(group));
        let own = bases.filter_map(|base| Some((base, roster.place(base, server)?))).next();
        own.is_some_and(|(base, place)| self.health(base, usize::from(v6), place) == Health::Down)
    }

    /// Returns whether any service sees a server as out of service; if not, [`Standings::is_gone`] need not be called.
    pub fn may_be_gone(&self, roster: &Roster, server: ServerId) -> bool {
        let down = |(base, place): (u32, u32)| {
            self.health[base as usize].iter().any(|health| health[place as usize] == Health::Down)
        };
        self.server(server).admin == Admin::Disabled || roster.members(server).any(down)
    }

    /// Returns whether the operator is draining a server.
    pub fn is_draining(&self, server: ServerId) -> bool {
        self.server(server).admin == Admin::Draining
    }

    /// Returns the weight and the administrative state of a server, and whether its draining ends by force.
    pub fn set_by_operators(&self, server: ServerId) -> (u16, Admin, bool) {
        let state = self.server(server);
        (state.weight, state.admin, state.deadline.is_some())
    }

    /// Changes the weight of a server.
    pub fn set_weight(&mut self, roster: &Roster, now: Instant, server: ServerId, weight: u16) {
        self.change(roster, now, server, |state| state.weight = weight);
    }

    /// Sets the administrative state of a server that has `flows` flows. Draining ends by force after `deadline`, if
    /// given.
    pub fn set_admin(
        &mut self,
        roster: &Roster,
        now: Instant,
        server: ServerId,
        admin: Admin,
        (deadline, flows): (Option<Duration>, u32),
    ) {
        self.change(roster, now, server, |state| {
            state.admin = admin;
            state.deadline = deadline.filter(|_| admin == Admin::Draining).map(|span| now + span);
        });
        if flows == 0 {
            self.idle(server);
        }
    }

    /// Records that a server has no flows left: it is drained if it was draining.
    pub fn idle(&mut self, server: ServerId) {
        let state = &mut self.servers[server.0 as usize];
        if state.admin == Admin::Draining {
            state.deadline = None;
            self.notices.push_back(Notice::Drained(server));
        }
    }

    /// Sets the health of one of a server's addresses according to its monitors; `of_port` gives it for one of its
    /// ports.
    pub fn set_health(
        &mut self,
        roster: &Roster,
        now: Instant,
        server: ServerId,
        v6: bool,
        of_port: impl Fn(u16) -> Health,
    ) {
        let was_gone = self.may_be_gone(roster, server);
        let own = roster.server(server);
        for (base, place) in roster.members(server) {
            let service = roster.service_of_base(base);
            for by in [false, true] {
                if service.reach(own, by).is_some_and(|address| address.is_ipv6() == v6) {
                    let health = health_at(roster, (base, place as usize), by, |_, _, port| of_port(port));
                    self.health[base as usize][usize::from(by)][place as usize] = health;
                }
            }
        }
        match (was_gone, self.may_be_gone(roster, server)) {
            (false, true) => self.enter_era(server),
            (true, false) => self.servers[server.0 as usize].back_since = Some(now),
            _ => {}
        }
        self.publish(server, News::Standing);
        self.watch(roster, now, server);
    }

    /// Sets a server's reported load, 0 to 100, and whether it asks for no new flows.
    pub fn report(&mut self, roster: &Roster, now: Instant, server: ServerId, load: u8, maintenance: bool) {
        let was = self.server(server).maintenance;
        let report = |state: &mut Server| {
            state.report = Some(Report { load: load.min(100), at: now });
            state.maintenance = maintenance;
        };
        self.publish(server, News::Report);
        if was == maintenance {
            report(&mut self.servers[server.0 as usize]);
            self.watch(roster, now, server);
        } else {
            self.change(roster, now, server, report);
        }
    }

    /// Sets the smoothed round trip of a server's probes.
    pub fn set_latency(&mut self, server: ServerId, latency: Duration) {
        self.servers[server.0 as usize].latency = Some(latency);
        self.publish(server, News::Latency);
    }

    /// Records a sign of trouble from the traffic: a SYN unanswered, refused, or answered by an ICMP error.
    pub fn trouble(&mut self, roster: &Roster, now: Instant, server: ServerId) {
        let Some(passive) = roster.passive(server) else { return };
        let state = &mut self.servers[server.0 as usize];
        if state.sign(now, passive).is_some() {
            let until = state.held_until(now).unwrap_or(now);
            self.enter_era(server);
            self.notices.push_back(Notice::PassiveHold(server, until));
            self.publish(server, News::Standing);
            self.watch(roster, now, server);
        }
    }

    /// Records that a server answered a new flow.
    #[inline]
    pub fn answered(&mut self, server: ServerId) {
        self.servers[server.0 as usize].answered();
    }

    /// Changes a server and applies the consequences: one that stops taking flows enters a new era, one that resumes
    /// begins slow start.
    fn change(&mut self, roster: &Roster, now: Instant, server: ServerId, change: impl FnOnce(&mut Server)) {
        let state = &mut self.servers[server.0 as usize];
        let was = state.is_open(now);
        change(state);
        match (was, state.is_open(now)) {
            (true, false) => self.enter_era(server),
            (false, true) => state.back_since = Some(now),
            _ => {}
        }
        self.publish(server, News::Standing);
        self.watch(roster, now, server);
    }

    /// Eras come from one counter, so that no server ever has the same era twice.
    fn enter_era(&mut self, server: ServerId) {
        self.eras += 1;
        self.servers[server.0 as usize].era = self.eras;
    }

    /// Sets the timer for changes by time alone.
    fn watch(&mut self, roster: &Roster, now: Instant, server: ServerId) {
        let when = self.server(server).next_change(now, roster.server(server).slow_start);
        self.timers.set(server.0, when.unwrap_or(Instant::FAR));
    }

    fn publish(&mut self, server: ServerId, news: News) {
        if self.news.len() >= MOST_NEWS {
            self.news.pop_front();
        }
        self.news.push_back((server, news));
        self.next_news += 1;
    }

    /// Returns the number of the next change: a shard that has read up to there is up to date.
    #[inline]
    pub fn next_news(&self) -> u64 {
        self.next_news
    }

    /// Returns the changes from number `seen` on; none if some of them have been discarded.
    pub(super) fn news(&self, seen: u64) -> Option<impl Iterator<Item = (ServerId, News)> + '_> {
        let unread = usize::try_from(self.next_news - seen).ok()?;
        let first = self.news.len().checked_sub(unread)?;
        Some(self.news.range(first..).copied())
    }

    /// Returns when [`Standings::handle_timeout`] next has work to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does the work that is due: slow starts rise, reports expire, passive holds end, draining ends.
    pub fn handle_timeout(&mut self, roster: &Roster, now: Instant) {
        while let Some(server) = self.timers.pop(now).map(ServerId) {
            let state = &mut self.servers[server.0 as usize];
            let was = state.is_open(now);
            if state.report.is_some_and(|report| report.at + REPORT_LIFE <= now) {
                state.report = None;
                state.maintenance = false;
            }
            if !was && state.is_open(now) {
                state.back_since = Some(now);
            }
            if state.deadline.is_some_and(|deadline| deadline <= now) {
                state.deadline = None;
                self.notices.push_back(Notice::DrainDeadline(server));
            }
            if state.held_ended(now) {
                state.back_since = Some(now);
            }
            self.publish(server, News::Standing);
            self.watch(roster, now, server);
        }
    }

    /// Returns the next event.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }
}

/// Returns the health that the services of a base see of the server in a place, for clients that use IPv6 or do not: the
/// worst of its ports. `of` returns the health of a server's address (IPv6 or not) and port.
fn health_at(
    roster: &Roster,
    (base, place): (u32, usize),
    by: bool,
    of: impl Fn(ServerId, bool, u16) -> Health,
) -> Health {
    let id = roster.bases()[base as usize].places[place];
    let (service, own) = (roster.service_of_base(base), roster.server(id));
    let Some(address) = service.reach(own, by) else { return Health::Up };
    // A rule can bring flows of a family that the service does not listen on; they go to the same ports.
    let listened = server_ports(service, own.port, by);
    let mut ports = if listened.is_empty() { server_ports(service, own.port, !by) } else { listened };
    // A removed service listens nowhere, but its flows still follow the health of their servers.
    if ports.is_empty() {
        ports.push(own.port.unwrap_or(0));
    }
    Health::worst(ports.iter().map(|port| of(id, address.is_ipv6(), *port)))
}
