//! Servers from outside among those of the file.

use crate::balance::{Admin, ServerSettings};
use crate::config::{Parsed, parse_with_warnings};
use crate::ids::PoolId;
use crate::sources::{Found, From};
use std::sync::Arc;

const FILE: &str = "[gateway]\nprobe-address = '192.0.2.1'\naddresses = '10.9.9.9/24'\n\
    [[service]]\nname = 'x'\nlisten = '192.0.2.80:80/tcp'\npool = 'web'\n\
    [[pool]]\nname = 'web'\nservers-file = '/list'\nslow-start = '7s'\n\
    server = [{ name = 'own', address = '10.0.0.1', port = 80 }]\n[[pool.monitor]]\ntype = 'tcp'\n";

fn parsed(text: &str) -> Parsed {
    parse_with_warnings(text, "x.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn server(name: &str, address: &str, port: u16) -> ServerSettings {
    let server = ServerSettings { port: Some(port), ..ServerSettings::new(name, PoolId(0)) };
    server.with_addresses([address.parse().expect("an address")])
}

fn found(servers: &[ServerSettings]) -> Found {
    [("web".to_owned(), Arc::new(servers.to_vec()))].into()
}

#[test]
fn servers_from_outside_are_like_those_of_the_file() {
    let parsed = parsed(FILE);
    assert_eq!(parsed.settings.sources[0].from, From::File("/list".into()));
    assert_eq!(parsed.settings.sources[0].families, [true, false]);
    let mut other = server("10.0.0.2:8080", "10.0.0.2", 8080);
    (other.weight, other.backup, other.priority, other.admin) = (3, true, 2, Admin::Draining);
    other.max_flows = Some(9);
    let (with, left_out) = parsed.with_servers(&found(&[other.clone()])).expect("valid");
    assert!(left_out.is_empty());
    let servers = &with.settings.servers;
    assert_eq!(servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["own", "10.0.0.2:8080"]);
    let slow_start = servers[0].slow_start;
    assert_eq!(servers[1], ServerSettings { slow_start, ..other });
    assert_eq!(with.settings.health.pools[0].servers.len(), 2, "it is monitored");
    // And back.
    assert_eq!(with.by_itself().expect("valid").settings, parsed.settings);
    assert_eq!(with.with_servers(&Found::new()).expect("valid").0.settings, parsed.settings);
}

#[test]
fn what_cannot_be_used_is_left_out_with_its_reason() {
    let all = [
        server("a", "127.0.0.1", 80),
        server("b", "192.0.2.80", 80),
        server("c", "192.0.2.1", 80),
        server("d", "10.9.9.9", 80),
        server("e", "10.0.0.1", 80),
        server("f", "2001:db8::1", 80),
        server("own", "10.0.0.7", 80),
        server("good", "10.0.0.8", 80),
        server("10.0.0.1:81", "10.0.0.1", 81),
    ];
    let (with, left_out) = parsed(FILE).with_servers(&found(&all)).expect("valid");
    let want = [
        "a: 127.0.0.1 cannot be a server address: it is a loopback address, which never leaves its host",
        "b: 192.0.2.80 is a service address",
        "c: 192.0.2.1 is an address of this gateway",
        "d: 10.9.9.9 is an address of this gateway",
        "e: the configuration file has it as own",
        "f: no service of the pool reaches its address family",
        "own: the configuration file has a server of that name",
    ];
    assert_eq!(left_out["web"], want);
    assert_eq!(with.settings.servers.len(), 3);
    // Of two addresses, the one that nobody reaches is dropped.
    let mut both = server("both", "10.0.0.9", 80);
    both.v6 = Some("2001:db8::9".parse().expect("an address"));
    let (with, left_out) = parsed(FILE).with_servers(&found(&[both])).expect("valid");
    assert!(left_out.is_empty() && with.settings.servers[1].v6.is_none());
}

#[test]
fn a_list_with_which_the_file_is_wrong_is_refused_at_the_key_of_its_source() {
    let text = FILE.replace("pool = 'web'", "pool = 'web'\nalgorithm = 'maglev'\nmaglev-table = 11");
    let many: Vec<_> = (1..=12).map(|n| server(&format!("s{n}"), &format!("10.0.1.{n}"), 80)).collect();
    let error = parsed(&text).with_servers(&found(&many)).expect_err("12 servers, 11 entries").to_string();
    assert!(error.contains("a Maglev table of 11 entries is too small for the 13 servers"), "{error}");
    // Names from a driver that does not keep its promise: the checks of the file apply, at the key of the source.
    let error = parsed(FILE).with_servers(&found(&[server("a b", "10.0.0.2", 80)])).expect_err("a space");
    assert_eq!((error.problems()[0].line, error.problems()[0].excerpt.as_str()), (10, "'/list'"), "{error}");
}

#[test]
fn a_pool_with_a_source_needs_no_server_and_its_monitors_need_a_source_address() {
    let bare = FILE.replace("server = [{ name = 'own', address = '10.0.0.1', port = 80 }]\n", "");
    assert!(parsed(&bare).settings.servers.is_empty());
    let error =
        parse_with_warnings(&bare.replace("probe-address = '192.0.2.1'\n", ""), "x.toml").expect_err("no source");
    assert!(error.to_string().contains("IPv4 probes of this monitor have no source address"), "{error}");
    let dns = bare.replace("servers-file = '/list'", "servers-dns = 'web.example'\nservers-port = 8080");
    let from = From::Addresses { name: "web.example".into(), port: Some(8080) };
    assert_eq!(parsed(&dns).settings.sources[0].from, from);
}

#[test]
fn families_follow_from_the_services_of_a_pool() {
    for (service, want) in [
        ("listen = '[2001:db8::80]:80/tcp'\n", [false, true]),
        ("listen = ['192.0.2.80:80/tcp', '[2001:db8::80]:80/tcp']\n", [true, true]),
        ("listen = '[2001:db8::80]:80/tcp'\nnat = 'full'\nnat-pool = 'n'\n", [true, false]),
    ] {
        let text = format!(
            "[[nat-pool]]\nname = 'n'\naddresses = '10.0.9.1'\n[[service]]\nname = 'x'\n{service}pool = 'web'\n\
             [[pool]]\nname = 'web'\nservers-dns = '_web._tcp.example'\n"
        );
        assert_eq!(parsed(&text).settings.sources[0].families, want, "{text}");
    }
}
