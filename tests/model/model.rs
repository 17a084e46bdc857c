//! The reference model: handles packets as the documentation describes it.

use super::answers::{Limit, Why};
use super::engine::{Answer, Fate};
use super::flows::Flows;
use super::miss::dropped;
use super::monitor::Watch;
use super::nat::Pool;
use super::policy::{Meter, Policy};
use super::room::{self, Shortage};
use super::servers::Server;
use super::services::Service;
use super::sticky::Sticky;
use super::tcp::Means;
use super::wire::{self, Body, Packet, RST, Read};
use equipoise::config::Settings;
use equipoise::engine::{Consumed, Count, Counters, Ended, Event, Reason, Short};
use equipoise::flow::TimeoutState;
use equipoise::packet::{Meta, Protocol, Side};
use equipoise::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

#[derive(Debug, Clone)]
pub struct Model {
    pub settings: Settings,
    pub flows: Flows,
    pub servers: Vec<Server>,
    pub services: Vec<Service>,
    pub last_resorts: Vec<Option<Service>>,
    /// By service: the service whose load and turns its algorithm goes by.
    pub leaders: Vec<usize>,
    pub policy: Policy,
    pub sticky: BTreeMap<u32, Sticky>,
    pub pools: Vec<Pool>,
    /// Path MTUs to the servers, by address family; 0 means unknown.
    pub mtus: Vec<[u16; 2]>,
    /// Limits on replies to unverified senders, to the ends of flows in which both sides have sent, and about
    /// connections that are forgotten.
    pub limits: [Limit; 3],
    pub counters: Counters,
    /// Flows of each service: current, and total since the start.
    pub of_services: Vec<[u64; 2]>,
    /// Of each service by side: packets, bytes.
    pub traffic: Vec<[[u64; 2]; 2]>,
    /// By what is short: a shortage that has not been reported as over.
    pub shortages: [Option<Shortage>; Short::ALL.len()],
    /// The settled flows that gave way.
    pub settled: Meter,
    /// Whether flows of servers that are gone still have to be ended.
    pub walk: bool,
    /// Servers whose drain deadline has passed.
    pub over: Vec<usize>,
    /// Events to report the next time that notices are collected.
    pub notices: Vec<Event>,
    pub sent: Vec<Vec<u8>>,
    pub events: Vec<Event>,
    /// The events that occurred, by name.
    pub seen: BTreeSet<String>,
    /// Objections to the engine's choices.
    pub objections: Vec<String>,
    pub chosen: Chosen,
    pub watches: Vec<Watch>,
}

/// The engine's choices in a step, where the documentation leaves them open.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    pub server: Option<usize>,
    pub source: Option<SocketAddr>,
    /// Whether the table was full, so that any choice of server and source is not visible.
    pub unseen: bool,
}

/// A packet being handled.
pub struct Arrival<'a> {
    pub now: Instant,
    pub bytes: &'a [u8],
    pub packet: &'a Packet,
    pub meta: Meta,
    pub protocol: Protocol,
    pub src: SocketAddr,
    pub dst: SocketAddr,
}

impl Arrival<'_> {
    /// Returns whether its checksum is correct, or will be completed by the device.
    pub fn sum_is_right(&self) -> bool {
        self.meta.partial_checksum || self.packet.sum_is_right(self.bytes)
    }

    pub fn segment(&self) -> Option<wire::Tcp> {
        if let Body::Tcp(segment) = self.packet.body { Some(segment) } else { None }
    }

    /// Returns whether no host would reply to it: it is a reset or has an incorrect checksum.
    pub fn goes_unanswered(&self) -> bool {
        match self.packet.body {
            Body::Tcp(segment) => segment.has(RST) || !self.sum_is_right(),
            Body::Udp { .. } => !self.sum_is_right(),
            _ => false,
        }
    }

    /// Returns the number of packets that it represents, given segmentation offload.
    pub fn count(&self) -> u64 {
        let header = match self.packet.body {
            Body::Tcp(segment) => return self.segments(segment.len as usize),
            Body::Udp { .. } | Body::Echo { .. } => 8,
            Body::Icmp { .. } | Body::Bare(_) => 0,
        };
        self.segments((self.packet.len - self.packet.at).saturating_sub(header))
    }

    fn segments(&self, payload: usize) -> u64 {
        match usize::from(self.meta.gso_size) {
            0 => 1,
            size => payload.div_ceil(size).max(1) as u64,
        }
    }
}

impl Model {
    pub fn new(settings: &Settings) -> Self {
        let services = settings.services.iter().map(|service| Service::new(settings, service));
        let (services, last_resorts) = services.unzip();
        let mut mtus = vec![[0; 2]; settings.servers.len()];
        let mut passive = vec![None; settings.servers.len()];
        for pool in &settings.pools {
            for server in &pool.servers {
                let mtu = pool.mtu.unwrap_or(0);
                // The minimum MTU of IPv6 is 1280 bytes (RFC 8200, 5).
                mtus[server.0 as usize] = [mtu, if mtu == 0 { 0 } else { mtu.max(1280) }];
                passive[server.0 as usize] = pool.passive.clone();
            }
        }
        let zero = |kind| Count { kind, count: 0 };
        let counters = Counters {
            shortcut: None,
            packets_in: 0,
            bytes_in: 0,
            translated: 0,
            foreign: 0,
            consumed: Consumed::ALL.map(|kind| Count { kind, count: 0 }).into(),
            dropped: Reason::ALL.iter().map(|reason| Count { kind: *reason, count: 0 }).collect(),
            transmitted: 0,
            flows: 0,
            max_flows: u64::from(settings.table.max_flows),
            half_open: 0,
            max_half_open: u64::from(settings.table.max_half_open),
            gave_way: room::no_flows(),
            flows_opened: 0,
            flows_ended: Ended::ALL.map(|kind| Count { kind, count: 0 }).into(),
            states: TimeoutState::ALL.map(zero).into(),
        };
        let mut watches = Vec::new();
        for pool in &settings.health.pools {
            for server in &pool.servers {
                let addresses = server.v4.map(IpAddr::V4).into_iter().chain(server.v6.map(IpAddr::V6));
                watches.extend(addresses.map(|a| Watch::new(server.server.0 as usize, a, &pool.monitors[0])));
            }
        }
        let mut servers: Vec<Server> =
            settings.servers.iter().zip(passive).map(|(server, passive)| Server::new(server, passive)).collect();
        for watch in &watches {
            let server = &mut servers[watch.server];
            server.watched[usize::from(watch.address.is_ipv6())] = Some(watch.health);
            server.health = server.told();
        }
        let groups = settings.services.iter().filter_map(|service| service.sticky.as_ref());
        Model {
            flows: Flows::new(&settings.table),
            servers,
            services,
            last_resorts,
            leaders: super::services::leaders(settings),
            policy: Policy::new(&settings.policy, settings.services.iter().map(|service| service.priority)),
            sticky: groups.map(|sticky| (sticky.group, Sticky::new(sticky))).collect(),
            pools: settings.nat_pools.iter().map(Pool::new).collect(),
            mtus,
            limits: [0; 3].map(|_| Limit::new(settings.answers.per_second)),
            counters,
            of_services: vec![[0; 2]; settings.services.len()],
            traffic: vec![[[0; 2]; 2]; settings.services.len()],
            shortages: Default::default(),
            settled: Meter::default(),
            walk: false,
            over: Vec::new(),
            notices: Vec::new(),
            sent: Vec::new(),
            events: Vec::new(),
            seen: BTreeSet::new(),
            objections: Vec::new(),
            chosen: Chosen::default(),
            watches,
            settings: settings.clone(),
        }
    }

    /// Handles a packet and returns the answer, adopting the choices in `real` where there are any. Returns `None` if
    /// the model does not cover the packet.
    pub fn packet(&mut self, now: Instant, bytes: &[u8], meta: Meta, real: &Answer) -> Option<Answer> {
        self.chosen = self.choices(real);
        let (fate, out, count, len) = match wire::read(bytes) {
            Read::Beyond => return None,
            Read::Malformed(reason) => (Fate::Dropped(reason), Vec::new(), 1, bytes.len()),
            Read::Packet(packet) => {
                let nowhere = (Protocol::Icmp, SocketAddr::new(packet.src, 0), SocketAddr::new(packet.dst, 0));
                let ends = packet.ends();
                let (protocol, src, dst) = ends.unwrap_or(nowhere);
                let arrival = Arrival { now, bytes, packet: &packet, meta, protocol, src, dst };
                let (fate, out) = if ends.is_some() { self.decide(&arrival) } else { self.icmp(&arrival)? };
                (fate, out, arrival.count(), packet.len)
            }
        };
        self.count(&fate, count, len as u64);
        self.tell_notices();
        Some(Answer {
            fate,
            bytes: out,
            sent: std::mem::take(&mut self.sent),
            events: std::mem::take(&mut self.events),
        })
    }

    fn choices(&self, real: &Answer) -> Chosen {
        let unseen = real.fate == Fate::Dropped(Reason::TableFull);
        let mut chosen = Chosen { unseen, ..Chosen::default() };
        for event in &real.events {
            if let Event::FlowOpened(flow) = event {
                chosen.server = self.servers.iter().position(|server| server.settings.name == flow.server);
                chosen.source = Some(flow.source.unwrap_or(flow.client));
            }
        }
        chosen
    }

    fn count(&mut self, fate: &Fate, packets: u64, bytes: u64) {
        let counters = &mut self.counters;
        counters.packets_in += packets;
        counters.bytes_in += bytes;
        match fate {
            Fate::Translated { .. } | Fate::Error { .. } => counters.translated += packets,
            Fate::Foreign => counters.foreign += packets,
            Fate::Consumed(kind) => {
                counters.consumed.iter_mut().filter(|c| c.kind == *kind).for_each(|c| c.count += packets)
            }
            Fate::Dropped(reason) => {
                counters.dropped.iter_mut().filter(|c| c.kind == *reason).for_each(|c| c.count += packets)
            }
        }
    }

    fn decide(&mut self, arrival: &Arrival) -> (Fate, Vec<u8>) {
        let Arrival { now, protocol, src, dst, .. } = *arrival;
        let Some((place, from)) = self.flows.find(protocol, src, dst) else { return self.miss(arrival) };
        if arrival.packet.hops <= 1 {
            return self.tell(arrival, Why::Hops, Consumed::TimeExceeded);
        }
        if let Some(fate) = self.abandoned(arrival, place, from) {
            return fate.map_or_else(|| self.miss(arrival), |fate| (fate, Vec::new()));
        }
        let flow = &self.flows.all[place];
        let resets = |segment: &super::wire::Tcp| flow.tcp.is_disowned_by(segment) && arrival.sum_is_right();
        if flow.state == TimeoutState::Opening && from == Side::Client && arrival.segment().is_some_and(|s| resets(&s))
        {
            self.seen("a client has no such connection");
            self.flows.direct.insert((self.flows.all[place].server_end, src));
            self.end(now, place, Ended::Replaced);
            return dropped(Reason::TcpNoFlow);
        }
        let track = self.track(arrival, place, from);
        let mut place = place;
        if self.proves(place, from, track.1) && self.fits(arrival, place, from) {
            let half_open = self.flows.all[place].half_open;
            let fits =
                self.may_prove(place).and_then(|()| if half_open { self.make_room(now, false, true) } else { Ok(()) });
            if fits == Err(Reason::ServerFlows) && protocol != Protocol::Tcp && self.has_room_elsewhere(now, place) {
                self.seen("datagrams leave a full server");
                self.end(now, place, Ended::Replaced);
                return self.miss(arrival);
            }
            if let Err(reason) = fits {
                self.seen(if half_open { "a handshake refused" } else { "a conversation refused" });
                self.seen(&format!("refused late: {}", reason.name()));
                self.flows.all[place].stalled = half_open || protocol != Protocol::Tcp;
                return dropped(reason);
            }
            self.seen(if half_open { "a handshake complete" } else { "a conversation" });
            // The flow that gave way may have stood before it in the list.
            place = self.flows.find(protocol, src, dst).map_or(place, |(place, _)| place);
        }
        if self.flows.all[place].is_unanswered() {
            self.first_signs(arrival, place, from);
        }
        if track.1 == Means::New {
            self.seen("reopened");
            self.end(now, place, Ended::Replaced);
            return self.miss(arrival);
        }
        self.forward(arrival, place, from, (false, track))
    }

    pub fn seen(&mut self, what: &str) {
        if !self.seen.contains(what) {
            self.seen.insert(what.into());
        }
    }
}
