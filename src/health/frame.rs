//! IP packets of probes, and the verification of received checksums.

use crate::packet::{Addresses, Parsed, Transport, checksum, proto, word};

/// Hop limit of probes.
const HOPS: u8 = 64;

/// Appends an IP packet of `protocol` to `out` and writes the transport checksum at offset `sum_at` of `body`.
pub(super) fn write(out: &mut Vec<u8>, addresses: &Addresses, protocol: u8, sum_at: usize, body: &[u8]) {
    match *addresses {
        Addresses::V4 { src, dst } => {
            let len = (20 + body.len()) as u16;
            let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, HOPS, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[2..4].copy_from_slice(&len.to_be_bytes());
            header[12..16].copy_from_slice(&src.to_be_bytes());
            header[16..20].copy_from_slice(&dst.to_be_bytes());
            let sum = !checksum::fold(checksum::add(0, &header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&header);
        }
        Addresses::V6 { src, dst } => {
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&(body.len() as u16).to_be_bytes());
            out.extend_from_slice(&[protocol, HOPS]);
            out.extend_from_slice(&src.to_be_bytes());
            out.extend_from_slice(&dst.to_be_bytes());
        }
    }
    let at = out.len();
    out.extend_from_slice(body);
    let sum = match !checksum::fold(checksum::add(start(addresses, protocol, body.len()), body)) {
        0 if protocol == proto::UDP => 0xffff,
        sum => sum,
    };
    out[at + sum_at..at + sum_at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Tests whether the transport checksum of a complete packet is valid; an absent UDP checksum over IPv4 is.
pub(super) fn checksum_is_valid(packet: &[u8], parsed: &Parsed) -> bool {
    let Some(mut bytes) = packet.get(parsed.offset..parsed.len) else { return false };
    if let Transport::Udp { .. } = parsed.transport {
        let absent = word(bytes, 6) == 0;
        if absent {
            return matches!(parsed.addresses, Addresses::V4 { .. });
        }
        bytes = &bytes[..usize::from(word(bytes, 4)).min(bytes.len())];
    }
    checksum::fold(checksum::add(start(&parsed.addresses, parsed.protocol, bytes.len()), bytes)) == 0xffff
}

fn start(addresses: &Addresses, protocol: u8, len: usize) -> u64 {
    match protocol {
        proto::ICMP => 0,
        _ => checksum::pseudo(addresses, protocol, len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;
    use etherparse::SlicedPacket;

    #[test]
    fn written_packets_parse_and_have_valid_checksums() {
        let v4 = Addresses::V4 { src: 0x0a00_0001, dst: 0x0a00_0002 };
        let v6 = Addresses::V6 { src: 1 << 120, dst: 2 };
        for addresses in [v4, v6] {
            let icmp = if matches!(addresses, Addresses::V4 { .. }) { (proto::ICMP, 8) } else { (proto::ICMPV6, 128) };
            let bodies = [
                (icmp.0, 2, vec![icmp.1, 0, 0, 0, 0, 7, 0, 1, 0xaa]),
                (proto::UDP, 6, vec![0x10, 0, 0, 53, 0, 9, 0, 0, 0xbb]),
            ];
            for (protocol, sum_at, body) in bodies {
                let mut packet = Vec::new();
                write(&mut packet, &addresses, protocol, sum_at, &body);
                let parsed = parse(&packet).unwrap();
                assert_eq!((parsed.addresses, parsed.protocol, parsed.len), (addresses, protocol, packet.len()));
                assert!(checksum_is_valid(&packet, &parsed));
                SlicedPacket::from_ip(&packet).unwrap();
                *packet.last_mut().unwrap() ^= 1;
                assert!(!checksum_is_valid(&packet, &parsed));
            }
        }
    }
}
