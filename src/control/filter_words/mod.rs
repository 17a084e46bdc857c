//! Conditions on flows in words, as packet filters have them: `host 192.0.2.7 and not port 443`.
//!
//! ```text
//!  [src|dst] host ADDRESS           [src|dst] net NETWORK          [src|dst] port PORT | portrange FIRST-LAST
//!  service NAME   server POOL/SERVER   pool NAME   rule NAME   proto NAME   state NAME
//!  tcp udp icmp sctp gre ...        each also before host, net and port: tcp port 443
//!  and &&   or ||   not !   ( )     `port 80 or 443` repeats the word before
//! ```
//!
//! Where `and` and `or` meet, parentheses are required: packet filters give them equal precedence, most other languages
//! do not, and a filter may say which connections end. [`read`] takes the words apart. It must not know flows.

mod read;

pub use read::FilterError;

use crate::engine::Filter;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a name in a filter is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameOf {
    Service,
    Server,
    Pool,
    Rule,
}

/// A name in a filter, with its column in characters, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) column: usize,
    pub(super) of: NameOf,
    pub(super) name: String,
}

/// A condition on flows. It is written as its words, also in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilterWords {
    text: String,
    filter: Filter,
    names: Vec<Name>,
}

impl FilterWords {
    /// Returns the condition.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(super) fn names(&self) -> &[Name] {
        &self.names
    }

    /// Returns the error about a name.
    pub(super) fn wrong(&self, name: &Name, what: String) -> FilterError {
        FilterError { text: self.text.clone(), column: name.column, what }
    }
}

impl fmt::Display for FilterWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for FilterWords {
    type Error = FilterError;

    fn try_from(text: String) -> Result<Self, FilterError> {
        text.parse()
    }
}

impl From<FilterWords> for String {
    fn from(words: FilterWords) -> String {
        words.text
    }
}

#[cfg(test)]
mod tests;
