//! Files of servers: read when their directory reports a change, and now and then.
//!
//! The directory is watched, not the file: writers replace the file by another one (rename), or the link that leads to it
//! (Kubernetes). Where the file is a link, the directory of its target is watched too. Each look at a file has a thread of
//! its own, since a file system may hang, and a list of ten thousand servers takes milliseconds to read.

use crate::balance::ServerSettings;
use crate::sources::{Found, From, MOST_BYTES, SourceSettings, Sources, read_list};
use crate::time::Instant;
use mio::Waker;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

/// What a look at a file found.
struct Look {
    path: PathBuf,
    /// The numbers of the watches on its directories.
    watches: Vec<(i32, PathBuf)>,
    is_link: bool,
    list: Result<Vec<ServerSettings>, String>,
}

/// What is known of a file that was looked at.
struct Known {
    watches: Vec<(i32, PathBuf)>,
    is_link: bool,
}

/// The files of a running gateway.
pub(super) struct Files {
    /// `None` if the kernel has no inotify left; files are then read now and then.
    inotify: Option<Arc<OwnedFd>>,
    known: BTreeMap<PathBuf, Known>,
    /// Files that are being looked at.
    under_way: BTreeSet<PathBuf>,
    done: (Sender<Look>, Receiver<Look>),
    waker: Arc<Waker>,
    readable: Readable,
}

/// The directories that a confined gateway can read; none before it is confined.
#[derive(Debug, Clone, Default)]
pub(in crate::gateway) struct Readable(Option<Arc<Vec<PathBuf>>>);

impl Readable {
    /// Those of a gateway that gives up all other directories.
    pub(in crate::gateway) fn only(directories: &[PathBuf]) -> Readable {
        let real = |directory: &PathBuf| fs::canonicalize(directory).unwrap_or_else(|_| directory.clone());
        Readable(Some(Arc::new(directories.iter().map(real).collect())))
    }

    /// Returns why a file cannot be read before a restart, if that is known.
    pub(in crate::gateway) fn lacks(&self, path: &Path) -> Option<String> {
        let all = self.0.as_ref()?;
        let real = |directory: PathBuf| fs::canonicalize(&directory).unwrap_or(directory);
        let missing =
            directories_of(path).into_iter().map(real).find(|own| !all.iter().any(|dir| own.starts_with(dir)))?;
        Some(format!(
            "the gateway can read only directories that had files of servers when it started, and {} had none: restart it",
            missing.display()
        ))
    }
}

impl Files {
    /// Makes it; nothing is watched before it is looked at. `waker` wakes who calls [`Files::take`].
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .inspect_err(|error| log::warn!("files of servers are only read twice a minute: inotify: {error}"));
        Files {
            // Always, so that a reload can add the first file.
            inotify: inotify.ok().map(Arc::new),
            known: BTreeMap::new(),
            under_way: BTreeSet::new(),
            done: mpsc::channel(),
            waker,
            readable: Readable::default(),
        }
    }

    /// From now on other directories cannot be read.
    pub(super) fn confine(&mut self, readable: Readable) {
        self.readable = readable;
    }

    /// Forgets files that are no longer among the sources.
    pub(super) fn follow(&mut self, sources: &[SourceSettings]) {
        let wanted: BTreeSet<&PathBuf> = paths(sources).collect();
        let gone: Vec<PathBuf> = self.known.keys().filter(|path| !wanted.contains(path)).cloned().collect();
        for known in gone.iter().filter_map(|path| self.known.remove(path)).collect::<Vec<_>>() {
            self.end_watches(&known.watches);
        }
    }

    /// Returns the descriptor that becomes readable when a directory has changed.
    pub(super) fn news(&self) -> Option<RawFd> {
        self.inotify.as_ref().map(|fd| fd.as_raw_fd())
    }

    /// Ends watches that no file needs.
    fn end_watches(&self, watches: &[(i32, PathBuf)]) {
        let Some(inotify) = &self.inotify else { return };
        let is_needed =
            |number: &i32| self.known.values().flat_map(|known| &known.watches).any(|(own, _)| own == number);
        for (number, _) in watches.iter().filter(|(number, _)| !is_needed(number)) {
            // It has ended by itself if the directory is gone.
            let _ = inotify::remove_watch(inotify, *number);
        }
    }

    /// Reads what the kernel reports, and marks the files that may have changed.
    pub(super) fn take_news(&mut self, sources: &mut Sources, now: Instant) {
        let Some(inotify) = &self.inotify else { return };
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify, &mut room);
        let mut changed = BTreeSet::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => break,
            };
            let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            let concerns = |(path, known): &(&PathBuf, &Known)| {
                let directory = known.watches.iter().find(|(number, _)| *number == event.wd()).map(|(_, dir)| dir);
                // A link can be led elsewhere by any name in any of its directories.
                let is_named = known.is_link || name.is_none() || name == path.file_name();
                lost || directory.is_some() && is_named
            };
            changed.extend(self.known.iter().filter(concerns).map(|(path, _)| path.clone()));
        }
        changed.iter().for_each(|path| sources.file_changed(now, path));
    }

    /// Begins to look at a file; the error says what to do.
    pub(super) fn look(&mut self, path: PathBuf) -> Result<(), String> {
        if !self.under_way.insert(path.clone()) {
            return Err("reading it takes longer than a minute: does its file system respond?".into());
        }
        let (inotify, sender, waker) = (self.inotify.clone(), self.done.0.clone(), Arc::clone(&self.waker));
        let readable = self.readable.clone();
        let work = move || {
            // Watched before it is read, so that no change is missed.
            let watches = inotify.map(|inotify| watch(&inotify, &path)).unwrap_or_default();
            let is_link = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink());
            let list = read(&path, &readable).and_then(|bytes| read_list(&bytes).map_err(|wrong| wrong.to_string()));
            if sender.send(Look { path, watches, is_link, list }).is_ok() {
                let _ = waker.wake();
            }
        };
        let started = std::thread::Builder::new().name("list".into()).spawn(work);
        started.map(drop).map_err(|error| format!("no thread to read it: {error}"))
    }

    /// Takes what looks have found.
    pub(super) fn take(&mut self, sources: &mut Sources, now: Instant) {
        while let Ok(Look { path, watches, is_link, list }) = self.done.1.try_recv() {
            self.under_way.remove(&path);
            let before = self.known.insert(path.clone(), Known { watches, is_link });
            self.end_watches(&before.map(|known| known.watches).unwrap_or_default());
            sources.take_list(now, &path, list);
        }
    }
}

/// Watches the directories that a file is in by now; a watch that exists stays.
fn watch(inotify: &OwnedFd, path: &Path) -> Vec<(i32, PathBuf)> {
    let flags = WatchFlags::CLOSE_WRITE
        | WatchFlags::MODIFY
        | WatchFlags::MOVE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    // One that is missing is looked for again with the next look.
    let watched = |directory: PathBuf| Some((inotify::add_watch(inotify, &directory, flags).ok()?, directory));
    directories_of(path).into_iter().filter_map(watched).collect()
}

/// The paths among sources.
fn paths(sources: &[SourceSettings]) -> impl Iterator<Item = &PathBuf> {
    sources.iter().filter_map(|source| if let From::File(path) = &source.from { Some(path) } else { None })
}

/// The directory of a file, and that of the file that it leads to.
fn directories_of(path: &Path) -> BTreeSet<PathBuf> {
    let target = fs::canonicalize(path).ok();
    let both = [path.parent(), target.as_deref().and_then(Path::parent)];
    both.into_iter().flatten().map(Path::to_owned).collect()
}

/// Returns the directories that files are in, for the confinement of the process.
pub fn directories(sources: &[SourceSettings]) -> Vec<PathBuf> {
    let all: BTreeSet<PathBuf> = paths(sources).flat_map(|path| directories_of(path)).collect();
    all.into_iter().filter(|path| path.is_dir()).collect()
}

/// Reads all files at once, before a gateway runs: what was found, and what is wrong, a line each.
pub fn from_files(sources: &[SourceSettings]) -> (Found, Vec<String>) {
    let (mut found, mut wrong) = (Found::new(), Vec::new());
    for source in sources {
        let From::File(path) = &source.from else { continue };
        match read(path, &Readable::default()).and_then(|bytes| read_list(&bytes).map_err(|wrong| wrong.to_string())) {
            Ok(servers) => drop(found.insert(source.pool.clone(), Arc::new(servers))),
            Err(why) => wrong.push(format!("pool {}, servers from {}: {why}", source.pool, path.display())),
        }
    }
    (found, wrong)
}

fn read(path: &Path, readable: &Readable) -> Result<Vec<u8>, String> {
    let directory = path.parent().unwrap_or(path);
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound if !directory.is_dir() => format!(
            "there is no directory {}: create it, then start the gateway again, which can only read directories that \
             existed when it started",
            directory.display()
        ),
        ErrorKind::NotFound => "no such file: it is read as soon as it is there".to_owned(),
        ErrorKind::PermissionDenied => readable
            .lacks(path)
            .unwrap_or_else(|| "permission denied: check its permissions and those of its directory".into()),
        _ => format!("cannot read it: {error}"),
    };
    // Opening a pipe would wait for its writer.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("not a regular file: name the file that has the servers".into());
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
