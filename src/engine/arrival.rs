//! A packet as it arrives: everything that later steps need to know of it, determined once.

use super::Reason;
use crate::flow::{Datagram, Key, KeyRef};
use crate::packet::{Malformed, Meta, Parsed, Protocol, Quote, Transport, parse_first, proto};
use crate::time::Instant;

/// A packet with valid headers. It is passed by reference and carries everything that was parsed from its bytes.
#[derive(Debug)]
pub(super) struct Arrival<'p> {
    /// Arrival time.
    pub(super) now: Instant,
    /// The packet, followed by padding. Only carrying out a step changes it.
    pub(super) bytes: &'p mut [u8],
    pub(super) parsed: &'p mut Parsed,
    pub(super) meta: Meta,
    /// How many packets it represents: more than one if a device delivers segments of one flow together.
    pub(super) packets: u64,
    /// The hash of its key, if it was computed ahead.
    pub(super) hash: Option<u64>,
    /// For a first fragment: what it has in common with the other fragments of its packet.
    pub(super) datagram: Option<Datagram>,
}

impl<'p> Arrival<'p> {
    /// Creates it from a parsed packet. The headers are borrowed: reading them back for a copy right after `parse` has
    /// written them stalls the processor.
    #[inline]
    pub(super) fn new(now: Instant, bytes: &'p mut [u8], parsed: &'p mut Parsed, meta: Meta) -> Self {
        Arrival { now, bytes, packets: packets(parsed, meta), parsed, meta, hash: None, datagram: None }
    }

    /// Returns the key for finding its flow; none if it cannot have one.
    #[inline]
    pub(super) fn key(&self) -> Option<Key> {
        key(self.parsed)
    }

    /// Parses the transport header of a first fragment, which then represents the packet that it begins.
    ///
    /// # Errors
    /// What is wrong with its transport header; the arrival is unchanged.
    pub(super) fn begin_packet(&mut self, datagram: Datagram) -> Result<(), Malformed> {
        *self.parsed = parse_first(self.bytes, self.parsed)?;
        (self.packets, self.hash, self.datagram) = (1, None, Some(datagram));
        Ok(())
    }

    /// Returns its remaining hops.
    #[inline]
    pub(super) fn hops(&self) -> u8 {
        if self.parsed.addresses.is_v6() { self.bytes[7] } else { self.bytes[8] }
    }

    /// Returns the size that the path must support: for a super-packet, that of one segment.
    #[inline]
    pub(super) fn size(&self) -> usize {
        let len = self.parsed.len;
        if self.meta.gso_size == 0 { len } else { segment_len(self.parsed, self.meta.gso_size) }
    }

    /// Returns whether it may not be fragmented (RFC 791, 3.1); only IPv4 has the flag.
    pub(super) fn dont_fragment(&self) -> bool {
        dont_fragment(self.bytes)
    }
}

/// Returns whether an IPv4 packet may not be fragmented (RFC 791, 3.1).
pub(super) fn dont_fragment(packet: &[u8]) -> bool {
    packet[6] & 0x40 != 0
}

/// Returns the key for finding a packet's flow; none if it cannot have one.
#[inline]
pub(super) fn key(parsed: &Parsed) -> Option<Key> {
    let (src_port, dst_port, protocol) = match parsed.transport {
        Transport::Tcp { src, dst, .. } => (src, dst, Protocol::Tcp),
        Transport::Udp { src, dst } => (src, dst, Protocol::Udp),
        Transport::Echo { id, .. } => (id, id, Protocol::Icmp),
        Transport::Sctp { src, dst } => (src, dst, Protocol::Sctp),
        // Excludes protocols that only the other family has, and packets that end inside their header.
        Transport::Other => (0, 0, Some(Protocol::of_number(parsed.protocol)).filter(|p| !p.has_ports())?),
        Transport::Icmp { .. } | Transport::Routed | Transport::Fragment { .. } => return None,
    };
    Some(Key { addresses: parsed.addresses, src_port, dst_port, protocol })
}

/// Returns the key of packets in the other direction than a quoted one, which find its flow and the side that it was sent to;
/// none if it is a later fragment.
pub(super) fn quoted_key(about: &Quote) -> Option<Key> {
    let Quote { addresses, src_port, dst_port, protocol, .. } = *about;
    (!about.later).then(|| Key { addresses, src_port, dst_port, protocol }.reversed())
}

/// Returns the same as [`key`], for finding the flow in the table.
#[inline]
pub(super) fn key_ref(parsed: &Parsed) -> Option<KeyRef<'_>> {
    let (src_port, dst_port, protocol) = match parsed.transport {
        Transport::Tcp { src, dst, .. } => (src, dst, proto::TCP),
        Transport::Udp { src, dst } => (src, dst, proto::UDP),
        Transport::Echo { id, .. } => (id, id, proto::ICMP),
        Transport::Sctp { src, dst } => (src, dst, proto::SCTP),
        Transport::Other if !Protocol::of_number(parsed.protocol).has_ports() => (0, 0, parsed.protocol),
        _ => return None,
    };
    Some(KeyRef::new(&parsed.addresses, src_port, dst_port, protocol))
}

/// Returns how many packets a super-packet represents.
#[inline]
fn packets(parsed: &Parsed, meta: Meta) -> u64 {
    if meta.gso_size == 0 { 1 } else { segments(parsed, meta.gso_size) }
}

// Not part of what every packet runs through: super-packets carry many packets each.
#[inline(never)]
fn segments(parsed: &Parsed, size: u16) -> u64 {
    (parsed.payload_len() as u64).div_ceil(u64::from(size)).max(1)
}

#[inline(never)]
fn segment_len(parsed: &Parsed, size: u16) -> usize {
    (parsed.len - parsed.payload_len() + usize::from(size)).min(parsed.len)
}

/// Returns the reason for which a malformed packet is dropped.
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
