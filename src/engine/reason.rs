//! The reasons for dropping a packet, in one flat list shared by counters, reports and tools.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident = $word:literal, $text:literal; )+) => {
        /// The reason why a packet was dropped. Each drop has exactly one and is counted once.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $( $(#[doc = $doc])+ #[serde(rename = $word)] $name, )+
        }

        impl Reason {
            /// Every reason, in the order of the tables.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// Returns the short name used in reports and JSON: `table-full`.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $word),+ }
            }

            /// Describes the reason to an operator.
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$name => $text),+ }
            }
        }
    };
}

reasons! {
    /// Shorter than the smallest IP header.
    TooShort = "too-short", "shorter than an IP header";
    /// Neither IPv4 nor IPv6.
    BadVersion = "bad-version", "IP version is neither 4 nor 6";
    /// The IPv4 header length is less than 20 bytes or exceeds the packet.
    BadHeaderLength = "bad-header-length", "IPv4 header length under 20 bytes or beyond the packet";
    /// The IP length field is shorter than the headers or longer than the packet.
    BadTotalLength = "bad-total-length", "IP length field shorter than the headers or longer than the packet";
    /// The IPv4 header checksum is wrong (RFC 1812, 5.2.2).
    BadHeaderChecksum = "bad-header-checksum", "bad IPv4 header checksum";
    /// The IPv6 extension headers cannot be parsed.
    BadExtension = "bad-extension", "IPv6 extension headers truncated or too many";
    /// The packet ends inside its transport header.
    TruncatedTransport = "truncated-transport", "packet ends inside its transport header";
    /// The TCP data offset is less than 20 bytes or exceeds the packet.
    BadTcpOffset = "bad-tcp-offset", "TCP data offset under 20 bytes or beyond the packet";
    /// The TCP flags contradict each other (SYN with FIN or RST, or none at all).
    BadTcpFlags = "bad-tcp-flags", "invalid combination of TCP flags";
    /// The UDP length is less than 8 bytes or disagrees with the IP length.
    BadUdpLength = "bad-udp-length", "UDP length under 8 bytes or beyond the packet";
    /// A transport port is zero where a flow needs one.
    BadPort = "bad-port", "source port is zero";
    /// No reply can reach the source: unspecified, loopback, multicast, broadcast, or the destination itself.
    BadSource = "bad-source", "source address that no reply can reach";
    /// The fragment is empty, is not the last and no multiple of 8 bytes, or extends beyond 65,535 bytes.
    BadFragment = "bad-fragment", "fragment empty, not a multiple of 8 bytes, or beyond 65,535 bytes";
    /// A first fragment without a complete transport header, or a TCP fragment that could overwrite it (RFC 1858; RFC 3128).
    FragmentTiny = "fragment-tiny", "fragment that could hide or overwrite a transport header";
    /// The fragment overlaps or repeats another one of its packet (RFC 5722; RFC 1858).
    FragmentOverlap = "fragment-overlap", "fragment that overlaps another one of the same packet";
    /// The fragment store has no room for it.
    FragmentStoreFull = "fragment-store-full", "fragment store full";
    /// The first fragment of the packet was dropped or consumed, or is the first of an SCTP packet whose CRC could not be updated for new ports.
    Fragment = "fragment", "the first fragment of the same packet was not forwarded";
    /// A transport protocol that no service can listen for.
    OtherProtocol = "other-protocol", "transport protocol not offered at the service address";
    /// A source route or home address option names another source or destination than the header (RFC 791, 3.1; RFC 8200, 4.4; RFC 6275, 6.3).
    Detour = "detour", "source route or home address differs from the header";
    /// Sent to a service address, but no service listens on the port.
    NoService = "no-service", "no service on this port of the service address";
    /// No server of the service can take a new flow.
    NoServer = "no-server", "no server of the service can take a new flow";
    /// A TCP segment from the service port of a server, on a connection that is not known here.
    ServerNoFlow = "server-no-flow", "from the service port of a server, on an unknown TCP connection";
    /// A TCP packet that is not part of a flow and does not open one.
    TcpNoFlow = "tcp-no-flow", "TCP packet that is not part of a flow and not a SYN";
    /// For the other gateway of a pair: this one stands by, or the segment is of a connection that only the other may know.
    OtherGateway = "other-gateway", "left to the other gateway of the pair, which forwards or may know its connection";
    /// A late TCP segment of a flow that ended within the last minute, after both ends had closed it or one had reset it.
    RecentlyEnded = "recently-ended", "late segment of a TCP flow that has ended a short while ago";
    /// An ICMP message to a service address that is not an echo request.
    IcmpUnhandled = "icmp-unhandled", "ICMP message to a service address other than an echo request";
    /// An ICMP error about a packet that is not part of a flow (RFC 5508 REQ-4 and REQ-5).
    IcmpNoFlow = "icmp-no-flow", "ICMP error about a packet that is not part of a flow";
    /// An ICMP error about a TCP segment that is not in flight (RFC 5927, 4), or one sent to a host that did not send the quoted packet.
    IcmpImplausible = "icmp-implausible", "ICMP error about a segment that is not in flight";
    /// An ICMP error that quotes too little of a packet, or one with a bad IPv4 header checksum (RFC 5508 REQ-3a).
    BadQuote = "bad-quote", "ICMP error with a truncated or damaged quoted packet";
    /// A packet-too-big error with an MTU that no link may have (RFC 8201, 4: under 1280; RFC 791, 3.2: under 68).
    IcmpBadMtu = "icmp-bad-mtu", "packet-too-big error with an impossible MTU";
    /// Source quench (RFC 6633) or a redirect, which only a router on the link may send (RFC 1122, 3.2.2.2).
    IcmpObsolete = "icmp-obsolete", "ICMP source quench or redirect";
    /// An ICMP message with a wrong checksum (RFC 5508 REQ-3).
    BadIcmpChecksum = "bad-icmp-checksum", "bad ICMP checksum";
    /// Dropped by a rule.
    RuleDrop = "rule-drop", "dropped by a rule";
    /// A rule lets it pass, but its destination is a service address: it would loop back to the gateway.
    RuleLoop = "rule-loop", "passed by a rule, but its service address is routed back to the gateway";
    /// The limit of new flows per second of its rule is reached.
    RuleRate = "rule-rate", "limit of new flows per second of its rule reached";
    /// The limit of concurrent flows of its rule is reached.
    RuleFlows = "rule-flows", "limit of concurrent flows of its rule reached";
    /// The limit of new flows per second of its client is reached.
    ClientRate = "client-rate", "limit of new flows per second of its client reached";
    /// The limit of concurrent flows of its client is reached.
    ClientFlows = "client-flows", "limit of concurrent flows of its client reached";
    /// A packet that would make a flow count, but its server has reached its limit of concurrent flows.
    ServerFlows = "server-flows", "limit of concurrent flows of its server reached";
    /// The gateway's limit of new flows per second is reached for its priority.
    GatewayRate = "gateway-rate", "the gateway's limit of new flows per second is reached for its priority";
    /// The table is nearly full: new flows of priority low are refused.
    TableLow = "table-low", "flow table nearly full, new flows of priority low are refused";
    /// The table is nearly full: new flows of priority normal are refused.
    TableNormal = "table-normal", "flow table nearly full, new flows of priority normal are refused";
    /// The table is full of busy flows.
    TableFull = "table-full", "flow table full of busy flows, none of which may be evicted";
    /// For every server, another flow already has the same return key.
    ReturnKeyTaken = "return-key-taken", "another flow already uses the same server, port and client port";
    /// The NAT pool has no free source port for the flow.
    NatExhausted = "nat-exhausted", "no free source port in the NAT pool";
    /// The packet has no equivalent in the other IP family (RFC 7915).
    Untranslatable = "untranslatable", "no equivalent in the other IP family";
    /// Sent to the probe address, but by a host that the gateway does not probe.
    NoProbe = "no-probe", "to the probe address, from a host that is not probed";
    /// A reply to a probe with a wrong checksum.
    BadProbeChecksum = "bad-probe-checksum", "to the probe address, with a bad checksum";
    /// The rate limit of the gateway's own replies is reached.
    AnswerLimit = "answer-limit", "refused without a reply: rate limit of the gateway's own replies reached";
    /// The queue of the gateway's own replies is full.
    AnswerQueueFull = "answer-queue-full", "queue of the gateway's own replies full";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_order() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert_eq!(Reason::ALL.iter().filter(|r| r.name() == reason.name()).count(), 1);
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{}\"", reason.name()));
        }
    }
}
