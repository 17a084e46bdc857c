//! Changes at run time: what `eqctl` says of them, what is saved, and what is waited for.

use super::{CONFIG, Clock, Command, Ordering, Process, eqctl, equipoise, gateway, gateway_of, stderr, stdout, write};
use equipoise::engine::FlowRow;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Output;
use std::process::Stdio;

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
    // Somebody else who only waits leaves the deadline as it is; it is removed by its own word.
    let mut other = Waiting::start(&socket, &["server", "drain", "p/b", "--wait"]);
    assert!(other.line().contains("no change"));
    assert_eq!(other.line(), "server p/b: 2 flows left, deadline in 10.0s\n");
    other.0.kill().unwrap();
    other.0.wait().unwrap();
    assert!(
        run(&["server", "drain", "p/b", "--deadline", "none"]).starts_with("server p/b: draining, without a deadline")
    );
    assert!(run(&["server", "drain", "p/b", "--deadline", "10s"]).contains("remaining flows end in 10s"));
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
    assert!(waiting.line().contains("no change"));
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
