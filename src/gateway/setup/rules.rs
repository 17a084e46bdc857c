//! The routes and policy rules as netlink messages, each marked with [`PROTOCOL`].

use super::{LOOPBACK, PROTOCOL};
use crate::gateway::netlink::{self, Route};
use crate::gateway::wanted::Answers;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};

/// The best metric an IPv6 route can have; for IPv4 it is 0.
const BEST_V6: u32 = 1;
/// The IP protocol number of ICMPv6, for which the crate has no constant.
const ICMPV6: i32 = 58;

pub(super) fn route(to: IpNet, table: u32, device: u32) -> Route {
    let metric = if to.addr().is_ipv6() { BEST_V6 } else { 0 };
    Route { to, device, via: None, table, protocol: PROTOCOL, metric }
}

pub(super) fn rule(
    family: AddressFamily,
    action: RuleAction,
    priority: u32,
    attributes: Vec<RuleAttribute>,
) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = action;
    message.attributes = attributes;
    message.attributes.push(RuleAttribute::Priority(priority));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    message
}

pub(super) fn answer_rule(answers: &Answers, table: u32, priority: u32) -> RuleMessage {
    let v6 = answers.from.addr().is_ipv6();
    let protocol = IpProtocol::from(i32::from(answers.protocol.number(v6)));
    let mut attributes = vec![RuleAttribute::IpProtocol(protocol), RuleAttribute::Table(table)];
    if answers.from.prefix_len() > 0 {
        attributes.push(RuleAttribute::Source(answers.from.addr()));
    }
    if let Some((start, end)) = answers.ports {
        attributes.push(RuleAttribute::SourcePortRange(RulePortRange { start, end }));
    }
    let mut message = rule(netlink::family(answers.from.addr()), RuleAction::ToTable, priority, attributes);
    message.header.src_len = answers.from.prefix_len();
    message
}

/// Makes the rule by which replies that the rule `answers` selects are discarded while there is no device, so that no client
/// sees the address of its server and resets the connection: the table has a blackhole route behind the one to the device,
/// and as long as that one is taken, its group suppresses this rule. Only TCP has such a rule.
pub(super) fn hold_rule(answers: &RuleMessage, table: u32, priority: u32) -> Option<RuleMessage> {
    let tcp = u8::from(IpProtocol::Tcp);
    let mut rule = answers.clone();
    let has = |is: fn(&RuleAttribute, u8) -> bool| answers.attributes.iter().any(|attribute| is(attribute, tcp));
    let is_tcp = has(|attribute, tcp| matches!(attribute, RuleAttribute::IpProtocol(p) if u8::from(*p) == tcp));
    let has_ports = has(|attribute, _| matches!(attribute, RuleAttribute::SourcePortRange(_)));
    rule.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Priority(_)));
    rule.attributes.extend([RuleAttribute::Priority(priority), RuleAttribute::SuppressIfGroup(table)]);
    (is_tcp && has_ports).then_some(rule)
}

/// Returns whether a rule is one of [`hold_rule`] for this table.
pub(super) fn holds(rule: &RuleMessage, table: u32) -> bool {
    rule.attributes.contains(&RuleAttribute::SuppressIfGroup(table))
}

/// Makes the rule that routes ICMP arriving on an interface by a table.
pub(super) fn error_rule(family: AddressFamily, interface: &str, table: u32, priority: u32) -> RuleMessage {
    let protocol = if family == AddressFamily::Inet { IpProtocol::Icmp } else { IpProtocol::from(ICMPV6) };
    let attributes = vec![
        RuleAttribute::Iifname(interface.into()),
        RuleAttribute::IpProtocol(protocol),
        RuleAttribute::Table(table),
    ];
    rule(family, RuleAction::ToTable, priority, attributes)
}

/// Makes the rule that routes packets with a mark by a table.
pub(super) fn mark_rule(family: AddressFamily, mark: u32, table: u32, priority: u32) -> RuleMessage {
    let attributes = vec![RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mark), RuleAttribute::Table(table)];
    rule(family, RuleAction::ToTable, priority, attributes)
}

/// Makes the rule by which look-ups of the way back to the sender of a packet with a mark skip the rules of the gateway:
/// the kernel makes them as if for a packet of its own.
pub(super) fn reverse_rule(family: AddressFamily, mark: u32, priority: u32) -> RuleMessage {
    let attributes = vec![
        RuleAttribute::Iifname(LOOPBACK.into()),
        RuleAttribute::FwMark(mark),
        RuleAttribute::FwMask(mark),
        RuleAttribute::Goto(priority + 2),
    ];
    rule(family, RuleAction::Goto, priority, attributes)
}
