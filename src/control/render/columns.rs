//! Columns of text, padded and aligned, as wide as there is room.
//!
//! Plain string operations: for the million rows of a full table, a general table printer took minutes.

use std::borrow::Cow;

/// How wide a table may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Width {
    /// As wide as its rows are.
    #[default]
    Any,
    /// At most so many characters per line, where columns can be left out or shortened.
    Most(usize),
}

/// What is done about a table that is too wide, step by step until it fits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fit {
    /// Leaves a column out.
    Without(&'static str),
    /// Shortens the cells of a column, but not below so many characters.
    Cut(&'static str, usize),
    /// Breaks the text of the last column into several lines, of at least so many characters.
    Wrap(usize),
}

/// Columns; a `>` before a header aligns its column right.
pub(super) struct Columns<const N: usize> {
    headers: [&'static str; N],
    rows: Vec<[String; N]>,
    steps: &'static [Fit],
    if_any: &'static [&'static str],
}

/// How the columns of a table are laid out.
#[derive(Debug, Clone)]
pub(super) struct Layout<const N: usize> {
    /// Of each column the least width so far.
    widths: [usize; N],
    shown: [bool; N],
    wraps: bool,
    is_fixed: bool,
}

impl<const N: usize> Default for Layout<N> {
    fn default() -> Self {
        Layout { widths: [0; N], shown: [true; N], wraps: false, is_fixed: false }
    }
}

impl<const N: usize> Layout<N> {
    /// Returns whether anything has been printed.
    pub(super) fn has_begun(&self) -> bool {
        self.is_fixed
    }

    fn total(&self) -> usize {
        let shown = self.widths.iter().zip(self.shown).filter(|(_, shown)| *shown).map(|(width, _)| width + GAP);
        shown.sum::<usize>().saturating_sub(GAP)
    }
}

/// Blanks between two columns.
pub(super) const GAP: usize = 2;

/// Replaces control characters: names come from configurations and sockets and must not control the terminal.
pub(super) fn printable(cell: String) -> String {
    if cell.chars().any(char::is_control) { cell.replace(char::is_control, "?") } else { cell }
}

impl<const N: usize> Columns<N> {
    pub(super) fn new(headers: [&'static str; N]) -> Self {
        Columns { headers, rows: Vec::new(), steps: &[], if_any: &[] }
    }

    /// Says how the table is made narrower.
    pub(super) fn fits_by(self, steps: &'static [Fit]) -> Self {
        Columns { steps, ..self }
    }

    /// Names columns that are left out where no row has anything in them.
    pub(super) fn if_any(self, columns: &'static [&'static str]) -> Self {
        Columns { if_any: columns, ..self }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(printable));
    }

    fn place(&self, column: &str) -> Option<usize> {
        let found = self.headers.iter().position(|header| header.trim_start_matches('>') == column);
        debug_assert!(found.is_some(), "no column {column}");
        found
    }

    /// Decides which columns are shown and how wide they are.
    fn lay_out(&self, layout: &mut Layout<N>, width: Width) {
        for (column, least) in layout.widths.iter_mut().enumerate() {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            let header = self.headers[column].trim_start_matches('>').len();
            *least = cells.chain([header, *least]).max().unwrap_or(0);
        }
        if !layout.is_fixed {
            for column in self.if_any.iter().filter_map(|column| self.place(column)) {
                layout.shown[column] = self.rows.iter().any(|row| !row[column].is_empty());
            }
        }
        let Width::Most(most) = width else { return };
        let natural = layout.widths;
        for step in self.steps {
            let over = layout.total().saturating_sub(most);
            if over == 0 {
                break;
            }
            match step {
                // The columns of later parts are those of the first.
                Fit::Without(_) if layout.is_fixed => {}
                Fit::Without(column) => {
                    if let Some(place) = self.place(column) {
                        layout.shown[place] = false;
                    }
                }
                Fit::Cut(column, least) => {
                    if let Some(width) = self.place(column).and_then(|place| layout.widths.get_mut(place)) {
                        *width = (*width).min(width.saturating_sub(over).max(*least));
                    }
                }
                Fit::Wrap(least) => {
                    if let Some(width) = layout.widths.last_mut() {
                        *width = (*width).min(width.saturating_sub(over).max(*least));
                    }
                    layout.wraps = true;
                }
            }
        }
        // A column left out later may have made more room than was needed.
        for (place, natural) in natural.into_iter().enumerate().filter(|(place, _)| layout.shown[*place]) {
            let room = most.saturating_sub(layout.total());
            layout.widths[place] = natural.min(layout.widths[place] + room);
        }
    }

    /// Prints the lines without trailing blanks.
    pub(super) fn print(&self, layout: &mut Layout<N>, header: bool, width: Width) -> String {
        self.lay_out(layout, width);
        layout.is_fixed = true;
        let mut text = String::new();
        if header {
            self.line(&self.headers.map(|header| Cow::Borrowed(header.trim_start_matches('>'))), layout, &mut text);
        }
        for row in &self.rows {
            let last = N - 1;
            if layout.wraps && row[last].chars().count() > layout.widths[last] {
                let mut cells = row.each_ref().map(|cell| Cow::Borrowed(cell.as_str()));
                for part in wrapped(&row[last], layout.widths[last]) {
                    cells[last] = Cow::Owned(part);
                    self.line(&cells, layout, &mut text);
                    cells = std::array::from_fn(|_| Cow::Borrowed(""));
                }
            } else {
                self.line(&row.each_ref().map(|cell| Cow::Borrowed(cell.as_str())), layout, &mut text);
            }
        }
        text
    }

    fn line(&self, cells: &[Cow<'_, str>; N], layout: &Layout<N>, text: &mut String) {
        let shown = cells.iter().zip(self.headers).zip(layout.widths).zip(layout.shown);
        for (((cell, header), width), _) in shown.filter(|(_, shown)| *shown) {
            let cell = shortened(cell, width);
            let blanks = width - cell.chars().count();
            let (before, after) = if header.starts_with('>') { (blanks, 0) } else { (0, blanks) };
            text.extend(std::iter::repeat_n(' ', before));
            text.push_str(&cell);
            text.extend(std::iter::repeat_n(' ', after + GAP));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }

    /// Prints the header and all rows, and names the columns that were left out for lack of room.
    pub(super) fn into_text(self, width: Width) -> String {
        let mut layout = Layout::default();
        let text = self.print(&mut layout, true, width);
        text + &within(&self.left_out(&layout), width)
    }

    /// Names the columns that were left out for lack of room, as one line; empty if none was.
    pub(super) fn left_out(&self, layout: &Layout<N>) -> String {
        let hidden = |column: usize| {
            let name = self.headers[column].trim_start_matches('>');
            let is_empty = self.if_any.contains(&name) && self.rows.iter().all(|row| row[column].is_empty());
            (!layout.shown[column] && !is_empty).then_some(name)
        };
        let names: Vec<&str> = (0..N).filter_map(hidden).collect();
        if names.is_empty() || self.rows.is_empty() {
            return String::new();
        }
        format!("(not shown: {}; --wide shows all)\n", names.join(", ").to_lowercase())
    }
}

/// Shortens a cell that is longer than its column.
fn shortened(cell: &str, width: usize) -> Cow<'_, str> {
    if cell.chars().count() <= width {
        return Cow::Borrowed(cell);
    }
    let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    Cow::Owned(kept + if width > 0 { "…" } else { "" })
}

/// Breaks a text into lines of at most `width` characters, at blanks where there are any.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line, mut len) = (Vec::new(), String::new(), 0);
    for word in text.split(' ') {
        let mut rest = word;
        let mut count = rest.chars().count();
        if len > 0 && len + 1 + count > width {
            lines.push(std::mem::take(&mut line));
            len = 0;
        }
        while count > width.max(1) {
            let end = rest.char_indices().nth(width.max(1)).map_or(rest.len(), |(end, _)| end);
            lines.push(rest[..end].to_owned());
            rest = &rest[end..];
            count = rest.chars().count();
        }
        if len > 0 {
            line.push(' ');
            len += 1;
        }
        line.push_str(rest);
        len += count;
    }
    lines.push(line);
    lines
}

/// Breaks lines that are longer than there is room.
pub(super) fn within(text: &str, width: Width) -> String {
    let Width::Most(most) = width else { return text.to_owned() };
    let lines = text.lines().flat_map(|line| wrapped(line, most));
    lines.map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[Fit] = &[Fit::Without("TWO"), Fit::Cut("ONE", 4), Fit::Wrap(6)];

    fn table(width: Width) -> String {
        let mut columns = Columns::new(["ONE", ">TWO", "NONE", "WHY"]).fits_by(STEPS).if_any(&["NONE"]);
        columns.row(["a longer one".into(), "2".into(), String::new(), "for a good reason".into()]);
        columns.row(["b".into(), "22".into(), String::new(), "x".into()]);
        columns.into_text(width)
    }

    #[test]
    fn a_table_is_as_wide_as_there_is_room() {
        let all = "ONE           TWO  WHY\na longer one    2  for a good reason\nb              22  x\n";
        assert_eq!((table(Width::Any), table(Width::Most(36))), (all.into(), all.into()));
        let less =
            "ONE           WHY\na longer one  for a good reason\nb             x\n(not shown: two; --wide shows all)\n";
        assert_eq!(table(Width::Most(35)), less);
        let cut =
            "ONE         WHY\na longer …  for a good reason\nb           x\n(not shown: two; --wide shows\nall)\n";
        assert_eq!(table(Width::Most(29)), cut);
        let wrapped =
            "ONE   WHY\na l…  for a\n      good\n      reason\nb     x\n(not shown:\ntwo; --wide\nshows all)\n";
        assert_eq!(table(Width::Most(12)), wrapped);
    }

    #[test]
    fn text_is_broken_at_blanks_and_words_only_where_they_must() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrapped("a abcdefgh", 4), ["a", "abcd", "efgh"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(within("ab cd\nef\n", Width::Most(3)), "ab\ncd\nef\n");
    }
}
