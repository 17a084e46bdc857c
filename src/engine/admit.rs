//! Whether a new flow is wanted, as the rules, limits and classes say.

use super::miss::sum_is_right;
use super::{Consumed, Engine, Event, Pressed, Reason, Verdict};
use crate::balance::{LastResort, Priority};
use crate::flow::Key;
use crate::ids::ServiceId;
use crate::packet::{Meta, Parsed, Transport, build::Error, checksum};
use crate::policy::{Action, NO_RULE, Refusal};
use crate::time::{Duration, Instant};

/// How long a class's pressure is not told again.
const QUIET: Duration = Duration::from_secs(60);

/// When which pressure was last told: by class, of the table and of the rate.
#[derive(Debug, Default)]
pub(super) struct Pressures([[Option<Instant>; 2]; 3]);

/// What the rules make of a packet of no flow.
pub(super) enum Ruled {
    /// It goes on: by which rule, and to which service, if that rule names one.
    On(u16, Option<ServiceId>),
    /// It passes unchanged.
    Pass,
    /// It has met its fate.
    Fate(Verdict),
}

impl Engine {
    /// Asks the rules about a packet of no flow.
    pub(super) fn ruled(&mut self, now: Instant, packet: &[u8], parsed: &Parsed, key: &Key, meta: Meta) -> Ruled {
        match self.policy.decide(key, meta.ingress) {
            None => Ruled::On(NO_RULE, None),
            Some((rule, Action::Balance(service))) => Ruled::On(rule, service),
            Some((_, Action::Pass)) if self.is_own(key.addresses.dst()) => Ruled::Fate(Verdict::Drop(Reason::RuleLoop)),
            Some((_, Action::Pass)) => Ruled::Pass,
            Some((_, Action::Drop)) => Ruled::Fate(Verdict::Drop(Reason::RuleDrop)),
            Some((_, Action::Reject)) if no_end_would_answer(packet, parsed, meta) => {
                Ruled::Fate(Verdict::Drop(Reason::RuleDrop))
            }
            Some((_, Action::Reject)) => {
                Ruled::Fate(self.refuse(now, packet, parsed, Error::Prohibited, true, Consumed::Rejected))
            }
        }
    }

    /// Whether a new flow is within every limit.
    pub(super) fn admit(&mut self, now: Instant, key: &Key, service: ServiceId, rule: u16) -> Result<(), Reason> {
        let class = self.policy.priority(rule).unwrap_or(self.balancer.service(service).priority);
        let fill = (self.table.len(), self.table.max());
        let refusal = self.policy.admit(now, rule, class, key.addresses.src(), fill);
        refusal.map_err(|refusal| match refusal {
            Refusal::RuleRate => Reason::RuleRate,
            Refusal::RuleFlows => Reason::RuleFlows,
            Refusal::ClientRate => Reason::ClientRate,
            Refusal::ClientFlows => Reason::ClientFlows,
            Refusal::Rate(class) => {
                self.tell_pressure(now, class, Pressed::Rate);
                Reason::GatewayRate
            }
            Refusal::Table(class) => {
                self.tell_pressure(now, class, Pressed::Table);
                if class == Priority::Low { Reason::TableLow } else { Reason::TableNormal }
            }
        })
    }

    fn tell_pressure(&mut self, now: Instant, class: Priority, of: Pressed) {
        let told = &mut self.pressures.0[class as usize][of as usize];
        if told.is_none_or(|told| now.since(told) >= QUIET) {
            *told = Some(now);
            self.tell(Event::Pressure { priority: class, of });
        }
    }

    /// Answers a new flow that no server can take, as its service says.
    pub(super) fn no_server(
        &mut self,
        now: Instant,
        packet: &[u8],
        parsed: &Parsed,
        meta: Meta,
        service: ServiceId,
    ) -> Verdict {
        if no_end_would_answer(packet, parsed, meta) {
            return Verdict::Drop(Reason::NoServer);
        }
        let reset = match self.balancer.service(service).last_resort {
            LastResort::Drop | LastResort::Pool(_) => return Verdict::Drop(Reason::NoServer),
            LastResort::Reset => true,
            LastResort::Unreachable => false,
        };
        self.refuse(now, packet, parsed, Error::Port, reset, Consumed::NoServer)
    }

    /// Answers a packet of no flow: TCP by a reset where wanted, all else by an ICMP error.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        packet: &[u8],
        parsed: &Parsed,
        why: Error,
        reset: bool,
        as_what: Consumed,
    ) -> Verdict {
        if !super::answers::can_be_answered(&parsed.addresses) {
            return Verdict::Drop(Reason::BadSource);
        }
        if reset && parsed.protocol == crate::packet::proto::TCP {
            return match self.answers.reset(now, parsed) {
                Verdict::Consume(_) => Verdict::Consume(as_what),
                // Over the limit nothing is answered.
                Verdict::Drop(Reason::TcpNoFlow) => Verdict::Drop(Reason::AnswerLimit),
                other => other,
            };
        }
        self.answer(now, packet, parsed, why, as_what)
    }
}

/// Whether no end would answer it: a reset (RFC 9293, 3.10.7.1), or a segment or datagram with a wrong sum (RFC 1122, 4.2.2.7
/// and 4.1.3.4).
pub(super) fn no_end_would_answer(packet: &[u8], parsed: &Parsed, meta: Meta) -> bool {
    match parsed.transport {
        Transport::Tcp { flags, .. } => flags.rst() || !sum_is_right(packet, parsed, meta),
        Transport::Udp { .. } if parsed.whole && !meta.partial_checksum => {
            let datagram = &packet[parsed.offset..parsed.len];
            let len = usize::from(u16::from_be_bytes([datagram[4], datagram[5]])).min(datagram.len());
            let start = checksum::pseudo(&parsed.addresses, parsed.protocol, len);
            let none = datagram[6..8] == [0, 0] && !parsed.addresses.is_v6();
            !none && checksum::fold(checksum::add(start, &datagram[..len])) != 0xffff
        }
        _ => false,
    }
}
