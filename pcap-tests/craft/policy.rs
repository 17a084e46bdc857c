//! Captures of what is not translated: foreign traffic, strays of servers, what a service does not offer.

use super::film::Film;
use super::talk::{Talk, at, spoil};
use super::{C4, C6, DNS4, WEB4, WEB6};
use crate::setup::{echo, ip, tcp, udp};
use std::net::IpAddr;

const OTHER: &str = "203.0.113.9:4444";
const OTHER6: &str = "[2001:db8:f::9]:4444";

/// A packet of another IP protocol.
fn protocol(number: u8, src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(src, dst).write(&mut packet, etherparse::IpNumber(number), b"whatever this is").expect("a packet");
    packet
}

pub fn foreign_traffic_passes_unchanged(film: &mut Film) {
    for (client, other) in [(at(C4), at(OTHER)), (at(C6), at(OTHER6))] {
        film.show_all(Talk { client, service: other, server: other, next: [1000, 5000] }.open());
        film.show(udp(client, other, b"a datagram"));
        film.show(udp(other, client, b"and its answer"));
        film.show(echo(client.ip(), other.ip(), false, 1, 1, b"payload"));
        film.show(echo(other.ip(), client.ip(), true, 1, 1, b"payload"));
        // GRE, ESP, SCTP.
        film.show_all([47, 50, 132].map(|number| protocol(number, client.ip(), other.ip())));
    }
    // A wrong transport checksum is left to the receiver; so are odd addresses.
    film.show(spoil(udp(at(C4), at(OTHER), b"with a wrong sum"), |packet| packet[40] ^= 1));
    film.show(udp(at("0.0.0.0:68"), at("255.255.255.255:67"), b"a host that begins"));
    film.show(udp(at("[fe80::1]:5353"), at("[ff02::fb]:5353"), b"many hosts"));
}

pub fn what_a_server_sends_outside_of_flows_passes(film: &mut Film) {
    for (server, client) in [("10.0.2.1", at(C4)), ("[fd00::1]", at(C6))] {
        film.show(tcp(at(&format!("{server}:8080")), client, "SA", 5000, 1001, b""));
        // The connection goes on, as none of a service.
        film.show(tcp(at(&format!("{server}:8080")), client, "PA", 5001, 1001, b"to a client that came directly"));
        film.show(tcp(at(&format!("{server}:8080")), client, "FA", 5031, 1001, b""));
        film.show(tcp(at(&format!("{server}:8080")), client, "R", 5032, 0, b""));
        film.show(udp(at(&format!("{server}:53")), client, b"an answer that comes too late"));
        // Other ports and protocols carry the server's own traffic.
        film.show(tcp(at(&format!("{server}:8081")), client, "SA", 5000, 1001, b""));
        film.show(udp(at(&format!("{server}:8080")), client, b"no service of mine"));
        film.show(tcp(at(&format!("{server}:53")), client, "SA", 5000, 1001, b""));
    }
}

pub fn what_a_service_address_does_not_offer_is_dropped_by_name(film: &mut Film) {
    for (client, vip) in [(at(C4), "192.0.2.80"), (at(C6), "[2001:db8::80]")] {
        let to = |port: u16| at(&format!("{vip}:{port}"));
        film.show(tcp(client, to(81), "S", 1, 0, b""));
        film.show(tcp(client, to(53), "S", 1, 0, b""));
        film.show(tcp(client, to(0), "S", 1, 0, b""));
        film.show(udp(client, to(80), b"no service"));
        film.show(udp(client, to(54), b"no service"));
        // A segment of no flow is reset only where a service listens.
        film.show(tcp(client, to(81), "A", 1, 1, b""));
        // GRE, ESP, SCTP.
        film.show_all([47, 50, 132].map(|number| protocol(number, client.ip(), to(1).ip())));
    }
    // A timestamp request, and a router solicitation.
    let (v4, v6) = ((at(C4).ip(), at(WEB4).ip()), (at(C6).ip(), at(WEB6).ip()));
    film.show(spoil(echo(v4.0, v4.1, false, 1, 1, b""), |packet| {
        packet[20] = 13;
        packet[22] -= 5;
    }));
    film.show(spoil(echo(v6.0, v6.1, false, 1, 1, b""), |packet| {
        packet[40] = 133;
        packet[42] -= 5;
    }));
}

pub fn a_service_that_is_off_is_answered_as_if_nothing_listened(film: &mut Film) {
    for (client, vip) in [(at(C4), "192.0.2.80"), (at(C6), "[2001:db8::80]")] {
        let to = |port: u16| at(&format!("{vip}:{port}"));
        film.show(tcp(client, to(80), "S", 1, 0, b""));
        film.show(tcp(client, to(80), "A", 1, 1, b""));
        film.show(udp(client, to(443), b"no service"));
        // Another service of the address goes on.
        film.show(udp(client, to(53), b"question"));
        film.show(echo(client.ip(), to(1).ip(), false, 1, 1, b"still there"));
    }
    // A rule names the service that is off: the packet goes where it was sent.
    film.show(tcp(at("198.51.100.9:40000"), at("203.0.113.1:80"), "S", 1, 0, b""));
}

pub fn a_source_that_cannot_be_answered_opens_no_flow(film: &mut Film) {
    for source in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255"] {
        film.show(tcp(at(&format!("{source}:40000")), at(WEB4), "S", 1, 0, b""));
    }
    for source in ["::", "::1", "ff02::1", "ff0e::1"] {
        film.show(tcp(at(&format!("[{source}]:40000")), at(WEB6), "S", 1, 0, b""));
    }
    // The service to itself, from its own port and another.
    film.show(tcp(at(WEB4), at(WEB4), "S", 1, 0, b""));
    film.show(tcp(at("192.0.2.80:40000"), at(WEB4), "S", 1, 0, b""));
    film.show(tcp(at("[2001:db8::80]:40000"), at(WEB6), "S", 1, 0, b""));
    // Nor is it replied to.
    film.show(tcp(at("224.0.0.1:40000"), at(WEB4), "A", 1, 1, b""));
    film.show(echo(at("127.0.0.1:1").ip(), at(WEB4).ip(), false, 1, 1, b"payload"));
    film.show(echo(at("[ff02::1]:1").ip(), at(WEB6).ip(), false, 1, 1, b"payload"));
    // A source port of zero is not a port.
    film.show(tcp(at("198.51.100.7:0"), at(WEB4), "S", 1, 0, b""));
    film.show(udp(at("198.51.100.7:0"), at(DNS4), b"no way back"));
}
