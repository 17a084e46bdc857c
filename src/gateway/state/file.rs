//! The format of the file, and how one is read and replaced.
//!
//! ```text
//! "EQPSTATE" | length of the header u32 | header: JSON | records | CRC-32C of all before u32        numbers big-endian
//! ```
//!
//! The header says when the state was written: the boot, and the time since it began; and the wall clock, which is all
//! there is after another boot. A file is written beside its final name and renamed, so that there is a whole one at any
//! time.

use crate::time::Duration;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"EQPSTATE";
/// Bytes of the checksum.
const SUM: usize = 4;
/// Most bytes of a header.
const MOST_HEADER: usize = 4096;
/// Most bytes of a file: 100 million flows have 10 GB.
const MOST: u64 = 16 << 30;

/// The clocks at one point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Identifies the boot of the machine (`/proc/sys/kernel/random/boot_id`); empty if unknown.
    pub boot: String,
    /// Nanoseconds since that boot, in which it slept included (CLOCK_BOOTTIME).
    pub since_boot_ns: u64,
    /// Nanoseconds since 1970 (CLOCK_REALTIME).
    pub wall_ns: u64,
}

impl Clocks {
    /// Reads the clocks.
    pub fn read() -> Clocks {
        let read = |id| {
            let time = clock_gettime(id);
            u64::try_from(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)).unwrap_or(0)
        };
        Clocks { boot: boot().into(), since_boot_ns: read(ClockId::Boottime), wall_ns: read(ClockId::Realtime) }
    }

    /// Returns how long ago these were read, and whether only the wall clock tells.
    pub fn age(&self, now: &Clocks) -> (Duration, bool) {
        let is_same = self.boot == now.boot && !self.boot.is_empty() && self.since_boot_ns <= now.since_boot_ns;
        let (then, now) = if is_same { (self.since_boot_ns, now.since_boot_ns) } else { (self.wall_ns, now.wall_ns) };
        (Duration::from_nanos(now.saturating_sub(then)), !is_same)
    }
}

/// Returns the identifier of this boot. It is read once.
fn boot() -> &'static str {
    static BOOT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
    })
}

/// What stands before the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The state's own time.
    pub clocks: Clocks,
}

/// Why a file is no state.
#[derive(Debug)]
pub enum FileError {
    /// The system's error.
    Io(io::Error),
    /// It is something else.
    NoState,
    /// Its checksum is wrong, or it is cut off.
    Damaged,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(error) => write!(f, "the state cannot be read: {error}"),
            FileError::NoState => f.write_str("this is no state file"),
            FileError::Damaged => f.write_str("the state file is damaged: its checksum is wrong"),
        }
    }
}

impl std::error::Error for FileError {}

/// A state file in memory, whose checksum is right.
#[derive(Debug)]
pub struct State {
    /// Its header.
    pub header: Header,
    bytes: Vec<u8>,
    begin: usize,
}

impl State {
    /// Parses a file.
    ///
    /// # Errors
    /// [`FileError`] if it is none, or damaged.
    pub fn parse(bytes: Vec<u8>) -> Result<State, FileError> {
        let (magic, rest) = bytes.split_at_checked(MAGIC.len()).ok_or(FileError::NoState)?;
        if magic != MAGIC {
            return Err(FileError::NoState);
        }
        let (body, sum) = bytes.split_last_chunk::<SUM>().ok_or(FileError::Damaged)?;
        let length = rest.first_chunk().map_or(usize::MAX, |length| u32::from_be_bytes(*length) as usize);
        if length > MOST_HEADER || crc32c::crc32c(body) != u32::from_be_bytes(*sum) {
            return Err(FileError::Damaged);
        }
        let begin = MAGIC.len() + 4 + length;
        let header = body.get(MAGIC.len() + 4..begin).ok_or(FileError::Damaged)?;
        let header = serde_json::from_slice(header).map_err(|_| FileError::Damaged)?;
        Ok(State { header, bytes, begin })
    }

    /// Returns the records.
    pub fn records(&self) -> &[u8] {
        &self.bytes[self.begin..self.bytes.len() - SUM]
    }
}

/// Reads a file; none if there is none.
///
/// # Errors
/// [`FileError`] if it cannot be read, is no state, or is damaged.
pub fn read(path: &Path) -> Result<Option<State>, FileError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(FileError::Io)?,
    };
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(FileError::Io)?;
    State::parse(bytes).map(Some)
}

/// A file that is being written; it replaces the one of its name only once it is whole and on the disk.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    file: File,
    sum: u32,
    written: u64,
}

/// Returns the directory of a file.
pub fn directory(path: &Path) -> &Path {
    // A bare file name has the parent "".
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the name under which a file is written.
fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

impl Draft {
    /// Begins a file beside `path`, which only its owner may read: it tells who talks to whom.
    ///
    /// # Errors
    /// That of the system.
    pub fn create(path: &Path, header: &Header) -> io::Result<Draft> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft_of(path))?;
        let header = serde_json::to_vec(header)?;
        let mut draft = Draft { path: path.into(), file, sum: 0, written: 0 };
        draft.write(&[MAGIC, &(header.len() as u32).to_be_bytes()[..], &header].concat())?;
        Ok(draft)
    }

    /// Appends records.
    ///
    /// # Errors
    /// That of the system.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Puts the file in its place once it is on the disk; returns its length.
    ///
    /// # Errors
    /// That of the system; the file before it is still there then.
    pub fn finish(mut self) -> io::Result<u64> {
        self.write(&self.sum.to_be_bytes())?;
        self.file.sync_all()?;
        fs::rename(draft_of(&self.path), &self.path)?;
        // The name is on the disk only with its directory.
        File::open(directory(&self.path))?.sync_all()?;
        Ok(self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(boot: &str, since_boot_ns: u64, wall_ns: u64) -> Clocks {
        Clocks { boot: boot.into(), since_boot_ns, wall_ns }
    }

    fn write(path: &Path, records: &[&[u8]]) -> u64 {
        let mut draft = Draft::create(path, &Header { clocks: clocks("x", 1, 2) }).unwrap();
        records.iter().for_each(|bytes| draft.write(bytes).unwrap());
        draft.finish().unwrap()
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(read(&path).unwrap().is_none());
        for records in [&[b"one".as_slice(), b"", b"two"][..], &[], &[&[7; 100_000]]] {
            let len = write(&path, records);
            let state = read(&path).unwrap().unwrap();
            assert_eq!((state.records(), state.header.clocks.wall_ns), (&records.concat()[..], 2));
            assert_eq!((fs::metadata(&path).unwrap().len(), fs::read_dir(dir.path()).unwrap().count()), (len, 1));
        }
        // One that is never finished changes nothing.
        let mut draft = Draft::create(&path, &Header { clocks: clocks("x", 1, 2) }).unwrap();
        draft.write(b"half").unwrap();
        drop(draft);
        assert_eq!(read(&path).unwrap().unwrap().records().len(), 100_000);
        write(&path, &[b"again"]);
        assert_eq!(
            (read(&path).unwrap().unwrap().records(), fs::read_dir(dir.path()).unwrap().count()),
            (&b"again"[..], 1)
        );
    }

    #[test]
    fn any_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write(&path, &[b"some records"]);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in [1, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                assert!(State::parse(bytes).is_err(), "byte {at}");
            }
            assert!(State::parse(whole[..at].to_vec()).is_err(), "{at} bytes");
        }
        assert!(matches!(State::parse(b"something else".to_vec()), Err(FileError::NoState)));
        assert!(State::parse([&whole[..], b"x"].concat()).is_err());
    }

    #[test]
    fn ages_are_by_the_boot_and_by_the_wall_clock_after_another() {
        let s = |seconds: u64| seconds * 1_000_000_000;
        let then = clocks("a", s(100), s(1000));
        for (now, want) in [
            (clocks("a", s(130), s(5000)), (30, false)),
            (clocks("b", s(5), s(1060)), (60, true)),
            (clocks("", s(130), s(1060)), (60, true)),
            // A clock that was put back.
            (clocks("b", s(5), s(900)), (0, true)),
            (clocks("a", s(90), s(1060)), (60, true)),
        ] {
            assert_eq!(then.age(&now), (Duration::from_secs(want.0), want.1), "{now:?}");
        }
        let now = Clocks::read();
        assert!(!now.boot.is_empty() && now.age(&Clocks::read()).0 < Duration::from_secs(5));
    }
}
