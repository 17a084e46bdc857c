//! What a gateway leaves to a service manager when it stops, for the one that is started after it: descriptors, and a file
//! that reads like the gateway that hands over (`FDSTORE=1`, sd_notify(3); `LISTEN_FDS`, sd_listen_fds(3)).
//!
//! ```text
//!   SIGTERM --> copy of the state to a file in memory --> manager keeps it, with device and BPF links --> next start
//! ```
//!
//! Between the two processes packets wait in the queues of the device. If there is no next start, the manager closes all of
//! it: the device goes, and its routes with it.

#![allow(unsafe_code, reason = "descriptors that are known by their number only")]

use super::super::netlink::Netlink;
use super::super::notify::Notifier;
use super::frames::{self, Kind, PORTION};
use super::{Changes, Hello, Offer, OfferOf, nanos_since_boot};
use crate::config::GatewaySettings;
use crate::control::Ledger;
use crate::engine::Engine;
use crate::time::Instant;
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// The names under which a manager keeps descriptors.
pub(in crate::gateway) mod name {
    pub(in crate::gateway) const STATE: &str = "equipoise-state";
    pub(in crate::gateway) const QUEUE: &str = "equipoise-queue";
    pub(in crate::gateway) const LINK: &str = "equipoise-link";
    pub(in crate::gateway) const KEYS: &str = "equipoise-keys";

    pub(in crate::gateway) const ALL: [&str; 4] = [STATE, QUEUE, LINK, KEYS];
}

/// The first descriptor that a manager passes on (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// How long a start waits for a device that somebody still has open.
const RELEASE: std::time::Duration = std::time::Duration::from_secs(2);
/// Pause between two looks at it.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// Has the manager close what it has kept, and waits until it has and nobody has the device open any more.
pub fn forget(manager: &Notifier, device: &str) {
    name::ALL.iter().for_each(|name| manager.forget(name));
    manager.barrier();
    // A manager that starts another service just then has copies of all its descriptors in the child, until that executes its
    // program.
    let Ok(mut netlink) = Netlink::open() else { return };
    let begun = std::time::Instant::now();
    let mut is_open =
        || netlink.link(device).is_ok_and(|link| link.is_some_and(|link| link.kind == "tun" && link.carrier));
    while is_open() && begun.elapsed() < RELEASE {
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Descriptors that a manager has kept, by name.
#[derive(Debug, Default)]
pub struct Kept(BTreeMap<String, Vec<OwnedFd>>);

impl Kept {
    /// Takes those that the environment names, once.
    pub fn from_environment() -> Kept {
        let var = |name: &str| std::env::var(name).ok();
        let is_ours = var("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
        let count: RawFd = var("LISTEN_FDS").filter(|_| is_ours).and_then(|count| count.parse().ok()).unwrap_or(0);
        let names = var("LISTEN_FDNAMES").unwrap_or_default();
        let mut kept = Kept::default();
        for (number, name) in (FIRST..FIRST.saturating_add(count.clamp(0, 4096))).zip(names.split(':')) {
            if name::ALL.contains(&name) {
                // SAFETY: the manager has opened it for this process, which has not touched it before; this is called once.
                let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                // Programs that this process starts do not get it.
                let _ = rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC);
                kept.0.entry(name.into()).or_default().push(descriptor);
            }
        }
        kept
    }

    /// Returns whether there are any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes those of a name.
    pub(super) fn take(&mut self, name: &str) -> Vec<OwnedFd> {
        self.0.remove(name).unwrap_or_default()
    }
}

/// A gateway that has ended, as its file tells it: what is said to it goes nowhere.
#[derive(Debug)]
pub(super) struct Recorded(File);

impl Recorded {
    pub(super) fn open(state: OwnedFd) -> io::Result<Recorded> {
        let mut file = File::from(state);
        file.seek(SeekFrom::Start(0))?;
        Ok(Recorded(file))
    }
}

impl Read for Recorded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the file for the last state; before the process is confined.
pub(in crate::gateway) fn file() -> io::Result<File> {
    Ok(File::from(memfd_create(name::STATE, MemfdFlags::CLOEXEC)?))
}

/// Writes what a gateway that hands over would say, after the last packet.
pub(in crate::gateway) fn record(
    file: &mut File,
    settings: &GatewaySettings,
    (engine, ledger): (&mut Engine, &Ledger),
    offer: OfferOf,
    now: Instant,
) -> io::Result<u64> {
    let offer = Offer::new(offer, (false, false), Hello::new(settings));
    frames::write(file, Kind::Offer, &serde_json::to_vec(&offer)?)?;
    frames::write(file, Kind::Begin, &nanos_since_boot().to_be_bytes())?;
    let mut copy = engine.begin_copy(now).map_err(|error| io::Error::new(ErrorKind::OutOfMemory, error))?;
    let mut written = Ok(());
    let mut bytes = Vec::new();
    while written.is_ok() && engine.write_copy(&mut copy, now, 1 << 16, &mut bytes).is_none() {
        written = bytes.chunks(PORTION).try_for_each(|portion| frames::write(file, Kind::State, portion));
        bytes.clear();
    }
    engine.finish_copy(&mut copy, now, &mut bytes);
    engine.end_copy();
    written?;
    bytes.chunks(PORTION).try_for_each(|portion| frames::write(file, Kind::State, portion))?;
    frames::write(file, Kind::Pass, b"")?;
    frames::write(file, Kind::Last, &serde_json::to_vec(&Changes::of(ledger, now))?)?;
    frames::write(file, Kind::Yours, b"")?;
    file.stream_position()
}

/// Returns the links of BPF programs that this process has: as long as somebody has them open, the programs stay attached.
pub(in crate::gateway) fn links() -> Vec<OwnedFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| {
        let is_link = fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:bpf_link");
        let number: RawFd = entry.file_name().to_str().filter(|_| is_link)?.parse().ok()?;
        // SAFETY: it is only duplicated, and open as long as this function runs: no other thread closes links.
        let own = unsafe { OwnedFd::from_raw_fd(number) };
        let copy = own.try_clone();
        let _ = own.into_raw_fd();
        copy.ok()
    };
    entries.filter_map(link).collect()
}
