//! Packets of the strangers: written whole, and read as far as the lab needs.

use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep, TcpHeader};
use std::net::{IpAddr, SocketAddr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// What the lab knows of a TCP or UDP packet.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// The flags; none of UDP.
    pub tcp: Option<u8>,
    pub sequence: u32,
    pub acknowledgement: u32,
}

impl Seen {
    pub fn is_reset(&self) -> bool {
        self.tcp.is_some_and(|flags| flags & RST != 0)
    }
}

/// Reads a packet without IP options or extension headers; `None` if it is neither TCP nor UDP.
pub fn see(packet: &[u8]) -> Option<Seen> {
    let (protocol, from, to, at): (u8, IpAddr, IpAddr, usize) = match packet.first()? >> 4 {
        4 => {
            let address = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).ok().map(IpAddr::from);
            (packet.len() >= 28).then_some(())?;
            (packet[9], address(12)?, address(16)?, 20)
        }
        6 => {
            let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).ok().map(IpAddr::from);
            (packet.len() >= 48).then_some(())?;
            (packet[6], address(8)?, address(24)?, 40)
        }
        _ => return None,
    };
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let number = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
    let (from, to) = (SocketAddr::new(from, port(at)), SocketAddr::new(to, port(at + 2)));
    match protocol {
        TCP if packet.len() >= at + 20 => {
            let (sequence, acknowledgement) = (number(at + 4), number(at + 8));
            Some(Seen { from, to, tcp: Some(packet[at + 13]), sequence, acknowledgement })
        }
        UDP => Some(Seen { from, to, tcp: None, sequence: 0, acknowledgement: 0 }),
        _ => None,
    }
}

fn ip(from: SocketAddr, to: SocketAddr) -> PacketBuilderStep<IpHeaders> {
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = Ipv4Header {
                source: from.octets(),
                destination: to.octets(),
                time_to_live: 64,
                dont_fragment: true,
                ..Ipv4Header::default()
            };
            PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header =
                Ipv6Header { source: from.octets(), destination: to.octets(), hop_limit: 64, ..Ipv6Header::default() };
            PacketBuilder::ip(IpHeaders::Ipv6(header, Default::default()))
        }
        other => panic!("two families: {other:?}"),
    }
}

/// Writes a TCP packet without options and data.
pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, sequence: u32, acknowledgement: u32) -> Vec<u8> {
    let mut header = TcpHeader::new(from.port(), to.port(), sequence, 65_000);
    header.acknowledgment_number = acknowledgement;
    (header.fin, header.syn, header.rst, header.ack) =
        (flags & FIN != 0, flags & SYN != 0, flags & RST != 0, flags & ACK != 0);
    let mut packet = Vec::with_capacity(60);
    ip(from, to).tcp_header(header).write(&mut packet, &[]).unwrap();
    packet
}

/// Writes a datagram.
pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(48 + data.len());
    ip(from, to).udp(from.port(), to.port()).write(&mut packet, data).unwrap();
    packet
}
