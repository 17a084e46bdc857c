//! What a shard does as part of a pair of gateways: which flows it may end, and which NAT ports it may give.

use super::Shard;
use crate::flow::{Mapping, NO_POOL, SavedFlow, Share};
use crate::time::{Duration, Instant};

/// The part of a gateway in its pair. A gateway alone has the default.
#[derive(Debug, Default)]
pub(super) struct Part {
    stands_by: bool,
    /// Until when no flow expires but half-open ones.
    keeps_until: Option<Instant>,
    share: Share,
}

impl Part {
    /// Returns whether nothing may be answered or ended.
    pub(super) fn stands_by(&self) -> bool {
        self.stands_by
    }
}

impl Shard {
    /// Stands by, or no longer; then no flow expires for `grace`.
    pub(in crate::engine) fn stand_by(&mut self, now: Instant, stands_by: bool, grace: Duration) {
        self.part.keeps_until = match (stands_by, self.part.stands_by) {
            (true, _) => Some(Instant::FAR),
            (false, true) => Some(now + grace),
            (false, false) => self.part.keeps_until,
        };
        self.part.stands_by = stands_by;
    }

    /// Sets which ports of its NAT pools new flows get.
    pub(in crate::engine) fn share_nat_ports(&mut self, share: Share) {
        self.part.share = share;
        self.share_ports();
    }

    pub(super) fn share_ports(&mut self) {
        self.nat_pools.iter_mut().for_each(|pool| pool.share(self.part.share));
    }

    /// Returns the longest time for which a NAT port rests.
    pub(in crate::engine) fn longest_hold(&self) -> Duration {
        self.nat_pools.iter().map(|pool| pool.settings().hold).max().unwrap_or(Duration::ZERO)
    }

    /// Lets the NAT port of a flow that exists elsewhere rest no longer here.
    pub(in crate::engine) fn wake_port(&mut self, saved: &SavedFlow) {
        if saved.flow.nat_pool != NO_POOL
            && let Some(pool) = self.nat_pools.get_mut(usize::from(saved.flow.nat_pool))
        {
            pool.wake(&Mapping::of_replies(&saved.flow.server));
        }
    }

    /// Returns a flow whose timeout is over and that may end.
    pub(super) fn expired(&mut self, now: Instant, most: &mut usize) -> Option<u32> {
        match self.part.keeps_until {
            Some(until) if now < until => self.table.expired_half_open(now),
            _ => self.table.expired(now, most),
        }
    }

    /// Returns when the next flow may have to end.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        match self.part.keeps_until {
            None => self.table.poll_timeout(),
            Some(until) => {
                let due = self.table.poll_timeout().map(|due| due.max(until)).filter(|due| *due < Instant::FAR);
                self.table.poll_half_open().into_iter().chain(due).min()
            }
        }
    }
}
