//! Huge pages for the flow table: packets touch its memory at random, and one entry of the processor's address cache
//! then covers 2 MiB instead of 4 KiB.

use log::debug;
use rustix::mm::{Advice, madvise};

/// The size of a huge page of x86-64 and of most ARM systems.
const HUGE: usize = 2 << 20;

/// Asks the system for huge pages in parts of this process's memory, given as start and length in bytes, as far as they
/// hold whole ones; returns for how many bytes it granted them. Where the system refuses, nothing changes but the speed.
pub fn advise(parts: impl IntoIterator<Item = (usize, usize)>) -> usize {
    let mut granted = 0;
    for (start, len) in parts {
        let first = start.next_multiple_of(HUGE);
        let len = (start + len).saturating_sub(first) / HUGE * HUGE;
        if len == 0 {
            continue;
        }
        // SAFETY: the advice changes neither the contents of memory nor what may be done with it, whatever lies there;
        // the range ends inside the part, which exists.
        #[expect(unsafe_code, reason = "a system call on an address range")]
        match unsafe { madvise(first as *mut _, len, Advice::LinuxHugepage) } {
            Ok(()) => granted += len,
            Err(error) => debug!("no huge pages for the flow table: {error}"),
        }
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_huge_pages_inside_a_part_are_asked_for() {
        let memory: Vec<u8> = Vec::with_capacity(3 * HUGE);
        let start = memory.as_ptr() as usize;
        let granted = advise([(start, memory.capacity()), (start, HUGE - 1)]);
        // None where the system has no huge pages at all.
        assert!([0, 2 * HUGE, 3 * HUGE].contains(&granted), "{granted}");
    }
}
