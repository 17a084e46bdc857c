//! What a request asks for.

use super::metrics::Format;
use super::page::Asset;
use super::request::{Method, Request, decoded};
use crate::control::{self, FlowQuery, Kind, Protocol, SortBy, Target};
use serde::Deserialize;
use std::fmt::Display;
use std::str::FromStr;

/// Flows that are listed unless another number is asked for.
const FLOWS: u64 = 1000;
/// Most flows that can be asked for; `eqctl flows` has no limit.
pub const MOST_FLOWS: u64 = 10_000;

/// The tables of [`control::Snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// `eqctl status`.
    Status,
    /// `eqctl counters`.
    Counters,
    /// `eqctl services`.
    Services,
    /// `eqctl servers`.
    Servers,
    /// `eqctl rules`.
    Rules,
    /// `eqctl nat`.
    Nat,
    /// `eqctl sources`.
    Sources,
    /// `eqctl monitors`.
    Monitors,
    /// `eqctl history`.
    History,
}

/// The tables by the last part of their paths.
pub const TABLES: [(&str, Table); 9] = [
    ("status", Table::Status),
    ("counters", Table::Counters),
    ("services", Table::Services),
    ("servers", Table::Servers),
    ("rules", Table::Rules),
    ("nat", Table::Nat),
    ("sources", Table::Sources),
    ("monitors", Table::Monitors),
    ("history", Table::History),
];

/// What is made of what the loop gathers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// Whether the loop answers.
    Health,
    /// Whether the gateway does its work.
    Ready,
    /// The metrics.
    Metrics(Format),
    /// A table.
    Table(Table),
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    /// A part of the page.
    Asset(&'static Asset),
    /// What the reasons for drops mean.
    Words,
    /// What the loop gathers.
    View(View),
    /// Rows that the loop is asked for by the control protocol; `is_change` needs the token.
    Ask {
        /// The request.
        request: Box<control::Request>,
        /// Whether it changes something.
        is_change: bool,
    },
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unroutable {
    /// Nothing is there.
    Unknown,
    /// It takes only these methods.
    Method(&'static str),
    /// The query or the body is wrong, as the message says.
    Wrong(String),
}

/// A change of a server, as the body of a request has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    state: Word,
    #[serde(default, deserialize_with = "control::or_null")]
    deadline_ms: Option<Option<u64>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Enabled,
    Draining,
    Disabled,
}

impl Route {
    /// Finds what a request asks for.
    ///
    /// # Errors
    /// Why it asks for nothing that there is.
    pub fn of(request: &Request) -> Result<Route, Unroutable> {
        let path = request.path.as_str();
        if let Some(server) = path.strip_prefix("/api/servers/") {
            return match request.method {
                Method::Post => change(server, &request.body),
                _ => Err(Unroutable::Method("POST")),
            };
        }
        let found = find(path, request)?;
        match request.method {
            Method::Get | Method::Head => Ok(found),
            Method::Post | Method::Other => Err(Unroutable::Method("GET, HEAD")),
        }
    }
}

fn find(path: &str, request: &Request) -> Result<Route, Unroutable> {
    if let Some(asset) = Asset::at(path) {
        return Ok(Route::Asset(asset));
    }
    let ask = |request| Ok(Route::Ask { request: Box::new(request), is_change: false });
    match path {
        "/metrics" => Ok(Route::View(View::Metrics(Format::accepted(request.accept.as_deref())))),
        "/healthz" => Ok(Route::View(View::Health)),
        "/readyz" => Ok(Route::View(View::Ready)),
        "/api/words" => Ok(Route::Words),
        "/api/flows" => flows(request),
        "/api/explain" => explain(request),
        "/api/pools" => ask(control::Request::Pools),
        "/api/changes" => ask(control::Request::Changes),
        _ => {
            let name = path.strip_prefix("/api/").ok_or(Unroutable::Unknown)?;
            let table = TABLES.iter().find(|(known, _)| *known == name).ok_or(Unroutable::Unknown)?;
            Ok(Route::View(View::Table(table.1)))
        }
    }
}

/// Reads the values of a query, of which each key may be there once, and none other.
fn values<const N: usize>(request: &Request, keys: [&str; N]) -> Result<[Option<String>; N], Unroutable> {
    let mut values = [const { None }; N];
    for (key, value) in &request.query {
        let place = keys.iter().position(|known| known == key);
        let place = place.ok_or_else(|| Unroutable::Wrong(format!("unknown key {key:?}; use {}", keys.join(", "))))?;
        if values[place].replace(value.clone()).is_some() {
            return Err(Unroutable::Wrong(format!("{key} is there twice")));
        }
    }
    Ok(values)
}

fn parsed<T: FromStr<Err: Display>>(key: &str, value: Option<&String>) -> Result<Option<T>, Unroutable> {
    let wrong = |error: T::Err| Unroutable::Wrong(format!("{key}: {error}"));
    value.map(|value| value.parse().map_err(wrong)).transpose()
}

fn flows(request: &Request) -> Result<Route, Unroutable> {
    let [service, server, client, protocol, filter, sort, limit] =
        values(request, ["service", "server", "client", "protocol", "filter", "sort", "limit"])?;
    let limit: u64 = parsed("limit", limit.as_ref())?.unwrap_or(FLOWS);
    if limit > MOST_FLOWS {
        return Err(Unroutable::Wrong(format!("at most {MOST_FLOWS} flows; `eqctl flows` has no limit")));
    }
    // An address alone is the network of it.
    let client = client.map(|text| if text.contains('/') { text } else { alone(&text) });
    let query = FlowQuery {
        service,
        server,
        client: parsed("client", client.as_ref())?,
        protocol: protocol.map(|name| protocol_of(&name)).transpose()?,
        ..FlowQuery::default()
    };
    let filter = parsed("filter", filter.as_ref())?;
    let sort = sort.map(|name| sort_by(&name)).transpose()?;
    let asked = control::Request::Flows { query, filter, sort, limit: Some(limit) };
    Ok(Route::Ask { request: Box::new(asked), is_change: false })
}

fn sort_by(name: &str) -> Result<SortBy, Unroutable> {
    let found = SortBy::ALL.into_iter().find(|by| by.name() == name);
    found.ok_or_else(|| Unroutable::Wrong(format!("sort: use {}", SortBy::ALL.map(SortBy::name).join(", "))))
}

fn protocol_of(name: &str) -> Result<Protocol, Unroutable> {
    let known = Protocol::from_name(&name.to_ascii_lowercase());
    known.ok_or_else(|| Unroutable::Wrong("protocol: use tcp, udp, icmp, sctp or a name such as ip-89".into()))
}

fn alone(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}

fn explain(request: &Request) -> Result<Route, Unroutable> {
    let [packet, client, flow] = values(request, ["packet", "client", "flow"])?;
    let asked = match (&packet, &client, &flow) {
        (Some(_), None, None) => parsed("packet", packet.as_ref())?.map(|packet| control::Request::Explain { packet }),
        (None, Some(_), None) => {
            parsed("client", client.as_ref())?.map(|client| control::Request::ExplainClient { client })
        }
        (None, None, Some(_)) => parsed("flow", flow.as_ref())?.map(|flow| control::Request::ExplainFlow { flow }),
        _ => None,
    };
    let asked = asked.ok_or_else(|| {
        Unroutable::Wrong("use one of packet=tcp 192.0.2.7:4711 -> 203.0.113.10:80, client=192.0.2.7, flow=7.0".into())
    })?;
    Ok(Route::Ask { request: Box::new(asked), is_change: false })
}

/// Reads `{"state":"draining","deadline_ms":60000}` for a server, `POOL/SERVER`.
fn change(server: &str, body: &[u8]) -> Result<Route, Unroutable> {
    let name = decoded(server).filter(|name| {
        let parts = name.split_once('/');
        parts.is_some_and(|(pool, server)| !pool.is_empty() && !server.is_empty() && !server.contains('/'))
    });
    let name = name.ok_or(Unroutable::Unknown)?;
    let state: State = serde_json::from_slice(body).map_err(|error| {
        Unroutable::Wrong(format!("the body is not a change such as {{\"state\":\"draining\"}}: {error}"))
    })?;
    let word = match state.state {
        Word::Enabled => "enabled",
        Word::Draining => "draining",
        Word::Disabled => "disabled",
    };
    if state.deadline_ms.is_some() && word != "draining" {
        return Err(Unroutable::Wrong("only draining has a deadline".into()));
    }
    let request = control::Request::Set {
        object: Target::new(Kind::Server, name),
        values: [("state".to_owned(), Some(format!("\"{word}\"")))].into(),
        deadline_ms: state.deadline_ms,
    };
    Ok(Route::Ask { request: Box::new(request), is_change: true })
}

#[cfg(test)]
mod tests {
    use super::super::request::{Read, read};
    use super::*;

    fn route(line: &str) -> Result<Route, Unroutable> {
        let (line, body) = line.split_once(" | ").unwrap_or((line, ""));
        let (method, target) = line.split_once(' ').unwrap();
        let len = body.len();
        let text = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}");
        match read(text.as_bytes()) {
            Read::Whole(request, _) => Route::of(&request),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn asked(line: &str) -> (String, bool) {
        match route(line) {
            Ok(Route::Ask { request, is_change }) => (serde_json::to_string(&*request).unwrap(), is_change),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn paths_lead_to_what_they_name() {
        assert_eq!(route("GET /healthz"), Ok(Route::View(View::Health)));
        assert_eq!(route("HEAD /readyz"), Ok(Route::View(View::Ready)));
        assert!(matches!(route("GET /"), Ok(Route::Asset(_))));
        assert_eq!(route("GET /api/words"), Ok(Route::Words));
        assert_eq!(route("GET /metrics"), Ok(Route::View(View::Metrics(Format::Text))));
        for (name, table) in TABLES {
            assert_eq!(route(&format!("GET /api/{name}")), Ok(Route::View(View::Table(table))));
        }
        for line in ["GET /x", "GET /api", "GET /api/", "GET /api/file", "GET /api/status/", "GET //", "GET /metrics/"]
        {
            assert_eq!(route(line), Err(Unroutable::Unknown), "{line}");
        }
    }

    #[test]
    fn queries_become_requests_of_the_control_protocol() {
        for (line, want) in [
            ("/api/flows", r#"{"request":"flows","query":{},"limit":1000}"#),
            (
                "/api/flows?service=web&client=192.0.2.7&limit=5",
                r#"{"request":"flows","query":{"service":"web","client":"192.0.2.7/32"},"limit":5}"#,
            ),
            (
                "/api/flows?client=2001:db8::/32&protocol=udp&server=web/a",
                r#"{"request":"flows","query":{"server":"web/a","client":"2001:db8::/32","protocol":"udp"},"limit":1000}"#,
            ),
            ("/api/explain?client=192.0.2.7", r#"{"request":"explain-client","client":"192.0.2.7"}"#),
            ("/api/explain?flow=7.0", r#"{"request":"explain-flow","flow":"7.0"}"#),
            (
                "/api/explain?packet=udp%20192.0.2.7:5%20-%3E%20192.0.2.80:53",
                r#"{"request":"explain","packet":"udp 192.0.2.7:5 -> 192.0.2.80:53"}"#,
            ),
            ("/api/pools", r#"{"request":"pools"}"#),
            ("/api/changes", r#"{"request":"changes"}"#),
        ] {
            assert_eq!(asked(&format!("GET {line}")), (want.into(), false));
        }
        for (line, says) in [
            ("/api/flows?limit=10001", "at most 10000"),
            ("/api/flows?limit=-1", "limit: "),
            ("/api/flows?client=x", "client: "),
            ("/api/flows?a=1", "unknown key \"a\"; use service"),
            ("/api/flows?service=a&service=b", "twice"),
            ("/api/explain", "use one of"),
            ("/api/explain?client=192.0.2.7&flow=7.0", "use one of"),
            ("/api/explain?packet=tcp", "packet: "),
        ] {
            let got = route(&format!("GET {line}"));
            assert!(matches!(&got, Err(Unroutable::Wrong(why)) if why.contains(says)), "{line}: {got:?}");
        }
    }

    #[test]
    fn nothing_changes_by_a_get_and_only_the_state_of_a_server_by_a_post() {
        let drain = r#"POST /api/servers/web/web-1 | {"state":"draining","deadline_ms":60000}"#;
        let want = r#"{"request":"set","object":{"kind":"server","name":"web/web-1"},"values":{"state":"\"draining\""},"deadline_ms":60000}"#;
        assert_eq!(asked(drain), (want.into(), true));
        let (never, want) = (drain.replace("60000", "null"), want.replace("60000", "null"));
        assert_eq!(asked(&never), (want, true), "a deadline is removed");
        let (kept, _) = asked(&drain.replace(",\"deadline_ms\":60000", ""));
        assert!(!kept.contains("deadline_ms"), "{kept}");
        for state in ["enabled", "disabled"] {
            let (text, is_change) = asked(&format!("POST /api/servers/web/a%2d1 | {{\"state\":\"{state}\"}}"));
            assert!(
                is_change && text.contains(&format!(r#""state":"\"{state}\"""#)) && text.contains("web/a-1"),
                "{text}"
            );
        }
        for line in ["GET /api/servers/web/web-1", "PUT /api/servers/web/web-1", "DELETE /api/servers/a/b"] {
            assert_eq!(route(line), Err(Unroutable::Method("POST")), "{line}");
        }
        for line in ["POST /", "POST /metrics", "POST /api/servers", "POST /api/flows", "PUT /healthz"] {
            assert_eq!(route(line), Err(Unroutable::Method("GET, HEAD")), "{line}");
        }
        for body in [
            "",
            "{}",
            "[]",
            r#"{"state":"up"}"#,
            r#"{"state":"enabled","x":1}"#,
            r#"{"state":"enabled","deadline_ms":5}"#,
            r#"{"state":"enabled","deadline_ms":null}"#,
        ] {
            let got = route(&format!("POST /api/servers/web/web-1 | {body}"));
            assert!(matches!(got, Err(Unroutable::Wrong(_))), "{body}: {got:?}");
        }
        for name in ["web", "web/", "/a", "web/a/b", "%ff/a"] {
            let got = route(&format!(r#"POST /api/servers/{name} | {{"state":"enabled"}}"#));
            assert_eq!(got, Err(Unroutable::Unknown), "{name}");
        }
    }
}
