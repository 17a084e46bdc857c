//! The program that carries established TCP flows past the gateway's device (`shortcut.bpf.c`), and its maps.

mod cell;
#[cfg(test)]
mod tests;

use super::{BpfError, load, open};
use crate::engine::Path;
use crate::flow::{Carried, Sequence};
use crate::time::Instant;
use aya::maps::{Array, Map, MapError};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, SchedClassifier};
use aya::{Ebpf, include_bytes_aligned};
use cell::{Cell, Ends, ends};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::time::ClockId;
use std::os::fd::AsFd;
use std::ptr::NonNull;

/// Flows that the program has room for. They take 7 MiB of the kernel's memory.
pub const MOST_FLOWS: u32 = 16_384;

/// The program, loaded, and its maps.
#[derive(Debug)]
pub struct Shortcut {
    ebpf: Ebpf,
    paths: Map,
    cells: Cells,
}

/// The program on a device: it ends when this is dropped, or with the device.
#[derive(Debug)]
pub struct Attached(#[allow(dead_code, reason = "held, not read")] SchedClassifierLink);

const PROGRAM: &str = "shortcut";

impl Shortcut {
    /// Loads the program, with room for so many flows.
    pub fn load(flows: u32) -> Result<Shortcut, BpfError> {
        let object = include_bytes_aligned!("../shortcut.bpf.o");
        let mut ebpf = open(object, &[("flows", flows), ("paths", flows.saturating_mul(2))])?;
        let paths = ebpf.take_map("paths").expect("a map of the program");
        let cells = Cells::of(ebpf.take_map("flows").expect("a map of the program"), flows)?;
        let mut shortcut = Shortcut { ebpf, paths, cells };
        let program = shortcut.program()?;
        load(|| program.load())?;
        Ok(shortcut)
    }

    fn program(&mut self) -> Result<&mut SchedClassifier, BpfError> {
        Ok(self.ebpf.program_mut(PROGRAM).expect("a program of the object").try_into()?)
    }

    /// Says which device the gateway has: packets go on as those do that leave it.
    pub fn set_own(&mut self, index: u32) -> Result<(), BpfError> {
        let map = self.ebpf.map_mut("device").expect("a map of the program");
        Ok(Array::try_from(map)?.set(0, index, 0)?)
    }

    /// Attaches the program to another device, which must have an Ethernet header, before others.
    pub fn attach(&mut self, device: &str) -> Result<Attached, BpfError> {
        let program = self.program()?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = program.attach_with_options(device, TcAttachType::Ingress, order)?;
        Ok(Attached(program.take_link(link)?))
    }

    /// Has a flow carried.
    pub fn put(&mut self, path: &Path) -> Result<(), BpfError> {
        self.cells.get(path.place).begin(path);
        let mut map: aya::maps::HashMap<_, Ends, u32> = aya::maps::HashMap::try_from(&mut self.paths)?;
        for (side, key) in (0..).zip(&path.ends) {
            map.insert(ends(key), path.place << 1 | side, 0)?;
        }
        Ok(())
    }

    /// Has the flow at a place carried no longer.
    pub fn remove(&mut self, place: u32) -> Result<(), BpfError> {
        let mut map: aya::maps::HashMap<_, Ends, u32> = aya::maps::HashMap::try_from(&mut self.paths)?;
        for ends in self.cells.get(place).ends() {
            match map.remove(&ends) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Returns a number that changes with each packet of the flow at a place.
    pub fn packets(&self, place: u32) -> u64 {
        self.cells.get(place).packets()
    }

    /// Returns when the last packet of the flow at a place was carried, and all that was carried of it.
    pub fn report(&self, now: Instant, place: u32) -> (Option<Instant>, Carried) {
        let cell = self.cells.get(place);
        let clock = rustix::time::clock_gettime(ClockId::Monotonic);
        let clock = clock.tv_sec.cast_unsigned() * 1_000_000_000 + clock.tv_nsec.cast_unsigned();
        (cell.seen(now, clock), cell.report())
    }

    /// Sets the sequence numbers of the flow at a place, which have gone on without the program.
    pub fn set_sequence(&self, place: u32, sequence: &Sequence) {
        self.cells.get(place).set_sequence(sequence);
    }
}

/// The records of all places, mapped.
#[derive(Debug)]
struct Cells {
    first: NonNull<Cell>,
    count: u32,
    /// Keeps the memory.
    #[allow(dead_code, reason = "held, not read")]
    map: Map,
}

// SAFETY: a record is only accessed as atomic numbers, and the memory stays where it is.
#[allow(unsafe_code)]
unsafe impl Send for Cells {}

impl Cells {
    #[allow(unsafe_code)]
    fn of(map: Map, count: u32) -> Result<Cells, BpfError> {
        let Map::Array(data) = &map else { return Err(BpfError::of("the records are in no array".into())) };
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the system chooses touches nothing that is in use.
        let mapped = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), Cells::len(count), flags, MapFlags::SHARED, data.fd().as_fd(), 0)
        };
        let mapped = mapped.map_err(|e| BpfError::new(&std::io::Error::from(e)))?;
        let first = NonNull::new(mapped.cast()).ok_or_else(|| BpfError::of("mapped to nowhere".into()))?;
        Ok(Cells { first, count, map })
    }

    fn len(count: u32) -> usize {
        count as usize * size_of::<Cell>()
    }

    /// Returns the record of a place.
    ///
    /// # Panics
    /// If there is no such place.
    #[allow(unsafe_code)]
    fn get(&self, place: u32) -> &Cell {
        assert!(place < self.count, "place {place} of {}", self.count);
        // SAFETY: the mapping has `count` records of this layout, aligned to a page, and lives as long as this does. All that
        // others write at the same time is atomic numbers.
        unsafe { self.first.add(place as usize).as_ref() }
    }
}

impl Drop for Cells {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it is the mapping made by `of`, to which no reference outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.first.as_ptr().cast(), Cells::len(self.count)) };
    }
}
