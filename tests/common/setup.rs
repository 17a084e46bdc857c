//! Settings and packets shared by several test targets. It knows only the library's public types.

#![allow(dead_code)]

use equipoise::balance::{Listen, PoolSettings, ServerSettings, ServiceSettings};
use equipoise::config::Settings;
use equipoise::flow::TableSettings;
use equipoise::ids::{PoolId, ServerId};
use equipoise::packet::Protocol;
use equipoise::time::Instant;
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The service addresses for TCP (port 80) and UDP (port 53).
pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// The same, IPv6.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80);
/// The service addresses whose echo requests go to servers; the engine replies to those of the others.
pub const PING4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 90);
/// The same, IPv6.
pub const PING6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x90);
/// The servers' TCP port.
pub const SERVER_PORT: u16 = 8080;

/// Returns the `i`th server's address (from 0) in the family of `like`.
pub fn server(i: usize, like: IpAddr) -> IpAddr {
    let i = u8::try_from(i + 1).expect("few servers");
    match like {
        IpAddr::V4(_) => IpAddr::from([10, 0, 2, i]),
        IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(i)]),
    }
}

/// Three services over one server per weight: `web` (TCP 80 to 8080), `dns` (UDP 53 to 53), `ping` (echo).
pub fn settings(weights: &[u16], max_flows: u32) -> Settings {
    let listen = Listen::one;
    let both = |v4: Ipv4Addr, v6: Ipv6Addr, protocol, first, last| {
        vec![listen(v4.into(), protocol, first, last), listen(v6.into(), protocol, first, last)]
    };
    let service = |name: &str, pool, listen| ServiceSettings::new(name, listen, PoolId(pool));
    let count = u32::try_from(weights.len()).expect("few servers");
    let servers = |pool: u32, port| {
        weights.iter().enumerate().map(move |(i, weight)| ServerSettings {
            v4: Some([10, 0, 2, i as u8 + 1].into()),
            v6: Some([0xfd00, 0, 0, 0, 0, 0, 0, i as u16 + 1].into()),
            port,
            weight: *weight,
            ..ServerSettings::new(&format!("s{}", i + 1), PoolId(pool))
        })
    };
    let pool = |name: &str, first: u32| PoolSettings::new(name, (first..first + count).map(ServerId).collect());
    Settings {
        seed: 0,
        table: TableSettings { max_flows, ..TableSettings::default() },
        services: vec![
            service("web", 0, both(VIP4, VIP6, Protocol::Tcp, 80, 80)),
            service("dns", 1, both(VIP4, VIP6, Protocol::Udp, 53, 53)),
            service("ping", 1, both(PING4, PING6, Protocol::Icmp, 0, 65_535)),
        ],
        pools: vec![pool("web", 0), pool("rest", count)],
        servers: servers(0, Some(SERVER_PORT)).chain(servers(1, None)).collect(),
        ..Settings::default()
    }
}

/// A point in time, in milliseconds.
pub fn at_ms(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// An IP header with these addresses, both of one family.
pub fn ip(src: IpAddr, dst: IpAddr) -> PacketBuilderStep<IpHeaders> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => PacketBuilder::ipv4(src.octets(), dst.octets(), 60),
        (IpAddr::V6(src), IpAddr::V6(dst)) => PacketBuilder::ipv6(src.octets(), dst.octets(), 60),
        _ => panic!("two families in one packet"),
    }
}

/// A TCP segment; `flags` consists of the letters S, A, F, R, P.
pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: &str, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(src.port(), dst.port(), seq, 4096);
    for flag in flags.chars() {
        match flag {
            'S' => header.syn = true,
            'A' => (header.ack, header.acknowledgment_number) = (true, ack),
            'F' => header.fin = true,
            'R' => header.rst = true,
            'P' => header.psh = true,
            other => panic!("no flag {other}"),
        }
    }
    let mut packet = Vec::new();
    ip(src.ip(), dst.ip()).tcp_header(header).write(&mut packet, payload).expect("a packet");
    packet
}

/// A UDP datagram.
pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(src.ip(), dst.ip()).udp(src.port(), dst.port()).write(&mut packet, payload).expect("a packet");
    packet
}

/// An echo request or reply.
pub fn echo(src: IpAddr, dst: IpAddr, reply: bool, id: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let ip = ip(src, dst);
    let written = match (src.is_ipv4(), reply) {
        (true, false) => ip.icmpv4_echo_request(id, seq).write(&mut packet, payload),
        (true, true) => ip.icmpv4_echo_reply(id, seq).write(&mut packet, payload),
        (false, false) => ip.icmpv6_echo_request(id, seq).write(&mut packet, payload),
        (false, true) => ip.icmpv6_echo_reply(id, seq).write(&mut packet, payload),
    };
    written.expect("a packet");
    packet
}

/// An ICMP error of a type and code about a packet, or the start of one; `mtu` goes where packet-too-big has it.
pub fn icmp_error(src: IpAddr, dst: IpAddr, (kind, code): (u8, u8), mtu: u32, about: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(if src.is_ipv4() { mtu & 0xffff } else { mtu }.to_be_bytes());
    message.extend_from_slice(about);
    let (number, start) = match (src, dst) {
        (IpAddr::V4(_), _) => (etherparse::IpNumber::ICMP, 0),
        (IpAddr::V6(_), _) => {
            let addresses = equipoise::packet::Addresses::new(src, dst).expect("one family");
            (etherparse::IpNumber::IPV6_ICMP, equipoise::packet::checksum::pseudo(&addresses, 58, message.len()))
        }
    };
    let sum = !equipoise::packet::checksum::fold(equipoise::packet::checksum::add(start, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = Vec::new();
    ip(src, dst).write(&mut packet, number, &message).expect("a packet");
    packet
}
