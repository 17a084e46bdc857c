//! What the gateway needs from the kernel: device, routes and policy rules; how they are installed, removed and
//! cleaned up.
//!
//! All of it applies to the network namespace of the calling thread. It must not know packets or flows.
//!
//! | what | why |
//! |---|---|
//! | route of each service address to the device, table `main` | clients' packets enter the device |
//! | in a pair with `routes = "when-active"`, while it is not active, with metric [`QUIET`] | routing daemons tell by the metric what to announce |
//! | blackhole route of each service address, worst metric | while there is no device, its packets do not follow the default route |
//! | default routes to the device in a table of our own | the rules send the servers' replies there |
//! | rule P: packets from the device skip to P+2 | packets written by the gateway never return to it |
//! | with marks, rule P: look-ups of the way back to the sender of a marked reply skip to P+2 | reverse-path checks that know marks find the server's interface, not the device |
//! | and rules P+1: what is marked as a flow's is routed by that table | replies enter the device, and the reverse look-up for packets from the device finds it |
//! | else, rules P+1: replies of servers are routed by that table | they enter the device, and so does much of what servers send for themselves |
//! | and rules P+1: so is ICMP that arrives on interfaces towards servers | routers' errors about clients' packets enter |
//! | with a state file or a peer, a blackhole route in that table, worst metric, and rules P+2: TCP of servers from where they serve is looked up there, unless that leads to the device | replies are discarded while no gateway runs, so that connections wait for the next one |
//! | rule P+2: no operation | the target of rule P, so that the operator's own later rules still apply |
//! | with `announce`: proxy entries on the interfaces of connected networks | hosts there find service addresses in these networks |
//!
//! Everything carries the protocol number [`PROTOCOL`], by which a later start recognizes what a killed run left
//! behind.

mod adopt;
mod announce;
mod device;
mod error;
mod follow;
mod leftovers;
mod part;
mod rules;

#[cfg(test)]
mod tests;

pub use announce::{MOST_ANNOUNCED, addresses, connected};
pub use error::SetupError;
pub use follow::Changes;
pub use leftovers::{clean_leftovers, count_marked};
pub(super) use leftovers::{is_ours, unusable};
pub use part::{FALLBACK, Part, proxying};

use super::netlink::{Netlink, Route};
use super::{bpf::marks, wanted};
use crate::config::{GatewaySettings, PairRoutes, Settings};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rules::{answer_rule, error_rule, hold_rule, holds, mark_rule, reverse_rule, route, rule};
use std::collections::BTreeSet;

/// The protocol number (`RTPROT_*`, `ip route show proto 69`) that marks our routes and rules. The kernel only stores
/// it; iproute2's list of well-known numbers does not assign 69.
pub const PROTOCOL: u8 = 69;

/// The kernel's number of table `main`.
pub(super) const MAIN: u32 = 254;
/// The metric of the route of a service address that is not to be announced: packets that come all the same are forwarded.
/// FRR takes the highest byte of a metric for a distance, which this one has not.
pub const QUIET: u32 = 1_000_000;
/// The interface by which rules select packets that the machine itself sends.
const LOOPBACK: &str = "lo";

fn open() -> Result<Netlink, SetupError> {
    Netlink::open().map_err(|e| SetupError::new(format!("opening a netlink socket: {e}"), None))
}

/// The most interfaces per family that get a rule of their own: the kernel evaluates rules one by one.
pub const MOST_INTERFACES: usize = 64;

/// The most rules that hold the replies of servers: every packet that the machine forwards is compared with them.
const MOST_HOLDS: usize = 128;

/// Names of interfaces, for IPv4 and for IPv6.
pub type Interfaces = [BTreeSet<String>; 2];

/// How the rules select what enters the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// By addresses and ports: all that servers send from where they serve, and all ICMP.
    Addresses,
    /// By the marks of the packets of flows.
    Marks,
}

/// What has been installed; removed by [`Installed::remove`] or on drop, from any thread.
#[derive(Debug)]
pub struct Installed {
    /// Bound to the namespace in which it was opened, whichever thread drops it.
    netlink: Netlink,
    gateway: GatewaySettings,
    /// The index of the device.
    index: u32,
    /// In the order of installation.
    parts: Vec<Part>,
    /// Those of the rules that change with the interfaces.
    errors: Vec<RuleMessage>,
    /// The rules that select replies by their addresses.
    answers: Vec<RuleMessage>,
    selects: Select,
    /// Whether packets may come without the mark that they should have.
    has_gaps: bool,
    /// Whether flows outlive this process: until the next one takes them, their packets are discarded.
    holds: bool,
    /// Whether what discards them stays.
    stays: bool,
    /// The networks routed to the device.
    routed: BTreeSet<IpNet>,
    /// Whether any IPv4 and any IPv6 address is routed to the device.
    families: [bool; 2],
    /// Interfaces by which packets of servers arrive, IPv4.
    towards_servers: BTreeSet<String>,
    /// Whether routes of service addresses have the metric by which they are announced.
    announces: bool,
    /// While all of it belongs to another gateway: what this one has added.
    added: Option<Vec<Part>>,
    /// What that gateway has installed and this one does not need.
    strangers: Vec<Part>,
}

impl Installed {
    /// Configures the device, which must be open, and routes packets to it; `interfaces` are those towards servers,
    /// for IPv4 and for IPv6. Undoes everything on failure.
    pub fn install(settings: &Settings, device: &str, interfaces: &Interfaces) -> Result<Installed, SetupError> {
        Installed::install_selecting(settings, device, interfaces, Select::Addresses)
    }

    /// The same with rules that select by addresses or by marks.
    pub fn install_selecting(
        settings: &Settings,
        device: &str,
        interfaces: &Interfaces,
        selects: Select,
    ) -> Result<Installed, SetupError> {
        let mut installed = Installed::nothing(settings, device, selects)?;
        installed.install_all(settings, settings, interfaces)?;
        Ok(installed)
    }

    fn nothing(settings: &Settings, device: &str, selects: Select) -> Result<Installed, SetupError> {
        let (v4, v6) = wanted::families(settings);
        Ok(Installed {
            netlink: open()?,
            gateway: GatewaySettings { device: device.into(), ..settings.gateway.clone() },
            index: 0,
            parts: vec![Part::Device],
            errors: Vec::new(),
            answers: Vec::new(),
            selects,
            has_gaps: false,
            holds: settings.flows_outlive(),
            stays: false,
            routed: wanted::routed_addresses(settings),
            families: [v4, v6],
            towards_servers: BTreeSet::new(),
            announces: settings.sync.as_ref().is_none_or(|pair| pair.routes == PairRoutes::Always),
            added: None,
            strangers: Vec::new(),
        })
    }

    fn install_all(&mut self, settings: &Settings, all: &Settings, interfaces: &Interfaces) -> Result<(), SetupError> {
        self.find_device()?;
        for address in &settings.gateway.addresses {
            let part = Part::Address(*address);
            if self.added.is_some() {
                self.keep(part)?;
                continue;
            }
            part.add(&mut self.netlink, &self.gateway.device, self.index)?;
            self.parts.push(part);
        }
        // Replies first: no client's packet may enter before its reply can. Their rules come before the route of the table:
        // without them, it would end the hold of packets that are marked.
        let table_routes = self.return_routing((settings, all), self.index)?;
        self.follow_errors(interfaces)?;
        for route in table_routes {
            self.route(route)?;
        }
        if self.added.is_none() {
            self.remove_other_holds();
        }
        for to in self.routed.clone() {
            // In this order: where a route is refused, another gateway has the address, and its fallback.
            self.route(self.service_route(to))?;
            self.fallback(to)?;
        }
        self.follow_announcements()?;
        Ok(())
    }

    /// Returns its parts, in the order of installation.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns the names of its parts, in the same order.
    pub fn names(&self) -> Vec<String> {
        self.parts.iter().map(|part| part.name(&self.gateway.device)).collect()
    }

    /// Returns the index of the device.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns whether the device is as it was set up.
    pub fn is_device_set_up(&mut self) -> bool {
        device::is_up(&mut self.netlink, &self.gateway, self.families[1], self.index).unwrap_or(false)
    }

    /// Returns whether any IPv4 and any IPv6 address is routed to the device.
    pub fn families(&self) -> [bool; 2] {
        self.families
    }

    /// Returns the interfaces towards servers by IPv4.
    pub fn towards_servers(&self) -> &BTreeSet<String> {
        &self.towards_servers
    }

    /// Returns whether the device exists, under any name.
    pub fn has_device(&mut self) -> bool {
        self.netlink.device_at(self.index).is_ok_and(|found| found.is_some())
    }

    /// Returns the number of the table that the rules look up.
    pub fn table(&self) -> u32 {
        self.gateway.route_table
    }

    /// Returns whether addresses are announced in connected networks.
    pub fn announces(&self) -> bool {
        self.gateway.announce
    }

    /// Finds the device by its name, which must be open, and sets it up.
    pub fn find_device(&mut self) -> Result<(), SetupError> {
        let device = &self.gateway.device;
        let link = self.netlink.link(device)?;
        let link = link.ok_or_else(|| SetupError::new(format!("there is no device {device}"), None))?;
        self.index = link.index;
        self.repair(&Part::Device).map(drop)
    }

    /// Installs a part once more; returns false for one that is already there.
    pub fn repair(&mut self, part: &Part) -> Result<bool, SetupError> {
        if *part == Part::Device {
            return device::bring_up(&mut self.netlink, &self.gateway, self.families[1], self.index).map(|()| true);
        }
        match part.add(&mut self.netlink, &self.gateway.device, self.index) {
            Err(e) if e.errno() == libc::EEXIST => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    /// Removes everything; what is already gone is not an error.
    pub fn remove(mut self) -> Result<(), SetupError> {
        self.take_away()
    }

    /// Adds the route that holds while there is no device. It may be there already: the gateway before this one has left
    /// it.
    fn fallback(&mut self, to: IpNet) -> Result<(), SetupError> {
        self.keep(Part::Fallback(to))
    }

    /// Installs a part that may be there already.
    fn keep(&mut self, part: Part) -> Result<(), SetupError> {
        if self.repair(&part)?
            && let Some(added) = &mut self.added
        {
            added.push(part.clone());
        }
        self.parts.push(part);
        Ok(())
    }

    /// Installs the rules of the device; returns the routes of the table. `all` are the settings with all servers whose replies
    /// are to be selected.
    fn return_routing(
        &mut self,
        (settings, all): (&Settings, &Settings),
        index: u32,
    ) -> Result<Vec<Route>, SetupError> {
        let (gateway, device) = (&settings.gateway, self.gateway.device.clone());
        let [v4, v6] = self.families;
        let first = gateway.rule_priority;
        let (table, mut routes) = (gateway.route_table, Vec::new());
        for (family, any) in [
            (AddressFamily::Inet, v4.then(|| IpNet::V4(Ipv4Net::default()))),
            (AddressFamily::Inet6, v6.then(|| IpNet::V6(Ipv6Net::default()))),
        ] {
            let Some(any) = any else { continue };
            routes.push(route(any, table, index));
            if self.holds {
                self.keep(Part::Hold(any, table))?;
            }
            let from_device = RuleAttribute::Iifname(device.clone());
            self.rule(rule(family, RuleAction::Nop, first + 2, vec![from_device.clone()]))?;
            self.rule(rule(family, RuleAction::Goto, first, vec![from_device, RuleAttribute::Goto(first + 2)]))?;
        }
        let answers = wanted::answers(all);
        self.answers = answers.iter().map(|of| answer_rule(of, gateway.route_table, first + 1)).collect();
        log::debug!("{} policy rules select the servers' replies by their addresses", answers.len());
        let holds = self.all_hold_rules().count();
        if self.holds && holds > MOST_HOLDS {
            log::warn!(
                "{holds} rules would be needed to hold the replies of servers while no gateway runs, more than {MOST_HOLDS}: \
                 busy connections may break then"
            );
        }
        Ok(routes)
    }

    /// Makes what discards packets while there is no gateway stay after the end of this one.
    pub fn leave_fallbacks(&mut self) {
        self.stays = true;
    }

    /// Returns the rules that discard replies while there is no device, however many.
    fn all_hold_rules(&self) -> impl Iterator<Item = RuleMessage> {
        let (table, priority) = (self.gateway.route_table, self.gateway.rule_priority + 2);
        self.answers.iter().filter_map(move |answers| hold_rule(answers, table, priority))
    }

    /// Removes rules of an earlier gateway that held replies which this one does not hold.
    fn remove_other_holds(&mut self) {
        let table = self.gateway.route_table;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let found = self.netlink.rules(family).unwrap_or_default();
            let is_other = |rule: &RuleMessage| {
                holds(rule, table) && !self.errors.iter().any(|own| super::watch::same_rule(own, rule))
            };
            for rule in found.into_iter().filter(is_other).collect::<Vec<_>>() {
                if let Err(error) = self.netlink.delete_rule(rule) {
                    log::warn!("a rule of an earlier gateway stays: {error}");
                }
            }
        }
    }

    /// Adds the rules by addresses where those by marks do not suffice, or removes them.
    pub fn also_select_by_addresses(&mut self, is_needed: bool, interfaces: &Interfaces) -> Result<(), SetupError> {
        self.has_gaps = is_needed;
        self.follow_errors(interfaces)
    }

    /// Returns the rules by which replies are selected, if they come from these interfaces.
    fn wanted_rules(&self, interfaces: &Interfaces) -> Vec<RuleMessage> {
        let [v4, v6] = self.families;
        let (table, priority) = (self.gateway.route_table, self.gateway.rule_priority + 1);
        let mut wanted = Vec::new();
        if self.selects == Select::Marks {
            for family in [(v4, AddressFamily::Inet), (v6, AddressFamily::Inet6)]
                .into_iter()
                .filter_map(|(is, f)| is.then_some(f))
            {
                wanted.push(reverse_rule(family, marks::IN, priority - 1));
                wanted.extend([marks::IN, marks::OUT].map(|mark| mark_rule(family, mark, table, priority)));
            }
            if interfaces.iter().flatten().any(|name| name == LOOPBACK) {
                // What this machine sends itself, as a server, passes no device at which it could be marked.
                let from_here = RuleAttribute::Iifname(LOOPBACK.into());
                wanted.extend(self.answers.iter().cloned().map(|mut rule| {
                    rule.attributes.insert(0, from_here.clone());
                    rule
                }));
            }
        }
        if self.holds && self.selects == Select::Marks {
            let holds: Vec<_> = self.all_hold_rules().take(MOST_HOLDS + 1).collect();
            wanted.extend(if holds.len() > MOST_HOLDS { Vec::new() } else { holds });
        }
        if self.selects == Select::Addresses || self.has_gaps {
            wanted.extend(self.answers.iter().cloned());
            wanted.extend(self.error_rules(interfaces));
        }
        wanted
    }

    /// Returns the rules that select ICMP by interface.
    fn error_rules(&self, interfaces: &Interfaces) -> Vec<RuleMessage> {
        let [v4, v6] = self.families;
        let mut wanted = Vec::new();
        for (family, names, is_used) in
            [(AddressFamily::Inet, &interfaces[0], v4), (AddressFamily::Inet6, &interfaces[1], v6)]
        {
            let names = names.iter().filter(|name| is_used && name.as_str() != LOOPBACK);
            if names.clone().count() > MOST_INTERFACES {
                log::warn!(
                    "more than {MOST_INTERFACES} interfaces lead to servers: routers' ICMP errors about clients' packets are \
                     not translated"
                );
                continue;
            }
            let (table, priority) = (self.gateway.route_table, self.gateway.rule_priority + 1);
            wanted.extend(names.map(|name| error_rule(family, name, table, priority)));
        }
        if !self.errors.is_empty() && self.errors != wanted {
            let all: BTreeSet<&str> = interfaces.iter().flatten().map(String::as_str).collect();
            let all = all.into_iter().collect::<Vec<_>>().join(", ");
            log::info!("servers are reached through other interfaces: routers' ICMP errors are taken from {all}");
        }
        wanted
    }

    /// Selects what arrives on these interfaces, and no longer from others.
    pub fn follow_errors(&mut self, interfaces: &Interfaces) -> Result<(), SetupError> {
        self.towards_servers = interfaces[0].iter().filter(|name| *name != LOOPBACK).cloned().collect();
        let wanted = self.wanted_rules(interfaces);
        for rule in &wanted {
            if !self.errors.contains(rule) {
                if holds(rule, self.gateway.route_table) {
                    // It may be there already: the gateway before this one has left it.
                    self.keep(Part::Rule(rule.clone()))?;
                } else {
                    self.rule(rule.clone())?;
                }
                self.errors.push(rule.clone());
            }
        }
        for rule in self.errors.extract_if(.., |rule| !wanted.contains(rule)).collect::<Vec<_>>() {
            self.parts.retain(|part| !matches!(part, Part::Rule(other) if *other == rule));
            match self.netlink.delete_rule(rule) {
                Err(e) if e.errno() != libc::ENOENT => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the route of a service address.
    fn service_route(&self, to: IpNet) -> Route {
        let route = route(to, MAIN, self.index);
        if self.announces { route } else { Route { metric: QUIET, ..route } }
    }

    fn route(&mut self, route: Route) -> Result<(), SetupError> {
        if self.added.is_some() {
            return self.keep(Part::Route(route));
        }
        match self.netlink.add_route(route) {
            Ok(()) => self.parts.push(Part::Route(route)),
            Err(e) if e.errno() == libc::EEXIST => {
                return Err(SetupError::new(e, already_routed(&route).fix().map(String::from)));
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    fn rule(&mut self, rule: RuleMessage) -> Result<(), SetupError> {
        if self.added.is_some() {
            return self.keep(Part::Rule(rule));
        }
        match self.netlink.add_rule(rule.clone()) {
            Ok(()) => self.parts.push(Part::Rule(rule)),
            Err(e) if e.errno() == libc::EEXIST => {
                let fix =
                    "an identical rule exists: choose another rule-priority in the configuration, or delete that rule";
                return Err(SetupError::new(e, fix.to_owned()));
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Returns whether a rule selects the replies that are discarded while there is no device.
    fn is_needed_without_device(&self, rule: &RuleMessage) -> bool {
        holds(rule, self.gateway.route_table) || self.selects == Select::Addresses && self.answers.contains(rule)
    }

    fn take_away(&mut self) -> Result<(), SetupError> {
        let mut first = Ok(());
        let all = std::mem::take(&mut self.parts);
        let mut parts: Vec<Part> = self.added.take().unwrap_or(all).into_iter().rev().collect();
        if self.stays {
            // First the routes behind which packets are discarded.
            let table = self.gateway.route_table;
            parts.sort_by_key(|part| !matches!(part, Part::Route(route) if route.table == table));
        }
        for part in parts {
            let is_fallback = match &part {
                Part::Fallback(_) => self.gateway.keep_fallback || self.stays,
                Part::Hold(..) => self.stays,
                Part::Rule(rule) => self.stays && self.is_needed_without_device(rule),
                _ => false,
            };
            if is_fallback {
                continue;
            }
            let done = part.delete(&mut self.netlink, &self.gateway.device, self.index);
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

/// The error that another route to the same destination is there.
fn already_routed(route: &Route) -> SetupError {
    let table = if route.table == MAIN { String::new() } else { format!(" table {}", route.table) };
    let fix = format!(
        "it is already routed; inspect the route (ip route show exact {0}{table}) and, if it is not needed, delete it (ip \
         route delete {0}{table})",
        route.to
    );
    SetupError::new(format!("adding route {}: another route is there", route.to), fix)
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(e) = self.take_away() {
            log::error!("{e}");
        }
    }
}
