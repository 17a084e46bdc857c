//! Another configuration while the engine runs: live flows stay, and everything that the newer plan still has keeps its
//! state.
//!
//! What is slow is done aside: [`Engine::succession`] is a picture of what the work needs, [`Succession::prepare`] may run
//! in any thread, and [`Engine::follow`] puts the result in force between two packets.

use super::plan::{Common, InUse, Plan};
use super::standing::Standing;
use super::{Cursor, Engine, Event};
use crate::balance::{Chooser, HealthOfAll, Loads, Standings};
use crate::config::Settings;
use crate::flow::Table;
use crate::health::{HealthSettings, Heritage, Monitors};
use crate::packet::Side;
use crate::policy::NO_RULE;
use crate::state::Health;
use crate::time::Instant;
use ipnet::IpNet;
use std::collections::HashSet;
use std::sync::Arc;

/// Servers looked at in one call of [`Engine::get_ready`].
const PORTION: usize = 128;

/// What is needed of an engine to prepare its next plan.
#[derive(Debug)]
pub struct Succession {
    now: Instant,
    plan: Arc<Plan>,
    in_use: InUse,
    standings: Standings,
    loads: Loads,
}

/// A plan with everything that can be made of it beforehand.
#[derive(Debug)]
pub struct Successor {
    before: Arc<Plan>,
    plan: Arc<Plan>,
    common: Common,
    monitors: Monitors,
    heritage: Heritage,
    health: HealthOfAll,
    chooser: Chooser,
}

/// What has been replaced; dropping it takes a while, which need not be between two packets.
#[derive(Debug)]
pub struct Replaced(#[allow(dead_code, reason = "held until it is dropped")] (Arc<Plan>, Monitors, Standing, Chooser));

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
    /// Returns whether there are enough numbers for the rules of `settings` beside those that live flows may have: rules
    /// with other names have other numbers.
    pub fn has_room(&self, settings: &Settings) -> bool {
        let names: HashSet<&str> = settings.policy.rules.iter().map(|rule| rule.name.as_str()).collect();
        let old = self.plan.settings().policy.rules.iter().zip(&self.in_use.rules);
        let gone = old.filter(|(rule, is_used)| **is_used && !names.contains(rule.name.as_str())).count();
        gone + settings.policy.rules.len() <= usize::from(NO_RULE)
    }

    /// Compiles checked settings as the next plan, for which there must be room.
    pub fn prepare(self, settings: &Settings) -> Successor {
        let settings = settings.clone().live(self.plan.written());
        let plan = Arc::new(self.plan.followed_by(&settings, &self.in_use));
        self.prepare_plan(plan)
    }

    /// The same for a plan that is compiled.
    pub(super) fn prepare_plan(self, plan: Arc<Plan>) -> Successor {
        let seed = self.plan.settings().seed;
        let common = Common::of(&self.plan, &plan);
        let health = HealthSettings { seed, ..plan.settings().health.clone() };
        Successor {
            monitors: Monitors::new(&health),
            heritage: Heritage::default(),
            health: HealthOfAll::default(),
            chooser: self.chooser(&plan, &common),
            common,
            before: self.plan,
            plan,
        }
    }

    /// Returns a chooser that is up to date if nothing happens until the plan is in force.
    fn chooser(&self, plan: &Plan, common: &Common) -> Chooser {
        let rosters = (self.plan.roster(), plan.roster());
        let is_down = |server| common.is_same_server(server) && self.standings.may_be_gone(rosters.0, server);
        let mut health = HealthOfAll::default();
        let of = |server, _, _| if is_down(server) { Health::Down } else { Health::Up };
        while health.advance(rosters.1, of, usize::MAX) {}
        let expected = self.standings.followed_by(self.now, rosters, |server| common.server(server), health);
        Chooser::prepared(self.now, rosters.1, plan.settings().seed, &expected, self.loads.clone())
    }
}

impl Successor {
    /// Returns the plan that it is about.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Takes over what the monitors have learned, and operators forced, since servers had their turn.
    fn catch_up(&mut self, now: Instant, old: &Monitors) {
        let Successor { plan, common, monitors, health, .. } = self;
        if monitors.catch_up(now, old, |id| common.was_monitored(id)) {
            *health = HealthOfAll::default();
            while health.advance(plan.roster(), |server, v6, port| monitors.state(server, v6, port), usize::MAX) {}
        }
    }
}

impl Engine {
    /// Returns what [`Succession::prepare`] needs.
    pub fn succession(&self, now: Instant) -> Succession {
        Succession {
            now,
            plan: Arc::clone(&self.plan),
            in_use: self.shard.in_use().and_all_of(&self.plan),
            standings: self.standing.servers().clone(),
            loads: self.shard.chooser().loads(),
        }
    }

    /// Compiles settings and puts them in force; see [`Engine::follow`].
    ///
    /// The size of the table and the seed stay. The same settings change nothing at all.
    pub fn reload(&mut self, now: Instant, settings: &Settings, removed: Removed) {
        if *self.plan.written() == settings.clone().live(self.plan.written()) {
            return;
        }
        let successor = self.succession(now).prepare(settings);
        let followed = self.follow(now, successor, removed);
        debug_assert!(followed.is_ok(), "nothing has come between");
    }

    /// Does a part of what [`Engine::follow`] needs and takes long; returns true if there is more. What is not done by then,
    /// `follow` does.
    pub fn get_ready(&self, now: Instant, successor: &mut Successor) -> bool {
        self.get_ready_by(now, successor, PORTION)
    }

    pub(super) fn get_ready_by(&self, now: Instant, successor: &mut Successor, most: usize) -> bool {
        let Successor { plan, common, monitors, heritage, health, .. } = successor;
        monitors.inherit_part(now, &self.monitors, |id| common.was_monitored(id), heritage, most)
            || health.advance(plan.roster(), |server, v6, port| monitors.state(server, v6, port), most)
    }

    /// Puts a prepared plan in force.
    ///
    /// Flows stay, also those of removed services and servers; removed servers get no new ones. What operators changed
    /// stays, unless the two files differ in that very key. Monitors go on with what they know.
    ///
    /// # Errors
    /// [`NotFollowed`] if another plan was put in force since; nothing changes then.
    pub fn follow(
        &mut self,
        now: Instant,
        mut successor: Successor,
        removed: Removed,
    ) -> Result<Replaced, NotFollowed> {
        if !Arc::ptr_eq(&successor.before, &self.plan) {
            return Err(NotFollowed::Outdated);
        }
        while self.get_ready_by(now, &mut successor, usize::MAX) {}
        successor.catch_up(now, &self.monitors);
        self.take_health(now);
        self.take_idle(now);
        self.advance();
        let Successor { before: old, plan: new, common, monitors, health, chooser, .. } = successor;
        let standing = self.standing.followed_by(now, (&old, &new), &common, health);
        let (all_timeouts, chooser) = self.shard.follow_plan(now, (&old, &new), &common, (&standing, chooser));
        let monitors = std::mem::replace(&mut self.monitors, monitors);
        let standing = std::mem::replace(&mut self.standing, standing);
        self.plan = Arc::clone(&new);
        self.advance();
        self.shard.refresh(now, &self.plan, &self.standing);
        if !all_timeouts {
            self.shard.report(Event::TooManyTimeouts);
        }
        self.settle_all(now, &common, removed);
        Ok(Replaced((old, monitors, standing, chooser)))
    }

    /// Returns the networks that are no longer in the configuration and still the gateway's own, as flows may use them.
    pub fn retired(&self) -> &[IpNet] {
        self.standing.retired()
    }

    /// Makes networks the gateway's own that are not in the configuration: flows that it has from another gateway use them.
    pub fn retire(&mut self, networks: &[IpNet]) {
        self.standing.retire(&self.plan, networks);
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
        let is_own = |address| self.plan.is_own(address) && !self.standing.is_retired(address);
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
