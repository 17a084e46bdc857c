//! The connection table against a list of flows with linear search.
//!
//! Thousands of random steps over few keys, so that full tables, taken keys and ties occur; after each step
//! everything observable of the table is compared.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "common/random.rs"]
mod random;

use equipoise::flow::{
    Found, InsertError, Key, NO_POOL, NewFlow, Segment, TOUCH_GRAIN, Table, TableSettings, TimeoutState, Timeouts,
    Tracked,
};
use equipoise::ids::{FlowId, ServerId, ServiceId};
use equipoise::packet::{Addresses, Protocol, Side, TcpFlags};
use equipoise::time::{Duration, Instant};
use random::Random;
use std::collections::BTreeSet;

/// A flow of the model.
#[derive(Debug, Clone)]
struct Flow {
    id: FlowId,
    client: Key,
    server: Key,
    class: TimeoutState,
    touched: Instant,
    created: Instant,
    /// The number of its last touch: later touches have larger numbers.
    order: u64,
    server_id: ServerId,
    service: ServiceId,
    profile: u8,
}

/// The naive table and the real one.
struct World {
    table: Table,
    max: usize,
    timeouts: [Timeouts; 4],
    flows: Vec<Flow>,
    /// IDs of flows that are gone.
    gone: Vec<FlowId>,
    now: Instant,
    touches: u64,
    /// What has occurred, by name.
    seen: BTreeSet<String>,
}

/// Timeouts of four profiles; some are equal, so that classes and profiles tie.
fn timeouts() -> [Timeouts; 4] {
    let s = Duration::from_secs;
    let first = Timeouts {
        opening: s(4),
        established: s(30),
        closing: s(4),
        reset: s(2),
        udp_one_way: s(4),
        udp_two_way: s(9),
        icmp: s(1),
    };
    let second = Timeouts { opening: s(2), udp_one_way: s(1), ..first };
    [first, second, first, Timeouts { icmp: s(4), closing: s(9), ..first }]
}

fn settings(max_flows: u32) -> TableSettings {
    let [timeouts, profiles @ ..] = timeouts();
    TableSettings { max_flows, timeouts, profiles: profiles.into() }
}

/// The keys of a flow: few clients, services and servers, of both families and all protocols.
fn keys(random: &mut Random) -> (Key, Key, ServerId, ServiceId) {
    let protocol = *random.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]).expect("one of four");
    let (client, vip, server) = (random.below(3) as u32, random.below(2) as u32, random.below(2) as u32);
    let port = 1000 + random.below(3) as u16;
    let (there, back) = if random.per_mille(500) {
        let there = Addresses::V4 { src: 0xc633_6400 + client, dst: 0xc000_0200 + vip };
        (there, Addresses::V4 { src: 0x0a00_0200 + server, dst: 0xc633_6400 + client })
    } else {
        // Some differ only in the high halves, others only in the low halves.
        let client = u128::from(client) << if client == 2 { 64 } else { 0 } | 0xfd00 << 112;
        let there = Addresses::V6 { src: client, dst: 0x2001_0db8 << 96 | u128::from(vip) };
        (there, Addresses::V6 { src: u128::from(server) << 64 | 0xfd00 << 112, dst: client })
    };
    let (dst_port, answer_port) = if protocol == Protocol::Icmp { (port, port) } else { (80, 8080) };
    let client = Key { addresses: there, src_port: port, dst_port, protocol };
    let answer = Key { addresses: back, src_port: answer_port, dst_port: port, protocol };
    (client, answer, ServerId(server), ServiceId(vip))
}

fn new(client: Key, server: Key, (service, server_id): (ServiceId, ServerId), profile: u8) -> NewFlow {
    NewFlow { client, server, service, server_id, profile, nat_pool: NO_POOL, rule: 0, picked_by: 0 }
}

impl World {
    fn new(max: u32, seed: u64) -> Self {
        let settings = settings(max);
        World {
            table: Table::new(&settings, seed),
            max: max as usize,
            timeouts: timeouts(),
            flows: Vec::new(),
            gone: Vec::new(),
            now: Instant::ZERO,
            touches: 0,
            seen: BTreeSet::new(),
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        self.seen.insert(what.into());
    }

    fn deadline(&self, flow: &Flow) -> Instant {
        flow.touched + self.timeouts[flow.profile as usize].of(flow.class) + TOUCH_GRAIN
    }

    fn find(&self, key: &Key) -> Option<Found> {
        self.flows.iter().find_map(|flow| {
            let side = if flow.client == *key { Side::Client } else { Side::Server };
            (flow.client == *key || flow.server == *key).then_some(Found { index: flow.id.index, side })
        })
    }

    fn insert(&mut self, random: &mut Random) {
        let (client, server, server_id, service) = keys(random);
        // The settings do not have the last of these.
        let profile = random.below(5) as u8;
        let want = if self.find(&client).is_some() {
            Some(InsertError::Taken(Side::Client))
        } else if self.find(&server).is_some() {
            Some(InsertError::Taken(Side::Server))
        } else {
            (self.flows.len() >= self.max).then_some(InsertError::Full)
        };
        let got = self.table.insert(self.now, &new(client, server, (service, server_id), profile));
        assert_eq!(got.err(), want, "insert {client:?}");
        if let Some(error) = want {
            return self.note(format!("{error:?}"));
        }
        let id = self.table.id(got.expect("inserted"));
        assert!(self.flows.iter().all(|flow| flow.id.index != id.index), "slot {} given twice", id.index);
        assert!(!self.gone.contains(&id), "{id} given again");
        let class = match client.protocol {
            Protocol::Tcp => TimeoutState::Opening,
            Protocol::Udp | Protocol::Sctp | Protocol::Ip(_) => TimeoutState::UdpOneWay,
            Protocol::Icmp => TimeoutState::Icmp,
        };
        self.touches += 1;
        let (touched, created, order) = (self.now, self.now, self.touches);
        self.flows.push(Flow {
            id,
            client,
            server,
            class,
            touched,
            created,
            order,
            server_id,
            service,
            profile: profile % 4,
        });
    }

    /// Applies a touch to the model.
    fn touched(&mut self, at: usize, class: TimeoutState) {
        self.touches += 1;
        let (now, order) = (self.now, self.touches);
        let flow = &mut self.flows[at];
        if flow.class == class && now.since(flow.touched) < TOUCH_GRAIN {
            self.note("touched within the grain");
        } else {
            (flow.class, flow.touched, flow.order) = (class, now, order);
        }
    }

    fn touch(&mut self, random: &mut Random) {
        if self.flows.is_empty() {
            return;
        }
        let at = random.below(self.flows.len() as u64) as usize;
        let class = match random.below(3) {
            0 => self.flows[at].class,
            _ => *random.pick(&TimeoutState::ALL).expect("a class"),
        };
        self.table.touch(self.now, self.flows[at].id.index, class);
        self.touched(at, class);
    }

    fn segment(&mut self, random: &mut Random) {
        let tcp: Vec<usize> =
            (0..self.flows.len()).filter(|at| self.flows[*at].client.protocol == Protocol::Tcp).collect();
        let Some(at) = random.pick(&tcp).copied() else { return };
        let flags = *random.pick(&[0x02, 0x12, 0x10, 0x10, 0x11, 0x04, 0x14]).expect("flags");
        let side = if random.per_mille(500) { Side::Client } else { Side::Server };
        let number = |random: &mut Random| random.below(3) as u32;
        let segment =
            Segment { flags: TcpFlags(flags), seq: number(random), ack: number(random), len: number(random) * 9 };
        let index = self.flows[at].id.index;
        let track = self.table.track(self.now, index, side, &segment);
        assert_eq!(self.table.track(self.now, index, side, &segment), track, "tracking leaves no trace");
        if track.tracked() != Tracked::Reopen {
            self.table.follow(self.now, index, &track);
        }
        match track.tracked() {
            Tracked::Refresh(class) => self.touched(at, class),
            step => self.note(format!("{step:?}")),
        }
    }

    fn remove(&mut self, at: usize) {
        let flow = self.flows.swap_remove(at);
        self.table.remove(flow.id.index);
        self.gone.push(flow.id);
    }

    fn remove_any(&mut self, random: &mut Random) {
        if !self.flows.is_empty() {
            self.remove(random.below(self.flows.len() as u64) as usize);
        }
    }

    /// Returns the slot of the flow with the smallest `of`; flows without it do not count.
    fn least<T: Ord>(&self, of: impl Fn(&Flow) -> Option<T>) -> Option<usize> {
        let all = self.flows.iter().enumerate().filter_map(|(at, flow)| Some((of(flow)?, at)));
        all.min_by(|a, b| a.0.cmp(&b.0)).map(|(_, at)| at)
    }

    fn first_to_expire(&self) -> Option<usize> {
        self.least(|flow| Some((self.deadline(flow), flow.class, flow.profile, flow.order)))
    }

    fn first_to_evict(&self) -> Option<usize> {
        let order = [
            TimeoutState::Opening,
            TimeoutState::Reset,
            TimeoutState::Closing,
            TimeoutState::UdpOneWay,
            TimeoutState::Icmp,
        ];
        self.least(|flow| {
            Some((order.iter().position(|class| *class == flow.class)?, flow.touched, flow.profile, flow.order))
        })
    }

    fn expire(&mut self) {
        while let Some((when, index)) = self.table.first_to_expire().filter(|(when, _)| *when <= self.now) {
            let at = self.first_to_expire().expect("the model has one too");
            assert_eq!((when, index), (self.deadline(&self.flows[at]), self.flows[at].id.index));
            self.note(format!("{} expired", self.flows[at].class.name()));
            self.note(format!("profile {} expired", self.flows[at].profile));
            self.remove(at);
        }
    }

    fn evict(&mut self) {
        match self.first_to_evict() {
            Some(at) => {
                self.note(format!("{} evicted", self.flows[at].class.name()));
                self.remove(at);
            }
            None => self.note("nothing to evict"),
        }
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(100) {
            0..40 => self.insert(random),
            40..60 => self.touch(random),
            60..75 => self.segment(random),
            75..79 => self.remove_any(random),
            79..81 => self.evict(),
            81..96 => {
                let millis = *random.pick(&[0, 1, 40, 99, 100, 101, 500, 1000]).expect("a span");
                self.now = self.now + Duration::from_millis(millis);
            }
            96..98 => self.now = self.now + Duration::from_secs(random.below(20)),
            _ => self.expire(),
        }
        self.compare(random);
    }

    /// Compares everything observable of the table.
    fn compare(&self, random: &mut Random) {
        let table = &self.table;
        assert_eq!((table.len() as usize, table.is_empty()), (self.flows.len(), self.flows.is_empty()));
        for class in TimeoutState::ALL {
            let count = self.flows.iter().filter(|flow| flow.class == class).count();
            assert_eq!(table.count(class) as usize, count, "{class:?}");
        }
        for flow in &self.flows {
            let index = flow.id.index;
            assert_eq!((table.id(index), table.slot(flow.id)), (flow.id, Some(index)));
            for (side, key) in [(Side::Client, &flow.client), (Side::Server, &flow.server)] {
                assert_eq!(table.find(key), Some(Found { index, side }), "{key:?}");
                assert_eq!(table.key(index, side), *key);
            }
            let (there, back) = (table.translation(index, Side::Client), table.translation(index, Side::Server));
            assert_eq!((there.addresses, there.dst_port), (flow.server.addresses.reversed(), flow.server.src_port));
            assert_eq!((back.addresses, back.src_port), (flow.client.addresses.reversed(), flow.client.dst_port));
            assert_eq!((table.touched(index), table.deadline(index)), (flow.touched, self.deadline(flow)));
            let entry = table.flow(index);
            assert_eq!(
                (entry.state(), entry.created, entry.protocol),
                (flow.class, flow.created, flow.client.protocol)
            );
            assert_eq!((entry.server_id, entry.service), (flow.server_id, flow.service));
            assert_eq!(entry.profile(), flow.profile);
        }
        for _ in 0..8 {
            let (client, server, ..) = keys(random);
            for key in [client, server, client.reversed()] {
                assert_eq!(table.find(&key), self.find(&key), "{key:?}");
            }
        }
        for id in &self.gone[self.gone.len().saturating_sub(8)..] {
            assert_eq!(table.slot(*id), None, "{id} is gone");
        }
        let expires = self.first_to_expire().map(|at| (self.deadline(&self.flows[at]), self.flows[at].id.index));
        assert_eq!(table.first_to_expire(), expires);
        assert_eq!(table.first_to_evict(), self.first_to_evict().map(|at| self.flows[at].id.index));
        let mut used: Vec<u32> = table.slots(0).filter(|(_, used)| *used).map(|(index, _)| index).collect();
        let mut want: Vec<u32> = self.flows.iter().map(|flow| flow.id.index).collect();
        used.sort_unstable();
        want.sort_unstable();
        assert_eq!(used, want);
        assert!(table.slots(0).count() <= self.max, "more slots than flows allowed");
    }
}

#[test]
fn the_table_holds_what_a_list_holds() {
    let mut seen = BTreeSet::new();
    let mut steps = 0;
    for (seed, max) in [1, 2, 5, 12, 30, 200].into_iter().cycle().take(24).enumerate() {
        let mut random = Random::new(seed as u64);
        let mut world = World::new(max, seed as u64);
        for step in 0..1000 {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step(&mut random)));
            assert!(result.is_ok(), "seed {seed}, table of {max}, step {step}");
            steps += 1;
        }
        seen.append(&mut world.seen);
    }
    assert_eq!(steps, 24_000);
    // A model that never saw these would prove nothing.
    let expired = TimeoutState::ALL.iter().map(|class| format!("{} expired", class.name()));
    let evicted = ["opening", "reset", "closing", "udp-one-way", "icmp"].map(|class| format!("{class} evicted"));
    let rest =
        ["Full", "Taken(Client)", "Taken(Server)", "Pass", "Reopen", "nothing to evict", "touched within the grain"];
    let profiles = (0..4).map(|profile| format!("profile {profile} expired"));
    for what in profiles.chain(expired).chain(evicted).chain(rest.map(String::from)) {
        assert!(seen.contains(&what), "{what} never occurred, only {seen:?}");
    }
}

#[test]
fn a_table_filled_and_emptied_again_and_again_keeps_its_size() {
    let settings = settings(500);
    let mut table = Table::new(&settings, 1);
    for round in 0..40u32 {
        for i in 0..500u32 {
            let client = 0xfd00 << 112 | u128::from(round) << 32 | u128::from(i);
            let there = Addresses::V6 { src: client, dst: 1 };
            let back = Addresses::V6 { src: 2, dst: client };
            let client = Key { addresses: there, src_port: 7, dst_port: 80, protocol: Protocol::Tcp };
            let server = Key { addresses: back, src_port: 8080, dst_port: 7, protocol: Protocol::Tcp };
            table
                .insert(Instant::ZERO, &new(client, server, (ServiceId(0), ServerId(0)), (i % 4) as u8))
                .expect("there is room");
        }
        assert_eq!((table.len(), table.slots(0).count()), (500, 500), "round {round}");
        while let Some((_, index)) = table.first_to_expire() {
            table.remove(index);
        }
        assert_eq!((table.len(), table.first_to_evict()), (0, None), "round {round}");
    }
}
