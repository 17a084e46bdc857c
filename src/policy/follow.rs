//! What rules keep when the configuration is replaced: counts and live flows always, rates and the counts of clients where
//! they are still kept in the same way.

use super::limits::ClientLimits;
use super::{Policy, RuleState, Rules, Switches};
use crate::time::Instant;

impl Switches {
    /// Returns the switches of the rules that follow `old`. What an operator switched stays, unless the newer configuration
    /// says something else about the rule than the older one did. `is_kept` says whether a number means the same rule as
    /// before.
    #[must_use]
    pub fn followed_by(&self, (old, new): (&Rules, &Rules), is_kept: impl Fn(u16) -> bool) -> Switches {
        let enabled = |rules: &Rules, rule: u16| rules.get(rule).map(|rule| rule.enabled);
        let switch = |rule: u16| {
            let stays = is_kept(rule) && enabled(old, rule) == enabled(new, rule);
            if stays { self.is_on(rule) } else { enabled(new, rule) == Some(true) }
        };
        Switches((0..new.rules.len() as u16).map(switch).collect())
    }
}

impl Policy {
    /// Follows the rules that come after `old`. `is_kept` says whether a number means the same rule as before.
    pub fn follow(&mut self, now: Instant, (old, new): (&Rules, &Rules), is_kept: impl Fn(u16) -> bool) {
        let mut fresh = Policy::new(new).states;
        for (rule, state) in (0..).zip(&mut fresh) {
            let Some(before) = self.states.get_mut(usize::from(rule)).filter(|_| is_kept(rule)) else { continue };
            let clients = before.clients.take().filter(|_| {
                let client = |rules: &Rules| rules.get(rule).map(|rule| rule.client);
                client(old) == client(new)
            });
            // Of flows that were not counted by client, none is taken off when it ends.
            let clients = state.clients.as_ref().map(|_| clients.unwrap_or_else(|| ClientLimits::since(now)));
            *state = RuleState { bucket: before.bucket, clients, totals: before.totals };
        }
        self.states = fresh;
    }
}
