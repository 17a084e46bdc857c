//! What of a packet's key is hashed, in a way that two gateways with the same seed agree on.

use super::settings::Prefixes;
use crate::flow::Key;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::IpAddr;

/// A keyed hash that is the same on every machine and in every version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hash {
    seed: u64,
}

impl Hash {
    pub(super) const fn new(seed: u64) -> Self {
        Hash { seed }
    }

    fn hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.seed, 0x6571_7569_706f_6973)
    }

    /// Hashes the client alone, as far as `prefixes` look.
    pub(super) fn client(&self, client: IpAddr, prefixes: &Prefixes) -> u64 {
        let mut hasher = self.hasher();
        write(&mut hasher, prefixes.of(client));
        hasher.finish()
    }

    /// Hashes addresses, ports and protocol.
    pub(super) fn flow(&self, key: &Key) -> u64 {
        let mut hasher = self.hasher();
        write(&mut hasher, key.addresses.src());
        write(&mut hasher, key.addresses.dst());
        // `write_u32` would hash in the machine's byte order.
        hasher.write(&key.src_port.to_be_bytes());
        hasher.write(&key.dst_port.to_be_bytes());
        match key.protocol.code().to_be_bytes() {
            [.., 0, code] => hasher.write(&[code]),
            [.., high, low] => hasher.write(&[high, low]),
        }
        hasher.finish()
    }

    /// Hashes a server's name, salted.
    pub(super) fn name(&self, name: &str, salt: u8) -> u64 {
        let mut hasher = self.hasher();
        hasher.write(name.as_bytes());
        hasher.write(&[0xff, salt]);
        hasher.finish()
    }
}

fn write(hasher: &mut SipHasher13, address: IpAddr) {
    match address {
        IpAddr::V4(a) => hasher.write(&a.octets()),
        IpAddr::V6(a) => hasher.write(&a.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_hashed_as_far_as_the_prefix_looks() {
        let hash = Hash::new(1);
        let net = Prefixes { v4: 24, v6: 64 };
        let of = |address: &str, prefixes| hash.client(address.parse().unwrap(), prefixes);
        assert_eq!(of("10.0.0.1", &net), of("10.0.0.2", &net));
        assert_ne!(of("10.0.0.1", &Prefixes::ADDRESS), of("10.0.0.2", &Prefixes::ADDRESS));
        assert_ne!(of("10.0.0.1", &net), of("10.0.1.1", &net));
        assert_ne!(hash.name("a", 0), hash.name("a", 1));
        assert_ne!(hash.name("a", 0), Hash::new(2).name("a", 0));
    }

    #[test]
    fn the_hash_is_the_same_on_every_machine() {
        assert_eq!(Hash::new(0).name("web-1", 0), 8_324_280_285_615_902_089);
    }
}
