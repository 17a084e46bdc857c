//! The transport protocols that a service can listen on, and their names.

use super::proto;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A transport protocol that a service can listen on.
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
    /// Any other, by its IP protocol number, such as GRE or ESP: without ports, balanced by addresses alone.
    Ip(u8),
}

/// Names of protocols without ports, by protocol number.
#[rustfmt::skip]
const NAMES: [&str; 256] = [
    "ip-0", "ip-1", "ip-2", "ip-3", "ipip", "ip-5", "ip-6", "ip-7",
    "ip-8", "ip-9", "ip-10", "ip-11", "ip-12", "ip-13", "ip-14", "ip-15",
    "ip-16", "ip-17", "ip-18", "ip-19", "ip-20", "ip-21", "ip-22", "ip-23",
    "ip-24", "ip-25", "ip-26", "ip-27", "ip-28", "ip-29", "ip-30", "ip-31",
    "ip-32", "ip-33", "ip-34", "ip-35", "ip-36", "ip-37", "ip-38", "ip-39",
    "ip-40", "6in4", "ip-42", "ip-43", "ip-44", "ip-45", "ip-46", "gre",
    "ip-48", "ip-49", "esp", "ip-51", "ip-52", "ip-53", "ip-54", "ip-55",
    "ip-56", "ip-57", "ip-58", "ip-59", "ip-60", "ip-61", "ip-62", "ip-63",
    "ip-64", "ip-65", "ip-66", "ip-67", "ip-68", "ip-69", "ip-70", "ip-71",
    "ip-72", "ip-73", "ip-74", "ip-75", "ip-76", "ip-77", "ip-78", "ip-79",
    "ip-80", "ip-81", "ip-82", "ip-83", "ip-84", "ip-85", "ip-86", "ip-87",
    "ip-88", "ip-89", "ip-90", "ip-91", "ip-92", "ip-93", "ip-94", "ip-95",
    "ip-96", "ip-97", "ip-98", "ip-99", "ip-100", "ip-101", "ip-102", "ip-103",
    "ip-104", "ip-105", "ip-106", "ip-107", "ip-108", "ip-109", "ip-110", "ip-111",
    "ip-112", "ip-113", "ip-114", "l2tp", "ip-116", "ip-117", "ip-118", "ip-119",
    "ip-120", "ip-121", "ip-122", "ip-123", "ip-124", "ip-125", "ip-126", "ip-127",
    "ip-128", "ip-129", "ip-130", "ip-131", "ip-132", "ip-133", "ip-134", "ip-135",
    "ip-136", "ip-137", "ip-138", "ip-139", "ip-140", "ip-141", "ip-142", "ip-143",
    "ip-144", "ip-145", "ip-146", "ip-147", "ip-148", "ip-149", "ip-150", "ip-151",
    "ip-152", "ip-153", "ip-154", "ip-155", "ip-156", "ip-157", "ip-158", "ip-159",
    "ip-160", "ip-161", "ip-162", "ip-163", "ip-164", "ip-165", "ip-166", "ip-167",
    "ip-168", "ip-169", "ip-170", "ip-171", "ip-172", "ip-173", "ip-174", "ip-175",
    "ip-176", "ip-177", "ip-178", "ip-179", "ip-180", "ip-181", "ip-182", "ip-183",
    "ip-184", "ip-185", "ip-186", "ip-187", "ip-188", "ip-189", "ip-190", "ip-191",
    "ip-192", "ip-193", "ip-194", "ip-195", "ip-196", "ip-197", "ip-198", "ip-199",
    "ip-200", "ip-201", "ip-202", "ip-203", "ip-204", "ip-205", "ip-206", "ip-207",
    "ip-208", "ip-209", "ip-210", "ip-211", "ip-212", "ip-213", "ip-214", "ip-215",
    "ip-216", "ip-217", "ip-218", "ip-219", "ip-220", "ip-221", "ip-222", "ip-223",
    "ip-224", "ip-225", "ip-226", "ip-227", "ip-228", "ip-229", "ip-230", "ip-231",
    "ip-232", "ip-233", "ip-234", "ip-235", "ip-236", "ip-237", "ip-238", "ip-239",
    "ip-240", "ip-241", "ip-242", "ip-243", "ip-244", "ip-245", "ip-246", "ip-247",
    "ip-248", "ip-249", "ip-250", "ip-251", "ip-252", "ip-253", "ip-254", "ip-255",
];

impl Protocol {
    /// Returns the name used in configurations and tables: `tcp`, `udp`, `icmp`, `sctp`, `gre`, `esp`, `ip-89`.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
            Protocol::Sctp => "sctp",
            Protocol::Ip(number) => NAMES[number as usize],
        }
    }

    /// Finds a protocol by its name. A protocol with a name of its own cannot be given by number.
    pub fn from_name(name: &str) -> Option<Protocol> {
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp];
        let listed =
            || NAMES.iter().position(|n| *n == name).and_then(|number| u8::try_from(number).ok().map(Protocol::Ip));
        known.into_iter().find(|protocol| protocol.name() == name).or_else(listed).filter(|protocol| match protocol {
            Protocol::Ip(number) => Protocol::of_number(*number) == *protocol && !NOT_LISTENED.contains(number),
            _ => true,
        })
    }

    /// Returns the protocol with an IP protocol number.
    pub const fn of_number(number: u8) -> Protocol {
        match number {
            proto::TCP => Protocol::Tcp,
            proto::UDP => Protocol::Udp,
            proto::ICMP | proto::ICMPV6 => Protocol::Icmp,
            proto::SCTP => Protocol::Sctp,
            other => Protocol::Ip(other),
        }
    }

    /// Returns its IP protocol number in a family.
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

    /// Returns a number for hashing, the same on every machine; one byte for all protocols with ports.
    pub const fn code(self) -> u64 {
        match self {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Icmp => 2,
            Protocol::Sctp => 3,
            Protocol::Ip(number) => 0x100 | number as u64,
        }
    }

    /// Returns whether its flows are distinguished by ports (for ICMP, by the identifier).
    pub const fn has_ports(self) -> bool {
        !matches!(self, Protocol::Ip(_))
    }
}

/// Numbers that identify IPv6 extension headers (mobility, HIP and shim6 among them) or no protocol at all; AH covers
/// the addresses, so NAT breaks it (RFC 3715, 2.1 a); VRRP is link-local.
const NOT_LISTENED: [u8; 11] = [0, 43, 44, 51, 59, 60, 112, 135, 139, 140, 255];

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
