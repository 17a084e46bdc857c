//! A one-line description of a packet, for reports: first what a person looks for.

use super::{Parsed, TcpFlags, Transport, parse};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// Describes any bytes as an IP packet, in one line: `TCP 198.51.100.7:4000 -> 192.0.2.80:80 SYN seq=100, 60 bytes`.
pub fn describe(packet: &[u8]) -> String {
    match parse(packet) {
        Ok(parsed) => sound(&parsed, packet),
        Err(_) => {
            let from_to = match packet.first().map(|first| first >> 4) {
                Some(4) if packet.len() >= 20 => {
                    let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap_or_default());
                    format!(" IPv4 {} -> {}", ip(12), ip(16))
                }
                Some(6) if packet.len() >= 40 => {
                    let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap_or_default());
                    format!(" IPv6 {} -> {}", ip(8), ip(24))
                }
                _ => String::new(),
            };
            format!("malformed{from_to}, {} bytes", packet.len())
        }
    }
}

fn sound(parsed: &Parsed, packet: &[u8]) -> String {
    let (from, to) = (parsed.addresses.src(), parsed.addresses.dst());
    let with = |src, dst| format!("{} -> {}", SocketAddr::new(from, src), SocketAddr::new(to, dst));
    let family = if from.is_ipv4() { "ICMP" } else { "ICMPv6" };
    let mut text = match parsed.transport {
        Transport::Tcp { src, dst, flags, seq, ack, .. } => tcp(&with(src, dst), flags, seq, ack, parsed.payload_len()),
        Transport::Udp { src, dst } => format!("UDP {} len={}", with(src, dst), parsed.payload_len()),
        Transport::Echo { request, id } => {
            let kind = if request { "request" } else { "reply" };
            let seq = packet.get(parsed.offset + 6..parsed.offset + 8).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
            format!("{family} {from} -> {to} echo {kind} id={id} seq={seq}")
        }
        Transport::Icmp { kind, code } => format!("{family} {from} -> {to} type={kind} code={code}"),
        Transport::Fragment { offset, .. } => {
            format!("fragment {from} -> {to} protocol={} offset={offset}", parsed.protocol)
        }
        Transport::Sctp { src, dst } => format!("SCTP {}", with(src, dst)),
        Transport::Other | Transport::Routed => format!("IP {from} -> {to} protocol={}", parsed.protocol),
    };
    let _ = write!(text, ", {} bytes", parsed.len);
    if packet.len() > parsed.len {
        let _ = write!(text, " and {} of padding", packet.len() - parsed.len);
    }
    text
}

fn tcp(from_to: &str, flags: TcpFlags, seq: u32, ack: u32, len: usize) -> String {
    const NAMES: [(u8, &str); 8] =
        [(2, "SYN"), (1, "FIN"), (4, "RST"), (8, "PSH"), (16, "ACK"), (32, "URG"), (64, "ECE"), (128, "CWR")];
    let flag_names: Vec<_> = NAMES.iter().filter(|(bit, _)| flags.0 & bit != 0).map(|(_, name)| *name).collect();
    let mut text = format!("TCP {from_to} {} seq={seq}", flag_names.join("+"));
    if flags.ack() {
        let _ = write!(text, " ack={ack}");
    }
    if len > 0 {
        let _ = write!(text, " len={len}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    #[test]
    fn packets_are_described_in_one_line() {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9)
            .tcp(10, 20, 30, 1)
            .syn()
            .ack(7)
            .write(&mut packet, b"abc")
            .unwrap();
        assert_eq!(describe(&packet), "TCP 1.2.3.4:10 -> 5.6.7.8:20 SYN+ACK seq=30 ack=7 len=3, 43 bytes");
        packet.push(0);
        assert!(describe(&packet).ends_with("43 bytes and 1 of padding"));
        packet[8] ^= 1;
        assert_eq!(describe(&packet), "malformed IPv4 1.2.3.4 -> 5.6.7.8, 44 bytes");
        let mut packet = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9).icmpv6_echo_request(5, 6).write(&mut packet, b"").unwrap();
        assert!(describe(&packet).ends_with("echo request id=5 seq=6, 48 bytes"), "{}", describe(&packet));
        assert_eq!(describe(&[]), "malformed, 0 bytes");
    }
}
