//! The other gateway of a pair: `eqctl role` and `eqctl sync`.

use super::args::Role;
use super::output::Output;
use super::{Failed, State, rows};
use equipoise::control::client::{Client, ClientError};
use equipoise::control::{Answer, Begun, Request, SyncRow, render};
use std::path::Path;
use std::time::{Duration, Instant};

/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

fn pick(answer: Answer) -> Option<SyncRow> {
    match answer {
        Answer::Sync(row) => Some(*row),
        _ => None,
    }
}

/// Connects, for up to so many seconds: who elects the active gateway may be faster than its start.
pub fn connect(socket: &Path, seconds: u32) -> Result<Client, ClientError> {
    let end = Instant::now() + Duration::from_secs(seconds.into());
    loop {
        match Client::connect(socket) {
            Err(_) if Instant::now() < end => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// Returns when this process began; none without /proc.
fn begun() -> Option<Begun> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name of the program, which may contain anything; the 22nd is the time.
    let tick = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()?;
    Some(Begun { tick, pid: std::process::id() })
}

/// Prints the role, or gives the gateway another one.
pub fn role(client: &mut Client, to: Option<Role>, in_order: bool, output: &mut Output<'_>) -> Result<State, Failed> {
    let begun = if in_order { begun() } else { None };
    let request = to.map_or(Request::Sync, |to| to.request(begun));
    let rows = rows(client, &request, pick)?;
    output.values(&rows, || rows.iter().map(|row| format!("{}\n", row.role)).collect())?;
    Ok(State::Complete)
}

/// Prints the state of the pair.
pub fn sync(client: &mut Client, output: &mut Output<'_>) -> Result<State, Failed> {
    let rows = rows(client, &Request::Sync, pick)?;
    output.values(&rows, || rows.iter().map(render::sync_text).collect())?;
    let is_complete = rows.iter().all(|row| row.link.is_some_and(|link| link.in_step && !link.differs));
    Ok(if is_complete { State::Complete } else { State::Incomplete })
}
