//! Packets of the simulated ends: IPv4 with TCP or UDP.

use etherparse::PacketBuilder;
use std::net::{Ipv4Addr, SocketAddrV4};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// A segment or datagram; a datagram has no flags.
#[derive(Debug, Clone)]
pub struct Packet {
    pub udp: bool,
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn bytes(&self) -> Vec<u8> {
        let ip = PacketBuilder::ipv4(self.from.ip().octets(), self.to.ip().octets(), 60);
        let mut out = Vec::new();
        if self.udp {
            ip.udp(self.from.port(), self.to.port()).write(&mut out, &self.payload).unwrap();
            return out;
        }
        let mut tcp = ip.tcp(self.from.port(), self.to.port(), self.seq, 1000);
        for (flag, bit) in [(SYN, 0), (FIN, 1), (RST, 2), (PSH, 3)] {
            if self.flags & flag != 0 {
                tcp = match bit {
                    0 => tcp.syn(),
                    1 => tcp.fin(),
                    2 => tcp.rst(),
                    _ => tcp.psh(),
                };
            }
        }
        if self.flags & ACK != 0 {
            tcp = tcp.ack(self.ack);
        }
        tcp.write(&mut out, &self.payload).unwrap();
        out
    }

    pub fn of(bytes: &[u8]) -> Option<Packet> {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
        let address = |at: usize| Ipv4Addr::from(long(at));
        if bytes.len() < 28 || bytes[0] != 0x45 {
            return None;
        }
        let udp = match bytes[9] {
            6 => false,
            17 => true,
            _ => return None,
        };
        let (from, to) = (SocketAddrV4::new(address(12), word(20)), SocketAddrV4::new(address(16), word(22)));
        if udp {
            return Some(Packet { udp, from, to, flags: 0, seq: 0, ack: 0, payload: bytes[28..].to_vec() });
        }
        let begin = 20 + usize::from(bytes[32] >> 4) * 4;
        let payload = bytes.get(begin..)?.to_vec();
        Some(Packet { udp, from, to, flags: bytes[33] & 31, seq: long(24), ack: long(28), payload })
    }
}
