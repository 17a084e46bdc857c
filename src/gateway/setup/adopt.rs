//! A gateway that takes the place of another one: what is installed stays, and belongs to this one from some moment on.
//!
//! It must not know what else is taken over.

use super::leftovers::is_ours;
use super::{Installed, Interfaces, MAIN, PROTOCOL, Part, Select, SetupError};
use crate::config::Settings;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteType;
use std::collections::BTreeSet;

impl Installed {
    /// Installs what is not there yet beside what the gateway before this one has installed. All of it belongs to that one
    /// until [`Installed::own`]: before, only what was added here is removed at the end. `all` are the settings with servers that
    /// are configured no longer and have flows. `proxying` are the values that
    /// `proxy_ndp` of interfaces had before that gateway; `retired` are networks that stay routed to the device although no
    /// service has them; `announces` says whether service addresses are announced.
    pub fn adopt(
        (settings, all): (&Settings, &Settings),
        device: &str,
        interfaces: &Interfaces,
        selects: Select,
        (proxying, retired, announces): (&[(String, String)], &[IpNet], bool),
    ) -> Result<Installed, SetupError> {
        let mut installed = Installed::nothing(settings, device, selects)?;
        installed.announces = announces;
        installed.routed.extend(retired);
        for network in retired {
            installed.families[usize::from(network.addr().is_ipv6())] = true;
        }
        installed.added = Some(Vec::new());
        if settings.gateway.announce {
            let before = proxying.iter().map(|(name, value)| Part::Proxying(name.clone(), value.clone()));
            installed.parts.extend(before);
        }
        installed.install_all(settings, all, interfaces)?;
        installed.strangers = installed.find_strangers()?;
        Ok(installed)
    }

    /// Makes all of it this gateway's own, and removes what the gateway before this one had and this one does not need.
    pub fn own(&mut self) {
        self.added = None;
        // The one before had other settings, perhaps.
        if let Err(error) = self.repair(&Part::Device) {
            log::warn!("{error}");
        }
        for part in std::mem::take(&mut self.strangers) {
            let name = part.name(&self.gateway.device);
            match part.delete(&mut self.netlink, &self.gateway.device, self.index) {
                Err(e) if ![libc::ESRCH, libc::ENOENT, libc::ENODEV].contains(&e.errno()) => {
                    log::warn!("{name} is no longer needed, but stays: {e}");
                }
                _ => log::info!("{name} is no longer needed: removed"),
            }
        }
    }

    /// Leaves all of it to the gateway that takes the place of this one.
    pub fn leave(mut self) {
        self.parts.clear();
    }

    /// Returns the values that `proxy_ndp` of interfaces had before.
    pub fn proxying(&self) -> Vec<(String, String)> {
        let of = |part: &Part| match part {
            Part::Proxying(name, before) => Some((name.clone(), before.clone())),
            _ => None,
        };
        self.parts.iter().filter_map(of).collect()
    }

    fn find_strangers(&mut self) -> Result<Vec<Part>, SetupError> {
        let mut found = Vec::new();
        let (mut fallbacks, mut elsewhere) = (Vec::new(), BTreeSet::new());
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for table in [self.gateway.route_table, MAIN] {
                let routes = self.netlink.routes(family, table)?;
                for (route, kind) in routes.into_iter().filter(|(route, _)| route.protocol == PROTOCOL) {
                    match kind {
                        RouteType::BlackHole if table == MAIN => fallbacks.push(Part::Fallback(route.to)),
                        RouteType::BlackHole => found.push(Part::Hold(route.to, table)),
                        _ if route.device == self.index => found.push(Part::Route(route)),
                        _ => drop(elsewhere.insert(route.to)),
                    }
                }
            }
            for rule in self.netlink.rules(family)?.into_iter().filter(|rule| is_ours(rule, &self.gateway)) {
                let is_known =
                    |part: &Part| matches!(part, Part::Rule(own) if super::super::watch::same_rule(own, &rule));
                if !self.parts.iter().any(is_known) {
                    found.push(Part::Rule(rule));
                }
            }
            let proxies = self.netlink.proxies(family).unwrap_or_default();
            for (address, device, _) in proxies.into_iter().filter(|(.., by)| *by == PROTOCOL) {
                found.push(Part::Announced(address, String::new(), device));
            }
        }
        // The fallback of an address that another gateway of this machine has is that gateway's.
        found
            .extend(fallbacks.into_iter().filter(|part| !matches!(part, Part::Fallback(to) if elsewhere.contains(to))));
        let known = |part: &Part| {
            match part {
            Part::Rule(_) => false,
            Part::Route(route) => self.parts.iter().any(|own| {
                matches!(own, Part::Route(own) if (own.to, own.table, own.metric) == (route.to, route.table, route.metric))
            }),
            Part::Announced(address, _, device) => {
                elsewhere.iter().any(|to| to.contains(address))
                    || self.parts.iter().any(|own| matches!(own, Part::Announced(a, _, d) if (a, d) == (address, device)))
            }
            other => self.parts.contains(other),
        }
        };
        found.retain(|part| !known(part));
        Ok(found)
    }
}
