#!/bin/bash
# HAProxy 2.6.12 (Debian 12): at start one failed check takes a server out, whatever "fall" says.
#
# Expected: with "fall 5 inter 2s" a server that does not answer is taken out after five failed checks, 8 to 10 s after
#   the start, as it is at any later time.
# Instead: servers start as up, but on the lowest rung: the first failed check takes one out within the first interval.
#   Only after a successful check does "fall" count as written.
# Why it matters for a balancer: a reload at a moment of packet loss removes servers that the running process would
#   have kept, and a comparison of two balancers' "fall" must not begin at the start of either.
#
# Seen: the first check fails -> DOWN after 1 failed check; the second server, which fails after a good check,
#   -> DOWN after 5
#
# Needs: root, and the Debian packages python3 and iproute2; haproxy is unpacked into a temporary folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb haproxy
}

check() {
    haproxy -v | sed -n 1p
    cat >watch.py <<'P'
import csv, os, socket, subprocess, time

open("haproxy.cfg", "w").write("""
global
  stats socket ADMIN
defaults
  mode tcp
  timeout connect 1s
  timeout client 5s
  timeout server 5s
listen l
  bind 127.0.0.1:8000
  server never 127.0.0.1:9001 check inter 2s fall 5
  server later 127.0.0.1:9002 check inter 2s fall 5
""".replace("ADMIN", os.getcwd() + "/admin.sock"))
listener = socket.socket()
listener.bind(("127.0.0.1", 9002))
listener.listen(64)
process = subprocess.Popen(["haproxy", "-db", "-f", "haproxy.cfg"], stderr=subprocess.DEVNULL)

def servers():
    client = socket.socket(socket.AF_UNIX)
    client.connect("admin.sock")
    client.sendall(b"show stat\n")
    text = b"".join(iter(lambda: client.recv(65536), b"")).decode().lstrip("# ")
    return {row["svname"]: row for row in csv.DictReader(text.splitlines())}

down = {}
checked = closed = False
try:
    for _ in range(300):
        time.sleep(0.1)
        try:
            now = servers()
        except OSError:
            continue
        for name in ("never", "later"):
            if now[name]["status"] == "DOWN":
                down.setdefault(name, now[name]["chkfail"])
        if now["later"]["check_status"] == "L4OK" and not closed:
            listener.close()
            closed = True
        if len(down) == 2:
            break
finally:
    process.terminate()
    process.wait()
for name in ("never", "later"):
    print(name, down.get(name, "not"))
P
    python3 watch.py | tee down
    same 'failed checks until down, from the start' 'never 1' "$(sed -n 1p down)"
    same 'failed checks until down, after a good one' 'later 5' "$(sed -n 2p down)"
}

finding isolated
