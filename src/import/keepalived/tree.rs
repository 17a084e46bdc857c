//! The blocks of keepalived.conf: lines of words, and braces.

use super::super::Notes;
use super::{Place, place_of};

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) place: Place,
}

/// A line, and the block behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) words: Vec<Word>,
    pub(super) items: Vec<Item>,
}

impl Item {
    /// Its first word.
    pub(super) fn word(&self) -> &str {
        self.words.first().map_or("", |word| &word.text)
    }

    pub(super) fn place(&self) -> Place {
        self.words.first().map_or(Place::default(), |word| word.place)
    }

    /// One of its further words.
    pub(super) fn argument(&self, at: usize) -> Option<&str> {
        self.words.get(at).map(|word| word.text.as_str())
    }

    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.words.iter().skip(1).map(|word| word.text.as_str())
    }

    /// The item below it with this first word; of several the last, as it would be the one in effect.
    pub(super) fn find(&self, word: &str) -> Option<&Item> {
        self.items.iter().rev().find(|item| item.word() == word)
    }
}

/// Most blocks within each other.
const DEEPEST: usize = 16;

/// Reads the lines of a file.
pub(super) fn read(text: &str, notes: &mut Notes) -> Vec<Item> {
    // The open blocks, the innermost last.
    let mut open: Vec<Vec<Item>> = vec![Vec::new()];
    let mut names: Vec<(&'static str, Place)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words = words(line, number);
        if !is_followed(&words, notes) {
            continue;
        }
        let mut item: Vec<Word> = Vec::new();
        for word in words {
            match word.text.as_str() {
                "{" => {
                    let inner = std::mem::take(&mut item);
                    let innermost = open.last_mut().expect("the file itself is never closed");
                    if !inner.is_empty() {
                        innermost.push(Item { words: inner, items: Vec::new() });
                    }
                    if innermost.is_empty() || open.len() > DEEPEST {
                        notes.add(word.place, "a block without a name, or too deep", "correct it");
                        return open.swap_remove(0);
                    }
                    names.push(("", word.place));
                    open.push(Vec::new());
                }
                "}" => {
                    close(&mut item, &mut open);
                    if names.pop().is_none() {
                        notes.add(word.place, "a closing brace without an opening one", "remove it");
                        continue;
                    }
                    let items = open.pop().unwrap_or_default();
                    if let Some(of) = open.last_mut().and_then(|outer| outer.last_mut()) {
                        of.items = items;
                    }
                }
                _ => item.push(word),
            }
        }
        close(&mut item, &mut open);
    }
    if let Some((_, place)) = names.pop() {
        notes.add(place, "this block is not closed", "add the closing brace");
    }
    while open.len() > 1 {
        let items = open.pop().unwrap_or_default();
        if let Some(of) = open.last_mut().and_then(|outer| outer.last_mut()) {
            of.items = items;
        }
    }
    open.swap_remove(0)
}

/// Returns whether a line is read; notes what it has that is not.
fn is_followed(words: &[Word], notes: &mut Notes) -> bool {
    let Some(word) = words.first() else { return true };
    let todo = match word.text.as_str() {
        "include" => Some("import that file, too, or write its text here"),
        text if text.starts_with('@') => Some("remove the condition, and the line where it does not hold"),
        text if text.starts_with('~') || text.starts_with('$') => {
            Some("write the text that it stands for, as `keepalived --dump-conf` shows it")
        }
        _ => None,
    };
    if let Some(todo) = todo {
        notes.add(word.place, format!("{} is not followed", word.text), todo);
        return false;
    }
    if let Some(word) = words.iter().find(|word| word.text.starts_with('$')) {
        notes.add(word.place, format!("{} is not replaced", word.text), "write the text that it stands for");
    }
    true
}

fn close(item: &mut Vec<Word>, open: &mut [Vec<Item>]) {
    if let (false, Some(innermost)) = (item.is_empty(), open.last_mut()) {
        innermost.push(Item { words: std::mem::take(item), items: Vec::new() });
    }
}

/// Splits a line at blanks; `#` and `!` begin comments, braces are words, quotes keep blanks.
fn words(line: &str, number: usize) -> Vec<Word> {
    let (mut found, mut word, mut quoted): (Vec<Word>, Option<Word>, bool) = (Vec::new(), None, false);
    for (column, c) in line.chars().enumerate() {
        let place = place_of(number, column + 1);
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert(Word { text: String::new(), place });
            }
            _ if quoted => word.get_or_insert(Word { text: String::new(), place }).text.push(c),
            '#' | '!' => break,
            '{' | '}' => {
                found.extend(word.take());
                found.push(Word { text: c.into(), place });
            }
            c if c.is_whitespace() => found.extend(word.take()),
            c => word.get_or_insert(Word { text: String::new(), place }).text.push(c),
        }
    }
    found.extend(word);
    found
}
