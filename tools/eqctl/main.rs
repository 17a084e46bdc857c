//! `eqctl`: looks into a running gateway.
//!
//! It sees only what `equipoise::control` says; all printing but the JSON lines is done there.

#![allow(clippy::disallowed_methods, reason = "`--watch` waits between two looks")]

mod args;

use args::{Args, Command, ServerCommand};
use clap::Parser;
use equipoise::control::client::{Client, ClientError};
use equipoise::control::{Answer, Request, Totals, render};
use equipoise::engine::{FlowRow, ServerRow, ServiceRow};
use serde::Serialize;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Flows that are printed as one part of the table; the first part sets the columns' widths.
const PART: usize = 200;

fn main() -> ExitCode {
    let args = Args::parse();
    let stdout = io::stdout();
    let clear = stdout.is_terminal();
    let mut out = BufWriter::new(stdout.lock());
    let result = run(&args, &mut out, clear).and_then(|()| out.flush().map_err(Failed::Output));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough: `eqctl flows | head`.
        Err(Failed::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failed::Output(error)) => complain(&format!("cannot write the output: {error}")),
        Err(Failed::Gateway(error)) => {
            // What came before the failure is shown before it.
            let _ = out.flush();
            complain(&error.to_string())
        }
    }
}

fn complain(text: &str) -> ExitCode {
    // stderr may be gone as well; there is nobody left to tell.
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

fn run(args: &Args, out: &mut dyn Write, clear: bool) -> Result<(), Failed> {
    let mut client = Client::connect(&args.socket)?;
    let Some(seconds) = args.watch() else { return once(&mut client, args, out) };
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

/// Does what was asked, once.
fn once(client: &mut Client, args: &Args, out: &mut dyn Write) -> Result<(), Failed> {
    let json = args.json;
    match &args.command {
        Command::Flows(filter) => flows(client, &filter.request(), json, out),
        Command::Servers { .. } => {
            let rows: Vec<ServerRow> = rows(client, &Request::Servers, |answer| match answer {
                Answer::Server(row) => Some(row),
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
        Command::Status => {
            let status = rows(client, &Request::Status, |answer| match answer {
                Answer::Status(status) => Some(*status),
                _ => None,
            })?;
            print(&status, json, out, || status.iter().map(render::status_text).collect())
        }
        Command::Kill { flow } => {
            let (_, done) = client.rows(&Request::Kill { flow: *flow })?;
            print(&[done], json, out, || format!("flow {flow} is removed\n"))
        }
        Command::Server(ServerCommand::Weight { server, weight }) => {
            let request = Request::Weight { pool: server.pool.clone(), server: server.server.clone(), weight: *weight };
            let (_, done) = client.rows(&request)?;
            let until = "until the gateway ends; the configuration keeps its own";
            print(&[done], json, out, || format!("{server} has weight {weight} {until}\n"))
        }
    }
}

/// Prints flows as they come, however many.
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
                    writeln!(out, "... and more: --limit {} cut the list off", done.rows)?;
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

/// Asks, and picks the rows of one kind.
fn rows<T>(client: &mut Client, request: &Request, pick: fn(Answer) -> Option<T>) -> Result<Vec<T>, Failed> {
    Ok(client.rows(request)?.0.into_iter().filter_map(pick).collect())
}

/// Prints a line of JSON a row, or the text.
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
