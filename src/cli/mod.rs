//! The command line: reads arguments and files, calls the layer that does the work, and reports the result. It has no
//! behaviour of its own.
//!
//! Exit codes: 0 for success, 1 for a failure (explained on stderr), 2 for a wrong command line, 3 for an import that lacks
//! something.

mod args;
mod check;
mod check_diff;
#[cfg(feature = "conformance")]
mod conformance;
mod explain;
mod import;
mod print;
mod progress;
mod settings;

use crate::config::{self, Parsed, Settings};
#[cfg(feature = "demo")]
use crate::demo;
use crate::gateway::log_queue::{LogQueue, LogWriter};
use crate::gateway::notify::Notifier;
use crate::gateway::takeover::Taker;
use crate::gateway::takeover::kept::{self, Kept};
use crate::gateway::{Gateway, GatewayError, TakenSignals, confine, reload, sources};
use crate::replay::{self, Format, ReplayError};
use args::{Args, Command, Verbosity};
use clap::{CommandFactory, Parser};
use env_logger::{Target, WriteStyle};
use log::LevelFilter;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// Why a command failed.
enum Failed {
    /// With this message for stderr.
    Message(String),
    /// Because of a wrong command line, with this message for stderr.
    Usage(String),
    /// With a message that has been printed already.
    Shown,
    /// Because something is listed that was not imported.
    Incomplete,
    /// Because the output could not be written.
    Output(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Output(error)
    }
}

/// Runs the command of the process.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let result = run(&args, &mut io::stdout().lock());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader closed the pipe: `equipoise replay ... | head`.
        Err(Failed::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failed::Output(error)) => complain(&format!("cannot write the output: {error}")),
        Err(Failed::Message(text)) => complain(&text),
        Err(Failed::Usage(text)) => {
            complain(&text);
            ExitCode::from(2)
        }
        Err(Failed::Shown) => ExitCode::FAILURE,
        Err(Failed::Incomplete) => ExitCode::from(3),
    }
}

/// Returns the command line of `equipoise`, for manual pages and completions.
pub fn command() -> clap::Command {
    Args::command()
}

fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failed> {
    let verbosity = args.verbosity;
    match &args.command {
        Command::Run { config, unconfined, takeover } => {
            let _written = queue_log(verbosity, *unconfined);
            live(config, *unconfined, *takeover)
        }
        Command::Check { config, json, live, diff, against } => {
            start_log(verbosity, LevelFilter::Warn);
            match diff {
                Some(newer) => check_diff::check(newer, (config.as_deref(), against.as_deref(), *live), *json, out),
                None => check::check(config.as_deref().expect("clap requires it"), *json, *live, out),
            }
        }
        Command::Cleanup { config, stopped } => {
            start_log(verbosity, LevelFilter::Warn);
            let settings = load(config)?.settings;
            let removed = if *stopped { Gateway::stopped(&settings) } else { Gateway::clean_up(&settings) };
            let removed = removed.map_err(|error| Failed::Message(error.to_string()))?;
            Ok(writeln!(out, "removed {removed} rules, routes and proxy entries")?)
        }
        Command::Print { of } => {
            start_log(verbosity, LevelFilter::Warn);
            let text = match of {
                args::Print::Settings { json } => Ok(if *json { settings::json() } else { settings::markdown() }),
                args::Print::Keepalived { config, addresses, router_id } => {
                    print::keepalived(&load(config)?.settings, addresses, *router_id)
                }
                args::Print::Bird { config, router_id } => print::bird(&load(config)?.settings, *router_id),
            };
            Ok(write!(out, "{}", text.map_err(Failed::Message)?)?)
        }
        Command::Replay(args) => {
            start_log(verbosity, LevelFilter::Warn);
            replay(args, out)
        }
        Command::Explain(args) => {
            start_log(verbosity, LevelFilter::Warn);
            explain::explain(args, &mut BufWriter::new(out))
        }
        Command::Import(args) => {
            start_log(verbosity, LevelFilter::Warn);
            import::import(args, out)
        }
        #[cfg(feature = "conformance")]
        Command::Conformance { cases, only, json } => {
            start_log(verbosity, LevelFilter::Error);
            conformance::run(cases.as_deref(), only, *json, out)
        }
        #[cfg(feature = "demo")]
        Command::Demo(demo) => {
            start_log(verbosity, LevelFilter::Warn);
            demo::run(&demo.options()).map_err(|error| Failed::Message(error.to_string()))
        }
    }
}

/// Runs the live gateway until a signal ends it, or another one takes over.
fn live(config: &Path, unconfined: bool, takeover: bool) -> Result<(), Failed> {
    let message = |error: GatewayError| Failed::Message(error.to_string());
    let parsed = load(config)?;
    let manager = Notifier::from_environment();
    let taker = predecessor(&parsed.settings.gateway, takeover, &manager)?;
    let file = config::changes::File::of(&parsed);
    let settings = match (&taker, parsed.settings.seed) {
        (Some(taker), 0) => parsed.settings.with_seed(taker.offer().seed),
        _ => seeded(parsed.settings)?,
    };
    let signals = TakenSignals::take().map_err(message)?;
    let mut gateway = open(settings, file, taker, &manager).map_err(message)?;
    gateway.handle_signals(signals).map_err(message)?;
    gateway.reload_from(config).map_err(message)?;
    gateway.report_to(manager);
    if !unconfined {
        gateway.confine();
    }
    let ended = gateway.run();
    let closed = gateway.close();
    ended.and(closed).map_err(message)
}

/// Opens the gateway, in the place of another one if there is a taker. One that has ended, and cannot be followed, is
/// forgotten: the next start would find the same.
fn open(
    settings: Settings,
    file: config::changes::File,
    taker: Option<Taker>,
    manager: &Notifier,
) -> Result<Gateway, GatewayError> {
    let Some(taker) = taker else { return Gateway::open_configured(settings, file) };
    let as_usual = taker.is_of_kept().then(|| (settings.clone(), file.clone()));
    match (Gateway::take_over(settings, file, taker), as_usual) {
        // What the system lacks is lacking in every start.
        (Err(error), Some((settings, file))) if !matches!(error, GatewayError::Preflight(_)) => {
            not_followed(&error.to_string(), &settings.gateway, manager);
            Gateway::open_configured(settings, file)
        }
        (other, _) => other,
    }
}

fn not_followed(why: &str, gateway: &config::GatewaySettings, manager: &Notifier) {
    log::warn!("cannot take over from the gateway that has stopped: {why}; its connections end");
    // The device is free once nobody has it open.
    kept::forget(manager, &gateway.device);
}

/// Finds the gateway whose place to take: the one that is running, if that is asked for, or the one that the service manager
/// has stopped for a restart.
fn predecessor(gateway: &config::GatewaySettings, takeover: bool, manager: &Notifier) -> Result<Option<Taker>, Failed> {
    let kept = Kept::from_environment();
    if takeover {
        return Taker::ask(gateway).map(Some).map_err(Failed::Message);
    }
    if kept.is_empty() {
        return Ok(None);
    }
    let taker = Taker::of_kept(kept, gateway);
    Ok(taker.inspect_err(|why| not_followed(why, gateway, manager)).ok())
}

/// Replaces a seed of 0 by a random one, so that nobody outside can predict a choice. It is logged: with it, a replay
/// makes the same decisions as this run.
fn seeded(settings: Settings) -> Result<Settings, Failed> {
    if settings.seed != 0 {
        return Ok(settings);
    }
    if let Some(pair) = &settings.sync {
        // Both choose the same server for the same client.
        let seed = crate::sync::seed(&crate::gateway::pair_key(&pair.key_file).map_err(Failed::Message)?);
        return Ok(settings.with_seed(seed));
    }
    let mut bytes = [0; 8];
    let drawn = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    drawn.map_err(|error| {
        Failed::Message(format!(
            "cannot read a seed from /dev/urandom: {error}; set `seed = N` in the configuration to run without it"
        ))
    })?;
    let seed = u64::from_ne_bytes(bytes).max(1);
    log::info!("seed {seed}; set it in the configuration to replay the decisions of this run");
    Ok(settings.with_seed(seed))
}

/// Replays a capture through the engine; with `--partial`, the report states damage.
fn replay(args: &args::Replay, out: &mut dyn Write) -> Result<(), Failed> {
    let explain = args.explain;
    let args = replay::Args {
        settings: load(&args.config)?.settings,
        input: args.input.clone(),
        output: args.output.clone(),
        format: if args.json { Format::Json } else { Format::Text },
        partial: args.partial,
        events: args.events.clone(),
        drain: args.drain,
    };
    let out = &mut BufWriter::new(out);
    let result = match explain {
        Some(number) => replay::explain(&args, number, out),
        None => {
            let mut progress = progress::Shown::new("frames");
            replay::run_telling(&args, out, &mut |at| progress.show(at.frames, at.of)).map(drop)
        }
    };
    match result {
        Ok(()) => Ok(()),
        Err(ReplayError::Report(error)) => Err(Failed::Output(error)),
        Err(error) => Err(Failed::Message(error.to_string())),
    }
}

/// Reads a configuration file, with the servers of its `servers-file`s, and prints its warnings to stderr.
fn load(path: &Path) -> Result<Parsed, Failed> {
    load_all(path).map(|(parsed, _)| parsed)
}

/// The same, with a line for each `servers-file` that is missing or wrong; they are printed too.
fn load_all(path: &Path) -> Result<(Parsed, Vec<String>), Failed> {
    let (parsed, wrong) = read_config(path)?.and_then(with_files).map_err(shown)?;
    let _ = write!(io::stderr(), "{}", parsed.render_warnings(io::stderr().is_terminal()));
    Ok((parsed, wrong))
}

/// Prints what is wrong with a configuration.
fn shown(error: config::ConfigError) -> Failed {
    let _ = writeln!(io::stderr(), "{}", error.render(io::stderr().is_terminal()));
    Failed::Shown
}

/// Adds the servers from files. A file that is missing or wrong is reported and keeps nothing else from working; the second
/// value has a line for each.
fn with_files(parsed: Parsed) -> Result<(Parsed, Vec<String>), config::ConfigError> {
    let (found, wrong) = sources::from_files(&parsed.settings.sources);
    wrong.iter().for_each(|text| drop(writeln!(io::stderr(), "equipoise: {text}")));
    if found.is_empty() {
        return Ok((parsed, wrong));
    }
    let (parsed, left_out) = parsed.with_servers(&found)?;
    for (pool, texts) in left_out {
        texts.iter().for_each(|text| drop(writeln!(io::stderr(), "equipoise: pool {pool} leaves out {text}")));
    }
    Ok((parsed, wrong))
}

/// Reads and checks a configuration file. The outer result says whether it can be read, the inner one whether it is valid.
fn read_config(path: &Path) -> Result<Result<Parsed, config::ConfigError>, Failed> {
    let bytes = reload::read(path).map_err(Failed::Message)?;
    Ok(config::parse_bytes(&bytes, &path.display().to_string()))
}

/// Logs to stderr from the level `least` on, or as set by `-v` or `RUST_LOG`.
fn start_log(verbosity: Verbosity, least: LevelFilter) {
    logger(verbosity, least).parse_default_env().init();
}

/// Like [`start_log`], but no caller waits for stderr; the result waits for the last lines when it is dropped.
fn queue_log(verbosity: Verbosity, unconfined: bool) -> Option<LogWriter> {
    let prepare = move || {
        if !unconfined {
            confine::idle_thread();
        }
    };
    let mut logger = logger(verbosity, LevelFilter::Info);
    let writer = match LogQueue::start(io::stderr(), prepare) {
        Ok((queue, writer)) => {
            // The library looks for a terminal only where it writes by itself.
            let styled = io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
            logger.write_style(if styled { WriteStyle::Always } else { WriteStyle::Never });
            logger.target(Target::Pipe(Box::new(queue)));
            Some(writer)
        }
        Err(_) => None,
    };
    logger.parse_default_env().init();
    if writer.is_none() {
        log::warn!("cannot start a thread for the log: a hung reader of stderr will stop the gateway");
    }
    writer
}

fn logger(verbosity: Verbosity, least: LevelFilter) -> env_logger::Builder {
    let level = match verbosity.verbose {
        0 => least,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let mut logger = env_logger::Builder::new();
    logger.filter_level(level);
    logger
}

fn complain(text: &str) -> ExitCode {
    // If stderr is closed as well, the error cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "equipoise: {text}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_of_zero_is_replaced_and_any_other_is_kept() {
        let seed = |seed| {
            let settings = seeded(Settings { seed, ..Settings::default() }).ok().expect("a random source");
            assert!(settings.health.seed == settings.seed || seed != 0, "the probes use it too");
            settings.seed
        };
        assert_eq!(seed(7), 7);
        let drawn = [seed(0), seed(0)];
        assert!(drawn[0] != drawn[1] && !drawn.contains(&0), "{drawn:?}");
    }
}
