//! The log of a live gateway, written to stderr by a thread of its own: a reader of stderr that hangs costs log lines,
//! which are counted, and no packets.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

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
    /// Starts the thread that writes to `output`. Its first act is `prepare`, for example to give up privileges, which is
    /// done when this returns.
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
        let (prepared, is_prepared) = sync_channel(1);
        let written = move || {
            prepare();
            let _ = prepared.send(());
            write_lines(&receiver, output);
        };
        thread::Builder::new().name("log".into()).spawn(written)?;
        let _ = is_prepared.recv();
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

/// Writes lines as they come. Once writing is possible again after a loss, says how many were lost.
fn write_lines(lines: &Receiver<Message>, mut output: impl Write) {
    let mut told = lost_lines();
    while let Ok(message) = lines.recv() {
        match message {
            Message::Line(line) => {
                if !write_all(&mut output, &line) {
                    LOST.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                // Not through the logger, whose line would come back here: with an output that refuses every line, each
                // loss would report another.
                let lost = lost_lines();
                if lost > told && write_all(&mut output, loss(lost - told).as_bytes()) {
                    told = lost;
                }
            }
            Message::Written(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

/// The line that reports a loss, in the logger's format.
fn loss(lines: u64) -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    format!("[{time} WARN  {}] {lines} log lines were lost: stderr was not read fast enough\n", module_path!())
}

/// Like `Write::write_all`, but also waits for an output that is in non-blocking mode. Returns false if the line, or a part
/// of it, is lost: there is nowhere to report other errors.
fn write_all(output: &mut impl Write, mut line: &[u8]) -> bool {
    while !line.is_empty() {
        match output.write(line) {
            Ok(0) => return false,
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex, PoisonError};

    /// The count of lost lines belongs to the process: one test at a time.
    static TURN: Mutex<()> = Mutex::new(());

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
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
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
        let (told, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains("log lines were lost"));
        assert_eq!(lines, ["line 0", "line 1", "line 2", "line 3", "line 4"]);
        assert!(told.len() == 1 && told[0].contains("] 6 log lines"), "{told:?}");
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// An output that refuses everything until it is mended.
    struct Broken {
        mended: Arc<Mutex<bool>>,
        written: Arc<Mutex<Vec<u8>>>,
        attempts: SyncSender<()>,
    }

    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.attempts.send(()).unwrap();
            if !*self.mended.lock().unwrap() {
                return Err(ErrorKind::BrokenPipe.into());
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_fails_loses_a_line_each_and_is_told_of_the_loss_when_it_works_again() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mended, written) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (attempts, attempted) = sync_channel(0);
        let output = Broken { mended: Arc::clone(&mended), written: Arc::clone(&written), attempts };
        let (mut queue, writer) = LogQueue::with_room(8, output, || {}).unwrap();
        for n in 1..=3 {
            queue.write_all(format!("line {n}\n").as_bytes()).unwrap();
            attempted.recv().unwrap();
        }
        // Nothing else is attempted until there is another line.
        assert!(attempted.recv_timeout(Duration::from_millis(200)).is_err());
        *mended.lock().unwrap() = true;
        queue.write_all(b"line 4\n").unwrap();
        attempted.recv().unwrap();
        attempted.recv().unwrap();
        drop(writer);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "line 4");
        assert!(lines.len() == 2 && lines[1].contains(" WARN ") && lines[1].contains(" log lines were lost"), "{text}");
    }
}
