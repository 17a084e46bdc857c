//! DNS messages: a query out, an answer in (RFC 1035, RFC 2782, RFC 3596, RFC 6891).
//!
//! It must not know resolvers, attempts or times.

use domain::base::iana::Rcode;
use domain::base::name::{ParsedName, ToLabelIter};
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::{A, Aaaa, Cname, Srv};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The size of answers over UDP that is asked for: fits every path without fragments (DNS flag day 2020).
const UDP_SIZE: u16 = 1232;
/// Most records of an answer that are used.
pub(super) const MOST_RECORDS: usize = 4096;
/// Most addresses of one SRV target, per family.
pub(super) const MOST_ADDRESSES: usize = 16;

/// A name as it is asked for.
pub(super) type Asked = Name<Vec<u8>>;

/// Most aliases (CNAME) of an answer; resolvers give up earlier.
const MOST_ALIASES: usize = 32;

/// A name and what it is an alias of.
type Alias<'m> = (ParsedName<&'m [u8]>, ParsedName<&'m [u8]>);

/// What is asked about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Services,
    V4,
    V6,
}

impl Kind {
    /// The addresses of a family.
    pub(super) const fn addresses(v6: bool) -> Self {
        if v6 { Kind::V6 } else { Kind::V4 }
    }

    const fn rtype(self) -> Rtype {
        match self {
            Kind::Services => Rtype::SRV,
            Kind::V4 => Rtype::A,
            Kind::V6 => Rtype::AAAA,
        }
    }

    /// The type as operators write it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Services => "SRV",
            Kind::V4 => "A",
            Kind::V6 => "AAAA",
        }
    }
}

/// Reads a name as an operator writes it, with or without the final dot; `None` if it is no domain name.
pub(super) fn name(text: &str) -> Option<Asked> {
    let text = text.strip_suffix('.').unwrap_or(text);
    // The notation of the library has escapes, which no name of a server needs.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(plain) {
        return None;
    }
    Asked::vec_from_str(&format!("{text}.")).ok()
}

/// Sets the case of each letter by a bit: an answer that was not seen to be asked for does not repeat them (0x20).
pub(super) fn mix_case(name: &Asked, mut bits: impl FnMut() -> u64) -> Asked {
    let mut octets = name.as_slice().to_vec();
    let mut left = (0, 0);
    // Lengths of labels are at most 63, below every letter.
    for byte in octets.iter_mut().filter(|byte| byte.is_ascii_alphabetic()) {
        if left.1 == 0 {
            left = (bits(), u64::BITS);
        }
        *byte = if left.0 & 1 == 0 { byte.to_ascii_lowercase() } else { byte.to_ascii_uppercase() };
        left = (left.0 >> 1, left.1 - 1);
    }
    Asked::from_octets(octets).unwrap_or_else(|_| name.clone())
}

/// Builds a recursive query, with or without EDNS.
pub(super) fn query(id: u16, name: &Asked, kind: Kind, edns: bool) -> Vec<u8> {
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(id);
    message.header_mut().set_rd(true);
    let mut question = message.question();
    // A vector takes everything, and one question and one option are far below 64 KiB.
    let pushed = question.push((name, kind.rtype()));
    debug_assert!(pushed.is_ok());
    let mut additional = question.additional();
    if edns {
        let pushed = additional.opt(|opt| {
            opt.set_udp_payload_size(UDP_SIZE);
            Ok(())
        });
        debug_assert!(pushed.is_ok());
    }
    additional.finish()
}

/// What was received for a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// It does not belong to the query.
    Stranger,
    /// It repeats the question in other letters.
    OtherLetters,
    /// It did not fit, and is to be asked for over TCP.
    Truncated,
    /// The resolver refuses or fails.
    Refused(&'static str),
    /// The resolver does not know EDNS.
    NoEdns,
    /// It cannot be parsed.
    Malformed,
    /// The name exists, or does not.
    Answer(Answer),
}

/// A usable answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) records: Records,
    /// The least time to live of all records used, in seconds; none if there are none.
    pub(super) ttl: Option<u32>,
}

/// The records of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Records {
    /// There is no such name (NXDOMAIN).
    NoName,
    /// Those of SRV; empty if there are none.
    Services {
        targets: Vec<Target>,
        /// What the additional section says about targets: by name, and family, IPv4 first.
        known: BTreeMap<String, [Vec<IpAddr>; 2]>,
    },
    /// Addresses of one family; empty if there are none.
    Addresses(Vec<IpAddr>),
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) priority: u16,
    /// The name in lower case, without the final dot.
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) weight: u16,
}

/// Reads what came for a query; `over_udp` demands the same letters as were asked.
pub(super) fn read(bytes: &[u8], id: u16, asked: &Asked, kind: Kind, over_udp: bool) -> Received {
    let Ok(message) = Message::from_octets(bytes) else { return Received::Stranger };
    let header = message.header();
    if header.id() != id || !header.qr() || header.opcode() != domain::base::iana::Opcode::QUERY {
        return Received::Stranger;
    }
    let rcode = header.rcode();
    match message.sole_question() {
        Ok(question) => {
            let name = question.qname();
            if question.qtype() != kind.rtype() || name != asked {
                return Received::Stranger;
            }
            let letters = |one: &ParsedName<&[u8]>| one.iter_labels().flat_map(|l| l.as_slice().to_vec()).collect();
            let repeated: Vec<u8> = letters(name);
            let wanted: Vec<u8> = asked.iter_labels().flat_map(|label| label.as_slice().to_vec()).collect();
            if over_udp && repeated != wanted {
                return Received::OtherLetters;
            }
        }
        // A refusal need not repeat the question, and settles nothing.
        Err(_) if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN => {}
        Err(_) => return Received::Stranger,
    }
    if header.tc() {
        return if over_udp { Received::Truncated } else { Received::Malformed };
    }
    match rcode {
        Rcode::NOERROR => records(&message, kind).map_or(Received::Malformed, Received::Answer),
        Rcode::NXDOMAIN => Received::Answer(Answer { records: Records::NoName, ttl: None }),
        Rcode::FORMERR | Rcode::NOTIMP => Received::NoEdns,
        Rcode::SERVFAIL => Received::Refused("server failure (SERVFAIL)"),
        Rcode::REFUSED => Received::Refused("refused (REFUSED)"),
        _ => Received::Refused("an unexpected response code"),
    }
}

/// The least of times to live.
struct Ttl(Option<u32>);

impl Ttl {
    fn take(&mut self, ttl: u32) {
        // RFC 2181, section 8: the top bit means 0.
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
        self.0 = Some(self.0.map_or(ttl, |least| least.min(ttl)));
    }
}

/// Reads the records of an answer; `None` if they cannot be parsed.
fn records(message: &Message<&[u8]>, kind: Kind) -> Option<Answer> {
    // Every record must parse: half an answer is not a shorter list.
    let mut aliases = 0;
    for record in message.answer().ok()? {
        // Packets wait while an answer is read: what is no chain of aliases is not followed.
        aliases += usize::from(record.ok()?.rtype() == Rtype::CNAME);
        if aliases > MOST_ALIASES {
            return None;
        }
    }
    let mut ttl = Ttl(None);
    let mut chain = Vec::with_capacity(aliases);
    for cname in message.answer().ok()?.limit_to_in::<Cname<_>>() {
        let cname = cname.ok()?;
        ttl.take(cname.ttl().as_secs());
        chain.push((*cname.owner(), *cname.data().cname()));
    }
    let owner = canonical(message.first_question()?.into_qname(), &chain)?;
    let records = match kind {
        Kind::Services => {
            let mut targets = Vec::new();
            for record in message.answer().ok()?.limit_to_in::<Srv<_>>() {
                let record = record.ok()?;
                if *record.owner() == owner && targets.len() < MOST_RECORDS {
                    ttl.take(record.ttl().as_secs());
                    targets.extend(target(record.data()));
                }
            }
            targets.sort_unstable();
            targets.dedup();
            let known = additional(message, &targets, &mut ttl);
            Records::Services { targets, known }
        }
        Kind::V4 | Kind::V6 => {
            let mut addresses = Vec::new();
            let mut take = |of: &ParsedName<&[u8]>, seconds: u32, address: IpAddr| {
                if *of == owner && addresses.len() < MOST_RECORDS {
                    ttl.take(seconds);
                    addresses.push(address);
                }
            };
            if kind == Kind::V4 {
                for record in message.answer().ok()?.limit_to_in::<A>() {
                    let record = record.ok()?;
                    take(record.owner(), record.ttl().as_secs(), record.data().addr().into());
                }
            } else {
                for record in message.answer().ok()?.limit_to_in::<Aaaa>() {
                    let record = record.ok()?;
                    take(record.owner(), record.ttl().as_secs(), record.data().addr().into());
                }
            }
            addresses.sort_unstable();
            addresses.dedup();
            Records::Addresses(addresses)
        }
    };
    Some(Answer { records, ttl: ttl.0 })
}

/// Follows aliases from a name; `None` if they lead in circles.
fn canonical<'m>(mut name: ParsedName<&'m [u8]>, chain: &[Alias<'m>]) -> Option<ParsedName<&'m [u8]>> {
    for _ in 0..=chain.len() {
        match chain.iter().find(|(owner, _)| *owner == name) {
            Some((_, target)) => name = *target,
            None => return Some(name),
        }
    }
    None
}

/// Reads an SRV record; `None` where its target is the root: the service is not there (RFC 2782).
fn target(srv: &Srv<ParsedName<&[u8]>>) -> Option<Target> {
    let name = text(srv.target());
    let (priority, weight, port) = (srv.priority(), srv.weight(), srv.port());
    (!name.is_empty()).then_some(Target { priority, name, port, weight })
}

/// A name in lower case, without the final dot; empty for the root.
fn text(name: &ParsedName<&[u8]>) -> String {
    name.to_string().trim_end_matches('.').to_ascii_lowercase()
}

/// Reads what the additional section says about targets. What cannot be parsed there says nothing.
fn additional(message: &Message<&[u8]>, targets: &[Target], ttl: &mut Ttl) -> BTreeMap<String, [Vec<IpAddr>; 2]> {
    let mut known: BTreeMap<String, [Vec<IpAddr>; 2]> =
        targets.iter().map(|target| (target.name.clone(), Default::default())).collect();
    let mut take = |of: &ParsedName<&[u8]>, seconds: u32, address: IpAddr| {
        let Some(addresses) = known.get_mut(&text(of)) else { return };
        let addresses = &mut addresses[usize::from(address.is_ipv6())];
        if addresses.len() < MOST_ADDRESSES && !addresses.contains(&address) {
            ttl.take(seconds);
            addresses.push(address);
        }
    };
    let Ok(section) = message.additional() else { return known };
    for record in section.limit_to_in::<A>().flatten() {
        take(record.owner(), record.ttl().as_secs(), record.data().addr().into());
    }
    for record in section.limit_to_in::<Aaaa>().flatten() {
        take(record.owner(), record.ttl().as_secs(), record.data().addr().into());
    }
    known.values_mut().flatten().for_each(|addresses| addresses.sort_unstable());
    known
}
