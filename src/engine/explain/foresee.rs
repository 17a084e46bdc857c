//! A look whose step is not carried out, and the effect that carrying it out would have on the packet.
//!
//! If a look asks for something to be done first, its effect is laid over the state instead of changing it.

use super::super::arrival::Arrival;
use super::super::look::{Foresight, Going, Look, Without};
use super::super::standing::Standing;
use super::super::step::{ErrorOnward, Fate, Onward, Opening, Prepare, Scratch, Sign, Step};
use super::super::{Consumed, Ended, Engine, FlowRow, Forwarded, Reason, Verdict};
use crate::balance::Ask;
use crate::flow::{Found, Key, Mapping, Table};
use crate::ids::{NatPoolId, ServiceId};
use crate::packet::{Side, rewrite};
use crate::time::Instant;
use std::borrow::Cow;

/// The foreseen outcome of a packet: its verdict, and the bytes that would be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// Its verdict; none if the monitors or the fragment store decide.
    pub verdict: Option<Verdict>,
    /// The packet as it would be forwarded; as it arrived if it would not be.
    pub bytes: Vec<u8>,
    /// Packets of the gateway's own that would be queued.
    pub sends: Vec<Vec<u8>>,
}

/// A look at one packet, and everything that it depends on.
pub(super) struct Prospect<'e> {
    pub(super) engine: &'e Engine,
    pub(super) standing: Cow<'e, Standing>,
    pub(super) foresight: Foresight,
    pub(super) scratch: Scratch,
    /// Flows that end first, and why.
    pub(super) before: Vec<(FlowRow, Ended)>,
    /// The resets by which their ends hear of it.
    farewells: Vec<Vec<u8>>,
}

impl<'e> Prospect<'e> {
    pub(super) fn new(engine: &'e Engine) -> Self {
        Prospect {
            engine,
            standing: Cow::Borrowed(&engine.standing),
            foresight: Foresight::default(),
            scratch: Scratch::default(),
            before: Vec::new(),
            farewells: Vec::new(),
        }
    }

    pub(super) fn look(&self) -> Look<'_> {
        let Engine { plan, shard, .. } = self.engine;
        Look::new(plan, &self.standing, shard).foreseeing(&self.foresight)
    }

    /// Looks until nothing has to be done first.
    pub(super) fn step(&mut self, arrival: &Arrival<'_>) -> Step {
        let (now, mut calls) = (arrival.now, 0);
        loop {
            let mut scratch = std::mem::take(&mut self.scratch);
            let step = self.look().look(arrival, &mut scratch);
            self.scratch = scratch;
            match step {
                Step::Prepare(Prepare::Servers(stale)) => {
                    let (roster, standings) = (self.engine.plan.roster(), self.standing.servers());
                    self.foresight.overlay.refresh(now, self.engine.shard.chooser(), roster, standings, stale);
                }
                Step::Prepare(Prepare::Ports(pool)) => {
                    calls += 1;
                    self.free_ports(now, pool, calls);
                }
                Step::EndThenAgain { flow, cause, sign } => self.end(now, flow, cause, sign),
                step => return step,
            }
        }
    }

    /// Brings a service's groups up to date for display, even if the look did not get that far.
    pub(super) fn refresh(&mut self, now: Instant, service: ServiceId, key: &Key) {
        let Engine { plan, shard, .. } = self.engine;
        loop {
            let (roster, standings) = (plan.roster(), self.standing.servers());
            let overlay = Some(&self.foresight.overlay);
            let ask = Ask { now, roster, standings, service, key, overlay };
            let Some(stale) = shard.chooser().behind(&ask) else { return };
            self.foresight.overlay.refresh(now, shard.chooser(), roster, standings, stale);
        }
    }

    /// Counts ports that have rested as freed, as [`super::super::shard::Shard::prepare`] does.
    fn free_ports(&mut self, now: Instant, pool: NatPoolId, calls: usize) {
        self.foresight.given_back.rested = self.engine.shard.nat_pool(pool).to_give_back(now, calls);
        if let Some((_, draw, _)) = self.scratch.opening.nat.take() {
            self.foresight.draw = Some(draw);
        }
        self.scratch.has_freed_ports = true;
    }

    /// Counts a flow as ended.
    fn end(&mut self, now: Instant, slot: u32, cause: Ended, sign: Option<Sign>) {
        let Engine { plan, shard, .. } = self.engine;
        if let Some(Sign::Trouble(server)) = sign {
            self.standing.to_mut().servers_mut().trouble(plan.roster(), now, server);
            self.foresight.overlay.change(server);
        }
        let flow = shard.table().facts(slot);
        let client = shard.table().key(slot, Side::Client).addresses.src();
        self.before.push((shard.row(plan, now, slot), cause));
        self.farewells.extend(shard.farewell(now, slot, cause));
        self.foresight.given_back.ended = Some(Mapping::of_replies(&shard.table().key(slot, Side::Server)));
        let proven = shard.table().is_proven(slot);
        self.foresight.without = Some(Without { slot, rule: flow.rule, client, proven });
        self.foresight.overlay.end(flow.server_id, proven);
    }

    /// Returns the flow of a packet by which its client would have proved itself, but for a limit or for want of room.
    pub(super) fn without_room(&self, arrival: &Arrival<'_>, step: &Step) -> Option<Found> {
        let (Step::Settle(_), Some(key)) = (step, arrival.key()) else { return None };
        let ended = self.foresight.without.map(|without| without.slot);
        self.engine.shard.table().find(&key).filter(|found| Some(found.index) != ended)
    }

    /// Returns the flow, existing or foreseen, on whose behalf a step sends the packet on.
    pub(super) fn going(&self, step: &Step) -> Option<Going<'_>> {
        match step {
            Step::Hit(hit) => Some(Going::of_table(self.engine.shard.table(), hit.found)),
            Step::Error(error) => Some(Going::of_table(self.engine.shard.table(), error.found)),
            Step::Open(_) => {
                let Opening { new, from, .. } = &self.scratch.opening;
                new.as_ref().map(|(new, ..)| Going::of_new_from(new, *from))
            }
            _ => None,
        }
    }

    /// Applies the step's effect on the packet; returns its verdict.
    pub(super) fn apply(&self, arrival: &mut Arrival<'_>, step: &Step) -> Option<Verdict> {
        let table = self.engine.shard.table();
        let room = || self.scratch.opening.room.and_then(|room| room.victim).map(|(slot, _)| slot);
        let len = arrival.parsed.len;
        Some(match step {
            Step::Hit(hit) => {
                let flow =
                    if hit.leaves_half_open() { table.next_id(room(), false) } else { table.id(hit.found.index) };
                let why = Forwarded::Translated { flow, from: hit.found.side, opened: false };
                self.apply_onward(arrival, step, &hit.onward, why)
            }
            Step::Open(onward) => {
                let half_open = self.scratch.opening.new.as_ref().is_some_and(|(new, ..)| new.half_open);
                // The slot that is freed last is used first.
                let ended = [room(), self.scratch.opening.yields, self.foresight.without.map(|without| without.slot)];
                let freed = ended.into_iter().flatten().find(|slot| Table::is_half_open(*slot) == half_open);
                let flow = table.next_id(freed, half_open);
                let why = Forwarded::Translated { flow, from: self.scratch.opening.from, opened: true };
                self.apply_onward(arrival, step, onward, why)
            }
            Step::Settle(settled) | Step::Stop(settled) => verdict(settled.fate, len),
            Step::EndByReset { .. } => Verdict::Consume(Consumed::ServerDown),
            Step::Disown { .. } => Verdict::Drop(Reason::TcpNoFlow),
            Step::Error(error) => {
                let why = Forwarded::Error { flow: table.id(error.found.index), from: error.found.side };
                match &error.onward {
                    ErrorOnward::Rewrite { about, outer, inner, id } => {
                        if let Some(id) = id {
                            rewrite::identification(&mut arrival.bytes[about.at..], *id);
                        }
                        rewrite::error(arrival.bytes, arrival.parsed, about, outer, inner);
                        Verdict::Forward { len, why }
                    }
                    ErrorOnward::Emit => Verdict::Emit { why },
                    ErrorOnward::Stop { settled, .. } => verdict(settled.fate, len),
                }
            }
            Step::Probe | Step::Fragment { .. } => return None,
            Step::Prepare(_) | Step::EndThenAgain { .. } => {
                debug_assert!(false, "a step that is not the last");
                return None;
            }
        })
    }

    fn apply_onward(&self, arrival: &mut Arrival<'_>, step: &Step, onward: &Onward, why: Forwarded) -> Verdict {
        let (len, partial) = (arrival.parsed.len, arrival.meta.partial_checksum);
        match *onward {
            Onward::Rewrite { mss, id } => {
                if let Some(most) = mss {
                    rewrite::clamp_mss(arrival.bytes, arrival.parsed, most, partial);
                }
                if let Some(going) = self.going(step) {
                    rewrite::translate(arrival.bytes, arrival.parsed, &going.translation(), partial);
                }
                if let Some(id) = id {
                    rewrite::identification(arrival.bytes, id);
                }
                Verdict::Forward { len, why }
            }
            Onward::Emit { .. } => Verdict::Emit { why },
            Onward::Stop { settled, .. } => verdict(settled.fate, len),
        }
    }

    /// Returns the packets that carrying out the step at `now` would queue.
    pub(super) fn sends(&self, now: Instant, step: &Step) -> Vec<Vec<u8>> {
        let mut all = self.farewells.clone();
        let opening = &self.scratch.opening;
        let makes_room = match step {
            Step::Hit(hit) => hit.leaves_half_open(),
            Step::Open(_) | Step::Settle(_) => true,
            _ => false,
        };
        let victim = opening.short.and(opening.room).filter(|_| makes_room).and_then(|room| room.victim);
        if let Some((victim, _)) = victim {
            all.extend(self.engine.shard.farewell(now, victim, Ended::Evicted));
        }
        all.extend(self.answers(step));
        all
    }

    /// Returns the packets that the step itself sends.
    fn answers(&self, step: &Step) -> Vec<Vec<u8>> {
        use super::super::step::Reply;
        let emitted = || self.scratch.emission.packets().map(|(packet, _)| packet.to_vec()).collect();
        let onward = match step {
            Step::Hit(hit) => &hit.onward,
            Step::Open(onward) => onward,
            Step::Settle(settled) | Step::Stop(settled) => {
                return if settled.reply == Reply::None { Vec::new() } else { emitted() };
            }
            Step::EndByReset { flow, .. } => return self.engine.shard.resets(*flow),
            Step::Error(error) if matches!(error.onward, ErrorOnward::Emit) => return emitted(),
            _ => return Vec::new(),
        };
        match onward {
            Onward::Rewrite { .. } => Vec::new(),
            Onward::Stop { settled, .. } if settled.reply == Reply::None => Vec::new(),
            _ => emitted(),
        }
    }
}

fn verdict(fate: Fate, len: usize) -> Verdict {
    match fate {
        Fate::Foreign | Fate::Direct => Verdict::Forward { len, why: Forwarded::Foreign },
        Fate::Consume(kind) => Verdict::Consume(kind),
        Fate::Drop(reason) => Verdict::Drop(reason),
    }
}
