//! `equipoise import` against what ipvsadm, keepalived and the kernel themselves report of the same files.
//!
//! Each file of `fixtures/import` has beside it `NAME.reported`, which `tools/import-oracle` asks the real programs for;
//! and `NAME.toml` and `NAME.notes`, which `BLESS=1` writes. Whatever is reported is in the configuration, equal in each
//! figure, or its line is among the notes.

use super::{eqctl, equipoise, stderr, stdout};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Table;

const PROBES: [&str; 4] = ["--probe-address", "192.0.2.1", "--probe-address", "2001:db8:80::1"];

/// A virtual service as `ipvsadm -Sn` reports it.
#[derive(Debug, Default)]
struct Reported {
    listen: String,
    scheduler: String,
    flags: String,
    persistence: Option<u64>,
    mask: Option<String>,
    /// Address and port, method, weight.
    servers: Vec<(String, String, u64)>,
}

/// A check as `keepalived --dump-conf` reports it.
#[derive(Debug, Default, Clone)]
struct Checker {
    listen: String,
    server: String,
    method: String,
    interval_ms: u64,
    timeout_ms: u64,
    retries: u64,
    port: String,
    codes: Vec<String>,
}

fn value<'l>(words: &[&'l str], option: &str) -> Option<&'l str> {
    words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1)).copied()
}

fn services(text: &str) -> Vec<Reported> {
    let mut found: Vec<Reported> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let protocol = [("-t", "tcp"), ("-u", "udp"), ("--sctp-service", "sctp")];
        let listen = protocol.iter().find_map(|(option, name)| Some(format!("{}/{name}", value(&words, option)?)));
        let listen = listen.unwrap_or_else(|| format!("fwmark {}", value(&words, "-f").unwrap_or_default()));
        match words.first() {
            Some(&"-A") => found.push(Reported {
                listen,
                scheduler: value(&words, "-s").unwrap_or_default().into(),
                flags: value(&words, "-b").unwrap_or_default().into(),
                persistence: value(&words, "-p").map(|seconds| seconds.parse().unwrap()),
                mask: value(&words, "-M").map(Into::into),
                servers: Vec::new(),
            }),
            Some(&"-a") => {
                let of = found.iter_mut().find(|service| service.listen == listen).expect("its service");
                let method = ["-m", "-g", "-i"].iter().find(|method| words.contains(method)).unwrap();
                let weight = value(&words, "-w").unwrap().parse().unwrap();
                of.servers.push((value(&words, "-r").unwrap().into(), (*method).into(), weight));
            }
            _ => {}
        }
    }
    for service in found.iter_mut().filter(|service| service.servers.is_empty()) {
        service.servers = of_dump(text, &service.listen);
    }
    found
}

/// The servers of a virtual server that are not in the kernel yet, as `alpha` has it, from the dump of the configuration.
fn of_dump(text: &str, listen: &str) -> Vec<(String, String, u64)> {
    let (end, _) = listen.rsplit_once('/').unwrap_or((listen, ""));
    let (address, port) = end.rsplit_once(':').unwrap_or((end, ""));
    let mark = format!("VS VIP = {address}, VPORT = {port}\n");
    let Some((_, rest)) = text.split_once(&mark) else { return Vec::new() };
    let own = rest.split("< Virtual server >").next().unwrap_or_default();
    let mut servers = Vec::new();
    for line in own.lines().map(str::trim) {
        if let Some(server) = line.strip_prefix("RIP = ") {
            let words: Vec<&str> = server.split([',', ' ']).collect();
            let of = |name: &str| {
                let at = words.iter().position(|word| *word == name).unwrap();
                words[at + 2].to_owned()
            };
            servers.push((format!("{}:{}", words[0], of("RPORT")), "-m".to_owned(), of("WEIGHT").parse().unwrap()));
        }
        let method = line.strip_prefix("forwarding method = ").filter(|method| *method != "NAT");
        if let (Some(_), Some(last)) = (method, servers.last_mut()) {
            last.1 = "-g".into();
        }
    }
    servers
}

fn checkers(text: &str) -> Vec<Checker> {
    let mut found: Vec<Checker> = Vec::new();
    let Some((_, checks)) = text.split_once("Health checkers") else { return found };
    for line in checks.lines().map(str::trim) {
        if let Some((listen, server)) = line.split_once(" -> ").filter(|(_, server)| server.starts_with('[')) {
            found.push(Checker { listen: listen.into(), server: server.into(), ..Checker::default() });
        }
        let Some(of) = found.last_mut() else { continue };
        let Some((name, value)) = line.split_once(" = ") else {
            let is_code = line.split('-').all(|part| part.parse::<u16>().is_ok());
            of.codes.extend(is_code.then(|| line.to_owned()));
            continue;
        };
        match name {
            "Delay loop" => of.interval_ms = value.trim_end_matches(" us").parse::<u64>().unwrap() / 1000,
            "Timeout" => of.timeout_ms = (value.parse::<f64>().unwrap() * 1000.0) as u64,
            "Retries" => of.retries = value.parse().unwrap(),
            "Dest" => of.port = value.rsplit(':').next().unwrap().into(),
            "Keepalive method" => of.method = value.split(',').next().unwrap().into(),
            _ => {}
        }
    }
    found
}

/// A listen address as the configuration writes it: port 0 is every port.
fn as_configured(listen: &str) -> String {
    let (end, protocol) = listen.rsplit_once('/').unwrap();
    let (address, port) = end.rsplit_once(':').unwrap();
    let port = if port == "0" { "1-65535" } else { port };
    format!("{address}:{port}/{protocol}")
}

fn tables<'t>(of: &'t Table, name: &str) -> Vec<&'t Table> {
    of.get(name).and_then(toml::Value::as_array).into_iter().flatten().filter_map(toml::Value::as_table).collect()
}

fn text<'t>(of: &'t Table, key: &str) -> &'t str {
    of.get(key).and_then(toml::Value::as_str).unwrap_or_default()
}

fn listens(service: &Table) -> Vec<&str> {
    match service.get("listen") {
        Some(toml::Value::Array(all)) => all.iter().filter_map(toml::Value::as_str).collect(),
        one => one.and_then(toml::Value::as_str).into_iter().collect(),
    }
}

fn int(of: &Table, key: &str, usual: i64) -> i64 {
    of.get(key).and_then(toml::Value::as_integer).unwrap_or(usual)
}

fn ms(of: &Table, key: &str) -> u64 {
    humantime::parse_duration(text(of, key)).unwrap().as_millis() as u64
}

/// One imported file.
struct Case {
    name: String,
    program: &'static str,
    file: PathBuf,
    config: Table,
    notes: Vec<Value>,
    reported: String,
}

fn cases() -> Vec<Case> {
    let mut found = Vec::new();
    for (program, extension) in [("ipvsadm", "rules"), ("keepalived", "conf")] {
        let dir = Path::new("fixtures/import").join(program);
        let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|own| own == extension));
        files.sort();
        assert!(files.len() >= 10, "{program}: {files:?}");
        for file in files {
            let args = [&["import", program, file.to_str().unwrap(), "--json"][..], &PROBES].concat();
            let output = equipoise(&args);
            assert!(matches!(output.status.code(), Some(0 | 3)), "{}: {}", file.display(), stderr(&output));
            let of: Value = serde_json::from_str(&stdout(&output)).unwrap();
            assert_eq!(
                of["invalid"],
                Value::Null,
                "{}: {}",
                file.display(),
                of["invalid"].as_str().unwrap_or_default()
            );
            let notes = of["notes"].as_array().unwrap().clone();
            assert_eq!(output.status.code(), Some(if notes.is_empty() { 0 } else { 3 }));
            let configuration = of["configuration"].as_str().unwrap();
            golden(&file.with_extension("toml"), configuration);
            let line = |note: &Value| {
                let text = |key: &str| note[key].as_str().unwrap();
                format!("{}:{}: {}: {}\n", note["line"], note["column"], text("what"), text("todo"))
            };
            golden(&file.with_extension("notes"), &notes.iter().map(line).collect::<String>());
            found.push(Case {
                name: file.display().to_string(),
                program,
                config: configuration.parse().unwrap(),
                notes,
                reported: std::fs::read_to_string(file.with_extension("reported"))
                    .expect("tools/import-oracle writes it"),
                file,
            });
        }
    }
    found
}

fn golden(path: &Path, text: &str) {
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        std::fs::write(path, text).unwrap();
    }
    let want = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(want, text, "{}: where this is right, run again with BLESS=1", path.display());
}

impl Case {
    /// Whether a note says all of this.
    fn notes(&self, words: &[&str]) -> bool {
        self.notes.iter().any(|note| {
            let what = format!("{} {}", note["what"].as_str().unwrap(), note["todo"].as_str().unwrap());
            words.iter().all(|word| what.contains(word))
        })
    }

    fn pool(&self, name: &str) -> &Table {
        tables(&self.config, "pool").into_iter().find(|pool| text(pool, "name") == name).expect("the pool of a service")
    }

    fn service(&self, listen: &str) -> Option<&Table> {
        let listen = as_configured(listen);
        tables(&self.config, "service").into_iter().find(|service| listens(service).contains(&listen.as_str()))
    }
}

/// The algorithm of a scheduler, and whether it looks at weights.
fn algorithm(scheduler: &str, flags: &str) -> (&'static str, bool) {
    match scheduler {
        "rr" => ("round-robin", false),
        "wrr" => ("round-robin", true),
        "lc" => ("least-connections", false),
        "wlc" | "sed" | "nq" => ("least-connections", true),
        "sh" if !flags.contains("sh-port") => ("source-hash", true),
        "sh" | "mh" => ("maglev", true),
        "fo" | "ovf" => ("priority", false),
        other => panic!("scheduler {other}"),
    }
}

fn check_service(case: &Case, reported: &Reported) {
    let Reported { listen, scheduler, flags, .. } = reported;
    let what = format!("{} {listen}", case.name);
    if listen.starts_with("fwmark") {
        return assert!(case.notes(&["mark"]), "{what}");
    }
    let nat: Vec<_> = reported.servers.iter().filter(|(_, method, _)| method == "-m").collect();
    let Some(service) = case.service(listen) else {
        let is_noted = nat.is_empty() && case.notes(&["none of its servers"]) || case.notes(&["scheduler", scheduler]);
        return assert!(is_noted, "{what} is missing and not noted");
    };
    let (want, weighs) = algorithm(scheduler, flags);
    assert_eq!(text(service, "algorithm"), want, "{what}");
    let sticky = service.get("sticky").and_then(toml::Value::as_table);
    assert_eq!(sticky.map(|sticky| ms(sticky, "idle") / 1000), reported.persistence, "{what}");
    if let (Some(sticky), Some(mask)) = (sticky, &reported.mask) {
        let bits = mask.parse::<std::net::Ipv4Addr>().map_or_else(
            |_| ("ipv6-prefix", mask.parse().unwrap()),
            |mask| ("ipv4-prefix", i64::from(mask.to_bits().leading_ones())),
        );
        assert_eq!((text(sticky, "by"), int(sticky, bits.0, 0)), ("network", bits.1), "{what}");
    }
    let service_port = listen.rsplit_once('/').unwrap().0.rsplit_once(':').unwrap().1;
    let mut have = BTreeMap::new();
    for server in tables(case.pool(text(service, "pool")), "server") {
        let port = server.get("port").map_or(service_port.to_owned(), |_| int(server, "port", 0).to_string());
        let address = text(server, "address");
        let end = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        have.insert(end, server);
    }
    assert_eq!(have.len(), nat.len(), "{what}: {have:?}");
    let all_zero = nat.iter().all(|(_, _, weight)| *weight == 0);
    for (end, _, weight) in &nat {
        let server = have.get(end).unwrap_or_else(|| panic!("{what}: no server {end}"));
        let got = int(server, "weight", 1) as u64;
        let is_drained = text(server, "state") == "draining";
        match (weight, weighs) {
            (0, _) => assert!(got == 0 && !all_zero || is_drained && all_zero, "{what} {end}: {server:?}"),
            (_, false) => assert_eq!(got, 1, "{what} {end}"),
            (weight, true) if *weight > 65_535 => assert!(got == 65_535 && case.notes(&[&weight.to_string()])),
            (weight, true) => assert_eq!(got, *weight, "{what} {end}"),
        }
        // The heaviest comes first.
        let heavier = nat.iter().filter(|(_, _, other)| other > weight).count() as i64;
        let is_ranked = !matches!(scheduler.as_str(), "fo" | "ovf") || int(server, "priority", 0) == heavier + 1;
        assert!(is_ranked && (scheduler != "ovf" || int(server, "max-flows", 0) as u64 == weight + 1), "{what} {end}");
    }
    for (end, method, _) in reported.servers.iter().filter(|(_, method, _)| method != "-m") {
        let end = end.trim_end_matches(":0");
        assert!(case.notes(&[&format!("server {end}"), "left out"]), "{what} {end} {method}: {:?}", case.notes);
    }
}

fn check_checker(case: &Case, checker: &Checker) {
    let what = format!("{} {checker:?}", case.name);
    let (address, protocol_and_port) = checker.listen.split_once("]:").unwrap_or((&checker.listen, ""));
    let address = address.trim_start_matches('[');
    let (protocol, port) = protocol_and_port.split_once(':').unwrap_or_default();
    let shown = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let listen = format!("{shown}:{port}/{protocol}");
    let by_name = || tables(&case.config, "service").into_iter().find(|service| text(service, "name") == address);
    let service = if protocol.is_empty() { by_name() } else { case.service(&listen) };
    let Some(service) = service else { return };
    let kind = match checker.method.as_str() {
        "TCP_CHECK" => "tcp",
        "HTTP_GET" => "http",
        "PING_CHECK" => "icmp",
        "UDP_CHECK" => "udp",
        "DNS_CHECK" => "dns",
        // A weaker one, which a note says.
        "SSL_GET" => {
            assert!(case.notes(&["TLS", "written as tcp"]), "{what}");
            "tcp"
        }
        "SMTP_CHECK" => {
            assert!(case.notes(&["SMTP", "written as tcp"]), "{what}");
            "tcp"
        }
        "MISC_CHECK" => return assert!(case.notes(&["a check by a program"]), "{what}"),
        other => panic!("{what}: {other}"),
    };
    let name = checker.server.split_once("]:").unwrap().0.trim_start_matches('[');
    let is_other = case.notes(&[name, "other checks"]) || case.notes(&["of another host"]);
    let monitors = tables(case.pool(text(service, "pool")), "monitor");
    let same = monitors.iter().filter(|monitor| {
        text(monitor, "type") == kind
            && (ms(monitor, "interval"), ms(monitor, "timeout")) == (checker.interval_ms, checker.timeout_ms)
            && int(monitor, "fall", 0) as u64 == checker.retries + 1
            && int(monitor, "rise", 0) == 1
    });
    let same = same.count();
    assert!(same > 0 || is_other, "{what}: {monitors:?}");
    let codes: Vec<String> = monitors
        .iter()
        .flat_map(|monitor| monitor.get("status").and_then(toml::Value::as_array).into_iter().flatten())
        .map(|status| {
            status.as_str().map_or_else(|| status.as_integer().unwrap_or_default().to_string(), str::to_owned)
        })
        .collect();
    assert!(kind != "http" || is_other || codes == checker.codes, "{what}: {codes:?}");
}

#[test]
fn what_the_programs_report_is_in_the_configuration_or_among_the_notes() {
    let (mut seen, mut checked) = (0, 0);
    for case in cases() {
        for reported in services(&case.reported) {
            seen += 1;
            check_service(&case, &reported);
        }
        // A virtual server that the kernel refused or that came twice is noted; nothing else is in the configuration.
        let known: Vec<String> = services(&case.reported)
            .iter()
            .filter(|service| !service.listen.starts_with("fwmark"))
            .map(|service| as_configured(&service.listen))
            .collect();
        for service in tables(&case.config, "service") {
            assert!(listens(service).iter().all(|listen| known.iter().any(|known| known == listen)), "{}", case.name);
        }
        for checker in checkers(&case.reported) {
            checked += 1;
            check_checker(&case, &checker);
        }
        let timeouts = case.reported.lines().find_map(|line| line.strip_prefix("Timeout (tcp tcpfin udp): ")).unwrap();
        let own = case.config["timeouts"].as_table().unwrap();
        let own = ["tcp-established", "tcp-closing", "udp-two-way"].map(|key| (ms(own, key) / 1000).to_string());
        assert_eq!(own.join(" "), timeouts, "{}", case.name);
        let thresholds = case.reported.lines().filter_map(|line| line.strip_prefix("THRESHOLD "));
        for (end, most) in thresholds.filter_map(|line| line.split_once(' ')) {
            let servers = tables(&case.config, "pool").into_iter().flat_map(|pool| tables(pool, "server"));
            let is_there =
                |server: &&Table| text(server, "name") == end && int(server, "max-flows", 0).to_string() == most;
            assert!(servers.into_iter().any(|server| is_there(&server)), "{}: {end} {most}", case.name);
        }
        assert!(case.file.exists() && !case.program.is_empty());
    }
    assert!(seen > 35 && checked > 20, "{seen} services, {checked} checks");
}

#[test]
fn an_import_says_what_is_left_to_do_and_writes_no_file_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("lb.toml");
    let out = out.to_str().unwrap();
    let file = "fixtures/import/keepalived/direct-routing.conf";
    let run = |more: &[&str]| equipoise(&[&["import", "keepalived", file][..], more].concat());
    let first = run(&["--out", out]);
    assert_eq!((first.status.code(), stdout(&first).as_str()), (Some(3), ""));
    let said = stderr(&first);
    assert!(said.contains("direct-routing.conf:6:5: server 10.0.0.11:80 is reached by direct routing"), "{said}");
    assert!(said.contains("probe-address") && said.contains("1 service, 1 server; "), "{said}");
    assert!(stderr(&run(&["--out", out])).contains("cannot write"), "the file exists");
    let all = run(&["--assume-nat", "--probe-address", "192.0.2.1"]);
    assert!(stdout(&all).contains("address = \"10.0.0.11\"") && stderr(&all).contains("imported as NAT"));
    let whole = equipoise(&["import", "ipvsadm", "fixtures/import/ipvsadm/web-farm.rules"]);
    assert_eq!(whole.status.code(), Some(0), "{}", stderr(&whole));
    let text = dir.path().join("whole.toml");
    std::fs::write(&text, whole.stdout).unwrap();
    let checked = equipoise(&["check", "--config", text.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    assert_eq!(eqctl(Path::new("/nonexistent"), &["import"]).status.code(), Some(2));
}
