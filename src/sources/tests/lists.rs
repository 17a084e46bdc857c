//! Lists of servers in files.

use super::super::read_list;
use crate::balance::{Admin, ServerSettings};

fn shown(server: &ServerSettings) -> String {
    let ServerSettings { name, v4, v6, port, weight, max_flows, backup, priority, admin, .. } = server;
    let addresses: Vec<String> = v4.iter().map(ToString::to_string).chain(v6.iter().map(ToString::to_string)).collect();
    format!("{name} {} {port:?} {weight} {max_flows:?} {backup} {priority} {admin:?}", addresses.join("+"))
}

#[test]
fn lines_and_json_say_the_same() {
    let lines = "# from the inventory\n10.0.0.1:80\n\n  10.0.0.2   weight=3 state=draining # soon\n[2001:db8::3]:8080 backup priority=2\r\n\
                 2001:db8::4\n10.0.0.5:80 address=[2001:db8::5]:80 name=web-5 max-flows=9 backup=false state=disabled\n";
    let json = r#"[
        "10.0.0.1:80",
        {"address": "10.0.0.2", "weight": 3, "state": "draining"},
        {"address": "2001:db8::3", "port": 8080, "backup": true, "priority": 2},
        {"address": "[2001:db8::4]"},
        {"address": ["10.0.0.5", "2001:db8::5"], "port": 80, "name": "web-5", "max-flows": 9, "state": "disabled"}
    ]"#;
    let want = [
        "10.0.0.1:80 10.0.0.1 Some(80) 1 None false 1 Enabled",
        "10.0.0.2 10.0.0.2 None 3 None false 1 Draining",
        "[2001:db8::3]:8080 2001:db8::3 Some(8080) 1 None true 2 Enabled",
        "2001:db8::4 2001:db8::4 None 1 None false 1 Enabled",
        "web-5 10.0.0.5+2001:db8::5 Some(80) 1 Some(9) false 1 Disabled",
    ];
    let whole = format!("{{\"servers\": {json}}}");
    for text in [lines, json, &whole, &format!("\u{feff}{json}")] {
        let servers = read_list(text.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
        assert_eq!(servers.iter().map(shown).collect::<Vec<_>>(), want, "{text}");
    }
    assert_eq!(Admin::default(), Admin::Enabled);
    for empty in ["", "\n# none\n", "[]", "{\"servers\": []}", " [ ] "] {
        assert_eq!(read_list(empty.as_bytes()), Ok(Vec::new()), "{empty}");
    }
}

#[test]
fn each_mistake_is_said_with_its_line() {
    for (text, want) in [
        ("10.0.0.1:80\nweb-1:80\n", "line 2: \"web-1:80\" is not an address"),
        ("10.0.0.1:99999", "line 1: \"10.0.0.1:99999\" is not an address"),
        ("10.0.0.1:0", "line 1: `port` is out of range"),
        ("[10.0.0.1]:80", "line 1: \"[10.0.0.1]:80\" is not an address"),
        ("10.0.0.1 weight=heavy", "line 1: \"heavy\" is not a number for `weight`"),
        ("10.0.0.1 weight=65536", "line 1: `weight` is out of range: allowed are 0 to 65535"),
        ("10.0.0.1 priority=0", "line 1: `priority` is out of range: allowed are 1 to 65535"),
        ("10.0.0.1 state=on", "line 1: unknown state \"on\": allowed are enabled, draining and disabled"),
        ("10.0.0.1 backup=yes", "line 1: \"yes\" is not a value for `backup`"),
        ("10.0.0.1 name=a/b", "line 1: \"a/b\" is not a name"),
        ("10.0.0.1 port=80", "line 1: unknown key \"port\""),
        ("10.0.0.1 address=10.0.0.2", "line 1: a server has at most one IPv4 and one IPv6 address"),
        ("10.0.0.1 address=2001:db8::1 address=2001:db8::2", "line 1: a third address"),
        ("10.0.0.1:80 address=[2001:db8::1]:81", "line 1: \"[2001:db8::1]:81\" has another port"),
        ("10.0.0.1:80\n10.0.0.2:80\n10.0.0.1:80", "line 3: a second server 10.0.0.1:80, the first is in line 1"),
        (
            "10.0.0.1:80\n10.0.0.1:80 name=x",
            "line 2: a second server with this address and port, the first is in line 1",
        ),
        ("[\"10.0.0.1\",\n", "line 2: not a list of servers"),
        ("{\"hosts\": []}", "line 1: not a list of servers"),
        ("[{\"address\": \"10.0.0.1\", \"wieght\": 1}]", "server 1 of the list: unknown field `wieght`"),
        ("[{\"port\": 1}]", "server 1 of the list: missing field `address`"),
        ("[{\"address\": []}]", "a server needs an address"),
        ("[{\"address\": \"10.0.0.1\", \"port\": -1}]", "server 1 of the list: invalid value"),
    ] {
        let wrong = read_list(text.as_bytes()).expect_err(text).to_string();
        assert!(wrong.starts_with(want), "{text}\n{wrong}\n{want}");
    }
    let wrong = read_list(b"10.0.0.1:80\n\xff\n").expect_err("not text");
    assert_eq!((wrong.line, wrong.text.contains("UTF-8")), (Some(2), true));
}

#[test]
fn a_list_of_any_size_is_bounded() {
    let line = |n: usize| format!("10.{}.{}.{}:80\n", n >> 16, n >> 8 & 255, n & 255);
    let most: String = (0..super::super::MOST_SERVERS).map(line).collect();
    assert_eq!(read_list(most.as_bytes()).map(|servers| servers.len()), Ok(super::super::MOST_SERVERS));
    let more = most + &line(super::super::MOST_SERVERS);
    assert!(read_list(more.as_bytes()).is_err());
    assert!(read_list(&vec![b'\n'; super::super::MOST_BYTES + 1]).is_err());
    // Nested without end: the parser's own limit.
    assert!(read_list("[{\"address\":".repeat(100_000).as_bytes()).is_err());
}
