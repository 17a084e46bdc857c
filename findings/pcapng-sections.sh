#!/bin/bash
# libpcap 1.10.3 (tcpdump 4.99.3, Debian 12) and dpkt 1.9.8: valid pcapng that they do not read to its end.
#
# Expected: captures of several interfaces, and captures that were concatenated, are what pcapng is for: a reader takes
#   them, or says at the beginning that it does not.
# Instead: libpcap stops with an error at an interface whose snapshot length differs from the first one's, before the
#   first packet. Of two sections in different byte orders (the draft allows it) it reads the first and takes the second
#   section's length for 469762048 bytes; dpkt ends there without a word, as if the file were over. tshark and scapy
#   read both files.
# Why it matters for a balancer: a capture written by a replay has to give all its interfaces one snapshot length, or
#   tcpdump cannot read it; and "the tool read the file without an error" does not mean that it saw all packets.
#
# Seen: two snapshot lengths: tcpdump 0 packets and an error, dpkt 2, tshark 2, scapy 2
#       two byte orders: tcpdump 1 and an error, dpkt 1 and no error, tshark 2, scapy 2
#
# Needs: the Debian packages python3 and python3-venv; tshark and tcpdump are unpacked into a temporary folder where
# missing; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb tshark tcpdump
    pip scapy==2.8.0 dpkt==1.9.8
}

check() {
    tcpdump --version 2>&1 | sed -n 1,2p
    tshark --version 2>/dev/null | sed -n 1p
    cat >make.py <<'P'
from pcapng_maker import FRAME, Pcapng

capture = Pcapng()
capture.interface(snaplen=262144)
capture.interface(snaplen=65535)
capture.packet(1700000000250000, FRAME)
capture.packet(1700000000350000, FRAME, interface=1)
open("snaplen.pcapng", "wb").write(capture.bytes)

first, second = Pcapng("<"), Pcapng(">")
for section in (first, second):
    section.interface()
    section.packet(1700000000250000, FRAME)
open("order.pcapng", "wb").write(first.bytes + second.bytes)
P
    python make.py
    cat >read.py <<'P'
import sys

import dpkt
from scapy.all import rdpcap

print("dpkt", sum(1 for _ in dpkt.pcap.UniversalReader(open(sys.argv[1], "rb"))))
print("scapy", len(rdpcap(sys.argv[1])))
P
    readers() {
        local code=0
        tcpdump -Z root -n -r "$1" >packets 2>errors || code=$?
        printf 'tcpdump %s, exit code %s\n' "$(wc -l <packets)" "$code"
        printf 'tshark %s\n' "$(tshark -r "$1" 2>/dev/null | wc -l)"
        python read.py "$1"
    }
    same 'packets read, two snapshot lengths' 'tcpdump 0, exit code 1
tshark 2
dpkt 2
scapy 2' "$(readers snaplen.pcapng)"
    same 'packets read, two byte orders' 'tcpdump 1, exit code 1
tshark 2
dpkt 1
scapy 2' "$(readers order.pcapng)"
    sed -n '$p' errors
}

finding
