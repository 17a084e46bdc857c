//! A service manager that keeps what a gateway leaves when it stops: a stand-in for systemd, with the socket that
//! sd_notify(3) describes and the descriptors of sd_listen_fds(3).

#![allow(unsafe_code, reason = "descriptors get their numbers between fork and exec")]

use super::{FLOWS, Talks, configuration, ended};
use crate::state::{Busy, serve};
use crate::world::{Running, World, eventually, run};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::time::Duration;

/// The manager: what it has heard, and what it keeps.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
    kept: Vec<(String, OwnedFd)>,
    /// How long a copy of what it closes stays open.
    lingers: Duration,
}

impl Manager {
    fn new(world: &World) -> Manager {
        let socket = UnixDatagram::bind(world.dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Manager { socket, heard: Vec::new(), kept: Vec::new(), lingers: Duration::ZERO }
    }

    /// Takes the next message; returns false if there is none for a while.
    fn hear(&mut self) -> bool {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut along = RecvAncillaryBuffer::new(&mut room);
        let mut bytes = [0; 4096];
        let received = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut along, RecvFlags::CMSG_CLOEXEC);
        let Ok(received) = received else { return false };
        let text = String::from_utf8(bytes[..received.bytes].to_vec()).unwrap();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        let rights = along.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights.collect::<Vec<_>>()),
            _ => None,
        });
        let rights: Vec<OwnedFd> = rights.flatten().collect();
        if value("FDSTORE=").is_some() {
            let name = value("FDNAME=").unwrap();
            assert!(value("FDPOLL=").is_some_and(|poll| poll == "0") && !rights.is_empty(), "{text}");
            self.kept.extend(rights.into_iter().map(|one| (name.clone(), one)));
        } else if value("FDSTOREREMOVE=").is_some() {
            let name = value("FDNAME=").unwrap();
            let closed: Vec<_> = self.kept.extract_if(.., |(own, _)| *own == name).collect();
            let lingers = self.lingers;
            if !lingers.is_zero() {
                std::thread::spawn(move || {
                    std::thread::sleep(lingers);
                    drop(closed);
                });
            }
        }
        // The pipe of BARRIER=1 is closed with the descriptors of its message.
        self.heard.push(text);
        true
    }

    /// Listens until a process has ended.
    fn hear_the_end(&mut self, gateway: &mut Running) {
        eventually("the end of the gateway", || {
            while self.hear() {}
            gateway.ended().is_some()
        });
    }

    /// Starts a gateway, with what is kept.
    fn start(&mut self, world: &World, text: &str) -> Running {
        let (socket, log) = (world.dir.path().join("notify"), world.dir.path().join("stderr"));
        let mut command = world.equipoise(text, &["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh"]);
        command.env("NOTIFY_SOCKET", socket).env("FDSTORE", "64");
        command.stdout(std::process::Stdio::null()).stderr(std::fs::File::create(log).unwrap());
        let names: Vec<&str> = self.kept.iter().map(|(name, _)| name.as_str()).collect();
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let high = |one: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(one, 900).unwrap();
        let copies: Vec<OwnedFd> = self.kept.iter().map(|(_, one)| high(one)).collect();
        let numbers: Vec<i32> = copies.iter().map(AsRawFd::as_raw_fd).collect();
        let place = move || {
            for (number, to) in numbers.iter().zip(3..) {
                // SAFETY: dup2(2) may be called between fork and exec, and both numbers are descriptors of this process.
                if unsafe { libc::dup2(*number, to) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: it calls nothing but dup2(2).
        unsafe { command.pre_exec(place) };
        let mut running = Running::start(&mut command);
        drop(copies);
        eventually("the gateway serves", || {
            while self.hear() {}
            assert!(running.ended().is_none(), "{}", world.log());
            self.heard.iter().any(|text| text.starts_with("READY=1"))
        });
        self.heard.clear();
        running
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.kept.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

const NAMES: [&str; 4] = ["equipoise-keys", "equipoise-link", "equipoise-queue", "equipoise-state"];

#[test]
fn connections_do_not_notice_a_restart_by_a_manager_that_keeps_descriptors() {
    let world = World::new("take-store");
    let before = world.system();
    let mut manager = Manager::new(&world);
    let mut gateway = manager.start(&world, &configuration(&world));
    let mut talks = Talks::open(&world);
    let system = world.system();
    for round in 1..=2 {
        gateway.signal(rustix::process::Signal::TERM);
        manager.hear_the_end(&mut gateway);
        let names = manager.names();
        // Where the test may load no BPF program, there are no keys and links.
        assert!(names == NAMES || names == NAMES[2..], "{names:?} {}", world.log());
        assert_eq!(world.system(), system, "everything stays");
        // Servers and clients send meanwhile.
        std::thread::sleep(Duration::from_millis(300));
        gateway = manager.start(&world, &configuration(&world));
        eventually("nothing is kept any more", || {
            while manager.hear() {}
            manager.kept.is_empty()
        });
        talks.go_on(&format!("after restart {round}"));
        assert_eq!((world.totals().engine.flows_opened, ended(&world)), (FLOWS as u64, 0), "{}", world.log());
        assert_eq!(world.system(), system);
        assert!(!world.log().contains("WARN"), "{}", world.log());
    }
    // There is no next start.
    gateway.signal(rustix::process::Signal::TERM);
    manager.hear_the_end(&mut gateway);
    let mut cleanup = world.gateway.command(env!("CARGO_BIN_EXE_equipoise"));
    let cleaned = run(cleanup.args(["cleanup", "--stopped", "--config"]).arg(world.file()));
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    manager.kept.clear();
    eventually("nothing is left", || world.system() == before);
    drop(talks.idle);
    drop(talks.busy);
}

#[test]
fn what_a_manager_has_kept_and_is_of_no_use_is_named_and_closed() {
    let world = World::new("take-stale");
    world.servers.iter().for_each(serve);
    let mut manager = Manager::new(&world);
    // As in a child of the manager that has not executed its program yet.
    manager.lingers = Duration::from_millis(300);
    let mut gateway = manager.start(&world, &configuration(&world));
    for change in 0..3 {
        gateway.signal(rustix::process::Signal::TERM);
        manager.hear_the_end(&mut gateway);
        let text = if change == 0 {
            // Another table of routes needs another start.
            configuration(&world).replacen("[gateway]", "[gateway]\nroute-table = 7777", 1)
        } else {
            if change == 1 {
                manager.kept.retain(|(name, _)| name != "equipoise-state");
            } else {
                let gone = run(world.gateway.command("ip").args(["link", "delete", "equipoise0"]));
                assert!(gone.status.success(), "{}", String::from_utf8_lossy(&gone.stderr));
            }
            configuration(&world).replacen("[gateway]", "[gateway]\nroute-table = 7777", 1)
        };
        gateway = manager.start(&world, &text);
        let log = world.log();
        assert!(log.contains("cannot take over from the gateway that has stopped: "), "{log}");
        let why = ["route-table", "has not kept the state", "cannot query the TUN device passed to this process"];
        assert!(log.contains(why[change]), "{log}");
        let talks = Talks::connect(&world);
        talks.busy.into_iter().for_each(Busy::end);
    }
    gateway.signal(rustix::process::Signal::TERM);
    manager.hear_the_end(&mut gateway);
}
