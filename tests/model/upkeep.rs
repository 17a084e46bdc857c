//! How flows end, what operators and time change, and the state as seen from outside.

use super::answers;
use super::engine::{Order, Rows, name};
use super::flows::Flow;
use super::model::Model;
use super::monitor::Watch;
use super::wire;
use equipoise::balance::{Admin, Health, OnDown};
use equipoise::engine::{Count, Ended, Event, FlowRow, PartRow, RuleRow, ServerRow, ServiceRow};
use equipoise::flow::TimeoutState;
use equipoise::health::Why;
use equipoise::packet::{Protocol, Side};
use equipoise::time::{Duration, Instant};
use std::net::IpAddr;

impl Model {
    pub fn row(&self, now: Instant, flow: &Flow) -> FlowRow {
        let service = &self.settings.services[flow.service].name;
        let rule = flow.rule.map(|rule| self.policy.rules[rule].settings.name.as_str());
        let server = &self.servers[flow.server].settings;
        let pool = &self.settings.pools[server.pool.0 as usize].name;
        self.flows.row(now, flow, (service, (pool, &server.name), rule))
    }

    /// Returns a server's name as used in events.
    fn name(&self, server: usize) -> String {
        let settings = &self.servers[server].settings;
        format!("{}/{}", self.settings.pools[settings.pool.0 as usize].name, settings.name)
    }

    /// Counts a new flow, and records it at its server, rule, service and stickiness group.
    pub fn opened(&mut self, now: Instant, place: usize) {
        let Flow { number, service, server, rule, client, picked_by, .. } = self.flows.all[place];
        self.counters.flows_opened += 1;
        self.of_services[service].iter_mut().for_each(|count| *count += 1);
        let it = &mut self.servers[server];
        it.flows += 1;
        it.flows_total += 1;
        if let Some(report) = &mut it.report {
            report.given += 1;
        }
        let era = it.era;
        self.policy.opened(rule);
        if picked_by == equipoise::balance::PickedBy::LastResort {
            return;
        }
        self.services[self.leaders[service]].opened(now, server);
        let sticky = self.services[service].settings.sticky.as_ref().map(|sticky| sticky.group);
        if let Some(slots) = sticky.and_then(|group| self.sticky.get_mut(&group))
            && slots.opened(now, (client.ip(), number), server, era)
        {
            self.seen("a client forgotten for another");
        }
    }

    /// Ends a flow.
    pub fn end(&mut self, now: Instant, place: usize, cause: Ended) {
        self.seen(&format!("ended: {}", cause.name()));
        let flow = self.flows.remove(now, place);
        let row = Box::new(self.row(now, &flow));
        self.events.push(Event::FlowEnded { flow: row, cause });
        self.counters.flows_ended.iter_mut().filter(|c| c.kind == cause).for_each(|c| c.count += 1);
        self.of_services[flow.service][0] -= 1;
        self.give_back(now, &flow);
        let it = &mut self.servers[flow.server];
        it.flows -= 1;
        it.proven -= u32::from(flow.proven);
        if it.flows == 0 && it.admin == Admin::Draining {
            it.deadline = None;
            let server = self.name(flow.server);
            self.notices.push(Event::ServerDrained { server });
        }
        let sticky = self.services[flow.service].settings.sticky.as_ref().map(|sticky| sticky.group);
        if let Some(slots) = sticky.and_then(|group| self.sticky.get_mut(&group)) {
            slots.ended(now, flow.number);
        }
        self.policy.ended(flow.rule, (flow.client.ip(), flow.created), flow.proven);
    }

    /// Ends a flow; with resets if its client has completed the handshake and got no further.
    pub fn end_politely(&mut self, now: Instant, place: usize, cause: Ended) {
        let flow = &self.flows.all[place];
        if flow.stalled && flow.half_open && flow.state != TimeoutState::Reset {
            self.seen("resets for a stalled handshake");
            self.end_by_reset(now, place, cause);
        } else {
            self.end(now, place, cause);
        }
    }

    /// Ends a flow. If it is an established connection, its ends get resets, within a limit: both of them, or only the
    /// server that a client has left for another one.
    pub fn forget(&mut self, now: Instant, place: usize, cause: Ended) {
        let flow = &self.flows.all[place];
        if flow.protocol == Protocol::Tcp && flow.state == TimeoutState::Established && self.limits[2].take(now) {
            let both = [Side::Client, Side::Server];
            let sides = if cause == Ended::ServerDown { &both[1..] } else { &both };
            sides.iter().for_each(|to| self.send_resets(place, *to));
            self.seen(&format!("ends hear of it: {}", cause.name()));
        } else if matches!(cause, Ended::Expired | Ended::Evicted) {
            return self.end_politely(now, place, cause);
        }
        self.end(now, place, cause);
    }

    fn send_resets(&mut self, place: usize, to: Side) {
        let flow = &self.flows.all[place];
        let ((dst, src), (numbers, ack)) = (flow.ends(to), flow.tcp.resets(to));
        self.sent.extend(numbers.into_iter().map(|seq| answers::reset_of(src, dst, seq, ack)));
    }

    /// Ends a flow; sends resets to both ends of a TCP connection, with the sequence numbers that they expect.
    pub fn end_by_reset(&mut self, now: Instant, place: usize, cause: Ended) {
        if self.flows.all[place].protocol == Protocol::Tcp {
            [Side::Client, Side::Server].into_iter().for_each(|to| self.send_resets(place, to));
        }
        self.end(now, place, cause);
    }

    /// Records a sign of trouble at a server.
    pub fn trouble(&mut self, now: Instant, server: usize) {
        if let Some(until) = self.servers[server].sign(now) {
            self.seen("held for signs of trouble");
            let event = Event::PassiveHold { server: self.name(server), for_ms: until.since(now).as_millis() as u64 };
            self.notices.push(event);
        }
        self.tell_notices();
    }

    pub fn tell_notices(&mut self) {
        self.events.append(&mut self.notices);
    }

    /// Returns whether a server is out of service for any flow.
    pub fn may_be_gone(&self, server: usize) -> bool {
        let it = &self.servers[server];
        let all = self.services.iter().chain(self.last_resorts.iter().flatten());
        let down = |v6| all.clone().any(|own| own.servers.contains(&server) && own.health(it, v6) == Health::Down);
        it.admin == Admin::Disabled || down(false) || down(true)
    }

    /// Schedules a walk through the flows if a server is out of service and some service resets its flows in that case.
    fn standing_changed(&mut self, server: usize) {
        let resets = self.settings.services.iter().any(|service| service.on_down == Some(OnDown::Reset));
        self.walk |= self.may_be_gone(server) && resets;
    }

    /// Carries out an operator's order; returns false if that is impossible.
    pub fn change(&mut self, now: Instant, order: &Order) -> bool {
        if let Order::Weight { server, .. }
        | Order::Admin { server, .. }
        | Order::Load { server, .. }
        | Order::Health { server, .. }
        | Order::Mtu { server, .. } = *order
            && server >= self.servers.len()
        {
            return false;
        }
        match *order {
            Order::Weight { server, weight } => {
                self.servers[server].change(now, |server| server.settings.weight = weight);
            }
            Order::Admin { server, admin, deadline } => self.administer(now, server, admin, deadline),
            Order::Load { load: 101.., .. } => return false,
            Order::Load { server, load, maintenance } => self.servers[server].reports(now, load, maintenance),
            Order::Health { server, up } => self.force(now, server, up),
            Order::Rule { rule, on } => match self.policy.rules.get_mut(rule) {
                Some(rule) => rule.on = on,
                None => return false,
            },
            Order::Mtu { server, v6, mtu } => {
                self.mtus[server][usize::from(v6)] = if v6 && mtu != 0 { mtu.max(1280) } else { mtu };
            }
            Order::Kill { flow } => match self.flows.all.iter().position(|other| other.name() == flow) {
                Some(place) => self.end_politely(now, place, Ended::Killed),
                None => return false,
            },
        }
        self.tell_notices();
        true
    }

    fn administer(&mut self, now: Instant, server: usize, admin: Admin, deadline: Option<Duration>) {
        self.over.retain(|other| *other != server);
        self.servers[server].change(now, |server| {
            server.admin = admin;
            server.deadline = deadline.filter(|_| admin == Admin::Draining).map(|span| now + span);
        });
        if admin == Admin::Draining && self.servers[server].flows == 0 {
            self.servers[server].deadline = None;
            let server = self.name(server);
            self.notices.push(Event::ServerDrained { server });
        }
        self.standing_changed(server);
    }

    fn force(&mut self, now: Instant, server: usize, up: Option<bool>) {
        let was = self.servers[server].told();
        self.servers[server].forced = up;
        let is = self.servers[server].told();
        if was != is {
            self.health_changed(now, server);
        }
        let [was, is] = [was, is].map(|both| both.map(|health| health == Health::Up));
        let why = if up.is_some() { Why::Forced } else { Why::Released };
        let settings = &self.servers[server].settings;
        let has = [settings.v4.is_some(), settings.v6.is_some()];
        for v6 in [false, true] {
            let place = usize::from(v6);
            if was[place] != is[place] && has[place] {
                self.health_changed(now, server);
                self.tell_health(server, v6, is[place], why.clone());
            }
        }
    }

    /// Updates a server's health, which may have changed.
    fn health_changed(&mut self, now: Instant, server: usize) {
        let was_gone = self.may_be_gone(server);
        self.servers[server].health = self.servers[server].told();
        match (was_gone, self.may_be_gone(server)) {
            (false, true) => self.servers[server].era += 1,
            (true, false) => self.servers[server].is_back(now),
            _ => {}
        }
        self.servers[server].changed(now);
        self.standing_changed(server);
    }

    fn tell_health(&mut self, server: usize, v6: bool, up: bool, why: Why) {
        self.servers[server].times[usize::from(up)] += 1;
        self.events.push(Event::Health { server: self.name(server), v6, port: None, up, why });
    }

    /// Processes the result of a monitor's request.
    pub fn result(&mut self, now: Instant, watch: usize, answered: bool) {
        let why = self.watches[watch].result(now, answered);
        let Watch { server, address, health, .. } = self.watches[watch];
        let smoothed = self.watches.iter().filter(|watch| watch.server == server).filter_map(|watch| watch.smoothed);
        let (count, sum) = smoothed.fold((0, Duration::ZERO), |(count, sum), one| (count + 1, sum + one));
        if answered {
            self.servers[server].latency = Some(sum / count);
        }
        let Some(why) = why else { return };
        let v6 = address.is_ipv6();
        self.servers[server].watched[usize::from(v6)] = Some(health);
        self.seen(&format!("a monitor says {health:?}"));
        if self.servers[server].forced.is_none() {
            self.health_changed(now, server);
            self.tell_health(server, v6, health == Health::Up, why);
        }
    }

    /// Records the monitors' requests among the packets that the engine sent, and returns the rest.
    pub fn asks(&mut self, now: Instant, sent: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut rest = Vec::new();
        for bytes in sent {
            let wire::Read::Packet(packet) = wire::read(&bytes) else { return vec![bytes] };
            if !self.is_probe_address(packet.src) {
                rest.push(bytes);
                continue;
            }
            match self.watches.iter_mut().find(|watch| watch.address == packet.dst) {
                Some(watch) => self.objections.extend(watch.asks(now, &bytes, &packet)),
                None => self.objections.push(format!("a request to {}, which no monitor watches", packet.dst)),
            }
        }
        rest
    }

    pub fn is_probe_address(&self, address: IpAddr) -> bool {
        let health = &self.settings.health;
        [health.source_v4.map(IpAddr::V4), health.source_v6.map(IpAddr::V6)].contains(&Some(address))
    }

    /// Does everything that is due; returns the packets sent and the events. Flows that end at the same time do so in
    /// the order of the engine's events, as the order is unspecified but has consequences, for example for stickiness.
    pub fn timeout(&mut self, now: Instant, real: &[Event]) -> (Vec<Vec<u8>>, Vec<Event>) {
        let ended = |event: &Event| if let Event::FlowEnded { flow, .. } = event { Some(name(flow)) } else { None };
        let ended: Vec<_> = real.iter().filter_map(ended).collect();
        let turn = |flow: &Flow| ended.iter().position(|name| *name == flow.name()).unwrap_or(usize::MAX);
        self.flows.all.sort_by_key(turn);
        while let Some(place) = self.flows.first_due(now) {
            self.seen(&format!("{} expired", self.flows.all[place].state.name()));
            self.forget(now, place, Ended::Expired);
        }
        self.relieve(now);
        self.pools.iter_mut().for_each(|pool| pool.passes(now));
        for watch in 0..self.watches.len() {
            if self.watches[watch].until().is_some_and(|until| until <= now) {
                self.result(now, watch, false);
            }
        }
        self.tell_notices();
        let mut due: Vec<_> = (0..self.servers.len()).map(|server| (self.servers[server].deadline, server)).collect();
        due.sort();
        for (_, server) in due {
            if self.servers[server].passes(now) {
                self.seen("drain deadline");
                self.over.push(server);
                let event = Event::DrainDeadline { server: self.name(server), flows: self.servers[server].flows };
                self.events.push(event);
            }
        }
        if self.walk || !self.over.is_empty() {
            self.walk(now);
            self.tell_notices();
        }
        (std::mem::take(&mut self.sent), std::mem::take(&mut self.events))
    }

    /// Ends the TCP flows of servers that are out of service, if their service is set to reset them, and all flows of
    /// servers whose drain deadline has passed.
    fn walk(&mut self, now: Instant) {
        let mut place = 0;
        while let Some(flow) = self.flows.all.get(place) {
            let resets = self.settings.services[flow.service].on_down == Some(OnDown::Reset);
            let gone = self.is_gone(flow.service, flow.server, flow.listen.is_ipv6());
            if self.over.contains(&flow.server) {
                self.end_by_reset(now, place, Ended::Drained);
            } else if gone && resets && flow.protocol == Protocol::Tcp {
                self.end_by_reset(now, place, Ended::ServerDown);
            } else {
                place += 1;
            }
        }
        self.walk = false;
        self.over.clear();
    }

    /// Returns when something is due next; slow start does not count here.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let servers = self.servers.iter().filter_map(|server| server.next(now));
        let walk = self.walk.then_some(now);
        let watches = self.watches.iter().filter_map(Watch::until);
        servers.chain(watches).chain(self.flows.next()).chain(self.next_relief()).chain(walk).min()
    }

    /// Returns everything visible from outside; the NAT pools are compared separately.
    pub fn rows(&self, now: Instant) -> Rows {
        let mut flows: Vec<FlowRow> = self.flows.all.iter().map(|flow| self.row(now, flow)).collect();
        flows.sort_by_key(name);
        let of_state = |state| self.flows.all.iter().filter(|flow| flow.state == state).count() as u64;
        let mut counters = self.counters.clone();
        counters.flows = self.flows.all.len() as u64;
        counters.half_open = self.flows.count(true) as u64;
        counters.states = TimeoutState::ALL.map(|kind| Count { kind, count: of_state(kind) }).into();
        Rows {
            counters,
            servers: (0..self.servers.len()).map(|server| self.server_row(now, server)).collect(),
            services: (0..self.services.len()).map(|service| self.service_row(service)).collect(),
            rules: (0..self.policy.rules.len()).map(|rule| self.rule_row(rule)).collect(),
            nat: Vec::new(),
            pressures: self.pressure_rows(now),
            flows,
        }
    }

    fn server_row(&self, now: Instant, server: usize) -> ServerRow {
        let it = &self.servers[server];
        let all = self.services.iter().chain(self.last_resorts.iter().flatten());
        // For the flows of at least one family.
        let says = |wanted| {
            let by = |v6| all.clone().any(|own| own.servers.contains(&server) && own.health(it, v6) == wanted);
            by(false) || by(true)
        };
        let addresses = it.settings.v4.map(IpAddr::V4).into_iter().chain(it.settings.v6.map(IpAddr::V6));
        let own = || self.watches.iter().filter(|watch| watch.server == server);
        let partly = it.forced.is_none() && own().any(|watch| watch.health != Health::Down);
        let down = own().filter(|watch| watch.health == Health::Down && partly);
        let parts_down = down.map(|watch| PartRow::new(watch.address.is_ipv6(), None)).collect();
        ServerRow {
            pool: self.settings.pools[it.settings.pool.0 as usize].name.clone(),
            server: it.settings.name.clone(),
            addresses: addresses.collect(),
            port: it.settings.port,
            weight: it.settings.weight,
            weight_now: it.weight(now) as f32 / super::servers::STEPS as f32,
            admin: it.admin,
            drain_deadline_ms: it.deadline.map(|deadline| deadline.since(now).as_millis() as u64),
            health: match (says(Health::Down), says(Health::Unknown)) {
                (true, _) => Health::Down,
                (_, true) => Health::Unknown,
                _ => Health::Up,
            },
            parts_down,
            times_down: it.times[0],
            times_up: it.times[1],
            passive_hold_ms: (it.held_until > now).then(|| it.held_until.since(now).as_millis() as u64),
            load: it.report.map(|report| report.load),
            maintenance: it.maintenance,
            removed: false,
            latency_ms: it.latency.map(|latency| latency.as_secs_f64() * 1e3),
            max_flows: it.settings.max_flows,
            flows: u64::from(it.flows),
            proven: u64::from(it.proven),
            flows_total: it.flows_total,
            packets_in: it.packets[0],
            bytes_in: it.bytes[0],
            packets_out: it.packets[1],
            bytes_out: it.bytes[1],
            rates: None,
        }
    }

    fn service_row(&self, service: usize) -> ServiceRow {
        let (settings, [flows, flows_total]) = (&self.settings.services[service], self.of_services[service]);
        ServiceRow {
            enabled: true,
            service: settings.name.clone(),
            listen: settings.listen.iter().map(ToString::to_string).collect(),
            pool: self.settings.pools[settings.pool.0 as usize].name.clone(),
            algorithm: settings.algorithm,
            flows,
            flows_total,
            packets_in: self.traffic[service][0][0],
            bytes_in: self.traffic[service][0][1],
            packets_out: self.traffic[service][1][0],
            bytes_out: self.traffic[service][1][1],
            rates: None,
        }
    }

    fn rule_row(&self, place: usize) -> RuleRow {
        let rule = &self.policy.rules[place];
        RuleRow {
            place: place as u16 + 1,
            rule: rule.settings.name.clone(),
            enabled: rule.on,
            action: rule.settings.action.name().into(),
            matched: rule.matched,
            flows_total: rule.flows_total,
            refused: rule.refused,
            flows: rule.flows,
            proven: rule.proven,
        }
    }
}
