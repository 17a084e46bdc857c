//! Changes by the operator, and what differs from the configuration file.

use super::{Failed, line, print, rows};
use equipoise::control::client::{Client, ClientError};
use equipoise::control::{
    Answer, ChangeRow, ChangedRow, HistoryRow, OperationRow, Request, Saved, Target, render, saved,
};
use std::io::{self, Write};

/// Sends a change and prints each object before and after.
pub fn change(
    client: &mut Client,
    request: &Request,
    json: bool,
    out: &mut dyn Write,
) -> Result<Vec<ChangedRow>, Failed> {
    let rows: Vec<ChangedRow> = rows(client, request, |answer| match answer {
        Answer::Changed(row) => Some(*row),
        _ => None,
    })?;
    let none = || String::from("everything is as in the file already\n");
    let text = || if rows.is_empty() { none() } else { rows.iter().map(render::changed_text).collect() };
    print(&rows, json, out, text)?;
    Ok(rows)
}

/// Turns a rule or service on or off.
pub fn switch(client: &mut Client, object: Target, on: bool, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
    let values = [("enabled".into(), Some(on.to_string()))].into();
    change(client, &Request::Set { object, values, deadline_ms: None }, json, out).map(drop)
}

fn differing(client: &mut Client) -> Result<Vec<ChangeRow>, Failed> {
    rows(client, &Request::Changes, |answer| match answer {
        Answer::Differs(row) => Some(row),
        _ => None,
    })
}

/// Lists what differs from the file.
pub fn list(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
    let rows = differing(client)?;
    let status = super::rows(client, &Request::Status, |answer| match answer {
        Answer::Status(status) => Some(*status),
        _ => None,
    })?;
    let is_kept = status.iter().any(|status| status.state_file.is_some());
    print(&rows, json, out, || render::changes_table(&rows, is_kept))
}

/// Prints the file with what differs from it, or the difference.
pub fn save(client: &mut Client, patch: bool, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
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
    if json {
        return line(&serde_json::json!({ "origin": file.origin, "text": text }), out);
    }
    Ok(out.write_all(text.as_bytes())?)
}

/// Lists what monitors found and operators did.
pub fn history(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
    let (answers, _) = client.rows(&Request::History)?;
    let (mut health, mut operations): (Vec<HistoryRow>, Vec<OperationRow>) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Answer::History(row) => health.push(row),
            Answer::Operation(row) => operations.push(row),
            _ => {}
        }
    }
    if json {
        print(&health, true, out, String::new)?;
        return print(&operations, true, out, String::new);
    }
    print(&health, false, out, || render::history_table(&health, &operations))
}
