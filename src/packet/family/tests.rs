//! Whole packets and fragments, compared with etherparse.

mod checksums;
mod fragments;

pub(super) use super::super::testing::resum;
use super::super::{InnerChecksum, checksum, parse, word};
use super::*;
use etherparse::{Ipv6FlowLabel, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

pub(super) const FOUR: Addresses = Addresses::V4 { src: 0xc000_0201, dst: 0xc633_6402 };
pub(super) const SIX: Addresses =
    Addresses::V6 { src: 0x2001_0db8_0000_0001_0000_0000_0000_0011, dst: 0x0064_ff9b_0000_0000_0000_0000_c633_6402 };
/// The ports, or identifier, of the packets that the tests build.
const PORTS: (u16, u16) = (40_000, 443);
const ECHO_ID: u16 = 0x1234;

/// The kinds of packets that are translated whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Request,
    Reply,
}

pub(super) const KINDS: [Kind; 4] = [Kind::Tcp, Kind::Udp, Kind::Request, Kind::Reply];

pub(super) fn build(kind: Kind, addresses: &Addresses, payload: &[u8]) -> Vec<u8> {
    let ip = match *addresses {
        Addresses::V4 { src, dst } => PacketBuilder::ipv4(src.to_be_bytes(), dst.to_be_bytes(), 61),
        Addresses::V6 { src, dst } => PacketBuilder::ipv6(src.to_be_bytes(), dst.to_be_bytes(), 61),
    };
    let v6 = matches!(addresses, Addresses::V6 { .. });
    let mut out = Vec::new();
    match (kind, v6) {
        (Kind::Tcp, _) => ip.tcp(PORTS.0, PORTS.1, 5, 9).ack(3).write(&mut out, payload),
        (Kind::Udp, _) => ip.udp(PORTS.0, PORTS.1).write(&mut out, payload),
        (Kind::Request, false) => ip.icmpv4_echo_request(ECHO_ID, 7).write(&mut out, payload),
        (Kind::Request, true) => ip.icmpv6_echo_request(ECHO_ID, 7).write(&mut out, payload),
        (Kind::Reply, false) => ip.icmpv4_echo_reply(ECHO_ID, 7).write(&mut out, payload),
        (Kind::Reply, true) => ip.icmpv6_echo_reply(ECHO_ID, 7).write(&mut out, payload),
    }
    .unwrap();
    out
}

pub(super) fn across(kind: Kind, addresses: Addresses) -> Across {
    let (src_port, dst_port) = if matches!(kind, Kind::Tcp | Kind::Udp) { PORTS } else { (ECHO_ID, ECHO_ID) };
    Across { addresses, src_port, dst_port }
}

/// Returns whether the transport checksum is the one that etherparse computes.
pub(super) fn sum_is_right(packet: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let net = sliced.net.unwrap();
    macro_rules! sums {
        ($header:expr, $payload:expr) => {
            match &net {
                NetSlice::Ipv4(ip) => $header.calc_checksum_ipv4(&ip.header().to_header(), $payload).unwrap(),
                NetSlice::Ipv6(ip) => $header.calc_checksum_ipv6(&ip.header().to_header(), $payload).unwrap(),
                _ => unreachable!(),
            }
        };
    }
    match sliced.transport.unwrap() {
        TransportSlice::Tcp(tcp) => sums!(tcp.to_header(), tcp.payload()) == tcp.checksum(),
        TransportSlice::Udp(udp) => sums!(udp.to_header(), udp.payload()) == udp.checksum(),
        // etherparse's own checksum omits the length attribute of RFC 4884.
        TransportSlice::Icmpv4(icmp) => checksum::fold(checksum::add(0, icmp.slice())) == 0xffff,
        TransportSlice::Icmpv6(icmp) => {
            let NetSlice::Ipv6(ip) = &net else { return false };
            icmp.is_checksum_valid(ip.header().source(), ip.header().destination())
        }
        _ => false,
    }
}

fn cross(packet: &[u8], to: &Across) -> Result<Vec<u8>, Untranslatable> {
    let mut out = b"kept".to_vec();
    let result = translate(&mut out, packet, &parse(packet).unwrap(), to, 0x5678, Meta::default());
    assert_eq!(&out[..4], b"kept");
    assert!(result.is_ok() || out.len() == 4, "a refused packet leaves nothing behind");
    result.map(|_| out.split_off(4))
}

fn v4(address: u64) -> u32 {
    (address >> 16) as u32
}

proptest! {
    #[test]
    fn checksums_stay_valid_and_the_reverse_gives_the_original(
        kind in prop::sample::select(&KINDS[..]), a in any::<(u32, u32)>(), b in any::<(u128, u128)>(),
        ports in any::<(u16, u16)>(), class in any::<u8>(), hops in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 1..1400), from_v6 in any::<bool>(),
    ) {
        let (four, six) = (Addresses::V4 { src: a.0, dst: a.1 }, Addresses::V6 { src: b.0, dst: b.1 });
        let (near, far) = if from_v6 { (six, four) } else { (four, six) };
        let mut packet = build(kind, &near, &payload);
        if from_v6 {
            packet[0] = 0x60 | class >> 4;
            packet[1] = class << 4;
            packet[7] = hops;
        } else {
            packet[1] = class;
            packet[8] = hops;
            // An atomic packet has no identification to lose (RFC 6864, 4); a short one comes back with the caller's.
            let id: u16 = if packet.len() > MAY_FRAGMENT { 0x4000 } else { 0 };
            packet[4..6].copy_from_slice(&if id == 0 { 0x5678u16 } else { 0 }.to_be_bytes());
            packet[6..8].copy_from_slice(&id.to_be_bytes());
            resum(&mut packet);
        }
        let echo = matches!(kind, Kind::Request | Kind::Reply);
        let to = Across { addresses: far, src_port: ports.0, dst_port: if echo { ports.0 } else { ports.1 } };
        let made = cross(&packet, &to).unwrap();
        prop_assert!(sum_is_right(&packet) && sum_is_right(&made));
        prop_assert_eq!(made.len(), translated_len(&packet, &parse(&packet).unwrap()));
        let parsed = parse(&made).unwrap();
        prop_assert_eq!(parsed.addresses, far);
        prop_assert_eq!(parsed.len, made.len());
        let seen = match parsed.transport {
            Transport::Tcp { src, dst, .. } => (Kind::Tcp, src, dst),
            Transport::Udp { src, dst } => (Kind::Udp, src, dst),
            Transport::Echo { request, id } => (if request { Kind::Request } else { Kind::Reply }, id, id),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(seen, (kind, to.src_port, to.dst_port));
        match SlicedPacket::from_ip(&made).unwrap().net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                prop_assert_eq!((header.dcp().value() << 2 | header.ecn().value(), header.ttl()), (class, hops));
                prop_assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                prop_assert_eq!((header.traffic_class(), header.hop_limit()), (class, hops));
                prop_assert_eq!(header.flow_label(), Ipv6FlowLabel::ZERO);
            }
            _ => unreachable!(),
        }
        prop_assert_eq!(cross(&made, &across(kind, near)).unwrap(), packet);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(
        kind in prop::sample::select(&KINDS[..]), at in 0usize..32, bit in 0u32..8, from_v6 in any::<bool>(),
    ) {
        let (near, far) = if from_v6 { (SIX, FOUR) } else { (FOUR, SIX) };
        let mut packet = build(kind, &near, &[0x5a; 32]);
        let payload = packet.len() - 32;
        packet[payload + at] ^= 1 << bit;
        prop_assert!(!sum_is_right(&packet));
        let to = Across { src_port: 9, dst_port: 9, ..across(kind, far) };
        prop_assert!(!sum_is_right(&cross(&packet, &to).unwrap()));
    }

    #[test]
    fn a_partial_checksum_stays_the_sum_of_the_pseudo_header(
        udp in any::<bool>(), from_v6 in any::<bool>(), a in any::<(u32, u32)>(), b in any::<(u128, u128)>(), ports in any::<(u16, u16)>(),
    ) {
        let (four, six) = (Addresses::V4 { src: a.0, dst: a.1 }, Addresses::V6 { src: b.0, dst: b.1 });
        let (near, far) = if from_v6 { (six, four) } else { (four, six) };
        let mut packet = build(if udp { Kind::Udp } else { Kind::Tcp }, &near, &[1; 3000]);
        let field = if udp { 6 } else { 16 };
        let sum = |p: &Parsed| checksum::fold(checksum::pseudo(&p.addresses, p.protocol, p.len - p.offset));
        let parsed = parse(&packet).unwrap();
        let at = parsed.offset + field;
        packet[at..at + 2].copy_from_slice(&sum(&parsed).to_be_bytes());
        let meta = Meta { partial_checksum: true, gso_size: 1000, ingress: 3, ..Meta::default() };
        let mut out = Vec::new();
        let to = Across { addresses: far, src_port: ports.0, dst_port: ports.1 };
        prop_assert_eq!(translate(&mut out, &packet, &parsed, &to, 1, meta), Ok(meta));
        let again = parse(&out).unwrap();
        prop_assert_eq!(word(&out, again.offset + field) % 0xffff, sum(&again) % 0xffff);
        prop_assert_eq!(word(&out, again.offset), ports.0);
    }
}

#[test]
fn ipv4_packets_over_1260_bytes_forbid_fragmentation_and_others_have_an_identification() {
    for (payload, want) in [(1232, (0x5678, 0)), (1233, (0, 0x4000))] {
        let made = cross(&build(Kind::Udp, &SIX, &vec![1; payload]), &across(Kind::Udp, FOUR)).unwrap();
        assert_eq!((made.len(), word(&made, 4), word(&made, 6)), (payload + 28, want.0, want.1));
    }
    // For a super-packet, the size of each segment counts.
    let packet = build(Kind::Tcp, &SIX, &vec![1; 9000]);
    for (gso_size, want) in [(1220, (0x5678, 0)), (1221, (0, 0x4000)), (0, (0, 0x4000))] {
        let mut made = Vec::new();
        let meta = Meta { gso_size, ..Meta::default() };
        translate(&mut made, &packet, &parse(&packet).unwrap(), &across(Kind::Tcp, FOUR), 0x5678, meta).unwrap();
        assert_eq!((word(&made, 4), word(&made, 6)), want, "{gso_size}");
    }
}

#[test]
fn a_packet_that_ipv4_cannot_state_the_length_of_is_too_long() {
    let fits = build(Kind::Tcp, &SIX, &vec![1; 65_535 - 40]);
    assert_eq!(cross(&fits, &across(Kind::Tcp, FOUR)).unwrap().len(), 65_535);
    let long = build(Kind::Tcp, &SIX, &vec![1; 65_535 - 39]);
    assert_eq!(cross(&long, &across(Kind::Tcp, FOUR)), Err(Untranslatable::TooLong));
}

/// Inserts options into an IPv4 packet.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet.splice(20..20, options.iter().copied());
    packet[0] += (options.len() / 4) as u8;
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    resum(&mut packet);
    packet
}

/// Inserts extension headers into an IPv6 packet; the last Next Header must be the transport's.
pub(super) fn with_extensions(packet: &[u8], first: u8, headers: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet.splice(40..40, headers.iter().copied());
    let len = word(&packet, 4) + headers.len() as u16;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet[6] = first;
    packet
}

#[test]
fn ipv4_options_are_left_out_but_a_source_route_with_stations_left_refuses() {
    let plain = build(Kind::Request, &FOUR, b"ping");
    let want = cross(&plain, &across(Kind::Request, SIX)).unwrap();
    for options in [&[1, 1, 1, 0][..], &[7, 7, 4, 0, 0, 0, 0, 0], &[131, 7, 8, 1, 2, 3, 4, 0], &[148, 4, 0, 0]] {
        assert_eq!(cross(&with_options(&plain, options), &across(Kind::Request, SIX)).unwrap(), want);
    }
    for options in [[131, 7, 4, 1, 2, 3, 4, 0], [1, 137, 7, 4, 1, 2, 3, 4]] {
        let got = cross(&with_options(&plain, &options), &across(Kind::Request, SIX));
        assert_eq!(got, Err(Untranslatable::SourceRoute));
    }
}

#[test]
fn ipv6_extension_headers_are_left_out_but_segments_left_and_authentication_refuse() {
    let plain = build(Kind::Udp, &SIX, b"data");
    let want = cross(&plain, &across(Kind::Udp, FOUR)).unwrap();
    let go = |first, headers: &[u8]| cross(&with_extensions(&plain, first, headers), &across(Kind::Udp, FOUR));
    assert_eq!(go(0, &[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]).unwrap(), want);
    assert_eq!(go(43, &[17, 0, 4, 0, 0, 0, 0, 0]).unwrap(), want);
    assert_eq!(go(43, &[17, 0, 4, 1, 0, 0, 0, 0]), Err(Untranslatable::SourceRoute));
    assert_eq!(go(51, &[17, 0, 0, 0, 0, 0, 0, 0]), Err(Untranslatable::Protocol));
    // An atomic fragment is a whole packet whose identification is known (RFC 7915, 5.1.1).
    let atomic = go(44, &[17, 0, 0, 0, 0xab, 0xcd, 0x12, 0x34]).unwrap();
    assert_eq!((word(&atomic, 4), word(&atomic, 6), &atomic[20..]), (0x1234, 0, &want[20..]));
}

#[test]
fn what_has_no_counterpart_is_refused_by_name() {
    let mut gre = build(Kind::Udp, &FOUR, b"data");
    gre[9] = 47;
    resum(&mut gre);
    assert_eq!(cross(&gre, &across(Kind::Udp, SIX)), Err(Untranslatable::Protocol));
    let mut timestamp = build(Kind::Request, &FOUR, b"data");
    timestamp[20] = 13;
    assert_eq!(cross(&timestamp, &across(Kind::Request, SIX)), Err(Untranslatable::Icmp));
    let mut solicitation = build(Kind::Request, &SIX, b"data");
    solicitation[40] = 135;
    assert_eq!(cross(&solicitation, &across(Kind::Request, FOUR)), Err(Untranslatable::Icmp));
    let tcp = build(Kind::Tcp, &FOUR, b"data");
    assert_eq!(cross(&tcp, &across(Kind::Tcp, FOUR)), Err(Untranslatable::Malformed), "its own family");
    let mut piece = tcp.clone();
    piece[6] = 0x20;
    resum(&mut piece);
    assert_eq!(cross(&piece, &across(Kind::Tcp, SIX)), Err(Untranslatable::Fragment));
    // ICMPv6 over IPv4 is not ICMP, nor the reverse.
    let mut odd = build(Kind::Request, &FOUR, b"data");
    (odd[9], odd[20]) = (58, 128);
    resum(&mut odd);
    assert_eq!(cross(&odd, &across(Kind::Request, SIX)), Err(Untranslatable::Protocol));
    let mut odd = build(Kind::Request, &SIX, b"data");
    (odd[6], odd[40]) = (1, 8);
    assert_eq!(cross(&odd, &across(Kind::Request, FOUR)), Err(Untranslatable::Protocol));
}

#[test]
fn the_reported_mtu_is_20_less_in_ipv4_and_20_more_in_ipv6() {
    for (addresses, mtu, want, of_fragment) in
        [(FOUR, 1500, 1480, 1472), (FOUR, 0, 0, 0), (SIX, 1500, 1520, 1520), (SIX, 576, 1280, 1280)]
    {
        let parsed = parse(&build(Kind::Udp, &addresses, b"data")).unwrap();
        assert_eq!(mtu_of_sender(&parsed, mtu), want);
        assert_eq!(mtu_of_sender(&Parsed { whole: false, ..parsed }, mtu), of_fragment);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn no_bytes_panic_and_what_is_made_can_be_read(
        mut bytes in prop::collection::vec(any::<u8>(), 20..300), first in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60]),
        protocol in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 51, 58, 60]), flags in any::<u8>(), kind in any::<u8>(),
        address in any::<u64>(), gso_size in any::<u16>(), partial_checksum in any::<bool>(),
    ) {
        bytes[0] = first;
        let len = bytes.len() as u16;
        if first < 0x60 {
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[6] = flags & 0x20;
            bytes[7] = if flags & 3 == 0 { flags } else { 0 };
            bytes[9] = protocol;
            let at = usize::from(first & 15) * 4;
            if at + 20 < bytes.len() {
                bytes[at] = kind % 16;
                bytes[at + 1] &= 3;
                resum(&mut bytes);
            }
        } else if bytes.len() > 60 {
            bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            bytes[6] = protocol;
            if [0, 43, 44, 51, 60].contains(&protocol) {
                bytes[40] = [6, 17, 58, 44, 60][usize::from(kind) % 5];
                bytes[41] &= 1;
            } else {
                bytes[40] = kind % 8;
            }
        }
        let Ok(parsed) = parse(&bytes) else { return Ok(()) };
        let (to, other) = match parsed.addresses {
            Addresses::V4 { .. } => (SIX, FOUR),
            Addresses::V6 { .. } => (Addresses::V4 { src: v4(address), dst: 1 }, SIX),
        };
        let inner = Across { addresses: to, src_port: 5, dst_port: 6 };
        let meta = Meta { partial_checksum, gso_size, ..Meta::default() };
        let mut out = Vec::new();
        let whole = translate(&mut out, &bytes, &parsed, &inner, 1, meta);
        prop_assert_eq!(whole.is_ok(), !out.is_empty());
        if whole.is_ok() {
            prop_assert_eq!(parse(&out).unwrap().addresses, to);
            prop_assert_eq!(out.len(), translated_len(&bytes, &parsed));
        }
        out.clear();
        let piece = translate_fragment(&mut out, &bytes, &parsed, &inner);
        prop_assert!(piece.is_err() || whole.is_err());
        let fragment = piece.is_ok() && header::read(&out).unwrap().is_fragment();
        prop_assert_eq!(piece.is_ok(), fragment);
        out.clear();
        let error = translate_error(&mut out, &bytes, &parsed, &to, &inner, &MtuRule::default(), 1);
        prop_assert_eq!(error.is_ok(), !out.is_empty());
        if error.is_ok() {
            prop_assert!(sum_is_right(&out));
        }
        let wrong = Across { addresses: other, ..inner };
        prop_assert!(translate_error(&mut out, &bytes, &parsed, &to, &wrong, &MtuRule::default(), 1).is_err());
        routing_type(&bytes);
    }
}
