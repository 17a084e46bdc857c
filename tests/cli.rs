//! The built commands, run as a user would: exit codes, what is printed where, and `eqctl` against a gateway with a
//! real engine and a real socket, but no device.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "cli/changes.rs"]
mod changes;
#[path = "cli/everyday.rs"]
mod everyday;
#[path = "cli/explain.rs"]
mod explain;
#[path = "cli/import.rs"]
mod import;

use assert_cmd::Command;
use equipoise::config;
use equipoise::config::changes::File;
use equipoise::control::{About, Floor, Ledger, Outside, Progress, Session, Who};
use equipoise::engine::{Engine, FlowRow, Removed};
use equipoise::packet::Meta;
use equipoise::time::Instant;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const CONFIG: &str = r#"
[[service]]
name = "dns"
listen = "192.0.2.80:53/udp"
pool = "p"

[[pool]]
name = "p"
server = [
    { name = "a", address = "10.0.0.1" },
    { name = "b", address = "10.0.0.2", weight = 3 },
]
"#;

fn equipoise(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_equipoise")).args(args).env_remove("RUST_LOG").output().unwrap()
}

#[test]
#[cfg(feature = "conformance")]
fn the_checklist_passes_and_a_missing_case_fails_it() {
    let output = equipoise(&["conformance"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    let last = text.lines().last().unwrap();
    assert!(last.contains(" 0 fail, ") && text.contains("RFC 5382 REQ-5  "), "{last}");
    let output = equipoise(&["conformance", "--only", "4787", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success() && report["fail"] == 0 && report["pass"].as_u64() > Some(10), "{report}");
    let empty = tempfile::tempdir().unwrap();
    let output = equipoise(&["conformance", "--cases", empty.path().to_str().unwrap(), "--only", "4787"]);
    assert!(output.status.code() == Some(1) && stdout(&output).contains("FAIL"), "{}", stdout(&output));
    let output = equipoise(&["conformance", "--only", "no such thing"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("--only 4787"), "{}", stderr(&output));
}

fn eqctl(socket: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eqctl")).arg("--socket").arg(socket).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The time of a gateway, in nanoseconds.
type Clock = Arc<AtomicU64>;

/// Listens in `dir` with an engine that holds `flows` flows, for as long as the test process lives.
fn gateway(dir: &tempfile::TempDir, flows: u32) -> PathBuf {
    gateway_of(dir, CONFIG, flows, &Clock::new(5_000_000_000.into()))
}

/// The same, with another configuration, and a clock.
fn gateway_of(dir: &tempfile::TempDir, config: &str, flows: u32, clock: &Clock) -> PathBuf {
    let path = dir.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let parsed = config::parse_with_warnings(config, "equipoise.toml").unwrap();
    let settings = parsed.settings.clone();
    let mut engine = Engine::new(&settings);
    for i in 0..flows {
        let [_, x, y, z] = i.to_be_bytes();
        let mut packet = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([100, x, y, z], [192, 0, 2, 80], 64).udp(5000, 53);
        builder.write(&mut packet, b"hello").unwrap();
        engine.handle_packet(now(clock), &mut packet, Meta::default());
    }
    let about = Arc::new(About::new(&settings, Instant::ZERO, 77));
    let gateway = Arc::new(Mutex::new((engine, Ledger::new(Some(File::of(&parsed)), settings))));
    let clock = Arc::clone(clock);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (gateway, clock, about) = (Arc::clone(&gateway), Arc::clone(&clock), Arc::clone(&about));
            std::thread::spawn(move || serve(stream.unwrap(), &gateway, &clock, about));
        }
    });
    path
}

fn now(clock: &Clock) -> Instant {
    Instant::from_nanos(clock.load(Ordering::SeqCst))
}

fn serve(mut stream: UnixStream, gateway: &Mutex<(Engine, Ledger)>, clock: &Clock, about: Arc<About>) {
    let mut session = Session::new(about, Who { uid: 1000, pid: 4711 });
    let (mut input, mut out) = ([0; 4096], Vec::new());
    loop {
        let progress = {
            let (engine, ledger) = &mut *gateway.lock().unwrap();
            let now = now(clock);
            while engine.poll_timeout().is_some_and(|due| due <= now) {
                engine.handle_timeout(now);
            }
            carry_out(engine, ledger, now);
            session.poll_output(&mut Floor { engine, ledger, now, outside: &Outside::default(), pair: None }, &mut out)
        };
        if stream.write_all(&out).is_err() || progress == Progress::Close {
            return;
        }
        out.clear();
        if progress == Progress::Idle {
            match stream.read(&mut input) {
                Ok(0) | Err(_) => session.finish(),
                Ok(read) => session.feed(&input[..read]),
            }
        }
    }
}

/// Does what the ledger orders, as the live gateway does by its worker, and passes on what the engine reports.
fn carry_out(engine: &mut Engine, ledger: &mut Ledger, now: Instant) {
    while let Some(order) = ledger.poll_order() {
        let (number, removed) = (order.number(), if order.at_once() { Removed::EndNow } else { Removed::Drain });
        let resolved = order.resolve();
        if let Some(settings) = resolved.as_ref().ok().and_then(|resolved| resolved.settings()) {
            engine.reload(now, settings, removed);
            ledger.follow(settings);
        }
        ledger.carried_out(engine, now, number, resolved);
    }
    while let Some(event) = engine.poll_event() {
        ledger.saw(&event, now);
    }
}

#[test]
fn the_exit_code_of_check_says_whether_the_configuration_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(&dir, "good.toml", CONFIG.as_bytes());
    let output = equipoise(&["check", "--config", &good]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("configuration is valid: 1 service"), "{}", stdout(&output));

    let bad = write(&dir, "bad.toml", CONFIG.replace("pool = \"p\"", "pool = \"q\"").as_bytes());
    let output = equipoise(&["check", "--config", &bad]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert!(stderr(&output).contains("bad.toml:5:8"), "{}", stderr(&output));

    let output = equipoise(&["check", "--json", "--config", &bad]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["valid"], &report["problems"][0]["line"]), (&false.into(), &5.into()), "{report}");
    let output = equipoise(&["check", "--json", "--config", &good]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["valid"], &report["servers"]), (&true.into(), &2.into()), "{report}");
}

#[test]
fn a_file_of_servers_that_is_missing_or_wrong_fails_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("p.servers");
    let config = CONFIG.replace("name = \"p\"", &format!("name = \"p\"\nservers-file = {list:?}"));
    let config = write(&dir, "lb.toml", config.as_bytes());
    let check = |json: bool| {
        let mut args = vec!["check", "--config", &config];
        args.extend(json.then_some("--json"));
        let output = equipoise(&args);
        (output.status.code(), stdout(&output), stderr(&output))
    };
    for (text, code, want) in [
        (None, 1, "no such file"),
        (Some("10.0.0.3\n10.0.0.4 wieght=3\n"), 1, "line 2: unknown key \"wieght\""),
        (Some("10.0.0.3\n127.0.0.1\n"), 0, "leaves out 127.0.0.1"),
        (Some("10.0.0.3\n"), 0, ""),
    ] {
        text.into_iter().for_each(|text| std::fs::write(&list, text).unwrap());
        let (plain, report) = (check(false), check(true));
        assert_eq!((plain.0, report.0), (Some(code), Some(code)), "{plain:?} {report:?}");
        assert!(plain.1.contains("configuration is valid") && plain.2.contains(want), "{plain:?}");
        let report: serde_json::Value = serde_json::from_str(&report.1).unwrap();
        let told = report["servers_files"].as_array().unwrap();
        assert_eq!(told.len(), usize::from(code == 1), "{report}");
        assert!(told.iter().all(|line| line.as_str().unwrap().contains(want)), "{report}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_reported_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let latin = write(&dir, "latin.toml", b"# caf\xe9\n");
    let here = dir.path().to_str().unwrap();
    for (path, want) in [
        ("/nonexistent/lb.toml", "no configuration file /nonexistent/lb.toml"),
        (here, "is a directory"),
        (&latin, "not UTF-8"),
        ("/dev/zero", "longer than 16 MiB"),
    ] {
        for command in ["check", "run"] {
            let output = equipoise(&[command, "--config", path]);
            assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{path}");
            assert!(stderr(&output).contains(want), "{path}: {}", stderr(&output));
        }
    }
}

#[test]
fn a_table_without_the_memory_for_it_is_an_error_and_no_abort() {
    let dir = tempfile::tempdir().unwrap();
    let minimal = std::fs::read_to_string("fixtures/config/minimal.toml").unwrap();
    let config = write(&dir, "big.toml", format!("{minimal}\n[flows]\nmax = 100_000_000\n").as_bytes());
    // 2 GB of address space; the table needs more than ten times as much.
    let replay = format!("ulimit -v 2000000 && exec \"$0\" replay --config {config} fixtures/captures/dns.pcap");
    let output = Command::new("sh").args(["-c", &replay, env!("CARGO_BIN_EXE_equipoise")]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("table of 100000000 flows and 1000000 half-open flows: lower max or half-open"),
        "{output:?}"
    );
}

#[test]
fn a_wrong_command_line_ends_with_2_and_says_what_is_allowed() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage:"),
        (&["check"], "--config"),
        (&["dance"], "unrecognized subcommand 'dance'"),
        #[cfg(not(feature = "demo"))]
        (&["demo"], "unrecognized subcommand 'demo'"),
        #[cfg(not(feature = "conformance"))]
        (&["conformance"], "unrecognized subcommand 'conformance'"),
        #[cfg(feature = "demo")]
        (&["demo", "--weights", "1,x"], "--weights"),
        #[cfg(feature = "demo")]
        (&["demo", "--forever", "--requests", "4"], "cannot be used with"),
    ];
    for (args, want) in cases {
        let output = equipoise(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(want), "{args:?}: {}", stderr(&output));
    }
    let nowhere = Path::new("/nonexistent/s");
    let cases: [(&[&str], &str); 8] = [
        (&[], "Usage:"),
        (&["flows", "--client", "10.0.0.0/33"], "neither an address nor a network"),
        (&["flows", "--protocol", "stcp"], "tcp, udp, icmp, sctp"),
        (&["flows", "--limit=-1"], "--limit"),
        (&["kill", "7"], "INDEX.GENERATION"),
        (&["server", "set", "a", "weight"], "write KEY=VALUE, for example weight=5"),
        (&["server", "weight", "p/a", "65536"], "65535"),
        (&["servers", "--watch", "0"], "--watch"),
    ];
    for (args, want) in cases {
        let output = eqctl(nowhere, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(want), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn eqctl_without_a_gateway_says_so() {
    let output = eqctl(Path::new("/nonexistent/s"), &["flows"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert!(stderr(&output).contains("is `equipoise run` running?"), "{}", stderr(&output));
}

#[test]
fn eqctl_shows_and_changes_a_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 4);
    let shown = |args: &[&str]| {
        let output = eqctl(&socket, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let status = shown(&["status"]);
    assert!(status.contains("flows      4 of 262,144"), "{status}");
    assert!(status.ends_with("half-open  0 of 1,000,000 (0.0 %)\npressure   none\nsystem     complete\n"), "{status}");
    assert!(shown(&["status", "--json"]).contains(r#""half_open":0,"max_half_open":1000000,"pressures":[]"#));
    assert!(shown(&["counters"]).contains("in 4 = forwarded 4 + consumed 0 + dropped 0: adds up"));
    assert!(shown(&["counters", "--all"]).contains("table-full"));
    assert!(shown(&["services"]).contains("192.0.2.80:53/udp"));

    let flows = shown(&["flows", "--server", "b", "--client", "100.0.0.0/30", "--protocol", "UDP"]);
    assert_eq!(flows.lines().count(), 1 + 3, "three of four flows go to the server of weight 3:\n{flows}");
    let flow: FlowRow = serde_json::from_str(&shown(&["flows", "--json", "--client", "100.0.0.2"])).unwrap();
    assert_eq!(flow.client, "100.0.0.2:5000".parse().unwrap());
    assert!(shown(&["flows", "--limit", "3"]).ends_with("... and more: list cut off by --limit 3\n"));
    assert_eq!(shown(&["flows", "--json", "--limit", "3"]).lines().count(), 3);

    let id = flow.id.to_string();
    shown(&["kill", &id]);
    assert_eq!(shown(&["flows"]).lines().count(), 1 + 3);
    let again = eqctl(&socket, &["kill", &id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains(&format!("no flow {id}")), "{}", stderr(&again));

    shown(&["server", "weight", "p/a", "9"]);
    assert!(shown(&["servers", "--json"]).contains(r#""server":"a","addresses":["10.0.0.1"],"port":null,"weight":9"#));
    let unknown = eqctl(&socket, &["server", "weight", "p/z", "9"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("no server p/z"), "{}", stderr(&unknown));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 30_000);
    let mut child = Process::new(env!("CARGO_BIN_EXE_eqctl"))
        .arg("--socket")
        .arg(&socket)
        .arg("flows")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("FLOW "), "{first}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));

    let all = eqctl(&socket, &["--json", "flows"]);
    assert_eq!(stdout(&all).lines().count(), 30_000, "the next client gets all of them");
}
