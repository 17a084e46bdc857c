//! A Unix socket that only its user may connect to, and that no other gateway has.

use mio::net::UnixListener;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a socket of the gateway could not be opened, and how to fix it.
#[derive(Debug)]
pub struct SocketError(String);

impl std::fmt::Display for SocketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SocketError {}

/// A socket of mode 0600 that listens at a path; its file is removed with it.
#[derive(Debug)]
pub(super) struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file: another process may have replaced it since.
    identity: Option<(u64, u64)>,
    /// The directory of the socket, if it was missing.
    made: Option<PathBuf>,
}

impl PrivateSocket {
    /// Listens at `path`, replacing the socket of a killed run; fails if another gateway answers there. Makes the directory
    /// of the socket, not those above it.
    pub(super) fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |doing: &str, error: io::Error| {
            SocketError(format!(
                "cannot {doing} the control socket {}: {error}; make sure that its directory exists and may be \
                 written, or choose another path (gateway.control-socket)",
                path.display()
            ))
        };
        check_free(path)?;
        let made = make_directory(path);
        // Bound under a temporary name, so that nobody can connect before the mode is set.
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(format!(".{}", std::process::id()));
        let hidden = PathBuf::from(hidden);
        let _ = fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(|error| failed("bind", error))?;
        let placed = fs::set_permissions(&hidden, Permissions::from_mode(0o600))
            .and_then(|()| fs::symlink_metadata(&hidden))
            .and_then(|meta| fs::rename(&hidden, path).map(|()| (meta.dev(), meta.ino())));
        let identity = placed.map_err(|error| {
            let _ = fs::remove_file(&hidden);
            failed("place", error)
        })?;
        Ok(PrivateSocket { listener, path: path.to_owned(), identity: Some(identity), made })
    }

    /// Takes over a listener that another process has bound at `path`. From [`PrivateSocket::own`] on its file is removed
    /// with it, and its directory if that process `made` it.
    pub(super) fn from_passed(listener: OwnedFd, path: &Path, made: bool) -> Self {
        let listener = UnixListener::from_std(listener.into());
        let made = path.parent().filter(|_| made).map(Path::to_owned);
        PrivateSocket { listener, path: path.to_owned(), identity: None, made }
    }

    /// Makes a socket that was taken over its own.
    pub(super) fn own(&mut self) {
        self.identity =
            self.identity.or_else(|| fs::symlink_metadata(&self.path).map(|meta| (meta.dev(), meta.ino())).ok());
    }

    /// Returns the listener.
    pub(super) fn listener(&mut self) -> &mut UnixListener {
        &mut self.listener
    }

    /// Returns where it listens.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it has made the directory of its socket.
    pub(super) fn has_made(&self) -> bool {
        self.made.is_some()
    }

    /// Leaves the file of the socket to the process that has taken it over.
    pub(super) fn leave(&mut self) {
        self.identity = None;
    }
}

impl AsFd for PrivateSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path).map(|meta| (meta.dev(), meta.ino())).ok();
        if self.identity.is_none() {
            return;
        }
        if there == self.identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
        // Refused once the process is confined: an empty directory stays then.
        if let Some(made) = &self.made {
            let _ = fs::remove_dir(made);
        }
    }
}

/// Makes the directory for the socket if it is missing, and returns it then. If it cannot be made, binding fails, and says
/// why.
fn make_directory(socket: &Path) -> Option<PathBuf> {
    let directory = socket.parent().filter(|directory| !directory.as_os_str().is_empty())?;
    DirBuilder::new().mode(0o755).create(directory).ok().map(|()| directory.to_owned())
}

/// Checks that nobody listens at `path`, and that the file there, if any, may be replaced.
fn check_free(path: &Path) -> Result<(), SocketError> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(SocketError(format!(
            "{} exists and is not a socket: move it away, or choose another path (gateway.control-socket)",
            path.display()
        )));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(SocketError(format!(
            "another gateway is running: it answers at {}; stop it, take over from it (`equipoise run --takeover`), or give \
             this one a device, route-table, rule-priority and control-socket of its own",
            path.display()
        ))),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_private_replaces_a_dead_one_and_is_removed_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let server = PrivateSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(PrivateSocket::bind(&path).unwrap_err().to_string().contains("another gateway is running"));
        drop(server);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_directory_of_the_socket_is_made_and_removed_but_none_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let server = PrivateSocket::bind(&dir.path().join("equipoise/control.sock")).unwrap();
        assert!(dir.path().join("equipoise/control.sock").exists());
        drop(server);
        assert!(!dir.path().join("equipoise").exists(), "and removed again");
        let error = PrivateSocket::bind(&dir.path().join("a/b/control.sock")).unwrap_err().to_string();
        assert!(error.contains("make sure that its directory exists") && !dir.path().join("a").exists(), "{error}");
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(PrivateSocket::bind(&path).unwrap_err().to_string().contains("not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let first = PrivateSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = PrivateSocket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn whoever_takes_a_socket_over_listens_at_the_same_file_and_removes_it_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/control.sock");
        let mut first = PrivateSocket::bind(&path).unwrap();
        let passed = first.as_fd().try_clone_to_owned().unwrap();
        let mut second = PrivateSocket::from_passed(passed, &path, first.has_made());
        first.leave();
        drop(first);
        second.own();
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(second.listener().accept().is_ok());
        drop(second);
        assert!(!dir.path().join("new").exists());
        let first = PrivateSocket::bind(&path).unwrap();
        let passed = first.as_fd().try_clone_to_owned().unwrap();
        drop(PrivateSocket::from_passed(passed, &path, true));
        assert!(path.exists(), "it has never been its own");
    }
}
