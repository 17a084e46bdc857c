//! `equipoise print settings`: the reference of the configuration file, from the key table.
//!
//! It says nothing that is not in the key table.

use crate::config::keys::{DefaultValue, Key, Reload, TABLES, Table, Takes};
use serde_json::json;
use std::fmt::Write;

const HEAD: &str = "\
# Every setting

This page is the output of `equipoise print settings`, generated from the table that the program itself reads; `--json` prints
one object per setting. [gateway.toml](../fixtures/config/gateway.toml) has the same settings in a file with longer comments. A key
that is not listed here is refused.

The last column of each table says what a [reload](reload.md) does with a changed value:

| word | meaning |
|---|---|
";

/// Every effect of a reload, in the order of the reference.
const EFFECTS: [Reload; 7] = [
    Reload::Live,
    Reload::NewFlows,
    Reload::StartsOver,
    Reload::Drains,
    Reload::Identity,
    Reload::Restart,
    Reload::ByKey,
];

/// Returns the reference in Markdown.
pub(super) fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for effect in EFFECTS {
        let _ = writeln!(text, "| {} | {} |", effect.brief(), effect.describe());
    }
    for table in TABLES {
        let _ = write!(text, "\n## {}\n\n", title(table));
        text += "| key | value | default | meaning | reload |\n|---|---|---|---|---|\n";
        for key in table.keys {
            let cells = [
                format!("`{}`", key.name),
                key.takes.to_string(),
                default(key),
                meaning(key),
                key.reload.brief().into(),
            ];
            let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    text
}

/// Returns the reference as one JSON object per line.
pub(super) fn json() -> String {
    let all = TABLES.iter().flat_map(|table| table.keys.iter().map(move |key| (table, key)));
    let lines = all.map(|(table, key)| {
        let when = key.when.map(|when| json!({ "key": when.key, "is": when.is }));
        let default = match key.default {
            DefaultValue::Required => None,
            default => Some(default.to_string()),
        };
        let recommended = key.recommended.map(|least| least.to_string());
        let row = json!({
            "table": table.name, "key": key.name, "value": key.takes.to_string(), "required": default.is_none(),
            "default": default, "meaning": key.doc, "only_with": when, "recommended": recommended, "reload": key.reload,
        });
        format!("{row}\n")
    });
    lines.collect()
}

fn title(table: &Table) -> String {
    if table.name.is_empty() { "The top level".into() } else { format!("`{}`", table.header) }
}

fn default(key: &Key) -> String {
    match (key.default, key.takes) {
        (DefaultValue::Required, _) => "required".into(),
        // As the file has it, for numbers too: without separators.
        (default, Takes::Table | Takes::Tables { .. } | Takes::Form(_)) => default.to_string(),
        (DefaultValue::Unset(words), _) => words.into(),
        (default, _) => format!("`{default}`"),
    }
}

fn meaning(key: &Key) -> String {
    let mut text = key.doc.to_owned();
    if let Some(when) = key.when {
        let values: Vec<String> = when.is.iter().map(|value| format!("`\"{value}\"`")).collect();
        let _ = write!(text, " Only with `{}` {}.", when.key, values.join(" or "));
    }
    if let Some(recommended) = key.recommended {
        let _ = write!(text, " {recommended}.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_row_and_every_effect_is_explained() {
        let text = markdown();
        for table in TABLES {
            let section = text.split("\n## ").find(|section| section.starts_with(&title(table))).expect("a section");
            for key in table.keys {
                let row = section.lines().find(|line| line.starts_with(&format!("| `{}` | ", key.name)));
                let row = row.unwrap_or_else(|| panic!("{} of {}", key.name, table.header));
                assert!(row.contains(key.doc) && row.ends_with(&format!("| {} |", key.reload.brief())), "{row}");
            }
            assert!(table.keys.iter().all(|key| EFFECTS.contains(&key.reload)), "{}", table.header);
        }
        assert_eq!(json().lines().count(), TABLES.iter().map(|table| table.keys.len()).sum::<usize>());
    }
}
