//! BPF programs: loading them, and why they cannot be loaded.
//!
//! The programs are C (`*.bpf.c`); the objects beside them are what `tools/build-bpf` made of them. A gateway works without
//! any of them, with what [`BpfError`] says.

mod addresses;
pub mod marks;
pub mod shortcut;
pub mod steering;

pub use addresses::{AddressSet, addresses_of};
use aya::programs::ProgramError;
use aya::{Ebpf, EbpfError, EbpfLoader};
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Creates the maps of an object, with room for as many entries as given by name, and returns its programs, which are
/// not loaded yet.
fn open(object: &[u8], entries: &[(&'static str, u32)]) -> Result<Ebpf, BpfError> {
    let mut loader = EbpfLoader::new();
    for (map, most) in entries {
        loader.map_max_entries(map, *most);
    }
    Ok(loader.load(object)?)
}

/// Loads a program, again if a signal interrupts the kernel's verifier, which then says EAGAIN.
fn load(program: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let is_interrupted = |error: &ProgramError| matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EAGAIN));
    insist(program, is_interrupted)
}

/// Does something up to five times, as often as libbpf loads a program.
fn insist<E>(mut work: impl FnMut() -> Result<(), E>, is_passing: impl Fn(&E) -> bool) -> Result<(), E> {
    for _ in 1..5 {
        match work() {
            Err(error) if is_passing(&error) => {}
            result => return result,
        }
    }
    work()
}

/// Writes the key that follows another in a hash map to `next`, or the first one; returns false at the end. If the other
/// is no longer there, the first follows.
///
/// `after` and `next` must have the size of the map's keys.
#[allow(unsafe_code)]
fn next_key(map: BorrowedFd<'_>, after: Option<&[u8]>, next: &mut [u8]) -> bool {
    /// The part of `union bpf_attr` that BPF_MAP_GET_NEXT_KEY reads (bpf(2)).
    #[repr(C)]
    struct Attributes {
        map: u32,
        zero: u32,
        after: u64,
        next: u64,
    }
    const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
    let address = |bytes: *const u8| bytes.expose_provenance() as u64;
    let attributes = Attributes {
        map: map.as_raw_fd() as u32,
        zero: 0,
        after: after.map_or(0, |after| address(after.as_ptr())),
        next: address(next.as_mut_ptr()),
    };
    // SAFETY: the kernel reads the attributes and one key, and writes one key; all of them live through the call, and both
    // keys have the map's size.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_GET_NEXT_KEY, &raw const attributes, size_of::<Attributes>()) };
    done == 0
}

/// Why a BPF program cannot be used, and what mends it.
#[derive(Debug)]
pub struct BpfError {
    what: String,
    errno: Option<i32>,
}

impl BpfError {
    pub(super) fn new(error: &(dyn Error + 'static)) -> BpfError {
        let mut said = vec![error.to_string()];
        let mut errno = None;
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if said.last().is_some_and(|last| !last.contains(&text)) {
                said.push(text);
            }
            errno = errno.or(error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error));
            next = error.source();
        }
        // The verifier's log has lines; only the first few words help whoever reads the gateway's log.
        let what = said.join(": ").lines().next().unwrap_or_default().to_owned();
        BpfError { what, errno }
    }

    pub(super) fn of(what: String) -> BpfError {
        BpfError { what, errno: None }
    }

    /// Returns it with the device at which it happened.
    #[must_use]
    pub(super) fn at(self, device: &str) -> BpfError {
        BpfError { what: format!("device {device}: {}", self.what), ..self }
    }

    /// Returns whether a device was not there.
    pub(super) fn is_no_device(&self) -> bool {
        matches!(self.errno, Some(libc::ENODEV | libc::ENXIO))
    }

    /// Returns what mends it.
    pub fn fix(&self) -> &'static str {
        match self.errno {
            Some(libc::EPERM | libc::EACCES) => {
                "run as root of the first user namespace, or give CAP_BPF too: AmbientCapabilities=CAP_NET_ADMIN CAP_BPF \
                 (systemd), setcap cap_net_admin,cap_bpf+ep on the program, --cap-add BPF (a container, whose seccomp \
                 profile must allow bpf(2))"
            }
            Some(libc::ENOSYS) => "the kernel needs CONFIG_BPF_SYSCALL, and a seccomp profile must allow bpf(2)",
            _ => "a kernel of Linux 5.8 or later with CONFIG_BPF_SYSCALL, on a little-endian machine",
        }
    }
}

/// What failed, without what mends it.
impl fmt::Display for BpfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for BpfError {}

impl From<EbpfError> for BpfError {
    fn from(error: EbpfError) -> Self {
        BpfError::new(&error)
    }
}

impl From<aya::programs::ProgramError> for BpfError {
    fn from(error: aya::programs::ProgramError) -> Self {
        BpfError::new(&error)
    }
}

impl From<aya::maps::MapError> for BpfError {
    fn from(error: aya::maps::MapError) -> Self {
        BpfError::new(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_signal_interrupts_is_done_again_a_few_times() {
        for (fails, with, made_wanted, is_right) in [
            (0, libc::EAGAIN, 1, true),
            (4, libc::EAGAIN, 5, true),
            (9, libc::EAGAIN, 5, false),
            (1, libc::EPERM, 1, false),
        ] {
            let mut made = 0;
            let work = || {
                made += 1;
                if made > fails { Ok(()) } else { Err(with) }
            };
            let result = insist(work, |errno| *errno == libc::EAGAIN);
            assert_eq!((made, result.is_ok()), (made_wanted, is_right), "{fails} times {with}");
        }
    }
}
