//! `eqctl`: inspects and controls a running gateway.
//!
//! It uses only types of `equipoise::control`, which also prints everything but the JSON lines.

#![allow(unreachable_pub)]
#![allow(clippy::disallowed_methods, reason = "`--watch` waits between refreshes")]

mod args;
mod explain;

use args::{Args, Command, ServerCommand, ServerName, Switch};
use clap::Parser;
use equipoise::control::client::{Client, ClientError};
use equipoise::control::{
    Admin, Answer, FlowRow, HistoryRow, MonitorRow, NatRow, ReloadRow, Request, RuleRow, ServerRow, ServiceRow, Totals,
    render,
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

/// The exit code of `eqctl status` while something that the gateway installed in the system does not work.
const INCOMPLETE: u8 = 3;

/// Whether the answer says that all that the gateway installed works.
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
    let mut client = Client::connect(&args.socket)?;
    if matches!(args.command, Command::Status) {
        return status(&mut client, args.json, out);
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
        Command::History => {
            let rows: Vec<HistoryRow> = rows(client, &Request::History, |answer| match answer {
                Answer::History(row) => Some(row),
                _ => None,
            })?;
            print(&rows, json, out, || render::history_table(&rows))
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
            let changes: Vec<ReloadRow> =
                rows(client, &Request::Reload { partial: *partial, now: *now }, |answer| match answer {
                    Answer::Change(row) => Some(row),
                    _ => None,
                })?;
            print(&changes, json, out, || render::reload_text(&changes))
        }
        Command::Rule { rule, to } => {
            let on = *to == Switch::On;
            let (_, done) = client.rows(&Request::Rule { rule: rule.clone(), on })?;
            let state = if on { "on" } else { "off" };
            print(&[done], json, out, || format!("rule {rule} is {state} {UNTIL}\n"))
        }
        Command::Server(command) => server(client, command, json, out),
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

/// How long a change at run time lasts.
const UNTIL: &str = "until the gateway stops; the configuration file is not changed";

/// Changes a server.
fn server(client: &mut Client, command: &ServerCommand, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
    let names = |name: &ServerName| (name.pool.clone(), name.server.clone());
    let admin = |name: &ServerName, admin, deadline_ms| {
        let (pool, server) = names(name);
        Request::Admin { pool, server, admin, deadline_ms }
    };
    let (request, text) = match command {
        ServerCommand::Weight { server: name, weight } => {
            let (pool, server) = names(name);
            (Request::Weight { pool, server, weight: *weight }, format!("{name} has weight {weight} {UNTIL}"))
        }
        ServerCommand::Drain { server, deadline } => {
            let deadline_ms = deadline.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
            let within = deadline.map_or(String::new(), |span| format!(" within {}", humantime::format_duration(span)));
            (
                admin(server, Admin::Draining, deadline_ms),
                format!("{server} is draining{within}: it gets no new flows {UNTIL}"),
            )
        }
        ServerCommand::Disable { server } => {
            (admin(server, Admin::Disabled, None), format!("{server} is disabled {UNTIL}"))
        }
        ServerCommand::Enable { server } => {
            (admin(server, Admin::Enabled, None), format!("{server} is enabled {UNTIL}"))
        }
        ServerCommand::Load { server: name, load, maintenance } => {
            let (pool, server) = names(name);
            let request = Request::Load { pool, server, load: *load, maintenance: *maintenance };
            (request, format!("{name} has load {load} % for a minute"))
        }
    };
    let (_, done) = client.rows(&request)?;
    print(&[done], json, out, || format!("{text}\n"))
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
