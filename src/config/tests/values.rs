//! Keys of services, pools, servers, rules and monitors: what they take beyond plain bounds, and what they become.

use crate::balance::{
    Admin, Algorithm, LastResort, OnDown, Passive, Prefixes, Priority, Protocol, ServerSettings, ServiceSettings,
    Stickiness, Tuning,
};
use crate::config::*;
use crate::health::settings::{
    DnsExpect, DnsKind, Expect, Floor, HttpProbe, LoadSource, MonitorSettings, PoolWatch, Probe, ServerWatch,
    WatchedPort,
};
use crate::ids::{PoolId, ServerId, ServiceId};
use crate::policy::{Action, Limits, PolicySettings, RuleSettings};
use crate::state::Health;
use crate::time::Duration;

/// A configuration with lines added to one table, and further tables after it.
fn with(table: &str, lines: &str) -> String {
    let of = |name: &str| if name == table { lines } else { "" };
    format!(
        "{}[gateway]\nprobe-address = ['192.0.2.1', '2001:db8::1']\n\
         [[service]]\nname = 'x'\nlisten = ['192.0.2.80:80/tcp', '192.0.2.80:90-99/udp', '192.0.2.80/icmp']\npool = 'p'\n{}\n\
         [[pool]]\nname = 'p'\n{}\n[[pool.server]]\nname = 's'\naddress = '10.0.0.1'\n{}\n\
         [[pool.server]]\nname = 't'\naddress = ['10.0.0.2', '2001:db8::2']\nport = 8080\n{}\n\
         [[pool]]\nname = 'q'\n[[pool.server]]\nname = 'u'\naddress = '10.0.0.3'\n",
        of("top"),
        of("service"),
        of("pool"),
        of("server"),
        of("end"),
    )
}

fn read(table: &str, lines: &str) -> Settings {
    parse(&with(table, lines), "x.toml").unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn values_are_accepted_up_to_their_limits_and_refused_beyond() {
    let rows: [(&str, &str, &[&str], &[&str]); 31] = [
        ("top", "flows.rate = ", &["1", "4294967295"], &["0", "4294967296", "'1'"]),
        (
            "service",
            "algorithm = 'connection-rate'\nrate-window = ",
            &["'100ms'", "'1h'"],
            &["'99ms'", "'1h 1ms'", "1"],
        ),
        (
            "service",
            "algorithm = 'maglev'\nmaglev-table = ",
            &["3", "16777213"],
            &["2", "4", "16777216", "16777259", "-3"],
        ),
        ("service", "algorithm = 'maglev'\nhash = ", &["'flow'", "'address'", "'network'"], &["'net'", "1"]),
        ("service", "algorithm = 'source-hash'\nhash = ", &["'address'", "'network'"], &["'flow'"]),
        ("service", "sticky.slots = ", &["1", "100_000_000"], &["0", "100_000_001"]),
        ("service", "sticky.idle = ", &["'1ns'", "'30days'"], &["'0s'", "300"]),
        ("service", "sticky = ", &["{}", "{ by = 'connection' }"], &["'address'", "{ by = 'client' }"]),
        ("service", "sticky.by = 'network'\nsticky.ipv4-prefix = ", &["1", "32"], &["0", "33"]),
        ("service", "sticky.by = 'network'\nsticky.ipv6-prefix = ", &["1", "128"], &["0", "129"]),
        ("service", "last-resort-pool = ", &["'q'"], &["'p'", "'r'", "1"]),
        ("pool", "slow-start = ", &["'0s'", "'24h'"], &["'24h 1s'", "0"]),
        (
            "pool",
            "floor = ",
            &["1", "'1%'", "'100%'", "4294967295"],
            &["0", "'0%'", "'101%'", "'5'", "'+5%'", "'%'", "0.5", "-1"],
        ),
        ("pool", "mtu = ", &["1280", "65535"], &["575", "65536", "1279", "'1500'"]),
        ("pool", "passive.failures = ", &["1", "1000"], &["0", "1001"]),
        ("pool", "passive.within = ", &["'100ms'", "'24h'"], &["'99ms'", "'25h'"]),
        ("pool", "passive.hold = '1m'\npassive.longest = ", &["'1m'", "'24h'"], &["'59s'", "'25h'"]),
        ("server", "max-flows = ", &["1", "100_000_000"], &["0", "100_000_001"]),
        ("server", "priority = ", &["1", "65535"], &["0", "65536"]),
        ("server", "state = ", &["'enabled'", "'draining'", "'disabled'"], &["'up'"]),
        (
            "end",
            "[[rule]]\nname = 'r'\naction = 'drop'\nfrom = ",
            &["'10.0.0.1'", "'::/0'", "['::1', '10.0.0.0/8']"],
            &["'10.0.0.1/8'", "[]", "'a'", "1"],
        ),
        (
            "end",
            "[[rule]]\nname = 'r'\naction = 'drop'\nprotocol = 'udp'\nports = ",
            &["1", "65535", "'1-65535'", "[1, '2-3']"],
            &["0", "65536", "'3-2'", "[]", "'+1'"],
        ),
        (
            "end",
            "[[rule]]\nname = 'r'\naction = 'pass'\nto = ",
            &["'192.0.2.81'", "'192.0.2.80/31'", "['192.0.2.80', '192.0.2.81']"],
            &["'192.0.2.80'", "['192.0.2.80']"],
        ),
        ("end", "[[rule]]\nname = 'r'\naction = 'balance'\nclient-rate = ", &["1", "4294967295"], &["0"]),
        ("end", "[[rule]]\nname = 'r'\naction = 'balance'\nflows = ", &["1", "100_000_000"], &["0", "100_000_001"]),
        ("pool", "[[pool.monitor]]\ntype = 'tcp'\ninterval = ", &["'100ms'", "'24h'"], &["'99ms'", "'25h'"]),
        ("pool", "[[pool.monitor]]\ntype = 'tcp'\nsamples = 10\nmax-lost = ", &["0", "9"], &["10", "-1"]),
        (
            "pool",
            "[[pool.monitor]]\ntype = 'tcp'\ntimeout = '1s'\nmax-latency = ",
            &["'999ms'", "'1ms'"],
            &["'1s'", "'0s'"],
        ),
        ("pool", "[[pool.monitor]]\ntype = 'tcp'\njitter = ", &["0", "50"], &["51"]),
        (
            "pool",
            "[[pool.monitor]]\ntype = 'http'\nstatus = ",
            &["100", "999", "'100-999'", "[200, '300-399']"],
            &["99", "1000", "'99'", "'399-300'", "[]"],
        ),
        (
            "pool",
            "[[pool.monitor]]\ntype = 'udp'\npayload-hex = ",
            &["''", "'00'", "'0a FF'"],
            &["'0'", "'0x00'", "'0g'", "1"],
        ),
    ];
    for (table, lines, good, bad) in rows {
        for (values, valid) in [(good, true), (bad, false)] {
            for value in values {
                let text = with(table, &format!("{lines}{value}\n"));
                let got = parse(&text, "x.toml");
                assert_eq!(got.is_ok(), valid, "{lines}{value}: {:?}", got.err().map(|error| error.to_string()));
                if let Err(error) = got {
                    let errors = error.problems().iter().filter(|problem| problem.severity == Severity::Error);
                    let lines: Vec<usize> = errors.map(|problem| problem.line).collect();
                    let (at, last) = lines.split_first().map(|(at, rest)| (*at, rest.len())).unwrap_or_default();
                    assert_eq!(last, 0, "one mistake gives one problem: {error}");
                    assert!(text.lines().nth(at - 1).is_some_and(|line| line.contains(value)), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_service_is_as_written_with_defaults_for_the_rest() {
    let s = Duration::from_secs;
    let sticky = |prefixes, idle, slots| Some(Stickiness { prefixes, idle: s(idle), slots, group: 0 });
    let cases: [(&str, fn(&ServiceSettings) -> bool); 15] = [
        ("", |x| *x == ServiceSettings::new("x", x.listen.clone(), PoolId(0)) && x.listen.len() == 3),
        ("algorithm = 'source-hash'", |x| x.tuning == Tuning { hash: Some(Prefixes::ADDRESS), ..Tuning::default() }),
        ("algorithm = 'maglev'", |x| x.algorithm == Algorithm::Maglev && x.tuning == Tuning::default()),
        ("algorithm = 'maglev'\nhash = 'network'\nhash-ipv6-prefix = 56", |x| {
            x.tuning.hash == Some(Prefixes { v4: 24, v6: 56 })
        }),
        ("algorithm = 'maglev'\nmaglev-table = 655_373", |x| x.tuning.maglev_table == 655_373),
        ("algorithm = 'connection-rate'\nrate-window = '1m'", |x| x.tuning.rate_window.as_secs() == 60),
        ("on-down = 'repick'", |x| x.on_down.is_none()),
        ("on-down = 'keep'", |x| x.on_down == Some(OnDown::Keep)),
        ("on-down = 'reset'", |x| x.on_down == Some(OnDown::Reset)),
        ("last-resort = 'unreachable'", |x| x.last_resort == LastResort::Unreachable),
        ("last-resort-pool = 'q'", |x| x.last_resort == LastResort::Pool(PoolId(1))),
        ("priority = 'low'", |x| x.priority == Priority::Low),
        ("sticky.by = 'connection'", |x| x.sticky.is_none()),
        ("unknown-tcp = 'drop'", |x| x.unknown_tcp == crate::balance::UnknownTcp::Drop),
        ("algorithm = 'maglev'\nunknown-tcp = 'adopt'", |x| x.unknown_tcp == crate::balance::UnknownTcp::Adopt),
    ];
    for (lines, holds) in cases {
        let service = &read("service", lines).services[0];
        assert!(holds(service), "{lines}: {service:?}");
    }
    let network = Prefixes { v4: 24, v6: 64 };
    for (lines, want) in [
        ("sticky = {}", sticky(Prefixes::ADDRESS, 300, 65_536)),
        ("sticky = { by = 'network' }", sticky(network, 300, 65_536)),
        ("sticky = { by = 'network', ipv4-prefix = 20 }", sticky(Prefixes { v4: 20, v6: 64 }, 300, 65_536)),
        ("sticky = { idle = '1h', slots = 9 }", sticky(Prefixes::ADDRESS, 3600, 9)),
    ] {
        assert_eq!(read("service", lines).services[0].sticky, want, "{lines}");
    }
    for algorithm in Algorithm::ALL {
        let lines = format!("algorithm = '{}'", algorithm.name());
        assert_eq!(read("service", &lines).services[0].algorithm, algorithm);
    }
}

#[test]
fn services_of_one_group_share_a_number_and_all_others_have_their_own() {
    let mut text = with("", "");
    for (at, group) in ["", "group = 'b'", "group = 'a'", "group = 'b'", "group = 'a'", ""].iter().enumerate() {
        text += &format!("[[service]]\nname = 'y{at}'\nlisten = '192.0.2.81:{}/tcp'\npool = 'p'\n", at + 1);
        text += &format!("sticky = {{ {group} }}\n");
    }
    let parsed = parse_with_warnings(&text, "x.toml").unwrap_or_else(|error| panic!("{error}"));
    let groups: Vec<u32> = parsed.settings.services.iter().filter_map(|s| Some(s.sticky.as_ref()?.group)).collect();
    assert_eq!(groups, [1, 2, 3, 2, 3, 6]);
    assert!(!parsed.warnings.iter().any(|warning| warning.title.contains("group")));
}

#[test]
fn pools_and_servers_are_as_written_with_defaults_for_the_rest() {
    let s = Duration::from_secs;
    let settings = read("pool", "slow-start = '30s'\nmtu = 1400\n[pool.passive]\nhold = '10m'");
    assert_eq!(settings.pools[0].passive, Some(Passive { hold: s(600), longest: s(600), ..Passive::default() }));
    assert_eq!(settings.servers[1].slow_start, s(30), "from the pool");
    assert_eq!((settings.pools[0].mtu, settings.pools[1].mtu), (Some(1400), None));
    let settings = read("pool", "passive = { longest = '1s' }");
    assert_eq!(settings.pools[0].passive, Some(Passive { hold: s(1), longest: s(1), ..Passive::default() }));
    let lines = "max-flows = 7\nslow-start = '0s'\nbackup = true\npriority = 3\nstate = 'draining'";
    let got = &read("server", lines).servers[0];
    let want = ServerSettings {
        v4: "10.0.0.1".parse().ok(),
        max_flows: Some(7),
        backup: true,
        priority: 3,
        admin: Admin::Draining,
        ..ServerSettings::new("s", PoolId(0))
    };
    assert_eq!(*got, want);
    let plain = read("", "");
    assert_eq!(plain.servers[0], ServerSettings { v4: want.v4, ..ServerSettings::new("s", PoolId(0)) });
    assert_eq!((plain.pools[0].passive.clone(), plain.health.pools.len()), (None, 0));
}

#[test]
fn rules_are_as_written_in_their_order() {
    let text = "[[rule]]\nname = 'a'\nenabled = false\nfrom = ['10.0.0.0/8', '2001:db8::7']\nto = '192.0.2.80'\n\
                protocol = 'tcp'\nports = [80, '90-91']\nsource-ports = '1-9'\ningress = 'eth1'\naction = 'reject'\n\
                [[rule]]\nname = 'b'\ningress = 'eth0'\naction = 'balance'\nservice = 'x'\npriority = 'high'\nrate = 1\n\
                flows = 2\nclient-rate = 3\nclient-flows = 4\nclient-ipv4-prefix = 24\n\
                [[rule]]\nname = 'c'\ningress = 'eth1'\naction = 'balance'\n";
    let net = |text: &str| text.parse().expect("a network");
    let want = PolicySettings {
        rate: Some(9),
        interfaces: vec!["eth1".into(), "eth0".into()],
        rules: vec![
            RuleSettings {
                enabled: false,
                from: vec![net("10.0.0.0/8"), net("2001:db8::7/128")],
                to: vec![net("192.0.2.80/32")],
                protocol: Some(Protocol::Tcp),
                ports: vec![(80, 80), (90, 91)],
                source_ports: vec![(1, 9)],
                ingress: Some(1),
                ..RuleSettings::new("a", Action::Reject)
            },
            RuleSettings {
                ingress: Some(2),
                priority: Some(Priority::High),
                limits: Limits { rate: Some(1), flows: Some(2), client_rate: Some(3), client_flows: Some(4) },
                client: Prefixes { v4: 24, v6: 64 },
                ..RuleSettings::new("b", Action::Balance(Some(ServiceId(0))))
            },
            RuleSettings { ingress: Some(1), ..RuleSettings::new("c", Action::Balance(None)) },
        ],
    };
    let text = format!("flows.rate = 9\n{}", with("end", text));
    assert_eq!(parse(&text, "x.toml").unwrap_or_else(|error| panic!("{error}")).policy, want);
}

#[test]
fn more_rules_than_can_be_numbered_are_refused() {
    let rules = |count: usize| (0..count).map(|at| format!("[[rule]]\nname='{at}'\nprotocol='udp'\naction='drop'\n"));
    for (count, errors) in [(65_534, 0), (65_535, 1)] {
        let got = parse(&with("end", &rules(count).collect::<String>()), "x.toml");
        assert_eq!(
            got.err().map_or(0, |error| error
                .problems()
                .iter()
                .filter(|p| p.title.contains("65,535 [[rule]] tables"))
                .count()),
            errors
        );
    }
}

#[test]
fn monitors_are_as_written_with_defaults_for_the_rest() {
    let http = |change: fn(&mut HttpProbe)| {
        let mut probe = HttpProbe::default();
        change(&mut probe);
        Probe::Http(probe)
    };
    let udp = |payload: &[u8], expect| Probe::Udp { payload: payload.into(), expect };
    let dns = |kind, expect| Probe::Dns { name: "a.example".into(), kind, expect };
    let cases = [
        ("'icmp'", Probe::Icmp),
        ("'tcp'", Probe::Tcp),
        ("'http'", http(|_| ())),
        (
            "'http'\nhost = 'h'\npath = '/p'\nmax-bytes = 9",
            http(|p| {
                (p.host, p.path, p.max_bytes) = ("h".into(), "/p".into(), 9);
            }),
        ),
        (
            "'http'\nheaders = { 'X-B' = '2', 'X-A' = '' }",
            http(|p| {
                p.headers = vec![("X-A".into(), "".into()), ("X-B".into(), "2".into())];
            }),
        ),
        ("'http'\nstatus = [204, '300-399']", http(|p| p.status = vec![(204, 204), (300, 399)])),
        ("'http'\nexpect-regex = 'a+'", http(|p| p.expect = Some(Expect::Regex("a+".into())))),
        (
            "'http'\nload-header = 'L'\nmaintenance-header = 'M'",
            http(|p| {
                p.load = Some(LoadSource::Header { name: "L".into(), maintenance: Some("M".into()) });
            }),
        ),
        ("'http'\nload-regex = '(?<load>1)'", http(|p| p.load = Some(LoadSource::Regex("(?<load>1)".into())))),
        ("'udp'", udp(b"", Expect::Prefix(vec![]))),
        ("'udp'\npayload = 'p'\nexpect-contains = 'c'", udp(b"p", Expect::Contains(b"c".into()))),
        ("'udp'\npayload-hex = '00 fF'\nexpect-prefix = 'c'", udp(b"\x00\xff", Expect::Prefix(b"c".into()))),
        ("'dns'\nquery = 'a.example'", dns(DnsKind::A, None)),
        (
            "'dns'\nquery = 'a.example'\nrecord = 'MX'\nexpect-rcode = 'NXDOMAIN'",
            dns(DnsKind::Mx, Some(DnsExpect::Rcode(3))),
        ),
        ("'dns'\nquery = 'a.example'\nrecord = 'AAAA'\nexpect-address = '::1'", {
            dns(DnsKind::Aaaa, Some(DnsExpect::Address("::1".parse().expect("an address"))))
        }),
    ];
    for (lines, want) in cases {
        let settings = read("pool", &format!("[[pool.monitor]]\nname = 'm'\ntype = {lines}\n"));
        assert_eq!(settings.health.pools[0].monitors, [MonitorSettings::new("m", want)], "{lines}");
    }
    let lines = "[[pool.monitor]]\ntype = 'tcp'\nports = [80, 81]\ninterval = '1s'\ntimeout = '2s'\nsamples = 9\nmax-lost = 8\n\
                 max-latency = '1s'\nfall = 4\nrise = 5\ninitial = 'unknown'\njitter = 0\n";
    let want = MonitorSettings {
        ports: vec![80, 81],
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        samples: 9,
        max_lost: Some(8),
        max_latency: Some(Duration::from_secs(1)),
        fall: 4,
        rise: 5,
        initial: Health::Unknown,
        jitter_percent: 0,
        ..MonitorSettings::new("tcp", Probe::Tcp)
    };
    assert_eq!(read("pool", lines).health.pools[0].monitors, [want], "the default name is the type");
}

#[test]
fn monitored_servers_have_the_ports_at_which_services_reach_them() {
    let end = "[[service]]\nname = 'y'\nlisten = '[2001:db8:80::80]:7/tcp'\npool = 'z'\nlast-resort-pool = 'p'\n\
               [[pool]]\nname = 'z'\n[[pool.server]]\nname = 'v'\naddress = '2001:db8::9'\n";
    let lines = "floor = '50%'\n[[pool.monitor]]\ntype = 'tcp'\n";
    let text = format!("seed = 5\n{}{end}", with("pool", lines));
    let settings = parse(&text, "x.toml").unwrap_or_else(|error| panic!("{error}"));
    let health = &settings.health;
    let sources = (health.source_v4, health.source_v6);
    let both = WatchedPort { port: 8080, tcp: true, udp: true };
    let (http, other) = (WatchedPort::tcp(80), WatchedPort::udp(90));
    assert_eq!((health.seed, sources), (5, ("192.0.2.1".parse().ok(), "2001:db8::1".parse().ok())));
    assert_eq!(settings.clone().with_seed(6).health.seed, 6);
    let servers = vec![
        ServerWatch { server: ServerId(0), v4: "10.0.0.1".parse().ok(), v6: None, ports: vec![http, other] },
        ServerWatch {
            server: ServerId(1),
            v4: "10.0.0.2".parse().ok(),
            v6: "2001:db8::2".parse().ok(),
            ports: vec![both],
        },
    ];
    let monitors = vec![MonitorSettings::new("tcp", Probe::Tcp)];
    assert_eq!(health.pools, [PoolWatch { pool: PoolId(0), monitors, floor: Floor::Percent(50), servers }]);
    assert_eq!(health.problems(), [] as [String; 0]);
    let without = text.replace("port = 8080", "");
    let ports = &parse(&without, "x.toml").expect("valid").health.pools[0].servers;
    assert_eq!(
        (&ports[0].ports, &ports[1].ports),
        (&vec![http, other], &vec![WatchedPort::tcp(7), http, other]),
        "the ports of a service whose last resort it is, in its family"
    );
}
