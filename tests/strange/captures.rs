//! The captures: each a name and a file's bytes, generated identically on each run.

use super::craft::*;
use super::random::Random;
use super::transports;
use std::fs;
use std::path::Path;

/// A capture, and whether it may be refused because its file is damaged.
pub struct Capture {
    pub name: String,
    pub file: Vec<u8>,
    pub is_damaged: bool,
}

/// Link types without readable IP packets: AX.25, Econet, BACnet, USB, SITA, Bluetooth, CAN, netlink, ...
pub const UNKNOWN: [u32; 12] = [3, 115, 165, 189, 196, 201, 227, 230, 253, 265, 271, 290];
/// Supported link types, common and rare ones.
const READ: [u32; 43] = [
    0, 1, 6, 7, 8, 9, 10, 12, 14, 50, 51, 100, 101, 104, 105, 107, 108, 109, 113, 117, 119, 122, 123, 127, 129, 138,
    163, 166, 192, 204, 205, 206, 226, 228, 229, 239, 242, 258, 276, 281, 282, 284, 285,
];
const RAW: u32 = 101;

/// Every capture.
pub fn all(fixtures: &Path) -> Vec<Capture> {
    let mut list = Vec::new();
    let mut add = |name: String, file: Vec<u8>| list.push(Capture { name, file, is_damaged: false });
    containers(&mut add);
    foreign_links(&mut add);
    for six in [false, true] {
        protocols(&mut add, six);
        messages(&mut add, six);
        segments(&mut add, six);
        fragments(&mut add, six);
    }
    transports::all(&mut add);
    options(&mut add);
    extensions(&mut add);
    attacks(&mut add);
    damaged(&mut list, fixtures);
    list
}

/// The captures below a directory, whatever they are: each may be refused, none may do harm.
pub fn below(directory: &Path) -> Vec<Capture> {
    let mut list = Vec::new();
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry of the directory").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            list.extend(below(&path));
        } else {
            let file = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            list.push(Capture { name: path.display().to_string(), file, is_damaged: true });
        }
    }
    list
}

pub type Add<'a> = &'a mut dyn FnMut(String, Vec<u8>);

/// The digit of the family.
fn family(six: bool) -> &'static str {
    if six { "6" } else { "4" }
}

fn usual() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for six in [false, true] {
        packets.push(ip(six, 6, &tcp(six, 80, [0x50, 0x02], &[])));
        packets.push(ip(six, 6, &tcp(six, 80, [0x50, 0x10], b"data")));
        packets.push(ip(six, 17, &udp(six, 53, b"question")));
        let echo = if six { 128 } else { 8 };
        packets.push(ip(six, if six { 58 } else { 1 }, &icmp(six, echo, 0, [0, 7, 0, 1], b"ping")));
    }
    packets
}

/// The link header of a packet, by link type number.
fn link_header(link: u32, six: bool) -> Vec<u8> {
    let kind = if six { [0x86, 0xdd] } else { [8, 0] };
    match link {
        1 => [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &kind].concat(),
        113 => [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], &kind].concat(),
        276 => [&kind[..], &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]].concat(),
        0 => vec![if six { 30 } else { 2 }, 0, 0, 0],
        108 => vec![0, 0, 0, if six { 24 } else { 2 }],
        9 | 50 => vec![0xff, 3, 0, if six { 0x57 } else { 0x21 }],
        51 => vec![0x11, 0, 0, 9, 0, 0, 0, if six { 0x57 } else { 0x21 }],
        104 => [&[0x8f, 0][..], &kind].concat(),
        166 => vec![1, 3, 0, if six { 0x57 } else { 0x21 }],
        204 => vec![0, if six { 0x57 } else { 0x21 }],
        10 => [&[0x50; 13][..], &[0xaa, 0xaa, 3, 0, 0, 0], &kind].concat(),
        100 => [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind].concat(),
        122 => [&[7; 16][..], &[0xaa, 0xaa, 3, 0, 0, 0], &kind].concat(),
        117 => [&[61, if six { 24 } else { 2 }][..], &[0; 62]].concat(),
        _ => rare_header(link, six),
    }
}

/// The same for rare link types.
fn rare_header(link: u32, six: bool) -> Vec<u8> {
    let kind = if six { [0x86, 0xdd] } else { [8, 0] };
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind].concat();
    let radio = [&[0x88, 1][..], &[2; 20], &[0; 4], &snap].concat();
    let family = |v6: u8| if six { v6 } else { 2 };
    match link {
        6 => [&[0x10, 0x40][..], &[2; 6], &[0x82; 6], &[6, 0x30, 0, 0, 0, 0], &snap].concat(),
        7 => vec![1, 2, if six { 196 } else { 212 }, 0, 0, 1],
        8 => vec![0; 16],
        105 => radio,
        107 => vec![0x18, 0x41, 3, if six { 0x8e } else { 0xcc }],
        109 => [&[family(24), 0, 0, 0][..], &[0; 8]].concat(),
        119 => [&[0; 144][..], &radio].concat(),
        123 => [&[2, 0, 0, 5][..], &snap].concat(),
        127 => [&[0, 0, 9, 0, 2, 0, 0, 0, 0][..], &radio].concat(),
        129 => vec![1, 2, 0, 0, if six { 196 } else { 212 }, 0, 0, 1],
        138 => [&[3; 16][..], &kind].concat(),
        163 => [&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64][..], &[0; 56], &radio].concat(),
        192 => [&[0, 0, 8, 0, 105, 0, 0, 0][..], &radio].concat(),
        205 => [&[1, 0x0f, 0][..], &kind].concat(),
        206 => [&[1, 0x18, 0x41, 3, 0, 0x80, 0, 0, 0][..], &kind].concat(),
        226 => [&[1, family(26)][..], &[0; 22]].concat(),
        239 => vec![family(10), 0, 0, 0, 5, 0, 10, 0, b'x', 0, 0, 0, 0, 4, 9, 0],
        242 => [&[0; 40][..], &kind, &[0, 0]].concat(),
        258 => [&[16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &[2; 12], &kind].concat(),
        281 | 284 => [&[2; 12][..], &[0xc0, 0, 0, 1], &kind].concat(),
        282 => [&[0x20, 0, 0, 1][..], &[2; 12], &kind].concat(),
        285 => [&[2; 12][..], &[0xda, 0xda, 0, 0, 0xc0, 0, 0, 1], &kind].concat(),
        _ => Vec::new(),
    }
}

fn framed(link: u32) -> Vec<Vec<u8>> {
    usual().into_iter().map(|packet| [link_header(link, packet[0] >> 4 == 6), packet].concat()).collect()
}

fn containers(add: Add) {
    for link in READ.into_iter().chain(UNKNOWN) {
        for (big, nanos) in [(false, false), (false, true), (true, false), (true, true)] {
            add(format!("link {link} pcap big {big} nanos {nanos}"), pcap(big, nanos, link, usize::MAX, &framed(link)));
        }
        for big in [false, true] {
            add(format!("link {link} pcapng big {big}"), pcapng(big, link as u16, usize::MAX, &framed(link)));
        }
    }
    for cut in [0, 1, 13, 14, 19, 20, 33, 40, 54, 60, 67] {
        add(format!("snaplen {cut} pcap"), pcap(false, false, 1, cut, &framed(1)));
        add(format!("snaplen {cut} pcapng"), pcapng(true, 1, cut, &framed(1)));
    }
    for big in [false, true] {
        add(format!("link 1 pcapng of old, big {big}"), pcapng_of_old(big, 1, &framed(1)));
    }
    add("empty frames".into(), pcap(false, false, 1, 0, &vec![Vec::new(); 5]));
    add("empty raw frames".into(), pcapng(false, 101, 0, &vec![Vec::new(); 5]));
    add("no frames".into(), pcap(true, true, 1, 0, &[]));
}

fn foreign_links(add: Add) {
    let kinds: [(&str, &[u8]); 12] = [
        ("ARP", &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]),
        ("IPX", &[0x81, 0x37, 0xff, 0xff, 0, 30]),
        ("AppleTalk", &[0x80, 0x9b, 0, 12]),
        ("AARP", &[0x80, 0xf3, 0, 1]),
        ("DECnet", &[0x60, 0x03, 2, 0]),
        ("LLC", &[0, 38, 0x42, 0x42, 3, 0, 0]),
        ("SNAP", &[0, 38, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
        ("MPLS", &[0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64]),
        ("PPPoE", &[0x88, 0x64, 0x11, 0, 0, 1, 0, 80, 0, 0x21]),
        ("five VLAN tags", &[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 0x81, 0, 0, 4, 0x81, 0, 0, 5, 8, 0]),
        ("LLDP", &[0x88, 0xcc, 2, 7, 4]),
        ("a VLAN tag", &[0x81, 0, 0xe0, 5, 8, 0]),
    ];
    for (name, head) in kinds {
        let frames: Vec<_> = usual()
            .iter()
            .map(|packet| [&[2; 12][..], head, packet].concat())
            .chain([[&[2; 12][..], head].concat()])
            .collect();
        add(format!("Ethernet with {name}"), pcap(false, false, 1, usize::MAX, &frames));
    }
}

/// Transports of all kinds, each with payloads of many lengths.
fn protocols(add: Add, six: bool) {
    for step in 0..64u8 {
        let mut packets = Vec::new();
        for protocol in step * 4..=step * 4 + 3 {
            for len in [0, 1, 3, 4, 7, 8, 12, 19, 20, 28, 64] {
                let body: Vec<u8> = (0..len).map(|i: u8| i.wrapping_mul(37).wrapping_add(protocol)).collect();
                packets.push(ip(six, protocol, &body));
            }
            // IPIP, 6in4 and GRE with a whole packet inside.
            packets.extend(usual().iter().map(|inner| ip(six, protocol, inner)));
            packets.extend(usual().iter().map(|inner| ip(six, protocol, &[&[0, 0, 8, 0][..], inner].concat())));
        }
        let name = format!("IPv{} protocols from {}", family(six), step * 4);
        add(name, pcap(false, false, RAW, usize::MAX, &packets));
    }
}

/// ICMP of all types and codes, and errors whose quotes end at each byte.
fn messages(add: Add, six: bool) {
    let number = if six { 58 } else { 1 };
    for step in 0..16u8 {
        let kinds = (0..16u8).map(|low| step * 16 + low);
        let about = &usual()[if six { 4 } else { 0 }];
        let packets: Vec<_> = kinds
            .flat_map(|kind| (0..=16u8).chain([254, 255]).map(move |code| (kind, code)))
            .map(|(kind, code)| ip(six, number, &icmp(six, kind, code, [0, 0, 5, 0], about)))
            .collect();
        add(
            format!("ICMP of IPv{} types from {}", family(six), step * 16),
            pcap(false, true, RAW, usize::MAX, &packets),
        );
    }
    let errors: &[(u8, u8)] =
        if six { &[(1, 4), (2, 0), (3, 0), (4, 1)] } else { &[(3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)] };
    for (at, about) in usual().iter().enumerate().filter(|(_, packet)| (packet[0] >> 4 == 6) == six) {
        for (kind, code) in errors {
            // First a flow, then errors about packets to its server, which the gateway never sent, and about its own.
            let mut packets = usual();
            for cut in 0..=about.len() {
                packets.push(ip(six, number, &icmp(six, *kind, *code, [0, 0, 5, 0], &about[..cut])));
            }
            // RFC 4884: the length of the quote in words, padding to 128 bytes, and an extension with its checksum.
            let mut quote = about.clone();
            quote.resize(128, 0);
            let mut extension = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 0x21, 64];
            let right = sum(&[&extension]);
            extension[2..4].copy_from_slice(&right.to_be_bytes());
            quote.extend(extension);
            for words in [0, 1, 15, 16, 17, 32, 33, 255] {
                let head = if six { [words, 0, 5, 0] } else { [0, words, 5, 0] };
                packets.push(ip(six, number, &icmp(six, *kind, *code, head, &quote)));
            }
            let name = format!("quotes of IPv{} {at} in type {kind}", family(six));
            add(name, pcap(false, false, RAW, usize::MAX, &packets));
        }
    }
}

/// TCP of all flags and data offsets; UDP with wrong checksums and lengths.
fn segments(add: Add, six: bool) {
    for offset in 0..16u8 {
        let packets: Vec<_> =
            (0..=255u8).map(|flags| ip(six, 6, &tcp(six, 80, [offset << 4 | flags & 15, flags], &[1; 40]))).collect();
        add(format!("TCP over IPv{} offset {offset}", family(six)), pcap(false, false, RAW, usize::MAX, &packets));
    }
    let mut packets = Vec::new();
    for port in [0, 1, 53, 80, 65_535] {
        packets.push(ip(six, 17, &udp(six, port, b"data")));
        let mut none = udp(six, port, b"data");
        none[6..8].fill(0);
        packets.push(ip(six, 17, &none));
        for len in [0u16, 7, 8, 11, 13, 65_535] {
            let mut wrong = udp(six, port, b"data");
            wrong[4..6].copy_from_slice(&len.to_be_bytes());
            packets.push(ip(six, 17, &summed(six, 17, 6, wrong)));
        }
    }
    add(format!("UDP over IPv{}", family(six)), pcap(true, false, RAW, usize::MAX, &packets));
    // Each option kind of TCP with lengths that fit, are zero, or overrun.
    let packets: Vec<_> = (0..=255u8)
        .flat_map(|kind| [0u8, 1, 2, 4, 8, 40].map(|len| [kind, len, 5, 0xb4, 0, 0, 0, 0]))
        .map(|options| ip(six, 6, &tcp(six, 443, [0x70, 2], &options)))
        .collect();
    add(format!("TCP options over IPv{}", family(six)), pcap(true, true, RAW, usize::MAX, &packets));
}

fn fragments(add: Add, six: bool) {
    let whole = udp(six, 53, &[7; 1400]);
    let mut orders: Vec<(&str, Vec<(u16, u16, bool)>)> = vec![
        ("in order", vec![(0, 600, true), (600, 1200, true), (1200, 1408, false)]),
        ("last first", vec![(1200, 1408, false), (600, 1200, true), (0, 600, true)]),
        ("twice", vec![(0, 600, true), (0, 600, true), (600, 1408, false), (600, 1408, false)]),
        ("teardrop", vec![(0, 600, true), (24, 48, false)]),
        ("overlap", vec![(0, 600, true), (400, 1408, false)]),
        ("tiny", vec![(0, 8, true), (8, 1408, false)]),
        ("no first", vec![(600, 1200, true), (1200, 1408, false)]),
        ("two ends", vec![(0, 600, true), (600, 800, false), (800, 1408, false)]),
        ("alone", vec![(0, 1408, false)]),
    ];
    orders.push(("in eights", (0..176).map(|i| (i * 8, i * 8 + 8, i < 175)).collect()));
    for (name, pieces) in orders {
        for protocol in [17, 6, if six { 58 } else { 1 }] {
            let body = match protocol {
                17 => whole.clone(),
                6 => tcp(six, 80, [0x50, 2], &[7; 1388]),
                _ => icmp(six, if six { 128 } else { 8 }, 0, [0, 9, 0, 1], &[7; 1400]),
            };
            let piece = |(from, to, more): &(u16, u16, bool)| {
                fragment(six, protocol, 77, *from, *more, &body[usize::from(*from)..usize::from(*to)])
            };
            let packets: Vec<_> = pieces.iter().map(piece).chain(usual()).collect();
            add(
                format!("fragments of IPv{} {protocol} {name}", family(six)),
                pcap(false, false, RAW, usize::MAX, &packets),
            );
        }
    }
    let flood: Vec<_> = (0..1500).map(|i| fragment(six, 17, i, 8 * (i as u16 % 100), i % 3 > 0, &[3; 64])).collect();
    add(format!("a flood of fragments over IPv{}", family(six)), pcap(false, false, RAW, usize::MAX, &flood));
    // The ping of death: it would end beyond 65,535 bytes.
    let death =
        [(0, true), (65_528, false)].map(|(at, more)| fragment(six, if six { 58 } else { 1 }, 5, at, more, &[8; 400]));
    add(format!("ping of death over IPv{}", family(six)), pcap(false, false, RAW, usize::MAX, &death));
}

/// IPv4 options of each kind, with valid and invalid lengths and pointers.
fn options(add: Add) {
    for high in 0..16u8 {
        let mut packets = Vec::new();
        for kind in (0..16).map(|low| high * 16 + low) {
            for len in [0u8, 1, 2, 3, 4, 7, 8, 11, 39, 40, 255] {
                let options = [kind, len, 4, 10, 0, 0, 1, 0, 0, 0, 0, 0];
                packets.push(v4(SRC4, DST4, 17, &options, 0, &udp(false, 53, b"x")));
                packets.push(v4(SRC4, DST4, 6, &options, 0x4000, &tcp(false, 80, [0x50, 2], &[])));
            }
        }
        add(format!("IPv4 options from {}", high * 16), pcap(false, false, RAW, usize::MAX, &packets));
    }
}

/// Extension headers in all orders of three, with valid and invalid lengths.
fn extensions(add: Add) {
    const KINDS: [u8; 7] = [0, 43, 44, 51, 60, 135, 139];
    for first in KINDS {
        let mut packets = Vec::new();
        for (second, third) in KINDS.into_iter().flat_map(|a| KINDS.map(|b| (a, b))) {
            for (transport, body) in [(17, udp(true, 53, b"x")), (6, tcp(true, 80, [0x50, 2], &[])), (59, vec![])] {
                for bad in [0, 1, 255u8] {
                    let header = |kind: u8, next: u8| match kind {
                        44 => vec![next, 0, 0, bad & 1, 0, 0, 0, 9],
                        51 => vec![
                            next,
                            bad.saturating_add(4),
                            0,
                            0,
                            0,
                            0,
                            1,
                            0,
                            0,
                            0,
                            0,
                            1,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                        ],
                        // A routing header of type 0 with a segment left and a wrong length.
                        43 => vec![next, bad, 0, bad & 1, 0, 0, 0, 0],
                        _ => vec![next, bad, 1, 4, 0, 0, 0, 0],
                    };
                    let chain = [header(first, second), header(second, third), header(third, transport), body.clone()];
                    packets.push(v6(first, &chain.concat()));
                }
            }
        }
        add(format!("extension chains from {first}"), pcap(false, false, RAW, usize::MAX, &packets));
    }
    // RH0 with an address and a segment left; a jumbogram (RFC 2675): length 0 and the option.
    let rh0 = [&[17, 2, 0, 1, 0, 0, 0, 0][..], &DST6, &udp(true, 53, b"x")].concat();
    let mut jumbo = v6(0, &[&[17, 0, 0xc2, 4, 0, 1, 0, 8][..], &vec![0; 65_544]].concat());
    jumbo[4..6].fill(0);
    add("a routing header of type 0".into(), pcap(false, false, RAW, usize::MAX, &[v6(43, &rh0)]));
    add("a jumbogram".into(), pcap(false, false, RAW, usize::MAX, &[jumbo]));
    let long = (0..60).fold(udp(true, 53, b"x"), |body, i| {
        [&[if i == 0 { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0][..], &body].concat()
    });
    add("sixty extension headers".into(), pcap(false, false, RAW, usize::MAX, &[v6(60, &long)]));
}

/// Addresses that no packet should have, as source and as destination.
fn attacks(add: Add) {
    let odd = [
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 251],
        [255; 4],
        [240, 0, 0, 1],
        [169, 254, 1, 1],
        SRC4,
        DST4,
        [10, 9, 0, 1],
    ];
    for (protocol, body) in
        [(6, tcp(false, 80, [0x50, 2], &[])), (17, udp(false, 53, b"x")), (1, icmp(false, 8, 0, [0; 4], b"x"))]
    {
        let mut packets = Vec::new();
        for (src, dst) in odd.into_iter().flat_map(|src| odd.map(|dst| (src, dst))) {
            let mut body = body.clone();
            if protocol != 1 {
                let at = if protocol == 6 { 16 } else { 6 };
                body[at..at + 2].fill(0);
                let len = (body.len() as u16).to_be_bytes();
                let right = sum(&[&src, &dst, &[0, protocol], &len, &body]);
                body[at..at + 2].copy_from_slice(&right.to_be_bytes());
            }
            packets.push(v4(src, dst, protocol, &[], 0, &body));
        }
        add(format!("odd addresses with protocol {protocol}"), pcap(false, false, RAW, usize::MAX, &packets));
    }
    for version in 0..16u8 {
        let packets: Vec<_> = usual()
            .into_iter()
            .flat_map(|packet| {
                (0..16u8).map(move |low| {
                    let mut packet = packet.clone();
                    packet[0] = version << 4 | low;
                    packet
                })
            })
            .collect();
        add(format!("IP version {version}"), pcap(false, false, RAW, usize::MAX, &packets));
    }
}

/// The real captures with flipped bits, and truncated.
fn damaged(list: &mut Vec<Capture>, fixtures: &Path) {
    let mut names: Vec<_> =
        fs::read_dir(fixtures).expect("fixtures/captures").map(|entry| entry.expect("an entry").path()).collect();
    names.retain(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"));
    names.sort();
    for (nth, path) in names.iter().enumerate() {
        let mut whole = fs::read(path).expect("a capture");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        whole.truncate(40_000);
        for seed in 0..12 {
            let mut random = Random::new(nth as u64 * 100 + seed);
            let mut file = whole.clone();
            for _ in 0..1 + random.below(60) {
                let at = random.below(file.len() as u64) as usize;
                // The first bytes identify the file format.
                if at > 60 {
                    file[at] ^= 1 << random.below(8);
                }
            }
            if seed % 3 == 0 {
                file.truncate(random.below(file.len() as u64) as usize);
            }
            list.push(Capture { name: format!("{name} damaged {seed}"), file, is_damaged: true });
        }
    }
}
