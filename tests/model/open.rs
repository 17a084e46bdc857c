//! Opening a flow: admission, the choice of a server and a source, and room in the table.

use super::flows::Flow;
use super::model::{Arrival, Model};
use super::nat::{Pool, Source, Wish};
use super::pick::Asker;
use super::services::Service;
use super::tcp::Tracker;
use super::wire::SYN;
use equipoise::balance::{Algorithm, Nat, PickedBy};
use equipoise::engine::{Ended, Event, Reason, Short};
use equipoise::flow::TimeoutState;
use equipoise::packet::Protocol;
use equipoise::time::Instant;
use std::net::SocketAddr;

/// The maximum number of servers tried for a flow that has no source port, or whose replies could not be distinguished
/// from another flow's.
const MOST_TRIES: usize = 8;

impl Model {
    /// Opens a flow if it is admitted and there is a server, a source and room for it.
    pub fn open(&mut self, arrival: &Arrival, service: usize, rule: Option<usize>) -> Result<usize, Reason> {
        let Arrival { now, protocol, src: client, dst: listen, .. } = *arrival;
        self.admit(now, service, rule, client)?;
        let asker = Asker { protocol, client, listen };
        let half_open = arrival.segment().is_some_and(|segment| segment.has(SYN));
        let (mut tried, mut why) = (Vec::new(), Reason::NoServer);
        while tried.len() < MOST_TRIES {
            let Some((server, picked_by)) = self.pick(now, (service, half_open), asker, &tried) else { break };
            tried.push(server);
            let end = self.server_end(service, server, asker).ok_or(Reason::NoServer)?;
            // Each server has its own ports.
            let Some(Source { end: source, replaces }) = self.source(now, service, asker, end) else {
                self.seen("no source port to one server");
                why = Reason::NatExhausted;
                continue;
            };
            let wish = Wish::new(client, protocol, end);
            let end = if protocol == Protocol::Icmp { SocketAddr::new(end.ip(), source.port()) } else { end };
            if let Some((other, _)) = self
                .flows
                .find(protocol, end, source)
                .filter(|(other, _)| self.flows.yields(now, half_open.then_some(client), *other))
            {
                self.seen("a flow that is over yields its return key");
                let same_store = self.flows.all[other].half_open;
                if let Some(pool) = self.nat_pool(service, client) {
                    pool.yields(&wish, source);
                    self.seen("and its port");
                }
                self.end(now, other, Ended::Replaced);
                if !same_store {
                    self.make_room(now, half_open, false)?;
                }
            } else if let Some((other, _)) = self.flows.find(protocol, end, source) {
                if !replaces {
                    self.seen("return key taken");
                    why = Reason::ReturnKeyTaken;
                    continue;
                }
                self.replace_for_port(now, (service, client), other, (&wish, source));
            } else {
                self.make_room(now, half_open, false)?;
            }
            if let Some(pool) = self.nat_pool(service, client) {
                pool.holds(&wish, source);
            }
            let flow = self.flow(now, (protocol, client, listen), (end, source), (service, server, rule), picked_by);
            let flow = Flow { half_open, ..flow };
            let place = self.flows.push(now, flow);
            self.opened(now, place);
            return Ok(place);
        }
        if why == Reason::NatExhausted
            && let Some(pool) = self.nat_pool(service, client)
        {
            pool.exhausted += 1;
        }
        Err(why)
    }

    /// Ends a half-open flow, or one of datagrams without a conversation, whose port another one takes.
    fn replace_for_port(
        &mut self,
        now: Instant,
        (service, client): (usize, SocketAddr),
        other: usize,
        (wish, source): (&Wish, SocketAddr),
    ) {
        let protocol = wish.protocol.name();
        self.seen(&format!("{protocol} flow replaced for its port"));
        let most = self.nat_pool(service, client).map_or(0, |pool| {
            let (first, last) = (pool.settings.first_port, pool.settings.last_port);
            (usize::from(last) - usize::from(first) + 1).div_ceil(2)
        });
        let class = self.flows.all[other].class();
        self.note_shortage(now, Short::Ports, Some(class), most);
        if let Some(pool) = self.nat_pool(service, client) {
            pool.yields(wish, source);
        }
        self.end_politely(now, other, Ended::Evicted);
    }

    /// Returns a new flow.
    fn flow(
        &self,
        now: Instant,
        (protocol, client, listen): (Protocol, SocketAddr, SocketAddr),
        (end, source): (SocketAddr, SocketAddr),
        (service, server, rule): (usize, usize, Option<usize>),
        picked_by: PickedBy,
    ) -> Flow {
        let settings = &self.services[service].settings;
        let profile = settings
            .timeouts
            .iter()
            .find(|t| t.protocol == protocol && (t.first_port..=t.last_port).contains(&listen.port()));
        Flow {
            number: 0,
            protocol,
            client,
            listen,
            server_end: end,
            source,
            service,
            server,
            rule,
            picked_by,
            state: match protocol {
                Protocol::Tcp => TimeoutState::Opening,
                Protocol::Icmp => TimeoutState::Icmp,
                _ => TimeoutState::UdpOneWay,
            },
            profile: self.flows.profile(profile.map_or(0, |t| usize::from(t.profile))),
            half_open: false,
            created: now,
            touched: now,
            queued: 0,
            refreshed: false,
            proven: false,
            stalled: false,
            packets: [0; 2],
            bytes: [0; 2],
            tcp: Tracker::default(),
        }
    }

    /// Adds the flow of a connection that its server goes on with; returns its place.
    pub fn add_adopted(&mut self, arrival: &Arrival, of: (usize, usize, Option<usize>), listen: SocketAddr) -> usize {
        let client = arrival.dst;
        let ends = (arrival.src, client);
        let flow = self.flow(arrival.now, (Protocol::Tcp, client, listen), ends, of, PickedBy::Server);
        let place = self.flows.push(arrival.now, flow);
        self.opened(arrival.now, place);
        place
    }

    pub fn admit(
        &mut self,
        now: Instant,
        service: usize,
        rule: Option<usize>,
        client: SocketAddr,
    ) -> Result<(), Reason> {
        let of_rule = rule.and_then(|rule| self.policy.rules[rule].settings.priority);
        let class = of_rule.unwrap_or(self.services[service].settings.priority);
        let fill = (self.flows.fill(), self.flows.most);
        self.policy.admit(now, rule, class, client.ip(), fill).map_err(|(reason, pressed)| {
            if let Some((class, of)) = pressed.filter(|(class, of)| self.policy.tells(now, *class, *of)) {
                self.events.push(Event::Pressure { priority: class, of });
            }
            reason
        })
    }

    /// Returns where a server listens for flows to a service address.
    fn server_end(&self, service: usize, server: usize, asker: Asker) -> Option<SocketAddr> {
        let settings = &self.servers[server].settings;
        let address = self.services[service].settings.reach(settings, asker.listen.is_ipv6())?;
        let port = match asker.protocol {
            Protocol::Icmp | Protocol::Ip(_) => asker.listen.port(),
            _ => settings.port.unwrap_or(asker.listen.port()),
        };
        Some(SocketAddr::new(address, port))
    }

    fn pick(
        &mut self,
        now: Instant,
        (service, syn): (usize, bool),
        asker: Asker,
        tried: &[usize],
    ) -> Option<(usize, PickedBy)> {
        let v6 = asker.listen.is_ipv6();
        self.services[service].refresh(now, &self.servers);
        let leader = self.leaders[service];
        let sticky = self.services[service].settings.sticky.as_ref().map(|sticky| sticky.group);
        if let Some(slots) = sticky.and_then(|group| self.sticky.get_mut(&group))
            && let known = slots.find(now, asker.client.ip())
            && !known.is_empty()
        {
            for (server, era, proven) in known {
                let takes = self.services[service].takes(now, &self.servers, server, v6);
                if takes && self.servers[server].era == era && !tried.contains(&server) {
                    self.seen(if proven { "stuck to its server" } else { "stuck before it has proved itself" });
                    return Some((server, PickedBy::Stickiness));
                }
            }
            self.seen("stuck no more");
        }
        // A server is unsuitable if its replies would look like those of another flow.
        let ends: Vec<_> = (0..self.servers.len()).map(|server| self.server_end(service, server, asker)).collect();
        let full = self.services[service].settings.nat.pool_for(asker.client.ip()).is_some();
        let (flows, protocol, client) = (&self.flows, asker.protocol, asker.client);
        let taken = |end| {
            let found = flows.find(protocol, end, client);
            found.is_some_and(|(other, _)| !flows.yields(now, syn.then_some(client), other))
        };
        let has_key = |server: usize| full || !ends[server].is_some_and(taken);
        let chosen = self.chosen.server;
        let picked = self.services[leader].pick(now, asker, &self.servers, tried, chosen, &has_key);
        let by = picked.map(|server| (server, PickedBy::Algorithm)).or_else(|| {
            let last = self.last_resorts[service].as_mut()?;
            let server = last.pick(now, asker, &self.servers, tried, chosen, &has_key)?;
            Some((server, PickedBy::LastResort))
        });
        if let Some((server, by)) = by {
            let (service, server) = (&self.services[service], &self.servers[server]);
            let algorithm = service.settings.algorithm;
            let by_load = algorithm == Algorithm::ResourceUsage;
            let events = [
                (by == PickedBy::Algorithm, algorithm.name()),
                (by == PickedBy::LastResort, "last resort"),
                (server.settings.backup, "a backup"),
                (server.step(now) < super::servers::STEPS, "slow start"),
                (by_load && service.servers.iter().all(|s| self.servers[*s].report.is_some()), "least loaded"),
            ];
            events.into_iter().filter(|(came_up, _)| *came_up).for_each(|(_, what)| self.seen(what));
        }
        by
    }

    fn nat_pool(&mut self, service: usize, client: SocketAddr) -> Option<&mut Pool> {
        let pool = self.services[service].settings.nat.pool_for(client.ip())?;
        Some(&mut self.pools[pool.0 as usize])
    }

    /// Returns the source that the server sees: the client's own, or one from a NAT pool. None if there is none.
    fn source(&mut self, now: Instant, service: usize, asker: Asker, end: SocketAddr) -> Option<Source> {
        let wish = Wish::new(asker.client, asker.protocol, end);
        let (chosen, unseen) = (self.chosen.source, self.chosen.unseen);
        let server = self.chosen.server.and_then(|server| self.server_end(service, server, asker));
        let (flows, to) = (&self.flows, Some(asker.client));
        let over = (0..flows.all.len()).filter(|at| flows.all[*at].protocol == Protocol::Tcp);
        let over = over.filter(|at| flows.all[*at].server_end == end && flows.yields(now, to, *at));
        let over: Vec<(SocketAddr, Instant)> = over.map(|at| (flows.all[at].source, flows.all[at].touched)).collect();
        let Some(pool) = self.nat_pool(service, asker.client) else {
            return Some(Source { end: asker.client, replaces: false });
        };
        if unseen {
            return pool.any(now, &wish);
        }
        let Some(chosen_here) = chosen.filter(|_| server == Some(end)) else {
            if pool.may_lack(now, &wish, chosen, &over) {
                return None;
            }
            // The server may also be unfit for another reason, which is found next.
            let any = pool.any(now, &wish);
            if any.is_none() || asker.protocol.has_ports() {
                self.objections.push(format!("{wish:?} was refused, but there are sources"));
            }
            return any;
        };
        match pool.take(now, &wish, chosen_here, &over) {
            Ok(source) => Some(source),
            Err(objection) => {
                self.objections.push(objection);
                None
            }
        }
    }

    /// Releases a flow's source.
    pub fn give_back(&mut self, now: Instant, flow: &Flow) {
        if let Nat::Full { pool, .. } = self.services[flow.service].settings.nat {
            let wish = Wish::new(flow.client, flow.protocol, flow.server_end);
            self.pools[pool.0 as usize].release(now, &wish, flow.source);
        }
    }

    /// Returns whether the limits admit a flow that has not counted so far.
    pub fn may_prove(&mut self, place: usize) -> Result<(), Reason> {
        let Flow { rule, client, server, .. } = self.flows.all[place];
        if let Some(rule) = rule.map(|rule| &mut self.policy.rules[rule])
            && let Err(reason) = rule.has_room(client.ip())
        {
            rule.refused += 1;
            return Err(reason);
        }
        if self.servers[server].is_full() { Err(Reason::ServerFlows) } else { Ok(()) }
    }

    /// Returns whether a server other than a flow's could take a new flow of its service.
    pub fn has_room_elsewhere(&mut self, now: Instant, place: usize) -> bool {
        let Flow { service, server: own, listen, client, .. } = self.flows.all[place];
        let (leader, v6) = (self.leaders[service], listen.is_ipv6());
        // The choice is brought up to date as for a new flow.
        self.services[leader].refresh(now, &self.servers);
        let sticky = self.services[service].settings.sticky.as_ref().map(|sticky| sticky.group);
        let slots = sticky.and_then(|group| self.sticky.get_mut(&group));
        let slots = slots.map(|slots| slots.find(now, client.ip())).unwrap_or_default();
        let returns = |(server, era, _): (usize, u32, bool)| {
            server != own
                && self.servers[server].era == era
                && self.services[service].takes(now, &self.servers, server, v6)
        };
        let has_room = |group: &Service| {
            let serving = group.serving(now, &self.servers, v6);
            let open = |(server, weight): (&usize, &u32)| *server != own && *weight > 0;
            let mut open = group.servers.iter().zip(&serving).filter(|pair| open(*pair));
            open.any(|(server, _)| !self.servers[*server].is_full())
        };
        if slots.into_iter().any(returns) || has_room(&self.services[leader]) {
            return true;
        }
        let last = self.last_resorts[service].as_mut();
        last.is_some_and(|last| {
            last.refresh(now, &self.servers);
            true
        }) && self.last_resorts[service].as_ref().is_some_and(has_room)
    }

    /// Records that the client of a flow has proved itself: only now the flow counts, and keeps its source.
    pub fn proven(&mut self, now: Instant, place: usize) {
        let Flow { number, service, server, rule, client, picked_by, created, .. } = self.flows.all[place];
        self.seen("a client proves itself");
        self.flows.all[place].proven = true;
        self.servers[server].proven += 1;
        self.policy.proven(rule, (client.ip(), self.flows.all[place].created));
        let sticky = self.services[service].settings.sticky.as_ref().map(|sticky| sticky.group);
        let slots = sticky.filter(|_| picked_by != PickedBy::LastResort).and_then(|group| self.sticky.get_mut(&group));
        let era = self.servers[server].era;
        for what in
            slots.map(|slots| slots.proven(now, (client.ip(), number), (server, era), created)).into_iter().flatten()
        {
            self.seen(what);
        }
        let flow = &self.flows.all[place];
        if let Nat::Full { pool, .. } = self.services[service].settings.nat {
            let wish = Wish::new(flow.client, flow.protocol, flow.server_end);
            self.pools[pool.0 as usize].established(&wish, flow.source);
        }
    }
}
