//! What follows when a server goes down, is disabled, drains, or shows trouble: for its flows, and for who is told.

use super::miss::sum_is_right;
use super::{Consumed, Ended, Engine, Event, Verdict};
use crate::balance::{Notice, OnDown};
use crate::flow::{Found, TimeoutState};
use crate::ids::ServerId;
use crate::packet::{Meta, Parsed, Protocol, Side, Transport, build};
use crate::time::{Duration, Instant};

/// Slots of the table that one call of `handle_timeout` looks at for flows that are to end.
const SLOTS_PER_CALL: usize = 4096;
/// Packets that the end of a flow may take.
const RESETS_PER_FLOW: usize = 4;
/// Sooner no client tries to connect again: half of what RFC 6298, 2.1 asks for.
const SOONEST_RETRY: Duration = Duration::from_millis(500);

/// The walk over the table for flows that are to end; one for all servers, however many go at once.
#[derive(Debug)]
pub(super) struct Walk {
    next: u32,
    /// Another server went while it was under way: it has to begin anew when it is done.
    again: bool,
    pub since: Instant,
}

/// What becomes of a packet whose flow's server is gone.
pub(super) enum Abandoned {
    /// The flow stays as it is.
    Kept,
    /// The flow has ended, and so has the packet.
    Ended(Verdict),
    /// The flow has ended; the packet may open another.
    Free,
}

impl Engine {
    /// Takes note that a server's standing may have changed: its flows may have to end.
    pub(super) fn standing_changed(&mut self, now: Instant, server: ServerId) {
        let gone = self.balancer.may_be_gone(server);
        self.servers[server.0 as usize].gone = gone;
        // Other flows than TCP end with their next packet.
        if gone && self.balancer.resets_tcp() {
            self.walk(now);
        }
    }

    fn walk(&mut self, now: Instant) {
        let walk = self.walk.get_or_insert(Walk { next: 0, again: false, since: now });
        walk.again |= walk.next > 0;
    }

    /// Tells what the balancer has noticed.
    pub(super) fn take_notices(&mut self, now: Instant) {
        while let Some(notice) = self.balancer.poll_notice() {
            match notice {
                Notice::Drained(server) => {
                    let server = self.names.server(server);
                    self.tell(Event::ServerDrained { server });
                }
                Notice::DrainDeadline(server) => {
                    let flows = self.balancer.state(now, server).flows;
                    self.servers[server.0 as usize].is_over = true;
                    self.walk(now);
                    let server = self.names.server(server);
                    self.tell(Event::DrainDeadline { server, flows });
                }
                Notice::Held(server, until) => {
                    let server = self.names.server(server);
                    self.tell(Event::PassiveHold { server, for_ms: until.since(now).as_millis() as u64 });
                }
            }
        }
    }

    /// Goes on with the walk, as far as the engine's own packets have room to go.
    pub(super) fn go_on_walking(&mut self, now: Instant) {
        let Some(next) = self.walk.as_ref().map(|walk| walk.next) else { return };
        let mut found = Vec::new();
        let mut reached = None;
        for (looked_at, (index, used)) in self.table.slots(next).enumerate() {
            if looked_at >= SLOTS_PER_CALL || found.len() * RESETS_PER_FLOW >= self.answers.room_for_packets() {
                reached = Some(index);
                break;
            }
            if let Some(cause) = used.then(|| self.is_to_end(index)).flatten() {
                found.push((index, cause));
            }
        }
        for (index, cause) in found {
            self.end_by_reset(now, index, cause);
        }
        match (&mut self.walk, reached) {
            (Some(walk), Some(next)) => walk.next = next,
            (Some(walk), None) if walk.again => *walk = Walk { next: 0, again: false, since: now },
            _ => {
                self.walk = None;
                self.servers.iter_mut().for_each(|server| server.is_over = false);
            }
        }
        self.take_notices(now);
    }

    /// Why a flow that the walk meets is to end, if it is.
    fn is_to_end(&self, index: u32) -> Option<Ended> {
        let flow = self.table.flow(index);
        let server = &self.servers[flow.server_id.0 as usize];
        if server.is_over {
            return Some(Ended::Drained);
        }
        (server.gone && flow.protocol == Protocol::Tcp && self.flow_is_gone(index)).then_some(Ended::ServerDown)
    }

    /// Whether a flow's server is gone, and the service does not keep such flows.
    fn flow_is_gone(&self, index: u32) -> bool {
        let flow = self.table.flow(index);
        let v6 = self.table.is_v6(index, Side::Client);
        self.balancer.service(flow.service).on_down(flow.protocol) == OnDown::Reset
            && self.balancer.is_gone(flow.service, flow.server_id, v6)
    }

    /// Decides about a packet of a flow whose server may be gone.
    #[cold]
    pub(super) fn abandon(&mut self, now: Instant, found: Found, parsed: &Parsed) -> Abandoned {
        if !self.flow_is_gone(found.index) {
            if !self.may_ask_another(found, parsed) {
                return Abandoned::Kept;
            }
            self.end(now, found.index, Ended::ServerDown);
            return Abandoned::Free;
        }
        if self.table.flow(found.index).protocol == Protocol::Tcp {
            self.end_by_reset(now, found.index, Ended::ServerDown);
            return Abandoned::Ended(Verdict::Consume(Consumed::ServerDown));
        }
        self.end(now, found.index, Ended::ServerDown);
        Abandoned::Free
    }

    /// Whether a packet asks for a connection of which its server, which is gone, knows nothing, and no setting holds it there.
    fn may_ask_another(&self, found: Found, parsed: &Parsed) -> bool {
        let flow = self.table.flow(found.index);
        let v6 = self.table.is_v6(found.index, Side::Client);
        matches!(parsed.transport, Transport::Tcp { flags, .. } if flags.syn() && !flags.ack())
            && found.side == Side::Client
            && flow.state() == TimeoutState::Opening
            && flow.packets[Side::Server as usize] == 0
            && self.balancer.service(flow.service).on_down.is_none()
            && self.balancer.is_gone(flow.service, flow.server_id, v6)
    }

    /// Ends a flow; both ends of a TCP connection are told by resets that they will believe.
    fn end_by_reset(&mut self, now: Instant, index: u32, cause: Ended) {
        if self.table.flow(index).protocol == Protocol::Tcp {
            for to in [Side::Client, Side::Server] {
                let key = self.table.key(index, to).reversed();
                let (seqs, ack) = self.table.reset_towards(index, to);
                for seq in seqs.into_iter().flatten() {
                    let mut packet = [0; build::MOST];
                    let ports = (key.src_port, key.dst_port);
                    if let Some(len) = build::reset_flow(&mut packet, &key.addresses, ports, seq, ack) {
                        self.answers.send(&packet[..len]);
                    }
                }
            }
        }
        self.end(now, index, cause);
    }

    /// Judges a server by the first signs of a flow that it has not answered yet.
    #[inline]
    pub(super) fn first_signs(&mut self, now: Instant, found: Found, packet: &[u8], parsed: &Parsed, meta: Meta) {
        let flow = self.table.flow(found.index);
        let (server, adopted, since) = (flow.server_id, flow.is_adopted(), flow.created);
        match (found.side, parsed.transport) {
            // A server that knows nothing of such a connection is right to say so, and strangers choose when. A refusal
            // acknowledges the SYN (RFC 9293, 3.10.7.1).
            (Side::Server, Transport::Tcp { flags, ack, .. }) if flags.rst() => {
                let (_, next) = self.table.reset_towards(found.index, Side::Client);
                if !adopted && flags.ack() && ack == next {
                    self.trouble(now, server);
                }
            }
            (Side::Server, _) => self.balancer.answered(server),
            // What was doubled on its way, or what the server cannot read, tells nothing about it.
            (Side::Client, Transport::Tcp { flags, .. })
                if flags.syn() && now.since(since) >= SOONEST_RETRY && sum_is_right(packet, parsed, meta) =>
            {
                self.trouble(now, server);
            }
            _ => {}
        }
    }

    pub(super) fn trouble(&mut self, now: Instant, server: ServerId) {
        self.balancer.trouble(now, server);
        self.take_notices(now);
    }
}
