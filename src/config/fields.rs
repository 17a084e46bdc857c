//! Reads the keys of one TOML table one by one, so that a wrong value hides no other.
//!
//! It must not know what the keys mean.

use super::problem::{Draft, Span};
use crate::time::Duration;
use serde_spanned::Spanned;
use std::ops::RangeInclusive;
use toml::de::{DeTable, DeValue};

/// Characters of a value that a message repeats.
const QUOTED: usize = 60;

/// How a duration is written.
const DURATIONS: &str = "write a number with a unit, such as \"30s\", \"4m\" or \"2h 4m\"";

/// A parsed value and where it stands.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// One table of the file, its known keys, and the problems found in it.
pub(super) struct Fields<'a, 'i> {
    table: &'a DeTable<'i>,
    /// Header of the table, or the whole of an inline one.
    pub(super) span: Span,
    /// How the operator writes it: `[[service]]`.
    name: &'static str,
    pub(super) drafts: &'a mut Vec<Draft>,
    errors_before: usize,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Takes a table and refuses the keys that are not in `known`.
    pub(super) fn new(
        table: &'a DeTable<'i>,
        span: Span,
        name: &'static str,
        known: &[&str],
        drafts: &'a mut Vec<Draft>,
    ) -> Self {
        let errors_before = drafts.len();
        for key in table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                drafts.push(unknown_key(key.get_ref(), key.span(), name, known));
            }
        }
        Fields { table, span, name, drafts, errors_before }
    }

    /// Whether nothing was found wrong in this table so far.
    pub(super) fn is_clean(&self) -> bool {
        !self.drafts[self.errors_before..].iter().any(Draft::is_error)
    }

    /// The value of a key, if it is there.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value<'i>> {
        self.table.get(key)
    }

    /// Where a key stands, if it is there.
    pub(super) fn key(&self, key: &str) -> Option<Span> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }

    /// Whether a key is to be read: it is there, and it says something beside another choice.
    /// Where it says nothing it is refused, and `beside` tells why: `with action "drop"`.
    pub(super) fn fits(&mut self, key: &str, fits: bool, beside: &str, help: &str) -> bool {
        let Some(span) = self.key(key) else { return false };
        if !fits {
            self.drafts.push(Draft::error(span, format!("`{key}` says nothing {beside}")).help(help));
        }
        fits
    }

    /// Refuses two keys that say the same thing in two ways.
    pub(super) fn only_one_of(&mut self, keys: &[&str]) {
        let mut places: Vec<(Span, &str)> = keys.iter().filter_map(|key| Some((self.key(key)?, *key))).collect();
        places.sort_by_key(|(span, _)| span.start);
        let [(first, a), rest @ ..] = &places[..] else { return };
        for (span, b) in rest {
            let draft =
                Draft::error(span.clone(), format!("`{b}` stands beside `{a}`")).also(first.clone(), "the first");
            self.drafts.push(draft.help(format!("only one of {} is allowed", list(keys))));
        }
    }

    /// The value of a key that must be there; `form` shows how to write it.
    pub(super) fn required(&mut self, key: &str, form: &str) -> Option<&'a Value<'i>> {
        let value = self.table.get(key);
        if value.is_none() {
            let title = format!("{} has no `{key}`", self.name);
            self.drafts.push(Draft::error(self.span.clone(), title).help(format!("add `{form}`")));
        }
        value
    }

    /// A string.
    pub(super) fn string(&mut self, key: &str, value: &Value<'_>, form: &str) -> Option<Spanned<String>> {
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(value.span(), text.to_string())),
            other => {
                let title = format!("`{key}` must be a string");
                self.drafts.push(Draft::error(value.span(), title).label(found(other)).help(format!("write `{form}`")));
                None
            }
        }
    }

    /// A string, or each string of an array; `None` where the value is neither.
    pub(super) fn strings(&mut self, key: &str, value: &Value<'_>, form: &str) -> Option<Vec<Spanned<String>>> {
        match value.get_ref() {
            DeValue::Array(items) => Some(items.iter().filter_map(|item| self.string(key, item, form)).collect()),
            _ => self.string(key, value, form).map(|text| vec![text]),
        }
    }

    /// A whole number within a range, if the key is there.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<Spanned<u64>> {
        self.number_of(key, self.table.get(key)?, range)
    }

    /// A whole number within a range, if the key is there; the range is that of its type, or less.
    pub(super) fn count<T: TryFrom<u64>>(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<T> {
        T::try_from(self.number(key, range)?.into_inner()).ok()
    }

    /// A value of a key as a whole number within a range.
    pub(super) fn number_of(
        &mut self,
        key: &str,
        value: &Value<'_>,
        range: RangeInclusive<u64>,
    ) -> Option<Spanned<u64>> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            other => {
                let title = format!("`{key}` must be a whole number");
                let help = format!("write a number from {} to {}, without quotes", range.start(), range.end());
                self.drafts.push(Draft::error(value.span(), title).label(found(other)).help(help));
                return None;
            }
        };
        match number.and_then(|number| u64::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Some(Spanned::new(value.span(), number)),
            _ => {
                let title = format!("`{key}` is out of range");
                let help = format!("{} to {} is allowed", range.start(), range.end());
                self.drafts.push(Draft::error(value.span(), title).help(help));
                None
            }
        }
    }

    /// `true` or `false`, if the key is there.
    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        let value = self.table.get(key)?;
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Some(*flag);
        }
        let title = format!("`{key}` must be true or false");
        let help = "write true or false, without quotes";
        self.drafts.push(Draft::error(value.span(), title).label(found(value.get_ref())).help(help));
        None
    }

    /// One of several words, if the key is there.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.table.get(key)?;
        let form = format!("{key} = \"{}\"", words[0].0);
        let text = self.string(key, value, &form)?;
        let hit = words.iter().find(|(word, _)| word == text.get_ref());
        if hit.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let title = format!("unknown `{key}` {}", quoted(text.get_ref()));
            let help = format!("{}allowed: {}", did_you_mean(text.get_ref(), names.iter().copied()), list(&names));
            self.drafts.push(Draft::error(value.span(), title).help(help));
        }
        hit.map(|(_, found)| *found)
    }

    /// One of several words, or `default` where the key is absent; `None` where the word is wrong.
    pub(super) fn word_or<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: T) -> Option<T> {
        if self.value(key).is_some() { self.word(key, words) } else { Some(default) }
    }

    /// A duration in the usual notation within a range, if the key is there.
    pub(super) fn duration_in(&mut self, key: &str, range: RangeInclusive<Duration>) -> Option<Spanned<Duration>> {
        let span = if range.contains(&Duration::ZERO) { self.any_duration(key) } else { self.duration(key) }?;
        if range.contains(span.get_ref()) {
            return Some(span);
        }
        let [least, most] = [*range.start(), *range.end()].map(humantime::format_duration);
        let draft = Draft::error(span.span(), format!("`{key}` is out of range"));
        self.drafts.push(draft.help(format!("{least} to {most} is allowed")));
        None
    }

    /// A duration in the usual notation, above zero, if the key is there.
    pub(super) fn duration(&mut self, key: &str) -> Option<Spanned<Duration>> {
        let span = self.any_duration(key)?;
        if !span.get_ref().is_zero() {
            return Some(span);
        }
        let draft = Draft::error(span.span(), format!("`{key}` must be longer than zero"));
        self.drafts.push(draft.help(DURATIONS));
        None
    }

    fn any_duration(&mut self, key: &str) -> Option<Spanned<Duration>> {
        let value = self.table.get(key)?;
        let text = match value.get_ref() {
            DeValue::String(text) => text,
            other => {
                let title = format!("`{key}` must be a duration in quotes");
                self.drafts.push(Draft::error(value.span(), title).label(found(other)).help(DURATIONS));
                return None;
            }
        };
        let draft = match humantime::parse_duration(text) {
            Ok(span) => return Some(Spanned::new(value.span(), span)),
            Err(error) => {
                let why: String = error.to_string().chars().take(200).collect();
                Draft::error(value.span(), format!("`{key}` is not a duration")).label(why)
            }
        };
        self.drafts.push(draft.help(DURATIONS));
        None
    }

    /// The tables of an array of tables, each with its span; none where the key is absent.
    pub(super) fn tables(&mut self, key: &str, header: &str) -> Vec<(&'a DeTable<'i>, Span)> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let items = items(value);
        let is_array = matches!(value.get_ref(), DeValue::Array(_));
        let mut tables = Vec::with_capacity(items.len());
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) if is_array => tables.push((table, item.span())),
                other => {
                    let title = format!("`{key}` must be an array of tables");
                    let help = format!("write `{header}` in two pairs of brackets, once for each {key}");
                    self.drafts.push(Draft::error(item.span(), title).label(found(other)).help(help));
                }
            }
        }
        tables
    }

    /// A table, if the key is there.
    pub(super) fn table(&mut self, key: &str, header: &str) -> Option<(&'a DeTable<'i>, Span)> {
        let value = self.table.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            return Some((table, value.span()));
        }
        let title = format!("`{key}` must be a table");
        let help = format!("write `{header}` on a line of its own, once, and its keys below it");
        self.drafts.push(Draft::error(value.span(), title).label(found(value.get_ref())).help(help));
        None
    }
}

/// Each value of an array, or the value itself where it is none.
pub(super) fn items<'v, 'i>(value: &'v Value<'i>) -> &'v [Value<'i>] {
    match value.get_ref() {
        DeValue::Array(items) => items,
        _ => std::slice::from_ref(value),
    }
}

fn unknown_key(key: &str, span: Span, name: &str, known: &[&str]) -> Draft {
    let title = format!("unknown key {} in {name}", quoted(key));
    Draft::error(span, title).help(format!("{}known keys: {}", did_you_mean(key, known.iter().copied()), all(known)))
}

/// What stands where something else was wanted.
pub(super) fn found(value: &DeValue<'_>) -> String {
    let kind = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    format!("found {kind}")
}

/// A value in quotes, with escapes for what a terminal would obey, and cut short if it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// `"a", "b"`; the words are quoted.
fn all(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")
}

/// `"a", "b" and 7 more`; the words are quoted, and at most ten are named.
pub(super) fn list(words: &[&str]) -> String {
    let mut out = all(&words[..words.len().min(10)]);
    if words.len() > 10 {
        out += &format!(" and {} more", words.len() - 10);
    }
    out
}

/// `did you mean "weight"? `, or nothing where no word is close. Only the first hundred words are
/// looked at: a file of thousands of mistakes must not cost their product.
pub(super) fn did_you_mean<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> String {
    let limit = (text.chars().count() / 3).max(1);
    if limit > 10 {
        return String::new();
    }
    let near = words.take(100).filter(|word| word.len().abs_diff(text.len()) <= 2 * limit);
    let close = near.map(|word| (distance(text, word), word)).filter(|(far, _)| *far <= limit).min();
    close.map_or(String::new(), |(_, word)| format!("did you mean {}? ", quoted(word)))
}

/// Letters to add, remove, change or swap with the next to make one word of the other (optimal
/// string alignment); case and `_` for `-` cost nothing.
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| -> Vec<char> { text.to_lowercase().replace('_', "-").chars().collect() };
    let (a, b) = (fold(a), fold(b));
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_word_is_proposed_and_a_far_one_is_not() {
        let known = ["weight", "port", "route-table"];
        let cases = [
            ("wieght", "did you mean \"weight\"? "),
            ("route_table", "did you mean \"route-table\"? "),
            ("prot", "did you mean \"port\"? "),
            ("Port", "did you mean \"port\"? "),
            ("listen", ""),
            ("", ""),
        ];
        for (text, want) in cases {
            assert_eq!(did_you_mean(text, known.into_iter()), want, "{text}");
        }
    }

    #[test]
    fn a_quoted_value_is_short_and_harmless_to_a_terminal() {
        assert_eq!(quoted("a\u{1b}[2J\n"), r#""a\u{1b}[2J\n""#);
        assert_eq!(quoted(&"ü".repeat(61)), format!("{:?}...", "ü".repeat(60)));
    }
}
