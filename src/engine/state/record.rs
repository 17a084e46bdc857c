//! The records of a state: what each holds, by which tags, and how its values are written.
//!
//! Tags and codes are those of version [`super::VERSION`]: one is never given another meaning. A later version adds tags
//! and kinds, which this one skips. Services, servers, rules, pools and groups are named once, with a number by which
//! further records refer to them. Times are in nanoseconds after the state's own time, or before it with a negative sign.

mod flow;

pub(super) use flow::FlowRecord;

use super::wire::{Fields, Value, Writer};
use crate::balance::{Admin, Health, Prefixes, SavedServer};
use crate::flow::{Mapping, Rest, SavedSlot};
use crate::health::SavedVerdict;
use crate::ids::ServerId;
use crate::packet::Protocol;
use crate::time::{Duration, Instant};
use std::net::IpAddr;

/// The kinds of records.
pub(super) mod kind {
    pub(in super::super) const HEAD: u8 = 1;
    pub(in super::super) const SERVICE: u8 = 2;
    pub(in super::super) const NAT_POOL: u8 = 3;
    pub(in super::super) const RULE: u8 = 4;
    pub(in super::super) const GROUP: u8 = 5;
    pub(in super::super) const SERVER: u8 = 6;
    pub(in super::super) const VERDICT: u8 = 7;
    pub(in super::super) const SLOT: u8 = 8;
    pub(in super::super) const FLOW: u8 = 9;
    pub(in super::super) const REST: u8 = 10;
    pub(in super::super) const END: u8 = 11;
    pub(in super::super) const HALF_OPEN: u8 = 12;
    pub(in super::super) const GONE: u8 = 13;
    /// [`super::super::Note`].
    pub(in super::super) const FIRST_NOTE: u8 = 128;
    pub(in super::super) const LAST_NOTE: u8 = 129;
}

/// Writes and reads times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base(pub Instant);

impl Base {
    fn of(self, at: Instant) -> i64 {
        let span = i128::from(at.as_nanos()) - i128::from(self.0.as_nanos());
        // Far is 292 years away.
        span.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    fn at(self, span: i64) -> Instant {
        match u64::try_from(span) {
            Ok(after) => self.0 + Duration::from_nanos(after),
            Err(_) => Instant::from_nanos(self.0.as_nanos().saturating_sub(span.unsigned_abs())),
        }
    }
}

/// The fields of a record that were not known.
#[derive(Debug, Default)]
pub(super) struct Skipped(pub u64);

/// The begin of a state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Head {
    pub version: u64,
    /// Whether the sender forwards no packet after the state's time.
    pub is_final: bool,
    /// Whether it is a copy: flows have slots, and come again when they have changed.
    pub is_copy: bool,
}

impl Head {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut record = Writer::new(out, kind::HEAD);
        record.number(1, self.version);
        record.number(2, self.is_final.into());
        record.number(3, self.is_copy.into());
        record.end();
    }

    pub(super) fn read(fields: Fields<'_>, skipped: &mut Skipped) -> Option<Head> {
        let mut head = Head::default();
        for (tag, value) in fields {
            match tag {
                1 => head.version = value.number()?,
                2 => head.is_final = value.number()? != 0,
                3 => head.is_copy = value.number()? != 0,
                _ => skipped.0 += 1,
            }
        }
        Some(head)
    }
}

/// A service, NAT pool, rule or group and its number. A rule also has its switch, and the configured one; of a group,
/// `own` says whether it is that of one service, and `by` what counts as one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Named<'n> {
    pub number: u32,
    pub name: &'n str,
    pub switch: [bool; 2],
    pub own: bool,
    pub by: Option<Prefixes>,
}

impl<'n> Named<'n> {
    pub(super) fn new(number: usize, name: &'n str) -> Self {
        Named { number: number as u32, name, ..Named::default() }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, kind: u8) {
        let mut record = Writer::new(out, kind);
        record.number(1, self.number.into());
        record.bytes(2, self.name.as_bytes());
        record.number(3, self.switch[0].into());
        record.number(4, self.switch[1].into());
        record.number(5, self.own.into());
        if let Some(by) = self.by {
            record.present(6, by.v4.into());
            record.present(7, by.v6.into());
        }
        record.end();
    }

    pub(super) fn read(fields: Fields<'n>, skipped: &mut Skipped) -> Option<Named<'n>> {
        let mut named = Named::default();
        let (mut v4, mut v6) = (None, None);
        for (tag, value) in fields {
            match tag {
                1 => named.number = value.as_number()?,
                2 => named.name = value.text()?,
                3 => named.switch[0] = value.number()? != 0,
                4 => named.switch[1] = value.number()? != 0,
                5 => named.own = value.number()? != 0,
                6 => v4 = Some(value.as_number()?),
                7 => v6 = Some(value.as_number()?),
                _ => skipped.0 += 1,
            }
        }
        named.by = v4.zip(v6).map(|(v4, v6)| Prefixes { v4, v6 });
        Some(named)
    }
}

/// A server: what identifies it, its number, and its standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerRecord<'n> {
    pub number: u32,
    pub pool: &'n str,
    pub name: &'n str,
    pub addresses: [Option<IpAddr>; 2],
    pub port: Option<u16>,
    pub standing: SavedServer,
}

const fn admin_code(admin: Admin) -> u64 {
    match admin {
        Admin::Enabled => 0,
        Admin::Draining => 1,
        Admin::Disabled => 2,
    }
}

fn admin(value: Value<'_>) -> Option<Admin> {
    [Admin::Enabled, Admin::Draining, Admin::Disabled]
        .into_iter()
        .find(|admin| Some(admin_code(*admin)) == value.number())
}

impl<'n> ServerRecord<'n> {
    pub(super) fn write(&self, out: &mut Vec<u8>, base: Base) {
        let SavedServer { weight, admin, deadline, load, maintenance, held_until, back_since } = self.standing;
        let mut record = Writer::new(out, kind::SERVER);
        record.number(1, self.number.into());
        record.bytes(2, self.pool.as_bytes());
        record.bytes(3, self.name.as_bytes());
        self.addresses.into_iter().flatten().for_each(|address| record.address(4, address));
        if let Some(port) = self.port {
            record.present(5, port.into());
        }
        record.number(6, weight[0].into());
        record.number(7, weight[1].into());
        record.number(8, admin_code(admin[0]));
        record.number(9, admin_code(admin[1]));
        let mut time = |tag, at: Option<Instant>| {
            if let Some(at) = at {
                record.present_signed(tag, base.of(at));
            }
        };
        time(10, deadline);
        time(11, load.map(|(_, at)| at));
        time(12, held_until);
        time(13, back_since);
        record.number(14, load.map_or(0, |(load, _)| load).into());
        record.number(15, maintenance.into());
        record.end();
    }

    pub(super) fn read(fields: Fields<'n>, base: Base, skipped: &mut Skipped) -> Option<ServerRecord<'n>> {
        let (mut load, mut loaded) = (0, None);
        let mut server =
            ServerRecord { number: 0, pool: "", name: "", addresses: [None; 2], port: None, standing: NONE };
        let standing = &mut server.standing;
        for (tag, value) in fields {
            let time = || value.signed().map(|span| base.at(span));
            match tag {
                1 => server.number = value.as_number()?,
                2 => server.pool = value.text()?,
                3 => server.name = value.text()?,
                4 => {
                    let address = value.address()?;
                    server.addresses[usize::from(address.is_ipv6())] = Some(address);
                }
                5 => server.port = Some(value.as_number()?),
                6 => standing.weight[0] = value.as_number()?,
                7 => standing.weight[1] = value.as_number()?,
                8 => standing.admin[0] = admin(value)?,
                9 => standing.admin[1] = admin(value)?,
                10 => standing.deadline = Some(time()?),
                11 => loaded = Some(time()?),
                12 => standing.held_until = Some(time()?),
                13 => standing.back_since = Some(time()?),
                14 => load = value.as_number()?,
                15 => standing.maintenance = value.number()? != 0,
                _ => skipped.0 += 1,
            }
        }
        standing.load = loaded.map(|at| (load, at));
        Some(server)
    }
}

const NONE: SavedServer = SavedServer {
    weight: [0; 2],
    admin: [Admin::Enabled; 2],
    deadline: None,
    load: None,
    maintenance: false,
    held_until: None,
    back_since: None,
};

pub(super) const fn health_code(health: Health) -> u64 {
    match health {
        Health::Up => 0,
        Health::Unknown => 1,
        Health::Down => 2,
    }
}

fn health(value: Value<'_>) -> Option<Health> {
    [Health::Up, Health::Unknown, Health::Down].into_iter().find(|of| Some(health_code(*of)) == value.number())
}

pub(super) fn write_verdict(out: &mut Vec<u8>, base: Base, saved: &SavedVerdict) {
    let mut record = Writer::new(out, kind::VERDICT);
    record.number(1, saved.server.0.into());
    record.bytes(2, saved.monitor.as_bytes());
    record.bytes(3, saved.probe.as_bytes());
    record.address(4, saved.address);
    record.number(5, saved.port.into());
    record.number(6, health_code(saved.verdict));
    record.number(7, health_code(saved.state));
    record.signed(8, base.of(saved.since));
    record.end();
}

/// Reads a verdict; its server is a number of the state.
pub(super) fn read_verdict(fields: Fields<'_>, base: Base, skipped: &mut Skipped) -> Option<SavedVerdict> {
    let mut address = None;
    let mut saved = SavedVerdict {
        server: ServerId(0),
        monitor: String::new(),
        probe: String::new(),
        address: [0; 4].into(),
        port: 0,
        verdict: Health::Up,
        state: Health::Up,
        since: base.0,
    };
    for (tag, value) in fields {
        match tag {
            1 => saved.server = ServerId(value.as_number()?),
            2 => saved.monitor = value.text()?.into(),
            3 => saved.probe = value.text()?.into(),
            4 => address = Some(value.address()?),
            5 => saved.port = value.as_number()?,
            6 => saved.verdict = health(value)?,
            7 => saved.state = health(value)?,
            8 => saved.since = base.at(value.signed()?),
            _ => skipped.0 += 1,
        }
    }
    Some(SavedVerdict { address: address?, ..saved })
}

pub(super) fn write_slot(out: &mut Vec<u8>, base: Base, group: u32, slot: &SavedSlot) {
    let mut record = Writer::new(out, kind::SLOT);
    record.number(1, group.into());
    record.address(2, slot.client);
    record.number(3, slot.server.0.into());
    record.number(4, slot.proven.into());
    record.signed(5, base.of(slot.since));
    record.signed(6, base.of(slot.given));
    record.number(7, slot.is_busy.into());
    record.end();
}

/// Reads a sticky slot and the number of its group; its server is a number of the state.
pub(super) fn read_slot(fields: Fields<'_>, base: Base, skipped: &mut Skipped) -> Option<(u32, SavedSlot)> {
    let (mut group, mut client) = (0, None);
    let (client_less, at) = (IpAddr::from([0; 4]), base.0);
    let server = ServerId(0);
    let mut slot = SavedSlot { client: client_less, server, proven: false, is_busy: false, since: at, given: at };
    for (tag, value) in fields {
        match tag {
            1 => group = value.as_number()?,
            2 => client = Some(value.address()?),
            3 => slot.server = ServerId(value.as_number()?),
            4 => slot.proven = value.number()? != 0,
            5 => slot.since = base.at(value.signed()?),
            6 => slot.given = base.at(value.signed()?),
            7 => slot.is_busy = value.number()? != 0,
            _ => skipped.0 += 1,
        }
    }
    Some((group, SavedSlot { client: client?, ..slot }))
}

/// Writes that the flow in a slot has ended.
pub(super) fn write_gone(out: &mut Vec<u8>, slot: u32) {
    let mut record = Writer::new(out, kind::GONE);
    record.present(1, slot.into());
    record.end();
}

/// Reads the slot of a flow that has ended.
pub(super) fn read_gone(fields: Fields<'_>, skipped: &mut Skipped) -> Option<u32> {
    let mut slot = None;
    for (tag, value) in fields {
        match tag {
            1 => slot = Some(value.as_number()?),
            _ => skipped.0 += 1,
        }
    }
    slot
}

pub(super) fn write_rest(out: &mut Vec<u8>, base: Base, pool: u32, rest: &Rest) {
    let mapping = &rest.mapping;
    let mut record = Writer::new(out, kind::REST);
    record.number(1, pool.into());
    record.number(2, mapping.protocol.number(false).into());
    record.address(3, mapping.address);
    record.number(4, mapping.port.into());
    record.address(5, mapping.server.address);
    record.number(6, mapping.server.port.into());
    record.signed(7, base.of(rest.until));
    record.number(8, rest.tentative.into());
    record.end();
}

/// Reads a resting port and the number of its pool.
pub(super) fn read_rest(fields: Fields<'_>, base: Base, skipped: &mut Skipped) -> Option<(u32, Rest)> {
    let (mut pool, mut protocol, mut port, mut server_port) = (0, Protocol::Ip(0), 0, 0);
    let (mut address, mut server, mut until, mut tentative) = (None, None, base.0, false);
    for (tag, value) in fields {
        match tag {
            1 => pool = value.as_number()?,
            2 => protocol = Protocol::of_number(value.as_number()?),
            3 => address = Some(value.address()?),
            4 => port = value.as_number()?,
            5 => server = Some(value.address()?),
            6 => server_port = value.as_number()?,
            7 => until = base.at(value.signed()?),
            8 => tentative = value.number()? != 0,
            _ => skipped.0 += 1,
        }
    }
    let server = crate::flow::Endpoint { address: server?, port: server_port };
    Some((pool, Rest { mapping: Mapping { address: address?, port, protocol, server }, until, tentative }))
}

/// Writes the end of a state: how many records there are before it.
pub(super) fn write_end(out: &mut Vec<u8>, records: u64) {
    let mut record = Writer::new(out, kind::END);
    record.number(1, records);
    record.end();
}

pub(super) fn read_end(fields: Fields<'_>, skipped: &mut Skipped) -> Option<u64> {
    let mut records = 0;
    for (tag, value) in fields {
        match tag {
            1 => records = value.number()?,
            _ => skipped.0 += 1,
        }
    }
    Some(records)
}
