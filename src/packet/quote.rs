//! The packet that an ICMP error is about, as far as the error quotes it. Quotes are cut off and their sums
//! may be wrong: nothing but addresses, protocol and ports is read (RFC 5508 REQ-3).

use super::{Addresses, Parsed, Protocol, long, proto, word};

/// What a quoted packet says of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Its addresses.
    pub addresses: Addresses,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its source port; the identifier of an echo.
    pub src_port: u16,
    /// Its destination port; the identifier of an echo.
    pub dst_port: u16,
}

/// Whether an ICMP message says that its destination cannot be reached, other than for its size (RFC 792, type 3; RFC 4443, 3.1).
pub const fn is_unreachable(protocol: u8, kind: u8, code: u8) -> bool {
    match protocol {
        proto::ICMP => kind == 3 && code != 4,
        proto::ICMPV6 => kind == 1,
        _ => false,
    }
}

/// Reads what the ICMP error in `packet` quotes; none where it is no whole start of a packet of a known protocol.
pub fn quote(packet: &[u8], parsed: &Parsed) -> Option<Quote> {
    let inner = packet.get(parsed.offset + 8..parsed.len)?;
    let (addresses, protocol, at) = match inner.first()? >> 4 {
        4 if parsed.protocol == proto::ICMP => {
            let header = inner.get(..20)?;
            let length = usize::from(header[0] & 15) * 4;
            // A later fragment has no ports.
            if length < 20 || word(header, 6) & 0x1fff != 0 {
                return None;
            }
            (Addresses::V4 { src: long(header, 12), dst: long(header, 16) }, header[9], length)
        }
        6 if parsed.protocol == proto::ICMPV6 => {
            let header = inner.get(..40)?;
            let address = |at: usize| u128::from_be_bytes(header[at..at + 16].try_into().unwrap_or_default());
            (Addresses::V6 { src: address(8), dst: address(24) }, header[6], 40)
        }
        _ => return None,
    };
    let start = inner.get(at..at + 8)?;
    let (protocol, src_port, dst_port) = match (protocol, start[0]) {
        (proto::TCP, _) => (Protocol::Tcp, word(start, 0), word(start, 2)),
        (proto::UDP, _) => (Protocol::Udp, word(start, 0), word(start, 2)),
        (proto::ICMP, 8) | (proto::ICMPV6, 128) => (Protocol::Icmp, word(start, 4), word(start, 4)),
        _ => return None,
    };
    Some(Quote { addresses, protocol, src_port, dst_port })
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use etherparse::PacketBuilder;

    fn error4(inner: &[u8]) -> Vec<u8> {
        use etherparse::{Icmpv4Type, icmpv4::DestUnreachableHeader};
        let mut out = Vec::new();
        let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
        PacketBuilder::ipv4([10, 0, 0, 1], [9, 9, 9, 9], 64).icmpv4(kind).write(&mut out, inner).unwrap();
        out
    }

    fn read(packet: &[u8]) -> Option<Quote> {
        quote(packet, &parse(packet).unwrap())
    }

    #[test]
    fn a_quote_tells_the_flow_even_if_it_is_cut_off() {
        let mut inner = Vec::new();
        PacketBuilder::ipv4([9, 9, 9, 9], [10, 0, 0, 1], 64).udp(1000, 53).write(&mut inner, &[7; 100]).unwrap();
        let addresses = Addresses::V4 { src: 0x0909_0909, dst: 0x0a00_0001 };
        let want = Quote { addresses, protocol: Protocol::Udp, src_port: 1000, dst_port: 53 };
        assert_eq!(read(&error4(&inner)), Some(want));
        assert_eq!(read(&error4(&inner[..28])), Some(want));
        for len in 0..28 {
            assert_eq!(read(&error4(&inner[..len])), None, "{len}");
        }
        let mut later = inner.clone();
        later[7] = 1;
        assert_eq!(read(&error4(&later)), None);
        let mut six = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(5, 6, 7, 8).write(&mut six, &[]).unwrap();
        assert_eq!(read(&error4(&six)), None, "another family");
        let mut out = Vec::new();
        let kind = etherparse::Icmpv6Type::DestinationUnreachable(etherparse::icmpv6::DestUnreachableCode::Port);
        PacketBuilder::ipv6([2; 16], [1; 16], 64).icmpv6(kind).write(&mut out, &six).unwrap();
        let got = read(&out).unwrap();
        assert_eq!((got.protocol, got.src_port, got.dst_port), (Protocol::Tcp, 5, 6));
        assert_eq!(got.addresses.src(), std::net::IpAddr::from([1u8; 16]));
    }

    #[test]
    fn too_big_is_not_unreachable() {
        assert!(is_unreachable(1, 3, 3) && is_unreachable(1, 3, 13) && is_unreachable(58, 1, 4));
        assert!(!is_unreachable(1, 3, 4) && !is_unreachable(1, 11, 0) && !is_unreachable(58, 2, 0));
    }
}
