//! Captures of sound packets with less common headers: everything that is not translated is kept.

use super::film::Film;
use super::talk::{Talk, at, resum, spoil, with_extension, with_options};
use super::{C4, C6, DNS4, DNS6, WEB4, WEB6};
use crate::setup::{echo, tcp, udp};

const S1: &str = "10.0.2.1:8080";
const S2_V6: &str = "[fd00::2]:8080";

fn connections() -> [Talk; 2] {
    [Talk::new(C4, WEB4, S1), Talk::new(C6, WEB6, S2_V6)]
}

pub fn ttl_and_hop_limit_are_left_to_the_kernel(film: &mut Film) {
    // The kernel counts hops when it routes, before the device and after it.
    for mut talk in connections() {
        for (packet, hops) in talk.open().into_iter().zip([2, 2, 255]) {
            film.show(spoil(packet, |packet| {
                let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
                packet[at] = hops;
            }));
        }
    }
}

pub fn all_fields_that_are_not_translated_stay(film: &mut Film) {
    // Traffic class AF11 with ECN ECT(0); identification, no DF; flow label.
    for mut talk in connections() {
        for packet in talk.open() {
            film.show(spoil(packet, |packet| {
                if packet[0] >> 4 == 4 {
                    packet[1] = 0x2a;
                    packet[4..8].copy_from_slice(&[0xbe, 0xef, 0, 0]);
                } else {
                    packet[..4].copy_from_slice(&[0x62, 0xab, 0xcd, 0xef]);
                }
            }));
        }
    }
}

pub fn ipv4_options_are_kept(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    let router_alert = [148, 4, 0, 0];
    let record_route = [7, 39, 4].into_iter().chain([0; 36]).chain([0]).collect::<Vec<_>>();
    film.show(with_options(talk.client("S", b""), &router_alert));
    film.show(with_options(talk.server("SA", b""), &[1, 1, 1, 0]));
    film.show(with_options(talk.client("A", b""), &record_route));
    film.show(with_options(udp(at(C4), at(DNS4), b"question"), &router_alert));
    film.show(with_options(echo(at(C4).ip(), at(WEB4).ip(), false, 7, 1, b"payload"), &router_alert));
}

pub fn ipv6_extension_headers_are_kept(film: &mut Film) {
    let mut talk = Talk::new(C6, WEB6, "[fd00::1]:8080");
    const PAD: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
    let (hop_by_hop, routing, fragment, destination) = (0, 43, 44, 60);
    film.show(with_extension(talk.client("S", b""), hop_by_hop, &PAD));
    film.show(with_extension(talk.server("SA", b""), destination, &PAD));
    let twice = with_extension(talk.client("A", b""), destination, &PAD);
    film.show(with_extension(twice, hop_by_hop, &PAD));
    // An atomic fragment is a whole packet (RFC 6946); a used-up routing header has no effect.
    film.show(with_extension(udp(at(C6), at(DNS6), b"question"), fragment, &[0, 0, 0, 1, 2, 3, 4]));
    film.show(with_extension(udp(at(C6), at(DNS6), b"question"), routing, &[0, 253, 0, 0, 0, 0, 0]));
    film.show(with_extension(echo(at(C6).ip(), at(WEB6).ip(), false, 7, 1, b"payload"), destination, &PAD));
    // After a routing header with segments left the transport checksum covers another address.
    film.show(with_extension(
        udp(at(C6), at(DNS6), b"question"),
        routing,
        &[2, 253, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ));
}

/// Writes the pseudo-header's sum into the transport checksum field.
fn partial(mut packet: Vec<u8>) -> Vec<u8> {
    let v4 = packet[0] >> 4 == 4;
    let (offset, addresses, protocol) = if v4 { (20, 12..20, packet[9]) } else { (40, 8..40, packet[6]) };
    let len = (packet.len() - offset) as u16;
    let sum = etherparse::checksum::Sum16BitWords::new()
        .add_slice(&packet[addresses])
        .add_2bytes([0, protocol])
        .add_2bytes(len.to_be_bytes());
    let field = offset + if protocol == 6 { 16 } else { 6 };
    packet[field..field + 2].copy_from_slice(&(!sum.ones_complement()).to_ne_bytes());
    packet
}

pub fn a_partial_checksum_stays_partial(film: &mut Film) {
    for mut talk in connections() {
        film.show_all(talk.open().into_iter().map(partial));
        film.show(partial(talk.client("PA", b"as a sending host sees it")));
        film.show(talk.server("PA", b"and as it comes over a wire"));
    }
    film.show(partial(udp(at(C4), at(DNS4), b"question")));
    film.show(partial(udp(at(C6), at(DNS6), b"question")));
    // What the gateway originates has complete checksums.
    film.show(partial(tcp(at("198.51.100.7:40009"), at(WEB4), "A", 1, 2, b"")));
}

pub fn a_wrong_checksum_stays_wrong_for_its_receiver_to_find(film: &mut Film) {
    for mut talk in connections() {
        film.show_all(talk.open());
        for mut packet in [talk.client("PA", b"flipped on the way"), talk.server("PA", b"here as well")] {
            *packet.last_mut().expect("a packet") ^= 0x10;
            film.show(packet);
        }
    }
    for (client, service) in [(C4, DNS4), (C6, DNS6)] {
        let mut packet = udp(at(client), at(service), b"flipped on the way");
        *packet.last_mut().expect("a packet") ^= 0x10;
        film.show(packet);
    }
}

pub fn padding_behind_a_packet_is_not_sent_on(film: &mut Film) {
    // The shortest Ethernet frame is 60 octets and its check sequence.
    for mut talk in connections() {
        for mut packet in talk.open() {
            packet.resize(packet.len().max(46), 0);
            film.show(packet);
        }
    }
    let mut question = udp(at(C4), at(DNS4), b"q");
    question.resize(46, 0xaa);
    film.show(question);
    // A UDP length that ends before the packet does is valid, if odd.
    film.show(spoil(udp(at(C4), at(DNS4), b"question"), |packet| {
        packet.extend(b"behind");
        packet[3] += 6;
        resum(packet);
    }));
}
