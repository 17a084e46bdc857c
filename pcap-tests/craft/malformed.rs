//! Captures of malformed packets, each malformed in one way. None may be translated or replied to.

use super::film::{Film, Format};
use super::talk::{at, spoil, with_extension, with_options};
use super::{C4, C6, DNS4, DNS6, WEB4, WEB6};
use crate::setup::{echo, tcp, udp};
use equipoise::capture::Link;

fn syn4() -> Vec<u8> {
    tcp(at(C4), at(WEB4), "S", 1000, 0, b"")
}

fn syn6() -> Vec<u8> {
    tcp(at(C6), at(WEB6), "S", 1000, 0, b"")
}

/// Truncates a packet to `len` octets and adjusts the length in its IP header.
fn cut(packet: Vec<u8>, len: usize) -> Vec<u8> {
    spoil(packet, |packet| {
        packet.truncate(len);
        let (at, behind) = if packet[0] >> 4 == 4 { (2, 0) } else { (4, 40) };
        packet[at..at + 2].copy_from_slice(&((len - behind) as u16).to_be_bytes());
    })
}

pub fn a_packet_that_is_no_ip_packet_is_dropped(film: &mut Film) {
    // Raw link: nothing precedes the packet, so it can be of any length.
    film.format = Format::Pcap;
    film.link = Link::Raw(101);
    let no_octets = vec![];
    let one_octet = vec![0x45];
    let version_3 = spoil(syn4(), |packet| packet[0] = 0x35);
    let version_0 = vec![0; 40];
    let version_15 = vec![0xff; 40];
    let short_of_any_version = vec![0x30; 19];
    film.show_all([no_octets, one_octet, version_3, version_0, version_15, short_of_any_version]);
}

pub fn a_broken_ipv4_header_is_dropped(film: &mut Film) {
    let shorter_than_a_header = syn4()[..19].to_vec();
    let header_length_0 = spoil(syn4(), |packet| packet[0] = 0x40);
    let header_length_16 = {
        let mut packet = syn4();
        packet[0] = 0x44;
        packet
    };
    let header_length_beyond_the_packet = {
        let mut packet = syn4();
        packet[0] = 0x4f;
        packet
    };
    let total_length_beyond_the_packet = spoil(syn4(), |packet| packet[3] += 1);
    let total_length_of_64_k = spoil(syn4(), |packet| packet[2..4].fill(0xff));
    let total_length_0 = spoil(syn4(), |packet| packet[2..4].fill(0));
    let total_length_under_the_header = spoil(syn4(), |packet| packet[3] = 19);
    let wrong_header_sum = {
        let mut packet = syn4();
        packet[11] ^= 1;
        packet
    };
    let wrong_header_sum_with_options = {
        let mut packet = with_options(syn4(), &[1, 1, 1, 0]);
        packet[20] = 0;
        packet
    };
    film.show_all([
        shorter_than_a_header,
        header_length_0,
        header_length_16,
        header_length_beyond_the_packet,
        total_length_beyond_the_packet,
        total_length_of_64_k,
        total_length_0,
        total_length_under_the_header,
        wrong_header_sum,
        wrong_header_sum_with_options,
    ]);
}

pub fn a_broken_ipv6_header_is_dropped(film: &mut Film) {
    const PAD: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
    let (hop_by_hop, routing, authentication, destination) = (0, 43, 51, 60);
    let shorter_than_a_header = syn6()[..39].to_vec();
    let payload_beyond_the_packet = spoil(syn6(), |packet| packet[5] += 1);
    let payload_of_64_k = spoil(syn6(), |packet| packet[4..6].fill(0xff));
    let jumbogram = spoil(syn6(), |packet| packet[4..6].fill(0));
    let extension_cut_off = cut(with_extension(syn6(), hop_by_hop, &PAD), 47);
    let extension_cut_to_an_octet = cut(with_extension(syn6(), destination, &PAD), 41);
    let extension_beyond_the_packet = spoil(with_extension(syn6(), destination, &PAD), |packet| packet[41] = 255);
    let routing_beyond_the_packet = spoil(with_extension(syn6(), routing, &PAD), |packet| packet[41] = 9);
    let authentication_beyond_the_packet = spoil(with_extension(syn6(), authentication, &PAD), |packet| packet[41] = 9);
    let nine_extensions = (0..9).fold(syn6(), |packet, _| with_extension(packet, destination, &PAD));
    film.show_all([
        shorter_than_a_header,
        payload_beyond_the_packet,
        payload_of_64_k,
        jumbogram,
        extension_cut_off,
        extension_cut_to_an_octet,
        extension_beyond_the_packet,
        routing_beyond_the_packet,
        authentication_beyond_the_packet,
        nine_extensions,
    ]);
}

pub fn a_broken_tcp_header_is_dropped(film: &mut Film) {
    for (syn, tcp) in [(syn4(), 20), (syn6(), 40)] {
        let with = |at: usize, octet: u8| spoil(syn.clone(), |packet| packet[tcp + at] = octet);
        let no_header = cut(syn.clone(), tcp);
        let ports_alone = cut(syn.clone(), tcp + 4);
        let one_octet_short = cut(syn.clone(), tcp + 19);
        let offset_0 = with(12, 0x00);
        let offset_16 = with(12, 0x40);
        let offset_beyond_the_packet = with(12, 0x60);
        let offset_60 = with(12, 0xf0);
        let no_flags = with(13, 0x00);
        let push_and_urgent_alone = with(13, 0x28);
        let syn_and_fin = with(13, 0x03);
        let syn_and_rst = with(13, 0x06);
        let fin_and_rst = with(13, 0x05);
        let all_flags = with(13, 0xff);
        film.show_all([
            no_header,
            ports_alone,
            one_octet_short,
            offset_0,
            offset_16,
            offset_beyond_the_packet,
            offset_60,
            no_flags,
            push_and_urgent_alone,
            syn_and_fin,
            syn_and_rst,
            fin_and_rst,
            all_flags,
        ]);
    }
}

pub fn a_broken_udp_header_is_dropped(film: &mut Film) {
    for (whole, at) in [(udp(at(C4), at(DNS4), b"question"), 20), (udp(at(C6), at(DNS6), b"question"), 40)] {
        let with =
            |length: u16| spoil(whole.clone(), |packet| packet[at + 4..at + 6].copy_from_slice(&length.to_be_bytes()));
        let no_header = cut(whole.clone(), at);
        let one_octet_short = cut(whole.clone(), at + 7);
        let length_0 = with(0);
        let length_7 = with(7);
        let length_beyond_the_packet = with(17);
        let length_of_64_k = with(0xffff);
        film.show_all([no_header, one_octet_short, length_0, length_7, length_beyond_the_packet, length_of_64_k]);
    }
}

pub fn a_broken_icmp_header_is_dropped(film: &mut Film) {
    let four = echo(at(C4).ip(), at(WEB4).ip(), false, 7, 1, b"payload");
    let six = echo(at(C6).ip(), at(WEB6).ip(), false, 7, 1, b"payload");
    for (whole, at) in [(four, 20), (six, 40)] {
        let no_header = cut(whole.clone(), at);
        let one_octet_short = cut(whole.clone(), at + 7);
        // Its checksum covers what was cut off.
        let payload_cut_off = cut(whole.clone(), at + 8);
        // An echo request has code 0 (RFC 792; RFC 4443, 4.1).
        let code_1 = spoil(whole.clone(), |packet| packet[at + 1] = 1);
        film.show_all([no_header, one_octet_short, payload_cut_off, code_1]);
    }
    // Each family's ICMP is not ICMP in the other.
    film.show(spoil(echo(at(C4).ip(), at(WEB4).ip(), false, 7, 1, b"58 over IPv4"), |packet| packet[9] = 58));
    film.show(spoil(echo(at(C6).ip(), at(WEB6).ip(), false, 7, 1, b"1 over IPv6"), |packet| packet[6] = 1));
}
