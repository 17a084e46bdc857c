//! Source addresses and ports for full NAT: the model does not choose them, it checks the engine's choice.

use equipoise::engine::NatRow;
use equipoise::flow::{NatPoolSettings, Pooling};
use equipoise::packet::Protocol;
use equipoise::time::Instant;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A port that a flow uses towards a server, or that rests after use.
#[derive(Debug, Clone)]
struct Port {
    address: IpAddr,
    protocol: Protocol,
    server: SocketAddr,
    port: u16,
    /// Whether its flow has not completed its handshake.
    half_open: bool,
    /// When its rest ends; none while a flow uses it.
    rests: Option<Instant>,
}

#[derive(Debug, Clone)]
pub struct Pool {
    pub settings: NatPoolSettings,
    /// In the order in which flows took them.
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
    /// The server; port 0 for an echo.
    pub server: SocketAddr,
}

/// A flow's source.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    pub end: SocketAddr,
    /// Whether another flow has it, half-open or over, which has to end first.
    pub replaces: bool,
}

impl Wish {
    pub fn new(client: SocketAddr, protocol: Protocol, server_end: SocketAddr) -> Self {
        let port = if protocol == Protocol::Icmp { 0 } else { server_end.port() };
        Wish { client, protocol, server: SocketAddr::new(server_end.ip(), port) }
    }

    fn half_open(&self) -> bool {
        self.protocol == Protocol::Tcp
    }

    fn v6(&self) -> bool {
        self.server.is_ipv6()
    }
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

    /// Returns whether a flow may have a port, if nobody else does: it must be in range, and match the client's port in
    /// parity and range class where the pool preserves these.
    fn fits(&self, wish: &Wish, port: u16) -> bool {
        let (s, client) = (&self.settings, wish.client.port());
        let kind = wish.protocol == Protocol::Icmp;
        (s.first_port..=s.last_port).contains(&port)
            && (kind || !s.parity || port % 2 == client % 2)
            && (kind || !s.range_class || (port < 1024) == (client < 1024))
    }

    /// Returns the ports of an address that are in use or rest towards the server, out of those that fit.
    fn rivals<'a>(&'a self, wish: &'a Wish, address: IpAddr) -> impl Iterator<Item = &'a Port> {
        let of = move |p: &&Port| (p.address, p.protocol, p.server) == (address, wish.protocol, wish.server);
        self.ports.iter().filter(of).filter(|p| self.fits(wish, p.port))
    }

    /// Returns whether a port of an address is free for a flow. Half-open flows have at most half of the ports that
    /// fit.
    fn is_free(&self, wish: &Wish, address: IpAddr, port: u16) -> bool {
        let fitting =
            (self.settings.first_port..=self.settings.last_port).filter(|port| self.fits(wish, *port)).count();
        let half_open = self.rivals(wish, address).filter(|p| p.half_open).count();
        self.fits(wish, port)
            && self.rivals(wish, address).all(|p| p.port != port)
            && (!wish.half_open() || half_open < fitting - fitting / 2)
    }

    fn has_free(&self, wish: &Wish, address: IpAddr) -> bool {
        (self.settings.first_port..=self.settings.last_port).any(|port| self.is_free(wish, address, port))
    }

    /// Returns the port that a new half-open flow takes from the oldest one if none is free.
    fn oldest(&self, wish: &Wish, address: IpAddr) -> Option<u16> {
        self.rivals(wish, address).find(|p| p.half_open && wish.half_open()).map(|p| p.port)
    }

    /// Returns whether a new connection may take the port of one that is over, of those in `over`: as long as half-open
    /// flows have less than half of the ports.
    fn may_yield(&self, wish: &Wish, address: IpAddr, over: &[SocketAddr]) -> Vec<u16> {
        let ports = self.settings.first_port..=self.settings.last_port;
        let fitting = ports.filter(|port| self.fits(wish, *port)).count();
        let half_open = self.rivals(wish, address).filter(|p| p.half_open).count();
        if !wish.half_open() || half_open >= fitting - fitting / 2 {
            return Vec::new();
        }
        let in_use = self.rivals(wish, address).filter(|p| p.rests.is_none());
        in_use.map(|p| p.port).filter(|port| over.contains(&SocketAddr::new(address, *port))).collect()
    }

    fn has_none(&self, wish: &Wish, address: IpAddr, over: &[SocketAddr]) -> bool {
        !self.has_free(wish, address)
            && self.oldest(wish, address).is_none()
            && self.may_yield(wish, address, over).is_empty()
    }

    /// Returns the addresses that a flow may have a source of.
    fn asked(&self, wish: &Wish) -> Vec<IpAddr> {
        let home = self.homes.get(&(wish.client.ip(), wish.v6())).copied();
        let own = home.filter(|_| self.settings.pooling == Pooling::Paired);
        own.map_or(self.addresses(wish.v6()), |own| vec![own])
    }

    /// Returns whether the engine can have found no source for a flow that in the end got `chosen`, if any, perhaps
    /// from another server.
    pub fn may_lack(&mut self, now: Instant, wish: &Wish, chosen: Option<SocketAddr>, over: &[SocketAddr]) -> bool {
        self.passes(now);
        if let Protocol::Ip(_) = wish.protocol {
            return false;
        }
        let mut asked = self.asked(wish);
        if self.settings.pooling == Pooling::Arbitrary {
            return asked.iter().all(|address| self.has_none(wish, *address, over));
        }
        // A client without an assigned address may have been directed to any of them.
        if let Some(own) = chosen.map(|chosen| chosen.ip()).filter(|own| asked.contains(own)) {
            asked = vec![own];
        }
        asked.iter().any(|address| self.has_none(wish, *address, over))
    }

    /// Records the engine's choice of a source. An error says what is wrong with it. `over` are the sources of
    /// connections to the same server that are over.
    pub fn take(
        &mut self,
        now: Instant,
        wish: &Wish,
        chosen: SocketAddr,
        over: &[SocketAddr],
    ) -> Result<Source, String> {
        self.passes(now);
        let wrong = || Err(format!("{wish:?} may not have the source {chosen}"));
        let addresses = self.addresses(wish.v6());
        let home = self.homes.get(&(wish.client.ip(), wish.v6())).copied();
        if let Protocol::Ip(_) = wish.protocol {
            // Without ports there is only the client's address to check.
            let fits = home.is_none_or(|home| home == chosen.ip()) && addresses.contains(&chosen.ip());
            self.homes.insert((wish.client.ip(), wish.v6()), chosen.ip());
            return if fits && chosen.port() == 0 { Ok(Source { end: chosen, replaces: false }) } else { wrong() };
        }
        let all = self.settings.pooling == Pooling::Arbitrary;
        let (address, port, asked) = (chosen.ip(), chosen.port(), self.asked(wish));
        let replaces = !self.is_free(wish, address, port);
        // Of several addresses, one with a free port comes before one where a connection is over, and that before one
        // whose half-open flow gives way.
        let others: &[IpAddr] = if all { &addresses } else { &[address] };
        let none_is_free = others.iter().all(|address| !self.has_free(wish, *address));
        let yielding = |of: IpAddr| self.may_yield(wish, of, over);
        let yields = replaces && yielding(address).contains(&port);
        let gives_way =
            self.oldest(wish, address) == Some(port) && others.iter().all(|address| yielding(*address).is_empty());
        if !asked.contains(&address) || (replaces && !(none_is_free && (yields || gives_way))) {
            return wrong();
        }
        let had = |of: IpAddr| match (replaces, yields) {
            (false, _) => self.has_free(wish, of),
            (true, false) => self.oldest(wish, of).is_some(),
            (true, true) => !yielding(of).is_empty(),
        };
        if let Some(home) = home.filter(|home| *home != address) {
            if had(home) {
                return Err(format!("{wish:?} has the source {chosen}, but {home} still had ports"));
            }
        } else if home.is_none() && (!all || addresses.iter().all(|a| had(*a))) {
            self.homes.insert((wish.client.ip(), wish.v6()), address);
        }
        self.shown.extend(asked.iter().map(|address| (*address, wish.protocol)));
        Ok(Source { end: chosen, replaces })
    }

    /// Gives a flow its source, which no other flow has any more.
    pub fn holds(&mut self, wish: &Wish, source: SocketAddr) {
        if let Protocol::Ip(_) = wish.protocol {
            return;
        }
        let (address, port, Wish { protocol, server, .. }) = (source.ip(), source.port(), *wish);
        self.ports.push(Port { address, protocol, server, port, half_open: wish.half_open(), rests: None });
    }

    /// Returns any free source that a flow could use, for a choice of the engine that is never visible.
    pub fn any(&mut self, now: Instant, wish: &Wish) -> Option<Source> {
        self.passes(now);
        let ports = self.settings.first_port..=self.settings.last_port;
        let addresses = self.asked(wish);
        let source = |end| Source { end, replaces: false };
        if let Protocol::Ip(_) = wish.protocol {
            return addresses.first().map(|address| source(SocketAddr::new(*address, 0)));
        }
        self.shown.extend(addresses.iter().map(|address| (*address, wish.protocol)));
        let all = addresses.into_iter().flat_map(|address| ports.clone().map(move |port| (address, port)));
        all.map(SocketAddr::from).find(|end| self.is_free(wish, end.ip(), end.port())).map(source)
    }

    /// Returns the place of the port that a flow uses.
    fn place(&self, wish: &Wish, source: SocketAddr) -> Option<usize> {
        let own = |port: &Port| {
            (port.address, port.protocol, port.server, port.port)
                == (source.ip(), wish.protocol, wish.server, source.port())
                && port.rests.is_none()
        };
        self.ports.iter().position(own)
    }

    /// Records that a flow has completed its handshake.
    pub fn established(&mut self, wish: &Wish, source: SocketAddr) {
        if let Some(place) = self.place(wish, source) {
            self.ports[place].half_open = false;
        }
    }

    /// Takes the source of a flow that is over, for another one.
    pub fn yields(&mut self, wish: &Wish, source: SocketAddr) {
        if let Some(place) = self.place(wish, source) {
            self.ports.remove(place);
        }
    }

    /// Releases a flow's source; it rests for the pool's hold time, unless the flow never completed its handshake.
    pub fn release(&mut self, now: Instant, wish: &Wish, source: SocketAddr) {
        let Some(place) = self.place(wish, source) else { return };
        if !self.ports[place].half_open && !self.settings.hold.is_zero() {
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
            let half_open = own().filter(|port| port.half_open).count() as u32;
            let mut servers: Vec<SocketAddr> = own().map(|port| port.server).collect();
            servers.sort();
            servers.dedup();
            let busy = |server: &SocketAddr| own().filter(|port| port.server == *server).count() as u32;
            // The first of those with the most.
            let fullest = servers.iter().copied().rev().max_by_key(busy);
            let free = all - fullest.map_or(0, |server| busy(&server));
            (row.used, row.half_open, row.resting) == (used, half_open, held)
                && (row.servers as usize, row.fullest_server, row.free) == (servers.len(), fullest, free)
                && row.exhausted == self.exhausted
                && self.shown.contains(&(row.address, row.protocol))
        };
        let shown = |port: &Port| rows.iter().any(|row| (row.address, row.protocol) == (port.address, port.protocol));
        rows.iter().all(row_agrees) && self.ports.iter().all(shown)
    }
}
