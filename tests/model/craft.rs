//! Writing packets: translation, checksum repair, fragmentation and construction. Every checksum is computed from
//! scratch.

use super::wire::{Body, Packet, plus, put, put_address, seal, sum, sum_with_pseudo, word};
use std::net::{IpAddr, SocketAddr};

/// Returns the packet with other source and destination. An incorrect checksum stays incorrect by the same amount. With
/// `partial`, the transport checksum covers only the pseudo-header, for the device to complete.
pub fn translated(bytes: &[u8], packet: &Packet, src: SocketAddr, dst: SocketAddr, partial: bool) -> Vec<u8> {
    let mut out = bytes[..packet.len].to_vec();
    let first = if packet.v6() { 8 } else { 12 };
    put_address(&mut out, first, src.ip());
    put_address(&mut out, first + if packet.v6() { 16 } else { 4 }, dst.ip());
    match packet.body {
        Body::Tcp(_) | Body::Udp { .. } => {
            put(&mut out, packet.at, src.port());
            put(&mut out, packet.at + 2, dst.port());
        }
        Body::Echo { .. } => put(&mut out, packet.at + 4, src.port()),
        Body::Icmp { .. } | Body::Bare(_) => {}
    }
    seal(&mut out);
    mend(&mut out, bytes, packet, partial);
    out
}

/// Updates the transport checksum of modified bytes; an incorrect one stays incorrect by the same amount.
pub fn mend(out: &mut [u8], before: &[u8], packet: &Packet, partial: bool) {
    let Some(at) = packet.sum_at() else { return };
    let udp = matches!(packet.body, Body::Udp { .. });
    if partial {
        return leave_to_the_device(out, packet);
    }
    if udp && word(before, at) == 0 {
        return;
    }
    let was = packet.covered(before, packet.len);
    put(out, at, 0);
    let missing = !packet.covered(out, packet.len);
    let value = if was == 0xffff { missing } else { plus(missing, was) };
    put(out, at, if udp && value == 0 { 0xffff } else { value });
}

/// Writes only the pseudo-header checksum, leaving the rest of the transport checksum to the device.
pub fn leave_to_the_device(out: &mut [u8], packet: &Packet) {
    let Some(at) = packet.sum_at() else { return };
    let number = out[if packet.v6() { 6 } else { 9 }];
    let pseudo = plus(sum_with_pseudo(out, packet.at, packet.len, number), !sum(&out[packet.at..packet.len]));
    put(out, at, pseudo);
}

/// Computes the transport checksum.
pub fn complete(out: &mut [u8], packet: &Packet) {
    let Some(at) = packet.sum_at() else { return };
    put(out, at, 0);
    let value = !packet.covered(out, packet.len);
    let udp = matches!(packet.body, Body::Udp { .. });
    put(out, at, if udp && value == 0 { 0xffff } else { value });
}

/// Returns whether two packets are equal, treating a transport checksum of 0xffff as 0x0000 (RFC 1624, 3).
pub fn same(one: &[u8], other: &[u8], packet: &Packet) -> bool {
    let plain = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        if let Some(at) = packet.sum_at().filter(|at| at + 2 <= bytes.len() && word(&bytes, *at) == 0xffff) {
            put(&mut bytes, at, 0);
        }
        bytes
    };
    plain(one) == plain(other)
}

/// Lowers the maximum segment size option of a SYN to at most `most` (RFC 9293, 3.7.1).
pub fn clamp(out: &mut [u8], packet: &Packet, most: u16) {
    let end = packet.at + usize::from(out[packet.at + 12] >> 4) * 4;
    let mut at = packet.at + 20;
    while at < end {
        match out[at] {
            0 => return,
            1 => at += 1,
            2 if at + 4 <= end && out[at + 1] == 4 => {
                let told = word(out, at + 2);
                return put(out, at + 2, told.min(most));
            }
            _ if at + 1 < end && out[at + 1] >= 2 => at += usize::from(out[at + 1]),
            _ => return,
        }
    }
}

/// Builds a packet with the given TTL or hop limit; computes the transport checksum if the protocol has one.
pub fn packet(src: IpAddr, dst: IpAddr, number: u8, hops: u8, transport: &[u8]) -> Vec<u8> {
    let mut out = match src {
        IpAddr::V4(_) => vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, hops, number, 0, 0],
        IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, 0, number, hops],
    };
    let at = if src.is_ipv4() { 20 } else { 40 };
    out.resize(at, 0);
    out.extend_from_slice(transport);
    let len = out.len();
    if src.is_ipv4() {
        put(&mut out, 2, len as u16);
        put_address(&mut out, 12, src);
        put_address(&mut out, 16, dst);
    } else {
        put(&mut out, 4, transport.len() as u16);
        put_address(&mut out, 8, src);
        put_address(&mut out, 24, dst);
    }
    seal(&mut out);
    let field = match number {
        6 => Some(at + 16),
        17 => Some(at + 6),
        1 | 58 => Some(at + 2),
        _ => None,
    };
    if let Some(field) = field.filter(|field| field + 2 <= len) {
        put(&mut out, field, 0);
        let value = !sum_with_pseudo(&out, at, len, number);
        put(&mut out, field, if number == 17 && value == 0 { 0xffff } else { value });
    }
    out
}

/// Fragments an IPv4 packet without options for a path MTU of `mtu` bytes (RFC 791, 3.2).
pub fn pieces(bytes: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let room = (mtu - 20) / 8 * 8;
    let parts: Vec<&[u8]> = bytes[20..].chunks(room).collect();
    let piece = |(i, part): (usize, &&[u8])| {
        let mut piece = bytes[..20].to_vec();
        let more = if i + 1 < parts.len() { 0x2000 } else { 0 };
        let kept = word(bytes, 6) & 0xc000;
        put(&mut piece, 6, kept | more | (i * room / 8) as u16);
        put(&mut piece, 2, (20 + part.len()) as u16);
        piece.extend_from_slice(part);
        seal(&mut piece);
        piece
    };
    parts.iter().enumerate().map(piece).collect()
}
