//! A packet of a flow: whether its server is available, what the packet indicates about it, the flow's next state, and
//! how the packet is sent on.

use super::super::arrival::Arrival;
use super::super::step::{Follow, Hit, Onward, Opening, Prepare, Scratch, Settled, Sign, Step};
use super::super::{Consumed, Ended, Reason};
use super::answer::sum_is_right;
use super::{Going, Look};
use crate::balance::{Draws, OnDown};
use crate::flow::{Found, Segment, TICK, TimeoutState, Track, Tracked};
use crate::packet::{Protocol, Side, Transport, build};
use crate::time::Duration;

/// No client retries a connection sooner: half the initial timeout of RFC 6298, 2.1.
const SOONEST_RETRY: Duration = Duration::from_millis(500);

impl Look<'_> {
    #[inline]
    pub(super) fn hit(&self, arrival: &Arrival<'_>, found: Found, scratch: &mut Scratch) -> Step {
        if arrival.hops() <= 1 {
            return Step::Stop(self.hop_limit_exceeded(arrival, scratch));
        }
        let flow = self.table().facts(found.index);
        if self.standing.may_be_gone(flow.server_id)
            && let Some(step) = self.abandoned(arrival, found)
        {
            return step;
        }
        if flow.state == TimeoutState::Opening && self.is_disowned(arrival, found) {
            return Step::Disown { flow: found.index };
        }
        let sign = if flow.answered { None } else { self.first_sign(arrival, found) };
        let follow = self.follow(arrival, found);
        if let Follow::Tcp(track) = &follow
            && track.tracked() == Tracked::Reopen
        {
            return Step::EndThenAgain { flow: found.index, cause: Ended::Replaced, sign };
        }
        let going = Going::of_table(self.table(), found);
        let onward = self.onward(arrival, &going, scratch);
        let hit = Hit { found, follow, sign, onward };
        if self.proves(&hit) {
            return self.prove(arrival, hit, scratch);
        }
        Step::Hit(hit)
    }

    /// Returns whether a packet is the first by which the client proves that it receives what the server sends.
    #[inline]
    fn proves(&self, hit: &Hit) -> bool {
        !self.table().is_proven(hit.found.index)
            && hit.onward.goes_on()
            && match &hit.follow {
                Follow::Tcp(track) => track.leaves_half_open(),
                Follow::Touch(_) => hit.found.side == Side::Client && self.table().facts(hit.found.index).answered,
            }
    }

    /// Decides whether a flow whose client proves itself is within the limits, and what gives way in the table for one
    /// whose handshake is complete. Otherwise the flow stays as it is, and the client sends again; datagrams of a client
    /// whose server is full go to another one, if that has room.
    #[cold]
    fn prove(&self, arrival: &Arrival<'_>, hit: Hit, scratch: &mut Scratch) -> Step {
        scratch.opening.clear();
        let room = |opening: &mut Opening| match hit.leaves_half_open() {
            true => self.make_room(arrival, false, true, opening),
            false => Ok(()),
        };
        let may = self.may_prove(hit.found.index, &mut scratch.opening);
        match may.and_then(|()| room(&mut scratch.opening)) {
            Ok(()) => Step::Hit(hit),
            Err(reason) => {
                if reason == Reason::ServerFlows
                    && let Some(step) = self.leave_full_server(arrival, hit.found.index)
                {
                    return step;
                }
                scratch.opening.stalled = Some(hit.found.index);
                Settled::drop(reason).into()
            }
        }
    }

    /// Ends a flow whose server may not have it, if another server has room; a TCP connection could not go on there.
    fn leave_full_server(&self, arrival: &Arrival<'_>, index: u32) -> Option<Step> {
        let (flow, key) = (self.table().facts(index), self.table().key(index, Side::Client));
        if flow.protocol == Protocol::Tcp {
            return None;
        }
        let ask = self.ask(arrival, &key, flow.service);
        match self.shard.chooser().choose(&ask, &[flow.server_id], &mut Draws::default()) {
            Err(stale) => Some(Step::Prepare(Prepare::Servers(stale))),
            Ok(other) => other.map(|_| Step::EndThenAgain { flow: index, cause: Ended::Replaced, sign: None }),
        }
    }

    /// Computes the flow's state after the packet.
    #[inline]
    fn follow(&self, arrival: &Arrival<'_>, found: Found) -> Follow {
        match arrival.parsed.transport {
            Transport::Tcp { .. } => {
                Follow::Tcp(self.table().track(arrival.now, found.index, found.side, &segment(arrival)))
            }
            _ => Follow::Touch(touched_state(arrival, found.side, self.table().facts(found.index).state)),
        }
    }

    /// Decides a packet of a flow whose server may be gone; none if the flow is unaffected.
    #[cold]
    fn abandoned(&self, arrival: &Arrival<'_>, found: Found) -> Option<Step> {
        let (flow, cause) = (found.index, Ended::ServerDown);
        if self.may_ask_another(arrival, found) {
            return Some(Step::EndThenAgain { flow, cause, sign: None });
        }
        if !self.flow_is_gone(flow) {
            return None;
        }
        Some(match self.table().facts(flow).protocol {
            Protocol::Tcp => Step::EndByReset { flow, cause },
            _ => Step::EndThenAgain { flow, cause, sign: None },
        })
    }

    /// Returns whether a flow's server is gone and the service does not keep such flows.
    pub(in crate::engine) fn flow_is_gone(&self, index: u32) -> bool {
        let flow = self.table().facts(index);
        let v6 = self.table().is_v6(index, Side::Client);
        self.plan.service(flow.service).on_down(flow.protocol) == OnDown::Reset
            && self.standing.is_gone(self.plan, flow.service, flow.server_id, v6)
    }

    /// Returns whether a packet asks for a connection that its server, which is gone, does not know: one with other
    /// numbers than the flow's, as clients open that keep their source port (NFS), unless the ends may still believe in
    /// the flow; or one that the server has not answered, if no setting keeps it there.
    fn may_ask_another(&self, arrival: &Arrival<'_>, found: Found) -> bool {
        let Transport::Tcp { flags, .. } = arrival.parsed.transport else { return false };
        if !flags.syn() || flags.ack() || found.side != Side::Client {
            return false;
        }
        let flow = self.table().facts(found.index);
        let v6 = self.table().is_v6(found.index, Side::Client);
        if !self.standing.is_gone(self.plan, flow.service, flow.server_id, v6) {
            return false;
        }
        let unanswered = flow.state == TimeoutState::Opening && !flow.answered;
        unanswered && self.plan.service(flow.service).on_down.is_none()
            || self.table().asks_anew(arrival.now, found.index, &segment(arrival)) && sum_is_right(arrival)
    }

    /// Returns what a packet indicates about the server of a flow that has not been answered yet.
    fn first_sign(&self, arrival: &Arrival<'_>, found: Found) -> Option<Sign> {
        let flow = self.table().facts(found.index);
        let (answered, trouble) = (Some(Sign::Answered(flow.server_id)), Some(Sign::Trouble(flow.server_id)));
        match (found.side, arrival.parsed.transport) {
            // A server that does not know such a connection is right to say so, and outsiders choose when that happens.
            // A refusal acknowledges the SYN (RFC 9293, 3.10.7.1).
            (Side::Server, Transport::Tcp { flags, ack, .. }) if flags.rst() => {
                let (_, next) = self.table().reset_towards(found.index, Side::Client);
                if !flow.adopted && flags.ack() && ack == next { trouble } else { None }
            }
            (Side::Server, _) => answered,
            // A SYN that was duplicated in the network, or that the server cannot parse, indicates nothing about the
            // server.
            (Side::Client, Transport::Tcp { flags, .. })
                // The time at which it was created is rounded down.
                if flags.syn() && arrival.now.since(flow.created) >= SOONEST_RETRY + TICK && sum_is_right(arrival) =>
            {
                trouble
            }
            _ => None,
        }
    }

    /// Answers a packet whose hop limit expires when the kernel forwards it (RFC 792; RFC 4443, 3.3).
    #[cold]
    pub(super) fn hop_limit_exceeded(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Settled {
        self.answer(arrival, scratch, build::Error::HopLimit, Consumed::TimeExceeded)
    }
}

/// Returns the state of a flow yet to be created, after its first packet.
pub(super) fn first_follow(arrival: &Arrival<'_>, protocol: Protocol) -> Follow {
    match arrival.parsed.transport {
        Transport::Tcp { .. } => Follow::Tcp(Track::first(Side::Client, &segment(arrival))),
        _ => Follow::Touch(TimeoutState::first(protocol)),
    }
}

/// Returns the state in which a packet without sequence numbers restarts the timeout of its flow.
#[inline]
pub(in crate::engine) fn touched_state(arrival: &Arrival<'_>, from: Side, state: TimeoutState) -> TimeoutState {
    match (arrival.parsed.transport, from) {
        (Transport::Udp { .. } | Transport::Sctp { .. } | Transport::Other, Side::Server) => TimeoutState::UdpTwoWay,
        (Transport::Udp { .. } | Transport::Sctp { .. } | Transport::Other, Side::Client) => state,
        _ => TimeoutState::Icmp,
    }
}

#[inline]
pub(in crate::engine) fn segment(arrival: &Arrival<'_>) -> Segment {
    let Transport::Tcp { flags, seq, ack, .. } = arrival.parsed.transport else {
        return Segment { flags: Default::default(), seq: 0, ack: 0, len: 0 };
    };
    Segment { flags, seq, ack, len: u32::try_from(arrival.parsed.payload_len()).unwrap_or(u32::MAX) }
}

impl Onward {
    /// Returns whether the packet is sent on.
    #[inline]
    pub(in crate::engine) fn goes_on(&self) -> bool {
        !matches!(self, Onward::Stop { .. })
    }
}
