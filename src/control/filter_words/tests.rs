use super::*;
use crate::balance::Protocol;
use crate::engine::Ends;
use crate::flow::TimeoutState;

fn read(text: &str) -> Filter {
    text.parse::<FilterWords>().unwrap_or_else(|error| panic!("{error}")).filter
}

fn net(ends: Ends, text: &str) -> Filter {
    Filter::Net(ends, text.parse().unwrap())
}

fn port(port: u16) -> Filter {
    Filter::Ports(Ends::All, port, port)
}

#[test]
fn each_word_is_read() {
    let not = |filter| Filter::Not(Box::new(filter));
    for (text, want) in [
        ("host 192.0.2.7", net(Ends::All, "192.0.2.7/32")),
        ("src host 2001:db8::7", net(Ends::Source, "2001:db8::7/128")),
        ("dst 192.0.2.7", net(Ends::Destination, "192.0.2.7/32")),
        ("src 192.0.2.0/24", net(Ends::Source, "192.0.2.0/24")),
        ("dst net 2001:db8::/32", net(Ends::Destination, "2001:db8::/32")),
        ("client 192.0.2.7", Filter::Client("192.0.2.7/32".parse().unwrap())),
        ("port 443", port(443)),
        ("src portrange 8000-8099", Filter::Ports(Ends::Source, 8000, 8099)),
        ("port 8000-8099", Filter::Ports(Ends::All, 8000, 8099)),
        ("service web", Filter::Service("web".into())),
        ("server web/a", Filter::Server("web/a".into())),
        ("pool web", Filter::Pool("web".into())),
        ("rule shop", Filter::Rule("shop".into())),
        ("proto gre", Filter::Protocol(Protocol::Ip(47))),
        ("icmp6", Filter::Protocol(Protocol::Icmp)),
        ("state established", Filter::State(TimeoutState::Established)),
        ("tcp port 80", Filter::And(vec![Filter::Protocol(Protocol::Tcp), port(80)])),
        ("port 80 or 443", Filter::Or(vec![port(80), port(443)])),
        ("not port 80", not(port(80))),
        ("!!port 80", not(not(port(80)))),
        ("tcp && ! (port 80 || port 443)", {
            Filter::And(vec![Filter::Protocol(Protocol::Tcp), not(Filter::Or(vec![port(80), port(443)]))])
        }),
        ("port 1 and port 2 and port 3", Filter::And(vec![port(1), port(2), port(3)])),
        ("(port 1)", port(1)),
    ] {
        assert_eq!(read(text), want, "{text}");
    }
}

#[test]
fn an_error_says_where_and_what_to_do() {
    for (text, column, what) in [
        ("", 1, "a condition is missing"),
        ("host", 5, "the value after `host` is missing"),
        ("host 192.0.2.0/24", 6, "a network: write net before it"),
        ("net 192.0.2.7/24", 5, "did you mean 192.0.2.0/24?"),
        ("net 192.0.2.7", 5, "an address: write host before it"),
        ("port http", 6, "not a port"),
        ("port 80-8", 6, "not a port"),
        ("port +80", 6, "not a port"),
        ("192.0.2.7", 1, "write host before an address"),
        ("443", 1, "write port before a port"),
        ("prot tcp", 1, "did you mean"),
        ("src service web", 5, "`src` needs host, net, port or portrange"),
        ("tcp and (port 80", 17, "the closing parenthesis is missing"),
        ("tcp)", 4, "a closing parenthesis without an opening one"),
        ("tcp udp", 5, "where `and`, `or` or the end should be"),
        ("tcp and", 8, "a condition is missing"),
        ("tcp or udp and port 53", 12, "say with parentheses"),
        ("state open", 7, "not a state: use opening, established"),
        ("port 80 or tpc", 12, "not a port"),
    ] {
        let error = text.parse::<FilterWords>().unwrap_err();
        assert!(error.column == column && error.what.contains(what), "{text:?}: {error}");
        let shown = error.to_string();
        let mark = shown.lines().last().unwrap().chars().count();
        assert_eq!(mark, 2 + column, "the mark is below the place:\n{shown}");
    }
    let deep = "(".repeat(1000) + "tcp";
    assert!(deep.parse::<FilterWords>().unwrap_err().what.contains("within each other"));
    assert!("x".repeat(5000).parse::<FilterWords>().unwrap_err().what.contains("longer than"));
    assert!(
        "tcp\u{1b}[2J".parse::<FilterWords>().unwrap_err().to_string().lines().all(|line| !line.contains('\u{1b}'))
    );
}

#[test]
fn a_filter_travels_as_its_words() {
    let words: FilterWords = "tcp port 80".parse().unwrap();
    assert_eq!(serde_json::to_string(&words).unwrap(), "\"tcp port 80\"");
    assert_eq!(serde_json::from_str::<FilterWords>("\"tcp port 80\"").unwrap(), words);
    assert!(serde_json::from_str::<FilterWords>("\"tcp prt 80\"").is_err());
}
