//! Least privilege: once everything is set up, the process gives up what forwarding does not need.
//!
//! It keeps CAP_NET_ADMIN (netlink, TUN), the files of its own set-up and a list of system calls. Whoever takes over the
//! process by a packet cannot start a program, read other files, open TCP connections (other than to the port of a resolver,
//! if names are resolved), reach abstract sockets or signal other processes. The service manager's socket stays connected from
//! before ([`super::notify`]).

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, path_beneath_rules,
};
use rustix::io::Errno;
use rustix::thread::{self as task, CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the gateway keeps: routes, rules and devices are changed with it.
pub const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN;

/// What Landlock is asked for; an older kernel does what it knows.
const ASKED: ABI = ABI::V6;

/// Files that the process may still use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Files and directories to read.
    pub read: Vec<PathBuf>,
    /// Files and directories to read and write.
    pub write: Vec<PathBuf>,
    /// Directories in which sockets may be created and removed.
    pub sockets: Vec<PathBuf>,
    /// Directories in which files may be written and replaced.
    pub replaced: Vec<PathBuf>,
    /// TCP ports that may be connected to: those of resolvers.
    pub ports: Vec<u16>,
}

impl Files {
    /// Those of a running gateway with this control socket: its own, sysctls of the network and the TUN driver.
    pub fn of_gateway(control_socket: &Path) -> Files {
        // A bare file name has the parent "".
        let parent = control_socket.parent().filter(|parent| !parent.as_os_str().is_empty());
        Files {
            read: vec!["/proc/self".into(), "/sys/class/net".into()],
            write: vec!["/proc/sys/net".into(), "/dev/net/tun".into()],
            sockets: vec![parent.unwrap_or(Path::new(".")).into()],
            replaced: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// Also those of the sources of servers: directories with their files, and TCP ports of resolvers.
    pub fn with_sources(mut self, directories: Vec<PathBuf>, ports: Vec<u16>) -> Files {
        self.read.extend(directories);
        self.ports.extend(ports);
        self
    }
}

/// Confines the whole process, whose other threads must have given up their own privileges with [`idle_thread`].
///
/// Returns what the system does not support or refuses, a line each; the gateway works all the same.
pub fn process(files: &Files) -> Vec<String> {
    let mut missed = Vec::new();
    let mut note = |what: &str, result: Result<(), String>| missed.extend(result.err().map(|e| format!("{what}: {e}")));
    note("cannot give up capabilities", keep_capabilities(KEPT));
    note("cannot restrict files (Landlock)", restrict_files(files));
    note("cannot restrict system calls (seccomp)", restrict_calls());
    missed
}

/// Confines the calling thread, which only uses files that are open already. What the system does not support is left
/// out: [`process`] names it.
pub fn idle_thread() {
    let _ = keep_capabilities(CapabilitySet::empty());
    let _ = restrict_files(&Files::default());
}

/// Confines the calling thread, which only writes and replaces files in a directory, without capabilities. What the system
/// does not support is left out: [`process`] names it.
pub fn writing_thread(directory: &Path) {
    let _ = keep_capabilities(CapabilitySet::empty());
    let _ = restrict_files(&Files { replaced: vec![directory.into()], ..Files::default() });
}

/// Confines the calling thread, which only reads a configuration file, or another one that takes its place in the
/// directory. What the system does not support is left out: [`process`] names it.
pub fn reading_thread(config: Option<&Path>) {
    let directory = |path: &Path| path.parent().map(Path::to_owned);
    let own = config.and_then(directory);
    // The file may be a link to where it really is.
    let real = config.and_then(|path| path.canonicalize().ok()).and_then(|path| directory(&path));
    // What was read at the start can be read again, whoever owns it.
    let _ = keep_capabilities(CapabilitySet::DAC_READ_SEARCH);
    let _ = restrict_files(&Files { read: own.into_iter().chain(real).collect(), ..Files::default() });
}

/// Confines the calling thread, which only listens on TCP ports and answers there: it may bind any that needs
/// no privilege, as a reload may name another one, connect to none, and open no file. What the system does not support is left out: [`process`] names it.
pub fn serving_thread() {
    let _ = keep_capabilities(CapabilitySet::empty());
    let _ = restrict(&Files::default(), AccessNet::ConnectTcp.into());
}

/// Reduces the capabilities of the calling thread to `kept`, and forbids it to gain others (no_new_privs, prctl(2)).
fn keep_capabilities(kept: CapabilitySet) -> Result<(), String> {
    let failed = |doing: &'static str| move |error: Errno| format!("{doing}: {error}");
    task::set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    let have = task::capabilities(None).map_err(failed("read them"))?;
    // Bounding and ambient sets only matter to programs that the process starts.
    for one in CapabilitySet::all().iter().filter(|one| !kept.contains(*one)) {
        match task::remove_capability_from_bounding_set(one) {
            // EPERM: an ordinary user; EINVAL: newer than the kernel.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(format!("bounding set: {error}")),
        }
    }
    task::clear_ambient_capability_set().map_err(failed("ambient set"))?;
    let rest = have.permitted & kept;
    let sets = CapabilitySets { effective: rest, permitted: rest, inheritable: CapabilitySet::empty() };
    task::set_capabilities(None, sets).map_err(failed("set them"))
}

/// Restricts the calling thread to `files` and the TCP ports among them, without signals to other processes.
fn restrict_files(files: &Files) -> Result<(), String> {
    restrict(files, AccessNet::from_all(ASKED))
}

/// The same with a choice of what is not done with other TCP ports.
fn restrict(files: &Files, net: BitFlags<AccessNet>) -> Result<(), String> {
    let read = AccessFs::from_read(ASKED) & !AccessFs::Execute;
    let write = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let sockets = AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::Refer | AccessFs::ReadDir;
    let replaced =
        AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    let enforce = || {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ASKED))?
            .handle_access(net)?
            .scope(Scope::from_all(ASKED))?
            .create()?
            .add_rules(path_beneath_rules(&files.read, read))?
            .add_rules(path_beneath_rules(&files.write, write))?
            .add_rules(path_beneath_rules(&files.sockets, sockets))?
            .add_rules(path_beneath_rules(&files.replaced, replaced))?
            .add_rules(
                files
                    .ports
                    .iter()
                    .map(|port| Ok::<_, landlock::RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp))),
            )?;
        ruleset.restrict_self()
    };
    match enforce().map_err(|error: landlock::RulesetError| error.to_string())?.ruleset {
        landlock::RulesetStatus::NotEnforced => Err("the kernel does not support it, or it is not enabled".into()),
        landlock::RulesetStatus::FullyEnforced | landlock::RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

/// Restricts all threads to the system calls of [`allowed`]; others fail with EPERM, so that one that was forgotten costs
/// a function and not the gateway.
fn restrict_calls() -> Result<(), String> {
    let text = |error: seccompiler::Error| error.to_string();
    for filter in filters().map_err(|error| error.to_string())? {
        apply_filter_all_threads(&filter).map_err(text)?;
    }
    Ok(())
}

fn filters() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let (permitted, refused) = (SeccompAction::Allow, |errno: Errno| SeccompAction::Errno(errno.raw_os_error() as u32));
    // The flags of clone3(2) are out of a filter's sight. The C library falls back to clone(2) if it does not exist.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let clone3 = SeccompFilter::new(clone3, permitted.clone(), refused(Errno::NOSYS), arch)?;
    // Of two refusals the later filter's would count, which is EPERM: there is no falling back from that.
    let mut calls = allowed()?;
    calls.insert(libc::SYS_clone3, Vec::new());
    let rest = SeccompFilter::new(calls, refused(Errno::PERM), permitted, arch)?;
    Ok([clone3.try_into()?, rest.try_into()?])
}

/// System calls that a running gateway makes, and those that the libraries below it may make instead.
fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().chain(OLDER).map(|call| (*call, Vec::new())).collect();
    // Threads, but no processes.
    let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
    let is_thread = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), thread)?;
    calls.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread])?]);
    Ok(calls)
}

/// On every architecture.
const CALLS: &[i64] = &[
    // Packets, sockets, files.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fsync,
    libc::SYS_flock,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_bpf,
    // Memory, threads, time.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_prctl,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Itself: identity, limits, signals, the end.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Older forms, which newer architectures do not have.
#[cfg(target_arch = "aarch64")]
const OLDER: &[i64] = &[libc::SYS_renameat];
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
const OLDER: &[i64] = &[];
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_renameat,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_accept,
    libc::SYS_dup2,
    libc::SYS_time,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;

    /// Runs `body` in a thread of its own, whose restrictions end with it.
    fn aside<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(body).join().unwrap()
    }

    #[test]
    fn only_the_named_files_and_no_tcp_remain() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let sysctl = dir.path().join("sysctl");
        let config = other.path().join("config");
        fs::write(&sysctl, "0").unwrap();
        fs::write(&config, "x").unwrap();
        let allowed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let other_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let files = Files {
            read: vec![config.clone()],
            write: vec![sysctl.clone()],
            sockets: vec![dir.path().into()],
            replaced: Vec::new(),
            ports: vec![allowed.port()],
        };
        aside(move || {
            restrict_files(&files).expect("Landlock: the tests need Linux 5.13 or newer with it enabled");
            let denied =
                |result: std::io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            fs::write(&sysctl, "1").unwrap();
            let socket = dir.path().join("socket");
            drop(UnixListener::bind(&socket).unwrap());
            fs::rename(&socket, dir.path().join("control.sock")).unwrap();
            fs::remove_file(dir.path().join("control.sock")).unwrap();
            assert_eq!(fs::read_to_string(&config).unwrap(), "x");
            denied(fs::write(&config, "y"));
            denied(File::open("/etc/passwd").map(drop));
            denied(fs::write(dir.path().join("new"), "z"));
            denied(TcpListener::bind("127.0.0.1:0").map(drop));
            denied(TcpStream::connect(other_port).map(drop));
            assert_eq!(TcpStream::connect(allowed).unwrap_err().kind(), ErrorKind::ConnectionRefused, "nobody listens");
        });
    }

    #[test]
    fn a_thread_that_writes_a_state_can_do_that_and_no_more() {
        use crate::gateway::state::file::{Clocks, Draft, FileError, Header, State};
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let header = Header { clocks: Clocks::read() };
        fs::write(other.path().join("file"), "x").unwrap();
        let path = dir.path().join("state");
        let own = path.clone();
        aside(move || {
            writing_thread(dir.path());
            for records in [b"one".as_slice(), b"two"] {
                let mut draft = Draft::create(&own, &header).unwrap();
                draft.write(records).unwrap();
                draft.finish().unwrap();
            }
            let denied = |result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            denied(File::open(other.path().join("file")).map(drop));
            denied(fs::write(other.path().join("new"), "z"));
            denied(TcpListener::bind("127.0.0.1:0").map(drop));
            assert_eq!(task::capabilities(None).unwrap().effective, CapabilitySet::empty());
            // It writes what others read.
            denied(State::open(&own).map(drop).map_err(|error| match error {
                FileError::Io(error) => error,
                other => panic!("{other}"),
            }));
            drop(dir);
        });
    }

    #[test]
    fn the_thread_that_serves_may_listen_anywhere_and_do_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        aside(move || {
            serving_thread();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let denied = |result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            for at in [&listener, &other] {
                denied(TcpStream::connect(at.local_addr().unwrap()).map(drop));
            }
            denied(TcpListener::bind("127.0.0.1:80").map(drop));
            denied(File::open(&path).map(drop));
            assert_eq!(task::capabilities(None).unwrap().effective, CapabilitySet::empty());
        });
    }

    #[test]
    fn a_thread_keeps_the_named_capabilities_only() {
        aside(|| {
            let had = task::capabilities(None).unwrap().permitted;
            keep_capabilities(KEPT).unwrap();
            let sets = task::capabilities(None).unwrap();
            assert_eq!(sets.permitted, had & KEPT);
            assert_eq!(sets.effective, had & KEPT);
            assert!(task::no_new_privs().unwrap());
            keep_capabilities(CapabilitySet::empty()).unwrap();
            assert_eq!(task::capabilities(None).unwrap().effective, CapabilitySet::empty());
        });
    }

    #[test]
    fn the_filters_compile_and_know_what_is_dangerous() {
        assert!(filters().unwrap().iter().all(|filter| !filter.is_empty()));
        let allowed = allowed().unwrap();
        let dangerous = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_setuid,
            libc::SYS_kill,
            libc::SYS_init_module,
            libc::SYS_io_uring_setup,
            libc::SYS_clone3,
        ];
        assert!(dangerous.iter().all(|call| !allowed.contains_key(call)));
        assert!(!allowed[&libc::SYS_clone].is_empty(), "only with a condition");
    }
}
