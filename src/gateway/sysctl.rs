//! Kernel parameters under /proc/sys, as seen in the calling thread's network namespace.

use std::io;
use std::path::{Path, PathBuf};

/// Reads a parameter, given by its path below /proc/sys (`net/ipv4/ip_forward`), without the trailing newline.
pub fn get(name: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(path(name))?.trim_end().to_owned())
}

/// Writes a parameter unless it already has the value, so that a read-only /proc/sys with the right values is good
/// enough.
///
/// The error names the parameter and the value.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    let explain = |e: io::Error| {
        let hint = match e.raw_os_error() {
            Some(libc::EROFS) => {
                "; /proc/sys is read-only, as in most containers: make it writable (docker run --security-opt systempaths=unconfined), or set it from outside"
            }
            _ => "",
        };
        io::Error::new(e.kind(), format!("setting {} to {value}: {e}{hint}", path(name).display()))
    };
    if get(name).map_err(explain)? == value {
        return Ok(());
    }
    std::fs::write(path(name), value).map_err(explain)
}

/// Returns whether the parameter exists.
pub fn exists(name: &str) -> bool {
    path(name).exists()
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}
