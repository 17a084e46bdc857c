//! Looking: whether each part is in the system as it was installed, and if a route has no effect, what takes its packets.
//!
//! It must not know when, and repairs only what shows its absence by being added.

use super::{FAMILIES, Keeper, Look, matching};
use crate::gateway::netlink::{NetlinkError, Taken};
use crate::gateway::setup::{Installed, Part};
use crate::gateway::sysctl;
use crate::time::Instant;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteType;

/// What `eqctl status` calls the NAT rules of others.
const NAT: &str = "the NAT of others";

impl Keeper {
    pub(super) fn look(&mut self, installed: &mut Installed, look: Look, now: Instant) -> Result<(), NetlinkError> {
        match look {
            Look::Device => {
                let is_set_up = !self.is_closed && installed.is_device_set_up();
                self.note(installed, now, |part| *part == Part::Device, |_| is_set_up);
            }
            Look::Addresses => self.look_at_addresses(installed, now)?,
            Look::Rules(family) => self.look_at_rules(installed, FAMILIES[family], now)?,
            Look::Table(family) => self.look_at_table(installed, FAMILIES[family], now)?,
            Look::Route(place) => {
                let Some(Part::Route(route)) = installed.parts().get(place) else { return Ok(()) };
                match self.netlink.taken(route.to.addr())? {
                    Some(taken) if is_as_wanted(&taken, route.to, installed.index()) => {
                        self.repairs.present(place, now)
                    }
                    // Whether it is gone, or another one is taken, shows when it is added again.
                    _ => self.repairs.gone(place, now),
                }
            }
            Look::Fallback(place) => self.look_at_fallback(installed, place, now)?,
            Look::Announcements => self.look_at_announcements(installed, now)?,
            Look::Forwarding => self.look_at_forwarding(installed, now),
            Look::Nat => {
                if let Some(nat) = &mut self.nat {
                    self.conditions.note(NAT, nat.look(now), now);
                }
            }
        }
        Ok(())
    }

    fn look_at_addresses(&mut self, installed: &Installed, now: Instant) -> Result<(), NetlinkError> {
        let is_address = |part: &Part| matches!(part, Part::Address(_));
        if !installed.parts().iter().any(is_address) {
            return Ok(());
        }
        let index = installed.index();
        let found = self.netlink.addresses()?;
        let has = |part: &Part| match part {
            Part::Address(net) => found.iter().any(|is| is.device == index && is.address == *net),
            _ => true,
        };
        self.note(installed, now, is_address, has);
        Ok(())
    }

    fn look_at_rules(
        &mut self,
        installed: &Installed,
        family: AddressFamily,
        now: Instant,
    ) -> Result<(), NetlinkError> {
        let found = matching::ours(self.netlink.rules(family)?);
        let is_here = |part: &Part| matches!(part, Part::Rule(rule) if rule.header.family == family);
        let has = |part: &Part| matches!(part, Part::Rule(rule) if found.iter().any(|f| matching::same(rule, f)));
        self.note(installed, now, is_here, has);
        Ok(())
    }

    /// Looks at the gateway's own routing table.
    fn look_at_table(
        &mut self,
        installed: &Installed,
        family: AddressFamily,
        now: Instant,
    ) -> Result<(), NetlinkError> {
        let (table, index) = (installed.table(), installed.index());
        let found = self.netlink.routes(family, table)?;
        let is_v4 = family == AddressFamily::Inet;
        let is_here = |part: &Part| match part {
            Part::Route(route) => route.table == table && route.to.addr().is_ipv4() == is_v4,
            Part::Hold(to, _) => to.addr().is_ipv4() == is_v4,
            _ => false,
        };
        let has = |part: &Part| match part {
            Part::Route(route) => found.iter().any(|(f, _)| f.to == route.to && f.device == index),
            Part::Hold(to, _) => found.iter().any(|(f, kind)| f.to == *to && *kind == RouteType::BlackHole),
            _ => false,
        };
        self.note(installed, now, is_here, has);
        Ok(())
    }

    /// Notes for each part that is `looked_at` whether it is there.
    fn note(
        &mut self,
        installed: &Installed,
        now: Instant,
        looked_at: impl Fn(&Part) -> bool,
        is_there: impl Fn(&Part) -> bool,
    ) {
        for (place, part) in installed.parts().iter().enumerate().filter(|(_, part)| looked_at(part)) {
            if is_there(part) { self.repairs.present(place, now) } else { self.repairs.gone(place, now) }
        }
    }

    /// The kernel forwards an IPv4 packet if the interface by which it arrives may, and an IPv6 packet if all may. Changing
    /// the setting of all changes that of each.
    fn look_at_forwarding(&mut self, installed: &Installed, now: Instant) {
        let [v4, v6] = installed.families();
        let is_off = |name: &str| sysctl::get(name).is_ok_and(|value| value == "0");
        let general = [("IPv4", "net/ipv4/ip_forward", v4), ("IPv6", "net/ipv6/conf/all/forwarding", v6)];
        for (family, name, is_used) in general {
            let wrong = (is_used && is_off(name)).then(|| {
                let name = name.replace('/', ".");
                format!("is off: {name} is 0, so no {family} packet reaches a server; to fix it: sysctl -w {name}=1")
            });
            self.conditions.note(&format!("{family} forwarding"), wrong, now);
        }
        // With slashes, since names of interfaces may have dots.
        let setting = |interface: &String| format!("net/ipv4/conf/{interface}/forwarding");
        let off: Vec<_> = match v4 && !is_off(general[0].1) {
            true => installed.towards_servers().iter().map(setting).filter(|name| is_off(name)).collect(),
            false => Vec::new(),
        };
        let wrong = (!off.is_empty()).then(|| {
            let (names, fix) = (off.join(", "), off.join("=1 ") + "=1");
            format!("is off: {names} is 0, so replies that arrive there are not forwarded; to fix it: sysctl -w {fix}")
        });
        self.conditions.note("IPv4 forwarding of interfaces towards servers", wrong, now);
    }

    /// A fallback route is never taken while the gateway works, so its absence shows only when it can be added.
    fn look_at_fallback(&mut self, installed: &mut Installed, place: usize, now: Instant) -> Result<(), NetlinkError> {
        let Some(part @ Part::Fallback(_)) = installed.parts().get(place).cloned() else { return Ok(()) };
        if !self.repairs.is_calm(place, now) {
            return Ok(());
        }
        match installed.repair(&part) {
            Ok(false) => {}
            Ok(true) => {
                self.repairs.gone(place, now);
                self.repairs.restored(place, now);
            }
            Err(e) => {
                self.repairs.gone(place, now);
                self.repairs.failed(place, now, &e.to_string());
            }
        }
        Ok(())
    }

    fn look_at_announcements(&mut self, installed: &mut Installed, now: Instant) -> Result<(), NetlinkError> {
        if !installed.announces() {
            return Ok(());
        }
        let before = installed.names();
        if let Err(e) = installed.follow_announcements() {
            log::warn!("cannot announce all addresses: {e}");
        }
        if installed.names() != before {
            self.follow(installed);
            self.looks.remove(&Look::Announcements);
        }
        let found = [self.netlink.proxies(FAMILIES[0])?, self.netlink.proxies(FAMILIES[1])?].concat();
        let is_one = |part: &Part| matches!(part, Part::Announced(..) | Part::Proxying(..));
        self.note(installed, now, is_one, |part| match part {
            Part::Announced(address, _, index) => found.iter().any(|(a, i, _)| a == address && i == index),
            _ => part.is_proxying(),
        });
        Ok(())
    }

    /// Finds out what takes the packets of a route that is there.
    pub(super) fn hidden(&mut self, place: usize, part: &Part, now: Instant) {
        let Part::Route(route) = part else { return };
        let by = match self.netlink.taken(route.to.addr()) {
            Ok(Some(Taken { to, table, device, kind })) => {
                let name =
                    self.netlink.device_at(device).ok().flatten().map_or("another device".into(), |(name, _)| name);
                match kind {
                    RouteType::Local => format!(
                        "{} is an address of interface {name}, so its packets end in the kernel; to fix it: ip address delete \
                         {to} dev {name}",
                        to.addr()
                    ),
                    _ => format!(
                        "another route or rule takes its packets: the route {to} to {name} in table {table}; to fix it, find it \
                         with: ip rule; ip route show table {table} {to}"
                    ),
                }
            }
            _ => {
                let ip = if route.to.addr().is_ipv4() { "ip" } else { "ip -6" };
                format!(
                    "the kernel does not take it: is there a policy rule for table main, and none before it that rejects? To fix \
                     it: {ip} rule add priority 32766 lookup main"
                )
            }
        };
        self.repairs.hidden(place, now, &by);
    }
}

/// Returns whether the route that the kernel takes to the first address of a network is the one to the device, or leaves
/// that open because it is for a part of the network only.
fn is_as_wanted(taken: &Taken, to: IpNet, device: u32) -> bool {
    taken.device == device || taken.to.prefix_len() > to.prefix_len()
}
