//! How flows end, and who is notified.

use super::super::plan::Plan;
use super::super::standing::Standing;
use super::super::{Ended, Event, FlowRow};
use super::Shard;
use crate::balance::PickedBy;
use crate::flow::Mapping;
use crate::packet::{Protocol, Side, build};
use crate::time::{Duration, Instant};

/// Maximum number of flows that one call of [`Shard::handle_timeout`] ends.
const MOST_EXPIRED: usize = 256;
/// Maximum number of flows that one call looks at: most may have been refreshed since they were placed in the wheel.
const MOST_LOOKED_AT: usize = 4096;
/// What chose a flow's server, by the number stored in the flow.
const PICKED_BY: [PickedBy; 3] = [PickedBy::Algorithm, PickedBy::Stickiness, PickedBy::LastResort];

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
            match self.table.expired(now, &mut most) {
                Some(index) => self.end((plan, standing), now, index, Ended::Expired),
                None => return,
            }
        }
    }

    /// Removes clients that have been idle for too long.
    pub(in crate::engine) fn expire_clients(&mut self, now: Instant) {
        self.chooser.handle_timeout(now);
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
        let client = self.table.key(index, Side::Client).addresses.src();
        let flow = self.table.facts(index);
        let (service, server, rule, nat_pool) = (flow.service, flow.server_id, flow.rule, flow.nat_pool);
        self.services[service.0 as usize].flows -= 1;
        if let Some(pool) = self.nat_pools.get_mut(usize::from(nat_pool)) {
            pool.release(now, &Mapping::of_replies(&self.table.key(index, Side::Server)));
        }
        self.table.remove(now, index);
        let is_idle = self.chooser.ended(now, plan.roster(), standing.servers(), (service, client), server);
        if is_idle && standing.servers().is_draining(server) {
            self.idle.push_back(server);
        }
        self.policy.ended(plan.rules(), rule, client);
        self.totals.end(cause);
    }

    /// Ends a flow; both ends of a TCP connection get resets that they will accept.
    pub(in crate::engine) fn end_by_reset(&mut self, of: (&Plan, &Standing), now: Instant, index: u32, cause: Ended) {
        for packet in self.resets(index) {
            self.answers.send(&packet, Default::default());
        }
        self.end(of, now, index, cause);
    }

    /// Returns the resets that both ends of a flow will accept; none if it is not TCP.
    pub(in crate::engine) fn resets(&self, index: u32) -> Vec<Vec<u8>> {
        let mut resets = Vec::new();
        if self.table.facts(index).protocol != Protocol::Tcp {
            return resets;
        }
        for to in [Side::Client, Side::Server] {
            let key = self.table.key(index, to).reversed();
            let (seqs, ack) = self.table.reset_towards(index, to);
            for seq in seqs.into_iter().flatten() {
                let mut packet = [0; build::MOST];
                let ports = (key.src_port, key.dst_port);
                if let Some(len) = build::reset_flow(&mut packet, &key.addresses, ports, seq, ack) {
                    resets.push(packet[..len].to_vec());
                }
            }
        }
        resets
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
        }
    }
}
