//! Nothing but packets holds up packets, and the process keeps only the privileges that it needs.

use crate::WEB;
use crate::world::{Running, SERVICE, World, eventually, program, run};
use equipoise::control::Health;
use rustix::pipe::fcntl_setpipe_size;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

/// A UDP service besides [`WEB`].
const ECHO: crate::Service = ("echo", "7/udp", 3, 7);
/// Capabilities as bits of the sets in /proc (capability.h).
const NET_ADMIN: u64 = 1 << 12;
const DAC_READ_SEARCH: u64 = 1 << 2;

fn serves(world: &World) {
    let output = run(&mut world.curl(0, ""));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_hung_reader_of_the_log_costs_lines_and_no_packets() {
    let world = World::new("hung");
    let _nginx = world.nginx();
    let configuration = world.configuration("", &[WEB, ECHO]);
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut command = world.equipoise(&configuration, &["env", "RUST_LOG=debug"]);
    let gateway = Running::start(command.stdout(Stdio::null()).stderr(writer));
    drop(command); // its end of the pipe
    eventually("the control socket", || world.eqctl_raw(&["status"]).status.success());
    // A line for each flow.
    let floods = || {
        for _ in 0..2000 {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (SERVICE[0], 7)).unwrap();
        }
    };
    eventually("lost lines", || {
        world.client.run(floods).unwrap();
        serves(&world);
        world.status().lost_log_lines > 0
    });
    let shown = world.eqctl_raw(&["status"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(" lines lost: stderr was not read fast enough"));
    let told = BufReader::new(reader).lines().map(Result::unwrap).find(|line| line.contains("log lines were lost"));
    assert!(told.expect("the loss is told").contains("WARN"));
    drop(gateway);
}

/// Requests in parallel, and how many there are.
const REQUESTS: usize = 400;

#[test]
fn no_request_fails_while_nobody_reads_the_log() {
    let world = World::new("unread");
    let _nginx = world.nginx();
    let (_reader, writer) = std::io::pipe().unwrap();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut command = world.equipoise(&world.configuration("", &[WEB, ECHO]), &["env", "RUST_LOG=debug"]);
    let _gateway = Running::start(command.stdout(Stdio::null()).stderr(writer));
    drop(command);
    eventually("the control socket", || world.eqctl_raw(&["status"]).status.success());
    // A line for each flow, until the pipe is full and so is the queue before it.
    let datagrams = || {
        for _ in 0..2000 {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (SERVICE[0], 7)).unwrap();
        }
    };
    eventually("lost lines", || {
        world.client.run(datagrams).unwrap();
        world.status().lost_log_lines > 0
    });
    let before = world.status().lost_log_lines;
    for family in [0, 1] {
        let page = format!("http://{}/", [SERVICE[0].to_owned(), format!("[{}]", SERVICE[1])][family]);
        let mut curl = world.client.command(program("curl").to_str().unwrap());
        // Each on a connection of its own.
        curl.args(["-sS", "-g", "--fail", "--max-time", "20", "--parallel", "--parallel-max", "20"]);
        curl.args(["--header", "Connection: close", "--write-out", "%{http_code}\\n", "--output", "/dev/null"]);
        curl.args((0..REQUESTS).flat_map(|_| ["--output", "/dev/null", page.as_str()]).skip(2));
        let output = run(&mut curl);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let served = String::from_utf8_lossy(&output.stdout).lines().filter(|line| *line == "200").count();
        assert!(output.status.success() && served == REQUESTS, "{served} of {REQUESTS}: {stderr}");
    }
    // Each connection would have had a line at least, and each one is counted.
    let lost = world.status().lost_log_lines - before;
    assert!(lost >= 2 * REQUESTS as u64, "{lost}");
    let shown = String::from_utf8(world.eqctl_raw(&["status"]).stdout).unwrap();
    assert!(shown.contains(" lines lost: stderr was not read fast enough"), "{shown}");
}

#[test]
fn idle_connections_do_not_lock_the_operator_out() {
    let world = World::new("idlers");
    let gateway = world.start(&world.configuration("", &[WEB]));
    let idle = || -> Vec<_> { (0..16).map(|_| UnixStream::connect(world.socket()).unwrap()).collect() };
    let _first = idle();
    eventually("one of them to make room", || world.eqctl_raw(&["status"]).status.success());
    let _second = idle();
    eventually("one of the others to make room", || world.eqctl_raw(&["servers"]).status.success());
    assert!(gateway.terminate().success());
}

#[test]
fn without_file_descriptors_packets_pass_and_the_operator_is_served_later() {
    let world = World::new("descriptors");
    let _nginx = world.nginx();
    let gateway = world.start(&world.configuration("", &[WEB]));
    let pid = world.status().pid;
    // The limit is compared with the number of the new descriptor, which is the lowest that is free.
    let lowest_free = || (0..).find(|n| !fs::exists(format!("/proc/{pid}/fd/{n}")).unwrap()).unwrap();
    let mut free = 0;
    eventually("eqctl's connection to be closed", || {
        let before = std::mem::replace(&mut free, lowest_free());
        std::thread::sleep(Duration::from_millis(50));
        before == free
    });
    let limit = format!("--nofile={0}:{0}", free + 2);
    let prlimit = program("prlimit");
    assert!(run(std::process::Command::new(prlimit).args([&format!("--pid={pid}"), &limit])).status.success());
    let idle: Vec<_> = (0..8).map(|_| UnixStream::connect(world.socket()).unwrap()).collect();
    eventually("the lack to be noticed", || world.log().contains("Too many open files"));
    serves(&world);
    drop(idle);
    eventually("the operator to be served", || world.eqctl_raw(&["status"]).status.success());
    serves(&world);
    assert_eq!(world.log().matches("cannot accept a connection").count(), 1, "{}", world.log());
    assert!(gateway.terminate().success());
}

/// The lines of /proc/PID/task/TID/status (proc_pid_status(5)) that tell what each thread may do: effective, permitted,
/// inheritable, ambient and bounding capabilities, no_new_privs, seccomp mode; and the thread's name.
fn privileges(pid: u32) -> Vec<(String, [u64; 7])> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_thread = |entry: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.unwrap().path().join("status")).unwrap();
        let line = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            found.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
        };
        let set = |name: &str| u64::from_str_radix(&line(name), 16).unwrap();
        let sets = ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"].map(set);
        let [effective, permitted, inheritable, ambient, bounding] = sets;
        let [no_new, seccomp] = ["NoNewPrivs", "Seccomp"].map(|name| line(name).parse().unwrap());
        (line("Name"), [effective, permitted, inheritable, ambient, bounding, no_new, seccomp])
    };
    threads.map(of_thread).collect()
}

#[test]
fn only_the_privileges_that_forwarding_needs_remain() {
    let world = World::new("least");
    let _nginx = world.nginx();
    let configuration = world.probing(WEB, crate::world::Lines { rest: MONITOR, ..Default::default() });
    let before = world.system();
    // Started with all privileges, and with CAP_NET_ADMIN alone.
    let setpriv = program("setpriv");
    let alone = [setpriv.to_str().unwrap(), "--bounding-set=-all,+net_admin", "--inh-caps=-all"];
    for wrap in [&[][..], &alone] {
        let gateway = world.start_by(&configuration, wrap);
        serves(&world);
        eventually("the probes to succeed", || world.server_rows().iter().all(|row| row.health == Health::Up));
        // A thread begins with what its creator has, and gives it up then.
        eventually("the log's thread to have nothing", || {
            let done = |(name, sets): &(String, [u64; 7])| name == "equipoise" || sets[0] & NET_ADMIN == 0;
            privileges(world.status().pid).iter().all(done)
        });
        let mut threads = privileges(world.status().pid);
        threads.sort();
        let reads = if wrap.is_empty() { DAC_READ_SEARCH } else { 0 };
        let bounding = if wrap.is_empty() { [NET_ADMIN, 0] } else { [NET_ADMIN; 2] };
        let want = [
            ("equipoise".to_owned(), [NET_ADMIN, NET_ADMIN, 0, 0, bounding[0], 1, 2]),
            // Metrics and page, if they are configured.
            ("http".to_owned(), [0, 0, 0, 0, bounding[1], 1, 2]),
            ("log".to_owned(), [0, 0, 0, 0, bounding[1], 1, 2]),
            // Reads the configuration again, if anybody asks.
            ("reload".to_owned(), [reads, reads, 0, 0, bounding[1] | reads, 1, 2]),
        ];
        assert_eq!(threads, want, "started by {wrap:?}");
        assert!(!world.log().contains("cannot"), "{}", world.log());
        assert!(gateway.terminate().success());
        assert_eq!(world.system(), before, "it can still remove what it set up");
        assert!(!world.socket().exists());
    }
}

/// A monitor that makes the gateway send probes.
const MONITOR: &str = "[[pool.monitor]]\ntype = \"tcp\"\ninterval = \"200ms\"\ntimeout = \"100ms\"\n";

#[test]
fn privileges_are_kept_on_request() {
    let world = World::new("unconfined");
    let mut command = world.equipoise(&world.configuration("", &[WEB]), &[]);
    let gateway = Running::start(command.arg("--unconfined").stdout(Stdio::null()).stderr(Stdio::null()));
    eventually("the control socket", || world.eqctl_raw(&["status"]).status.success());
    // The threads that read configurations and serve HTTP never have any.
    let threads = privileges(world.status().pid).into_iter();
    for (name, sets) in threads.filter(|(name, _)| !["reload", "http"].contains(&&**name)) {
        let [effective, .., no_new, seccomp] = sets;
        assert!(effective > NET_ADMIN && no_new == 0 && seccomp == 0, "{name}: {sets:?}");
    }
    drop(gateway);
}
