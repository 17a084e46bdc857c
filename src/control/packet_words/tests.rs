use super::*;
use crate::packet::{Transport as Parsed, checksum, parse, proto};
use std::net::IpAddr;

fn words(text: &str) -> PacketWords {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Parses the bytes of a packet, after checking every checksum of it.
fn parsed(text: &str) -> (crate::packet::Parsed, Vec<u8>) {
    let bytes = words(text).bytes();
    let parsed = parse(&bytes).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(parsed.len, bytes.len(), "{text}");
    let behind = &bytes[parsed.offset..];
    let start = match parsed.protocol {
        proto::ICMP => Some(0),
        proto::TCP | proto::UDP | proto::ICMPV6 => {
            Some(checksum::pseudo(&parsed.addresses, parsed.protocol, behind.len()))
        }
        _ => None,
    };
    if let Some(start) = start {
        assert_eq!(checksum::fold(checksum::add(start, behind)), 0xffff, "{text}");
    }
    (parsed, bytes)
}

#[test]
fn each_protocol_becomes_a_valid_packet() {
    let flags = |bits| TcpFlags(bits);
    let tcp = |flags, seq, ack| Parsed::Tcp { src: 4711, dst: 80, flags, seq, ack, header: 20 };
    let four = "192.0.2.7:4711 -> 203.0.113.10:80";
    let six = "[2001:db8::7]:4711 -> [2001:db8::80]:80";
    let cases = [
        (format!("tcp {four}"), tcp(flags(0x02), 0, 0), 40),
        (format!("tcp {four} syn"), tcp(flags(0x02), 0, 0), 40),
        (format!("TCP {six} SYN+ACK seq=7 ack=9 len=3"), tcp(flags(0x12), 7, 9), 63),
        (format!("tcp {four} ack 5"), tcp(flags(0x10), 0, 5), 40),
        (format!("tcp {four} fin ack seq 1 ack 2 len 10"), tcp(flags(0x11), 1, 2), 50),
        (format!("tcp {six} rst psh urg ece cwr"), tcp(flags(0xec), 0, 0), 60),
        (format!("udp {four} len 100"), Parsed::Udp { src: 4711, dst: 80 }, 128),
        (format!("udp {six}"), Parsed::Udp { src: 4711, dst: 80 }, 48),
        (format!("sctp {four} len 4"), Parsed::Sctp { src: 4711, dst: 80 }, 36),
        ("icmp 192.0.2.7->203.0.113.10 id 7".into(), Parsed::Echo { request: true, id: 7 }, 28),
        ("icmp 192.0.2.7 -> 203.0.113.10 echo request".into(), Parsed::Echo { request: true, id: 1 }, 28),
        ("icmpv6 2001:db8::7 -> [2001:db8::80] reply len 8".into(), Parsed::Echo { request: false, id: 1 }, 56),
        ("gre 192.0.2.7 -> 203.0.113.10".into(), Parsed::Other, 28),
        ("ip-89 2001:db8::7 -> 2001:db8::80 len 1".into(), Parsed::Other, 41),
    ];
    for (text, transport, len) in cases {
        let (parsed, bytes) = parsed(&text);
        assert_eq!((parsed.transport, bytes.len()), (transport, len), "{text}");
    }
    assert_eq!(parsed("esp 192.0.2.7 -> 203.0.113.10").0.protocol, proto::ESP);
}

#[test]
fn an_sctp_packet_has_its_crc() {
    let (parsed, mut bytes) = parsed("sctp 192.0.2.7:1 -> 203.0.113.10:2 len 5");
    let crc: [u8; 4] = bytes[parsed.offset + 8..][..4].try_into().unwrap();
    bytes[parsed.offset + 8..][..4].fill(0);
    assert_eq!(crc32c::crc32c(&bytes[parsed.offset..]).to_le_bytes(), crc);
}

#[test]
fn header_fields_and_ingress_are_as_given() {
    let (_, bytes) = parsed("udp 192.0.2.7:1 -> 203.0.113.10:2 ttl 1 df");
    assert_eq!((bytes[8], bytes[6]), (1, 0x40));
    let (_, bytes) = parsed("udp 192.0.2.7:1 -> 203.0.113.10:2");
    assert_eq!((bytes[8], bytes[6]), (64, 0));
    let (_, bytes) = parsed("udp [2001:db8::7]:1 -> [2001:db8::80]:2 hop-limit 3");
    assert_eq!(bytes[7], 3);
    let known = ["eth0".to_owned(), "wan".to_owned()];
    for (text, place) in [("ingress wan", 2), ("ingress lan", 0), ("", 0)] {
        let packet = words(&format!("udp 192.0.2.7:1 -> 203.0.113.10:2 {text}"));
        assert_eq!(packet.meta(&known).ingress, place, "{text}");
    }
    assert_eq!(words("udp 192.0.2.7:1 -> 203.0.113.10:2 ingress WAN").ingress(), Some("WAN"));
}

#[test]
fn the_words_of_a_packet_read_as_the_same_packet() {
    for text in [
        "tcp 192.0.2.7:4711 -> 203.0.113.10:80 syn",
        "tcp [2001:db8::7]:4711 -> [2001:db8::80]:80 syn ack seq 7 ack 9 len 3 ttl 2 ingress eth0",
        "tcp 192.0.2.7:4711 -> 203.0.113.10:80 fin ack df",
        "udp 192.0.2.7:4711 -> 203.0.113.10:53 len 65507",
        "sctp 192.0.2.7:4711 -> 203.0.113.10:3868",
        "icmp 192.0.2.7 -> 203.0.113.10",
        "icmp 2001:db8::7 -> 2001:db8::80 reply id 7 seq 0",
        "gre 192.0.2.7 -> 203.0.113.10",
        "ip-89 192.0.2.7 -> 203.0.113.10 len 0",
    ] {
        assert_eq!(words(text).to_string(), text);
    }
    let packet = words("tcp 192.0.2.7:4711 -> 203.0.113.10:80 seq 5 ack 6");
    assert_eq!(packet.to_string().parse(), Ok(packet.clone()));
    let json = serde_json::to_string(&packet).unwrap();
    assert_eq!(json, r#""tcp 192.0.2.7:4711 -> 203.0.113.10:80 ack seq 5 ack 6""#);
    assert_eq!(serde_json::from_str::<PacketWords>(&json).unwrap(), packet);
}

#[test]
fn a_wrong_word_is_reported_with_its_column_and_an_example() {
    let cases = [
        ("", 1, "the packet is missing"),
        ("  ", 1, "the packet is missing"),
        ("tpc 192.0.2.7:1 -> 192.0.2.8:2", 1, "\"tpc\" is not a protocol: use tcp, udp"),
        ("ip-6 192.0.2.7 -> 192.0.2.8", 1, "not a protocol"),
        ("tcp", 4, "the source address is missing"),
        ("tcp 192.0.2.7", 5, "without a port: write ADDRESS:PORT"),
        ("tcp 2001:db8::7 -> [2001:db8::8]:80", 5, "write [ADDRESS]:PORT"),
        ("tcp 192.0.2.300:1 -> 192.0.2.8:2", 5, "\"192.0.2.300:1\" is not the source as ADDRESS:PORT"),
        ("tcp 192.0.2.7:1", 16, "the arrow `->` is missing"),
        ("tcp 192.0.2.7:1 > 192.0.2.8:2", 17, "\">\" is not the arrow"),
        ("tcp 192.0.2.7:1 -> ", 19, "the destination address is missing"),
        ("tcp 192.0.2.7:1 -> 192.0.2.8:65536", 20, "not the destination as ADDRESS:PORT"),
        ("tcp 192.0.2.7:1 -> [2001:db8::8]:2", 20, "different IP families"),
        ("tcp 192.0.2.7:1 -> 192.0.2.8:2 sny", 32, "\"sny\" is not an option of tcp: use syn"),
        ("tcp 192.0.2.7:1 -> 192.0.2.8:2 seq", 35, "the number after `seq` is missing"),
        ("tcp 192.0.2.7:1 -> 192.0.2.8:2 seq -1", 36, "not a number from 0 to 4294967295"),
        ("tcp 192.0.2.7:1 -> 192.0.2.8:2 len 65496", 36, "not a number from 0 to 65495"),
        ("tcp 192.0.2.7:1 -> 192.0.2.8:2 syn syn", 36, "`syn` is given twice"),
        ("tcp 192.0.2.7:1 -> 192.0.2.8:2 ttl 256", 36, "from 0 to 255, which `ttl` needs"),
        ("tcp 192.0.2.7:1 -> 192.0.2.8:2 id 5", 32, "not an option of tcp"),
        ("udp 192.0.2.7:1 -> 192.0.2.8:2 syn", 32, "not an option of udp: use len N"),
        ("icmp 192.0.2.7:1 -> 192.0.2.8", 6, "an address with a port, but icmp has no ports"),
        ("icmp 192.0.2.7 -> 192.0.2.8 id 65536", 32, "from 0 to 65535"),
        ("gre 2001:db8::7 -> 2001:db8::8 len 0", 32, "at least one byte"),
        ("udp [2001:db8::7]:1 -> [2001:db8::8]:2 df", 40, "a flag of IPv4"),
        ("udp 192.0.2.7:1 -> 192.0.2.8:2 ingress", 39, "the interface after `ingress` is missing"),
        ("tcp 192.0.2.7:1 → 192.0.2.8:2", 17, "not the arrow"),
    ];
    for (text, column, what) in cases {
        let error = text.parse::<PacketWords>().expect_err(text);
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.what.contains(what), "{text}: {error}");
        assert!(error.example.parse::<PacketWords>().is_ok(), "{}", error.example);
    }
    let error = "udp 1:2".parse::<PacketWords>().unwrap_err();
    assert!(error.to_string().ends_with("for example: udp [2001:db8::7]:4711 -> [2001:db8::53]:53 len 40"), "{error}");
}

#[test]
fn any_text_is_read_or_refused() {
    for text in ["->", "tcp -> ->", "+=,", "tcp [::]:0->[::]:0", "ünïcödé → x", "icmp [ -> ]", "tcp \u{0}:1 -> 2"]
    {
        let _ = text.parse::<PacketWords>().map(|packet| packet.bytes());
    }
}

#[test]
fn a_flow_has_a_next_packet_and_a_client_a_first_one() {
    let ends = ("192.0.2.7:4711".parse().unwrap(), "203.0.113.10:80".parse().unwrap());
    let opening = |protocol| PacketWords::opening(protocol, ends.0, ends.1).unwrap().to_string();
    assert_eq!(opening(Protocol::Tcp), "tcp 192.0.2.7:4711 -> 203.0.113.10:80 syn");
    assert_eq!(opening(Protocol::Icmp), "icmp 192.0.2.7 -> 203.0.113.10 id 80");
    assert_eq!(opening(Protocol::Ip(47)), "gre 192.0.2.7 -> 203.0.113.10");
    assert_eq!(PacketWords::opening(Protocol::Tcp, ends.0, "[::1]:1".parse().unwrap()), None);
    let mut flow = crate::control::render::testing::flow();
    for (protocol, want) in [
        (Protocol::Tcp, "tcp 198.51.100.9:999 -> 192.0.2.1:80 ack"),
        (Protocol::Udp, "udp 198.51.100.9:999 -> 192.0.2.1:80"),
        (Protocol::Icmp, "icmp 198.51.100.9 -> 192.0.2.1 id 999"),
    ] {
        flow.protocol = protocol;
        assert_eq!(PacketWords::next_of(&flow).unwrap().to_string(), want);
    }
    assert!(flow.client.ip() == IpAddr::from([198, 51, 100, 9]));
}
