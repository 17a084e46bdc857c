//! `equipoise import`: configurations of other balancers.

use super::Failed;
use super::args::{Import, Program};
use crate::config::{self, plural};
use crate::gateway::reload;
use crate::import::{From, Imported, Note, Options, import as imported};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{self, Write};

/// Reads the file, writes the configuration, and lists on stderr what it lacks.
pub(super) fn import(args: &Import, out: &mut dyn Write) -> Result<(), Failed> {
    let bytes = reload::read(&args.file).map_err(Failed::Message)?;
    let (from, name) = match args.from {
        Program::Ipvsadm => (From::Ipvsadm, "ipvsadm"),
        Program::Keepalived => (From::Keepalived, "keepalived"),
    };
    let file = args.file.display().to_string();
    let text = String::from_utf8_lossy(&bytes);
    let options = Options { probe_addresses: args.probe_addresses.clone(), assume_nat: args.assume_nat };
    let found = imported(from, &text, &format!("{name}, {file}"), &options);
    let wrong = invalid(&found);
    if let Some(path) = &args.out {
        let failed = |error: io::Error| Failed::Message(format!("cannot write {}: {error}", path.display()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
        file.write_all(found.text.as_bytes()).map_err(failed)?;
    }
    if args.json {
        let note = |note: &Note| json!({"line": note.place.line, "column": note.place.column, "what": note.what, "todo": note.todo});
        let notes: Vec<_> = found.notes.iter().map(note).collect();
        let of = json!({"origin": file, "configuration": found.text, "services": found.services,
            "servers": found.servers, "notes": notes, "invalid": wrong});
        writeln!(out, "{of}")?;
    } else {
        if args.out.is_none() {
            out.write_all(found.text.as_bytes())?;
            out.flush()?;
        }
        tell(&file, &found, wrong.as_deref());
    }
    if found.notes.is_empty() && wrong.is_none() { Ok(()) } else { Err(Failed::Incomplete) }
}

/// Says why the configuration is not valid yet.
fn invalid(found: &Imported) -> Option<String> {
    config::parse(&found.text, "the configuration").err().map(|error| error.render(false).to_string())
}

fn tell(file: &str, found: &Imported, wrong: Option<&str>) {
    let mut text = String::new();
    for note in &found.notes {
        text += &format!("{file}:{note}\n");
    }
    if let Some(wrong) = wrong {
        text += &format!("the configuration is not complete:\n{wrong}\n");
    }
    let listed = match found.notes.len() {
        0 => "everything is meant".to_owned(),
        1 => "1 place is listed above".into(),
        more => format!("{more} places are listed above"),
    };
    let (services, servers) = (plural(found.services, "service"), plural(found.servers, "server"));
    text += &format!("{services}, {servers}; {listed}\n");
    // If stderr is closed as well, nothing can be reported anywhere.
    let _ = io::stderr().write_all(text.as_bytes());
}
