//! A packet of a flow: tracked, counted, rewritten. Allocates nothing.

use super::{Engine, Forwarded, Verdict};
use crate::flow::{Class, Found, Segment, Step};
use crate::packet::{Meta, Parsed, Side, Transport, rewrite};
use crate::time::Instant;

impl Engine {
    /// Lets the flow's state follow the packet.
    #[inline]
    pub(super) fn track(&mut self, now: Instant, found: Found, parsed: &Parsed) -> Step {
        match parsed.transport {
            Transport::Tcp { flags, seq, ack, .. } => {
                let segment = Segment { flags, seq, ack, len: parsed.payload_len() as u32 };
                self.table.on_segment(now, found.index, found.side, &segment)
            }
            Transport::Udp { .. } => {
                let class = match found.side {
                    Side::Server => Class::UdpTwoWay,
                    Side::Client => self.table.flow(found.index).class(),
                };
                self.table.touch(now, found.index, class);
                Step::Refresh(class)
            }
            _ => {
                self.table.touch(now, found.index, Class::Icmp);
                Step::Refresh(Class::Icmp)
            }
        }
    }

    /// Counts a packet of a flow and rewrites it for its other side.
    #[inline]
    pub(super) fn forward(
        &mut self,
        packet: &mut [u8],
        parsed: &Parsed,
        meta: Meta,
        found: Found,
        packets: u64,
        opened: bool,
    ) -> Verdict {
        let translation = self.table.translation(found.index, found.side);
        rewrite::translate(packet, parsed, &translation, meta.partial_checksum);
        let (side, bytes) = (found.side as usize, parsed.len as u64);
        let flow = self.table.flow_mut(found.index);
        flow.packets[side] += packets;
        flow.bytes[side] += bytes;
        let server = &mut self.servers[flow.server_id.0 as usize];
        server.packets[side] += packets;
        server.bytes[side] += bytes;
        let why = Forwarded::Translated { flow: self.table.id(found.index), from: found.side, opened };
        Verdict::Forward { len: parsed.len, why }
    }
}
