//! Fragmented packets, and ICMP errors about packets: helpers of several files.
//!
//! It must not know the library under test.

use super::talk::{at, spoil};
use crate::setup::{icmp_error, udp};

/// A valid UDP datagram whose payload counts up; `df` sets Don't Fragment in IPv4.
pub fn datagram(from: &str, to: &str, len: usize, id: u16, df: bool) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
    numbered(udp(at(from), at(to), &payload), id, df)
}

/// Sets the identification of an IPv4 packet, and sets or clears Don't Fragment; an IPv6 packet is unchanged.
pub fn numbered(packet: Vec<u8>, id: u16, df: bool) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        return packet;
    }
    spoil(packet, |packet| {
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6] = if df { 0x40 } else { 0 };
    })
}

/// A fragment of a packet: the bytes from `start` to `end` after its IP header, as fragment `id`.
pub fn piece(packet: &[u8], start: usize, end: usize, id: u16) -> Vec<u8> {
    let v4 = packet[0] >> 4 == 4;
    let header = if v4 { 20 } else { 40 };
    let body = &packet[header..];
    let (end, more) = (end.min(body.len()), end < body.len());
    let mut out = packet[..header].to_vec();
    if v4 {
        out.extend_from_slice(&body[start..end]);
        return spoil(out, |out| {
            let (len, field) = (out.len() as u16, (start / 8) as u16 | u16::from(more) << 13);
            out[2..4].copy_from_slice(&len.to_be_bytes());
            out[4..6].copy_from_slice(&id.to_be_bytes());
            out[6..8].copy_from_slice(&field.to_be_bytes());
        });
    }
    let field = (start as u16 | u16::from(more)).to_be_bytes();
    let id = id.to_be_bytes();
    out.extend_from_slice(&[packet[6], 0, field[0], field[1], 0, 0, id[0], id[1]]);
    out.extend_from_slice(&body[start..end]);
    out[6] = 44;
    let len = (out.len() - 40) as u16;
    out[4..6].copy_from_slice(&len.to_be_bytes());
    out
}

/// A packet in fragments of at most `room` bytes of payload, a multiple of eight.
pub fn cut(packet: &[u8], room: usize, id: u16) -> Vec<Vec<u8>> {
    let body = packet.len() - if packet[0] >> 4 == 4 { 20 } else { 40 };
    (0..body).step_by(room).map(|start| piece(packet, start, start + room, id)).collect()
}

/// Packet-too-big from a router, about a packet.
pub fn too_big(router: &str, to: &str, mtu: u32, about: &[u8]) -> Vec<u8> {
    let router = router.parse::<std::net::IpAddr>().expect("an address");
    let kind = if router.is_ipv4() { (3, 4) } else { (2, 0) };
    icmp_error(router, to.parse().expect("an address"), kind, mtu, about)
}

/// Another ICMP error.
pub fn error(from: &str, to: &str, kind: (u8, u8), about: &[u8]) -> Vec<u8> {
    icmp_error(from.parse().expect("an address"), to.parse().expect("an address"), kind, 0, about)
}
