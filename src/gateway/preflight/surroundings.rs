//! What else is set up on the system that keeps packets from passing: connected networks in which nobody answers for a
//! service address, policy rules that take the servers' replies, interfaces with super-packets that no TUN device takes.

use super::Problem;
use crate::balance::ServerSettings;
use crate::config::Settings;
use crate::gateway::bpf::marks;
use crate::gateway::netlink::{Netlink, NetlinkError, show_rule};
use crate::gateway::setup::{self, MOST_ANNOUNCED, PROTOCOL};
use crate::gateway::wanted;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use std::net::IpAddr;

/// The largest super-packet in bytes that a TUN device takes.
const MOST_SUPER_PACKET: u32 = 65_536;

/// Returns everything found; what cannot be looked at is left out, since the gateway itself reports that.
///
/// `marks` says whether this gateway can mark packets.
pub(super) fn check(settings: &Settings, netlink: &mut Netlink, marks: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(unanswered(settings, netlink).unwrap_or_default());
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        problems.extend(diverted(settings, netlink, family, marks).unwrap_or_default());
    }
    problems.extend(super_packets(settings, netlink).unwrap_or_default());
    problems
}

/// Addresses in a network that an interface is connected to: its hosts ask for them by ARP or neighbour solicitation, and
/// the kernel answers only for addresses of its own.
fn unanswered(settings: &Settings, netlink: &mut Netlink) -> Result<Vec<Problem>, NetlinkError> {
    let own = netlink.link(&settings.gateway.device)?.map_or(0, |link| link.index);
    let assigned = netlink.addresses()?;
    let links = netlink.links()?;
    let routed = wanted::routed_addresses(settings);
    let is_answered = |to: &IpNet| settings.gateway.announce && setup::addresses(*to).is_some();
    let mut problems = Vec::new();
    for (to, index, network) in setup::connected(routed.iter(), &assigned, own) {
        let Some((_, name)) = links.iter().find(|(i, _)| *i == index) else { continue };
        if is_answered(&to) {
            continue;
        }
        let (role, asks) =
            (super::role(settings, &to), if to.addr().is_ipv4() { "ARP" } else { "neighbour solicitation" });
        let shown = if to.prefix_len() == to.max_prefix_len() { to.addr().to_string() } else { to.to_string() };
        let fix = if setup::addresses(to).is_some() {
            "set announce = true in [gateway], so that this gateway answers, unless every host there has a route to it"
                .to_owned()
        } else {
            format!(
                "it has more than {MOST_ANNOUNCED} addresses, too many to announce: give the hosts there a route to {to} through \
                 this gateway"
            )
        };
        problems.push(Problem::new(
            format!("{role} {shown} is in {network}, to which {name} is connected: nobody there answers when hosts ask for it ({asks})"),
            fix,
        ));
    }
    Ok(problems)
}

/// Rules before those of the gateway that send the servers' replies elsewhere.
fn diverted(
    settings: &Settings,
    netlink: &mut Netlink,
    family: AddressFamily,
    marks: bool,
) -> Result<Vec<Problem>, NetlinkError> {
    let mark = if marks { marks::IN } else { 0 };
    let (v4, v6) = wanted::families(settings);
    if !(if family == AddressFamily::Inet { v4 } else { v6 }) {
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    for rule in netlink.rules(family)? {
        let priority = priority(&rule);
        let is_before = priority > 0 && priority <= settings.gateway.rule_priority + 1;
        let Some(server) = settings.servers.iter().find_map(|server| from_server(&rule, server, mark)) else {
            continue;
        };
        if !is_before || is_of_a_gateway(&rule) || !takes(&rule, netlink, family)? {
            continue;
        }
        let ip = if family == AddressFamily::Inet { "ip" } else { "ip -6" };
        let lower = priority.saturating_sub(2);
        let fix = if lower > 0 {
            format!(
                "set rule-priority in [gateway] to a number below it, such as {lower}, or delete the rule: {ip} rule delete priority {priority}"
            )
        } else {
            format!(
                "move the rule behind those of the gateway: {ip} rule delete priority {priority}, and add it again with a higher one"
            )
        };
        problems.push(Problem::new(
            format!(
                "the policy rule \"{}\" comes before those of the gateway and takes the replies of server {server}",
                show_rule(&rule)
            ),
            fix,
        ));
    }
    Ok(problems)
}

pub(super) fn priority(rule: &RuleMessage) -> u32 {
    rule.attributes.iter().find_map(|a| if let RuleAttribute::Priority(n) = a { Some(*n) } else { None }).unwrap_or(0)
}

pub(super) fn is_of_a_gateway(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
}

/// Returns the address of a server whose packets a rule may match if they have this mark; `None` for rules about packets
/// of the machine itself.
pub(super) fn from_server(rule: &RuleMessage, server: &ServerSettings, mark: u32) -> Option<IpAddr> {
    let is_v4 = rule.header.family == AddressFamily::Inet;
    let address = if is_v4 { server.v4.map(IpAddr::V4) } else { server.v6.map(IpAddr::V6) }?;
    let mask = rule.attributes.iter().find_map(|a| if let RuleAttribute::FwMask(n) = a { Some(*n) } else { None });
    let matches = rule.attributes.iter().all(|attribute| match attribute {
        RuleAttribute::Source(from) => IpNet::new(*from, rule.header.src_len).is_ok_and(|net| net.contains(&address)),
        RuleAttribute::FwMark(of) => (mark ^ of) & mask.unwrap_or(u32::MAX) == 0,
        RuleAttribute::L3MDev(on) => !*on,
        RuleAttribute::Iifname(name) => name != "lo",
        RuleAttribute::TunId(_) | RuleAttribute::UidRange(_) => false,
        _ => true,
    });
    let is_negated = rule.header.flags.contains(RuleFlags::Invert);
    // Clients are anywhere: a rule for some destinations is taken to be meant.
    (matches != is_negated && rule.header.dst_len == 0).then_some(address)
}

/// Returns whether a rule decides about a packet to anywhere, rather than pass it on to the next rule.
fn takes(rule: &RuleMessage, netlink: &mut Netlink, family: AddressFamily) -> Result<bool, NetlinkError> {
    match rule.header.action {
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => Ok(true),
        RuleAction::ToTable => {
            let table =
                rule.attributes.iter().find_map(|a| if let RuleAttribute::Table(n) = a { Some(*n) } else { None });
            let suppresses = |a: &RuleAttribute| matches!(a, RuleAttribute::SuppressPrefixLen(n) if *n != u32::MAX);
            if rule.attributes.iter().any(suppresses) {
                return Ok(false);
            }
            let table = table.unwrap_or(u32::from(rule.header.table));
            Ok(netlink.routes(family, table)?.iter().any(|(route, _)| route.to.prefix_len() == 0))
        }
        _ => Ok(false),
    }
}

/// Interfaces that make super-packets larger than a TUN device takes (BIG TCP): the kernel then cuts each into single
/// segments.
fn super_packets(settings: &Settings, netlink: &mut Netlink) -> Result<Vec<Problem>, NetlinkError> {
    let own = &settings.gateway.device;
    let mut problems = Vec::new();
    for (name, state) in netlink.device_states()?.into_iter().filter(|(name, _)| name != own && name != "lo") {
        let big: Vec<_> = state.super_packets.iter().filter(|(_, size)| *size > MOST_SUPER_PACKET).collect();
        let Some(size) = big.iter().map(|(_, size)| size).max() else { continue };
        let limits: Vec<String> = big.iter().map(|(word, _)| format!("{word} {MOST_SUPER_PACKET}")).collect();
        problems.push(Problem::new(
            format!(
                "interface {name} makes super-packets of up to {size} bytes (BIG TCP), more than the {MOST_SUPER_PACKET} of a \
                 TUN device: throughput falls to a tenth"
            ),
            format!("ip link set {name} {}", limits.join(" ")),
        ));
    }
    Ok(problems)
}
