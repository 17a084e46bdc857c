//! What the system knows about the process: files of /proc that stay open, as others cannot be opened later.

use crate::web::metrics::Process;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ticks per second in /proc/PID/stat (proc_pid_stat(5)): part of the kernel's interface on all architectures that this
/// runs on.
const TICKS: f64 = 100.0;

/// The files.
#[derive(Debug)]
pub(super) struct Facts {
    stat: Option<File>,
    status: Option<File>,
}

impl Facts {
    pub(super) fn open() -> Facts {
        let open = |name| File::open(name).ok();
        Facts { stat: open("/proc/self/stat"), status: open("/proc/self/status") }
    }

    /// Reads them; `uptime` is that of the gateway.
    pub(super) fn read(&self, uptime: Duration) -> Option<Process> {
        let (stat, status) = (text(self.stat.as_ref()?)?, text(self.status.as_ref()?)?);
        // The second field is a name in parentheses, which may contain anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11).map(str::parse::<f64>);
        let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().trim_end_matches("kB").trim().parse().ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let started = now.saturating_sub(uptime).as_secs_f64();
        Some(Process { started, cpu: (user + system) / TICKS, resident: kib * 1024 })
    }
}

fn text(file: &File) -> Option<String> {
    let mut bytes = [0; 4096];
    let len = file.read_at(&mut bytes, 0).ok()?;
    Some(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_known_again_and_again() {
        let facts = Facts::open();
        let first = facts.read(Duration::ZERO).expect("facts");
        assert!(first.resident > 1 << 20 && first.started > 1.7e9, "{first:?}");
        let begun = std::time::Instant::now();
        while facts.read(Duration::ZERO).expect("facts").cpu <= first.cpu {
            assert!(begun.elapsed() < Duration::from_secs(20), "processor time stands still");
        }
    }
}
