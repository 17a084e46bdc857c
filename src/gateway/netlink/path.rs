//! The path to an address by the kernel's routes: through which interfaces, and with which MTU.

use super::{Message, Netlink, NetlinkError, family};
use crate::gateway::sysctl;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType};
use std::collections::HashMap;
use std::net::IpAddr;

/// The path to an address: the interfaces of its route, several if the route has several next hops.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path {
    /// Interface indexes, sorted.
    pub devices: Vec<u32>,
    /// The MTU stated by the route itself, if any.
    pub mtu: Option<u32>,
}

/// An interface's name, and its MTU in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MTU; IPv6 may have a smaller one.
    pub mtu: u32,
}

impl Interface {
    /// Returns the MTU for a family.
    pub fn mtu(&self, v6: bool) -> u32 {
        let own = v6.then(|| sysctl::get(&format!("net/ipv6/conf/{}/mtu", self.name)).ok()?.parse().ok()).flatten();
        own.map_or(self.mtu, |own: u32| own.min(self.mtu))
    }
}

impl Netlink {
    /// Looks up the path to an address that is not the machine's own; `None` if there is no route.
    ///
    /// What path MTU discovery has taught the kernel temporarily is not included: the look-up asks for the FIB entry,
    /// not for the cached exception.
    pub fn path(&mut self, to: IpAddr) -> Result<Option<Path>, NetlinkError> {
        let answer = self.entry_for(to)?.filter(|m| m.header.kind == RouteType::Unicast);
        Ok(answer.map(|m| read_path(&m)).filter(|w| !w.devices.is_empty()))
    }

    /// Looks up the entry of the FIB for packets to an address; `None` if there is none. The entry may be one that rejects,
    /// unless the kernel answers such ones with an error.
    pub(super) fn entry_for(&mut self, to: IpAddr) -> Result<Option<RouteMessage>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to);
        message.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        message.header.flags = RouteFlags::FibMatch;
        message.attributes.push(RouteAttribute::Destination(to.into()));
        match self.talk(&format!("looking up the route to {to}"), Message::GetRoute(message), 0) {
            // No route, or one that rejects: unreachable, prohibit, blackhole.
            Err(e) if [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL].contains(&e.errno()) => {
                Ok(None)
            }
            Ok(answers) => {
                Ok(answers.into_iter().find_map(|m| if let Message::NewRoute(m) = m { Some(m) } else { None }))
            }
            Err(e) => Err(e),
        }
    }

    /// Returns all interfaces by index.
    pub fn interfaces(&mut self) -> Result<HashMap<u32, Interface>, NetlinkError> {
        let answers = self.dump("listing devices", Message::GetLink(LinkMessage::default()))?;
        let links = answers.into_iter().filter_map(|m| if let Message::NewLink(m) = m { Some(m) } else { None });
        Ok(links.filter_map(|link| Some((link.header.index, read_interface(&link)?))).collect())
    }
}

fn read_interface(link: &LinkMessage) -> Option<Interface> {
    let name =
        link.attributes.iter().find_map(|a| if let LinkAttribute::IfName(n) = a { Some(n.clone()) } else { None });
    let mtu = link.attributes.iter().find_map(|a| if let LinkAttribute::Mtu(n) = a { Some(*n) } else { None });
    Some(Interface { name: name?, mtu: mtu? })
}

fn read_path(message: &RouteMessage) -> Path {
    let mut path = Path::default();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => path.devices.push(*index),
            RouteAttribute::MultiPath(hops) => path.devices.extend(hops.iter().map(|hop| hop.interface_index)),
            RouteAttribute::Metrics(metrics) => {
                path.mtu = metrics.iter().find_map(|m| if let RouteMetric::Mtu(n) = m { Some(*n) } else { None });
            }
            _ => {}
        }
    }
    path.devices.sort_unstable();
    path.devices.dedup();
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::{ip, namespace};

    #[test]
    fn a_path_is_the_interfaces_and_the_mtu_of_its_route() {
        let (Some(ns), Some(far)) = (namespace("eq-way1"), namespace("eq-way1-far")) else { return };
        for (n, device) in ["one", "two"].into_iter().enumerate() {
            ns.cable(device, &far, device).unwrap();
            ns.address(device, format!("10.{n}.0.1/24").parse().unwrap()).unwrap();
            ns.address(device, format!("fd0{n}::1/64").parse().unwrap()).unwrap();
        }
        ns.run(|| {
            ip("link set two mtu 1400");
            ip("route add 10.8.0.0/16 via 10.0.0.9 mtu 1300");
            ip("-6 route add fd08::/16 via fd00::9 mtu 1300");
            ip("route add 10.9.0.0/16 nexthop via 10.0.0.9 nexthop via 10.1.0.9");
            ip("-6 route add fd0a::/16 nexthop via fd00::9 nexthop via fd01::9");
            ip("route add unreachable 10.10.0.0/16");
            ip("route add blackhole 10.11.0.0/16");
            ip("-6 route add prohibit fd0b::/16");
            let mut netlink = Netlink::open().unwrap();
            let interfaces = netlink.interfaces().unwrap();
            let index = |name: &str| *interfaces.iter().find(|(_, i)| i.name == name).unwrap().0;
            let (one, two) = (index("one"), index("two"));
            assert_eq!((interfaces[&one].mtu(false), interfaces[&two].mtu(false)), (1500, 1400));
            sysctl::set("net/ipv6/conf/one/mtu", "1280").unwrap();
            assert_eq!((interfaces[&one].mtu(true), interfaces[&two].mtu(true)), (1280, 1400));
            for (to, want) in [
                ("10.0.0.7", Some((vec![one], None))),
                ("fd01::7", Some((vec![two], None))),
                ("10.8.0.7", Some((vec![one], Some(1300)))),
                ("fd08::7", Some((vec![one], Some(1300)))),
                ("10.9.0.7", Some((vec![one, two], None))),
                ("fd0a::7", Some((vec![one, two], None))),
                ("10.10.0.7", None),
                ("10.11.0.7", None),
                ("fd0b::7", None),
                ("203.0.113.7", None),
                ("2001:db8::7", None),
                ("10.0.0.1", None),
                ("fd00::1", None),
                ("127.0.0.1", None),
            ] {
                let path = netlink.path(to.parse().unwrap()).unwrap_or_else(|e| panic!("{to}: {e}"));
                assert_eq!(path.map(|path| (path.devices, path.mtu)), want, "{to}");
            }
        })
        .unwrap();
    }
}
