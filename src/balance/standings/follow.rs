//! What servers keep when the configuration is replaced: everything, unless the newer file says something else for that
//! very key.

use super::super::roster::Roster;
use super::super::server::Server;
use super::super::settings::Admin;
use super::{Health, News, Standings, health_at};
use crate::ids::ServerId;
use crate::schedule::Schedule;
use crate::time::Instant;
use std::collections::VecDeque;

/// What became of the server in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It is in both configurations.
    Kept,
    /// The newer configuration no longer has it: it drains.
    Removed,
    /// Neither has it, but it still drains.
    Leaving,
    /// Only the newer configuration has it. The slot was free, or the server was still draining.
    Added,
    /// Neither has it, and it is not draining: another gateway has it, whose flows may come.
    Guest,
    /// Nobody has the slot.
    Vacant,
}

/// The health of all servers of a roster, found out in portions.
#[derive(Debug, Clone, Default)]
pub struct HealthOfAll {
    health: Vec<[Vec<Health>; 2]>,
}

impl HealthOfAll {
    /// Goes on with at most `most` servers of a base; returns true if there is more. `of` returns the health of a server's
    /// address (IPv6 or not) and port.
    pub fn advance(&mut self, roster: &Roster, of: impl Fn(ServerId, bool, u16) -> Health, most: usize) -> bool {
        let places = |base: usize| roster.bases()[base].places.len();
        let whole = self.health.last().is_none_or(|last| last[1].len() == places(self.health.len() - 1));
        if whole {
            if self.health.len() == roster.bases().len() {
                return false;
            }
            self.health.push([Vec::new(), Vec::new()]);
        }
        let base = self.health.len() - 1;
        for by in [false, true] {
            let known = &mut self.health[base][usize::from(by)];
            let end = places(base).min(known.len().saturating_add(most));
            known.extend((known.len()..end).map(|place| health_at(roster, (base as u32, place), by, &of)));
        }
        true
    }
}

impl Standings {
    /// Returns the standing under the roster that follows `old`.
    ///
    /// `became` says what became of each slot; `health` has been found out for the new roster. Servers whose weight or
    /// state differs between the rosters get the newer one; what operators changed otherwise stays. Servers that are added
    /// begin slow start. What has changed for servers that are kept is news for readers that have read everything before.
    #[must_use]
    pub fn followed_by(
        &self,
        now: Instant,
        (old, new): (&Roster, &Roster),
        became: impl Fn(ServerId) -> Became,
        health: HealthOfAll,
    ) -> Standings {
        let mut next = Standings {
            servers: Vec::with_capacity(new.servers().len()),
            health: health.health,
            eras: self.eras,
            timers: Schedule::new(new.servers().len()),
            notices: self.notices.clone(),
            news: VecDeque::new(),
            next_news: self.next_news,
        };
        for (id, settings) in (0..).map(ServerId).zip(new.servers()) {
            let became = became(id);
            let before = self
                .servers
                .get(id.0 as usize)
                .filter(|_| matches!(became, Became::Kept | Became::Removed | Became::Leaving));
            next.servers.push(before.map_or_else(|| Server::new(settings), Server::clone));
            match (became, before) {
                (Became::Kept, Some(before)) => next.keep(now, (old, new), id, self.may_be_gone(old, id), before),
                (Became::Removed, Some(before)) => {
                    if before.admin == Admin::Enabled {
                        next.servers[id.0 as usize].admin = Admin::Draining;
                    }
                    next.enter_era(id);
                }
                (Became::Guest, _) => next.enter_era(id),
                (Became::Added, _) => {
                    next.enter_era(id);
                    next.servers[id.0 as usize].back_since = Some(now);
                }
                _ => {}
            }
            next.watch(new, now, id);
        }
        next
    }

    /// Applies to a server that both configurations have what the newer one says differently.
    fn keep(&mut self, now: Instant, (old, new): (&Roster, &Roster), id: ServerId, was_gone: bool, before: &Server) {
        let (is_gone, was, is) = (self.may_be_gone(new, id), old.server(id), new.server(id));
        let state = &mut self.servers[id.0 as usize];
        if was.weight != is.weight {
            state.weight = is.weight;
        }
        // An operator may have set it already, with a deadline.
        if was.admin != is.admin && state.admin != is.admin {
            (state.admin, state.deadline) = (is.admin, None);
        }
        let slows = state.units(now, is.slow_start) != before.units(now, was.slow_start);
        if slows || (state.weight, state.admin) != (before.weight, before.admin) || was_gone != is_gone {
            self.publish(id, News::Standing);
        }
        let state = &mut self.servers[id.0 as usize];
        let (was_open, is_open) = (before.is_open(now), state.is_open(now));
        if !was_gone && is_gone || was_open && !is_open {
            self.enter_era(id);
        } else if was_gone && !is_gone || !was_open && is_open {
            state.back_since = Some(now);
        }
    }
}
