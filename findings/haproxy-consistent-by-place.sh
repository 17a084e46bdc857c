#!/bin/bash
# HAProxy 2.6.12 (Debian 12): "hash-type consistent" follows a server's place in the file.
#
# Expected: a tenth server takes about one request in ten from the nine others wherever its line is put, and the order
#   of the lines does not matter: that is what consistent hashing is for.
# Instead: a server's points on the ring come from its numeric id, which is its place in the backend unless "id" is
#   given. A line inserted at the top renumbers all the others and moves nearly every key; reversing the lines moves
#   most of them; appended at the end the same server moves one key in seven to eight.
# Why it matters for a balancer: whoever generates a configuration from a sorted list of servers reshuffles every
#   client when the new one sorts first. A table of ours must be keyed by names, never by places.
#
# Seen, of 1,000 keys:
#   appended: 140 moved; inserted first: 992 moved; reversed: 861 moved; inserted first with "id" given: 140 moved
#
# Needs: root, and the Debian packages python3 and iproute2; haproxy is unpacked into a temporary folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb haproxy
}

check() {
    haproxy -v | sed -n 1p
    cat >ask.py <<'P'
import socket, subprocess, sys, time

def answers(servers):
    text = """
defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
frontend in
  bind 127.0.0.1:8000
  default_backend b
backend b
  balance hdr(x-key)
  hash-type consistent
"""
    for name, extra in servers:
        text += f"  server s{name} 127.0.0.1:{9000 + name} {extra}\n"
    for name in range(1, 11):
        text += f"frontend f{name}\n  bind 127.0.0.1:{9000 + name}\n"
        text += f"  http-request return status 200 content-type text/plain string s{name}\n"
    open("haproxy.cfg", "w").write(text)
    process = subprocess.Popen(["haproxy", "-db", "-f", "haproxy.cfg"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                client = socket.create_connection(("127.0.0.1", 8000), timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        else:
            sys.exit("haproxy does not listen")
        stream, seen = client.makefile("rwb"), []
        for key in range(1000):
            stream.write(f"GET / HTTP/1.1\r\nhost: a\r\nx-key: key{key}\r\n\r\n".encode())
            stream.flush()
            length = 0
            while line := stream.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            seen.append(stream.read(length))
        client.close()
        return seen
    finally:
        process.terminate()
        process.wait()

nine = [(name, "") for name in range(1, 10)]
with_ids = [(name, f"id {name}") for name in range(1, 10)]
before = answers(nine)
for what, servers in [
    ("unchanged", nine),
    ("appended", nine + [(10, "")]),
    ("first", [(10, "")] + nine),
    ("reversed", nine[::-1]),
    ("first-with-ids", [(10, "id 10")] + with_ids),
]:
    print(what, sum(a != b for a, b in zip(before, answers(servers))))
P
    python3 ask.py | tee moved
    moved() { awk -v what="$1" '$1 == what { print $2 }' moved; }
    same 'moved when nothing changes' 0 "$(moved unchanged)"
    same 'under a fifth moves when appended' yes "$([ "$(moved appended)" -lt 200 ] && echo yes)"
    same 'over nine in ten move when inserted first' yes "$([ "$(moved first)" -gt 900 ] && echo yes)"
    same 'over half move when the lines are reversed' yes "$([ "$(moved reversed)" -gt 500 ] && echo yes)"
    same 'with ids given, the place no longer matters' "$(moved appended)" "$(moved first-with-ids)"
}

finding isolated
