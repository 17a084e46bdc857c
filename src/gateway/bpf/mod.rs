//! BPF programs: loading them, and why they cannot be loaded.
//!
//! The programs are C (`*.bpf.c`); the objects beside them are what `tools/build-bpf` made of them. A gateway works without
//! any of them, with what [`BpfError`] says.

pub mod steering;

use aya::{Ebpf, EbpfError, EbpfLoader};
use std::error::Error;
use std::fmt;
use std::io;

/// Creates the maps of an object, with room for as many entries as given by name, and returns its programs, which are
/// not loaded yet.
fn open(object: &[u8], entries: &[(&'static str, u32)]) -> Result<Ebpf, BpfError> {
    let mut loader = EbpfLoader::new();
    for (map, most) in entries {
        loader.map_max_entries(map, *most);
    }
    Ok(loader.load(object)?)
}

/// Why a BPF program cannot be used, and what mends it.
#[derive(Debug)]
pub struct BpfError {
    what: String,
    errno: Option<i32>,
}

impl BpfError {
    fn new(error: &(dyn Error + 'static)) -> BpfError {
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
