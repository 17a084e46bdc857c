//! Which header fields differ between a packet and what it becomes.

use super::FieldLine;
use crate::packet::{Parsed, Transport, long, parse, parse_first, proto, rewrite, word};

/// Returns the fields that differ, in the order of the packet; of packets of one family.
pub(super) fn changed(before: &[u8], after: &[u8]) -> Vec<FieldLine> {
    let mut lines = Vec::new();
    let (Some(old), Some(new)) = (read(before), read(after)) else { return lines };
    let mut line = |field: &str, from: String, to: String| {
        if from != to {
            lines.push(FieldLine { field: field.into(), from, to });
        }
    };
    let hex = |value: u16| format!("0x{value:04x}");
    if !old.addresses.is_v6() {
        line("IPv4 identification", word(before, 4).to_string(), word(after, 4).to_string());
        line("IPv4 header checksum", hex(word(before, 10)), hex(word(after, 10)));
    }
    line("source address", old.addresses.src().to_string(), new.addresses.src().to_string());
    line("destination address", old.addresses.dst().to_string(), new.addresses.dst().to_string());
    match (ports(&old.transport), ports(&new.transport)) {
        (Some((src, dst)), Some((new_src, new_dst))) => {
            line("source port", src.to_string(), new_src.to_string());
            line("destination port", dst.to_string(), new_dst.to_string());
        }
        _ => {
            if let (Transport::Echo { id, .. }, Transport::Echo { id: new_id, .. }) = (old.transport, new.transport) {
                line("echo identifier", id.to_string(), new_id.to_string());
            }
        }
    }
    let at = old.offset;
    let sum =
        |packet: &[u8], behind: usize| packet.get(at + behind..at + behind + 2).map(|_| hex(word(packet, at + behind)));
    let (name, from, to) = match old.protocol {
        proto::TCP => ("TCP checksum", sum(before, 16), sum(after, 16)),
        proto::UDP => ("UDP checksum", sum(before, 6), sum(after, 6)),
        proto::ICMP | proto::ICMPV6 => ("ICMP checksum", sum(before, 2), sum(after, 2)),
        proto::SCTP => {
            let crc = |packet: &[u8]| packet.get(at + 8..at + 12).map(|_| format!("0x{:08x}", long(packet, at + 8)));
            ("SCTP checksum", crc(before), crc(after))
        }
        _ => ("checksum", None, None),
    };
    line(name, from.unwrap_or_default(), to.unwrap_or_default());
    let mss =
        |packet: &[u8], parsed: &Parsed| rewrite::mss(packet, parsed).map(|mss| mss.to_string()).unwrap_or_default();
    line("maximum segment size", mss(before, &old), mss(after, &new));
    if matches!(old.transport, Transport::Icmp { .. }) && before[at + 8..old.len] != after[at + 8..new.len] {
        line("quoted packet", "as the receiver of the error sees it".into(), "as its sender sent it".into());
    }
    lines
}

fn read(packet: &[u8]) -> Option<Parsed> {
    let parsed = parse(packet).ok()?;
    match parsed.transport {
        Transport::Fragment { offset: 0, .. } => parse_first(packet, &parsed).ok(),
        _ => Some(parsed),
    }
}

fn ports(transport: &Transport) -> Option<(u16, u16)> {
    match *transport {
        Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst } | Transport::Sctp { src, dst } => {
            Some((src, dst))
        }
        _ => None,
    }
}
