//! What changes a server's standing while the balancer runs: operators, monitors, traffic, time.

use super::load::{REPORT_LIFE, Report, STEPS};
use super::settings::{Admin, OnDown, Protocol, ServerSettings};
use super::{Balancer, Notice};
use crate::ids::{ServerId, ServiceId};
use crate::state::Health;
use crate::time::{Duration, Instant};

/// A server's standing, as rows show it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerState {
    /// What the operator wants.
    pub admin: Admin,
    /// When draining ends by force.
    pub deadline: Option<Instant>,
    /// The worst that any service that uses it is told of it.
    pub health: Health,
    /// The weight in force: less than the weight during slow start.
    pub weight: f32,
    /// Flows that go to it.
    pub flows: u32,
    /// Until when signs from the traffic keep it out.
    pub held_until: Option<Instant>,
    /// Its own word on its load, 0 to 100, where that counts.
    pub load: Option<u8>,
    /// Whether it asked to be left alone.
    pub maintenance: bool,
    /// The smoothed round trip of its probes.
    pub latency: Option<Duration>,
}

impl Balancer {
    /// Whether there is such a server.
    pub fn has(&self, server: ServerId) -> bool {
        (server.0 as usize) < self.servers.len()
    }

    /// The servers' settings, with their weights in force.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = &ServerSettings> {
        self.servers.iter().map(|server| &server.settings)
    }

    /// A server's standing.
    pub fn state(&self, now: Instant, server: ServerId) -> ServerState {
        let state = &self.servers[server.0 as usize];
        let at = |(service, place): &(u32, u32)| {
            let place = *place as usize;
            let families = self.services[*service as usize].families.iter();
            families.filter(move |family| family.has_address[place]).map(move |family| family.health[place])
        };
        let health = Health::worst(self.members[server.0 as usize].iter().flat_map(at));
        ServerState {
            admin: state.admin,
            deadline: state.deadline,
            health,
            weight: state.units(now) as f32 / STEPS as f32,
            flows: state.flows,
            held_until: state.held_until(now),
            load: state.report.filter(|report| now.since(report.at) < REPORT_LIFE).map(|report| report.load),
            maintenance: state.maintenance,
            latency: state.latency,
        }
    }

    /// Whether the server of a flow whose client came by a family is out of service: down by its monitors, or disabled.
    pub fn is_gone(&self, service: ServiceId, server: ServerId, v6: bool) -> bool {
        if self.servers[server.0 as usize].admin == Admin::Disabled {
            return true;
        }
        // A last resort stands behind its service; its place there is found like any other.
        let health = |(service, place): &(u32, u32)| {
            self.services[*service as usize].families[usize::from(v6)].health[*place as usize]
        };
        let last = self.last_resorts[service.0 as usize];
        let members = self.members[server.0 as usize].iter();
        let mut own = members.filter(|(s, _)| *s == service.0 || Some(*s as usize) == last);
        own.next().is_some_and(|member| health(member) == Health::Down)
    }

    /// Whether any service is told that a server is out of service; where not, [`Balancer::is_gone`] need not be asked.
    pub fn may_be_gone(&self, server: ServerId) -> bool {
        let state = &self.servers[server.0 as usize];
        let down = |(service, place): &(u32, u32)| {
            self.services[*service as usize].families.iter().any(|f| f.health[*place as usize] == Health::Down)
        };
        state.admin == Admin::Disabled || self.members[server.0 as usize].iter().any(down)
    }

    /// Whether any service resets the TCP flows of a server that goes.
    pub fn resets_tcp(&self) -> bool {
        self.settings.iter().any(|service| service.on_down(Protocol::Tcp) == OnDown::Reset)
    }

    /// Gives a server another weight.
    pub fn set_weight(&mut self, now: Instant, server: ServerId, weight: u16) {
        self.change(now, server, |state| state.settings.weight = weight);
    }

    /// Sets what the operator wants of a server. Draining ends by force after `deadline`, if given.
    pub fn set_admin(&mut self, now: Instant, server: ServerId, admin: Admin, deadline: Option<Duration>) {
        self.change(now, server, |state| {
            state.admin = admin;
            state.deadline = deadline.filter(|_| admin == Admin::Draining).map(|span| now + span);
        });
        if admin == Admin::Draining && self.servers[server.0 as usize].flows == 0 {
            self.servers[server.0 as usize].deadline = None;
            self.notices.push_back(Notice::Drained(server));
        }
    }

    /// Takes what the monitors say of one of a server's addresses; `of_port` tells it for one of its ports.
    pub fn set_health(&mut self, now: Instant, server: ServerId, v6: bool, of_port: impl Fn(u16) -> Health) {
        let was_gone = self.may_be_gone(server);
        let port = self.servers[server.0 as usize].settings.port;
        for (service, place) in &self.members[server.0 as usize] {
            let own = (*service as usize) < self.settings.len();
            let owner = self.last_resorts.iter().position(|last| *last == Some(*service as usize));
            let settings = if own { Some(*service as usize) } else { owner };
            let Some(settings) = settings.map(|id| &self.settings[id]) else { continue };
            let own = &self.servers[server.0 as usize].settings;
            let reached =
                [false, true].map(|by| settings.reach(own, by).is_some_and(|address| address.is_ipv6() == v6));
            for by in [false, true].into_iter().filter(|by| reached[usize::from(*by)]) {
                let ports = super::server_ports(settings, port, by);
                let worst = Health::worst(ports.iter().map(|port| of_port(*port)));
                let service = &mut self.services[*service as usize];
                service.families[usize::from(by)].health[*place as usize] = worst;
            }
        }
        self.stale(server);
        let is_gone = self.may_be_gone(server);
        let state = &mut self.servers[server.0 as usize];
        match (was_gone, is_gone) {
            (false, true) => state.era += 1,
            (true, false) => state.back_since = Some(now),
            _ => {}
        }
        self.watch(now, server);
    }

    /// Takes a server's own word on its load, 0 to 100, and whether it wants to be left alone.
    pub fn report(&mut self, now: Instant, server: ServerId, load: u8, maintenance: bool) {
        let was = self.servers[server.0 as usize].maintenance;
        let report = |state: &mut super::Server| {
            state.report = Some(Report { load: load.min(100), at: now, flows_then: state.flows, given_since: 0 });
            state.maintenance = maintenance;
        };
        if was == maintenance {
            report(&mut self.servers[server.0 as usize]);
            self.bears(server);
            self.watch(now, server);
        } else {
            self.change(now, server, report);
        }
    }

    /// Takes the smoothed round trip of a server's probes.
    pub fn set_latency(&mut self, server: ServerId, latency: Duration) {
        self.servers[server.0 as usize].latency = Some(latency);
        let state = &self.servers[server.0 as usize];
        for (service, place) in &self.members[server.0 as usize] {
            self.services[*service as usize].latency_changed(*place as usize, state);
        }
    }

    /// Takes note of a sign of trouble from the traffic: a SYN unanswered, refused, or answered by an ICMP error.
    pub fn trouble(&mut self, now: Instant, server: ServerId) {
        let Some(passive) = self.passive[server.0 as usize].clone() else { return };
        let state = &mut self.servers[server.0 as usize];
        if state.sign(now, &passive).is_some() {
            state.era += 1;
            let until = now + state.held_until(now).map_or(Duration::ZERO, |until| until.since(now));
            self.notices.push_back(Notice::Held(server, until));
            self.stale(server);
            self.watch(now, server);
        }
    }

    /// Takes note that a server answered a new flow.
    #[inline]
    pub fn answered(&mut self, server: ServerId) {
        self.servers[server.0 as usize].answered();
    }

    /// Changes a server, and notes what follows: whoever stops taking flows enters a new era, whoever begins again starts slowly.
    fn change(&mut self, now: Instant, server: ServerId, change: impl FnOnce(&mut super::Server)) {
        let state = &mut self.servers[server.0 as usize];
        let was = state.is_open(now);
        change(state);
        match (was, state.is_open(now)) {
            (true, false) => state.era += 1,
            (false, true) => state.back_since = Some(now),
            _ => {}
        }
        self.stale(server);
        self.bears(server);
        self.watch(now, server);
    }

    fn stale(&mut self, server: ServerId) {
        for (service, _) in &self.members[server.0 as usize] {
            self.services[*service as usize].stale = true;
        }
    }

    /// Sets the timer for what changes with time alone.
    fn watch(&mut self, now: Instant, server: ServerId) {
        let when = self.servers[server.0 as usize].next_change(now);
        self.timers.set(server.0, when.unwrap_or(Instant::FAR));
    }

    /// When [`Balancer::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due: slow starts rise, reports grow too old, times out end, draining ends.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(server) = self.timers.pop(now).map(ServerId) {
            let state = &mut self.servers[server.0 as usize];
            if state.report.is_some_and(|report| report.at + REPORT_LIFE <= now) {
                state.report = None;
                state.maintenance = false;
            }
            if state.deadline.is_some_and(|deadline| deadline <= now) {
                state.deadline = None;
                self.notices.push_back(Notice::DrainDeadline(server));
            }
            if state.held_ended(now) {
                state.back_since = Some(now);
            }
            self.stale(server);
            self.bears(server);
            self.watch(now, server);
        }
        self.sticky.values_mut().for_each(|slots| slots.expire(now));
    }

    /// The next thing that happened.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }
}
