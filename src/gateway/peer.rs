//! Who is at the other end of a Unix socket.

#![allow(unsafe_code, reason = "getsockopt: the safe form takes no process ID of 0, which another PID namespace has")]

use crate::config::changes::Who;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

/// Returns the user and process that connected a socket, as they were then (SO_PEERCRED, unix(7)).
///
/// The process ID is 0 for a process that has none in the namespace of this one.
pub(super) fn who(stream: &impl AsRawFd) -> io::Result<Who> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `found` is a plain C struct of `length` bytes that lives throughout the call, and the kernel writes at most
    // `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Who { uid: found.uid, pid: u32::try_from(found.pid).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_knows_who_connected_it() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(who(&one).unwrap(), Who { uid, pid: std::process::id() });
        assert!(who(&std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
