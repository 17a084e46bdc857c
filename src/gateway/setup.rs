//! What the gateway needs from the kernel: device, routes and policy rules; how they are installed, removed and
//! cleaned up.
//!
//! All of it applies to the network namespace of the calling thread. It must not know packets or flows.
//!
//! | what | why |
//! |---|---|
//! | route of each service address to the device, table `main` | clients' packets enter the device |
//! | default routes to the device in a table of our own | the rules send the servers' replies there |
//! | rule P: packets from the device skip to P+2 | packets written by the gateway never return to it |
//! | rules P+1: replies of servers are routed by that table | they enter the device |
//! | rules P+1: so is ICMP that arrives on interfaces towards servers | routers' errors about clients' packets enter |
//! | rule P+2: no operation | the target of rule P, so that the operator's own later rules still apply |
//!
//! Everything carries the protocol number [`PROTOCOL`], by which a later start recognizes what a killed run left
//! behind.

use super::netlink::{self, Link, Netlink, NetlinkError, Route};
use super::sysctl;
use super::wanted::{self, Answers};
use crate::config::Settings;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use std::collections::BTreeSet;
use std::fmt;

/// The protocol number (`RTPROT_*`, `ip route show proto 69`) that marks our routes and rules. The kernel only stores
/// it; iproute2's list of well-known numbers does not assign 69.
pub const PROTOCOL: u8 = 69;

/// The kernel's number of table `main`.
const MAIN: u32 = 254;
/// Packets that may queue in the device until they are read; the kernel's default of 500 is less than one burst of
/// segments.
const QUEUE: u32 = 1000;
/// The IP protocol number of ICMPv6, for which the crate has no constant.
const ICMPV6: i32 = 58;
/// The interface on which the gateway's own packets arrive.
const LOOPBACK: &str = "lo";
/// The best metric an IPv6 route can have; for IPv4 it is 0.
const BEST_V6: u32 = 1;

/// Why something could not be set up, and how to fix it.
#[derive(Debug)]
pub struct SetupError {
    what: String,
    fix: Option<String>,
}

impl SetupError {
    fn new(what: impl fmt::Display, fix: impl Into<Option<String>>) -> Self {
        SetupError { what: what.to_string(), fix: fix.into() }
    }

    /// Returns what failed, without the remedy.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns the remedy, if there is a known one.
    pub fn fix(&self) -> Option<&str> {
        self.fix.as_deref()
    }
}

/// The failure, then the remedy.
impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SetupError {}

impl From<NetlinkError> for SetupError {
    fn from(e: NetlinkError) -> Self {
        let fix = (e.errno() == libc::EPERM).then(|| "this needs the capability CAP_NET_ADMIN".to_owned());
        SetupError::new(e, fix)
    }
}

fn open() -> Result<Netlink, SetupError> {
    Netlink::open().map_err(|e| SetupError::new(format!("opening a netlink socket: {e}"), None))
}

/// Deletes what a killed gateway with the same device or routing table left behind; returns the number of rules and
/// routes deleted. To be called before the device is opened.
///
/// Fails, without deleting anything, if that gateway is still running: its device has a carrier, or the table routes
/// to another device.
pub fn clean_leftovers(settings: &Settings) -> Result<usize, SetupError> {
    let gateway = &settings.gateway;
    let mut netlink = open()?;
    let device = netlink.link(&gateway.device)?;
    if let Some(why) = device.as_ref().and_then(|link| unusable(&gateway.device, link)) {
        return Err(why);
    }
    let own = device.as_ref().map_or(0, |link| link.index);
    let mut stale = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for table in [gateway.route_table, MAIN] {
            let routes = netlink.routes(family, table)?.into_iter().map(|(route, _)| route);
            for route in routes.filter(|r| r.protocol == PROTOCOL) {
                if route.device == own {
                    stale.push(route);
                } else if table != MAIN {
                    return Err(table_in_use(&mut netlink, route));
                }
            }
        }
    }
    if own != 0 {
        log::warn!(
            "device {0} already exists and is persistent, so it stays when the gateway stops; \
             if nobody needs it, stop the gateway and delete it: ip link delete {0}",
            gateway.device
        );
    }
    let mut cleaned = 0;
    for route in stale {
        netlink.delete_route(route)?;
        cleaned += 1;
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for rule in netlink.rules(family)? {
            if is_ours(&rule, gateway.route_table, &gateway.device) {
                netlink.delete_rule(rule)?;
                cleaned += 1;
            }
        }
    }
    Ok(cleaned)
}

/// Returns why an existing device cannot become the gateway's, if so.
pub(super) fn unusable(name: &str, link: &Link) -> Option<SetupError> {
    if link.kind != "tun" {
        let kind = if link.kind.is_empty() { "hardware" } else { &link.kind };
        let what = format!("the gateway's device {name} already exists and is not a TUN device but {kind}");
        return Some(SetupError::new(
            what,
            format!("choose another name in the configuration, or: ip link delete {name}"),
        ));
    }
    let fix = "is another gateway running? Stop it, or give this one its own device, route-table and rule-priority";
    link.carrier.then(|| SetupError::new(format!("a process has the gateway's device {name} open"), fix.to_owned()))
}

fn table_in_use(netlink: &mut Netlink, route: Route) -> SetupError {
    let links = netlink.links().unwrap_or_default();
    let name = links.into_iter().find(|(index, _)| *index == route.device);
    let name = name.map_or_else(|| format!("number {}", route.device), |(_, name)| name);
    let what = format!("routing table {} already belongs to another gateway, with device {name}", route.table);
    SetupError::new(what, "give this one its own route-table in the configuration".to_owned())
}

/// Returns whether a gateway with this table and device installed the rule.
fn is_ours(rule: &RuleMessage, table: u32, device: &str) -> bool {
    let has = |a: &RuleAttribute| rule.attributes.contains(a);
    has(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
        && (has(&RuleAttribute::Table(table)) || has(&RuleAttribute::Iifname(device.into())))
}

/// Counts the rules of the calling thread's namespace, and the routes in its table `main`, that carry a protocol
/// number.
pub fn count_marked(protocol: u8) -> Result<usize, SetupError> {
    let mut netlink = open()?;
    let mark = RuleAttribute::Protocol(RouteProtocol::from(protocol));
    let mut count = 0;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        count += netlink.rules(family)?.iter().filter(|r| r.attributes.contains(&mark)).count();
        count += netlink.routes(family, MAIN)?.iter().filter(|(r, _)| r.protocol == protocol).count();
    }
    Ok(count)
}

/// The most interfaces per family that get a rule of their own: the kernel evaluates rules one by one.
pub const MOST_INTERFACES: usize = 64;

/// Names of interfaces, for IPv4 and for IPv6.
pub type Interfaces = [BTreeSet<String>; 2];

/// What has been installed; removed by [`Installed::remove`] or on drop, from any thread.
#[derive(Debug)]
pub struct Installed {
    /// Bound to the namespace in which it was opened, whichever thread drops it.
    netlink: Netlink,
    device: String,
    undo: Vec<Undo>,
    /// Those of the rules that select ICMP by interface.
    errors: Vec<RuleMessage>,
    /// The table that the rules look up, and their priority.
    table: u32,
    priority: u32,
    /// Whether any IPv4 and any IPv6 address is routed to the device.
    families: [bool; 2],
}

#[derive(Debug, PartialEq)]
enum Undo {
    Address(u32, IpNet),
    Route(Route),
    Rule(RuleMessage),
}

impl Installed {
    /// Configures the device, which must be open, and routes packets to it; `interfaces` are those towards servers,
    /// for IPv4 and for IPv6. Undoes everything on failure.
    pub fn install(settings: &Settings, device: &str, interfaces: &Interfaces) -> Result<Installed, SetupError> {
        let (v4, v6) = wanted::families(settings);
        let mut installed = Installed {
            netlink: open()?,
            device: device.into(),
            undo: Vec::new(),
            errors: Vec::new(),
            table: settings.gateway.route_table,
            priority: settings.gateway.rule_priority + 1,
            families: [v4, v6],
        };
        let link = installed.netlink.link(device)?;
        let link = link.ok_or_else(|| SetupError::new(format!("there is no device {device}"), None))?;
        installed.device_up(settings, link.index)?;
        for address in &settings.gateway.addresses {
            installed.netlink.add_address(device, link.index, *address)?;
            installed.undo.push(Undo::Address(link.index, *address));
        }
        // Replies first: no client's packet may enter before its reply can.
        installed.return_routing(settings, link.index)?;
        installed.follow_errors(interfaces)?;
        for to in wanted::routed_addresses(settings) {
            installed.route(route(to, MAIN, link.index))?;
        }
        Ok(installed)
    }

    /// Removes everything; what is already gone is not an error.
    pub fn remove(mut self) -> Result<(), SetupError> {
        self.take_away()
    }

    fn device_up(&mut self, settings: &Settings, index: u32) -> Result<(), SetupError> {
        let device = self.device.clone();
        let refused = |e| SetupError::new(format!("setting up device {device}: {e}"), None);
        // Packets written to the device carry the clients' source addresses, which the kernel routes elsewhere.
        sysctl::set(&format!("net/ipv4/conf/{device}/rp_filter"), "0").map_err(refused)?;
        // The kernel's own ICMP errors to service addresses come back out of the device, translated for the servers,
        // with the gateway's address as their source.
        sysctl::set(&format!("net/ipv4/conf/{device}/accept_local"), "1").map_err(refused)?;
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
        self.netlink.set_link(&device, index, LinkFlags::Up, mask, attributes)?;
        if v6 {
            sysctl::set(&conf("forwarding"), "1").map_err(refused)?;
        }
        Ok(())
    }

    fn return_routing(&mut self, settings: &Settings, index: u32) -> Result<(), SetupError> {
        let (gateway, device) = (&settings.gateway, self.device.clone());
        let (v4, v6) = wanted::families(settings);
        let first = gateway.rule_priority;
        for (family, any) in [
            (AddressFamily::Inet, v4.then(|| IpNet::V4(Ipv4Net::default()))),
            (AddressFamily::Inet6, v6.then(|| IpNet::V6(Ipv6Net::default()))),
        ] {
            let Some(any) = any else { continue };
            self.route(route(any, gateway.route_table, index))?;
            let from_device = RuleAttribute::Iifname(device.clone());
            self.rule(rule(family, RuleAction::Nop, first + 2, vec![from_device.clone()]))?;
            self.rule(rule(family, RuleAction::Goto, first, vec![from_device, RuleAttribute::Goto(first + 2)]))?;
        }
        let selectors = wanted::answers(settings);
        for selector in &selectors {
            self.rule(answer_rule(selector, gateway.route_table, first + 1))?;
        }
        log::debug!("{} policy rules route the servers' replies to {device}", selectors.len());
        Ok(())
    }

    /// Routes ICMP that arrives on these interfaces to the device, and no longer from others.
    pub fn follow_errors(&mut self, interfaces: &Interfaces) -> Result<(), SetupError> {
        let [v4, v6] = self.families;
        let mut wanted = Vec::new();
        for (family, protocol, names, is_used) in [
            (AddressFamily::Inet, IpProtocol::Icmp, &interfaces[0], v4),
            (AddressFamily::Inet6, IpProtocol::from(ICMPV6), &interfaces[1], v6),
        ] {
            let names = names.iter().filter(|name| is_used && name.as_str() != LOOPBACK);
            if names.clone().count() > MOST_INTERFACES {
                log::warn!(
                    "more than {MOST_INTERFACES} interfaces lead to servers: routers' ICMP errors about clients' packets are \
                     not translated"
                );
                continue;
            }
            wanted.extend(names.map(|name| {
                let attributes = vec![
                    RuleAttribute::Iifname(name.clone()),
                    RuleAttribute::IpProtocol(protocol),
                    RuleAttribute::Table(self.table),
                ];
                rule(family, RuleAction::ToTable, self.priority, attributes)
            }));
        }
        for rule in &wanted {
            if !self.errors.contains(rule) {
                self.rule(rule.clone())?;
                self.errors.push(rule.clone());
            }
        }
        for rule in self.errors.extract_if(.., |rule| !wanted.contains(rule)).collect::<Vec<_>>() {
            self.undo.retain(|step| !matches!(step, Undo::Rule(other) if *other == rule));
            match self.netlink.delete_rule(rule) {
                Err(e) if e.errno() != libc::ENOENT => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn route(&mut self, route: Route) -> Result<(), SetupError> {
        match self.netlink.add_route(route) {
            Ok(()) => self.undo.push(Undo::Route(route)),
            Err(e) if e.errno() == libc::EEXIST => {
                let table = if route.table == MAIN { String::new() } else { format!(" table {}", route.table) };
                let fix = format!(
                    "it is already routed; inspect the route (ip route show exact {0}{table}) and, if it is not needed, \
                     delete it (ip route delete {0}{table})",
                    route.to
                );
                return Err(SetupError::new(e, fix));
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    fn rule(&mut self, rule: RuleMessage) -> Result<(), SetupError> {
        match self.netlink.add_rule(rule.clone()) {
            Ok(()) => self.undo.push(Undo::Rule(rule)),
            Err(e) if e.errno() == libc::EEXIST => {
                let fix =
                    "an identical rule exists: choose another rule-priority in the configuration, or delete that rule";
                return Err(SetupError::new(e, fix.to_owned()));
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    fn take_away(&mut self) -> Result<(), SetupError> {
        let mut first = Ok(());
        for step in std::mem::take(&mut self.undo).into_iter().rev() {
            let done = match step {
                Undo::Address(index, address) => self.netlink.delete_address(&self.device, index, address),
                Undo::Route(route) => self.netlink.delete_route(route),
                Undo::Rule(rule) => self.netlink.delete_rule(rule),
            };
            match done {
                // Removed with the device, or deleted by hand.
                Err(e) if [libc::ESRCH, libc::ENOENT, libc::ENODEV, libc::EADDRNOTAVAIL].contains(&e.errno()) => {}
                Err(e) if first.is_ok() => first = Err(e.into()),
                _ => {}
            }
        }
        first
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(e) = self.take_away() {
            log::error!("{e}");
        }
    }
}

fn route(to: IpNet, table: u32, device: u32) -> Route {
    let metric = if to.addr().is_ipv6() { BEST_V6 } else { 0 };
    Route { to, device, via: None, table, protocol: PROTOCOL, metric }
}

fn rule(family: AddressFamily, action: RuleAction, priority: u32, attributes: Vec<RuleAttribute>) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = action;
    message.attributes = attributes;
    message.attributes.push(RuleAttribute::Priority(priority));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    message
}

fn answer_rule(answers: &Answers, table: u32, priority: u32) -> RuleMessage {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{namespace, tun, two_families};
    use super::*;
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    fn rules() -> Vec<String> {
        let mut netlink = open().unwrap();
        let both = [AddressFamily::Inet, AddressFamily::Inet6];
        let all = both.iter().flat_map(|f| netlink.rules(*f).unwrap()).collect::<Vec<_>>();
        let mark = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
        all.iter().filter(|r| r.attributes.contains(&mark)).map(netlink::show_rule).collect()
    }

    /// Counts our rules and routes in all tables of the namespace.
    fn left(settings: &Settings) -> usize {
        let mut netlink = open().unwrap();
        let table = settings.gateway.route_table;
        let own = [AddressFamily::Inet, AddressFamily::Inet6].map(|f| netlink.routes(f, table).unwrap().len());
        count_marked(PROTOCOL).unwrap() + own[0] + own[1]
    }

    #[test]
    fn what_is_installed_is_taken_away_again() {
        let Some(ns) = namespace("eq-set1") else { return };
        ns.run(|| {
            let mut settings = two_families();
            settings.gateway.addresses = vec!["10.77.0.1/32".parse().unwrap(), "fd77::1/128".parse().unwrap()];
            let _tun = tun("eqtest0");
            let installed = Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap();
            // Per family a nop, a goto, and TCP and ICMP rules of two servers; two default routes, and two services
            // in main.
            assert_eq!(rules().len(), 12, "{:?}", rules());
            assert_eq!(left(&settings), 16);
            assert!(
                rules().contains(&"priority 4243 from fd09::5/128 ipproto 6 sport 80-80 lookup 4242".into()),
                "{:?}",
                rules()
            );
            let mut netlink = open().unwrap();
            let local = netlink.routes(AddressFamily::Inet, 255).unwrap();
            assert!(local.iter().any(|(r, _)| r.to == "10.77.0.1/32".parse::<IpNet>().unwrap()));
            installed.remove().unwrap();
            assert_eq!(left(&settings), 0);
            let local = netlink.routes(AddressFamily::Inet, 255).unwrap();
            assert!(!local.iter().any(|(r, _)| r.to == "10.77.0.1/32".parse::<IpNet>().unwrap()));
        })
        .unwrap();
    }

    #[test]
    fn errors_come_by_the_interfaces_that_lead_to_servers_as_these_change() {
        let Some(ns) = namespace("eq-set9") else { return };
        ns.run(|| {
            let settings = two_families();
            let _tun = tun("eqtest0");
            let names = |v4: &[&str], v6: &[&str]| [v4, v6].map(|n| n.iter().map(|n| n.to_string()).collect());
            let by_interface = || {
                let of_pings = |r: &String| r.contains(" iif ") && r.contains("ipproto");
                rules().into_iter().filter(of_pings).map(|r| r[14..].replace(" lookup 4242", "")).collect::<Vec<_>>()
            };
            let mut installed =
                Installed::install(&settings, "eqtest0", &names(&["eth1", "eth0"], &["eth1", "lo"])).unwrap();
            assert_eq!(by_interface(), ["iif eth0 ipproto 1", "iif eth1 ipproto 1", "iif eth1 ipproto 58"]);
            assert_eq!(left(&settings), 19);
            for (v4, v6, want) in [
                (&["eth0"][..], &["eth1"][..], &["iif eth0 ipproto 1", "iif eth1 ipproto 58"][..]),
                (&["eth0", "eth2"], &[], &["iif eth0 ipproto 1", "iif eth2 ipproto 1"]),
                (&["eth0", "eth2"], &[], &["iif eth0 ipproto 1", "iif eth2 ipproto 1"]),
                (&[], &["eth0"], &["iif eth0 ipproto 58"]),
            ] {
                installed.follow_errors(&names(v4, v6)).unwrap();
                assert_eq!(by_interface(), want);
            }
            let many = (0..=MOST_INTERFACES).map(|n| format!("eth{n}")).collect();
            installed.follow_errors(&[many, BTreeSet::from(["eth0".to_owned()])]).unwrap();
            assert_eq!(by_interface(), ["iif eth0 ipproto 58"], "above the limit there are none");
            installed.remove().unwrap();
            assert_eq!(left(&settings), 0);
        })
        .unwrap();
    }

    #[test]
    fn dropping_in_another_namespace_cleans_the_right_one() {
        let Some(ns) = namespace("eq-set2") else { return };
        let settings = two_families();
        let (tun, installed) = ns
            .run(|| (tun("eqtest0"), Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap()))
            .unwrap();
        assert_eq!(ns.run(|| left(&settings)).unwrap(), 16);
        drop(installed);
        assert_eq!(ns.run(|| left(&settings)).unwrap(), 0);
        drop(tun);
    }

    #[test]
    fn a_route_of_somebody_else_is_an_error_and_nothing_stays() {
        for to in ["192.0.2.10/32", "2001:db8::10/128"] {
            let Some(ns) = namespace("eq-set3") else { return };
            ns.run(|| {
                let settings = two_families();
                let _tun = tun("eqtest0");
                let mut netlink = open().unwrap();
                let foreign = Route { protocol: 4, ..route(to.parse().unwrap(), MAIN, 1) };
                netlink.add_route(foreign).unwrap();
                let e = Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap_err().to_string();
                assert!(e.contains("File exists") && e.contains(&format!("ip route delete {to}")), "{e}");
                assert_eq!(left(&settings), 0);
                assert_eq!(
                    netlink
                        .routes(netlink::family(foreign.to.addr()), MAIN)
                        .unwrap()
                        .iter()
                        .filter(|(r, _)| *r == foreign)
                        .count(),
                    1
                );
            })
            .unwrap();
        }
    }

    #[test]
    fn what_a_killed_gateway_left_is_cleaned_and_a_new_one_starts() {
        let Some(ns) = namespace("eq-set4") else { return };
        ns.run(|| {
            let settings = two_families();
            let device = tun("eqtest0");
            std::mem::forget(Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap());
            drop(device);
            assert_eq!(left(&settings), 12, "the routes died with the device, the rules did not");
            assert_eq!(clean_leftovers(&settings).unwrap(), 12);
            assert_eq!(clean_leftovers(&settings).unwrap(), 0);
            let _tun = tun("eqtest0");
            Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap().remove().unwrap();
        })
        .unwrap();
    }

    #[test]
    fn a_persistent_device_is_cleaned_of_routes_too() {
        let Some(ns) = namespace("eq-set5") else { return };
        ns.run(|| {
            let settings = two_families();
            let device = tun("eqtest0");
            persist(&device);
            std::mem::forget(Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap());
            drop(device);
            assert_eq!(left(&settings), 16);
            assert_eq!(clean_leftovers(&settings).unwrap(), 16);
            assert_eq!(left(&settings), 0);
        })
        .unwrap();
    }

    #[allow(unsafe_code)]
    fn persist(device: &tun_tap::Iface) {
        const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
        // SAFETY: the ioctl takes a number, not a pointer.
        assert_eq!(unsafe { libc::ioctl(device.as_raw_fd(), TUNSETPERSIST, 1) }, 0);
    }

    #[test]
    fn a_living_gateway_is_never_cleaned() {
        let Some(ns) = namespace("eq-set6") else { return };
        ns.run(|| {
            let first = two_families();
            let _tun = tun("eqtest0");
            let installed = Installed::install(&first, "eqtest0", &Interfaces::default()).unwrap();
            let mut second = two_families();
            // The same device and table.
            let e = clean_leftovers(&second).unwrap_err().to_string();
            assert!(e.contains("a process has the gateway's device eqtest0 open"), "{e}");
            // The same table.
            second.gateway.device = "eqtest1".into();
            let e = clean_leftovers(&second).unwrap_err().to_string();
            assert!(e.contains("routing table 4242 already belongs to another gateway, with device eqtest0"), "{e}");
            // Neither.
            second.gateway.route_table = 4300;
            second.gateway.rule_priority = 4300;
            assert_eq!(clean_leftovers(&second).unwrap(), 0);
            assert_eq!(left(&first), 16);
            installed.remove().unwrap();
        })
        .unwrap();
    }

    #[test]
    fn answers_go_to_the_device_and_what_comes_out_of_it_never_returns() {
        let Some(ns) = namespace("eq-set7") else { return };
        let Some(far) = namespace("eq-set7-far") else { return };
        ns.forward().unwrap();
        ns.cable("eth0", &far, "eth0").unwrap();
        ns.address("eth0", "10.9.0.1/24".parse().unwrap()).unwrap();
        far.address("eth0", "10.9.0.5/24".parse().unwrap()).unwrap();
        far.address("eth0", "10.9.0.6/24".parse().unwrap()).unwrap();
        far.default_route("eth0", "10.9.0.1".parse().unwrap()).unwrap();
        let settings = two_families();
        ns.run(|| {
            let tun = tun("eqtest0");
            tun.set_non_blocking().unwrap();
            let _installed = Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap();
            let send = |from: &str, to: &str| {
                far.run(|| {
                    let stream = |from: &str, to: &str| {
                        let socket = rustix::net::socket(
                            rustix::net::AddressFamily::INET,
                            rustix::net::SocketType::STREAM,
                            None,
                        )?;
                        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
                        rustix::net::bind(&socket, &from.parse::<std::net::SocketAddr>().unwrap())?;
                        rustix::io::ioctl_fionbio(&socket, true)?;
                        let _ = rustix::net::connect(&socket, &to.parse::<std::net::SocketAddr>().unwrap());
                        Ok::<(), rustix::io::Errno>(())
                    };
                    stream(from, to).unwrap();
                })
                .unwrap();
            };
            // (from, to, whether it comes out of the device): the server's service port, another port of it, another
            // host's port, a client to the service address.
            for (from, to, want) in [
                ("10.9.0.5:80", "203.0.113.9:4000", true),
                ("10.9.0.5:81", "203.0.113.9:4001", false),
                ("10.9.0.6:80", "203.0.113.9:4002", false),
                ("10.9.0.6:4003", "192.0.2.10:80", true),
                ("10.9.0.6:4004", "192.0.2.11:80", false),
            ] {
                send(from, to);
                let port: u16 = to.rsplit(':').next().unwrap().parse().unwrap();
                assert_eq!(syn_to(&tun, port), want, "{from} -> {to}");
            }
            // As the engine would write it: a server's reply that was not translated, to an address that only our
            // table routes. It must not come back.
            let mut syn = [0u8; 1500];
            let length = etherparse_syn(&mut syn, [10, 9, 0, 5], [203, 0, 113, 9], 80, 4005);
            tun.send(&syn[..length]).unwrap();
            assert!(!syn_to(&tun, 4005), "a packet written to the device came back");
        })
        .unwrap();
    }

    fn etherparse_syn(buf: &mut [u8], from: [u8; 4], to: [u8; 4], sport: u16, dport: u16) -> usize {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ipv4(from, to, 64).tcp(sport, dport, 1, 1000).syn().write(&mut bytes, &[]).unwrap();
        buf[..bytes.len()].copy_from_slice(&bytes);
        bytes.len()
    }

    /// Returns whether a TCP packet to the port comes out within 200 ms.
    fn syn_to(tun: &tun_tap::Iface, port: u16) -> bool {
        let (mut buf, until) = ([0u8; 2000], Instant::now() + Duration::from_millis(200));
        while Instant::now() < until {
            match tun.recv(&mut buf) {
                Ok(n) if n >= 24 && buf[9] == 6 && buf[22..24] == port.to_be_bytes() => return true,
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        false
    }

    #[test]
    fn the_kernel_itself_says_nothing_on_the_device() {
        let Some(ns) = namespace("eq-set8") else { return };
        ns.forward().unwrap();
        ns.run(|| {
            let tun = tun("eqtest0");
            tun.set_non_blocking().unwrap();
            let _installed = Installed::install(&two_families(), "eqtest0", &Interfaces::default()).unwrap();
            // Router solicitations and multicast reports are sent within the first two seconds.
            let until = Instant::now() + Duration::from_millis(2500);
            let mut buf = [0u8; 2000];
            while Instant::now() < until {
                if let Ok(n) = tun.recv(&mut buf) {
                    panic!("{:02x?}", &buf[..n]);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        })
        .unwrap();
    }
}
