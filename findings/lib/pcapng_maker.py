"""Writes the blocks of a pcapng capture, for the findings."""

import struct


class Pcapng:
    def __init__(self, order="<"):
        self.order, self.bytes = order, b""
        self.block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))

    def block(self, kind, body):
        length = len(body) + 12
        self.bytes += struct.pack(self.order + "II", kind, length) + body + struct.pack(self.order + "I", length)

    def option(self, code, value):
        return struct.pack(self.order + "HH", code, len(value)) + value + bytes(-len(value) % 4)

    def interface(self, link=1, snaplen=262144, resolution=None, offset=None):
        """resolution is if_tsresol's byte, offset is if_tsoffset in seconds."""
        options = b""
        if resolution is not None:
            options += self.option(9, bytes([resolution]))
        if offset is not None:
            options += self.option(14, struct.pack(self.order + "q", offset))
        if options:
            options += bytes(4)
        self.block(1, struct.pack(self.order + "HHI", link, 0, snaplen) + options)

    def packet(self, ticks, data, interface=0):
        head = struct.pack(self.order + "IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        self.block(6, head + data + bytes(-len(data) % 4))

    def simple_packet(self, data):
        self.block(3, struct.pack(self.order + "I", len(data)) + data + bytes(-len(data) % 4))


# Ethernet, IPv4, UDP from 10.0.0.1:1000 to 10.0.0.2:2000, "hello!"; its checksums are right.
FRAME = bytes.fromhex(
    "020000000002 020000000001 0800"
    "45000022000000004011 66c9 0a000001 0a000002"
    "03e8 07d0 000e 9c24 68656c6c6f21"
)
