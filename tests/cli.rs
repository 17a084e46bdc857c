//! The built commands, run as a user would: exit codes, what is printed where, and `eqctl` against a gateway with a
//! real engine and a real socket, but no device.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "cli/everyday.rs"]
mod everyday;
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

#[test]
fn explain_shows_what_would_become_of_packets_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(&dir, "lb.toml", CONFIG.as_bytes());
    let packet = "udp 198.51.100.7:5000 -> 192.0.2.80:53 len 5";
    let output = equipoise(&["explain", "--config", &config, packet, packet]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let (first, second) = text.split_once("\n\n").expect("two explanations");
    assert!(first.contains("opens a flow") && first.contains("p/b") && first.contains("CHOSEN"), "{first}");
    assert!(second.contains("flow         0.0 udp, udp-one-way, from the client"), "{second}");

    let output = equipoise(&["explain", "--config", &config, "--json", "--event", "server p/b down", packet]);
    let explanation: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(explanation["outcome"]["server"], "p/a", "{explanation}");
    assert_eq!(explanation["candidates"][1]["health"], "down", "{explanation}");
    assert!(stdout(&output).starts_with("{\n"), "one object, indented");

    let cases: [(&[&str], &str); 5] = [
        (&["udp 198.51.100.7 -> 192.0.2.80:53"], "column 5: \"198.51.100.7\" is an address without a port"),
        (&[], "<PACKET>"),
        (&["--event", "server p/c down", packet], "--event \"server p/c down\": column 8"),
        (&["--event", "12 server p/a down", packet], "write `server POOL/SERVER"),
        (&["--seed", "x", packet], "--seed"),
    ];
    for (args, want) in cases {
        let output = equipoise(&[&["explain", "--config", &config], args].concat());
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{args:?}");
        assert!(stderr(&output).contains(want), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_packet_of_a_capture_is_explained_and_verified() {
    let explain = |case: &str, more: &[&str]| {
        let dir = format!("pcap-tests/cases/{case}");
        let inputs = [format!("{dir}/in.pcapng"), format!("{dir}/in.pcap")];
        let (config, capture) =
            (format!("{dir}/config.toml"), inputs.into_iter().find(|path| Path::new(path).exists()));
        let capture = capture.expect("a capture");
        equipoise(&[&["replay", "--config", &config, &capture, "--explain"], more].concat())
    };
    let case = "udp-goes-both-ways";
    let output = explain(case, &["1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("frame        1 at 0.000000\npacket       UDP "), "{text}");
    assert!(text.ends_with("verified     the packet met this outcome\n") && !text.contains("Counters"), "{text}");
    let output = explain(case, &["2", "--json"]);
    let explanation: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&explanation["number"], &explanation["verified"]), (&2.into(), &true.into()), "{explanation}");
    assert_eq!(explanation["outcome"]["verdict"], "forward", "{explanation}");

    for (case, args, code, want) in [
        (case, &["999"][..], 1, "has no frame 999: its frames are numbered from 1 to"),
        (case, &["0"], 2, "--explain"),
        (case, &["1", "-w", "out.pcapng"], 2, "cannot be used with"),
        ("a-frame-without-a-whole-ip-packet-is-skipped", &["1"], 1, "frame 1 was not replayed"),
    ] {
        let output = explain(case, args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(code), ""), "{args:?}");
        assert!(stderr(&output).contains(want), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn eqctl_explains_a_packet_a_flow_and_a_client() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 4);
    let shown = |args: &[&str]| {
        let output = eqctl(&socket, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let text = shown(&["explain", "udp 198.51.100.7:5000 -> 192.0.2.80:53"]);
    assert!(text.starts_with("packet       UDP 198.51.100.7:5000") && text.contains("candidates\n"), "{text}");
    let flow: FlowRow = serde_json::from_str(&shown(&["flows", "--json", "--client", "100.0.0.2"])).unwrap();
    let text = shown(&["explain", "--flow", &flow.id.to_string()]);
    assert!(text.contains("client 100.0.0.2:5000 -> 192.0.2.80:53 (service dns)"), "{text}");
    let json = shown(&["explain", "--json", "--flow", &flow.id.to_string()]);
    let explanation: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(explanation["from"], "client", "{json}");

    let text = shown(&["explain", "--client", "100.0.0.2"]);
    assert!(text.starts_with("FLOW ") && text.contains("A new flow to service dns: udp 100.0.0.2:40000 ->"), "{text}");
    let text = shown(&["explain", "--client", "198.51.100.7"]);
    assert!(text.starts_with("client 198.51.100.7 has no flows\n"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&shown(&["explain", "--json", "--client", "100.0.0.2"])).unwrap();
    assert_eq!((&json["flows"], &json["listed_flows"][0]["client"]), (&1.into(), &"100.0.0.2:5000".into()), "{json}");
    assert_eq!(json["explanations"][0]["service"], "dns", "{json}");
    assert!(shown(&["counters"]).contains("in 4 = forwarded 4"), "explaining changes nothing");

    let unknown = eqctl(&socket, &["explain", "--flow", "99.0"]);
    assert!(unknown.status.code() == Some(1) && stderr(&unknown).contains("no flow 99.0"), "{}", stderr(&unknown));
    for args in [&["explain"][..], &["explain", "tcp"], &["explain", "--flow", "1.0", "--client", "::1"]] {
        assert_eq!(eqctl(&socket, args).status.code(), Some(2), "{args:?}");
    }
}

/// What a command prints, as a terminal shows it.
fn on_terminal(output: &Output) -> String {
    stdout(output) + &stderr(output)
}

#[test]
fn the_commands_of_docs_changes_do_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/changes.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let config = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway_of(&dir, config, 0, &Clock::default());
    let (mut shown, mut runs, mut inside) = (String::new(), 0, false);
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        }
        let command = line.strip_prefix("$ eqctl ").filter(|_| inside);
        if !inside || line.starts_with("```") || command.is_some() {
            shown += &format!("{line}\n");
        }
        if let Some(command) = command {
            shown += &on_terminal(&eqctl(&socket, &command.split(' ').collect::<Vec<_>>()));
            runs += 1;
        }
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    assert!(runs > 20, "{runs} commands");
    assert!(shown == text, "docs/changes.md should show (BLESS=1 rewrites it):\n{shown}");
}

#[test]
fn a_saved_file_says_what_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let config = "# keep me\n[[service]]\nname = \"web\" # the shop\nlisten = \"192.0.2.80:80/tcp\"\npool = \"web\"\n\n\
        [[service]]\nname = \"api\"\nlisten = \"192.0.2.81:80/tcp\"\npool = \"api\"\n\n[[pool]]\nname = \"web\"\n\n\
        [[pool.server]]\nname = \"a\"\naddress = \"10.0.0.1\" # rack 1\nweight = 3 # big\n\n[[pool.server]]\nname = \"b\"\n\
        address = \"10.0.0.2\"\nmax-flows = 9\n\n[[pool]]\nname = \"api\"\nserver = [\n    # inline\n    { name = \"c\", \
        address = \"10.0.1.1\" },\n    { name = \"d\", address = \"10.0.1.2\" }\n]\n";
    let socket = gateway_of(&dir, config, 0, &Clock::default());
    for command in [
        "server weight a 5",
        "server set b max-flows= slow-start=30s",
        "server add web/e address=10.0.0.5,fd00::5 port=8080",
        "server add api/f address=10.0.1.6",
        "server disable f",
        "server remove c",
        "service api off",
        "pool set web passive.failures=3",
    ] {
        let output = eqctl(&socket, &command.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{command}: {}", on_terminal(&output));
    }
    let saved = stdout(&eqctl(&socket, &["changes", "save"]));
    let want = config
        .replace("weight = 3 # big", "weight = 5 # big")
        .replace("max-flows = 9\n", "slow-start = \"30s\"\n\n[[pool.server]]\nname = \"e\"\naddress = [\"10.0.0.5\", \"fd00::5\"]\nport = 8080\n")
        .replace("pool = \"api\"\n", "pool = \"api\"\nenabled = false\n")
        .replace("[[pool]]\nname = \"api\"\n", "[pool.passive]\nfailures = 3\n\n[[pool]]\nname = \"api\"\n")
        .replace("\n    # inline\n    { name = \"c\", address = \"10.0.1.1\" },", "")
        .replace("{ name = \"d\", address = \"10.0.1.2\" }\n", "{ name = \"d\", address = \"10.0.1.2\" },\n    { name = \"f\", address = \"10.0.1.6\", state = \"disabled\" }\n");
    assert_eq!(saved, want);
    // The file that was saved means what is in force.
    let again = tempfile::tempdir().unwrap();
    let fresh = gateway_of(&again, &saved, 0, &Clock::default());
    for command in ["servers", "services", "pool"] {
        assert_eq!(stdout(&eqctl(&fresh, &[command, "--json"])), stdout(&eqctl(&socket, &[command, "--json"])));
    }
    // The difference makes one of the other.
    let patch = stdout(&eqctl(&socket, &["changes", "save", "--patch"]));
    let file = dir.path().join("equipoise.toml");
    std::fs::write(&file, config).unwrap();
    Command::new("patch").arg("-p0").current_dir(dir.path()).write_stdin(patch).assert().success();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), saved);
    assert_eq!(stdout(&eqctl(&fresh, &["changes", "save"])), saved, "nothing differs");
    assert_eq!(stdout(&eqctl(&fresh, &["changes", "save", "--patch"])), "");
}

/// A command that waits, with its lines so far.
struct Waiting(std::process::Child, BufReader<std::process::ChildStdout>);

impl Waiting {
    fn start(socket: &Path, args: &[&str]) -> Waiting {
        let mut command = Process::new(env!("CARGO_BIN_EXE_eqctl"));
        let command = command.arg("--socket").arg(socket).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Waiting(child, lines)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }

    /// Returns the rest of its output, its errors, and its exit code.
    fn end(mut self) -> (String, String, Option<i32>) {
        let mut rest = String::new();
        self.1.read_to_string(&mut rest).unwrap();
        let output = self.0.wait_with_output().unwrap();
        (rest, stderr(&output), output.status.code())
    }
}

#[test]
fn a_drain_is_waited_for_and_its_exit_code_says_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::new(5_000_000_000.into());
    let config = CONFIG
        .replace("weight = 3", "weight = 1")
        .replace("\n]\n", "\n    { name = \"c\", address = \"10.0.0.3\" },\n]\n");
    let socket = gateway_of(&dir, &config, 6, &clock);
    let run = |args: &[&str]| {
        let output = eqctl(&socket, args);
        assert!(output.status.success(), "{args:?}: {}", on_terminal(&output));
        stdout(&output)
    };
    let kill_flows = |server: &str| {
        for line in run(&["flows", "--json", "--server", server]).lines() {
            run(&["kill", &serde_json::from_str::<FlowRow>(line).unwrap().id.to_string()]);
        }
    };
    // The last flow ends by itself.
    let mut waiting = Waiting::start(&socket, &["server", "drain", "a", "--wait", "--json"]);
    let changed: serde_json::Value = serde_json::from_str(&waiting.line()).unwrap();
    assert_eq!((&changed["object"]["name"], &changed["flows"]), (&"p/a".into(), &2.into()));
    assert_eq!((&changed["before"]["state"], &changed["after"]["state"]), (&"enabled".into(), &"draining".into()));
    let row: serde_json::Value = serde_json::from_str(&waiting.line()).unwrap();
    assert_eq!((&row["state"], &row["flows"]), (&"draining".into(), &2.into()));
    kill_flows("a");
    let (rest, said, code) = waiting.end();
    let last: serde_json::Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!((&last["state"], &last["flows"], code), (&"drained".into(), &0.into(), Some(0)), "{said}");

    // The deadline ends them.
    let mut waiting = Waiting::start(&socket, &["server", "drain", "p/b", "--deadline", "10s", "--wait"]);
    assert!(waiting.line().ends_with("(at once), remaining flows end in 10s; it has 2 flows left\n"));
    assert_eq!(waiting.line(), "server p/b: 2 flows left, deadline in 10.0s\n");
    clock.fetch_add(10_000_000_000, Ordering::SeqCst);
    let (rest, said, code) = waiting.end();
    assert_eq!((rest.as_str(), code), ("server p/b: the deadline passed: 2 flows were ended\n", Some(3)), "{said}");

    // Somebody enables it meanwhile, and somebody stops waiting.
    let mut waiting = Waiting::start(&socket, &["server", "drain", "c", "--wait"]);
    assert!(waiting.line().contains("2 flows left"));
    run(&["server", "enable", "c"]);
    let (_, said, code) = waiting.end();
    assert!(code == Some(1) && said.contains("server p/c was enabled or disabled meanwhile"), "{said}");
    let mut waiting = Waiting::start(&socket, &["server", "drain", "c", "--wait"]);
    assert!(waiting.line().contains("2 flows left"));
    waiting.0.kill().unwrap();
    waiting.0.wait().unwrap();
    assert!(run(&["servers"]).contains("draining"), "it goes on");

    // Somebody removes it meanwhile.
    let mut waiting = Waiting::start(&socket, &["server", "drain", "c", "--wait"]);
    assert!(waiting.line().contains("nothing changes"));
    assert_eq!(waiting.line(), "server p/c: 2 flows left, no deadline\n");
    run(&["server", "remove", "c"]);
    assert_eq!(waiting.line(), "server p/c: removed, 2 flows left\n");
    assert_eq!(run(&["flows", "--server", "p/c"]).lines().count(), 1 + 2, "its flows are still found by its name");
    kill_flows("p/c");
    let (rest, said, code) = waiting.end();
    assert_eq!((rest.lines().last(), code), (Some("server p/c: removed, no flows left"), Some(0)), "{said}");

    let history = run(&["history"]);
    for told in
        ["uid 1000, pid 4711  server p/c: removed", "gateway             server p/b: the draining deadline has passed"]
    {
        assert!(history.contains(told), "{history}");
    }
}

#[test]
fn a_difference_to_a_live_gateway_leaves_out_what_a_reload_would_keep() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[gateway]\ncontrol-socket = {:?}\n{CONFIG}", dir.path().join("control.sock"));
    let socket = gateway_of(&dir, &config, 0, &Clock::default());
    for words in ["server weight a 7", "server weight b 9", "server add p/c address=10.0.0.3", "service dns off"] {
        let output = eqctl(&socket, &words.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let diff = |text: &str| {
        let file = write(&dir, "new.toml", text.as_bytes());
        let output = equipoise(&["check", "--diff", &file, "--live"]);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let same = diff(&config);
    assert!(!same.contains("server p/") && !same.contains("service dns"), "{same}");
    // The file wins for the key that it changes.
    let other = diff(&config.replace("weight = 3", "weight = 4"));
    assert!(other.contains("server p/b: weight 9 -> 4") && !other.contains("p/a") && !other.contains("p/c"), "{other}");
    // A server that is removed and still in the file stays removed, unless the file moves it.
    assert!(eqctl(&socket, &["server", "remove", "b"]).status.success());
    assert!(!diff(&config).contains("p/b"));
    assert!(diff(&config.replace("10.0.0.2", "10.0.0.9")).contains("server p/b: added"));
}

#[test]
fn two_operators_at_once_both_get_what_they_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 0);
    let commands: Vec<[String; 4]> = (0..12)
        .map(|n| match n % 2 {
            0 => ["server".into(), "add".into(), format!("p/n{n}"), format!("address=10.0.1.{n}")],
            _ => ["server".into(), "set".into(), "a".into(), format!("weight={n}")],
        })
        .collect();
    let twice = eqctl(&socket, &["server", "set", "a", "weight=5", "weight=6"]);
    assert!(stderr(&twice).contains("weight is given twice") && !twice.status.success());
    let all: Vec<Process> = commands
        .iter()
        .map(|args| {
            let mut command = Process::new(env!("CARGO_BIN_EXE_eqctl"));
            command.arg("--socket").arg(&socket).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        })
        .collect();
    let children: Vec<_> = all.into_iter().map(|mut command| command.spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", on_terminal(&output));
    }
    let servers = stdout(&eqctl(&socket, &["servers"]));
    assert_eq!(servers.lines().count(), 1 + 2 + 6, "{servers}");
    let changes = stdout(&eqctl(&socket, &["changes"]));
    assert_eq!(changes.lines().filter(|line| line.starts_with("server p/")).count(), 6 + 1, "{changes}");
}
