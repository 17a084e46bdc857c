//! A TCP connection through the gateway that counts its own sequence numbers; small changes of packets.
//!
//! It must not know the library under test.

use crate::setup::tcp;
use etherparse::checksum::Sum16BitWords;
use std::net::SocketAddr;

/// A TCP connection as its two ends see it: the client talks to the service, the server to the client.
#[derive(Debug, Clone)]
pub struct Talk {
    pub client: SocketAddr,
    pub service: SocketAddr,
    pub server: SocketAddr,
    /// The next sequence numbers of client and server.
    pub next: [u32; 2],
}

impl Talk {
    /// Addresses as text; the client begins at 1000, the server at 5000.
    pub fn new(client: &str, service: &str, server: &str) -> Talk {
        Talk { client: at(client), service: at(service), server: at(server), next: [1000, 5000] }
    }

    /// The client's next segment, as it arrives at the gateway.
    pub fn client(&mut self, flags: &str, payload: &[u8]) -> Vec<u8> {
        let packet = tcp(self.client, self.service, flags, self.next[0], self.next[1], payload);
        self.next[0] = self.next[0].wrapping_add(length(flags, payload));
        packet
    }

    /// The server's next segment, as it arrives at the gateway.
    pub fn server(&mut self, flags: &str, payload: &[u8]) -> Vec<u8> {
        let packet = tcp(self.server, self.client, flags, self.next[1], self.next[0], payload);
        self.next[1] = self.next[1].wrapping_add(length(flags, payload));
        packet
    }

    /// The handshake: three segments.
    pub fn open(&mut self) -> Vec<Vec<u8>> {
        vec![self.client("S", b""), self.server("SA", b""), self.client("A", b"")]
    }

    /// Both FINs and the last acknowledgement: three segments.
    pub fn close(&mut self) -> Vec<Vec<u8>> {
        vec![self.client("FA", b""), self.server("FA", b""), self.client("A", b"")]
    }
}

/// Returns how much sequence space a segment takes.
fn length(flags: &str, payload: &[u8]) -> u32 {
    payload.len() as u32 + flags.matches(['S', 'F']).count() as u32
}

/// A socket address from text.
pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a socket address"))
}

/// Recomputes an IPv4 header's checksum.
pub fn resum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 15) * 4;
    let sum = Sum16BitWords::new().add_slice(&packet[..header]).ones_complement();
    // The library's sum has the same byte order in memory as in a packet.
    packet[10..12].copy_from_slice(&sum.to_ne_bytes());
}

/// Changes a packet and recomputes an IPv4 header's checksum.
pub fn spoil(mut packet: Vec<u8>, how: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    how(&mut packet);
    if packet[0] >> 4 == 4 {
        resum(&mut packet);
    }
    packet
}

/// Inserts options into an IPv4 header without any; a multiple of four octets.
pub fn with_options(packet: Vec<u8>, options: &[u8]) -> Vec<u8> {
    assert_eq!((packet[0], options.len() % 4), (0x45, 0));
    spoil(packet, |packet| {
        packet.splice(20..20, options.iter().copied());
        packet[0] += (options.len() / 4) as u8;
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
    })
}

/// Inserts an extension header directly after an IPv6 header; `body` is what follows its "next header" octet.
pub fn with_extension(mut packet: Vec<u8>, number: u8, body: &[u8]) -> Vec<u8> {
    assert_eq!((packet[0] >> 4, (body.len() + 1) % 8), (6, 0));
    let next = std::mem::replace(&mut packet[6], number);
    packet.splice(40..40, std::iter::once(next).chain(body.iter().copied()));
    let len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet
}
