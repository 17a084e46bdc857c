//! The proof that both ends have the shared key: HMAC-SHA-256 (RFC 2104) over both greetings, each with a nonce.
//!
//! It proves who is at the other end when a connection begins, and nothing about the frames that follow: the connection runs
//! over loopback or inside a tunnel that encrypts.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a proof.
pub(super) const PROOF: usize = 32;

fn mac(key: &[u8], parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    // It takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    Some(mac)
}

/// Returns the proof of the end that sent `own`, to the one that sent `other`.
pub(super) fn proof(key: &[u8], own: &[u8], other: &[u8]) -> [u8; PROOF] {
    mac(key, &[b"equipoise sync proof", own, other]).map_or([0; PROOF], |mac| mac.finalize().into_bytes().into())
}

/// Returns whether this is the proof of the end that sent `other`, to the one that sent `own`; in constant time.
pub(super) fn proves(key: &[u8], own: &[u8], other: &[u8], proof: &[u8]) -> bool {
    mac(key, &[b"equipoise sync proof", other, own]).is_some_and(|mac| mac.verify_slice(proof).is_ok())
}

/// Returns the key of the hashes that both compare, which nobody else can aim at.
pub(super) fn hash_key(key: &[u8]) -> (u64, u64) {
    let bytes: [u8; PROOF] =
        mac(key, &[b"equipoise sync hash"]).map_or([0; PROOF], |mac| mac.finalize().into_bytes().into());
    let word = |at: usize| bytes[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    (word(0), word(8))
}

/// Returns a seed for the decisions of both gateways: the same choices for the same clients, which nobody else can foresee.
/// It is not 0.
pub fn seed(key: &[u8]) -> u64 {
    let bytes = mac(key, &[b"equipoise sync seed"]).map_or([0; PROOF], |mac| mac.finalize().into_bytes().into());
    bytes.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_key_its_two_greetings_and_its_direction() {
        let made = proof(b"key", b"from", b"to");
        assert!(proves(b"key", b"to", b"from", &made));
        assert!(!proves(b"other", b"to", b"from", &made));
        assert!(!proves(b"key", b"from", b"to", &made), "reflected");
        assert!(!proves(b"key", b"t", b"from", &made) && !proves(b"key", b"ofrom", b"t", &made));
        assert!(!proves(b"key", b"to", b"from", &made[..31]) && !proves(b"key", b"to", b"from", &[]));
    }

    #[test]
    fn the_hash_key_is_the_same_at_both_ends_and_differs_by_key() {
        assert_eq!(hash_key(b"key"), hash_key(b"key"));
        assert_ne!(hash_key(b"key"), hash_key(b"kez"));
    }

    /// RFC 4231, 4.3.
    #[test]
    fn the_mac_is_that_of_the_standard() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        mac.update(b"what do ya want for nothing?");
        let bytes: [u8; PROOF] = mac.finalize().into_bytes().into();
        assert_eq!(bytes[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    }
}
