//! Matching of replies against the expectation of a monitor. Expectations come from the operator, bytes from a server.
//!
//! Replies are bytes, so this uses the crate `regex` and not `regex-lite`, which only supports `str`; without Unicode
//! tables, `\d` and `\w` are ASCII. The time of a match is linear in the bytes, whatever the expression.

use super::settings::Expect;
use regex::bytes::{Regex, RegexBuilder};

/// Maximum size of a compiled expression in bytes.
const MOST_SIZE: usize = 1 << 20;

/// Compiles a regular expression over bytes.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(MOST_SIZE)
        .build()
        .map_err(|error| format!("the regular expression `{pattern}` does not compile: {error}"))
}

/// A compiled expectation.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    Prefix(Vec<u8>),
    Contains(Vec<u8>),
    Regex(Regex),
}

impl Matcher {
    pub(super) fn new(expect: &Expect) -> Result<Self, String> {
        Ok(match expect {
            Expect::Prefix(bytes) => Matcher::Prefix(bytes.clone()),
            Expect::Contains(bytes) => Matcher::Contains(bytes.clone()),
            Expect::Regex(pattern) => Matcher::Regex(compile(pattern)?),
        })
    }

    pub(super) fn matches(&self, bytes: &[u8]) -> bool {
        match self {
            Matcher::Prefix(prefix) => bytes.starts_with(prefix),
            Matcher::Contains(part) => part.is_empty() || bytes.windows(part.len()).any(|window| window == part),
            Matcher::Regex(regex) => regex.is_match(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_match_by_prefix_part_or_expression() {
        let cases = [
            (Expect::Prefix(b"ok".into()), &b"okay"[..], true),
            (Expect::Prefix(b"ok".into()), b" ok", false),
            (Expect::Prefix(vec![]), b"", true),
            (Expect::Contains(b"ready".into()), b"we are ready.", true),
            (Expect::Contains(b"ready".into()), b"read", false),
            (Expect::Contains(vec![]), b"", true),
            (Expect::Regex(r"^status: \d+$".into()), b"status: 12", true),
            (Expect::Regex(r"^status: \d+$".into()), b"status: x", false),
            (Expect::Regex(r"\x00(?-u:\xff)".into()), b"a\x00\xff", true),
        ];
        for (expect, bytes, want) in cases {
            assert_eq!(Matcher::new(&expect).unwrap().matches(bytes), want, "{expect:?}");
        }
        assert!(compile("a{1000}{1000}").unwrap_err().contains("does not compile"));
    }
}
