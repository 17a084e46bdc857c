"""Network namespaces for measurements of two gateways: clients, two gateways with keepalived, three servers. Imported by
tools/lab-failover, tools/lab-rejoin and tools/lab-split."""

import json
import os
import signal
import sys

from lab_rooms import Space, release, sh, until

OUTSIDE, INSIDE = "10.78.0", "10.78.1"
VIP = "192.0.2.80"
SERVERS = [f"{INSIDE}.{n}" for n in (11, 12, 13)]
GATEWAYS = ("a", "b")
PROBES = ("192.0.2.1", "192.0.2.2")


class PairLab:
    """A switch with two networks; each port is `NAME-out` or `NAME-in` there, and `out`, `in` or `eth0` at the other end."""

    def __init__(self, folder):
        self.folder, self.spaces = folder, []
        self.switch = self.space("switch")
        for bridge in ("outside", "inside"):
            self.switch.run("ip", "link", "add", bridge, "type", "bridge")
            self.switch.run("ip", "link", "set", bridge, "up")
        self.client = self.space("client")
        self.plug(self.client, "client", "eth0", "outside", f"{OUTSIDE}.10/24")
        self.client.run("ip", "route", "add", "default", "via", f"{OUTSIDE}.1")
        self.servers = []
        for n, address in enumerate(SERVERS, 1):
            server = self.space(f"server{n}")
            self.plug(server, f"server{n}", "eth0", "inside", f"{address}/24")
            server.run("ip", "route", "add", "default", "via", f"{INSIDE}.1")
            self.servers.append(server)
        self.gateways = [self.space(name) for name in GATEWAYS]
        for n, (name, gateway) in enumerate(zip(GATEWAYS, self.gateways), 2):
            self.plug(gateway, f"{name}-out", "out", "outside", f"{OUTSIDE}.{n}/24")
            self.plug(gateway, f"{name}-in", "in", "inside", f"{INSIDE}.{n}/24")
            gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        one, other = self.gateways
        # Servers answer the probes of both by way of the active one.
        one.run("ip", "route", "add", PROBES[1], "via", f"{INSIDE}.3")
        other.run("ip", "route", "add", PROBES[0], "via", f"{INSIDE}.2")
        one.run("ip", "link", "add", "sync", "type", "veth", "peer", "name", "sync", "netns", other.name)
        for n, gateway in enumerate(self.gateways, 1):
            gateway.run("ip", "address", "add", f"10.255.0.{n}/24", "dev", "sync")
            gateway.run("ip", "link", "set", "sync", "up")

    def space(self, name):
        self.spaces.append(Space(name))
        return self.spaces[-1]

    def plug(self, space, port, device, bridge, address):
        self.switch.run("ip", "link", "add", port, "type", "veth", "peer", "name", device, "netns", space.name)
        self.switch.run("ip", "link", "set", port, "master", bridge, "up")
        space.run("ip", "address", "add", address, "dev", device)
        space.run("ip", "link", "set", device, "up")

    def cable(self, name, is_up):
        """Pulls both cables of a gateway at the switch, or plugs them in again."""
        for side in ("out", "in"):
            self.switch.run("ip", "link", "set", f"{name}-{side}", "up" if is_up else "down")

    def end(self):
        for space in self.spaces:
            space.end()


def services():
    """One service with destination NAT, one with full NAT, one for HTTP, one by UDP with sticky clients."""
    listed = ",".join(f"{{name='s{k}', address='{address}'}}" for k, address in enumerate(SERVERS, 1))
    return (
        "[[nat-pool]]\nname = 'out'\naddresses = ['192.0.2.100', '192.0.2.101']\n"
        f"[[service]]\nname = 'web'\nlisten = '{VIP}:80/tcp'\npool = 'tcp'\n"
        f"[[service]]\nname = 'full'\nlisten = '{VIP}:81/tcp'\npool = 'tcp'\nnat = 'full'\nnat-pool = 'out'\n"
        f"[[service]]\nname = 'nginx'\nlisten = '{VIP}:8080/tcp'\npool = 'nginx'\n"
        f"[[service]]\nname = 'echo'\nlisten = '{VIP}:7/udp'\npool = 'udp'\nsticky = {{ idle = '5m' }}\n"
        f"[[pool]]\nname = 'tcp'\nserver = [{listed.replace(chr(125), ', port=9000}')}]\n"
        "monitor = [{name = 'tcp', type = 'tcp', interval = '1s', timeout = '500ms'}]\n"
        f"[[pool]]\nname = 'nginx'\nserver = [{listed.replace(chr(125), ', port=8080}')}]\n"
        f"[[pool]]\nname = 'udp'\nserver = [{listed.replace(chr(125), ', port=7}')}]\n"
    )


class Keepalived:
    """A gateway that keepalived elects."""

    def __init__(self, lab, n):
        self.lab, self.name, self.space = lab, GATEWAYS[n], lab.gateways[n]
        self.folder = os.path.join(lab.folder, self.name)
        os.mkdir(self.folder)
        self.keepalived, self.logs = None, 0

    def own(self, what):
        return os.path.join(self.folder, what)

    def write(self, what, text, mode=0o644):
        with open(self.own(what), "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(self.own(what), mode)
        return self.own(what)

    def log(self):
        self.logs += 1
        return open(self.own(f"log{self.logs}"), "w", encoding="ascii")

    def run_keepalived(self, conf):
        words = ["keepalived", "-n", "-l", "-D", "-P", "-f", conf, "-p", self.own("k.pid"), "-r", self.own("v.pid")]
        with open(self.own("keepalived.log"), "a", encoding="ascii") as log:
            self.keepalived = self.space.start(*words, stdout=log, stderr=log)


class Equipoise(Keepalived):
    """A gateway of the pair with its keepalived."""

    product = "equipoise"

    def __init__(self, lab, n, gateway="", more=None, learning="10s"):
        """`gateway`: more lines of `[gateway]`; `more`: what follows `[sync]`."""
        super().__init__(lab, n)
        self.bin = release()
        self.write("key", "a key of sixteen bytes and more\n", 0o600)
        self.file = self.write(
            "equipoise.toml",
            f"[gateway]\ncontrol-socket = '{self.folder}/control.sock'\nprobe-address = '{PROBES[n]}'\n{gateway}\n"
            f"[sync]\nnode = '{self.name}'\npeer = '{GATEWAYS[1 - n]}'\n"
            f"address = '10.255.0.{n + 1}:7400'\npeer-address = '10.255.0.{2 - n}:7400'\n"
            f"key-file = '{self.folder}/key'\ninsecure = true\nlearning = '{learning}'\ntrack-file = '{self.folder}/track'\n"
            + (services() if more is None else more),
        )
        # Words before the command.
        self.process, self.prefix = None, []

    def begin(self, seconds=10):
        with self.log() as log:
            self.process = self.space.start(*self.prefix, f"{self.bin}/equipoise", "run", "--config", self.file, stderr=log)
        until(f"gateway {self.name}", lambda: self.eqctl("status").returncode == 0, seconds)

    def elect(self):
        """Starts keepalived with the configuration that Equipoise prints."""
        printed = sh(
            f"{self.bin}/equipoise", "print", "keepalived", "--config", self.file,
            "--address", f"{OUTSIDE}.1/24@out", "--address", f"{INSIDE}.1/24@in",
        ).stdout.replace("/usr/bin/eqctl", f"{self.bin}/eqctl")
        self.run_keepalived(self.write("keepalived.conf", printed))

    def eqctl(self, *words):
        return sh(f"{self.bin}/eqctl", "--socket", f"{self.folder}/control.sock", *words, check=False)

    def change(self, *words):
        answer = self.eqctl(*words)
        if answer.returncode != 0:
            sys.exit(f"{os.path.basename(sys.argv[0])}: eqctl {' '.join(words)}: {answer.stderr}")

    def sync(self):
        answer = self.eqctl("sync", "--json")
        return json.loads(answer.stdout) if answer.stdout else None

    def role(self):
        row = self.sync()
        return row and row["role"]

    def is_active(self):
        return self.role() == "active"

    def in_step(self):
        row = self.sync()
        return bool(row and row["link"] and row["link"]["in_step"])

    def is_back(self):
        """Whether it could take over from the other one with every flow."""
        row = self.sync()
        link = row and row["link"]
        return bool(link and row["role"] in ("standby", "ready") and link["in_step"] and link["agreed"])

    def knew(self):
        """Flows that it had when it last took over."""
        takeover = self.sync()["takeover"]
        return takeover["flows"] if takeover else 0

    def whole(self):
        """Flows that are not half-open, which the other one does not know, and the digest of them."""
        engine = json.loads(self.eqctl("counters", "--json").stdout)["engine"]
        return engine["flows"] - engine["half_open"], self.sync()["digest"]

    def fail(self, how):
        """Does to the active one what `how` says; returns what brings it back."""
        if how == "kill":
            self.kill()
            return self.begin
        if how == "stop":
            self.stop()
            return self.begin
        if how == "cable":
            self.lab.cable(self.name, False)
            return lambda: self.lab.cable(self.name, True)
        self.change("role", "yield")
        return lambda: None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
