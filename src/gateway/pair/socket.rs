//! TCP sockets between two gateways: they use the declared interface alone, and come from the configured address.

use crate::config::PairSettings;
use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

fn open(settings: &PairSettings) -> Result<OwnedFd, Errno> {
    let family = if settings.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // The tunnel may get its address later.
    match settings.address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    if let Some(interface) = &settings.interface {
        bind_to(&socket, interface)?;
    }
    Ok(socket)
}

/// Binds a socket to an interface (SO_BINDTODEVICE, socket(7)).
#[allow(unsafe_code, reason = "the option takes a name, which no safe function passes")]
fn bind_to(socket: &OwnedFd, interface: &str) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let name = interface.as_bytes();
    // SAFETY: the pointer and the length are those of `name`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Listens for the peer. A gateway that takes over may do so while the other one still does.
pub(super) fn listen(settings: &PairSettings) -> Result<TcpListener, Errno> {
    let socket = open(settings)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    net::bind(&socket, &settings.address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Begins to connect to the peer, from the own address and any port.
pub(super) fn connect(settings: &PairSettings) -> Result<TcpStream, Errno> {
    let socket = open(settings)?;
    let own = SocketAddr::new(settings.address.ip(), 0);
    net::bind(&socket, &own)?;
    match net::connect(&socket, &settings.peer_address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from_std(socket.into())),
        Err(error) => Err(error),
    }
}
