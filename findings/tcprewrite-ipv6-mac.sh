#!/bin/bash
# tcprewrite 4.4.3 (tcpreplay, Debian 12): every unicast IPv6 frame gets multicast MAC addresses, source included.
#
# Expected: without an option for Ethernet addresses they stay; without any option the output is the input.
# Instead: from an IPv6 packet's frame, whatever the option (or none), the destination address becomes
#   33:33 and the last four bytes of the destination IP address, and the source 33:33 and those of the source, although
#   neither is a multicast address. IPv4 frames in the same file stay as they are. (The source of mid-2026 changes only
#   the destination, and only of multicast packets.)
# Why it matters for a balancer: replayed to a real port such frames are gone: bridges drop frames with a group
#   address as source. And a capture prepared with tcprewrite makes a golden test whose link headers are invented.
#
# Seen: 02:00:00:00:00:01 > 02:00:00:00:00:02, 2001:db8::a:1 > 2001:db8::b:2
#   becomes 33:33:00:0a:00:01 > 33:33:00:0b:00:02 with --ttl=9, with --fixcsum and with no option
#
# Needs: the Debian packages python3, python3-venv; tcpreplay is unpacked into a temporary folder; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb tcpreplay
    pip scapy==2.8.0
}

check() {
    tcprewrite --version 2>&1 | sed -n 1p
    cat >make.py <<'P'
from scapy.all import Ether, IP, IPv6, UDP, wrpcap

frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
wrpcap("in.pcap", [
    frame / IPv6(src="2001:db8::a:1", dst="2001:db8::b:2") / UDP(sport=1000, dport=53) / b"hello",
    frame / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000, dport=53) / b"hello",
])
P
    cat >show.py <<'P'
from scapy.all import rdpcap

for frame in rdpcap("out.pcap"):
    print(frame.src, ">", frame.dst)
P
    python make.py
    for option in '' --ttl=9 --fixcsum; do
        # shellcheck disable=SC2086 # an empty option is none
        tcprewrite $option --infile=in.pcap --outfile=out.pcap
        same "addresses with the option '$option'" '33:33:00:0a:00:01 > 33:33:00:0b:00:02
02:00:00:00:00:01 > 02:00:00:00:00:02' "$(python show.py)"
    done
}

finding
