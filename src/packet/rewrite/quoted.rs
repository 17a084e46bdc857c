//! Forwarded ICMP errors: the outer header and the quoted packet are both translated, and every checksum that covers
//! them is patched (RFC 5508 REQ-4 and REQ-5; RFC 3022, 4.3).
//!
//! It must not know which flow the quote belongs to.

use super::super::checksum::{self, Delta};
use super::super::{Addresses, Parsed, Protocol, Quote, word};
use super::{Deltas, other_sum, put, put_addresses, put_sctp_ports};

/// What the quoted packet was before its translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    /// Its addresses, of the quote's family.
    pub addresses: Addresses,
    /// Its source port; the identifier of an echo. Unused for a later fragment.
    pub src_port: u16,
    /// Its destination port; the identifier of an echo.
    pub dst_port: u16,
}

/// Bytes of a transport header that a translation can change or that a checksum covers: TCP's, without options.
const TRANSPORT: usize = 20;

/// Rewrites an ICMP error and the packet that it quotes, within one family.
///
/// `quote` is the result of [`super::super::quote`] for these bytes. A quoted transport checksum that was cut off is
/// skipped; a UDP checksum of zero stays zero.
pub fn error(packet: &mut [u8], parsed: &Parsed, quote: &Quote, outer: &Addresses, inner: &Inner) {
    let region = quote.at..quote.end.min(quote.transport + TRANSPORT);
    let before = checksum::add(0, &packet[region.clone()]);
    put_quoted(&mut packet[quote.at..quote.end], quote, inner);
    let after = checksum::add(0, &packet[region]);
    let mut delta = (before, after);
    let addresses = (checksum::sum_of(&parsed.addresses), checksum::sum_of(outer));
    if outer.is_v6() {
        // RFC 4443, 2.3: the checksum covers the addresses too.
        delta = (delta.0 + addresses.0, delta.1 + addresses.1);
    }
    put_addresses(packet, outer, Delta::between(addresses.0, addresses.1));
    let sum = parsed.offset + 2;
    put(packet, sum, Delta::between(delta.0, delta.1).patch(word(packet, sum)));
}

/// Bytes of the SCTP header.
const SCTP: usize = 12;

/// Returns the length of the quoted packet as its header states it; 0 for a fragment.
fn stated_len(quoted: &[u8], quote: &Quote) -> usize {
    match quote.fragment_of {
        Some(_) => 0,
        None if quote.addresses.is_v6() => 40 + usize::from(word(quoted, 4)),
        None => usize::from(word(quoted, 2)),
    }
}

fn put_quoted(quoted: &mut [u8], quote: &Quote, to: &Inner) {
    let number = quote.protocol.number(quote.addresses.is_v6());
    let deltas = Deltas::between(
        number,
        (&quote.addresses, quote.src_port, quote.dst_port),
        (&to.addresses, to.src_port, to.dst_port),
    );
    put_addresses(quoted, &to.addresses, deltas.addresses);
    if quote.later {
        return;
    }
    let at = quote.transport - quote.at;
    let sum = match quote.protocol {
        Protocol::Tcp => at + 16,
        Protocol::Udp => at + 6,
        Protocol::Icmp => at + 2,
        Protocol::Ip(number) => other_sum(number, quote.addresses.is_v6()).map_or(usize::MAX - 2, |sum| at + sum),
        Protocol::Sctp => usize::MAX - 2,
    };
    if sum + 2 <= quoted.len() {
        let udp = quote.protocol == Protocol::Udp;
        let old = word(quoted, sum);
        if !(udp && old == 0) {
            let patched = deltas.transport.patch(old);
            put(quoted, sum, if udp && patched == 0 { 0xffff } else { patched });
        }
    }
    match quote.protocol {
        Protocol::Icmp => put(quoted, at + 4, to.src_port),
        // The CRC can follow a change of ports only if everything that it covers is quoted.
        Protocol::Sctp if (at + SCTP..=quoted.len()).contains(&stated_len(quoted, quote)) => {
            let len = stated_len(quoted, quote);
            put_sctp_ports(&mut quoted[at..len], to.src_port, to.dst_port);
        }
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => {
            put(quoted, at, to.src_port);
            put(quoted, at + 2, to.dst_port);
        }
        Protocol::Ip(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{self as packet, parse, proto, quote};
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn sum_is_right(packet: &[u8], parsed: &Parsed) -> bool {
        let start = if parsed.protocol == proto::ICMP {
            0
        } else {
            checksum::pseudo(&parsed.addresses, parsed.protocol, parsed.len - parsed.offset)
        };
        checksum::fold(checksum::add(start, &packet[parsed.offset..parsed.len])) == 0xffff
    }

    fn inner(v6: bool, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let v4 = || PacketBuilder::ipv4([10, 0, 2, 1], [198, 51, 100, 7], 60);
        let six = || PacketBuilder::ipv6([0xfd; 16], [0x20; 16], 60);
        match (v6, kind) {
            (false, 0) => v4().tcp(8080, 40_000, 77, 9).ack(3).write(&mut out, payload),
            (false, 1) => v4().udp(8080, 40_000).write(&mut out, payload),
            (false, _) => v4().icmpv4_echo_reply(500, 1).write(&mut out, payload),
            (true, 0) => six().tcp(8080, 40_000, 77, 9).ack(3).write(&mut out, payload),
            (true, 1) => six().udp(8080, 40_000).write(&mut out, payload),
            (true, _) => six().icmpv6_echo_reply(500, 1).write(&mut out, payload),
        }
        .unwrap();
        out
    }

    fn error_about(inner: &[u8], v6: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if v6 {
            let kind = etherparse::Icmpv6Type::PacketTooBig { mtu: 1400 };
            PacketBuilder::ipv6([7; 16], [0xfd; 16], 60).icmpv6(kind).write(&mut out, inner).unwrap();
        } else {
            let kind = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
            let kind = etherparse::Icmpv4Type::DestinationUnreachable(kind);
            PacketBuilder::ipv4([203, 0, 113, 1], [10, 0, 2, 1], 60).icmpv4(kind).write(&mut out, inner).unwrap();
        }
        out
    }

    fn addresses(v6: bool, bytes: [u8; 16], more: [u8; 16]) -> Addresses {
        if v6 {
            return Addresses::V6 { src: u128::from_be_bytes(bytes), dst: u128::from_be_bytes(more) };
        }
        let four = |b: [u8; 16]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        Addresses::V4 { src: four(bytes), dst: four(more) }
    }

    proptest! {
        #[test]
        fn every_checksum_is_valid_and_the_reverse_gives_the_original(
            v6: bool, kind in 0u8..3, payload in prop::collection::vec(any::<u8>(), 0..60), cut in 0usize..40,
            a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), ports in any::<(u16, u16)>(),
        ) {
            let whole = inner(v6, kind, &payload);
            let keep = whole.len().saturating_sub(cut).max(if v6 { 48 } else { 28 });
            let original = error_about(&whole[..keep.min(whole.len())], v6);
            let mut packet = original.clone();
            let parsed = parse(&packet).unwrap();
            let about = quote(&packet, &parsed).unwrap();
            let ports = if kind == 2 { (ports.0, ports.0) } else { ports };
            let to = Inner { addresses: addresses(v6, a, b), src_port: ports.0, dst_port: ports.1 };
            let outer = addresses(v6, b, a);
            error(&mut packet, &parsed, &about, &outer, &to);
            let again = parse(&packet).unwrap();
            prop_assert!(sum_is_right(&packet, &again));
            prop_assert_eq!(again.addresses, outer);
            let got = quote(&packet, &again).unwrap();
            prop_assert_eq!((got.addresses, got.src_port, got.dst_port), (to.addresses, ports.0, ports.1));
            if keep >= whole.len() {
                let inner_parsed = parse(&packet[got.at..]).unwrap();
                prop_assert!(sum_is_right(&packet[got.at..], &inner_parsed));
            }
            let back = Inner { addresses: about.addresses, src_port: about.src_port, dst_port: about.dst_port };
            error(&mut packet, &again, &got, &parsed.addresses, &back);
            prop_assert_eq!(packet, original);
        }
    }

    #[test]
    fn a_wrong_outer_checksum_stays_wrong_and_a_quoted_udp_checksum_of_zero_stays_zero() {
        let mut quoted = inner(false, 1, b"x");
        quoted[26..28].fill(0);
        let mut error_packet = error_about(&quoted, false);
        error_packet[22] ^= 0x40;
        let parsed = parse(&error_packet).unwrap();
        let about = quote(&error_packet, &parsed).unwrap();
        let to = Inner { addresses: addresses(false, [1; 16], [2; 16]), src_port: 1, dst_port: 2 };
        error(&mut error_packet, &parsed, &about, &addresses(false, [3; 16], [4; 16]), &to);
        assert!(!sum_is_right(&error_packet, &parse(&error_packet).unwrap()));
        assert_eq!(word(&error_packet, 28 + 26), 0);
        assert!(packet::quote(&error_packet, &parse(&error_packet).unwrap()).is_ok());
    }

    #[test]
    fn the_crc_of_sctp_follows_where_the_whole_packet_is_quoted() {
        let mut sctp = vec![0x1f, 0x90, 0x9c, 0x40, 1, 2, 3, 4, 0, 0, 0, 0, 1, 0, 0, 20];
        sctp.extend(0..16u8);
        let crc = crc32c::crc32c(&sctp);
        sctp[8..12].copy_from_slice(&crc.to_le_bytes());
        for (v6, cut, follows) in [(false, 0, true), (true, 0, true), (false, 1, false), (true, 1, false)] {
            let mut quoted = Vec::new();
            let number = etherparse::IpNumber::SCTP;
            if v6 {
                PacketBuilder::ipv6([0xfd; 16], [0x20; 16], 60).write(&mut quoted, number, &sctp).unwrap();
            } else {
                PacketBuilder::ipv4([10, 0, 2, 1], [198, 51, 100, 7], 60).write(&mut quoted, number, &sctp).unwrap();
            }
            let mut packet = error_about(&quoted[..quoted.len() - cut], v6);
            let parsed = parse(&packet).unwrap();
            let about = quote(&packet, &parsed).unwrap();
            let to = Inner { addresses: addresses(v6, [1; 16], [2; 16]), src_port: 9, dst_port: 99 };
            error(&mut packet, &parsed, &about, &addresses(v6, [3; 16], [4; 16]), &to);
            assert!(sum_is_right(&packet, &parse(&packet).unwrap()));
            let got = quote(&packet, &parsed).unwrap();
            assert_eq!((got.src_port, got.dst_port), (9, 99));
            let mut inner = packet[got.at + if v6 { 40 } else { 20 }..].to_vec();
            let field = u32::from_le_bytes(inner[8..12].try_into().unwrap());
            inner[8..12].fill(0);
            assert_eq!(field, if follows { crc32c::crc32c(&inner) } else { crc }, "{v6} {cut}");
        }
    }
}
