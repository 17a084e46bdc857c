//! `eqctl`: inspects and controls a running gateway.
//!
//! It uses only types of `equipoise::control`, which also prints everything but the JSON lines.

#![allow(unreachable_pub)]
#![allow(clippy::disallowed_methods, reason = "`--watch` waits between refreshes")]

mod args;
mod changes;
mod explain;
mod pair;
mod wait;

use args::{Args, ChangesCommand, Command, PoolCommand, ServerCommand, Switch, given_twice, set_request};
use clap::Parser;
use equipoise::control::client::{Client, ClientError};
use equipoise::control::{
    Answer, FlowRow, Kind, MonitorRow, NatRow, PoolRow, ReloadRow, Request, RuleRow, ServerRow, ServiceRow, SourceRow,
    Target, TokenRow, Totals, render,
};
use serde::Serialize;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Flows printed as one part of the table; the first part sets the widths of the columns.
const PART: usize = 200;

fn main() -> ExitCode {
    let args = Args::parse();
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
    match &args.command {
        Command::Status => return status(&mut client, args.json, out),
        Command::Server(command) => return server(client, command, args, out),
        Command::Role { to, .. } => return pair::role(&mut client, *to, args.json, out),
        Command::Sync { .. } if args.watch().is_none() => return pair::sync(&mut client, args.json, out),
        _ => {}
    }
    let Some(seconds) = args.watch() else { return once(&mut client, args, out).map(|()| State::Complete) };
    loop {
        let mut screen = Vec::new();
        once(&mut client, args, &mut screen)?;
        if clear && !args.json {
            out.write_all(b"\x1b[H\x1b[J")?;
        }
        out.write_all(&screen)?;
        if !clear && !args.json {
            out.write_all(b"\n")?;
        }
        out.flush()?;
        std::thread::sleep(Duration::from_secs(seconds.into()));
    }
}

/// Runs the command once.
fn once(client: &mut Client, args: &Args, out: &mut dyn Write) -> Result<(), Failed> {
    let json = args.json;
    match &args.command {
        Command::Flows(filter) => flows(client, &filter.request(), json, out),
        Command::Servers { .. } => {
            let rows: Vec<ServerRow> = rows(client, &Request::Servers, |answer| match answer {
                Answer::Server(row) => Some(*row),
                _ => None,
            })?;
            print(&rows, json, out, || render::servers_table(&rows))
        }
        Command::Services { .. } => {
            let rows: Vec<ServiceRow> = rows(client, &Request::Services, |answer| match answer {
                Answer::Service(row) => Some(row),
                _ => None,
            })?;
            print(&rows, json, out, || render::services_table(&rows))
        }
        Command::Counters { all, .. } => {
            let totals: Vec<Totals> = rows(client, &Request::Counters, |answer| match answer {
                Answer::Counters(totals) => Some(*totals),
                _ => None,
            })?;
            let table = |totals: &Totals| render::counters_table(&totals.engine, Some(&totals.device), *all);
            print(&totals, json, out, || totals.iter().map(table).collect())
        }
        Command::Status => status(client, json, out).map(drop),
        Command::Token => {
            let rows: Vec<TokenRow> = rows(client, &Request::Token, |answer| match answer {
                Answer::Token(row) => Some(row),
                _ => None,
            })?;
            print(&rows, json, out, || rows.iter().map(|row| format!("{}\n", row.token)).collect())
        }
        Command::Explain(what) => match what.request() {
            Some(request) => explain::explain(client, &request, json, out),
            None => Ok(()),
        },
        Command::Kill { flow } => {
            let (_, done) = client.rows(&Request::Kill { flow: *flow })?;
            print(&[done], json, out, || format!("flow {flow} removed\n"))
        }
        Command::Monitors { .. } => {
            let rows: Vec<MonitorRow> = rows(client, &Request::Monitors, |answer| match answer {
                Answer::Monitor(row) => Some(*row),
                _ => None,
            })?;
            print(&rows, json, out, || render::monitors_table(&rows))
        }
        Command::History => changes::history(client, json, out),
        Command::Pool { command: None } => {
            let rows: Vec<PoolRow> = rows(client, &Request::Pools, |answer| match answer {
                Answer::Pool(row) => Some(row),
                _ => None,
            })?;
            print(&rows, json, out, || render::pools_table(&rows))
        }
        Command::Pool { command: Some(PoolCommand::Set { pool, keys }) } => {
            changes::change(client, &set_request(Target::new(Kind::Pool, pool), keys), json, out).map(drop)
        }
        Command::Changes { command: None } => changes::list(client, json, out),
        Command::Changes { command: Some(ChangesCommand::Save { patch }) } => changes::save(client, *patch, json, out),
        Command::Changes { command: Some(ChangesCommand::Drop(what)) } => {
            changes::change(client, &what.request(), json, out).map(drop)
        }
        Command::Sources { .. } => {
            let rows: Vec<SourceRow> = rows(client, &Request::Sources, |answer| match answer {
                Answer::Source(row) => Some(*row),
                _ => None,
            })?;
            print(&rows, json, out, || render::sources_table(&rows))
        }
        Command::Rules { .. } => {
            let rows: Vec<RuleRow> = rows(client, &Request::Rules, |answer| match answer {
                Answer::Rule(row) => Some(row),
                _ => None,
            })?;
            print(&rows, json, out, || render::rules_table(&rows))
        }
        Command::Nat { .. } => {
            let rows: Vec<NatRow> = rows(client, &Request::Nat, |answer| match answer {
                Answer::Nat(row) => Some(row),
                _ => None,
            })?;
            print(&rows, json, out, || render::nat_table(&rows))
        }
        Command::Reload { partial, now } => {
            let request = Request::Reload { partial: *partial, now: *now };
            let changes: Vec<ReloadRow> = rows(client, &request, |answer| match answer {
                Answer::Change(row) => Some(row),
                _ => None,
            })?;
            print(&changes, json, out, || render::reload_text(&changes))
        }
        Command::Rule { rule, to } => {
            changes::switch(client, Target::new(Kind::Rule, rule), *to == Switch::On, json, out)
        }
        Command::Service { service, to } => {
            changes::switch(client, Target::new(Kind::Service, service), *to == Switch::On, json, out)
        }
        Command::Sync { .. } => pair::sync(client, json, out).map(drop),
        Command::Server(_) | Command::Role { .. } => Ok(()),
    }
}

/// Prints the status.
fn status(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<State, Failed> {
    let status = rows(client, &Request::Status, |answer| match answer {
        Answer::Status(status) => Some(*status),
        _ => None,
    })?;
    print(&status, json, out, || status.iter().map(render::status_text).collect())?;
    let is_complete = status.iter().all(|status| status.troubles.is_empty());
    Ok(if is_complete { State::Complete } else { State::Incomplete })
}

/// Changes a server, and waits for the end of its flows if asked to.
fn server(mut client: Client, command: &ServerCommand, args: &Args, out: &mut dyn Write) -> Result<State, Failed> {
    let request = command.request();
    if let ServerCommand::Load { server, load, .. } = command {
        let (_, done) = client.rows(&request)?;
        print(&[done], args.json, out, || format!("server {server} has load {load} % for a minute\n"))?;
        return Ok(State::Complete);
    }
    let rows = changes::change(&mut client, &request, args.json, out)?;
    match rows.first().filter(|_| command.waits()) {
        Some(row) => wait::wait(client, &args.socket, &row.object.name, args.json, out),
        None => Ok(State::Complete),
    }
}

/// Prints flows as they arrive, however many.
fn flows(client: &mut Client, request: &Request, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
    let mut printer = render::FlowPrinter::new();
    let mut part: Vec<FlowRow> = Vec::with_capacity(PART);
    for answer in client.request(request)? {
        match answer? {
            Answer::Flow(row) if json => line(&row, out)?,
            Answer::Flow(row) => part.push(*row),
            Answer::Done(done) if !json => {
                out.write_all(printer.part(&part).as_bytes())?;
                part.clear();
                if done.more {
                    writeln!(out, "... and more: list cut off by --limit {}", done.rows)?;
                }
            }
            _ => {}
        }
        if part.len() == PART {
            out.write_all(printer.part(&part).as_bytes())?;
            part.clear();
        }
    }
    Ok(())
}

/// Sends a request and collects the rows of one kind.
fn rows<T>(client: &mut Client, request: &Request, pick: fn(Answer) -> Option<T>) -> Result<Vec<T>, Failed> {
    Ok(client.rows(request)?.0.into_iter().filter_map(pick).collect())
}

/// Prints one line of JSON per row, or the text.
fn print<T: Serialize>(
    rows: &[T],
    json: bool,
    out: &mut dyn Write,
    text: impl FnOnce() -> String,
) -> Result<(), Failed> {
    if json {
        return rows.iter().try_for_each(|row| line(row, out));
    }
    Ok(out.write_all(text().as_bytes())?)
}

fn line<T: Serialize>(row: &T, out: &mut dyn Write) -> Result<(), Failed> {
    serde_json::to_writer(&mut *out, row).map_err(|error| Failed::Output(error.into()))?;
    Ok(out.write_all(b"\n")?)
}
