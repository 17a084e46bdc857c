//! One part of what is installed in the kernel: how it is added, removed and named.
//!
//! It must not know when.

use super::{MAIN, PROTOCOL};
use crate::gateway::netlink::{Netlink, NetlinkError, Route, show_rule};
use crate::gateway::sysctl;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::RuleMessage;
use std::net::IpAddr;

/// The worst metric a route can have: it is taken only if there is no other route to the same destination.
pub const FALLBACK: u32 = u32::MAX;

/// Something that is installed in the kernel, and removed at the end.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// The device itself: that it exists, is up, and has its settings. It is removed by closing it.
    Device,
    /// An address of the device.
    Address(IpNet),
    /// A policy rule.
    Rule(RuleMessage),
    /// A blackhole route with the worst metric: while there is no device, packets to a service wait for nobody instead of
    /// following the default route back to where they came from.
    Fallback(IpNet),
    /// The same in the gateway's own table, for the replies of servers: without a device, its rules lead here.
    Hold(IpNet, u32),
    /// A route to the device.
    Route(Route),
    /// The kernel parameter by which an interface answers neighbour solicitations for proxy entries; with its previous
    /// value.
    Proxying(String, String),
    /// A proxy entry on an interface, given by name and index.
    Announced(IpAddr, String, u32),
}

impl Part {
    /// Names it for people; no two parts of one gateway have the same name.
    pub fn name(&self, device: &str) -> String {
        match self {
            Part::Device => format!("device {device}"),
            Part::Address(address) => format!("address {address} of device {device}"),
            Part::Rule(rule) => format!("{} rule \"{}\"", family_name(rule.header.family), show_rule(rule)),
            Part::Fallback(to) => format!("fallback route {to}"),
            Part::Hold(to, table) => format!("fallback route {to} in table {table}"),
            Part::Route(route) if route.table == MAIN => format!("route {} to device {device}", route.to),
            Part::Route(route) => format!("route {} to device {device} in table {}", route.to, route.table),
            Part::Proxying(interface, _) => format!("proxy_ndp of interface {interface}"),
            Part::Announced(address, interface, _) => format!("announcement of {address} on interface {interface}"),
        }
    }

    /// Returns whether the kernel parameter has the value, if the part is one.
    pub fn is_proxying(&self) -> bool {
        matches!(self, Part::Proxying(interface, _) if sysctl::get(&proxying(interface)).is_ok_and(|value| value == "1"))
    }

    /// Adds it; `index` is that of the device. [`Part::Device`] is set up elsewhere.
    pub(super) fn add(&self, netlink: &mut Netlink, device: &str, index: u32) -> Result<(), NetlinkError> {
        match self {
            Part::Device => Ok(()),
            Part::Address(address) => netlink.add_address(device, index, *address),
            Part::Rule(rule) => netlink.add_rule(rule.clone()),
            Part::Fallback(to) => netlink.add_blackhole(*to, MAIN, FALLBACK, PROTOCOL),
            Part::Hold(to, table) => netlink.add_blackhole(*to, *table, FALLBACK, PROTOCOL),
            Part::Route(route) => netlink.add_route(Route { device: index, ..*route }),
            Part::Proxying(interface, _) => set_proxying(interface, "1"),
            Part::Announced(address, _, index) => netlink.add_proxy(*address, *index, PROTOCOL),
        }
    }

    /// Removes it.
    pub(super) fn delete(&self, netlink: &mut Netlink, device: &str, index: u32) -> Result<(), NetlinkError> {
        match self {
            Part::Device => Ok(()),
            Part::Address(address) => netlink.delete_address(device, index, *address),
            Part::Rule(rule) => netlink.delete_rule(rule.clone()),
            Part::Fallback(to) => netlink.delete_blackhole(*to, MAIN, FALLBACK, PROTOCOL),
            Part::Hold(to, table) => netlink.delete_blackhole(*to, *table, FALLBACK, PROTOCOL),
            Part::Route(route) => netlink.delete_route(Route { device: index, ..*route }),
            Part::Proxying(interface, before) => set_proxying(interface, before),
            Part::Announced(address, _, index) => netlink.delete_proxy(*address, *index),
        }
    }
}

/// Returns the kernel parameter that makes an interface answer neighbour solicitations for proxy entries.
pub fn proxying(interface: &str) -> String {
    format!("net/ipv6/conf/{interface}/proxy_ndp")
}

fn set_proxying(interface: &str, value: &str) -> Result<(), NetlinkError> {
    let name = proxying(interface);
    sysctl::set(&name, value).map_err(|e| NetlinkError::new("answering neighbour solicitations", e))
}

fn family_name(family: AddressFamily) -> &'static str {
    if family == AddressFamily::Inet6 { "IPv6" } else { "IPv4" }
}
