//! Slot assignment: names outside, dense slots inside.
//!
//! A plan that follows another gives each object that kept its name its previous slot, wherever it is in the file. The
//! slot of a removed object is kept, without being offered to new flows, for as long as anything refers to it; only
//! then is it reused. A server whose address or port changed is a different server.

use crate::balance::{LastResort, Listen, Nat, PoolSettings, ServerSettings, ServiceSettings};
use crate::config::Settings;
use crate::flow::NatPoolSettings;
use crate::health::settings::{PoolWatch, ServerWatch};
use crate::ids::{NatPoolId, PoolId, ServerId, ServiceId};
use crate::policy::{Action, RuleSettings};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Slots that flows, sticky slots or resting ports refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    /// By service slot.
    pub services: Vec<bool>,
    /// By server slot.
    pub servers: Vec<bool>,
    /// By NAT pool slot.
    pub nat_pools: Vec<bool>,
    /// By rule slot.
    pub rules: Vec<bool>,
}

/// The slots of the objects in the file, each kind in file order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engine) struct Order {
    pub(in crate::engine) services: Vec<ServiceId>,
    pub(in crate::engine) servers: Vec<ServerId>,
    pub(in crate::engine) rules: Vec<u16>,
    pub(super) pools: Vec<PoolId>,
    pub(super) nat_pools: Vec<NatPoolId>,
}

impl Order {
    /// Returns the positions in the file as slots, for a plan that follows none.
    pub(super) fn of(settings: &Settings) -> Self {
        Order {
            services: (0..settings.services.len() as u32).map(ServiceId).collect(),
            servers: (0..settings.servers.len() as u32).map(ServerId).collect(),
            rules: (0..settings.policy.rules.len() as u16).collect(),
            pools: (0..settings.pools.len() as u32).map(PoolId).collect(),
            nat_pools: (0..settings.nat_pools.len() as u32).map(NatPoolId).collect(),
        }
    }
}

/// Assigns slots to the objects of `written`, and returns the settings by slot, including removed objects still in use.
pub(super) fn follow(old: &Settings, written: &Settings, in_use: &InUse) -> (Settings, Order) {
    let pools_in_use = pools_in_use(old, in_use);
    let names = |all: &[String]| all.iter().cloned().map(Some).collect::<Vec<_>>();
    let pool_names = |of: &Settings| of.pools.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>();
    let servers = |of: &Settings| of.servers.iter().map(|server| server_key(of, server)).map(Some).collect::<Vec<_>>();
    let services = |of: &Settings| of.services.iter().map(|service| Some(service.name.clone())).collect::<Vec<_>>();
    let nat_pools = |of: &Settings| of.nat_pools.iter().map(|pool| Some(pool.name.clone())).collect::<Vec<_>>();
    let rules = |of: &Settings| of.policy.rules.iter().map(|rule| Some(rule.name.clone())).collect::<Vec<_>>();
    let slots = Slots {
        pools: assign(&names(&pool_names(old)), &names(&pool_names(written)), &pools_in_use),
        servers: assign(&servers(old), &servers(written), &in_use.servers),
        services: assign(&services(old), &services(written), &in_use.services),
        nat_pools: assign(&nat_pools(old), &nat_pools(written), &in_use.nat_pools),
        rules: assign(&rules(old), &rules(written), &in_use.rules),
        sticky: sticky_groups(old, written),
    };
    let order = Order {
        services: slots.services.iter().copied().map(ServiceId).collect(),
        servers: slots.servers.iter().copied().map(ServerId).collect(),
        rules: slots.rules.iter().map(|slot| *slot as u16).collect(),
        pools: slots.pools.iter().copied().map(PoolId).collect(),
        nat_pools: slots.nat_pools.iter().copied().map(NatPoolId).collect(),
    };
    (slots.renumber(old, written, in_use, &pools_in_use), order)
}

/// The identity of a server: the name of its pool, its own name, its address and port.
fn server_key(settings: &Settings, server: &ServerSettings) -> (String, String, ServerPlace) {
    let pool = settings.pools[server.pool.0 as usize].name.clone();
    (pool, server.name.clone(), (server.v4, server.v6, server.port))
}

type ServerPlace = (Option<std::net::Ipv4Addr>, Option<std::net::Ipv6Addr>, Option<u16>);

/// Returns the pools of servers and services that are in use.
fn pools_in_use(old: &Settings, in_use: &InUse) -> Vec<bool> {
    let is_set = |all: &[bool], at: usize| all.get(at) == Some(&true);
    let mut pools = vec![false; old.pools.len()];
    for (at, server) in old.servers.iter().enumerate().filter(|(at, _)| is_set(&in_use.servers, *at)) {
        debug_assert!(at < old.servers.len());
        pools[server.pool.0 as usize] = true;
    }
    for (_, service) in old.services.iter().enumerate().filter(|(at, _)| is_set(&in_use.services, *at)) {
        pools[service.pool.0 as usize] = true;
    }
    pools
}

/// Gives each new object the slot of the old object with the same identity, otherwise the first slot that nothing
/// refers to.
fn assign<K: Hash + Eq>(old: &[Option<K>], new: &[Option<K>], in_use: &[bool]) -> Vec<u32> {
    let known: HashMap<&K, u32> = (0..).zip(old).filter_map(|(slot, key)| Some((key.as_ref()?, slot))).collect();
    let kept: Vec<Option<u32>> = new.iter().map(|key| known.get(key.as_ref()?).copied()).collect();
    let mut taken = vec![false; old.len()];
    kept.iter().flatten().for_each(|slot| taken[*slot as usize] = true);
    let mut free = (0..old.len() as u32)
        .filter(|slot| !taken[*slot as usize] && in_use.get(*slot as usize) != Some(&true))
        .chain(old.len() as u32..);
    kept.into_iter().map(|slot| slot.unwrap_or_else(|| free.next().unwrap_or(u32::MAX))).collect()
}

/// The slot of each object by its position in the file.
struct Slots {
    pools: Vec<u32>,
    servers: Vec<u32>,
    services: Vec<u32>,
    nat_pools: Vec<u32>,
    rules: Vec<u32>,
    /// The number of each group of services with shared sticky slots, by its number in the file.
    sticky: BTreeMap<u32, u32>,
}

/// Numbers the groups with shared sticky slots: a group of the same name keeps its number, and no two groups share one.
/// A group without a name belongs to a single service.
fn sticky_groups(old: &Settings, written: &Settings) -> BTreeMap<u32, u32> {
    let named = |settings: &Settings| {
        let groups = settings.services.iter().filter_map(|service| Some((service.sticky.as_ref()?.group, service)));
        let name = |(group, service): (u32, &ServiceSettings)| {
            let own = || (false, service.name.clone());
            let name = settings.sticky_groups.get(&group).map_or_else(own, |name| (true, name.clone()));
            (name, group)
        };
        groups.map(name).collect::<BTreeMap<_, _>>()
    };
    let (before, now) = (named(old), named(written));
    let kept: BTreeMap<u32, u32> = now.iter().filter_map(|(name, group)| Some((*group, *before.get(name)?))).collect();
    let mut taken: Vec<u32> = before.into_values().collect();
    let mut fresh = |group: u32| {
        let free = std::iter::once(group).chain(0..).find(|number| !taken.contains(number)).unwrap_or(group);
        taken.push(free);
        free
    };
    now.into_values().map(|group| (group, kept.get(&group).copied().unwrap_or_else(|| fresh(group)))).collect()
}

/// Returns the names that the older configuration has for the groups of services that are still in use.
fn sticky_names(settings: &Settings, old: &Settings) -> BTreeMap<u32, String> {
    let groups = settings.services.iter().filter_map(|service| Some(service.sticky.as_ref()?.group));
    groups.filter_map(|group| Some((group, old.sticky_groups.get(&group)?.clone()))).collect()
}

/// Puts objects into their slots: those in the file, then removed ones still in use; the rest are vacant.
fn lay_out<T>(
    slots: &[u32],
    new: impl Iterator<Item = T>,
    gone: impl Iterator<Item = (usize, T)>,
    vacant: impl Fn() -> T,
) -> Vec<T> {
    let mut laid: Vec<Option<T>> = Vec::new();
    let mut put = |slot: usize, thing: T| {
        if laid.len() <= slot {
            laid.resize_with(slot + 1, || None);
        }
        // Objects in the file come first and keep their slots.
        laid[slot].get_or_insert(thing);
    };
    slots.iter().zip(new).for_each(|(slot, thing)| put(*slot as usize, thing));
    gone.for_each(|(slot, thing)| put(slot, thing));
    laid.into_iter().map(|thing| thing.unwrap_or_else(&vacant)).collect()
}

impl Slots {
    fn renumber(&self, old: &Settings, written: &Settings, in_use: &InUse, pools_in_use: &[bool]) -> Settings {
        let pool = |id: PoolId| PoolId(self.pools[id.0 as usize]);
        let server = |id: ServerId| ServerId(self.servers[id.0 as usize]);
        let used = |all: &[bool]| {
            let all = all.to_vec();
            move |at: &usize| all.get(*at) == Some(&true)
        };
        let (services_used, servers_used) = (used(&in_use.services), used(&in_use.servers));
        let (nat_used, rules_used, pools_used) = (used(&in_use.nat_pools), used(&in_use.rules), used(pools_in_use));
        let services = written.services.iter().map(|service| self.service(service));
        let gone_service = |(at, service): (usize, &ServiceSettings)| {
            // It keeps its sticky group, in which its flows count.
            let listen: Vec<Listen> = Vec::new();
            (at, ServiceSettings { listen, last_resort: LastResort::Drop, ..service.clone() })
        };
        let pools = written
            .pools
            .iter()
            .map(|own| PoolSettings { servers: own.servers.iter().map(|id| server(*id)).collect(), ..own.clone() });
        let gone_pool = |(at, pool): (usize, &PoolSettings)| (at, PoolSettings { servers: Vec::new(), ..pool.clone() });
        let servers = written.servers.iter().map(|own| ServerSettings { pool: pool(own.pool), ..own.clone() });
        let rules = written.policy.rules.iter().map(|rule| self.rule(rule));
        let mut settings = Settings {
            services: lay_out(
                &self.services,
                services,
                old.services.iter().enumerate().filter(|(at, _)| services_used(at)).map(gone_service),
                || ServiceSettings::new("", Vec::new(), PoolId(0)),
            ),
            pools: lay_out(
                &self.pools,
                pools,
                old.pools.iter().enumerate().filter(|(at, _)| pools_used(at)).map(gone_pool),
                || PoolSettings::new("", Vec::new()),
            ),
            servers: lay_out(
                &self.servers,
                servers,
                old.servers.iter().enumerate().filter(|(at, _)| servers_used(at)).map(|(at, s)| (at, s.clone())),
                || ServerSettings::new("", PoolId(0)),
            ),
            nat_pools: lay_out(
                &self.nat_pools,
                written.nat_pools.iter().cloned(),
                old.nat_pools.iter().enumerate().filter(|(at, _)| nat_used(at)).map(|(at, p)| (at, p.clone())),
                || NatPoolSettings::new(""),
            ),
            ..written.clone()
        };
        settings.policy.rules = lay_out(
            &self.rules,
            rules,
            old.policy.rules.iter().enumerate().filter(|(at, _)| rules_used(at)).map(|(at, r)| (at, r.clone())),
            || RuleSettings::new("", Action::Drop),
        );
        settings.sticky_groups = sticky_names(&settings, old);
        settings.sticky_groups.extend(written.sticky_groups.iter().map(|(own, name)| (self.sticky[own], name.clone())));
        settings.health.pools = written.health.pools.iter().map(|watch| self.watch(watch)).collect();
        if settings.pools.is_empty() {
            // A vacant server slot has to name some pool.
            settings.pools.push(PoolSettings::new("", Vec::new()));
        }
        settings
    }

    fn service(&self, service: &ServiceSettings) -> ServiceSettings {
        let pool = |id: PoolId| PoolId(self.pools[id.0 as usize]);
        let last_resort = match service.last_resort {
            LastResort::Pool(id) => LastResort::Pool(pool(id)),
            other => other,
        };
        let nat = match &service.nat {
            Nat::Full { pool, only_for, families } => Nat::Full {
                pool: NatPoolId(self.nat_pools[pool.0 as usize]),
                only_for: only_for.clone(),
                families: *families,
            },
            Nat::Destination => Nat::Destination,
        };
        let mut own = ServiceSettings { pool: pool(service.pool), last_resort, nat, ..service.clone() };
        if let Some(sticky) = &mut own.sticky {
            sticky.group = self.sticky[&sticky.group];
        }
        own
    }

    fn rule(&self, rule: &RuleSettings) -> RuleSettings {
        let action = match rule.action {
            Action::Balance(Some(service)) => Action::Balance(Some(ServiceId(self.services[service.0 as usize]))),
            other => other,
        };
        RuleSettings { action, ..rule.clone() }
    }

    fn watch(&self, watch: &PoolWatch) -> PoolWatch {
        let server =
            |own: &ServerWatch| ServerWatch { server: ServerId(self.servers[own.server.0 as usize]), ..own.clone() };
        PoolWatch {
            pool: PoolId(self.pools[watch.pool.0 as usize]),
            servers: watch.servers.iter().map(server).collect(),
            ..watch.clone()
        }
    }
}
