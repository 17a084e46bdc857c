//! A standby that has the servers' health from the active gateway.
//!
//! It asks whenever it may follow from then on, and is told all verdicts with the states that result, then those that change.
//! What it has been told it does not probe; what the other one does not monitor it does.

use super::event::Event;
use super::link::Link;
use super::node::{Node, Role};
use super::wire::{Kind, Reader};
use crate::engine::{Engine, GivingHealth};
use crate::time::{Duration, Instant};

/// Verdicts of monitors that one call looks at.
const MOST_VERDICTS: usize = 1024;
/// Between two requests for what is not understood.
const AGAIN: Duration = Duration::from_secs(1);

/// In a frame of verdicts: all of them are told from here on.
const FIRST: u8 = 1;
/// In a frame of verdicts: all of them have been told.
const LAST: u8 = 2;

impl Node {
    /// Has a standby take the servers' health from the active gateway, without probes of its own, or no longer; initially it has
    /// its own view.
    pub fn follow_health(&mut self, now: Instant, engine: &mut Engine, on: bool) {
        self.follows_health = on;
        if let Some(link) = self.link.as_deref_mut().filter(|link| link.proved) {
            (link.want_health, link.told_health) = (on, false);
        }
        self.settle(now, engine);
    }

    /// Returns whether this gateway takes the servers' health from its peer at the moment.
    fn may_follow_health(&self) -> bool {
        self.follows_health && !self.role.is_active() && self.peer_role.is_some_and(Role::is_active)
    }

    /// Begins or ceases to be active: what was told belongs to another time, as the other one has had its own view since.
    pub(super) fn forget_health(&self, link: &mut Link) {
        link.told_health = false;
        link.health = link.health.take().map(|_| GivingHealth::default());
        // What comes before the answer does not count.
        link.want_health = self.follows_health && !self.role.is_active();
    }

    /// Tells verdicts, if the peer has asked for them.
    pub(super) fn give_health(&self, now: Instant, engine: &Engine, link: &mut Link, out: &mut Vec<u8>) {
        let Some(health) = link.health.as_mut().filter(|_| self.role.is_active()) else { return };
        let mut body = vec![0];
        let [is_first, is_last] = engine.give_health(health, now, MOST_VERDICTS, &mut body);
        body[0] = if is_first { FIRST } else { 0 } | if is_last { LAST } else { 0 };
        if body != [0] {
            link.frame(out, Kind::Health, self.term, &body);
        }
    }

    /// Follows the verdicts of an active peer's monitors.
    pub(super) fn take_health(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        link: &mut Link,
        mut body: Reader<'_>,
    ) -> Option<()> {
        let flags = body.u8()?;
        if !self.may_follow_health() || !engine.knows_names(&link.taking) {
            return Some(());
        }
        if flags & FIRST != 0 {
            (link.told_health, link.told_all_health) = (true, false);
            engine.follow_verdicts(now);
        }
        if !link.told_health {
            return Some(());
        }
        engine.take_verdicts(&link.taking, now, body.0);
        link.told_all_health |= flags & LAST != 0;
        Some(())
    }

    /// Asks anew for what cannot be understood: after a reload here.
    pub(super) fn ask_health_again(&mut self, now: Instant, engine: &Engine) {
        if self.may_follow_health()
            && let Some(link) = self.link.as_deref_mut().filter(|link| link.took && now >= link.next_want)
            && !engine.knows_names(&link.taking)
        {
            (link.want_names, link.want_health, link.next_want) = (true, true, now + AGAIN);
        }
    }

    /// Probes what the peer has not told; everything if there is nobody to follow.
    pub(super) fn settle_health(&mut self, now: Instant, engine: &mut Engine) {
        let told = self.link.as_deref_mut().filter(|link| link.told_health);
        let told_all = told.map(|link| std::mem::take(&mut link.told_all_health));
        if let Some(told_all) = told_all.filter(|_| self.may_follow_health()) {
            // Once for an input, as it looks at all of them.
            if told_all {
                engine.verdicts_told(now);
                let own = engine.probed_here();
                if self.follows.replace(own) != Some(own) {
                    self.report(Event::Follows { on: true, own });
                }
            }
            return;
        }
        if engine.follows_verdicts() {
            engine.stop_following(now);
        }
        if self.follows.take().is_some() {
            self.report(Event::Follows { on: false, own: engine.probed_here() });
        }
    }
}
