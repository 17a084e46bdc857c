//! Packets without a flow: where they belong, and how they are answered.

use super::answers::{self, Why};
use super::engine::Fate;
use super::model::{Arrival, Model};
use super::services;
use super::tcp::{Means, Tracker};
use super::wire::{self, ACK, Body, RST, SYN};
use equipoise::balance::{LastResort, UnknownTcp};
use equipoise::config::NoRoom;
use equipoise::engine::{Consumed, Event, Reason};
use equipoise::flow::TimeoutState;
use equipoise::packet::{Protocol, Side};
use equipoise::policy::Action;
use std::net::SocketAddr;

impl Model {
    /// Handles a packet without a flow.
    pub fn miss(&mut self, arrival: &Arrival) -> (Fate, Vec<u8>) {
        let Arrival { protocol, src, dst, .. } = *arrival;
        if self.is_probe_address(dst.ip()) {
            return self.monitors_take(arrival);
        }
        let own = services::is_own(&self.settings, dst.ip());
        let (rule, named) = match self.policy.decide(protocol, src, dst) {
            None => (None, None),
            Some((rule, Action::Balance(service))) => (Some(rule), service.map(|id| id.0 as usize)),
            Some((_, Action::Pass)) if own => return dropped(Reason::RuleLoop),
            Some((_, Action::Pass)) => return foreign(arrival),
            Some((_, Action::Drop)) => return dropped(Reason::RuleDrop),
            Some((_, Action::Reject)) if arrival.goes_unanswered() => return dropped(Reason::RuleDrop),
            Some((_, Action::Reject)) => return self.refuse(arrival, Why::Prohibited, true, Consumed::Rejected),
        };
        if let Some(service) = named.or_else(|| services::listening(&self.settings, protocol, dst)) {
            return self.ask(arrival, service, rule);
        }
        if own {
            return self.nobody_listens(arrival);
        }
        match arrival.segment().filter(|segment| !segment.has(RST)) {
            Some(segment) if services::is_servers(&self.settings, protocol, src) => {
                if segment.has(SYN) {
                    self.flows.direct.insert((src, dst));
                }
                if self.flows.direct.contains(&(src, dst)) {
                    return foreign(arrival);
                }
                self.adopt_from_server(arrival, &segment, rule).unwrap_or_else(|| self.servers_stray(arrival, &segment))
            }
            _ => foreign(arrival),
        }
    }

    /// Handles a segment of a server that makes a flow again; `by` is the rule that its own addresses match.
    fn adopt_from_server(
        &mut self,
        arrival: &Arrival,
        segment: &wire::Tcp,
        by: Option<usize>,
    ) -> Option<(Fate, Vec<u8>)> {
        let (server, client) = (arrival.src, arrival.dst);
        let is_open = segment.has(ACK) && !segment.has(SYN) && !segment.has(RST) && arrival.packet.hops > 1;
        if !is_open || !answers::can_be_answered(server.ip(), client.ip()) || !arrival.sum_is_right() {
            return None;
        }
        let [(service, Some(listen))] = services::owners(&self.settings, server, client)[..] else { return None };
        let settings = &self.settings.services[service];
        let place = self.servers.iter().position(|it| {
            let own = &it.settings;
            own.pool == settings.pool
                && own.address(listen.ip()) == Some(server.ip())
                && own.port.is_none_or(|port| port == server.port())
        })?;
        let may = settings.unknown_tcp == UnknownTcp::Adopt
            && settings.enabled
            && !self.is_gone(service, place, listen.is_ipv6())
            && self.flows.find(Protocol::Tcp, client, listen).is_none()
            && !self.flows.has_just_ended(arrival.now, client, listen);
        if !may {
            return None;
        }
        let rule = self.policy.decide(Protocol::Tcp, client, listen);
        let rule = match rule {
            None => None,
            Some((rule, Action::Balance(named))) if named.is_none_or(|id| id.0 as usize == service) => Some(rule),
            Some((rule, _)) => {
                self.policy.rules[rule].matched -= 1;
                return None;
            }
        };
        if let Some(by) = by {
            self.policy.rules[by].matched -= 1;
        }
        if let Err(reason) = self.admit(arrival.now, service, rule, client) {
            return Some(dropped(reason));
        }
        if self.flows.count(false) >= self.flows.most {
            return Some(dropped(Reason::TableFull));
        }
        self.seen("a server goes on with a connection that is not known");
        let place = self.add_adopted(arrival, (service, place, rule), listen);
        let track = (Tracker::of_server(segment), Means::State(TimeoutState::Opening));
        let fate = self.forward(arrival, place, Side::Server, (true, track));
        let row = self.row(arrival.now, &self.flows.all[place]);
        self.events.push(Event::FlowOpened(Box::new(row)));
        Some(fate)
    }

    /// Handles a segment that a server sends from the port of a service, but for no flow: both ends of a connection that
    /// is not known here get resets.
    fn servers_stray(&mut self, arrival: &Arrival, segment: &wire::Tcp) -> (Fate, Vec<u8>) {
        let stray = dropped(Reason::ServerNoFlow);
        if !answers::can_be_answered(arrival.src.ip(), arrival.dst.ip()) || !arrival.sum_is_right() {
            return stray;
        }
        if !self.limits[2].clone().take(arrival.now) {
            return stray;
        }
        let owners = services::owners(&self.settings, arrival.src, arrival.dst);
        let ended =
            |listen: &SocketAddr| self.flows.has_just_ended(arrival.now, arrival.dst, *listen) && segment.len == 0;
        if owners.iter().filter_map(|(_, listen)| listen.as_ref()).any(ended) {
            return dropped(Reason::RecentlyEnded);
        }
        let says = |says| owners.iter().any(|(service, _)| self.settings.services[*service].unknown_tcp == says);
        if says(UnknownTcp::Adopt) || !says(UnknownTcp::Reset) || !self.limits[2].take(arrival.now) {
            return stray;
        }
        self.seen("a server pushes on a connection that is not known");
        self.sent.push(answers::reset(arrival.packet, segment));
        let mut known: Vec<_> = owners.iter().map(|(_, listen)| *listen).collect();
        known.dedup();
        if let [Some(listen)] = known[..]
            && self.flows.find(Protocol::Tcp, arrival.dst, listen).is_none()
        {
            self.seen("and its client hears of it");
            let next = if segment.has(ACK) { segment.ack } else { 0 };
            self.sent.push(answers::reset_of(listen, arrival.dst, segment.seq, next));
        }
        consumed(Consumed::Reset)
    }

    /// Handles a packet to the source address of probes.
    fn monitors_take(&mut self, arrival: &Arrival) -> (Fate, Vec<u8>) {
        let (bytes, packet) = (arrival.bytes, arrival.packet);
        let reply = matches!(packet.body, Body::Echo { request: false, .. });
        if !arrival.sum_is_right() {
            self.tell_notices();
            return dropped(Reason::BadProbeChecksum);
        }
        let from = |watch: &super::monitor::Watch| reply && watch.address == packet.src;
        let fate = match self.watches.iter().position(from) {
            Some(watch) if self.watches[watch].is_answered_by(bytes, packet) => {
                self.result(arrival.now, watch, true);
                consumed(Consumed::Probe)
            }
            Some(_) => consumed(Consumed::LateProbe),
            None => dropped(Reason::NoProbe),
        };
        self.tell_notices();
        fate
    }

    fn nobody_listens(&mut self, arrival: &Arrival) -> (Fate, Vec<u8>) {
        let answers = &self.settings.answers;
        let (answers, why, reason) = match arrival.packet.body {
            Body::Echo { request: false, .. } => return dropped(Reason::IcmpUnhandled),
            Body::Echo { .. } => {
                if !answers::can_be_answered(arrival.packet.src, arrival.packet.dst) {
                    return dropped(Reason::BadSource);
                }
                if !arrival.sum_is_right() {
                    return dropped(Reason::BadIcmpChecksum);
                }
                self.sent.push(answers::echo(arrival.bytes, arrival.packet));
                return consumed(Consumed::Echo);
            }
            Body::Bare(_) => (answers.other_protocol, Why::Protocol, Reason::OtherProtocol),
            _ => (answers.no_service, Why::Port, Reason::NoService),
        };
        if !answers || arrival.goes_unanswered() {
            return dropped(reason);
        }
        self.refuse(arrival, why, true, Consumed::Closed)
    }

    /// Handles a packet to a service that belongs to no flow.
    fn ask(&mut self, arrival: &Arrival, service: usize, rule: Option<usize>) -> (Fate, Vec<u8>) {
        if arrival.packet.hops <= 1 {
            return self.tell(arrival, Why::Hops, Consumed::TimeExceeded);
        }
        if let Some(fate) = self.opens_nothing(arrival, service) {
            return fate;
        }
        match self.open(arrival, service, rule) {
            Ok(place) => {
                let track = self.track(arrival, place, Side::Client);
                if track.0.adopted {
                    self.seen("adopted");
                }
                let fate = self.forward(arrival, place, Side::Client, (true, track));
                let row = self.row(arrival.now, &self.flows.all[place]);
                self.events.push(Event::FlowOpened(Box::new(row)));
                fate
            }
            Err(Reason::NoServer) => self.no_server(arrival, service),
            Err(reason @ (Reason::TableFull | Reason::NatExhausted | Reason::ReturnKeyTaken)) => {
                let why = match self.settings.answers.no_room {
                    NoRoom::Prohibited => Some(Why::Prohibited),
                    NoRoom::HostUnreachable => Some(Why::Host),
                    NoRoom::Drop => None,
                };
                why.map(|why| self.tell(arrival, why, Consumed::Rejected));
                dropped(reason)
            }
            Err(reason) => dropped(reason),
        }
    }

    fn no_server(&mut self, arrival: &Arrival, service: usize) -> (Fate, Vec<u8>) {
        let reset = match self.services[service].settings.last_resort {
            _ if arrival.goes_unanswered() => return dropped(Reason::NoServer),
            LastResort::Drop | LastResort::Pool(_) => return dropped(Reason::NoServer),
            LastResort::Reset => true,
            LastResort::Unreachable => false,
        };
        self.refuse(arrival, Why::Port, reset, Consumed::NoServer)
    }

    /// Returns the outcome of a packet to a service that cannot open a flow, or `None` if it may open one.
    fn opens_nothing(&mut self, arrival: &Arrival, service: usize) -> Option<(Fate, Vec<u8>)> {
        let packet = arrival.packet;
        if !answers::can_be_answered(packet.src, packet.dst) || services::is_only_own(&self.settings, packet.src) {
            return Some(dropped(Reason::BadSource));
        }
        match packet.body {
            Body::Tcp(wire::Tcp { src: 0, .. }) | Body::Udp { src: 0, .. } => Some(dropped(Reason::BadPort)),
            // Both ends know that this connection is over, unless they send data.
            Body::Tcp(segment)
                if !segment.has(SYN)
                    && segment.len == 0
                    && self.flows.has_just_ended(arrival.now, arrival.src, arrival.dst) =>
            {
                Some(dropped(Reason::RecentlyEnded))
            }
            Body::Tcp(segment) if !segment.has(SYN) || segment.has(ACK) => {
                let settings = &self.services[service].settings;
                let full = settings.nat.pool_for(packet.src).is_some();
                let plain = segment.has(ACK) && !segment.has(SYN) && !segment.has(RST);
                match settings.unknown_tcp {
                    _ if !arrival.sum_is_right() => Some(dropped(Reason::TcpNoFlow)),
                    UnknownTcp::Adopt if !full && plain => None,
                    UnknownTcp::Adopt if !full => Some(dropped(Reason::TcpNoFlow)),
                    UnknownTcp::Drop => Some(dropped(Reason::TcpNoFlow)),
                    // With full NAT, the server knows the connection by a translated source that is no longer known.
                    UnknownTcp::Adopt | UnknownTcp::Reset if segment.has(RST) => Some(dropped(Reason::TcpNoFlow)),
                    UnknownTcp::Adopt | UnknownTcp::Reset => {
                        if !self.limits[0].take(arrival.now) {
                            self.seen("no reset beyond the limit");
                            return Some(dropped(Reason::TcpNoFlow));
                        }
                        self.sent.push(answers::reset(packet, &segment));
                        Some(consumed(Consumed::Reset))
                    }
                }
            }
            Body::Echo { request: false, .. } => Some(dropped(Reason::IcmpUnhandled)),
            Body::Echo { .. } if !arrival.sum_is_right() => Some(dropped(Reason::BadIcmpChecksum)),
            _ => None,
        }
    }

    /// Rejects a packet: TCP with a reset if `reset` is set, everything else with an ICMP error.
    fn refuse(&mut self, arrival: &Arrival, why: Why, reset: bool, kind: Consumed) -> (Fate, Vec<u8>) {
        let Some(segment) = arrival.segment().filter(|_| reset) else { return self.tell(arrival, why, kind) };
        if !answers::can_be_answered(arrival.packet.src, arrival.packet.dst) {
            return dropped(Reason::BadSource);
        }
        if !self.limits[0].take(arrival.now) {
            return dropped(Reason::AnswerLimit);
        }
        self.sent.push(answers::reset(arrival.packet, &segment));
        consumed(kind)
    }

    pub fn tell(&mut self, arrival: &Arrival, why: Why, kind: Consumed) -> (Fate, Vec<u8>) {
        self.tell_to(arrival, why, kind, false)
    }

    /// Sends the packet's sender an ICMP error that says why the packet is not forwarded.
    pub fn tell_to(&mut self, arrival: &Arrival, why: Why, kind: Consumed, peer: bool) -> (Fate, Vec<u8>) {
        if !answers::can_be_answered(arrival.packet.src, arrival.packet.dst) {
            return dropped(Reason::BadSource);
        }
        if !self.limits[usize::from(peer)].take(arrival.now) {
            return dropped(Reason::AnswerLimit);
        }
        self.sent.push(answers::error(arrival.bytes, arrival.packet, why));
        consumed(kind)
    }
}

pub fn dropped(reason: Reason) -> (Fate, Vec<u8>) {
    (Fate::Dropped(reason), Vec::new())
}

fn consumed(kind: Consumed) -> (Fate, Vec<u8>) {
    (Fate::Consumed(kind), Vec::new())
}

pub fn foreign(arrival: &Arrival) -> (Fate, Vec<u8>) {
    (Fate::Foreign, arrival.bytes[..arrival.packet.len].to_vec())
}
