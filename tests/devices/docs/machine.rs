//! A gateway of the documentation: a network namespace with files and processes of its own, and the programs under test in
//! /usr/bin, as if the package were installed.

use crate::world::{Running, eventually, program, run};
use equipoise::gateway::netns::Namespace;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How wide the terminal is.
pub const WIDTH: &str = "110";

/// Replaces /etc, /run and /usr/bin by what is in the real ones, through links: what is written stays here.
const FURNISH: &str = r#"
set -e
for name in etc usr/bin; do
    mkdir -p "$0/$name"
    mount --rbind "/$name" "$0/$name"
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc
mount -t tmpfs tmpfs /usr/bin
old=$0/usr/bin
"$old/ln" -s "$0/etc"/* /etc/
"$old/ln" -s "$0/usr/bin"/* /usr/bin/
rm -rf /etc/equipoise /etc/keepalived /usr/bin/equipoise /usr/bin/eqctl
mkdir /etc/equipoise /etc/keepalived
for name in equipoise eqctl; do
    : >"/usr/bin/$name"
    mount --bind "$1/$name" "/usr/bin/$name"
done
: >"$0/ready"
exec sleep infinity
"#;

/// A gateway. It ends, with everything that runs on it, when it is dropped.
pub struct Machine {
    pub namespace: Namespace,
    keeper: Running,
    running: Option<Running>,
    dir: tempfile::TempDir,
}

impl Machine {
    pub fn new(label: &str) -> Machine {
        let namespace = Namespace::new(label)
            .unwrap_or_else(|e| panic!("{e}\nthe pages need root; or: unshare --user --map-root-user cargo test"));
        let dir = tempfile::tempdir().unwrap();
        let programs = PathBuf::from(env!("CARGO_BIN_EXE_equipoise"));
        let mut command = namespace.command(program("unshare").to_str().unwrap());
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", FURNISH]);
        let keeper = Running::start(command.arg(dir.path()).arg(programs.parent().unwrap()));
        let mut machine = Machine { namespace, keeper, running: None, dir };
        eventually("the files of the gateway", || {
            assert!(machine.keeper.ended().is_none(), "the gateway cannot be furnished");
            machine.dir.path().join("ready").exists()
        });
        machine
    }

    /// Returns a shell on the machine that runs `script`.
    fn shell(&self, script: &str) -> Command {
        let mut command = self.namespace.command(program("nsenter").to_str().unwrap());
        let keeper = self.keeper.id();
        command.arg(format!("--mount=/proc/{keeper}/ns/mnt")).arg(format!("--pid=/proc/{keeper}/ns/pid_for_children"));
        command.args(["sh", "-c", &format!("cd /etc/equipoise; exec 2>&1; {script}")]);
        command
            .env("COLUMNS", WIDTH)
            .env("TERM", "dumb")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env_remove("RUST_LOG");
        command
    }

    /// Runs a command; returns whether it succeeded, and what it printed.
    pub fn run(&mut self, command: &str) -> (bool, String) {
        if command.starts_with("equipoise run ") {
            return (true, self.start(command));
        }
        let output = run(self.shell(command).stdin(Stdio::null()));
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    /// Starts the gateway; returns what it logs until it is at work.
    fn start(&mut self, command: &str) -> String {
        let path = self.dir.path().join("log");
        let mut shell = self.shell(command);
        self.running = Some(Running::start(shell.stdout(File::create(&path).unwrap())));
        let log = || std::fs::read_to_string(&path).unwrap();
        eventually("the gateway to answer", || {
            let ended = self.running.as_mut().and_then(Running::ended);
            assert!(ended.is_none(), "it ended: {}", log());
            run(self.shell("eqctl status").stdin(Stdio::null())).status.success()
        });
        // Its lines are written by threads of their own.
        let mut before = String::new();
        eventually("its log", || {
            std::thread::sleep(Duration::from_millis(100));
            let now = log();
            let is_whole = now == before && now.contains("control socket");
            before = now;
            is_whole
        });
        before
    }

    /// Writes a file.
    pub fn file(&mut self, path: &str, text: &str) {
        let here = self.dir.path().join("file");
        std::fs::write(&here, text).unwrap();
        let (done, said) = self.run(&format!("mkdir -p \"$(dirname {path})\" && cat {} >{path}", here.display()));
        assert!(done, "{path}: {said}");
    }
}
