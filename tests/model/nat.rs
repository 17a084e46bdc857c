//! Source addresses and ports for full NAT: the model does not choose them, it checks the engine's choice.

use equipoise::engine::NatRow;
use equipoise::flow::{NatPoolSettings, Pooling};
use equipoise::packet::Protocol;
use equipoise::time::Instant;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A port that a flow uses, or that rests after use.
#[derive(Debug, Clone)]
struct Port {
    address: IpAddr,
    protocol: Protocol,
    port: u16,
    /// When its rest ends; none while a flow uses it.
    rests: Option<Instant>,
}

#[derive(Debug, Clone)]
pub struct Pool {
    pub settings: NatPoolSettings,
    ports: Vec<Port>,
    /// The address assigned to each client, by whether the servers use IPv6.
    homes: BTreeMap<(IpAddr, bool), IpAddr>,
    /// Addresses and protocols for which a port may have been requested; no others appear in the rows.
    shown: Vec<(IpAddr, Protocol)>,
    pub exhausted: u64,
}

/// A flow's request for a source.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    pub client: SocketAddr,
    pub protocol: Protocol,
    pub v6: bool,
}

impl Pool {
    pub fn new(settings: &NatPoolSettings) -> Self {
        Pool { settings: settings.clone(), ports: Vec::new(), homes: BTreeMap::new(), shown: Vec::new(), exhausted: 0 }
    }

    fn addresses(&self, v6: bool) -> Vec<IpAddr> {
        if v6 {
            self.settings.v6.iter().map(|a| IpAddr::V6(*a)).collect()
        } else {
            self.settings.v4.iter().map(|a| IpAddr::V4(*a)).collect()
        }
    }

    /// Frees the ports whose rest has ended.
    pub fn passes(&mut self, now: Instant) {
        self.ports.retain(|port| port.rests.is_none_or(|until| until > now));
    }

    /// Returns whether a flow may use a port of an address: the port must be free and in range, and match the client's
    /// port in parity and range class where the pool preserves these.
    fn may_have(&self, wish: &Wish, address: IpAddr, port: u16) -> bool {
        let (s, client) = (&self.settings, wish.client.port());
        let kind = wish.protocol == Protocol::Icmp;
        (s.first_port..=s.last_port).contains(&port)
            && (kind || !s.parity || port % 2 == client % 2)
            && (kind || !s.range_class || (port < 1024) == (client < 1024))
            && !self.ports.iter().any(|p| (p.address, p.protocol, p.port) == (address, wish.protocol, port))
    }

    fn has_any(&self, wish: &Wish, address: IpAddr) -> bool {
        (self.settings.first_port..=self.settings.last_port).any(|port| self.may_have(wish, address, port))
    }

    /// Records the engine's choice of a source; none if it found none. Returns the source, or none if there may indeed
    /// be none left; an error says what is wrong with the choice.
    pub fn take(
        &mut self,
        now: Instant,
        wish: &Wish,
        chosen: Option<SocketAddr>,
    ) -> Result<Option<SocketAddr>, String> {
        self.passes(now);
        let addresses = self.addresses(wish.v6);
        let home = self.homes.get(&(wish.client.ip(), wish.v6)).copied();
        if let (Protocol::Ip(_), Some(chosen)) = (wish.protocol, chosen) {
            // Without ports there is only the client's address to check.
            let fits = home.is_none_or(|home| home == chosen.ip()) && addresses.contains(&chosen.ip());
            self.homes.insert((wish.client.ip(), wish.v6), chosen.ip());
            let wrong = || format!("{wish:?} may not have the source {chosen}");
            return (fits && chosen.port() == 0).then_some(Some(chosen)).ok_or_else(wrong);
        }
        let own: Vec<IpAddr> = home.map_or(addresses.clone(), |home| vec![home]);
        let all = self.settings.pooling == Pooling::Arbitrary;
        let asked: &[IpAddr] = if all { &addresses } else { &own };
        self.shown.extend(asked.iter().map(|address| (*address, wish.protocol)));
        let Some(chosen) = chosen else {
            self.exhausted += 1;
            // A client without an assigned address may have been directed to any of them.
            let none = asked.iter().any(|address| !self.has_any(wish, *address));
            let none = if all { asked.iter().all(|address| !self.has_any(wish, *address)) } else { none };
            return if none { Ok(None) } else { Err(format!("{wish:?} found no source, but some are free")) };
        };
        let (address, port) = (chosen.ip(), chosen.port());
        if !asked.contains(&address) || !self.may_have(wish, address, port) {
            return Err(format!("{wish:?} may not have the source {chosen}"));
        }
        if let Some(home) = home.filter(|home| *home != address) {
            if self.has_any(wish, home) {
                return Err(format!("{wish:?} has the source {chosen}, but {home} still had free ports"));
            }
        } else if home.is_none() && (!all || addresses.iter().all(|a| self.has_any(wish, *a))) {
            self.homes.insert((wish.client.ip(), wish.v6), address);
        }
        self.ports.push(Port { address, protocol: wish.protocol, port, rests: None });
        Ok(Some(chosen))
    }

    /// Returns any source that a flow could use, for a choice of the engine that is never visible.
    pub fn any(&mut self, now: Instant, wish: &Wish) -> Option<SocketAddr> {
        self.passes(now);
        let ports = self.settings.first_port..=self.settings.last_port;
        let home = self.homes.get(&(wish.client.ip(), wish.v6)).copied();
        let own = home.filter(|_| self.settings.pooling == Pooling::Paired);
        let addresses = own.map_or(self.addresses(wish.v6), |own| vec![own]);
        if let Protocol::Ip(_) = wish.protocol {
            return addresses.first().map(|address| SocketAddr::new(*address, 0));
        }
        self.shown.extend(addresses.iter().map(|address| (*address, wish.protocol)));
        let all = addresses.into_iter().flat_map(|address| ports.clone().map(move |port| (address, port)));
        all.map(SocketAddr::from).find(|end| self.may_have(wish, end.ip(), end.port()))
    }

    /// Releases a flow's source; if packets were sent from it, it rests for the pool's hold time.
    pub fn release(&mut self, now: Instant, source: SocketAddr, protocol: Protocol, used: bool) {
        let own = |port: &Port| {
            (port.address, port.protocol, port.port) == (source.ip(), protocol, source.port()) && port.rests.is_none()
        };
        let Some(place) = self.ports.iter().position(own) else { return };
        if used && !self.settings.hold.is_zero() {
            self.ports[place].rests = Some(now + self.settings.hold);
        } else {
            self.ports.remove(place);
        }
    }

    /// Returns whether rows agree with the model: each shows the model's counts, and every port in use is covered by
    /// one.
    pub fn agrees(&self, rows: &[&NatRow]) -> bool {
        let all = u32::from(self.settings.last_port - self.settings.first_port) + 1;
        let row_agrees = |row: &&NatRow| {
            let own = || self.ports.iter().filter(|p| (p.address, p.protocol) == (row.address, row.protocol));
            let held = own().filter(|port| port.rests.is_some()).count() as u32;
            let used = own().count() as u32 - held;
            (row.used, row.resting, row.free, row.exhausted) == (used, held, all - used - held, self.exhausted)
                && self.shown.contains(&(row.address, row.protocol))
        };
        let shown = |port: &Port| rows.iter().any(|row| (row.address, row.protocol) == (port.address, port.protocol));
        rows.iter().all(row_agrees) && self.ports.iter().all(shown)
    }
}
