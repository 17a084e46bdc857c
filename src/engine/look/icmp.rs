//! ICMP errors: whose packet they quote, whether they are plausible, and who must be notified.
//!
//! They are signs of trouble for the balancer, but never refresh or end a flow (RFC 5508 REQ-6; RFC 5382 REQ-10).

use super::super::Reason;
use super::super::arrival::{Arrival, quoted_key};
use super::super::step::{ErrorOnward, FlowError, Scratch, Settled, Sign, Step};
use super::answer::sum_is_right;
use super::{Going, Look};
use crate::flow::{Found, Key};
use crate::packet::rewrite::Inner;
use crate::packet::{Addresses, ErrorKind, NoQuote, Quote, Side, error_kind, is_unreachable, quote};
use std::net::IpAddr;

/// The smallest MTU that a link of each family may have (RFC 791, 3.2; RFC 8200, 5).
const LEAST_MTU: [u32; 2] = [68, 1280];

impl Look<'_> {
    /// Decides an ICMP message that is not an echo.
    pub(super) fn icmp(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Step {
        let Some(kind) = error_kind(arrival.bytes, arrival.parsed) else {
            let to_us = self.is_own(arrival.parsed.addresses.dst());
            let settled = if to_us { Settled::drop(Reason::IcmpUnhandled) } else { Settled::FOREIGN };
            return settled.into();
        };
        let about = quote(arrival.bytes, arrival.parsed);
        let found = about.as_ref().ok().and_then(|about| self.find_quoted(about));
        let (Ok(about), Some(found)) = (about, found) else {
            return self.icmp_of_no_flow(arrival, kind, about).into();
        };
        match self.may_be_true(arrival, kind, &about, found) {
            Err(reason) => Settled::drop(reason).into(),
            Ok(()) => {
                let sign = self.sign_of_error(arrival, found);
                let onward = self.pass_error_on(arrival, about, found, scratch);
                Step::Error(Box::new(FlowError { found, sign, onward }))
            }
        }
    }

    /// Returns the flow that an ICMP error is about and the side that it came from, whether or not it is plausible.
    pub(in crate::engine) fn quoted_flow(&self, arrival: &Arrival<'_>) -> Option<Found> {
        self.find_quoted(&quote(arrival.bytes, arrival.parsed).ok()?)
    }

    /// Returns the flow that a quoted packet belongs to and the side that it was sent to.
    fn find_quoted(&self, about: &Quote) -> Option<Found> {
        match quoted_key(about) {
            Some(key) => self.find(&key),
            None => self.shard.find_fragment(&about.addresses, about.protocol, about.fragment_of?),
        }
    }

    /// Decides an error about nothing known here: a foreign one passes, one about our addresses is dropped with its own
    /// reason.
    fn icmp_of_no_flow(&self, arrival: &Arrival<'_>, kind: ErrorKind, about: Result<Quote, NoQuote>) -> Settled {
        let of_ours = |about: &Quote| self.is_own(about.addresses.src());
        let ours = self.is_own(arrival.parsed.addresses.dst()) || about.as_ref().is_ok_and(of_ours);
        if !ours {
            return Settled::FOREIGN;
        }
        Settled::drop(match about {
            _ if !sum_is_right(arrival) => Reason::BadIcmpChecksum,
            _ if kind == ErrorKind::Obsolete => Reason::IcmpObsolete,
            Err(NoQuote::Short | NoQuote::HeaderChecksum) => Reason::BadQuote,
            Err(NoQuote::NoEcho) | Ok(_) => Reason::IcmpNoFlow,
        })
    }

    /// Returns whether an error about a packet of a flow is valid and plausible (RFC 5508 REQ-3; RFC 5927, 4).
    fn may_be_true(&self, arrival: &Arrival<'_>, kind: ErrorKind, about: &Quote, found: Found) -> Result<(), Reason> {
        let addresses = &arrival.parsed.addresses;
        if !sum_is_right(arrival) {
            return Err(Reason::BadIcmpChecksum);
        }
        // An error goes to the sender of the quoted packet (RFC 1122, 3.2.2; RFC 4443, 2.2): one sent to another host
        // can come from anywhere, and would count against servers.
        if addresses.dst() != about.addresses.src() {
            return Err(Reason::IcmpImplausible);
        }
        match kind {
            ErrorKind::Obsolete => return Err(Reason::IcmpObsolete),
            // RFC 1191, 5: a router that does not know the field leaves it zero.
            ErrorKind::TooBig(0) if !addresses.is_v6() => {}
            ErrorKind::TooBig(mtu) if mtu < LEAST_MTU[usize::from(addresses.is_v6())] => {
                return Err(Reason::IcmpBadMtu);
            }
            ErrorKind::TooBig(_) | ErrorKind::Plain => {}
        }
        let sender = found.side.other();
        match about.seq {
            Some(seq) if !self.table().is_under_way(found.index, sender, seq) => Err(Reason::IcmpImplausible),
            _ => Ok(()),
        }
    }

    /// Returns what an error about a packet of a flow indicates about the flow's server, if that has not answered yet.
    fn sign_of_error(&self, arrival: &Arrival<'_>, found: Found) -> Option<Sign> {
        let at = arrival.parsed.offset;
        let (kind, code) = (arrival.bytes[at], arrival.bytes[at + 1]);
        let flow = self.table().facts(found.index);
        let troubles =
            found.side == Side::Server && !flow.answered && is_unreachable(arrival.parsed.protocol, kind, code);
        troubles.then_some(Sign::Trouble(flow.server_id))
    }

    /// Translates an error for the side that sent the quoted packet.
    fn pass_error_on(&self, arrival: &Arrival<'_>, about: Quote, found: Found, scratch: &mut Scratch) -> ErrorOnward {
        let going = Going::of_table(self.table(), found);
        let sent = going.key(found.side.other());
        let src = reporter(arrival, &about, found.side, &sent);
        let Some(outer) = Addresses::new(src, sent.addresses.src()) else {
            return ErrorOnward::Stop { settled: Settled::drop(Reason::Untranslatable), ids: 0 };
        };
        if going.crosses() {
            return self.error_across(arrival, &going, &outer, scratch);
        }
        let inner = Inner { addresses: sent.addresses, src_port: sent.src_port, dst_port: sent.dst_port };
        let id = self.shard.sent_as(&about);
        ErrorOnward::Rewrite { about, outer, inner, id }
    }
}

/// Returns the source address of the forwarded error. From the servers' side it is the service address, whichever
/// router reported it (RFC 5508 REQ-5); a client keeps the address that its server knows, and routers on its side keep
/// their own (REQ-4).
fn reporter(arrival: &Arrival<'_>, about: &Quote, from: Side, sent: &Key) -> IpAddr {
    let src = arrival.parsed.addresses.src();
    let known = sent.addresses.dst();
    match from {
        Side::Server => known,
        Side::Client if src == about.addresses.dst() || src.is_ipv4() != known.is_ipv4() => known,
        Side::Client => src,
    }
}
