//! ICMP errors: whose packet they are about, whether they can be true, and who must know.
//!
//! They are signs of trouble for the balancer, but never refresh or end a flow (RFC 5508 REQ-6; RFC 5382 REQ-10).

use super::miss::{foreign, sum_is_right};
use super::{Engine, Forwarded, Reason, Verdict};
use crate::flow::{Found, Key};
use crate::packet::rewrite::{self, Inner};
use crate::packet::{Addresses, ErrorKind, Meta, NoQuote, Parsed, Quote, Side, error_kind, is_unreachable, quote};
use crate::time::Instant;
use std::net::IpAddr;

/// The smallest MTUs that a link of either family may have (RFC 791, 3.2; RFC 8200, 5).
const LEAST_MTU: [u32; 2] = [68, 1280];

impl Engine {
    /// Decides about an ICMP message that is no echo.
    pub(super) fn icmp(&mut self, now: Instant, packet: &mut [u8], parsed: &Parsed, meta: Meta) -> Verdict {
        let to_us = self.is_own(parsed.addresses.dst());
        let Some(kind) = error_kind(packet, parsed) else {
            return if to_us { Verdict::Drop(Reason::IcmpUnhandled) } else { foreign(parsed) };
        };
        let about = quote(packet, parsed);
        let found = about.as_ref().ok().and_then(|about| self.find_quoted(about));
        let (Ok(about), Some(found)) = (about, found) else {
            return self.icmp_of_no_flow(packet, parsed, meta, kind, about);
        };
        match self.may_be_true(packet, parsed, meta, kind, &about, found) {
            Err(reason) => Verdict::Drop(reason),
            Ok(()) => {
                self.judge_by(now, parsed, packet, found);
                self.pass_error_on(packet, parsed, &about, found)
            }
        }
    }

    /// The flow that a quoted packet belongs to, and the side that it was sent to.
    fn find_quoted(&self, about: &Quote) -> Option<Found> {
        if about.later {
            return self.find_fragment(&about.addresses, about.protocol, about.fragment_of?);
        }
        let sent = Key {
            addresses: about.addresses,
            src_port: about.src_port,
            dst_port: about.dst_port,
            protocol: about.protocol,
        };
        self.table.find(&sent.reversed())
    }

    /// An error about nothing that is known here: a foreign one passes, ours is dropped by name.
    fn icmp_of_no_flow(
        &self,
        packet: &[u8],
        parsed: &Parsed,
        meta: Meta,
        kind: ErrorKind,
        about: Result<Quote, NoQuote>,
    ) -> Verdict {
        let server = |about: &Quote| {
            self.directory.is_server(about.addresses.dst(), about.protocol, about.dst_port)
                || self.is_own(about.addresses.src())
        };
        let ours = self.is_own(parsed.addresses.dst()) || about.as_ref().is_ok_and(server);
        if !ours {
            return foreign(parsed);
        }
        Verdict::Drop(match about {
            _ if !sum_is_right(packet, parsed, meta) => Reason::BadIcmpChecksum,
            _ if kind == ErrorKind::Obsolete => Reason::IcmpObsolete,
            Err(NoQuote::Short | NoQuote::HeaderChecksum) => Reason::BadQuote,
            Err(NoQuote::NoEcho) | Ok(_) => Reason::IcmpNoFlow,
        })
    }

    /// Whether an error about a packet of a flow is sound and plausible (RFC 5508 REQ-3; RFC 5927, 4).
    fn may_be_true(
        &self,
        packet: &[u8],
        parsed: &Parsed,
        meta: Meta,
        kind: ErrorKind,
        about: &Quote,
        found: Found,
    ) -> Result<(), Reason> {
        if !sum_is_right(packet, parsed, meta) {
            return Err(Reason::BadIcmpChecksum);
        }
        // An error goes to who sent what it is about (RFC 1122, 3.2.2; RFC 4443, 2.2): what is told to another can come from
        // anywhere, and would judge servers.
        if parsed.addresses.dst() != about.addresses.src() {
            return Err(Reason::IcmpImplausible);
        }
        match kind {
            ErrorKind::Obsolete => return Err(Reason::IcmpObsolete),
            // RFC 1191, 5: a router that does not know the field leaves it zero.
            ErrorKind::TooBig(0) if !parsed.addresses.is_v6() => {}
            ErrorKind::TooBig(mtu) if mtu < LEAST_MTU[usize::from(parsed.addresses.is_v6())] => {
                return Err(Reason::IcmpBadMtu);
            }
            ErrorKind::TooBig(_) | ErrorKind::Plain => {}
        }
        let sender = found.side.other();
        match about.seq {
            Some(seq) if !self.table.is_under_way(found.index, sender, seq) => Err(Reason::IcmpImplausible),
            _ => Ok(()),
        }
    }

    /// Judges a server by an error about a packet of a flow that it has not answered yet.
    fn judge_by(&mut self, now: Instant, parsed: &Parsed, packet: &[u8], found: Found) {
        let code = (packet[parsed.offset], packet[parsed.offset + 1]);
        let flow = self.table.flow(found.index);
        let unanswered = flow.packets[Side::Server as usize] == 0;
        if found.side == Side::Server && unanswered && is_unreachable(parsed.protocol, code.0, code.1) {
            self.trouble(now, flow.server_id);
        }
    }

    /// Translates an error for the side that sent the quoted packet.
    fn pass_error_on(&mut self, packet: &mut [u8], parsed: &Parsed, about: &Quote, found: Found) -> Verdict {
        let sent = self.table.key(found.index, found.side.other());
        let src = self.teller(parsed, about, found, &sent);
        let why = Forwarded::Error { flow: self.table.id(found.index), from: found.side };
        let Some(outer) = Addresses::new(src, sent.addresses.src()) else {
            return Verdict::Drop(Reason::Untranslatable);
        };
        if self.table.crosses(found.index) {
            return self.error_across(packet, parsed, found, &outer);
        }
        let inner = Inner { addresses: sent.addresses, src_port: sent.src_port, dst_port: sent.dst_port };
        if let Some(id) = self.sent_as(about) {
            rewrite::identification(&mut packet[about.at..], id);
        }
        rewrite::error(packet, parsed, about, &outer, &inner);
        Verdict::Forward { len: parsed.len, why }
    }

    /// Who tells of the error. From the servers' side it is the service address, whichever router it was
    /// (RFC 5508 REQ-5); a client keeps the face that its server knows, and routers before it keep their own (REQ-4).
    fn teller(&self, parsed: &Parsed, about: &Quote, found: Found, sent: &Key) -> IpAddr {
        let src = parsed.addresses.src();
        let known = sent.addresses.dst();
        match found.side {
            Side::Server => known,
            Side::Client if src == about.addresses.dst() || src.is_ipv4() != known.is_ipv4() => known,
            Side::Client => src,
        }
    }
}
