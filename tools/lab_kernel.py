"""A gateway of the plain kernel for measurements of two: nftables with destination and full NAT, conntrackd in FTFW mode,
keepalived. Imported by tools/lab-failover."""

import os
import re
import signal

from lab_pair import INSIDE, OUTSIDE, SERVERS, VIP, Keepalived
from lab_rooms import sh, until

# A "well-formed stateful rule set", which conntrackd's manual asks for, admits no connection in the middle; to that belongs
# nf_conntrack_tcp_loose = 0.
RULES = f"""
table ip balance {{
  chain pre {{
    type nat hook prerouting priority dstnat
    ip daddr {VIP} tcp dport 80 dnat to numgen inc mod 3 map {{ SERVERS }}:9000
    ip daddr {VIP} tcp dport 81 dnat to numgen inc mod 3 map {{ SERVERS }}:9000
    ip daddr {VIP} tcp dport 8080 dnat to numgen inc mod 3 map {{ SERVERS }}
    ip daddr {VIP} udp dport 7 dnat to jhash ip saddr mod 3 seed 0x5eed map {{ SERVERS }}
  }}
  chain post {{
    type nat hook postrouting priority srcnat
    meta l4proto tcp ct original ip daddr {VIP} ct original proto-dst 81 snat to 192.0.2.100-192.0.2.101
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop
    ct state invalid drop
    ct state established,related accept
    ct state new ct status dnat tcp flags & (fin|syn|rst|ack) == syn accept
    ct state new ct status dnat meta l4proto udp accept
  }}
}}
"""

# As its example has it, but for shorter rounds: 15 s after it has become a backup, a gateway flushes its old table (default: 60).
DAEMON = """
Sync {{
  Mode FTFW {{
    PurgeTimeout 15
    DisableExternalCache {direct}
  }}
  UDP {{
    IPv4_address 10.255.0.{own}
    IPv4_Destination_Address 10.255.0.{other}
    Port 3780
    Interface sync
    SndSocketBuffer 1249280
    RcvSocketBuffer 1249280
    Checksum on
  }}
}}
General {{
  HashSize 32768
  HashLimit 131072
  LogFile {folder}/conntrackd.log
  LockFile {folder}/conntrackd.lock
  UNIX {{
    Path {folder}/conntrackd.ctl
  }}
  NetlinkBufferSize 2097152
  NetlinkBufferSizeMaxGrowth 8388608
  NetlinkOverrunResync On
  Filter From Kernelspace {{
    Protocol Accept {{
      TCP
      UDP
      ICMP
    }}
    Address Ignore {{
      IPv4_address 127.0.0.1
      IPv4_address {outside}.1
      IPv4_address {outside}.{device}
      IPv4_address {inside}.1
      IPv4_address {inside}.{device}
      IPv4_address 10.255.0.{own}
    }}
  }}
}}
"""

# The commands of primary-backup.sh, which comes with conntrackd; and what the lab wants to know, after that which matters.
SCRIPT = """#!/bin/sh
ask() {{ conntrackd -C {conf} "$@" >>{folder}/script.log 2>&1; }}
case $1 in
primary)
    ask -c
    echo active >{folder}/role
    conntrackd -C {conf} -s >{folder}/stats
    conntrack -C >>{folder}/stats
    ask -f
    ask -R
    ask -B
    ;;
backup)
    echo standby >{folder}/role
    {purge}
    ask -n
    ;;
*)
    echo "$1" >{folder}/role
    {purge}
    ;;
esac
"""

# As `equipoise print keepalived` has it.
ELECTION = """
global_defs {{
    router_id {name}
    enable_script_security
    script_user root
    vrrp_garp_master_repeat 3
    vrrp_garp_master_refresh 1
    vrrp_priority -20
}}
track_file fitness {{
    file "{folder}/track"
    weight 1
}}
vrrp_instance kernel {{
    state BACKUP
    priority 150
    interface out
    virtual_router_id 51
    version 3
    advert_int 0.1
    track_interface {{
        in
    }}
    track_file {{
        fitness
    }}
    virtual_ipaddress {{
        {outside}.1/24 dev out
        {inside}.1/24 dev in
    }}
    notify_master "{folder}/primary-backup.sh primary"
    notify_backup "{folder}/primary-backup.sh backup"
    notify_fault "{folder}/primary-backup.sh fault"
    notify_stop "{folder}/primary-backup.sh fault"
}}
"""


class Kernel(Keepalived):
    """The plain kernel; `direct`: conntrackd keeps the peer's flows in the kernel, not in a cache of its own."""

    product = "conntrackd"

    def __init__(self, lab, n, direct=False):
        super().__init__(lab, n)
        self.direct = direct
        if direct:
            self.product = "conntrackd-direct"
        places = {"folder": self.folder, "outside": OUTSIDE, "inside": INSIDE}
        self.conf = self.write("conntrackd.conf", DAEMON.format(
            own=n + 1, other=2 - n, device=n + 2, direct="On" if direct else "Off", **places))
        # It would flush the peer's flows, too: findings/conntrackd-direct-flush.sh.
        purge = ":" if direct else "ask -t"
        self.write("primary-backup.sh", SCRIPT.format(conf=self.conf, purge=purge, **places), 0o755)
        self.election = self.write("keepalived.conf", ELECTION.format(name=self.name, **places))
        self.write("track", "0\n")
        self.write("role", "standby\n")
        rules = RULES.replace("SERVERS", ", ".join(f"{k} : {address}" for k, address in enumerate(SERVERS)))
        self.space.run("nft", "-f", self.write("rules.nft", rules))
        for key, value in (("nf_conntrack_tcp_loose", 0), ("nf_conntrack_acct", 0)):
            self.space.run("sysctl", "-qw", f"net.netfilter.{key}={value}")
        self.space.run("ip", "route", "add", "blackhole", VIP)
        self.daemon = None

    @staticmethod
    def version():
        """The versions that run."""
        first = lambda *words: (lambda done: (done.stdout + done.stderr).splitlines()[0])(sh(*words, check=False))
        return ", ".join([first("conntrackd", "-v"), first("keepalived", "--version"), first("nft", "--version"), f"Linux {os.uname().release}"])

    def begin(self):
        with self.log() as log:
            self.daemon = self.space.start("conntrackd", "-C", self.conf, stdout=log, stderr=log)
        until(f"conntrackd {self.name}", lambda: self.ask("-s").returncode == 0)

    def elect(self):
        self.run_keepalived(self.election)

    def ask(self, *words):
        return self.space.run("conntrackd", "-C", self.conf, *words, check=False)

    def role(self):
        with open(self.own("role"), encoding="ascii") as file:
            return file.read().strip()

    def is_active(self):
        return self.role() == "active"

    def caches(self):
        """Connections in the internal cache (its own) and in the external one (of the peer)."""
        found = re.findall(r"current active connections:\s*(\d+)", self.ask("-s").stdout)
        return [int(word) for word in found[:2]]

    def in_kernel(self):
        return int(self.space.run("conntrack", "-C").stdout)

    def in_step(self):
        return bool(self.caches())

    def is_back(self):
        """Whether it could take over: it has about as many of the peer's as that has, and no old ones of its own."""
        other = self.lab.pair[1 - self.lab.pair.index(self)]
        if self.direct:
            own, known, old = self.in_kernel(), other.in_kernel(), 0
        else:
            (old, own), (known, _) = self.caches(), other.caches()
        return self.role() == "standby" and abs(own - known) <= 5 + known // 20 and old < 5

    def knew(self):
        """Flows that it had when it last took over."""
        with open(self.own("stats"), encoding="ascii") as file:
            text = file.read()
        found = re.findall(r"^\d+$" if self.direct else r"current active connections:\s*(\d+)", text, re.MULTILINE)
        return int(found[-1]) if found else 0

    def fail(self, how):
        """Does to the active one what `how` says; returns what brings it back."""
        if how == "kill":
            return self.goes_dark()
        if how == "cable":
            self.lab.cable(self.name, False)
            return lambda: self.lab.cable(self.name, True)
        if how == "stop":
            self.keepalived.send_signal(signal.SIGTERM)
            return lambda: (self.keepalived.wait(), self.elect())
        self.write("track", "-50\n")
        return lambda: self.write("track", "0\n")

    def goes_dark(self):
        """The kernel cannot be killed alone: the machine is gone, and starts anew with nothing."""
        self.lab.cable(self.name, False)
        self.space.run("ip", "link", "set", "sync", "down")
        with open(self.own("v.pid"), encoding="ascii") as file:
            os.kill(int(file.read()), signal.SIGKILL)
        for process in (self.keepalived, self.daemon):
            process.kill()
            process.wait()
        return self.boot

    def boot(self):
        for address, device in ((f"{OUTSIDE}.1/24", "out"), (f"{INSIDE}.1/24", "in")):
            self.space.run("ip", "address", "delete", address, "dev", device, check=False)
        self.space.run("conntrack", "-F", check=False)
        for left in ("conntrackd.lock", "conntrackd.ctl", "role"):
            if os.path.exists(self.own(left)):
                os.remove(self.own(left))
        self.write("role", "standby\n")
        self.lab.cable(self.name, True)
        self.space.run("ip", "link", "set", "sync", "up")
        self.begin()
        self.elect()
