//! A gateway under a service manager: a stand-in for systemd, with the socket that sd_notify(3) describes.

use crate::WEB;
use crate::world::{PATIENCE, World, run};
use rustix::process::Signal;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Half of it is the pause between two signs of life.
const WATCHDOG: Duration = Duration::from_millis(400);
const ALIVE: &str = "WATCHDOG=1";
const ECHO: crate::Service = ("echo", "7/udp", 3, 7);

/// Returns the next message; none if there is none for this long.
fn heard(socket: &UnixDatagram, patience: Duration) -> Option<String> {
    let mut bytes = [0; 4096];
    socket.set_read_timeout(Some(patience)).unwrap();
    match socket.recv(&mut bytes) {
        Ok(read) => Some(String::from_utf8(bytes[..read].to_vec()).unwrap()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_service_manager_hears_of_the_start_of_life_of_reloads_and_of_the_end() {
    let world = World::new("manager");
    let _nginx = world.nginx();
    let path = world.dir.path().join("notify").to_str().unwrap().to_owned();
    let name = "equipoise-test-manager";
    let addresses = [
        (path.clone(), SocketAddr::from_pathname(&path).unwrap()),
        (format!("@{name}"), SocketAddr::from_abstract_name(name).unwrap()),
    ];
    for (written, address) in addresses {
        // Abstract addresses belong to a network namespace.
        let socket = world.gateway.run(|| UnixDatagram::bind_addr(&address).unwrap()).unwrap();
        let (named, limit) = (format!("NOTIFY_SOCKET={written}"), format!("WATCHDOG_USEC={}", WATCHDOG.as_micros()));
        let gateway =
            world.start_by(&world.configuration("", &[WEB]), &["env", "--default-signal=HUP", &named, &limit]);
        let first = heard(&socket, PATIENCE);
        assert_eq!(first.as_deref(), Some("READY=1\nSTATUS=1 service, 3 servers; device equipoise0"), "{written}");
        assert!(run(&mut world.curl(0, "")).status.success(), "it is ready");
        for _ in 0..3 {
            assert_eq!(heard(&socket, PATIENCE).as_deref(), Some(ALIVE), "{written}");
        }
        let next =
            || std::iter::repeat_with(|| heard(&socket, PATIENCE)).flatten().find(|message| message != ALIVE).unwrap();
        std::fs::write(world.file(), world.configuration("", &[WEB, ECHO])).unwrap();
        gateway.signal(Signal::HUP);
        let reloading = next();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(next(), "READY=1\nSTATUS=2 services, 6 servers; device equipoise0", "{written}");
        std::fs::write(world.file(), "nonsense").unwrap();
        gateway.signal(Signal::HUP);
        assert!(next().starts_with("RELOADING=1\n"), "{written}");
        assert_eq!(next(), "READY=1\nSTATUS=2 services, 6 servers; device equipoise0", "nothing changed");
        gateway.signal(Signal::STOP);
        while heard(&socket, WATCHDOG).is_some() {}
        assert_eq!(heard(&socket, 2 * WATCHDOG), None, "a loop that hangs is silent");
        gateway.signal(Signal::CONT);
        assert_eq!(heard(&socket, PATIENCE).as_deref(), Some(ALIVE), "{written}");
        assert!(gateway.terminate().success());
        let mut last = String::new();
        while let Some(message) = heard(&socket, Duration::from_millis(1)) {
            last = message;
        }
        assert_eq!(last, "STOPPING=1\nSTATUS=stopping", "{written}");
        assert!(!world.log().contains("manager"), "{}", world.log());
    }
}
