//! Another configuration while the engine runs: live flows stay, and everything that the newer plan still has keeps its
//! state.
//!
//! What is slow is done aside: [`Engine::succession`] is a picture of what the work needs, [`Succession::prepare`] may run
//! in any thread, and [`Engine::follow`] puts the result in force between two packets.

use super::plan::{Common, InUse, Plan};
use super::{Cursor, Engine, Event};
use crate::balance::Chooser;
use crate::config::Settings;
use crate::flow::Table;
use crate::health::{HealthSettings, Monitors};
use crate::ids::ServerId;
use crate::packet::Side;
use crate::time::Instant;
use ipnet::IpNet;
use std::sync::Arc;

/// What is needed of an engine to prepare its next plan.
#[derive(Debug)]
pub struct Succession {
    plan: Arc<Plan>,
    in_use: InUse,
}

/// A plan with everything that can be made of it beforehand.
#[derive(Debug)]
pub struct Successor {
    before: Arc<Plan>,
    plan: Arc<Plan>,
    common: Common,
    monitors: Monitors,
    chooser: Chooser,
}

/// What becomes of removed servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Removed {
    /// They keep their flows and get no new ones.
    #[default]
    Drain,
    /// Their flows end at once, TCP flows by resets to both ends.
    EndNow,
}

/// A plan that was not put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFollowed {
    /// Another plan has been put in force since it was prepared.
    Outdated,
}

impl Succession {
    /// Compiles checked settings as the next plan.
    pub fn prepare(self, settings: &Settings) -> Successor {
        let seed = self.plan.settings().seed;
        let settings = settings.clone().live(self.plan.written());
        let plan = Arc::new(self.plan.followed_by(&settings, &self.in_use));
        let health = HealthSettings { seed, ..plan.settings().health.clone() };
        Successor {
            common: Common::of(&self.plan, &plan),
            monitors: Monitors::new(&health),
            chooser: Chooser::new(plan.roster(), seed),
            before: self.plan,
            plan,
        }
    }
}

impl Successor {
    /// Returns the plan that it is about.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
}

impl Engine {
    /// Returns what [`Succession::prepare`] needs.
    pub fn succession(&self) -> Succession {
        Succession { plan: Arc::clone(&self.plan), in_use: self.shard.in_use().and_all_of(&self.plan) }
    }

    /// Compiles settings and puts them in force; see [`Engine::follow`].
    ///
    /// The size of the table and the seed stay. The same settings change nothing at all.
    pub fn reload(&mut self, now: Instant, settings: &Settings, removed: Removed) {
        if *self.plan.written() == settings.clone().live(self.plan.written()) {
            return;
        }
        let successor = self.succession().prepare(settings);
        let followed = self.follow(now, successor, removed);
        debug_assert_eq!(followed, Ok(()), "nothing has come between");
    }

    /// Puts a prepared plan in force.
    ///
    /// Flows stay, also those of removed services and servers; removed servers get no new ones. What operators changed
    /// stays, unless the two files differ in that very key. Monitors go on with what they know.
    ///
    /// # Errors
    /// [`NotFollowed`] if another plan was put in force since; nothing changes then.
    pub fn follow(&mut self, now: Instant, successor: Successor, removed: Removed) -> Result<(), NotFollowed> {
        let Successor { before: old, plan: new, common, mut monitors, chooser } = successor;
        if !Arc::ptr_eq(&old, &self.plan) {
            return Err(NotFollowed::Outdated);
        }
        self.take_health(now);
        monitors.inherit(now, &self.monitors, |id| common.was_monitored(id));
        self.monitors = monitors;
        let health = |server: ServerId, v6, port| self.monitors.state(server, v6, port);
        self.standing = self.standing.followed_by(now, (&old, &new), &common, health);
        let all_timeouts = self.shard.follow_plan(now, (&old, &new), &common, (&self.standing, chooser));
        self.plan = Arc::clone(&new);
        self.shard.refresh(now, &self.plan, &self.standing);
        if !all_timeouts {
            self.shard.report(Event::TooManyTimeouts);
        }
        self.settle_all(now, &common, removed);
        Ok(())
    }

    /// Returns the networks that are no longer in the configuration and still the gateway's own, as flows may use them.
    pub fn retired(&self) -> &[IpNet] {
        self.standing.retired()
    }

    /// Returns whether flows may be left of addresses or servers that are no longer in the configuration.
    pub fn has_retired(&self) -> bool {
        let listed = self.plan.order().servers.len();
        let servers = &self.plan.settings().servers;
        !self.standing.retired().is_empty() || servers.iter().filter(|server| !server.name.is_empty()).count() > listed
    }

    /// Looks for a flow of an address or a server that is no longer in the configuration, and examines at most `most`
    /// slots of the table; returns whether there is one, and where to continue, none at the end.
    pub fn find_retired(&self, from: Cursor, most: usize) -> (bool, Option<Cursor>) {
        let table = self.shard.table();
        for (looked_at, (index, used)) in table.slots(from.0).enumerate() {
            if looked_at >= most {
                return (false, Some(Cursor(Table::position(index))));
            }
            if used && self.is_retired(index) {
                return (true, None);
            }
        }
        (false, None)
    }

    fn is_retired(&self, index: u32) -> bool {
        let (client, server) =
            (self.shard.table().key(index, Side::Client), self.shard.table().key(index, Side::Server));
        let is_own = |address| self.plan.is_own(address);
        !is_own(client.addresses.dst())
            || server.addresses.dst() != client.addresses.src() && !is_own(server.addresses.dst())
            || !self.plan.roster().is_in_a_pool(self.shard.table().server_of(index))
    }

    /// Gives up the retired networks: from here on, packets to them pass unchanged.
    pub fn forget_retired(&mut self) {
        self.standing.forget_retired();
    }

    /// Ends the flows that have to end under the plan in force.
    fn settle_all(&mut self, now: Instant, common: &Common, removed: Removed) {
        self.follow_gone(now, self.standing.any_is_gone());
        if removed == Removed::EndNow {
            for server in common.removed() {
                self.standing.set_drained(server, true);
                self.shard.begin_walk(now);
            }
        }
        self.take_notices(now);
        self.advance();
    }
}
