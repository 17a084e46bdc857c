//! The explanation of one packet of a capture, and whether the packet met the verdict that was explained.

use super::files::ReplayError;
use super::report::Format;
use crate::control::{difference, render};
use crate::engine::{Engine, Explanation, Verdict};
use crate::time::Instant;
use serde_json::json;
use std::io::{self, Write};

/// The frame that a replay is asked to explain.
#[derive(Debug, Default)]
pub(super) enum Asked {
    /// None.
    #[default]
    Nothing,
    /// The frame with this number.
    Frame(u64),
    /// It has no complete IP packet.
    Skipped { why: String },
    Explained {
        explanation: Box<Explanation>,
        /// When, in the notation of reports.
        time: String,
        /// How the verdict differs from the explanation.
        difference: Option<String>,
    },
}

impl Asked {
    /// Whether it is this frame that is to be explained.
    pub(super) fn wants(&self, number: u64) -> bool {
        matches!(self, Asked::Frame(wanted) if *wanted == number)
    }

    /// Whether the frame has come.
    pub(super) fn is_answered(&self) -> bool {
        !matches!(self, Asked::Nothing | Asked::Frame(_))
    }

    /// Takes note of a frame without a complete packet.
    pub(super) fn skipped(&mut self, number: u64, why: &str) {
        if self.wants(number) {
            *self = Asked::Skipped { why: why.into() };
        }
    }

    /// Compares an explanation with the verdict that followed, and the packet as it was then.
    pub(super) fn explained(
        explanation: Explanation,
        time: String,
        engine: &Engine,
        now: Instant,
        (verdict, went): (&Verdict, &[u8]),
    ) -> Self {
        let difference = difference(&explanation.outcome, engine, now, verdict, went);
        Asked::Explained { explanation: Box::new(explanation), time, difference }
    }

    /// Writes the explanation.
    pub(super) fn answer(self, number: u64, format: Format, out: &mut dyn Write) -> Result<(), ReplayError> {
        let (explanation, time, difference) = match self {
            Asked::Explained { explanation, time, difference } => (explanation, time, difference),
            Asked::Skipped { why } => return Err(ReplayError::NoPacket { number, why }),
            // The number was checked: only damage can come before the frame.
            Asked::Nothing | Asked::Frame(_) => {
                return Err(ReplayError::NoPacket { number, why: "the capture ends before it".into() });
            }
        };
        write(&explanation, number, &time, difference.as_deref(), format, out).map_err(ReplayError::Report)?;
        match difference {
            Some(how) => Err(ReplayError::Differs { number, how }),
            None => Ok(()),
        }
    }
}

fn write(
    explanation: &Explanation,
    number: u64,
    time: &str,
    difference: Option<&str>,
    format: Format,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Text => {
            let met = if difference.is_none() { "the packet met this outcome" } else { "NO, see the error" };
            writeln!(out, "frame        {number} at {time}")?;
            write!(out, "{}", render::explanation_text(explanation))?;
            writeln!(out, "verified     {met}")?;
        }
        Format::Json => {
            let mut object = json!({ "number": number, "time": time, "verified": difference.is_none() });
            if let (Some(object), serde_json::Value::Object(parts)) =
                (object.as_object_mut(), serde_json::to_value(explanation)?)
            {
                object.extend(parts);
            }
            serde_json::to_writer_pretty(&mut *out, &object)?;
            writeln!(out)?;
        }
    }
    out.flush()
}
