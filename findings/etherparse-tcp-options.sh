#!/bin/bash
# The crate etherparse 0.21.0: TCP options behind one that it does not know are lost.
#
# Expected: a TCP must ignore options that it does not implement (RFC 9293, 3.1, MUST-6), for which all but two have a
#   length. So an iterator over the options gives an error or the raw bytes for an unknown one, and goes on.
# Instead: it ends there: `rest()` is empty, and options behind a TCP Fast Open cookie (34), an MD5 signature (19) or
#   MPTCP (30) are never seen. Many senders put these last, which hides it. smoltcp 0.14.0 skips what it does not know.
# Why it matters for a balancer: MPTCP and Fast Open come from real phones. Reading "the MSS, if any" or "the timestamps, if
#   any" this way takes a SYN with an unusual order for one without. As an oracle the crate must be compared up to the
#   first error only, or not by options at all.
#
# Seen: Fast Open first, then MSS 1460, window scale 7: one error (34), nothing else, rest 0; MPTCP in the middle: MSS,
#   error (30); smoltcp: MSS 1460 and window scale 7 in both
#
# Needs: Rust (cargo 1.85 or later) and a C compiler's linker; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    local features='features = ["std", "medium-ip", "proto-ipv4", "socket-tcp"]'
    crate 'etherparse = "=0.21.0"' "smoltcp = { version = \"=0.14.0\", default-features = false, $features }" <<'R'
use etherparse::{TcpHeader, TcpHeaderSlice};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, TcpPacket, TcpRepr};

const MSS: &[u8] = &[2, 4, 0x05, 0xB4];
const WINDOW_SCALE: &[u8] = &[3, 3, 7];
const NOOP: &[u8] = &[1];
/// Asks for a cookie (RFC 7413, 4.1.1).
const FAST_OPEN: &[u8] = &[34, 2];
/// MP_CAPABLE of version 1 in a SYN (RFC 8684, 3.1).
const MPTCP: &[u8] = &[30, 4, 0x01, 0x01];

fn main() {
    for (what, options) in [
        ("known only", [MSS, NOOP, WINDOW_SCALE].concat()),
        ("Fast Open first", [FAST_OPEN, MSS, WINDOW_SCALE, NOOP, NOOP, NOOP].concat()),
        ("MPTCP in the middle", [MSS, MPTCP, NOOP, WINDOW_SCALE].concat()),
    ] {
        let mut header = TcpHeader::new(1000, 80, 1, 65535);
        header.syn = true;
        header.set_options_raw(&options).unwrap();
        header.checksum = header.calc_checksum_ipv4_raw([10, 0, 0, 1], [10, 0, 0, 2], &[]).unwrap();
        let bytes = header.to_bytes();
        let slice = TcpHeaderSlice::from_slice(&bytes).unwrap();
        let mut iterator = slice.options_iterator();
        let elements: Vec<_> = iterator.by_ref().map(|element| format!("{element:?}")).collect();
        println!("{what}: {}, rest {}", elements.join(" "), iterator.rest().len());
        let [from, to] = [IpAddress::v4(10, 0, 0, 1), IpAddress::v4(10, 0, 0, 2)];
        let packet = TcpPacket::new_checked(&bytes[..]).unwrap();
        let read = TcpRepr::parse(&packet, &from, &to, &ChecksumCapabilities::default()).unwrap();
        println!("smoltcp: {:?} {:?}", read.max_seg_size, read.window_scale);
    }
}
R
}

check() {
    same 'TCP options' 'known only: Ok(MaximumSegmentSize(1460)) Ok(Noop) Ok(WindowScale(7)), rest 0
smoltcp: Some(1460) Some(7)
Fast Open first: Err(UnknownId(34)), rest 0
smoltcp: Some(1460) Some(7)
MPTCP in the middle: Ok(MaximumSegmentSize(1460)) Err(UnknownId(30)), rest 0
smoltcp: Some(1460) Some(7)' "$(crate_output)"
}

finding
