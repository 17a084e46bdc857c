//! The thread that reads a configuration and prepares its plan, so that no packet waits for files or for the compiler of
//! rules and tables.
//!
//! It may read the directory of the configuration, which the thread that handles packets may not.

use super::super::confine;
use super::super::preflight;
use super::needs::Needs;
use crate::config::outside::LeftOut;
use crate::config::{self, ConfigError, Parsed, Settings, Severity, changes};
use crate::control::{Basis, Merged, Order, ReloadRow, Resolved};
use crate::engine::{KeyDiff, ObjectDiff, PlanDiff, Replaced, Succession, Successor};
use crate::sources::Found;
use mio::Waker;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};

/// Maximum size of a configuration file in bytes, so that a wrong file name does not fill the memory.
pub const MOST_CONFIG: u64 = 16 * 1024 * 1024;

/// Where the wanted configuration is.
#[derive(Debug)]
pub(in crate::gateway) enum Source {
    /// In the file that the gateway was started with; the changes of operators are made on top of it.
    File(Box<Basis>),
    /// In that file as last read, with other servers from outside.
    Outside(Box<Basis>),
    /// In a change of an operator.
    Order(Box<Order>),
}

/// A plan to be prepared.
#[derive(Debug)]
pub(in crate::gateway) struct Job {
    pub(in crate::gateway) source: Source,
    /// Servers from outside.
    pub(in crate::gateway) found: Arc<Found>,
    /// Made of the engine when the job was given.
    pub(in crate::gateway) succession: Succession,
    /// What makes the settings in force of those in the file.
    pub(in crate::gateway) in_force: Arc<Settings>,
    /// Whether what needs a restart may be left out.
    pub(in crate::gateway) partial: bool,
}

/// A prepared plan.
#[derive(Debug)]
pub(in crate::gateway) struct Ready {
    pub(in crate::gateway) successor: Successor,
    /// The settings as they will be in force.
    pub(in crate::gateway) settings: Arc<Settings>,
    /// What the system needs for them.
    pub(in crate::gateway) needs: Needs,
    /// What changes.
    pub(in crate::gateway) rows: Vec<ReloadRow>,
    /// What is left out as it needs a restart: a line each.
    pub(in crate::gateway) left_out: Vec<String>,
    pub(in crate::gateway) warnings: Vec<String>,
}

/// What became of a job that is not refused.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Outcome {
    /// The file that was read, with the changes of operators.
    pub(in crate::gateway) merged: Option<Box<Merged>>,
    /// Servers from outside that cannot be used; none if the job is not about them.
    pub(in crate::gateway) unfit: Option<LeftOut>,
    /// The change of an operator, checked.
    pub(in crate::gateway) resolved: Option<Box<Resolved>>,
    /// Without a plan: what is left out as it needs a restart, a line each.
    pub(in crate::gateway) left_out: Vec<String>,
    /// The plan; none as there is nothing to do.
    pub(in crate::gateway) ready: Option<Box<Ready>>,
}

/// What became of a job, or why it is refused.
pub(in crate::gateway) type Done = Result<Outcome, String>;

/// The thread.
#[derive(Debug)]
pub(in crate::gateway) struct Worker {
    work: SyncSender<Work>,
    done: Receiver<Done>,
}

/// What the thread is given.
enum Work {
    Prepare(Box<Job>),
    /// To be dropped.
    Discard(Box<Discarded>),
}

/// What a reload has replaced: dropping it takes a while.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "held until it is dropped")]
pub(in crate::gateway) struct Discarded {
    pub(in crate::gateway) plan: Option<Replaced>,
    pub(in crate::gateway) basis: Option<Basis>,
    pub(in crate::gateway) settings: Option<Arc<Settings>>,
    pub(in crate::gateway) needs: Option<Needs>,
}

impl Worker {
    /// Starts it, and returns when it has given up its privileges; to be called before the process gives up its own.
    pub(in crate::gateway) fn start(file: Option<PathBuf>, waker: Arc<Waker>) -> io::Result<Worker> {
        // The next job is given when the last one's result has been put in force, and there is one thing to drop for each.
        let (work, queue) = mpsc::sync_channel::<Work>(2);
        let (answers, done) = mpsc::sync_channel(1);
        let (confined, is_confined) = mpsc::sync_channel::<()>(1);
        let run = move || {
            confine::reading_thread(file.as_deref());
            drop(confined);
            for work in queue {
                match work {
                    Work::Discard(replaced) => drop(replaced),
                    Work::Prepare(job) => {
                        if answers.send(prepare(*job, file.as_deref())).is_err() {
                            return;
                        }
                        let _ = waker.wake();
                    }
                }
            }
        };
        std::thread::Builder::new().name("reload".into()).spawn(run)?;
        // Once the system calls of all threads are restricted, it can give up nothing any more.
        let _ = is_confined.recv();
        Ok(Worker { work, done })
    }

    /// Gives it a job; there must be no other.
    pub(in crate::gateway) fn give(&self, job: Job) {
        let sent = self.work.try_send(Work::Prepare(Box::new(job)));
        debug_assert!(sent.is_ok(), "one job at a time");
    }

    /// Gives it what a reload has replaced, as dropping that takes a while.
    pub(in crate::gateway) fn discard(&self, replaced: Discarded) {
        let sent = self.work.try_send(Work::Discard(Box::new(replaced)));
        debug_assert!(sent.is_ok(), "one job at a time");
    }

    /// Returns the result of the job, if it is ready.
    pub(in crate::gateway) fn take(&self) -> Option<Done> {
        match self.done.try_recv() {
            Ok(done) => Some(done),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err("the thread that prepares it has ended: restart the gateway".into()))
            }
        }
    }
}

/// The settings that a source asks for.
#[derive(Default)]
struct Wanted {
    settings: Settings,
    warnings: Vec<String>,
    /// Of the file, if that was read.
    text: Option<String>,
}

/// Reads a source; none if there is nothing to follow.
fn wanted(source: Source, found: &Found, file: Option<&Path>, outcome: &mut Outcome) -> Result<Option<Wanted>, String> {
    Ok(Some(match (source, file) {
        (Source::Order(order), _) => {
            let resolved = outcome.resolved.insert(Box::new(order.resolve()?));
            let Some(settings) = resolved.settings() else { return Ok(None) };
            Wanted { settings: (**settings).clone(), ..Wanted::default() }
        }
        (Source::Outside(basis), _) => {
            let Some(file) = basis.file() else { return Err("the servers have no configuration file".into()) };
            let (file, unfit) = file.with_servers(found).map_err(|error| brief(&error))?;
            outcome.unfit = Some(unfit);
            let merged = outcome.merged.insert(Box::new(basis.merge(file)));
            Wanted { settings: merged.settings().clone(), ..Wanted::default() }
        }
        (Source::File(_), None) => return Err("the gateway was started without a configuration file".into()),
        (Source::File(basis), Some(file)) => {
            let (by_itself, text) = parse(file)?;
            let (parsed, unfit) = by_itself.with_servers(found).map_err(|error| error.render(false))?;
            outcome.unfit = Some(unfit);
            let warnings =
                parsed.warnings.iter().map(|warning| format!("{}:{}: {}", file.display(), warning.line, warning.title));
            let warnings = warnings.collect();
            let merged = outcome.merged.insert(Box::new(basis.merge(changes::File::of(&parsed))));
            Wanted { settings: merged.settings().clone(), warnings, text: Some(text) }
        }
    }))
}

fn prepare(job: Job, file: Option<&Path>) -> Done {
    let mut outcome = Outcome::default();
    let is_outside = matches!(job.source, Source::Outside(_));
    let Some(asked) = wanted(job.source, &job.found, file, &mut outcome)? else { return Ok(outcome) };
    let Wanted { settings: mut wanted, warnings, text } = asked;
    if wanted.seed == 0 {
        wanted = wanted.with_seed(job.in_force.seed);
    }
    let mut left_out = needs_restart(&PlanDiff::between(&job.in_force, &wanted), text.as_deref());
    if !left_out.is_empty() && !job.partial {
        let list = left_out.join("\n  ");
        return Err(format!(
            "nothing is changed, as this takes effect at the next start only:\n  {list}\nto apply the rest: eqctl reload --partial"
        ));
    }
    if is_outside {
        // It was said when the file was read.
        left_out.clear();
    }
    let settings = Arc::new(wanted.live(&job.in_force));
    if settings == job.in_force {
        outcome.left_out = left_out;
        return Ok(outcome);
    }
    let problems = preflight::addresses(&settings);
    if !problems.is_empty() {
        let list: Vec<String> = problems.iter().map(|problem| format!("\n  - {problem}")).collect();
        return Err(format!(
            "nothing is changed, as this system cannot do what the configuration asks for:{}",
            list.concat()
        ));
    }
    if !job.succession.has_room(&settings) {
        return Err(
            "nothing is changed, as there would be more than 65535 rules, with those of live flows: keep the names of \
                    rules that stay, or reload a part of them first"
                .into(),
        );
    }
    let rows = ReloadRow::of(&PlanDiff::between(&job.in_force, &settings));
    let successor = job.succession.prepare(&settings);
    let needs = Needs::new(&settings, successor.plan().settings());
    outcome.ready = Some(Box::new(Ready { successor, settings, needs, rows, left_out, warnings }));
    Ok(outcome)
}

/// The first error in one line.
fn brief(error: &ConfigError) -> String {
    let first = error.problems().iter().find(|problem| problem.severity == Severity::Error);
    first.map_or_else(|| error.to_string(), |first| format!("{} (line {}): {}", first.title, first.line, first.help))
}

/// Returns a line for each change that needs a restart, with the line of the file where its key is.
fn needs_restart(diff: &PlanDiff, text: Option<&str>) -> Vec<String> {
    let line = |table, key| text.and_then(|text| config::line_of(text, table, key));
    let shown = |(object, key): (&ObjectDiff, &KeyDiff)| match line(key.table, key.key) {
        Some(line) => format!("line {line}: {}", key.describe(object)),
        None => key.describe(object),
    };
    diff.needs_restart().map(shown).collect()
}

/// Reads and checks a file; the error is for people, with excerpts.
fn parse(file: &Path) -> Result<(Parsed, String), String> {
    let bytes = read_again(file)?;
    let parsed = config::parse_bytes(&bytes, &file.display().to_string()).map_err(|error| error.render(false))?;
    Ok((parsed, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Reads a configuration file.
///
/// # Errors
/// A sentence that says what to do.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_opened(path, File::open(path))
}

/// Reads it again. What took the place of the file in the meantime may be a pipe, for whose writer nobody waits.
fn read_again(path: &Path) -> Result<Vec<u8>, String> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let kind = opened.as_ref().ok().and_then(|file| file.metadata().ok()).map(|metadata| metadata.file_type());
    if kind.is_some_and(|kind| !kind.is_file() && !kind.is_dir()) {
        return Err(format!("{} is neither a file nor a link to one: a reload cannot read it again", path.display()));
    }
    read_opened(path, opened)
}

fn read_opened(path: &Path, opened: io::Result<File>) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => format!("no configuration file {shown}: check the path"),
        ErrorKind::PermissionDenied => {
            format!(
                "permission denied for {shown}: check the permissions of the file and its directory; a reload reads only where \
                 the file was at the start"
            )
        }
        ErrorKind::IsADirectory => format!("{shown} is a directory: --config takes a file"),
        _ => format!("cannot read the configuration {shown}: {error}"),
    };
    let mut bytes = Vec::new();
    opened.and_then(|file| file.take(MOST_CONFIG + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MOST_CONFIG {
        let most = MOST_CONFIG / 1024 / 1024;
        return Err(format!("{shown} is longer than {most} MiB: this cannot be a configuration file"));
    }
    Ok(bytes)
}
