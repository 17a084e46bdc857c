//! The servers' health: servers that answer no probes for a while, to one gateway or to both, and what the gateways make of it.
//! The standby takes the view of the active one. Servers go on to serve: it is about what is chosen and what is told.

use super::super::ends::MONITOR;
use super::super::random::Random;
use super::gate::Running;
use super::{STEP, World};
use equipoise::engine::Engine;
use equipoise::packet::Meta;
use equipoise::state::Health;
use equipoise::time::Instant;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// For how long a server has to be silent until it is down, and to answer until it is up, at most.
const JUDGED: u64 = 6_000;
/// After so long without a silent server, all are up at an active gateway.
const RECOVERED: u64 = 3_000;

/// Trouble with probes.
pub(super) struct Probes {
    rng: Random,
    /// The server that is silent, by the last octet of its address, and to which gateways.
    silent: Option<(u8, [bool; 2])>,
    /// When that changes.
    next: u64,
    /// By gateway and server: since when a server has been silent, or has answered.
    since: [[u64; 4]; 2],
    /// When a gateway was last away.
    away: [u64; 2],
    pub(super) downs: u64,
    pub(super) followed: u64,
}

impl Probes {
    pub(super) fn new(seed: u64) -> Probes {
        let rng = Random::new(seed ^ 0x6865_616c_7468);
        let since = [[0; 4]; 2];
        Probes { rng, silent: None, next: 0, since, away: [0; 2], downs: 0, followed: 0 }
    }

    fn is_silent(&self, at: usize, server: u8) -> bool {
        self.silent.is_some_and(|(own, to)| own == server && to[at])
    }

    /// The server that is or was silent to a gateway a moment ago.
    pub(super) fn in_doubt(&self, t: u64, server: Ipv4Addr) -> bool {
        let octet = server.octets()[3];
        (0..2).any(|at| self.is_silent(at, octet) || self.since[at][usize::from(octet & 3)] + JUDGED > t)
    }

    fn turn(&mut self, t: u64, silent: Option<(u8, [bool; 2])>) {
        let before = std::mem::replace(&mut self.silent, silent);
        for (server, to) in before.into_iter().chain(silent) {
            for at in (0..2).filter(|at| to[*at]) {
                self.since[at][usize::from(server)] = t;
            }
        }
        self.next = t + if silent.is_some() { 1_000 + self.rng.below(9_000) } else { 2_000 + self.rng.below(15_000) };
    }

    /// Hands the answers to probes to the gateway that sent them; returns the other packets.
    pub(super) fn answer(
        &self,
        (at, engine): (usize, &mut Engine),
        now: Instant,
        packets: Vec<Vec<u8>>,
    ) -> Vec<Vec<u8>> {
        let mut others = Vec::new();
        for mut packet in packets {
            if packet[9] != 1 || packet[20] != 8 {
                others.push(packet);
            } else if !self.is_silent(at, packet[19]) {
                let (from, to): ([u8; 4], [u8; 4]) =
                    (packet[12..16].try_into().unwrap(), packet[16..20].try_into().unwrap());
                packet[12..16].copy_from_slice(&to);
                packet[16..20].copy_from_slice(&from);
                // An echo request becomes a reply.
                packet[20] = 0;
                let sum = u32::from(u16::from_be_bytes([packet[22], packet[23]])) + 0x0800;
                packet[22..24].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
                engine.handle_packet(now, &mut packet, Meta::default());
            }
        }
        others
    }
}

/// The configuration with monitors, and with flows that stay where they are.
pub(super) fn monitored(text: &str) -> String {
    let (services, rest) = text.split_at(text.find("[[pool]]").unwrap());
    let (pool, nat) = rest.split_at(rest.find("[[nat-pool]]").unwrap());
    let services = services.replace("pool = \"web\"\n", "pool = \"web\"\non-down = \"keep\"\n");
    format!("{services}{pool}{MONITOR}{nat}[gateway]\nprobe-address = \"203.0.113.1\"\n")
}

impl World {
    /// Makes servers silent, or lets them answer again; checks what the gateways make of it.
    pub(super) fn probe(&mut self) {
        if !self.monitored {
            return;
        }
        let t = self.t;
        for at in 0..2 {
            if !self.is_up(at) {
                self.probes.away[at] = t;
            }
        }
        if t >= self.probes.next {
            let rng = &mut self.probes.rng;
            let (server, to) = (1 + rng.below(3) as u8, [[true, true], [true, false], [false, true]]);
            let to = to[rng.below(3) as usize];
            let silent = if self.probes.silent.is_none() && self.probes.next > 0 { Some((server, to)) } else { None };
            self.probes.turn(t, silent);
            self.say(|| format!("servers that answer no probes: {silent:?}"));
        }
        for server in
            (1..=3).map(|octet| Ipv4Addr::new(10, 0, 0, octet)).filter(|server| self.probes.in_doubt(t, *server))
        {
            self.ends.doubt(t, server);
        }
        if t % 250 < STEP {
            (0..2).for_each(|at| self.judge(at));
        }
    }

    /// Lets all servers answer again.
    pub(super) fn heal_probes(&mut self) {
        self.probes.turn(self.t, None);
        self.probes.next = u64::MAX;
    }

    /// What a gateway knows of each server: by the last octet of its address.
    fn health(&self, at: usize) -> BTreeMap<u8, Health> {
        let Some(Running { engine, .. }) = &self.gates[at].running else { return BTreeMap::new() };
        let octet = |address| match address {
            IpAddr::V4(address) => Ipv4Addr::octets(&address)[3],
            IpAddr::V6(_) => 0,
        };
        engine.monitors(self.now(at)).into_iter().map(|row| (octet(row.address), row.state)).collect()
    }

    fn judge(&mut self, at: usize) {
        let t = self.t;
        let Some(Running { engine, .. }) = self.gates[at].running.as_ref().filter(|_| self.is_up(at)) else { return };
        self.probes.followed += u64::from(engine.follows_verdicts());
        let is_active = self.is_active(at);
        if is_active && engine.follows_verdicts() {
            self.ends.wrong.get_or_insert(format!("{t}: gateway {at} is active and does not probe"));
        }
        let here = t.min(t - self.probes.away[at]).min(t - self.gates[at].started);
        let probing = if is_active { here.min(t - self.gates[at].activated) } else { 0 };
        for (server, state) in self.health(at) {
            let held = t - self.probes.since[at][usize::from(server)];
            let calm = (0..2).map(|at| t - self.probes.since[at][usize::from(server)]).min().unwrap_or(0);
            let is_silent = self.probes.is_silent(at, server);
            self.probes.downs += u64::from(state == Health::Down);
            let wrong = match state {
                // Nobody has had a reason to doubt it for long.
                Health::Down if calm >= 60_000 && here >= JUDGED => "is down, and has been answering everybody",
                Health::Down if !is_silent && held.min(probing) >= RECOVERED => "is down, and answers",
                Health::Up if is_silent && held.min(probing) >= JUDGED => "is up, and answers nothing",
                _ => continue,
            };
            self.ends
                .wrong
                .get_or_insert(format!("{t}: server {server} {wrong}, at gateway {at} (active: {is_active})"));
        }
    }

    /// What the two judge differently once everything has healed; none if nothing.
    pub(super) fn judged_otherwise(&self) -> Option<String> {
        if !self.monitored {
            return None;
        }
        let [a, b] = [0, 1].map(|at| self.health(at));
        let rests =
            |at: usize| self.gates[at].running.as_ref().is_some_and(|running| running.engine.follows_verdicts());
        let differs = a.iter().any(|(server, state)| b.get(server).is_some_and(|other| other != state));
        let follows = [0, 1].map(rests) == [0, 1].map(|at| !self.is_active(at));
        (differs || !follows).then(|| format!("health: {a:?} and {b:?}; who follows: {:?}", [0, 1].map(rests)))
    }
}
