//! Two gateways that share their flows, so that either goes on where the other stops: bytes and a time in, bytes and events
//! out.
//!
//! ```text
//!   connected, handle_input, handle_timeout, command --> Node --> poll_output, poll_event, poll_timeout
//!                                                          |
//!                                       Engine: changes, records, duty, NAT ports
//! ```
//!
//! It replicates state and no log: what has changed is a bit per slot, and a record is written when there is room for it, as
//! it is then. So a slow peer gets fewer records and not later ones, and memory depends on the size of the table alone.
//!
//! `node` has the roles and timers, `link` one connection with its frames (`wire`) and their proof (`proof`), `greeting` those on
//! which nobody has proved himself, `book` what both know of each flow, `give` and `take` the two directions, `hold` the answers
//! that wait for the peer, `echo` half-open flows that it has told of, `clear` sticky clients that operators have cleared, `follow`
//! the servers' health, `refuse` flows that cannot be here, `event` what is reported. It must not know sockets, clocks or files,
//! nor who elects the active gateway: VRRP or BGP does, through [`Node::command`].

mod book;
mod clear;
mod echo;
mod event;
mod follow;
mod give;
mod greeting;
mod hold;
mod link;
mod node;
mod proof;
mod refuse;
mod take;
#[cfg(test)]
mod tests;
mod wire;

pub use clear::ClearOrder;
pub use event::Event;
pub use greeting::Greeting;
pub use hold::HoldTotals;
pub use link::LinkError;
pub use node::{Command, Node, Role, Status, SyncSettings};
pub use proof::seed;
pub use refuse::Refusals;
pub use wire::{HEADER, Kind, MOST_BODY};
