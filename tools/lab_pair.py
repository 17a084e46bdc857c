"""Network namespaces for measurements of two gateways: clients, two gateways with keepalived, three servers. Imported by
tools/lab-failover."""

import json
import os
import signal

from lab_rooms import HERE, Space, release, sh, until

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


def configuration(folder, n, name, peer):
    """The file of a gateway: one service with destination NAT, one with full NAT, one by UDP with sticky clients."""
    listed = ",".join(f"{{name='s{k}', address='{address}'}}" for k, address in enumerate(SERVERS, 1))
    return (
        f"[gateway]\ncontrol-socket = '{folder}/control.sock'\nprobe-address = '{PROBES[n - 1]}'\n"
        f"[sync]\nnode = '{name}'\npeer = '{peer}'\naddress = '10.255.0.{n}:7400'\npeer-address = '10.255.0.{3 - n}:7400'\n"
        f"key-file = '{folder}/key'\ninsecure = true\nlearning = '10s'\ntrack-file = '{folder}/track'\n"
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


class Equipoise:
    """A gateway of the pair with its keepalived."""

    def __init__(self, lab, n):
        self.lab, self.name, self.space = lab, GATEWAYS[n], lab.gateways[n]
        self.bin = release()
        self.folder = os.path.join(lab.folder, self.name)
        os.mkdir(self.folder)
        self.file = os.path.join(self.folder, "equipoise.toml")
        with open(self.file, "w", encoding="ascii") as file:
            file.write(configuration(self.folder, n + 1, self.name, GATEWAYS[1 - n]))
        key = os.path.join(self.folder, "key")
        with open(key, "w", encoding="ascii") as file:
            file.write("a key of sixteen bytes and more\n")
        os.chmod(key, 0o600)
        self.process, self.logs = None, 0

    def begin(self):
        self.logs += 1
        with open(os.path.join(self.folder, f"log{self.logs}"), "w", encoding="ascii") as log:
            self.process = self.space.start(f"{self.bin}/equipoise", "run", "--config", self.file, stderr=log)
        until(f"gateway {self.name}", lambda: self.eqctl("status").returncode == 0)

    def elect(self):
        """Starts keepalived with the configuration that Equipoise prints."""
        printed = sh(
            f"{self.bin}/equipoise", "print", "keepalived", "--config", self.file,
            "--address", f"{OUTSIDE}.1/24@out", "--address", f"{INSIDE}.1/24@in",
        ).stdout.replace("/usr/bin/eqctl", f"{self.bin}/eqctl")
        conf = os.path.join(self.folder, "keepalived.conf")
        with open(conf, "w", encoding="ascii") as file:
            file.write(printed)
        own = lambda what: os.path.join(self.folder, what)
        with open(own("keepalived.log"), "w", encoding="ascii") as log:
            self.keepalived = self.space.start(
                "keepalived", "-n", "-l", "-D", "-P", "-f", conf, "-p", own("k.pid"), "-r", own("v.pid"), stdout=log, stderr=log
            )

    def eqctl(self, *words):
        return sh(f"{self.bin}/eqctl", "--socket", f"{self.folder}/control.sock", *words, check=False)

    def sync(self):
        answer = self.eqctl("sync", "--json")
        return json.loads(answer.stdout) if answer.stdout else None

    def role(self):
        row = self.sync()
        return row and row["role"]

    def in_step(self):
        row = self.sync()
        return bool(row and row["link"] and row["link"]["in_step"])

    def totals(self):
        return json.loads(self.eqctl("counters", "--json").stdout)["engine"]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
