#!/bin/bash
# ipvsadm 1.31 (Debian 12): editing a server sets all that is not given to its default, and saving loses thresholds.
#
# Expected: `-e ... -x 200` changes the upper threshold and leaves the weight alone; `ipvsadm-save` writes all that
#   `ipvsadm-restore` needs; `-p` without a value is 300 s, as ipvsadm(8)
#   says.
# Instead: `-e` without -w sets the weight to 1, so that a server that was quiesced with weight 0 gets connections again,
#   and removes the thresholds if they are not given. `ipvsadm -S` writes no thresholds: a restore lifts every limit.
#   `-p` alone is 360 s.
# Why it matters for a balancer: a saved file is not the whole state; whoever reads commands must know that an edit
#   replaces all of a server, and that limits have to be looked up with `ipvsadm -L --thresholds`.
#
# Seen: weight 0 -> 1 and threshold 100 -> 0 by `-e -m`; no -x in `ipvsadm -S`; `-p` saved as `-p 360`
#
# Needs: the Debian packages user-mode-linux, kmod and ipvsadm, which are unpacked into a temporary folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
. "$(dirname "$(readlink -f "$0")")/lib/uml.sh"

fetch() {
    uml_fetch ipvsadm
}

check() {
    cat >script <<'S'
ipvsadm -A -t 192.0.2.80:80 -s wrr -p
ipvsadm -a -t 192.0.2.80:80 -r 10.0.0.1:80 -m -w 0 -x 100 -y 50
ipvsadm -a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 3 -x 100 -y 50
ipvsadm -e -t 192.0.2.80:80 -r 10.0.0.1:80 -m
ipvsadm -Sn
ipvsadm -L -n --thresholds | awk '/-> 10/ { print $2, $3, $4 }'
S
    in_uml "$PWD/script" >said
    same 'what is saved' '-A -t 192.0.2.80:80 -s wrr -p 360
-a -t 192.0.2.80:80 -r 10.0.0.1:80 -m -w 1
-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 3' "$(grep '^-' said)"
    same 'the thresholds' '10.0.0.1:80 0 0
10.0.0.2:80 100 50' "$(grep '^10' said)"
}

finding
