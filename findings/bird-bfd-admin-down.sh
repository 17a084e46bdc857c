#!/bin/bash
# BIRD 2.0.12 (Debian 12): BFD that is taken down in order restarts BGP like a broken path does.
#
# Expected: BFD has a state for maintenance, AdminDown, and a system "SHOULD NOT indicate a connectivity failure" for it
#   to a client with a liveness check of its own (RFC 5882, 3.2), as BGP has. So taking BFD down by hand at one end leaves
#   the BGP session as it was.
# Instead: at AdminDown from the peer BIRD ends the BGP session ("BFD session down") and withdraws its routes. BGP then
#   comes up again without BFD, after "error wait time" (60 s by default). And "disable" of BIRD's own BFD sends no
#   AdminDown: it falls silent, so that its peer sees the detection time run out (diagnostic 1) and does the same.
# Why it matters for a balancer: a gateway that announces by BGP with BFD loses its traffic for a minute when only BFD is
#   disabled. Take bfd out of the BGP protocol at both ends first; the error wait time of the
#   router counts too.
#
# Seen: AdminDown at a BGP session of 5 s: "Error: BFD session down", route gone; then: Established, BFD Down
#       disable: no AdminDown sent, the peer's diagnostic 1, "Error: BFD session down", route gone
#
# Needs: root, and the Debian packages iproute2 and python3; bird2 is unpacked into a temporary folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb bird2
}

check() {
    bird --version 2>&1 | sed -n 1p
    ip link add v0 type veth peer name v1
    unshare --net sleep infinity &
    local holder=$! peer speaker
    sleep 0.5
    ip link set v1 netns "$holder"
    ip addr add 10.1.0.1/24 dev v0
    ip link set v0 up
    local there=(nsenter -t "$holder" -n --)
    "${there[@]}" ip addr add 10.1.0.2/24 dev v1
    "${there[@]}" ip link set v1 up
    cat >router.conf <<'C'
router id 10.1.0.1;
protocol device { scan time 1; }
protocol bfd { interface "*" { interval 100 ms; }; }
protocol bgp peer {
  local 10.1.0.1 as 65000;
  neighbor 10.1.0.2 as 65001;
  bfd;
  connect delay time 1;
  error wait time 5, 5;
  ipv4 { import all; export none; };
}
C
    # The gateway, whose BFD is a script at first.
    cat >gateway.conf <<'C'
router id 10.1.0.2;
protocol device { scan time 1; }
protocol static { ipv4; route 192.0.2.80/32 blackhole; }
protocol bgp to_router {
  local 10.1.0.2 as 65001;
  neighbor 10.1.0.1 as 65000;
  connect delay time 1;
  error wait time 1, 1;
  ipv4 { import none; export all; };
}
C
    sed 's/neighbor .*/& bfd;/' gateway.conf >gateway-bfd.conf
    echo 'protocol bfd bfd1 { interface "*" { interval 100 ms; }; }' >>gateway-bfd.conf
    cat >speaker.py <<'P'
"""Speaks BFD with 10.1.0.1; AdminDown 5 s after the session is up."""
import select, socket, struct, time

ADMIN_DOWN, DOWN, INIT, UP = range(4)
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind(("10.1.0.2", 3784))
said = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
said.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
said.bind(("10.1.0.2", 50000))
state, diagnostic, yours, up_since, due = DOWN, 0, 0, None, 0.0

def say(flags=0):
    words = (77, yours, 100_000, 100_000, 0)
    said.sendto(struct.pack(">4B5I", 0x20 | diagnostic, state << 6 | flags, 3, 24, *words), ("10.1.0.1", 3784))

while True:
    if select.select([heard], [], [], 0.02)[0]:
        packet = heard.recv(100)
        theirs, yours = packet[1] >> 6, struct.unpack(">I", packet[4:8])[0]
        if state == DOWN and theirs == DOWN:
            state = INIT
        elif state in (DOWN, INIT) and theirs in (INIT, UP):
            state, up_since = UP, time.monotonic()
        if packet[1] & 0x20:  # Poll, answered by Final
            say(0x10)
    if state == UP and time.monotonic() - up_since > 5:
        state, diagnostic = ADMIN_DOWN, 7
    if time.monotonic() > due:
        due = time.monotonic() + 0.08
        say()
P
    # Prints the first Down's diagnostic of the router and the number of AdminDowns of the gateway, in 4 s.
    cat >listen.py <<'P'
import socket, time

wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("v0", 0))
diagnostic, admin_downs, until = None, 0, time.monotonic() + 4
print("listening", flush=True)
while (left := until - time.monotonic()) > 0:
    wire.settimeout(left)
    try:
        frame = wire.recv(200)
    except TimeoutError:
        break
    if frame[23] != 17 or frame[36:38] != (3784).to_bytes(2, "big"):
        continue
    if frame[26:30] == bytes([10, 1, 0, 2]):
        admin_downs += frame[43] >> 6 == 0
    elif frame[43] >> 6 == 1 and diagnostic is None:
        diagnostic = frame[42] & 31
print(f"diagnostic {diagnostic}, {admin_downs} AdminDowns")
P
    ask() { birdc -s "$PWD/router.ctl" "$@" 2>/dev/null; }
    bgp() { ask show protocols peer | awk '$1 == "peer" { $1 = $2 = $3 = $4 = $5 = ""; print }' | sed 's/^ *//; s/^Idle //'; }
    bfd() { ask show bfd sessions | awk '$1 == "10.1.0.2" { print $3 }'; }
    route() { ask show route 192.0.2.80/32 | grep -c '^192.0.2.80/32 ' || true; }
    seen() { echo "BGP $(bgp), BFD $(bfd), $(route) route"; }
    # Waits up to 20 s for it.
    await() {
        for _ in {1..200}; do
            if [ "$(seen)" = "$1" ]; then break; fi
            sleep 0.1
        done
        seen
    }
    start() { "${there[@]}" bird -f -c "$1" -s "$PWD/gateway.ctl" -P gateway.pid 2>gateway.log & }
    local up='BGP Established, BFD Up, 1 route' down='BGP Error: BFD session down, BFD Down, 0 route'

    bird -f -c router.conf -s "$PWD/router.ctl" -P router.pid 2>router.log &
    start gateway.conf
    peer=$!
    "${there[@]}" python3 speaker.py &
    speaker=$!
    same 'both up' "$up" "$(await "$up")"
    same 'the peer says AdminDown' "$down" "$(await "$down")"
    same 'it goes on saying it' 'BGP Established, BFD Down, 1 route' "$(await 'BGP Established, BFD Down, 1 route')"
    kill "$speaker" "$peer"
    wait "$speaker" "$peer" || true

    start gateway-bfd.conf
    same 'BIRD at both ends' "$up" "$(await "$up")"
    sleep 2
    python3 listen.py >heard &
    local listener=$!
    sleep 1
    birdc -s "$PWD/gateway.ctl" disable bfd1 >/dev/null
    same 'the peer disables BFD' "$down" "$(await "$down")"
    wait "$listener"
    same 'what was sent' 'diagnostic 1, 0 AdminDowns' "$(sed -n 2p heard)"
}

finding isolated
