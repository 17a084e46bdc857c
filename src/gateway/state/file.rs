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
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"EQPSTATE";
/// Bytes of the checksum.
const SUM: usize = 4;
/// Most bytes of a header.
const MOST_HEADER: usize = 4096;
/// Most bytes of a file: 100 million flows have 10 GB.
const MOST: u64 = 16 << 30;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 18;

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
    /// It is no regular file.
    NoFile,
    /// Somebody else may have written it; in words.
    NotOwn(String),
}

impl FileError {
    /// Returns whether it is better not to put a state in the place of this file.
    pub fn is_anothers(&self) -> bool {
        match self {
            FileError::Io(_) | FileError::Damaged => false,
            FileError::NoState | FileError::NoFile | FileError::NotOwn(_) => true,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(error) => write!(f, "the state cannot be read: {error}"),
            FileError::NoState => f.write_str("this is not a state file"),
            FileError::Damaged => f.write_str("the state file is damaged: its checksum is wrong"),
            FileError::NoFile => f.write_str("this is not a regular file"),
            FileError::NotOwn(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for FileError {}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        FileError::Io(error)
    }
}

/// Tells one state from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print {
    /// Its checksum.
    pub sum: u32,
    /// Its length in bytes.
    pub bytes: u64,
}

impl fmt::Display for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.sum, self.bytes)
    }
}

/// An open state file whose checksum is right. Its records are read a piece at a time: a file may be larger than the memory.
#[derive(Debug)]
pub struct State {
    /// Its header.
    pub header: Header,
    print: Print,
    file: File,
    /// Where the first record begins.
    begin: u64,
    /// Bytes of records that have not been read.
    left: u64,
}

impl State {
    /// Opens a file; none if there is none, or an empty one.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be read, is no state, is damaged, or may be written by others.
    pub fn open(path: &Path) -> Result<Option<State>, FileError> {
        let Some((mut file, length)) = open_own(path)? else { return Ok(None) };
        let (header, begin, sum) = State::check(&mut file, length)?;
        let print = Print { sum, bytes: length };
        Ok(Some(State { header, print, file, begin, left: length - begin - SUM as u64 }))
    }

    /// Returns why no state should be put in the place of a file, if so: it is something else, or somebody else's.
    pub fn keeps_out(path: &Path) -> Option<FileError> {
        let look = || {
            let Some((mut file, length)) = open_own(path)? else { return Ok(()) };
            let mut magic = vec![0; length.min(MAGIC.len() as u64) as usize];
            file.read_exact(&mut magic)?;
            if MAGIC.starts_with(&magic) { Ok(()) } else { Err(FileError::NoState) }
        };
        look().err().filter(FileError::is_anothers)
    }

    /// Reads the whole file; returns its header, where its records begin, which it is positioned at then, and its checksum.
    fn check(file: &mut File, length: u64) -> Result<(Header, u64, u32), FileError> {
        let mut buffer = vec![0; PIECE];
        let head = length.min((MAGIC.len() + 4 + MOST_HEADER + SUM) as u64) as usize;
        file.read_exact(&mut buffer[..head])?;
        if buffer[..head.min(MAGIC.len())] != MAGIC[..head.min(MAGIC.len())] {
            return Err(FileError::NoState);
        }
        let sized = buffer[..head].get(MAGIC.len()..).and_then(<[u8]>::first_chunk);
        let sized = sized.map_or(usize::MAX, |length| u32::from_be_bytes(*length) as usize);
        let begin = MAGIC.len() + 4 + sized.min(MOST_HEADER);
        if sized > MOST_HEADER || begin + SUM > head || length > MOST {
            return Err(FileError::Damaged);
        }
        let header = buffer[MAGIC.len() + 4..begin].to_vec();
        file.rewind()?;
        let (mut sum, mut left) = (0, length - SUM as u64);
        while left > 0 {
            let piece = &mut buffer[..left.min(PIECE as u64) as usize];
            file.read_exact(piece)?;
            sum = crc32c::crc32c_append(sum, piece);
            left -= piece.len() as u64;
        }
        let mut own = [0; SUM];
        file.read_exact(&mut own)?;
        if sum != u32::from_be_bytes(own) {
            return Err(FileError::Damaged);
        }
        file.seek(SeekFrom::Start(begin as u64))?;
        let header = serde_json::from_slice(&header).map_err(|_| FileError::Damaged)?;
        Ok((header, begin as u64, sum))
    }

    /// Returns what tells it from other states.
    pub fn print(&self) -> Print {
        self.print
    }

    /// Appends the next piece of its records; returns whether there was one.
    ///
    /// # Errors
    /// That of the system.
    pub fn read_piece(&mut self, to: &mut Vec<u8>) -> io::Result<bool> {
        let len = self.left.min(PIECE as u64);
        let at = to.len();
        to.resize(at + len as usize, 0);
        self.file.read_exact(&mut to[at..])?;
        self.left -= len;
        Ok(len > 0)
    }

    /// Goes back to the first record.
    ///
    /// # Errors
    /// That of the system.
    pub fn rewind(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.begin))?;
        self.left = self.print.bytes - self.begin - SUM as u64;
        Ok(())
    }

    /// Returns the records that have not been read.
    ///
    /// # Errors
    /// That of the system.
    pub fn records(&mut self) -> io::Result<Vec<u8>> {
        let mut records = Vec::new();
        while self.read_piece(&mut records)? {}
        Ok(records)
    }
}

/// Opens a file that only those who may have written a state can have written; none if there is none, or an empty one. Also
/// returns its length.
fn open_own(path: &Path) -> Result<Option<(File, u64)>, FileError> {
    // Opening a pipe that nobody writes to would wait for ever.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        // A socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(FileError::NoFile),
        other => other?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(FileError::NoFile);
    }
    if meta.len() == 0 {
        return Ok(None);
    }
    let (directory, own) = (fs::metadata(directory(path))?.uid(), rustix::process::geteuid().as_raw());
    match not_own((meta.uid(), meta.mode()), directory, own) {
        Some(why) => Err(FileError::NotOwn(why)),
        None => Ok(Some((file, meta.len()))),
    }
}

/// Returns why a file may hold what somebody else has written, if so: flows could be led to their servers by it. Users are
/// that of the file, that of its directory, and the gateway's.
fn not_own((user, mode): (u32, u32), directory: u32, own: u32) -> Option<String> {
    if ![0, own, directory].contains(&user) {
        return Some(format!("the state file belongs to user {user}, and the gateway's user is {own}"));
    }
    let mode = mode & 0o777;
    (mode & 0o022 != 0).then(|| format!("others may write the state file: its mode is {mode:03o} and not 600"))
}

/// A file that is being written; it replaces the one of its name only once it is whole and on the disk. Dropping it gives it
/// up.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    file: File,
    sum: u32,
    written: u64,
    is_placed: bool,
}

/// Returns the directory of a file.
pub fn directory(path: &Path) -> &Path {
    // A bare file name has the parent "".
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the name of a file that stands beside the state file.
pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

impl Draft {
    /// Begins a file beside `path`, which only its owner may read: it tells who talks to whom.
    ///
    /// # Errors
    /// That of the system.
    pub fn create(path: &Path, header: &Header) -> io::Result<Draft> {
        let own = beside(path, "new");
        // What is there was left by a gateway that was killed, or leads elsewhere.
        match fs::remove_file(&own) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(own)?;
        let header = serde_json::to_vec(header)?;
        let mut draft = Draft { path: path.into(), file, sum: 0, written: 0, is_placed: false };
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
    /// That of the system; the file before it is still there then, unless only its directory is not on the disk.
    pub fn finish(mut self) -> io::Result<u64> {
        self.write(&self.sum.to_be_bytes())?;
        self.file.sync_all()?;
        fs::rename(beside(&self.path, "new"), &self.path)?;
        self.is_placed = true;
        // The name is on the disk only with its directory.
        File::open(directory(&self.path))?.sync_all()?;
        Ok(self.written)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_placed {
            // Half a state would take the space that a whole one needs.
            let _ = fs::remove_file(beside(&self.path, "new"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

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
        assert!(State::open(&path).unwrap().is_none());
        fs::write(&path, b"").unwrap();
        assert!(State::open(&path).unwrap().is_none(), "an empty file");
        for records in [&[b"one".as_slice(), b"", b"two"][..], &[], &[&[7; 1_000_000]]] {
            let len = write(&path, records);
            let mut state = State::open(&path).unwrap().unwrap();
            assert_eq!((state.print().bytes, state.header.clocks.wall_ns), (len, 2));
            assert!(state.records().unwrap() == records.concat());
            assert_eq!((fs::metadata(&path).unwrap().len(), fs::read_dir(dir.path()).unwrap().count()), (len, 1));
        }
        // One that is never finished changes nothing.
        let mut draft = Draft::create(&path, &Header { clocks: clocks("x", 1, 2) }).unwrap();
        draft.write(b"half").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        drop(draft);
        assert_eq!(records(&path).len(), 1_000_000);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "what is given up takes no space");
        write(&path, &[b"again"]);
        assert_eq!((records(&path), fs::read_dir(dir.path()).unwrap().count()), (b"again".to_vec(), 1));
    }

    fn records(path: &Path) -> Vec<u8> {
        State::open(path).unwrap().unwrap().records().unwrap()
    }

    #[test]
    fn what_stands_in_the_place_of_a_draft_is_replaced_and_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("state"), dir.path().join("other"));
        fs::write(&other, "precious").unwrap();
        fs::hard_link(&other, dir.path().join("state.new")).unwrap();
        write(&path, &[b"one"]);
        std::os::unix::fs::symlink(&other, dir.path().join("state.new")).unwrap();
        write(&path, &[b"two"]);
        fs::write(dir.path().join("state.new"), "left by a gateway that was killed").unwrap();
        fs::set_permissions(dir.path().join("state.new"), Permissions::from_mode(0o666)).unwrap();
        write(&path, &[b"three"]);
        assert_eq!((records(&path), fs::read_to_string(&other).unwrap()), (b"three".to_vec(), "precious".into()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::create_dir(dir.path().join("state.new")).unwrap();
        assert!(Draft::create(&path, &Header { clocks: clocks("x", 1, 2) }).is_err());
    }

    #[test]
    fn what_is_no_file_or_may_be_anothers_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let refused = |path: &Path| {
            let error = State::open(path).unwrap_err();
            assert!(error.is_anothers(), "{error}");
            assert_eq!(State::keeps_out(path).map(|why| why.to_string()), Some(error.to_string()));
            error.to_string()
        };
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(refused(&path), "this is not a regular file");
        fs::remove_file(&path).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(refused(&path), "this is not a regular file");
        drop(socket);
        fs::remove_file(&path).unwrap();
        assert_eq!(refused(dir.path()), "this is not a regular file");
        assert_eq!(refused(Path::new("/dev/zero")), "this is not a regular file");
        write(&path, &[b"one"]);
        fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
        assert_eq!(refused(&path), "others may write the state file: its mode is 620 and not 600");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(records(&path), b"one");
    }

    #[test]
    fn a_state_is_believed_if_only_those_who_may_change_it_can_have_written_it() {
        for (user, directory, own, is_own) in
            [(0, 0, 0, true), (7, 7, 7, true), (0, 7, 7, true), (7, 7, 0, true), (8, 0, 0, false), (8, 7, 7, false)]
        {
            let why = not_own((user, 0o100_600), directory, own);
            assert_eq!(why.is_none(), is_own, "{user} {directory} {own}: {why:?}");
        }
        let why = not_own((8, 0o100_600), 0, 0);
        assert_eq!(why.as_deref(), Some("the state file belongs to user 8, and the gateway's user is 0"));
        for (mode, is_own) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false), (0o666, false)] {
            assert_eq!(not_own((0, 0o100_000 | mode), 0, 0).is_none(), is_own, "{mode:o}");
        }
    }

    #[test]
    fn any_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write(&path, &[b"some records"]);
        let whole = fs::read(&path).unwrap();
        let parse = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            State::open(&path).map(|_| ())
        };
        for at in 0..whole.len() {
            for bit in [1, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                assert!(parse(&bytes).is_err(), "byte {at}");
            }
            assert!(at == 0 || parse(&whole[..at]).is_err(), "{at} bytes");
        }
        for other in [&b"s"[..], b"something else", &[0; 5000]] {
            assert!(matches!(parse(other), Err(FileError::NoState)));
            assert!(matches!(State::keeps_out(&path), Some(FileError::NoState)));
        }
        assert!(matches!(parse(&MAGIC[..3]), Err(FileError::Damaged)));
        assert!(State::keeps_out(&path).is_none(), "what is damaged is replaced");
        assert!(parse(&[&whole[..], b"x"].concat()).is_err());
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
