//! Who else decides by policy rules what is the gateway's: another gateway on the same machine, and rules that look at bits
//! of the mark that are the gateway's.

use super::Problem;
use super::surroundings::{from_server, is_of_a_gateway, priority};
use crate::config::Settings;
use crate::gateway::bpf::marks::{IN, OUT};
use crate::gateway::netlink::{Netlink, NetlinkError, show_rule};
use crate::gateway::setup::{self, MAIN, PROTOCOL};
use crate::gateway::wanted;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteType;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use std::collections::BTreeMap;

/// What ends a conflict of two gateways.
const APART: &str =
    "put the services of both into one configuration, or run each in a network namespace of its own (ip netns)";

/// Returns everything found; `marks` says whether this gateway can mark packets. What cannot be looked at is left out,
/// since the gateway itself reports that.
pub(super) fn check(settings: &Settings, netlink: &mut Netlink, marks: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(same_addresses(settings, netlink).unwrap_or_default());
    let mut gateways = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let Ok(rules) = netlink.rules(family) else { continue };
        let (theirs, others): (Vec<_>, Vec<_>) = rules.into_iter().partition(is_of_a_gateway);
        let theirs = theirs.iter().filter(|rule| !setup::is_ours(rule, &settings.gateway));
        for rule in theirs {
            let Some(table) = table(rule) else { continue };
            if gateways.contains_key(&table) || !is_looked_up(netlink, family, table) {
                continue;
            }
            if let Some(conflict) = conflict(rule, settings, marks) {
                let device = device(netlink, family, table);
                gateways.insert(
                    table,
                    format!("another gateway on this machine (device {device}, route-table {table}) {conflict}"),
                );
            }
        }
        if marks {
            problems.extend(others.iter().filter(|rule| looks_at_our_bits(rule)).map(|rule| bits(rule, family)));
        }
    }
    problems.extend(gateways.into_values().map(|what| Problem::new(what, APART)));
    problems
}

/// The addresses of this gateway that another one has routed to its own device.
fn same_addresses(settings: &Settings, netlink: &mut Netlink) -> Result<Vec<Problem>, NetlinkError> {
    let own = netlink.link(&settings.gateway.device)?.map_or(0, |link| link.index);
    let wanted = wanted::routed_addresses(settings);
    let mut problems = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for (route, kind) in netlink.routes(family, MAIN)? {
            let is_theirs = route.protocol == PROTOCOL && route.device != own && kind == RouteType::Unicast;
            if is_theirs && wanted.contains(&route.to) {
                let (role, name) = (super::role(settings, &route.to), super::device_name(netlink, route.device));
                problems.push(Problem::new(
                    format!("{role} {} is routed to device {name} of another gateway on this machine", route.to),
                    "remove it from one of the two configurations",
                ));
            }
        }
    }
    Ok(problems)
}

fn table(rule: &RuleMessage) -> Option<u32> {
    rule.attributes
        .iter()
        .find_map(|a| if let RuleAttribute::Table(n) = a { Some(*n) } else { None })
        .filter(|n| *n > 0)
}

/// A gateway that was killed leaves rules behind; the routes of its table are gone with its device.
fn is_looked_up(netlink: &mut Netlink, family: AddressFamily, table: u32) -> bool {
    netlink.routes(family, table).is_ok_and(|routes| !routes.is_empty())
}

fn device(netlink: &mut Netlink, family: AddressFamily, table: u32) -> String {
    let routes = netlink.routes(family, table).unwrap_or_default();
    routes.first().map_or_else(|| "unknown".into(), |(route, _)| super::device_name(netlink, route.device))
}

/// Returns how a rule of another gateway is in conflict with this one, if it is.
fn conflict(rule: &RuleMessage, settings: &Settings, marks: bool) -> Option<String> {
    if looks_at_our_bits(rule) {
        return marks.then(|| {
            "marks packets with the same bits: replies of the servers reach the clients of one of the two gateways \
             untranslated"
                .into()
        });
    }
    // Those by interface are for ICMP errors; what belongs to nobody's flow passes.
    rule.attributes.iter().find(|a| matches!(a, RuleAttribute::Source(_)))?;
    let server = settings.servers.iter().find_map(|server| from_server(rule, server, 0))?;
    let is_first = priority(rule) <= settings.gateway.rule_priority + 1;
    (is_first || !marks)
        .then(|| format!("has server {server} too: its replies enter the device of one of the two only"))
}

/// Returns whether a rule looks at any bit that the gateway sets.
fn looks_at_our_bits(rule: &RuleMessage) -> bool {
    let (mut mark, mut mask) = (None, u32::MAX);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::FwMark(n) => mark = Some(*n),
            RuleAttribute::FwMask(n) => mask = *n,
            _ => {}
        }
    }
    // With all bits in the mask it is about one mark, which ours are added to or not.
    let looked_at = if mask == u32::MAX { mark.unwrap_or(0) } else { mask };
    mark.is_some() && looked_at & (IN | OUT) != 0
}

fn bits(rule: &RuleMessage, family: AddressFamily) -> Problem {
    let ip = if family == AddressFamily::Inet { "ip" } else { "ip -6" };
    let (shown, priority) = (show_rule(rule), priority(rule));
    Problem::new(
        format!(
            "the policy rule \"{shown}\" looks at bits of the mark by which the gateway tells packets of flows \
             ({:#x}), so it also decides about those",
            IN | OUT
        ),
        format!("use other bits for that rule and for what sets them: {ip} rule delete priority {priority}"),
    )
}
