//! How answers are printed: as text that fits the terminal, as JSON lines, or as comma-separated values.

use super::{Args, Failed};
use equipoise::control::render::{CsvRow, Width, csv_header, csv_line};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// The format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Csv,
}

/// Where answers go, and how.
pub struct Output<'w> {
    pub out: &'w mut dyn Write,
    pub format: Format,
    pub width: Width,
}

/// The width of tables: that of the terminal, or of COLUMNS; any where nobody looks.
fn width(args: &Args) -> Width {
    if args.wide {
        return Width::Any;
    }
    let set = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    let terminal = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    let found = if io::stdout().is_terminal() { terminal().or(set) } else { set };
    found.map_or(Width::Any, Width::Most)
}

/// The height of the terminal; none where there is none.
pub fn height() -> Option<u64> {
    terminal_size::terminal_size_of(io::stdout()).map(|(_, height)| u64::from(height.0))
}

impl<'w> Output<'w> {
    pub fn new(args: &Args, out: &'w mut dyn Write) -> Self {
        let format = match (args.json, args.csv) {
            (true, _) => Format::Json,
            (_, true) => Format::Csv,
            _ => Format::Text,
        };
        Output { out, format, width: width(args) }
    }

    pub fn is_text(&self) -> bool {
        self.format == Format::Text
    }

    /// Prints rows, or the text.
    pub fn rows<T: CsvRow>(&mut self, rows: &[T], text: impl FnOnce(Width) -> String) -> Result<(), Failed> {
        match self.format {
            Format::Json => rows.iter().try_for_each(|row| self.line(row)),
            Format::Csv => {
                self.out.write_all(csv_header::<T>().as_bytes())?;
                Ok(rows.iter().try_for_each(|row| self.out.write_all(csv_line(row).as_bytes()))?)
            }
            Format::Text => self.text(&text(self.width)),
        }
    }

    /// Prints values that have no columns, or the text.
    pub fn values<T: Serialize>(&mut self, values: &[T], text: impl FnOnce() -> String) -> Result<(), Failed> {
        match self.format {
            Format::Json | Format::Csv => values.iter().try_for_each(|value| self.line(value)),
            Format::Text => self.text(&text()),
        }
    }

    /// Prints one line of JSON.
    pub fn line<T: Serialize>(&mut self, row: &T) -> Result<(), Failed> {
        serde_json::to_writer(&mut *self.out, row).map_err(|error| Failed::Output(error.into()))?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Prints text.
    pub fn text(&mut self, text: &str) -> Result<(), Failed> {
        Ok(self.out.write_all(text.as_bytes())?)
    }
}
