//! `eqctl`: inspects and controls a running gateway.
//!
//! It uses only types of `equipoise::control`, which also prints everything but the JSON lines.

#![allow(unreachable_pub)]
#![allow(clippy::disallowed_methods, reason = "`--watch` waits between refreshes")]

mod args;
mod changes;
mod events;
mod explain;
mod flows;
mod lists;
mod output;
mod pair;
#[cfg(feature = "top")]
mod top;
mod wait;

use args::{Args, ChangesCommand, Command, PoolCommand, ServerCommand, Switch, given_twice, kill_request, set_request};
use equipoise::control::client::{Client, ClientError};
use equipoise::control::{Answer, Kind, ReloadRow, Request, Target, TokenRow, render};
use lists::Before;
use output::Output;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let args = Args::checked();
    let stdout = io::stdout();
    let clear = stdout.is_terminal();
    let mut out = BufWriter::new(stdout.lock());
    let result = run(&args, &mut out, clear).and_then(|state| out.flush().map(|()| state).map_err(Failed::Output));
    match result {
        Ok(State::Complete) => ExitCode::SUCCESS,
        Ok(State::Incomplete) => ExitCode::from(INCOMPLETE),
        // The reader closed the pipe: `eqctl flows | head`.
        Err(Failed::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failed::Output(error)) => complain(&format!("cannot write the output: {error}")),
        Err(Failed::Gateway(error)) => {
            // Print the rows received before the failure first.
            let _ = out.flush();
            complain(&error.to_string())
        }
    }
}

/// The exit code of `eqctl status` while something that the gateway installed in the system does not work, and of draining
/// that the deadline ended.
const INCOMPLETE: u8 = 3;

/// Whether the answer says that all is well.
enum State {
    Complete,
    Incomplete,
}

fn complain(text: &str) -> ExitCode {
    // If stderr is closed as well, the error cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "eqctl: {text}");
    ExitCode::FAILURE
}

/// Why the command failed.
enum Failed {
    Gateway(ClientError),
    Output(io::Error),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Failed::Gateway(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Output(error)
    }
}

fn run(args: &Args, out: &mut dyn Write, clear: bool) -> Result<State, Failed> {
    if let Some(key) = args.command.keys().and_then(given_twice) {
        return Err(Failed::Gateway(ClientError::Refused(format!("{key} is given twice"))));
    }
    let wait = if let Command::Role { wait, .. } = &args.command { *wait } else { 0 };
    let mut client = pair::connect(&args.socket, wait)?;
    let (mut before, screen) = (Before::default(), Output::new(args, out));
    let Some(seconds) = args.watch else { return once(client, args, &mut before, &mut { screen }) };
    loop {
        let mut shown = Vec::new();
        let mut output = Output { out: &mut shown, format: screen.format, width: screen.width };
        list(&mut client, args, &mut before, &mut output)?;
        if clear && screen.is_text() {
            screen.out.write_all(b"\x1b[H\x1b[J")?;
        }
        screen.out.write_all(&shown)?;
        if !clear && screen.is_text() {
            screen.out.write_all(b"\n")?;
        }
        screen.out.flush()?;
        std::thread::sleep(Duration::from_secs(seconds.into()));
    }
}

/// Runs a command that lists something; returns whether all is well.
fn list(client: &mut Client, args: &Args, before: &mut Before, output: &mut Output<'_>) -> Result<State, Failed> {
    match &args.command {
        Command::Status => return status(client, output),
        Command::Sync => return pair::sync(client, output),
        Command::Flows(what) => {
            // A list that is shown again and again fits the screen.
            let most = args.watch.and(output::height()).map(|height| height.saturating_sub(4).max(1));
            flows::list(client, what, most, output)
        }
        Command::Servers(measure) => lists::servers(client, measure, before, output),
        Command::Services(measure) => lists::services(client, measure, before, output),
        Command::Counters { all } => lists::counters(client, *all, output),
        Command::Monitors => lists::monitors(client, output),
        Command::History => changes::history(client, output),
        Command::Events { .. } => events::list(client, output),
        Command::Pool { .. } => lists::pools(client, output),
        Command::Changes { .. } => changes::list(client, output),
        Command::Sources => lists::sources(client, output),
        Command::Rules => lists::rules(client, output),
        Command::Nat => lists::nat(client, output),
        Command::Sticky { which, limit, .. } => lists::sticky(client, &which.list(*limit), output),
        _ => Ok(()),
    }?;
    Ok(State::Complete)
}

/// Runs the command once.
fn once(mut client: Client, args: &Args, before: &mut Before, output: &mut Output<'_>) -> Result<State, Failed> {
    let client_now = &mut client;
    match &args.command {
        Command::Server(command) => return server(client, command, args, output),
        Command::Role { to, in_order, .. } => return pair::role(client_now, *to, *in_order, output),
        Command::Token => {
            let rows: Vec<TokenRow> = rows(client_now, &Request::Token, |answer| match answer {
                Answer::Token(row) => Some(row),
                _ => None,
            })?;
            output.values(&rows, || rows.iter().map(|row| format!("{}\n", row.token)).collect())
        }
        Command::Events { follow: true } => events::follow(client, &args.socket, output),
        #[cfg(feature = "top")]
        Command::Top { every } => top::top(client, &args.socket, *every),
        Command::Explain(what) => match what.request() {
            Some(request) => explain::explain(client_now, &request, output),
            None => Ok(()),
        },
        Command::Kill { what, dry_run } => flows::kill(client_now, &kill_request(what, *dry_run), output),
        Command::Sticky { command: Some(command), .. } => changes::clear(client_now, &command.request(), output),
        Command::Pool { command: Some(PoolCommand::Set { pool, keys }) } => {
            changes::change(client_now, &set_request(Target::new(Kind::Pool, pool), keys), output).map(drop)
        }
        Command::Changes { command: Some(ChangesCommand::Save { patch }) } => changes::save(client_now, *patch, output),
        Command::Changes { command: Some(ChangesCommand::Drop(what)) } => {
            changes::change(client_now, &what.request(), output).map(drop)
        }
        Command::Reload { partial, now } => {
            let request = Request::Reload { partial: *partial, now: *now };
            let changes: Vec<ReloadRow> = rows(client_now, &request, |answer| match answer {
                Answer::Change(row) => Some(row),
                _ => None,
            })?;
            output.values(&changes, || render::reload_text(&changes))
        }
        Command::Rule { rule, to } => {
            changes::switch(client_now, Target::new(Kind::Rule, rule), *to == Switch::On, output)
        }
        Command::Service { service, to } => {
            changes::switch(client_now, Target::new(Kind::Service, service), *to == Switch::On, output)
        }
        _ => return list(client_now, args, before, output),
    }?;
    Ok(State::Complete)
}

/// Prints the status.
fn status(client: &mut Client, output: &mut Output<'_>) -> Result<State, Failed> {
    let status = rows(client, &Request::Status, |answer| match answer {
        Answer::Status(status) => Some(*status),
        _ => None,
    })?;
    output.values(&status, || status.iter().map(render::status_text).collect())?;
    let is_complete = status.iter().all(|status| status.troubles.is_empty());
    Ok(if is_complete { State::Complete } else { State::Incomplete })
}

/// Changes a server, and waits for the end of its flows if asked to.
fn server(mut client: Client, command: &ServerCommand, args: &Args, output: &mut Output<'_>) -> Result<State, Failed> {
    let rows = changes::change(&mut client, &command.request(), output)?;
    match rows.first().filter(|_| command.waits()) {
        Some(row) => wait::wait(client, &args.socket, &row.object.name, output),
        None => Ok(State::Complete),
    }
}

/// Sends a request and collects the rows of one kind.
fn rows<T>(client: &mut Client, request: &Request, pick: fn(Answer) -> Option<T>) -> Result<Vec<T>, Failed> {
    Ok(client.rows(request)?.0.into_iter().filter_map(pick).collect())
}
