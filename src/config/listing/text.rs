//! Values in the notation of the file.
//!
//! It must not know keys.

use crate::config::keys::duration;
use crate::time::Duration;
use ipnet::IpNet;
use std::net::IpAddr;
use toml::de::DeValue;

/// Writes a string: in single quotes if that saves escapes, else in double quotes.
pub(in crate::config) fn quoted(text: &str) -> String {
    let control = |c: char| c.is_control();
    if text.contains(['\\', '"']) && !text.contains('\'') && !text.contains(control) {
        return format!("'{text}'");
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Turns a value in the notation of the file into JSON; what is no TOML value becomes a string.
pub(super) fn json(written: &str) -> serde_json::Value {
    fn of(value: &DeValue<'_>) -> Option<serde_json::Value> {
        Some(match value {
            DeValue::String(text) => text.as_ref().into(),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.into(),
            DeValue::Boolean(flag) => (*flag).into(),
            DeValue::Array(items) => items.iter().map(|item| of(item.get_ref())).collect::<Option<Vec<_>>>()?.into(),
            DeValue::Table(table) => {
                let pair = |(key, value): (&serde_spanned::Spanned<std::borrow::Cow<'_, str>>, &Item<'_>)| {
                    Some((key.get_ref().to_string(), of(value.get_ref())?))
                };
                serde_json::Value::Object(table.iter().map(pair).collect::<Option<_>>()?)
            }
            DeValue::Float(_) | DeValue::Datetime(_) => return None,
        })
    }
    type Item<'i> = serde_spanned::Spanned<DeValue<'i>>;
    DeValue::parse(written).ok().and_then(|value| of(value.get_ref())).unwrap_or_else(|| written.into())
}

/// Writes a duration.
pub(super) fn span(span: Duration) -> String {
    quoted(&duration(span))
}

/// Writes one value alone, or an array of several.
pub(super) fn list(values: &[String]) -> String {
    match values {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// Writes what has no order and no duplicates, in ascending order.
pub(super) fn set<T: Ord + Clone>(values: &[T], write: impl Fn(&T) -> String) -> Vec<String> {
    let mut sorted = values.to_vec();
    sorted.sort();
    sorted.dedup();
    sorted.iter().map(write).collect()
}

/// Writes a number, or a range of them: `80`, `"8000-8100"`.
pub(super) fn range(&(first, last): &(u16, u16)) -> String {
    if first == last { first.to_string() } else { quoted(&format!("{first}-{last}")) }
}

/// Writes a network, or the address alone if it is one.
pub(super) fn network(net: &IpNet) -> String {
    let is_address = net.prefix_len() == net.max_prefix_len();
    quoted(&if is_address { net.addr().to_string() } else { net.to_string() })
}

/// Writes ascending addresses of one family: single ones and ranges.
pub(super) fn address_ranges<A: Copy + Into<IpAddr>>(addresses: &[A], number: impl Fn(A) -> u128) -> Vec<String> {
    let runs = addresses.chunk_by(|a, b| number(*a).checked_add(1) == Some(number(*b)));
    runs.filter_map(|run| {
        let (first, last): (IpAddr, IpAddr) = ((*run.first()?).into(), (*run.last()?).into());
        Some(quoted(&if first == last { first.to_string() } else { format!("{first}-{last}") }))
    })
    .collect()
}

/// Writes up to one address of each family.
pub(super) fn one_per_family(v4: Option<impl Into<IpAddr>>, v6: Option<impl Into<IpAddr>>) -> Vec<String> {
    let addresses = v4.map(Into::into).into_iter().chain(v6.map(Into::into));
    addresses.map(|address: IpAddr| quoted(&address.to_string())).collect()
}

/// Writes a table of strings.
pub(super) fn table(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
    format!("{{ {} }}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn backslashes_and_quotes_are_not_escaped_unless_they_must_be() {
        for (text, want) in [
            ("web", r#""web""#),
            ("", r#""""#),
            (r"^\d+$", r"'^\d+$'"),
            (r#"say "ok""#, r#"'say "ok"'"#),
            (r#"it's "ok"\"#, r#""it's \"ok\"\\""#),
            ("a\n\u{7}", r#""a\n\u0007""#),
        ] {
            assert_eq!(quoted(text), want);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_string_is_read_as_it_was(text in "[\\PC\n\r\t\u{0}-\u{1f}\u{7f}'\"\\\\]{0,20}") {
            let file = format!("key = {}", quoted(&text));
            let table = toml::de::DeTable::parse(&file).expect("valid TOML");
            prop_assert_eq!(table.get_ref()["key"].get_ref().as_str(), Some(text.as_str()));
        }
    }
}
