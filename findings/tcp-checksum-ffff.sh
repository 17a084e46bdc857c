#!/bin/bash
# tshark 4.0.17 (Debian 12) and Linux 6.18: a TCP checksum of 0xffff for 0x0000 is bad to one and good to the other.
#
# Expected: a checksum field of 0xffff where 0x0000 would be computed sums up to the same and is good to every receiver
#   (RFC 1071; RFC 1624 is about senders that should not make it); checkers agree for all protocols.
# Instead: tshark calls it bad for TCP, over IPv4 and IPv6, and good for ICMP and for the IPv4 header. Linux and tcpdump
#   take it in all of them: the SYN is answered.
# Why it matters for a balancer: "a packet that came in valid leaves valid" depends on whom one asks. A patched checksum
#   (RFC 1624, equation 3) keeps such a segment valid to its receiver, and may turn 0xffff into 0x0000; a count of bad
#   checksums by tshark over strange captures holds false alarms of this kind.
#
# Seen: TCP 0x0000: tshark good, tcpdump correct, Linux answers SYN/ACK; TCP 0xffff: tshark bad, tcpdump correct,
#   Linux answers SYN/ACK; both over IPv4 and IPv6; ICMP and IPv4 header 0xffff: tshark good, Linux answers
#
# Needs: root, and the Debian packages python3, python3-venv, iproute2; tshark and tcpdump are unpacked into a temporary
# folder where missing.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb tshark tcpdump
    pip scapy==2.8.0
}

check() {
    tshark --version 2>/dev/null | sed -n 1p
    uname -r
    ip link add v0 type veth peer name v1
    ip link set v0 up
    ip link set v1 up
    ip addr add 10.9.0.1/24 dev v0
    ip addr add fd00::1/64 dev v0 nodad
    ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:99 dev v0
    ip neigh add fd00::2 lladdr 02:00:00:00:00:99 dev v0
    cat >send.py <<'P'
import socket, sys, time

from scapy.all import ICMP, IP, TCP, Ether, IPv6, get_if_hwaddr, wrpcap

def with_zero(layer, make):
    """The packet whose checksum comes to 0x0000: make puts a number into a field that is summed."""
    parse = lambda number: layer(bytes(make(number)))
    field = lambda packet: packet.getlayer(TCP) or packet.getlayer(ICMP)
    packet = parse(field(parse(0)).chksum)
    assert field(packet).chksum == 0
    return packet

v4 = {"src": "10.9.0.2", "dst": "10.9.0.1"}
tcp = lambda seq: TCP(sport=4000, dport=8080, flags="S", seq=seq, window=1000)
made = [
    ("IPv4 TCP", with_zero(IP, lambda seq: IP(**v4) / tcp(seq))),
    ("IPv6 TCP", with_zero(IPv6, lambda seq: IPv6(src="fd00::2", dst="fd00::1") / tcp(seq))),
    ("ICMP", with_zero(IP, lambda number: IP(**v4) / ICMP(id=number, seq=0))),
]
header = lambda number: IP(bytes(IP(id=number, **v4) / ICMP(id=1, seq=1)))
packets = []
for name, zero in made:
    ones = zero.copy()
    (ones.getlayer(TCP) or ones.getlayer(ICMP)).chksum = 0xFFFF
    packets += [(name + " 0000", zero), (name + " ffff", ones)]
zero = header(header(0).chksum)
assert zero.chksum == 0
ones = zero.copy()
ones.chksum = 0xFFFF
packets += [("IPv4 header 0000", zero), ("IPv4 header ffff", ones)]
frame = Ether(src="02:00:00:00:00:99", dst=get_if_hwaddr("v0"))
wrpcap("sent.pcap", [Ether(bytes(frame / packet)) for _, packet in packets])

listener = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("v1", 0))
for name, packet in packets:
    wire.send(bytes(frame / packet))
    answer, until = "no answer", time.monotonic() + 1
    while answer == "no answer" and (left := until - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            back = Ether(wire.recv(2048))
        except TimeoutError:
            break
        if back.haslayer(TCP) and back[TCP].sport == 8080 and back[TCP].flags == "SA":
            answer = "SYN/ACK"
        elif back.haslayer(ICMP) and back[ICMP].type == 0:
            answer = "echo reply"
    if answer == "SYN/ACK":
        ip = packet.__class__(src=packet.src, dst=packet.dst)
        wire.send(bytes(frame / ip / TCP(sport=4000, dport=8080, flags="R", seq=packet[TCP].seq + 1)))
        time.sleep(0.1)
    print(f"{name}: {answer}")
P
    same 'answers of Linux' 'IPv4 TCP 0000: SYN/ACK
IPv4 TCP ffff: SYN/ACK
IPv6 TCP 0000: SYN/ACK
IPv6 TCP ffff: SYN/ACK
ICMP 0000: echo reply
ICMP ffff: echo reply
IPv4 header 0000: echo reply
IPv4 header ffff: echo reply' "$(python send.py 2>/dev/null)"
    # Status 1 is good, 0 is bad; fields: IPv4 header, TCP, ICMP.
    same 'tshark on the same packets' '1,1,
1,0,
,1,
,0,
1,,1
1,,1
1,,1
1,,1' "$(tshark -r sent.pcap -o ip.check_checksum:TRUE -o tcp.check_checksum:TRUE -T fields -E separator=, \
        -e ip.checksum.status -e tcp.checksum.status -e icmp.checksum.status 2>/dev/null)"
    same 'tcpdump on the TCP segments' '2 cksum 0x0000 (correct) 2 cksum 0xffff (correct)' \
        "$(tcpdump -Z root -vv -n -r sent.pcap 2>/dev/null | grep -o 'cksum 0x.... ([a-z]*)' | sort | uniq -c |
            awk '{ $1 = $1; print }' | paste -sd' ')"
}

finding isolated
