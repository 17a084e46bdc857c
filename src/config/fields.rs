//! Reads the keys of one TOML table one at a time, so that a wrong value hides no other.
//!
//! Bounds and defaults come from [`keys`](super::keys). It must not know what the keys mean.

use super::keys::{DefaultValue, Key, Table, Takes};
use super::problem::{Draft, Span, grouped};
use super::words::{all, did_you_mean, list, quoted};
use crate::time::Duration;
use serde_spanned::Spanned;
use std::ops::RangeInclusive;
use toml::de::{DeTable, DeValue};

/// How a duration is written.
const DURATIONS: &str = "write a number with a unit, such as \"30s\", \"4m\" or \"2h 4m\"";

/// A parsed value and its place in the file.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// One table of the file, its keys, and the problems found in it.
pub(super) struct Fields<'a, 'i> {
    table: &'a DeTable<'i>,
    /// Header of the table, or the whole of an inline one.
    pub(super) span: Span,
    keys: &'static Table,
    pub(super) drafts: &'a mut Vec<Draft>,
    errors_before: usize,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Takes a table and refuses the keys that it does not have.
    pub(super) fn new(table: &'a DeTable<'i>, span: Span, keys: &'static Table, drafts: &'a mut Vec<Draft>) -> Self {
        let errors_before = drafts.len();
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if let Some((_, new)) = keys.renamed.iter().find(|(old, _)| *old == name) {
                let draft = Draft::error(key.span(), format!("`{name}` is now called `{new}`"));
                drafts.push(draft.help(format!("write `{new}` instead; its values are the same")));
            } else if keys.key(name).is_none() {
                drafts.push(unknown_key(name, key.span(), keys));
            }
        }
        Fields { table, span, keys, drafts, errors_before }
    }

    /// Whether no error has been found in this table so far.
    pub(super) fn is_clean(&self) -> bool {
        !self.drafts[self.errors_before..].iter().any(Draft::is_error)
    }

    /// The value of a key, if present.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value<'i>> {
        self.described(key);
        self.table.get(key)
    }

    /// The place of a key, if present.
    pub(super) fn key(&self, key: &str) -> Option<Span> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }

    /// The entry of the key table. A reader that asks for a key without one is a mistake in the reader.
    fn described(&self, key: &str) -> Option<&'static Key> {
        let described = self.keys.key(key);
        debug_assert!(described.is_some(), "`{key}` of {} is missing from the key table", self.keys.header);
        described
    }

    /// What a key takes.
    pub(super) fn takes(&self, key: &str) -> Takes {
        self.described(key).map_or(Takes::Flag, |key| key.takes)
    }

    fn default(&self, key: &str) -> DefaultValue {
        self.described(key).map_or(DefaultValue::Required, |key| key.default)
    }

    /// Reports whether a key is to be read: it is present, and has an effect beside the other keys. Where it has none it is
    /// refused; `beside` says why: `with action "drop"`.
    pub(super) fn fits(&mut self, key: &str, fits: bool, beside: &str, help: &str) -> bool {
        let Some(span) = self.key(key) else { return false };
        if !fits {
            self.drafts.push(Draft::error(span, format!("`{key}` has no effect {beside}")).help(help));
        }
        fits
    }

    /// Refuses all but the first of keys that exclude each other.
    pub(super) fn only_one_of(&mut self, keys: &[&str]) {
        let mut places: Vec<(Span, &str)> = keys.iter().filter_map(|key| Some((self.key(key)?, *key))).collect();
        places.sort_by_key(|(span, _)| span.start);
        let [(first, a), rest @ ..] = &places[..] else { return };
        for (span, b) in rest {
            let draft = Draft::error(span.clone(), format!("`{b}` cannot be combined with `{a}`"));
            let draft = draft.also(first.clone(), "the first");
            self.drafts.push(draft.help(format!("use only one of {}", list(keys))));
        }
    }

    /// The value of a required key; `form` shows how to write it.
    pub(super) fn required(&mut self, key: &str, form: &str) -> Option<&'a Value<'i>> {
        let value = self.value(key);
        if value.is_none() {
            let title = format!("{} has no `{key}`", self.keys.header);
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

    /// The default of a key that is a string.
    pub(super) fn default_text(&self, key: &str) -> &'static str {
        let DefaultValue::Text(text) = self.default(key) else { return self.mismatch(key, "") };
        text
    }

    /// Whether a length lies within what a key takes.
    pub(super) fn length_fits(&self, key: &str, length: usize) -> bool {
        let Takes::Text { least, most, .. } = self.takes(key) else { return self.mismatch(key, true) };
        (least..=most).contains(&(length as u64))
    }

    /// A whole number within the bounds of its key, if present.
    pub(super) fn number(&mut self, key: &str) -> Option<Spanned<u64>> {
        self.number_of(key, self.value(key)?)
    }

    /// A whole number within the bounds of its key, if present; the bounds are those of its type, or narrower.
    pub(super) fn count<T: TryFrom<u64>>(&mut self, key: &str) -> Option<T> {
        T::try_from(self.number(key)?.into_inner()).ok()
    }

    /// Like [`count`](Self::count), or the default of the key.
    pub(super) fn count_or_default<T: TryFrom<u64> + Default>(&mut self, key: &str) -> T {
        let DefaultValue::Number(default) = self.default(key) else { return self.mismatch(key, T::default()) };
        self.count(key).or_else(|| T::try_from(default).ok()).unwrap_or_default()
    }

    /// The bounds of the numbers that a key takes.
    pub(super) fn bounds(&self, key: &str) -> RangeInclusive<u64> {
        match self.takes(key) {
            Takes::Number { least, most }
            | Takes::Ranges { least, most }
            | Takes::NumberOrShare { least, most }
            | Takes::WordOrNumber { least, most, .. } => least..=most,
            _ => self.mismatch(key, 0..=u64::MAX),
        }
    }

    /// A value as a whole number within the bounds of a key.
    pub(super) fn number_of(&mut self, key: &str, value: &Value<'_>) -> Option<Spanned<u64>> {
        let bounds = self.bounds(key);
        let number = match value.get_ref() {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            other => {
                let title = format!("`{key}` must be a whole number");
                let help = format!("write a number from {} to {}, without quotes", bounds.start(), bounds.end());
                self.drafts.push(Draft::error(value.span(), title).label(found(other)).help(help));
                return None;
            }
        };
        match number.and_then(|number| u64::try_from(number).ok()) {
            Some(number) if bounds.contains(&number) => Some(Spanned::new(value.span(), number)),
            _ => {
                self.out_of_range(key, value.span());
                None
            }
        }
    }

    fn out_of_range(&mut self, key: &str, span: Span) {
        let help = format!("allowed: {}", self.takes(key));
        self.drafts.push(Draft::error(span, format!("`{key}` is out of range")).help(help));
    }

    /// `true` or `false`, or the default of the key.
    pub(super) fn flag_or_default(&mut self, key: &str) -> bool {
        let DefaultValue::Flag(default) = self.default(key) else { return self.mismatch(key, false) };
        let Some(value) = self.value(key) else { return default };
        if let DeValue::Boolean(flag) = value.get_ref() {
            return *flag;
        }
        let title = format!("`{key}` must be true or false");
        let help = "write true or false, without quotes";
        self.drafts.push(Draft::error(value.span(), title).label(found(value.get_ref())).help(help));
        default
    }

    /// What the word of a key stands for, if present. `words` are those of the key table, or some of them.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let known = self.takes(key).words();
        debug_assert!(words.iter().all(|(word, _)| known.contains(word)), "the words of `{key}`");
        let value = self.value(key)?;
        let form = format!("{key} = \"{}\"", words[0].0);
        let text = self.string(key, value, &form)?;
        let hit = words.iter().find(|(word, _)| word == text.get_ref());
        if hit.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let title = format!("unknown value {} for `{key}`", quoted(text.get_ref()));
            let help = format!("{}allowed: {}", did_you_mean(text.get_ref(), names.iter().copied()), list(&names));
            self.drafts.push(Draft::error(value.span(), title).help(help));
        }
        hit.map(|(_, found)| *found)
    }

    /// What the word of a key stands for, or that of its default; `None` only where the word is wrong.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        if self.value(key).is_some() {
            return self.word(key, words);
        }
        let default = self.default_text(key);
        words.iter().find(|(word, _)| *word == default).map(|(_, found)| *found)
    }

    /// A duration within the bounds of its key, if present.
    pub(super) fn duration(&mut self, key: &str) -> Option<Spanned<Duration>> {
        let Takes::Duration { least, most } = self.takes(key) else { return self.mismatch(key, None) };
        let value = self.value(key)?;
        let DeValue::String(text) = value.get_ref() else {
            let title = format!("`{key}` must be a quoted duration");
            self.drafts.push(Draft::error(value.span(), title).label(found(value.get_ref())).help(DURATIONS));
            return None;
        };
        match humantime::parse_duration(text) {
            Ok(span) if span >= least && most.is_none_or(|most| span <= most) => Some(Spanned::new(value.span(), span)),
            Ok(_) if most.is_none() => {
                let title = format!("`{key}` must be {}", self.takes(key));
                self.drafts.push(Draft::error(value.span(), title).help(DURATIONS));
                None
            }
            Ok(_) => {
                self.out_of_range(key, value.span());
                None
            }
            Err(error) => {
                let why: String = error.to_string().chars().take(200).collect();
                let draft = Draft::error(value.span(), format!("`{key}` is not a duration")).label(why);
                self.drafts.push(draft.help(DURATIONS));
                None
            }
        }
    }

    /// Like [`duration`](Self::duration), or the default of the key.
    pub(super) fn duration_or_default(&mut self, key: &str) -> Duration {
        let default = self.default_duration(key);
        self.duration(key).map_or(default, Spanned::into_inner)
    }

    /// The default of a key that is a duration.
    pub(super) fn default_duration(&self, key: &str) -> Duration {
        let DefaultValue::Duration(default) = self.default(key) else { return self.mismatch(key, Duration::ZERO) };
        default
    }

    /// The key table says something else of a key than its reader.
    fn mismatch<T>(&self, key: &str, instead: T) -> T {
        debug_assert!(false, "`{key}` of {} is of another kind in the key table", self.keys.header);
        instead
    }

    /// The tables of an array of tables, each with its place; empty where the key is absent.
    pub(super) fn tables(&mut self, of: &'static Table) -> Vec<(&'a DeTable<'i>, Span)> {
        let key = of.key_name();
        let Some(value) = self.value(key) else { return Vec::new() };
        let items = items(value);
        let is_array = matches!(value.get_ref(), DeValue::Array(_));
        let mut tables = Vec::with_capacity(items.len());
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) if is_array => tables.push((table, item.span())),
                other => {
                    let title = format!("`{key}` must be an array of tables");
                    let help = format!("write `{}`, with double brackets, once for each {key}", of.header);
                    self.drafts.push(Draft::error(item.span(), title).label(found(other)).help(help));
                }
            }
        }
        let most = self.takes(key).most().map_or(usize::MAX, |most| most as usize);
        if let Some((_, span)) = tables.get(most) {
            let title = format!("{} {} tables are too many", grouped(tables.len()), of.header);
            let draft = Draft::error(span.clone(), title).label("the first one too many");
            let help = format!("at most {} are allowed; keys such as `ports` take arrays", grouped(most));
            self.drafts.push(draft.help(help));
            tables.truncate(most);
        }
        tables
    }

    /// A table, if present.
    pub(super) fn table(&mut self, of: &'static Table) -> Option<(&'a DeTable<'i>, Span)> {
        let key = of.key_name();
        let value = self.value(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            return Some((table, value.span()));
        }
        let title = format!("`{key}` must be a table");
        let help = format!("write `{}` once, on a line of its own, with its keys below it", of.header);
        self.drafts.push(Draft::error(value.span(), title).label(found(value.get_ref())).help(help));
        None
    }
}

/// Each value of an array, or the value itself where it is not an array.
pub(super) fn items<'v, 'i>(value: &'v Value<'i>) -> &'v [Value<'i>] {
    match value.get_ref() {
        DeValue::Array(items) => items,
        _ => std::slice::from_ref(value),
    }
}

fn unknown_key(key: &str, span: Span, table: &Table) -> Draft {
    let known: Vec<&str> = table.keys.iter().map(|key| key.name).collect();
    let preposition = if table.name.is_empty() { "at" } else { "in" };
    let title = format!("unknown key {} {preposition} {}", quoted(key), table.header);
    Draft::error(span, title).help(format!("{}known keys: {}", did_you_mean(key, known.iter().copied()), all(&known)))
}

/// Names what was found where something else was expected.
pub(super) fn found(value: &DeValue<'_>) -> String {
    let kind = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    format!("found {kind}")
}
