//! A packet without a flow: whether it opens one, or is answered, passed or dropped.

use super::super::arrival::Arrival;
use super::super::pair::Duty;
use super::super::plan::Owner;
use super::super::step::{Fate, For, Reply, Scratch, Settled, Step};
use super::super::{Consumed, Reason};
use super::Look;
use super::admit::Ruled;
use super::answer::{can_be_answered, no_end_would_answer, sum_is_right};
use crate::balance::UnknownTcp;
use crate::flow::{Key, Piece};
use crate::ids::ServiceId;
use crate::packet::build::{self, Error};
use crate::packet::{Addresses, Meta, Protocol, Transport, family, word};
use std::net::SocketAddr;

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
        let on = |service: &ServiceId| self.plan.service(*service).enabled;
        let Some(service) = named.or_else(listens).filter(on) else {
            let adopted = self.adopt_from_server(arrival, key, scratch);
            return adopted.unwrap_or_else(|| self.no_service(arrival, key, scratch).into());
        };
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
            _ if !self.is_own(addresses.dst()) => Settled::FOREIGN.into(),
            Transport::Routed => self.detour(arrival, scratch).into(),
            _ => Settled::drop(Reason::OtherProtocol).into(),
        }
    }

    /// Decides whether the fragment store sees a fragment, or it passes unchanged.
    #[cold]
    fn fragment(&self, arrival: &Arrival<'_>, (offset, more, id): (u16, bool, u32)) -> Step {
        let (parsed, addresses) = (&arrival.parsed, arrival.parsed.addresses);
        let may_be_ours = self.is_own(addresses.dst())
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
        if self.is_own(key.addresses.dst()) {
            if self.standing.duty() != Duty::Full && self.may_be_the_peers(arrival, key) {
                return Settled::drop(Reason::OtherGateway);
            }
            return match transport {
                Transport::Echo { request: true, .. } => self.echo(arrival, scratch),
                Transport::Echo { request: false, .. } => Settled::drop(Reason::IcmpUnhandled),
                _ => self.nobody_listens(arrival, scratch),
            };
        }
        let from_server = || self.plan.directory().is_server(key.addresses.src(), key.protocol, key.src_port);
        // From a server's service port, too: it talks for itself, or to somebody who did not come by the service address.
        // A connection that bypassed the gateway looks the same as one whose flow it has forgotten.
        match transport {
            Transport::Tcp { flags, .. } if flags.rst() || !from_server() => Settled::FOREIGN,
            Transport::Tcp { flags, .. } if flags.syn() => Settled::DIRECT,
            Transport::Tcp { .. } if !self.table().is_direct(key) => self.unknown_to_us(arrival, key, scratch),
            _ => Settled::FOREIGN,
        }
    }

    /// Returns whether a packet to an address of this gateway may be of a flow that only its peer knows: a segment of an open
    /// connection, or what a server sends to a NAT address.
    fn may_be_the_peers(&self, arrival: &Arrival<'_>, key: &Key) -> bool {
        match arrival.parsed.transport {
            Transport::Tcp { flags, .. } => !flags.syn() || flags.ack(),
            Transport::Echo { .. } => false,
            _ => self.plan.directory().is_nat_address(key.addresses.dst()),
        }
    }

    /// Answers a server that sends on a connection which is not known here, as after a restart of the gateway: with a
    /// reset in the client's name, and the client with one in the service's name if it can only be one service's. Not
    /// if the connection may yet be adopted by its client's packets, or if its service answers nothing. Where strays pass, the client itself answers
    /// the server.
    #[cold]
    fn unknown_to_us(&self, arrival: &Arrival<'_>, key: &Key, scratch: &mut Scratch) -> Settled {
        if self.standing.duty() != Duty::Full {
            return Settled::drop(Reason::OtherGateway);
        }
        let (answers, passes) = (self.shard.answers(), self.shard.passes_strays());
        let owners = self.plan.owners(key);
        let says = |says| owners.iter().any(|owner| self.plan.service(owner.service).unknown_tcp == says);
        // Until it is adopted, its server shall send again.
        let stray = match passes && !says(UnknownTcp::Adopt) {
            true => Settled::FOREIGN,
            false => Settled::drop(Reason::ServerNoFlow),
        };
        let (Transport::Tcp { seq, ack, flags, .. }, client) = (arrival.parsed.transport, key.addresses.dst()) else {
            return stray;
        };
        let may = can_be_answered(&arrival.parsed.addresses) && sum_is_right(arrival);
        if !may || !answers.allows(arrival.now, For::Forgotten) || !answers.has_room(2 * build::MOST) {
            return stray;
        }
        let client_key = |listen: SocketAddr| {
            let addresses = Addresses::new(listen.ip(), client)?;
            let sent = Key { addresses, src_port: listen.port(), dst_port: key.dst_port, protocol: Protocol::Tcp };
            Some(sent.reversed())
        };
        let ended = |owner: &Owner| {
            let key = owner.listen.and_then(client_key);
            key.is_some_and(|key| self.table().has_just_ended(arrival.now, &key))
        };
        if arrival.parsed.payload_len() == 0 && owners.iter().any(ended) {
            return Settled::drop(Reason::RecentlyEnded);
        }
        if says(UnknownTcp::Adopt) || !says(UnknownTcp::Reset) {
            return stray;
        }
        let mut packet = [0; build::MOST];
        scratch.emission.clear();
        if !passes {
            let Some(len) = build::reset(&mut packet, arrival.parsed) else { return stray };
            scratch.emission.push(&packet[..len], Meta::default());
        }
        if let Some(known) = the_one(&owners).and_then(client_key)
            && !self.table().is_taken(&known, self.without())
        {
            let (addresses, ports) = (known.addresses.reversed(), (known.dst_port, known.src_port));
            let next = if flags.ack() { ack } else { 0 };
            if let Some(len) = build::reset_flow(&mut packet, &addresses, ports, seq, next) {
                scratch.emission.push(&packet[..len], Meta::default());
            }
        }
        match (passes, scratch.emission.packets().next()) {
            (false, _) => Settled { fate: Fate::Consume(Consumed::Reset), reply: Reply::Limited(For::Forgotten) },
            (true, None) => stray,
            (true, Some(_)) => Settled { fate: Fate::Foreign, reply: Reply::Limited(For::Forgotten) },
        }
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
            // It would be answered by a reset, or adopted by another server than its own.
            Transport::Tcp { flags, .. } if (!flags.syn() || flags.ack()) && self.standing.duty() != Duty::Full => {
                Err(Settled::drop(Reason::OtherGateway))
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

/// Returns the service address that all owners share.
pub(super) fn the_one(owners: &[Owner]) -> Option<SocketAddr> {
    let first = owners.first()?.listen?;
    owners.iter().all(|owner| owner.listen == Some(first)).then_some(first)
}
