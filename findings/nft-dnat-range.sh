#!/bin/bash
# nftables 1.0.6 on Linux 6.18: "dnat to A-B" does not spread a client's connections, with or without any flag.
#
# Expected: a range of addresses is used in turn or at random, connection by connection; "persistent" is the flag that
#   gives a client the same server each time, "random" and "fully-random" are those that spread.
# Instead: the server is a hash of the client's and the original destination's address, without ports. Every connection
#   of a client to one service address goes to one server in all four forms; "persistent" only leaves the destination
#   out of the hash, so that the client meets the same server at every service address; the random flags concern ports.
# Why it matters for a balancer: such a rule is no yardstick for round robin or random. Behind one proxy or carrier NAT
#   it puts everything on one server, and a test with one client sees nothing of the others.
#
# Seen: 64 connections of each of 8 clients over 8 servers: 1 server per client for plain, persistent, random and
#   fully-random; over 8 service addresses a client meets several servers plain, and 1 with persistent
#
# Needs: root, and the Debian packages python3 and iproute2; nftables is unpacked into a temporary folder if missing.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb nftables
}

check() {
    nft --version
    uname -r
    ip route add 10.1.0.0/16 dev lo
    nft -f - <<'C'
table ip t {
  chain output {
    type nat hook output priority -100
    ip daddr 10.1.1.0/24 udp dport 53 dnat to 127.0.0.11-127.0.0.18
    ip daddr 10.1.2.0/24 udp dport 53 dnat to 127.0.0.11-127.0.0.18 persistent
    ip daddr 10.1.3.0/24 udp dport 53 dnat to 127.0.0.11-127.0.0.18 random
    ip daddr 10.1.4.0/24 udp dport 53 dnat to 127.0.0.11-127.0.0.18 fully-random
  }
}
C
    cat >send.py <<'P'
import socket

servers = []
for last in range(11, 19):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((f"127.0.0.{last}", 53))
    server.setblocking(False)
    servers.append(server)

def reached(client, destinations):
    for destination in destinations:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((client, 0))
        sock.sendto(b"x", (destination, 53))
        sock.close()
    met = set()
    for number, server in enumerate(servers):
        try:
            while server.recv(16):
                met.add(number)
        except BlockingIOError:
            pass
    return met

clients = [f"127.0.0.{last}" for last in range(1, 9)]
for net, form in enumerate(["plain", "persistent", "random", "fully-random"], 1):
    per_client = [reached(client, [f"10.1.{net}.1"] * 64) for client in clients]
    most = max(len(met) for met in per_client)
    several = "several" if len(set.union(*per_client)) > 1 else "one"
    print(f"{form}: {most} per client, {several} over all clients")
for net, form in enumerate(["plain", "persistent"], 1):
    met = reached(clients[0], [f"10.1.{net}.{last}" for last in range(1, 9)])
    print(f"{form}: one client at 8 service addresses meets", "several" if len(met) > 1 else "one")
P
    python3 send.py | tee spread
    same 'servers met' "plain: 1 per client, several over all clients
persistent: 1 per client, several over all clients
random: 1 per client, several over all clients
fully-random: 1 per client, several over all clients
plain: one client at 8 service addresses meets several
persistent: one client at 8 service addresses meets one" "$(cat spread)"
}

finding isolated
