//! Makes the bytes of a packet: valid, with right checksums and a payload of zeros.

use super::{PacketWords, Transport};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpHeader};
use std::net::SocketAddr;

impl PacketWords {
    /// Returns the IP packet.
    pub fn bytes(&self) -> Vec<u8> {
        let payload = vec![0; self.len.into()];
        let mut packet = Vec::with_capacity(60 + payload.len());
        let builder = PacketBuilder::ip(self.ip());
        let (src, dst) = (self.src.port(), self.dst.port());
        let written = match self.transport {
            Transport::Tcp { flags, seq, ack } => {
                let is = |bit: u8| flags.0 & bit != 0;
                let mut header = TcpHeader::new(src, dst, seq, 65_535);
                (header.fin, header.syn, header.rst, header.psh) = (is(0x01), is(0x02), is(0x04), is(0x08));
                (header.ack, header.urg, header.ece, header.cwr) = (is(0x10), is(0x20), is(0x40), is(0x80));
                header.acknowledgment_number = ack;
                builder.tcp_header(header).write(&mut packet, &payload)
            }
            Transport::Udp => builder.udp(src, dst).write(&mut packet, &payload),
            Transport::Echo { reply, id, seq } => match (self.src, reply) {
                (SocketAddr::V4(_), false) => builder.icmpv4_echo_request(id, seq).write(&mut packet, &payload),
                (SocketAddr::V4(_), true) => builder.icmpv4_echo_reply(id, seq).write(&mut packet, &payload),
                (SocketAddr::V6(_), false) => builder.icmpv6_echo_request(id, seq).write(&mut packet, &payload),
                (SocketAddr::V6(_), true) => builder.icmpv6_echo_reply(id, seq).write(&mut packet, &payload),
            },
            Transport::Sctp => builder.write(&mut packet, IpNumber::SCTP, &sctp(src, dst, &payload)),
            Transport::Ip(number) => builder.write(&mut packet, IpNumber(number), &payload),
        };
        debug_assert!(written.is_ok(), "the length was checked when the words were read: {written:?}");
        packet
    }

    fn ip(&self) -> IpHeaders {
        match (self.src, self.dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) => {
                // The builder fills in length, protocol and checksum.
                let header = Ipv4Header {
                    time_to_live: self.ttl,
                    dont_fragment: self.df,
                    source: src.ip().octets(),
                    destination: dst.ip().octets(),
                    ..Ipv4Header::default()
                };
                IpHeaders::Ipv4(header, Default::default())
            }
            (src, dst) => {
                let octets = |end: SocketAddr| match end {
                    SocketAddr::V4(end) => end.ip().to_ipv6_mapped().octets(),
                    SocketAddr::V6(end) => end.ip().octets(),
                };
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: IpNumber::IPV6_NO_NEXT_HEADER,
                    hop_limit: self.ttl,
                    source: octets(src),
                    destination: octets(dst),
                };
                IpHeaders::Ipv6(header, Default::default())
            }
        }
    }
}

/// Returns an SCTP packet with its CRC (RFC 9260, 3.1 and appendix A).
fn sctp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = [&src.to_be_bytes()[..], &dst.to_be_bytes(), &[0; 8], payload].concat();
    let crc = crc32c::crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&crc);
    packet
}
