//! What is to be done about a packet, as a value: [`super::look`] makes it, and carrying it out decides nothing more.

use super::{Consumed, Ended, Pressed, Reason};
use crate::balance::{Draws, PickedBy, Priority, Proposed, Stale};
use crate::flow::{Draw, Found, NewFlow, TimeoutState, Track};
use crate::ids::{NatPoolId, ServerId, ServiceId};
use crate::packet::rewrite::Inner;
use crate::packet::{Addresses, Meta, Quote};
use crate::policy::{NO_RULE, Takes};
use crate::time::Instant;

/// What is to be done about a packet.
#[derive(Debug)]
pub(super) enum Step {
    /// Something that follows time has to be brought up to date; then look again.
    Prepare(Prepare),
    /// It belongs to a flow.
    Hit(Hit),
    /// It opens a flow: [`Scratch::opening`] holds how.
    Open(Onward),
    /// It belongs to no flow and opens none: [`Scratch::opening`] holds what it takes nevertheless.
    Settle(Settled),
    /// It belongs to a flow, is not sent on, and leaves its flow as it is.
    Stop(Settled),
    /// Its flow ends, and so does the packet: both ends get resets.
    EndByReset {
        /// The flow's slot.
        flow: u32,
        /// Why.
        cause: Ended,
    },
    /// Its flow ends; then look again.
    EndThenAgain {
        /// The flow's slot.
        flow: u32,
        /// Why.
        cause: Ended,
        /// What the packet says of the flow's server.
        sign: Option<Sign>,
    },
    /// It is an ICMP error about a packet of a flow.
    Error(Box<FlowError>),
    /// It is the monitors', which decide what becomes of it.
    Probe,
    /// It is a fragment: the store of fragments decides what becomes of it.
    Fragment,
}

/// What has to be brought up to date before a packet can be decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepare {
    /// The weights of a service's servers, or the window of its algorithm.
    Servers(Stale),
    /// The ports of a NAT pool that have rested.
    Ports(NatPoolId),
}

/// A packet of a flow.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) found: Found,
    /// How the flow's state follows the packet, if that is sent on.
    pub(super) follow: Follow,
    /// What the packet says of the flow's server.
    pub(super) sign: Option<Sign>,
    pub(super) onward: Onward,
}

/// How a flow's state follows a packet that is sent on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Follow {
    /// As the TCP tracker says.
    Tcp(Track),
    /// Its timeout restarts, in this state.
    Touch(TimeoutState),
}

/// What a packet says of its flow's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) server: ServerId,
    /// Trouble; else it answered.
    pub(super) trouble: bool,
}

/// How a packet of a flow goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Onward {
    /// Rewritten in place.
    Rewrite {
        /// The largest segment size that a SYN may state.
        mss: Option<u16>,
        /// The identification that a first fragment goes on with, if it is not its own.
        id: Option<u16>,
    },
    /// As the packets in [`Scratch::emission`].
    Emit {
        /// Identifications taken for them.
        ids: u32,
    },
    /// Not at all.
    Stop {
        settled: Settled,
        /// Identifications taken nevertheless.
        ids: u32,
    },
}

/// What becomes of a packet that is not sent on for a flow, and whether an answer in [`Scratch::emission`] is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) fate: Fate,
    pub(super) reply: Reply,
}

/// What becomes of a packet that is not sent on for a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes unchanged.
    Foreign,
    Consume(Consumed),
    Drop(Reason),
}

/// Whether an answer is sent, and whose limit it counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    None,
    Unlimited,
    Limited(For),
}

/// Whose answers a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Who has shown nothing yet, and may not be who it claims to be.
    Strangers,
    /// The ends of flows in which both have sent.
    Peers,
}

impl Settled {
    pub(super) const FOREIGN: Settled = Settled { fate: Fate::Foreign, reply: Reply::None };

    pub(super) const fn drop(reason: Reason) -> Settled {
        Settled { fate: Fate::Drop(reason), reply: Reply::None }
    }
}

impl From<Settled> for Step {
    fn from(settled: Settled) -> Step {
        Step::Settle(settled)
    }
}

/// An ICMP error about a packet of a flow. The flow neither counts nor notices it (RFC 5508 REQ-6; RFC 5382 REQ-10).
#[derive(Debug)]
pub(super) struct FlowError {
    /// The flow, and the side that the error came from.
    pub(super) found: Found,
    /// What it says of the flow's server.
    pub(super) sign: Option<Sign>,
    pub(super) onward: ErrorOnward,
}

/// How an ICMP error goes on.
#[derive(Debug)]
pub(super) enum ErrorOnward {
    /// Rewritten in place.
    Rewrite {
        about: Quote,
        outer: Addresses,
        inner: Inner,
        /// The identification that the quoted fragment was sent with, if it went on with another.
        id: Option<u16>,
    },
    /// As the packet in [`Scratch::emission`], in the other family.
    Emit,
    /// Not at all; `ids` identifications were taken nevertheless.
    Stop { settled: Settled, ids: u32 },
}

/// Packets that go out in place of the one that came, or in answer to it.
#[derive(Debug, Default)]
pub(super) struct Emission {
    bytes: Vec<u8>,
    /// Of each packet: where it ends, and what the device is told of it.
    packets: Vec<(usize, Meta)>,
}

impl Emission {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
    }

    /// Adds what `write` appends as one packet; adds nothing where it returns none.
    pub(super) fn add<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Option<(Meta, T)>) -> Option<T> {
        let before = self.bytes.len();
        match write(&mut self.bytes) {
            Some((meta, result)) => {
                self.packets.push((self.bytes.len(), meta));
                Some(result)
            }
            None => {
                self.bytes.truncate(before);
                None
            }
        }
    }

    /// Adds a copy of a packet.
    pub(super) fn push(&mut self, packet: &[u8], meta: Meta) {
        self.bytes.extend_from_slice(packet);
        self.packets.push((self.bytes.len(), meta));
    }

    /// Returns the packets in their order.
    pub(super) fn packets(&self) -> impl Iterator<Item = (&[u8], Meta)> {
        let starts = std::iter::once(0).chain(self.packets.iter().map(|(end, _)| *end));
        starts.zip(&self.packets).map(|(start, (end, meta))| (&self.bytes[start..*end], *meta))
    }
}

/// How a packet of no flow fares with rules, limits, servers and ports: what carrying it out takes from each of them.
#[derive(Debug)]
pub(super) struct Opening {
    /// The rule that matched, or [`NO_RULE`].
    pub(super) rule: u16,
    /// The service that a flow was asked for.
    pub(super) service: Option<ServiceId>,
    /// What the limits give out, also where they refuse.
    pub(super) takes: Takes,
    /// The priority and the shortage for which a limit of the gateway refused it.
    pub(super) pressure: Option<(Priority, Pressed)>,
    /// The algorithm's proposals that were picked, in their order; the last may have led to a flow.
    pub(super) picks: Vec<Proposed>,
    /// Servers that were picked and could not take the flow, and why.
    pub(super) unfit: Vec<(ServerId, Reason)>,
    /// Whether limits were asked.
    pub(super) admission: Option<Result<(), Reason>>,
    /// Where the algorithms have drawn to.
    pub(super) draws: Draws,
    /// Where a NAT pool has drawn to, and whether it had no port.
    pub(super) nat: Option<(NatPoolId, Draw, bool)>,
    /// Whether the table was found full, and the flow that gives way.
    pub(super) full: bool,
    pub(super) victim: Option<u32>,
    /// The flow to be made, and how it follows its first packet.
    pub(super) new: Option<(NewFlow, PickedBy, Follow)>,
}

impl Opening {
    fn clear(&mut self) {
        self.picks.clear();
        self.unfit.clear();
        let (picks, unfit) = (std::mem::take(&mut self.picks), std::mem::take(&mut self.unfit));
        *self = Opening { picks, unfit, ..Opening::default() };
    }
}

impl Default for Opening {
    fn default() -> Self {
        Opening {
            rule: NO_RULE,
            service: None,
            takes: Takes::default(),
            pressure: None,
            picks: Vec::new(),
            unfit: Vec::new(),
            admission: None,
            draws: Draws::default(),
            nat: None,
            full: false,
            victim: None,
            new: None,
        }
    }
}

/// Memory that looks use again and again: what is too big for a [`Step`].
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) emission: Emission,
    pub(super) opening: Opening,
    /// For trying out whether a packet can be translated.
    pub(super) trial: Vec<u8>,
}

impl Scratch {
    /// Forgets the packet before; only packets of no flow fill it.
    pub(super) fn begin(&mut self) {
        self.emission.clear();
        self.opening.clear();
    }
}

/// When which pressure was last reported: by priority, of the table and of the rate.
#[derive(Debug, Default, Clone)]
pub(super) struct Pressures(pub(super) [[Option<Instant>; 2]; 3]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_a_packet_of_a_flow_is_passed_in_one_cache_line() {
        assert!(size_of::<Step>() <= 64, "{}", size_of::<Step>());
    }
}
