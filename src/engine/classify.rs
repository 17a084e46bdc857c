//! The first steps of every packet: what it is, and whether it belongs to a flow.

use super::onward::hops;
use super::standing::Abandoned;
use super::{Engine, Reason, Verdict};
use crate::flow::{Key, Tracked};
use crate::packet::{Malformed, Meta, Parsed, Protocol, Side, Transport};
use crate::time::Instant;

impl Engine {
    /// Decides about a packet whose headers are sound.
    #[inline]
    pub(super) fn decide(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        parsed: &Parsed,
        meta: Meta,
        packets: u64,
    ) -> Verdict {
        let Some(key) = key(parsed) else { return self.without_key(now, packet, parsed, meta) };
        if let Some(found) = self.table.find(&key) {
            if hops(packet, parsed) <= 1 {
                return self.hops_are_over(now, packet, parsed);
            }
            let flow = self.table.flow(found.index);
            let unanswered = flow.packets[Side::Server as usize] == 0;
            if self.servers[flow.server_id.0 as usize].gone {
                match self.abandon(now, found, parsed) {
                    Abandoned::Kept => {}
                    Abandoned::Ended(verdict) => return verdict,
                    Abandoned::Free => return self.miss(now, packet, parsed, meta, &key, packets),
                }
            }
            if unanswered {
                self.first_signs(now, found, packet, parsed, meta);
            }
            match self.track(now, found, parsed) {
                Tracked::Reopen => self.end(now, found.index, super::Ended::Replaced),
                _ => return self.forward(now, packet, parsed, meta, found, (packets, false)),
            }
        }
        self.miss(now, packet, parsed, meta, &key, packets)
    }
}

/// The key by which a packet's flow is found; none where it can have none.
#[inline]
fn key(parsed: &Parsed) -> Option<Key> {
    let (src_port, dst_port, protocol) = match parsed.transport {
        Transport::Tcp { src, dst, .. } => (src, dst, Protocol::Tcp),
        Transport::Udp { src, dst } => (src, dst, Protocol::Udp),
        Transport::Echo { id, .. } => (id, id, Protocol::Icmp),
        Transport::Sctp { src, dst } => (src, dst, Protocol::Sctp),
        // Not what only the other family has, nor what ends inside its header.
        Transport::Other => (0, 0, Some(Protocol::of_number(parsed.protocol)).filter(|p| !p.has_ports())?),
        Transport::Icmp { .. } | Transport::Routed | Transport::Fragment { .. } => return None,
    };
    Some(Key { addresses: parsed.addresses, src_port, dst_port, protocol })
}

/// How many packets a super-packet stands for.
#[inline]
pub(super) fn packets(parsed: &Parsed, meta: Meta) -> u64 {
    match meta.gso_size {
        0 => 1,
        size => (parsed.payload_len() as u64).div_ceil(u64::from(size)).max(1),
    }
}

/// The name under which a malformed packet is dropped.
pub(super) const fn reason(malformed: Malformed) -> Reason {
    match malformed {
        Malformed::TooShort => Reason::TooShort,
        Malformed::Version => Reason::BadVersion,
        Malformed::HeaderLength => Reason::BadHeaderLength,
        Malformed::TotalLength => Reason::BadTotalLength,
        Malformed::HeaderChecksum => Reason::BadHeaderChecksum,
        Malformed::Extension => Reason::BadExtension,
        Malformed::Transport => Reason::TruncatedTransport,
        Malformed::TcpOffset => Reason::BadTcpOffset,
        Malformed::TcpFlags => Reason::BadTcpFlags,
        Malformed::UdpLength => Reason::BadUdpLength,
        Malformed::Fragment => Reason::BadFragment,
        Malformed::TinyFragment => Reason::FragmentTiny,
    }
}
