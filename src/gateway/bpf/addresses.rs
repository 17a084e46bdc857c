//! Sets of addresses in maps of the programs.

use super::BpfError;
use crate::config::Settings;
use aya::maps::{HashMap, Map, MapError};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A program's word for an address: IPv4 is mapped into ::ffff:0:0/96.
pub(super) type Address = [u8; 16];
/// AddressSet as a program's map has them.
pub type AddressSet = BTreeSet<Address>;

/// Room for addresses that a reload adds: the kernel fixes the size of a map when it is made.
const LEAST_ROOM: usize = 16_384;

/// Returns the room of a map that has so many addresses at the start.
pub(super) fn room(addresses: usize) -> u32 {
    u32::try_from(addresses.saturating_mul(2).max(LEAST_ROOM)).unwrap_or(u32::MAX)
}

pub(super) fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Returns the addresses of all servers.
pub fn addresses_of(settings: &Settings) -> AddressSet {
    let servers = settings.servers.iter().flat_map(|s| [s.v4.map(IpAddr::V4), s.v6.map(IpAddr::V6)]);
    servers.flatten().map(address).collect()
}

/// What a map of addresses holds. Only this process writes it, so it need not be read, which takes a system call per address
/// while packets wait.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeSet<Address>);

impl Known {
    /// Adds addresses to the map; those for which there is no room are missing in it.
    pub(super) fn extend(&mut self, map: &mut Map, addresses: &BTreeSet<Address>) -> Result<(), BpfError> {
        let mut map: HashMap<_, Address, u8> = HashMap::try_from(map)?;
        let new: Vec<Address> = addresses.difference(&self.0).copied().collect();
        for address in new {
            match map.insert(address, 1, 0) {
                Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::E2BIG) => {
                    return Err(BpfError::of("their maps are full".into()));
                }
                other => other?,
            }
            self.0.insert(address);
        }
        Ok(())
    }

    /// Removes other addresses than these from the map.
    pub(super) fn restrict(&mut self, map: &mut Map, addresses: &BTreeSet<Address>) {
        let Ok(mut map) = HashMap::<_, Address, u8>::try_from(map) else { return };
        let others: Vec<Address> = self.0.difference(addresses).copied().collect();
        for other in others {
            // One that is left over only costs its packets the way through the device.
            let _ = map.remove(&other);
            self.0.remove(&other);
        }
    }
}
