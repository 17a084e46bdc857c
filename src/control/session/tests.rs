mod sticky;

use super::flows::MOST_SORTED;
use super::*;
use crate::balance::{Listen, PoolSettings, ServerSettings, ServiceSettings};
use crate::flow::TableSettings;
use crate::ids::{PoolId, ServerId};
use crate::packet::{Meta, Protocol};
use serde_json::Value;

const NOW: Instant = Instant::from_nanos(90_000_000_000);

/// A UDP service on 192.0.2.80:53 with servers `a` and `b`, and `flows` flows to it.
fn engine(flows: u32) -> Engine {
    let listen = Listen::one("192.0.2.80".parse().unwrap(), Protocol::Udp, 53, 53);
    let server = |name: &str, host: u8| ServerSettings {
        v4: Some([10, 0, 0, host].into()),
        ..ServerSettings::new(name, PoolId(0))
    };
    let settings = Settings {
        table: TableSettings { max_flows: flows.max(1), ..TableSettings::default() },
        services: vec![ServiceSettings::new("dns", vec![listen], PoolId(0))],
        pools: vec![PoolSettings::new("p", vec![ServerId(0), ServerId(1)])],
        servers: vec![server("a", 1), server("b", 2)],
        ..Settings::default()
    };
    let mut engine = Engine::new(&settings);
    for i in 0..flows {
        let [_, x, y, z] = i.to_be_bytes();
        let builder = etherparse::PacketBuilder::ipv4([100, x, y, z], [192, 0, 2, 80], 64).udp(5000, 53);
        let mut packet = Vec::new();
        builder.write(&mut packet, b"hello").unwrap();
        engine.handle_packet(NOW, &mut packet, Meta::default());
    }
    assert_eq!(engine.counters().flows, u64::from(flows));
    engine
}

const WHO: Who = Who { uid: 1000, pid: 4711 };

fn session() -> Session {
    Session::new(Arc::new(About::new(&Settings::default(), Instant::from_nanos(60_000_000_000), 77)), WHO)
}

fn ledger(engine: &Engine) -> Ledger {
    Ledger::new(None, engine.plan().settings().clone())
}

fn poll(session: &mut Session, engine: &mut Engine, out: &mut Vec<u8>) -> Progress {
    let mut ledger = ledger(engine);
    session.poll_output(
        &mut Floor { engine, ledger: &mut ledger, now: NOW, outside: &Outside::default(), pair: None },
        out,
    )
}

/// Runs the session until it is idle or closes; returns its lines, the longest chunk, and the last progress.
fn run(session: &mut Session, engine: &mut Engine) -> (Vec<Value>, usize, Progress) {
    let (mut all, mut longest) = (Vec::new(), 0);
    for _ in 0..100_000 {
        let before = all.len();
        let progress = poll(session, engine, &mut all);
        longest = longest.max(all.len() - before);
        if progress != Progress::More {
            let lines = String::from_utf8(all).unwrap();
            return (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), longest, progress);
        }
    }
    panic!("the session never becomes idle");
}

fn ask(engine: &mut Engine, requests: &str) -> Vec<Value> {
    let mut session = session();
    session.feed(requests.as_bytes());
    let (lines, _, progress) = run(&mut session, engine);
    assert_eq!(progress, Progress::Idle);
    lines
}

#[test]
fn a_full_table_streams_in_small_chunks_with_every_flow_once() {
    let mut engine = engine(20_000);
    let mut session = session();
    session.feed(b"{\"request\":\"flows\"}\n");
    let (lines, longest, progress) = run(&mut session, &mut engine);
    assert_eq!((lines.len(), progress), (20_001, Progress::Idle));
    assert!(longest <= CHUNK, "{longest}");
    let clients: std::collections::HashSet<&str> =
        lines[..20_000].iter().map(|line| line["flow"]["client"].as_str().unwrap()).collect();
    assert_eq!(clients.len(), 20_000);
    assert_eq!(lines[20_000], serde_json::json!({"done": {"rows": 20_000, "more": false}}));
}

#[test]
fn a_limit_cuts_off_and_says_whether_there_was_more() {
    let mut engine = engine(300);
    for (limit, rows, more) in [(0, 0, true), (1, 1, true), (299, 299, true), (300, 300, false), (999, 300, false)] {
        let lines = ask(&mut engine, &format!("{{\"request\":\"flows\",\"limit\":{limit}}}\n"));
        assert_eq!(lines.len(), rows + 1, "limit {limit}");
        assert_eq!(lines[rows], serde_json::json!({"done": {"rows": rows, "more": more}}), "limit {limit}");
    }
}

#[test]
fn a_query_that_matches_nothing_still_ends() {
    let mut engine = engine(20_000);
    let lines = ask(&mut engine, "{\"request\":\"flows\",\"query\":{\"client\":\"203.0.113.0/24\"},\"limit\":1}\n");
    assert_eq!(lines, [serde_json::json!({"done": {"rows": 0, "more": false}})]);
    let lines = ask(&mut engine, "{\"request\":\"flows\",\"query\":{\"client\":\"100.0.1.0/24\",\"server\":\"a\"}}\n");
    assert_eq!(lines.len(), 128 + 1);
}

#[test]
fn requests_in_one_piece_or_byte_by_byte_are_answered_in_order() {
    let mut engine = engine(3);
    let requests = "{\"request\":\"status\"}\n\n{\"request\":\"servers\"}\r\n{\"request\":\"services\"}\n{\"request\":\"counters\"}\n";
    let whole = ask(&mut engine, requests);
    let kinds: Vec<&String> = whole.iter().flat_map(|line| line.as_object().unwrap().keys()).collect();
    let want = ["status", "done", "server", "server", "done", "service", "done", "counters", "done"];
    assert_eq!(kinds, want);
    assert_eq!(whole[0]["status"]["uptime_ms"], 30_000);
    assert_eq!(whole[0]["status"]["protocol"], PROTOCOL);
    assert_eq!(whole[7]["counters"]["engine"]["packets_in"], 3);

    let mut session = session();
    let mut pieces = Vec::new();
    for byte in requests.bytes() {
        session.feed(&[byte]);
        pieces.extend(run(&mut session, &mut engine).0);
    }
    assert_eq!(pieces, whole);
}

#[test]
fn the_status_says_what_is_full_since_when_and_what_gave_way() {
    let mut engine = engine(3);
    let status = |engine: &mut Engine| ask(engine, "{\"request\":\"status\"}\n").remove(0)["status"].take();
    let before = status(&mut engine);
    assert_eq!((&before["flows"], &before["half_open"]), (&3.into(), &0.into()));
    assert_eq!((&before["max_half_open"], &before["pressures"]), (&1_000_000.into(), &serde_json::json!([])));
    // The table has three slots: the fourth flow takes that of the oldest.
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([100, 9, 9, 9], [192, 0, 2, 80], 64)
        .udp(5000, 53)
        .write(&mut packet, b"x")
        .unwrap();
    engine.handle_packet(NOW, &mut packet, Meta::default());
    let row = &status(&mut engine)["pressures"][0];
    assert_eq!((&row["of"], &row["refused"]), (&"table".into(), &0.into()));
    assert_eq!(row["gave_way"][1], serde_json::json!({"kind": "brief", "count": 1}));
    assert_eq!(row["for_ms"], 0);
}

#[test]
fn a_weight_and_a_kill_take_effect_or_say_why_not() {
    let mut engine = engine(3);
    let set = |engine: &mut Engine, name: &str, weight: &str| {
        let object = format!("{{\"kind\":\"server\",\"name\":\"{name}\"}}");
        ask(engine, &format!("{{\"request\":\"set\",\"object\":{object},\"values\":{{\"weight\":\"{weight}\"}}}}\n"))
    };
    for name in ["b", "p/b"] {
        let lines = set(&mut engine, name, "7");
        assert_eq!(lines[0]["changed"]["object"]["name"], "p/b");
        assert_eq!(lines[1], serde_json::json!({"done": {"rows": 1, "more": false}}));
        assert_eq!(engine.servers(NOW).iter().map(|row| row.weight).collect::<Vec<_>>(), [1, 7]);
    }
    for (name, weight, want) in
        [("q/b", "7", "no server q/b"), ("p/b", "65536", "`weight` is out of range: allowed: 0 to 65535")]
    {
        let lines = set(&mut engine, name, weight);
        assert!(lines[0]["error"]["message"].as_str().unwrap().contains(want), "{lines:?}");
    }

    let id = ask(&mut engine, "{\"request\":\"flows\",\"limit\":1}\n")[0]["flow"]["id"].clone();
    let kill = format!("{{\"request\":\"kill\",\"flow\":{id}}}\n");
    let lines = ask(&mut engine, &kill);
    let killed = &lines[0]["killed"];
    assert_eq!((&killed["before"][0]["id"], &killed["after"]), (&id, &serde_json::json!([])));
    assert_eq!(lines[1], serde_json::json!({"done": {"rows": 1, "more": false}}));
    assert_eq!(engine.counters().flows, 2);
    let lines = ask(&mut engine, &kill);
    assert!(lines[0]["error"]["message"].as_str().unwrap().contains("no flow"), "{lines:?}");
}

#[test]
fn what_is_no_request_is_answered_with_an_error_and_the_end() {
    let mut engine = engine(1);
    let long = vec![b'x'; MAX_INPUT + 1];
    let many = "{\"request\":\"status\"}\n".repeat(4_000);
    let deep = "[".repeat(50_000) + "\n";
    for bad in [
        &b"hello\n"[..],
        b"\xff\xfe\n",
        b"{\"request\":\"set\",\"weight\":65536}\n",
        &long,
        many.as_bytes(),
        deep.as_bytes(),
    ] {
        let mut session = session();
        session.feed(bad);
        let (lines, _, progress) = run(&mut session, &mut engine);
        assert_eq!((lines.len(), progress), (1, Progress::Close));
        assert!(lines[0]["error"]["message"].is_string());
        session.feed(b"{\"request\":\"status\"}\n");
        assert_eq!(run(&mut session, &mut engine), (vec![], 0, Progress::Close), "no input is accepted after it");
    }
}

#[test]
fn a_client_that_has_finished_gets_its_answers_before_the_end() {
    let mut engine = engine(200);
    let mut session = session();
    session.feed(b"{\"request\":\"flows\"}\n{\"request\":\"status\"}");
    session.finish();
    let (lines, _, progress) = run(&mut session, &mut engine);
    assert_eq!((lines.len(), progress), (203, Progress::Close));
    assert!(lines[201]["status"].is_object());
}

#[test]
fn a_flow_that_ends_during_the_walk_stops_nothing() {
    let mut engine = engine(1_000);
    let mut session = session();
    session.feed(b"{\"request\":\"flows\"}\n");
    let mut out = Vec::new();
    assert_eq!(poll(&mut session, &mut engine, &mut out), Progress::More);
    engine.handle_timeout(Instant::FAR);
    while engine.poll_timeout().is_some() {
        engine.handle_timeout(Instant::FAR);
    }
    let (lines, _, progress) = run(&mut session, &mut engine);
    assert_eq!((lines.len(), progress), (1, Progress::Idle), "{lines:?}");
}

#[test]
fn a_packet_is_explained_or_refused_with_its_column() {
    let mut engine = engine(1);
    let lines = ask(&mut engine, "{\"request\":\"explain\",\"packet\":\"udp 192.0.2.7:5 -> 192.0.2.80:53\"}\n");
    assert_eq!(lines.len(), 2);
    let explained = &lines[0]["explanation"];
    assert_eq!(explained["packet"], "udp 192.0.2.7:5 -> 192.0.2.80:53");
    assert!(explained["explanation"]["outcome"]["verdict"].is_string(), "{explained}");
    assert_eq!(engine.counters().flows, 1, "nothing changes");

    let mut session = session();
    session.feed(b"{\"request\":\"explain\",\"packet\":\"udp 192.0.2.7:5 192.0.2.80:53\"}\n");
    let (lines, _, progress) = run(&mut session, &mut engine);
    assert_eq!(progress, Progress::Close);
    assert!(lines[0]["error"]["message"].as_str().unwrap().contains("column 17"), "{lines:?}");
}

#[test]
fn a_flow_is_explained_by_its_clients_next_packet() {
    let mut engine = engine(2);
    let id = ask(&mut engine, "{\"request\":\"flows\",\"limit\":1}\n")[0]["flow"]["id"].clone();
    let lines = ask(&mut engine, &format!("{{\"request\":\"explain-flow\",\"flow\":{id}}}\n"));
    assert_eq!(lines[0]["explanation"]["packet"], "udp 100.0.0.0:5000 -> 192.0.2.80:53");
    for unknown in ["99.0", "0.7"] {
        let lines = ask(&mut engine, &format!("{{\"request\":\"explain-flow\",\"flow\":\"{unknown}\"}}\n"));
        let message = lines[0]["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("no flow {unknown}")) && message.contains("eqctl flows"), "{message}");
    }
}

#[test]
fn a_client_is_explained_by_its_flows_and_a_new_flow_to_each_service() {
    // One client has more flows than are listed; the table holds 400.
    let mut engine = engine(400);
    engine.handle_timeout(Instant::FAR);
    while engine.counters().flows > 0 {
        engine.handle_timeout(Instant::FAR);
    }
    for port in 1..=150 {
        let mut packet = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([100, 0, 0, 1], [192, 0, 2, 80], 64).udp(port, 53);
        builder.write(&mut packet, b"hello").unwrap();
        engine.handle_packet(Instant::FAR, &mut packet, Meta::default());
    }
    let lines = ask(&mut engine, "{\"request\":\"explain-client\",\"client\":\"100.0.0.1\"}\n");
    let flows = lines.iter().take_while(|line| line["flow"].is_object()).count();
    let client = &lines[flows]["client"];
    assert_eq!((flows, client), (100, &serde_json::json!({"client": "100.0.0.1", "flows": 150, "listed": 100})));
    assert_eq!(lines[101]["explanation"]["service"], "dns");
    assert_eq!(lines[101]["explanation"]["packet"], "udp 100.0.0.1:40000 -> 192.0.2.80:53");
    assert_eq!(lines[102..], [serde_json::json!({"done": {"rows": 102, "more": true}})]);

    let lines = ask(&mut engine, "{\"request\":\"explain-client\",\"client\":\"2001:db8::7\"}\n");
    assert_eq!(lines[0]["client"], serde_json::json!({"client": "2001:db8::7", "flows": 0, "listed": 0}));
    assert_eq!(lines[1..], [serde_json::json!({"done": {"rows": 1, "more": false}})], "no service has IPv6");
}

#[test]
fn a_filter_narrows_lists_and_names_in_it_are_checked_with_their_place() {
    let mut engine = engine(2_000);
    let count = |engine: &mut Engine, filter: &str| {
        let lines = ask(engine, &format!("{{\"request\":\"flows\",\"filter\":\"{filter}\"}}\n"));
        lines.len() - 1
    };
    for (filter, want) in [
        ("client 100.0.1.0/24", 256),
        ("src net 100.0.1.0/24", 256),
        ("dst net 100.0.1.0/24", 0),
        ("host 192.0.2.80", 2_000),
        ("dst host 10.0.0.1", 1_000),
        ("server a and client 100.0.1.0/24", 128),
        ("server p/a or server p/b", 2_000),
        ("not server p/a", 1_000),
        ("pool p and service dns and udp", 2_000),
        ("dst port 53", 2_000),
        ("src port 53", 0),
        ("state udp-one-way", 2_000),
        ("state established", 0),
        ("tcp", 0),
    ] {
        assert_eq!(count(&mut engine, filter), want, "{filter}");
    }
    for (filter, column, what) in [
        ("udp and service dsn", 17, "did you mean dns?"),
        ("server p/c", 8, "no server p/c"),
        ("pool q", 6, "no pool"),
        ("rule r", 6, "no rule"),
    ] {
        let lines = ask(&mut engine, &format!("{{\"request\":\"flows\",\"filter\":\"{filter}\"}}\n"));
        let message = lines[0]["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("column {column} ")) && message.contains(what), "{message}");
    }
}

/// Sends `n` more packets on the flow of a client.
fn more_packets(engine: &mut Engine, client: u32, n: usize) {
    let [_, x, y, z] = client.to_be_bytes();
    for _ in 0..n {
        let mut packet = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([100, x, y, z], [192, 0, 2, 80], 64).udp(5000, 53);
        builder.write(&mut packet, b"hello again").unwrap();
        engine.handle_packet(NOW, &mut packet, Meta::default());
    }
}

#[test]
fn a_sorted_list_begins_with_the_flows_that_have_most() {
    let mut engine = engine(20_000);
    for (client, packets) in [(19_999, 9), (7, 5), (4_711, 7), (12_345, 3)] {
        more_packets(&mut engine, client, packets);
    }
    for by in ["bytes", "packets"] {
        let lines = ask(&mut engine, &format!("{{\"request\":\"flows\",\"sort\":\"{by}\",\"limit\":3}}\n"));
        let packets: Vec<u64> = lines[..3].iter().map(|line| line["flow"]["packets_in"].as_u64().unwrap()).collect();
        assert_eq!((lines.len(), packets), (4, vec![10, 8, 6]), "{by}");
        assert_eq!(lines[3], serde_json::json!({"done": {"rows": 3, "more": true}}));
    }
    let lines = ask(&mut engine, "{\"request\":\"flows\",\"sort\":\"bytes\",\"filter\":\"client 100.0.0.7\"}\n");
    assert_eq!((lines.len(), &lines[0]["flow"]["packets_in"]), (2, &6.into()));
    assert_eq!(lines[1]["done"]["more"], false);
    let lines = ask(&mut engine, "{\"request\":\"flows\",\"sort\":\"age\"}\n");
    assert_eq!(lines.len() as u64 - 1, MOST_SORTED, "no more than that are kept");
    let lines = ask(&mut engine, "{\"request\":\"flows\",\"sort\":\"idle\",\"limit\":0}\n");
    assert_eq!(lines, [serde_json::json!({"done": {"rows": 0, "more": true}})]);
}

#[test]
fn flows_are_killed_by_filter_and_a_dry_run_says_how_many_it_would_be() {
    let mut engine = engine(2_000);
    let mut kill = |dry_run| {
        let filter = "\"filter\":\"client 100.0.1.0/24 and server a\"";
        let lines = ask(&mut engine, &format!("{{\"request\":\"kill-flows\",{filter},\"dry_run\":{dry_run}}}\n"));
        assert_eq!(lines.len(), 2, "{lines:?}");
        let row = lines[0]["killed"].clone();
        let before = row["before"].as_array().unwrap().len();
        (row["flows"].as_u64().unwrap(), row["changed"].as_bool().unwrap(), before, engine.counters().flows)
    };
    assert_eq!(kill(true), (128, false, 100, 2_000));
    assert_eq!(kill(false), (128, true, 100, 1_872));
    assert_eq!(kill(false), (0, false, 0, 1_872));
}

#[test]
fn what_operators_do_is_in_the_history_with_who_did_it() {
    let mut engine = engine(3);
    let mut ledger = ledger(&engine);
    let mut session = session();
    let mut ask = |engine: &mut Engine, request: &str| -> Vec<Value> {
        session.feed(format!("{request}\n").as_bytes());
        let (mut out, outside) = (Vec::new(), Outside::default());
        loop {
            let mut floor =
                Floor { engine: &mut *engine, ledger: &mut ledger, now: NOW, outside: &outside, pair: None };
            if session.poll_output(&mut floor, &mut out) != Progress::More {
                break;
            }
        }
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    ask(&mut engine, r#"{"request":"kill-flows","filter":"client 100.0.0.1"}"#);
    let load = ask(&mut engine, r#"{"request":"load","server":"b","load":35}"#);
    let changed = &load[0]["changed"];
    assert_eq!((&changed["before"]["load"], &changed["after"]["load"]), (&Value::Null, &35.into()));
    assert_eq!((&changed["object"]["name"], &changed["before"]["weight"]), (&"p/b".into(), &1.into()));
    let dry = r#"{"request":"kill-flows","filter":"udp","dry_run":true}"#;
    ask(&mut engine, dry);
    let events = ask(&mut engine, r#"{"request":"events"}"#);
    let what: Vec<&str> = events[..2].iter().map(|event| event["event"]["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["1 flow killed: client 100.0.0.1", "server p/b: load none -> 35 % (for a minute)"]);
    assert_eq!((events.len(), &events[0]["event"]["uid"], &events[0]["event"]["pid"]), (3, &1000.into(), &4711.into()));
    let news = ask(&mut engine, r#"{"request":"events","after":1}"#);
    assert_eq!((news.len(), &news[0]["event"]["number"]), (2, &2.into()));
    let history = ask(&mut engine, r#"{"request":"history"}"#);
    assert_eq!(history[0]["operation"]["what"], "1 flow killed: client 100.0.0.1");
}
