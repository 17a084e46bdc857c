//! Packets that the gateway makes itself, with full checksums; the slow path, so etherparse builds them.

use super::{Addresses, Parsed, Transport, checksum, proto};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

/// Bytes that the largest packet of this module takes: IPv6 and TCP without options.
pub const MOST: usize = 60;

/// Hop limit of the packets made here.
const HOPS: u8 = 64;

/// Writes the reset that answers a TCP packet of no connection (RFC 9293, 3.10.7.1) and returns its length.
///
/// None where the packet is not TCP or is itself a reset, which is never answered.
pub fn reset(out: &mut [u8; MOST], to: &Parsed) -> Option<usize> {
    let Transport::Tcp { src, dst, flags, seq, ack, .. } = to.transport else { return None };
    if flags.rst() {
        return None;
    }
    let ip = headers(&to.addresses.reversed());
    let builder = if flags.ack() {
        ip.tcp(dst, src, ack, 0).rst()
    } else {
        let len = to.payload_len() as u32 + u32::from(flags.syn()) + u32::from(flags.fin());
        ip.tcp(dst, src, 0, 0).rst().ack(seq.wrapping_add(len))
    };
    let size = builder.size(0);
    let mut room: &mut [u8] = out;
    builder.write(&mut room, &[]).ok()?;
    Some(size)
}

/// Writes a reset of a connection from its own addresses and ports, and returns its length.
pub fn reset_flow(
    out: &mut [u8; MOST],
    addresses: &Addresses,
    (src, dst): (u16, u16),
    seq: u32,
    ack: u32,
) -> Option<usize> {
    let builder = headers(addresses).tcp(src, dst, seq, 0).rst().ack(ack);
    let size = builder.size(0);
    let mut room: &mut [u8] = out;
    builder.write(&mut room, &[]).ok()?;
    Some(size)
}

/// Why a packet cannot be delivered, as ICMP tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens there (RFC 792, type 3 code 3; RFC 4443, 3.1, code 4).
    Port,
    /// An operator forbids it (RFC 1812, 5.2.7.1, code 13; RFC 4443, 3.1, code 1).
    Prohibited,
}

/// Writes the ICMP error that tells the sender of a packet that it cannot be delivered, in the name of its destination.
///
/// It quotes as much of the packet as fits in 576 bytes (RFC 1812, 4.3.2.3) or 1,280 (RFC 4443, 3.1). The packet must be one
/// that may be answered by an error: unicast, not itself an error, not a later fragment (RFC 1122, 3.2.2).
pub fn unreachable(out: &mut Vec<u8>, packet: &[u8], to: &Parsed, why: Unreachable) -> Option<()> {
    let addresses = to.addresses.reversed();
    let quote = |most: usize| &packet[..to.len.min(most)];
    match addresses {
        Addresses::V4 { .. } => {
            use etherparse::icmpv4::DestUnreachableHeader;
            let code = match why {
                Unreachable::Port => DestUnreachableHeader::Port,
                Unreachable::Prohibited => DestUnreachableHeader::FilterProhibited,
            };
            let kind = etherparse::Icmpv4Type::DestinationUnreachable(code);
            headers(&addresses).icmpv4(kind).write(out, quote(576 - 28)).ok()
        }
        Addresses::V6 { .. } => {
            use etherparse::icmpv6::DestUnreachableCode;
            let code = match why {
                Unreachable::Port => DestUnreachableCode::Port,
                Unreachable::Prohibited => DestUnreachableCode::Prohibited,
            };
            let kind = etherparse::Icmpv6Type::DestinationUnreachable(code);
            headers(&addresses).icmpv6(kind).write(out, quote(1280 - 48)).ok()
        }
    }
}

/// Writes the whole sum of an ICMP or ICMPv6 message that is the gateway's own.
pub fn complete_icmp_sum(packet: &mut [u8], parsed: &Parsed) {
    let (at, end) = (parsed.offset, parsed.len);
    packet[at + 2..at + 4].fill(0);
    let start = match parsed.protocol {
        proto::ICMPV6 => checksum::pseudo(&parsed.addresses, proto::ICMPV6, end - at),
        _ => 0,
    };
    let sum = !checksum::fold(checksum::add(start, &packet[at..end]));
    packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
}

fn headers(addresses: &Addresses) -> PacketBuilderStep<IpHeaders> {
    match *addresses {
        Addresses::V4 { src, dst } => PacketBuilder::ipv4(src.to_be_bytes(), dst.to_be_bytes(), HOPS),
        Addresses::V6 { src, dst } => PacketBuilder::ipv6(src.to_be_bytes(), dst.to_be_bytes(), HOPS),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TcpFlags, parse};
    use super::*;

    fn answer(builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>, payload: &[u8]) -> Option<Parsed> {
        let mut packet = Vec::new();
        builder.write(&mut packet, payload).unwrap();
        let mut out = [0; MOST];
        let len = reset(&mut out, &parse(&packet).unwrap())?;
        Some(parse(&out[..len]).unwrap())
    }

    #[test]
    fn a_reset_takes_its_numbers_from_the_packet_it_answers() {
        let ip = || PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9);
        let (rst, rst_ack) = (TcpFlags(TcpFlags::RST), TcpFlags(TcpFlags::RST | TcpFlags::ACK));
        let cases = [
            (ip().tcp(5, 6, 100, 1).ack(900), &b"abc"[..], rst, 900, 0),
            (ip().tcp(5, 6, 100, 1).syn().ack(900), b"", rst, 900, 0),
            (ip().tcp(5, 6, 100, 1).fin(), b"abc", rst_ack, 0, 104),
            (ip().tcp(5, 6, u32::MAX, 1).syn(), b"", rst_ack, 0, 0),
        ];
        for (builder, payload, flags, seq, ack) in cases {
            let got = answer(builder, payload).unwrap();
            assert_eq!(got.transport, Transport::Tcp { src: 6, dst: 5, flags, seq, ack, header: 20 });
            assert_eq!(got.addresses.dst(), std::net::IpAddr::from([1, 1, 1, 1]));
        }
        assert!(answer(ip().tcp(5, 6, 1, 1).rst(), b"").is_none());
    }
}
