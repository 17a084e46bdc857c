//! Lists of flows, and flows that are to end.

use super::args::Flows;
use super::output::{Format, Output};
use super::{Failed, rows};
use equipoise::control::client::Client;
use equipoise::control::render::{self, csv_header, csv_line};
use equipoise::control::{Answer, FlowRow, KilledRow, Request};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Flows printed as one part of the table; the first part sets the widths of the columns.
const PART: usize = 200;
/// A list that takes longer shows how far it is.
const LONG: Duration = Duration::from_secs(1);
/// How often.
const SHOWN: Duration = Duration::from_millis(500);

/// How far a long list is: on stderr, if somebody looks there and does not see the list itself grow.
struct Progress {
    total: Option<u64>,
    begun: Instant,
    shown: Option<Instant>,
}

impl Progress {
    fn new(client: &mut Client, request: &Request) -> Option<Progress> {
        if !io::stderr().is_terminal() || io::stdout().is_terminal() {
            return None;
        }
        let total = match request {
            // What a filter selects is known at the end only.
            Request::Flows { limit: None, sort: None, filter: None, query } if *query == Default::default() => {
                let status = rows(client, &Request::Status, |answer| match answer {
                    Answer::Status(status) => Some(status.flows),
                    _ => None,
                });
                status.ok().and_then(|flows| flows.first().copied())
            }
            _ => None,
        };
        Some(Progress { total, begun: Instant::now(), shown: None })
    }

    fn show(&mut self, done: u64) {
        let last = self.shown.map_or(self.begun.elapsed() >= LONG, |shown| shown.elapsed() >= SHOWN);
        if last {
            let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let text = render::progress(done, self.total, "flows", elapsed);
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            self.shown = Some(Instant::now());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Prints flows as they arrive, however many; at most `most` where the command says no number.
pub fn list(client: &mut Client, what: &Flows, most: Option<u64>, output: &mut Output<'_>) -> Result<(), Failed> {
    let request = what.request(most);
    let mut printer = render::FlowPrinter::new(output.width, what.sorted());
    let mut part: Vec<FlowRow> = Vec::with_capacity(PART);
    let mut progress = Progress::new(client, &request);
    let mut listed = 0;
    if output.format == Format::Csv {
        output.text(&csv_header::<FlowRow>())?;
    }
    for answer in client.request(&request)? {
        match answer? {
            Answer::Flow(row) => {
                listed += 1;
                match output.format {
                    Format::Json => output.line(&row)?,
                    Format::Csv => output.text(&csv_line(&*row))?,
                    Format::Text => part.push(*row),
                }
            }
            Answer::Done(done) if output.is_text() => {
                output.text(&printer.part(&part))?;
                part.clear();
                if listed > 0 {
                    output.text(&printer.left_out())?;
                }
                if done.more && what.sorted().is_none() {
                    let by = if most == Some(done.rows) { "the screen" } else { "--limit" };
                    output.text(&format!("... and more: list cut off by {by} {}\n", done.rows))?;
                }
            }
            _ => {}
        }
        if part.len() == PART {
            output.text(&printer.part(&part))?;
            part.clear();
        }
        if let Some(progress) = progress.as_mut().filter(|_| listed % PART as u64 == 0) {
            progress.show(listed);
        }
    }
    Ok(())
}

/// Removes flows, or says which it would be.
pub fn kill(client: &mut Client, request: &Request, output: &mut Output<'_>) -> Result<(), Failed> {
    let killed: Vec<KilledRow> = rows(client, request, |answer| match answer {
        Answer::Killed(row) => Some(*row),
        _ => None,
    })?;
    output.rows(&killed, |width| killed.iter().map(|row| render::killed_text(row, width)).collect())
}
