//! Captures of transports with peculiar checksums, and of packets whose checksum covers other addresses than their
//! header's.

use super::captures::Add;
use super::craft::*;

/// Every one of them.
pub fn all(add: Add) {
    for six in [false, true] {
        associations(add, six);
        portless(add, six);
    }
    source_routes(add);
    homes(add);
}

fn of(six: bool) -> &'static str {
    if six { "IPv6" } else { "IPv4" }
}

fn raw(packets: &[Vec<u8>]) -> Vec<u8> {
    pcap(false, false, 101, usize::MAX, packets)
}

/// SCTP with chunks of many lengths, and errors about the service's replies, quoted whole, truncated and with
/// padding.
fn associations(add: Add, six: bool) {
    let number = if six { 58 } else { 1 };
    let (kind, code) = if six { (1, 4) } else { (3, 2) };
    let message = |quote: &[u8]| ip(six, number, &icmp(six, kind, code, [0; 4], quote));
    let mut packets = Vec::new();
    for len in 0..120u8 {
        let chunk = [&[0, 3, 0, len + 4][..], &(0..len).collect::<Vec<_>>()].concat();
        let (port, of_old) = (40_000 + u16::from(len), len % 3 == 0);
        packets.push(ip(six, 132, &sctp([port, 9999], &chunk, of_old)));
        let back = reversed(&ip(six, 132, &sctp([9999, port], &chunk, of_old)));
        packets.extend([message(&back), message(&back[..back.len() - 3]), message(&[&back[..], &[0; 5]].concat())]);
    }
    add(format!("SCTP over {}", of(six)), raw(&packets));
}

/// A packet without options with swapped addresses: no IP checksum changes.
fn reversed(packet: &[u8]) -> Vec<u8> {
    let (at, size) = if packet[0] >> 4 == 6 { (8, 16) } else { (12, 4) };
    let mut back = packet.to_vec();
    back[at..at + 2 * size].rotate_left(size);
    back
}

/// DCCP, UDP-Lite, and over IPv6 OSPF and PIM: checksums at offsets of their own, which cover the addresses too.
fn portless(add: Add, six: bool) {
    for (protocol, at) in [(33, 6), (136, 6), (89, 12), (103, 2)] {
        let mut packets = Vec::new();
        for len in 24..120u8 {
            let mut body: Vec<u8> = (0..len).collect();
            match protocol {
                // A request: 5 words of header, full coverage, 48-bit sequence numbers.
                33 => body[4..9].copy_from_slice(&[6, 0, 0, 0, 1]),
                136 => body[4..6].fill(0),
                // A hello.
                89 => body[..4].copy_from_slice(&[if six { 3 } else { 2 }, 1, 0, len]),
                _ => body[..2].copy_from_slice(&[0x20, 0]),
            }
            if six || at == 6 {
                packets.push(ip(six, protocol, &summed(six, protocol, at, body)));
            } else {
                body[at..at + 2].fill(0);
                let right = sum(&[&body]);
                body[at..at + 2].copy_from_slice(&right.to_be_bytes());
                packets.push(ip(six, protocol, &body));
            }
        }
        add(format!("protocol {protocol} over {} with its sum", of(six)), raw(&packets));
    }
}

/// IPv4 source routes with every pointer, and checksums over the final destination (RFC 791, 3.1).
fn source_routes(add: Add) {
    let last = [10, 9, 0, 1];
    let mut packets = Vec::new();
    for (kind, pointer) in [131, 137].into_iter().flat_map(|kind| (0..=16).map(move |pointer| (kind, pointer))) {
        let options = [&[1, kind, 11, pointer, 192, 0, 2, 9][..], &last].concat();
        for (protocol, at, body) in [(6, 16, tcp(false, 80, [0x50, 2], &[])), (17, 6, udp(false, 53, b"x"))] {
            let mut over_last = body.clone();
            over_last[at..at + 2].fill(0);
            let len = (over_last.len() as u16).to_be_bytes();
            let right = sum(&[&SRC4, &last, &[0, protocol], &len, &over_last]);
            over_last[at..at + 2].copy_from_slice(&right.to_be_bytes());
            packets.push(v4(SRC4, DST4, protocol, &options, 0, &over_last));
            packets.push(v4(SRC4, DST4, protocol, &options, 0, &body));
            packets.push(v4(SRC4, DST4, protocol, &options, 0x2000, &[&body[..], &[0; 4]].concat()));
        }
    }
    add("source routes of IPv4".into(), raw(&packets));
}

/// A mobile node's home address (RFC 6275, 6.3), which its checksums cover, and its correspondent's routing header.
fn homes(add: Add) {
    let mut home = SRC6;
    home[15] = 99;
    let over = |src: &[u8; 16], dst: &[u8; 16], protocol: u8, at: usize, mut body: Vec<u8>| {
        body[at..at + 2].fill(0);
        let len = (body.len() as u32).to_be_bytes();
        let right = sum(&[src, dst, &len, &[0, 0, 0, protocol], &body]);
        body[at..at + 2].copy_from_slice(&right.to_be_bytes());
        body
    };
    let mut packets = Vec::new();
    for (protocol, at, body) in [(6, 16, tcp(true, 80, [0x50, 2], &[])), (17, 6, udp(true, 53, b"x"))] {
        let option = [&[protocol, 2, 1, 2, 0, 0, 0xc9, 16][..], &home].concat();
        packets.push(v6(60, &[&option[..], &over(&home, &DST6, protocol, at, body.clone())].concat()));
        let route = [&[protocol, 2, 2, 1, 0, 0, 0, 0][..], &home].concat();
        packets.push(v6(43, &[&route[..], &over(&SRC6, &home, protocol, at, body.clone())].concat()));
        // After an authentication header, and a fragment.
        let ah = [&[43, 4][..], &[0; 22]].concat();
        packets.push(v6(51, &[&ah[..], &route, &over(&SRC6, &home, protocol, at, body.clone())].concat()));
        let piece =
            [&[60, 0, 0, 1, 0, 0, 0, 9][..], &option, &over(&home, &DST6, protocol, at, body), &[0; 7]].concat();
        packets.push(v6(44, &piece[..piece.len() / 8 * 8]));
    }
    add("home addresses".into(), raw(&packets));
}
