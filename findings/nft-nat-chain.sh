#!/bin/bash
# Linux 6.18 with nftables 1.0.6: connections whose translation conntrack holds are not translated while there is no nat
# chain.
#
# Expected: a nat chain sees a connection's first packet, and "all future packets in this connection will also be
#   mangled" (nft(8)), by what conntrack holds. So after "nft flush ruleset" new connections are not translated, and the
#   others go on, as they do when only the rule is deleted.
# Instead: the translation itself is a hook that comes with the first nat chain of the address family and goes with the
#   last. Without one the packets of established connections pass as they came: clients' packets to the gateway itself,
#   servers' answers to the clients with the server's own address. conntrack lists the entries as before. Any nat chain
#   of the family brings it back, be it empty and for another hook; one of ip6 does not help ip.
# Why it matters for a balancer: "nft flush ruleset" and a new load in two steps show clients the servers' addresses in
#   between. A standby that has all the entries (conntrackd) translates nothing without a nat chain: comparing failovers
#   with conntrack, load the rules on both gateways.
#
# Seen: client to server, server to client: with the rule: translated both ways; rule deleted: translated; table
#   deleted: not translated (entry still there, destination NAT); empty ip6 nat chain: not translated; empty ip
#   postrouting nat chain: translated
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
    nft --version
    uname -r
    local number=0 name
    for name in v w; do
        number=$((number + 1))
        ip link add "${name}0" type veth peer name "${name}1"
        ip link set "${name}0" up
        ip link set "${name}1" up
        ip addr add "10.$number.0.1/24" dev "${name}0"
        ip neigh add "10.$number.0.2" lladdr "02:00:00:00:00:0$number" dev "${name}0"
    done
    echo 1 >/proc/sys/net/ipv4/ip_forward
    # Keeps conntrack at work while there is no nat chain.
    nft -f - <<'C'
table ip filter {
  chain forward {
    type filter hook forward priority 0
    ct state invalid drop
  }
}
table ip service {
  chain prerouting {
    type nat hook prerouting priority dstnat
    ip daddr 10.1.0.1 udp dport 80 dnat to 10.2.0.2:8080
  }
}
C
    cat >play.py <<'P'
import socket, subprocess, time

from scapy.all import IP, UDP, Ether, get_if_hwaddr

def wire(name):
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    made.bind((name, 0))
    return made

CLIENT, SERVER = wire("v1"), wire("w1")
TO_SERVICE = IP(src="10.1.0.2", dst="10.1.0.1") / UDP(sport=4000, dport=80)
TO_CLIENT = IP(src="10.2.0.2", dst="10.1.0.2") / UDP(sport=8080, dport=4000)

def arrives(come, data):
    until = time.monotonic() + 0.7
    while (left := until - time.monotonic()) > 0:
        come.settimeout(left)
        try:
            got = Ether(come.recv(4096))
        except TimeoutError:
            break
        if UDP in got and bytes(got[UDP].payload) == data and not got.src.startswith("02:00:00:00:00:0"):
            return f"{got[IP].src}:{got[UDP].sport} > {got[IP].dst}:{got[UDP].dport}"
    return "nothing"

def step(what):
    CLIENT.send(bytes(Ether(src="02:00:00:00:00:01", dst=get_if_hwaddr("v0")) / TO_SERVICE / what.encode()))
    print(f"{what}: server gets {arrives(SERVER, what.encode())}", end=", ")
    SERVER.send(bytes(Ether(src="02:00:00:00:00:02", dst=get_if_hwaddr("w0")) / TO_CLIENT / what.encode()))
    print(f"client gets {arrives(CLIENT, what.encode())}", end=", ")
    listed = subprocess.run(["conntrack", "-L", "-p", "udp", "--dst-nat"], capture_output=True, text=True).stdout
    print(f"entries {len(listed.splitlines())}")

def nft(*commands):
    for command in commands:
        subprocess.run(["nft", command], check=True)

step("rule")
nft("flush chain ip service prerouting")
step("no rule")
nft("delete table ip service")
step("no table")
nft("add table ip6 x", "add chain ip6 x y { type nat hook postrouting priority srcnat ; }")
step("ip6 chain")
nft("add table ip x", "add chain ip x y { type nat hook postrouting priority srcnat ; }")
step("ip chain")
P
    local translated='server gets 10.1.0.2:4000 > 10.2.0.2:8080, client gets 10.1.0.1:80 > 10.1.0.2:4000, entries 1'
    local not='server gets nothing, client gets 10.2.0.2:8080 > 10.1.0.2:4000, entries 1'
    same 'each step' "rule: $translated
no rule: $translated
no table: $not
ip6 chain: $not
ip chain: $translated" "$(python play.py 2>/dev/null)"
}

finding isolated
