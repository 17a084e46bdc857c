//! Whole networks inside one process, for the demo and the device tests: network namespaces, veth pairs, addresses
//! and routes, without external programs.
//!
//! A [`Namespace`] is a file descriptor of this process and nothing else: the kernel removes the namespace, with its
//! devices, routes and rules, when the last descriptor, thread and process in it are gone, even after `kill -9`.
//!
//! ```no_run
//! use equipoise::gateway::netns::Namespace;
//! let client = Namespace::new("client")?;
//! let server = Namespace::new("server")?;
//! client.cable("eth0", &server, "eth0")?;
//! client.address("eth0", "10.0.0.1/24".parse().unwrap())?;
//! server.address("eth0", "10.0.0.2/24".parse().unwrap())?;
//! let listener = server.run(|| std::net::TcpListener::bind("10.0.0.2:80"))??;
//! let connection = client.run(|| std::net::TcpStream::connect("10.0.0.2:80"))??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A socket belongs to the namespace in which it was opened, whichever thread uses it later.
#![allow(unsafe_code)] // unshare(2) in this thread and setns(2) between fork and exec have no safe wrapper.

use super::netlink::{Netlink, Route};
use super::sysctl;
use ipnet::IpNet;
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fmt;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// Why a namespace could not be created or changed.
#[derive(Debug)]
pub struct NetnsError(String);

impl fmt::Display for NetnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NetnsError {}

impl NetnsError {
    fn new(label: &str, what: impl fmt::Display) -> Self {
        NetnsError(format!("namespace {label}: {what}"))
    }
}

/// A network namespace of this process. Clones are the same namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    label: String,
    file: Arc<File>,
}

impl Namespace {
    /// Creates a namespace with loopback up and without duplicate address detection. `label` names it in errors, and
    /// names the threads that enter it.
    ///
    /// Needs CAP_SYS_ADMIN; see [`become_root_in_user_namespace`].
    pub fn new(label: &str) -> Result<Namespace, NetnsError> {
        let made = std::thread::Builder::new().name(label.into()).spawn(|| -> io::Result<File> {
            // SAFETY: only the network namespace is unshared, not the file descriptor table.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.and_then(|thread| thread.join().map_err(|_| io::Error::other("the thread panicked"))?);
        let file = file.map_err(|e| NetnsError::new(label, format!("creating it: {e}")))?;
        let namespace = Namespace { label: label.into(), file: Arc::new(file) };
        namespace.up("lo")?;
        // Otherwise a device's own IPv6 address is tentative for a second or two, during which nothing is forwarded.
        if namespace.run(|| sysctl::exists("net/ipv6/conf/default/accept_dad"))? {
            namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        }
        Ok(namespace)
    }

    /// Returns its label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Runs `work` in a thread inside the namespace, waits for it, and passes on its result, or its panic.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(self.label.clone()).spawn_scoped(scope, || {
                self.enter()?;
                Ok(work())
            });
            match thread.map_err(|e| NetnsError::new(&self.label, format!("starting a thread: {e}")))?.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Moves the calling thread into the namespace for good; threads that it starts later begin there too.
    pub fn enter(&self) -> Result<(), NetnsError> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| NetnsError::new(&self.label, format!("entering it: {e}")))
    }

    /// Returns the path by which other programs find it while this process lives: `nsenter --net=PATH curl ...`. If
    /// the process is in a user namespace, add `--user=/proc/PID/ns/user --preserve-credentials`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Returns a command that will run in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let file = Arc::clone(&self.file);
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call and does not allocate.
        unsafe {
            command.pre_exec(move || Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?));
        }
        command
    }

    /// Connects it to another namespace by a veth pair; both ends are up on return.
    ///
    /// Checksum and segmentation offload stay enabled, the kernel's default.
    pub fn cable(&self, device: &str, other: &Namespace, others_device: &str) -> Result<(), NetnsError> {
        self.netlink(|netlink| netlink.add_veth(device, others_device, other.file.as_fd()))?;
        self.up(device)?;
        other.up(others_device)
    }

    /// Brings a device up.
    pub fn up(&self, device: &str) -> Result<(), NetnsError> {
        let index = self.index(device)?;
        self.netlink(|netlink| netlink.set_link(device, index, LinkFlags::Up, LinkFlags::Up, Vec::new()))
    }

    /// Sets a device's MTU, in bytes.
    pub fn mtu(&self, device: &str, mtu: u32) -> Result<(), NetnsError> {
        let index = self.index(device)?;
        let attributes = vec![LinkAttribute::Mtu(mtu)];
        self.netlink(|netlink| netlink.set_link(device, index, LinkFlags::empty(), LinkFlags::empty(), attributes))
    }

    /// Adds an address to a device, usable at once.
    pub fn address(&self, device: &str, address: IpNet) -> Result<(), NetnsError> {
        let index = self.index(device)?;
        self.netlink(|netlink| netlink.add_address(device, index, address))
    }

    /// Routes a network through a device, via the next hop `via` if given.
    pub fn route(&self, to: IpNet, device: &str, via: Option<IpAddr>) -> Result<(), NetnsError> {
        let device = self.index(device)?;
        self.netlink(|netlink| netlink.add_route(Route { to, device, via, table: 254, protocol: 4, metric: 0 }))
    }

    /// Adds a default route via a next hop, for the next hop's family.
    pub fn default_route(&self, device: &str, via: IpAddr) -> Result<(), NetnsError> {
        let any = if via.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let any = IpNet::new(any, 0).map_err(|e| NetnsError::new(&self.label, e))?;
        self.route(any, device, Some(via))
    }

    /// Sets a kernel parameter of the namespace: `net/ipv4/ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), NetnsError> {
        self.run(|| sysctl::set(name, value))?.map_err(|e| NetnsError::new(&self.label, e))
    }

    /// Enables forwarding of both families.
    pub fn forward(&self) -> Result<(), NetnsError> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Returns the names of its devices.
    pub fn devices(&self) -> Result<Vec<String>, NetnsError> {
        Ok(self.netlink(Netlink::links)?.into_iter().map(|(_, name)| name).collect())
    }

    /// Counts the policy rules and routes, of both families, that carry a protocol number (`RTPROT_*`).
    pub fn marked(&self, protocol: u8) -> Result<usize, NetnsError> {
        self.run(|| super::setup::count_marked(protocol))?.map_err(|e| NetnsError::new(&self.label, e))
    }

    fn index(&self, device: &str) -> Result<u32, NetnsError> {
        let link = self.netlink(|netlink| netlink.link(device))?;
        link.map(|l| l.index).ok_or_else(|| NetnsError::new(&self.label, format!("it has no device {device}")))
    }

    fn netlink<T: Send, E: fmt::Display + Send>(
        &self,
        work: impl FnOnce(&mut Netlink) -> Result<T, E> + Send,
    ) -> Result<T, NetnsError> {
        let explain = |e: &dyn fmt::Display| NetnsError::new(&self.label, e);
        let mut netlink = self.run(Netlink::open)?.map_err(|e| explain(&e))?;
        work(&mut netlink).map_err(|e| explain(&e))
    }
}

/// Enables this process to create namespaces: root needs nothing, others get a user namespace of their own.
///
/// To be called before the process starts any thread. The error says what is missing and how to fix it.
pub fn become_root_in_user_namespace() -> Result<(), NetnsError> {
    if can_make_namespaces() {
        return Ok(());
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: a user namespace leaves memory and file descriptors alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(|e| NetnsError(no_user_namespace(e.into())))?;
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), &text)
            .map_err(|e| NetnsError(format!("writing \"{text}\" to /proc/self/{file} of the new user namespace: {e}")))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))?;
    if can_make_namespaces() {
        return Ok(());
    }
    Err(NetnsError(no_user_namespace(io::Error::from_raw_os_error(libc::EPERM))))
}

/// Returns whether the process has the capabilities to create network namespaces.
fn can_make_namespaces() -> bool {
    // Not simply tried in a thread: a process with two threads can no longer create a user namespace.
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim).unwrap_or_default();
    const CAP_NET_ADMIN: u64 = 1 << 12;
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let needed = CAP_NET_ADMIN | CAP_SYS_ADMIN;
    u64::from_str_radix(effective, 16).is_ok_and(|have| have & needed == needed)
}

/// Explains why no user namespace could be created, from the parameters by which kernels and distributions forbid it.
fn no_user_namespace(e: io::Error) -> String {
    let is = |name: &str, value: &str| sysctl::get(name).is_ok_and(|v| v == value);
    let fix = if is("user/max_user_namespaces", "0") {
        "user.max_user_namespaces is 0; as root: sysctl -w user.max_user_namespaces=10000"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "kernel.unprivileged_userns_clone is 0; as root: sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor forbids them; as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        match e.raw_os_error() {
            Some(libc::EINVAL) => "this process has already started a thread",
            Some(libc::ENOSPC | libc::EUSERS) => "there are too many; as root: raise user.max_user_namespaces",
            Some(libc::ENOSYS) => "the kernel is built without them (CONFIG_USER_NS)",
            _ => "a container's seccomp filter or a security module forbids it: allow unshare(2) there",
        }
    };
    format!("this needs root or a user namespace of its own, which could not be created: {e}; {fix}; or run it as root")
}

#[cfg(test)]
mod tests {
    use super::super::testing::namespace;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn two_namespaces_talk_over_a_cable_in_both_families() {
        let (Some(a), Some(b)) = (namespace("eq-ns1a"), namespace("eq-ns1b")) else { return };
        a.cable("one", &b, "two").unwrap();
        for (ours, theirs, at) in
            [("10.1.0.1/24", "10.1.0.2/24", "10.1.0.2:80"), ("fd01::1/64", "fd01::2/64", "[fd01::2]:80")]
        {
            a.address("one", ours.parse().unwrap()).unwrap();
            b.address("two", theirs.parse().unwrap()).unwrap();
            let listener = b.run(|| TcpListener::bind(at)).unwrap().unwrap();
            let mut connection = a.run(|| TcpStream::connect(at)).unwrap().unwrap();
            connection.write_all(b"hello").unwrap();
            drop(connection);
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
        assert_eq!(a.devices().unwrap(), ["lo", "one"]);
        assert_eq!(b.devices().unwrap(), ["lo", "two"]);
    }

    #[test]
    fn commands_and_paths_lead_into_the_namespace() {
        let Some(ns) = namespace("eq-ns2") else { return };
        let inside = ns.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
        assert_ne!(
            inside,
            std::fs::read_link("/proc/thread-self/ns/net").unwrap(),
            "run leaves the caller where it is"
        );
        let output = ns.command("readlink").arg("/proc/self/ns/net").output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), inside.to_str().unwrap());
        assert_eq!(std::fs::read_link(ns.path()).unwrap(), inside);
    }

    #[test]
    fn a_namespace_dies_with_its_last_handle() {
        let (Some(a), Some(b)) = (namespace("eq-ns3a"), namespace("eq-ns3b")) else { return };
        a.cable("one", &b, "two").unwrap();
        let clone = b.clone();
        drop(b);
        assert_eq!(a.devices().unwrap(), ["lo", "one"]);
        drop(clone);
        // The kernel takes namespaces down in a worker of its own.
        let gone = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            a.devices().unwrap() == ["lo"]
        });
        assert!(gone, "the far end of the cable still lives");
    }

    #[test]
    fn errors_name_the_namespace_and_the_thing() {
        let Some(ns) = namespace("eq-ns4") else { return };
        let cases = [
            (ns.up("nosuch"), "namespace eq-ns4: it has no device nosuch"),
            (ns.sysctl("net/nosuch", "1"), "/proc/sys/net/nosuch"),
            (ns.route("10.0.0.0/8".parse().unwrap(), "lo", Some("10.9.9.9".parse().unwrap())), "invalid gateway"),
        ];
        for (result, want) in cases {
            let e = result.unwrap_err().to_string();
            assert!(e.contains(want), "{want} in: {e}");
        }
    }
}
