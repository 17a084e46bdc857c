//! What a node reports: for a log, an operator, or its driver.

use super::link::LinkError;
use super::node::Role;
use crate::engine::Lost;
use std::fmt;

/// Something that an operator or a log wants to know, or the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer has proved who it is.
    Connected {
        /// Whether its configuration says something else about flows.
        differs: bool,
        /// Whether it goes on from what both knew before.
        resumes: bool,
    },
    /// The connection has to be closed: the driver does, calls [`Node::disconnected`](super::Node::disconnected), and connects again after a while.
    Close(LinkError),
    /// Both know what the other knows.
    InStep,
    /// The gateway may be elected: it has learned what its peer knows, or the deadline is over.
    Ready {
        /// Whether it has learned everything.
        whole: bool,
    },
    /// It has another role.
    Role {
        /// The role.
        role: Role,
        /// Its term.
        term: u64,
    },
    /// The peer asks this gateway to take over.
    Asked {
        /// How often, since this event was last polled.
        times: u32,
    },
    /// The peer knows everything: this gateway can stand by.
    Yielded,
    /// Servers that the peer has and this configuration has not have got slots, without new flows: the engine follows another
    /// plan, whose [`crate::engine::Plan::settings`] have them. What routes packets of servers has to follow.
    Hosts {
        /// How many.
        servers: u32,
    },
    /// Flows of the peer cannot be here: they would be lost in a failover. Reported for the first one of a connection.
    Refuses {
        /// Why.
        why: Lost,
        /// Services of the peer that are not configured here.
        services: Vec<String>,
    },
    /// Answers to SYNs do not wait for the peer any more, as too many do, or they do again.
    Holding {
        /// Whether they wait.
        on: bool,
    },
    /// The servers' health is that which the active gateway tells, or again what own probes say.
    Follows {
        /// Whether it is that of the active gateway.
        on: bool,
        /// How many addresses and ports this gateway probes, each once per monitor: if it follows, those of which the active one
        /// tells nothing.
        own: usize,
    },
    /// More orders to forget sticky clients than the gateway keeps wait for the peer: it will not hear of the oldest.
    ClearDropped,
    /// What the two know differs in some ranges of keys; they are sent again.
    Differs {
        /// How many of 256.
        ranges: u32,
    },
}

impl Event {
    /// How often the peer has asked, which it can do without end.
    pub(super) fn times(&mut self) -> Option<&mut u32> {
        match self {
            Event::Asked { times } => Some(times),
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connected { differs, resumes } => {
                f.write_str("connected to the peer")?;
                f.write_str(if *resumes { ", as before" } else { ", all flows are exchanged" })?;
                match differs {
                    true => f.write_str("; ITS CONFIGURATION DIFFERS in what concerns flows: give both the same"),
                    false => Ok(()),
                }
            }
            Event::Close(error) => write!(f, "the connection to the peer is closed: {error}"),
            Event::InStep => f.write_str("in step with the peer: both know all flows"),
            Event::Ready { whole: true } => f.write_str("ready: all flows of the peer are known"),
            Event::Ready { whole: false } => {
                f.write_str("ready WITHOUT all flows of the peer: it was not there within the deadline, or too slow")
            }
            Event::Role { role, term } => write!(f, "this gateway is {} (term {term})", role.name()),
            Event::Asked { times: 1 } => f.write_str("the peer asks this gateway to take over"),
            Event::Asked { times } => write!(f, "the peer asks this gateway to take over, {times} times"),
            Event::Yielded => f.write_str("the peer knows all flows and can take over"),
            Event::Hosts { servers } => {
                write!(
                    f,
                    "the peer has flows of servers that are not configured here: {servers} of them keep their flows"
                )
            }
            Event::Refuses { why, services } => {
                let help = match why {
                    Lost::Service if services.is_empty() => "services that are not configured here".into(),
                    Lost::Service => format!("services that are not configured here: {}", services.join(", ")),
                    Lost::NatAddress => "no NAT pool here has their addresses".into(),
                    _ => "the table is full; `max` of [flows] has to be the same on both".into(),
                };
                write!(f, "some flows of the peer CANNOT BE KEPT here and would be lost in a failover: {help}")
            }
            Event::Holding { on: false } => f.write_str(
                "more than 4,096 SYN-ACKs are waiting for the peer: new ones are sent at once until the queue is empty",
            ),
            Event::Holding { on: true } => f.write_str("new SYN-ACKs are held for the peer again"),
            Event::Follows { on: true, own: 0 } => f.write_str("server health now comes from the active gateway"),
            Event::Follows { on: true, own } => write!(
                f,
                "server health now comes from the active gateway, except for {own} addresses and ports that it does not \
                 monitor: they are probed here"
            ),
            Event::Follows { on: false, .. } => f.write_str("server health comes from this gateway's own probes again"),
            Event::ClearDropped => {
                f.write_str("more than 64 sticky-clear requests are waiting for the peer: the oldest was dropped")
            }
            Event::Differs { ranges } => {
                write!(f, "flows differ from those of the peer in {ranges} of 256 ranges: they are sent again")
            }
        }
    }
}
