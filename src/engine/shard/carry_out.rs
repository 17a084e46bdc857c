//! Carries out a step: counts, takes, creates flows and rewrites packets, and decides nothing.

use super::super::arrival::Arrival;
use super::super::look::{segment, touched_state};
use super::super::plan::Plan;
use super::super::standing::Standing;
use super::super::step::{ErrorOnward, Fate, FlowError, Follow, Hit, Onward, Opening, Reply, Scratch, Settled};
use super::super::{Ended, Event, Forwarded, Verdict};
use super::Shard;
use crate::balance::PickedBy;
use crate::flow::{Found, NewFlow};
use crate::packet::{Side, Transport, rewrite};
use crate::time::Duration;

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
            self.table.touch(arrival.now, found.index, state);
        }
        let translation = self.table.translation(found.index, found.side);
        rewrite::translate(arrival.bytes, arrival.parsed, &translation, arrival.meta.partial_checksum);
        let len = arrival.parsed.len;
        self.count_in_flow(found, arrival.packets, len as u64);
        let why = Forwarded::Translated { flow: self.table.id(found.index), from: found.side, opened: false };
        Verdict::Forward { len, why }
    }

    /// Sends a packet of a flow on, or stops it.
    #[inline]
    pub(in crate::engine) fn carry_hit(&mut self, arrival: &mut Arrival<'_>, hit: &Hit, scratch: &Scratch) -> Verdict {
        self.carry_onward(arrival, (hit.found, false), &hit.follow, &hit.onward, scratch)
    }

    #[inline]
    fn carry_onward(
        &mut self,
        arrival: &mut Arrival<'_>,
        (found, opened): (Found, bool),
        follow: &Follow,
        onward: &Onward,
        scratch: &Scratch,
    ) -> Verdict {
        if onward.goes_on() {
            match follow {
                Follow::Tcp(track) => self.table.follow(arrival.now, found.index, track),
                Follow::Touch(state) => self.table.touch(arrival.now, found.index, *state),
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
                let translation = self.table.translation(found.index, found.side);
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

    /// Counts packets sent by one side of a flow.
    #[inline]
    pub(super) fn count_in_flow(&mut self, found: Found, packets: u64, bytes: u64) {
        let side = found.side as usize;
        let flow = self.table.flow_mut(found.index);
        flow.packets[side] += packets;
        flow.bytes[side] += bytes;
        let server = &mut self.servers[flow.server_id.0 as usize];
        server.packets[side] += packets;
        server.bytes[side] += bytes;
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
        let Some(index) = self.insert((plan, standing), arrival, new, *by) else {
            return Verdict::Drop(super::super::Reason::TableFull);
        };
        let found = Found { index, side: Side::Client };
        let verdict = self.carry_onward(arrival, (found, true), follow, onward, scratch);
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
    ) -> Option<u32> {
        let inserted = self.table.insert(arrival.now, new);
        debug_assert!(inserted.is_ok(), "the look found both keys free and room: {inserted:?}");
        let index = inserted.ok()?;
        if let Some(pool) = self.nat_pools.get_mut(usize::from(new.nat_pool)) {
            pool.take(new.server.addresses.dst(), new.server.dst_port, new.server.protocol);
        }
        self.totals.opened += 1;
        self.servers[new.server_id.0 as usize].flows_total += 1;
        let totals = &mut self.services[new.service.0 as usize];
        totals.flows += 1;
        totals.flows_total += 1;
        let client = new.client.addresses.src();
        let pick = (new.server_id, by);
        self.chooser.opened(arrival.now, plan.roster(), standing.servers(), (new.service, client), pick);
        self.policy.opened(plan.rules(), new.rule, client);
        Some(index)
    }

    /// Takes what a packet without a flow uses of rules, limits, algorithms and NAT pools, whatever its outcome.
    pub(in crate::engine) fn carry_opening(
        &mut self,
        (plan, standing): (&Plan, &Standing),
        arrival: &Arrival<'_>,
        opening: &Opening,
    ) {
        self.policy.matched(opening.rule);
        let Some(service) = opening.service else { return };
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
        self.chooser.drawn(plan.roster(), service, v6, opening.draws.clone());
        if let Some((pool, draw, exhausted)) = &opening.nat {
            let pool = &mut self.nat_pools[pool.0 as usize];
            pool.drawn(draw.clone());
            if *exhausted {
                pool.count_exhausted();
            }
        }
        if opening.full {
            self.table_is_full();
        }
        if let Some(victim) = opening.victim {
            self.end((plan, standing), arrival.now, victim, Ended::Evicted);
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
