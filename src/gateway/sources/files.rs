//! Files of servers: read when their directory reports a change, and now and then.
//!
//! The directory is watched, not the file: writers replace the file by another one (rename), or the link that leads to it
//! (Kubernetes). Where the file is a link, the directory of its target is watched too.

use crate::sources::{Found, From, MOST_BYTES, SourceSettings, Sources, read_list};
use crate::time::Instant;
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

/// The files of a running gateway.
pub(super) struct Files {
    /// `None` if the kernel has no inotify left; files are then read now and then.
    inotify: Option<OwnedFd>,
    paths: Vec<PathBuf>,
    /// Watched directories, by the number of the watch.
    watched: BTreeMap<i32, PathBuf>,
}

impl Files {
    /// Watches the files among the sources.
    pub(super) fn new(sources: &[SourceSettings]) -> Self {
        let mut files = Files { inotify: None, paths: Vec::new(), watched: BTreeMap::new() };
        // Always, so that a reload can add the first file.
        match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(fd) => files.inotify = Some(fd),
            Err(error) => log::warn!("files of servers are read twice a minute only: inotify: {error}"),
        }
        files.follow(sources);
        files
    }

    /// Watches other files.
    pub(super) fn follow(&mut self, sources: &[SourceSettings]) {
        self.paths = paths(sources).cloned().collect();
        self.watch();
    }

    /// Returns the descriptor that becomes readable when a directory has changed.
    pub(super) fn news(&self) -> Option<RawFd> {
        self.inotify.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Watches the directories that the files are in by now; a watch that exists stays.
    fn watch(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let wanted: BTreeSet<PathBuf> = self.paths.iter().flat_map(|path| directories_of(path)).collect();
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut watched = BTreeMap::new();
        for directory in wanted {
            // One that is missing is looked for again with the next reading.
            if let Ok(number) = inotify::add_watch(inotify, &directory, flags) {
                watched.insert(number, directory);
            }
        }
        for number in self.watched.keys().filter(|number| !watched.contains_key(number)) {
            // It ends by itself with its directory.
            let _ = inotify::remove_watch(inotify, *number);
        }
        self.watched = watched;
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
            let directory = self.watched.get(&event.wd());
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            let concerns = |path: &&PathBuf| {
                // A link can be led elsewhere by any name in any of its directories.
                let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
                let is_here = directory.is_some_and(|directory| path.parent() == Some(directory));
                lost || is_link || is_here && (name.is_none() || name == path.file_name())
            };
            changed.extend(self.paths.iter().filter(concerns).cloned());
        }
        changed.iter().for_each(|path| sources.file_changed(now, path));
    }

    /// Reads a file; the error says what to do. Its directories are watched from then on.
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        self.watch();
        read(path)
    }
}

/// The paths among sources.
fn paths(sources: &[SourceSettings]) -> impl Iterator<Item = &PathBuf> {
    sources.iter().filter_map(|source| if let From::File(path) = &source.from { Some(path) } else { None })
}

/// The directory of a file, and that of the file that it leads to.
fn directories_of(path: &Path) -> Vec<PathBuf> {
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
        match read(path).and_then(|bytes| read_list(&bytes).map_err(|wrong| wrong.to_string())) {
            Ok(servers) => drop(found.insert(source.pool.clone(), servers)),
            Err(why) => wrong.push(format!("pool {}, servers from {}: {why}", source.pool, path.display())),
        }
    }
    (found, wrong)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let directory = path.parent().unwrap_or(path);
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound if !directory.is_dir() => format!(
            "there is no directory {}: create it, then start the gateway again, which can only read directories that \
             existed when it started",
            directory.display()
        ),
        ErrorKind::NotFound => "no such file: it is read as soon as it is there".to_owned(),
        ErrorKind::PermissionDenied => "permission denied: check its permissions; if its directory was not in the \
                                        configuration when the gateway started, restart it, for it gave up other files"
            .into(),
        _ => format!("cannot read it: {error}"),
    };
    // A pipe would keep all packets waiting.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("not a regular file: name the file that has the servers".into());
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
