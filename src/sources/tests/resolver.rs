//! A resolver that answers truthfully, or otherwise.

use super::super::Over;
use domain::base::iana::Rcode;
use domain::base::name::FlattenInto;
use domain::base::{Message, MessageBuilder, Name, Rtype, Ttl};
use domain::rdata::{A, Aaaa, Cname, Srv};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

type Text = Name<Vec<u8>>;

/// What the resolver does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Say {
    #[default]
    Truth,
    Silence,
    Unreachable,
    Rcode(u8),
    Empty,
    Garbage,
    /// Over UDP only.
    Truncated,
    OtherLetters,
    Strangers,
    NoEdns,
}

pub(super) enum Answers {
    Nothing,
    Fails(&'static str),
    Messages(Vec<Vec<u8>>),
}

/// What there is to know, about one service.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) services: Vec<(u16, u16, u16, String)>,
    pub(super) addresses: Vec<(String, IpAddr)>,
    pub(super) aliases: Vec<(String, String)>,
    /// Targets whose addresses come with the service.
    pub(super) additional: Vec<String>,
    /// Names about which there is no answer.
    pub(super) mute: Vec<String>,
    pub(super) dead: Vec<SocketAddr>,
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
    pub(super) ttl: u32,
    pub(super) say: Say,
    pub(super) received: Vec<(SocketAddr, Over, Vec<u8>)>,
}

impl Default for Zone {
    fn default() -> Self {
        Zone {
            services: Vec::new(),
            addresses: Vec::new(),
            aliases: Vec::new(),
            additional: Vec::new(),
            mute: Vec::new(),
            dead: Vec::new(),
            files: BTreeMap::new(),
            ttl: 60,
            say: Say::Truth,
            received: Vec::new(),
        }
    }
}

/// The question of a message, in lower case: `a.example A`.
pub(super) fn question(message: &[u8]) -> String {
    let message = Message::from_octets(message).unwrap();
    let question = message.sole_question().unwrap();
    format!("{} {}", question.qname().to_string().to_lowercase(), question.qtype())
}

fn name(text: &str) -> Text {
    Text::vec_from_str(&format!("{}.", text.trim_end_matches('.'))).unwrap()
}

impl Zone {
    pub(super) fn srv(&mut self, priority: u16, weight: u16, port: u16, target: &str) -> &mut Self {
        self.services.push((priority, weight, port, target.into()));
        self
    }

    pub(super) fn a(&mut self, name: &str, address: &str) -> &mut Self {
        self.addresses.push((name.to_lowercase(), address.parse().unwrap()));
        self
    }

    pub(super) fn cname(&mut self, from: &str, to: &str) -> &mut Self {
        self.aliases.push((from.into(), to.into()));
        self
    }

    pub(super) fn file(&mut self, path: &str, text: &str) {
        self.files.insert(path.into(), text.into());
    }

    pub(super) fn answer(&mut self, to: SocketAddr, over: Over, query: &[u8]) -> Answers {
        self.received.push((to, over, query.to_vec()));
        let message = Message::from_octets(query).unwrap();
        assert!(message.header().rd() && !message.header().qr());
        let asked = message.sole_question().unwrap();
        let lower = asked.qname().to_string().trim_end_matches('.').to_lowercase();
        if self.dead.contains(&to) || self.mute.contains(&lower) {
            return Answers::Nothing;
        }
        let truth = self.truth(&message, &lower);
        let one = |bytes: Vec<u8>| Answers::Messages(vec![bytes]);
        let with = |change: fn(&mut Vec<u8>)| {
            let mut bytes = truth.clone();
            change(&mut bytes);
            bytes
        };
        match (self.say, over) {
            (Say::Silence, _) => Answers::Nothing,
            (Say::Unreachable, _) => Answers::Fails("connection refused"),
            (Say::Rcode(code), _) => {
                let start = MessageBuilder::new_vec().start_answer(&message, Rcode::checked_from_int(code).unwrap());
                one(start.unwrap().finish())
            }
            (Say::Empty, _) => one(MessageBuilder::new_vec().start_answer(&message, Rcode::NOERROR).unwrap().finish()),
            // The first answer says that it is longer than it is.
            (Say::Garbage, _) => {
                one([&query[..2], &[0x81, 0x80], &query[4..6], &[0, 9, 0, 0, 0, 0], &query[12..]].concat())
            }
            (Say::Truncated, Over::Udp) => one(with(|bytes| {
                bytes[2] |= 2;
                bytes.truncate(bytes.len() - 3);
            })),
            (Say::OtherLetters, Over::Udp) => one(with(|bytes| {
                // The first letter of the question.
                let letter = bytes.iter_mut().skip(12).find(|byte| byte.is_ascii_alphabetic()).unwrap();
                *letter ^= 0x20;
            })),
            (Say::Strangers, Over::Udp) => {
                let ids = (1..=8)
                    .map(|n| [&(u16::from_be_bytes([query[0], query[1]]) ^ n).to_be_bytes()[..], &truth[2..]].concat());
                Answers::Messages(ids.collect())
            }
            (Say::NoEdns, _) if message.opt().is_some() => {
                one([&query[..2], &[0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0][..]].concat())
            }
            _ => one(truth),
        }
    }

    fn truth(&self, query: &Message<&[u8]>, lower: &str) -> Vec<u8> {
        let ttl = Ttl::from_secs(self.ttl);
        let question = query.sole_question().unwrap();
        let asked: Text = (*question.qname()).try_flatten_into().unwrap();
        let mut answer = MessageBuilder::new_vec().start_answer(query, Rcode::NOERROR).unwrap();
        let mut owner = (asked, lower.to_owned());
        while let Some((_, to)) = self.aliases.iter().find(|(from, _)| *from == owner.1) {
            answer.push((&owner.0, ttl, Cname::new(name(to)))).unwrap();
            owner = (name(to), to.clone());
        }
        if question.qtype() == Rtype::SRV {
            for (priority, weight, port, target) in &self.services {
                answer.push((&owner.0, ttl, Srv::new(*priority, *weight, *port, name(target)))).unwrap();
            }
        }
        for (_, address) in self.addresses.iter().filter(|(of, _)| *of == owner.1) {
            match address {
                IpAddr::V4(v4) if question.qtype() == Rtype::A => answer.push((&owner.0, ttl, A::new(*v4))).unwrap(),
                IpAddr::V6(v6) if question.qtype() == Rtype::AAAA => {
                    answer.push((&owner.0, ttl, Aaaa::new(*v6))).unwrap()
                }
                _ => {}
            }
        }
        let mut additional = answer.additional();
        for (of, address) in self.addresses.iter().filter(|(of, _)| self.additional.contains(of)) {
            if let IpAddr::V4(v4) = address {
                additional.push((name(of), ttl, A::new(*v4))).unwrap();
            }
        }
        additional.finish()
    }
}
