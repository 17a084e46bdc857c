//! The oracle: whether every checksum of an IP packet is valid according to two other libraries (etherparse and
//! smoltcp). It must not know any code of the library under test.

#![allow(dead_code)]

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use smoltcp::wire;
use std::net::IpAddr;

/// Recomputes every checksum of the IP packet at the start of `packet`; padding after it is ignored.
///
/// Checked are the IPv4 header, TCP, UDP (zero means "none" only over IPv4), ICMP and ICMPv6; and, with etherparse's
/// sums, DCCP (RFC 4340, 9.1), UDP-Lite with full coverage (RFC 3828, 3.1), OSPFv3 (RFC 5340, A.3.1) and PIM over
/// IPv6 (RFC 7761, 4.9). Of fragments and other transports only the IP header can be checked.
pub fn check(packet: &[u8]) -> Result<(), String> {
    let seen = by_etherparse(packet)?;
    seen.verdict.clone().map_err(|e| format!("etherparse: {e}"))?;
    by_smoltcp(packet, &seen).map_err(|e| format!("smoltcp: {e}"))
}

/// Returns whether both libraries parse the packet and find every checksum valid.
pub fn is_valid(packet: &[u8]) -> bool {
    check(packet).is_ok()
}

/// Checks a packet of a device with checksum offload: its TCP or UDP checksum field must hold the uncomplemented sum
/// of the pseudo-header, and its IPv4 header checksum must be valid.
pub fn check_partial(packet: &[u8]) -> Result<(), String> {
    let seen = by_etherparse(packet)?;
    let at = match seen.protocol {
        IpNumber::TCP => 16,
        IpNumber::UDP => 6,
        other => return Err(format!("protocol {} has no partial checksum", other.0)),
    };
    let field = packet.get(seen.at + at..seen.at + at + 2).ok_or("ends before its checksum")?;
    let have = u16::from_be_bytes([field[0], field[1]]);
    let sum = u16::from_be(pseudo_header(&seen).ones_complement());
    if have != !sum {
        return Err(format!("partial checksum is {have:#06x}, the pseudo-header's sum {:#06x}", !sum));
    }
    if packet[0] >> 4 == 4 && !smoltcp_v4(packet)?.verify_checksum() {
        return Err("smoltcp: IPv4 header checksum".into());
    }
    Ok(())
}

/// What etherparse found.
struct Seen {
    source: IpAddr,
    destination: IpAddr,
    protocol: IpNumber,
    /// Offset of the transport header.
    at: usize,
    /// Bytes from there to the end of the IP packet.
    len: usize,
    fragment: bool,
    verdict: Result<(), String>,
}

fn pseudo_header(seen: &Seen) -> Sum16BitWords {
    let mut sum = Sum16BitWords::new();
    for address in [seen.source, seen.destination] {
        sum = match address {
            IpAddr::V4(a) => sum.add_slice(&a.octets()),
            IpAddr::V6(a) => sum.add_slice(&a.octets()),
        };
    }
    let len = u32::try_from(seen.len).expect("an IP packet's length fits");
    sum.add_2bytes([0, seen.protocol.0]).add_slice(&len.to_be_bytes())
}

fn by_etherparse(packet: &[u8]) -> Result<Seen, String> {
    let sliced = SlicedPacket::from_ip(packet).map_err(|e| format!("etherparse: {e}"))?;
    let (source, destination, payload, header) = match &sliced.net {
        Some(NetSlice::Ipv4(v4)) => {
            let h = v4.header().to_header();
            let header = if h.calc_header_checksum() == h.header_checksum {
                Ok(())
            } else {
                Err(format!("IPv4 header checksum {:#06x}, want {:#06x}", h.header_checksum, h.calc_header_checksum()))
            };
            (IpAddr::from(h.source), IpAddr::from(h.destination), v4.payload(), header)
        }
        Some(NetSlice::Ipv6(v6)) => {
            let h = v6.header();
            (IpAddr::from(h.source()), IpAddr::from(h.destination()), v6.payload(), Ok(()))
        }
        _ => return Err("etherparse: not an IP packet".into()),
    };
    let mut seen = Seen {
        source,
        destination,
        protocol: payload.ip_number,
        at: payload.payload.as_ptr() as usize - packet.as_ptr() as usize,
        len: payload.payload.len(),
        fragment: payload.fragmented,
        verdict: header,
    };
    if seen.verdict.is_ok() && !seen.fragment {
        seen.verdict = transport(&seen, sliced.transport.as_ref(), payload.payload);
    }
    Ok(seen)
}

/// Checks the transport checksum with etherparse: over everything, the complement of the sum must be zero.
fn transport(seen: &Seen, transport: Option<&TransportSlice<'_>>, bytes: &[u8]) -> Result<(), String> {
    let left = match transport {
        Some(TransportSlice::Tcp(_)) | Some(TransportSlice::Icmpv6(_)) => {
            pseudo_header(seen).add_slice(bytes).ones_complement()
        }
        Some(TransportSlice::Icmpv4(_)) => Sum16BitWords::new().add_slice(bytes).ones_complement(),
        Some(TransportSlice::Udp(udp)) => {
            if udp.checksum() == 0 {
                let none = seen.source.is_ipv4();
                return if none { Ok(()) } else { Err("UDP over IPv6 without a checksum".into()) };
            }
            if usize::from(udp.length()) != bytes.len() {
                return Err(format!("UDP length {} of {} bytes", udp.length(), bytes.len()));
            }
            pseudo_header(seen).add_slice(bytes).ones_complement()
        }
        _ => match (seen.protocol.0, seen.source) {
            (33 | 136, _) | (89 | 103, IpAddr::V6(_)) => pseudo_header(seen).add_slice(bytes).ones_complement(),
            _ => return Ok(()),
        },
    };
    if left == 0 { Ok(()) } else { Err(format!("checksum of protocol {} off by {left:#06x}", seen.protocol.0)) }
}

fn smoltcp_v4(packet: &[u8]) -> Result<wire::Ipv4Packet<&[u8]>, String> {
    wire::Ipv4Packet::new_checked(packet).map_err(|e| format!("smoltcp: IPv4: {e}"))
}

fn by_smoltcp(packet: &[u8], seen: &Seen) -> Result<(), String> {
    if packet[0] >> 4 == 4 {
        let v4 = smoltcp_v4(packet)?;
        if !v4.verify_checksum() {
            return Err("IPv4 header checksum".into());
        }
        if v4.src_addr() != seen.source || v4.dst_addr() != seen.destination {
            return Err("the two libraries read different addresses".into());
        }
    } else {
        let v6 = wire::Ipv6Packet::new_checked(packet).map_err(|e| format!("IPv6: {e}"))?;
        if v6.src_addr() != seen.source || v6.dst_addr() != seen.destination {
            return Err("the two libraries read different addresses".into());
        }
    }
    if seen.fragment {
        return Ok(());
    }
    let (source, destination) = (wire::IpAddress::from(seen.source), wire::IpAddress::from(seen.destination));
    let bytes = &packet[seen.at..seen.at + seen.len];
    let right = match (seen.protocol, seen.source, seen.destination) {
        (IpNumber::TCP, ..) => {
            wire::TcpPacket::new_checked(bytes).map_err(|e| format!("TCP: {e}"))?.verify_checksum(&source, &destination)
        }
        (IpNumber::UDP, ..) => {
            wire::UdpPacket::new_checked(bytes).map_err(|e| format!("UDP: {e}"))?.verify_checksum(&source, &destination)
        }
        (IpNumber::ICMP, IpAddr::V4(_), _) => wire::Icmpv4Packet::new_unchecked(bytes).verify_checksum(),
        (IpNumber::IPV6_ICMP, IpAddr::V6(s), IpAddr::V6(d)) => {
            wire::Icmpv6Packet::new_unchecked(bytes).verify_checksum(&s, &d)
        }
        _ => true,
    };
    if right { Ok(()) } else { Err(format!("checksum of protocol {}", seen.protocol.0)) }
}
