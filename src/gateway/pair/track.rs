//! The file by which keepalived learns whether this gateway may be elected (`track_file`, keepalived.conf(5)): its number is
//! added to the priority.
//!
//! keepalived reads an empty file as 0, which means healthy (findings/keepalived-track-file.sh). So the file is never
//! truncated: every text has the same length, and one write replaces it.

use super::super::confine;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

/// What keepalived is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    /// It may be elected.
    Fit,
    /// Only if there is no other: it does not know the peer's flows yet, or has asked the peer to take over.
    Rather,
    /// It does not run.
    Not,
}

impl Fitness {
    fn text(self) -> &'static str {
        match self {
            Fitness::Fit => "0   \n",
            Fitness::Rather => "-50 \n",
            // Below -253 an instance of keepalived is in the state FAULT.
            Fitness::Not => "-254\n",
        }
    }
}

/// What the thread is to do.
enum Order {
    Tell(Fitness),
    /// Give up every privilege that it does not need, and say when that is done.
    Confine(Sender<()>),
}

/// Writes the file in a thread of its own, so that no packet waits for it.
#[derive(Debug)]
pub(super) struct TrackFile {
    told: Option<Fitness>,
    thread: Option<(Sender<Order>, JoinHandle<()>)>,
}

impl TrackFile {
    /// Makes the file, which says that this gateway is not the one to elect. One that takes the place of another one, which
    /// `runs`, leaves it alone until it has something to tell: it may have to give up, and that one carries on.
    pub(super) fn open(path: &Path, runs: bool) -> io::Result<TrackFile> {
        // The directory of the control socket is usually the same, and may not be there yet.
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            let _ = std::fs::create_dir(directory);
        }
        if !runs {
            write(path, Fitness::Rather)?;
        }
        let (sender, receiver) = mpsc::channel();
        let to = std::path::absolute(path)?;
        let thread = thread::Builder::new().name("track-file".into()).spawn(move || serve(&to, &receiver))?;
        let told = runs.then_some(Fitness::Not);
        Ok(TrackFile { told, thread: Some((sender, thread)) })
    }

    /// Tells keepalived, if it has not been told.
    pub(super) fn tell(&mut self, fitness: Fitness) {
        if self.told.replace(fitness) == Some(fitness) {
            return;
        }
        if let Some((sender, _)) = &self.thread {
            let _ = sender.send(Order::Tell(fitness));
        }
    }

    /// Makes the thread give up every privilege that it does not need; returns once it has.
    pub(super) fn confine(&self) {
        let (done, wait) = mpsc::channel();
        if let Some((sender, _)) = &self.thread
            && sender.send(Order::Confine(done)).is_ok()
        {
            let _ = wait.recv();
        }
    }

    /// Leaves the file to a gateway that takes over.
    pub(super) fn leave(&mut self) {
        self.told = Some(Fitness::Not);
    }
}

impl Drop for TrackFile {
    fn drop(&mut self) {
        self.tell(Fitness::Not);
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

fn serve(path: &Path, orders: &Receiver<Order>) {
    let mut complained = false;
    for order in orders {
        match order {
            Order::Confine(done) => {
                confine::writing_thread(path.parent().unwrap_or(Path::new("/")));
                let _ = done.send(());
            }
            Order::Tell(fitness) => match write(path, fitness) {
                Ok(()) => complained = false,
                Err(error) if !std::mem::replace(&mut complained, true) => {
                    log::warn!("{}: keepalived is not told: {error}", path.display());
                }
                Err(_) => {}
            },
        }
    }
}

/// In place: whoever watches the file keeps watching it.
fn write(path: &Path, fitness: Fitness) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path)?;
    file.write_all(fitness.text().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_what_was_told_last_and_in_the_end_that_nobody_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/track");
        let mut track = TrackFile::open(&path, false).unwrap();
        let read = || std::fs::read_to_string(&path).unwrap().trim_end().to_owned();
        assert_eq!(read(), "-50");
        track.tell(Fitness::Rather);
        track.tell(Fitness::Fit);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while read() != "0" && std::time::Instant::now() < end {
            thread::yield_now();
        }
        assert_eq!(read(), "0");
        drop(track);
        assert_eq!(read(), "-254");
        let mut left = TrackFile::open(&path, true).unwrap();
        left.tell(Fitness::Fit);
        left.leave();
        drop(left);
        assert_eq!(read(), "0");
        // One that would take over, and does not.
        drop(TrackFile::open(&path, true).unwrap());
        assert_eq!(read(), "0");
        let mut took = TrackFile::open(&path, true).unwrap();
        took.tell(Fitness::Rather);
        drop(took);
        assert_eq!(read(), "-254");
    }
}
