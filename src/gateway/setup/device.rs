//! The settings of the gateway's device: addresses kept away from it, reverse path filter, forwarding, MTU, queue.

use super::SetupError;
use crate::config::Settings;
use crate::gateway::netlink::Netlink;
use crate::gateway::{sysctl, wanted};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};

/// Packets that may queue in the device until they are read; the kernel's default of 500 is less than one burst of
/// segments.
const QUEUE: u32 = 1000;

/// Configures the device and brings it up.
pub(super) fn bring_up(netlink: &mut Netlink, settings: &Settings, device: &str, index: u32) -> Result<(), SetupError> {
    let refused = |e| SetupError::new(format!("setting up device {device}: {e}"), None);
    // Packets written to the device carry the clients' source addresses, which the kernel routes elsewhere.
    sysctl::set(&format!("net/ipv4/conf/{device}/rp_filter"), "0").map_err(refused)?;
    // The kernel's own ICMP errors to service addresses come back out of the device, translated for the servers,
    // with the gateway's address as their source.
    sysctl::set(&format!("net/ipv4/conf/{device}/accept_local"), "1").map_err(refused)?;
    // `all` may still ask for a check. With the mark the reverse look-up finds this device.
    sysctl::set(&format!("net/ipv4/conf/{device}/src_valid_mark"), "1").map_err(refused)?;
    sysctl::set(&format!("net/ipv4/conf/{device}/forwarding"), "1").map_err(refused)?;
    let (_, v6) = wanted::families(settings);
    let conf = |name| format!("net/ipv6/conf/{device}/{name}");
    if sysctl::exists(&conf("addr_gen_mode")) {
        // No link-local address, router solicitations or multicast reports: only clients' packets shall come out
        // of the device. Disabling `forwarding` leaves the all-routers group, which MLDv1 does silently; after
        // that IFF_MULTICAST is cleared.
        let quiet = [
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("autoconf", "0"),
            ("force_mld_version", "1"),
            ("forwarding", "0"),
        ];
        for (name, value) in quiet {
            sysctl::set(&conf(name), value).map_err(refused)?;
        }
        if v6 {
            sysctl::set(&conf("disable_ipv6"), "0").map_err(refused)?;
        }
    }
    let attributes = vec![LinkAttribute::Mtu(settings.gateway.mtu.into()), LinkAttribute::TxQueueLen(QUEUE)];
    let mask = LinkFlags::Up | LinkFlags::Multicast;
    netlink.set_link(device, index, LinkFlags::Up, mask, attributes)?;
    if v6 {
        sysctl::set(&conf("forwarding"), "1").map_err(refused)?;
    }
    Ok(())
}
