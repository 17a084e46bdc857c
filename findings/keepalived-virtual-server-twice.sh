#!/bin/bash
# keepalived 2.2.7 (Debian 12): of two virtual servers with one address and port, the second's servers join the first.
#
# Expected: an error; or the last one wins, as with other keywords that come twice.
# Instead: one line in the log, "IPVS cmd ... error: Service already exists(17)", and it goes on. The kernel gets one service with the scheduler, persistence and flags of the first and the
#   real servers of both, each checked as its own block says. With `quorum` or a sorry server, each block acts on its own
#   half.
# Why it matters for a balancer: an `include` of generated files that name an address twice mixes two farms. Whoever reads
#   such a file must merge the servers and drop the second block's other settings.
#
# Seen: `ipvsadm -Sn`: -A -t 192.0.2.80:80 -s rr, with the servers of both blocks
#
# Needs: the Debian packages user-mode-linux, kmod, keepalived and ipvsadm, which are unpacked into a temporary folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
. "$(dirname "$(readlink -f "$0")")/lib/uml.sh"

fetch() {
    uml_fetch keepalived ipvsadm
}

check() {
    cat >keepalived.conf <<'C'
virtual_server 192.0.2.80 80 {
    protocol TCP
    lvs_sched rr
    lvs_method NAT
    real_server 10.0.0.1 80 { weight 5
    }
}
virtual_server 192.0.2.80 80 {
    protocol TCP
    lvs_sched wrr
    lvs_method NAT
    persistence_timeout 60
    real_server 10.0.0.2 80 { weight 7
    }
}
C
    keepalived_in_uml "$PWD/keepalived.conf"
    same 'what the kernel has' '-A -t 192.0.2.80:80 -s rr
-a -t 192.0.2.80:80 -r 10.0.0.1:80 -m -w 5
-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 7' "$(grep '^-' said)"
    same 'what the log says' 'Service already exists(17)' "$(grep -o 'Service already exists([0-9]*)' said)"
}

finding
