#!/bin/bash
# The crate pcap-file 2.0.0: times in pcapng are nanoseconds to it, whatever the file says.
#
# Expected: EnhancedPacketBlock::timestamp, a Duration "elapsed since 1970", comes from the block's units and the
#   interface's if_tsresol (microseconds without one), as PcapNgReader knows both. What the writer writes other programs
#   read with the same time. The same crate does so for pcap, in microseconds and nanoseconds.
# Instead: the units are taken for nanoseconds, and written as such, with no if_tsresol added. Files of tcpdump and dumpcap
#   (microseconds) are 1000 times too early, in January 1970; what it writes itself it reads back right, and tshark sees
#   in the year 55840. A round trip through the crate alone shows nothing.
# Why it matters for a balancer: a replay fed by this crate runs a thousand times too fast, at an even pace that
#   looks plausible. Write if_tsresol 9 with it, scale by it when reading; test captures against another reader.
#
# Seen, packets at 1700000000.25 s and a second later, first and difference: microseconds 1700000.00025 and 0.001;
#   if_tsresol 9: 1700000000.25 and 1; 2^-10 s: 1740.800000256 and 0.000001024; pcap 1700000000.25 and 1; what it wrote,
#   in tshark: 1700000000250, and with if_tsresol 9 1700000000.25
#
# Needs: the Debian package python3, Rust (cargo 1.85 or later) and a C compiler's linker; tshark is unpacked into a
# temporary folder where missing; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    deb tshark
    crate 'pcap-file = "=2.0.0"' <<'R'
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::{Block, PcapNgReader, PcapNgWriter};
use pcap_file::DataLink;
use std::fs::File;
use std::time::Duration;

fn show(name: &str, times: &[Duration]) {
    println!("{name}: {:?} {:?}", times[0], times[1] - times[0]);
}

fn read(name: &str) {
    let mut reader = PcapNgReader::new(File::open(name).unwrap()).unwrap();
    let mut times = vec![];
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            times.push(packet.timestamp);
        }
    }
    show(name, &times);
}

fn write(name: &str, options: Vec<InterfaceDescriptionOption<'static>>) {
    let mut writer = PcapNgWriter::new(File::create(name).unwrap()).unwrap();
    let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 65535, options };
    writer.write_pcapng_block(interface).unwrap();
    for seconds in [1_700_000_000, 1_700_000_001] {
        let timestamp = Duration::new(seconds, 250_000_000);
        let (data, options) = (vec![0; 60].into(), vec![]);
        let packet = EnhancedPacketBlock { interface_id: 0, timestamp, original_len: 60, data, options };
        writer.write_pcapng_block(packet).unwrap();
    }
}

fn main() {
    for name in ["micro.pcapng", "nano.pcapng", "binary.pcapng"] {
        read(name);
    }
    let mut reader = PcapReader::new(File::open("micro.pcap").unwrap()).unwrap();
    let mut times = vec![];
    while let Some(packet) = reader.next_packet() {
        times.push(packet.unwrap().timestamp);
    }
    show("micro.pcap", &times);
    write("written.pcapng", vec![]);
    read("written.pcapng");
    write("written-nano.pcapng", vec![InterfaceDescriptionOption::IfTsResol(9)]);
    read("written-nano.pcapng");
}
R
}

check() {
    tshark --version 2>/dev/null | sed -n 1p
    cat >make.py <<'P'
import struct

from pcapng_maker import FRAME, Pcapng

for name, resolution, units in (("micro", None, 10**6), ("nano", 9, 10**9), ("binary", 0x8A, 2**10)):
    capture = Pcapng()
    capture.interface(resolution=resolution)
    for seconds in (1700000000, 1700000001):
        capture.packet(seconds * units + units // 4, FRAME)
    open(f"{name}.pcapng", "wb").write(capture.bytes)
with open("micro.pcap", "wb") as file:
    file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    for seconds in (1700000000, 1700000001):
        file.write(struct.pack("<IIII", seconds, 250000, len(FRAME), len(FRAME)) + FRAME)
P
    python3 make.py
    same 'the first time and the difference' 'micro.pcapng: 1700000.00025s 1ms
nano.pcapng: 1700000000.25s 1s
binary.pcapng: 1740.800000256s 1.024µs
micro.pcap: 1700000000.25s 1s
written.pcapng: 1700000000.25s 1s
written-nano.pcapng: 1700000000.25s 1s' "$(crate_output)"
    times() { tshark -r "$1" -T fields -e frame.time_epoch 2>/dev/null | sed -n 1p; }
    local name
    for name in micro nano binary; do
        same "tshark: $name.pcapng" 1700000000.25 "$(times "$name.pcapng" | sed 's/0*$//')"
    done
    same 'tshark: written.pcapng' 1700000000250. "$(times written.pcapng | sed 's/0*$//')"
    same 'tshark: written-nano.pcapng' 1700000000.25 "$(times written-nano.pcapng | sed 's/0*$//')"
}

finding
