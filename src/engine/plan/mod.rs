//! The configuration, compiled for lookups. Immutable and shared; a reload compiles another one.
//!
//! It must not know what has happened since: that is the task of [`super::standing`] and [`super::shard`].

mod became;
mod diff;
mod directory;
mod guests;
mod identity;
mod names;
mod owners;

pub(super) use became::Common;
pub use diff::{KeyDiff, ObjectChange, ObjectDiff, PlanDiff};
pub(super) use guests::{MOST_GUESTS, guest, is_name};
pub use identity::InUse;
pub(super) use identity::Order;
pub(super) use names::Names;
pub(super) use owners::Owner;

use crate::balance::{Algorithm, Roster, ServiceSettings};
use crate::config::{AnswerSettings, Settings};
use crate::ids::{NatPoolId, PoolId, ServerId, ServiceId};
use crate::policy::Rules;
use directory::Directory;
use std::net::IpAddr;
use std::sync::Arc;

/// A configuration, compiled.
#[derive(Debug)]
pub struct Plan {
    /// By slot.
    settings: Settings,
    /// As in the file, if slots differ from file positions.
    written: Option<Box<Settings>>,
    order: Order,
    directory: Directory,
    roster: Roster,
    rules: Rules,
    /// Made with the plan if there is a peer, which asks between two packets.
    names: Option<Arc<Names>>,
}

impl Plan {
    /// Compiles checked settings.
    pub fn new(settings: &Settings) -> Self {
        Plan::compile(settings.clone(), None, Order::of(settings))
    }

    /// Compiles checked settings as the successor of this plan: whatever kept its name keeps its slot, and slots that
    /// are in use are not reassigned.
    #[must_use]
    pub fn followed_by(&self, settings: &Settings, in_use: &InUse) -> Self {
        let (by_slot, order) = identity::follow(&self.settings, settings, in_use);
        Plan::compile(by_slot, Some(Box::new(settings.clone())), order)
    }

    fn compile(settings: Settings, written: Option<Box<Settings>>, order: Order) -> Self {
        let mut by_port = vec![false; settings.pools.len()];
        settings.health.pools.iter().for_each(|watch| by_port[watch.pool.0 as usize] |= watch.is_by_port());
        let by_port = |pool: PoolId| by_port[pool.0 as usize];
        let used = order.services.iter().map(|service| settings.services[service.0 as usize].priority);
        let mut plan = Plan {
            directory: Directory::new(&settings),
            roster: Roster::with_health_by(&settings.services, &settings.pools, &settings.servers, by_port),
            rules: Rules::new(&settings.policy, order.rules.clone(), used),
            settings,
            written,
            order,
            names: None,
        };
        if plan.settings.sync.is_some() {
            plan.names = Some(plan.names());
        }
        plan
    }

    /// Returns the slots by name, also of what is not configured any more and still in use.
    pub(super) fn names(&self) -> Arc<Names> {
        self.names.clone().unwrap_or_else(|| Arc::new(Names::of_all(self)))
    }

    /// Returns the settings by slot, including removed objects still in use.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the settings that it was compiled from, in file order.
    pub fn written(&self) -> &Settings {
        self.written.as_deref().unwrap_or(&self.settings)
    }

    /// Returns the slots of the objects in the file.
    pub(super) fn order(&self) -> &Order {
        &self.order
    }

    #[inline]
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    #[inline]
    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn answers(&self) -> &AnswerSettings {
        &self.settings.answers
    }

    #[inline]
    pub(super) fn service(&self, service: ServiceId) -> &ServiceSettings {
        self.roster.service(service)
    }

    /// Returns the size of the largest packet to a client in bytes; 0 is unknown.
    #[inline]
    pub(super) fn client_mtu(&self) -> u16 {
        self.settings.gateway.client_mtu.unwrap_or(0)
    }

    /// Returns whether the settings cover the whole path to a server; the MTU of a route applies only to its first hop.
    pub(super) fn path_mtu_is_stated(&self, server: ServerId) -> bool {
        self.pool_mtu(server).is_some()
    }

    /// Returns the path MTU that the settings state for a server's pool.
    pub(super) fn pool_mtu(&self, server: ServerId) -> Option<u16> {
        self.settings.pools[self.roster.server(server).pool.0 as usize].mtu
    }

    /// Returns the path MTU that the settings state for the pool of a server in a slot, if there is one.
    pub(super) fn pool_mtu_of(&self, server: ServerId) -> Option<u16> {
        self.roster.has(server).then(|| self.pool_mtu(server)).flatten()
    }

    /// Returns whether the gateway answers for an address.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.directory.is_service_address(address) || self.directory.is_nat_address(address)
    }

    /// Returns the names of a server's pool and of the server.
    pub(super) fn pool_and_server(&self, server: ServerId) -> (&str, &str) {
        let settings = self.roster.server(server);
        (&self.settings.pools[settings.pool.0 as usize].name, &settings.name)
    }

    /// Returns a server's name as events show it: `pool/server`.
    pub(super) fn server_name(&self, server: ServerId) -> String {
        let (pool, server) = self.pool_and_server(server);
        format!("{pool}/{server}")
    }

    /// Returns a service's listen addresses, its pool and its algorithm, as rows show them.
    pub(super) fn service_row(&self, service: ServiceId) -> (Vec<String>, &str, Algorithm) {
        let settings = self.service(service);
        let listen = settings.listen.iter().map(ToString::to_string).collect();
        (listen, &self.settings.pools[settings.pool.0 as usize].name, settings.algorithm)
    }

    /// Returns the name of a NAT pool.
    pub(super) fn nat_pool_name(&self, pool: NatPoolId) -> &str {
        &self.settings.nat_pools[pool.0 as usize].name
    }
}
