//! The settings of the gateway's device: addresses kept away from it, reverse path filter, forwarding, MTU, queue.

use super::SetupError;
use crate::config::GatewaySettings;
use crate::gateway::netlink::Netlink;
use crate::gateway::sysctl;
use netlink_packet_route::link::{LinkAttribute, LinkFlags};

/// Packets that may queue in the device until they are read; the kernel's default of 500 is less than one burst of
/// segments.
const QUEUE: u32 = 1000;

/// The values of its IPv4 settings (`net/ipv4/conf`), with the reason for each.
const V4: [(&str, &str); 5] = [
    // Packets written to the device carry the clients' source addresses, which the kernel routes elsewhere.
    ("rp_filter", "0"),
    // The kernel's own ICMP errors to service addresses come back out of the device, translated for the servers,
    // with the gateway's address as their source.
    ("accept_local", "1"),
    // `all` may still ask for a check of the way back. With the mark, the look-up finds this device.
    ("src_valid_mark", "1"),
    // Of a device that no gateway has open, so that its packets take the routes behind these.
    ("ignore_routes_with_linkdown", "1"),
    ("forwarding", "1"),
];

/// The values of its IPv6 settings (`net/ipv6/conf`) before it comes up: no link-local address, router solicitations or
/// multicast reports, since only clients' packets shall come out of the device. Disabling `forwarding` leaves the
/// all-routers group, which MLDv1 does silently; after that IFF_MULTICAST is cleared.
const QUIET_V6: [(&str, &str); 6] = [
    ("addr_gen_mode", "1"),
    ("accept_ra", "0"),
    ("autoconf", "0"),
    ("force_mld_version", "1"),
    ("forwarding", "0"),
    ("ignore_routes_with_linkdown", "1"),
];

fn conf(family: &str, device: &str, name: &str) -> String {
    format!("net/{family}/conf/{device}/{name}")
}

/// Configures the device and brings it up; `v6` says whether IPv6 addresses are routed to it. A device that already is as
/// it should be is left alone.
pub(super) fn bring_up(
    netlink: &mut Netlink,
    gateway: &GatewaySettings,
    v6: bool,
    index: u32,
) -> Result<(), SetupError> {
    if is_up(netlink, gateway, v6, index)? {
        return Ok(());
    }
    let device = &gateway.device;
    let refused = |e| SetupError::new(format!("setting up device {device}: {e}"), None);
    if netlink.device_at(index)?.is_some_and(|(name, _)| name != *device) {
        let none = LinkFlags::empty();
        netlink.set_link(device, index, none, none, vec![LinkAttribute::IfName(device.clone())])?;
    }
    for (name, value) in V4 {
        sysctl::set(&conf("ipv4", device, name), value).map_err(refused)?;
    }
    if sysctl::exists(&conf("ipv6", device, "addr_gen_mode")) {
        for (name, value) in QUIET_V6 {
            sysctl::set(&conf("ipv6", device, name), value).map_err(refused)?;
        }
        if v6 {
            sysctl::set(&conf("ipv6", device, "disable_ipv6"), "0").map_err(refused)?;
        }
    }
    // The group by which rules know it: see `rules::hold_rule`.
    let group = LinkAttribute::Group(gateway.route_table);
    let attributes = vec![LinkAttribute::Mtu(gateway.mtu.into()), LinkAttribute::TxQueueLen(QUEUE), group];
    let mask = LinkFlags::Up | LinkFlags::Multicast;
    netlink.set_link(device, index, LinkFlags::Up, mask, attributes)?;
    if v6 {
        sysctl::set(&conf("ipv6", device, "forwarding"), "1").map_err(refused)?;
    }
    Ok(())
}

/// Returns whether the device exists under its name, is up, and has its MTU and its settings.
pub(super) fn is_up(
    netlink: &mut Netlink,
    gateway: &GatewaySettings,
    v6: bool,
    index: u32,
) -> Result<bool, SetupError> {
    let device = &gateway.device;
    let Some((name, state)) = netlink.device_at(index)? else { return Ok(false) };
    let has =
        |family: &str, name: &str, value: &str| sysctl::get(&conf(family, device, name)).is_ok_and(|v| v == value);
    let v4_is_set = || V4.into_iter().all(|(name, value)| has("ipv4", name, value));
    let v6_is_set = || !v6 || (has("ipv6", "disable_ipv6", "0") && has("ipv6", "forwarding", "1"));
    Ok(name == *device && state.is_up && state.mtu == u32::from(gateway.mtu) && v4_is_set() && v6_is_set())
}
