#!/bin/bash
# conntrackd 1.4.7, Linux 6.18: with DisableExternalCache, the usual script makes a backup forget all flows of its peer.
#
# Expected: with "DisableExternalCache" the peer's flows are kept in the backup's kernel, "you do not need to commit"; the script
#   that comes with it, primary-backup.sh, is used as in any other mode. On "backup" it runs `conntrackd -t`, which removes the
#   gateway's own old entries after PurgeTimeout (default: 60 s), and `conntrackd -n`, which asks the peer for all of its flows.
# Instead: -t flushes the kernel's whole table after PurgeTimeout, with the flows that the peer has sent since, those that -n
#   brought among them. keepalived runs the script when it starts, so a minute after each start, and after each time that it
#   was active, the backup has none of the flows that do not change; the peer does not send them again. The backup's log says "flushing
#   kernel conntrack table (scheduled)". An established connection comes back with its next change of state, which is its end.
# Why it matters for a balancer: the takeover after that loses every connection that was open before the flush. Whoever compares
#   with it has to leave out -t in that mode.
#
# Seen, with a PurgeTimeout of 3 s: the backup has 100 of 100 flows, none after the purge, and none 10 s later; without -t it
#   keeps 100
#
# Needs: root, and the Debian package iproute2; conntrackd and conntrack are unpacked into a temporary folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb conntrackd conntrack
}

# at N COMMAND...: runs it at gateway 1 or 2.
at() {
    local n=$1
    shift
    nsenter --net="/proc/${gateway[n]}/ns/net" "$@"
}

# count: flows in the kernel of the backup.
count() {
    at 2 conntrack -L -p tcp --dport 80 2>/dev/null | wc -l
}

# some N: asks until the backup has so many, for 5 s.
some() {
    for _ in {1..50}; do
        if [ "$(count)" = "$1" ]; then break; fi
        sleep 0.1
    done
    count
}

begin() {
    local n
    for n in 1 2; do
        cat >conf$n <<C
Sync {
  Mode FTFW {
    PurgeTimeout 3
    DisableExternalCache On
  }
  UDP {
    IPv4_address 10.255.0.$n
    IPv4_Destination_Address 10.255.0.$((3 - n))
    Port 3780
    Interface sync
    Checksum on
  }
}
General {
  HashSize 32768
  HashLimit 131072
  LogFile $PWD/log$n
  LockFile $PWD/lock$n
  UNIX {
    Path $PWD/ctl$n
  }
  NetlinkBufferSize 2097152
  NetlinkBufferSizeMaxGrowth 8388608
  Filter From Userspace {
    Protocol Accept {
      TCP
    }
    Address Ignore {
      IPv4_address 127.0.0.1
    }
  }
}
C
        at $n conntrackd -C conf$n >out$n 2>&1 &
        for _ in {1..50}; do
            if [ -S ctl$n ]; then break; fi
            sleep 0.1
        done
    done
}

check() {
    conntrackd -v 2>&1 | sed -n 1p
    uname -r
    gateway=()
    for n in 1 2; do
        unshare --net sleep infinity &
        gateway[n]=$!
    done
    sleep 0.5
    ip link add sync netns "${gateway[1]}" type veth peer name sync netns "${gateway[2]}"
    for n in 1 2; do
        at $n ip address add 10.255.0.$n/24 dev sync
        at $n ip link set sync up
    done
    begin
    for port in {1001..1100}; do
        at 1 conntrack -I -p tcp -s 10.1.0.1 -d 10.2.0.1 --sport "$port" --dport 80 --state ESTABLISHED --timeout 3600 \
            --status ASSURED,SEEN_REPLY >/dev/null 2>&1
    done
    same 'flows of the peer in the backup' 100 "$(some 100)"
    # What primary-backup.sh does on "backup".
    at 2 conntrackd -C conf2 -t
    at 2 conntrackd -C conf2 -n
    same 'at once after -t and -n' 100 "$(some 100)"
    sleep 4
    same 'after the purge' 0 "$(some 0)"
    sleep 10
    same 'ten seconds later' 0 "$(count)"
    same 'at the peer' 100 "$(at 1 conntrack -L -p tcp --dport 80 2>/dev/null | wc -l)"
    at 2 conntrackd -C conf2 -n
    same 'after another -n' 100 "$(some 100)"
    sleep 10
    same 'ten seconds later, without -t' 100 "$(count)"
}

finding isolated
