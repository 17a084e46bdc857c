#!/bin/bash
# tcprewrite 4.4.3, dpkt 1.9.8, impacket 0.13.1 and pnet_packet 0.35.0: a UDP checksum that comes to zero is written 0.
#
# Expected: one datagram in 65,536 has the checksum 0x0000; UDP writes 0xffff for it, since 0 says "none" (RFC 768),
#   which IPv6 forbids (RFC 8200, 8.1). Every packet library and editor knows that.
# Instead: tcprewrite --portmap writes 0x0000, for IPv4 and for IPv6; dpkt knows it for IPv4 and forgets it for IPv6;
#   impacket forgets it for IPv4, and pnet_packet's udp::ipv4_checksum and ipv6_checksum both return 0. scapy, the
#   crate etherparse 0.21.0 and the crate smoltcp 0.14.0 do it right.
# Why it matters for a balancer: a receiver drops the IPv6 datagram, and takes the IPv4 one unchecked: where a gateway
#   is compared with one of these as an oracle, the oracle is wrong. Test vectors should include this checksum, and
#   ports and addresses patched (RFC 1624) from and to it.
#
# Seen: tcprewrite 0000 0000, dpkt ffff 0000, impacket 0000, pnet_packet 0000 0000; scapy ffff ffff, etherparse ffff
#   ffff, smoltcp ffff ffff (IPv4, IPv6)
#
# Needs: Rust (cargo 1.91 or later), a C compiler, and the Debian packages python3, python3-venv; tcpreplay is unpacked
# into a temporary folder; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb tcpreplay
    pip scapy==2.8.0 dpkt==1.9.8 impacket==0.13.1
    crate 'etherparse = "=0.21.0"' 'pnet_packet = "=0.35.0"' \
        'smoltcp = { version = "=0.14.0", default-features = false, features = ["std", "medium-ip", "proto-ipv4", "proto-ipv6", "socket-udp"] }' \
        <<'R'
use etherparse::UdpHeader;
use pnet_packet::udp::{UdpPacket, ipv4_checksum, ipv6_checksum};
use smoltcp::wire::IpAddress;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn main() {
    let (a4, b4) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let (a6, b6): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
    // The payload of two bytes that brings the sum to 0xffff is the checksum over two bytes of zero.
    let header = UdpHeader { source_port: 1000, destination_port: 5353, length: 10, checksum: 0 };
    let v4 = |payload: [u8; 2]| header.calc_checksum_ipv4_raw(a4.octets(), b4.octets(), &payload).unwrap();
    let v6 = |payload: [u8; 2]| header.calc_checksum_ipv6_raw(a6.octets(), b6.octets(), &payload).unwrap();
    let (p4, p6) = (v4([0, 0]).to_be_bytes(), v6([0, 0]).to_be_bytes());
    println!("etherparse {:04x} {:04x}", v4(p4), v6(p6));
    let bytes = |payload: [u8; 2]| [&header.to_bytes()[..], &payload].concat();
    let (d4, d6) = (bytes(p4), bytes(p6));
    fn pnet(bytes: &[u8]) -> UdpPacket<'_> {
        UdpPacket::new(bytes).unwrap()
    }
    // Of any other checksum they agree.
    assert_eq!(ipv4_checksum(&pnet(&bytes([0, 0])), &a4, &b4), u16::from_be_bytes(p4));
    assert_eq!(ipv6_checksum(&pnet(&bytes([0, 0])), &a6, &b6), u16::from_be_bytes(p6));
    println!("pnet_packet {:04x} {:04x}", ipv4_checksum(&pnet(&d4), &a4, &b4), ipv6_checksum(&pnet(&d6), &a6, &b6));
    let smoltcp = |mut bytes: Vec<u8>, from: IpAddr, to: IpAddr| {
        let mut packet = smoltcp::wire::UdpPacket::new_unchecked(&mut bytes[..]);
        packet.fill_checksum(&IpAddress::from(from), &IpAddress::from(to));
        packet.checksum()
    };
    println!("smoltcp {:04x} {:04x}", smoltcp(d4, a4.into(), b4.into()), smoltcp(d6, a6.into(), b6.into()));
}
R
}

check() {
    tcprewrite --version 2>&1 | sed -n 1p
    cat >python.py <<'P'
import ipaddress, struct, subprocess

import dpkt
from impacket import ImpactPacket
from scapy.all import Ether, IP, IPv6, UDP, rdpcap, wrpcap

V4, V6 = ("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")

def by_scapy(layer, ends, payload, port=5353):
    made = layer(src=ends[0], dst=ends[1]) / UDP(sport=1000, dport=port) / payload
    return layer(bytes(made))

def by_dpkt(ends, payload):
    udp = dpkt.udp.UDP(sport=1000, dport=5353, data=payload)
    udp.ulen = len(udp)
    source, destination = (ipaddress.ip_address(end).packed for end in ends)
    if ends is V4:
        ip = dpkt.ip.IP(src=source, dst=destination, p=17, data=udp)
        ip.len = len(ip)
    else:
        ip = dpkt.ip6.IP6(src=source, dst=destination, nxt=17, hlim=64, plen=len(udp), data=udp)
        ip.extension_hdrs = {}
    return struct.unpack(">H", bytes(ip)[-4:-2])[0]

def by_impacket(payload):
    ip, udp = ImpactPacket.IP(), ImpactPacket.UDP()
    ip.set_ip_src(V4[0])
    ip.set_ip_dst(V4[1])
    udp.set_uh_sport(1000)
    udp.set_uh_dport(5353)
    udp.contains(ImpactPacket.Data(payload))
    ip.contains(udp)
    return struct.unpack(">H", bytes(ip.get_packet())[-4:-2])[0]

def zero(checksum):
    """The two bytes that bring a datagram's sum to 0xffff: its checksum where they are zero."""
    return struct.pack(">H", checksum)

s4 = zero(by_scapy(IP, V4, b"\0\0")[UDP].chksum)
s6 = zero(by_scapy(IPv6, V6, b"\0\0")[UDP].chksum)
# Of any other checksum they all agree.
assert by_dpkt(V4, b"\0\0") == by_impacket(b"\0\0") == struct.unpack(">H", s4)[0] != 0
assert by_dpkt(V6, b"\0\0") == struct.unpack(">H", s6)[0] != 0
print(f"scapy {by_scapy(IP, V4, s4)[UDP].chksum:04x} {by_scapy(IPv6, V6, s6)[UDP].chksum:04x}")
print(f"dpkt {by_dpkt(V4, s4):04x} {by_dpkt(V6, s6):04x}")
print(f"impacket {by_impacket(s4):04x}")
frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
wrpcap("in.pcap", [frame / by_scapy(IP, V4, s4, 53), frame / by_scapy(IPv6, V6, s6, 53)])
subprocess.run(["tcprewrite", "--portmap=53:5353", "--infile=in.pcap", "--outfile=out.pcap"], check=True)
made = rdpcap("out.pcap")
assert [packet[UDP].dport for packet in made] == [5353, 5353]
print("tcprewrite", *(f"{packet[UDP].chksum:04x}" for packet in made))
P
    same 'checksums that should be ffff, IPv4 and IPv6' 'scapy ffff ffff
dpkt ffff 0000
impacket 0000
tcprewrite 0000 0000' "$(python python.py)"
    same 'checksums that should be ffff, IPv4 and IPv6' 'etherparse ffff ffff
pnet_packet 0000 0000
smoltcp ffff ffff' "$(crate_output)"
}

finding
