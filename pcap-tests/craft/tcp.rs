//! Captures of TCP connections: how they open, close, are reset and refused.

use super::film::Film;
use super::talk::{Talk, at};
use super::{C4, C6, WEB4, WEB6};
use crate::setup::tcp;
use etherparse::{PacketBuilder, TcpOptionElement};

const S1: &str = "10.0.2.1:8080";
const S2: &str = "10.0.2.2:8080";
const MINUTE: u64 = 60_000;

pub fn a_connection_opens_carries_data_and_closes(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    film.show(talk.client("PA", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"));
    film.show(talk.server("A", b""));
    film.show(talk.server("PA", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"));
    film.show(talk.client("A", b""));
    film.show(talk.client("FA", b""));
    film.show(talk.server("A", b""));
    film.show(talk.server("FA", b""));
    film.show(talk.client("A", b""));
}

pub fn both_families_reach_one_service(film: &mut Film) {
    let mut four = Talk::new(C4, WEB4, S1);
    let mut six = Talk::new(C6, WEB6, "[fd00::2]:8080");
    film.show_all(four.open());
    film.show_all(six.open());
    for talk in [&mut four, &mut six] {
        film.show(talk.client("PA", b"which way?"));
        film.show(talk.server("PA", b"this way!"));
    }
    film.show_all(six.close());
    film.show_all(four.close());
}

pub fn a_retransmitted_syn_is_not_a_new_flow(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    let syn = talk.client("S", b"");
    film.show(syn.clone());
    // Another connection takes the next server, so that a second choice for the first would show.
    film.show(Talk::new("198.51.100.8:40000", WEB4, S2).client("S", b""));
    film.wait_ms(1000);
    film.show(syn.clone());
    film.wait_ms(3000);
    film.show(syn);
    let answer = talk.server("SA", b"");
    film.show(answer.clone());
    film.show(answer);
    film.show(talk.client("A", b""));
}

pub fn a_syn_of_other_numbers_on_a_half_open_flow_stays_with_its_server(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show(talk.client("S", b""));
    film.show(talk.server("SA", b""));
    // The client has started anew; the server's old reply does not match this SYN, the new one does.
    talk.next = [90_000, 70_000];
    film.show_all(talk.open());
    film.wait_ms(5 * MINUTE);
    film.show(talk.client("PA", b"longer than a half-open flow lives"));
}

pub fn a_syn_on_a_closing_flow_opens_a_new_flow(film: &mut Film) {
    let mut old = Talk::new(C4, WEB4, S1);
    film.show_all(old.open());
    film.show_all(old.close());
    film.wait_ms(500);
    let mut new = Talk { server: at(S2), next: [90_000, 70_000], ..old };
    film.show_all(new.open());
    film.show(new.client("PA", b"again"));
}

pub fn a_syn_after_a_believed_reset_opens_a_new_flow(film: &mut Film) {
    let mut old = Talk::new(C4, WEB4, S1);
    film.show_all(old.open());
    film.show(old.client("R", b""));
    let mut new = Talk { server: at(S2), next: [90_000, 70_000], ..old };
    film.show_all(new.open());
}

pub fn a_syn_on_an_established_flow_does_not_replace_it(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    film.show(tcp(talk.client, talk.service, "S", 77_000, 0, b""));
    // The server's challenge, to which the client has no reply.
    film.show(talk.server("A", b""));
    film.show(talk.client("PA", b"still here"));
}

pub fn a_refusal_of_another_connection_ends_an_established_flow(film: &mut Film) {
    let mut old = Talk::new(C4, WEB4, S1);
    film.show_all(old.open());
    film.show(old.client("PA", b"before the server restarts"));
    // The client has started anew, and so has the server, on which nothing listens yet. A refusal of another number is
    // none.
    film.wait_ms(1000);
    film.show(tcp(old.client, old.service, "S", 77_000, 0, b""));
    film.show(tcp(old.server, old.client, "RA", 0, 66_001, b""));
    film.show(tcp(old.server, old.client, "RA", 0, 77_001, b""));
    // Anyone can have sent these, so the next SYN still goes to that server, which would challenge it if it knew the
    // connection.
    film.show(tcp(old.client, old.service, "S", 88_000, 0, b""));
    film.show(tcp(old.server, old.client, "RA", 0, 88_001, b""));
    film.wait_ms(1000);
    let mut new = Talk { server: at(S2), next: [90_000, 70_000], ..old };
    film.show_all(new.open());
}

pub fn a_connection_that_is_over_yields_its_return_key(film: &mut Film) {
    // One client port, one server, three service addresses: the server sees the same ends.
    let mut first = Talk::new(C4, WEB4, S1);
    film.show_all(first.open());
    let mut busy = Talk { service: at("192.0.2.81:80"), next: [20_000, 25_000], ..first.clone() };
    film.show(busy.client("S", b""));
    // Not before each end has acknowledged that the other is done.
    let mut fins = first.close();
    let last = fins.pop().expect("the last acknowledgement");
    film.show_all(fins);
    film.show(busy.client("S", b""));
    film.show(last);
    film.wait_ms(100);
    let mut second = Talk { service: at("192.0.2.81:80"), next: [30_000, 35_000], ..first.clone() };
    film.show_all(second.open());
    film.show(second.client("PA", b"shop"));
    // What is late of the first one is no news.
    film.show(first.client("A", b""));
    film.show(second.server("RA", b""));
    let mut third = Talk { service: at("192.0.2.82:80"), next: [40_000, 45_000], ..second };
    film.show_all(third.open());
}

pub fn both_ends_of_a_connection_that_is_not_known_hear_of_it(film: &mut Film) {
    for (client, service, server) in [(C4, WEB4, S1), (C6, WEB6, "[fd00::2]:8080")] {
        let mut talk = Talk::new(client, service, server);
        talk.next = [1500, 5700];
        film.show(talk.server("PA", b"news from the server"));
        film.show(talk.server("FA", b""));
        film.show(talk.server("R", b""));
    }
    // It knows a flow of this client, with another server: only the server hears.
    let mut known = Talk::new(C4, WEB4, S1);
    film.show_all(known.open());
    let mut old = Talk { server: at(S2), next: [300, 400], ..known };
    film.show(old.server("PA", b"news from a server of before"));
}

pub fn a_servers_segment_of_no_flow_is_adopted_where_it_can_be_only_one_services(film: &mut Film) {
    for (client, service, server) in [(C4, WEB4, S1), (C6, WEB6, "[fd00::1]:8080")] {
        let mut talk = Talk::new(client, service, server);
        film.show(talk.server("PA", b"more of a download"));
        film.show(talk.client("A", b""));
        film.show(talk.server("PA", b"and more"));
        // Both ends have confirmed it.
        film.show(talk.client("A", b""));
    }
    // A connection past the gateway looks the same, until its client refuses what comes from the service.
    let mut other = Talk::new("198.51.100.8:40000", WEB4, S1);
    let [client, server] = other.next;
    film.show(other.server("PA", b"past the gateway"));
    film.show(tcp(other.client, other.service, "R", client.wrapping_add(1), 0, b""));
    film.show(tcp(other.client, other.service, "R", client, 0, b""));
    other.next = [client, server];
    film.show(other.server("PA", b"past the gateway"));
    // Two services have this server: it may be either's.
    let mut shared = Talk::new(C4, "192.0.2.81:80", "10.0.2.2:8080");
    film.show(shared.server("PA", b"of one of two"));
    // No segment of an open connection, and none of a service.
    let mut more = Talk::new("198.51.100.9:40000", WEB4, S1);
    for flags in ["SA", "R", "F"] {
        film.show(more.server(flags, b""));
    }
}

pub fn a_reset_outside_the_window_does_not_end_a_flow(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    film.show_all([talk.client("PA", b"ten octets"), talk.server("A", b"")]);
    let [client, server] = talk.next;
    // Far away, one too far, one already sent; from both sides.
    for off in [1_000_000_000, 1, 0u32.wrapping_sub(10)] {
        film.show(tcp(talk.client, talk.service, "R", client.wrapping_add(off), 0, b""));
        film.show(tcp(talk.server, talk.client, "R", server.wrapping_add(off), 0, b""));
    }
    film.wait_ms(5 * MINUTE);
    film.show(talk.client("PA", b"longer than a reset flow lives"));
    film.show(talk.server("A", b""));
}

pub fn a_flow_ends_four_minutes_after_an_exact_reset(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    film.show(talk.server("R", b""));
    film.wait_ms(4 * MINUTE + 200);
    film.show(talk.client("PA", b"too late"));
}

pub fn a_repeated_reset_does_not_prolong_a_flow(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    let reset = talk.client("R", b"");
    film.show(reset.clone());
    film.wait_ms(2 * MINUTE);
    film.show(reset);
    film.wait_ms(2 * MINUTE + 200);
    film.show(talk.server("PA", b"four minutes after the first"));
}

pub fn data_after_an_exact_reset_revives_the_flow(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    film.show(talk.client("R", b""));
    film.wait_ms(3 * MINUTE);
    film.show(talk.server("PA", b"I never got that reset"));
    film.show(talk.client("A", b""));
    film.wait_ms(30 * MINUTE);
    film.show(talk.client("PA", b"nor did I send it"));
}

pub fn a_reset_in_the_handshake_is_no_way_to_establish(film: &mut Film) {
    // A stranger with a spoofed address, which never sees the replies. Each of three ways to guess around that.
    for port in [40_001, 40_002, 40_003] {
        let mut talk = Talk::new(&format!("198.51.100.7:{port}"), WEB4, &format!("10.0.2.{}:8080", port - 40_000));
        film.show_all([talk.client("S", b""), talk.server("SA", b"")]);
        let guess = |flags, ack| tcp(talk.client, talk.service, flags, 1001, ack, b"");
        match port {
            40_001 => film.show_all([guess("R", 0), guess("A", 7)]),
            40_002 => film.show_all([guess("A", 7), tcp(talk.server, talk.client, "R", 7, 0, b""), guess("A", 7)]),
            _ => film.show_all([guess("A", 5000), guess("A", 5002), guess("A", 5000 + 60_000)]),
        }
    }
    film.wait_ms(4 * MINUTE + 200);
    film.show(Talk::new("198.51.100.7:40001", WEB4, S1).client("A", b""));
}

pub fn a_connection_refused_at_first_and_accepted_then_establishes(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    let syn = talk.client("S", b"");
    film.show(syn.clone());
    film.show(tcp(talk.server, talk.client, "RA", 0, talk.next[0], b""));
    film.wait_ms(500);
    // Some systems retry with the same numbers, and the server has been started meanwhile.
    film.show(syn);
    film.show_all([talk.server("SA", b""), talk.client("A", b"")]);
    film.wait_ms(10 * MINUTE);
    film.show(talk.client("PA", b"longer than a refused flow lives"));
    film.show(talk.server("A", b""));
}

pub fn what_was_under_way_at_a_reset_does_not_revive_the_flow(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    film.show(talk.client("R", b""));
    // The server has not learned of it yet, and what it sends is dropped by a firewall of the client's.
    film.show_all([talk.server("A", b"in flight"), talk.server("A", b"as well")]);
    film.wait_ms(4 * MINUTE + 200);
    film.show(talk.server("A", b"too late"));
}

pub fn a_refused_connection_is_refused_to_the_client(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show(talk.client("S", b""));
    talk.next[1] = 0;
    film.show(talk.server("RA", b""));
    let mut talk = Talk::new(C6, WEB6, "[fd00::2]:8080");
    film.show(talk.client("S", b""));
    talk.next[1] = 0;
    film.show(talk.server("RA", b""));
}

pub fn a_half_closed_connection_still_carries_data(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    film.show(talk.client("FA", b""));
    for _ in 0..3 {
        film.wait_ms(30 * MINUTE);
        film.show(talk.server("PA", b"a slow answer"));
        film.show(talk.client("A", b""));
    }
    film.show(talk.server("FA", b""));
    film.show(talk.client("A", b""));
}

pub fn a_simultaneous_open_establishes(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show(talk.client("S", b""));
    film.show(tcp(talk.server, talk.client, "S", 5000, 0, b""));
    film.show(tcp(talk.client, talk.service, "SA", 1000, 5001, b""));
    film.show(tcp(talk.server, talk.client, "SA", 5000, 1001, b""));
    talk.next = [1001, 5001];
    film.show(talk.client("A", b""));
    film.wait_ms(10 * MINUTE);
    film.show(talk.client("PA", b"longer than a half-open flow lives"));
    film.show(talk.server("A", b""));
}

pub fn sequence_numbers_wrap(film: &mut Film) {
    let mut talk = Talk { next: [u32::MAX, u32::MAX - 5], ..Talk::new(C4, WEB4, S1) };
    film.show_all(talk.open());
    film.show(talk.client("PA", b"over the edge"));
    film.show(talk.server("PA", b"here as well"));
    film.show(talk.client("A", b""));
    // An exact reset is recognized beyond the edge too.
    film.show(talk.client("R", b""));
}

pub fn a_segment_of_no_flow_is_reset(film: &mut Film) {
    for (client, service) in [(at(C4), at(WEB4)), (at(C6), at(WEB6))] {
        film.show(tcp(client, service, "PA", 1_111, 2_222, b"seq 2222, no ACK"));
        film.show(tcp(client, service, "A", 1_111, 0, b""));
        film.show(tcp(client, service, "FA", 1_111, 2_222, b""));
        film.show(tcp(client, service, "SA", 1_111, 2_222, b""));
        film.show(tcp(client, service, "F", 1_111, 0, b"ack 1122: ten and FIN"[..10].as_ref()));
        film.show(tcp(client, service, "F", u32::MAX - 2, 0, b"four"));
    }
}

pub fn a_reset_of_no_flow_is_not_answered(film: &mut Film) {
    for (client, service) in [(at(C4), at(WEB4)), (at(C6), at(WEB6))] {
        film.show(tcp(client, service, "R", 1_111, 0, b""));
        film.show(tcp(client, service, "RA", 1_111, 2_222, b""));
    }
}

pub fn a_segment_of_no_flow_with_a_wrong_sum_is_not_answered(film: &mut Film) {
    for (client, service) in [(at(C4), at(WEB4)), (at(C6), at(WEB6))] {
        for mut packet in
            [tcp(client, service, "PA", 1_111, 2_222, b"odd"), tcp(client, service, "A", 1_111, 2_222, b"")]
        {
            let sum = packet.len() - if packet.len() % 2 == 1 { 7 } else { 4 };
            packet[sum] ^= 0x01;
            film.show(packet);
        }
    }
}

pub fn a_segment_of_no_flow_is_dropped_where_the_service_says_so(film: &mut Film) {
    film.show(tcp(at(C4), at(WEB4), "A", 1, 2, b""));
    film.show(tcp(at(C4), at(WEB4), "FA", 1, 2, b""));
    film.show(tcp(at(C4), at(WEB4), "SA", 1, 2, b""));
    film.show_all(Talk::new(C4, WEB4, S1).open());
}

pub fn tcp_options_urgent_data_and_data_on_a_syn_pass(film: &mut Film) {
    use TcpOptionElement::*;
    let (client, service, server) = (at(C4), at(WEB4), at(S1));
    let build = |tcp: etherparse::PacketBuilderStep<etherparse::TcpHeader>, options: &[_], payload: &[u8]| {
        let mut packet = Vec::new();
        tcp.options(options).expect("options that fit").write(&mut packet, payload).expect("a packet");
        packet
    };
    let ip = |from: std::net::SocketAddr, to: std::net::SocketAddr| {
        let (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) = (from.ip(), to.ip()) else { panic!("IPv4") };
        PacketBuilder::ipv4(from.octets(), to.octets(), 60)
    };
    let to = |seq| ip(client, service).tcp(client.port(), service.port(), seq, 1024);
    let back = |seq| ip(server, client).tcp(server.port(), client.port(), seq, 1024);
    let hello = [MaximumSegmentSize(1460), SelectiveAcknowledgementPermitted, Timestamp(1, 0), Noop, WindowScale(7)];
    film.show(build(to(1000).syn(), &hello, b"fast open"));
    film.show(build(back(5000).syn().ack(1010), &hello, b""));
    film.show(build(to(1010).ack(5001), &[Noop, Noop, Timestamp(2, 1)], b""));
    film.show(build(to(1010).ack(5001).urg(1), &[Noop, Noop, Timestamp(3, 1)], b"!"));
    let holes = [Noop, Noop, SelectiveAcknowledgement((1100, 1200), [None, None, None])];
    film.show(build(back(5001).ack(1011).ece(), &holes, b"odd"));
    film.show(build(to(1011).ack(5004).cwr(), &[], b"even"));
}
