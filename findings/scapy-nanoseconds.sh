#!/bin/bash
# scapy 2.8.0: a nanosecond capture that is read and written moves packets by a second.
#
# Expected: rdpcap keeps nanoseconds (it does: as decimal numbers), and wrpcap(nano=True) gives back the same file;
#   without nano=True times are cut or rounded to microseconds and carry into the next second if need be.
# Instead: the writer takes the seconds from a binary floating point number and the fraction from the decimal one. In
#   the last 119 ns of a second the former rounds up to the next: written with nano=True, such a packet is a second late,
#   behind its successors. Without nano=True the fraction is rounded and never carried: the last half microsecond of a
#   second is written as ts_usec = 1000000, which tshark prints as 1700000001.1000000000.
# Why it matters for a balancer: at 1 million packets per second one packet in 8 million is in that window, so a big
#   capture that went through scapy goes backwards in time somewhere, and timers in a replay fire a second early. A
#   reader must not take ts_usec below 1,000,000 for granted.
#
# Seen: 1700000000.999999880 -> sec 1700000000 nsec 999999880; .999999881 -> sec 1700000001 nsec 999999881
#       microseconds: .999999499 -> 1700000000, 999999; .999999500 -> 1700000000, 1000000; .999999999 -> 1700000001,
#       1000000
#
# Needs: the Debian packages python3 and python3-venv; tshark is unpacked into a temporary folder where missing; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb tshark
    pip scapy==2.8.0
}

check() {
    cat >rewrite.py <<'P'
import struct

from scapy.all import rdpcap, wrpcap

FRACTIONS = [250000001, 999999499, 999999500, 999999880, 999999881, 999999999]
with open("in.pcap", "wb") as out:
    out.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
    for fraction in FRACTIONS:
        out.write(struct.pack("<IIII", 1700000000, fraction, 14, 14) + bytes(14))
packets = rdpcap("in.pcap")
print("read", *(str(packet.time) for packet in packets))
for nano in (True, False):
    name = "nano.pcap" if nano else "micro.pcap"
    wrpcap(name, packets, nano=nano)
    data = open(name, "rb").read()
    times = [struct.unpack_from("<II", data, 24 + 30 * place) for place in range(len(FRACTIONS))]
    print(name, *(f"{seconds}+{fraction}" for seconds, fraction in times))
P
    python rewrite.py 2>/dev/null | tee out
    same 'what was read' "read 1700000000.250000001 1700000000.999999499 1700000000.999999500 1700000000.999999880 \
1700000000.999999881 1700000000.999999999" "$(sed -n 1p out)"
    same 'written as nanoseconds' "nano.pcap 1700000000+250000001 1700000000+999999499 1700000000+999999500 \
1700000000+999999880 1700000001+999999881 1700000001+999999999" "$(sed -n 2p out)"
    same 'written as microseconds' "micro.pcap 1700000000+250000 1700000000+999999 1700000000+1000000 \
1700000000+1000000 1700000001+1000000 1700000001+1000000" "$(sed -n 3p out)"
    same 'tshark on the last of them' 1700000001.1000000000 \
        "$(tshark -r micro.pcap -T fields -e frame.time_epoch 2>/dev/null | tail -n 1)"
}

finding
