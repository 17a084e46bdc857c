//! Why packets are dropped: one flat list, shared by counters, reports and tools.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident = $word:literal, $text:literal; )+) => {
        /// Why a packet was dropped. Each drop has exactly one reason and is counted once.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $( $(#[doc = $doc])+ #[serde(rename = $word)] $name, )+
        }

        impl Reason {
            /// Every reason, in the order in which tables show them.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// The short name, as in reports and JSON: `table-full`.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $word),+ }
            }

            /// The reason in words, for an operator.
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
    /// The IPv4 header length is under 20 bytes or beyond the packet.
    BadHeaderLength = "bad-header-length", "IPv4 header length under 20 bytes or beyond the packet";
    /// The IP length disagrees with the bytes that came.
    BadTotalLength = "bad-total-length", "IP length field shorter than the headers or longer than the packet";
    /// The IPv4 header checksum is wrong (RFC 1812, 5.2.2).
    BadHeaderChecksum = "bad-header-checksum", "IPv4 header checksum wrong";
    /// The IPv6 extension headers do not parse.
    BadExtension = "bad-extension", "IPv6 extension headers truncated or too many";
    /// The packet ends inside its transport header.
    TruncatedTransport = "truncated-transport", "packet ends inside its transport header";
    /// The TCP data offset is under 20 bytes or beyond the packet.
    BadTcpOffset = "bad-tcp-offset", "TCP data offset under 20 bytes or beyond the packet";
    /// The TCP flags contradict each other (SYN with FIN or RST, or none at all).
    BadTcpFlags = "bad-tcp-flags", "TCP flags contradict each other";
    /// The UDP length is under 8 bytes or disagrees with the IP length.
    BadUdpLength = "bad-udp-length", "UDP length under 8 bytes or beyond the packet";
    /// A transport port is zero where a flow needs one.
    BadPort = "bad-port", "source port zero";
    /// The source cannot be answered: unspecified, loopback, multicast, broadcast, or the destination itself.
    BadSource = "bad-source", "source address that cannot be answered";
    /// A fragment that is empty, not of whole eight bytes though more follow, or beyond 65,535 bytes.
    BadFragment = "bad-fragment", "fragment empty, ragged, or beyond 65,535 bytes";
    /// A first fragment without its whole transport header, or a TCP one that could overwrite it (RFC 1858; RFC 3128).
    FragmentTiny = "fragment-tiny", "fragment that could hide or overwrite a transport header";
    /// It overlaps another fragment of its packet, or is there already (RFC 5722; RFC 1858).
    FragmentOverlap = "fragment-overlap", "fragment that overlaps another of its packet";
    /// The store of fragments has no room for it.
    FragmentStoreFull = "fragment-store-full", "no room to remember or keep another fragment";
    /// The first fragment of its packet was dropped or answered, or it is the first of SCTP whose CRC could not follow its ports.
    Fragment = "fragment", "its packet's first fragment went nowhere";
    /// A transport protocol that no service can listen for.
    OtherProtocol = "other-protocol", "transport protocol that the service address does not offer";
    /// It is not at its end yet, or has not come from where its header says (RFC 791, 3.1; RFC 8200, 4.4; RFC 6275, 6.3).
    Detour = "detour", "its source route or home address names other ends than its header";
    /// Addressed to a service address, but no service listens on that port.
    NoService = "no-service", "service address, but no service on that port";
    /// The service has no server that could take a new flow.
    NoServer = "no-server", "no server of the service can take a new flow";
    /// From a server's service port, of no flow.
    ServerNoFlow = "server-no-flow", "from a server's service port, of no flow";
    /// A TCP packet that belongs to no flow and opens none.
    TcpNoFlow = "tcp-no-flow", "TCP packet of no flow, and not a SYN";
    /// An ICMP message to a service address that is not an echo request.
    IcmpUnhandled = "icmp-unhandled", "ICMP message to a service address other than an echo request";
    /// An ICMP error about a packet of no flow (RFC 5508 REQ-4 and REQ-5).
    IcmpNoFlow = "icmp-no-flow", "ICMP error about a packet of no flow";
    /// An ICMP error about a TCP segment that is not under way (RFC 5927, 4), or told to another than the sender of what it quotes.
    IcmpImplausible = "icmp-implausible", "ICMP error about a segment that is not under way";
    /// An ICMP error whose quoted packet is no whole start of one, or has a wrong IPv4 header checksum (RFC 5508 REQ-3a).
    BadQuote = "bad-quote", "ICMP error that quotes no sound start of a packet";
    /// A packet-too-big that names an MTU no link may have (RFC 8201, 4: under 1280; RFC 791, 3.2: under 68).
    IcmpBadMtu = "icmp-bad-mtu", "packet-too-big with an impossible MTU";
    /// Source quench (RFC 6633) or a redirect, which only a router on the link may send (RFC 1122, 3.2.2.2).
    IcmpObsolete = "icmp-obsolete", "ICMP source quench or redirect";
    /// An ICMP message with a wrong checksum (RFC 5508 REQ-3).
    BadIcmpChecksum = "bad-icmp-checksum", "ICMP checksum wrong";
    /// A rule says so.
    RuleDrop = "rule-drop", "a rule drops it";
    /// A rule lets it pass, but it is addressed to a service address: it would come back for ever.
    RuleLoop = "rule-loop", "a rule passes it, but its service address leads back to the gateway";
    /// Its rule's new flows a second are used up.
    RuleRate = "rule-rate", "its rule's new flows a second are used up";
    /// Its rule has as many flows as it may.
    RuleFlows = "rule-flows", "its rule has as many flows as it may";
    /// Its client's new flows a second are used up.
    ClientRate = "client-rate", "its client's new flows a second are used up";
    /// Its client has as many flows as it may.
    ClientFlows = "client-flows", "its client has as many flows as it may";
    /// The gateway's new flows a second are used up for its class.
    GatewayRate = "gateway-rate", "the gateway's new flows a second are used up for its class";
    /// The table is nearly full: low classes are refused.
    TableLow = "table-low", "table nearly full, flows of class low are refused";
    /// The table is nearly full: normal classes are refused.
    TableNormal = "table-normal", "table nearly full, flows of class normal are refused";
    /// The table is full, and nothing in it may be evicted.
    TableFull = "table-full", "flow table full, and nothing in it may be evicted";
    /// Every server's return key is in use by another flow.
    ReturnKeyTaken = "return-key-taken", "another flow already uses the same server, port and client port";
    /// The NAT pool has no source port left for the flow.
    NatExhausted = "nat-exhausted", "the NAT pool has no source port left";
    /// It has no counterpart in the other IP family (RFC 7915).
    Untranslatable = "untranslatable", "cannot be expressed in the other IP family";
    /// Addressed to the probe address, but no probe of the gateway's can have caused it.
    NoProbe = "no-probe", "to the probe address, from nobody who is probed";
    /// An answer to a probe with a wrong checksum.
    BadProbeChecksum = "bad-probe-checksum", "to the probe address, checksum wrong";
    /// More answers are due than the limit allows.
    AnswerLimit = "answer-limit", "refused without an answer: the gateway sends no more of them a second";
    /// The engine's own answers wait for a device that does not take them.
    AnswerQueueFull = "answer-queue-full", "too many answers of the gateway's own are waiting";
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
