#!/bin/bash
# HAProxy 2.6.12 reading SRV records of dnsmasq 2.90 (Debian 12): weights of one to three digits are all the same.
#
# Expected: servers found by "server-template ... _http._tcp.NAME resolvers R" share the load as RFC 2782 says: weights
#   10 and 90 as 1 to 9, weight 0 a little, and those of a worse priority get nothing while a better one is up.
# Instead: the 16-bit weight is divided by 256 and rounded up, so 10, 90 and 256 are all 1, 257 to 512 are 2, 65535 is
#   256; weight 0 gets no traffic at all (a server that is up, but drained); and priorities are ignored.
# Why it matters for a balancer: the usual weights (10, 50, 100) become equal shares without a word in the log. Whoever
#   reads SRV records should scale by the largest weight of the set, and say what 0 means.
#
# Seen (SRV priority/weight -> HAProxy weight): 0/10 -> 1, 0/90 -> 1, 0/256 -> 1, 0/257 -> 2, 0/0 -> 0,
#   5/300 -> 2, 5/65535 -> 256
#
# Needs: root, and the Debian packages python3 and iproute2; haproxy and dnsmasq-base are unpacked into a temporary
# folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb haproxy dnsmasq-base
}

check() {
    haproxy -v | sed -n 1p
    dnsmasq --version | sed -n 1p
    local number=0 records=() priority weight
    for record in 0/10 0/90 0/256 0/257 0/0 5/300 5/65535; do
        number=$((number + 1))
        priority=${record%/*} weight=${record#*/}
        records+=("--srv-host=_http._tcp.lb.test,s$number.lb.test,8000,$priority,$weight"
            "--host-record=s$number.lb.test,127.0.0.1$number")
    done
    dnsmasq --keep-in-foreground --no-hosts --no-resolv --conf-file=/dev/null --pid-file= --user=root --port=5353 \
        --listen-address=127.0.0.1 --bind-interfaces --local=/lb.test/ "${records[@]}" 2>dnsmasq.log &
    cat >haproxy.cfg <<'C'
global
  stats socket ADMIN
resolvers r
  nameserver d 127.0.0.1:5353
  accepted_payload_size 4096
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend in
  bind 127.0.0.1:7000
  default_backend b
backend b
  balance roundrobin
  server-template s 7 _http._tcp.lb.test resolvers r init-addr none
C
    sed -i "s,ADMIN,$PWD/admin.sock," haproxy.cfg
    haproxy -db -f haproxy.cfg 2>haproxy.log &
    cat >weights.py <<'P'
import socket, sys, time

for _ in range(150):
    time.sleep(0.1)
    try:
        client = socket.socket(socket.AF_UNIX)
        client.connect("admin.sock")
    except OSError:
        continue
    client.sendall(b"show servers state b\n")
    lines = b"".join(iter(lambda: client.recv(65536), b"")).decode().splitlines()
    head = lines[1].lstrip("# ").split()
    rows = [dict(zip(head, line.split())) for line in lines[2:] if line]
    if len(rows) == 7 and all(row["srv_addr"] != "-" for row in rows):
        rows.sort(key=lambda row: row["srv_fqdn"])
        print(" ".join(f"{row['srv_uweight']}/{row['srv_op_state']}" for row in rows))
        break
else:
    sys.exit("haproxy did not resolve the servers")
P
    # Weight and operational state; 2 is running.
    same 'weights and states of SRV 0/10 0/90 0/256 0/257 0/0 5/300 5/65535' '1/2 1/2 1/2 2/2 0/2 2/2 256/2' "$(python3 weights.py)"
}

finding isolated
