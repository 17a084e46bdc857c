#!/bin/bash
# The crate smoltcp 0.14.0: ICMP errors that quote a part of the packet do not reach its ICMP sockets.
#
# Expected: a router quotes the IP header and at least 8 bytes (RFC 792), a host as much as fits into 576 bytes (RFC 1812,
#   4.3.2.3) or, in IPv6, 1280. An ICMP socket bound to the UDP port gets the error, whatever the length of the packet
#   that caused it: the ports are in what is always quoted.
# Instead: Icmpv4Repr::parse reads the quote as a whole packet, and fails if the packet's total length exceeds what is
#   quoted. Errors that quote all of a small packet are delivered; with 28 bytes of 40, or 548 of 1400, they are dropped
#   without a word. Icmpv6Repr::parse takes partial quotes, but the socket then parses the quoted UDP as a whole, so they
#   are dropped, too.
# Why it matters for a balancer: a probe or a simulated host on this stack hears of closed ports on its own link, where
#   errors quote all of a small packet, and not of what routers on the way say. A test in which no error arrives proves
#   nothing there: errors that matter are to be read before the stack gets them.
#
# Seen (bytes quoted of the packet's): IPv4, "port unreachable" and "time exceeded": 28 of 28 and 40 of 40 delivered, 28
#   of 40 and 548 of 1400 not parsed; IPv6: 60 of 60 delivered, 1232 of 1440 parsed and dropped
#
# Needs: Rust (cargo 1.85 or later) and a C compiler's linker; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    local features='features = ["std", "medium-ip", "proto-ipv4", "proto-ipv6", "socket-icmp"]'
    crate "smoltcp = { version = \"=0.14.0\", default-features = false, $features }" <<'R'
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, Loopback, Medium, TxToken};
use smoltcp::socket::icmp::{Endpoint, PacketBuffer, PacketMetadata, Socket};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Packet, UdpPacket};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr};
use std::net::{Ipv4Addr, Ipv6Addr};

const PORT: u16 = 1000;

/// The first `kept` bytes of a UDP datagram from PORT that is `length` bytes long.
fn udp(from: IpAddress, to: IpAddress, length: usize, kept: usize) -> Vec<u8> {
    let mut bytes = [PORT.to_be_bytes(), 2000u16.to_be_bytes(), (length as u16).to_be_bytes(), [0, 0]].concat();
    bytes.resize(length, 7);
    let mut packet = UdpPacket::new_unchecked(bytes);
    packet.fill_checksum(&from, &to);
    let mut bytes = packet.into_inner();
    bytes.truncate(kept);
    bytes
}

fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes[2..4].copy_from_slice(&(20 + length as u16).to_be_bytes());
    let mut packet = Ipv4Packet::new_unchecked(bytes);
    packet.fill_checksum();
    [packet.into_inner(), payload.to_vec()].concat()
}

fn ipv6(protocol: u8, from: Ipv6Addr, to: Ipv6Addr, payload: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((length as u16).to_be_bytes());
    bytes.extend([protocol, 64]);
    [bytes, from.octets().to_vec(), to.octets().to_vec(), payload.to_vec()].concat()
}

/// An error about a packet of `whole` bytes, IP header included, that quotes `quoted` of them.
fn error(version: u8, kind: u8, code: u8, whole: usize, quoted: usize) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    if version == 4 {
        let (host, peer) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        message.extend(ipv4(17, host, peer, &udp(host.into(), peer.into(), whole - 20, quoted - 20), whole - 20));
        let mut packet = Icmpv4Packet::new_unchecked(message);
        packet.fill_checksum();
        let message = packet.into_inner();
        ipv4(1, peer, host, &message, message.len())
    } else {
        let [host, peer]: [Ipv6Addr; 2] = ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
        message.extend(ipv6(17, host, peer, &udp(host.into(), peer.into(), whole - 40, quoted - 40), whole - 40));
        let mut packet = Icmpv6Packet::new_unchecked(message);
        packet.fill_checksum(&peer, &host);
        let message = packet.into_inner();
        ipv6(58, peer, host, &message, message.len())
    }
}

fn parsed(packet: &[u8]) -> bool {
    let capabilities = ChecksumCapabilities::default();
    if packet[0] >> 4 == 4 {
        Icmpv4Repr::parse(&Icmpv4Packet::new_checked(&packet[20..]).unwrap(), &capabilities).is_ok()
    } else {
        let [from, to] = [8, 24].map(|at| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap()));
        Icmpv6Repr::parse(&from, &to, &Icmpv6Packet::new_checked(&packet[40..]).unwrap(), &capabilities).is_ok()
    }
}

fn delivered(packet: &[u8]) -> bool {
    let mut device = Loopback::new(Medium::Ip);
    let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut device, Instant::ZERO);
    interface.update_ip_addrs(|list| {
        for address in ["10.0.0.1/24", "fd00::1/64"] {
            list.push(address.parse::<IpCidr>().unwrap()).unwrap();
        }
    });
    let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 4], vec![0; 8192]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.bind(Endpoint::Udp(PORT.into())).unwrap();
    let mut sockets = SocketSet::new(vec![]);
    let handle = sockets.add(socket);
    let token = device.transmit(Instant::ZERO).unwrap();
    token.consume(packet.len(), |bytes| bytes.copy_from_slice(packet));
    interface.poll(Instant::ZERO, &mut device, &mut sockets);
    sockets.get_mut::<Socket>(handle).can_recv()
}

fn main() {
    for (what, version, kind, code, sizes) in [
        ("port unreachable", 4, 3, 3, &[(28, 28), (40, 40), (28, 40), (548, 1400)][..]),
        ("time exceeded", 4, 11, 0, &[(28, 28), (40, 40), (28, 40), (548, 1400)][..]),
        ("ICMPv6 port unreachable", 6, 1, 4, &[(60, 60), (1232, 1440)][..]),
    ] {
        for &(quoted, whole) in sizes {
            let packet = error(version, kind, code, whole, quoted);
            let word = match (parsed(&packet), delivered(&packet)) {
                (_, true) => "delivered",
                (true, false) => "parsed, dropped",
                (false, false) => "not parsed",
            };
            println!("{what} {quoted} of {whole} {word}");
        }
    }
}
R
}

check() {
    same 'ICMP errors' 'port unreachable 28 of 28 delivered
port unreachable 40 of 40 delivered
port unreachable 28 of 40 not parsed
port unreachable 548 of 1400 not parsed
time exceeded 28 of 28 delivered
time exceeded 40 of 40 delivered
time exceeded 28 of 40 not parsed
time exceeded 548 of 1400 not parsed
ICMPv6 port unreachable 60 of 60 delivered
ICMPv6 port unreachable 1232 of 1440 parsed, dropped' "$(crate_output)"
}

finding
