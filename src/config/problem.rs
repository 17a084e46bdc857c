//! What is wrong with a configuration, and where: all problems of one file at once.
//!
//! It must not know what a configuration means; it is given spans and texts.

use super::render;
use serde::Serialize;
use std::fmt;
use std::ops::Range;

/// A range of bytes of the text.
pub(super) type Span = Range<usize>;

/// Characters of the offending text that a problem repeats.
const EXCERPT: usize = 80;

/// Whether a problem prevents the configuration from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but the operator should look at it.
    Warning,
}

/// Another place that a problem involves, such as the first of two equal names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is at that place.
    pub label: String,
    #[serde(skip)]
    pub(super) span: Span,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether it prevents the configuration from being used.
    pub severity: Severity,
    /// Line, from 1; also 1 where the whole file is meant.
    pub line: usize,
    /// Column in characters, from 1; also 1 where the whole file is meant.
    pub column: usize,
    /// First line of the offending text, at most 80 characters; empty where the whole file is meant.
    pub excerpt: String,
    /// What is wrong, in one sentence.
    pub title: String,
    /// Annotation of the offending text; may be empty.
    pub label: String,
    /// What is allowed, or what to do about it.
    pub help: String,
    /// Other places that the problem involves.
    pub related: Vec<Place>,
    #[serde(skip)]
    pub(super) span: Span,
}

/// The text that a problem's spans point into.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Source {
    pub(super) origin: String,
    pub(super) text: String,
    /// Servers from outside that are read as part of it, as tables; see `outside`.
    pub(super) outside: String,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
}

impl Source {
    pub(super) fn new(text: &str, origin: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Source { origin: origin.into(), text: text.into(), outside: String::new(), lines }
    }

    /// Index of the line that contains an offset, from 0.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset) - 1
    }

    /// Span of the lines `first` to `last`, without the last line's line ending.
    pub(super) fn lines(&self, first: usize, last: usize) -> Span {
        let end = self.lines.get(last + 1).map_or(self.text.len(), |next| next - 1);
        let start = self.lines[first];
        start..start + self.text[start..end].trim_end_matches('\r').len()
    }

    /// Line and column, from 1, the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_of(offset);
        (line + 1, self.text[self.lines[line]..offset].chars().count() + 1)
    }

    /// The nearest span within the text, on character boundaries and not past the last line.
    fn clamp(&self, span: Span) -> Span {
        if span.start >= self.text.len() {
            let start = self.text.trim_end_matches(['\n', '\r']).len();
            return start..start;
        }
        let start = self.text.floor_char_boundary(span.start);
        let end = span.end.clamp(start, self.text.len());
        start..self.text.ceil_char_boundary(end)
    }

    fn excerpt(&self, span: &Span) -> String {
        self.text[span.clone()].lines().next().unwrap_or("").chars().take(EXCERPT).collect()
    }
}

/// A problem as a check reports it: with spans, not yet with lines.
#[derive(Debug)]
pub(super) struct Draft(Problem);

impl Draft {
    fn new(severity: Severity, span: Span, title: String) -> Self {
        Draft(Problem {
            severity,
            line: 1,
            column: 1,
            excerpt: String::new(),
            title,
            label: String::new(),
            help: String::new(),
            related: Vec::new(),
            span,
        })
    }

    /// An error at a span; `0..0` is the whole file.
    pub(super) fn error(span: Span, title: impl Into<String>) -> Self {
        Draft::new(Severity::Error, span, title.into())
    }

    /// A warning at a span.
    pub(super) fn warning(span: Span, title: impl Into<String>) -> Self {
        Draft::new(Severity::Warning, span, title.into())
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.0.label = label.into();
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = help.into();
        self
    }

    pub(super) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.0.related.push(Place { line: 1, column: 1, label: label.into(), span });
        self
    }

    pub(super) fn is_error(&self) -> bool {
        self.0.severity == Severity::Error
    }

    fn place(self, source: &Source) -> Problem {
        let mut problem = self.0;
        if problem.span != (0..0) {
            problem.span = source.clamp(problem.span);
            (problem.line, problem.column) = source.position(problem.span.start);
            problem.excerpt = source.excerpt(&problem.span);
        }
        for place in &mut problem.related {
            place.span = source.clamp(place.span.clone());
            (place.line, place.column) = source.position(place.span.start);
        }
        problem
    }
}

/// Gives drafts their lines and columns, and sorts them in the order of the file.
pub(super) fn place_all(drafts: Vec<Draft>, source: &Source) -> Vec<Problem> {
    let mut problems: Vec<Problem> = drafts.into_iter().map(|draft| draft.place(source)).collect();
    problems.sort_by_key(|problem| (problem.span.start, problem.severity));
    problems
}

/// Why a configuration cannot be used: every problem found, including warnings, in the order of the file.
///
/// `Display` renders excerpts of the file without colours. The JSON form has the members `origin` and `problems`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    origin: String,
    problems: Vec<Problem>,
    #[serde(skip)]
    source: Box<Source>,
    /// Whether checks were skipped because the text could not be parsed.
    incomplete: bool,
}

impl ConfigError {
    pub(super) fn new(drafts: Vec<Draft>, source: Source, incomplete: bool) -> Self {
        let problems = place_all(drafts, &source);
        ConfigError { origin: source.origin.clone(), problems, source: Box::new(source), incomplete }
    }

    /// Returns every problem, in the order of the file; at least one is an error.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns the name of the file, as the caller gave it.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Renders the problems with excerpts of the file, then a line that counts them, without a line ending.
    ///
    /// At most 50 problems are shown. `color` adds ANSI colours.
    pub fn render(&self, color: bool) -> String {
        let mut out = render::problems(&self.problems, &self.source, color);
        let warnings = self.problems.iter().filter(|problem| problem.severity == Severity::Warning).count();
        out += &format!("{}: {}", self.origin, plural(self.problems.len() - warnings, "error"));
        if warnings > 0 {
            out += &format!(", {}", plural(warnings, "warning"));
        }
        if self.incomplete {
            out += "; the rest is checked once the file is valid TOML";
        }
        out
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigError {}

/// Counts things: `1 pool`, `2 pools`, `262,144 flows`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    plural_of(count, noun, &format!("{noun}s"))
}

/// Counts things whose plural is irregular.
pub(super) fn plural_of(count: usize, one: &str, more: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { more })
}

/// Groups digits by three: `262,144`.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let source = Source::new("a\nüb = 1\n", "x.toml");
        for (offset, want) in [(0, (1, 1)), (2, (2, 1)), (4, (2, 2)), (5, (2, 3))] {
            assert_eq!(source.position(offset), want, "offset {offset}");
        }
    }

    #[test]
    fn a_span_past_the_text_points_at_the_end_of_its_last_line() {
        let source = Source::new("ab\nü\n\n", "x.toml");
        assert_eq!(source.clamp(99..120), 5..5);
        assert_eq!(source.clamp(4..4), 3..5, "inside a character");
        assert_eq!(Source::new("", "x.toml").clamp(5..9), 0..0);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, want) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (262_144, "262,144"), (100_000_000, "100,000,000")]
        {
            assert_eq!(grouped(number), want);
        }
    }
}
