use super::super::testing;
use super::*;
use crate::balance::{Algorithm, PickedBy};
use crate::engine::FlowRow;
use crate::engine::explain::{FieldLine, TimerLine};
use crate::state::Health;

fn rule(place: u16, name: &str, action: &str, why_not: Option<&str>) -> RuleLine {
    RuleLine {
        place,
        rule: name.into(),
        action: action.into(),
        matches: why_not.is_none(),
        why_not: why_not.map(Into::into),
    }
}

fn candidate(server: &str) -> CandidateLine {
    CandidateLine {
        server: server.into(),
        last_resort: false,
        weight: 1,
        weight_now: 1.0,
        health: Health::Up,
        admin: Admin::Enabled,
        flows: 3,
        max_flows: None,
        out: None,
        score: Some("current weight 2 + 1 = 3".into()),
        chosen: false,
    }
}

fn field(field: &str, from: &str, to: &str) -> FieldLine {
    FieldLine { field: field.into(), from: from.into(), to: to.into() }
}

/// An explanation with every part that a new flow can have.
fn opening() -> Explanation {
    Explanation {
        packet: "TCP 192.0.2.7:4711 -> 203.0.113.10:80 SYN seq=0, 40 bytes".into(),
        outcome: OutcomeRow {
            verdict: "forward".into(),
            reason: None,
            text: "rewritten for a new flow".into(),
            opens: true,
            server: Some("web/web-2".into()),
            picked_by: Some(PickedBy::Algorithm),
            to: Some("10.0.0.2:8080".parse().unwrap()),
        },
        before: vec!["flow 3.0 ends (replaced)".into()],
        rules: vec![
            rule(
                1,
                "no-bogons",
                "drop",
                Some("source 192.0.2.7 is in none of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16"),
            ),
            rule(2, "block", "drop", Some("off")),
            rule(3, "web-clients", "balance", None),
        ],
        service: Some(ServiceLine {
            service: "web".into(),
            found_by: "listen address 203.0.113.10:80/tcp".into(),
            pool: "web".into(),
            algorithm: Algorithm::RoundRobin,
        }),
        limits: vec![
            LimitLine { limit: "client-rate".into(), used: 3, most: 100, total: 100, refuses: false },
            LimitLine { limit: "table".into(), used: 1_200, most: 262_144, total: 262_144, refuses: false },
        ],
        sticky: Some(StickyLine {
            client: "192.0.2.0".parse().unwrap(),
            server: "web/web-1".into(),
            flows: 0,
            age_ms: 65_000,
            holds: false,
            why_not: Some("the server is draining".into()),
        }),
        candidates: vec![
            CandidateLine {
                admin: Admin::Draining,
                out: Some("draining".into()),
                score: None,
                weight: 3,
                weight_now: 3.0,
                ..candidate("web/web-1")
            },
            CandidateLine { chosen: true, weight: 4, weight_now: 0.2, ..candidate("web/web-2") },
            CandidateLine {
                health: Health::Down,
                flows: 12_000,
                max_flows: Some(50_000),
                out: Some("down: 3 of 3 probes of the monitor http timed out after 3 s".into()),
                score: None,
                ..candidate("web/web-3")
            },
            CandidateLine { last_resort: true, ..candidate("sorry/s") },
        ],
        arithmetic: Some(
            "smooth weighted round robin: each weight is added to its server's current weight, and the \
                          largest, web-2 with 3, is reduced by the sum of the weights, 5"
                .into(),
        ),
        rewrite: vec![
            field("destination address", "203.0.113.10", "10.0.0.2"),
            field("destination port", "80", "8080"),
            field("TCP checksum", "0x1234", "0x5678"),
        ],
        timers: vec![TimerLine {
            timer: "tcp-opening".into(),
            ends_in_ms: 240_000,
            from: "restarts: [timeouts]".into(),
        }],
        ..Explanation::default()
    }
}

#[test]
fn a_new_flow_is_explained_section_by_section() {
    let want = "\
packet       TCP 192.0.2.7:4711 -> 203.0.113.10:80 SYN seq=0, 40 bytes
outcome      forward: rewritten for a new flow
             server web/web-2, picked by algorithm, goes on to 10.0.0.2:8080
before that  flow 3.0 ends (replaced)
flow         none: the packet belongs to no flow
rules        1 no-bogons    does not match: source 192.0.2.7 is in none of
                            10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16
             2 block        does not match: off
             3 web-clients  matches: balance
service      web, found by listen address 203.0.113.10:80/tcp
             pool web, algorithm round-robin
limits       client-rate  3 of 100 new flows per second
             table        1,200 of 262,144 flows
stickiness   client 192.0.2.0 was sent to web/web-1 (0 flows, last used 1m05s
             ago) and does not return: the server is draining
candidates
  SERVER       WEIGHT  STATE                    FLOWS  RESULT
  web/web-1         3  up, draining                 3  out: draining
  web/web-2  0.2 of 4  up                           3
      CHOSEN; current weight 2 + 1 = 3
  web/web-3         1  down          12,000 of 50,000
      out: down: 3 of 3 probes of the monitor http timed out after 3 s
  sorry/s           1  up                           3
      last resort; current weight 2 + 1 = 3
";
    let got = explanation_text(&opening());
    assert!(got.starts_with(want), "{got}");
    for part in [
        "arithmetic   smooth weighted round robin: each weight is added to its server's\n             current weight, ",
        "rewrite      destination address  203.0.113.10 -> 10.0.0.2\n             destination port     80 -> 8080\n",
        "timers       tcp-opening  ends in 4m00s, restarts: [timeouts]\n",
        "last resort; current weight",
    ] {
        assert!(got.contains(part), "{part}\n{got}");
    }
    assert!(got.lines().all(|line| line.chars().count() <= 80 && !line.ends_with(' ')), "{got}");
    assert!(!got.contains("\nsends") && !got.contains("\nnotes"), "{got}");
}

#[test]
fn a_packet_of_a_flow_shows_the_flow() {
    let flow = FlowRow { source: Some("10.0.9.1:1024".parse().unwrap()), rule: Some("shop".into()), ..testing::flow() };
    let explanation = Explanation {
        packet: "TCP 198.51.100.9:999 -> 192.0.2.1:80 ACK seq=0 ack=0, 40 bytes".into(),
        outcome: OutcomeRow { verdict: "forward".into(), text: "part of flow 7.0".into(), ..OutcomeRow::default() },
        flow: Some(flow),
        from: Some(Side::Client),
        ..Explanation::default()
    };
    let want = "\
packet       TCP 198.51.100.9:999 -> 192.0.2.1:80 ACK seq=0 ack=0, 40 bytes
outcome      forward: part of flow 7.0
flow         7.0 tcp, established, from the client
             client 198.51.100.9:999 -> 192.0.2.1:80 (service web, rule shop)
             server farm/a at 10.0.0.1:8080 as 10.0.9.1:1024, picked by
             algorithm
             age 1h02m, idle 0.2s, expires in 2h03m
             packets: 1,000 in (1.4 MiB), 7 out (512 B)
";
    assert_eq!(explanation_text(&explanation), want);
}

#[test]
fn a_drop_says_its_reason_and_what_is_sent() {
    let explanation = Explanation {
        packet: "malformed, 3 bytes".into(),
        outcome: OutcomeRow {
            verdict: "drop".into(),
            reason: Some("client-rate".into()),
            text: "limit of new flows per second of its client reached".into(),
            ..OutcomeRow::default()
        },
        limits: vec![LimitLine { limit: "client-rate".into(), used: 1_000, most: 1_000, total: 1_000, refuses: true }],
        sends: vec!["ICMP 203.0.113.10 -> 192.0.2.7 type=3 code=13, 68 bytes".into()],
        notes: vec!["a name\u{1b}[2J".into()],
        ..Explanation::default()
    };
    let want = "\
packet       malformed, 3 bytes
outcome      drop (client-rate): limit of new flows per second of its client
             reached
limits       client-rate  1,000 of 1,000 new flows per second: refuses the flow
sends        ICMP 203.0.113.10 -> 192.0.2.7 type=3 code=13, 68 bytes
notes        a name?[2J
";
    assert_eq!(explanation_text(&explanation), want);
}

#[test]
fn long_words_and_long_names_lose_nothing() {
    let mut explanation = opening();
    explanation.candidates = vec![CandidateLine { chosen: true, ..candidate(&"p".repeat(70)) }];
    explanation.notes = vec!["x".repeat(200)];
    let got = explanation_text(&explanation);
    assert!(
        got.contains(&format!("  {}  ", "p".repeat(70))) && got.contains("\n      CHOSEN; current weight"),
        "{got}"
    );
    assert!(got.contains(&format!("notes        {}\n", "x".repeat(200))), "{got}");
}
