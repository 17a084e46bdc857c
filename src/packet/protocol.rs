//! The transport protocols that a service can listen for, and their names.

use super::proto;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::LazyLock;

/// A transport protocol that a service can listen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP (IP protocol 6).
    Tcp,
    /// UDP (IP protocol 17).
    Udp,
    /// ICMP and ICMPv6 echo (IP protocols 1 and 58); its "port" is the echo identifier.
    Icmp,
    /// SCTP (IP protocol 132; RFC 9260): balanced by its ports, one path of an association at a time.
    Sctp,
    /// Another one by its IP protocol number, such as GRE or ESP: no ports, balanced by addresses alone.
    Ip(u8),
}

/// Names of protocols without ports that have one; all others are `ip-89`.
const NAMED: [(&str, u8); 5] = [("ipip", 4), ("6in4", 41), ("gre", proto::GRE), ("esp", proto::ESP), ("l2tp", 115)];

static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let name = |number: u8| NAMED.iter().find(|(_, n)| *n == number).map(|(name, _)| (*name).to_owned());
    (0..=u8::MAX).map(|number| name(number).unwrap_or_else(|| format!("ip-{number}"))).collect()
});

impl Protocol {
    /// The word used in configurations and tables: `tcp`, `udp`, `icmp`, `sctp`, `gre`, `esp`, `ip-89`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
            Protocol::Sctp => "sctp",
            Protocol::Ip(number) => NAMES[usize::from(number)].as_str(),
        }
    }

    /// The protocol of that name. What has a name of its own cannot be written as a number.
    pub fn from_name(name: &str) -> Option<Protocol> {
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp];
        let listed = || NAMES.iter().position(|n| n == name).map(|number| Protocol::Ip(number as u8));
        known.into_iter().find(|protocol| protocol.name() == name).or_else(listed).filter(|protocol| match protocol {
            Protocol::Ip(number) => Protocol::of_number(*number) == *protocol && !NOT_LISTENED.contains(number),
            _ => true,
        })
    }

    /// The protocol with an IP protocol number.
    pub const fn of_number(number: u8) -> Protocol {
        match number {
            proto::TCP => Protocol::Tcp,
            proto::UDP => Protocol::Udp,
            proto::ICMP | proto::ICMPV6 => Protocol::Icmp,
            proto::SCTP => Protocol::Sctp,
            other => Protocol::Ip(other),
        }
    }

    /// Its IP protocol number in a family.
    pub const fn number(self, v6: bool) -> u8 {
        match (self, v6) {
            (Protocol::Tcp, _) => proto::TCP,
            (Protocol::Udp, _) => proto::UDP,
            (Protocol::Icmp, false) => proto::ICMP,
            (Protocol::Icmp, true) => proto::ICMPV6,
            (Protocol::Sctp, _) => proto::SCTP,
            (Protocol::Ip(number), _) => number,
        }
    }

    /// A number for hashing, the same on every machine; one byte for all that have ports.
    pub const fn code(self) -> u64 {
        match self {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Icmp => 2,
            Protocol::Sctp => 3,
            Protocol::Ip(number) => 0x100 | number as u64,
        }
    }

    /// Whether its flows are told apart by ports (for ICMP, by the identifier).
    pub const fn has_ports(self) -> bool {
        !matches!(self, Protocol::Ip(_))
    }
}

/// Numbers that name IPv6 extension headers or nothing at all; AH covers the addresses, so that NAT breaks it (RFC 3715, 2.1 a).
const NOT_LISTENED: [u8; 7] = [0, 43, 44, 51, 59, 60, 255];

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Protocol::from_name(&name).ok_or_else(|| serde::de::Error::custom(format!("unknown protocol {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_leads_back_to_its_protocol() {
        for number in 0..=u8::MAX {
            let protocol = Protocol::of_number(number);
            let listens = !NOT_LISTENED.contains(&number);
            assert_eq!(Protocol::from_name(protocol.name()), listens.then_some(protocol), "{number}");
        }
        for name in ["ip-6", "ip-17", "ip-47", "ip-256", "ip-", "TCP", "", "ip-044"] {
            assert_eq!(Protocol::from_name(name), None, "{name}");
        }
        assert_eq!(serde_json::to_string(&Protocol::Ip(89)).unwrap(), "\"ip-89\"");
        assert_eq!(serde_json::from_str::<Protocol>("\"gre\"").unwrap(), Protocol::Ip(47));
    }
}
