"""Loads for measurements, run in namespaces: --ping ADDRESS PORT, --echo PORT, --churn RATE ADDRESS PORT FROM... Imported by
tools/lab-rejoin and tools/lab-split."""

import errno
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time


def at_once():
    """Runs before others that want the processor: what is measured is not this process."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))


def reports(work):
    """Prints one line of JSON for each SIGUSR1."""
    signal.signal(signal.SIGUSR1, lambda *_: print(json.dumps(work()), flush=True))
    print("ready", flush=True)


def echo(port):
    at_once()
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(("", port))
    print("ready", flush=True)
    while True:
        data, peer = own.recvfrom(2048)
        own.sendto(data, peer)


def ping(address, port):
    """Sends a datagram each millisecond. On SIGUSR1: times until the answers since the last report, and how many are missing."""
    at_once()
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.connect((address, port))
    state = {"times": [], "sent": 0}

    def report():
        times, sent = sorted(state["times"]), state["sent"]
        state["times"], state["sent"] = [], 0
        at = lambda part: round(1000 * times[min(len(times) - 1, int(part * len(times)))], 3) if times else None
        return {
            "sent": sent, "answers": len(times), "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999),
            "longest_ms": at(1.0), "over_1ms": sum(one > 0.001 for one in times),
        }

    reports(report)
    due = time.monotonic()
    while True:
        due += 0.001
        try:
            own.send(repr(time.monotonic()).encode())
            state["sent"] += 1
        except OSError:
            pass
        while (left := due - time.monotonic()) > 0:
            own.settimeout(left)
            try:
                data = own.recv(2048)
                state["times"].append(time.monotonic() - float(data))
            except OSError:
                pass
        # Whoever was not allowed to run does not send everything at once.
        due = max(due, time.monotonic() - 0.01)


class Churn:
    """Opens connections at a steady rate, asks once by HTTP and waits for the end; in turns from several addresses."""

    def __init__(self, rate, target, sources):
        self.rate, self.target, self.sources = rate, target, sources
        self.waiting, self.open = selectors.DefaultSelector(), {}
        self.opened, self.done, self.failed, self.servers = 0, 0, 0, {}

    def begin(self):
        source = self.sources[self.opened % len(self.sources)]
        self.opened += 1
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setblocking(False)
        # The port is chosen when it connects.
        one.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        try:
            if source:
                one.bind((source, 0))
            code = one.connect_ex(self.target)
        except OSError as error:
            code = error.errno
        if code not in (0, errno.EINPROGRESS):
            self.failed += 1
            one.close()
            return
        self.open[one] = (time.monotonic(), source)
        self.waiting.register(one, selectors.EVENT_WRITE)

    def end(self, one, has_failed):
        self.waiting.unregister(one)
        del self.open[one]
        one.close()
        self.failed += has_failed
        self.done += not has_failed

    def go_on(self, one, events):
        try:
            if events & selectors.EVENT_WRITE:
                one.send(b"GET / HTTP/1.0\r\n\r\n")
                self.waiting.modify(one, selectors.EVENT_READ)
                return
            data = one.recv(4096)
        except OSError:
            self.end(one, True)
            return
        if data:
            source, name = self.open[one][1], data.rsplit(b"\n", 2)[-2].decode()
            self.servers.setdefault(source, {}).setdefault(name, 0)
            self.servers[source][name] += 1
            return
        self.end(one, False)

    def give_up(self):
        old = time.monotonic() - 20
        for one in [one for one, (begun, _) in self.open.items() if begun < old]:
            self.end(one, True)

    def report(self):
        row = {"opened": self.opened, "done": self.done, "failed": self.failed, "open": len(self.open), "servers": self.servers}
        self.opened = self.done = self.failed = 0
        self.servers = {}
        return row

    def run(self):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        reports(self.report)
        due, checked = time.monotonic(), 0.0
        while True:
            now = time.monotonic()
            if now - checked > 1:
                checked = now
                self.give_up()
            # What could not be opened in time is not made up for: a paused process does not burst.
            due = max(due, now - 0.02)
            while due <= now:
                due += 1 / self.rate
                if len(self.open) < 4096:
                    self.begin()
            for key, events in self.waiting.select(max(0.0, due - time.monotonic())):
                self.go_on(key.fileobj, events)


def start(space, *words):
    """Starts one of these in a namespace."""
    process = space.start(sys.executable, os.path.abspath(__file__), *words, stdout=subprocess.PIPE, text=True)
    if process.stdout.readline() != "ready\n":
        sys.exit(f"{os.path.basename(sys.argv[0])}: {' '.join(map(str, words))} ended early in {space.name}")
    return process


def ask(process):
    process.send_signal(signal.SIGUSR1)
    return json.loads(process.stdout.readline())


if __name__ == "__main__":
    kind, *words = sys.argv[1:]
    if kind == "--echo":
        echo(int(words[0]))
    if kind == "--ping":
        ping(words[0], int(words[1]))
    Churn(float(words[0]), (words[1], int(words[2])), words[3:] or [None]).run()
