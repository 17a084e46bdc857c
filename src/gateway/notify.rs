//! Messages to a service manager that speaks the protocol of sd_notify(3), such as systemd: ready, reloading, stopping,
//! alive.
//!
//! The socket is connected before the process gives up its privileges and stays connected, so that afterwards it may send
//! to this one place and needs no file, no capability and no other socket. The crate sd-notify connects for every message,
//! which Landlock refuses for abstract addresses; hence a module of our own. Nothing else depends on whether there is a
//! manager. It must not know why something is reported.

use super::takeover::passing;
use crate::config::{Settings, plural};
use crate::time::{Duration, Instant};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Pause before another attempt, while the manager's socket is full.
const RETRY: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the manager.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connection to the service manager; without one, messages go nowhere.
///
/// It never waits: a manager that does not read costs messages and no packets. A message about the state of the gateway is
/// repeated until it is sent or a later one replaces it.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// How often the manager wants to hear that the gateway is alive.
    pause: Option<Duration>,
    /// When it is to hear that next.
    alive: Option<Instant>,
    /// What could not be sent yet, and when to try again.
    unsent: Option<String>,
    retry: Option<Instant>,
    /// Whether a failure has been logged since the last success.
    complained: bool,
    /// How many descriptors the manager keeps for the next start.
    keeps: usize,
}

impl Notifier {
    /// Connects to the manager that the environment names: `NOTIFY_SOCKET`, a path or an abstract address that begins with
    /// "@". `WATCHDOG_USEC` says after how many microseconds of silence it considers the process hung, unless `WATCHDOG_PID`
    /// names another one (sd_watchdog_enabled(3)). A value that cannot be used is logged.
    pub fn from_environment() -> Notifier {
        Notifier::from_variables(|name| env::var_os(name))
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Notifier {
        let Some(address) = get("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Notifier::default();
        };
        let socket = match connect(&address) {
            Ok(socket) => socket,
            Err(error) => {
                log::warn!(
                    "the service manager cannot be notified: cannot connect to NOTIFY_SOCKET={}: {error}",
                    address.display()
                );
                return Notifier::default();
            }
        };
        let is_ours = |pid: OsString| pid.to_str() == Some(&std::process::id().to_string());
        let limit = get("WATCHDOG_USEC").filter(|_| get("WATCHDOG_PID").is_none_or(is_ours));
        let pause = limit.and_then(|limit| {
            let micros = limit.to_str().and_then(|limit| limit.parse().ok()).filter(|micros| *micros > 1);
            if micros.is_none() {
                log::warn!("no watchdog: WATCHDOG_USEC={} is not a number of microseconds over 1", limit.display());
            }
            Some(Duration::from_micros(micros?) / 2)
        });
        // Set by systemd since version 254, and by the unit for older ones.
        let keeps = get("FDSTORE").and_then(|most| most.to_str()?.parse().ok()).unwrap_or(0);
        Notifier { socket: Some(socket), pause, keeps, ..Notifier::default() }
    }

    /// Returns how many descriptors the manager keeps for the next start of the service; 0 if it does not do that.
    pub fn keeps(&self) -> usize {
        self.keeps
    }

    /// Gives descriptors to the manager under a name: it passes them to the next start of the service, or closes them if
    /// there is none.
    ///
    /// # Errors
    /// That of the system; some may be kept then.
    pub fn keep(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Err(ErrorKind::NotConnected.into()) };
        // A manager that looked at their events would drop a device that is down.
        let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        descriptors
            .chunks(passing::MOST)
            .try_for_each(|some| patient(|| passing::send(socket, message.as_bytes(), some)))
    }

    /// Has the manager close what it keeps under a name.
    pub fn forget(&self, name: &str) {
        if let Some(socket) = &self.socket {
            let message = format!("FDSTOREREMOVE=1\nFDNAME={name}");
            let _ = patient(|| socket.send(message.as_bytes()).map(drop));
        }
    }

    /// Waits until the manager has taken note of everything before; returns whether it has (`BARRIER=1`).
    pub fn barrier(&self) -> bool {
        let (Some(socket), Ok((read, write))) = (&self.socket, io::pipe()) else { return false };
        if patient(|| passing::send(socket, b"BARRIER=1", &[write.as_fd()])).is_err() {
            return false;
        }
        drop(write);
        let mut all = [PollFd::new(&read, PollFlags::empty())];
        let most = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        poll(&mut all, Some(&most)).is_ok() && all[0].revents().contains(PollFlags::HUP)
    }

    /// Reports that the gateway forwards packets, after the start or after a reload, with a line for the operator.
    pub fn ready(&mut self, status: &str) {
        self.report(format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Reports that a new configuration is being applied; [`Notifier::ready`] is to follow, whatever comes of it.
    pub fn reloading(&mut self) {
        // Managers since systemd 253 compare it with the time at which they asked for the reload.
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.report(format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
    }

    /// Reports that the gateway removes what it installed, and ends.
    pub fn stopping(&mut self) {
        self.report("STOPPING=1\nSTATUS=stopping".into());
    }

    /// Sends what is due: that the gateway is alive, and what could not be sent before. To be called in every turn of the
    /// event loop, so that silence means that the loop hangs.
    pub(super) fn work(&mut self, now: Instant) {
        if self.unsent.is_some() && self.retry.is_none_or(|retry| retry <= now) {
            self.retry = Some(now + RETRY);
            self.flush();
        }
        let Some(pause) = self.pause else { return };
        if self.alive.is_none_or(|due| due <= now) {
            let sent = self.send("WATCHDOG=1");
            self.alive = Some(now + if sent { pause } else { pause.min(RETRY) });
        }
    }

    /// Returns when [`Notifier::work`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.alive.into_iter().chain(self.retry.filter(|_| self.unsent.is_some())).min()
    }

    fn report(&mut self, message: String) {
        if self.socket.is_some() {
            (self.unsent, self.retry) = (Some(message), None);
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(message) = self.unsent.take()
            && !self.send(&message)
        {
            self.unsent = Some(message);
        }
    }

    /// Sends a message; returns false if it is to be sent again.
    fn send(&mut self, message: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        match socket.send(message.as_bytes()) {
            Ok(_) => self.complained = false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    log::warn!("the service manager cannot be notified: {error}; `systemctl status` may be wrong");
                }
            }
        }
        true
    }
}

/// Returns the line about a gateway with these settings that a service manager shows.
pub fn status(settings: &Settings) -> String {
    let device = &settings.gateway.device;
    match settings.services.len() {
        0 => format!("idle: no service is configured; device {device}"),
        services => {
            let servers = plural(settings.servers.len(), "server");
            format!("{}, {servers}; device {device}", plural(services, "service"))
        }
    }
}

/// Repeats what has no room for a while: nobody waits for packets any more.
fn patient(mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let begun = std::time::Instant::now();
    loop {
        match send() {
            Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

/// A line feed would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::new(ErrorKind::InvalidInput, "neither a path nor an abstract address (\"@...\")")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::confine;

    /// A stand-in for the manager, at a path or an abstract address; the environment that names it.
    struct Manager {
        socket: UnixDatagram,
        address: OsString,
        _dir: tempfile::TempDir,
    }

    impl Manager {
        fn new(is_abstract: bool) -> Manager {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let (address, at) = if is_abstract {
                let mut address = OsString::from("@");
                address.push(&path);
                (address, SocketAddr::from_abstract_name(path.as_os_str().as_bytes()).unwrap())
            } else {
                (path.clone().into_os_string(), SocketAddr::from_pathname(&path).unwrap())
            };
            let socket = UnixDatagram::bind_addr(&at).unwrap();
            socket.set_nonblocking(true).unwrap();
            Manager { socket, address, _dir: dir }
        }

        fn notifier(&self, watchdog: &[(&str, &str)]) -> Notifier {
            let get = |name: &str| match name {
                "NOTIFY_SOCKET" => Some(self.address.clone()),
                _ => watchdog.iter().find(|(of, _)| *of == name).map(|(_, value)| value.into()),
            };
            Notifier::from_variables(get)
        }

        /// What has come since the last call.
        fn heard(&self) -> Vec<String> {
            let mut all = Vec::new();
            let mut bytes = [0; 4096];
            while let Ok(read) = self.socket.recv(&mut bytes) {
                all.push(String::from_utf8(bytes[..read].to_vec()).unwrap());
            }
            all
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn the_manager_hears_of_start_reload_and_stop_at_either_kind_of_address() {
        for is_abstract in [false, true] {
            let manager = Manager::new(is_abstract);
            let mut notifier = manager.notifier(&[]);
            notifier.ready("2 services\nMAINPID=1");
            assert_eq!(manager.heard(), ["READY=1\nSTATUS=2 services MAINPID=1"]);
            let micros = || {
                let now = clock_gettime(ClockId::Monotonic);
                now.tv_sec * 1_000_000 + now.tv_nsec / 1000
            };
            let before = micros();
            notifier.reloading();
            let heard = manager.heard();
            let after = micros();
            let lines: Vec<&str> = heard.iter().flat_map(|message| message.lines()).collect();
            assert_eq!((heard.len(), lines[0], lines[2]), (1, "RELOADING=1", "STATUS=reloading"));
            let stamp: i64 = lines[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
            assert!((before..=after).contains(&stamp), "{before} {stamp} {after}");
            notifier.ready("3 services");
            notifier.stopping();
            assert_eq!(manager.heard(), ["READY=1\nSTATUS=3 services", "STOPPING=1\nSTATUS=stopping"]);
            notifier.work(at(0));
            assert_eq!((manager.heard(), notifier.poll_timeout()), (vec![], None), "no watchdog was asked for");
        }
    }

    #[test]
    fn the_watchdog_is_fed_at_half_of_its_time_and_only_if_it_is_ours() {
        let manager = Manager::new(false);
        let own = std::process::id().to_string();
        for pid in [&[][..], &[("WATCHDOG_PID", own.as_str())]] {
            let mut notifier = manager.notifier(&[&[("WATCHDOG_USEC", "3000000")], pid].concat());
            notifier.work(at(10));
            assert_eq!(manager.heard(), ["WATCHDOG=1"]);
            assert_eq!(notifier.poll_timeout(), Some(at(1510)));
            notifier.work(at(1509));
            assert_eq!(manager.heard(), Vec::<String>::new());
            notifier.work(at(1600));
            assert_eq!(manager.heard(), ["WATCHDOG=1"]);
            assert_eq!(notifier.poll_timeout(), Some(at(3100)));
        }
        for watchdog in [
            &[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")][..],
            &[("WATCHDOG_USEC", "soon")],
            &[("WATCHDOG_USEC", "0")],
        ] {
            let mut notifier = manager.notifier(watchdog);
            notifier.work(at(0));
            assert_eq!((manager.heard(), notifier.poll_timeout()), (vec![], None), "{watchdog:?}");
        }
    }

    #[test]
    fn without_a_manager_or_with_an_address_that_leads_nowhere_nothing_is_sent() {
        for address in [None, Some(""), Some("vsock:2:1"), Some("relative"), Some("/nonexistent/notify")] {
            let mut notifier = Notifier::from_variables(|name| match name {
                "NOTIFY_SOCKET" => address.map(OsString::from),
                _ => Some("1000000".into()),
            });
            notifier.ready("x");
            notifier.work(at(0));
            notifier.stopping();
            assert_eq!(notifier.poll_timeout(), None, "{address:?}");
        }
        let manager = Manager::new(false);
        let mut notifier = manager.notifier(&[]);
        drop(manager);
        notifier.ready("nobody listens");
        assert!(notifier.complained && notifier.unsent.is_none());
    }

    #[test]
    fn a_manager_that_does_not_read_stops_nothing_and_hears_the_last_state_later() {
        let manager = Manager::new(false);
        let mut notifier = manager.notifier(&[("WATCHDOG_USEC", "2000000")]);
        let mut sent = 0;
        while notifier.send("WATCHDOG=1") {
            sent += 1;
            assert!(sent < 1_000_000, "the socket never fills");
        }
        notifier.reloading();
        notifier.ready("1 service");
        notifier.work(at(0));
        assert_eq!(notifier.poll_timeout(), Some(at(100)));
        assert!(manager.heard().iter().all(|message| message == "WATCHDOG=1"));
        notifier.work(at(99));
        assert_eq!(manager.heard(), Vec::<String>::new());
        notifier.work(at(100));
        assert_eq!(manager.heard(), ["READY=1\nSTATUS=1 service", "WATCHDOG=1"]);
        assert_eq!(notifier.poll_timeout(), Some(at(1100)));
    }

    #[test]
    fn a_confined_thread_reaches_its_manager_and_no_other_socket() {
        let (manager, other) = (Manager::new(true), Manager::new(true));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut notifier = manager.notifier(&[]);
                confine::idle_thread();
                notifier.ready("confined");
                let error = connect(&other.address).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "the tests need Linux 6.12 or newer: {error}");
            });
        });
        assert_eq!(manager.heard(), ["READY=1\nSTATUS=confined"]);
    }

    #[test]
    fn the_status_says_what_the_gateway_does_or_that_it_is_idle() {
        let text = std::fs::read_to_string("fixtures/config/minimal.toml").unwrap();
        let settings = crate::config::parse(&text, "minimal.toml").unwrap();
        assert_eq!(status(&settings), "1 service, 1 server; device equipoise0");
        assert_eq!(status(&Settings::default()), "idle: no service is configured; device equipoise0");
    }
}
