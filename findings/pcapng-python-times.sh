#!/bin/bash
# scapy 2.8.0 and python-pcapng 2.1.1: pcapng times without their offset, and a packet without a time gets today's.
#
# Expected: if_tsoffset is added to the times of its interface (tshark, tcpdump and dpkt do it). A Simple Packet Block
#   has no time, and is shown without one or with 0; where the interface sets no snapshot length (0) all of it is there.
# Instead: scapy and python-pcapng ignore if_tsoffset, so such a capture plays in January 1970. scapy gives a packet
#   without a time the clock of the reading machine, another one at each reading, and cuts it to 0 bytes where the
#   snapshot length is 0, "no limit". dpkt leaves such packets out.
# Why it matters for a balancer: a replay that is to give the same bytes each time cannot take captures that went
#   through scapy for granted, and a test's generator that reads with scapy sees other times than the gateway.
#
# Seen: offset 1700000000 + 0.25 s: scapy 0.25, python-pcapng 0.25, dpkt 1700000000.25, tshark 1700000000.250000000
#       no time, snapshot length 0: scapy today, 0 of 48 bytes; dpkt 0 packets; tshark no time, 48 bytes
#
# Needs: the Debian packages python3 and python3-venv; tshark is unpacked into a temporary folder where missing; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb tshark
    pip scapy==2.8.0 python-pcapng==2.1.1 dpkt==1.9.8
}

check() {
    tshark --version 2>/dev/null | sed -n 1p
    cat >make.py <<'P'
from pcapng_maker import FRAME, Pcapng

capture = Pcapng()
capture.interface(resolution=9, offset=1700000000)
capture.packet(250000000, FRAME)
open("offset.pcapng", "wb").write(capture.bytes)
capture = Pcapng()
capture.interface(snaplen=0)
capture.simple_packet(FRAME)
open("simple.pcapng", "wb").write(capture.bytes)
P
    python make.py
    cat >read.py <<'P'
import time

import dpkt
import pcapng
from scapy.utils import RawPcapNgReader, rdpcap

print("scapy", rdpcap("offset.pcapng")[0].time)
blocks = [block for block in pcapng.FileScanner(open("offset.pcapng", "rb")) if hasattr(block, "timestamp")]
print("python-pcapng", blocks[0].timestamp)
print("dpkt", *(when for when, _ in dpkt.pcapng.Reader(open("offset.pcapng", "rb"))))
before = time.time()
when = rdpcap("simple.pcapng")[0].time
print("scapy", "the clock" if before - 1 < when < time.time() + 1 else when,
      *(len(data) for data, _ in RawPcapNgReader("simple.pcapng")))
print("dpkt", len(list(dpkt.pcapng.Reader(open("simple.pcapng", "rb")))))
P
    same 'an offset of 1700000000 s and 0.25 s, then a packet without a time' 'scapy 0.25
python-pcapng 0.25
dpkt 1700000000.25
scapy the clock 0
dpkt 0' "$(python read.py 2>/dev/null)"
    same 'tshark, the offset' '1700000000.250000000' \
        "$(tshark -r offset.pcapng -T fields -e frame.time_epoch 2>/dev/null)"
    same 'tshark, without a time: no time, and the length' ',48' \
        "$(tshark -r simple.pcapng -T fields -E separator=, -e frame.time_epoch -e frame.cap_len 2>/dev/null)"
}

finding
