//! IPv6 addresses of flows, which do not fit into a record, in a slab of their own.

use super::super::key::Key;
use super::entry::{Packed, ports};
use super::reserved;
use crate::packet::{Addresses, Protocol};
use std::collections::TryReserveError;

/// The slab: source and destination of one side of a flow per place.
#[derive(Debug)]
pub(super) struct Wide {
    places: Vec<[u128; 2]>,
    free: Vec<u32>,
}

impl Wide {
    /// Creates a slab for at most `most` keys; fails if the system refuses the memory.
    pub(super) fn new(most: usize) -> Result<Self, TryReserveError> {
        Ok(Wide { places: reserved(most)?, free: reserved(most)? })
    }

    /// Packs a key; an IPv6 key takes a place until [`Wide::free`].
    pub(super) fn pack(&mut self, key: &Key) -> Packed {
        let addresses = match key.addresses {
            Addresses::V4 { src, dst } => [src, dst],
            Addresses::V6 { src, dst } => {
                let place = self.free.pop().unwrap_or(self.places.len() as u32);
                match self.places.get_mut(place as usize) {
                    Some(slot) => *slot = [src, dst],
                    None => self.places.push([src, dst]),
                }
                [0, place]
            }
        };
        Packed { addresses, ports: ports(key) }
    }

    /// Releases the place of a packed IPv6 key.
    pub(super) fn free(&mut self, packed: &Packed) {
        self.free.push(packed.addresses[1]);
    }

    /// Returns whether a packed key has these addresses.
    #[inline]
    pub(super) fn is(&self, packed: &Packed, wide: bool, addresses: &Addresses) -> bool {
        match (addresses, wide) {
            (Addresses::V4 { src, dst }, false) => packed.addresses[0] == *src && packed.addresses[1] == *dst,
            (Addresses::V6 { src, dst }, true) => {
                let place = &self.places[packed.addresses[1] as usize];
                place[0] == *src && place[1] == *dst
            }
            _ => false,
        }
    }

    /// Returns the addresses of a packed key.
    #[inline]
    pub(super) fn addresses(&self, packed: &Packed, wide: bool) -> Addresses {
        if wide {
            let [src, dst] = self.places[packed.addresses[1] as usize];
            Addresses::V6 { src, dst }
        } else {
            Addresses::V4 { src: packed.addresses[0], dst: packed.addresses[1] }
        }
    }

    /// Returns a packed key.
    #[inline]
    pub(super) fn key(&self, packed: &Packed, wide: bool, protocol: Protocol) -> Key {
        let addresses = self.addresses(packed, wide);
        Key { addresses, src_port: (packed.ports >> 16) as u16, dst_port: packed.ports as u16, protocol }
    }

    /// Reads a place ahead of its use, so that its cache line is on its way; returns something of it.
    #[inline]
    pub(super) fn warm(&self, packed: &Packed) -> u64 {
        self.places.get(packed.addresses[1] as usize).map_or(0, |place| place[0] as u64)
    }

    /// Returns its memory: start and length in bytes.
    pub(super) fn memory(&self) -> (usize, usize) {
        (self.places.as_ptr() as usize, self.places.capacity() * size_of::<[u128; 2]>())
    }
}
