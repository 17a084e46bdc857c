//! Replies in the services' name: whether a packet may be answered at all, and with what.

use super::super::arrival::Arrival;
use super::super::step::{Fate, For, Reply, Scratch, Settled};
use super::super::{Consumed, Reason};
use super::Look;
use crate::packet::build::{self, Error};
use crate::packet::{Addresses, Meta, Transport, checksum, error_kind, proto, rewrite};
use std::net::IpAddr;

/// Room reserved for an ICMP error: none is longer (RFC 1812, 4.3.2.3; RFC 4443, 2.4 c).
const LONGEST_ERROR: usize = 1280;

impl Look<'_> {
    /// Answers a packet with an ICMP error in the name of its destination, if it may be answered with one.
    pub(super) fn answer(
        &self,
        arrival: &Arrival<'_>,
        scratch: &mut Scratch,
        why: Error,
        as_what: Consumed,
    ) -> Settled {
        self.answer_to(arrival, scratch, why, as_what, For::Strangers)
    }

    /// Answers it likewise, counted against the limit for `whom`.
    pub(super) fn answer_to(
        &self,
        arrival: &Arrival<'_>,
        scratch: &mut Scratch,
        why: Error,
        as_what: Consumed,
        whom: For,
    ) -> Settled {
        let parsed = &arrival.parsed;
        if !can_be_answered(&parsed.addresses) || error_kind(arrival.bytes, parsed).is_some() {
            return Settled::drop(Reason::BadSource);
        }
        if !self.shard.answers().allows(arrival.now, whom) {
            return Settled::drop(Reason::AnswerLimit);
        }
        if !self.shard.answers().has_room(LONGEST_ERROR) {
            return Settled::drop(Reason::AnswerQueueFull);
        }
        scratch.emission.clear();
        let written =
            scratch.emission.add(|out| build::error(out, arrival.bytes, parsed, why).map(|()| (Meta::default(), ())));
        match written {
            None => Settled::drop(Reason::AnswerLimit),
            Some(()) => Settled { fate: Fate::Consume(as_what), reply: Reply::Limited(whom) },
        }
    }

    /// Answers a packet without a flow: TCP with a reset if that is configured, everything else with an ICMP error.
    pub(super) fn refuse(
        &self,
        arrival: &Arrival<'_>,
        scratch: &mut Scratch,
        why: Error,
        reset: bool,
        as_what: Consumed,
    ) -> Settled {
        if !can_be_answered(&arrival.parsed.addresses) {
            return Settled::drop(Reason::BadSource);
        }
        if !reset || arrival.parsed.protocol != proto::TCP {
            return self.answer(arrival, scratch, why, as_what);
        }
        match self.reset(arrival, scratch) {
            Settled { fate: Fate::Consume(_), reply } => Settled { fate: Fate::Consume(as_what), reply },
            // Over the limit nothing is answered.
            Settled { fate: Fate::Drop(Reason::TcpNoFlow), .. } => Settled::drop(Reason::AnswerLimit),
            other => other,
        }
    }

    /// Answers a TCP packet without a flow with a reset (RFC 9293, 3.10.7.1), within the limit.
    pub(super) fn reset(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Settled {
        let mut packet = [0; build::MOST];
        let Some(len) = build::reset(&mut packet, arrival.parsed) else { return Settled::drop(Reason::TcpNoFlow) };
        if !self.shard.answers().allows(arrival.now, For::Strangers) {
            return Settled::drop(Reason::TcpNoFlow);
        }
        if !self.shard.answers().has_room(len) {
            return Settled::drop(Reason::AnswerQueueFull);
        }
        scratch.emission.clear();
        scratch.emission.push(&packet[..len], Meta::default());
        Settled { fate: Fate::Consume(Consumed::Reset), reply: Reply::Limited(For::Strangers) }
    }

    /// Answers an echo request to one of the gateway's own addresses (RFC 1122, 3.2.2.6; RFC 4443, 4.2).
    pub(super) fn echo(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Settled {
        let parsed = &arrival.parsed;
        if !can_be_answered(&parsed.addresses) {
            return Settled::drop(Reason::BadSource);
        }
        if !sum_is_right(arrival) {
            return Settled::drop(Reason::BadIcmpChecksum);
        }
        if !self.shard.answers().has_room(parsed.len) {
            return Settled::drop(Reason::AnswerQueueFull);
        }
        scratch.emission.clear();
        scratch.emission.add(|out| {
            let start = out.len();
            out.extend_from_slice(&arrival.bytes[..parsed.len]);
            let reply = &mut out[start..];
            rewrite::echo_reply(reply, parsed);
            if arrival.meta.partial_checksum {
                build::complete_icmp_sum(reply, parsed);
            }
            Some((Meta::default(), ()))
        });
        Settled { fate: Fate::Consume(Consumed::Echo), reply: Reply::Unlimited }
    }
}

/// Returns whether a reply could reach a packet's source (RFC 1122, 3.2.1.3; RFC 4291, 2.5.2 and 2.7).
pub(in crate::engine) fn can_be_answered(addresses: &Addresses) -> bool {
    let src = addresses.src();
    let odd = match src {
        // 0.0.0.0/8 is "this network", 240.0.0.0/4 is reserved and holds the broadcast address.
        IpAddr::V4(src) => src.octets()[0] == 0 || src.octets()[0] >= 224,
        IpAddr::V6(src) => src.is_unspecified() || src.is_multicast(),
    };
    !odd && !src.is_loopback() && src != addresses.dst()
}

/// Returns whether the checksum of an ICMP message (RFC 5508 REQ-3) or a TCP segment (RFC 9293, 3.1) is valid. A
/// partial one is trusted, and that of a first fragment cannot be checked here.
pub(in crate::engine) fn sum_is_right(arrival: &Arrival<'_>) -> bool {
    let Arrival { bytes, parsed, meta, .. } = arrival;
    let message = &bytes[parsed.offset..parsed.len];
    let start = match parsed.protocol {
        proto::ICMP => 0,
        protocol => checksum::pseudo(&parsed.addresses, protocol, message.len()),
    };
    meta.is_unfinished() || !parsed.whole || checksum::fold(checksum::add(start, message)) == 0xffff
}

/// Returns whether no host would answer a packet: a reset (RFC 9293, 3.10.7.1), or a segment or datagram with a bad
/// checksum (RFC 1122, 4.2.2.7 and 4.1.3.4).
pub(super) fn no_end_would_answer(arrival: &Arrival<'_>) -> bool {
    let Arrival { bytes, parsed, meta, .. } = arrival;
    match parsed.transport {
        Transport::Tcp { flags, .. } => flags.rst() || !sum_is_right(arrival),
        Transport::Udp { .. } if parsed.whole && !meta.is_unfinished() => {
            let datagram = &bytes[parsed.offset..parsed.len];
            let len = usize::from(u16::from_be_bytes([datagram[4], datagram[5]])).min(datagram.len());
            let start = checksum::pseudo(&parsed.addresses, parsed.protocol, len);
            let none = datagram[6..8] == [0, 0] && !parsed.addresses.is_v6();
            !none && checksum::fold(checksum::add(start, &datagram[..len])) != 0xffff
        }
        _ => false,
    }
}
