//! Captures of ICMP echo: replied to by the gateway, or by a server.

use super::film::Film;
use super::talk::{Talk, at};
use super::{C4, C6, WEB4, WEB6};
use crate::setup::echo;
use std::net::IpAddr;

/// Each family: client and service address.
fn ends() -> [(IpAddr, IpAddr); 2] {
    [(at(C4).ip(), at(WEB4).ip()), (at(C6).ip(), at(WEB6).ip())]
}

pub fn an_echo_request_to_a_service_address_is_answered(film: &mut Film) {
    for (client, service) in ends() {
        film.show(echo(client, service, false, 7, 1, b"payload"));
        film.show(echo(client, service, false, 7, 2, &[0x55; 1400]));
        film.show(echo(client, service, false, 7, 3, b""));
        // Nothing is sent in reply to a reply.
        film.show(echo(client, service, true, 7, 4, b"payload"));
    }
}

pub fn an_echo_request_with_a_wrong_sum_is_dropped(film: &mut Film) {
    for (client, service) in ends() {
        for bit in [0, 7, 12] {
            let mut packet = echo(client, service, false, 7, 1, b"payload");
            let at = packet.len() - 1 - bit;
            packet[at] ^= 1 << (bit % 8);
            film.show(packet);
        }
    }
}

pub fn an_echo_request_to_a_service_that_listens_goes_to_a_server(film: &mut Film) {
    let servers: [IpAddr; 2] = ["10.0.2.1", "fd00::2"].map(|text| text.parse().expect("an address"));
    for ((client, service), server) in ends().into_iter().zip(servers) {
        film.show(echo(client, service, false, 7, 1, b"payload"));
        film.show(echo(server, client, true, 7, 1, b"payload"));
        film.show(echo(client, service, false, 7, 2, b"the same flow"));
    }
    for (client, service) in ends() {
        film.show(echo(client, service, false, 8, 1, b"another flow, the next server"));
        film.show(echo(client, service, true, 9, 1, b"a reply opens none"));
        let mut wrong = echo(client, service, false, 9, 1, b"nor does a wrong sum");
        *wrong.last_mut().expect("a packet") ^= 1;
        film.show(wrong);
    }
    film.wait_ms(59_000);
    film.show(echo(ends()[0].0, ends()[0].1, false, 7, 3, b"59 s later: the same flow"));
    film.wait_ms(61_000);
    film.show(echo(ends()[0].0, ends()[0].1, false, 7, 4, b"61 s later: a new one"));
    film.show(echo(servers[1], ends()[1].0, true, 7, 1, b"an answer to nobody"));
}

pub fn a_servers_own_traffic_passes(film: &mut Film) {
    let (server, client) = (at("10.0.2.1:8080"), at(C4));
    film.show(echo(server.ip(), client.ip(), false, 7, 1, b"a server asks"));
    film.show(echo(client.ip(), server.ip(), true, 7, 1, b"and is answered"));
    let mut update = Talk::new("10.0.2.1:50000", "203.0.113.9:443", "203.0.113.9:443");
    film.show_all(update.open());
    let mut login = Talk::new("203.0.113.9:50000", "10.0.2.1:22", "10.0.2.1:22");
    film.show_all(login.open());
}
