//! A packet of a flow: whether its server is still there, what it says of it, how the flow follows it, how it goes on.

use super::super::arrival::Arrival;
use super::super::step::{Follow, Hit, Onward, Scratch, Sign, Step};
use super::super::{Consumed, Ended};
use super::answer::sum_is_right;
use super::{Going, Look};
use crate::balance::OnDown;
use crate::flow::{Found, Segment, TimeoutState, Track, Tracked};
use crate::packet::{Protocol, Side, Transport, build};
use crate::time::Duration;

/// No client tries to connect again sooner: half of what RFC 6298, 2.1 asks for.
const SOONEST_RETRY: Duration = Duration::from_millis(500);

impl Look<'_> {
    #[inline]
    pub(super) fn hit(&self, arrival: &Arrival<'_>, found: Found, scratch: &mut Scratch) -> Step {
        if arrival.hops() <= 1 {
            return Step::Stop(self.hop_limit_exceeded(arrival, scratch));
        }
        let flow = self.table().flow(found.index);
        if self.standing.may_be_gone(flow.server_id)
            && let Some(step) = self.abandoned(arrival, found)
        {
            return step;
        }
        let unanswered = flow.packets[Side::Server as usize] == 0;
        let sign = if unanswered { self.first_sign(arrival, found) } else { None };
        let follow = self.follow(arrival, found);
        if let Follow::Tcp(track) = &follow
            && track.tracked() == Tracked::Reopen
        {
            return Step::EndThenAgain { flow: found.index, cause: Ended::Replaced, sign };
        }
        let going = Going::of_table(self.table(), found);
        let onward = self.onward(arrival, &going, scratch);
        Step::Hit(Hit { found, follow, sign, onward })
    }

    /// Works out how the flow's state follows the packet.
    #[inline]
    fn follow(&self, arrival: &Arrival<'_>, found: Found) -> Follow {
        match arrival.parsed.transport {
            Transport::Tcp { .. } => {
                Follow::Tcp(self.table().track(arrival.now, found.index, found.side, &segment(arrival)))
            }
            Transport::Udp { .. } | Transport::Sctp { .. } | Transport::Other => Follow::Touch(match found.side {
                Side::Server => TimeoutState::UdpTwoWay,
                Side::Client => self.table().flow(found.index).state(),
            }),
            _ => Follow::Touch(TimeoutState::Icmp),
        }
    }

    /// Decides about a packet of a flow whose server may be gone; none where the flow stays as it is.
    #[cold]
    fn abandoned(&self, arrival: &Arrival<'_>, found: Found) -> Option<Step> {
        let (flow, cause) = (found.index, Ended::ServerDown);
        if !self.flow_is_gone(flow) {
            let asks = self.may_ask_another(arrival, found);
            return asks.then_some(Step::EndThenAgain { flow, cause, sign: None });
        }
        Some(match self.table().flow(flow).protocol {
            Protocol::Tcp => Step::EndByReset { flow, cause },
            _ => Step::EndThenAgain { flow, cause, sign: None },
        })
    }

    /// Whether a flow's server is gone, and the service does not keep such flows.
    pub(in crate::engine) fn flow_is_gone(&self, index: u32) -> bool {
        let flow = self.table().flow(index);
        let v6 = self.table().is_v6(index, Side::Client);
        self.plan.service(flow.service).on_down(flow.protocol) == OnDown::Reset
            && self.standing.is_gone(self.plan, flow.service, flow.server_id, v6)
    }

    /// Whether a packet asks for a connection of which its server, which is gone, knows nothing, and no setting holds it
    /// there.
    fn may_ask_another(&self, arrival: &Arrival<'_>, found: Found) -> bool {
        let flow = self.table().flow(found.index);
        let v6 = self.table().is_v6(found.index, Side::Client);
        matches!(arrival.parsed.transport, Transport::Tcp { flags, .. } if flags.syn() && !flags.ack())
            && found.side == Side::Client
            && flow.state() == TimeoutState::Opening
            && flow.packets[Side::Server as usize] == 0
            && self.plan.service(flow.service).on_down.is_none()
            && self.standing.is_gone(self.plan, flow.service, flow.server_id, v6)
    }

    /// Returns what a packet says of the server of a flow that has not been answered yet.
    fn first_sign(&self, arrival: &Arrival<'_>, found: Found) -> Option<Sign> {
        let flow = self.table().flow(found.index);
        let sign = |trouble| Some(Sign { server: flow.server_id, trouble });
        match (found.side, arrival.parsed.transport) {
            // A server that knows nothing of such a connection is right to say so, and strangers choose when. A refusal
            // acknowledges the SYN (RFC 9293, 3.10.7.1).
            (Side::Server, Transport::Tcp { flags, ack, .. }) if flags.rst() => {
                let (_, next) = self.table().reset_towards(found.index, Side::Client);
                if !flow.is_adopted() && flags.ack() && ack == next { sign(true) } else { None }
            }
            (Side::Server, _) => sign(false),
            // A SYN that was doubled in the network, or that the server cannot read, says nothing about the server.
            (Side::Client, Transport::Tcp { flags, .. })
                if flags.syn() && arrival.now.since(flow.created) >= SOONEST_RETRY && sum_is_right(arrival) =>
            {
                sign(true)
            }
            _ => None,
        }
    }

    /// Answers a packet whose hop limit ends at the kernel's next step (RFC 792; RFC 4443, 3.3).
    #[cold]
    pub(super) fn hop_limit_exceeded(
        &self,
        arrival: &Arrival<'_>,
        scratch: &mut Scratch,
    ) -> super::super::step::Settled {
        self.answer(arrival, scratch, build::Error::HopLimit, Consumed::TimeExceeded)
    }
}

/// How a flow that is not there yet follows its first packet.
pub(super) fn first_follow(arrival: &Arrival<'_>, protocol: Protocol) -> Follow {
    match arrival.parsed.transport {
        Transport::Tcp { .. } => Follow::Tcp(Track::first(Side::Client, &segment(arrival))),
        _ => Follow::Touch(TimeoutState::first(protocol)),
    }
}

#[inline]
fn segment(arrival: &Arrival<'_>) -> Segment {
    let Transport::Tcp { flags, seq, ack, .. } = arrival.parsed.transport else {
        return Segment { flags: Default::default(), seq: 0, ack: 0, len: 0 };
    };
    Segment { flags, seq, ack, len: u32::try_from(arrival.parsed.payload_len()).unwrap_or(u32::MAX) }
}

impl Onward {
    /// Whether the packet goes on.
    #[inline]
    pub(in crate::engine) fn goes_on(&self) -> bool {
        !matches!(self, Onward::Stop { .. })
    }
}
