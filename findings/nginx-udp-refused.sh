#!/bin/bash
# nginx 1.22.1 (stream module, Debian 12): for a UDP server whose port is closed clients get empty datagrams, and it is
# not taken out before its sessions end.
#
# Expected: "max_fails=1 fail_timeout=60s" (1 and 10 s by default) takes a server out when a datagram to it comes back as
#   "connection refused": the first client loses a datagram, the others are sent to the servers that live.
# Instead: the client gets an empty UDP datagram, as if the server had sent it. The failure is counted when that session
#   ends, after proxy_timeout (10 minutes by default), so every second new client of two servers meets the dead one
#   until then. A silent server is never taken out. With "proxy_responses 1" a closed port
#   counts at once and a silent server after proxy_timeout; but the first client still gets the empty datagram.
# Why it matters for a balancer: a client may take the empty datagram for an answer. A check of a UDP service through
#   nginx must look into what comes back; comparing reactions to dead UDP servers, set proxy_responses.
#
# Seen, 8 clients, one of two servers dead: closed port: answered, empty, answered, empty ...; with proxy_responses 1:
#   answered, empty, then answered; silent: answered, nothing, answered, nothing ...; with proxy_responses 1: answered,
#   nothing, then answered; 3 s later (proxy_timeout 2s), closed port: answered only
#
# Needs: root, and the Debian packages python3 and iproute2; nginx and its stream module are unpacked into a temporary
# folder where missing.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb nginx libnginx-mod-stream
}

check() {
    nginx -v 2>&1
    local modules=/usr/lib/nginx/modules
    if [ -d "$tmp/root$modules" ]; then modules=$tmp/root$modules; fi
    # Port 5001 answers, 5002 is closed, 5003 is silent.
    {
        cat <<C
load_module $modules/ngx_stream_module.so;
daemon off;
master_process off;
error_log $tmp/nginx.log info;
pid $tmp/nginx.pid;
events {}
stream {
  proxy_timeout 2s;
C
        local number=0 dead responses
        for responses in 0 1; do
            for dead in 5002 5003; do
                number=$((number + 1))
                cat <<C
  upstream u$number {
    server 127.0.0.1:5001;
    server 127.0.0.1:$dead max_fails=1 fail_timeout=60s;
  }
  server {
    listen 127.0.0.1:600$number udp;
    proxy_pass u$number;
    $([ "$responses" = 0 ] || echo 'proxy_responses 1;')
  }
C
            done
        done
        echo '}'
    } >nginx.conf
    nginx -e "$tmp/nginx.log" -c "$tmp/nginx.conf" &
    cat >play.py <<'P'
import socket, threading, time

def server(port, answers):
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", port))
    while True:
        data, client = bound.recvfrom(2000)
        if answers:
            bound.sendto(b"answer to " + data, client)

def client(port, wait):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(wait)
    made.sendto(b"question", ("127.0.0.1", port))
    try:
        return {b"answer to question": "answered", b"": "empty"}[made.recv(2000)]
    except TimeoutError:
        return "nothing"

def clients(what, port, wait=0.5):
    print(f"{what}:", *(client(port, wait) for _ in range(8)))

for port, answers in ((5001, True), (5003, False)):
    threading.Thread(target=server, args=(port, answers), daemon=True).start()
for _ in range(100):
    try:
        if client(6001, 0.5) == "answered":
            break
    except ConnectionRefusedError:
        time.sleep(0.1)
client(6001, 0.5)  # The servers' turn is as at the start.
clients("closed", 6001)
clients("closed, proxy_responses 1", 6003)
clients("silent", 6002)
clients("silent, proxy_responses 1", 6004, 3)
time.sleep(3)
clients("closed, later", 6001)
P
    same 'what clients get' 'closed: answered empty answered empty answered empty answered empty
closed, proxy_responses 1: answered empty answered answered answered answered answered answered
silent: answered nothing answered nothing answered nothing answered nothing
silent, proxy_responses 1: answered nothing answered answered answered answered answered answered
closed, later: answered answered answered answered answered answered answered answered' "$(python3 play.py)"
}

finding isolated
