//! Rust sources as far as their imports go: tokens, and the paths that they make up.

/// Splits source into words, `::` and other single characters, without comments and literals.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let rest = &text[at..];
        let c = rest.chars().next().expect("not at the end");
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let end = at + word;
        at += if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(len) = raw_string(rest) {
            len
        } else if rest.strip_prefix("r#").is_some_and(|name| name.starts_with(char::is_alphabetic)) {
            2
        } else if c == '"' {
            string(rest)
        } else if c == '\'' {
            char_or_lifetime(rest)
        } else if word > 0 {
            found.push(text[at..end].to_string());
            word
        } else if rest.starts_with("::") {
            found.push("::".into());
            2
        } else {
            if !c.is_whitespace() {
                found.push(c.to_string());
            }
            c.len_utf8()
        };
    }
    found
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        (depth, at) = match rest {
            [b'/', b'*', ..] => (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth - 1, at + 2),
            _ => (depth, at + 1),
        };
        if depth == 0 {
            break;
        }
    }
    at
}

fn raw_string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r"].into_iter().find(|prefix| text.starts_with(prefix))?;
    let hashes = text[prefix.len()..].bytes().take_while(|byte| *byte == b'#').count();
    let open = prefix.len() + hashes;
    text[open..].starts_with('"').then_some(())?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(text[open + 1..].find(&close).map_or(text.len(), |end| open + 1 + end + close.len()))
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

fn char_or_lifetime(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => text[3..].find('\'').map_or(1, |end| 3 + end + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Removes inline test modules: `#[cfg(test)] mod name {` up to the matching brace.
pub(super) fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let opening = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = tokens[at..].iter().zip(opening).filter(|(have, want)| have == want).count() == opening.len();
        if !starts || tokens.get(at + 9).map(String::as_str) != Some("{") {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        at += 9;
        while at < tokens.len() {
            depth += match tokens[at].as_str() {
                "{" => 1,
                "}" => -1,
                _ => 0,
            };
            at += 1;
            if depth == 0 {
                break;
            }
        }
    }
    kept
}

/// Returns every path in the source: those of `use` declarations, expanded, and inline ones.
///
/// A path that begins with `::` begins with an empty name.
pub(super) fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        match tokens[at].as_str() {
            // `use<'a>` in a bound is not a declaration.
            "use" if tokens.get(at + 1).is_some_and(|next| next != "<") => {
                at = tree(tokens, at + 1, &[], &mut found);
            }
            "crate" if at > 0 && tokens[at - 1] == "extern" => {
                found.push(tokens.get(at + 1).into_iter().cloned().collect());
                at += 2;
            }
            token if is_name(token) || token == "::" => {
                let mut path = Vec::new();
                at = names(tokens, at, &mut path);
                if path.len() > 1 {
                    found.push(path);
                }
            }
            _ => at += 1,
        }
    }
    found
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads `a::b::c` at `at`; returns where it ends, after a trailing `::` if there is one.
fn names(tokens: &[String], mut at: usize, path: &mut Vec<String>) -> usize {
    if tokens[at] == "::" {
        path.push(String::new());
        at += 1;
    }
    while at < tokens.len() && (is_name(&tokens[at]) || tokens[at] == "*" && !path.is_empty()) {
        path.push(tokens[at].clone());
        at += 1;
        if tokens.get(at).map(String::as_str) != Some("::") {
            return at;
        }
        at += 1;
    }
    at
}

/// Expands the `use` tree at `at`; returns where it ends.
fn tree(tokens: &[String], at: usize, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut at = if tokens.get(at).is_some_and(|token| token == "{") { at } else { names(tokens, at, &mut path) };
    if tokens.get(at).map(String::as_str) != Some("{") {
        found.push(path);
        // `as name`
        while at < tokens.len() && !matches!(tokens[at].as_str(), "," | "}" | ";") {
            at += 1;
        }
        return at;
    }
    at += 1;
    while at < tokens.len() && tokens[at] != "}" {
        at = tree(tokens, at, &path, found);
        if tokens.get(at).is_some_and(|token| token == ",") {
            at += 1;
        }
    }
    at + 1
}
