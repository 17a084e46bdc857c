#!/bin/bash
# Linux 6.18 TCX with iproute2 6.1 (Debian 12): TC_ACT_OK from a TCX program switches the tc filters behind it off.
#
# Expected: a program attached by TCX that only looks or marks returns TC_ACT_OK, "let it pass", and the clsact filters
#   of others on the same device still see the packet; "tc filter show" lists all that is attached there.
# Instead: TCX programs run before clsact, and TC_ACT_OK ends the walk as a drop or a redirect does: a clsact filter
#   that drops everything is not even asked. Only TCX_NEXT (-1, the number of TC_ACT_UNSPEC) asks it. And tc lists no TCX program: its
#   output is the same with and without one.
# Why it matters for a balancer: a program that marks flows at ingress and returns TC_ACT_OK silently disables the
#   operator's own tc filters and policers; it has to return TCX_NEXT for what it does not redirect.
#   Somebody who looks for it with tc finds nothing.
#
# Seen: clsact drops all; with a TCX program that returns TC_ACT_OK: received; with one that returns TCX_NEXT: dropped
#
# Needs: root, Linux 6.6 or later with BPF, on x86-64, and the Debian packages python3 and iproute2.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb iproute2
    [ "$(uname -m)" = x86_64 ] || fail 'the number of the bpf system call is that of x86-64'
}

check() {
    tc -V
    uname -r
    ip link add v0 type veth peer name v1
    ip link set v0 up
    ip link set v1 up
    ip addr add 10.9.0.1/24 dev v0
    tc qdisc add dev v0 clsact
    # A classic BPF program that returns TC_ACT_SHOT for every packet.
    tc filter add dev v0 ingress protocol ip prio 1 bpf bytecode '1,6 0 0 2,' direct-action
    cat >tcx.py <<'P'
import ctypes, fcntl, os, socket, struct, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)

def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), 144))
    fd = libc.syscall(321, command, buffer, len(buffer.raw))
    if fd < 0:
        sys.exit(f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return fd

def attach(verdict):
    """Attaches `r0 = verdict; exit` to the ingress of v0 by TCX, as a link that ends with its descriptor."""
    code = ctypes.create_string_buffer(struct.pack("<BBhi", 0xB7, 0, 0, verdict) + struct.pack("<BBhi", 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    BPF_PROG_LOAD, BPF_LINK_CREATE, SCHED_CLS, TCX_INGRESS = 5, 28, 3, 46
    program = bpf(BPF_PROG_LOAD, struct.pack("<IIQQIIQII16sII", SCHED_CLS, 2, ctypes.addressof(code),
                                             ctypes.addressof(licence), 0, 0, 0, 0, 0, b"verdict", 0, TCX_INGRESS))
    return bpf(BPF_LINK_CREATE, struct.pack("<IIIIIIQ", program, socket.if_nametoindex("v0"), TCX_INGRESS, 0, 0, 0, 0))

wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("v1", 0))
mac = fcntl.ioctl(wire, 0x8927, struct.pack("256s", b"v0"))[18:24]
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("10.9.0.1", 99))
receiver.settimeout(0.5)

def fate():
    header = bytes.fromhex("4500001d000000004011 0000 0a090002 0a090001")
    total = sum(struct.unpack(">10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack(">H", checksum) + header[12:]
    wire.send(mac + bytes.fromhex("020000000099 0800") + header + struct.pack(">HHHH", 1, 99, 9, 0) + b"x")
    try:
        receiver.recv(16)
        return "received"
    except TimeoutError:
        return "dropped"

def listed():
    return subprocess.run(["tc", "filter", "show", "dev", "v0", "ingress"], capture_output=True, check=True).stdout

alone = listed()
print("clsact alone:", fate())
for name, verdict in [("TC_ACT_OK", 0), ("TCX_NEXT", -1)]:
    link = attach(verdict)
    print(f"behind {name}: {fate()}, tc lists", "the same" if listed() == alone else "something else")
    os.close(link)
print("clsact alone again:", fate())
P
    same 'a packet that clsact would drop' 'clsact alone: dropped
behind TC_ACT_OK: received, tc lists the same
behind TCX_NEXT: dropped, tc lists the same
clsact alone again: dropped' "$(python3 tcx.py)"
}

finding isolated
