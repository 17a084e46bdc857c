//! Whether rules and limits admit a new flow, and how the client is answered if not.

use super::super::arrival::Arrival;
use super::super::step::{Fate, Opening, Reply, Scratch, Settled};
use super::super::{Consumed, Pressed, Reason};
use super::Look;
use super::answer::no_end_would_answer;
use crate::balance::{LastResort, Priority};
use crate::config::NoRoom;
use crate::flow::Key;
use crate::ids::ServiceId;
use crate::packet::Side;
use crate::packet::build::Error;
use crate::policy::{Action, Refusal};

/// Returns the reason for which a new flow is refused, and the shortage that is reported.
fn why(refusal: Refusal) -> (Reason, Option<(Priority, Pressed)>) {
    match refusal {
        Refusal::RuleRate => (Reason::RuleRate, None),
        Refusal::RuleFlows => (Reason::RuleFlows, None),
        Refusal::ClientRate => (Reason::ClientRate, None),
        Refusal::ClientFlows => (Reason::ClientFlows, None),
        Refusal::Rate(priority) => (Reason::GatewayRate, Some((priority, Pressed::Rate))),
        Refusal::Table(Priority::Low) => (Reason::TableLow, Some((Priority::Low, Pressed::Table))),
        Refusal::Table(priority) => (Reason::TableNormal, Some((priority, Pressed::Table))),
    }
}

/// The rules' decision on a packet without a flow.
pub(super) enum Ruled {
    /// It continues: to this service, if the rule names one.
    On(Option<ServiceId>),
    /// It is settled.
    Settled(Settled),
}

impl Look<'_> {
    /// Evaluates the rules for a packet without a flow.
    pub(super) fn ruled(&self, arrival: &Arrival<'_>, key: &Key, scratch: &mut Scratch) -> Ruled {
        let decided = self.plan.rules().decide(self.standing.switches(), key, arrival.meta.ingress);
        let Some((rule, action)) = decided else { return Ruled::On(None) };
        scratch.opening.rule = rule;
        match action {
            Action::Balance(service) => Ruled::On(service),
            Action::Pass if self.is_own(key.addresses.dst()) => Ruled::Settled(Settled::drop(Reason::RuleLoop)),
            Action::Pass => Ruled::Settled(Settled::FOREIGN),
            Action::Drop => Ruled::Settled(Settled::drop(Reason::RuleDrop)),
            Action::Reject if no_end_would_answer(arrival) => Ruled::Settled(Settled::drop(Reason::RuleDrop)),
            Action::Reject => {
                Ruled::Settled(self.refuse(arrival, scratch, Error::Prohibited, true, Consumed::Rejected))
            }
        }
    }

    /// Checks whether a new flow is within every limit.
    pub(super) fn admit(
        &self,
        arrival: &Arrival<'_>,
        key: &Key,
        service: ServiceId,
        scratch: &mut Scratch,
    ) -> Result<(), Reason> {
        let (rules, rule) = (self.plan.rules(), scratch.opening.rule);
        let priority = rules.priority(rule).unwrap_or(self.plan.service(service).priority);
        let client = key.addresses.src();
        let fill = (self.flows_that_stay(), self.table().max());
        let ended = self.foresight.and_then(|foresight| foresight.without).filter(|without| without.proven);
        let ended = ended.map(|without| (without.rule, without.client));
        let of = (priority, client, ended);
        let (takes, result) = self.shard.policy().admit(rules, arrival.now, rule, of, fill);
        scratch.opening.takes = takes;
        result.map_err(|refusal| {
            let (reason, pressure) = why(refusal);
            scratch.opening.pressure = pressure;
            reason
        })
    }

    /// Checks whether a flow that none of these limits has counted so far is within them: those of its rule, its client
    /// and its server.
    pub(super) fn may_prove(&self, flow: u32, opening: &mut Opening) -> Result<(), Reason> {
        let facts = self.table().facts(flow);
        let client = self.table().key(flow, Side::Client).addresses.src();
        if let Err(refusal) = self.shard.policy().may_prove(self.plan.rules(), facts.rule, client) {
            opening.refused_by = facts.rule;
            return Err(why(refusal).0);
        }
        let may = self.shard.chooser().may_prove(self.plan.roster(), facts.server_id);
        if may { Ok(()) } else { Err(Reason::ServerFlows) }
    }

    /// Returns the number of flows in the table that do not give way to any new flow.
    pub(in crate::engine) fn flows_that_stay(&self) -> u32 {
        self.table().flows_that_stay(self.without())
    }

    /// Answers a new flow that no server can take, as its service specifies.
    pub(super) fn no_server(&self, arrival: &Arrival<'_>, service: ServiceId, scratch: &mut Scratch) -> Settled {
        if no_end_would_answer(arrival) {
            return Settled::drop(Reason::NoServer);
        }
        let reset = match self.plan.service(service).last_resort {
            LastResort::Drop | LastResort::Pool(_) => return Settled::drop(Reason::NoServer),
            LastResort::Reset => true,
            LastResort::Unreachable => false,
        };
        self.refuse(arrival, scratch, Error::Port, reset, Consumed::NoServer)
    }

    /// Answers the client of a new flow for which there is no room, as the settings specify (RFC 5508 REQ-8; RFC 6888
    /// REQ-11).
    pub(super) fn no_room(&self, arrival: &Arrival<'_>, reason: Reason, scratch: &mut Scratch) -> Settled {
        let why = match self.plan.answers().no_room {
            NoRoom::Prohibited => Error::Prohibited,
            NoRoom::HostUnreachable => Error::Host,
            NoRoom::Drop => return Settled::drop(reason),
        };
        // It is dropped for want of room, whether or not the answer is sent.
        match self.answer(arrival, scratch, why, Consumed::Rejected) {
            Settled { fate: Fate::Consume(_), reply } => Settled { fate: Fate::Drop(reason), reply },
            _ => Settled { fate: Fate::Drop(reason), reply: Reply::None },
        }
    }
}
