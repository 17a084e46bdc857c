//! What a killed gateway left behind in the kernel, recognized by [`PROTOCOL`] and removed.
//!
//! It must not know how a gateway is installed, and never touches one that is running.

use super::{FALLBACK, MAIN, PROTOCOL, SetupError, open};
use crate::config::{GatewaySettings, Settings};
use crate::gateway::netlink::{Link, Netlink, Route};
use crate::gateway::wanted;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use std::collections::BTreeSet;

/// Deletes what a killed gateway with the same device or routing table left behind; returns the number of rules and
/// routes deleted. To be called before the device is opened. With `all` it includes the fallback routes that these
/// settings want.
///
/// Fails, without deleting anything, if that gateway is still running: its device has a carrier, or the table routes
/// to another device.
pub fn clean_leftovers(settings: &Settings, all: bool) -> Result<usize, SetupError> {
    let gateway = &settings.gateway;
    let mut netlink = open()?;
    let device = netlink.link(&gateway.device)?;
    if let Some(why) = device.as_ref().and_then(|link| unusable(&gateway.device, link)) {
        return Err(why);
    }
    let own = device.as_ref().map_or(0, |link| link.index);
    let Marked { stale, fallbacks, held, in_use } = Marked::find(&mut netlink, gateway.route_table, own)?;
    // What holds the replies of servers until this gateway takes them.
    let holds = settings.flows_outlive() && !all;
    if own != 0 {
        log::warn!(
            "device {0} already exists and is persistent, so it stays when the gateway stops; \
             if nobody needs it, stop the gateway and delete it: ip link delete {0}",
            gateway.device
        );
    }
    let mut cleaned = 0;
    // Those that are wanted hold until this gateway routes their addresses; those of another gateway are not ours.
    let wanted = wanted::routed_addresses(settings);
    for to in fallbacks.into_iter().filter(|to| (all || !wanted.contains(to)) && !in_use.contains(to)) {
        netlink.delete_blackhole(to, MAIN, FALLBACK, PROTOCOL)?;
        cleaned += 1;
    }
    for (to, table) in held.into_iter().filter(|_| !holds) {
        netlink.delete_blackhole(to, table, FALLBACK, PROTOCOL)?;
        cleaned += 1;
    }
    for route in stale {
        netlink.delete_route(route)?;
        cleaned += 1;
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let made = netlink.proxies(family).unwrap_or_default().into_iter().filter(|(.., by)| *by == PROTOCOL);
        for (address, device, _) in made.filter(|(address, ..)| !in_use.iter().any(|to| to.contains(address))) {
            netlink.delete_proxy(address, device)?;
            cleaned += 1;
        }
        for rule in netlink.rules(family)? {
            if is_ours(&rule, gateway) && !(holds && super::rules::holds(&rule, gateway.route_table)) {
                netlink.delete_rule(rule)?;
                cleaned += 1;
            }
        }
    }
    Ok(cleaned)
}

/// The routes that carry the mark of a gateway.
#[derive(Default)]
struct Marked {
    /// To the device of this number.
    stale: Vec<Route>,
    /// Those that take the packets of service addresses while no gateway runs.
    fallbacks: Vec<IpNet>,
    /// Those that hold the replies of servers, with their table.
    held: Vec<(IpNet, u32)>,
    /// Where another gateway's routes lead.
    in_use: BTreeSet<IpNet>,
}

impl Marked {
    fn find(netlink: &mut Netlink, table: u32, device: u32) -> Result<Marked, SetupError> {
        let mut found = Marked::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for table in [table, MAIN] {
                let routes = netlink.routes(family, table)?.into_iter();
                for (route, kind) in routes.filter(|(route, _)| route.protocol == PROTOCOL) {
                    if kind == RouteType::BlackHole && table != MAIN {
                        found.held.push((route.to, table));
                    } else if kind == RouteType::BlackHole {
                        found.fallbacks.push(route.to);
                    } else if route.device == device {
                        found.stale.push(route);
                    } else if table != MAIN {
                        return Err(table_in_use(netlink, route));
                    } else {
                        found.in_use.insert(route.to);
                    }
                }
            }
        }
        Ok(found)
    }
}

/// Returns why an existing device cannot become the gateway's, if so.
pub(in super::super) fn unusable(name: &str, link: &Link) -> Option<SetupError> {
    if link.kind != "tun" {
        let kind = if link.kind.is_empty() { "hardware" } else { &link.kind };
        let what = format!("the gateway's device {name} already exists and is not a TUN device but {kind}");
        return Some(SetupError::new(
            what,
            format!("choose another name in the configuration, or: ip link delete {name}"),
        ));
    }
    let fix = "is another gateway running? Stop it, or give this one its own device, route-table and rule-priority";
    link.carrier.then(|| SetupError::new(format!("a process has the gateway's device {name} open"), fix.to_owned()))
}

fn table_in_use(netlink: &mut Netlink, route: Route) -> SetupError {
    let links = netlink.links().unwrap_or_default();
    let name = links.into_iter().find(|(index, _)| *index == route.device);
    let name = name.map_or_else(|| format!("number {}", route.device), |(_, name)| name);
    let what = format!("routing table {} already belongs to another gateway, with device {name}", route.table);
    SetupError::new(what, "give this one its own route-table in the configuration".to_owned())
}

/// Returns whether a gateway with this table, device and priority installed the rule.
pub(in super::super) fn is_ours(rule: &RuleMessage, gateway: &GatewaySettings) -> bool {
    let has = |a: &RuleAttribute| rule.attributes.contains(a);
    has(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
        && (has(&RuleAttribute::Table(gateway.route_table))
            || has(&RuleAttribute::Iifname(gateway.device.clone()))
            || has(&RuleAttribute::Goto(gateway.rule_priority + 2)))
}

/// Counts the rules of the calling thread's namespace, and the routes in its table `main`, that carry a protocol
/// number.
pub fn count_marked(protocol: u8) -> Result<usize, SetupError> {
    let mut netlink = open()?;
    let mark = RuleAttribute::Protocol(RouteProtocol::from(protocol));
    let mut count = 0;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        count += netlink.rules(family)?.iter().filter(|r| r.attributes.contains(&mark)).count();
        count += netlink.routes(family, MAIN)?.iter().filter(|(r, _)| r.protocol == protocol).count();
    }
    Ok(count)
}
