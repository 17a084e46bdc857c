//! A packet without a flow: whether it opens one, or is answered, passed or dropped.

use super::super::arrival::Arrival;
use super::super::step::{Scratch, Settled, Step};
use super::super::{Consumed, Reason};
use super::Look;
use super::admit::Ruled;
use super::answer::{can_be_answered, no_end_would_answer, sum_is_right};
use crate::balance::UnknownTcp;
use crate::flow::{Key, Piece};
use crate::ids::ServiceId;
use crate::packet::build::Error;
use crate::packet::{Addresses, Transport, family, word};

impl Look<'_> {
    /// Decides a packet that has a key but no flow.
    pub(super) fn miss(&self, arrival: &Arrival<'_>, key: &Key, scratch: &mut Scratch) -> Step {
        scratch.begin();
        if self.standing.is_probe(self.plan, &key.addresses) {
            return Step::Probe;
        }
        let named = match self.ruled(arrival, key, scratch) {
            Ruled::On(named) => named,
            Ruled::Settled(settled) => return settled.into(),
        };
        let listens = || self.plan.directory().service(key.addresses.dst(), key.protocol, key.dst_port);
        let Some(service) = named.or_else(listens) else { return self.no_service(arrival, key, scratch).into() };
        scratch.opening.service = Some(service);
        if arrival.hops() <= 1 {
            return self.hop_limit_exceeded(arrival, scratch).into();
        }
        match self.may_open(arrival, key, service, scratch) {
            Err(settled) => settled.into(),
            Ok(()) => self.open(arrival, key, service, scratch),
        }
    }

    /// Decides a packet that cannot have a flow of its own: fragments, ICMP other than echo, packets that have not
    /// reached their final destination.
    pub(super) fn without_key(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Step {
        scratch.begin();
        let addresses = &arrival.parsed.addresses;
        if self.standing.is_probe(self.plan, addresses) {
            return Step::Probe;
        }
        match arrival.parsed.transport {
            Transport::Icmp { .. } => self.icmp(arrival, scratch),
            Transport::Fragment { offset, more, id } => self.fragment(arrival, (offset, more, id)),
            _ if !self.plan.is_own(addresses.dst()) => Settled::FOREIGN.into(),
            Transport::Routed => self.detour(arrival, scratch).into(),
            _ => Settled::drop(Reason::OtherProtocol).into(),
        }
    }

    /// Decides whether the fragment store sees a fragment, or it passes unchanged.
    #[cold]
    fn fragment(&self, arrival: &Arrival<'_>, (offset, more, id): (u16, bool, u32)) -> Step {
        let (parsed, addresses) = (&arrival.parsed, arrival.parsed.addresses);
        let may_be_ours = self.plan.is_own(addresses.dst())
            || self.plan.directory().is_server_address(addresses.src())
            || !self.plan.rules().is_empty();
        if !may_be_ours {
            return Settled::FOREIGN.into();
        }
        let end = u32::from(offset) + (parsed.len - parsed.offset) as u32;
        Step::Fragment { id, piece: Piece { start: offset, end, last: !more } }
    }

    /// Decides a packet that nothing here listens for.
    fn no_service(&self, arrival: &Arrival<'_>, key: &Key, scratch: &mut Scratch) -> Settled {
        let transport = arrival.parsed.transport;
        if self.plan.is_own(key.addresses.dst()) {
            return match transport {
                Transport::Echo { request: true, .. } => self.echo(arrival, scratch),
                Transport::Echo { request: false, .. } => Settled::drop(Reason::IcmpUnhandled),
                _ => self.nobody_listens(arrival, scratch),
            };
        }
        // Also from a server's service port: it talks to somebody who did not come by the service address, or for itself.
        Settled::FOREIGN
    }

    /// Decides a packet of a service address whose endpoints differ from those in its header.
    #[cold]
    fn detour(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Settled {
        // A home address (RFC 6275, 6.3) is not a route, and of a packet's fragments only the first is answered (RFC
        // 1122, 3.2.2).
        let is_answered = match arrival.parsed.addresses {
            Addresses::V4 { .. } => word(arrival.bytes, 6) & 0x1fff == 0,
            Addresses::V6 { .. } => family::routing_type(arrival.bytes).is_some(),
        };
        if !self.plan.answers().other_protocol || !is_answered {
            return Settled::drop(Reason::Detour);
        }
        self.answer(arrival, scratch, Error::SourceRoute, Consumed::SourceRoute)
    }

    /// Answers a packet to one of the gateway's own addresses on which no service listens, as the settings specify.
    fn nobody_listens(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Settled {
        let answers = self.plan.answers();
        let (answers, why, reason) = match arrival.parsed.transport {
            Transport::Other => (answers.other_protocol, Error::Protocol, Reason::OtherProtocol),
            _ => (answers.no_service, Error::Port, Reason::NoService),
        };
        if !answers || no_end_would_answer(arrival) {
            return Settled::drop(reason);
        }
        self.refuse(arrival, scratch, why, true, Consumed::Closed)
    }

    /// Returns whether a packet to a service may open a flow, or otherwise its outcome.
    fn may_open(
        &self,
        arrival: &Arrival<'_>,
        key: &Key,
        service: ServiceId,
        scratch: &mut Scratch,
    ) -> Result<(), Settled> {
        // With a service address as the source, two servers would talk to each other endlessly.
        if !can_be_answered(&key.addresses) || self.plan.directory().is_only_own(key.addresses.src()) {
            return Err(Settled::drop(Reason::BadSource));
        }
        match arrival.parsed.transport {
            Transport::Tcp { src: 0, .. } | Transport::Udp { src: 0, .. } | Transport::Sctp { src: 0, .. } => {
                Err(Settled::drop(Reason::BadPort))
            }
            // Both ends have closed this connection, or one has reset it: a late FIN or ACK needs no answer. Data does:
            // its sender believes in the connection.
            Transport::Tcp { flags, .. }
                if !flags.syn()
                    && arrival.parsed.payload_len() == 0
                    && self.table().has_just_ended(arrival.now, key) =>
            {
                Err(Settled::drop(Reason::RecentlyEnded))
            }
            Transport::Tcp { flags, .. } if !flags.syn() || flags.ack() => {
                let settings = self.plan.service(service);
                let full = settings.nat.pool_for(key.addresses.src()).is_some();
                let adopts = settings.unknown_tcp == UnknownTcp::Adopt && !full;
                // A segment without an acknowledgement belongs to no open connection (RFC 9293, 3.10.7.4); with full
                // NAT, its server knows the connection by a source that was stored only in the flow.
                if adopts && flags.ack() && !flags.syn() && !flags.rst() && sum_is_right(arrival) {
                    return Ok(());
                }
                Err(match settings.unknown_tcp {
                    UnknownTcp::Adopt if full && sum_is_right(arrival) => self.reset(arrival, scratch),
                    UnknownTcp::Reset if sum_is_right(arrival) => self.reset(arrival, scratch),
                    _ => Settled::drop(Reason::TcpNoFlow),
                })
            }
            Transport::Echo { request: false, .. } => Err(Settled::drop(Reason::IcmpUnhandled)),
            Transport::Echo { .. } if !sum_is_right(arrival) => Err(Settled::drop(Reason::BadIcmpChecksum)),
            _ => Ok(()),
        }
    }
}
