//! Writing a state, a bounded number of records at a time.

mod peer;

pub(super) use peer::IDLE;
pub use peer::{Giving, GivingHealth, Mark};

use super::super::Engine;
use super::super::plan::Plan;
use super::VERSION;
use super::record::{
    Base, FlowRecord, Head, Named, ServerRecord, kind, write_end, write_rest, write_slot, write_verdict,
};
use crate::balance::SavedServer;
use crate::flow::{NO_POOL, SavedFlow, SavedSlot, Table, Watcher};
use crate::ids::ServerId;
use crate::policy::{NO_RULE, RuleSettings};
use crate::time::Instant;
use std::net::IpAddr;
use std::sync::Arc;

/// Where a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Head,
    Services(usize),
    NatPools(usize),
    Rules(usize),
    Groups(usize),
    Servers(usize),
    Verdicts(usize),
    /// By group.
    Slots(usize),
    /// The position in the table.
    Flows(u32),
    /// The pool, the time until which the last port rests, and how many of this time have been written.
    Resting(usize, Instant, usize),
    End,
    Done,
}

/// A walk over the state of an engine. An engine has one at a time, beside that of a peer: beginning another ends this one.
#[derive(Debug)]
pub struct StateWalk {
    at: At,
    who: Watcher,
    /// Where it goes on once everything is named.
    after_names: At,
    base: Base,
    is_final: bool,
    /// Whether what changes is to follow.
    is_copy: bool,
    records: u64,
    plan: Option<Arc<Plan>>,
    groups: Vec<u32>,
    /// Sticky clients that have not been used since are passed over, and those that have not proved themselves.
    used_since: Option<Instant>,
}

impl StateWalk {
    /// Begins a walk; the state's own time is `now`. If it `is_final`, no packet is handled after that time.
    pub fn new(now: Instant, is_final: bool) -> Self {
        StateWalk {
            at: At::Head,
            who: Watcher::Successor,
            after_names: At::Slots(0),
            base: Base(now),
            is_final,
            is_copy: false,
            records: 0,
            plan: None,
            groups: Vec::new(),
            used_since: None,
        }
    }

    /// Begins the walk of a copy.
    pub(super) fn of_copy(now: Instant, who: Watcher) -> Self {
        StateWalk { is_copy: true, who, ..StateWalk::new(now, false) }
    }

    /// Returns the state's own time.
    pub fn time(&self) -> Instant {
        self.base.0
    }

    /// Returns the number of records written.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns whether a walk that has begun has another plan.
    pub(super) fn is_stale(&self, plan: &Arc<Plan>) -> bool {
        self.plan.as_ref().is_some_and(|own| !Arc::ptr_eq(own, plan))
    }

    pub(super) fn base(&self) -> Base {
        self.base
    }

    /// Returns the number of a group of services that share sticky slots.
    pub(super) fn group(&self, place: usize) -> Option<u32> {
        self.groups.get(place).copied()
    }

    /// Counts records.
    pub(super) fn count(&mut self, records: u64) {
        self.records += records;
    }

    /// Goes back to rules, servers and verdicts.
    pub(super) fn begin_standing(&mut self) {
        self.at = At::Rules(0);
    }

    /// Returns whether it is past rules, servers and verdicts.
    pub(super) fn has_standing(&self) -> bool {
        !matches!(self.at, At::Rules(_) | At::Groups(_) | At::Servers(_) | At::Verdicts(_))
    }

    /// Writes the end.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        write_end(out, self.records);
        self.at = At::Done;
    }
}

impl Engine {
    /// Writes more of the state to `out`: about `most` records, from as many slots; returns whether all of it is written.
    ///
    /// If the engine follows another plan since the last call, everything is named again behind what is written, and the walk
    /// goes on: flows that are written have the names that they had then, and a walk that began anew would never end where
    /// plans follow each other fast enough.
    pub fn write_state(&mut self, walk: &mut StateWalk, now: Instant, most: usize, out: &mut Vec<u8>) -> bool {
        if self.write_walk(walk, now, most, out) && walk.at != At::Done {
            walk.end(out);
        }
        walk.at == At::Done
    }

    /// Writes more of the state to `out`, but for its end; returns whether all of it is written.
    pub(super) fn write_walk(&mut self, walk: &mut StateWalk, now: Instant, most: usize, out: &mut Vec<u8>) -> bool {
        if walk.at == At::Head {
            Head { version: VERSION, is_final: walk.is_final, is_copy: walk.is_copy }.write(out);
            walk.records += 1;
        }
        if walk.at == At::Head || walk.at != At::Done && walk.is_stale(&self.plan) {
            walk.after_names = match walk.at {
                // Its reader knows flows by their slots, and takes a later record of one in its place.
                _ if walk.is_copy => At::Slots(0),
                At::Flows(_) => walk.at,
                // Pools may have changed their places.
                At::Resting(..) | At::End => At::Resting(0, Instant::ZERO, 0),
                _ => walk.after_names,
            };
            if matches!(walk.after_names, At::Slots(_)) {
                self.shard.chooser_mut().begin_sticky_walk(walk.who);
            }
            walk.groups = self.shard.chooser().sticky_groups().collect();
            walk.plan = Some(self.plan.clone());
            walk.at = At::Services(0);
        }
        let mut left = most.max(1);
        while left > 0 && !matches!(walk.at, At::End | At::Done) {
            let looked = self.write_part(walk, now, left, out);
            left = left.saturating_sub(looked.max(1));
        }
        matches!(walk.at, At::End | At::Done)
    }

    /// Writes records of one kind, and moves the walk on; returns how many things it looked at.
    pub(super) fn write_part(&mut self, walk: &mut StateWalk, now: Instant, most: usize, out: &mut Vec<u8>) -> usize {
        let plan = self.plan.clone();
        let settings = plan.settings();
        match walk.at {
            At::Services(from) => {
                let names = settings.services.iter().map(|service| service.name.as_str());
                walk.name(out, kind::SERVICE, names, (from, most), (At::Services, At::NatPools(0)))
            }
            At::NatPools(from) => {
                let names = settings.nat_pools.iter().map(|pool| pool.name.as_str());
                walk.name(out, kind::NAT_POOL, names, (from, most), (At::NatPools, At::Rules(0)))
            }
            At::Rules(from) => {
                let (switches, rules) = (self.standing.switches(), &settings.policy.rules);
                let rule = |(number, rule): (usize, &'_ RuleSettings)| {
                    let switch = [switches.is_on(number as u16), rule.enabled];
                    Named { switch, ..Named::new(number, &rule.name) }.write(out, kind::RULE);
                    true
                };
                let written = rules.iter().enumerate().skip(from).take(most).map(rule);
                walk.on((from, most), (At::Rules, At::Groups(0)), written)
            }
            At::Groups(from) => {
                let groups = walk.groups.clone();
                let group =
                    |group: &u32| group_name(&plan, *group).map(|named| named.write(out, kind::GROUP)).is_some();
                walk.on((from, most), (At::Groups, At::Servers(0)), groups.iter().skip(from).take(most).map(group))
            }
            At::Servers(from) => {
                let base = walk.base;
                let standing = |server| self.standing.servers().save(plan.roster(), now, server);
                let server = |number: usize| {
                    let record = server_record(&plan, number as u32, standing);
                    record.map(|record| record.write(out, base)).is_some()
                };
                let servers = (from..settings.servers.len()).take(most).map(server);
                walk.on((from, most), (At::Servers, At::Verdicts(0)), servers)
            }
            At::Verdicts(from) => {
                let base = walk.base;
                let verdicts = self.monitors.verdicts(from).take(most).map(|saved| {
                    write_verdict(out, base, &saved);
                    true
                });
                let then = walk.after_names;
                walk.on((from, most), (At::Verdicts, then), verdicts)
            }
            At::Slots(place) => self.write_slots(walk, place, most, out),
            At::Flows(from) => self.write_flows(walk, from, most, out),
            At::Resting(pool, until, after) => self.write_resting(walk, (pool, until, after), most, out),
            At::Head | At::End | At::Done => 0,
        }
    }

    fn write_slots(&mut self, walk: &mut StateWalk, place: usize, most: usize, out: &mut Vec<u8>) -> usize {
        let Some(group) = walk.groups.get(place).copied() else {
            walk.at = At::Flows(0);
            return 0;
        };
        let (base, who, records) = (walk.base, walk.who, &mut walk.records);
        let is_meant = |slot: &SavedSlot| walk.used_since.is_none_or(|since| slot.proven && slot.since >= since);
        let looked = self.shard.chooser_mut().walk_sticky(self.standing.servers(), (who, group), most, |slot| {
            if is_meant(&slot) {
                write_slot(out, base, group, &slot);
                *records += 1;
            }
        });
        if looked == 0 {
            walk.at = At::Slots(place + 1);
        }
        looked
    }

    fn write_flows(&mut self, walk: &mut StateWalk, from: u32, most: usize, out: &mut Vec<u8>) -> usize {
        let mut looked = 0;
        let mut reached = None;
        // Half-open flows come first, and are passed over.
        for (index, used) in self.shard.table().slots(from.max(Table::position(0))) {
            if looked >= most {
                reached = Some(Table::position(index));
                break;
            }
            looked += 1;
            if used {
                self.write_flow(walk, index, out);
            }
        }
        walk.at = reached.map_or(At::Resting(0, Instant::ZERO, 0), At::Flows);
        looked
    }

    /// Writes the flow in a slot, which is in use.
    pub(super) fn write_flow(&self, walk: &mut StateWalk, index: u32, out: &mut Vec<u8>) {
        let table = self.shard.table();
        let Some(saved) = table.save(index) else { return };
        let slot = walk.is_copy.then_some(index);
        self.write_saved(walk, saved, (table.note(index), slot), out);
    }

    /// Writes a flow that keeps a note.
    pub(super) fn write_saved(
        &self,
        walk: &mut StateWalk,
        saved: SavedFlow,
        (note, slot): (u32, Option<u32>),
        out: &mut Vec<u8>,
    ) {
        let flow = &saved.flow;
        let of = (flow.service, flow.client.addresses.src());
        let kept = (flow.server_id, saved.proven, note);
        let known = (self.plan.roster(), self.standing.servers());
        FlowRecord {
            rule: Some(flow.rule).filter(|rule| *rule != NO_RULE).map(u32::from),
            nat_pool: Some(flow.nat_pool).filter(|pool| *pool != NO_POOL).map(u32::from),
            is_counted: self.shard.chooser().counts(known, of, kept),
            saved,
            slot,
        }
        .write(out, walk.base);
        walk.records += 1;
    }

    fn write_resting(
        &self,
        walk: &mut StateWalk,
        (pool, mut until, mut after): (usize, Instant, usize),
        most: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let Some(ports) = self.shard.nat_pools().get(pool) else {
            walk.at = At::End;
            return 0;
        };
        let mut looked = 0;
        for rest in ports.resting((until, after)).take(most) {
            after = if rest.until == until { after + 1 } else { 1 };
            until = rest.until;
            looked += 1;
            write_rest(out, walk.base, pool as u32, &rest);
            walk.records += 1;
        }
        walk.at = if looked < most { At::Resting(pool + 1, Instant::ZERO, 0) } else { At::Resting(pool, until, after) };
        looked
    }
}

impl StateWalk {
    /// Moves on over things from a place on, of which there are at most `most`; each tells whether it was written. Returns
    /// their number.
    fn on(
        &mut self,
        (from, most): (usize, usize),
        (here, then): (fn(usize) -> At, At),
        written: impl Iterator<Item = bool>,
    ) -> usize {
        let (mut looked, mut records) = (0, 0);
        for is_written in written {
            looked += 1;
            records += u64::from(is_written);
        }
        self.records += records;
        self.at = if looked < most { then } else { here(from + looked) };
        looked
    }

    fn name<'n>(
        &mut self,
        out: &mut Vec<u8>,
        kind: u8,
        names: impl Iterator<Item = &'n str>,
        (from, most): (usize, usize),
        places: (fn(usize) -> At, At),
    ) -> usize {
        let named = names.enumerate().skip(from).take(most).map(|(number, name)| {
            Named::new(number, name).write(out, kind);
            true
        });
        self.on((from, most), places, named)
    }
}

/// Names a group of services that share sticky slots: by its name, or by its only service.
fn group_name(plan: &Plan, group: u32) -> Option<Named<'_>> {
    let settings = plan.settings();
    let mut sticky = settings.services.iter().filter_map(|service| Some((service, service.sticky.as_ref()?)));
    let (service, of) = sticky.find(|(_, of)| of.group == group)?;
    let name = settings.sticky_groups.get(&group);
    let named = Named::new(group as usize, name.map_or(&service.name, |name| name));
    Some(Named { own: name.is_none(), by: Some(of.prefixes), ..named })
}

/// Returns the record of a server; none of a vacant slot.
fn server_record(plan: &Plan, number: u32, standing: impl Fn(ServerId) -> SavedServer) -> Option<ServerRecord<'_>> {
    let id = ServerId(number);
    let settings = plan.roster().server(id);
    let (pool, name) = plan.pool_and_server(id);
    let addresses = [settings.v4.map(IpAddr::V4), settings.v6.map(IpAddr::V6)];
    let record = ServerRecord { number, pool, name, addresses, port: settings.port, standing: standing(id) };
    (!name.is_empty()).then_some(record)
}
