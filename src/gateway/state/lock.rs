//! Whose the file is: of two gateways with one state file, each would save over the other's flows.
//!
//! A lock beside the file, which the kernel takes back when the process ends, however that happens. The lock file also notes
//! which state its holder began with: after a crash before the next state, that one is there again, and is not the last
//! word about its connections any more.

use super::file::{self, Print};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::Path;

/// Most bytes of a lock file that are read.
const MOST: u64 = 256;

/// The lock on a state file; dropping it, or the end of the process, gives it up. The file stays.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    began_with: Option<String>,
}

/// Why a state file cannot be had.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process has it; its number if it is known.
    Held(Option<u32>),
    /// The system's error.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held(Some(pid)) => write!(f, "another gateway, process {pid}, keeps its state in this file"),
            LockError::Held(None) => f.write_str("another gateway keeps its state in this file"),
            LockError::Io(error) => write!(f, "its lock file cannot be written: {error}"),
        }
    }
}

impl Lock {
    /// Takes the lock of a state file. A thread that may not read files passes `write_only`.
    pub(super) fn take(path: &Path, write_only: bool) -> Result<Lock, LockError> {
        let open = |access: OFlags| {
            let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::open(file::beside(path, "lock"), flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)
        };
        let access = if write_only { OFlags::WRONLY } else { OFlags::RDWR };
        let opened = open(access | OFlags::CREATE).or_else(|error| match error {
            // An earlier gateway with another user has left it. Whoever can read it can lock it.
            Errno::ACCESS => open(OFlags::RDONLY),
            error => Err(error),
        });
        let mut file = File::from(opened.map_err(|error| LockError::Io(error.into()))?);
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from);
        let mut text = String::new();
        if !write_only {
            let _ = Read::by_ref(&mut file).take(MOST).read_to_string(&mut text);
        }
        let value = |key: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            found.map(str::to_owned)
        };
        match locked {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(LockError::Held(value("pid").and_then(|pid| pid.parse().ok())))
            }
            Err(error) => Err(LockError::Io(error)),
            Ok(()) => Ok(Lock { file, began_with: value("began-with") }),
        }
    }

    /// Returns whether the former holder began with this state, and has not saved another one since.
    pub(super) fn is_used(&self, print: Print) -> bool {
        self.began_with.as_deref() == Some(&print.to_string())
    }

    /// Notes who holds it, and the state that it began with.
    pub(super) fn note(&mut self, print: Option<Print>) -> io::Result<()> {
        let began = print.map_or_else(String::new, |print| format!("began-with {print}\n"));
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.file.write_all(format!("pid {}\n{began}", std::process::id()).as_bytes())?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_at_a_time_has_it_and_the_next_knows_what_it_began_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let print = Print { sum: 0xdead_beef, bytes: 77 };
        let mut first = Lock::take(&path, false).unwrap();
        assert!(!first.is_used(print));
        assert!(matches!(Lock::take(&path, false), Err(LockError::Held(None))));
        first.note(Some(print)).unwrap();
        for write_only in [false, true] {
            let held = Lock::take(&path, write_only).unwrap_err();
            let who = if write_only { None } else { Some(std::process::id()) };
            assert!(matches!(&held, LockError::Held(pid) if *pid == who), "{held}");
        }
        drop(first);
        let mut second = Lock::take(&path, false).unwrap();
        assert!(second.is_used(print) && !second.is_used(Print { bytes: 78, ..print }));
        second.note(None).unwrap();
        drop(second);
        assert!(!Lock::take(&path, false).unwrap().is_used(print));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_file_that_another_user_has_left_can_be_locked() {
        use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        drop(Lock::take(&path, false).unwrap());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        fs::set_permissions(dir.path().join("state.lock"), mode).unwrap();
        // In a thread of its own: root may write it all the same.
        let body = move || {
            let all = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            let had = capabilities(None).unwrap();
            let sets = CapabilitySets { effective: had.effective - all, permitted: had.permitted - all, ..had };
            set_capabilities(None, sets).unwrap();
            let mut lock = Lock::take(&path, false).unwrap();
            assert!(lock.note(None).is_err(), "it is not ours");
            assert!(matches!(Lock::take(&path, false), Err(LockError::Held(_))));
            drop(dir);
        };
        std::thread::spawn(body).join().unwrap();
    }

    #[test]
    fn what_is_no_lock_file_is_an_error_or_overwritten_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (lock, other) = (dir.path().join("state.lock"), dir.path().join("other"));
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, &lock).unwrap();
        assert!(matches!(Lock::take(&path, false), Err(LockError::Io(_))));
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        assert!(matches!(Lock::take(&path, false), Err(LockError::Io(_))));
        fs::remove_dir(&lock).unwrap();
        fs::write(&lock, [0xff; 1000]).unwrap();
        Lock::take(&path, false).unwrap().note(None).unwrap();
        assert_eq!(fs::read_to_string(&lock).unwrap(), format!("pid {}\n", std::process::id()));
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        assert!(matches!(Lock::take(&dir.path().join("none/state"), false), Err(LockError::Io(_))));
    }
}
