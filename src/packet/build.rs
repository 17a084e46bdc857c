//! Packets that the gateway originates, with full checksums. This is the slow path, so etherparse builds them.

use super::{Addresses, InnerChecksum, Parsed, Transport, checksum, proto, word};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

/// Bytes of the largest packet built by this module: IPv6 and TCP without options.
pub const MOST: usize = 60;

/// Hop limit of the packets built here.
const HOPS: u8 = 64;

/// Writes the reset that replies to a TCP segment of no connection (RFC 9293, 3.10.7.1) and returns its length.
///
/// `None` if the packet is not TCP or is itself a reset, which is never replied to.
pub fn reset(out: &mut [u8; MOST], to: &Parsed) -> Option<usize> {
    let Transport::Tcp { src, dst, flags, seq, ack, .. } = to.transport else { return None };
    if flags.rst() {
        return None;
    }
    let ip = headers(&to.addresses.reversed());
    let builder = if flags.ack() {
        ip.tcp(dst, src, ack, 0).rst()
    } else {
        let len = u32::try_from(to.payload_len()).ok()? + u32::from(flags.syn()) + u32::from(flags.fin());
        ip.tcp(dst, src, 0, 0).rst().ack(seq.wrapping_add(len))
    };
    let size = builder.size(0);
    let mut room: &mut [u8] = out;
    builder.write(&mut room, &[]).ok()?;
    Some(size)
}

/// Writes a reset of a connection, with the given addresses and ports, and returns its length.
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

/// Why a packet is not forwarded, as ICMP reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Nothing listens on the port (RFC 792, type 3 code 3; RFC 4443, 3.1, code 4).
    Port,
    /// The transport protocol is not supported (RFC 792, type 3 code 2; RFC 4443, 3.4, code 1).
    Protocol,
    /// Administratively prohibited, or out of resources (RFC 1812, 5.2.7.1, code 13; RFC 4443, 3.1, code 1; RFC 5508
    /// REQ-8).
    Prohibited,
    /// The host is unreachable (RFC 792, type 3 code 1; RFC 4443, 3.1, code 3; RFC 6888 REQ-11).
    Host,
    /// The hop limit is exceeded (RFC 792, type 11 code 0; RFC 4443, 3.3, code 0).
    HopLimit,
    /// The source route is not followed (RFC 792, type 3 code 5; RFC 8200, 4.4, type 4 code 0).
    SourceRoute,
    /// The packet is too big for a link with this MTU in bytes (RFC 1191, 4; RFC 4443, 3.2).
    TooBig(u32),
}

/// Writes the ICMP error that reports to a packet's sender why it is not forwarded; its source is the packet's
/// destination.
///
/// It quotes as much of the packet as fits in 576 bytes (RFC 1812, 4.3.2.3) or 1,280 (RFC 4443, 3.1). The packet must
/// be one that an error may be sent about: unicast, not itself an error, not a later fragment (RFC 1122, 3.2.2).
pub fn error(out: &mut Vec<u8>, packet: &[u8], to: &Parsed, why: Error) -> Option<()> {
    let addresses = to.addresses.reversed();
    let quote = |most: usize| &packet[..to.len.min(most)];
    match addresses {
        Addresses::V4 { .. } => headers(&addresses).icmpv4(kind_v4(why)).write(out, quote(576 - 28)).ok(),
        Addresses::V6 { .. } => headers(&addresses).icmpv6(kind_v6(packet, why)).write(out, quote(1280 - 48)).ok(),
    }
}

fn kind_v4(why: Error) -> etherparse::Icmpv4Type {
    use etherparse::Icmpv4Type::{DestinationUnreachable, TimeExceeded};
    use etherparse::icmpv4::{DestUnreachableHeader as Unreachable, TimeExceededCode};
    match why {
        Error::Port => DestinationUnreachable(Unreachable::Port),
        Error::Protocol => DestinationUnreachable(Unreachable::Protocol),
        Error::Prohibited => DestinationUnreachable(Unreachable::FilterProhibited),
        Error::Host => DestinationUnreachable(Unreachable::Host),
        Error::HopLimit => TimeExceeded(TimeExceededCode::TtlExceededInTransit),
        Error::SourceRoute => DestinationUnreachable(Unreachable::SourceRouteFailed),
        Error::TooBig(mtu) => {
            let next_hop_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            DestinationUnreachable(Unreachable::FragmentationNeeded { next_hop_mtu })
        }
    }
}

fn kind_v6(packet: &[u8], why: Error) -> etherparse::Icmpv6Type {
    use etherparse::Icmpv6Type::{DestinationUnreachable, PacketTooBig, ParameterProblem, TimeExceeded};
    use etherparse::icmpv6::{
        DestUnreachableCode as Code, ParameterProblemCode, ParameterProblemHeader, TimeExceededCode,
    };
    match why {
        Error::Port => DestinationUnreachable(Code::Port),
        Error::Prohibited => DestinationUnreachable(Code::Prohibited),
        Error::Host => DestinationUnreachable(Code::Address),
        Error::HopLimit => TimeExceeded(TimeExceededCode::HopLimitExceeded),
        Error::TooBig(mtu) => PacketTooBig { mtu },
        Error::SourceRoute => ParameterProblem(ParameterProblemHeader {
            code: ParameterProblemCode::ErroneousHeaderField,
            pointer: super::family::routing_type(packet).unwrap_or(0),
        }),
        Error::Protocol => ParameterProblem(ParameterProblemHeader {
            code: ParameterProblemCode::UnrecognizedNextHeader,
            pointer: u32::try_from(super::parse::next_header_field(packet)).unwrap_or(0),
        }),
    }
}

/// Splits a whole IPv4 packet, or a fragment of one, into fragments of at most `mtu` bytes (RFC 791, 3.2), in order.
///
/// Options without the copied flag go into the first fragment only.
///
/// # Panics
/// If the packet is not a parsed IPv4 packet.
pub fn fragment(packet: &[u8], mtu: usize, mut each: impl FnMut(&[u8])) {
    let header = usize::from(packet[0] & 15) * 4;
    let (flags, len) = (word(packet, 6), usize::from(word(packet, 2)));
    let (mut out, mut at) = (Vec::with_capacity(mtu), header);
    let mut options = packet[20..header].to_vec();
    while at < len {
        out.clear();
        out.extend_from_slice(&packet[..20]);
        out.extend_from_slice(&options);
        let room = (mtu.saturating_sub(out.len()) & !7).max(8);
        let end = len.min(at + room);
        let more = end < len || flags & 0x2000 != 0;
        let place = (flags & 0x1fff) + narrow((at - header) >> 3);
        out[0] = 0x40 | u8::try_from(out.len() / 4).unwrap_or(15);
        let header_len = out.len();
        out.extend_from_slice(&packet[at..end]);
        let total = narrow(out.len()).to_be_bytes();
        out[2..4].copy_from_slice(&total);
        let field = (flags & 0xc000) | (u16::from(more) << 13) | place;
        out[6..8].copy_from_slice(&field.to_be_bytes());
        out[10..12].fill(0);
        let sum = !checksum::fold(checksum::add(0, &out[..header_len]));
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        each(&out);
        if at == header {
            options = copied(&options);
        }
        at = end;
    }
}

/// Splits a whole IPv6 packet without extension headers into fragments of at most `mtu` bytes (RFC 8200, 4.5), in
/// order.
///
/// # Panics
/// If the packet is not a parsed IPv6 packet.
pub fn fragment_v6(packet: &[u8], mtu: usize, id: u32, mut each: impl FnMut(&[u8])) {
    let len = 40 + usize::from(word(packet, 4));
    let room = (mtu.saturating_sub(48) & !7).max(8);
    let mut out = Vec::with_capacity(mtu);
    for at in (40..len).step_by(room) {
        let end = len.min(at + room);
        let field = narrow(at - 40) | u16::from(end < len);
        out.clear();
        out.extend_from_slice(&packet[..40]);
        out.extend_from_slice(&[packet[6], 0]);
        out.extend_from_slice(&field.to_be_bytes());
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&packet[at..end]);
        let payload = narrow(out.len() - 40).to_be_bytes();
        out[4..6].copy_from_slice(&payload);
        out[6] = super::parse::FRAGMENT;
        each(&out);
    }
}

/// Narrows a length or an offset inside an IP packet, which fits 16 bits.
fn narrow(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// Returns the options that every fragment carries (RFC 791, 3.1: the copied flag), padded to whole words.
fn copied(options: &[u8]) -> Vec<u8> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while let Some(kind) = options.get(at).copied() {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(options.get(at + 1).copied().unwrap_or(0)),
        };
        let Some(option) = options.get(at..at + len).filter(|option| !option.is_empty()) else { break };
        if kind & 0x80 != 0 {
            kept.extend_from_slice(option);
        }
        at += len;
    }
    kept.resize(kept.len().next_multiple_of(4), 0);
    kept
}

/// Completes a partial TCP or UDP checksum, as a device would.
pub fn complete_sum(packet: &mut [u8]) {
    let Ok(parsed) = super::parse(packet) else { return };
    let (at, field) = match parsed.transport {
        Transport::Tcp { .. } => (parsed.offset, 16),
        Transport::Udp { .. } => (parsed.offset, 6),
        _ => return,
    };
    // The field holds the pseudo-header's sum, so it is part of the data summed.
    let sum = !checksum::fold(checksum::add(0, &packet[at..parsed.len]));
    let sum = if field == 6 && sum == 0 { 0xffff } else { sum };
    packet[at + field..at + field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Completes the checksum of a packet inside this one, whose field holds the sum of its pseudo-header.
pub fn complete_inner_sum(packet: &mut [u8], at: InnerChecksum) {
    let start = usize::from(at.start);
    let field = start + usize::from(at.field);
    if field + 2 > packet.len() {
        return;
    }
    let sum = !checksum::fold(checksum::add(0, &packet[start..]));
    // Zero would mean that there is none (RFC 768), and is no other in one's complement.
    let sum = if sum == 0 { 0xffff } else { sum };
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Writes the full checksum of an ICMP or ICMPv6 message originated by the gateway.
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

    #[test]
    fn a_packet_in_pieces_is_the_packet() {
        let payload: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
        let mut packet = Vec::new();
        PacketBuilder::ipv4([1; 4], [2; 4], 9).udp(5, 6).write(&mut packet, &payload).unwrap();
        // Record route, which is not copied, and an option that is.
        packet.splice(20..20, [7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0]);
        packet[0] = 0x48;
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[4..8].copy_from_slice(&[0xab, 0xcd, 0, 0]);
        packet[10..12].fill(0);
        let sum = !checksum::fold(checksum::add(0, &packet[..32]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let (mut whole, mut pieces) = (Vec::new(), 0);
        fragment(&packet, 1003, |piece| {
            let parsed = parse(piece).unwrap();
            assert!(piece.len() <= 1003 && parsed.len == piece.len());
            let Transport::Fragment { offset, more, id } = parsed.transport else { panic!() };
            assert_eq!((usize::from(offset), id), (whole.len(), 0xabcd));
            let want: &[u8] = if offset == 0 { &packet[20..32] } else { &[0x94, 4, 0, 0] };
            assert_eq!(&piece[20..parsed.offset], want);
            whole.extend_from_slice(&piece[parsed.offset..]);
            assert_eq!(more, whole.len() < packet.len() - 32);
            pieces += 1;
            // A fragment of a fragment keeps its offset in the original packet.
            let mut again = Vec::new();
            fragment(piece, 500, |small| {
                let parsed = parse(small).unwrap();
                let Transport::Fragment { offset: inner, more: after, .. } = parsed.transport else { panic!() };
                assert_eq!(usize::from(inner - offset), again.len());
                again.extend_from_slice(&small[parsed.offset..]);
                assert_eq!(after, more || again.len() < piece.len() - usize::from(piece[0] & 15) * 4);
            });
            assert_eq!(again, &piece[usize::from(piece[0] & 15) * 4..]);
        });
        assert_eq!((whole.as_slice(), pieces), (&packet[32..], 4));
    }

    #[test]
    fn an_ipv6_packet_in_pieces_is_the_packet() {
        let payload: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
        let mut packet = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9).udp(5, 6).write(&mut packet, &payload).unwrap();
        let mut whole = Vec::new();
        fragment_v6(&packet, 1280, 77, |piece| {
            let parsed = parse(piece).unwrap();
            assert!(piece.len() <= 1280 && parsed.len == piece.len() && parsed.protocol == proto::UDP);
            let Transport::Fragment { offset, more, id } = parsed.transport else { panic!() };
            assert_eq!((usize::from(offset), id), (whole.len(), 77));
            whole.extend_from_slice(&piece[parsed.offset..]);
            assert_eq!(more, whole.len() < packet.len() - 40);
        });
        assert_eq!(whole, &packet[40..]);
    }

    #[test]
    fn each_error_says_why() {
        let mut v4 = Vec::new();
        PacketBuilder::ipv4([1; 4], [2; 4], 9).udp(5, 6).write(&mut v4, &[7; 2000]).unwrap();
        let mut v6 = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9).udp(5, 6).write(&mut v6, &[7; 2000]).unwrap();
        for (why, four, six) in [
            (Error::Port, [3, 3, 0, 0], [1, 4, 0, 0]),
            (Error::Protocol, [3, 2, 0, 0], [4, 1, 0, 6]),
            (Error::Prohibited, [3, 13, 0, 0], [1, 1, 0, 0]),
            (Error::Host, [3, 1, 0, 0], [1, 3, 0, 0]),
            (Error::HopLimit, [11, 0, 0, 0], [3, 0, 0, 0]),
            (Error::TooBig(1400), [3, 4, 5, 120], [2, 0, 5, 120]),
        ] {
            for (packet, want, most) in [(&v4, four, 576), (&v6, six, 1280)] {
                let mut out = Vec::new();
                let parsed = parse(packet).unwrap();
                error(&mut out, packet, &parsed, why).unwrap();
                let at = if most == 576 { 20 } else { 40 };
                assert_eq!([out[at], out[at + 1], out[at + 6], out[at + 7]], want, "{why:?}");
                assert_eq!((out.len(), &out[at + 8..]), (most, &packet[..most - at - 8]));
                assert_eq!(parse(&out).unwrap().addresses, parsed.addresses.reversed());
            }
        }
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([1; 4], [2; 4], 9).udp(5, 6).write(&mut packet, b"data!").unwrap();
        let want = packet.clone();
        let parsed = parse(&packet).unwrap();
        let sum = checksum::fold(checksum::pseudo(&parsed.addresses, proto::UDP, 13));
        packet[26..28].copy_from_slice(&sum.to_be_bytes());
        complete_sum(&mut packet);
        assert_eq!(packet, want);
    }
}
