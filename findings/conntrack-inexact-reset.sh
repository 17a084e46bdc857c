#!/bin/bash
# Linux 6.18 conntrack (conntrack-tools 1.4.7, Debian 12): a RST in the window but not exact leaves the connection
# ESTABLISHED, and its time-out never recovers.
#
# Expected: either conntrack believes a RST anywhere in the window (RFC 793) and goes to CLOSE, or it believes only the
#   exact next sequence number, as the ends do (RFC 5961, 3.2), and then the entry stays as it was.
# Instead: neither. The state stays ESTABLISHED, and the time-out of CLOSE is put on it: 10 s by default instead of 5
#   days. The challenge ACK that the RFC has the end send lifts it, but only to the time-out of unacknowledged data (300
#   s): the RST's sequence number counts as data that nobody has acknowledged, and keep-alives do not change that. After
#   an exact RST (CLOSE) data is still let through, both ways, and each packet renews CLOSE.
# Why it matters for a balancer: a single blind RST in the window shortens an idle connection's life in an nftables NAT
#   to 10 s, or 300 s where its end answers; comparing a tracker with conntrack, the state's name is not enough. A
#   tracker that means RFC 5961 restores the full time-out when the challenge ACK comes.
#
# Seen, with 1000 s established, 200 s unacknowledged, 20 s close: ESTABLISHED 1000; RST 100 ahead: ESTABLISHED 20;
#   challenge ACK: ESTABLISHED 200; keep-alive and its answer: ESTABLISHED 200; exact RST: CLOSE 20; data passes
#
# Needs: root, and the Debian packages python3, python3-venv, iproute2; nftables and conntrack are unpacked into a
# temporary folder where missing.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb nftables conntrack
    pip scapy==2.8.0
}

check() {
    conntrack --version
    uname -r
    for name in v w; do
        ip link add "${name}0" type veth peer name "${name}1"
        ip link set "${name}0" up
        ip link set "${name}1" up
    done
    ip addr add 10.1.0.1/24 dev v0
    ip addr add 10.2.0.1/24 dev w0
    ip neigh add 10.1.0.2 lladdr 02:00:00:00:00:01 dev v0
    ip neigh add 10.2.0.2 lladdr 02:00:00:00:00:02 dev w0
    echo 1 >/proc/sys/net/ipv4/ip_forward
    nft -f - <<'C'
table ip t {
  chain forward {
    type filter hook forward priority 0
    ct state invalid drop
  }
}
C
    local timeouts=/proc/sys/net/netfilter/nf_conntrack_tcp_timeout
    echo 1000 >${timeouts}_established
    echo 200 >${timeouts}_unacknowledged
    echo 20 >${timeouts}_close
    cat >play.py <<'P'
import socket, subprocess, time

from scapy.all import IP, TCP, Ether, get_if_hwaddr

def wire(name):
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    made.bind((name, 0))
    return made

CLIENT = (wire("v1"), Ether(src="02:00:00:00:00:01", dst=get_if_hwaddr("v0")) / IP(src="10.1.0.2", dst="10.2.0.2"))
SERVER = (wire("w1"), Ether(src="02:00:00:00:00:02", dst=get_if_hwaddr("w0")) / IP(src="10.2.0.2", dst="10.1.0.2"))

def passes(end, flags, seq, ack=0, data=b""):
    """Sends a segment and tells whether it comes out at the other end."""
    other = (SERVER if end is CLIENT else CLIENT)[0]
    ports = {"sport": 4000, "dport": 80} if end is CLIENT else {"sport": 80, "dport": 4000}
    segment = TCP(flags=flags, seq=seq, ack=ack, window=20000, **ports) / data
    end[0].send(bytes(end[1] / segment))
    until = time.monotonic() + 1
    while (left := until - time.monotonic()) > 0:
        other.settimeout(left)
        try:
            got = Ether(other.recv(4096))
        except TimeoutError:
            return False
        if got.haslayer(TCP) and got[IP].src == end[1][IP].src and got[TCP].seq == seq and got[TCP].flags == flags:
            return True
    return False

def entry():
    words = subprocess.run(["conntrack", "-L", "-p", "tcp"], capture_output=True, text=True).stdout.split()
    left = int(words[2])
    return words[3] + " " + next(str(full) for full in (20, 200, 1000) if left <= full)

def step(what, *results):
    print(f"{what}: {'passed' if all(results) else 'dropped'}, {entry()}")

step("handshake", passes(CLIENT, "S", 1000), passes(SERVER, "SA", 5000, 1001), passes(CLIENT, "A", 1001, 5001))
step("data, acknowledged", passes(CLIENT, "PA", 1001, 5001, b"x" * 100), passes(SERVER, "A", 5001, 1101))
step("RST 100 ahead", passes(SERVER, "R", 5101))
step("challenge ACK", passes(CLIENT, "A", 1101, 5001))
step("keep-alive and answer", passes(SERVER, "A", 5000, 1101), passes(CLIENT, "A", 1101, 5001))
step("exact RST", passes(SERVER, "R", 5001))
step("client's data", passes(CLIENT, "PA", 1101, 5001, b"x"))
step("server's data", passes(SERVER, "PA", 5001, 1102, b"x"))
P
    same 'each step' 'handshake: passed, ESTABLISHED 1000
data, acknowledged: passed, ESTABLISHED 1000
RST 100 ahead: passed, ESTABLISHED 20
challenge ACK: passed, ESTABLISHED 200
keep-alive and answer: passed, ESTABLISHED 200
exact RST: passed, CLOSE 20
client'\''s data: passed, CLOSE 20
server'\''s data: passed, CLOSE 20' "$(python play.py 2>/dev/null)"
}

finding isolated
