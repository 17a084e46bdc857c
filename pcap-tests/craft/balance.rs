//! Captures that show which server gets what.

use super::film::Film;
use super::talk::{Talk, at};
use super::{C4, C6, WEB4, WEB6};
use crate::setup::tcp;
use std::net::SocketAddr;

fn client(i: u16) -> SocketAddr {
    at(&format!("198.51.100.7:{}", 40_000 + i))
}

pub fn weights_of_3_2_1_spread_twelve_connections_6_4_2(film: &mut Film) {
    for i in 0..12 {
        film.show(tcp(client(i), at(WEB4), "S", 1000, 0, b""));
    }
    // The rest of the connection goes to the same server.
    for i in 0..12 {
        film.show(tcp(client(i), at(WEB4), "S", 1000, 0, b""));
    }
}

/// Requests R1 and R2 of client 1, R3 of client 2, R4 of client 3: the appliance manuals' own case.
fn four_requests_of_three_clients(film: &mut Film) {
    for (i, client) in [1, 1, 2, 3].into_iter().enumerate() {
        let client = at(&format!("198.51.100.{client}:{}", 40_001 + i));
        film.show(tcp(client, at(WEB4), "S", 1000, 0, b""));
    }
}

pub fn round_robin_with_sticky_clients_gives_servers_1_1_2_1(film: &mut Film) {
    four_requests_of_three_clients(film);
}

pub fn connection_rate_with_sticky_clients_gives_servers_1_1_2_2(film: &mut Film) {
    four_requests_of_three_clients(film);
}

pub fn a_server_of_weight_zero_gets_no_new_flow(film: &mut Film) {
    for i in 0..4 {
        film.show(tcp(client(i), at(WEB4), "S", 1000, 0, b""));
    }
}

pub fn a_server_without_an_address_of_the_family_is_passed_over(film: &mut Film) {
    for i in 0..4u16 {
        film.show(tcp(client(i), at(WEB4), "S", 1000, 0, b""));
        film.show(tcp(at(&format!("[2001:db8:c::7]:{}", 40_000 + i)), at(WEB6), "S", 1000, 0, b""));
    }
}

pub fn a_port_of_a_range_stays_the_same(film: &mut Film) {
    for port in [7999, 8000, 8005, 8010, 8011] {
        let mut talk = Talk::new(C4, &format!("192.0.2.80:{port}"), "10.0.2.1:1");
        film.show(talk.client("S", b""));
        talk.server = at(&format!("10.0.2.1:{port}"));
        film.show(talk.server("SA", b""));
    }
}

pub fn a_service_on_a_network_takes_what_no_longer_prefix_takes(film: &mut Film) {
    // All of a /24, the upper half of it, one address of that, and that address on a port that only the /24 has.
    for to in ["203.0.113.1:80", "203.0.113.201:80", "203.0.113.200:80", "203.0.113.200:81", "203.0.114.1:80"] {
        film.show(tcp(at(C4), at(to), "S", 1000, 0, b""));
    }
    for to in ["[2001:db8:1::1]:80", "[2001:db8:2::1]:80"] {
        film.show(tcp(at(C6), at(to), "S", 1000, 0, b""));
    }
    // The reply comes from the address that the client used.
    film.show(tcp(at("10.0.2.1:80"), at(C4), "SA", 5000, 1001, b""));
    film.show(tcp(at("10.0.2.2:80"), at(C4), "SA", 6000, 1001, b""));
    film.show(tcp(at("10.0.2.3:80"), at(C4), "SA", 7000, 1001, b""));
}

pub fn a_return_key_in_use_leads_to_another_server_or_is_refused(film: &mut Film) {
    // Two services with the same servers and port: one client port can have one flow to each server.
    let [web, shop] = [at(WEB4), at("192.0.2.81:80")];
    film.show(tcp(at(C4), web, "S", 1000, 0, b""));
    film.show(tcp(at(C4), shop, "S", 2000, 0, b""));
    film.show(tcp(at(C4), at("192.0.2.82:80"), "S", 3000, 0, b""));
    film.show(tcp(at("10.0.2.1:8080"), at(C4), "SA", 5000, 1001, b""));
    film.show(tcp(at("10.0.2.2:8080"), at(C4), "SA", 6000, 2001, b""));
}
