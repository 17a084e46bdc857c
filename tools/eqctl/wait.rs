//! Waiting until a server has no flows left.

use super::output::Output;
use super::{Failed, State, rows};
use equipoise::control::client::{Client, ClientError};
use equipoise::control::{Answer, DrainRow, DrainState, FlowQuery, FlowRow, Request, render};
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause before a lost connection is made again.
const SOON: Duration = Duration::from_millis(50);
/// Most flows of which it is looked whether they have ended.
const MOST_LOOKED_AT: u64 = 1000;
/// The longest time without a line.
const QUIET: Duration = Duration::from_secs(5);

/// Looks at a server, and whether its flows have ended.
fn look_closely(client: &mut Client, server: &str) -> Result<DrainRow, Failed> {
    let mut row = look(client, server)?;
    if matches!(row.state, DrainState::Draining | DrainState::Removing) && (1..=MOST_LOOKED_AT).contains(&row.flows) {
        row.ended = ended(client, server)?;
        if row.ended >= row.flows {
            row.state = if row.state == DrainState::Draining { DrainState::Drained } else { DrainState::Removed };
        }
    }
    Ok(row)
}

/// Shows what is left until nothing is: a line whenever that has changed, and one every few seconds.
pub fn wait(mut client: Client, socket: &Path, server: &str, output: &mut Output<'_>) -> Result<State, Failed> {
    let mut shown: Option<(DrainRow, Instant)> = None;
    loop {
        let row = loop {
            match look_closely(&mut client, server) {
                // A busy control socket closes the connections that have been idle longest, and another process may have
                // taken over from the gateway.
                Err(Failed::Gateway(ClientError::Lost(_))) => {
                    std::thread::sleep(SOON);
                    client = Client::connect(socket).map_err(|error| stopped(server, shown.as_ref(), &error))?;
                }
                other => break other?,
            }
        };
        let news = shown.as_ref().is_none_or(|(last, at)| {
            (last.state, last.flows, last.ended) != (row.state, row.flows, row.ended) || at.elapsed() >= QUIET
        });
        if news {
            output.values(std::slice::from_ref(&row), || render::drain_text(&row))?;
            output.out.flush()?;
            shown = Some((row.clone(), Instant::now()));
        }
        match row.state {
            DrainState::Draining | DrainState::Removing => std::thread::sleep(PAUSE),
            DrainState::Drained | DrainState::Removed => return Ok(State::Complete),
            DrainState::Deadline => return Ok(State::Incomplete),
            DrainState::NotDraining => {
                let text = format!("server {server} was enabled or disabled meanwhile; see `eqctl history`");
                return Err(Failed::Gateway(ClientError::Refused(text)));
            }
        }
    }
}

fn look(client: &mut Client, server: &str) -> Result<DrainRow, Failed> {
    let found = rows(client, &Request::Drain { server: server.into() }, |answer| match answer {
        Answer::Drain(row) => Some(row),
        _ => None,
    })?;
    found.into_iter().next().ok_or_else(|| Failed::Gateway(ClientError::Garbled("no state of draining".into())))
}

/// Counts the flows of a server whose connections have ended: they are only remembered, for late segments.
fn ended(client: &mut Client, server: &str) -> Result<u64, Failed> {
    let query = FlowQuery { server: Some(server.into()), ..FlowQuery::default() };
    let request = Request::Flows { query, filter: None, sort: None, limit: Some(2 * MOST_LOOKED_AT) };
    let flows: Vec<FlowRow> = match rows(client, &request, |answer| match answer {
        Answer::Flow(row) => Some(*row),
        _ => None,
    }) {
        // The last flow of a removed server has just gone, and its name with it.
        Err(Failed::Gateway(ClientError::Refused(_))) => return Ok(0),
        other => other?,
    };
    Ok(flows.iter().filter(|flow| flow.state.is_over()).count() as u64)
}

fn stopped(server: &str, last: Option<&(DrainRow, Instant)>, error: &ClientError) -> Failed {
    let left = last.map_or(String::new(), |(row, _)| match row.flows {
        1 => " with 1 flow left".into(),
        flows => format!(" with {flows} flows left"),
    });
    Failed::Gateway(ClientError::Refused(format!("the gateway stopped while {server} was draining{left}: {error}")))
}
