//! A later fragment of a packet of a flow: it has no key of its own and follows the first one.

use super::super::Reason;
use super::super::arrival::{Arrival, dont_fragment};
use super::super::step::{Onward, Scratch, Settled};
use super::onward::stop;
use super::{Going, Look, most_pieces};
use crate::packet::{Meta, build, rewrite};

impl Look<'_> {
    /// Decides how a later fragment of a flow is sent on.
    ///
    /// `id` is the identification that it is sent on with, if that differs from its own.
    pub(in crate::engine) fn later_fragment(
        &self,
        arrival: &Arrival<'_>,
        going: &Going<'_>,
        id: Option<u16>,
        scratch: &mut Scratch,
    ) -> Onward {
        let parsed = &arrival.parsed;
        scratch.emission.clear();
        if going.crosses() {
            return match self.fragment_across((arrival.bytes, parsed), going, id, &mut scratch.emission) {
                Ok(()) => Onward::Emit { ids: 0 },
                Err(reason) => stop(Settled::drop(reason)),
            };
        }
        let (len, mtu) = (parsed.len, self.path_mtu(going));
        if len <= mtu {
            return Onward::Rewrite { mss: None, id };
        }
        if parsed.addresses.is_v6() {
            return stop(self.report_size(arrival, mtu as u32, going, scratch));
        }
        // RFC 791, 3.2. No router reports a later fragment that may not be fragmented (RFC 1122, 3.2.2).
        if dont_fragment(arrival.bytes) {
            return Onward::Rewrite { mss: None, id };
        }
        if self.shard.answers().room_for_packets() < most_pieces(len, mtu) {
            return stop(Settled::drop(Reason::AnswerQueueFull));
        }
        let mut whole = arrival.bytes[..len].to_vec();
        rewrite::later_fragment(&mut whole, parsed, &going.key(going.side.other()).addresses.reversed());
        id.inspect(|id| rewrite::identification(&mut whole, *id));
        build::fragment(&whole, mtu, |piece| scratch.emission.push(piece, Meta::default()));
        Onward::Emit { ids: 0 }
    }
}
