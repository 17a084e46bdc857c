//! Announcing: the kernel answers ARP and neighbour solicitations for service addresses in networks that an interface is
//! connected to.
//!
//! It must not know when addresses change.

use super::{Installed, LOOPBACK, Part, SetupError, proxying};
use crate::gateway::netlink::Assigned;
use crate::gateway::sysctl;
use ipnet::IpNet;
use std::net::IpAddr;

/// The most addresses that are announced: an entry each, and the kernel searches them one by one within a hash slot.
pub const MOST_ANNOUNCED: usize = 1024;

/// Returns which of the networks routed to the gateway lie in a network that an interface is connected to, each with the
/// index of that interface and its network; `own` is the gateway's device.
pub fn connected<'a>(
    routed: impl Iterator<Item = &'a IpNet>,
    assigned: &[Assigned],
    own: u32,
) -> Vec<(IpNet, u32, IpNet)> {
    let mut found = Vec::new();
    for to in routed {
        for Assigned { device, address } in assigned {
            let network = address.trunc();
            let is_one = address.prefix_len() == address.max_prefix_len();
            let is_new = !found.contains(&(*to, *device, network));
            if *device != own && !is_one && !address.addr().is_loopback() && network.contains(to) && is_new {
                found.push((*to, *device, network));
            }
        }
    }
    found
}

/// Returns the addresses of a network; `None` if they are more than can be announced.
pub fn addresses(network: IpNet) -> Option<Vec<IpAddr>> {
    let bits = u32::from(network.max_prefix_len() - network.prefix_len());
    let count = 1usize.checked_shl(bits).filter(|count| *count <= MOST_ANNOUNCED)?;
    let nth = |n: usize| match network.network() {
        IpAddr::V4(first) => IpAddr::V4((first.to_bits() | n as u32).into()),
        IpAddr::V6(first) => IpAddr::V6((first.to_bits() | n as u128).into()),
    };
    Some((0..count).map(nth).collect())
}

impl Installed {
    /// Announces the service addresses that lie in connected networks as these are at the moment, and no longer others;
    /// does nothing unless the settings ask for it.
    pub fn follow_announcements(&mut self) -> Result<(), SetupError> {
        if !self.gateway.announce {
            return Ok(());
        }
        let assigned = self.netlink.addresses()?;
        let links = self.netlink.links()?;
        let mut wanted = Vec::new();
        for (network, index, _) in connected(self.routed.iter(), &assigned, self.index) {
            let Some((_, name)) = links.iter().find(|(i, name)| *i == index && name != LOOPBACK) else { continue };
            let Some(addresses) = addresses(network) else {
                log::warn!("{network} has more than {MOST_ANNOUNCED} addresses: not announced on interface {name}");
                continue;
            };
            if network.addr().is_ipv6() {
                let before = sysctl::get(&proxying(name)).unwrap_or_else(|_| "0".into());
                let is_this = |part: &&Part| matches!(part, Part::Proxying(other, _) if other == name);
                let known = self.parts.iter().find(is_this).cloned();
                wanted.push(known.unwrap_or(Part::Proxying(name.clone(), before)));
            }
            wanted.extend(addresses.into_iter().map(|address| Part::Announced(address, name.clone(), index)));
        }
        let is_one = |part: &Part| matches!(part, Part::Proxying(..) | Part::Announced(..));
        for old in self.parts.extract_if(.., |part| is_one(part) && !wanted.contains(part)).collect::<Vec<_>>() {
            // The interface may have gone with its entries.
            let _ = old.delete(&mut self.netlink, &self.gateway.device, self.index);
        }
        for part in wanted {
            if !self.parts.contains(&part) {
                self.repair(&part)?;
                self.parts.push(part);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_on_connected_networks_are_found_once_for_each_interface() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let assigned = [
            (1, "127.0.0.1/8"),
            (2, "192.0.2.1/24"),
            (2, "192.0.2.2/24"),
            (3, "192.0.2.9/25"),
            (4, "198.51.100.1/32"),
            (5, "2001:db8::1/64"),
            (9, "192.0.2.3/24"),
        ];
        let assigned = assigned.map(|(device, text)| Assigned { device, address: net(text) });
        let routed =
            ["192.0.2.200/32", "192.0.2.16/28", "198.51.100.1/32", "2001:db8::80/128", "203.0.113.1/32"].map(net);
        let found = connected(routed.iter(), &assigned, 9);
        let want = [
            ("192.0.2.200/32", 2, "192.0.2.0/24"),
            ("192.0.2.16/28", 2, "192.0.2.0/24"),
            ("192.0.2.16/28", 3, "192.0.2.0/25"),
            ("2001:db8::80/128", 5, "2001:db8::/64"),
        ];
        assert_eq!(found, want.map(|(to, device, network)| (net(to), device, net(network))));
    }

    #[test]
    fn networks_are_announced_address_by_address_unless_they_are_too_large() {
        let all = |text: &str| addresses(text.parse().unwrap()).map(|all| (all.len(), all[all.len() - 1].to_string()));
        assert_eq!(all("192.0.2.80/32"), Some((1, "192.0.2.80".into())));
        assert_eq!(all("192.0.2.64/30"), Some((4, "192.0.2.67".into())));
        assert_eq!(all("2001:db8::/120"), Some((256, "2001:db8::ff".into())));
        assert_eq!(all("10.0.0.0/22"), Some((1024, "10.0.3.255".into())));
        assert_eq!((all("10.0.0.0/21"), all("2001:db8::/64"), all("::/0")), (None, None, None));
    }
}
