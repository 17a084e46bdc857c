//! Sets of addresses in maps of the programs.

use super::BpfError;
use crate::config::Settings;
use aya::maps::{HashMap, Map, MapError};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A program's word for an address: IPv4 is mapped into ::ffff:0:0/96.
pub(super) type Address = [u8; 16];

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
pub(super) fn addresses_of(settings: &Settings) -> BTreeSet<Address> {
    let servers = settings.servers.iter().flat_map(|s| [s.v4.map(IpAddr::V4), s.v6.map(IpAddr::V6)]);
    servers.flatten().map(address).collect()
}

/// Adds addresses to a map; those for which there is no room are missing in it.
pub(super) fn extend(map: &mut Map, addresses: &BTreeSet<Address>) -> Result<(), BpfError> {
    let mut map: HashMap<_, Address, u8> = HashMap::try_from(map)?;
    let mut known = BTreeSet::new();
    for key in map.keys() {
        known.insert(key?);
    }
    for address in addresses.difference(&known) {
        match map.insert(address, 1, 0) {
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::E2BIG) => {
                return Err(BpfError::of("their maps are full".into()));
            }
            other => other?,
        }
    }
    Ok(())
}

/// Removes other addresses than these from a map.
pub(super) fn restrict(map: &mut Map, addresses: &BTreeSet<Address>) {
    let Ok(mut map) = HashMap::<_, Address, u8>::try_from(map) else { return };
    let others: Vec<Address> = map.keys().flatten().filter(|key| !addresses.contains(key)).collect();
    for other in others {
        // One that is left over only costs its packets the way through the device.
        let _ = map.remove(&other);
    }
}
