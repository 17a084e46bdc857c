//! Captures of servers that come and go, of rules, and of probes; other events are in `events.txt`.

use super::film::Film;
use super::talk::{Talk, at};
use super::{C4, DNS4, WEB4, WEB6};
use crate::setup::{echo, tcp, udp};
use std::net::IpAddr;

fn syn(film: &mut Film, client: u8, port: u16) {
    film.show(tcp(at(&format!("198.51.100.{client}:{port}")), at(WEB4), "S", 1000, 0, b""));
}

pub fn a_sticky_client_leaves_a_server_that_drains_and_does_not_come_back(film: &mut Film) {
    syn(film, 7, 40_001);
    syn(film, 7, 40_002);
    // At 1 s its server drains, at 3 s it is enabled again.
    film.at_ms(2000);
    syn(film, 7, 40_003);
    film.at_ms(4000);
    syn(film, 7, 40_004);
    syn(film, 8, 40_005);
}

pub fn a_server_that_goes_down_has_its_connections_reset_at_both_ends(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, "10.0.2.1:8080");
    film.show_all(talk.open());
    film.show(talk.client("PA", b"GET / HTTP/1.1"));
    film.show(talk.server("A", b""));
    let mut opening = Talk { client: at("198.51.100.8:40000"), ..Talk::new(C4, WEB4, "10.0.2.2:8080") };
    film.show(opening.client("S", b""));
    let mut closing = Talk { client: at("198.51.100.9:40000"), ..Talk::new(C4, WEB4, "10.0.2.1:8080") };
    film.show_all(closing.open());
    film.show_all(closing.close());
    // At 1 s web-1 goes down, at 2 s web-2.
    film.at_ms(3000);
    film.show(talk.client("PA", b"anybody there?"));
}

pub fn a_new_connection_leaves_a_server_that_is_gone(film: &mut Film) {
    let mut old = Talk::new(C4, WEB4, "10.0.2.1:8080");
    film.show_all(old.open());
    film.show(old.client("PA", b"mount"));
    film.show(old.server("A", b""));
    let mut closed = Talk { client: at("198.51.100.9:1000"), ..Talk::new(C4, WEB4, "10.0.2.2:8080") };
    film.show_all(closed.open());
    film.show_all(closed.close());
    // At 1 s web-1 goes down; web-3 is disabled at 5 s; at 7 s web-1 comes up, and then web-2 goes down.
    film.at_ms(2000);
    // Its own connection stays.
    film.show(old.client("PA", b"still there?"));
    // Anyone can send a SYN: it goes to the old server, which would challenge it if it knew the connection.
    film.show(tcp(old.client, old.service, "S", 66_000, 0, b""));
    film.at_ms(3200);
    film.show(tcp(old.client, old.service, "S", 90_000, 0, b""));
    film.at_ms(4200);
    let mut new = Talk { server: at("10.0.2.3:8080"), next: [90_000, 70_000], ..old };
    film.show_all(new.open());
    film.show(new.client("PA", b"mount again"));
    film.at_ms(5600);
    film.show(tcp(new.client, new.service, "S", 900_000_000, 0, b""));
    film.at_ms(6600);
    let mut again = Talk { server: at("10.0.2.2:8080"), next: [900_000_000, 1], ..new };
    film.show_all(again.open());
    film.at_ms(8000);
    let mut after = Talk { server: at("10.0.2.1:8080"), next: [50_000_000, 2], ..closed };
    film.show_all(after.open());
}

pub fn a_datagram_goes_to_another_server_when_its_own_is_down(film: &mut Film) {
    film.show(udp(at(C4), at(DNS4), b"one"));
    film.show(udp(at("10.0.2.1:53"), at(C4), b"answer"));
    film.at_ms(2000);
    film.show(udp(at(C4), at(DNS4), b"two"));
    film.show(udp(at("10.0.2.2:53"), at(C4), b"answer"));
    film.show(udp(at("10.0.2.1:53"), at(C4), b"too late"));
}

pub fn a_draining_server_keeps_its_flows_until_the_deadline(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, "10.0.2.1:8080");
    film.show_all(talk.open());
    film.at_ms(2000);
    film.show(talk.client("PA", b"still mine"));
    film.show(talk.server("PA", b"still here"));
    film.show(talk.client("A", b""));
    syn(film, 8, 40_001);
    film.at_ms(5000);
    film.show(talk.client("PA", b"too late"));
}

pub fn a_service_without_a_server_answers_as_its_last_resort_says(film: &mut Film) {
    film.at_ms(1000);
    film.show(tcp(at(C4), at(WEB4), "S", 1000, 0, b""));
    film.show(tcp(at("[2001:db8:c::7]:40000"), at(WEB6), "S", 1000, 0, b""));
    film.show(udp(at(C4), at(DNS4), b"nobody"));
    film.show(udp(at("[2001:db8:c::7]:40000"), at("[2001:db8::80]:53"), b"nobody"));
}

pub fn rules_decide_first_match_first_and_can_be_switched_off(film: &mut Film) {
    let from = |net: &str, port: u16| at(&format!("{net}:{port}"));
    for ms in [0, 2000] {
        film.at_ms(ms);
        let port = 40_000 + (ms / 100) as u16;
        film.show(tcp(from("198.51.100.66", port), at(WEB4), "S", 1000, 0, b""));
        film.show(tcp(from("198.51.100.130", port), at(WEB4), "S", 1000, 0, b""));
        film.show(udp(from("198.51.100.130", port), at(DNS4), b"me too?"));
        let (prober, vip): (IpAddr, IpAddr) = ([198, 51, 100, 130].into(), [192, 0, 2, 80].into());
        film.show(echo(prober, vip, false, 7, 1, b"ping"));
        if ms == 0 {
            film.show_all(Talk::new("198.51.100.200:40000", WEB4, "10.0.2.1:8080").open());
        }
        film.show(tcp(from("198.51.100.200", port + 1), at(WEB4), "S", 1000, 0, b""));
        film.show(tcp(from("198.51.100.7", port), at(WEB4), "S", 1000, 0, b""));
        film.show(tcp(from("198.51.100.7", port), at("203.0.113.9:80"), "S", 1000, 0, b""));
    }
}

pub fn probes_in_a_capture_drive_the_monitors(film: &mut Film) {
    const PROBER: &str = "192.0.2.1";
    let server = |n: u8| at(&format!("10.0.2.{n}:8080"));
    for (i, ms) in (0..8u16).map(|i| (i, u64::from(i) * 1000)) {
        film.at_ms(ms);
        let prober = at(&format!("{PROBER}:{}", 33_000 + i));
        for n in [1, 2] {
            film.show(tcp(prober, server(n), "S", 100, 0, b""));
            // web-2 refuses from 2 s on and is healthy again from 5 s on.
            if n == 2 && (2..5).contains(&i) {
                film.show(tcp(server(n), prober, "RA", 0, 101, b""));
            } else {
                film.show(tcp(server(n), prober, "SA", 500, 101, b""));
                film.show(tcp(prober, server(n), "R", 101, 0, b""));
            }
        }
        film.show(tcp(at(&format!("198.51.100.7:{}", 40_000 + i)), at(WEB4), "S", 1000, 0, b""));
        film.show(tcp(at(&format!("198.51.100.8:{}", 40_000 + i)), at(WEB4), "S", 1000, 0, b""));
    }
    film.show(tcp(at("203.0.113.66:1"), at("192.0.2.1:33000"), "S", 1, 0, b""));
}

pub fn signs_of_trouble_keep_a_server_out_for_a_while(film: &mut Film) {
    for port in 40_001..40_005 {
        film.show(tcp(at(&format!("198.51.100.7:{port}")), at(WEB4), "S", 1000, 0, b""));
        if port % 2 == 1 {
            film.show(tcp(at("10.0.2.1:8080"), at(&format!("198.51.100.7:{port}")), "RA", 0, 1001, b""));
        }
    }
    // Two consecutive refusals are too many: web-1 is out for 5 s.
    syn(film, 8, 40_010);
    syn(film, 8, 40_011);
    film.at_ms(6000);
    syn(film, 8, 40_012);
    syn(film, 8, 40_013);
}
