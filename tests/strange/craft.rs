//! Strange packets and capture files, made byte by byte. It uses no code of the library under test.

/// An IPv4 address of a client and of a destination, and their IPv6 counterparts.
pub const SRC4: [u8; 4] = [198, 51, 100, 7];
pub const DST4: [u8; 4] = [203, 0, 113, 80];
pub const SRC6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
pub const DST6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];

/// Returns the Internet checksum of several pieces, each but the last of even length (RFC 1071).
pub fn sum(pieces: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for piece in pieces {
        for pair in piece.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// An IPv4 packet with options; `flags` includes the fragment offset.
pub fn v4(src: [u8; 4], dst: [u8; 4], protocol: u8, options: &[u8], flags: u16, body: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0x12, 0x34];
    header.extend(flags.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(src);
    header.extend(dst);
    header.extend(options);
    header.resize(header.len().next_multiple_of(4).min(60), 0);
    header[0] = 0x40 | (header.len() / 4) as u8;
    let len = (header.len() + body.len()) as u16;
    header[2..4].copy_from_slice(&len.to_be_bytes());
    let sum = sum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(body);
    header
}

/// An IPv6 packet whose first header is `next`.
pub fn v6(next: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(SRC6);
    packet.extend(DST6);
    packet.extend(body);
    packet
}

/// Writes the checksum of a transport at its offset `at`, over the pseudo-header of the usual addresses.
pub fn summed(six: bool, protocol: u8, at: usize, mut body: Vec<u8>) -> Vec<u8> {
    body[at..at + 2].fill(0);
    let len = (body.len() as u32).to_be_bytes();
    let kind = [0, 0, 0, protocol];
    let right = match six {
        true => sum(&[&SRC6, &DST6, &len, &kind, &body]),
        false => sum(&[&SRC4, &DST4, &len, &kind, &body]),
    };
    body[at..at + 2].copy_from_slice(&right.to_be_bytes());
    body
}

/// A TCP segment without an IP header; `rest` is options and data.
pub fn tcp(six: bool, port: u16, offset_flags: [u8; 2], rest: &[u8]) -> Vec<u8> {
    let mut body = 40_000u16.to_be_bytes().to_vec();
    body.extend(port.to_be_bytes());
    body.extend([0, 0, 0, 9, 0, 0, 0, 3, offset_flags[0], offset_flags[1], 0x10, 0, 0, 0, 0, 1]);
    body.extend(rest);
    summed(six, 6, 16, body)
}

/// A UDP datagram without an IP header.
pub fn udp(six: bool, port: u16, data: &[u8]) -> Vec<u8> {
    let mut body = 40_001u16.to_be_bytes().to_vec();
    body.extend(port.to_be_bytes());
    body.extend((8 + data.len() as u16).to_be_bytes());
    body.extend([0, 0]);
    body.extend(data);
    summed(six, 17, 6, body)
}

/// An ICMP or ICMPv6 message.
pub fn icmp(six: bool, kind: u8, code: u8, word: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, code, 0, 0];
    body.extend(word);
    body.extend(data);
    if six {
        return summed(true, 58, 2, body);
    }
    let right = sum(&[&body]);
    body[2..4].copy_from_slice(&right.to_be_bytes());
    body
}

/// An IP packet of a transport between the usual addresses.
pub fn ip(six: bool, protocol: u8, body: &[u8]) -> Vec<u8> {
    if six { v6(protocol, body) } else { v4(SRC4, DST4, protocol, &[], 0, body) }
}

/// A fragment of a transport.
pub fn fragment(six: bool, protocol: u8, id: u32, offset: u16, more: bool, body: &[u8]) -> Vec<u8> {
    if !six {
        let mut packet = v4(SRC4, DST4, protocol, &[], (offset / 8) | (u16::from(more) << 13), body);
        packet[4..6].copy_from_slice(&(id as u16).to_be_bytes());
        packet[10..12].fill(0);
        let right = sum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&right.to_be_bytes());
        return packet;
    }
    let mut header = vec![protocol, 0];
    header.extend((offset & !7 | u16::from(more)).to_be_bytes());
    header.extend(id.to_be_bytes());
    header.extend(body);
    v6(44, &header)
}

fn half(big: bool, value: u16) -> [u8; 2] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn word(big: bool, value: u32) -> [u8; 4] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

/// A pcap file with at most `cut` bytes of each frame.
pub fn pcap(big: bool, nanos: bool, link: u32, cut: usize, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = word(big, if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }).to_vec();
    for value in [2, 4] {
        file.extend(half(big, value));
    }
    for value in [0, 0, 262_144, link] {
        file.extend(word(big, value));
    }
    for (i, frame) in frames.iter().enumerate() {
        let taken = &frame[..frame.len().min(cut)];
        for value in [1_600_000_000 + i as u32 / 100, i as u32 % 100 * 1000, taken.len() as u32, frame.len() as u32] {
            file.extend(word(big, value));
        }
        file.extend(taken);
    }
    file
}

/// A block of a pcapng file.
pub fn block(big: bool, kind: u32, body: &[u8]) -> Vec<u8> {
    let len = 12 + body.len().next_multiple_of(4);
    let mut block = [word(big, kind), word(big, len as u32)].concat();
    block.extend(body);
    block.resize(len - 4, 0);
    block.extend(word(big, len as u32));
    block
}

/// A pcapng file with blocks of other types between its packets.
pub fn pcapng(big: bool, link: u16, cut: usize, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut section = word(big, 0x1a2b_3c4d).to_vec();
    section.extend(half(big, 1));
    section.extend(half(big, 0));
    section.extend([0xff; 8]);
    let mut file = block(big, 0x0a0d_0d0a, &section);
    let mut interface = half(big, link).to_vec();
    interface.extend([0; 2]);
    interface.extend(word(big, 262_144));
    file.extend(block(big, 1, &interface));
    for (i, frame) in frames.iter().enumerate() {
        // A custom block of a private number, one of an unknown type, and an empty one.
        file.extend(block(big, 0xbad, &[&word(big, 32_473)[..], b"odd"].concat()));
        file.extend(block(big, 0x0000_7777 + i as u32 % 5, b"unknown"));
        file.extend(block(big, 0x4000_0bad, &word(big, 32_473)));
        let taken = &frame[..frame.len().min(cut)];
        let mut body = Vec::new();
        for value in [0, 0x0005_b000, i as u32 * 1000, taken.len() as u32, frame.len() as u32] {
            body.extend(word(big, value));
        }
        body.extend(taken);
        file.extend(block(big, 6, &body));
    }
    file
}

/// A pcapng file from before Enhanced Packet Blocks: each packet is followed by an option.
pub fn pcapng_of_old(big: bool, link: u16, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = pcapng(big, link, usize::MAX, &[]);
    for (i, frame) in frames.iter().enumerate() {
        // Interface 0, and one packet dropped before each.
        let mut body = [half(big, 0), half(big, 1)].concat();
        for value in [0x0005_b000, i as u32 * 1000, frame.len() as u32, frame.len() as u32] {
            body.extend(word(big, value));
        }
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend([half(big, 2), half(big, 4)].concat());
        body.extend([0; 8]);
        file.extend(block(big, 2, &body));
    }
    file
}

/// An SCTP packet of one chunk with a valid checksum: the CRC (RFC 9260, 6.8), bit by bit with the reflected
/// polynomial 0x1edc6f41, or the old Adler-32 (RFC 2960, appendix B).
pub fn sctp(ports: [u16; 2], chunk: &[u8], of_old: bool) -> Vec<u8> {
    let mut packet: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    packet.extend([1, 2, 3, 4, 0, 0, 0, 0]);
    packet.extend(chunk);
    let mut crc = u32::MAX;
    let (mut low, mut high) = (1, 0);
    for byte in &packet {
        (low, high) = ((low + u32::from(*byte)) % 65_521, (high + low + u32::from(*byte)) % 65_521);
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    let sum = if of_old { (high << 16 | low).to_be_bytes() } else { (!crc).to_le_bytes() };
    packet[8..12].copy_from_slice(&sum);
    packet
}
