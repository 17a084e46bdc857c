//! What the demo could leave behind, and whether it did.

use super::options::DemoError;
use crate::gateway::netlink::Netlink;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prefix of the demo's directories; the process ID follows.
const PREFIX: &str = "equipoise-demo-";
/// The longest directory path with which a Unix socket's path still fits.
const LONGEST: usize = 80;

/// A directory of the demo, for configuration and control socket; removed on drop.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Creates it, and removes those that killed demos of this user left behind.
    pub(super) fn new() -> Result<Scratch, DemoError> {
        let base = std::env::temp_dir();
        let base = if base.as_os_str().len() > LONGEST { PathBuf::from("/tmp") } else { base };
        remove_stale(&base);
        let path = base.join(format!("{PREFIX}{}", std::process::id()));
        // Left by an earlier process with this ID, and owned by another user: not ours to remove.
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| {
            DemoError::new(format!("making the directory {} (TMPDIR names another place)", path.display()), e)
        })?;
        Ok(Scratch(path))
    }

    /// Returns its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories of demos whose process is gone; those of other users cannot be removed and stay.
fn remove_stale(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.parse::<u32>().ok());
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory
            && pid.is_some_and(|pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The state before the demo.
pub(super) struct Before {
    threads: usize,
    namespaces: usize,
    devices: Vec<String>,
}

impl Before {
    /// Records threads, namespaces held open, and the devices of the initial namespace.
    pub(super) fn look() -> Before {
        Before { threads: threads(), namespaces: namespaces(), devices: devices() }
    }

    /// Returns what has been added since and is still there; empty if nothing is.
    pub(super) fn left(&self, directory: &Path) -> Vec<String> {
        let mut left = Vec::new();
        // A joined thread can remain in the kernel's list for a moment.
        for _ in 0..100 {
            left = self.differences(directory);
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        left
    }

    fn differences(&self, directory: &Path) -> Vec<String> {
        let mut left = Vec::new();
        for (now, before, what) in
            [(threads(), self.threads, "threads"), (namespaces(), self.namespaces, "open namespaces")]
        {
            if now > before {
                left.push(format!("{} {what}", now - before));
            }
        }
        left.extend(devices().into_iter().filter(|d| !self.devices.contains(d)).map(|d| format!("device {d}")));
        if directory.exists() {
            left.push(format!("directory {}", directory.display()));
        }
        left
    }
}

fn threads() -> usize {
    entries("/proc/self/task").map(Iterator::count).unwrap_or(0)
}

/// Returns the file descriptors that hold a network namespace.
fn namespaces() -> usize {
    let links = entries("/proc/self/fd").into_iter().flatten().filter_map(|path| fs::read_link(path).ok());
    links.filter(|to| to.to_string_lossy().starts_with("net:[")).count()
}

fn entries(directory: &str) -> io::Result<impl Iterator<Item = PathBuf>> {
    Ok(fs::read_dir(directory)?.flatten().map(|entry| entry.path()))
}

fn devices() -> Vec<String> {
    let links = Netlink::open().ok().and_then(|mut netlink| netlink.links().ok());
    links.unwrap_or_default().into_iter().map(|(_, name)| name).collect()
}
