//! Where a flow's source port counts: at one server endpoint, in one class of ports.

use super::members::Members;
use crate::flow::key::Key;
use crate::flow::nat_settings::NatPoolSettings;
use crate::packet::{Addresses, Protocol};
use hashlink::LinkedHashSet;
use siphasher::sip::SipHasher13;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::ops::Range;

/// A server's address and port; port 0 for ICMP echo, whose identifiers are distinguished by the server's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The server's address.
    pub address: IpAddr,
    /// The server's port.
    pub port: u16,
}

/// The source that one flow has towards one server endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The source address.
    pub address: IpAddr,
    /// The source port; the identifier of an echo; 0 for a protocol without ports.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The server endpoint.
    pub server: Endpoint,
}

impl Mapping {
    /// Returns the mapping of a flow, given the key of its server's replies.
    pub fn of_replies(key: &Key) -> Mapping {
        let port = if key.protocol == Protocol::Icmp { 0 } else { key.src_port };
        let server = Endpoint { address: key.addresses.src(), port };
        Mapping { address: key.addresses.dst(), port: key.dst_port, protocol: key.protocol, server }
    }

    /// Returns the key of the replies to it; none if its addresses are of two families.
    pub fn replies(&self) -> Option<Key> {
        let src_port = if self.protocol == Protocol::Icmp { self.port } else { self.server.port };
        let addresses = Addresses::new(self.server.address, self.address)?;
        Some(Key { addresses, src_port, dst_port: self.port, protocol: self.protocol })
    }
}

/// The ports that one flow may get, as it asks for parity and range: `first`, `first + step`, and so on. Two classes of
/// one pool share no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    /// Unique in the pool.
    pub number: u8,
    first: u16,
    step: u16,
    /// The number of ports, at least 1.
    pub count: u16,
}

impl Class {
    /// Returns the class of a client's port. That of a source port is the same, since it is like the client's.
    pub(super) fn of(settings: &NatPoolSettings, protocol: Protocol, port: u16) -> Option<Class> {
        let (mut first, mut last) = (settings.first_port, settings.last_port);
        let (mut number, mut step) = (0, 1);
        // An echo's identifier is no port.
        let is_port = protocol != Protocol::Icmp;
        if is_port && settings.range_class {
            // RFC 4787 REQ-3a: a well-known port maps to a well-known port.
            (first, last) = if port < 1024 { (first, last.min(1023)) } else { (first.max(1024), last) };
            number |= u8::from(port >= 1024) << 1;
        }
        if is_port && settings.parity {
            first = first.checked_add((first ^ port) & 1)?;
            number |= (port & 1) as u8;
            step = 2;
        }
        let count = last.checked_sub(first)? / step + 1;
        Some(Class { number, first, step, count })
    }

    /// Returns the port at an index below [`Class::count`].
    pub(super) fn port(&self, index: u16) -> u16 {
        self.first + index * self.step
    }

    /// Returns the index of a port of this class.
    pub(super) fn index(&self, port: u16) -> Option<u16> {
        let index = port.checked_sub(self.first)? / self.step;
        (index < self.count).then_some(index)
    }
}

/// The ports of one address, protocol, server endpoint and class that are not free, as indices of the class. It is
/// dropped when there are none.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    /// Used by flows, or resting.
    pub busy: Members,
    pub resting: Members,
    /// Those that rest after a flow that was tentative to its end.
    pub resting_tentative: Members,
    /// The first of them was taken first. Boxed, since most endpoints have no tentative flow at most times.
    tentative: Option<Box<Tentative>>,
}

type Tentative = LinkedHashSet<u16, BuildHasherDefault<SipHasher13>>;

impl Ports {
    pub(super) const fn none() -> Self {
        let none = Members::none;
        Ports { busy: none(), resting: none(), resting_tentative: none(), tentative: None }
    }

    pub(super) fn tentative(&self) -> usize {
        self.tentative.as_ref().map_or(0, |ports| ports.len())
    }

    pub(super) fn is_tentative(&self, index: u16) -> bool {
        self.tentative.as_ref().is_some_and(|ports| ports.contains(&index))
    }

    /// Returns the ports of tentative flows, the first taken first.
    pub(super) fn tentative_in_order(&self) -> impl Iterator<Item = u16> + '_ {
        self.tentative.iter().flat_map(|ports| ports.iter().copied())
    }

    /// Returns the port among these whose flow has been tentative longest; the port `without` does not count.
    pub(super) fn oldest_tentative(&self, without: Option<u16>, among: Range<usize>) -> Option<u16> {
        let mut all = self.tentative.as_ref()?.iter().copied();
        all.find(|index| Some(*index) != without && among.contains(&usize::from(*index)))
    }

    /// Records a port as that of a tentative flow.
    pub(super) fn add_tentative(&mut self, index: u16) {
        self.tentative.get_or_insert_default().insert(index);
    }

    /// Records that a port's flow is not tentative, or no longer; returns whether it was.
    pub(super) fn remove_tentative(&mut self, index: u16) -> bool {
        let Some(ports) = &mut self.tentative else { return false };
        let was = ports.remove(&index);
        if ports.is_empty() {
            self.tentative = None;
        }
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_one_index_in_one_class() {
        let ranges = [(1, 65_535), (1024, 65_535), (7, 7), (8, 8), (1000, 1001), (1020, 1029), (65_535, 65_535)];
        for (first_port, last_port) in ranges {
            for (parity, range_class) in [(false, false), (true, false), (false, true), (true, true)] {
                let settings =
                    NatPoolSettings { first_port, last_port, parity, range_class, ..NatPoolSettings::new("out") };
                for protocol in [Protocol::Udp, Protocol::Icmp] {
                    let mut seen = std::collections::BTreeSet::new();
                    for port in first_port..=last_port {
                        let class = Class::of(&settings, protocol, port).unwrap();
                        let index = class.index(port).unwrap();
                        assert_eq!(class.port(index), port);
                        assert!(seen.insert((class.number, index)));
                    }
                }
                let all: std::collections::BTreeMap<_, _> = [0, 1, 1024, 1025]
                    .into_iter()
                    .filter_map(|port| Class::of(&settings, Protocol::Tcp, port))
                    .map(|class| (class.number, usize::from(class.count)))
                    .collect();
                assert_eq!(all.values().sum::<usize>(), usize::from(last_port - first_port) + 1);
            }
        }
    }
}
