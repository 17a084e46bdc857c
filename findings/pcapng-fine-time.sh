#!/bin/bash
# tshark, editcap and mergecap 4.0.17 and libpcap 1.10.3 (Debian 12): pcapng times finer than 10^-10 s go wrong.
#
# Expected: if_tsresol may be any power of ten or two; a reader cuts what it cannot hold. A time of a quarter second past
#   1700000000, written as if_tsoffset and 0.25 s in units of 10^-12 s or 2^-40 s, reads as 1700000000.25 everywhere,
#   and editcap's copy of the file says the same.
# Instead: tshark's arithmetic overflows from 10^-11 s and 2^-35 s on, and the fraction is some other number;
#   libpcap is right for powers of ten and wrong for 2^-40 s. editcap, mergecap and tshark -w are worse: they keep the
#   resolution, drop if_tsoffset and write ticks since 1970, which do not fit in 64 bits, so the copy lies in 1970; this
#   begins at 2^-34 s and, from June 2028 on, at 10^-10 s, which tshark itself still reads well.
# Why it matters for a balancer: a replay's timers follow the capture. Times of such files must be computed in wider
#   numbers, and neither tshark nor a file that editcap touched is an oracle for them.
#
# Seen (what was written -> tshark; tcpdump; tshark of editcap's copy), all should be 1700000000.25:
#   10^-12: 1700000000.010192327; right; 2899545.007552649        10^-10: right; right; right
#   2^-40: 1700000000.015118976; the same; 5501184.015118975      2^-34: right; right; 626258176.250000000
#
# Needs: the Debian package python3; tshark, wireshark-common and tcpdump are unpacked into a temporary folder where
# missing; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb tshark wireshark-common tcpdump
}

check() {
    tshark --version 2>/dev/null | sed -n 1p
    tcpdump --version 2>&1 | sed -n 1,2p
    cat >make.py <<'P'
import sys

from pcapng_maker import FRAME, Pcapng

resolution, offset = int(sys.argv[1]), int(sys.argv[2])
units_per_second = 2 ** (resolution - 128) if resolution & 128 else 10**resolution
capture = Pcapng()
capture.interface(resolution=resolution, offset=offset)
capture.packet(units_per_second // 4, FRAME)
open("in.pcapng", "wb").write(capture.bytes)
P
    times() {
        python3 make.py "$1" "${2:-1700000000}"
        editcap in.pcapng copy.pcapng
        tshark -r in.pcapng -T fields -e frame.time_epoch 2>/dev/null
        tcpdump -Z root --nano -tt -n -r in.pcapng 2>/dev/null | cut -d' ' -f1
        tshark -r copy.pcapng -T fields -e frame.time_epoch 2>/dev/null
    }
    same '10^-9 s' '1700000000.250000000 1700000000.250000000 1700000000.250000000' "$(times 9 | paste -sd' ')"
    same '10^-10 s' '1700000000.250000000 1700000000.250000000 1700000000.250000000' "$(times 10 | paste -sd' ')"
    same '10^-10 s, in 2028' '1850000000.250000000 1850000000.250000000 5325592.879044838' \
        "$(times 10 1850000000 | paste -sd' ')"
    same '10^-12 s' '1700000000.010192327 1700000000.250000000 2899545.007552649' "$(times 12 | paste -sd' ')"
    same '2^-34 s' '1700000000.250000000 1700000000.250000000 626258176.250000000' "$(times $((128 + 34)) | paste -sd' ')"
    same '2^-40 s' '1700000000.015118976 1700000000.015118976 5501184.015118975' "$(times $((128 + 40)) | paste -sd' ')"
}

finding
