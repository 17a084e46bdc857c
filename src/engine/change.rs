//! The changes that can be made while the engine runs.

use super::{Ended, Engine};
use crate::balance::Admin;
use crate::ids::{FlowId, ServerId};
use crate::time::{Duration, Instant};
use std::fmt;

/// A change at run time. No change moves a live flow to another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Changes the weight of a server; its flows stay.
    Weight {
        /// The server.
        server: ServerId,
        /// Its new weight; with 0 it gets no new flows.
        weight: u16,
    },
    /// Enables, drains or disables a server.
    Admin {
        /// The server.
        server: ServerId,
        /// Its new administrative state.
        admin: Admin,
        /// When draining: the time after which the remaining flows are ended, TCP flows by resets to both ends.
        deadline: Option<Duration>,
    },
    /// Sets the load and the maintenance flag of a server, as if the server had reported them itself.
    Load {
        /// The server.
        server: ServerId,
        /// Its load in percent, 0 to 100.
        load: u8,
        /// Whether it asks for no new flows.
        maintenance: bool,
    },
    /// Forces a server up or down, whatever its monitors say: for replays and drills.
    Health {
        /// The server.
        server: ServerId,
        /// Whether it is up; with none its monitors decide again.
        up: Option<bool>,
    },
    /// Enables or disables a rule; flows that it admitted stay.
    Rule {
        /// The rule's place in the settings.
        rule: u16,
        /// Whether it is enabled.
        on: bool,
    },
    /// Sets the path MTU to a server, until another one is learned.
    Mtu {
        /// The server.
        server: ServerId,
        /// Whether it is the path to the IPv6 address.
        v6: bool,
        /// The MTU in bytes; 0 if unknown.
        mtu: u16,
    },
    /// Removes a flow without notifying its ends; of a half-open flow whose client has completed the handshake, both get
    /// resets.
    Kill {
        /// The flow.
        flow: FlowId,
    },
}

/// Why a change was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such server.
    NoSuchServer(ServerId),
    /// There is no such rule.
    NoSuchRule(u16),
    /// There is no such flow.
    NoSuchFlow(FlowId),
    /// The load is not between 0 and 100.
    NoLoad(u8),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoSuchServer(id) => write!(f, "no server number {}", id.0),
            Refused::NoSuchRule(rule) => write!(f, "no rule number {rule}"),
            Refused::NoSuchFlow(id) => {
                write!(f, "no flow {id}; it may have ended, or have a new ID since its handshake was completed")
            }
            Refused::NoLoad(load) => write!(f, "{load} is not a valid load: use 0 to 100 percent"),
        }
    }
}

impl std::error::Error for Refused {}

impl Engine {
    /// Applies a change.
    ///
    /// # Errors
    /// [`Refused`] if it cannot be applied; nothing changes then.
    pub fn apply(&mut self, now: Instant, change: Change) -> Result<(), Refused> {
        if let Change::Weight { server, .. }
        | Change::Admin { server, .. }
        | Change::Load { server, .. }
        | Change::Health { server, .. }
        | Change::Mtu { server, .. } = change
            && !self.plan.roster().has(server)
        {
            return Err(Refused::NoSuchServer(server));
        }
        match change {
            Change::Weight { server, weight } => {
                self.standing.servers_mut().set_weight(self.plan.roster(), now, server, weight);
            }
            Change::Admin { server, admin, deadline } => {
                self.standing.set_drained(server, false);
                let flows = self.shard.chooser().flows(server);
                self.standing.servers_mut().set_admin(self.plan.roster(), now, server, admin, (deadline, flows));
                let gone = self.standing.settle(&self.plan, server);
                self.follow_gone(now, gone);
            }
            Change::Health { server, up } => {
                match up {
                    Some(up) => self.monitors.force(now, server, up),
                    None => self.monitors.release(now, server),
                }
                // Monitors that report "unknown" are overridden without a transition.
                self.take_state(now, server);
                self.take_health(now);
            }
            Change::Load { load, .. } if load > 100 => return Err(Refused::NoLoad(load)),
            Change::Load { server, load, maintenance } => {
                self.standing.report(&self.plan, now, server, load, maintenance);
            }
            Change::Rule { rule, on } => {
                self.standing.switch(rule, on).then_some(()).ok_or(Refused::NoSuchRule(rule))?;
            }
            Change::Mtu { server, v6, mtu } => self.standing.set_path_mtu(server, v6, mtu),
            Change::Kill { flow } => {
                let index = self.shard.table().slot(flow).ok_or(Refused::NoSuchFlow(flow))?;
                self.shard.end_politely((&self.plan, &self.standing), now, index, Ended::Killed);
                self.take_idle(now);
            }
        }
        self.take_notices(now);
        self.advance();
        Ok(())
    }
}
