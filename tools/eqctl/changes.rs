//! Changes by the operator, and what differs from the configuration file.

use super::output::{Format, Output};
use super::{Failed, rows};
use equipoise::control::client::{Client, ClientError};
use equipoise::control::{
    Answer, ChangeRow, ChangedRow, ClearedRow, HistoryRow, OperationRow, Request, Saved, Target, render, saved,
};
use std::io::{self, Write};

/// Sends a change and prints each object before and after.
pub fn change(client: &mut Client, request: &Request, output: &mut Output<'_>) -> Result<Vec<ChangedRow>, Failed> {
    let rows: Vec<ChangedRow> = rows(client, request, |answer| match answer {
        Answer::Changed(row) => Some(*row),
        _ => None,
    })?;
    let none = || String::from("everything is as in the file already\n");
    output.rows(&rows, |_| if rows.is_empty() { none() } else { rows.iter().map(render::changed_text).collect() })?;
    Ok(rows)
}

/// Makes the gateway forget sticky clients, and prints which.
pub fn clear(client: &mut Client, request: &Request, output: &mut Output<'_>) -> Result<(), Failed> {
    let rows: Vec<ClearedRow> = rows(client, request, |answer| match answer {
        Answer::Cleared(row) => Some(*row),
        _ => None,
    })?;
    output.rows(&rows, |width| rows.iter().map(|row| render::cleared_text(row, width)).collect())
}

/// Turns a rule or service on or off.
pub fn switch(client: &mut Client, object: Target, on: bool, output: &mut Output<'_>) -> Result<(), Failed> {
    let values = [("enabled".into(), Some(on.to_string()))].into();
    change(client, &Request::Set { object, values, deadline_ms: None }, output).map(drop)
}

fn differing(client: &mut Client) -> Result<Vec<ChangeRow>, Failed> {
    rows(client, &Request::Changes, |answer| match answer {
        Answer::Differs(row) => Some(row),
        _ => None,
    })
}

/// Lists what differs from the file.
pub fn list(client: &mut Client, output: &mut Output<'_>) -> Result<(), Failed> {
    let rows = differing(client)?;
    let status = super::rows(client, &Request::Status, |answer| match answer {
        Answer::Status(status) => Some(*status),
        _ => None,
    })?;
    let is_kept = status.iter().any(|status| status.state_file.is_some());
    output.rows(&rows, |width| render::changes_table(&rows, is_kept, width))
}

/// Prints the file with what differs from it, or the difference.
pub fn save(client: &mut Client, patch: bool, output: &mut Output<'_>) -> Result<(), Failed> {
    let changes = differing(client)?;
    let files = rows(client, &Request::File, |answer| match answer {
        Answer::File(file) => Some(*file),
        _ => None,
    })?;
    let refused = |message: &str| Failed::Gateway(ClientError::Refused(message.into()));
    let file = files.first().ok_or_else(|| refused("the gateway sent no file"))?;
    let Saved { text, left_out } = saved(file, &changes).map_err(|error| refused(&error))?;
    for change in &left_out {
        let _ = writeln!(io::stderr(), "eqctl: {}", render::left_out_text(change));
    }
    // The gateway cannot know: it no longer reads files.
    if std::fs::read_to_string(&file.origin).is_ok_and(|present| present != file.text) {
        let _ = writeln!(
            io::stderr(),
            "eqctl: {} has changed since the gateway read it: this is what was read then, with the changes",
            file.origin
        );
    }
    let text = if patch { equipoise::control::patch(file, &text) } else { text };
    output.values(&[serde_json::json!({ "origin": file.origin, "text": text })], || text)
}

/// Lists what monitors found and operators did.
pub fn history(client: &mut Client, output: &mut Output<'_>) -> Result<(), Failed> {
    let (answers, _) = client.rows(&Request::History)?;
    let (mut health, mut operations): (Vec<HistoryRow>, Vec<OperationRow>) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Answer::History(row) => health.push(row),
            Answer::Operation(row) => operations.push(row),
            _ => {}
        }
    }
    match output.format {
        Format::Text => output.text(&render::history_table(&health, &operations, output.width)),
        Format::Json => {
            output.rows(&health, |_| String::new())?;
            output.rows(&operations, |_| String::new())
        }
        // One table of both: what operators did has no server.
        Format::Csv => {
            let events: Vec<HistoryRow> = operations.iter().map(as_history).collect();
            health.extend(events);
            health.sort_by_key(|row| std::cmp::Reverse(row.ago_ms));
            output.rows(&health, |_| String::new())
        }
    }
}

/// Returns what an operator did as a row of the history: who did it is the reason.
fn as_history(row: &OperationRow) -> HistoryRow {
    HistoryRow {
        pool: String::new(),
        server: String::new(),
        ago_ms: row.ago_ms,
        family: String::new(),
        port: None,
        what: row.what.clone(),
        why: row.who.map_or_else(|| "gateway".into(), |who| who.to_string()),
    }
}
