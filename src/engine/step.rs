//! What to do with a packet, as a value: [`super::look`] produces it, and carrying it out decides nothing more.

use super::{Consumed, Ended, Pressed, Reason, Short};
use crate::balance::{Draws, PickedBy, Priority, Proposed, Stale};
use crate::flow::{Draw, Found, NewFlow, Piece, Room, Table, TimeoutState, Track};
use crate::ids::{NatPoolId, ServerId, ServiceId};
use crate::packet::rewrite::Inner;
use crate::packet::{Addresses, Meta, Quote, Side};
use crate::policy::{NO_RULE, Takes};
use crate::time::Instant;

/// What to do with a packet.
#[derive(Debug)]
pub(super) enum Step {
    /// Some time-dependent state has to be brought up to date; then look again.
    Prepare(Prepare),
    /// It belongs to a flow.
    Hit(Hit),
    /// It opens a flow, described in [`Scratch::opening`].
    Open(Onward),
    /// It belongs to no flow and opens none: [`Scratch::opening`] holds what it uses nevertheless.
    Settle(Settled),
    /// It belongs to a flow, is not sent on, and leaves its flow unchanged.
    Stop(Settled),
    /// It ends its flow and is not sent on: both ends get resets.
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
        /// What the packet indicates about the flow's server.
        sign: Option<Sign>,
    },
    /// Its client has no such connection: the flow ends, and from then on its server's segments pass. It is not sent on.
    Disown {
        /// The flow's slot.
        flow: u32,
    },
    /// It is an ICMP error about a packet of a flow.
    Error(Box<FlowError>),
    /// It belongs to the monitors, which decide its outcome.
    Probe,
    /// It is a fragment: the fragment store decides its outcome.
    Fragment {
        /// The identification of its packet.
        id: u32,
        piece: Piece,
    },
}

/// What has to be brought up to date before a packet can be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepare {
    /// The weights of a service's servers, or the window of its algorithm.
    Servers(Stale),
    /// The ports of a NAT pool whose rest is over.
    Ports(NatPoolId),
}

/// A packet of a flow.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) found: Found,
    /// The flow's next state, if the packet is sent on.
    pub(super) follow: Follow,
    /// What the packet indicates about the flow's server.
    pub(super) sign: Option<Sign>,
    pub(super) onward: Onward,
}

impl Hit {
    /// Returns whether the packet completes the handshake of a half-open flow, which leaves for the table.
    #[inline]
    pub(super) fn leaves_half_open(&self) -> bool {
        Table::is_half_open(self.found.index)
            && self.onward.goes_on()
            && matches!(&self.follow, Follow::Tcp(track) if track.leaves_half_open())
    }
}

/// The flow's next state after a packet that is sent on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Follow {
    /// As computed by the TCP tracker.
    Tcp(Track),
    /// Its timeout restarts, in this state.
    Touch(TimeoutState),
}

/// What a packet indicates about its flow's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answered.
    Answered(ServerId),
    /// It cannot be reached, or refuses.
    Trouble(ServerId),
}

/// How a packet of a flow is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Onward {
    /// Rewritten in place.
    Rewrite {
        /// The greatest maximum segment size that a SYN may announce.
        mss: Option<u16>,
        /// The identification that a first fragment is sent on with, if it is not its own.
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

/// The outcome of a packet that is not sent on for a flow, and whether an answer in [`Scratch::emission`] is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) fate: Fate,
    pub(super) reply: Reply,
}

/// The outcome of a packet that is not sent on for a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes unchanged.
    Foreign,
    /// The same, and the connection that it accepts is remembered as none of a service's.
    Direct,
    Consume(Consumed),
    Drop(Reason),
}

/// Whether an answer is sent, and which limit it counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    None,
    Unlimited,
    Limited(For),
}

/// Whom a limit on answers applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Senders that have proved nothing yet and may be spoofed.
    Strangers,
    /// The ends of flows in which both have sent.
    Peers,
    /// The ends of connections that the gateway has forgotten, or never knew.
    Forgotten,
}

impl Settled {
    pub(super) const FOREIGN: Settled = Settled { fate: Fate::Foreign, reply: Reply::None };
    pub(super) const DIRECT: Settled = Settled { fate: Fate::Direct, reply: Reply::None };

    pub(super) const fn drop(reason: Reason) -> Settled {
        Settled { fate: Fate::Drop(reason), reply: Reply::None }
    }
}

impl From<Settled> for Step {
    fn from(settled: Settled) -> Step {
        Step::Settle(settled)
    }
}

/// An ICMP error about a packet of a flow. It neither counts for the flow nor affects it (RFC 5508 REQ-6; RFC 5382
/// REQ-10).
#[derive(Debug)]
pub(super) struct FlowError {
    /// The flow, and the side that the error came from.
    pub(super) found: Found,
    /// What it indicates about the flow's server.
    pub(super) sign: Option<Sign>,
    pub(super) onward: ErrorOnward,
}

/// How an ICMP error is sent on.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is kept in the box of its step")]
pub(super) enum ErrorOnward {
    /// Rewritten in place.
    Rewrite {
        about: Quote,
        outer: Addresses,
        inner: Inner,
        /// The identification that the quoted fragment arrived with, if it was sent on with another.
        id: Option<u16>,
    },
    /// As the packet in [`Scratch::emission`], in the other family.
    Emit,
    /// Not at all; `ids` identifications were taken nevertheless.
    Stop { settled: Settled, ids: u32 },
}

/// Packets that are sent in place of the received one, or in reply to it.
#[derive(Debug, Default)]
pub(super) struct Emission {
    bytes: Vec<u8>,
    /// Per packet: its end offset, and its metadata for the device.
    packets: Vec<(usize, Meta)>,
}

impl Emission {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
    }

    /// Appends what `write` writes as one packet; appends nothing if it returns none.
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

    /// Appends a copy of a packet.
    pub(super) fn push(&mut self, packet: &[u8], meta: Meta) {
        self.bytes.extend_from_slice(packet);
        self.packets.push((self.bytes.len(), meta));
    }

    /// Returns the packets in order.
    pub(super) fn packets(&self) -> impl Iterator<Item = (&[u8], Meta)> {
        let starts = std::iter::once(0).chain(self.packets.iter().map(|(end, _)| *end));
        starts.zip(&self.packets).map(|(start, (end, meta))| (&self.bytes[start..*end], *meta))
    }
}

/// A packet without a flow: what it uses of rules, limits, servers and ports when it is carried out.
#[derive(Debug)]
pub(super) struct Opening {
    /// The rule that matched, or [`NO_RULE`].
    pub(super) rule: u16,
    /// The service that the flow was for.
    pub(super) service: Option<ServiceId>,
    /// What is taken from the limits, even if they refuse.
    pub(super) takes: Takes,
    /// The priority and the kind of shortage for which a gateway limit refused it.
    pub(super) pressure: Option<(Priority, Pressed)>,
    /// The algorithm's proposals that were picked, in order; the last may have led to a flow.
    pub(super) picks: Vec<Proposed>,
    /// Servers that were picked and could not take the flow, and why.
    pub(super) unfit: Vec<(ServerId, Reason)>,
    /// Whether limits were checked.
    pub(super) admission: Option<Result<(), Reason>>,
    /// The random state of the algorithms after the look.
    pub(super) draws: Draws,
    /// The random state of a NAT pool after the look, and whether the flow is refused because it had no port.
    pub(super) nat: Option<(NatPoolId, Draw, bool)>,
    /// What was found full, and how room is made there.
    pub(super) short: Option<Short>,
    pub(super) room: Option<Room>,
    /// A flow that is over and yields its return key.
    pub(super) yields: Option<u32>,
    /// The flow whose client has proved itself to no effect, as there is no room or a limit is reached.
    pub(super) stalled: Option<u32>,
    /// The rule whose limit it was, or [`NO_RULE`].
    pub(super) refused_by: u16,
    /// The flow to be created, and its state after its first packet.
    pub(super) new: Option<(NewFlow, PickedBy, Follow)>,
    /// Who has sent that packet.
    pub(super) from: Side,
}

impl Opening {
    pub(super) fn clear(&mut self) {
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
            short: None,
            room: None,
            yields: None,
            stalled: None,
            refused_by: NO_RULE,
            new: None,
            from: Side::Client,
        }
    }
}

/// Memory that looks reuse: what is too big for a [`Step`].
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) emission: Emission,
    pub(super) opening: Opening,
    /// How many packets needed more than [`super::look::Look::plain`].
    pub(super) looks: u64,
    /// For packets of the engine's own on their way out of a batch; 65,535 bytes after the first batch.
    pub(super) own: Vec<u8>,
    /// For checking whether a packet can be translated.
    pub(super) trial: Vec<u8>,
    /// Whether ports whose rest is over have been freed for this packet: once for each, and again if none is free.
    pub(super) has_freed_ports: bool,
}

impl Scratch {
    /// Clears the previous look; only packets without a flow fill it.
    pub(super) fn begin(&mut self) {
        self.emission.clear();
        self.opening.clear();
    }
}

/// When each kind of pressure was last reported: by priority, for the table and for the rate.
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
