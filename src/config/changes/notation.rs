//! Values as people type them, in the notation of the file: `30s` is `"30s"`, `10.0.0.1,2001:db8::1` an array.
//!
//! It must not judge values; the readers of the file do.

use super::super::keys::{TABLES, Takes};
use super::super::listing::quoted;
use super::Kind;
use toml::de::DeValue;

/// Writes a value of a key in the notation of the file. What is written so already, quotes and brackets included, stays
/// as it is.
pub fn notation(kind: Kind, key: &str, words: &str) -> String {
    write(takes(kind, key), words.trim())
}

/// Returns what a key takes, written `weight` or `sticky.idle`.
pub(super) fn takes(kind: Kind, key: &str) -> Option<Takes> {
    let (table, key) = match key.split_once('.') {
        None => (kind.table().to_owned(), key),
        Some((below, key)) => (format!("{}.{below}", kind.table()), key),
    };
    TABLES.iter().find(|known| known.name == table)?.key(key).map(|key| key.takes)
}

fn write(takes: Option<Takes>, words: &str) -> String {
    let bare = matches!(
        takes,
        Some(
            Takes::Flag
                | Takes::Number { .. }
                | Takes::Ranges { .. }
                | Takes::NumberOrShare { .. }
                | Takes::WordOrNumber { .. }
        )
    );
    match DeValue::parse(words).map(|value| value.into_inner()) {
        Ok(DeValue::String(_) | DeValue::Array(_)) => words.into(),
        Ok(DeValue::Integer(_) | DeValue::Boolean(_)) if bare => words.into(),
        _ if words.contains(',') => {
            let each: Vec<String> = words.split(',').map(|part| write(takes, part.trim())).collect();
            format!("[{}]", each.join(", "))
        }
        _ => quoted(words),
    }
}
