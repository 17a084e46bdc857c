//! A packet of no flow: does it open one, is it answered, passed on, or dropped?

use super::admit::{Ruled, no_end_would_answer};
use super::answers::can_be_answered;
use super::onward::hops;
use super::{Consumed, Engine, Forwarded, Reason, Verdict};
use crate::balance::{Pick, UnknownTcp};
use crate::config::NoRoom;
use crate::flow::{Found, InsertError, Key};
use crate::ids::{ServerId, ServiceId};
use crate::packet::build::Error;
use crate::packet::family;
use crate::packet::{Addresses, Meta, Parsed, Side, Transport, checksum, proto, word};
use crate::time::Instant;
use std::net::IpAddr;

/// Most servers that are tried for a flow whose return key is in use.
const MOST_TRIES: usize = 8;

impl Engine {
    /// Decides about a packet that has a key, but no flow.
    pub(super) fn miss(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        parsed: &Parsed,
        meta: Meta,
        key: &Key,
        packets: u64,
    ) -> Verdict {
        if let Some(verdict) = self.probe(now, packet, parsed, meta) {
            return verdict;
        }
        let (src, dst) = (key.src(), key.dst());
        let (rule, named) = match self.ruled(now, packet, parsed, key, meta) {
            Ruled::On(rule, named) => (rule, named),
            Ruled::Pass => return foreign(parsed),
            Ruled::Fate(verdict) => return verdict,
        };
        let listens = || self.directory.service(dst.ip(), key.protocol, key.dst_port);
        if let Some(service) = named.or_else(listens) {
            if hops(packet, parsed) <= 1 {
                return self.hops_are_over(now, packet, parsed);
            }
            if let Err(verdict) = self.may_open(now, packet, parsed, meta, key, service) {
                return verdict;
            }
            return match self.open(now, key, (packet, parsed, meta), service, rule) {
                Err(Reason::NoServer) => self.no_server(now, packet, parsed, meta, service),
                Err(reason @ (Reason::TableFull | Reason::NatExhausted | Reason::ReturnKeyTaken)) => {
                    self.no_room(now, packet, parsed, reason)
                }
                Err(Reason::Untranslatable) => self.untranslatable(now, packet, parsed, meta),
                Err(reason) => Verdict::Drop(reason),
                Ok(index) => {
                    let found = Found { index, side: Side::Client };
                    self.track(now, found, parsed);
                    let verdict = self.forward(now, packet, parsed, meta, found, (packets, true));
                    self.tell_opened(now, index);
                    verdict
                }
            };
        }
        if self.is_own(dst.ip()) {
            return match parsed.transport {
                Transport::Echo { request: true, .. } => self.echo(packet, parsed, meta),
                Transport::Echo { request: false, .. } => Verdict::Drop(Reason::IcmpUnhandled),
                _ => self.nobody_listens(now, packet, parsed, meta),
            };
        }
        let from_server = self.directory.is_server(src.ip(), key.protocol, key.src_port);
        // A server's own echo request is its own business; a late reply of no flow is not.
        let asks = matches!(parsed.transport, Transport::Echo { request: true, .. });
        if from_server && !asks {
            return Verdict::Drop(Reason::ServerNoFlow);
        }
        foreign(parsed)
    }

    /// Decides about a packet that can have no flow of its own: fragments, ICMP other than echo, what is not at its end yet.
    pub(super) fn without_key(&mut self, now: Instant, packet: &mut [u8], parsed: &Parsed, meta: Meta) -> Verdict {
        if let Some(verdict) = self.probe(now, packet, parsed, meta) {
            return verdict;
        }
        match parsed.transport {
            Transport::Icmp { .. } => self.icmp(now, packet, parsed, meta),
            Transport::Fragment { .. } => self.fragment(now, packet, parsed, meta),
            _ if !self.is_own(parsed.addresses.dst()) => foreign(parsed),
            Transport::Routed => self.detour(now, packet, parsed),
            _ => Verdict::Drop(Reason::OtherProtocol),
        }
    }

    /// Decides about a packet of a service address that has other ends than its header says.
    #[cold]
    fn detour(&mut self, now: Instant, packet: &[u8], parsed: &Parsed) -> Verdict {
        // A home address (RFC 6275, 6.3) is no route, and of a packet's fragments the first is answered (RFC 1122, 3.2.2).
        let is_answered = match parsed.addresses {
            Addresses::V4 { .. } => word(packet, 6) & 0x1fff == 0,
            Addresses::V6 { .. } => family::routing_type(packet).is_some(),
        };
        if !self.refusals.other_protocol || !is_answered {
            return Verdict::Drop(Reason::Detour);
        }
        self.answer(now, packet, parsed, Error::SourceRoute, Consumed::SourceRoute)
    }

    /// Whether an address is the gateway's to answer for.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.directory.is_service_address(address) || self.directory.is_nat_address(address)
    }

    /// Answers a packet to an address of the gateway's own where no service listens, as the settings say.
    fn nobody_listens(&mut self, now: Instant, packet: &[u8], parsed: &Parsed, meta: Meta) -> Verdict {
        let (answers, why, reason) = match parsed.transport {
            Transport::Other => (self.refusals.other_protocol, Error::Protocol, Reason::OtherProtocol),
            _ => (self.refusals.no_service, Error::Port, Reason::NoService),
        };
        if !answers || no_end_would_answer(packet, parsed, meta) {
            return Verdict::Drop(reason);
        }
        self.refuse(now, packet, parsed, why, true, Consumed::Closed)
    }

    /// Tells the client of a new flow that there is no room for it, as the settings say (RFC 5508 REQ-8; RFC 6888 REQ-11).
    fn no_room(&mut self, now: Instant, packet: &[u8], parsed: &Parsed, reason: Reason) -> Verdict {
        let why = match self.refusals.no_room {
            NoRoom::Prohibited => Error::Prohibited,
            NoRoom::HostUnreachable => Error::Host,
            NoRoom::Drop => return Verdict::Drop(reason),
        };
        // It is dropped for want of room, whether or not there is room to say so.
        let _ = self.answer(now, packet, parsed, why, Consumed::Rejected);
        Verdict::Drop(reason)
    }

    /// Whether a packet to a service may open a flow; else what becomes of it.
    fn may_open(
        &mut self,
        now: Instant,
        packet: &[u8],
        parsed: &Parsed,
        meta: Meta,
        key: &Key,
        service: ServiceId,
    ) -> Result<(), Verdict> {
        // A service address as the source would have two servers talk to each other without end.
        if !can_be_answered(&key.addresses) || self.directory.is_only_own(key.addresses.src()) {
            return Err(Verdict::Drop(Reason::BadSource));
        }
        match parsed.transport {
            Transport::Tcp { src: 0, .. } | Transport::Udp { src: 0, .. } | Transport::Sctp { src: 0, .. } => {
                Err(Verdict::Drop(Reason::BadPort))
            }
            Transport::Tcp { flags, .. } if !flags.syn() || flags.ack() => {
                let settings = self.balancer.service(service);
                let (unknown_tcp, full) = (settings.unknown_tcp, settings.nat.pool_for(key.addresses.src()).is_some());
                let adopts = unknown_tcp == UnknownTcp::Adopt && !full;
                // A segment without an acknowledgement is of no open connection (RFC 9293, 3.10.7.4); with full NAT its
                // server knows it by a source that nobody knows any more.
                if adopts && flags.ack() && !flags.syn() && !flags.rst() && sum_is_right(packet, parsed, meta) {
                    return Ok(());
                }
                Err(match unknown_tcp {
                    UnknownTcp::Adopt if full && sum_is_right(packet, parsed, meta) => self.answers.reset(now, parsed),
                    UnknownTcp::Reset if sum_is_right(packet, parsed, meta) => self.answers.reset(now, parsed),
                    _ => Verdict::Drop(Reason::TcpNoFlow),
                })
            }
            Transport::Echo { request: false, .. } => Err(Verdict::Drop(Reason::IcmpUnhandled)),
            Transport::Echo { .. } if !sum_is_right(packet, parsed, meta) => {
                Err(Verdict::Drop(Reason::BadIcmpChecksum))
            }
            _ => Ok(()),
        }
    }

    /// Picks a server and inserts the flow.
    fn open(
        &mut self,
        now: Instant,
        key: &Key,
        packet: (&[u8], &Parsed, Meta),
        service: ServiceId,
        rule: u16,
    ) -> Result<u32, Reason> {
        self.admit(now, key, service, rule)?;
        let profile = self.balancer.service(service).profile(key.protocol, key.dst_port);
        let mut tried = [ServerId(u32::MAX); MOST_TRIES];
        let mut why = Reason::NoServer;
        for tries in 0..MOST_TRIES {
            let Some(pick) = self.balancer.pick(now, service, key, &tried[..tries]) else {
                return Err(why);
            };
            let server = pick.server;
            tried[tries] = server;
            let answer = match self.answer_key(now, key, packet, service, server) {
                // Another one may be of the packet's own family.
                Err(Reason::Untranslatable) => {
                    why = Reason::Untranslatable;
                    continue;
                }
                answer => answer?,
            };
            let mut inserted = self.table.insert(now, key, &answer, service, server, profile);
            if inserted == Err(InsertError::Full) {
                if let Err(reason) = self.make_room(now) {
                    self.unneeded(service, &answer);
                    return Err(reason);
                }
                inserted = self.table.insert(now, key, &answer, service, server, profile);
            }
            match inserted {
                Ok(index) => {
                    self.opened(now, index, key, service, pick, rule);
                    return Ok(index);
                }
                Err(InsertError::Taken(_)) => {
                    self.unneeded(service, &answer);
                    why = Reason::ReturnKeyTaken;
                }
                Err(InsertError::Full) => {
                    self.unneeded(service, &answer);
                    return Err(Reason::TableFull);
                }
            }
        }
        Err(why)
    }

    /// Counts a flow that was made, and lets everyone know who must.
    fn opened(&mut self, now: Instant, index: u32, key: &Key, service: ServiceId, pick: Pick, rule: u16) {
        let flow = self.table.flow_mut(index);
        (flow.rule, flow.picked_by) = (rule, pick.by as u8);
        self.totals.opened += 1;
        self.servers[pick.server.0 as usize].flows_total += 1;
        let totals = &mut self.services[service.0 as usize];
        totals.flows += 1;
        totals.flows_total += 1;
        self.balancer.opened(now, service, key, pick);
        self.policy.opened(rule, key.addresses.src());
    }

    fn echo(&mut self, packet: &[u8], parsed: &Parsed, meta: Meta) -> Verdict {
        if !can_be_answered(&parsed.addresses) {
            return Verdict::Drop(Reason::BadSource);
        }
        if !sum_is_right(packet, parsed, meta) {
            return Verdict::Drop(Reason::BadIcmpChecksum);
        }
        self.answers.echo(packet, parsed, meta)
    }
}

pub(super) fn foreign(parsed: &Parsed) -> Verdict {
    Verdict::Forward { len: parsed.len, why: Forwarded::Foreign }
}

/// Whether the sum of an ICMP message (RFC 5508 REQ-3) or a TCP segment (RFC 9293, 3.1) is right; a partial one is
/// taken at its word, and a first fragment has none for what is here.
pub(super) fn sum_is_right(packet: &[u8], parsed: &Parsed, meta: Meta) -> bool {
    let message = &packet[parsed.offset..parsed.len];
    let start = match parsed.protocol {
        proto::ICMP => 0,
        protocol => checksum::pseudo(&parsed.addresses, protocol, message.len()),
    };
    meta.partial_checksum || !parsed.whole || checksum::fold(checksum::add(start, message)) == 0xffff
}
