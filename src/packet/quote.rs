//! The packet that an ICMP error is about, as far as the error quotes it.
//!
//! Quotes are truncated and their transport checksums may be wrong: only ports, identifier and sequence number of the
//! transport are read (RFC 5508 REQ-3). It must not know flows.

use super::parse::{End, walk_extensions};
use super::{Addresses, Parsed, Protocol, checksum, long, proto, word};

/// What a quoted packet says about its flow, and where it is in the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Its addresses.
    pub addresses: Addresses,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its source port; the identifier of an echo; zero for a later fragment.
    pub src_port: u16,
    /// Its destination port; the identifier of an echo; zero for a later fragment.
    pub dst_port: u16,
    /// Its sequence number, if it is TCP.
    pub seq: Option<u32>,
    /// Its identification, if it is a fragment.
    pub fragment_of: Option<u32>,
    /// Whether it is a later fragment: then nothing is known about the transport.
    pub later: bool,
    /// Offset of its IP header in the error.
    pub at: usize,
    /// Offset of its transport header in the error.
    pub transport: usize,
    /// Offset at which the quote ends: padding and extensions (RFC 4884) follow.
    pub end: usize,
}

/// Why an error's quote cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoQuote {
    /// It ends before ports or identifier, or is not a packet of the error's family.
    Short,
    /// Its IPv4 header checksum is wrong (RFC 5508 REQ-3a).
    HeaderChecksum,
    /// It quotes an ICMP message that is not an echo: errors are not sent about errors (RFC 1122, 3.2.2).
    NoEcho,
}

/// The kinds of ICMP messages that are about another packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Destination unreachable, time exceeded or parameter problem.
    Plain,
    /// The packet was too big for a link with this MTU in bytes; 0 if the router does not report it (RFC 1191, 5).
    TooBig(u32),
    /// Source quench (RFC 6633) and redirects, which concern only the link.
    Obsolete,
}

/// Classifies an ICMP message as an error (RFC 792, RFC 1191, RFC 4443); `None` for queries and information.
pub fn error_kind(packet: &[u8], parsed: &Parsed) -> Option<ErrorKind> {
    let message = packet.get(parsed.offset..parsed.offset + 8)?;
    match (parsed.protocol, message[0], message[1]) {
        (proto::ICMP, 3, 4) => Some(ErrorKind::TooBig(u32::from(word(message, 6)))),
        (proto::ICMP, 3 | 11 | 12, _) => Some(ErrorKind::Plain),
        (proto::ICMP, 4 | 5, _) => Some(ErrorKind::Obsolete),
        (proto::ICMPV6, 2, _) => Some(ErrorKind::TooBig(long(message, 4))),
        (proto::ICMPV6, 1 | 3 | 4, _) => Some(ErrorKind::Plain),
        (proto::ICMPV6, 137, _) => Some(ErrorKind::Obsolete),
        _ => None,
    }
}

/// Returns whether an ICMP message reports its destination unreachable, other than for size (RFC 792, type 3; RFC
/// 4443, 3.1).
pub const fn is_unreachable(protocol: u8, kind: u8, code: u8) -> bool {
    match protocol {
        proto::ICMP => kind == 3 && code != 4,
        proto::ICMPV6 => kind == 1,
        _ => false,
    }
}

/// Reads the packet quoted by the ICMP error in `packet`.
pub fn quote(packet: &[u8], parsed: &Parsed) -> Result<Quote, NoQuote> {
    let at = parsed.offset + 8;
    let end = quote_end(packet, parsed);
    let inner = packet.get(at..end).ok_or(NoQuote::Short)?;
    let (addresses, number, offset, piece) = match inner.first().map(|first| first >> 4) {
        Some(4) if parsed.protocol == proto::ICMP => header_v4(inner)?,
        Some(6) if parsed.protocol == proto::ICMPV6 => header_v6(inner)?,
        _ => return Err(NoQuote::Short),
    };
    let quote = Quote {
        addresses,
        protocol: Protocol::of_number(number),
        src_port: 0,
        dst_port: 0,
        seq: None,
        fragment_of: piece.map(|(id, _)| id),
        later: piece.is_some_and(|(_, later)| later),
        at,
        transport: at + offset,
        end,
    };
    if quote.later || !quote.protocol.has_ports() {
        return Ok(quote);
    }
    let start = inner.get(offset..offset + 8).ok_or(NoQuote::Short)?;
    let (src_port, dst_port) = match (number, start[0]) {
        (proto::ICMP, 0 | 8) | (proto::ICMPV6, 128 | 129) => (word(start, 4), word(start, 4)),
        (proto::ICMP | proto::ICMPV6, _) => return Err(NoQuote::NoEcho),
        _ => (word(start, 0), word(start, 2)),
    };
    let seq = (number == proto::TCP).then(|| long(start, 4));
    Ok(Quote { src_port, dst_port, seq, ..quote })
}

/// Returns where the quoted packet ends: at the end of the error, or where its length field says (RFC 4884, 4 and 5).
fn quote_end(packet: &[u8], parsed: &Parsed) -> usize {
    let Some(message) = packet.get(parsed.offset..parsed.offset + 8) else { return parsed.len };
    let told = match (parsed.protocol, message[0]) {
        (proto::ICMP, 3 | 11 | 12) => usize::from(message[5]) * 4,
        (proto::ICMPV6, 1 | 3) => usize::from(message[4]) * 8,
        _ => 0,
    };
    if told == 0 { parsed.len } else { parsed.len.min(parsed.offset + 8 + told) }
}

/// Returns addresses, protocol number and transport offset; for a fragment also the identification and whether it is
/// a later one.
type Header = (Addresses, u8, usize, Option<(u32, bool)>);

fn header_v4(inner: &[u8]) -> Result<Header, NoQuote> {
    let length = usize::from(inner[0] & 15) * 4;
    let header = inner.get(..length).filter(|header| header.len() >= 20).ok_or(NoQuote::Short)?;
    if checksum::fold(checksum::add(0, header)) != 0xffff {
        return Err(NoQuote::HeaderChecksum);
    }
    let place = word(header, 6);
    let piece = (place & 0x3fff != 0).then(|| (u32::from(word(header, 4)), place & 0x1fff != 0));
    Ok((Addresses::V4 { src: long(header, 12), dst: long(header, 16) }, header[9], length, piece))
}

fn header_v6(inner: &[u8]) -> Result<Header, NoQuote> {
    let header = inner.get(..40).ok_or(NoQuote::Short)?;
    let address = |at: usize| u128::from_be_bytes(header[at..at + 16].try_into().unwrap_or_default());
    let addresses = Addresses::V6 { src: address(8), dst: address(24) };
    let mut chain = walk_extensions(header[6], 40, inner).map_err(|_| NoQuote::Short)?;
    let mut piece = None;
    if let End::Fragment { offset, id, .. } = chain.end {
        piece = Some((id, offset > 0));
        if offset == 0 {
            chain = walk_extensions(chain.protocol, chain.offset, inner).map_err(|_| NoQuote::Short)?;
        }
    }
    Ok((addresses, chain.protocol, chain.offset, piece))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::super::testing::resum;
    use super::*;
    use etherparse::PacketBuilder;

    fn error4(inner: &[u8]) -> Vec<u8> {
        use etherparse::{Icmpv4Type, icmpv4::DestUnreachableHeader};
        let mut out = Vec::new();
        let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
        PacketBuilder::ipv4([10, 0, 0, 1], [9, 9, 9, 9], 64).icmpv4(kind).write(&mut out, inner).unwrap();
        out
    }

    fn read(packet: &[u8]) -> Result<Quote, NoQuote> {
        quote(packet, &parse(packet).unwrap())
    }

    #[test]
    fn a_quote_identifies_the_flow_even_if_truncated() {
        let mut inner = Vec::new();
        PacketBuilder::ipv4([9, 9, 9, 9], [10, 0, 0, 1], 64).udp(1000, 53).write(&mut inner, &[7; 100]).unwrap();
        let addresses = Addresses::V4 { src: 0x0909_0909, dst: 0x0a00_0001 };
        let want = Quote {
            addresses,
            protocol: Protocol::Udp,
            src_port: 1000,
            dst_port: 53,
            seq: None,
            fragment_of: None,
            later: false,
            at: 28,
            transport: 48,
            end: 156,
        };
        assert_eq!(read(&error4(&inner)), Ok(want));
        assert_eq!(read(&error4(&inner[..28])), Ok(Quote { end: 56, ..want }));
        for len in 0..28 {
            assert_eq!(read(&error4(&inner[..len])), Err(NoQuote::Short), "{len}");
        }
        let mut six = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(5, 6, 7, 8).write(&mut six, &[]).unwrap();
        assert_eq!(read(&error4(&six)), Err(NoQuote::Short), "another family");
        let got = read(&error6(&six)).unwrap();
        assert_eq!((got.protocol, got.src_port, got.dst_port, got.seq), (Protocol::Tcp, 5, 6, Some(7)));
        assert_eq!(got.addresses.src(), std::net::IpAddr::from([1u8; 16]));
    }

    fn error6(inner: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let kind = etherparse::Icmpv6Type::DestinationUnreachable(etherparse::icmpv6::DestUnreachableCode::Port);
        PacketBuilder::ipv6([2; 16], [1; 16], 64).icmpv6(kind).write(&mut out, inner).unwrap();
        out
    }

    #[test]
    fn a_later_fragment_is_known_by_its_identification() {
        let mut inner = Vec::new();
        PacketBuilder::ipv4([9, 9, 9, 9], [10, 0, 0, 1], 64).udp(1000, 53).write(&mut inner, &[7; 100]).unwrap();
        inner[4..8].copy_from_slice(&[0xab, 0xcd, 0, 1]);
        assert_eq!(read(&error4(&inner)), Err(NoQuote::HeaderChecksum));
        resum(&mut inner);
        let got = read(&error4(&inner[..20])).unwrap();
        assert_eq!((got.fragment_of, got.later, got.protocol, got.src_port), (Some(0xabcd), true, Protocol::Udp, 0));
        let mut six = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(5, 6).write(&mut six, &[]).unwrap();
        six[6] = 44;
        six.splice(40..40, [17, 0, 0, 9, 1, 2, 3, 4]);
        assert_eq!(read(&error6(&six)).map(|q| (q.fragment_of, q.later)), Ok((Some(0x0102_0304), true)));
        six[43] = 1;
        assert_eq!(
            read(&error6(&six)).map(|q| (q.src_port, q.fragment_of, q.later)),
            Ok((5, Some(0x0102_0304), false))
        );
    }

    #[test]
    fn options_are_skipped_and_extensions_are_not_read() {
        let mut inner = Vec::new();
        PacketBuilder::ipv4([9, 9, 9, 9], [10, 0, 0, 1], 64).udp(1000, 53).write(&mut inner, &[7; 100]).unwrap();
        for words in 6..=15usize {
            let mut long = inner.clone();
            long[0] = 0x40 | words as u8;
            long.splice(20..20, vec![1; words * 4 - 20]);
            resum(&mut long);
            let got = read(&error4(&long)).unwrap();
            assert_eq!((got.src_port, got.dst_port, got.transport), (1000, 53, 28 + words * 4));
        }
        let mut error = error4(&inner);
        error[25] = 6;
        assert_eq!(read(&error), Err(NoQuote::Short), "the length field says 24 bytes");
        error[25] = 8;
        assert_eq!(read(&error).map(|q| q.end), Ok(28 + 32));
    }

    #[test]
    fn errors_about_errors_identify_no_flow() {
        let mut inner = Vec::new();
        PacketBuilder::ipv4([9, 9, 9, 9], [10, 0, 0, 1], 64).icmpv4_echo_reply(77, 1).write(&mut inner, &[]).unwrap();
        assert_eq!(read(&error4(&inner)).map(|q| q.src_port), Ok(77));
        inner[20] = 3;
        assert_eq!(read(&error4(&inner)), Err(NoQuote::NoEcho));
    }

    #[test]
    fn each_type_has_its_kind() {
        let kind = |v6: bool, kind: u8, code: u8, rest: [u8; 4]| {
            let mut packet = if v6 { error6(&[0; 48]) } else { error4(&[0; 48]) };
            let at = if v6 { 40 } else { 20 };
            packet[at] = kind;
            packet[at + 1] = code;
            packet[at + 4..at + 8].copy_from_slice(&rest);
            error_kind(&packet, &parse(&packet).unwrap())
        };
        assert_eq!(kind(false, 3, 4, [0, 0, 5, 120]), Some(ErrorKind::TooBig(1400)));
        assert_eq!(kind(true, 2, 0, [0, 1, 0, 0]), Some(ErrorKind::TooBig(65_536)));
        for (v6, number, want) in [
            (false, 3, Some(ErrorKind::Plain)),
            (false, 11, Some(ErrorKind::Plain)),
            (false, 12, Some(ErrorKind::Plain)),
            (false, 4, Some(ErrorKind::Obsolete)),
            (false, 5, Some(ErrorKind::Obsolete)),
            (false, 13, None),
            (true, 1, Some(ErrorKind::Plain)),
            (true, 3, Some(ErrorKind::Plain)),
            (true, 4, Some(ErrorKind::Plain)),
            (true, 137, Some(ErrorKind::Obsolete)),
            (true, 135, None),
        ] {
            assert_eq!(kind(v6, number, 0, [0; 4]), want, "{v6} {number}");
        }
    }

    #[test]
    fn too_big_is_not_unreachable() {
        assert!(is_unreachable(1, 3, 3) && is_unreachable(1, 3, 13) && is_unreachable(58, 1, 4));
        assert!(!is_unreachable(1, 3, 4) && !is_unreachable(1, 11, 0) && !is_unreachable(58, 2, 0));
    }
}
