//! Carries out a step: counts, takes, creates flows and rewrites packets, and decides nothing.

use super::super::arrival::Arrival;
use super::super::look::{segment, touched_state};
use super::super::plan::Plan;
use super::super::standing::Standing;
use super::super::step::{ErrorOnward, Fate, FlowError, Follow, Hit, Onward, Opening, Reply, Scratch, Settled};
use super::super::{Ended, Event, Forwarded, Short, Verdict};
use super::Shard;
use crate::balance::PickedBy;
use crate::flow::{Found, Mapping, NewFlow, Track};
use crate::ids::{ServerId, ServiceId};
use crate::packet::{Side, Transport, rewrite};
use crate::time::{Duration, Instant};

/// For how long the pressure on a priority is not reported again.
const QUIET: Duration = Duration::from_secs(60);

impl Shard {
    /// Sends on a packet of a flow that is only rewritten.
    #[inline]
    pub(in crate::engine) fn carry_plain(&mut self, arrival: &mut Arrival<'_>, found: Found) -> Verdict {
        if let Transport::Tcp { .. } = arrival.parsed.transport {
            self.table.on_segment(arrival.now, found.index, found.side, &segment(arrival));
        } else {
            let state = touched_state(arrival, found.side, self.table.flow(found.index).state());
            self.table.on_datagram(arrival.now, found, state);
        }
        let translation = self.table.translation_plain(found.index, found.side);
        rewrite::translate(arrival.bytes, arrival.parsed, &translation, arrival.meta.partial_checksum);
        let len = arrival.parsed.len;
        let (packets, bytes) = (arrival.packets, len as u64);
        let whose = self.table.count_plain(found, packets, bytes);
        self.count_traffic(whose, found.side, packets, bytes);
        self.mind_path(arrival.now, found);
        let why = Forwarded::Translated { flow: self.table.id_plain(found.index), from: found.side, opened: false };
        Verdict::Forward { len, why }
    }

    /// Sends a packet of a flow on, or stops it.
    #[inline]
    pub(in crate::engine) fn carry_hit(
        &mut self,
        of: (&Plan, &Standing),
        arrival: &mut Arrival<'_>,
        hit: &Hit,
        scratch: &Scratch,
    ) -> Verdict {
        if hit.leaves_half_open() {
            self.carry_room(of, arrival.now, &scratch.opening);
        }
        self.carry_onward(of, arrival, (hit.found, false), &hit.follow, &hit.onward, scratch)
    }

    #[inline]
    fn carry_onward(
        &mut self,
        of: (&Plan, &Standing),
        arrival: &mut Arrival<'_>,
        (mut found, opened): (Found, bool),
        follow: &Follow,
        onward: &Onward,
        scratch: &Scratch,
    ) -> Verdict {
        if onward.goes_on() {
            match follow {
                Follow::Tcp(track) => {
                    found.index = self.follow(of, arrival.now, found.index, track);
                    self.mind_path(arrival.now, found);
                }
                // A flow that has just been created is as it should be.
                Follow::Touch(_) if opened => {}
                Follow::Touch(state) => {
                    let proven = self.table.is_proven(found.index);
                    self.table.on_datagram(arrival.now, found, *state);
                    self.note_proof(of, arrival.now, found.index, proven);
                }
            }
        }
        let why = Forwarded::Translated { flow: self.table.id(found.index), from: found.side, opened };
        let len = arrival.parsed.len;
        match *onward {
            Onward::Rewrite { mss, id } => {
                let partial = arrival.meta.partial_checksum;
                if let Some(most) = mss {
                    rewrite::clamp_mss(arrival.bytes, arrival.parsed, most, partial);
                }
                let translation = match &scratch.opening.new {
                    // The store of half-open flows keeps no deltas: the table would have to unpack the keys for them.
                    Some((new, ..)) if opened && new.half_open => new.translation(found.side),
                    _ => self.table.translation(found.index, found.side),
                };
                rewrite::translate(arrival.bytes, arrival.parsed, &translation, partial);
                if let Some(id) = id {
                    rewrite::identification(arrival.bytes, id);
                }
                self.count_in_flow(found, arrival.packets, len as u64);
                Verdict::Forward { len, why }
            }
            Onward::Emit { ids } => {
                self.take_identifications(ids);
                self.emit(scratch);
                self.count_in_flow(found, arrival.packets, len as u64);
                Verdict::Emit { why }
            }
            Onward::Stop { settled, ids } => {
                self.take_identifications(ids);
                self.settle(arrival, settled, scratch)
            }
        }
    }

    /// Updates a flow's tracker and state; returns its slot, which changes when its handshake is complete.
    #[inline]
    fn follow(&mut self, of: (&Plan, &Standing), now: Instant, index: u32, track: &Track) -> u32 {
        let (was, proven) = (self.table.id(index), self.table.is_proven(index));
        let index = self.table.follow(now, index, track);
        if index != was.index && self.reports_flows {
            self.report(Event::FlowEstablished { was, id: self.table.id(index) });
        }
        self.note_proof(of, now, index, proven);
        index
    }

    /// Records that a flow's client has proved itself, if it had not before.
    #[inline]
    fn note_proof(&mut self, of: (&Plan, &Standing), now: Instant, index: u32, before: bool) {
        if !before && self.table.is_proven(index) {
            self.proven(of, now, index);
        }
    }

    /// Records that a flow's client has proved itself: from here on the flow counts in limits, and no new flow takes its
    /// NAT port from it.
    #[cold]
    fn proven(&mut self, (plan, standing): (&Plan, &Standing), now: Instant, index: u32) {
        let flow = self.table.facts(index);
        let client = self.table.key(index, Side::Client).addresses.src();
        let pick = (flow.server_id, super::upkeep::PICKED_BY[usize::from(flow.picked_by)]);
        let of = (plan.roster(), standing.servers());
        let kept = (flow.created, self.table.note(index));
        let ticket = self.chooser.proven(now, of, (flow.service, client), pick, kept);
        self.table.set_note(index, ticket);
        self.policy.proven(plan.rules(), flow.rule, (client, flow.created));
        if let Some(pool) = self.nat_pools.get_mut(usize::from(flow.nat_pool)) {
            pool.established(&Mapping::of_replies(&self.table.key(index, Side::Server)));
        }
    }

    /// Counts packets sent by one side of a flow.
    #[inline]
    pub(super) fn count_in_flow(&mut self, found: Found, packets: u64, bytes: u64) {
        self.table.count_packets(found, packets, bytes);
        self.count_traffic(self.table.whose(found.index), found.side, packets, bytes);
    }

    /// Counts packets at the server and the service of a flow.
    #[inline]
    pub(super) fn count_traffic(
        &mut self,
        (server, service): (ServerId, ServiceId),
        side: Side,
        packets: u64,
        bytes: u64,
    ) {
        let of_server = &mut self.traffic[server.0 as usize].0[side as usize];
        let of_service = &mut self.services[service.0 as usize].traffic[side as usize];
        for [all_packets, all_bytes] in [of_server, of_service] {
            *all_packets += packets;
            *all_bytes += bytes;
        }
    }

    /// Creates a flow, and sends the packet that opens it on.
    pub(in crate::engine) fn carry_open(
        &mut self,
        (plan, standing): (&Plan, &Standing),
        arrival: &mut Arrival<'_>,
        onward: &Onward,
        scratch: &Scratch,
    ) -> Verdict {
        self.carry_opening((plan, standing), arrival, &scratch.opening);
        let Some((new, by, follow)) = &scratch.opening.new else {
            debug_assert!(false, "a step that opens a flow lacks it");
            return Verdict::Drop(super::super::Reason::NoServer);
        };
        let index = self.insert((plan, standing), arrival, new, *by);
        let found = Found { index, side: scratch.opening.from };
        let of = (plan, standing);
        let verdict = self.carry_onward(of, arrival, (found, true), follow, onward, scratch);
        if self.reports_flows {
            let flow = Box::new(self.row(plan, arrival.now, index));
            self.report(Event::FlowOpened(flow));
        }
        verdict
    }

    fn insert(
        &mut self,
        (plan, standing): (&Plan, &Standing),
        arrival: &Arrival<'_>,
        new: &NewFlow,
        by: PickedBy,
    ) -> u32 {
        let index = self.table.insert(arrival.now, new);
        if let Some(pool) = self.nat_pools.get_mut(usize::from(new.nat_pool)) {
            pool.take(&Mapping::of_replies(&new.server), new.is_tentative());
        }
        self.totals.opened += 1;
        self.flows_total[new.server_id.0 as usize] += 1;
        let totals = &mut self.services[new.service.0 as usize];
        totals.flows += 1;
        totals.flows_total += 1;
        let client = new.client.addresses.src();
        let pick = (new.server_id, by);
        let ticket = self.chooser.opened(arrival.now, plan.roster(), standing.servers(), (new.service, client), pick);
        self.table.set_note(index, ticket);
        self.policy.opened(new.rule);
        index
    }

    /// Takes what a packet without a flow uses of rules, limits, algorithms and NAT pools, whatever its outcome.
    pub(in crate::engine) fn carry_opening(
        &mut self,
        (plan, standing): (&Plan, &Standing),
        arrival: &Arrival<'_>,
        opening: &Opening,
    ) {
        self.policy.matched(opening.rule);
        let Some(service) = opening.service else {
            // A client that has proved itself to no effect has no service here: its flow is known.
            if let Some(flow) = opening.stalled {
                self.table.stall(flow);
            }
            self.policy.refused(opening.refused_by);
            return self.carry_room((plan, standing), arrival.now, opening);
        };
        self.policy.take(opening.rule, &opening.takes);
        if let Some((priority, of)) = opening.pressure {
            let reported = &mut self.pressures.0[priority as usize][of as usize];
            if reported.is_none_or(|reported| arrival.now.since(reported) >= QUIET) {
                *reported = Some(arrival.now);
                self.report(Event::Pressure { priority, of });
            }
        }
        opening.picks.iter().for_each(|proposed| self.chooser.picked(plan.roster(), *proposed));
        let v6 = arrival.parsed.addresses.is_v6();
        self.chooser.drawn(plan.roster(), service, v6, &opening.draws);
        if let Some((pool, draw, exhausted)) = &opening.nat {
            let pool = &mut self.nat_pools[pool.0 as usize];
            pool.drawn(draw.clone());
            if *exhausted {
                pool.count_exhausted();
            }
        }
        self.carry_room((plan, standing), arrival.now, opening);
    }

    /// Makes room where there was none, or counts that there is none.
    fn carry_room(&mut self, of: (&Plan, &Standing), now: Instant, opening: &Opening) {
        if let Some(over) = opening.yields {
            self.end_yielding(of, now, over);
        }
        let (Some(short), Some(room)) = (opening.short, &opening.room) else { return };
        self.table.pass_over(room);
        let victim = room.victim;
        let max = match short {
            Short::Table => self.table.max(),
            Short::HalfOpen => self.table.half_open().1,
            Short::Ports => opening.nat.as_ref().map_or(0, |(pool, ..)| self.nat_pools[pool.0 as usize].half()),
        };
        if self.pressure.note(now, short, victim.map(|(_, class)| class)) {
            self.report(Event::Full { what: short, max });
        }
        if let Some((victim, _)) = victim {
            if short == Short::Ports
                && let Some(pool) = self.nat_pools.get_mut(usize::from(self.table.facts(victim).nat_pool))
            {
                pool.yield_port(&Mapping::of_replies(&self.table.key(victim, Side::Server)));
            }
            self.forget(of, now, victim, Ended::Evicted);
        }
    }

    /// Settles a packet that is not sent on for a flow, and sends the answer, if any.
    pub(in crate::engine) fn settle(&mut self, arrival: &Arrival<'_>, settled: Settled, scratch: &Scratch) -> Verdict {
        match settled.reply {
            Reply::None => {}
            Reply::Unlimited => self.emit(scratch),
            Reply::Limited(whom) => {
                self.answers.charge(arrival.now, whom);
                self.emit(scratch);
            }
        }
        match settled.fate {
            Fate::Foreign => Verdict::Forward { len: arrival.parsed.len, why: Forwarded::Foreign },
            Fate::Direct => {
                if let Some(key) = arrival.key() {
                    self.table.note_direct(&key);
                }
                Verdict::Forward { len: arrival.parsed.len, why: Forwarded::Foreign }
            }
            Fate::Consume(kind) => Verdict::Consume(kind),
            Fate::Drop(reason) => Verdict::Drop(reason),
        }
    }

    /// Sends an ICMP error about a packet of a flow on.
    pub(in crate::engine) fn carry_error(
        &mut self,
        arrival: &mut Arrival<'_>,
        error: &FlowError,
        scratch: &Scratch,
    ) -> Verdict {
        let why = Forwarded::Error { flow: self.table.id(error.found.index), from: error.found.side };
        match &error.onward {
            ErrorOnward::Rewrite { about, outer, inner, id } => {
                if let Some(id) = id {
                    rewrite::identification(&mut arrival.bytes[about.at..], *id);
                }
                rewrite::error(arrival.bytes, arrival.parsed, about, outer, inner);
                Verdict::Forward { len: arrival.parsed.len, why }
            }
            ErrorOnward::Emit => {
                self.take_identifications(1);
                self.emit(scratch);
                Verdict::Emit { why }
            }
            ErrorOnward::Stop { settled, ids } => {
                self.take_identifications(*ids);
                self.settle(arrival, *settled, scratch)
            }
        }
    }

    fn take_identifications(&mut self, ids: u32) {
        self.last_identification = self.last_identification.wrapping_add(ids);
    }

    pub(super) fn emit(&mut self, scratch: &Scratch) {
        for (packet, meta) in scratch.emission.packets() {
            self.answers.send(packet, meta);
        }
    }
}
