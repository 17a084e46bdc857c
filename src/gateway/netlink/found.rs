//! What the kernel has: the route that it takes to an address, addresses of interfaces, proxy entries, the state of a
//! device.

use super::{Message, Netlink, NetlinkError, family, read_route};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use std::net::IpAddr;

/// The route that the kernel takes to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its destination.
    pub to: IpNet,
    /// Its table.
    pub table: u32,
    /// The index of its device; 0 if it has several next hops.
    pub device: u32,
    /// Its type.
    pub kind: RouteType,
}

/// The state of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState {
    /// Its index.
    pub index: u32,
    /// Whether it is up.
    pub is_up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The limits in bytes of the super-packets that it sends or receives merged, by the names of `ip link set`; those that
    /// the kernel has.
    pub super_packets: Vec<(&'static str, u32)>,
}

/// An address, or a network, of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// The index of the interface.
    pub device: u32,
    /// The address with its prefix length; of a point-to-point interface, that of its peer.
    pub address: IpNet,
}

impl Netlink {
    /// Looks up the route that the kernel takes to an address; `None` if there is none, or one that rejects.
    pub fn taken(&mut self, to: IpAddr) -> Result<Option<Taken>, NetlinkError> {
        let rejects = [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit];
        let found = self.entry_for(to)?.and_then(|m| read_route(&m));
        let taken = found.map(|(route, kind)| Taken { to: route.to, table: route.table, device: route.device, kind });
        Ok(taken.filter(|taken| !rejects.contains(&taken.kind)))
    }

    /// Returns name and state of the device with an index; `None` if there is none.
    pub fn device_at(&mut self, index: u32) -> Result<Option<(String, DeviceState)>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.talk(&format!("looking up device number {index}"), Message::GetLink(message), 0) {
            Ok(answers) => {
                let links = answers.iter().filter_map(|m| if let Message::NewLink(m) = m { Some(m) } else { None });
                Ok(links.map(read_state).next())
            }
            Err(e) if e.errno() == libc::ENODEV => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns name and state of all devices.
    pub fn device_states(&mut self) -> Result<Vec<(String, DeviceState)>, NetlinkError> {
        let answers = self.dump("listing devices", Message::GetLink(LinkMessage::default()))?;
        let links = answers.iter().filter_map(|m| if let Message::NewLink(m) = m { Some(read_state(m)) } else { None });
        Ok(links.collect())
    }

    /// Returns the addresses of all interfaces, both families.
    pub fn addresses(&mut self) -> Result<Vec<Assigned>, NetlinkError> {
        let answers = self.dump("listing addresses", Message::GetAddress(AddressMessage::default()))?;
        let addresses =
            answers.iter().filter_map(|m| if let Message::NewAddress(m) = m { read_address(m) } else { None });
        Ok(addresses.collect())
    }

    /// Adds a blackhole route to a table; fails with `EEXIST` if there is one of the same metric.
    pub fn add_blackhole(&mut self, to: IpNet, table: u32, metric: u32, protocol: u8) -> Result<(), NetlinkError> {
        let message = Message::NewRoute(blackhole(to, table, metric, protocol));
        self.change(&format!("adding the blackhole route {to}"), message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a blackhole route from a table.
    pub fn delete_blackhole(&mut self, to: IpNet, table: u32, metric: u32, protocol: u8) -> Result<(), NetlinkError> {
        self.change(
            &format!("deleting the blackhole route {to}"),
            Message::DelRoute(blackhole(to, table, metric, protocol)),
            0,
        )
    }

    /// Adds a proxy entry: the kernel answers ARP or neighbour solicitations for an address on an interface.
    pub fn add_proxy(&mut self, address: IpAddr, device: u32, protocol: u8) -> Result<(), NetlinkError> {
        let message = Message::NewNeighbour(proxy(address, device, Some(protocol)));
        self.change(&format!("announcing {address}"), message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a proxy entry.
    pub fn delete_proxy(&mut self, address: IpAddr, device: u32) -> Result<(), NetlinkError> {
        self.change(&format!("no longer announcing {address}"), Message::DelNeighbour(proxy(address, device, None)), 0)
    }

    /// Returns the proxy entries of one family, each with its interface and who made it (`RTPROT_*`).
    pub fn proxies(&mut self, family: AddressFamily) -> Result<Vec<(IpAddr, u32, u8)>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        message.header.flags = NeighbourFlags::Proxy;
        let answers = self.dump("listing proxy entries", Message::GetNeighbour(message))?;
        let entries =
            answers.iter().filter_map(|m| if let Message::NewNeighbour(m) = m { read_proxy(m) } else { None });
        Ok(entries.collect())
    }
}

fn read_state(link: &LinkMessage) -> (String, DeviceState) {
    let mut state = DeviceState {
        index: link.header.index,
        is_up: link.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        super_packets: Vec::new(),
    };
    let mut name = String::new();
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(n) => name.clone_from(n),
            LinkAttribute::Mtu(n) => state.mtu = *n,
            LinkAttribute::GsoMaxSize(n) => state.super_packets.push(("gso_max_size", *n)),
            LinkAttribute::GroMaxSize(n) => state.super_packets.push(("gro_max_size", *n)),
            LinkAttribute::GsoIpv4MaxSize(n) => state.super_packets.push(("gso_ipv4_max_size", *n)),
            LinkAttribute::GroIpv4MaxSize(n) => state.super_packets.push(("gro_ipv4_max_size", *n)),
            _ => {}
        }
    }
    (name, state)
}

fn read_address(message: &AddressMessage) -> Option<Assigned> {
    // IPv4 has both, and they differ only on point-to-point interfaces; IPv6 has the second only.
    let find = |of: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(of);
    let local = find(|a| if let AddressAttribute::Local(address) = a { Some(*address) } else { None });
    let address = find(|a| if let AddressAttribute::Address(address) = a { Some(*address) } else { None }).or(local)?;
    let address = IpNet::new(address, message.header.prefix_len).ok()?;
    Some(Assigned { device: message.header.index, address })
}

fn blackhole(to: IpNet, table: u32, metric: u32, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.addr());
    message.header.destination_prefix_length = to.prefix_len();
    message.header.protocol = RouteProtocol::from(protocol);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::BlackHole;
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Priority(metric)];
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(to.network().into()));
    }
    message
}

fn proxy(address: IpAddr, device: u32, protocol: Option<u8>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = device;
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes = vec![NeighbourAttribute::Destination(match address {
        IpAddr::V4(a) => NeighbourAddress::Inet(a),
        IpAddr::V6(a) => NeighbourAddress::Inet6(a),
    })];
    message.attributes.extend(protocol.map(|p| NeighbourAttribute::Protocol(RouteProtocol::from(p))));
    message
}

fn read_proxy(message: &NeighbourMessage) -> Option<(IpAddr, u32, u8)> {
    if !message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut protocol) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => address = Some(IpAddr::V4(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => address = Some(IpAddr::V6(*a)),
            NeighbourAttribute::Protocol(p) => protocol = u8::from(*p),
            _ => {}
        }
    }
    Some((address?, message.header.ifindex, protocol))
}
