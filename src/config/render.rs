//! Renders problems as text, with excerpts of the file in the style of rustc.
//!
//! It must not know what a configuration means.

use super::problem::{Problem, Severity, Source, plural};
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use std::borrow::Cow;

/// Most problems shown per file; the rest appears once these are fixed.
const SHOWN: usize = 50;

/// Renders each problem with its excerpt, followed by an empty line.
pub(super) fn problems(problems: &[Problem], source: &Source, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for problem in problems.iter().take(SHOWN) {
        out += &renderer.render(&[group(problem, source)]);
        out += "\n\n";
    }
    if problems.len() > SHOWN {
        out += &format!("... and {}\n\n", plural(problems.len() - SHOWN, "more problem"));
    }
    out
}

fn group<'a>(problem: &'a Problem, source: &'a Source) -> Group<'a> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(&problem.title);
    let group = if problem.span == (0..0) {
        title.element(Origin::path(&source.origin))
    } else {
        title.element(snippet(problem, source))
    };
    if problem.help.is_empty() { group } else { group.element(Level::HELP.message(&problem.help)) }
}

/// Makes the excerpt from the first to the last line that the problem involves. The renderer folds what is between; its cost
/// grows with the length of the excerpt.
fn snippet<'a>(problem: &'a Problem, source: &'a Source) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let spans = || std::iter::once(&problem.span).chain(problem.related.iter().map(|place| &place.span));
    let start = spans().map(|span| span.start).min().unwrap_or(0);
    let end = spans().map(|span| span.end).max().unwrap_or(start);
    let first = source.line_of(start);
    let lines = source.lines(first, source.line_of(end));
    let inside =
        |span: &std::ops::Range<usize>| span.start.min(lines.end) - lines.start..span.end.min(lines.end) - lines.start;
    let primary = AnnotationKind::Primary.span(inside(&problem.span));
    let primary = if problem.label.is_empty() { primary } else { primary.label(&problem.label) };
    Snippet::source(harmless(&source.text[lines.clone()]))
        .line_start(first + 1)
        .path(&source.origin)
        .annotation(primary)
        .annotations(
            problem.related.iter().map(|place| AnnotationKind::Context.span(inside(&place.span)).label(&place.label)),
        )
}

/// Replaces the control characters that the renderer lets through (C1, U+0080 to U+009F), which some terminals obey. The
/// replacement has the same length in bytes, so that spans stay right.
fn harmless(text: &str) -> Cow<'_, str> {
    let c1 = |c: char| ('\u{80}'..='\u{9f}').contains(&c);
    if text.contains(c1) { text.replace(c1, "\u{b7}").into() } else { text.into() }
}
