//! The monitors against simulated servers: each probe, each kind of reply.

use super::Taken;
use super::settings::{DnsExpect, DnsKind, Expect, LoadSource, MonitorSettings, Probe};
use super::testing::*;
use crate::ids::ServerId;
use crate::packet::{Meta, Parsed, TcpFlags, Transport, parse};
use crate::state::Health;
use crate::time::{Duration, Instant};

/// Returns the events of the first probe of a monitor with fall 1 and rise 1 for a server of unknown health.
fn verdict(families: &str, probe: Probe, servers: &mut dyn FnMut(&[u8], &Parsed) -> Vec<Packet>) -> Vec<String> {
    let monitor = MonitorSettings { initial: Health::Unknown, ..fall_1(probe) };
    let mut sim = Sim::new(&settings(1, families, vec![monitor]));
    // Until a little after the first verdict, before the second probe.
    while sim.events.is_empty() {
        sim.run(Duration::from_millis(100), servers);
    }
    sim.run(Duration::from_millis(100), servers);
    assert!(sim.health.outstanding.is_empty(), "no probe is outstanding after its end");
    sim.reported()
}

#[test]
fn an_echo_reply_is_up_and_silence_or_an_error_is_down() {
    for family in ["4", "6"] {
        let up = verdict(family, Probe::Icmp, &mut |p, parsed| soon(echo_reply(p, parsed)));
        assert_eq!(up, ["1 up: 1 of 1 answered, average 10 ms"]);
        let down = verdict(family, Probe::Icmp, &mut |_, _| vec![]);
        assert_eq!(down, ["1 down: 1 of 1 timed out after 500 ms"]);
        let down = verdict(family, Probe::Icmp, &mut |p, parsed| soon(unreachable(p, parsed, 48)));
        assert_eq!(down, ["1 down: destination unreachable (port)"]);
        // A reply with another payload than the request.
        let forged = verdict(family, Probe::Icmp, &mut |p, parsed| {
            let mut packet = p.to_vec();
            packet[parsed.offset + 9] ^= 1;
            soon(echo_reply(&packet, parsed))
        });
        assert_eq!(forged, ["1 down: 1 of 1 timed out after 500 ms"]);
    }
}

fn numbers(parsed: &Parsed) -> (TcpFlags, u32, u32) {
    let Transport::Tcp { flags, seq, ack, .. } = parsed.transport else { panic!() };
    (flags, seq, ack)
}

#[test]
fn a_syn_ack_is_up_and_answered_by_a_reset_with_its_number() {
    for family in ["4", "6"] {
        let mut sim = Sim::new(&settings(1, family, vec![monitor(Probe::Tcp)]));
        sim.run(secs(3), &mut |_, parsed| match numbers(parsed) {
            (TcpFlags(SYN), seq, _) => soon(segment(parsed, 99, seq.wrapping_add(1), SYN | ACK, b"")),
            _ => vec![],
        });
        let sent: Vec<_> = sim.sent.iter().map(|(_, packet)| parse(packet).unwrap()).collect();
        assert!(sent.len() >= 4 && sent.len() % 2 == 0, "{}", sent.len());
        for pair in sent.chunks(2) {
            let (syn, rst) = (numbers(&pair[0]), numbers(&pair[1]));
            assert_eq!((syn.0, syn.2, rst.0, rst.2), (TcpFlags(SYN), 0, TcpFlags(RST), 0));
            assert_eq!(rst.1, syn.1.wrapping_add(1));
            assert_eq!(pair[0].addresses, pair[1].addresses);
            let ports = |p: &Parsed| match p.transport {
                Transport::Tcp { src, dst, .. } => (src, dst),
                _ => panic!(),
            };
            assert_eq!(ports(&pair[0]), ports(&pair[1]));
            assert!((32_768..=60_999).contains(&ports(&pair[0]).0) && ports(&pair[0]).1 == 80);
        }
        assert!(sim.reported().is_empty() && sim.taken.iter().all(|t| *t == Taken::Answer));
    }
}

#[test]
fn a_reset_is_a_refusal_and_segments_that_do_not_acknowledge_the_syn_are_ignored() {
    for family in ["4", "6"] {
        let rst = |flags, wrong: u32| {
            move |_: &[u8], parsed: &Parsed| match numbers(parsed) {
                (TcpFlags(SYN), seq, _) => soon(segment(parsed, 0, seq.wrapping_add(1 + wrong), flags, b"")),
                _ => vec![],
            }
        };
        assert_eq!(verdict(family, Probe::Tcp, &mut rst(RST | ACK, 0)), ["1 down: refused (RST)"]);
        let lost = ["1 down: 1 of 1 timed out after 500 ms"];
        assert_eq!(verdict(family, Probe::Tcp, &mut rst(RST | ACK, 1)), lost);
        assert_eq!(verdict(family, Probe::Tcp, &mut rst(SYN | ACK, 1)), lost);
        assert_eq!(verdict(family, Probe::Tcp, &mut |_, _| vec![]), lost);
        // RFC 792 and a minimal router quote at least 28 or 48 bytes.
        for quoted in [if family == "4" { 28 } else { 48 }, 200] {
            let down = verdict(family, Probe::Tcp, &mut |p, parsed| soon(unreachable(p, parsed, quoted)));
            assert_eq!(down, ["1 down: destination unreachable (port)"]);
        }
        // An error that quotes a packet that was never sent: another sequence number, another source.
        for at in [if family == "4" { 24 } else { 44 }, if family == "4" { 15 } else { 23 }] {
            let forged = verdict(family, Probe::Tcp, &mut |p, parsed| {
                let mut quote = p.to_vec();
                quote[at] ^= 1;
                soon(unreachable(&quote, parsed, 200))
            });
            assert_eq!(forged, lost, "byte {at}");
        }
    }
}

#[test]
fn a_reply_with_a_wrong_checksum_is_ignored() {
    let mut sim = Sim::new(&settings(1, "4", vec![fall_1(Probe::Tcp)]));
    sim.run(Duration::from_millis(1600), &mut |_, parsed| match numbers(parsed) {
        (TcpFlags(SYN), seq, _) => {
            let mut packet = segment(parsed, 99, seq.wrapping_add(1), SYN | ACK, b"");
            packet[36] ^= 1;
            soon(packet)
        }
        _ => vec![],
    });
    assert!(sim.taken.iter().all(|taken| *taken == Taken::Checksum));
    assert_eq!(sim.reported()[0], "1 down: 1 of 1 timed out after 500 ms");
}

#[test]
fn a_late_syn_ack_is_reset_and_not_counted() {
    let mut sim = Sim::new(&settings(1, "4", vec![fall_1(Probe::Tcp)]));
    sim.run(secs(2), &mut |_, parsed| match numbers(parsed) {
        (TcpFlags(SYN), seq, _) => {
            let late = segment(parsed, 99, seq.wrapping_add(1), SYN | ACK, b"");
            vec![(Duration::from_millis(600), late, Meta::default())]
        }
        _ => vec![],
    });
    assert!(sim.taken.contains(&Taken::Late), "{:?}", sim.taken);
    assert!(sim.sent.iter().any(|(_, p)| numbers(&parse(p).unwrap()).0.rst()));
    assert_eq!(sim.reported(), ["1 down: 1 of 1 timed out after 500 ms"]);
}

#[test]
fn the_expected_datagram_is_up() {
    let probe = || Probe::Udp { payload: b"ping".into(), expect: Expect::Prefix(b"pong".into()) };
    for family in ["4", "6"] {
        let up = verdict(family, probe(), &mut |p, parsed| {
            assert!(p.ends_with(b"ping"));
            soon(datagram(parsed, b"pong!"))
        });
        assert_eq!(up, ["1 up: 1 of 1 answered, average 10 ms"]);
        let wrong = verdict(family, probe(), &mut |_, parsed| soon(datagram(parsed, b"what?")));
        assert_eq!(wrong, ["1 down: reply does not match"]);
        let closed = verdict(family, probe(), &mut |p, parsed| soon(unreachable(p, parsed, 1000)));
        assert_eq!(closed, ["1 down: destination unreachable (port)"]);
        assert_eq!(verdict(family, probe(), &mut |_, _| vec![]), ["1 down: 1 of 1 timed out after 500 ms"]);
    }
}

#[test]
fn a_dns_response_to_the_query_is_up() {
    let probe = |expect| Probe::Dns { name: "a.example".into(), kind: DnsKind::A, expect };
    let answer = |rcode: u8, wrong_id: u8| {
        move |p: &[u8], parsed: &Parsed| {
            let mut response = p[parsed.offset + 8..].to_vec();
            response[1] ^= wrong_id;
            (response[2], response[3], response[7]) = (0x81, 0x80 | rcode, 1);
            response.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            soon(datagram(parsed, &response))
        }
    };
    let want = Some(DnsExpect::Address([192, 0, 2, 7].into()));
    let other = Some(DnsExpect::Address([192, 0, 2, 8].into()));
    for family in ["4", "6"] {
        let cases = [
            (want, answer(0, 0), "1 up: 1 of 1 answered, average 10 ms"),
            (other, answer(0, 0), "1 down: reply does not match"),
            (None, answer(2, 0), "1 down: DNS response code 2, expected 0"),
            (None, answer(0, 1), "1 down: 1 of 1 timed out after 500 ms"),
        ];
        for (expect, mut servers, reported) in cases {
            assert_eq!(verdict(family, probe(expect), &mut servers), [reported]);
        }
    }
}

/// Returns the events of an HTTP monitor for a server with one reply.
fn web(probe: Probe, reply: &[u8], change: fn(&mut WebServer)) -> (Vec<String>, WebServer) {
    let mut server = WebServer::new(reply);
    change(&mut server);
    let mut both = ["4", "6"].map(|family| verdict(family, probe.clone(), &mut |p, parsed| server.answer(p, parsed)));
    for reported in &mut both {
        reported.iter_mut().for_each(|t| *t = t.split(", average").next().unwrap().to_owned());
    }
    assert_eq!(both[0], both[1]);
    assert_eq!(server.open(), 0, "each connection was ended");
    let [reported, _] = both;
    (reported, server)
}

#[test]
fn an_http_response_is_judged_by_status_and_body() {
    let up = "1 up: 1 of 1 answered";
    let lost = "1 down: 1 of 1 timed out after 500 ms";
    let plain = || http(|_| {});
    let ready = || http(|p| p.expect = contains("ready"));
    let cases: &[(Probe, &[u8], fn(&mut WebServer), &str)] = &[
        (plain(), b"HTTP/1.1 200 OK\r\n\r\n", |_| {}, up),
        (plain(), b"HTTP/1.1 500 Oops\r\n\r\n", |_| {}, "1 down: HTTP status 500, expected 200-299"),
        (http(|p| p.status = vec![(200, 200), (301, 302)]), b"HTTP/1.1 302 X\r\n\r\n", |_| {}, up),
        (
            http(|p| p.status = vec![(200, 200), (301, 302)]),
            b"HTTP/1.1 204 X\r\n\r\n",
            |_| {},
            "1 down: HTTP status 204, expected 200 or 301-302",
        ),
        (
            ready(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall ready",
            |s| s.closes = false,
            "1 down: body does not match",
        ),
        (ready(), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall ready", |s| s.closes = false, up),
        (ready(), b"HTTP/1.1 200 OK\r\n\r\nall ready", |_| {}, up),
        (ready(), b"HTTP/1.1 200 OK\r\n\r\nall ready", |s| s.closes = false, lost),
        (ready(), b"HTTP/1.1 200 OK\r\n\r\nnot yet", |_| {}, "1 down: body does not match"),
        (
            ready(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6;x=y\r\nall re\r\n3\r\nady\r\n0\r\nT: v\r\n\r\n",
            |s| s.closes = false,
            up,
        ),
        (
            ready(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            |_| {},
            "1 down: malformed reply: HTTP chunk",
        ),
        (
            ready(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nall ready",
            |_| {},
            "1 down: connection closed before the end of the response",
        ),
        (plain(), b"SSH-2.0-OpenSSH\r\n", |_| {}, "1 down: malformed reply: HTTP header"),
        (plain(), b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", |_| {}, up),
        (plain(), b"", |_| {}, lost),
        (plain(), b"HTTP/1.1 200 OK\r\n\r\n", |s| s.delay = Duration::from_millis(300), lost),
        (plain(), b"HTTP/1.1 200 OK\r\n\r\n", |s| s.segment = 1, up),
    ];
    for (probe, reply, change, want) in cases {
        let (reported, _) = web(probe.clone(), reply, *change);
        assert_eq!(reported, [*want], "{}", String::from_utf8_lossy(reply));
    }
}

/// Responses with a body `ready` as servers send them (RFC 9112).
fn unusual_responses() -> Vec<Vec<u8>> {
    let many: String = (0..150).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let most: String = (0..3000).map(|_| "a:\r\n").collect();
    let heads = [
        "HTTP/1.1 200 OK\r\nX-Folded: one\r\n two\r\n\tthree\r\nContent-Length: 5\r\n\r\n".to_owned(),
        "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n".into(),
        "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n".into(),
        "HTTP/1.1  200  Fine\r\nContent-Length: 5\r\n\r\n".into(),
        "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n".into(),
        "HTTP/1.1 200 OK\nContent-Length: 5\n\n".into(),
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\nBroken Field\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\ncontent-length: 5\r\n\r\n".into(),
        format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 5\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{most}Content-Length: 5\r\n\r\n"),
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: \
         5\r\n\r\n"
            .into(),
    ];
    let mut all: Vec<Vec<u8>> = heads.into_iter().map(|head| (head + "ready").into_bytes()).collect();
    all.push(b"HTTP/1.1 200 \xe9\xff\r\nX: \xe9\r\nContent-Length: 5\r\n\r\nready".to_vec());
    all.push(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0003\r\nrea\r\n2 \r\ndy\r\n0\r\n\r\n".to_vec());
    all
}

#[test]
fn what_servers_send_is_accepted_and_the_connection_closed_in_order() {
    for reply in unusual_responses() {
        for probe in [http(|_| {}), http(|p| p.expect = contains("ready"))] {
            // Byte by byte, the longest would take its time.
            for segment in [if reply.len() < 9000 { 1 } else { 100 }, 700] {
                let mut server = WebServer::new(&reply);
                (server.segment, server.delay) = (segment, Duration::from_micros(20));
                let mut sim = Sim::new(&settings(1, "4", vec![fall_1(probe.clone())]));
                sim.run(Duration::from_secs(3), &mut |packet, parsed| server.answer(packet, parsed));
                let text = String::from_utf8_lossy(&reply[..reply.len().min(200)]).into_owned();
                assert_eq!(sim.reported(), [] as [&str; 0], "{text}");
                assert!(server.fins >= 2 && server.resets == 0, "{} {}: {text}", server.fins, server.resets);
            }
        }
    }
}

#[test]
fn a_connection_that_the_server_does_not_close_is_closed_in_order_after_a_complete_answer() {
    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready";
    for probe in [http(|_| {}), http(|p| p.expect = contains("ready"))] {
        let (reported, server) = web(probe, reply, |server| server.closes = false);
        assert_eq!(reported, ["1 up: 1 of 1 answered"]);
        assert!(server.fins > 0 && server.resets == 0);
    }
    // A server that never ends its side is reset in the end, and holds up no probe.
    let mut server = WebServer::new(reply);
    (server.closes, server.ignores_fin) = (false, true);
    let mut sim = Sim::new(&settings(1, "4", vec![fall_1(http(|_| {}))]));
    sim.run(Duration::from_secs(30), &mut |packet, parsed| server.answer(packet, parsed));
    assert!(sim.reported().is_empty() && server.requests.len() > 20, "{}", server.requests.len());
    assert!(server.open() < 8 && server.resets > 15, "{} {}", server.open(), server.resets);
}

#[test]
fn a_lost_packet_of_a_connection_is_retransmitted() {
    for lost in 0..6 {
        let mut server = WebServer::new(b"HTTP/1.1 200 OK\r\n\r\nready");
        let timeout = Duration::from_secs(5);
        let monitor = MonitorSettings { timeout, ..fall_1(http(|p| p.expect = contains("ready"))) };
        let mut sim = Sim::new(&settings(1, "4", vec![MonitorSettings { initial: Health::Down, ..monitor }]));
        let mut count = 0;
        sim.run(Duration::from_secs(6), &mut |packet, parsed| {
            count += 1;
            if count - 1 == lost { vec![] } else { server.answer(packet, parsed) }
        });
        assert!(sim.reported()[0].starts_with("1 up: 1 of 1 answered"), "packet {lost}");
    }
}

#[test]
fn the_request_is_a_plain_get_with_the_settings_headers() {
    let probe = http(|p| {
        (p.host, p.path) = ("www.example".into(), "/health?x=1".into());
        p.headers = vec![("X-A".into(), "b".into()), ("user-agent".into(), "me".into())];
    });
    let (_, server) = web(probe, b"HTTP/1.1 200 OK\r\n\r\n", |_| {});
    let want = "GET /health?x=1 HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\nAccept: */*\r\nX-A: b\r\nuser-agent: me\r\n\r\n";
    assert_eq!(server.requests[0], want);
    assert!(server.resets == 0 && server.fins > 0);
}

#[test]
fn a_huge_body_is_read_to_its_limit_also_from_super_packets() {
    let mut reply = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    reply.extend(std::iter::repeat_n(b'x', 300_000));
    reply.extend(b"ready");
    let with = |bytes| http(|p| (p.max_bytes, p.expect) = (bytes, contains("ready")));
    for change in [|_: &mut WebServer| {}, |s: &mut WebServer| s.segment = 60_000] {
        assert_eq!(web(with(1 << 20), &reply, change).0, ["1 up: 1 of 1 answered"]);
        assert_eq!(web(with(100_000), &reply, change).0, ["1 down: body does not match"]);
    }
    let mut head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
    head.extend(std::iter::repeat_n(b'x', 100_000));
    assert_eq!(web(http(|_| {}), &head, |_| {}).0, ["1 down: malformed reply: HTTP header too long"]);
}

#[test]
fn http_refused_reset_and_unreachable_are_distinguished() {
    for family in ["4", "6"] {
        let refused = verdict(family, http(|_| {}), &mut |_, parsed| match numbers(parsed) {
            (TcpFlags(SYN), seq, _) => soon(segment(parsed, 0, seq.wrapping_add(1), RST | ACK, b"")),
            _ => vec![],
        });
        assert_eq!(refused, ["1 down: refused (RST)"]);
        let reset = verdict(family, http(|_| {}), &mut |_, parsed| match numbers(parsed) {
            (TcpFlags(SYN), seq, _) => soon(segment(parsed, 9, seq.wrapping_add(1), SYN | ACK, b"")),
            (flags, _, ack) if !flags.rst() => soon(segment(parsed, ack, 0, RST, b"")),
            _ => vec![],
        });
        assert_eq!(reset, ["1 down: connection reset (RST)"]);
        let gone = verdict(family, http(|_| {}), &mut |p, parsed| soon(unreachable(p, parsed, 100)));
        assert_eq!(gone, ["1 down: destination unreachable (port)"]);
        assert_eq!(verdict(family, http(|_| {}), &mut |_, _| vec![]), ["1 down: 1 of 1 timed out after 500 ms"]);
    }
}

#[test]
fn a_server_reports_its_load_in_a_header_or_in_the_body() {
    let header = http(|p| {
        p.load = Some(LoadSource::Header { name: "x-load".into(), maintenance: Some("x-maintenance".into()) });
    });
    let body = http(|p| p.load = Some(LoadSource::Regex(r"load=(?<load>\d+)(?<maintenance> going)?".into())));
    let cases = [
        (&header, "HTTP/1.1 200 OK\r\nX-Load: 37%\r\n\r\n", "1 load 37"),
        (&header, "HTTP/1.1 503 OK\r\nX-Load: 5\r\nX-Maintenance: yes\r\n\r\n", "1 load 5 maintenance"),
        (&header, "HTTP/1.1 200 OK\r\nX-Load: 5\r\nX-Maintenance: off\r\n\r\n", "1 load 5"),
        (&header, "HTTP/1.1 200 OK\r\nX-Load: 101\r\n\r\n", "1 up: 1 of 1 answered"),
        (&body, "HTTP/1.1 200 OK\r\n\r\nload=88", "1 load 88"),
        (&body, "HTTP/1.1 200 OK\r\n\r\nload=88 going", "1 load 88 maintenance"),
        (&body, "HTTP/1.1 200 OK\r\n\r\nload=", "1 up: 1 of 1 answered"),
    ];
    for (probe, reply, want) in cases {
        let (reported, _) = web(probe.clone(), reply.as_bytes(), |_| {});
        assert_eq!(reported[0], want, "{reply}");
    }
}

/// A server that answers the first probes and then no more.
fn dies_after(answers: usize) -> impl FnMut(&[u8], &Parsed) -> Vec<Packet> {
    let mut left = answers;
    move |packet, parsed| {
        left = left.saturating_sub(1);
        if left == 0 { vec![] } else { soon(echo_reply(packet, parsed)) }
    }
}

#[test]
fn a_probe_that_times_out_in_a_lapse_is_not_judged_and_the_next_one_is() {
    // When the lapse begins and ends after the probe that times out was sent, in milliseconds, and whether it is judged.
    for (since, until, judged) in [(-300, -100, true), (-300, 0, false), (100, 300, false), (100, 499, false)] {
        let mut sim = Sim::new(&settings(1, "4", vec![fall_1(Probe::Icmp)]));
        let mut count = 0;
        // Only the third probe is lost.
        let mut servers = |packet: &[u8], parsed: &Parsed| {
            count += 1;
            if count == 3 { vec![] } else { soon(echo_reply(packet, parsed)) }
        };
        while sim.sent.len() < 3 {
            sim.run(Duration::from_millis(1), &mut servers);
        }
        let sent = sim.sent[2].0;
        let at = |ms: i64| Instant::from_nanos(sent.as_nanos().saturating_add_signed(ms * 1_000_000));
        sim.health.lapse(at(since), at(until));
        sim.run(Duration::from_millis(600), &mut servers);
        assert_eq!(!sim.reported().is_empty(), judged, "{since} {until}");
        sim.run(secs(3), &mut servers);
        assert!(sim.health.outstanding.is_empty() && sim.sent.len() >= 5);
    }
}

#[test]
fn a_dead_server_goes_down_even_if_packets_are_lost_for_ever() {
    for (lapses, want) in [(false, 3), (true, 6)] {
        let mut sim = Sim::new(&settings(1, "4", vec![MonitorSettings { fall: 3, ..monitor(Probe::Icmp) }]));
        let mut servers = dies_after(4);
        while sim.reported().is_empty() {
            let before = sim.now;
            sim.run(Duration::from_millis(50), &mut servers);
            if lapses {
                sim.health.lapse(before, sim.now);
            }
        }
        assert_eq!(sim.sent.len() - 3, want, "probes that nobody answers");
    }
}

#[test]
fn an_answer_in_a_lapse_counts_and_its_latency_does_not() {
    let mut sim = Sim::new(&settings(1, "4", vec![fall_1(Probe::Icmp)]));
    let mut servers = |packet: &[u8], parsed: &Parsed| {
        vec![(Duration::from_millis(400), echo_reply(packet, parsed), Meta::default())]
    };
    while sim.sent.is_empty() {
        sim.run(Duration::from_millis(1), &mut servers);
    }
    sim.health.lapse(sim.now, sim.now + Duration::from_millis(300));
    sim.run(Duration::from_millis(450), &mut servers);
    assert_eq!(sim.taken, [Taken::Answer]);
    assert_eq!(sim.health.latency(ServerId(0)), None);
    sim.run(secs(1), &mut servers);
    assert_eq!(sim.health.latency(ServerId(0)), Some(Duration::from_millis(400)));
}
