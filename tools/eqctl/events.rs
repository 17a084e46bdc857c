//! What happened: events as a list, or as they happen.

use super::output::{Format, Output};
use super::{Failed, rows};
use equipoise::control::client::{Client, ClientError};
use equipoise::control::render::{self, csv_header, csv_line};
use equipoise::control::{Answer, EventRow, Request};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

fn ask(client: &mut Client, after: Option<u64>) -> Result<Vec<EventRow>, Failed> {
    rows(client, &Request::Events { after }, |answer| match answer {
        Answer::Event(row) => Some(row),
        _ => None,
    })
}

/// Lists the latest events.
pub fn list(client: &mut Client, output: &mut Output<'_>) -> Result<(), Failed> {
    let events = ask(client, None)?;
    output.rows(&events, |width| render::events_table(&events, width))
}

/// Prints the latest events, then each as it happens, until interrupted or the gateway is gone.
pub fn follow(mut client: Client, socket: &Path, output: &mut Output<'_>) -> Result<(), Failed> {
    let mut last = None;
    if output.format == Format::Csv {
        output.text(&csv_header::<EventRow>())?;
    }
    loop {
        let events = match ask(&mut client, last) {
            // Another process may have taken over from the gateway; idle connections make room for others.
            Err(Failed::Gateway(ClientError::Lost(_))) => {
                std::thread::sleep(PAUSE);
                client = Client::connect(socket)?;
                continue;
            }
            other => other?,
        };
        for event in &events {
            match output.format {
                Format::Json => output.line(event)?,
                Format::Csv => output.text(&csv_line(event))?,
                Format::Text => {
                    let at = SystemTime::now().checked_sub(Duration::from_millis(event.ago_ms));
                    let at = humantime::format_rfc3339_seconds(at.unwrap_or(SystemTime::UNIX_EPOCH)).to_string();
                    output.text(&render::event_text(event, &at))?;
                }
            }
        }
        last = events.last().map(|event| event.number).or(last);
        output.out.flush()?;
        std::thread::sleep(PAUSE);
    }
}
