//! UDP datagrams and the payload of replies (RFC 768).

use super::frame;
use crate::packet::{Addresses, Parsed, proto, word};

/// Appends a datagram.
pub(super) fn datagram(out: &mut Vec<u8>, addresses: &Addresses, ours: u16, theirs: u16, payload: &[u8]) {
    let mut body = Vec::with_capacity(8 + payload.len());
    body.extend_from_slice(&ours.to_be_bytes());
    body.extend_from_slice(&theirs.to_be_bytes());
    body.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(payload);
    frame::write(out, addresses, proto::UDP, 6, &body);
}

/// Returns the payload of a parsed UDP packet, by the length in its header.
pub(super) fn payload<'a>(packet: &'a [u8], parsed: &Parsed) -> &'a [u8] {
    let Some(bytes) = packet.get(parsed.offset..parsed.len).filter(|bytes| bytes.len() >= 8) else { return &[] };
    bytes.get(8..usize::from(word(bytes, 4))).unwrap_or(&[])
}
