//! The paths to the servers: through which interfaces, and with which MTU.
//!
//! They are what the kernel's routes say at the time of the look-up. It must not know packets or flows.

use super::netlink::{Interface, Netlink, NetlinkError, Path};
use super::setup::Interfaces;
use crate::config::Settings;
use crate::engine::Change;
use crate::ids::ServerId;
use std::collections::HashMap;
use std::net::IpAddr;

/// A server's address whose path is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    server: ServerId,
    address: IpAddr,
    /// Whether its path MTU is passed to the engine: only if the settings do not state one.
    is_reported: bool,
}

/// The known paths to all servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// The path MTU in bytes for each address of [`Targets`], 0 if there is no route.
    mtus: Vec<u16>,
    /// The interfaces towards servers, for IPv4 and for IPv6.
    pub interfaces: Interfaces,
}

/// The addresses of all servers.
#[derive(Debug, Clone)]
pub struct Targets {
    all: Vec<Target>,
    /// The gateway's own device, through which no server is reached.
    own: String,
}

impl Targets {
    /// Collects the addresses in the settings; `own` is the gateway's device.
    pub fn new(settings: &Settings, own: &str) -> Targets {
        let mut all = Vec::with_capacity(settings.servers.len());
        for (at, server) in settings.servers.iter().enumerate() {
            let is_reported = settings.pools[server.pool.0 as usize].mtu.is_none();
            let addresses = [server.v4.map(IpAddr::V4), server.v6.map(IpAddr::V6)].into_iter().flatten();
            all.extend(addresses.map(|address| Target { server: ServerId(at as u32), address, is_reported }));
        }
        Targets { all, own: own.into() }
    }

    /// Returns the gateway's own device.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Returns what is known of the addresses of other targets.
    pub fn known_of(&self, paths: &Paths, others: &Targets) -> Paths {
        // Both are in the order of the servers.
        let mut from = 0;
        let mtu = |target: &Target| {
            from += self.all[from..].iter().take_while(|known| known.server < target.server).count();
            let of_server = self.all[from..].iter().zip(paths.mtus.get(from..).unwrap_or_default());
            let mut of_server = of_server.take_while(|(known, _)| known.server == target.server);
            of_server.find(|(known, _)| known.address == target.address).map_or(0, |(_, mtu)| *mtu)
        };
        Paths { mtus: others.all.iter().map(mtu).collect(), interfaces: paths.interfaces.clone() }
    }

    /// Looks up the path to each of them.
    pub fn look_up(&self, netlink: &mut Netlink) -> Result<Paths, NetlinkError> {
        let mut lookup = Lookup::start(netlink)?;
        while !lookup.advance(self, netlink, usize::MAX)? {}
        Ok(lookup.paths)
    }

    /// Returns the changes to pass to the engine, which knows `before`.
    pub fn changes<'a>(&'a self, now: &'a Paths, before: &'a Paths) -> impl Iterator<Item = Change> + 'a {
        self.all.iter().zip(&now.mtus).enumerate().filter_map(|(at, (target, mtu))| {
            let told = before.mtus.get(at).copied().unwrap_or(0);
            let Target { server, address, is_reported } = *target;
            (is_reported && told != *mtu).then_some(Change::Mtu { server, v6: address.is_ipv6(), mtu: *mtu })
        })
    }

    /// Returns the addresses without a route.
    pub fn unreachable<'a>(&'a self, paths: &'a Paths) -> impl Iterator<Item = IpAddr> + 'a {
        self.all.iter().zip(&paths.mtus).filter(|(_, mtu)| **mtu == 0).map(|(target, _)| target.address)
    }
}

/// A look-up in progress: it is done in steps, so that packets need not wait for ten thousand answers.
#[derive(Debug)]
pub struct Lookup {
    interfaces: HashMap<u32, Interface>,
    known: HashMap<(u32, bool), u32>,
    paths: Paths,
}

impl Lookup {
    /// Starts one.
    pub fn start(netlink: &mut Netlink) -> Result<Lookup, NetlinkError> {
        Ok(Lookup { interfaces: netlink.interfaces()?, known: HashMap::new(), paths: Paths::default() })
    }

    /// Looks up at most `most` further addresses; returns true once it has them all.
    pub fn advance(&mut self, targets: &Targets, netlink: &mut Netlink, most: usize) -> Result<bool, NetlinkError> {
        let left = targets.all.get(self.paths.mtus.len()..).unwrap_or_default();
        for target in left.iter().take(most) {
            let path = netlink.path(target.address)?.unwrap_or_default();
            let mtu = self.least(&path, target.address.is_ipv6(), &targets.own);
            self.paths.mtus.push(u16::try_from(mtu.unwrap_or(0)).unwrap_or(u16::MAX));
        }
        Ok(left.len() <= most)
    }

    /// Returns what was found.
    pub fn finish(self) -> Paths {
        self.paths
    }

    /// Records a path's interfaces; returns the smallest of their MTUs and the route's.
    fn least(&mut self, path: &Path, v6: bool, own: &str) -> Option<u32> {
        let mut least = None;
        for index in &path.devices {
            let Some(interface) = self.interfaces.get(index).filter(|i| i.name != own) else { continue };
            let mtu = *self.known.entry((*index, v6)).or_insert_with(|| interface.mtu(v6));
            least = Some(least.unwrap_or(u32::MAX).min(mtu).min(path.mtu.unwrap_or(u32::MAX)));
            self.paths.interfaces[usize::from(v6)].insert(interface.name.clone());
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{namespace, settings};
    use super::*;
    use crate::balance::{PoolSettings, Protocol};
    use crate::ids::PoolId;

    #[test]
    fn each_server_has_the_smallest_mtu_of_its_path() {
        let (Some(ns), Some(far)) = (namespace("eq-ways1"), namespace("eq-ways1-far")) else { return };
        let mut settings = settings(
            &[("192.0.2.10", Protocol::Udp, 80, 80)],
            &[("10.0.0.2", None), ("10.1.0.2", None), ("fd00::2", None), ("fd01::2", None), ("10.8.0.2", None)],
        );
        settings.pools.push(PoolSettings { mtu: Some(1300), ..PoolSettings::new("b", vec![ServerId(4)]) });
        settings.servers[4].pool = PoolId(1);
        for (n, device) in ["one", "two"].into_iter().enumerate() {
            ns.cable(device, &far, device).unwrap();
            ns.address(device, format!("10.{n}.0.1/24").parse().unwrap()).unwrap();
        }
        ns.address("one", "fd00::1/64".parse().unwrap()).unwrap();
        ns.mtu("two", 1400).unwrap();
        let look = |own| {
            let targets = Targets::new(&settings, own);
            ns.run(|| targets.look_up(&mut Netlink::open().unwrap()).unwrap()).unwrap()
        };
        let targets = Targets::new(&settings, "eqtest0");
        let paths = look("eqtest0");
        assert_eq!(paths.mtus, [1500, 1400, 1500, 0, 0]);
        assert_eq!(
            paths.interfaces,
            [&["one", "two"][..], &["one"]].map(|n| n.iter().map(|n| n.to_string()).collect())
        );
        let unreachable: Vec<_> = targets.unreachable(&paths).map(|address| address.to_string()).collect();
        assert_eq!(unreachable, ["fd01::2", "10.8.0.2"]);
        let told = |now: &Paths, before: &Paths| {
            let mtu =
                |change| if let Change::Mtu { server, v6, mtu } = change { (server.0, v6, mtu) } else { panic!() };
            targets.changes(now, before).map(mtu).collect::<Vec<_>>()
        };
        assert_eq!(told(&paths, &Paths::default()), [(0, false, 1500), (1, false, 1400), (2, true, 1500)]);
        ns.mtu("one", 65_535).unwrap();
        ns.route("10.8.0.0/24".parse().unwrap(), "two", None).unwrap();
        let later = look("eqtest0");
        assert_eq!(told(&later, &paths), [(0, false, 65_535), (2, true, 65_535)], "a pool's own MTU stands");
        assert_eq!(later.mtus[4], 1400);
        assert_eq!(told(&later, &later), []);
        let own = look("two");
        assert_eq!(
            (own.mtus[1], own.interfaces[0].contains("two")),
            (0, false),
            "the gateway's own device is not a path to a server"
        );
    }

    #[test]
    fn what_is_known_of_an_address_stays_known_with_other_targets() {
        let of = |servers: &[(&str, Option<u16>)]| {
            Targets::new(&settings(&[("192.0.2.10", Protocol::Udp, 80, 80)], servers), "eqtest0")
        };
        let before = of(&[("10.0.0.1", None), ("10.0.0.2", None), ("10.0.0.3", None), ("10.0.0.4", None)]);
        let paths = Paths { mtus: vec![1001, 1002, 1003], ..Paths::default() };
        let cases: [(&[(&str, Option<u16>)], &[u16]); 4] = [
            (&[("10.0.0.1", None), ("10.0.0.2", None), ("10.0.0.3", None)], &[1001, 1002, 1003]),
            (&[("10.0.0.1", None), ("10.0.0.9", None), ("10.0.0.3", None), ("10.0.0.4", None)], &[1001, 0, 1003, 0]),
            // Another server has the address now.
            (&[("10.0.0.2", None), ("10.0.0.2", None)], &[0, 1002]),
            (&[], &[]),
        ];
        for (servers, want) in cases {
            assert_eq!(before.known_of(&paths, &of(servers)).mtus, want, "{servers:?}");
        }
        assert_eq!(of(&[]).known_of(&Paths::default(), &before).mtus, [0; 4]);
    }

    #[test]
    fn a_stepwise_look_up_finds_the_same() {
        let Some(ns) = namespace("eq-ways2") else { return };
        let all: Vec<String> = (1..=9).map(|n| format!("10.0.{n}.2")).collect();
        let servers: Vec<_> = all.iter().map(|address| (address.as_str(), None)).collect();
        let targets = Targets::new(&settings(&[("192.0.2.10", Protocol::Udp, 80, 80)], &servers), "eqtest0");
        ns.run(|| {
            let mut netlink = Netlink::open().unwrap();
            let whole = targets.look_up(&mut netlink).unwrap();
            assert_eq!(whole.mtus.len(), 9);
            for (portion, want) in [(1, 9), (4, 3), (9, 1), (10, 1)] {
                let (mut lookup, mut portions) = (Lookup::start(&mut netlink).unwrap(), 1);
                while !lookup.advance(&targets, &mut netlink, portion).unwrap() {
                    portions += 1;
                }
                assert_eq!((portions, lookup.finish()), (want, whole.clone()));
            }
        })
        .unwrap();
    }
}
