//! What the settings come down to: targets to probe, grouped to units that have a state.
//!
//! A unit is one server's address (ICMP, and monitors with ports of their own), or one port of it.

use super::expect::{Matcher, compile};
use super::floor::Floors;
use super::history::History;
use super::http;
use super::judge::{Judge, State};
use super::settings::{HealthSettings, LEAST_INTERVAL, LoadSource, MonitorSettings, PoolWatch, Probe, ServerWatch};
use super::why::{Failure, Why};
use crate::ids::{PoolId, ServerId};
use crate::time::{Duration, Instant};
use regex::bytes::Regex;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A monitor with what it needs compiled.
#[derive(Debug)]
pub(super) struct Monitor {
    pub settings: MonitorSettings,
    pub matcher: Option<Matcher>,
    pub request: Vec<u8>,
    pub load: Option<Regex>,
}

/// One probe on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outstanding {
    pub started: Instant,
    pub ours: u16,
    /// The nonce, initial sequence number or query ID.
    pub secret: u64,
    /// The stack's connection, of HTTP.
    pub slot: Option<u32>,
}

/// One monitor's look at one address and port.
#[derive(Debug)]
pub(super) struct Target {
    pub unit: u32,
    pub monitor: u32,
    pub address: IpAddr,
    /// 0 for ICMP.
    pub port: u16,
    pub judge: Judge,
    /// When the next probe starts.
    pub due: Instant,
    pub probe: Option<Outstanding>,
    pub last: Option<Result<Option<Duration>, Failure>>,
}

/// One address of a server, or one port of it.
#[derive(Debug)]
pub(super) struct Unit {
    pub server: u32,
    pub v6: bool,
    pub port: Option<u16>,
    pub targets: Vec<u32>,
    /// What holds, after the floor.
    pub state: State,
    pub since: Instant,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    pub id: ServerId,
    /// Its units of IPv4 and of IPv6, the one without port first.
    pub units: [Vec<u32>; 2],
    pub history: History,
    pub load: Option<(Instant, u8, bool)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Targets {
    pub monitors: Vec<Monitor>,
    pub targets: Vec<Target>,
    pub units: Vec<Unit>,
    pub servers: Vec<Server>,
    pub floors: Floors,
}

impl Monitor {
    /// What does not compile expects nothing: the settings' check has told it.
    fn new(settings: &MonitorSettings) -> Self {
        let (mut matcher, mut request, mut load) = (None, Vec::new(), None);
        match &settings.probe {
            Probe::Http(probe) => {
                matcher = probe.expect.as_ref().and_then(|expect| Matcher::new(expect).ok());
                request = http::request(probe);
                if let Some(LoadSource::Regex(pattern)) = &probe.load {
                    load = compile(pattern).ok();
                }
            }
            Probe::Udp { expect, .. } => matcher = Matcher::new(expect).ok(),
            _ => {}
        }
        let mut settings = settings.clone();
        // Whatever was not checked must not make a loop that never ends.
        settings.interval = settings.interval.max(LEAST_INTERVAL);
        Monitor { settings, matcher, request, load }
    }
}

impl Targets {
    pub fn new(settings: &HealthSettings) -> Self {
        let mut all = Targets::default();
        for pool in &settings.pools {
            let first = all.monitors.len() as u32;
            all.monitors.extend(pool.monitors.iter().map(Monitor::new));
            let mut groups = BTreeMap::new();
            for server in &pool.servers {
                all.add_server(settings, pool, first, server, &mut groups);
            }
            for (group, total) in groups.values() {
                all.floors.set_least(*group, pool.floor.least(*total));
            }
        }
        all.servers.sort_by_key(|server| server.id);
        for (place, server) in all.servers.iter().enumerate() {
            for unit in server.units.iter().flatten() {
                all.units[*unit as usize].server = place as u32;
            }
        }
        all
    }

    fn add_server(
        &mut self,
        settings: &HealthSettings,
        pool: &PoolWatch,
        first_monitor: u32,
        watch: &ServerWatch,
        groups: &mut BTreeMap<(PoolId, bool, Option<u16>), (u32, u32)>,
    ) {
        let v4 = watch.v4.filter(|_| settings.source_v4.is_some()).map(IpAddr::V4);
        let v6 = watch.v6.filter(|_| settings.source_v6.is_some()).map(IpAddr::V6);
        let mut ports = watch.ports.clone();
        ports.sort_unstable();
        ports.dedup();
        let units = [v4, v6].map(|address| {
            let Some(address) = address else { return Vec::new() };
            let first_unit = self.units.len() as u32;
            self.add_units(pool, first_monitor, address, &ports);
            let units: Vec<u32> = (first_unit..self.units.len() as u32).collect();
            self.add_seats(pool.pool, &units, groups);
            units
        });
        self.servers.push(Server { id: watch.server, units, history: History::default(), load: None });
    }

    fn add_units(&mut self, pool: &PoolWatch, first_monitor: u32, address: IpAddr, ports: &[u16]) {
        for unit_port in std::iter::once(None).chain(ports.iter().copied().map(Some)) {
            let unit = self.units.len() as u32;
            let first = self.targets.len();
            for (monitor, settings) in (first_monitor..).zip(&pool.monitors) {
                let icmp = settings.probe == Probe::Icmp;
                let probed: &[u16] = match unit_port {
                    None if icmp => &[0],
                    None => &settings.ports,
                    Some(_) if icmp || !settings.ports.is_empty() => &[],
                    Some(ref port) => std::slice::from_ref(port),
                };
                self.targets.extend(probed.iter().map(|port| Target {
                    unit,
                    monitor,
                    address,
                    port: *port,
                    judge: Judge::new(settings.initial),
                    due: Instant::FAR,
                    probe: None,
                    last: None,
                }));
            }
            if self.targets.len() > first {
                let targets = (first as u32..self.targets.len() as u32).collect();
                let v6 = address.is_ipv6();
                let state = State::Unknown;
                self.units.push(Unit { server: 0, v6, port: unit_port, targets, state, since: Instant::ZERO });
                self.units[unit as usize].state = self.says(unit);
                self.floors.add_unit(self.units[unit as usize].state == State::Up);
            }
        }
    }

    fn add_seats(
        &mut self,
        pool: PoolId,
        units: &[u32],
        groups: &mut BTreeMap<(PoolId, bool, Option<u16>), (u32, u32)>,
    ) {
        let Some(first) = units.first() else { return };
        let address = self.units[*first as usize].port.is_none().then_some(*first);
        let seats: Vec<Vec<u32>> = match (address, units) {
            (Some(address), [_]) => vec![vec![address]],
            (Some(address), [_, ports @ ..]) => ports.iter().map(|port| vec![address, *port]).collect(),
            _ => units.iter().map(|port| vec![*port]).collect(),
        };
        for seat in seats {
            let unit = &self.units[seat[seat.len() - 1] as usize];
            let (group, total) =
                groups.entry((pool, unit.v6, unit.port)).or_insert_with(|| (self.floors.add_group(), 0));
            *total += 1;
            self.floors.add_seat(*group, &seat);
        }
    }

    /// A server's place, if it is watched.
    pub fn find(&self, id: ServerId) -> Option<usize> {
        if self.servers.get(id.0 as usize).is_some_and(|server| server.id == id) {
            return Some(id.0 as usize);
        }
        self.servers.binary_search_by_key(&id, |server| server.id).ok()
    }

    /// What a unit's monitors say: down where one does, else unknown where one does.
    pub fn says(&self, unit: u32) -> State {
        let states =
            self.units[unit as usize].targets.iter().map(|target| self.targets[*target as usize].judge.state());
        worst(states)
    }

    /// What the monitors of a server's address and port amount to, after the floor.
    pub fn state(&self, server: usize, v6: bool, port: u16) -> State {
        let units = self.servers[server].units[usize::from(v6)].iter().map(|unit| &self.units[*unit as usize]);
        worst(units.filter(|unit| unit.port.is_none_or(|p| p == port)).map(|unit| unit.state))
    }

    /// Why a unit is what it is, by the target that says so.
    pub fn fault(&self, unit: u32) -> Option<Why> {
        let targets = self.units[unit as usize].targets.iter().map(|target| &self.targets[*target as usize]);
        targets.filter(|target| target.judge.state() == State::Down).find_map(|target| target.judge.why())
    }
}

/// Down, else unknown, else up.
fn worst(states: impl Iterator<Item = State>) -> State {
    states.fold(State::Up, |worst, state| match (worst, state) {
        (State::Down, _) | (_, State::Down) => State::Down,
        (State::Unknown, _) | (_, State::Unknown) => State::Unknown,
        _ => State::Up,
    })
}
