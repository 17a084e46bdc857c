//! The reference model: what becomes of a packet, told as the documentation tells it.

use super::answers::{Limit, Why};
use super::engine::{Answer, Fate, Name};
use super::flows::Flows;
use super::monitor::Watch;
use super::nat::Pool;
use super::policy::Policy;
use super::servers::Server;
use super::services::Service;
use super::sticky::Slots;
use super::tcp::Means;
use super::wire::{self, Body, Packet, RST, Read};
use equipoise::config::Settings;
use equipoise::engine::{Consumed, Count, Counters, Ended, Event, Reason};
use equipoise::flow::TimeoutState;
use equipoise::packet::{Meta, Protocol};
use equipoise::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The model.
#[derive(Debug, Clone)]
pub struct Model {
    pub settings: Settings,
    pub flows: Flows,
    pub servers: Vec<Server>,
    pub services: Vec<Service>,
    pub last_resorts: Vec<Option<Service>>,
    pub policy: Policy,
    pub sticky: BTreeMap<u32, Slots>,
    pub pools: Vec<Pool>,
    /// MTUs of the ways to servers, by family; 0 is unknown.
    pub mtus: Vec<[u16; 2]>,
    /// Answers to strangers, and to ends of flows in which both have sent.
    pub limits: [Limit; 2],
    pub counters: Counters,
    /// Flows of each service: at present, and since the start.
    pub of_services: Vec<[u64; 2]>,
    pub pressed: bool,
    /// Whether flows of servers that went are still to be ended, and whose draining is over.
    pub walk: bool,
    pub over: Vec<usize>,
    /// What is to be told once somebody looks.
    pub notices: Vec<Event>,
    pub sent: Vec<Vec<u8>>,
    pub events: Vec<Event>,
    /// What came up, by name.
    pub seen: BTreeSet<String>,
    /// What was wrong with the engine's choices.
    pub objections: Vec<String>,
    pub chosen: Chosen,
    pub watches: Vec<Watch>,
}

/// The engine's choices in a step, where the documentation leaves one.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    pub server: Option<usize>,
    pub source: Option<SocketAddr>,
    pub evicted: Option<Name>,
    /// Whether it chose a server and a source, and then found no room.
    pub unseen: bool,
}

/// A packet on its way through.
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
    /// Whether its sum is right, or will be made so.
    pub fn sum_is_right(&self) -> bool {
        self.meta.partial_checksum || self.packet.sum_is_right(self.bytes)
    }

    pub fn segment(&self) -> Option<wire::Tcp> {
        if let Body::Tcp(segment) = self.packet.body { Some(segment) } else { None }
    }

    /// Whether no end would answer it: a reset, or what has a wrong sum.
    pub fn goes_unanswered(&self) -> bool {
        match self.packet.body {
            Body::Tcp(segment) => segment.has(RST) || !self.sum_is_right(),
            Body::Udp { .. } => !self.sum_is_right(),
            _ => false,
        }
    }

    /// Packets that it stands for.
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
                // No way over IPv6 takes less (RFC 8200, 5).
                mtus[server.0 as usize] = [mtu, if mtu == 0 { 0 } else { mtu.max(1280) }];
                passive[server.0 as usize] = pool.passive.clone();
            }
        }
        let zero = |kind| Count { kind, count: 0 };
        let counters = Counters {
            packets_in: 0,
            bytes_in: 0,
            translated: 0,
            foreign: 0,
            consumed: Consumed::ALL.map(|kind| Count { kind, count: 0 }).into(),
            dropped: Reason::ALL.iter().map(|reason| Count { kind: *reason, count: 0 }).collect(),
            transmitted: 0,
            flows: 0,
            max_flows: u64::from(settings.table.max_flows),
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
            policy: Policy::new(&settings.policy, settings.services.iter().map(|service| service.priority)),
            sticky: groups.map(|sticky| (sticky.group, Slots::new(sticky))).collect(),
            pools: settings.nat_pools.iter().map(Pool::new).collect(),
            mtus,
            limits: [0; 2].map(|_| Limit::new(settings.answers.per_second)),
            counters,
            of_services: vec![[0; 2]; settings.services.len()],
            pressed: false,
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

    /// Takes in a packet and tells what comes of it, following `real` where there is a choice; none where the packet is
    /// beyond the model.
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
            match event {
                Event::FlowOpened(flow) => {
                    chosen.server = self.servers.iter().position(|server| server.settings.name == flow.server);
                    chosen.source = Some(flow.source.unwrap_or(flow.client));
                }
                Event::FlowEnded { flow, cause: Ended::Evicted } => chosen.evicted = Some(super::engine::name(flow)),
                _ => {}
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
        if self.flows.all[place].is_unanswered() {
            self.first_signs(arrival, place, from);
        }
        let track = self.track(arrival, place, from);
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
