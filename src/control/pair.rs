//! What control sessions report of the other gateway of a pair, and what they ask of this one.

use super::ledger::Ledger;
use super::protocol::{HeldRow, LinkRow, PairStatus, RefusedRow, SyncRow, TakeoverRow};
use crate::config::changes::Who;
use crate::engine::{Engine, Lost};
use crate::sync::{Command, Node};
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What a gateway of a pair is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleWord {
    /// It takes new connections from now on.
    Active,
    /// It leaves them to the other one from now on.
    Standby,
    /// It has the other one take over as soon as that knows everything, and forwards until then.
    Yield,
}

/// When a process began: its order among others of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Begun {
    /// Clock ticks since boot (proc_pid_stat(5), starttime).
    pub tick: u64,
    /// Its number, which is the order within a tick.
    pub pid: u32,
}

impl From<RoleWord> for Command {
    fn from(word: RoleWord) -> Command {
        match word {
            RoleWord::Active => Command::Activate,
            RoleWord::Standby => Command::StandBy,
            RoleWord::Yield => Command::Yield,
        }
    }
}

/// What is known of the pair besides its [`Node`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFacts {
    /// The name of this gateway, and where it talks to the other one.
    pub own: (String, SocketAddr),
    /// The name of the other one, and its address.
    pub peer: (String, SocketAddr),
    /// When the connection was proved, if there is one.
    pub connected: Option<Instant>,
    /// Connections that were proved since the start.
    pub connections: u64,
    /// Bytes sent and received since the start.
    pub bytes: [u64; 2],
    /// Whether the configurations differ in what concerns flows.
    pub differs: bool,
    /// Why there is no connection, and since when there is none.
    pub trouble: Option<(Instant, String)>,
    /// When this gateway last became active.
    pub takeover: Option<Takeover>,
    /// The process that began last of those whose requests for a role are obeyed in the order of their beginnings.
    pub latest: Option<Begun>,
}

/// How a gateway became active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    /// When.
    pub at: Instant,
    /// Flows that it knew then.
    pub flows: u64,
    /// Whether it knew all flows of the other one, as far as it had been told.
    pub whole: bool,
    /// For how long the other one had been silent.
    pub silent: Option<Duration>,
}

/// A pair, as sessions see it.
#[derive(Debug)]
pub struct Pairing<'a> {
    /// The state machine of this gateway.
    pub node: &'a mut Node,
    /// The rest.
    pub facts: &'a mut PairFacts,
}

impl Pairing<'_> {
    /// Returns its part of `eqctl status`.
    pub(super) fn status(&self) -> PairStatus {
        let status = self.node.status();
        PairStatus { role: status.role.name().into(), peer: self.facts.peer.0.clone(), in_step: status.in_step }
    }

    /// Makes this gateway what somebody says; returns the row of `eqctl sync`, or why it stays what it is. With `begun`, a
    /// request is without effect if that of a process that began later has been obeyed.
    pub(super) fn command(
        &mut self,
        engine: &mut Engine,
        ledger: &mut Ledger,
        (now, who): (Instant, Who),
        (to, begun): (RoleWord, Option<Begun>),
    ) -> Result<SyncRow, String> {
        let before = self.node.status();
        if begun.is_some() && begun < self.facts.latest {
            let role = before.role.name();
            ledger.note(now, who, &format!("role: stays {role}: a request that began later has been obeyed"));
            return Ok(self.row(engine, now));
        }
        if to == RoleWord::Yield {
            if !before.role.is_active() {
                return Err(format!("this gateway is {}: only the active one can yield", before.role.name()));
            }
            if !before.in_step {
                return Err(format!(
                    "{} does not know all flows of this gateway: wait until `eqctl sync` says \"in step\"; `eqctl role standby` \
                     does not wait",
                    self.facts.peer.0
                ));
            }
        }
        self.node.command(now, engine, to.into());
        self.facts.latest = begun.or(self.facts.latest);
        let after = self.node.status().role;
        if after != before.role {
            ledger.note(now, who, &format!("role: {} -> {}", before.role.name(), after.name()));
        }
        Ok(self.row(engine, now))
    }

    /// Returns the row of `eqctl sync`.
    pub(super) fn row(&self, engine: &Engine, now: Instant) -> SyncRow {
        let (status, facts) = (self.node.status(), &*self.facts);
        let [announced, came] = status.progress;
        let refusals = self.node.refusals();
        let refused = Lost::ALL.iter().zip(refusals.here).filter(|(_, records)| *records > 0);
        SyncRow {
            node: facts.own.0.clone(),
            address: facts.own.1,
            role: status.role.name().into(),
            term: status.term,
            ready: self.node.is_ready(),
            peer: facts.peer.0.clone(),
            peer_address: facts.peer.1,
            peer_role: status.peer.map(|role| role.name().into()),
            link: facts.connected.map(|since| LinkRow {
                for_ms: millis(now.since(since)),
                in_step: status.in_step,
                agreed: status.agreed,
                lag_frames: status.lag,
                announced: announced.into(),
                came: came.into(),
                skipped: status.skipped,
                differs: facts.differs,
            }),
            trouble: facts.trouble.as_ref().map(|(_, text)| text.clone()),
            trouble_for_ms: facts.trouble.as_ref().map(|(since, _)| millis(now.since(*since))),
            connections: facts.connections,
            sent_bytes: facts.bytes[0],
            received_bytes: facts.bytes[1],
            flows: engine.counters().flows,
            digest: format!("{:016x}", status.digest),
            takeover: facts.takeover.map(|takeover| TakeoverRow {
                ago_ms: millis(now.since(takeover.at)),
                flows: takeover.flows,
                whole: takeover.whole,
                silent_ms: takeover.silent.map(millis),
            }),
            refused: refused.map(|(why, records)| RefusedRow { why: why.name().into(), records }).collect(),
            unknown_services: refusals.services,
            refused_there: refusals.there,
            follows_health: engine.follows_verdicts(),
            probed_here: if engine.follows_verdicts() { engine.probed_here() as u64 } else { 0 },
            held: self.node.holds_answers().then(|| self.node.held_answers()).map(|totals| HeldRow {
                held: totals.held,
                acknowledged: totals.known,
                late: totals.late,
                not_held: totals.not_held,
            }),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
