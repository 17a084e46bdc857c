//! What can be changed while the engine runs.

use super::{Ended, Engine};
use crate::balance::Admin;
use crate::ids::{FlowId, ServerId};
use crate::time::{Duration, Instant};
use std::fmt;

/// A change at run time. None moves a live flow to another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Gives a server another weight; its flows stay.
    Weight {
        /// The server.
        server: ServerId,
        /// Its new weight; 0 gets no new flows.
        weight: u16,
    },
    /// Enables, drains or disables a server.
    Admin {
        /// The server.
        server: ServerId,
        /// What the operator wants of it.
        admin: Admin,
        /// Draining: after this time the flows that are left are ended, TCP by resets to both ends.
        deadline: Option<Duration>,
    },
    /// Takes a server's load, 0 to 100, and whether it wants to be left alone, as if it had told so itself.
    Load {
        /// The server.
        server: ServerId,
        /// Its load in percent.
        load: u8,
        /// Whether it wants no new flows.
        maintenance: bool,
    },
    /// Takes a server as up or down whatever its monitors say: for replays and drills.
    Health {
        /// The server.
        server: ServerId,
        /// Whether it is up; none leaves it to the monitors again.
        up: Option<bool>,
    },
    /// Switches a rule on or off; flows that it let in stay.
    Rule {
        /// The rule's place in the settings.
        rule: u16,
        /// Whether it holds.
        on: bool,
    },
    /// Takes an MTU as that of the way to a server, until it is told another one.
    Mtu {
        /// The server.
        server: ServerId,
        /// Whether it is the way to its IPv6 address.
        v6: bool,
        /// In bytes; 0 is unknown.
        mtu: u16,
    },
    /// Removes a flow; nobody is told.
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
    /// A load is 0 to 100.
    NoLoad(u8),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoSuchServer(id) => write!(f, "there is no server number {}", id.0),
            Refused::NoSuchRule(rule) => write!(f, "there is no rule number {rule}"),
            Refused::NoSuchFlow(id) => write!(f, "there is no flow {id}; it may have ended"),
            Refused::NoLoad(load) => write!(f, "{load} is no load: 0 to 100 percent is allowed"),
        }
    }
}

impl std::error::Error for Refused {}

impl Engine {
    /// Changes something at run time.
    ///
    /// # Errors
    /// [`Refused`] where it cannot be changed; nothing is changed then.
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
                self.shard.end((&self.plan, &self.standing), now, index, Ended::Killed);
                self.take_idle();
            }
        }
        self.take_notices(now);
        self.shard.advance(&self.plan, &self.standing, now);
        Ok(())
    }
}
