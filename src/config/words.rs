//! Words in messages: quoting, lists, and guesses at what was meant.
//!
//! It must not know what the words stand for.

/// Characters of a value that a message repeats.
const QUOTED: usize = 60;

/// Quotes a value, escapes what a terminal would obey, and cuts it short if it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Repeats a name as it is, or quoted if a terminal would obey a part of it or could not show where it ends.
pub(super) fn plain(name: &str) -> String {
    // Servers from outside are named by address and port: `web/[2001:db8::9]:8080`.
    let sound = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '[' | ']');
    let short = name.chars().nth(QUOTED).is_none();
    if !name.is_empty() && short && name.chars().all(sound) { name.into() } else { quoted(name) }
}

/// Lists quoted words: `"a", "b"`.
pub(super) fn all(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")
}

/// Lists quoted words, at most ten of them: `"a", "b" and 7 more`.
pub(super) fn list(words: &[&str]) -> String {
    let mut out = all(&words[..words.len().min(10)]);
    if words.len() > 10 {
        out += &format!(" and {} more", words.len() - 10);
    }
    out
}

/// Proposes the closest word: `did you mean "weight"? `; empty where none is close.
pub(super) fn did_you_mean<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> String {
    closest(text, words).map_or(String::new(), |word| format!("did you mean {}? ", quoted(word)))
}

/// Finds the closest word, if any is close.
///
/// Only the first hundred words are compared, so that the cost of a file with thousands of mistakes stays linear.
pub(crate) fn closest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let limit = (text.chars().count() / 3).max(1);
    if text.is_empty() || limit > 10 {
        return None;
    }
    let near = words.take(100).filter(|word| word.len().abs_diff(text.len()) <= 2 * limit);
    near.map(|word| (distance(text, word), word)).filter(|(far, _)| *far <= limit).min().map(|(_, word)| word)
}

/// Counts the letters to add, remove, change or swap with the next one to turn one word into the other (optimal
/// string alignment); case, and `_` for `-`, cost nothing.
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
    fn a_close_word_is_proposed_and_a_distant_one_is_not() {
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
    fn a_quoted_value_is_short_and_safe_for_a_terminal() {
        assert_eq!(quoted("a\u{1b}[2J\n"), r#""a\u{1b}[2J\n""#);
        assert_eq!(quoted(&"ü".repeat(61)), format!("{:?}...", "ü".repeat(60)));
    }
}
