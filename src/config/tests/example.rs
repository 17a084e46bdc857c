//! The documented example has every key of the key table, with its documentation, range and default, and no other key.

use crate::config::keys::{DefaultValue, Key, TABLES, Takes, find};

const GATEWAY: &str = include_str!("../../../fixtures/config/gateway.toml");

/// One key as the example has it: its table, its name, and the comment above and beside it.
struct Documented {
    table: String,
    key: String,
    comment: String,
}

/// Reads the example's keys, tables among them, whether commented out or not.
fn documented() -> Vec<Documented> {
    let (mut all, mut table, mut comment) = (Vec::new(), String::new(), String::new());
    for line in GATEWAY.lines() {
        let text = line.strip_prefix("# ").unwrap_or(line);
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
        };
        let header = text.trim_start_matches('[').trim_end_matches(']');
        if text.starts_with('[') && text.ends_with(']') && is_name(header) {
            let (parent, key) = header.rsplit_once('.').unwrap_or(("", header));
            all.push(Documented { table: parent.into(), key: key.into(), comment: std::mem::take(&mut comment) });
            table = header.into();
        } else if let Some((key, _)) = text.split_once(" = ").filter(|(key, _)| is_name(key)) {
            all.push(Documented { table: table.clone(), key: key.into(), comment: std::mem::take(&mut comment) });
        } else if line.starts_with('#') {
            comment = format!("{comment} {}", line.trim_start_matches('#').trim()).trim().into();
        } else {
            comment.clear();
        }
    }
    all
}

/// What a comment lacks of what it should say of a key.
fn lacks(comment: &str, key: &Key) -> Option<String> {
    let default = match key.default {
        DefaultValue::Required => "Required.".into(),
        default => format!("Default: {default}"),
    };
    let says_default =
        comment.split(&default).skip(1).any(|rest| default.ends_with('.') || rest.starts_with(['.', ',']));
    let is_table = matches!(key.takes, Takes::Table | Takes::Tables { .. });
    let range = match key.takes {
        Takes::Number { least, most } | Takes::Ranges { least, most } => format!("{least} to {most}"),
        Takes::Flag | Takes::Form(_) | Takes::Table | Takes::Tables { most: None } => String::new(),
        Takes::Tables { most: Some(most) } => format!("up to {most} tables"),
        takes => takes.to_string(),
    };
    let says_range = comment.contains(&range)
        || !key.takes.words().is_empty()
            && key.takes.words().iter().all(|word| comment.contains(&format!("\"{word}\"")));
    if !comment.contains(key.doc) {
        return Some(key.doc.into());
    }
    if !says_default && !is_table {
        return Some(default);
    }
    if let Some(recommended) = key.recommended {
        return Some(recommended.to_string()).filter(|text| !comment.contains(text));
    }
    (!says_range).then_some(range)
}

#[test]
fn the_example_documents_every_key_and_no_other() {
    let documented = documented();
    for one in &documented {
        assert!(find(&one.table, &one.key).is_some(), "{} of [{}] is not in the key table", one.key, one.table);
    }
    for table in TABLES {
        for key in table.keys {
            let of = |one: &&Documented| one.table == table.name && one.key == key.name;
            let mut comments = documented.iter().filter(of).map(|one| one.comment.as_str()).peekable();
            assert!(comments.peek().is_some(), "{} of {} is not in the example", key.name, table.header);
            // The keys that all timeouts share are documented there.
            if table.name == "service.timeouts" && find("timeouts", key.name).is_some() {
                continue;
            }
            let best = comments.max_by_key(|comment| comment.len()).unwrap_or_default();
            let lacking = lacks(best, key);
            assert!(lacking.is_none(), "{} of {} does not say {lacking:?}: {best:?}", key.name, table.header);
        }
    }
}
