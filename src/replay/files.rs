//! The files of a replay: nothing is written before the whole capture has been found readable, and the translated
//! capture gets its name only when it is complete.

use super::explain::Asked;
use super::report::{Format, Report};
use super::script::ScriptError;
use super::{Replay, Stop, Summary};
use crate::capture::{CaptureError, Reader, Writer};
use crate::config::Settings;
use crate::flow::TableTooBig;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The options of a replay.
#[derive(Debug, Clone)]
pub struct Args {
    /// The checked configuration.
    pub settings: Settings,
    /// The capture: pcap or pcapng, optionally gzipped.
    pub input: PathBuf,
    /// The file for the translated capture (pcapng), if wanted.
    pub output: Option<PathBuf>,
    /// The format of the report.
    pub format: Format,
    /// Whether to replay the intact part of a damaged capture.
    pub partial: bool,
    /// File of events to apply besides the packets: changes of servers and rules.
    pub events: Option<PathBuf>,
    /// Whether to continue after the last packet until every flow has ended.
    pub drain: bool,
}

/// An error of a replay; its text says what to do.
#[derive(Debug)]
pub enum ReplayError {
    /// The capture cannot be read.
    Capture {
        /// The capture.
        path: PathBuf,
        /// Why.
        source: CaptureError,
    },
    /// A file cannot be opened, written or renamed.
    File {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of events cannot be parsed.
    Script {
        /// The file.
        path: PathBuf,
        /// The error and its place.
        source: ScriptError,
    },
    /// The report cannot be written.
    Report(io::Error),
    /// The output would overwrite the input.
    SameFile(PathBuf),
    /// There is not enough memory for the table.
    Table(TableTooBig),
    /// The frame to explain does not exist.
    NoSuchFrame {
        /// The capture.
        path: PathBuf,
        /// The number of the frame.
        number: u64,
        /// Frames in the capture.
        frames: u64,
    },
    /// The frame to explain has no complete IP packet.
    NoPacket {
        /// The number of the frame.
        number: u64,
        /// What is missing.
        why: String,
    },
    /// What happened is not what was explained.
    Differs {
        /// The number of the frame.
        number: u64,
        /// The difference.
        how: String,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Capture { path, source } => write!(f, "{}: {source}", path.display()),
            ReplayError::File { doing, path, source } => write!(f, "cannot {doing} {}: {source}", path.display()),
            ReplayError::Script { path, source } => write!(f, "{}, {source}", path.display()),
            ReplayError::Report(error) => write!(f, "cannot write the report: {error}"),
            ReplayError::Table(error) => error.fmt(f),
            ReplayError::NoSuchFrame { path, number, frames } => {
                write!(f, "{} has no frame {number}: its frames are numbered from 1 to {frames}", path.display())
            }
            ReplayError::NoPacket { number, why } => {
                write!(f, "frame {number} was not replayed, so there is nothing to explain: {why}")
            }
            ReplayError::Differs { number, how } => write!(
                f,
                "frame {number} did not meet the verdict that was explained ({how}): this is a fault of equipoise; please \
                 report it with the capture and the configuration"
            ),
            ReplayError::SameFile(path) => {
                write!(f, "{} is the input capture: choose another file for -w", path.display())
            }
        }
    }
}

impl std::error::Error for ReplayError {}

/// Replays a capture and writes the report to `out`.
///
/// With `partial`, a damaged capture is replayed up to the damage, and the report states it; without, damage is an error,
/// and nothing is written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Summary, ReplayError> {
    run_telling(args, out, &mut |_| {})
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Frames read or replayed.
    pub frames: u64,
    /// Frames in the capture; none while it is read for the first time.
    pub of: Option<u64>,
}

/// Frames between two reports of progress.
const TOLD: u64 = 1024;

/// Like [`run`], and tells after every 1,024 frames how far it is.
pub fn run_telling(args: &Args, out: &mut dyn Write, tell: &mut dyn FnMut(Progress)) -> Result<Summary, ReplayError> {
    let (frames, damage) = scan(args, tell)?;
    let capture_failed = |source| ReplayError::Capture { path: args.input.clone(), source };
    let mut target = args.output.as_deref().map(|path| Target::create(path, &args.input)).transpose()?;
    let file_failed = |source| ReplayError::File {
        doing: "write the translated capture",
        path: args.output.clone().unwrap_or_default(),
        source,
    };
    let writer = match &target {
        Some(target) => {
            let file = target.file.try_clone().map_err(file_failed)?;
            let file: Box<dyn Write> = Box::new(BufWriter::new(file));
            Some(Writer::new(file).map_err(file_failed)?)
        }
        None => None,
    };
    let mut reader = Reader::new(open(&args.input)?).map_err(capture_failed)?;
    let mut replay = begin(args, Report::new(args.format, out), writer)?;
    let mut tell = |done: u64| {
        if done.is_multiple_of(TOLD) {
            tell(Progress { frames: done, of: Some(frames) });
        }
    };
    let stopped = match replay.all(&mut reader, &mut tell) {
        Err(Stop::Capture(error)) if !args.partial || !error.is_partial() => return Err(capture_failed(error)),
        Err(Stop::Output(error)) => return Err(ReplayError::Report(error)),
        Ok(()) | Err(Stop::Capture(_)) => replay.finish(args.drain, damage.as_ref()),
    };
    let summary = stopped.map_err(|stop| match stop {
        Stop::Capture(error) => capture_failed(error),
        Stop::Output(error) => ReplayError::Report(error),
    })?;
    if let Some(target) = &mut target {
        target.complete()?;
    }
    Ok(summary)
}

/// Replays a capture up to a frame, and writes to `out` why its packet meets its verdict, instead of a report.
///
/// The packet is explained before it is handled; then its verdict is compared with the explanation. Nothing is written to
/// `args.output`.
///
/// # Errors
/// Those of [`run`], if there is no such frame or no packet in it, and if the verdict is not the one that was explained.
pub fn explain(args: &Args, number: u64, out: &mut dyn Write) -> Result<(), ReplayError> {
    let (frames, _) = scan(args, &mut |_| {})?;
    if !(1..=frames).contains(&number) {
        return Err(ReplayError::NoSuchFrame { path: args.input.clone(), number, frames });
    }
    let capture_failed = |source| ReplayError::Capture { path: args.input.clone(), source };
    let mut reader = Reader::new(open(&args.input)?).map_err(capture_failed)?;
    let mut nowhere = io::sink();
    let mut replay = begin(args, Report::new(args.format, &mut nowhere), None)?;
    replay.asked = Asked::Frame(number);
    replay.all(&mut reader, &mut |_| {}).map_err(|stop| match stop {
        Stop::Capture(error) => capture_failed(error),
        Stop::Output(error) => ReplayError::Report(error),
    })?;
    replay.asked.answer(number, args.format, out)
}

/// Makes the engine of a replay and reads its events.
fn begin<'o>(
    args: &Args,
    report: Report<'o>,
    writer: Option<Writer<Box<dyn Write + 'o>>>,
) -> Result<Replay<'o>, ReplayError> {
    let mut replay = Replay::new(&args.settings, report, writer).map_err(ReplayError::Table)?;
    if let Some(path) = &args.events {
        let failed = |source| ReplayError::File { doing: "read the events from", path: path.clone(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        replay.follow(&text).map_err(|source| ReplayError::Script { path: path.clone(), source })?;
    }
    Ok(replay)
}

/// Reads the whole capture once; returns the number of its frames, and its damage if that is acceptable.
fn scan(args: &Args, tell: &mut dyn FnMut(Progress)) -> Result<(u64, Option<CaptureError>), ReplayError> {
    let mut frames = 0_u64;
    let mut read = || -> Result<(), CaptureError> {
        let mut reader = Reader::new(open(&args.input).map_err(|error| match error {
            ReplayError::File { source, .. } => CaptureError::Io(source),
            _ => CaptureError::Empty,
        })?)?;
        while reader.next_frame()?.is_some() {
            frames += 1;
            if frames.is_multiple_of(TOLD) {
                tell(Progress { frames, of: None });
            }
        }
        Ok(())
    };
    match read() {
        Ok(()) => Ok((frames, None)),
        Err(error) if args.partial && error.is_partial() => Ok((frames, Some(error))),
        Err(source) => Err(ReplayError::Capture { path: args.input.clone(), source }),
    }
}

fn open(path: &Path) -> Result<File, ReplayError> {
    File::open(path).map_err(|source| ReplayError::File { doing: "open", path: path.into(), source })
}

/// A file that has a hidden name until it is complete, and is removed if it never is.
struct Target {
    file: File,
    hidden: PathBuf,
    path: PathBuf,
}

impl Target {
    fn create(path: &Path, input: &Path) -> Result<Target, ReplayError> {
        if let (Ok(a), Ok(b)) = (fs::canonicalize(path), fs::canonicalize(input))
            && a == b
        {
            return Err(ReplayError::SameFile(path.into()));
        }
        let failed = |source| ReplayError::File { doing: "create", path: path.into(), source };
        let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let hidden = path.with_file_name(hidden);
        let file = File::create(&hidden).map_err(failed)?;
        Ok(Target { file, hidden, path: path.into() })
    }

    fn complete(&mut self) -> Result<(), ReplayError> {
        let failed =
            |source| ReplayError::File { doing: "rename the translated capture to", path: self.path.clone(), source };
        fs::rename(&self.hidden, &self.path).map_err(failed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // A complete file has been renamed.
        let _ = fs::remove_file(&self.hidden);
    }
}
