//! Metrics, page and API of a real gateway: scraped by Debian's Prometheus, over reloads, restarts and takeovers, and with
//! hostile clients while packets move.

use crate::WEB;
use crate::world::{Running, World, eventually, program, run};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

const AT: &str = "127.0.0.1:9480";

/// A configuration that serves at an address, with the servers of [`World::nginx`].
fn configuration(world: &World, at: &str) -> String {
    format!("{}\n[http]\nlisten = \"{at}\"\n", world.configuration("", &[WEB]))
}

/// Returns the status and the body of a request from the gateway's own machine; status 0 if nobody answers.
fn ask(world: &World, at: &str, path: &str, more: &[&str]) -> (u16, String) {
    let mut curl = world.gateway.command(program("curl").to_str().unwrap());
    curl.args(["-sg", "--max-time", "10", "-w", "\n%{http_code}"]).args(more).arg(format!("http://{at}{path}"));
    let text = String::from_utf8(run(&mut curl).stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

fn get(world: &World, path: &str) -> (u16, String) {
    ask(world, AT, path, &[])
}

/// Returns the rows of a table of the API.
fn rows(world: &World, path: &str) -> Vec<Value> {
    let (status, body) = get(world, path);
    assert_eq!(status, 200, "{path}: {body}");
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn serving(world: &World, at: &str) {
    eventually(&format!("{at} to serve"), || ask(world, at, "/readyz", &[]).0 == 200);
}

/// Returns the lines of `eqctl`'s JSON.
fn eqctl(world: &World, args: &[&str]) -> Vec<Value> {
    let output = world.eqctl_raw(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Removes what differs between two looks at the same thing.
fn timeless(mut rows: Vec<Value>) -> Vec<Value> {
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        row.retain(|key, _| !key.ends_with("_ms") && !["device", "engine"].contains(&key.as_str()));
    }
    rows
}

#[test]
fn tables_are_those_of_eqctl_and_a_change_is_one_of_eqctl() {
    let world = World::new("http");
    let _nginx = world.nginx();
    let gateway = world.start(&configuration(&world, AT));
    serving(&world, AT);
    assert!(run(&mut world.curl(0, "")).status.success());
    for table in ["status", "services", "servers", "rules", "nat", "sources", "counters", "changes", "monitors"] {
        eventually(&format!("the same {table}"), || {
            timeless(rows(&world, &format!("/api/{table}"))) == timeless(eqctl(&world, &[table]))
        });
    }
    let flows = rows(&world, "/api/flows?service=web&client=198.51.100.2");
    assert_eq!(flows.len(), eqctl(&world, &["flows"]).len());
    let explained = rows(&world, "/api/explain?client=198.51.100.2");
    assert!(explained[0]["listed_flows"].as_array().is_some_and(|flows| flows.len() == 1), "{explained:?}");

    // Whoever may use the control socket has the token; nobody else has it, and without it nothing changes.
    let token = String::from_utf8(world.eqctl_raw(&["token"]).stdout).unwrap();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let drain = ["-H", "Content-Type: application/json", "-d", r#"{"state":"draining"}"#];
    let path = "/api/servers/web/server1";
    assert_eq!(ask(&world, AT, path, &drain).0, 401);
    assert_eq!(eqctl(&world, &["changes"]), Vec::<Value>::new());
    let (status, body) = ask(&world, AT, path, &[&drain[..], &["-H", &bearer]].concat());
    assert_eq!(status, 200, "{body}");
    let changed: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&changed["changed"], &changed["after"]["state"]), (&true.into(), &"draining".into()));
    let changes = eqctl(&world, &["changes"]);
    assert_eq!((changes.len(), &changes[0]["pid"]), (1, &gateway.id().into()), "the gateway itself is who did it");
    assert!(world.log().contains("server web/server1"), "{}", world.log());
}

/// Debian's Prometheus, which scrapes the gateway every second.
struct Prometheus<'w> {
    world: &'w World,
    _running: Running,
}

impl<'w> Prometheus<'w> {
    fn start(world: &'w World) -> Prometheus<'w> {
        let config = world.dir.path().join("prometheus.yml");
        let alerts = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/monitoring/alerts.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: ['{alerts}']\nscrape_configs:\n\
             - {{job_name: equipoise, static_configs: [{{targets: ['{AT}']}}]}}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = world.gateway.command(program("prometheus").to_str().unwrap());
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", world.dir.path().join("tsdb").display()));
        command.arg("--web.listen-address=127.0.0.1:9090");
        let log = File::create(world.dir.path().join("prometheus.log")).unwrap();
        let running = Running::start(command.stdout(Stdio::null()).stderr(log));
        Prometheus { world, _running: running }
    }

    /// Returns the value of a query, if it has one.
    fn value(&self, query: &str) -> Option<f64> {
        let query = format!("query={query}");
        let (_, body) = ask(self.world, "127.0.0.1:9090", "/api/v1/query", &["-G", "--data-urlencode", &query]);
        let found: Value = serde_json::from_str(&body).ok()?;
        found["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

/// Lets it scrape under load for as many minutes as the variable SCRAPE_MINUTES says; none in a usual run.
fn under_load(world: &World, prometheus: &Prometheus<'_>) {
    let minutes: u64 = std::env::var("SCRAPE_MINUTES").map_or(0, |text| text.parse().unwrap());
    let (begun, mut connections) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(60 * minutes) {
        assert!(run(&mut world.curl(connections % 2, "")).status.success(), "connection {connections} fails");
        connections += 1;
    }
    if minutes > 0 {
        let of = |query: &str| prometheus.value(&query.replace("TIME", &format!("[{minutes}m]")));
        let failed = of("sum(count_over_time(upTIME)) - sum(sum_over_time(upTIME))");
        let (scrapes, slowest) = (of("count_over_time(upTIME)"), of("max_over_time(scrape_duration_secondsTIME)"));
        println!("{connections} connections; scrapes: {scrapes:?}, failed: {failed:?}, the slowest: {slowest:?} s");
        assert_eq!(failed, Some(0.0));
    }
}

#[test]
fn a_real_prometheus_scrapes_it_over_a_reload_and_a_restart_of_the_address() {
    let world = World::new("prom");
    let _nginx = world.nginx();
    let mut gateway = world.start(&configuration(&world, AT));
    let prometheus = Prometheus::start(&world);
    for _ in 0..3 {
        assert!(run(&mut world.curl(0, "")).status.success());
    }
    eventually("three flows in Prometheus", || {
        prometheus.value("sum(equipoise_service_flows_opened_total{service=\"web\"})") == Some(3.0)
    });
    assert_eq!(prometheus.value("count(equipoise_server_up == 1)"), Some(3.0));
    assert!(prometheus.value("equipoise_loop_turn_seconds_count").is_some_and(|count| count > 0.0));
    assert!(prometheus.value("scrape_samples_scraped").is_some_and(|count| count > 200.0));
    let log = std::fs::read_to_string(world.dir.path().join("prometheus.log")).unwrap();
    assert!(!log.contains("level=warn") && !log.contains("level=error"), "{log}");

    under_load(&world, &prometheus);

    // Another address, then none, then the first one again: all by a reload.
    let other = "127.0.0.1:9481";
    std::fs::write(world.file(), configuration(&world, other)).unwrap();
    world.change("reload");
    serving(&world, other);
    assert_eq!(get(&world, "/healthz").0, 0, "the old address is free");
    std::fs::write(world.file(), world.configuration("", &[WEB])).unwrap();
    world.change("reload");
    eventually("nothing to be served", || ask(&world, other, "/healthz", &[]).0 == 0);
    let refused = world.eqctl_raw(&["token"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("set `listen` of [http]"));
    std::fs::write(world.file(), configuration(&world, AT)).unwrap();
    world.change("reload");
    serving(&world, AT);

    // A gateway that takes over has the address when the older one has let go.
    let before = prometheus.value("equipoise_uptime_seconds").unwrap();
    let mut command = world.equipoise(&configuration(&world, AT), &[]);
    let log = File::create(world.dir.path().join("stderr2")).unwrap();
    let _second = Running::start(command.arg("--takeover").stderr(log));
    assert!(gateway.wait("the older gateway to end").success());
    serving(&world, AT);
    eventually("a younger gateway in Prometheus", || {
        prometheus.value("equipoise_uptime_seconds").is_some_and(|uptime| uptime < before)
            && prometheus.value("up") == Some(1.0)
    });
}

#[test]
fn an_address_that_is_taken_stops_no_gateway() {
    let world = World::new("http-taken");
    let _nginx = world.nginx();
    let other = world.gateway.run(|| std::net::TcpListener::bind(AT)).unwrap().unwrap();
    let _gateway = world.start(&configuration(&world, AT));
    assert!(run(&mut world.curl(0, "")).status.success(), "packets move");
    eventually("the failure in the status", || {
        let status = eqctl(&world, &["status"]);
        status[0]["http"]["error"].as_str().is_some_and(|error| error.starts_with("cannot listen: "))
    });
    assert!(world.log().contains("metrics and page are not served, but packets are forwarded"), "{}", world.log());
    drop(other);
    serving(&world, AT);
    let (_, text) = get(&world, "/metrics");
    let failures = text.lines().find_map(|line| line.strip_prefix("equipoise_http_bind_failures_total "));
    assert!(failures.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{failures:?}");
}

/// Memory of a process in KiB.
fn resident(process: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn hostile_clients_stop_no_packets_and_fill_no_memory() {
    let world = World::new("http-evil");
    let _nginx = world.nginx();
    let gateway = world.start(&configuration(&world, AT));
    serving(&world, AT);
    let before = resident(&gateway);
    let attack = || {
        let connect = || {
            let stream = TcpStream::connect(AT).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        };
        let whole = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
        let endless = format!("GET /{} HTTP/1.1\r\n", "x".repeat(100_000));
        let headers = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(10_000));
        let body = "POST /api/servers/web/server1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n";
        let texts = [&whole[..], &endless, &headers, body, "\0\0\0\0", "G"];
        let (begun, mut streams, mut rounds) = (Instant::now(), Vec::new(), 0);
        while begun.elapsed() < Duration::from_secs(3) {
            streams.push(connect());
            for (place, stream) in streams.iter_mut().enumerate() {
                let _ = stream.write(texts[place % texts.len()].as_bytes());
                let _ = stream.read(&mut [0; 16]);
            }
            if streams.len() > 100 {
                streams.clear();
                rounds += 1;
            }
        }
        assert!(rounds > 2, "{rounds} rounds");
    };
    let ended = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| world.gateway.run(attack).unwrap());
        let mut connections = 0;
        while !attacker.is_finished() {
            assert!(run(&mut world.curl(connections % 2, "")).status.success(), "a connection fails");
            connections += 1;
        }
        assert!(connections > 5, "only {connections} connections");
        attacker.join()
    });
    ended.expect("the attack");
    serving(&world, AT);
    let grown = resident(&gateway).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
    eventually("what was refused in the metrics", || {
        get(&world, "/metrics").1.contains("equipoise_http_responses_total{code=\"431\"}")
    });
}
