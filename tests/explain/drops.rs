//! Packets that are dropped for what they are: malformed, fragments, and what nobody listens for.

use crate::case::{CONFIG, Case, Shows, bytes, config_with};
use crate::flows::established;
use equipoise::engine::{Duty, Reason};
use equipoise::packet::checksum;

const UDP: &str = "udp 198.51.100.7:4711 -> 192.0.2.80:53 len 8";
const TCP: &str = "tcp 198.51.100.7:4711 -> 192.0.2.80:80";

pub(crate) fn drop(reason: Reason) -> Case {
    Case::new(Shows::Drop(reason))
}

/// A packet with changed bytes; the checksum of an IPv4 header is put right.
pub(crate) fn changed(words: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = bytes(words);
    change(&mut packet);
    right(packet)
}

/// Puts the checksum of an IPv4 header right.
fn right(mut packet: Vec<u8>) -> Vec<u8> {
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::add(0, &packet[..header]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A fragment of an IPv4 packet: its bytes from `start` to `end` behind the header.
pub(crate) fn piece(packet: &[u8], start: usize, end: usize, id: u8) -> Vec<u8> {
    let end = end.min(packet.len() - 20);
    let more = u16::from(end < packet.len() - 20) << 13;
    let mut out = [&packet[..20], &packet[20 + start..20 + end]].concat();
    let len = (out.len() as u16).to_be_bytes();
    out[2..4].copy_from_slice(&len);
    out[5] = id;
    out[6..8].copy_from_slice(&((start / 8) as u16 | more).to_be_bytes());
    right(out)
}

/// A packet with a loose source route over another station (RFC 791, 3.1).
pub(crate) fn source_routed(words: &str) -> Vec<u8> {
    changed(words, |packet| {
        packet.splice(20..20, [131, 7, 4, 203, 0, 113, 1, 0]);
        packet[0] = 0x47;
        let len = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&len);
    })
}

pub(crate) fn cases() -> Vec<Case> {
    let long = bytes("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 3000");
    let very_long = bytes("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 65000");
    // All but the first eight bytes, in more bytes than the store holds.
    let later = |number: usize| piece(&very_long, 8 + number * 1008, 8 + (number + 1) * 1008, 9);
    let mut full = drop(Reason::FragmentStoreFull);
    full = Case::with(full.shows, &config_with("", "[fragments]\nmax-bytes = 65535"));
    for number in 0..63 {
        full = full.bytes(later(number));
    }
    let silent = |what| config_with("", &format!("[answers]\n{what} = \"drop\""));
    vec![
        drop(Reason::TooShort).bytes(vec![0x45, 0, 0]),
        drop(Reason::BadVersion).bytes(vec![0x55; 20]),
        drop(Reason::BadHeaderLength).bytes(changed(UDP, |packet| packet[0] = 0x44)),
        drop(Reason::BadTotalLength).bytes(changed(UDP, |packet| packet[3] = 200)),
        drop(Reason::BadHeaderChecksum).bytes({
            let mut packet = bytes(UDP);
            packet[10] ^= 1;
            packet
        }),
        drop(Reason::BadExtension).bytes({
            // Hop-by-hop options that end behind the packet.
            let mut packet = bytes("udp [2001:db8::7]:4711 -> [2001:db8::80]:53 len 8");
            (packet[6], packet[41]) = (0, 200);
            packet
        }),
        drop(Reason::TruncatedTransport).bytes(changed(UDP, |packet| {
            packet.truncate(26);
            packet[3] = 26;
        })),
        drop(Reason::BadTcpOffset).bytes(changed(TCP, |packet| packet[32] = 0x40)),
        drop(Reason::BadTcpFlags).packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 syn fin"),
        drop(Reason::BadUdpLength).bytes(changed(UDP, |packet| packet[25] = 7)),
        drop(Reason::BadPort).packet("tcp 198.51.100.7:0 -> 192.0.2.80:80"),
        drop(Reason::BadSource).packet("udp 127.0.0.1:4711 -> 192.0.2.80:53"),
        drop(Reason::BadFragment).bytes(right({
            let mut packet = piece(&long, 0, 800, 1);
            packet.truncate(727);
            packet[2..4].copy_from_slice(&727u16.to_be_bytes());
            packet
        })),
        drop(Reason::FragmentTiny).bytes(piece(&bytes(TCP), 8, 20, 1)),
        drop(Reason::FragmentOverlap).bytes(piece(&long, 1440, 2880, 1)).bytes(piece(&long, 1440, 2880, 1)),
        full.bytes(later(63)),
        drop(Reason::Fragment)
            .bytes(piece(&bytes("udp 198.51.100.7:4711 -> 192.0.2.80:54 len 3000"), 0, 1440, 1))
            .bytes(piece(&long, 1440, 2880, 1)),
        Case::with(Shows::Drop(Reason::OtherProtocol), &silent("other-protocol"))
            .packet("gre 198.51.100.7 -> 192.0.2.80"),
        Case::with(Shows::Drop(Reason::Detour), &silent("other-protocol")).bytes(source_routed(TCP)),
        Case::with(Shows::Drop(Reason::NoService), &silent("no-service"))
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:81"),
        drop(Reason::NoServer)
            .event("server web/web-1 down")
            .event("server web/web-2 drain")
            .event("server web/web-3 weight 0")
            .packet(TCP),
        established(drop(Reason::RecentlyEnded))
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 fin ack seq 1 ack 501")
            .packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 fin ack seq 501 ack 2")
            .wait(241_000)
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ack seq 2 ack 502"),
        drop(Reason::OtherGateway)
            .with_duty(Duty::Known)
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 psh ack seq 1 ack 501 len 10"),
        Case::with(
            Shows::Drop(Reason::ServerNoFlow),
            &CONFIG.replace("pool = \"web\"\n[[service]]", "pool = \"web\"\nunknown-tcp = \"drop\"\n[[service]]"),
        )
        .packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 ack"),
        Case::with(
            Shows::Drop(Reason::TcpNoFlow),
            &CONFIG.replace("pool = \"web\"\n[[service]]", "pool = \"web\"\nunknown-tcp = \"drop\"\n[[service]]"),
        )
        .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ack"),
    ]
}
