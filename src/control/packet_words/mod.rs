//! Hypothetical packets in words, as `explain` takes them: `tcp 192.0.2.7:4711 -> 203.0.113.10:80 syn`.
//!
//! ```text
//!  tcp  SRC:PORT -> DST:PORT [syn|syn ack|ack|fin ack|rst ...] [seq N] [ack N] [len N]
//!  udp  SRC:PORT -> DST:PORT [len N]
//!  sctp SRC:PORT -> DST:PORT [len N]
//!  icmp SRC -> DST [reply] [id N] [seq N] [len N]                                an echo request, or its reply
//!  gre|esp|ipip|ip-N SRC -> DST [len N]
//!  each: [ttl N] [df] [ingress NAME]; IPv6 with a port in brackets: [2001:db8::7]:4711
//! ```
//!
//! Words may be joined by `+` and `=`, as the lines of a replay's report do: `SYN+ACK seq=7`. [`read`] takes the words
//! apart, [`build`] makes bytes of them. It must not know what becomes of the packet.

mod build;
mod read;

pub use read::WordsError;

use crate::engine::FlowRow;
use crate::packet::{Meta, Protocol, TcpFlags};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// A hypothetical packet. It is written as its words, also in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PacketWords {
    /// The source; its port is 0 where the protocol has none.
    src: SocketAddr,
    /// The destination, of the same family.
    dst: SocketAddr,
    transport: Transport,
    /// Bytes behind the transport header.
    len: u16,
    /// Time to live, or hop limit.
    ttl: u8,
    /// The flag that forbids fragments; IPv4 alone has it.
    df: bool,
    /// The interface that it comes in at, as rules name it.
    ingress: Option<String>,
}

/// The transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp { flags: TcpFlags, seq: u32, ack: u32 },
    Udp,
    Sctp,
    Echo { reply: bool, id: u16, seq: u16 },
    Ip(u8),
}

/// The words for TCP flags, in the order in which they are written.
const FLAGS: [(&str, u8); 8] = [
    ("syn", 0x02),
    ("fin", 0x01),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];

/// The time to live where none is given.
const TTL: u8 = 64;
/// Bytes behind the IP header of a protocol without ports where no length is given.
const OTHER_LEN: u16 = 8;
/// The longest packet in bytes.
const LONGEST: usize = 65_535;

impl Transport {
    /// Returns the transport of a packet that opens a flow of a protocol.
    const fn opening(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Transport::Tcp { flags: TcpFlags(TcpFlags::SYN), seq: 0, ack: 0 },
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => Transport::Sctp,
            Protocol::Icmp => Transport::Echo { reply: false, id: 1, seq: 1 },
            Protocol::Ip(number) => Transport::Ip(number),
        }
    }

    const fn protocol(self) -> Protocol {
        match self {
            Transport::Tcp { .. } => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
            Transport::Sctp => Protocol::Sctp,
            Transport::Echo { .. } => Protocol::Icmp,
            Transport::Ip(number) => Protocol::Ip(number),
        }
    }

    /// Returns the bytes of its header.
    const fn header(self) -> usize {
        match self {
            Transport::Tcp { .. } => 20,
            Transport::Udp | Transport::Echo { .. } => 8,
            Transport::Sctp => 12,
            Transport::Ip(_) => 0,
        }
    }

    /// Returns the bytes behind it where no length is given.
    const fn usual_len(self) -> u16 {
        if let Transport::Ip(_) = self { OTHER_LEN } else { 0 }
    }
}

impl PacketWords {
    /// Describes the packet that opens a flow; for ICMP, the destination's port is the echo identifier. None where the
    /// families of the two differ.
    pub fn opening(protocol: Protocol, src: SocketAddr, dst: SocketAddr) -> Option<Self> {
        let mut transport = Transport::opening(protocol);
        if let Transport::Echo { id, .. } = &mut transport {
            *id = dst.port();
        }
        let ports = matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
        let end = |end: SocketAddr| SocketAddr::new(end.ip(), if ports { end.port() } else { 0 });
        (src.is_ipv4() == dst.is_ipv4()).then(|| PacketWords {
            src: end(src),
            dst: end(dst),
            transport,
            len: transport.usual_len(),
            ttl: TTL,
            df: false,
            ingress: None,
        })
    }

    /// Describes the next packet of a flow's client: of TCP, an acknowledgement without data.
    pub fn next_of(flow: &FlowRow) -> Option<Self> {
        let mut words = PacketWords::opening(flow.protocol, flow.client, flow.listen)?;
        match &mut words.transport {
            Transport::Tcp { flags, .. } => *flags = TcpFlags(TcpFlags::ACK),
            Transport::Echo { id, .. } => *id = flow.client.port(),
            _ => {}
        }
        Some(words)
    }

    /// Returns what the device would know about the packet; `interfaces` are the names that rules refer to. An interface
    /// that no rule names is like none.
    pub fn meta(&self, interfaces: &[String]) -> Meta {
        let place = self.ingress.as_ref().and_then(|name| interfaces.iter().position(|known| known == name));
        Meta { ingress: place.and_then(|place| u16::try_from(place + 1).ok()).unwrap_or(0), ..Meta::default() }
    }

    /// Returns the interface that it comes in at.
    pub fn ingress(&self) -> Option<&str> {
        self.ingress.as_deref()
    }
}

/// Writes the words that read as this packet again; what has its usual value is left out.
impl fmt::Display for PacketWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.transport.protocol();
        if protocol.has_ports() && protocol != Protocol::Icmp {
            write!(f, "{} {} -> {}", protocol.name(), self.src, self.dst)?;
        } else {
            write!(f, "{} {} -> {}", protocol.name(), self.src.ip(), self.dst.ip())?;
        }
        match self.transport {
            Transport::Tcp { flags, seq, ack } => {
                for (name, _) in FLAGS.iter().filter(|(_, bit)| flags.0 & bit != 0) {
                    write!(f, " {name}")?;
                }
                number(f, "seq", seq, 0)?;
                number(f, "ack", ack, 0)?;
            }
            Transport::Echo { reply, id, seq } => {
                f.write_str(if reply { " reply" } else { "" })?;
                number(f, "id", id.into(), 1)?;
                number(f, "seq", seq.into(), 1)?;
            }
            Transport::Udp | Transport::Sctp | Transport::Ip(_) => {}
        }
        number(f, "len", self.len.into(), self.transport.usual_len().into())?;
        number(f, "ttl", self.ttl.into(), TTL.into())?;
        f.write_str(if self.df { " df" } else { "" })?;
        self.ingress.as_ref().map_or(Ok(()), |name| write!(f, " ingress {name}"))
    }
}

fn number(f: &mut fmt::Formatter<'_>, name: &str, value: u32, usual: u32) -> fmt::Result {
    if value == usual { Ok(()) } else { write!(f, " {name} {value}") }
}

impl TryFrom<String> for PacketWords {
    type Error = WordsError;

    fn try_from(text: String) -> Result<Self, WordsError> {
        text.parse()
    }
}

impl From<PacketWords> for String {
    fn from(words: PacketWords) -> String {
        words.to_string()
    }
}

#[cfg(test)]
mod tests;
