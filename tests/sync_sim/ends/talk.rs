//! A connection, or a conversation of datagrams, as its client sees it.

use super::config::SERVICES;
use std::net::{Ipv4Addr, SocketAddrV4};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Opening,
    Open,
    Closing,
    Over,
}

/// A connection, or a conversation of datagrams, as its client sees it. Times are milliseconds of the world.
#[derive(Debug, Clone)]
pub struct Talk {
    pub id: u32,
    pub client: usize,
    pub service: usize,
    pub local: SocketAddrV4,
    pub state: State,
    /// The server that has answered.
    pub server: Option<Ipv4Addr>,
    pub seq: u32,
    pub ack: u32,
    /// When its client acts next.
    pub next: u64,
    pub open_since: Option<u64>,
    pub heard: u64,
    /// Packets without an answer since then that an active gateway has got, and when the first was sent.
    pub unanswered: u32,
    pub since: u64,
    /// It may have been lost: no gateway that is left can know it.
    pub excused: bool,
    /// The server has answered data, so both have heard of the whole handshake; or it has got a second datagram.
    pub confirmed: bool,
    /// Since when: a client that acknowledges with its first data completes the handshake by it.
    pub(super) confirmed_at: Option<u64>,
    /// When the other gateway had been told of it before its client got the server's answer.
    pub(super) told: Option<u64>,
    /// It has the port of an earlier one and was begun while the two were out of step, and they have not been in step since it
    /// carried something: who gets its packets may know the earlier one alone, and forwards them as those of that (both forward).
    /// No other talk is excused by that: packets of a flow that a gateway does not know are dropped, and it goes on later.
    pub(super) apart: bool,
    pub(super) left: u32,
    /// What must not happen has happened to it, and is excused.
    pub(super) was_spared: bool,
    /// Whether both were in step when it was established; and it has told nothing of its client's server, as they were not.
    pub(super) was_calm: bool,
    pub(super) was_early: bool,
    /// The server of the connection of its port that was closed less than a second before: it may go on with the flow of that.
    pub(super) before: Option<Ipv4Addr>,
}

impl Talk {
    pub fn is_udp(&self) -> bool {
        SERVICES[self.service].2
    }

    /// Whether its flow may be gone: no gateway that is left can know it, the former connection's flow may be all that a gateway
    /// knew of its port, or it is half-open and its NAT port was taken.
    pub(super) fn may_be_lost(&self) -> bool {
        self.excused || self.apart || !self.confirmed && [1, 4].contains(&self.service)
    }

    /// Returns whether it may have gone on with the flow of the former one of its port.
    pub(super) fn goes_on(&self) -> bool {
        self.before.is_some() && self.before == self.server
    }

    pub fn listen(&self) -> SocketAddrV4 {
        SocketAddrV4::new(SERVICES[self.service].0, SERVICES[self.service].1)
    }
}

/// A connection that is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed {
    pub(super) client: usize,
    pub(super) service: usize,
    pub(super) local: SocketAddrV4,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) at: u64,
}
