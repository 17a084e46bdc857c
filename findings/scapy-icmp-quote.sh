#!/bin/bash
# scapy 2.8.0: changing a port in the TCP header that an ICMP error quotes makes the quote 12 bytes longer.
#
# Expected: an ICMP error that quotes the IP header and 8 bytes (RFC 792) is parsed as ICMP / IPerror / TCPerror; setting
#   TCPerror.sport changes two bytes of it.
# Instead: scapy then builds a whole TCP header of 20 bytes: the packet grows by 12 bytes, with an acknowledgement,
#   flags, window and checksum that no sender ever sent; the outer IP length does not follow unless it is deleted. A
#   quote of UDP, 8 bytes long by itself, keeps its length.
# Why it matters for a balancer: tests that make the expected translation of an ICMP error with scapy compare with a
#   quote that is invented, and never see the shortest quotes, which are the hard ones: patch the bytes instead.
#
# Seen: TCP quote of 28 bytes: 40 after the change, ending in 000000005002200073730000; UDP quote of 28 bytes: 28
#
# Needs: the Debian packages python3 and python3-venv; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    pip scapy==2.8.0
}

check() {
    cat >edit.py <<'P'
from scapy.all import ICMP, IP, TCP, UDP, TCPerror, UDPerror

def edited(transport, quoted):
    quote = bytes(IP(src="10.0.0.1", dst="10.0.0.2", id=1, flags="DF") / transport)[:28]
    error = IP(bytes(IP(src="10.0.0.9", dst="10.0.0.1") / ICMP(type=11) / quote))
    assert bytes(error)[28:] == quote
    error[quoted].sport = 2000
    after = bytes(error)[28:]
    return len(quote), len(after), after[28:].hex() or "-"

print(*edited(TCP(sport=1000, dport=80, seq=77), TCPerror))
print(*edited(UDP(sport=1000, dport=80) / b"hello", UDPerror))
P
    same 'bytes quoted before and after, and what was added' '28 40 000000005002200073730000
28 28 -' "$(python edit.py 2>/dev/null)"
}

finding
