//! Where pools take servers from, as a table.

use super::{Columns, Fit, Width, count, duration, printable, within};
use crate::control::protocol::SourceRow;

/// Servers left out that are shown; `--json` has all.
const MOST_SHOWN: usize = 5;

/// Prints the sources of servers: a header, one line per source, and below it what is wrong.
pub fn sources_table(rows: &[SourceRow], width: Width) -> String {
    let mut columns = Columns::new(["POOL", "KIND", "FROM", ">SERVERS", ">LAST GOOD", ">NEXT", "STATE"]).fits_by(&[
        Fit::Cut("FROM", 20),
        Fit::Without("NEXT"),
        Fit::Cut("POOL", 12),
        Fit::Wrap(16),
    ]);
    let mut notes = String::new();
    for row in rows {
        columns.row([
            row.pool.clone(),
            row.kind.clone(),
            row.from.clone(),
            count(row.servers),
            row.good_ms.map_or("never".into(), |age| format!("{} ago", duration(age))),
            format!("in {}", duration(row.next_ms)),
            match (row.error_for_ms, row.left_out.len()) {
                (Some(since), _) => format!("error for {}", duration(since)),
                (None, 0) => "good".into(),
                (None, left) => format!("good, {left} left out"),
            },
        ]);
        let pool = printable(row.pool.clone());
        if let Some(error) = &row.error {
            notes += &format!("{pool}: {}\n", printable(error.clone()));
        }
        for text in row.left_out.iter().take(MOST_SHOWN) {
            notes += &format!("{pool} leaves out {}\n", printable(text.clone()));
        }
        if let Some(more) = row.left_out.len().checked_sub(MOST_SHOWN).filter(|more| *more > 0) {
            notes += &format!("{pool} leaves out {more} more\n");
        }
    }
    columns.into_text(width) + &within(&notes, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_one_line_and_what_is_wrong_follows() {
        let good = SourceRow {
            pool: "web".into(),
            kind: "dns-srv".into(),
            from: "_web._tcp.example".into(),
            servers: 3,
            names: Vec::new(),
            good_ms: Some(12_000),
            next_ms: 18_000,
            error: None,
            error_for_ms: None,
            left_out: (1..=7).map(|n| format!("127.0.0.{n}:80: loopback")).collect(),
        };
        let bad = SourceRow {
            pool: "mail".into(),
            kind: "file".into(),
            from: "/etc/mail.servers".into(),
            servers: 0,
            names: Vec::new(),
            good_ms: None,
            next_ms: 900,
            error: Some("line 3: unknown key \"wieght\"\u{1b}".into()),
            error_for_ms: Some(61_000),
            left_out: Vec::new(),
        };
        let text = sources_table(&[good, bad], Width::Any);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3 + 6 + 1, "{text}");
        assert!(lines[1].contains("12.0s ago") && lines[1].ends_with("good, 7 left out"), "{text}");
        assert!(lines[2].contains("never") && lines[2].ends_with("error for 1m01s"), "{text}");
        assert_eq!(lines[8], "web leaves out 2 more");
        assert_eq!(lines[9], "mail: line 3: unknown key \"wieght\"?");
    }
}
