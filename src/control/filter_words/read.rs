//! Reads the words of a filter, and says where one of them is wrong.

use super::{FilterWords, Name, NameOf};
use crate::balance::Protocol;
use crate::config::closest;
use crate::engine::{Ends, Filter};
use crate::flow::TimeoutState;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Most parentheses and `not` within each other.
const DEEPEST: usize = 32;
/// Most characters of a filter.
const LONGEST: usize = 4096;

/// A word that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// The filter.
    pub text: String,
    /// Column in characters, from 1.
    pub column: usize,
    /// The error, and what is allowed.
    pub what: String,
}

/// Three lines: what is wrong, the filter, and a mark below the place.
impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.replace(char::is_control, " ");
        let FilterError { column, what, .. } = self;
        write!(f, "column {column} of the filter: {what}\n  {text}\n  {:>column$}", "^")
    }
}

impl std::error::Error for FilterError {}

/// A word and its column.
#[derive(Debug, Clone, Copy)]
struct Word<'t> {
    text: &'t str,
    column: usize,
}

/// The words that begin a condition, other than protocols.
const CONDITIONS: [&str; 13] =
    ["src", "dst", "host", "net", "port", "portrange", "service", "server", "pool", "rule", "proto", "state", "client"];

/// What a condition asks for: its word, and the ends that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asks<'t> {
    word: &'t str,
    ends: Ends,
}

struct Reader<'t> {
    text: &'t str,
    words: Vec<Word<'t>>,
    at: usize,
    depth: usize,
    /// What the last condition asked for: `port 80 or 443` repeats it.
    last: Option<Asks<'t>>,
    names: Vec<Name>,
}

/// Splits at blanks; parentheses and `!` are words without blanks around them.
fn split(text: &str) -> Vec<Word<'_>> {
    let (mut words, mut begin) = (Vec::new(), None::<(usize, usize)>);
    let mut column = 0;
    for (at, c) in text.char_indices() {
        column += 1;
        let alone = matches!(c, '(' | ')' | '!');
        if let Some((start, column)) = begin.filter(|_| alone || c.is_whitespace()) {
            words.push(Word { text: &text[start..at], column });
            begin = None;
        }
        if alone {
            words.push(Word { text: &text[at..at + 1], column });
        } else if begin.is_none() && !c.is_whitespace() {
            begin = Some((at, column));
        }
    }
    if let Some((start, column)) = begin {
        words.push(Word { text: &text[start..], column });
    }
    words
}

fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "icmpv6" | "icmp6" => Some(Protocol::Icmp),
        word => Protocol::from_name(word),
    }
}

fn is_word(word: &str) -> bool {
    matches!(word, "and" | "&&" | "or" | "||" | "not" | "!" | "(" | ")")
        || CONDITIONS.contains(&word)
        || protocol(word).is_some()
}

impl<'t> Reader<'t> {
    fn error<T>(&self, column: usize, what: impl Into<String>) -> Result<T, FilterError> {
        Err(FilterError { text: self.text.into(), column, what: what.into() })
    }

    fn end(&self) -> usize {
        self.text.trim_end().chars().count() + 1
    }

    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.at).map(|word| word.text)
    }

    fn next(&mut self, what: &str) -> Result<Word<'t>, FilterError> {
        match self.words.get(self.at) {
            Some(word) => {
                self.at += 1;
                Ok(*word)
            }
            None => self.error(self.end(), format!("{what} is missing")),
        }
    }

    /// Reads conditions joined by `and` or by `or`.
    fn joined(&mut self) -> Result<Filter, FilterError> {
        let mut all = vec![self.single()?];
        let mut by: Option<bool> = None;
        while let Some(word) = self.words.get(self.at).copied() {
            let is_and = match word.text {
                "and" | "&&" => true,
                "or" | "||" => false,
                ")" => break,
                other => {
                    let what = format!("{other:?} where `and`, `or` or the end should be");
                    return self.error(word.column, what);
                }
            };
            if by.is_some_and(|by| by != is_and) {
                return self.error(word.column, "`and` and `or` meet here: say with parentheses which belong together");
            }
            by = Some(is_and);
            self.at += 1;
            all.push(self.single()?);
        }
        Ok(match by {
            None => all.remove(0),
            Some(true) => Filter::And(all),
            Some(false) => Filter::Or(all),
        })
    }

    /// Reads one condition, or several in parentheses.
    fn single(&mut self) -> Result<Filter, FilterError> {
        let word = self.next("a condition")?;
        match word.text {
            "not" | "!" | "(" if self.depth == DEEPEST => {
                self.error(word.column, format!("more than {DEEPEST} parentheses or `not` within each other"))
            }
            "not" | "!" => {
                self.depth += 1;
                let negated = self.single()?;
                self.depth -= 1;
                Ok(Filter::Not(Box::new(negated)))
            }
            "(" => {
                self.depth += 1;
                let inner = self.joined()?;
                self.depth -= 1;
                match self.next("the closing parenthesis")? {
                    Word { text: ")", .. } => Ok(inner),
                    word => self.error(word.column, format!("{:?} where `)` should be", word.text)),
                }
            }
            text if CONDITIONS.contains(&text) => {
                self.at -= 1;
                let asks = self.asks()?;
                self.condition(asks)
            }
            text => match (protocol(text), self.last) {
                (Some(protocol), _) => self.of_protocol(protocol),
                (None, Some(asks)) if !is_word(text) => {
                    self.at -= 1;
                    self.condition(asks)
                }
                _ => self.unknown(word),
            },
        }
    }

    /// Reads what follows a protocol: `tcp port 443` is `tcp and port 443`.
    fn of_protocol(&mut self, protocol: Protocol) -> Result<Filter, FilterError> {
        let is = Filter::Protocol(protocol);
        if !matches!(self.peek(), Some("src" | "dst" | "host" | "net" | "port" | "portrange")) {
            return Ok(is);
        }
        let asks = self.asks()?;
        Ok(Filter::And(vec![is, self.condition(asks)?]))
    }

    /// Reads what a condition asks for: `port`, `src net`.
    fn asks(&mut self) -> Result<Asks<'t>, FilterError> {
        let word = self.next("a condition")?;
        let ends = match word.text {
            "src" => Ends::Source,
            "dst" => Ends::Destination,
            text => return Ok(Asks { word: text, ends: Ends::All }),
        };
        match self.peek() {
            Some(text @ ("host" | "net" | "port" | "portrange")) => {
                self.at += 1;
                Ok(Asks { word: text, ends })
            }
            // As packet filters have it, `src 192.0.2.7` is `src host 192.0.2.7`.
            Some(text) if text.parse::<IpAddr>().is_ok() => Ok(Asks { word: "host", ends }),
            Some(text) if text.parse::<IpNet>().is_ok() => Ok(Asks { word: "net", ends }),
            _ => {
                let column = self.words.get(self.at).map_or(self.end(), |word| word.column);
                self.error(column, format!("`{}` needs host, net, port or portrange after it", word.text))
            }
        }
    }

    /// Reads the value of a condition.
    fn condition(&mut self, asks: Asks<'t>) -> Result<Filter, FilterError> {
        let word = self.next(&format!("the value after `{}`", asks.word))?;
        self.last = Some(asks);
        let text = self.text;
        let wrong = |what: &str| {
            let what = format!("{:?} is {what}", word.text);
            Err(FilterError { text: text.into(), column: word.column, what })
        };
        let mut name = |of, made: fn(String) -> Filter| {
            self.names.push(Name { column: word.column, of, name: word.text.into() });
            Ok(made(word.text.into()))
        };
        match asks.word {
            "host" => match word.text.parse::<IpAddr>() {
                Ok(address) => Ok(Filter::Net(asks.ends, address.into())),
                Err(_) if word.text.parse::<IpNet>().is_ok() => wrong("a network: write net before it"),
                Err(_) => wrong("not an address"),
            },
            "net" => match word.text.parse::<IpNet>() {
                Ok(net) if net.trunc() != net => wrong(&format!("not a network: did you mean {}?", net.trunc())),
                Ok(net) => Ok(Filter::Net(asks.ends, net)),
                Err(_) if word.text.parse::<IpAddr>().is_ok() => wrong("an address: write host before it"),
                Err(_) => wrong("not a network such as 192.0.2.0/24"),
            },
            // The client alone, as the option of that name has it.
            "client" => match word.text.parse::<IpNet>().or_else(|_| word.text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(net) => Ok(Filter::Client(net)),
                Err(_) => wrong("neither an address nor a network"),
            },
            "port" | "portrange" => match ports(word.text) {
                Some((first, last)) => Ok(Filter::Ports(asks.ends, first, last)),
                None => wrong("not a port from 0 to 65535, nor a range such as 8000-8099"),
            },
            "proto" => match protocol(word.text) {
                Some(protocol) => Ok(Filter::Protocol(protocol)),
                None => wrong("not a protocol: use tcp, udp, icmp, sctp, gre, esp, ipip or a number such as ip-89"),
            },
            "state" => match TimeoutState::ALL.into_iter().find(|state| state.name() == word.text) {
                Some(state) => Ok(Filter::State(state)),
                None => wrong(&format!("not a state: use {}", TimeoutState::ALL.map(TimeoutState::name).join(", "))),
            },
            "service" => name(NameOf::Service, Filter::Service),
            "server" => name(NameOf::Server, Filter::Server),
            "pool" => name(NameOf::Pool, Filter::Pool),
            _ => name(NameOf::Rule, Filter::Rule),
        }
    }

    fn unknown<T>(&self, word: Word<'_>) -> Result<T, FilterError> {
        let known = CONDITIONS.into_iter().chain(["and", "or", "not", "tcp", "udp", "icmp", "sctp"]);
        let hint = match closest(word.text, known) {
            Some(near) => format!("did you mean {near}?"),
            None if word.text.parse::<IpAddr>().is_ok() => "write host before an address".into(),
            None if word.text.parse::<IpNet>().is_ok() => "write net before a network".into(),
            None if word.text.parse::<u16>().is_ok() => "write port before a port".into(),
            None => format!("use a protocol, {}, not, or parentheses", CONDITIONS.join(", ")),
        };
        self.error(word.column, format!("{:?} is not a condition: {hint}", word.text))
    }
}

fn ports(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => number(first).zip(number(last)).filter(|(first, last)| first <= last),
    }
}

impl FromStr for FilterWords {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut reader = Reader { text, words: split(text), at: 0, depth: 0, last: None, names: Vec::new() };
        if text.chars().count() > LONGEST {
            let (text, column) = (text.chars().take(40).collect(), 1);
            return Err(FilterError { text, column, what: format!("the filter is longer than {LONGEST} characters") });
        }
        let filter = reader.joined()?;
        if let Some(word) = reader.words.get(reader.at) {
            return reader.error(word.column, "a closing parenthesis without an opening one");
        }
        Ok(FilterWords { text: text.into(), filter, names: reader.names })
    }
}
