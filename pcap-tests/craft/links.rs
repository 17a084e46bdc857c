//! Captures of each link type and file format: the same conversation, read and written alike.

use super::film::{Film, Format};
use super::talk::{Talk, at};
use super::{C4, C6, DNS4, WEB4, WEB6};
use crate::setup::{echo, tcp, udp};
use equipoise::capture::Link;

/// A little of everything: both families, both directions, a reply of the gateway's own, something foreign.
fn packets() -> Vec<Vec<u8>> {
    let mut packets = Talk::new(C4, WEB4, "10.0.2.1:8080").open();
    packets.extend(Talk::new(C6, WEB6, "[fd00::2]:8080").open());
    packets.push(udp(at(C4), at(DNS4), b"question"));
    packets.push(udp(at("10.0.2.1:53"), at(C4), b"answer"));
    packets.push(echo(at(C4).ip(), at(WEB4).ip(), false, 7, 1, b"payload"));
    packets.push(tcp(at(C6), at("[2001:db8:f::9]:443"), "S", 1, 0, b""));
    packets
}

fn conversation(film: &mut Film) {
    film.show_all(packets());
}

/// Shows the packets after Ethernet headers that end with the result of `tail`, for a packet and whether it is IPv6.
fn behind(film: &mut Film, packets: Vec<Vec<u8>>, tail: impl Fn(&[u8], bool) -> Vec<u8>) {
    for packet in packets {
        let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        film.frame([&macs[..], &tail(&packet, packet[0] >> 4 == 6)].concat(), packet);
    }
}

fn of_link(film: &mut Film, format: Format, link: Link) {
    (film.format, film.link) = (format, link);
    conversation(film);
}

pub fn vlan_tags_are_kept(film: &mut Film) {
    // IEEE 802.1Q: VLAN 5, priority 3.
    film.tags = vec![0x81, 0x00, 0x60, 0x05];
    conversation(film);
}

pub fn stacked_vlan_tags_are_kept(film: &mut Film) {
    // IEEE 802.1ad: service tag 100 around customer tag 200; then two tags of 802.1Q, as older switches stack them.
    film.tags = vec![0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0x00, 0xc8];
    conversation(film);
    film.tags = vec![0x81, 0x00, 0x00, 0x64, 0x81, 0x00, 0x00, 0xc8];
    film.show(udp(at(C4), at(DNS4), b"question"));
}

pub fn a_raw_ip_capture_is_replayed(film: &mut Film) {
    of_link(film, Format::Pcap, Link::Raw(101));
}

pub fn a_linux_cooked_capture_is_replayed(film: &mut Film) {
    of_link(film, Format::Pcap, Link::Cooked);
}

pub fn a_linux_cooked_capture_of_version_2_is_replayed(film: &mut Film) {
    of_link(film, Format::Pcap, Link::Cooked2);
}

pub fn a_null_capture_is_replayed(film: &mut Film) {
    of_link(film, Format::Pcap, Link::Null(0));
}

pub fn a_loop_capture_is_replayed(film: &mut Film) {
    of_link(film, Format::Pcap, Link::Null(108));
}

pub fn a_ppp_capture_is_replayed(film: &mut Film) {
    of_link(film, Format::Pcap, Link::Ppp(9));
}

pub fn a_pppoe_session_is_kept_and_tells_the_length_of_what_it_carries(film: &mut Film) {
    let session = |packet: &[u8], v6| {
        let [high, low] = (packet.len() as u16 + 2).to_be_bytes();
        vec![0x88, 0x64, 0x11, 0, 0, 9, high, low, 0, if v6 { 0x57 } else { 0x21 }]
    };
    behind(film, packets(), session);
    // A reply that is longer than its request: a port without a service.
    behind(film, vec![udp(at(C4), at("192.0.2.80:9"), b"")], session);
    // Discovery, and the link's own control protocol.
    film.frame(vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0x63, 0x11, 9, 0, 0, 0, 0], vec![]);
    film.frame(vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0x64, 0x11, 0, 0, 9, 0, 6, 0xc0, 0x21], vec![9, 1, 0, 4]);
}

pub fn mpls_labels_are_kept(film: &mut Film) {
    behind(film, packets(), |_, _| vec![0x88, 0x47, 0x00, 0x06, 0x40, 0x40, 0x00, 0x06, 0x51, 0x40]);
}

pub fn a_snap_header_is_kept_and_tells_the_length_of_what_follows(film: &mut Film) {
    let snap = |packet: &[u8], v6| {
        let [high, low] = (packet.len() as u16 + 8).to_be_bytes();
        let kind: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        [&[high, low, 0xaa, 0xaa, 3, 0, 0, 0][..], &kind].concat()
    };
    behind(film, packets(), snap);
    behind(film, vec![udp(at(C4), at("192.0.2.80:9"), b"")], snap);
}

pub fn a_nanosecond_pcap_keeps_its_nanoseconds(film: &mut Film) {
    film.format = Format::PcapNanos;
    film.wait_ns(123_456_789);
    conversation(film);
    film.wait_ns(1);
    film.show(udp(at(C4), at(DNS4), b"a nanosecond off"));
}

pub fn a_big_endian_pcap_is_replayed(film: &mut Film) {
    of_link(film, Format::PcapBig, Link::Ethernet);
}

pub fn a_big_endian_pcapng_with_its_own_clock_is_replayed(film: &mut Film) {
    film.wait_ms(500);
    of_link(film, Format::PcapngBig, Link::Ethernet);
}

pub fn a_gzipped_pcap_is_replayed(film: &mut Film) {
    of_link(film, Format::PcapGzip, Link::Ethernet);
}

pub fn interfaces_of_several_link_types_are_kept_apart(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, "10.0.2.1:8080");
    film.show(talk.client("S", b""));
    film.link = Link::Raw(101);
    film.show(talk.server("SA", b""));
    film.link = Link::Cooked;
    film.show(talk.client("A", b""));
    film.link = Link::Raw(101);
    film.show(talk.server("PA", b"the second interface again"));
}

pub fn a_frame_without_a_whole_ip_packet_is_skipped(film: &mut Film) {
    film.format = Format::Pcap;
    let ethernet = |kind: [u8; 2]| [&[0xff; 6][..], &[2, 0, 0, 0, 0, 2], &kind].concat();
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 198, 51, 100, 7, 0, 0, 0, 0, 0, 0, 192, 0, 2, 80];
    film.frame(ethernet([0x08, 0x06]), arp.to_vec());
    // LLDP; spanning tree, which has a length in place of the type.
    film.frame(ethernet([0x88, 0xcc]), vec![0; 46]);
    film.frame(ethernet([0x00, 0x26]), vec![0x42; 46]);
    let header_alone = ethernet([0x08, 0x00]);
    film.frame(header_alone, vec![]);
    film.frame(ethernet([0x08, 0x00])[..13].to_vec(), vec![]);
    film.frame([ethernet([0x81, 0x00]), vec![0, 5, 8]].concat(), vec![]);
    film.frame(vec![], vec![]);
    film.show(tcp(at(C4), at(WEB4), "S", 1000, 0, b""));
    // Captured with too small a snapshot length: the engine would consider it malformed.
    film.show(tcp(at("198.51.100.7:40001"), at(WEB4), "S", 1000, 0, b""));
    film.cut(100);
}

pub fn a_frame_from_the_past_counts_as_of_the_time_before(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, "10.0.2.1:8080");
    film.at_ms(1000);
    film.show(talk.client("S", b""));
    film.at_ms(500);
    film.show(talk.server("SA", b""));
    film.at_ms(1500);
    film.show(talk.client("A", b""));
}
