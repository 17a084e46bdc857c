"""Network namespaces for measurements: a client, a gateway and three servers. Imported by tools/lab-*."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

VIP = "192.0.2.80"
SERVERS = [f"10.77.{n}.2" for n in (1, 2, 3)]
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PREFIX = f"eqr{os.getpid()}-"


def sh(*words, check=True, **options):
    return subprocess.run([str(word) for word in words], check=check, capture_output=True, text=True, **options)


def until(what, done, seconds=10):
    """Returns the time at which `done` was true (of time.monotonic)."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            sys.exit(f"{os.path.basename(sys.argv[0])}: waited {seconds} s for {what}")
        time.sleep(0.01)
    return time.monotonic()


def need(*programs):
    """Ends with a message if one is missing: each is a program, or program:package. SIGTERM ends the program as an error would:
    what it has made is removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [word for word in programs if shutil.which(word.split(":")[0]) is None]
    if missing:
        packages = " ".join(sorted({word.split(":")[-1] for word in missing}))
        sys.exit(f"{os.path.basename(sys.argv[0])}: {missing[0].split(':')[0]} is missing: apt-get install {packages}")


def release():
    """Builds the programs; returns their folder, or the one in EQUIPOISE_BIN, as it is."""
    if "EQUIPOISE_BIN" in os.environ:
        return os.environ["EQUIPOISE_BIN"]
    sh("cargo", "build", "--release", "--locked", cwd=HERE)
    return os.path.join(HERE, "target", "release")


class Space:
    """A network namespace with what runs in it."""

    def __init__(self, name):
        self.name = PREFIX + name
        self.running = []
        sh("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *words, **options):
        return sh("ip", "netns", "exec", self.name, *words, **options)

    def start(self, *words, **options):
        command = ["ip", "netns", "exec", self.name, *[str(word) for word in words]]
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        process = subprocess.Popen(command, **options)
        self.running.append(process)
        return process

    def end(self):
        for process in self.running:
            process.kill()
            process.wait()
        # Children of those: nginx has workers, keepalived a process for VRRP.
        for pid in sh("ip", "netns", "pids", self.name, check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        sh("ip", "netns", "delete", self.name, check=False)


class Lab:
    """Client, gateway and three servers; `serve` starts what runs in a server's namespace."""

    def __init__(self, folder, serve):
        self.folder = folder
        self.spaces = []
        self.client, self.gateway = self.space("client"), self.space("gateway")
        self.servers = [self.space(f"server{n}") for n in (1, 2, 3)]
        self.gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.join(self.client, "client", "10.77.0")
        for n, server in enumerate(self.servers, 1):
            self.join(server, f"server{n}", f"10.77.{n}")
            serve(self, server, n)

    def space(self, name):
        self.spaces.append(Space(name))
        return self.spaces[-1]

    def join(self, space, device, net):
        self.gateway.run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", space.name)
        self.gateway.run("ip", "address", "add", f"{net}.1/24", "dev", device)
        self.gateway.run("ip", "link", "set", device, "up")
        space.run("ip", "address", "add", f"{net}.2/24", "dev", "eth0")
        space.run("ip", "link", "set", "eth0", "up")
        space.run("ip", "route", "add", "default", "via", f"{net}.1")

    def end(self):
        for space in self.spaces:
            space.end()


def serve_web(lab, server, n):
    """nginx, which answers with the server's name, and iperf3."""
    own = os.path.join(lab.folder, f"nginx{n}")
    os.mkdir(own)
    with open(os.path.join(own, "nginx.conf"), "w", encoding="ascii") as file:
        file.write(
            f"daemon off; pid {own}/pid; error_log {own}/error; user root; worker_processes 1;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {own}/b; proxy_temp_path {own}/p;\n"
            f"fastcgi_temp_path {own}/f; uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;\n"
            f'server {{ listen 8080; location / {{ return 200 "server{n}\\n"; }} }} }}\n'
        )
    server.start("nginx", "-c", os.path.join(own, "nginx.conf"), "-p", own)
    server.start("iperf3", "-s", "-p", "5201")


class Capture:
    """Resets that arrive, at the client and at the servers; not those of the hosts `but`."""

    def __init__(self, lab, but=()):
        self.all = []
        for space in [lab.client, *lab.servers]:
            file = os.path.join(lab.folder, f"{space.name}.pcap")
            words = ["tcpdump", "-i", "eth0", "-Q", "in", "-U", "-w", file, "tcp[tcpflags] & tcp-rst != 0" + "".join(f" and not host {host}" for host in but)]
            self.all.append((file, space.start(*words)))
        time.sleep(0.5)

    def end(self):
        counts = []
        for file, process in self.all:
            process.terminate()
            process.wait()
            counts.append(len(sh("tcpdump", "-nr", file).stdout.splitlines()))
        return counts[0], sum(counts[1:])
