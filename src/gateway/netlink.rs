//! Netlink without an async runtime: one socket, one request at a time, the kernel's own text in errors.
//!
//! A [`Netlink`] is bound for life to the network namespace of the thread that opened it. It must not know settings
//! or services.

mod found;
mod frame;
mod ipsec;
mod layer3;
mod news;
mod nft;
mod path;
mod watch;

pub use found::{Assigned, DeviceState, Taken};
use frame::{Outcome, frames};
use ipnet::IpNet;
pub use ipsec::Policies;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
pub use news::News;
pub use nft::{TableNews, Tables};
pub use path::{Interface, Path};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
pub use watch::Watch;

/// What could not be done over netlink, and why.
#[derive(Debug)]
pub struct NetlinkError {
    doing: String,
    cause: io::Error,
    kernel: Option<String>,
}

impl NetlinkError {
    /// Makes an error that the kernel did not explain.
    pub(super) fn new(doing: &str, cause: io::Error) -> Self {
        NetlinkError { doing: doing.into(), cause, kernel: None }
    }

    /// Returns the system's error number; 0 if the error did not come from the kernel.
    pub fn errno(&self) -> i32 {
        self.cause.raw_os_error().unwrap_or(0)
    }
}

/// What was being done, the system's error, and the kernel's explanation if it gave one.
impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.cause)?;
        match &self.kernel {
            Some(text) => write!(f, " (the kernel says: {text})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NetlinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// A network device as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index in this namespace.
    pub index: u32,
    /// Its kind as `ip -details link` names it: `tun`, `veth`; empty for hardware.
    pub kind: String,
    /// Whether it has a carrier; for a TUN device: whether a process has it open.
    pub carrier: bool,
    /// Packets to be sent by it that it lost since it was made; for a TUN device: for which its queues had no room.
    pub lost: u64,
}

/// A route to one destination through one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub to: IpNet,
    /// Index of the device.
    pub device: u32,
    /// Next hop, if the destination is not on-link.
    pub via: Option<IpAddr>,
    /// Number of the routing table; 254 is `main`.
    pub table: u32,
    /// Who installed it (`RTPROT_*`); 4 is the administrator.
    pub protocol: u8,
    /// Among several routes to one destination the lowest metric wins. 0 leaves it to the kernel.
    pub metric: u32,
}

/// A NETLINK_ROUTE socket, bound to one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Older kernels support neither: errors then have no text, and dumps are filtered only here.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends a request and waits for the acknowledgement; `doing` starts the text of an error.
    pub fn change(&mut self, doing: &str, message: Message, flags: u16) -> Result<(), NetlinkError> {
        self.talk(doing, message, NLM_F_ACK | flags).map(drop)
    }

    /// Requests a list and returns all of it; entries that do not parse are left out.
    pub fn dump(&mut self, doing: &str, message: Message) -> Result<Vec<Message>, NetlinkError> {
        self.talk(doing, message, NLM_F_DUMP)
    }

    fn talk(&mut self, doing: &str, message: Message, flags: u16) -> Result<Vec<Message>, NetlinkError> {
        let fail = |cause| NetlinkError { doing: doing.into(), cause, kernel: None };
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(fail)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(fail)?;
            for frame in frames(&datagram) {
                if frame.sequence != self.sequence {
                    continue;
                }
                match frame.outcome() {
                    None => answers.extend(frame.parse()),
                    Some(Outcome { errno: 0, .. }) => return Ok(answers),
                    Some(Outcome { errno, text }) => {
                        let cause = io::Error::from_raw_os_error(errno);
                        return Err(NetlinkError { doing: doing.into(), cause, kernel: text });
                    }
                }
            }
            // A single reply to a request without acknowledgement.
            if flags & (NLM_F_ACK | NLM_F_DUMP) == 0 && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }

    /// Looks up a device by name; `None` if there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        match self.talk(&format!("looking up device {name}"), Message::GetLink(message), 0) {
            Ok(answers) => Ok(answers
                .into_iter()
                .find_map(|m| if let Message::NewLink(m) = m { Some(m) } else { None })
                .map(read_link)),
            Err(e) if e.errno() == libc::ENODEV => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns index and name of all devices, in the kernel's order.
    pub fn links(&mut self) -> Result<Vec<(u32, String)>, NetlinkError> {
        let answers = self.dump("listing devices", Message::GetLink(LinkMessage::default()))?;
        Ok(answers
            .into_iter()
            .filter_map(|m| if let Message::NewLink(m) = m { Some(m) } else { None })
            .filter_map(|m| {
                m.attributes.iter().find_map(|a| {
                    if let LinkAttribute::IfName(n) = a { Some((m.header.index, n.clone())) } else { None }
                })
            })
            .collect())
    }

    /// Changes a device: the flags in `mask` become `flags`, and `attributes` are set.
    pub fn set_link(
        &mut self,
        name: &str,
        index: u32,
        flags: LinkFlags,
        mask: LinkFlags,
        attributes: Vec<LinkAttribute>,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.header.change_mask = mask;
        message.attributes = attributes;
        self.change(&format!("setting up device {name}"), Message::SetLink(message), 0)
    }

    /// Creates a veth pair: `name` in this namespace, `peer` in the namespace `there`.
    pub fn add_veth(&mut self, name: &str, peer: &str, there: BorrowedFd<'_>) -> Result<(), NetlinkError> {
        let mut far = LinkMessage::default();
        far.attributes = vec![LinkAttribute::IfName(peer.into()), LinkAttribute::NetNsFd(there.as_raw_fd())];
        let mut near = LinkMessage::default();
        near.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
            ]),
        ];
        let doing = format!("making the veth pair {name}, {peer}");
        self.change(&doing, Message::NewLink(near), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds an address to a device, usable at once (no duplicate address detection).
    pub fn add_address(&mut self, name: &str, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let message = Message::NewAddress(address_message(index, address));
        self.change(&format!("adding address {address} to {name}"), message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes an address from a device.
    pub fn delete_address(&mut self, name: &str, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let message = Message::DelAddress(address_message(index, address));
        self.change(&format!("deleting address {address} from {name}"), message, 0)
    }

    /// Adds a route; fails with `EEXIST` if there is one with the same destination, table and metric.
    pub fn add_route(&mut self, route: Route) -> Result<(), NetlinkError> {
        let doing = format!("adding the route {} to table {}", route.to, route.table);
        self.change(&doing, Message::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a route.
    pub fn delete_route(&mut self, route: Route) -> Result<(), NetlinkError> {
        let doing = format!("deleting the route {} from table {}", route.to, route.table);
        self.change(&doing, Message::DelRoute(route_message(route)), 0)
    }

    /// Returns the routes of one table and family with their types; empty if there is no such table.
    pub fn routes(&mut self, family: AddressFamily, table: u32) -> Result<Vec<(Route, RouteType)>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.attributes.push(RouteAttribute::Table(table));
        let answers = match self.dump(&format!("listing the routes of table {table}"), Message::GetRoute(message)) {
            Err(e) if e.errno() == libc::ENOENT => return Ok(Vec::new()),
            other => other?,
        };
        Ok(answers
            .into_iter()
            .filter_map(|m| if let Message::NewRoute(m) = m { read_route(&m) } else { None })
            .filter(|(route, _)| route.table == table)
            .collect())
    }

    /// Returns the policy rules of one family, in order.
    pub fn rules(&mut self, family: AddressFamily) -> Result<Vec<RuleMessage>, NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let answers = match self.dump("listing policy rules", Message::GetRule(message)) {
            // The kernel lacks the family, or policy routing for it.
            Err(e) if e.errno() == libc::EAFNOSUPPORT || e.errno() == libc::EOPNOTSUPP => return Ok(Vec::new()),
            other => other?,
        };
        Ok(answers.into_iter().filter_map(|m| if let Message::NewRule(m) = m { Some(m) } else { None }).collect())
    }

    /// Adds a policy rule; fails with `EEXIST` if an identical one exists.
    pub fn add_rule(&mut self, rule: RuleMessage) -> Result<(), NetlinkError> {
        let doing = format!("adding the policy rule \"{}\"", show_rule(&rule));
        self.change(&doing, Message::NewRule(rule), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a policy rule, given as it was added or listed.
    pub fn delete_rule(&mut self, rule: RuleMessage) -> Result<(), NetlinkError> {
        let doing = format!("deleting the policy rule \"{}\"", show_rule(&rule));
        self.change(&doing, Message::DelRule(rule), 0)
    }
}

/// Formats a rule about as `ip rule` prints it, for messages.
pub fn show_rule(rule: &RuleMessage) -> String {
    let mut words: Vec<(u8, String)> = rule.attributes.iter().filter_map(|a| rule_word(rule, a)).collect();
    words.sort();
    words.into_iter().map(|(_, word)| word).collect::<Vec<_>>().join(" ")
}

/// Formats one attribute of a rule, with its position in the line.
fn rule_word(rule: &RuleMessage, attribute: &RuleAttribute) -> Option<(u8, String)> {
    Some(match attribute {
        RuleAttribute::Priority(n) => (0, format!("priority {n}")),
        RuleAttribute::Source(address) => (1, format!("from {address}/{}", rule.header.src_len)),
        RuleAttribute::Iifname(name) => (2, format!("iif {name}")),
        RuleAttribute::IpProtocol(p) => (3, format!("ipproto {}", u8::from(*p))),
        RuleAttribute::SourcePortRange(r) => (4, format!("sport {}-{}", r.start, r.end)),
        RuleAttribute::FwMark(mark) => {
            let mask =
                rule.attributes.iter().find_map(|a| if let RuleAttribute::FwMask(n) = a { Some(*n) } else { None });
            (4, format!("fwmark {mark:#x}/{:#x}", mask.unwrap_or(u32::MAX)))
        }
        RuleAttribute::Table(n) if *n > 0 => (5, format!("lookup {n}")),
        RuleAttribute::Goto(n) => (5, format!("goto {n}")),
        RuleAttribute::SuppressIfGroup(n) => (6, format!("suppress_ifgroup {n}")),
        _ => return None,
    })
}

/// Returns the address family as netlink encodes it.
pub fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
        AddressAttribute::Flags(AddressFlags::Nodad),
    ];
    message
}

fn route_message(route: Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.to.addr());
    message.header.destination_prefix_length = route.to.prefix_len();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = match route.via {
        Some(_) => RouteScope::Universe,
        None if route.to.addr().is_ipv4() => RouteScope::Link,
        None => RouteScope::Universe,
    };
    message.header.kind = RouteType::Unicast;
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes = vec![RouteAttribute::Table(route.table), RouteAttribute::Oif(route.device)];
    if route.to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(route.to.network().into()));
    }
    if let Some(via) = route.via {
        message.attributes.push(RouteAttribute::Gateway(via.into()));
    }
    if route.metric > 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

/// Reads a route and its type; `None` for one that is not of IPv4 or IPv6.
pub fn read_route(message: &RouteMessage) -> Option<(Route, RouteType)> {
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let (mut to, mut table) = (any, u32::from(message.header.table));
    let (mut device, mut via, mut metric) = (0, None, 0);
    let address = |a: &RouteAddress| match a {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => to = address(a)?,
            RouteAttribute::Gateway(a) => via = address(a),
            RouteAttribute::Table(n) => table = *n,
            RouteAttribute::Oif(n) => device = *n,
            RouteAttribute::Priority(n) => metric = *n,
            _ => {}
        }
    }
    let to = IpNet::new(to, message.header.destination_prefix_length).ok()?;
    let protocol = message.header.protocol.into();
    Some((Route { to, device, via, table, protocol, metric }, message.header.kind))
}

fn read_link(message: LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, kind: String::new(), carrier: false, lost: 0 };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::Carrier(n) => link.carrier = n != 0,
            LinkAttribute::Stats64(sums) => link.lost = sums.tx_dropped,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    link
}
