//! The demo as a user runs it: the built command, real namespaces, a real TUN device.
//!
//! Needs root, or user namespaces and access to /dev/net/tun; without either, each test reports that it is skipped.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]
#![allow(clippy::disallowed_methods, reason = "real programs take real time")]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The command, with a directory of its own for its files.
fn demo(directory: &Path, options: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_equipoise"));
    command.arg("demo").args(options.split_whitespace()).env("TMPDIR", directory);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns whether the demo can run here; prints why not.
fn can_play() -> bool {
    let directory = TempDir::new().unwrap();
    let output = demo(directory.path(), "--requests 1 --json --no-drill").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let missing = said.contains("cannot make its network") || said.contains("cannot create its TUN device");
    if missing {
        assert!(!rustix::process::geteuid().is_root(), "root can play: {said}");
        eprintln!("SKIPPED: {said}");
    }
    !missing
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Starts it and waits until the picture moves.
fn started(directory: &Path, options: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = demo(directory, options).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("answered") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before its first line");
    }
    (child, lines)
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn every_request_is_answered_by_weight_and_nothing_is_left() {
    if !can_play() {
        return;
    }
    for (weights, want) in [("1,1,1", [200, 200, 200]), ("3,2,1", [300, 200, 100])] {
        let directory = TempDir::new().unwrap();
        let output =
            demo(directory.path(), &format!("--requests 600 --json --no-drill --weights {weights}")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let books: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&books["answered"], &books["failed"]), (&600.into(), &0.into()));
        assert_eq!((&books["answered_ipv4"], &books["answered_ipv6"]), (&300.into(), &300.into()));
        for (number, want) in (1..).zip(want) {
            let got = books["answers_by_server"][format!("server{number}")].as_i64().unwrap();
            assert!((got - want).abs() * 50 <= want, "server{number} answered {got}, {want} is its share");
        }
        assert_eq!(books["left_behind"], serde_json::json!([]));
        assert_eq!(files(directory.path()), Vec::<String>::new());
    }
}

#[test]
fn in_the_drill_a_server_is_taken_out_in_time_without_later_failures_and_comes_back_slowly() {
    if !can_play() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let output = demo(directory.path(), "--requests 300 --json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let books: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let drill = &books["drill"];
    let number = |key: &str| drill[key].as_f64().unwrap_or_else(|| panic!("{key} in {drill}"));
    // What a busy machine may add.
    const GRACE: f64 = 500.0;
    assert!(number("left_after_ms") <= number("configured_ms") + GRACE, "{drill}");
    assert_eq!(drill["failed_after"], 0, "{drill}");
    assert!(number("requests") > number("failed_before") + 300.0, "there was traffic all the time: {drill}");
    // Two probes, every 250 ms, bring it back; then its weight rises for 3 s, and its share rises to a third.
    assert!(number("back_after_ms") <= 2.0 * 250.0 * 1.1 + 1000.0 + GRACE, "{drill}");
    assert!((2700.0..3000.0 + 2.0 * GRACE).contains(&number("slow_start_ms")), "{drill}");
    assert!(number("share_while_rising") < 0.75 && number("share_while_rising") > 0.0, "{drill}");
    assert!((0.8..=1.2).contains(&number("share_after")), "{drill}");
    assert_eq!((&books["failed"], &books["left_behind"]), (&0.into(), &serde_json::json!([])));
    let name = drill["server"].as_str().unwrap();
    assert!(
        said.contains(&format!("server servers/{name} is DOWN (IPv4 port 8080): refused (RST), 3 in a row")),
        "{said}"
    );
    assert_eq!(files(directory.path()), Vec::<String>::new());
}

#[test]
fn the_drill_is_in_the_text_summary_too() {
    if !can_play() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let output = demo(directory.path(), "--requests 100 --weights 1,2").output().unwrap();
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    for want in [
        "drill: server",
        "stopped in mid-traffic",
        "of those that began later, 0",
        "slow start 3 s",
        "left behind: nothing",
    ] {
        assert!(shown.contains(want), "want {want:?} in: {shown}");
    }
}

#[test]
fn control_c_ends_it_soon_and_leaves_nothing() {
    if !can_play() {
        return;
    }
    for (options, signal, success) in [
        ("--requests 10000000", Signal::INT, false),
        ("--forever", Signal::INT, true),
        ("--forever", Signal::TERM, true),
    ] {
        let directory = TempDir::new().unwrap();
        let (mut child, mut lines) = started(directory.path(), options);
        assert_eq!(files(directory.path()).len(), 1);
        let sent = Instant::now();
        send(&child, signal);
        let (mut rest, mut said) = (String::new(), String::new());
        lines.read_to_string(&mut rest).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        assert!(sent.elapsed() < Duration::from_secs(10), "{:?}", sent.elapsed());
        assert_eq!(status.success(), success, "{said}");
        assert!(rest.contains("left behind: nothing"), "{rest}");
        assert_eq!(files(directory.path()), Vec::<String>::new());
    }
}

#[test]
fn control_c_in_the_drill_ends_it_soon_and_leaves_nothing() {
    if !can_play() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (mut child, mut lines) = started(directory.path(), "--requests 20");
    // The picture shows the drill once it shows a server that is down.
    let mut line = String::new();
    while !line.contains("DOWN") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before a server was down");
        assert!(!line.contains("left behind"), "it ended before a server was down");
    }
    let sent = Instant::now();
    send(&child, Signal::INT);
    let (mut rest, mut said) = (String::new(), String::new());
    lines.read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!child.wait().unwrap().success(), "{said}");
    assert!(sent.elapsed() < Duration::from_secs(10), "{:?}", sent.elapsed());
    assert!(rest.contains("left behind: nothing") && said.contains("stopped before its end"), "{rest}\n{said}");
    assert_eq!(files(directory.path()), Vec::<String>::new());
}

#[test]
fn the_next_demo_removes_what_a_killed_one_left() {
    if !can_play() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (mut child, _lines) = started(directory.path(), "--forever");
    send(&child, Signal::KILL);
    child.wait().unwrap();
    assert_eq!(files(directory.path()).len(), 1, "a killed process cannot remove its files");
    let output = demo(directory.path(), "--requests 10 --no-drill").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(files(directory.path()), Vec::<String>::new());
}

#[test]
fn a_reader_that_disconnects_is_not_a_failure() {
    if !can_play() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let mut child = demo(directory.path(), "--requests 50 --no-drill").spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(files(directory.path()), Vec::<String>::new());
}

#[test]
fn a_server_that_cannot_be_reached_fails_the_demo() {
    if !can_play() || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root, to cut one of the demo's links");
        return;
    }
    let directory = TempDir::new().unwrap();
    let (mut child, mut lines) = started(directory.path(), "--requests 10000000");
    cut(&child);
    // Longer than a client waits for a connection.
    std::thread::sleep(Duration::from_secs(6));
    send(&child, Signal::INT);
    let (mut rest, mut said) = (String::new(), String::new());
    lines.read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!child.wait().unwrap().success());
    // A client that waits for a connection gets one to another server; a client that waits for a response fails;
    // shares are off.
    assert!(said.contains("did not go as expected") && said.contains("server1 answered"), "{said}");
    assert!(rest.contains("left behind: nothing"), "{rest}");
}

/// Stops a running demo's gateway from forwarding to server1.
fn cut(child: &Child) {
    let descriptors = format!("/proc/{}/fd", child.id());
    let mut cut = 0;
    for entry in std::fs::read_dir(descriptors).unwrap() {
        let path = entry.unwrap().path();
        let is_namespace = std::fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().starts_with("net:["));
        if is_namespace {
            let file = std::fs::File::open(&path).unwrap();
            let inside = std::thread::spawn(move || {
                use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
                use std::os::fd::AsFd;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                let parameter = "/proc/sys/net/ipv4/conf/server1/forwarding";
                Path::new(parameter).exists() && std::fs::write(parameter, "0").is_ok()
            });
            cut += usize::from(inside.join().unwrap());
        }
    }
    assert_eq!(cut, 1, "only the gateway has a device of that name");
}

#[test]
fn an_ordinary_user_runs_it_in_a_user_namespace_or_learns_what_is_missing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root, to become another user");
        return;
    }
    const NOBODY: u32 = 65_534;
    let directory = TempDir::new().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let program = directory.path().join("equipoise");
    std::fs::copy(env!("CARGO_BIN_EXE_equipoise"), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["demo", "--requests", "30", "--no-drill"]).env("TMPDIR", directory.path()).gid(NOBODY).uid(NOBODY);
    let output = command.output().unwrap();
    let (shown, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let open_to_all = std::fs::metadata("/dev/net/tun").is_ok_and(|m| m.permissions().mode() & 0o006 == 0o006);
    if said.contains("user namespace") {
        assert!(said.contains("as root: sysctl -w") || said.contains("seccomp"), "{said}");
    } else if open_to_all {
        assert!(output.status.success() && shown.contains("left behind: nothing"), "{said}");
    } else {
        assert!(said.contains("/dev/net/tun cannot be opened") && said.contains("chmod 0666 /dev/net/tun"), "{said}");
    }
    assert_eq!(files(directory.path()), ["equipoise"]);
}
