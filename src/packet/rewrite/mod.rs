//! The only place where received bytes change.
//!
//! Checksums are patched (RFC 1624), never recomputed, so a packet that arrives with a wrong checksum leaves with a
//! wrong one, and its receiver can still detect it.

mod mss;
mod quoted;

pub use mss::{clamp_mss, mss};
pub use quoted::{Inner, error};

use super::checksum::{self, Delta};
use super::{Addresses, Parsed, Transport, long, proto, word};
use adler2::Adler32;
use crc32c::{crc32c, crc32c_append};

/// What a packet's headers become, with the checksum deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Addresses.
    pub addresses: Addresses,
    /// Source port (ICMP echo: identifier).
    pub src_port: u16,
    /// Destination port (ICMP echo: identifier, the same).
    pub dst_port: u16,
    /// How the checksums change.
    pub deltas: Deltas,
}

/// The checksum deltas of a translation; computed once, when a flow is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deltas {
    /// For the addresses: IPv4 header and partial checksums.
    pub addresses: Delta,
    /// For everything that the transport checksum covers.
    pub transport: Delta,
}

impl Deltas {
    /// Computes the deltas from one set of addresses and ports to another of the same family.
    pub fn between(protocol: u8, old: (&Addresses, u16, u16), new: (&Addresses, u16, u16)) -> Deltas {
        let addresses = (checksum::sum_of(old.0), checksum::sum_of(new.0));
        let ports = |(_, src, dst): (&Addresses, u16, u16)| match protocol {
            proto::ICMP | proto::ICMPV6 => u64::from(src),
            _ => u64::from(src) + u64::from(dst),
        };
        let covered = if protocol == proto::ICMP { (0, 0) } else { addresses };
        Deltas {
            addresses: Delta::between(addresses.0, addresses.1),
            transport: Delta::between(covered.0 + ports(old), covered.1 + ports(new)),
        }
    }

    /// Returns the deltas of the reverse direction.
    #[must_use]
    pub const fn reversed(self) -> Deltas {
        Deltas { addresses: self.addresses.reversed(), transport: self.transport.reversed() }
    }
}

/// Rewrites addresses and ports of a packet and patches its checksums; without ports, the addresses alone.
///
/// `parsed` is the result of [`super::parse`] for these bytes, or of [`super::parse_first`] for a first fragment;
/// `partial` is [`super::Meta::partial_checksum`]. A UDP checksum of zero over IPv4 stays zero (RFC 768). SCTP's
/// CRC32c covers ports but not addresses (RFC 9260, 6.8).
#[inline]
pub fn translate(packet: &mut [u8], parsed: &Parsed, to: &Translation, partial: bool) {
    put_addresses(packet, &to.addresses, to.deltas.addresses);
    let at = parsed.offset;
    let sum = match parsed.transport {
        Transport::Tcp { .. } => at + 16,
        Transport::Udp { .. } => at + 6,
        Transport::Echo { .. } => at + 2,
        Transport::Sctp { .. } => return put_sctp_ports(&mut packet[at..parsed.len], to.src_port, to.dst_port),
        Transport::Other => {
            let kind = (parsed.protocol, to.addresses.is_v6());
            return patch_other(&mut packet[at..parsed.len], kind, to.deltas.transport);
        }
        _ => return,
    };
    let old = word(packet, sum);
    let udp = parsed.protocol == proto::UDP;
    if partial {
        put(packet, sum, to.deltas.addresses.patch_partial(old));
    } else if !(udp && old == 0) {
        let patched = to.deltas.transport.patch(old);
        put(packet, sum, if udp && patched == 0 { 0xffff } else { patched });
    }
    if let Transport::Echo { .. } = parsed.transport {
        put(packet, at + 4, to.src_port);
        all_zero_but_the_sum(packet, parsed);
    } else {
        put(packet, at, to.src_port);
        put(packet, at + 2, to.dst_port);
    }
}

/// Returns the offset of the checksum of a transport without ports, if it covers the addresses: DCCP (RFC 4340, 9.1),
/// UDP-Lite (RFC 3828, 3.1); over IPv6 OSPF (RFC 5340, A.3.1) and PIM (RFC 7761, 4.9).
const fn other_sum(protocol: u8, v6: bool) -> Option<usize> {
    match protocol {
        33 | UDP_LITE => Some(6),
        89 if v6 => Some(12),
        103 if v6 => Some(2),
        _ => None,
    }
}

const UDP_LITE: u8 = 136;

/// Patches the checksum of a transport whose ports are not distinguished, if it covers the addresses.
fn patch_other(transport: &mut [u8], (protocol, v6): (u8, bool), delta: Delta) {
    if let Some(at) = other_sum(protocol, v6).filter(|at| at + 2 <= transport.len()) {
        let patched = delta.patch(word(transport, at));
        // RFC 3828, 3.1: zero means no checksum.
        put(transport, at, if patched == 0 && protocol == UDP_LITE { 0xffff } else { patched });
    }
}

/// Rewrites the addresses of a later fragment: it has no ports, and the checksum is in the first fragment.
pub fn later_fragment(packet: &mut [u8], parsed: &Parsed, to: &Addresses) {
    let delta = Delta::between(checksum::sum_of(&parsed.addresses), checksum::sum_of(to));
    put_addresses(packet, to, delta);
}

/// Replaces the identification of an IPv4 packet, or of the IPv4 packet quoted by an error (RFC 6864, 5.3.1); IPv6
/// packets stay unchanged.
///
/// The header's one's complement sum stays the same, so no checksum that covers the header changes.
pub fn identification(packet: &mut [u8], id: u16) {
    if packet[0] >> 4 == 4 {
        let delta = Delta::between(u64::from(word(packet, 4)), u64::from(id));
        put(packet, 4, id);
        put(packet, 10, delta.patch(word(packet, 10)));
    }
}

/// Changes the ports of a whole SCTP packet. A CRC is linear, so the old field and the CRCs of both contents give a
/// field that is as correct or as wrong as before. A field that is valid as the old Adler-32 (RFC 2960, 6.8) stays
/// so.
fn put_sctp_ports(packet: &mut [u8], src: u16, dst: u16) {
    if (word(packet, 0), word(packet, 2)) == (src, dst) {
        return;
    }
    let (field, before) = (long(packet, 8), sctp_crc(packet));
    let is_of_old = field != before && field == sctp_adler(packet);
    put(packet, 0, src);
    put(packet, 2, dst);
    let field = if is_of_old { sctp_adler(packet) } else { field ^ before ^ sctp_crc(packet) };
    packet[8..12].copy_from_slice(&field.to_be_bytes());
}

/// Computes the CRC of a whole SCTP packet as its field holds it (RFC 9260, appendix A): the field itself counts as
/// zero, and the byte order is little-endian.
fn sctp_crc(packet: &[u8]) -> u32 {
    crc32c_append(crc32c_append(crc32c(&packet[..8]), &[0; 4]), &packet[12..]).swap_bytes()
}

/// Computes the Adler-32 (RFC 2960, appendix B), also with the field taken as zero.
#[cold]
fn sctp_adler(packet: &[u8]) -> u32 {
    let mut sum = Adler32::new();
    for part in [&packet[..8], &[0; 4], &packet[12..]] {
        sum.write_slice(part);
    }
    sum.checksum()
}

/// Turns an echo request into its reply (RFC 792; RFC 4443, 4.2): addresses swapped, type changed, hop limit 64.
pub fn echo_reply(packet: &mut [u8], parsed: &Parsed) {
    put_addresses(packet, &parsed.addresses.reversed(), Delta(0));
    match parsed.addresses {
        Addresses::V4 { .. } => {
            let (ttl, protocol) = (packet[8], packet[9]);
            packet[8] = 64;
            let delta = Delta::between(u64::from(ttl) << 8 | u64::from(protocol), 64 << 8 | u64::from(protocol));
            put(packet, 10, delta.patch(word(packet, 10)));
        }
        Addresses::V6 { .. } => packet[7] = 64,
    }
    let (request, reply): (u8, u8) = if parsed.protocol == proto::ICMP { (8, 0) } else { (128, 129) };
    let at = parsed.offset;
    packet[at] = reply;
    let delta = Delta::between(u64::from(request) << 8, u64::from(reply) << 8);
    put(packet, at + 2, delta.patch(word(packet, at + 2)));
    all_zero_but_the_sum(packet, parsed);
}

/// An all-zero message, as an empty echo reply over IPv4 can be, has the checksum 0xffff, which a patch cannot
/// produce (RFC 1624, 3).
fn all_zero_but_the_sum(packet: &mut [u8], parsed: &Parsed) {
    let message = &packet[parsed.offset..parsed.len];
    if parsed.protocol == proto::ICMP && word(message, 2) == 0 && message.iter().all(|byte| *byte == 0) {
        put(packet, parsed.offset + 2, 0xffff);
    }
}

#[inline]
fn put(packet: &mut [u8], at: usize, value: u16) {
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[inline]
fn put_addresses(packet: &mut [u8], to: &Addresses, delta: Delta) {
    match *to {
        Addresses::V4 { src, dst } => {
            packet[12..16].copy_from_slice(&src.to_be_bytes());
            packet[16..20].copy_from_slice(&dst.to_be_bytes());
            put(packet, 10, delta.patch(word(packet, 10)));
        }
        Addresses::V6 { src, dst } => {
            packet[8..24].copy_from_slice(&src.to_be_bytes());
            packet[24..40].copy_from_slice(&dst.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    fn transport_sum_is_right(packet: &[u8]) -> bool {
        let parsed = parse(packet).unwrap();
        let bytes = &packet[parsed.offset..parsed.len];
        let start = if parsed.protocol == proto::ICMP {
            0
        } else {
            checksum::pseudo(&parsed.addresses, parsed.protocol, bytes.len())
        };
        checksum::fold(checksum::add(start, bytes)) == 0xffff
    }

    fn to(parsed: &Parsed, addresses: Addresses, src_port: u16, dst_port: u16) -> Translation {
        let old = match parsed.transport {
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst } => (src, dst),
            Transport::Echo { id, .. } => (id, id),
            _ => (0, 0),
        };
        let deltas =
            Deltas::between(parsed.protocol, (&parsed.addresses, old.0, old.1), (&addresses, src_port, dst_port));
        Translation { addresses, src_port, dst_port, deltas }
    }

    fn build(kind: u8, a: [u8; 16], b: [u8; 16], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let (a4, b4) = ([a[0], a[1], a[2], a[3]], [b[0], b[1], b[2], b[3]]);
        let v4 = || PacketBuilder::ipv4(a4, b4, 64);
        let v6 = || PacketBuilder::ipv6(a, b, 64);
        match kind {
            0 => v4().tcp(1000, 80, 5, 9).ack(3).write(&mut out, payload),
            1 => v4().udp(1000, 80).write(&mut out, payload),
            2 => v4().icmpv4_echo_request(77, 1).write(&mut out, payload),
            3 => v6().tcp(1000, 80, 5, 9).ack(3).write(&mut out, payload),
            4 => v6().udp(1000, 80).write(&mut out, payload),
            _ => v6().icmpv6_echo_request(77, 1).write(&mut out, payload),
        }
        .unwrap();
        out
    }

    #[test]
    fn checksums_over_the_addresses_stay_valid_without_ports() {
        for (protocol, kind, place) in [(33, 1, 6), (136, 1, 6), (33, 4, 6), (136, 4, 6), (89, 4, 12), (103, 4, 2)] {
            let mut packet = build(kind, [10; 16], [20; 16], b"payload");
            let v6 = kind == 4;
            if v6 {
                packet[6] = protocol
            } else {
                packet[9] = protocol
            }
            let at = if v6 { 40 } else { 20 };
            let fill = |packet: &mut [u8]| {
                if !v6 {
                    packet[10..12].fill(0);
                    let sum = !checksum::fold(checksum::add(0, &packet[..20]));
                    put(packet, 10, sum);
                }
            };
            fill(&mut packet);
            put(&mut packet, at + place, 0);
            let parsed = parse(&packet).unwrap();
            let sum = checksum::add(checksum::pseudo(&parsed.addresses, protocol, packet.len() - at), &packet[at..]);
            put(&mut packet, at + place, !checksum::fold(sum));
            assert!(transport_sum_is_right(&packet));
            let addresses = match parsed.addresses {
                Addresses::V4 { src, .. } => Addresses::V4 { src, dst: 0x0a00_0201 },
                Addresses::V6 { src, .. } => Addresses::V6 { src, dst: 0xfd00 << 112 | 1 },
            };
            translate(&mut packet, &parsed, &to(&parsed, addresses, 0, 0), false);
            assert_eq!(parse(&packet).unwrap().addresses, addresses);
            assert!(transport_sum_is_right(&packet), "{protocol} {v6}");
        }
        // Over IPv4 those of OSPF and PIM do not cover the addresses.
        for protocol in [89, 103] {
            let mut packet = build(1, [10; 16], [20; 16], b"payload");
            packet[9] = protocol;
            put(&mut packet, 10, 0);
            let sum = !checksum::fold(checksum::add(0, &packet[..20]));
            put(&mut packet, 10, sum);
            let before = packet.clone();
            let parsed = parse(&packet).unwrap();
            let Addresses::V4 { src, .. } = parsed.addresses else { panic!() };
            let there = to(&parsed, Addresses::V4 { src, dst: 0x0a00_0201 }, 0, 0);
            translate(&mut packet, &parsed, &there, false);
            assert_eq!(packet[20..], before[20..], "{protocol}");
        }
    }

    proptest! {
        #[test]
        fn checksums_stay_valid_and_the_reverse_gives_the_original(
            kind in 0u8..6, a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), c in any::<[u8; 16]>(),
            port in any::<u16>(), payload in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let original = build(kind, a, b, &payload);
            let parsed = parse(&original).unwrap();
            let addresses = match parsed.addresses {
                Addresses::V4 { src, .. } => Addresses::V4 { src, dst: u32::from_be_bytes([c[0], c[1], c[2], c[3]]) },
                Addresses::V6 { src, .. } => Addresses::V6 { src, dst: u128::from_be_bytes(c) },
            };
            let echo = kind % 3 == 2;
            let there = to(&parsed, addresses, if echo { port } else { 1000 }, port);
            let mut packet = original.clone();
            translate(&mut packet, &parsed, &there, false);
            prop_assert!(transport_sum_is_right(&packet));
            prop_assert_eq!(SlicedPacket::from_ip(&packet).unwrap().transport.is_some(), true);
            let again = parse(&packet).unwrap();
            prop_assert_eq!(again.addresses, addresses);
            let (s, d) = if echo { (77, 77) } else { (1000, 80) };
            let back = Translation { addresses: parsed.addresses, src_port: s, dst_port: d, deltas: there.deltas.reversed() };
            translate(&mut packet, &again, &back, false);
            prop_assert_eq!(packet, original);
        }

        #[test]
        fn a_partial_checksum_stays_the_sum_of_the_pseudo_header(kind in prop::sample::select(vec![0u8, 1, 3, 4]), c in any::<[u8; 16]>()) {
            let mut packet = build(kind, [9; 16], [8; 16], b"payload");
            let parsed = parse(&packet).unwrap();
            let at = parsed.offset + if parsed.protocol == proto::TCP { 16 } else { 6 };
            let sum = |p: &Parsed| checksum::fold(checksum::pseudo(&p.addresses, p.protocol, p.len - p.offset));
            put(&mut packet, at, sum(&parsed));
            let addresses = match parsed.addresses {
                Addresses::V4 { src, .. } => Addresses::V4 { src, dst: u32::from_be_bytes([c[0], c[1], c[2], c[3]]) },
                Addresses::V6 { src, .. } => Addresses::V6 { src, dst: u128::from_be_bytes(c) },
            };
            translate(&mut packet, &parsed, &to(&parsed, addresses, 1000, 8080), true);
            let again = parse(&packet).unwrap();
            prop_assert_eq!(word(&packet, at) % 0xffff, sum(&again) % 0xffff);
        }
    }

    #[test]
    fn a_missing_udp_checksum_stays_missing_and_a_computed_zero_is_sent_as_ffff() {
        let mut packet = build(1, [10; 16], [11; 16], b"x");
        put(&mut packet, 26, 0);
        let parsed = parse(&packet).unwrap();
        let Addresses::V4 { src, dst } = parsed.addresses else { panic!() };
        let there = to(&parsed, Addresses::V4 { src, dst: dst + 1 }, 1000, 81);
        translate(&mut packet, &parsed, &there, false);
        assert_eq!(word(&packet, 26), 0);

        // Among all destination ports, one makes the checksum come out as zero.
        let zero = (1..=u16::MAX).find(|port| {
            let mut packet = build(1, [10; 16], [11; 16], b"x");
            let parsed = parse(&packet).unwrap();
            let there = to(&parsed, parsed.addresses, 1000, *port);
            let raw = there.deltas.transport.patch(word(&packet, 26));
            translate(&mut packet, &parsed, &there, false);
            assert!(transport_sum_is_right(&packet));
            raw == 0 && word(&packet, 26) == 0xffff
        });
        assert!(zero.is_some());
    }

    #[test]
    fn an_all_zero_echo_reply_has_a_checksum_of_ones() {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([1; 4], [2; 4], 9).icmpv4_echo_request(0, 0).write(&mut packet, &[0; 4]).unwrap();
        let parsed = parse(&packet).unwrap();
        echo_reply(&mut packet, &parsed);
        assert_eq!(word(&packet, 22), 0xffff);
        assert!(transport_sum_is_right(&packet));
        let mut reply = Vec::new();
        PacketBuilder::ipv4([1; 4], [2; 4], 9).icmpv4_echo_reply(7, 0).write(&mut reply, &[]).unwrap();
        let parsed = parse(&reply).unwrap();
        translate(&mut reply, &parsed, &to(&parsed, parsed.addresses, 0, 0), false);
        assert!(transport_sum_is_right(&reply));
    }

    #[test]
    fn an_sctp_checksum_of_either_kind_stays_valid_and_a_wrong_one_wrong() {
        let mut sctp = vec![0x03, 0xe8, 0x1f, 0x90, 1, 2, 3, 4, 0, 0, 0, 0, 1, 0, 0, 20];
        sctp.extend(0..16u8);
        let crc = crc32c(&sctp).to_le_bytes();
        let adler = adler2::adler32_slice(&sctp).to_be_bytes();
        for (sum, wrong) in [(crc, 0), (crc, 0x10), (adler, 0), (adler, 0x10)] {
            sctp[8..12].copy_from_slice(&sum);
            sctp[9] ^= wrong;
            let mut original = Vec::new();
            PacketBuilder::ipv4([1; 4], [2; 4], 9).write(&mut original, etherparse::IpNumber::SCTP, &sctp).unwrap();
            let mut packet = original.clone();
            let parsed = parse(&packet).unwrap();
            assert_eq!(parsed.transport, Transport::Sctp { src: 1000, dst: 8080 });
            let Addresses::V4 { src, .. } = parsed.addresses else { panic!() };
            translate(&mut packet, &parsed, &to(&parsed, Addresses::V4 { src, dst: 7 }, 1000, 9999), false);
            let mut body = packet[20..].to_vec();
            body[8..12].fill(0);
            let right =
                if sum == crc { crc32c(&body).to_le_bytes() } else { adler2::adler32_slice(&body).to_be_bytes() };
            assert_eq!(packet[28..32] == right, wrong == 0);
            let again = parse(&packet).unwrap();
            assert_eq!(again.transport, Transport::Sctp { src: 1000, dst: 9999 });
            translate(&mut packet, &again, &to(&again, parsed.addresses, 1000, 8080), false);
            assert_eq!(packet, original);
        }
    }

    #[test]
    fn an_echo_request_becomes_its_reply() {
        for kind in [2, 5] {
            let mut packet = build(kind, [1; 16], [2; 16], b"data");
            packet[if kind == 2 { 8 } else { 7 }] = 3;
            if kind == 2 {
                put(&mut packet, 10, 0);
                let sum = !checksum::fold(checksum::add(0, &packet[..20]));
                put(&mut packet, 10, sum);
            }
            let before = parse(&packet).unwrap();
            echo_reply(&mut packet, &before);
            let after = parse(&packet).unwrap();
            assert_eq!(after.addresses, before.addresses.reversed());
            assert_eq!(after.transport, Transport::Echo { request: false, id: 77 });
            assert!(transport_sum_is_right(&packet));
            match SlicedPacket::from_ip(&packet).unwrap().transport.unwrap() {
                TransportSlice::Icmpv4(icmp) => assert_eq!(icmp.payload(), b"data"),
                TransportSlice::Icmpv6(icmp) => assert_eq!(icmp.payload(), b"data"),
                other => panic!("{other:?}"),
            }
        }
    }
}
