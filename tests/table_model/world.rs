//! The list and the table, and the steps that both take.

use super::random::Random;
use super::{keys, new, settings, timeouts};
use equipoise::flow::{Class, Found, Key, NewFlow, Segment, TICK, Table, TimeoutState, Timeouts, Track, Tracked};
use equipoise::ids::{FlowId, ServerId, ServiceId};
use equipoise::packet::{Protocol, Side, TcpFlags};
use equipoise::time::{Duration, Instant};
use std::collections::BTreeSet;

/// A flow of the model.
#[derive(Debug, Clone)]
pub struct Flow {
    pub id: FlowId,
    pub client: Key,
    pub server: Key,
    pub state: TimeoutState,
    pub half_open: bool,
    pub created: Instant,
    /// The tick in which its timeout was last restarted.
    pub touched: u64,
    /// The number of the event that put it at the end of its queue, and whether it was refreshed since.
    pub queued: u64,
    pub refreshed: bool,
    pub conversation: bool,
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    pub server_id: ServerId,
    pub service: ServiceId,
    pub profile: u8,
}

impl Flow {
    pub fn class(&self) -> Class {
        match self.state {
            _ if self.half_open => Class::HalfOpen,
            TimeoutState::Closing | TimeoutState::Reset => Class::Over,
            TimeoutState::Established => Class::Settled,
            _ if self.conversation => Class::Conversing,
            _ => Class::Brief,
        }
    }
}

/// The naive table and the real one.
pub struct World {
    pub table: Table,
    pub max: usize,
    pub max_half_open: usize,
    pub timeouts: [Timeouts; 4],
    pub flows: Vec<Flow>,
    /// IDs of flows that are gone.
    pub gone: Vec<FlowId>,
    /// Client keys of connections that ended in closing or reset, and when.
    pub ended: Vec<(Key, u64)>,
    pub now: Instant,
    pub epoch: Option<Instant>,
    pub events: u64,
    /// What has occurred, by name.
    pub seen: BTreeSet<String>,
}

/// Returns a span in ticks, rounded up.
pub fn ticks(seconds: u64) -> u64 {
    Duration::from_secs(seconds).as_nanos().div_ceil(TICK.as_nanos()) as u64
}

impl World {
    pub fn new((max, max_half_open): (u32, u32)) -> Self {
        World {
            table: Table::new(&settings(max, max_half_open)),
            max: max as usize,
            max_half_open: max_half_open as usize,
            timeouts: timeouts(),
            flows: Vec::new(),
            gone: Vec::new(),
            ended: Vec::new(),
            now: Instant::ZERO + Duration::from_millis(12_345),
            epoch: None,
            events: 0,
            seen: BTreeSet::new(),
        }
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.seen.insert(what.into());
    }

    pub fn tick(&self) -> u64 {
        (self.now.since(self.epoch.unwrap_or(self.now)).as_nanos() / TICK.as_nanos()) as u64
    }

    pub fn begins(&self, tick: u64) -> Instant {
        self.epoch.unwrap() + Duration::from_nanos(tick * TICK.as_nanos() as u64)
    }

    pub fn deadline(&self, flow: &Flow) -> Instant {
        let timeout = self.timeouts[flow.profile as usize].of(flow.state).as_nanos();
        self.begins(flow.touched + timeout.div_ceil(TICK.as_nanos()) as u64 + 1)
    }

    pub fn count(&self, half_open: bool) -> usize {
        self.flows.iter().filter(|flow| flow.half_open == half_open).count()
    }

    pub fn find(&self, key: &Key) -> Option<Found> {
        self.flows.iter().find_map(|flow| {
            let side = if flow.client == *key { Side::Client } else { Side::Server };
            (flow.client == *key || flow.server == *key).then_some(Found { index: flow.id.index, side })
        })
    }

    pub fn next_event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// Puts a flow at the end of the queue of its class.
    pub fn queue(&mut self, at: usize) {
        let queued = self.next_event();
        (self.flows[at].queued, self.flows[at].refreshed) = (queued, false);
    }

    pub fn insert(&mut self, random: &mut Random) {
        let (client, server, server_id, service) = keys(random);
        // The settings do not have the last of these.
        let profile = random.below(5) as u8;
        let new = new(client, server, (service, server_id), profile);
        let half_open = new.half_open && random.per_mille(800);
        let new = NewFlow { half_open, ..new };
        let taken = [&client, &server].map(|key| self.find(key).is_some());
        assert_eq!([&client, &server].map(|key| self.table.is_taken(key, None)), taken);
        if taken != [false; 2] {
            return self.note(format!("taken: {taken:?}"));
        }
        let victim = match self.make_room(random, half_open, false) {
            Err(()) => return,
            Ok(victim) => victim,
        };
        let next = self.table.next_id(None, half_open);
        assert!(victim.is_none_or(|victim| victim.index == next.index), "the slot of the last one that ended");
        let index = self.table.insert(self.now, &new);
        let id = self.table.id(index);
        assert_eq!(id, next);
        assert_eq!(id.index & FlowId::HALF_OPEN != 0, half_open);
        assert!(self.flows.iter().all(|flow| flow.id.index != id.index), "slot {} given twice", id.index);
        self.epoch.get_or_insert(self.now);
        let (touched, queued) = (self.tick(), self.next_event());
        self.flows.push(Flow {
            id,
            client,
            server,
            state: TimeoutState::first(client.protocol),
            half_open,
            created: if half_open { self.begins(touched) } else { self.now },
            touched,
            queued,
            refreshed: false,
            conversation: false,
            packets: [0; 2],
            bytes: [0; 2],
            server_id,
            service,
            profile: profile % 4,
        });
        if client.protocol == Protocol::Tcp {
            let flags = TcpFlags(if half_open { TcpFlags::SYN } else { TcpFlags::ACK });
            let first = Track::first(Side::Client, &Segment { flags, seq: random.below(3) as u32, ack: 1, len: 0 });
            assert_eq!(self.table.follow(self.now, index, &first), index);
        }
        self.packets(random, self.flows.len() - 1, Side::Client);
    }

    /// Counts packets of a flow.
    pub fn packets(&mut self, random: &mut Random, at: usize, side: Side) {
        let (packets, bytes) = *random.pick(&[(1, 40), (1, 1500), (12, 30_000), (40, 60_000)]).unwrap();
        let flow = &mut self.flows[at];
        self.table.count_packets(Found { index: flow.id.index, side }, packets, bytes);
        let (most, most_bytes) = if flow.half_open { (15, 65_535) } else { (u64::MAX, u64::MAX) };
        let side = side as usize;
        flow.packets[side] = (flow.packets[side] + packets).min(most);
        flow.bytes[side] = (flow.bytes[side] + bytes).min(most_bytes);
    }

    /// Applies a packet that shows a flow to be in a state.
    pub fn touched(&mut self, at: usize, state: TimeoutState) {
        use TimeoutState::{Closing, Opening, Reset};
        let tick = self.tick();
        let flow = &mut self.flows[at];
        let (was, class) = (flow.state, flow.class());
        if was == state && matches!(state, Opening | Closing | Reset) {
            return;
        }
        (flow.state, flow.touched, flow.refreshed) = (state, tick, true);
        if flow.half_open && matches!(state, Opening | Reset) {
            let created = self.begins(tick);
            self.flows[at].created = created;
            return self.note("half-open and reset");
        }
        flow.half_open = false;
        let enters = flow.class() != class || (class == Class::Over && was != state);
        if enters {
            self.queue(at);
        }
    }

    /// Passes a segment through the tracker.
    pub fn segment(&mut self, random: &mut Random) {
        let is_tcp = |at: &usize| self.flows[*at].client.protocol == Protocol::Tcp;
        let tcp: Vec<usize> = (0..self.flows.len()).filter(is_tcp).collect();
        let Some(mut at) = random.pick(&tcp).copied() else { return };
        let flags = *random.pick(&[0x02, 0x12, 0x12, 0x10, 0x10, 0x10, 0x11, 0x11, 0x11, 0x04, 0x14]).expect("flags");
        let side = if random.per_mille(500) { Side::Client } else { Side::Server };
        let number = |random: &mut Random| random.below(3) as u32;
        let (seq, ack, len) = (number(random), number(random), if random.per_mille(200) { 9 } else { 0 });
        let segment = Segment { flags: TcpFlags(flags), seq, ack, len };
        let id = self.flows[at].id;
        let track = self.table.track(self.now, id.index, side, &segment);
        assert_eq!(self.table.track(self.now, id.index, side, &segment), track, "tracking leaves no trace");
        if track.tracked() == Tracked::Reopen {
            return self.note("Reopen");
        }
        let was_half_open = self.flows[at].half_open;
        let leaves = was_half_open && track.leaves_half_open();
        if leaves && self.make_room(random, false, true).is_err() {
            return self.note("a handshake refused");
        }
        at = self.flows.iter().position(|flow| flow.id == id).expect("it does not give way to itself");
        match track.tracked() {
            Tracked::Refresh(state) => self.touched(at, state),
            step => self.note(format!("{step:?}")),
        }
        assert_eq!(leaves, was_half_open && !self.flows[at].half_open);
        let next = self.table.next_id(None, false);
        let slot = if !was_half_open && !segment.flags.syn() && random.per_mille(500) {
            self.table.on_segment(self.now, id.index, side, &segment);
            id.index
        } else {
            self.table.follow(self.now, id.index, &track)
        };
        if leaves {
            self.note("established");
            assert_eq!(self.table.id(slot), next);
            self.flows[at].id = next;
            self.gone.push(id);
        }
        assert_eq!(slot, self.flows[at].id.index);
        self.packets(random, at, side);
    }

    /// Passes a packet without sequence numbers.
    pub fn datagram(&mut self, random: &mut Random) {
        let is_other = |at: &usize| self.flows[*at].client.protocol != Protocol::Tcp;
        let others: Vec<usize> = (0..self.flows.len()).filter(is_other).collect();
        let side = if random.per_mille(600) { Side::Client } else { Side::Server };
        if random.per_mille(60) {
            // All of them send.
            return others.iter().for_each(|at| self.datagram_of(random, *at, side));
        }
        if let Some(at) = random.pick(&others) {
            self.datagram_of(random, *at, side);
        }
    }

    fn datagram_of(&mut self, random: &mut Random, at: usize, side: Side) {
        let state = match (self.flows[at].client.protocol, side) {
            (Protocol::Icmp, _) => TimeoutState::Icmp,
            (_, Side::Server) => TimeoutState::UdpTwoWay,
            (_, Side::Client) => self.flows[at].state,
        };
        self.table.on_datagram(self.now, Found { index: self.flows[at].id.index, side }, state);
        self.touched(at, state);
        let flow = &mut self.flows[at];
        if side == Side::Client && flow.packets[1] > 0 && !flow.conversation {
            flow.conversation = true;
            self.queue(at);
            self.note("a conversation");
        }
        self.packets(random, at, side);
    }

    pub fn remove(&mut self, at: usize) {
        let flow = self.flows.swap_remove(at);
        self.table.remove(self.now, flow.id.index);
        self.gone.push(flow.id);
        if flow.class() == Class::Over {
            self.ended.push((flow.client, self.tick()));
        }
    }

    pub fn expire(&mut self, random: &mut Random) {
        let mut most = *random.pick(&[1, 3, 1000, 1000]).unwrap();
        while let Some(index) = self.table.expired(self.now, &mut most) {
            let at = self.flows.iter().position(|flow| flow.id.index == index).expect("the model has it too");
            assert!(self.deadline(&self.flows[at]) <= self.now, "{:?} is not due", self.flows[at]);
            self.note(format!("{} expired", self.flows[at].state.name()));
            self.note(format!("profile {} expired", self.flows[at].profile));
            self.remove(at);
        }
        let due = self.flows.iter().find(|flow| self.deadline(flow) <= self.now);
        assert!(most == 0 || due.is_none(), "{due:?} is due");
        assert!(most == 0 || self.table.poll_timeout().is_none_or(|next| next > self.now), "something stays due");
    }

    pub fn step(&mut self, random: &mut Random) {
        match random.below(1000) {
            0..350 => self.insert(random),
            350..560 => self.datagram(random),
            560..810 => self.segment(random),
            810..830 if !self.flows.is_empty() => self.remove(random.below(self.flows.len() as u64) as usize),
            830..838 => {
                let is_proven = random.per_mille(500);
                self.give_way(random, false, is_proven);
            }
            838..841 => {
                let seconds = *random.pick(&[0, 1, 2, 11, 121]).unwrap();
                self.now = self.now + Duration::from_secs(seconds);
                while self.give_way(random, false, seconds == 0).is_some() {}
            }
            841..845 => drop(self.give_way(random, true, false)),
            845..930 => {
                let millis = *random.pick(&[0, 1, 40, 66, 67, 68, 101, 500, 1000, 2000]).expect("a span");
                self.now = self.now + Duration::from_millis(millis);
            }
            930..940 => self.now = self.now + Duration::from_secs(random.below(20)),
            940..946 => self.now = self.now + Duration::from_secs(*random.pick(&[60, 121, 301, 2000]).unwrap()),
            _ => self.expire(random),
        }
        self.compare(random);
    }
}
