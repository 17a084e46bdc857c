//! The targets to probe, compiled from the settings and grouped into units, each of which has a state.
//!
//! A unit is one address of a server (ICMP, and monitors with ports of their own), or one of its ports.

use super::expect::{Matcher, compile};
use super::floor::Floors;
use super::history::History;
use super::http;
use super::judge::Judge;
use super::settings::{
    HealthSettings, LEAST_INTERVAL, LoadSource, MonitorSettings, PoolWatch, Probe, ServerWatch, WatchedPort,
};
use super::why::{Failure, Why};
use crate::ids::{PoolId, ServerId};
use crate::state::Health;
use crate::time::{Duration, Instant};
use regex::bytes::Regex;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A monitor with its compiled parts.
#[derive(Debug)]
pub(super) struct Monitor {
    pub settings: MonitorSettings,
    pub matcher: Option<Matcher>,
    pub request: Vec<u8>,
    pub load: Option<Regex>,
}

/// An outstanding probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outstanding {
    pub started: Instant,
    pub ours: u16,
    /// The nonce, initial sequence number or query ID.
    pub secret: u64,
    /// The connection of the stack, for HTTP.
    pub slot: Option<u32>,
}

/// One monitor applied to one address and port.
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
    /// Since when a reload has kept an HTTP probe from its end: each begins it anew.
    pub waits_since: Option<Instant>,
    pub last: Option<Result<Option<Duration>, Failure>>,
    /// Probes in a row that timed out and were let off.
    pub let_off: u32,
    /// The round in which others have told its verdict last; 0 if it is probed here.
    pub told: u32,
}

/// One address of a server, or one of its ports.
#[derive(Debug)]
pub(super) struct Unit {
    pub server: u32,
    pub v6: bool,
    pub port: Option<u16>,
    pub targets: Vec<u32>,
    /// Its state after the floor.
    pub state: Health,
    pub since: Instant,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    pub id: ServerId,
    /// Its units of IPv4 and of IPv6, the unit without a port first.
    pub units: [Vec<u32>; 2],
    pub history: History,
    pub load: Option<(Instant, u8, bool)>,
    /// Counts what has been learned of it.
    pub version: u32,
}

/// All targets, units and servers.
#[derive(Debug, Default)]
pub(super) struct Targets {
    pub monitors: Vec<Monitor>,
    pub targets: Vec<Target>,
    pub units: Vec<Unit>,
    pub servers: Vec<Server>,
    pub floors: Floors,
}

impl Monitor {
    /// Compiles a monitor; an expectation that does not compile was reported by the check of the settings and is ignored.
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
        // Even unchecked settings must not cause an endless loop.
        settings.interval = settings.interval.max(LEAST_INTERVAL);
        Monitor { settings, matcher, request, load }
    }
}

impl Targets {
    pub(super) fn new(settings: &HealthSettings) -> Self {
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

    /// Notes that something has been learned of the server of a unit, and returns it.
    pub(super) fn learned(&mut self, unit: u32) -> ServerId {
        let server = &mut self.servers[self.units[unit as usize].server as usize];
        server.version = server.version.wrapping_add(1);
        server.id
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
        let ports = WatchedPort::merged(watch.ports.clone());
        let units = [v4, v6].map(|address| {
            let Some(address) = address else { return Vec::new() };
            let first_unit = self.units.len() as u32;
            self.add_units(pool, first_monitor, address, &ports);
            let units: Vec<u32> = (first_unit..self.units.len() as u32).collect();
            self.add_seats(pool.pool, &units, groups);
            units
        });
        self.servers.push(Server { id: watch.server, units, history: History::default(), load: None, version: 0 });
    }

    fn add_units(&mut self, pool: &PoolWatch, first_monitor: u32, address: IpAddr, ports: &[WatchedPort]) {
        for unit_port in std::iter::once(None).chain(ports.iter().copied().map(Some)) {
            let unit = self.units.len() as u32;
            let first = self.targets.len();
            for (monitor, settings) in (first_monitor..).zip(&pool.monitors) {
                let icmp = settings.probe == Probe::Icmp;
                let probed: &[u16] = match unit_port {
                    None if icmp => &[0],
                    None => &settings.ports,
                    Some(_) if !settings.ports.is_empty() => &[],
                    Some(ref at) if !settings.probe.judges(at.tcp, at.udp) => &[],
                    Some(ref at) => std::slice::from_ref(&at.port),
                };
                self.targets.extend(probed.iter().map(|port| Target {
                    unit,
                    monitor,
                    address,
                    port: *port,
                    judge: Judge::new(settings.initial),
                    due: Instant::FAR,
                    probe: None,
                    waits_since: None,
                    last: None,
                    let_off: 0,
                    told: 0,
                }));
            }
            if self.targets.len() > first {
                let targets = (first as u32..self.targets.len() as u32).collect();
                let (v6, unit_port) = (address.is_ipv6(), unit_port.map(|at| at.port));
                let state = Health::Unknown;
                self.units.push(Unit { server: 0, v6, port: unit_port, targets, state, since: Instant::ZERO });
                self.units[unit as usize].state = self.verdict(unit);
                self.floors.add_unit(self.units[unit as usize].state == Health::Up);
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

    /// Returns the position of a server, if it is monitored.
    pub(super) fn find(&self, id: ServerId) -> Option<usize> {
        if self.servers.get(id.0 as usize).is_some_and(|server| server.id == id) {
            return Some(id.0 as usize);
        }
        self.servers.binary_search_by_key(&id, |server| server.id).ok()
    }

    /// Returns the verdict of the monitors of a unit: the worst of them.
    pub(super) fn verdict(&self, unit: u32) -> Health {
        let states =
            self.units[unit as usize].targets.iter().map(|target| self.targets[*target as usize].judge.state());
        Health::worst(states)
    }

    /// Returns the health of an address and port of a server, after the floor.
    pub(super) fn state(&self, server: usize, v6: bool, port: u16) -> Health {
        let units = self.servers[server].units[usize::from(v6)].iter().map(|unit| &self.units[*unit as usize]);
        Health::worst(units.filter(|unit| unit.port.is_none_or(|p| p == port)).map(|unit| unit.state))
    }

    /// Returns the reason of the first target of a unit that is down.
    pub(super) fn fault(&self, unit: u32) -> Option<Why> {
        let targets = self.units[unit as usize].targets.iter().map(|target| &self.targets[*target as usize]);
        targets.filter(|target| target.judge.state() == Health::Down).find_map(|target| target.judge.why())
    }
}
