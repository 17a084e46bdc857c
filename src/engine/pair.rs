//! The engine as one of a pair of gateways, of which one is active: what it answers for, and which NAT ports it gives.
//!
//! It must not know the peer, or how the two agree: a driver does (`sync/`).

use super::Engine;
use crate::flow::Share;
use crate::time::{Duration, Instant};

/// What a gateway answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Duty {
    /// Everything: it is alone, or knows all that its peer knows.
    #[default]
    Full,
    /// All but TCP segments of connections that it does not know, and what servers send to NAT addresses without a flow
    /// here: its peer may know them. They are dropped without an answer, and their senders send again.
    Known,
    /// Nothing: it stands by. It forwards packets of flows that it knows, opens and ends none, and resets nobody.
    Standby,
}

/// For how long no flow expires after a gateway has begun to answer: what it knows of their last packets may be old.
const GRACE: Duration = Duration::from_secs(60);

impl Engine {
    /// Returns what the gateway answers for.
    pub fn duty(&self) -> Duty {
        self.standing.duty()
    }

    /// Sets what the gateway answers for. When it stands by no longer, each flow has at least 60 s, and those whose server
    /// is gone end if their service says so.
    pub fn set_duty(&mut self, now: Instant, duty: Duty) {
        let stood_by = self.duty() == Duty::Standby;
        self.standing.set_duty(duty);
        self.shard.stand_by(now, duty == Duty::Standby, GRACE);
        if stood_by && duty != Duty::Standby {
            self.follow_gone(now, self.standing.any_is_gone());
        }
    }

    /// Sets which ports of all NAT pools new flows get, also after a reload.
    pub fn share_nat_ports(&mut self, share: Share) {
        self.shard.share_nat_ports(share);
    }

    /// Returns the longest time for which a port of a NAT pool rests after its flow.
    pub fn longest_hold(&self) -> Duration {
        self.shard.longest_hold()
    }
}
