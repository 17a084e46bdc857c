#!/bin/bash
# keepalived 2.2.7 (Debian 12): a tracked file that is gone, empty or no number counts as 0, which is "all is well".
#
# Expected: "track_file" gates a VRRP instance. With weight 0 a value other than 0 is a fault; a file that vanishes, or
#   holds something else than a number, either is a fault too or changes nothing and is logged.
# Instead: it counts as 0. An instance in FAULT leaves it as soon as the file is removed, emptied or overwritten with a
#   word, and starts as healthy where the file never was. Trailing text is ignored: "3x" is 3.
# Why it matters for a balancer: a gateway that must not take the address before its flow table is there ("ready" as a
#   gate) opens the gate by dying with its /run folder, by truncating before it writes, or by writing "not ready". The
#   file has to say 1 before keepalived starts, may say 0 only when ready, is replaced by rename and never removed.
#
# Seen (weight 0): no file -> address; 1 -> FAULT; removed -> BACKUP; 1 -> FAULT; empty -> BACKUP; 1 -> FAULT;
#   "not ready" -> BACKUP; "3x" -> FAULT; 0 -> BACKUP
#
# Needs: root, and the Debian package iproute2; keepalived is unpacked into a temporary folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb keepalived
}

# The state that the notify script was told last; asked until it is the wanted one or 5 s have passed.
state() {
    for _ in {1..50}; do
        if [ "$(tail -n 1 states 2>/dev/null)" = "$1" ]; then break; fi
        sleep 0.1
    done
    tail -n 1 states
}

check() {
    keepalived --version 2>&1 | sed -n 1p
    ip link add v0 type veth peer name v1
    ip link set v0 up
    ip link set v1 up
    ip addr add 10.9.0.1/24 dev v0
    printf '#!/bin/sh\necho "$3" >>%s/states\n' "$PWD" >notify
    chmod +x notify
    cat >keepalived.conf <<C
global_defs {
  script_user root
}
track_file ready {
  file "$PWD/ready"
  weight 0
}
vrrp_instance V {
  state BACKUP
  interface v0
  virtual_router_id 51
  priority 100
  advert_int 1
  track_file { ready }
  notify $PWD/notify
  virtual_ipaddress { 10.9.0.100/24 }
}
C
    keepalived --dont-fork --vrrp --use-file keepalived.conf --pid "$PWD/pid" --vrrp_pid "$PWD/vrrp.pid" \
        --log-console >log 2>&1 &
    same 'no file at the start' MASTER "$(state MASTER)"
    fault() {
        echo 1 >ready
        same 'the file holds 1' FAULT "$(state FAULT)"
    }
    fault
    rm ready
    same 'the file is removed' BACKUP "$(state BACKUP)"
    fault
    : >ready
    same 'the file is emptied' BACKUP "$(state BACKUP)"
    fault
    echo 'not ready' >ready
    same 'the file holds "not ready"' BACKUP "$(state BACKUP)"
    echo 3x >ready
    same 'the file holds "3x"' FAULT "$(state FAULT)"
    echo 0 >ready
    same 'the file holds 0' BACKUP "$(state BACKUP)"
}

finding isolated
