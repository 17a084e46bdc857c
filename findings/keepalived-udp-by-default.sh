#!/bin/bash
# keepalived 2.2.7 (Debian 12): a virtual server without `protocol` is a UDP service.
#
# Expected: TCP, as most virtual servers are TCP, and checks such as HTTP_GET speak TCP; or an error.
# Instead: it is UDP, which one line of the log says. Its checks go on over TCP and succeed, so that everything looks well
#   while connections to the address are refused.
# Why it matters for a balancer: whoever reads such a file for another program must take it for UDP, or ask.
#
# Seen: `ipvsadm -Sn`: -A -u 192.0.2.80:80 -s wlc; the log: no protocol set - defaulting to UDP
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
    lvs_method NAT
    real_server 10.0.0.1 80 {
        HTTP_GET {
            url { path / }
        }
    }
}
C
    keepalived_in_uml "$PWD/keepalived.conf"
    same 'what the kernel has' '-A -u 192.0.2.80:80 -s wlc
-a -u 192.0.2.80:80 -r 10.0.0.1:80 -m -w 1' "$(grep '^-' said)"
    same 'what the log says' 1 "$(grep -c 'no protocol set - defaulting to UDP' said)"
}

finding
