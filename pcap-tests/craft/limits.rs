//! Captures of what counts in limits and has sticky slots: flows whose clients have proved that they receive replies.

use super::film::Film;
use super::talk::{Talk, at};
use super::{DNS4, WEB4};
use crate::setup::{tcp, udp};
use std::net::SocketAddr;

fn client(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new([198, 51, 100, last].into(), port)
}

fn talk(last: u8, port: u16, server: u8) -> Talk {
    Talk { client: client(last, port), ..Talk::new("0.0.0.0:0", WEB4, &format!("10.0.2.{server}:8080")) }
}

/// SYNs of sources that do not exist.
fn flood(film: &mut Film, count: u8) {
    for last in 0..count {
        film.show(tcp(client(100 + last, 1024), at(WEB4), "S", 1000, 0, b""));
    }
}

pub fn spoofed_syns_use_up_no_limit(film: &mut Film) {
    flood(film, 8);
    // The only server may have two flows.
    for last in 1..=3 {
        film.show_all(talk(last, 40_000, 1).open());
    }
}

pub fn a_handshake_beyond_a_limit_stays_half_open(film: &mut Film) {
    // The client may have one flow, and opens two at once.
    let mut talks = [40_000, 40_001].map(|port| talk(1, port, 1));
    for flags in ["S", "SA", "A"] {
        for talk in &mut talks {
            film.show(if flags == "SA" { talk.server(flags, b"") } else { talk.client(flags, b"") });
        }
    }
    film.show(talks[0].client("PA", b"within the limit"));
    film.show(talks[1].client("PA", b"beyond the limit"));
    film.show(talk(1, 40_002, 1).client("S", b""));
    // The second client believes that its connection is open, so it gets a reset when the flow expires.
    film.at_ms(245_000);
    film.show(talks[0].client("PA", b"still within the limit"));
}

pub fn a_conversation_counts_and_a_query_does_not(film: &mut Film) {
    // Each client may have one flow.
    for port in [40_000, 40_001] {
        film.show(udp(client(1, port), at(DNS4), b"question"));
        film.show(udp(at("10.0.2.1:53"), client(1, port), b"answer"));
    }
    for port in [40_000, 40_001, 40_002] {
        film.show(udp(client(1, port), at(DNS4), b"and another one"));
    }
}

pub fn spoofed_syns_displace_no_sticky_client(film: &mut Film) {
    // Two slots. The first client's connection goes to the first server, the second's to the second.
    for (last, server) in [(1, 1), (2, 2)] {
        let mut talk = talk(last, 40_000, server);
        film.show_all(talk.open());
        film.show_all(talk.close());
    }
    film.at_ms(250_000);
    flood(film, 5);
    for (last, server) in [(1, 1), (2, 2)] {
        film.show_all(talk(last, 40_001, server).open());
    }
}

pub fn the_first_connections_of_a_sticky_client_go_to_one_server(film: &mut Film) {
    let mut talks = [40_000, 40_001, 40_002].map(|port| talk(1, port, 1));
    for talk in &mut talks {
        film.show(talk.client("S", b""));
    }
    film.show(talk(2, 40_000, 2).client("S", b""));
    for talk in &mut talks {
        film.show(talk.server("SA", b""));
        film.show(talk.client("A", b""));
    }
    film.show(talk(1, 40_003, 1).client("S", b""));
}
