//! Reading a state into an engine that follows another plan: names become slots, ages become times.
//!
//! What the plan does not have any more is left out, and counted: a flow whose service, server or NAT address is gone, a
//! sticky slot whose server or group is, a resting port whose pool is. Rules only count, so a flow stays without its rule.

mod guests;
mod peer;

pub use peer::{HalfOffer, Offer, PeerRecord, Taking};

use super::super::Engine;
use super::super::plan::{Names, Plan};
use super::VERSION;
use super::record::{
    Base, FlowRecord, Head, Named, ServerRecord, Skipped, kind, read_end, read_gone, read_rest, read_slot, read_verdict,
};
use super::wire::{Fields, next_record};
use crate::balance::Prefixes;
use crate::flow::{NO_POOL, Rest, SavedFlow, SavedSlot};
use crate::health::SavedVerdict;
use crate::ids::{FlowId, NatPoolId, ServerId, ServiceId};
use crate::policy::NO_RULE;
use crate::time::{Duration, Instant};
use guests::Guests;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

crate::words::words! {
    /// Why a flow of a state is not in the engine.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Lost {
        /// Its service is not configured any more.
        Service = "its service is gone",
        /// Its server is not configured any more, or has another address or port.
        Server = "its server is gone",
        /// The address that its server answers to belongs to no NAT pool any more.
        NatAddress = "its NAT address is gone",
        /// Its timeout is over.
        Expired = "expired meanwhile",
        /// Another flow has its port, or the port is outside the range of its NAT pool.
        Port = "its NAT port is not free",
        /// The table is full.
        Room = "no room in the table",
        /// Its record makes no sense.
        Unreadable = "not readable",
    }
}

/// Why a state cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateError {
    /// It is of another version; nothing has been read.
    Version(u64),
    /// It does not begin as a state does; nothing has been read.
    NoState,
    /// It is not whole: it ends before its end, or has lost records.
    NotWhole,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Version(version) => {
                write!(f, "it has version {version} of the format, and this program reads version {VERSION}")
            }
            StateError::NoState => f.write_str("it does not begin like a state"),
            StateError::NotWhole => f.write_str("it is not whole"),
        }
    }
}

impl std::error::Error for StateError {}

/// What became of a state.
///
/// Its `Display` is one line: `1042 flows, 12 sticky clients and 3 resting ports; left out 3 flows (its server is gone)`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Flows that go on.
    pub flows: u64,
    /// Flows that do not, by [`Lost`].
    pub lost: [u64; Lost::ALL.len()],
    /// Sticky slots that were made again, and those that were not.
    pub slots: [u64; 2],
    /// Ports that go on resting, and those that do not.
    pub resting: [u64; 2],
    /// Servers that are known, and those that are not.
    pub servers: [u64; 2],
    /// Verdicts of monitors that hold, and those that nobody gives any more.
    pub verdicts: [u64; 2],
    /// Records and fields of a kind that this version does not know.
    pub skipped: u64,
    /// Records of a known kind that make no sense, other than flows.
    pub unreadable: u64,
}

impl Loaded {
    /// Returns how many flows do not go on.
    pub fn lost(&self) -> u64 {
        self.lost.iter().sum()
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} flows, {} sticky clients and {} resting ports", self.flows, self.slots[0], self.resting[0])?;
        let flows = Lost::ALL.iter().zip(self.lost).map(|(why, count)| (count, "flows", why.name()));
        let others = [
            (self.slots[1], "sticky clients", "over, or server or service gone"),
            (self.resting[1], "resting ports", "in use, or pool gone"),
            (self.servers[1], "servers", "gone"),
            (self.verdicts[1], "verdicts of monitors", "monitor gone"),
            (self.skipped, "records or fields", "unknown to this version"),
            (self.unreadable, "records", "not readable"),
        ];
        let mut before = "; left out";
        for (count, what, why) in flows.chain(others).filter(|(count, ..)| *count > 0) {
            write!(f, "{before} {count} {what} ({why})")?;
            before = ",";
        }
        Ok(())
    }
}

/// What the numbers of a state stand for here; none for what is gone.
#[derive(Debug, Default)]
struct Numbers {
    services: BTreeMap<u32, Option<ServiceId>>,
    servers: BTreeMap<u32, Option<ServerId>>,
    nat_pools: BTreeMap<u32, Option<NatPoolId>>,
    rules: BTreeMap<u32, Option<u16>>,
    groups: BTreeMap<u32, Option<(u32, Prefixes)>>,
}

impl Numbers {
    /// Returns the slot of a server, unless the plan that the engine follows since it was named has no such slot any more.
    fn server(&self, plan: &Plan, number: ServerId) -> Option<ServerId> {
        self.servers.get(&number.0).copied().flatten().filter(|server| plan.roster().has(*server))
    }
}

/// A state that is being read into one engine.
#[derive(Debug)]
pub struct StateLoad {
    base: Base,
    head: Option<Head>,
    names: Option<Arc<Names>>,
    numbers: Numbers,
    records: u64,
    is_whole: bool,
    is_outdated: bool,
    skipped: Skipped,
    loaded: Loaded,
    /// Whether names are read without what else their records say.
    names_only: bool,
    /// Of a peer: what is not here.
    guests: Option<Guests>,
    /// What became of the flows of a copy, by their slots there.
    slots: BTreeMap<u32, Result<FlowId, Lost>>,
}

impl StateLoad {
    /// Begins to read a state whose own time was `at` on the engine's clock.
    pub fn new(at: Instant) -> Self {
        StateLoad {
            base: Base(at),
            head: None,
            names: None,
            numbers: Numbers::default(),
            records: 0,
            is_whole: false,
            is_outdated: false,
            skipped: Skipped::default(),
            loaded: Loaded::default(),
            names_only: false,
            guests: None,
            slots: BTreeMap::new(),
        }
    }

    /// Notes that packets were forwarded after the state's time, even if it says that it is the last one.
    pub fn outdated(&mut self) {
        self.is_outdated = true;
    }

    /// Returns what has become of the state so far.
    pub fn loaded(&self) -> Loaded {
        let mut loaded = self.loaded.clone();
        loaded.skipped += self.skipped.0;
        loaded
    }
}

impl Engine {
    /// Reads the complete records at the begin of `bytes`; returns how many bytes they have. The engine should have no
    /// flow yet, and must not have handled a packet or timeout.
    ///
    /// # Errors
    /// [`StateError`] if it is no state, or one of another version. Nothing has changed then.
    pub fn load_state(&mut self, load: &mut StateLoad, now: Instant, bytes: &[u8]) -> Result<usize, StateError> {
        let mut rest = bytes;
        while let Some((kind, fields)) = next_record(&mut rest) {
            if load.head.is_none() {
                let head = (kind == kind::HEAD).then(|| Head::read(fields, &mut load.skipped)).flatten();
                let head = head.ok_or(StateError::NoState)?;
                if head.version != VERSION {
                    return Err(StateError::Version(head.version));
                }
                self.shard.expect_saved(now);
                let of_peer = load.guests.is_some();
                let own = || if of_peer { self.plan.names() } else { Arc::new(Names::of(&self.plan)) };
                load.names = Some(load.names.take().unwrap_or_else(own));
                load.head = Some(head);
            } else if self.load_record(load, now, kind, fields).is_none() {
                match kind {
                    kind::FLOW => load.loaded.lost[Lost::Unreadable as usize] += 1,
                    _ => load.loaded.unreadable += 1,
                }
            }
            load.records += 1;
        }
        Ok(bytes.len() - rest.len())
    }

    /// Ends the reading of a state: from now on the verdicts of its monitors hold. What has been read of a copy of a million
    /// flows takes tens of milliseconds to drop.
    ///
    /// # Errors
    /// [`StateError::NotWhole`] if records are missing. Those that were read hold all the same.
    pub fn end_load(&mut self, load: &StateLoad, now: Instant) -> Result<Loaded, StateError> {
        self.monitors.recalled(now);
        for server in self.plan.order().servers.clone() {
            self.take_state(now, server);
            let gone = self.standing.settle(&self.plan, server);
            self.follow_gone(now, gone);
        }
        self.take_health(now);
        self.advance();
        if load.is_whole {
            return Ok(load.loaded());
        }
        if load.head.as_ref().is_some_and(|head| head.is_copy) {
            // It would have learned of later packets.
            self.shard.fall_behind();
        }
        Err(StateError::NotWhole)
    }

    /// Reads a record; none if it makes no sense.
    fn load_record(&mut self, load: &mut StateLoad, now: Instant, kind: u8, fields: Fields<'_>) -> Option<()> {
        let StateLoad { base, names: Some(names), numbers, skipped, loaded, slots, guests, .. } = load else {
            return None;
        };
        let (base, names_only) = (*base, load.names_only);
        match kind {
            kind::SERVICE => load_service(names, numbers, guests, &Named::read(fields, skipped)?),
            kind::NAT_POOL => {
                let named = Named::read(fields, skipped)?;
                numbers.nat_pools.insert(named.number, names.nat_pool(named.name));
            }
            kind::RULE => self.load_rule(names, numbers, &Named::read(fields, skipped)?, names_only),
            kind::GROUP => {
                let named = Named::read(fields, skipped)?;
                numbers.groups.insert(named.number, group(names, &named));
            }
            kind::SERVER => {
                let record = ServerRecord::read(fields, base, skipped)?;
                self.load_server((names, numbers, loaded, guests), now, &record, names_only)
            }
            kind::VERDICT => {
                let saved = read_verdict(fields, base, skipped)?;
                let known = self.load_verdict(numbers, now, saved);
                loaded.verdicts[usize::from(!known)] += 1;
            }
            kind::SLOT => {
                let (group, slot) = read_slot(fields, base, skipped)?;
                let restored = self.load_slot(numbers, now, group, slot);
                loaded.slots[usize::from(!restored)] += 1;
            }
            kind::FLOW | kind::HALF_OPEN => {
                let record = FlowRecord::read((kind, fields), base, skipped)?;
                let is_behind =
                    load.is_outdated || load.head.as_ref().is_some_and(|head| !head.is_final && !head.is_copy);
                self.load_flow((numbers, slots, loaded), now, record, is_behind);
            }
            kind::GONE => {
                let gone = slots.remove(&read_gone(fields, skipped)?);
                self.load_end(loaded, now, gone);
            }
            kind::REST => {
                let (pool, rest) = read_rest(fields, base, skipped)?;
                let rests = self.load_rest(numbers, now, pool, rest);
                loaded.resting[usize::from(!rests)] += 1;
            }
            kind::END => load.is_whole = read_end(fields, skipped)? == load.records,
            kind::FIRST_NOTE..=kind::LAST_NOTE => {}
            _ => skipped.0 += 1,
        }
        Some(())
    }

    /// Notes a rule, and switches it as it was, unless the configuration has changed that.
    fn load_rule(&mut self, names: &Names, numbers: &mut Numbers, named: &Named<'_>, names_only: bool) {
        let found = names.rule(named.name);
        numbers.rules.insert(named.number, found);
        let configured = found.and_then(|rule| Some((rule, self.plan.rules().get(rule)?.enabled)));
        let configured = configured.filter(|_| !names_only);
        if let Some((rule, _)) = configured.filter(|(_, enabled)| *enabled == named.switch[1]) {
            self.standing.switch(rule, named.switch[0]);
        }
    }

    fn load_server(
        &mut self,
        (names, numbers, loaded, guests): (&Names, &mut Numbers, &mut Loaded, &mut Option<Guests>),
        now: Instant,
        record: &ServerRecord<'_>,
        names_only: bool,
    ) {
        let found = names.server(&self.plan, (record.pool, record.name), (record.addresses, record.port));
        if let Some(guests) = guests.as_mut().filter(|_| found.is_none()) {
            guests.note(record);
        }
        // In a copy it comes twice.
        if numbers.servers.insert(record.number, found).is_none() {
            loaded.servers[usize::from(found.is_none())] += 1;
        } else {
            // And so do the verdicts, behind it.
            loaded.verdicts = [0; 2];
        }
        if let Some(server) = found.filter(|_| !names_only) {
            self.standing.servers_mut().restore(self.plan.roster(), now, server, &record.standing);
        }
    }

    /// Returns whether a verdict holds here: its server and monitor are known.
    fn load_verdict(&mut self, numbers: &Numbers, now: Instant, saved: SavedVerdict) -> bool {
        let server = numbers.server(&self.plan, saved.server);
        server
            .is_some_and(|server| self.monitors.recall(&SavedVerdict { server, since: saved.since.min(now), ..saved }))
    }

    /// Returns whether a sticky slot could be made again: its server and group are known.
    fn load_slot(&mut self, numbers: &Numbers, now: Instant, group: u32, slot: SavedSlot) -> bool {
        let server = numbers.server(&self.plan, slot.server);
        let group = numbers.groups.get(&group).copied().flatten();
        server.zip(group).is_some_and(|(server, (group, prefixes))| {
            let (since, given) = (slot.since.min(now), slot.given.min(now));
            let slot = SavedSlot { server, since, given, ..slot };
            prefixes.of(slot.client) == slot.client
                && self.shard.chooser_mut().restore_slot(now, self.standing.servers(), group, &slot)
        })
    }

    /// Returns whether a port goes on resting here.
    fn load_rest(&mut self, numbers: &Numbers, now: Instant, pool: u32, rest: Rest) -> bool {
        let pool = self.nat_pool_of(numbers, pool, rest.mapping.address);
        // A port that rested for ever would keep all that are freed after it.
        let rest = Rest { until: rest.until.min(now + LONGEST_REST), ..rest };
        rest.until > now
            && pool.is_some_and(|pool| self.shard.restore_rest((&self.plan, &self.standing), now, pool, &rest))
    }

    /// Ends a flow of a copy that has ended there.
    fn load_end(&mut self, loaded: &mut Loaded, now: Instant, gone: Option<Result<FlowId, Lost>>) {
        match gone {
            Some(Ok(id)) => {
                self.shard.end_renewed((&self.plan, &self.standing), now, id);
                loaded.flows -= 1;
            }
            Some(Err(why)) => loaded.lost[why as usize] -= 1,
            None => {}
        }
    }

    /// Makes a flow, or makes the one of the same slot what this record says.
    fn load_flow(
        &mut self,
        (numbers, slots, loaded): (&Numbers, &mut BTreeMap<u32, Result<FlowId, Lost>>, &mut Loaded),
        now: Instant,
        record: FlowRecord,
        is_behind: bool,
    ) {
        let of = (&*self.plan, &self.standing);
        let before = record.slot.and_then(|slot| slots.remove(&slot));
        match before {
            Some(Ok(_)) => loaded.flows -= 1,
            Some(Err(why)) => loaded.lost[why as usize] -= 1,
            None => {}
        }
        let saved = self.flow_here(numbers, now, &record).map(|saved| SavedFlow { is_behind, ..saved });
        let result = match (before, saved) {
            (Some(Ok(id)), Ok(saved)) if self.shard.renew_flow(of, now, id, (&saved, record.is_counted)) => Ok(id),
            (before, Err(why)) => {
                if let Some(Ok(id)) = before {
                    self.shard.end_renewed(of, now, id);
                }
                Err(why)
            }
            (_, Ok(saved)) => self.shard.restore_flow(of, now, &saved, record.is_counted),
        };
        match result {
            Ok(_) => loaded.flows += 1,
            Err(why) => loaded.lost[why as usize] += 1,
        }
        if let Some(slot) = record.slot {
            slots.insert(slot, result);
        }
    }

    /// Returns the flow of a record as one of this engine.
    fn flow_here(&self, numbers: &Numbers, now: Instant, record: &FlowRecord) -> Result<SavedFlow, Lost> {
        let mut saved = record.saved;
        let service = numbers.services.get(&saved.flow.service.0).copied().flatten();
        let has = |service: &ServiceId| (service.0 as usize) < self.plan.settings().services.len();
        let service = service.filter(has).ok_or(Lost::Service)?;
        let server = numbers.server(&self.plan, saved.flow.server_id).ok_or(Lost::Server)?;
        let (replies, own) = (saved.flow.server.addresses.src(), self.plan.roster().server(server));
        if ![own.v4.map(IpAddr::V4), own.v6.map(IpAddr::V6)].contains(&Some(replies)) {
            return Err(Lost::Unreadable);
        }
        saved.flow.nat_pool = match record.nat_pool {
            None => NO_POOL,
            Some(number) => {
                let pool = self.nat_pool_of(numbers, number, saved.flow.server.addresses.dst());
                pool.ok_or(Lost::NatAddress)?.0 as u16
            }
        };
        let key = &saved.flow.client;
        saved.flow.profile = self.plan.service(service).profile(key.protocol, key.dst_port);
        saved.flow.rule = record.rule.and_then(|rule| numbers.rules.get(&rule).copied().flatten()).unwrap_or(NO_RULE);
        (saved.flow.service, saved.flow.server_id) = (service, server);
        (saved.touched, saved.created) = (saved.touched.min(now), saved.created.min(now));
        Ok(saved)
    }
}

/// The longest that `hold` can be.
const LONGEST_REST: Duration = Duration::from_secs(3600);

impl Engine {
    /// Returns the pool that has a NAT address: the one of that name, or another one, as names and addresses may have moved.
    fn nat_pool_of(&self, numbers: &Numbers, number: u32, address: IpAddr) -> Option<NatPoolId> {
        let owns = |id: &NatPoolId| self.shard.nat_pools().get(id.0 as usize).is_some_and(|pool| pool.owns(address));
        let named = numbers.nat_pools.get(&number).copied().flatten().filter(owns);
        named.or_else(|| (0..self.shard.nat_pools().len() as u32).map(NatPoolId).find(owns))
    }
}

/// Notes a service, and for a peer that it is not here.
fn load_service(names: &Names, numbers: &mut Numbers, guests: &mut Option<Guests>, named: &Named<'_>) {
    let found = names.service(named.name);
    if let Some(guests) = guests.as_mut().filter(|_| found.is_none()) {
        guests.note_service(named.name);
    }
    numbers.services.insert(named.number, found);
}

/// Returns the group of services that share sticky slots of this name, and by which network of a client.
fn group(names: &Names, named: &Named<'_>) -> Option<(u32, Prefixes)> {
    // By other networks, other clients would share a slot.
    names.group(named.name, named.own).filter(|(_, prefixes)| named.by.is_none_or(|by| by == *prefixes))
}
