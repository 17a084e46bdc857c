#!/bin/bash
# BIRD 2.0.12 (Debian 12) on Linux 6.18: a learned route outlives its device's carrier, unless a sysctl of the device says
# otherwise.
#
# Expected: protocol "device" watches the links, so when the device of a route that "learn" took from the kernel loses
#   its carrier, the route is withdrawn; sysctls of the forwarding path have no say in what BIRD learns.
# Instead: the kernel keeps the route, marked "linkdown", and BIRD keeps it too: it stays announced while everything sent
#   to the device is lost. BIRD has "check link" for other protocols, none for this one. With
#   net.ipv4.conf.DEVICE.ignore_routes_with_linkdown=1 the kernel marks the route "dead" in the listing as well; BIRD
#   skips dead routes, and withdraws it at its next scan, though the table is the same.
# Why it matters for a balancer: a persistent TUN device loses its carrier when its process ends, and routes to it go on
#   attracting traffic. Whoever announces service addresses by "learn" needs a device that vanishes with the process, or
#   this sysctl (and its IPv6 twin) on it.
#
# Seen: carrier lost: learned; ignore_routes_with_linkdown=1: not learned; back to 0: learned; device down: not learned
#
# Needs: root, the Debian package iproute2, and TUN; bird2 is unpacked into a temporary folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb bird2
}

check() {
    bird --version 2>&1 | sed -n 1p
    uname -r
    ip tuntap add dev t0 mode tun
    ip addr add 10.9.0.1/32 dev t0
    # A process that holds the device, as a gateway does.
    python3 -c '
import fcntl, os, struct, time
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"t0", 0x1001))
time.sleep(600)' &
    local gateway=$!
    ip link set t0 up
    ip route add 192.0.2.80/32 dev t0 proto static
    cat >bird.conf <<'C'
router id 10.9.0.1;
protocol device { scan time 1; }
protocol kernel { learn; scan time 1; ipv4 { import all; export none; }; }
C
    bird -f -c bird.conf -s "$PWD/bird.ctl" -P bird.pid 2>log &
    learned() { birdc -s "$PWD/bird.ctl" show route 192.0.2.80/32 2>/dev/null | grep -c '^192.0.2.80/32 ' || true; }
    # Waits up to 10 s for the count, then four scans more, to see that it stays.
    settled() {
        for _ in {1..50}; do
            if [ "$(learned)" = "$1" ]; then break; fi
            sleep 0.2
        done
        sleep 4
        learned
    }
    carrier() { ip -br link show t0 | grep -q NO-CARRIER && echo 'no carrier' || echo carrier; }
    ignore() { echo "$1" >/proc/sys/net/ipv4/conf/t0/ignore_routes_with_linkdown; }
    same 'the process runs' 'learned 1, carrier' "learned $(settled 1), $(carrier)"
    kill "$gateway"
    wait "$gateway" || true
    same 'the process has ended' 'learned 1, no carrier' "learned $(settled 1), $(carrier)"
    ignore 1
    same 'the sysctl is 1' 'learned 0, no carrier' "learned $(settled 0), $(carrier)"
    ignore 0
    same 'the sysctl is 0 again' 'learned 1, no carrier' "learned $(settled 1), $(carrier)"
    ip link set t0 down
    same 'the device is down' 'learned 0' "learned $(settled 0)"
}

finding isolated
