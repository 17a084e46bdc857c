//! A packet of a flow: tracked, counted, rewritten. Allocates nothing.

use super::onward::size;
use super::{Engine, Forwarded, Reason, Verdict};
use crate::flow::{Found, Segment, TimeoutState, Tracked};
use crate::packet::{Meta, Parsed, Side, Transport, family, rewrite};
use crate::time::Instant;

impl Engine {
    /// Lets the flow's state follow the packet.
    #[inline]
    pub(super) fn track(&mut self, now: Instant, found: Found, parsed: &Parsed) -> Tracked {
        match parsed.transport {
            Transport::Tcp { flags, seq, ack, .. } => {
                let segment = Segment { flags, seq, ack, len: parsed.payload_len() as u32 };
                self.table.on_segment(now, found.index, found.side, &segment)
            }
            Transport::Udp { .. } | Transport::Sctp { .. } | Transport::Other => {
                let class = match found.side {
                    Side::Server => TimeoutState::UdpTwoWay,
                    Side::Client => self.table.flow(found.index).state(),
                };
                self.table.touch(now, found.index, class);
                Tracked::Refresh(class)
            }
            _ => {
                self.table.touch(now, found.index, TimeoutState::Icmp);
                Tracked::Refresh(TimeoutState::Icmp)
            }
        }
    }

    /// Sends a packet of a flow on to its other side, if the way out takes it.
    #[inline]
    pub(super) fn forward(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        parsed: &Parsed,
        meta: Meta,
        found: Found,
        (packets, opened): (u64, bool),
    ) -> Verdict {
        if !parsed.whole && self.spoils_its_sum(parsed, found) {
            return Verdict::Drop(Reason::Fragment);
        }
        let mtu = self.way_out(found);
        let crosses = self.table.crosses(found.index);
        let growth = if crosses { family::translated_len(packet, parsed) as isize - parsed.len as isize } else { 0 };
        if size(parsed, meta).saturating_add_signed(growth) > mtu
            && let Some(verdict) = self.too_big(now, packet, parsed, meta, found, (mtu, opened))
        {
            return verdict;
        }
        if let Transport::Tcp { flags, .. } = parsed.transport
            && flags.syn()
        {
            self.clamp_mss(packet, parsed, meta, found);
        }
        if crosses {
            return self.across(now, packet, parsed, meta, found, (packets, opened));
        }
        self.forward_whole(packet, parsed, meta, found, packets, opened)
    }

    /// Whether a first fragment's sum cannot be made right: SCTP's covers the ports by a CRC, and how it changes with them
    /// hangs on the length of the whole packet (RFC 9260, 6.8), which no first fragment tells.
    fn spoils_its_sum(&self, parsed: &Parsed, found: Found) -> bool {
        let Transport::Sctp { src, dst } = parsed.transport else { return false };
        let to = self.table.translation(found.index, found.side);
        (to.src_port, to.dst_port) != (src, dst)
    }

    /// Counts a packet of a flow and rewrites it for its other side.
    #[inline]
    pub(super) fn forward_whole(
        &mut self,
        packet: &mut [u8],
        parsed: &Parsed,
        meta: Meta,
        found: Found,
        packets: u64,
        opened: bool,
    ) -> Verdict {
        let translation = self.table.translation(found.index, found.side);
        let renamed = if parsed.whole { None } else { self.renamed(packet, found) };
        rewrite::translate(packet, parsed, &translation, meta.partial_checksum);
        if let Some(id) = renamed {
            rewrite::identification(packet, id);
        }
        self.count(found, packets, parsed.len as u64);
        let why = Forwarded::Translated { flow: self.table.id(found.index), from: found.side, opened };
        Verdict::Forward { len: parsed.len, why }
    }

    /// Counts packets that a flow's side has sent.
    #[inline]
    pub(super) fn count(&mut self, found: Found, packets: u64, bytes: u64) {
        let side = found.side as usize;
        let flow = self.table.flow_mut(found.index);
        flow.packets[side] += packets;
        flow.bytes[side] += bytes;
        let server = &mut self.servers[flow.server_id.0 as usize];
        server.packets[side] += packets;
        server.bytes[side] += bytes;
    }
}
