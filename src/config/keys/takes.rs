//! What a key takes and what applies without it, as values for the readers and as text for messages and documentation.
//!
//! It must not know single keys.

use crate::time::Duration;
use std::fmt;

/// What a key takes.
///
/// Its `Display` is the text of errors and documentation: `1280 to 65535`, `100ms to 24h`, `"drop", "reset"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `true` or `false`.
    Flag,
    /// A whole number; both bounds are allowed.
    Number {
        /// Smallest.
        least: u64,
        /// Largest.
        most: u64,
    },
    /// Numbers and ranges of them: `80`, `"8000-8100"`, or an array of both; both bounds are allowed.
    Ranges {
        /// Smallest.
        least: u64,
        /// Largest.
        most: u64,
    },
    /// A number, or a share from `"1%"` to `"100%"`.
    NumberOrShare {
        /// Smallest number.
        least: u64,
        /// Largest number.
        most: u64,
    },
    /// One of these words, or a whole number; both bounds are allowed.
    WordOrNumber {
        /// The words.
        words: &'static [&'static str],
        /// Smallest number.
        least: u64,
        /// Largest number.
        most: u64,
    },
    /// A duration such as `"2h 4m"`; both bounds are allowed.
    Duration {
        /// Shortest.
        least: Duration,
        /// Longest; `None` is no limit.
        most: Option<Duration>,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A string of a limited length; both bounds are allowed.
    Text {
        /// Shortest.
        least: u64,
        /// Longest.
        most: u64,
        /// What is counted, or what it consists of: `bytes`.
        of: &'static str,
    },
    /// A string or an array of them, with a limit on what they name in all.
    List {
        /// Most.
        most: u64,
        /// What is counted: `addresses`.
        of: &'static str,
    },
    /// Something else, in words.
    Form(&'static str),
    /// A table.
    Table,
    /// An array of tables.
    Tables {
        /// Most entries; `None` is no limit.
        most: Option<u64>,
    },
}

impl Takes {
    /// A whole number.
    pub(super) const fn number(least: u64, most: u64) -> Self {
        Takes::Number { least, most }
    }

    /// A duration with bounds in milliseconds.
    pub(super) const fn millis(least: u64, most: u64) -> Self {
        Takes::Duration { least: Duration::from_millis(least), most: Some(Duration::from_millis(most)) }
    }

    /// A string of a limited number of bytes.
    pub(super) const fn bytes(least: u64, most: u64) -> Self {
        Takes::Text { least, most, of: "bytes" }
    }

    /// The number of `of` that the key allows at most, if it counts anything.
    pub const fn most(&self) -> Option<u64> {
        match *self {
            Takes::Number { most, .. }
            | Takes::Ranges { most, .. }
            | Takes::NumberOrShare { most, .. }
            | Takes::WordOrNumber { most, .. }
            | Takes::Text { most, .. }
            | Takes::List { most, .. } => Some(most),
            Takes::Tables { most } => most,
            Takes::Flag | Takes::Duration { .. } | Takes::Word(_) | Takes::Form(_) | Takes::Table => None,
        }
    }

    /// The words that the key takes; empty where it takes none.
    pub const fn words(&self) -> &'static [&'static str] {
        match *self {
            Takes::Word(words) | Takes::WordOrNumber { words, .. } => words,
            _ => &[],
        }
    }
}

/// Any duration above zero.
pub(super) const ABOVE_ZERO: Takes = Takes::Duration { least: Duration::from_nanos(1), most: None };

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Takes::Flag => f.write_str("true or false"),
            Takes::Number { least, most } | Takes::Ranges { least, most } => write!(f, "{least} to {most}"),
            Takes::NumberOrShare { least, most } => write!(f, "{least} to {most}, or \"1%\" to \"100%\""),
            Takes::WordOrNumber { words, least, most } => {
                quote(f, words)?;
                write!(f, ", or {least} to {most}")
            }
            Takes::Duration { least, most: Some(most) } => write!(f, "{} to {}", duration(least), duration(most)),
            Takes::Duration { least, most: None } if least.as_nanos() <= 1 => f.write_str("longer than zero"),
            Takes::Duration { least, most: None } => write!(f, "at least {}", duration(least)),
            Takes::Word(words) => quote(f, words),
            Takes::Text { least, most, of } => write!(f, "{least} to {most} {of}"),
            Takes::List { most, of } => write!(f, "up to {most} {of}"),
            Takes::Form(form) => f.write_str(form),
            Takes::Table => f.write_str("a table"),
            Takes::Tables { most: None } => f.write_str("an array of tables"),
            Takes::Tables { most: Some(most) } => write!(f, "an array of up to {most} tables"),
        }
    }
}

fn quote(f: &mut fmt::Formatter<'_>, words: &[&str]) -> fmt::Result {
    for (at, word) in words.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        write!(f, "{comma}\"{word}\"")?;
    }
    Ok(())
}

/// What applies where a key is absent.
///
/// Its `Display` is the text of the documentation: `1500`, `"5m"`, `no limit`; empty where the key is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// The key must be present.
    Required,
    /// No value; what that means, in words.
    Unset(&'static str),
    /// A whole number.
    Number(u64),
    /// `true` or `false`.
    Flag(bool),
    /// A duration.
    Duration(Duration),
    /// A word or another string.
    Text(&'static str),
}

impl DefaultValue {
    /// A duration in seconds.
    pub(super) const fn secs(secs: u64) -> Self {
        DefaultValue::Duration(Duration::from_secs(secs))
    }
}

impl fmt::Display for DefaultValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            DefaultValue::Required => Ok(()),
            DefaultValue::Unset(words) => f.write_str(words),
            DefaultValue::Number(number) => write!(f, "{number}"),
            DefaultValue::Flag(flag) => write!(f, "{flag}"),
            DefaultValue::Duration(span) => write!(f, "\"{}\"", duration(span)),
            DefaultValue::Text(text) => write!(f, "\"{text}\""),
        }
    }
}

/// The least that an RFC asks for. Its `Display` is `RFC 5382, REQ-5: at least 4m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recommended {
    /// The least.
    pub least: Duration,
    /// Where it is asked for.
    pub source: &'static str,
}

impl fmt::Display for Recommended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: at least {}", self.source, duration(self.least))
    }
}

/// Writes a duration as the file does, in hours and smaller units: `24h`, `2h 4m`, `100ms`, `0s`.
pub fn duration(span: Duration) -> String {
    const UNITS: [(u128, &str); 6] = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1000, "us"),
        (1, "ns"),
    ];
    let mut rest = span.as_nanos();
    let mut parts = Vec::new();
    for (nanos, unit) in UNITS {
        let count = rest / nanos;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
            rest %= nanos;
        }
    }
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_the_notation_of_the_file() {
        for (text, want) in [
            ("0s", "0s"),
            ("100ms", "100ms"),
            ("1day", "24h"),
            ("7440s", "2h 4m"),
            ("90s 5us", "1m 30s 5us"),
            ("1ns", "1ns"),
        ] {
            let span = humantime::parse_duration(text).expect(text);
            assert_eq!(duration(span), want);
            assert_eq!(humantime::parse_duration(want), Ok(span));
        }
    }
}
