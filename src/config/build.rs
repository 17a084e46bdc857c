//! Makes the settings out of values that were read and checked.
//!
//! It must not judge: what is wrong has been told, and what it makes then is not used.

use super::links::Links;
use super::raw::Raw;
use super::raw_rule::RawRule;
use super::raw_service::RawService;
use super::settings::Settings;
use super::values::{v4, v6};
use crate::balance::{LastResort, PoolSettings, ServerSettings, ServiceSettings};
use crate::ids::{PoolId, ServerId, ServiceId};
use crate::policy::{Action, PolicySettings, RuleSettings};
use serde_spanned::Spanned;
use std::collections::HashMap;

/// The checked values in the order of the file. A pool that is not known becomes pool 0, and an
/// unnamed thing gets an empty name: both only where an error was reported.
pub(super) fn settings(raw: Raw, links: &Links) -> Settings {
    let gateway = raw.gateway.settings;
    let mut settings = Settings { seed: raw.seed, table: raw.table, gateway, ..Settings::default() };
    for pool in raw.pools {
        let id = PoolId(settings.pools.len() as u32);
        let first = settings.servers.len();
        for server in pool.servers {
            let of_family = |address: &Spanned<std::net::IpAddr>| *address.get_ref();
            settings.servers.push(ServerSettings {
                name: text(server.name),
                pool: id,
                v4: server.addresses.iter().map(of_family).find_map(v4),
                v6: server.addresses.iter().map(of_family).find_map(v6),
                ..server.settings
            });
        }
        let servers = (first..settings.servers.len()).map(|at| ServerId(at as u32)).collect();
        let passive = pool.passive.map(|passive| passive.settings);
        settings.pools.push(PoolSettings { name: text(pool.name), servers, passive });
    }
    settings.services = services(raw.services, links);
    settings.policy = policy(raw.rules, raw.rate, links);
    settings
}

fn text(name: Option<Spanned<String>>) -> String {
    name.map(Spanned::into_inner).unwrap_or_default()
}

fn services(raw: Vec<RawService>, links: &Links) -> Vec<ServiceSettings> {
    // A group has the number of its first service, so no two have one.
    let mut groups: HashMap<String, u32> = HashMap::new();
    let pool = |at: usize| PoolId(at as u32);
    let mut services = Vec::with_capacity(raw.len());
    for (at, service) in raw.into_iter().enumerate() {
        let mut settings = service.settings;
        if let Some(sticky) = &mut settings.sticky {
            let own = at as u32;
            sticky.group = service.group.map_or(own, |group| *groups.entry(group.into_inner()).or_insert(own));
        }
        if let Some(resort) = links.last_resorts[at] {
            settings.last_resort = LastResort::Pool(pool(resort));
        }
        services.push(ServiceSettings {
            name: text(service.name),
            listen: service.listen.into_iter().map(Spanned::into_inner).collect(),
            pool: pool(links.pools[at].unwrap_or(0)),
            ..settings
        });
    }
    services
}

fn policy(raw: Vec<RawRule>, rate: Option<u32>, links: &Links) -> PolicySettings {
    let mut policy = PolicySettings { rules: Vec::with_capacity(raw.len()), rate, interfaces: Vec::new() };
    let mut places: HashMap<String, u16> = HashMap::new();
    for (at, rule) in raw.into_iter().enumerate() {
        let ingress = rule.ingress.map(|name| {
            *places.entry(name.get_ref().clone()).or_insert_with(|| {
                policy.interfaces.push(name.into_inner());
                // There are no more names than rules.
                policy.interfaces.len() as u16
            })
        });
        let action = match rule.settings.action {
            Action::Balance(_) => Action::Balance(links.services[at].map(|service| ServiceId(service as u32))),
            other => other,
        };
        policy.rules.push(RuleSettings {
            name: text(rule.name),
            from: rule.from.into_iter().map(Spanned::into_inner).collect(),
            to: rule.to.into_iter().map(Spanned::into_inner).collect(),
            ingress,
            action,
            ..rule.settings
        });
    }
    policy
}
