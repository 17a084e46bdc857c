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
//! | with marks, rule P: look-ups of the way back to the sender of a marked reply skip to P+2 | reverse-path checks that know marks find the server's interface, not the device |
//! | and rules P+1: what is marked as a flow's is routed by that table | replies enter the device, and the reverse look-up for packets from the device finds it |
//! | else, rules P+1: replies of servers are routed by that table | they enter the device, and so does much of what servers send for themselves |
//! | and rules P+1: so is ICMP that arrives on interfaces towards servers | routers' errors about clients' packets enter |
//! | rule P+2: no operation | the target of rule P, so that the operator's own later rules still apply |
//!
//! Everything carries the protocol number [`PROTOCOL`], by which a later start recognizes what a killed run left
//! behind.

mod device;
mod error;
mod leftovers;
mod rules;

#[cfg(test)]
mod tests;

pub use error::SetupError;
pub(super) use leftovers::unusable;
pub use leftovers::{clean_leftovers, count_marked};

use super::netlink::{Netlink, Route};
use super::{bpf::marks, wanted};
use crate::config::Settings;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rules::{answer_rule, error_rule, mark_rule, reverse_rule, route, rule};
use std::collections::BTreeSet;

/// The protocol number (`RTPROT_*`, `ip route show proto 69`) that marks our routes and rules. The kernel only stores
/// it; iproute2's list of well-known numbers does not assign 69.
pub const PROTOCOL: u8 = 69;

/// The kernel's number of table `main`.
const MAIN: u32 = 254;
/// The interface by which rules select packets that the machine itself sends.
const LOOPBACK: &str = "lo";

fn open() -> Result<Netlink, SetupError> {
    Netlink::open().map_err(|e| SetupError::new(format!("opening a netlink socket: {e}"), None))
}

/// The most interfaces per family that get a rule of their own: the kernel evaluates rules one by one.
pub const MOST_INTERFACES: usize = 64;

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
    device: String,
    undo: Vec<Undo>,
    /// Those of the rules that change with the interfaces.
    errors: Vec<RuleMessage>,
    /// The rules that select replies by their addresses.
    answers: Vec<RuleMessage>,
    selects: Select,
    /// Whether packets may come without the mark that they should have.
    has_gaps: bool,
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
        Installed::install_selecting(settings, device, interfaces, Select::Addresses)
    }

    /// The same with rules that select by addresses or by marks.
    pub fn install_selecting(
        settings: &Settings,
        device: &str,
        interfaces: &Interfaces,
        selects: Select,
    ) -> Result<Installed, SetupError> {
        let (v4, v6) = wanted::families(settings);
        let mut installed = Installed {
            netlink: open()?,
            device: device.into(),
            undo: Vec::new(),
            errors: Vec::new(),
            answers: Vec::new(),
            selects,
            has_gaps: false,
            table: settings.gateway.route_table,
            priority: settings.gateway.rule_priority + 1,
            families: [v4, v6],
        };
        let link = installed.netlink.link(device)?;
        let link = link.ok_or_else(|| SetupError::new(format!("there is no device {device}"), None))?;
        device::bring_up(&mut installed.netlink, settings, device, link.index)?;
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
        let answers = wanted::answers(settings);
        self.answers = answers.iter().map(|of| answer_rule(of, gateway.route_table, first + 1)).collect();
        log::debug!("{} policy rules select the servers' replies by their addresses", answers.len());
        Ok(())
    }

    /// Adds the rules by addresses where those by marks do not suffice, or removes them.
    pub fn also_select_by_addresses(&mut self, is_needed: bool, interfaces: &Interfaces) -> Result<(), SetupError> {
        self.has_gaps = is_needed;
        self.follow_errors(interfaces)
    }

    /// Returns the rules by which replies are selected, if they come from these interfaces.
    fn wanted_rules(&self, interfaces: &Interfaces) -> Vec<RuleMessage> {
        let [v4, v6] = self.families;
        let mut wanted = Vec::new();
        if self.selects == Select::Marks {
            for family in [(v4, AddressFamily::Inet), (v6, AddressFamily::Inet6)].into_iter().filter_map(|(is, f)| is.then_some(f)) {
                wanted.push(reverse_rule(family, marks::IN, self.priority - 1));
                wanted.extend([marks::IN, marks::OUT].map(|mark| mark_rule(family, mark, self.table, self.priority)));
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
            wanted.extend(names.map(|name| error_rule(family, name, self.table, self.priority)));
        }
        wanted
    }

    /// Selects what arrives on these interfaces, and no longer from others.
    pub fn follow_errors(&mut self, interfaces: &Interfaces) -> Result<(), SetupError> {
        let wanted = self.wanted_rules(interfaces);
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
