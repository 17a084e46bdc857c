//! Reads the words of a packet, and says where one of them is wrong.

use super::{FLAGS, LONGEST, PacketWords, TTL, Transport};
use crate::packet::{Protocol, TcpFlags};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A word that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordsError {
    /// Column in characters, from 1.
    pub column: usize,
    /// The error, and what is allowed.
    pub what: String,
    /// A packet that is written correctly.
    pub example: &'static str,
}

impl fmt::Display for WordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}; for example: {}", self.column, self.what, self.example)
    }
}

impl std::error::Error for WordsError {}

const EXAMPLE: &str = "tcp 192.0.2.7:4711 -> 203.0.113.10:80 syn";

/// Returns a packet of a protocol that is written correctly.
fn example(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => EXAMPLE,
        Protocol::Udp => "udp [2001:db8::7]:4711 -> [2001:db8::53]:53 len 40",
        Protocol::Sctp => "sctp 192.0.2.7:4711 -> 203.0.113.10:3868",
        Protocol::Icmp => "icmp 192.0.2.7 -> 203.0.113.10 id 7",
        Protocol::Ip(_) => "gre 192.0.2.7 -> 203.0.113.10",
    }
}

/// A word and its column.
#[derive(Clone, Copy)]
struct Word<'t> {
    text: &'t str,
    column: usize,
}

/// The words that are left, and what errors refer to.
struct Words<'t> {
    words: std::iter::Peekable<std::vec::IntoIter<Word<'t>>>,
    /// The column behind the last word.
    end: usize,
    example: &'static str,
}

impl<'t> Words<'t> {
    fn new(text: &'t str) -> Self {
        let words = split(text).into_iter().peekable();
        Words { words, end: text.trim_end().chars().count() + 1, example: EXAMPLE }
    }

    fn next(&mut self, what: &str) -> Result<Word<'t>, WordsError> {
        self.words.next().ok_or_else(|| self.wrong(self.end, format!("{what} is missing")))
    }

    fn wrong(&self, column: usize, what: String) -> WordsError {
        WordsError { column, what, example: self.example }
    }

    /// Returns the error about a word.
    fn not(&self, word: Word<'_>, what: &str) -> WordsError {
        self.wrong(word.column, format!("{:?} is {what}", word.text))
    }

    fn number(&mut self, name: &str, most: u32) -> Result<u32, WordsError> {
        let word = self.next(&format!("the number after `{name}`"))?;
        let number = word.text.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.text.parse().ok()).flatten();
        let within = number.filter(|number| *number <= most);
        within.ok_or_else(|| self.not(word, &format!("not a number from 0 to {most}, which `{name}` needs")))
    }
}

/// Splits at blanks, `+`, `=` and `,`; an arrow is a word even without blanks around it.
fn split(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let (mut column, mut begin) = (1, None);
    let mut close = |begin: &mut Option<(usize, usize)>, end: usize| {
        if let Some((start, column)) = begin.take() {
            words.push(Word { text: &text[start..end], column });
        }
    };
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '-' && chars.peek().is_some_and(|(_, next)| *next == '>') {
            close(&mut begin, at);
            begin = Some((at, column));
            chars.next();
            column += 1;
            close(&mut begin, at + 2);
        } else if c.is_whitespace() || matches!(c, '+' | '=' | ',') {
            close(&mut begin, at);
        } else if begin.is_none() {
            begin = Some((at, column));
        }
        column += 1;
    }
    close(&mut begin, text.len());
    words
}

impl FromStr for PacketWords {
    type Err = WordsError;

    fn from_str(text: &str) -> Result<Self, WordsError> {
        let mut words = Words::new(text);
        let word = words.next("the packet")?;
        let found = protocol(word.text).ok_or_else(|| {
            words.not(word, "not a protocol: use tcp, udp, icmp, sctp, gre, esp, ipip, or a number such as ip-89")
        })?;
        words.example = example(found);
        let src = end(&mut words, found, "source")?;
        let arrow = words.next("the arrow `->`")?;
        if arrow.text != "->" {
            return Err(words.not(arrow, "not the arrow `->` between source and destination"));
        }
        let column = words.words.peek().map_or(words.end, |word| word.column);
        let dst = end(&mut words, found, "destination")?;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(words.wrong(column, "source and destination are of different IP families".into()));
        }
        let transport = Transport::opening(found);
        let usual = transport.usual_len();
        let mut packet = PacketWords { src, dst, transport, len: usual, ttl: TTL, df: false, ingress: None };
        options(&mut words, &mut packet)?;
        Ok(packet)
    }
}

fn protocol(word: &str) -> Option<Protocol> {
    match word.to_ascii_lowercase().as_str() {
        "icmpv6" | "icmp6" => Some(Protocol::Icmp),
        word => Protocol::from_name(word),
    }
}

/// Reads an end: with a port where the protocol has them.
fn end(words: &mut Words<'_>, protocol: Protocol, which: &str) -> Result<SocketAddr, WordsError> {
    let word = words.next(&format!("the {which} address"))?;
    let (address, with_port) = (word.text.trim_start_matches('[').trim_end_matches(']'), word.text.parse());
    let address = address.parse::<IpAddr>();
    let name = protocol.name();
    match protocol {
        Protocol::Icmp | Protocol::Ip(_) => match (address, with_port) {
            (Ok(address), _) => Ok(SocketAddr::new(address, 0)),
            (_, Ok(SocketAddr::V4(_) | SocketAddr::V6(_))) => {
                Err(words.not(word, &format!("an address with a port, but {name} has no ports")))
            }
            _ => Err(words.not(word, &format!("not the {which} address"))),
        },
        _ => match (with_port, address) {
            (Ok(end), _) => Ok(end),
            (_, Ok(IpAddr::V4(_))) => Err(words.not(word, "an address without a port: write ADDRESS:PORT")),
            (_, Ok(IpAddr::V6(_))) => {
                Err(words.not(word, "an IPv6 address without a port in brackets: write [ADDRESS]:PORT"))
            }
            _ => Err(words.not(word, &format!("not the {which} as ADDRESS:PORT"))),
        },
    }
}

/// Reads what follows the two ends.
fn options(words: &mut Words<'_>, packet: &mut PacketWords) -> Result<(), WordsError> {
    let v4 = packet.src.is_ipv4();
    let header = packet.transport.header() + if v4 { 20 } else { 40 };
    let mut flags = None;
    let mut given: Vec<String> = Vec::new();
    while let Some(word) = words.words.next() {
        let mut name = word.text.to_ascii_lowercase();
        let is_number = words.words.peek().is_some_and(|next| next.text.bytes().all(|byte| byte.is_ascii_digit()));
        match (&mut packet.transport, name.as_str()) {
            (Transport::Tcp { ack, .. }, "ack") if is_number => {
                *ack = words.number("ack", u32::MAX)?;
                flags = Some(flags.unwrap_or(0) | TcpFlags::ACK);
                name = "ack N".into();
            }
            (Transport::Tcp { seq, .. }, "seq") => *seq = words.number("seq", u32::MAX)?,
            (Transport::Tcp { .. }, flag) if FLAGS.iter().any(|(known, _)| *known == flag) => {
                let bits = FLAGS.iter().filter(|(known, _)| *known == flag).map(|(_, bit)| bit);
                flags = Some(bits.fold(flags.unwrap_or(0), |all, bit| all | bit));
            }
            (Transport::Echo { id, .. }, "id") => *id = words.number("id", u16::MAX.into())? as u16,
            (Transport::Echo { seq, .. }, "seq") => *seq = words.number("seq", u16::MAX.into())? as u16,
            (Transport::Echo { reply, .. }, "reply") => *reply = true,
            (Transport::Echo { .. }, "echo" | "request") => {}
            (_, "len") => {
                packet.len = words.number("len", (LONGEST - header) as u32)? as u16;
                if packet.len == 0 && header == 40 {
                    return Err(words.not(word, "0, but an IPv6 packet carries at least one byte"));
                }
            }
            (_, "ttl" | "hop-limit") => {
                packet.ttl = words.number(&name, u8::MAX.into())? as u8;
                name = "ttl".into();
            }
            (_, "df") if v4 => packet.df = true,
            (_, "df") => return Err(words.not(word, "a flag of IPv4; routers never fragment IPv6 packets")),
            (_, "ingress") => packet.ingress = Some(words.next("the interface after `ingress`")?.text.into()),
            (transport, _) => {
                let all = allowed(transport);
                return Err(words.not(word, &format!("not an option of {}: {all}", transport.protocol().name())));
            }
        }
        if given.contains(&name) {
            return Err(words.wrong(word.column, format!("`{name}` is given twice")));
        }
        given.push(name);
    }
    if let (Transport::Tcp { flags: all, .. }, Some(flags)) = (&mut packet.transport, flags) {
        *all = TcpFlags(flags);
    }
    Ok(())
}

/// Returns the options of a protocol, for errors.
fn allowed(transport: &Transport) -> &'static str {
    match transport {
        Transport::Tcp { .. } => {
            "use syn, ack, fin, rst, psh, urg, ece, cwr, seq N, ack N, len N, ttl N, df or ingress NAME"
        }
        Transport::Echo { .. } => "use reply, id N, seq N, len N, ttl N, df or ingress NAME",
        Transport::Udp | Transport::Sctp | Transport::Ip(_) => "use len N, ttl N, df or ingress NAME",
    }
}
