//! What the system must provide before a gateway can run: all of it is checked at once, each problem with its remedy.
//!
//! It changes nothing, and applies to the network namespace of the calling thread.

mod firewall;
mod mark_rules;
mod others;
mod pair;
mod surroundings;

use super::bpf::BpfError;
use super::bpf::marks::Marks;
use super::bpf::shortcut::Shortcut;
use super::netlink::{Netlink, Policies};
use super::{setup, sysctl, wanted};
use crate::config::Settings;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteType;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use std::fmt;
use std::fs::OpenOptions;
use std::net::IpAddr;

/// Something that is missing or conflicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is missing.
    pub what: String,
    /// The remedy; a command if there is one.
    pub fix: String,
}

impl Problem {
    fn new(what: impl Into<String>, fix: impl Into<String>) -> Problem {
        Problem { what: what.into(), fix: fix.into() }
    }
}

/// The problem, and its remedy on a line of its own.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    to fix it: {}", self.what, self.fix)
    }
}

/// Returns every problem that would keep a gateway with these settings from working.
pub fn check(settings: &Settings) -> Vec<Problem> {
    check_system(settings, false)
}

/// The same for one that takes the place of the running gateway.
pub fn check_beside(settings: &Settings) -> Vec<Problem> {
    check_system(settings, true)
}

/// The same, and what keeps packets from passing through a gateway that runs, whose own device is no problem.
pub fn check_live(settings: &Settings) -> Vec<Problem> {
    let is_running = std::os::unix::net::UnixStream::connect(&settings.gateway.control_socket).is_ok();
    let mut problems = check_system(settings, is_running);
    problems.extend(doubts(settings));
    problems.extend(firewalls(settings));
    problems.extend(Marks::with_room(settings, 1).err().map(|error| without_marks(&error)));
    if settings.gateway.shortcut {
        problems.extend(Shortcut::load(1).err().map(|error| without_shortcut(&error)));
    }
    problems
}

/// Returns the addresses that a running gateway cannot take with these settings.
pub fn addresses(settings: &Settings) -> Vec<Problem> {
    Netlink::open().map_or_else(|_| Vec::new(), |mut netlink| local_addresses(settings, &mut netlink))
}

fn check_system(settings: &Settings, is_running: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(tun_device());
    problems.extend(forwarding(settings));
    problems.extend(numbers(settings));
    match Netlink::open() {
        Ok(mut netlink) => {
            problems.extend(capability(&mut netlink));
            if !is_running {
                problems.extend(device(settings, &mut netlink));
            }
            problems.extend(local_addresses(settings, &mut netlink));
            problems.extend(pair::problems(settings, &mut netlink));
        }
        Err(e) => problems.push(Problem::new(
            format!("no netlink socket can be opened: {e}"),
            "allow sockets of the family AF_NETLINK (systemd: RestrictAddressFamilies=)",
        )),
    }
    problems
}

/// Checks that /dev/net/tun can be opened; opening it does not create a device, which takes an ioctl.
pub(crate) fn tun_device() -> Option<Problem> {
    let e = OpenOptions::new().read(true).write(true).open("/dev/net/tun").err()?;
    let fix = match e.raw_os_error() {
        Some(libc::ENOENT) => {
            "modprobe tun; if that does not create the file (in a container): mkdir -p /dev/net && mknod /dev/net/tun c 10 200, \
             or start the container with --device /dev/net/tun"
        }
        Some(libc::EACCES) => "as root: chmod 0666 /dev/net/tun (udev's default; privileges are checked separately)",
        Some(libc::EPERM) => {
            "allow the character device 10:200 in the container or unit (--device /dev/net/tun, DeviceAllow=/dev/net/tun rw)"
        }
        Some(libc::ENODEV | libc::ENXIO) => "modprobe tun",
        _ => "make sure that the kernel is built with TUN devices (CONFIG_TUN)",
    };
    Some(Problem::new(format!("/dev/net/tun cannot be opened: {e}"), fix))
}

/// Asks the kernel to delete a rule that does not exist: permissions are checked first, so nothing changes, and the
/// answer holds for this namespace whatever the process may do in others.
fn capability(netlink: &mut Netlink) -> Option<Problem> {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![RuleAttribute::Priority(u32::MAX), RuleAttribute::Table(u32::MAX)];
    let e = netlink.delete_rule(rule).err()?;
    (e.errno() == libc::EPERM).then(|| {
        Problem::new(
            "the capability CAP_NET_ADMIN is missing in this network namespace",
            "run as root, or give it with AmbientCapabilities=CAP_NET_ADMIN (systemd) or \
             setcap cap_net_admin+ep on the program",
        )
    })
}

fn forwarding(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (v4, v6) = wanted::families(settings);
    let mut want = |name: &str, good: fn(&str) -> bool, value: &str, why: &str| {
        let dotted = name.replace('/', ".");
        match sysctl::get(name) {
            Ok(now) if good(&now) => {}
            Ok(now) => {
                problems.push(Problem::new(format!("{dotted} is {now}: {why}"), format!("sysctl -w {dotted}={value}")))
            }
            Err(e) => problems.push(Problem::new(
                format!("{dotted} cannot be read ({e}): {why}"),
                "mount /proc, and make sure that the kernel supports this IP version (ipv6.disable=0)",
            )),
        }
    };
    if v4 {
        want(
            "net/ipv4/ip_forward",
            |v| v != "0",
            "1",
            "the kernel does not forward IPv4 packets, so none reaches a server",
        );
    }
    if v6 {
        let why = "the kernel does not forward IPv6 packets, so none reaches a server";
        want("net/ipv6/conf/all/forwarding", |v| v != "0", "1", why);
    }
    problems
}

/// Returns what a gateway can start with but keeps packets from passing, or slows them; to be logged as warnings, since
/// it may be set right while the gateway runs. Firewalls have a function of their own.
pub fn doubts(settings: &Settings) -> Vec<Problem> {
    let mut problems: Vec<Problem> = strict_check(settings).into_iter().collect();
    if let Ok(mut netlink) = Netlink::open() {
        let marks = can_mark(settings);
        problems.extend(surroundings::check(settings, &mut netlink, marks));
        problems.extend(others::check(settings, &mut netlink, marks));
    }
    problems
}

/// Returns which firewalls drop what the gateway forwards, or use its bits of the mark. It runs programs that list their
/// rules, which takes a moment.
pub fn firewalls(settings: &Settings) -> Vec<Problem> {
    let ruleset = firewall::ruleset();
    let mut problems = firewall::check(ruleset.as_ref(), &settings.gateway.device, wanted::families(settings));
    if settings.gateway.shortcut {
        problems.extend(firewall::shortcut(ruleset.as_ref()));
        problems.extend(with_ipsec());
    }
    if !can_mark(settings) {
        return problems;
    }
    let servers = settings.servers.iter().flat_map(|s| [s.v4.map(IpAddr::V4), s.v6.map(IpAddr::V6)]).flatten();
    if let Some(ruleset) = &ruleset {
        problems.extend(mark_rules::in_ruleset(ruleset, &servers.collect::<Vec<_>>()));
    }
    for (program, rules) in firewall::saved(ruleset.as_ref().is_some_and(mark_rules::is_incomplete)) {
        problems.extend(mark_rules::in_saved(program, &rules));
    }
    problems
}

/// Returns whether packets of flows can be marked.
fn can_mark(settings: &Settings) -> bool {
    Marks::with_room(settings, 1).is_ok()
}

/// With marks, the strict check loses nothing. Without, on Linux 6.18, translated TCP over IPv4 passed even that, while packets
/// that the gateway forwards unchanged were dropped if the check was strict on the gateway's device too.
fn strict_check(settings: &Settings) -> Option<Problem> {
    const STRICT: &str = "net/ipv4/conf/all/rp_filter";
    let (v4, _) = wanted::families(settings);
    let strict = v4 && sysctl::get(STRICT).is_ok_and(|value| value == "1") && !can_mark(settings);
    strict.then(|| {
        Problem::new(
            "net.ipv4.conf.all.rp_filter is 1, strict on every device: the kernel may drop IPv4 packets that come from the \
             gateway, above all those that it forwards unchanged",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        )
    })
}

/// Returns what a gateway does without because the program that chooses its queues cannot be loaded; to be logged as a
/// warning.
pub fn without_steering(error: &BpfError) -> Problem {
    Problem::new(
        format!(
            "no BPF program can be used ({error}), so the device has one queue: a flood also takes packets of \
             established connections and answers to probes"
        ),
        error.fix(),
    )
}

/// Returns what a gateway does without because packets of flows cannot be marked; to be logged as a warning.
pub fn without_marks(error: &BpfError) -> Problem {
    Problem::new(
        format!(
            "no BPF program can be used ({error}), so all that servers send from where they serve, all their UDP and all \
             ICMP enters the device: behind a masquerading gateway the servers' own queries and pings find no answer"
        ),
        error.fix(),
    )
}

/// Returns what a gateway does without because the program of the shortcut cannot be used; to be logged as a warning.
pub fn without_shortcut(error: &BpfError) -> Problem {
    let what =
        format!("the shortcut is off, and all packets go through the device: no BPF program can be used ({error})");
    Problem::new(what, error.fix())
}

/// Returns whether IPsec policies keep the shortcut from being used. Without the right to ask, only the gateway itself finds out.
fn with_ipsec() -> Option<Problem> {
    let is_there = Policies::open().and_then(|policies| policies.count()).is_ok_and(|count| count > 0);
    is_there.then(|| {
        Problem::new(
            "there are IPsec policies, and the kernel does not apply them to what the shortcut carries: as long as there are any, \
             all packets go through the device",
            "`ip xfrm policy` lists them; set shortcut = false if they are to stay",
        )
    })
}

/// Returns what a gateway does without because its device exists with a single queue, or the kernel cannot steer; to be
/// logged as a warning.
pub fn without_queues(device: &str) -> Problem {
    Problem::new(
        format!(
            "device {device} cannot be opened with several queues, so it has one: a flood also takes packets of established \
             connections and answers to probes"
        ),
        format!(
            "delete the persistent device, which then is made anew at each start: ip link delete {device} (or make it with: \
             ip tuntap add {device} mode tun multi_queue); without such a device, the kernel is older than Linux 4.16"
        ),
    )
}

fn numbers(settings: &Settings) -> Vec<Problem> {
    let (table, priority) = (settings.gateway.route_table, settings.gateway.rule_priority);
    let mut problems = Vec::new();
    if table == 0 || (253..=255).contains(&table) {
        let what = format!("route-table {table} is one of the kernel's own tables (default, main, local)");
        problems.push(Problem::new(what, "choose another number, such as 4242"));
    }
    if !(1..=32_764).contains(&priority) {
        let what = format!("rule-priority {priority} is not between the kernel's rules for local and main");
        problems.push(Problem::new(what, "choose a number from 1 to 32764, such as 4242"));
    }
    problems
}

fn device(settings: &Settings, netlink: &mut Netlink) -> Option<Problem> {
    let name = &settings.gateway.device;
    match netlink.link(name) {
        Ok(link) => {
            let why = setup::unusable(name, &link?)?;
            Some(Problem::new(why.what(), why.fix().unwrap_or_default()))
        }
        Err(e) => Some(Problem::new(e.to_string(), "make sure that this process may use rtnetlink")),
    }
}

/// An address that the kernel considers its own is found in table `local` before any other table, and its packets
/// never reach the device.
fn local_addresses(settings: &Settings, netlink: &mut Netlink) -> Vec<Problem> {
    const LOCAL: u32 = 255;
    let mut problems = Vec::new();
    let mut local = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        // A kernel without one of the families has no such addresses.
        local.extend(netlink.routes(family, LOCAL).unwrap_or_default());
    }
    for service in wanted::routed_addresses(settings) {
        let address = service.addr();
        if service.prefix_len() == 0 {
            problems.push(Problem::new(
                format!(
                    "a service listens on every address ({service}): every packet that the gateway sends would come back to it"
                ),
                "name the addresses or networks of the service; listening on every address is only for `equipoise replay`",
            ));
            continue;
        }
        if settings.gateway.addresses.iter().any(|own| IpNet::from(own.addr()) == service) {
            problems.push(Problem::new(
                format!("service address {address} is also among the device's own addresses"),
                "remove it from the gateway's addresses: a service address must not be assigned to any device",
            ));
        }
        let holds = local.iter().filter(|(route, _)| route.to.contains(&service));
        let taken = holds.max_by_key(|(route, _)| route.to.prefix_len());
        if let Some((route, kind)) = taken {
            let role = role(settings, &service);
            problems.push(taken_problem(role, &service, route.to, *kind, &device_name(netlink, route.device)));
        }
    }
    problems
}

/// Names what an address means to the gateway.
fn role(settings: &Settings, address: &IpNet) -> &'static str {
    let is_service = settings.services.iter().flat_map(|service| &service.listen).any(|l| l.network() == *address);
    let is_probe = [settings.health.source_v4.map(IpAddr::V4), settings.health.source_v6.map(IpAddr::V6)];
    match is_probe.contains(&Some(address.addr())) {
        _ if is_service => "service address",
        true => "probe address",
        false => "NAT pool address",
    }
}

fn taken_problem(role: &str, service: &IpNet, by: IpNet, kind: RouteType, device: &str) -> Problem {
    let address = service.addr();
    if kind == RouteType::Local && !address.is_loopback() && by.prefix_len() == by.max_prefix_len() {
        return Problem::new(
            format!("{role} {address} is assigned to device {device}, so its packets end in the kernel"),
            format!(
                "name another {role} if this one is the gateway's own, else: ip address delete {address} dev {device} \
                 (it is routed, not assigned)"
            ),
        );
    }
    let kind = format!("{kind:?}").to_lowercase();
    let is_one = service.prefix_len() == service.max_prefix_len();
    let shown = if is_one { address.to_string() } else { service.to_string() };
    Problem::new(
        format!("{role} {shown} is a {kind} address of the kernel ({by} on device {device}), so its packets end there"),
        format!("choose a {role} outside of the gateway's own, loopback, broadcast and anycast addresses"),
    )
}

fn device_name(netlink: &mut Netlink, index: u32) -> String {
    let links: Vec<_> = netlink.links().unwrap_or_default();
    links.into_iter().find(|(i, _)| *i == index).map_or_else(|| format!("number {index}"), |(_, name)| name)
}

#[cfg(test)]
mod tests;
