"""Connections that last, for measurements of interruptions: servers, clients, and the gaps that they see. Imported by
tools/lab-*; run by them in namespaces: --serve [PORT], --clients IDLE BUSY ADDRESS PORT."""

import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time

PORT = 8080
PIECE = 16384
PAUSE = PIECE / 2e6
# Times between two arrivals that are noted.
NOTED = 0.02


class Arrivals:
    """When bytes of one connection came: the gaps between them."""

    def __init__(self):
        self.last, self.bytes, self.gaps = time.monotonic(), 0, []

    def note(self, count):
        now = time.monotonic()
        if now - self.last > NOTED:
            self.gaps.append((self.last, now))
        self.last, self.bytes = now, self.bytes + count

    def row(self, name, failed):
        open_gap = (self.last, time.monotonic())
        return {"name": name, "bytes": self.bytes, "gaps": self.gaps + [open_gap], "failed": failed}


def send_paced(connection):
    """Sends pieces at a steady rate, whatever was missed."""
    piece = bytes(PIECE)
    while True:
        connection.sendall(piece)
        time.sleep(PAUSE)


def guarded(row, work):
    """Runs `work` in a thread; what ends it is noted."""

    def run():
        try:
            work()
        except OSError as error:
            row["failed"] = str(error)

    threading.Thread(target=run, daemon=True).start()


def receive(connection, arrivals):
    while True:
        count = len(connection.recv(65536))
        if count == 0:
            raise OSError("the other end has closed")
        arrivals.note(count)


def open_many():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def report_on_signals(rows):
    """Prints one line of JSON for each SIGUSR1."""

    def report(*_):
        print(json.dumps(rows()), flush=True)

    signal.signal(signal.SIGUSR1, report)


def serve_connections(port=PORT):
    """A server: the first byte of a connection says what it does; u: takes an upload, d: sends, e: echoes."""
    open_many()
    listener = socket.create_server(("", port), backlog=4096)
    uploads, idle = {}, selectors.DefaultSelector()
    report_on_signals(lambda: [arrivals.row(name, state.get("failed")) for name, (arrivals, state) in list(uploads.items())])

    def admit(connection, peer):
        kind = connection.recv(1)
        if kind == b"u":
            arrivals, state = Arrivals(), {}
            uploads[f"{peer[0]}:{peer[1]}"] = (arrivals, state)
            guarded(state, lambda: receive(connection, arrivals))
        elif kind == b"d":
            guarded({}, lambda: send_paced(connection))
        else:
            idle.register(connection, selectors.EVENT_READ)

    def echo():
        while True:
            for key, _ in idle.select(0.2):
                try:
                    data = key.fileobj.recv(4096)
                    if data:
                        key.fileobj.sendall(data)
                        continue
                except OSError:
                    pass
                idle.unregister(key.fileobj)
                key.fileobj.close()

    threading.Thread(target=echo, daemon=True).start()
    print("ready", flush=True)
    while True:
        connection, peer = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        admit(connection, peer)


def be_clients(idle, busy, address, port):
    """All clients: opens connections, and reports on SIGUSR1: downloads, uploads, and how many idle connections answer."""
    open_many()

    def connect(kind):
        connection = socket.create_connection((address, port), timeout=10)
        connection.settimeout(None)
        connection.sendall(kind)
        return connection

    downloads, uploads = [], []
    idlers = [connect(b"e") for _ in range(idle)]
    for _ in range(busy):
        connection, arrivals, state = connect(b"d"), Arrivals(), {}
        downloads.append((f"{connection.getsockname()[1]}", arrivals, state))
        guarded(state, lambda c=connection, a=arrivals: receive(c, a))
        connection, state = connect(b"u"), {}
        own = connection.getsockname()
        uploads.append((f"{own[0]}:{own[1]}", state))
        guarded(state, lambda c=connection: send_paced(c))

    def answers():
        """Asks all of them before it waits for any; all together have 20 s."""
        alive, end = 0, time.monotonic() + 20
        for connection in idlers:
            try:
                connection.sendall(b"x")
            except OSError:
                pass
        for connection in idlers:
            try:
                connection.settimeout(max(0.01, end - time.monotonic()))
                alive += connection.recv(1) == b"x"
            except OSError:
                pass
        return alive

    report_on_signals(lambda: {
        "idle": answers(),
        "downloads": [arrivals.row(name, state.get("failed")) for name, arrivals, state in downloads],
        "uploads": [{"name": name, "failed": state.get("failed")} for name, state in uploads],
    })
    print("ready", flush=True)
    while True:
        signal.pause()


def line(process):
    return json.loads(process.stdout.readline())


def in_netns(space, *words):
    process = space.start(sys.executable, os.path.abspath(__file__), *words, stdout=subprocess.PIPE, text=True)
    if process.stdout.readline() != "ready\n":
        sys.exit(f"{os.path.basename(sys.argv[0])}: {' '.join(map(str, words))} ended early in {space.name}")
    return process


def longest(rows, begin, end):
    """The longest gap of each connection that overlaps a time, in milliseconds."""
    found = []
    for row in rows:
        gaps = [to - since for since, to in row["gaps"] if to > begin and since < end]
        found.append(1000 * max(gaps, default=0.0))
    return sorted(found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve_connections(*map(int, sys.argv[2:]))
    be_clients(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
