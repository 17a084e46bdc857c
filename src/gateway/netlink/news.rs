//! Notifications from the kernel of what has changed, with their contents.

use super::frame::frames;
use super::{Message, NetlinkError};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The multicast groups (`RTNLGRP_*`): links; addresses, routes, rules and settings of interfaces, for each family.
const GROUPS: [u32; 9] = [1, 5, 7, 8, 9, 11, 19, 24, 25];
/// Datagrams read in one go; each has one notification.
const MOST: usize = 64;
/// Bytes of notifications that may wait, so that a burst of a thousand is not lost.
const BUFFER: usize = 1 << 20;

/// What [`News::take`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether more may be pending.
    pub more: bool,
    /// Whether notifications were lost: everything may have changed.
    pub lost: bool,
}

/// A non-blocking socket with the notifications of a network namespace.
#[derive(Debug)]
pub struct News {
    socket: Socket,
    buffer: Vec<u8>,
}

impl News {
    /// Subscribes to changes in the network namespace of the calling thread.
    pub fn open() -> Result<News, NetlinkError> {
        let subscribe = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            // A smaller buffer only means that everything is looked at more often.
            let _ = socket.set_rx_buf_sz(BUFFER);
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = subscribe().map_err(|e| NetlinkError::new("subscribing to changes of the system", e))?;
        Ok(News { socket, buffer: vec![0; 32 * 1024] })
    }

    /// Hands pending notifications to `tell`, a bounded number; `None` for one that it cannot parse, such as those of
    /// the settings of interfaces.
    pub fn take(&mut self, mut tell: impl FnMut(Option<Message>)) -> io::Result<Taken> {
        for _ in 0..MOST {
            match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => frames(&self.buffer[..length]).for_each(|frame| tell(frame.parse())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Taken { more: false, lost: false }),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Taken { more: true, lost: true }),
                Err(e) => return Err(e),
            }
        }
        Ok(Taken { more: true, lost: false })
    }
}

impl AsRawFd for News {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
