//! The log of a live gateway, written to stderr by a thread of its own: a reader of stderr that hangs costs log lines,
//! which are counted, and no packets.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait for the writer; further ones are lost. About 0.5 MiB of common lines.
const ROOM: usize = 4096;
/// How long the end of the process waits for the last lines to be written.
const LAST: Duration = Duration::from_secs(1);
/// Pause before another attempt to write to a non-blocking stderr, or to queue a request.
const PAUSE: Duration = Duration::from_millis(20);

/// Lines lost since the process started.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Returns how many log lines were lost since the process started because stderr was not read fast enough.
pub fn lost_lines() -> u64 {
    LOST.load(Ordering::Relaxed)
}

enum Message {
    Line(Vec<u8>),
    /// Everything before it has been written.
    Written(SyncSender<()>),
}

/// Where the logger writes its lines, one whole line per call of `write`.
#[derive(Debug)]
pub struct LogQueue(SyncSender<Message>);

/// Waits for the lines of a [`LogQueue`] at the end of the process.
#[derive(Debug)]
pub struct LogWriter(SyncSender<Message>);

impl LogQueue {
    /// Starts the thread that writes to `output`. Its first act is `prepare`, for example to give up privileges.
    ///
    /// Fails if the system has no thread left.
    pub fn start(
        output: impl Write + Send + 'static,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<(LogQueue, LogWriter)> {
        Self::with_room(ROOM, output, prepare)
    }

    fn with_room(
        room: usize,
        output: impl Write + Send + 'static,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<(LogQueue, LogWriter)> {
        let (sender, receiver) = sync_channel(room);
        let written = move || {
            prepare();
            write_lines(&receiver, output);
        };
        thread::Builder::new().name("log".into()).spawn(written)?;
        Ok((LogQueue(sender.clone()), LogWriter(sender)))
    }
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.0.try_send(Message::Line(line.to_vec())) {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    /// Waits until all lines are written, at most a second.
    fn drop(&mut self) {
        let end = Instant::now() + LAST;
        let (written, wait) = sync_channel(1);
        let mut request = Message::Written(written);
        while let Err(TrySendError::Full(back)) = self.0.try_send(request) {
            if Instant::now() >= end {
                return;
            }
            request = back;
            thread::sleep(PAUSE);
        }
        let _ = wait.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Writes lines as they come, and says how many were lost once writing is possible again.
fn write_lines(lines: &Receiver<Message>, mut output: impl Write) {
    let mut told = lost_lines();
    while let Ok(message) = lines.recv() {
        match message {
            Message::Line(line) => write_all(&mut output, &line),
            Message::Written(done) => {
                let _ = done.try_send(());
            }
        }
        let lost = lost_lines();
        if lost > told {
            log::warn!("{} log lines were lost: stderr was not read fast enough", lost - told);
            told = lost;
        }
    }
}

/// Like `Write::write_all`, but also waits for an output that is in non-blocking mode. Other errors lose the line: there
/// is nowhere to report them.
fn write_all(output: &mut impl Write, mut line: &[u8]) {
    while !line.is_empty() {
        match output.write(line) {
            Ok(0) => break,
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    if !line.is_empty() {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// An output that takes nothing while `shut` is held, and tells of each attempt.
    struct Gate {
        shut: Arc<Mutex<Vec<u8>>>,
        attempts: SyncSender<()>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.attempts.try_send(());
            // A few bytes at a time, as a pipe that is nearly full does.
            let some = &bytes[..bytes.len().min(3)];
            self.shut.lock().unwrap().extend_from_slice(some);
            Ok(some.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_hung_reader_costs_lines_and_nobody_waits() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (attempts, attempted) = sync_channel(1);
        let gate = Gate { shut: Arc::clone(&written), attempts };
        let (mut queue, writer) = LogQueue::with_room(4, gate, || {}).unwrap();
        let before = lost_lines();
        let shut = written.lock().unwrap();
        queue.write_all(b"line 0\n").unwrap();
        attempted.recv().unwrap(); // the thread has taken line 0 and hangs
        for n in 1..=10 {
            queue.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        assert_eq!(lost_lines() - before, 6, "four wait, and one is being written");
        drop(shut);
        drop(writer);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "line 0\nline 1\nline 2\nline 3\nline 4\n");
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (attempts, attempted) = sync_channel(1);
        let gate = Gate { shut: Arc::clone(&written), attempts };
        let (mut queue, writer) = LogQueue::with_room(1, gate, || {}).unwrap();
        let shut = written.lock().unwrap();
        queue.write_all(b"first\n").unwrap();
        attempted.recv().unwrap();
        queue.write_all(b"second\n").unwrap();
        drop(writer); // returns, although the queue is full and nothing is written
        assert!(shut.is_empty());
    }
}
