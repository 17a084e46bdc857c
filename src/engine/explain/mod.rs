//! Why a packet gets its verdict, as plain values: a look that is not carried out, and the facts behind it.
//!
//! It must not decide anything: the outcome is what `look` returns, and everything else is read from the same
//! state that the look reads.

mod fields;
mod foresee;
mod opening;
mod rows;

pub use foresee::Foreseen;
pub use rows::*;

use super::arrival::{self, Arrival};
use super::look::Going;
use super::step::{ErrorOnward, Follow, Onward, Step};
use super::{Engine, Forwarded, Verdict};
use crate::flow::{Datagram, Found, Table, TimeoutState, Tracked};
use crate::packet::{ErrorKind, Meta, Protocol, Side, Transport, describe, error_kind, parse};
use crate::time::{Duration, Instant};
use foresee::Prospect;

impl Engine {
    /// Explains the outcome of a packet at `now`; changes nothing.
    pub fn explain(&self, now: Instant, packet: &[u8], meta: Meta) -> Explanation {
        let mut bytes = packet.to_vec();
        let mut explanation = Explanation { packet: describe(packet), ..Explanation::default() };
        match &mut parse(packet) {
            Ok(parsed) => explain(self, &mut Arrival::new(now, &mut bytes, parsed, meta), packet, &mut explanation),
            Err(malformed) => explanation.outcome = settled(&Verdict::Drop(arrival::reason(*malformed))),
        }
        explanation
    }

    /// Returns the outcome of a packet at `now`; changes nothing.
    pub fn foresee(&self, now: Instant, packet: &[u8], meta: Meta) -> Foreseen {
        let mut bytes = packet.to_vec();
        let (verdict, sends) = match &mut parse(packet) {
            Err(malformed) => (Some(Verdict::Drop(arrival::reason(*malformed))), Vec::new()),
            Ok(parsed) => {
                let mut arrival = Arrival::new(now, &mut bytes, parsed, meta);
                let mut prospect = Prospect::new(self);
                let step = prospect.step(&arrival);
                (prospect.apply(&mut arrival, &step), prospect.sends(now, &step))
            }
        };
        Foreseen { verdict, bytes, sends }
    }
}

fn explain(engine: &Engine, arrival: &mut Arrival<'_>, packet: &[u8], explanation: &mut Explanation) {
    let mut prospect = Prospect::new(engine);
    let mut step = prospect.step(arrival);
    if let Step::Fragment { id, piece } = step {
        let datagram = Datagram::new(arrival.parsed.addresses, arrival.parsed.protocol, id);
        match (piece.start == 0).then(|| arrival.begin_packet(datagram).map_err(arrival::reason)) {
            None => {
                explanation.outcome.verdict = "fragment".into();
                explanation.outcome.text = "follows the first fragment of its packet, or waits for it".into();
                explanation.notes.push("the store of fragments decides; it is not looked into".into());
                return;
            }
            Some(begun) => {
                explanation
                    .notes
                    .push("the first fragment of a packet: this holds if the store of fragments takes it".into());
                if let Err(reason) = begun {
                    return explanation.outcome = settled(&Verdict::Drop(reason));
                }
                step = prospect.step(arrival);
            }
        }
    }
    for (flow, cause) in &prospect.before {
        explanation.before.push(format!(
            "flow {} to {} ends first ({}), so that the packet can open another",
            flow.id,
            flow.server,
            cause.name()
        ));
    }
    opening::explain(&mut prospect, arrival, &step, explanation);
    opening::room(&prospect, arrival, &step, explanation);
    flow(&prospect, arrival, &step, explanation);
    let verdict = prospect.apply(arrival, &step);
    explanation.sends = prospect.sends(arrival.now, &step).iter().map(|packet| describe(packet)).collect();
    match &verdict {
        None => {
            explanation.outcome.verdict = "monitors".into();
            explanation.outcome.text = "to or from the address of the gateway's own probes: the monitors decide".into();
            explanation.notes.push("the monitors are not looked into".into());
        }
        Some(verdict) => {
            outcome(verdict, &step, explanation);
            if let Verdict::Forward { why, len } = verdict
                && *why != Forwarded::Foreign
            {
                explanation.rewrite = fields::changed(&packet[..*len], &arrival.bytes[..*len]);
            }
            explanation.outcome.to = goes_to(&prospect, &step).filter(|_| goes_on(verdict));
        }
    }
}

/// Puts the verdict into the outcome.
fn outcome(verdict: &Verdict, step: &Step, explanation: &mut Explanation) {
    let row = settled(verdict);
    let opens = row.opens || matches!(step, Step::Open(_));
    if opens && !row.opens {
        explanation.notes.push("the flow is made, though its first packet is not sent on".into());
    }
    if matches!(verdict, Verdict::Emit { .. }) {
        explanation.notes.push("it goes on as other packets: they are listed under sends".into());
    }
    let by_rule = row.verdict == "pass" && explanation.rules.iter().any(|rule| rule.matches);
    let text = if by_rule { "a rule passes it unchanged".into() } else { row.text };
    let before = std::mem::take(&mut explanation.outcome);
    explanation.outcome = OutcomeRow { server: before.server, picked_by: before.picked_by, opens, text, ..row };
}

fn goes_on(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Forward { why, .. } | Verdict::Emit { why } if *why != Forwarded::Foreign)
}

/// Returns the destination of a packet of a flow.
fn goes_to(prospect: &Prospect<'_>, step: &Step) -> Option<String> {
    let going = prospect.going(step)?;
    // An error goes to the sender of the packet that it quotes.
    let to = going.key(going.side.other());
    let has_ports = matches!(to.protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
    let has_ports = has_ports && !matches!(step, Step::Error(_));
    Some(if has_ports { to.src().to_string() } else { to.addresses.src().to_string() })
}

/// Describes the flow that a packet belongs to or opens, and its timers.
fn flow(prospect: &Prospect<'_>, arrival: &Arrival<'_>, step: &Step, explanation: &mut Explanation) {
    let Engine { plan, shard, .. } = prospect.engine;
    if let Step::EndByReset { flow, cause } = step {
        explanation.before.push(format!(
            "flow {} ends ({}): both ends get resets",
            shard.table().id(*flow),
            cause.name()
        ));
        let found = arrival.key().and_then(|key| shard.table().find(&key));
        explanation.from = found.map(|found| found.side);
        explanation.outcome.server = Some(plan.server_name(shard.table().facts(*flow).server_id));
        explanation.flow = Some(shard.row(plan, arrival.now, *flow));
        return;
    }
    let (found, state) = found_of(prospect, arrival, step, &mut explanation.notes);
    if let Some(ErrorKind::TooBig(mtu)) = error_kind(arrival.bytes, arrival.parsed) {
        explanation.notes.push(format!("it reports an MTU of {mtu} bytes"));
    }
    let Some(found) = found else {
        if let Some(going) = prospect.going(step) {
            note_path_mtu(prospect, &going, explanation);
        }
        return;
    };
    let row = shard.row(plan, arrival.now, found.index);
    let flow = shard.table().facts(found.index);
    explanation.outcome.server = Some(plan.server_name(flow.server_id));
    explanation.from = Some(found.side);
    let (state, runs) = match state {
        Some(state) if state != row.state || state.restarts() => (state, Runs::Anew),
        Some(state) => (state, Runs::FromEntry),
        None => (row.state, Runs::On),
    };
    let timeout = match runs {
        Runs::Anew => shard.table().timeout(flow.profile, state),
        Runs::FromEntry | Runs::On => Duration::from_millis(row.expires_in_ms),
    };
    let is_usual = shard.table().timeout_of_new(0, state) == shard.table().timeout(flow.profile, state);
    explanation.timers.push(timer(state, timeout, is_usual, runs));
    explanation.flow = Some(row);
    note_path_mtu(prospect, &Going::of_table(shard.table(), found), explanation);
}

/// Returns the flow of a step, if there is one, and the timeout state that restarts.
fn found_of(
    prospect: &Prospect<'_>,
    arrival: &Arrival<'_>,
    step: &Step,
    notes: &mut Vec<String>,
) -> (Option<Found>, Option<TimeoutState>) {
    let shard = &prospect.engine.shard;
    match step {
        Step::Hit(hit) => (Some(hit.found), state_after(&hit.onward, &hit.follow)),
        Step::Error(error) => {
            if matches!(error.onward, ErrorOnward::Rewrite { .. } | ErrorOnward::Emit) {
                notes.push("an ICMP error neither refreshes nor ends its flow".into());
            }
            (Some(error.found), None)
        }
        Step::Settle(_) if matches!(arrival.parsed.transport, Transport::Icmp { .. }) => {
            (prospect.look().quoted_flow(arrival), None)
        }
        Step::Settle(_) => {
            let found = prospect.without_room(arrival, step);
            if found.is_some() {
                let half_open = found.is_some_and(|found| Table::is_half_open(found.index));
                let note = match half_open {
                    true => "the flow stays half-open, and its client sends again",
                    false => "the flow stays as it is: it counts once the limit allows it",
                };
                notes.push(note.into());
            }
            (found, None)
        }
        Step::Stop(_) => (arrival.key().and_then(|key| shard.table().find(&key)), None),
        _ => (None, None),
    }
}

fn note_path_mtu(prospect: &Prospect<'_>, going: &Going<'_>, explanation: &mut Explanation) {
    let mtu = prospect.look().path_mtu(going);
    if mtu != usize::MAX {
        explanation.notes.push(format!("the path takes packets of up to {mtu} bytes"));
    }
}

/// Returns the timeout state that restarts, if any.
fn state_after(onward: &Onward, follow: &Follow) -> Option<TimeoutState> {
    match follow {
        _ if !onward.goes_on() => None,
        Follow::Touch(state) => Some(*state),
        Follow::Tcp(track) => match track.tracked() {
            Tracked::Refresh(state) => Some(state),
            Tracked::Pass | Tracked::Reopen => None,
        },
    }
}

/// How a packet affects the timer of its flow.
#[derive(Debug, Clone, Copy)]
enum Runs {
    /// It starts, or starts again.
    Anew,
    /// It goes on: in this state it runs from the entry into the state.
    FromEntry,
    /// It goes on: the packet does not show that the flow is alive.
    On,
}

fn timer(state: TimeoutState, timeout: Duration, is_usual: bool, runs: Runs) -> TimerLine {
    let whose = if is_usual { "[timeouts]" } else { "the timeouts of its service and port" };
    let how = match runs {
        Runs::Anew => "restarts",
        Runs::FromEntry => "goes on, no packet restarts it in this state",
        Runs::On => "goes on, the packet proves nothing",
    };
    let ends_in_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    TimerLine { timer: state.name().into(), ends_in_ms, from: format!("{how}: {whose}") }
}

/// Returns a verdict as a row.
fn settled(verdict: &Verdict) -> OutcomeRow {
    let row = |verdict: &str, reason: Option<&str>, text: &str| OutcomeRow {
        verdict: verdict.into(),
        reason: reason.map(Into::into),
        text: text.into(),
        ..OutcomeRow::default()
    };
    match verdict {
        Verdict::Forward { why: Forwarded::Foreign, .. } | Verdict::Emit { why: Forwarded::Foreign } => {
            row("pass", None, "to no service and of no flow: passes unchanged")
        }
        Verdict::Forward { why, .. } => OutcomeRow { opens: opens(why), ..row("forward", None, &forwarded(why)) },
        Verdict::Emit { why } => {
            let text = format!("{}, as other packets", forwarded(why));
            OutcomeRow { opens: opens(why), ..row("emit", None, &text) }
        }
        Verdict::Consume(kind) => row("consume", Some(kind.name()), kind.text()),
        Verdict::Drop(reason) => row("drop", Some(reason.name()), reason.text()),
    }
}

fn opens(why: &Forwarded) -> bool {
    matches!(why, Forwarded::Translated { opened: true, .. })
}

fn forwarded(why: &Forwarded) -> String {
    match why {
        Forwarded::Translated { opened: true, .. } => "opens a flow and goes to its server".into(),
        Forwarded::Translated { flow, from: Side::Client, .. } => {
            format!("of flow {flow}, from the client to its server")
        }
        Forwarded::Translated { flow, from: Side::Server, .. } => {
            format!("of flow {flow}, from the server to its client")
        }
        Forwarded::Error { flow, from: Side::Client } => {
            format!("an error about a packet of flow {flow}, to the server")
        }
        Forwarded::Error { flow, from: Side::Server } => {
            format!("an error about a packet of flow {flow}, to the client")
        }
        Forwarded::Foreign => "passes unchanged".into(),
    }
}
