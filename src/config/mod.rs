//! Configuration: TOML exactly as written -> checked [`Settings`].
//!
//! ```text
//!  text --toml--> tables --raw, keys--> values with places --check, build--> Settings
//!                    `------------- all problems ------------------'--> ConfigError
//! ```
//!
//! It reads text that it is given; it must not touch files or the system.

mod address;
mod build;
pub mod changes;
mod check;
mod fields;
pub mod keys;
mod links;
pub mod listing;
mod names;
pub mod outside;
mod problem;
mod raw;
mod render;
pub mod settings;
mod values;
mod words;

pub use listing::fingerprint;
pub use names::{NoServer, find_server};
pub use problem::{ConfigError, Place, Problem, Severity};
pub use settings::*;

pub(crate) use words::closest;

use crate::sources::Found;
pub(crate) use problem::plural;
use problem::{Draft, Source, place_all, plural_of};
use std::borrow::Cow;
use toml::de::DeTable;

/// A configuration that can be used, and its warnings.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The checked settings.
    pub settings: Settings,
    /// Warnings, in the order of the file.
    pub warnings: Vec<Problem>,
    source: Source,
}

impl Parsed {
    /// Returns the same configuration with servers from outside, and those that cannot be used, each with the reason, by
    /// pool.
    ///
    /// # Errors
    /// Where the file would be wrong with these servers: a Maglev table is too small for them, for example.
    pub fn with_servers(&self, found: &Found) -> Result<(Parsed, outside::LeftOut), ConfigError> {
        let by_itself = self.by_itself()?;
        let (fits, left_out) = outside::fit(&by_itself.settings, found);
        Ok((parse_with_servers(&self.source.text, &self.source.origin, &fits)?, left_out))
    }

    /// Returns the same configuration without servers from outside.
    ///
    /// # Errors
    /// None is known: whatever is right with these servers is right without them.
    pub fn by_itself(&self) -> Result<Cow<'_, Parsed>, ConfigError> {
        if self.source.outside.is_empty() {
            return Ok(Cow::Borrowed(self));
        }
        parse_with_warnings(&self.source.text, &self.source.origin).map(Cow::Owned)
    }

    /// Renders the warnings with excerpts of the file, each followed by an empty line; empty where there are none.
    ///
    /// `color` adds ANSI colours.
    pub fn render_warnings(&self, color: bool) -> String {
        render::problems(&self.warnings, &self.source, color)
    }
}

/// Reads and checks a configuration; `origin` is the name of the file in messages.
///
/// The error holds every problem of the file, as far as the text can be parsed.
pub fn parse(text: &str, origin: &str) -> Result<Settings, ConfigError> {
    parse_with_warnings(text, origin).map(|parsed| parsed.settings)
}

/// Like [`parse`], with the warnings.
pub fn parse_with_warnings(text: &str, origin: &str) -> Result<Parsed, ConfigError> {
    parse_with_servers(text, origin, &Found::new())
}

/// Like [`parse_with_warnings`], with servers from outside, which are checked as those of the file are.
///
/// They must be fit for the file by itself: see [`outside::fit`].
pub fn parse_with_servers(text: &str, origin: &str, found: &Found) -> Result<Parsed, ConfigError> {
    // A byte order mark is allowed, and does not count as a column of the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut source = Source::new(text, origin);
    source.outside = outside::tables(found);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let drafts = errors.iter().map(|error| syntax(error, text)).collect();
        return Err(ConfigError::new(drafts, source, true));
    }
    let mut drafts = Vec::new();
    let mut root = root.into_inner();
    outside::insert(&mut root, &source.outside);
    let raw = raw::read(&root, &mut drafts);
    let settings = check::check(raw, &mut drafts);
    if drafts.iter().any(Draft::is_error) {
        return Err(ConfigError::new(drafts, source, false));
    }
    let warnings = place_all(drafts, &source);
    Ok(Parsed { settings, warnings, source })
}

/// Like [`parse_with_warnings`], for the bytes of a file; they must be UTF-8.
pub fn parse_bytes(bytes: &[u8], origin: &str) -> Result<Parsed, ConfigError> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return parse_with_warnings(text, origin),
        Err(error) => error,
    };
    let at = error.valid_up_to();
    let help = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the file looks like UTF-16; save it as UTF-8",
        [0x1f, 0x8b, ..] => "the file is compressed by gzip; unpack it first",
        _ => "save the file as UTF-8, or remove that byte",
    };
    // Only the text up to the bad byte's line: the rest may be of any kind and size.
    let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length);
    let source = Source::new(&String::from_utf8_lossy(&bytes[..end]), origin);
    let title = format!("the file is not UTF-8 text: byte 0x{:02x} at offset {at}", bytes[at]);
    let place = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
    Err(ConfigError::new(vec![Draft::error(place, title).help(help)], source, true))
}

fn syntax(error: &toml::de::Error, text: &str) -> Draft {
    let span = error.span().unwrap_or(0..0);
    // Some spans extend into the next line, where nothing is wrong.
    let line = text.get(span.start..).map_or(0, |rest| rest.find(['\r', '\n']).unwrap_or(rest.len()));
    let end = span.end.min(span.start + line).max(span.start);
    // An empty span at the start would mean the whole file.
    let span = if end == 0 { 0..1 } else { span.start..end };
    let message = error.message();
    let is_table = span.start.checked_sub(2).and_then(|before| text.get(before..span.start)) == Some("[[");
    let help = if message.contains("duplicate key") && is_table && text.get(span.clone()) == Some("service") {
        "delete the line `service = []`, which stands for a gateway without services"
    } else if message.contains("duplicate key") {
        "a key may appear only once in its table; remove one of them"
    } else if message.contains("string") {
        "strings must be quoted: name = \"web\""
    } else {
        "the file must be TOML: `key = value` lines below `[table]` headers"
    };
    Draft::error(span, format!("invalid TOML: {message}")).help(help)
}

/// Returns the line, from 1, of a key in a table of the file that exists once, or at the top level (`table` is empty).
pub fn line_of(text: &str, table: &str, key: &str) -> Option<usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (root, _) = DeTable::parse_recoverable(text);
    let within = if table.is_empty() { root.get_ref() } else { root.get_ref().get(table)?.get_ref().as_table()? };
    let (found, _) = within.iter().find(|(name, _)| name.get_ref() == key)?;
    Some(text.get(..found.span().start)?.matches('\n').count() + 1)
}

/// Summarizes a valid configuration in one line, for `equipoise check`.
pub fn summary(settings: &Settings) -> String {
    let listens: usize = settings.services.iter().map(|service| service.listen.len()).sum();
    let counts = [
        plural(settings.services.len(), "service"),
        plural_of(listens, "listen address", "listen addresses"),
        plural(settings.pools.len(), "pool"),
        plural(settings.servers.len(), "server"),
        plural(settings.monitors(), "monitor"),
        plural(settings.policy.rules.len(), "rule"),
        format!("at most {}", plural(settings.table.max_flows as usize, "flow")),
        format!("device {}", settings.gateway.device),
    ];
    format!("configuration is valid: {}", counts.join(", "))
}

#[cfg(test)]
mod tests;
