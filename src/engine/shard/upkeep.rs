//! How flows end, and who is notified.

use super::super::plan::Plan;
use super::super::standing::Standing;
use super::super::step::For;
use super::super::{Ended, Event, FlowRow};
use super::Shard;
use crate::balance::PickedBy;
use crate::flow::{Key, Mapping, TimeoutState};
use crate::packet::{Protocol, Side, build};
use crate::time::{Duration, Instant};

/// Maximum number of flows that one call of [`Shard::handle_timeout`] ends.
const MOST_EXPIRED: usize = 256;
/// Maximum number of flows that one call looks at: most may have been refreshed since they were placed in the wheel.
const MOST_LOOKED_AT: usize = 4096;
/// Maximum number of resets that end one flow.
const MOST_RESETS: usize = 4;
/// What chose a flow's server, by the number stored in the flow.
pub(super) const PICKED_BY: [PickedBy; 4] =
    [PickedBy::Algorithm, PickedBy::Stickiness, PickedBy::LastResort, PickedBy::Server];

/// Returns which ends of an established connection hear that it is forgotten.
fn told(cause: Ended) -> &'static [Side] {
    match cause {
        Ended::Expired | Ended::Evicted => &[Side::Client, Side::Server],
        Ended::ServerDown => &[Side::Server],
        Ended::Replaced | Ended::Drained | Ended::Killed => &[],
    }
}

/// Builds resets for the end that sends packets with this key.
pub(super) fn resets_at(of: Key, (seqs, ack): ([Option<u32>; 2], u32)) -> impl Iterator<Item = Vec<u8>> {
    let key = of.reversed();
    seqs.into_iter().flatten().filter_map(move |seq| {
        let mut packet = [0; build::MOST];
        let len = build::reset_flow(&mut packet, &key.addresses, (key.src_port, key.dst_port), seq, ack)?;
        Some(packet[..len].to_vec())
    })
}

impl Shard {
    /// Does a bounded part of the work that is due.
    pub(in crate::engine) fn handle_timeout(&mut self, of: (&Plan, &Standing), now: Instant) {
        self.expire(of, now);
        while let Some(relieved) = self.pressure.relieved(now) {
            self.report(relieved);
        }
        self.fragments.expire(now);
        self.nat_pools.iter_mut().for_each(|pool| pool.handle_timeout(now));
    }

    fn expire(&mut self, (plan, standing): (&Plan, &Standing), now: Instant) {
        let mut most = MOST_LOOKED_AT;
        for _ in 0..MOST_EXPIRED {
            match self.expired(now, &mut most) {
                Some(index) if !self.may_expire(now, index) => {}
                Some(index) => self.forget((plan, standing), now, index, Ended::Expired),
                None => return,
            }
        }
    }

    /// Removes clients that have been idle for too long.
    pub(in crate::engine) fn expire_clients(&mut self, now: Instant) {
        self.chooser.handle_timeout(now);
    }

    /// Ends a flow that its ends may still believe in, and lets them hear of it.
    pub(in crate::engine) fn forget(&mut self, of: (&Plan, &Standing), now: Instant, index: u32, cause: Ended) {
        let packets = self.farewell(now, index, cause);
        if packets.is_empty() && matches!(cause, Ended::Expired | Ended::Evicted) {
            return self.end_politely(of, now, index, cause);
        }
        if !packets.is_empty() {
            self.answers.charge(now, For::Forgotten);
        }
        let sides = told(cause);
        if packets.is_empty() || !self.reset_later(index, sides) {
            for packet in packets {
                self.answers.send(&packet, Default::default());
            }
        }
        self.end(of, now, index, cause);
    }

    /// Returns the resets by which the ends of an established connection hear that it is forgotten, within the limit:
    /// both if it expired or gave way, the server if the client has gone to another one. None for connections that are
    /// over, and for those that are half-open, which a flood of SYNs would turn into a flood of resets.
    pub(in crate::engine) fn farewell(&self, now: Instant, index: u32, cause: Ended) -> Vec<Vec<u8>> {
        let sides = told(cause);
        let flow = self.table.facts(index);
        let knows = (flow.protocol, flow.state) == (Protocol::Tcp, TimeoutState::Established);
        let may = knows && !self.part.stands_by() && self.answers.allows(now, For::Forgotten);
        if !may || self.answers.room_for_packets() < MOST_RESETS {
            return Vec::new();
        }
        sides.iter().flat_map(|side| self.resets_to(index, *side)).collect()
    }

    /// Ends a flow that is over; its NAT port does not rest, as the flow that it yields to takes it.
    pub(super) fn end_yielding(&mut self, of: (&Plan, &Standing), now: Instant, index: u32) {
        if let Some(pool) = self.nat_pools.get_mut(usize::from(self.table.facts(index).nat_pool)) {
            pool.yield_port(&Mapping::of_replies(&self.table.key(index, Side::Server)));
        }
        self.end(of, now, index, Ended::Replaced);
    }

    /// Ends a flow whose client has no such connection: it is one past the gateway.
    pub(in crate::engine) fn disown(&mut self, of: (&Plan, &Standing), now: Instant, index: u32) {
        let server = self.table.key(index, Side::Server);
        self.table.note_direct(&server);
        self.forget(of, now, index, Ended::Replaced);
    }

    /// Ends a flow: releases everything that it held.
    pub(in crate::engine) fn end(
        &mut self,
        (plan, standing): (&Plan, &Standing),
        now: Instant,
        index: u32,
        cause: Ended,
    ) {
        if self.reports_flows {
            let flow = Box::new(self.row(plan, now, index));
            self.report(Event::FlowEnded { flow, cause });
        }
        self.note_ended(index);
        self.end_path(index);
        let client = self.table.key(index, Side::Client).addresses.src();
        let flow = self.table.facts(index);
        let proven = self.table.is_proven(index);
        let (service, server, rule, nat_pool) = (flow.service, flow.server_id, flow.rule, flow.nat_pool);
        let created = flow.created;
        self.services[service.0 as usize].flows -= 1;
        if let Some(pool) = self.nat_pools.get_mut(usize::from(nat_pool)) {
            pool.release(now, &Mapping::of_replies(&self.table.key(index, Side::Server)));
        }
        let flow = (server, proven, self.table.note(index));
        self.table.remove(now, index);
        let is_idle = self.chooser.ended(now, plan.roster(), standing.servers(), (service, client), flow);
        if is_idle && standing.servers().is_draining(server) {
            self.idle.push_back(server);
        }
        self.policy.ended(plan.rules(), rule, (client, created), proven);
        self.totals.end(cause);
    }

    /// Ends a flow; if its client has completed the handshake without effect, both ends get resets, as nobody else
    /// tells them.
    pub(in crate::engine) fn end_politely(&mut self, of: (&Plan, &Standing), now: Instant, index: u32, cause: Ended) {
        if self.table.is_stalled(index) {
            self.end_by_reset(of, now, index, cause);
        } else {
            self.end(of, now, index, cause);
        }
    }

    /// Ends a flow; both ends of a TCP connection get resets that they will accept.
    pub(in crate::engine) fn end_by_reset(&mut self, of: (&Plan, &Standing), now: Instant, index: u32, cause: Ended) {
        if !self.part.stands_by() && !self.reset_later(index, &[Side::Client, Side::Server]) {
            for packet in self.resets(index) {
                self.answers.send(&packet, Default::default());
            }
        }
        self.end(of, now, index, cause);
    }

    /// Returns the resets that both ends of a flow will accept; none if it is not TCP.
    pub(in crate::engine) fn resets(&self, index: u32) -> Vec<Vec<u8>> {
        let mut resets = Vec::new();
        if self.table.facts(index).protocol != Protocol::Tcp {
            return resets;
        }
        [Side::Client, Side::Server].iter().for_each(|to| resets.extend(self.resets_to(index, *to)));
        resets
    }

    /// Returns the resets of which one end of a TCP flow will accept one.
    fn resets_to(&self, index: u32, to: Side) -> impl Iterator<Item = Vec<u8>> {
        resets_at(self.table.key(index, to), self.table.reset_towards(index, to))
    }

    /// Returns a flow as seen at one point in time.
    pub(in crate::engine) fn row(&self, plan: &Plan, now: Instant, index: u32) -> FlowRow {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let flow = self.table.facts(index);
        let (client, answer) = (self.table.key(index, Side::Client), self.table.key(index, Side::Server));
        FlowRow {
            id: self.table.id(index),
            protocol: flow.protocol,
            client: client.src(),
            listen: client.dst(),
            service: plan.service(flow.service).name.clone(),
            pool: plan.pool_and_server(flow.server_id).0.into(),
            server: plan.roster().server(flow.server_id).name.clone(),
            server_address: answer.src(),
            source: Some(answer.dst()).filter(|source| *source != client.src()),
            picked_by: PICKED_BY[usize::from(flow.picked_by)],
            rule: plan.rules().name(flow.rule).map(Into::into),
            state: flow.state,
            age_ms: millis(now.since(flow.created)),
            idle_ms: millis(now.since(self.table.touched(index))),
            expires_in_ms: millis(self.table.deadline(index).since(now)),
            packets_in: flow.packets[0],
            bytes_in: flow.bytes[0],
            packets_out: flow.packets[1],
            bytes_out: flow.bytes[1],
            shortcut: self.path_of(index).is_some(),
        }
    }
}
