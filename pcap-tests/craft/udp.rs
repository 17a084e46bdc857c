//! Captures of UDP: both directions, and the special values of its checksum.

use super::film::Film;
use super::talk::at;
use super::{C4, C6, DNS4, DNS6};
use crate::setup::udp;
use std::net::SocketAddr;

const S1: &str = "10.0.2.1:53";
const S2_V6: &str = "[fd00::2]:53";

/// Per family: client, service, the server whose turn it is.
fn ends() -> [(SocketAddr, SocketAddr, SocketAddr); 2] {
    [(at(C4), at(DNS4), at(S1)), (at(C6), at(DNS6), at(S2_V6))]
}

/// The offset of the checksum.
fn sum_at(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 26 } else { 46 }
}

pub fn udp_goes_both_ways(film: &mut Film) {
    for (client, service, server) in ends() {
        film.show(udp(client, service, b"question"));
        film.show(udp(server, client, b"answer"));
        film.show(udp(client, service, b""));
        film.show(udp(server, client, b"an odd one"[..9].as_ref()));
    }
    // Another port is another flow.
    for (client, service, _) in ends() {
        film.show(udp(SocketAddr::new(client.ip(), 40_001), service, b"question"));
    }
}

pub fn an_absent_udp_checksum_stays_absent(film: &mut Film) {
    for (client, service, server) in ends() {
        for mut packet in [udp(client, service, b"question"), udp(server, client, b"answer")] {
            let sum = sum_at(&packet);
            packet[sum..sum + 2].fill(0);
            film.show(packet);
        }
    }
}

pub fn a_udp_checksum_that_becomes_zero_leaves_as_all_ones(film: &mut Film) {
    // The payload is chosen so that the outgoing packet sums to zero, which etherparse writes as all ones.
    let chosen = |leaves: fn(SocketAddr, SocketAddr, &[u8]) -> Vec<u8>, from, to| {
        let payloads = (0..=u16::MAX).map(u16::to_be_bytes);
        let fits = |payload: &[u8; 2]| {
            let packet = leaves(from, to, payload);
            packet[sum_at(&packet)..][..2] == [0xff, 0xff]
        };
        payloads.into_iter().find(fits).expect("one among all checksums")
    };
    for (client, service, server) in ends() {
        film.show(udp(client, service, &chosen(udp, client, server)));
        film.show(udp(server, client, &chosen(udp, service, client)));
    }
}

pub fn a_udp_checksum_of_all_ones_is_one(film: &mut Film) {
    // A datagram that arrives with all ones (a sum of zero) has a checksum.
    for (client, service, _) in ends() {
        let found = (0..=u16::MAX).map(|word| udp(client, service, &word.to_be_bytes()));
        film.show(found.into_iter().find(|p| p[sum_at(p)..][..2] == [0xff, 0xff]).expect("one among all checksums"));
    }
}
