//! One case for each algorithm, with figures that the choice depends on.

use crate::case::{Case, Shows};
use equipoise::balance::Algorithm;

/// Three servers of weights 1, 2 and 1; the second has a flow, the third is a backup of none.
fn config(algorithm: Algorithm, service: &str, pool: &str) -> String {
    format!(
        r#"
seed = 1
[gateway]
probe-address = "10.0.9.9"
[flows]
max = 100
[[service]]
name = "web"
listen = "192.0.2.80:80/tcp"
pool = "web"
algorithm = "{}"
{service}
[[pool]]
name = "web"
{pool}
[[pool.server]]
name = "web-1"
address = "10.0.2.1"
port = 8080
[[pool.server]]
name = "web-2"
address = "10.0.2.2"
port = 8080
weight = 2
priority = 2
[[pool.server]]
name = "web-3"
address = "10.0.2.3"
port = 8080
priority = 2
"#,
        algorithm.name()
    )
}

pub(crate) fn cases() -> Vec<Case> {
    Algorithm::ALL.into_iter().map(case).collect()
}

fn case(algorithm: Algorithm) -> Case {
    let (service, pool) = match algorithm {
        Algorithm::ConnectionRate => ("rate-window = \"30s\"", ""),
        Algorithm::Maglev => ("maglev-table = 1009\nhash = \"address\"", ""),
        Algorithm::SourceHash => ("hash = \"network\"", ""),
        Algorithm::LeastLatency => ("", "[[pool.monitor]]\ntype = \"icmp\""),
        Algorithm::ResourceUsage => ("", "[[pool.monitor]]\ntype = \"http\"\nload-header = \"X-Load\""),
        _ => ("", ""),
    };
    let mut case = Case::with(Shows::Algorithm(algorithm), &config(algorithm, service, pool)).observing();
    match algorithm {
        Algorithm::LeastLatency => {
            // Echoes of two servers, seen in a capture; the third was not measured.
            for (server, ms) in [(1, 8), (2, 20)] {
                let echo = |from: &str, to: &str, kind| format!("icmp {from} -> {to} {kind} id 7 seq {server}");
                let (probe, server) = ("10.0.9.9", format!("10.0.2.{server}"));
                case = case.packet(&echo(probe, &server, "")).wait(ms).packet(&echo(&server, probe, "reply"));
            }
        }
        Algorithm::ResourceUsage => {
            case = case.event("server web/web-1 load 40").event("server web/web-2 load 35");
            case = case.event("server web/web-3 load 80");
        }
        _ => {}
    }
    for port in 1..=5 {
        case = case.packet(&format!("tcp 198.51.100.{port}:40000 -> 192.0.2.80:80"));
    }
    case.packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80")
}
